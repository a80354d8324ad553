//! Vault errors to faults: the one map on this side, and the one place that decides what a caller is told.

use strongroom_shared::fault::{Fault, FaultCode};

use crate::{audit, vault::Error};

impl From<&Error> for Fault {
    fn from(error: &Error) -> Self {
        match error {
            Error::Caller(code, text) => Self::new(*code, text.clone()),
            Error::Hindered(_, text) => Self::new(FaultCode::QuorumMissing, text.clone()),
            Error::Crypto(error) => Self::new(error.fault(), error.to_string()),
            Error::Policy(refusal) => Self::new(FaultCode::PolicyRefused, refusal.to_string()),
            Error::Certificate(error) => Self::new(FaultCode::ArgumentsBad, error.to_string()),
            // What failed inside is for the server's own log.
            Error::Store(_) => {
                Self::new(FaultCode::NotDurable, "the store cannot be written; see the server's log")
            }
            Error::Audit(error @ audit::Error::Tampered { .. }) => {
                Self::new(FaultCode::IntegrityViolated, error.to_string())
            }
            Error::Audit(_) => {
                Self::new(FaultCode::NotDurable, "the audit log cannot be written; see the server's log")
            }
        }
    }
}
