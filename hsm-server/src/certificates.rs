//! The server's own CA, and how a certificate says who a client is.
//!
//! Pure functions over bytes: the vault holds the CA's key (sealed in its store) and the clock; the front never
//! sees that key. Keys are P-256, because a handshake costs one signature on each side.
//!
//! A client is named twice in its certificate: as the common name for people, and as URIs for the server
//! (RFC 5280, section 4.2.1.6): `strongroom:client/NAME` and `strongroom:partition/NAME` or `strongroom:admin`.

use std::{fmt, net::IpAddr, str::FromStr};

use aws_lc_rs::digest;
use pem::{EncodeConfig, LineEnding, Pem};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber, string::Ia5String,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer,
    time::ASN1Time,
};
use zeroize::Zeroizing;

/// The longest life of any certificate, in days: the CA's own.
pub const MAX_DAYS: u32 = 3650;

const CLIENT: &str = "strongroom:client/";
const PARTITION: &str = "strongroom:partition/";
const ADMIN: &str = "strongroom:admin";
const DAY: u64 = 86_400;
/// Certificates begin this much in the past, for clients whose clock is behind.
pub const SKEW: u64 = 300;

/// A certificate and the private key that goes with it.
pub struct Pair {
    /// The certificate, in DER.
    pub certificate: Vec<u8>,
    /// The private key, in PKCS#8 DER.
    pub key: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair").field("certificate", &self.certificate.len()).finish_non_exhaustive()
    }
}

/// A certificate that the CA made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The certificate, in DER.
    pub certificate: Vec<u8>,
    /// When it ends, in seconds since 1970.
    pub not_after: u64,
}

/// Who a client certificate says that its holder is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The client's name.
    pub client: String,
    /// The partition that it may use; none for an administrator.
    pub partition: Option<String>,
}

/// The CA, ready to sign.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Vec<u8>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes a new CA called `name`, good for `days` from `now` (seconds since 1970).
    ///
    /// # Errors
    /// `CertificateError` if the name or the dates cannot stand in a certificate.
    pub fn create(name: &str, now: u64, days: u32) -> Result<Pair, CertificateError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = params(name, now, days)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?.der().to_vec();
        Ok(Pair { certificate, key: Zeroizing::new(key.serialize_der()) })
    }

    /// The CA with this certificate (DER) and key (PKCS#8 DER).
    ///
    /// # Errors
    /// `CertificateError` if either cannot be read.
    pub fn load(certificate: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let key = PrivatePkcs8KeyDer::from(key);
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256)?;
        let issuer = Issuer::from_ca_cert_der(&CertificateDer::from(certificate), key)?;
        Ok(Self { issuer, certificate: certificate.to_vec() })
    }

    /// Whether it made this certificate (DER), by the key identifier that is in it.
    ///
    /// # Errors
    /// `CertificateError` if it is not a certificate.
    pub fn made(&self, certificate: &[u8]) -> Result<bool, CertificateError> {
        let (own, certificate) = (parse(&self.certificate)?, parse(certificate)?);
        let own = own.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.clone()),
            _ => None,
        });
        let its = certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.clone(),
            _ => None,
        });
        Ok(own.is_some() && own == its)
    }

    /// The CA's own certificate, in DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// Makes a certificate for a client from its PKCS#10 request (DER), of which only the public key counts.
    /// `partition` is absent for an administrator. `now` in seconds since 1970.
    ///
    /// # Errors
    /// `CertificateError` if the request is malformed or not signed by the key that it names, or a name or the
    /// number of days is out of range.
    pub fn issue_client(
        &self,
        request: &[u8],
        client: &str,
        partition: Option<&str>,
        now: u64,
        days: u32,
    ) -> Result<Issued, CertificateError> {
        check_name(client)?;
        let mut params = params(client, now, days)?;
        let role = match partition {
            Some(partition) => {
                check_name(partition)?;
                format!("{PARTITION}{partition}")
            }
            None => ADMIN.into(),
        };
        for uri in [format!("{CLIENT}{client}"), role] {
            params.subject_alt_names.push(SanType::URI(Ia5String::try_from(uri)?));
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(request, params)
    }

    /// Makes a certificate for the server from its PKCS#10 request (DER), of which only the public key counts,
    /// good for the host names and IP addresses `names`. `now` in seconds since 1970.
    ///
    /// # Errors
    /// `CertificateError` as for [`Authority::issue_client`].
    pub fn issue_server(
        &self,
        request: &[u8],
        names: &[String],
        now: u64,
        days: u32,
    ) -> Result<Issued, CertificateError> {
        let first = names.first().ok_or(CertificateError::Name(String::new()))?;
        let mut params = params(first, now, days)?;
        for name in names {
            params.subject_alt_names.push(match IpAddr::from_str(name) {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(
                    Ia5String::try_from(name.as_str()).map_err(|_| CertificateError::Name(name.clone()))?,
                ),
            });
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(request, params)
    }

    /// Makes the certificate that this server shows to other nodes. They know it by its fingerprint, from the membership
    /// document, so it names nobody; `name` is for people.
    ///
    /// # Errors
    /// `CertificateError` as for [`Authority::issue_client`].
    pub fn issue_node(
        &self,
        request: &[u8],
        name: &str,
        now: u64,
        days: u32,
    ) -> Result<Issued, CertificateError> {
        check_name(name)?;
        let mut params = params(name, now, days)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(request, params)
    }

    fn issue(&self, request: &[u8], mut params: CertificateParams) -> Result<Issued, CertificateError> {
        // Checks the request's signature: whoever asks holds the key.
        let request =
            CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(request))?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let not_after = u64::try_from(params.not_after.unix_timestamp()).unwrap_or_default();
        let certificate = params.signed_by(&request.public_key, &self.issuer)?;
        Ok(Issued { certificate: certificate.der().to_vec(), not_after })
    }
}

