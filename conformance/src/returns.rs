//! The return values of every function, for the matrix of what was seen and the checks `functions.*-listed`.
//!
//! They are those of PKCS#11 3.2: the list that ends the section of each function (5.4 to 5.22), what 5.1.1 to 5.1.3 let every
//! function, every function in a session and every function of a token return, and what 5.1.6, the section itself or
//! that of a mechanism names although the list forgets it. That lists may forget a value is said in 5.1, so a value
//! that stands in none of these is a remark on a module, no breach.

use cryptoki_sys::*;

use crate::raw::Function;

/// Every function (5.1.1; and of 5.1.6 the one value that says only that arguments are not right).
const ANY: &[CK_RV] = &[
    CKR_OK,
    CKR_GENERAL_ERROR,
    CKR_HOST_MEMORY,
    CKR_FUNCTION_FAILED,
    CKR_OPERATION_NOT_VALIDATED,
    CKR_ARGUMENTS_BAD,
];

/// Every function but those that start the module (5.1.6).
const CALL: &[CK_RV] = &[CKR_CRYPTOKI_NOT_INITIALIZED];

/// A token in a slot (5.1.3).
const TOKEN: &[CK_RV] = &[
    CKR_DEVICE_ERROR,
    CKR_DEVICE_MEMORY,
    CKR_DEVICE_REMOVED,
    CKR_SLOT_ID_INVALID,
    CKR_TOKEN_NOT_INITIALIZED,
    CKR_TOKEN_NOT_PRESENT,
];

/// A session (5.1.2, and 5.1.3 but for what 5.1.7 rules out).
const SESSION: &[CK_RV] = &[
    CKR_DEVICE_ERROR,
    CKR_DEVICE_MEMORY,
    CKR_DEVICE_REMOVED,
    CKR_SESSION_CLOSED,
    CKR_SESSION_HANDLE_INVALID,
    CKR_TOKEN_NOT_INITIALIZED,
];

/// A session that is busy with something else.
const BUSY: &[CK_RV] = &[CKR_OPERATION_ACTIVE, CKR_PENDING];

/// Work that a callback may stop.
const STOP: &[CK_RV] = &[CKR_FUNCTION_CANCELED];

/// The beginning of an operation.
const BEGIN: &[CK_RV] = &[
    CKR_FUNCTION_CANCELED,
    CKR_MECHANISM_INVALID,
    CKR_MECHANISM_PARAM_INVALID,
    CKR_PIN_EXPIRED,
    CKR_USER_NOT_LOGGED_IN,
];

/// A key for it.
const KEY: &[CK_RV] =
    &[CKR_KEY_FUNCTION_NOT_PERMITTED, CKR_KEY_HANDLE_INVALID, CKR_KEY_SIZE_RANGE, CKR_KEY_TYPE_INCONSISTENT];

/// Its end by a null mechanism.
const CANCEL: &[CK_RV] = &[CKR_OPERATION_CANCEL_FAILED];

/// Its steps.
const STEP: &[CK_RV] = &[CKR_FUNCTION_CANCELED, CKR_OPERATION_NOT_INITIALIZED];

/// A message within it, with a parameter of its own.
const MESSAGE: &[CK_RV] = &[CKR_MECHANISM_PARAM_INVALID];

/// The beginning of a message in parts.
const PART: &[CK_RV] = &[CKR_MECHANISM_PARAM_INVALID, CKR_PIN_EXPIRED, CKR_USER_NOT_LOGGED_IN];

/// Output (5.2).
const OUTPUT: &[CK_RV] = &[CKR_BUFFER_TOO_SMALL];

/// Encrypted input.
const CIPHER: &[CK_RV] = &[CKR_ENCRYPTED_DATA_INVALID, CKR_ENCRYPTED_DATA_LEN_RANGE];

/// A signature to be made.
const SIGN: &[CK_RV] = &[CKR_TOKEN_RESOURCE_EXCEEDED, CKR_USER_NOT_LOGGED_IN];

