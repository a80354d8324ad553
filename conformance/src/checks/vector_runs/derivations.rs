//! Vectors of keys that are derived, agreed on or decapsulated.

use cryptoki_sys::*;

use crate::checks::vectors::{Answer, Case, Job};
use crate::mechanisms::curves::octets;
use crate::raw::{Arg, Function as F};
use crate::session::Session;
use crate::template::{Mechanism, Template, Word};
use crate::vectors::Expected;

use super::*;

/// The template of a secret whose value may be read.
pub fn product() -> Template {
    Template::of_class(CKO_SECRET_KEY)
        .ulong(CKA_KEY_TYPE, CKK_GENERIC_SECRET)
        .bool(CKA_TOKEN, false)
        .bool(CKA_PRIVATE, true)
        .bool(CKA_SENSITIVE, false)
        .bool(CKA_EXTRACTABLE, true)
}

pub fn value_of(session: &Session<'_>, key: CK_OBJECT_HANDLE, published: &[u8]) -> Ran {
    let value = session.attribute(key, CKA_VALUE);
    let _destroyed = session.destroy(key);
    Ok(compared(&value?, published))
}

fn derived(session: &Session<'_>, base: CK_OBJECT_HANDLE, mechanism: &Mechanism, published: &[u8]) -> Ran {
    let template = product().ulong(CKA_VALUE_LEN, published.len() as CK_ULONG);
    let [attributes, count] = template.args();
    let mut made: CK_OBJECT_HANDLE = 0;
    let rv = {
        let made = Arg::of_mut(&mut made);
        session.call(F::C_DeriveKey, &[mechanism.arg(), Arg::number(base), attributes, count, made])
    };
    if rv.was(CKR_OK) { value_of(session, made, published) } else { Ok(Answer::Refused(rv)) }
}

/// ECDH with the other side's point as it is, or as a DER octet string for tokens that want that.
///
/// # Errors
/// `Skipped`, if the file lacks a part.
pub fn ecdh(session: &Session<'_>, key: CK_OBJECT_HANDLE, case: &Case<'_>, job: &Job) -> Ran {
    let (point, shared) = (case.bytes("public")?, case.bytes("shared")?);
    let mut last = Answer::Beyond;
    for point in [point.clone(), octets(&point)] {
        let length = point.len() as CK_ULONG;
        let numbers = [CKD_NULL, 0, 0, length].map(Word::Number);
        let words = [numbers.as_slice(), &[Word::Memory(point)]].concat();
        last = derived(session, key, &Mechanism::structure(job.mechanism, &words), &shared)?;
        if !matches!(last, Answer::Refused(_)) {
            return Ok(last);
        }
    }
    Ok(last)
}

/// HKDF, extraction and expansion.
///
/// # Errors
/// `Skipped`, if the file lacks a part.
pub fn hkdf(session: &Session<'_>, key: CK_OBJECT_HANDLE, case: &Case<'_>, job: &Job) -> Ran {
    let (salt, info) = (case.bytes("salt")?, case.bytes("info")?);
    let hash = match job.file {
        "hkdf_sha1" => CKM_SHA_1,
        "hkdf_sha256" => CKM_SHA256,
        "hkdf_sha384" => CKM_SHA384,
        _ => CKM_SHA512,
    };
    let both = CK_ULONG::from_ne_bytes([1, 1, 0, 0, 0, 0, 0, 0]);
    let kind = if salt.is_empty() { CKF_HKDF_SALT_NULL } else { CKF_HKDF_SALT_DATA };
    let words = [
        Word::Number(both),
        Word::Number(hash),
        Word::Number(kind),
        Word::Memory(salt.clone()),
        Word::Number(salt.len() as CK_ULONG),
        Word::Number(0),
        Word::Memory(info.clone()),
        Word::Number(info.len() as CK_ULONG),
    ];
    let mechanism = Mechanism::structure(job.mechanism, &words);
    if case.test.result == Expected::Invalid {
        // More than the function can give: only the length of the key asks for it.
        let template = product().ulong(CKA_VALUE_LEN, case.test.fields.number("size")?);
        let [attributes, count] = template.args();
        let mut made: CK_OBJECT_HANDLE = 0;
        let made = Arg::of_mut(&mut made);
        let arguments = [mechanism.arg(), Arg::number(key), attributes, count, made];
        let rv = session.call(F::C_DeriveKey, &arguments);
        return Ok(if rv.was(CKR_OK) { Answer::Right } else { Answer::Refused(rv) });
    }
    derived(session, key, &mechanism, &case.bytes("okm")?)
}

/// PBKDF2.
///
/// # Errors
/// `Skipped`, if the file lacks a part.
pub fn pbkdf2(session: &Session<'_>, _: CK_OBJECT_HANDLE, case: &Case<'_>, job: &Job) -> Ran {
    let (salt, password) = (case.bytes("salt")?, case.bytes("password")?);
    let function = match job.file {
        "pbkdf2_hmacsha1" => CKP_PKCS5_PBKD2_HMAC_SHA1,
        "pbkdf2_hmacsha256" => CKP_PKCS5_PBKD2_HMAC_SHA256,
        _ => CKP_PKCS5_PBKD2_HMAC_SHA512,
    };
    let words = [
        Word::Number(CKZ_SALT_SPECIFIED),
        Word::Memory(salt.clone()),
        Word::Number(salt.len() as CK_ULONG),
        Word::Number(case.test.fields.number("iterationCount")?),
        Word::Number(function),
        Word::Number(0),
        Word::Number(0),
        Word::Memory(password.clone()),
        Word::Number(password.len() as CK_ULONG),
    ];
    let published = case.bytes("dk")?;
    let template = product().ulong(CKA_VALUE_LEN, published.len() as CK_ULONG);
    let (rv, made) = session.try_generate(&Mechanism::structure(job.mechanism, &words), &template);
    match rv.code {
        CKR_OK => value_of(session, made, &published),
        CKR_MECHANISM_PARAM_INVALID => Ok(Answer::Beyond),
        _ => Ok(Answer::Refused(rv)),
    }
}

/// The shared secret of ML-KEM.
///
/// # Errors
/// `Skipped`, if the file lacks a part.
pub fn ml_kem(session: &Session<'_>, key: CK_OBJECT_HANDLE, case: &Case<'_>, job: &Job) -> Ran {
    let (ciphertext, shared) = (case.bytes("c")?, case.bytes("K").unwrap_or_default());
    let mechanism = Mechanism::plain(job.mechanism);
    let template = product().ulong(CKA_VALUE_LEN, 32);
    let [attributes, count] = template.args();
    let (input, length) = (Arg::slice(&ciphertext), Arg::number(ciphertext.len() as CK_ULONG));
    let mut made: CK_OBJECT_HANDLE = 0;
    let rv = {
        let made = Arg::of_mut(&mut made);
        let arguments = [mechanism.arg(), Arg::number(key), attributes, count, input, length, made];
        session.call(F::C_DecapsulateKey, &arguments)
    };
    if rv.was(CKR_OK) { value_of(session, made, &shared) } else { Ok(Answer::Refused(rv)) }
}
