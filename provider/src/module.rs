//! The library's state between `C_Initialize` and `C_Finalize` (PKCS#11 3.1, sections 5.4 and 5.6), and across `fork`.
//!
//! All of it hangs on one [`ArcSwapOption`]: readers never block, writers replace. Shared maps are persistent
//! and replaced whole too, so a `fork` at any moment leaves the child nothing half-written and no lock held.
//! The only locks are one per session and one per connection pool; [`Module::forked`] tells what becomes of them.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use imbl::OrdMap;
use pkcs11_sys::*;
use strongroom_shared::message::{EndInstance, InstanceId, LoggedIn, Ticket, User};

use crate::{
    config::{Config, Deadlines},
    hsm::{self, Hsm, Patience, RequestIds, Transport},
    log::{self, Level},
    mandate::Mandates,
    object::Objects,
    rv::Error,
    seen::Shown,
    session::{Context, Session},
    slot::Slot,
    tls::{Tls, Traffic},
};

static MODULE: ArcSwapOption<Module> = ArcSwapOption::const_empty();

/// The initialised library, in one process.
pub struct Module {
    /// The process that it belongs to: a forked child builds its own.
    process: u32,
    /// Whose session objects these are.
    instance: InstanceId,
    origin: Origin,
    slots: Vec<Slot>,
    state: ArcSwap<State>,
    pub(crate) objects: ArcSwap<Objects>,
    next_session: AtomicU64,
    pub(crate) next_object: AtomicU64,
}

/// The way to a slot's server.
pub struct Way {
    /// What the server is called.
    pub server: String,
    /// What carries the calls to it.
    pub transport: Box<dyn Transport>,
    /// For calls to keys that several nodes share.
    pub mandates: Mandates,
}

impl Way {
    /// To a server of this name, without mandates.
    pub fn new(server: impl Into<String>, transport: Box<dyn Transport>) -> Self {
        Self { server: server.into(), transport, mandates: Mandates::default() }
    }
}

/// How a module came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// By `C_Initialize` in this process: the instance is ours to end.
    Initialized,
    /// By `fork`: the instance is the parent's, and its session objects stay when we go.
    Forked,
}

/// Sessions and logins, changed together: the rules of one look at the other.
#[derive(Clone, Default)]
pub struct State {
    /// By handle.
    pub sessions: OrdMap<CK_SESSION_HANDLE, Arc<Session>>,
    /// By slot: a login is the application's, in all its sessions on the token.
    pub logins: OrdMap<CK_SLOT_ID, Login>,
}

/// Who is logged in. The PIN is not kept, only what it earned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// As whom.
    pub user: User,
    /// Shown with every call.
    pub ticket: Ticket,
    /// From when on a call asks for another ticket first.
    pub renew_from: Option<Instant>,
    /// For how long a ticket of this login is good, if the server says.
    pub life: Option<Duration>,
}

/// After this part of a ticket's life another one is asked for.
const RENEW_AFTER: f64 = 0.5;

impl Login {
    /// A login by a ticket that the server has just given.
    pub fn new(user: User, given: LoggedIn) -> Self {
        let life = given.life.map(Duration::from_secs);
        Self { user, ticket: given.ticket, renew_from: None, life }.begun()
    }

    /// The same login, whose ticket's life begins now.
    pub fn begun(self) -> Self {
        let renew_from = self.life.and_then(|life| Instant::now().checked_add(life.mul_f64(RENEW_AFTER)));
        Self { renew_from, ..self }
    }
}

impl State {
    /// The sessions of a slot.
    pub fn of_slot(&self, slot: CK_SLOT_ID) -> impl Iterator<Item = &Arc<Session>> {
        self.sessions.values().filter(move |session| session.slot == slot)
    }
}

/// What `C_Initialize` was given (`CK_C_INITIALIZE_ARGS`).
#[derive(Clone, Copy, Debug, Default)]
pub struct InitializeArguments {
    /// How many of the four mutex functions there are.
    pub mutex_functions: usize,
    /// `CKF_*`.
    pub flags: CK_FLAGS,
    /// Whether `pReserved` points anywhere.
    pub reserved: Option<()>,
}

impl InitializeArguments {
    /// We lock by the operating system, and make no thread, so only an insistence on the application's own
    /// mutexes cannot be served.
    fn check(self) -> Result<(), Error> {
        match (self.reserved, self.mutex_functions) {
            (Some(()), _) | (None, 1..=3) => Err(Error::ArgumentsBad),
            (None, 0) => Ok(()),
            (None, _) if self.flags & CKF_OS_LOCKING_OK != 0 => Ok(()),
            (None, _) => Err(Error::CantLock),
        }
    }
}

