//! A module whose token is behind a network (group I): the suite's proxy stands between the two and does what bad
//! networks do. The standard has no word about networks; it says what an application is told when the token is away
//! (5.1.1 to 5.1.3), and an application needs more: an end in bounded time, no wrong result, nothing made twice, and
//! a module that works again when the network does, without `C_Finalize`.
//!
//! Made with `--network` only.

mod acts;
pub mod certificates;
pub mod restart;
pub mod wire;

use std::time::{Duration, Instant};

use cryptoki_sys::*;

use crate::bench::{Bench, Stage};
use crate::check::{Check, Stop, Verdict};
use crate::checks::network::acts::{ACTS, Act, Ready, Told, Trouble};
use crate::marks::{Effect, Severity};
use crate::proxy::desk::Desk;
use crate::proxy::fault::{Cut, Fault, Tally, Way};
use crate::raw::{Arg, Function as F};
use crate::seed::Seeded;

const CLAUSE: &str = "5.1.3 Return values of functions that use a token";

/// Seconds for one check: a module may use up its own deadline many times.
const PATIENCE: u64 = 300;

/// How many offsets of one way are tried at most. Other seeds try others.
const OFFSETS: u64 = 24;

/// After which time no further offset is tried.
const BUDGET: Duration = Duration::from_secs(8);

/// How long a module may take to notice that the network is good again.
const RECOVERY: Duration = Duration::from_secs(15);

/// A kind of fault.
struct Weather {
    word: &'static str,
    /// What it is, for titles: "… while ".
    is: &'static str,
    /// The calls that meet it; all if there are none.
    acts: &'static [&'static str],
    /// Its cases, for a call with this traffic.
    cases: fn(&Tally, &mut Seeded) -> Vec<Fault>,
}

/// The calls that meet what takes long.
const FEW: &[&str] = &["login", "find", "sign", "generate"];

const WEATHER: &[Weather] = &[
    Weather {
        word: "cut-request",
        is: "the connection ends within its request",
        acts: &[],
        cases: |tally, random| {
            offsets(tally.request, random, |at| Fault::Cut { way: Way::Request, at, how: Cut::Close })
        },
    },
    Weather {
        word: "cut-reply",
        is: "the connection ends within its answer",
        acts: &[],
        cases: |tally, random| {
            offsets(tally.reply, random, |at| Fault::Cut { way: Way::Reply, at, how: Cut::Close })
        },
    },
    Weather {
        word: "reset-request",
        is: "the connection is reset within its request",
        acts: &[],
        cases: |tally, random| {
            offsets(tally.request, random, |at| Fault::Cut { way: Way::Request, at, how: Cut::Reset })
        },
    },
    Weather {
        word: "reset-reply",
        is: "the connection is reset within its answer",
        acts: &[],
        cases: |tally, random| {
            offsets(tally.reply, random, |at| Fault::Cut { way: Way::Reply, at, how: Cut::Reset })
        },
    },
    Weather {
        word: "flip-request",
        is: "a bit of its request is turned over",
        acts: FEW,
        cases: |tally, random| offsets(tally.request, random, |at| Fault::Flip { way: Way::Request, at }),
    },
    Weather {
        word: "flip-reply",
        is: "a bit of its answer is turned over",
        acts: FEW,
        cases: |tally, random| offsets(tally.reply, random, |at| Fault::Flip { way: Way::Reply, at }),
    },
    Weather {
        word: "twice-request",
        is: "a piece of its request arrives twice",
        acts: FEW,
        cases: |tally, _| ends(tally.request, |at| Fault::Twice { way: Way::Request, at }),
    },
    Weather {
        word: "twice-reply",
        is: "a piece of its answer arrives twice",
        acts: FEW,
        cases: |tally, _| ends(tally.reply, |at| Fault::Twice { way: Way::Reply, at }),
    },
    Weather {
        word: "half-open-request",
        is: "its connection is dead and does not say so",
        acts: FEW,
        cases: |tally, _| ends(tally.request, |at| Fault::Hold { way: Way::Request, at }),
    },
    Weather {
        word: "half-open-reply",
        is: "its connection dies within the answer and does not say so",
        acts: FEW,
        cases: |tally, _| ends(tally.reply, |at| Fault::Hold { way: Way::Reply, at }),
    },
    Weather {
        word: "silence",
        is: "the network swallows everything",
        acts: FEW,
        cases: |_, _| vec![Fault::Silence],
    },
    Weather {
        word: "refused",
        is: "every connection ends as soon as it is made",
        acts: &["open", "login", "find", "sign", "generate"],
        cases: |_, _| vec![Fault::Refuse],
    },
    Weather {
        word: "impostor",
        is: "something else answers in the server's place",
        acts: FEW,
        cases: |_, random| impostors(random),
    },
];

