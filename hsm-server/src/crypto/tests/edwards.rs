//! Ed25519.

use openssl::{
    pkey::{Id, PKey},
    sign::{Signer, Verifier},
};

use super::*;

const SEED: &str = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
const POINT: &str = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
const NAME: &[u8] = b"\x13\x0cedwards25519";
const GNU: &[u8] = &[0x06, 0x09, 0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01];

fn private(params: &[u8], seed: &[u8]) -> Template {
    template(CKO_PRIVATE_KEY, CKK_EC_EDWARDS, &[(CKA_EC_PARAMS, params), (CKA_VALUE, seed)])
}

fn public(params: &[u8], point: &[u8]) -> Template {
    template(CKO_PUBLIC_KEY, CKK_EC_EDWARDS, &[(CKA_EC_PARAMS, params), (CKA_EC_POINT, point)])
}

/// RFC 8032, 7.1, test 2.
#[test]
fn the_answer_of_rfc_8032_under_every_name_of_the_curve() {
    let answer = hex("92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da
                      085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00");
    let by = By::plain(Mechanism::Eddsa);
    for params in [ED25519, NAME, GNU] {
        let key = Key::parse(&private(params, &hex(SEED))).unwrap();
        assert_eq!(by.sign(&key, &[0x72]).unwrap(), answer);
        let wrapped = [&[0x04, 0x20][..], &hex(POINT)].concat();
        for point in [hex(POINT), wrapped] {
            let stored = completed(&public(params, &point)).unwrap();
            assert_eq!(stored.bytes(CKA_EC_POINT).unwrap()[..2], [0x04, 0x20]);
            by.verify(&Key::parse(&stored).unwrap(), &[0x72], &answer).unwrap();
        }
    }
}

#[test]
fn openssl_agrees() {
    let by = By::plain(Mechanism::Eddsa);
    let asked = Template::new().with(CKA_EC_PARAMS, Value::bytes(NAME));
    let (pair, stored) = new_pair(Mechanism::EcEdwardsKeyPairGen, CKK_EC_EDWARDS, &asked).unwrap();
    assert_eq!(stored.private.bytes(CKA_EC_PARAMS), Some(NAME));
    let theirs =
        PKey::private_key_from_raw_bytes(stored.private.bytes(CKA_VALUE).unwrap(), Id::ED25519).unwrap();
    for half in [&stored.public, &stored.private] {
        let info = PKey::public_key_from_der(half.bytes(CKA_PUBLIC_KEY_INFO).unwrap()).unwrap();
        assert!(info.public_eq(&theirs));
    }
    for text in [&b""[..], b"text", &[0; 300]] {
        let ours = by.sign(&pair.private, text).unwrap();
        assert!(Verifier::new_without_digest(&theirs).unwrap().verify_oneshot(&ours, text).unwrap());
        let signature = Signer::new_without_digest(&theirs).unwrap().sign_oneshot_to_vec(text).unwrap();
        by.verify(&pair.public, text, &signature).unwrap();
    }
}

#[test]
fn a_pair_is_what_the_random_bytes_make_it() {
    let asked = Template::new().with(CKA_EC_PARAMS, Value::bytes(ED25519));
    let make = |seed| {
        let random = Repeatable::seeded(seed);
        generate_pair(Mechanism::EcEdwardsKeyPairGen, &asked, &Template::new(), &random).unwrap().private
    };
    assert_eq!(make(1), make(1));
    assert_ne!(make(1), make(2));
}

#[test]
fn a_wrong_private_key_is_refused() {
    let seed = hex(SEED);
    for (template, error) in [
        (private(ED25519, &seed[1..]), Error::AttributeValueInvalid(CKA_VALUE)),
        (private(ED25519, &[&seed[..], &[0]].concat()), Error::AttributeValueInvalid(CKA_VALUE)),
        (private(&[0x06, 0x03, 0x2b, 0x65, 0x71], &seed), Error::CurveNotSupported),
        (private(crate::crypto::ec::Curve::P256.oid(), &seed), Error::CurveNotSupported),
        (private(b"junk", &seed), Error::CurveNotSupported),
        (changed(&private(ED25519, &seed), CKA_EC_POINT, &[9; 32]), Error::TemplateInconsistent),
        (lacking(&private(ED25519, &seed), CKA_VALUE), Error::TemplateIncomplete(CKA_VALUE)),
        (lacking(&private(ED25519, &seed), CKA_EC_PARAMS), Error::TemplateIncomplete(CKA_EC_PARAMS)),
    ] {
        assert_eq!(complete(&template).map(drop), Err(error));
    }
    assert!(complete(&changed(&private(ED25519, &seed), CKA_EC_POINT, &hex(POINT))).is_ok());
}

#[test]
fn a_wrong_public_key_is_refused() {
    let refused = Error::AttributeValueInvalid(CKA_EC_POINT);
    let mut identity = [0; 32];
    identity[0] = 1;
    // y = 2 belongs to no point; y = p + 1 is another way to write 1.
    let mut nowhere = [0; 32];
    nowhere[0] = 2;
    let mut second = [0xff; 32];
    second[0] = 0xee;
    second[31] = 0x7f;
    for point in [&identity[..], &nowhere, &second, &hex(POINT)[1..], &[0x04, 0x21, 0x00], &[]] {
        assert_eq!(complete(&public(ED25519, point)).map(drop), Err(refused), "{point:x?}");
    }
    assert_eq!(complete(&public(b"", &hex(POINT))).map(drop), Err(Error::CurveNotSupported));
}

/// RFC 8032, 5.1.3: y is below 2^255 - 19, or some keys would have two forms.
#[test]
fn another_form_of_a_point_is_refused() {
    let mut points = 0;
    for y in 2..19 {
        let mut point = [0; 32];
        point[0] = y;
        if complete(&public(ED25519, &point)).is_ok() {
            points += 1;
            let mut again = [0xff; 32];
            again[0] = 0xed + y;
            again[31] = 0x7f;
            let refused = complete(&public(ED25519, &again)).map(drop);
            assert_eq!(refused, Err(Error::AttributeValueInvalid(CKA_EC_POINT)), "{y}");
        }
    }
    assert!(points > 0);
}

/// RFC 8032, 5.1.7: S is below the order of the group, or one signature would have many forms.
#[test]
fn another_form_of_a_signature_is_refused() {
    let by = By::plain(Mechanism::Eddsa);
    let pair = edwards_pair();
    let mut signature = by.sign(&pair.private, b"text").unwrap();
    by.verify(&pair.public, b"text", &signature).unwrap();
    let order = hex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
    let mut carry = 0;
    for (byte, addend) in signature[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(addend) + carry;
        *byte = sum as u8;
        carry = sum >> 8;
    }
    assert_eq!(by.verify(&pair.public, b"text", &signature), Err(Error::SignatureInvalid));
}
