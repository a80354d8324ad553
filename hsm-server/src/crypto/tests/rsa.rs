//! RSA.

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::{
        OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OAEP_SHA384_MGF1SHA384, OAEP_SHA512_MGF1SHA512,
        OaepPrivateDecryptingKey, OaepPublicEncryptingKey, PrivateDecryptingKey,
    },
    signature::{self, RsaKeyPair, UnparsedPublicKey},
};

use super::*;

const DER: &[u8] = include_bytes!("../self_test_rsa.der");
const SIZE: usize = 256;

fn raw() -> By {
    By::plain(Mechanism::RsaPkcs)
}

fn pss(mechanism: Mechanism, hash: Hash, mgf: Hash, salt_length: usize) -> By {
    By(mechanism, Params::Pss { hash, mgf, salt_length: salt_length as u32 })
}

fn oaep(hash: Hash, mgf: Hash, label: &[u8]) -> By {
    By(Mechanism::RsaPkcsOaep, Params::Oaep { hash, mgf, label: label.to_vec() })
}

fn digest_of(hash: Hash, text: &[u8]) -> Vec<u8> {
    digest::digest(crate::crypto::hash::aws_lc(hash), text).as_ref().to_vec()
}

#[test]
fn aws_lc_agrees_on_signatures() {
    let pair = rsa_pair();
    let theirs = RsaKeyPair::from_der(DER).unwrap();
    let public = signature::KeyPair::public_key(&theirs).as_ref().to_vec();
    let cases: [(By, &'static dyn signature::RsaEncoding, &'static dyn signature::VerificationAlgorithm); 6] = [
        (
            By::plain(Mechanism::Sha256RsaPkcs),
            &signature::RSA_PKCS1_SHA256,
            &signature::RSA_PKCS1_2048_8192_SHA256,
        ),
        (
            By::plain(Mechanism::Sha384RsaPkcs),
            &signature::RSA_PKCS1_SHA384,
            &signature::RSA_PKCS1_2048_8192_SHA384,
        ),
        (
            By::plain(Mechanism::Sha512RsaPkcs),
            &signature::RSA_PKCS1_SHA512,
            &signature::RSA_PKCS1_2048_8192_SHA512,
        ),
        (
            pss(Mechanism::Sha256RsaPkcsPss, Hash::Sha256, Hash::Sha256, 32),
            &signature::RSA_PSS_SHA256,
            &signature::RSA_PSS_2048_8192_SHA256,
        ),
        (
            pss(Mechanism::Sha384RsaPkcsPss, Hash::Sha384, Hash::Sha384, 48),
            &signature::RSA_PSS_SHA384,
            &signature::RSA_PSS_2048_8192_SHA384,
        ),
        (
            pss(Mechanism::Sha512RsaPkcsPss, Hash::Sha512, Hash::Sha512, 64),
            &signature::RSA_PSS_SHA512,
            &signature::RSA_PSS_2048_8192_SHA512,
        ),
    ];
    for (by, signing, verifying) in cases {
        let ours = by.sign(&pair.private, b"text").unwrap();
        UnparsedPublicKey::new(verifying, &public).verify(b"text", &ours).unwrap();
        let mut signature = vec![0; SIZE];
        theirs.sign(signing, &SystemRandom::new(), b"text", &mut signature).unwrap();
        by.verify(&pair.public, b"text", &signature).unwrap();
        // The raw mechanism signs the same over the digest.
        let digest = digest_of(by.0.hash().unwrap(), b"text");
        if let Params::Pss { .. } = by.1 {
            let raw = By(Mechanism::RsaPkcsPss, by.1.clone());
            raw.verify(&pair.public, &digest, &ours).unwrap();
            by.verify(&pair.public, b"text", &raw.sign(&pair.private, &digest).unwrap()).unwrap();
        }
    }
}

#[test]
fn a_callers_digest_info_gives_the_same_signature() {
    let pair = rsa_pair();
    let info = [hex("3031300d060960864801650304020105000420"), digest_of(Hash::Sha256, b"text")].concat();
    let signature = By::plain(Mechanism::Sha256RsaPkcs).sign(&pair.private, b"text").unwrap();
    assert_eq!(raw().sign(&pair.private, &info).unwrap(), signature);
    raw().verify(&pair.public, &info, &signature).unwrap();
}

