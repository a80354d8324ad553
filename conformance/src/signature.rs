//! What the arguments of every function of the standard are (chapter 5), for calls that are built, recorded and retold.

use crate::raw::Function;

/// An argument of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A slot's number.
    Slot,
    /// A session's handle.
    Session,
    /// An object's handle.
    Object,
    /// A flag, a type or any other number.
    Number,
    /// A `CK_MECHANISM`.
    Mechanism,
    /// Attributes that are given. Their count follows.
    Template,
    /// Attributes that are asked for. Their count follows.
    Question,
    /// A PIN. Its length follows.
    Pin,
    /// Memory that is read. Its length follows.
    Input,
    /// Memory that is read and written, such as the parameter of a message. Its length follows.
    Parameter,
    /// A `CK_C_INITIALIZE_ARGS`.
    Arguments,
    /// The 32 bytes of a token's label.
    Label,
    /// Memory that is written. Where its length is read and written follows.
    Output,
    /// As many numbers. Where their count is read and written follows.
    List,
    /// As many handles; their most number and where their count is written follow.
    Handles,
    /// The length or count of what stands before it.
    Size,
    /// Where the length or count of what stands before it is read and written.
    Room,
    /// Where a handle of a session is written.
    NewSession,
    /// Where a handle of an object is written.
    NewObject,
    /// Where a number is written.
    NewNumber,
    /// A structure, a callback or a reserved pointer.
    Pointer,
}

macro_rules! signatures {
    ($( $( $function:ident )+ : $( $kind:ident )*; )*) => {
        /// The arguments of a function, in order.
        pub const fn of(function: Function) -> &'static [Kind] {
            match function {
                $( $( Function::$function )|+ => &[ $( Kind::$kind ),* ], )*
            }
        }
    };
}

signatures! {
    C_Initialize: Arguments;
    C_Finalize C_GetInfo C_GetFunctionList: Pointer;
    C_GetSlotList: Number List Room;
    C_GetSlotInfo C_GetTokenInfo: Slot Pointer;
    C_GetMechanismList: Slot List Room;
    C_GetMechanismInfo: Slot Number Pointer;
    C_InitToken: Slot Pin Size Label;
    C_InitPIN: Session Pin Size;
    C_SetPIN: Session Pin Size Pin Size;
    C_OpenSession: Slot Number Pointer Pointer NewSession;
    C_CloseSession C_Logout C_FindObjectsFinal C_GetFunctionStatus C_CancelFunction: Session;
    C_MessageEncryptFinal C_MessageDecryptFinal C_MessageSignFinal C_MessageVerifyFinal: Session;
    C_VerifySignatureFinal: Session;
    C_CloseAllSessions: Slot;
    C_GetSessionInfo: Session Pointer;
    C_GetOperationState: Session Output Room;
    C_SetOperationState: Session Input Size Object Object;
    C_Login: Session Number Pin Size;
    C_LoginUser: Session Number Pin Size Input Size;
    C_CreateObject: Session Template Size NewObject;
    C_CopyObject: Session Object Template Size NewObject;
    C_DestroyObject C_DigestKey: Session Object;
    C_GetObjectSize: Session Object NewNumber;
    C_GetAttributeValue: Session Object Question Size;
    C_SetAttributeValue: Session Object Template Size;
    C_FindObjectsInit: Session Template Size;
    C_FindObjects: Session Handles Number NewNumber;
    C_EncryptInit C_DecryptInit C_SignInit C_SignRecoverInit C_VerifyInit C_VerifyRecoverInit
    C_MessageEncryptInit C_MessageDecryptInit C_MessageSignInit C_MessageVerifyInit: Session Mechanism Object;
    C_DigestInit: Session Mechanism;
    C_Encrypt C_EncryptUpdate C_Decrypt C_DecryptUpdate C_Digest C_Sign C_SignRecover C_VerifyRecover
    C_DigestEncryptUpdate C_DecryptDigestUpdate C_SignEncryptUpdate C_DecryptVerifyUpdate:
        Session Input Size Output Room;
    C_EncryptFinal C_DecryptFinal C_DigestFinal C_SignFinal: Session Output Room;
    C_DigestUpdate C_SignUpdate C_VerifyUpdate C_VerifyFinal C_SeedRandom C_VerifySignature
    C_VerifySignatureUpdate: Session Input Size;
    C_Verify: Session Input Size Input Size;
    C_GenerateKey: Session Mechanism Template Size NewObject;
    C_GenerateKeyPair: Session Mechanism Template Size Template Size NewObject NewObject;
    C_WrapKey: Session Mechanism Object Object Output Room;
    C_UnwrapKey: Session Mechanism Object Input Size Template Size NewObject;
    C_DeriveKey: Session Mechanism Object Template Size NewObject;
    C_GenerateRandom: Session Pointer Number;
    C_WaitForSlotEvent: Number NewNumber Pointer;
    C_GetInterfaceList: Pointer NewNumber;
    C_GetInterface: Pointer Pointer Pointer Number;
    C_SessionCancel: Session Number;
    C_EncryptMessage C_DecryptMessage: Session Parameter Size Input Size Input Size Output Room;
    C_EncryptMessageBegin C_DecryptMessageBegin: Session Parameter Size Input Size;
    C_EncryptMessageNext C_DecryptMessageNext: Session Parameter Size Input Size Output Room Number;
    C_SignMessage: Session Parameter Size Input Size Output Room;
    C_SignMessageBegin C_VerifyMessageBegin: Session Parameter Size;
    C_SignMessageNext: Session Parameter Size Input Size Output Room;
    C_VerifyMessage C_VerifyMessageNext: Session Parameter Size Input Size Input Size;
    C_EncapsulateKey: Session Mechanism Object Template Size Output Room NewObject;
    C_DecapsulateKey: Session Mechanism Object Template Size Input Size NewObject;
    C_VerifySignatureInit: Session Mechanism Object Input Size;
    C_GetSessionValidationFlags: Session Number NewNumber;
    C_AsyncComplete: Session Pointer Pointer;
    C_AsyncGetID: Session Pointer NewNumber;
    C_AsyncJoin: Session Pointer Number Pointer Number;
    C_WrapKeyAuthenticated: Session Mechanism Object Object Input Size Output Room;
    C_UnwrapKeyAuthenticated: Session Mechanism Object Input Size Template Size Input Size NewObject;
}

/// Whether it takes a PIN: a module that does not refuse the call counts a wrong one, or sets it.
pub fn takes_a_pin(function: Function) -> bool {
    of(function).contains(&Kind::Pin)
}

/// Whether what a function puts into an `Output` is a plaintext, which may be a key.
pub const fn reveals(function: Function) -> bool {
    matches!(
        function,
        Function::C_Decrypt
            | Function::C_DecryptUpdate
            | Function::C_DecryptFinal
            | Function::C_DecryptMessage
            | Function::C_DecryptMessageNext
            | Function::C_DecryptDigestUpdate
            | Function::C_DecryptVerifyUpdate
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_memory() {
        for function in Function::ALL {
            let kinds = of(*function);
            assert!(kinds.len() <= 10, "{}", function.name());
            for pair in kinds.windows(2) {
                let [first, next] = pair else { continue };
                let wanted = match first {
                    Kind::Template | Kind::Question | Kind::Pin | Kind::Input | Kind::Parameter => Kind::Size,
                    Kind::Output | Kind::List => Kind::Room,
                    _ => continue,
                };
                assert_eq!(*next, wanted, "{}", function.name());
            }
        }
    }
}
