//! A null pointer for each pointer argument of each function, with everything else in order.
//!
//! `ROWS` says what the arguments of every function are, so that a call with all of them in order can be built
//! and then spoilt in one place.

use cryptoki_sys::*;

use crate::bench::{Bench, Stage};
use crate::check::{Check, Stop, Verdict};
use crate::marks::Severity;
use crate::raw::{Arg, Function as F};
use crate::rv::Rv;
use crate::session::{P256, Session, aes, ec_public, private};
use crate::signature;
use crate::template::{Mechanism, Template};

/// An argument of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The session.
    Session,
    /// The token's slot.
    Slot,
    /// A number that does no harm: a flag, a handle of nothing, a length.
    Number(CK_ULONG),
    /// Memory that is read or written; null is an error.
    Memory,
    /// Memory that is written; null asks for the length.
    Output,
    /// A callback or a reserved argument, which is null.
    Reserved,
    /// Where a length or count is read and written; null is an error.
    Length,
    /// A `CK_MECHANISM`. Since 3.0 null cancels an operation; for the making of keys it is an error.
    Mechanism,
    /// A template of one attribute or more, followed by its count.
    Template,
}
use Kind::*;

/// A function and its arguments.
pub struct Row {
    /// The function.
    pub function: F,
    /// Its check is `nulls.` and this.
    pub id: &'static str,
    /// Its arguments, in order.
    pub arguments: &'static [Kind],
}

macro_rules! rows {
    ($( $function:ident $id:literal [ $( $argument:expr ),* ]; )*) => {
        /// Every function that takes more than a session.
        pub const ROWS: &[Row] =
            &[ $( Row { function: F::$function, id: $id, arguments: &[ $( $argument ),* ] }, )* ];
    };
}

/// Eight bytes: enough for a PIN, a piece of data, a part.
const EIGHT: Kind = Number(8);

