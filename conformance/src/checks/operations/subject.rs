//! What the state machine is tried on: one of the five kinds of operations, with its functions, mechanism and key.

use cryptoki_sys::*;

use crate::bench::Bench;
use crate::check::{Stop, Verdict, ensure};
use crate::raw::Function as F;
use crate::rv::Rv;
use crate::session::Session;
use crate::template::{Mechanism, Out, Template};

/// One of the five.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// 5.8.
    Encrypt,
    /// 5.10.
    Decrypt,
    /// 5.12.
    Digest,
    /// 5.13.
    Sign,
    /// 5.15.
    Verify,
}

/// What is encrypted, digested and signed: two blocks and a bit.
pub const TEXT: &[u8] = b"All happy families are alike; each";

impl Act {
    pub const fn functions(self) -> [F; 4] {
        match self {
            Self::Encrypt => [F::C_EncryptInit, F::C_Encrypt, F::C_EncryptUpdate, F::C_EncryptFinal],
            Self::Decrypt => [F::C_DecryptInit, F::C_Decrypt, F::C_DecryptUpdate, F::C_DecryptFinal],
            Self::Digest => [F::C_DigestInit, F::C_Digest, F::C_DigestUpdate, F::C_DigestFinal],
            Self::Sign => [F::C_SignInit, F::C_Sign, F::C_SignUpdate, F::C_SignFinal],
            Self::Verify => [F::C_VerifyInit, F::C_Verify, F::C_VerifyUpdate, F::C_VerifyFinal],
        }
    }

    pub fn mechanism(self) -> Mechanism {
        match self {
            Self::Encrypt | Self::Decrypt => Mechanism::bytes(CKM_AES_CBC_PAD, &[7; 16]),
            Self::Digest => Mechanism::plain(CKM_SHA256),
            Self::Sign | Self::Verify => Mechanism::plain(CKM_SHA256_HMAC),
        }
    }

    pub const fn flag(self) -> CK_FLAGS {
        match self {
            Self::Encrypt => CKF_ENCRYPT,
            Self::Decrypt => CKF_DECRYPT,
            Self::Digest => CKF_DIGEST,
            Self::Sign => CKF_SIGN,
            Self::Verify => CKF_VERIFY,
        }
    }

    /// Whether a part gives output at once.
    pub const fn flows(self) -> bool {
        matches!(self, Self::Encrypt | Self::Decrypt)
    }

    /// A key, with these uses and no others.
    pub fn key_template(self, usages: &[CK_ATTRIBUTE_TYPE]) -> Template {
        let (key_type, value): (_, &[u8]) = match self {
            Self::Encrypt | Self::Decrypt => (CKK_AES, &[0x0b; 32]),
            Self::Digest | Self::Sign | Self::Verify => (CKK_GENERIC_SECRET, &[0x0b; 32]),
        };
        let mut template = Template::secret(key_type, value);
        for usage in [CKA_ENCRYPT, CKA_DECRYPT, CKA_SIGN, CKA_VERIFY] {
            template = template.bool(usage, usages.contains(&usage));
        }
        template
    }
}

/// An operation to try things on: session, key, input, and the result that is to come out (or, for a verification,
/// to go in).
pub struct Subject<'b> {
    pub act: Act,
    pub session: Session<'b>,
    pub key: Option<CK_OBJECT_HANDLE>,
    pub input: Vec<u8>,
    pub result: Vec<u8>,
}

impl<'b> Subject<'b> {
    pub fn new(bench: &'b Bench, act: Act) -> Result<Self, Stop> {
        bench.offers(act.mechanism().number(), act.flag())?;
        let session = bench.session()?;
        let usages = [CKA_ENCRYPT, CKA_DECRYPT, CKA_SIGN, CKA_VERIFY];
        let key = match act {
            Act::Digest => None,
            Act::Encrypt | Act::Decrypt => {
                Some(session.create(&act.key_template(usages.get(..2).unwrap_or_default()))?)
            }
            Act::Sign | Act::Verify => {
                Some(session.create(&act.key_template(usages.get(2..).unwrap_or_default()))?)
            }
        };
        let forward = match act {
            Act::Encrypt | Act::Decrypt => Act::Encrypt,
            Act::Digest => Act::Digest,
            Act::Sign | Act::Verify => Act::Sign,
        };
        let [init, single, ..] = forward.functions();
        session.init(init, &act.mechanism(), key).ok()?;
        let mut out = Out::room(128);
        session.run(single, TEXT, &mut out).ok()?;
        let made = out.bytes().to_vec();
        let (input, result) = match act {
            Act::Decrypt => (made, TEXT.to_vec()),
            Act::Encrypt | Act::Digest | Act::Sign | Act::Verify => (TEXT.to_vec(), made),
        };
        Ok(Self { act, session, key, input, result })
    }

    pub fn begin(&self) -> Rv {
        self.session.init(self.act.functions()[0], &self.act.mechanism(), self.key)
    }

    /// The whole in one call.
    pub fn single(&self, out: &mut Out) -> Rv {
        match self.act {
            Act::Verify => self.session.verify(&self.input, &self.result),
            _ => self.session.run(self.act.functions()[1], &self.input, out),
        }
    }

    /// A part, whose output is added to what came before.
    pub fn part(&self, input: &[u8], output: &mut Vec<u8>) -> Rv {
        let update = self.act.functions()[2];
        if !self.act.flows() {
            return self.session.feed(update, input);
        }
        let mut out = Out::room(input.len() + 64);
        let rv = self.session.run(update, input, &mut out);
        if rv.was(CKR_OK) {
            output.extend_from_slice(out.bytes());
        }
        rv
    }

    /// The end of an operation in parts.
    pub fn last(&self, out: &mut Out) -> Rv {
        let last = self.act.functions()[3];
        match self.act {
            Act::Verify => self.session.feed(last, &self.result),
            _ => self.session.finish(last, out),
        }
    }

    /// Whether an operation goes on can only be seen by going on.
    pub fn is_over(&self) -> Verdict {
        self.part(b"more", &mut Vec::new()).is(CKR_OPERATION_NOT_INITIALIZED)
    }

    pub fn gives(&self, output: &[u8]) -> Verdict {
        let good = self.act == Act::Verify || output == self.result;
        ensure(good, format!("{:02x?}", self.result), format!("{output:02x?}"))
    }
}
