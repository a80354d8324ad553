//! Chapter 6.1, RSA that encrypts: PKCS #1 v1.5 and OAEP.

use cryptoki_sys::*;

use crate::bench::Bench;
use crate::check::{Stop, Verdict, ensure, table};
use crate::checks::ciphers::{BAD_PARAMETER, decrypt, encrypt, same, untouched, wrong_length};
use crate::marks::Severity;
use crate::raw::Function as F;
use crate::template::{Mechanism, Out};

table! {
    "ciphers.rsa-round-trip" User rsa_round_trip, "6.1 CKM_RSA_PKCS", "what is encrypted comes back";
    "ciphers.rsa-too-long" User rsa_too_long, "6.1 CKM_RSA_PKCS", "data longer than the modulus allows is CKR_DATA_LEN_RANGE" => arguments;
    "ciphers.rsa-wrong-length" User rsa_wrong_length, "6.1 CKM_RSA_PKCS", "a ciphertext of another length is CKR_ENCRYPTED_DATA_LEN_RANGE" => arguments;
    "ciphers.oaep-round-trip" User oaep_round_trip, "6.1 CKM_RSA_PKCS_OAEP", "what is encrypted comes back, and is another ciphertext each time";
    "ciphers.oaep-parameter" User oaep_parameter, "6.1 CKM_RSA_PKCS_OAEP", "a parameter that is missing, short or unknown is refused" => arguments;
    "ciphers.oaep-null-label" User oaep_null_label, "6.1 CKM_RSA_PKCS_OAEP", "a null label with a length is refused" => arguments high;
    "ciphers.oaep-too-long" User oaep_too_long, "6.1 CKM_RSA_PKCS_OAEP", "data longer than the modulus allows is CKR_DATA_LEN_RANGE" => arguments;
    "ciphers.oaep-corrupted" User oaep_corrupted, "6.1 CKM_RSA_PKCS_OAEP", "a changed ciphertext is CKR_ENCRYPTED_DATA_INVALID" => oracles;
    "ciphers.oaep-too-small" User oaep_too_small, "5.2 Variable-length output", "a buffer that is too small keeps the operation";
}

fn rsa_round_trip(bench: &Bench) -> Verdict {
    bench.offers(CKM_RSA_PKCS, CKF_ENCRYPT | CKF_DECRYPT)?;
    let pair = bench.rsa()?;
    let session = bench.session()?;
    let mechanism = Mechanism::plain(CKM_RSA_PKCS);
    for length in [0, 1, 245] {
        let text = vec![0x5a; length];
        let ciphertext = encrypt(&session, &mechanism, pair.public, &text)?;
        same(&decrypt(&session, &mechanism, pair.private, &ciphertext)?, &text)?;
    }
    Ok(())
}

fn rsa_too_long(bench: &Bench) -> Verdict {
    bench.offers(CKM_RSA_PKCS, CKF_ENCRYPT)?;
    let (pair, session) = (bench.rsa()?, bench.session()?);
    let forward = [F::C_EncryptInit, F::C_Encrypt];
    let mechanism = Mechanism::plain(CKM_RSA_PKCS);
    wrong_length(&session, &mechanism, pair.public, forward, &[1; 246], &[CKR_DATA_LEN_RANGE])
}

fn rsa_wrong_length(bench: &Bench) -> Verdict {
    bench.offers(CKM_RSA_PKCS, CKF_DECRYPT)?;
    let (pair, session) = (bench.rsa()?, bench.session()?);
    let back = [F::C_DecryptInit, F::C_Decrypt];
    let mechanism = Mechanism::plain(CKM_RSA_PKCS);
    for length in [0, 255, 257] {
        let input = vec![1; length];
        let expected = [CKR_ENCRYPTED_DATA_LEN_RANGE];
        wrong_length(&session, &mechanism, pair.private, back, &input, &expected)?;
    }
    Ok(())
}

/// OAEP with SHA-256, or with SHA-1 where the token has no other, and the longest text that it takes.
fn oaep(bench: &Bench) -> Result<(Mechanism, usize), Stop> {
    bench.offers(CKM_RSA_PKCS_OAEP, CKF_ENCRYPT | CKF_DECRYPT)?;
    let session = bench.session()?;
    let modern = Mechanism::oaep(CKM_SHA256, CKG_MGF1_SHA256);
    if session.init(F::C_EncryptInit, &modern, Some(bench.rsa()?.public)).was(CKR_OK) {
        return Ok((modern, 256 - 2 * 32 - 2));
    }
    Ok((Mechanism::oaep(CKM_SHA_1, CKG_MGF1_SHA1), 256 - 2 * 20 - 2))
}

