//! What is done with a published vector and its key.

use cryptoki_sys::*;
use sha2::Digest as _;

use crate::check::Stop;
use crate::checks::vectors::{Answer, Case, Job};
use crate::mechanisms::curves::octets;
use crate::raw::{Arg, Function as F};
use crate::session::Session;
use crate::template::{Mechanism, Out, Template, Word};
use crate::vectors::Expected;

/// What came of a vector, or why it could not be tried.
type Ran = Result<Answer, Stop>;

fn compared(seen: &[u8], published: &[u8]) -> Answer {
    if seen == published {
        return Answer::Right;
    }
    let head: String = seen.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    Answer::Wrong(format!("{} bytes, {head}…", seen.len()))
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

/// The template of a secret whose value may be read.
fn product() -> Template {
    Template::of_class(CKO_SECRET_KEY)
        .ulong(CKA_KEY_TYPE, CKK_GENERIC_SECRET)
        .bool(CKA_TOKEN, false)
        .bool(CKA_PRIVATE, true)
        .bool(CKA_SENSITIVE, false)
        .bool(CKA_EXTRACTABLE, true)
}

fn value_of(session: &Session<'_>, key: CK_OBJECT_HANDLE, published: &[u8]) -> Ran {
    let value = session.attribute(key, CKA_VALUE);
    let _destroyed = session.destroy(key);
    Ok(compared(&value?, published))
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
