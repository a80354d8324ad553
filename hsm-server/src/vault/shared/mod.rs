//! Keys of which several nodes hold shares.
//!
//! The node that takes a call checks of it what it would check of any other, and the mandate that comes with it.

mod draft;

use pkcs11_sys::CKF_GENERATE_KEY_PAIR;
use strongroom_shared::{
    fault::FaultCode,
    message::*,
    object::Shares,
    wire::{Call, CallId, Handle, decode_body},
};

use self::draft::Draft;
use super::{
    Context, Error, Vault,
    keys::generator,
    mandates::CheckedMandate,
    object::{check_access, check_initialized},
};
use crate::platform::Platform;

/// The call that a mandate is for.
fn meant<C: Call>(mandate: &CheckedMandate) -> Result<C, Error> {
    decode_body(&mandate.body).map_err(|error| Error::caller(FaultCode::Malformed, error.to_string()))
}

impl<P: Platform> Handle<GenerateShared> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: GenerateShared) -> Result<KeyPair, Error> {
        let mandate = self.check_own_mandate(context, &call.mandated, CallId::GenerateKeyPair)?;
        let wanted: GenerateKeyPair = meant(&mandate)?;
        let mechanism = generator(context, wanted.mechanism, &wanted.params, CKF_GENERATE_KEY_PAIR)?;
        let members = self.cluster.view().map_or(0, |view| view.document.membership().members.len());
        let draft = Draft::of(&wanted, mechanism, self.new_id(), self.new_id(), members)?;
        let Shares { threshold, parties } = draft.shares;
        context.detail += &format!(", {:?}, {threshold} of {parties}", draft.scheme);
        for half in [&draft.public, &draft.private] {
            check_access(context, half)?;
            check_initialized(&mandate.partition, half)?;
        }
        Err(Error::caller(FaultCode::MechanismInvalid, "this server makes no shared keys yet"))
    }
}

impl<P: Platform> Handle<SignShared> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: SignShared) -> Result<Signature, Error> {
        let mandate = self.check_own_mandate(context, &call.mandated, CallId::Sign)?;
        let wanted: Sign = meant(&mandate)?;
        context.mechanism = Some(wanted.mechanism);
        self.object(context, &mandate.partition, wanted.key, FaultCode::KeyHandleInvalid)?;
        Err(FaultCode::KeyTypeInconsistent.into())
    }
}

impl<P: Platform> Handle<DestroyShared> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: DestroyShared) -> Result<Done, Error> {
        let mandate = self.check_own_mandate(context, &call.mandated, CallId::DestroyObject)?;
        let wanted: DestroyObject = meant(&mandate)?;
        self.object(context, &mandate.partition, wanted.object, FaultCode::ObjectHandleInvalid)?;
        Err(FaultCode::KeyTypeInconsistent.into())
    }
}
