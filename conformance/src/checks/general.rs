//! Chapter 5.4, general-purpose functions: the tables, `C_Initialize` and `C_Finalize`.

use std::fs;

use cryptoki_sys::*;

use crate::bench::{Bench, Slots};
use crate::check::{Stop, Verdict, ensure, table};
use crate::checks::nulls;
use crate::raw::{Arg, Function as F, initialize_args, mutex_use};
use crate::rv::{Rv, none_wrong};
use crate::signature::{self, takes_a_pin};
use crate::well_formed::{self, Props};

table! {
    all sessions;
    "general.list-version" Loaded list_version, "5.4.4 C_GetFunctionList", "the list of C_GetFunctionList is of version 2";
    "general.list-complete" Loaded list_complete, "5.4.4 C_GetFunctionList", "no pointer in the list of 2.40 is null" => high;
    "general.list-null" Loaded list_null, "5.4.4 C_GetFunctionList", "a null ppFunctionList is refused";
    "general.interface-list" Loaded interface_list, "5.4.5 C_GetInterfaceList", "the interfaces have names, versions and lists";
    "general.interface-list-small" Loaded interface_list_small, "5.4.5 C_GetInterfaceList", "a list that does not fit is not written";
    "general.interface-list-null" Loaded interface_list_null, "5.4.5 C_GetInterfaceList", "a null pulCount is refused";
    "general.interface-default" Loaded interface_default, "5.4.6 C_GetInterface", "without a name the default interface is PKCS 11";
    "general.interface-2.40" Loaded interface_2_40, "5.4.6 C_GetInterface", "version 2.40 by name and version is the list of C_GetFunctionList";
    "general.interface-3.0-complete" Loaded interface_3_0_complete, "5.4.6 C_GetInterface", "no pointer in the list of 3.0 is null" => high;
    "general.interface-3.2-complete" Loaded interface_3_2_complete, "5.4.6 C_GetInterface", "no pointer in the list of 3.2 is null" => high;
    "general.interface-stable" Loaded interface_stable, "5.4.6 C_GetInterface", "asked twice, the interface is at the same address";
    "general.interface-unknown-name" Loaded interface_unknown_name, "5.4.6 C_GetInterface", "an unknown name is refused";
    "general.interface-unknown-version" Loaded interface_unknown_version, "5.4.6 C_GetInterface", "an unknown version is refused";
    "general.interface-unknown-flags" Loaded interface_unknown_flags, "5.4.6 C_GetInterface", "flags that no interface has are refused";
    "general.interface-null" Loaded interface_null, "5.4.6 C_GetInterface", "a null ppInterface is refused";
    "general.initialize-null" Loaded initialize_null, "5.4.1 C_Initialize", "null arguments are a single-threaded application";
    "general.initialize-os-locking" Loaded initialize_os_locking, "5.4.1 C_Initialize", "CKF_OS_LOCKING_OK without mutexes works";
    "general.initialize-no-threads" Loaded initialize_no_threads, "5.4.1 C_Initialize", "CKF_LIBRARY_CANT_CREATE_OS_THREADS works, or says that threads are needed";
    "general.initialize-mutexes" Loaded initialize_mutexes, "5.4.1 C_Initialize", "the application's mutexes are used, or refused with CKR_CANT_LOCK";
    "general.initialize-either-lock" Loaded initialize_either_lock, "5.4.1 C_Initialize", "mutexes and CKF_OS_LOCKING_OK together work";
    "general.initialize-some-mutexes" Loaded initialize_some_mutexes, "5.4.1 C_Initialize", "one to three of the four mutex functions are refused";
    "general.initialize-reserved" Loaded initialize_reserved, "5.4.1 C_Initialize", "pReserved that is not null is refused";
    "general.initialize-refused-is-nothing" Loaded initialize_refused_is_nothing, "5.4.1 C_Initialize", "a refused C_Initialize leaves the module as it was";
    "general.initialize-twice" Loaded initialize_twice, "5.4.1 C_Initialize", "the second C_Initialize is refused";
    "general.finalize-first" Loaded finalize_first, "5.4.2 C_Finalize", "C_Finalize needs C_Initialize";
    "general.finalize-twice" Loaded finalize_twice, "5.4.2 C_Finalize", "the second C_Finalize is refused";
    "general.finalize-reserved" Loaded finalize_reserved, "5.4.2 C_Finalize", "pReserved that is not null is refused, and the module stays initialised";
    "general.initialize-again" Loaded initialize_again, "5.4.2 C_Finalize", "after C_Finalize the module can be initialised again, a hundred times" => high;
    "general.clean-end" Loaded clean_end, "5.4.2 C_Finalize", "a process that used the module, and finalised it, comes to a clean end" => high;
    "general.no-leak" Loaded no_leak, "5.4.2 C_Finalize", "fifty rounds leave no descriptor and no thread behind";
    "general.no-memory-leak" Loaded no_memory_leak, "5.4.2 C_Finalize", "fifty rounds do not make the process grow";
    "general.before-initialize" Loaded before_initialize, "5.1.1 Universal return values", "before C_Initialize every function is CKR_CRYPTOKI_NOT_INITIALIZED";
    "general.before-initialize-null" Loaded before_initialize_null, "5.1.1 Universal return values", "before C_Initialize every function with null arguments is CKR_CRYPTOKI_NOT_INITIALIZED";
    "general.after-finalize" Loaded after_finalize, "5.4.2 C_Finalize", "after C_Finalize every function is CKR_CRYPTOKI_NOT_INITIALIZED";
    "general.info" Initialized info, "5.4.3 C_GetInfo", "texts are padded with blanks, flags are zero, the version is one that exists";
    "general.info-null" Initialized info_null, "5.4.3 C_GetInfo", "a null pInfo is refused";
    "general.parallel" Public parallel, "5.20 Parallel function management", "the two functions of old answer CKR_FUNCTION_NOT_PARALLEL";
}

