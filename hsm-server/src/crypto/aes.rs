//! AES in the modes GCM (SP 800-38D), CBC and CTR (SP 800-38A), by OpenSSL.

use openssl::{
    cipher::Cipher,
    cipher_ctx::{CipherCtx, CipherCtxRef},
    error::ErrorStack,
};
use pkcs11_sys::*;
use strongroom_shared::{
    mechanism::{Mechanism, Params},
    object::{Template, Value},
};
use zeroize::Zeroizing;

use super::{Algorithm, Error, Random, Task, gcm_long_iv::LongIv, need};

const BLOCK: usize = 16;
/// The longest initialisation vector that OpenSSL takes for GCM, in bytes.
const LONGEST_IV: usize = 128;

/// An AES key with the ciphers that it is used in, fetched once.
pub struct Key {
    value: Zeroizing<Vec<u8>>,
    gcm: Cipher,
    cbc: Cipher,
    ctr: Cipher,
}

impl Key {
    pub fn parse(attributes: &Template) -> Result<Self, Error> {
        let value = value(attributes)?;
        let cipher = |mode| Cipher::fetch(None, &format!("AES-{}-{mode}", 8 * value.len()), None);
        Ok(Self {
            gcm: cipher("GCM")?,
            cbc: cipher("CBC")?,
            ctr: cipher("CTR")?,
            value: Zeroizing::new(value.to_vec()),
        })
    }
}

/// A mode with its parameters, checked.
enum Mode<'a> {
    Gcm { iv: &'a [u8], aad: &'a [u8], tag_length: usize },
    Cbc { iv: &'a [u8; BLOCK], padded: Padded },
    Ctr { block: &'a [u8; BLOCK] },
}

/// Whether CBC adds PKCS#7 padding.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Padded {
    Yes,
    No,
}

impl<'a> Mode<'a> {
    /// `overflow` is the error for more data than the counter can number.
    fn of(task: &Task<'a>, overflow: Error) -> Result<Self, Error> {
        match task.params {
            Params::Gcm { iv, aad, tag_bits } => {
                let legal = matches!(tag_bits, 32 | 64 | 96 | 104 | 112 | 120 | 128);
                if !legal || !(1..=256).contains(&iv.len()) {
                    return Err(Error::MechanismParamInvalid);
                }
                Ok(Self::Gcm { iv, aad, tag_length: *tag_bits as usize / 8 })
            }
            Params::Iv(iv) => {
                let padded = if task.mechanism == Mechanism::AesCbcPad { Padded::Yes } else { Padded::No };
                Ok(Self::Cbc { iv, padded })
            }
            Params::Ctr { bits, block } => {
                if !(1..=128).contains(bits) {
                    return Err(Error::MechanismParamInvalid);
                }
                match counter_suffices(*bits, block, task.input.len()) {
                    true => Ok(Self::Ctr { block }),
                    false => Err(overflow),
                }
            }
            Params::None | Params::Pss { .. } | Params::Oaep { .. } | Params::Path(_) => {
                Err(Error::MechanismParamInvalid)
            }
        }
    }
}

/// Whether the low `bits` of the counter block number every block without starting over. The whole block may
/// wrap: then, as in SP 800-38A, the counter is taken modulo 2^128.
fn counter_suffices(bits: u32, block: &[u8; BLOCK], length: usize) -> bool {
    let Some(range) = 1_u128.checked_shl(bits) else { return true };
    let first = u128::from_be_bytes(*block) & (range - 1);
    length.div_ceil(BLOCK) as u128 <= range - first
}

impl Algorithm for Key {
    fn encrypt(&self, task: &Task<'_>) -> Result<Zeroizing<Vec<u8>>, Error> {
        let mut context = CipherCtx::new()?;
        let mut output = buffer(task.input.len());
        match Mode::of(task, Error::DataLengthRange)? {
            Mode::Gcm { iv, aad, tag_length } if iv.len() > LONGEST_IV => {
                return LongIv::new(&self.ctr, &self.value, iv)?.encrypt(aad, task.input, tag_length);
            }
            Mode::Gcm { iv, aad, tag_length } => {
                context.encrypt_init(Some(&self.gcm), None, None)?;
                context.set_iv_length(iv.len())?;
                context.encrypt_init(None, Some(&self.value), Some(iv))?;
                context.cipher_update(aad, None)?;
                run(&mut context, task.input, &mut output)?;
                let end = output.len();
                output.resize(end + tag_length, 0);
                context.tag(output.get_mut(end..).unwrap_or_default())?;
            }
            Mode::Cbc { iv, padded } => {
                if padded == Padded::No && !task.input.len().is_multiple_of(BLOCK) {
                    return Err(Error::DataLengthRange);
                }
                context.encrypt_init(Some(&self.cbc), Some(&self.value), Some(iv))?;
                context.set_padding(padded == Padded::Yes);
                run(&mut context, task.input, &mut output)?;
            }
            Mode::Ctr { block } => {
                context.encrypt_init(Some(&self.ctr), Some(&self.value), Some(block))?;
                run(&mut context, task.input, &mut output)?;
            }
        }
        Ok(output)
    }

