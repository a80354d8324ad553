//! Chapter 5.19: numbers that are not random.

use std::collections::VecDeque;

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
