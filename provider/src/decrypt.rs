//! Decryption (PKCS#11 3.1, section 5.10).
//!
//! How long a padded plaintext is shows only when it is decrypted. A length query answers with the bound and
//! asks nobody; a buffer below the bound is tried, and if the plaintext does not fit, it waits for the retry: one
//! ciphertext is decrypted, charged and audited once.

use pkcs11_sys::{CK_OBJECT_HANDLE, CKM_AES_CBC};
use strongroom_shared::{
    mechanism::{Length, Params},
    message::{self, SecretBytes},
    object::Usage,
    secret::Wiped,
};

use crate::{
    cipher::{BLOCK, Chain, Crypt, MOST},
    ffi::pointers::{Input, Output},
    hsm,
    operation::{After, Chosen, Keyed, append, begin, step},
    rv::Error,
    session::Context,
};

/// An active decryption.
pub struct Decryption {
    crypt: Crypt,
    /// A plaintext that did not fit, and its ciphertext.
    waiting: Option<(Vec<u8>, Wiped)>,
}

/// `C_DecryptInit`.
///
/// # Errors
/// `OperationActive`, and what an operation's key and mechanism can be wrong in.
pub fn init(context: &Context<'_>, chosen: Option<Chosen>, key: CK_OBJECT_HANDLE) -> Result<(), Error> {
    begin(&mut context.session.operations().decrypt, chosen, |chosen| {
        let crypt = Crypt::new(Keyed::new(context, chosen, key, Usage::DECRYPT)?);
        Ok(Decryption { crypt, waiting: None })
    })
}

/// `C_Decrypt`.
///
/// # Errors
/// `OperationNotInitialized`, `BufferTooSmall` (the operation stays active), `EncryptedDataLenRange`, any fault (it ends).
pub fn decrypt(context: &Context<'_>, data: &Input<'_>, out: &Output<'_>) -> Result<(), Error> {
    step(&mut context.session.operations().decrypt, |decryption| {
        decryption.crypt.require_whole()?;
        let input = data.slice(decryption.crypt.most(context.slot.hsm.input_limit()))?.to_vec();
        decryption.deliver(context, input, out)
    })
    .map_err(of_ciphertext)
}

/// `C_DecryptUpdate`. The middle of a padded message is decrypted as `CKM_AES_CBC`, which the key must allow.
///
/// # Errors
/// As [`decrypt`].
pub fn update(context: &Context<'_>, part: &Input<'_>, out: &Output<'_>) -> Result<(), Error> {
    step(&mut context.session.operations().decrypt, |Decryption { crypt, .. }| {
        if crypt.chain == Chain::Collect {
            let limit = context.slot.hsm.input_limit();
            let part = part.slice(limit)?;
            let Some(place) = out.reserve(0)? else { return Ok(After::Active) };
            append(crypt.pending.get_or_insert_default(), part, limit)?;
            place.write(&[])?;
            return Ok(After::Active);
        }
        let part = part.slice(MOST)?;
        let ready = ready(crypt.chain, crypt.waiting() + part.len());
        let Some(place) = out.reserve(ready)? else { return Ok(After::Active) };
        let mut input = crypt.take_pending();
        append(&mut input, part, usize::MAX)?;
        let rest = Wiped::from(input.split_off(ready));
        let output = blocks(context, crypt, &input)?;
        crypt.pending = Some(rest);
        place.write(&output)?;
        Ok(After::Active)
    })
    .map_err(of_ciphertext)
}

/// `C_DecryptFinal`.
///
/// # Errors
/// As [`decrypt`]; `EncryptedDataLenRange` if CBC was not given whole blocks.
pub fn finish(context: &Context<'_>, out: &Output<'_>) -> Result<(), Error> {
    step(&mut context.session.operations().decrypt, |decryption| {
        out.check()?;
        let waiting = decryption.crypt.waiting();
        match decryption.crypt.chain {
            Chain::Blocks if waiting > 0 => return Err(Error::EncryptedDataLenRange),
            Chain::Padded if waiting != BLOCK => return Err(Error::EncryptedDataLenRange),
            Chain::Stream | Chain::Blocks if waiting == 0 => {
                let Some(place) = out.reserve(0)? else { return Ok(After::Active) };
                place.write(&[])?;
                return Ok(After::Over);
            }
            Chain::Collect | Chain::Padded | Chain::Stream | Chain::Blocks => {}
        }
        // A copy, for the retry after a buffer that was too small.
        let input = decryption.crypt.pending.as_ref().map(|pending| pending.to_vec()).unwrap_or_default();
        decryption.deliver(context, input, out)
    })
    .map_err(of_ciphertext)
}

