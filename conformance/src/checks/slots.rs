//! Chapter 5.5, slot and token management.

use std::thread;
use std::time::{Duration, Instant};

use cryptoki_sys::*;

use crate::bench::{Bench, Slots};
use crate::check::{Stop, Verdict, ensure, table};
use crate::checks::general::padded;
use crate::marks::Severity;
use crate::raw::{Arg, Function as F};
use crate::template::{Mechanism, Template, UNAVAILABLE};

table! {
    all arguments;
    "slots.list" Token list, "5.5.1 C_GetSlotList", "the slots with a token are among all slots, and none stands twice";
    "slots.list-small" Token list_small, "5.5.1 C_GetSlotList", "a list that does not fit is CKR_BUFFER_TOO_SMALL with the number needed";
    "slots.info" Token info, "5.5.2 C_GetSlotInfo", "texts are padded, flags are the standard's, a token's slot says that it is there" => low;
    "slots.unknown" Token unknown, "5.1.3 CKR_SLOT_ID_INVALID", "every function refuses a slot that does not exist";
    "slots.token-info" Token token_info, "5.5.3 C_GetTokenInfo", "texts are padded and flags do not contradict each other" => low;
    "slots.token-limits" Token token_limits, "5.5.3 C_GetTokenInfo", "session counts and PIN lengths keep their own limits";
    "slots.token-time" Token token_time, "3.2 CK_TOKEN_INFO", "utcTime is sixteen digits if there is a clock" => low;
    "slots.mechanisms" Token mechanisms, "5.5.5 C_GetMechanismList", "no mechanism stands twice" => low;
    "slots.mechanisms-small" Token mechanisms_small, "5.5.5 C_GetMechanismList", "a list that does not fit is CKR_BUFFER_TOO_SMALL with the number needed";
    "slots.mechanism-info" Token mechanism_info, "5.5.6 C_GetMechanismInfo", "every listed mechanism has an info with a use and a range of sizes";
    "slots.mechanism-unknown" Token mechanism_unknown, "5.5.6 C_GetMechanismInfo", "a mechanism that is not listed is CKR_MECHANISM_INVALID";
    "slots.mechanism-digests" Public mechanism_digests, "5.5.6 C_GetMechanismInfo", "what has CKF_DIGEST digests, and what has not is refused";
    "slots.mechanism-unlisted" User mechanism_unlisted, "5.5.5 C_GetMechanismList", "a digest or MAC that is not listed is refused, and has no info";
    "slots.mechanism-other-uses" User mechanism_other_uses, "5.5.6 C_GetMechanismInfo", "a mechanism without the flag of a use is refused for that use";
    "slots.no-event" Initialized no_event, "5.5.4 C_WaitForSlotEvent", "without blocking, no event is CKR_NO_EVENT" => sessions;
    "slots.event-ends" Initialized event_ends, "5.5.4 C_WaitForSlotEvent, 5.4.2 C_Finalize", "C_Finalize ends another thread's wait for an event with CKR_CRYPTOKI_NOT_INITIALIZED" => sessions alone;
}

/// The checks after all others: a module that fails them has lost its token.
pub mod last {
    use super::init_token_in_use;

    crate::check::table! {
        "slots.init-token-in-use" Public init_token_in_use, "5.5.7 C_InitToken", "a token with a session is not initialised (the PIN given is wrong)" => authentication pins high;
    }
}

/// A slot that no module has.
const NOWHERE: CK_SLOT_ID = 0x7fff_fff0;

fn list(bench: &Bench) -> Verdict {
    let all = bench.slots(Slots::All)?;
    let with_token = bench.slots(Slots::WithToken)?;
    let inside = with_token.iter().all(|slot| all.contains(slot));
    ensure(inside, format!("some of {all:?}"), format!("{with_token:?}"))?;
    let mut once = all.clone();
    once.sort_unstable();
    once.dedup();
    ensure(once.len() == all.len(), "each slot once", format!("{all:?}"))
}

fn list_small(bench: &Bench) -> Verdict {
    let all = bench.slots(Slots::All)?;
    let mut none = [0xa5a5_a5a5 as CK_SLOT_ID];
    let mut count: CK_ULONG = 0;
    let arguments = [Arg::number(0), Arg::slice_mut(&mut none), Arg::of_mut(&mut count)];
    bench.module.call(F::C_GetSlotList, &arguments).is(CKR_BUFFER_TOO_SMALL)?;
    ensure(count == all.len() as CK_ULONG, all.len().to_string(), count.to_string())?;
    ensure(none == [0xa5a5_a5a5], "nothing written", "memory was written")
}

