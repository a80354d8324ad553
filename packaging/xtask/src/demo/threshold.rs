//! `cargo xtask demo --threshold`: three servers hold a key that none of them has. Two of them sign, whichever two;
//! one alone does not.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use super::{build, fresh_state};
use crate::{
    Outcome,
    cluster::Nodes,
    packages,
    shell::{Echo, Shell, heading, note, result},
    token::Token,
    workspace::shown,
};

/// The key's id, for `pkcs11-tool`.
const ID: &str = "01";
/// How long an answer may take when too few nodes are left: the module's own deadlines, and a busy machine.
const BOUND: Duration = Duration::from_secs(15);

/// Shows a 2-of-3 key, on fresh state in `target/demo`.
///
/// # Errors
/// A step failed; the message holds the command and what it wrote.
pub fn run() -> Outcome {
    let begun = Instant::now();
    packages::install(&[packages::DEMO])?;
    let mut shell = Shell::new(Echo::Commands);
    let artefacts = build(&shell)?;
    let module = shown(Path::new(&artefacts.module()));

    heading("Three servers, each with its state in a folder of its own");
    let state = fresh_state()?;
    let mut nodes = Nodes::start(&shell, &artefacts, &state, &["a", "b", "c"])?;

    heading("One cluster: each administrator's tool signs the list of its members");
    nodes.join()?;
    note(nodes.node(0)?.hsmctl(&["cluster", "list"])?.trim_end());

    heading("A partition of the same name at each node, and a client whose mandates each node believes");
    let configs = nodes.enrol("trading", "desk")?;
    let [first, second, third] = configs.as_slice() else {
        return Err("a client's folder is missing".into());
    };

    heading("The token, at each node");
    shell.shorten("M", &module);
    let token =
        |shell: &Shell| Token { shell: shell.clone(), module: module.clone(), label: "trading".into() };
    let [_, at_second, at_first] = [third, second, first].map(|config| {
        shell.export("STRONGROOM_CONFIG", &shown(config));
        let token = token(&shell);
        token.initialise().map(|()| token)
    });
    let (at_first, at_second) = (at_first?, at_second?);

    heading("A secp256k1 key pair, made by all three together: its private key is nowhere");
    let folder = first.parent().unwrap_or(first);
    nodes.generate(folder, "EC:secp256k1", "hot wallet", ID, 2)?;
    let public = shown(&state.join("hot.pub"));
    at_first.user(&["--read-object", "--type", "pubkey", "--id", ID, "--output-file", &public])?;

    let demo = Demo { state: &state, public };
    heading("An unchanged program signs; OpenSSL verifies");
    demo.sign(&at_first)?;
    heading("The same key, through another node");
    note("export STRONGROOM_CONFIG again, to node b");
    demo.sign(&at_second)?;

    heading("Node c is gone: the other two go on");
    nodes.node(2)?.stop()?;
    demo.sign(&at_first)?;

    heading("Node b is gone too: what is left of the key is one share of three, and signs nothing");
    nodes.node(1)?.stop()?;
    demo.refused(&at_first)?;

    heading("Node b is back");
    nodes.node(1)?.start()?;
    demo.sign(&at_first)?;

    heading("What the audit logs say of it: each signer keeps its own");
    for server in nodes.servers.iter().take(2) {
        note(server.hsmctl(&["audit", "tail", "-n", "4"])?.trim_end());
        note(server.hsmctl(&["audit", "verify"])?.trim_end());
    }
    println!("\nDone in {:.1} s.", begun.elapsed().as_secs_f32());
    Ok(())
}

struct Demo<'a> {
    state: &'a Path,
    /// The public key's file.
    public: String,
}

impl Demo<'_> {
    fn sign(&self, token: &Token) -> Outcome {
        let path = |name: &str| shown(&self.state.join(name));
        let (file, signature) = (path("order.txt"), path("order.sig"));
        fs::write(self.state.join("order.txt"), "Pay 1.25 BTC to the cold wallet.\n")?;
        token.user(&self.words(&file, &signature))?;
        let verify = ["openssl", "dgst", "-sha256", "-verify", &self.public, "-signature", &signature, &file];
        result(token.shell.run(&verify)?.trim_end());
        Ok(())
    }

    fn words<'w>(&self, file: &'w str, signature: &'w str) -> [&'w str; 11] {
        let (format, kind) = ("--signature-format", "--mechanism");
        [
            "--sign",
            "--id",
            ID,
            "--input-file",
            file,
            "--output-file",
            signature,
            kind,
            "ECDSA-SHA256",
            format,
            "openssl",
        ]
    }

    /// Asks for a signature that there cannot be.
    fn refused(&self, token: &Token) -> Outcome {
        let (file, signature) = (shown(&self.state.join("order.txt")), shown(&self.state.join("none.sig")));
        let begun = Instant::now();
        let error = match token.user(&self.words(&file, &signature)) {
            Ok(_) => return Err("one node alone has signed".into()),
            Err(error) => error.to_string(),
        };
        let took = begun.elapsed();
        let refusal = error.lines().find(|line| line.contains("CKR_DEVICE_ERROR"));
        result(refusal.ok_or_else(|| format!("another refusal than CKR_DEVICE_ERROR: {error}"))?.trim());
        note(&format!("after {:.1} s", took.as_secs_f32()));
        if took > BOUND { Err(format!("the refusal took {took:?}").into()) } else { Ok(()) }
    }
}
