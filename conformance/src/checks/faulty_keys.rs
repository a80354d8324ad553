//! RSA private keys that were tampered with on their way to the token: one signature that is right modulo one prime only,
//! and whoever knows the message computes the other (Boneh, DeMillo and Lipton 1997).
//! The number in a name is that of the abuse case.

use cryptoki_sys::*;

use crate::bench::Bench;
use crate::check::{Stop, Verdict, each, table};
use crate::checks::vector_keys::RSA_PRIVATE;
use crate::oracle::{self, Cipher, Padding};
use crate::session::{Session, private, rsa_public};
use crate::template::{Mechanism, Template};
use crate::vectors::{self, Fields};

table! {
    all key_separation critical;
    "attacks.a19-edited-import" User edited_import, "6.1 RSA (Boneh, DeMillo and Lipton 1997)", "an RSA private key whose CRT values do not fit is not brought in, or gives no faulty signature";
    "attacks.a19-edited-wrapped" User edited_wrapped, "5.18.4 C_UnwrapKey (Boneh, DeMillo and Lipton 1997)", "an RSA private key whose CRT values do not fit is not unwrapped, or gives no faulty signature";
    "attacks.a19-flipped-wrapped" User flipped_wrapped, "5.18.4 C_UnwrapKey (Boneh, DeMillo and Lipton 1997)", "a wrapped RSA private key with a bit turned over is not unwrapped, or gives no faulty signature" => patience(60);
}

/// The parts that one prime of the two takes part in.
const EDITED: [&str; 3] = ["exponent1", "exponent2", "coefficient"];

/// A published key of 2048 bits.
fn published() -> Result<Fields, Stop> {
    let file = vectors::load("rsa_pkcs1_2048")?;
    file.groups.first().ok_or(Stop::NotOffered)?.object("privateKey")
}

/// The published key's numbers, with a bit of one of them turned over.
fn edited(wrong: &str) -> Result<Vec<(CK_ATTRIBUTE_TYPE, Vec<u8>)>, Stop> {
    let key = published()?;
    let part = |(kind, name): (CK_ATTRIBUTE_TYPE, &str)| {
        let mut number = key.integer(name)?;
        if let Some(byte) = number.get_mut(64).filter(|_| name == wrong) {
            *byte ^= 4;
        }
        Ok((kind, number))
    };
    RSA_PRIVATE.into_iter().map(part).collect()
}

fn signer() -> Template {
    private().ulong(CKA_KEY_TYPE, CKK_RSA)
}

/// Signs with a key, and sees whether the signature is one. A refusal is as good.
fn gives_no_fault(session: &Session<'_>, key: CK_OBJECT_HANDLE, modulus: &[u8]) -> Verdict {
    let (message, padding) = (b"a message that everybody knows", Padding::Pkcs256);
    let Ok(signature) = session.sign(&padding.mechanism(), key, message) else { return Ok(()) };
    if oracle::rsa_verify(padding, (modulus, &[1, 0, 1]), message, &signature) {
        return Ok(());
    }
    let seen = "a signature that does not verify: the factors of the modulus follow from it";
    Err(Stop::fail("a refusal of the key, or a signature that verifies", seen))
}

fn edited_import(bench: &Bench) -> Verdict {
    bench.offers(CKM_SHA256_RSA_PKCS, CKF_SIGN)?;
    let session = bench.session()?;
    let modulus = published()?.integer("modulus")?;
    let brought = |wrong: &str| -> Result<_, Stop> {
        let parts = edited(wrong)?;
        let template = parts.iter().fold(signer(), |template, (kind, number)| template.bytes(*kind, number));
        Ok(session.try_create(&template))
    };
    if !brought("none")?.0.was(CKR_OK) {
        return Err(Stop::NotOffered);
    }
    each(
        EDITED,
        |wrong| (*wrong).to_owned(),
        |wrong| match brought(wrong)? {
            (rv, key) if rv.was(CKR_OK) => gives_no_fault(&session, key, &modulus),
            (rv, _) => rv.refused(),
        },
    )
}

/// Length and contents in DER.
fn der(tag: u8, contents: &[u8]) -> Vec<u8> {
    let bytes = contents.len().to_be_bytes();
    let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    let length = bytes.get(first..).unwrap_or_default();
    let head = match contents.len() {
        short @ 0..128 => vec![tag, u8::try_from(short).unwrap_or(0)],
        _ => [&[tag, 0x80 | u8::try_from(length.len()).unwrap_or(0)], length].concat(),
    };
    [&head, contents].concat()
}

/// A number of DER, which is not negative.
fn integer(number: &[u8]) -> Vec<u8> {
    let sign: &[u8] = if number.first().is_none_or(|byte| byte & 0x80 != 0) { &[0] } else { &[] };
    der(2, &[sign, number].concat())
}

/// `rsaEncryption` with its null parameters (RFC 8017, A.1).
const ALGORITHM: [u8; 13] = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

