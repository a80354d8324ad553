//! Chapters 5.18.1, 5.18.2 and 6: keys that are made or brought, and templates that must not make one.

use cryptoki_sys::*;

use crate::bench::Bench;
use crate::check::{Stop, Verdict, ensure, table};
use crate::report::counted;
use crate::session::{ED25519, P256, aes, ec_public, edwards_public, private, rsa_public};
use crate::template::{Mechanism, Template};

table! {
    all arguments;
    "keys.aes" User aes_sizes, "6.10 AES key generation", "AES keys of 16, 24 and 32 bytes are made, each another";
    "keys.aes-no-length" User aes_no_length, "5.18.1 C_GenerateKey", "an AES key without CKA_VALUE_LEN is incomplete";
    "keys.aes-odd-length" User aes_odd_length, "5.18.1 C_GenerateKey", "AES keys of other lengths are refused";
    "keys.aes-with-value" User aes_with_value, "5.18.1 C_GenerateKey", "a generated key is not given its value";
    "keys.wrong-class" User wrong_class, "5.18.1 C_GenerateKey", "C_GenerateKey makes no private key";
    "keys.wrong-type" User wrong_type, "5.18.1 C_GenerateKey", "CKM_AES_KEY_GEN makes no key of another type";
    "keys.unknown-mechanism" User unknown_mechanism, "5.18.1 C_GenerateKey", "a mechanism that does not exist is CKR_MECHANISM_INVALID";
    "keys.other-mechanism" User other_mechanism, "5.18.1 C_GenerateKey", "a mechanism that makes no secret key is CKR_MECHANISM_INVALID";
    "keys.stray-parameter" User stray_parameter, "5.1.6 CKR_MECHANISM_PARAM_INVALID", "a parameter for a mechanism that takes none is refused";
    "keys.generic-sizes" User generic_sizes, "5.5.6 C_GetMechanismInfo", "generic secrets are made of the least and the most length, and no other";
    "keys.generic-no-length" User generic_no_length, "5.18.1 C_GenerateKey", "a generic secret without CKA_VALUE_LEN is incomplete";
    "keys.ec" User ec, "6.3 Elliptic curve", "a P-256 key pair is made, its point a DER octet string";
    "keys.ec-no-params" User ec_no_params, "5.18.2 C_GenerateKeyPair", "an EC key pair without a curve is incomplete";
    "keys.ec-unknown-curve" User ec_unknown_curve, "6.3 Elliptic curve", "a curve that does not exist is refused";
    "keys.ec-bad-params" User ec_bad_params, "6.3 Elliptic curve", "a curve that is no DER is refused";
    "keys.ec-with-point" User ec_with_point, "5.18.2 C_GenerateKeyPair", "a generated key is not given its point";
    "keys.ec-with-value" User ec_with_value, "5.18.2 C_GenerateKeyPair", "a generated key is not given its value";
    "keys.pair-wrong-class" User pair_wrong_class, "5.18.2 C_GenerateKeyPair", "the public template makes no private key";
    "keys.pair-wrong-type" User pair_wrong_type, "5.18.2 C_GenerateKeyPair", "CKM_EC_KEY_PAIR_GEN makes no RSA key";
    "keys.pair-other-mechanism" User pair_other_mechanism, "5.18.2 C_GenerateKeyPair", "a mechanism that makes no pair is CKR_MECHANISM_INVALID";
    "keys.pair-refused-is-nothing" User pair_refused_is_nothing, "5.18.2 C_GenerateKeyPair", "a refused private template leaves no public key";
    "keys.edwards" User edwards, "6.3 Edwards curves", "an Ed25519 key pair is made";
    "keys.edwards-wrong-curve" User edwards_wrong_curve, "6.3 Edwards curves", "CKM_EC_EDWARDS_KEY_PAIR_GEN makes no key on P-256";
    "keys.rsa" User rsa, "6.1 RSA", "an RSA key pair has exactly the bits and the exponent asked for" => randomness high patience(60);
    "keys.rsa-no-bits" User rsa_no_bits, "5.18.2 C_GenerateKeyPair", "an RSA key pair without CKA_MODULUS_BITS is incomplete";
    "keys.rsa-too-small" User rsa_too_small, "5.5.6 C_GetMechanismInfo", "a modulus below the least is refused" => randomness;
    "keys.rsa-too-large" User rsa_too_large, "5.5.6 C_GetMechanismInfo", "a modulus above the most is refused" => patience(60);
    "keys.rsa-bad-exponent" User rsa_bad_exponent, "6.1 RSA", "a public exponent of 0, 1 or 4 is refused" => randomness high;
    "keys.rsa-with-modulus" User rsa_with_modulus, "5.18.2 C_GenerateKeyPair", "a generated key is not given its modulus";
    "keys.import-aes-lengths" User import_aes_lengths, "5.7.1 C_CreateObject", "AES keys of other lengths are not brought in" => randomness;
    "keys.import-ec-curve" User import_ec_curve, "5.7.1 C_CreateObject", "a public key on a curve that does not exist is not brought in" => randomness;
    "keys.import-ec-off-curve" User import_ec_off_curve, "5.7.1 C_CreateObject", "a public point that is not on its curve is not brought in, or not used" => randomness high;
    "keys.import-ec-zero" User import_ec_zero, "5.7.1 C_CreateObject", "an EC private key of zero is not brought in, or not used" => randomness high;
    "keys.import-rsa-incomplete" User import_rsa_incomplete, "5.7.1 C_CreateObject", "an RSA public key without a modulus is incomplete";
    "keys.import-ec-incomplete" User import_ec_incomplete, "5.7.1 C_CreateObject", "an EC public key without a point is incomplete";
}

