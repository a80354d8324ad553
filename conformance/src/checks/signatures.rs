//! Chapter 6, the mechanisms that sign: what a signature looks like, and what is none.
//! The state machine is in `operations.rs`.

use cryptoki_sys::*;

use crate::bench::{Bench, Stage};
use crate::check::{Check, Stop, Verdict, each, ensure, table};
use crate::raw::Function as F;
use crate::report::counted;
use crate::session::{KeyPair, Session, ec_public, private};
use crate::template::{Mechanism, Template, UNAVAILABLE};

/// A mechanism that signs, with the keys it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `CKM_ECDSA` on P-256.
    Ecdsa,
    /// `CKM_ECDSA_SHA256` on P-256.
    EcdsaSha256,
    /// `CKM_EDDSA`, Ed25519.
    Eddsa,
    /// `CKM_RSA_PKCS`.
    RsaPkcs,
    /// `CKM_SHA256_RSA_PKCS`.
    Sha256RsaPkcs,
    /// `CKM_SHA256_RSA_PKCS_PSS`.
    Pss,
    /// `CKM_SHA256_HMAC`.
    Hmac,
}

macro_rules! schemes {
    (
        $( $table:ident $scheme:ident $name:literal $section:literal; )*
        => $each:tt
    ) => { $(
        #[doc = concat!("The checks of ", $section, ".")]
        pub const $table: &[Check] = schemes!(@each $scheme $name $section $each);
    )* };
    (@each $scheme:ident $name:literal $section:literal { $( $id:literal $run:ident, $title:literal $( => $( $mark:ident )+ )?; )* }) => {
        &[ $( Check::new(
            concat!("signatures.", $name, "-", $id),
            Stage::User,
            |bench| $run(bench, Scheme::$scheme),
            concat!($section, " and 5.15.2"),
            $title,
        )$( $( .$mark() )+ )?, )* ]
    };
}

schemes! {
    ECDSA Ecdsa "ecdsa" "6.3 CKM_ECDSA";
    ECDSA_SHA256 EcdsaSha256 "ecdsa-sha256" "6.3 CKM_ECDSA_SHA256";
    EDDSA Eddsa "eddsa" "6.3 CKM_EDDSA";
    RSA_PKCS RsaPkcs "rsa-pkcs" "6.1 CKM_RSA_PKCS";
    SHA256_RSA_PKCS Sha256RsaPkcs "sha256-rsa-pkcs" "6.1 CKM_SHA256_RSA_PKCS";
    PSS Pss "pss" "6.1 CKM_SHA256_RSA_PKCS_PSS";
    HMAC Hmac "hmac" "6.22 CKM_SHA256_HMAC";
    => {
        "round-trip" round_trip, "a signature verifies and has the length of its mechanism";
        "corrupted" corrupted, "a signature with any byte changed is CKR_SIGNATURE_INVALID" => randomness critical;
        "other-message" other_message, "a signature of another message is CKR_SIGNATURE_INVALID" => randomness critical;
        "wrong-length" wrong_length, "a signature of another length is CKR_SIGNATURE_LEN_RANGE" => randomness critical;
        "over" over, "a failed verification is over" => operations;
        "stray-parameter" stray_parameter, "a parameter that the mechanism does not take is refused" => arguments;
        "other-key" other_key, "a key of another type is CKR_KEY_TYPE_INCONSISTENT" => arguments;
        "public-key-signs" public_key_signs, "a public key does not sign" => arguments;
    }
}

