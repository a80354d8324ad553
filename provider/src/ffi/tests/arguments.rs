//! What a caller gets wrong: null pointers, impossible lengths, attributes and parameters of another shape.

use std::ptr::null_mut;

use pkcs11_sys::{
    CK_ATTRIBUTE, CK_BYTE, CK_GCM_PARAMS, CK_MECHANISM, CK_RSA_PKCS_PSS_PARAMS, CK_ULONG,
    CK_UNAVAILABLE_INFORMATION, CKA_CLASS, CKA_KEY_TYPE, CKA_LABEL, CKA_MODULUS, CKA_SIGN, CKA_START_DATE,
    CKA_TOKEN, CKA_VALUE, CKA_WRAP_TEMPLATE, CKF_DONT_BLOCK, CKF_SERIAL_SESSION, CKG_MGF1_SHA256,
    CKK_GENERIC_SECRET, CKM_AES_CBC, CKM_AES_CTR, CKM_AES_GCM, CKM_AES_KEY_GEN, CKM_EDDSA, CKM_RSA_PKCS_OAEP,
    CKM_SHA256, CKM_SHA256_HMAC, CKM_SHA256_RSA_PKCS_PSS, CKM_SHA512, CKO_SECRET_KEY, CKR_ARGUMENTS_BAD,
    CKR_ATTRIBUTE_SENSITIVE, CKR_ATTRIBUTE_TYPE_INVALID, CKR_ATTRIBUTE_VALUE_INVALID, CKR_BUFFER_TOO_SMALL,
    CKR_DATA_LEN_RANGE, CKR_FUNCTION_NOT_PARALLEL, CKR_FUNCTION_NOT_SUPPORTED, CKR_KEY_HANDLE_INVALID,
    CKR_KEY_TYPE_INCONSISTENT, CKR_MECHANISM_INVALID, CKR_MECHANISM_PARAM_INVALID, CKR_NO_EVENT, CKR_OK,
    CKR_OPERATION_NOT_INITIALIZED, CKR_PIN_LEN_RANGE, CKR_SESSION_HANDLE_INVALID, CKR_SIGNATURE_LEN_RANGE,
    CKR_STATE_UNSAVEABLE, CKU_USER,
};

use strongroom_shared::mechanism::CKM_STRONGROOM_BIP32_CHILD;

use super::*;