#[test]
fn the_raw_mechanism_takes_any_bytes_that_leave_room_for_padding() {
    let pair = rsa_pair();
    for length in [1, 36, SIZE - 11] {
        let input = vec![0; length];
        let signature = raw().sign(&pair.private, &input).unwrap();
        raw().verify(&pair.public, &input, &signature).unwrap();
        let verified = raw().verify(&pair.public, &vec![0; length + 1], &signature);
        assert!(matches!(verified, Err(Error::SignatureInvalid | Error::DataLengthRange)));
        let encrypted = raw().encrypt(&pair.public, &input).unwrap();
        assert_eq!(raw().decrypt(&pair.private, &encrypted).unwrap(), input);
    }
    assert_eq!(raw().sign(&pair.private, &[]), Err(Error::DataLengthRange));
    let empty = raw().encrypt(&pair.public, &[]).unwrap();
    assert_eq!(raw().decrypt(&pair.private, &empty), Ok(Vec::new()));
    let long = vec![0; SIZE - 10];
    assert_eq!(raw().sign(&pair.private, &long), Err(Error::DataLengthRange));
    assert_eq!(raw().verify(&pair.public, &long, &[0; SIZE]), Err(Error::DataLengthRange));
    assert_eq!(raw().encrypt(&pair.public, &long), Err(Error::DataLengthRange));
}

#[test]
fn pss_takes_every_legal_salt_and_mask() {
    let pair = rsa_pair();
    for hash in Hash::ALL.iter().copied() {
        let digest = digest_of(hash, b"text");
        let longest = SIZE - hash.length() - 2;
        for mgf in Hash::ALL.iter().copied() {
            for salt in [0, hash.length(), longest] {
                let by = pss(Mechanism::RsaPkcsPss, hash, mgf, salt);
                let signature = by.sign(&pair.private, &digest).unwrap();
                by.verify(&pair.public, &digest, &signature).unwrap();
                let other = pss(Mechanism::RsaPkcsPss, hash, mgf, salt ^ 1);
                let verified = other.verify(&pair.public, &digest, &signature);
                assert!(verified.is_err(), "the salt length counts");
            }
        }
        let by = pss(Mechanism::RsaPkcsPss, hash, hash, longest + 1);
        assert_eq!(by.sign(&pair.private, &digest), Err(Error::MechanismParamInvalid));
        let by = pss(Mechanism::RsaPkcsPss, hash, hash, u32::MAX as usize);
        assert_eq!(by.verify(&pair.public, &digest, &[0; SIZE]), Err(Error::MechanismParamInvalid));
        let by = pss(Mechanism::RsaPkcsPss, hash, hash, 0);
        assert_eq!(by.sign(&pair.private, &digest[1..]), Err(Error::DataLengthRange));
        assert_eq!(
            by.verify(&pair.public, &[&digest[..], &[0]].concat(), &[0; SIZE]),
            Err(Error::DataLengthRange)
        );
    }
    let by = pss(Mechanism::Sha256RsaPkcsPss, Hash::Sha384, Hash::Sha256, 32);
    assert_eq!(by.sign(&pair.private, b"text"), Err(Error::MechanismParamInvalid));
}

#[test]
fn aws_lc_agrees_on_oaep() {
    let pair = rsa_pair();
    let pkcs8 = openssl::pkey::PKey::from_rsa(openssl::rsa::Rsa::private_key_from_der(DER).unwrap()).unwrap();
    let theirs = PrivateDecryptingKey::from_pkcs8(&pkcs8.private_key_to_pkcs8().unwrap()).unwrap();
    let public = OaepPublicEncryptingKey::new(theirs.public_key()).unwrap();
    let private = OaepPrivateDecryptingKey::new(theirs).unwrap();
    for (hash, algorithm) in [
        (Hash::Sha1, &OAEP_SHA1_MGF1SHA1),
        (Hash::Sha256, &OAEP_SHA256_MGF1SHA256),
        (Hash::Sha384, &OAEP_SHA384_MGF1SHA384),
        (Hash::Sha512, &OAEP_SHA512_MGF1SHA512),
    ] {
        for label in [&b""[..], b"label"] {
            let by = oaep(hash, hash, label);
            let mut buffer = [0; SIZE];
            let ours = by.encrypt(&pair.public, b"text").unwrap();
            assert_eq!(private.decrypt(algorithm, &ours, &mut buffer, Some(label)).unwrap(), b"text");
            let encrypted = public.encrypt(algorithm, b"text", &mut buffer, Some(label)).unwrap();
            assert_eq!(by.decrypt(&pair.private, encrypted).unwrap(), b"text");
        }
    }
}

