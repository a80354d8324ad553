//! Chapter 6, forged ciphertexts: what a module gives away about them, whatever return value it has for it.
//! Which return values it should have is in `ciphers.rs`.

use std::collections::BTreeSet;

use cryptoki_sys::*;

use crate::bench::Bench;
use crate::check::{Stop, Verdict, ensure, table};
use crate::checks::ciphers::untouched;
use crate::checks::timing;
use crate::marks::Severity;
use crate::raw::Function as F;
use crate::report::counted;
use crate::session::Session;
use crate::template::{Mechanism, Out, Template};

table! {
    all oracles;
    "ciphers.gcm-forged" User gcm_forged, "6.13 AES-GCM", "a changed ciphertext, tag, IV or additional data is refused and nothing is written" => critical;
    "ciphers.gcm-early" User gcm_early, "6.13 AES-GCM", "decrypted in parts, a forged ciphertext gives nothing out at any step" => high;
    "ciphers.iv-matters" User iv_matters, "6.10 AES-CBC, 6.13 AES-GCM", "one text with two IVs has two ciphertexts" => critical;
    "ciphers.cbc-pad-oracle" User cbc_pad_oracle, "6.10 AES-CBC with PKCS padding (Vaudenay 2002)", "bad padding is refused in one way, however it is bad, and nothing is written" => high alone;
}

fn aes_key<'b>(
    bench: &'b Bench,
    mechanism: CK_MECHANISM_TYPE,
) -> Result<(Session<'b>, CK_OBJECT_HANDLE), Stop> {
    bench.offers(mechanism, CKF_ENCRYPT | CKF_DECRYPT)?;
    let session = bench.session()?;
    let template = Template::secret(CKK_AES, &[0x3b; 32]).usages(&[CKA_ENCRYPT, CKA_DECRYPT]);
    let key = session.create(&template)?;
    Ok((session, key))
}

fn encrypt(
    session: &Session<'_>,
    mechanism: &Mechanism,
    key: CK_OBJECT_HANDLE,
    text: &[u8],
) -> Result<Vec<u8>, Stop> {
    session.transform(F::C_EncryptInit, F::C_Encrypt, mechanism, key, text)
}

fn good() -> Mechanism {
    Mechanism::gcm(&[7; 12], b"aad", 128)
}

fn flipped(bytes: &[u8], position: usize) -> Vec<u8> {
    flipped_by(bytes, position, 0x40)
}

fn flipped_by(bytes: &[u8], position: usize, mask: u8) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    if let Some(byte) = changed.get_mut(position) {
        *byte ^= mask;
    }
    changed
}

fn gcm_forged(bench: &Bench) -> Verdict {
    let (session, key) = aes_key(bench, CKM_AES_GCM)?;
    let sealed = encrypt(&session, &good(), key, &[0x5a; 40])?;
    let mut forgeries: Vec<(Mechanism, Vec<u8>)> =
        [0, 20, 39, 40, 55].into_iter().map(|position| (good(), flipped(&sealed, position))).collect();
    for mechanism in [
        Mechanism::gcm(&[7; 12], b"aaD", 128),
        Mechanism::gcm(&[7; 12], b"", 128),
        Mechanism::gcm(&[8; 12], b"aad", 128),
    ] {
        forgeries.push((mechanism, sealed.clone()));
    }
    for (mechanism, ciphertext) in forgeries {
        session.init(F::C_DecryptInit, &mechanism, Some(key)).ok()?;
        let mut out = Out::room(256);
        let rv = session.run(F::C_Decrypt, &ciphertext, &mut out);
        ensure(!rv.was(CKR_OK), "a refusal", rv.to_string())?;
        untouched(&out, Severity::Medium)?;
    }
    Ok(())
}

