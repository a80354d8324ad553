//! `hsmctl cluster`: makes membership documents, signs them with administrators' keys, and gives them to nodes.
//!
//! An administrator's key for this is `cluster.key` in the administrator's folder: an Ed25519 key of its own, because
//! the key beside it, for TLS, is renewed now and then. Nodes hand a document on by themselves, so it is enough to
//! reach one node of the cluster and the one that joins.

use std::{
    fs,
    net::{SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};
use clap::{Args, Subcommand};
use strongroom_shared::message::{InstallMembership, Introduce, Introduction, MemberState, ReadCluster};

use super::{
    client::Connection,
    error::CtlError,
    folder::{Server, Token, write_new},
    manage::told,
    output::{Cell, For, Format, Table, say},
};
use crate::{
    certificates::{fingerprint, identity, pem},
    cluster::{Administrator, Document, Member, Membership, NodeId, document::ClusterId},
};

/// The file of an administrator's key for membership documents.
const KEY: &str = "cluster.key";

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
}

#[derive(Debug, Args)]
pub struct Init {
    /// This node's name: 1 to 32 of a-z, 0-9, - and _.
    #[arg(long)]
    name: String,
    /// Where other nodes reach it, if not where you do.
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    /// How many administrators must sign every later change.
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

#[derive(Debug, Args)]
struct Signers {
    /// The folder of another administrator, who signs too; may be repeated.
    #[arg(long = "with", value_name = "DIR")]
    others: Vec<PathBuf>,
}

const MEMBERS: &[(&str, For)] = &[
    ("name", For::All),
    ("address", For::All),
    ("reachable", For::All),
    ("sealed", For::All),
    ("version", For::All),
    ("seen", For::All),
    ("trouble", For::All),
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
            Self::List => list(server, format),
            Self::Remove(remove) => remove.run(folder, server, format),
        }
    }
}

/// An administrator with the key that signs documents.
struct Signer {
    name: String,
    pair: Ed25519KeyPair,
}

impl Signers {
    /// The administrator's own key and the others'.
    fn read(&self, folder: &Path) -> Result<Vec<Signer>, CtlError> {
        self.folders(folder).map(Signer::read).collect()
    }

    /// The same, made where there are none yet.
    fn read_or_make(&self, folder: &Path) -> Result<Vec<Signer>, CtlError> {
        for folder in self.folders(folder) {
            if !folder.join(KEY).exists() {
                Token::read(folder)?;
                let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
                    .map_err(|_| CtlError::new("a key could not be made"))?;
                write_new(&folder.join(KEY), pem("PRIVATE KEY", key.as_ref()).as_bytes(), 0o600)?;
            }
        }
        self.read(folder)
    }

    fn folders<'a>(&'a self, folder: &'a Path) -> impl Iterator<Item = &'a Path> {
        std::iter::once(folder).chain(self.others.iter().map(PathBuf::as_path))
    }
}

impl Signer {
    fn read(folder: &Path) -> Result<Self, CtlError> {
        let path = folder.join(KEY);
        let text = fs::read(&path).map_err(|error| {
            CtlError::file(&path, error).advise(
                "changes of a cluster are signed by the administrators that `hsmctl cluster init` listed",
            )
        })?;
        let key = pem::parse(text).map_err(|error| CtlError::file(&path, error))?;
        let pair =
            Ed25519KeyPair::from_pkcs8(key.contents()).map_err(|error| CtlError::file(&path, error))?;
        let token = Token::read(folder)?;
        let text = fs::read(&token.certificate).map_err(|error| CtlError::file(&token.certificate, error))?;
        let certificate = pem::parse(text).map_err(|error| CtlError::file(&token.certificate, error))?;
        let who =
            identity(certificate.contents()).map_err(|error| CtlError::file(&token.certificate, error))?;
        Ok(Self { name: who.client, pair })
    }

    fn listed(&self) -> Result<Administrator, CtlError> {
        let key = self.pair.public_key().as_ref().try_into();
        let key = key.map_err(|_| CtlError::new("an Ed25519 key of another length"))?;
        Ok(Administrator { name: self.name.clone(), key })
    }
}

fn sign(membership: &Membership, signers: &[Signer]) -> Result<Vec<u8>, CtlError> {
    let pairs: Vec<_> = signers.iter().map(|signer| &signer.pair).collect();
    membership.sign(&pairs).map_err(|refusal| CtlError::new(refusal.to_string()))
}

fn read(document: &[u8]) -> Result<Document, CtlError> {
    Document::read(document).map_err(|refusal| CtlError::new(format!("the server's {refusal}")))
}

