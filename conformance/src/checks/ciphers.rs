//! Chapter 6, the mechanisms that encrypt: AES-CBC, CTR and GCM, RSA. The state machine is in `operations.rs`.

use cryptoki_sys::*;

use crate::bench::Bench;
use crate::check::{Stop, Verdict, ensure, table};
use crate::marks::Severity;
use crate::raw::Function as F;
use crate::report::counted;
use crate::session::Session;
use crate::template::{Mechanism, Out, Template, UNAVAILABLE};

table! {
    "ciphers.cbc-vector" User cbc_vector, "6.10 AES-CBC", "CBC gives the value of SP 800-38A, F.2.1" => high;
    "ciphers.cbc-iv" User cbc_iv, "6.10 AES-CBC", "an IV that is missing or not a block is CKR_MECHANISM_PARAM_INVALID" => arguments;
    "ciphers.cbc-length" User cbc_length, "6.10 AES-CBC", "what is not whole blocks is CKR_DATA_LEN_RANGE or CKR_ENCRYPTED_DATA_LEN_RANGE" => arguments;
    "ciphers.cbc-pad-lengths" User cbc_pad_lengths, "6.10 AES-CBC with PKCS padding", "every length from 0 to 33 comes back";
    "ciphers.cbc-pad-length" User cbc_pad_length, "6.10 AES-CBC with PKCS padding", "a ciphertext that is not whole blocks is CKR_ENCRYPTED_DATA_LEN_RANGE" => arguments;
    "ciphers.cbc-pad-corrupted" User cbc_pad_corrupted, "6.10 AES-CBC with PKCS padding", "bad padding is CKR_ENCRYPTED_DATA_INVALID and gives nothing out" => oracles;
    "ciphers.ctr-vector" User ctr_vector, "6.11 AES-CTR", "CTR gives the value of SP 800-38A, F.5.1" => high;
    "ciphers.ctr-bits" User ctr_bits, "6.11 AES-CTR", "counters of 0 or more than 128 bits are CKR_MECHANISM_PARAM_INVALID" => arguments;
    "ciphers.gcm-vector" User gcm_vector, "6.13 AES-GCM", "GCM gives the value of McGrew and Viega's test case 2, and takes it back" => high;
    "ciphers.gcm-parameter" User gcm_parameter, "6.13 AES-GCM", "a parameter that is missing or of the wrong length is refused" => arguments;
    "ciphers.gcm-tag-bits" User gcm_tag_bits, "6.13 AES-GCM", "tags of 0 or more than 128 bits are CKR_MECHANISM_PARAM_INVALID" => randomness high;
    "ciphers.gcm-no-iv" User gcm_no_iv, "6.13 AES-GCM (SP 800-38D, 5.2.1.1)", "an IV of no bytes is refused" => randomness;
    "ciphers.gcm-null-iv" User gcm_null_iv, "6.13 AES-GCM", "a null IV with a length is refused" => arguments high;
    "ciphers.gcm-null-aad" User gcm_null_aad, "6.13 AES-GCM", "null additional data with a length is refused" => arguments high;
    "ciphers.gcm-short-tag" User gcm_short_tag, "6.13 AES-GCM", "a tag of 96 bits is 96 bits" => randomness;
    "ciphers.gcm-corrupted" User gcm_corrupted, "6.13 AES-GCM", "a changed ciphertext, tag, IV or additional data gives nothing out" => oracles critical;
    "ciphers.gcm-truncated" User gcm_truncated, "6.13 AES-GCM", "a ciphertext without a whole tag is refused" => oracles high;
    "ciphers.gcm-parts" User gcm_parts, "6.13 AES-GCM", "in parts the result is that of one part";
    "ciphers.gcm-nothing-released" User gcm_nothing_released, "6.13 AES-GCM", "decrypted in parts, nothing comes out before the tag is checked" => oracles high;
}

/// The key of SP 800-38A, appendix F.
const KEY: [u8; 16] =
    [0x2b, 0x7e, 0x15, 0x16, 0x28, 0xae, 0xd2, 0xa6, 0xab, 0xf7, 0x15, 0x88, 0x09, 0xcf, 0x4f, 0x3c];

