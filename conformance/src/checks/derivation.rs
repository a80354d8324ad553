//! Chapter 5.18.5, keys made from keys: nothing that comes of a sensitive key may be less guarded than it is.
//! The number in a name is that of the abuse case.

use cryptoki_sys::*;

use crate::bench::Bench;
use crate::check::{Stop, Verdict, each, ensure, table};
use crate::marks::Severity;
use crate::raw::Function as F;
use crate::session::{P256, Session, ec_public, private};
use crate::template::{Mechanism, Out, Template, Word};

table! {
    all derivation high;
    "attacks.b22-extract" User extract, "6.43 CKM_EXTRACT_KEY_FROM_KEY (Clulow 2003)", "a piece of a sensitive key is refused, or is sensitive" => critical;
    "attacks.b23-xor" User xor, "6.43 CKM_XOR_BASE_AND_DATA", "a sensitive key with data added to it is refused, or is sensitive" => critical;
    "attacks.b24-concatenate" User concatenate, "6.43 CKM_CONCATENATE_BASE_AND_DATA", "a sensitive key with data beside it is refused, or is sensitive" => critical;
    "attacks.b25-encrypt-data" User encrypt_data, "beyond 6.44 CKM_AES_ECB_ENCRYPT_DATA and its like", "a key that does not encrypt gives no ciphertext out as the value of another, although the standard allows it" => informational;
    "attacks.b27-lengths" User lengths, "6.62 HKDF (RFC 5869, 2.3)", "no key of no bytes is derived, nor of more than the function gives";
    "attacks.b27-history" User history, "5.18.5 C_DeriveKey, 4.10", "what is derived open from a sensitive key was never sensitive, nor unextractable, nor local";
    "attacks.b27-open-child" User open_child, "5.18.5 C_DeriveKey", "a sensitive key has no open children (the standard leaves that to the token where nothing follows from the child)" => informational;
    "attacks.b26-bad-points" User bad_points, "6.3 CKM_ECDH1_DERIVE (SP 800-56A, 5.6.2.3)", "no secret is agreed on with a point that is not on the curve";
    "attacks.b28-allowed-mechanisms" User allowed_mechanisms, "4.7 CKA_ALLOWED_MECHANISMS", "a key that names its mechanisms works with those and with no other";
    "attacks.b28-not-permitted" User not_permitted, "5.18.5 C_DeriveKey", "nothing is derived from a key without CKA_DERIVE";
}

/// A key of 32 bytes that is sensitive, extractable or not, and has these uses.
fn base(session: &Session<'_>, uses: &[CK_ATTRIBUTE_TYPE]) -> Result<CK_OBJECT_HANDLE, Stop> {
    session.create(
        &Template::secret(CKK_GENERIC_SECRET, &[0xc3; 32])
            .bool(CKA_PRIVATE, true)
            .bool(CKA_SENSITIVE, true)
            .bool(CKA_EXTRACTABLE, false)
            .usages(uses),
    )
}

/// A child that asks to be open.
fn open(bytes: CK_ULONG) -> Template {
    Template::of_class(CKO_SECRET_KEY)
        .ulong(CKA_KEY_TYPE, CKK_GENERIC_SECRET)
        .bool(CKA_TOKEN, false)
        .bool(CKA_SENSITIVE, false)
        .bool(CKA_EXTRACTABLE, true)
        .ulong(CKA_VALUE_LEN, bytes)
}

/// What is derived from a sensitive key does not show its value.
fn stays_hidden(bench: &Bench, mechanism: &Mechanism, bytes: CK_ULONG) -> Verdict {
    bench.offers(mechanism.number(), CKF_DERIVE)?;
    let session = bench.session()?;
    let base = base(&session, &[CKA_DERIVE])?;
    let (rv, child) = session.derive(mechanism, base, &open(bytes));
    if !rv.was(CKR_OK) {
        return rv.refused();
    }
    let shown = session.attribute(child, CKA_VALUE).unwrap_or_default();
    let seen = format!("{} bytes that follow from a sensitive key, in clear", shown.len());
    ensure(shown.is_empty(), "a refusal, or a sensitive key", seen)
}

fn extract(bench: &Bench) -> Verdict {
    stays_hidden(bench, &Mechanism::words(CKM_EXTRACT_KEY_FROM_KEY, &[0]), 1)
}

fn xor(bench: &Bench) -> Verdict {
    stays_hidden(bench, &Mechanism::derivation_data(CKM_XOR_BASE_AND_DATA, &[1; 32]), 32)
}

fn concatenate(bench: &Bench) -> Verdict {
    each(
        [CKM_CONCATENATE_BASE_AND_DATA, CKM_CONCATENATE_DATA_AND_BASE],
        |number| format!("mechanism {number:#x}"),
        |number| stays_hidden(bench, &Mechanism::derivation_data(*number, &[1; 16]), 48),
    )
}

