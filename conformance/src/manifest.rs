//! What a run was made of: the module's hash, the token, the options and the seed, and the report's own hash. With a
//! key of the user's it is signed, so that a reader knows who says so.

use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::Ed25519KeyPair;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::files;
use crate::report::Document;
use crate::secrets::Secrets;
use crate::trace::hex_of;

/// Bytes of a module's file.
const LONGEST_MODULE: u64 = 1 << 30;

/// Bytes of a key's file.
const LONGEST_KEY: u64 = 1 << 16;

/// See the module's header.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// The module's file.
    pub module: String,
    /// SHA-256 of the module's file.
    pub sha256: String,
    /// The length of the module's file.
    pub bytes: u64,
    /// The command line, without the program's name and without what a PIN is in.
    pub options: Vec<String>,
    /// What random data came from: give it to `--seed`.
    pub seed: u64,
    /// When it began, in UTC.
    pub began: String,
    /// How long it took, rounded up.
    pub seconds: u64,
}

impl Manifest {
    /// The manifest of a run that begins.
    ///
    /// # Errors
    /// A sentence, when the module's file cannot be read.
    pub fn new(module: &Path, seed: u64, secrets: &Secrets) -> Result<Self, String> {
        let file = files::read(module, LONGEST_MODULE)?;
        let shown = |option: OsString| secrets.hidden(option.to_string_lossy().into_owned());
        Ok(Self {
            module: module.display().to_string(),
            sha256: hex_of(digest(&SHA256, &file).as_ref()),
            bytes: file.len() as u64,
            options: std::env::args_os().skip(1).map(shown).collect(),
            seed,
            began: utc(SystemTime::now()),
            seconds: 0,
        })
    }
}

/// The whole units of so much time that began in it: what took place took some.
pub fn rounded_up(time: Duration, unit: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(unit.as_nanos().max(1))).unwrap_or(u64::MAX)
}

/// The file that is signed.
#[derive(Serialize)]
struct Signed<'a> {
    format: &'a str,
    suite: &'a str,
    #[serde(flatten)]
    manifest: &'a Manifest,
    token: &'a str,
    serial: &'a str,
    verdict: &'a str,
    tally: &'a crate::report::Tally,
    report_sha256: String,
}

/// Writes the manifest of a report, and its signature beside it (`.sig`, 64 bytes) if there is a key.
///
/// # Errors
/// A sentence, when a file cannot be written.
pub fn write(document: &Document, file: &Path, key: Option<&Ed25519KeyPair>) -> Result<(), String> {
    let signed = Signed {
        format: "p11-conformance-manifest/2",
        suite: &document.suite,
        manifest: &document.manifest,
        token: &document.survey.token,
        serial: &document.survey.serial,
        verdict: document.verdict(),
        tally: &document.tally,
        report_sha256: hex_of(digest(&SHA256, &document.json()?).as_ref()),
    };
    let text = serde_json::to_vec_pretty(&signed).map_err(|error| error.to_string())?;
    files::write(file, &text)?;
    match key {
        Some(key) => files::write(&with_sig(file), key.sign(&text).as_ref()),
        None => Ok(()),
    }
}

/// Where the signature of a manifest is put.
pub fn with_sig(file: &Path) -> std::path::PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".sig");
    name.into()
}

/// The key of `--sign-with`.
///
/// # Errors
/// A sentence, when the file is no Ed25519 key in PKCS#8.
pub fn read_key(file: &Path) -> Result<Ed25519KeyPair, String> {
    let wrong = || {
        format!(
            "{}: no Ed25519 private key in PEM (PKCS#8); make one with: openssl genpkey -algorithm ed25519",
            file.display()
        )
    };
    let text = files::read(file, LONGEST_KEY)?;
    let pem = pem::parse(text.as_slice()).map_err(|_| wrong())?;
    let contents = zeroize::Zeroizing::new(pem.into_contents());
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(&contents).map_err(|_| wrong())
}

/// A moment as RFC 3339 has it, to the second.
fn utc(moment: SystemTime) -> String {
    let moment = OffsetDateTime::from(moment);
    let (year, month, day) = moment.to_calendar_date();
    let (hour, minute, second) = moment.to_hms();
    format!("{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z", u8::from(month))
}

/// Today's date in UTC, `YYYY-MM-DD`.
pub fn today() -> String {
    utc(SystemTime::now()).chars().take(10).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_some_time_did_not_take_none() {
        let second = Duration::from_secs(1);
        let times = [(0, 0), (1, 1), (1_000_000_000, 1), (1_000_000_001, 2)];
        assert!(
            times.into_iter().all(|(nanos, told)| rounded_up(Duration::from_nanos(nanos), second) == told)
        );
    }

    #[test]
    fn a_moment_is_told_in_utc() {
        let moment = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_370_645);
        assert_eq!(utc(moment), "2026-11-22T18:04:05Z");
    }
}