table! {
    "signatures.ecdsa-zero" User ecdsa_zero, "6.3 ECDSA", "r or s of zero is no signature" => randomness critical;
    "signatures.ecdsa-order" User ecdsa_order, "6.3 ECDSA", "r or s of the group's order or more is no signature" => randomness critical;
    "signatures.ecdsa-fresh" User ecdsa_fresh, "6.3 ECDSA", "signatures of two messages do not share r" => randomness critical;
    "signatures.ecdsa-curves" User ecdsa_curves, "6.3 ECDSA", "on each curve a signature is twice as long as the order";
    "signatures.eddsa-deterministic" User eddsa_deterministic, "6.3 EdDSA (RFC 8032)", "Ed25519 signs a message one way";
    "signatures.eddsa-empty" User eddsa_empty, "6.3 EdDSA (RFC 8032)", "an empty message is signed and verified";
    "signatures.eddsa-null-context" User eddsa_null_context, "6.3 CK_EDDSA_PARAMS", "a null context with a length is refused" => arguments;
    "signatures.eddsa-context" User eddsa_context, "6.3 CK_EDDSA_PARAMS (RFC 8032)", "a signature with a context is none without it, or is refused" => high;
    "signatures.rsa-too-long" User rsa_too_long, "6.1 CKM_RSA_PKCS", "data longer than the modulus allows is CKR_DATA_LEN_RANGE" => arguments;
    "signatures.pss-no-parameter" User pss_no_parameter, "6.1 PSS", "PSS without a parameter is CKR_MECHANISM_PARAM_INVALID" => arguments;
    "signatures.pss-wrong-hash" User pss_wrong_hash, "6.1 PSS", "a hash other than the mechanism's is CKR_MECHANISM_PARAM_INVALID" => arguments high;
    "signatures.pss-unknown" User pss_unknown, "6.1 PSS", "a hash or mask that does not exist is CKR_MECHANISM_PARAM_INVALID" => arguments;
    "signatures.pss-long-salt" User pss_long_salt, "6.1 PSS", "a salt longer than the key allows is refused" => arguments;
    "signatures.pss-digest-length" User pss_digest_length, "6.1 CKM_RSA_PKCS_PSS", "a hash value of the wrong length is CKR_DATA_LEN_RANGE" => arguments;
    "signatures.hmac-vector" User hmac_vector, "6.22 CKM_SHA256_HMAC", "HMAC-SHA-256 gives the values of RFC 4231" => high;
}

/// The salt of SHA-256.
const SALT: CK_ULONG = 32;

impl Scheme {
    fn mechanism(self) -> Mechanism {
        match self {
            Self::Ecdsa => Mechanism::plain(CKM_ECDSA),
            Self::EcdsaSha256 => Mechanism::plain(CKM_ECDSA_SHA256),
            Self::Eddsa => Mechanism::plain(CKM_EDDSA),
            Self::RsaPkcs => Mechanism::plain(CKM_RSA_PKCS),
            Self::Sha256RsaPkcs => Mechanism::plain(CKM_SHA256_RSA_PKCS),
            Self::Pss => Mechanism::pss(CKM_SHA256_RSA_PKCS_PSS, CKM_SHA256, CKG_MGF1_SHA256, SALT),
            Self::Hmac => Mechanism::plain(CKM_SHA256_HMAC),
        }
    }

    const fn length(self) -> usize {
        match self {
            Self::Ecdsa | Self::EcdsaSha256 | Self::Eddsa => 64,
            Self::RsaPkcs | Self::Sha256RsaPkcs | Self::Pss => 256,
            Self::Hmac => 32,
        }
    }

    fn keys(self, session: &Session<'_>) -> Result<KeyPair, Stop> {
        session.bench.offers(self.mechanism().number(), CKF_SIGN | CKF_VERIFY)?;
        match self {
            Self::Ecdsa | Self::EcdsaSha256 => session.p256(),
            Self::Eddsa => session.ed25519(),
            Self::RsaPkcs | Self::Sha256RsaPkcs | Self::Pss => session.bench.rsa(),
            Self::Hmac => session.hmac_key().map(|key| KeyPair { public: key, private: key }),
        }
    }
}

/// A message that is also a hash value of SHA-256 by its length.
const MESSAGE: &[u8; 32] = b"the message is 32 bytes in all..";

