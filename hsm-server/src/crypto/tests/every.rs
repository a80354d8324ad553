//! Every mechanism of the table, with every kind of key.

use proptest::prelude::*;
use strongroom_shared::mechanism::{Input, Length, ParamsKind};

use super::*;
use crate::crypto::ec::Curve;

/// A fitting parameter.
fn params(mechanism: Mechanism) -> Params {
    let hash = mechanism.hash().unwrap_or(Hash::Sha256);
    match mechanism.row().params {
        ParamsKind::None | ParamsKind::Eddsa => Params::None,
        ParamsKind::Iv => Params::Iv([7; 16]),
        ParamsKind::Ctr => Params::Ctr { bits: 32, block: [0; 16] },
        ParamsKind::Gcm => Params::Gcm { iv: vec![9; 12], aad: b"header".to_vec(), tag_bits: 128 },
        ParamsKind::Pss => Params::Pss { hash, mgf: hash, salt_length: hash.length() as u32 },
        ParamsKind::Oaep => Params::Oaep { hash, mgf: hash, label: b"label".to_vec() },
        ParamsKind::Path => Params::Path(vec![0]),
    }
}

/// A parameter that does not fit.
fn stray(mechanism: Mechanism) -> Params {
    match mechanism.row().params {
        ParamsKind::Iv => Params::None,
        ParamsKind::None
        | ParamsKind::Eddsa
        | ParamsKind::Ctr
        | ParamsKind::Gcm
        | ParamsKind::Pss
        | ParamsKind::Oaep
        | ParamsKind::Path => Params::Iv([0; 16]),
    }
}

/// Every key that the mechanism should work with; a secret key stands for both halves.
fn keys(mechanism: Mechanism) -> Vec<Pair> {
    let secrets = |key_type, values: &[Vec<u8>]| {
        let pair =
            |value: &Vec<u8>| Pair { public: secret(key_type, value), private: secret(key_type, value) };
        values.iter().map(pair).collect()
    };
    match mechanism.row().key {
        KeyKind::Rsa => vec![rsa_pair()],
        KeyKind::Ec if mechanism == Mechanism::Bip340 => vec![ec_pair(Curve::Secp256k1)],
        KeyKind::Ec => Curve::ALL.iter().map(|curve| ec_pair(*curve)).collect(),
        KeyKind::EcEdwards => vec![edwards_pair()],
        KeyKind::Aes => secrets(CKK_AES, &[vec![0; 16], vec![1; 24], vec![2; 32]]),
        KeyKind::Generic => secrets(CKK_GENERIC_SECRET, &[vec![3; 14], vec![4; 32], vec![5; 512]]),
        KeyKind::None => Vec::new(),
    }
}

/// A key of another family.
fn stranger(mechanism: Mechanism) -> Key {
    match mechanism.row().key {
        KeyKind::Aes => secret(CKK_GENERIC_SECRET, &[1; 32]),
        KeyKind::Rsa | KeyKind::Ec | KeyKind::EcEdwards | KeyKind::Generic | KeyKind::None => {
            secret(CKK_AES, &[1; 32])
        }
    }
}

fn signing() -> impl Iterator<Item = Mechanism> {
    Mechanism::ALL.iter().copied().filter(|mechanism| mechanism.row().supports(CKF_SIGN))
}

fn encrypting() -> impl Iterator<Item = Mechanism> {
    Mechanism::ALL.iter().copied().filter(|mechanism| mechanism.row().supports(CKF_ENCRYPT))
}

fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1;
    bytes
}

