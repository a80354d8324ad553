//! Functions of 3.0 and 3.2 that neither SoftHSM2 nor NSS has, in front of the mutant's own honest ones.

use cryptoki_sys::*;

use super::faults;
use crate::call::{Call, Memo, held};

faults! {
    behind Newer;
    "login-user-any-pin" [C_LoginUser] |call| call.instead_of(&[CKR_PIN_INCORRECT], CKR_OK), "5.6.9 C_LoginUser", "a wrong PIN is answered with CKR_OK", ["login.named-wrong"];
    "login-user-general" [C_LoginUser] |call| call.instead_of(&[CKR_PIN_INCORRECT, CKR_USER_ALREADY_LOGGED_IN], CKR_GENERAL_ERROR), "5.6.9 C_LoginUser", "why nobody is logged in is not said", ["login.named-wrong" "login.named-twice"];
    "login-user-does-nothing" [C_LoginUser] |_| CKR_OK, "5.6.9 C_LoginUser", "C_LoginUser only says that it is done", ["login.named" "login.named-twice" "functions.C_LoginUser-unknown-session"];
    "validation-flags-any-session" [C_GetSessionValidationFlags] |call| call.instead_of(&[CKR_SESSION_HANDLE_INVALID, CKR_SESSION_CLOSED], CKR_OK), "5.6 C_GetSessionValidationFlags (3.2)", "a session that is not there has flags", ["functions.C_GetSessionValidationFlags-unknown-session" "functions.C_GetSessionValidationFlags-closed-session"];
    "validation-flags-null" [C_GetSessionValidationFlags] |call| call.instead_of(&[CKR_ARGUMENTS_BAD], CKR_OK), "5.1.6 CKR_ARGUMENTS_BAD", "flags are given to nobody", ["nulls.session-validation-flags"];
    "validation-flags-general" [C_GetSessionValidationFlags] |_| CKR_GENERAL_ERROR, "5.6 C_GetSessionValidationFlags (3.2)", "the flags of a session are CKR_GENERAL_ERROR", ["sessions.validation-flags"];
    "signature-first-any" [C_VerifySignature C_VerifySignatureFinal] |call| call.instead_of(&[CKR_SIGNATURE_INVALID], CKR_OK), "5.16 C_VerifySignature (3.2)", "a signature that was given first verifies whatever it is", ["verify-signature.forged" "verify-signature.parts"];
    "signature-first-any-length" [C_VerifySignatureInit] |call| call.with(&[(4, call.word(4).min(32))]), "5.16 C_VerifySignatureInit (3.2)", "what stands behind a signature that was given first is passed over", ["verify-signature.length"];
    "signature-first-goes-on" [C_VerifySignature] goes_on, "5.16 C_VerifySignature (3.2)", "a verification is not over when it was made", ["verify-signature.over"];
    "signature-first-parts-lost" [C_VerifySignatureUpdate] |call| if call.word(2) == 0 { call.forward() } else { CKR_OK }, "5.16 C_VerifySignatureUpdate (3.2)", "the parts of a message are not looked at", ["verify-signature.parts"];
    "signature-first-not-begun" [C_VerifySignature C_VerifySignatureUpdate C_VerifySignatureFinal] |call| call.instead_of(&[CKR_OPERATION_NOT_INITIALIZED], CKR_OK), "5.16 C_VerifySignature (3.2)", "a verification that was not begun succeeds", ["verify-signature.over" "functions.C_VerifySignature-not-begun" "functions.C_VerifySignatureUpdate-not-begun" "functions.C_VerifySignatureFinal-not-begun"];
    "signature-first-refused" [C_VerifySignatureInit] |_| CKR_MECHANISM_INVALID, "5.16 C_VerifySignatureInit (3.2)", "a mechanism that verifies does not verify a signature given first", ["verify-signature.round-trip"];
}

/// The next verification answers as this one did.
fn goes_on(call: &Call<'_>) -> CK_RV {
    static LAST: Memo<Option<CK_RV>> = Memo::new(None);
    let mut last = held(&LAST);
    match (call.forward(), *last) {
        (CKR_OPERATION_NOT_INITIALIZED, Some(rv)) => rv,
        (rv, _) => {
            *last = Some(rv);
            rv
        }
    }
}
