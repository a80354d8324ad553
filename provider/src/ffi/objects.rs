//! Object, key and random functions (PKCS#11 3.1, sections 5.7, 5.18 and 5.21).

use pkcs11_sys::*;

use crate::{
    ffi::{
        cryptoki, mechanism,
        pointers::{Input, Output, Place},
        template,
    },
    keys,
    module::module,
    object, random,
    rv::Error,
};

cryptoki! {
    fn C_CreateObject(
        session: CK_SESSION_HANDLE,
        attributes: CK_ATTRIBUTE_PTR,
        count: CK_ULONG,
        handle: CK_OBJECT_HANDLE_PTR,
    ) {
        let module = module()?;
        let context = module.session(session)?;
        let place = Place::new(handle)?;
        place.put(object::create(&context, template::read(attributes, count)?)?);
        Ok(())
    }

    fn C_CopyObject(
        session: CK_SESSION_HANDLE,
        original: CK_OBJECT_HANDLE,
        attributes: CK_ATTRIBUTE_PTR,
        count: CK_ULONG,
        handle: CK_OBJECT_HANDLE_PTR,
    ) {
        let module = module()?;
        let context = module.session(session)?;
        let place = Place::new(handle)?;
        place.put(object::copy(&context, original, template::read(attributes, count)?)?);
        Ok(())
    }

    fn C_DestroyObject(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE) {
        object::destroy(&module()?.session(session)?, object)
    }

    fn C_GetObjectSize(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE, size: CK_ULONG_PTR) {
        let module = module()?;
        let context = module.session(session)?;
        let place = Place::new(size)?;
        place.put(object::size(&context, object)?);
        Ok(())
    }

    fn C_GetAttributeValue(
        session: CK_SESSION_HANDLE,
        object: CK_OBJECT_HANDLE,
        attributes: CK_ATTRIBUTE_PTR,
        count: CK_ULONG,
    ) {
        let module = module()?;
        let context = module.session(session)?;
        let answers = object::read(&context, object, template::kinds(attributes, count)?)?;
        template::fill(attributes, &answers)
    }

    fn C_SetAttributeValue(
        session: CK_SESSION_HANDLE,
        object: CK_OBJECT_HANDLE,
        attributes: CK_ATTRIBUTE_PTR,
        count: CK_ULONG,
    ) {
        let module = module()?;
        let context = module.session(session)?;
        object::write(&context, object, template::read(attributes, count)?)
    }

    fn C_FindObjectsInit(session: CK_SESSION_HANDLE, attributes: CK_ATTRIBUTE_PTR, count: CK_ULONG) {
        let module = module()?;
        let context = module.session(session)?;
        object::find_init(&context, template::read(attributes, count)?)
    }

    fn C_FindObjects(
        session: CK_SESSION_HANDLE,
        handles: CK_OBJECT_HANDLE_PTR,
        most: CK_ULONG,
        count: CK_ULONG_PTR,
    ) {
        let module = module()?;
        let context = module.session(session)?;
        let told = Place::new(count)?;
        if handles.is_null() && most > 0 {
            return Err(Error::ArgumentsBad);
        }
        let found = object::find(&context, usize::try_from(most).unwrap_or(usize::MAX))?;
        if !found.is_empty() {
            let mut room = most;
            if let Some(place) = Output::new(handles, &raw mut room).reserve(found.len())? {
                place.write(&found)?;
            }
        }
        told.put(found.len() as CK_ULONG);
        Ok(())
    }

    fn C_FindObjectsFinal(session: CK_SESSION_HANDLE) {
        object::find_final(&module()?.session(session)?)
    }

    fn C_GenerateKey(
        session: CK_SESSION_HANDLE,
        mechanism: CK_MECHANISM_PTR,
        attributes: CK_ATTRIBUTE_PTR,
        count: CK_ULONG,
        handle: CK_OBJECT_HANDLE_PTR,
    ) {
        let module = module()?;
        let context = module.session(session)?;
        let place = Place::new(handle)?;
        let chosen = mechanism::required(mechanism, CKF_GENERATE)?;
        place.put(keys::generate(&context, chosen, template::read(attributes, count)?)?);
        Ok(())
    }

    fn C_GenerateKeyPair(
        session: CK_SESSION_HANDLE,
        mechanism: CK_MECHANISM_PTR,
        public_attributes: CK_ATTRIBUTE_PTR,
        public_count: CK_ULONG,
        private_attributes: CK_ATTRIBUTE_PTR,
        private_count: CK_ULONG,
        public_handle: CK_OBJECT_HANDLE_PTR,
        private_handle: CK_OBJECT_HANDLE_PTR,
    ) {
        let module = module()?;
        let context = module.session(session)?;
        let (public_place, private_place) = (Place::new(public_handle)?, Place::new(private_handle)?);
        let chosen = mechanism::required(mechanism, CKF_GENERATE_KEY_PAIR)?;
        let public = template::read(public_attributes, public_count)?;
        let private = template::read(private_attributes, private_count)?;
        let (public, private) = keys::generate_pair(&context, chosen, public, private)?;
        public_place.put(public);
        private_place.put(private);
        Ok(())
    }

    fn C_DeriveKey(
        session: CK_SESSION_HANDLE,
        mechanism: CK_MECHANISM_PTR,
        base: CK_OBJECT_HANDLE,
        attributes: CK_ATTRIBUTE_PTR,
        count: CK_ULONG,
        handle: CK_OBJECT_HANDLE_PTR,
    ) {
        let module = module()?;
        let context = module.session(session)?;
        let place = Place::new(handle)?;
        let chosen = mechanism::required(mechanism, CKF_DERIVE)?;
        place.put(keys::derive(&context, chosen, base, template::read(attributes, count)?)?);
        Ok(())
    }

    fn C_SeedRandom(session: CK_SESSION_HANDLE, seed: CK_BYTE_PTR, length: CK_ULONG) {
        let module = module()?;
        let context = module.session(session)?;
        random::seed(&context, Input::new(seed, length).slice(context.slot.hsm.input_limit())?)
    }

    fn C_GenerateRandom(session: CK_SESSION_HANDLE, buffer: CK_BYTE_PTR, length: CK_ULONG) {
        let module = module()?;
        let context = module.session(session)?;
        if buffer.is_null() {
            return Err(Error::ArgumentsBad);
        }
        let random = random::generate(&context, usize::try_from(length).map_err(|_| Error::ArgumentsBad)?)?;
        let mut room = length;
        match Output::new(buffer, &raw mut room).reserve(random.len())? {
            Some(place) => place.write(&random),
            None => Ok(()),
        }
    }
}
