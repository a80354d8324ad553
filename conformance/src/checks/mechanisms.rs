//! Chapter 6, row by row: what is advertised works, what is not is refused, and no mechanism takes a key or a parameter
//! that is not its own. The checks are made of the table in `mechanisms/`.

use cryptoki_sys::*;

use crate::bench::{Bench, Stage};
use crate::check::{Check, Stop, Verdict, each, ensure};
use crate::marks::{Severity, Tag};
use crate::mechanisms::keys::{self, Allowed};
use crate::mechanisms::parameters::{self, Flaw, Parameter};
use crate::mechanisms::{Half, Keys, ROWS, Row, Shape, Use};
use crate::raw::{Arg, Function as F};
use crate::rv::Rv;
use crate::session::{KeyPair, Session};
use crate::template::{Mechanism, Out, Template};

/// Every check of every mechanism.
pub fn checks() -> Vec<Check> {
    ROWS.iter().flat_map(of_row).chain(crate::checks::mechanism_sizes::checks()).collect()
}

fn of_row(row: &'static Row) -> Vec<Check> {
    let name = row.name;
    let check = |what: &str, stage, title: String, run: fn(&Bench, &'static Row) -> Verdict| {
        let id = format!("mechanisms.{}-{what}", row.id());
        Check::case(id, stage, format!("6 {name} and 5.5.6"), title, move |bench| run(bench, row))
    };
    let mut made = vec![
        check("info", Stage::Token, format!("{name} is listed and described alike"), info).low(),
        check("other-uses", Stage::User, format!("{name} does only what its flags say"), other_uses),
    ];
    made.extend(row.uses.iter().map(|one| {
        let id = format!("mechanisms.{}-{}", row.id(), one.word());
        let title =
            format!("{name} does {} if its flags say so, and is refused if not", one.function().name());
        let clause = format!("6 {name} and 5.5.6 C_GetMechanismInfo");
        Check::case(id, Stage::User, clause, title, move |bench| operational(bench, row, *one)).patience(60)
    }));
    if row.uses.iter().any(|one| one.key().is_some()) {
        made.extend([
            check("other-key", Stage::User, format!("{name} refuses a key of another type"), other_key)
                .high(),
            check(
                "other-class",
                Stage::User,
                format!("{name} refuses the other half of a pair"),
                other_class,
            ),
            check("no-key", Stage::User, format!("{name} refuses the handle of no key"), no_key),
            check(
                "not-allowed",
                Stage::User,
                format!("{name} refuses a key that does not allow it"),
                not_allowed,
            )
            .high(),
        ]);
    }
    made.extend(Flaw::ALL.iter().filter(|flaw| parameters::can_have(row.shape, **flaw)).map(|flaw| {
        let id = format!("mechanisms.{}-parameter-{}", row.id(), flaw.word());
        let mut check =
            Check::case(id, Stage::User, format!("6 {name}"), format!("{name} {}", flaw.title()), {
                move |bench| flawed(bench, row, *flaw)
            });
        check.tag = Some(Tag::Arguments);
        check
    }));
    made
}

/// What refuses a mechanism that there is not, or not for this.
const NOT_A_MECHANISM: &[CK_RV] = &[CKR_MECHANISM_INVALID, CKR_FUNCTION_NOT_SUPPORTED];

/// What refuses what is not advertised: whoever does not know a mechanism does not know its keys either, and which of several
/// things is refused is the module's choice (5.1.7).
const NOT_OFFERED: &[CK_RV] = &[
    CKR_MECHANISM_INVALID,
    CKR_MECHANISM_PARAM_INVALID,
    CKR_ARGUMENTS_BAD,
    CKR_FUNCTION_NOT_SUPPORTED,
    CKR_KEY_TYPE_INCONSISTENT,
    CKR_WRAPPING_KEY_TYPE_INCONSISTENT,
    CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT,
    CKR_KEY_FUNCTION_NOT_PERMITTED,
    CKR_KEY_HANDLE_INVALID,
    CKR_WRAPPING_KEY_HANDLE_INVALID,
    CKR_UNWRAPPING_KEY_HANDLE_INVALID,
    CKR_OBJECT_HANDLE_INVALID,
    CKR_ATTRIBUTE_VALUE_INVALID,
    CKR_TEMPLATE_INCONSISTENT,
    CKR_TEMPLATE_INCOMPLETE,
    CKR_ATTRIBUTE_TYPE_INVALID,
];

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

