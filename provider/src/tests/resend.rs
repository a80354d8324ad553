//! The resend rule: whatever the link does, nothing is done twice and nothing is lost that need not be.

use std::time::{Duration, Instant};

use pkcs11_sys::*;
use strongroom_shared::{
    fault::FaultCode,
    message::{Caller, GenerateRandom, InitPin, Pin, ReadToken},
    wire::CallId,
};

use super::{
    opened, secret_key,
    vault::{Event, InProcess, PIN, ScriptedVault},
};
use crate::{
    config::Deadlines,
    hsm::{Link, Patience},
    module::{Module, Way},
    object,
    rv::Error,
};

fn broken() -> Link {
    Link::Broken("test".into())
}

#[test]
fn a_lost_answer_is_fetched_and_the_act_not_repeated() {
    let (vault, module, session) = opened();
    let context = module.session(session).unwrap();
    vault.will([
        Event::AnswerLost(Link::Stale("test".into())),
        Event::AnswerLost(broken()),
        Event::Lost(Link::Unreachable("test".into())),
        Event::Fault(FaultCode::Unavailable),
    ]);
    object::create(&context, secret_key(CKK_AES, &[0; 16])).unwrap();
    assert_eq!((vault.acts(), vault.objects()), (1, 1));
    assert_eq!(vault.calls(), vec![CallId::CreateObject; 3]);
}

/// A call that may take a minute, over connections that die without a word.
#[test]
fn a_patient_call_asks_again_after_a_silence_and_a_server_that_is_gone_is_found_out() {
    let vault = std::sync::Arc::new(ScriptedVault::default());
    let deadlines = Deadlines { call: Duration::from_millis(100), generation: Duration::from_secs(60) };
    let transport = Box::new(InProcess(vault.clone())) as _;
    let module = Module::over([Way::new("in process", transport)], deadlines).unwrap();
    let hsm = &module.slot(0).unwrap().hsm;
    let set_pin = || InitPin { pin: Pin::new(PIN) };
    let start = Instant::now();
    // At work on the first copy, for longer than a link may be down.
    let busy = (0..20).map(|_| Event::Fault(FaultCode::Unavailable));
    vault.will([Event::Silence, Event::Silence].into_iter().chain(busy));
    hsm.call(&Caller::default(), &set_pin()).unwrap();
    assert_eq!((vault.acts(), vault.calls()), (1, vec![CallId::InitPin; 3]));
    // Nobody there: the next connection does not come about.
    vault.will([Event::Silence, Event::Lost(Link::TimedOut)]);
    let result = hsm.call(&Caller::default(), &set_pin());
    assert_eq!(result.unwrap_err(), Error::Link(Link::TimedOut));
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    // Other calls are not sent again, whose deadline has passed.
    vault.will([Event::Silence]);
    let result = hsm.call(&Caller::default(), &ReadToken {});
    assert_eq!(result.unwrap_err(), Error::Link(Link::TimedOut));
}

#[test]
fn what_sending_again_cannot_cure_is_not_sent_again() {
    for link in [
        Link::TimedOut,
        Link::Refused("test".into()),
        Link::Unusable("test".into()),
        Link::Malformed("test".into()),
    ] {
        let (vault, module, session) = opened();
        let context = module.session(session).unwrap();
        vault.will([Event::Lost(link.clone())]);
        let result = object::create(&context, secret_key(CKK_AES, &[0; 16]));
        assert_eq!(result, Err(Error::Link(link)));
        assert_eq!(Error::Link(Link::TimedOut).rv(), CKR_DEVICE_ERROR);
        assert_eq!(vault.acts(), 0);
    }
}

#[test]
fn patience_ends_with_the_deadline_and_the_impatient_do_not_wait() {
    let (vault, module, _session) = opened();
    let refused = || Event::Lost(Link::Unreachable("test".into()));
    vault.will((0..10_000).map(|_| refused()));
    let hsm = &module.slot(0).unwrap().hsm;
    let start = Instant::now();
    let result = hsm.call_with(&Caller::default(), &ReadToken {}, Patience::None);
    assert_eq!(result.unwrap_err(), Error::Link(Link::Unreachable("test".into())));
    assert!(start.elapsed() < Duration::from_secs(1));
    let result = hsm.call(&Caller::default(), &ReadToken {});
    assert_eq!(result.unwrap_err(), Error::Link(Link::Unreachable("test".into())));
    let waited = start.elapsed();
    assert!(waited > Duration::from_millis(1500) && waited < Duration::from_secs(4), "{waited:?}");
}

#[test]
fn an_answer_that_is_none_is_a_device_error() {
    let mut another = Vec::new();
    strongroom_shared::wire::encode_reply::<ReadToken>(
        &mut another,
        1,
        &strongroom_shared::message::Token {
            label: String::new(),
            serial: String::new(),
            initialized: true,
            user_pin_set: true,
            user: Default::default(),
            security_officer: Default::default(),
            min_pin: 0,
            max_pin: 0,
        },
    );
    for garbage in [vec![], vec![0; 15], vec![0xff; 40], another] {
        let (vault, module, _session) = opened();
        vault.will([Event::Garbage(garbage)]);
        let hsm = &module.slot(0).unwrap().hsm;
        let result = hsm.call(&Caller::default(), &GenerateRandom { length: 8 });
        assert!(matches!(result, Err(Error::Link(Link::Malformed(_)))), "{result:?}");
    }
}

#[test]
fn a_request_that_fits_no_frame_is_not_sent() {
    let vault = std::sync::Arc::new(ScriptedVault::default());
    let module = super::module(&vault);
    let hsm = &module.slot(0).unwrap().hsm;
    let seed = strongroom_shared::message::SeedRandom { seed: vec![0; 1 << 20] };
    assert_eq!(hsm.call(&Caller::default(), &seed).unwrap_err(), Error::DataLenRange);
    assert_eq!(vault.calls(), vec![]);
}
