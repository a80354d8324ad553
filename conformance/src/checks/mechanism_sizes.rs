//! `ulMinKeySize` and `ulMaxKeySize` (5.5.6): what they allow is made and used, one step below and above is not.

use cryptoki_sys::*;

use crate::bench::{Bench, Stage};
use crate::check::{Check, Stop, Verdict, ensure};
use crate::marks::Severity;
use crate::mechanisms::curves::{CURVES, Curve};
use crate::mechanisms::{Half, Keys, ROWS, Row, Shape, Use, parameters};
use crate::rv::Rv;
use crate::session::{KeyPair, Session, aes, ec_public, private, rsa_public};
use crate::template::{Mechanism, Template};

/// Which side of the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    Least,
    Most,
    Below,
    Above,
}

impl Limit {
    const ALL: [Self; 4] = [Self::Least, Self::Most, Self::Below, Self::Above];

    const fn word(self) -> &'static str {
        match self {
            Self::Least => "size-least",
            Self::Most => "size-most",
            Self::Below => "size-below",
            Self::Above => "size-above",
        }
    }

    fn title(self, name: &str) -> String {
        match self {
            Self::Least => format!("{name} makes keys of the least size that it advertises"),
            Self::Most => format!("{name} makes keys of the most size that it advertises"),
            Self::Below => format!("{name} neither makes nor takes a key below its least size"),
            Self::Above => format!("{name} neither makes nor takes a key above its most size"),
        }
    }
}

/// Moduli above this take minutes to make.
const PATIENT_BITS: CK_ULONG = 4096;

/// What refuses a size.
const SIZE: &[CK_RV] = &[
    CKR_KEY_SIZE_RANGE,
    CKR_ATTRIBUTE_VALUE_INVALID,
    CKR_TEMPLATE_INCONSISTENT,
    CKR_CURVE_NOT_SUPPORTED,
    CKR_DOMAIN_PARAMS_INVALID,
    CKR_PUBLIC_KEY_INVALID,
];

/// The checks of mechanisms whose keys have sizes that the suite can choose.
pub fn checks() -> Vec<Check> {
    let rows = ROWS.iter().filter(|row| sized(row));
    rows.flat_map(|row| Limit::ALL.into_iter().filter_map(move |limit| check(row, limit))).collect()
}

fn sized(row: &Row) -> bool {
    match row.keys {
        Keys::Rsa | Keys::Ec => {
            !matches!(row.shape, Shape::Opaque(_) | Shape::EcdhAesWrap | Shape::RsaAesWrap)
        }
        Keys::Secret(key_type, _) => key_type == CKK_AES && row.uses.contains(&Use::Generate),
        Keys::NoKey
        | Keys::Dsa
        | Keys::Dh
        | Keys::X942
        | Keys::Edwards
        | Keys::Montgomery
        | Keys::MlKem
        | Keys::MlDsa
        | Keys::SlhDsa
        | Keys::Hss
        | Keys::Xmss
        | Keys::Other => false,
    }
}

fn check(row: &'static Row, limit: Limit) -> Option<Check> {
    let makes = row.uses.iter().any(|one| matches!(one, Use::Generate | Use::GeneratePair));
    if !makes && matches!(limit, Limit::Least | Limit::Most) {
        return None;
    }
    let id = format!("mechanisms.{}-{}", row.id(), limit.word());
    let clause = format!("5.5.6 C_GetMechanismInfo, 6 {}", row.name);
    Some(
        Check::case(id, Stage::User, clause, limit.title(row.name), move |bench| size(bench, row, limit))
            .patience(120),
    )
}

fn size(bench: &Bench, row: &'static Row, limit: Limit) -> Verdict {
    let [first, ..] = row.uses else { return Err(Stop::NotOffered) };
    let wanted = match row.uses.iter().find(|one| one.key().is_some_and(|(half, _)| half == Half::Public)) {
        Some(public) => *public,
        None => *first,
    };
    let info = bench.offers(row.number, wanted.flag())?;
    let (least, most) = (info.ulMinKeySize, info.ulMaxKeySize);
    ensure(most > 0, "sizes of its keys", "0 to 0")?;
    match row.keys {
        Keys::Ec => curve(bench, row, wanted, limit, (least, most)),
        Keys::Rsa => {
            let bits = match limit {
                Limit::Least => least,
                Limit::Most => most,
                Limit::Below => least.saturating_sub(8),
                Limit::Above => most.saturating_add(8),
            };
            rsa(bench, row, wanted, limit, bits)
        }
        Keys::Secret(..) => aes_length(bench, limit, (least, most)),
        Keys::NoKey
        | Keys::Dsa
        | Keys::Dh
        | Keys::X942
        | Keys::Edwards
        | Keys::Montgomery
        | Keys::MlKem
        | Keys::MlDsa
        | Keys::SlhDsa
        | Keys::Hss
        | Keys::Xmss
        | Keys::Other => Err(Stop::NotOffered),
    }
}