/// The flags that say what a mechanism is used for.
fn use_flags() -> CK_FLAGS {
    Use::ALL.iter().fold(0, |flags, one| flags | one.flag())
}

/// `CK_MECHANISM_INFO`, or what refuses it.
fn described(bench: &Bench, row: &Row) -> Result<Result<CK_MECHANISM_INFO, Rv>, Stop> {
    let mut info = CK_MECHANISM_INFO::default();
    let arguments = [Arg::number(bench.slot()?), Arg::number(row.number), Arg::of_mut(&mut info)];
    let rv = bench.module.call(F::C_GetMechanismInfo, &arguments);
    Ok(if rv.was(CKR_OK) { Ok(info) } else { Err(rv) })
}

fn info(bench: &Bench, row: &'static Row) -> Verdict {
    let listed = bench.mechanisms()?.contains(&row.number);
    let info = match (listed, described(bench, row)?) {
        (true, Ok(info)) => info,
        (true, Err(rv)) => return rv.ok(),
        (false, Err(rv)) => return rv.is(CKR_MECHANISM_INVALID),
        (false, Ok(info)) => {
            let seen = format!("C_GetMechanismInfo: CKR_OK, flags {:#x}", info.flags);
            return Err(Stop::fail("CKR_MECHANISM_INVALID, as C_GetMechanismList does not list it", seen));
        }
    };
    let sizes = format!("sizes {} to {}", info.ulMinKeySize, info.ulMaxKeySize);
    ensure(info.ulMinKeySize <= info.ulMaxKeySize, "a least size that is not above the most", sizes)?;
    let known = row.uses.iter().fold(0, |flags, one| flags | one.flag());
    let stray = info.flags & use_flags() & !known;
    let names: Vec<_> =
        Use::ALL.iter().filter(|one| stray & one.flag() != 0).map(|one| one.function().name()).collect();
    ensure(stray == 0, "flags of what the standard has it do", format!("flags for {}", names.join(" and ")))
}

/// Whether the token advertises the use.
fn advertised(bench: &Bench, row: &Row, wanted: Use) -> Result<bool, Stop> {
    match bench.offers(row.number, wanted.flag()) {
        Ok(_) => Ok(true),
        Err(Stop::NotOffered) => Ok(false),
        Err(stop) => Err(stop),
    }
}

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

/// Begins the operation, or makes the one call that it is.
fn attempt(session: &Session<'_>, row: &Row, wanted: Use, pair: KeyPair, mechanism: &Mechanism) -> Rv {
    let key = match wanted.key() {
        Some((Half::Public, _)) => pair.public,
        Some((Half::Private, _)) | None => pair.private,
    };
    match wanted {
        Use::Encrypt | Use::Decrypt | Use::Sign | Use::Verify | Use::SignRecover | Use::VerifyRecover => {
            session.init(wanted.function(), mechanism, Some(key))
        }
        Use::Digest => session.init(F::C_DigestInit, mechanism, None),
        Use::Generate => session.try_generate(mechanism, &generated(row)).0,
        Use::GeneratePair => generate_pair(session, row, mechanism),
        Use::Wrap => {
            let target = keys::wrappable(session).unwrap_or(0);
            let mut out = Out::room(1024);
            let [buffer, length] = out.args();
            let arguments = [mechanism.arg(), Arg::number(key), Arg::number(target), buffer, length];
            session.call(F::C_WrapKey, &arguments)
        }
        Use::Unwrap => unwrap(session, mechanism, pair),
        Use::Derive => {
            let template = derived(row);
            let [attributes, count] = template.args();
            let mut derived: CK_OBJECT_HANDLE = 0;
            let made = Arg::of_mut(&mut derived);
            session.call(F::C_DeriveKey, &[mechanism.arg(), Arg::number(key), attributes, count, made])
        }
        Use::Encapsulate => encapsulate(session, mechanism, key).0,
        Use::Decapsulate => {
            let (_, ciphertext) = encapsulate(session, mechanism, pair.public);
            let template = keys::product(Keys::Secret(CKK_GENERIC_SECRET, 32));
            let [attributes, count] = template.args();
            let (input, length) = (Arg::slice(&ciphertext), Arg::number(ciphertext.len() as CK_ULONG));
            let mut derived: CK_OBJECT_HANDLE = 0;
            let made = Arg::of_mut(&mut derived);
            let arguments = [mechanism.arg(), Arg::number(key), attributes, count, input, length, made];
            session.call(F::C_DecapsulateKey, &arguments)
        }
    }
}

