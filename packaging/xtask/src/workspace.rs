//! Where things are: the workspace, the target folder, and what was built there.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use crate::{
    Outcome,
    shell::{Echo, Shell},
};

/// The variable that tells tests where the artefacts are.
pub const ARTEFACTS: &str = "STRONGROOM_ARTEFACTS";

/// The workspace's folder.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// Where cargo builds.
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |folder| root().join(folder))
}

/// The cargo that runs us.
pub fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// A path as a reader in the workspace's folder would type it.
pub fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// The server, its operator's tool and the module, as built.
#[derive(Clone, Debug)]
pub struct Artefacts {
    folder: PathBuf,
}

impl Artefacts {
    /// What tests run against: built by `cargo xtask test`, which says where, or else now.
    ///
    /// # Errors
    /// They cannot be built.
    pub fn built() -> Outcome<Self> {
        static BUILT: Mutex<Option<Artefacts>> = Mutex::new(None);
        let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(built) = &*built {
            return Ok(built.clone());
        }
        let folder = match env::var_os(ARTEFACTS) {
            Some(folder) => folder.into(),
            None => {
                let cargo = cargo();
                let packages = ["strongroom-server", "strongroom-provider", "strongroom-conformance"];
                let words = packages.iter().flat_map(|package| ["-p", package]);
                let words: Vec<&str> = ["build", "--quiet", "--locked"].into_iter().chain(words).collect();
                Shell::new(Echo::Nothing)
                    .run(&[&[cargo.to_str().unwrap_or("cargo")], &words[..]].concat())?;
                target().join("debug")
            }
        };
        Ok(built.insert(Self::within(folder)?).clone())
    }

    /// Those in a folder.
    ///
    /// # Errors
    /// One of them is not there.
    pub fn within(folder: PathBuf) -> Outcome<Self> {
        let found = Self { folder };
        for path in [found.path("hsm-server"), found.path("hsmctl"), found.path(Self::MODULE)] {
            if !path.is_file() {
                return Err(format!("{} was not built", path.display()).into());
            }
        }
        Ok(found)
    }

    const MODULE: &str = "libstrongroom_pkcs11.so";

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// `hsm-server`, as a command line names it.
    pub fn server(&self) -> String {
        shown(&self.path("hsm-server"))
    }

    /// `p11-conformance`, as a command line names it.
    pub fn conformance(&self) -> String {
        self.path("p11-conformance").display().to_string()
    }

    /// `hsmctl`, as a command line names it.
    pub fn hsmctl(&self) -> String {
        shown(&self.path("hsmctl"))
    }

    /// The PKCS#11 module: an absolute path, for programs that look for bare names in folders of their own.
    pub fn module(&self) -> String {
        self.path(Self::MODULE).display().to_string()
    }
}
