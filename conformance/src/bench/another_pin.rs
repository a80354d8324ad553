//! Another PIN for the user, for as long as a check looks at it, and the way back to the old one: by the PIN itself,
//! then by the SO.
//!
//! A file beside the record of calls says that the token may have the other PIN, so that the sweep finds the way back
//! too when the check was ended in the midst.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use cryptoki_sys::*;

use crate::check::{Stop, Verdict};
use crate::marks::Severity;
use crate::raw::{Arg, Function as F};
use crate::rv::Rv;
use crate::session::Session;

use super::{Bench, Pin, Stage, Standing, Tries};

/// The name of the file that says that the token may have another PIN.
const MARKER: &str = "another-pin";

/// What is said when the old PIN is not the token's.
const NOT_SET_BACK: &str = "the old user PIN could not be set back: the token's may be the given one with its last \
     character changed (to 0, a or A; 0, a and A to 1, b and B). Let the SO set it anew";

/// What a rule of the token's says to a PIN that it does not like.
const AGAINST_THE_RULES: &[CK_RV] = &[CKR_PIN_INVALID, CKR_PIN_LEN_RANGE, CKR_PIN_TOO_WEAK];

/// What is to be said at the end of a run whose children wrote into this folder, if the token may have another PIN.
pub fn left_behind(folder: &Path) -> Option<&'static str> {
    folder.join(MARKER).exists().then_some(NOT_SET_BACK)
}

impl Bench {
    /// Makes a check that gives the user another PIN, and sets the old one back whatever comes of it. The token is in
    /// [`Stage::Token`] after it.
    ///
    /// # Errors
    /// `Skipped`, if there is no second way back; what keeps the check from passing; a failure that says what to do, if
    /// the old PIN could not be set back. The run ends then.
    pub fn with_another_pin(&self, check: impl FnOnce(&Pin, &Pin) -> Verdict) -> Verdict {
        if self.target.so_pin.is_none() && self.target.tries == Tries::KeepOne {
            let why = "the user gets another PIN only where the SO can set the old one back: no SO PIN was given \
                       (--so-pin-file)";
            return Err(Stop::Skipped(why.to_owned()));
        }
        let pin = self.pin()?;
        let other = other_than(&pin);
        let marker = self.marker().ok_or_else(|| Stop::Skipped("the suite has no folder".to_owned()))?;
        File::create(marker).map_err(|error| Stop::Skipped(format!("the suite cannot write: {error}")))?;
        let verdict = check(&pin, &other);
        self.restore_pin()?;
        verdict
    }

    /// Sets the user's PIN back, if a check that gave it another did not get so far.
    ///
    /// # Errors
    /// A failure that says what to do.
    pub fn restore_pin(&self) -> Result<(), Stop> {
        let Some(marker) = self.marker().filter(|marker| marker.exists()) else { return Ok(()) };
        let pin = self.pin()?;
        if self.set_back_from(&pin, &other_than(&pin)).is_err() {
            self.standing.set(Standing::Refused);
            return Err(Stop::graded(Severity::High, "the user's PIN as it was", NOT_SET_BACK));
        }
        fs::remove_file(marker).map_err(|error| Stop::Skipped(error.to_string()))
    }

    /// The user first, with the other PIN, and then the SO. A check that ended well has tried no wrong PIN last.
    fn set_back_from(&self, pin: &Pin, other: &Pin) -> Verdict {
        let by_user = self.public_session().and_then(|session| {
            let _set = set_pin(&session, other, pin);
            self.is_pin(&session, pin)
        });
        by_user.or_else(|_| {
            let session = self.public_session()?;
            session.login(CKU_SO, &self.so_pin()?).ok()?;
            session.feed(F::C_InitPIN, pin).ok()?;
            session.logout().ok()?;
            self.is_pin(&session, pin)
        })
    }

    fn public_session(&self) -> Result<Session<'_>, Stop> {
        self.reset(Stage::Token);
        self.prepare(Stage::Token)?;
        self.session()
    }

    /// Whether this is the user's PIN, tried in a public session.
    fn is_pin(&self, session: &Session<'_>, pin: &[u8]) -> Verdict {
        try_pin(session, pin).ok()?;
        session.logout().ok()
    }

    fn marker(&self) -> Option<PathBuf> {
        self.target.calls.as_ref().map(|calls| calls.with_file_name(MARKER))
    }
}

/// `C_SetPIN` (5.5.9).
pub fn set_pin(session: &Session<'_>, old: &[u8], new: &[u8]) -> Rv {
    let length = |pin: &[u8]| Arg::number(pin.len() as CK_ULONG);
    session.call(F::C_SetPIN, &[Arg::slice(old), length(old), Arg::slice(new), length(new)])
}

/// `C_Login` as the user with a PIN that may be none: what the token says to it is no news of the PIN that was given.
pub fn try_pin(session: &Session<'_>, pin: &[u8]) -> Rv {
    session.call(F::C_Login, &[Arg::number(CKU_USER), Arg::slice(pin), Arg::number(pin.len() as CK_ULONG)])
}

/// # Errors
/// `Skipped`, if a rule of the token's is against the PIN; a failure, if it is not set.
pub fn is_set(rv: Rv) -> Verdict {
    if AGAINST_THE_RULES.contains(&rv.code) {
        return Err(Stop::Skipped(format!(
            "a rule of the token's is against another PIN of the same kind: {rv}"
        )));
    }
    rv.ok()
}

/// A PIN with its last character changed for another of its kind: as long, and as good by most rules.
fn other_than(pin: &Pin) -> Pin {
    let mut other = pin.clone();
    if let Some(last) = other.last_mut() {
        *last = match *last {
            b'0' => b'1',
            b'a' => b'b',
            b'A' => b'B',
            b'b'..=b'z' => b'a',
            b'B'..=b'Z' => b'A',
            _ => b'0',
        };
    }
    other
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_pin_is_another_of_the_same_length() {
        for pin in ["1234", "1230", "abca", "abcz", "ABCA", "ABCZ", "a-pin!", "1"] {
            let pin = Pin::new(pin.as_bytes().to_vec());
            let other = other_than(&pin);
            assert!(other != pin && other.len() == pin.len());
            let kind = |pin: &Pin| pin.last().map(u8::is_ascii_digit);
            assert!(kind(&pin) == kind(&other) || pin.last().is_some_and(|last| !last.is_ascii_digit()));
        }
    }
}
