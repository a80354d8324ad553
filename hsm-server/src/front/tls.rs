//! TLS 1.3 with a certificate on both sides, and nothing that would let a client in without showing its own.
//!
//! No resumption, no tickets, no early data: a resumed session does not verify the client again, so a revoked
//! one would get in. Every handshake has a verifier of its own, which remembers whom it turned away.

use std::{
    collections::HashMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, UnixTime},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use strongroom_identity::PairError;
use strongroom_shared::wire::ALPN;

use crate::{certificates::fingerprint, config, door::Admission};

/// Which certificates may shake hands.
#[derive(Clone, Debug, Default)]
pub struct Admitted {
    /// Which vault said so, and its version: greater is newer.
    pub version: (u64, u64),
    /// By fingerprint, whether the certificate was revoked.
    pub certificates: Arc<HashMap<[u8; 32], bool>>,
}

impl Admitted {
    /// What the vault of this `generation` told.
    pub fn new(generation: u64, version: u64, list: &[Admission]) -> Self {
        let certificates = list.iter().map(|admission| (admission.fingerprint, admission.revoked)).collect();
        Self { version: (generation, version), certificates: Arc::new(certificates) }
    }

    /// Why a certificate may not be used, if it may not.
    pub fn objection(&self, fingerprint: &[u8; 32]) -> Option<&'static str> {
        match self.certificates.get(fingerprint) {
            Some(false) => None,
            Some(true) => Some("the certificate was revoked or has ended"),
            None => Some("the certificate is not known to this server"),
        }
    }
}

/// The server's identity and the CA of its clients, as read from the files.
#[derive(Debug)]
pub struct Material {
    provider: Arc<CryptoProvider>,
    verifier: Arc<dyn ClientCertVerifier>,
    key: Arc<CertifiedKey>,
}

/// The files, and what they looked like when they were last read.
#[derive(Debug)]
pub struct Files {
    paths: config::Tls,
    seen: Vec<Option<(SystemTime, u64)>>,
}

impl Files {
    /// The files of a configuration, not read yet.
    pub fn new(paths: &config::Tls) -> Self {
        Self { paths: paths.clone(), seen: Vec::new() }
    }

    /// Whether a file looks different from when it was last read.
    pub fn changed(&self) -> bool {
        self.look() != self.seen
    }

    /// Reads the files. Even if they are no good they are only read again after a change.
    ///
    /// # Errors
    /// `TlsError` names the file and what is wrong with it.
    pub fn load(&mut self) -> Result<Material, TlsError> {
        self.seen = self.look();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config::Tls { certificate, key, authority } = &self.paths;

        let certified = strongroom_identity::load(certificate, key, &provider)?;
        let mut roots = RootCertStore::empty();
        for root in strongroom_identity::read_certificates(authority)? {
            roots.add(root).map_err(|error| TlsError::new(authority, error))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| TlsError::new(authority, error))?;
        Ok(Material { provider, verifier, key: Arc::new(certified) })
    }

    fn look(&self) -> Vec<Option<(SystemTime, u64)>> {
        [&self.paths.certificate, &self.paths.key, &self.paths.authority]
            .map(|path| fs::metadata(path).ok().and_then(|data| Some((data.modified().ok()?, data.len()))))
            .to_vec()
    }
}

/// A TLS file that cannot be used.
#[derive(Debug)]
pub struct TlsError {
    path: PathBuf,
    reason: String,
}

impl TlsError {
    fn new(path: &Path, reason: impl fmt::Display) -> Self {
        Self { path: path.to_path_buf(), reason: reason.to_string() }
    }
}

impl From<PairError> for TlsError {
    fn from(error: PairError) -> Self {
        Self { path: error.path, reason: error.reason }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.reason)
    }
}

impl std::error::Error for TlsError {}

/// A handshake that turned somebody away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The certificate that was shown, if one was.
    pub certificate: Option<Vec<u8>>,
    /// Why it was not good enough.
    pub reason: String,
}

/// The verifier of one handshake.
#[derive(Debug)]
pub struct Doorman {
    verifier: Arc<dyn ClientCertVerifier>,
    admitted: Admitted,
    refusal: Mutex<Option<Refusal>>,
}

impl Doorman {
    /// Whom the handshake that ended with `error` turned away; none if it failed for another reason.
    pub fn refusal(&self, error: &io::Error) -> Option<Refusal> {
        let remembered = self.refusal.lock().unwrap_or_else(PoisonError::into_inner).take();
        let no_certificate = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Error>())
            .is_some_and(|error| *error == Error::NoCertificatesPresented);
        remembered.or_else(|| {
            no_certificate.then(|| Refusal { certificate: None, reason: "no certificate was shown".into() })
        })
    }

    fn refuse(&self, certificate: &CertificateDer<'_>, reason: String) {
        let refusal = Refusal { certificate: Some(certificate.to_vec()), reason };
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
    }
}

impl ClientCertVerifier for Doorman {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .verifier
            .verify_client_cert(end_entity, intermediates, now)
            .inspect_err(|error| self.refuse(end_entity, error.to_string()))?;
        let fingerprint = fingerprint(end_entity);
        match self.admitted.objection(&fingerprint) {
            None => Ok(verified),
            Some(reason) => {
                self.refuse(end_entity, reason.into());
                Err(match self.admitted.certificates.get(&fingerprint) {
                    Some(_) => CertificateError::Revoked.into(),
                    None => CertificateError::ApplicationVerificationFailure.into(),
                })
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier
            .verify_tls13_signature(message, certificate, signature)
            .inspect_err(|error| self.refuse(certificate, error.to_string()))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// Always the same certificate, whatever name the client asks for.
#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesServerCert for Always {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

impl Material {
    /// The configuration and the verifier of one handshake.
    ///
    /// # Errors
    /// The cryptography provider knows no TLS 1.3.
    pub fn handshake(&self, admitted: Admitted) -> Result<(Arc<ServerConfig>, Arc<Doorman>), Error> {
        let doorman =
            Arc::new(Doorman { verifier: Arc::clone(&self.verifier), admitted, refusal: Mutex::new(None) });
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(doorman.clone())
            .with_cert_resolver(Arc::new(Always(Arc::clone(&self.key))));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok((Arc::new(config), doorman))
    }
}