/// What the standard's text fields look like: blank-padded, no zero byte, valid UTF-8.
pub fn padded(field: &str, text: &[u8]) -> Verdict {
    let good = !text.contains(&0) && std::str::from_utf8(text).is_ok();
    ensure(
        good,
        format!("{field} is UTF-8, padded with blanks"),
        format!("{:?}", String::from_utf8_lossy(text)),
    )
}

fn initialize(bench: &Bench, flags: CK_FLAGS, mutexes: u8, reserved: usize) -> Rv {
    let arguments = match reserved {
        0 => bench.initialize_args(flags, mutexes),
        _ => initialize_args(flags, mutexes, reserved),
    };
    bench.module.call(F::C_Initialize, &[Arg::of(&arguments)])
}

fn finalize(bench: &Bench) -> Rv {
    bench.module.call(F::C_Finalize, &[Arg::NULL])
}

fn get_info(bench: &Bench) -> Rv {
    bench.module.call(F::C_GetInfo, &[Arg::of_mut(&mut CK_INFO::default())])
}

fn list_version(bench: &Bench) -> Verdict {
    let (major, minor) = bench.module.list_version();
    ensure(major == 2 && minor >= 1, "version 2.x", format!("version {major}.{minor}"))
}

fn list_complete(bench: &Bench) -> Verdict {
    let missing = bench.module.nulls_in_classic();
    ensure(missing.is_empty(), "68 functions", format!("null: {}", missing.join(" ")))
}

fn list_null(bench: &Bench) -> Verdict {
    bench.module.call(F::C_GetFunctionList, &[Arg::NULL]).is(CKR_ARGUMENTS_BAD)
}

/// Interfaces came with version 3.0; a module of 2.40 need not have them.
fn has_interfaces(bench: &Bench) -> Verdict {
    if bench.module.exports(F::C_GetInterface) { Ok(()) } else { Err(Stop::NotOffered) }
}

fn interface_list(bench: &Bench) -> Verdict {
    has_interfaces(bench)?;
    let list = match bench.module.interfaces() {
        Ok(list) => list,
        Err(rv) => return rv.ok(),
    };
    let described = list.iter().all(|interface| {
        let known = interface.flags & !CKF_INTERFACE_FORK_SAFE == 0;
        !interface.name.is_empty() && interface.version.is_some() && known
    });
    let expected = "at least one interface, each with a name, a list and no unknown flag";
    ensure(described && !list.is_empty(), expected, format!("{list:?}"))
}

