//! The real transport against a real server: reuse, restart, deadlines, certificates, threads.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use pkcs11_sys::*;
use strongroom_shared::{
    mechanism::{Mechanism, Params},
    wire::CallId,
};

use super::{
    RW, chosen, secret_key,
    server::{Pki, TestServer},
    vault::ScriptedVault,
};
use crate::{
    config::{Deadlines, Token},
    ffi::pointers::Output,
    hsm::Link,
    module::{Module, Way},
    object,
    rv::Error,
    session, sign, slot,
    tls::Tls,
};

const DEADLINES: Deadlines =
    Deadlines { call: Duration::from_millis(1500), generation: Duration::from_secs(5) };

pub(super) fn module(token: Token) -> Module {
    let transport = Box::new(Tls::new(token.into(), Arc::default())) as _;
    Module::over([Way::new("test", transport)], DEADLINES).unwrap()
}

pub(super) fn sign_once(
    module: &Module,
    session: CK_SESSION_HANDLE,
    key: CK_OBJECT_HANDLE,
) -> Result<[u8; 32], Error> {
    let context = module.session(session)?;
    sign::init(&context, chosen(Mechanism::Sha256Hmac, Params::None), key)?;
    let (mut buffer, mut length) = ([0; 32], 0);
    sign::sign(&context, &b"message"[..].into(), &Output::over(&mut buffer, &mut length))?;
    Ok(buffer)
}

pub(super) fn with_key(module: &Module) -> (CK_SESSION_HANDLE, CK_OBJECT_HANDLE) {
    let session = session::open(module, 0, RW).unwrap();
    let context = module.session(session).unwrap();
    (session, object::create(&context, secret_key(CKK_GENERIC_SECRET, &[7; 32])).unwrap())
}

#[test]
fn a_connection_is_reused_and_a_restart_is_invisible() {
    let (pki, vault) = (Pki::new(), Arc::new(ScriptedVault::default()));
    let server = TestServer::start(&pki, &vault);
    let address = server.address;
    let module = module(pki.token(address));
    let (session, key) = with_key(&module);
    let before = sign_once(&module, session, key).unwrap();
    for _ in 0..50 {
        sign_once(&module, session, key).unwrap();
    }
    assert_eq!(server.accepted(), 1);
    drop(server);
    let server = TestServer::start_at(&pki, &vault, address);
    assert_eq!(sign_once(&module, session, key).unwrap(), before);
    assert_eq!(server.accepted(), 1);
    drop(server);
    // Down for a moment: the call waits for it.
    let restarting = thread::spawn(move || {
        thread::sleep(Duration::from_millis(300));
        TestServer::start_at(&pki, &vault, address)
    });
    assert_eq!(sign_once(&module, session, key).unwrap(), before);
    drop(restarting.join().unwrap());
    // Down for good: an error within the deadline.
    let start = Instant::now();
    assert_eq!(sign_once(&module, session, key).unwrap_err().rv(), CKR_DEVICE_ERROR);
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert!(slot::with_token(&module).is_empty());
}

#[test]
fn a_silent_server_costs_one_deadline() {
    let pki = Pki::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let module = module(pki.token(listener.local_addr().unwrap()));
    let start = Instant::now();
    assert_eq!(session::open(&module, 0, RW), Err(Error::TokenNotPresent));
    let waited = start.elapsed();
    assert!(waited > Duration::from_millis(1300) && waited < Duration::from_secs(4), "{waited:?}");
}

fn refusal(token: Token) -> Error {
    let module = module(token);
    let slot = module.slot(0).unwrap();
    slot.hsm.call(&Default::default(), &strongroom_shared::message::ReadToken {}).unwrap_err()
}