impl Decryption {
    /// Decrypts the last or only piece and writes it, if it fits.
    fn deliver(&mut self, context: &Context<'_>, input: Vec<u8>, out: &Output<'_>) -> Result<After, Error> {
        let row = self.crypt.keyed.row();
        let bound = row.plaintext_bound(&self.crypt.keyed.key, &self.crypt.keyed.params, input.len());
        let exact = match row.length {
            Length::SameAsInput | Length::InputAndTag | Length::Fixed(_) | Length::None => true,
            Length::Modulus | Length::PaddedBlocks | Length::EcdsaPair => false,
        };
        if exact || out.is_query() {
            let Some(place) = out.reserve(bound)? else { return Ok(After::Active) };
            place.write(&whole(context, &mut self.crypt, &input)?)?;
            return Ok(After::Over);
        }
        let start = self.crypt.params()?;
        let plaintext = match self.waiting.take() {
            Some((ciphertext, plaintext)) if ciphertext == input => plaintext,
            Some(_) | None => whole(context, &mut self.crypt, &input)?,
        };
        match out.reserve(plaintext.len()) {
            Ok(Some(place)) => {
                place.write(&plaintext)?;
                Ok(After::Over)
            }
            Ok(None) => Ok(After::Active),
            Err(error) => {
                self.waiting = Some((input, plaintext));
                self.crypt.rewind(start);
                Err(error)
            }
        }
    }
}

/// How many of `total` bytes can be decrypted before the end is known: the last block of a padded message
/// waits, for it may hold the padding.
fn ready(chain: Chain, total: usize) -> usize {
    match chain {
        Chain::Collect => 0,
        Chain::Blocks | Chain::Stream => total - total % BLOCK,
        Chain::Padded => total.saturating_sub(1) / BLOCK * BLOCK,
    }
}

/// Decrypts a whole message, or the end of one: in one call, or in a chain of them if it does not fit into one.
fn whole(context: &Context<'_>, crypt: &mut Crypt, input: &[u8]) -> Result<Wiped, Error> {
    let mechanism = crypt.keyed.number();
    if input.len() <= context.slot.hsm.input_limit() {
        return Ok(request(context, crypt, mechanism, crypt.params()?, input.to_vec())?.0);
    }
    let (head, tail) = input.split_at(ready(crypt.chain, input.len()));
    let mut all = blocks(context, crypt, head)?;
    if !tail.is_empty() {
        all.extend_from_slice(&request(context, crypt, mechanism, crypt.params()?, tail.to_vec())?.0);
    }
    Ok(all)
}

/// Decrypts whole blocks, in as many calls as it takes.
fn blocks(context: &Context<'_>, crypt: &mut Crypt, input: &[u8]) -> Result<Wiped, Error> {
    let mechanism = match crypt.chain {
        Chain::Padded => CKM_AES_CBC,
        Chain::Collect | Chain::Blocks | Chain::Stream => crypt.keyed.number(),
    };
    let most = (context.slot.hsm.input_limit() / BLOCK).max(1) * BLOCK;
    // With room for the last, padded block, so that no plaintext is left behind by a move.
    let mut all = Wiped::from(Vec::with_capacity(input.len() + 2 * BLOCK));
    for piece in input.chunks(most) {
        let SecretBytes(output) = request(context, crypt, mechanism, crypt.params()?, piece.to_vec())?;
        if output.len() != piece.len() {
            return Err(hsm::malformed("a plaintext of another length"));
        }
        crypt.advance(piece);
        all.extend_from_slice(&output);
    }
    Ok(all)
}

fn request(
    context: &Context<'_>,
    crypt: &Crypt,
    mechanism: u64,
    params: Params,
    input: Vec<u8>,
) -> Result<SecretBytes, Error> {
    Ok(context.call(&message::Decrypt { key: crypt.keyed.key.id, mechanism, params, input })?.bytes)
}

/// What is too long here is ciphertext.
fn of_ciphertext(error: Error) -> Error {
    match error {
        Error::DataLenRange => Error::EncryptedDataLenRange,
        other => other,
    }
}