#[test]
fn null_pointers_and_impossible_lengths_are_arguments_bad() {
    let (_turn, session) = installed();
    let mut number: CK_ULONG = 0;
    let mut byte: CK_BYTE = 0;
    // SAFETY: pointers are null or to locals; lengths beyond them are such as are never believed.
    unsafe {
        for length in [5, 1 << 63, CK_ULONG::MAX] {
            assert_eq!(C_SeedRandom(session, null_mut(), length), CKR_ARGUMENTS_BAD);
            assert_eq!(C_FindObjectsInit(session, null_mut(), length), CKR_ARGUMENTS_BAD);
            assert_eq!(C_CreateObject(session, null_mut(), length, &mut number), CKR_ARGUMENTS_BAD);
            assert_eq!(C_Login(session, CKU_USER, null_mut(), length), CKR_ARGUMENTS_BAD);
        }
        let mut entry = attribute(CKA_TOKEN, &0_u8);
        for count in [4097, 1 << 31, 1 << 32, 1 << 61, CK_ULONG::MAX] {
            assert_eq!(C_FindObjectsInit(session, &mut entry, count), CKR_ARGUMENTS_BAD);
            assert_eq!(C_GetAttributeValue(session, 1, &mut entry, count), CKR_ARGUMENTS_BAD);
        }
        assert_eq!(C_Login(session, CKU_USER, &mut byte, 1 << 32), CKR_PIN_LEN_RANGE);
        assert_eq!(C_SeedRandom(session, &mut byte, 1 << 32), CKR_DATA_LEN_RANGE);
        for length in [1 << 32, CK_ULONG::MAX] {
            assert_eq!(C_GenerateRandom(session, &mut byte, length), CKR_ARGUMENTS_BAD);
        }
        assert_eq!(C_GenerateRandom(session, null_mut(), 0), CKR_ARGUMENTS_BAD);
        assert_eq!(C_GetSlotList(0, null_mut(), null_mut()), CKR_ARGUMENTS_BAD);
        assert_eq!(C_GetSlotInfo(0, null_mut()), CKR_ARGUMENTS_BAD);
        assert_eq!(C_GetTokenInfo(0, null_mut()), CKR_ARGUMENTS_BAD);
        assert_eq!(C_GetMechanismList(0, null_mut(), null_mut()), CKR_ARGUMENTS_BAD);
        assert_eq!(C_GetMechanismInfo(0, CKM_SHA256, null_mut()), CKR_ARGUMENTS_BAD);
        assert_eq!(C_InitToken(0, null_mut(), 4, null_mut()), CKR_ARGUMENTS_BAD);
        assert_eq!(C_OpenSession(0, CKF_SERIAL_SESSION, null_mut(), None, null_mut()), CKR_ARGUMENTS_BAD);
        assert_eq!(C_GetSessionInfo(session, null_mut()), CKR_ARGUMENTS_BAD);
        assert_eq!(C_GetObjectSize(session, 1, null_mut()), CKR_ARGUMENTS_BAD);
        assert_eq!(C_FindObjects(session, null_mut(), 1, &mut number), CKR_ARGUMENTS_BAD);
        assert_eq!(C_DigestInit(session, null_mut()), CKR_ARGUMENTS_BAD);
        let mut aes = mechanism(CKM_AES_KEY_GEN);
        assert_eq!(C_GenerateKey(session, &mut aes, null_mut(), 0, null_mut()), CKR_ARGUMENTS_BAD);
        assert_eq!(C_GenerateKey(session, null_mut(), null_mut(), 0, &mut number), CKR_ARGUMENTS_BAD);
        assert_eq!(C_WaitForSlotEvent(CKF_DONT_BLOCK, &mut number, null_mut()), CKR_NO_EVENT);
        assert_eq!(C_GetFunctionStatus(session), CKR_FUNCTION_NOT_PARALLEL);
        assert_eq!(C_DeriveKey(session, &mut aes, 1, null_mut(), 0, &mut number), CKR_MECHANISM_INVALID);
        assert_eq!(C_WrapKey(session, &mut aes, 1, 1, null_mut(), &mut number), CKR_FUNCTION_NOT_SUPPORTED);
        assert_eq!(C_GetOperationState(session, null_mut(), &mut number), CKR_STATE_UNSAVEABLE);
        assert_eq!(C_CloseSession(session + 1), CKR_SESSION_HANDLE_INVALID);
    }
}

