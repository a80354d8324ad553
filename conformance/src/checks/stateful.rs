//! Chapter 6, HSS: private keys that are used up (RFC 8554). A one-time key that signs two messages lets anybody sign a third.
//! The number in a name is that of the abuse case.

use std::collections::BTreeSet;

use cryptoki_sys::*;

use crate::bench::Bench;
use crate::check::{Stop, Verdict, ensure, table};
use crate::raw::Function as F;
use crate::report::counted;
use crate::rv::Rv;
use crate::session::{KeyPair, Session, private};
use crate::template::{Mechanism, Out, Template};

table! {
    all randomness critical;
    "attacks.d40-index" User index_once, "6.66 CKM_HSS (RFC 8554, 9.2)", "no two signatures of an HSS key have one index, nor do those of a copy, which is better refused" => patience(60);
    "attacks.d40-exhausted" User exhausted, "6.66 CKM_HSS, 5.1.6 CKR_KEY_EXHAUSTED", "an HSS key of 32 signatures gives 32, and then CKR_KEY_EXHAUSTED" => patience(60);
    "attacks.d40-extractable" User extractable, "6.66 CKM_HSS", "no HSS private key is extractable: its copy would sign with the same indices" => patience(60);
}

/// Signatures of a tree of the least height, five (RFC 8554, 5.1).
const SIGNATURES: usize = 32;

/// A pair of one level: LMS with SHA-256 and height 5, LM-OTS with SHA-256 and a width of 8 bits.
fn generate(session: &Session<'_>, private: &Template) -> Result<(Rv, KeyPair), Stop> {
    session.bench.offers(CKM_HSS_KEY_PAIR_GEN, CKF_GENERATE_KEY_PAIR)?;
    session.bench.offers(CKM_HSS, CKF_SIGN)?;
    let public = Template::of_class(CKO_PUBLIC_KEY)
        .ulong(CKA_KEY_TYPE, CKK_HSS)
        .bool(CKA_TOKEN, false)
        .ulong(CKA_HSS_LEVELS, 1)
        .bytes(CKA_HSS_LMS_TYPES, &5_u64.to_ne_bytes())
        .bytes(CKA_HSS_LMOTS_TYPES, &4_u64.to_ne_bytes())
        .usages(&[CKA_VERIFY]);
    Ok(session.try_generate_pair(&Mechanism::plain(CKM_HSS_KEY_PAIR_GEN), &public, private))
}

fn sign(session: &Session<'_>, key: CK_OBJECT_HANDLE) -> Result<(Rv, Vec<u8>), Stop> {
    session.init(F::C_SignInit, &Mechanism::plain(CKM_HSS), Some(key)).ok()?;
    let mut out = Out::room(8192);
    let rv = session.run(F::C_Sign, b"a message", &mut out);
    Ok((rv, if rv.was(CKR_OK) { out.bytes().to_vec() } else { Vec::new() }))
}

/// The index of a signature of one level: behind the count of signed public keys, which is zero (RFC 8554, 6.2 and 5.4).
fn index(signature: &[u8]) -> Result<[u8; 4], Stop> {
    let index = signature.strip_prefix(&[0; 4]).and_then(<[u8]>::first_chunk);
    index.copied().ok_or_else(|| Stop::fail("a signature of one level", counted(signature.len(), "byte")))
}

fn index_once(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let (rv, pair) = generate(&session, &private())?;
    rv.ok()?;
    let (copied, copy) = session.copy(pair.private, &Template::new());
    let keys = if copied.was(CKR_OK) { vec![pair.private, copy] } else { vec![pair.private] };
    let mut seen = BTreeSet::new();
    for _ in 0..4 {
        for key in &keys {
            let (rv, signature) = sign(&session, *key)?;
            rv.ok()?;
            let fresh = seen.insert(index(&signature)?);
            ensure(fresh, "another index for each signature", "an index twice: anybody can sign now")?;
        }
    }
    Ok(())
}

fn exhausted(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let (rv, pair) = generate(&session, &private())?;
    rv.ok()?;
    for _ in 0..SIGNATURES {
        sign(&session, pair.private)?.0.ok()?;
    }
    session
        .init(F::C_SignInit, &Mechanism::plain(CKM_HSS), Some(pair.private))
        .one_of(&[CKR_OK, CKR_KEY_EXHAUSTED])?;
    let mut out = Out::room(8192);
    session
        .run(F::C_Sign, b"one too many", &mut out)
        .one_of(&[CKR_KEY_EXHAUSTED, CKR_OPERATION_NOT_INITIALIZED])
}

fn extractable(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let open = private().without(CKA_EXTRACTABLE).bool(CKA_EXTRACTABLE, true);
    let (rv, pair) = generate(&session, &open)?;
    if !rv.was(CKR_OK) {
        return rv.refused();
    }
    let value = session.attribute(pair.private, CKA_EXTRACTABLE)?;
    ensure(value == [0], "a refusal, or CKA_EXTRACTABLE false", "an extractable key")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The beginning of RFC 8554's second test case without its upper level: no signed keys, then the index 10.
    #[test]
    fn the_index_stands_behind_the_levels() {
        assert_eq!(index(&[0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 4]), Ok([0, 0, 0, 10]));
        assert!(index(&[0, 0, 0, 1, 0, 0, 0, 3]).is_err(), "two levels");
        assert!(index(&[0, 0, 0, 0, 1]).is_err());
    }
}
