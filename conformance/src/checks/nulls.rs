//! A null pointer for each pointer argument of each function, with everything else in order.

use cryptoki_sys::*;

use crate::bench::{Bench, Stage};
use crate::check::{Check, Stop, Verdict};
use crate::marks::Severity;
use crate::raw::{Arg, Function as F};
use crate::rv::Rv;
use crate::session::Session;
use crate::signature::{self, Kind};
use crate::template::{Mechanism, Template};
use crate::well_formed::{Handles, Props, is_reserved};

/// A function whose pointers are spoilt.
pub struct Row {
    /// The function.
    pub function: F,
    /// Its check is `nulls.` and this.
    pub id: &'static str,
}

macro_rules! rows {
    ($( $function:ident $id:literal; )*) => {
        /// Every function that takes more than a session.
        pub const ROWS: &[Row] = &[ $( Row { function: F::$function, id: $id }, )* ];
    };
}

rows! {
    C_GetSlotList "slot-list";
    C_GetSlotInfo "slot-info";
    C_GetTokenInfo "token-info";
    C_GetMechanismList "mechanism-list";
    C_GetMechanismInfo "mechanism-info";
    C_InitToken "init-token";
    C_InitPIN "init-pin";
    C_SetPIN "set-pin";
    C_OpenSession "open-session";
    C_GetSessionInfo "session-info";
    C_GetOperationState "operation-state";
    C_SetOperationState "set-operation-state";
    C_Login "login";
    C_CreateObject "create-object";
    C_CopyObject "copy-object";
    C_GetObjectSize "object-size";
    C_GetAttributeValue "get-attribute";
    C_SetAttributeValue "set-attribute";
    C_FindObjectsInit "find-init";
    C_FindObjects "find";
    C_EncryptInit "encrypt-init";
    C_Encrypt "encrypt";
    C_EncryptUpdate "encrypt-update";
    C_EncryptFinal "encrypt-final";
    C_DecryptInit "decrypt-init";
    C_Decrypt "decrypt";
    C_DecryptUpdate "decrypt-update";
    C_DecryptFinal "decrypt-final";
    C_DigestInit "digest-init";
    C_Digest "digest";
    C_DigestUpdate "digest-update";
    C_DigestFinal "digest-final";
    C_SignInit "sign-init";
    C_Sign "sign";
    C_SignUpdate "sign-update";
    C_SignFinal "sign-final";
    C_SignRecoverInit "sign-recover-init";
    C_SignRecover "sign-recover";
    C_VerifyInit "verify-init";
    C_Verify "verify";
    C_VerifyUpdate "verify-update";
    C_VerifyFinal "verify-final";
    C_VerifyRecoverInit "verify-recover-init";
    C_VerifyRecover "verify-recover";
    C_DigestEncryptUpdate "digest-encrypt";
    C_DecryptDigestUpdate "decrypt-digest";
    C_SignEncryptUpdate "sign-encrypt";
    C_DecryptVerifyUpdate "decrypt-verify";
    C_GenerateKey "generate-key";
    C_GenerateKeyPair "generate-key-pair";
    C_WrapKey "wrap-key";
    C_UnwrapKey "unwrap-key";
    C_DeriveKey "derive-key";
    C_SeedRandom "seed-random";
    C_GenerateRandom "generate-random";
    C_WaitForSlotEvent "wait-for-slot-event";
    C_LoginUser "login-user";
    C_MessageEncryptInit "message-encrypt-init";
    C_EncryptMessage "encrypt-message";
    C_MessageDecryptInit "message-decrypt-init";
    C_DecryptMessage "decrypt-message";
    C_MessageSignInit "message-sign-init";
    C_SignMessage "sign-message";
    C_MessageVerifyInit "message-verify-init";
    C_VerifyMessage "verify-message";
    C_EncapsulateKey "encapsulate-key";
    C_DecapsulateKey "decapsulate-key";
    C_VerifySignatureInit "verify-signature-init";
    C_VerifySignature "verify-signature";
    C_VerifySignatureUpdate "verify-signature-update";
    C_GetSessionValidationFlags "session-validation-flags";
    C_WrapKeyAuthenticated "wrap-key-authenticated";
    C_UnwrapKeyAuthenticated "unwrap-key-authenticated";
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

/// Whether an argument is spoilt. A null for output asks for its length, and one for what is reserved is right.
fn may_not_be_null(function: F, kind: Kind) -> bool {
    match kind {
        Kind::Pin | Kind::Input | Kind::Parameter | Kind::Label | Kind::Handles | Kind::Arguments => true,
        Kind::Room | Kind::NewSession | Kind::NewObject | Kind::NewNumber => true,
        // Since 3.0 null cancels an operation; for the making of keys it is an error.
        Kind::Mechanism | Kind::Template | Kind::Question => true,
        Kind::Pointer => !is_reserved(function),
        Kind::Session | Kind::Slot | Kind::Object | Kind::Number | Kind::Size => false,
        Kind::Output | Kind::List => false,
    }
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
        (_, Kind::Mechanism) => {
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
    let sessionless = stage(function) <= Stage::Token;
    let slot = bench.slot().unwrap_or(0);
    let mut wrong = Vec::new();
    let kinds = signature::of(function).iter().enumerate();
    for (position, kind) in kinds.filter(|(_, kind)| may_not_be_null(function, **kind)) {
        let mut props = Props::of(function);
        let mut handles = Handles { session: 0, slot, object: 0 };
        if !sessionless {
            let session = bench.session()?;
            begin(&session, function)?;
            handles = Handles { session: session.handle, object: subject(&session, function)?, ..handles };
        }
        let mut arguments = props.arguments(function, handles);
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
