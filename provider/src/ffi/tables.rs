//! The function lists and interfaces, made from one list of names: a missing function does not compile.

// By name: `pkcs11_sys` declares every `C_*` function too.
use pkcs11_sys::{
    CK_FLAGS, CK_FUNCTION_LIST, CK_FUNCTION_LIST_3_0, CK_INTERFACE, CK_VERSION, CKF_INTERFACE_FORK_SAFE,
};

use super::{library::*, objects::*, operations::*, sessions::*, unsupported::*};
use crate::slot::{CRYPTOKI_2_40, CRYPTOKI_3_0};

/// The name of the standard's interfaces, as a C string.
pub(super) const NAME: &[u8; 8] = b"PKCS 11\0";

macro_rules! function_lists {
    ({ $($name:ident)* } { $($new:ident)* }) => {
        /// What `C_GetFunctionList` gives: Cryptoki 2.40.
        pub static FUNCTIONS_2_40: CK_FUNCTION_LIST = CK_FUNCTION_LIST {
            C_GetInfo: Some(info_2_40),
            ..CK_FUNCTION_LIST { version: CRYPTOKI_2_40, $($name: Some($name),)* }
        };

        /// Cryptoki 3.0.
        pub static FUNCTIONS_3_0: CK_FUNCTION_LIST_3_0 =
            CK_FUNCTION_LIST_3_0 { version: CRYPTOKI_3_0, $($name: Some($name),)* $($new: Some($new),)* };
    };
}

function_lists! {
    {
        C_Initialize C_Finalize C_GetInfo C_GetFunctionList C_GetSlotList C_GetSlotInfo C_GetTokenInfo
        C_GetMechanismList C_GetMechanismInfo C_InitToken C_InitPIN C_SetPIN C_OpenSession C_CloseSession
        C_CloseAllSessions C_GetSessionInfo C_GetOperationState C_SetOperationState C_Login C_Logout
        C_CreateObject C_CopyObject C_DestroyObject C_GetObjectSize C_GetAttributeValue C_SetAttributeValue
        C_FindObjectsInit C_FindObjects C_FindObjectsFinal C_EncryptInit C_Encrypt C_EncryptUpdate
        C_EncryptFinal C_DecryptInit C_Decrypt C_DecryptUpdate C_DecryptFinal C_DigestInit C_Digest
        C_DigestUpdate C_DigestKey C_DigestFinal C_SignInit C_Sign C_SignUpdate C_SignFinal
        C_SignRecoverInit C_SignRecover C_VerifyInit C_Verify C_VerifyUpdate C_VerifyFinal
        C_VerifyRecoverInit C_VerifyRecover C_DigestEncryptUpdate C_DecryptDigestUpdate C_SignEncryptUpdate
        C_DecryptVerifyUpdate C_GenerateKey C_GenerateKeyPair C_WrapKey C_UnwrapKey C_DeriveKey C_SeedRandom
        C_GenerateRandom C_GetFunctionStatus C_CancelFunction C_WaitForSlotEvent
    }
    {
        C_GetInterfaceList C_GetInterface C_LoginUser C_SessionCancel C_MessageEncryptInit C_EncryptMessage
        C_EncryptMessageBegin C_EncryptMessageNext C_MessageEncryptFinal C_MessageDecryptInit
        C_DecryptMessage C_DecryptMessageBegin C_DecryptMessageNext C_MessageDecryptFinal C_MessageSignInit
        C_SignMessage C_SignMessageBegin C_SignMessageNext C_MessageSignFinal C_MessageVerifyInit
        C_VerifyMessage C_VerifyMessageBegin C_VerifyMessageNext C_MessageVerifyFinal
    }
}

/// What `C_GetInterfaceList` gives, the default first.
pub(super) struct Interfaces(pub [CK_INTERFACE; 2]);

// SAFETY: its pointers are to statics that nobody writes.
unsafe impl Sync for Interfaces {}

/// The interfaces. A child of `fork` goes on with its parent's sessions, so they are fork-safe.
pub(super) static INTERFACES: Interfaces = Interfaces([
    interface_of((&raw const FUNCTIONS_3_0).cast()),
    interface_of((&raw const FUNCTIONS_2_40).cast()),
]);

const fn interface_of(functions: *const std::ffi::c_void) -> CK_INTERFACE {
    CK_INTERFACE {
        pInterfaceName: NAME.as_ptr().cast_mut(),
        pFunctionList: functions.cast_mut(),
        flags: CKF_INTERFACE_FORK_SAFE,
    }
}

/// The interface of this version, or the default, if it has all of these flags.
pub(super) fn interface(version: Option<CK_VERSION>, flags: CK_FLAGS) -> Option<*mut CK_INTERFACE> {
    let [v3, v2] = &INTERFACES.0;
    let wanted = |version: CK_VERSION| (version.major, version.minor);
    let interface = match version.map(wanted) {
        None => v3,
        Some(version) if version == wanted(CRYPTOKI_3_0) => v3,
        Some(version) if version == wanted(CRYPTOKI_2_40) => v2,
        Some(_) => return None,
    };
    (interface.flags & flags == flags).then_some((&raw const *interface).cast_mut())
}