/// What a template that contradicts itself or its mechanism is answered with.
const INCONSISTENT: &[CK_RV] = &[
    CKR_TEMPLATE_INCONSISTENT,
    CKR_ATTRIBUTE_VALUE_INVALID,
    CKR_ATTRIBUTE_READ_ONLY,
    CKR_ATTRIBUTE_TYPE_INVALID,
];

/// What an impossible size is answered with.
const SIZE: &[CK_RV] = &[CKR_KEY_SIZE_RANGE, CKR_ATTRIBUTE_VALUE_INVALID, CKR_TEMPLATE_INCONSISTENT];

/// What no size at all is answered with: it may count as missing.
const NO_SIZE: &[CK_RV] =
    &[CKR_KEY_SIZE_RANGE, CKR_ATTRIBUTE_VALUE_INVALID, CKR_TEMPLATE_INCONSISTENT, CKR_TEMPLATE_INCOMPLETE];

/// What an impossible curve is answered with.
const CURVE: &[CK_RV] = &[
    CKR_CURVE_NOT_SUPPORTED,
    CKR_DOMAIN_PARAMS_INVALID,
    CKR_ATTRIBUTE_VALUE_INVALID,
    CKR_TEMPLATE_INCONSISTENT,
];

fn generate_aes(bench: &Bench, template: &Template, expected: &[CK_RV]) -> Verdict {
    bench.offers(CKM_AES_KEY_GEN, CKF_GENERATE)?;
    bench.session()?.try_generate(&Mechanism::plain(CKM_AES_KEY_GEN), template).0.one_of(expected)
}

fn generate_pair(
    bench: &Bench,
    mechanism: CK_MECHANISM_TYPE,
    public: &Template,
    private: &Template,
    expected: &[CK_RV],
) -> Verdict {
    bench.offers(mechanism, CKF_GENERATE_KEY_PAIR)?;
    let session = bench.session()?;
    session.try_generate_pair(&Mechanism::plain(mechanism), public, private).0.one_of(expected)
}

fn aes_sizes(bench: &Bench) -> Verdict {
    bench.offers(CKM_AES_KEY_GEN, CKF_GENERATE)?;
    let session = bench.session()?;
    let mut values = Vec::new();
    for bytes in [16, 24, 32, 32] {
        let template = aes(bytes).bool(CKA_SENSITIVE, false).bool(CKA_EXTRACTABLE, true);
        let (rv, key) = session.try_generate(&Mechanism::plain(CKM_AES_KEY_GEN), &template);
        rv.ok()?;
        let value = session.attribute(key, CKA_VALUE)?;
        ensure(value.len() as CK_ULONG == bytes, bytes.to_string(), value.len().to_string())?;
        ensure(!values.contains(&value), "another key", "the same key twice")?;
        values.push(value);
    }
    Ok(())
}