#[test]
fn what_is_signed_verifies_and_nothing_else_does() {
    for mechanism in signing() {
        assert!(mechanism.row().supports(CKF_VERIFY), "{mechanism:?}");
        let by = By(mechanism, params(mechanism));
        let input = match mechanism.row().input {
            Input::Message => b"a message of some length, longer than any digest, that is hashed".to_vec(),
            Input::Digest | Input::Data | Input::Nothing => vec![0x5a; 32],
        };
        for pair in keys(mechanism) {
            let context = format!("{mechanism:?} with {:?}", pair.private);
            let signature = by.sign(&pair.private, &input).expect(&context);
            let length = match mechanism.row().length {
                Length::Fixed(length) => length,
                Length::EcdsaPair => 2 * pair.private.bits.div_ceil(8) as usize,
                Length::Modulus => pair.private.bits.div_ceil(8) as usize,
                Length::SameAsInput | Length::PaddedBlocks | Length::InputAndTag | Length::None => 0,
            };
            assert_eq!(signature.len(), length, "{context}");
            assert_eq!(by.verify(&pair.public, &input, &signature), Ok(()), "{context}");
            for at in [0, input.len() - 1] {
                let verified = by.verify(&pair.public, &flipped(&input, at), &signature);
                assert_eq!(verified, Err(Error::SignatureInvalid), "{context}");
            }
            for at in [0, length / 2, length - 1] {
                let verified = by.verify(&pair.public, &input, &flipped(&signature, at));
                assert_eq!(verified, Err(Error::SignatureInvalid), "{context}, byte {at}");
            }
            for wrong in [&signature[1..], &[&signature[..], &[0]].concat(), &[]] {
                let verified = by.verify(&pair.public, &input, wrong);
                assert_eq!(verified, Err(Error::SignatureLengthRange), "{context}");
            }
        }
    }
}

#[test]
fn what_is_encrypted_decrypts() {
    for mechanism in encrypting() {
        assert!(mechanism.row().supports(CKF_DECRYPT), "{mechanism:?}");
        let by = By(mechanism, params(mechanism));
        for pair in keys(mechanism) {
            for length in [16, 32, 112] {
                let text = (0..length).collect::<Vec<u8>>();
                let context = format!("{mechanism:?} with {:?}", pair.private);
                let encrypted = by.encrypt(&pair.public, &text).expect(&context);
                assert_ne!(encrypted, text, "{context}");
                assert_eq!(by.decrypt(&pair.private, &encrypted).as_ref(), Ok(&text), "{context}");
            }
        }
    }
}

#[test]
fn a_mechanism_does_only_what_its_row_says() {
    let key = secret(CKK_AES, &[1; 32]);
    for mechanism in Mechanism::ALL {
        let row = mechanism.row();
        let by = By(*mechanism, params(*mechanism));
        let refused = Err(Error::MechanismInvalid);
        assert_eq!(by.sign(&key, b"x").map(drop) == refused, !row.supports(CKF_SIGN), "{mechanism:?}");
        assert_eq!(by.verify(&key, b"x", b"y") == refused, !row.supports(CKF_VERIFY), "{mechanism:?}");
        assert_eq!(by.encrypt(&key, b"x").map(drop) == refused, !row.supports(CKF_ENCRYPT), "{mechanism:?}");
        assert_eq!(by.decrypt(&key, b"x").map(drop) == refused, !row.supports(CKF_DECRYPT), "{mechanism:?}");
        let random = Repeatable::seeded(1);
        let empty = Template::new();
        let made = generate(*mechanism, &empty, &random).map(drop);
        assert_eq!(made == refused, !row.supports(CKF_GENERATE), "{mechanism:?}");
        let made = match row.supports(CKF_GENERATE_KEY_PAIR) && row.key == KeyKind::Rsa {
            true => continue,
            false => generate_pair(*mechanism, &empty, &empty, &random).map(drop),
        };
        assert_eq!(made == refused, !row.supports(CKF_GENERATE_KEY_PAIR), "{mechanism:?}");
    }
}

