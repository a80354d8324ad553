//! Walks a path of the model on the module itself: what comes out is the sensitive key, or the model was wrong.

use std::collections::BTreeMap;

use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrap};
use cryptoki_sys::*;

use super::experiment::{WRAP, exactly, plain};
use super::model::{Change, Flag, Flags, Origin};
use super::search::{Act, Fact, Step, Value};
use crate::check::Stop;
use crate::raw::Function as F;
use crate::session::Session;
use crate::template::{Mechanism, Template};

/// The mechanism by which a key works on one block: ECB, or CBC with a vector of zeros, which is the same for a block.
pub fn block(session: &Session<'_>, flag: CK_FLAGS) -> Option<Mechanism> {
    let offers = |number| session.bench.offers(number, flag).is_ok();
    if offers(CKM_AES_ECB) {
        return Some(Mechanism::plain(CKM_AES_ECB));
    }
    offers(CKM_AES_CBC).then(|| Mechanism::bytes(CKM_AES_CBC, &[0; 16]))
}

/// Which way a block goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Encrypt,
    Decrypt,
}

/// What a token does to one block for whoever may call it.
struct Oracle<'s, 'b> {
    session: &'s Session<'b>,
    key: CK_OBJECT_HANDLE,
    way: Way,
}

impl Oracle<'_, '_> {
    fn block(&self, input: [u8; 16]) -> Result<[u8; 16], Stop> {
        let (flag, init, single) = match self.way {
            Way::Encrypt => (CKF_ENCRYPT, F::C_EncryptInit, F::C_Encrypt),
            Way::Decrypt => (CKF_DECRYPT, F::C_DecryptInit, F::C_Decrypt),
        };
        let mechanism = block(self.session, flag).ok_or(Stop::NotOffered)?;
        let output = self.session.transform(init, single, &mechanism, self.key, &input)?;
        output.try_into().map_err(|_| Stop::fail("a block for a block", "another length"))
    }
}

/// The initial value of RFC 3394, 2.2.3.1.
const INITIAL: [u8; 8] = [0xa6; 8];

fn halves(block: [u8; 16]) -> ([u8; 8], [u8; 8]) {
    let number = u128::from_be_bytes(block);
    let (high, low) = ((number >> 64) as u64, number as u64);
    (high.to_be_bytes(), low.to_be_bytes())
}

fn joined(high: u64, low: [u8; 8]) -> [u8; 16] {
    (u128::from(high) << 64 | u128::from(u64::from_be_bytes(low))).to_be_bytes()
}

fn parts(bytes: &[u8]) -> Vec<[u8; 8]> {
    bytes.chunks_exact(8).filter_map(|part| part.try_into().ok()).collect()
}

/// Key wrap, index based (RFC 3394, 2.2.1), block by block with somebody else's key.
fn wrap(key: &[u8], mut encrypt: impl FnMut([u8; 16]) -> Result<[u8; 16], Stop>) -> Result<Vec<u8>, Stop> {
    let (mut integrity, mut registers, mut step) = (INITIAL, parts(key), 0_u64);
    for _ in 0..6 {
        for register in &mut registers {
            step += 1;
            let (high, low) = halves(encrypt(joined(u64::from_be_bytes(integrity), *register))?);
            integrity = (u64::from_be_bytes(high) ^ step).to_be_bytes();
            *register = low;
        }
    }
    Ok([&integrity[..], &registers.concat()].concat())
}

/// Key unwrap, index based (RFC 3394, 2.2.2).
fn unwrap(blob: &[u8], mut decrypt: impl FnMut([u8; 16]) -> Result<[u8; 16], Stop>) -> Result<Vec<u8>, Stop> {
    let broken = || Stop::fail("a wrapped key", "another thing");
    let all = parts(blob);
    let (first, rest) = all.split_first().ok_or_else(broken)?;
    let (mut integrity, mut registers) = (*first, rest.to_vec());
    let mut step = 6 * registers.len() as u64;
    for _ in 0..6 {
        for register in registers.iter_mut().rev() {
            let (high, low) = halves(decrypt(joined(u64::from_be_bytes(integrity) ^ step, *register))?);
            (integrity, *register, step) = (high, low, step - 1);
        }
    }
    if integrity == INITIAL { Ok(registers.concat()) } else { Err(broken()) }
}

/// A thing that a step gave.
#[derive(Clone)]
enum Thing {
    Key(CK_OBJECT_HANDLE),
    Bytes(Vec<u8>),
}

/// The walk so far.
struct Walk<'s, 'b> {
    session: &'s Session<'b>,
    victim: [u8; 32],
    chosen: [u8; 32],
    things: BTreeMap<Fact, Thing>,
}

/// Walks the path, and says whether the value that came out is the sensitive key's.
///
/// # Errors
/// What the module refused that the model allows, or `Skipped` if there is no such sensitive key on it.
pub fn replay(session: &Session<'_>, path: &[Step]) -> Result<bool, Stop> {
    let secret = || -> [u8; 32] { session.bench.random().bytes(32).try_into().unwrap_or([1; 32]) };
    let (victim, chosen) = (secret(), secret());
    let mut walk = Walk { session, victim, chosen, things: BTreeMap::new() };
    for step in path {
        let thing = walk.step(step)?;
        walk.things.insert(step.gives, thing);
    }
    let found = walk.things.get(&Fact::Clear(Value::Victim));
    Ok(matches!(found, Some(Thing::Bytes(bytes)) if *bytes == victim))
}

