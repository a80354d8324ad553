//! The cryptography room: what the token's mechanisms do with its keys. It knows no policy, no audit and no store.
//!
//! A [`Key`] is parsed once from an object's attributes and then shared by threads. Whoever wants to act
//! with it hands over an [`Authorized`], which is used up. The way from a mechanism and a key to the code is
//! one match, `algorithm`; a new family is one arm there, and a file that implements `Algorithm`.
//!
//! Keys that no single machine has are another matter: they live in [`threshold`].

mod aes;
mod bip340;
mod der;
mod ec;
mod ecdsa;
mod edwards;
mod error;
mod gcm_long_iv;
mod generic;
mod hash;
mod rsa;
mod rsa_key;
mod self_test;
mod shared;
#[cfg(test)]
mod tests;
pub mod threshold;

use std::fmt;

use pkcs11_sys::*;
use strongroom_shared::{
    mechanism::{Hash, KeyKind, Mechanism, Params},
    object::{Template, Value},
};
use zeroize::Zeroizing;

pub use self::{
    error::Error,
    self_test::self_test,
    shared::{proving_mechanism, scheme_of, shared_input, shared_secret, shared_values, verify_shared},
};
use crate::authority::{Act, Authorized, Intent};

/// Where the bytes of new keys come from.
pub trait Random {
    /// Fills `bytes` with random bytes that nobody can predict.
    fn fill(&self, bytes: &mut [u8]);
}

/// A key that is ready for use. Its secret is wiped when it is dropped.
pub struct Key {
    material: Material,
    bits: u32,
}

/// What each family makes of a key's attributes.
enum Material {
    Rsa(rsa::Key),
    Ec(ecdsa::Key),
    EcEdwards(edwards::Key),
    Aes(aes::Key),
    Generic(generic::Key),
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.material {
            Material::Rsa(_) => "RSA",
            Material::Ec(_) => "EC",
            Material::EcEdwards(_) => "Edwards",
            Material::Aes(_) => "AES",
            Material::Generic(_) => "generic",
        };
        write!(f, "[{family} key of {} bits]", self.bits)
    }
}

impl Key {
    /// Makes the key that these attributes describe: `CKA_CLASS`, `CKA_KEY_TYPE` and the values.
    ///
    /// # Errors
    /// The attributes are not those of a key of this token. Values are not checked as deeply as
    /// [`complete`] does, through which every imported key has passed.
    pub fn parse(attributes: &Template) -> Result<Self, Error> {
        let material = match (Half::of(attributes)?, Type::of(attributes)?) {
            (Half::Private, Type::Rsa) => Material::Rsa(rsa::Key::private(attributes)?),
            (Half::Public, Type::Rsa) => Material::Rsa(rsa::Key::public(attributes)?),
            (Half::Private, Type::Ec) => Material::Ec(ecdsa::Key::private(attributes)?),
            (Half::Public, Type::Ec) => Material::Ec(ecdsa::Key::public(attributes)?),
            (Half::Private, Type::EcEdwards) => Material::EcEdwards(edwards::Key::private(attributes)?),
            (Half::Public, Type::EcEdwards) => Material::EcEdwards(edwards::Key::public(attributes)?),
            (Half::Secret, Type::Aes) => Material::Aes(aes::Key::parse(attributes)?),
            (Half::Secret, Type::Generic(only)) => Material::Generic(generic::Key::parse(attributes, only)?),
            (Half::Secret, Type::Rsa | Type::Ec | Type::EcEdwards)
            | (Half::Private | Half::Public, Type::Aes | Type::Generic(_)) => {
                return Err(Error::TemplateInconsistent);
            }
        };
        Ok(Self { material, bits: bits(attributes) })
    }
}

/// Makes a signature or MAC, in the encoding that PKCS#11 gives the mechanism.
///
/// # Errors
/// The mechanism does not sign, or not with this key, parameter or input.
pub fn sign(key: &Key, authorized: Authorized) -> Result<Vec<u8>, Error> {
    let intent = intent(authorized, Act::Sign)?;
    let task = Task::of(&intent);
    algorithm(key, &task, CKF_SIGN)?.sign(&task)
}

/// Checks a signature or MAC.
///
/// # Errors
/// `SignatureInvalid` or `SignatureLengthRange`; or the mechanism does not verify, or not with this key,
/// parameter or input.
pub fn verify(key: &Key, authorized: Authorized, signature: &[u8]) -> Result<(), Error> {
    let intent = intent(authorized, Act::Verify)?;
    let task = Task::of(&intent);
    algorithm(key, &task, CKF_VERIFY)?.verify(&task, signature)
}

