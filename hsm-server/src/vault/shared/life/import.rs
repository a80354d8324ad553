//! A private key that one node holds becomes shares, on administrators' order: that node deals it, all nodes make new
//! shares out of what it dealt, and in the change that makes its own share active the key is no object any more: it is
//! kept, unused, until the shares have shown that they sign. What was whole once is not called local any more.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use pkcs11_sys::*;
use strongroom_shared::{
    fault::FaultCode,
    object::{CKA_STRONGROOM_PARTIES, CKA_STRONGROOM_THRESHOLD, ObjectId, Shares, Template, Value},
    wire::CallId,
};
use zeroize::Zeroizing;

use crate::{
    cluster::{
        Member,
        order::{Order, OrderedAct, Seat, SignedOrder},
    },
    crypto::{
        self,
        threshold::{self, Epoch, Importing, KeyId, Party, SchemeId, Setup},
    },
    platform::Platform,
    vault::{
        Context, Error, Vault,
        attributes::{self, Origin},
        cluster::View,
        login::Role,
        partition::Partition,
        records::{ObjectRecord, encode},
        shared::{
            ceremony::{
                ceremonies::{Coordinator, Going, Kind, Work},
                draft::Draft,
                making::{ACTIVATION, GENERATION, Making},
                party::{About, digits, names},
                plan::{Plan, likeness},
            },
            certificate::sha256,
            keys::KeyHere,
            life::{
                case::{SPAN, check_given},
                consent::check_waiting,
                moves::committee_of,
                renew::Renewed,
            },
            words::{Import, Objects, Task, Warrant},
        },
    },
};

/// A key that is whole here still.
pub(super) struct Whole {
    /// What its shares will be made by.
    pub scheme: SchemeId,
    /// The private scalar.
    pub secret: Zeroizing<Vec<u8>>,
    /// The public key, as orders name it and nodes show it.
    pub public_key: Vec<u8>,
    /// The same, compressed, as the scheme's group writes it.
    compressed: Vec<u8>,
    attributes: Template,
}

impl Whole {
    /// The key of this id, if this node holds it and it can be shared.
    ///
    /// # Errors
    /// Saying why it cannot.
    pub fn of(partition: &Partition, id: ObjectId) -> Result<Self, Error> {
        let attributes = partition.keyring.token_attributes(id)?;
        if attributes::shares(&attributes).is_some() || attributes.ulong(CKA_CLASS) != Some(CKO_PRIVATE_KEY) {
            return Err(Error::caller(
                FaultCode::KeyTypeInconsistent,
                "this is no private key that is whole here",
            ));
        }
        let (scheme, secret) = crypto::shared_secret(&attributes)?;
        let compressed = threshold::public_key_of(scheme, &secret)?;
        let public_key = threshold::shown_public_key(scheme, &compressed)?;
        if partition.keyring.has_copies(id, attributes.value(CKA_PUBLIC_KEY_INFO)) {
            return Err(Error::caller(
                FaultCode::ActionProhibited,
                "there are copies of this key here, which would stay whole: destroy them first",
            ));
        }
        Ok(Self { scheme, secret, public_key, compressed, attributes })
    }

    /// The object of a key that its shares are about to replace, looked at once more: it may have been copied since
    /// the shares were begun.
    ///
    /// # Errors
    /// There are copies, or the shares are another key's.
    pub fn check(
        partition: &Partition,
        id: ObjectId,
        public: &threshold::PublicShares,
    ) -> Result<ObjectRecord, Error> {
        let whole = Self::of(partition, id)?;
        if whole.scheme != public.scheme() || whole.compressed != public.compressed() {
            return Err(Error::forbidden("the shares are of another public key than the key here"));
        }
        Ok(ObjectRecord { attributes: whole.attributes, lineage: partition.keyring.lineage(id) })
    }

    /// What the objects will be like, and which is the public key's.
    fn objects(
        &self,
        partition: &Partition,
        shares: Shares,
        fresh: ObjectId,
    ) -> Result<(ObjectId, Objects), Error> {
        let mut private = self.attributes.clone();
        private.0.retain(|attribute| !attributes::is_secret(&self.attributes, attribute.kind));
        for (kind, value) in [
            (CKA_SENSITIVE, true),
            (CKA_EXTRACTABLE, false),
            (CKA_COPYABLE, false),
            (CKA_MODIFIABLE, false),
            (CKA_LOCAL, false),
            (CKA_ALWAYS_SENSITIVE, false),
            (CKA_NEVER_EXTRACTABLE, false),
        ] {
            private.set(kind, Value::Bool(value));
        }
        private.set(CKA_KEY_GEN_MECHANISM, Value::Ulong(CK_UNAVAILABLE_INFORMATION));
        private.set(CKA_STRONGROOM_THRESHOLD, Value::Ulong(shares.threshold.into()));
        private.set(CKA_STRONGROOM_PARTIES, Value::Ulong(shares.parties.into()));
        let info = self.attributes.value(CKA_PUBLIC_KEY_INFO);
        let objects = partition.keyring.token_objects();
        let public = objects.iter().find(|object| {
            let public = object.attributes.ulong(CKA_CLASS) == Some(CKO_PUBLIC_KEY);
            public && info.is_some() && object.attributes.value(CKA_PUBLIC_KEY_INFO) == info
        });
        if let Some(public) = public {
            return Ok((public.id, Objects { public: Some(public.attributes.clone()), private }));
        }
        let mut made =
            Template::new().with(CKA_CLASS, Value::Ulong(CKO_PUBLIC_KEY)).with(CKA_TOKEN, Value::Bool(true));
        for kind in [CKA_KEY_TYPE, CKA_EC_PARAMS, CKA_LABEL, CKA_ID, CKA_ALLOWED_MECHANISMS] {
            if let Some(value) = private.value(kind) {
                made.set(kind, value.clone());
            }
        }
        let made = attributes::complete(made, fresh, Origin::Created, Role::User)?;
        Ok((fresh, Objects { public: Some(made), private }))
    }
}

