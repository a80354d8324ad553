//! The PINs, and what the token makes of them: a wrong one is tried once, and then the right one.

use cryptoki_sys::*;

use crate::check::Stop;
use crate::marks::Severity;
use crate::raw::{Arg, Function as F};
use crate::rv::Rv;
use crate::session::Session;

use super::{Bench, Pin, Standing};

impl Bench {
    /// The user's PIN.
    ///
    /// # Errors
    /// `Skipped`, if none was given.
    pub fn pin(&self) -> Result<Pin, Stop> {
        self.target.pin.clone().ok_or_else(|| Stop::Skipped("no user PIN was given (--pin-file)".to_owned()))
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

    /// Notes what came of a login, if its PIN is the user's. One that was refused is not tried again.
    pub fn hear_login(&self, user: CK_USER_TYPE, pin: &[u8], rv: Rv) {
        let is_right = self.target.pin.as_ref().is_some_and(|right| right.as_slice() == pin);
        if user != CKU_USER || !is_right {
            return;
        }
        match rv.code {
            CKR_PIN_INCORRECT | CKR_PIN_LOCKED => self.standing.set(Standing::Refused),
            CKR_OK => self.standing.set(Standing::Accepted),
            _ => {}
        }
    }

    /// Logs the user in and out again behind a try of a wrong PIN, so that the token counts from nothing. `session` is
    /// public before and after.
    ///
    /// # Errors
    /// A failure of `C_Login` or `C_Logout`.
    pub fn forget_user_tries(&self, session: &Session<'_>) -> Result<(), Stop> {
        session.login(CKU_USER, &self.pin()?).ok()?;
        session.logout().ok()
    }

    /// The same for the SO.
    ///
    /// # Errors
    /// `Skipped`, if the SO's PIN was not given: one wrong try is enough then. A failure of `C_Login` or `C_Logout`.
    pub fn forget_so_tries(&self) -> Result<(), Stop> {
        let session = self.session()?;
        session.login(CKU_SO, &self.so_pin()?).ok()?;
        session.logout().ok()
    }

    /// Sets the user's PIN again after a call of `C_SetPIN` that should have failed, from what it may be now: itself, or
    /// one of these.
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
        self.standing.set(Standing::Refused);
        Err(Stop::graded(
            Severity::High,
            "a refusal, and the user's PIN as it was",
            "CKR_OK, and a PIN that the suite does not know: let the SO set it anew",
        ))
    }
}