/// A signature to be verified.
const VERIFY: &[CK_RV] = &[CKR_TOKEN_RESOURCE_EXCEEDED];

/// What comes of that.
const SIGNATURE: &[CK_RV] = &[CKR_SIGNATURE_INVALID, CKR_SIGNATURE_LEN_RANGE];

/// A template.
const TEMPLATE: &[CK_RV] = &[
    CKR_ATTRIBUTE_READ_ONLY,
    CKR_ATTRIBUTE_TYPE_INVALID,
    CKR_ATTRIBUTE_VALUE_INVALID,
    CKR_SESSION_READ_ONLY,
    CKR_TEMPLATE_INCONSISTENT,
    CKR_TOKEN_WRITE_PROTECTED,
    CKR_USER_NOT_LOGGED_IN,
];

/// A new object, whose template must be complete.
const NEW: &[CK_RV] = &[CKR_CURVE_NOT_SUPPORTED, CKR_PIN_EXPIRED, CKR_TEMPLATE_INCOMPLETE];

/// Its domain parameters.
const DOMAIN: &[CK_RV] = &[CKR_DOMAIN_PARAMS_INVALID];

/// Its parameter set.
const SET: &[CK_RV] = &[CKR_PARAMETER_SET_NOT_SUPPORTED];

/// A new key by a mechanism.
const MAKE: &[CK_RV] = &[CKR_FUNCTION_CANCELED, CKR_MECHANISM_INVALID, CKR_MECHANISM_PARAM_INVALID];

/// A key that unwraps, and what it unwraps.
const UNWRAP: &[CK_RV] = &[
    CKR_BUFFER_TOO_SMALL,
    CKR_UNWRAPPING_KEY_HANDLE_INVALID,
    CKR_UNWRAPPING_KEY_SIZE_RANGE,
    CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT,
    CKR_WRAPPED_KEY_INVALID,
    CKR_WRAPPED_KEY_LEN_RANGE,
];

/// A key that wraps, and what it wraps.
const WRAP: &[CK_RV] = &[
    CKR_BUFFER_TOO_SMALL,
    CKR_KEY_HANDLE_INVALID,
    CKR_KEY_NOT_WRAPPABLE,
    CKR_KEY_SIZE_RANGE,
    CKR_KEY_UNEXTRACTABLE,
    CKR_WRAPPING_KEY_HANDLE_INVALID,
    CKR_WRAPPING_KEY_SIZE_RANGE,
    CKR_WRAPPING_KEY_TYPE_INCONSISTENT,
];

/// A key whose attribute does not allow what it is used for (5.1.6, forgotten in the lists of chapter 5.18).
const USE: &[CK_RV] = &[CKR_KEY_FUNCTION_NOT_PERMITTED];

/// A public key that is none (5.1.6, by the names of the functions).
const POINT: &[CK_RV] = &[CKR_PUBLIC_KEY_INVALID];

/// A PIN that is set (5.1.6): what a rule of the token's may say to it.
pub const PIN: &[CK_RV] = &[CKR_PIN_INVALID, CKR_PIN_LEN_RANGE, CKR_PIN_TOO_WEAK];

/// A PIN that is given.
const LOGIN: &[CK_RV] = &[CKR_FUNCTION_CANCELED, CKR_PIN_INCORRECT, CKR_PIN_LOCKED];

/// A test of the token of itself (5.1.6, by the names of the functions).
const SELF_TEST: &[CK_RV] = &[CKR_FIPS_SELF_TEST_FAILED];

macro_rules! returns {
    ($( $( $function:ident )+ : $( $group:ident )* ; $( $code:ident )* ; )*) => {
        /// The values that a function may return, as the standard lists them.
        pub fn of(function: Function) -> Vec<CK_RV> {
            match function {
                $( $( Function::$function )|+ => [ANY, $( $group, )* &[ $( $code ),* ]].concat(), )*
            }
        }
    };
}

