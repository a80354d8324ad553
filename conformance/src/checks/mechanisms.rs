//! Chapter 6, row by row: what is advertised works, what is not is refused. The checks are made of the table in
//! `mechanisms/`; those of keys and parameters that are not a mechanism's own are in `mechanism_refusals.rs`.

use cryptoki_sys::*;

use crate::bench::{Bench, Stage};
use crate::check::{Check, Stop, Verdict, each, ensure};
use crate::checks::mechanism_refusals as refusals;
use crate::marks::Tag;
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
            check(
                "other-key",
                Stage::User,
                format!("{name} refuses a key of another type"),
                refusals::other_key,
            )
            .high(),
            check(
                "other-class",
                Stage::User,
                format!("{name} refuses the other half of a pair"),
                refusals::other_class,
            ),
            check("no-key", Stage::User, format!("{name} refuses the handle of no key"), refusals::no_key),
            check(
                "not-allowed",
                Stage::User,
                format!("{name} refuses a key that does not allow it"),
                refusals::not_allowed,
            )
            .high(),
        ]);
    }
    made.extend(Flaw::ALL.iter().filter(|flaw| parameters::can_have(row.shape, **flaw)).map(|flaw| {
        let id = format!("mechanisms.{}-parameter-{}", row.id(), flaw.word());
        let mut check =
            Check::case(id, Stage::User, format!("6 {name}"), format!("{name} {}", flaw.title()), {
                move |bench| refusals::flawed(bench, row, *flaw)
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
///
/// # Errors
/// What `C_GetMechanismInfo` must not answer.
pub fn advertised(bench: &Bench, row: &Row, wanted: Use) -> Result<bool, Stop> {
    match bench.offers(row.number, wanted.flag()) {
        Ok(_) => Ok(true),
        Err(Stop::NotOffered) => Ok(false),
        Err(stop) => Err(stop),
    }
}

/// Begins the operation, or makes the one call that it is.
pub fn attempt(session: &Session<'_>, row: &Row, wanted: Use, pair: KeyPair, mechanism: &Mechanism) -> Rv {
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
    let session = bench.session()?;
    let pair = session.hmac_key().map(|key| KeyPair { public: key, private: key });
    let pair = pair.unwrap_or(KeyPair { public: 0, private: 0 });
    let others = Use::ALL.iter().filter(|one| !row.uses.contains(one));
    each(
        others,
        |one| one.function().name().to_owned(),
        |one| {
            if advertised(bench, row, **one)? {
                return Ok(());
            }
            let rv = attempt(&session, row, **one, pair, &plain);
            if rv.was(CKR_OK) {
                return Err(Stop::fail("CKR_MECHANISM_INVALID", rv.to_string()));
            }
            rv.one_of(NOT_OFFERED)
        },
    )
}
