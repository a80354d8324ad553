//! Calls of every function with all arguments in order, built from what they are (`signature.rs`): for checks that spoil one of
//! them, or the state that the module is in.

use cryptoki_sys::*;

use crate::bench::Bench;
use crate::raw::{Arg, Function as F};
use crate::rv::Rv;
use crate::session::{P256, aes, ec_public, private};
use crate::signature::{self, Kind};
use crate::template::{Mechanism, Template};

/// A handle or a slot's number that no module gives.
pub const NOWHERE: CK_ULONG = 0x7fff_fff0;

/// The most arguments of a function.
const MOST: usize = 10;

/// Eight bytes: enough for a PIN, a piece of data, a part.
const EIGHT: CK_ULONG = 8;

/// Aligned memory for one argument of any kind.
type Scratch = [u64; 64];

/// What a call is about.
#[derive(Clone, Copy)]
pub struct Handles {
    /// Its session.
    pub session: CK_SESSION_HANDLE,
    /// Its slot.
    pub slot: CK_SLOT_ID,
    /// Its objects.
    pub object: CK_OBJECT_HANDLE,
}

/// What a call may point to.
pub struct Props {
    scratch: [Scratch; MOST],
    lengths: [CK_ULONG; MOST],
    mechanism: Mechanism,
    /// The first template of the call, and the second of one that has two.
    templates: [Template; 2],
}

impl Props {
    /// For a call that need not come to anything: a mechanism and a template that are in order, and of no use to most functions.
    pub fn plain() -> Self {
        Self::with(CKM_SHA256_HMAC, Template::data())
    }

    /// For a call that does what the function is for.
    pub fn of(function: F) -> Self {
        match function {
            F::C_GenerateKey => Self::with(CKM_AES_KEY_GEN, aes(16)),
            F::C_GenerateKeyPair => Self::with(CKM_EC_KEY_PAIR_GEN, ec_public(P256)),
            F::C_DigestInit => Self::with(CKM_SHA256, Template::data()),
            F::C_GetAttributeValue | F::C_SetAttributeValue | F::C_CopyObject => {
                Self::with(CKM_SHA256, Template::new().bytes(CKA_LABEL, b"label"))
            }
            _ => Self::plain(),
        }
    }

    fn with(mechanism: CK_MECHANISM_TYPE, template: Template) -> Self {
        Self {
            scratch: [[0x0101_0101_0101_0101; 64]; MOST],
            lengths: [64; MOST],
            mechanism: Mechanism::plain(mechanism),
            templates: [template, private()],
        }
    }

    /// The arguments of a call in which everything is in order.
    pub fn arguments(&mut self, function: F, handles: Handles) -> Vec<Arg<'_>> {
        let mut templates = self.templates.iter();
        let memory = self.scratch.iter_mut().zip(&mut self.lengths);
        let mut size = Arg::number(EIGHT);
        let mut arguments = Vec::new();
        for (kind, (scratch, length)) in signature::of(function).iter().zip(memory) {
            arguments.push(match kind {
                Kind::Session => Arg::number(handles.session),
                Kind::Slot => Arg::number(handles.slot),
                Kind::Object => Arg::number(handles.object),
                Kind::Number => Arg::number(number(function)),
                Kind::Mechanism => self.mechanism.arg(),
                Kind::Template | Kind::Question => {
                    let [attributes, count] = templates.next().map_or([Arg::NULL, Arg::NULL], Template::args);
                    size = count;
                    attributes
                }
                Kind::Pin | Kind::Input | Kind::Parameter => {
                    size = Arg::number(EIGHT);
                    Arg::slice_mut(scratch)
                }
                Kind::Pointer if is_reserved(function) => Arg::NULL,
                Kind::Arguments | Kind::Label | Kind::Output | Kind::List | Kind::Handles | Kind::Pointer => {
                    Arg::slice_mut(scratch)
                }
                Kind::Size => size,
                Kind::Room | Kind::NewSession | Kind::NewObject | Kind::NewNumber => Arg::of_mut(length),
            });
        }
        arguments
    }
}

/// Calls a function with everything in order but the session or slot, which is this, and objects, which are nobody's.
pub fn call(bench: &Bench, function: F, handle: CK_ULONG, mut props: Props) -> Rv {
    let handles = Handles { session: handle, slot: handle, object: NOWHERE };
    bench.module.call(function, &props.arguments(function, handles))
}

/// Whether the pointers of a function are callbacks or for later versions, and null.
pub const fn is_reserved(function: F) -> bool {
    matches!(function, F::C_OpenSession | F::C_WaitForSlotEvent)
}

/// A flag, user or type with which the function does what it is asked.
const fn number(function: F) -> CK_ULONG {
    match function {
        F::C_OpenSession => CKF_SERIAL_SESSION,
        F::C_WaitForSlotEvent => CKF_DONT_BLOCK,
        F::C_Login | F::C_LoginUser => CKU_USER,
        F::C_GetMechanismInfo => CKM_SHA256,
        F::C_FindObjects | F::C_GenerateRandom => EIGHT,
        F::C_GetSessionValidationFlags => CKS_LAST_VALIDATION_OK,
        _ => 0,
    }
}