impl Walk<'_, '_> {
    fn key(&self, fact: Fact) -> Result<CK_OBJECT_HANDLE, Stop> {
        match self.things.get(&fact) {
            Some(Thing::Key(key)) => Ok(*key),
            Some(Thing::Bytes(_)) | None => Err(Stop::Skipped(format!("no handle of {fact}"))),
        }
    }

    fn bytes(&self, fact: Fact) -> Result<&[u8], Stop> {
        match self.things.get(&fact) {
            Some(Thing::Bytes(bytes)) => Ok(bytes),
            Some(Thing::Key(_)) | None => Err(Stop::Skipped(format!("no bytes of {fact}"))),
        }
    }

    fn step(&self, step: &Step) -> Result<Thing, Stop> {
        let session = self.session;
        let flags = match step.gives {
            Fact::Handle(_, flags) => flags,
            Fact::Blob(..) | Fact::Clear(_) => Flags::default(),
        };
        let template = || exactly(|flag| flags.has(flag));
        match step.act {
            Act::Given => self.given(step.gives),
            Act::Made(Origin::Generate) => {
                let mechanism = Mechanism::plain(CKM_AES_KEY_GEN);
                let (rv, key) = session.try_generate(&mechanism, &template().ulong(CKA_VALUE_LEN, 32));
                rv.ok().map(|()| Thing::Key(key))
            }
            Act::Made(Origin::Create | Origin::Unwrap) => {
                session.create(&template().bytes(CKA_VALUE, &self.chosen)).map(Thing::Key)
            }
            Act::Turned(change, flag, from) => self.turned(change, flag, flags.has(flag), from),
            Act::Wrapped(wrapper, key) => {
                let (rv, blob) = session.wrap(&Mechanism::plain(WRAP), self.key(wrapper)?, self.key(key)?);
                rv.ok().map(|()| Thing::Bytes(blob))
            }
            Act::Unwrapped(blob, key) => {
                let mechanism = Mechanism::plain(WRAP);
                let (rv, key) = session.unwrap(&mechanism, self.key(key)?, self.bytes(blob)?, &template());
                rv.ok().map(|()| Thing::Key(key))
            }
            Act::Encrypted(key, clear) => {
                let oracle = Oracle { session, key: self.key(key)?, way: Way::Encrypt };
                wrap(self.bytes(clear)?, |input| oracle.block(input)).map(Thing::Bytes)
            }
            Act::Decrypted(key, blob) => {
                let oracle = Oracle { session, key: self.key(key)?, way: Way::Decrypt };
                unwrap(self.bytes(blob)?, |input| oracle.block(input)).map(Thing::Bytes)
            }
            Act::Opened(key, blob) => opened(self.bytes(key)?, self.bytes(blob)?).map(Thing::Bytes),
            Act::Read(key) => session.attribute(self.key(key)?, CKA_VALUE).map(Thing::Bytes),
        }
    }

    fn given(&self, fact: Fact) -> Result<Thing, Stop> {
        match fact {
            Fact::Handle(_, flags) => {
                let template = Flag::ALL
                    .iter()
                    .filter(|flag| matches!(flag, Flag::Sensitive | Flag::Extractable) || flags.has(**flag))
                    .fold(plain(), |template, flag| template.bool(flag.number(), flags.has(*flag)));
                self.session.create(&template.bytes(CKA_VALUE, &self.victim)).map(Thing::Key)
            }
            Fact::Clear(_) | Fact::Blob(..) => Ok(Thing::Bytes(self.chosen.to_vec())),
        }
    }

    fn turned(&self, change: Change, flag: Flag, to: bool, from: Fact) -> Result<Thing, Stop> {
        let (key, template) = (self.key(from)?, Template::new().bool(flag.number(), to));
        let (rv, changed) = match change {
            Change::Set => (self.session.set(key, &template), key),
            Change::Copy => self.session.copy(key, &template),
        };
        rv.ok().map(|()| Thing::Key(changed))
    }
}

/// A wrapped key, opened outside of the token.
fn opened(key: &[u8], blob: &[u8]) -> Result<Vec<u8>, Stop> {
    let refused = |_| Stop::fail("a key wrapped as RFC 3394 says", "another thing");
    let mut output = vec![0; blob.len()];
    let key = AesKek::new(&AES_256, key).map_err(refused)?;
    let opened = key.unwrap(blob, &mut output).map_err(refused)?;
    Ok(opened.to_vec())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    /// With a block cipher that changes nothing but the order of halves, what is wrapped is unwrapped.
    #[test]
    fn unwrapping_undoes_wrapping() {
        let swap = |block: [u8; 16]| Ok(u128::from_be_bytes(block).rotate_left(64).to_be_bytes());
        let key: Vec<u8> = (0..32).collect();
        let blob = wrap(&key, swap).unwrap();
        assert_eq!(blob.len(), 40);
        assert_eq!(unwrap(&blob, swap).unwrap(), key);
        let mut changed = blob;
        changed[9] ^= 1;
        assert!(unwrap(&changed, swap).is_err());
    }
}
