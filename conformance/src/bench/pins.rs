//! The PINs, and what the token makes of them: a wrong one is tried once, and then the right one.

use cryptoki_sys::*;

use crate::check::Stop;
use crate::marks::Severity;
use crate::raw::{Arg, Function as F};
use crate::session::Session;
use crate::tries::Holder;

use super::{Bench, Pin, Stage, reason};

/// Why a check is not made without the user's PIN.
pub const NO_USER_PIN: &str = "no user PIN was given (--pin-file)";

/// Whose tries are counted.
const HOLDERS: [(Holder, CK_USER_TYPE); 2] = [(Holder::User, CKU_USER), (Holder::So, CKU_SO)];

impl Bench {
    /// The user's PIN.
    ///
    /// # Errors
    /// `Skipped`, if none was given.
    pub fn pin(&self) -> Result<Pin, Stop> {
        self.target.pin.clone().ok_or_else(|| Stop::Skipped(NO_USER_PIN.to_owned()))
    }

    /// The security officer's PIN.
    ///
    /// # Errors
    /// `Skipped`, if none was given.
    pub fn so_pin(&self) -> Result<Pin, Stop> {
        self.target
            .so_pin
            .clone()
            .ok_or_else(|| Stop::Skipped("no SO PIN was given (--so-pin-file)".to_owned()))
    }

    /// Whether a PIN was tried that is not the right one, which is known and has not followed.
    pub fn owes_a_pin(&self) -> bool {
        HOLDERS.into_iter().any(|(holder, _)| self.module.ledger().due(holder).is_some())
    }

    /// Logs in and out again whoever's last try was not right, so that the token counts from nothing. Nobody is logged in
    /// before and after. Where the right PIN is not known, there is no further try.
    ///
    /// # Errors
    /// `Skipped`, if the right PIN is refused or cannot be tried.
    pub fn forget_tries(&self) -> Result<(), Stop> {
        for (holder, user) in HOLDERS {
            let Some(pin) = self.module.ledger().due(holder) else { continue };
            let follows = || {
                let session = self.open_for_good(self.widest())?;
                session.login(user, pin).ok()?;
                session.logout().ok()?;
                session.close().ok()
            };
            follows().map_err(|stop| Stop::Skipped(reason(stop)))?;
        }
        Ok(())
    }

    /// Sets the user's PIN again after a call of `C_SetPIN` that should have failed, from what it may be now: itself, or
    /// one of these if more than one PIN may be tried. Else the SO sets it, where the SO's is known.
    ///
    /// # Errors
    /// A failure that says what to do, if it could not be set. The run ends then.
    pub fn set_back(&self, session: &Session<'_>, guesses: &[&[u8]]) -> Result<(), Stop> {
        let pin = self.pin()?;
        let length = |pin: &[u8]| Arg::number(pin.len() as CK_ULONG);
        for now in [pin.as_slice()].iter().chain(guesses) {
            let arguments = [Arg::slice(now), length(now), Arg::slice(&pin), length(&pin)];
            if session.call(F::C_SetPIN, &arguments).was(CKR_OK) {
                return Ok(());
            }
        }
        if self.set_anew(&pin).is_ok() {
            return Ok(());
        }
        self.module.ledger().refuse(Holder::User);
        Err(Stop::graded(
            Severity::High,
            "a refusal, and the user's PIN as it was",
            "CKR_OK, and a PIN that the suite does not know: let the SO set it anew",
        ))
    }

    /// The SO sets the user's PIN, and the user logs in with it.
    pub(super) fn set_anew(&self, pin: &[u8]) -> Result<(), Stop> {
        let so_pin = self.so_pin()?;
        self.reset(Stage::Token);
        let session = self.session()?;
        session.login(CKU_SO, &so_pin).ok()?;
        session.feed(F::C_InitPIN, pin).ok()?;
        self.module.ledger().is_set_anew(Holder::User);
        session.logout().ok()?;
        session.login(CKU_USER, pin).ok()?;
        session.logout().ok()
    }
}
