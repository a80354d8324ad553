//! Known answers: the vectors of Wycheproof, a check for each file and mechanism. Keys come as session objects; a token
//! that does not take the keys of a file, or not its mechanism, does not offer it.

use std::cell::RefCell;

use cryptoki_sys::*;

use crate::bench::{Bench, Stage};
use crate::check::{Check, Stop, Verdict, each};
use crate::checks::vector_jobs::JOBS;
use crate::marks::Severity;
use crate::observations::Measured;
use crate::rv::Rv;
use crate::session::Session;
use crate::trace::hex_of;
use crate::vectors::{self, Expected, FailedVector, File, Group, Test};

/// How long a file may take at least, in seconds.
const PATIENCE: u64 = 120;

/// A vector in hand.
pub struct Case<'f> {
    /// Its group.
    pub group: &'f Group,
    /// The vector.
    pub test: &'f Test,
}

impl Case<'_> {
    /// Bytes of the vector.
    ///
    /// # Errors
    /// `Skipped`, if the file has none of this name.
    pub fn bytes(&self, name: &str) -> Result<Vec<u8>, Stop> {
        self.test.fields.bytes(name)
    }

    /// A number of the vector's group.
    ///
    /// # Errors
    /// `Skipped`, if the file has none of this name.
    pub fn shared(&self, name: &str) -> Result<u64, Stop> {
        self.group.fields.number(name)
    }
}

/// Two outputs.
pub struct Difference {
    /// The module's.
    pub seen: Vec<u8>,
    /// The vector's.
    pub published: Vec<u8>,
}

impl Difference {
    fn short(&self) -> String {
        let head: String = self.seen.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        format!("{} bytes, {head}…", self.seen.len())
    }
}

/// What came of a vector.
pub enum Answer {
    /// The module accepted it, with the right output.
    Right,
    /// The module accepted it, with another output.
    Wrong(Difference),
    /// The module refused it.
    Refused(Rv),
    /// The module decrypted to other bytes, which may be its way to refuse (implicit rejection).
    Other(Difference),
    /// The mechanism does not reach so far, and need not: a parameter or a length that tokens may decline.
    Beyond,
}

/// Which vectors share a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those of a group.
    Group,
    /// None.
    Test,
}

/// Brings in a key, whose handle it gives, or what refused it.
pub type Import = fn(&Session<'_>, &Case<'_>, &Job) -> Result<Result<CK_OBJECT_HANDLE, Rv>, Stop>;

/// Makes a vector's operation with a key.
pub type Act = fn(&Session<'_>, CK_OBJECT_HANDLE, &Case<'_>, &Job) -> Result<Answer, Stop>;

/// The vectors of a file for a mechanism.
#[derive(Clone, Copy)]
pub struct Job {
    /// The check's name behind `vectors.`.
    pub id: &'static str,
    /// The file.
    pub file: &'static str,
    /// The mechanism.
    pub mechanism: CK_MECHANISM_TYPE,
    /// What the token must advertise of it.
    pub flags: CK_FLAGS,
    /// How keys come.
    pub import: Import,
    /// What is done with them.
    pub act: Act,
    /// Which vectors share a key.
    pub scope: Scope,
    /// How bad it is to accept what must be refused.
    pub forgery: Severity,
}

/// A check for each file and mechanism.
pub fn checks() -> Vec<Check> {
    JOBS.iter().map(check).collect()
}

fn check(job: &'static Job) -> Check {
    let title = format!("every vector of Wycheproof's {} comes out as published", job.file);
    let clause = format!("6, known answers (Wycheproof {})", job.file);
    Check::case(format!("vectors.{}", job.id), Stage::User, clause, title, move |bench| run(bench, job))
        .high()
        .patience(PATIENCE)
}

