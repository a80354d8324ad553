//! Sessions, logins, and what a forked child keeps.

use pkcs11_sys::*;
use strongroom_shared::{
    fault::FaultCode,
    mechanism::{Mechanism, Params},
    object::Value,
    wire::CallId,
};

use super::{
    RO, RW, chosen, opened, secret_key,
    vault::{Event, PIN},
};
use crate::{ffi::pointers::Output, hsm::Link, object, random, rv::Error, session, sign, slot};

#[test]
fn only_the_first_session_asks_whether_the_token_is_there() {
    let (vault, module, session) = opened();
    session::open(&module, 0, RO).unwrap();
    assert_eq!(vault.calls(), vec![]);
    assert_eq!(session::open(&module, 1, RO), Err(Error::SlotIdInvalid));
    assert_eq!(session::open(&module, 0, CKF_RW_SESSION), Err(Error::SessionParallelNotSupported));
    session::close_all(&module, 0).unwrap();
    assert_eq!(module.session(session).err(), Some(Error::SessionHandleInvalid));
    vault.will([Event::Lost(Link::TimedOut)]);
    assert_eq!(session::open(&module, 0, RO), Err(Error::TokenNotPresent));
}

#[test]
fn login_states() {
    let (vault, module, session) = opened();
    let context = module.session(session).unwrap();
    let state = || session::info(&context).state;
    assert_eq!(state(), CKS_RW_PUBLIC_SESSION);
    assert_eq!(session::login(&context, 7, PIN), Err(Error::UserTypeInvalid));
    assert_eq!(session::login(&context, CKU_USER, b"wrong").unwrap_err().rv(), CKR_PIN_INCORRECT);
    assert_eq!(session::logout(&context), Err(Error::UserNotLoggedIn));
    session::login(&context, CKU_USER, PIN).unwrap();
    assert_eq!(state(), CKS_RW_USER_FUNCTIONS);
    let read_only = session::open(&module, 0, RO).unwrap();
    let other = module.session(read_only).unwrap();
    assert_eq!(session::info(&other).state, CKS_RO_USER_FUNCTIONS);
    assert_eq!(session::login(&other, CKU_USER, PIN), Err(Error::UserAlreadyLoggedIn));
    assert_eq!(session::login(&other, CKU_SO, PIN), Err(Error::UserAnotherAlreadyLoggedIn));
    session::logout(&other).unwrap();
    assert_eq!(state(), CKS_RW_PUBLIC_SESSION);
    assert_eq!(session::login(&context, CKU_SO, PIN), Err(Error::SessionReadOnlyExists));
    session::close(&other).unwrap();
    session::login(&context, CKU_SO, PIN).unwrap();
    assert_eq!(state(), CKS_RW_SO_FUNCTIONS);
    assert_eq!(session::open(&module, 0, RO), Err(Error::SessionReadWriteSoExists));
    session::init_pin(&context, PIN).unwrap();
    session::set_pin(&context, PIN, b"654321").unwrap();
    assert_eq!(state(), CKS_RW_SO_FUNCTIONS);
    assert_eq!(slot::init_token(&module, 0, PIN, [b' '; 32]), Err(Error::SessionExists));
    vault.forget_calls();
    session::close(&context).unwrap();
    assert_eq!(vault.calls(), vec![CallId::Logout]);
    session::open(&module, 0, RO).unwrap();
}

#[test]
fn read_only_sessions_and_public_users_are_kept_out() {
    let (_vault, module, _session) = opened();
    let read_only = session::open(&module, 0, RO).unwrap();
    let context = module.session(read_only).unwrap();
    assert_eq!(session::init_pin(&context, PIN), Err(Error::SessionReadOnly));
    assert_eq!(session::set_pin(&context, PIN, PIN), Err(Error::SessionReadOnly));
    let token_key = secret_key(CKK_AES, &[0; 16]).with(CKA_TOKEN, Value::Bool(true));
    assert_eq!(object::create(&context, token_key), Err(Error::SessionReadOnly));
    let read_write = session::open(&module, 0, RW).unwrap();
    let context = module.session(read_write).unwrap();
    assert_eq!(session::init_pin(&context, PIN), Err(Error::UserNotLoggedIn));
}

