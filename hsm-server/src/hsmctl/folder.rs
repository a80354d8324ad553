//! A client's ready-to-use folder: certificate, key, CA and `strongroom.toml`.
//!
//! It appears whole or not at all, and never in the place of another. `hsmctl` reads an administrator's folder
//! as the provider reads a client's.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::Deserialize;

use super::error::CtlError;

/// What a folder is described by.
pub const SETTINGS: &str = "strongroom.toml";
/// The file of a client's key for mandates.
pub const MANDATE_KEY: &str = "mandate.key";
/// The file of the nodes whose word a client takes for keys that they make together.
pub const CLUSTER_NODES: &str = "cluster.nodes";

/// Where a client finds its server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// `host:port`.
    pub address: String,
    /// The name in its certificate.
    pub name: String,
}

impl Server {
    /// Whether the address means the machine that asks for it, whichever that is.
    pub fn is_this_machine(&self) -> bool {
        let host = self.address.rsplit_once(':').map_or(self.address.as_str(), |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

/// What `strongroom.toml` says, as far as `hsmctl` needs it.
#[derive(Clone, Debug, Deserialize)]
struct Settings {
    token: Vec<Token>,
}

/// One server, and who one is to it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Token {
    /// `host:port`.
    pub server: String,
    /// The name in its certificate; the host if empty.
    #[serde(default)]
    pub server_name: String,
    /// The CA that made its certificate, PEM.
    pub ca: PathBuf,
    /// One's own certificate, PEM.
    pub certificate: PathBuf,
    /// The key that goes with it, PEM.
    pub key: PathBuf,
    /// The key that signs mandates, PEM.
    pub mandate_key: Option<PathBuf>,
    /// The nodes whose word is taken for keys that they make together.
    pub cluster_nodes: Option<PathBuf>,
}

impl Token {
    /// Reads the first token of the `strongroom.toml` in `folder`.
    ///
    /// # Errors
    /// The folder is not a client's.
    pub fn read(folder: &Path) -> Result<Self, CtlError> {
        Self::read_or_advise(
            folder,
            "name an administrator's folder with --admin DIR or STRONGROOM_ADMIN; `hsmctl init` made one",
        )
    }

    /// The same, of an application's folder.
    ///
    /// # Errors
    /// The folder is not a client's.
    pub fn read_client(folder: &Path) -> Result<Self, CtlError> {
        Self::read_or_advise(folder, "name a folder that `hsmctl client add --partition` made")
    }

    fn read_or_advise(folder: &Path, advice: &'static str) -> Result<Self, CtlError> {
        let path = folder.join(SETTINGS);
        let text = fs::read_to_string(&path).map_err(|error| CtlError::file(&path, error).advise(advice))?;
        let settings: Settings = toml::from_str(&text).map_err(|error| CtlError::file(&path, error))?;
        let mut token =
            settings.token.into_iter().next().ok_or_else(|| CtlError::file(&path, "no [[token]] in it"))?;
        let paths = [&mut token.ca, &mut token.certificate, &mut token.key];
        for path in paths.into_iter().chain(&mut token.mandate_key).chain(&mut token.cluster_nodes) {
            *path = folder.join(&*path);
        }
        Ok(token)
    }

    /// Where the server is.
    pub fn server(&self) -> Server {
        let host = self.server.rsplit_once(':').map_or(self.server.as_str(), |(host, _)| host);
        let name = if self.server_name.is_empty() { host } else { &self.server_name };
        Server { address: self.server.clone(), name: name.into() }
    }
}

/// Has the `strongroom.toml` of a client's folder, whose one table does not say it yet, say `name = "file"`.
///
/// # Errors
/// It has several tables, or cannot be written; then nothing has changed.
pub fn name_file(folder: &Path, name: &str, file: &str) -> Result<(), CtlError> {
    let path = folder.join(SETTINGS);
    let text = fs::read_to_string(&path).map_err(|error| CtlError::file(&path, error))?;
    let settings: Settings = toml::from_str(&text).map_err(|error| CtlError::file(&path, error))?;
    let line = format!("{name} = \"{file}\"");
    if settings.token.len() > 1 {
        let error = format!("has several tables, and `{line}` belongs into each [[token]]");
        return Err(CtlError::file(&path, error).advise("write it there, and run the same command again"));
    }
    let named = format!("{}\n{line}\n", text.trim_end());
    strongroom_identity::replace_file(&path, named.as_bytes())
        .map_err(|error| CtlError::file(&error.path, error.reason))
}

/// A folder in the making: it gets its name when it is complete, and is removed if it never is.
#[derive(Debug)]
pub struct NewFolder {
    target: PathBuf,
    making: Option<PathBuf>,
}

impl NewFolder {
    /// Starts a folder that only its owner may enter, to be called `target`.
    ///
    /// # Errors
    /// There is something of that name, or its parent cannot be written.
    pub fn start(target: &Path) -> Result<Self, CtlError> {
        // An empty folder may be a mount point, or have been made for this.
        let taken = fs::symlink_metadata(target).is_ok() && !is_empty_folder(target);
        if taken {
            return Err(CtlError::file(target, "there is something here already; nothing was changed"));
        }
        let name = target.file_name().ok_or_else(|| CtlError::file(target, "not the name of a folder"))?;
        let mut tag = [0; 4];
        getrandom::fill(&mut tag).map_err(|error| CtlError::new(error.to_string()))?;
        let unfinished = format!(".{}.{}", name.to_string_lossy(), super::output::hex(&tag));
        let making = target.with_file_name(unfinished);
        DirBuilder::new().mode(0o700).create(&making).map_err(|error| CtlError::file(&making, error))?;
        Ok(Self { target: target.into(), making: Some(making) })
    }

    /// Where it is being made.
    pub fn path(&self) -> &Path {
        self.making.as_deref().unwrap_or(&self.target)
    }

    /// Makes a folder in it.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn make_folder(&self, name: &str) -> Result<(), CtlError> {
        let path = self.path().join(name);
        DirBuilder::new().mode(0o700).create(&path).map_err(|error| CtlError::file(&path, error))
    }

    /// Writes a file that anybody may read who may enter the folder.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<(), CtlError> {
        write_new(&self.path().join(name), text.as_bytes(), 0o644)
    }

