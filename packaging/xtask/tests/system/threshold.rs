//! A key that three servers share, as real processes: it outlives any one of them, and one of them alone signs
//! nothing. It is an Ed25519 key, because ECDSA's ceremonies take too long without optimisation; `cargo xtask demo
//! --threshold` shows those.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
    mechanism::{
        Mechanism,
        eddsa::{EddsaParams, EddsaSignatureScheme},
    },
    object::{Attribute, AttributeType, ObjectClass, ObjectHandle},
    session::{Session, UserType},
    slot::Slot,
};
use xtask::{
    cluster::Nodes,
    shell::{Echo, Shell},
    workspace::Artefacts,
};

use crate::support::{CLIENT, PARTITION, alone_in, assert_fails, code, eventually, pin, point};

/// Three nodes, and an application at the first.
pub struct World {
    pub nodes: Nodes,
    module: Pkcs11,
    slot: Slot,
    pub session: Session,
}

/// Copies a folder with all that is in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

impl World {
    pub fn new(folder: &Path) -> Self {
        Self::joined(folder, |nodes| nodes.join().unwrap())
    }

    /// Nodes that become a cluster in this way.
    pub fn joined(folder: &Path, join: impl FnOnce(&Nodes)) -> Self {
        let artefacts = Artefacts::built().unwrap();
        let nodes = Nodes::start(&Shell::new(Echo::Nothing), &artefacts, folder, &["a", "b", "c"]).unwrap();
        join(&nodes);
        let configs = nodes.enrol(PARTITION, CLIENT).unwrap();
        nodes.initialise(&configs, PARTITION).unwrap();
        let module = Pkcs11::new(artefacts.module()).unwrap();
        module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
        let slot = module.get_all_slots().unwrap()[0];
        let session = module.open_rw_session(slot).unwrap();
        session.login(UserType::User, Some(&pin())).unwrap();
        Self { nodes, module, slot, session }
    }

    /// A new 2-of-3 key.
    pub fn generate(&self, kind: &str, label: &str) -> Shared {
        let client = self.nodes.servers[0].state().join(CLIENT);
        self.nodes.generate(&client, kind, label, "07", 2).unwrap();
        self.find(label)
    }

    pub fn find(&self, label: &str) -> Shared {
        let of = |class| {
            let template = [Attribute::Label(label.into()), Attribute::Class(class)];
            self.session.find_objects(&template).unwrap()[0]
        };
        let (private, public) = (of(ObjectClass::PRIVATE_KEY), of(ObjectClass::PUBLIC_KEY));
        Shared { private, point: point(&self.session, public).unwrap() }
    }

    pub fn kill(&mut self, node: usize) {
        self.nodes.servers[node].kill().unwrap();
    }

    /// Copies what a node has on disk, while it does not run.
    pub fn copy(&mut self, node: usize, to: &Path) {
        self.kill(node);
        copy(self.nodes.servers[node].state(), to);
        self.start(node);
        self.nodes.await_all().unwrap();
    }

    /// Has a node begin anew on an old copy of what it had.
    pub fn put_back(&mut self, node: usize, old: &Path) {
        self.kill(node);
        let state = self.nodes.servers[node].state().to_path_buf();
        fs::remove_dir_all(&state).unwrap();
        copy(old, &state);
        self.start(node);
        self.nodes.await_all().unwrap();
    }

    pub fn start(&mut self, node: usize) {
        // Its front and vault may need a moment to see that their supervisor is gone.
        eventually("the node starts again", || self.nodes.servers[node].start().ok());
    }
}

/// A shared key, as the application holds it.
#[derive(Clone)]
pub struct Shared {
    pub private: ObjectHandle,
    point: Vec<u8>,
}

impl Shared {
    pub fn sign_eddsa(&self, session: &Session, message: &[u8]) -> Result<(), Error> {
        let mechanism = Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure));
        let signature = session.sign(&mechanism, self.private, message)?;
        let good = UnparsedPublicKey::new(&ED25519, &self.point).verify(message, &signature);
        assert!(good.is_ok(), "a signature that is none");
        Ok(())
    }
}

