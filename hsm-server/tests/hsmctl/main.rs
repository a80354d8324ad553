//! `hsmctl` as a process, against a real front and a vault that keeps everything in a few vectors.
//!
//! This program is its own `hsmctl`: started with `AS_HSMCTL` it is nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]
#![allow(clippy::print_stdout)]

#[path = "../support/mod.rs"]
mod support;
mod toy;

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Output, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use strongroom_identity::MandateKey;
use strongroom_server::{
    certificates::{Authority, identity},
    config::{Config, Isolation},
    front::{Front, Link},
    hsmctl,
    lane::Keeper,
    process::Failure,
    store::root_key,
    vault::{Initialised, Requests},
};
use strongroom_shared::secret::Secret;
use support::{Echo, now};
use tempfile::TempDir;
use toy::{KEY, RIPE, STUCK, Toy};

fn main() -> ExitCode {
    if env::var_os("AS_HSMCTL").is_some() {
        return hsmctl::main(initialise);
    }
    let tests: [(&str, fn()); 10] = [
        ("init_makes_a_server_and_never_over_another", init_makes_a_server_and_never_over_another),
        ("an_administrators_day", an_administrators_day),
        ("clients_get_folders_that_work", clients_get_folders_that_work),
        ("clients_sign_mandates_with_a_key_of_their_own", clients_sign_mandates_with_a_key_of_their_own),
        ("a_folder_made_before_gets_its_key", a_folder_made_before_gets_its_key),
        ("certificates_are_renewed", certificates_are_renewed),
        ("whatever_fails_says_what_to_do", whatever_fails_says_what_to_do),
        ("a_silent_server_is_not_waited_for", a_silent_server_is_not_waited_for),
        ("following_survives_a_restart", following_survives_a_restart),
        ("usage_is_checked", usage_is_checked),
    ];
    for (name, test) in tests {
        test();
        println!("test {name} ... ok");
    }
    ExitCode::SUCCESS
}

/// A store that is two files.
fn initialise(config: &Config, key: Secret<[u8; 32]>, requests: &Requests) -> Result<Initialised, Failure> {
    assert_eq!(root_key::read(&config.root_key.file)?.expose(), key.expose());
    if requests.names.contains(&"fail.example".to_owned()) {
        return Err("as the test wants it".into());
    }
    let pair = Authority::create("CA", now(), 30)?;
    fs::write(config.state.join("ca.der"), &pair.certificate)?;
    fs::write(config.state.join("ca.key"), &*pair.key)?;
    let ca = Authority::load(&pair.certificate, &pair.key)?;
    let administrator =
        ca.issue_client(&requests.administrator, "admin", None, now(), requests.days)?.certificate;
    fs::write(config.state.join("admin.der"), &administrator)?;
    let server = ca.issue_server(&requests.server, &requests.names, now(), requests.days)?.certificate;
    Ok(Initialised { authority: pair.certificate, server, administrator, node: [0; 32] })
}

/// A state folder, and the server that it is for.
struct House {
    place: TempDir,
    state: PathBuf,
    front: Option<Front>,
}

/// Starts a front, as soon as its port is free: a client that tries it may hold it for a moment, as its own.
fn listening(config: &Config) -> Front {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        match Front::start(config) {
            Ok(front) => return front,
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
        thread::sleep(Duration::from_millis(50));
    }
}

impl House {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let state = place.path().join("state");
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let listen = format!("127.0.0.1:{port}");
        done(&hsmctl(&["init", "--state", state.to_str().unwrap(), "--listen", &listen]));
        let mut house = Self { place, state, front: None };
        house.serve(5);
        house
    }

    /// Starts the server, whose audit log has so many records.
    fn serve(&mut self, records: u64) {
        let mut config = Config::load(&self.state.join("server.toml")).unwrap();
        config.isolation = Isolation::Thread;
        let file = |name: &str| fs::read(self.state.join(name)).unwrap();
        let echo = Echo::default();
        echo.let_in(&file("admin.der"));
        let ca = Authority::load(&file("ca.der"), &file("ca.key")).unwrap();
        let toy = Toy::new(echo, ca, records);
        let front = listening(&config);
        let keeper = Keeper::new(Arc::new(toy), &config).unwrap();
        front.link((0..front.lane_count()).map(|_| Link::InProcess(keeper.clone())).collect());
        self.front = Some(front);
    }

    fn path(&self, name: &str) -> String {
        self.place.path().join(name).to_str().unwrap().to_owned()
    }

    fn run(&self, words: &[&str]) -> Output {
        let admin = self.state.join("admin");
        hsmctl(&[&["--admin", admin.to_str().unwrap()], words].concat())
    }

    fn ask(&self, words: &[&str]) -> String {
        done(&self.run(words))
    }

    fn ask_json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.ask(&[words, &["--json"]].concat())).unwrap()
    }
}

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(words).env("AS_HSMCTL", "1").env_remove("STRONGROOM_ADMIN");
    command
}

