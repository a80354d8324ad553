//! Sessions and logins (PKCS#11 3.1, section 5.6).
//!
//! A session is ours: opening one costs a round trip only when it is the first on its token, to learn whether
//! the token is there. A login is the application's, in all its sessions on the token; closing the last logs out.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use pkcs11_sys::*;
use strongroom_shared::{
    fault::FaultCode,
    message::{
        CloseSession, InitPin, Login as LoginCall, Logout, Pin, ReadToken, RenewTicket, SetPin, Ticket, User,
    },
    wire::Call,
};

use crate::{
    hsm::Patience,
    log::{self, Level},
    module::{Login, Module},
    operation::Operations,
    rv::Error,
    slot::Slot,
};

/// How long to wait before a ticket is renewed that could not be.
const RENEW_AGAIN: Duration = Duration::from_secs(30);

/// Whether a session may change the token (`CKF_RW_SESSION`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Session objects only.
    ReadOnly,
    /// Token objects too.
    ReadWrite,
}

/// An open session.
pub struct Session {
    /// `CK_SESSION_HANDLE`.
    pub handle: CK_SESSION_HANDLE,
    /// The slot that it is on.
    pub slot: CK_SLOT_ID,
    access: Access,
    objects: SessionObjects,
    operations: Mutex<Operations>,
}

/// What the server must be told when a session ends.
enum SessionObjects {
    /// To destroy its objects, if it made any.
    Ours(AtomicBool),
    /// Nothing: a parent process has this session too, and its objects are the parent's to destroy.
    Parents,
}

impl Session {
    fn new(handle: CK_SESSION_HANDLE, slot: CK_SLOT_ID, access: Access) -> Self {
        let objects = SessionObjects::Ours(AtomicBool::new(false));
        Self { handle, slot, access, objects, operations: Mutex::default() }
    }

    /// The session in a forked child, with its active operations unless a thread that the child does not
    /// have holds their lock for ever.
    pub(crate) fn forked(session: &Arc<Self>) -> Arc<Self> {
        let operations = match session.operations.try_lock() {
            Ok(mut operations) => std::mem::take(&mut *operations),
            Err(_) => Operations::default(),
        };
        Arc::new(Self {
            handle: session.handle,
            slot: session.slot,
            access: session.access,
            objects: SessionObjects::Parents,
            operations: Mutex::new(operations),
        })
    }

    /// Whether it may change token objects.
    pub fn is_read_write(&self) -> bool {
        self.access == Access::ReadWrite
    }

    /// Its active operations. A second thread in the same session waits for the first.
    pub fn operations(&self) -> MutexGuard<'_, Operations> {
        self.operations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the server keeps an object for this session.
    pub(crate) fn made_object(&self) {
        match &self.objects {
            SessionObjects::Ours(made) => made.store(true, Ordering::Relaxed),
            SessionObjects::Parents => {}
        }
    }

    fn has_objects(&self) -> bool {
        match &self.objects {
            SessionObjects::Ours(made) => made.load(Ordering::Relaxed),
            SessionObjects::Parents => false,
        }
    }
}

/// A session in use: what every chapter of the standard works on.
pub struct Context<'m> {
    /// The library.
    pub module: &'m Module,
    /// The session.
    pub session: Arc<Session>,
    /// Its slot.
    pub slot: &'m Slot,
}

