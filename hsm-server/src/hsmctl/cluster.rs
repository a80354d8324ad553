//! `hsmctl cluster`: makes membership documents, has administrators sign them, and gives them to nodes.
//!
//! What a server says of itself and of its cluster is believed only as its vault's own word, and only as far as it
//! follows from what the administrator's folder knows ([`super::known`]): its front cannot have anything else signed.
//! Nodes hand a document on by themselves, so it is enough to reach one node of the cluster and the one that joins.

use std::{
    net::{SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use clap::{Args, Subcommand};
use strongroom_shared::message::{InstallMembership, Introduction, MemberState, ReadCluster};

use super::{
    administrators,
    client::Connection,
    error::CtlError,
    folder::Server,
    known::{self, PINNED, Pin, introduce},
    manage::told,
    output::{Cell, For, Format, Table, note, say},
    signers::{Signers, next_version},
};
use crate::{
    certificates::fingerprint,
    cluster::{Document, Member, Membership, NodeId, document::ClusterId},
};

/// `hsmctl cluster`
#[derive(Debug, Subcommand)]
pub enum Cluster {
    /// Begins a cluster, with this server as its first node.
    Init(Init),
    /// Adds another server to the cluster of this one.
    Join(Join),
    /// Lists the nodes, as this one finds them.
    List,
    /// Takes a node out of the cluster of this one.
    Remove(Remove),
    /// Lists who may sign the cluster's changes and the orders about shares.
    Administrators,
    /// Makes this folder's key for signing those, if it has none, and shows the public key.
    Key,
    /// Adds an administrator to those who sign.
    AdmitAdministrator(administrators::Admit),
    /// Takes one from them.
    DismissAdministrator(administrators::Dismiss),
    /// Tells this folder by which fingerprint to know its node, as the server's log at its machine shows it.
    Pin {
        /// 64 hexadecimal digits.
        fingerprint: Pin,
    },
}

#[derive(Debug, Args)]
pub struct Init {
    /// This node's name: 1 to 32 of a-z, 0-9, - and _.
    #[arg(long)]
    name: String,
    /// Where other nodes reach it, if not where you do.
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    /// How many administrators must sign every later change. One of the administrators themselves takes two in any case,
    /// once there are two.
    #[arg(long, default_value_t = 1, value_name = "COUNT")]
    approvals: u32,
    #[command(flatten)]
    signers: Signers,
}

#[derive(Debug, Args)]
pub struct Join {
    /// An administrator's folder of the server that is to join.
    folder: PathBuf,
    /// Its name in the cluster: 1 to 32 of a-z, 0-9, - and _.
    #[arg(long)]
    name: String,
    /// Where other nodes reach it, if not where you do.
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    #[command(flatten)]
    signers: Signers,
}

#[derive(Debug, Args)]
pub struct Remove {
    /// The node's name.
    name: String,
    /// An administrator's folder of that node, to tell it too, if it can be reached.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    #[command(flatten)]
    signers: Signers,
}

const MEMBERS: &[(&str, For)] = &[
    ("name", For::All),
    ("address", For::All),
    ("reachable", For::All),
    ("sealed", For::All),
    ("version", For::All),
    ("seen", For::All),
    ("trouble", For::All),
    ("fingerprint", For::Machines),
];

const CHANGED: &[(&str, For)] =
    &[("cluster", For::All), ("version", For::All), ("members", For::All), ("approvals", For::All)];

impl Cluster {
    /// Carries the command out. `folder` is the administrator's.
    ///
    /// # Errors
    /// A server refused or cannot be reached, or a key cannot be read; the message says what was done before.
    pub fn run(&self, folder: &Path, server: &mut Connection, format: Format) -> Result<(), CtlError> {
        match self {
            Self::Init(init) => init.run(folder, server, format),
            Self::Join(join) => join.run(folder, server, format),
            Self::List => list(folder, server, format),
            Self::Remove(remove) => remove.run(folder, server, format),
            Self::Administrators => administrators::list(folder, server, format),
            Self::Key => administrators::show_key(folder, format),
            Self::AdmitAdministrator(admit) => admit.run(folder, server, format),
            Self::DismissAdministrator(dismiss) => dismiss.run(folder, server, format),
            Self::Pin { fingerprint } => {
                fingerprint.introduce(server, PINNED)?;
                fingerprint.write(folder)?;
                told(say(format, "this is the node; its fingerprint is kept"))
            }
        }
    }
}

/// The document that is in force on a server, by its vault's own word and as the signers' folders know it.
///
/// # Errors
/// There is none, or it does not follow from what the folders know.
pub fn in_force(
    folder: &Path,
    server: &mut Connection,
    said: &Introduction,
    signers: &Signers,
) -> Result<Document, CtlError> {
    if said.document.is_empty() {
        return Err(CtlError::new("this server belongs to no cluster")
            .advise("`hsmctl cluster init` begins one; `hsmctl --admin DIR_OF_A_NODE cluster join` adds a server to it"));
    }
    known::in_force(server, known::read(&said.document)?, signers.folders(folder))
}

/// A server that is one cluster's node cannot become another's.
fn check_free(said: &Introduction, cluster: Option<ClusterId>) -> Result<(), CtlError> {
    if said.document.is_empty() {
        return Ok(());
    }
    let document = known::read(&said.document)?;
    let theirs = document.membership();
    let member = theirs.members.iter().any(|member| member.identity == *said.identity);
    if member && cluster != Some(theirs.cluster) {
        return Err(CtlError::new(format!("this server belongs to cluster {}", theirs.cluster))
            .advise("`hsmctl --admin DIR_OF_ANOTHER_NODE cluster remove` takes it out"));
    }
    Ok(())
}

/// A server as a member, by what it says of itself.
fn member(said: Introduction, name: &str, address: SocketAddr, server: &Server) -> Result<Member, CtlError> {
    let key = |bytes: Vec<u8>| {
        bytes.try_into().map_err(|_| CtlError::new("the server introduced itself with a malformed key"))
    };
    Ok(Member {
        name: name.into(),
        address: address.to_string(),
        server_name: server.name.clone(),
        id: NodeId(fingerprint(&said.certificate)),
        identity: key(said.identity)?,
        sealing: key(said.sealing)?,
        authority: said.authority,
    })
}

/// Where other nodes reach a server: an address, because fronts ask no name server.
fn place(given: Option<&String>, server: &Server) -> Result<SocketAddr, CtlError> {
    let text = given.unwrap_or(&server.address);
    let found = text.to_socket_addrs().map_err(|error| CtlError::new(format!("{text}: {error}")));
    found?.next().ok_or_else(|| CtlError::new(format!("{text}: no such address")))
}

/// How long the other nodes may take to take up a document.
const SPREADING: Duration = Duration::from_secs(4);
/// How often it is looked whether they have.
const LOOK: Duration = Duration::from_millis(100);

/// Waits until every node is under the document of this version, so that whatever comes next finds them so; and says which
/// are not, if it takes too long.
///
/// # Errors
/// The server cannot be reached.
pub fn spread(server: &mut Connection, version: u64) -> Result<(), CtlError> {
    let until = Instant::now() + SPREADING;
    loop {
        let members = server.call(&ReadCluster {})?.members;
        let is_late =
            |member: &&MemberState| !member.sealed || member.version.is_none_or(|known| known < version);
        let late: Vec<&str> = members.iter().filter(is_late).map(|member| member.name.as_str()).collect();
        if late.is_empty() {
            return Ok(());
        }
        if Instant::now() >= until {
            note(&format!(
                "not under version {version} yet: {}; they take it up when they are there, see `hsmctl cluster list`",
                late.join(", ")
            ));
            return Ok(());
        }
        thread::sleep(LOOK);
    }
}

/// Tells what a document says that is in force since now.
///
/// # Errors
/// Standard output is closed.
pub fn tell(membership: &Membership, format: Format) -> Result<(), CtlError> {
    let names: Vec<_> = membership.members.iter().map(|member| member.name.as_str()).collect();
    let approvals = format!("{} of {}", membership.approvals, membership.administrators.len());
    let row = [
        Cell::text(membership.cluster.to_string()),
        Cell::Number(membership.version),
        Cell::text(names.join(", ")),
        Cell::text(approvals),
    ];
    told(Table::new(CHANGED).row(row).print_one(format))
}

impl Init {
    fn run(&self, folder: &Path, server: &mut Connection, format: Format) -> Result<(), CtlError> {
        let address = place(self.address.as_ref(), server.server())?;
        let said = introduce(folder, server, &self.name)?;
        check_free(&said, None)?;
        let mut cluster = [0; 16];
        getrandom::fill(&mut cluster).map_err(|error| CtlError::new(error.to_string()))?;
        let membership = Membership {
            cluster: ClusterId(cluster),
            version: 1,
            members: vec![member(said, &self.name, address, server.server())?],
            administrators: self.signers.listed(folder)?,
            approvals: self.approvals,
        };
        let document = self.signers.sign(folder, None, &membership)?;
        server.call(&InstallMembership { document: document.bytes().to_vec() })?;
        tell(&membership, format)
    }
}

impl Join {
    fn run(&self, folder: &Path, server: &mut Connection, format: Format) -> Result<(), CtlError> {
        self.signers.check(folder)?;
        let here = introduce(folder, server, &self.name)?;
        let present = in_force(folder, server, &here, &self.signers)?;
        let mut joining = Connection::open(&self.folder)?;
        let address = place(self.address.as_ref(), joining.server())?;
        let said = introduce(&self.folder, &mut joining, &self.name)?;
        check_free(&said, Some(present.membership().cluster))?;
        let new = member(said, &self.name, address, joining.server())?;

        let mut membership = present.membership().clone();
        let document = if membership.members.contains(&new) {
            present
        } else {
            if membership.members.iter().any(|other| other.name == new.name && other.identity != new.identity)
            {
                return Err(CtlError::new(format!("{} is another node's name", new.name)));
            }
            membership.members.retain(|other| other.identity != new.identity);
            membership.members.push(new);
            membership.members.sort_by(|one, other| one.name.cmp(&other.name));
            membership.version = next_version(&membership)?;
            self.signers.sign(folder, Some(&present), &membership)?
        };
        let document = document.bytes();
        server.call(&InstallMembership { document: document.to_vec() })?;
        joining.call(&InstallMembership { document: document.to_vec() }).map_err(|error| {
            CtlError::new(format!("the cluster knows {} now, but {error}", self.name))
                .advise("mend that and run the same command again")
        })?;
        spread(server, membership.version)?;
        tell(&membership, format)
    }
}

impl Remove {
    fn run(&self, folder: &Path, server: &mut Connection, format: Format) -> Result<(), CtlError> {
        self.signers.check(folder)?;
        let here = introduce(folder, server, &self.name)?;
        let present = in_force(folder, server, &here, &self.signers)?;
        let mut membership = present.membership().clone();
        let Some(gone) = membership.members.iter().position(|member| member.name == self.name) else {
            return Err(CtlError::new(format!("no node {}", self.name)).advise("see `hsmctl cluster list`"));
        };
        let gone = membership.members.remove(gone);
        if *here.identity == gone.identity {
            return Err(CtlError::new("a node does not take itself out, because nobody would hear of it")
                .advise("run it with --admin of another node"));
        }
        membership.version = next_version(&membership)?;
        let document = self.signers.sign(folder, Some(&present), &membership)?;
        let call = InstallMembership { document: document.bytes().to_vec() };
        server.call(&call)?;
        if let Some(folder) = &self.folder {
            let told = Connection::open(folder).and_then(|mut it| it.call(&call));
            told.map_err(|error| {
                CtlError::new(format!("{} is removed, but was not told: {error}", self.name))
            })?;
        }
        spread(server, membership.version)?;
        tell(&membership, format)
    }
}

fn list(folder: &Path, server: &mut Connection, format: Format) -> Result<(), CtlError> {
    let cluster = server.call(&ReadCluster {})?;
    if cluster.document.is_empty() {
        return match format {
            Format::Human => told(say(format, "this server belongs to no cluster")),
            Format::Json => told(Table::new(MEMBERS).print(format)),
        };
    }
    let document = known::read(&cluster.document)?;
    let notes = notes(&document, &cluster.members);
    let members = document.membership().members.iter();
    let rows = members.zip(cluster.members).map(|(member, state)| {
        vec![
            Cell::text(state.name),
            Cell::text(&member.address),
            Cell::Flag(state.reachable),
            Cell::Flag(state.sealed),
            state.version.map_or(Cell::Empty, Cell::Number),
            state.seen.map_or(Cell::Empty, Cell::seconds),
            Cell::text(state.trouble),
            Cell::bytes(&fingerprint(&member.identity)),
        ]
    });
    told(Table::new(MEMBERS).rows(rows).print(format))?;
    notes.iter().try_for_each(|note| told(say(format, note)))?;
    known::tell_judgement(folder, &document, format)
}

/// Which nodes have another document than the one in force here.
fn notes(document: &Document, members: &[MemberState]) -> Vec<String> {
    let version = document.membership().version;
    let named = |which: &dyn Fn(&MemberState) -> bool| {
        let names: Vec<_> = members.iter().filter(|one| which(one)).map(|one| one.name.as_str()).collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    let late = named(&|member| member.version.is_some_and(|theirs| theirs != version)).map(|names| {
        format!("version {version} is in force here and not at {names}: nodes that can be reached catch up within seconds")
    });
    let split = named(&|member| {
        let other = member.digest.as_ref().is_some_and(|digest| **digest != *document.digest());
        other && member.version == Some(version)
    });
    let split = split.map(|names| {
        format!(
            "SPLIT: two documents of version {version} were signed, and {names} took the other one: nothing sealed \
             passes between the two sides until a later version is in force at both"
        )
    });
    late.into_iter().chain(split).collect()
}