#[test]
fn oaep_takes_every_hash_and_mask_and_says_one_thing_of_every_failure() {
    let pair = rsa_pair();
    for hash in Hash::ALL.iter().copied() {
        for mgf in Hash::ALL.iter().copied() {
            let by = oaep(hash, mgf, b"label");
            let longest = vec![9; SIZE - 2 * hash.length() - 2];
            let encrypted = by.encrypt(&pair.public, &longest).unwrap();
            assert_eq!(by.decrypt(&pair.private, &encrypted).unwrap(), longest);
            let longer = [&longest[..], &[9]].concat();
            assert_eq!(by.encrypt(&pair.public, &longer), Err(Error::DataLengthRange));
            let other = oaep(hash, mgf, b"another");
            assert_eq!(other.decrypt(&pair.private, &encrypted), Err(Error::EncryptedDataInvalid));
            let mut forged = encrypted.clone();
            forged[SIZE - 1] ^= 1;
            assert_eq!(by.decrypt(&pair.private, &forged), Err(Error::EncryptedDataInvalid));
            assert_eq!(by.decrypt(&pair.private, &[0xff; SIZE]), Err(Error::EncryptedDataInvalid));
            assert_eq!(by.decrypt(&pair.private, &encrypted[1..]), Err(Error::EncryptedDataLengthRange));
        }
    }
}

/// Bleichenbacher's question gets no answer: bad padding decrypts, always to the same bytes.
#[test]
fn bad_pkcs1_padding_is_not_told_apart() {
    let pair = rsa_pair();
    let forge = |byte: u8| {
        let mut text = vec![byte; SIZE];
        text[0] = 0;
        text
    };
    let mut lengths = std::collections::HashSet::new();
    for byte in 1..=32 {
        let forged = forge(byte);
        let first = raw().decrypt(&pair.private, &forged).unwrap();
        assert_eq!(raw().decrypt(&pair.private, &forged).unwrap(), first);
        lengths.insert(first.len());
    }
    assert!(lengths.len() > 8, "the made-up texts have made-up lengths: {lengths:?}");
    assert_eq!(raw().decrypt(&pair.private, &[0xff; SIZE]), Err(Error::EncryptedDataInvalid));
    for wrong in [&[1; SIZE - 1][..], &[1; SIZE + 1], &[]] {
        assert_eq!(raw().decrypt(&pair.private, wrong), Err(Error::EncryptedDataLengthRange));
    }
}

#[test]
fn a_new_pair_is_as_asked() {
    let asked = Template::new().with(CKA_MODULUS_BITS, Value::Ulong(2048));
    let (_, stored) = new_pair(Mechanism::RsaPkcsKeyPairGen, CKK_RSA, &asked).unwrap();
    assert_eq!((bits(&stored.public), bits(&stored.private)), (2048, 2048));
    assert_eq!(stored.public.bytes(CKA_PUBLIC_EXPONENT), Some(&[1, 0, 1][..]));
    assert_eq!(stored.public.bytes(CKA_MODULUS).unwrap().len(), SIZE);
    for half in [&stored.public, &stored.private] {
        let info = openssl::rsa::Rsa::public_key_from_der(half.bytes(CKA_PUBLIC_KEY_INFO).unwrap()).unwrap();
        assert_eq!(info.n().to_vec(), stored.public.bytes(CKA_MODULUS).unwrap());
    }
    // What was generated would pass as an import.
    assert_eq!(completed(&stored.private).unwrap(), stored.private);
    assert_eq!(completed(&stored.public).unwrap(), stored.public);
}

#[test]
fn an_impossible_pair_is_refused() {
    let make = |asked: &Template| {
        let random = Repeatable::seeded(1);
        generate_pair(Mechanism::RsaPkcsKeyPairGen, asked, &Template::new(), &random).map(drop)
    };
    for size in [0, 1024, 2047, 2049, 4097, 8192, u64::MAX] {
        let asked = Template::new().with(CKA_MODULUS_BITS, Value::Ulong(size));
        assert_eq!(make(&asked), Err(Error::AttributeValueInvalid(CKA_MODULUS_BITS)), "{size}");
    }
    assert_eq!(make(&Template::new()), Err(Error::TemplateIncomplete(CKA_MODULUS_BITS)));
    for exponent in [&[][..], &[1], &[3], &[1, 0, 0], &[1, 0, 2], &[1, 0, 0, 0, 0, 0, 0, 0, 1]] {
        let asked = Template::new()
            .with(CKA_MODULUS_BITS, Value::Ulong(2048))
            .with(CKA_PUBLIC_EXPONENT, Value::bytes(exponent));
        assert_eq!(make(&asked), Err(Error::AttributeValueInvalid(CKA_PUBLIC_EXPONENT)), "{exponent:?}");
    }
}

const PRIMES: [CK_ATTRIBUTE_TYPE; 2] = [CKA_PRIME_1, CKA_PRIME_2];
const DERIVED: [CK_ATTRIBUTE_TYPE; 3] = [CKA_EXPONENT_1, CKA_EXPONENT_2, CKA_COEFFICIENT];