#[test]
fn a_null_pointer_ends_the_operation_that_it_was_given_to() {
    let (_turn, session) = installed();
    let key = hmac_key(session);
    let mut length: CK_ULONG = 32;
    let (mut buffer, mut data) = ([0_u8; 32], [0_u8; 4]);
    // SAFETY: pointers are null or to locals.
    unsafe {
        let mut hmac = mechanism(CKM_SHA256_HMAC);
        let mut begin = || assert_eq!(C_SignInit(session, &mut hmac, key), CKR_OK);
        let (out, out_length) = (buffer.as_mut_ptr(), &raw mut length);
        let over = || assert_eq!(C_SignUpdate(session, null_mut(), 0), CKR_OPERATION_NOT_INITIALIZED);
        begin();
        assert_eq!(C_Sign(session, null_mut(), 4, out, out_length), CKR_ARGUMENTS_BAD);
        over();
        begin();
        assert_eq!(C_Sign(session, null_mut(), 4, null_mut(), out_length), CKR_ARGUMENTS_BAD);
        over();
        begin();
        assert_eq!(C_Sign(session, data.as_mut_ptr(), 4, out, null_mut()), CKR_ARGUMENTS_BAD);
        over();
        begin();
        assert_eq!(C_Sign(session, data.as_mut_ptr(), 1 << 31, out, out_length), CKR_DATA_LEN_RANGE);
        over();
        begin();
        assert_eq!(C_SignUpdate(session, null_mut(), 4), CKR_ARGUMENTS_BAD);
        over();
        let mut sha = mechanism(CKM_SHA256);
        assert_eq!(C_DigestInit(session, &mut sha), CKR_OK);
        assert_eq!(C_Digest(session, data.as_mut_ptr(), 1 << 31, out, out_length), CKR_DATA_LEN_RANGE);
        assert_eq!(C_DigestUpdate(session, null_mut(), 0), CKR_OPERATION_NOT_INITIALIZED);
        // A capacity that cannot be is still enough.
        begin();
        length = CK_ULONG::MAX;
        assert_eq!(C_Sign(session, null_mut(), 0, out, out_length), CKR_OK);
        assert_eq!(length, 32);
        let mut verify = mechanism(CKM_SHA256_HMAC);
        let may_verify = vec![
            attribute(CKA_CLASS, &CKO_SECRET_KEY),
            attribute(CKA_KEY_TYPE, &CKK_GENERIC_SECRET),
            attribute(CKA_VALUE, &[7_u8; 32]),
            attribute(pkcs11_sys::CKA_VERIFY, &1_u8),
        ];
        let key = create(session, may_verify).unwrap();
        assert_eq!(C_VerifyInit(session, &mut verify, key), CKR_OK);
        assert_eq!(C_Verify(session, null_mut(), 0, out, 1 << 40), CKR_SIGNATURE_LEN_RANGE);
    }
}

#[test]
fn attribute_values_have_their_shape() {
    let (_turn, session) = installed();
    let invalid = |entry| assert_eq!(create(session, vec![entry]), Err(CKR_ATTRIBUTE_VALUE_INVALID));
    invalid(attribute(CKA_TOKEN, &0_u64));
    invalid(attribute(CKA_TOKEN, &2_u8));
    invalid(attribute(CKA_CLASS, &4_u32));
    invalid(attribute(CKA_START_DATE, b"2026112"));
    invalid(attribute(CKA_START_DATE, b"2026112x"));
    invalid(CK_ATTRIBUTE { type_: CKA_LABEL, pValue: null_mut(), ulValueLen: 4 });
    invalid(CK_ATTRIBUTE { ulValueLen: CK_UNAVAILABLE_INFORMATION, ..attribute(CKA_LABEL, &0_u8) });
    invalid(CK_ATTRIBUTE { ulValueLen: 1 << 31, ..attribute(CKA_LABEL, &0_u8) });
    let nested = create(session, vec![attribute(CKA_WRAP_TEMPLATE, &CK_ATTRIBUTE::default())]);
    assert_eq!(nested, Err(CKR_ATTRIBUTE_TYPE_INVALID));
    // Misaligned values are read all the same.
    let mut memory = [0_u8; 9];
    memory[1..].copy_from_slice(&CKO_SECRET_KEY.to_ne_bytes());
    let misaligned =
        CK_ATTRIBUTE { type_: CKA_CLASS, pValue: memory[1..].as_mut_ptr().cast(), ulValueLen: 8 };
    assert!(create(session, vec![misaligned]).is_ok());
}