/// Its first block of plaintext.
const BLOCK: [u8; 16] =
    [0x6b, 0xc1, 0xbe, 0xe2, 0x2e, 0x40, 0x9f, 0x96, 0xe9, 0x3d, 0x7e, 0x11, 0x73, 0x93, 0x17, 0x2a];

/// What an unusable parameter is answered with.
pub const BAD_PARAMETER: &[CK_RV] = &[CKR_MECHANISM_PARAM_INVALID, CKR_ARGUMENTS_BAD];

/// What a ciphertext that is not genuine is answered with.
const NOT_GENUINE: &[CK_RV] =
    &[CKR_ENCRYPTED_DATA_INVALID, CKR_AEAD_DECRYPT_FAILED, CKR_ENCRYPTED_DATA_LEN_RANGE];

/// A session and an AES key with this value, if the token has the mechanism.
fn with_key<'b>(
    bench: &'b Bench,
    mechanism: CK_MECHANISM_TYPE,
    value: &[u8],
) -> Result<(Session<'b>, CK_OBJECT_HANDLE), Stop> {
    bench.offers(mechanism, CKF_ENCRYPT | CKF_DECRYPT)?;
    let session = bench.session()?;
    let key = session.create(&Template::secret(CKK_AES, value).usages(&[CKA_ENCRYPT, CKA_DECRYPT]))?;
    Ok((session, key))
}

pub fn encrypt(
    session: &Session<'_>,
    mechanism: &Mechanism,
    key: CK_OBJECT_HANDLE,
    data: &[u8],
) -> Result<Vec<u8>, Stop> {
    session.transform(F::C_EncryptInit, F::C_Encrypt, mechanism, key, data)
}

pub fn decrypt(
    session: &Session<'_>,
    mechanism: &Mechanism,
    key: CK_OBJECT_HANDLE,
    data: &[u8],
) -> Result<Vec<u8>, Stop> {
    session.transform(F::C_DecryptInit, F::C_Decrypt, mechanism, key, data)
}

pub fn same(seen: &[u8], expected: &[u8]) -> Verdict {
    ensure(seen == expected, format!("{expected:02x?}"), format!("{seen:02x?}"))
}

fn refused_parameter(session: &Session<'_>, key: CK_OBJECT_HANDLE, mechanism: &Mechanism) -> Verdict {
    session.init(F::C_EncryptInit, mechanism, Some(key)).one_of(BAD_PARAMETER)?;
    session.init(F::C_DecryptInit, mechanism, Some(key)).one_of(BAD_PARAMETER)
}

fn counting(start: u8) -> [u8; 16] {
    std::array::from_fn(|position| start.wrapping_add(u8::try_from(position).unwrap_or(0)))
}

fn cbc_vector(bench: &Bench) -> Verdict {
    let (session, key) = with_key(bench, CKM_AES_CBC, &KEY)?;
    let mechanism = Mechanism::bytes(CKM_AES_CBC, &counting(0));
    let expected =
        [0x76, 0x49, 0xab, 0xac, 0x81, 0x19, 0xb2, 0x46, 0xce, 0xe9, 0x8e, 0x9b, 0x12, 0xe9, 0x19, 0x7d];
    same(&encrypt(&session, &mechanism, key, &BLOCK)?, &expected)?;
    same(&decrypt(&session, &mechanism, key, &expected)?, &BLOCK)
}

fn cbc_iv(bench: &Bench) -> Verdict {
    let (session, key) = with_key(bench, CKM_AES_CBC, &KEY)?;
    let wrong = [
        Mechanism::plain(CKM_AES_CBC),
        Mechanism::null(CKM_AES_CBC, 16),
        Mechanism::bytes(CKM_AES_CBC, &[7; 15]),
        Mechanism::bytes(CKM_AES_CBC, &[7; 17]),
    ];
    wrong.iter().try_for_each(|mechanism| refused_parameter(&session, key, mechanism))
}