/// A new P-256 key (PKCS#8 DER) and the request (PKCS#10 DER) for a certificate called `name`.
///
/// # Errors
/// `CertificateError` if the name cannot stand in a request.
pub fn request(name: &str) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), CertificateError> {
    let strongroom_identity::Request { key, request, .. } = strongroom_identity::request(name)?;
    Ok((key, request))
}

/// Who a client certificate (DER) says that its holder is. Whether the CA made it is the handshake's business.
///
/// # Errors
/// `CertificateError` if it is not a certificate or not one of a client of this server.
pub fn identity(certificate: &[u8]) -> Result<Identity, CertificateError> {
    let certificate = parse(certificate)?;
    let names = certificate.subject_alternative_name().map_err(|_| CertificateError::NotAClient)?;
    let uris =
        names.iter().flat_map(|extension| &extension.value.general_names).filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
    let (mut client, mut partition, mut admin) = (None, None, None);
    for uri in uris {
        let seen = if let Some(name) = uri.strip_prefix(CLIENT) {
            client.replace(name)
        } else if let Some(name) = uri.strip_prefix(PARTITION) {
            partition.replace(name)
        } else if uri == ADMIN {
            admin.replace(uri)
        } else {
            None
        };
        // Two names are no name.
        if seen.is_some() {
            return Err(CertificateError::NotAClient);
        }
    }
    match (client, partition, admin) {
        (Some(client), Some(partition), None) => {
            Ok(Identity { client: client.into(), partition: Some(partition.into()) })
        }
        (Some(client), None, Some(_)) => Ok(Identity { client: client.into(), partition: None }),
        _ => Err(CertificateError::NotAClient),
    }
}

/// When a certificate begins and ends, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// From when on it is good.
    pub not_before: u64,
    /// From when on it is not good any more.
    pub not_after: u64,
}

impl Life {
    /// From when on it should be renewed: when a third of it is left.
    pub const fn renew_from(&self) -> u64 {
        self.not_after - self.not_after.saturating_sub(self.not_before) / 3
    }

