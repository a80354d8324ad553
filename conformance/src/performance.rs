//! How fast a module is (`--performance`): a chapter of the report, and never a gate. It is measured after the checks, in
//! a process of its own, with objects of the session only.
//!
//! Times are those of a busy loop: what an application waits for one operation, from `C_SignInit` to the end of `C_Sign`.
//! Each measurement lasts about [`SPAN`], so its figures are for comparing modules on one machine in one hour.

use std::io::{self, Write};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use cryptoki_sys::*;
use serde::{Deserialize, Serialize};

use crate::bench::{Bench, Stage};
use crate::check::Stop;
use crate::raw::{Arg, Function as F, Module};
use crate::rv::Rv;
use crate::session::Session;
use crate::template::{Mechanism, Out, Template};

/// How long a measurement lasts.
const SPAN: Duration = Duration::from_millis(500);

/// Side by side.
const THREADS: [u32; 4] = [1, 4, 16, 64];

/// Objects of the session among which one is looked for.
const OBJECTS: [u32; 3] = [10, 100, 1000];

/// A figure: how many operations, and how long they took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figure {
    /// What was done.
    pub what: String,
    /// By how many threads, each in its own session.
    pub threads: u32,
    /// Among how many objects, for a search.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects: Option<u32>,
    /// How often.
    pub operations: u64,
    /// How often in a second, all threads together.
    pub per_second: u64,
    /// Half of them took no longer than this, in microseconds; so of the others.
    pub p50: u64,
    /// 90 of 100.
    pub p90: u64,
    /// 99 of 100.
    pub p99: u64,
    /// All.
    pub max: u64,
}

impl Figure {
    fn of(what: &str, threads: u32, took: Duration, mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |percent: usize| {
            let place = (times.len() * percent).div_ceil(100).saturating_sub(1);
            times.get(place).map_or(0, |time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
        };
        let operations = times.len() as u64;
        let per_second = operations as f64 / took.as_secs_f64().max(1e-9);
        Self {
            what: what.to_owned(),
            threads,
            objects: None,
            operations,
            per_second: per_second.round() as u64,
            p50: at(50),
            p90: at(90),
            p99: at(99),
            max: at(100),
        }
    }
}

impl Figure {
    /// What was done, and among how many objects.
    pub fn title(&self) -> String {
        let among = self.objects.map_or_else(String::new, |objects| format!(" among {objects}"));
        format!("{}{among}", self.what)
    }

