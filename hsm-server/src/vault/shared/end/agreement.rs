//! What every node that holds a share says before any of them destroys its own: that it would, signed. Each sees the word
//! of all the others first, so that a node that was refused by one cannot have the rest do it on the mandate alone.

use std::collections::BTreeSet;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use minicbor::{Decode, Encode};
use strongroom_shared::{
    mandate::Mandated,
    object::ObjectId,
    shares::{Claim, Signed},
};

use crate::{
    cluster::{Member, document::ClusterId},
    platform::Platform,
    vault::{
        Context, Error, Vault,
        cluster::View,
        identity::Identity,
        mandates::CheckedMandate,
        nodes::{Answer, Question},
        partition::Partition,
        records::{decode, encode},
        shared::{
            ceremony::party::forbidden,
            certificate::Certified,
            children::ChildRecord,
            end::{Destruction, PATIENCE},
            words::Agreement,
        },
    },
};

/// What a node's signature under an [`Agreement`] begins with.
const LABEL: &[u8] = b"strongroom destroy 1\0";

/// What is signed: the mandate says which key of which partition it is for, and until when.
#[derive(Encode, Decode)]
struct Agreed {
    #[n(0)]
    cluster: ClusterId,
    #[cbor(n(1), with = "minicbor::bytes")]
    mandate: [u8; 32],
}

impl Agreed {
    fn text(view: &View, mandate: &CheckedMandate) -> Vec<u8> {
        let cluster = view.document.membership().cluster;
        [LABEL, &encode(&Self { cluster, mandate: mandate.id })].concat()
    }
}

impl Agreement {
    fn new(view: &View, mandate: &CheckedMandate, identity: &Identity) -> Self {
        let signature = Signed(identity.sign(&Agreed::text(view, mandate)));
        Self { node: identity.public(), signature }
    }
}

impl<P: Platform> Vault<P> {
    /// Says that this node would destroy what it has of a key.
    pub(in crate::vault) fn agree_to_destroy(
        &self,
        context: &mut Context<'_>,
        mandated: &Mandated,
    ) -> Result<Agreement, Error> {
        let mandate = self.destroy_share(context, mandated, Destruction::Ask)?;
        let (Some(view), Some(identity)) = (self.cluster.view(), self.cluster.identity()) else {
            return Err(forbidden("this server is in no cluster"));
        };
        Ok(Agreement::new(&view, &mandate, &identity))
    }

    /// Has these nodes say that they would destroy what they have of a key: what each says, or what is wrong with it.
    pub(in crate::vault::shared) fn gather_agreements(
        &self,
        view: &View,
        members: &[&Member],
        mandated: &Mandated,
    ) -> Vec<Result<Agreement, String>> {
        let said = |answer| if let Answer::WouldDestroy(agreement) = answer { Some(agreement) } else { None };
        let question = Question::MayDestroy(mandated.clone());
        self.ask_each(view, members.iter().copied(), &question, PATIENCE, said)
    }

    /// Whether everybody has agreed who holds a share of a key, as far as this node can tell: by the certificate of its
    /// own share, of the one after it, or of those that wait. Only for whoever has the object turn.
    ///
    /// # Errors
    /// `Forbidden`: a node has not; nothing is destroyed.
    pub(in crate::vault::shared) fn check_agreed(
        &self,
        mandate: &CheckedMandate,
        id: ObjectId,
        agreements: &[Agreement],
    ) -> Result<(), Error> {
        let view = self.cluster.view().ok_or_else(|| forbidden("this server is in no cluster"))?;
        let text = Agreed::text(&view, mandate);
        let own = view.me().map(|member| member.identity);
        let membership = view.document.membership();
        if agreements.len() > membership.members.len() {
            return Err(forbidden("more nodes agree than there are"));
        }
        for holder in holders(&mandate.partition, id)? {
            // One that is no member any more has no say, and its share is worth nothing.
            let Some(member) = membership.member(&holder).filter(|_| own != Some(holder)) else { continue };
            let agrees = |agreement: &&Agreement| {
                agreement.node == holder
                    && UnparsedPublicKey::new(&ED25519, &holder).verify(&text, &agreement.signature.0).is_ok()
            };
            if !agreements.iter().any(|agreement| agrees(&agreement)) {
                return Err(forbidden(format!(
                    "node {} has not said that it would destroy what it has of this key",
                    member.name
                )));
            }
        }
        Ok(())
    }
}

/// Who holds a share of a key: the Ed25519 keys of the nodes. Nobody, if there is nothing of it here.
fn holders(partition: &Partition, id: ObjectId) -> Result<BTreeSet<[u8; 32]>, Error> {
    let shared = &partition.shared;
    if let Some(record) = shared.children.record(id) {
        let (ChildRecord::Waiting { descent, .. } | ChildRecord::Certified { descent, .. }) = &*record;
        let master = shared.key(descent.master);
        return Ok(master.map(|master| master.seats.iter().copied().collect()).unwrap_or_default());
    }
    if let Some(key) = shared.key(id) {
        return Ok(key.seats.iter().copied().collect());
    }
    let mut holders = BTreeSet::new();
    if let Some(former) = shared.former(id) {
        holders.extend(Certified::read(&former.successor)?.claim.seats);
    }
    for (_, waits) in shared.pending().range((id, 0)..=(id, u64::MAX)) {
        holders.extend(decode::<Claim>(&waits.claim)?.seats);
    }
    Ok(holders)
}
