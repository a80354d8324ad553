//! The command line: what to check, and which checks.

use std::ffi::CString;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Parser, Subcommand};
use cryptoki_sys::{CKF_LOGIN_REQUIRED, CKF_USER_PIN_INITIALIZED};

use crate::bench::{Leftovers, NO_USER_PIN, Pin, Target, Tries};
use crate::check::{Check, Outcome, all, by_id};
use crate::checks::lifetimes::Question;
use crate::files;
use crate::manifest;
use crate::marks::{Effect, Tag};
use crate::profiles::PROFILES;
use crate::proxy::desk;
use crate::report::{LeftOut, Row};
use crate::survey::Survey;

/// The variable with the user's PIN.
const USER_PIN: &str = "P11_CONFORMANCE_PIN";

/// The variable with the SO's PIN.
const SO_PIN: &str = "P11_CONFORMANCE_SO_PIN";

/// Bytes of a file with a PIN.
const LONGEST_PIN: u64 = 4096;
/// Seconds of a day.
const DAY: u64 = 86_400;
/// What some editors put before a text: it would be taken for a part of the PIN.
const BYTE_ORDER_MARK: &[u8] = &[0xef, 0xbb, 0xbf];

/// Checks a PKCS#11 module against the clauses of the standard.
///
/// Use a token that you can lose: it makes keys and changes PINs. `--read-only` is for a token that you cannot.
///
/// Exit code 0: no findings in the checks that were made. 1: findings. 2: no check could be made, or the run is incomplete,
/// also for want of the user's PIN on a token that has one. An empty `--pin-file` says that none is meant.
#[derive(Parser)]
#[command(
    name = "p11-conformance",
    version,
    subcommand_negates_reqs = true,
    args_conflicts_with_subcommands = true
)]
pub struct Options {
    /// Another task than to check
    #[command(subcommand)]
    pub task: Option<Task>,
    /// The module, a shared library
    #[arg(long, value_name = "FILE", required_unless_present = "list")]
    pub module: Option<PathBuf>,
    /// The token's label; without it, the one token that can be written to, or the first
    #[arg(long, value_name = "LABEL")]
    pub token_label: Option<String>,
    /// A file with the user's PIN, 4 KiB at most (an empty one: no PIN); without it, the environment variable P11_CONFORMANCE_PIN
    #[arg(long, value_name = "FILE")]
    pub pin_file: Option<PathBuf>,
    /// A file with the SO's PIN; without it, the environment variable P11_CONFORMANCE_SO_PIN
    #[arg(long, value_name = "FILE")]
    pub so_pin_file: Option<PathBuf>,
    /// A string for `C_Initialize`, in `pReserved`, for modules that ask for one, such as NSS:
    /// "configdir='sql:DIR' certPrefix='' keyPrefix='' secmod='secmod.db' flags="
    #[arg(long, value_name = "TEXT", value_parser = |text: &str| CString::new(text))]
    pub init_string: Option<CString>,
    /// Print the checks and make none
    #[arg(long)]
    pub list: bool,
    /// Make only this check; may be repeated
    #[arg(long, value_name = "ID")]
    pub check: Vec<String>,
    /// Make only the checks of this chapter or group of abuse cases (a letter, its word unless a chapter has it too, as
    /// `sessions` does, or `attacks` for all of them); may be repeated
    #[arg(long, value_name = "GROUP")]
    pub group: Vec<String>,
    /// Make only checks that write nothing to the token (session objects at most) and cost no try of a PIN
    #[arg(long)]
    pub read_only: bool,
    /// Make also the checks that lock a PIN or the token
    #[arg(long, conflicts_with = "read_only")]
    pub allow_lockout: bool,
    /// Do not clear the token at the end of token objects labelled "p11-conformance: to be destroyed". A check that
    /// destroys what it made does so all the same
    #[arg(long)]
    pub keep_objects: bool,
    /// Where random data comes from; the report names the seed of a run without one
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
    /// How many processes make checks side by side, if the token bears that they log in at the same time (SoftHSM2
    /// does not)
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = up_to::<256, usize>)]
    pub jobs: usize,
    /// Make only the checks about this profile: baseline, extended, authentication-token,
    /// public-certificates, complete, hkdf-tls; may be
    /// repeated
    #[arg(long, value_name = "PROFILE")]
    pub profile: Vec<String>,
    /// Failures that are accepted, with a reason and a date (TOML; see README)
    #[arg(long, value_name = "FILE")]
    pub waivers: Option<PathBuf>,
    /// Write the report as JSON (report.schema.json describes it)
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the report as a page for a browser
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write the results as JUnit XML
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Write the findings as SARIF 2.1.0
    #[arg(long, value_name = "FILE")]
    pub sarif: Option<PathBuf>,
    /// Write what was checked: the hashes of the module and of the JSON report, the token, the options, the seed
    #[arg(long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,
    /// Sign the manifest with this Ed25519 key (PEM, PKCS#8); the signature is beside it, in FILE.sig
    #[arg(long, value_name = "KEY", requires = "manifest")]
    pub sign_with: Option<PathBuf>,
    /// Measure also how fast the module is, after the checks, in 300 seconds at most
    #[arg(long)]
    pub performance: bool,
    /// Make no checks: learn what the module allows with the attributes of AES keys, print that model, write it here as
    /// JSON, and search it for paths to a sensitive key in clear (writes session objects only)
    #[arg(long, value_name = "FILE", conflicts_with = "list")]
    pub model: Option<PathBuf>,
    /// Seconds after which a check counts as hanging; those that make many keys, have thousands of vectors or wait for a
    /// server have 30 to 300 at least. Starting the module and clearing the token may take three times as long
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = up_to::<DAY, u64>)]
    pub timeout: u64,
    /// Seconds after which the run ends with what is known so far, as an interrupted one does
    #[arg(long, value_name = "SECONDS", default_value_t = 7200, value_parser = up_to::<{ 7 * DAY }, u64>)]
    pub run_timeout: u64,
    /// Memory that the module may have, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 4096, value_parser = up_to::<{ 16 << 20 }, u64>)]
    pub memory: u64,
    /// Make also the checks of the network (group I): a proxy listens on LISTEN, an address of this machine to which the
    /// module's configuration points, and leads to UPSTREAM, where the server is
    #[arg(long, value_name = "LISTEN=UPSTREAM", value_parser = network)]
    pub network: Option<Network>,
    /// Seconds that a call may take when the network is bad, which is more than the module's own deadline
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = up_to::<DAY, u64>, requires = "network")]
    pub network_limit: u64,
    /// A shell command that restarts the server and ends when it is up again
    #[arg(long, value_name = "COMMAND", requires = "network")]
    pub restart_command: Option<String>,
    /// An environment variable with which the module shows a certificate that the server must refuse; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable, requires = "network")]
    pub bad_client: Vec<(String, String)>,
    /// An environment variable with which the module must refuse the server's certificate; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable, requires = "network")]
    pub bad_server: Vec<(String, String)>,
    /// Make the checks that the input names, in this process
    #[arg(long, hide = true)]
    pub child: bool,
    /// See whether the token can be checked, in this process
    #[arg(long, hide = true)]
    pub preflight: bool,
    /// Destroy what checks left, in this process
    #[arg(long, hide = true)]
    pub sweep: bool,
    /// See whether the module still starts and shows the token, in this process
    #[arg(long, hide = true)]
    pub look: bool,
    /// Measure how fast the module is, in this process
    #[arg(long, hide = true)]
    pub measure: bool,
    /// See how far a module gets that is configured otherwise, in this process
    #[arg(long, hide = true)]
    pub probe: bool,
    /// Tell what a process sees that has not loaded the module before, in this process
    #[arg(long, hide = true)]
    pub question: Option<Question>,
    /// The parent's seed
    #[arg(long, hide = true)]
    pub child_seed: Option<u64>,
    /// Where this process writes its calls
    #[arg(long, hide = true)]
    pub calls: Option<PathBuf>,
}