#[test]
fn an_expired_ticket_ends_the_login_and_handles_live_on() {
    let (vault, module, session) = opened();
    let context = module.session(session).unwrap();
    session::login(&context, CKU_USER, PIN).unwrap();
    let private = secret_key(CKK_GENERIC_SECRET, &[1; 32]).with(CKA_PRIVATE, Value::Bool(true));
    let key = object::create(&context, private).unwrap();
    vault.expire_tickets();
    let hmac = || chosen(Mechanism::Sha256Hmac, Params::None);
    sign::init(&context, hmac(), key).unwrap();
    let (mut buffer, mut length) = ([0; 32], 0);
    let result = sign::sign(&context, &b"x"[..].into(), &Output::over(&mut buffer, &mut length));
    assert_eq!(result.unwrap_err().rv(), CKR_USER_NOT_LOGGED_IN);
    assert_eq!(session::info(&context).state, CKS_RW_PUBLIC_SESSION);
    assert_eq!(sign::init(&context, hmac(), key), Err(Error::UserNotLoggedIn));
    session::login(&context, CKU_USER, PIN).unwrap();
    sign::init(&context, hmac(), key).unwrap();
    sign::sign(&context, &b"x"[..].into(), &Output::over(&mut buffer, &mut length)).unwrap();
    // A logout, though, is the end of private handles.
    session::logout(&context).unwrap();
    session::login(&context, CKU_USER, PIN).unwrap();
    assert_eq!(sign::init(&context, hmac(), key), Err(Error::KeyHandleInvalid));
}

#[test]
fn an_old_ticket_is_renewed_and_the_call_is_made_as_if_nothing_had_been() {
    let (vault, module, session) = opened();
    let context = module.session(session).unwrap();
    session::login(&context, CKU_USER, PIN).unwrap();
    let key = object::create(&context, secret_key(CKK_GENERIC_SECRET, &[1; 32])).unwrap();
    let sign = || {
        sign::init(&context, chosen(Mechanism::Sha256Hmac, Params::None), key).unwrap();
        let (mut buffer, mut length) = ([0; 32], 0);
        sign::sign(&context, &b"x"[..].into(), &Output::over(&mut buffer, &mut length))
    };
    sign().unwrap();
    vault.age_tickets();
    vault.forget_calls();
    sign().unwrap();
    assert_eq!(vault.calls(), [CallId::Sign, CallId::RenewTicket, CallId::Sign]);
    vault.forget_calls();
    sign().unwrap();
    assert_eq!(vault.calls(), [CallId::Sign]);
    // A server that does not answer just then has not ended the login.
    vault.age_tickets();
    vault.will([Event::Fault(FaultCode::TicketExpired), Event::Lost(Link::TimedOut)]);
    assert_eq!(sign().unwrap_err().rv(), CKR_DEVICE_ERROR);
    sign().unwrap();
}

#[test]
fn a_ticket_in_use_is_renewed_before_it_expires() {
    let (vault, module, session) = opened();
    let context = module.session(session).unwrap();
    vault.tickets_live(3600);
    session::login(&context, CKU_USER, PIN).unwrap();
    let random = || drop(random::generate(&context, 4).unwrap());
    vault.forget_calls();
    random();
    assert_eq!(vault.calls(), [CallId::GenerateRandom]);
    vault.tickets_live(0);
    session::logout(&context).unwrap();
    session::login(&context, CKU_USER, PIN).unwrap();
    vault.forget_calls();
    vault.will([Event::Fault(FaultCode::Internal)]);
    // What fails now is tried again later, and meanwhile the ticket that there is serves.
    random();
    random();
    assert_eq!(vault.calls(), [CallId::GenerateRandom, CallId::GenerateRandom]);
    vault.tickets_live(3600);
    session::logout(&context).unwrap();
    vault.tickets_live(0);
    session::login(&context, CKU_USER, PIN).unwrap();
    vault.tickets_live(3600);
    vault.forget_calls();
    random();
    random();
    assert_eq!(vault.calls(), [CallId::RenewTicket, CallId::GenerateRandom, CallId::GenerateRandom]);
}

#[test]
fn context_specific_login_needs_an_operation() {
    let (vault, module, session) = opened();
    let context = module.session(session).unwrap();
    session::login(&context, CKU_USER, PIN).unwrap();
    let again = |pin| session::login(&context, CKU_CONTEXT_SPECIFIC, pin);
    assert_eq!(again(PIN), Err(Error::OperationNotInitialized));
    let key = object::create(&context, secret_key(CKK_GENERIC_SECRET, &[1; 32])).unwrap();
    sign::init(&context, chosen(Mechanism::Sha256Hmac, Params::None), key).unwrap();
    vault.forget_calls();
    assert_eq!(again(b"wrong").unwrap_err().rv(), CKR_PIN_INCORRECT);
    again(PIN).unwrap();
    assert_eq!(vault.calls(), vec![CallId::Login, CallId::Login]);
}

