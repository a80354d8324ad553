//! Vectors of ciphers: what comes out for what goes in, both ways; and of keys that are wrapped.

use cryptoki_sys::*;

use crate::check::Stop;
use crate::checks::vectors::{Answer, Case, Job};
use crate::raw::{Arg, Function as F};
use crate::session::Session;
use crate::template::{Mechanism, Out, Template, Word};
use crate::vectors::Expected;

use super::*;

fn opened(
    session: &Session<'_>,
    key: CK_OBJECT_HANDLE,
    mechanism: &Mechanism,
    ciphertext: &[u8],
    plaintext: &[u8],
) -> Answer {
    if let Some(refusal) = init(session, F::C_DecryptInit, mechanism, key) {
        return refusal;
    }
    let mut out = Out::room(ciphertext.len() + 1024);
    let rv = session.run(F::C_Decrypt, ciphertext, &mut out);
    if rv.was(CKR_OK) { compared(out.bytes(), plaintext) } else { Answer::Refused(rv) }
}

/// An OAEP ciphertext.
///
/// # Errors
/// `Skipped`, if the file lacks a part.
pub fn oaep(session: &Session<'_>, key: CK_OBJECT_HANDLE, case: &Case<'_>, job: &Job) -> Ran {
    let (hash, _) = hash_of(&case.group.fields.text("sha")?)?;
    let (_, mask) = hash_of(&case.group.fields.text("mgfSha")?)?;
    let label = case.bytes("label")?;
    let words = [
        Word::Number(hash),
        Word::Number(mask),
        Word::Number(CKZ_DATA_SPECIFIED),
        Word::Memory(label.clone()),
        Word::Number(label.len() as CK_ULONG),
    ];
    let mechanism = Mechanism::structure(job.mechanism, &words);
    Ok(opened(session, key, &mechanism, &case.bytes("ct")?, &case.bytes("msg")?))
}

/// A ciphertext of RSAES-PKCS1-v1_5.
///
/// # Errors
/// `Skipped`, if the file lacks a part.
pub fn rsa_decrypt(session: &Session<'_>, key: CK_OBJECT_HANDLE, case: &Case<'_>, job: &Job) -> Ran {
    let mechanism = Mechanism::plain(job.mechanism);
    Ok(match opened(session, key, &mechanism, &case.bytes("ct")?, &case.bytes("msg")?) {
        Answer::Wrong(seen) => Answer::Other(seen),
        answer @ (Answer::Right | Answer::Other(_) | Answer::Refused(_) | Answer::Beyond) => answer,
    })
}

/// Encrypts where the vector is valid, and decrypts in any case.
fn both_ways(
    session: &Session<'_>,
    key: CK_OBJECT_HANDLE,
    case: &Case<'_>,
    mechanism: &Mechanism,
    ciphertext: &[u8],
) -> Ran {
    let plaintext = case.bytes("msg")?;
    if case.test.result == Expected::Valid {
        if let Some(refusal) = init(session, F::C_EncryptInit, mechanism, key) {
            return Ok(refusal);
        }
        let mut out = Out::room(plaintext.len() + 64);
        let rv = session.run(F::C_Encrypt, &plaintext, &mut out);
        if !rv.was(CKR_OK) {
            return Ok(Answer::Refused(rv));
        }
        let answer = compared(out.bytes(), ciphertext);
        if !matches!(answer, Answer::Right) {
            return Ok(answer);
        }
    }
    Ok(opened(session, key, mechanism, ciphertext, &plaintext))
}

fn sealed(case: &Case<'_>) -> Result<Vec<u8>, Stop> {
    Ok([case.bytes("ct")?, case.bytes("tag")?].concat())
}

/// AES-GCM.
///
/// # Errors
/// `Skipped`, if the file lacks a part.
pub fn gcm(session: &Session<'_>, key: CK_OBJECT_HANDLE, case: &Case<'_>, _: &Job) -> Ran {
    let mechanism = Mechanism::gcm(&case.bytes("iv")?, &case.bytes("aad")?, case.shared("tagSize")?);
    both_ways(session, key, case, &mechanism, &sealed(case)?)
}

