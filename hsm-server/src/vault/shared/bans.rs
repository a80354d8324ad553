//! Bans: pairs of parties that must not sign together any more.
//!
//! A check of the multiplication failed between them (DKLs23), and a second failure could give bits of the key away.
//! Whoever found it says so once, signed; every node that hears of it keeps it, and refuses the pair until a complete
//! refresh has made shares of a later epoch. So it survives a restart of any node, and the return of an old copy of
//! the one that declared it. Descendants have their master's state with the other nodes, so a ban over one of the family is
//! a ban over all of it.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError},
};

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use minicbor::{Decode, Encode};
use strongroom_shared::{fault::FaultCode, wire::CallId};

use super::{
    super::{
        Context, Error, Vault, cluster::View, identity::Identity, partition::Partition, record::Change,
        records::encode,
    },
    ceremony::{ceremonies::Going, party::About},
    keys::SharedKey,
    life::lookafter::peer,
};
use crate::{
    cluster::document::ClusterId,
    crypto::threshold::{Epoch, KeyId, Party},
    platform::Platform,
    store::Path,
};

/// What stands before a ban when it is signed.
const LABEL: &[u8] = b"strongroom ban 1\0";

/// A pair of one key, in one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Ban {
    /// The key.
    #[n(0)]
    pub key: KeyId,
    /// The epoch of the shares.
    #[n(1)]
    pub epoch: Epoch,
    /// Who found the other's message wrong.
    #[n(2)]
    pub reporter: Party,
    /// Whose message it was.
    #[n(3)]
    pub against: Party,
}

/// A ban with its reporter's signature.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SignedBan {
    /// The pair.
    #[n(0)]
    pub ban: Ban,
    /// By the reporter's Ed25519 key.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

impl SignedBan {
    /// Declares a ban.
    pub fn new(ban: Ban, cluster: ClusterId, identity: &Identity) -> Self {
        Self { ban, signature: identity.sign(&to_sign(&ban, cluster)) }
    }

    /// Whether the reporter, whose key this is, has said so.
    fn is_genuine(&self, cluster: ClusterId, reporter: &[u8; 32]) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, reporter);
        key.verify(&to_sign(&self.ban, cluster), &self.signature).is_ok()
    }

    /// Whether both of the pair are among these.
    pub fn forbids(&self, parties: &BTreeSet<Party>) -> bool {
        parties.contains(&self.ban.reporter) && parties.contains(&self.ban.against)
    }
}

fn to_sign(ban: &Ban, cluster: ClusterId) -> Vec<u8> {
    [LABEL, &cluster.0, &encode(ban)].concat()
}

impl<P: Platform> Vault<P> {
    /// Declares a ban, and keeps it before anybody is told.
    pub(super) fn declare_ban(
        &self,
        context: &mut Context<'_>,
        view: &View,
        (going, shared): (&Going, &SharedKey),
        against: Party,
    ) -> Result<SignedBan, Error> {
        let About { partition, .. } = &going.about;
        let identity = self.cluster.identity().ok_or(FaultCode::Internal)?;
        // Of the shares that signed, whatever the key's are by now.
        let public = shared.share.public();
        let ban = Ban { key: public.key(), epoch: public.epoch(), reporter: going.me, against };
        let signed = SignedBan::new(ban, view.document.membership().cluster, &identity);
        self.keep_bans(context, partition, shared, vec![signed.clone()])?;
        Ok(signed)
    }

    /// Keeps those of `heard` that are new and genuine.
    pub(super) fn learn(
        &self,
        context: &mut Context<'_>,
        partition: &Partition,
        shared: &SharedKey,
        heard: &[SignedBan],
    ) -> Result<(), Error> {
        let new = shared.unknown(heard);
        if new.is_empty() {
            return Ok(());
        }
        let cluster = self.cluster.view().ok_or(FaultCode::Forbidden)?.document.membership().cluster;
        let (key, epoch) = (shared.share.public().key(), shared.share.public().epoch());
        for SignedBan { ban, .. } in &new {
            if (ban.key, ban.epoch) != (key, epoch) {
                return Err(Error::forbidden("a ban of another key or epoch"));
            }
            // So there are never more of them than pairs.
            if ban.reporter == ban.against || shared.identity(ban.against).is_none() {
                return Err(Error::forbidden("a ban of no pair"));
            }
        }
        let genuine = |signed: &SignedBan| {
            shared.identity(signed.ban.reporter).is_some_and(|reporter| signed.is_genuine(cluster, reporter))
        };
        if !new.iter().all(genuine) {
            return Err(Error::forbidden("a ban that nobody declared"));
        }
        self.keep_bans(context, partition, shared, new)
    }

    fn keep_bans(
        &self,
        context: &mut Context<'_>,
        partition: &Partition,
        shared: &SharedKey,
        new: Vec<SignedBan>,
    ) -> Result<(), Error> {
        let object = shared.id();
        let pairs: Vec<String> =
            new.iter().map(|ban| format!("{} and {}", ban.ban.reporter, ban.ban.against)).collect();
        let text = format!("must not sign together any more: {}", pairs.join("; "));
        tracing::error!(key = %object, "{text}; a refresh of the key ends it");
        // In memory in any case: a disk that fails must not give the pair another chance.
        shared.ban(new);
        let (detail, recorded) = (std::mem::replace(&mut context.detail, text), context.recorded);
        let kept = self.keep_unkept_bans(context, partition, shared);
        (context.detail, context.recorded) = (detail, recorded);
        kept
    }

    /// Writes bans down that could not be yet: until then the key signs nothing here, and nobody is told of them.
    ///
    /// # Errors
    /// They still cannot be.
    pub(super) fn keep_unkept_bans(
        &self,
        context: &mut Context<'_>,
        partition: &Partition,
        shared: &SharedKey,
    ) -> Result<(), Error> {
        if shared.has_kept_bans() {
            return Ok(());
        }
        let object = shared.id();
        // So that none is written beside a share that has been replaced meanwhile: its bans have ended with it.
        let _turn = partition.object_turn();
        let active = partition.shared.key(object);
        if active.is_none_or(|active| !std::ptr::eq(Arc::as_ptr(&active), shared)) {
            return Ok(());
        }
        shared.keep_bans(|bans| {
            self.change(context, Change::new().put(Path::Bans(partition.id, object), bans)).inspect_err(|error| {
                tracing::error!(key = %object, %error, "a ban is not on disk: this key signs nothing until it is");
            })
        })
    }

    /// Tries again to write down what could not be.
    pub(in super::super) fn look_after_bans(&self) {
        let partitions: Vec<_> = {
            let partitions = self.partitions.read().unwrap_or_else(PoisonError::into_inner);
            partitions.values().cloned().collect()
        };
        let (Some(view), Some(identity)) = (self.cluster.view(), self.cluster.identity()) else { return };
        let Some(me) = view.document.membership().member(&identity.public()) else { return };
        for partition in partitions {
            for (id, key) in partition.shared.unkept() {
                let peer = peer(me);
                let mut context = self.about_shares(&peer, CallId::SignShared);
                (context.subject, context.object) = (partition.rules().record.name.clone(), Some(id));
                context.detail = "bans that could not be written before".into();
                // Said where it failed; it is tried again.
                let _kept = self.keep_unkept_bans(&mut context, &partition, &key);
            }
        }
    }
}
