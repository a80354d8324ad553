//! Generic secrets and HMAC.

use super::*;

#[test]
fn hmac_gives_the_answers_of_rfc_4231() {
    // Test cases 1, 3 and 6: a short key, a text of more than a block, a key of more than a block.
    let cases = [
        (
            vec![0x0b; 20],
            b"Hi There".to_vec(),
            [
                "896fb1128abbdf196832107cd49df33f47b4b1169912ba4f53684b22",
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
                "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59cfaea9ea9076ede7f4af152e8b2fa9cb6",
                "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cdedaa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854",
            ],
        ),
        (
            vec![0xaa; 20],
            vec![0xdd; 50],
            [
                "7fb3cb3588c6c1f6ffa9694d7d6ad2649365b0c1f65d69d1ec8333ea",
                "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
                "88062608d3e6ad8a0aa2ace014c8a86f0aa635d947ac9febe83ef4e55966144b2a5ab39dc13814b94e3ab6e101a34f27",
                "fa73b0089d56a284efb0f0756c890be9b1b5dbdd8ee81a3655f83e33b2279d39bf3e848279a722c806b485a47e67c807b946a337bee8942674278859e13292fb",
            ],
        ),
        (
            vec![0xaa; 131],
            b"Test Using Larger Than Block-Size Key - Hash Key First".to_vec(),
            [
                "95e9a0db962095adaebe9b2d6f0dbce2d499f112f2d2b7273fa6870e",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
                "4ece084485813e9088d2c63a041bc5b44f9ef1012a2b588f3cd11f05033ac4c60c2ef6ab4030fe8296248df163f44952",
                "80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f3526b56d037e05f2598bd0fd2215d6a1e5295e64f73f63f0aec8b915a985d786598",
            ],
        ),
    ];
    let mechanisms =
        [Mechanism::Sha224Hmac, Mechanism::Sha256Hmac, Mechanism::Sha384Hmac, Mechanism::Sha512Hmac];
    for (value, text, answers) in cases {
        let key = secret(CKK_GENERIC_SECRET, &value);
        for (mechanism, answer) in mechanisms.into_iter().zip(answers) {
            assert_eq!(By::plain(mechanism).sign(&key, &text), Ok(hex(answer)), "{mechanism:?}");
        }
    }
}

#[test]
fn a_key_too_short_for_the_mechanism_is_kept_but_not_used() {
    let by = By::plain(Mechanism::Sha256Hmac);
    let short = secret(CKK_GENERIC_SECRET, &[1; 13]);
    assert_eq!(by.sign(&short, b"text"), Err(Error::KeySizeRange));
    assert_eq!(by.verify(&short, b"text", &[0; 32]), Err(Error::KeySizeRange));
    assert!(by.sign(&secret(CKK_GENERIC_SECRET, &[1; 14]), b"text").is_ok());
}

#[test]
fn a_key_of_one_hash_function_works_with_that_one_only() {
    let key = secret(CKK_SHA384_HMAC, &[1; 32]);
    assert!(By::plain(Mechanism::Sha384Hmac).sign(&key, b"text").is_ok());
    assert_eq!(By::plain(Mechanism::Sha256Hmac).sign(&key, b"text"), Err(Error::KeyTypeInconsistent));
}

#[test]
fn an_imported_secret_is_measured() {
    let import =
        |value: &[u8]| complete(&template(CKO_SECRET_KEY, CKK_GENERIC_SECRET, &[(CKA_VALUE, value)]));
    assert_eq!(import(&[]), Err(Error::AttributeValueInvalid(CKA_VALUE)));
    assert_eq!(import(&[0; 513]), Err(Error::AttributeValueInvalid(CKA_VALUE)));
    let values = import(b"abc").unwrap();
    assert_eq!(values.ulong(CKA_VALUE_LEN), Some(3));
    // SHA-1 of "abc" begins with a9 99 3e (FIPS 180-4).
    assert_eq!(values.bytes(CKA_CHECK_VALUE), Some(&[0xa9, 0x99, 0x3e][..]));
}

#[test]
fn a_new_secret_has_the_length_asked_for() {
    let random = Repeatable::seeded(3);
    let make = |length| {
        let asked = Template::new().with(CKA_VALUE_LEN, Value::Ulong(length));
        generate(Mechanism::GenericSecretKeyGen, &asked, &random)
    };
    for length in [14, 32, 512] {
        assert_eq!(make(length).unwrap().bytes(CKA_VALUE).unwrap().len() as u64, length);
    }
    for length in [0, 13, 513, u64::MAX] {
        assert_eq!(make(length), Err(Error::AttributeValueInvalid(CKA_VALUE_LEN)));
    }
    assert_ne!(make(32).unwrap().bytes(CKA_VALUE), make(32).unwrap().bytes(CKA_VALUE));
    let made = generate(Mechanism::GenericSecretKeyGen, &Template::new(), &random);
    assert_eq!(made, Err(Error::TemplateIncomplete(CKA_VALUE_LEN)));
}
