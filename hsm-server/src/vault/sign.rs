//! The use of keys: sign, verify, encrypt, decrypt. Every use goes the same way:
//! understood by policy, allowed by policy, recorded by audit, and only then carried out.

use minicbor::Decoder;
use pkcs11_sys::*;
use strongroom_shared::{
    fault::FaultCode,
    mechanism::{KeyKind, Mechanism, Params, flag_of},
    message::*,
    object::{ObjectId, Usage, Value},
    wire::{HEADER, Handle},
};

use super::{Context, Error, Vault, attributes, keyring::Object, partition::Partition};
use crate::{
    authority::{Act, Authorized},
    crypto,
    door::Pace,
    platform::Platform,
    policy::{self, Circumstances},
};

/// A key, and the authority to use it once.
struct Use {
    object: std::sync::Arc<Object>,
    authorized: Authorized,
}

/// What a call wants of a key.
pub struct Wish {
    /// What is to be done.
    pub act: Act,
    /// With which key.
    pub key: ObjectId,
    /// By which mechanism.
    pub mechanism: u64,
    /// With which parameter.
    pub params: Params,
    /// To which bytes.
    pub input: Vec<u8>,
}

/// Whether a use is charged to the key's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charge {
    /// It is.
    Now,
    /// It was: another attempt at the same.
    Done,
}

impl<P: Platform> Vault<P> {
    /// From a wish to the authority to fulfil it, which is on record.
    fn authorize(&self, context: &mut Context<'_>, wish: Wish) -> Result<Use, Error> {
        let partition = context.partition()?;
        context.mechanism = Some(wish.mechanism);
        let object = self.object(context, &partition, wish.key, FaultCode::KeyHandleInvalid)?;
        check_whole(&object)?;
        let authorized = self.authorize_use(context, &partition, &object, wish, Charge::Now)?;
        Ok(Use { object, authorized })
    }

    /// The authority to use a key that is known, on record.
    pub(super) fn authorize_use(
        &self,
        context: &mut Context<'_>,
        partition: &Partition,
        object: &Object,
        wish: Wish,
        charge: Charge,
    ) -> Result<Authorized, Error> {
        let mechanism = check_use(object, &wish)?;
        let rules = partition.rules();
        rules.check_thawed(object.lineage)?;
        rules.check_family(&object.attributes)?;

        let intent = policy::read(wish.act, wish.key, mechanism, wish.params, wish.input);
        context.message_hash = intent.message_hash.to_vec();
        let (lineage, uptime) = (object.lineage, self.platform.uptime());
        let about = Circumstances { label: object.label(), lineage, now: context.now, uptime };
        let decision = match charge {
            Charge::Now => rules.policy.decide(intent, about, &partition.ledger)?,
            Charge::Done => rules.policy.decide_again(intent, about)?,
        };

        let mut record = self.record_of(context, Outcome::Done);
        record.charged = decision.charged;
        let authorized = self.log.record(decision.grant, record)?;
        context.recorded = true;
        Ok(authorized)
    }

    /// Puts on record that what was authorised could not be done.
    pub(super) fn undone(&self, context: &mut Context<'_>, error: crypto::Error) -> Error {
        let error = Error::from(error);
        context.recorded = false;
        self.record_failure(context, &error);
        error
    }
}

/// A key that is nowhere as a whole is used by all who hold it, on the application's signed word.
fn check_whole(object: &Object) -> Result<(), Error> {
    if attributes::shares(&object.attributes).is_none() {
        return Ok(());
    }
    let text = "several nodes hold shares of this key: the client needs a module that knows such keys";
    Err(Error::caller(FaultCode::KeyFunctionNotPermitted, text))
}

