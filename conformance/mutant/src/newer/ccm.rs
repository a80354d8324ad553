//! AES-CCM (SP 800-38C) by OpenSSL: the tag stands behind the ciphertext.

use openssl::cipher::{Cipher, CipherRef};
use openssl::cipher_ctx::CipherCtx;
use openssl::error::ErrorStack;

/// The lengths that a tag may have, in bits (SP 800-38C, A.1).
pub const TAG_BITS: [usize; 7] = [32, 48, 64, 80, 96, 112, 128];

/// Encrypts under a key with a nonce and additional data.
pub fn seal(key: &[u8], nonce: &[u8], aad: &[u8], value: &[u8], tag_length: usize) -> Option<Vec<u8>> {
    let cipher = cipher(key)?;
    let act = || -> Result<Vec<u8>, ErrorStack> {
        let (mut context, mut tag) = (CipherCtx::new()?, vec![0; tag_length]);
        // The lengths come before the key, which fixes them.
        context.encrypt_init(Some(cipher), None, None)?;
        context.set_iv_length(nonce.len())?;
        context.set_tag_length(tag_length)?;
        context.encrypt_init(None, Some(key), Some(nonce))?;
        let mut blob = update(&mut context, aad, value)?;
        context.tag(&mut tag)?;
        blob.extend(tag);
        Ok(blob)
    };
    act().ok()
}

/// Decrypts, if the tag is right.
pub fn open(key: &[u8], nonce: &[u8], aad: &[u8], blob: &[u8], tag_length: usize) -> Option<Vec<u8>> {
    let (value, tag) = blob.split_at_checked(blob.len().checked_sub(tag_length)?)?;
    let cipher = cipher(key)?;
    let act = || -> Result<Vec<u8>, ErrorStack> {
        let mut context = CipherCtx::new()?;
        context.decrypt_init(Some(cipher), None, None)?;
        context.set_iv_length(nonce.len())?;
        context.set_tag(tag)?;
        context.decrypt_init(None, Some(key), Some(nonce))?;
        update(&mut context, aad, value)
    };
    act().ok()
}

/// All of the data at once, as CCM needs it.
fn update(context: &mut CipherCtx, aad: &[u8], data: &[u8]) -> Result<Vec<u8>, ErrorStack> {
    let mut output = Vec::new();
    context.set_data_len(data.len())?;
    context.cipher_update(aad, None)?;
    context.cipher_update_vec(data, &mut output)?;
    Ok(output)
}

fn cipher(key: &[u8]) -> Option<&'static CipherRef> {
    match key.len() {
        16 => Some(Cipher::aes_128_ccm()),
        24 => Some(Cipher::aes_192_ccm()),
        32 => Some(Cipher::aes_256_ccm()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Example 2 of SP 800-38C, appendix C.
    #[test]
    fn it_is_ccm() {
        let bytes = |first: u8, count: u8| (first..first + count).collect::<Vec<u8>>();
        let (key, nonce, aad, value) = (bytes(0x40, 16), bytes(0x10, 8), bytes(0, 16), bytes(0x20, 16));
        let blob = [
            0xd2, 0xa1, 0xf0, 0xe0, 0x51, 0xea, 0x5f, 0x62, 0x08, 0x1a, 0x77, 0x92, 0x07, 0x3d, 0x59, 0x3d,
            0x1f, 0xc6, 0x4f, 0xbf, 0xac, 0xcd,
        ];
        assert_eq!(seal(&key, &nonce, &aad, &value, 6).as_deref(), Some(&blob[..]));
        assert_eq!(open(&key, &nonce, &aad, &blob, 6), Some(value));
        assert_eq!(open(&key, &nonce, &nonce, &blob, 6), None);
    }
}
