//! Our module and server with a bad network between them: group I of our own suite has no findings, in less than a
//! minute.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use strongroom_mutant::faults::{self, Behind, Fault};
use tempfile::TempDir;
use xtask::{
    server::Server,
    shell::{Echo, Shell},
    token::{PIN, SO_PIN, Token},
    workspace::Artefacts,
};

/// Those that take longest stand for the others.
const CHECKS: [&str; 18] = [
    "network.sign-cut-request",
    "network.sign-cut-reply",
    "network.sign-reset-reply",
    "network.sign-flip-reply",
    "network.sign-twice-request",
    "network.sign-half-open-reply",
    "network.sign-silence",
    "network.sign-impostor",
    "network.sign-slow",
    "network.login-cut-reply",
    "network.find-cut-reply",
    "network.verify-reset-request",
    "network.create-cut-reply",
    "network.generate-cut-reply",
    "network.generate-reset-request",
    "network.generate-half-open-reply",
    "network.clear-pin",
    "network.replay",
];
const RESTARTS: [&str; 4] = [
    "network.restart-idle",
    "network.restart-operation",
    "network.restart-while-signing",
    "network.restart-keeps",
];
const CERTIFICATES: [&str; 2] = ["network.bad-client", "network.bad-server"];

/// How long the group may take.
const LIMIT: Duration = Duration::from_secs(60);

/// A server, and a client whose configuration leads to the suite's proxy.
struct World {
    folder: TempDir,
    artefacts: Artefacts,
    server: Server,
    listen: String,
}

impl World {
    fn new() -> Self {
        let (artefacts, folder) = (Artefacts::built().unwrap(), TempDir::new().unwrap());
        let shell = Shell::new(Echo::Nothing);
        let mut server = Server::create(&shell, &artefacts, &folder.path().join("state")).unwrap();
        server.start().unwrap();
        let config = server.enrol("trading", "desk").unwrap();
        let shell = shell.with("STRONGROOM_CONFIG", &config.display().to_string());
        Token { shell, module: artefacts.module(), label: "trading".into() }.initialise().unwrap();
        let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let text = fs::read_to_string(&config).unwrap().replace(&server.address(), &listen);
        fs::write(&config, format!("deadline_ms = 1500\ngeneration_deadline_ms = 60000\n{text}")).unwrap();
        Self { folder, artefacts, server, listen }
    }

    fn client(&self) -> PathBuf {
        self.folder.path().join("state/desk")
    }

    /// A copy of the client's folder with other files of another server.
    fn stranger(&self, name: &str, other: &Path, files: &[&str]) -> String {
        let folder = self.folder.path().join(name);
        fs::create_dir(&folder).unwrap();
        for file in ["strongroom.toml", "ca.pem", "client.pem", "client.key"] {
            let from = if files.contains(&file) { other } else { &self.client() };
            fs::copy(from.join(file), folder.join(file)).unwrap();
        }
        format!("STRONGROOM_CONFIG={}", folder.join("strongroom.toml").display())
    }

    fn check(&self, ids: &[&str], more: &[&str]) -> Output {
        self.command(&self.artefacts.module(), ids, "12").args(more).output().unwrap()
    }

    fn command(&self, module: &str, ids: &[&str], limit: &str) -> Command {
        let network = format!("{}={}", self.listen, self.server.address());
        let mut command = Command::new(self.artefacts.conformance());
        command
            .args(["--module", module, "--token-label", "trading", "--network", &network])
            .args(["--network-limit", limit, "--seed", "1"])
            .args(ids.iter().flat_map(|id| ["--check", id]))
            .env("STRONGROOM_CONFIG", self.client().join("strongroom.toml"))
            .env("P11_CONFORMANCE_PIN", PIN)
            .env("P11_CONFORMANCE_SO_PIN", SO_PIN);
        command
    }

