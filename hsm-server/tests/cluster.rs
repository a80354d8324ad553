//! Three servers as real processes on loopback, made one cluster by `hsmctl`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]
#![allow(clippy::print_stderr)]

use std::{
    fs::{self, File},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// What no healthy machine needs.
const PATIENCE: Duration = Duration::from_secs(40);

/// A server with its state folder.
struct Server {
    name: &'static str,
    state: PathBuf,
    port: u16,
    child: Option<Child>,
}

fn hsmctl(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hsmctl")).args(words).env_remove("STRONGROOM_ADMIN").output().unwrap()
}

fn done(output: Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

fn not_done(output: Output) -> String {
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

impl Server {
    fn create(folder: &Path, name: &'static str, port: u16, cluster: &[u16]) -> Self {
        let state = folder.join(name);
        let listen = format!("127.0.0.1:{port}");
        let mut words = vec!["init", "--state", state.to_str().unwrap(), "--listen", &listen];
        let ports: Vec<_> = cluster.iter().map(u16::to_string).collect();
        ports.iter().for_each(|port| words.extend(["--cluster-port", port]));
        done(hsmctl(&words));
        Self { name, state, port, child: None }
    }

    /// Puts front and vault into one process.
    fn in_one_process(self) -> Self {
        let path = self.state.join("server.toml");
        let text = fs::read_to_string(&path).unwrap();
        let changed = text.replace("isolation = \"process\"", "isolation = \"thread\"");
        assert_ne!(text, changed);
        fs::write(path, changed).unwrap();
        self
    }

    fn start(&mut self) {
        let log = File::options().create(true).append(true).open(self.state.join("server.log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_hsm-server"))
            .arg("--config")
            .arg(self.state.join("server.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        eventually(&format!("{} listens", self.name), || {
            TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        });
    }

    fn signal(&mut self, signal: Signal) {
        if let Some(mut child) = self.child.take() {
            kill_process(Pid::from_child(&child), signal).unwrap();
            child.wait().unwrap();
        }
    }

    fn admin(&self) -> String {
        self.state.join("admin").to_str().unwrap().into()
    }

    fn run(&self, words: &[&str]) -> Output {
        hsmctl(&[&["--admin", &self.admin()], words].concat())
    }

    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&done(self.run(&[&["--json"], words].concat()))).unwrap()
    }

    /// How it finds the nodes: name, reachable, sealed, version.
    fn list(&self) -> Vec<(String, bool, bool, u64)> {
        let rows = self.json(&["cluster", "list"]);
        let row = |row: &Value| {
            let flag = |name: &str| row[name].as_bool().unwrap();
            (
                row["name"].as_str().unwrap().into(),
                flag("reachable"),
                flag("sealed"),
                row["version"].as_u64().unwrap_or(0),
            )
        };
        rows.as_array().unwrap().iter().map(row).collect()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.state.join("server.log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signal(Signal::TERM);
        if std::thread::panicking() {
            eprintln!("{}:\n{}", self.name, self.log());
        }
    }
}

fn eventually(what: &str, so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(50));
    }
}

fn all_well(names: &[&str], version: u64) -> Vec<(String, bool, bool, u64)> {
    names.iter().map(|name| ((*name).into(), true, true, version)).collect()
}

#[test]
fn three_servers_become_one_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let ports = free_ports::<3>();
    let mut a = Server::create(folder.path(), "a", ports[0], &ports);
    let mut b = Server::create(folder.path(), "b", ports[1], &ports).in_one_process();
    let mut c = Server::create(folder.path(), "c", ports[2], &ports);
    [&mut a, &mut b, &mut c].into_iter().for_each(Server::start);

    assert!(done(a.run(&["cluster", "list"])).contains("belongs to no cluster"));
    assert!(not_done(a.run(&["cluster", "join", &b.admin(), "--name", "b"])).contains("cluster init"));
    let made = a.json(&["cluster", "init", "--name", "a"]);
    assert_eq!((made["version"].as_u64(), made["members"].as_str()), (Some(1), Some("a")));
    let again = not_done(a.run(&["cluster", "init", "--name", "a"]));
    assert!(again.contains("belongs to cluster"), "{again}");
    done(a.run(&["cluster", "join", &b.admin(), "--name", "b"]));
    let joined = a.json(&["cluster", "join", &c.admin(), "--name", "c"]);
    assert_eq!((joined["version"].as_u64(), joined["members"].as_str()), (Some(3), Some("a, b, c")));
    // Said again, nothing changes.
    assert_eq!(a.json(&["cluster", "join", &c.admin(), "--name", "c"])["version"], 3);
    for node in [&a, &b, &c] {
        eventually("everybody has found everybody", || node.list() == all_well(&["a", "b", "c"], 3));
    }

    // One that died is told so, and found again.
    c.signal(Signal::KILL);
    eventually("c is missed", || !a.list()[2].1);
    let human = done(a.run(&["cluster", "list"]));
    assert!(human.lines().any(|line| line.starts_with("c ") && line.contains("no ")), "{human}");
    c.start();
    for node in [&a, &b, &c] {
        eventually("c is back", || node.list() == all_well(&["a", "b", "c"], 3));
    }

    // Whoever is not listed cannot change it: b's administrator has no key in the document.
    let refused = not_done(b.run(&["cluster", "remove", "c"]));
    assert!(refused.contains("cluster.key"), "{refused}");
    let itself = not_done(a.run(&["cluster", "remove", "a"]));
    assert!(itself.contains("another node"), "{itself}");
    let removed = a.json(&["cluster", "remove", "c", "--folder", &c.admin()]);
    assert_eq!(removed["version"], 4);
    for node in [&a, &b] {
        eventually("c is out", || node.list() == all_well(&["a", "b"], 4));
    }
    let records = a.json(&["audit", "tail", "-n", "1000"]);
    let changes = records.as_array().unwrap().iter().filter(|record| record["act"] == "InstallMembership");
    assert_eq!(changes.filter(|record| record["outcome"] == "refused").count(), 1);
    for node in [&a, &b, &c] {
        assert_eq!(node.json(&["audit", "verify"])["whole"], true);
    }
    for node in [&mut a, &mut b, &mut c] {
        let child = node.child.as_mut().unwrap();
        kill_process(Pid::from_child(child), Signal::TERM).unwrap();
        assert!(child.wait().unwrap().success(), "{} ends in order", node.name);
        node.child = None;
    }
}

#[test]
fn a_server_that_may_call_nobody_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let [port, other] = free_ports::<2>();
    let mut closed = Server::create(folder.path(), "closed", port, &[]);
    let mut elsewhere = Server::create(folder.path(), "elsewhere", other, &[port.wrapping_add(1).max(1)]);
    closed.start();
    elsewhere.start();
    let refused = not_done(closed.run(&["cluster", "init", "--name", "x"]));
    assert!(refused.contains("[cluster]") && refused.contains("restart"), "{refused}");
    done(elsewhere.run(&["cluster", "init", "--name", "e"]));
    let refused = not_done(elsewhere.run(&["cluster", "join", &closed.admin(), "--name", "x"]));
    assert!(refused.contains("[cluster]"), "{refused}");
}