impl Context<'_> {
    /// Makes a call in the name of this session. A ticket that grows old is renewed first; one that has expired,
    /// because nobody called for hours, is renewed and the call made again. If it cannot be, the login is over.
    ///
    /// # Errors
    /// As `Hsm::call`.
    pub fn call<C: Call>(&self, call: &C) -> Result<C::Reply, Error> {
        self.renew_in_time();
        let caller = self.module.caller(self.slot.id, Some(&self.session));
        let result = self.slot.hsm.call(&caller, call);
        match (&result, &caller.ticket) {
            // It was refused before anything was done, so this is another request.
            (Err(Error::Fault(fault)), Some(ticket)) if fault.code == FaultCode::TicketExpired => {
                self.renew_expired(ticket)?;
                self.slot.hsm.call(&self.module.caller(self.slot.id, Some(&self.session)), call)
            }
            _ => result,
        }
    }

    /// Renews a ticket that is good yet, in one of the threads that come by. The others go on with the one they have.
    fn renew_in_time(&self) {
        let now = Instant::now();
        let due = |login: &Login| login.renew_from.is_some_and(|from| from <= now);
        if !self.login().is_some_and(|login| due(&login)) {
            return;
        }
        let mine = self.module.change(|state| match state.logins.get_mut(&self.slot.id) {
            Some(login) if due(login) => {
                login.renew_from = now.checked_add(RENEW_AGAIN);
                Ok(Some(login.ticket.clone()))
            }
            Some(_) | None => Ok(None),
        });
        if let Ok(Some(ticket)) = mine
            && let Err(error) = self.renew(&ticket)
        {
            log::write(Level::Info, format_args!("the login could not be renewed yet: {error}"));
        }
    }

    /// Replaces a ticket that the server does not take any more, unless another thread has done so.
    ///
    /// # Errors
    /// It cannot be renewed: the login is over, unless it was only that the server did not answer.
    fn renew_expired(&self, ticket: &Ticket) -> Result<(), Error> {
        if self.login().is_some_and(|login| login.ticket != *ticket) {
            return Ok(());
        }
        self.renew(ticket).inspect_err(|error| {
            if let Error::Fault(fault) = error
                && matches!(fault.code, FaultCode::TicketExpired | FaultCode::NotLoggedIn)
            {
                self.forget_login(ticket);
            }
        })
    }

    fn renew(&self, ticket: &Ticket) -> Result<(), Error> {
        let mut caller = self.module.caller(self.slot.id, Some(&self.session));
        caller.ticket = Some(ticket.clone());
        let given = self.slot.hsm.call(&caller, &RenewTicket {})?;
        self.module.change(|state| {
            if let Some(login) = state.logins.get_mut(&self.slot.id)
                && login.ticket == *ticket
            {
                let (ticket, life) = (given.ticket.clone(), given.life.map(Duration::from_secs));
                *login = Login { ticket, life, ..login.clone() }.begun();
            }
            Ok(())
        })
    }

    /// Who is logged in on this token.
    pub fn login(&self) -> Option<Login> {
        self.module.state().logins.get(&self.slot.id).cloned()
    }

    /// Fails unless the session may change the token.
    ///
    /// # Errors
    /// `SessionReadOnly`.
    pub fn require_read_write(&self) -> Result<(), Error> {
        if self.session.is_read_write() { Ok(()) } else { Err(Error::SessionReadOnly) }
    }

    /// Ends the login that this ticket stands for, unless another has taken its place.
    fn forget_login(&self, ticket: &Ticket) {
        let _unchanged = self.module.change(|state| {
            if state.logins.get(&self.slot.id).is_some_and(|login| login.ticket == *ticket) {
                state.logins.remove(&self.slot.id);
            }
            Ok(())
        });
    }
}

/// `C_OpenSession`. Asks the server only for the first session on a token.
///
/// # Errors
/// `SessionParallelNotSupported`, `SlotIdInvalid`, `TokenNotPresent`, `TokenNotRecognized` (it is not initialised),
/// `SessionReadWriteSoExists`.
pub fn open(module: &Module, slot: CK_SLOT_ID, flags: CK_FLAGS) -> Result<CK_SESSION_HANDLE, Error> {
    let slot = module.slot(slot)?;
    if flags & CKF_SERIAL_SESSION == 0 {
        return Err(Error::SessionParallelNotSupported);
    }
    let first = module.state().of_slot(slot.id).next().is_none();
    if first {
        let token = slot.hsm.call(&module.caller(slot.id, None), &ReadToken {}).map_err(Error::of_slot)?;
        if !token.initialized {
            return Err(Error::TokenNotRecognized);
        }
    }
    let access = if flags & CKF_RW_SESSION == 0 { Access::ReadOnly } else { Access::ReadWrite };
    let session = Arc::new(Session::new(module.new_session_handle(), slot.id, access));
    module.change(|state| {
        let officer = state.logins.get(&slot.id).is_some_and(|login| login.user == User::SecurityOfficer);
        if access == Access::ReadOnly && officer {
            return Err(Error::SessionReadWriteSoExists);
        }
        state.sessions.insert(session.handle, session.clone());
        Ok(())
    })?;
    Ok(session.handle)
}