fn aes_no_length(bench: &Bench) -> Verdict {
    generate_aes(bench, &aes(32).without(CKA_VALUE_LEN), &[CKR_TEMPLATE_INCOMPLETE])
}

fn aes_odd_length(bench: &Bench) -> Verdict {
    generate_aes(bench, &aes(0), NO_SIZE)?;
    for bytes in [1, 15, 17, 31, 33, 1 << 31, CK_ULONG::MAX] {
        generate_aes(bench, &aes(bytes), SIZE)?;
    }
    Ok(())
}

fn aes_with_value(bench: &Bench) -> Verdict {
    generate_aes(bench, &aes(32).bytes(CKA_VALUE, &[1; 32]), INCONSISTENT)
}

fn wrong_class(bench: &Bench) -> Verdict {
    let template = aes(32).without(CKA_CLASS).ulong(CKA_CLASS, CKO_PRIVATE_KEY);
    generate_aes(bench, &template, INCONSISTENT)
}

fn wrong_type(bench: &Bench) -> Verdict {
    let template = aes(32).without(CKA_KEY_TYPE).ulong(CKA_KEY_TYPE, CKK_GENERIC_SECRET);
    generate_aes(bench, &template, INCONSISTENT)
}

fn unknown_mechanism(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let mechanism = Mechanism::plain(CKM_VENDOR_DEFINED | 0x00de_adbe);
    session.try_generate(&mechanism, &aes(32)).0.is(CKR_MECHANISM_INVALID)?;
    session.try_generate_pair(&mechanism, &ec_public(P256), &private()).0.is(CKR_MECHANISM_INVALID)
}

fn other_mechanism(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    for mechanism in [CKM_EC_KEY_PAIR_GEN, CKM_SHA256, CKM_SHA256_HMAC] {
        session.try_generate(&Mechanism::plain(mechanism), &aes(32)).0.is(CKR_MECHANISM_INVALID)?;
    }
    Ok(())
}

fn stray_parameter(bench: &Bench) -> Verdict {
    bench.offers(CKM_AES_KEY_GEN, CKF_GENERATE)?;
    let refusals = [CKR_MECHANISM_PARAM_INVALID, CKR_ARGUMENTS_BAD];
    let session = bench.session()?;
    session.try_generate(&Mechanism::bytes(CKM_AES_KEY_GEN, &[1; 16]), &aes(32)).0.one_of(&refusals)?;
    bench.offers(CKM_EC_KEY_PAIR_GEN, CKF_GENERATE_KEY_PAIR)?;
    let mechanism = Mechanism::bytes(CKM_EC_KEY_PAIR_GEN, &[1; 16]);
    session.try_generate_pair(&mechanism, &ec_public(P256), &private()).0.one_of(&refusals)
}

fn generic(bytes: CK_ULONG) -> Template {
    aes(bytes).without(CKA_KEY_TYPE).ulong(CKA_KEY_TYPE, CKK_GENERIC_SECRET)
}

/// The sizes of this mechanism are bits (6.8).
fn generic_sizes(bench: &Bench) -> Verdict {
    let info = bench.offers(CKM_GENERIC_SECRET_KEY_GEN, CKF_GENERATE)?;
    let session = bench.session()?;
    let mechanism = Mechanism::plain(CKM_GENERIC_SECRET_KEY_GEN);
    let made = |bytes: CK_ULONG| session.try_generate(&mechanism, &generic(bytes)).0;
    let (least, most) = (info.ulMinKeySize.div_ceil(8), info.ulMaxKeySize / 8);
    made(0).one_of(NO_SIZE)?;
    made(least.max(1)).ok()?;
    if least > 1 {
        made(least - 1).one_of(SIZE)?;
    }
    if most < 1 << 20 {
        made(most).ok()?;
        made(most + 1).one_of(SIZE)?;
    }
    made(CK_ULONG::MAX).one_of(SIZE)
}