/// `C_Initialize`. Reads the configuration; asks no server.
///
/// # Errors
/// `ArgumentsBad`, `CantLock`, `CryptokiAlreadyInitialized`; `General` if there is no usable configuration.
pub fn initialize(arguments: InitializeArguments) -> Result<(), Error> {
    arguments.check()?;
    let current = MODULE.load();
    if current.as_ref().is_some_and(|module| module.process == std::process::id()) {
        return Err(Error::CryptokiAlreadyInitialized);
    }
    let config = Config::load().map_err(|error| {
        log::write(Level::Error, format_args!("{error}"));
        Error::General
    })?;
    log::open(config.log, config.log_file.as_deref()).map_err(|error| {
        let path = config.log_file.as_deref().unwrap_or(Path::new("")).display();
        log::write(Level::Error, format_args!("cannot open the log file {path}: {error}"));
        Error::General
    })?;
    let traffic = Arc::new(Traffic::default());
    let ways = config.tokens.into_iter().map(|token| {
        let transport = Box::new(Tls::new(token.clone().into(), traffic.clone())) as Box<dyn Transport>;
        Way {
            server: token.server,
            mandates: Mandates::of(token.mandate_key, token.cluster_nodes),
            transport,
        }
    });
    install(Module::over(ways, config.deadlines)?)
}

/// Makes `module` the library's state: `C_Initialize` with a transport of one's own.
///
/// # Errors
/// `CryptokiAlreadyInitialized`.
pub fn install(module: Module) -> Result<(), Error> {
    let current = MODULE.load();
    // A child may start afresh instead of going on with its parent's state.
    if current.as_ref().is_some_and(|module| module.process == std::process::id()) {
        return Err(Error::CryptokiAlreadyInitialized);
    }
    if let Some(parents) = current.as_ref() {
        parents.leave_connections();
    }
    let previous = MODULE.compare_and_swap(&*current, Some(Arc::new(module)));
    let installed = match (previous.as_ref(), current.as_ref()) {
        (None, None) => true,
        (Some(previous), Some(current)) => Arc::ptr_eq(previous, current),
        (Some(_), None) | (None, Some(_)) => false,
    };
    if installed { Ok(()) } else { Err(Error::CryptokiAlreadyInitialized) }
}

/// `C_Finalize`. Ends the instance, closes every connection and the log.
///
/// # Errors
/// `CryptokiNotInitialized`.
pub fn finalize() -> Result<(), Error> {
    let module = module()?;
    let previous = MODULE.compare_and_swap(&Some(module.clone()), None);
    if !previous.as_ref().is_some_and(|previous| Arc::ptr_eq(previous, &module)) {
        return Err(Error::CryptokiNotInitialized);
    }
    module.end();
    log::close();
    Ok(())
}

/// The library's state in this process.
///
/// # Errors
/// `CryptokiNotInitialized`.
pub fn module() -> Result<Arc<Module>, Error> {
    loop {
        let module = present()?;
        if module.process == std::process::id() {
            return Ok(module);
        }
        let Some(_turn) = Turn::take() else {
            thread::yield_now();
            continue;
        };
        // Another thread may have had its turn since. What is the parent's is taken over once, by one thread.
        let module = present()?;
        if module.process != std::process::id() {
            let child = Arc::new(module.forked()?);
            MODULE.compare_and_swap(&Some(module), Some(child));
        }
    }
}

fn present() -> Result<Arc<Module>, Error> {
    MODULE.load_full().ok_or(Error::CryptokiNotInitialized)
}

/// The process in which a thread builds a forked child's module; 0 for none. Not a lock: a child that is forked while
/// its parent does so would find it held for ever, but this names another process then, and is taken over.
static FORKING: AtomicU32 = AtomicU32::new(0);

/// A thread's turn to build a forked child's module.
struct Turn;

impl Turn {
    fn take() -> Option<Self> {
        let (at_it, me) = (FORKING.load(Ordering::Relaxed), std::process::id());
        let taken =
            at_it != me && FORKING.compare_exchange(at_it, me, Ordering::Acquire, Ordering::Relaxed).is_ok();
        taken.then(|| Self)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        FORKING.store(0, Ordering::Release);
    }
}

impl Module {
    /// A module whose slots are the given servers.
    ///
    /// # Errors
    /// `General` if the operating system has no random numbers.
    pub fn over(ways: impl IntoIterator<Item = Way>, deadlines: Deadlines) -> Result<Self, Error> {
        let ids = Arc::new(RequestIds::random()?);
        let slots = (0..)
            .zip(ways)
            .map(|(id, Way { server, transport, mandates })| Slot {
                id,
                server,
                hsm: Hsm::over(transport, ids.clone(), deadlines),
                mandates,
                shown: Shown::default(),
            })
            .collect();
        Ok(Self {
            process: std::process::id(),
            instance: hsm::new_instance()?,
            origin: Origin::Initialized,
            slots,
            state: ArcSwap::default(),
            objects: ArcSwap::default(),
            next_session: AtomicU64::new(1),
            next_object: AtomicU64::new(1),
        })
    }