returns! {
    C_Initialize: SELF_TEST;
        CKR_CANT_LOCK CKR_CRYPTOKI_ALREADY_INITIALIZED CKR_LIBRARY_LOAD_FAILED CKR_NEED_TO_CREATE_THREADS;
    C_Finalize C_GetInfo: CALL;;
    C_GetFunctionList:;;
    C_GetInterfaceList C_GetInterface: OUTPUT;;
    C_GetSlotList: CALL OUTPUT;;
    C_GetSlotInfo: CALL; CKR_DEVICE_ERROR CKR_SLOT_ID_INVALID;
    C_GetTokenInfo: CALL TOKEN; CKR_TOKEN_NOT_RECOGNIZED;
    C_WaitForSlotEvent: CALL; CKR_NO_EVENT;
    C_GetMechanismList: CALL TOKEN OUTPUT; CKR_TOKEN_NOT_RECOGNIZED;
    C_GetMechanismInfo: CALL TOKEN; CKR_MECHANISM_INVALID CKR_TOKEN_NOT_RECOGNIZED;
    C_InitToken: CALL TOKEN LOGIN PIN; CKR_SESSION_EXISTS CKR_TOKEN_NOT_RECOGNIZED CKR_TOKEN_WRITE_PROTECTED;
    C_InitPIN: CALL SESSION BUSY STOP PIN;
        CKR_SESSION_READ_ONLY CKR_TOKEN_WRITE_PROTECTED CKR_USER_NOT_LOGGED_IN;
    C_SetPIN: CALL SESSION BUSY LOGIN PIN; CKR_SESSION_READ_ONLY CKR_TOKEN_WRITE_PROTECTED;
    C_OpenSession: CALL TOKEN;
        CKR_SESSION_ASYNC_NOT_SUPPORTED CKR_SESSION_COUNT CKR_SESSION_PARALLEL_NOT_SUPPORTED
        CKR_SESSION_READ_WRITE_SO_EXISTS CKR_TOKEN_NOT_RECOGNIZED CKR_TOKEN_WRITE_PROTECTED;
    C_CloseSession C_GetSessionInfo C_GetSessionValidationFlags: CALL SESSION BUSY;;
    C_CloseAllSessions: CALL TOKEN;;
    C_SessionCancel: CALL SESSION BUSY CANCEL; CKR_TOKEN_NOT_PRESENT;
    C_GetOperationState: CALL SESSION BUSY OUTPUT; CKR_OPERATION_NOT_INITIALIZED CKR_STATE_UNSAVEABLE;
    C_SetOperationState: CALL SESSION BUSY;
        CKR_KEY_CHANGED CKR_KEY_NEEDED CKR_KEY_NOT_NEEDED CKR_SAVED_STATE_INVALID;
    C_Login C_LoginUser: CALL SESSION BUSY LOGIN;
        CKR_OPERATION_NOT_INITIALIZED CKR_SESSION_READ_ONLY_EXISTS CKR_USER_ALREADY_LOGGED_IN
        CKR_USER_ANOTHER_ALREADY_LOGGED_IN CKR_USER_PIN_NOT_INITIALIZED CKR_USER_TOO_MANY_TYPES
        CKR_USER_TYPE_INVALID;
    C_Logout: CALL SESSION BUSY; CKR_USER_NOT_LOGGED_IN;
    C_CreateObject: CALL SESSION BUSY TEMPLATE NEW DOMAIN SET POINT;;
    C_CopyObject: CALL SESSION BUSY TEMPLATE; CKR_ACTION_PROHIBITED CKR_OBJECT_HANDLE_INVALID CKR_PIN_EXPIRED;
    C_DestroyObject: CALL SESSION BUSY;
        CKR_ACTION_PROHIBITED CKR_OBJECT_HANDLE_INVALID CKR_PIN_EXPIRED CKR_SESSION_READ_ONLY
        CKR_TOKEN_WRITE_PROTECTED;
    C_GetObjectSize: CALL SESSION BUSY; CKR_INFORMATION_SENSITIVE CKR_OBJECT_HANDLE_INVALID;
    C_GetAttributeValue: CALL SESSION BUSY OUTPUT;
        CKR_ATTRIBUTE_SENSITIVE CKR_ATTRIBUTE_TYPE_INVALID CKR_OBJECT_HANDLE_INVALID;
    C_SetAttributeValue: CALL SESSION BUSY TEMPLATE; CKR_ACTION_PROHIBITED CKR_OBJECT_HANDLE_INVALID;
    C_FindObjectsInit: CALL SESSION BUSY; CKR_ATTRIBUTE_TYPE_INVALID CKR_ATTRIBUTE_VALUE_INVALID CKR_PIN_EXPIRED;
    C_FindObjects C_FindObjectsFinal: CALL SESSION BUSY; CKR_OPERATION_NOT_INITIALIZED;
    C_EncryptInit C_DecryptInit C_SignInit C_SignRecoverInit C_MessageEncryptInit C_MessageDecryptInit:
        CALL SESSION BUSY BEGIN KEY CANCEL;;
    C_VerifyInit C_VerifyRecoverInit: CALL SESSION BUSY BEGIN KEY CANCEL POINT;;
    C_VerifySignatureInit: CALL SESSION BEGIN KEY CANCEL POINT; CKR_OPERATION_ACTIVE;
    C_MessageSignInit C_MessageVerifyInit: CALL SESSION BUSY BEGIN KEY;;
    C_DigestInit: CALL SESSION BUSY BEGIN CANCEL;;
    C_Encrypt: CALL SESSION BUSY STEP OUTPUT; CKR_DATA_INVALID CKR_DATA_LEN_RANGE;
    C_EncryptUpdate C_EncryptFinal C_DigestEncryptUpdate: CALL SESSION BUSY STEP OUTPUT; CKR_DATA_LEN_RANGE;
    C_EncryptMessage: CALL SESSION BUSY STEP MESSAGE OUTPUT; CKR_DATA_INVALID CKR_DATA_LEN_RANGE;
    C_EncryptMessageNext: CALL SESSION BUSY STEP MESSAGE OUTPUT; CKR_DATA_LEN_RANGE;
    C_EncryptMessageBegin C_DecryptMessageBegin C_VerifyMessageBegin: CALL SESSION BUSY STEP PART;;
    C_MessageEncryptFinal C_DigestUpdate: CALL SESSION BUSY STEP;;
    C_Decrypt C_DecryptUpdate C_DecryptFinal: CALL SESSION BUSY STEP OUTPUT CIPHER; CKR_USER_NOT_LOGGED_IN;
    C_DecryptMessage: CALL SESSION BUSY STEP MESSAGE OUTPUT CIPHER CANCEL;
        CKR_AEAD_DECRYPT_FAILED CKR_USER_NOT_LOGGED_IN;
    C_DecryptMessageNext: CALL SESSION BUSY STEP MESSAGE OUTPUT CIPHER;
        CKR_AEAD_DECRYPT_FAILED CKR_USER_NOT_LOGGED_IN;
    C_MessageDecryptFinal: CALL SESSION BUSY STEP; CKR_USER_NOT_LOGGED_IN;
    C_Digest C_DigestFinal: CALL SESSION BUSY STEP OUTPUT;;
    C_DigestKey: CALL SESSION BUSY STEP; CKR_KEY_HANDLE_INVALID CKR_KEY_INDIGESTIBLE CKR_KEY_SIZE_RANGE;
    C_Sign: CALL SESSION BUSY STEP OUTPUT SIGN;
        CKR_DATA_INVALID CKR_DATA_LEN_RANGE CKR_FUNCTION_REJECTED CKR_KEY_EXHAUSTED;
    C_SignUpdate: CALL SESSION BUSY STEP SIGN; CKR_DATA_LEN_RANGE;
    C_SignFinal: CALL SESSION BUSY STEP OUTPUT SIGN; CKR_DATA_LEN_RANGE CKR_FUNCTION_REJECTED CKR_KEY_EXHAUSTED;
    C_SignRecover: CALL SESSION BUSY STEP OUTPUT SIGN; CKR_DATA_INVALID CKR_DATA_LEN_RANGE;
    C_SignMessage: CALL SESSION BUSY STEP MESSAGE OUTPUT SIGN;
        CKR_DATA_INVALID CKR_DATA_LEN_RANGE CKR_FUNCTION_REJECTED CKR_KEY_EXHAUSTED;
    C_SignMessageBegin: CALL SESSION BUSY STEP PART SIGN;;
    C_SignMessageNext: CALL SESSION BUSY STEP MESSAGE OUTPUT SIGN;
        CKR_DATA_LEN_RANGE CKR_FUNCTION_REJECTED CKR_KEY_EXHAUSTED;
    C_MessageSignFinal: CALL SESSION BUSY STEP SIGN; CKR_FUNCTION_REJECTED;
    C_Verify: CALL SESSION BUSY STEP VERIFY SIGNATURE; CKR_DATA_INVALID CKR_DATA_LEN_RANGE;
    C_VerifyUpdate C_MessageVerifyFinal: CALL SESSION BUSY STEP VERIFY; CKR_DATA_LEN_RANGE;
    C_VerifyFinal: CALL SESSION BUSY STEP VERIFY SIGNATURE; CKR_DATA_LEN_RANGE;
    C_VerifyRecover: CALL SESSION BUSY STEP OUTPUT VERIFY SIGNATURE; CKR_DATA_INVALID CKR_DATA_LEN_RANGE;
    C_VerifyMessage: CALL SESSION BUSY STEP MESSAGE VERIFY SIGNATURE; CKR_DATA_INVALID CKR_DATA_LEN_RANGE;
    C_VerifyMessageNext: CALL SESSION BUSY STEP MESSAGE VERIFY SIGNATURE; CKR_DATA_LEN_RANGE;
    C_VerifySignature: CALL SESSION STEP VERIFY SIGNATURE; CKR_DATA_INVALID CKR_DATA_LEN_RANGE;
    C_VerifySignatureUpdate: CALL SESSION STEP VERIFY; CKR_DATA_LEN_RANGE;
    C_VerifySignatureFinal: CALL SESSION STEP VERIFY SIGNATURE; CKR_DATA_LEN_RANGE;
    C_DecryptDigestUpdate: CALL SESSION BUSY STEP OUTPUT CIPHER;;
    C_SignEncryptUpdate: CALL SESSION BUSY STEP OUTPUT; CKR_DATA_LEN_RANGE CKR_USER_NOT_LOGGED_IN;
    C_DecryptVerifyUpdate: CALL SESSION BUSY STEP OUTPUT CIPHER; CKR_DATA_LEN_RANGE;
    C_GenerateKey: CALL SESSION BUSY TEMPLATE NEW MAKE; CKR_EXCEEDED_MAX_ITERATIONS;
    C_GenerateKeyPair: CALL SESSION BUSY TEMPLATE NEW DOMAIN SET MAKE SELF_TEST; CKR_EXCEEDED_MAX_ITERATIONS;
    C_WrapKey: CALL SESSION BUSY BEGIN WRAP USE;;
    C_WrapKeyAuthenticated: CALL SESSION BEGIN WRAP USE; CKR_OPERATION_ACTIVE;
    C_UnwrapKey: CALL SESSION BUSY TEMPLATE NEW DOMAIN SET MAKE UNWRAP USE;;
    C_UnwrapKeyAuthenticated: CALL SESSION TEMPLATE NEW DOMAIN SET MAKE UNWRAP USE; CKR_OPERATION_ACTIVE;
    C_DeriveKey: CALL SESSION BUSY TEMPLATE NEW DOMAIN MAKE KEY POINT;;
    C_EncapsulateKey: CALL SESSION TEMPLATE NEW DOMAIN SET MAKE KEY OUTPUT; CKR_OPERATION_ACTIVE;
    // Its list has the values that 5.1.6 keeps for C_UnwrapKey, so those of C_EncapsulateKey are as good.
    C_DecapsulateKey: CALL SESSION TEMPLATE NEW DOMAIN SET MAKE UNWRAP KEY; CKR_OPERATION_ACTIVE;
    C_SeedRandom: CALL SESSION BUSY STOP SELF_TEST;
        CKR_RANDOM_NO_RNG CKR_RANDOM_SEED_NOT_SUPPORTED CKR_USER_NOT_LOGGED_IN;
    C_GenerateRandom: CALL SESSION BUSY STOP SELF_TEST;
        CKR_RANDOM_NO_RNG CKR_SEED_RANDOM_REQUIRED CKR_USER_NOT_LOGGED_IN;
    C_GetFunctionStatus C_CancelFunction: CALL SESSION BUSY; CKR_FUNCTION_NOT_PARALLEL;
    // It returns also what the function returns that it completes.
    C_AsyncComplete: CALL SESSION OUTPUT; CKR_OPERATION_NOT_INITIALIZED CKR_PENDING CKR_SESSION_ASYNC_NOT_SUPPORTED;
    C_AsyncGetID: CALL SESSION;
        CKR_OPERATION_NOT_INITIALIZED CKR_SESSION_ASYNC_NOT_SUPPORTED CKR_STATE_UNSAVEABLE CKR_TOKEN_NOT_PRESENT;
    C_AsyncJoin: CALL SESSION OUTPUT;
        CKR_SAVED_STATE_INVALID CKR_SESSION_ASYNC_NOT_SUPPORTED CKR_TOKEN_NOT_PRESENT;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 5.1.6 says of these values which functions alone return them.
    #[test]
    fn a_value_of_few_functions_is_listed_for_these() {
        let only: &[(CK_RV, &[Function])] = &[
            (
                CKR_ACTION_PROHIBITED,
                &[Function::C_CopyObject, Function::C_DestroyObject, Function::C_SetAttributeValue],
            ),
            (CKR_CANT_LOCK, &[Function::C_Initialize]),
            (CKR_CRYPTOKI_ALREADY_INITIALIZED, &[Function::C_Initialize]),
            (CKR_FUNCTION_NOT_PARALLEL, &[Function::C_GetFunctionStatus, Function::C_CancelFunction]),
            (CKR_KEY_CHANGED, &[Function::C_SetOperationState]),
            (CKR_KEY_INDIGESTIBLE, &[Function::C_DigestKey]),
            (CKR_NO_EVENT, &[Function::C_WaitForSlotEvent]),
            (CKR_RANDOM_SEED_NOT_SUPPORTED, &[Function::C_SeedRandom]),
            (CKR_SESSION_COUNT, &[Function::C_OpenSession]),
            (CKR_SESSION_EXISTS, &[Function::C_InitToken]),
            (CKR_USER_ALREADY_LOGGED_IN, &[Function::C_Login, Function::C_LoginUser]),
            (CKR_WRAPPING_KEY_SIZE_RANGE, &[Function::C_WrapKey, Function::C_WrapKeyAuthenticated]),
        ];
        for (code, functions) in only {
            for function in Function::ALL {
                let name = function.name();
                assert_eq!(of(*function).contains(code), functions.contains(function), "{name} {code:#x}");
            }
        }
    }

    /// 5.1.1, 5.1.2 and 5.1.6.
    #[test]
    fn what_every_function_returns_is_listed_for_all() {
        let before = [
            Function::C_Initialize,
            Function::C_GetFunctionList,
            Function::C_GetInterfaceList,
            Function::C_GetInterface,
        ];
        for function in Function::ALL {
            let (listed, name) = (of(*function), function.name());
            assert!([CKR_OK, CKR_GENERAL_ERROR, CKR_HOST_MEMORY].iter().all(|code| listed.contains(code)));
            assert_eq!(listed.contains(&CKR_CRYPTOKI_NOT_INITIALIZED), !before.contains(function), "{name}");
            let in_session =
                crate::signature::of(*function).first() == Some(&crate::signature::Kind::Session);
            assert_eq!(listed.contains(&CKR_SESSION_HANDLE_INVALID), in_session, "{name}");
        }
    }
}