fn aes_length(bench: &Bench, limit: Limit, (least, most): (CK_ULONG, CK_ULONG)) -> Verdict {
    let session = bench.session()?;
    let made = |bytes| session.try_generate(&Mechanism::plain(CKM_AES_KEY_GEN), &aes(bytes)).0;
    match limit {
        Limit::Least => made(least).ok(),
        Limit::Most => made(most).ok(),
        Limit::Below => made(least.saturating_sub(1)).one_of(SIZE),
        Limit::Above => made(most.saturating_add(1)).one_of(SIZE),
    }
}

fn rsa(bench: &Bench, row: &'static Row, wanted: Use, limit: Limit, bits: CK_ULONG) -> Verdict {
    if !(128..=1 << 16).contains(&bits) {
        return Err(Stop::NotOffered);
    }
    let session = bench.session()?;
    if wanted != Use::GeneratePair {
        let template = brought(CKK_RSA, wanted)
            .bytes(CKA_MODULUS, &modulus(bits))
            .bytes(CKA_PUBLIC_EXPONENT, &[1, 0, 1]);
        return used(&session, row, wanted, &template);
    }
    if matches!(limit, Limit::Least | Limit::Most) && bits > PATIENT_BITS {
        return Err(Stop::NotOffered);
    }
    let mechanism = Mechanism::plain(row.number);
    judge(limit, session.try_generate_pair(&mechanism, &rsa_public(bits), &private()).0)
}

/// An odd number of so many bits.
fn modulus(bits: CK_ULONG) -> Vec<u8> {
    let mut bytes = vec![0xc7; usize::try_from(bits / 8).unwrap_or(0)];
    if let Some(last) = bytes.last_mut() {
        *last |= 1;
    }
    bytes
}

fn brought(key_type: CK_KEY_TYPE, wanted: Use) -> Template {
    let template = Template::of_class(CKO_PUBLIC_KEY).ulong(CKA_KEY_TYPE, key_type).bool(CKA_TOKEN, false);
    match wanted.key() {
        Some((_, attribute)) => template.bool(attribute, true),
        None => template,
    }
}

/// A key beyond the limits is refused when it comes or when it is used. That old signatures are verified with keys which
/// make no new ones any more is a remark: the limits of a mechanism are one pair for all of its uses (5.5.6).
fn used(session: &Session<'_>, row: &'static Row, wanted: Use, template: &Template) -> Verdict {
    let verdict = is_refused(session, row, wanted, template);
    match wanted {
        Use::Verify => verdict.map_err(|stop| stop.regraded(Severity::Informational)),
        _ => verdict,
    }
}

fn is_refused(session: &Session<'_>, row: &'static Row, wanted: Use, template: &Template) -> Verdict {
    let (rv, key) = session.try_create(template);
    if !rv.was(CKR_OK) {
        return rv.one_of(SIZE);
    }
    let pair = KeyPair { public: key, private: key };
    let good = parameters::good(row, session, pair);
    let Some(parameter) = good.first() else { return Err(Stop::NotOffered) };
    let mechanism = parameter.mechanism(row.number);
    if !matches!(wanted, Use::Verify | Use::Encrypt) {
        return Err(Stop::NotOffered);
    }
    session.init(wanted.function(), &mechanism, Some(key)).is(CKR_KEY_SIZE_RANGE)
}

fn judge(limit: Limit, rv: Rv) -> Verdict {
    match limit {
        Limit::Least | Limit::Most => rv.ok(),
        Limit::Below | Limit::Above => rv.one_of(SIZE),
    }
}

fn curve(
    bench: &Bench,
    row: &'static Row,
    wanted: Use,
    limit: Limit,
    (least, most): (CK_ULONG, CK_ULONG),
) -> Verdict {
    let candidates: Vec<&Curve> = match limit {
        Limit::Least => CURVES.iter().filter(|curve| curve.bits == least).collect(),
        Limit::Most => CURVES.iter().filter(|curve| curve.bits == most).collect(),
        Limit::Below => CURVES.iter().rev().filter(|curve| curve.bits < least).take(1).collect(),
        Limit::Above => CURVES.iter().filter(|curve| curve.bits > most).take(1).collect(),
    };
    let session = bench.session()?;
    let mut last = Err(Stop::NotOffered);
    for curve in candidates {
        if wanted != Use::GeneratePair {
            // Any point will do: the curve itself is too small or too large.
            let point =
                crate::mechanisms::curves::octets(&[&[4], vec![1; 2 * curve.bytes()].as_slice()].concat());
            let template =
                brought(CKK_EC, wanted).bytes(CKA_EC_PARAMS, curve.oid).bytes(CKA_EC_POINT, &point);
            return used(&session, row, wanted, &template);
        }
        let public = ec_public(curve.oid);
        let rv = session.try_generate_pair(&Mechanism::plain(row.number), &public, &private()).0;
        last = judge(limit, rv);
        if last.is_ok() {
            break;
        }
    }
    last
}
