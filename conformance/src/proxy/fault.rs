//! What a network does to a module: the faults, as the check orders them and the proxy carries them out.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// From the module to its server.
    Request,
    /// From the server to the module.
    Reply,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cut {
    /// By a FIN, as when a process ends.
    Close,
    /// By a RST, as when a machine restarts or a firewall forgets.
    Reset,
}

/// What the network does. Offsets count the bytes of one way, over all connections, since the fault was set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// Nothing: everything passes.
    Nothing,
    /// Pieces of this many bytes are held back for a while, both ways.
    Slow {
        /// Bytes that pass at once.
        piece: usize,
        /// For how long each piece is held back.
        pause: Duration,
    },
    /// The connection that carries the byte at this offset ends before it. Others live.
    Cut {
        /// Which way.
        way: Way,
        /// The offset.
        at: u64,
        /// How it ends.
        how: Cut,
    },
    /// The connection that carries the byte at this offset falls silent before it and stays open: half-open TCP. Others live.
    Hold {
        /// Which way.
        way: Way,
        /// The offset.
        at: u64,
    },
    /// The byte at this offset arrives with one bit wrong.
    Flip {
        /// Which way.
        way: Way,
        /// The offset.
        at: u64,
    },
    /// What is read together with the byte at this offset arrives twice.
    Twice {
        /// Which way.
        way: Way,
        /// The offset.
        at: u64,
    },
    /// All connections end, and new ones are closed as soon as they are made.
    Refuse,
    /// All connections stay open and nothing passes; so do new ones.
    Silence,
    /// Something else listens there: whatever the module says, it answers these bytes.
    Impostor(Vec<u8>),
}

/// What passed since the fault was set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Bytes from the module.
    pub request: u64,
    /// Bytes from the server.
    pub reply: u64,
    /// Connections that the module made, since the proxy began.
    pub connections: u64,
    /// Whether a fault at an offset has struck.
    pub struck: bool,
}

impl Tally {
    /// The bytes of one way.
    pub const fn bytes(&self, way: Way) -> u64 {
        match way {
            Way::Request => self.request,
            Way::Reply => self.reply,
        }
    }

    /// Counts bytes of one way.
    pub const fn count(&mut self, way: Way, bytes: u64) {
        match way {
            Way::Request => self.request += bytes,
            Way::Reply => self.reply += bytes,
        }
    }
}
