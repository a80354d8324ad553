//! ECDSA and the keys of its curves.

use k256::ecdsa::signature::hazmat::{PrehashSigner, PrehashVerifier};
use openssl::{
    bn::{BigNum, BigNumContext},
    ec::{EcGroup, EcKey, EcPoint},
    ecdsa::EcdsaSig,
    nid::Nid,
    pkey,
};

use super::*;
use crate::crypto::ec::{Curve, generate};

const RAW: By = By(Mechanism::Ecdsa, Params::None);

fn nid(curve: Curve) -> Nid {
    match curve {
        Curve::Secp256k1 => Nid::SECP256K1,
        Curve::P256 => Nid::X9_62_PRIME256V1,
        Curve::P384 => Nid::SECP384R1,
        Curve::P521 => Nid::SECP521R1,
    }
}

fn private(curve: Curve, scalar: &[u8]) -> Template {
    template(CKO_PRIVATE_KEY, CKK_EC, &[(CKA_EC_PARAMS, curve.oid()), (CKA_VALUE, scalar)])
}

fn public(curve: Curve, point: &[u8]) -> Template {
    template(CKO_PUBLIC_KEY, CKK_EC, &[(CKA_EC_PARAMS, curve.oid()), (CKA_EC_POINT, point)])
}

/// One pair in the token's hands and in OpenSSL's.
struct Both {
    ours: Pair,
    stored: PairValues,
    theirs: EcKey<pkey::Private>,
}

impl Both {
    fn on(curve: Curve) -> Self {
        let asked = Template::new().with(CKA_EC_PARAMS, Value::bytes(curve.oid()));
        let (ours, stored) = new_pair(Mechanism::EcKeyPairGen, CKK_EC, &asked).unwrap();
        let group = EcGroup::from_curve_name(nid(curve)).unwrap();
        let scalar = BigNum::from_slice(stored.private.bytes(CKA_VALUE).unwrap()).unwrap();
        let point = raw_point(curve, &stored.public);
        let point = EcPoint::from_bytes(&group, point, &mut BigNumContext::new().unwrap()).unwrap();
        let theirs = EcKey::from_private_components(&group, &scalar, &point).unwrap();
        theirs.check_key().unwrap();
        Self { ours, stored, theirs }
    }
}

fn raw_point(curve: Curve, stored: &Template) -> &[u8] {
    let point = stored.bytes(CKA_EC_POINT).unwrap();
    &point[point.len() - 1 - 2 * curve.length()..]
}

/// FIPS 186-5, 6.4: the leftmost bits of a value of any length are what is signed.
#[test]
fn openssl_agrees_on_values_of_any_length() {
    for curve in Curve::ALL.iter().copied() {
        let Both { ours, theirs, .. } = Both::on(curve);
        for length in [1, 20, 31, 32, 33, 47, 48, 49, 63, 64, 65, 66, 67, 200] {
            let hash = (0..length).map(|at| 0xff - at as u8).collect::<Vec<_>>();
            let context = format!("{curve:?}, {length} bytes");
            let signature = RAW.sign(&ours.private, &hash).unwrap();
            RAW.verify(&ours.public, &hash, &signature).expect(&context);
            let (r, s) = signature.split_at(curve.length());
            let read = |number| BigNum::from_slice(number).unwrap();
            let signature = EcdsaSig::from_private_components(read(r), read(s)).unwrap();
            assert!(signature.verify(&hash, &theirs).unwrap(), "{context}");
            let signature = EcdsaSig::sign(&hash, &theirs).unwrap();
            let padded =
                |number: &openssl::bn::BigNumRef| number.to_vec_padded(curve.length() as i32).unwrap();
            let signature = [padded(signature.r()), padded(signature.s())].concat();
            RAW.verify(&ours.public, &hash, &signature).expect(&context);
        }
        assert_eq!(RAW.sign(&ours.private, &[]), Err(Error::DataLengthRange));
        assert_eq!(RAW.verify(&ours.public, &[], &vec![1; 2 * curve.length()]), Err(Error::DataLengthRange));
    }
}

