//! Chapters 5.12 and 6.20 to 6.24: hash values. The state machine is in `operations.rs`.

use cryptoki_sys::*;

use crate::bench::Bench;
use crate::check::{Verdict, ensure, table};
use crate::raw::{Arg, Function as F};
use crate::template::{Mechanism, Out, UNAVAILABLE};

table! {
    "digest.sha1" User sha1, "6.20 SHA-1", "the hash of abc is that of FIPS 180-4" => high;
    "digest.sha224" User sha224, "6.21 SHA-224", "the hash of abc is that of FIPS 180-4" => high;
    "digest.sha256" User sha256, "6.22 SHA-256", "the hash of abc is that of FIPS 180-4" => high;
    "digest.sha384" User sha384, "6.23 SHA-384", "the hash of abc is that of FIPS 180-4" => high;
    "digest.sha512" User sha512, "6.24 SHA-512", "the hash of abc is that of FIPS 180-4" => high;
    "digest.nothing" User nothing, "5.12.2 C_Digest", "the hash of nothing is that of FIPS 180-4, in one part or none";
    "digest.random-parts" User random_parts, "5.12.3 C_DigestUpdate", "random data in random parts has the hash of the whole" => high;
    "digest.with-key" User key, "5.12.4 C_DigestKey", "a key's value is digested, or is CKR_KEY_INDIGESTIBLE";
    "digest.with-key-unknown" User key_unknown, "5.12.4 C_DigestKey", "a handle that is no key's is refused";
    "digest.public" Public public, "5.12.1 C_DigestInit", "a digest needs no login";
}

fn hash(bench: &Bench, mechanism: CK_MECHANISM_TYPE, start: [u8; 8], length: usize) -> Verdict {
    bench.offers(mechanism, CKF_DIGEST)?;
    let session = bench.session()?;
    session.init(F::C_DigestInit, &Mechanism::plain(mechanism), None).ok()?;
    let mut out = Out::room(128);
    session.run(F::C_Digest, b"abc", &mut out).ok()?;
    let good = out.bytes().len() == length && out.bytes().starts_with(&start);
    ensure(good, format!("{length} bytes that begin with {start:02x?}"), format!("{:02x?}", out.bytes()))
}

fn sha1(bench: &Bench) -> Verdict {
    hash(bench, CKM_SHA_1, [0xa9, 0x99, 0x3e, 0x36, 0x47, 0x06, 0x81, 0x6a], 20)
}

fn sha224(bench: &Bench) -> Verdict {
    hash(bench, CKM_SHA224, [0x23, 0x09, 0x7d, 0x22, 0x34, 0x05, 0xd8, 0x22], 28)
}

fn sha256(bench: &Bench) -> Verdict {
    hash(bench, CKM_SHA256, [0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea], 32)
}

fn sha384(bench: &Bench) -> Verdict {
    hash(bench, CKM_SHA384, [0xcb, 0x00, 0x75, 0x3f, 0x45, 0xa3, 0x5e, 0x8b], 48)
}

fn sha512(bench: &Bench) -> Verdict {
    hash(bench, CKM_SHA512, [0xdd, 0xaf, 0x35, 0xa1, 0x93, 0x61, 0x7a, 0xba], 64)
}

fn nothing(bench: &Bench) -> Verdict {
    bench.offers(CKM_SHA256, CKF_DIGEST)?;
    let session = bench.session()?;
    let start = [0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14];
    session.init(F::C_DigestInit, &Mechanism::plain(CKM_SHA256), None).ok()?;
    let mut out = Out::room(32);
    session.run(F::C_Digest, b"", &mut out).ok()?;
    ensure(out.bytes().starts_with(&start), format!("{start:02x?}"), format!("{:02x?}", out.bytes()))?;
    session.init(F::C_DigestInit, &Mechanism::plain(CKM_SHA256), None).ok()?;
    let mut out = Out::room(32);
    session.finish(F::C_DigestFinal, &mut out).ok()?;
    ensure(out.bytes().starts_with(&start), format!("{start:02x?}"), format!("{:02x?}", out.bytes()))
}

/// What a module answers that cannot or will not digest a key.
const INDIGESTIBLE: &[CK_RV] = &[CKR_OK, CKR_KEY_INDIGESTIBLE, CKR_FUNCTION_NOT_SUPPORTED];

fn random_parts(bench: &Bench) -> Verdict {
    let data = bench.random().bytes(4096);
    let whole = bench.sha256(&data)?;
    let session = bench.session()?;
    session.init(F::C_DigestInit, &Mechanism::plain(CKM_SHA256), None).ok()?;
    let mut rest = data.as_slice();
    while let Some((part, after)) = rest.split_at_checked(1 + bench.random().below(rest.len())) {
        session.feed(F::C_DigestUpdate, part).ok()?;
        rest = after;
    }
    let mut out = Out::room(32);
    session.finish(F::C_DigestFinal, &mut out).ok()?;
    ensure(out.bytes() == whole, format!("{whole:02x?}"), format!("{:02x?}", out.bytes()))
}

fn key(bench: &Bench) -> Verdict {
    let expected = bench.sha256(&[0x0b; 32])?;
    let session = bench.session()?;
    let key = session.hmac_key()?;
    session.init(F::C_DigestInit, &Mechanism::plain(CKM_SHA256), None).ok()?;
    let rv = session.call(F::C_DigestKey, &[Arg::number(key)]);
    rv.one_of(INDIGESTIBLE)?;
    if rv.was(CKR_OK) {
        let mut out = Out::room(32);
        session.finish(F::C_DigestFinal, &mut out).ok()?;
        ensure(out.bytes() == expected, "the hash of the key's value", "another")?;
    }
    Ok(())
}

fn key_unknown(bench: &Bench) -> Verdict {
    bench.offers(CKM_SHA256, CKF_DIGEST)?;
    for nobody in [0, UNAVAILABLE] {
        let session = bench.session()?;
        session.init(F::C_DigestInit, &Mechanism::plain(CKM_SHA256), None).ok()?;
        session
            .call(F::C_DigestKey, &[Arg::number(nobody)])
            .one_of(&[CKR_KEY_HANDLE_INVALID, CKR_FUNCTION_NOT_SUPPORTED])?;
    }
    Ok(())
}

fn public(bench: &Bench) -> Verdict {
    bench.sha256(b"abc").map(drop)
}