fn generic_no_length(bench: &Bench) -> Verdict {
    bench.offers(CKM_GENERIC_SECRET_KEY_GEN, CKF_GENERATE)?;
    let mechanism = Mechanism::plain(CKM_GENERIC_SECRET_KEY_GEN);
    let template = generic(32).without(CKA_VALUE_LEN);
    bench.session()?.try_generate(&mechanism, &template).0.is(CKR_TEMPLATE_INCOMPLETE)
}

fn ec(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let pair = session.p256()?;
    let point = session.attribute(pair.public, CKA_EC_POINT)?;
    ensure(
        point.len() == 67 && point.starts_with(&[4, 65, 4]),
        "04 41 04 and 64 bytes",
        format!("{point:02x?}"),
    )?;
    let curve = session.attribute(pair.private, CKA_EC_PARAMS)?;
    ensure(curve == P256, "the curve in the private key too", format!("{curve:02x?}"))
}

fn ec_no_params(bench: &Bench) -> Verdict {
    let public = ec_public(P256).without(CKA_EC_PARAMS);
    generate_pair(bench, CKM_EC_KEY_PAIR_GEN, &public, &private(), &[CKR_TEMPLATE_INCOMPLETE])
}

fn ec_unknown_curve(bench: &Bench) -> Verdict {
    let nowhere = [0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x7f];
    generate_pair(bench, CKM_EC_KEY_PAIR_GEN, &ec_public(&nowhere), &private(), CURVE)
}

fn ec_bad_params(bench: &Bench) -> Verdict {
    for params in [b"prime256v1".as_slice(), P256.get(..5).unwrap_or_default(), &[0x06, 0xff]] {
        generate_pair(bench, CKM_EC_KEY_PAIR_GEN, &ec_public(params), &private(), CURVE)?;
    }
    Ok(())
}

fn ec_with_point(bench: &Bench) -> Verdict {
    let public = ec_public(P256).bytes(CKA_EC_POINT, &[4; 67]);
    generate_pair(bench, CKM_EC_KEY_PAIR_GEN, &public, &private(), INCONSISTENT)
}

fn ec_with_value(bench: &Bench) -> Verdict {
    let private = private().bytes(CKA_VALUE, &[4; 32]);
    generate_pair(bench, CKM_EC_KEY_PAIR_GEN, &ec_public(P256), &private, INCONSISTENT)
}

fn pair_wrong_class(bench: &Bench) -> Verdict {
    let public = ec_public(P256).without(CKA_CLASS).ulong(CKA_CLASS, CKO_PRIVATE_KEY);
    generate_pair(bench, CKM_EC_KEY_PAIR_GEN, &public, &private(), INCONSISTENT)
}

fn pair_wrong_type(bench: &Bench) -> Verdict {
    let private = private().ulong(CKA_KEY_TYPE, CKK_RSA);
    generate_pair(bench, CKM_EC_KEY_PAIR_GEN, &ec_public(P256), &private, INCONSISTENT)
}

fn pair_other_mechanism(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    for mechanism in [CKM_AES_KEY_GEN, CKM_SHA256, CKM_ECDSA] {
        let mechanism = Mechanism::plain(mechanism);
        session.try_generate_pair(&mechanism, &ec_public(P256), &private()).0.is(CKR_MECHANISM_INVALID)?;
    }
    Ok(())
}

fn pair_refused_is_nothing(bench: &Bench) -> Verdict {
    bench.offers(CKM_EC_KEY_PAIR_GEN, CKF_GENERATE_KEY_PAIR)?;
    let session = bench.session()?;
    let mark = ec_public(P256).bytes(CKA_ID, b"refused");
    let private = private().bool(CKA_ALWAYS_SENSITIVE, true);
    session.try_generate_pair(&Mechanism::plain(CKM_EC_KEY_PAIR_GEN), &mark, &private).0.refused()?;
    let found = session.find(&Template::new().bytes(CKA_ID, b"refused"))?;
    ensure(found.is_empty(), "no object", counted(found.len(), "object"))
}

