//! `cargo xtask demo`: an unchanged program signs with keys that no other process can touch, and OpenSSL,
//! which knows nothing of us, says that the signatures are good.

pub mod threshold;

use std::{
    fs,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    Outcome, packages,
    server::Server,
    shell::{Echo, Shell, heading, note, result},
    token::{PIN, SO_PIN, Token},
    workspace::{self, Artefacts, shown},
};

/// What happens to the server when the demo has shown all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// It is stopped.
    Stop,
    /// It runs on, for the reader's own experiments.
    Keep,
}

/// How long an earlier demo's server may take to stop.
const PATIENCE: Duration = Duration::from_secs(20);

/// A key pair of the demo, in the words of `pkcs11-tool` and `openssl`.
struct Example {
    name: &'static str,
    kind: &'static str,
    id: &'static str,
    sign: &'static [&'static str],
    verify: Verify,
}

/// How OpenSSL checks a signature.
enum Verify {
    /// Over the SHA-256 of the file.
    Digest,
    /// Over the file itself.
    Whole,
}

const ECDSA: &[&str] = &["ECDSA-SHA256", "--signature-format", "openssl"];

const EXAMPLES: &[Example] = &[
    Example { name: "secp256k1", kind: "EC:secp256k1", id: "01", sign: ECDSA, verify: Verify::Digest },
    Example { name: "p256", kind: "EC:prime256v1", id: "02", sign: ECDSA, verify: Verify::Digest },
    Example { name: "ed25519", kind: "EC:edwards25519", id: "03", sign: &["EDDSA"], verify: Verify::Whole },
    Example { name: "rsa", kind: "rsa:2048", id: "04", sign: &["SHA256-RSA-PKCS"], verify: Verify::Digest },
];

/// Shows everything once, on fresh state in `target/demo`.
///
/// # Errors
/// A step failed; the message holds the command and what it wrote.
pub fn run(afterwards: Afterwards) -> Outcome {
    let begun = Instant::now();
    packages::install(&[packages::DEMO])?;
    let mut shell = Shell::new(Echo::Commands);
    let artefacts = build(&shell)?;

    heading("A server, with its state in a folder of its own");
    let state = fresh_state()?;
    let mut server = Server::create(&shell, &artefacts, &state)?;
    server.start()?;
    note(&format!("listens on {} for mutual TLS 1.3", server.address()));

    heading("A partition, which applications see as a token, and a client that may use it");
    let config = server.enrol("trading", "desk")?;

    heading("The token, through the PKCS#11 module");
    shell.export("STRONGROOM_CONFIG", &shown(&config));
    let module = shown(Path::new(&artefacts.module()));
    shell.shorten("M", &module);
    let token = Token { shell: shell.clone(), module, label: "trading".into() };
    token.initialise()?;

    for example in EXAMPLES {
        show(&token, &state, example)?;
    }

    heading("What the audit log says of it");
    note(server.hsmctl(&["audit", "tail"])?.trim_end());
    note(server.hsmctl(&["audit", "verify"])?.trim_end());

    finish(server, afterwards, &artefacts, &config, &token)?;
    println!("\nDone in {:.1} s.", begun.elapsed().as_secs_f32());
    Ok(())
}

fn build(shell: &Shell) -> Outcome<Artefacts> {
    heading("The server and the module");
    let cargo = workspace::cargo();
    let packages = ["-p", "strongroom-server", "-p", "strongroom-provider"];
    let words = [&["build", "--release", "--locked"], &packages[..]].concat();
    note("the first build takes a few minutes");
    shell.stream(&[&[cargo.to_str().unwrap_or("cargo")], &words[..]].concat(), |_| ())?;
    Artefacts::within(workspace::target().join("release"))
}

/// An empty state folder; a server that an earlier `--keep` left is stopped first.
fn fresh_state() -> Outcome<PathBuf> {
    let state = workspace::target().join("demo");
    if let Some(pid) = kept_server(&state) {
        note(&format!("stopping the server that an earlier `--keep` left (process {pid})"));
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::TERM)?;
        }
        let deadline = Instant::now() + PATIENCE;
        while kept_server(&state).is_some() && Instant::now() < deadline {
            sleep(Duration::from_millis(20));
        }
    }
    if state.exists() {
        note(&format!("wiping what an earlier demo left in {}, its keys included", shown(&state)));
        fs::remove_dir_all(&state)?;
    }
    fs::create_dir_all(&state)?;
    Ok(state)
}

/// The process that the folder's note names, if it is still a server on this folder.
fn kept_server(state: &Path) -> Option<u32> {
    let pid: u32 = fs::read_to_string(state.join("server.pid")).ok()?.trim().parse().ok()?;
    let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    let config = shown(&state.join("server.toml"));
    (command.contains("hsm-server") && command.contains(&config)).then_some(pid)
}

/// Makes a key pair, signs a file through the module, and has OpenSSL verify the signature without it.
fn show(token: &Token, state: &Path, example: &Example) -> Outcome {
    heading(&format!("{}: a key pair, a signature, and OpenSSL's opinion", example.name));
    let path = |ending: &str| shown(&state.join(format!("{}.{ending}", example.name)));
    let (file, public, signature) = (shown(&state.join("order.txt")), path("pub"), path("sig"));
    fs::write(state.join("order.txt"), "Pay 1.25 BTC to the cold wallet.\n")?;

    token.generate(example.kind, example.id, example.name)?;
    let sign =
        ["--sign", "--id", example.id, "--input-file", &file, "--output-file", &signature, "--mechanism"];
    token.user(&[&sign, example.sign].concat())?;
    token.user(&["--read-object", "--type", "pubkey", "--id", example.id, "--output-file", &public])?;
    let said = match example.verify {
        Verify::Digest => token.shell.run(&[
            "openssl",
            "dgst",
            "-sha256",
            "-verify",
            &public,
            "-signature",
            &signature,
            &file,
        ]),
        Verify::Whole => {
            let key = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", &public, "-rawin"];
            token.shell.run(&[&key, &["-in", &file, "-sigfile", &signature][..]].concat())
        }
    }?;
    result(said.trim_end());
    Ok(())
}

fn finish(
    mut server: Server,
    afterwards: Afterwards,
    artefacts: &Artefacts,
    config: &Path,
    token: &Token,
) -> Outcome {
    let state = config.ancestors().nth(2).unwrap_or(config).to_path_buf();
    match afterwards {
        Afterwards::Stop => {
            heading("The end");
            server.stop()?;
            note("the server finished what it was doing and ended");
        }
        Afterwards::Keep => {
            heading("The server runs on");
            let address = server.address();
            let hsmctl = workspace::root().join(artefacts.hsmctl());
            let pid = server.keep().ok_or("the server is gone")?;
            fs::write(state.join("server.pid"), pid.to_string())?;
            println!("  export STRONGROOM_CONFIG={}", config.display());
            println!("  export STRONGROOM_ADMIN={}", state.join("admin").display());
            println!("  export M={}", workspace::root().join(&token.module).display());
            println!("  pkcs11-tool --module $M --login --pin {PIN} --list-objects");
            println!("  {} status", hsmctl.display());
            println!("  kill -TERM {pid}        # stops it; it listens on {address}");
            note(&format!("the user's PIN is {PIN}, the security officer's {SO_PIN}"));
            note("the next `cargo xtask demo` stops this server and wipes its keys");
        }
    }
    Ok(())
}
