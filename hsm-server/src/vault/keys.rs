//! Key generation (PKCS#11 3.1, sections 5.18.1 and 5.18.2): the token alone has ever known these keys.

use pkcs11_sys::*;
use strongroom_shared::{
    fault::FaultCode,
    mechanism::{KeyKind, Mechanism, Params},
    message::*,
    object::{Attribute, CKA_STRONGROOM_PARTIES, CKA_STRONGROOM_THRESHOLD, ObjectInfo, Template, Value},
    wire::Handle,
};

use super::{
    Context, Error, Vault,
    attributes::{self, Origin},
    object::{check_access, check_initialized},
};
use crate::{crypto, platform::Platform};

impl<P: Platform> Handle<GenerateKey> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: GenerateKey) -> Result<ObjectInfo, Error> {
        let partition = context.partition()?;
        let mechanism = generator(context, call.mechanism, &call.params, CKF_GENERATE)?;
        let id = self.new_id();
        let key_type = match mechanism.row().key {
            KeyKind::Aes => CKK_AES,
            KeyKind::Generic => hmac_type(&call.template),
            KeyKind::Rsa | KeyKind::Ec | KeyKind::EcEdwards | KeyKind::None => {
                return Err(FaultCode::Internal.into());
            }
        };
        let template = implied(call.template, CKO_SECRET_KEY, key_type)?;
        let mut attributes = attributes::complete(template, id, Origin::Generated(mechanism), context.role)?;
        check_access(context, &attributes)?;
        check_initialized(&partition, &attributes)?;
        let values = crypto::generate(mechanism, &attributes, &*self.platform)?;
        add_values(&mut attributes, values);
        let info = attributes::describe(id, &attributes);
        self.add(context, &partition, vec![(id, attributes, id)])?;
        Ok(info)
    }
}

impl<P: Platform> Handle<GenerateKeyPair> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: GenerateKeyPair) -> Result<KeyPair, Error> {
        let partition = context.partition()?;
        let mechanism = generator(context, call.mechanism, &call.params, CKF_GENERATE_KEY_PAIR)?;
        for kind in [CKA_STRONGROOM_THRESHOLD, CKA_STRONGROOM_PARTIES] {
            if call.private.value(kind).is_some() {
                // The other nodes would not believe this one: it takes a mandate.
                return Err(Error::attribute(FaultCode::TemplateInconsistent, kind));
            }
        }
        let key_type = match mechanism.row().key {
            KeyKind::Rsa => CKK_RSA,
            KeyKind::Ec => CKK_EC,
            KeyKind::EcEdwards => CKK_EC_EDWARDS,
            KeyKind::Aes | KeyKind::Generic | KeyKind::None => return Err(FaultCode::Internal.into()),
        };
        let origin = Origin::Generated(mechanism);
        let (public_id, private_id) = (self.new_id(), self.new_id());
        let public = implied(call.public, CKO_PUBLIC_KEY, key_type)?;
        let private = implied(call.private, CKO_PRIVATE_KEY, key_type)?;
        let mut public = attributes::complete(public, public_id, origin, context.role)?;
        let mut private = attributes::complete(private, private_id, origin, context.role)?;
        for half in [&public, &private] {
            check_access(context, half)?;
            check_initialized(&partition, half)?;
        }
        let values = crypto::generate_pair(mechanism, &public, &private, &*self.platform)?;
        add_values(&mut public, values.public);
        add_values(&mut private, values.private);
        let pair = KeyPair {
            certificate: None,
            public: attributes::describe(public_id, &public),
            private: attributes::describe(private_id, &private),
        };
        context.detail = format!("public key {public_id}");
        // The private key last: its id is the one that the record names.
        self.add(
            context,
            &partition,
            vec![(public_id, public, public_id), (private_id, private, private_id)],
        )?;
        Ok(pair)
    }
}

/// The mechanism of a generation, which then stands in its record.
pub fn generator(
    context: &mut Context<'_>,
    number: u64,
    params: &Params,
    flag: CK_FLAGS,
) -> Result<Mechanism, Error> {
    context.mechanism = Some(number);
    let mechanism = Mechanism::from_number(number).ok_or(FaultCode::MechanismInvalid)?;
    let row = mechanism.row();
    if !row.supports(flag) {
        return Err(FaultCode::MechanismInvalid.into());
    }
    if !row.takes(params) {
        return Err(FaultCode::MechanismParamInvalid.into());
    }
    Ok(mechanism)
}

/// The class and the key type follow from the mechanism; a template may repeat them and must not deny them.
pub fn implied(
    mut template: Template,
    class: CK_OBJECT_CLASS,
    key_type: CK_KEY_TYPE,
) -> Result<Template, Error> {
    for (kind, value) in [(CKA_CLASS, class), (CKA_KEY_TYPE, key_type)] {
        match template.value(kind) {
            None => template.set(kind, Value::Ulong(value)),
            Some(given) if *given == Value::Ulong(value) => {}
            Some(_) => return Err(Error::attribute(FaultCode::TemplateInconsistent, kind)),
        }
    }
    Ok(template)
}

/// A generic secret may be made for one HMAC (`CKK_SHA256_HMAC` …).
fn hmac_type(template: &Template) -> CK_KEY_TYPE {
    let asked = template.ulong(CKA_KEY_TYPE).filter(|key_type| KeyKind::Generic.accepts(*key_type));
    asked.unwrap_or(CKK_GENERIC_SECRET)
}

fn add_values(attributes: &mut Template, values: Template) {
    values.0.into_iter().for_each(|Attribute { kind, value }| attributes.set(kind, value));
}
