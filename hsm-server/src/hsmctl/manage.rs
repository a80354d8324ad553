//! Partitions, policies, switches and status.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use strongroom_shared::{
    message::{
        CreatePartition, DeletePartition, Freeze, ListPartitions, PartitionInfo, ReadPolicy, RenewServer,
        SetPolicy, Thaw,
    },
    object::ObjectId,
};

use super::{
    client::Connection,
    error::CtlError,
    output::{Cell, For, Format, Table, put, say},
};

/// `hsmctl partition`
#[derive(Debug, Subcommand)]
pub enum Partition {
    /// Makes a partition.
    Create {
        /// 1 to 32 of a-z, 0-9, - and _.
        name: String,
    },
    /// Lists the partitions.
    List,
    /// Destroys a partition, its keys included, and revokes its clients.
    Delete {
        /// Its name.
        name: String,
        /// Says that the keys may be destroyed.
        #[arg(long)]
        yes: bool,
    },
}

const PARTITIONS: &[(&str, For)] = &[
    ("name", For::All),
    ("serial", For::All),
    ("label", For::All),
    ("objects", For::All),
    ("frozen", For::All),
];

fn partition_row(partition: PartitionInfo) -> Vec<Cell> {
    let PartitionInfo { name, serial, label, objects, frozen } = partition;
    vec![Cell::text(name), Cell::text(serial), Cell::text(label), Cell::Number(objects), Cell::Flag(frozen)]
}

impl Partition {
    /// Carries the command out.
    ///
    /// # Errors
    /// The server refused or cannot be reached.
    pub fn run(&self, server: &mut Connection, format: Format) -> Result<(), CtlError> {
        match self {
            Self::Create { name } => {
                let made = server.call(&CreatePartition { name: name.clone() })?;
                told(Table::new(PARTITIONS).row(partition_row(made)).print_one(format))
            }
            Self::List => {
                let all = server.call(&ListPartitions {})?.partitions;
                told(Table::new(PARTITIONS).rows(all.into_iter().map(partition_row)).print(format))
            }
            Self::Delete { name, yes: true } => {
                server.call(&DeletePartition { name: name.clone() })?;
                told(say(format, &format!("deleted partition {name}")))
            }
            Self::Delete { name, yes: false } => {
                Err(CtlError::new(format!("this destroys every key of {name} for ever; nothing was done"))
                    .advise("say --yes if that is what you want"))
            }
        }
    }
}

/// `hsmctl policy`
#[derive(Debug, Subcommand)]
pub enum Policy {
    /// Puts a policy in force.
    Set {
        /// The partition's name.
        partition: String,
        /// A policy.toml; - for standard input.
        file: PathBuf,
    },
    /// Prints the policy in force.
    Show {
        /// The partition's name.
        partition: String,
    },
    /// Removes the policy: the keys' attributes alone decide again.
    Clear {
        /// The partition's name.
        partition: String,
    },
}

const POLICY: &[(&str, For)] = &[("partition", For::All), ("text", For::All)];

impl Policy {
    /// Carries the command out.
    ///
    /// # Errors
    /// The server refused or cannot be reached, or the file cannot be read.
    pub fn run(&self, server: &mut Connection, format: Format) -> Result<(), CtlError> {
        match self {
            Self::Set { partition, file } => {
                let text = read(file)?;
                if text.trim().is_empty() {
                    return Err(CtlError::new(format!(
                        "the policy is empty; to remove the policy: hsmctl policy clear {partition}"
                    )));
                }
                server.call(&SetPolicy { partition: partition.clone(), text })?;
                told(say(format, &format!("the policy of {partition} is in force")))
            }
            Self::Show { partition } => {
                let text = server.call(&ReadPolicy { partition: partition.clone() })?.text;
                match format {
                    Format::Human if text.is_empty() => {
                        told(say(format, "no policy: the keys' attributes alone decide"))
                    }
                    Format::Human => told(put(&text)),
                    Format::Json => {
                        let row = [Cell::text(partition), Cell::Text(text)];
                        told(Table::new(POLICY).row(row).print_one(format))
                    }
                }
            }
            Self::Clear { partition } => {
                // What removes a policy is an empty one.
                server.call(&SetPolicy { partition: partition.clone(), text: String::new() })?;
                told(say(format, &format!("the policy of {partition} is removed")))
            }
        }
    }
}

fn read(file: &Path) -> Result<String, CtlError> {
    let mut text = String::new();
    let result = if file == Path::new("-") {
        io::stdin().read_to_string(&mut text).map(drop)
    } else {
        fs::read_to_string(file).map(|read| text = read)
    };
    result.map(|()| text).map_err(|error| CtlError::file(file, error))
}

/// What `hsmctl freeze` and `hsmctl thaw` act on.
#[derive(Debug, Args)]
pub struct Target {
    /// The partition's name.
    partition: String,
    /// One key of it, as `hsmctl key list` names it.
    #[arg(long, value_name = "ID")]
    key: Option<String>,
}

impl Target {
    /// `hsmctl freeze`
    ///
    /// # Errors
    /// The server refused or cannot be reached.
    pub fn freeze(&self, server: &mut Connection, format: Format) -> Result<(), CtlError> {
        server.call(&Freeze { partition: self.partition.clone(), key: self.key()? })?;
        told(say(format, &format!("{self} is frozen")))
    }

    /// `hsmctl thaw`
    ///
    /// # Errors
    /// The server refused or cannot be reached.
    pub fn thaw(&self, server: &mut Connection, format: Format) -> Result<(), CtlError> {
        server.call(&Thaw { partition: self.partition.clone(), key: self.key()? })?;
        told(say(format, &format!("{self} is thawed")))
    }

    fn key(&self) -> Result<Option<ObjectId>, CtlError> {
        let parse = |text: &String| {
            text.parse().map_err(|_| {
                CtlError::new(format!("{text:?} is not a key's id")).advise("see `hsmctl key list PARTITION`")
            })
        };
        self.key.as_ref().map(parse).transpose()
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.key {
            None => write!(f, "partition {}", self.partition),
            Some(key) => write!(f, "key {key} of partition {}", self.partition),
        }
    }
}

/// `hsmctl server`
#[derive(Debug, Subcommand)]
pub enum Server {
    /// Has the server make itself a new key and certificate; it renews them by itself before they end.
    Renew {
        /// For how many days the certificate is to be good; as the present one if not said.
        #[arg(long)]
        days: Option<u32>,
    },
}

const RENEWED: &[(&str, For)] = &[("not_after", For::All), ("certificate", For::All)];

impl Server {
    /// Carries the command out.
    ///
    /// # Errors
    /// The server refused or cannot be reached.
    pub fn run(&self, server: &mut Connection, format: Format) -> Result<(), CtlError> {
        let Self::Renew { days } = self;
        let renewed = server.call(&RenewServer { days: *days })?;
        let fingerprint = renewed.fingerprint.get(..8).unwrap_or(&renewed.fingerprint);
        let row = [Cell::seconds(renewed.not_after), Cell::bytes(fingerprint)];
        told(Table::new(RENEWED).row(row).print_one(format))
    }
}

/// What it means that standard output is closed.
pub fn told(result: io::Result<()>) -> Result<(), CtlError> {
    result.map_err(|error| CtlError::new(format!("standard output: {error}")))
}