/// What refuses keys that a token need not have.
const NO_SUCH_KEYS: &[CK_RV] = &[
    CKR_CURVE_NOT_SUPPORTED,
    CKR_DOMAIN_PARAMS_INVALID,
    CKR_KEY_SIZE_RANGE,
    CKR_ATTRIBUTE_VALUE_INVALID,
    CKR_ATTRIBUTE_TYPE_INVALID,
    CKR_TEMPLATE_INCONSISTENT,
    CKR_TEMPLATE_INCOMPLETE,
    CKR_PARAMETER_SET_NOT_SUPPORTED,
    CKR_FUNCTION_NOT_SUPPORTED,
    CKR_ACTION_PROHIBITED,
];

/// The key of a group, once it came or was refused.
type Kept = Option<Result<CK_OBJECT_HANDLE, Rv>>;

/// The keys are published, and are told with the calls.
fn run(bench: &Bench, job: &'static Job) -> Verdict {
    bench.module.recorder().tell_keys(true);
    let verdict = try_all(bench, job);
    bench.module.recorder().tell_keys(false);
    verdict
}

fn try_all(bench: &Bench, job: &'static Job) -> Verdict {
    bench.offers(job.mechanism, job.flags)?;
    let file = vectors::load(job.file)?;
    let session = bench.session()?;
    takes_keys(&session, &file, job)?;
    let kept: RefCell<Kept> = RefCell::new(None);
    let (mut all, mut beyond, mut accepted) = (0, 0, false);
    let cases = file.groups.iter().flat_map(|group| {
        group.tests.iter().enumerate().map(move |(place, test)| (place, Case { group, test }))
    });
    let name = |(_, case): &(usize, Case<'_>)| {
        let flags = case.test.flags.join(" ");
        format!("tcId {} ({:?}: {} {flags})", case.test.number, case.test.result, case.test.comment)
    };
    let verdict = each(cases, name, |(place, case)| {
        bench.module.recorder().begin_vector();
        if *place == 0 {
            drop_key(&session, kept.borrow_mut().take());
        }
        let key = match (job.scope, *kept.borrow()) {
            (Scope::Group, Some(key)) => key,
            (Scope::Group | Scope::Test, _) => (job.import)(&session, case, job)?,
        };
        let answer = key.map_or_else(|rv| Ok(Answer::Refused(rv)), |key| (job.act)(&session, key, case, job));
        let verdict = answer.map(|answer| {
            accepted |= matches!(answer, Answer::Right);
            let verdict = judge(case.test, &answer, job);
            // Before the key is destroyed, so that the last of the calls is the vector's.
            keep_failure(bench, case, &answer, &verdict, job);
            verdict
        });
        match job.scope {
            Scope::Group => *kept.borrow_mut() = Some(key),
            Scope::Test => drop_key(&session, Some(key)),
        }
        let verdict = verdict?;
        all += 1;
        beyond += usize::from(verdict == Err(Stop::NotOffered));
        verdict
    });
    if accepted && beyond > 0 {
        bench.observe(&format!("vectors of {}", job.file), Measured::Vectors { all, beyond });
    }
    // Refusals alone show nothing, if all that should be accepted is beyond what the token offers.
    if accepted { verdict } else { verdict.and(Err(Stop::NotOffered)) }
}

/// Keeps a vector that failed, for the reports.
fn keep_failure(bench: &Bench, case: &Case<'_>, answer: &Answer, verdict: &Verdict, job: &Job) {
    let Err(Stop::Fail { expected, seen, .. }) = verdict else { return };
    let (expected, got) = match answer {
        Answer::Wrong(both) | Answer::Other(both) => (hex_of(&both.published), hex_of(&both.seen)),
        Answer::Right | Answer::Refused(_) | Answer::Beyond => (expected.clone(), seen.clone()),
    };
    let vector = FailedVector::new(job.file, case.group, case.test, expected, got);
    bench.module.recorder().keep_vector(vector);
}

fn drop_key(session: &Session<'_>, key: Kept) {
    if let Some(Ok(key)) = key {
        let _destroyed = session.destroy(key);
    }
}