/// A step with an input of impossible length.
pub fn wrong_length(
    session: &Session<'_>,
    mechanism: &Mechanism,
    key: CK_OBJECT_HANDLE,
    [init, single]: [F; 2],
    input: &[u8],
    expected: &[CK_RV],
) -> Verdict {
    session.init(init, mechanism, Some(key)).ok()?;
    session.run(single, input, &mut Out::room(1024)).one_of(expected)
}

fn cbc_length(bench: &Bench) -> Verdict {
    let (session, key) = with_key(bench, CKM_AES_CBC, &KEY)?;
    let mechanism = Mechanism::bytes(CKM_AES_CBC, &[7; 16]);
    let forward = [F::C_EncryptInit, F::C_Encrypt];
    let back = [F::C_DecryptInit, F::C_Decrypt];
    for length in [1, 15, 17] {
        let input = vec![1; length];
        wrong_length(&session, &mechanism, key, forward, &input, &[CKR_DATA_LEN_RANGE])?;
        wrong_length(&session, &mechanism, key, back, &input, &[CKR_ENCRYPTED_DATA_LEN_RANGE])?;
    }
    Ok(())
}

fn cbc_pad_lengths(bench: &Bench) -> Verdict {
    let (session, key) = with_key(bench, CKM_AES_CBC_PAD, &KEY)?;
    let mechanism = Mechanism::bytes(CKM_AES_CBC_PAD, &[7; 16]);
    for length in 0..=33 {
        let text = vec![0x5a; length];
        let ciphertext = encrypt(&session, &mechanism, key, &text)?;
        let expected = (length / 16 + 1) * 16;
        ensure(ciphertext.len() == expected, expected.to_string(), ciphertext.len().to_string())?;
        same(&decrypt(&session, &mechanism, key, &ciphertext)?, &text)?;
    }
    Ok(())
}

fn cbc_pad_length(bench: &Bench) -> Verdict {
    let (session, key) = with_key(bench, CKM_AES_CBC_PAD, &KEY)?;
    let mechanism = Mechanism::bytes(CKM_AES_CBC_PAD, &[7; 16]);
    let expected = [CKR_ENCRYPTED_DATA_LEN_RANGE, CKR_ENCRYPTED_DATA_INVALID];
    for length in [1, 15, 17] {
        let back = [F::C_DecryptInit, F::C_Decrypt];
        wrong_length(&session, &mechanism, key, back, &vec![1; length], &expected)?;
    }
    Ok(())
}

/// The last byte of the plaintext is made 0, 17 and 255, none of which is a padding.
fn cbc_pad_corrupted(bench: &Bench) -> Verdict {
    let (session, key) = with_key(bench, CKM_AES_CBC_PAD, &KEY)?;
    let mechanism = Mechanism::bytes(CKM_AES_CBC_PAD, &[7; 16]);
    let ciphertext = encrypt(&session, &mechanism, key, &[0x5a; 31])?;
    for padding in [0, 17, 255_u8] {
        let mut wrong = ciphertext.clone();
        if let Some(byte) = wrong.get_mut(15) {
            *byte ^= 1 ^ padding;
        }
        session.init(F::C_DecryptInit, &mechanism, Some(key)).ok()?;
        let mut out = Out::room(64);
        session.run(F::C_Decrypt, &wrong, &mut out).is(CKR_ENCRYPTED_DATA_INVALID)?;
        untouched(&out, Severity::Informational)?;
    }
    Ok(())
}

fn ctr_vector(bench: &Bench) -> Verdict {
    let (session, key) = with_key(bench, CKM_AES_CTR, &KEY)?;
    let mechanism = Mechanism::ctr(128, counting(0xf0));
    let expected =
        [0x87, 0x4d, 0x61, 0x91, 0xb6, 0x20, 0xe3, 0x26, 0x1b, 0xef, 0x68, 0x64, 0x99, 0x0d, 0xb6, 0xce];
    same(&encrypt(&session, &mechanism, key, &BLOCK)?, &expected)?;
    same(&decrypt(&session, &mechanism, key, &expected)?, &BLOCK)
}

