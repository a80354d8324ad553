//! Calls that a careful program never makes: nulls, lying lengths, misaligned pointers, dead handles.
//!
//! The only `unsafe` of the suite. A module is loaded here, its tables are read here, and every call of every
//! check that the safe `cryptoki` crate cannot express goes through [`Module::call`], which passes any number
//! as any argument. That is unsound by design when the module is faulty, so it runs in a child process whose
//! death is a finding (`runner/`).

#![allow(unsafe_code)]

mod host;

use std::marker::PhantomData;
use std::path::Path;
use std::ptr;

use cryptoki_sys::*;
use libloading::Library;

use crate::gate::Gate;
use crate::rv::Rv;
use crate::trace::Recorder;
use crate::tries::{Ledger, Try};
pub use host::{in_forked_child, initialize_args, mutex_use};

macro_rules! functions {
    (2.40: $( $classic:ident )*; 3.0: $( $newer:ident )*; 3.2: $( $newest:ident )*;) => {
        /// A function of the standard, in the order of the function lists.
        #[allow(non_camel_case_types, missing_docs, clippy::enum_variant_names)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(clippy::enum_variant_names)] // the standard's names
        pub enum Function { $( $classic, )* $( $newer, )* $( $newest, )* }

        impl Function {
            /// The functions of version 2.40.
            pub const CLASSIC: &'static [Self] = &[ $( Self::$classic, )* ];

            /// The functions of version 3.0, which are those of 2.40 and 24 more.
            pub const UP_TO_3_0: &'static [Self] = &[ $( Self::$classic, )* $( Self::$newer, )* ];

            /// The functions of version 3.2, which are those of 3.0 and 12 more.
            pub const ALL: &'static [Self] =
                &[ $( Self::$classic, )* $( Self::$newer, )* $( Self::$newest, )* ];

            /// Its name in the header.
            pub const fn name(self) -> &'static str {
                match self {
                    $( Self::$classic => stringify!($classic), )*
                    $( Self::$newer => stringify!($newer), )*
                    $( Self::$newest => stringify!($newest), )*
                }
            }
        }

        fn address_in_classic(list: &CK_FUNCTION_LIST, function: Function) -> Option<*const ()> {
            match function {
                $( Function::$classic => list.$classic.map(|address| address as *const ()), )*
                $( Function::$newer => None, )*
                $( Function::$newest => None, )*
            }
        }

        fn address_in_3_0(list: &CK_FUNCTION_LIST_3_0, function: Function) -> Option<*const ()> {
            match function {
                $( Function::$classic => list.$classic.map(|address| address as *const ()), )*
                $( Function::$newer => list.$newer.map(|address| address as *const ()), )*
                $( Function::$newest => None, )*
            }
        }

        fn address_in_3_2(list: &CK_FUNCTION_LIST_3_2, function: Function) -> Option<*const ()> {
            match function {
                $( Function::$classic => list.$classic.map(|address| address as *const ()), )*
                $( Function::$newer => list.$newer.map(|address| address as *const ()), )*
                $( Function::$newest => list.$newest.map(|address| address as *const ()), )*
            }
        }
    };
}

