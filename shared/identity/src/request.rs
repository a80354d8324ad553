//! A new key and the request for a certificate (PKCS#10, RFC 2986), which the new key signs.

use std::fmt;

use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use zeroize::Zeroizing;

/// A new P-256 key, and the request for its certificate.
pub struct Request {
    /// The private key, in PKCS#8 DER.
    pub key: Zeroizing<Vec<u8>>,
    /// The same in PEM.
    pub key_pem: Zeroizing<String>,
    /// The request, in DER.
    pub request: Vec<u8>,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").finish_non_exhaustive()
    }
}

/// A name that cannot stand in a request, or a system without randomness.
pub type RequestError = rcgen::Error;

/// Makes a key and the request for a certificate called `name`.
///
/// # Errors
/// `RequestError` as rcgen says.
pub fn request(name: &str) -> Result<Request, RequestError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, name);
    let request = params.serialize_request(&key)?.der().to_vec();
    Ok(Request {
        key: Zeroizing::new(key.serialize_der()),
        key_pem: Zeroizing::new(key.serialize_pem()),
        request,
    })
}