/// One case for each offset, or for a sample of them.
fn offsets(bytes: u64, random: &mut Seeded, fault: impl Fn(u64) -> Fault) -> Vec<Fault> {
    if bytes <= OFFSETS {
        return (0..bytes).map(fault).collect();
    }
    // Where lengths and headers are, the end, and others between.
    let mut places: Vec<u64> = (0..6).chain([bytes / 2, bytes - 1]).collect();
    while (places.len() as u64) < OFFSETS {
        let place = random.number() % bytes;
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places.into_iter().map(fault).collect()
}

/// A case for the first byte and one for a byte in the middle.
fn ends(bytes: u64, fault: impl Fn(u64) -> Fault) -> Vec<Fault> {
    if bytes == 0 { Vec::new() } else { [0, bytes / 2].map(fault).to_vec() }
}

fn impostors(random: &mut Seeded) -> Vec<Fault> {
    let answers: [Vec<u8>; 6] = [
        vec![0; 64],
        vec![0xff; 64],
        b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n".to_vec(),
        // A fatal alert of TLS: handshake_failure (RFC 8446, 6.2).
        vec![0x15, 3, 3, 0, 2, 2, 0x28],
        // A handshake record whose message has the greatest length.
        [&[0x16, 3, 3, 0x3f, 0xff, 2, 0xff, 0xff, 0xff][..], &[0x41; 0x3ffb]].concat(),
        random.bytes(4096),
    ];
    answers.into_iter().map(Fault::Impostor).collect()
}

/// Each call in each bad weather that it meets.
pub fn checks() -> Vec<Check> {
    let pairs = WEATHER.iter().flat_map(|weather| ACTS.iter().map(move |act| (weather, act)));
    let meets = |weather: &Weather, act: &Act| weather.acts.is_empty() || weather.acts.contains(&act.word);
    let faulty = pairs.filter(|(weather, act)| meets(weather, act)).map(|(weather, act)| {
        let (id, title) = (
            format!("network.{}-{}", act.word, weather.word),
            format!("{} ends in time, is not wrong and works again, while {}", act.function, weather.is),
        );
        marked(act, Check::case(id, Stage::Token, CLAUSE, title, |bench| endure(bench, act, weather.cases)))
    });
    let slow = ACTS.iter().map(|act| {
        let id = format!("network.{}-slow", act.word);
        let title = format!("{} works while each piece takes 200 ms, and byte by byte", act.function);
        marked(act, Check::case(id, Stage::Token, CLAUSE, title, |bench| stay_patient(bench, act)))
    });
    faulty.chain(slow).collect()
}

fn marked(act: &Act, check: Check) -> Check {
    let check = check.high().network().alone().patience(PATIENCE);
    match act.effect {
        Effect::TokenObjects => check.token_objects(),
        Effect::Nothing | Effect::SessionObjects | Effect::Pins | Effect::Lockout => check.session_objects(),
    }
}

/// A call that is made again and again, and what it takes to go on after trouble.
struct Trial<'b> {
    bench: &'b Bench,
    desk: &'b Desk,
    act: &'static Act,
    ready: Ready<'b>,
    number: u32,
}

