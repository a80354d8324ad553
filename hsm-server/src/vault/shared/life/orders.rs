//! Orders about the shares of a key, as administrators bring them: one signature at a time, each on its own
//! administrator's connection. What is not complete waits ([`super::waiting`]); what is, is carried out.

use strongroom_shared::{fault::FaultCode, message::*, object::ObjectId, wire::Handle};

use crate::{
    cluster::{
        introduction::{self, CHALLENGE},
        order::{Order, OrderApproval, OrderRefusal, OrderedAct},
    },
    platform::Platform,
    vault::{
        Context, Error, Vault,
        cluster::View,
        identity::Identity,
        partition::Partition,
        shared::{
            certificate::Certified,
            end::abandon::new_here,
            generate::FIRST,
            keys::KeyHere,
            life::{
                import::{Sharing, Whole},
                moves::Move,
                waiting::Waiting,
            },
        },
    },
};

impl<P: Platform> Vault<P> {
    fn own_view(&self) -> Result<std::sync::Arc<View>, Error> {
        let view = self.cluster.view().filter(|view| view.own.is_some());
        view.ok_or_else(|| Error::forbidden("this server is in no cluster: see `hsmctl cluster`"))
    }
}

impl<P: Platform> Vault<P> {
    /// Whether an order is about what there is here, and can come about: what cannot is refused before anybody else is
    /// asked to sign it.
    ///
    /// # Errors
    /// Saying why it cannot.
    fn check_possible(&self, view: &View, partition: &Partition, order: &Order) -> Result<(), Error> {
        let (epoch, public_key) = match &order.act {
            OrderedAct::Share { .. } => {
                Sharing::check(order, view)?;
                (0, Whole::of(partition, order.key)?.public_key)
            }
            OrderedAct::Abandon => (FIRST.0, new_here(partition, order.key)?.public_key),
            act @ (OrderedAct::Refresh | OrderedAct::Repair { .. } | OrderedAct::Reshare { .. }) => {
                let shared = self.shared_here(partition, order.key)?;
                Move::check(act, &Certified::read(&shared.certificate)?, view.document.membership())?;
                let public_key = shared.share.public().public_key()?;
                (shared.epoch().0, public_key)
            }
        };
        if epoch != order.epoch {
            let from = order.epoch;
            let text = format!("the order starts from epoch {from}, and the key is at epoch {epoch}");
            return Err(Error::forbidden(text));
        }
        if public_key != order.public_key.as_slice() {
            return Err(Error::forbidden("the order is about another public key than the one here"));
        }
        Ok(())
    }
}

impl<P: Platform> Handle<RenewShares> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: RenewShares) -> Result<OrderState, Error> {
        let view = self.own_view()?;
        let membership = view.document.membership();
        let order = Order::from_bytes(&call.order).map_err(Error::forbidden)?;
        let partition = self.named(context, &order.partition)?;
        context.object = Some(order.key);
        context.detail = order.act.to_string();
        order.check_time(self.platform.now() / 1_000_000).map_err(Error::forbidden)?;
        if order.cluster != membership.cluster {
            return Err(Error::forbidden(OrderRefusal::Cluster(membership.cluster)));
        }
        let malformed = |_| Error::caller(FaultCode::ArgumentsBad, "not an Ed25519 key and signature");
        let approval = OrderApproval {
            key: call.key.try_into().map_err(malformed)?,
            signature: call.signature.try_into().map_err(malformed)?,
        };
        let name = approval.judge(&call.order, membership).map_err(Error::forbidden)?.to_owned();
        self.check_possible(&view, &partition, &order)?;
        let kept = self.keep_approval(context, (&view, &name), &order, call.order, approval)?;
        let needed = self.needed(&view, &order);
        let signed = match kept {
            Ok(signed) => signed,
            Err(OrderRefusal::Approvals { found, needed }) => {
                return Ok(OrderState { approvals: found, needed, epoch: None, note: String::new() });
            }
            Err(refusal) => return Err(Error::forbidden(refusal)),
        };
        let key = KeyHere { name: &order.partition, partition: &partition, id: order.key };
        let renewed = match order.act {
            OrderedAct::Share { .. } => self.share_key(context, &view, key, (&signed, &order)),
            OrderedAct::Abandon => self.abandon_key(context, &view, key, &signed),
            OrderedAct::Refresh | OrderedAct::Repair { .. } | OrderedAct::Reshare { .. } => {
                self.renew_shares(context, &view, key, Some(&signed), &order.act)
            }
        };
        self.settle_order(&signed, &renewed);
        let renewed = renewed?;
        let approvals = u32::try_from(signed.approvals.len()).unwrap_or(u32::MAX);
        Ok(OrderState { approvals, needed, epoch: Some(renewed.epoch.0), note: renewed.note })
    }
}

