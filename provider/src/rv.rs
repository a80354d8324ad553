//! What can go wrong, and the one map from it to `CK_RV` (PKCS#11 3.1, section 5.1).
//!
//! An [`Error`] says whose fault it is: the caller's, by name; the HSM's word ([`Fault`]); or the network's
//! ([`Link`]). The HSM's and the network's details go to the log, for a `CK_RV` cannot carry them.

use std::fmt;

use pkcs11_sys::*;
use strongroom_shared::fault::{Fault, FaultCode};

use crate::{
    hsm::Link,
    log::{self, Level},
};

macro_rules! errors {
    ($( $(#[$doc:meta])* $name:ident => $rv:ident; )*) => {
        /// Why a function of the module did not do what was asked.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Error {
            $( $(#[$doc])* #[doc = concat!("`", stringify!($rv), "`.")] $name, )*
            /// The HSM refused or failed.
            Fault(Fault),
            /// The HSM could not be asked.
            Link(Link),
        }

        impl Error {
            /// The code that the caller is told.
            pub fn rv(&self) -> CK_RV {
                match self {
                    $( Self::$name => $rv, )*
                    Self::Fault(fault) => fault_rv(fault.code),
                    Self::Link(link) => link_rv(link),
                }
            }

            /// How much an operator should care.
            pub fn level(&self) -> Level {
                match self {
                    $( Self::$name )|* => Level::Debug,
                    Self::Fault(fault) => fault_level(fault.code),
                    // Said once, where it was found out.
                    Self::Link(Link::Administrator) => Level::Debug,
                    Self::Link(_) => Level::Warn,
                }
            }
        }
    };
}

errors! {
    /// A null pointer, an impossible length, or arguments that contradict each other.
    ArgumentsBad => CKR_ARGUMENTS_BAD;
    /// The library cannot do its work at all; the log says why.
    General => CKR_GENERAL_ERROR;
    /// `C_Initialize` has not been called.
    CryptokiNotInitialized => CKR_CRYPTOKI_NOT_INITIALIZED;
    /// `C_Initialize` has been called before.
    CryptokiAlreadyInitialized => CKR_CRYPTOKI_ALREADY_INITIALIZED;
    /// The application insists on its own mutexes.
    CantLock => CKR_CANT_LOCK;
    /// It could not be done here; the log says why.
    FunctionFailed => CKR_FUNCTION_FAILED;
    /// This function is not there.
    FunctionNotSupported => CKR_FUNCTION_NOT_SUPPORTED;
    /// A relic of parallel sessions.
    FunctionNotParallel => CKR_FUNCTION_NOT_PARALLEL;
    /// Nothing happened to any slot.
    NoEvent => CKR_NO_EVENT;

    /// No slot has this number.
    SlotIdInvalid => CKR_SLOT_ID_INVALID;
    /// The token's server cannot be reached.
    TokenNotPresent => CKR_TOKEN_NOT_PRESENT;
    /// The token has not been initialised.
    TokenNotRecognized => CKR_TOKEN_NOT_RECOGNIZED;

    /// No session has this handle.
    SessionHandleInvalid => CKR_SESSION_HANDLE_INVALID;
    /// `CKF_SERIAL_SESSION` is missing.
    SessionParallelNotSupported => CKR_SESSION_PARALLEL_NOT_SUPPORTED;
    /// The application has a session open on the token.
    SessionExists => CKR_SESSION_EXISTS;
    /// The session may not change the token.
    SessionReadOnly => CKR_SESSION_READ_ONLY;
    /// The security officer cannot log in while a read-only session is open.
    SessionReadOnlyExists => CKR_SESSION_READ_ONLY_EXISTS;
    /// No read-only session while the security officer is logged in.
    SessionReadWriteSoExists => CKR_SESSION_READ_WRITE_SO_EXISTS;

    /// Not a type of user.
    UserTypeInvalid => CKR_USER_TYPE_INVALID;
    /// This user is logged in already.
    UserAlreadyLoggedIn => CKR_USER_ALREADY_LOGGED_IN;
    /// The other user is logged in.
    UserAnotherAlreadyLoggedIn => CKR_USER_ANOTHER_ALREADY_LOGGED_IN;
    /// Nobody, or not the right user, is logged in.
    UserNotLoggedIn => CKR_USER_NOT_LOGGED_IN;
    /// A PIN longer than any token takes.
    PinLenRange => CKR_PIN_LEN_RANGE;

    /// The session is busy with an operation of this kind.
    OperationActive => CKR_OPERATION_ACTIVE;
    /// No such operation is active.
    OperationNotInitialized => CKR_OPERATION_NOT_INITIALIZED;
    /// The result does not fit; the operation stays active.
    BufferTooSmall => CKR_BUFFER_TOO_SMALL;
    /// Operations cannot be saved.
    StateUnsaveable => CKR_STATE_UNSAVEABLE;

    /// No object has this handle.
    ObjectHandleInvalid => CKR_OBJECT_HANDLE_INVALID;
    /// No key has this handle.
    KeyHandleInvalid => CKR_KEY_HANDLE_INVALID;
    /// The key's type does not fit the mechanism.
    KeyTypeInconsistent => CKR_KEY_TYPE_INCONSISTENT;
    /// The key's size does not fit the mechanism.
    KeySizeRange => CKR_KEY_SIZE_RANGE;
    /// The key's attributes do not permit this use.
    KeyFunctionNotPermitted => CKR_KEY_FUNCTION_NOT_PERMITTED;
    /// The key's value cannot be digested, for it is not here.
    KeyIndigestible => CKR_KEY_INDIGESTIBLE;

    /// The mechanism is unknown or not for this use.
    MechanismInvalid => CKR_MECHANISM_INVALID;
    /// The mechanism's parameter is wrong.
    MechanismParamInvalid => CKR_MECHANISM_PARAM_INVALID;
    /// No such attribute.
    AttributeTypeInvalid => CKR_ATTRIBUTE_TYPE_INVALID;
    /// Not a value of this attribute.
    AttributeValueInvalid => CKR_ATTRIBUTE_VALUE_INVALID;
    /// The attribute's value is secret.
    AttributeSensitive => CKR_ATTRIBUTE_SENSITIVE;

    /// The input has an impossible length, or more than a frame can carry.
    DataLenRange => CKR_DATA_LEN_RANGE;
    /// The ciphertext has an impossible length, or more than a frame can carry.
    EncryptedDataLenRange => CKR_ENCRYPTED_DATA_LEN_RANGE;
    /// The signature has an impossible length.
    SignatureLenRange => CKR_SIGNATURE_LEN_RANGE;
}

fn fault_rv(code: FaultCode) -> CK_RV {
    match code {
        FaultCode::Internal
        | FaultCode::Malformed
        | FaultCode::Unavailable
        | FaultCode::AnswerLost
        | FaultCode::NotDurable
        | FaultCode::QuorumMissing
        | FaultCode::IntegrityViolated => CKR_DEVICE_ERROR,
        FaultCode::Forbidden | FaultCode::PolicyRefused | FaultCode::Frozen => CKR_FUNCTION_REJECTED,
        FaultCode::ArgumentsBad => CKR_ARGUMENTS_BAD,
        FaultCode::Full => CKR_DEVICE_MEMORY,
        // 3.1 has no CKR_TOKEN_NOT_INITIALIZED; other modules answer this.
        FaultCode::TokenNotInitialized => CKR_TOKEN_NOT_RECOGNIZED,
        FaultCode::TokenBusy => CKR_SESSION_EXISTS,
        FaultCode::PinIncorrect => CKR_PIN_INCORRECT,
        FaultCode::PinLocked => CKR_PIN_LOCKED,
        FaultCode::PinLength => CKR_PIN_LEN_RANGE,
        FaultCode::PinInvalid => CKR_PIN_INVALID,
        FaultCode::UserPinNotInitialized => CKR_USER_PIN_NOT_INITIALIZED,
        FaultCode::NotLoggedIn | FaultCode::TicketExpired => CKR_USER_NOT_LOGGED_IN,
        FaultCode::ObjectHandleInvalid => CKR_OBJECT_HANDLE_INVALID,
        FaultCode::KeyHandleInvalid => CKR_KEY_HANDLE_INVALID,
        FaultCode::ActionProhibited => CKR_ACTION_PROHIBITED,
        FaultCode::AttributeReadOnly => CKR_ATTRIBUTE_READ_ONLY,
        FaultCode::AttributeSensitive => CKR_ATTRIBUTE_SENSITIVE,
        FaultCode::AttributeTypeInvalid => CKR_ATTRIBUTE_TYPE_INVALID,
        FaultCode::AttributeValueInvalid => CKR_ATTRIBUTE_VALUE_INVALID,
        FaultCode::TemplateIncomplete => CKR_TEMPLATE_INCOMPLETE,
        FaultCode::TemplateInconsistent => CKR_TEMPLATE_INCONSISTENT,
        FaultCode::SessionReadOnly => CKR_SESSION_READ_ONLY,
        FaultCode::CurveNotSupported => CKR_CURVE_NOT_SUPPORTED,
        FaultCode::MechanismInvalid => CKR_MECHANISM_INVALID,
        FaultCode::MechanismParamInvalid => CKR_MECHANISM_PARAM_INVALID,
        FaultCode::KeyTypeInconsistent => CKR_KEY_TYPE_INCONSISTENT,
        FaultCode::KeyFunctionNotPermitted => CKR_KEY_FUNCTION_NOT_PERMITTED,
        FaultCode::KeySizeRange => CKR_KEY_SIZE_RANGE,
        FaultCode::DataLengthRange => CKR_DATA_LEN_RANGE,
        FaultCode::DataInvalid => CKR_DATA_INVALID,
        FaultCode::EncryptedDataInvalid => CKR_ENCRYPTED_DATA_INVALID,
        FaultCode::EncryptedDataLengthRange => CKR_ENCRYPTED_DATA_LEN_RANGE,
        FaultCode::SignatureInvalid => CKR_SIGNATURE_INVALID,
        FaultCode::SignatureLengthRange => CKR_SIGNATURE_LEN_RANGE,
        // Answers to an administrator's calls, which this module never makes.
        FaultCode::AlreadyExists
        | FaultCode::NotFound
        | FaultCode::ConfigurationInvalid
        | FaultCode::MembershipRefused => CKR_FUNCTION_FAILED,
    }
}

/// A server in trouble, a refusal by policy and a PIN that loses tries are an operator's business; the rest is the
/// application's.
fn fault_level(code: FaultCode) -> Level {
    match fault_rv(code) {
        CKR_PIN_INCORRECT | CKR_PIN_LOCKED => Level::Warn,
        CKR_DEVICE_ERROR | CKR_DEVICE_MEMORY | CKR_FUNCTION_REJECTED => Level::Warn,
        _ => Level::Info,
    }
}

fn link_rv(link: &Link) -> CK_RV {
    match link {
        Link::Unreachable(_)
        | Link::Stale(_)
        | Link::Broken(_)
        | Link::TimedOut
        | Link::Refused(_)
        | Link::Administrator
        | Link::Unusable(_)
        | Link::Malformed(_) => CKR_DEVICE_ERROR,
    }
}

impl Error {
    /// The same failure of a function that speaks of a slot: a server that cannot be asked is a token that is
    /// not there. Why goes to the log.
    pub fn of_slot(self) -> Self {
        match self {
            Self::Link(ref link) => {
                log::write(self.level(), format_args!("token not present: {link}"));
                Self::TokenNotPresent
            }
            other => other,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(fault) => write!(f, "the HSM answered {fault}"),
            Self::Link(link) => write!(f, "{link}"),
            other => write!(f, "{other:?}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Link> for Error {
    fn from(link: Link) -> Self {
        Self::Link(link)
    }
}
