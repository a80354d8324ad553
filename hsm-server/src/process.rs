//! The roles of the one binary: supervisor, front and vault.
//!
//! `hsm-server` itself supervises; it starts itself again as `hsm-server front` and `hsm-server vault`, each with
//! a control socket for standard input. Nothing else of the two children is shared.

use std::{
    error::Error,
    io,
    os::unix::net::UnixStream,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use clap::{Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{error, info, warn};
use tracing_subscriber::EnvFilter;

use crate::{
    config::{self, Config, Isolation, Log, LogFormat},
    control::{Control, Order, Report},
    door::Door,
    front::{Front, Link},
    lane::{Keeper, LaneError, vital},
    sandbox::{self, Role},
    supervisor,
};

/// Whatever keeps a server from starting; it is logged and nothing else is done with it.
pub type Failure = Box<dyn Error + Send + Sync>;

/// How the binary gets its vault.
pub type OpenDoor = fn(&Config) -> Result<Arc<dyn Door>, Failure>;

/// How long the vault waits for lanes whose front should be gone.
const LANES_END: Duration = Duration::from_secs(5);
/// How many files a front has open beside its connections and lanes.
const OTHER_FILES: usize = 64;

/// The Strongroom HSM server.
#[derive(Debug, Parser)]
#[command(name = "hsm-server", version, about = "The Strongroom HSM server")]
struct Arguments {
    /// The configuration file.
    #[arg(long, global = true, env = "STRONGROOM_SERVER_CONFIG", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
    #[command(subcommand)]
    role: Option<Child>,
}

/// What the supervisor starts; not for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
enum Child {
    /// Terminates TLS.
    #[command(hide = true)]
    Front,
    /// Owns the keys.
    #[command(hide = true)]
    Vault,
}

/// Runs the server, in the role that the command line names. `open` opens the vault.
pub fn main(open: OpenDoor) -> ExitCode {
    let arguments = Arguments::parse();
    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => {
            start_log(&Log::default());
            error!(%error, "the configuration cannot be used");
            return ExitCode::FAILURE;
        }
    };
    start_log(&config.log);
    let result = match arguments.role {
        None => supervisor::run(&arguments.config, &config),
        Some(Child::Front) => front(&config, open),
        Some(Child::Vault) => vault(&config, open),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(%error, "{} cannot go on", role_name(arguments.role));
            ExitCode::FAILURE
        }
    }
}

fn role_name(role: Option<Child>) -> &'static str {
    match role {
        None => "the server",
        Some(Child::Front) => "the front",
        Some(Child::Vault) => "the vault",
    }
}

fn start_log(log: &Log) {
    let filter = EnvFilter::try_new(&log.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = match log.format {
        LogFormat::Human => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    // A second log in one process cannot be, and the first one goes on.
    if let Err(error) = started {
        error!(%error, "the log was started already");
    }
}

/// The vault: keys, and the lanes that it is handed.
fn vault(config: &Config, open: OpenDoor) -> Result<(), Failure> {
    let control = Control::from_stdin()?;
    sandbox::enter(Role::Vault, config)?;
    let keeper = Keeper::new(open(config)?, config)?;
    control.report(Report::Open)?;
    let mut lanes: Vec<JoinHandle<()>> = Vec::new();
    while let Some(order) = control.order()? {
        match order {
            Order::Lanes(sockets) => {
                lanes.retain(|lane| !lane.is_finished());
                for (number, socket) in (0..).zip(sockets) {
                    lanes.push(serve_lane(&keeper, number, socket.into(), control.try_clone()?)?);
                }
            }
            Order::Reload => {}
            Order::Stop => break,
        }
    }
    let patience = Instant::now() + LANES_END;
    while lanes.iter().any(|lane| !lane.is_finished()) && Instant::now() < patience {
        thread::sleep(Duration::from_millis(5));
    }
    keeper.close();
    info!("the vault is closed");
    Ok(())
}

fn serve_lane(
    keeper: &Arc<Keeper>,
    number: u64,
    socket: UnixStream,
    control: Control,
) -> io::Result<JoinHandle<()>> {
    let keeper = Arc::clone(keeper);
    vital(&format!("vault lane {number}"), move || match keeper.run(number, socket) {
        Ok(()) => {}
        Err(LaneError::Socket(error)) => error!(number, %error, "a lane broke"),
        Err(LaneError::Nonsense(error)) => {
            error!(number, %error, "the front talks nonsense");
            if control.report(Report::Nonsense).is_err() {
                error!("there is no supervisor");
            }
        }
    })
}

/// The front, and with `isolation = "thread"` the vault too.
fn front(config: &Config, open: OpenDoor) -> Result<(), Failure> {
    let control = Control::from_stdin()?;
    let keeper = match config.isolation {
        Isolation::Process => {
            sandbox::enter(Role::Front, config)?;
            None
        }
        Isolation::Thread => {
            sandbox::enter(Role::Both, config)?;
            let keeper = Keeper::new(open(config)?, config)?;
            control.report(Report::Open)?;
            Some(keeper)
        }
    };
    make_room_for_connections(config);
    let front = Front::start(config)?;
    if let Some(keeper) = &keeper {
        front.link((0..front.lane_count()).map(|_| Link::InProcess(Arc::clone(keeper))).collect());
    }
    control.report(Report::Listening(front.address()))?;
    while let Some(order) = control.order()? {
        match order {
            Order::Lanes(sockets) => {
                front.link(sockets.into_iter().map(|socket| Link::Socket(socket.into())).collect());
            }
            Order::Reload => front.reload(),
            Order::Stop => break,
        }
    }
    front.stop();
    if let Some(keeper) = keeper {
        keeper.close();
    }
    info!("the front has stopped");
    Ok(())
}

/// Raises the limit of open files as far as the system lets us; the usual 1024 are too few.
fn make_room_for_connections(config: &Config) {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        warn!(%error, "the limit of open files stays as it is");
    }
    let needed = (config.limits.connections + config.lane_count() + OTHER_FILES) as u64;
    if let Some(files) = getrlimit(Resource::Nofile).current
        && files < needed
    {
        warn!(files, needed, "limits.connections cannot be reached: raise LimitNOFILE= or `ulimit -n`");
    }
}