/// Where the proxy listens, and where it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The server's address.
    pub upstream: SocketAddr,
}

/// What else the program does.
#[derive(Subcommand)]
pub enum Task {
    /// Compare two reports in JSON: exit code 1 if the second has findings that the first has not, 2 if one of them is
    /// incomplete and no finding is new
    Compare {
        /// The first report
        a: PathBuf,
        /// The second report
        b: PathBuf,
    },
}

impl Options {
    /// Whether a check is to be made.
    pub fn chooses(&self, check: &Check) -> bool {
        self.wants(check) && self.forbids(check).is_none()
    }

    /// What was wanted and is not made, by the reason.
    pub fn left_out(&self) -> Vec<LeftOut> {
        let mut left: Vec<LeftOut> = Vec::new();
        for why in all().filter(|check| self.wants(check)).filter_map(|check| self.forbids(check)) {
            match left.iter_mut().find(|one| one.why == why) {
                Some(one) => one.checks += 1,
                None => left.push(LeftOut { why: why.to_owned(), checks: 1 }),
            }
        }
        left
    }

    /// Why a check is not made, if an option keeps it from that or is missing.
    fn forbids(&self, check: &Check) -> Option<&'static str> {
        let is_near = self.list || self.network.is_some() || check.tag != Some(Tag::Network);
        match check.effect {
            _ if !is_near => Some("they are about the network (--network)"),
            effect if self.read_only && !effect.is_read_only() => {
                Some("they write to the token or cost a try of a PIN (--read-only)")
            }
            Effect::Lockout if !self.allow_lockout => Some("they lock a PIN or the token (--allow-lockout)"),
            _ => None,
        }
    }

    /// Whether a run is incomplete because no PIN was given to a token that asks for one. An empty file, or an empty
    /// variable, says that none is meant.
    pub fn missing_pin(&self, survey: &Survey, rows: &[Row]) -> Option<String> {
        let is_meant = self.pin_file.is_some() || std::env::var_os(USER_PIN).is_some();
        let asks = survey.flags & (CKF_LOGIN_REQUIRED | CKF_USER_PIN_INITIALIZED) != 0;
        let lacks = |row: &&Row| matches!(&row.outcome, Outcome::Skipped { why } if why == NO_USER_PIN);
        let checks = rows.iter().filter(lacks).count();
        (asks && !is_meant && checks > 0).then(|| {
            format!(
                "no user PIN was given, which {checks} checks need (--pin-file; an empty file says that none is meant)"
            )
        })
    }

    /// Whether a check is among those that were named, or none was.
    fn wants(&self, check: &Check) -> bool {
        let all = self.check.is_empty() && self.group.is_empty() && self.profile.is_empty();
        let asked = |word: &String| {
            let mut profiles = PROFILES.iter().filter(|profile| profile.word == word);
            profiles.any(|profile| profile.asks_for(check))
        };
        let named = self.check.iter().any(|id| *id == check.id);
        all || named || self.profile.iter().any(asked) || self.group.iter().any(|group| belongs(check, group))
    }

    /// Sees that every check, group and profile that was named is there: a slip of the pen leaves nothing out.
    ///
    /// # Errors
    /// A sentence about the first that is not.
    pub fn refuse_unknown_words(&self) -> Result<(), String> {
        if let Some(id) = self.check.iter().find(|id| by_id(id).is_none()) {
            return Err(format!("--check {id}: there is no such check; --list shows them all"));
        }
        let is_empty = |group: &&String| !all().any(|check| belongs(check, group));
        if let Some(group) = self.group.iter().find(is_empty) {
            return Err(format!(
                "--group {group}: no check is in it; a group is a chapter of --list (the id up to its dot) or A to I"
            ));
        }
        let is_none = |word: &&String| !PROFILES.iter().any(|profile| profile.word == word.as_str());
        if let Some(word) = self.profile.iter().find(is_none) {
            let words: Vec<&str> = PROFILES.iter().map(|profile| profile.word).collect();
            return Err(format!("--profile {word}: there is none; the profiles are {}", words.join(", ")));
        }
        Ok(())
    }

    /// Whether this process works for another one, which started it.
    pub const fn is_child(&self) -> bool {
        self.child
            || self.preflight
            || self.look
            || self.sweep
            || self.measure
            || self.probe
            || self.question.is_some()
    }

    /// The seed that was given, or one from the clock.
    pub fn seed(&self) -> u64 {
        let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        self.child_seed.or(self.seed).unwrap_or_else(clock)
    }

    /// Sees whether reports have a place, each its own, before the checks are made and not after.
    ///
    /// # Errors
    /// A sentence, when a folder does not exist, or a report would take the place of another or of what is read.
    pub fn refuse_bad_places(&self) -> Result<(), String> {
        let mut taken: Vec<(&str, PathBuf)> = self.read_files();
        for (option, file) in self.written_files() {
            if !files::folder_of(&file).is_dir() || file.is_dir() {
                return Err(format!(
                    "{}: no report can be written there; make its folder first",
                    file.display()
                ));
            }
            let place = files::place(&file);
            if let Some((other, _)) =
                taken.iter().find(|(_, known)| *known == place && files::is_kept(&place))
            {
                return Err(format!(
                    "{other} and {option} name one file, {}: give each its own",
                    place.display()
                ));
            }
            taken.push((option, place));
        }
        Ok(())
    }

    /// What is written, by its option.
    fn written_files(&self) -> Vec<(&'static str, PathBuf)> {
        let signature = self.sign_with.as_ref().and(self.manifest.as_deref()).map(manifest::with_sig);
        let files = [
            ("--json", self.json.clone()),
            ("--html", self.html.clone()),
            ("--junit", self.junit.clone()),
            ("--sarif", self.sarif.clone()),
            ("--manifest", self.manifest.clone()),
            ("--manifest (its .sig)", signature),
            ("--model", self.model.clone()),
        ];
        files.into_iter().filter_map(|(option, file)| Some((option, file?))).collect()
    }

    /// Where is read from, by its option.
    fn read_files(&self) -> Vec<(&'static str, PathBuf)> {
        let files = [
            ("--module", &self.module),
            ("--pin-file", &self.pin_file),
            ("--so-pin-file", &self.so_pin_file),
            ("--waivers", &self.waivers),
            ("--sign-with", &self.sign_with),
        ];
        let own = std::env::current_exe().ok().map(|file| ("the suite itself", files::place(&file)));
        let named =
            files.into_iter().filter_map(|(option, file)| Some((option, files::place(file.as_deref()?))));
        named.chain(own).collect()
    }

    /// What the checks are made of.
    ///
    /// # Errors
    /// A sentence, when a file of a PIN cannot be read.
    pub fn target(&self) -> Result<Target, String> {
        Ok(Target {
            module: self.module.clone().unwrap_or_default(),
            token_label: self.token_label.clone(),
            pin: pin(self.pin_file.as_deref(), USER_PIN)?,
            so_pin: pin(self.so_pin_file.as_deref(), SO_PIN)?,
            pin_from: if self.pin_file.is_some() { "--pin-file" } else { USER_PIN },
            so_pin_from: if self.so_pin_file.is_some() { "--so-pin-file" } else { SO_PIN },
            init_string: self.init_string.clone(),
            leftovers: if self.keep_objects { Leftovers::Keep } else { Leftovers::Destroy },
            most: self.read_only.then_some(Effect::SessionObjects),
            tries: if self.allow_lockout { Tries::All } else { Tries::KeepOne },
            memory: self.memory,
            seed: self.seed(),
            calls: self.calls.clone(),
            socket: self.network.and(self.calls.as_ref()).and_then(|calls| calls.parent()).map(desk::socket),
            limit: Duration::from_secs(self.network_limit),
            bad_clients: self.bad_client.clone(),
            bad_servers: self.bad_server.clone(),
        })
    }
}

