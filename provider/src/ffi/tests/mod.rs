//! The C edge as a C program meets it: the tables and the interfaces, the library's beginning and end; what a caller gets
//! wrong in `arguments`, and `fork` in a file of its own.

mod arguments;
mod fork;

use std::{
    ffi::c_void,
    ptr::{null, null_mut},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pkcs11_sys::{
    CK_ATTRIBUTE, CK_C_INITIALIZE_ARGS, CK_FLAGS, CK_FUNCTION_LIST, CK_INFO, CK_INTERFACE, CK_MECHANISM,
    CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_ULONG, CK_VERSION, CKA_CLASS, CKA_KEY_TYPE, CKA_SIGN,
    CKA_VALUE, CKF_INTERFACE_FORK_SAFE, CKF_OS_LOCKING_OK, CKF_RW_SESSION, CKF_SERIAL_SESSION,
    CKK_GENERIC_SECRET, CKM_SHA256_HMAC, CKO_SECRET_KEY, CKR_ARGUMENTS_BAD, CKR_BUFFER_TOO_SMALL,
    CKR_CANT_LOCK, CKR_CRYPTOKI_ALREADY_INITIALIZED, CKR_CRYPTOKI_NOT_INITIALIZED, CKR_GENERAL_ERROR,
    CKR_NO_EVENT, CKR_OK,
};

use super::{library::*, objects::*, operations::*, sessions::*, tables, unsupported::*};
use crate::{
    hsm::Transport,
    module::{self, Module, Way},
    rv::Error,
    tests::{
        DEADLINES, opened,
        server::{Pki, TestServer},
        vault::{InProcess, ScriptedVault},
    },
    tls::Tls,
};

/// The library is one per process, so its tests take turns.
static TURN: Mutex<()> = Mutex::new(());

struct Installed(#[allow(dead_code, reason = "held")] MutexGuard<'static, ()>);

impl Drop for Installed {
    fn drop(&mut self) {
        module::finalize().unwrap();
    }
}

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn install(transport: impl Transport + 'static) -> Installed {
    let turn = turn();
    let transport = Box::new(transport) as Box<dyn Transport>;
    module::install(Module::over([Way::new("test", transport)], DEADLINES).unwrap()).unwrap();
    Installed(turn)
}

fn installed() -> (Installed, CK_SESSION_HANDLE) {
    let turn = install(InProcess(Arc::new(ScriptedVault::default())));
    (turn, session())
}

fn session() -> CK_SESSION_HANDLE {
    let mut session = 0;
    let flags: CK_FLAGS = CKF_SERIAL_SESSION | CKF_RW_SESSION;
    // SAFETY: every pointer is to a local.
    assert_eq!(unsafe { C_OpenSession(0, flags, null_mut(), None, &mut session) }, CKR_OK);
    session
}

fn attribute<T>(kind: CK_ULONG, value: &T) -> CK_ATTRIBUTE {
    CK_ATTRIBUTE {
        type_: kind,
        pValue: (&raw const *value).cast_mut().cast(),
        ulValueLen: size_of_val(value) as CK_ULONG,
    }
}

fn create(session: CK_SESSION_HANDLE, mut template: Vec<CK_ATTRIBUTE>) -> Result<CK_OBJECT_HANDLE, CK_RV> {
    let mut handle = 0;
    let (entries, count) = (template.as_mut_ptr(), template.len() as CK_ULONG);
    // SAFETY: every pointer is to a local, but for those that a test made wrong on purpose and that are null.
    match unsafe { C_CreateObject(session, entries, count, &mut handle) } {
        CKR_OK => Ok(handle),
        rv => Err(rv),
    }
}

fn hmac_key(session: CK_SESSION_HANDLE) -> CK_OBJECT_HANDLE {
    let template = vec![
        attribute(CKA_CLASS, &CKO_SECRET_KEY),
        attribute(CKA_KEY_TYPE, &CKK_GENERIC_SECRET),
        attribute(CKA_VALUE, &[7_u8; 32]),
        attribute(CKA_SIGN, &1_u8),
    ];
    create(session, template).unwrap()
}

fn mechanism(mechanism: CK_ULONG) -> CK_MECHANISM {
    CK_MECHANISM { mechanism, pParameter: null_mut(), ulParameterLen: 0 }
}

fn with_parameter<T>(mechanism: CK_ULONG, parameter: &T) -> CK_MECHANISM {
    CK_MECHANISM {
        mechanism,
        pParameter: (&raw const *parameter).cast_mut().cast(),
        ulParameterLen: size_of::<T>() as CK_ULONG,
    }
}

fn sign(session: CK_SESSION_HANDLE, key: CK_OBJECT_HANDLE) -> Result<[u8; 32], CK_RV> {
    let (mut signature, mut length) = ([0; 32], 32);
    let mut hmac = mechanism(CKM_SHA256_HMAC);
    // SAFETY: every pointer is to a local.
    unsafe {
        let rv = C_SignInit(session, &mut hmac, key);
        let rv = if rv == CKR_OK {
            C_Sign(session, b"message".as_ptr().cast_mut(), 7, signature.as_mut_ptr(), &mut length)
        } else {
            rv
        };
        if rv == CKR_OK { Ok(signature) } else { Err(rv) }
    }
}

#[test]
fn no_function_is_missing_from_either_table() {
    fn pointers<T>(table: &'static T) -> &'static [usize] {
        let count = size_of::<T>() / size_of::<usize>() - 1;
        // SAFETY: after the version, padded to a word, a table is an array of function pointers.
        unsafe { std::slice::from_raw_parts((&raw const *table).cast::<usize>().add(1), count) }
    }
    let (v2, v3) = (pointers(&tables::FUNCTIONS_2_40), pointers(&tables::FUNCTIONS_3_0));
    assert_eq!((v2.len(), v3.len()), (68, 92));
    assert!(v2.iter().chain(v3).all(|pointer| *pointer != 0));
    let mut distinct = v3.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 92, "each entry has a function of its own");
}

#[test]
fn interfaces_are_found_by_name_version_and_flags() {
    // SAFETY: every pointer is null or to a local or to a C string.
    unsafe {
        let mut count = 0;
        assert_eq!(C_GetInterfaceList(null_mut(), &mut count), CKR_OK);
        assert_eq!(count, 2);
        let mut list = [CK_INTERFACE::default(); 2];
        count = 1;
        assert_eq!(C_GetInterfaceList(list.as_mut_ptr(), &mut count), CKR_BUFFER_TOO_SMALL);
        assert_eq!(C_GetInterfaceList(list.as_mut_ptr(), &mut count), CKR_OK);
        assert!(list.iter().all(|interface| interface.flags == CKF_INTERFACE_FORK_SAFE));
        assert_eq!(C_GetInterfaceList(null_mut(), null_mut()), CKR_ARGUMENTS_BAD);

        let get = |name: *const u8, version: Option<(u8, u8)>, flags| {
            let mut version = version.map(|(major, minor)| CK_VERSION { major, minor });
            let version = version.as_mut().map_or(null_mut(), |version| version as *mut CK_VERSION);
            let mut found = null_mut();
            match C_GetInterface(name.cast_mut(), version, &mut found, flags) {
                CKR_OK => Ok((*(*found).pFunctionList.cast::<CK_VERSION>()).major),
                rv => Err(rv),
            }
        };
        let name = c"PKCS 11".as_ptr().cast::<u8>();
        assert_eq!(get(null(), None, 0), Ok(3));
        assert_eq!(get(name, Some((2, 40)), CKF_INTERFACE_FORK_SAFE), Ok(2));
        assert_eq!(get(name, Some((3, 0)), 0), Ok(3));
        assert_eq!(get(name, Some((3, 2)), 0), Err(CKR_ARGUMENTS_BAD));
        assert_eq!(get(name, None, 2), Err(CKR_ARGUMENTS_BAD));
        assert_eq!(get(c"PKCS 12".as_ptr().cast::<u8>(), None, 0), Err(CKR_ARGUMENTS_BAD));
        assert_eq!(get(c"PKCS".as_ptr().cast::<u8>(), None, 0), Err(CKR_ARGUMENTS_BAD));
        assert_eq!(C_GetInterface(null_mut(), null_mut(), null_mut(), 0), CKR_ARGUMENTS_BAD);

        let mut functions: *mut CK_FUNCTION_LIST = null_mut();
        assert_eq!(C_GetFunctionList(&mut functions), CKR_OK);
        assert_eq!((*functions).version.minor, 40);
        assert_eq!(C_GetFunctionList(null_mut()), CKR_ARGUMENTS_BAD);
        let (_turn, _session) = installed();
        let mut info = CK_INFO::default();
        assert_eq!((*functions).C_GetInfo.unwrap()(&mut info), CKR_OK);
        assert_eq!((info.cryptokiVersion.major, info.cryptokiVersion.minor), (2, 40));
        assert_eq!(C_GetInfo(&mut info), CKR_OK);
        assert_eq!(info.cryptokiVersion.major, 3);
    }
}

unsafe extern "C" fn mutex(_: *mut c_void) -> CK_RV {
    CKR_OK
}

unsafe extern "C" fn create_mutex(_: *mut *mut c_void) -> CK_RV {
    CKR_OK
}

#[test]
fn initialize_checks_its_arguments_and_finalize_too() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("strongroom.toml");
    // SAFETY: this is the only test that touches the environment, and it has its turn.
    unsafe { std::env::set_var(crate::config::PATH_VARIABLE, &file) };
    let plain = CK_C_INITIALIZE_ARGS::default();
    let initialize = |mut arguments: CK_C_INITIALIZE_ARGS| {
        // SAFETY: the pointer is to a local.
        unsafe { C_Initialize((&raw mut arguments).cast()) }
    };
    // SAFETY: every pointer is null, or made wrong on purpose and never followed.
    unsafe {
        let mut info = CK_INFO::default();
        assert_eq!(C_GetInfo(&mut info), CKR_CRYPTOKI_NOT_INITIALIZED);
        assert_eq!(C_Finalize(null_mut()), CKR_CRYPTOKI_NOT_INITIALIZED);
        assert_eq!(
            C_SignMessageNext(1, null_mut(), 0, null_mut(), 0, null_mut(), null_mut()),
            CKR_CRYPTOKI_NOT_INITIALIZED
        );
        assert_eq!(C_Initialize(null_mut()), CKR_GENERAL_ERROR, "there is no such file");
        std::fs::write(&file, "log = \"off\"\n").unwrap();
        assert_eq!(C_Initialize(null_mut()), CKR_GENERAL_ERROR, "the file names no token");
        let token = "[[token]]\nserver = \"127.0.0.1:1\"\nca = \"c\"\ncertificate = \"c\"\nkey = \"k\"\n";
        std::fs::write(&file, format!("log = \"off\"\n{token}")).unwrap();
        let reserved = CK_C_INITIALIZE_ARGS { pReserved: (&raw mut info).cast(), ..plain };
        assert_eq!(initialize(reserved), CKR_ARGUMENTS_BAD);
        let some = CK_C_INITIALIZE_ARGS { LockMutex: Some(mutex), UnlockMutex: Some(mutex), ..plain };
        assert_eq!(initialize(some), CKR_ARGUMENTS_BAD);
        let all = CK_C_INITIALIZE_ARGS { CreateMutex: Some(create_mutex), DestroyMutex: Some(mutex), ..some };
        assert_eq!(initialize(all), CKR_CANT_LOCK);
        for arguments in [plain, CK_C_INITIALIZE_ARGS { flags: CKF_OS_LOCKING_OK | 1, ..all }] {
            assert_eq!(initialize(arguments), CKR_OK);
            assert_eq!(initialize(plain), CKR_CRYPTOKI_ALREADY_INITIALIZED);
            assert_eq!(C_Finalize((&raw mut info).cast()), CKR_ARGUMENTS_BAD);
            assert_eq!(C_Finalize(null_mut()), CKR_OK);
        }
    }
}

#[test]
fn a_panic_stops_at_the_edge() {
    assert_eq!(super::enter("test", || panic!("on purpose")), CKR_GENERAL_ERROR);
    assert_eq!(super::enter("test", || Err(Error::NoEvent)), CKR_NO_EVENT);
}
