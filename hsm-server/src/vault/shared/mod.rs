//! Keys of which several nodes hold shares.
//!
//! The node that takes a call checks of it what it would check of any other, and the mandate that comes with it. It
//! then coordinates ([`ceremony::relay`]): it has no authority, and every party ([`ceremony::party`]) checks for itself, puts its own
//! part on record, and says nothing that another node could use for anything else.

mod ask;
pub mod bans;
pub mod ceremony;
pub mod certificate;
pub mod children;
pub mod end;
mod generate;
pub mod hearing;
mod ids;
pub mod kept;
pub mod keys;
pub mod lately;
pub mod life;
mod sign;
pub mod words;

use strongroom_shared::{
    fault::FaultCode,
    message::*,
    object::ObjectInfo,
    wire::{Call, CallId, Handle, decode_body},
};

use super::{Context, Error, Vault, mandates::CheckedMandate};
use crate::platform::Platform;

pub use self::end::Destruction;

/// The call that a mandate is for.
fn meant<C: Call>(mandate: &CheckedMandate) -> Result<C, Error> {
    decode_body(&mandate.body).map_err(|error| Error::caller(FaultCode::Malformed, error.to_string()))
}

impl<P: Platform> Handle<GenerateShared> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: GenerateShared) -> Result<KeyPair, Error> {
        let mandate = self.check_own_mandate(context, &call.mandated, CallId::GenerateKeyPair)?;
        self.generate_shared(context, &call.mandated, &mandate)
    }
}

impl<P: Platform> Handle<SignShared> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: SignShared) -> Result<Signature, Error> {
        let mandate = self.check_own_mandate(context, &call.mandated, CallId::Sign)?;
        let wanted: Sign = meant(&mandate)?;
        context.mechanism = Some(wanted.mechanism);
        self.object(context, &mandate.partition, wanted.key, FaultCode::KeyHandleInvalid)?;
        self.sign_shared(context, (&call.mandated, &mandate), wanted)
    }
}

impl<P: Platform> Handle<DestroyShared> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: DestroyShared) -> Result<Done, Error> {
        let mandate = self.check_own_mandate(context, &call.mandated, CallId::DestroyObject)?;
        self.destroy_shared(context, &call.mandated, &mandate)?;
        Ok(Done {})
    }
}

impl<P: Platform> Handle<DeriveShared> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: DeriveShared) -> Result<ObjectInfo, Error> {
        let mandate = self.check_own_mandate(context, &call.mandated, CallId::DeriveKey)?;
        let wanted: DeriveKey = meant(&mandate)?;
        self.object(context, &mandate.partition, wanted.base, FaultCode::KeyHandleInvalid)?;
        self.derive_shared(context, &call.mandated, &mandate)
    }
}