fn info(bench: &Bench) -> Verdict {
    let mut info = CK_SLOT_INFO::default();
    bench.module.call(F::C_GetSlotInfo, &[Arg::number(bench.slot()?), Arg::of_mut(&mut info)]).ok()?;
    padded("slotDescription", &info.slotDescription)?;
    padded("manufacturerID", &info.manufacturerID)?;
    let known = CKF_TOKEN_PRESENT | CKF_REMOVABLE_DEVICE | CKF_HW_SLOT;
    let good = info.flags & !known == 0 && info.flags & CKF_TOKEN_PRESENT != 0;
    ensure(good, "CKF_TOKEN_PRESENT and no unknown flag", format!("{:#x}", info.flags))
}

fn unknown(bench: &Bench) -> Verdict {
    let slot = Arg::number(NOWHERE);
    let (mut words, mut count) = ([0_u64; 64], 64 as CK_ULONG);
    let calls = [
        bench.module.call(F::C_GetSlotInfo, &[slot, Arg::slice_mut(&mut words)]),
        bench.module.call(F::C_GetTokenInfo, &[slot, Arg::slice_mut(&mut words)]),
        bench.module.call(F::C_GetMechanismList, &[slot, Arg::NULL, Arg::of_mut(&mut count)]),
        bench
            .module
            .call(F::C_GetMechanismInfo, &[slot, Arg::number(CKM_SHA256), Arg::slice_mut(&mut words)]),
        bench.module.call(
            F::C_OpenSession,
            &[slot, Arg::number(CKF_SERIAL_SESSION), Arg::NULL, Arg::NULL, Arg::of_mut(&mut count)],
        ),
        bench.module.call(F::C_CloseAllSessions, &[slot]),
    ];
    calls.into_iter().try_for_each(|rv| rv.is(CKR_SLOT_ID_INVALID))
}

fn token_info(bench: &Bench) -> Verdict {
    let info = bench.token_info(bench.slot()?)?;
    padded("label", &info.label)?;
    padded("manufacturerID", &info.manufacturerID)?;
    padded("model", &info.model)?;
    padded("serialNumber", &info.serialNumber)?;
    let has = |flag| info.flags & flag != 0;
    ensure(has(CKF_TOKEN_INITIALIZED), "CKF_TOKEN_INITIALIZED", format!("{:#x}", info.flags))?;
    ensure(
        !(has(CKF_USER_PIN_LOCKED) && has(CKF_USER_PIN_FINAL_TRY)),
        "a locked PIN has no final try",
        format!("{:#x}", info.flags),
    )
}

fn token_limits(bench: &Bench) -> Verdict {
    let info = bench.token_info(bench.slot()?)?;
    let within = |count: CK_ULONG, most: CK_ULONG| {
        count == UNAVAILABLE || most == UNAVAILABLE || most == CK_EFFECTIVELY_INFINITE || count <= most
    };
    ensure(
        within(info.ulSessionCount, info.ulMaxSessionCount),
        format!("at most {} sessions", info.ulMaxSessionCount),
        info.ulSessionCount.to_string(),
    )?;
    ensure(
        within(info.ulRwSessionCount, info.ulMaxRwSessionCount),
        format!("at most {} read-write sessions", info.ulMaxRwSessionCount),
        info.ulRwSessionCount.to_string(),
    )?;
    ensure(
        info.ulMinPinLen <= info.ulMaxPinLen,
        format!("at least {}", info.ulMinPinLen),
        info.ulMaxPinLen.to_string(),
    )
}

fn token_time(bench: &Bench) -> Verdict {
    let info = bench.token_info(bench.slot()?)?;
    let digits = info.utcTime.iter().all(u8::is_ascii_digit);
    let seen = format!("{:?}", String::from_utf8_lossy(&info.utcTime));
    ensure(info.flags & CKF_CLOCK_ON_TOKEN == 0 || digits, "YYYYMMDDhhmmss00", seen)
}

fn mechanisms(bench: &Bench) -> Verdict {
    let mut list = bench.mechanisms()?.to_vec();
    list.sort_unstable();
    let twice: Vec<String> = list
        .windows(2)
        .filter_map(|pair| match pair {
            [one, other] if one == other => Some(format!("{one:#x}")),
            _ => None,
        })
        .collect();
    ensure(twice.is_empty(), "each mechanism once", format!("twice: {}", twice.join(" ")))
}