/// What an order to share a key says.
pub(super) struct Sharing {
    seats: Vec<[u8; 32]>,
    committee: threshold::Committee,
}

impl Sharing {
    fn of(order: &Order) -> Result<Self, Error> {
        match &order.act {
            OrderedAct::Share { threshold, seats } => Ok(Self {
                committee: committee_of(*threshold, seats)?,
                seats: seats.iter().map(|Seat(node)| *node).collect(),
            }),
            OrderedAct::Refresh
            | OrderedAct::Repair { .. }
            | OrderedAct::Reshare { .. }
            | OrderedAct::Abandon => {
                Err(Error::forbidden("the coordinator means another act than the one that was ordered"))
            }
        }
    }

    /// Whether an order to share a key that is whole here can come about with the nodes that are members now.
    ///
    /// # Errors
    /// `Forbidden` or `AttributeValueInvalid`, saying why not.
    pub fn check(order: &Order, view: &View) -> Result<(), Error> {
        let own = view.me().ok_or(FaultCode::Forbidden)?;
        Self::of(order)?.parties(view, own).map(drop)
    }

    const fn shares(&self) -> Shares {
        Shares { threshold: self.committee.threshold(), parties: self.committee.parties() }
    }

    /// Everybody who takes part, and which of them deals. The dealer is to hold a share too: making that active is what
    /// makes it forget the key.
    fn parties(&self, view: &View, dealer: &Member) -> Result<(BTreeMap<Party, Member>, Party), Error> {
        let membership = view.document.membership();
        let mut parties = BTreeMap::new();
        for (party, node) in (1..).map_while(Party::new).zip(&self.seats) {
            let member = membership.member(node).cloned();
            drop(parties.insert(
                party,
                member.ok_or_else(|| Error::forbidden("a node that is no member of the cluster"))?,
            ));
        }
        let dealing = parties.iter().find(|(_, member)| member.id == dealer.id).map(|(party, _)| *party);
        let text = "the node that holds the key is to hold a share of it: a reshare takes that away later";
        Ok((parties, dealing.ok_or_else(|| Error::forbidden(text))?))
    }
}

