//! A partition's objects, in locked memory: those built in, token objects, and the session objects of its applications.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{
        Arc, OnceLock, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use pkcs11_sys::{
    CK_ATTRIBUTE_TYPE, CKA_CLASS, CKA_LABEL, CKA_PRIVATE, CKA_PUBLIC_KEY_INFO, CKA_TOKEN, CKO_PRIVATE_KEY,
};
use strongroom_shared::{
    fault::FaultCode,
    object::{ObjectId, Template, Value},
};

use super::{applications::ApplicationId, attributes, error::Error, login::Role, profiles};
use crate::crypto::Key;

/// Who an object lives for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// An object of every token, not kept in the store: for ever.
    BuiltIn,
    /// A token object: for ever.
    Token,
    /// A session object: for this session of this application.
    Session(ApplicationId, u64),
}

/// An object.
pub struct Object {
    /// Its name.
    pub id: ObjectId,
    /// Everything it is, the key's value included.
    pub attributes: Template,
    /// Who it lives for.
    pub owner: Owner,
    /// The first of its copies: what limits are charged to and what a freeze stops.
    pub lineage: ObjectId,
    key: OnceLock<Key>,
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Object({}, {:?})", self.id, self.owner)
    }
}

impl Object {
    /// An object whose attributes are complete.
    pub const fn new(id: ObjectId, attributes: Template, owner: Owner, lineage: ObjectId) -> Self {
        Self { id, attributes, owner, lineage, key: OnceLock::new() }
    }

    /// The key, parsed when it is first used.
    ///
    /// # Errors
    /// As [`Key::parse`]; `KeyHandleInvalid` for an object that is no key.
    pub fn key(&self) -> Result<&Key, Error> {
        if let Some(key) = self.key.get() {
            return Ok(key);
        }
        let key = Key::parse(&self.attributes)?;
        Ok(self.key.get_or_init(|| key))
    }

    /// Whether it is a token object that somebody made.
    pub fn is_token(&self) -> bool {
        self.owner == Owner::Token
    }

    /// What it occupies if it is a session object, about: its values and what goes with each.
    fn session_bytes(&self) -> usize {
        const EACH: usize = 48;
        match self.owner {
            Owner::BuiltIn | Owner::Token => 0,
            Owner::Session(..) => {
                self.attributes.iter().map(|attribute| attribute.value.length() + EACH).sum()
            }
        }
    }

    /// `CKA_LABEL`.
    pub fn label(&self) -> &[u8] {
        self.attributes.bytes(CKA_LABEL).unwrap_or_default()
    }

    /// Whether this caller may know of it: private objects are for the normal user, session objects for
    /// the application that made them.
    fn is_visible(&self, to: ApplicationId, role: Role) -> bool {
        let mine = match self.owner {
            Owner::BuiltIn | Owner::Token => true,
            Owner::Session(owner, _) => owner == to,
        };
        mine && (role == Role::User || self.attributes.bool(CKA_PRIVATE) == Some(false))
    }

    /// Whether every attribute of the template has the same value here. Sensitive values match nothing.
    fn fits(&self, template: &Template) -> bool {
        template.iter().all(|wanted| {
            !attributes::is_hidden(&self.attributes, wanted.kind)
                && self.attributes.value(wanted.kind) == Some(&wanted.value)
        })
    }
}

/// The most that the session objects of a partition may occupy of the vault's locked memory, in bytes.
const SESSION_BYTES: usize = 64 << 20;

/// The objects of a partition, by id.
#[derive(Debug)]
pub struct Keyring {
    objects: RwLock<BTreeMap<ObjectId, Arc<Object>>>,
    /// What its session objects occupy, about.
    session_bytes: AtomicUsize,
}

impl Keyring {
    /// Whether there is an object of this id, for whomever.
    pub fn has(&self, id: ObjectId) -> bool {
        self.read().contains_key(&id)
    }