fn mechanisms_small(bench: &Bench) -> Verdict {
    let needed = bench.mechanisms()?.len() as CK_ULONG;
    if needed == 0 {
        return Err(Stop::NotOffered);
    }
    let mut none = [0xa5a5_a5a5 as CK_MECHANISM_TYPE];
    let mut count: CK_ULONG = 0;
    let arguments = [Arg::number(bench.slot()?), Arg::slice_mut(&mut none), Arg::of_mut(&mut count)];
    bench.module.call(F::C_GetMechanismList, &arguments).is(CKR_BUFFER_TOO_SMALL)?;
    ensure(count == needed, needed.to_string(), count.to_string())?;
    ensure(none == [0xa5a5_a5a5], "nothing written", "memory was written")
}

/// The uses that a mechanism may have.
const USES: CK_FLAGS = CKF_ENCRYPT
    | CKF_DECRYPT
    | CKF_DIGEST
    | CKF_SIGN
    | CKF_SIGN_RECOVER
    | CKF_VERIFY
    | CKF_VERIFY_RECOVER
    | CKF_GENERATE
    | CKF_GENERATE_KEY_PAIR
    | CKF_WRAP
    | CKF_UNWRAP
    | CKF_DERIVE
    | CKF_MESSAGE_ENCRYPT
    | CKF_MESSAGE_DECRYPT
    | CKF_MESSAGE_SIGN
    | CKF_MESSAGE_VERIFY
    | CKF_ENCAPSULATE
    | CKF_DECAPSULATE;

fn mechanism_info(bench: &Bench) -> Verdict {
    for mechanism in bench.mechanisms()? {
        let info = bench.offers(*mechanism, 0)?;
        let good = info.flags & USES != 0 && info.ulMinKeySize <= info.ulMaxKeySize;
        let seen = format!("{mechanism:#x}: {:#x}, {}..{}", info.flags, info.ulMinKeySize, info.ulMaxKeySize);
        ensure(good, "a use, and sizes from least to most", seen)?;
    }
    Ok(())
}

fn mechanism_unknown(bench: &Bench) -> Verdict {
    let mut info = CK_MECHANISM_INFO::default();
    for mechanism in [CKM_VENDOR_DEFINED | 0x00de_adbe, UNAVAILABLE, 1 << 40] {
        let arguments = [Arg::number(bench.slot()?), Arg::number(mechanism), Arg::of_mut(&mut info)];
        bench.module.call(F::C_GetMechanismInfo, &arguments).is(CKR_MECHANISM_INVALID)?;
    }
    Ok(())
}

fn mechanism_digests(bench: &Bench) -> Verdict {
    let of_the_standard = |mechanism: &&CK_MECHANISM_TYPE| **mechanism < CKM_VENDOR_DEFINED;
    for mechanism in bench.mechanisms()?.iter().filter(of_the_standard) {
        let digests = bench.offers(*mechanism, CKF_DIGEST).is_ok();
        let session = bench.session()?;
        let rv = session.init(F::C_DigestInit, &Mechanism::plain(*mechanism), None);
        if digests {
            rv.ok()?;
        } else {
            rv.one_of(&[CKR_MECHANISM_INVALID, CKR_MECHANISM_PARAM_INVALID])?;
        }
        session.close().ok()?;
    }
    Ok(())
}

/// Digests and MACs that need no parameter, by the hash that they are of.
const PLAIN: [[CK_MECHANISM_TYPE; 2]; 9] = [
    [CKM_MD5, CKM_MD5_HMAC],
    [CKM_SHA_1, CKM_SHA_1_HMAC],
    [CKM_SHA224, CKM_SHA224_HMAC],
    [CKM_SHA256, CKM_SHA256_HMAC],
    [CKM_SHA384, CKM_SHA384_HMAC],
    [CKM_SHA512, CKM_SHA512_HMAC],
    [CKM_SHA3_256, CKM_SHA3_256_HMAC],
    [CKM_SHA3_384, CKM_SHA3_384_HMAC],
    [CKM_SHA3_512, CKM_SHA3_512_HMAC],
];

