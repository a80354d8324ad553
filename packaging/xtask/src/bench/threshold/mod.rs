//! `cargo xtask bench --threshold`: what a signature costs whose key three real nodes share, beside the bare protocol.
//!
//! All nodes are on this machine and share its cores, so rates are those of one machine, not of three. CPU time per
//! signature, over all processes of all nodes, is what holds on a noisy machine. What of it is not the protocol's own is
//! ours: the transport (fronts, and the vaults' threads that read from them), and beside it what each vault checks,
//! records and seals.

pub mod bare;

use std::{fs, time::Duration};

use strongroom_server::crypto::threshold::SchemeId;
use xtask::{
    Outcome,
    cluster::Nodes,
    packages,
    shell::{Echo, Shell, heading, note},
    workspace::{self, Artefacts},
};

use crate::{
    driver::Worker,
    histogram::Histogram,
    plan::{Algorithm, Keys},
    process::{threads_cpu, tree_cpu},
};

/// What `--help` prints.
pub const USAGE: &str = "\
cargo xtask bench --threshold [--quick]
                  three nodes, 2-of-3 keys of each scheme, at 1, 4 and 16 threads";

/// How many shares make a signature.
pub const THRESHOLD: u8 = 2;
/// How many nodes hold a share.
pub const PARTIES: u8 = 3;

/// What is measured, and its aims: CPU in milliseconds per signature, signatures a second, p50 in milliseconds.
struct Aim {
    algorithm: Algorithm,
    /// As `hsmctl key generate --kind` names it.
    kind: &'static str,
    cpu: f64,
    rate: f64,
    p50: f64,
}

const AIMS: &[Aim] = &[
    Aim { algorithm: Algorithm::Secp256k1, kind: "EC:secp256k1", cpu: 9.5, rate: 150.0, p50: 8.0 },
    Aim { algorithm: Algorithm::P256, kind: "EC:prime256v1", cpu: 12.5, rate: 120.0, p50: 11.0 },
    Aim { algorithm: Algorithm::Ed25519, kind: "EC:edwards25519", cpu: 0.9, rate: 1500.0, p50: 2.0 },
    Aim { algorithm: Algorithm::Bip340, kind: "BIP340", cpu: 1.3, rate: 1000.0, p50: 2.5 },
];
/// At most this part of the CPU time may be the transport's.
const TRANSPORT: f64 = 0.3;
/// The threads that carry frames and do nothing else.
const CARRIERS: [&str; 2] = ["front", "vault lane"];

const THREADS: [usize; 3] = [1, 4, 16];
/// How long each measurement runs, uncounted, before the first that counts.
const WARM_UP: Duration = Duration::from_millis(300);

/// The scheme that makes signatures of this kind.
pub fn scheme_of(algorithm: Algorithm) -> Option<SchemeId> {
    match algorithm {
        Algorithm::Secp256k1 => Some(SchemeId::EcdsaSecp256k1),
        Algorithm::P256 => Some(SchemeId::EcdsaP256),
        Algorithm::Ed25519 => Some(SchemeId::Ed25519),
        Algorithm::Bip340 => Some(SchemeId::Bip340),
        Algorithm::Rsa2048 | Algorithm::Hmac => None,
    }
}

/// One line of the table.
struct Line {
    threads: usize,
    rate: f64,
    p50: f64,
    p99: f64,
    /// Milliseconds of all nodes per signature.
    nodes: f64,
    /// Of these, the transport's.
    transport: f64,
    /// Milliseconds of the client per signature.
    client: f64,
}

/// Measures and prints.
///
/// # Errors
/// A node cannot be started, or an operation fails.
pub fn run(slice: Duration) -> Outcome {
    packages::install(&[packages::DEMO])?;
    let folder = workspace::target().join("bench").join("threshold");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    heading("Starting three nodes");
    let artefacts = Artefacts::within(workspace::target().join("release"))?;
    let nodes = Nodes::start(&Shell::new(Echo::Nothing), &artefacts, &folder, &["a", "b", "c"])?;
    nodes.join()?;
    let configs = nodes.enrol("bench", "bench")?;
    nodes.initialise(&configs, "bench")?;
    let config = configs.first().ok_or("no client")?;
    for aim in AIMS {
        note(&format!("a {THRESHOLD}-of-{PARTIES} key: {}", aim.kind));
        let client = config.parent().unwrap_or(config);
        nodes.generate(client, aim.kind, &label(aim.algorithm), "", THRESHOLD)?;
    }
    let mut worker = Worker::start(&["worker", &artefacts.module()], Some(("STRONGROOM_CONFIG", config)))?;
    let mut bare = Worker::start(&["bare"], None)?;
    for process in [&mut worker, &mut bare] {
        match process.hear()?.as_str() {
            "ready" => {}
            other => return Err(other.into()),
        }
    }
    heading("Measuring; leave the machine alone");
    note(&format!("its load before: {}", fs::read_to_string("/proc/loadavg")?.trim_end()));
    for aim in AIMS {
        let alone = ask_bare(&mut bare, aim.algorithm, slice)?;
        let lines = THREADS.iter().map(|threads| ask(&nodes, &mut worker, aim.algorithm, *threads, slice));
        print(aim, alone, &lines.collect::<Outcome<Vec<_>>>()?);
    }
    Ok(())
}

