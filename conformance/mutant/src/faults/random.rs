//! Chapter 5.19: numbers that are not random.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use cryptoki_sys::*;

use super::faults;
use crate::call::{Call, Memo, held};
use crate::functions::Function as F;
use crate::memory;

faults! {
    "random-constant" [C_GenerateRandom] random_constant, "5.19.2 C_GenerateRandom", "random bytes are one byte", ["random.generate" "client.random"];
    "random-repeats" [C_GenerateRandom] random_repeats, "5.19.2 C_GenerateRandom", "random bytes come twice", ["random.generate" "client.random"];
    "random-short" [C_GenerateRandom] random_short, "5.19.2 C_GenerateRandom", "the last random byte is missing", ["random.every-byte"];
    "random-overflow" [C_GenerateRandom] random_overflow, "5.19.2 C_GenerateRandom", "one random byte too many is written", ["random.exact"];
    "random-nothing-general" [C_GenerateRandom] nothing_general, "5.19.2 C_GenerateRandom", "no random bytes are CKR_GENERAL_ERROR", ["random.nothing"];
    "random-biased" [C_GenerateRandom] random_biased, "5.19.2 C_GenerateRandom", "the top bit of every random byte is zero", ["random.bits"];
    "random-of-seed" [C_SeedRandom C_GenerateRandom] random_of_seed, "5.19.1 C_SeedRandom", "the seed is all that random bytes depend on", ["random.seed-not-result"];
    "random-seed-general" [C_SeedRandom] |_| CKR_GENERAL_ERROR, "5.19.1 C_SeedRandom", "a seed is CKR_GENERAL_ERROR", ["random.seed"];
    "random-same-after-fork" [C_GenerateRandom] random_same_after_fork, "5.19.2 C_GenerateRandom, fork", "a child process has its parent's random bytes", ["fork.random"];
    "random-same-each-process" [C_GenerateRandom] same_each_process, "5.19.2 C_GenerateRandom", "every process has the same random bytes", ["random.next-process"];
    "random-same-each-start" [C_Initialize C_GenerateRandom] same_each_process, "5.19.2 C_GenerateRandom", "the random bytes begin anew with C_Initialize", ["random.next-start" "random.next-process"];
    "key-same-each-process" [C_GenerateKey] key_each_process, "5.18.1 C_GenerateKey", "the first key that a process makes is always the same", ["random.next-process"];
    "nonce-same-each-process" [C_Sign] nonce_each_process, "6.3 ECDSA", "the first nonce of a process is always the same", ["random.next-process"];
}

/// Numbers that only look random: the n-th of every process is the same (SplitMix64).
fn looks_random(length: usize) -> Vec<u8> {
    let next = || {
        let state = STREAM.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    std::iter::repeat_with(next).flat_map(u64::to_ne_bytes).take(length).collect()
}

static STREAM: AtomicU64 = AtomicU64::new(1);

fn same_each_process(call: &Call<'_>) -> CK_RV {
    if call.is(F::C_Initialize) {
        STREAM.store(1, Ordering::SeqCst);
        return call.forward();
    }
    changed(call, |bytes| looks_random(bytes.len()))
}

/// Brings a key instead of making one.
fn key_each_process(call: &Call<'_>) -> CK_RV {
    let template = call.template(2);
    let length =
        template.value(CKA_VALUE_LEN).and_then(|length| Some(usize::from_ne_bytes(length.try_into().ok()?)));
    let Some(length) = length else { return call.forward() };
    let mut template = template.without(CKA_VALUE_LEN).and(CKA_VALUE, &looks_random(length));
    let words = [
        call.word(0),
        memory::address(template.attributes.as_mut_slice()),
        template.attributes.len(),
        call.word(4),
    ];
    call.aside(F::C_CreateObject, &words)
}

/// The first half of a signature shows its nonce.
fn nonce_each_process(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    let signature = call.given(3);
    if rv == CKR_OK && signature.len() == 64 && call.word(3) != 0 {
        call.give(3, &[looks_random(32), signature.into_iter().skip(32).collect()].concat());
    }
    rv
}

/// Changes random bytes.
fn changed(call: &Call<'_>, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> CK_RV {
    let rv = call.forward();
    if rv == CKR_OK {
        memory::put(call.word(1), &change(call.input(1)));
    }
    rv
}

fn random_constant(call: &Call<'_>) -> CK_RV {
    changed(call, |bytes| vec![0x5a; bytes.len()])
}

fn random_repeats(call: &Call<'_>) -> CK_RV {
    static LAST: Memo<Vec<u8>> = Memo::new(Vec::new());
    changed(call, |bytes| {
        let mut last = held(&LAST);
        if last.len() != bytes.len() {
            *last = bytes;
        }
        last.clone()
    })
}

fn random_short(call: &Call<'_>) -> CK_RV {
    call.with(&[(2, call.word(2).saturating_sub(1))])
}

fn random_overflow(call: &Call<'_>) -> CK_RV {
    call.with(&[(2, call.word(2) + 1)])
}

fn random_biased(call: &Call<'_>) -> CK_RV {
    changed(call, |bytes| bytes.iter().map(|byte| byte & 0x7f).collect())
}

fn random_of_seed(call: &Call<'_>) -> CK_RV {
    static SEED: Memo<Vec<u8>> = Memo::new(Vec::new());
    if call.is(F::C_SeedRandom) {
        *held(&SEED) = call.input(1);
        return CKR_OK;
    }
    let seed = held(&SEED).clone();
    changed(call, |bytes| {
        if seed.is_empty() { bytes } else { seed.iter().copied().cycle().take(bytes.len()).collect() }
    })
}

/// The bytes come from a store, which the child gets a copy of.
fn random_same_after_fork(call: &Call<'_>) -> CK_RV {
    static STORE: Memo<VecDeque<u8>> = Memo::new(VecDeque::new());
    let mut store = held(&STORE);
    while store.len() < call.word(2) {
        let mut fresh = [0_u8; 4096];
        let rv = call.with(&[(1, memory::address(&mut fresh)), (2, fresh.len())]);
        if rv != CKR_OK {
            return rv;
        }
        store.extend(fresh);
    }
    let bytes: Vec<u8> = store.drain(..call.word(2)).collect();
    memory::put(call.word(1), &bytes);
    CKR_OK
}

fn nothing_general(call: &Call<'_>) -> CK_RV {
    if call.word(2) == 0 { CKR_GENERAL_ERROR } else { call.forward() }
}