    /// Whether another measurement is of the same.
    pub fn measures_as(&self, other: &Self) -> bool {
        (&self.what, self.threads, self.objects) == (&other.what, other.threads, other.objects)
    }
}

/// Writes the figures as a table.
///
/// # Errors
/// When the output cannot be written.
pub fn write(figures: &[Figure], output: &mut dyn Write) -> io::Result<()> {
    if figures.is_empty() {
        return Ok(());
    }
    writeln!(
        output,
        "{:<36} {:>7} {:>9}  microseconds: half, 90 %, 99 %, all",
        "performance", "threads", "a second"
    )?;
    for figure in figures {
        let what = figure.title();
        let Figure { threads, per_second, p50, p90, p99, max, .. } = figure;
        writeln!(output, "{what:<36} {threads:>7} {per_second:>9}  {p50:>9} {p90:>9} {p99:>9} {max:>9}")?;
    }
    Ok(())
}

/// Measures all that the module offers.
///
/// # Errors
/// What keeps the token from being used at all.
pub fn measure(bench: &Bench) -> Result<Vec<Figure>, Stop> {
    bench.prepare(Stage::User)?;
    let session = bench.session()?;
    let mut figures = vec![repeat("session open and close", || {
        let opened = bench.read_only()?;
        opened.close().ok()
    })?];
    // What a module does not offer, or refuses, has no figure.
    let single: [(&str, Operation); 6] = [
        ("sign HMAC-SHA-256", hmac),
        ("sign ECDSA P-256, a digest", ecdsa),
        ("sign EdDSA Ed25519", eddsa),
        ("sign RSA-2048 PKCS #1 v1.5", rsa),
        ("digest SHA-256, 1 KiB", digest),
        ("random, 32 bytes", random),
    ];
    figures.extend(single.iter().filter_map(|(what, operation)| {
        let act = operation(&session).ok()?;
        let module = &bench.module;
        repeat(what, || act.make(module, session.handle).ok()).ok()
    }));
    figures.extend(generation(&session));
    for threads in THREADS {
        let signed = [("sign ECDSA P-256, a digest", ecdsa as Operation), ("sign HMAC-SHA-256", hmac)];
        let all = signed.into_iter().find_map(|(what, operation)| Some((what, operation(&session).ok()?)));
        let Some((what, act)) = all else { break };
        figures.extend(side_by_side(bench, what, &act, threads).ok());
    }
    figures.extend(searches(bench));
    Ok(figures)
}

/// What is done again and again in a session.
struct Act {
    mechanism: CK_MECHANISM_TYPE,
    init: F,
    single: F,
    key: Option<CK_OBJECT_HANDLE>,
    input: Vec<u8>,
}

type Operation = fn(&Session<'_>) -> Result<Act, Stop>;

impl Act {
    fn signing(mechanism: CK_MECHANISM_TYPE, key: CK_OBJECT_HANDLE, input: Vec<u8>) -> Self {
        Self { mechanism, init: F::C_SignInit, single: F::C_Sign, key: Some(key), input }
    }

    /// By calls that share nothing with other threads but the module.
    fn make(&self, module: &Module, session: CK_SESSION_HANDLE) -> Rv {
        if self.single == F::C_GenerateRandom {
            let mut bytes = [0; 32];
            return module
                .call(self.single, &[Arg::number(session), Arg::slice_mut(&mut bytes), Arg::number(32)]);
        }
        let (mechanism, key) = (Mechanism::plain(self.mechanism), self.key.map(Arg::number));
        let begun: Vec<Arg<'_>> = [Arg::number(session), mechanism.arg()].into_iter().chain(key).collect();
        let rv = module.call(self.init, &begun);
        if !rv.was(CKR_OK) {
            return rv;
        }
        let mut out = Out::room(512);
        let [buffer, length] = out.args();
        let input = [Arg::slice(&self.input), Arg::number(self.input.len() as CK_ULONG)];
        module.call(self.single, &[Arg::number(session), input[0], input[1], buffer, length])
    }
}

fn hmac(session: &Session<'_>) -> Result<Act, Stop> {
    Ok(Act::signing(CKM_SHA256_HMAC, session.hmac_key()?, vec![7; 64]))
}

fn ecdsa(session: &Session<'_>) -> Result<Act, Stop> {
    session.bench.offers(CKM_ECDSA, CKF_SIGN)?;
    Ok(Act::signing(CKM_ECDSA, session.p256()?.private, vec![7; 32]))
}

fn eddsa(session: &Session<'_>) -> Result<Act, Stop> {
    session.bench.offers(CKM_EDDSA, CKF_SIGN)?;
    Ok(Act::signing(CKM_EDDSA, session.ed25519()?.private, vec![7; 64]))
}

fn rsa(session: &Session<'_>) -> Result<Act, Stop> {
    session.bench.offers(CKM_SHA256_RSA_PKCS, CKF_SIGN)?;
    Ok(Act::signing(CKM_SHA256_RSA_PKCS, session.bench.rsa()?.private, vec![7; 64]))
}

fn digest(session: &Session<'_>) -> Result<Act, Stop> {
    session.bench.offers(CKM_SHA256, CKF_DIGEST)?;
    let act = Act::signing(CKM_SHA256, 0, vec![7; 1024]);
    Ok(Act { init: F::C_DigestInit, single: F::C_Digest, key: None, ..act })
}

fn random(_: &Session<'_>) -> Result<Act, Stop> {
    Ok(Act { single: F::C_GenerateRandom, ..Act::signing(0, 0, Vec::new()) })
}

fn generation(session: &Session<'_>) -> Option<Figure> {
    let made = || {
        let pair = session.p256()?;
        session.destroy(pair.public).ok()?;
        session.destroy(pair.private).ok()
    };
    repeat("generate and destroy a P-256 pair", made).ok()
}

/// Does something until its time is over.
fn repeat(what: &str, mut act: impl FnMut() -> Result<(), Stop>) -> Result<Figure, Stop> {
    act()?;
    let (since, mut times) = (Instant::now(), Vec::new());
    while since.elapsed() < SPAN {
        let begun = Instant::now();
        act()?;
        times.push(begun.elapsed());
    }
    Ok(Figure::of(what, 1, since.elapsed(), times))
}

/// Threads that begin together, each in its own session.
fn side_by_side(bench: &Bench, what: &str, act: &Act, threads: u32) -> Result<Figure, Stop> {
    let sessions: Vec<CK_SESSION_HANDLE> =
        (0..threads).map(|_| bench.session().map(|session| session.handle)).collect::<Result<_, _>>()?;
    let (module, barrier) = (&bench.module, Barrier::new(sessions.len()));
    let one_thread = |session: CK_SESSION_HANDLE| {
        let mut came = act.make(module, session);
        barrier.wait();
        let (since, mut times) = (Instant::now(), Vec::new());
        while since.elapsed() < SPAN && came.was(CKR_OK) {
            let begun = Instant::now();
            came = act.make(module, session);
            times.push(begun.elapsed());
        }
        came.ok().map(|()| (times, since.elapsed()))
    };
    let ended: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = sessions.iter().map(|session| scope.spawn(|| one_thread(*session))).collect();
        workers.into_iter().map(thread::ScopedJoinHandle::join).collect()
    });
    let (mut times, mut longest) = (Vec::new(), Duration::ZERO);
    for worker in ended {
        let failed = || Stop::Skipped("a thread of the suite failed".to_owned());
        let (mut some, took) = worker.map_err(|_| failed())??;
        times.append(&mut some);
        longest = longest.max(took);
    }
    for session in sessions {
        Session { bench, handle: session }.close().ok()?;
    }
    Ok(Figure::of(what, threads, longest, times))
}

/// The cost of finding one object as objects grow in number.
fn searches(bench: &Bench) -> Vec<Figure> {
    let Ok(session) = bench.session() else { return Vec::new() };
    let mut there = 0;
    let mut figures = Vec::new();
    for objects in OBJECTS {
        let named =
            |number: u32| Template::data().bytes(CKA_APPLICATION, format!("object {number}").as_bytes());
        if (there..objects).any(|number| session.create(&named(number)).is_err()) {
            break;
        }
        there = objects;
        let last = format!("object {}", objects - 1);
        let found = || session.find(&Template::new().bytes(CKA_APPLICATION, last.as_bytes())).map(drop);
        figures.extend(
            repeat("find one object", found).ok().map(|figure| Figure { objects: Some(objects), ..figure }),
        );
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let times = (1..=200).rev().map(Duration::from_micros).collect();
        let figure = Figure::of("sign", 4, Duration::from_millis(100), times);
        assert_eq!((figure.p50, figure.p90, figure.p99, figure.max), (100, 180, 198, 200));
        assert_eq!((figure.operations, figure.per_second), (200, 2000));
        let mut text = Vec::new();
        write(&[Figure { objects: Some(10), ..figure }], &mut text).unwrap_or_default();
        assert!(String::from_utf8_lossy(&text).contains("sign among 10 "));
    }
}
