//! Making a shared key: what it is to be like, the share that waits, and the certificate that makes it a key.
//!
//! A node that has its share stores it *pending*, with the objects that it will make, and says so, signed. When all
//! have said the same, their signatures are the certificate, which makes the shares active (`activate.rs`).

use std::{collections::BTreeMap, time::Duration};

use pkcs11_sys::*;
use strongroom_shared::{fault::FaultCode, mandate::Mandated, message::*, object::ObjectId};

use super::{
    super::{
        Context, Error, Vault, attributes,
        cluster::View,
        keys::generator,
        login::Role,
        mandates::CheckedMandate,
        nodes::Question,
        object::{check_access, check_initialized},
        records::encode,
    },
    ceremony::{
        draft::Draft,
        making::{ACTIVATION, Making, ROUND},
        plan::Plan,
    },
    certificate::key_id,
    meant,
    words::{Task, Warrant},
};
use crate::{
    cluster::{Member, NodeId},
    crypto::threshold::{Epoch, Party},
    platform::Platform,
};

/// The epoch of a key's first shares.
pub const FIRST: Epoch = Epoch(0);
/// How many shares of a partition may wait for their certificates, of those that one node has had made: it takes no
/// place from another. None is given up: whoever has its certificate may show it at any time.
const WAITING: usize = 64;
/// How long a node may take to say that it is there.
const PATIENCE: Duration = Duration::from_millis(500);

impl<P: Platform> Vault<P> {
    /// What the key of a mandate is to be like, by the same rules as any other pair.
    pub(super) fn plan(
        &self,
        context: &mut Context<'_>,
        view: &View,
        (mandate, coordinator): (&CheckedMandate, NodeId),
        (public, private): (ObjectId, ObjectId),
    ) -> Result<Plan, Error> {
        let wanted: GenerateKeyPair = meant(mandate)?;
        let mechanism = generator(context, wanted.mechanism, &wanted.params, CKF_GENERATE_KEY_PAIR)?;
        self.check_frames()?;
        self.check_pair(public, private)?;
        let members = &view.document.membership().members;
        let draft = Draft::of(&wanted, mechanism, public, private, members.len())?;
        for half in [&draft.public, &draft.private] {
            check_initialized(&mandate.partition, half).map_err(|_| {
                let name = &mandate.partition.rules().record.name;
                let text = format!(
                    "the token of partition {name} is not initialised at this node: initialise it here too (C_InitToken, \
                     then the user's PIN), by the client's folder for this node"
                );
                Error::caller(FaultCode::TokenNotInitialized, text)
            })?;
        }
        mandate.partition.rules().check_thawed(private)?;
        if mandate.partition.shared.waiting_of(coordinator) >= WAITING {
            let name = |member: &&Member| member.id == coordinator;
            let name = members.iter().find(name).map_or("", |member| &member.name);
            let text = format!(
                "{WAITING} shares of keys wait here that node {name} has had made, and that it shows no certificate of: look at that node, and make the key at another one"
            );
            tracing::error!(node = name, "{text}");
            return Err(Error::caller(FaultCode::Full, text));
        }
        let seats = members.iter().map(|member| member.identity).collect();
        let text = mandate.id;
        Ok(Plan { draft, publish: true, text, order: None, object: None, lifts: None, seats, public })
    }
}

impl<P: Platform> Vault<P> {
    /// Makes a key together with all other nodes.
    pub(super) fn generate_shared(
        &self,
        context: &mut Context<'_>,
        mandated: &Mandated,
        mandate: &CheckedMandate,
    ) -> Result<KeyPair, Error> {
        let view = self.cluster.view().ok_or(FaultCode::Forbidden)?;
        let (public, private) = (self.new_id(), self.new_id());
        // What cannot be made is refused before anybody is asked.
        let me = view.me().ok_or(FaultCode::Forbidden)?.id;
        let plan = self.plan(context, &view, (mandate, me), (public, private))?;
        for half in [&plan.draft.public, &plan.draft.private] {
            check_access(context, half)?;
        }
        let unmade = |text: String| Error::quorum_missing(text);
        let turn = mandate.partition.shared.turn_to_make();
        let _turn = turn.ok_or_else(|| {
            unmade("another shared key of this partition is being made at this node: wait for it".into())
        })?;
        // A node that is silent from the beginning is noticed at once.
        let silent = self.ask_all(&view, view.others(), &Question::Vouch, PATIENCE);
        if !silent.is_empty() {
            let text = format!("a shared key is made by all nodes together: {}", silent.join("; "));
            return Err(unmade(text));
        }
        let members = &view.document.membership().members;
        let parties: BTreeMap<Party, _> = (1..).map_while(Party::new).zip(members.iter().cloned()).collect();
        let task = Task::Generate {
            mandated: mandated.clone(),
            public,
            seats: members.iter().map(|member| member.name.clone()).collect(),
        };
        let making = Making {
            parties,
            seats: &plan.seats,
            key: key_id(private),
            epoch: FIRST,
            task,
            patience: ROUND,
            unlike: "the nodes do not say the same of the new key; none of them uses it",
        };
        let certificate = self.make_shares(context, &view, making, |_, trouble| {
            trouble.told(|reasons| format!("a shared key is made by all nodes together: {reasons}"))
        })?;
        let bytes = encode(&certificate).to_vec();
        let warrant = Warrant { certificate: bytes.clone(), order: None };
        self.put_into_use(context, private, &warrant, || {
            self.ask_all(&view, view.others(), &warrant.question(), ACTIVATION)
        })?;
        let describe = |id| -> Result<_, Error> {
            let (me, missing) = (context.application_id(), FaultCode::ObjectHandleInvalid);
            let object = mandate.partition.keyring.object(id, me, Role::User, missing)?;
            Ok(attributes::describe(id, &object.attributes))
        };
        Ok(KeyPair {
            public: describe(public)?,
            private: describe(private)?,
            certificate: Some(bytes.into()),
        })
    }
}