#[test]
fn the_rust_curves_agree() {
    let by = By::plain(Mechanism::EcdsaSha256);
    let digest = digest::digest(&digest::SHA256, b"text");
    let pair = Both::on(Curve::P256);
    let key = p256::ecdsa::SigningKey::from_slice(pair.stored.private.bytes(CKA_VALUE).unwrap()).unwrap();
    let ours = by.sign(&pair.ours.private, b"text").unwrap();
    let ours = p256::ecdsa::Signature::from_slice(&ours).unwrap();
    key.verifying_key().verify_prehash(digest.as_ref(), &ours).unwrap();
    let theirs: p256::ecdsa::Signature = key.sign_prehash(digest.as_ref()).unwrap();
    by.verify(&pair.ours.public, b"text", &theirs.to_bytes()).unwrap();

    let by = By::plain(Mechanism::EcdsaSha384);
    let digest = digest::digest(&digest::SHA384, b"text");
    let pair = Both::on(Curve::P384);
    let key = p384::ecdsa::SigningKey::from_slice(pair.stored.private.bytes(CKA_VALUE).unwrap()).unwrap();
    let ours = by.sign(&pair.ours.private, b"text").unwrap();
    let ours = p384::ecdsa::Signature::from_slice(&ours).unwrap();
    key.verifying_key().verify_prehash(digest.as_ref(), &ours).unwrap();
    let theirs: p384::ecdsa::Signature = key.sign_prehash(digest.as_ref()).unwrap();
    by.verify(&pair.ours.public, b"text", &theirs.to_bytes()).unwrap();

    let by = By::plain(Mechanism::EcdsaSha512);
    let digest = digest::digest(&digest::SHA512, b"text");
    let pair = Both::on(Curve::P521);
    let key = p521::ecdsa::SigningKey::from_slice(pair.stored.private.bytes(CKA_VALUE).unwrap()).unwrap();
    let ours = by.sign(&pair.ours.private, b"text").unwrap();
    let ours = p521::ecdsa::Signature::from_slice(&ours).unwrap();
    key.verifying_key().verify_prehash(digest.as_ref(), &ours).unwrap();
    let theirs: p521::ecdsa::Signature = key.sign_prehash(digest.as_ref()).unwrap();
    by.verify(&pair.ours.public, b"text", &theirs.to_bytes()).unwrap();
}

#[test]
fn a_hashing_mechanism_signs_the_digest_of_the_message() {
    for curve in Curve::ALL.iter().copied() {
        let pair = ec_pair(curve);
        for mechanism in [Mechanism::EcdsaSha256, Mechanism::EcdsaSha384, Mechanism::EcdsaSha512] {
            let signature = By::plain(mechanism).sign(&pair.private, b"text").unwrap();
            let digest = digest::digest(crate::crypto::hash::aws_lc(mechanism.hash().unwrap()), b"text");
            RAW.verify(&pair.public, digest.as_ref(), &signature).unwrap();
        }
    }
}

/// Values that differ in their last bits only. The p521 crate would sign those of 66 bytes with one nonce.
#[test]
fn no_two_signatures_share_a_nonce() {
    for curve in Curve::ALL.iter().copied() {
        let pair = ec_pair(curve);
        let nonces = (0..16).map(|last| {
            let mut hash = vec![0x5a; curve.length()];
            *hash.last_mut().unwrap() = last;
            RAW.sign(&pair.private, &hash).unwrap()[..curve.length()].to_vec()
        });
        assert_eq!(nonces.collect::<std::collections::HashSet<_>>().len(), 16, "{curve:?}");
    }
}

#[test]
fn secp256k1_is_deterministic_and_low_and_takes_the_higher_s_of_others() {
    let pair = ec_pair(Curve::Secp256k1);
    for byte in 0..16 {
        let hash = [byte; 32];
        let signature = RAW.sign(&pair.private, &hash).unwrap();
        assert_eq!(RAW.sign(&pair.private, &hash).unwrap(), signature);
        let low = k256::ecdsa::Signature::from_slice(&signature).unwrap();
        assert_eq!(low.normalize_s(), low);
        let (r, s) = low.split_scalars();
        let high = k256::ecdsa::Signature::from_scalars(*r, -*s).unwrap();
        assert_ne!(high, low);
        RAW.verify(&pair.public, &hash, &high.to_bytes()).unwrap();
    }
}