#[test]
fn what_an_import_leaves_out_is_derived() {
    let full = rsa_templates().private;
    let without =
        |kinds: &[CK_ATTRIBUTE_TYPE]| kinds.iter().fold(full.clone(), |full, kind| lacking(&full, *kind));
    assert_eq!(completed(&full).unwrap(), full);
    let from_primes = completed(&without(&DERIVED)).unwrap();
    let from_exponents = completed(&without(&[PRIMES.as_slice(), &DERIVED].concat())).unwrap();
    let mut padded = full.clone();
    for kind in [CKA_MODULUS, CKA_PRIVATE_EXPONENT, CKA_PRIME_1, CKA_EXPONENT_2] {
        padded = changed(&padded, kind, &[&[0; 3], full.bytes(kind).unwrap()].concat());
    }
    assert_eq!(bits(&padded), 2048);
    for (derived, how) in
        [(from_primes, "p, q"), (from_exponents, "e, d"), (completed(&padded).unwrap(), "zeros")]
    {
        for attribute in full.iter() {
            assert_eq!(derived.value(attribute.kind), Some(&attribute.value), "{how}: {attribute:?}");
        }
        Key::parse(&derived).unwrap();
    }
}

#[test]
fn a_wrong_private_key_is_refused() {
    let full = rsa_templates().private;
    let flipped = |kind| {
        let mut number = full.bytes(kind).unwrap().to_vec();
        number[20] ^= 4;
        changed(&full, kind, &number)
    };
    for kind in [CKA_MODULUS, CKA_PRIVATE_EXPONENT, CKA_PRIME_1, CKA_PRIME_2].into_iter().chain(DERIVED) {
        assert_eq!(complete(&flipped(kind)).map(drop), Err(Error::TemplateInconsistent), "{kind:x}");
    }
    for kind in [CKA_MODULUS, CKA_PRIVATE_EXPONENT] {
        let bare = PRIMES.into_iter().chain(DERIVED).fold(flipped(kind), |bare, kind| lacking(&bare, kind));
        assert_eq!(complete(&bare).map(drop), Err(Error::TemplateInconsistent), "{kind:x} alone");
    }
    for kind in [CKA_MODULUS, CKA_PUBLIC_EXPONENT, CKA_PRIVATE_EXPONENT, CKA_PRIME_1, CKA_PRIME_2] {
        assert_eq!(complete(&lacking(&full, kind)).map(drop), Err(Error::TemplateIncomplete(kind)));
    }
    let modulus = full.bytes(CKA_MODULUS).unwrap();
    for (kind, value) in [
        (CKA_PUBLIC_EXPONENT, &[1][..]),
        (CKA_PUBLIC_EXPONENT, &[3]),
        (CKA_PRIVATE_EXPONENT, &[]),
        (CKA_PRIVATE_EXPONENT, &[1]),
        (CKA_PRIVATE_EXPONENT, modulus),
        (CKA_MODULUS, &modulus[1..]),
        (CKA_MODULUS, &[]),
    ] {
        assert_eq!(complete(&changed(&full, kind, value)).map(drop), Err(Error::AttributeValueInvalid(kind)));
    }
    // n = n × 1 is true, and no key.
    let trivial = changed(&changed(&full, CKA_PRIME_1, modulus), CKA_PRIME_2, &[1]);
    assert_eq!(complete(&trivial).map(drop), Err(Error::TemplateInconsistent));
}

#[test]
fn a_wrong_public_key_is_refused() {
    let good = rsa_templates().public;
    let stored = completed(&good).unwrap();
    assert_eq!(stored.ulong(CKA_MODULUS_BITS), Some(2048));
    let mut even = good.bytes(CKA_MODULUS).unwrap().to_vec();
    *even.last_mut().unwrap() &= 0xfe;
    for (kind, value) in [
        (CKA_MODULUS, &even[..]),
        (CKA_MODULUS, &even[..128]),
        (CKA_MODULUS, &[0xff; 513]),
        (CKA_MODULUS, &[]),
        (CKA_PUBLIC_EXPONENT, &[3]),
        (CKA_PUBLIC_EXPONENT, &[1, 0, 0]),
        (CKA_PUBLIC_EXPONENT, &[]),
    ] {
        let template = changed(&good, kind, value);
        assert_eq!(complete(&template).map(drop), Err(Error::AttributeValueInvalid(kind)));
        assert_eq!(Key::parse(&template).map(drop), Err(Error::AttributeValueInvalid(kind)));
    }
    let wrong_size = good.clone().with(CKA_MODULUS_BITS, Value::Ulong(2047));
    assert_eq!(complete(&wrong_size), Err(Error::TemplateInconsistent));
    assert!(complete(&good.with(CKA_MODULUS_BITS, Value::Ulong(2048))).is_ok());
}
