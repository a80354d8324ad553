//! Why the cryptography room did not do what was asked, and the fault that a caller is told.

use std::fmt;

use openssl::error::ErrorStack;
use pkcs11_sys::CK_ATTRIBUTE_TYPE;
use strongroom_shared::{fault::FaultCode, object::attribute_name};

/// Why an act with a key, or the making of one, failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The mechanism is not for this use.
    MechanismInvalid,
    /// The mechanism's parameter is of the wrong kind or out of range.
    MechanismParamInvalid,
    /// The key's type, or its half of the pair, does not fit the mechanism.
    KeyTypeInconsistent,
    /// The key's size is outside the mechanism's range.
    KeySizeRange,
    /// The input has an impossible length.
    DataLengthRange,
    /// The ciphertext is not genuine or not well formed. One error for every such cause.
    EncryptedDataInvalid,
    /// The ciphertext has an impossible length.
    EncryptedDataLengthRange,
    /// The signature does not verify.
    SignatureInvalid,
    /// The signature has an impossible length.
    SignatureLengthRange,
    /// The template lacks this attribute.
    TemplateIncomplete(CK_ATTRIBUTE_TYPE),
    /// This attribute's value is not allowed.
    AttributeValueInvalid(CK_ATTRIBUTE_TYPE),
    /// The template contradicts itself or the mechanism.
    TemplateInconsistent,
    /// `CKA_EC_PARAMS` names no curve of this token.
    CurveNotSupported,
    /// A back-end failed in a way that no input should bring about.
    Internal(&'static str),
}

impl Error {
    /// What a caller is told.
    pub const fn fault(&self) -> FaultCode {
        match self {
            Self::MechanismInvalid => FaultCode::MechanismInvalid,
            Self::MechanismParamInvalid => FaultCode::MechanismParamInvalid,
            Self::KeyTypeInconsistent => FaultCode::KeyTypeInconsistent,
            Self::KeySizeRange => FaultCode::KeySizeRange,
            Self::DataLengthRange => FaultCode::DataLengthRange,
            Self::EncryptedDataInvalid => FaultCode::EncryptedDataInvalid,
            Self::EncryptedDataLengthRange => FaultCode::EncryptedDataLengthRange,
            Self::SignatureInvalid => FaultCode::SignatureInvalid,
            Self::SignatureLengthRange => FaultCode::SignatureLengthRange,
            Self::TemplateIncomplete(_) => FaultCode::TemplateIncomplete,
            Self::AttributeValueInvalid(_) => FaultCode::AttributeValueInvalid,
            Self::TemplateInconsistent => FaultCode::TemplateInconsistent,
            Self::CurveNotSupported => FaultCode::CurveNotSupported,
            Self::Internal(_) => FaultCode::Internal,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TemplateIncomplete(kind) => write!(f, "{} is missing", named(*kind)),
            Self::AttributeValueInvalid(kind) => write!(f, "the value of {} is not allowed", named(*kind)),
            Self::Internal(what) => f.write_str(what),
            Self::MechanismInvalid
            | Self::MechanismParamInvalid
            | Self::KeyTypeInconsistent
            | Self::KeySizeRange
            | Self::DataLengthRange
            | Self::EncryptedDataInvalid
            | Self::EncryptedDataLengthRange
            | Self::SignatureInvalid
            | Self::SignatureLengthRange
            | Self::TemplateInconsistent
            | Self::CurveNotSupported => write!(f, "{self:?}"),
        }
    }
}

impl std::error::Error for Error {}

/// A failure of OpenSSL that the caller's input does not explain. Where it does, the call site says so.
impl From<ErrorStack> for Error {
    fn from(_: ErrorStack) -> Self {
        Self::Internal("OpenSSL failed")
    }
}

fn named(kind: CK_ATTRIBUTE_TYPE) -> &'static str {
    attribute_name(kind).unwrap_or("an attribute")
}
