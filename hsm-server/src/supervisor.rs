//! The supervisor: no key, no network. It starts vault and front, gives them new lanes to one another whenever
//! either is new, and starts again whichever dies.
//!
//! Stopping goes front first: it finishes what is in flight, then the vault closes, then the supervisor ends.
//! A child that dies before the server was ever ready ends the server: the fault is in the configuration, and
//! whoever started it should hear.

use std::{
    env, io,
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    thread,
    time::Duration,
};

use sd_notify::NotifyState;
use tokio::{
    process::{Child, Command},
    runtime::Builder,
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tracing::{debug, error, info, warn};

use crate::{
    config::{Config, Isolation},
    control::{Control, Report},
    process::Failure,
};

/// How soon a child that died is started again, the first time; it doubles with every death in a row.
const BACKOFF: Duration = Duration::from_millis(100);
/// The longest wait before a child is started again.
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// A child that lived this long died of something new.
const HEALTHY: Duration = Duration::from_secs(30);
/// How much longer than its own patience a child gets before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// The two children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Vault,
    Front,
}

impl Role {
    const fn name(self) -> &'static str {
        match self {
            Self::Vault => "vault",
            Self::Front => "front",
        }
    }
}

/// Runs the server until it is told to stop.
///
/// # Errors
/// A child cannot be started, or died before the server was ready.
pub fn run(config_path: &Path, config: &Config) -> Result<(), Failure> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (reports, reported) = mpsc::unbounded_channel();
        let place = |role| Place {
            role,
            config: config_path.to_path_buf(),
            reports: reports.clone(),
            running: None,
            due: None,
            deaths: 0,
        };
        let vault = (config.isolation == Isolation::Process).then(|| place(Role::Vault));
        let supervisor = Supervisor {
            lanes: config.lane_count(),
            patience: config.limits.stop() + GRACE,
            vault,
            front: place(Role::Front),
            open: false,
            address: None,
            was_ready: false,
        };
        supervisor.supervise(reported).await
    })
}

struct Supervisor {
    lanes: usize,
    patience: Duration,
    /// None if the vault lives in the front's process.
    vault: Option<Place>,
    front: Place,
    open: bool,
    address: Option<SocketAddr>,
    was_ready: bool,
}

/// The signals that the server understands.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Supervisor {
    async fn supervise(mut self, mut reports: mpsc::UnboundedReceiver<Report>) -> Result<(), Failure> {
        let mut signals = Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        };
        if let Some(vault) = &mut self.vault {
            vault.start()?;
        }
        self.front.start()?;
        self.connect();
        loop {
            tokio::select! {
                _ = signals.terminate.recv() => break,
                _ = signals.interrupt.recv() => break,
                _ = signals.hang_up.recv() => self.front.tell("reload", Control::reload),
                Some(report) = reports.recv() => self.hear(report),
                change = next_change(&mut self.vault) => self.change(Role::Vault, change)?,
                change = self.front.change() => self.change(Role::Front, change)?,
            }
        }
        self.stop().await
    }

    fn hear(&mut self, report: Report) {
        match report {
            Report::Open => self.open = true,
            Report::Listening(address) => self.address = Some(address),
            Report::Nonsense => {
                error!("the front is replaced: what it told the vault made no sense");
                self.front.kill();
            }
        }
        if let Some(address) = self.address
            && self.open
            && !self.was_ready
        {
            self.was_ready = true;
            info!(%address, "ready");
            notify(NotifyState::Ready);
        }
    }

    fn change(&mut self, role: Role, change: Change) -> Result<(), Failure> {
        let was_ready = self.was_ready;
        let place = match role {
            Role::Vault => self.vault.as_mut(),
            Role::Front => Some(&mut self.front),
        };
        let Some(place) = place else { return Ok(()) };
        match change {
            Change::Died(status) if !was_ready => {
                Err(format!("the {} ended before the server was ready: {}", role.name(), tell(&status))
                    .into())
            }
            Change::Died(status) => {
                error!(child = role.name(), status = tell(&status), "a child died and is started again");
                place.mourn();
                Ok(())
            }
            Change::Due => {
                place.start()?;
                self.connect();
                Ok(())
            }
        }
    }

    /// Gives vault and front new lanes, if both are there.
    fn connect(&self) {
        let Some(vault) = &self.vault else { return };
        if vault.running.is_none() || self.front.running.is_none() {
            return;
        }
        let pairs: io::Result<Vec<_>> = (0..self.lanes).map(|_| UnixStream::pair()).collect();
        match pairs {
            Ok(pairs) => {
                let (fronts, vaults): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
                vault.tell("lanes", |control| control.give_lanes(&vaults));
                self.front.tell("lanes", |control| control.give_lanes(&fronts));
            }
            Err(error) => error!(%error, "no lanes between front and vault"),
        }
    }

    async fn stop(mut self) -> Result<(), Failure> {
        info!("stopping");
        notify(NotifyState::Stopping);
        self.front.end(self.patience).await;
        if let Some(vault) = &mut self.vault {
            vault.end(self.patience).await;
        }
        info!("stopped");
        Ok(())
    }
}