functions! {
    2.40:
    C_Initialize C_Finalize C_GetInfo C_GetFunctionList C_GetSlotList C_GetSlotInfo C_GetTokenInfo
    C_GetMechanismList C_GetMechanismInfo C_InitToken C_InitPIN C_SetPIN C_OpenSession C_CloseSession
    C_CloseAllSessions C_GetSessionInfo C_GetOperationState C_SetOperationState C_Login C_Logout C_CreateObject
    C_CopyObject C_DestroyObject C_GetObjectSize C_GetAttributeValue C_SetAttributeValue C_FindObjectsInit
    C_FindObjects C_FindObjectsFinal C_EncryptInit C_Encrypt C_EncryptUpdate C_EncryptFinal C_DecryptInit C_Decrypt
    C_DecryptUpdate C_DecryptFinal C_DigestInit C_Digest C_DigestUpdate C_DigestKey C_DigestFinal C_SignInit C_Sign
    C_SignUpdate C_SignFinal C_SignRecoverInit C_SignRecover C_VerifyInit C_Verify C_VerifyUpdate C_VerifyFinal
    C_VerifyRecoverInit C_VerifyRecover C_DigestEncryptUpdate C_DecryptDigestUpdate C_SignEncryptUpdate
    C_DecryptVerifyUpdate C_GenerateKey C_GenerateKeyPair C_WrapKey C_UnwrapKey C_DeriveKey C_SeedRandom
    C_GenerateRandom C_GetFunctionStatus C_CancelFunction C_WaitForSlotEvent;
    3.0:
    C_GetInterfaceList C_GetInterface C_LoginUser C_SessionCancel C_MessageEncryptInit C_EncryptMessage
    C_EncryptMessageBegin C_EncryptMessageNext C_MessageEncryptFinal C_MessageDecryptInit C_DecryptMessage
    C_DecryptMessageBegin C_DecryptMessageNext C_MessageDecryptFinal C_MessageSignInit C_SignMessage
    C_SignMessageBegin C_SignMessageNext C_MessageSignFinal C_MessageVerifyInit C_VerifyMessage C_VerifyMessageBegin
    C_VerifyMessageNext C_MessageVerifyFinal;
    3.2:
    C_EncapsulateKey C_DecapsulateKey C_VerifySignatureInit C_VerifySignature C_VerifySignatureUpdate
    C_VerifySignatureFinal C_GetSessionValidationFlags C_AsyncComplete C_AsyncGetID C_AsyncJoin
    C_WrapKeyAuthenticated C_UnwrapKeyAuthenticated;
}

/// What a call comes to that is not made. No report has it: the check was not made either, or the run ends.
const WITHHELD: CK_RV = CKR_VENDOR_DEFINED | 0x5749_5448;

/// One argument of a call: a number, or the address of memory that outlives the call.
#[derive(Clone, Copy, Debug)]
pub struct Arg<'a> {
    word: usize,
    extent: usize,
    lifetime: PhantomData<&'a mut ()>,
}

impl<'a> Arg<'a> {
    /// The null pointer.
    pub const NULL: Self = Self::new(0, 0);

    const fn new(word: usize, extent: usize) -> Self {
        Self { word, extent, lifetime: PhantomData }
    }

    /// A handle, length, flag or other number.
    pub const fn number(number: CK_ULONG) -> Self {
        Self::new(number as usize, 0)
    }

    /// The address of memory that the module reads.
    pub fn slice<T>(memory: &'a [T]) -> Self {
        Self::new(memory.as_ptr().expose_provenance(), size_of_val(memory))
    }

    /// The address of memory that the module writes.
    pub fn slice_mut<T>(memory: &'a mut [T]) -> Self {
        Self::new(memory.as_mut_ptr().expose_provenance(), size_of_val(memory))
    }

    /// The address of a structure that the module reads.
    pub fn of<T>(value: &'a T) -> Self {
        Self::new(ptr::from_ref(value).expose_provenance(), size_of::<T>())
    }

    /// The address of a structure that the module writes.
    pub fn of_mut<T>(value: &'a mut T) -> Self {
        Self::new(ptr::from_mut(value).expose_provenance(), size_of::<T>())
    }

    /// An argument that points this many bytes further.
    pub const fn plus(self, bytes: usize) -> Self {
        Self::new(self.word.wrapping_add(bytes), self.extent.saturating_sub(bytes))
    }

    /// The number or address.
    pub const fn word(self) -> usize {
        self.word
    }

    /// How many bytes of memory there are at the address.
    pub const fn extent(self) -> usize {
        self.extent
    }
}