fn ctr_bits(bench: &Bench) -> Verdict {
    let (session, key) = with_key(bench, CKM_AES_CTR, &KEY)?;
    for bits in [0, 129, 1 << 32, UNAVAILABLE] {
        refused_parameter(&session, key, &Mechanism::ctr(bits, [0; 16]))?;
    }
    refused_parameter(&session, key, &Mechanism::plain(CKM_AES_CTR))?;
    refused_parameter(&session, key, &Mechanism::ctr(128, [0; 16]).of_length(23))
}

fn gcm_vector(bench: &Bench) -> Verdict {
    let (session, key) = with_key(bench, CKM_AES_GCM, &[0; 16])?;
    let mechanism = Mechanism::gcm(&[0; 12], &[], 128);
    let expected = [
        0x03, 0x88, 0xda, 0xce, 0x60, 0xb6, 0xa3, 0x92, 0xf3, 0x28, 0xc2, 0xb9, 0x71, 0xb2, 0xfe, 0x78, 0xab,
        0x6e, 0x47, 0xd4, 0x2c, 0xec, 0x13, 0xbd, 0xf5, 0x3a, 0x67, 0xb2, 0x12, 0x57, 0xbd, 0xdf,
    ];
    same(&encrypt(&session, &mechanism, key, &[0; 16])?, &expected)?;
    same(&decrypt(&session, &mechanism, key, &expected)?, &[0; 16])
}

fn gcm_refused(bench: &Bench, mechanisms: &[Mechanism]) -> Verdict {
    let (session, key) = with_key(bench, CKM_AES_GCM, &KEY)?;
    mechanisms.iter().try_for_each(|mechanism| refused_parameter(&session, key, mechanism))
}

fn gcm_parameter(bench: &Bench) -> Verdict {
    let good = || Mechanism::gcm(&[7; 12], b"aad", 128);
    let wrong = [
        Mechanism::plain(CKM_AES_GCM),
        Mechanism::null(CKM_AES_GCM, 48),
        good().of_length(47),
        good().of_length(8),
        Mechanism::bytes(CKM_AES_GCM, &[7; 12]),
    ];
    gcm_refused(bench, &wrong)
}

fn gcm_tag_bits(bench: &Bench) -> Verdict {
    let with = |bits| Mechanism::gcm(&[7; 12], b"aad", bits);
    gcm_refused(bench, &[with(0), with(129), with(136), with(1 << 32), with(UNAVAILABLE)])
}

fn gcm_no_iv(bench: &Bench) -> Verdict {
    gcm_refused(bench, &[Mechanism::gcm(&[], b"aad", 128)])
}

fn gcm_null_iv(bench: &Bench) -> Verdict {
    gcm_refused(bench, &[Mechanism::words(CKM_AES_GCM, &[0, 12, 96, 0, 0, 128])])
}

/// The pointer to the IV is that of a mechanism that lives as long as the call.
fn gcm_null_aad(bench: &Bench) -> Verdict {
    let iv = [7_u8; 12];
    let address = iv.as_ptr().expose_provenance() as CK_ULONG;
    gcm_refused(bench, &[Mechanism::words(CKM_AES_GCM, &[address, 12, 96, 0, 16, 128])])
}

fn gcm_short_tag(bench: &Bench) -> Verdict {
    let (session, key) = with_key(bench, CKM_AES_GCM, &KEY)?;
    let mechanism = Mechanism::gcm(&[7; 12], b"aad", 96);
    let ciphertext = encrypt(&session, &mechanism, key, b"text")?;
    ensure(ciphertext.len() == 16, "4 + 12 bytes", ciphertext.len().to_string())?;
    same(&decrypt(&session, &mechanism, key, &ciphertext)?, b"text")
}

/// A decryption that must give nothing out.
fn not_genuine(
    session: &Session<'_>,
    key: CK_OBJECT_HANDLE,
    mechanism: &Mechanism,
    ciphertext: &[u8],
) -> Verdict {
    session.init(F::C_DecryptInit, mechanism, Some(key)).ok()?;
    let mut out = Out::room(256);
    session.run(F::C_Decrypt, ciphertext, &mut out).one_of(NOT_GENUINE)?;
    untouched(&out, Severity::Medium)
}

