//! Three servers as real processes on loopback, made one cluster by `hsmctl`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]
#![allow(clippy::print_stderr)]

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread::{sleep, spawn},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use serde_json::Value;
use strongroom_server::cluster::{Document, Membership};
use strongroom_shared::{
    message::{ClusterState, Done, InstallMembership, Introduce, Introduction, ReadCluster},
    wire::{ALPN, CallId, HEADER, Header, decode_body, encode_reply},
};

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

    let early = a.state.join("early");
    done(a.run(&["partition", "create", "p"]));
    done(a.run(&["client", "add", "early", "--partition", "p", "--out", early.to_str().unwrap()]));
    assert!(done(a.run(&["cluster", "list"])).contains("belongs to no cluster"));
    assert!(not_done(a.run(&["cluster", "join", &b.admin(), "--name", "b"])).contains("cluster init"));
    let made = a.json(&["cluster", "init", "--name", "a", "--yes"]);
    assert_eq!((made["version"].as_u64(), made["members"].as_str()), (Some(1), Some("a")));
    let again = not_done(a.run(&["cluster", "init", "--name", "a", "--yes"]));
    assert!(again.contains("belongs to cluster"), "{again}");
    let unasked = not_done(a.run(&["cluster", "join", &b.admin(), "--name", "b"]));
    assert!(unasked.contains("+ node b") && unasked.contains("--yes"), "{unasked}");
    done(a.run(&["cluster", "join", &b.admin(), "--name", "b", "--yes"]));
    let joined = a.json(&["cluster", "join", &c.admin(), "--name", "c", "--yes"]);
    assert_eq!((joined["version"].as_u64(), joined["members"].as_str()), (Some(3), Some("a, b, c")));
    assert_eq!(a.list(), all_well(&["a", "b", "c"], 3), "it waits until all are under the new document");
    // Said again, nothing changes.
    assert_eq!(a.json(&["cluster", "join", &c.admin(), "--name", "c"])["version"], 3);
    for node in [&a, &b, &c] {
        eventually("everybody has found everybody", || node.list() == all_well(&["a", "b", "c"], 3));
    }

    a_client_is_told_who_the_nodes_are(&[&a, &b, &c], &early);

    // One that died is told so, and found again.
    c.signal(Signal::KILL);
    eventually("c is missed", || !a.list()[2].1);
    let human = done(a.run(&["cluster", "list"]));
    assert!(human.lines().any(|line| line.starts_with("c ") && line.contains("no ")), "{human}");
    let status = a.json(&["status"]);
    assert_eq!((status["nodes"].as_u64(), status["nodes_well"].as_u64()), (Some(3), Some(2)), "{status}");
    assert!(status["nodes_not_well"].as_str().unwrap().starts_with("node c: "), "{status}");
    c.start();
    for node in [&a, &b, &c] {
        eventually("c is back", || node.list() == all_well(&["a", "b", "c"], 3));
    }

    // Whoever is not listed cannot change it: b's administrator has no key in the document.
    let refused = not_done(b.run(&["cluster", "remove", "c"]));
    assert!(refused.contains("cluster.key") && refused.contains("admit-administrator"), "{refused}");
    let key = b.state.join("admin/cluster.key");
    fs::copy(b.state.join("admin/client.key"), &key).unwrap();
    let refused = not_done(b.run(&["cluster", "remove", "c"]));
    assert!(refused.contains("cluster.key") && refused.contains("neither client.key nor"), "{refused}");
    fs::remove_file(&key).unwrap();
    let itself = not_done(a.run(&["cluster", "remove", "a"]));
    assert!(itself.contains("another node"), "{itself}");
    let removed = a.json(&["cluster", "remove", "c", "--folder", &c.admin(), "--yes"]);
    assert_eq!(removed["version"], 4);
    for node in [&a, &b] {
        eventually("c is out", || node.list() == all_well(&["a", "b"], 4));
    }
    let records = a.json(&["audit", "tail", "-n", "1000"]);
    let changes = records.as_array().unwrap().iter().filter(|record| record["act"] == "InstallMembership");
    assert!(changes.clone().all(|record| record["outcome"] == "done"));
    assert_eq!(changes.count(), 5, "begun, two joined, one of them said again, one removed");
    // The one that was removed begins anew, at version 1, and is found.
    done(c.run(&["cluster", "init", "--name", "c", "--yes"]));
    done(a.run(&["cluster", "remove", "b", "--folder", &b.admin(), "--yes"]));
    done(c.run(&["cluster", "join", &b.admin(), "--name", "b", "--yes"]));
    for node in [&b, &c] {
        eventually("the new cluster stands", || node.list() == all_well(&["b", "c"], 2));
    }
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

