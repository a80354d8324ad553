//! RSA (RFC 8017), by OpenSSL: PKCS#1 v1.5, PSS and OAEP with any of the token's hash functions.
//!
//! Private operations are blinded (OpenSSL's default), and the result of the CRT is checked with the public
//! exponent before it is released (`rsa_ossl_mod_exp`), so a computing fault does not give the primes away.
//! Decryption of PKCS#1 v1.5 does not tell good padding from bad: bad padding decrypts to bytes that
//! depend on key and ciphertext alone ("implicit rejection", OpenSSL 3.2 and later).

use aws_lc_rs::digest;
use openssl::{
    pkey::{self, PKey},
    pkey_ctx::{PkeyCtx, PkeyCtxRef},
    rsa::Padding,
    sign::RsaPssSaltlen,
};
use strongroom_shared::{
    mechanism::{Hash, Params},
    object::Template,
};
use zeroize::Zeroizing;

use super::{Algorithm, Error, Task, hash, rsa_key};

/// One half of a pair.
pub enum Key {
    Private(PKey<pkey::Private>),
    Public(PKey<pkey::Public>),
}

impl Key {
    pub fn private(attributes: &Template) -> Result<Self, Error> {
        Ok(Self::Private(PKey::from_rsa(rsa_key::private(attributes)?)?))
    }

    pub fn public(attributes: &Template) -> Result<Self, Error> {
        Ok(Self::Public(PKey::from_rsa(rsa_key::public(attributes)?)?))
    }

    fn to_private(&self) -> Result<&PKey<pkey::Private>, Error> {
        match self {
            Self::Private(key) => Ok(key),
            Self::Public(_) => Err(Error::KeyTypeInconsistent),
        }
    }

    fn to_public(&self) -> Result<&PKey<pkey::Public>, Error> {
        match self {
            Self::Public(key) => Ok(key),
            Self::Private(_) => Err(Error::KeyTypeInconsistent),
        }
    }
}

/// What PKCS#1 v1.5 adds to a message at least, in bytes.
const PKCS1_OVERHEAD: usize = 11;

/// A signature scheme, its parameters checked.
enum Signing {
    /// Over the input as it is: a `DigestInfo`, or whatever the caller makes of it.
    Pkcs1,
    /// Over a hash value, whose `DigestInfo` is added.
    Pkcs1Hash(Hash),
    /// Over a hash value.
    Pss { hash: Hash, mgf: Hash, salt_length: i32 },
}

impl Signing {
    fn of(task: &Task<'_>, modulus: usize) -> Result<Self, Error> {
        match (task.params, task.mechanism.hash()) {
            (Params::None, None) => Ok(Self::Pkcs1),
            (Params::None, Some(hash)) => Ok(Self::Pkcs1Hash(hash)),
            (Params::Pss { hash, mgf, salt_length }, own) => {
                let longest = modulus.saturating_sub(hash.length() + 2);
                let fits = usize::try_from(*salt_length).is_ok_and(|length| length <= longest);
                let salt_length = i32::try_from(*salt_length).ok().filter(|_| fits);
                match (salt_length, own.is_none_or(|own| own == *hash)) {
                    (Some(salt_length), true) => Ok(Self::Pss { hash: *hash, mgf: *mgf, salt_length }),
                    (Some(_), false) | (None, _) => Err(Error::MechanismParamInvalid),
                }
            }
            (
                Params::Iv(_)
                | Params::Ctr { .. }
                | Params::Gcm { .. }
                | Params::Oaep { .. }
                | Params::Path(_),
                _,
            ) => Err(Error::MechanismParamInvalid),
        }
    }

    /// Whether a hash value, or the raw input, can have this length.
    fn admits(&self, length: usize, modulus: usize) -> bool {
        match self {
            // OpenSSL verifies no signature of nothing.
            Self::Pkcs1 => (1..=modulus.saturating_sub(PKCS1_OVERHEAD)).contains(&length),
            Self::Pkcs1Hash(hash) | Self::Pss { hash, .. } => length == hash.length(),
        }
    }

    fn configure<T>(&self, context: &mut PkeyCtxRef<T>) -> Result<(), Error> {
        match self {
            Self::Pkcs1 => context.set_rsa_padding(Padding::PKCS1)?,
            Self::Pkcs1Hash(digest) => {
                context.set_rsa_padding(Padding::PKCS1)?;
                context.set_signature_md(hash::openssl(*digest))?;
            }
            Self::Pss { hash: digest, mgf, salt_length } => {
                context.set_rsa_padding(Padding::PKCS1_PSS)?;
                context.set_signature_md(hash::openssl(*digest))?;
                context.set_rsa_mgf1_md(hash::openssl(*mgf))?;
                context.set_rsa_pss_saltlen(RsaPssSaltlen::custom(*salt_length))?;
            }
        }
        Ok(())
    }
}

