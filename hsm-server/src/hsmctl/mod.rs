//! `hsmctl`: makes a server, and administers it over the port that applications use.
//!
//! Exit status: 0 done, 1 not done (standard error says why and what to do), 2 wrong usage.

mod administrators;
mod approve;
mod audit;
mod client;
mod clients;
mod cluster;
mod error;
mod folder;
mod generate;
pub mod init;
mod keys;
mod known;
mod manage;
mod output;
mod shares;
mod signers;
mod status;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use self::{
    client::Connection,
    error::CtlError,
    init::{Init, Initialise},
    output::Format,
};

/// Administers a Strongroom server.
#[derive(Debug, Parser)]
#[command(name = "hsmctl", version, about = "Administers a Strongroom HSM server")]
struct Arguments {
    /// An administrator's folder, as `hsmctl init` and `hsmctl client add --admin` make them; before the command.
    #[arg(long = "admin", value_name = "DIR", env = "STRONGROOM_ADMIN")]
    folder: Option<PathBuf>,
    /// Answer in JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

impl Arguments {
    const fn format(&self) -> Format {
        if self.json { Format::Json } else { Format::Human }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(Init),
    /// Makes, lists and deletes partitions: each is one application's token.
    #[command(subcommand)]
    Partition(manage::Partition),
    /// Makes, lists and revokes clients' certificates.
    #[command(subcommand)]
    Client(clients::Client),
    /// Lists keys, makes them as an application, and looks after the shares of those that nodes share.
    #[command(subcommand)]
    Key(keys::Key),
    /// Shows and sets what a partition's keys may be used for.
    #[command(subcommand)]
    Policy(manage::Policy),
    /// Stops every use of a partition's keys, or of one key.
    Freeze(manage::Target),
    /// Allows them again.
    Thaw(manage::Target),
    /// Makes servers the nodes of one cluster.
    #[command(subcommand)]
    Cluster(cluster::Cluster),
    /// Reads and verifies the audit log.
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Renews the server's own certificate.
    #[command(subcommand)]
    Server(manage::Server),
    /// Tells how the server is, and its cluster as far as it knows.
    Status,
}

/// Runs the command that the command line names. `initialise` makes a new vault's store.
pub fn main(initialise: Initialise) -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments, initialise) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(arguments.format(), &error);
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments, initialise: Initialise) -> Result<(), CtlError> {
    let format = arguments.format();
    if let Command::Init(init) = &arguments.command {
        return init.run(format, initialise);
    }
    if let Command::Key(keys::Key::Generate(generate)) = &arguments.command {
        return generate.run(format);
    }
    let folder = arguments.folder.as_deref().ok_or_else(|| {
        CtlError::new("which server?")
            .advise("name an administrator's folder: --admin DIR or STRONGROOM_ADMIN")
    })?;
    let server = &mut Connection::open(folder)?;
    match &arguments.command {
        // Done above: they are no administrator's.
        Command::Init(_) | Command::Key(keys::Key::Generate(_)) => Ok(()),
        Command::Partition(command) => command.run(server, format),
        Command::Client(command) => command.run(folder, server, format),
        Command::Key(keys::Key::List { partition, waiting: false }) => keys::list(partition, server, format),
        Command::Key(keys::Key::List { partition, waiting: true }) => {
            keys::list_waiting(partition, server, format)
        }
        Command::Key(keys::Key::Abandon(target)) => target.abandon(folder, server, format),
        Command::Key(keys::Key::Refresh(target)) => target.refresh(folder, server, format),
        Command::Key(keys::Key::Repair(repair)) => repair.run(folder, server, format),
        Command::Key(keys::Key::Reshare(reshare)) => reshare.run(folder, server, format),
        Command::Key(keys::Key::Share(reshare)) => reshare.share(folder, server, format),
        Command::Key(keys::Key::Approve(approve)) => approve.run(folder, server, format),
        Command::Policy(command) => command.run(server, format),
        Command::Freeze(target) => target.freeze(server, format),
        Command::Thaw(target) => target.thaw(server, format),
        Command::Cluster(command) => command.run(folder, server, format),
        Command::Audit(command) => command.run(server, format),
        Command::Server(command) => command.run(server, format),
        Command::Status => status::tell(server, format),
    }
}
