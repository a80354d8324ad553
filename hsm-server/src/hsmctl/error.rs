//! What can go wrong with a command, and what to do about it.

use std::{fmt, path::Path};

use strongroom_identity::PairError;
use strongroom_shared::fault::{Fault, FaultCode};

/// A command that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CtlError {
    message: String,
    advice: Option<&'static str>,
    lost: bool,
}

impl CtlError {
    /// An error without advice.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), advice: None, lost: false }
    }

    /// The same with advice.
    #[must_use]
    pub fn advise(self, advice: &'static str) -> Self {
        Self { advice: Some(advice), ..self }
    }

    /// The same without advice, where the usual one does not fit.
    #[must_use]
    pub fn plain(self) -> Self {
        Self { advice: None, ..self }
    }

    /// The same, told apart as a server that is gone and may come back.
    #[must_use]
    pub fn lost(self) -> Self {
        Self { lost: true, ..self }
    }

    /// What happened, in words.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it, if anything is known.
    pub const fn advice(&self) -> Option<&'static str> {
        self.advice
    }

    /// Whether the server is gone and may come back.
    pub const fn is_lost(&self) -> bool {
        self.lost
    }

    /// Something about a file or folder.
    pub fn file(path: &Path, reason: impl fmt::Display) -> Self {
        Self::new(format!("{}: {reason}", path.display()))
    }
}

impl fmt::Display for CtlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.advice.map_or(Ok(()), |advice| write!(f, "\n  {advice}"))
    }
}

impl std::error::Error for CtlError {}

impl From<PairError> for CtlError {
    fn from(error: PairError) -> Self {
        Self::file(&error.path, error.reason)
    }
}

impl From<Fault> for CtlError {
    fn from(fault: Fault) -> Self {
        let error = Self::new(format!("the server refused: {fault}"));
        match fault.code {
            FaultCode::Forbidden => error.advise("this needs an administrator's folder: --admin DIR"),
            FaultCode::NotFound => error.advise("see `hsmctl partition list` and `hsmctl client list`"),
            FaultCode::Unavailable => error.lost(),
            FaultCode::QuorumMissing => {
                error.advise("see `hsmctl cluster list` for the nodes that do not answer")
            }
            FaultCode::MembershipRefused => {
                error.advise("see `hsmctl cluster list`; other administrators sign with --with DIR")
            }
            FaultCode::IntegrityViolated => {
                error.advise("stop the server, keep the state folder as evidence, and restore a backup")
            }
            FaultCode::Internal
            | FaultCode::Malformed
            | FaultCode::AnswerLost
            | FaultCode::ArgumentsBad
            | FaultCode::NotDurable
            | FaultCode::Full
            | FaultCode::TokenNotInitialized
            | FaultCode::TokenBusy
            | FaultCode::PinIncorrect
            | FaultCode::PinLocked
            | FaultCode::PinLength
            | FaultCode::PinInvalid
            | FaultCode::UserPinNotInitialized
            | FaultCode::NotLoggedIn
            | FaultCode::TicketExpired
            | FaultCode::ObjectHandleInvalid
            | FaultCode::KeyHandleInvalid
            | FaultCode::ActionProhibited
            | FaultCode::AttributeReadOnly
            | FaultCode::AttributeSensitive
            | FaultCode::AttributeTypeInvalid
            | FaultCode::AttributeValueInvalid
            | FaultCode::TemplateIncomplete
            | FaultCode::TemplateInconsistent
            | FaultCode::SessionReadOnly
            | FaultCode::CurveNotSupported
            | FaultCode::MechanismInvalid
            | FaultCode::MechanismParamInvalid
            | FaultCode::KeyTypeInconsistent
            | FaultCode::KeyFunctionNotPermitted
            | FaultCode::KeySizeRange
            | FaultCode::DataLengthRange
            | FaultCode::DataInvalid
            | FaultCode::EncryptedDataInvalid
            | FaultCode::EncryptedDataLengthRange
            | FaultCode::SignatureInvalid
            | FaultCode::SignatureLengthRange
            | FaultCode::PolicyRefused
            | FaultCode::Frozen
            | FaultCode::AlreadyExists
            | FaultCode::ConfigurationInvalid => error,
        }
    }
}
