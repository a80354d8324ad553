//! Why a ceremony ended, and who is to answer for it.

use std::{collections::BTreeSet, fmt};

use super::party::Party;

/// Who is to answer for an abort, and so what the caller must do before it tries again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blame {
    /// These parties provably (to this party) broke the protocol: leave them out, raise an alarm.
    Culprits(BTreeSet<Party>),
    /// A check of the multiplication failed (DKLs23, `BanCounterparty`). A second failure could give key bits
    /// away: this pair must never sign together again until a complete refresh has renewed its state. Written
    /// durably before anybody is answered.
    Ban(Party),
    /// Nobody is to blame: the parties disagreed about the ceremony, or chance did it. A retry is harmless.
    Recoverable,
    /// At least one of these broke the protocol, and this party cannot tell which.
    Suspect(BTreeSet<Party>),
}

impl Blame {
    /// The one culprit.
    pub fn culprit(party: Party) -> Self {
        Self::Culprits(BTreeSet::from([party]))
    }

    /// These, without the one who judges: it knows that it was honest.
    pub fn suspects(parties: impl IntoIterator<Item = Party>, judge: Party) -> Self {
        Self::Suspect(parties.into_iter().filter(|party| *party != judge).collect())
    }
}

/// The end of a ceremony without a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abort {
    /// Who is to answer for it.
    pub blame: Blame,
    /// What happened, for the log. It holds no secret.
    pub reason: String,
}

impl Abort {
    pub(super) fn new(blame: Blame, reason: impl Into<String>) -> Self {
        Self { blame, reason: reason.into() }
    }

    pub(super) fn culprit(party: Party, reason: impl Into<String>) -> Self {
        Self::new(Blame::culprit(party), reason)
    }
}

impl fmt::Display for Abort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |parties: &BTreeSet<Party>| {
            parties.iter().map(|party| party.number().to_string()).collect::<Vec<_>>().join(", ")
        };
        match &self.blame {
            Blame::Culprits(parties) => write!(f, "{} (culprits: {})", self.reason, names(parties)),
            Blame::Ban(party) => write!(f, "{} (ban: {})", self.reason, party.number()),
            Blame::Recoverable => write!(f, "{} (nobody is to blame)", self.reason),
            Blame::Suspect(parties) => write!(f, "{} (suspects: {})", self.reason, names(parties)),
        }
    }
}

/// Why a ceremony did not begin. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not 2 ≤ threshold ≤ parties ≤ 16.
    Committee,
    /// The own seat is not one of the ceremony's, or not that of the share.
    Seat,
    /// The epoch does not fit: signing is in the share's epoch, and every renewal is in a later one.
    Epoch,
    /// The share belongs to another key.
    Key,
    /// The signers are not `threshold` members of the committee.
    Signers,
    /// The dealers are not at least `threshold` members of the old committee, each at one seat.
    Dealers,
    /// The input is not one that this scheme signs.
    Message,
    /// The bytes are not a share, or not a whole one, or not of this version.
    Share,
    /// The private key is not one of this scheme, or not that of the public key.
    Secret,
    /// The public key or a verifying share is not a point of the scheme's group.
    Point,
    /// The scheme derives no children, or not this one.
    Child,
    /// The library failed where no input should make it.
    Internal,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Committee => "a committee needs 2 ≤ threshold ≤ parties ≤ 16",
            Self::Seat => "the own seat is not one of this ceremony",
            Self::Epoch => "the epoch does not fit the share",
            Self::Key => "the share belongs to another key",
            Self::Signers => "the signers are not exactly the threshold of members",
            Self::Dealers => "the dealers are not at least the threshold of old members",
            Self::Message => "the scheme does not sign such an input",
            Self::Share => "these bytes are not a share",
            Self::Secret => "the private key does not belong to the public key",
            Self::Point => "a point is not of the scheme's group",
            Self::Child => "the key has no such child",
            Self::Internal => "the threshold library failed",
        })
    }
}

impl std::error::Error for Refusal {}

/// What was wrong with an incoming message. The ceremony is as it was before, and goes on without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Who sent it, as the channel says.
    pub from: Party,
    /// What was wrong.
    pub why: Reject,
}

/// The ways in which a message can be wrong before its content is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// It is not an envelope of this version, or it is too long.
    Garbage,
    /// It belongs to another ceremony.
    Ceremony,
    /// It belongs to another epoch.
    Epoch,
    /// It belongs to this ceremony by number, but its sender means other parties, another input, key or scheme.
    Terms,
    /// Its sender is not the one whom the channel proved, or has nothing to say in this round.
    Sender,
    /// It is for another party.
    Receiver,
    /// It is neither of this round nor of the next.
    Round,
    /// Its sender has spoken in this round already.
    Duplicate,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.why {
            Reject::Garbage => "it is no message of this version",
            Reject::Ceremony => "it belongs to another ceremony",
            Reject::Epoch => "it belongs to another epoch",
            Reject::Terms => "its sender means other terms of the ceremony",
            Reject::Sender => "it is not of the party that sent it",
            Reject::Receiver => "it is for another party",
            Reject::Round => "it is of another round",
            Reject::Duplicate => "its sender has spoken already",
        };
        write!(f, "a message of {} was refused: {why}", self.from)
    }
}

impl std::error::Error for Rejected {}