    /// What every token has, and nothing else.
    pub fn new() -> Self {
        let built_in = profiles::objects().map(|object| (object.id, Arc::new(object)));
        Self { objects: RwLock::new(built_in.collect()), session_bytes: AtomicUsize::default() }
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<ObjectId, Arc<Object>>> {
        self.objects.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<ObjectId, Arc<Object>>> {
        self.objects.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The object, if this caller may know of it.
    ///
    /// # Errors
    /// `missing`: the same for an object that does not exist as for one that is not this caller's.
    pub fn object(
        &self,
        id: ObjectId,
        to: ApplicationId,
        role: Role,
        missing: FaultCode,
    ) -> Result<Arc<Object>, Error> {
        match self.read().get(&id) {
            Some(object) if object.is_visible(to, role) => Ok(Arc::clone(object)),
            Some(_) | None => Err(Error::caller(missing, id.to_string())),
        }
    }

    /// Whether there is room for more session objects.
    ///
    /// # Errors
    /// `Full`.
    pub fn check_room(&self, objects: &[Object]) -> Result<(), Error> {
        let more: usize = objects.iter().map(Object::session_bytes).sum();
        if self.session_bytes.load(Ordering::Relaxed).saturating_add(more) > SESSION_BYTES {
            return Err(Error::caller(
                FaultCode::Full,
                "the partition's session objects take all their memory",
            ));
        }
        Ok(())
    }

    /// Adds objects, or puts others of the same id in their place.
    pub fn put(&self, objects: impl IntoIterator<Item = Object>) {
        let mut all = self.write();
        for object in objects {
            self.session_bytes.fetch_add(object.session_bytes(), Ordering::Relaxed);
            if let Some(old) = all.insert(object.id, Arc::new(object)) {
                self.session_bytes.fetch_sub(old.session_bytes(), Ordering::Relaxed);
            }
        }
    }

    /// Removes an object. Uses of it that have begun end on their own.
    pub fn remove(&self, id: ObjectId) {
        if let Some(old) = self.write().remove(&id) {
            self.session_bytes.fetch_sub(old.session_bytes(), Ordering::Relaxed);
        }
    }

    /// Removes every session object for which `gone` holds.
    pub fn remove_session_objects(&self, gone: impl Fn(ApplicationId, u64, &Object) -> bool) {
        self.write().retain(|_, object| match object.owner {
            Owner::Session(application, session) if gone(application, session, object) => {
                self.session_bytes.fetch_sub(object.session_bytes(), Ordering::Relaxed);
                false
            }
            Owner::BuiltIn | Owner::Token | Owner::Session(..) => true,
        });
    }

    /// Removes everything that somebody made.
    pub fn clear(&self) {
        self.write().retain(|_, object| object.owner == Owner::BuiltIn);
        self.session_bytes.store(0, Ordering::Relaxed);
    }

    /// Up to `page` objects that match and come after `after`, in the order of their ids.
    pub fn find(
        &self,
        template: &Template,
        after: Option<ObjectId>,
        to: ApplicationId,
        role: Role,
        page: usize,
    ) -> Vec<Arc<Object>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let all = self.read();
        let fitting = all.range((from, Bound::Unbounded)).map(|(_, object)| object);
        fitting
            .filter(|object| object.is_visible(to, role) && object.fits(template))
            .take(page)
            .cloned()
            .collect()
    }

    /// Every token object that somebody made.
    pub fn token_objects(&self) -> Vec<Arc<Object>> {
        self.read().values().filter(|object| object.is_token()).cloned().collect()
    }

    /// The attributes of a token object, for whomever.
    ///
    /// # Errors
    /// `KeyHandleInvalid`: there is none of this id.
    pub fn token_attributes(&self, id: ObjectId) -> Result<Template, Error> {
        let objects = self.read();
        let object = objects.get(&id).filter(|object| object.is_token());
        object.map(|object| object.attributes.clone()).ok_or_else(|| FaultCode::KeyHandleInvalid.into())
    }

    /// The object that this one was copied from first, or its own id.
    pub fn lineage(&self, id: ObjectId) -> ObjectId {
        self.read().get(&id).map_or(id, |object| object.lineage)
    }

    /// Whether there is another private key of this pair, such as a copy, for whomever.
    pub fn has_copies(&self, id: ObjectId, info: Option<&Value>) -> bool {
        let all = self.read();
        let lineage = all.get(&id).map_or(id, |object| object.lineage);
        all.values().any(|object| {
            let private = object.attributes.ulong(CKA_CLASS) == Some(CKO_PRIVATE_KEY);
            let same = info.is_some() && object.attributes.value(CKA_PUBLIC_KEY_INFO) == info;
            object.id != id && private && (same || object.lineage == lineage)
        })
    }

    /// How many token objects and how many session objects there are that somebody made.
    pub fn count(&self) -> (u64, u64) {
        self.read().values().fold((0, 0), |(token, session), object| match object.owner {
            Owner::BuiltIn => (token, session),
            Owner::Token => (token + 1, session),
            Owner::Session(..) => (token, session + 1),
        })
    }
}

/// Whether attributes describe a token object.
pub fn is_token(attributes: &Template) -> bool {
    flag(attributes, CKA_TOKEN)
}

/// Whether attributes describe a private object.
pub fn is_private(attributes: &Template) -> bool {
    flag(attributes, CKA_PRIVATE)
}

fn flag(attributes: &Template, kind: CK_ATTRIBUTE_TYPE) -> bool {
    attributes.bool(kind) == Some(true)
}
