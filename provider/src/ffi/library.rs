//! General-purpose and slot functions (PKCS#11 3.1, sections 5.4 and 5.5).

use pkcs11_sys::*;

use crate::{
    ffi::{
        cryptoki,
        pointers::{self, Output, Place},
        tables,
    },
    module::{self, InitializeArguments, module},
    rv::Error,
    slot,
};

cryptoki! {
    fn C_Initialize(arguments: CK_VOID_PTR) {
        let given = if arguments.is_null() {
            InitializeArguments::default()
        } else {
            initialize_arguments(&pointers::read(arguments.cast::<CK_C_INITIALIZE_ARGS>())?)
        };
        module::initialize(given)
    }

    fn C_Finalize(reserved: CK_VOID_PTR) {
        if !reserved.is_null() {
            return Err(Error::ArgumentsBad);
        }
        module::finalize()
    }

    fn C_GetInfo(info: CK_INFO_PTR) {
        module()?;
        Place::new(info)?.put(slot::library_info(slot::CRYPTOKI_3_0));
        Ok(())
    }

    fn C_GetFunctionList(list: CK_FUNCTION_LIST_PTR_PTR) {
        Place::new(list)?.put((&raw const tables::FUNCTIONS_2_40).cast_mut());
        Ok(())
    }

    fn C_GetInterfaceList(interfaces: CK_INTERFACE_PTR, count: CK_ULONG_PTR) {
        match Output::new(interfaces, count).reserve(tables::INTERFACES.0.len())? {
            Some(place) => place.write(&tables::INTERFACES.0),
            None => Ok(()),
        }
    }

    fn C_GetInterface(
        name: CK_UTF8CHAR_PTR,
        version: CK_VERSION_PTR,
        interface: CK_INTERFACE_PTR_PTR,
        flags: CK_FLAGS,
    ) {
        let place = Place::new(interface)?;
        if !name.is_null() && !is_ours(name) {
            return Err(Error::ArgumentsBad);
        }
        let wanted = if version.is_null() { None } else { Some(pointers::read(version)?) };
        place.put(tables::interface(wanted, flags).ok_or(Error::ArgumentsBad)?);
        Ok(())
    }

    fn C_GetSlotList(token_present: CK_BBOOL, list: CK_SLOT_ID_PTR, count: CK_ULONG_PTR) {
        let module = module()?;
        if count.is_null() {
            return Err(Error::ArgumentsBad);
        }
        let slots = if token_present == CK_FALSE {
            module.slots().iter().map(|slot| slot.id).collect()
        } else {
            slot::with_token(&module)
        };
        match Output::new(list, count).reserve(slots.len())? {
            Some(place) => place.write(&slots),
            None => Ok(()),
        }
    }

    fn C_GetSlotInfo(id: CK_SLOT_ID, info: CK_SLOT_INFO_PTR) {
        let module = module()?;
        let place = Place::new(info)?;
        place.put(slot::info(&module, id)?);
        Ok(())
    }

    fn C_GetTokenInfo(id: CK_SLOT_ID, info: CK_TOKEN_INFO_PTR) {
        let module = module()?;
        let place = Place::new(info)?;
        place.put(slot::token_info(&module, id)?);
        Ok(())
    }

    fn C_GetMechanismList(id: CK_SLOT_ID, list: CK_MECHANISM_TYPE_PTR, count: CK_ULONG_PTR) {
        module()?.slot(id)?;
        let mechanisms = slot::mechanisms();
        match Output::new(list, count).reserve(mechanisms.len())? {
            Some(place) => place.write(&mechanisms),
            None => Ok(()),
        }
    }

    fn C_GetMechanismInfo(id: CK_SLOT_ID, mechanism: CK_MECHANISM_TYPE, info: CK_MECHANISM_INFO_PTR) {
        module()?.slot(id)?;
        let place = Place::new(info)?;
        place.put(slot::mechanism_info(mechanism)?);
        Ok(())
    }

    fn C_InitToken(id: CK_SLOT_ID, pin: CK_UTF8CHAR_PTR, pin_length: CK_ULONG, label: CK_UTF8CHAR_PTR) {
        let module = module()?;
        module.slot(id)?;
        let label = pointers::read(label.cast::<[u8; 32]>())?;
        slot::init_token(&module, id, pointers::pin(pin, pin_length)?, label)
    }

    fn C_WaitForSlotEvent(flags: CK_FLAGS, slot: CK_SLOT_ID_PTR, reserved: CK_VOID_PTR) {
        module()?;
        if slot.is_null() || !reserved.is_null() {
            return Err(Error::ArgumentsBad);
        }
        // Nothing here watches the servers, so nothing could end a wait.
        Err(if flags & CKF_DONT_BLOCK != 0 { Error::NoEvent } else { Error::FunctionNotSupported })
    }
}

/// `C_GetInfo` of the 2.40 function list, which tells that version.
pub(super) unsafe extern "C" fn info_2_40(info: CK_INFO_PTR) -> CK_RV {
    super::enter("C_GetInfo", || {
        module()?;
        // SAFETY: the caller vouches for the pointer.
        unsafe { Place::new(info) }?.put(slot::library_info(slot::CRYPTOKI_2_40));
        Ok(())
    })
}

fn initialize_arguments(raw: &CK_C_INITIALIZE_ARGS) -> InitializeArguments {
    let functions = [
        raw.CreateMutex.is_some(),
        raw.DestroyMutex.is_some(),
        raw.LockMutex.is_some(),
        raw.UnlockMutex.is_some(),
    ];
    InitializeArguments {
        mutex_functions: functions.into_iter().filter(|given| *given).count(),
        flags: raw.flags,
        reserved: if raw.pReserved.is_null() { None } else { Some(()) },
    }
}

/// Whether a C string is the name of the standard's interfaces. Reads no further than the first difference.
///
/// # Safety
/// `name` points to a string with a zero at its end.
unsafe fn is_ours(name: *const CK_UTF8CHAR) -> bool {
    // SAFETY: all bytes before were those of the name and not zero, so this one is within the string.
    tables::NAME.iter().enumerate().all(|(index, byte)| unsafe { name.add(index).read() } == *byte)
}
