//! A client's mandate key: an Ed25519 key of its own, in one file (PKCS#8 in PEM), that signs what a client wants of
//! several servers. It is not the key of the client's certificate, which is another at each server and changes.

use std::{fmt, fs, path::Path};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use rcgen::PKCS_ED25519;
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use zeroize::Zeroizing;

use crate::{PairError, RequestError};

/// A key that signs mandates.
pub struct MandateKey {
    pair: Ed25519KeyPair,
    public: [u8; 32],
}

impl fmt::Debug for MandateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MandateKey").finish_non_exhaustive()
    }
}

impl MandateKey {
    /// A new key, as its file is to hold it.
    ///
    /// # Errors
    /// No randomness.
    pub fn generate() -> Result<Zeroizing<String>, RequestError> {
        Ok(Zeroizing::new(rcgen::KeyPair::generate_for(&PKCS_ED25519)?.serialize_pem()))
    }

    /// Reads a key.
    ///
    /// # Errors
    /// `PairError` names the file and what is wrong with it.
    pub fn read(path: &Path) -> Result<Self, PairError> {
        let bytes = Zeroizing::new(fs::read(path).map_err(|error| PairError::new(path, error))?);
        let key = PrivatePkcs8KeyDer::from_pem_slice(&bytes).map_err(|error| PairError::new(path, error))?;
        let no_key = || PairError::new(path, "not an Ed25519 key");
        let pair = Ed25519KeyPair::from_pkcs8(key.secret_pkcs8_der()).map_err(|_| no_key())?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| no_key())?;
        Ok(Self { pair, public })
    }

    /// The public key.
    pub const fn public(&self) -> [u8; 32] {
        self.public
    }

    /// The signature of a message.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

    use super::*;

    #[test]
    fn a_new_key_reads_back_and_signs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mandate.key");
        fs::write(&path, MandateKey::generate().unwrap().as_bytes()).unwrap();
        let key = MandateKey::read(&path).unwrap();
        let verified = UnparsedPublicKey::new(&ED25519, key.public()).verify(b"buy", &key.sign(b"buy"));
        assert!(verified.is_ok());
    }

    #[test]
    fn what_is_no_such_key_is_refused_by_the_files_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mandate.key");
        assert_eq!(MandateKey::read(&path).unwrap_err().path, path);
        let of_another_kind = crate::request("x").unwrap().key_pem;
        for text in ["", "no key", &of_another_kind] {
            fs::write(&path, text).unwrap();
            assert_eq!(MandateKey::read(&path).unwrap_err().path, path, "{text}");
        }
    }
}