/// A new client at each node, and one that was made `early`, before there was a cluster, when it is admitted again.
fn a_client_is_told_who_the_nodes_are(servers: &[&Server], early: &Path) {
    let identities: Vec<_> = servers
        .iter()
        .map(|server| {
            let fingerprint = fs::read_to_string(server.state.join("node.fingerprint"));
            let fingerprint =
                fingerprint.or_else(|_| fs::read_to_string(server.state.join("admin/node.fingerprint")));
            (server.name.to_owned(), fingerprint.unwrap().trim().to_owned())
        })
        .collect();
    let check = |folder: &Path| {
        let told = strongroom_identity::Nodes::read(&folder.join("cluster.nodes")).unwrap();
        assert_eq!(told.partition.as_deref(), Some("p"));
        let known = told.nodes.iter().map(|(name, key)| {
            let digits = strongroom_server::certificates::fingerprint(key).map(|byte| format!("{byte:02x}"));
            (name.clone(), digits.concat())
        });
        assert_eq!(known.collect::<Vec<_>>(), identities);
        let settings = fs::read_to_string(folder.join("strongroom.toml")).unwrap();
        assert!(settings.contains("\ncluster_nodes = \"cluster.nodes\"\n"), "{settings}");
    };
    assert!(!early.join("cluster.nodes").exists());
    for _ in 0..2 {
        done(servers[0].run(&["client", "admit", early.to_str().unwrap()]));
        check(early);
    }
    for server in servers {
        if server.name != "a" {
            done(server.run(&["partition", "create", "p"]));
        }
        let out = server.state.join("late");
        done(server.run(&["client", "add", "late", "--partition", "p", "--out", out.to_str().unwrap()]));
        check(&out);
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
    done(elsewhere.run(&["cluster", "init", "--name", "e", "--yes"]));
    let refused = not_done(elsewhere.run(&["cluster", "join", &closed.admin(), "--name", "x"]));
    assert!(refused.contains("[cluster]"), "{refused}");
}

/// What a front that has gone over does with a call: it says something of its own, or changes what the vault says.
type Lie = dyn Fn(&Header, Option<&[u8]>) -> Option<Vec<u8>> + Send + Sync;

/// A front that has gone over stands before the true one, with the server's own TLS key. Gives an administrator's
/// folder that leads to it. The lie is asked before a call goes on, and with the answer's body after.
fn liar(
    server: &Server,
    folder: &Path,
    lie: impl Fn(&Header, Option<&[u8]>) -> Option<Vec<u8>> + Send + Sync + 'static,
) -> String {
    let lie: Arc<Lie> = Arc::new(lie);
    let tls = server.state.join("tls");
    let admin = server.state.join("admin");
    let read =
        |path: &Path| CertificateDer::pem_file_iter(path).unwrap().map(Result::unwrap).collect::<Vec<_>>();
    let key = |path: &Path| PrivateKeyDer::from_pem_file(path).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut accepts = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(read(&tls.join("server.pem")), key(&tls.join("server.key")))
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(read(&tls.join("ca.pem")));
    let mut calls = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(read(&admin.join("client.pem")), key(&admin.join("client.key")))
        .unwrap();
    accepts.alpn_protocols = vec![ALPN.to_vec()];
    calls.alpn_protocols = vec![ALPN.to_vec()];
    let (accepts, calls, port) = (Arc::new(accepts), Arc::new(calls), server.port);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let here = listener.local_addr().unwrap().port();
    spawn(move || {
        while let Ok((tcp, _)) = listener.accept() {
            let (accepts, calls, lie) = (Arc::clone(&accepts), Arc::clone(&calls), Arc::clone(&lie));
            spawn(move || {
                let mut client = StreamOwned::new(ServerConnection::new(accepts).unwrap(), tcp);
                let name = ServerName::try_from("localhost").unwrap();
                let there = TcpStream::connect(("127.0.0.1", port)).unwrap();
                let mut server = StreamOwned::new(ClientConnection::new(calls, name).unwrap(), there);
                // Until one of them goes.
                while let Some((asked, request)) = frame(&mut client) {
                    let reply = lie(&asked, None).or_else(|| {
                        server.write_all(&request).ok()?;
                        let (_, reply) = frame(&mut server)?;
                        Some(lie(&asked, Some(&reply[HEADER..])).unwrap_or(reply))
                    });
                    let Some(reply) = reply else { return };
                    client.write_all(&reply).unwrap();
                }
            });
        }
    });
    let lying = folder.join(format!("by-way-of-{here}"));
    fs::create_dir(&lying).unwrap();
    for file in fs::read_dir(admin).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), lying.join(file.file_name())).unwrap();
    }
    let settings = fs::read_to_string(lying.join("strongroom.toml")).unwrap();
    let changed = settings.replace(&port.to_string(), &here.to_string());
    assert_ne!(settings, changed);
    fs::write(lying.join("strongroom.toml"), changed).unwrap();
    lying.to_str().unwrap().into()
}