rows! {
    C_GetSlotList "slot-list" [Number(0), Output, Length];
    C_GetSlotInfo "slot-info" [Slot, Memory];
    C_GetTokenInfo "token-info" [Slot, Memory];
    C_GetMechanismList "mechanism-list" [Slot, Output, Length];
    C_GetMechanismInfo "mechanism-info" [Slot, Number(CKM_SHA256), Memory];
    C_InitToken "init-token" [Slot, Memory, EIGHT, Memory];
    C_InitPIN "init-pin" [Session, Memory, EIGHT];
    C_SetPIN "set-pin" [Session, Memory, EIGHT, Memory, EIGHT];
    C_OpenSession "open-session" [Slot, Number(CKF_SERIAL_SESSION), Reserved, Reserved, Length];
    C_GetSessionInfo "session-info" [Session, Memory];
    C_GetOperationState "operation-state" [Session, Output, Length];
    C_SetOperationState "set-operation-state" [Session, Memory, EIGHT, Number(0), Number(0)];
    C_Login "login" [Session, Number(CKU_USER), Memory, EIGHT];
    C_CreateObject "create-object" [Session, Template, Number(4), Length];
    C_CopyObject "copy-object" [Session, Number(0), Template, Number(4), Length];
    C_GetObjectSize "object-size" [Session, Number(0), Length];
    C_GetAttributeValue "get-attribute" [Session, Number(0), Template, Number(4)];
    C_SetAttributeValue "set-attribute" [Session, Number(0), Template, Number(4)];
    C_FindObjectsInit "find-init" [Session, Template, Number(4)];
    C_FindObjects "find" [Session, Memory, EIGHT, Length];
    C_EncryptInit "encrypt-init" [Session, Mechanism, Number(0)];
    C_Encrypt "encrypt" [Session, Memory, EIGHT, Output, Length];
    C_EncryptUpdate "encrypt-update" [Session, Memory, EIGHT, Output, Length];
    C_EncryptFinal "encrypt-final" [Session, Output, Length];
    C_DecryptInit "decrypt-init" [Session, Mechanism, Number(0)];
    C_Decrypt "decrypt" [Session, Memory, EIGHT, Output, Length];
    C_DecryptUpdate "decrypt-update" [Session, Memory, EIGHT, Output, Length];
    C_DecryptFinal "decrypt-final" [Session, Output, Length];
    C_DigestInit "digest-init" [Session, Mechanism];
    C_Digest "digest" [Session, Memory, EIGHT, Output, Length];
    C_DigestUpdate "digest-update" [Session, Memory, EIGHT];
    C_DigestFinal "digest-final" [Session, Output, Length];
    C_SignInit "sign-init" [Session, Mechanism, Number(0)];
    C_Sign "sign" [Session, Memory, EIGHT, Output, Length];
    C_SignUpdate "sign-update" [Session, Memory, EIGHT];
    C_SignFinal "sign-final" [Session, Output, Length];
    C_SignRecoverInit "sign-recover-init" [Session, Mechanism, Number(0)];
    C_SignRecover "sign-recover" [Session, Memory, EIGHT, Output, Length];
    C_VerifyInit "verify-init" [Session, Mechanism, Number(0)];
    C_Verify "verify" [Session, Memory, EIGHT, Memory, EIGHT];
    C_VerifyUpdate "verify-update" [Session, Memory, EIGHT];
    C_VerifyFinal "verify-final" [Session, Memory, EIGHT];
    C_VerifyRecoverInit "verify-recover-init" [Session, Mechanism, Number(0)];
    C_VerifyRecover "verify-recover" [Session, Memory, EIGHT, Output, Length];
    C_DigestEncryptUpdate "digest-encrypt" [Session, Memory, EIGHT, Output, Length];
    C_DecryptDigestUpdate "decrypt-digest" [Session, Memory, EIGHT, Output, Length];
    C_SignEncryptUpdate "sign-encrypt" [Session, Memory, EIGHT, Output, Length];
    C_DecryptVerifyUpdate "decrypt-verify" [Session, Memory, EIGHT, Output, Length];
    C_GenerateKey "generate-key" [Session, Mechanism, Template, Number(4), Length];
    C_GenerateKeyPair "generate-key-pair" [Session, Mechanism, Template, Number(4), Template, Number(4), Length, Length];
    C_WrapKey "wrap-key" [Session, Mechanism, Number(0), Number(0), Output, Length];
    C_UnwrapKey "unwrap-key" [Session, Mechanism, Number(0), Memory, EIGHT, Template, Number(4), Length];
    C_DeriveKey "derive-key" [Session, Mechanism, Number(0), Template, Number(4), Length];
    C_SeedRandom "seed-random" [Session, Memory, EIGHT];
    C_GenerateRandom "generate-random" [Session, Memory, EIGHT];
    C_WaitForSlotEvent "wait-for-slot-event" [Number(CKF_DONT_BLOCK), Length, Reserved];
    C_LoginUser "login-user" [Session, Number(CKU_USER), Memory, EIGHT, Memory, EIGHT];
    C_MessageEncryptInit "message-encrypt-init" [Session, Mechanism, Number(0)];
    C_EncryptMessage "encrypt-message" [Session, Memory, EIGHT, Output, Number(0), Memory, EIGHT, Output, Length];
    C_MessageDecryptInit "message-decrypt-init" [Session, Mechanism, Number(0)];
    C_DecryptMessage "decrypt-message" [Session, Memory, EIGHT, Output, Number(0), Memory, EIGHT, Output, Length];
    C_MessageSignInit "message-sign-init" [Session, Mechanism, Number(0)];
    C_SignMessage "sign-message" [Session, Memory, EIGHT, Memory, EIGHT, Output, Length];
    C_MessageVerifyInit "message-verify-init" [Session, Mechanism, Number(0)];
    C_VerifyMessage "verify-message" [Session, Memory, EIGHT, Memory, EIGHT, Memory, EIGHT];
    C_EncapsulateKey "encapsulate-key" [Session, Mechanism, Number(0), Template, Number(4), Output, Length, Length];
    C_DecapsulateKey "decapsulate-key" [Session, Mechanism, Number(0), Template, Number(4), Memory, EIGHT, Length];
    C_VerifySignatureInit "verify-signature-init" [Session, Mechanism, Number(0), Memory, EIGHT];
    C_VerifySignature "verify-signature" [Session, Memory, EIGHT];
    C_VerifySignatureUpdate "verify-signature-update" [Session, Memory, EIGHT];
    C_GetSessionValidationFlags "session-validation-flags" [Session, Number(CKS_LAST_VALIDATION_OK), Length];
    C_WrapKeyAuthenticated "wrap-key-authenticated" [Session, Mechanism, Number(0), Number(0), Memory, EIGHT, Output, Length];
    C_UnwrapKeyAuthenticated "unwrap-key-authenticated" [Session, Mechanism, Number(0), Memory, EIGHT, Template, Number(4), Memory, EIGHT, Length];
}

