//! Objects: create, copy, destroy, describe, read, change, find (PKCS#11 3.1, section 5.7).

use pkcs11_sys::*;
use strongroom_shared::{
    fault::FaultCode,
    message::*,
    object::{ObjectId, ObjectInfo, Template},
    wire::Handle,
};

use super::{
    Context, Error, Vault,
    attributes::{self, Origin},
    keyring::{self, Object, Owner},
    login::Role,
    partition::Partition,
    record::Change,
    records::ObjectRecord,
};
use crate::{crypto, platform::Platform, store::Path};

/// Objects per page of a search: well below the frame limit.
const PAGE: usize = 4096;

impl<P: Platform> Vault<P> {
    /// A new object's name.
    pub(super) fn new_id(&self) -> ObjectId {
        let mut id = [0; 16];
        self.platform.fill(&mut id);
        ObjectId(id)
    }

    /// Puts new objects where they belong: on the token, with a record, or into the session.
    pub(super) fn add(
        &self,
        context: &mut Context<'_>,
        partition: &Partition,
        new: Vec<(ObjectId, Template, ObjectId)>,
    ) -> Result<(), Error> {
        let mut change = Change::new();
        let mut on_token = false;
        let mut objects = Vec::with_capacity(new.len());
        for (id, attributes, lineage) in new {
            let owner = if keyring::is_token(&attributes) {
                on_token = true;
                let record = ObjectRecord { attributes: attributes.clone(), lineage };
                change = change.put(Path::Object(partition.id, id), &record);
                Owner::Token
            } else {
                Owner::Session(context.application_id(), context.caller.session)
            };
            context.object = Some(id);
            objects.push(Object::new(id, attributes, owner, lineage));
        }
        let _turn = partition.object_turn();
        context.check_login(partition)?;
        let rules = partition.rules();
        if rules.record.frozen {
            return Err(Error::caller(
                FaultCode::Frozen,
                format!("partition {} is frozen", rules.record.name),
            ));
        }
        if !on_token {
            partition.keyring.check_room(&objects)?;
        }
        if on_token {
            self.change(context, change)?
        } else {
            self.record_done(context)?
        }
        partition.keyring.put(objects);
        Ok(())
    }

    /// The object that a call names, which then stands in the call's record.
    pub(super) fn object(
        &self,
        context: &mut Context<'_>,
        partition: &Partition,
        id: ObjectId,
        missing: FaultCode,
    ) -> Result<std::sync::Arc<Object>, Error> {
        context.object = Some(id);
        partition.keyring.object(id, context.application_id(), context.role, missing)
    }
}

/// Whether this caller may make or change such an object (PKCS#11 3.1, table 7 and section 5.6).
pub fn check_access(context: &Context<'_>, attributes: &Template) -> Result<(), Error> {
    if keyring::is_private(attributes) && context.role != Role::User {
        return Err(Error::caller(FaultCode::NotLoggedIn, "private objects are for the normal user"));
    }
    if keyring::is_token(attributes) && !context.caller.read_write {
        return Err(FaultCode::SessionReadOnly.into());
    }
    Ok(())
}

/// Token objects need an initialised token.
pub fn check_initialized(partition: &Partition, attributes: &Template) -> Result<(), Error> {
    if keyring::is_token(attributes) && partition.rules().record.label.is_none() {
        return Err(FaultCode::TokenNotInitialized.into());
    }
    Ok(())
}

impl<P: Platform> Handle<CreateObject> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: CreateObject) -> Result<ObjectInfo, Error> {
        let partition = context.partition()?;
        let id = self.new_id();
        let mut attributes = attributes::complete(call.template, id, Origin::Created, context.role)?;
        check_access(context, &attributes)?;
        check_initialized(&partition, &attributes)?;
        if attributes.ulong(CKA_KEY_TYPE).is_some() {
            let derived = crypto::complete(&attributes)?;
            derived.0.into_iter().for_each(|attribute| attributes.set(attribute.kind, attribute.value));
        }
        let info = attributes::describe(id, &attributes);
        self.add(context, &partition, vec![(id, attributes, id)])?;
        Ok(info)
    }
}

impl<P: Platform> Handle<CopyObject> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: CopyObject) -> Result<ObjectInfo, Error> {
        let partition = context.partition()?;
        let object = self.object(context, &partition, call.object, FaultCode::ObjectHandleInvalid)?;
        partition.rules().check_thawed(object.lineage)?;
        let id = self.new_id();
        let attributes = attributes::copied(&object.attributes, &call.template, id, context.role)?;
        check_access(context, &attributes)?;
        check_initialized(&partition, &attributes)?;
        check_label(&partition, &object, &attributes)?;
        let info = attributes::describe(id, &attributes);
        context.detail = format!("of {}", object.id);
        self.add(context, &partition, vec![(id, attributes, object.lineage)])?;
        Ok(info)
    }
}

