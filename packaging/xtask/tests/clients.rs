//! Other people's programs, unchanged, against the real server through the real module: `pkcs11-tool`,
//! OpenSSL through its PKCS#11 engine, and Java. The same steps run against SoftHSM2, so that a failure
//! with our module is ours and not the test's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::{fs, path::Path};

use tempfile::TempDir;
use xtask::{
    packages,
    server::Server,
    shell::{Echo, Shell},
    token::{PIN, Token},
    workspace::Artefacts,
};

/// A token, and what must live as long as it does.
struct Bench {
    token: Token,
    folder: TempDir,
    _server: Option<Server>,
}

impl Bench {
    /// Our server, our module.
    fn strongroom() -> Self {
        let shell = Shell::new(Echo::Nothing);
        let (artefacts, folder) = (Artefacts::built().unwrap(), TempDir::new().unwrap());
        let mut server = Server::create(&shell, &artefacts, &folder.path().join("state")).unwrap();
        server.start().unwrap();
        let config = server.enrol("trading", "desk").unwrap();
        let shell = shell.with("STRONGROOM_CONFIG", &config.display().to_string());
        Self::over(shell, artefacts.module(), folder, Some(server))
    }

    /// SoftHSM2, in process.
    fn softhsm() -> Self {
        let folder = TempDir::new().unwrap();
        fs::create_dir(folder.path().join("tokens")).unwrap();
        let config = folder.path().join("softhsm2.conf");
        fs::write(&config, format!("directories.tokendir = {}/tokens\n", folder.path().display())).unwrap();
        let shell = Shell::new(Echo::Nothing).with("SOFTHSM2_CONF", &config.display().to_string());
        let module = packages::library("softhsm/libsofthsm2.so").expect("softhsm2 is not installed");
        Self::over(shell, module.display().to_string(), folder, None)
    }

    fn over(shell: Shell, module: String, folder: TempDir, server: Option<Server>) -> Self {
        let token = Token { shell, module, label: "trading".into() };
        token.initialise().unwrap();
        Self { token, folder, _server: server }
    }

    /// A path in the temporary folder.
    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.path(name), text).unwrap();
        self.path(name)
    }
}

/// `--test` reports failures and yet ends with success for some of them, so its words are read as well.
#[test]
fn pkcs11_tool_finds_nothing_wrong_with_rsa_and_ec_keys() {
    let bench = Bench::strongroom();
    bench.token.user(&["--keypairgen", "--key-type", "rsa:2048", "--id", "01", "--label", "rsa"]).unwrap();
    bench
        .token
        .user(&["--keypairgen", "--key-type", "EC:prime256v1", "--id", "02", "--label", "ec"])
        .unwrap();
    // Without `--allow-sw` it passes over whatever is not CKF_HW, which is all of it.
    for words in [&["--test"][..], &["--test", "--allow-sw"]] {
        let report = bench.token.user(words).unwrap();
        assert!(report.contains("No errors"), "{report}");
        assert!(!report.to_lowercase().contains("error:"), "{report}");
        assert!(report.contains("RSA-PKCS: OK"), "no key was tried: {report}");
        let signed = report.contains("all 4 signature functions seem to work");
        assert!(signed || words.len() == 1, "no signature was tried: {report}");
    }
}

#[test]
fn openssl_signs_and_requests_certificates_through_its_engine() {
    openssl(&Bench::strongroom());
}

#[test]
fn openssl_does_the_same_with_softhsm() {
    openssl(&Bench::softhsm());
}

/// No Ed25519 key here: libp11 0.4.12 stops listing private keys at the first one.
fn openssl(bench: &Bench) {
    let shell = bench.token.shell.with("PKCS11_MODULE_PATH", &bench.token.module);
    let message = bench.write("message", "sell 3 ETH");
    for (kind, id, label) in [("rsa:2048", "01", "rsa"), ("EC:prime256v1", "02", "ec")] {
        bench.token.generate(kind, id, label).unwrap();
        let public = bench.path("public");
        bench.token.user(&["--read-object", "--type", "pubkey", "--id", id, "-o", &public]).unwrap();
        let uri = format!("pkcs11:token=trading;object={label};type=private;pin-value={PIN}");
        let engine = ["-engine", "pkcs11", "-keyform", "engine"];

        let signature = bench.path("signature");
        let sign = ["-sha256", "-sign", &uri, "-out", &signature, &message];
        shell.run(&[&["openssl", "dgst"], &engine[..], &sign].concat()).unwrap();
        let plain = Shell::new(Echo::Nothing);
        let verify = ["openssl", "dgst", "-sha256", "-verify", &public, "-signature", &signature];
        plain.run(&[&verify[..], &[&message]].concat()).unwrap();
        let other = bench.write("other", "sell 4 ETH");
        plain.run(&[&verify[..], &[&other]].concat()).expect_err("a signature of another message");

        let request = bench.path("request");
        let make = ["-new", "-key", &uri, "-subj", "/CN=desk", "-out", &request];
        shell.run(&[&["openssl", "req"], &engine[..], &make].concat()).unwrap();
        plain.run(&["openssl", "req", "-in", &request, "-verify", "-noout"]).unwrap();
        let held = plain.run(&["openssl", "req", "-in", &request, "-pubkey", "-noout"]).unwrap();
        let told = plain.run(&["openssl", "pkey", "-pubin", "-in", &public]).unwrap();
        assert_eq!(held, told, "the request is for the token's key");
    }
}

#[test]
fn java_signs_with_keys_of_the_token() {
    java(&Bench::strongroom());
}

#[test]
fn java_does_the_same_with_softhsm() {
    java(&Bench::softhsm());
}

/// `keytool` makes key pairs with certificates on the token; a program then finds them by name and signs.
fn java(bench: &Bench) {
    let lines = format!("name = Token\nlibrary = {}\nslotListIndex = 0\n", bench.token.module);
    let config = bench.write("p11.cfg", &lines);
    let store = ["-keystore", "NONE", "-storetype", "PKCS11", "-storepass", PIN];
    let provider = ["-addprovider", "SunPKCS11", "-providerArg", &config];
    for (alias, kind, size) in [("jrsa", "RSA", "-keysize=2048"), ("jec", "EC", "-groupname=secp256r1")] {
        let (option, value) = size.split_once('=').unwrap();
        let make = ["-genkeypair", "-alias", alias, "-keyalg", kind, option, value, "-dname", "CN=desk"];
        bench.token.shell.run(&[&["keytool"], &make[..], &store, &provider].concat()).unwrap();
    }
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/Sign.java");
    let said = bench
        .token
        .shell
        .run(&["java", program.to_str().unwrap(), &config, PIN, "jrsa", "jec"])
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(said.lines().collect::<Vec<_>>(), ["jrsa good", "jec good", "RSA good", "EC good"]);
}