/// `C_CloseSession`.
///
/// # Errors
/// None beyond those of finding the session: a server that is down forgets the objects by itself.
pub fn close(context: &Context<'_>) -> Result<(), Error> {
    end(context.module, context.slot, std::slice::from_ref(&context.session));
    Ok(())
}

/// `C_CloseAllSessions`.
///
/// # Errors
/// `SlotIdInvalid`.
pub fn close_all(module: &Module, slot: CK_SLOT_ID) -> Result<(), Error> {
    let slot = module.slot(slot)?;
    let sessions: Vec<_> = module.state().of_slot(slot.id).cloned().collect();
    end(module, slot, &sessions);
    Ok(())
}

/// Closes sessions, destroys their objects, and logs out if none is left on the token.
fn end(module: &Module, slot: &Slot, sessions: &[Arc<Session>]) {
    let told = |error: Error| log::write(Level::Info, format_args!("closing a session: {error}"));
    let before = module.caller(slot.id, None);
    let logged_out = module.change(|state| {
        for session in sessions {
            state.sessions.remove(&session.handle);
        }
        let last = state.of_slot(slot.id).next().is_none();
        Ok(if last { state.logins.remove(&slot.id) } else { None })
    });
    for session in sessions.iter().filter(|session| session.has_objects()) {
        let mut caller = module.caller(slot.id, Some(session));
        caller.ticket = before.ticket.clone();
        if let Err(error) = slot.hsm.call_with(&caller, &CloseSession {}, Patience::None) {
            told(error);
        }
        module.forget_objects(slot.id, |object| object.owner == Some(session.handle));
    }
    if let Ok(Some(_login)) = logged_out {
        module.forget_objects(slot.id, |object| object.info.private);
        // The server destroys private session objects with a logout; a child's would be its parent's.
        if module.owns_its_session_objects()
            && let Err(error) = slot.hsm.call_with(&before, &Logout {}, Patience::None)
        {
            told(error);
        }
    }
}

/// `C_GetSessionInfo`.
pub fn info(context: &Context<'_>) -> CK_SESSION_INFO {
    let login = context.login().map(|login| login.user);
    let (state, flags) = match (context.session.access, login) {
        (Access::ReadOnly, None) => (CKS_RO_PUBLIC_SESSION, 0),
        (Access::ReadOnly, Some(_)) => (CKS_RO_USER_FUNCTIONS, 0),
        (Access::ReadWrite, None) => (CKS_RW_PUBLIC_SESSION, CKF_RW_SESSION),
        (Access::ReadWrite, Some(User::Normal)) => (CKS_RW_USER_FUNCTIONS, CKF_RW_SESSION),
        (Access::ReadWrite, Some(User::SecurityOfficer)) => (CKS_RW_SO_FUNCTIONS, CKF_RW_SESSION),
    };
    CK_SESSION_INFO { slotID: context.slot.id, state, flags: flags | CKF_SERIAL_SESSION, ulDeviceError: 0 }
}

/// `C_SessionCancel` (3.0): ends the operations that the flags name. Flags of operations that are not there, or
/// not active, ask for nothing.
pub fn cancel(context: &Context<'_>, flags: CK_FLAGS) {
    context.session.operations().cancel(flags);
}

