//! Return values: their names, and what a check may say of them.

use std::fmt;

use cryptoki_sys::*;

use crate::check::{Stop, Verdict};
use crate::marks::Severity;
use crate::raw::Function;

/// What a function answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Rv {
    /// The function.
    pub function: Function,
    /// Its `CK_RV`.
    pub code: CK_RV,
}

impl Rv {
    /// # Errors
    /// A failure, unless the function answered exactly this.
    pub fn is(self, expected: CK_RV) -> Verdict {
        self.one_of(&[expected])
    }

    /// For what a check needs and does not test.
    ///
    /// # Errors
    /// A failure, unless the function answered `CKR_OK`.
    pub fn ok(self) -> Verdict {
        self.is(CKR_OK)
    }

    /// # Errors
    /// A failure, unless the function answered one of these, where the standard allows a set. If another refusal came
    /// where a refusal is right, the failure is low; where success is right, medium at most.
    pub fn one_of(self, expected: &[CK_RV]) -> Verdict {
        if expected.contains(&self.code) {
            return Ok(());
        }
        let names: Vec<String> = expected.iter().copied().map(name).collect();
        let (expected_names, seen) = (names.join(" or "), self.to_string());
        Err(match (self.code, expected.contains(&CKR_OK)) {
            (CKR_OK, _) => Stop::fail(expected_names, seen),
            (_, true) => Stop::at_most(Severity::Medium, expected_names, seen),
            (_, false) => Stop::at_most(Severity::Low, expected_names, seen),
        })
    }

