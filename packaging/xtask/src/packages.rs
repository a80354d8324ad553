//! Debian packages that the chores need: installed only when what they bring is missing.

use std::{
    env,
    path::{Path, PathBuf},
};

use crate::{
    Outcome,
    shell::{Echo, Shell, heading},
};

/// Something of the system's that a chore uses.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    package: &'static str,
    sign: Sign,
}

/// How one sees that a package is there.
#[derive(Clone, Copy, Debug)]
enum Sign {
    /// A command on the path.
    Command(&'static str),
    /// A file in one of the folders where distributions keep libraries.
    Library(&'static str),
}

/// What the demo runs; perl, make and a C compiler build the vendored OpenSSL and AWS-LC.
pub const DEMO: &[Need] = &[
    Need { package: "opensc", sign: Sign::Command("pkcs11-tool") },
    Need { package: "openssl", sign: Sign::Command("openssl") },
    Need { package: "perl", sign: Sign::Command("perl") },
    Need { package: "make", sign: Sign::Command("make") },
    Need { package: "gcc", sign: Sign::Command("cc") },
];

/// What the bench compares with.
pub const SOFTHSM: &[Need] = &[Need { package: "softhsm2", sign: Sign::Library("softhsm/libsofthsm2.so") }];

/// What the tests run beside that.
pub const TEST: &[Need] = &[
    Need { package: "libengine-pkcs11-openssl", sign: Sign::Library("engines-3/pkcs11.so") },
    Need { package: "default-jdk-headless", sign: Sign::Command("javac") },
    Need { package: "python3", sign: Sign::Command("python3") },
    Need { package: "libnss3", sign: Sign::Library("libsoftokn3.so") },
    Need { package: "libnss3-tools", sign: Sign::Command("certutil") },
    Need { package: "p11-kit-modules", sign: Sign::Library("pkcs11/p11-kit-trust.so") },
];

/// Where a library of the system's is.
pub fn library(name: &str) -> Option<PathBuf> {
    let folders = ["/usr/lib", "/usr/lib64", "/usr/local/lib"].map(PathBuf::from);
    let triplet = PathBuf::from(format!("/usr/lib/{}-linux-gnu", env::consts::ARCH));
    folders.iter().chain([&triplet]).map(|folder| folder.join(name)).find(|path| path.exists())
}

fn has_command(name: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

impl Need {
    fn is_met(&self) -> bool {
        match self.sign {
            Sign::Command(name) => has_command(name),
            Sign::Library(name) => library(name).is_some(),
        }
    }
}

/// Installs the packages of the needs that are not met.
///
/// # Errors
/// Something is missing and cannot be installed here; the message says what to install.
pub fn install(needs: &[&[Need]]) -> Outcome {
    let missing: Vec<&str> =
        needs.concat().iter().filter(|need| !need.is_met()).map(|need| need.package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages = missing.join(" ");
    heading(&format!("Installing {packages}"));
    let shell = Shell::new(Echo::Commands).with("DEBIAN_FRONTEND", "noninteractive");
    let quiet = Shell::new(Echo::Nothing);
    let rights: &[&str] = if rustix::process::geteuid().is_root() {
        &[]
    } else if quiet.run(&["sudo", "-n", "true"]).is_ok() {
        &["sudo", "-n"]
    } else {
        return Err(format!("Please install: {packages}\n(on Debian: apt-get install {packages})").into());
    };
    if !Path::new("/usr/bin/apt-get").exists() {
        return Err(format!("Please install what Debian calls: {packages}").into());
    }
    shell.run(&[rights, &["apt-get", "update", "-qq"]].concat())?;
    let install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends"];
    shell.run(&[rights, &install, missing.as_slice()].concat())?;
    Ok(())
}