    /// How long it is, in days.
    pub fn days(&self) -> u32 {
        u32::try_from(self.not_after.saturating_sub(self.not_before) / DAY)
            .unwrap_or(MAX_DAYS)
            .clamp(1, MAX_DAYS)
    }
}

/// When a certificate (DER) begins and ends.
///
/// # Errors
/// `CertificateError` if it is not a certificate.
pub fn life(certificate: &[u8]) -> Result<Life, CertificateError> {
    let certificate = parse(certificate)?;
    let seconds = |time: ASN1Time| u64::try_from(time.timestamp()).unwrap_or_default();
    let validity = certificate.validity();
    Ok(Life { not_before: seconds(validity.not_before), not_after: seconds(validity.not_after) })
}

/// A moment (seconds since 1970) as a day, for people: `2026-12-24`.
pub fn day(seconds: u64) -> String {
    let moment = i64::try_from(seconds).ok().and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok());
    moment.map_or_else(|| seconds.to_string(), |moment| moment.date().to_string())
}

/// SHA-256 of a certificate (DER), or of a public key: how the server tells them apart.
pub fn fingerprint(of: &[u8]) -> [u8; 32] {
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(digest::digest(&digest::SHA256, of).as_ref());
    fingerprint
}

/// DER as PEM (RFC 7468) with this label, such as `CERTIFICATE` or `PRIVATE KEY`.
pub fn pem(label: &str, der: &[u8]) -> Zeroizing<String> {
    let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
    Zeroizing::new(pem::encode_config(&Pem::new(label, der), config))
}

/// Whether `name` may name a client or a partition: 1 to 32 characters of `a`–`z`, `0`–`9`, `-` and `_`.
pub fn is_name(name: &str) -> bool {
    (1..=32).contains(&name.len())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
}

fn check_name(name: &str) -> Result<(), CertificateError> {
    if is_name(name) { Ok(()) } else { Err(CertificateError::Name(name.into())) }
}

fn parse(certificate: &[u8]) -> Result<X509Certificate<'_>, CertificateError> {
    match X509Certificate::from_der(certificate) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) | Err(_) => Err(CertificateError::Malformed("not a certificate".into())),
    }
}

/// What every certificate has: name, dates and a random serial number (RFC 5280, section 4.1.2.2).
fn params(name: &str, now: u64, days: u32) -> Result<CertificateParams, CertificateError> {
    if !(1..=MAX_DAYS).contains(&days) {
        return Err(CertificateError::Days(days));
    }
    let date = |seconds: u64| {
        i64::try_from(seconds)
            .ok()
            .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
            .ok_or(CertificateError::Days(days))
    };
    let mut serial = [0; 16];
    getrandom::fill(&mut serial).map_err(|error| CertificateError::Malformed(error.to_string()))?;
    serial.iter_mut().take(1).for_each(|byte| *byte &= 0x7f);
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date(now.saturating_sub(SKEW))?;
    params.not_after = date(now.saturating_add(u64::from(days) * DAY))?;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

/// A certificate or request that cannot be made or read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateError {
    /// A name that may not stand in a certificate.
    Name(String),
    /// A life that no certificate may have, in days.
    Days(u32),
    /// A certificate that does not name one client with one role.
    NotAClient,
    /// Something that cannot be read or signed.
    Malformed(String),
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "{name:?} cannot be a name: 1 to 32 of a-z, 0-9, - and _"),
            Self::Days(days) => write!(f, "a certificate cannot last {days} days: 1 to {MAX_DAYS}"),
            Self::NotAClient => f.write_str("the certificate does not name a client of this server"),
            Self::Malformed(reason) => write!(f, "certificate: {reason}"),
        }
    }
}

impl std::error::Error for CertificateError {}

impl From<rcgen::Error> for CertificateError {
    fn from(error: rcgen::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}