/// The checks of this chapter: one for each function.
pub fn checks() -> Vec<Check> {
    ROWS.iter().filter(|row| row.function != F::C_InitToken).map(check).collect()
}

/// The check after all others: a module that fails it has lost its token.
pub fn last() -> Vec<Check> {
    ROWS.iter().filter(|row| row.function == F::C_InitToken).map(check).collect()
}

fn check(row: &'static Row) -> Check {
    let (name, function) = (row.function.name(), row.function);
    let clause = format!("5.1.6 CKR_ARGUMENTS_BAD; {name}");
    let title = format!("{name} refuses a null pointer where it needs one");
    let made = Check::case(format!("nulls.{}", row.id), stage(function), clause, title, move |bench| {
        refuses_nulls(bench, function)
    });
    if signature::takes_a_pin(function) { made.arguments().pins() } else { made.arguments() }
}

/// Functions about slots need no token to refuse a null; a login needs that nobody is logged in.
const fn stage(function: F) -> Stage {
    match function {
        F::C_GetSlotList | F::C_WaitForSlotEvent => Stage::Initialized,
        F::C_GetSlotInfo | F::C_GetTokenInfo | F::C_GetMechanismList | F::C_GetMechanismInfo => Stage::Token,
        F::C_InitToken | F::C_OpenSession | F::C_Login | F::C_LoginUser => Stage::Public,
        _ => Stage::User,
    }
}

/// Aligned memory for one argument of any kind.
type Scratch = [u64; 64];

/// What a call may point to.
struct Props {
    scratch: [Scratch; 10],
    lengths: [CK_ULONG; 10],
    mechanism: Mechanism,
    template: Template,
    private: Template,
}

impl Props {
    fn of(function: F) -> Self {
        let (mechanism, template) = match function {
            F::C_GenerateKey => (CKM_AES_KEY_GEN, aes(16)),
            F::C_GenerateKeyPair => (CKM_EC_KEY_PAIR_GEN, ec_public(P256)),
            F::C_DigestInit => (CKM_SHA256, Template::data()),
            F::C_GetAttributeValue | F::C_SetAttributeValue | F::C_CopyObject => {
                (CKM_SHA256, Template::new().bytes(CKA_LABEL, b"label"))
            }
            _ => (CKM_SHA256_HMAC, Template::data()),
        };
        Self {
            scratch: [[0x0101_0101_0101_0101; 64]; 10],
            lengths: [64; 10],
            mechanism: Mechanism::plain(mechanism),
            template,
            private: private(),
        }
    }