/// Data of two blocks as `CK_KEY_DERIVATION_STRING_DATA`, or with an initialisation vector before it.
fn encrypted_data(number: CK_MECHANISM_TYPE) -> Mechanism {
    let data = [Word::Memory(vec![0x42; 32]), Word::Number(32)];
    let vector = [Word::Number(0), Word::Number(0)];
    match number {
        CKM_AES_CBC_ENCRYPT_DATA => Mechanism::structure(number, &[&vector[..], &data].concat()),
        _ => Mechanism::structure(number, &data),
    }
}

/// HKDF with SHA-256, extraction and expansion, without salt and info.
fn hkdf() -> Mechanism {
    let both = CK_ULONG::from_ne_bytes([1, 1, 0, 0, 0, 0, 0, 0]);
    Mechanism::words(CKM_HKDF_DERIVE, &[both, CKM_SHA256, CKF_HKDF_SALT_NULL, 0, 0, 0, 0, 0])
}

/// A sensitive key of the token's making that derives, and does nothing else.
fn parent(session: &Session<'_>, key_type: CK_KEY_TYPE) -> Result<CK_OBJECT_HANDLE, Stop> {
    let template = Template::of_class(CKO_SECRET_KEY)
        .ulong(CKA_KEY_TYPE, key_type)
        .ulong(CKA_VALUE_LEN, 32)
        .bool(CKA_TOKEN, false)
        .bool(CKA_PRIVATE, true)
        .bool(CKA_SENSITIVE, true)
        .bool(CKA_EXTRACTABLE, false)
        .bool(CKA_ENCRYPT, false)
        .usages(&[CKA_DERIVE]);
    let number = if key_type == CKK_AES { CKM_AES_KEY_GEN } else { CKM_GENERIC_SECRET_KEY_GEN };
    session.bench.offers(number, CKF_GENERATE)?;
    let (rv, key) = session.try_generate(&Mechanism::plain(number), &template);
    rv.ok().map(|()| key)
}

fn encrypt_data(bench: &Bench) -> Verdict {
    each(
        [CKM_AES_ECB_ENCRYPT_DATA, CKM_AES_CBC_ENCRYPT_DATA],
        |number| format!("mechanism {number:#x}"),
        |number| {
            bench.offers(*number, CKF_DERIVE)?;
            let session = bench.session()?;
            let base = parent(&session, CKK_AES)?;
            let (rv, child) = session.derive(&encrypted_data(*number), base, &open(32));
            if !rv.was(CKR_OK) {
                return rv.refused();
            }
            let shown = session.attribute(child, CKA_VALUE).unwrap_or_default();
            let seen = format!("{} bytes of ciphertext by a key without CKA_ENCRYPT", shown.len());
            ensure(shown.is_empty(), "a refusal, or a sensitive key", seen)
        },
    )
}

/// More than 255 times the length of SHA-256 (RFC 5869, 2.3).
const TOO_LONG: CK_ULONG = 255 * 32 + 1;

fn lengths(bench: &Bench) -> Verdict {
    bench.offers(CKM_HKDF_DERIVE, CKF_DERIVE)?;
    let session = bench.session()?;
    let base = parent(&session, CKK_GENERIC_SECRET)?;
    let child = |bytes| {
        let hidden = open(bytes).without(CKA_SENSITIVE).without(CKA_EXTRACTABLE);
        hidden.bool(CKA_PRIVATE, true).bool(CKA_SENSITIVE, true).bool(CKA_EXTRACTABLE, false)
    };
    session.derive(&hkdf(), base, &child(32)).0.ok()?;
    each(
        [0, TOO_LONG],
        |bytes| format!("{bytes} bytes"),
        |bytes| match session.derive(&hkdf(), base, &child(*bytes)).0 {
            rv if rv.was(CKR_OK) => Err(Stop::fail("a refusal of the length", rv.to_string())),
            rv => rv.refused(),
        },
    )
}