/// The label of the key that these nodes share.
pub fn label(algorithm: Algorithm) -> String {
    format!("bench {} {}", algorithm.name(), Keys::Shared.name())
}

/// Milliseconds of CPU per signature of the bare protocol.
fn ask_bare(bare: &mut Worker, algorithm: Algorithm, slice: Duration) -> Outcome<f64> {
    let answer = bare.ask(&format!("{} {}", algorithm.name(), slice.as_millis()))?;
    let (count, nanos) = answer.split_once(' ').ok_or("the bare protocol gave no answer")?;
    Ok(nanos.parse::<f64>()? / 1e6 / count.parse::<f64>()?.max(1.0))
}

fn ask(
    nodes: &Nodes,
    worker: &mut Worker,
    algorithm: Algorithm,
    threads: usize,
    slice: Duration,
) -> Outcome<Line> {
    let question = |slice: Duration| {
        format!("{} {} {threads} {}", algorithm.name(), Keys::Shared.name(), slice.as_millis())
    };
    worker.ask(&question(WARM_UP))?;
    let cpu = |worker: &Worker| {
        let sum = |spent: fn(u32) -> Duration| {
            nodes.servers.iter().filter_map(|server| server.id()).map(spent).sum::<Duration>()
        };
        [sum(tree_cpu), sum(|server| threads_cpu(server, &CARRIERS)), tree_cpu(worker.id())]
    };
    let before = cpu(worker);
    let answer = worker.ask(&question(slice))?;
    let after = cpu(worker);
    let (nanos, histogram) = answer.split_once(' ').ok_or_else(|| format!("the client says {answer}"))?;
    let latencies = Histogram::parse(histogram).ok_or("the client's answer cannot be read")?;
    let count = latencies.count().max(1) as f64;
    let spent = before.into_iter().zip(after).map(|(before, after)| after.saturating_sub(before));
    let milliseconds: Vec<f64> = spent.map(|spent| spent.as_secs_f64() * 1e3 / count).collect();
    let [nodes, transport, client] = milliseconds[..] else { return Err("three figures".into()) };
    Ok(Line {
        threads,
        rate: count / (nanos.parse::<f64>()? / 1e9),
        p50: latencies.quantile(0.5) as f64 / 1e6,
        p99: latencies.quantile(0.99) as f64 / 1e6,
        nodes,
        transport,
        client,
    })
}

fn print(aim: &Aim, bare: f64, lines: &[Line]) {
    println!(
        "\n  {}, {THRESHOLD} of {PARTIES}; the bare protocol: {bare:.2} ms of CPU",
        aim.algorithm.name()
    );
    println!(
        "    {:>7}{:>10}{:>10}{:>10}{:>14}{:>14}{:>11}{:>8}",
        "threads", "sign/s", "p50 ms", "p99 ms", "nodes ms CPU", "client ms CPU", "transport", "ours"
    );
    for line in lines {
        println!(
            "    {:>7}{:>10.0}{:>10.2}{:>10.2}{:>14.2}{:>14.2}{:>10.0}%{:>7.0}%",
            line.threads,
            line.rate,
            line.p50,
            line.p99,
            line.nodes,
            line.client,
            100.0 * transport(line),
            100.0 * ours(line, bare)
        );
    }
    let fastest = lines.iter().map(|line| line.rate).fold(0.0, f64::max);
    // Under load nobody waits for wake-ups, and the clock's ticks count the work.
    if let (Some(alone), Some(busy)) = (lines.first(), lines.last()) {
        verdict("CPU per signature, ms", busy.nodes, "≤", aim.cpu);
        verdict("of it transport", transport(busy), "≤", TRANSPORT);
        verdict("signatures a second", fastest, "≥", aim.rate);
        verdict("p50 at one thread, ms", alone.p50, "≤", aim.p50);
    }
}

/// What part of the nodes' CPU time the transport takes.
fn transport(line: &Line) -> f64 {
    line.transport / line.nodes.max(f64::MIN_POSITIVE)
}

/// What part of the nodes' CPU time the bare protocol does not take.
fn ours(line: &Line, bare: f64) -> f64 {
    (1.0 - bare / line.nodes.max(f64::MIN_POSITIVE)).max(0.0)
}

fn verdict(what: &str, is: f64, sign: &str, aim: f64) {
    let met = if sign == "≤" { is <= aim } else { is >= aim };
    println!("      {what:<24}{is:>9.2}   aim {sign} {aim:<7} {}", if met { "met" } else { "missed" });
}
