//! Threads, forks and unloading: what an application's process may do with the module.

use std::{
    fs,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    object::Attribute,
    session::UserType,
};

use crate::support::{PARTITION, Place, alone, assert_signs, await_exit, generate, pin, sign, verifies};
use xtask::token::PIN;

const THREADS: usize = 64;
const EACH: usize = 50;

#[test]
fn sixty_four_threads_sign_through_one_module() {
    alone("process::sixty_four_threads_sign_through_one_module", Duration::from_secs(90), |world| {
        let application = world.application();
        let pair = generate(&application.session, b"shared", Place::Token).unwrap();
        let own_threads = count("task");
        thread::scope(|scope| {
            let workers: Vec<_> = (0..THREADS)
                .map(|number| {
                    let (session, pair) = (application.session(), &pair);
                    scope.spawn(move || {
                        for turn in 0..EACH {
                            let message = format!("{number}: {turn}");
                            let signature = sign(&session, pair.private, message.as_bytes()).unwrap();
                            assert!(verifies(&pair.point, message.as_bytes(), &signature), "{message}");
                        }
                    })
                })
                .collect();
            for worker in workers {
                worker.join().unwrap();
            }
        });
        assert_eq!(count("task"), own_threads, "the module makes no thread");
        // Every signature is on record, and nothing else was signed.
        let signed = world.audit().iter().filter(|record| record["act"] == "Sign").count();
        assert_eq!(signed, 1000.min(THREADS * EACH), "of the newest thousand records");
    });
}

/// `fork.py` is the application: Python needs no `unsafe` to fork.
#[test]
fn children_of_a_fork_sign_on_without_initialising() {
    alone("process::children_of_a_fork_sign_on_without_initialising", Duration::from_secs(150), |world| {
        let application = world.application();
        application.session.close().unwrap();
        application.module.finalize().unwrap();
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/system/fork.py");
        let mut python = Command::new("python3")
            .args([program, &world.artefacts.module(), PIN])
            // For the sweep at the end, should it hang.
            .arg(&world.folder)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let status = await_exit(&mut python, Duration::from_secs(120));
        assert!(status.is_some_and(|status| status.success()), "fork.py: {status:?}");
        let whole = world.server.hsmctl(&["--json", "audit", "verify"]).unwrap();
        assert!(whole.contains("\"whole\": true"), "{whole}");
    });
}

#[test]
fn a_hundred_loads_and_unloads_leave_nothing_behind() {
    alone("process::a_hundred_loads_and_unloads_leave_nothing_behind", Duration::from_secs(120), |world| {
        let application = world.application();
        let pair = generate(&application.session, b"kept", Place::Token).unwrap();
        application.session.close().unwrap();
        application.module.finalize().unwrap();
        let mut before = None;
        for round in 0..100 {
            let module = Pkcs11::new(world.artefacts.module()).unwrap();
            use_once(&module, &pair.point);
            module.finalize().unwrap();
            // What the first rounds leave, such as the C library's own caches, is left once.
            if round == 2 {
                before = Some((count("task"), count("fd")));
            }
        }
        let after = (count("task"), count("fd"));
        println!("threads and descriptors: {before:?}, then {after:?}; mapped: {}", mappings());
        assert_eq!(before, Some(after), "threads and descriptors");
        assert!(mappings() < 30, "the module is mapped {} times", mappings());
    });
}

/// A program that unloads the module and never finalises it, and then wants it again.
#[test]
fn unloading_without_finalising_does_no_harm() {
    alone("process::unloading_without_finalising_does_no_harm", Duration::from_secs(60), |world| {
        let application = world.application();
        let pair = generate(&application.session, b"kept", Place::Token).unwrap();
        application.session.close().unwrap();
        application.module.finalize().unwrap();
        let begun = (count("task"), count("fd"));
        for _ in 0..20 {
            let path = world.artefacts.module();
            // A thread of its own, with which the module's thread-local state ends.
            let point = pair.point.clone();
            thread::spawn(move || {
                let module = Pkcs11::new(path).unwrap();
                match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
                    Ok(()) => {}
                    Err(error) => println!("initialize: {error}"),
                }
                sign_once(&module, &point);
            })
            .join()
            .unwrap();
        }
        println!(
            "threads and descriptors: {begun:?}, then {:?}; mapped: {}",
            (count("task"), count("fd")),
            mappings()
        );
        // And the server is as it was.
        let module = world.module();
        let slot = module.get_all_slots().unwrap()[0];
        let session = module.open_rw_session(slot).unwrap();
        println!("login: {:?}", session.login(UserType::User, Some(&pin())));
        let private =
            session.find_objects(&[Attribute::Id(b"kept".to_vec()), Attribute::Sign(true)]).unwrap()[0];
        assert_signs(&session, &crate::support::Pair { private, ..pair });
    });
}

fn use_once(module: &Pkcs11, point: &[u8]) {
    module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
    sign_once(module, point);
}

fn sign_once(module: &Pkcs11, point: &[u8]) {
    let slot = module.get_all_slots().unwrap()[0];
    assert_eq!(module.get_token_info(slot).unwrap().label(), PARTITION);
    let session = module.open_rw_session(slot).unwrap();
    match session.login(UserType::User, Some(&pin())) {
        Ok(()) => {}
        Err(error) => println!("login: {error}"),
    }
    let private = session.find_objects(&[Attribute::Id(b"kept".to_vec()), Attribute::Sign(true)]).unwrap()[0];
    let signature = sign(&session, private, b"sell 3 ETH").unwrap();
    assert!(verifies(point, b"sell 3 ETH", &signature));
}

/// How many threads (`task`) or descriptors (`fd`) this process has.
fn count(what: &str) -> usize {
    fs::read_dir(format!("/proc/self/{what}")).unwrap().count()
}

/// How many pieces of the module are mapped into this process.
fn mappings() -> usize {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains("libstrongroom_pkcs11")).count()
}