/// An interface as a module describes it (3.1, 3.1 `CK_INTERFACE`).
#[derive(Clone, Debug)]
pub struct Interface {
    /// `pInterfaceName`.
    pub name: String,
    /// The version at the head of its function list, or `None` for a null list.
    pub version: Option<(u8, u8)>,
    /// `flags`.
    pub flags: CK_FLAGS,
    /// The address of its function list.
    pub address: usize,
}

/// A loaded module. It stays loaded until the process ends.
pub struct Module {
    library: Library,
    classic: &'static CK_FUNCTION_LIST,
    newer: Option<&'static CK_FUNCTION_LIST_3_0>,
    newest: Option<&'static CK_FUNCTION_LIST_3_2>,
    recorder: Recorder,
    ledger: Ledger,
    gate: Gate,
}

impl Module {
    /// Loads a module and finds its function lists.
    ///
    /// # Errors
    /// A sentence, when the file is not a module.
    pub fn load(path: &Path, recorder: Recorder, ledger: Ledger) -> Result<Self, String> {
        // SAFETY: loading runs the library's initialisers; the user named it in order to run it.
        let library = unsafe { Library::new(path) }
            .map_err(|error| format!("no library that can be loaded here: {error}"))?;
        let mut list: *mut CK_FUNCTION_LIST = ptr::null_mut();
        // SAFETY: the symbol has this type in every version of the standard (5.4.4).
        let code = unsafe {
            let function = library
                .get::<unsafe extern "C" fn(*mut *mut CK_FUNCTION_LIST) -> CK_RV>(b"C_GetFunctionList\0")
                .map_err(|error| format!("no PKCS#11 module: {error}"))?;
            function(&mut list)
        };
        // SAFETY: the list lives as long as the library, which is never unloaded before the process ends.
        let classic = match (code, unsafe { list.as_ref() }) {
            (CKR_OK, Some(classic)) => classic,
            (CKR_OK, None) => return Err("C_GetFunctionList answers CKR_OK and gives a null list".to_owned()),
            (_, _) => return Err(format!("C_GetFunctionList answers {}", crate::rv::name(code))),
        };
        let mut module =
            Self { library, classic, newer: None, newest: None, recorder, ledger, gate: Gate::default() };
        let newer = module.list_of(3, 0).or_else(|| module.list_of(3, 1));
        // SAFETY: the interface was asked for, and says that it is, version 3.0 or 3.1, which have one list; it lives as
        // the library does.
        module.newer = newer.and_then(|address| unsafe {
            ptr::with_exposed_provenance::<CK_FUNCTION_LIST_3_0>(address).as_ref()
        });
        let newest = module.list_of(3, 2);
        // SAFETY: so of version 3.2.
        module.newest = newest.and_then(|address| unsafe {
            ptr::with_exposed_provenance::<CK_FUNCTION_LIST_3_2>(address).as_ref()
        });
        Ok(module)
    }

    /// The address of the list of exactly this version of the interface `PKCS 11`.
    fn list_of(&self, major: u8, minor: u8) -> Option<usize> {
        let mut version = CK_VERSION { major, minor };
        let interface = self.interface(Some(b"PKCS 11\0"), Some(&mut version), 0).ok()?;
        (interface.version == Some((major, minor))).then_some(interface.address)
    }

    /// The version of the list that `C_GetFunctionList` gives.
    pub fn list_version(&self) -> (u8, u8) {
        (self.classic.version.major, self.classic.version.minor)
    }

    /// Whether the module has an interface of version 3.0.
    pub const fn has_3_0(&self) -> bool {
        self.newer.is_some()
    }

    /// Whether the module has an interface of version 3.2.
    pub const fn has_3_2(&self) -> bool {
        self.newest.is_some()
    }