fn oaep_round_trip(bench: &Bench) -> Verdict {
    let (mechanism, most) = oaep(bench)?;
    let (pair, session) = (bench.rsa()?, bench.session()?);
    for length in [0, 1, most] {
        let text = vec![0x5a; length];
        let one = encrypt(&session, &mechanism, pair.public, &text)?;
        let other = encrypt(&session, &mechanism, pair.public, &text)?;
        ensure(one != other, "two ciphertexts", "the same twice")?;
        same(&decrypt(&session, &mechanism, pair.private, &one)?, &text)?;
    }
    Ok(())
}

fn oaep_refused(bench: &Bench, mechanism: &Mechanism) -> Verdict {
    let (pair, session) = (bench.rsa()?, bench.session()?);
    session.init(F::C_EncryptInit, mechanism, Some(pair.public)).one_of(BAD_PARAMETER)?;
    session.init(F::C_DecryptInit, mechanism, Some(pair.private)).one_of(BAD_PARAMETER)
}

fn oaep_parameter(bench: &Bench) -> Verdict {
    let number = CKM_RSA_PKCS_OAEP;
    let (good, _) = oaep(bench)?;
    oaep_refused(bench, &Mechanism::plain(number))?;
    oaep_refused(bench, &Mechanism::null(number, 40))?;
    oaep_refused(bench, &good.of_length(39))?;
    oaep_refused(bench, &Mechanism::oaep(CKM_AES_CBC, CKG_MGF1_SHA256))?;
    oaep_refused(bench, &Mechanism::oaep(CKM_SHA_1, 0x7777))?;
    oaep_refused(bench, &Mechanism::words(number, &[CKM_SHA_1, CKG_MGF1_SHA1, 0x7777, 0, 0]))
}

fn oaep_null_label(bench: &Bench) -> Verdict {
    oaep(bench)?;
    let words = [CKM_SHA_1, CKG_MGF1_SHA1, CKZ_DATA_SPECIFIED, 0, 16];
    oaep_refused(bench, &Mechanism::words(CKM_RSA_PKCS_OAEP, &words))
}

fn oaep_too_long(bench: &Bench) -> Verdict {
    let (mechanism, most) = oaep(bench)?;
    let (pair, session) = (bench.rsa()?, bench.session()?);
    let forward = [F::C_EncryptInit, F::C_Encrypt];
    wrong_length(&session, &mechanism, pair.public, forward, &vec![1; most + 1], &[CKR_DATA_LEN_RANGE])
}

fn oaep_corrupted(bench: &Bench) -> Verdict {
    let (mechanism, _) = oaep(bench)?;
    let (pair, session) = (bench.rsa()?, bench.session()?);
    let mut ciphertext = encrypt(&session, &mechanism, pair.public, b"text")?;
    if let Some(byte) = ciphertext.last_mut() {
        *byte ^= 1;
    }
    session.init(F::C_DecryptInit, &mechanism, Some(pair.private)).ok()?;
    let mut out = Out::room(256);
    session.run(F::C_Decrypt, &ciphertext, &mut out).is(CKR_ENCRYPTED_DATA_INVALID)?;
    untouched(&out, Severity::Informational)
}

fn oaep_too_small(bench: &Bench) -> Verdict {
    let (mechanism, _) = oaep(bench)?;
    let (pair, session) = (bench.rsa()?, bench.session()?);
    let ciphertext = encrypt(&session, &mechanism, pair.public, &[0x5a; 64])?;
    session.init(F::C_DecryptInit, &mechanism, Some(pair.private)).ok()?;
    let mut small = Out::room(63);
    session.run(F::C_Decrypt, &ciphertext, &mut small).is(CKR_BUFFER_TOO_SMALL)?;
    let mut out = Out::room(256);
    session.run(F::C_Decrypt, &ciphertext, &mut out).ok()?;
    same(out.bytes(), &[0x5a; 64])
}
