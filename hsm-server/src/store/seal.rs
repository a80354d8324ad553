//! Keys out of the root key, and rows under keys.
//!
//! Subkeys are HKDF-Expand's (RFC 5869, one block) of the root key, one label each. Every row is sealed by
//! AES-256-GCM (NIST SP 800-38D) with a random nonce, under a key of its own that is derived from its path
//! and version, so no key comes near the number of random nonces that GCM bears. Path and version are
//! associated data as well.

use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit, Nonce, Tag};
use aws_lc_rs::hmac;
use strongroom_shared::secret::{Secret, Wiped};
use zeroize::Zeroizing;

use super::{Random, path::Name};

/// A 256-bit key.
pub(super) type Key = Secret<[u8; 32]>;

const FORMAT: &[u8] = b"strongroom row 1";
const NONCE: usize = 12;
const TAG: usize = 16;

/// HKDF-Expand (RFC 5869, section 2.3) of one block.
pub(super) fn derive(key: &Key, info: &[&[u8]]) -> Key {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key.expose()));
    info.iter().for_each(|part| context.update(part));
    context.update(&[1]);
    let mut derived = [0; 32];
    derived.copy_from_slice(context.sign().as_ref());
    Secret::new(derived)
}

/// A new random key.
pub(super) fn random_key(random: &Random) -> Key {
    let mut bytes = Zeroizing::new([0; 32]);
    random(bytes.as_mut());
    Secret::new(*bytes)
}

/// What a sealed row is bound to.
fn associated(name: Name, version: u64) -> Vec<u8> {
    [FORMAT, &version.to_be_bytes(), name.to_string().as_bytes()].concat()
}

fn cipher(key: &Key, associated: &[u8]) -> Aes256Gcm {
    Aes256Gcm::new(derive(key, &[associated]).expose().into())
}

/// Seals a row's content: nonce ‖ ciphertext ‖ tag. None for content of more than GCM's 64 GiB.
pub(super) fn seal(
    key: &Key,
    name: Name,
    version: u64,
    plaintext: &[u8],
    random: &Random,
) -> Option<Vec<u8>> {
    let associated = associated(name, version);
    let mut nonce = [0; NONCE];
    random(&mut nonce);
    // The whole length at once: growing would leave plaintext behind.
    let mut sealed = Vec::with_capacity(NONCE + plaintext.len() + TAG);
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(plaintext);
    let (_, content) = sealed.split_at_mut(NONCE);
    let tag = cipher(key, &associated)
        .encrypt_inout_detached(&Nonce::from(nonce), &associated, content.into())
        .ok()?;
    sealed.extend_from_slice(&tag);
    Some(sealed)
}

/// Opens a row. None unless it is exactly what was sealed with this key, at this name, in this version.
pub(super) fn open(key: &Key, name: Name, version: u64, sealed: &[u8]) -> Option<Wiped> {
    let (nonce, rest) = sealed.split_first_chunk::<NONCE>()?;
    let (content, tag) = rest.split_last_chunk::<TAG>()?;
    let associated = associated(name, version);
    let mut plaintext = Wiped::from(content.to_vec());
    cipher(key, &associated)
        .decrypt_inout_detached(
            &Nonce::from(*nonce),
            &associated,
            plaintext.as_mut_slice().into(),
            &Tag::from(*tag),
        )
        .ok()?;
    Some(plaintext)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subkey_is_one_block_of_hkdf_expand() {
        // RFC 5869, test case 1: the first 32 bytes of OKM.
        let prk = [
            0x07, 0x77, 0x09, 0x36, 0x2c, 0x2e, 0x32, 0xdf, 0x0d, 0xdc, 0x3f, 0x0d, 0xc4, 0x7b, 0xba, 0x63,
            0x90, 0xb6, 0xc7, 0x3b, 0xb5, 0x0f, 0x9c, 0x31, 0x22, 0xec, 0x84, 0x4a, 0xd7, 0xc2, 0xb3, 0xe5,
        ];
        let info = [0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9];
        let okm = [
            0x3c, 0xb2, 0x5f, 0x25, 0xfa, 0xac, 0xd5, 0x7a, 0x90, 0x43, 0x4f, 0x64, 0xd0, 0x36, 0x2f, 0x2a,
            0x2d, 0x2d, 0x0a, 0x90, 0xcf, 0x1a, 0x5a, 0x4c, 0x5d, 0xb0, 0x2d, 0x56, 0xec, 0xc4, 0xc5, 0xbf,
        ];
        let (front, back) = info.split_at(4);
        assert_eq!(*derive(&Secret::new(prk), &[front, back]).expose(), okm);
    }

    /// Computed by another program from the description above: what was once written must stay readable.
    #[test]
    fn the_bytes_are_the_ones_that_are_described() {
        let key = Secret::new(std::array::from_fn(|index| index as u8));
        let random: Random = Box::new(|bytes| bytes.fill(7));
        let sealed = seal(&key, Name::Witness, 5, b"content", &random).unwrap();
        let hex: String = sealed.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "07070707070707070707070776ce6a7f91874052861e7356a2754c1c725f66c4dd6e84");
    }

    #[test]
    fn only_the_same_key_name_and_version_open_a_row() {
        let random: Random = Box::new(|bytes| bytes.fill(7));
        let (key, other) = (Secret::new([1; 32]), Secret::new([2; 32]));
        let sealed = seal(&key, Name::Witness, 5, b"content", &random).unwrap();
        assert_eq!(open(&key, Name::Witness, 5, &sealed).unwrap().as_slice(), b"content");
        assert!(open(&other, Name::Witness, 5, &sealed).is_none());
        assert!(open(&key, Name::Manifest, 5, &sealed).is_none());
        assert!(open(&key, Name::Witness, 6, &sealed).is_none());
        for index in 0..sealed.len() {
            let mut broken = sealed.clone();
            broken[index] ^= 1;
            assert!(open(&key, Name::Witness, 5, &broken).is_none(), "byte {index}");
            assert!(open(&key, Name::Witness, 5, &sealed[..index]).is_none(), "first {index} bytes");
        }
    }
}
