//! The server as real processes: supervisor, front and vault, with an echo for a vault.
//!
//! This program is its own server: started with `--config` it is whatever role the supervisor gives it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]
#![allow(clippy::print_stdout)]

mod support;

use std::{
    env, fs,
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use strongroom_server::{
    config::{Config, Isolation},
    door::{Admission, Door, Pace, Peer, Verdict},
    process,
};
use strongroom_shared::{
    fault::{Fault, FaultCode},
    wire::{HEADER, Header, Kind},
};
use support::{Ca, Client, Credentials, Echo, QUICK, SLOW, eventually};
use tempfile::TempDir;

/// Calls by which the tests have the vault try what it should not be able to.
const READ: u16 = 20;
const WRITE: u16 = 21;
const CONNECT: u16 = 22;
const RUN: u16 = 23;
const PANIC: u16 = 24;
/// Opens a socket of another kind than TCP.
const DATAGRAM: u16 = 26;
/// Connects by its first bytes, without `connect`.
const FAST: u16 = 27;
/// From now on the disk is full, until the file `full` is gone.
const FILL: u16 = 25;

fn main() -> ExitCode {
    if env::args().any(|argument| argument == "--config") {
        if env::var_os(WITHOUT_LANDLOCK).is_some() {
            forget_landlock();
        }
        return process::main(|config| Ok(Arc::new(Probe::open(config)?)));
    }
    let filter = env::args().skip(1).find(|argument| !argument.starts_with('-'));
    for (name, test) in TESTS {
        if filter.as_ref().is_none_or(|filter| name.contains(filter.as_str())) {
            test();
            println!("test {name} ... ok");
        }
    }
    ExitCode::SUCCESS
}

/// Makes the kernel of this program one that has no Landlock.
const WITHOUT_LANDLOCK: &str = "WITHOUT_LANDLOCK";

fn forget_landlock() {
    let unknown = seccompiler::SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let calls = [(libc::SYS_landlock_create_ruleset, Vec::new())].into();
    let target = env::consts::ARCH.try_into().unwrap();
    let filter =
        seccompiler::SeccompFilter::new(calls, seccompiler::SeccompAction::Allow, unknown, target).unwrap();
    seccompiler::apply_filter(&seccompiler::BpfProgram::try_from(filter).unwrap()).unwrap();
}

fn connect_by_sending(to: SocketAddr) -> std::io::Result<()> {
    use rustix::net::{AddressFamily, SendFlags, SocketType, sendto, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    let fast = SendFlags::from_bits_retain(libc::MSG_FASTOPEN.unsigned_abs());
    sendto(socket, b"x", fast, &to)?;
    Ok(())
}

const TESTS: &[(&str, fn())] = &[
    ("it_serves_and_stops_in_order", it_serves_and_stops_in_order),
    ("whoever_dies_is_started_again", whoever_dies_is_started_again),
    (
        "a_vault_that_cannot_write_ends_and_works_again_when_it_can",
        a_vault_that_cannot_write_ends_and_works_again_when_it_can,
    ),
    ("children_go_when_the_supervisor_does", children_go_when_the_supervisor_does),
    ("the_vault_is_walled_in", the_vault_is_walled_in),
    ("the_front_is_walled_in", the_front_is_walled_in),
    ("a_nodes_front_calls_its_ports_and_no_others", a_nodes_front_calls_its_ports_and_no_others),
    ("no_node_without_landlock", no_node_without_landlock),
    ("a_server_that_cannot_start_says_so_and_ends", a_server_that_cannot_start_says_so_and_ends),
    ("systemd_is_told", systemd_is_told),
];

/// An echo that keeps its clients in the state folder, and tries what it is asked to.
struct Probe {
    echo: Echo,
    state: PathBuf,
}

impl Probe {
    fn open(config: &Config) -> Result<Self, process::Failure> {
        if config.state.join("full").exists() {
            return Err("the disk is still full".into());
        }
        let echo = Echo::default();
        *echo.slowness.lock().unwrap() = Duration::from_millis(700);
        echo.let_in(&fs::read(config.state.join("alice.der")).unwrap());
        let _ = fs::remove_file(config.state.join("closed"));
        Ok(Self { echo, state: config.state.clone() })
    }
}

impl Door for Probe {
    fn admit(&self, certificate: &[u8], address: SocketAddr) -> Result<Arc<Peer>, Fault> {
        self.echo.admit(certificate, address)
    }

    fn pace(&self, peer: &Peer, frame: &[u8]) -> Pace {
        self.echo.pace(peer, frame)
    }

    fn handle(&self, peer: &Peer, frame: &[u8], out: &mut Vec<u8>) -> Verdict {
        let (header, body) = frame.split_first_chunk::<HEADER>().unwrap();
        let header = Header::decode(header, u32::MAX).unwrap();
        let argument = String::from_utf8_lossy(body).into_owned();
        let result = match header.call {
            READ => fs::read(argument).map(drop),
            WRITE => fs::write(argument, "x"),
            CONNECT => TcpStream::connect(argument).map(drop),
            DATAGRAM => UdpSocket::bind("127.0.0.1:0").map(drop),
            FAST => connect_by_sending(argument.parse().unwrap()),
            RUN => Command::new(argument).status().map(drop),
            PANIC => panic!("as the test wants it"),
            FILL => fs::write(self.state.join("full"), ""),
            _ => return self.echo.handle(peer, frame, out),
        };
        let body = result.map_or_else(|error| error.to_string(), |()| "done".into());
        let length = u32::try_from(body.len()).unwrap();
        out.extend(Header { length, kind: Kind::Reply, ..header }.encode());
        out.extend(body.as_bytes());
        Verdict::Answered
    }

    fn commit(&self) -> Result<(), Fault> {
        Ok(())
    }

    fn disconnect(&self, _: &Peer) {}

    fn refused(&self, _: SocketAddr, _: Option<&[u8]>, _: &str) {}

    fn admissions(&self) -> (u64, Vec<Admission>) {
        self.echo.admissions()
    }

    fn admissions_version(&self) -> u64 {
        self.echo.admissions_version()
    }

    fn tick(&self) -> Result<(), Fault> {
        match self.state.join("full").exists() {
            true => Err(Fault::new(FaultCode::NotDurable, "make room on the disk")),
            false => Ok(()),
        }
    }

    fn close(&self) {
        fs::write(self.state.join("closed"), "").unwrap();
    }
}

/// A server in its own processes.
struct Server {
    folder: TempDir,
    ca: Ca,
    alice: Credentials,
    address: SocketAddr,
    supervisor: Child,
    log: Arc<Mutex<String>>,
}

impl Server {
    fn start(isolation: Isolation) -> Self {
        Self::start_with(isolation, |_| {})
    }

    fn start_with(isolation: Isolation, adjust: impl FnOnce(&mut Command)) -> Self {
        let server = Self::launch(isolation, |_| {}, adjust);
        server.wait_for_log("ready");
        server
    }

    fn launch(
        isolation: Isolation,
        change: impl FnOnce(&mut Config),
        adjust: impl FnOnce(&mut Command),
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ca = Ca::new();
        ca.write_server(folder.path());
        let alice = ca.client("alice");
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut config = Config { listen: address, lanes: 2, isolation, ..Config::default() };
        config.state = folder.path().join("state");
        config.resolve(folder.path());
        fs::create_dir(&config.state).unwrap();
        fs::write(config.state.join("alice.der"), &alice.certificate).unwrap();
        change(&mut config);
        let path = folder.path().join("server.toml");
        fs::write(&path, toml::to_string(&config).unwrap()).unwrap();

        let mut command = Command::new(env::current_exe().unwrap());
        command.arg("--config").arg(&path).stderr(Stdio::piped());
        adjust(&mut command);
        let mut supervisor = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let lines = BufReader::new(supervisor.stderr.take().unwrap()).lines();
        let kept = Arc::clone(&log);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                kept.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        Self { folder, ca, alice, address, supervisor, log }
    }

    fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    fn wait_for_log(&self, text: &str) {
        let start = Instant::now();
        while !self.log().contains(text) {
            assert!(start.elapsed() < Duration::from_secs(20), "no {text:?} in the log:\n{}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn signal(&self, pid: u32, signal: Signal) {
        kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
    }

    /// The process of a child, once it is there.
    fn child(&self, role: &str) -> u32 {
        let supervisor = self.supervisor.id();
        let start = Instant::now();
        loop {
            let children =
                fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).unwrap();
            let found = children.split_whitespace().map(|pid| pid.parse::<u32>().unwrap()).find(|pid| {
                let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                line.trim_end_matches('\0').ends_with(role)
            });
            if let Some(pid) = found {
                return pid;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "no {role}:\n{}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn connect(&self) -> Client {
        Client::connect(self.address, &self.ca, Some(&self.alice)).unwrap()
    }

    /// Asks on new connections until there is an answer.
    fn ask_somehow(&self, what: &[u8]) {
        let start = Instant::now();
        loop {
            let client = Client::connect(self.address, &self.ca, Some(&self.alice));
            match client.and_then(|mut client| client.ask(QUICK, what)) {
                Ok(answer) => return assert_eq!(answer, what),
                Err(error) => assert!(start.elapsed() < Duration::from_secs(20), "{error}\n{}", self.log()),
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn try_in_vault(&self, call: u16, argument: &str) -> std::io::Result<String> {
        self.connect().ask(call, argument.as_bytes()).map(|answer| String::from_utf8(answer).unwrap())
    }

    fn state(&self, name: &str) -> String {
        self.folder.path().join("state").join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its children go with it.
        let _ = self.supervisor.kill();
        let _ = self.supervisor.wait();
    }
}

fn gone(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}/fd")).exists() || fs::read_link(format!("/proc/{pid}/exe")).is_err()
}

fn it_serves_and_stops_in_order() {
    for isolation in [Isolation::Process, Isolation::Thread] {
        let mut server = Server::start(isolation);
        let mut client = server.connect();
        assert_eq!(client.ask(QUICK, b"hello").unwrap(), b"hello");
        client.send(SLOW, b"in flight").unwrap();
        thread::sleep(Duration::from_millis(200));
        server.signal(server.supervisor.id(), Signal::TERM);
        assert_eq!(client.receive().unwrap(), b"in flight");
        client.wait_for_end().unwrap();
        assert!(server.supervisor.wait().unwrap().success(), "{}", server.log());
        assert!(Path::new(&server.state("closed")).exists());
    }
}

fn whoever_dies_is_started_again() {
    let server = Server::start(Isolation::Process);
    for role in ["vault", "front", "vault", "front"] {
        server.ask_somehow(b"before");
        let pid = server.child(role);
        server.signal(pid, Signal::KILL);
        eventually("the killed child is gone", || gone(pid));
        server.ask_somehow(b"after");
        assert_ne!(server.child(role), pid);
    }
    // A panic in the vault ends its process and no more.
    assert!(server.try_in_vault(PANIC, "").is_err());
    server.ask_somehow(b"after the panic");
    let server = Server::start(Isolation::Thread);
    server.signal(server.child("front"), Signal::KILL);
    server.ask_somehow(b"after");
}

fn a_vault_that_cannot_write_ends_and_works_again_when_it_can() {
    for (isolation, role) in [(Isolation::Process, "vault"), (Isolation::Thread, "front")] {
        let server = Server::start(isolation);
        server.ask_somehow(b"before");
        let pid = server.child(role);
        // Whether the answer still leaves is a race that either may win.
        let _ = server.try_in_vault(FILL, "");
        eventually("the process ends by itself", || gone(pid));
        let count = |text: &str| server.log().matches(text).count();
        // It is tried again and again, and nobody is needed but for the disk.
        let start = Instant::now();
        while count("the disk is still full") < 3 {
            assert!(start.elapsed() < Duration::from_secs(20), "{}", server.log());
            thread::sleep(Duration::from_millis(5));
        }
        fs::remove_file(server.state("full")).unwrap();
        server.ask_somehow(b"after");
        assert_eq!(count("make room on the disk"), 1, "{}", server.log());
    }
}

fn children_go_when_the_supervisor_does() {
    let mut server = Server::start(Isolation::Process);
    let (vault, front) = (server.child("vault"), server.child("front"));
    server.supervisor.kill().unwrap();
    server.supervisor.wait().unwrap();
    eventually("vault and front are gone", || gone(vault) && gone(front));
    assert!(Path::new(&server.state("closed")).exists());
}

fn the_vault_is_walled_in() {
    let server = Server::start(Isolation::Process);
    let vault = server.child("vault");
    let limits = fs::read_to_string(format!("/proc/{vault}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"));
    let status = fs::read_to_string(format!("/proc/{vault}/status")).unwrap();
    assert!(status.contains("Seccomp:\t2"), "{status}");
    if !server.log().contains("may be swapped") {
        let locked = status.lines().find(|line| line.starts_with("VmLck")).unwrap();
        assert_ne!(locked.split_whitespace().nth(1), Some("0"));
    }
    // Its sockets are lanes and control, none of the network.
    let tcp = fs::read_to_string("/proc/net/tcp").unwrap() + &fs::read_to_string("/proc/net/tcp6").unwrap();
    let sockets = fs::read_dir(format!("/proc/{vault}/fd")).unwrap();
    let sockets: Vec<_> = sockets
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|to| Some(to.to_str()?.strip_prefix("socket:[")?.trim_end_matches(']').to_owned()))
        .collect();
    assert!(sockets.len() >= 3);
    assert!(!sockets.iter().any(|inode| tcp.split_whitespace().any(|word| word == inode)));

    assert_eq!(server.try_in_vault(WRITE, &server.state("new")).unwrap(), "done");
    assert_eq!(server.try_in_vault(READ, &server.state("new")).unwrap(), "done");
    if !server.log().contains("no Landlock") {
        let outside = server.folder.path().join("elsewhere");
        for (call, path) in [(READ, "/etc/passwd"), (WRITE, outside.to_str().unwrap())] {
            let answer = server.try_in_vault(call, path).unwrap();
            assert!(answer.contains("denied"), "{path}: {answer}");
        }
    }
    assert!(server.try_in_vault(RUN, "/bin/true").unwrap().contains("not permitted"));
    // A socket ends the vault, and another takes its place.
    assert!(server.try_in_vault(CONNECT, &server.address.to_string()).is_err());
    eventually("the vault is gone", || gone(vault));
    server.ask_somehow(b"there is another");
}

fn the_front_is_walled_in() {
    // With both in one process the same probe shows what the front's walls are.
    let server = Server::start(Isolation::Thread);
    assert_eq!(server.try_in_vault(WRITE, &server.state("new")).unwrap(), "done");
    if !server.log().contains("no Landlock") {
        assert!(server.try_in_vault(READ, "/etc/passwd").unwrap().contains("denied"));
    }
    assert!(server.try_in_vault(RUN, "/bin/true").unwrap().contains("not permitted"));
    let front = server.child("front");
    assert!(server.try_in_vault(CONNECT, &server.address.to_string()).is_err());
    eventually("the front is gone", || gone(front));
    server.ask_somehow(b"there is another");
}

fn a_nodes_front_calls_its_ports_and_no_others() {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [node, other] = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
    let change = |config: &mut Config| config.cluster.ports = vec![node.port()];
    let server = Server::launch(Isolation::Thread, change, |_| {});
    server.wait_for_log("ready");
    assert_eq!(server.try_in_vault(CONNECT, &node.to_string()).unwrap(), "done");
    assert!(server.try_in_vault(CONNECT, &other.to_string()).unwrap().contains("denied"));
    for (call, argument) in [(DATAGRAM, String::new()), (FAST, other.to_string())] {
        let front = server.child("front");
        assert!(server.try_in_vault(call, &argument).is_err(), "{call}");
        eventually("the front is gone", || gone(front));
        server.ask_somehow(b"there is another");
    }
}

fn no_node_without_landlock() {
    let nobody = |_: &mut Config| {};
    let serves = Server::launch(Isolation::Process, nobody, |command| {
        command.env(WITHOUT_LANDLOCK, "1");
    });
    serves.wait_for_log("ready");
    assert!(serves.log().contains("no Landlock"));
    let node = |config: &mut Config| config.cluster.ports = vec![7373];
    let mut refuses = Server::launch(Isolation::Process, node, |command| {
        command.env(WITHOUT_LANDLOCK, "1");
    });
    eventually("it ends", || gone(refuses.supervisor.id()));
    assert!(!refuses.supervisor.wait().unwrap().success());
    refuses.wait_for_log("cluster.ports");
}

fn a_server_that_cannot_start_says_so_and_ends() {
    type Change = (fn(&mut Config), &'static str);
    let changes: [Change; 2] = [
        (|config| config.tls.key = "/nonexistent/key".into(), "/nonexistent/key"),
        (|config| fs::remove_file(config.state.join("alice.der")).unwrap(), "the vault ended"),
    ];
    for (change, hint) in changes {
        let mut server = Server::launch(Isolation::Process, change, |_| {});
        eventually("it ends", || gone(server.supervisor.id()));
        assert!(!server.supervisor.wait().unwrap().success());
        server.wait_for_log(hint);
    }
}

fn systemd_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let server = Server::start_with(Isolation::Process, |command| {
        command.env("NOTIFY_SOCKET", &path);
    });
    let hear = || {
        let mut message = [0; 100];
        let length = systemd.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..length]).trim().to_owned()
    };
    assert_eq!(hear(), "READY=1");
    server.ask_somehow(b"ready it is");
    server.signal(server.supervisor.id(), Signal::TERM);
    assert_eq!(hear(), "STOPPING=1");
}