/// `PrivateKeyInfo` (RFC 5208) of these numbers.
fn private_key_info(parts: &[(CK_ATTRIBUTE_TYPE, Vec<u8>)]) -> Vec<u8> {
    let numbers: Vec<u8> = parts.iter().flat_map(|(_, number)| integer(number)).collect();
    let key = der(0x30, &[integer(&[0]), numbers].concat());
    der(0x30, &[integer(&[0]), der(0x30, &ALGORITHM), der(4, &key)].concat())
}

const WRAPPING: [u8; 32] = [0x5e; 32];
const VECTOR: [u8; 16] = [7; 16];

/// The mechanisms that wrap what is of any length.
fn mechanisms() -> [Mechanism; 2] {
    [Mechanism::plain(CKM_AES_KEY_WRAP_KWP), Mechanism::bytes(CKM_AES_CBC_PAD, &VECTOR)]
}

fn wrapped(mechanism: &Mechanism, plain: &[u8]) -> Option<Vec<u8>> {
    match mechanism.number() {
        CKM_AES_KEY_WRAP_KWP => oracle::wrap_padded(&WRAPPING, plain),
        _ => oracle::encrypt(Cipher::CbcPad, &WRAPPING, &VECTOR, plain),
    }
}

fn wrapper(session: &Session<'_>) -> Result<CK_OBJECT_HANDLE, Stop> {
    let template = Template::secret(CKK_AES, &WRAPPING).bool(CKA_PRIVATE, true).bool(CKA_SENSITIVE, true);
    session.create(&template.usages(&[CKA_WRAP, CKA_UNWRAP]))
}

fn edited_wrapped(bench: &Bench) -> Verdict {
    bench.offers(CKM_SHA256_RSA_PKCS, CKF_SIGN)?;
    let session = bench.session()?;
    let modulus = published()?.integer("modulus")?;
    each(
        mechanisms(),
        |mechanism| format!("mechanism {:#x}", mechanism.number()),
        |mechanism| {
            bench.offers(mechanism.number(), CKF_UNWRAP)?;
            let wrapper = wrapper(&session)?;
            let unwrapped = |wrong: &str| -> Result<_, Stop> {
                let blob = wrapped(mechanism, &private_key_info(&edited(wrong)?)).ok_or(Stop::NotOffered)?;
                Ok(session.unwrap(mechanism, wrapper, &blob, &signer()))
            };
            if !unwrapped("none")?.0.was(CKR_OK) {
                return Err(Stop::NotOffered);
            }
            for wrong in EDITED {
                match unwrapped(wrong)? {
                    (rv, key) if rv.was(CKR_OK) => gives_no_fault(&session, key, &modulus)?,
                    (rv, _) => rv.refused()?,
                }
            }
            Ok(())
        },
    )
}

/// Where the two exponents of the CRT lie in a wrapped key of 2048 bits, with room for what encodings differ by.
const PLACES: [usize; 4] = [870, 900, 1000, 1040];

/// What an attacker does who may wrap and unwrap a key that is not his, and knows no key.
fn flipped_wrapped(bench: &Bench) -> Verdict {
    bench.offers(CKM_SHA256_RSA_PKCS, CKF_SIGN)?;
    bench.offers(CKM_RSA_PKCS_KEY_PAIR_GEN, CKF_GENERATE_KEY_PAIR)?;
    let session = bench.session()?;
    let target = private().without(CKA_EXTRACTABLE).bool(CKA_EXTRACTABLE, true);
    let generate = Mechanism::plain(CKM_RSA_PKCS_KEY_PAIR_GEN);
    let pair = session.generate_pair(&generate, &rsa_public(2048), &target)?;
    let modulus = session.attribute(pair.public, CKA_MODULUS)?;
    each(
        mechanisms(),
        |mechanism| format!("mechanism {:#x}", mechanism.number()),
        |mechanism| {
            bench.offers(mechanism.number(), CKF_WRAP | CKF_UNWRAP)?;
            let wrapper = wrapper(&session)?;
            let (rv, blob) = session.wrap(mechanism, wrapper, pair.private);
            if !rv.was(CKR_OK) {
                return Err(Stop::NotOffered);
            }
            for place in PLACES {
                let mut changed = blob.clone();
                if let Some(byte) = changed.get_mut(place) {
                    *byte ^= 1;
                }
                match session.unwrap(mechanism, wrapper, &changed, &signer()) {
                    (rv, key) if rv.was(CKR_OK) => gives_no_fault(&session, key, &modulus)?,
                    _ => {}
                }
            }
            Ok(())
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_encoded_as_others_read_it() {
        let key = edited("none").map(|parts| private_key_info(&parts)).unwrap_or_default();
        assert!(aws_lc_rs::signature::RsaKeyPair::from_pkcs8(&key).is_ok(), "{} bytes", key.len());
        let wrong = edited("exponent1").map(|parts| private_key_info(&parts)).unwrap_or_default();
        assert!(key.len() == wrong.len() && key != wrong);
    }
}
