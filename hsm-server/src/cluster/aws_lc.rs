//! The primitives of Noise from AWS-LC, and randomness from the platform: `snow` brings the protocol alone.
//!
//! Traits and panics are `snow`'s: where its trait cannot tell of a failure that cannot happen (a key of the right
//! length), the output is left as zeros or empty, which the other end does not accept.

use std::sync::Arc;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, Nonce, UnboundKey},
    agreement::{PrivateKey, UnparsedPublicKey, X25519, agree},
    digest::{Context, SHA256, SHA256_OUTPUT_LEN},
};
use snow::{
    Error,
    params::{CipherChoice, DHChoice, HashChoice},
    resolvers::CryptoResolver,
    types::{Cipher, Dh, Hash, Random},
};
use strongroom_shared::secret::Secret;
use zeroize::{Zeroize, Zeroizing};

/// Fills a buffer with random bytes.
pub type RandomSource = Arc<dyn Fn(&mut [u8]) + Send + Sync>;

/// The public key of an X25519 private key (RFC 7748, section 6.1).
pub fn public_key(key: &Secret<[u8; 32]>) -> Option<[u8; 32]> {
    let key = PrivateKey::from_private_key(&X25519, key.expose()).ok()?;
    key.compute_public_key().ok()?.as_ref().try_into().ok()
}

/// Makes what a handshake needs.
pub(super) struct AwsLc(pub RandomSource);

impl CryptoResolver for AwsLc {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Source(Arc::clone(&self.0))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        matches!(choice, DHChoice::Curve25519).then(|| Box::new(Curve25519::default()) as Box<dyn Dh>)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        matches!(choice, HashChoice::SHA256).then(|| Box::new(Sha256(Context::new(&SHA256))) as Box<dyn Hash>)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        matches!(choice, CipherChoice::AESGCM).then(|| Box::new(AesGcm(None)) as Box<dyn Cipher>)
    }
}

struct Source(RandomSource);

impl Random for Source {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        (self.0)(dest);
        Ok(())
    }
}

#[derive(Default)]
struct Curve25519 {
    private: Zeroizing<[u8; 32]>,
    public: [u8; 32],
}

impl Dh for Curve25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        self.public.len()
    }

    fn priv_len(&self) -> usize {
        self.private.len()
    }

    fn set(&mut self, privkey: &[u8]) {
        self.private.iter_mut().zip(privkey).for_each(|(to, from)| *to = *from);
        self.public = public_key(&Secret::new(*self.private)).unwrap_or_default();
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        let mut private = Zeroizing::new([0; 32]);
        rng.try_fill_bytes(&mut *private)?;
        self.set(&*private);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        &*self.private
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let pubkey = pubkey.get(..self.pub_len()).ok_or(Error::Dh)?;
        let key = PrivateKey::from_private_key(&X25519, &*self.private).map_err(|_| Error::Dh)?;
        // A point of small order gives nothing but zeros: AWS-LC refuses it.
        agree(&key, UnparsedPublicKey::new(&X25519, pubkey), Error::Dh, |shared| {
            out.iter_mut().zip(shared).for_each(|(to, from)| *to = *from);
            Ok(())
        })
    }
}

struct Sha256(Context);

impl Hash for Sha256 {
    fn name(&self) -> &'static str {
        "SHA256"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        SHA256_OUTPUT_LEN
    }

    fn reset(&mut self) {
        self.0 = Context::new(&SHA256);
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        let context = std::mem::replace(&mut self.0, Context::new(&SHA256));
        out.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    }
}

/// AES-256-GCM with Noise's nonce: four zeros and the number, big-endian (section 12.4).
struct AesGcm(Option<LessSafeKey>);

fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce.iter_mut().skip(4).zip(number.to_be_bytes()).for_each(|(to, from)| *to = from);
    Nonce::assume_unique_for_key(nonce)
}

impl Cipher for AesGcm {
    fn name(&self) -> &'static str {
        "AESGCM"
    }

    fn set(&mut self, key: &[u8; 32]) {
        self.0 = UnboundKey::new(&AES_256_GCM, key).ok().map(LessSafeKey::new);
    }

    fn encrypt(&self, number: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let mut sealed = || {
            let key = self.0.as_ref()?;
            let (text, rest) = out.split_at_mut_checked(plaintext.len())?;
            text.copy_from_slice(plaintext);
            let Ok(tag) = key.seal_in_place_separate_tag(nonce(number), Aad::from(authtext), text) else {
                // Never the plaintext.
                text.zeroize();
                return None;
            };
            rest.get_mut(..MAX_TAG_LEN)?.copy_from_slice(tag.as_ref());
            Some(plaintext.len() + MAX_TAG_LEN)
        };
        sealed().unwrap_or_default()
    }

    fn decrypt(&self, number: u64, authtext: &[u8], sealed: &[u8], out: &mut [u8]) -> Result<usize, Error> {
        let key = self.0.as_ref().ok_or(Error::Decrypt)?;
        let (text, tag) = sealed.split_last_chunk::<MAX_TAG_LEN>().ok_or(Error::Decrypt)?;
        let out = out.get_mut(..text.len()).ok_or(Error::Decrypt)?;
        key.open_separate_gather(nonce(number), Aad::from(authtext), text, tag, out)
            .map_err(|_| Error::Decrypt)?;
        Ok(text.len())
    }
}