fn unwrap(session: &Session<'_>, mechanism: &Mechanism, pair: KeyPair) -> Rv {
    let blob = keys::wrapped(session, mechanism, pair.public);
    let key = pair.private;
    let template = Template::of_class(CKO_SECRET_KEY)
        .ulong(CKA_KEY_TYPE, CKK_GENERIC_SECRET)
        .bool(CKA_TOKEN, false)
        .bool(CKA_PRIVATE, true);
    let [attributes, count] = template.args();
    let mut made: CK_OBJECT_HANDLE = 0;
    let (input, length) = (Arg::slice(&blob), Arg::number(blob.len() as CK_ULONG));
    let made = Arg::of_mut(&mut made);
    session.call(F::C_UnwrapKey, &[mechanism.arg(), Arg::number(key), input, length, attributes, count, made])
}

fn encapsulate(session: &Session<'_>, mechanism: &Mechanism, key: CK_OBJECT_HANDLE) -> (Rv, Vec<u8>) {
    let template = keys::product(Keys::Secret(CKK_GENERIC_SECRET, 32));
    let [attributes, count] = template.args();
    let mut out = Out::room(2048);
    let mut made: CK_OBJECT_HANDLE = 0;
    let rv = {
        let [buffer, length] = out.args();
        let made = Arg::of_mut(&mut made);
        let arguments = [mechanism.arg(), Arg::number(key), attributes, count, buffer, length, made];
        session.call(F::C_EncapsulateKey, &arguments)
    };
    (rv, if rv.was(CKR_OK) { out.bytes().to_vec() } else { vec![0; 1088] })
}

/// The template of what `C_GenerateKey` makes with this mechanism.
fn generated(row: &Row) -> Template {
    let domain =
        |bits| Template::of_class(CKO_DOMAIN_PARAMETERS).bool(CKA_TOKEN, false).ulong(CKA_PRIME_BITS, bits);
    match row.keys {
        Keys::Dsa => domain(1024).ulong(CKA_KEY_TYPE, CKK_DSA),
        Keys::Dh => domain(512).ulong(CKA_KEY_TYPE, CKK_DH),
        Keys::X942 => domain(1024).ulong(CKA_KEY_TYPE, CKK_X9_42_DH).ulong(CKA_SUBPRIME_BITS, 160),
        keys => keys::product(keys),
    }
}

/// The template of what `C_DeriveKey` makes with this mechanism.
fn derived(row: &Row) -> Template {
    match row.number {
        CKM_HKDF_DATA => Template::of_class(CKO_DATA).bool(CKA_TOKEN, false).ulong(CKA_VALUE_LEN, 32),
        CKM_PUB_KEY_FROM_PRIV_KEY => Template::of_class(CKO_PUBLIC_KEY).bool(CKA_TOKEN, false),
        _ => keys::product(Keys::Other),
    }
}

fn generate_pair(session: &Session<'_>, row: &Row, mechanism: &Mechanism) -> Rv {
    let private = Template::of_class(CKO_PRIVATE_KEY).bool(CKA_TOKEN, false).bool(CKA_PRIVATE, true);
    let candidates = keys::generators(row.keys);
    let mut templates: Vec<Template> = candidates.into_iter().map(|(_, public)| public).collect();
    if templates.is_empty() {
        templates.push(Template::of_class(CKO_PUBLIC_KEY).bool(CKA_TOKEN, false));
    }
    let mut last = Rv { function: F::C_GenerateKeyPair, code: CKR_TEMPLATE_INCOMPLETE };
    for public in templates {
        last = session.try_generate_pair(mechanism, &public, &private).0;
        if last.was(CKR_OK) {
            break;
        }
    }
    last
}