impl<'b> Trial<'b> {
    /// While the network is good.
    fn new(bench: &'b Bench, act: &'static Act) -> Result<Self, Stop> {
        let desk = bench.desk()?;
        desk.heal()?;
        let ready = match (act.set_up)(bench) {
            Ok(ready) => ready,
            Err(Stop::NotOffered) => return Err(Stop::NotOffered),
            // An earlier check may have left the module in trouble, and has told of it.
            Err(_) => {
                bench.reset(Stage::Loaded);
                bench.prepare(Stage::Token)?;
                (act.set_up)(bench)?
            }
        };
        Ok(Self { bench, desk, act, ready, number: 0 })
    }

    /// What one call says over a good network.
    fn traffic(&mut self) -> Result<Tally, Stop> {
        self.settle(Told::Done, None)?;
        self.desk.heal()?;
        self.call().map_err(|trouble| lost("CKR_OK over a good network", trouble))?;
        let tally = self.desk.tally()?;
        self.conclude(Told::Done).map_err(|trouble| lost("CKR_OK over a good network", trouble))?;
        Ok(tally)
    }

    fn call(&mut self) -> Result<(), Trouble> {
        self.number += 1;
        (self.ready.make)(self.number)
    }

    fn conclude(&self, told: Told) -> Result<(), Trouble> {
        (self.act.afterwards)(&self.ready.session, self.number, told)
    }

    /// Makes the call in bad weather, then sees that it works in good weather.
    fn meet(&mut self, fault: Fault) -> Result<Told, Stop> {
        let (limit, weather) = (self.desk.limit, describe(&fault));
        self.desk.set(fault)?;
        let since = Instant::now();
        let came = self.call();
        let took = since.elapsed();
        self.desk.heal()?;
        if took > limit {
            let expected = format!("an end within {} s (--network-limit)", limit.as_secs());
            return Err(Stop::fail(expected, format!("it took {:.1} s {weather}", took.as_secs_f32())));
        }
        let told = match came {
            Ok(()) => Told::Done,
            Err(Trouble::Lost(_)) => Told::Refused,
            Err(trouble @ (Trouble::Odd(_) | Trouble::Wrong(_))) => {
                let expected = "CKR_OK, or a code that says that the token cannot be reached";
                return Err(told_of(lost(expected, trouble), &weather));
            }
        };
        self.settle(told, Some(self.number)).map_err(|stop| told_of(stop, &weather))?;
        Ok(told)
    }

