//! AES.

use aes_gcm::{
    Aes128Gcm, Aes256Gcm, KeyInit,
    aead::{Aead, Payload},
};

use super::*;

fn gcm(iv: &[u8], aad: &[u8], tag_bits: u32) -> By {
    By(Mechanism::AesGcm, Params::Gcm { iv: iv.to_vec(), aad: aad.to_vec(), tag_bits })
}

fn ctr(bits: u32, block: [u8; 16]) -> By {
    By(Mechanism::AesCtr, Params::Ctr { bits, block })
}

const CBC: By = By(Mechanism::AesCbc, Params::Iv([7; 16]));
const CBC_PAD: By = By(Mechanism::AesCbcPad, Params::Iv([7; 16]));

#[test]
fn another_gcm_agrees() {
    let (short, long) = (secret(CKK_AES, &[1; 16]), secret(CKK_AES, &[2; 32]));
    let iv = [3; 12];
    for (text, aad) in [(&b""[..], &b""[..]), (b"", b"header"), (b"text", b""), (&[9; 1000], &[8; 77])] {
        let payload = Payload { msg: text, aad };
        let theirs = Aes128Gcm::new(&[1; 16].into()).encrypt(&iv.into(), payload).unwrap();
        assert_eq!(gcm(&iv, aad, 128).encrypt(&short, text), Ok(theirs));
        let payload = Payload { msg: text, aad };
        let theirs = Aes256Gcm::new(&[2; 32].into()).encrypt(&iv.into(), payload).unwrap();
        assert_eq!(gcm(&iv, aad, 128).encrypt(&long, text).as_ref(), Ok(&theirs));
        assert_eq!(gcm(&iv, aad, 128).decrypt(&long, &theirs), Ok(text.to_vec()));
    }
}