#[test]
fn closing_a_session_destroys_its_objects_and_tells_the_server_only_then() {
    let (vault, module, session) = opened();
    let second = session::open(&module, 0, RW).unwrap();
    let (first, other) = (module.session(session).unwrap(), module.session(second).unwrap());
    let key = object::create(&first, secret_key(CKK_AES, &[0; 16])).unwrap();
    assert_eq!(object::size(&other, key).unwrap(), 100);
    vault.forget_calls();
    session::close(&first).unwrap();
    assert_eq!((vault.calls(), vault.objects()), (vec![CallId::CloseSession], 0));
    assert_eq!(object::size(&other, key), Err(Error::ObjectHandleInvalid));
    vault.forget_calls();
    session::close(&other).unwrap();
    assert_eq!(vault.calls(), vec![]);
}

#[test]
fn cancel_ends_what_its_flags_name() {
    let (_vault, module, session) = opened();
    let context = module.session(session).unwrap();
    let key = object::create(&context, secret_key(CKK_GENERIC_SECRET, &[1; 32])).unwrap();
    sign::init(&context, chosen(Mechanism::Sha256Hmac, Params::None), key).unwrap();
    object::find_init(&context, Default::default()).unwrap();
    session::cancel(&context, CKF_SIGN | CKF_MESSAGE_SIGN);
    assert_eq!(sign::update(&context, &b""[..].into()), Err(Error::OperationNotInitialized));
    object::find_final(&context).unwrap();
}

#[test]
fn a_forked_child_goes_on_and_leaves_the_parent_alone() {
    let (vault, module, session) = opened();
    let context = module.session(session).unwrap();
    session::login(&context, CKU_USER, PIN).unwrap();
    let key = object::create(&context, secret_key(CKK_GENERIC_SECRET, &[1; 32])).unwrap();
    sign::init(&context, chosen(Mechanism::Sha256Hmac, Params::None), key).unwrap();
    let parents = vault.last_caller();
    // Another thread of the parent is in the midst of something in a second session.
    let busy = session::open(&module, 0, RW).unwrap();
    let busy_context = module.session(busy).unwrap();
    let held = busy_context.session.operations();

    let child = module.forked().unwrap();
    let context = child.session(session).unwrap();
    let (mut buffer, mut length) = ([0; 32], 0);
    sign::sign(&context, &b"x"[..].into(), &Output::over(&mut buffer, &mut length)).unwrap();
    assert_eq!(vault.last_caller().instance, parents.instance);
    assert!(vault.last_caller().ticket.is_some());
    let context = child.session(busy).unwrap();
    assert_eq!(sign::update(&context, &b""[..].into()), Err(Error::OperationNotInitialized));
    let new = session::open(&child, 0, RW).unwrap();
    assert!(new > busy + 1, "a child's new sessions have other numbers than the parent's");
    vault.forget_calls();
    session::close(&child.session(session).unwrap()).unwrap();
    assert_eq!((vault.calls(), vault.objects()), (vec![], 1));
    drop(held);
    assert_eq!(object::size(&module.session(session).unwrap(), key).unwrap(), 100);
}

#[test]
fn token_info_tells_the_state_of_the_pins() {
    let (vault, module, _session) = opened();
    let info = slot::token_info(&module, 0).unwrap();
    assert_eq!(&info.label[..12], b"scripted    ");
    let wanted = CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY | CKF_TOKEN_INITIALIZED | CKF_LOGIN_REQUIRED;
    assert_eq!(info.flags & wanted, wanted);
    assert_eq!(info.flags & (CKF_SO_PIN_COUNT_LOW | CKF_USER_PIN_LOCKED), 0);
    assert_eq!(slot::with_token(&module), vec![0]);
    vault.will([Event::Lost(Link::Unreachable(String::new()))]);
    assert_eq!(slot::with_token(&module), vec![]);
    vault.will([Event::Lost(Link::Unreachable(String::new()))]);
    assert_eq!(slot::info(&module, 0).unwrap().flags & CKF_TOKEN_PRESENT, 0);
    vault.will([Event::Fault(FaultCode::Internal)]);
    assert_eq!(slot::token_info(&module, 0).unwrap_err().rv(), CKR_DEVICE_ERROR);
}
