//! Key pairs whose private half several nodes share: which scheme makes one, and what its objects say of it.

use aws_lc_rs::digest;
use pkcs11_sys::*;
use strongroom_shared::{
    mechanism::{CKM_STRONGROOM_BIP340, KeyKind, Mechanism, Params},
    object::{Template, Value},
};
use zeroize::Zeroizing;

use super::{
    Error, Key, PairValues, Task, algorithm, ec, edwards, hash, need, threshold::SchemeId, whole,
    with_public_key_info,
};

/// The length of a scalar, in bytes.
const SCALAR: usize = 32;

/// The scheme that makes a pair by this mechanism with these templates. A key signs by one scheme only: on
/// secp256k1 by BIP340 if `CKA_ALLOWED_MECHANISMS` of the private key names that and nothing else.
///
/// # Errors
/// `MechanismInvalid` or `CurveNotSupported` if there is none; `TemplateInconsistent` if it would take two.
pub fn scheme_of(mechanism: Mechanism, public: &Template, private: &Template) -> Result<SchemeId, Error> {
    if !mechanism.row().supports(CKF_GENERATE_KEY_PAIR) {
        return Err(Error::MechanismInvalid);
    }
    let allowed = match private.value(CKA_ALLOWED_MECHANISMS) {
        Some(Value::Mechanisms(allowed)) => allowed.as_slice(),
        Some(_) | None => &[],
    };
    let by_bip340 = allowed.contains(&CKM_STRONGROOM_BIP340);
    match (mechanism.row().key, by_bip340) {
        (KeyKind::Ec, _) => match (ec::Curve::of(public)?, by_bip340) {
            (ec::Curve::Secp256k1, true) if allowed.len() == 1 => Ok(SchemeId::Bip340),
            (ec::Curve::Secp256k1, false) => Ok(SchemeId::EcdsaSecp256k1),
            (ec::Curve::P256, false) => Ok(SchemeId::EcdsaP256),
            (ec::Curve::Secp256k1 | ec::Curve::P256, true) => Err(Error::TemplateInconsistent),
            (ec::Curve::P384 | ec::Curve::P521, _) => Err(Error::CurveNotSupported),
        },
        (KeyKind::EcEdwards, false) => edwards::check_curve(public).map(|()| SchemeId::Ed25519),
        (KeyKind::EcEdwards, true) => Err(Error::TemplateInconsistent),
        (KeyKind::Rsa | KeyKind::Aes | KeyKind::Generic | KeyKind::None, _) => Err(Error::MechanismInvalid),
    }
}

/// What a pair with this public key, as its shares give it, adds to the two templates.
///
/// # Errors
/// The key is none of the scheme's, or not on the curve that the public template names.
pub fn shared_values(scheme: SchemeId, public: &Template, key: &[u8]) -> Result<PairValues, Error> {
    let params = need(public, CKA_EC_PARAMS)?;
    let named = Template::new().with(CKA_EC_PARAMS, Value::bytes(params));
    let values = match scheme {
        SchemeId::EcdsaSecp256k1 | SchemeId::EcdsaP256 => {
            ec::complete_public(&named.clone().with(CKA_EC_POINT, Value::bytes(key)))?
        }
        // Of the two points with this x, the one with the even y.
        SchemeId::Bip340 => {
            let point = k256::ecdsa::VerifyingKey::from_sec1_bytes(&[&[2], key].concat());
            let point = point.map_err(|_| Error::AttributeValueInvalid(CKA_EC_POINT))?.to_sec1_point(false);
            ec::complete_public(&named.clone().with(CKA_EC_POINT, Value::bytes(point.as_bytes())))?
        }
        SchemeId::Ed25519 => edwards::complete_public(&named.clone().with(CKA_EC_POINT, Value::bytes(key)))?,
    };
    Ok(PairValues { private: with_public_key_info(named, &values), public: values })
}