/// An encryption scheme.
enum Encryption<'a> {
    Pkcs1,
    Oaep { hash: Hash, mgf: Hash, label: &'a [u8] },
}

impl<'a> Encryption<'a> {
    fn of(task: &Task<'a>) -> Result<Self, Error> {
        match task.params {
            Params::None => Ok(Self::Pkcs1),
            Params::Oaep { hash, mgf, label } => Ok(Self::Oaep { hash: *hash, mgf: *mgf, label }),
            Params::Iv(_)
            | Params::Ctr { .. }
            | Params::Gcm { .. }
            | Params::Pss { .. }
            | Params::Path(_) => Err(Error::MechanismParamInvalid),
        }
    }

    /// The bytes of the modulus that are not the message's.
    const fn overhead(&self) -> usize {
        match self {
            Self::Pkcs1 => PKCS1_OVERHEAD,
            Self::Oaep { hash, .. } => 2 * hash.length() + 2,
        }
    }

    fn configure<T>(&self, context: &mut PkeyCtxRef<T>) -> Result<(), Error> {
        match self {
            Self::Pkcs1 => context.set_rsa_padding(Padding::PKCS1)?,
            Self::Oaep { hash: digest, mgf, label } => {
                context.set_rsa_padding(Padding::PKCS1_OAEP)?;
                context.set_rsa_oaep_md(hash::openssl(*digest))?;
                context.set_rsa_mgf1_md(hash::openssl(*mgf))?;
                if !label.is_empty() {
                    context.set_rsa_oaep_label(label)?;
                }
            }
        }
        Ok(())
    }
}

impl Algorithm for Key {
    fn sign(&self, task: &Task<'_>) -> Result<Vec<u8>, Error> {
        let key = self.to_private()?;
        let scheme = Signing::of(task, key.size())?;
        let mut context = PkeyCtx::new(key)?;
        context.sign_init()?;
        scheme.configure(&mut context)?;
        with_hash(task, |input| {
            if !scheme.admits(input.len(), key.size()) {
                return Err(Error::DataLengthRange);
            }
            let mut signature = vec![0; key.size()];
            let length = context.sign(input, Some(&mut signature))?;
            signature.truncate(length);
            Ok(signature)
        })
    }

    fn verify(&self, task: &Task<'_>, signature: &[u8]) -> Result<(), Error> {
        let key = self.to_public()?;
        let scheme = Signing::of(task, key.size())?;
        if signature.len() != key.size() {
            return Err(Error::SignatureLengthRange);
        }
        let mut context = PkeyCtx::new(key)?;
        context.verify_init()?;
        scheme.configure(&mut context)?;
        with_hash(task, |input| {
            if !scheme.admits(input.len(), key.size()) {
                return Err(Error::DataLengthRange);
            }
            match context.verify(input, signature) {
                Ok(true) => Ok(()),
                Ok(false) | Err(_) => Err(Error::SignatureInvalid),
            }
        })
    }

    fn encrypt(&self, task: &Task<'_>) -> Result<Zeroizing<Vec<u8>>, Error> {
        let key = self.to_public()?;
        let scheme = Encryption::of(task)?;
        if task.input.len() > key.size().saturating_sub(scheme.overhead()) {
            return Err(Error::DataLengthRange);
        }
        let mut context = PkeyCtx::new(key)?;
        context.encrypt_init()?;
        scheme.configure(&mut context)?;
        let mut output = Zeroizing::new(vec![0; key.size()]);
        let length = context.encrypt(task.input, Some(&mut output))?;
        output.truncate(length);
        Ok(output)
    }

    fn decrypt(&self, task: &Task<'_>) -> Result<Zeroizing<Vec<u8>>, Error> {
        let key = self.to_private()?;
        let scheme = Encryption::of(task)?;
        if task.input.len() != key.size() {
            return Err(Error::EncryptedDataLengthRange);
        }
        let mut context = PkeyCtx::new(key)?;
        context.decrypt_init()?;
        scheme.configure(&mut context)?;
        let mut output = Zeroizing::new(vec![0; key.size()]);
        let length =
            context.decrypt(task.input, Some(&mut output)).map_err(|_| Error::EncryptedDataInvalid)?;
        output.truncate(length);
        Ok(output)
    }
}

/// Gives `act` the hash value of the message, or the input itself under a raw mechanism.
fn with_hash<T>(task: &Task<'_>, act: impl FnOnce(&[u8]) -> Result<T, Error>) -> Result<T, Error> {
    match task.mechanism.hash() {
        Some(own) => act(digest::digest(hash::aws_lc(own), task.input).as_ref()),
        None => act(task.input),
    }
}
