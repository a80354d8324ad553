//! The one door between whoever carries frames and the vault.
//!
//! The vault implements [`Door`]; lanes knock: in the vault's own process behind a socket pair
//! (`isolation = "process"`), or on the front's own thread (`isolation = "thread"`).

use std::{net::SocketAddr, sync::Arc};

use strongroom_shared::fault::Fault;

use crate::cluster::Peers;

/// A client for ever, whatever certificate it shows and whoever has its name later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientId(pub [u8; 16]);

impl ClientId {
    /// Another node, as a client of this one: by its Ed25519 public key, of which half tells it apart.
    pub fn of_node(identity: &[u8; 32]) -> Self {
        let mut id = [0; 16];
        id.iter_mut().zip(identity).for_each(|(to, from)| *to = *from);
        Self(id)
    }
}

/// Who a connection is: made by the vault from the certificate, opaque to everybody else.
#[derive(Debug)]
pub struct Peer {
    /// Who the client is: what its tickets, session objects and kept answers are bound to.
    pub id: ClientId,
    /// The client's name.
    pub client: String,
    /// The partition that its certificate names; none for an administrator.
    pub partition: Option<String>,
    /// SHA-256 of the certificate.
    pub fingerprint: [u8; 32],
    /// Where it calls from.
    pub address: SocketAddr,
    /// A number that no other connection of this vault has had.
    pub connection: u64,
}

/// What a handshake should do with a client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// SHA-256 of the certificate.
    pub fingerprint: [u8; 32],
    /// Whether it was revoked; a certificate without an `Admission` is unknown and refused too.
    pub revoked: bool,
}

/// How long a frame keeps its thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Microseconds: carry it out where it was read.
    Quick,
    /// Milliseconds or more (key generation, PINs, RSA, administration): give it to another thread.
    Slow,
    /// Milliseconds, of which it waits for other nodes the longest: give it to one of more threads than there are
    /// processors, which nothing else keeps busy.
    Together,
    /// As [`Self::Slow`], for another node: give it to a thread that waits for a node itself for a handshake at most, or two
    /// nodes that wait for each other would wait for ever.
    Node,
}

/// What becomes of a connection whose frame was handled.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// The reply frame was appended, and the next frame may come.
    Answered,
    /// Nothing was appended: the connection is to be closed, for this reason.
    Close(String),
}

/// The vault, as those who carry frames see it. Calls come from many threads at once.
pub trait Door: Send + Sync + 'static {
    /// A connection with this client certificate (DER), which the handshake let in.
    ///
    /// # Errors
    /// The fault to log if the vault does not know the certificate after all; close the connection then.
    fn admit(&self, certificate: &[u8], address: SocketAddr) -> Result<Arc<Peer>, Fault>;

    /// Whether to carry out this frame at once or on another thread.
    fn pace(&self, peer: &Peer, frame: &[u8]) -> Pace;

    /// Carries out one whole request frame and appends the reply frame to `out`, unless the verdict is that the
    /// frame is none of this protocol's. The reply must not leave before [`Door::commit`] has returned.
    fn handle(&self, peer: &Peer, frame: &[u8], out: &mut Vec<u8>) -> Verdict;

    /// Makes the records of everything that this thread has handled durable, as the configuration asks.
    ///
    /// # Errors
    /// The log or store cannot be written: the replies must be thrown away and their connections closed.
    fn commit(&self) -> Result<(), Fault>;

    /// The connection is gone.
    fn disconnect(&self, peer: &Peer);

    /// A handshake was refused: goes on record. `certificate` is absent if none was shown.
    fn refused(&self, address: SocketAddr, certificate: Option<&[u8]>, reason: &str);

    /// The certificates that may shake hands, and the list's version. The list may be newer than the version, never
    /// older.
    fn admissions(&self) -> (u64, Vec<Admission>);

    /// The version of the list: a number that grows after every change. It costs nothing to ask.
    fn admissions_version(&self) -> u64;

    /// The housekeeping of every 50 ms: sync the log, forget applications that went away.
    ///
    /// # Errors
    /// The vault can do nothing more before its process is started anew; the fault says what to mend.
    fn tick(&self) -> Result<(), Fault>;

    /// Gives the door its way to other nodes. A door that is never given one calls nobody.
    fn reach(&self, _peers: Arc<dyn Peers>) {}

    /// Greets the other nodes, once a second; it may take seconds.
    fn beat(&self) {}

    /// Looks after the shares that this node holds of keys, once a second, on a thread of its own; it may take minutes.
    fn tend(&self) {}

    /// Writes everything down; no frame follows.
    fn close(&self);
}