impl<P: Platform> Vault<P> {
    /// Takes part when a key that the coordinator holds is to become shares.
    pub(in crate::vault::shared) fn begin_importing(
        &self,
        context: &mut Context<'_>,
        view: &View,
        coordinator: Coordinator,
        import: Import,
        setup: &dyn Fn(Party) -> Setup,
    ) -> Result<Box<Going>, Error> {
        context.call = CallId::RenewShares;
        let membership = view.document.membership();
        let judged = import.order.judge(membership, 1);
        let (order, by) = judged.map_err(Error::forbidden)?;
        order.check_time(self.platform.now() / 1_000_000).map_err(Error::forbidden)?;
        let by = by.into_iter().collect::<Vec<_>>().join(", ");
        let Order { partition: name, key: id, act, .. } = &order;
        (context.subject, context.object) = (name.clone(), Some(*id));
        let partition = self.partition_here(name)?;
        let sharing = Sharing::of(&order)?;
        let own = view.me().ok_or(FaultCode::Forbidden)?;
        let dealer = membership.members.iter().find(|member| member.id == coordinator.node);
        let (parties, dealing) = sharing.parties(view, dealer.ok_or(FaultCode::Forbidden)?)?;
        let me = parties.iter().find(|(_, member)| member.id == own.id).map(|(party, _)| *party);
        let setup = setup(me.ok_or_else(|| Error::forbidden("this node has no part in it"))?);
        let highest = partition.shared.highest(*id).unwrap_or_default();
        if setup.key != KeyId(id.0) || setup.epoch.0 <= highest || setup.epoch.0 > SPAN {
            return Err(Error::forbidden("these shares cannot be the first ones of this key here"));
        }
        if partition.shared.key(*id).is_some() {
            return Err(Error::forbidden("this key is shared already"));
        }
        [*id, import.public].into_iter().try_for_each(|id| self.check_free_elsewhere(&partition, id))?;
        check_waiting(&partition, *id, (Some(&import.order), act))?;
        let shown = threshold::shown_public_key(import.scheme, &import.compressed)?;
        if shown != order.public_key.as_slice() {
            return Err(Error::forbidden(
                "the coordinator means another public key than the one that was ordered",
            ));
        }
        let whole = if setup.me == dealing {
            let whole = Whole::of(&partition, *id)?;
            if whole.compressed != import.compressed || whole.scheme != import.scheme {
                return Err(Error::forbidden("the order is about another key than the one here"));
            }
            partition.rules().check_thawed(partition.keyring.lineage(*id))?;
            Some(whole)
        } else {
            check_given(&partition, &import.objects, *id, import.public)?;
            None
        };
        // Of a key that is whole elsewhere nothing was here that could have been destroyed.
        let lifts = (setup.me != dealing).then(|| format!("{act} ordered by {by}"));
        let plan = Plan { lifts, ..plan(&partition, &sharing, &import) };
        let about = About {
            partition: Arc::clone(&partition),
            object: *id,
            call: CallId::RenewShares,
            detail: format!(
                "ceremony {} of node {}: {act} ordered by {by}: {}",
                digits(setup.id),
                coordinator.name,
                names(parties.values())
            ),
        };
        about.tell(context);
        let now = self.platform.uptime();
        let text = sha256(&import.order.text);
        self.cluster.begun.begin_order(text, coordinator.node, now)?;
        self.launch(context, view, (coordinator, parties), &setup, Kind::Shares, |_| {
            let importing = Importing {
                scheme: import.scheme,
                committee: sharing.committee,
                dealer: dealing,
                public_key: &import.compressed,
                private_key: whole.as_ref().map(|whole| &whole.secret),
                chain_code: None,
            };
            let begun = threshold::import(&importing, &setup).map_err(Error::from);
            let (ceremony, outgoing) = begun?;
            Ok((about, Work::Making(ceremony, Box::new(plan)), outgoing))
        })
    }

    /// Turns a key that this node holds into shares, together with everybody who is to hold one.
    pub(super) fn share_key(
        &self,
        context: &mut Context<'_>,
        view: &View,
        key: KeyHere<'_>,
        (signed, order): (&SignedOrder, &Order),
    ) -> Result<Renewed, Error> {
        let KeyHere { partition, id, .. } = key;
        let sharing = Sharing::of(order)?;
        let whole = Whole::of(partition, id)?;
        let own = view.me().ok_or(FaultCode::Forbidden)?;
        let (parties, _) = sharing.parties(view, own)?;
        let (public, objects) = whole.objects(partition, sharing.shares(), self.new_id())?;
        let (scheme, compressed) = (whole.scheme, whole.compressed.clone());
        let import = Import { order: signed.clone(), scheme, public, objects, compressed };
        // Its attributes hold the key too.
        drop(whole);
        let others: Vec<Member> = parties.values().filter(|member| member.id != own.id).cloned().collect();
        let epoch = Epoch(partition.shared.highest(id).unwrap_or_default().saturating_add(1));
        let making = Making {
            parties,
            seats: &sharing.seats,
            key: KeyId(id.0),
            epoch,
            task: Task::Import(import),
            patience: Duration::from_micros(GENERATION),
            unlike: "the nodes do not say the same of the shares; the key is as it was",
        };
        let whole = self.make_shares(context, view, making, |_, trouble| {
            trouble.told(|reasons| {
                format!("every node that is to hold a share takes part, and the key is as it was: {reasons}")
            })
        })?;
        let warrant = Warrant { certificate: encode(&whole).to_vec(), order: Some(signed.clone()) };
        let mut notes = self.put_into_use(context, id, &warrant, || {
            self.ask_all(view, &others, &warrant.question(), ACTIVATION)
        })?;
        if let Err(error) = self.prove_shares(context, view, key) {
            notes.push(format!("the shares have not all signed yet: {error}"));
        }
        // What has been done is done, and on record.
        context.recorded = true;
        Ok(Renewed { epoch, note: notes.join("; ") })
    }
}

/// What the shares are to be, and the objects.
fn plan(partition: &Partition, sharing: &Sharing, import: &Import) -> Plan {
    let Objects { public, private } = import.objects.clone();
    let public = public.filter(|_| !partition.keyring.has(import.public));
    Plan {
        publish: public.is_some(),
        text: sha256(&import.order.text),
        order: Some(import.order.clone()),
        object: Some(likeness(&private)),
        lifts: None,
        seats: sharing.seats.clone(),
        public: import.public,
        draft: Draft {
            scheme: import.scheme,
            shares: sharing.shares(),
            public: public.unwrap_or_else(|| private.clone()),
            private,
        },
    }
}
