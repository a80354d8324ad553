//! A certificate and its key, in two files (PEM) that are replaced together.
//!
//! No two files can be renamed at once. So the key's file gets the new key *and* the new certificate, by one
//! rename, and then the certificate's file its copy. Who reads takes the certificate's file if that goes with
//! the key, and else what stands beside the key: wherever a writer died, one of the two fits.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
};

use rustls::{
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use zeroize::Zeroizing;

/// Reads a key and the certificate that goes with it.
///
/// # Errors
/// `PairError` names the file and what is wrong with it.
pub fn load(certificate: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, PairError> {
    let bytes = Zeroizing::new(fs::read(key).map_err(|error| PairError::new(key, error))?);
    let private = PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| PairError::new(key, error))?;
    let signer =
        provider.key_provider.load_private_key(private).map_err(|error| PairError::new(key, error))?;
    let with = |chain| {
        let pair = CertifiedKey::new(chain, signer.clone());
        pair.keys_match().map_err(|error| PairError::new(key, error)).map(|()| pair)
    };
    let first = read_certificates(certificate).and_then(with);
    first.or_else(|error| match certificates(key, &bytes) {
        Ok(chain) => with(chain),
        Err(_) => Err(error),
    })
}

/// The certificates in a file.
///
/// # Errors
/// `PairError`: it cannot be read or holds none.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PairError> {
    certificates(path, &fs::read(path).map_err(|error| PairError::new(path, error))?)
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PairError> {
    let certificates = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| PairError::new(path, error))?;
    if certificates.is_empty() { Err(PairError::new(path, "no certificate in it")) } else { Ok(certificates) }
}

/// Puts a new certificate and key (PEM) in the place of those that are there, with their owner and permissions.
///
/// # Errors
/// What is wrong with the new ones, if they do not go together: whoever sent the certificate does not cost us the
/// key that we have. Else the operating system's, with the file that could not be replaced. Unless that is the
/// certificate's, nothing has changed; then the new key is in force with the certificate beside it.
pub fn replace(certificate: &Path, key: &Path, chain: &str, private: &str) -> Result<(), PairError> {
    fitting(certificate, chain, private)?;
    Fresh::write(certificate, key, chain, private)?.put()
}

/// A new certificate and key (PEM), if they go together.
///
/// # Errors
/// What is wrong with them, as a reason not to replace the file `path`.
pub(crate) fn fitting(path: &Path, chain: &str, private: &str) -> Result<CertifiedKey, PairError> {
    let unusable = |reason: String| PairError::new(path, format!("the new certificate: {reason}"));
    let new = certificates(path, chain.as_bytes()).map_err(|error| unusable(error.reason))?;
    let signer = PrivateKeyDer::from_pem_slice(private.as_bytes())
        .map_err(|error| unusable(error.to_string()))
        .and_then(|private| {
            aws_lc_rs::sign::any_supported_type(&private).map_err(|error| unusable(error.to_string()))
        })?;
    let pair = CertifiedKey::new(new, signer);
    pair.keys_match().map_err(|error| unusable(error.to_string()))?;
    Ok(pair)
}

/// A new certificate and key, on disk beside those whose place they are to take. Dropped, they leave nothing.
pub(crate) struct Fresh {
    key: FreshFile,
    certificate: FreshFile,
}

impl Fresh {
    /// Writes them.
    ///
    /// # Errors
    /// The operating system's, with the file; nothing has changed.
    pub fn write(certificate: &Path, key: &Path, chain: &str, private: &str) -> Result<Self, PairError> {
        let both = Zeroizing::new([private, chain].concat());
        Ok(Self {
            key: FreshFile::write(key, both.as_bytes())?,
            certificate: FreshFile::write(certificate, chain.as_bytes())?,
        })
    }

    /// Has them take the place of the others.
    ///
    /// # Errors
    /// As [`replace`].
    pub fn put(self) -> Result<(), PairError> {
        self.key.put()?;
        self.certificate.put()
    }
}

struct FreshFile {
    path: PathBuf,
    place: Place,
}

impl FreshFile {
    fn write(path: &Path, bytes: &[u8]) -> Result<Self, PairError> {
        let fail = |error: io::Error| PairError::new(path, error);
        let fresh = Self { path: path.into(), place: Place::of(path).map_err(fail)? };
        write_like(&fresh.place.file, &fresh.place.fresh, bytes).map_err(fail)?;
        Ok(fresh)
    }

    fn put(self) -> Result<(), PairError> {
        fs::rename(&self.place.fresh, &self.place.file)
            .and_then(|()| File::open(&self.place.folder)?.sync_all())
            .map_err(|error| PairError::new(&self.path, error))
    }
}

impl Drop for FreshFile {
    fn drop(&mut self) {
        // What cannot be removed is overwritten next time; what has taken its place is not there any more.
        fs::remove_file(&self.place.fresh).unwrap_or_default();
    }
}

/// Whether both files could be replaced, by writing beside each and removing that again.
///
/// # Errors
/// The operating system's, with the file.
pub(crate) fn can_replace(certificate: &Path, key: &Path) -> Result<(), PairError> {
    for path in [certificate, key] {
        let tried = Place::of(path).and_then(|place| {
            write_like(&place.file, &place.fresh, b"")?;
            fs::remove_file(&place.fresh)
        });
        tried.map_err(|error| PairError::new(path, error))?;
    }
    Ok(())
}

/// Where a file is replaced.
struct Place {
    /// The file itself, where its name is a link to it.
    file: PathBuf,
    folder: PathBuf,
    /// Where the new one is written.
    fresh: PathBuf,
}

