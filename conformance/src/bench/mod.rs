//! The workbench of a child process: the module, a token, and the state that a check asks to begin in.

pub mod another_pin;
mod pins;
mod preflight;
mod target;

use std::cell::{Cell, OnceCell, RefCell, RefMut};
use std::fs::File;

use cryptoki_sys::*;
use serde::{Deserialize, Serialize};

use crate::check::{Check, Stop, ensure};
use crate::marks::Effect;
use crate::observations::{Measured, Observation};
use crate::probe::model::Model;
use crate::proxy::desk::Desk;
use crate::raw::{Arg, Function as F, Module, initialize_args};
use crate::seed::Seeded;
use crate::session::{KeyPair, Session};
use crate::template::{Mechanism, Out, Template};
use crate::trace::Recorder;
use crate::tries::Holder;
pub use target::{Leftovers, Pin, Target, Tries};

/// The label of every object that the suite makes.
pub const LABEL: &[u8] = b"p11-conformance";

/// How often a module is finalised, at most, until it says that it is.
const MOST_FINALIZED: usize = 4;

/// How many slots or mechanisms a module is believed to have.
const MOST_LISTED: usize = 1 << 16;

/// What a check needs to begin with. It finds exactly this, whatever the checks before it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The module is loaded and not initialised.
    Loaded,
    /// The module is initialised; a token need not be there.
    Initialized,
    /// A token is there and has no session.
    Token,
    /// A read-write session, nobody logged in.
    Public,
    /// A session, the user logged in, or nobody if the token asks for no login.
    User,
}

/// Which slots to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slots {
    /// All.
    All,
    /// Those with a token in them.
    WithToken,
}

/// How the token stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It is there and takes the user's PIN, as far as is known.
    #[default]
    Accepted,
    /// The module did not start, or did not show it.
    Away,
    /// It does not take the user's PIN any more. No further try is made.
    Refused,
}

/// See the module's header.
pub struct Bench {
    /// The module under test.
    pub module: Module,
    /// What the command line names.
    pub target: Target,
    slot: Cell<Option<CK_SLOT_ID>>,
    stage: Cell<Stage>,
    anchor: Cell<Option<CK_SESSION_HANDLE>>,
    opened: RefCell<Vec<CK_SESSION_HANDLE>>,
    mechanisms: OnceCell<Vec<CK_MECHANISM_TYPE>>,
    rsa: Cell<Option<KeyPair>>,
    model: OnceCell<Model>,
    standing: Cell<Standing>,
    widest: Cell<Option<CK_FLAGS>>,
    random: RefCell<Seeded>,
    observed: RefCell<Vec<(String, Measured)>>,
    desk: Option<Desk>,
}

/// A number of entries for which memory is set aside.
///
/// # Errors
/// A failure, if no list of the function is as long.
fn believable(function: F, count: CK_ULONG) -> Result<usize, Stop> {
    let length = usize::try_from(count).unwrap_or(usize::MAX);
    if length > MOST_LISTED {
        let expected = format!("at most {MOST_LISTED} entries of {}", function.name());
        return Err(Stop::fail(expected, format!("{count} entries")));
    }
    Ok(length)
}

/// Why a check or a preparation stopped, in words.
pub fn reason(stop: Stop) -> String {
    match stop {
        Stop::Skipped(why) => why,
        Stop::Fail { seen, .. } => seen,
        Stop::NotOffered => "the module does not offer it".to_owned(),
    }
}

