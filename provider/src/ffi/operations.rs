//! Encryption, decryption, digests, signatures and verification (PKCS#11 3.1, sections 5.8 to 5.15).

use pkcs11_sys::*;

use crate::{
    decrypt, digest, encrypt,
    ffi::{
        cryptoki, mechanism,
        pointers::{Input, Output},
    },
    module::module,
    sign, verify,
};

cryptoki! {
    fn C_EncryptInit(session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR, key: CK_OBJECT_HANDLE) {
        let module = module()?;
        let context = module.session(session)?;
        encrypt::init(&context, mechanism::read(mechanism, CKF_ENCRYPT)?, key)
    }

    fn C_Encrypt(
        session: CK_SESSION_HANDLE,
        data: CK_BYTE_PTR,
        length: CK_ULONG,
        out: CK_BYTE_PTR,
        out_length: CK_ULONG_PTR,
    ) {
        encrypt::encrypt(&module()?.session(session)?, &Input::new(data, length), &Output::new(out, out_length))
    }

    fn C_EncryptUpdate(
        session: CK_SESSION_HANDLE,
        part: CK_BYTE_PTR,
        length: CK_ULONG,
        out: CK_BYTE_PTR,
        out_length: CK_ULONG_PTR,
    ) {
        encrypt::update(&module()?.session(session)?, &Input::new(part, length), &Output::new(out, out_length))
    }

    fn C_EncryptFinal(session: CK_SESSION_HANDLE, out: CK_BYTE_PTR, out_length: CK_ULONG_PTR) {
        encrypt::finish(&module()?.session(session)?, &Output::new(out, out_length))
    }

    fn C_DecryptInit(session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR, key: CK_OBJECT_HANDLE) {
        let module = module()?;
        let context = module.session(session)?;
        decrypt::init(&context, mechanism::read(mechanism, CKF_DECRYPT)?, key)
    }

    fn C_Decrypt(
        session: CK_SESSION_HANDLE,
        data: CK_BYTE_PTR,
        length: CK_ULONG,
        out: CK_BYTE_PTR,
        out_length: CK_ULONG_PTR,
    ) {
        decrypt::decrypt(&module()?.session(session)?, &Input::new(data, length), &Output::new(out, out_length))
    }

    fn C_DecryptUpdate(
        session: CK_SESSION_HANDLE,
        part: CK_BYTE_PTR,
        length: CK_ULONG,
        out: CK_BYTE_PTR,
        out_length: CK_ULONG_PTR,
    ) {
        decrypt::update(&module()?.session(session)?, &Input::new(part, length), &Output::new(out, out_length))
    }

    fn C_DecryptFinal(session: CK_SESSION_HANDLE, out: CK_BYTE_PTR, out_length: CK_ULONG_PTR) {
        decrypt::finish(&module()?.session(session)?, &Output::new(out, out_length))
    }

    fn C_DigestInit(session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR) {
        let module = module()?;
        let context = module.session(session)?;
        digest::init(&context, mechanism::read(mechanism, CKF_DIGEST)?)
    }

    fn C_Digest(
        session: CK_SESSION_HANDLE,
        data: CK_BYTE_PTR,
        length: CK_ULONG,
        out: CK_BYTE_PTR,
        out_length: CK_ULONG_PTR,
    ) {
        digest::digest(&module()?.session(session)?, &Input::new(data, length), &Output::new(out, out_length))
    }

    fn C_DigestUpdate(session: CK_SESSION_HANDLE, part: CK_BYTE_PTR, length: CK_ULONG) {
        digest::update(&module()?.session(session)?, &Input::new(part, length))
    }

    fn C_DigestKey(session: CK_SESSION_HANDLE, key: CK_OBJECT_HANDLE) {
        digest::key(&module()?.session(session)?, key)
    }

    fn C_DigestFinal(session: CK_SESSION_HANDLE, out: CK_BYTE_PTR, out_length: CK_ULONG_PTR) {
        digest::finish(&module()?.session(session)?, &Output::new(out, out_length))
    }

    fn C_SignInit(session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR, key: CK_OBJECT_HANDLE) {
        let module = module()?;
        let context = module.session(session)?;
        sign::init(&context, mechanism::read(mechanism, CKF_SIGN)?, key)
    }

    fn C_Sign(
        session: CK_SESSION_HANDLE,
        data: CK_BYTE_PTR,
        length: CK_ULONG,
        signature: CK_BYTE_PTR,
        signature_length: CK_ULONG_PTR,
    ) {
        let out = Output::new(signature, signature_length);
        sign::sign(&module()?.session(session)?, &Input::new(data, length), &out)
    }

    fn C_SignUpdate(session: CK_SESSION_HANDLE, part: CK_BYTE_PTR, length: CK_ULONG) {
        sign::update(&module()?.session(session)?, &Input::new(part, length))
    }

    fn C_SignFinal(session: CK_SESSION_HANDLE, signature: CK_BYTE_PTR, signature_length: CK_ULONG_PTR) {
        sign::finish(&module()?.session(session)?, &Output::new(signature, signature_length))
    }

    fn C_VerifyInit(session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR, key: CK_OBJECT_HANDLE) {
        let module = module()?;
        let context = module.session(session)?;
        verify::init(&context, mechanism::read(mechanism, CKF_VERIFY)?, key)
    }

    fn C_Verify(
        session: CK_SESSION_HANDLE,
        data: CK_BYTE_PTR,
        length: CK_ULONG,
        signature: CK_BYTE_PTR,
        signature_length: CK_ULONG,
    ) {
        let signature = Input::new(signature, signature_length);
        verify::verify(&module()?.session(session)?, &Input::new(data, length), &signature)
    }

    fn C_VerifyUpdate(session: CK_SESSION_HANDLE, part: CK_BYTE_PTR, length: CK_ULONG) {
        verify::update(&module()?.session(session)?, &Input::new(part, length))
    }

    fn C_VerifyFinal(session: CK_SESSION_HANDLE, signature: CK_BYTE_PTR, signature_length: CK_ULONG) {
        verify::finish(&module()?.session(session)?, &Input::new(signature, signature_length))
    }
}
