//! Whose turn it is to replace a pair: of several processes that share a folder, one asks for a certificate.

use std::{fs, fs::File, os::unix::fs::MetadataExt, path::PathBuf};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use rustls::{crypto::aws_lc_rs, sign::CertifiedKey};

use crate::{
    pair::{Fresh, PairError, can_replace, fitting, load},
    successor::{Renewed, check},
};

/// The right to replace a certificate and its key. No other process has it at the same time.
#[derive(Debug)]
pub struct ReplaceLock {
    certificate: PathBuf,
    key: PathBuf,
    /// Locked: the key's file itself, so that there is no other file to be left behind.
    lock: File,
}

impl ReplaceLock {
    /// Takes the right, if nobody has it and both files can be replaced. None: another process has it, or has
    /// just replaced them.
    ///
    /// # Errors
    /// `PairError`: they cannot be replaced by this process.
    pub fn take(certificate: PathBuf, key: PathBuf) -> Result<Option<Self>, PairError> {
        let lock = File::open(&key).map_err(|error| PairError::new(&key, error))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(PairError::new(&key, error)),
        }
        let held = Self { certificate, key, lock };
        if !held.is_of_the_present_file() {
            return Ok(None);
        }
        can_replace(&held.certificate, &held.key)?;
        Ok(Some(held))
    }

    /// Puts a renewed certificate and its key in the place of those that are there, once the server has `accepted` them
    /// in a handshake: until then the former ones stay.
    ///
    /// # Errors
    /// They are not who we are, or not good; the server does not accept them; or the files cannot be replaced.
    pub fn replace<E: From<PairError>>(
        self,
        renewed: Renewed<'_>,
        accepted: impl FnOnce(CertifiedKey) -> Result<(), E>,
    ) -> Result<(), E> {
        let former = load(&self.certificate, &self.key, &aws_lc_rs::default_provider())?;
        let pair = fitting(&self.certificate, renewed.certificate, renewed.key)?;
        check(&self.certificate, &former.cert, &pair.cert, renewed.authority)?;
        // Written first: when the server has seen the new one, the former soon ends.
        let fresh = Fresh::write(&self.certificate, &self.key, renewed.certificate, renewed.key)?;
        accepted(pair)?;
        Ok(fresh.put()?)
    }

    /// Whoever had the lock before may have put another file there.
    fn is_of_the_present_file(&self) -> bool {
        match (self.lock.metadata(), fs::metadata(&self.key)) {
            (Ok(locked), Ok(present)) => (locked.dev(), locked.ino()) == (present.dev(), present.ino()),
            (Ok(_) | Err(_), _) => false,
        }
    }
}

impl Drop for ReplaceLock {
    fn drop(&mut self) {
        // Not left to the closing of the file: a child of `fork` may hold it open too.
        if let Err(error) = flock(&self.lock, FlockOperation::Unlock) {
            debug_assert!(false, "a lock that is held can be given up: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pair::tests::Place;

    fn take(place: &Place) -> Result<Option<ReplaceLock>, PairError> {
        ReplaceLock::take(place.certificate(), place.key())
    }

    #[test]
    fn one_at_a_time_and_who_comes_after_a_replacement_looks_again() {
        let place = Place::new();
        let waiting = File::open(place.key()).unwrap();
        let held = take(&place).unwrap().unwrap();
        assert!(take(&place).unwrap().is_none());
        let (certificate, key) = place.pair();
        let authority = place.authority();
        let renewed = Renewed { certificate: &certificate, authority: &authority, key: &key };
        held.replace::<PairError>(renewed, |_| Ok(())).unwrap();
        assert_eq!(place.load().unwrap(), certificate);
        // Who had opened the old file when the lock was given up.
        flock(&waiting, FlockOperation::NonBlockingLockExclusive).unwrap();
        let late = ReplaceLock { certificate: place.certificate(), key: place.key(), lock: waiting };
        assert!(!late.is_of_the_present_file());
        drop(late);
        assert!(take(&place).unwrap().is_some());
    }

    #[test]
    fn what_the_server_does_not_accept_replaces_nothing() {
        let place = Place::new();
        let (old, authority, (certificate, key)) = (place.load().unwrap(), place.authority(), place.pair());
        let renewed = Renewed { certificate: &certificate, authority: &authority, key: &key };
        let refused = |_| Err(PairError::new(&place.key(), "refused"));
        let error = take(&place).unwrap().unwrap().replace(renewed, refused).unwrap_err();
        assert_eq!(error.reason, "refused");
        assert_eq!(place.load().unwrap(), old);
        let other = Renewed { authority: &Place::new().authority(), ..renewed };
        let never = |_| -> Result<(), PairError> { panic!("it is not shown") };
        assert!(take(&place).unwrap().unwrap().replace(other, never).is_err());
        assert_eq!(place.load().unwrap(), old);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_known_before_anybody_is_asked() {
        let place = Place::new();
        fs::remove_file(place.certificate()).unwrap();
        assert_eq!(take(&place).unwrap_err().path, place.certificate());
        assert!(ReplaceLock::take(place.certificate(), "/nowhere/x.key".into()).is_err());
    }
}
