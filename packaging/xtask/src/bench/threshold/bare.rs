//! A process that signs with a shared key all alone: the bare protocol, with no transport, policy or audit. What the
//! nodes spend beyond that is ours.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{BufRead, stdin},
    num::NonZeroUsize,
    thread,
    time::{Duration, Instant},
};

use strongroom_server::crypto::threshold::{
    CeremonyId, Committee, Epoch, Incoming, KeyId, Outgoing, Party, SchemeId, Setup, Share, Signing, Started,
    Step, To, combine, generate_key, sign,
};
use xtask::Outcome;

use super::{PARTIES, THRESHOLD, scheme_of};
use crate::{load::say, plan::Algorithm, process::tree_cpu};

/// Answers the driver's questions until it hangs up: `ALGORITHM MILLISECONDS`, each answered by
/// `SIGNATURES NANOSECONDS`, the CPU time of all parties together.
///
/// # Errors
/// A ceremony failed, or the driver does not speak like that.
pub fn answer() -> Outcome {
    say("ready")?;
    for line in stdin().lock().lines() {
        let line = line?;
        let (algorithm, milliseconds) = line.split_once(' ').ok_or("not a question")?;
        let algorithm = Algorithm::from_name(algorithm).ok_or("unknown algorithm")?;
        let (count, cpu) = measure(algorithm, Duration::from_millis(milliseconds.parse()?))?;
        say(&format!("{count} {}", cpu.as_nanos()))?;
    }
    Ok(())
}

/// Signs on as many threads as there are processors, as the nodes do together under load: two that share what is below
/// them take longer than one that has it alone.
fn measure(algorithm: Algorithm, slice: Duration) -> Outcome<(u64, Duration)> {
    let scheme = scheme_of(algorithm).ok_or("no scheme for this algorithm")?;
    let shares = generate(scheme)?;
    let (begun, before) = (Instant::now(), tree_cpu(std::process::id()));
    let sign = |thread: u64| {
        let mut count = 0;
        while begun.elapsed() < slice {
            count += 1;
            sign_once(&shares, thread << 32 | count).map_err(|error| error.to_string())?;
        }
        Ok::<u64, String>(count)
    };
    let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get) as u64;
    let counts = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || sign(thread))).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_| Err("panicked".into()))
        };
        running.into_iter().map(join).collect::<Result<Vec<u64>, _>>()
    })?;
    Ok((counts.iter().sum(), tree_cpu(std::process::id()).saturating_sub(before)))
}

fn setup(number: u64, me: Party) -> Setup {
    let mut id = [0; 32];
    id.iter_mut().zip(number.to_be_bytes()).for_each(|(to, from)| *to = from);
    Setup { key: KeyId([7; 16]), id: CeremonyId(id), epoch: Epoch(1), me }
}

fn generate(scheme: SchemeId) -> Outcome<BTreeMap<Party, Share>> {
    let committee = Committee::new(THRESHOLD, PARTIES)?;
    let start = |me: Party| Ok((me, generate_key(scheme, committee, &setup(0, me))?));
    let made = run(committee.members().map(start).collect::<Outcome<_>>()?)?;
    Ok(made.into_iter().filter_map(|(party, outcome)| Some((party, outcome.share?))).collect())
}

/// Two of the parties sign, and one of them combines and verifies.
fn sign_once(shares: &BTreeMap<Party, Share>, number: u64) -> Outcome {
    let mut input = vec![0x5a; 32];
    input.iter_mut().zip(number.to_be_bytes()).for_each(|(to, from)| *to = from);
    let signers = shares.keys().copied().take(usize::from(THRESHOLD)).collect();
    let signing = Signing { signers, input };
    let signing_shares = || shares.iter().filter(|(party, _)| signing.signers.contains(party));
    let start = |(me, share): (&Party, &Share)| Ok((*me, sign(share, &signing, &setup(number, *me))?));
    let held = run(signing_shares().map(start).collect::<Outcome<_>>()?)?;
    let (me, share) = signing_shares().next().ok_or("no signer")?;
    let mut combiner = combine(share, &signing, &setup(number, *me))?;
    for (from, held) in held {
        let bytes = held.release().bytes.to_vec();
        combiner = match combiner.step(vec![Incoming { from, bytes }]) {
            Step::Continue(combiner, _) => combiner,
            Step::Done(..) => return Ok(()),
            Step::Abort(abort) => return Err(abort.to_string().into()),
            Step::Refused(..) => return Err("a message was refused".into()),
        };
    }
    Err("the signature is not complete".into())
}

/// Runs a ceremony of honest parties to its end.
fn run<T: 'static>(started: BTreeMap<Party, Started<T>>) -> Outcome<BTreeMap<Party, T>> {
    let parties: Vec<Party> = started.keys().copied().collect();
    let mut queue = VecDeque::new();
    let post = |from: Party, outgoing: Vec<Outgoing>, queue: &mut VecDeque<(Party, Incoming)>| {
        for message in outgoing {
            let to_all = parties.iter().copied().filter(|to| *to != from);
            let receivers: Vec<Party> = match message.to {
                To::Party(to) => vec![to],
                To::All | To::Coordinator => to_all.collect(),
            };
            let bytes = message.bytes.to_vec();
            queue.extend(receivers.into_iter().map(|to| (to, Incoming { from, bytes: bytes.clone() })));
        }
    };
    let (mut live, mut done) = (BTreeMap::new(), BTreeMap::new());
    for (party, (ceremony, outgoing)) in started {
        live.insert(party, ceremony);
        post(party, outgoing, &mut queue);
    }
    while let Some((to, message)) = queue.pop_front() {
        let Some(ceremony) = live.remove(&to) else { continue };
        match ceremony.step(vec![message]) {
            Step::Continue(ceremony, outgoing) => {
                live.insert(to, ceremony);
                post(to, outgoing, &mut queue);
            }
            Step::Done(result, outgoing) => {
                done.insert(to, result);
                post(to, outgoing, &mut queue);
            }
            Step::Abort(abort) => return Err(abort.to_string().into()),
            Step::Refused(..) => return Err("a message was refused".into()),
        }
    }
    if done.len() == parties.len() { Ok(done) } else { Err("the ceremony is not complete".into()) }
}