fn mechanism_unlisted(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let key = session.create(&Template::secret(CKK_GENERIC_SECRET, &[1; 64]).usages(&[CKA_SIGN]))?;
    let listed = bench.mechanisms()?;
    let mut info = CK_MECHANISM_INFO::default();
    for number in PLAIN.into_iter().flatten().filter(|number| !listed.contains(number)) {
        let mechanism = Mechanism::plain(number);
        session.init(F::C_DigestInit, &mechanism, None).is(CKR_MECHANISM_INVALID)?;
        session.init(F::C_SignInit, &mechanism, Some(key)).is(CKR_MECHANISM_INVALID)?;
        let arguments = [Arg::number(bench.slot()?), Arg::number(number), Arg::of_mut(&mut info)];
        bench.module.call(F::C_GetMechanismInfo, &arguments).is(CKR_MECHANISM_INVALID)?;
    }
    Ok(())
}

fn mechanism_other_uses(bench: &Bench) -> Verdict {
    let uses = [
        (F::C_SignInit, CKF_SIGN),
        (F::C_VerifyInit, CKF_VERIFY),
        (F::C_EncryptInit, CKF_ENCRYPT),
        (F::C_DecryptInit, CKF_DECRYPT),
    ];
    let session = bench.session()?;
    let usages = [CKA_SIGN, CKA_VERIFY, CKA_ENCRYPT, CKA_DECRYPT];
    let secret = session.create(&Template::secret(CKK_GENERIC_SECRET, &[1; 32]).usages(&usages))?;
    let aes = session.create(&Template::secret(CKK_AES, &[1; 32]).usages(&usages))?;
    for mechanism in bench.mechanisms()? {
        for (init, flag) in uses {
            if bench.offers(*mechanism, flag).is_err() {
                for key in [secret, aes] {
                    session.init(init, &Mechanism::plain(*mechanism), Some(key)).refused()?;
                }
            }
        }
    }
    Ok(())
}

fn no_event(bench: &Bench) -> Verdict {
    let mut slot: CK_SLOT_ID = 0;
    let arguments = [Arg::number(CKF_DONT_BLOCK), Arg::of_mut(&mut slot), Arg::NULL];
    bench.module.call(F::C_WaitForSlotEvent, &arguments).one_of(&[CKR_NO_EVENT, CKR_FUNCTION_NOT_SUPPORTED])
}

/// How many events of the past a wait may begin with.
const PAST_EVENTS: usize = 16;

/// If the wait has no end, the runner ends the process and tells of it.
fn event_ends(bench: &Bench) -> Verdict {
    let module = &bench.module;
    let wait = || {
        let mut rv = None;
        for _ in 0..PAST_EVENTS {
            let mut slot: CK_SLOT_ID = 0;
            let arguments = [Arg::number(0), Arg::of_mut(&mut slot), Arg::NULL];
            let answer = module.call(F::C_WaitForSlotEvent, &arguments);
            rv = Some(answer);
            if !answer.was(CKR_OK) {
                break;
            }
        }
        rv.ok_or(Stop::NotOffered)
    };
    let (finalized, waited) = thread::scope(|scope| {
        let waiter = scope.spawn(wait);
        let until = Instant::now() + Duration::from_millis(300);
        while Instant::now() < until && !waiter.is_finished() {
            thread::sleep(Duration::from_millis(5));
        }
        let finalized = (!waiter.is_finished()).then(|| module.call(F::C_Finalize, &[Arg::NULL]));
        (finalized, waiter.join())
    });
    let waited = waited.map_err(|_| Stop::Skipped("a thread of the suite failed".to_owned()))??;
    match finalized {
        Some(finalized) => finalized.ok().and_then(|()| waited.is(CKR_CRYPTOKI_NOT_INITIALIZED)),
        // Tokens that do not come and go need not have a wait that blocks.
        None if waited.was(CKR_FUNCTION_NOT_SUPPORTED) => Err(Stop::NotOffered),
        None => {
            Err(Stop::at_most(Severity::Low, "a wait, or CKR_FUNCTION_NOT_SUPPORTED", waited.to_string()))
        }
    }
}

fn init_token_in_use(bench: &Bench) -> Verdict {
    let _session = bench.session()?;
    let arguments = [
        Arg::number(bench.slot()?),
        Arg::slice(b"not the SO's PIN"),
        Arg::number(16),
        Arg::slice(&[b' '; 32]),
    ];
    let rv = bench.module.call(F::C_InitToken, &arguments);
    if rv.was(CKR_FUNCTION_NOT_SUPPORTED) {
        return Err(Stop::NotOffered);
    }
    rv.one_of(&[CKR_SESSION_EXISTS, CKR_TOKEN_WRITE_PROTECTED])
}
