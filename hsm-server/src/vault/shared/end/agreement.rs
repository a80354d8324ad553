//! What every node that holds a share says before any of them destroys its own: that it would, signed. Each sees the word
//! of all the others first, so that a node that was refused by one cannot have the rest do it on the mandate alone.

use std::collections::BTreeSet;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use minicbor::Encode;
use strongroom_shared::{
    fault::FaultCode,
    mandate::{Mandate, Mandated},
    message::DestroyObject,
    object::ObjectId,
    shares::Signed,
    wire::decode_body,
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
        records::encode,
        shared::{
            certificate::sha256,
            children::ChildRecord,
            end::{Destruction, PATIENCE},
            life::traces::traces_of,
            words::Agreement,
        },
    },
};

/// What a node's signature under an [`Agreement`] begins with.
const LABEL: &[u8] = b"strongroom destroy 1\0";

/// The most keys of which a node remembers to have said that it has nothing.
const AGREED: usize = 1 << 16;

/// What is signed: the mandate says which key of which partition it is for, and until when.
#[derive(Encode)]
struct Agreed {
    #[n(0)]
    cluster: ClusterId,
    #[cbor(n(1), with = "minicbor::bytes")]
    mandate: [u8; 32],
}

impl Agreed {
    fn text(view: &View, mandate: [u8; 32]) -> Vec<u8> {
        let cluster = view.document.membership().cluster;
        [LABEL, &encode(&Self { cluster, mandate })].concat()
    }
}

impl Agreement {
    fn new(view: &View, mandate: [u8; 32], identity: &Identity) -> Self {
        let signature = Signed(identity.sign(&Agreed::text(view, mandate)));
        Self { node: identity.public(), signature }
    }
}

impl<P: Platform> Vault<P> {
    /// Says that this node would destroy what it has of a key. One that has nothing of it says so to whoever asks, be it
    /// that it lacks the partition or does not know the client, and makes no share of the key for a while.
    pub(in crate::vault) fn agree_to_destroy(
        &self,
        context: &mut Context<'_>,
        mandated: &Mandated,
    ) -> Result<Agreement, Error> {
        let (Some(view), Some(identity)) = (self.cluster.view(), self.cluster.identity()) else {
            return Err(Error::forbidden("this server is in no cluster"));
        };
        let mandate: Mandate = decode_body(&mandated.text)
            .map_err(|error| Error::caller(FaultCode::Malformed, error.to_string()))?;
        let DestroyObject { object: id } = decode_body(&mandate.body)
            .map_err(|error| Error::caller(FaultCode::Malformed, error.to_string()))?;
        let is_here = {
            let partition = self.partition_named(&mandate.partition);
            let _turn = partition.as_ref().map(|partition| partition.object_turn());
            let is_here = partition.as_ref().is_some_and(|partition| {
                let shared = &partition.shared;
                shared.holds(id) || shared.children.record(id).is_some() || partition.keyring.has(id)
            });
            // No share of it comes from now on, or it was there before.
            if !is_here && !self.cluster.agreed().insert(id, (), AGREED, self.platform.uptime()) {
                let text = "too many keys to destroy at once: try again in a minute";
                return Err(Error::caller(FaultCode::Full, text));
            }
            is_here
        };
        if is_here {
            self.destroy_share(context, mandated, Destruction::Ask)?;
        }
        Ok(Agreement::new(&view, sha256(&mandated.text), &identity))
    }

    /// Whether this node has not said lately that it has nothing of a key that was to be destroyed.
    ///
    /// # Errors
    /// `Forbidden`: it makes no share of it now.
    pub(in crate::vault::shared) fn check_not_agreed(&self, id: ObjectId) -> Result<(), Error> {
        let mut agreed = self.cluster.agreed();
        agreed.forget(self.platform.uptime());
        match agreed.get(&id) {
            None => Ok(()),
            Some(()) => Err(Error::forbidden(
                "this node has said within the last three minutes that it has nothing of this key, which was to be destroyed: try \
                 again after that",
            )),
        }
    }

    /// Has these nodes say that they would destroy what they have of a key: what each says, or what is wrong with it.
    pub(super) fn gather_agreements(
        &self,
        view: &View,
        members: &[&Member],
        mandated: &Mandated,
    ) -> Vec<Result<Agreement, String>> {
        let said = |answer| if let Answer::WouldDestroy(agreement) = answer { Some(agreement) } else { None };
        let question = Question::MayDestroy(mandated.clone());
        self.ask_each(view, members.iter().copied(), &question, PATIENCE, said)
    }

    /// Whether everybody has agreed who holds a share of a key or may have something of it, as far as this node can tell: by
    /// the certificate of its own share, of the one after it, of those that wait, and by what it wrote down of moves. Only
    /// for whoever has the object turn.
    ///
    /// # Errors
    /// `Forbidden`: a node has not; nothing is destroyed.
    pub(super) fn check_agreed(
        &self,
        mandate: &CheckedMandate,
        id: ObjectId,
        agreements: &[Agreement],
    ) -> Result<(), Error> {
        let view = self.cluster.view().ok_or_else(|| Error::forbidden("this server is in no cluster"))?;
        let text = Agreed::text(&view, mandate.id);
        let own = view.me().map(|member| member.identity);
        let membership = view.document.membership();
        if agreements.len() > membership.members.len() {
            return Err(Error::forbidden("more nodes agree than there are"));
        }
        for holder in holders(&mandate.partition, id)? {
            // One that is no member any more has no say, and its share is worth nothing.
            let Some(member) = membership.member(&holder).filter(|_| own != Some(holder)) else { continue };
            let agrees = |agreement: &&Agreement| {
                agreement.node == holder
                    && UnparsedPublicKey::new(&ED25519, &holder).verify(&text, &agreement.signature.0).is_ok()
            };
            if !agreements.iter().any(|agreement| agrees(&agreement)) {
                return Err(Error::forbidden(format!(
                    "node {} has not said that it would destroy what it has of this key",
                    member.name
                )));
            }
        }
        Ok(())
    }
}

/// Who holds a share of a key, or may have something of it: the Ed25519 keys of the nodes.
fn holders(partition: &Partition, id: ObjectId) -> Result<BTreeSet<[u8; 32]>, Error> {
    let shared = &partition.shared;
    if let Some(record) = shared.children.record(id) {
        let (ChildRecord::Waiting { descent, .. } | ChildRecord::Certified { descent, .. }) = &*record;
        let master = shared.key(descent.master);
        return Ok(master.map(|master| master.seats.iter().copied().collect()).unwrap_or_default());
    }
    let seats = shared.key(id).map(|key| key.seats.clone()).unwrap_or_default();
    Ok(traces_of(shared, id)?.into_keys().chain(seats).collect())
}
