//! Objects, their handles and what is known of them (PKCS#11 3.1, section 5.7).
//!
//! A handle stands for a stable object id, so it survives a reconnect and a server restart; no handle is ever
//! used twice. Beside it stands an [`ObjectInfo`], enough to begin and to size an operation without asking.

use std::collections::VecDeque;

use imbl::OrdMap;
use pkcs11_sys::*;
use strongroom_shared::{
    message::{
        Answer, CopyObject, CreateObject, DescribeObject, DestroyObject, DestroyShared, FindObjects,
        ReadAttributes, WriteAttributes,
    },
    object::{ObjectId, ObjectInfo, Template},
};

use crate::{hsm, module::Module, rv::Error, session::Context};

/// The objects whose handles were given out.
#[derive(Clone, Default)]
pub struct Objects {
    by_handle: OrdMap<CK_OBJECT_HANDLE, Object>,
    by_id: OrdMap<(CK_SLOT_ID, ObjectId), CK_OBJECT_HANDLE>,
}

/// An object behind a handle.
#[derive(Clone, Debug)]
pub struct Object {
    /// The slot of its token.
    pub slot: CK_SLOT_ID,
    /// For a session object made by this process: the session that it goes with.
    pub owner: Option<CK_SESSION_HANDLE>,
    /// What is known of it.
    pub info: ObjectInfo,
}

impl Module {
    /// The object behind a handle, if it is on this slot.
    pub(crate) fn object(&self, slot: CK_SLOT_ID, handle: CK_OBJECT_HANDLE) -> Option<Object> {
        self.objects.load().by_handle.get(&handle).filter(|object| object.slot == slot).cloned()
    }

    /// Handles for objects that the server told of: the ones they have, or new ones.
    fn adopt(
        &self,
        slot: CK_SLOT_ID,
        owner: Option<CK_SESSION_HANDLE>,
        infos: &[ObjectInfo],
    ) -> Vec<CK_OBJECT_HANDLE> {
        let mut handles = Vec::new();
        self.objects.rcu(|objects| {
            handles.clear();
            let mut objects = Objects::clone(objects);
            for info in infos {
                let known = objects.by_id.get(&(slot, info.id)).copied();
                let handle = known
                    .unwrap_or_else(|| self.next_object.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
                let owner = owner.or_else(|| objects.by_handle.get(&handle).and_then(|object| object.owner));
                objects.by_id.insert((slot, info.id), handle);
                objects.by_handle.insert(handle, Object { slot, owner, info: info.clone() });
                handles.push(handle);
            }
            objects
        });
        handles
    }

    /// Forgets the handles of those objects of a slot that `condition` names.
    pub(crate) fn forget_objects(&self, slot: CK_SLOT_ID, condition: impl Fn(&Object) -> bool) {
        self.objects.rcu(|objects| {
            let mut kept = Objects::clone(objects);
            for (handle, object) in objects.by_handle.iter() {
                if object.slot == slot && condition(object) {
                    kept.by_handle.remove(handle);
                    kept.by_id.remove(&(slot, object.info.id));
                }
            }
            kept
        });
    }
}

impl Context<'_> {
    /// The object behind a handle.
    ///
    /// # Errors
    /// `ObjectHandleInvalid`.
    pub fn object(&self, handle: CK_OBJECT_HANDLE) -> Result<Object, Error> {
        self.module.object(self.slot.id, handle).ok_or(Error::ObjectHandleInvalid)
    }

    /// A handle for an object that this session has just made.
    pub(crate) fn adopt_new(&self, info: &ObjectInfo) -> CK_OBJECT_HANDLE {
        let owner = if info.token {
            None
        } else {
            self.session.made_object();
            Some(self.session.handle)
        };
        self.module
            .adopt(self.slot.id, owner, std::slice::from_ref(info))
            .first()
            .copied()
            .unwrap_or_default()
    }

    /// Asks the server what an object is now.
    pub(crate) fn describe(&self, object: ObjectId) -> Result<ObjectInfo, Error> {
        let info = self.call(&DescribeObject { object })?;
        self.module.adopt(self.slot.id, None, std::slice::from_ref(&info));
        Ok(info)
    }

    /// Fails if a template asks for a token object that this session may not make.
    pub(crate) fn may_make(&self, template: &Template) -> Result<(), Error> {
        if template.bool(CKA_TOKEN) == Some(true) { self.require_read_write() } else { Ok(()) }
    }
}

/// `C_CreateObject`.
///
/// # Errors
/// `SessionReadOnly`; the server's word on the template.
pub fn create(context: &Context<'_>, template: Template) -> Result<CK_OBJECT_HANDLE, Error> {
    context.may_make(&template)?;
    let info = context.call(&CreateObject { template })?;
    Ok(context.adopt_new(&info))
}