    /// Nothing of a plaintext leaves before the tag or the padding was found good.
    fn decrypt(&self, task: &Task<'_>) -> Result<Zeroizing<Vec<u8>>, Error> {
        let mut context = CipherCtx::new()?;
        let mut output = buffer(task.input.len());
        match Mode::of(task, Error::EncryptedDataLengthRange)? {
            Mode::Gcm { iv, aad, tag_length } => {
                let end = task.input.len().checked_sub(tag_length).ok_or(Error::EncryptedDataLengthRange)?;
                let (ciphertext, tag) = task.input.split_at_checked(end).unwrap_or_default();
                if iv.len() > LONGEST_IV {
                    return LongIv::new(&self.ctr, &self.value, iv)?.decrypt(aad, ciphertext, tag);
                }
                context.decrypt_init(Some(&self.gcm), None, None)?;
                context.set_iv_length(iv.len())?;
                context.decrypt_init(None, Some(&self.value), Some(iv))?;
                context.set_tag(tag)?;
                context.cipher_update(aad, None)?;
                run(&mut context, ciphertext, &mut output).map_err(|_| Error::EncryptedDataInvalid)?;
            }
            Mode::Cbc { iv, padded } => {
                let whole = task.input.len().is_multiple_of(BLOCK);
                if !whole || (padded == Padded::Yes && task.input.is_empty()) {
                    return Err(Error::EncryptedDataLengthRange);
                }
                context.decrypt_init(Some(&self.cbc), Some(&self.value), Some(iv))?;
                context.set_padding(padded == Padded::Yes);
                run(&mut context, task.input, &mut output).map_err(|_| Error::EncryptedDataInvalid)?;
            }
            Mode::Ctr { block } => {
                context.decrypt_init(Some(&self.ctr), Some(&self.value), Some(block))?;
                run(&mut context, task.input, &mut output)?;
            }
        }
        Ok(output)
    }
}

/// An empty buffer that will not move, and leave a copy behind, for padding, a tag and what OpenSSL asks for.
fn buffer(length: usize) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(Vec::with_capacity(length + 3 * BLOCK))
}

fn run(context: &mut CipherCtxRef, input: &[u8], output: &mut Vec<u8>) -> Result<(), ErrorStack> {
    if !input.is_empty() {
        context.cipher_update_vec(input, output)?;
    }
    context.cipher_final_vec(output)?;
    Ok(())
}

/// A new key of `CKA_VALUE_LEN` bytes.
pub fn generate(template: &Template, random: &dyn Random) -> Result<Template, Error> {
    let length = super::value_length(template, |length| matches!(length, 16 | 24 | 32))?;
    let mut value = Zeroizing::new(vec![0; length]);
    random.fill(&mut value);
    let check_value = check_value(&value)?;
    Ok(Template::new().with(CKA_VALUE, Value::Bytes(value)).with(CKA_CHECK_VALUE, check_value))
}

pub fn complete(template: &Template) -> Result<Template, Error> {
    let value = value(template)?;
    Ok(Template::new()
        .with(CKA_VALUE_LEN, Value::Ulong(value.len() as u64))
        .with(CKA_CHECK_VALUE, check_value(value)?))
}

fn value(attributes: &Template) -> Result<&[u8], Error> {
    let value = need(attributes, CKA_VALUE)?;
    matches!(value.len(), 16 | 24 | 32).then_some(value).ok_or(Error::AttributeValueInvalid(CKA_VALUE))
}

/// The first three bytes of a block of zeros, encrypted (PKCS#11 3.1, 4.10.1).
fn check_value(key: &[u8]) -> Result<Value, Error> {
    let cipher = Cipher::fetch(None, &format!("AES-{}-CBC", 8 * key.len()), None)?;
    let mut context = CipherCtx::new()?;
    context.encrypt_init(Some(&cipher), Some(key), Some(&[0; BLOCK]))?;
    context.set_padding(false);
    let mut output = Vec::new();
    context.cipher_update_vec(&[0; BLOCK], &mut output)?;
    output.truncate(3);
    Ok(Value::bytes(output))
}
