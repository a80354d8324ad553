//! What a mechanism must not take: a key of another type or class, no key, a key that does not allow it, and a flawed
//! parameter. Each is tried only if the mechanism works with a key and a parameter of its own.

use cryptoki_sys::*;

use crate::bench::Bench;
use crate::check::{Stop, Verdict, each};
use crate::checks::mechanisms::{advertised, attempt};
use crate::marks::Severity;
use crate::mechanisms::keys::{self, Allowed};
use crate::mechanisms::parameters::{self, Flaw, Parameter};
use crate::mechanisms::{Keys, Row, Shape, Use};
use crate::raw::Function as F;
use crate::rv::Rv;
use crate::session::{KeyPair, Session};
use crate::template::{Mechanism, Out};

/// What refuses a key of another type.
const WRONG_TYPE: &[CK_RV] = &[
    CKR_KEY_TYPE_INCONSISTENT,
    CKR_WRAPPING_KEY_TYPE_INCONSISTENT,
    CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT,
    CKR_KEY_SIZE_RANGE,
];

/// What refuses a key of another class.
const WRONG_CLASS: &[CK_RV] = &[
    CKR_KEY_TYPE_INCONSISTENT,
    CKR_KEY_FUNCTION_NOT_PERMITTED,
    CKR_KEY_HANDLE_INVALID,
    CKR_WRAPPING_KEY_HANDLE_INVALID,
    CKR_WRAPPING_KEY_TYPE_INCONSISTENT,
    CKR_UNWRAPPING_KEY_HANDLE_INVALID,
    CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT,
];

/// What refuses a handle that is no key's.
const NO_KEY: &[CK_RV] =
    &[CKR_KEY_HANDLE_INVALID, CKR_WRAPPING_KEY_HANDLE_INVALID, CKR_UNWRAPPING_KEY_HANDLE_INVALID];

/// The uses of a row that the token advertises and a key takes part in.
fn keyed_uses(bench: &Bench, row: &Row) -> Result<Vec<Use>, Stop> {
    let mut uses = Vec::new();
    for one in row.uses.iter().filter(|one| one.key().is_some()) {
        if advertised(bench, row, *one)? {
            uses.push(*one);
        }
    }
    if uses.is_empty() { Err(Stop::NotOffered) } else { Ok(uses) }
}

/// The first of these parameters that the token takes. If there is none, no refusal shows anything: that the use works is
/// a check of its own.
fn taken(
    bench: &Bench,
    row: &Row,
    wanted: Use,
    pair: KeyPair,
    good: &[Parameter],
) -> Result<Option<Parameter>, Stop> {
    for parameter in good {
        let rv = attempt(&bench.session()?, row, wanted, pair, &parameter.mechanism(row.number));
        if rv.was(CKR_OK) {
            return Ok(Some(parameter.clone()));
        }
    }
    Ok(None)
}

/// Every advertised use that works with a key of its own, and must not begin with what comes then.
fn with_keys(
    bench: &Bench,
    row: &'static Row,
    mut run: impl FnMut(&Session<'_>, Use, KeyPair, &Mechanism) -> Verdict,
) -> Verdict {
    each(
        keyed_uses(bench, row)?,
        |one| one.function().name().to_owned(),
        |one| {
            let session = bench.session()?;
            let pair = keys::subject(&session, row.keys, *one, Allowed::Yes)?;
            let good = parameters::good(row, &session, pair);
            let taken = taken(bench, row, *one, pair, &good)?.ok_or(Stop::NotOffered)?;
            run(&session, *one, pair, &taken.mechanism(row.number))
        },
    )
}

/// Whether it derives from a secret key of any type (6.21 and 6.43).
fn takes_any_secret(row: &Row) -> bool {
    let hashes = row.name.ends_with("_KEY_DERIVATION") || row.name.ends_with("_KEY_DERIVE");
    matches!(row.shape, Shape::None | Shape::Number(_)) && hashes
        || row.shape == Shape::StringData && row.keys == Keys::Secret(CKK_GENERIC_SECRET, 32)
        || matches!(row.number, CKM_CONCATENATE_BASE_AND_KEY | CKM_EXTRACT_KEY_FROM_KEY)
}

/// A key of another type.
///
/// # Errors
/// A failure, if it is taken or refused by another code.
pub fn other_key(bench: &Bench, row: &'static Row) -> Verdict {
    if takes_any_secret(row) {
        return Err(Stop::NotOffered);
    }
    with_keys(bench, row, |session, wanted, _, mechanism| {
        let other = keys::other(session, row.keys, wanted)?;
        attempt(session, row, wanted, other, mechanism).one_of(WRONG_TYPE)
    })
}

/// The other half of a pair.
///
/// # Errors
/// A failure, if it is taken or refused by another code.
pub fn other_class(bench: &Bench, row: &'static Row) -> Verdict {
    if matches!(row.keys, Keys::Secret(..)) {
        return Err(Stop::NotOffered);
    }
    with_keys(bench, row, |session, wanted, pair, mechanism| {
        let swapped = KeyPair { public: pair.private, private: pair.public };
        attempt(session, row, wanted, swapped, mechanism).one_of(WRONG_CLASS)
    })
}

/// The handle of no key.
///
/// # Errors
/// A failure, if it is taken or refused by another code.
pub fn no_key(bench: &Bench, row: &'static Row) -> Verdict {
    with_keys(bench, row, |session, wanted, _, mechanism| {
        let nobody = KeyPair { public: 0, private: 0 };
        attempt(session, row, wanted, nobody, mechanism).one_of(NO_KEY)
    })
}

/// What refuses a key whose attribute does not allow the use. What the lists of the functions for keys have instead of
/// `CKR_KEY_FUNCTION_NOT_PERMITTED`, which they forget, is as good.
const fn not_permitted(wanted: Use) -> &'static [CK_RV] {
    match wanted {
        Use::Wrap => &[
            CKR_KEY_FUNCTION_NOT_PERMITTED,
            CKR_WRAPPING_KEY_HANDLE_INVALID,
            CKR_WRAPPING_KEY_TYPE_INCONSISTENT,
        ],
        Use::Unwrap => &[
            CKR_KEY_FUNCTION_NOT_PERMITTED,
            CKR_UNWRAPPING_KEY_HANDLE_INVALID,
            CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT,
        ],
        Use::Derive | Use::Encapsulate | Use::Decapsulate => {
            &[CKR_KEY_FUNCTION_NOT_PERMITTED, CKR_KEY_HANDLE_INVALID, CKR_KEY_TYPE_INCONSISTENT]
        }
        Use::Encrypt
        | Use::Decrypt
        | Use::Sign
        | Use::Verify
        | Use::SignRecover
        | Use::VerifyRecover
        | Use::Digest
        | Use::Generate
        | Use::GeneratePair => &[CKR_KEY_FUNCTION_NOT_PERMITTED],
    }
}