fn frame(stream: &mut impl Read) -> Option<(Header, Vec<u8>)> {
    let mut head = [0; HEADER];
    stream.read_exact(&mut head).ok()?;
    let header = Header::decode(&head, u32::MAX).unwrap();
    let mut frame = head.to_vec();
    frame.resize(HEADER + header.length as usize, 0);
    stream.read_exact(&mut frame[HEADER..]).ok()?;
    Some((header, frame))
}

/// The same call's reply with another introduction in it.
fn instead(asked: &Header, said: &Introduction) -> Vec<u8> {
    let mut reply = Vec::new();
    encode_reply::<Introduce>(&mut reply, asked.id, said);
    reply
}

/// Nobody has signed this.
fn forged(document: &[u8], change: impl Fn(&mut Membership)) -> Vec<u8> {
    let mut membership = Document::read(document).unwrap().membership().clone();
    change(&mut membership);
    membership.sign(&[]).unwrap()
}

fn ghost(membership: &mut Membership) {
    let mut ghost = membership.members[0].clone();
    ghost.name = "ghost".into();
    ghost.identity[0] ^= 1;
    ghost.sealing[0] ^= 1;
    ghost.id.0[0] ^= 1;
    membership.members.push(ghost);
    membership.members.sort_by(|one, other| one.name.cmp(&other.name));
    membership.version += 1;
}

