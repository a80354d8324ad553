//! Signing, verifying and digesting: how many calls each costs, and what ends an operation.

use pkcs11_sys::*;
use strongroom_shared::{
    fault::FaultCode,
    mechanism::{Mechanism, Params},
    object::Value,
    wire::{CallId, DEFAULT_LIMIT},
};

use super::{chosen, opened, secret_key, vault::Event};
use crate::{
    digest,
    ffi::pointers::{Input, Output},
    module::Module,
    object,
    operation::Chosen,
    rv::Error,
    session::Context,
    sign, verify,
};

const KEY: &[u8] = &[7; 32];

fn hmac() -> Option<Chosen> {
    chosen(Mechanism::Sha256Hmac, Params::None)
}

fn with_key(module: &Module, session: CK_SESSION_HANDLE) -> (Context<'_>, CK_OBJECT_HANDLE) {
    let context = module.session(session).unwrap();
    let key = object::create(&context, secret_key(CKK_GENERIC_SECRET, KEY)).unwrap();
    (context, key)
}

fn signature(context: &Context<'_>, message: &[u8]) -> Result<Vec<u8>, Error> {
    let (mut buffer, mut length) = ([0; 100], 0);
    sign::sign(context, &message.into(), &Output::over(&mut buffer, &mut length))?;
    Ok(buffer[..length as usize].to_vec())
}

#[test]
fn init_and_length_query_cost_no_call_and_sign_costs_one() {
    let (vault, module, session) = opened();
    let (context, key) = with_key(&module, session);
    vault.forget_calls();
    sign::init(&context, hmac(), key).unwrap();
    let mut length = 0;
    sign::sign(&context, &b"message"[..].into(), &Output::query(&mut length)).unwrap();
    assert_eq!((length, vault.calls()), (32, vec![]));
    let mut short = [0; 31];
    let result = sign::sign(&context, &b"message"[..].into(), &Output::over(&mut short, &mut length));
    assert_eq!((result, length), (Err(Error::BufferTooSmall), 32));
    assert_eq!(vault.calls(), vec![]);
    let whole = signature(&context, b"message").unwrap();
    assert_eq!((whole.len(), vault.calls()), (32, vec![CallId::Sign]));
    assert_eq!(signature(&context, b"message"), Err(Error::OperationNotInitialized));
}

#[test]
fn a_mechanism_that_the_key_is_not_for_is_refused_at_the_beginning() {
    let (vault, module, session) = opened();
    let context = module.session(session).unwrap();
    let only = Value::Mechanisms(vec![CKM_SHA512_HMAC]);
    let template = secret_key(CKK_GENERIC_SECRET, KEY).with(CKA_ALLOWED_MECHANISMS, only);
    let key = object::create(&context, template).unwrap();
    vault.forget_calls();
    assert_eq!(sign::init(&context, hmac(), key), Err(Error::MechanismInvalid));
    assert_eq!(verify::init(&context, hmac(), key), Err(Error::MechanismInvalid));
    assert_eq!(signature(&context, b"message"), Err(Error::OperationNotInitialized));
    sign::init(&context, chosen(Mechanism::Sha512Hmac, Params::None), key).unwrap();
    assert_eq!(vault.calls(), vec![]);
}

#[test]
fn parts_travel_as_one_message() {
    let (vault, module, session) = opened();
    let (context, key) = with_key(&module, session);
    sign::init(&context, hmac(), key).unwrap();
    let whole = signature(&context, b"one two three").unwrap();
    vault.forget_calls();
    sign::init(&context, hmac(), key).unwrap();
    for part in [&b"one "[..], b"", b"two ", b"three"] {
        sign::update(&context, &part.into()).unwrap();
    }
    let (mut buffer, mut length) = ([0; 32], 0);
    sign::finish(&context, &Output::over(&mut buffer, &mut length)).unwrap();
    assert_eq!((&buffer[..], vault.calls()), (&whole[..], vec![CallId::Sign]));

    verify::init(&context, hmac(), key).unwrap();
    verify::update(&context, &b"one two "[..].into()).unwrap();
    verify::update(&context, &b"three"[..].into()).unwrap();
    verify::finish(&context, &buffer[..].into()).unwrap();
    verify::init(&context, hmac(), key).unwrap();
    let wrong = verify::verify(&context, &b"one two four"[..].into(), &buffer[..].into()).unwrap_err();
    assert_eq!(wrong.rv(), CKR_SIGNATURE_INVALID);
    verify::init(&context, hmac(), key).unwrap();
    let short = verify::verify(&context, &b"one"[..].into(), &buffer[..31].into());
    assert_eq!(short, Err(Error::SignatureLenRange));
}