/// The document that is in force on a server.
fn in_force(server: &mut Connection) -> Result<Document, CtlError> {
    let document = server.call(&ReadCluster {})?.document;
    if document.is_empty() {
        return Err(CtlError::new("this server belongs to no cluster")
            .advise("`hsmctl cluster init` begins one; `hsmctl --admin DIR_OF_A_NODE cluster join` adds a server to it"));
    }
    read(&document)
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

fn tell(membership: &Membership, format: Format) -> Result<(), CtlError> {
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
        let said = server.call(&Introduce { name: self.name.clone() })?;
        let signers = self.signers.read_or_make(folder)?;
        let mut cluster = [0; 16];
        getrandom::fill(&mut cluster).map_err(|error| CtlError::new(error.to_string()))?;
        let membership = Membership {
            cluster: ClusterId(cluster),
            version: 1,
            members: vec![member(said, &self.name, address, server.server())?],
            administrators: signers.iter().map(Signer::listed).collect::<Result<_, _>>()?,
            approvals: self.approvals,
        };
        server.call(&InstallMembership { document: sign(&membership, &signers)? })?;
        tell(&membership, format)
    }
}

impl Join {
    fn run(&self, folder: &Path, server: &mut Connection, format: Format) -> Result<(), CtlError> {
        let signers = self.signers.read(folder)?;
        let present = in_force(server)?;
        let mut joining = Connection::open(&self.folder)?;
        let address = place(self.address.as_ref(), joining.server())?;
        let said = joining.call(&Introduce { name: self.name.clone() })?;
        let new = member(said, &self.name, address, joining.server())?;

        let mut membership = present.membership().clone();
        let document = if membership.members.contains(&new) {
            present.bytes().to_vec()
        } else {
            if membership.members.iter().any(|other| other.name == new.name && other.identity != new.identity)
            {
                return Err(CtlError::new(format!("{} is another node's name", new.name)));
            }
            membership.members.retain(|other| other.identity != new.identity);
            membership.members.push(new);
            membership.members.sort_by(|one, other| one.name.cmp(&other.name));
            membership.version += 1;
            sign(&membership, &signers)?
        };
        server.call(&InstallMembership { document: document.clone() })?;
        joining.call(&InstallMembership { document }).map_err(|error| {
            CtlError::new(format!("the cluster knows {} now, but {error}", self.name))
                .advise("mend that and run the same command again")
        })?;
        tell(&membership, format)
    }
}

impl Remove {
    fn run(&self, folder: &Path, server: &mut Connection, format: Format) -> Result<(), CtlError> {
        let signers = self.signers.read(folder)?;
        let mut membership = in_force(server)?.membership().clone();
        let Some(gone) = membership.members.iter().position(|member| member.name == self.name) else {
            return Err(CtlError::new(format!("no node {}", self.name)).advise("see `hsmctl cluster list`"));
        };
        let gone = membership.members.remove(gone);
        let here = server.call(&Introduce { name: self.name.clone() })?.identity;
        if here == gone.identity {
            return Err(CtlError::new("a node does not take itself out, because nobody would hear of it")
                .advise("run it with --admin of another node"));
        }
        membership.version += 1;
        let document = sign(&membership, &signers)?;
        server.call(&InstallMembership { document: document.clone() })?;
        if let Some(folder) = &self.folder {
            let told = Connection::open(folder).and_then(|mut it| it.call(&InstallMembership { document }));
            told.map_err(|error| {
                CtlError::new(format!("{} is removed, but was not told: {error}", self.name))
            })?;
        }
        tell(&membership, format)
    }
}

fn list(server: &mut Connection, format: Format) -> Result<(), CtlError> {
    let cluster = server.call(&ReadCluster {})?;
    if cluster.document.is_empty() {
        return match format {
            Format::Human => told(say(format, "this server belongs to no cluster")),
            Format::Json => told(Table::new(MEMBERS).print(format)),
        };
    }
    let document = read(&cluster.document)?;
    let version = document.membership().version;
    let others: Vec<_> = differing(&cluster.members, version);
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
        ]
    });
    told(Table::new(MEMBERS).rows(rows).print(format))?;
    if others.is_empty() {
        return Ok(());
    }
    told(say(
        format,
        &format!(
            "version {version} is in force here and not at {}: nodes that can be reached catch up within seconds",
            others.join(", ")
        ),
    ))
}

/// The nodes that are known to have another version.
fn differing(members: &[MemberState], version: u64) -> Vec<String> {
    let differ = |member: &&MemberState| member.version.is_some_and(|theirs| theirs != version);
    members.iter().filter(differ).map(|member| member.name.clone()).collect()
}