    /// # Errors
    /// A failure, if the function answered `CKR_OK` or a code that says nothing.
    pub fn refused(self) -> Verdict {
        match self.code {
            CKR_OK => Err(Stop::fail("a refusal that says why", self.to_string())),
            CKR_GENERAL_ERROR | CKR_FUNCTION_FAILED => {
                Err(Stop::at_most(Severity::Low, "a refusal that says why", self.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// Whether the function answered this.
    pub fn was(self, code: CK_RV) -> bool {
        self.code == code
    }
}

/// For one check of many calls, those of them that were not answered as the standard says.
///
/// # Errors
/// A failure that names them; low, if all of them are refusals where a refusal is right.
pub fn none_wrong(expected: &str, wrong: &[Rv]) -> Verdict {
    if wrong.is_empty() {
        return Ok(());
    }
    let seen = wrong.iter().map(Rv::to_string).collect::<Vec<_>>().join(", ");
    Err(match wrong.iter().any(|rv| rv.was(CKR_OK)) {
        true => Stop::fail(expected, seen),
        false => Stop::at_most(Severity::Low, expected, seen),
    })
}

impl fmt::Display for Rv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.function.name(), name(self.code))
    }
}

macro_rules! names {
    ($( $code:ident )*) => {
        /// The return values that have a name here.
        pub const ALL: &[CK_RV] = &[ $( $code, )* ];

        /// The standard's name of a return value, or its number.
        pub fn name(code: CK_RV) -> String {
            match code {
                $( $code => stringify!($code).to_owned(), )*
                other => format!("CK_RV {other:#x}"),
            }
        }
    };
}

names! {
    CKR_OK CKR_CANCEL CKR_HOST_MEMORY CKR_SLOT_ID_INVALID CKR_GENERAL_ERROR CKR_FUNCTION_FAILED
    CKR_ARGUMENTS_BAD CKR_NO_EVENT CKR_NEED_TO_CREATE_THREADS CKR_CANT_LOCK CKR_ATTRIBUTE_READ_ONLY
    CKR_ATTRIBUTE_SENSITIVE CKR_ATTRIBUTE_TYPE_INVALID CKR_ATTRIBUTE_VALUE_INVALID CKR_ACTION_PROHIBITED
    CKR_DATA_INVALID CKR_DATA_LEN_RANGE CKR_DEVICE_ERROR CKR_DEVICE_MEMORY CKR_DEVICE_REMOVED
    CKR_ENCRYPTED_DATA_INVALID CKR_ENCRYPTED_DATA_LEN_RANGE CKR_AEAD_DECRYPT_FAILED CKR_FUNCTION_CANCELED
    CKR_FUNCTION_NOT_PARALLEL CKR_FUNCTION_NOT_SUPPORTED CKR_KEY_HANDLE_INVALID CKR_KEY_SIZE_RANGE
    CKR_KEY_TYPE_INCONSISTENT CKR_KEY_NOT_NEEDED CKR_KEY_CHANGED CKR_KEY_NEEDED CKR_KEY_INDIGESTIBLE
    CKR_KEY_FUNCTION_NOT_PERMITTED CKR_KEY_NOT_WRAPPABLE CKR_KEY_UNEXTRACTABLE CKR_MECHANISM_INVALID
    CKR_MECHANISM_PARAM_INVALID CKR_OBJECT_HANDLE_INVALID CKR_OPERATION_ACTIVE CKR_OPERATION_NOT_INITIALIZED
    CKR_PIN_INCORRECT CKR_PIN_INVALID CKR_PIN_LEN_RANGE CKR_PIN_EXPIRED CKR_PIN_LOCKED CKR_SESSION_CLOSED
    CKR_SESSION_COUNT CKR_SESSION_HANDLE_INVALID CKR_SESSION_PARALLEL_NOT_SUPPORTED CKR_SESSION_READ_ONLY
    CKR_SESSION_EXISTS CKR_SESSION_READ_ONLY_EXISTS CKR_SESSION_READ_WRITE_SO_EXISTS CKR_SIGNATURE_INVALID
    CKR_SIGNATURE_LEN_RANGE CKR_TEMPLATE_INCOMPLETE CKR_TEMPLATE_INCONSISTENT CKR_TOKEN_NOT_PRESENT
    CKR_TOKEN_NOT_RECOGNIZED CKR_TOKEN_WRITE_PROTECTED CKR_UNWRAPPING_KEY_HANDLE_INVALID
    CKR_UNWRAPPING_KEY_SIZE_RANGE CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT CKR_USER_ALREADY_LOGGED_IN
    CKR_USER_NOT_LOGGED_IN CKR_USER_PIN_NOT_INITIALIZED CKR_USER_TYPE_INVALID
    CKR_USER_ANOTHER_ALREADY_LOGGED_IN CKR_USER_TOO_MANY_TYPES CKR_WRAPPED_KEY_INVALID
    CKR_WRAPPED_KEY_LEN_RANGE CKR_WRAPPING_KEY_HANDLE_INVALID CKR_WRAPPING_KEY_SIZE_RANGE
    CKR_WRAPPING_KEY_TYPE_INCONSISTENT CKR_RANDOM_SEED_NOT_SUPPORTED CKR_RANDOM_NO_RNG
    CKR_DOMAIN_PARAMS_INVALID CKR_CURVE_NOT_SUPPORTED CKR_BUFFER_TOO_SMALL CKR_SAVED_STATE_INVALID
    CKR_INFORMATION_SENSITIVE CKR_STATE_UNSAVEABLE CKR_CRYPTOKI_NOT_INITIALIZED
    CKR_CRYPTOKI_ALREADY_INITIALIZED CKR_MUTEX_BAD CKR_MUTEX_NOT_LOCKED CKR_NEW_PIN_MODE CKR_NEXT_OTP
    CKR_EXCEEDED_MAX_ITERATIONS CKR_FIPS_SELF_TEST_FAILED CKR_LIBRARY_LOAD_FAILED CKR_PIN_TOO_WEAK
    CKR_PUBLIC_KEY_INVALID CKR_FUNCTION_REJECTED CKR_TOKEN_RESOURCE_EXCEEDED CKR_OPERATION_CANCEL_FAILED
    CKR_KEY_EXHAUSTED CKR_PENDING CKR_SESSION_ASYNC_NOT_SUPPORTED CKR_SEED_RANDOM_REQUIRED
    CKR_OPERATION_NOT_VALIDATED CKR_TOKEN_NOT_INITIALIZED CKR_PARAMETER_SET_NOT_SUPPORTED
}
