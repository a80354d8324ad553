//! What the makings of shares have in common at the node that coordinates them, whether the key is new, shared already
//! or whole still: the ceremony, the certificate out of what all say at its end, and that everybody takes the shares
//! into use.

use std::{collections::BTreeMap, time::Duration};

use strongroom_identity::is_whole;
use strongroom_shared::{
    object::ObjectId,
    shares::{Certificate, Signed},
};

use crate::{
    cluster::Member,
    crypto::threshold::{Epoch, KeyId, Party},
    platform::{Platform, Time},
    vault::{
        Context, Error, Vault,
        cluster::View,
        shared::{
            ceremony::{
                relay::{Lead, Relay},
                setback::Trouble,
            },
            words::{Begin, End, Task, Warrant},
        },
    },
};

/// How long a making may take: a little less than the application waits.
pub(in crate::vault::shared) const GENERATION: Time = 55_000_000;
/// How long a node may take for its part of a round: many times what the slowest scheme takes.
pub(in crate::vault::shared) const ROUND: Duration = Duration::from_secs(20);
/// How long a node may take to make its share active.
pub(in crate::vault::shared) const ACTIVATION: Duration = Duration::from_secs(5);

/// Shares that are to be made.
pub struct Making<'a> {
    /// Everybody who takes part.
    pub parties: BTreeMap<Party, Member>,
    /// Who is to hold the shares, in the order of their seats: Ed25519 keys.
    pub seats: &'a [[u8; 32]],
    /// The key.
    pub key: KeyId,
    /// The epoch of the shares.
    pub epoch: Epoch,
    /// What the parties are asked to do.
    pub task: Task,
    /// How long a node may take for its part of a round.
    pub patience: Duration,
    /// What is said if they do not all say the same at its end.
    pub unlike: &'a str,
}

impl<P: Platform> Vault<P> {
    /// Runs a making: the certificate of the shares, or undone and to be put on record so, for what parties put there
    /// before was no more than their own part.
    ///
    /// # Errors
    /// Why the ceremony came to nothing, as `undone` says it; `QuorumMissing` if not all have said the same.
    pub(in crate::vault::shared) fn make_shares(
        &self,
        context: &mut Context<'_>,
        view: &View,
        making: Making<'_>,
        undone: impl FnOnce(&mut Context<'_>, Trouble) -> Error,
    ) -> Result<Certificate, Error> {
        let Making { parties, seats, key, epoch, task, patience, unlike } = making;
        let until = self.platform.uptime().saturating_add(GENERATION);
        let mut relay = Relay::new(self, view, parties, (until, patience), Lead::Together)?;
        let begin = Begin { id: relay.id, key, epoch, task, parcels: Vec::new() };
        let ran = relay.run(context, &begin).map_err(|trouble| undone(context, trouble));
        let unlike = || Error::quorum_missing(unlike);
        let whole = ran.and_then(|()| certificate_of(relay.ends(), seats).ok_or_else(unlike));
        whole.inspect_err(|_| context.recorded = false)
    }

    /// Takes the shares of a certificate into use here, and has `hand_on` tell the others: what is still to be done there.
    ///
    /// # Errors
    /// Why this node did not take its own into use.
    pub(in crate::vault::shared) fn put_into_use(
        &self,
        context: &mut Context<'_>,
        id: ObjectId,
        warrant: &Warrant,
        hand_on: impl FnOnce() -> Vec<String>,
    ) -> Result<Vec<String>, Error> {
        let activated = self.activate(context, warrant);
        // What this node cannot write down, the others can: nobody else has the certificate.
        let handed_on = activated.as_ref().err().is_none_or(is_unwritten);
        let troubles = if handed_on { hand_on() } else { Vec::new() };
        for trouble in &troubles {
            // It asks for the certificate itself, once a second.
            tracing::warn!(key = %id, trouble, "new shares are not in use everywhere yet");
        }
        context.recorded = activated.is_ok();
        activated.map(|()| troubles)
    }
}

/// Whether this node could not write down what it was to do. It catches up when it can write again.
const fn is_unwritten(error: &Error) -> bool {
    matches!(error, Error::Store(_) | Error::Audit(_))
}

/// The certificate, if all have said the same, each with its own key.
fn certificate_of(ends: &BTreeMap<Party, End>, seats: &[[u8; 32]]) -> Option<Certificate> {
    let statement = |end: &End| match end {
        End::Ready(statement) => Some(statement.clone()),
        End::Signed
        | End::Proved(_)
        | End::Behind(_)
        | End::Aborted(_)
        | End::Dealt
        | End::Elsewhen { .. } => None,
    };
    let statements = ends.values().take(seats.len()).map(statement).collect::<Option<Vec<_>>>()?;
    let claim = statements.first()?.claim.clone();
    if statements.iter().any(|statement| statement.claim != claim) {
        return None;
    }
    let signatures = statements.iter().map(|statement| Signed(statement.signature)).collect();
    let certificate = Certificate { claim, signatures };
    is_whole(&certificate, seats).then_some(certificate)
}