/// SP 800-38D's test cases 5 and 6: IVs of 8 and of 60 bytes.
#[test]
fn gcm_gives_the_published_answers_for_other_ivs() {
    let key = secret(CKK_AES, &hex("feffe9928665731c6d6a8f9467308308"));
    let text = hex("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72
                    1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39");
    let aad = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
    let long = hex("9313225df88406e555909c5aff5269aa6a7a9538534f7da1e4c303d2a318a728
                    c3c0c95156809539fcf0e2429a6b525416aedbf5a0de6a57a637b39b");
    let short_answer = hex("61353b4c2806934a777ff51fa22a4755699b2a714fcdc6f83766e5f97b6c7423
                            73806900e49f24b22b097544d4896b424989b5e1ebac0f07c23f4598
                            3612d2e79e3b0785561be14aaca2fccb");
    let long_answer = hex("8ce24998625615b603a033aca13fb894be9112a5c3a211a8ba262a3cca7e2ca7
                           01e4a9a4fba43c90ccdcb281d48c7c6fd62875d2aca417034c34aee5
                           619cc5aefffe0bfa462af43c1699d050");
    assert_eq!(gcm(&hex("cafebabefacedbad"), &aad, 128).encrypt(&key, &text), Ok(short_answer));
    assert_eq!(gcm(&long, &aad, 128).encrypt(&key, &text), Ok(long_answer));
}

#[test]
fn gcm_takes_the_lengths_of_the_standard_and_no_other() {
    let key = secret(CKK_AES, &[1; 32]);
    for length in [1, 11, 12, 13, 16, 128, 129, 255, 256] {
        let by = gcm(&vec![4; length], b"header", 128);
        let encrypted = by.encrypt(&key, b"text").unwrap();
        assert_eq!(by.decrypt(&key, &encrypted), Ok(b"text".to_vec()), "an IV of {length}");
        let other = gcm(&vec![5; length], b"header", 128);
        assert_eq!(other.decrypt(&key, &encrypted), Err(Error::EncryptedDataInvalid));
    }
    for length in [0, 257] {
        let refused = gcm(&vec![4; length], b"", 128).encrypt(&key, b"text");
        assert_eq!(refused, Err(Error::MechanismParamInvalid), "an IV of {length}");
    }
    let whole = gcm(&[4; 12], b"", 128).encrypt(&key, b"text").unwrap();
    for bits in 0..=136 {
        let by = gcm(&[4; 12], b"", bits);
        match [32, 64, 96, 104, 112, 120, 128].contains(&bits) {
            true => {
                let encrypted = by.encrypt(&key, b"text").unwrap();
                assert_eq!(encrypted, whole[..4 + bits as usize / 8]);
                assert_eq!(by.decrypt(&key, &encrypted), Ok(b"text".to_vec()));
            }
            false => {
                assert_eq!(by.encrypt(&key, b"text"), Err(Error::MechanismParamInvalid), "{bits}");
                assert_eq!(by.decrypt(&key, &whole), Err(Error::MechanismParamInvalid), "{bits}");
            }
        }
    }
}

#[test]
fn gcm_releases_nothing_that_is_not_genuine() {
    let key = secret(CKK_AES, &[1; 32]);
    for iv in [&[4; 12][..], &[4; 200]] {
        let by = gcm(iv, b"header", 96);
        let encrypted = by.encrypt(&key, b"some text").unwrap();
        for at in 0..encrypted.len() {
            let mut forged = encrypted.clone();
            forged[at] ^= 0x80;
            assert_eq!(by.decrypt(&key, &forged), Err(Error::EncryptedDataInvalid), "byte {at}");
        }
        let other = gcm(iv, b"another", 96).decrypt(&key, &encrypted);
        assert_eq!(other, Err(Error::EncryptedDataInvalid));
        assert_eq!(by.decrypt(&key, &encrypted[1..]), Err(Error::EncryptedDataInvalid));
        assert_eq!(by.decrypt(&key, &encrypted[..11]), Err(Error::EncryptedDataLengthRange));
    }
}

#[test]
fn cbc_takes_whole_blocks() {
    let key = secret(CKK_AES, &[1; 24]);
    for length in [0, 16, 160] {
        let encrypted = CBC.encrypt(&key, &vec![2; length]).unwrap();
        assert_eq!(encrypted.len(), length);
        assert_eq!(CBC.decrypt(&key, &encrypted), Ok(vec![2; length]));
    }
    for length in [1, 15, 17] {
        assert_eq!(CBC.encrypt(&key, &vec![2; length]), Err(Error::DataLengthRange));
        assert_eq!(CBC.decrypt(&key, &vec![2; length]), Err(Error::EncryptedDataLengthRange));
        assert_eq!(CBC_PAD.decrypt(&key, &vec![2; length]), Err(Error::EncryptedDataLengthRange));
    }
    assert_eq!(CBC_PAD.decrypt(&key, &[]), Err(Error::EncryptedDataLengthRange));
}

#[test]
fn cbc_pad_adds_and_checks_its_padding() {
    let key = secret(CKK_AES, &[1; 16]);
    for length in 0..=33 {
        let text = vec![2; length];
        let encrypted = CBC_PAD.encrypt(&key, &text).unwrap();
        assert_eq!(encrypted.len(), (length / 16 + 1) * 16);
        let mut padded = text.clone();
        padded.resize(encrypted.len(), (16 - length % 16) as u8);
        assert_eq!(CBC.encrypt(&key, &padded).unwrap(), encrypted);
        assert_eq!(CBC_PAD.decrypt(&key, &encrypted), Ok(text));
    }
    for last in [0, 2, 15, 17, 255] {
        let mut block = vec![3; 15];
        block.push(last);
        let encrypted = CBC.encrypt(&key, &block).unwrap();
        assert_eq!(CBC_PAD.decrypt(&key, &encrypted), Err(Error::EncryptedDataInvalid), "{last}");
    }
}

#[test]
fn the_counter_may_not_start_over() {
    let key = secret(CKK_AES, &[1; 32]);
    let mut last = [0xab; 16];
    last[15] = 0xff;
    let nearly = {
        let mut block = last;
        block[15] = 0xfe;
        block
    };
    assert_eq!(ctr(8, last).encrypt(&key, &[0; 17]), Err(Error::DataLengthRange));
    assert_eq!(ctr(8, last).decrypt(&key, &[0; 17]), Err(Error::EncryptedDataLengthRange));
    assert_eq!(ctr(8, nearly).encrypt(&key, &[0; 33]), Err(Error::DataLengthRange));
    assert_eq!(ctr(1, nearly).encrypt(&key, &[0; 33]), Err(Error::DataLengthRange));
    let reference = ctr(128, nearly).encrypt(&key, &[0; 32]).unwrap();
    for bits in [1, 8, 9, 32, 127] {
        assert_eq!(ctr(bits, nearly).encrypt(&key, &[0; 32]).as_ref(), Ok(&reference), "{bits}");
    }
    // All 128 bits may wrap, and the block after the last is the first.
    let wrapped = ctr(128, [0xff; 16]).encrypt(&key, &[0; 32]).unwrap();
    assert_eq!(wrapped[16..], ctr(128, [0; 16]).encrypt(&key, &[0; 16]).unwrap());
    for bits in [0, 129, u32::MAX] {
        assert_eq!(ctr(bits, [0; 16]).encrypt(&key, b"x"), Err(Error::MechanismParamInvalid));
    }
    assert_eq!(ctr(128, [0; 16]).encrypt(&key, &[]), Ok(Vec::new()));
}

#[test]
fn an_imported_key_is_measured() {
    let import = |value: &[u8]| complete(&template(CKO_SECRET_KEY, CKK_AES, &[(CKA_VALUE, value)]));
    for length in [0, 8, 15, 17, 31, 33, 64] {
        assert_eq!(import(&vec![1; length]), Err(Error::AttributeValueInvalid(CKA_VALUE)));
    }
    // FIPS 197 with a key and a block of zeros: 66e94b d4…
    let values = import(&[0; 16]).unwrap();
    assert_eq!(values.ulong(CKA_VALUE_LEN), Some(16));
    assert_eq!(values.bytes(CKA_CHECK_VALUE), Some(&[0x66, 0xe9, 0x4b][..]));
}

#[test]
fn a_check_value_is_checked() {
    let zeros = template(CKO_SECRET_KEY, CKK_AES, &[(CKA_VALUE, &[0; 16])]);
    let wrong = complete(&changed(&zeros, CKA_CHECK_VALUE, &[1, 2, 3]));
    assert_eq!(wrong, Err(Error::AttributeValueInvalid(CKA_CHECK_VALUE)));
    assert!(complete(&changed(&zeros, CKA_CHECK_VALUE, &[0x66, 0xe9, 0x4b])).is_ok());
    let none = complete(&changed(&zeros, CKA_CHECK_VALUE, &[])).unwrap();
    assert_eq!(none.value(CKA_CHECK_VALUE), None);
    let length = zeros.with(CKA_VALUE_LEN, Value::Ulong(24));
    assert_eq!(complete(&length), Err(Error::TemplateInconsistent));
}

#[test]
fn a_new_key_has_the_length_asked_for() {
    let random = Repeatable::seeded(3);
    let make = |length| {
        let asked = Template::new().with(CKA_VALUE_LEN, Value::Ulong(length));
        generate(Mechanism::AesKeyGen, &asked, &random)
    };
    for length in [16, 24, 32] {
        let made = make(length).unwrap();
        assert_eq!(made.bytes(CKA_VALUE).unwrap().len() as u64, length);
        assert_eq!(bits(&whole(&Template::new(), CKO_SECRET_KEY, CKK_AES, &made)) as u64, 8 * length);
    }
    for length in [0, 15, 64, u64::MAX] {
        assert_eq!(make(length), Err(Error::AttributeValueInvalid(CKA_VALUE_LEN)));
    }
    let made = generate(Mechanism::AesKeyGen, &Template::new(), &random);
    assert_eq!(made, Err(Error::TemplateIncomplete(CKA_VALUE_LEN)));
}

/// Above 128 bytes the token puts GCM together itself.
#[test]
fn another_gcm_agrees_on_the_longest_ivs() {
    use aes_gcm::{
        AesGcm,
        aead::consts::{U129, U256},
        aes::Aes256,
    };
    let key = secret(CKK_AES, &[2; 32]);
    for (text, aad) in [(&b""[..], &b""[..]), (b"text", b"header"), (&[9; 1000], &[8; 77])] {
        let payload = Payload { msg: text, aad };
        let cipher = AesGcm::<Aes256, U129>::new(&[2; 32].into());
        let theirs = cipher.encrypt(&[3; 129].into(), payload).unwrap();
        assert_eq!(gcm(&[3; 129], aad, 128).encrypt(&key, text), Ok(theirs));
        let payload = Payload { msg: text, aad };
        let cipher = AesGcm::<Aes256, U256>::new(&[2; 32].into());
        let theirs = cipher.encrypt(&[3; 256].into(), payload).unwrap();
        assert_eq!(gcm(&[3; 256], aad, 128).encrypt(&key, text), Ok(theirs));
    }
}