    /// Writes a file that only its owner may read.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_secret(&self, name: &str, bytes: &[u8]) -> Result<(), CtlError> {
        write_new(&self.path().join(name), bytes, 0o600)
    }

    /// Writes what a client needs beside its keys, `client.key` and, if it has one, `mandate.key`, and names
    /// `cluster.nodes`, if that is there.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_client(&self, certificate: &str, authority: &str, server: &Server) -> Result<(), CtlError> {
        self.write("client.pem", certificate)?;
        self.write("ca.pem", authority)?;
        let mut text = settings(server);
        for (name, file) in [("mandate_key", MANDATE_KEY), ("cluster_nodes", CLUSTER_NODES)] {
            if self.path().join(file).exists() {
                text += &format!("{name} = \"{file}\"\n");
            }
        }
        self.write(SETTINGS, &text)
    }

    /// Gives the folder its name.
    ///
    /// # Errors
    /// Somebody took the name meanwhile.
    pub fn finish(mut self) -> Result<(), CtlError> {
        let fail = |error: io::Error| CtlError::file(&self.target, error);
        File::open(self.path()).and_then(|folder| folder.sync_all()).map_err(fail)?;
        if is_empty_folder(&self.target) {
            fs::remove_dir(&self.target).map_err(fail)?;
        }
        renameat_with(CWD, self.path(), CWD, &self.target, RenameFlags::NOREPLACE)
            .map_err(|error| fail(error.into()))?;
        self.making = None;
        Ok(())
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        if let Some(making) = &self.making {
            // What cannot be removed stays, under a name that says it is unfinished.
            fs::remove_dir_all(making).unwrap_or_default();
        }
    }
}

fn is_empty_folder(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

/// Writes a file where there is none, and to the disk.
///
/// # Errors
/// There is one already, or it cannot be written.
pub fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CtlError> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error| CtlError::file(path, error))
}

/// Writes a file in the place of another or of none, whole or not at all, and to the disk.
///
/// # Errors
/// It cannot be written; then nothing has changed.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CtlError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let fresh = path.with_file_name(format!(".{name}.new"));
    let fail = |error: io::Error| CtlError::file(path, error);
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
        Ok(()) | Err(_) => {}
    }
    write_new(&fresh, bytes, mode)?;
    fs::rename(&fresh, path).map_err(fail)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(fail)
}

fn settings(server: &Server) -> String {
    let quote = |text: &str| toml::Value::from(text).to_string();
    format!(
        "# Made by hsmctl. For the provider: export STRONGROOM_CONFIG to this file's path.\n\
         [[token]]\nserver = {}\nserver_name = {}\nca = \"ca.pem\"\ncertificate = \"client.pem\"\nkey = \"client.key\"\n",
        quote(&server.address),
        quote(&server.name),
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn server() -> Server {
        Server { address: "hsm.example:7373".into(), name: "it's \"quoted\"".into() }
    }

    #[test]
    fn a_folder_appears_whole_and_is_read_back() {
        let place = tempfile::tempdir().unwrap();
        let target = place.path().join("alice");
        let folder = NewFolder::start(&target).unwrap();
        folder.write_secret("client.key", b"key").unwrap();
        folder.write_client("certificate", "authority", &server()).unwrap();
        assert!(!target.exists());
        folder.finish().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&target), 0o700);
        assert_eq!(mode(&target.join("client.key")), 0o600);
        let token = Token::read(&target).unwrap();
        assert_eq!(token.server(), server());
        assert_eq!(token.ca, target.join("ca.pem"));
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    }

    #[test]
    fn nothing_is_overwritten_and_nothing_is_left_behind() {
        let place = tempfile::tempdir().unwrap();
        let target = place.path().join("alice");
        fs::create_dir(&target).unwrap();
        fs::write(target.join("precious"), "1").unwrap();
        assert!(NewFolder::start(&target).is_err());

        let second = place.path().join("bob");
        let folder = NewFolder::start(&second).unwrap();
        fs::create_dir(&second).unwrap();
        fs::write(second.join("precious"), "2").unwrap();
        assert!(folder.finish().is_err());
        assert_eq!(fs::read(second.join("precious")).unwrap(), b"2");
        drop(NewFolder::start(&place.path().join("carol")).unwrap());
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2);
    }

    #[test]
    fn an_empty_folder_may_be_filled() {
        let place = tempfile::tempdir().unwrap();
        let target = place.path().join("alice");
        fs::create_dir(&target).unwrap();
        let folder = NewFolder::start(&target).unwrap();
        folder.write("a", "b").unwrap();
        folder.finish().unwrap();
        assert!(target.join("a").exists());
    }
}
