//! The workbench of a child process: the module, a token, and the state that a check asks to begin in.

pub mod another_pin;
mod pins;
mod preflight;
mod sweep;
mod target;
mod token;

use std::cell::{Cell, OnceCell, RefCell, RefMut};
use std::fs::File;

use cryptoki_sys::*;
use serde::{Deserialize, Serialize};

use crate::check::{Check, Stop};
use crate::observations::{Measured, Observation};
use crate::probe::model::Model;
use crate::proxy::desk::Desk;
use crate::raw::{Arg, Function as F, Module, initialize_args};
use crate::seed::Seeded;
use crate::session::{KeyPair, Session};
use crate::template::{Mechanism, Out};
use crate::trace::Recorder;
use crate::tries::Holder;
pub use pins::NO_USER_PIN;
pub use preflight::FirstLook;
pub use sweep::Swept;
pub use target::{Leftovers, Pin, Target, Tries};
pub use token::Slots;

/// The label of every object that the suite makes. Nobody else gives it to an object that should stay.
pub const LABEL: &[u8] = b"p11-conformance: to be destroyed";

/// How often a module is finalised, at most, until it says that it is.
const MOST_FINALIZED: usize = 4;

/// How many slots, mechanisms or objects a module is believed to have.
pub const MOST_LISTED: usize = 1 << 16;

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
        let calls = target.calls.as_ref().and_then(|path| File::options().write(true).open(path).ok());
        let recorder = Recorder::new(target.secrets(), calls);
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