impl Bench {
    /// Loads the module.
    ///
    /// # Errors
    /// A sentence, when it is not a module.
    pub fn new(target: Target) -> Result<Self, String> {
        let pins = [("the user PIN", &target.pin), ("the SO PIN", &target.so_pin)];
        let secrets = pins.into_iter().filter_map(|(name, pin)| pin.clone().map(|pin| (name, pin))).collect();
        let calls = target.calls.as_ref().and_then(|path| File::options().write(true).open(path).ok());
        let recorder = Recorder::new(secrets, calls);
        let ledger = target.ledger()?;
        Ok(Self {
            module: Module::load(&target.module, recorder, ledger)?,
            standing: Cell::default(),
            widest: Cell::default(),
            random: RefCell::new(Seeded::new(target.seed, "")),
            observed: RefCell::default(),
            desk: target.socket.as_ref().map(|socket| Desk::at(socket, target.limit)).transpose()?,
            target,
            slot: Cell::new(None),
            stage: Cell::new(Stage::Loaded),
            anchor: Cell::new(None),
            opened: RefCell::default(),
            mechanisms: OnceCell::new(),
            rsa: Cell::new(None),
            model: OnceCell::new(),
        })
    }

    /// Brings the module into a state.
    ///
    /// # Errors
    /// `Skipped`, if it cannot be brought there.
    pub fn prepare(&self, stage: Stage) -> Result<(), Stop> {
        if self.stage.get() > stage {
            self.reset(stage);
        }
        while self.stage.get() < stage {
            if matches!(self.stage.get(), Stage::Token | Stage::Public) {
                self.forget_tries()?;
            }
            let next = match self.stage.get() {
                Stage::Loaded => self.seen(self.initialize())?,
                Stage::Initialized => self.seen(self.find_token())?,
                Stage::Token if stage == Stage::Public => Stage::Public,
                Stage::Token | Stage::Public => self.log_in()?,
                Stage::User => Stage::User,
            };
            self.stage.set(next);
        }
        match self.stage.get() {
            Stage::Token | Stage::Public => self.forget_tries(),
            Stage::Loaded | Stage::Initialized | Stage::User => Ok(()),
        }
    }

    /// Begins the record of a check, and its stream of random data.
    pub fn begin(&self, check: &Check) {
        self.module.recorder().begin();
        *self.random.borrow_mut() = Seeded::new(self.target.seed, &check.id);
    }

