//! Chapter 6.3, Edwards curves: points of small order, and the three kinds of Ed25519 that must not be mistaken for one
//! another. The number in a name is that of the abuse case.

use cryptoki_sys::*;

use crate::bench::Bench;
use crate::check::{Verdict, each, ensure, table};
use crate::raw::Function as F;
use crate::session::{Session, edwards_public};
use crate::template::{Mechanism, Word};

table! {
    all randomness;
    "attacks.d36-small-order" User small_order, "6.3 EdDSA (FIPS 186-5, 7.7; SP 800-186, D.1.3)", "a public key of small order, of which one signature fits message after message, is not brought in, or verifies nothing" => critical;
    "attacks.d36-unreduced" User unreduced, "6.3 EdDSA (RFC 8032, 5.1.7)", "a signature whose second half is larger by the group's order is none" => high;
    "attacks.d36-modes" User modes, "6.3 CK_EDDSA_PARAMS (RFC 8032, 5.1)", "signatures of a message, with a context, and of its hash value are not taken for each other" => critical;
}

/// Encodings of points whose order divides eight: y is 1, -1, 0, and two of order eight.
const SMALL: [&str; 5] = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
];

/// The order of the group, little-endian (RFC 8032, 5.1).
const ORDER: &str = "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010";

/// How many messages are tried with a point of small order: one in eight fits by chance.
const MESSAGES: u8 = 64;

fn unhex(digits: &str) -> Vec<u8> {
    crate::vectors::unhex(digits).unwrap_or_default()
}

fn plain() -> Mechanism {
    Mechanism::plain(CKM_EDDSA)
}

fn verifies(
    session: &Session<'_>,
    mechanism: &Mechanism,
    key: CK_OBJECT_HANDLE,
    message: &[u8],
    signature: &[u8],
) -> bool {
    session.init(F::C_VerifyInit, mechanism, Some(key)).was(CKR_OK)
        && session.verify(message, signature).was(CKR_OK)
}

/// The neutral point and zero are a signature by such a key of each message whose hash value is a multiple of its order.
fn small_order(bench: &Bench) -> Verdict {
    bench.offers(CKM_EDDSA, CKF_VERIFY)?;
    let session = bench.session()?;
    let own = session.ed25519()?.public;
    let (curve, form) = (session.attribute(own, CKA_EC_PARAMS)?, session.attribute(own, CKA_EC_POINT)?);
    let prefix = form.get(..form.len().saturating_sub(32)).unwrap_or_default();
    let [neutral, ..] = SMALL;
    let signature = [unhex(neutral), vec![0; 32]].concat();
    each(
        SMALL,
        |point| format!("the point {}…", point.get(..8).unwrap_or_default()),
        |point| {
            let point = [prefix, &unhex(point)].concat();
            let (rv, key) = session.try_create(&edwards_public(&curve).bytes(CKA_EC_POINT, &point));
            if !rv.was(CKR_OK) {
                return rv.refused();
            }
            let fits = |message: &u8| verifies(&session, &plain(), key, &[*message; 24], &signature);
            let count = (0..MESSAGES).filter(fits).count();
            let seen = format!("one signature verifies {count} of {MESSAGES} messages");
            ensure(count == 0, "a refusal of the key or of each signature", seen)
        },
    )
}

/// A number of 32 bytes, little-endian, with another added to it.
fn sum(one: &[u8], other: &[u8]) -> Vec<u8> {
    let mut carry = 0_u16;
    let digits = one.iter().zip(other).map(|(one, other)| {
        let digit = u16::from(*one) + u16::from(*other) + carry;
        carry = digit >> 8;
        u8::try_from(digit & 0xff).unwrap_or(0)
    });
    digits.collect()
}

fn unreduced(bench: &Bench) -> Verdict {
    bench.offers(CKM_EDDSA, CKF_SIGN | CKF_VERIFY)?;
    let session = bench.session()?;
    let (pair, message) = (session.ed25519()?, b"a message");
    let signature = session.sign(&plain(), pair.private, message)?;
    let (point, number) = signature.split_at_checked(32).unwrap_or_default();
    let other = [point, &sum(number, &unhex(ORDER))].concat();
    ensure(verifies(&session, &plain(), pair.public, message, &signature), "its own signature", "none")?;
    let taken = verifies(&session, &plain(), pair.public, message, &other);
    ensure(!taken, "CKR_SIGNATURE_INVALID", "a second signature, made of the first without the key")
}

/// `CK_EDDSA_PARAMS` of Ed25519 (none), Ed25519ctx and Ed25519ph.
fn kinds() -> [(&'static str, Mechanism); 3] {
    let with = |hashed: CK_ULONG, context: &[u8]| {
        let length = Word::Number(context.len() as CK_ULONG);
        Mechanism::structure(CKM_EDDSA, &[Word::Number(hashed), length, Word::Memory(context.to_vec())])
    };
    [("Ed25519", plain()), ("Ed25519ctx", with(0, b"context")), ("Ed25519ph", with(1, b""))]
}

fn modes(bench: &Bench) -> Verdict {
    bench.offers(CKM_EDDSA, CKF_SIGN | CKF_VERIFY)?;
    let session = bench.session()?;
    let (pair, message) = (session.ed25519()?, b"a message");
    each(
        kinds(),
        |(name, _)| (*name).to_owned(),
        |(name, mechanism)| {
            let Ok(signature) = session.sign(mechanism, pair.private, message) else { return Ok(()) };
            for (other, mechanism) in kinds().iter().filter(|(other, _)| other != name) {
                let taken = verifies(&session, mechanism, pair.public, message, &signature);
                ensure(!taken, "a signature of its own kind only", format!("it verifies as {other}"))?;
            }
            Ok(())
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_carries() {
        assert_eq!(sum(&[0xff, 0xff, 0], &[1, 0, 0]), [0, 0, 1]);
        assert_eq!(unhex(ORDER).len(), 32);
        assert!(SMALL.iter().all(|point| unhex(point).len() == 32));
    }
}