/// The scheme that can share a private key, and its scalar as the group of that scheme writes it.
///
/// # Errors
/// `KeyTypeInconsistent` or `CurveNotSupported` if there is none; the key has no value here.
pub fn shared_secret(private: &Template) -> Result<(SchemeId, Zeroizing<Vec<u8>>), Error> {
    let mechanism = match private.ulong(CKA_KEY_TYPE) {
        Some(CKK_EC) => Mechanism::EcKeyPairGen,
        Some(CKK_EC_EDWARDS) => Mechanism::EcEdwardsKeyPairGen,
        Some(_) | None => return Err(Error::KeyTypeInconsistent),
    };
    let scheme = scheme_of(mechanism, private, private)?;
    let value = need(private, CKA_VALUE)?;
    let secret = match scheme {
        SchemeId::EcdsaSecp256k1 | SchemeId::EcdsaP256 | SchemeId::Bip340 => {
            let mut scalar = Zeroizing::new(vec![0; SCALAR.saturating_sub(value.len())]);
            scalar.extend_from_slice(value);
            scalar
        }
        SchemeId::Ed25519 => edwards::scalar(value)?,
    };
    Ok((scheme, secret))
}

/// The mechanism by which the shares of a key show that they sign.
pub const fn proving_mechanism(scheme: SchemeId) -> Mechanism {
    match scheme {
        SchemeId::EcdsaSecp256k1 | SchemeId::EcdsaP256 => Mechanism::EcdsaSha256,
        SchemeId::Ed25519 => Mechanism::Eddsa,
        SchemeId::Bip340 => Mechanism::Bip340,
    }
}

/// Whether this is the signature of a message by [`proving_mechanism`], under a public key as its shares give it.
///
/// # Errors
/// It is not, or the key is none of the scheme's.
pub fn verify_shared(scheme: SchemeId, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), Error> {
    let (key_type, curve) = match scheme {
        SchemeId::EcdsaSecp256k1 | SchemeId::Bip340 => (CKK_EC, ec::Curve::Secp256k1.oid()),
        SchemeId::EcdsaP256 => (CKK_EC, ec::Curve::P256.oid()),
        SchemeId::Ed25519 => (CKK_EC_EDWARDS, edwards::OID),
    };
    let named = Template::new().with(CKA_EC_PARAMS, Value::bytes(curve));
    let values = shared_values(scheme, &named, key)?.public;
    let key = Key::parse(&whole(&named, CKO_PUBLIC_KEY, key_type, &values))?;
    let task = Task { mechanism: proving_mechanism(scheme), params: &Params::None, input: message };
    algorithm(&key, &task, CKF_VERIFY)?.verify(&task, signature)
}

