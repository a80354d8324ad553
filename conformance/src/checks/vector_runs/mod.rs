//! What is done with a published vector and its key.

mod ciphers;
mod derivations;

use cryptoki_sys::*;
use sha2::Digest as _;

use crate::check::Stop;
use crate::checks::vectors::{Answer, Case, Difference, Job};
use crate::raw::Function as F;
use crate::session::Session;
use crate::template::{Mechanism, Out, Word};
use crate::vectors::Expected;

pub use ciphers::*;
pub use derivations::*;

/// What came of a vector, or why it could not be tried.
type Ran = Result<Answer, Stop>;

fn compared(seen: &[u8], published: &[u8]) -> Answer {
    if seen == published {
        return Answer::Right;
    }
    Answer::Wrong(Difference { seen: seen.to_vec(), published: published.to_vec() })
}

/// Refusals of a parameter that a token may decline.
fn init(session: &Session<'_>, function: F, mechanism: &Mechanism, key: CK_OBJECT_HANDLE) -> Option<Answer> {
    let rv = session.init(function, mechanism, Some(key));
    match rv.code {
        CKR_OK => None,
        CKR_MECHANISM_PARAM_INVALID | CKR_ARGUMENTS_BAD | CKR_KEY_SIZE_RANGE => Some(Answer::Beyond),
        _ => Some(Answer::Refused(rv)),
    }
}

fn verified(
    session: &Session<'_>,
    key: CK_OBJECT_HANDLE,
    mechanism: &Mechanism,
    data: &[u8],
    signature: &[u8],
) -> Answer {
    if let Some(refusal) = init(session, F::C_VerifyInit, mechanism, key) {
        return refusal;
    }
    let rv = session.verify(data, signature);
    if rv.was(CKR_OK) { Answer::Right } else { Answer::Refused(rv) }
}

/// A signature of the message.
///
/// # Errors
/// `Skipped`, if the file lacks a part.
pub fn verify_message(session: &Session<'_>, key: CK_OBJECT_HANDLE, case: &Case<'_>, job: &Job) -> Ran {
    let mechanism = Mechanism::plain(job.mechanism);
    Ok(verified(session, key, &mechanism, &case.bytes("msg")?, &case.bytes("sig")?))
}

/// A signature by Ed448, whose parameter is not optional (6.3.15).
///
/// # Errors
/// `Skipped`, if the file lacks a part.
pub fn verify_ed448(session: &Session<'_>, key: CK_OBJECT_HANDLE, case: &Case<'_>, job: &Job) -> Ran {
    let mechanism = Mechanism::words(job.mechanism, &[0, 0, 0]);
    Ok(verified(session, key, &mechanism, &case.bytes("msg")?, &case.bytes("sig")?))
}

/// A signature of the message's hash value.
///
/// # Errors
/// `Skipped`, if the file lacks a part.
pub fn verify_digest(session: &Session<'_>, key: CK_OBJECT_HANDLE, case: &Case<'_>, job: &Job) -> Ran {
    let (hash, _) = hashed(&case.group.fields.text("sha")?, &case.bytes("msg")?)?;
    Ok(verified(session, key, &Mechanism::plain(job.mechanism), &hash, &case.bytes("sig")?))
}

/// A signature of the message's hash value in a DigestInfo.
///
/// # Errors
/// `Skipped`, if the file lacks a part.
pub fn verify_digest_info(session: &Session<'_>, key: CK_OBJECT_HANDLE, case: &Case<'_>, job: &Job) -> Ran {
    let (hash, prefix) = hashed(&case.group.fields.text("sha")?, &case.bytes("msg")?)?;
    let encoded = [prefix.as_slice(), &hash].concat();
    Ok(verified(session, key, &Mechanism::plain(job.mechanism), &encoded, &case.bytes("sig")?))
}

