//! Clients: their folders, their certificates, and the keys that they sign mandates with.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use strongroom_identity::{MandateKey, Nodes, PairError, RequestError};
use strongroom_shared::message::{AddClient, AdmitClient, AdmittedKey, ListClients, RevokeClient};
use zeroize::Zeroizing;

use super::{
    client::Connection,
    error::CtlError,
    folder::{self, CLUSTER_NODES, MANDATE_KEY, NewFolder, Token, replace, write_new},
    known::{self, Pin},
    manage::told,
    output::{self, Cell, For, Format, Table, note, say},
};
use crate::certificates::{self, pem};

/// `hsmctl client`
#[derive(Debug, Subcommand)]
pub enum Client {
    /// Makes a client: a folder with a new key, its certificate, the CA and strongroom.toml.
    Add(Add),
    /// Lets a client sign mandates for keys that several nodes share; makes its key if it has none, and tells it who the
    /// nodes are. Run it at each node of the cluster.
    Admit {
        /// The client's folder.
        folder: PathBuf,
    },
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
    /// The key that it signs mandates with, if it has one already from another server.
    #[arg(long, value_name = "FILE", conflicts_with = "administrator")]
    mandate_key: Option<PathBuf>,
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
    ("mandate_keys", For::All),
    ("fingerprint", For::Machines),
];

const ADMITTED: &[(&str, For)] = &[("name", For::All), ("partition", For::All), ("mandate_key", For::All)];

impl Client {
    /// Carries the command out.
    ///
    /// # Errors
    /// The server refused or cannot be reached, or the new folder cannot be made.
    pub fn run(&self, administrator: &Path, server: &mut Connection, format: Format) -> Result<(), CtlError> {
        match self {
            Self::Add(add) => add.run(administrator, server, format),
            Self::Admit { folder } => admit(administrator, folder, server, format),
            Self::List => list(server, format),
            Self::Revoke { name } => {
                let listed = server.call(&ListClients {})?;
                let mut clients = listed.clients.iter().filter(|client| client.name == *name).peekable();
                let admitted = listed.admitted.iter().flatten().any(|key| key.name == *name);
                if !admitted && clients.peek().is_some() && clients.all(|client| client.revoked) {
                    return told(say(format, &format!("{name} is already revoked")));
                }
                server.call(&RevokeClient { name: name.clone() })?;
                told(say(format, &format!("revoked {name}")))
            }
        }
    }
}

/// The start of a key, by which people tell it from others.
fn short(key: &[u8]) -> String {
    output::hex(key.get(..8).unwrap_or(key))
}

fn list(server: &mut Connection, format: Format) -> Result<(), CtlError> {
    let listed = server.call(&ListClients {})?;
    let admitted = listed.admitted.unwrap_or_default();
    let keys = |name: &str| {
        let of_it = admitted.iter().filter(|key| key.name == name).map(|key| short(&key.key));
        Cell::text(of_it.collect::<Vec<_>>().join(", "))
    };
    let known: Vec<_> = listed.clients.iter().map(|client| client.name.clone()).collect();
    let role = |partition: Option<String>| {
        Cell::text(partition.map_or("administrator".into(), |name| format!("partition {name}")))
    };
    let rows = listed.clients.into_iter().map(|client| {
        let keys = if client.revoked { Cell::Empty } else { keys(&client.name) };
        vec![
            Cell::text(client.name),
            role(client.partition),
            Cell::seconds(client.not_after),
            Cell::Flag(client.revoked),
            // What audit records name it by.
            Cell::text(short(&client.fingerprint)),
            keys,
            Cell::bytes(&client.fingerprint),
        ]
    });
    // Those whose certificates are another server's.
    let mut guests: Vec<&AdmittedKey> = admitted.iter().filter(|key| !known.contains(&key.name)).collect();
    guests.sort_by(|one, other| one.name.cmp(&other.name));
    guests.dedup_by(|one, other| one.name == other.name);
    let guests = guests.into_iter().map(|guest| {
        let (name, partition) = (Cell::text(&guest.name), role(Some(guest.partition.clone())));
        vec![name, partition, Cell::Empty, Cell::Flag(false), Cell::Empty, keys(&guest.name), Cell::Empty]
    });
    told(Table::new(CLIENTS).rows(rows).rows(guests).print(format))
}

fn unreadable(error: PairError) -> CtlError {
    CtlError::file(&error.path, error.reason)
}

fn no_key(error: RequestError) -> CtlError {
    CtlError::new(format!("a key could not be made: {error}"))
}

