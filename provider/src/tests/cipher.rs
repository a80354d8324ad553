//! Encryption and decryption in parts give the same as at once, however the parts fall.

use pkcs11_sys::*;
use strongroom_shared::{
    mechanism::{Mechanism, Params},
    wire::CallId,
};

use super::{chosen, opened, secret_key};
use crate::{decrypt, encrypt, ffi::pointers::Output, object, rv::Error, session::Context};

const IV: Params = Params::Iv([9; 16]);
const MODES: [(Mechanism, Params); 4] = [
    (Mechanism::AesCbc, IV),
    (Mechanism::AesCbcPad, IV),
    (Mechanism::AesCtr, Params::Ctr { bits: 64, block: [1; 16] }),
    (Mechanism::AesGcm, Params::Gcm { iv: Vec::new(), aad: Vec::new(), tag_bits: 128 }),
];

type Part = fn(&Context<'_>, &crate::ffi::pointers::Input<'_>, &Output<'_>) -> Result<(), Error>;
type Last = fn(&Context<'_>, &Output<'_>) -> Result<(), Error>;

/// Runs a multi-part operation, asking for each length first and then giving a buffer of just that length.
fn in_parts(
    context: &Context<'_>,
    part: Part,
    last: Last,
    input: &[u8],
    size: usize,
) -> Result<Vec<u8>, Error> {
    let mut all = Vec::new();
    for piece in input.chunks(size) {
        let mut length = 0;
        part(context, &piece.into(), &Output::query(&mut length))?;
        let mut buffer = vec![0; length as usize];
        part(context, &piece.into(), &Output::over(&mut buffer, &mut length))?;
        all.extend_from_slice(&buffer[..length as usize]);
    }
    let mut length = 0;
    last(context, &Output::query(&mut length))?;
    let mut buffer = vec![0; length as usize];
    last(context, &Output::over(&mut buffer, &mut length))?;
    all.extend_from_slice(&buffer[..length as usize]);
    Ok(all)
}

fn at_once(context: &Context<'_>, whole: Part, input: &[u8]) -> Result<Vec<u8>, Error> {
    let (mut buffer, mut length) = (vec![0; input.len() + 32], 0);
    whole(context, &input.into(), &Output::over(&mut buffer, &mut length))?;
    buffer.truncate(length as usize);
    Ok(buffer)
}

#[test]
fn parts_and_whole_agree_in_every_mode() {
    let (_vault, module, session) = opened();
    let context = module.session(session).unwrap();
    let key = object::create(&context, secret_key(CKK_AES, &[3; 16])).unwrap();
    let text: Vec<u8> = (0..100).collect();
    for (mechanism, params) in MODES {
        let text = if mechanism == Mechanism::AesCbc { &text[..96] } else { &text[..] };
        let mode = || chosen(mechanism, params.clone());
        encrypt::init(&context, mode(), key).unwrap();
        let whole = at_once(&context, encrypt::encrypt, text).unwrap();
        for size in [1, 7, 15, 16, 17, 32, 99, 100] {
            encrypt::init(&context, mode(), key).unwrap();
            let parts = in_parts(&context, encrypt::update, encrypt::finish, text, size).unwrap();
            assert_eq!(parts, whole, "{mechanism:?} in parts of {size}");
            decrypt::init(&context, mode(), key).unwrap();
            let back = in_parts(&context, decrypt::update, decrypt::finish, &whole, size).unwrap();
            assert_eq!(back, text, "{mechanism:?} in parts of {size}");
        }
        decrypt::init(&context, mode(), key).unwrap();
        assert_eq!(at_once(&context, decrypt::decrypt, &whole).unwrap(), text);
    }
}

#[test]
fn gcm_releases_nothing_before_the_tag_was_checked() {
    let (vault, module, session) = opened();
    let context = module.session(session).unwrap();
    let key = object::create(&context, secret_key(CKK_AES, &[3; 16])).unwrap();
    let gcm = || chosen(Mechanism::AesGcm, MODES[3].1.clone());
    vault.forget_calls();
    decrypt::init(&context, gcm(), key).unwrap();
    let mut buffer = [0xee; 64];
    let mut length = 0;
    decrypt::update(&context, &[1; 48][..].into(), &Output::over(&mut buffer, &mut length)).unwrap();
    assert_eq!((length, vault.calls()), (0, vec![]));
    let result = decrypt::finish(&context, &Output::over(&mut buffer, &mut length)).unwrap_err();
    assert_eq!((result.rv(), buffer), (CKR_ENCRYPTED_DATA_INVALID, [0xee; 64]));
}

#[test]
fn a_plaintext_that_does_not_fit_is_decrypted_once() {
    let (vault, module, session) = opened();
    let context = module.session(session).unwrap();
    let key = object::create(&context, secret_key(CKK_AES, &[3; 16])).unwrap();
    let pad = || chosen(Mechanism::AesCbcPad, IV);
    encrypt::init(&context, pad(), key).unwrap();
    let ciphertext = at_once(&context, encrypt::encrypt, b"eleven char").unwrap();
    vault.forget_calls();
    decrypt::init(&context, pad(), key).unwrap();
    let (mut buffer, mut length) = ([0; 11], 0);
    decrypt::decrypt(&context, &ciphertext[..].into(), &Output::query(&mut length)).unwrap();
    assert_eq!((length, vault.calls()), (16, vec![]));
    let result =
        decrypt::decrypt(&context, &ciphertext[..].into(), &Output::over(&mut buffer[..10], &mut length));
    assert_eq!((result, length), (Err(Error::BufferTooSmall), 11));
    decrypt::decrypt(&context, &ciphertext[..].into(), &Output::over(&mut buffer, &mut length)).unwrap();
    assert_eq!((&buffer, vault.calls()), (b"eleven char", vec![CallId::Decrypt]));
}

#[test]
fn incomplete_blocks_and_used_up_counters_are_refused() {
    let (_vault, module, session) = opened();
    let context = module.session(session).unwrap();
    let key = object::create(&context, secret_key(CKK_AES, &[3; 16])).unwrap();
    encrypt::init(&context, chosen(Mechanism::AesCbc, IV), key).unwrap();
    let odd = in_parts(&context, encrypt::update, encrypt::finish, &[0; 17], 17);
    assert_eq!(odd, Err(Error::DataLenRange));
    for mode in [Mechanism::AesCbc, Mechanism::AesCbcPad] {
        decrypt::init(&context, chosen(mode, IV), key).unwrap();
        let odd = in_parts(&context, decrypt::update, decrypt::finish, &[0; 17], 17);
        assert_eq!(odd, Err(Error::EncryptedDataLenRange));
    }
    let last_counter = Params::Ctr { bits: 8, block: [0xff; 16] };
    encrypt::init(&context, chosen(Mechanism::AesCtr, last_counter.clone()), key).unwrap();
    in_parts(&context, encrypt::update, encrypt::finish, &[0; 16], 16).unwrap();
    encrypt::init(&context, chosen(Mechanism::AesCtr, last_counter), key).unwrap();
    let two = in_parts(&context, encrypt::update, encrypt::finish, &[0; 32], 16);
    assert_eq!(two, Err(Error::DataLenRange));
}

#[test]
fn input_and_output_may_be_the_same_memory() {
    let (_vault, module, session) = opened();
    let context = module.session(session).unwrap();
    let key = object::create(&context, secret_key(CKK_AES, &[3; 16])).unwrap();
    encrypt::init(&context, chosen(Mechanism::AesCbc, IV), key).unwrap();
    let whole = at_once(&context, encrypt::encrypt, &[5; 32]).unwrap();
    let mut memory = [5; 32];
    let mut length = 0;
    encrypt::init(&context, chosen(Mechanism::AesCbc, IV), key).unwrap();
    let part = memory;
    encrypt::update(&context, &part[..].into(), &Output::over(&mut memory, &mut length)).unwrap();
    assert_eq!(memory[..], whole);
}

#[test]
fn a_message_larger_than_a_frame_travels_in_a_chain() {
    let (vault, module, session) = opened();
    let context = module.session(session).unwrap();
    let key = object::create(&context, secret_key(CKK_AES, &[3; 16])).unwrap();
    let text: Vec<u8> = (0..(1 << 20) + 5).map(|index| index as u8).collect();
    for (mechanism, params) in &MODES[1..3] {
        let mode = || chosen(*mechanism, params.clone());
        encrypt::init(&context, mode(), key).unwrap();
        vault.forget_calls();
        let whole = at_once(&context, encrypt::encrypt, &text).unwrap();
        assert_eq!(vault.calls(), [CallId::Encrypt; 3], "two pieces of whole blocks, and the end");
        encrypt::init(&context, mode(), key).unwrap();
        let parts = in_parts(&context, encrypt::update, encrypt::finish, &text, 100_000).unwrap();
        assert!(parts == whole, "{mechanism:?}");
        decrypt::init(&context, mode(), key).unwrap();
        assert!(at_once(&context, decrypt::decrypt, &whole).unwrap() == text, "{mechanism:?}");
    }
    let gcm = chosen(Mechanism::AesGcm, MODES[3].1.clone());
    encrypt::init(&context, gcm, key).unwrap();
    assert_eq!(at_once(&context, encrypt::encrypt, &text), Err(Error::DataLenRange));
}
