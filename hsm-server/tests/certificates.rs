//! The CA: what it signs, what it refuses, and how certificates are read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use rcgen::{
    BasicConstraints, CertificateParams, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256, SanType, string::Ia5String,
};
use strongroom_server::certificates::{
    Authority, CertificateError, Identity, fingerprint, identity, is_name, life, pem, request,
};
use x509_parser::prelude::{FromDer, X509Certificate};

const NOW: u64 = 1_800_000_000;

fn authority() -> Authority {
    let pair = Authority::create("CA", NOW, 10).unwrap();
    Authority::load(&pair.certificate, &pair.key).unwrap()
}

#[test]
fn a_client_is_who_the_ca_says() {
    let ca = authority();
    let (_, csr) = request("whoever").unwrap();
    for partition in [Some("payments"), None] {
        let issued = ca.issue_client(&csr, "alice", partition, NOW, 30).unwrap();
        let read = identity(&issued.certificate).unwrap();
        assert_eq!(read, Identity { client: "alice".into(), partition: partition.map(Into::into) });
        assert_eq!(issued.not_after, NOW + 30 * 86_400);
        assert_eq!(life(&issued.certificate).unwrap().not_after, issued.not_after);
    }
    // No two certificates are one.
    let one = ca.issue_client(&csr, "alice", None, NOW, 30).unwrap();
    let two = ca.issue_client(&csr, "alice", None, NOW, 30).unwrap();
    assert_ne!(fingerprint(&one.certificate), fingerprint(&two.certificate));
}

#[test]
fn only_the_key_of_a_request_counts() {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from("strongroom:admin").unwrap())];
    let csr = params.serialize_request(&key).unwrap();
    let issued = authority().issue_client(csr.der(), "mallory", Some("p"), NOW, 1).unwrap();
    assert_eq!(identity(&issued.certificate).unwrap().partition.as_deref(), Some("p"));
    let (_, certificate) = X509Certificate::from_der(&issued.certificate).unwrap();
    assert!(!certificate.is_ca());
    assert_eq!(certificate.public_key().subject_public_key.data.as_ref(), key.public_key_raw());
    let usage = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth && !usage.any);
}

#[test]
fn a_request_must_be_signed_by_its_own_key() {
    let (_, csr) = request("x").unwrap();
    let ca = authority();
    for place in [csr.len() - 1, csr.len() / 2, 40] {
        let mut broken = csr.clone();
        broken[place] ^= 1;
        assert!(ca.issue_client(&broken, "x", None, NOW, 1).is_err(), "{place}");
    }
    assert!(ca.issue_client(b"", "x", None, NOW, 1).is_err());
    assert!(ca.issue_client(&csr[..csr.len() - 1], "x", None, NOW, 1).is_err());
}

#[test]
fn names_and_days_have_bounds() {
    let (_, csr) = request("x").unwrap();
    let ca = authority();
    for name in ["", "A", "a b", "a/b", "ä", "x".repeat(33).as_str(), "a\0"] {
        assert!(!is_name(name));
        assert_eq!(ca.issue_client(&csr, name, None, NOW, 1), Err(CertificateError::Name(name.into())));
        assert!(ca.issue_client(&csr, "x", Some(name), NOW, 1).is_err());
    }
    assert!(is_name(&"z".repeat(32)) && is_name("0-_a"));
    for days in [0, 3651, u32::MAX] {
        assert_eq!(ca.issue_client(&csr, "x", None, NOW, days), Err(CertificateError::Days(days)));
    }
}

#[test]
fn a_server_has_names_and_addresses_and_is_no_client() {
    let (_, csr) = request("server").unwrap();
    let names = ["hsm.example".to_owned(), "10.0.0.1".to_owned(), "::1".to_owned()];
    let issued = authority().issue_server(&csr, &names, NOW, 1).unwrap();
    assert_eq!(identity(&issued.certificate), Err(CertificateError::NotAClient));
    let (_, certificate) = X509Certificate::from_der(&issued.certificate).unwrap();
    let san = certificate.subject_alternative_name().unwrap().unwrap().value;
    assert_eq!(san.general_names.len(), 3);
    assert!(authority().issue_server(&csr, &[], NOW, 1).is_err());
}

#[test]
fn rubbish_is_nobody() {
    for bytes in [&b""[..], b"rubbish", &[0x30; 200]] {
        assert!(identity(bytes).is_err());
        assert!(life(bytes).is_err());
    }
    let ca = authority();
    let mut trailing = ca.certificate().to_vec();
    assert_eq!(identity(&trailing), Err(CertificateError::NotAClient));
    trailing.push(0);
    assert!(matches!(identity(&trailing), Err(CertificateError::Malformed(_))));
    assert!(Authority::load(ca.certificate(), b"").is_err());
}

#[test]
fn pem_is_what_others_read() {
    let ca = authority();
    let text = pem("CERTIFICATE", ca.certificate());
    assert!(text.starts_with("-----BEGIN CERTIFICATE-----\n"));
    let (_, read) = x509_parser::pem::parse_x509_pem(text.as_bytes()).unwrap();
    assert_eq!(read.contents, ca.certificate());
}