/// A session, a key pair, and a signature by it.
fn signed(bench: &Bench, scheme: Scheme) -> Result<(Session<'_>, KeyPair, Vec<u8>), Stop> {
    let session = bench.session()?;
    let pair = scheme.keys(&session)?;
    let signature = session.sign(&scheme.mechanism(), pair.private, MESSAGE)?;
    Ok((session, pair, signature))
}

fn verify(
    session: &Session<'_>,
    mechanism: &Mechanism,
    key: CK_OBJECT_HANDLE,
    data: &[u8],
    signature: &[u8],
    expected: &[CK_RV],
) -> Verdict {
    session.init(F::C_VerifyInit, mechanism, Some(key)).ok()?;
    session.verify(data, signature).one_of(expected)
}

fn round_trip(bench: &Bench, scheme: Scheme) -> Verdict {
    let (session, pair, signature) = signed(bench, scheme)?;
    let length = scheme.length();
    ensure(signature.len() == length, format!("{length} bytes"), counted(signature.len(), "byte"))?;
    verify(&session, &scheme.mechanism(), pair.public, MESSAGE, &signature, &[CKR_OK])
}

fn corrupted(bench: &Bench, scheme: Scheme) -> Verdict {
    let (session, pair, signature) = signed(bench, scheme)?;
    for position in [0, 1, signature.len() / 2, signature.len() - 1] {
        let mut wrong = signature.clone();
        if let Some(byte) = wrong.get_mut(position) {
            *byte ^= 0x01;
        }
        let mechanism = scheme.mechanism();
        verify(&session, &mechanism, pair.public, MESSAGE, &wrong, &[CKR_SIGNATURE_INVALID])?;
    }
    Ok(())
}

fn other_message(bench: &Bench, scheme: Scheme) -> Verdict {
    let (session, pair, signature) = signed(bench, scheme)?;
    let other = b"the message is 32 bytes in all.!";
    verify(&session, &scheme.mechanism(), pair.public, other, &signature, &[CKR_SIGNATURE_INVALID])
}

fn wrong_length(bench: &Bench, scheme: Scheme) -> Verdict {
    let (session, pair, signature) = signed(bench, scheme)?;
    let short = signature.get(1..).unwrap_or_default();
    let long = [signature.as_slice(), &[0]].concat();
    for wrong in [&[] as &[u8], short, &long] {
        let mechanism = scheme.mechanism();
        verify(&session, &mechanism, pair.public, MESSAGE, wrong, &[CKR_SIGNATURE_LEN_RANGE])?;
    }
    Ok(())
}

fn over(bench: &Bench, scheme: Scheme) -> Verdict {
    let (session, pair, signature) = signed(bench, scheme)?;
    session.init(F::C_VerifyInit, &scheme.mechanism(), Some(pair.public)).ok()?;
    session.verify(b"not this message, nor a hash  ..", &signature).refused()?;
    session.verify(MESSAGE, &signature).is(CKR_OPERATION_NOT_INITIALIZED)
}

fn stray_parameter(bench: &Bench, scheme: Scheme) -> Verdict {
    let session = bench.session()?;
    let pair = scheme.keys(&session)?;
    for length in [1, 7, 16] {
        let mechanism = Mechanism::bytes(scheme.mechanism().number(), &vec![7; length]);
        for (init, key) in [(F::C_SignInit, pair.private), (F::C_VerifyInit, pair.public)] {
            let rv = session.init(init, &mechanism, Some(key));
            rv.one_of(&[CKR_MECHANISM_PARAM_INVALID, CKR_ARGUMENTS_BAD])?;
        }
    }
    Ok(())
}

