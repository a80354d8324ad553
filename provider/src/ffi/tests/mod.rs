//! The C edge as a C program meets it: tables, null pointers, impossible lengths, and `fork`.

use std::{
    ffi::c_void,
    ptr::{null, null_mut},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pkcs11_sys::{
    CK_ATTRIBUTE, CK_BYTE, CK_C_INITIALIZE_ARGS, CK_FLAGS, CK_FUNCTION_LIST, CK_GCM_PARAMS, CK_INFO,
    CK_INTERFACE, CK_MECHANISM, CK_OBJECT_HANDLE, CK_RSA_PKCS_PSS_PARAMS, CK_RV, CK_SESSION_HANDLE, CK_ULONG,
    CK_UNAVAILABLE_INFORMATION, CK_VERSION, CKA_CLASS, CKA_KEY_TYPE, CKA_LABEL, CKA_MODULUS, CKA_SIGN,
    CKA_START_DATE, CKA_TOKEN, CKA_VALUE, CKA_WRAP_TEMPLATE, CKF_DONT_BLOCK, CKF_INTERFACE_FORK_SAFE,
    CKF_OS_LOCKING_OK, CKF_RW_SESSION, CKF_SERIAL_SESSION, CKG_MGF1_SHA256, CKK_GENERIC_SECRET, CKM_AES_CBC,
    CKM_AES_CTR, CKM_AES_GCM, CKM_AES_KEY_GEN, CKM_EDDSA, CKM_RSA_PKCS_OAEP, CKM_SHA256, CKM_SHA256_HMAC,
    CKM_SHA256_RSA_PKCS_PSS, CKM_SHA512, CKO_SECRET_KEY, CKR_ARGUMENTS_BAD, CKR_ATTRIBUTE_SENSITIVE,
    CKR_ATTRIBUTE_TYPE_INVALID, CKR_ATTRIBUTE_VALUE_INVALID, CKR_BUFFER_TOO_SMALL, CKR_CANT_LOCK,
    CKR_CRYPTOKI_ALREADY_INITIALIZED, CKR_CRYPTOKI_NOT_INITIALIZED, CKR_DATA_LEN_RANGE,
    CKR_FUNCTION_NOT_PARALLEL, CKR_FUNCTION_NOT_SUPPORTED, CKR_GENERAL_ERROR, CKR_KEY_HANDLE_INVALID,
    CKR_KEY_TYPE_INCONSISTENT, CKR_MECHANISM_INVALID, CKR_MECHANISM_PARAM_INVALID, CKR_NO_EVENT, CKR_OK,
    CKR_OPERATION_NOT_INITIALIZED, CKR_PIN_LEN_RANGE, CKR_SESSION_HANDLE_INVALID, CKR_SIGNATURE_LEN_RANGE,
    CKR_STATE_UNSAVEABLE, CKU_USER,
};

use strongroom_shared::mechanism::CKM_STRONGROOM_BIP32_CHILD;

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

#[test]
fn null_pointers_and_impossible_lengths_are_arguments_bad() {
    let (_turn, session) = installed();
    let mut number: CK_ULONG = 0;
    let mut byte: CK_BYTE = 0;
    // SAFETY: pointers are null or to locals; lengths beyond them are such as are never believed.
    unsafe {
        for length in [5, 1 << 63, CK_ULONG::MAX] {
            assert_eq!(C_SeedRandom(session, null_mut(), length), CKR_ARGUMENTS_BAD);
            assert_eq!(C_FindObjectsInit(session, null_mut(), length), CKR_ARGUMENTS_BAD);
            assert_eq!(C_CreateObject(session, null_mut(), length, &mut number), CKR_ARGUMENTS_BAD);
            assert_eq!(C_Login(session, CKU_USER, null_mut(), length), CKR_ARGUMENTS_BAD);
        }
        let mut entry = attribute(CKA_TOKEN, &0_u8);
        for count in [4097, 1 << 31, 1 << 32, 1 << 61, CK_ULONG::MAX] {
            assert_eq!(C_FindObjectsInit(session, &mut entry, count), CKR_ARGUMENTS_BAD);
            assert_eq!(C_GetAttributeValue(session, 1, &mut entry, count), CKR_ARGUMENTS_BAD);
        }
        assert_eq!(C_Login(session, CKU_USER, &mut byte, 1 << 32), CKR_PIN_LEN_RANGE);
        assert_eq!(C_SeedRandom(session, &mut byte, 1 << 32), CKR_DATA_LEN_RANGE);
        for length in [1 << 32, CK_ULONG::MAX] {
            assert_eq!(C_GenerateRandom(session, &mut byte, length), CKR_ARGUMENTS_BAD);
        }
        assert_eq!(C_GenerateRandom(session, null_mut(), 0), CKR_ARGUMENTS_BAD);
        assert_eq!(C_GetSlotList(0, null_mut(), null_mut()), CKR_ARGUMENTS_BAD);
        assert_eq!(C_GetSlotInfo(0, null_mut()), CKR_ARGUMENTS_BAD);
        assert_eq!(C_GetTokenInfo(0, null_mut()), CKR_ARGUMENTS_BAD);
        assert_eq!(C_GetMechanismList(0, null_mut(), null_mut()), CKR_ARGUMENTS_BAD);
        assert_eq!(C_GetMechanismInfo(0, CKM_SHA256, null_mut()), CKR_ARGUMENTS_BAD);
        assert_eq!(C_InitToken(0, null_mut(), 4, null_mut()), CKR_ARGUMENTS_BAD);
        assert_eq!(C_OpenSession(0, CKF_SERIAL_SESSION, null_mut(), None, null_mut()), CKR_ARGUMENTS_BAD);
        assert_eq!(C_GetSessionInfo(session, null_mut()), CKR_ARGUMENTS_BAD);
        assert_eq!(C_GetObjectSize(session, 1, null_mut()), CKR_ARGUMENTS_BAD);
        assert_eq!(C_FindObjects(session, null_mut(), 1, &mut number), CKR_ARGUMENTS_BAD);
        assert_eq!(C_DigestInit(session, null_mut()), CKR_ARGUMENTS_BAD);
        let mut aes = mechanism(CKM_AES_KEY_GEN);
        assert_eq!(C_GenerateKey(session, &mut aes, null_mut(), 0, null_mut()), CKR_ARGUMENTS_BAD);
        assert_eq!(C_GenerateKey(session, null_mut(), null_mut(), 0, &mut number), CKR_ARGUMENTS_BAD);
        assert_eq!(C_WaitForSlotEvent(CKF_DONT_BLOCK, &mut number, null_mut()), CKR_NO_EVENT);
        assert_eq!(C_GetFunctionStatus(session), CKR_FUNCTION_NOT_PARALLEL);
        assert_eq!(C_DeriveKey(session, &mut aes, 1, null_mut(), 0, &mut number), CKR_MECHANISM_INVALID);
        assert_eq!(C_WrapKey(session, &mut aes, 1, 1, null_mut(), &mut number), CKR_FUNCTION_NOT_SUPPORTED);
        assert_eq!(C_GetOperationState(session, null_mut(), &mut number), CKR_STATE_UNSAVEABLE);
        assert_eq!(C_CloseSession(session + 1), CKR_SESSION_HANDLE_INVALID);
    }
}

#[test]
fn a_null_pointer_ends_the_operation_that_it_was_given_to() {
    let (_turn, session) = installed();
    let key = hmac_key(session);
    let mut length: CK_ULONG = 32;
    let (mut buffer, mut data) = ([0_u8; 32], [0_u8; 4]);
    // SAFETY: pointers are null or to locals.
    unsafe {
        let mut hmac = mechanism(CKM_SHA256_HMAC);
        let mut begin = || assert_eq!(C_SignInit(session, &mut hmac, key), CKR_OK);
        let (out, out_length) = (buffer.as_mut_ptr(), &raw mut length);
        let over = || assert_eq!(C_SignUpdate(session, null_mut(), 0), CKR_OPERATION_NOT_INITIALIZED);
        begin();
        assert_eq!(C_Sign(session, null_mut(), 4, out, out_length), CKR_ARGUMENTS_BAD);
        over();
        begin();
        assert_eq!(C_Sign(session, null_mut(), 4, null_mut(), out_length), CKR_ARGUMENTS_BAD);
        over();
        begin();
        assert_eq!(C_Sign(session, data.as_mut_ptr(), 4, out, null_mut()), CKR_ARGUMENTS_BAD);
        over();
        begin();
        assert_eq!(C_Sign(session, data.as_mut_ptr(), 1 << 31, out, out_length), CKR_DATA_LEN_RANGE);
        over();
        begin();
        assert_eq!(C_SignUpdate(session, null_mut(), 4), CKR_ARGUMENTS_BAD);
        over();
        let mut sha = mechanism(CKM_SHA256);
        assert_eq!(C_DigestInit(session, &mut sha), CKR_OK);
        assert_eq!(C_Digest(session, data.as_mut_ptr(), 1 << 31, out, out_length), CKR_DATA_LEN_RANGE);
        assert_eq!(C_DigestUpdate(session, null_mut(), 0), CKR_OPERATION_NOT_INITIALIZED);
        // A capacity that cannot be is still enough.
        begin();
        length = CK_ULONG::MAX;
        assert_eq!(C_Sign(session, null_mut(), 0, out, out_length), CKR_OK);
        assert_eq!(length, 32);
        let mut verify = mechanism(CKM_SHA256_HMAC);
        let may_verify = vec![
            attribute(CKA_CLASS, &CKO_SECRET_KEY),
            attribute(CKA_KEY_TYPE, &CKK_GENERIC_SECRET),
            attribute(CKA_VALUE, &[7_u8; 32]),
            attribute(pkcs11_sys::CKA_VERIFY, &1_u8),
        ];
        let key = create(session, may_verify).unwrap();
        assert_eq!(C_VerifyInit(session, &mut verify, key), CKR_OK);
        assert_eq!(C_Verify(session, null_mut(), 0, out, 1 << 40), CKR_SIGNATURE_LEN_RANGE);
    }
}

#[test]
fn attribute_values_have_their_shape() {
    let (_turn, session) = installed();
    let invalid = |entry| assert_eq!(create(session, vec![entry]), Err(CKR_ATTRIBUTE_VALUE_INVALID));
    invalid(attribute(CKA_TOKEN, &0_u64));
    invalid(attribute(CKA_TOKEN, &2_u8));
    invalid(attribute(CKA_CLASS, &4_u32));
    invalid(attribute(CKA_START_DATE, b"2026112"));
    invalid(attribute(CKA_START_DATE, b"2026112x"));
    invalid(CK_ATTRIBUTE { type_: CKA_LABEL, pValue: null_mut(), ulValueLen: 4 });
    invalid(CK_ATTRIBUTE { ulValueLen: CK_UNAVAILABLE_INFORMATION, ..attribute(CKA_LABEL, &0_u8) });
    invalid(CK_ATTRIBUTE { ulValueLen: 1 << 31, ..attribute(CKA_LABEL, &0_u8) });
    let nested = create(session, vec![attribute(CKA_WRAP_TEMPLATE, &CK_ATTRIBUTE::default())]);
    assert_eq!(nested, Err(CKR_ATTRIBUTE_TYPE_INVALID));
    // Misaligned values are read all the same.
    let mut memory = [0_u8; 9];
    memory[1..].copy_from_slice(&CKO_SECRET_KEY.to_ne_bytes());
    let misaligned =
        CK_ATTRIBUTE { type_: CKA_CLASS, pValue: memory[1..].as_mut_ptr().cast(), ulValueLen: 8 };
    assert!(create(session, vec![misaligned]).is_ok());
}

#[test]
fn every_attribute_asked_for_is_answered() {
    let (_turn, session) = installed();
    let key = hmac_key(session);
    let (mut class, mut short, mut secret) = ([0xee_u8; 9], [0xee_u8; 4], [0xee_u8; 32]);
    let ask = |kinds: &mut [CK_ATTRIBUTE]| {
        // SAFETY: every pointer is null or to a local of the length beside it.
        unsafe { C_GetAttributeValue(session, key, kinds.as_mut_ptr(), kinds.len() as CK_ULONG) }
    };
    let entry = |kind, value: &mut [u8]| CK_ATTRIBUTE {
        type_: kind,
        pValue: value.as_mut_ptr().cast(),
        ulValueLen: value.len() as CK_ULONG,
    };
    let length_of = |kind| CK_ATTRIBUTE { type_: kind, pValue: null_mut(), ulValueLen: 0 };
    let mut all = [
        entry(CKA_VALUE, &mut secret),
        entry(CKA_KEY_TYPE, &mut short),
        length_of(CKA_MODULUS),
        length_of(CKA_SIGN),
        entry(CKA_CLASS, &mut class[1..]),
    ];
    let rv = ask(&mut all);
    assert!(
        [CKR_ATTRIBUTE_SENSITIVE, CKR_ATTRIBUTE_TYPE_INVALID, CKR_BUFFER_TOO_SMALL].contains(&rv),
        "{rv:#x}"
    );
    let lengths = all.map(|entry| entry.ulValueLen);
    let none = CK_UNAVAILABLE_INFORMATION;
    assert_eq!(lengths, [none, none, none, 1, 8]);
    assert_eq!(class[1..], CKO_SECRET_KEY.to_ne_bytes());
    assert_eq!((short, secret), ([0xee; 4], [0xee; 32]));
    assert_eq!(ask(&mut [length_of(CKA_VALUE)]), CKR_ATTRIBUTE_SENSITIVE);
    assert_eq!(ask(&mut [length_of(CKA_MODULUS)]), CKR_ATTRIBUTE_TYPE_INVALID);
    assert_eq!(ask(&mut [entry(CKA_KEY_TYPE, &mut [0; 4])]), CKR_BUFFER_TOO_SMALL);
    assert_eq!(ask(&mut []), CKR_OK);
}

#[test]
fn mechanism_parameters_are_checked_before_they_are_used() {
    let (_turn, session) = installed();
    let init = |mut chosen: CK_MECHANISM| {
        // SAFETY: every pointer is null or to a local, and lengths beyond them are such as are never believed.
        unsafe {
            match C_EncryptInit(session, &mut chosen, 99) {
                CKR_MECHANISM_INVALID => {}
                rv => return rv,
            }
            match C_SignInit(session, &mut chosen, 99) {
                CKR_MECHANISM_INVALID => C_DigestInit(session, &mut chosen),
                rv => rv,
            }
        }
    };
    let invalid = |chosen| assert_eq!(init(chosen), CKR_MECHANISM_PARAM_INVALID);
    assert_eq!(init(mechanism(0xdead_beef)), CKR_MECHANISM_INVALID);
    let stray = CK_MECHANISM { pParameter: null_mut(), ulParameterLen: 4, ..mechanism(CKM_SHA256) };
    invalid(stray);
    invalid(with_parameter(CKM_SHA256_HMAC, &0_u64));
    // A mechanism for another use is invalid, whatever its parameter.
    assert_eq!(init(with_parameter(CKM_AES_KEY_GEN, &0_u8)), CKR_MECHANISM_INVALID);
    invalid(mechanism(CKM_AES_CBC));
    invalid(with_parameter(CKM_AES_CBC, &[0_u8; 15]));
    invalid(CK_MECHANISM { pParameter: null_mut(), ulParameterLen: 16, ..mechanism(CKM_AES_CBC) });
    for bits in [0_u64, 129, CK_ULONG::MAX] {
        invalid(with_parameter(CKM_AES_CTR, &(bits, [0_u8; 16])));
    }
    let mut iv = [0_u8; 12];
    let good =
        CK_GCM_PARAMS { pIv: iv.as_mut_ptr(), ulIvLen: 12, ulTagBits: 128, ..CK_GCM_PARAMS::default() };
    assert_ne!(init(with_parameter(CKM_AES_GCM, &good)), CKR_MECHANISM_PARAM_INVALID);
    for bad in [
        CK_GCM_PARAMS { pIv: null_mut(), ..good },
        CK_GCM_PARAMS { ulIvLen: 0, ..good },
        CK_GCM_PARAMS { ulIvLen: 1 << 40, ..good },
        CK_GCM_PARAMS { ulAADLen: 4, ..good },
        CK_GCM_PARAMS { pAAD: iv.as_mut_ptr(), ulAADLen: CK_ULONG::MAX, ..good },
        CK_GCM_PARAMS { ulTagBits: 0, ..good },
        CK_GCM_PARAMS { ulTagBits: 8, ..good },
        CK_GCM_PARAMS { ulTagBits: 136, ..good },
    ] {
        invalid(with_parameter(CKM_AES_GCM, &bad));
    }
    let pss = CK_RSA_PKCS_PSS_PARAMS { hashAlg: CKM_SHA256, mgf: CKG_MGF1_SHA256, sLen: 32 };
    assert_ne!(init(with_parameter(CKM_SHA256_RSA_PKCS_PSS, &pss)), CKR_MECHANISM_PARAM_INVALID);
    for bad in [
        CK_RSA_PKCS_PSS_PARAMS { hashAlg: CKM_SHA512, ..pss },
        CK_RSA_PKCS_PSS_PARAMS { mgf: 77, ..pss },
        CK_RSA_PKCS_PSS_PARAMS { sLen: CK_ULONG::MAX, ..pss },
    ] {
        invalid(with_parameter(CKM_SHA256_RSA_PKCS_PSS, &bad));
    }
    let oaep = pkcs11_sys::CK_RSA_PKCS_OAEP_PARAMS {
        hashAlg: CKM_SHA256,
        mgf: CKG_MGF1_SHA256,
        source: pkcs11_sys::CKZ_DATA_SPECIFIED,
        pSourceData: null_mut(),
        ulSourceDataLen: 0,
    };
    assert_ne!(init(with_parameter(CKM_RSA_PKCS_OAEP, &oaep)), CKR_MECHANISM_PARAM_INVALID);
    invalid(with_parameter(
        CKM_RSA_PKCS_OAEP,
        &pkcs11_sys::CK_RSA_PKCS_OAEP_PARAMS { ulSourceDataLen: 3, ..oaep },
    ));
    invalid(with_parameter(CKM_RSA_PKCS_OAEP, &pkcs11_sys::CK_RSA_PKCS_OAEP_PARAMS { source: 9, ..oaep }));
    let prehash = pkcs11_sys::CK_EDDSA_PARAMS { phFlag: 1, ulContextDataLen: 0, pContextData: null_mut() };
    invalid(with_parameter(CKM_EDDSA, &prehash));
    let derive = |mut chosen: CK_MECHANISM| {
        let mut derived = 0;
        // SAFETY: as above.
        unsafe { C_DeriveKey(session, &mut chosen, 99, null_mut(), 0, &mut derived) }
    };
    let path = |indices: &[u32]| CK_MECHANISM {
        mechanism: CKM_STRONGROOM_BIP32_CHILD,
        pParameter: indices.as_ptr().cast_mut().cast(),
        ulParameterLen: size_of_val(indices) as CK_ULONG,
    };
    for wrong in [
        path(&[]),
        path(&[0; 17]),
        path(&[0, 1 << 31]),
        CK_MECHANISM { ulParameterLen: 7, ..path(&[0, 0]) },
        CK_MECHANISM { ulParameterLen: CK_ULONG::MAX, ..path(&[0]) },
        CK_MECHANISM { pParameter: null_mut(), ..path(&[0]) },
        mechanism(CKM_STRONGROOM_BIP32_CHILD),
    ] {
        assert_eq!(derive(wrong), CKR_MECHANISM_PARAM_INVALID);
    }
    assert_eq!(derive(path(&[0x7fff_ffff])), CKR_KEY_HANDLE_INVALID);
    let key = hmac_key(session);
    let mut derived = 0;
    // SAFETY: as above.
    let rv = unsafe { C_DeriveKey(session, &mut path(&[0; 16]), key, null_mut(), 0, &mut derived) };
    assert_eq!(rv, CKR_KEY_TYPE_INCONSISTENT);
}

unsafe extern "C" {
    fn fork() -> i32;
    fn waitpid(process: i32, status: *mut i32, options: i32) -> i32;
    fn _exit(status: i32) -> !;
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

/// Runs `child` in a forked process, and tells whether it was content.
fn in_child(child: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child only calls the module and leaves by `_exit`; the parent waits for it.
    unsafe {
        match fork() {
            0 => _exit(if child() { 0 } else { 1 }),
            process => {
                let mut status = -1;
                assert_eq!(waitpid(process, &mut status, 0), process);
                status == 0
            }
        }
    }
}

#[test]
fn a_forked_child_signs_at_once_over_a_connection_of_its_own() {
    let (pki, vault) = (Pki::new(), Arc::new(ScriptedVault::default()));
    let server = TestServer::start(&pki, &vault);
    let _turn = install(Tls::new(pki.token(server.address).into(), Arc::default()));
    let session = session();
    let key = hmac_key(session);
    let expected = sign(session, key).unwrap();
    assert_eq!(server.accepted(), 1);
    for round in 1..=3 {
        assert!(in_child(|| {
            let signed = (0..10).all(|_| sign(session, key) == Ok(expected));
            // SAFETY: a null pointer is what it wants.
            signed && unsafe { C_Finalize(null_mut()) } == CKR_OK
        }));
        assert_eq!(server.accepted(), 1 + round, "one connection per child, none new for the parent");
        assert_eq!(sign(session, key), Ok(expected));
    }
    // The old way: a child that starts afresh.
    assert!(in_child(|| {
        let (_vault, fresh, _session) = opened();
        module::install(fresh).is_ok() && sign(session, key) != Ok(expected)
    }));
    assert_eq!(sign(session, key), Ok(expected));
}

#[test]
fn a_childs_threads_that_call_at_once_lose_none_of_the_parents_operations() {
    let _turn = install(InProcess(Arc::new(ScriptedVault::default())));
    let session = session();
    let key = hmac_key(session);
    let expected = sign(session, key).unwrap();
    for _ in 0..40 {
        // SAFETY: the mechanism is a local.
        assert_eq!(unsafe { C_SignInit(session, &mut mechanism(CKM_SHA256_HMAC), key) }, CKR_OK);
        let finish = || {
            let (mut signature, mut length) = ([0; 32], 32);
            let message = b"message".as_ptr().cast_mut();
            // SAFETY: every pointer is to a local.
            let rv = unsafe { C_Sign(session, message, 7, signature.as_mut_ptr(), &mut length) };
            rv == CKR_OK && signature == expected
        };
        assert!(in_child(|| {
            let together = std::sync::Barrier::new(8);
            std::thread::scope(|scope| {
                (0..8).for_each(|_| {
                    scope.spawn(|| {
                        together.wait();
                        module::module().is_ok()
                    });
                });
            });
            finish()
        }));
        assert!(finish());
    }
}

#[test]
fn a_fork_in_the_midst_of_other_threads_calls_is_safe() {
    let (pki, vault) = (Pki::new(), Arc::new(ScriptedVault::default()));
    let server = TestServer::start(&pki, &vault);
    let _turn = install(Tls::new(pki.token(server.address).into(), Arc::default()));
    let own = session();
    let key = hmac_key(own);
    let expected = sign(own, key).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let busy = session();
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    assert_eq!(sign(busy, key), Ok(expected));
                }
            });
        }
        let content = (0..20).all(|_| in_child(|| sign(own, key) == Ok(expected) && session() > 0));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(content);
    });
}