/// What the shares of a key sign of a message: its hash value, the caller's own hash value, or the message itself.
///
/// # Errors
/// `MechanismInvalid`: it is not one of the scheme; `DataLengthRange`: there is nothing to be signed.
pub fn shared_input(scheme: SchemeId, mechanism: Mechanism, message: &[u8]) -> Result<Vec<u8>, Error> {
    let by_bip340 = mechanism == Mechanism::Bip340;
    match (scheme, mechanism.row().key) {
        (SchemeId::EcdsaSecp256k1 | SchemeId::EcdsaP256, KeyKind::Ec) if !by_bip340 => match mechanism.hash()
        {
            Some(hash) => Ok(digest::digest(hash::aws_lc(hash), message).as_ref().to_vec()),
            None if message.is_empty() => Err(Error::DataLengthRange),
            None => Ok(message.to_vec()),
        },
        (SchemeId::Bip340, KeyKind::Ec) if by_bip340 => Ok(message.to_vec()),
        (SchemeId::Ed25519, KeyKind::EcEdwards) => Ok(message.to_vec()),
        (
            SchemeId::EcdsaSecp256k1 | SchemeId::EcdsaP256 | SchemeId::Ed25519 | SchemeId::Bip340,
            KeyKind::Rsa | KeyKind::Ec | KeyKind::EcEdwards | KeyKind::Aes | KeyKind::Generic | KeyKind::None,
        ) => Err(Error::MechanismInvalid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ec::Curve;

    fn on(curve: &[u8]) -> Template {
        Template::new().with(CKA_EC_PARAMS, Value::bytes(curve))
    }

    fn allowing(mechanisms: &[u64]) -> Template {
        Template::new().with(CKA_ALLOWED_MECHANISMS, Value::Mechanisms(mechanisms.to_vec()))
    }

    #[test]
    fn a_pair_is_made_by_one_scheme() {
        let (k1, p256) = (on(Curve::Secp256k1.oid()), on(Curve::P256.oid()));
        let edwards = on(&[0x06, 0x03, 0x2b, 0x65, 0x70]);
        let (any, bip340) = (Template::new(), allowing(&[CKM_STRONGROOM_BIP340]));
        let both = allowing(&[CKM_STRONGROOM_BIP340, CKM_ECDSA]);
        let (ec, ed) = (Mechanism::EcKeyPairGen, Mechanism::EcEdwardsKeyPairGen);
        for (mechanism, public, private, scheme) in [
            (ec, &k1, &any, Ok(SchemeId::EcdsaSecp256k1)),
            (ec, &k1, &allowing(&[CKM_ECDSA]), Ok(SchemeId::EcdsaSecp256k1)),
            (ec, &k1, &bip340, Ok(SchemeId::Bip340)),
            (ec, &k1, &both, Err(Error::TemplateInconsistent)),
            (ec, &p256, &any, Ok(SchemeId::EcdsaP256)),
            (ec, &p256, &bip340, Err(Error::TemplateInconsistent)),
            (ec, &on(Curve::P384.oid()), &any, Err(Error::CurveNotSupported)),
            (ec, &any, &any, Err(Error::TemplateIncomplete(CKA_EC_PARAMS))),
            (ed, &edwards, &any, Ok(SchemeId::Ed25519)),
            (ed, &edwards, &bip340, Err(Error::TemplateInconsistent)),
            (ed, &k1, &any, Err(Error::CurveNotSupported)),
            (Mechanism::RsaPkcsKeyPairGen, &k1, &any, Err(Error::MechanismInvalid)),
            (Mechanism::Ecdsa, &k1, &any, Err(Error::MechanismInvalid)),
        ] {
            assert_eq!(scheme_of(mechanism, public, private), scheme, "{public:?} {private:?}");
        }
    }

    #[test]
    fn the_objects_have_the_public_key() {
        let key = k256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap();
        let point = key.verifying_key().to_sec1_point(false);
        let public = on(Curve::Secp256k1.oid());
        let whole = shared_values(SchemeId::EcdsaSecp256k1, &public, point.as_bytes()).unwrap();
        assert_eq!(&whole.public.bytes(CKA_EC_POINT).unwrap()[2..], point.as_bytes());
        assert_eq!(whole.private.value(CKA_EC_PARAMS), public.value(CKA_EC_PARAMS));
        assert_eq!(whole.private.value(CKA_PUBLIC_KEY_INFO), whole.public.value(CKA_PUBLIC_KEY_INFO));
        let by_x = shared_values(SchemeId::Bip340, &public, &point.as_bytes()[1..33]).unwrap();
        assert_eq!(by_x.public.bytes(CKA_EC_POINT).unwrap()[3..35], point.as_bytes()[1..33]);
        for (scheme, wrong) in [
            (SchemeId::EcdsaSecp256k1, &[4; 65][..]),
            (SchemeId::Bip340, &[0xff; 32]),
            (SchemeId::Ed25519, &[0; 32]),
        ] {
            assert!(shared_values(scheme, &public, wrong).is_err(), "{scheme:?}");
        }
    }
}