/// After a refusal, memory "may have been modified" (5), so plaintext in it breaks no rule of PKCS#11; of GCM it does (SP 800-38D, 7.2).
pub fn untouched(out: &Out, most: Severity) -> Verdict {
    if out.is_untouched() {
        return Ok(());
    }
    Err(Stop::at_most(most, "nothing written", "plaintext that nobody vouches for"))
}

/// Forty bytes and their tag.
fn gcm_sealed(bench: &Bench) -> Result<(Session<'_>, CK_OBJECT_HANDLE, Vec<u8>), Stop> {
    let (session, key) = with_key(bench, CKM_AES_GCM, &KEY)?;
    let sealed = encrypt(&session, &Mechanism::gcm(&[7; 12], b"aad", 128), key, &[0x5a; 40])?;
    Ok((session, key, sealed))
}

fn gcm_corrupted(bench: &Bench) -> Verdict {
    let (session, key, sealed) = gcm_sealed(bench)?;
    for position in [0, 39, 40, 55] {
        let mut wrong = sealed.clone();
        if let Some(byte) = wrong.get_mut(position) {
            *byte ^= 0x80;
        }
        not_genuine(&session, key, &Mechanism::gcm(&[7; 12], b"aad", 128), &wrong)?;
    }
    for mechanism in [
        Mechanism::gcm(&[7; 12], b"aaD", 128),
        Mechanism::gcm(&[7; 12], b"", 128),
        Mechanism::gcm(&[8; 12], b"aad", 128),
    ] {
        not_genuine(&session, key, &mechanism, &sealed)?;
    }
    same(&decrypt(&session, &Mechanism::gcm(&[7; 12], b"aad", 128), key, &sealed)?, &[0x5a; 40])
}

fn gcm_truncated(bench: &Bench) -> Verdict {
    let (session, key, sealed) = gcm_sealed(bench)?;
    for length in [0, 1, 15, 16, 55] {
        let short = sealed.get(..length).unwrap_or_default();
        not_genuine(&session, key, &Mechanism::gcm(&[7; 12], b"aad", 128), short)?;
    }
    Ok(())
}

fn in_parts(
    session: &Session<'_>,
    [update, last]: [F; 2],
    input: &[u8],
) -> Result<(Vec<u8>, crate::rv::Rv, Out), Stop> {
    let mut output = Vec::new();
    for part in input.chunks(16) {
        let mut out = Out::room(128);
        session.run(update, part, &mut out).ok()?;
        output.extend_from_slice(out.bytes());
    }
    let mut out = Out::room(128);
    let rv = session.finish(last, &mut out);
    Ok((output, rv, out))
}

fn gcm_parts(bench: &Bench) -> Verdict {
    let (session, key, sealed) = gcm_sealed(bench)?;
    let mechanism = Mechanism::gcm(&[7; 12], b"aad", 128);
    session.init(F::C_EncryptInit, &mechanism, Some(key)).ok()?;
    let functions = [F::C_EncryptUpdate, F::C_EncryptFinal];
    let (mut output, rv, out) = in_parts(&session, functions, &[0x5a; 40])?;
    rv.ok()?;
    output.extend_from_slice(out.bytes());
    same(&output, &sealed)?;
    session.init(F::C_DecryptInit, &mechanism, Some(key)).ok()?;
    let (mut output, rv, out) = in_parts(&session, [F::C_DecryptUpdate, F::C_DecryptFinal], &sealed)?;
    rv.ok()?;
    output.extend_from_slice(out.bytes());
    same(&output, &[0x5a; 40])
}

fn gcm_nothing_released(bench: &Bench) -> Verdict {
    let (session, key, mut sealed) = gcm_sealed(bench)?;
    if let Some(byte) = sealed.last_mut() {
        *byte ^= 1;
    }
    session.init(F::C_DecryptInit, &Mechanism::gcm(&[7; 12], b"aad", 128), Some(key)).ok()?;
    let functions = [F::C_DecryptUpdate, F::C_DecryptFinal];
    let (output, rv, out) = in_parts(&session, functions, &sealed)?;
    rv.one_of(NOT_GENUINE)?;
    ensure(output.is_empty(), "nothing before the tag", counted(output.len(), "byte"))?;
    ensure(out.is_untouched(), "nothing after it", "plaintext that nobody vouches for")
}