fn edwards(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let pair = session.ed25519()?;
    let point = session.attribute(pair.public, CKA_EC_POINT)?;
    let bare = point.len() == 32;
    let encoded = point.len() == 34 && point.starts_with(&[4, 32]);
    ensure(bare || encoded, "32 bytes, bare (3.0) or as an octet string", format!("{point:02x?}"))
}

fn edwards_wrong_curve(bench: &Bench) -> Verdict {
    let [oid, _] = ED25519;
    let (mechanism, public) = (CKM_EC_EDWARDS_KEY_PAIR_GEN, edwards_public(P256));
    generate_pair(bench, mechanism, &public, &private(), CURVE)?;
    generate_pair(bench, CKM_EC_KEY_PAIR_GEN, &ec_public(oid), &private(), CURVE)
}

fn rsa(bench: &Bench) -> Verdict {
    let pair = bench.rsa()?;
    let session = bench.session()?;
    let modulus = session.attribute(pair.public, CKA_MODULUS)?;
    let full = modulus.len() == 256 && modulus.first().is_some_and(|byte| byte & 0x80 != 0);
    ensure(full, "2048 bits", counted(modulus.len(), "byte"))?;
    let bits = session.attribute(pair.public, CKA_MODULUS_BITS)?;
    ensure(bits == (2048 as CK_ULONG).to_ne_bytes(), "CKA_MODULUS_BITS 2048", format!("{bits:?}"))?;
    let exponent = session.attribute(pair.public, CKA_PUBLIC_EXPONENT)?;
    ensure(exponent == [1, 0, 1], "65537", format!("{exponent:?}"))?;
    ensure(session.attribute(pair.private, CKA_MODULUS)? == modulus, "one modulus in both", "another")
}

fn generate_rsa(bench: &Bench, public: &Template, expected: &[CK_RV]) -> Verdict {
    generate_pair(bench, CKM_RSA_PKCS_KEY_PAIR_GEN, public, &private(), expected)
}

fn rsa_no_bits(bench: &Bench) -> Verdict {
    generate_rsa(bench, &rsa_public(2048).without(CKA_MODULUS_BITS), &[CKR_TEMPLATE_INCOMPLETE])
}

fn rsa_too_small(bench: &Bench) -> Verdict {
    let least = bench.offers(CKM_RSA_PKCS_KEY_PAIR_GEN, CKF_GENERATE_KEY_PAIR)?.ulMinKeySize;
    generate_rsa(bench, &rsa_public(0), NO_SIZE)?;
    for bits in [8, least.saturating_sub(8)] {
        generate_rsa(bench, &rsa_public(bits), SIZE)?;
    }
    Ok(())
}

fn rsa_too_large(bench: &Bench) -> Verdict {
    let most = bench.offers(CKM_RSA_PKCS_KEY_PAIR_GEN, CKF_GENERATE_KEY_PAIR)?.ulMaxKeySize;
    for bits in [most + 8, 1 << 32, CK_ULONG::MAX] {
        generate_rsa(bench, &rsa_public(bits), SIZE)?;
    }
    Ok(())
}

fn rsa_bad_exponent(bench: &Bench) -> Verdict {
    for exponent in [&[] as &[u8], &[0], &[1], &[4]] {
        let public = rsa_public(2048).without(CKA_PUBLIC_EXPONENT).bytes(CKA_PUBLIC_EXPONENT, exponent);
        generate_rsa(bench, &public, &[CKR_ATTRIBUTE_VALUE_INVALID, CKR_TEMPLATE_INCONSISTENT])?;
    }
    Ok(())
}

fn rsa_with_modulus(bench: &Bench) -> Verdict {
    generate_rsa(bench, &rsa_public(2048).bytes(CKA_MODULUS, &[0xff; 256]), INCONSISTENT)
}

fn import(bench: &Bench, template: &Template, expected: &[CK_RV]) -> Verdict {
    bench.session()?.try_create(template).0.one_of(expected)
}

/// A module need not take keys of every kind.
fn takes(bench: &Bench, right: &Template) -> Verdict {
    if bench.session()?.try_create(right).0.was(CKR_OK) { Ok(()) } else { Err(Stop::NotOffered) }
}

