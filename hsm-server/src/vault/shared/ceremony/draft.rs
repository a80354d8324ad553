//! The objects of a key pair that is to be shared, before it has a key. Each node makes them for itself, from the
//! application's mandate, and all make the same.

use pkcs11_sys::*;
use strongroom_shared::{
    fault::FaultCode,
    mechanism::{CKM_STRONGROOM_BIP32_CHILD, CKM_STRONGROOM_BIP340, KeyKind, Mechanism},
    message::GenerateKeyPair,
    object::{ObjectId, Shares, Template, Value},
};

use crate::{
    crypto::{self, threshold::SchemeId},
    vault::{
        Error,
        attributes::{self, Origin},
        keys::implied,
        login::Role,
    },
};

/// A pair that is to be shared.
#[derive(Debug)]
pub struct Draft {
    /// What makes it.
    pub scheme: SchemeId,
    /// How it is shared.
    pub shares: Shares,
    /// The public key's attributes, without the key.
    pub public: Template,
    /// The private key's attributes.
    pub private: Template,
}

impl Draft {
    /// The pair that `call` asks for, by these ids, shared by all of `members` nodes. Only the normal user makes one.
    ///
    /// # Errors
    /// No scheme makes such a pair, or a template asks for what a shared key cannot be.
    pub fn of(
        call: &GenerateKeyPair,
        mechanism: Mechanism,
        public_id: ObjectId,
        private_id: ObjectId,
        members: usize,
    ) -> Result<Self, Error> {
        let scheme = crypto::scheme_of(mechanism, &call.public, &call.private)?;
        let key_type = match mechanism.row().key {
            KeyKind::EcEdwards => CKK_EC_EDWARDS,
            KeyKind::Rsa | KeyKind::Ec | KeyKind::Aes | KeyKind::Generic | KeyKind::None => CKK_EC,
        };
        let mut public = implied(call.public.clone(), CKO_PUBLIC_KEY, key_type)?;
        if public.bool(CKA_TOKEN) != Some(true) {
            return Err(Error::attribute(FaultCode::TemplateInconsistent, CKA_TOKEN));
        }
        if scheme == SchemeId::Bip340 {
            let only = Value::Mechanisms(vec![CKM_STRONGROOM_BIP340]);
            public.set_default(CKA_ALLOWED_MECHANISMS, only);
        }
        let mut private = implied(call.private.clone(), CKO_PRIVATE_KEY, key_type)?;
        if scheme == SchemeId::EcdsaSecp256k1 && private.bool(CKA_DERIVE) == Some(true) {
            let mut all = attributes::mechanisms_of(key_type);
            all.push(CKM_STRONGROOM_BIP32_CHILD);
            private.set_default(CKA_ALLOWED_MECHANISMS, Value::Mechanisms(all));
        }
        let public = attributes::complete(public, public_id, Origin::Generated(mechanism), Role::User)?;
        let (private, shares) =
            attributes::complete_shared(private, private_id, mechanism, Role::User, members)?;
        Ok(Self { scheme, shares, public, private })
    }
}