    /// The arguments of a call in which everything is in order.
    fn arguments(&mut self, row: &Row, session: CK_ULONG, slot: CK_ULONG, object: CK_ULONG) -> Vec<Arg<'_>> {
        let mut templates = [&self.template, &self.private].into_iter();
        let mut count = None;
        let memory = self.scratch.iter_mut().zip(&mut self.lengths);
        let kinds = row.arguments.iter().zip(memory);
        let mut arguments = Vec::new();
        for (kind, (scratch, length)) in kinds {
            arguments.push(match kind {
                Session => Arg::number(session),
                Slot => Arg::number(slot),
                Number(_) if count.is_some() => count.take().unwrap_or(Arg::NULL),
                Number(0) if object != 0 => Arg::number(object),
                Number(number) => Arg::number(*number),
                Memory | Output => Arg::slice_mut(scratch),
                Reserved => Arg::NULL,
                Length => Arg::of_mut(length),
                Mechanism => self.mechanism.arg(),
                Template => {
                    let [attributes, number] = templates.next().unwrap_or(&self.template).args();
                    count = Some(number);
                    attributes
                }
            });
        }
        arguments
    }
}

/// Calls a function with every argument in order but for the handles, which are these.
pub fn honest(bench: &Bench, row: &Row, handle: CK_ULONG) -> Rv {
    let mut props = Props::of(row.function);
    let arguments = props.arguments(row, handle, handle, 0);
    bench.module.call(row.function, &arguments)
}

/// What a function answers to a null: that, or that it does not exist, or that its operation was not begun.
const REFUSALS: &[CK_RV] = &[CKR_ARGUMENTS_BAD, CKR_FUNCTION_NOT_SUPPORTED, CKR_OPERATION_NOT_INITIALIZED];

fn allowed(function: F, kind: Kind) -> Vec<CK_RV> {
    let more: &[CK_RV] = match (function, kind) {
        // Since 3.0, "pMechanism NULL_PTR terminates an active operation".
        (F::C_GenerateKey | F::C_GenerateKeyPair | F::C_WrapKey | F::C_UnwrapKey | F::C_DeriveKey, _) => {
            &[CKR_MECHANISM_INVALID, CKR_MECHANISM_PARAM_INVALID, CKR_KEY_HANDLE_INVALID]
        }
        // "If more than one error code applies, any of them may be returned" (5.1.8): the calls name the key 0.
        (_, Mechanism) => {
            &[CKR_OK, CKR_OPERATION_CANCEL_FAILED, CKR_MECHANISM_INVALID, CKR_KEY_HANDLE_INVALID]
        }
        (F::C_VerifySignatureInit | F::C_EncapsulateKey | F::C_DecapsulateKey, _) => {
            &[CKR_MECHANISM_INVALID, CKR_KEY_HANDLE_INVALID]
        }
        (F::C_WrapKeyAuthenticated | F::C_UnwrapKeyAuthenticated, _) => {
            &[CKR_MECHANISM_INVALID, CKR_KEY_HANDLE_INVALID]
        }
        (F::C_GetMechanismInfo, _) => &[CKR_MECHANISM_INVALID],
        (F::C_Login | F::C_LoginUser, _) => &[CKR_USER_TYPE_INVALID, CKR_USER_PIN_NOT_INITIALIZED],
        (F::C_InitToken, _) => {
            &[CKR_SESSION_EXISTS, CKR_PIN_INCORRECT, CKR_PIN_INVALID, CKR_PIN_LEN_RANGE, CKR_PIN_TOO_WEAK]
        }
        (F::C_InitPIN, _) => &[CKR_USER_NOT_LOGGED_IN],
        (F::C_SeedRandom, _) => &[CKR_RANDOM_SEED_NOT_SUPPORTED, CKR_RANDOM_NO_RNG],
        (F::C_GenerateRandom, _) => &[CKR_RANDOM_NO_RNG],
        (F::C_SetOperationState, _) => &[CKR_SAVED_STATE_INVALID],
        (F::C_WaitForSlotEvent, _) => &[CKR_NO_EVENT],
        _ => &[],
    };
    [REFUSALS, more].concat()
}

