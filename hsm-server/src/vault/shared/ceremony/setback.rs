//! Why a ceremony did not come to its end, as its coordinator sees it, and what follows for the next attempt.

use std::collections::BTreeSet;

use strongroom_shared::fault::Fault;

use crate::{
    cluster::Member,
    crypto::threshold::{Epoch, Party},
    vault::{
        Error,
        shared::{bans::SignedBan, words::Warrant},
    },
};

/// Why a ceremony did not come to its end.
#[derive(Debug)]
pub enum Trouble {
    /// This node itself would not or could not.
    Own(Error),
    /// Others.
    Others(Box<Setback>),
}

impl From<Setback> for Trouble {
    fn from(setback: Setback) -> Self {
        Self::Others(Box::new(setback))
    }
}

/// What went wrong with other nodes, and what follows for the next attempt.
#[derive(Debug, Default)]
pub struct Setback {
    /// What happened, for the log.
    pub reasons: Vec<String>,
    /// Who is to be left out.
    pub out: BTreeSet<Party>,
    /// Who is not to be asked together again: one of them is wrong, and nobody knows which.
    pub apart: Vec<BTreeSet<Party>>,
    /// Who has proved to be wrong.
    pub culprits: BTreeSet<Party>,
    /// What nodes refused on purpose, if there was nothing but refusals.
    pub refusals: Vec<Fault>,
    /// Bans that this node did not know of, by who told them.
    pub bans: Vec<(Party, Vec<SignedBan>)>,
    /// Who has shares of another epoch: of which, and what made theirs active.
    pub elsewhen: Vec<(Party, Epoch, Warrant)>,
}

impl Setback {
    /// Who had to do with it, whether or not it is their fault.
    pub fn doubted(&self) -> BTreeSet<Party> {
        let bans = self.bans.iter().flat_map(|(_, bans)| bans).map(|signed| signed.ban);
        let pairs = bans.flat_map(|ban| [ban.reporter, ban.against]);
        self.apart.iter().flatten().chain(&self.out).copied().chain(pairs).collect()
    }

    /// One more reason.
    pub(in crate::vault::shared) fn add(&mut self, member: &Member, reason: impl std::fmt::Display) {
        self.reasons.push(format!("node {}: {reason}", member.name));
    }
}
