//! Threads, forks and unloading: what an application's process may do with the module.

use std::{
    fs,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::RvError,
    object::Attribute,
    session::UserType,
};

use crate::support::{PARTITION, Place, World, alone, await_exit, code, generate, pin, sign, verifies};
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
        prepare(&world);
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
        let point = prepare(&world);
        let mut before = None;
        for round in 0..100 {
            let module = world.module();
            sign_once(&module, &point);
            // The last copy of the module unloads it; from a thread that ends as well as from one that stays.
            match round % 2 {
                0 => module.finalize().unwrap(),
                _ => thread::spawn(|| module.finalize().unwrap()).join().unwrap(),
            }
            // What the first rounds leave, such as the C library's own caches, is left once.
            if round == 2 {
                before = Some((count("task"), count("fd"), mapped()));
            }
        }
        assert_eq!(before, Some((count("task"), count("fd"), mapped())), "threads, descriptors, mappings");
    });
}

/// A program that unloads the module, never finalises it, and then wants it again. The linker keeps the module
/// (it is linked with `-z nodelete`), so it is still initialised, and what was open is used again.
#[test]
fn unloading_without_finalising_leaks_nothing() {
    alone("process::unloading_without_finalising_leaks_nothing", Duration::from_secs(60), |world| {
        let point = prepare(&world);
        let mut before = None;
        for round in 0..20 {
            let module = Pkcs11::new(world.artefacts.module()).unwrap();
            match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
                Ok(()) => assert_eq!(round, 0),
                Err(error) => assert_eq!(code(&error), RvError::CryptokiAlreadyInitialized),
            }
            sign_once(&module, &point);
            drop(module);
            if round == 2 {
                before = Some((count("task"), count("fd"), mapped()));
            }
        }
        assert_eq!(before, Some((count("task"), count("fd"), mapped())), "threads, descriptors, mappings");
    });
}

/// Makes the token and a key, and finalises the module; gives the key's public point.
fn prepare(world: &World) -> Vec<u8> {
    let application = world.application();
    let pair = generate(&application.session, b"kept", Place::Token).unwrap();
    application.session.close().unwrap();
    application.module.finalize().unwrap();
    pair.point
}

fn sign_once(module: &Pkcs11, point: &[u8]) {
    let slot = module.get_all_slots().unwrap()[0];
    assert_eq!(module.get_token_info(slot).unwrap().label(), PARTITION);
    let session = module.open_rw_session(slot).unwrap();
    session.login(UserType::User, Some(&pin())).unwrap();
    let template = [Attribute::Id(b"kept".to_vec()), Attribute::Sign(true)];
    let private = session.find_objects(&template).unwrap()[0];
    let signature = sign(&session, private, b"sell 3 ETH").unwrap();
    assert!(verifies(point, b"sell 3 ETH", &signature));
}

/// How many threads (`task`) or descriptors (`fd`) this process has.
fn count(what: &str) -> usize {
    fs::read_dir(format!("/proc/self/{what}")).unwrap().count()
}

/// How many pieces of the module are in this process.
fn mapped() -> usize {
    fs::read_to_string("/proc/self/maps").unwrap().matches("libstrongroom_pkcs11").count()
}