fn operational(bench: &Bench, row: &'static Row, wanted: Use) -> Verdict {
    if !advertised(bench, row, wanted)? {
        return refused(bench, row, wanted);
    }
    let session = bench.session()?;
    let pair = keys::subject(&session, row.keys, wanted, Allowed::Yes)?;
    let mut last = None;
    for parameter in parameters::good(row, &session, pair) {
        let rv = attempt(&bench.session()?, row, wanted, pair, &parameter.mechanism(row.number));
        if rv.was(CKR_OK) {
            return Ok(());
        }
        last = Some(rv);
    }
    let Some(rv) = last else { return Err(Stop::NotOffered) };
    let unknown_input = matches!(row.shape, Shape::Opaque(_) | Shape::Pbe | Shape::KeyHandle)
        || matches!(row.keys, Keys::Dsa | Keys::X942 | Keys::Hss | Keys::Xmss | Keys::Other)
        || (wanted == Use::Unwrap && advertised(bench, row, Use::Wrap).is_ok_and(|wraps| !wraps));
    if unknown_input {
        let seen = rv.to_string();
        return ensure(!NOT_A_MECHANISM.contains(&rv.code), "no refusal of the mechanism itself", seen);
    }
    Err(Stop::fail("CKR_OK, as its flags advertise it", rv.to_string()))
}

/// A use that is not advertised, with a key that could do it if there is one.
fn refused(bench: &Bench, row: &'static Row, wanted: Use) -> Verdict {
    let session = bench.session()?;
    let pair = keys::subject(&session, row.keys, wanted, Allowed::Yes)
        .or_else(|_| keys::other(&session, row.keys, wanted))
        .unwrap_or(KeyPair { public: 0, private: 0 });
    let parameter = parameters::good(row, &session, pair).into_iter().next().unwrap_or(Parameter::Absent);
    let rv = attempt(&session, row, wanted, pair, &parameter.mechanism(row.number));
    if rv.was(CKR_OK) {
        return Err(Stop::fail("CKR_MECHANISM_INVALID, as it is not advertised for this", rv.to_string()));
    }
    rv.one_of(NOT_OFFERED)
}

/// What neither the standard nor the token's own flags have the mechanism do.
fn other_uses(bench: &Bench, row: &'static Row) -> Verdict {
    let plain = Mechanism::plain(row.number);
    let pair =
        crate::session::Session::hmac_key(&bench.session()?).map(|key| KeyPair { public: key, private: key });
    let pair = pair.unwrap_or(KeyPair { public: 0, private: 0 });
    let others = Use::ALL.iter().filter(|one| !row.uses.contains(one));
    each(
        others,
        |one| one.function().name().to_owned(),
        |one| {
            if advertised(bench, row, **one)? {
                return Ok(());
            }
            let rv = attempt(&bench.session()?, row, **one, pair, &plain);
            if rv.was(CKR_OK) {
                return Err(Stop::fail("CKR_MECHANISM_INVALID", rv.to_string()));
            }
            rv.one_of(NOT_OFFERED)
        },
    )
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

fn other_key(bench: &Bench, row: &'static Row) -> Verdict {
    if takes_any_secret(row) {
        return Err(Stop::NotOffered);
    }
    with_keys(bench, row, |session, wanted, _, mechanism| {
        let other = keys::other(session, row.keys, wanted)?;
        attempt(session, row, wanted, other, mechanism).one_of(WRONG_TYPE)
    })
}

fn other_class(bench: &Bench, row: &'static Row) -> Verdict {
    if matches!(row.keys, Keys::Secret(..)) {
        return Err(Stop::NotOffered);
    }
    with_keys(bench, row, |session, wanted, pair, mechanism| {
        let swapped = KeyPair { public: pair.private, private: pair.public };
        attempt(session, row, wanted, swapped, mechanism).one_of(WRONG_CLASS)
    })
}

fn no_key(bench: &Bench, row: &'static Row) -> Verdict {
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

fn not_allowed(bench: &Bench, row: &'static Row) -> Verdict {
    with_keys(bench, row, |session, wanted, _, mechanism| {
        let pair = keys::subject(session, row.keys, wanted, Allowed::No)?;
        attempt(session, row, wanted, pair, mechanism).one_of(not_permitted(wanted))
    })
}

fn flawed(bench: &Bench, row: &'static Row, flaw: Flaw) -> Verdict {
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