/// A key that may sign and verify, but is of another type.
fn other_key(bench: &Bench, scheme: Scheme) -> Verdict {
    let session = bench.session()?;
    scheme.keys(&session)?;
    let other = match scheme {
        Scheme::Ecdsa | Scheme::EcdsaSha256 | Scheme::Eddsa | Scheme::Hmac => bench.rsa()?,
        Scheme::RsaPkcs | Scheme::Sha256RsaPkcs | Scheme::Pss => session.p256()?,
    };
    for (init, key) in [(F::C_SignInit, other.private), (F::C_VerifyInit, other.public)] {
        session.init(init, &scheme.mechanism(), Some(key)).is(CKR_KEY_TYPE_INCONSISTENT)?;
    }
    Ok(())
}

fn public_key_signs(bench: &Bench, scheme: Scheme) -> Verdict {
    if scheme == Scheme::Hmac {
        return Err(Stop::NotOffered);
    }
    let session = bench.session()?;
    let pair = scheme.keys(&session)?;
    session.init(F::C_SignInit, &scheme.mechanism(), Some(pair.public)).one_of(&[
        CKR_KEY_TYPE_INCONSISTENT,
        CKR_KEY_FUNCTION_NOT_PERMITTED,
        CKR_KEY_HANDLE_INVALID,
    ])
}

/// The order of P-256 (SP 800-186, 3.2.1.3).
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc,
    0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// Replaces one half of a good signature by each of these.
fn impossible_halves(bench: &Bench, halves: &[[u8; 32]]) -> Verdict {
    let (session, pair, signature) = signed(bench, Scheme::Ecdsa)?;
    let (r, s) = signature.split_at_checked(32).unwrap_or_default();
    for half in halves {
        for wrong in [[half, s].concat(), [r, half].concat(), [half, half.as_slice()].concat()] {
            let mechanism = Scheme::Ecdsa.mechanism();
            verify(&session, &mechanism, pair.public, MESSAGE, &wrong, &[CKR_SIGNATURE_INVALID])?;
        }
    }
    Ok(())
}

fn ecdsa_zero(bench: &Bench) -> Verdict {
    impossible_halves(bench, &[[0; 32]])
}

fn ecdsa_order(bench: &Bench) -> Verdict {
    impossible_halves(bench, &[ORDER, [0xff; 32]])
}

fn ecdsa_fresh(bench: &Bench) -> Verdict {
    let (session, pair, first) = signed(bench, Scheme::Ecdsa)?;
    let mut seen = vec![first];
    for number in 0..16_u8 {
        let signature = session.sign(&Scheme::Ecdsa.mechanism(), pair.private, &[number; 32])?;
        let shared = seen.iter().any(|other| other.get(..32) == signature.get(..32));
        ensure(!shared, "another r for another message", "the same r: the key can be computed")?;
        seen.push(signature);
    }
    Ok(())
}

/// Object identifiers of curves, and the length of their orders in bytes (SEC 2).
const CURVES: [(&[u8], usize); 4] = [
    (&[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a], 32),
    (&[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07], 32),
    (&[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22], 48),
    (&[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23], 66),
];

fn ecdsa_curves(bench: &Bench) -> Verdict {
    bench.offers(CKM_EC_KEY_PAIR_GEN, CKF_GENERATE_KEY_PAIR)?;
    bench.offers(CKM_ECDSA, CKF_SIGN)?;
    let session = bench.session()?;
    let (generate, ecdsa) = (Mechanism::plain(CKM_EC_KEY_PAIR_GEN), Scheme::Ecdsa.mechanism());
    for (curve, bytes) in CURVES {
        let (rv, pair) = session.try_generate_pair(&generate, &ec_public(curve), &private());
        // Before 3.0 there was no other code for a curve that the token does not know.
        if rv.was(CKR_CURVE_NOT_SUPPORTED) || rv.was(CKR_DOMAIN_PARAMS_INVALID) {
            continue;
        }
        rv.ok()?;
        let signature = session.sign(&ecdsa, pair.private, MESSAGE)?;
        ensure(signature.len() == 2 * bytes, (2 * bytes).to_string(), signature.len().to_string())?;
        verify(&session, &ecdsa, pair.public, MESSAGE, &signature, &[CKR_OK])?;
    }
    Ok(())
}

