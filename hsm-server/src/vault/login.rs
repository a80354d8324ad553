//! The token, its PINs and its lockout: `C_GetTokenInfo`, `C_InitToken`, `C_InitPIN`, `C_SetPIN`, `C_Login`, `C_Logout`.
//!
//! The failure counter is on disk before a PIN is looked at, and PINs are looked at one after the other, so
//! neither kill -9 nor sixteen connections at once win a guess.

use argon2::{Algorithm, Argon2, Params, Version};
use strongroom_shared::{fault::FaultCode, message::*, secret::Secret, wire::Handle};
use subtle::ConstantTimeEq;

use super::{
    Context, Settings, Vault,
    error::Error,
    partition::Partition,
    record::Change,
    records::{PartitionRecord, PinRecord, RolesRecord},
    tickets::{Login as LoginTicket, LoginId},
};
use crate::{platform::Platform, store::Path};

/// The shortest PIN, in bytes.
const MIN_PIN: usize = 4;
/// The longest PIN, in bytes.
const MAX_PIN: usize = 255;
/// Wrong PINs in a row that lock the normal user.
const USER_TRIES: u32 = 10;
/// Wrong PINs in a row that lock the security officer.
const OFFICER_TRIES: u32 = 3;

/// As whom a caller acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Not logged in.
    Public,
    /// `CKU_USER`.
    User,
    /// `CKU_SO`.
    SecurityOfficer,
}

impl From<User> for Role {
    fn from(user: User) -> Self {
        match user {
            User::Normal => Self::User,
            User::SecurityOfficer => Self::SecurityOfficer,
        }
    }
}

impl RolesRecord {
    fn pin(&self, user: User) -> Option<&PinRecord> {
        match user {
            User::Normal => self.user.as_ref(),
            User::SecurityOfficer => self.security_officer.as_ref(),
        }
    }

    fn set_pin(&mut self, user: User, pin: Option<PinRecord>) {
        match user {
            User::Normal => self.user = pin,
            User::SecurityOfficer => self.security_officer = pin,
        }
    }

    fn tries(&self, user: User) -> Tries {
        let failures = self.pin(user).map_or(0, |pin| pin.failures);
        match limit(user).saturating_sub(failures) {
            0 => Tries::None,
            _ if failures == 0 => Tries::All,
            1 => Tries::Last,
            _ => Tries::Some,
        }
    }
}

const fn limit(user: User) -> u32 {
    match user {
        User::Normal => USER_TRIES,
        User::SecurityOfficer => OFFICER_TRIES,
    }
}

/// argon2id with 19 MiB and two passes (OWASP's first choice for interactive logins).
fn hash(pin: &Pin, salt: &[u8; 16]) -> Result<Secret<[u8; 32]>, Error> {
    let mut hash = [0; 32];
    let params = Params::new(19 * 1024, 2, 1, Some(hash.len())).map_err(|_| FaultCode::Internal)?;
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(pin.0.expose(), salt, &mut hash)
        .map_err(|_| FaultCode::Internal)?;
    Ok(Secret::new(hash))
}

fn check_new(pin: &Pin) -> Result<(), Error> {
    if !(MIN_PIN..=MAX_PIN).contains(&pin.0.expose().len()) {
        return Err(Error::caller(FaultCode::PinLength, format!("a PIN has {MIN_PIN} to {MAX_PIN} bytes")));
    }
    if std::str::from_utf8(pin.0.expose()).is_err() {
        return Err(Error::caller(FaultCode::PinInvalid, "a PIN is UTF-8"));
    }
    Ok(())
}

impl<P: Platform> Vault<P> {
    /// A new PIN, the next of all that the partition has had.
    fn new_pin(&self, pin: &Pin, roles: &RolesRecord) -> Result<PinRecord, Error> {
        check_new(pin)?;
        let mut salt = [0; 16];
        self.platform.fill(&mut salt);
        Ok(PinRecord { salt, hash: *hash(pin, &salt)?.expose(), failures: 0, epoch: roles.epoch + 1 })
    }

    /// Checks a PIN and counts it. The caller holds the partition's login turn.
    fn check_pin(&self, partition: &Partition, user: User, pin: &Pin) -> Result<(), Error> {
        let mut roles = partition.roles();
        let missing = match user {
            User::Normal => FaultCode::UserPinNotInitialized,
            User::SecurityOfficer => FaultCode::TokenNotInitialized,
        };
        let mut record = roles.pin(user).cloned().ok_or(missing)?;
        if record.failures >= limit(user) {
            return Err(FaultCode::PinLocked.into());
        }
        record.failures += 1;
        roles.set_pin(user, Some(record.clone()));
        self.save_roles(partition, roles.clone())?;
        if !bool::from(hash(pin, &record.salt)?.expose().ct_eq(&record.hash)) {
            let left = limit(user) - record.failures;
            return Err(Error::caller(FaultCode::PinIncorrect, format!("{left} tries left")));
        }
        record.failures = 0;
        roles.set_pin(user, Some(record));
        self.save_roles(partition, roles)
    }

    /// Writes PIN counters, without a record of their own: the login's record follows.
    fn save_roles(&self, partition: &Partition, roles: RolesRecord) -> Result<(), Error> {
        let change = Change::new().put(Path::Roles(partition.id), &roles);
        self.change_silently(change)?;
        partition.set_roles(roles);
        Ok(())
    }

