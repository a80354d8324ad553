//! Starts everybody, asks each in turn for one short measurement after another, and has the report written.
//!
//! Within a round the targets take turns, and each round begins with another one: what disturbs the machine for
//! a while disturbs all of them alike, and ratios are taken within a round.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use xtask::{
    Outcome, packages,
    server::Server,
    shell::{Echo, Shell, heading, note},
    token::Token,
    workspace::{self, Artefacts},
};

use crate::{
    floor,
    histogram::Histogram,
    options::Options,
    plan::{Cell, Target},
    process::tree_cpu,
    report,
};

/// How long each measurement runs, uncounted, before the first round.
const WARM_UP: Duration = Duration::from_millis(50);

/// What was measured of one target in one cell, over all rounds.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Operations per second, one number per round.
    pub rates: Vec<f64>,
    /// The latencies of all rounds.
    pub latencies: Histogram,
    /// CPU time of the client's process.
    pub client: Duration,
    /// CPU time of the server's processes; nothing for a module in process.
    pub server: Duration,
}

/// All rows, in the order of the report.
pub type Rows = BTreeMap<(Cell, Target), Row>;

/// Measures what the options ask for.
///
/// # Errors
/// Somebody cannot be started or refuses an operation.
pub fn run(options: &Options) -> Outcome {
    packages::install(&[packages::DEMO, packages::SOFTHSM])?;
    let folder = workspace::target().join("bench");
    heading("Starting");
    let mut contenders = Vec::new();
    for target in &options.targets {
        note(target.title());
        contenders.push(Contender::start(*target, &folder.join(target.name()))?);
    }
    let cells = cells(options);
    let seconds = (options.slice.as_secs_f32() * options.rounds as f32 + WARM_UP.as_secs_f32())
        * (cells.len() * contenders.len()) as f32;
    heading(&format!("Measuring for about {seconds:.0} s; leave the machine alone"));
    note(&format!("its load before: {}", fs::read_to_string("/proc/loadavg")?.trim_end()));
    let mut rows = Rows::new();
    for cell in cells {
        measure(&mut contenders, cell, options, &mut rows)?;
        report::progress(cell, &rows);
    }
    drop(contenders);
    report::write(&folder, options, &rows)
}

fn cells(options: &Options) -> Vec<Cell> {
    let mut cells = Vec::new();
    for &algorithm in &options.algorithms {
        for &keys in &options.keys {
            cells.extend(options.threads.iter().map(|&threads| Cell { algorithm, keys, threads }));
        }
    }
    cells
}

fn measure(contenders: &mut [Contender], cell: Cell, options: &Options, rows: &mut Rows) -> Outcome {
    for contender in contenders.iter_mut() {
        contender.ask(cell, WARM_UP)?;
    }
    for _ in 0..options.rounds {
        contenders.rotate_left(1);
        for contender in contenders.iter_mut() {
            let row = rows.entry((cell, contender.target)).or_default();
            let before = contender.cpu();
            let (elapsed, latencies) = contender.ask(cell, options.slice)?;
            let after = contender.cpu();
            row.rates.push(latencies.count() as f64 / elapsed.as_secs_f64());
            row.latencies.merge(&latencies);
            row.client += after.0.saturating_sub(before.0);
            row.server += after.1.saturating_sub(before.1);
        }
    }
    Ok(())
}

/// A target, started: its client and, if it has one, its server.
struct Contender {
    target: Target,
    worker: Worker,
    server: Running,
}

/// What stands behind a worker.
enum Running {
    Nothing,
    Strongroom(Server),
    Floor(Worker),
}

impl Contender {
    fn start(target: Target, folder: &Path) -> Outcome<Self> {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir_all(folder)?;
        let (mut worker, server) = match target {
            Target::Process | Target::Thread => strongroom(target, folder)?,
            Target::SoftHsm => (softhsm(folder)?, Running::Nothing),
            Target::Floor => bare(folder)?,
        };
        match worker.hear()?.as_str() {
            "ready" => Ok(Self { target, worker, server }),
            other => Err(format!("{}: {other}", target.title()).into()),
        }
    }