fn interface_list_small(bench: &Bench) -> Verdict {
    has_interfaces(bench)?;
    let mut none = [0xa5_u8; size_of::<CK_INTERFACE>()];
    let mut count: CK_ULONG = 0;
    let arguments = [Arg::slice_mut(&mut none), Arg::of_mut(&mut count)];
    bench.module.call(F::C_GetInterfaceList, &arguments).is(CKR_BUFFER_TOO_SMALL)?;
    ensure(count > 0, "the number of interfaces", count.to_string())?;
    ensure(none.iter().all(|byte| *byte == 0xa5), "nothing written", "memory was written")
}

fn interface_list_null(bench: &Bench) -> Verdict {
    has_interfaces(bench)?;
    bench.module.call(F::C_GetInterfaceList, &[Arg::NULL, Arg::NULL]).is(CKR_ARGUMENTS_BAD)
}

fn interface_default(bench: &Bench) -> Verdict {
    has_interfaces(bench)?;
    match bench.module.interface(None, None, 0) {
        Ok(interface) => ensure(interface.name == "PKCS 11", "PKCS 11", interface.name.clone()),
        Err(rv) => rv.ok(),
    }
}

fn interface_2_40(bench: &Bench) -> Verdict {
    has_interfaces(bench)?;
    let mut version = CK_VERSION { major: 2, minor: 40 };
    match bench.module.interface(Some(b"PKCS 11\0"), Some(&mut version), 0) {
        Ok(interface) => {
            let seen = format!("{:?}", interface.version);
            ensure(interface.version == Some((2, 40)), "a list that begins with version 2.40", seen)
        }
        Err(_) => Err(Stop::NotOffered),
    }
}

fn interface_3_0_complete(bench: &Bench) -> Verdict {
    let missing = bench.module.nulls_in_3_0().ok_or(Stop::NotOffered)?;
    ensure(missing.is_empty(), "92 functions", format!("null: {}", missing.join(" ")))
}

fn interface_3_2_complete(bench: &Bench) -> Verdict {
    let missing = bench.module.nulls_in_3_2().ok_or(Stop::NotOffered)?;
    ensure(missing.is_empty(), "104 functions", format!("null: {}", missing.join(" ")))
}

fn interface_stable(bench: &Bench) -> Verdict {
    has_interfaces(bench)?;
    let ask = || bench.module.interface(None, None, 0).map(|interface| interface.address);
    match (ask(), ask()) {
        (Ok(first), Ok(second)) => ensure(first == second, "one address", "two addresses"),
        (Err(rv), _) | (_, Err(rv)) => rv.ok(),
    }
}

fn interface_refused(
    bench: &Bench,
    name: Option<&[u8]>,
    version: Option<(u8, u8)>,
    flags: CK_FLAGS,
) -> Verdict {
    has_interfaces(bench)?;
    let mut version = version.map(|(major, minor)| CK_VERSION { major, minor });
    match bench.module.interface(name, version.as_mut(), flags) {
        Ok(interface) => Err(Stop::fail("a refusal", format!("{interface:?}"))),
        Err(rv) => rv.one_of(&[CKR_FUNCTION_FAILED, CKR_ARGUMENTS_BAD]),
    }
}

fn interface_unknown_name(bench: &Bench) -> Verdict {
    interface_refused(bench, Some(b"PKCS 12\0"), None, 0)
}

fn interface_unknown_version(bench: &Bench) -> Verdict {
    interface_refused(bench, Some(b"PKCS 11\0"), Some((9, 9)), 0)
}

fn interface_unknown_flags(bench: &Bench) -> Verdict {
    interface_refused(bench, Some(b"PKCS 11\0"), None, 1 << 40)
}

fn interface_null(bench: &Bench) -> Verdict {
    has_interfaces(bench)?;
    let arguments = [Arg::NULL, Arg::NULL, Arg::NULL, Arg::number(0)];
    bench.module.call(F::C_GetInterface, &arguments).is(CKR_ARGUMENTS_BAD)
}

fn initialize_null(bench: &Bench) -> Verdict {
    if bench.target.init_string.is_some() {
        return Err(Stop::Skipped("C_Initialize is given a string (--init-string)".to_owned()));
    }
    bench.module.call(F::C_Initialize, &[Arg::NULL]).ok()?;
    get_info(bench).ok()
}

fn initialize_os_locking(bench: &Bench) -> Verdict {
    initialize(bench, CKF_OS_LOCKING_OK, 0, 0).ok()
}