    /// Sees that the call works again, in its session unless that is gone; and what became of the call before.
    fn settle(&mut self, told: Told, before: Option<u32>) -> Verdict {
        let deadline = Instant::now() + RECOVERY;
        let mut pending = before;
        loop {
            let trouble = match self.works(told, &mut pending) {
                Ok(()) => return Ok(()),
                Err(Trouble::Wrong(stop)) => return Err(stop),
                Err(trouble) => trouble,
            };
            if self.is_gone() {
                self.begin_again()?;
            } else if Instant::now() > deadline {
                self.begin_again()?;
                let expected =
                    "a session that C_GetSessionInfo still shows works again when the network does";
                return Err(lost(expected, trouble));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn works(&mut self, told: Told, before: &mut Option<u32>) -> Result<(), Trouble> {
        if let Some(number) = *before {
            (self.act.afterwards)(&self.ready.session, number, told)?;
            *before = None;
        }
        let came = self.call();
        let told = if came.is_ok() { Told::Done } else { Told::Refused };
        if let Err(trouble) = self.conclude(told) {
            *before = Some(self.number).filter(|_| came.is_err());
            return Err(trouble);
        }
        came
    }

    /// Whether the module says that the session is over.
    fn is_gone(&self) -> bool {
        const GONE: &[CK_RV] = &[CKR_SESSION_HANDLE_INVALID, CKR_SESSION_CLOSED, CKR_DEVICE_REMOVED];
        let mut info = CK_SESSION_INFO::default();
        let rv = self.ready.session.call(F::C_GetSessionInfo, &[Arg::of_mut(&mut info)]);
        GONE.contains(&rv.code) || (rv.was(CKR_OK) && info.state != CKS_RW_USER_FUNCTIONS)
    }

    /// A new session, and a new login.
    fn begin_again(&mut self) -> Verdict {
        self.bench.reset(Stage::Token);
        let deadline = Instant::now() + RECOVERY;
        loop {
            match (self.act.set_up)(self.bench) {
                Ok(ready) => {
                    self.ready = ready;
                    return Ok(());
                }
                Err(Stop::Fail { seen, .. }) if Instant::now() > deadline => {
                    let expected = "new sessions when the network is good again, without C_Finalize";
                    return Err(Stop::graded(Severity::Medium, expected, seen));
                }
                Err(Stop::Fail { .. }) => std::thread::sleep(Duration::from_millis(100)),
                Err(other) => return Err(other),
            }
        }
    }
}

/// A trouble as a failure.
fn lost(expected: &str, trouble: Trouble) -> Stop {
    match trouble {
        Trouble::Lost(rv) => Stop::graded(Severity::Medium, expected, rv.to_string()),
        Trouble::Odd(rv) => Stop::graded(Severity::Low, expected, rv.to_string()),
        Trouble::Wrong(stop) => stop,
    }
}

/// A failure that names the weather.
fn told_of(stop: Stop, weather: &str) -> Stop {
    match stop {
        Stop::Fail { expected, seen, grade } => {
            Stop::Fail { expected, seen: format!("{seen}, {weather}"), grade }
        }
        Stop::Skipped(_) | Stop::NotOffered => stop,
    }
}

fn describe(fault: &Fault) -> String {
    let of = |way: Way| match way {
        Way::Request => "from",
        Way::Reply => "to",
    };
    match fault {
        Fault::Nothing => "over a good network".to_owned(),
        Fault::Slow { piece, pause } => {
            format!("with {} ms for every {piece} bytes", pause.as_millis())
        }
        Fault::Cut { way, at, how: Cut::Close } => {
            format!("with the connection closed before byte {at} {} the module", of(*way))
        }
        Fault::Cut { way, at, how: Cut::Reset } => {
            format!("with the connection reset before byte {at} {} the module", of(*way))
        }
        Fault::Hold { way, at } => {
            format!("with the connection silent before byte {at} {} the module", of(*way))
        }
        Fault::Flip { way, at } => format!("with a bit of byte {at} {} the module turned over", of(*way)),
        Fault::Twice { way, at } => format!("with byte {at} {} the module arriving twice", of(*way)),
        Fault::Refuse => "with every connection refused".to_owned(),
        Fault::Silence => "with nothing passing".to_owned(),
        Fault::Impostor(answer) => {
            let shown: Vec<u8> = answer.iter().copied().take(16).collect();
            format!("with another server that answers {}…", crate::trace::hex_of(&shown))
        }
    }
}

/// Makes a call in each case of bad weather.
fn endure(bench: &Bench, act: &'static Act, cases: fn(&Tally, &mut Seeded) -> Vec<Fault>) -> Verdict {
    let mut trial = Trial::new(bench, act)?;
    let traffic = trial.traffic()?;
    if traffic.request == 0 {
        // The module answers by itself.
        return Err(Stop::NotOffered);
    }
    let cases = cases(&traffic, &mut bench.random());
    let since = Instant::now();
    for (place, fault) in cases.into_iter().enumerate() {
        if place > 1 && since.elapsed() > BUDGET {
            break;
        }
        trial.meet(fault)?;
    }
    Ok(())
}

/// Makes a call over a slow network, where it works.
fn stay_patient(bench: &Bench, act: &'static Act) -> Verdict {
    let mut trial = Trial::new(bench, act)?;
    if trial.traffic()?.request == 0 {
        return Err(Stop::NotOffered);
    }
    let far = Fault::Slow { piece: usize::MAX, pause: Duration::from_millis(200) };
    let thin = Fault::Slow { piece: 1, pause: Duration::from_millis(1) };
    for fault in [far, thin] {
        let weather = describe(&fault);
        if trial.meet(fault)? == Told::Refused {
            let seen = format!("a refusal, {weather}");
            return Err(Stop::graded(Severity::Medium, "CKR_OK, if later", seen));
        }
    }
    Ok(())
}