#[test]
fn a_key_of_another_family_or_half_is_refused() {
    let refused = Error::KeyTypeInconsistent;
    for mechanism in signing() {
        let by = By(mechanism, params(mechanism));
        assert_eq!(by.sign(&stranger(mechanism), &[0; 32]), Err(refused), "{mechanism:?}");
        assert_eq!(by.verify(&stranger(mechanism), &[0; 32], &[0; 64]), Err(refused), "{mechanism:?}");
    }
    for mechanism in encrypting() {
        let by = By(mechanism, params(mechanism));
        assert_eq!(by.encrypt(&stranger(mechanism), &[0; 32]), Err(refused), "{mechanism:?}");
        assert_eq!(by.decrypt(&stranger(mechanism), &[0; 32]), Err(refused), "{mechanism:?}");
    }
    for (mechanism, pair) in [
        (Mechanism::RsaPkcs, rsa_pair()),
        (Mechanism::Ecdsa, ec_pair(Curve::P256)),
        (Mechanism::Ecdsa, ec_pair(Curve::Secp256k1)),
        (Mechanism::Bip340, ec_pair(Curve::Secp256k1)),
        (Mechanism::Eddsa, edwards_pair()),
    ] {
        let by = By::plain(mechanism);
        assert_eq!(by.sign(&pair.public, &[0; 32]), Err(refused), "{mechanism:?}");
        assert_eq!(by.verify(&pair.private, &[0; 32], &[0; 64]), Err(refused), "{mechanism:?}");
    }
    let (by, nist) = (By::plain(Mechanism::Bip340), ec_pair(Curve::P256));
    assert_eq!(by.sign(&nist.private, &[0; 32]), Err(refused));
    assert_eq!(by.verify(&nist.public, &[0; 32], &[0; 64]), Err(refused));
    let pair = rsa_pair();
    let by = By::plain(Mechanism::RsaPkcs);
    assert_eq!(by.encrypt(&pair.private, &[0; 32]), Err(refused));
    assert_eq!(by.decrypt(&pair.public, &[0; 256]), Err(refused));
}

#[test]
fn a_stray_parameter_is_refused() {
    for mechanism in signing() {
        let by = By(mechanism, stray(mechanism));
        for pair in keys(mechanism) {
            assert_eq!(by.sign(&pair.private, &[0; 32]), Err(Error::MechanismParamInvalid), "{mechanism:?}");
        }
    }
    for mechanism in encrypting() {
        let by = By(mechanism, stray(mechanism));
        for pair in keys(mechanism) {
            assert_eq!(
                by.encrypt(&pair.public, &[0; 32]),
                Err(Error::MechanismParamInvalid),
                "{mechanism:?}"
            );
        }
    }
}

#[test]
fn only_keys_of_this_token_parse() {
    let unknown = template(CKO_SECRET_KEY, CKK_DES3, &[(CKA_VALUE, &[0; 24])]);
    let no_key = template(CKO_DATA, CKK_AES, &[(CKA_VALUE, &[0; 16])]);
    let mixed = template(CKO_PRIVATE_KEY, CKK_AES, &[(CKA_VALUE, &[0; 16])]);
    for (template, error) in [
        (&unknown, Error::AttributeValueInvalid(CKA_KEY_TYPE)),
        (&no_key, Error::AttributeValueInvalid(CKA_CLASS)),
        (&mixed, Error::TemplateInconsistent),
        (&lacking(&mixed, CKA_CLASS), Error::TemplateIncomplete(CKA_CLASS)),
        (&lacking(&mixed, CKA_KEY_TYPE), Error::TemplateIncomplete(CKA_KEY_TYPE)),
    ] {
        assert_eq!(Key::parse(template).map(drop), Err(error));
        assert_eq!(complete(template).map(drop), Err(error));
    }
    assert_eq!(bits(&unknown), 0);
    assert_eq!(bits(&no_key), 0);
}