fn initialize_no_threads(bench: &Bench) -> Verdict {
    let flags = CKF_LIBRARY_CANT_CREATE_OS_THREADS | CKF_OS_LOCKING_OK;
    initialize(bench, flags, 0, 0).one_of(&[CKR_OK, CKR_NEED_TO_CREATE_THREADS])
}

fn initialize_mutexes(bench: &Bench) -> Verdict {
    let before = mutex_use();
    let rv = initialize(bench, 0, 15, 0);
    if rv.was(CKR_CANT_LOCK) {
        return Ok(());
    }
    rv.ok()?;
    get_info(bench).ok()?;
    let _slots = bench.slots(Slots::WithToken);
    finalize(bench).ok()?;
    let after = mutex_use();
    ensure(after.locked > before.locked, "the application's mutexes are locked", "no mutex was locked")?;
    ensure(after.alive == before.alive, "C_Finalize destroys every mutex", format!("{after:?}"))
}

fn initialize_either_lock(bench: &Bench) -> Verdict {
    initialize(bench, CKF_OS_LOCKING_OK, 15, 0).ok()
}

fn initialize_some_mutexes(bench: &Bench) -> Verdict {
    for mutexes in 1..15 {
        let rv = initialize(bench, CKF_OS_LOCKING_OK, mutexes, 0);
        if rv.was(CKR_OK) {
            finalize(bench).ok()?;
        }
        rv.is(CKR_ARGUMENTS_BAD)?;
    }
    Ok(())
}

fn initialize_reserved(bench: &Bench) -> Verdict {
    initialize(bench, CKF_OS_LOCKING_OK, 0, 16).is(CKR_ARGUMENTS_BAD)
}

fn initialize_refused_is_nothing(bench: &Bench) -> Verdict {
    initialize(bench, CKF_OS_LOCKING_OK, 1, 0).is(CKR_ARGUMENTS_BAD)?;
    get_info(bench).is(CKR_CRYPTOKI_NOT_INITIALIZED)?;
    initialize(bench, CKF_OS_LOCKING_OK, 0, 0).ok()
}

fn initialize_twice(bench: &Bench) -> Verdict {
    initialize(bench, CKF_OS_LOCKING_OK, 0, 0).ok()?;
    initialize(bench, CKF_OS_LOCKING_OK, 0, 0).is(CKR_CRYPTOKI_ALREADY_INITIALIZED)?;
    bench.module.call(F::C_Initialize, &[Arg::NULL]).is(CKR_CRYPTOKI_ALREADY_INITIALIZED)?;
    get_info(bench).ok()
}

fn finalize_first(bench: &Bench) -> Verdict {
    finalize(bench).is(CKR_CRYPTOKI_NOT_INITIALIZED)
}

fn finalize_twice(bench: &Bench) -> Verdict {
    initialize(bench, CKF_OS_LOCKING_OK, 0, 0).ok()?;
    finalize(bench).ok()?;
    finalize(bench).is(CKR_CRYPTOKI_NOT_INITIALIZED)
}

fn finalize_reserved(bench: &Bench) -> Verdict {
    initialize(bench, CKF_OS_LOCKING_OK, 0, 0).ok()?;
    bench.module.call(F::C_Finalize, &[Arg::number(16)]).is(CKR_ARGUMENTS_BAD)?;
    get_info(bench).ok()
}

fn initialize_again(bench: &Bench) -> Verdict {
    for _ in 0..100 {
        initialize(bench, CKF_OS_LOCKING_OK, 0, 0).ok()?;
        finalize(bench).ok()?;
    }
    Ok(())
}

/// The check that takes the blame for a process that dies after its last check.
pub const CLEAN_END: &str = "general.clean-end";

/// The end itself comes after this check, when its process ends.
fn clean_end(bench: &Bench) -> Verdict {
    initialize(bench, CKF_OS_LOCKING_OK, 0, 0).ok()?;
    let _slots = bench.slots(Slots::WithToken);
    finalize(bench).ok()
}

/// Open descriptors and threads of this process.
fn belongings() -> (usize, usize) {
    let entries = |folder: &str| fs::read_dir(folder).map_or(0, Iterator::count);
    (entries("/proc/self/fd"), entries("/proc/self/task"))
}

/// The module's life: initialised, asked for its slots, finalised.
fn round(bench: &Bench) -> Verdict {
    initialize(bench, CKF_OS_LOCKING_OK, 0, 0).ok()?;
    let _slots = bench.slots(Slots::WithToken);
    finalize(bench).ok()
}