#[test]
fn the_wrong_certificate_on_either_side_is_refused_at_once() {
    let (pki, other, vault) = (Pki::new(), Pki::new(), Arc::new(ScriptedVault::default()));
    let server = TestServer::start(&pki, &vault);
    let start = Instant::now();
    let token = pki.token(server.address);
    let stranger = other.token(server.address);
    let wrong_name = Token { server_name: "elsewhere".into(), ..token.clone() };
    let wrong_authority = Token { ca: stranger.ca.clone(), ..token.clone() };
    let wrong_client = Token { certificate: stranger.certificate, key: stranger.key, ..token.clone() };
    for token in [wrong_name, wrong_authority, wrong_client] {
        let error = refusal(token.clone());
        assert!(matches!(error, Error::Link(Link::Refused(_))), "{token:?}: {error}");
        let (text, file) = (error.to_string(), token.certificate.display().to_string());
        assert!(text.contains(&token.server) && text.contains(&file) && text.contains("revoked"), "{text}");
    }
    let missing = Token { key: "/nowhere/client.key".into(), ..token };
    assert!(matches!(refusal(missing), Error::Link(Link::Unusable(_))));
    assert!(start.elapsed() < Duration::from_secs(3));
    assert_eq!(vault.calls(), vec![]);
}

#[test]
fn an_administrator_has_no_token() {
    let (pki, vault) = (Pki::new(), Arc::new(ScriptedVault::for_administrators()));
    let server = TestServer::start(&pki, &vault);
    let module = module(pki.token(server.address));
    assert_eq!(slot::with_token(&module), Vec::<CK_SLOT_ID>::new());
    assert_eq!(session::open(&module, 0, RW).unwrap_err(), Error::TokenNotPresent);
    assert_eq!(vault.calls().iter().filter(|call| **call != CallId::Hello).count(), 0);
}

#[test]
fn new_certificate_files_are_used_by_the_next_connection() {
    let (pki, vault) = (Pki::new(), Arc::new(ScriptedVault::default()));
    let server = TestServer::start(&pki, &vault);
    let address = server.address;
    let module = module(pki.token(address));
    let (session, key) = with_key(&module);
    pki.issue_client();
    sign_once(&module, session, key).unwrap();
    let first = server.certificates();
    assert_eq!(first.len(), 1);
    drop(server);
    let server = TestServer::start_at(&pki, &vault, address);
    sign_once(&module, session, key).unwrap();
    let second = server.certificates();
    assert_ne!(first, second);
    drop(server);
    // A file that is half written does not take the module down.
    fs::write(pki.folder.path().join("client.pem"), "-----BEGIN CERT").unwrap();
    let server = TestServer::start_at(&pki, &vault, address);
    sign_once(&module, session, key).unwrap();
    assert_eq!(server.certificates(), second);
}

/// How many descriptors of this process are connected to a server.
fn connections_to(address: SocketAddr) -> usize {
    let port = format!(":{:04X} ", address.port());
    let table = fs::read_to_string("/proc/self/net/tcp").unwrap();
    // Local address, then remote: state 01 is established.
    let rows = table.lines().filter(|row| {
        row.split_whitespace().nth(2).is_some_and(|remote| format!("{remote} ").ends_with(&port))
            && row.split_whitespace().nth(3) == Some("01")
    });
    rows.count()
}

#[test]
fn threads_share_the_pool_and_nothing_stays_open_after_it() {
    let (pki, vault) = (Pki::new(), Arc::new(ScriptedVault::default()));
    let server = TestServer::start(&pki, &vault);
    let module = module(pki.token(server.address));
    let (session, key) = with_key(&module);
    let expected = sign_once(&module, session, key).unwrap();
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let session = session::open(&module, 0, RW).unwrap();
                for _ in 0..20 {
                    assert_eq!(sign_once(&module, session, key).unwrap(), expected);
                }
            });
        }
    });
    assert!(server.accepted() <= 17, "{}", server.accepted());
    assert!(connections_to(server.address) >= 1);
    drop(module);
    assert_eq!(connections_to(server.address), 0);
}

#[test]
fn a_large_message_crosses_in_many_records() {
    let (pki, vault) = (Pki::new(), Arc::new(ScriptedVault::default()));
    let server = TestServer::start(&pki, &vault);
    let module = module(pki.token(server.address));
    let (session, key) = with_key(&module);
    let context = module.session(session).unwrap();
    sign::init(&context, chosen(Mechanism::Sha256Hmac, Params::None), key).unwrap();
    let (mut buffer, mut length) = ([0; 32], 0);
    let message = vec![5; 1 << 19];
    sign::sign(&context, &message[..].into(), &Output::over(&mut buffer, &mut length)).unwrap();
    let random = crate::random::generate(&context, 1 << 19).unwrap();
    assert!(random.iter().all(|byte| *byte == 0xa5));
}