fn hsmctl(words: &[&str]) -> Output {
    command(words).output().unwrap()
}

fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn not_done(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn init_makes_a_server_and_never_over_another() {
    let place = tempfile::tempdir().unwrap();
    let state = place.path().join("state");
    let shown = state.to_str().unwrap();
    let words =
        ["init", "--state", shown, "--listen", "0.0.0.0:7777", "--name", "hsm.example", "--name", "10.1.1.1"];
    done(&hsmctl(&words));
    assert_eq!(mode(&state), 0o700);
    for secret in ["root.key", "tls/server.key", "admin/client.key"] {
        assert_eq!(mode(&state.join(secret)), 0o600, "{secret}");
    }
    let config = Config::load(&state.join("server.toml")).unwrap();
    assert_eq!(config.listen, "0.0.0.0:7777".parse().unwrap());
    assert_eq!(config.names[..3], ["hsm.example", "10.1.1.1", "localhost"]);
    let settings = fs::read_to_string(state.join("admin/strongroom.toml")).unwrap();
    assert!(settings.contains("127.0.0.1:7777") && settings.contains("hsm.example"), "{settings}");

    let before = fs::read(state.join("root.key")).unwrap();
    not_done(&hsmctl(&words));
    assert_eq!(fs::read(state.join("root.key")).unwrap(), before);
    // What fails half-way leaves nothing.
    let other = place.path().join("other");
    let error = not_done(&hsmctl(&["init", "--state", other.to_str().unwrap(), "--name", "fail.example"]));
    assert!(error.contains("as the test wants it"));
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
}

fn an_administrators_day() {
    let house = House::new();
    assert!(house.ask(&["partition", "create", "payments"]).contains("0123456789abcdef"));
    assert!(house.ask(&["partition", "list"]).starts_with("NAME      SERIAL"));
    assert_eq!(house.ask_json(&["partition", "list"])[0]["objects"], 3);
    assert!(house.ask(&["key", "list", "payments"]).contains("EC"));
    let id = house.ask_json(&["key", "list", "payments"])[0]["id"].as_str().unwrap().to_owned();
    let descends = house.ask_json(&["key", "list", "payments"])[0]["descends"].clone();
    assert_eq!(descends, format!("m/0/7 of {KEY}"));
    house.ask(&["freeze", "payments", "--key", &id]);
    assert_eq!(house.ask_json(&["partition", "list"])[0]["frozen"], true);
    house.ask(&["thaw", "payments"]);
    assert_eq!(house.ask_json(&["partition", "list"])[0]["frozen"], false);

    let policy = house.path("policy.toml");
    fs::write(&policy, "# a policy\n").unwrap();
    house.ask(&["policy", "set", "payments", &policy]);
    assert_eq!(house.ask(&["policy", "show", "payments"]), "# a policy\n");
    let admin = house.state.join("admin");
    let mut piped = command(&["--admin", admin.to_str().unwrap(), "policy", "set", "payments", "-"]);
    let mut piped = piped.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    piped.stdin.take().unwrap().write_all(b"# another\n").unwrap();
    assert!(piped.wait().unwrap().success());
    assert_eq!(house.ask_json(&["policy", "show", "payments"])["text"], "# another\n");
    fs::write(&policy, " \n").unwrap();
    let error = not_done(&house.run(&["policy", "set", "payments", &policy]));
    assert!(error.contains("hsmctl policy clear payments"), "{error}");
    house.ask(&["policy", "clear", "payments"]);
    assert!(house.ask(&["policy", "show", "payments"]).starts_with("no policy: the keys' attributes"));

    let tail = house.ask(&["audit", "tail"]);
    assert_eq!(tail.lines().count(), 6);
    assert!(tail.contains("2023-11-14T22:13:20Z") && tail.contains("Sign"), "{tail}");
    assert_eq!(house.ask_json(&["audit", "tail", "-n", "3"])[0]["sequence"], 1);
    assert_eq!(house.ask_json(&["audit", "verify"])["records"], 5);
    assert!(house.ask(&["status"]).contains("certificate not after"));
    assert_eq!(house.ask_json(&["status"])["audit_records"], 5);
    let status = house.ask_json(&["status"]);
    assert_eq!((&status["waiting_shares"], &status["cluster_version"]), (&5.into(), &3.into()));
    assert_eq!((&status["nodes"], &status["nodes_well"]), (&3.into(), &1.into()));
    assert_eq!(status["nodes_not_well"], "node b: no answer; node c: it has not been heard of yet");
    assert_eq!((&status["shared_keys"], &status["former_shares_kept"]), (&6.into(), &2.into()));
    assert_eq!((&status["shares_lost"], &status["waiting_orders"]), (&1.into(), &4.into()));

    assert!(not_done(&house.run(&["partition", "delete", "payments"])).contains("--yes"));
    house.ask(&["partition", "delete", "payments", "--yes"]);
    assert_eq!(house.ask_json(&["partition", "list"]), Value::Array(Vec::new()));
}

fn clients_get_folders_that_work() {
    let house = House::new();
    let out = house.path("alice");
    let added =
        house.run(&["client", "add", "alice", "--partition", "payments", "--out", &out, "--days", "7"]);
    done(&added);
    assert!(String::from_utf8_lossy(&added.stderr).contains("127.0.0.1"), "it leads to this machine only");
    assert_eq!(mode(Path::new(&out)), 0o700);
    assert_eq!(mode(&Path::new(&out).join("client.key")), 0o600);
    let certificate = pem::parse(fs::read(Path::new(&out).join("client.pem")).unwrap()).unwrap();
    let who = identity(certificate.contents()).unwrap();
    assert_eq!((who.client.as_str(), who.partition.as_deref()), ("alice", Some("payments")));
    // It is let in, and is no administrator.
    assert!(not_done(&hsmctl(&["--admin", &out, "status"])).contains("administrator's folder"));
    // Never over another.
    not_done(&house.run(&["client", "add", "bob", "--partition", "payments", "--out", &out]));
    assert_eq!(house.ask_json(&["client", "list"]).as_array().unwrap().len(), 1);

    let second = house.path("second");
    house.ask(&["client", "add", "second", "--admin", "--out", &second]);
    done(&hsmctl(&["--admin", &second, "status"]));
    house.ask(&["client", "revoke", "second"]);
    let error = not_done(&hsmctl(&["--admin", &second, "status"]));
    assert!(error.contains("does not let this certificate in"), "{error}");
    assert_eq!(house.ask_json(&["client", "list"])[1]["revoked"], true);
    assert!(house.ask(&["client", "revoke", "second"]).contains("already revoked"));
    assert_eq!(house.ask_json(&["client", "list"])[1]["certificate"], "0102030405060708");

    let remote = house.path("remote");
    let place = ["--server", "hsm.example:7373", "--server-name", "hsm.example"];
    let words = [&["client", "add", "r", "--partition", "payments", "--out", &remote][..], &place].concat();
    assert!(house.run(&words).stderr.is_empty());
    let settings = fs::read_to_string(Path::new(&remote).join("strongroom.toml")).unwrap();
    assert!(settings.contains("server = \"hsm.example:7373\"\nserver_name = \"hsm.example\""), "{settings}");
}

/// The first bytes of the key for mandates in a client's folder, as lists show it.
fn mandate_key(folder: &str) -> String {
    let key = MandateKey::read(&Path::new(folder).join("mandate.key")).unwrap().public();
    key[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn clients_sign_mandates_with_a_key_of_their_own() {
    let house = House::new();
    let (out, shared) = (house.path("alice"), house.path("shared"));
    house.ask(&["client", "add", "alice", "--partition", "payments", "--out", &out]);
    assert_eq!(mode(&Path::new(&out).join("mandate.key")), 0o600);
    let settings = fs::read_to_string(Path::new(&out).join("strongroom.toml")).unwrap();
    assert!(settings.ends_with("key = \"client.key\"\nmandate_key = \"mandate.key\"\n"), "{settings}");
    let listed = house.ask_json(&["client", "list"]);
    assert_eq!(listed[0]["mandate_keys"], mandate_key(&out));
    assert!(house.ask(&["client", "list"]).contains(&mandate_key(&out)));

    let key = format!("{out}/mandate.key");
    let add = ["client", "add", "alice", "--partition", "payments", "--out", &shared, "--mandate-key", &key];
    house.ask(&add);
    assert_eq!(mandate_key(&shared), mandate_key(&out));
    let error =
        not_done(&house.run(&[&add[..5], &["--out", &house.path("x"), "--mandate-key", "/none"]].concat()));
    assert!(error.contains("/none"), "{error}");
    let administrator = ["client", "add", "a", "--admin", "--out", &house.path("a"), "--mandate-key", &key];
    assert_eq!(house.run(&administrator).status.code(), Some(2));

    house.ask(&["client", "revoke", "alice"]);
    assert!(house.ask_json(&["client", "list"])[0]["mandate_keys"].is_null());
    // Of a client that has its certificate from another server there is only the key.
    let told = house.ask_json(&["client", "admit", &out]);
    assert_eq!((&told["name"], &told["partition"]), (&"alice".into(), &"payments".into()));
    assert_eq!(told["mandate_key"], mandate_key(&out));
    assert!(house.ask(&["client", "revoke", "alice"]).contains("revoked alice"));
    assert!(house.ask(&["client", "revoke", "alice"]).contains("already revoked"));
}

fn a_folder_made_before_gets_its_key() {
    let house = House::new();
    let out = house.path("alice");
    house.ask(&["client", "add", "alice", "--partition", "payments", "--out", &out]);
    let file = |name: &str| Path::new(&out).join(name);
    let named = fs::read_to_string(file("strongroom.toml")).unwrap();
    let before = named.replace("mandate_key = \"mandate.key\"\n", "");
    fs::write(file("strongroom.toml"), &before).unwrap();
    fs::remove_file(file("mandate.key")).unwrap();
    house.ask(&["client", "admit", &out]);
    assert_eq!(fs::read_to_string(file("strongroom.toml")).unwrap(), named);
    assert_eq!(mode(&file("mandate.key")), 0o600);
    let key = mandate_key(&out);
    house.ask(&["client", "admit", &out]);
    assert_eq!(mandate_key(&out), key, "it has one now");

    // Several tables are for whoever wrote them; the key is there, and stays.
    fs::write(file("strongroom.toml"), [before.as_str(), before.as_str()].concat()).unwrap();
    let error = not_done(&house.run(&["client", "admit", &out]));
    assert!(error.contains("each [[token]]"), "{error}");
    assert_eq!(mandate_key(&out), key);
    let admin = house.state.join("admin");
    let error = not_done(&house.run(&["client", "admit", admin.to_str().unwrap()]));
    assert!(error.contains("only applications"), "{error}");
    assert!(not_done(&house.run(&["client", "admit", "/none"])).contains("client add --partition"));
    assert!(
        not_done(&hsmctl(&["key", "generate", "--client", "/none", "--kind", "BIP340", "--label", "k"]))
            .contains("client add --partition")
    );
}

fn certificates_are_renewed() {
    let house = House::new();
    let admin = house.state.join("admin");
    let old = fs::read(admin.join("client.pem")).unwrap();
    house.ask(&["partition", "create", RIPE]);
    // In the way of whoever replaces the file, even of root: the command is done, and its user is told.
    let taken = admin.join(".client.pem.new");
    fs::create_dir_all(taken.join("taken")).unwrap();
    let output = house.run(&["status"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("ends soon and was not renewed"), "{told}");
    assert!(told.contains("client.pem") && told.contains("write the folder"), "{told}");
    assert_eq!(fs::read(admin.join("client.pem")).unwrap(), old);

    fs::remove_dir_all(taken).unwrap();
    house.ask(&["status"]);
    assert_ne!(fs::read(admin.join("client.pem")).unwrap(), old);
    assert_eq!(mode(&admin.join("client.key")), 0o600);
    house.ask(&["status"]);

    let renewed = house.ask_json(&["server", "renew", "--days", "7"]);
    assert_eq!(renewed["certificate"], "0102030405060708");
}

fn whatever_fails_says_what_to_do() {
    let house = House::new();
    assert!(not_done(&hsmctl(&["status"])).contains("STRONGROOM_ADMIN"));
    let error: Value = serde_json::from_str(&not_done(&hsmctl(&["--json", "status"]))).unwrap();
    assert!(
        error["error"] == "which server?" && error["advice"].as_str().unwrap().contains("STRONGROOM_ADMIN")
    );
    assert!(not_done(&hsmctl(&["--admin", "/nonexistent", "status"])).contains("hsmctl init"));
    assert!(not_done(&house.run(&["policy", "show", "nobody"])).contains("hsmctl partition list"));
    assert!(not_done(&house.run(&["freeze", "p", "--key", "xyz"])).contains("hsmctl key list"));
    house.ask(&["partition", "create", "tampered"]);
    let error = not_done(&house.run(&["audit", "verify"]));
    assert!(error.contains("record 4") && error.contains("backup"), "{error}");
    // A server that is not there, and one that is another.
    let other = House::new();
    let stray = house.path("stray");
    fs::create_dir(&stray).unwrap();
    for name in ["client.pem", "client.key", "ca.pem", "strongroom.toml"] {
        fs::copy(house.state.join("admin").join(name), Path::new(&stray).join(name)).unwrap();
    }
    let settings = fs::read_to_string(other.state.join("admin/strongroom.toml")).unwrap();
    fs::write(Path::new(&stray).join("strongroom.toml"), settings).unwrap();
    assert!(not_done(&hsmctl(&["--admin", &stray, "status"])).contains("not the server it should be"));
    let settings = "[[token]]\nserver = \"127.0.0.1:1\"\nca = \"ca.pem\"\ncertificate = \"client.pem\"\nkey = \"client.key\"\n";
    fs::write(Path::new(&stray).join("strongroom.toml"), settings).unwrap();
    assert!(not_done(&hsmctl(&["--admin", &stray, "status"])).contains("is the server running"));
}

fn a_silent_server_is_not_waited_for() {
    let house = House::new();
    house.ask(&["partition", "create", STUCK]);
    let error = not_done(&house.run(&["partition", "delete", STUCK, "--yes"]));
    assert!(error.contains("within 10 s; whether it was done is unknown"), "{error}");
}

fn following_survives_a_restart() {
    let mut house = House::new();
    let admin = house.state.join("admin");
    let words = ["--admin", admin.to_str().unwrap(), "--json", "audit", "tail", "--follow"];
    let mut child = command(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let only_new = ["--admin", admin.to_str().unwrap(), "audit", "tail", "--follow", "-n", "0"];
    let mut only_new = command(&only_new).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut new_lines = BufReader::new(only_new.stdout.take().unwrap()).lines();
    assert!(new_lines.next().unwrap().unwrap().starts_with("SEQUENCE"), "it has begun");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next =
        || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap()["sequence"].clone();
    (1..=5).for_each(|sequence| assert_eq!(next(), sequence));
    house.front = None;
    house.serve(7);
    (6..=7).for_each(|sequence| assert_eq!(next(), sequence));
    for sequence in ["6 ", "7 "] {
        assert!(new_lines.next().unwrap().unwrap().starts_with(sequence));
    }
    // For good.
    house.front = None;
    let error = not_done(&child.wait_with_output().unwrap());
    assert!(error.contains("the server ended the connection; run it again"), "{error}");
    assert!(!only_new.wait().unwrap().success());
}

fn usage_is_checked() {
    for words in [&["frobnicate"][..], &["client", "add", "a", "--out", "x"], &["init"], &[]] {
        assert_eq!(hsmctl(words).status.code(), Some(2), "{words:?}");
    }
    assert!(hsmctl(&["--help"]).status.success());
}
