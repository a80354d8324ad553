//! Chapter 5.19, random numbers.

use cryptoki_sys::*;

use crate::bench::Bench;
use crate::check::{Stop, Verdict, ensure, table};
use crate::raw::{Arg, Function as F};
use crate::session::Session;

table! {
    all randomness;
    "random.generate" Public generate, "5.19.2 C_GenerateRandom", "every byte asked for is written, and no two results are alike" => critical;
    "random.bits" Public bits, "5.19.2 C_GenerateRandom", "each bit of a byte is set half of the time" => critical;
    "random.every-byte" Public every_byte, "5.19.2 C_GenerateRandom", "the first and the last byte asked for are written" => high;
    "random.exact" Public exact, "5.19.2 C_GenerateRandom", "no byte beyond the length is written" => high;
    "random.nothing" Public nothing, "5.19.2 C_GenerateRandom", "no bytes are no trouble";
    "random.seed" Public seed, "5.19.1 C_SeedRandom", "a seed is taken, or is CKR_RANDOM_SEED_NOT_SUPPORTED";
    "random.seed-not-result" Public seed_not_result, "5.19.1 C_SeedRandom", "the same seed does not give the same numbers" => critical;
}

/// A token need not have a source of random numbers (3.2, `CKF_RNG`).
pub fn has_source(bench: &Bench) -> Verdict {
    let flags = bench.token_info(bench.slot()?)?.flags;
    if flags & CKF_RNG == 0 { Err(Stop::NotOffered) } else { Ok(()) }
}

/// Fills memory with random bytes.
///
/// # Errors
/// A failure of `C_GenerateRandom`.
pub fn fill(session: &Session<'_>, memory: &mut [u8]) -> Verdict {
    let length = Arg::number(memory.len() as CK_ULONG);
    session.call(F::C_GenerateRandom, &[Arg::slice_mut(memory), length]).ok()
}

/// 64 KiB in which each 256 bytes must hold at least 100 values: chance fails this less than once in 10^9 runs.
fn generate(bench: &Bench) -> Verdict {
    has_source(bench)?;
    let session = bench.session()?;
    let (mut one, mut other) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    fill(&session, &mut one)?;
    fill(&session, &mut other)?;
    ensure(one != other, "two results", "the same twice")?;
    for part in one.chunks(256) {
        let mut values = part.to_vec();
        values.sort_unstable();
        values.dedup();
        ensure(values.len() > 100, "about 162 values in 256 bytes", values.len().to_string())?;
    }
    Ok(())
}

/// Of 65536 bits 32768 should be set, with a standard deviation of 128: seven of them are chance once in 10^11 runs.
fn bits(bench: &Bench) -> Verdict {
    has_source(bench)?;
    let session = bench.session()?;
    let mut memory = vec![0_u8; 1 << 16];
    fill(&session, &mut memory)?;
    for bit in 0..8 {
        let set = memory.iter().filter(|byte| *byte >> bit & 1 == 1).count();
        let expected = "about 32768 of 65536 set";
        ensure(set.abs_diff(1 << 15) < 7 * 128, expected, format!("bit {bit}: {set}"))?;
    }
    Ok(())
}

/// A byte that is written sixteen times and is 0xa5 each time is chance once in 10^38 runs.
fn every_byte(bench: &Bench) -> Verdict {
    has_source(bench)?;
    let session = bench.session()?;
    for length in [1, 2, 16, 33] {
        let mut written = [false; 2];
        for _ in 0..16 {
            let mut memory = vec![0xa5; length];
            fill(&session, &mut memory)?;
            let ends = [memory.first(), memory.last()];
            for (was_written, byte) in written.iter_mut().zip(ends) {
                *was_written |= byte != Some(&0xa5);
            }
        }
        ensure(written == [true; 2], format!("{length} bytes written"), "the first or the last is not")?;
    }
    Ok(())
}

fn exact(bench: &Bench) -> Verdict {
    has_source(bench)?;
    let session = bench.session()?;
    for length in [1, 15, 33] {
        let mut memory = [0xa5; 64];
        if let Some(part) = memory.get_mut(..length) {
            fill(&session, part)?;
        }
        let beyond = memory.get(length..).unwrap_or_default();
        ensure(beyond.iter().all(|byte| *byte == 0xa5), format!("{length} bytes written"), "more")?;
    }
    Ok(())
}

fn nothing(bench: &Bench) -> Verdict {
    has_source(bench)?;
    let session = bench.session()?;
    let mut memory = [0xa5_u8; 1];
    session
        .call(F::C_GenerateRandom, &[Arg::slice_mut(&mut memory), Arg::number(0)])
        .one_of(&[CKR_OK, CKR_ARGUMENTS_BAD])?;
    ensure(memory == [0xa5], "nothing written", "a byte")
}

const SEEDED: &[CK_RV] = &[CKR_OK, CKR_RANDOM_SEED_NOT_SUPPORTED];

fn seed(bench: &Bench) -> Verdict {
    has_source(bench)?;
    bench.session()?.feed(F::C_SeedRandom, &[7; 64]).one_of(SEEDED)
}

fn seed_not_result(bench: &Bench) -> Verdict {
    has_source(bench)?;
    let session = bench.session()?;
    let (mut one, mut other) = ([0; 32], [0; 32]);
    session.feed(F::C_SeedRandom, &[7; 64]).one_of(SEEDED)?;
    fill(&session, &mut one)?;
    session.feed(F::C_SeedRandom, &[7; 64]).one_of(SEEDED)?;
    fill(&session, &mut other)?;
    ensure(one != other, "two results", "the same twice")
}