impl Place {
    fn of(path: &Path) -> io::Result<Self> {
        let file = fs::canonicalize(path)?;
        let (Some(folder), Some(name)) = (file.parent(), file.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let fresh = folder.join(format!(".{}.new", name.to_string_lossy()));
        Ok(Self { folder: folder.into(), fresh, file })
    }
}

/// Puts a file in the place of another, with its owner and permissions.
///
/// # Errors
/// The operating system's, with the file; nothing has changed then.
pub fn replace_file(path: &Path, bytes: &[u8]) -> Result<(), PairError> {
    FreshFile::write(path, bytes)?.put()
}

/// Writes a file with the owner and the permissions of another.
fn write_like(model: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let model = fs::metadata(model)?;
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let made = file.metadata()?;
    if (made.uid(), made.gid()) != (model.uid(), model.gid()) {
        fchown(&file, Some(model.uid()), Some(model.gid()))?;
    }
    file.set_permissions(fs::Permissions::from_mode(model.mode() & 0o777))?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A file of a pair that cannot be read or written.
#[derive(Debug)]
pub struct PairError {
    /// Which.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

impl PairError {
    pub(crate) fn new(path: &Path, reason: impl fmt::Display) -> Self {
        Self { path: path.into(), reason: reason.to_string() }
    }
}

impl fmt::Display for PairError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.reason)
    }
}

impl std::error::Error for PairError {}

#[cfg(test)]
pub(crate) mod tests {
    use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

    use super::*;

    /// A folder with a pair in it.
    pub(crate) struct Place {
        folder: tempfile::TempDir,
        ca: CertificateParams,
        ca_key: KeyPair,
    }

    impl Place {
        pub fn new() -> Self {
            let (mut ca, ca_key) =
                (CertificateParams::new(Vec::new()).unwrap(), KeyPair::generate().unwrap());
            ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let place = Self { folder: tempfile::tempdir().unwrap(), ca, ca_key };
            let (certificate, key) = place.pair();
            fs::write(place.certificate(), certificate).unwrap();
            fs::write(place.key(), key).unwrap();
            place
        }

        pub fn certificate(&self) -> PathBuf {
            self.folder.path().join("x.pem")
        }

        pub fn key(&self) -> PathBuf {
            self.folder.path().join("x.key")
        }

        /// The CA, in PEM.
        pub fn authority(&self) -> String {
            self.ca.self_signed(&self.ca_key).unwrap().pem()
        }

        /// Another pair, in PEM.
        pub fn pair(&self) -> (String, String) {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec!["x".to_owned()]).unwrap();
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            let issuer = Issuer::from_params(&self.ca, &self.ca_key);
            (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
        }

        /// The certificate that the files give, in PEM.
        pub fn load(&self) -> Result<String, PairError> {
            let pair = load(&self.certificate(), &self.key(), &aws_lc_rs::default_provider())?;
            let found = [self.certificate(), self.key()].map(|path| fs::read_to_string(path).unwrap());
            let shown = found.iter().find(|text| {
                CertificateDer::from_pem_slice(text.as_bytes()).is_ok_and(|der| der == pair.cert[0])
            });
            let text = shown.unwrap();
            Ok(text[text.find("-----BEGIN CERT").unwrap()..].to_owned())
        }
    }

    fn put(place: &Place, certificate: &str, key: &str) -> Result<(), PairError> {
        replace(&place.certificate(), &place.key(), certificate, key)
    }

    #[test]
    fn a_certificate_that_does_not_go_with_the_new_key_replaces_nothing() {
        let place = Place::new();
        let old = place.load().unwrap();
        let ((certificate, key), (other, _)) = (place.pair(), place.pair());
        for wrong in [other.as_str(), "", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert_eq!(put(&place, wrong, &key).unwrap_err().path, place.certificate());
            assert_eq!(place.load().unwrap(), old);
        }
        assert!(put(&place, &certificate, "no key").is_err());
        assert_eq!(place.load().unwrap(), old);
        let nowhere = Path::new("/nowhere/x.key");
        assert!(replace(&place.certificate(), nowhere, &certificate, &key).is_err());
    }

    #[test]
    fn a_pair_is_replaced_with_its_permissions_and_nothing_is_left_behind() {
        let place = Place::new();
        fs::set_permissions(place.key(), fs::Permissions::from_mode(0o640)).unwrap();
        let (certificate, key) = place.pair();
        put(&place, &certificate, &key).unwrap();
        assert_eq!(place.load().unwrap(), certificate);
        assert_eq!(fs::read_to_string(place.certificate()).unwrap(), certificate);
        assert_eq!(fs::metadata(place.key()).unwrap().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(place.folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn wherever_the_writer_dies_the_files_give_a_pair() {
        let place = Place::new();
        let old = place.load().unwrap();
        let (certificate, key) = place.pair();
        // Before the first rename, with what an earlier one left behind.
        fs::write(place.folder.path().join(".x.key.new"), "half").unwrap();
        drop(Fresh::write(&place.certificate(), &place.key(), &certificate, &key).unwrap());
        assert_eq!(place.load().unwrap(), old);
        // Between the two.
        Fresh::write(&place.certificate(), &place.key(), &certificate, &key).unwrap().key.put().unwrap();
        assert_eq!(fs::read_to_string(place.certificate()).unwrap(), old);
        assert_eq!(place.load().unwrap(), certificate);
        // The next one finds a whole pair again.
        let (certificate, key) = place.pair();
        put(&place, &certificate, &key).unwrap();
        assert_eq!(place.load().unwrap(), certificate);
    }

    #[test]
    fn what_does_not_fit_together_is_refused_and_the_file_is_named() {
        let place = Place::new();
        fs::write(place.certificate(), place.pair().0).unwrap();
        assert_eq!(place.load().unwrap_err().path, place.key());
        fs::write(place.certificate(), "").unwrap();
        assert_eq!(place.load().unwrap_err().path, place.certificate());
    }
}