    /// The versions of its function lists.
    pub fn versions(&self) -> Vec<&'static str> {
        let newer = self.newer.map(|_| "3.0");
        let newest = self.newest.map(|_| "3.2");
        std::iter::once("2.40").chain(newer).chain(newest).collect()
    }

    /// Whether a function has an address.
    pub fn has(&self, function: Function) -> bool {
        self.address(function).is_some()
    }

    /// The functions whose pointers are null in the list of 2.40.
    pub fn nulls_in_classic(&self) -> Vec<&'static str> {
        let missing = |function: &&Function| address_in_classic(self.classic, **function).is_none();
        Function::CLASSIC.iter().filter(missing).map(|function| function.name()).collect()
    }

    /// The functions whose pointers are null in the list of 3.0, if there is one.
    pub fn nulls_in_3_0(&self) -> Option<Vec<&'static str>> {
        let list = self.newer?;
        let missing = |function: &&Function| address_in_3_0(list, **function).is_none();
        Some(Function::UP_TO_3_0.iter().filter(missing).map(|function| function.name()).collect())
    }

    /// The functions whose pointers are null in the list of 3.2, if there is one.
    pub fn nulls_in_3_2(&self) -> Option<Vec<&'static str>> {
        let list = self.newest?;
        let missing = |function: &&Function| address_in_3_2(list, **function).is_none();
        Some(Function::ALL.iter().filter(missing).map(|function| function.name()).collect())
    }

    /// Whether the library exports a symbol of this function's name.
    pub fn exports(&self, function: Function) -> bool {
        self.symbol(function).is_some()
    }

    fn symbol(&self, function: Function) -> Option<*const ()> {
        // SAFETY: only the address is taken; `invoke` says what it takes to call it.
        let symbol = unsafe { self.library.get::<*const ()>(function.name().as_bytes()) };
        symbol.ok().map(|symbol| *symbol).filter(|address| !address.is_null())
    }

    fn address(&self, function: Function) -> Option<*const ()> {
        match (self.newest, self.newer, function) {
            (_, _, Function::C_GetInterfaceList | Function::C_GetInterface) => self.symbol(function),
            (Some(list), _, _) => address_in_3_2(list, function),
            (None, Some(list), _) => address_in_3_0(list, function),
            (None, None, _) => address_in_classic(self.classic, function),
        }
    }

    /// Calls a function with these arguments, whatever they are. A function that the module lacks answers
    /// `CKR_FUNCTION_NOT_SUPPORTED`, and a call that would cost a try of a PIN too many [`WITHHELD`]: it is not made.
    pub fn call(&self, function: Function, arguments: &[Arg<'_>]) -> Rv {
        let Ok(one) = self.ledger.begin(function, arguments) else {
            return Rv { function, code: WITHHELD };
        };
        let code = if self.recorder.is_paused() {
            self.code_of(function, arguments)
        } else {
            let record = self.recorder.before(function, arguments);
            let code = match self.gate.permits(&record, one.is_some_and(Try::is_wrong)) {
                true => self.code_of(function, arguments),
                false => WITHHELD,
            };
            self.recorder.after(function, arguments, record, code);
            code
        };
        if let Some(one) = one {
            self.ledger.end(one, code);
        }
        Rv { function, code }
    }

    fn code_of(&self, function: Function, arguments: &[Arg<'_>]) -> CK_RV {
        match self.address(function) {
            // SAFETY: the caller gives as many arguments as the function has. What they point to is the check's
            // business, and the process is there to be lost.
            Some(address) => unsafe { invoke(address, arguments) },
            None => CKR_FUNCTION_NOT_SUPPORTED,
        }
    }

    /// The tries of PINs that its calls cost.
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What holds a check to its mark.
    pub const fn gate(&self) -> &Gate {
        &self.gate
    }

    /// The record of its calls.
    pub const fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Asks `C_GetInterface` (5.4.6) and reads the answer.
    ///
    /// # Errors
    /// What the module answered, if not an interface.
    pub fn interface(
        &self,
        name: Option<&[u8]>,
        version: Option<&mut CK_VERSION>,
        flags: CK_FLAGS,
    ) -> Result<Interface, Rv> {
        let mut found: *mut CK_INTERFACE = ptr::null_mut();
        let arguments = [
            name.map_or(Arg::NULL, Arg::slice),
            version.map_or(Arg::NULL, Arg::of_mut),
            Arg::of_mut(&mut found),
            Arg::number(flags),
        ];
        let rv = self.call(Function::C_GetInterface, &arguments);
        // SAFETY: on `CKR_OK` the module points to an interface of its own.
        match unsafe { found.as_ref() }.filter(|_| rv.code == CKR_OK) {
            Some(interface) => Ok(describe(interface)),
            None => Err(rv),
        }
    }

    /// Asks `C_GetInterfaceList` (5.4.5) for as many interfaces as it counts, and reads them.
    ///
    /// # Errors
    /// What the module answered, if not a list.
    pub fn interfaces(&self) -> Result<Vec<Interface>, Rv> {
        let mut count: CK_ULONG = 0;
        let rv = self.call(Function::C_GetInterfaceList, &[Arg::NULL, Arg::of_mut(&mut count)]);
        if rv.code != CKR_OK {
            return Err(rv);
        }
        let empty =
            CK_INTERFACE { pInterfaceName: ptr::null_mut(), pFunctionList: ptr::null_mut(), flags: 0 };
        let mut list = vec![empty; usize::try_from(count).unwrap_or(0).min(64)];
        let arguments = [Arg::slice_mut(&mut list), Arg::of_mut(&mut count)];
        let rv = self.call(Function::C_GetInterfaceList, &arguments);
        if rv.code != CKR_OK {
            return Err(rv);
        }
        list.truncate(usize::try_from(count).unwrap_or(0));
        Ok(list.iter().map(describe).collect())
    }
}

fn describe(interface: &CK_INTERFACE) -> Interface {
    let name = if interface.pInterfaceName.is_null() {
        String::new()
    } else {
        // SAFETY: the standard has it end with a zero byte.
        unsafe { std::ffi::CStr::from_ptr(interface.pInterfaceName.cast()) }.to_string_lossy().into_owned()
    };
    // SAFETY: every function list begins with its version (3.6).
    let version = unsafe { interface.pFunctionList.cast::<CK_VERSION>().as_ref() };
    Interface {
        name,
        version: version.map(|version| (version.major, version.minor)),
        flags: interface.flags,
        address: interface.pFunctionList.expose_provenance(),
    }
}

/// Calls a C function with up to ten arguments, each a machine word.
///
/// # Safety
/// `address` is a function with that many integer or pointer arguments. Every argument of the standard's functions
/// is one of the two, so each travels as one word in the calling conventions of 64-bit systems.
unsafe fn invoke(address: *const (), arguments: &[Arg<'_>]) -> CK_RV {
    macro_rules! with {
        ($( $argument:ident )*) => {{
            // SAFETY: the caller's promise; function pointers are as wide as data pointers.
            unsafe {
                let function: unsafe extern "C" fn($( with!(@word $argument) ),*) -> CK_RV =
                    std::mem::transmute(address);
                function($( $argument.word ),*)
            }
        }};
        (@word $argument:ident) => { usize };
    }
    match arguments {
        [] => with!(),
        [a] => with!(a),
        [a, b] => with!(a b),
        [a, b, c] => with!(a b c),
        [a, b, c, d] => with!(a b c d),
        [a, b, c, d, e] => with!(a b c d e),
        [a, b, c, d, e, f] => with!(a b c d e f),
        [a, b, c, d, e, f, g] => with!(a b c d e f g),
        [a, b, c, d, e, f, g, h] => with!(a b c d e f g h),
        [a, b, c, d, e, f, g, h, i] => with!(a b c d e f g h i),
        [a, b, c, d, e, f, g, h, i, j] => with!(a b c d e f g h i j),
        _ => CKR_FUNCTION_NOT_SUPPORTED,
    }
}
