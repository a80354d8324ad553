//! A real server for the demo, the tests and the bench: its state in a folder, on a free port, ended by its id.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Child,
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    Outcome,
    shell::Shell,
    workspace::{Artefacts, shown},
};

/// How long a server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub struct Server {
    shell: Shell,
    artefacts: Artefacts,
    state: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Server {
    /// Makes a new state folder, on a port that was free a moment ago.
    ///
    /// # Errors
    /// `hsmctl init` failed.
    pub fn create(shell: &Shell, artefacts: &Artefacts, state: &Path) -> Outcome<Self> {
        Self::create_on(shell, artefacts, state, free_ports(1)?.first().copied().unwrap_or_default(), &[])
    }

    /// Makes a new state folder for a server on this port, which may call others on these.
    ///
    /// # Errors
    /// `hsmctl init` failed.
    pub fn create_on(
        shell: &Shell,
        artefacts: &Artefacts,
        state: &Path,
        port: u16,
        cluster: &[u16],
    ) -> Outcome<Self> {
        let (tool, state_shown, address) = (artefacts.hsmctl(), shown(state), format!("127.0.0.1:{port}"));
        let ports: Vec<_> = cluster.iter().map(u16::to_string).collect();
        let ports = ports.iter().flat_map(|port| ["--cluster-port", port.as_str()]);
        let init = [tool.as_str(), "init", "--state", &state_shown, "--listen", &address];
        shell.run(&init.into_iter().chain(ports).collect::<Vec<_>>())?;
        Ok(Self {
            shell: shell.clone(),
            artefacts: artefacts.clone(),
            state: state.into(),
            port,
            child: None,
        })
    }

    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// It ended instead, or took too long; the message holds its log.
    pub fn start(&mut self) -> Outcome {
        let config = shown(&self.state.join("server.toml"));
        let log = self.state.join("server.log");
        let mut child = self.shell.start(&[&self.artefacts.server(), "--config", &config], &log)?;
        let ready = await_listener(&mut child, self.port);
        self.child = Some(child);
        ready.map_err(|error| self.with_log(&*error))
    }

    /// An error, and what the server's log has to say of it.
    fn with_log(&self, error: &dyn std::error::Error) -> Box<dyn std::error::Error + Send + Sync> {
        let log = fs::read_to_string(self.state.join("server.log")).unwrap_or_else(|error| error.to_string());
        let lines: Vec<&str> = log.lines().rev().take(20).collect();
        format!("{error}\nThe server's log ends:\n{}", lines.into_iter().rev().collect::<Vec<_>>().join("\n"))
            .into()
    }

    /// Kills it, as a power failure would.
    ///
    /// # Errors
    /// There is no such process, or its children do not end.
    pub fn kill(&mut self) -> Outcome {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        kill_process(Pid::from_child(&child), Signal::KILL)?;
        child.wait()?;
        // Its front listens until it sees that its supervisor is gone: the next start must not take it for the new one.
        await_end(&shown(&self.state.join("server.toml")))
    }

    /// The id of the process that was started.
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its state folder.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The folder of its first administrator.
    pub fn admin(&self) -> PathBuf {
        self.state.join("admin")
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.state.join("server.toml")
    }

    /// Runs `hsmctl` as the administrator.
    ///
    /// # Errors
    /// It failed.
    pub fn hsmctl(&self, words: &[&str]) -> Outcome<String> {
        self.administer(&self.shell, words)
    }

    /// The same, unseen.
    ///
    /// # Errors
    /// It failed.
    pub fn ask(&self, words: &[&str]) -> Outcome<String> {
        self.administer(&self.shell.silent(), words)
    }

    fn administer(&self, shell: &Shell, words: &[&str]) -> Outcome<String> {
        let (tool, admin) = (self.artefacts.hsmctl(), shown(&self.state.join("admin")));
        let told = shell.run(&[&[tool.as_str(), "--admin", &admin], words].concat());
        told.map_err(|error| self.with_log(&*error))
    }

    /// Makes a partition and a client of it; gives the path of the client's `strongroom.toml`.
    ///
    /// # Errors
    /// `hsmctl` failed.
    pub fn enrol(&self, partition: &str, client: &str) -> Outcome<PathBuf> {
        let folder = self.state.join(client);
        self.hsmctl(&["partition", "create", partition])?;
        self.hsmctl(&["client", "add", client, "--partition", partition, "--out", &shown(&folder)])?;
        Ok(folder.join("strongroom.toml"))
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// It did not end cleanly, or not in time.
    pub fn stop(&mut self) -> Outcome {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        kill_process(Pid::from_child(&child), Signal::TERM)?;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = child.try_wait()? {
                return if status.success() { Ok(()) } else { Err(format!("hsm-server: {status}").into()) };
            }
            sleep(Duration::from_millis(20));
        }
        child.kill()?;
        child.wait()?;
        Err("hsm-server did not end within 20 s of SIGTERM".into())
    }

    /// Lets it run on after we have ended; gives its process id.
    pub fn keep(mut self) -> Option<u32> {
        self.child.take().map(|child| child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("{error}");
        }
    }
}

/// So many ports that were free a moment ago.
///
/// # Errors
/// There are none.
pub fn free_ports(count: usize) -> Outcome<Vec<u16>> {
    let listeners = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

/// Waits until no process runs with this configuration.
fn await_end(config: &str) -> Outcome {
    let runs = || -> Outcome<bool> {
        let lines =
            fs::read_dir("/proc")?.filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
        Ok(lines.into_iter().any(|line| line.split(|byte| *byte == 0).any(|word| word == config.as_bytes())))
    };
    let deadline = Instant::now() + PATIENCE;
    while runs()? {
        if Instant::now() > deadline {
            return Err("a process of a server that was killed still runs after 20 s".into());
        }
        sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn await_listener(child: &mut Child, port: u16) -> Outcome {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Err(format!("hsm-server ended at its start: {status}").into());
        }
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Ok(());
        }
        sleep(Duration::from_millis(20));
    }
    Err("hsm-server does not listen after 20 s".into())
}
