//! Handles, searches, attributes.

use pkcs11_sys::*;
use strongroom_shared::{
    message::Answer,
    object::{Template, Value},
    wire::CallId,
};

use super::{opened, secret_key};
use crate::{object, random, rv::Error};

#[test]
fn a_search_tells_every_object_once_by_the_handle_that_it_has() {
    let (_vault, module, session) = opened();
    let context = module.session(session).unwrap();
    let mut made: Vec<_> =
        (0..7).map(|_| object::create(&context, secret_key(CKK_AES, &[0; 16])).unwrap()).collect();
    object::create(&context, secret_key(CKK_GENERIC_SECRET, &[0; 16])).unwrap();
    let aes = Template::new().with(CKA_KEY_TYPE, Value::Ulong(CKK_AES));
    object::find_init(&context, aes.clone()).unwrap();
    assert_eq!(object::find_init(&context, aes), Err(Error::OperationActive));
    assert_eq!(object::find(&context, 0).unwrap(), vec![]);
    let mut found = object::find(&context, 3).unwrap();
    assert_eq!(found.len(), 3);
    found.extend(object::find(&context, 100).unwrap());
    assert_eq!(object::find(&context, 100).unwrap(), vec![]);
    found.sort_unstable();
    made.sort_unstable();
    assert_eq!(found, made);
    object::find_final(&context).unwrap();
    assert_eq!(object::find(&context, 1), Err(Error::OperationNotInitialized));
    assert_eq!(object::find_final(&context), Err(Error::OperationNotInitialized));
}

#[test]
fn a_destroyed_handle_is_dead_and_never_used_again() {
    let (vault, module, session) = opened();
    let context = module.session(session).unwrap();
    let key = object::create(&context, secret_key(CKK_AES, &[0; 16])).unwrap();
    object::destroy(&context, key).unwrap();
    vault.forget_calls();
    assert_eq!(object::destroy(&context, key), Err(Error::ObjectHandleInvalid));
    assert_eq!(object::size(&context, key), Err(Error::ObjectHandleInvalid));
    assert_eq!(object::read(&context, key, vec![CKA_CLASS]), Err(Error::ObjectHandleInvalid));
    assert_eq!(vault.calls(), vec![]);
    assert_ne!(object::create(&context, secret_key(CKK_AES, &[0; 16])).unwrap(), key);
}

#[test]
fn attributes_are_answered_one_by_one() {
    let (vault, module, session) = opened();
    let context = module.session(session).unwrap();
    let key = object::create(&context, secret_key(CKK_AES, &[0; 16])).unwrap();
    let answers = object::read(&context, key, vec![CKA_VALUE, CKA_CLASS, CKA_MODULUS]).unwrap();
    assert_eq!(answers, [Answer::Sensitive, Answer::Value(Value::Ulong(CKO_SECRET_KEY)), Answer::Absent]);
    vault.forget_calls();
    object::write(&context, key, Template::new().with(CKA_LABEL, Value::bytes(*b"new"))).unwrap();
    assert_eq!(vault.calls(), vec![CallId::WriteAttributes, CallId::DescribeObject]);
    let answers = object::read(&context, key, vec![CKA_LABEL]).unwrap();
    assert_eq!(answers, [Answer::Value(Value::bytes(*b"new"))]);
}

#[test]
fn random_bytes_come_in_as_many_calls_as_it_takes() {
    let (vault, module, session) = opened();
    let context = module.session(session).unwrap();
    assert_eq!(random::generate(&context, 3 << 20).unwrap().len(), 3 << 20);
    assert_eq!(vault.calls().len(), 4);
    assert_eq!(random::generate(&context, random::MOST + 1), Err(Error::ArgumentsBad));
    assert!(random::generate(&context, 0).unwrap().is_empty());
}