fn eddsa_deterministic(bench: &Bench) -> Verdict {
    let (session, pair, first) = signed(bench, Scheme::Eddsa)?;
    let second = session.sign(&Scheme::Eddsa.mechanism(), pair.private, MESSAGE)?;
    ensure(first == second, "the same signature", "another")
}

fn eddsa_empty(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let pair = Scheme::Eddsa.keys(&session)?;
    let signature = session.sign(&Scheme::Eddsa.mechanism(), pair.private, b"")?;
    verify(&session, &Scheme::Eddsa.mechanism(), pair.public, b"", &signature, &[CKR_OK])
}

fn eddsa_null_context(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let pair = Scheme::Eddsa.keys(&session)?;
    let mechanism = Mechanism::words(CKM_EDDSA, &[0, 16, 0]);
    for (init, key) in [(F::C_SignInit, pair.private), (F::C_VerifyInit, pair.public)] {
        let rv = session.init(init, &mechanism, Some(key));
        rv.one_of(&[CKR_MECHANISM_PARAM_INVALID, CKR_ARGUMENTS_BAD])?;
    }
    Ok(())
}

fn eddsa_context(bench: &Bench) -> Verdict {
    let (session, pair, pure) = signed(bench, Scheme::Eddsa)?;
    let context = b"context";
    let address = context.as_ptr().expose_provenance() as CK_ULONG;
    let mechanism = Mechanism::words(CKM_EDDSA, &[0, context.len() as CK_ULONG, address]);
    let rv = session.init(F::C_SignInit, &mechanism, Some(pair.private));
    rv.one_of(&[CKR_OK, CKR_MECHANISM_PARAM_INVALID])?;
    if rv.was(CKR_OK) {
        let mut out = crate::template::Out::room(64);
        session.run(F::C_Sign, MESSAGE, &mut out).ok()?;
        ensure(out.bytes() != pure, "another signature", "the same signature")?;
        let (plain, invalid) = (Scheme::Eddsa.mechanism(), [CKR_SIGNATURE_INVALID]);
        verify(&session, &plain, pair.public, MESSAGE, out.bytes(), &invalid)?;
    }
    Ok(())
}

fn sign_once(bench: &Bench, mechanism: &Mechanism, data: &[u8], expected: &[CK_RV]) -> Verdict {
    bench.offers(mechanism.number(), CKF_SIGN)?;
    let pair = bench.rsa()?;
    let session = bench.session()?;
    session.init(F::C_SignInit, mechanism, Some(pair.private)).ok()?;
    session.run(F::C_Sign, data, &mut crate::template::Out::room(512)).one_of(expected)
}

fn rsa_too_long(bench: &Bench) -> Verdict {
    sign_once(bench, &Scheme::RsaPkcs.mechanism(), &[1; 245], &[CKR_OK])?;
    sign_once(bench, &Scheme::RsaPkcs.mechanism(), &[1; 246], &[CKR_DATA_LEN_RANGE])
}

fn pss_refused(bench: &Bench, mechanism: &Mechanism) -> Verdict {
    bench.offers(mechanism.number(), CKF_SIGN)?;
    let pair = bench.rsa()?;
    let refusals = [CKR_MECHANISM_PARAM_INVALID, CKR_ARGUMENTS_BAD];
    let session = bench.session()?;
    session.init(F::C_SignInit, mechanism, Some(pair.private)).one_of(&refusals)?;
    session.init(F::C_VerifyInit, mechanism, Some(pair.public)).one_of(&refusals)
}