/// Whether the token takes any key of the file.
fn takes_keys(session: &Session<'_>, file: &File, job: &Job) -> Verdict {
    let mut last = None;
    for group in &file.groups {
        let Some(test) = group.tests.iter().find(|test| test.result == Expected::Valid) else { continue };
        match (job.import)(session, &Case { group, test }, job)? {
            Ok(key) => {
                drop_key(session, Some(Ok(key)));
                return Ok(());
            }
            Err(rv) => last = Some(rv),
        }
    }
    match last {
        Some(rv) if NO_SUCH_KEYS.contains(&rv.code) => Err(Stop::NotOffered),
        Some(rv) => Err(Stop::Skipped(format!("the token takes no key of the file: {rv}"))),
        None => Err(Stop::NotOffered),
    }
}

/// What Wycheproof calls keys with small public exponents, which FIPS 186-5 has tokens refuse.
const SMALL_EXPONENT: &str = "SmallPublicKey";

/// A signature of ECDSA whose r and s are shorter than the order, which is one in PKCS#11: "for signatures passed to a
/// token for verification, the signature may have a shorter length" (6.3.1). Wycheproof follows IEEE P1363, where it is none.
fn is_short(test: &Test, job: &Job) -> bool {
    job.file.starts_with("ecdsa_") && test.flags.iter().any(|flag| flag == "SignatureSize")
}

fn judge(test: &Test, answer: &Answer, job: &Job) -> Verdict {
    let small = test.flags.iter().any(|flag| flag == SMALL_EXPONENT);
    match (test.result, answer) {
        (_, Answer::Beyond) => Err(Stop::NotOffered),
        (Expected::Valid | Expected::Acceptable, Answer::Right)
        | (Expected::Acceptable | Expected::Invalid, Answer::Refused(_))
        | (Expected::Invalid, Answer::Other(_)) => Ok(()),
        (Expected::Valid, Answer::Refused(rv)) if small || rv.was(CKR_KEY_SIZE_RANGE) => {
            Err(Stop::NotOffered)
        }
        (Expected::Valid, Answer::Refused(rv)) => {
            Err(Stop::graded(Severity::Medium, "the published answer", rv.to_string()))
        }
        (Expected::Valid | Expected::Acceptable, Answer::Wrong(both) | Answer::Other(both)) => {
            Err(Stop::graded(Severity::High, "the published answer", both.short()))
        }
        (Expected::Invalid, Answer::Right) if is_short(test, job) => Ok(()),
        (Expected::Invalid, Answer::Right) => {
            Err(Stop::graded(job.forgery, "a refusal", "it is accepted".to_owned()))
        }
        (Expected::Invalid, Answer::Wrong(both)) => Err(Stop::graded(job.forgery, "a refusal", both.short())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(job: &str, result: &str, flag: &str, answer: Answer) -> Option<Verdict> {
        let job = JOBS.iter().find(|one| one.id == job)?;
        let test = serde_json::json!({ "tcId": 1, "result": result, "flags": [flag] });
        Some(judge(&serde_json::from_value(test).ok()?, &answer, job))
    }

    #[test]
    fn what_is_beyond_is_neither_passed_nor_failed() {
        for result in ["valid", "acceptable", "invalid"] {
            assert_eq!(judged("aes-gcm", result, "", Answer::Beyond), Some(Err(Stop::NotOffered)));
        }
    }

    #[test]
    fn a_short_signature_is_one_for_ecdsa_only() {
        let accepted = |job, flag| judged(job, "invalid", flag, Answer::Right).map(|verdict| verdict.is_ok());
        assert_eq!(accepted("ecdsa-p256-sha256", "SignatureSize"), Some(true));
        assert_eq!(accepted("ecdsa-p256-sha256", "ModifiedSignature"), Some(false));
        assert_eq!(accepted("dsa-2048-sha256", "SignatureSize"), Some(false));
    }

    #[test]
    fn other_bytes_hide_a_refusal_and_are_no_answer() {
        let passes = |result| {
            judged(
                "rsa-pkcs-decrypt-2048",
                result,
                "",
                Answer::Other(Difference { seen: vec![], published: vec![1] }),
            )
            .map(|seen| seen.is_ok())
        };
        assert_eq!((passes("invalid"), passes("valid")), (Some(true), Some(false)));
    }
}
