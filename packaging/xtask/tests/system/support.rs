//! A server, an application with the module loaded, and the processes of both.

use std::{
    env,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, PoisonError},
    thread::sleep,
    time::{Duration, Instant},
};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
    mechanism::Mechanism,
    object::{Attribute, AttributeType, ObjectHandle},
    session::{Session, UserType},
    slot::Slot,
    types::AuthPin,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use xtask::{
    server::Server,
    shell::{Echo, Shell},
    token::{PIN, SO_PIN},
    workspace::Artefacts,
};

/// The default of `deadline_ms`.
pub const DEADLINE: Duration = Duration::from_secs(2);
/// What a busy machine may add to a deadline.
pub const MARGIN: Duration = Duration::from_secs(2);
/// The partition of the application's token.
pub const PARTITION: &str = "trading";
/// The client that the application is.
pub const CLIENT: &str = "desk";

/// Tells the inner process of a test where its folder is.
const FOLDER: &str = "STRONGROOM_TEST_FOLDER";

/// Runs a test in a process of its own, because its module finds its configuration by an environment variable
/// and is one per process. The outer process waits for it, and ends whatever it left behind.
///
/// `test` is the test's own path, by which the inner process is told to run it alone.
pub fn alone(test: &str, limit: Duration, body: impl FnOnce(World)) {
    alone_in(test, limit, "state", |folder| body(World::new(folder)));
}

/// The same in an empty folder, in which the module's configuration is that of the client of the server in `server`.
pub fn alone_in(test: &str, limit: Duration, server: &str, body: impl FnOnce(&Path)) {
    static TURN: Mutex<()> = Mutex::new(());
    if let Some(folder) = env::var_os(FOLDER) {
        let done = Path::new(&folder).join("done");
        body(Path::new(&folder));
        return fs::write(done, "").unwrap();
    }
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let artefacts = Artefacts::built().unwrap();
    let folder = TempDir::new().unwrap();
    let output = folder.path().join("output");
    let written = File::create(&output).unwrap();
    let mut inner = Command::new(env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder.path())
        .env("STRONGROOM_CONFIG", folder.path().join(server).join(CLIENT).join("strongroom.toml"))
        .env(xtask::workspace::ARTEFACTS, Path::new(&artefacts.module()).parent().unwrap())
        .stdin(Stdio::null())
        .stdout(written.try_clone().unwrap())
        .stderr(written)
        .spawn()
        .unwrap();
    let status = await_exit(&mut inner, limit);
    for process in processes(folder.path()) {
        process.signal(Signal::KILL);
    }
    // Indented, so that nobody counts the inner process's own `test result`.
    let said = fs::read_to_string(&output).unwrap().replace('\n', "\n  | ");
    let log = fs::read_to_string(folder.path().join(server).join("server.log")).unwrap_or_default();
    let good = status.is_some_and(|status| status.success()) && folder.path().join("done").exists();
    println!("  | {said}");
    assert!(
        good,
        "{test}: {status:?} (none: not done after {limit:?})\n{}",
        tail(&log.replace('\n', "\n  > "), 60)
    );
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Waits for a process; kills it when its time is over.
pub fn await_exit(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    None
}

/// Asks until it is so, within a time that no healthy machine needs.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        sleep(Duration::from_millis(5));
    }
}

/// A process whose command line names the test's folder: nobody else's does.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    words: Vec<String>,
}

impl Process {
    /// Sends a signal; the process may have ended already.
    pub fn signal(&self, signal: Signal) {
        match kill_process(self.pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => panic!("{self:?}: {error}"),
        }
    }

    fn role(&self) -> Option<&str> {
        self.words.last().map(String::as_str).filter(|role| ["vault", "front"].contains(role))
    }
}

/// The processes that work on a folder.
pub fn processes(folder: &Path) -> Vec<Process> {
    let folder = folder.display().to_string();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let process = |pid: i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words: Vec<_> =
            line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
        let ours = words.iter().any(|word| word.contains(&folder));
        ours.then(|| Process { pid: Pid::from_raw(pid).unwrap(), words })
    };
    pids.filter_map(process).collect()
}

/// A server with one partition and one client, whose folder `STRONGROOM_CONFIG` names.
pub struct World {
    pub folder: PathBuf,
    pub artefacts: Artefacts,
    pub server: Server,
}

impl World {
    fn new(folder: &Path) -> Self {
        let artefacts = Artefacts::built().unwrap();
        let mut server =
            Server::create(&Shell::new(Echo::Nothing), &artefacts, &folder.join("state")).unwrap();
        server.start().unwrap();
        server.enrol(PARTITION, CLIENT).unwrap();
        Self { folder: folder.into(), artefacts, server }
    }

    /// Where the server keeps everything.
    pub fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// Loads the module and initialises it.
    pub fn module(&self) -> Pkcs11 {
        let module = Pkcs11::new(self.artefacts.module()).unwrap();
        module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
        module
    }

    /// An application that is logged in to its new token.
    pub fn application(&self) -> Application {
        let module = self.module();
        let slot = module.get_all_slots().unwrap()[0];
        module.init_token(slot, &AuthPin::new(SO_PIN.into()), PARTITION).unwrap();
        let session = module.open_rw_session(slot).unwrap();
        session.login(UserType::So, Some(&AuthPin::new(SO_PIN.into()))).unwrap();
        session.init_pin(&pin()).unwrap();
        session.logout().unwrap();
        session.login(UserType::User, Some(&pin())).unwrap();
        Application { module, slot, session }
    }