#[test]
fn numbers_out_of_range_are_no_signature() {
    for curve in Curve::ALL.iter().copied() {
        let Both { ours, theirs, .. } = Both::on(curve);
        let length = curve.length();
        let mut order = BigNum::new().unwrap();
        theirs.group().order(&mut order, &mut BigNumContext::new().unwrap()).unwrap();
        let order = order.to_vec_padded(length as i32).unwrap();
        for hash in [&[1; 32][..], &[1; 80]] {
            let good = RAW.sign(&ours.private, hash).unwrap();
            let (r, s) = good.split_at(length);
            for bad in [&vec![0; length][..], &order, &vec![0xff; length]] {
                assert_eq!(RAW.verify(&ours.public, hash, &[bad, s].concat()), Err(Error::SignatureInvalid));
                assert_eq!(RAW.verify(&ours.public, hash, &[r, bad].concat()), Err(Error::SignatureInvalid));
            }
        }
    }
}

#[test]
fn a_new_pair_has_the_attributes_that_others_read() {
    for curve in Curve::ALL.iter().copied() {
        let Both { stored, theirs, .. } = Both::on(curve);
        assert_eq!(stored.private.bytes(CKA_VALUE).unwrap().len(), curve.length());
        assert_eq!(stored.private.bytes(CKA_EC_PARAMS), Some(curve.oid()));
        assert_eq!(stored.private.bytes(CKA_EC_POINT), None);
        assert_eq!((bits(&stored.private), bits(&stored.public)), (curve.bits(), curve.bits()));
        for half in [&stored.public, &stored.private] {
            let info = half.bytes(CKA_PUBLIC_KEY_INFO).unwrap();
            assert_eq!(info, theirs.public_key_to_der().unwrap(), "{curve:?}");
        }
        let wrapped = stored.public.bytes(CKA_EC_POINT).unwrap();
        let raw = raw_point(curve, &stored.public);
        assert_eq!(wrapped[0], 4);
        assert_eq!(completed(&public(curve, raw)).unwrap().bytes(CKA_EC_POINT), Some(wrapped));
        assert_eq!(completed(&public(curve, wrapped)).unwrap().bytes(CKA_EC_POINT), Some(wrapped));
    }
}

#[test]
fn a_scalar_is_stored_as_long_as_the_field() {
    for curve in Curve::ALL.iter().copied() {
        let stored = completed(&private(curve, &[1])).unwrap();
        let value = stored.bytes(CKA_VALUE).unwrap();
        assert_eq!((value.len(), value.last()), (curve.length(), Some(&1)));
        let zeros = [&vec![0; 9][..], value].concat();
        assert_eq!(completed(&private(curve, &zeros)).unwrap(), stored);
    }
}

#[test]
fn a_wrong_private_key_is_refused() {
    let refused = Error::AttributeValueInvalid(CKA_VALUE);
    for curve in Curve::ALL.iter().copied() {
        let Both { stored, theirs, .. } = Both::on(curve);
        let mut order = BigNum::new().unwrap();
        theirs.group().order(&mut order, &mut BigNumContext::new().unwrap()).unwrap();
        let good = stored.private.bytes(CKA_VALUE).unwrap().to_vec();
        let long = [&[1][..], &good].concat();
        let none = vec![0; curve.length()];
        for scalar in [&[][..], &[0], &none, &order.to_vec(), &vec![0xff; curve.length()], &long] {
            assert_eq!(complete(&private(curve, scalar)).map(drop), Err(refused), "{curve:?} {scalar:x?}");
            assert_eq!(Key::parse(&private(curve, scalar)).map(drop), Err(refused));
        }
        let given = stored.public.bytes(CKA_EC_POINT).unwrap();
        assert!(complete(&changed(&private(curve, &good), CKA_EC_POINT, given)).is_ok());
        let other = changed(&private(curve, &[5]), CKA_EC_POINT, given);
        assert_eq!(complete(&other), Err(Error::TemplateInconsistent));
        let info = stored.public.bytes(CKA_PUBLIC_KEY_INFO).unwrap();
        assert!(complete(&changed(&private(curve, &good), CKA_PUBLIC_KEY_INFO, info)).is_ok());
        let other = changed(&private(curve, &[5]), CKA_PUBLIC_KEY_INFO, info);
        assert_eq!(complete(&other), Err(Error::TemplateInconsistent));
    }
}