fn import_aes_lengths(bench: &Bench) -> Verdict {
    takes(bench, &Template::secret(CKK_AES, &[1; 16]))?;
    for length in [0, 1, 15, 17, 33, 64] {
        import(bench, &Template::secret(CKK_AES, &vec![1; length]), SIZE)?;
    }
    Ok(())
}

fn ec_import(curve: &[u8], point: &[u8]) -> Template {
    ec_public(curve).bytes(CKA_EC_POINT, point)
}

/// The generator of P-256 as an uncompressed point in a DER octet string (SP 800-186, 3.2.1.3).
const POINT: [u8; 67] = [
    0x04, 0x41, 0x04, 0x6b, 0x17, 0xd1, 0xf2, 0xe1, 0x2c, 0x42, 0x47, 0xf8, 0xbc, 0xe6, 0xe5, 0x63, 0xa4,
    0x40, 0xf2, 0x77, 0x03, 0x7d, 0x81, 0x2d, 0xeb, 0x33, 0xa0, 0xf4, 0xa1, 0x39, 0x45, 0xd8, 0x98, 0xc2,
    0x96, 0x4f, 0xe3, 0x42, 0xe2, 0xfe, 0x1a, 0x7f, 0x9b, 0x8e, 0xe7, 0xeb, 0x4a, 0x7c, 0x0f, 0x9e, 0x16,
    0x2b, 0xce, 0x33, 0x57, 0x6b, 0x31, 0x5e, 0xce, 0xcb, 0xb6, 0x40, 0x68, 0x37, 0xbf, 0x51, 0xf5,
];

fn import_ec_curve(bench: &Bench) -> Verdict {
    let nowhere = [0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x7f];
    takes(bench, &ec_import(P256, &POINT))?;
    import(bench, &ec_import(&nowhere, &POINT), CURVE)
}

fn import_ec_off_curve(bench: &Bench) -> Verdict {
    let mut point = POINT;
    if let Some(last) = point.last_mut() {
        *last ^= 1;
    }
    let session = bench.session()?;
    let (rv, key) = session.try_create(&ec_import(P256, &point));
    if !rv.was(CKR_OK) {
        return rv.one_of(&[CKR_ATTRIBUTE_VALUE_INVALID, CKR_TEMPLATE_INCONSISTENT, CKR_PUBLIC_KEY_INVALID]);
    }
    bench.offers(CKM_ECDSA, CKF_VERIFY)?;
    let rv = session.init(crate::raw::Function::C_VerifyInit, &Mechanism::plain(CKM_ECDSA), Some(key));
    if !rv.was(CKR_OK) {
        return rv.refused();
    }
    session.verify(&[1; 32], &[1; 64]).refused()
}

fn import_ec_zero(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let template = Template::of_class(CKO_PRIVATE_KEY)
        .ulong(CKA_KEY_TYPE, CKK_EC)
        .bool(CKA_TOKEN, false)
        .bytes(CKA_EC_PARAMS, P256)
        .usages(&[CKA_SIGN]);
    let (rv, key) = session.try_create(&template.bytes(CKA_VALUE, &[0; 32]));
    if !rv.was(CKR_OK) {
        return rv.one_of(&[CKR_ATTRIBUTE_VALUE_INVALID, CKR_TEMPLATE_INCONSISTENT]);
    }
    match session.sign(&Mechanism::plain(CKM_ECDSA), key, &[1; 32]) {
        Ok(_) => Err(Stop::fail("no signature by the key zero", "a signature")),
        Err(_) => Ok(()),
    }
}

fn import_rsa_incomplete(bench: &Bench) -> Verdict {
    let template = rsa_public(2048).without(CKA_MODULUS_BITS);
    takes(bench, &rsa_public(2048).without(CKA_MODULUS_BITS).bytes(CKA_MODULUS, &[0xff; 256]))?;
    import(bench, &template, &[CKR_TEMPLATE_INCOMPLETE])
}

fn import_ec_incomplete(bench: &Bench) -> Verdict {
    takes(bench, &ec_import(P256, &POINT))?;
    import(bench, &ec_public(P256), &[CKR_TEMPLATE_INCOMPLETE])
}
