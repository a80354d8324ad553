//! The functions of the standard, in the order of the function lists (2.40: 68, 3.0: 92, 3.2: 104), each with an
//! entry that takes its arguments as machine words: every one is a number or an address.

#![allow(unsafe_code)]

use cryptoki_sys::CK_RV;

macro_rules! functions {
    ($( $name:ident($( $word:ident )*); )*) => {
        /// A function of the standard.
        #[allow(non_camel_case_types, missing_docs, clippy::enum_variant_names, reason = "the standard's names")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Function { $( $name, )* }

        impl Function {
            /// Every function.
            pub const ALL: &'static [Self] = &[ $( Self::$name, )* ];
        }

        mod entry {
            use super::*;
            $(
                pub(super) unsafe extern "C" fn $name($( $word: usize ),*) -> CK_RV {
                    crate::enter(Function::$name, &[ $( $word ),* ])
                }
            )*
        }

        /// The addresses of the mutant's functions, in the order of the function lists.
        pub(crate) fn entries() -> [*const (); 104] {
            [ $( entry::$name as *const (), )* ]
        }
    };
}

functions! {
    C_Initialize(a);
    C_Finalize(a);
    C_GetInfo(a);
    C_GetFunctionList(a);
    C_GetSlotList(a b c);
    C_GetSlotInfo(a b);
    C_GetTokenInfo(a b);
    C_GetMechanismList(a b c);
    C_GetMechanismInfo(a b c);
    C_InitToken(a b c d);
    C_InitPIN(a b c);
    C_SetPIN(a b c d e);
    C_OpenSession(a b c d e);
    C_CloseSession(a);
    C_CloseAllSessions(a);
    C_GetSessionInfo(a b);
    C_GetOperationState(a b c);
    C_SetOperationState(a b c d e);
    C_Login(a b c d);
    C_Logout(a);
    C_CreateObject(a b c d);
    C_CopyObject(a b c d e);
    C_DestroyObject(a b);
    C_GetObjectSize(a b c);
    C_GetAttributeValue(a b c d);
    C_SetAttributeValue(a b c d);
    C_FindObjectsInit(a b c);
    C_FindObjects(a b c d);
    C_FindObjectsFinal(a);
    C_EncryptInit(a b c);
    C_Encrypt(a b c d e);
    C_EncryptUpdate(a b c d e);
    C_EncryptFinal(a b c);
    C_DecryptInit(a b c);
    C_Decrypt(a b c d e);
    C_DecryptUpdate(a b c d e);
    C_DecryptFinal(a b c);
    C_DigestInit(a b);
    C_Digest(a b c d e);
    C_DigestUpdate(a b c);
    C_DigestKey(a b);
    C_DigestFinal(a b c);
    C_SignInit(a b c);
    C_Sign(a b c d e);
    C_SignUpdate(a b c);
    C_SignFinal(a b c);
    C_SignRecoverInit(a b c);
    C_SignRecover(a b c d e);
    C_VerifyInit(a b c);
    C_Verify(a b c d e);
    C_VerifyUpdate(a b c);
    C_VerifyFinal(a b c);
    C_VerifyRecoverInit(a b c);
    C_VerifyRecover(a b c d e);
    C_DigestEncryptUpdate(a b c d e);
    C_DecryptDigestUpdate(a b c d e);
    C_SignEncryptUpdate(a b c d e);
    C_DecryptVerifyUpdate(a b c d e);
    C_GenerateKey(a b c d e);
    C_GenerateKeyPair(a b c d e f g h);
    C_WrapKey(a b c d e f);
    C_UnwrapKey(a b c d e f g h);
    C_DeriveKey(a b c d e f);
    C_SeedRandom(a b c);
    C_GenerateRandom(a b c);
    C_GetFunctionStatus(a);
    C_CancelFunction(a);
    C_WaitForSlotEvent(a b c);
    C_GetInterfaceList(a b);
    C_GetInterface(a b c d);
    C_LoginUser(a b c d e f);
    C_SessionCancel(a b);
    C_MessageEncryptInit(a b c);
    C_EncryptMessage(a b c d e f g h i);
    C_EncryptMessageBegin(a b c d e);
    C_EncryptMessageNext(a b c d e f g h);
    C_MessageEncryptFinal(a);
    C_MessageDecryptInit(a b c);
    C_DecryptMessage(a b c d e f g h i);
    C_DecryptMessageBegin(a b c d e);
    C_DecryptMessageNext(a b c d e f g h);
    C_MessageDecryptFinal(a);
    C_MessageSignInit(a b c);
    C_SignMessage(a b c d e f g);
    C_SignMessageBegin(a b c);
    C_SignMessageNext(a b c d e f g);
    C_MessageSignFinal(a);
    C_MessageVerifyInit(a b c);
    C_VerifyMessage(a b c d e f g);
    C_VerifyMessageBegin(a b c);
    C_VerifyMessageNext(a b c d e f g);
    C_MessageVerifyFinal(a);
    C_EncapsulateKey(a b c d e f g h);
    C_DecapsulateKey(a b c d e f g h);
    C_VerifySignatureInit(a b c d e);
    C_VerifySignature(a b c);
    C_VerifySignatureUpdate(a b c);
    C_VerifySignatureFinal(a);
    C_GetSessionValidationFlags(a b c);
    C_AsyncComplete(a b c);
    C_AsyncGetID(a b c);
    C_AsyncJoin(a b c d e);
    C_WrapKeyAuthenticated(a b c d e f g h);
    C_UnwrapKeyAuthenticated(a b c d e f g h i j);
}

/// How many functions a list of this version has; a version that is not known has none that can be forwarded.
pub(crate) const fn count(major: u8, minor: u8) -> usize {
    match (major, minor) {
        (2, _) => 68,
        (3, 0 | 1) => 92,
        (3, _) => 104,
        (_, _) => 0,
    }
}

/// Exported, as a module must.
#[unsafe(no_mangle)]
unsafe extern "C" fn C_GetFunctionList(list: usize) -> CK_RV {
    crate::enter(Function::C_GetFunctionList, &[list])
}

/// Exported, as a module of 3.0 must.
#[unsafe(no_mangle)]
unsafe extern "C" fn C_GetInterfaceList(list: usize, count: usize) -> CK_RV {
    crate::enter(Function::C_GetInterfaceList, &[list, count])
}

/// Exported, as a module of 3.0 must.
#[unsafe(no_mangle)]
unsafe extern "C" fn C_GetInterface(name: usize, version: usize, interface: usize, flags: usize) -> CK_RV {
    crate::enter(Function::C_GetInterface, &[name, version, interface, flags])
}