    /// The checks that must see a fault in front of our module, those of them that do not.
    fn blind(&self, fault: &Fault) -> Option<String> {
        let module = std::env::current_exe().unwrap().with_file_name("libstrongroom_mutant.so");
        let output = self
            .command(module.to_str().unwrap(), fault.killed_by, "5")
            .env("MUTANT_MODULE", self.artefacts.module())
            .env("MUTANT_FAULT", fault.name)
            .env("MUTANT_WIRE", &self.listen)
            .output()
            .unwrap();
        let report = String::from_utf8_lossy(&output.stdout);
        let saw = |check: &&&str| report.lines().any(|line| line.starts_with(&format!("FAIL {check}  ")));
        let all = fault.killed_by.iter().filter(saw).count() == fault.killed_by.len();
        (!all).then(|| {
            format!("{} ({}): {report}{}", fault.name, fault.does, String::from_utf8_lossy(&output.stderr))
        })
    }
}

fn assert_clean(output: &Output, checks: usize) {
    let report = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{report}{}", String::from_utf8_lossy(&output.stderr));
    assert!(report.contains(&format!("{checks} passed, 0 failed, 0 not made, 0 not offered")), "{report}");
}

#[test]
fn a_bad_network_makes_nothing_wrong_and_nothing_twice() {
    let (world, since) = (World::new(), Instant::now());
    assert_clean(&world.check(&CHECKS, &[]), CHECKS.len());
    assert!(since.elapsed() < LIMIT, "it took {:?}", since.elapsed());
}

#[test]
fn a_restart_in_the_midst_of_it_is_survived() {
    let mut world = World::new();
    let asked = world.folder.path().join("restart");
    let command = format!("touch '{0}'; while [ -e '{0}' ]; do sleep 0.02; done", asked.display());
    let done = world.folder.path().join("done");
    let since = Instant::now();
    thread::scope(|scope| {
        // The server belongs to this thread; the other runs the suite.
        let (client, artefacts) = (world.client(), world.artefacts.clone());
        let network = format!("{}={}", world.listen, world.server.address());
        let (command, done) = (&command, &done);
        let run = scope.spawn(move || {
            let output = Command::new(artefacts.conformance())
                .args(["--module", &artefacts.module(), "--token-label", "trading", "--network", &network])
                .args(["--restart-command", command])
                .args(RESTARTS.iter().flat_map(|id| ["--check", id]))
                .env("STRONGROOM_CONFIG", client.join("strongroom.toml"))
                .env("P11_CONFORMANCE_PIN", PIN)
                .output();
            fs::write(done, "").unwrap();
            output.unwrap()
        });
        while !done.exists() {
            if asked.exists() {
                world.server.stop().unwrap();
                world.server.start().unwrap();
                fs::remove_file(&asked).unwrap();
            }
            sleep(Duration::from_millis(10));
        }
        assert_clean(&run.join().unwrap(), RESTARTS.len());
    });
    assert!(since.elapsed() < LIMIT, "it took {:?}", since.elapsed());
}

#[test]
fn strangers_get_no_session() {
    let (world, other) = (World::new(), World::new());
    let client = world.stranger("stranger", &other.client(), &["client.pem", "client.key"]);
    let server = world.stranger("impostor", &other.client(), &["ca.pem"]);
    assert_clean(&world.check(&CERTIFICATES, &["--bad-client", &client, "--bad-server", &server]), 2);
    // And the checks can fail: the right certificates are no stranger's.
    let right = format!("STRONGROOM_CONFIG={}", world.client().join("strongroom.toml").display());
    let output = world.check(&CERTIFICATES, &["--bad-client", &right, "--bad-server", &right]);
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(report.contains("0 passed, 2 failed"), "{report}");
}

/// A module that does with a bad network what a module must not do.
#[test]
fn every_mutant_behind_a_network_is_killed() {
    let world = World::new();
    let faults: Vec<&Fault> = faults::all().filter(|fault| fault.behind == Behind::Network).collect();
    assert!(faults.len() >= 10, "only {} faults", faults.len());
    let survivors: Vec<String> = faults.iter().filter_map(|fault| world.blind(fault)).collect();
    assert!(survivors.is_empty(), "{} of {} live:\n{}", survivors.len(), faults.len(), survivors.join("\n"));
}
