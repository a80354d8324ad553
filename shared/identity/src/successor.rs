//! Whether a certificate that was sent may follow the present one: somebody on the way, or a server whose clock is
//! wrong, must not cost us the one that we have.

use std::{path::Path, sync::Arc};

use rustls::{
    RootCertStore,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, UnixTime, pem::PemObject},
    server::WebPkiClientVerifier,
};
use webpki::EndEntityCert;

use crate::pair::PairError;

/// What a server sent, and the key that the certificate was asked for.
#[derive(Clone, Copy)]
pub struct Renewed<'a> {
    /// The certificate, PEM.
    pub certificate: &'a str,
    /// The CA that made it, PEM.
    pub authority: &'a str,
    /// The new key, PEM.
    pub key: &'a str,
}

impl std::fmt::Debug for Renewed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Renewed")
    }
}

/// Checks that a certificate names whom the former one names, that the CA that is said to have made it made both, and
/// that both are good now for a client.
///
/// # Errors
/// `PairError` about the file `path`, which it is not to replace.
pub(crate) fn check(
    path: &Path,
    former: &[CertificateDer<'_>],
    new: &[CertificateDer<'_>],
    authority: &str,
) -> Result<(), PairError> {
    let unusable = |reason: String| PairError::new(path, format!("the new certificate: {reason}"));
    let authority = CertificateDer::from_pem_slice(authority.as_bytes());
    let authority = authority.map_err(|error| unusable(format!("its CA: {error}")))?;
    let mut roots = RootCertStore::empty();
    roots.add(authority).map_err(|error| unusable(format!("its CA: {error}")))?;
    let provider: Arc<CryptoProvider> = aws_lc_rs::default_provider().into();
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
        .build()
        .map_err(|error| unusable(error.to_string()))?;
    let subject = |which: &str, chain: &[CertificateDer<'_>]| {
        let fail = |error: &dyn std::fmt::Display| unusable(format!("{which}: {error}"));
        let (first, rest) = chain.split_first().ok_or_else(|| fail(&"none"))?;
        verifier.verify_client_cert(first, rest, UnixTime::now()).map_err(|error| fail(&error))?;
        EndEntityCert::try_from(first).map(|it| it.subject().to_vec()).map_err(|error| fail(&error))
    };
    // The one that we use proves that this is its CA.
    let former = subject("the CA that came with it did not make the present one", former)?;
    if subject("it is not good", new)? == former {
        Ok(())
    } else {
        Err(unusable("it names somebody else than the present one".into()))
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
        date_time_ymd,
    };

    use super::*;

    struct Ca {
        params: CertificateParams,
        key: KeyPair,
        pem: String,
    }

    impl Ca {
        fn new() -> Self {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let pem = params.self_signed(&key).unwrap().pem();
            Self { params, key, pem }
        }

        fn issue(
            &self,
            name: &str,
            change: impl FnOnce(&mut CertificateParams),
        ) -> Vec<CertificateDer<'static>> {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            change(&mut params);
            let issuer = Issuer::from_params(&self.params, &self.key);
            vec![params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap().der().clone()]
        }
    }

    #[test]
    fn only_the_same_client_of_the_same_ca_and_of_today_follows() {
        let (ca, other) = (Ca::new(), Ca::new());
        let former = ca.issue("desk", |_| {});
        let judge = |new: &[CertificateDer<'_>], authority: &str| {
            check(Path::new("x.pem"), &former, new, authority).map_err(|error| error.reason)
        };
        assert_eq!(judge(&ca.issue("desk", |_| {}), &ca.pem), Ok(()));
        for (new, authority, hint) in [
            (ca.issue("eve", |_| {}), &ca.pem, "somebody else"),
            (other.issue("desk", |_| {}), &ca.pem, "not good"),
            (other.issue("desk", |_| {}), &other.pem, "did not make the present one"),
            (ca.issue("desk", |new| new.not_after = date_time_ymd(2020, 1, 1)), &ca.pem, "not good"),
            (ca.issue("desk", |new| new.not_before = date_time_ymd(2200, 1, 1)), &ca.pem, "not good"),
            (ca.issue("desk", |_| {}), &String::new(), "its CA"),
        ] {
            let refused = judge(&new, authority).unwrap_err();
            assert!(refused.contains(hint), "{hint}: {refused}");
        }
        let server =
            ca.issue("desk", |new| new.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
        assert!(judge(&server, &ca.pem).is_err());
    }
}
