//! Partitions, clients, keys, policies, switches and status.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use strongroom_shared::{
    message::{
        AddClient, CreatePartition, DeletePartition, Freeze, KeyInfo, ListClients, ListKeys, ListPartitions,
        PartitionInfo, ReadPolicy, ReadStatus, RenewServer, RevokeClient, SetPolicy, Thaw,
    },
    object::ObjectId,
};

use super::{
    client::Connection,
    error::CtlError,
    folder::{self, NewFolder},
    known::Pin,
    output::{Cell, For, Format, Table, put, say},
};
use crate::certificates::{self, pem};

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

/// `hsmctl client`
#[derive(Debug, Subcommand)]
pub enum Client {
    /// Makes a client: a folder with a new key, its certificate, the CA and strongroom.toml.
    Add(Add),
    /// Lists the clients.
    List,
    /// Ends a client's access, open connections included.
    Revoke {
        /// Its name.
        name: String,
    },
}

/// `hsmctl client add`
#[derive(Debug, Args)]
pub struct Add {
    /// 1 to 32 of a-z, 0-9, - and _.
    name: String,
    #[command(flatten)]
    role: Role,
    /// The folder to make.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// For how many days the certificate, and those that renew it, are to be good: 30 for an application, which
    /// renews it while it runs, 365 for an administrator, who may not come often.
    #[arg(long)]
    days: Option<u32>,
    /// Where this client reaches the server, if not where you do.
    #[arg(long, value_name = "HOST:PORT")]
    server: Option<String>,
    /// The name that it finds in the server's certificate, if not the one that you do.
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Role {
    /// The partition that the client may use.
    #[arg(long, value_name = "NAME")]
    partition: Option<String>,
    /// Makes an administrator.
    #[arg(long = "admin")]
    administrator: bool,
}

const CLIENTS: &[(&str, For)] = &[
    ("name", For::All),
    ("role", For::All),
    ("not_after", For::All),
    ("revoked", For::All),
    ("certificate", For::All),
    ("fingerprint", For::Machines),
];

impl Client {
    /// Carries the command out.
    ///
    /// # Errors
    /// The server refused or cannot be reached, or the new folder cannot be made.
    pub fn run(&self, folder: &Path, server: &mut Connection, format: Format) -> Result<(), CtlError> {
        match self {
            Self::Add(add) => add.run(folder, server, format),
            Self::List => {
                let rows = server.call(&ListClients {})?.clients.into_iter().map(|client| {
                    let role =
                        client.partition.map_or("administrator".into(), |name| format!("partition {name}"));
                    vec![
                        Cell::text(client.name),
                        Cell::text(role),
                        Cell::seconds(client.not_after),
                        Cell::Flag(client.revoked),
                        // What audit records name it by.
                        Cell::bytes(client.fingerprint.get(..8).unwrap_or(&client.fingerprint)),
                        Cell::bytes(&client.fingerprint),
                    ]
                });
                told(Table::new(CLIENTS).rows(rows).print(format))
            }
            Self::Revoke { name } => {
                let mut clients = server.call(&ListClients {})?.clients;
                clients.retain(|client| client.name == *name);
                if !clients.is_empty() && clients.iter().all(|client| client.revoked) {
                    return told(say(format, &format!("{name} is already revoked")));
                }
                server.call(&RevokeClient { name: name.clone() })?;
                told(say(format, &format!("revoked {name}")))
            }
        }
    }
}

/// The life of an application's certificate, in days. It is renewed in the last third, so a program has to run
/// within these ten days; one that runs once a month needs 100.
const APPLICATION_DAYS: u32 = 30;
/// The life of an administrator's certificate, in days: if all of them end, nobody can let one in.
const ADMINISTRATOR_DAYS: u32 = 365;

const ADDED: &[(&str, For)] = &[("name", For::All), ("folder", For::All), ("not_after", For::All)];

impl Add {
    fn run(&self, administrator: &Path, server: &mut Connection, format: Format) -> Result<(), CtlError> {
        let malformed = |error: certificates::CertificateError| CtlError::new(error.to_string());
        // The folder first: if it cannot be made, no certificate is.
        let folder = NewFolder::start(&self.out)?;
        let (key, request) = certificates::request(&self.name).map_err(malformed)?;
        folder.write_secret("client.key", pem("PRIVATE KEY", &key).as_bytes())?;
        if self.role.administrator
            && let Some(pin) = Pin::read(administrator)?
        {
            pin.write(folder.path())?;
        }

        let partition = self.role.partition.clone();
        let days = self.days.unwrap_or(match &partition {
            Some(_) => APPLICATION_DAYS,
            None => ADMINISTRATOR_DAYS,
        });
        let made = server.call(&AddClient { name: self.name.clone(), partition, request, days })?;
        let unfinished =
            |error: CtlError| error.advise("the certificate was made: `hsmctl client revoke` it");
        let place = folder::Server {
            address: self.server.clone().unwrap_or_else(|| server.server().address.clone()),
            name: self.server_name.clone().unwrap_or_else(|| server.server().name.clone()),
        };
        folder.write_client(&made.certificate, &made.authority, &place).map_err(unfinished)?;
        folder.finish().map_err(unfinished)?;

        let not_after = pem::parse(&made.certificate)
            .ok()
            .and_then(|pem| certificates::life(pem.contents()).ok())
            .map_or(Cell::Empty, |life| Cell::seconds(life.not_after));
        let row = [Cell::text(&self.name), Cell::text(self.out.display().to_string()), not_after];
        told(Table::new(ADDED).row(row).print_one(format))
    }
}

/// `hsmctl key`
#[derive(Debug, Subcommand)]
pub enum Key {
    /// Lists a partition's token keys; never their values.
    List {
        /// The partition's name.
        partition: String,
    },
}

const KEYS: &[(&str, For)] = &[
    ("id", For::All),
    ("class", For::All),
    ("type", For::All),
    ("bits", For::All),
    ("label", For::All),
    ("cka_id", For::All),
    ("frozen", For::All),
    ("private", For::Machines),
    ("size", For::Machines),
];

fn key_row(key: KeyInfo) -> Vec<Cell> {
    let KeyInfo { object, label, id, frozen } = key;
    vec![
        Cell::text(object.id.to_string()),
        Cell::text(class(object.class)),
        object.key_type.map_or(Cell::Empty, |kind| Cell::text(key_type(kind))),
        Cell::Number(object.bits.into()),
        Cell::text(label),
        Cell::bytes(&id),
        Cell::Flag(frozen),
        Cell::Flag(object.private),
        Cell::Number(object.size.into()),
    ]
}

fn class(class: u64) -> String {
    match class {
        pkcs11_sys::CKO_PUBLIC_KEY => "public".into(),
        pkcs11_sys::CKO_PRIVATE_KEY => "private".into(),
        pkcs11_sys::CKO_SECRET_KEY => "secret".into(),
        other => format!("{other:#x}"),
    }
}

fn key_type(kind: u64) -> String {
    match kind {
        pkcs11_sys::CKK_RSA => "RSA".into(),
        pkcs11_sys::CKK_EC => "EC".into(),
        pkcs11_sys::CKK_EC_EDWARDS => "Edwards".into(),
        pkcs11_sys::CKK_AES => "AES".into(),
        pkcs11_sys::CKK_GENERIC_SECRET => "generic".into(),
        other => format!("{other:#x}"),
    }
}

impl Key {
    /// Carries the command out.
    ///
    /// # Errors
    /// The server refused or cannot be reached.
    pub fn run(&self, server: &mut Connection, format: Format) -> Result<(), CtlError> {
        let Self::List { partition } = self;
        let keys = server.call(&ListKeys { partition: partition.clone() })?.keys;
        told(Table::new(KEYS).rows(keys.into_iter().map(key_row)).print(format))
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

const STATUS: &[(&str, For)] = &[
    ("server", For::All),
    ("started", For::All),
    ("partitions", For::All),
    ("objects", For::All),
    ("session_objects", For::All),
    ("audit_records", For::All),
    ("isolation", For::All),
    ("commit", For::All),
    ("certificate_not_after", For::All),
];

/// `hsmctl status`
///
/// # Errors
/// The server refused or cannot be reached.
pub fn status(server: &mut Connection, format: Format) -> Result<(), CtlError> {
    let status = server.call(&ReadStatus {})?;
    let row = [
        Cell::text(status.server),
        Cell::seconds(status.started),
        Cell::Number(status.partitions),
        Cell::Number(status.objects),
        Cell::Number(status.session_objects),
        Cell::Number(status.audit_records),
        Cell::text(status.isolation),
        Cell::text(status.commit),
        Cell::seconds(server.certificate_end()),
    ];
    told(Table::new(STATUS).row(row).print_one(format))
}

/// What it means that standard output is closed.
pub fn told(result: io::Result<()>) -> Result<(), CtlError> {
    result.map_err(|error| CtlError::new(format!("standard output: {error}")))
}