async fn next_change(place: &mut Option<Place>) -> Change {
    match place {
        Some(place) => place.change().await,
        None => std::future::pending().await,
    }
}

/// What happens to a child.
enum Change {
    Died(io::Result<ExitStatus>),
    Due,
}

fn tell(status: &io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    }
}

/// Where a child is, or will be again.
struct Place {
    role: Role,
    config: PathBuf,
    reports: mpsc::UnboundedSender<Report>,
    running: Option<Running>,
    due: Option<Instant>,
    deaths: u32,
}

struct Running {
    child: Child,
    control: Control,
    since: Instant,
}

impl Place {
    fn start(&mut self) -> Result<(), Failure> {
        let (control, childs) = Control::pair()?;
        let child = Command::new(env::current_exe()?)
            .arg("--config")
            .arg(&self.config)
            .arg(self.role.name())
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::from(childs))
            .stdout(Stdio::null())
            // A terminal's Ctrl-C is for the supervisor, who stops the children in their order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        debug!(child = self.role.name(), pid = child.id(), "started");
        self.listen(control.try_clone()?);
        self.running = Some(Running { child, control, since: Instant::now() });
        self.due = None;
        Ok(())
    }

    /// Hears the child's reports until it is gone.
    fn listen(&self, control: Control) {
        let reports = self.reports.clone();
        thread::spawn(move || {
            while let Ok(Some(report)) = control.next_report() {
                if reports.send(report).is_err() {
                    break;
                }
            }
        });
    }

    async fn change(&mut self) -> Change {
        match (&mut self.running, self.due) {
            (Some(running), _) => Change::Died(running.child.wait().await),
            (None, Some(due)) => {
                sleep_until(due).await;
                Change::Due
            }
            (None, None) => std::future::pending().await,
        }
    }

    /// The child is dead: when will there be another?
    fn mourn(&mut self) {
        let healthy = self.running.take().is_some_and(|running| running.since.elapsed() >= HEALTHY);
        self.deaths = if healthy { 0 } else { self.deaths + 1 };
        let wait = BACKOFF.saturating_mul(1 << self.deaths.saturating_sub(1).min(10)).min(MAX_BACKOFF);
        self.due = Some(Instant::now() + wait);
    }

    fn tell(&self, what: &str, how: impl FnOnce(&Control) -> io::Result<()>) {
        if let Some(running) = &self.running
            && let Err(error) = how(&running.control)
        {
            warn!(child = self.role.name(), what, %error, "a child does not listen");
        }
    }

    fn kill(&mut self) {
        if let Some(running) = &mut self.running
            && let Err(error) = running.child.start_kill()
        {
            warn!(child = self.role.name(), %error, "a child cannot be killed");
        }
    }

    /// Has the child finish, and kills it if it does not within `patience`.
    async fn end(&mut self, patience: Duration) {
        self.tell("stop", Control::stop);
        let Some(running) = &mut self.running else { return };
        match timeout(patience, running.child.wait()).await {
            Ok(Ok(status)) if status.success() => {}
            Ok(Ok(status)) => warn!(child = self.role.name(), %status, "a child did not end well"),
            Ok(Err(error)) => warn!(child = self.role.name(), %error, "a child is lost"),
            Err(_) => {
                warn!(child = self.role.name(), "a child took too long to stop and is killed");
                if let Err(error) = running.child.kill().await {
                    warn!(child = self.role.name(), %error, "a child cannot be killed");
                }
            }
        }
    }
}

/// Tells systemd, if that started the server.
fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(false, &[state]) {
        warn!(%error, "systemd could not be told");
    }
}