/// Whether the key's type and attributes allow the use, whatever policy says.
fn check_use(object: &Object, wish: &Wish) -> Result<Mechanism, Error> {
    let mechanism = Mechanism::from_number(wish.mechanism).ok_or(FaultCode::MechanismInvalid)?;
    let row = mechanism.row();
    let (usage, class) = match wish.act {
        Act::Sign => (Usage::SIGN, CKO_PRIVATE_KEY),
        Act::Verify => (Usage::VERIFY, CKO_PUBLIC_KEY),
        Act::Encrypt => (Usage::ENCRYPT, CKO_PUBLIC_KEY),
        Act::Decrypt => (Usage::DECRYPT, CKO_PRIVATE_KEY),
    };
    if !row.supports(flag_of(usage)) {
        return Err(FaultCode::MechanismInvalid.into());
    }
    let class = match row.key {
        KeyKind::Aes | KeyKind::Generic => CKO_SECRET_KEY,
        KeyKind::Rsa | KeyKind::Ec | KeyKind::EcEdwards | KeyKind::None => class,
    };
    let attributes = &object.attributes;
    let key_type = attributes.ulong(CKA_KEY_TYPE).ok_or(FaultCode::KeyHandleInvalid)?;
    if !row.key.accepts(key_type) || attributes.ulong(CKA_CLASS) != Some(class) {
        return Err(FaultCode::KeyTypeInconsistent.into());
    }
    if !Usage::of(attributes).permits(usage) {
        return Err(FaultCode::KeyFunctionNotPermitted.into());
    }
    if let Some(Value::Mechanisms(allowed)) = attributes.value(CKA_ALLOWED_MECHANISMS)
        && !allowed.contains(&wish.mechanism)
    {
        return Err(Error::attribute(FaultCode::MechanismInvalid, CKA_ALLOWED_MECHANISMS));
    }
    if !row.bits.contains(&crypto::bits(attributes)) {
        return Err(FaultCode::KeySizeRange.into());
    }
    if !row.takes(&wish.params) {
        return Err(FaultCode::MechanismParamInvalid.into());
    }
    Ok(mechanism)
}

impl<P: Platform> Handle<Sign> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: Sign) -> Result<Signature, Error> {
        let Sign { key, mechanism, params, input } = call;
        let Use { object, authorized } =
            self.authorize(context, Wish { act: Act::Sign, key, mechanism, params, input })?;
        let signature =
            crypto::sign(object.key()?, authorized).map_err(|error| self.undone(context, error))?;
        Ok(Signature { bytes: signature })
    }
}

impl<P: Platform> Handle<Verify> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: Verify) -> Result<Done, Error> {
        let Verify { key, mechanism, params, input, signature } = call;
        let Use { object, authorized } =
            self.authorize(context, Wish { act: Act::Verify, key, mechanism, params, input })?;
        // A signature that does not verify is an answer, not a failure of the use that is on record.
        crypto::verify(object.key()?, authorized, &signature)?;
        Ok(Done {})
    }
}

impl<P: Platform> Handle<Encrypt> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: Encrypt) -> Result<Bytes, Error> {
        let Encrypt { key, mechanism, params, input } = call;
        let Use { object, authorized } =
            self.authorize(context, Wish { act: Act::Encrypt, key, mechanism, params, input })?;
        let bytes =
            crypto::encrypt(object.key()?, authorized).map_err(|error| self.undone(context, error))?;
        Ok(Bytes { bytes: SecretBytes(bytes.into()) })
    }
}

impl<P: Platform> Handle<Decrypt> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: Decrypt) -> Result<Bytes, Error> {
        let Decrypt { key, mechanism, params, input } = call;
        let Use { object, authorized } =
            self.authorize(context, Wish { act: Act::Decrypt, key, mechanism, params, input })?;
        let bytes =
            crypto::decrypt(object.key()?, authorized).map_err(|error| self.undone(context, error))?;
        Ok(Bytes { bytes: SecretBytes(bytes.into()) })
    }
}

/// RSA takes a hundred times as long as the rest. Looks at the mechanism without decoding the message.
pub fn pace(frame: &[u8]) -> Pace {
    match peek_mechanism(frame).map(|mechanism| mechanism.row().key) {
        Some(KeyKind::Rsa) => Pace::Slow,
        Some(KeyKind::Ec | KeyKind::EcEdwards | KeyKind::Aes | KeyKind::Generic | KeyKind::None) | None => {
            Pace::Quick
        }
    }
}

fn peek_mechanism(frame: &[u8]) -> Option<Mechanism> {
    let mut decoder = Decoder::new(frame.get(HEADER..)?);
    // The caller; then of Sign, Verify, Encrypt and Decrypt alike: the key, the mechanism.
    decoder.skip().ok()?;
    decoder.array().ok()?;
    decoder.skip().ok()?;
    Mechanism::from_number(decoder.u64().ok()?)
}