/// `C_CopyObject`.
///
/// # Errors
/// `ObjectHandleInvalid`, `SessionReadOnly`; the server's word on the template.
pub fn copy(
    context: &Context<'_>,
    object: CK_OBJECT_HANDLE,
    template: Template,
) -> Result<CK_OBJECT_HANDLE, Error> {
    let original = context.object(object)?;
    if template.bool(CKA_TOKEN).unwrap_or(original.info.token) {
        context.require_read_write()?;
    }
    let info = context.call(&CopyObject { object: original.info.id, template })?;
    Ok(context.adopt_new(&info))
}

/// `C_DestroyObject`.
///
/// # Errors
/// `ObjectHandleInvalid`, `SessionReadOnly`; the server's word (`CKA_DESTROYABLE`).
pub fn destroy(context: &Context<'_>, object: CK_OBJECT_HANDLE) -> Result<(), Error> {
    let object = context.object(object)?.info;
    if object.token {
        context.require_read_write()?;
    }
    let call = DestroyObject { object: object.id };
    match object.shares {
        Some(_) => {
            let seen = Some(context.seen(&object)?);
            context.call_mandated(&call, seen, |mandated| DestroyShared { mandated })?
        }
        None => context.call(&call)?,
    };
    context.module.forget_objects(context.slot.id, |other| other.info.id == object.id);
    Ok(())
}

/// `C_GetObjectSize`, in bytes.
///
/// # Errors
/// `ObjectHandleInvalid`.
pub fn size(context: &Context<'_>, object: CK_OBJECT_HANDLE) -> Result<CK_ULONG, Error> {
    Ok(context.object(object)?.info.size.into())
}

/// `C_GetAttributeValue`: an answer for every type asked for, in order.
///
/// # Errors
/// `ObjectHandleInvalid`.
pub fn read(
    context: &Context<'_>,
    object: CK_OBJECT_HANDLE,
    kinds: Vec<CK_ATTRIBUTE_TYPE>,
) -> Result<Vec<Answer>, Error> {
    let object = context.object(object)?.info;
    if kinds.is_empty() {
        return Ok(Vec::new());
    }
    let call = ReadAttributes { object: object.id, kinds };
    let answers = context.call(&call)?.answers;
    if answers.len() != call.kinds.len() {
        return Err(hsm::malformed("not one answer per attribute"));
    }
    context.slot.shown.note_answers(&object, &call.kinds, &answers)?;
    Ok(answers)
}

/// `C_SetAttributeValue`: all of the changes or none.
///
/// # Errors
/// `ObjectHandleInvalid`, `SessionReadOnly`; the server's word on the template.
pub fn write(context: &Context<'_>, object: CK_OBJECT_HANDLE, template: Template) -> Result<(), Error> {
    let object = context.object(object)?.info;
    if object.token {
        context.require_read_write()?;
    }
    context.call(&WriteAttributes { object: object.id, template })?;
    // What may be done with it may have changed. If this question gets no answer, the next use of the key will.
    let _known_later = context.describe(object.id);
    Ok(())
}

/// An active search.
pub struct Find {
    template: Template,
    found: VecDeque<CK_OBJECT_HANDLE>,
    last: Option<ObjectId>,
    more: bool,
}

impl Find {
    fn next_page(&mut self, context: &Context<'_>) -> Result<(), Error> {
        let page = context.call(&FindObjects { template: self.template.clone(), after: self.last })?;
        // A page that is empty and not the last would be asked for for ever.
        self.more = page.more && !page.objects.is_empty();
        self.last = page.objects.last().map(|info| info.id).or(self.last);
        context.slot.shown.note_found(&self.template, &page.objects)?;
        self.found.extend(context.module.adopt(context.slot.id, None, &page.objects));
        Ok(())
    }
}

/// `C_FindObjectsInit`. Fetches the first page.
///
/// # Errors
/// `OperationActive`; the server's word on the template.
pub fn find_init(context: &Context<'_>, template: Template) -> Result<(), Error> {
    let mut operations = context.session.operations();
    if operations.find.is_some() {
        return Err(Error::OperationActive);
    }
    let mut find = Find { template, found: VecDeque::new(), last: None, more: false };
    find.next_page(context)?;
    operations.find = Some(find);
    Ok(())
}

/// `C_FindObjects`: at most `most` handles, none when all have been told.
///
/// # Errors
/// `OperationNotInitialized`; a failure leaves the search active.
pub fn find(context: &Context<'_>, most: usize) -> Result<Vec<CK_OBJECT_HANDLE>, Error> {
    let mut operations = context.session.operations();
    let find = operations.find.as_mut().ok_or(Error::OperationNotInitialized)?;
    while find.found.len() < most && find.more {
        find.next_page(context)?;
    }
    let count = most.min(find.found.len());
    Ok(find.found.drain(..count).collect())
}

/// `C_FindObjectsFinal`.
///
/// # Errors
/// `OperationNotInitialized`.
pub fn find_final(context: &Context<'_>) -> Result<(), Error> {
    context.session.operations().find.take().map(drop).ok_or(Error::OperationNotInitialized)
}