#[test]
fn a_shared_key_outlives_any_one_node_and_one_alone_signs_nothing() {
    let name = "threshold::a_shared_key_outlives_any_one_node_and_one_alone_signs_nothing";
    alone_in(name, Duration::from_secs(300), "a", |folder| {
        let mut world = World::new(folder);
        let edwards = world.generate("EC:edwards25519", "edwards");
        let sign = |world: &World| edwards.sign_eddsa(&world.session, b"buy low");
        sign(&world).unwrap();
        let sensitive = [AttributeType::Value, AttributeType::Local, AttributeType::Extractable];
        let shown = world.session.get_attributes(edwards.private, &sensitive).unwrap();
        assert_eq!(shown, [Attribute::Local(true), Attribute::Extractable(false)], "and no value");

        world.kill(2);
        for _ in 0..5 {
            eventually("two of three sign", || sign(&world).ok());
        }
        world.kill(1);
        for _ in 0..3 {
            assert_fails(RvError::DeviceError, || sign(&world));
        }
        world.start(1);
        eventually("two of three sign again", || sign(&world).ok());
        world.start(2);
        world.nodes.await_all().unwrap();
        for _ in 0..5 {
            sign(&world).unwrap();
        }
        // The node that the application talks to is as good as any other.
        world.kill(0);
        world.start(0);
        eventually("and after it came back", || sign(&world).ok());
        for server in &world.nodes.servers {
            let whole = server.hsmctl(&["--json", "audit", "verify"]).unwrap();
            assert!(whole.contains("\"whole\": true"), "{whole}");
        }
    });
}

/// How long the nodes are killed.
const CHAOS: Duration = Duration::from_secs(25);

#[test]
fn nodes_that_are_killed_at_any_moment_lose_nothing() {
    let name = "threshold::nodes_that_are_killed_at_any_moment_lose_nothing";
    alone_in(name, Duration::from_secs(400), "a", |folder| {
        let mut world = World::new(folder);
        let key = world.generate("EC:edwards25519", "edwards");
        let (stop, signed) = (AtomicBool::new(false), AtomicU64::new(0));
        let sessions: Vec<_> = (0..4).map(|_| world.module.open_rw_session(world.slot).unwrap()).collect();
        thread::scope(|scope| {
            for session in sessions {
                let (stop, signed, key) = (&stop, &signed, key.clone());
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        match key.sign_eddsa(&session, b"buy") {
                            Ok(()) => drop(signed.fetch_add(1, Ordering::Relaxed)),
                            Err(error) => assert_eq!(code(&error), RvError::DeviceError, "{error}"),
                        }
                    }
                });
            }
            let begun = Instant::now();
            let mut victims = [2, 1, 0].into_iter().cycle();
            // Uneven times, so that the moments are others in each round.
            let mut pauses = [37, 410, 3, 150, 901, 73, 0, 260].into_iter().cycle();
            while begun.elapsed() < CHAOS {
                let (victim, pause) = (victims.next().unwrap(), pauses.next().unwrap());
                sleep(Duration::from_millis(pause));
                world.kill(victim);
                sleep(Duration::from_millis(pause / 2));
                world.start(victim);
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert!(signed.load(Ordering::Relaxed) > 0, "it went on meanwhile");
        world.nodes.await_all().unwrap();
        // Whichever node is missing, the other two have what they need.
        for missing in [2, 1] {
            world.kill(missing);
            eventually("the others sign", || key.sign_eddsa(&world.session, b"sell").ok());
            world.start(missing);
            world.nodes.await_all().unwrap();
        }
        for server in &world.nodes.servers {
            let whole = server.hsmctl(&["--json", "audit", "verify"]).unwrap();
            assert!(whole.contains("\"whole\": true"), "{whole}");
        }
    });
}