#[test]
fn a_template_for_a_new_key_must_fit_the_mechanism() {
    let random = Repeatable::seeded(1);
    let asked = Template::new().with(CKA_VALUE_LEN, Value::Ulong(32));
    for (kind, value) in [(CKA_CLASS, CKO_PRIVATE_KEY), (CKA_KEY_TYPE, CKK_RSA)] {
        let template = asked.clone().with(kind, Value::Ulong(value));
        let made = generate(Mechanism::AesKeyGen, &template, &random).map(drop);
        assert_eq!(made, Err(Error::TemplateInconsistent));
    }
    let asked = Template::new().with(CKA_EC_PARAMS, Value::bytes(Curve::P256.oid()));
    let secret = Template::new().with(CKA_CLASS, Value::Ulong(CKO_SECRET_KEY));
    let made = generate_pair(Mechanism::EcKeyPairGen, &asked, &secret, &random).map(drop);
    assert_eq!(made, Err(Error::TemplateInconsistent));
    let other = Template::new().with(CKA_EC_PARAMS, Value::bytes(Curve::P384.oid()));
    let made = generate_pair(Mechanism::EcKeyPairGen, &asked, &other, &random).map(drop);
    assert_eq!(made, Err(Error::TemplateInconsistent));
}

/// Attribute values of a caller who means ill, or a good key with one thing wrong.
fn hostile() -> impl Strategy<Value = Template> {
    let class = prop_oneof![Just(CKO_PRIVATE_KEY), Just(CKO_PUBLIC_KEY), Just(CKO_SECRET_KEY), any::<u64>()];
    let types = [CKK_RSA, CKK_EC, CKK_EC_EDWARDS, CKK_AES, CKK_GENERIC_SECRET, CKK_SHA256_HMAC];
    let kinds = [
        CKA_VALUE,
        CKA_VALUE_LEN,
        CKA_CHECK_VALUE,
        CKA_EC_PARAMS,
        CKA_EC_POINT,
        CKA_MODULUS,
        CKA_MODULUS_BITS,
        CKA_PUBLIC_EXPONENT,
        CKA_PRIVATE_EXPONENT,
        CKA_PRIME_1,
        CKA_PRIME_2,
        CKA_COEFFICIENT,
        CKA_PUBLIC_KEY_INFO,
    ];
    let names =
        Curve::ALL.iter().map(|curve| curve.oid()).chain([ED25519]).map(Value::bytes).collect::<Vec<_>>();
    let value = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..600).prop_map(Value::bytes),
        proptest::collection::vec(any::<u8>(), 32).prop_map(Value::bytes),
        proptest::sample::select(names),
        any::<u64>().prop_map(Value::Ulong),
        any::<bool>().prop_map(Value::Bool),
    ];
    let attributes = proptest::collection::vec((proptest::sample::select(kinds.to_vec()), value), 0..8);
    let base = prop_oneof![
        Just(Template::new()),
        Just(rsa_templates().private),
        Just(rsa_templates().public),
        Just(template(CKO_PRIVATE_KEY, CKK_EC, &[(CKA_EC_PARAMS, Curve::P521.oid()), (CKA_VALUE, &[7; 32])])),
    ];
    (base, class, proptest::sample::select(types.to_vec()), attributes).prop_map(
        |(base, class, key_type, attributes)| {
            let mut template = base;
            template.set_default(CKA_CLASS, Value::Ulong(class));
            template.set_default(CKA_KEY_TYPE, Value::Ulong(key_type));
            attributes.into_iter().for_each(|(kind, value)| template.set(kind, value));
            template
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Nothing panics, and what passes as an import can be used.
    #[test]
    fn no_template_brings_the_room_down(template in hostile()) {
        let _ = Key::parse(&template).map(|key| format!("{key:?}"));
        let random = Repeatable::seeded(1);
        for mechanism in [Mechanism::AesKeyGen, Mechanism::GenericSecretKeyGen] {
            let _ = generate(mechanism, &template, &random);
        }
        for mechanism in [Mechanism::EcKeyPairGen, Mechanism::EcEdwardsKeyPairGen] {
            let _ = generate_pair(mechanism, &template, &Template::new(), &random);
        }
        if let Ok(stored) = completed(&template) {
            prop_assert!(Key::parse(&stored).is_ok());
            prop_assert!(bits(&stored) > 0);
            prop_assert_eq!(completed(&stored).unwrap(), stored);
        }
    }
}