/// An open child of a sensitive parent for each way to derive where the standard leaves that to the token.
fn each_open_child(bench: &Bench, run: impl Fn(&Session<'_>, CK_OBJECT_HANDLE) -> Verdict) -> Verdict {
    let session = bench.session()?;
    each(
        [CKM_ECDH1_DERIVE, CKM_HKDF_DERIVE, CKM_AES_ECB_ENCRYPT_DATA, CKM_AES_CBC_ENCRYPT_DATA],
        |number| format!("mechanism {number:#x}"),
        |number| {
            bench.offers(*number, CKF_DERIVE)?;
            let (mechanism, base) = match *number {
                CKM_ECDH1_DERIVE => {
                    let (key, point) = agreement(&session)?;
                    (Mechanism::ecdh(&point), key)
                }
                CKM_HKDF_DERIVE => (hkdf(), parent(&session, CKK_GENERIC_SECRET)?),
                other => (encrypted_data(other), parent(&session, CKK_AES)?),
            };
            match session.derive(&mechanism, base, &open(32)) {
                (rv, child) if rv.was(CKR_OK) => run(&session, child),
                (rv, _) => rv.refused(),
            }
        },
    )
}

fn history(bench: &Bench) -> Verdict {
    each_open_child(bench, |session, child| {
        for (kind, name) in [
            (CKA_ALWAYS_SENSITIVE, "CKA_ALWAYS_SENSITIVE"),
            (CKA_NEVER_EXTRACTABLE, "CKA_NEVER_EXTRACTABLE"),
            (CKA_LOCAL, "CKA_LOCAL"),
        ] {
            let value = session.attribute(child, kind)?;
            ensure(value == [0], format!("{name} false: the key is open"), format!("{value:?}"))?;
        }
        Ok(())
    })
}

fn open_child(bench: &Bench) -> Verdict {
    each_open_child(bench, |session, child| {
        let shown = session.attribute(child, CKA_VALUE).unwrap_or_default();
        ensure(shown.is_empty(), "a refusal, or a sensitive key", "an open key")
    })
}

/// An EC private key that derives, and the point that belongs to it, bare.
fn agreement(session: &Session<'_>) -> Result<(CK_OBJECT_HANDLE, Vec<u8>), Stop> {
    session.bench.offers(CKM_ECDH1_DERIVE, CKF_DERIVE)?;
    session.bench.offers(CKM_EC_KEY_PAIR_GEN, CKF_GENERATE_KEY_PAIR)?;
    let public = ec_public(P256).usages(&[CKA_DERIVE]);
    let private = private().usages(&[CKA_DERIVE]);
    let pair = session.generate_pair(&Mechanism::plain(CKM_EC_KEY_PAIR_GEN), &public, &private)?;
    let point = session.attribute(pair.public, CKA_EC_POINT)?;
    let bare = point.strip_prefix(&[4, 65]).unwrap_or(&point).to_vec();
    Ok((pair.private, bare))
}

fn bad_points(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let (key, point) = agreement(&session)?;
    session.derive(&Mechanism::ecdh(&point), key, &open(32)).0.ok()?;
    let mut off_curve = point.clone();
    if let Some(byte) = off_curve.last_mut() {
        *byte ^= 1;
    }
    let too_large = [&[4_u8][..], &[0xff; 64]].concat();
    let short = point.get(..64).unwrap_or_default().to_vec();
    let bad = [
        ("a point off the curve", off_curve),
        ("coordinates beyond the field", too_large),
        ("the origin", [&[4_u8][..], &[0; 64]].concat()),
        ("the point at infinity", vec![0]),
        ("a point that is too short", short),
        ("an unknown form", [&[9_u8][..], &[1; 64]].concat()),
    ];
    each(
        bad,
        |(name, _)| (*name).to_owned(),
        |(_, point)| {
            let (rv, _) = session.derive(&Mechanism::ecdh(point), key, &open(32));
            match rv.code {
                CKR_OK => {
                    Err(Stop::fail("a refusal", format!("{rv}: a secret that tells of the private key")))
                }
                _ => rv.refused(),
            }
        },
    )
}

fn not_permitted(bench: &Bench) -> Verdict {
    bench.offers(CKM_ECDH1_DERIVE, CKF_DERIVE)?;
    let session = bench.session()?;
    let (_, point) = agreement(&session)?;
    let signs = private().bool(CKA_DERIVE, false);
    let mechanism = Mechanism::plain(CKM_EC_KEY_PAIR_GEN);
    let signs = session.generate_pair(&mechanism, &ec_public(P256), &signs)?.private;
    session.derive(&Mechanism::ecdh(&point), signs, &open(32)).0.is(CKR_KEY_FUNCTION_NOT_PERMITTED)
}

fn allowed_mechanisms(bench: &Bench) -> Verdict {
    bench.offers(CKM_SHA256_HMAC, CKF_SIGN)?;
    bench.offers(CKM_SHA512_HMAC, CKF_SIGN)?;
    let session = bench.session()?;
    let template = Template::secret(CKK_GENERIC_SECRET, &[0x0b; 64])
        .bool(CKA_PRIVATE, true)
        .bytes(CKA_ALLOWED_MECHANISMS, &CKM_SHA512_HMAC.to_ne_bytes());
    let (rv, key) = session.try_create(&template.usages(&[CKA_SIGN]));
    if rv.was(CKR_ATTRIBUTE_TYPE_INVALID) {
        return Err(Stop::NotOffered);
    }
    rv.ok()?;
    session.sign(&Mechanism::plain(CKM_SHA512_HMAC), key, b"a message")?;
    let other = bench.session()?;
    let begun = other.init(F::C_SignInit, &Mechanism::plain(CKM_SHA256_HMAC), Some(key));
    let refusals = [CKR_MECHANISM_INVALID, CKR_KEY_FUNCTION_NOT_PERMITTED];
    if !begun.was(CKR_OK) {
        return begun.one_of(&refusals);
    }
    // The codes are listed for the beginning, not for what comes after it.
    match other.run(F::C_Sign, b"a message", &mut Out::room(64)) {
        rv if rv.was(CKR_OK) => rv.one_of(&refusals),
        rv => Err(Stop::graded(
            Severity::Low,
            "C_SignInit: CKR_MECHANISM_INVALID",
            format!("{begun}, and no sooner than for the signature {rv}"),
        )),
    }
}