    /// The module of a forked child: the same sessions, logins and handles, over connections of its own.
    ///
    /// The instance stays the parent's, so that its session objects can be used; request ids and the numbers of
    /// new sessions start somewhere else, so that the vault never takes one process's for the other's. A session
    /// that another thread was using at the moment of the fork comes without its active operations.
    ///
    /// # Errors
    /// `General` if the operating system has no random numbers.
    pub fn forked(&self) -> Result<Self, Error> {
        let ids = Arc::new(RequestIds::random()?);
        let state = self.state.load();
        let sessions = state.sessions.iter().map(|(handle, session)| (*handle, Session::forked(session)));
        let sessions = sessions.collect();
        // 2^20 sessions between one process's numbers and the next one's.
        let offset = u64::from(getrandom::u32().map_err(|_| Error::General)?) << 20;
        Ok(Self {
            process: std::process::id(),
            instance: self.instance,
            origin: Origin::Forked,
            slots: self.slots.iter().map(|slot| slot.after_fork(ids.clone())).collect(),
            state: ArcSwap::from_pointee(State { sessions, logins: state.logins.clone() }),
            objects: ArcSwap::new(self.objects.load_full()),
            next_session: AtomicU64::new((self.next_session.load(Ordering::Relaxed)).wrapping_add(offset)),
            next_object: AtomicU64::new(self.next_object.load(Ordering::Relaxed)),
        })
    }

    /// Closes this process's copies of its parent's connections.
    fn leave_connections(&self) {
        let ids = RequestIds::random().map(Arc::new);
        if let Ok(ids) = ids {
            self.slots.iter().for_each(|slot| drop(slot.after_fork(ids.clone())));
        }
    }

    /// Whether the session objects of this instance are its own, not a parent's.
    pub fn owns_its_session_objects(&self) -> bool {
        self.origin != Origin::Forked
    }

    /// Tells every server that has heard of this instance that it is over. A server that is down need not know:
    /// it forgets instances whose connections are gone.
    fn end(&self) {
        if self.origin == Origin::Forked {
            return;
        }
        for slot in self.slots.iter().filter(|slot| slot.hsm.has_answered()) {
            let caller = self.caller(slot.id, None);
            if let Err(error) = slot.hsm.call_with(&caller, &EndInstance {}, Patience::None) {
                log::write(Level::Info, format_args!("C_Finalize: {error}"));
            }
        }
    }

    /// Every slot, in the order of its number.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The slot with this number.
    ///
    /// # Errors
    /// `SlotIdInvalid`.
    pub fn slot(&self, id: CK_SLOT_ID) -> Result<&Slot, Error> {
        usize::try_from(id).ok().and_then(|index| self.slots.get(index)).ok_or(Error::SlotIdInvalid)
    }

    /// The sessions and logins as they are now.
    pub fn state(&self) -> Guard<Arc<State>> {
        self.state.load()
    }

    /// Changes sessions and logins by a function that sees a consistent state; it may run more than once.
    ///
    /// # Errors
    /// The function's own: nothing changed then.
    pub fn change<T>(&self, change: impl Fn(&mut State) -> Result<T, Error>) -> Result<T, Error> {
        let mut current = self.state.load();
        loop {
            let mut next = State::clone(&current);
            let value = change(&mut next)?;
            let previous = self.state.compare_and_swap(&*current, Arc::new(next));
            if Arc::ptr_eq(&previous, &current) {
                return Ok(value);
            }
            current = previous;
        }
    }

    /// A session by its handle, with everything that its calls need.
    ///
    /// # Errors
    /// `SessionHandleInvalid`.
    pub fn session(&self, handle: CK_SESSION_HANDLE) -> Result<Context<'_>, Error> {
        let session = self.state.load().sessions.get(&handle).cloned().ok_or(Error::SessionHandleInvalid)?;
        let slot = self.slot(session.slot).map_err(|_| Error::SessionHandleInvalid)?;
        Ok(Context { module: self, session, slot })
    }

    /// A handle that no session of this process has had.
    pub(crate) fn new_session_handle(&self) -> CK_SESSION_HANDLE {
        self.next_session.fetch_add(1, Ordering::Relaxed)
    }

    /// Who asks, in a call on a slot.
    pub(crate) fn caller(
        &self,
        slot: CK_SLOT_ID,
        session: Option<&Session>,
    ) -> strongroom_shared::message::Caller {
        strongroom_shared::message::Caller {
            instance: self.instance,
            session: session.map_or(0, |session| session.handle),
            read_write: session.is_some_and(Session::is_read_write),
            ticket: self.state.load().logins.get(&slot).map(|login| login.ticket.clone()),
            ended: Vec::new(),
        }
    }
}