/// A key must not walk away from the rules that name its label.
pub fn check_label(partition: &Partition, object: &Object, changed: &Template) -> Result<(), Error> {
    let label = changed.bytes(CKA_LABEL).unwrap_or_default();
    let is_key = object.attributes.ulong(CKA_KEY_TYPE).is_some();
    if is_key && !partition.rules().policy.governs_alike(object.label(), label) {
        let reason = "the new label would put the key under other rules of the policy";
        return Err(Error::caller(FaultCode::PolicyRefused, reason));
    }
    Ok(())
}

impl<P: Platform> Handle<DestroyObject> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: DestroyObject) -> Result<Done, Error> {
        let partition = context.partition()?;
        let _turn = partition.object_turn();
        let object = self.object(context, &partition, call.object, FaultCode::ObjectHandleInvalid)?;
        partition.rules().check_thawed(object.lineage)?;
        check_access(context, &object.attributes)?;
        if attributes::shares(&object.attributes).is_some() {
            let text =
                "several nodes hold shares of this key: the client needs a module that knows such keys";
            return Err(Error::caller(FaultCode::ActionProhibited, text));
        }
        if object.attributes.bool(CKA_DESTROYABLE) == Some(false) {
            return Err(Error::attribute(FaultCode::ActionProhibited, CKA_DESTROYABLE));
        }
        match object.owner {
            Owner::Token => {
                self.change(context, Change::new().delete(Path::Object(partition.id, object.id)))?
            }
            Owner::Session(..) => self.record_done(context)?,
            Owner::BuiltIn => return Err(Error::attribute(FaultCode::ActionProhibited, CKA_DESTROYABLE)),
        }
        partition.keyring.remove(object.id);
        Ok(Done {})
    }
}

impl<P: Platform> Handle<DescribeObject> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: DescribeObject) -> Result<ObjectInfo, Error> {
        let partition = context.partition()?;
        let object = self.object(context, &partition, call.object, FaultCode::ObjectHandleInvalid)?;
        Ok(attributes::describe(object.id, &object.attributes))
    }
}

impl<P: Platform> Handle<ReadAttributes> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: ReadAttributes) -> Result<Attributes, Error> {
        let partition = context.partition()?;
        if call.kinds.len() > Template::LONGEST {
            return Err(Error::caller(FaultCode::ArgumentsBad, "more attributes than an object can have"));
        }
        let object = self.object(context, &partition, call.object, FaultCode::ObjectHandleInvalid)?;
        let reveals = call.kinds.iter().any(|kind| attributes::is_secret(&object.attributes, *kind));
        if reveals {
            partition.rules().check_thawed(object.lineage)?;
        }
        let answer = |kind: u64| match object.attributes.value(kind) {
            Some(_) if attributes::is_hidden(&object.attributes, kind) => Answer::Sensitive,
            Some(value) => Answer::Value(value.clone()),
            None => Answer::Absent,
        };
        let answers: Vec<_> = call.kinds.into_iter().map(answer).collect();
        if reveals && answers.iter().any(|answer| matches!(answer, Answer::Value(_))) {
            self.record_done(context)?;
        }
        Ok(Attributes { answers })
    }
}

impl<P: Platform> Handle<WriteAttributes> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: WriteAttributes) -> Result<Done, Error> {
        let partition = context.partition()?;
        let _turn = partition.object_turn();
        let object = self.object(context, &partition, call.object, FaultCode::ObjectHandleInvalid)?;
        partition.rules().check_thawed(object.lineage)?;
        check_access(context, &object.attributes)?;
        let changed = attributes::changed(&object.attributes, &call.template, context.role)?;
        check_label(&partition, &object, &changed)?;
        match object.owner {
            Owner::Token => {
                let record = ObjectRecord { attributes: changed.clone(), lineage: object.lineage };
                self.change(context, Change::new().put(Path::Object(partition.id, object.id), &record))?;
            }
            Owner::Session(..) => self.record_done(context)?,
            Owner::BuiltIn => return Err(Error::attribute(FaultCode::ActionProhibited, CKA_MODIFIABLE)),
        }
        partition.keyring.put([Object::new(object.id, changed, object.owner, object.lineage)]);
        Ok(Done {})
    }
}

impl<P: Platform> Handle<FindObjects> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: FindObjects) -> Result<Found, Error> {
        let partition = context.partition()?;
        if let Some(kind) = call.template.duplicate() {
            return Err(Error::attribute(FaultCode::TemplateInconsistent, kind));
        }
        let (me, role) = (context.application_id(), context.role);
        let found = partition.keyring.find(&call.template, call.after, me, role, PAGE + 1);
        let more = found.len() > PAGE;
        let objects =
            found.iter().take(PAGE).map(|object| attributes::describe(object.id, &object.attributes));
        Ok(Found { objects: objects.collect(), more })
    }
}

impl<P: Platform> Handle<CloseSession> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, _: CloseSession) -> Result<Done, Error> {
        let (me, mine) = (context.application_id(), context.caller.session);
        context
            .partition()?
            .keyring
            .remove_session_objects(|owner, session, _| owner == me && session == mine);
        Ok(Done {})
    }
}

impl<P: Platform> Handle<EndInstance> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, _: EndInstance) -> Result<Done, Error> {
        let me = context.application_id();
        context.partition()?.keyring.remove_session_objects(|owner, _, _| owner == me);
        Ok(Done {})
    }
}