#[test]
fn a_failure_ends_the_operation_and_one_shot_after_update_too() {
    let (vault, module, session) = opened();
    let (context, key) = with_key(&module, session);
    sign::init(&context, hmac(), key).unwrap();
    sign::update(&context, &b"part"[..].into()).unwrap();
    assert_eq!(signature(&context, b"whole"), Err(Error::OperationActive));
    assert_eq!(signature(&context, b"whole"), Err(Error::OperationNotInitialized));

    sign::init(&context, hmac(), key).unwrap();
    vault.will([Event::Fault(FaultCode::PolicyRefused)]);
    assert_eq!(signature(&context, b"whole").unwrap_err().rv(), CKR_FUNCTION_REJECTED);
    assert_eq!(sign::update(&context, &b""[..].into()), Err(Error::OperationNotInitialized));

    sign::init(&context, hmac(), key).unwrap();
    let huge = vec![0; DEFAULT_LIMIT as usize / 2];
    sign::update(&context, &huge[..].into()).unwrap();
    assert_eq!(sign::update(&context, &huge[..].into()), Err(Error::DataLenRange));
    assert_eq!(sign::update(&context, &b""[..].into()), Err(Error::OperationNotInitialized));
}

#[test]
fn init_checks_key_and_mechanism() {
    let (_vault, module, session) = opened();
    let (context, key) = with_key(&module, session);
    let init = |mechanism, key| sign::init(&context, chosen(mechanism, Params::None), key);
    assert_eq!(init(Mechanism::Sha256Hmac, 999), Err(Error::KeyHandleInvalid));
    assert_eq!(init(Mechanism::AesKeyGen, key), Err(Error::MechanismInvalid));
    assert_eq!(init(Mechanism::EcdsaSha256, key), Err(Error::KeyTypeInconsistent));
    assert_eq!(init(Mechanism::RsaPkcsPss, key), Err(Error::MechanismParamInvalid));
    let short = object::create(&context, secret_key(CKK_GENERIC_SECRET, &[1; 8])).unwrap();
    assert_eq!(init(Mechanism::Sha256Hmac, short), Err(Error::KeySizeRange));
    let data = object::create(&context, strongroom_shared::object::Template::new()).unwrap();
    assert_eq!(init(Mechanism::Sha256Hmac, data), Err(Error::KeyHandleInvalid));
    assert_eq!(sign::init(&context, None, key), Err(Error::ArgumentsBad));
    init(Mechanism::Sha256Hmac, key).unwrap();
    assert_eq!(init(Mechanism::Sha256Hmac, key), Err(Error::OperationActive));
    sign::init(&context, None, key).unwrap();
    assert_eq!(signature(&context, b""), Err(Error::OperationNotInitialized));
}

#[test]
fn usage_is_asked_again_before_a_caller_is_refused() {
    let (vault, module, session) = opened();
    let context = module.session(session).unwrap();
    let mut template = secret_key(CKK_GENERIC_SECRET, KEY);
    template.set(CKA_SIGN, Value::Bool(false));
    let key = object::create(&context, template).unwrap();
    assert_eq!(sign::init(&context, hmac(), key), Err(Error::KeyFunctionNotPermitted));
    vault.change(CKA_SIGN, Value::Bool(true));
    sign::init(&context, hmac(), key).unwrap();
}

#[test]
fn digests_are_local() {
    let (vault, module, session) = opened();
    let context = module.session(session).unwrap();
    let sha256 = || chosen(Mechanism::Sha256, Params::None);
    digest::init(&context, sha256()).unwrap();
    let (mut one, mut length) = ([0; 32], 0);
    let short = digest::digest(&context, &b"abc"[..].into(), &Output::over(&mut one[..31], &mut length));
    assert_eq!((short, length), (Err(Error::BufferTooSmall), 32));
    digest::digest(&context, &b"abc"[..].into(), &Output::over(&mut one, &mut length)).unwrap();
    assert_eq!(one[..4], [0xba, 0x78, 0x16, 0xbf]);
    digest::init(&context, sha256()).unwrap();
    digest::update(&context, &b"a"[..].into()).unwrap();
    digest::update(&context, &b"bc"[..].into()).unwrap();
    let mut parts = [0; 32];
    digest::finish(&context, &Output::over(&mut parts, &mut length)).unwrap();
    assert_eq!(parts, one);
    digest::init(&context, chosen(Mechanism::Sha1, Params::None)).unwrap();
    digest::finish(&context, &Output::query(&mut length)).unwrap();
    assert_eq!(length, 20);
    assert_eq!(digest::key(&context, 1), Err(Error::KeyHandleInvalid));
    assert_eq!(digest::update(&context, &Input::from(&b""[..])), Err(Error::OperationNotInitialized));
    assert_eq!(vault.calls(), vec![]);
}
