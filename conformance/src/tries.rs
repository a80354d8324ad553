//! The tries of PINs that a run costs: one that is not the right PIN, and no other until the right one was taken.
//!
//! Every call that takes a PIN passes here on its way to the module, whichever check or preparation makes it. What is
//! counted stands in a file of the run, written before the call, since a process may die of it: the next one knows.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cryptoki_sys::*;

use crate::bench::{Pin, Tries};
use crate::raw::{Arg, Function as F};

/// What a check is told whose call was not made because a PIN had been tried in vain.
pub const SPENT: &str = "one PIN that is not the right one was tried, the right one did not follow, and without \
     --allow-lockout no second is";

/// What it is told when the right PIN is refused.
pub const REFUSED: &str = "is not accepted any more; no further try is made without --allow-lockout";

/// Whose PIN it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The user's.
    User,
    /// The security officer's.
    So,
}

impl Holder {
    const fn place(self) -> usize {
        match self {
            Self::User => 0,
            Self::So => 1,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::User => "user PIN",
            Self::So => "SO PIN",
        }
    }
}

/// What a call does with a PIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// It logs in, for a session or to initialise a token: whoever is right begins to count anew.
    Login,
    /// It shows the PIN for one operation or one change.
    Proof,
}

/// A call that shows the token a PIN.
#[derive(Clone, Copy, Debug)]
pub struct Try {
    holder: Holder,
    purpose: Use,
    is_right: bool,
}

impl Try {
    /// Whether it is not the right PIN, or that is not known.
    pub const fn is_wrong(self) -> bool {
        !self.is_right
    }
}

/// What is known of one PIN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    /// Tries that were not the right PIN, since the right one was taken.
    wrong: u8,
    /// Whether the right one was refused.
    is_refused: bool,
}

/// See the module's header.
pub struct Ledger {
    pins: [Option<Pin>; 2],
    /// The user's PIN while a check has set another.
    for_now: Mutex<Option<Pin>>,
    allowed: Tries,
    file: Option<File>,
    counts: Mutex<[Count; 2]>,
    withheld: Mutex<Option<String>>,
}

impl Ledger {
    /// Counts tries of the user and the SO, whose right PINs these are, in a file if there is one.
    ///
    /// # Errors
    /// A sentence, when the file cannot be opened.
    pub fn new(pins: [Option<Pin>; 2], allowed: Tries, file: Option<&Path>) -> Result<Self, String> {
        let open =
            |path: &Path| File::options().read(true).write(true).create(true).truncate(false).open(path);
        let file = file
            .map(|path| open(path).map_err(|error| format!("{}: {error}", path.display())))
            .transpose()?;
        Ok(Self {
            pins,
            for_now: Mutex::default(),
            allowed,
            file,
            counts: Mutex::default(),
            withheld: Mutex::default(),
        })
    }