/// Encrypts.
///
/// # Errors
/// The mechanism does not encrypt, or not with this key, parameter or input.
pub fn encrypt(key: &Key, authorized: Authorized) -> Result<Zeroizing<Vec<u8>>, Error> {
    let intent = intent(authorized, Act::Encrypt)?;
    let task = Task::of(&intent);
    algorithm(key, &task, CKF_ENCRYPT)?.encrypt(&task)
}

/// Decrypts.
///
/// # Errors
/// `EncryptedDataInvalid`, whatever is wrong with it, or `EncryptedDataLengthRange`; or the mechanism does
/// not decrypt, or not with this key or parameter.
pub fn decrypt(key: &Key, authorized: Authorized) -> Result<Zeroizing<Vec<u8>>, Error> {
    let intent = intent(authorized, Act::Decrypt)?;
    let task = Task::of(&intent);
    algorithm(key, &task, CKF_DECRYPT)?.decrypt(&task)
}

/// What a new key pair adds to the two templates that it was asked for with.
#[derive(Debug)]
pub struct PairValues {
    /// To be set in the public key.
    pub public: Template,
    /// To be set in the private key.
    pub private: Template,
}

/// Makes a key pair and proves that its halves belong together. RSA takes its primes from OpenSSL's own
/// generator; everything else comes from `random`.
///
/// # Errors
/// The mechanism makes no pairs, or a template does not fit it.
pub fn generate_pair(
    mechanism: Mechanism,
    public: &Template,
    private: &Template,
    random: &dyn Random,
) -> Result<PairValues, Error> {
    let row = mechanism.row();
    if !row.supports(CKF_GENERATE_KEY_PAIR) {
        return Err(Error::MechanismInvalid);
    }
    for (template, class) in [(public, CKO_PUBLIC_KEY), (private, CKO_PRIVATE_KEY)] {
        check_kind(template, class, row.key)?;
    }
    let (key_type, proof, values) = match row.key {
        KeyKind::Rsa => (CKK_RSA, Mechanism::Sha256RsaPkcs, rsa_key::generate(public)?),
        KeyKind::Ec => (CKK_EC, Mechanism::EcdsaSha256, ec::generate(public, random)?),
        KeyKind::EcEdwards => (CKK_EC_EDWARDS, Mechanism::Eddsa, edwards::generate(public, random)?),
        KeyKind::Aes | KeyKind::Generic | KeyKind::None => return Err(Error::MechanismInvalid),
    };
    if let (Some(asked), Some(made)) = (private.value(CKA_EC_PARAMS), values.private.value(CKA_EC_PARAMS))
        && asked != made
    {
        return Err(Error::TemplateInconsistent);
    }
    prove(
        proof,
        &whole(public, CKO_PUBLIC_KEY, key_type, &values.public),
        &whole(private, CKO_PRIVATE_KEY, key_type, &values.private),
    )?;
    Ok(values)
}

/// Makes a secret key: the attributes to be set beside the template's.
///
/// # Errors
/// The mechanism makes no secret keys, or the template does not fit it.
pub fn generate(mechanism: Mechanism, template: &Template, random: &dyn Random) -> Result<Template, Error> {
    let row = mechanism.row();
    if !row.supports(CKF_GENERATE) {
        return Err(Error::MechanismInvalid);
    }
    check_kind(template, CKO_SECRET_KEY, row.key)?;
    match row.key {
        KeyKind::Aes => aes::generate(template, random),
        KeyKind::Generic => generic::generate(template, random),
        KeyKind::Rsa | KeyKind::Ec | KeyKind::EcEdwards | KeyKind::None => Err(Error::MechanismInvalid),
    }
}

/// Checks every value of a key that a caller brings (`C_CreateObject`) and returns the attributes to set in its
/// object, some in place of the caller's: what follows from the values, and the values in their one
/// stored form. The template's `CKA_CLASS` and `CKA_KEY_TYPE` say what it is.
///
/// # Errors
/// A value is missing, wrong, or at odds with another.
pub fn complete(template: &Template) -> Result<Template, Error> {
    let values = match (Half::of(template)?, Type::of(template)?) {
        (Half::Private, Type::Rsa) => rsa_key::complete_private(template),
        (Half::Public, Type::Rsa) => rsa_key::complete_public(template),
        (Half::Private, Type::Ec) => ec::complete_private(template),
        (Half::Public, Type::Ec) => ec::complete_public(template),
        (Half::Private, Type::EcEdwards) => edwards::complete_private(template),
        (Half::Public, Type::EcEdwards) => edwards::complete_public(template),
        (Half::Secret, Type::Aes) => aes::complete(template),
        (Half::Secret, Type::Generic(_)) => generic::complete(template),
        (Half::Secret, Type::Rsa | Type::Ec | Type::EcEdwards)
        | (Half::Private | Half::Public, Type::Aes | Type::Generic(_)) => Err(Error::TemplateInconsistent),
    }?;
    without_contradiction(template, values)
}