    fn ask(&mut self, cell: Cell, slice: Duration) -> Outcome<(Duration, Histogram)> {
        let Cell { algorithm, keys, threads } = cell;
        let question = format!("{} {} {threads} {}", algorithm.name(), keys.name(), slice.as_millis());
        let answer =
            self.worker.ask(&question).map_err(|error| format!("{}: {error}", self.target.title()))?;
        let parsed = answer.split_once(' ').and_then(|(elapsed, histogram)| {
            Some((Duration::from_nanos(elapsed.parse().ok()?), Histogram::parse(histogram)?))
        });
        Ok(parsed.ok_or_else(|| format!("{}: {question} was answered by {answer}", self.target.title()))?)
    }

    /// CPU time of client and server so far.
    fn cpu(&self) -> (Duration, Duration) {
        let server = match &self.server {
            Running::Nothing => None,
            Running::Strongroom(server) => server.id(),
            Running::Floor(server) => Some(server.child.id()),
        };
        (tree_cpu(self.worker.child.id()), server.map(tree_cpu).unwrap_or_default())
    }
}

/// A process of ours that answers lines with lines. Dropping it ends it.
pub struct Worker {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(arguments: &[&str], variable: Option<(&str, &Path)>) -> Outcome<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.args(arguments).envs(variable).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let questions = child.stdin.take().ok_or("no standard input")?;
        let answers = BufReader::new(child.stdout.take().ok_or("no standard output")?);
        Ok(Self { child, questions, answers })
    }

    /// The id of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Says a line, and hears the answer.
    ///
    /// # Errors
    /// It has ended.
    pub fn ask(&mut self, question: &str) -> Outcome<String> {
        writeln!(self.questions, "{question}")?;
        self.hear()
    }

    /// Hears a line.
    ///
    /// # Errors
    /// It has ended.
    pub fn hear(&mut self) -> Outcome<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        if line.is_empty() { Err("it ended without an answer".into()) } else { Ok(line.trim_end().into()) }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("a worker could not be ended: {error}");
        }
    }
}

fn strongroom(target: Target, folder: &Path) -> Outcome<(Worker, Running)> {
    let artefacts = Artefacts::within(workspace::target().join("release"))?;
    let shell = Shell::new(Echo::Nothing);
    let mut server = Server::create(&shell, &artefacts, &folder.join("state"))?;
    isolate(&server.config(), target)?;
    server.start()?;
    let config = server.enrol("bench", "bench")?;
    let shell = shell.with("STRONGROOM_CONFIG", &config.display().to_string());
    Token { shell, module: artefacts.module(), label: "bench".into() }.initialise()?;
    let worker = Worker::start(&["worker", &artefacts.module()], Some(("STRONGROOM_CONFIG", &config)))?;
    Ok((worker, Running::Strongroom(server)))
}

/// Writes `isolation = …` into the server's configuration.
fn isolate(config: &Path, target: Target) -> Outcome {
    let text = fs::read_to_string(config)?;
    let (wanted, mut found) = (format!("isolation = \"{}\"", target.name()), false);
    let mut lines: Vec<&str> = text.lines().collect();
    for line in &mut lines {
        if line.starts_with("isolation") {
            (*line, found) = (&wanted, true);
        }
    }
    if !found {
        lines.insert(0, &wanted);
    }
    Ok(fs::write(config, lines.join("\n") + "\n")?)
}

fn softhsm(folder: &Path) -> Outcome<Worker> {
    let config = folder.join("softhsm2.conf");
    fs::create_dir(folder.join("tokens"))?;
    fs::write(&config, format!("directories.tokendir = {}/tokens\nlog.level = ERROR\n", folder.display()))?;
    let module: PathBuf = packages::library("softhsm/libsofthsm2.so").ok_or("softhsm2 is not installed")?;
    let module = module.display().to_string();
    let shell = Shell::new(Echo::Nothing).with("SOFTHSM2_CONF", &config.display().to_string());
    Token { shell, module: module.clone(), label: "bench".into() }.initialise()?;
    Worker::start(&["worker", &module], Some(("SOFTHSM2_CONF", &config)))
}

fn bare(folder: &Path) -> Outcome<(Worker, Running)> {
    floor::certify(folder)?;
    let shown = folder.display().to_string();
    let mut server = Worker::start(&["floor-server", &shown], None)?;
    let line = server.hear()?;
    let port = line.strip_prefix("listening ").ok_or_else(|| format!("the floor says {line}"))?;
    let worker = Worker::start(&["floor-worker", &shown, port], None)?;
    Ok((worker, Running::Floor(server)))
}
