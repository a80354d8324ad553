//! What a descendant of a shared key is to be like: whether there may be one, where it comes from, and its object. Every
//! node works it out for itself, from the application's mandate and its own share of the master.

use std::sync::Arc;

use minicbor::{Decode, Encode};
use pkcs11_sys::*;
use strongroom_shared::{
    fault::FaultCode,
    mechanism::{Mechanism, Params, is_path},
    message::DeriveKey,
    object::{Attribute, CKA_STRONGROOM_CHAIN_CODE, Descent, ObjectId, ObjectInfo, Template, Usage, Value},
    wire::Handle,
};

use crate::{
    cluster::document::ClusterId,
    crypto::{
        self,
        threshold::{SchemeId, Share},
    },
    platform::Platform,
    vault::{
        Context, Error, Vault, attributes,
        cluster::View,
        keyring::Object,
        keys::implied,
        login::Role,
        mandates::CheckedMandate,
        object::{check_initialized, check_label},
        shared::{ceremony::plan::likeness, certificate::sha256, keys::SharedKey, meant},
    },
};

/// What stands before a master and a path when their lineage is made.
const LINEAGE: &[u8] = b"strongroom lineage 1\0";
/// How many descendants of a partition may wait for their certificates.
const WAITING: usize = 64;

/// What a node says of a descendant that it has stored: the same bytes at every honest node.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct ChildClaim {
    /// The cluster.
    #[n(0)]
    pub cluster: ClusterId,
    /// The partition's name.
    #[n(1)]
    pub partition: String,
    /// SHA-256 of the mandate's text. The object has its id from it.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub mandate: [u8; 32],
    /// Where it comes from.
    #[n(3)]
    pub descent: Descent,
    /// SHA-256 of the object's attributes, its public key among them, whatever its shares are.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub object: [u8; 32],
    /// The nodes that hold the shares of the master, in the order of their seats: their Ed25519 keys.
    #[n(5)]
    pub seats: Vec<[u8; 32]>,
}

impl ChildClaim {
    /// The coordinator does not choose it, so it cannot take another object's place.
    pub fn id(&self) -> ObjectId {
        object_id(&self.mandate)
    }
}

pub(super) fn object_id(hash: &[u8; 32]) -> ObjectId {
    let mut id = [0; 16];
    id.iter_mut().zip(hash).for_each(|(to, from)| *to = *from);
    ObjectId(id)
}

/// Every object of the same descendant has the same lineage: a second one does not get round a limit or a freeze.
pub(in crate::vault::shared) fn lineage(descent: &Descent) -> ObjectId {
    object_id(&sha256(&[LINEAGE, &descent.master.0, &descent.path_bytes()].concat()))
}

/// What the object of a descendant says of its public key, on the curve that `like` names.
///
/// # Errors
/// The share has no key or chain code, or the curve is another.
pub(super) fn values_of(share: &Share, like: &Template) -> Result<Template, Error> {
    let public = share.public();
    let point = public.public_key().map_err(Error::internal)?;
    let params = like.bytes(CKA_EC_PARAMS).unwrap_or_default();
    let curve = Template::new().with(CKA_EC_PARAMS, Value::bytes(params));
    let values = crypto::shared_values(SchemeId::EcdsaSecp256k1, &curve, &point)?.private;
    let chain_code = public.chain_code().ok_or(FaultCode::KeyTypeInconsistent)?;
    Ok(values.with(CKA_STRONGROOM_CHAIN_CODE, Value::bytes(chain_code.as_slice())))
}

/// What a descendant is to be like.
pub(super) struct ChildPlan {
    /// Its object.
    pub id: ObjectId,
    /// The object's attributes.
    pub attributes: Template,
    /// What this node says of it.
    pub claim: ChildClaim,
    /// The key that it descends from.
    pub family: Arc<SharedKey>,
    /// What it is and who wants it, for the record.
    pub detail: String,
}