    /// The processes of the server that have this role; the supervisor has none.
    pub fn role(&self, role: &str) -> Vec<Process> {
        processes(&self.folder).into_iter().filter(|process| process.role() == Some(role)).collect()
    }

    /// Sends a signal to front or vault, once it is there.
    pub fn signal(&self, role: &str, signal: Signal) {
        let found = eventually(role, || Some(self.role(role)).filter(|found| !found.is_empty()));
        found.iter().for_each(|process| process.signal(signal));
    }

    /// Kills the supervisor, waits until its children have gone by themselves, and starts the server again.
    pub fn kill_and_restart(&mut self) {
        kill_process(Pid::from_raw(self.server.id().unwrap().cast_signed()).unwrap(), Signal::KILL).unwrap();
        self.server.stop().expect_err("it was killed");
        eventually("vault and front end with their supervisor", || {
            let left = self.role("vault").len() + self.role("front").len();
            (left == 0).then_some(())
        });
        self.server.start().unwrap();
    }

    /// Starts a server that is to refuse; gives its log.
    pub fn refused_start(&self) -> String {
        let path = self.folder.join("refused.log");
        let log = File::create(&path).unwrap();
        let mut server = Command::new(Path::new(&self.artefacts.module()).with_file_name("hsm-server"))
            .arg("--config")
            .arg(self.server.config())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let status = await_exit(&mut server, Duration::from_secs(20));
        let log = fs::read_to_string(path).unwrap();
        assert!(status.is_some_and(|status| !status.success()), "it served: {status:?}\n{log}");
        log
    }

    /// The newest audit records, oldest first.
    pub fn audit(&self) -> Vec<Value> {
        let text = self.server.hsmctl(&["--json", "audit", "tail", "-n", "1000"]).unwrap();
        serde_json::from_str::<Vec<Value>>(&text).unwrap()
    }
}

/// The module, and a session of a user that is logged in.
pub struct Application {
    pub module: Pkcs11,
    pub slot: Slot,
    pub session: Session,
}

impl Application {
    /// One more session; the login is the application's.
    pub fn session(&self) -> Session {
        self.module.open_rw_session(self.slot).unwrap()
    }
}

/// The user's PIN.
pub fn pin() -> AuthPin {
    AuthPin::new(PIN.into())
}

/// A P-256 key pair, as an application holds it.
#[derive(Clone, Debug)]
pub struct Pair {
    pub id: Vec<u8>,
    pub private: ObjectHandle,
    /// The uncompressed point.
    pub point: Vec<u8>,
}

/// Where a key pair is to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Token,
    Session,
}

/// Generates a P-256 key pair, and reads its public key.
pub fn generate(session: &Session, id: &[u8], place: Place) -> Result<Pair, Error> {
    const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    let shared =
        [Attribute::Token(place == Place::Token), Attribute::Id(id.into()), Attribute::Label(id.into())];
    let public = [&shared[..], &[Attribute::EcParams(P256.into()), Attribute::Verify(true)]].concat();
    let private = [&shared[..], &[Attribute::Sign(true), Attribute::Sensitive(true)]].concat();
    let (public, private) = session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)?;
    let point = eventually("the public key is told", || point(session, public).ok());
    Ok(Pair { id: id.into(), private, point })
}

/// The uncompressed point of a public key.
pub fn point(session: &Session, public: ObjectHandle) -> Result<Vec<u8>, Error> {
    let attributes = session.get_attributes(public, &[AttributeType::EcPoint])?;
    match &attributes[..] {
        // An OCTET STRING of 65 bytes.
        [Attribute::EcPoint(point)] => Ok(point[2..].to_vec()),
        other => panic!("{other:?}"),
    }
}

/// Signs with ECDSA and SHA-256.
pub fn sign(session: &Session, key: ObjectHandle, message: &[u8]) -> Result<Vec<u8>, Error> {
    session.sign(&Mechanism::EcdsaSha256, key, message)
}

/// Verifies, far from the module that made the signature.
pub fn verifies(point: &[u8], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature).is_ok()
}

/// Signs and verifies.
pub fn assert_signs(session: &Session, pair: &Pair) {
    let signature = sign(session, pair.private, b"sell 3 ETH").unwrap();
    assert!(verifies(&pair.point, b"sell 3 ETH", &signature));
}

/// What the module answered instead of `CKR_OK`.
pub fn code(error: &Error) -> RvError {
    match error {
        Error::Pkcs11(code, _) => *code,
        other => panic!("{other}"),
    }
}

/// Runs a call that must fail with a code, and in time.
pub fn assert_fails<T: std::fmt::Debug>(expected: RvError, call: impl FnOnce() -> Result<T, Error>) {
    let begun = Instant::now();
    let error = call().unwrap_err();
    let took = begun.elapsed();
    assert_eq!(code(&error), expected, "{error}");
    assert!(took < DEADLINE + MARGIN, "it took {took:?}");
}

/// A file's name and bytes, to put back later.
pub fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}
