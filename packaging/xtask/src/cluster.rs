//! Several servers on loopback that are one cluster, with a partition and a client of the same names at each.

use std::{
    fs,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{
    Outcome,
    server::{Server, free_ports},
    shell::Shell,
    token::{PIN, Token},
    workspace::{Artefacts, shown},
};

/// How long nodes may take to find one another.
const PATIENCE: Duration = Duration::from_secs(40);

/// The nodes, in the order of their names.
#[derive(Debug)]
pub struct Nodes {
    /// Their servers.
    pub servers: Vec<Server>,
    shell: Shell,
    artefacts: Artefacts,
}

impl Nodes {
    /// Starts a server for each name, in a folder of that name.
    ///
    /// # Errors
    /// One does not start.
    pub fn start(shell: &Shell, artefacts: &Artefacts, folder: &Path, names: &[&str]) -> Outcome<Self> {
        let ports = free_ports(names.len())?;
        let mut servers = Vec::new();
        for (name, port) in names.iter().zip(&ports) {
            let mut server = Server::create_on(shell, artefacts, &folder.join(name), *port, &ports)?;
            server.start()?;
            servers.push(server);
        }
        Ok(Self { servers, shell: shell.clone(), artefacts: artefacts.clone() })
    }

    /// One of them.
    ///
    /// # Errors
    /// There are not so many.
    pub fn node(&mut self, index: usize) -> Outcome<&mut Server> {
        Ok(self.servers.get_mut(index).ok_or("there are not so many nodes")?)
    }

    /// Makes them one cluster, and waits until each has found the others.
    ///
    /// # Errors
    /// `hsmctl` failed, or they do not find one another.
    pub fn join(&self) -> Outcome {
        let (first, others) = self.servers.split_first().ok_or("a cluster of no nodes")?;
        first.hsmctl(&["cluster", "init", "--name", &name(first), "--yes"])?;
        for other in others {
            first.hsmctl(&["cluster", "join", &shown(&other.admin()), "--name", &name(other), "--yes"])?;
        }
        self.await_all()
    }

    /// Waits until each node finds every other one.
    ///
    /// # Errors
    /// They do not.
    pub fn await_all(&self) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        for server in &self.servers {
            let found = || -> Outcome<bool> {
                let listed = server.ask(&["--json", "cluster", "list"])?;
                let all = |flag: &str| listed.matches(flag).count() == self.servers.len();
                Ok(all("\"reachable\": true") && all("\"sealed\": true"))
            };
            while !found()? {
                if Instant::now() > deadline {
                    return Err("the nodes have not found one another within 40 s".into());
                }
                sleep(Duration::from_millis(100));
            }
        }
        Ok(())
    }

    /// Makes the partition at each node, and a client of it whose mandates all of them believe. Gives the client's
    /// `strongroom.toml` for each node.
    ///
    /// # Errors
    /// `hsmctl` failed.
    pub fn enrol(&self, partition: &str, client: &str) -> Outcome<Vec<PathBuf>> {
        let mut key: Option<String> = None;
        let mut configs = Vec::new();
        for server in &self.servers {
            let folder = server.state().join(client);
            let out = shown(&folder);
            server.hsmctl(&["partition", "create", partition])?;
            let add = ["client", "add", client, "--partition", partition, "--out", &out];
            let given = key.iter().flat_map(|key| ["--mandate-key", key.as_str()]);
            server.hsmctl(&add.into_iter().chain(given).collect::<Vec<_>>())?;
            key.get_or_insert(shown(&folder.join("mandate.key")));
            configs.push(folder.join("strongroom.toml"));
        }
        Ok(configs)
    }

    /// Makes a key that these nodes share, as the client in this folder.
    ///
    /// # Errors
    /// `hsmctl` failed.
    pub fn generate(&self, client: &Path, kind: &str, label: &str, id: &str, threshold: u8) -> Outcome {
        let pin = client.with_extension("pin");
        fs::write(&pin, PIN)?;
        let (tool, client, pin) = (self.artefacts.hsmctl(), shown(client), shown(&pin));
        let (threshold, parties) = (threshold.to_string(), self.servers.len().to_string());
        let words = [
            &[
                &tool[..],
                "key",
                "generate",
                "--client",
                &client,
                "--kind",
                kind,
                "--label",
                label,
                "--id",
                id,
            ][..],
            &["--threshold", &threshold, "--parties", &parties, "--pin-file", &pin],
        ];
        self.shell.run(&words.concat()).map(drop)
    }

    /// Initialises the partition's token at each node, with the client's `strongroom.toml` for each.
    ///
    /// # Errors
    /// `pkcs11-tool` failed.
    pub fn initialise(&self, configs: &[PathBuf], label: &str) -> Outcome {
        configs.iter().try_for_each(|config| self.token(config, label).initialise())
    }

    /// The token of the client at one node, as `pkcs11-tool` sees it.
    pub fn token(&self, config: &Path, label: &str) -> Token {
        let shell = self.shell.with("STRONGROOM_CONFIG", &config.display().to_string());
        Token { shell, module: self.artefacts.module(), label: label.into() }
    }
}

/// A node's name: its folder's.
pub fn name(server: &Server) -> String {
    server.state().file_name().unwrap_or_default().to_string_lossy().into_owned()
}
