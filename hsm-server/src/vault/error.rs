//! Why the vault does not do what was asked. `fault.rs` says what of it a caller is told.

use std::fmt;

use pkcs11_sys::CK_ATTRIBUTE_TYPE;
use strongroom_shared::{fault::FaultCode, object::attribute_name};

use crate::{
    audit,
    certificates::CertificateError,
    crypto,
    crypto::threshold::{self, Party},
    policy::Refusal,
    store,
};

/// An act that was not carried out.
#[derive(Debug)]
pub enum Error {
    /// The caller asked for what cannot or may not be; the text says what.
    Caller(FaultCode, String),
    /// Another party of a ceremony keeps this node from its part.
    Hindered(Party, String),
    /// A mechanism could not be carried out.
    Crypto(crypto::Error),
    /// Policy refused.
    Policy(Refusal),
    /// A certificate could not be made or read.
    Certificate(CertificateError),
    /// The store could not be read or written.
    Store(store::Error),
    /// The audit log could not be read or written.
    Audit(audit::Error),
}

impl Error {
    /// The caller's mistake, with an explanation for its log.
    pub fn caller(code: FaultCode, text: impl Into<String>) -> Self {
        Self::Caller(code, text.into())
    }

    /// What the caller may not have done here, or not so.
    pub fn forbidden(why: impl fmt::Display) -> Self {
        Self::Caller(FaultCode::Forbidden, why.to_string())
    }

    /// Other nodes did not do their part.
    pub fn quorum_missing(why: impl fmt::Display) -> Self {
        Self::Caller(FaultCode::QuorumMissing, why.to_string())
    }

    /// What no input should bring about.
    pub fn internal(why: impl fmt::Display) -> Self {
        Self::Caller(FaultCode::Internal, why.to_string())
    }

    /// A mistake in one attribute, named.
    pub fn attribute(code: FaultCode, kind: CK_ATTRIBUTE_TYPE) -> Self {
        Self::Caller(code, attribute_name(kind).map_or_else(|| format!("attribute {kind:#x}"), str::to_owned))
    }
}

impl From<FaultCode> for Error {
    fn from(code: FaultCode) -> Self {
        Self::Caller(code, String::new())
    }
}

impl From<crypto::Error> for Error {
    fn from(error: crypto::Error) -> Self {
        Self::Crypto(error)
    }
}

impl From<threshold::Refusal> for Error {
    /// A ceremony that does not begin.
    fn from(refusal: threshold::Refusal) -> Self {
        use threshold::Refusal as Why;
        let code = match refusal {
            Why::Message => FaultCode::DataLengthRange,
            Why::Committee => FaultCode::AttributeValueInvalid,
            Why::Seat | Why::Epoch | Why::Key | Why::Signers | Why::Dealers => FaultCode::Forbidden,
            Why::Share | Why::Secret | Why::Point | Why::Child | Why::Internal => FaultCode::Internal,
        };
        Self::caller(code, refusal.to_string())
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Policy(refusal)
    }
}

impl From<CertificateError> for Error {
    fn from(error: CertificateError) -> Self {
        Self::Certificate(error)
    }
}

impl From<store::Error> for Error {
    /// Whoever was at work in a partition while it was deleted is not told that the disk failed.
    fn from(error: store::Error) -> Self {
        if matches!(error, store::Error::NoPartition(_)) {
            return Self::caller(FaultCode::Forbidden, "the partition was deleted");
        }
        Self::Store(error)
    }
}

impl From<audit::Error> for Error {
    fn from(error: audit::Error) -> Self {
        Self::Audit(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Caller(code, text) if text.is_empty() => write!(f, "{code:?}"),
            Self::Caller(code, text) => write!(f, "{code:?}: {text}"),
            Self::Hindered(_, text) => write!(f, "{text}"),
            Self::Crypto(error) => write!(f, "{error}"),
            Self::Policy(refusal) => write!(f, "{refusal}"),
            Self::Certificate(error) => write!(f, "certificate: {error}"),
            Self::Store(error) => write!(f, "store: {error}"),
            Self::Audit(error) => write!(f, "audit log: {error}"),
        }
    }
}

impl std::error::Error for Error {}
