//! What the server tells a caller when it does not do what was asked.
//!
//! A [`FaultCode`] is a number on the wire with a named meaning. The server maps its own errors to it in
//! `hsm-server/src/fault.rs`; the provider maps it to a `CKR_*` in `provider/src/rv.rs`.
//! Numbers are only ever added.

use std::fmt;

use minicbor::{Decode, Encode};

use crate::plain::plain;

/// The body of a frame of kind `Fault`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Fault {
    /// Why, as a number with a name.
    #[n(0)]
    pub code: FaultCode,
    /// What an operator should know, for the provider's log. Never holds a secret.
    #[n(1)]
    pub detail: String,
}

impl Fault {
    /// A fault with its explanation.
    pub fn new(code: FaultCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }

    /// The same as another server said it, fit to be written down and handed on.
    #[must_use]
    pub fn heard(self) -> Self {
        Self { detail: plain(&self.detail), ..self }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.detail.is_empty() {
            write!(f, "{:?}", self.code)
        } else {
            write!(f, "{:?}: {}", self.code, self.detail)
        }
    }
}

impl std::error::Error for Fault {}

macro_rules! fault_codes {
    ($( $(#[$doc:meta])* $number:literal $name:ident; )*) => {
        /// Why a call was not carried out.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum FaultCode { $( $(#[$doc])* $name = $number, )* }

        impl FaultCode {
            /// Every code, in the order of its number.
            pub const ALL: &[Self] = &[ $( Self::$name, )* ];

            /// The code with this number, if this version knows it.
            pub const fn from_number(number: u16) -> Option<Self> {
                match number { $( $number => Some(Self::$name), )* _ => None }
            }
        }
    };
}

fault_codes! {
    /// The server failed in a way that it should not; its log says how.
    1 Internal;
    /// The frame or its body cannot be understood.
    2 Malformed;
    // 3 meant an unknown call and is not given again: such a call ends its connection.
    /// This certificate may not make this call.
    4 Forbidden;
    /// The server is starting, stopping or has no vault; the call was not carried out.
    5 Unavailable;
    /// An earlier copy of this request was carried out, but its answer is no longer known.
    6 AnswerLost;
    /// An argument is outside what the call allows.
    7 ArgumentsBad;
    /// The store or the audit log cannot be written; nothing was done.
    8 NotDurable;
    /// The server holds as many objects, instances or bytes as it is configured to.
    9 Full;

    /// The token has not been initialised.
    20 TokenNotInitialized;
    /// The token may not be initialised or deleted in its present state.
    21 TokenBusy;
    /// The PIN is wrong.
    30 PinIncorrect;
    /// Too many wrong PINs: the role is locked.
    31 PinLocked;
    /// The PIN is shorter or longer than the token allows.
    32 PinLength;
    /// The PIN holds bytes that the token does not allow.
    33 PinInvalid;
    /// The normal user's PIN has not been set.
    34 UserPinNotInitialized;
    /// The call needs a login.
    35 NotLoggedIn;
    /// The ticket is no longer good: it expired, or a PIN change or a new initialisation ended it.
    36 TicketExpired;

    /// No object with this id that this caller may see.
    50 ObjectHandleInvalid;
    /// No key with this id that this caller may use.
    51 KeyHandleInvalid;
    /// The object does not allow this action (`CKA_MODIFIABLE`, `CKA_COPYABLE`, `CKA_DESTROYABLE`).
    52 ActionProhibited;
    /// The attribute cannot be changed, or not to this value.
    53 AttributeReadOnly;
    /// The attribute is sensitive.
    54 AttributeSensitive;
    /// The object has no attribute of this type.
    55 AttributeTypeInvalid;
    /// The attribute's value is not allowed.
    56 AttributeValueInvalid;
    /// The template lacks an attribute.
    57 TemplateIncomplete;
    /// The template contradicts itself, the object or the token.
    58 TemplateInconsistent;
    /// The token is write-protected for this session.
    59 SessionReadOnly;
    /// The curve is not supported.
    60 CurveNotSupported;

    /// The mechanism is unknown or not for this use.
    70 MechanismInvalid;
    /// The mechanism's parameter is wrong.
    71 MechanismParamInvalid;
    /// The key's type does not fit the mechanism.
    72 KeyTypeInconsistent;
    /// The key's attributes do not permit this use.
    73 KeyFunctionNotPermitted;
    /// The key's size is outside the mechanism's range.
    74 KeySizeRange;
    /// The input has an impossible length.
    75 DataLengthRange;
    /// The input is not what the mechanism needs.
    76 DataInvalid;
    /// The ciphertext is not genuine or not well formed.
    77 EncryptedDataInvalid;
    /// The ciphertext has an impossible length.
    78 EncryptedDataLengthRange;
    /// The signature does not verify.
    79 SignatureInvalid;
    /// The signature has an impossible length.
    80 SignatureLengthRange;

    /// Policy does not allow this act; the detail names the rule.
    100 PolicyRefused;
    /// The key or its partition is frozen.
    101 Frozen;

    /// The name is taken.
    120 AlreadyExists;
    /// Nothing has this name.
    121 NotFound;
    /// The text of a policy or setting cannot be accepted; the detail says where.
    122 ConfigurationInvalid;
    /// The audit log or the store was tampered with; the detail says where.
    123 IntegrityViolated;
    /// A membership document is not taken; the detail says why.
    124 MembershipRefused;
    /// Too few of the nodes that hold shares of the key did their part; the detail says which did not, and why.
    125 QuorumMissing;
}

impl<C> Encode<C> for FaultCode {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.u16(*self as u16)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for FaultCode {
    /// A number that this version does not know reads as [`FaultCode::Internal`]: it is still a failure.
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Ok(Self::from_number(d.u16()?).unwrap_or(Self::Internal))
    }
}