#[test]
fn every_attribute_asked_for_is_answered() {
    let (_turn, session) = installed();
    let key = hmac_key(session);
    let (mut class, mut short, mut secret) = ([0xee_u8; 9], [0xee_u8; 4], [0xee_u8; 32]);
    let ask = |kinds: &mut [CK_ATTRIBUTE]| {
        // SAFETY: every pointer is null or to a local of the length beside it.
        unsafe { C_GetAttributeValue(session, key, kinds.as_mut_ptr(), kinds.len() as CK_ULONG) }
    };
    let entry = |kind, value: &mut [u8]| CK_ATTRIBUTE {
        type_: kind,
        pValue: value.as_mut_ptr().cast(),
        ulValueLen: value.len() as CK_ULONG,
    };
    let length_of = |kind| CK_ATTRIBUTE { type_: kind, pValue: null_mut(), ulValueLen: 0 };
    let mut all = [
        entry(CKA_VALUE, &mut secret),
        entry(CKA_KEY_TYPE, &mut short),
        length_of(CKA_MODULUS),
        length_of(CKA_SIGN),
        entry(CKA_CLASS, &mut class[1..]),
    ];
    let rv = ask(&mut all);
    assert!(
        [CKR_ATTRIBUTE_SENSITIVE, CKR_ATTRIBUTE_TYPE_INVALID, CKR_BUFFER_TOO_SMALL].contains(&rv),
        "{rv:#x}"
    );
    let lengths = all.map(|entry| entry.ulValueLen);
    let none = CK_UNAVAILABLE_INFORMATION;
    assert_eq!(lengths, [none, none, none, 1, 8]);
    assert_eq!(class[1..], CKO_SECRET_KEY.to_ne_bytes());
    assert_eq!((short, secret), ([0xee; 4], [0xee; 32]));
    assert_eq!(ask(&mut [length_of(CKA_VALUE)]), CKR_ATTRIBUTE_SENSITIVE);
    assert_eq!(ask(&mut [length_of(CKA_MODULUS)]), CKR_ATTRIBUTE_TYPE_INVALID);
    assert_eq!(ask(&mut [entry(CKA_KEY_TYPE, &mut [0; 4])]), CKR_BUFFER_TOO_SMALL);
    assert_eq!(ask(&mut []), CKR_OK);
}