/// A key whose attribute does not allow it.
///
/// # Errors
/// A failure, if it is taken or refused by another code.
pub fn not_allowed(bench: &Bench, row: &'static Row) -> Verdict {
    with_keys(bench, row, |session, wanted, _, mechanism| {
        let pair = keys::subject(session, row.keys, wanted, Allowed::No)?;
        attempt(session, row, wanted, pair, mechanism).one_of(not_permitted(wanted))
    })
}

/// A parameter with a flaw.
///
/// # Errors
/// A failure, if it is taken or refused by another code.
pub fn flawed(bench: &Bench, row: &'static Row, flaw: Flaw) -> Verdict {
    let mut uses = Vec::new();
    for one in row.uses {
        if advertised(bench, row, *one)? {
            uses.push(*one);
        }
    }
    each(
        uses,
        |one| one.function().name().to_owned(),
        |one| {
            let session = bench.session()?;
            let pair = keys::subject(&session, row.keys, *one, Allowed::Yes)?;
            let good = parameters::good(row, &session, pair);
            let taken = taken(bench, row, *one, pair, &good)?;
            let structure = taken.iter().chain(good.iter().rev()).find(|one| **one != Parameter::Absent);
            each(
                parameters::flawed(row, flaw, structure.unwrap_or(&Parameter::Absent)),
                |flawed| flawed.what.clone(),
                |flawed| {
                    let session = bench.session()?;
                    let rv = attempt(&session, row, *one, pair, &flawed.mechanism);
                    match (rv.code, &taken) {
                        (CKR_OK, _) => accepted(&session, *one, rv, flawed.most),
                        (_, None) => Ok(()),
                        (_, Some(_)) => rv.one_of(flawed.refusals),
                    }
                },
            )
        },
    )
}

/// An operation has begun with a flawed parameter: whether it goes through with it, or is refused after all.
fn accepted(session: &Session<'_>, wanted: Use, begun: Rv, most: Severity) -> Verdict {
    let step = match wanted {
        Use::Encrypt => Some(F::C_Encrypt),
        Use::Sign => Some(F::C_Sign),
        Use::Digest
        | Use::Generate
        | Use::GeneratePair
        | Use::Wrap
        | Use::Unwrap
        | Use::Derive
        | Use::Encapsulate
        | Use::Decapsulate => None,
        // Nothing that the suite has would tell whether these use the parameter.
        Use::Decrypt | Use::Verify | Use::SignRecover | Use::VerifyRecover => {
            return Err(Stop::at_most(Severity::Low, "CKR_MECHANISM_PARAM_INVALID", begun.to_string()));
        }
    };
    let Some(step) = step else {
        return Err(Stop::at_most(most, "CKR_MECHANISM_PARAM_INVALID", begun.to_string()));
    };
    let rv = session.run(step, &[7; 16], &mut Out::room(1024));
    let most = if rv.was(CKR_OK) { most } else { most.min(Severity::Low) };
    Err(Stop::at_most(most, "CKR_MECHANISM_PARAM_INVALID", format!("{begun}, then {rv}")))
}