fn pss_no_parameter(bench: &Bench) -> Verdict {
    let number = CKM_SHA256_RSA_PKCS_PSS;
    pss_refused(bench, &Mechanism::plain(number))?;
    pss_refused(bench, &Mechanism::null(number, 24))?;
    pss_refused(bench, &Scheme::Pss.mechanism().of_length(23))?;
    pss_refused(bench, &Mechanism::words(number, &[CKM_SHA256, CKG_MGF1_SHA256, SALT, 0]))
}

fn pss_wrong_hash(bench: &Bench) -> Verdict {
    pss_refused(bench, &Mechanism::pss(CKM_SHA256_RSA_PKCS_PSS, CKM_SHA512, CKG_MGF1_SHA512, SALT))
}

fn pss_unknown(bench: &Bench) -> Verdict {
    pss_refused(bench, &Mechanism::pss(CKM_SHA256_RSA_PKCS_PSS, CKM_AES_CBC, CKG_MGF1_SHA256, SALT))?;
    pss_refused(bench, &Mechanism::pss(CKM_SHA256_RSA_PKCS_PSS, CKM_SHA256, 0x7777, SALT))?;
    pss_refused(bench, &Mechanism::pss(CKM_SHA256_RSA_PKCS_PSS, CKM_SHA256, 0, SALT))
}

/// Some tokens see it at once and some when they know the length of the data.
fn pss_long_salt(bench: &Bench) -> Verdict {
    bench.offers(CKM_SHA256_RSA_PKCS_PSS, CKF_SIGN)?;
    let pair = bench.rsa()?;
    for salt in [256 - 32 - 1, 1 << 32, UNAVAILABLE] {
        let mechanism = Mechanism::pss(CKM_SHA256_RSA_PKCS_PSS, CKM_SHA256, CKG_MGF1_SHA256, salt);
        let session = bench.session()?;
        let mut rv = session.init(F::C_SignInit, &mechanism, Some(pair.private));
        if rv.was(CKR_OK) {
            rv = session.run(F::C_Sign, MESSAGE, &mut crate::template::Out::room(512));
        }
        rv.one_of(&[CKR_MECHANISM_PARAM_INVALID, CKR_ARGUMENTS_BAD, CKR_KEY_SIZE_RANGE, CKR_DATA_LEN_RANGE])?;
    }
    Ok(())
}

fn pss_digest_length(bench: &Bench) -> Verdict {
    let mechanism = || Mechanism::pss(CKM_RSA_PKCS_PSS, CKM_SHA256, CKG_MGF1_SHA256, SALT);
    sign_once(bench, &mechanism(), MESSAGE, &[CKR_OK])?;
    for length in [0, 31, 33] {
        sign_once(bench, &mechanism(), &vec![1; length], &[CKR_DATA_LEN_RANGE])?;
    }
    Ok(())
}

/// Number, key, data and value of cases of RFC 4231.
const RFC_4231: &[(u8, &[u8], &[u8], &str)] = &[
    (1, &[0x0b; 20], b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
    (
        2,
        b"Jefe",
        b"what do ya want for nothing?",
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
    ),
    (3, &[0xaa; 20], &[0xdd; 50], "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
    (
        6,
        &[0xaa; 131],
        b"Test Using Larger Than Block-Size Key - Hash Key First",
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
    ),
];

fn hmac_vector(bench: &Bench) -> Verdict {
    let info = bench.offers(CKM_SHA256_HMAC, CKF_SIGN)?;
    let session = bench.session()?;
    let usable = RFC_4231.iter().filter(|(_, key, ..)| key.len() as CK_ULONG >= info.ulMinKeySize);
    each(
        usable,
        |(number, ..)| format!("case {number}"),
        |(_, key, data, value)| {
            let key = session.create(&Template::secret(CKK_GENERIC_SECRET, key).usages(&[CKA_SIGN]))?;
            let seen = session.sign(&Scheme::Hmac.mechanism(), key, data)?;
            let seen: String = seen.iter().map(|byte| format!("{byte:02x}")).collect();
            ensure(seen == *value, *value, seen.clone())
        },
    )
}