#[test]
fn mechanism_parameters_are_checked_before_they_are_used() {
    let (_turn, session) = installed();
    let init = |mut chosen: CK_MECHANISM| {
        // SAFETY: every pointer is null or to a local, and lengths beyond them are such as are never believed.
        unsafe {
            match C_EncryptInit(session, &mut chosen, 99) {
                CKR_MECHANISM_INVALID => {}
                rv => return rv,
            }
            match C_SignInit(session, &mut chosen, 99) {
                CKR_MECHANISM_INVALID => C_DigestInit(session, &mut chosen),
                rv => rv,
            }
        }
    };
    let invalid = |chosen| assert_eq!(init(chosen), CKR_MECHANISM_PARAM_INVALID);
    assert_eq!(init(mechanism(0xdead_beef)), CKR_MECHANISM_INVALID);
    let stray = CK_MECHANISM { pParameter: null_mut(), ulParameterLen: 4, ..mechanism(CKM_SHA256) };
    invalid(stray);
    invalid(with_parameter(CKM_SHA256_HMAC, &0_u64));
    // A mechanism for another use is invalid, whatever its parameter.
    assert_eq!(init(with_parameter(CKM_AES_KEY_GEN, &0_u8)), CKR_MECHANISM_INVALID);
    invalid(mechanism(CKM_AES_CBC));
    invalid(with_parameter(CKM_AES_CBC, &[0_u8; 15]));
    invalid(CK_MECHANISM { pParameter: null_mut(), ulParameterLen: 16, ..mechanism(CKM_AES_CBC) });
    for bits in [0_u64, 129, CK_ULONG::MAX] {
        invalid(with_parameter(CKM_AES_CTR, &(bits, [0_u8; 16])));
    }
    let mut iv = [0_u8; 12];
    let good =
        CK_GCM_PARAMS { pIv: iv.as_mut_ptr(), ulIvLen: 12, ulTagBits: 128, ..CK_GCM_PARAMS::default() };
    assert_ne!(init(with_parameter(CKM_AES_GCM, &good)), CKR_MECHANISM_PARAM_INVALID);
    for bad in [
        CK_GCM_PARAMS { pIv: null_mut(), ..good },
        CK_GCM_PARAMS { ulIvLen: 0, ..good },
        CK_GCM_PARAMS { ulIvLen: 1 << 40, ..good },
        CK_GCM_PARAMS { ulAADLen: 4, ..good },
        CK_GCM_PARAMS { pAAD: iv.as_mut_ptr(), ulAADLen: CK_ULONG::MAX, ..good },
        CK_GCM_PARAMS { ulTagBits: 0, ..good },
        CK_GCM_PARAMS { ulTagBits: 8, ..good },
        CK_GCM_PARAMS { ulTagBits: 136, ..good },
    ] {
        invalid(with_parameter(CKM_AES_GCM, &bad));
    }
    let pss = CK_RSA_PKCS_PSS_PARAMS { hashAlg: CKM_SHA256, mgf: CKG_MGF1_SHA256, sLen: 32 };
    assert_ne!(init(with_parameter(CKM_SHA256_RSA_PKCS_PSS, &pss)), CKR_MECHANISM_PARAM_INVALID);
    for bad in [
        CK_RSA_PKCS_PSS_PARAMS { hashAlg: CKM_SHA512, ..pss },
        CK_RSA_PKCS_PSS_PARAMS { mgf: 77, ..pss },
        CK_RSA_PKCS_PSS_PARAMS { sLen: CK_ULONG::MAX, ..pss },
    ] {
        invalid(with_parameter(CKM_SHA256_RSA_PKCS_PSS, &bad));
    }
    let oaep = pkcs11_sys::CK_RSA_PKCS_OAEP_PARAMS {
        hashAlg: CKM_SHA256,
        mgf: CKG_MGF1_SHA256,
        source: pkcs11_sys::CKZ_DATA_SPECIFIED,
        pSourceData: null_mut(),
        ulSourceDataLen: 0,
    };
    assert_ne!(init(with_parameter(CKM_RSA_PKCS_OAEP, &oaep)), CKR_MECHANISM_PARAM_INVALID);
    invalid(with_parameter(
        CKM_RSA_PKCS_OAEP,
        &pkcs11_sys::CK_RSA_PKCS_OAEP_PARAMS { ulSourceDataLen: 3, ..oaep },
    ));
    invalid(with_parameter(CKM_RSA_PKCS_OAEP, &pkcs11_sys::CK_RSA_PKCS_OAEP_PARAMS { source: 9, ..oaep }));
    let prehash = pkcs11_sys::CK_EDDSA_PARAMS { phFlag: 1, ulContextDataLen: 0, pContextData: null_mut() };
    invalid(with_parameter(CKM_EDDSA, &prehash));
    let derive = |mut chosen: CK_MECHANISM| {
        let mut derived = 0;
        // SAFETY: as above.
        unsafe { C_DeriveKey(session, &mut chosen, 99, null_mut(), 0, &mut derived) }
    };
    let path = |indices: &[u32]| CK_MECHANISM {
        mechanism: CKM_STRONGROOM_BIP32_CHILD,
        pParameter: indices.as_ptr().cast_mut().cast(),
        ulParameterLen: size_of_val(indices) as CK_ULONG,
    };
    for wrong in [
        path(&[]),
        path(&[0; 17]),
        path(&[0, 1 << 31]),
        CK_MECHANISM { ulParameterLen: 7, ..path(&[0, 0]) },
        CK_MECHANISM { ulParameterLen: CK_ULONG::MAX, ..path(&[0]) },
        CK_MECHANISM { pParameter: null_mut(), ..path(&[0]) },
        mechanism(CKM_STRONGROOM_BIP32_CHILD),
    ] {
        assert_eq!(derive(wrong), CKR_MECHANISM_PARAM_INVALID);
    }
    assert_eq!(derive(path(&[0x7fff_ffff])), CKR_KEY_HANDLE_INVALID);
    let key = hmac_key(session);
    let mut derived = 0;
    // SAFETY: as above.
    let rv = unsafe { C_DeriveKey(session, &mut path(&[0; 16]), key, null_mut(), 0, &mut derived) };
    assert_eq!(rv, CKR_KEY_TYPE_INCONSISTENT);
}