#[test]
fn a_lying_front_gets_nothing_signed() {
    let folder = tempfile::tempdir().unwrap();
    let ports = free_ports::<2>();
    let mut a = Server::create(folder.path(), "a", ports[0], &ports);
    let mut b = Server::create(folder.path(), "b", ports[1], &ports);
    a.start();
    b.start();
    let introduction = |asked: &Header, body: Option<&[u8]>| -> Option<Introduction> {
        (asked.call == CallId::Introduce as u16).then(|| decode_body(body?).ok()).flatten()
    };

    // Already at the beginning: keys of its own.
    let other_keys = liar(&a, folder.path(), move |asked, body| {
        let said = introduction(asked, body)?;
        Some(instead(asked, &Introduction { sealing: vec![9; 32], ..said }))
    });
    let refused = not_done(hsmctl(&["--admin", &other_keys, "cluster", "init", "--name", "a", "--yes"]));
    assert!(refused.contains("not the word of the vault"), "{refused}");
    assert!(!Path::new(&other_keys).join("cluster.document").exists());

    done(a.run(&["cluster", "init", "--name", "a", "--yes"]));
    done(a.run(&["cluster", "join", &b.admin(), "--name", "b", "--yes"]));

    // A membership of its own making, and an earlier answer said again.
    let ghosts = liar(&a, folder.path(), move |asked, body| {
        let said = introduction(asked, body)?;
        let document = forged(&said.document, ghost);
        Some(instead(asked, &Introduction { document, ..said }))
    });
    let first = Mutex::new(None);
    let again = liar(&a, folder.path(), move |asked, body| {
        let said = introduction(asked, body)?;
        let mut first = first.lock().unwrap();
        Some(instead(asked, first.get_or_insert(said)))
    });
    hsmctl(&["--admin", &again, "cluster", "remove", "ghost", "--yes"]);
    for (lying, name) in [(&ghosts, "ghost"), (&again, "b")] {
        let before = fs::read(Path::new(lying).join("cluster.document")).unwrap();
        let refused = not_done(hsmctl(&["--admin", lying, "cluster", "remove", name, "--yes"]));
        assert!(refused.contains("not the word of the vault"), "{refused}");
        assert_eq!(fs::read(Path::new(lying).join("cluster.document")).unwrap(), before);
    }

    // What it shows in the list does not follow from what the folder knows.
    let shown = liar(&a, folder.path(), |asked, body| {
        if asked.call != CallId::ReadCluster as u16 {
            return None;
        }
        let state: ClusterState = decode_body(body?).ok()?;
        let mut reply = Vec::new();
        let document = forged(&state.document, ghost);
        encode_reply::<ReadCluster>(&mut reply, asked.id, &ClusterState { document, ..state });
        Some(reply)
    });
    let refused = not_done(hsmctl(&["--admin", &shown, "cluster", "list"]));
    assert!(refused.contains("does not follow"), "{refused}");

    // A change that it keeps to itself is not made a second time in another form: the vault gets it with the next one.
    let swallowed = liar(&a, folder.path(), |asked, body| {
        (body.is_none() && asked.call == CallId::InstallMembership as u16).then(|| {
            let mut reply = Vec::new();
            encode_reply::<InstallMembership>(&mut reply, asked.id, &Done {});
            reply
        })
    });
    done(hsmctl(&["--admin", &swallowed, "cluster", "remove", "b", "--yes"]));
    assert_eq!(a.json(&["cluster", "list"])[0]["version"], 2);
    fs::copy(Path::new(&swallowed).join("cluster.document"), a.state.join("admin/cluster.document")).unwrap();
    assert_eq!(a.json(&["cluster", "join", &b.admin(), "--name", "b", "--yes"])["version"], 4);

    // A folder that does not know its node takes nobody's word, and is told what to do.
    let known = fs::read_to_string(a.state.join("admin/node.fingerprint")).unwrap();
    assert!(a.log().contains(known.trim()), "it stands in the log");
    let second = folder.path().join("second");
    done(a.run(&["client", "add", "second", "--admin", "--out", second.to_str().unwrap()]));
    assert_eq!(fs::read_to_string(second.join("node.fingerprint")).unwrap(), known);
    fs::remove_file(a.state.join("admin/node.fingerprint")).unwrap();
    let refused = not_done(a.run(&["cluster", "remove", "b", "--yes"]));
    assert!(refused.contains("cluster pin"), "{refused}");
    let wrong = "0".repeat(64);
    assert!(not_done(a.run(&["cluster", "pin", &wrong])).contains("not the word of the vault"));
    done(a.run(&["cluster", "pin", known.trim()]));
    done(a.run(&["cluster", "remove", "b", "--yes"]));
}