/// `hsmctl client admit`
fn admit(
    administrator: &Path,
    folder: &Path,
    server: &mut Connection,
    format: Format,
) -> Result<(), CtlError> {
    let token = Token::read_client(folder)?;
    let text = fs::read(&token.certificate).map_err(|error| CtlError::file(&token.certificate, error))?;
    let certificate = pem::parse(text).map_err(|error| CtlError::file(&token.certificate, error))?;
    let who = certificates::identity(certificate.contents())
        .map_err(|error| CtlError::file(&token.certificate, error))?;
    let partition = who.partition.ok_or_else(|| {
        CtlError::file(folder, "an administrator's folder").advise("only applications sign mandates")
    })?;
    let key = match &token.mandate_key {
        Some(path) => MandateKey::read(path).map_err(unreadable)?,
        None => make_mandate_key(folder)?,
    };
    if let Some(nodes) = nodes(administrator, server, &partition) {
        match &token.cluster_nodes {
            Some(path) => replace(path, nodes.as_bytes(), 0o644)?,
            None => {
                replace(&folder.join(CLUSTER_NODES), nodes.as_bytes(), 0o644)?;
                folder::name_file(folder, "cluster_nodes", CLUSTER_NODES)?;
            }
        }
    }
    let call = AdmitClient { name: who.client, partition, key: key.public().to_vec() };
    server.call(&call)?;
    let row = [Cell::text(call.name), Cell::text(call.partition), Cell::text(short(&call.key))];
    told(Table::new(ADMITTED).row(row).print_one(format))
}

/// The text of a client's `cluster.nodes`: its partition, and the nodes of the server's cluster, as far as the
/// administrator's folder proves them. None if there is no cluster, or, with a note, if they cannot be proven.
fn nodes(administrator: &Path, server: &mut Connection, partition: &str) -> Option<String> {
    let cluster = server.cluster()?;
    match known::document(administrator, server) {
        Ok(document) => {
            let members = document.membership().members.iter();
            let nodes = members.map(|member| (member.name.clone(), member.identity)).collect();
            Some(Nodes { cluster, partition: Some(partition.into()), nodes }.to_text())
        }
        Err(error) => {
            note(&format!(
                "this client is not told who the nodes are, and takes one node's word for the keys that they make \
                 together: {error}"
            ));
            None
        }
    }
}

/// Makes a mandate key in a client's folder, which has none, and has `strongroom.toml` name it.
fn make_mandate_key(folder: &Path) -> Result<MandateKey, CtlError> {
    let path = folder.join(MANDATE_KEY);
    if !path.exists() {
        write_new(&path, MandateKey::generate().map_err(no_key)?.as_bytes(), 0o600)?;
    }
    let key = MandateKey::read(&path).map_err(unreadable)?;
    folder::name_file(folder, "mandate_key", MANDATE_KEY)?;
    Ok(key)
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
        let mandate_key = match &partition {
            Some(partition) => {
                if let Some(nodes) = nodes(administrator, server, partition) {
                    folder.write(CLUSTER_NODES, &nodes)?;
                }
                Some(self.write_mandate_key(&folder)?)
            }
            None => None,
        };
        let days = self.days.unwrap_or(match &partition {
            Some(_) => APPLICATION_DAYS,
            None => ADMINISTRATOR_DAYS,
        });
        let made = server.call(&AddClient {
            name: self.name.clone(),
            partition: partition.clone(),
            request,
            days,
        })?;
        let unfinished =
            |error: CtlError| error.advise("the certificate was made: `hsmctl client revoke` it");
        let place = folder::Server {
            address: self.server.clone().unwrap_or_else(|| server.server().address.clone()),
            name: self.server_name.clone().unwrap_or_else(|| server.server().name.clone()),
        };
        if place.is_this_machine() {
            note(&format!(
                "this folder leads to {}, which is the machine that it is used on; for another machine say --server \
                 HOST:PORT",
                place.address
            ));
        }
        folder.write_client(&made.certificate, &made.authority, &place).map_err(unfinished)?;
        if let (Some(partition), Some(key)) = (partition, mandate_key) {
            let key = key.public().to_vec();
            server.call(&AdmitClient { name: self.name.clone(), partition, key }).map_err(unfinished)?;
        }
        folder.finish().map_err(unfinished)?;

        let not_after = pem::parse(&made.certificate)
            .ok()
            .and_then(|pem| certificates::life(pem.contents()).ok())
            .map_or(Cell::Empty, |life| Cell::seconds(life.not_after));
        let row = [Cell::text(&self.name), Cell::text(self.out.display().to_string()), not_after];
        told(Table::new(ADDED).row(row).print_one(format))
    }

    /// Puts the key for mandates into the folder: the one that was given, or a new one.
    fn write_mandate_key(&self, folder: &NewFolder) -> Result<MandateKey, CtlError> {
        let text = match &self.mandate_key {
            Some(given) => {
                MandateKey::read(given).map_err(unreadable)?;
                fs::read_to_string(given).map(Zeroizing::new).map_err(|error| CtlError::file(given, error))?
            }
            None => MandateKey::generate().map_err(no_key)?,
        };
        folder.write_secret(MANDATE_KEY, text.as_bytes())?;
        MandateKey::read(&folder.path().join(MANDATE_KEY)).map_err(unreadable)
    }
}