/// The size of a key in bits, as `ObjectInfo` has it: of the modulus, of the curve's field, of the secret value.
/// 0 for an object that is no key of this token.
pub fn bits(attributes: &Template) -> u32 {
    if Half::of(attributes).is_err() {
        return 0;
    }
    match Type::of(attributes) {
        Ok(Type::Rsa) => rsa_key::bits(attributes),
        Ok(Type::Ec) => ec::Curve::of(attributes).map_or(0, ec::Curve::bits),
        Ok(Type::EcEdwards) => edwards::BITS,
        Ok(Type::Aes | Type::Generic(_)) => {
            attributes.bytes(CKA_VALUE).map_or(0, |value| u8::BITS * value.len() as u32)
        }
        Err(_) => 0,
    }
}

/// What is to be done, as a family sees it.
struct Task<'a> {
    mechanism: Mechanism,
    params: &'a Params,
    input: &'a [u8],
}

impl<'a> Task<'a> {
    fn of(intent: &'a Intent) -> Self {
        Self { mechanism: intent.mechanism, params: &intent.params, input: &intent.input }
    }
}

/// A family of mechanisms with a key. What a family does not say, it does not do.
///
/// When a method is called, the mechanism is one of the family's own, has the flag for this use, takes a
/// parameter of this kind, and a key of this size.
trait Algorithm {
    fn sign(&self, _: &Task<'_>) -> Result<Vec<u8>, Error> {
        Err(Error::MechanismInvalid)
    }

    fn verify(&self, _: &Task<'_>, _signature: &[u8]) -> Result<(), Error> {
        Err(Error::MechanismInvalid)
    }

    fn encrypt(&self, _: &Task<'_>) -> Result<Zeroizing<Vec<u8>>, Error> {
        Err(Error::MechanismInvalid)
    }

    fn decrypt(&self, _: &Task<'_>) -> Result<Zeroizing<Vec<u8>>, Error> {
        Err(Error::MechanismInvalid)
    }
}

/// The code for this task with this key. `flag` is the use that the mechanism must have in the table.
fn algorithm<'k>(key: &'k Key, task: &Task<'_>, flag: CK_FLAGS) -> Result<&'k dyn Algorithm, Error> {
    let row = task.mechanism.row();
    if !row.supports(flag) {
        return Err(Error::MechanismInvalid);
    }
    let algorithm: &dyn Algorithm = match (row.key, &key.material) {
        (KeyKind::Rsa, Material::Rsa(key)) => key,
        (KeyKind::Ec, Material::Ec(key)) => key,
        (KeyKind::EcEdwards, Material::EcEdwards(key)) => key,
        (KeyKind::Aes, Material::Aes(key)) => key,
        (KeyKind::Generic, Material::Generic(key)) => key,
        (
            KeyKind::Rsa | KeyKind::Ec | KeyKind::EcEdwards | KeyKind::Aes | KeyKind::Generic | KeyKind::None,
            Material::Rsa(_)
            | Material::Ec(_)
            | Material::EcEdwards(_)
            | Material::Aes(_)
            | Material::Generic(_),
        ) => return Err(Error::KeyTypeInconsistent),
    };
    if !row.takes(task.params) {
        return Err(Error::MechanismParamInvalid);
    }
    if !row.bits.contains(&key.bits) {
        return Err(Error::KeySizeRange);
    }
    Ok(algorithm)
}

/// Takes the authority, if it is for this act.
fn intent(authorized: Authorized, act: Act) -> Result<Intent, Error> {
    let intent = authorized.into_intent();
    if intent.act != act {
        return Err(Error::Internal("the authority is for another act"));
    }
    Ok(intent)
}

/// Which kind of key an object is.
enum Half {
    Private,
    Public,
    Secret,
}

impl Half {
    fn of(attributes: &Template) -> Result<Self, Error> {
        match attributes.ulong(CKA_CLASS).ok_or(Error::TemplateIncomplete(CKA_CLASS))? {
            CKO_PRIVATE_KEY => Ok(Self::Private),
            CKO_PUBLIC_KEY => Ok(Self::Public),
            CKO_SECRET_KEY => Ok(Self::Secret),
            _ => Err(Error::AttributeValueInvalid(CKA_CLASS)),
        }
    }
}

/// A key type of this token.
enum Type {
    Rsa,
    Ec,
    EcEdwards,
    Aes,
    /// With the only hash function that it is for, if its type names one.
    Generic(Option<Hash>),
}

