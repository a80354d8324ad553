//! Session functions (PKCS#11 3.1, section 5.6).

use pkcs11_sys::*;

use crate::{
    ffi::{
        cryptoki,
        pointers::{self, Place},
    },
    module::module,
    rv::Error,
    session,
};

cryptoki! {
    fn C_OpenSession(
        slot: CK_SLOT_ID,
        flags: CK_FLAGS,
        _application: CK_VOID_PTR,
        _notify: CK_NOTIFY,
        handle: CK_SESSION_HANDLE_PTR,
    ) {
        let module = module()?;
        module.slot(slot)?;
        let place = Place::new(handle)?;
        place.put(session::open(&module, slot, flags)?);
        Ok(())
    }

    fn C_CloseSession(session: CK_SESSION_HANDLE) {
        session::close(&module()?.session(session)?)
    }

    fn C_CloseAllSessions(slot: CK_SLOT_ID) {
        session::close_all(&*module()?, slot)
    }

    fn C_GetSessionInfo(session: CK_SESSION_HANDLE, info: CK_SESSION_INFO_PTR) {
        let module = module()?;
        let context = module.session(session)?;
        Place::new(info)?.put(session::info(&context));
        Ok(())
    }

    fn C_SessionCancel(session: CK_SESSION_HANDLE, flags: CK_FLAGS) {
        session::cancel(&module()?.session(session)?, flags);
        Ok(())
    }

    fn C_GetOperationState(session: CK_SESSION_HANDLE, _state: CK_BYTE_PTR, length: CK_ULONG_PTR) {
        module()?.session(session)?;
        Err(if length.is_null() { Error::ArgumentsBad } else { Error::StateUnsaveable })
    }

    fn C_SetOperationState(
        session: CK_SESSION_HANDLE,
        _state: CK_BYTE_PTR,
        _length: CK_ULONG,
        _encryption_key: CK_OBJECT_HANDLE,
        _authentication_key: CK_OBJECT_HANDLE,
    ) {
        module()?.session(session)?;
        Err(Error::FunctionNotSupported)
    }

    fn C_Login(session: CK_SESSION_HANDLE, user: CK_USER_TYPE, pin: CK_UTF8CHAR_PTR, pin_length: CK_ULONG) {
        let module = module()?;
        let context = module.session(session)?;
        session::login(&context, user, pointers::pin(pin, pin_length)?)
    }

    /// The token knows no user names, so only an empty one is right.
    fn C_LoginUser(
        session: CK_SESSION_HANDLE,
        user: CK_USER_TYPE,
        pin: CK_UTF8CHAR_PTR,
        pin_length: CK_ULONG,
        _name: CK_UTF8CHAR_PTR,
        name_length: CK_ULONG,
    ) {
        let module = module()?;
        let context = module.session(session)?;
        if name_length != 0 {
            return Err(Error::ArgumentsBad);
        }
        session::login(&context, user, pointers::pin(pin, pin_length)?)
    }

    fn C_Logout(session: CK_SESSION_HANDLE) {
        session::logout(&module()?.session(session)?)
    }

    fn C_InitPIN(session: CK_SESSION_HANDLE, pin: CK_UTF8CHAR_PTR, pin_length: CK_ULONG) {
        let module = module()?;
        let context = module.session(session)?;
        session::init_pin(&context, pointers::pin(pin, pin_length)?)
    }

    fn C_SetPIN(
        session: CK_SESSION_HANDLE,
        old: CK_UTF8CHAR_PTR,
        old_length: CK_ULONG,
        new: CK_UTF8CHAR_PTR,
        new_length: CK_ULONG,
    ) {
        let module = module()?;
        let context = module.session(session)?;
        session::set_pin(&context, pointers::pin(old, old_length)?, pointers::pin(new, new_length)?)
    }
}