fn gcm_early(bench: &Bench) -> Verdict {
    let (session, key) = aes_key(bench, CKM_AES_GCM)?;
    let sealed = encrypt(&session, &good(), key, &[0x5a; 40])?;
    session.init(F::C_DecryptInit, &good(), Some(key)).ok()?;
    for part in flipped(&sealed, 55).chunks(16) {
        let mut out = Out::room(128);
        session.run(F::C_DecryptUpdate, part, &mut out).ok()?;
        let silent = out.bytes().is_empty() && out.is_untouched();
        ensure(silent, "nothing before the tag", counted(out.bytes().len(), "byte"))?;
    }
    let mut out = Out::room(128);
    let rv = session.finish(F::C_DecryptFinal, &mut out);
    ensure(!rv.was(CKR_OK), "a refusal", rv.to_string())?;
    ensure(out.is_untouched(), "nothing after it", "plaintext that nobody vouches for")
}

fn iv_matters(bench: &Bench) -> Verdict {
    let with = |number, byte: u8| match number {
        CKM_AES_GCM => Mechanism::gcm(&[byte; 12], b"", 128),
        _ => Mechanism::bytes(number, &[byte; 16]),
    };
    let mut tried = false;
    for number in [CKM_AES_CBC, CKM_AES_GCM] {
        let Ok((session, key)) = aes_key(bench, number) else { continue };
        tried = true;
        let one = encrypt(&session, &with(number, 1), key, &[0x5a; 16])?;
        let other = encrypt(&session, &with(number, 2), key, &[0x5a; 16])?;
        ensure(one != other, "two ciphertexts", "the same twice: the IV is not used")?;
    }
    if tried { Ok(()) } else { Err(Stop::NotOffered) }
}

/// Observes how the times of decryptions of two ciphertexts differ.
fn timed(
    bench: &Bench,
    session: &Session<'_>,
    key: CK_OBJECT_HANDLE,
    what: &str,
    two: [(&str, &Vec<u8>); 2],
) {
    let mechanism = Mechanism::bytes(CKM_AES_CBC_PAD, &[7; 16]);
    timing::compare(bench, what, two.map(|(name, _)| name), |kind| {
        let (_, ciphertext) = two.get(kind)?;
        let mut out = Out::room(64);
        let begun = session.init(F::C_DecryptInit, &mechanism, Some(key)).was(CKR_OK);
        let (took, _) = timing::of(|| session.run(F::C_Decrypt, ciphertext, &mut out));
        begun.then_some(took)
    });
}

/// The last byte of the plaintext is made each of the 255 values that are no padding: before it stands 0x5a, so only
/// 1 would be one.
fn cbc_pad_oracle(bench: &Bench) -> Verdict {
    let (session, key) = aes_key(bench, CKM_AES_CBC_PAD)?;
    let mechanism = Mechanism::bytes(CKM_AES_CBC_PAD, &[7; 16]);
    let ciphertext = encrypt(&session, &mechanism, key, &[0x5a; 31])?;
    let mut answers = BTreeSet::new();
    for padding in (0..=255_u8).filter(|padding| *padding != 1) {
        let wrong = flipped_by(&ciphertext, 15, 1 ^ padding);
        session.init(F::C_DecryptInit, &mechanism, Some(key)).ok()?;
        let mut out = Out::room(64);
        let rv = session.run(F::C_Decrypt, &wrong, &mut out);
        ensure(!rv.was(CKR_OK), "a refusal", format!("{rv} for a padding of {padding}"))?;
        untouched(&out, Severity::Informational)?;
        answers.insert(rv.to_string());
    }
    let padding = |last: u8| flipped_by(&ciphertext, 15, 1 ^ last);
    let (good, none, long) = (padding(1), padding(0), padding(16));
    let what = |kinds: &str| format!("C_Decrypt, CKM_AES_CBC_PAD, {kinds} padding");
    timed(
        bench,
        &session,
        key,
        &what("good and bad"),
        [("a padding of 1", &good), ("a padding of 0", &none)],
    );
    timed(
        bench,
        &session,
        key,
        &what("two kinds of bad"),
        [("a padding of 16 that is none", &long), ("a padding of 0", &none)],
    );
    let seen: Vec<String> = answers.into_iter().collect();
    ensure(seen.len() == 1, "one answer", seen.join(" and "))
}