#[test]
fn a_wrong_public_key_is_refused() {
    let refused = Error::AttributeValueInvalid(CKA_EC_POINT);
    for curve in Curve::ALL.iter().copied() {
        let Both { stored, .. } = Both::on(curve);
        let raw = raw_point(curve, &stored.public).to_vec();
        let wrapped = stored.public.bytes(CKA_EC_POINT).unwrap();
        let mut beside = raw.clone();
        *beside.last_mut().unwrap() ^= 1;
        let mut compressed = raw[..1 + curve.length()].to_vec();
        compressed[0] = 2 + (raw.last().unwrap() & 1);
        let mut hybrid = raw.clone();
        hybrid[0] = 6 + (raw.last().unwrap() & 1);
        let zeros = [&[4][..], &vec![0; 2 * curve.length()]].concat();
        let trailing = [wrapped, &[0]].concat();
        let cut = &raw[..raw.len() - 1];
        let mut bit_string = wrapped.to_vec();
        bit_string[0] = 3;
        let mut misstated = wrapped.to_vec();
        misstated[1] ^= 1;
        for point in [
            &beside[..],
            &compressed,
            &hybrid,
            &zeros,
            &trailing,
            &bit_string,
            &misstated,
            cut,
            &[0],
            &[4, 1, 0],
            &[],
        ] {
            assert_eq!(complete(&public(curve, point)).map(drop), Err(refused), "{curve:?} {point:x?}");
        }
        let other = if curve == Curve::P256 { Curve::Secp256k1 } else { Curve::P256 };
        assert_eq!(complete(&public(other, &raw)).map(drop), Err(refused));
    }
}

#[test]
fn only_the_curves_of_the_token_are_named() {
    let p224 = hex("06052b81040021");
    let explicit = hex("3081f7020101302c06072a8648ce3d0101022100ffff");
    let trailing = [Curve::P256.oid(), &[0]].concat();
    for params in [&p224[..], &explicit, &trailing, ED25519, b"", b"junk"] {
        let asked = Template::new().with(CKA_EC_PARAMS, Value::bytes(params));
        let made = generate_pair(Mechanism::EcKeyPairGen, &asked, &Template::new(), &Repeatable::seeded(1))
            .map(drop);
        assert_eq!(made, Err(Error::CurveNotSupported), "{params:x?}");
        let import = template(CKO_PRIVATE_KEY, CKK_EC, &[(CKA_EC_PARAMS, params), (CKA_VALUE, &[1])]);
        assert_eq!(complete(&import).map(drop), Err(Error::CurveNotSupported));
    }
    let made =
        generate_pair(Mechanism::EcKeyPairGen, &Template::new(), &Template::new(), &Repeatable::seeded(1));
    assert_eq!(made.map(drop), Err(Error::TemplateIncomplete(CKA_EC_PARAMS)));
}

#[test]
fn a_pair_is_what_the_random_bytes_make_it_and_a_stuck_generator_ends() {
    struct Stuck(u8);
    impl Random for Stuck {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }
    for curve in Curve::ALL.iter().copied() {
        let asked = Template::new().with(CKA_EC_PARAMS, Value::bytes(curve.oid()));
        let make = |seed| generate(&asked, &Repeatable::seeded(seed)).unwrap().private;
        assert_eq!(make(1), make(1));
        assert_ne!(make(1), make(2));
        for stuck in [0, 0xff] {
            assert!(matches!(generate(&asked, &Stuck(stuck)), Err(Error::Internal(_))), "{curve:?}");
        }
    }
}