/// A number of seconds, processes or MiB: with none, no check could be made, and more than `MOST` is a slip.
fn up_to<const MOST: u64, N: TryFrom<u64>>(text: &str) -> Result<N, String> {
    let number: u64 = text.parse().map_err(|_| "a whole number is needed".to_owned())?;
    let within = Some(number).filter(|number| (1..=MOST).contains(number));
    within.and_then(|number| number.try_into().ok()).ok_or_else(|| format!("it has to be from 1 to {MOST}"))
}

fn network(text: &str) -> Result<Network, String> {
    let (listen, upstream) =
        text.split_once('=').ok_or("two addresses are needed, such as 127.0.0.1:7000=10.0.0.5:7411")?;
    let address = |text: &str| {
        let mut found = text.to_socket_addrs().map_err(|error| format!("{text}: {error}"))?;
        found.next().ok_or_else(|| format!("{text} is no address"))
    };
    Ok(Network { listen: address(listen)?, upstream: address(upstream)? })
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a name and a value are needed: NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Whether a check is of a chapter or group. A word that both have is the chapter's; the group has its letter.
fn belongs(check: &Check, group: &str) -> bool {
    let is_chapter = || all().any(|check| check.group() == group);
    let is_word = |tag: Tag| group == tag.word() && !is_chapter();
    let is_tag = |tag: Tag| group == "attacks" || group == tag.letter() || is_word(tag);
    check.tag.is_some_and(is_tag) || group == check.group()
}

fn pin(file: Option<&Path>, variable: &str) -> Result<Option<Pin>, String> {
    match file {
        Some(file) => {
            let read = files::read(file, LONGEST_PIN)?;
            let line = read.trim_ascii_end();
            // A PIN that cannot be right would cost one of its few tries.
            if line.starts_with(BYTE_ORDER_MARK) || line.iter().any(|byte| matches!(byte, b'\n' | b'\r' | 0))
            {
                let text = "a PIN is one line of text, without a byte order mark and without zero bytes";
                return Err(format!("{}: {text}", file.display()));
            }
            Ok(Some(Pin::new(line.to_vec())).filter(|pin| !pin.is_empty()))
        }
        None => Ok(std::env::var(variable)
            .ok()
            .map(|pin| Pin::new(pin.into_bytes()))
            .filter(|pin| !pin.is_empty())),
    }
}