/// `C_Login` and `C_LoginUser`.
///
/// `CKU_CONTEXT_SPECIFIC` shows the PIN of whoever is logged in once more, during an operation.
///
/// # Errors
/// `UserTypeInvalid`, `UserAlreadyLoggedIn`, `UserAnotherAlreadyLoggedIn`, `SessionReadOnlyExists`,
/// `OperationNotInitialized` (context-specific without an operation), `PinIncorrect`, `PinLocked`, ….
pub fn login(context: &Context<'_>, user: CK_USER_TYPE, pin: &[u8]) -> Result<(), Error> {
    let user = match user {
        CKU_USER => User::Normal,
        CKU_SO => User::SecurityOfficer,
        CKU_CONTEXT_SPECIFIC => return login_again(context, pin),
        _ => return Err(Error::UserTypeInvalid),
    };
    let may_log_in = |state: &crate::module::State| match state.logins.get(&context.slot.id) {
        Some(login) if login.user == user => Err(Error::UserAlreadyLoggedIn),
        Some(_) => Err(Error::UserAnotherAlreadyLoggedIn),
        None if user == User::SecurityOfficer
            && state.of_slot(context.slot.id).any(|session| !session.is_read_write()) =>
        {
            Err(Error::SessionReadOnlyExists)
        }
        None => Ok(()),
    };
    may_log_in(&context.module.state())?;
    let login = Login::new(user, context.call(&LoginCall { user, pin: Pin::new(pin) })?);
    // Another thread may have been faster.
    context.module.change(|state| {
        may_log_in(state)?;
        state.logins.insert(context.slot.id, login.clone());
        Ok(())
    })
}

fn login_again(context: &Context<'_>, pin: &[u8]) -> Result<(), Error> {
    if !context.session.operations().uses_key() {
        return Err(Error::OperationNotInitialized);
    }
    let user = context.login().ok_or(Error::UserNotLoggedIn)?.user;
    let login = Login::new(user, context.call(&LoginCall { user, pin: Pin::new(pin) })?);
    context.module.change(|state| {
        state.logins.insert(context.slot.id, login.clone());
        Ok(())
    })
}

/// `C_Logout`. Handles of private objects are dead from here on, even after another login.
///
/// # Errors
/// `UserNotLoggedIn`; a `Link` failure, but the application is logged out all the same.
pub fn logout(context: &Context<'_>) -> Result<(), Error> {
    if context.login().is_none() {
        return Err(Error::UserNotLoggedIn);
    }
    let result = match context.module.owns_its_session_objects() {
        true => context.call(&Logout {}).map(drop),
        false => Ok(()),
    };
    context.module.change(|state| {
        state.logins.remove(&context.slot.id);
        Ok(())
    })?;
    context.module.forget_objects(context.slot.id, |object| object.info.private);
    match result {
        Ok(()) => Ok(()),
        Err(Error::Fault(fault))
            if matches!(fault.code, FaultCode::TicketExpired | FaultCode::NotLoggedIn) =>
        {
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// `C_InitPIN`.
///
/// # Errors
/// `SessionReadOnly`, `UserNotLoggedIn` unless the security officer is; the server's word on the PIN.
pub fn init_pin(context: &Context<'_>, pin: &[u8]) -> Result<(), Error> {
    context.require_read_write()?;
    match context.login() {
        Some(login) if login.user == User::SecurityOfficer => {}
        Some(_) | None => return Err(Error::UserNotLoggedIn),
    }
    context.call(&InitPin { pin: Pin::new(pin) }).map(drop)
}

/// `C_SetPIN`: of whoever is logged in, of the normal user if nobody is. The login survives by a new ticket.
///
/// # Errors
/// `SessionReadOnly`; the server's word on the PINs.
pub fn set_pin(context: &Context<'_>, old: &[u8], new: &[u8]) -> Result<(), Error> {
    context.require_read_write()?;
    let changed = context.call(&SetPin { old: Pin::new(old), new: Pin::new(new) })?;
    context.module.change(|state| {
        if let (Some(login), Some(ticket)) = (state.logins.get_mut(&context.slot.id), &changed.ticket) {
            login.ticket = ticket.clone();
            *login = login.clone().begun();
        }
        Ok(())
    })
}