    /// Before a call. `None` if it shows no PIN to a token.
    ///
    /// # Errors
    /// Nothing, if the call must not be made. [`Ledger::take_withheld`] says why.
    pub fn begin(&self, function: F, arguments: &[Arg<'_>]) -> Result<Option<Try>, ()> {
        let Some(one) = self.read(function, arguments) else { return Ok(None) };
        let mut counts = self.counts();
        let Some(count) = counts.get_mut(one.holder.place()) else { return Ok(None) };
        let why = match (one.is_right, *count) {
            _ if self.allowed == Tries::All => None,
            (_, Count { is_refused: true, .. }) => {
                Some(format!("the {}, accepted before, {REFUSED}", one.holder.word()))
            }
            (false, Count { wrong: 1.., .. }) => Some(format!("{}: {SPENT}", one.holder.word())),
            (_, _) => None,
        };
        if why.is_some() {
            *held(&self.withheld) = why;
            return Err(());
        }
        if !one.is_right {
            count.wrong = count.wrong.saturating_add(1);
        }
        self.write(&counts);
        Ok(Some(one))
    }

    /// After it.
    pub fn end(&self, one: Try, code: CK_RV) {
        let mut counts = self.counts();
        let Some(count) = counts.get_mut(one.holder.place()) else { return };
        match (one.is_right, one.purpose) {
            (_, Use::Login) if code == CKR_OK => *count = Count::default(),
            (false, _) if code == CKR_OK || looks_at_no_pin(code) => {
                count.wrong = count.wrong.saturating_sub(1);
            }
            (true, Use::Login) if refuses_pin(code) => count.is_refused = true,
            // The new PIN of C_SetPIN may be meant, or the operation: the token may have counted it or not.
            (true, Use::Proof) if matches!(code, CKR_PIN_INCORRECT | CKR_PIN_LOCKED) => {
                count.wrong = count.wrong.saturating_add(1);
            }
            (_, _) => {}
        }
        self.write(&counts);
    }

    /// Notes what the token's flags say of tries that were made before the run: whoever has one behind has none left.
    pub fn note_flags(&self, flags: CK_FLAGS) {
        let user = CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY | CKF_USER_PIN_LOCKED;
        let so = CKF_SO_PIN_COUNT_LOW | CKF_SO_PIN_FINAL_TRY | CKF_SO_PIN_LOCKED;
        let mut counts = self.counts();
        for (count, low) in counts.iter_mut().zip([user, so]) {
            count.wrong = count.wrong.max(u8::from(flags & low != 0));
        }
        self.write(&counts);
    }

    /// The right PIN of somebody whose last try was not right: it has to follow.
    pub fn due(&self, holder: Holder) -> Option<&Pin> {
        let pin = self.pins.get(holder.place())?.as_ref()?;
        let count = self.counts().get(holder.place()).copied().unwrap_or_default();
        (count.wrong > 0 && !count.is_refused).then_some(pin)
    }

    /// Whether somebody's right PIN is refused.
    pub fn is_refused(&self, holder: Holder) -> bool {
        self.counts().get(holder.place()).is_some_and(|count| count.is_refused)
    }

    /// Notes that somebody's right PIN is right no more.
    pub fn refuse(&self, holder: Holder) {
        let mut counts = self.counts();
        if let Some(count) = counts.get_mut(holder.place()) {
            count.is_refused = true;
        }
        self.write(&counts);
    }

    /// Takes another PIN for the user's right one, until it is told that there is none.
    pub fn user_has(&self, other: Option<Pin>) {
        *held(&self.for_now) = other;
    }

    /// Notes that the SO has set somebody's right PIN: the token counts its tries anew.
    pub fn is_set_anew(&self, holder: Holder) {
        let mut counts = self.counts();
        if let Some(count) = counts.get_mut(holder.place()) {
            *count = Count::default();
        }
        self.write(&counts);
    }

    /// Why a call was not made since this was asked last, if one was not.
    pub fn take_withheld(&self) -> Option<String> {
        held(&self.withheld).take()
    }

    /// Reads the PIN that a call shows to a token. The one that `C_InitPIN` sets is shown to nobody.
    fn read(&self, function: F, arguments: &[Arg<'_>]) -> Option<Try> {
        let (holder, purpose, place) = match function {
            F::C_Login | F::C_LoginUser => match arguments.get(1)?.word() as CK_USER_TYPE {
                CKU_SO => (Holder::So, Use::Login, 2),
                CKU_CONTEXT_SPECIFIC => (Holder::User, Use::Proof, 2),
                _ => (Holder::User, Use::Login, 2),
            },
            F::C_SetPIN => (Holder::User, Use::Proof, 1),
            F::C_InitToken => (Holder::So, Use::Proof, 1),
            _ => return None,
        };
        let (address, length) = (arguments.get(place)?, arguments.get(place + 1)?.word());
        let for_now = held(&self.for_now);
        let right = match holder {
            Holder::User if for_now.is_some() => for_now.as_ref(),
            Holder::User | Holder::So => self.pins.get(holder.place())?.as_ref(),
        };
        let is_right = right.is_some_and(|right| {
            right.len() == length && length <= address.extent() && is_at(right, address.word())
        });
        Some(Try { holder, purpose, is_right })
    }

    /// What is counted, with what other processes of the run have counted.
    fn counts(&self) -> MutexGuard<'_, [Count; 2]> {
        let mut counts = held(&self.counts);
        let mut bytes = [0; 4];
        if self.file.as_ref().is_some_and(|file| file.read_exact_at(&mut bytes, 0).is_ok()) {
            let [user, so, user_refused, so_refused] = bytes;
            *counts = [
                Count { wrong: user, is_refused: user_refused != 0 },
                Count { wrong: so, is_refused: so_refused != 0 },
            ];
        }
        counts
    }

    fn write(&self, [user, so]: &[Count; 2]) {
        let bytes = [user.wrong, so.wrong, u8::from(user.is_refused), u8::from(so.is_refused)];
        if let Some(file) = &self.file {
            // A file in the run's own folder, as those of the calls; without it a process counts for itself.
            let _written = file.write_all_at(&bytes, 0);
        }
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a PIN stands at an address, which may lead nowhere. The process may have forked: its memory is its own.
fn is_at(pin: &Pin, address: usize) -> bool {
    let mut there = Pin::new(vec![0; pin.len()]);
    let memory = File::open("/proc/self/mem");
    memory.is_ok_and(|memory| memory.read_exact_at(&mut there, address as u64).is_ok()) && there == *pin
}

/// The answers to a right PIN that say that it is not.
const fn refuses_pin(code: CK_RV) -> bool {
    matches!(code, CKR_PIN_INCORRECT | CKR_PIN_INVALID | CKR_PIN_LEN_RANGE | CKR_PIN_EXPIRED | CKR_PIN_LOCKED)
}

/// The answers that come before any PIN is looked at.
const fn looks_at_no_pin(code: CK_RV) -> bool {
    matches!(
        code,
        CKR_ARGUMENTS_BAD
            | CKR_CRYPTOKI_NOT_INITIALIZED
            | CKR_FUNCTION_NOT_SUPPORTED
            | CKR_OPERATION_NOT_INITIALIZED
            | CKR_SESSION_CLOSED
            | CKR_SESSION_EXISTS
            | CKR_SESSION_HANDLE_INVALID
            | CKR_SESSION_READ_ONLY
            | CKR_SESSION_READ_ONLY_EXISTS
            | CKR_SLOT_ID_INVALID
            | CKR_TOKEN_NOT_PRESENT
            | CKR_TOKEN_WRITE_PROTECTED
            | CKR_USER_ALREADY_LOGGED_IN
            | CKR_USER_ANOTHER_ALREADY_LOGGED_IN
            | CKR_USER_NOT_LOGGED_IN
            | CKR_USER_PIN_NOT_INITIALIZED
            | CKR_USER_TYPE_INVALID
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const RIGHT: &[u8] = b"right-0987";
    const WRONG: &[u8] = b"wrong-0987";

    fn ledger(allowed: Tries, file: Option<&Path>) -> Ledger {
        Ledger::new([Some(Pin::new(RIGHT.to_vec())), None], allowed, file).unwrap()
    }

    /// A login, which a token answers with this if it is made.
    fn login(ledger: &Ledger, user: CK_USER_TYPE, pin: &[u8], code: CK_RV) -> bool {
        let arguments =
            [Arg::number(1), Arg::number(user), Arg::slice(pin), Arg::number(pin.len() as CK_ULONG)];
        match ledger.begin(F::C_Login, &arguments) {
            Ok(one) => {
                ledger.end(one.unwrap(), code);
                true
            }
            Err(()) => false,
        }
    }

    #[test]
    fn a_second_wrong_pin_waits_for_the_right_one() {
        let ledger = ledger(Tries::KeepOne, None);
        assert!(login(&ledger, CKU_USER, WRONG, CKR_PIN_INCORRECT) && ledger.take_withheld().is_none());
        assert!(!login(&ledger, CKU_USER, WRONG, CKR_PIN_INCORRECT));
        assert!(ledger.take_withheld().is_some_and(|why| why.contains("user PIN") && why.contains(SPENT)));
        assert!(login(&ledger, CKU_SO, WRONG, CKR_PIN_INCORRECT), "each has a count");
        assert!(!login(&ledger, CKU_SO, WRONG, CKR_PIN_INCORRECT));
        assert_eq!(ledger.due(Holder::User).map(|pin| pin.as_slice()), Some(RIGHT));
        assert!(ledger.due(Holder::So).is_none(), "the SO's is not known");
        assert!(login(&ledger, CKU_USER, RIGHT, CKR_OK) && ledger.due(Holder::User).is_none());
        assert!(login(&ledger, CKU_USER, WRONG, CKR_USER_ALREADY_LOGGED_IN), "it was not looked at");
        assert!(login(&ledger, CKU_USER, WRONG, CKR_PIN_LEN_RANGE), "which may have been counted");
        assert!(!login(&ledger, CKU_USER, b"", CKR_PIN_LEN_RANGE));
    }

    #[test]
    fn the_right_pin_is_not_tried_again_once_it_is_refused() {
        let ledger = ledger(Tries::KeepOne, None);
        assert!(login(&ledger, CKU_USER, RIGHT, CKR_PIN_INCORRECT) && ledger.is_refused(Holder::User));
        assert!(!login(&ledger, CKU_USER, RIGHT, CKR_OK) && ledger.due(Holder::User).is_none());
    }

    #[test]
    fn a_process_that_died_of_its_try_has_made_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tries");
        let first = ledger(Tries::KeepOne, Some(&file));
        let arguments =
            [Arg::number(1), Arg::number(CKU_USER), Arg::slice(WRONG), Arg::number(CK_ULONG::MAX)];
        assert!(first.begin(F::C_Login, &arguments).is_ok());
        let second = ledger(Tries::KeepOne, Some(&file));
        assert!(!login(&second, CKU_USER, WRONG, CKR_PIN_INCORRECT) && second.due(Holder::User).is_some());
    }

    #[test]
    fn with_allow_lockout_there_is_no_end() {
        let ledger = ledger(Tries::All, None);
        assert!((0..9).all(|_| login(&ledger, CKU_USER, WRONG, CKR_PIN_INCORRECT)));
        assert!(login(&ledger, CKU_USER, RIGHT, CKR_PIN_LOCKED) && login(&ledger, CKU_USER, RIGHT, CKR_OK));
        assert!(!ledger.is_refused(Holder::User));
    }

    #[test]
    fn what_the_token_counted_before_the_run_counts() {
        let ledger = ledger(Tries::KeepOne, None);
        ledger.note_flags(CKF_SO_PIN_COUNT_LOW);
        assert!(!login(&ledger, CKU_SO, WRONG, CKR_PIN_INCORRECT));
        assert!(login(&ledger, CKU_USER, WRONG, CKR_PIN_INCORRECT));
    }
}