/// A hash value, and what stands before it in a DigestInfo (RFC 8017, section 9.2).
fn hashed(name: &str, message: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Stop> {
    let (value, arc): (Vec<u8>, u8) = match name {
        "SHA-224" => (sha2::Sha224::digest(message).to_vec(), 4),
        "SHA-256" => (sha2::Sha256::digest(message).to_vec(), 1),
        "SHA-384" => (sha2::Sha384::digest(message).to_vec(), 2),
        "SHA-512" => (sha2::Sha512::digest(message).to_vec(), 3),
        other => return Err(Stop::Skipped(format!("the suite has no {other}"))),
    };
    let length = value.len() as u8;
    let oid = [0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, arc, 0x05, 0x00];
    Ok((value, [&[0x30, 17 + length, 0x30, 0x0d], oid.as_slice(), &[0x04, length]].concat()))
}

/// A digest mechanism and its mask generation function.
fn hash_of(name: &str) -> Result<(CK_ULONG, CK_ULONG), Stop> {
    match name {
        "SHA-1" => Ok((CKM_SHA_1, CKG_MGF1_SHA1)),
        "SHA-224" => Ok((CKM_SHA224, CKG_MGF1_SHA224)),
        "SHA-256" => Ok((CKM_SHA256, CKG_MGF1_SHA256)),
        "SHA-384" => Ok((CKM_SHA384, CKG_MGF1_SHA384)),
        "SHA-512" => Ok((CKM_SHA512, CKG_MGF1_SHA512)),
        other => Err(Stop::Skipped(format!("the suite has no {other}"))),
    }
}

/// A PSS signature.
///
/// # Errors
/// `Skipped`, if the file lacks a part.
pub fn verify_pss(session: &Session<'_>, key: CK_OBJECT_HANDLE, case: &Case<'_>, job: &Job) -> Ran {
    let (hash, _) = hash_of(&case.group.fields.text("sha")?)?;
    let (_, mask) = hash_of(&case.group.fields.text("mgfSha")?)?;
    let mechanism = Mechanism::pss(job.mechanism, hash, mask, case.shared("sLen")?);
    Ok(verified(session, key, &mechanism, &case.bytes("msg")?, &case.bytes("sig")?))
}

fn signed(session: &Session<'_>, key: CK_OBJECT_HANDLE, case: &Case<'_>, mechanism: &Mechanism) -> Ran {
    let (message, tag) = (case.bytes("msg")?, case.bytes("tag")?);
    if case.test.result == Expected::Valid {
        if let Some(refusal) = init(session, F::C_SignInit, mechanism, key) {
            return Ok(refusal);
        }
        let mut out = Out::room(128);
        let rv = session.run(F::C_Sign, &message, &mut out);
        if !rv.was(CKR_OK) {
            return Ok(Answer::Refused(rv));
        }
        let answer = compared(out.bytes(), &tag);
        if !matches!(answer, Answer::Right) {
            return Ok(answer);
        }
    }
    Ok(verified(session, key, mechanism, &message, &tag))
}

/// A message authentication code of full length; shorter ones are another mechanism's.
///
/// # Errors
/// `Skipped`, if the file lacks a part.
pub fn mac(session: &Session<'_>, key: CK_OBJECT_HANDLE, case: &Case<'_>, job: &Job) -> Ran {
    let full = match job.file {
        "hmac_sha1" => 160,
        "aes_cmac" => 128,
        "hmac_sha224" | "hmac_sha3_224" | "hmac_sha512_224" => 224,
        "hmac_sha256" | "hmac_sha3_256" | "hmac_sha512_256" => 256,
        "hmac_sha384" | "hmac_sha3_384" => 384,
        _ => 512,
    };
    if case.shared("tagSize")? != full {
        return Ok(Answer::Beyond);
    }
    signed(session, key, case, &Mechanism::plain(job.mechanism))
}

/// A message authentication code of any length.
///
/// # Errors
/// `Skipped`, if the file lacks a part.
pub fn mac_general(session: &Session<'_>, key: CK_OBJECT_HANDLE, case: &Case<'_>, job: &Job) -> Ran {
    signed(session, key, case, &Mechanism::words(job.mechanism, &[case.shared("tagSize")? / 8]))
}

/// GMAC.
///
/// # Errors
/// `Skipped`, if the file lacks a part.
pub fn gmac(session: &Session<'_>, key: CK_OBJECT_HANDLE, case: &Case<'_>, job: &Job) -> Ran {
    signed(session, key, case, &Mechanism::bytes(job.mechanism, &case.bytes("iv")?))
}

/// The context of ML-DSA, where the vector has one, and how much chance there is in a signature.
fn context(case: &Case<'_>, job: &Job, hedge: CK_ULONG) -> Mechanism {
    let context = case.bytes("ctx").unwrap_or_default();
    let length = context.len() as CK_ULONG;
    let words = [Word::Number(hedge), Word::Memory(context), Word::Number(length)];
    Mechanism::structure(job.mechanism, &words)
}

/// A signature by ML-DSA.
///
/// # Errors
/// `Skipped`, if the file lacks a part.
pub fn ml_dsa_verify(session: &Session<'_>, key: CK_OBJECT_HANDLE, case: &Case<'_>, job: &Job) -> Ran {
    let mechanism = context(case, job, CKH_HEDGE_PREFERRED);
    Ok(verified(session, key, &mechanism, &case.bytes("msg")?, &case.bytes("sig")?))
}

/// The deterministic signature of ML-DSA, by the hash value that is published of it.
///
/// # Errors
/// `Skipped`, if the file lacks a part.
pub fn ml_dsa_sign(session: &Session<'_>, key: CK_OBJECT_HANDLE, case: &Case<'_>, job: &Job) -> Ran {
    if case.test.flags.iter().any(|flag| flag == "Randomized") {
        return Ok(Answer::Beyond);
    }
    let mechanism = context(case, job, CKH_DETERMINISTIC_REQUIRED);
    if let Some(refusal) = init(session, F::C_SignInit, &mechanism, key) {
        return Ok(refusal);
    }
    let mut out = Out::room(8192);
    let rv = session.run(F::C_Sign, &case.bytes("msg")?, &mut out);
    if !rv.was(CKR_OK) {
        return Ok(Answer::Refused(rv));
    }
    Ok(compared(&sha2::Sha256::digest(out.bytes()), &case.bytes("sigSha256").unwrap_or_default()))
}