impl<P: Platform> Handle<ListOrders> for Vault<P> {
    fn handle(&self, _: &mut Context<'_>, _: ListOrders) -> Result<Orders, Error> {
        let view = self.own_view()?;
        let describe = |waiting: Waiting| {
            let signed = waiting.signed();
            let names = signed.approvals.iter();
            let names = names.filter_map(|one| one.judge(&signed.text, view.document.membership()).ok());
            WaitingOrder {
                signed_by: names.map(str::to_owned).collect(),
                needed: self.needed(&view, &waiting.order),
                trouble: waiting.trouble().map(str::to_owned),
                order: signed.text,
            }
        };
        Ok(Orders { orders: self.waiting_orders().into_iter().map(describe).collect() })
    }
}

impl<P: Platform> Handle<ReadShares> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: ReadShares) -> Result<SharesRead, Error> {
        let partition = self.named(context, &call.partition)?;
        context.object = Some(call.key);
        let identity = self.cluster.identity().ok_or(FaultCode::Forbidden)?;
        let shared = match partition.shared.key(call.key) {
            Some(_) => Some(self.shared_here(&partition, call.key)?),
            None => None,
        };
        if let Some(new) = partition.shared.new_key(call.key)? {
            let said = SharesRead {
                partition: call.partition,
                key: call.key,
                label: new.label,
                public_key: new.public_key,
                epoch: None,
                threshold: new.public.committee().threshold().into(),
                seats: new.claim.seats.iter().map(|seat| seat.to_vec().into()).collect(),
                bans: 0,
                node: identity.public().to_vec(),
                proof: None,
                waiting: Some(new.made / 1_000_000),
            };
            return prove(said, call.challenge, &identity);
        }
        let seats = shared.iter().flat_map(|shared| &shared.seats);
        let bans = shared.as_ref().map_or(0, |shared| shared.bans().len());
        let said = SharesRead {
            label: label(&partition.keyring.token_objects(), call.key),
            partition: call.partition,
            key: call.key,
            public_key: match &shared {
                Some(shared) => shared.share.public().public_key().map_err(Error::internal)?,
                None => Whole::of(&partition, call.key)?.public_key,
            },
            epoch: shared.as_ref().map(|shared| shared.epoch().0),
            threshold: shared
                .as_ref()
                .map_or(0, |shared| shared.share.public().committee().threshold().into()),
            seats: seats.map(|seat| seat.to_vec().into()).collect(),
            bans: u32::try_from(bans).unwrap_or(u32::MAX),
            node: identity.public().to_vec(),
            proof: None,
            waiting: None,
        };
        prove(said, call.challenge, &identity)
    }
}

fn prove(said: SharesRead, challenge: Vec<u8>, identity: &Identity) -> Result<SharesRead, Error> {
    let challenge: [u8; CHALLENGE] = challenge
        .try_into()
        .map_err(|_| Error::caller(FaultCode::ArgumentsBad, format!("a challenge has {CHALLENGE} bytes")))?;
    Ok(introduction::prove_shares(said, &challenge, &identity.pair))
}

fn label(objects: &[std::sync::Arc<crate::vault::keyring::Object>], id: ObjectId) -> Vec<u8> {
    objects.iter().find(|object| object.id == id).map(|object| object.label().to_vec()).unwrap_or_default()
}