/// AES-CCM.
///
/// # Errors
/// `Skipped`, if the file lacks a part.
pub fn ccm(session: &Session<'_>, key: CK_OBJECT_HANDLE, case: &Case<'_>, job: &Job) -> Ran {
    let (nonce, aad) = (case.bytes("iv")?, case.bytes("aad")?);
    let words = [
        Word::Number(case.bytes("msg")?.len() as CK_ULONG),
        Word::Memory(nonce.clone()),
        Word::Number(nonce.len() as CK_ULONG),
        Word::Memory(aad.clone()),
        Word::Number(aad.len() as CK_ULONG),
        Word::Number(case.shared("tagSize")? / 8),
    ];
    both_ways(session, key, case, &Mechanism::structure(job.mechanism, &words), &sealed(case)?)
}

/// ChaCha20-Poly1305.
///
/// # Errors
/// `Skipped`, if the file lacks a part.
pub fn chacha(session: &Session<'_>, key: CK_OBJECT_HANDLE, case: &Case<'_>, job: &Job) -> Ran {
    let (nonce, aad) = (case.bytes("iv")?, case.bytes("aad")?);
    let words = [
        Word::Memory(nonce.clone()),
        Word::Number(nonce.len() as CK_ULONG),
        Word::Memory(aad.clone()),
        Word::Number(aad.len() as CK_ULONG),
    ];
    both_ways(session, key, case, &Mechanism::structure(job.mechanism, &words), &sealed(case)?)
}

/// CBC with padding.
///
/// # Errors
/// `Skipped`, if the file lacks a part.
pub fn cbc_pad(session: &Session<'_>, key: CK_OBJECT_HANDLE, case: &Case<'_>, job: &Job) -> Ran {
    let mechanism = Mechanism::bytes(job.mechanism, &case.bytes("iv")?);
    both_ways(session, key, case, &mechanism, &case.bytes("ct")?)
}

/// AES-XTS, whose tweak is a number of 64 bits in 16 bytes.
///
/// # Errors
/// `Skipped`, if the file lacks a part.
pub fn xts(session: &Session<'_>, key: CK_OBJECT_HANDLE, case: &Case<'_>, job: &Job) -> Ran {
    let mut tweak = case.bytes("iv")?;
    tweak.resize(16, 0);
    both_ways(session, key, case, &Mechanism::bytes(job.mechanism, &tweak), &case.bytes("ct")?)
}

/// A key wrapped, and unwrapped.
///
/// # Errors
/// `Skipped`, if the file lacks a part.
pub fn wrap(session: &Session<'_>, key: CK_OBJECT_HANDLE, case: &Case<'_>, job: &Job) -> Ran {
    let (value, blob) = (case.bytes("msg")?, case.bytes("ct")?);
    let mechanism = Mechanism::plain(job.mechanism);
    let template = Template::secret(CKK_GENERIC_SECRET, &value)
        .bool(CKA_PRIVATE, true)
        .bool(CKA_SENSITIVE, false)
        .bool(CKA_EXTRACTABLE, true);
    let (rv, target) = session.try_create(&template);
    if case.test.result == Expected::Valid {
        if !rv.was(CKR_OK) {
            return Ok(Answer::Beyond);
        }
        let mut out = Out::room(blob.len() + 64);
        let [buffer, length] = out.args();
        let arguments = [mechanism.arg(), Arg::number(key), Arg::number(target), buffer, length];
        let rv = session.call(F::C_WrapKey, &arguments);
        let _destroyed = session.destroy(target);
        if !rv.was(CKR_OK) {
            return Ok(Answer::Refused(rv));
        }
        let answer = compared(out.bytes(), &blob);
        if !matches!(answer, Answer::Right) {
            return Ok(answer);
        }
    }
    let open = product().without(CKA_VALUE_LEN);
    let [attributes, count] = open.args();
    let (input, length) = (Arg::slice(&blob), Arg::number(blob.len() as CK_ULONG));
    let mut made: CK_OBJECT_HANDLE = 0;
    let rv = {
        let made = Arg::of_mut(&mut made);
        let arguments = [mechanism.arg(), Arg::number(key), input, length, attributes, count, made];
        session.call(F::C_UnwrapKey, &arguments)
    };
    if rv.was(CKR_OK) { value_of(session, made, &value) } else { Ok(Answer::Refused(rv)) }
}