impl Type {
    fn of(attributes: &Template) -> Result<Self, Error> {
        match attributes.ulong(CKA_KEY_TYPE).ok_or(Error::TemplateIncomplete(CKA_KEY_TYPE))? {
            CKK_RSA => Ok(Self::Rsa),
            CKK_EC => Ok(Self::Ec),
            CKK_EC_EDWARDS => Ok(Self::EcEdwards),
            CKK_AES => Ok(Self::Aes),
            CKK_GENERIC_SECRET => Ok(Self::Generic(None)),
            CKK_SHA224_HMAC => Ok(Self::Generic(Some(Hash::Sha224))),
            CKK_SHA256_HMAC => Ok(Self::Generic(Some(Hash::Sha256))),
            CKK_SHA384_HMAC => Ok(Self::Generic(Some(Hash::Sha384))),
            CKK_SHA512_HMAC => Ok(Self::Generic(Some(Hash::Sha512))),
            _ => Err(Error::AttributeValueInvalid(CKA_KEY_TYPE)),
        }
    }
}

/// Whether a template for a new key, where it names a class and a type, names those that the mechanism makes.
fn check_kind(template: &Template, class: CK_OBJECT_CLASS, kind: KeyKind) -> Result<(), Error> {
    let class_fits = template.ulong(CKA_CLASS).is_none_or(|given| given == class);
    let type_fits = template.ulong(CKA_KEY_TYPE).is_none_or(|given| kind.accepts(given));
    if class_fits && type_fits { Ok(()) } else { Err(Error::TemplateInconsistent) }
}

/// A byte attribute that must be there.
fn need(attributes: &Template, kind: CK_ATTRIBUTE_TYPE) -> Result<&[u8], Error> {
    attributes.bytes(kind).ok_or(Error::TemplateIncomplete(kind))
}

/// `CKA_VALUE_LEN` of a secret key to be made, if it is `good`.
fn value_length(template: &Template, good: impl FnOnce(usize) -> bool) -> Result<usize, Error> {
    let length = template.ulong(CKA_VALUE_LEN).ok_or(Error::TemplateIncomplete(CKA_VALUE_LEN))?;
    let length = usize::try_from(length).ok().filter(|length| good(*length));
    length.ok_or(Error::AttributeValueInvalid(CKA_VALUE_LEN))
}

/// The private half's attributes with the public half's `CKA_PUBLIC_KEY_INFO`, which both have.
fn with_public_key_info(mut private: Template, public: &Template) -> Template {
    if let Some(info) = public.value(CKA_PUBLIC_KEY_INFO) {
        private.set(CKA_PUBLIC_KEY_INFO, info.clone());
    }
    private
}

/// The values, unless the caller's template says otherwise about something that follows from them. Where it gives
/// such an attribute empty, an empty check value stays so (PKCS#11 3.1, 4.10.1), and the rest is filled in.
fn without_contradiction(template: &Template, mut values: Template) -> Result<Template, Error> {
    for kind in [CKA_PUBLIC_KEY_INFO, CKA_MODULUS_BITS, CKA_VALUE_LEN] {
        let given = template.value(kind).filter(|given| given.length() != 0);
        if given.is_some() && given != values.value(kind) {
            return Err(Error::TemplateInconsistent);
        }
    }
    match template.bytes(CKA_CHECK_VALUE) {
        Some([]) => values.0.retain(|attribute| attribute.kind != CKA_CHECK_VALUE),
        Some(given) if values.bytes(CKA_CHECK_VALUE) != Some(given) => {
            return Err(Error::AttributeValueInvalid(CKA_CHECK_VALUE));
        }
        Some(_) | None => {}
    }
    Ok(values)
}

/// A template with the attributes that make it a key.
fn whole(template: &Template, class: CK_OBJECT_CLASS, key_type: CK_KEY_TYPE, values: &Template) -> Template {
    let mut whole =
        template.clone().with(CKA_CLASS, Value::Ulong(class)).with(CKA_KEY_TYPE, Value::Ulong(key_type));
    for attribute in values.iter() {
        whole.set(attribute.kind, attribute.value.clone());
    }
    whole
}

/// Signs with one half of a new pair and verifies with the other (FIPS 140-3, pairwise consistency).
fn prove(mechanism: Mechanism, public: &Template, private: &Template) -> Result<(), Error> {
    let task = Task { mechanism, params: &Params::None, input: b"pairwise consistency" };
    let (public, private) = (Key::parse(public)?, Key::parse(private)?);
    let signature = algorithm(&private, &task, CKF_SIGN)?.sign(&task)?;
    let verified = algorithm(&public, &task, CKF_VERIFY)?.verify(&task, &signature);
    verified.map_err(|_| Error::Internal("the halves of the new pair do not belong together"))
}