/// Begins the operation that a function goes on with, so that a null meets a function that is at work.
fn begin(session: &Session<'_>, function: F) -> Result<(), Stop> {
    let hmac = Mechanism::plain(CKM_SHA256_HMAC);
    let aes = Mechanism::ctr(128, [7; 16]);
    let begun = match function {
        F::C_Digest | F::C_DigestUpdate | F::C_DigestFinal => {
            session.bench.offers(CKM_SHA256, CKF_DIGEST)?;
            session.init(F::C_DigestInit, &Mechanism::plain(CKM_SHA256), None)
        }
        F::C_Sign | F::C_SignUpdate | F::C_SignFinal => {
            session.init(F::C_SignInit, &hmac, Some(session.hmac_key()?))
        }
        F::C_Verify | F::C_VerifyUpdate | F::C_VerifyFinal => {
            session.init(F::C_VerifyInit, &hmac, Some(session.hmac_key()?))
        }
        F::C_Encrypt | F::C_EncryptUpdate | F::C_EncryptFinal => {
            session.init(F::C_EncryptInit, &aes, Some(session.aes()?))
        }
        F::C_Decrypt | F::C_DecryptUpdate | F::C_DecryptFinal => {
            session.init(F::C_DecryptInit, &aes, Some(session.aes()?))
        }
        F::C_FindObjects => session.find_init(&Template::data()),
        _ => return Ok(()),
    };
    begun.ok()
}

/// The object that a function is about.
fn subject(session: &Session<'_>, function: F) -> Result<CK_OBJECT_HANDLE, Stop> {
    match function {
        F::C_CopyObject | F::C_GetObjectSize | F::C_GetAttributeValue | F::C_SetAttributeValue => {
            session.create(&Template::data())
        }
        _ => Ok(0),
    }
}

/// Behind a call that cost a try comes the right PIN, and behind one that set the PIN, the PIN.
fn make_good(bench: &Bench, function: F, rv: Rv) -> Verdict {
    match function {
        F::C_Login | F::C_LoginUser => {
            if rv.was(CKR_OK) {
                bench.session()?.logout().ok()?;
            }
            bench.forget_tries()
        }
        F::C_SetPIN if rv.was(CKR_OK) => bench.set_back(&bench.session()?, &[&[1; 8], b""]),
        F::C_InitToken => bench.forget_tries(),
        _ => Ok(()),
    }
}

fn refuses_nulls(bench: &Bench, function: F) -> Verdict {
    let Some(row) = ROWS.iter().find(|row| row.function == function) else { return Err(Stop::NotOffered) };
    let sessionless = stage(function) <= Stage::Token;
    let slot = bench.slot().unwrap_or(0);
    let mut wrong = Vec::new();
    for (position, kind) in row.arguments.iter().enumerate() {
        if !matches!(kind, Memory | Length | Mechanism | Template) {
            continue;
        }
        let mut props = Props::of(function);
        let mut arguments = if sessionless {
            props.arguments(row, 0, slot, 0)
        } else {
            let session = bench.session()?;
            begin(&session, function)?;
            props.arguments(row, session.handle, slot, subject(&session, function)?)
        };
        if let Some(argument) = arguments.get_mut(position) {
            *argument = Arg::NULL;
        }
        let rv = bench.module.call(function, &arguments);
        make_good(bench, function, rv)?;
        if !allowed(function, *kind).contains(&rv.code) {
            wrong.push((position + 1, rv));
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let seen: Vec<_> = wrong.iter().map(|(number, rv)| format!("argument {number}: {rv}")).collect();
    let expected = "CKR_ARGUMENTS_BAD";
    Err(match wrong.iter().any(|(_, rv)| rv.was(CKR_OK)) {
        true => Stop::fail(expected, seen.join(", ")),
        false => Stop::at_most(Severity::Low, expected, seen.join(", ")),
    })
}
