//! Certificates that renew themselves: while threads sign, in one of several modules, and not where they cannot.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use strongroom_shared::{
    fault::{Fault, FaultCode},
    message::Certificate,
    wire::CallId,
};

use super::{
    links::{module, sign_once, with_key},
    server::{Pki, TestServer},
    vault::ScriptedVault,
};

/// A server, and how many certificates it has made.
struct House {
    pki: Pki,
    vault: Arc<ScriptedVault>,
    server: TestServer,
    made: Arc<AtomicUsize>,
}

impl House {
    /// Whose clients should renew their certificates at once.
    fn new() -> Self {
        let (pki, vault) = (Pki::new(), Arc::new(ScriptedVault::default()));
        let server = TestServer::start(&pki, &vault);
        let made = Arc::<AtomicUsize>::default();
        let (issue, counted) = (pki.issuer(), made.clone());
        vault.renews_by(Box::new(move |request| {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(issue(request))
        }));
        Self { pki, vault, server, made }
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.pki.folder.path().join(name)).unwrap()
    }

    fn asked(&self) -> usize {
        self.vault.calls().iter().filter(|call| **call == CallId::RenewCertificate).count()
    }
}

#[test]
fn a_certificate_is_renewed_once_while_threads_sign() {
    let house = House::new();
    let (certificate, key) = (house.file("client.pem"), house.file("client.key"));
    let module = module(house.pki.token(house.server.address));
    let (session, handle) = with_key(&module);
    let expected = sign_once(&module, session, handle).unwrap();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let session = crate::session::open(&module, 0, super::RW).unwrap();
                for _ in 0..50 {
                    assert_eq!(sign_once(&module, session, handle).unwrap(), expected);
                }
            });
        }
    });
    assert_eq!((house.made.load(Ordering::SeqCst), house.asked()), (1, 1));
    assert_ne!(house.file("client.pem"), certificate);
    assert!(house.file("client.key").contains("PRIVATE KEY") && house.file("client.key") != key);
    // What is left is what was there, and the next connection shows the new certificate.
    assert_eq!(fs::read_dir(house.pki.folder.path()).unwrap().count(), 3);
    let mode = fs::metadata(house.pki.folder.path().join("client.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0o044, "as it was");
    let shown = house.server.certificates();
    assert_ne!(shown.first(), shown.last());
}

#[test]
fn modules_that_share_a_folder_have_one_certificate_made() {
    let house = House::new();
    let modules: Vec<_> =
        (0..6).map(|_| module(house.pki.token(house.server.address))).map(|m| (with_key(&m), m)).collect();
    thread::scope(|scope| {
        for ((session, key), module) in &modules {
            scope.spawn(|| (0..20).for_each(|_| assert!(sign_once(module, *session, *key).is_ok())));
        }
    });
    assert_eq!(house.made.load(Ordering::SeqCst), 1);
}

#[test]
fn a_crash_between_the_two_files_leaves_a_pair() {
    let house = House::new();
    let old = house.file("client.pem");
    let first = module(house.pki.token(house.server.address));
    with_key(&first);
    drop(first);
    // As if the process had died before the certificate's file had its copy.
    fs::write(house.pki.folder.path().join("client.pem"), old).unwrap();
    let before = house.server.certificates().len();
    let second = module(house.pki.token(house.server.address));
    with_key(&second);
    let shown = house.server.certificates();
    assert!(shown.len() > before);
    assert_ne!(shown.last(), shown.first());
}

#[test]
fn a_certificate_that_is_not_ours_or_not_accepted_costs_us_nothing() {
    let house = House::new();
    let before = (house.file("client.pem"), house.file("client.key"));
    // Of another CA, which says so; and of another CA, which says that it is ours. The server accepts neither.
    let ours = house.file("ca.pem");
    let other = Pki::new();
    for authority in [None, Some(ours)] {
        let issue = other.issuer();
        house.vault.renews_by(Box::new(move |request| {
            let Certificate { certificate, authority: true_one } = issue(request);
            Ok(Certificate { certificate, authority: authority.clone().unwrap_or(true_one) })
        }));
        let asked = house.asked();
        let module = module(house.pki.token(house.server.address));
        let (session, key) = with_key(&module);
        (0..5).for_each(|_| assert!(sign_once(&module, session, key).is_ok()));
        assert_eq!(house.asked(), asked + 1);
        assert_eq!((house.file("client.pem"), house.file("client.key")), before);
    }
    // Ours, but the server lets nobody in who shows it.
    let issue = house.pki.issuer();
    let closed = house.server.close_to_strangers();
    house.vault.renews_by(Box::new(move |request| Ok(issue(request))));
    let module = module(house.pki.token(house.server.address));
    let (session, key) = with_key(&module);
    (0..5).for_each(|_| assert!(sign_once(&module, session, key).is_ok()));
    assert_eq!((house.file("client.pem"), house.file("client.key")), before);
    assert_eq!(fs::read_dir(house.pki.folder.path()).unwrap().count(), 3);
    assert_eq!(closed.load(Ordering::SeqCst), 1, "it was shown once");
}

#[test]
fn who_may_not_renew_or_cannot_write_signs_on_and_does_not_ask_again_at_once() {
    let house = House::new();
    house.vault.renews_by(Box::new(|_| Err(Fault::new(FaultCode::Frozen, "as the test wants it"))));
    let frozen = module(house.pki.token(house.server.address));
    let (session, key) = with_key(&frozen);
    (0..5).for_each(|_| assert!(sign_once(&frozen, session, key).is_ok()));
    assert_eq!(house.asked(), 1);

    let house = House::new();
    // In the way of whoever replaces the file, even of root.
    fs::create_dir_all(house.pki.folder.path().join(".client.pem.new/taken")).unwrap();
    let unwritable = module(house.pki.token(house.server.address));
    let (session, key) = with_key(&unwritable);
    (0..5).for_each(|_| assert!(sign_once(&unwritable, session, key).is_ok()));
    assert_eq!(house.asked(), 0);
}