fn no_leak(bench: &Bench) -> Verdict {
    round(bench)?;
    let (descriptors, threads) = belongings();
    for _ in 0..50 {
        round(bench)?;
    }
    let (descriptors_after, threads_after) = belongings();
    ensure(
        descriptors_after <= descriptors + 2 && threads_after <= threads + 2,
        format!("about {descriptors} descriptors and {threads} threads"),
        format!("{descriptors_after} descriptors and {threads_after} threads"),
    )
}

/// Resident memory of this process, in KiB.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

/// Allocators keep some of what was freed, so ten rounds go ahead and 16 MiB are allowed.
fn no_memory_leak(bench: &Bench) -> Verdict {
    (0..10).try_for_each(|_| round(bench))?;
    let before = resident();
    if before == 0 {
        return Err(Stop::Skipped("this system does not tell a process's memory".to_owned()));
    }
    (0..50).try_for_each(|_| round(bench))?;
    let after = resident();
    ensure(after < before + (16 << 10), format!("about {before} KiB"), format!("{after} KiB"))
}

/// What a function may answer before `C_Initialize`. The two of old answer what they always did.
const UNINITIALIZED: &[CK_RV] =
    &[CKR_CRYPTOKI_NOT_INITIALIZED, CKR_FUNCTION_NOT_SUPPORTED, CKR_FUNCTION_NOT_PARALLEL];

/// The functions that need it, but for those that take a PIN, which have checks of their own: `functions.*`.
fn need_it() -> impl Iterator<Item = F> {
    let works_without = |function: F| {
        matches!(
            function,
            F::C_Initialize
                | F::C_Finalize
                | F::C_GetFunctionList
                | F::C_GetInterfaceList
                | F::C_GetInterface
        )
    };
    let all = nulls::ROWS.iter().map(|row| row.function);
    all.filter(move |function| !works_without(*function) && !takes_a_pin(*function))
}

fn before_initialize(bench: &Bench) -> Verdict {
    let mut wrong = Vec::new();
    for function in need_it() {
        let rv = well_formed::call(bench, function, 1, Props::of(function));
        if rv.one_of(UNINITIALIZED).is_err() {
            wrong.push(rv);
        }
    }
    none_wrong("CKR_CRYPTOKI_NOT_INITIALIZED", &wrong)
}

fn before_initialize_null(bench: &Bench) -> Verdict {
    let mut wrong = Vec::new();
    for function in need_it() {
        let rv = bench.module.call(function, &vec![Arg::NULL; signature::of(function).len()]);
        if rv.one_of(UNINITIALIZED).is_err() && !rv.was(CKR_ARGUMENTS_BAD) {
            wrong.push(rv);
        }
    }
    none_wrong("CKR_CRYPTOKI_NOT_INITIALIZED or CKR_ARGUMENTS_BAD", &wrong)
}

fn after_finalize(bench: &Bench) -> Verdict {
    initialize(bench, CKF_OS_LOCKING_OK, 0, 0).ok()?;
    finalize(bench).ok()?;
    before_initialize(bench)
}

fn info(bench: &Bench) -> Verdict {
    let mut info = CK_INFO::default();
    bench.module.call(F::C_GetInfo, &[Arg::of_mut(&mut info)]).ok()?;
    padded("manufacturerID", &info.manufacturerID)?;
    padded("libraryDescription", &info.libraryDescription)?;
    ensure(info.flags == 0, "flags 0", format!("flags {:#x}", info.flags))?;
    let version = (info.cryptokiVersion.major, info.cryptokiVersion.minor);
    let known = [(2, 1), (2, 10), (2, 11), (2, 20), (2, 30), (2, 40), (3, 0), (3, 1), (3, 2)];
    ensure(known.contains(&version), "a version of the standard", format!("{version:?}"))
}

fn info_null(bench: &Bench) -> Verdict {
    bench.module.call(F::C_GetInfo, &[Arg::NULL]).is(CKR_ARGUMENTS_BAD)
}

fn parallel(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    session.call(F::C_GetFunctionStatus, &[]).is(CKR_FUNCTION_NOT_PARALLEL)?;
    session.call(F::C_CancelFunction, &[]).is(CKR_FUNCTION_NOT_PARALLEL)
}
