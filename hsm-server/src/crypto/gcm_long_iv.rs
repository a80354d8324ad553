//! AES-GCM (SP 800-38D) for initialisation vectors above 128 bytes, which OpenSSL does not take and PKCS#11
//! allows: put together from its parts, OpenSSL's AES-CTR and the `ghash` crate.

use ghash::{GHash, universal_hash::UniversalHash};
use openssl::{cipher::CipherRef, cipher_ctx::CipherCtx};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::Error;

const BLOCK: usize = 16;

/// A key with one initialisation vector.
pub struct LongIv<'a> {
    ctr: &'a CipherRef,
    key: &'a [u8],
    /// H: a block of zeros, encrypted.
    hash_key: Zeroizing<[u8; BLOCK]>,
    /// J0: the counter block that the vector was hashed to.
    first: u128,
}

impl<'a> LongIv<'a> {
    /// `ctr` is AES-CTR with the key's length.
    pub fn new(ctr: &'a CipherRef, key: &'a [u8], iv: &[u8]) -> Result<Self, Error> {
        let mut this = Self { ctr, key, hash_key: Zeroizing::new([0; BLOCK]), first: 0 };
        let zeros = this.count(0, &[0; BLOCK])?;
        this.hash_key.copy_from_slice(&zeros);
        this.first = this.hash(&[], iv);
        Ok(this)
    }

    pub fn encrypt(&self, aad: &[u8], text: &[u8], tag_length: usize) -> Result<Zeroizing<Vec<u8>>, Error> {
        let mut output = self.count(next(self.first), text)?;
        let tag = self.tag(aad, &output)?;
        output.extend(tag.iter().take(tag_length));
        Ok(output)
    }

    pub fn decrypt(&self, aad: &[u8], ciphertext: &[u8], tag: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        let expected = self.tag(aad, ciphertext)?;
        let expected = expected.get(..tag.len()).unwrap_or_default();
        match bool::from(expected.ct_eq(tag)) && !tag.is_empty() {
            true => self.count(next(self.first), ciphertext),
            false => Err(Error::EncryptedDataInvalid),
        }
    }

    fn tag(&self, aad: &[u8], ciphertext: &[u8]) -> Result<[u8; BLOCK], Error> {
        let mut tag = self.hash(aad, ciphertext).to_be_bytes();
        for (byte, mask) in tag.iter_mut().zip(self.count(self.first, &[0; BLOCK])?.iter()) {
            *byte ^= mask;
        }
        Ok(tag)
    }

    /// GHASH of two texts, each padded to whole blocks, and of their lengths in bits.
    fn hash(&self, first: &[u8], second: &[u8]) -> u128 {
        let lengths = (first.len() as u128 * 8) << 64 | (second.len() as u128 * 8);
        let mut hash = GHash::new((&*self.hash_key).into());
        hash.update_padded(first);
        hash.update_padded(second);
        hash.update(&[lengths.to_be_bytes().into()]);
        u128::from_be_bytes(hash.finalize().into())
    }

    /// GCTR: counts in the last 32 bits only, where OpenSSL's counter would carry over.
    fn count(&self, counter: u128, input: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        let blocks = (1_usize << 32) - counter as u32 as usize;
        let (before, after) = input.split_at_checked(blocks * BLOCK).unwrap_or((input, &[]));
        let mut output = Zeroizing::new(Vec::with_capacity(input.len() + 3 * BLOCK));
        for (counter, part) in [(counter, before), (counter >> 32 << 32, after)] {
            let mut context = CipherCtx::new()?;
            context.encrypt_init(Some(self.ctr), Some(self.key), Some(&counter.to_be_bytes()))?;
            context.cipher_update_vec(part, &mut output)?;
        }
        Ok(output)
    }
}

/// inc32: the block after this one.
fn next(counter: u128) -> u128 {
    (counter >> 32 << 32) | u128::from((counter as u32).wrapping_add(1))
}

#[cfg(test)]
mod tests {
    use openssl::cipher::Cipher;

    use super::*;

    #[test]
    fn counting_stays_in_the_last_32_bits() {
        let key = [7; 16];
        let counting =
            LongIv { ctr: Cipher::aes_128_ctr(), key: &key, hash_key: Zeroizing::new([0; BLOCK]), first: 0 };
        let last = 0x0123_u128 << 32 | u128::from(u32::MAX);
        let text = counting.count(last, &[0; 2 * BLOCK]).unwrap();
        assert_eq!(text[BLOCK..], *counting.count(0x0123 << 32, &[0; BLOCK]).unwrap());
        assert_eq!(next(last), 0x0123 << 32);
    }
}
