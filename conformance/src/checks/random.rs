//! Chapter 5.19, random numbers.

use cryptoki_sys::*;

use crate::bench::Bench;
use crate::check::{Verdict, ensure, table};
use crate::raw::{Arg, Function as F};
use crate::session::Session;

table! {
    all randomness;
    "random.generate" Public generate, "5.19.2 C_GenerateRandom", "every byte asked for is written, and no two results are alike" => critical;
    "random.exact" Public exact, "5.19.2 C_GenerateRandom", "no byte beyond the length is written" => high;
    "random.nothing" Public nothing, "5.19.2 C_GenerateRandom", "no bytes are no trouble";
    "random.seed" Public seed, "5.19.1 C_SeedRandom", "a seed is taken, or is CKR_RANDOM_SEED_NOT_SUPPORTED";
    "random.seed-not-result" Public seed_not_result, "5.19.1 C_SeedRandom", "the same seed does not give the same numbers" => critical;
}

fn fill(session: &Session<'_>, memory: &mut [u8]) -> Verdict {
    let length = Arg::number(memory.len() as CK_ULONG);
    session.call(F::C_GenerateRandom, &[Arg::slice_mut(memory), length]).ok()
}

/// 64 KiB in which each 256 bytes must hold at least 100 values: chance fails this less than once in 10^9 runs.
fn generate(bench: &Bench) -> Verdict {
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

fn exact(bench: &Bench) -> Verdict {
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
    let session = bench.session()?;
    let mut memory = [0xa5_u8; 1];
    session
        .call(F::C_GenerateRandom, &[Arg::slice_mut(&mut memory), Arg::number(0)])
        .one_of(&[CKR_OK, CKR_ARGUMENTS_BAD])?;
    ensure(memory == [0xa5], "nothing written", "a byte")
}

const SEEDED: &[CK_RV] = &[CKR_OK, CKR_RANDOM_SEED_NOT_SUPPORTED];

fn seed(bench: &Bench) -> Verdict {
    bench.session()?.feed(F::C_SeedRandom, &[7; 64]).one_of(SEEDED)
}

fn seed_not_result(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let (mut one, mut other) = ([0; 32], [0; 32]);
    session.feed(F::C_SeedRandom, &[7; 64]).one_of(SEEDED)?;
    fill(&session, &mut one)?;
    session.feed(F::C_SeedRandom, &[7; 64]).one_of(SEEDED)?;
    fill(&session, &mut other)?;
    ensure(one != other, "two results", "the same twice")
}
