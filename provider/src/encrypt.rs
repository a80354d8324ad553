//! Encryption (PKCS#11 3.1, section 5.8).

use pkcs11_sys::CK_OBJECT_HANDLE;
use strongroom_shared::{
    mechanism::Params,
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

/// An active encryption.
pub struct Encryption(Crypt);

/// `C_EncryptInit`.
///
/// # Errors
/// `OperationActive`, and what an operation's key and mechanism can be wrong in.
pub fn init(context: &Context<'_>, chosen: Option<Chosen>, key: CK_OBJECT_HANDLE) -> Result<(), Error> {
    begin(&mut context.session.operations().encrypt, chosen, |chosen| {
        Ok(Encryption(Crypt::new(Keyed::new(context, chosen, key, Usage::ENCRYPT)?)))
    })
}

/// `C_Encrypt`.
///
/// # Errors
/// `OperationNotInitialized`, `BufferTooSmall` (the operation stays active), `DataLenRange`, any fault (it ends).
pub fn encrypt(context: &Context<'_>, data: &Input<'_>, out: &Output<'_>) -> Result<(), Error> {
    step(&mut context.session.operations().encrypt, |Encryption(crypt)| {
        crypt.require_whole()?;
        let input = data.slice(crypt.most(context.slot.hsm.input_limit()))?;
        let Some(place) = out.reserve(length(crypt, input.len()))? else { return Ok(After::Active) };
        place.write(&whole(context, crypt, input)?)?;
        Ok(After::Over)
    })
}

/// `C_EncryptUpdate`.
///
/// # Errors
/// As [`encrypt`].
pub fn update(context: &Context<'_>, part: &Input<'_>, out: &Output<'_>) -> Result<(), Error> {
    step(&mut context.session.operations().encrypt, |Encryption(crypt)| {
        if crypt.chain == Chain::Collect {
            let limit = context.slot.hsm.input_limit();
            let part = part.slice(limit)?;
            let Some(place) = out.reserve(0)? else { return Ok(After::Active) };
            append(crypt.pending.get_or_insert_default(), part, limit)?;
            place.write(&[])?;
            return Ok(After::Active);
        }
        let part = part.slice(MOST)?;
        let total = crypt.waiting() + part.len();
        let ready = total - total % BLOCK;
        let Some(place) = out.reserve(ready)? else { return Ok(After::Active) };
        let mut input = crypt.take_pending();
        append(&mut input, part, usize::MAX)?;
        let rest = Wiped::from(input.split_off(ready));
        let output = blocks(context, crypt, &input)?;
        crypt.pending = Some(rest);
        place.write(&output)?;
        Ok(After::Active)
    })
}

/// `C_EncryptFinal`.
///
/// # Errors
/// As [`encrypt`]; `DataLenRange` if CBC without padding was not given whole blocks.
pub fn finish(context: &Context<'_>, out: &Output<'_>) -> Result<(), Error> {
    step(&mut context.session.operations().encrypt, |Encryption(crypt)| {
        out.check()?;
        let waiting = crypt.waiting();
        let (length, travels) = match crypt.chain {
            Chain::Blocks if waiting > 0 => return Err(Error::DataLenRange),
            Chain::Blocks => (0, Travels::Not),
            Chain::Stream if waiting == 0 => (0, Travels::Not),
            Chain::Collect | Chain::Padded | Chain::Stream => (length(crypt, waiting), Travels::Last),
        };
        let Some(place) = out.reserve(length)? else { return Ok(After::Active) };
        if travels == Travels::Last {
            let input = crypt.take_pending();
            let SecretBytes(output) = request(context, crypt, crypt.params()?, &input)?;
            place.write(&output)?;
        } else {
            place.write(&[])?;
        }
        Ok(After::Over)
    })
}

/// Whether the end of an operation needs a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Travels {
    Last,
    Not,
}

/// Encrypts a whole message: in one call, or in a chain of them if it does not fit into one.
fn whole(context: &Context<'_>, crypt: &mut Crypt, input: &[u8]) -> Result<Wiped, Error> {
    if input.len() <= context.slot.hsm.input_limit() {
        return Ok(request(context, crypt, crypt.params()?, input)?.0);
    }
    let (head, tail) = input.split_at(input.len() - input.len() % BLOCK);
    let mut all = blocks(context, crypt, head)?;
    if !tail.is_empty() || crypt.chain == Chain::Padded {
        all.extend_from_slice(&request(context, crypt, crypt.params()?, tail)?.0);
    }
    Ok(all)
}

/// Encrypts whole blocks, in as many calls as it takes.
fn blocks(context: &Context<'_>, crypt: &mut Crypt, input: &[u8]) -> Result<Wiped, Error> {
    let most = (context.slot.hsm.input_limit() / BLOCK).max(1) * BLOCK;
    let mut all = Wiped::from(Vec::with_capacity(input.len()));
    for piece in input.chunks(most) {
        let SecretBytes(mut output) = request(context, crypt, crypt.params()?, piece)?;
        // The padding that ends a padded message is not wanted yet: without it, CBC goes on from the block before.
        if crypt.chain == Chain::Padded {
            output.truncate(piece.len());
        }
        if output.len() != piece.len() {
            return Err(hsm::malformed("a ciphertext of another length"));
        }
        crypt.advance(&output);
        all.extend_from_slice(&output);
    }
    Ok(all)
}

fn length(crypt: &Crypt, input: usize) -> usize {
    crypt.keyed.row().output_length(&crypt.keyed.key, &crypt.keyed.params, input)
}

fn request(context: &Context<'_>, crypt: &Crypt, params: Params, input: &[u8]) -> Result<SecretBytes, Error> {
    let (key, mechanism) = (crypt.keyed.key.id, crypt.keyed.number());
    Ok(context.call(&message::Encrypt { key, mechanism, params, input: input.to_vec() })?.bytes)
}