/// Whether descendants can be made of this key by this mechanism.
fn check_base(base: &Object, mechanism: u64) -> Result<(), Error> {
    let known = Mechanism::from_number(mechanism).ok_or(FaultCode::MechanismInvalid)?;
    if !known.row().supports(CKF_DERIVE) {
        return Err(FaultCode::MechanismInvalid.into());
    }
    let attributes = &base.attributes;
    if attributes::shares(attributes).is_none() || attributes.bytes(CKA_STRONGROOM_CHAIN_CODE).is_none() {
        let text = "descendants are of ECDSA keys on secp256k1 of which several nodes hold shares";
        return Err(Error::caller(FaultCode::KeyTypeInconsistent, text));
    }
    if !Usage::of(attributes).permits(Usage::DERIVE) {
        return Err(Error::attribute(FaultCode::KeyFunctionNotPermitted, CKA_DERIVE));
    }
    match attributes.value(CKA_ALLOWED_MECHANISMS) {
        Some(Value::Mechanisms(allowed)) if allowed.contains(&mechanism) => Ok(()),
        Some(_) | None => Err(Error::attribute(FaultCode::MechanismInvalid, CKA_ALLOWED_MECHANISMS)),
    }
}

/// Where the descendant comes from that this path leads to from the base key.
fn descent(base: &Object, params: Params) -> Result<Descent, Error> {
    let invalid = |text: &str| Error::caller(FaultCode::MechanismParamInvalid, text);
    let Params::Path(path) = params else { return Err(FaultCode::MechanismParamInvalid.into()) };
    if !is_path(&path) {
        return Err(invalid(
            "a path has 1 to 16 indices, each below 2^31: hardened children are of whole keys",
        ));
    }
    let mut descent = Descent::of(&base.attributes).unwrap_or(Descent { master: base.id, path: Vec::new() });
    descent.path.extend(path);
    if !is_path(&descent.path) {
        return Err(invalid("it would be more than 16 generations from its master"));
    }
    Ok(descent)
}

impl<P: Platform> Handle<DeriveKey> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: DeriveKey) -> Result<ObjectInfo, Error> {
        let partition = context.partition()?;
        context.mechanism = Some(call.mechanism);
        let base = self.object(context, &partition, call.base, FaultCode::KeyHandleInvalid)?;
        check_base(&base, call.mechanism)?;
        let text = "several nodes hold shares of this key: the client needs a module that knows such keys";
        Err(Error::caller(FaultCode::KeyFunctionNotPermitted, text))
    }
}

impl<P: Platform> Vault<P> {
    /// What the descendant of a mandate is to be like.
    pub(super) fn plan_child(
        &self,
        context: &mut Context<'_>,
        view: &View,
        mandate: &CheckedMandate,
    ) -> Result<ChildPlan, Error> {
        let partition = &mandate.partition;
        let DeriveKey { mechanism, params, base, template } = meant(mandate)?;
        (context.object, context.mechanism) = (Some(base), Some(mechanism));
        // The mandate stands for the login.
        let missing = FaultCode::KeyHandleInvalid;
        let base = partition.keyring.object(base, context.application_id(), Role::User, missing)?;
        check_base(&base, mechanism)?;
        mandate.check_seen(&base)?;
        let descent = descent(&base, params)?;
        {
            let rules = partition.rules();
            for lineage in [base.lineage, descent.master, lineage(&descent)] {
                rules.check_thawed(lineage)?;
            }
        }
        let id = object_id(&mandate.id);
        if partition.keyring.has(id) || partition.shared.holds(id) {
            return Err(Error::forbidden("the mandate was for one key"));
        }
        self.check_free(id)?;
        if partition.shared.children.waiting().len() >= WAITING {
            return Err(Error::caller(
                FaultCode::Full,
                "too many descendants wait for a node that is silent",
            ));
        }
        let template = implied(template, CKO_PRIVATE_KEY, CKK_EC)?;
        let mut attributes =
            attributes::complete_descendant(template, id, Role::User, &base.attributes, &descent)?;
        check_initialized(partition, &attributes)?;
        check_label(partition, &base, &attributes)?;
        let family = partition.shared.key(descent.master).ok_or_else(|| {
            Error::caller(FaultCode::KeyHandleInvalid, format!("no share of key {} here", descent.master))
        })?;
        family.check_current()?;
        let share = family.descendant(id, &descent.path)?;
        let values = values_of(&share, &base.attributes)?;
        values.0.into_iter().for_each(|Attribute { kind, value }| attributes.set(kind, value));
        let claim = ChildClaim {
            cluster: view.document.membership().cluster,
            partition: partition.rules().record.name.clone(),
            mandate: mandate.id,
            descent,
            object: likeness(&attributes),
            seats: family.seats.clone(),
        };
        context.object = Some(id);
        let detail = format!("{} for client {}", claim.descent, mandate.client);
        Ok(ChildPlan { id, attributes, claim, family, detail })
    }
}