    /// Data that is the same in every run with the same `--seed`.
    pub fn random(&self) -> RefMut<'_, Seeded> {
        self.random.borrow_mut()
    }

    /// Keeps what was measured beside the check.
    pub fn observe(&self, what: &str, measured: Measured) {
        self.observed.borrow_mut().push((what.to_owned(), measured));
    }

    /// What was measured beside this check.
    pub fn take_observations(&self, check: &str) -> Vec<Observation> {
        let observed = self.observed.take().into_iter();
        observed.map(|(what, measured)| Observation { check: check.to_owned(), what, measured }).collect()
    }

    /// Where the network's faults are ordered.
    ///
    /// # Errors
    /// `Skipped`, if the module is not behind the suite's proxy.
    pub fn desk(&self) -> Result<&Desk, Stop> {
        self.desk.as_ref().ok_or_else(|| Stop::Skipped("no network was given (--network)".to_owned()))
    }

    /// Notes whether the token is there.
    fn seen(&self, reached: Result<Stage, Stop>) -> Result<Stage, Stop> {
        self.standing.set(if reached.is_ok() { Standing::Accepted } else { Standing::Away });
        reached
    }

    /// How the token stands.
    pub fn standing(&self) -> Standing {
        if self.module.ledger().is_refused(Holder::User) { Standing::Refused } else { self.standing.get() }
    }

    /// Takes away what a check left behind.
    pub fn conclude(&self) {
        for session in self.opened.borrow_mut().drain(..) {
            let _closed = self.module.call(F::C_CloseSession, &[Arg::number(session)]);
        }
        match self.stage.get() {
            Stage::Loaded | Stage::Initialized => self.reset(Stage::Loaded),
            Stage::Token | Stage::Public => self.reset(Stage::Token),
            // The right PIN follows one that was not.
            Stage::User if self.owes_a_pin() => self.reset(Stage::Token),
            Stage::User => {}
        }
    }

    /// Sets the user's PIN back, destroys the token objects that the suite made, and finalises the module.
    ///
    /// # Errors
    /// What keeps it from knowing that none is left.
    pub fn leave(&self) -> Result<(), Stop> {
        self.restore_pin()?;
        let may_destroy = self.target.leftovers == Leftovers::Destroy
            && self.target.most.is_none_or(|most| most >= Effect::TokenObjects);
        let swept = if may_destroy && self.target.pin.is_some() { self.sweep() } else { Ok(()) };
        self.reset(Stage::Loaded);
        swept
    }

    fn sweep(&self) -> Result<(), Stop> {
        self.prepare(Stage::User)?;
        let session = self.session()?;
        let ours = Template::new().bytes(CKA_LABEL, LABEL);
        for object in session.find(&ours)? {
            // One that stays is no reason to leave the others; whether it is gone is asked below.
            let _destroyed = session.destroy(object);
        }
        let left = session.find(&ours)?.len();
        ensure(left == 0, "no object of the suite on the token", format!("{left} objects"))
    }

    /// Takes the module back to a stage that it has passed.
    pub fn reset(&self, stage: Stage) {
        self.anchor.set(None);
        self.rsa.set(None);
        if stage < Stage::Initialized {
            // Some modules count how often they were initialised.
            for _ in 0..MOST_FINALIZED {
                if !self.module.call(F::C_Finalize, &[Arg::NULL]).was(CKR_OK) {
                    break;
                }
            }
            self.stage.set(Stage::Loaded);
            return;
        }
        if let Some(slot) = self.slot.get() {
            let _closed = self.module.call(F::C_CloseAllSessions, &[Arg::number(slot)]);
        }
        self.stage.set(self.stage.get().min(Stage::Token));
    }

    fn initialize(&self) -> Result<Stage, Stop> {
        let arguments = self.initialize_args(CKF_OS_LOCKING_OK, 0);
        let rv = self.module.call(F::C_Initialize, &[Arg::of(&arguments)]);
        if !rv.was(CKR_OK) {
            return Err(Stop::Skipped(rv.to_string()));
        }
        Ok(Stage::Initialized)
    }

    /// Arguments of `C_Initialize` with mutexes as in [`initialize_args`], and the string that the module asks for.
    pub fn initialize_args(&self, flags: CK_FLAGS, mutexes: u8) -> CK_C_INITIALIZE_ARGS {
        let string = self.target.init_string.as_ref();
        initialize_args(flags, mutexes, string.map_or(0, |string| string.as_ptr().expose_provenance()))
    }

    fn find_token(&self) -> Result<Stage, Stop> {
        let slots = self.slots(Slots::WithToken)?;
        let wanted = |slot: &CK_SLOT_ID| {
            let Ok(info) = self.token_info(*slot) else { return false };
            match &self.target.token_label {
                Some(label) => info.label.trim_ascii_end() == label.as_bytes(),
                None => info.flags & CKF_TOKEN_INITIALIZED != 0,
            }
        };
        let slot = slots.into_iter().find(wanted);
        self.slot.set(slot);
        slot.map(|_| Stage::Token).ok_or_else(|| Stop::Skipped(self.no_token()))
    }

    fn no_token(&self) -> String {
        match &self.target.token_label {
            Some(label) => format!("the module shows no token with the label {label:?}"),
            None => "the module shows no initialised token".to_owned(),
        }
    }

    fn log_in(&self) -> Result<Stage, Stop> {
        if self.target.pin.is_none() && self.token_info(self.slot()?)?.flags & CKF_LOGIN_REQUIRED == 0 {
            let anchor = self.open_for_good(self.widest())?;
            self.anchor.set(Some(anchor.handle));
            return Ok(Stage::User);
        }
        let pin = self.pin()?;
        if self.standing() == Standing::Refused {
            return Err(Stop::Skipped("the user PIN is not accepted any more".to_owned()));
        }
        let anchor = self.open_for_good(self.widest())?;
        let rv = anchor.login(CKU_USER, &pin);
        if !rv.was(CKR_OK) {
            return Err(Stop::Skipped(rv.to_string()));
        }
        self.anchor.set(Some(anchor.handle));
        Ok(Stage::User)
    }

    /// The slot of the token under test.
    ///
    /// # Errors
    /// `Skipped`, if there is none.
    pub fn slot(&self) -> Result<CK_SLOT_ID, Stop> {
        self.slot.get().ok_or_else(|| Stop::Skipped(self.no_token()))
    }

    /// The slots of the module.
    ///
    /// # Errors
    /// A failure of `C_GetSlotList`.
    pub fn slots(&self, which: Slots) -> Result<Vec<CK_SLOT_ID>, Stop> {
        let present = Arg::number(CK_ULONG::from(which == Slots::WithToken));
        let mut count: CK_ULONG = 0;
        self.module.call(F::C_GetSlotList, &[present, Arg::NULL, Arg::of_mut(&mut count)]).ok()?;
        let mut slots: Vec<CK_SLOT_ID> = vec![0; believable(F::C_GetSlotList, count)?];
        let arguments = [present, Arg::slice_mut(&mut slots), Arg::of_mut(&mut count)];
        self.module.call(F::C_GetSlotList, &arguments).ok()?;
        slots.truncate(usize::try_from(count).unwrap_or(0));
        Ok(slots)
    }

    /// `CK_TOKEN_INFO` of a slot.
    ///
    /// # Errors
    /// A failure of `C_GetTokenInfo`.
    pub fn token_info(&self, slot: CK_SLOT_ID) -> Result<CK_TOKEN_INFO, Stop> {
        let mut info = CK_TOKEN_INFO::default();
        self.module.call(F::C_GetTokenInfo, &[Arg::number(slot), Arg::of_mut(&mut info)]).ok()?;
        Ok(info)
    }

    /// The token's mechanisms.
    ///
    /// # Errors
    /// A failure of `C_GetMechanismList`.
    pub fn mechanisms(&self) -> Result<&[CK_MECHANISM_TYPE], Stop> {
        if let Some(known) = self.mechanisms.get() {
            return Ok(known);
        }
        let slot = Arg::number(self.slot()?);
        let mut count: CK_ULONG = 0;
        self.module.call(F::C_GetMechanismList, &[slot, Arg::NULL, Arg::of_mut(&mut count)]).ok()?;
        let mut list: Vec<CK_MECHANISM_TYPE> = vec![0; believable(F::C_GetMechanismList, count)?];
        let arguments = [slot, Arg::slice_mut(&mut list), Arg::of_mut(&mut count)];
        self.module.call(F::C_GetMechanismList, &arguments).ok()?;
        list.truncate(usize::try_from(count).unwrap_or(0));
        Ok(self.mechanisms.get_or_init(|| list))
    }

    /// `CK_MECHANISM_INFO`, if the token has the mechanism for this use (`CKF_SIGN` and so on).
    ///
    /// # Errors
    /// `NotOffered`, if it has not.
    pub fn offers(&self, mechanism: CK_MECHANISM_TYPE, flag: CK_FLAGS) -> Result<CK_MECHANISM_INFO, Stop> {
        if !self.mechanisms()?.contains(&mechanism) {
            return Err(Stop::NotOffered);
        }
        let mut info = CK_MECHANISM_INFO::default();
        let arguments = [Arg::number(self.slot()?), Arg::number(mechanism), Arg::of_mut(&mut info)];
        self.module.call(F::C_GetMechanismInfo, &arguments).ok()?;
        if info.flags & flag == flag { Ok(info) } else { Err(Stop::NotOffered) }
    }

    /// A session with these flags, closed when the check ends.
    ///
    /// # Errors
    /// A failure of `C_OpenSession`.
    pub fn open(&self, flags: CK_FLAGS) -> Result<Session<'_>, Stop> {
        let session = self.open_for_good(flags)?;
        self.opened.borrow_mut().push(session.handle);
        Ok(session)
    }

    /// A read-write session; on a token that is write-protected, a read-only one.
    ///
    /// # Errors
    /// A failure of `C_OpenSession`.
    pub fn session(&self) -> Result<Session<'_>, Stop> {
        self.open(self.widest())
    }

    /// Whether there is a user to log in as.
    ///
    /// # Errors
    /// `NotOffered`, if the token has no PIN and asks for none.
    pub fn knows_users(&self) -> Result<(), Stop> {
        let flags = self.token_info(self.slot()?)?.flags;
        if flags & (CKF_LOGIN_REQUIRED | CKF_USER_PIN_INITIALIZED) == 0 {
            Err(Stop::NotOffered)
        } else {
            Ok(())
        }
    }

    /// Whether nobody can write to the token.
    pub fn is_write_protected(&self) -> bool {
        self.slot()
            .and_then(|slot| self.token_info(slot))
            .is_ok_and(|info| info.flags & CKF_WRITE_PROTECTED != 0)
    }

    /// The flags of a session that may do as much as the token lets one do.
    fn widest(&self) -> CK_FLAGS {
        let known = self.widest.get().unwrap_or_else(|| match self.is_write_protected() {
            true => CKF_SERIAL_SESSION,
            false => CKF_SERIAL_SESSION | CKF_RW_SESSION,
        });
        self.widest.set(Some(known));
        known
    }

    /// A read-only session.
    ///
    /// # Errors
    /// A failure of `C_OpenSession`.
    pub fn read_only(&self) -> Result<Session<'_>, Stop> {
        self.open(CKF_SERIAL_SESSION)
    }

    fn open_for_good(&self, flags: CK_FLAGS) -> Result<Session<'_>, Stop> {
        let mut handle: CK_SESSION_HANDLE = 0;
        let arguments =
            [Arg::number(self.slot()?), Arg::number(flags), Arg::NULL, Arg::NULL, Arg::of_mut(&mut handle)];
        self.module.call(F::C_OpenSession, &arguments).ok()?;
        Ok(Session { bench: self, handle })
    }

    /// An RSA key pair of 2048 bits for all uses, made once, because making one takes long.
    ///
    /// # Errors
    /// `NotOffered`, or a failure of `C_GenerateKeyPair`.
    pub fn rsa(&self) -> Result<KeyPair, Stop> {
        if let Some(pair) = self.rsa.get() {
            return Ok(pair);
        }
        self.offers(CKM_RSA_PKCS_KEY_PAIR_GEN, CKF_GENERATE_KEY_PAIR)?;
        let anchor = self.anchor.get().ok_or_else(|| Stop::Skipped("nobody is logged in".to_owned()))?;
        let session = Session { bench: self, handle: anchor };
        let pair = session.generate_pair(
            &Mechanism::plain(CKM_RSA_PKCS_KEY_PAIR_GEN),
            &crate::session::rsa_public(2048),
            &crate::session::private().usages(&[CKA_DECRYPT]),
        )?;
        self.rsa.set(Some(pair));
        Ok(pair)
    }

    /// What the module does with attributes, learnt once, because that takes a thousand calls.
    ///
    /// # Errors
    /// What keeps it from being learnt.
    pub fn model(&self, learn: impl FnOnce() -> Result<Model, Stop>) -> Result<&Model, Stop> {
        if let Some(known) = self.model.get() {
            return Ok(known);
        }
        let learnt = learn()?;
        Ok(self.model.get_or_init(|| learnt))
    }

    /// A hash value of the module's own making.
    ///
    /// # Errors
    /// `NotOffered`, or a failure of `C_Digest`.
    pub fn sha256(&self, data: &[u8]) -> Result<Vec<u8>, Stop> {
        self.offers(CKM_SHA256, CKF_DIGEST)?;
        let session = self.session()?;
        session.init(F::C_DigestInit, &Mechanism::plain(CKM_SHA256), None).ok()?;
        let mut out = Out::room(32);
        session.run(F::C_Digest, data, &mut out).ok()?;
        Ok(out.bytes().to_vec())
    }
}
