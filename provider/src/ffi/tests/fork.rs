//! A program that forks: each process has connections of its own, and nothing of the parent's is lost.

use pkcs11_sys::{CKM_SHA256_HMAC, CKR_OK};

use super::*;

unsafe extern "C" {
    fn fork() -> i32;
    fn waitpid(process: i32, status: *mut i32, options: i32) -> i32;
    fn _exit(status: i32) -> !;
}

/// Runs `child` in a forked process, and tells whether it was content.
fn in_child(child: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child only calls the module and leaves by `_exit`; the parent waits for it.
    unsafe {
        match fork() {
            0 => _exit(if child() { 0 } else { 1 }),
            process => {
                let mut status = -1;
                assert_eq!(waitpid(process, &mut status, 0), process);
                status == 0
            }
        }
    }
}

#[test]
fn a_forked_child_signs_at_once_over_a_connection_of_its_own() {
    let (pki, vault) = (Pki::new(), Arc::new(ScriptedVault::default()));
    let server = TestServer::start(&pki, &vault);
    let _turn = install(Tls::new(pki.token(server.address).into(), Arc::default()));
    let session = session();
    let key = hmac_key(session);
    let expected = sign(session, key).unwrap();
    assert_eq!(server.accepted(), 1);
    for round in 1..=3 {
        assert!(in_child(|| {
            let signed = (0..10).all(|_| sign(session, key) == Ok(expected));
            // SAFETY: a null pointer is what it wants.
            signed && unsafe { C_Finalize(null_mut()) } == CKR_OK
        }));
        assert_eq!(server.accepted(), 1 + round, "one connection per child, none new for the parent");
        assert_eq!(sign(session, key), Ok(expected));
    }
    // The old way: a child that starts afresh.
    assert!(in_child(|| {
        let (_vault, fresh, _session) = opened();
        module::install(fresh).is_ok() && sign(session, key) != Ok(expected)
    }));
    assert_eq!(sign(session, key), Ok(expected));
}

#[test]
fn a_childs_threads_that_call_at_once_lose_none_of_the_parents_operations() {
    let _turn = install(InProcess(Arc::new(ScriptedVault::default())));
    let session = session();
    let key = hmac_key(session);
    let expected = sign(session, key).unwrap();
    for _ in 0..40 {
        // SAFETY: the mechanism is a local.
        assert_eq!(unsafe { C_SignInit(session, &mut mechanism(CKM_SHA256_HMAC), key) }, CKR_OK);
        let finish = || {
            let (mut signature, mut length) = ([0; 32], 32);
            let message = b"message".as_ptr().cast_mut();
            // SAFETY: every pointer is to a local.
            let rv = unsafe { C_Sign(session, message, 7, signature.as_mut_ptr(), &mut length) };
            rv == CKR_OK && signature == expected
        };
        assert!(in_child(|| {
            let together = std::sync::Barrier::new(8);
            std::thread::scope(|scope| {
                (0..8).for_each(|_| {
                    scope.spawn(|| {
                        together.wait();
                        module::module().is_ok()
                    });
                });
            });
            finish()
        }));
        assert!(finish());
    }
}

#[test]
fn a_fork_in_the_midst_of_other_threads_calls_is_safe() {
    let (pki, vault) = (Pki::new(), Arc::new(ScriptedVault::default()));
    let server = TestServer::start(&pki, &vault);
    let _turn = install(Tls::new(pki.token(server.address).into(), Arc::default()));
    let own = session();
    let key = hmac_key(own);
    let expected = sign(own, key).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let busy = session();
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    assert_eq!(sign(busy, key), Ok(expected));
                }
            });
        }
        let content = (0..20).all(|_| in_child(|| sign(own, key) == Ok(expected) && session() > 0));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(content);
    });
}