    /// The first ticket of a new login. The caller holds the partition's login turn.
    fn log_in(&self, context: &Context<'_>, user: User) -> Result<LoggedIn, Error> {
        let partition = context.partition()?;
        let epoch = partition.roles().pin(user).map_or(0, |pin| pin.epoch);
        let mut id = LoginId([0; 16]);
        self.platform.fill(&mut id.0);
        self.ticket(
            context,
            LoginTicket { partition: partition.id, role: user.into(), epoch, id, expires: 0, renewable: 0 },
        )
    }

    /// A ticket of a login, good from now on.
    fn ticket(&self, context: &Context<'_>, login: LoginTicket) -> Result<LoggedIn, Error> {
        let Settings { ticket_seconds: life, idle_seconds, .. } = self.settings;
        let now = context.now / 1_000_000;
        let login = LoginTicket { expires: now + life, renewable: now + life + idle_seconds, ..login };
        let ticket = self.tickets.issue(&login, context.peer, &*self.platform)?;
        Ok(LoggedIn { ticket, expires: login.expires, life: Some(life) })
    }
}

impl<P: Platform> Handle<ReadToken> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, _: ReadToken) -> Result<Token, Error> {
        let partition = context.partition()?;
        let (label, roles) = (partition.rules().record.label.clone(), partition.roles());
        Ok(Token {
            initialized: label.is_some(),
            label: label.unwrap_or_default(),
            serial: partition.id.to_string(),
            user_pin_set: roles.user.is_some(),
            user: roles.tries(User::Normal),
            security_officer: roles.tries(User::SecurityOfficer),
            min_pin: MIN_PIN as u32,
            max_pin: MAX_PIN as u32,
        })
    }
}

impl<P: Platform> Handle<InitToken> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: InitToken) -> Result<Done, Error> {
        let partition = context.partition()?;
        let _turn = partition.login_turn();
        if call.label.len() > 32 {
            return Err(Error::caller(FaultCode::ArgumentsBad, "a label has at most 32 bytes"));
        }
        if partition.roles().security_officer.is_some() {
            self.check_pin(&partition, User::SecurityOfficer, &call.pin)?;
        }
        let pin = self.new_pin(&call.pin, &partition.roles())?;
        let _objects = partition.object_turn();
        let mut rules = partition.rules_to_change();
        if rules.record.frozen || !rules.record.frozen_keys.is_empty() {
            return Err(Error::caller(FaultCode::Frozen, "the partition or a key of it is frozen"));
        }
        let record = PartitionRecord { label: Some(call.label), ..rules.record.clone() };
        let roles = RolesRecord { epoch: pin.epoch, security_officer: Some(pin), user: None };
        let mut change =
            Change::new().put(Path::Partition(partition.id), &record).put(Path::Roles(partition.id), &roles);
        for object in partition.keyring.token_objects() {
            change = change.delete(Path::Object(partition.id, object.id));
        }
        // The shares of other nodes stay; without the objects they are of no use to an application.
        change = partition.shared.forget(change, partition.id);
        self.change(context, change)?;
        partition.keyring.clear();
        partition.shared.clear();
        partition.set_roles(roles);
        rules.record = record;
        Ok(Done {})
    }
}

impl<P: Platform> Handle<InitPin> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: InitPin) -> Result<Done, Error> {
        let partition = context.partition()?;
        let _turn = partition.login_turn();
        let pin = self.new_pin(&call.pin, &partition.roles())?;
        let roles = RolesRecord { epoch: pin.epoch, user: Some(pin), ..partition.roles() };
        self.change(context, Change::new().put(Path::Roles(partition.id), &roles))?;
        partition.set_roles(roles);
        Ok(Done {})
    }
}

impl<P: Platform> Handle<SetPin> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: SetPin) -> Result<PinChanged, Error> {
        let partition = context.partition()?;
        let user = match context.role {
            Role::Public | Role::User => User::Normal,
            Role::SecurityOfficer => User::SecurityOfficer,
        };
        check_new(&call.new)?;
        let _turn = partition.login_turn();
        self.check_pin(&partition, user, &call.old)?;
        let mut roles = partition.roles();
        let pin = self.new_pin(&call.new, &roles)?;
        roles.epoch = pin.epoch;
        roles.set_pin(user, Some(pin));
        self.change(context, Change::new().put(Path::Roles(partition.id), &roles))?;
        partition.set_roles(roles);
        let ticket = match context.role {
            Role::Public => None,
            Role::User | Role::SecurityOfficer => Some(self.log_in(context, user)?.ticket),
        };
        Ok(PinChanged { ticket })
    }
}

impl<P: Platform> Handle<Login> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: Login) -> Result<LoggedIn, Error> {
        let partition = context.partition()?;
        context.detail = format!("{:?}", call.user);
        let _turn = partition.login_turn();
        self.check_pin(&partition, call.user, &call.pin)?;
        let reply = self.log_in(context, call.user)?;
        self.record_done(context)?;
        Ok(reply)
    }
}

impl<P: Platform> Handle<RenewTicket> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, _: RenewTicket) -> Result<LoggedIn, Error> {
        let login = context.login.ok_or(FaultCode::NotLoggedIn)?;
        let reply = self.ticket(context, login)?;
        self.record_done(context)?;
        Ok(reply)
    }
}

impl<P: Platform> Handle<Logout> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, _: Logout) -> Result<Done, Error> {
        let mine = context.application_id();
        let partition = context.partition()?;
        if let Some(login) = &context.login {
            self.tickets.end(context.peer.id, login.id);
        }
        partition.keyring.remove_session_objects(|owner, _, object| {
            owner == mine && super::keyring::is_private(&object.attributes)
        });
        self.record_done(context)?;
        Ok(Done {})
    }
}
