//! The requirements of the profiles (PKCS#11 Profiles 3.2), a check for each.
//!
//! A requirement that is not met is a failure of a token that claims the profile, and nothing of a token that does not.

use cryptoki_sys::*;

use crate::bench::{Bench, Stage};
use crate::check::{Check, Stop, Verdict, ensure};
use crate::checks::nulls;
use crate::checks::replay::replay;
use crate::profiles::{PROFILES, Profile, Requirement};
use crate::raw::{Arg, Function as F};
use crate::report::counted;
use crate::session::{Session, private, rsa_public};
use crate::signature::takes_a_pin;
use crate::template::{Mechanism, Template};

/// The checks of this chapter: one for each requirement of each profile.
pub fn checks() -> Vec<Check> {
    let of_profile = |profile: &'static Profile| {
        profile.all().map(move |requirement| {
            let id = profile.id_of(requirement);
            let clause = format!("{}: {}", profile.clause, requirement.name());
            let check = Check::case(id, stage(requirement), clause, requirement.title(), move |bench| {
                let verdict = meets(bench, profile, requirement);
                judge(verdict, || claims(bench, profile))
            });
            match requirement {
                Requirement::Function(function) if takes_a_pin(function) => check.pins(),
                Requirement::Case(_) => check.session_objects(),
                _ => check,
            }
        })
    };
    PROFILES.iter().flat_map(of_profile).collect()
}

/// Certificates and profiles are there for everybody; what a module can make needs a login.
const fn stage(requirement: Requirement) -> Stage {
    match requirement {
        Requirement::Attribute(..) | Requirement::Class(..) | Requirement::HkdfLabel(_) => Stage::User,
        Requirement::Function(_)
        | Requirement::ProfileObject
        | Requirement::Mechanism(..)
        | Requirement::Case(_)
        | Requirement::PublicCertificates
        | Requirement::CertificateKeys => Stage::Token,
    }
}

/// What is not met is a failure only if it was claimed.
fn judge(verdict: Verdict, claimed: impl Fn() -> bool) -> Verdict {
    match verdict {
        Ok(()) | Err(Stop::Skipped(_)) => verdict,
        Err(Stop::NotOffered) if claimed() => {
            Err(Stop::fail("what the profile asks for, since the token claims it", "it is not there"))
        }
        Err(Stop::Fail { .. }) if claimed() => verdict,
        Err(Stop::NotOffered | Stop::Fail { .. }) => Err(Stop::NotOffered),
    }
}

fn profile_objects(bench: &Bench, profile: &Profile) -> Result<Vec<CK_OBJECT_HANDLE>, Stop> {
    let template = Template::of_class(CKO_PROFILE).without(CKA_LABEL).ulong(CKA_PROFILE_ID, profile.number);
    bench.read_only()?.find(&template)
}

fn claims(bench: &Bench, profile: &Profile) -> bool {
    // A test case ends with C_Finalize.
    bench.prepare(Stage::Token).is_ok()
        && profile_objects(bench, profile).is_ok_and(|found| !found.is_empty())
}

fn meets(bench: &Bench, profile: &Profile, requirement: Requirement) -> Verdict {
    match requirement {
        Requirement::Function(function) => has_function(bench, function),
        Requirement::ProfileObject => {
            let found = profile_objects(bench, profile)?;
            let seen = counted(found.len(), "object");
            ensure(!found.is_empty(), "an object that claims the profile", seen)
        }
        Requirement::Class(_, class) => has_class(bench, class),
        Requirement::Attribute(_, kind) => has_attribute(bench, kind),
        Requirement::Mechanism(_, mechanism, flags) => bench.offers(mechanism, flags).map(drop),
        Requirement::Case(transcript) => {
            let verdict = replay(bench, transcript);
            bench.reset(Stage::Loaded);
            verdict
        }
        Requirement::PublicCertificates => public_certificates(bench),
        Requirement::CertificateKeys => certificate_keys(bench),
        Requirement::HkdfLabel(label) => takes_label(bench, label),
    }
}

/// A function is there, and answers something of its own to a session or slot that does not exist.
fn has_function(bench: &Bench, function: F) -> Verdict {
    let there = match function {
        F::C_GetFunctionList | F::C_GetInterfaceList | F::C_GetInterface => bench.module.exports(function),
        _ => bench.module.has(function),
    };
    ensure(there, function.name(), "no such function")?;
    match nulls::ROWS.iter().find(|row| row.function == function) {
        Some(row) => {
            let rv = nulls::honest(bench, row, 0x7fff_fff0);
            ensure(!rv.was(CKR_FUNCTION_NOT_SUPPORTED), "a function that is supported", rv.to_string())
        }
        None => Ok(()),
    }
}

fn of_class(class: CK_OBJECT_CLASS) -> Template {
    Template::new().ulong(CKA_CLASS, class)
}

/// The token has objects of the class, or makes one.
fn has_class(bench: &Bench, class: CK_OBJECT_CLASS) -> Verdict {
    let session = bench.session()?;
    if !session.find(&of_class(class))?.is_empty() {
        return Ok(());
    }
    match class {
        CKO_DATA => session.create(&Template::data()).map(drop),
        CKO_SECRET_KEY => session.aes().map(drop),
        _ => session.p256().map(drop).or_else(|_| bench.rsa().map(drop)),
    }
}

/// An object of the token, or one that is made for the purpose, has the attribute.
fn has_attribute(bench: &Bench, kind: CK_ATTRIBUTE_TYPE) -> Verdict {
    let session = bench.session()?;
    let found = match kind {
        CKA_PROFILE_ID => session.find(&of_class(CKO_PROFILE))?,
        CKA_ID => session.aes().map(|key| vec![key]).or_else(|_| session.find(&of_class(CKO_CERTIFICATE)))?,
        _ => session
            .try_create(&Template::data())
            .0
            .ok()
            .and_then(|()| session.find(&Template::data().without(CKA_VALUE)))
            .or_else(|_| session.find(&of_class(CKO_CERTIFICATE)))?,
    };
    let Some(object) = found.first() else { return Err(Stop::NotOffered) };
    let mut asked = Template::new().ask(kind);
    session.query(*object, &mut asked).ok()
}

fn certificates(session: &Session<'_>) -> Result<Vec<CK_OBJECT_HANDLE>, Stop> {
    let found = session.find(&of_class(CKO_CERTIFICATE))?;
    if found.is_empty() { Err(Stop::NotOffered) } else { Ok(found) }
}

fn public_certificates(bench: &Bench) -> Verdict {
    let session = bench.read_only()?;
    for certificate in certificates(&session)?.into_iter().take(5) {
        let value = session.attribute(certificate, CKA_VALUE)?;
        ensure(value.first() == Some(&0x30), "a certificate in CKA_VALUE", counted(value.len(), "byte"))?;
    }
    Ok(())
}

fn certificate_keys(bench: &Bench) -> Verdict {
    let session = bench.read_only()?;
    for certificate in certificates(&session)?.into_iter().take(5) {
        let id = session.attribute(certificate, CKA_ID)?;
        let of = |class| session.find(&of_class(class).bytes(CKA_ID, &id));
        let keys = [of(CKO_PUBLIC_KEY)?, of(CKO_PRIVATE_KEY)?].concat();
        if keys.is_empty() && bench.target.pin.is_some() {
            let hidden = with_login(bench, &id)?;
            ensure(hidden == 0, "a key that is found without a login", "a key that only a login shows")?;
        }
    }
    Ok(())
}

/// How many private keys of this `CKA_ID` a login shows.
fn with_login(bench: &Bench, id: &[u8]) -> Result<usize, Stop> {
    let session = bench.session()?;
    session.login(CKU_USER, &bench.pin()?).ok()?;
    let found = session.find(&of_class(CKO_PRIVATE_KEY).bytes(CKA_ID, id))?;
    session.logout().ok()?;
    Ok(found.len())
}

/// `CK_HKDF_PARAMS`, expand only: `pInfo` is the length, the length of the label, the label and a zero.
fn takes_label(bench: &Bench, label: &str) -> Verdict {
    bench.offers(CKM_HKDF_DATA, CKF_DERIVE)?;
    let session = bench.session()?;
    let template = Template::secret(CKK_HKDF, &[0x0b; 32]).usages(&[CKA_DERIVE]);
    let (rv, base) = match session.try_create(&template) {
        (rv, _) if !rv.was(CKR_OK) => {
            session.try_create(&Template::secret(CKK_GENERIC_SECRET, &[0x0b; 32]).usages(&[CKA_DERIVE]))
        }
        made => made,
    };
    rv.ok()?;
    let length = u8::try_from(label.len()).unwrap_or_default();
    let info = [&[0, 12, length], label.as_bytes(), &[0]].concat();
    let address = info.as_ptr().expose_provenance() as CK_ULONG;
    let [extract, expand] = [0_u8, 1];
    let flags = CK_ULONG::from_ne_bytes([extract, expand, 0, 0, 0, 0, 0, 0]);
    let words = [flags, CKM_SHA256, CKF_HKDF_SALT_NULL, 0, 0, 0, address, info.len() as CK_ULONG];
    let mechanism = Mechanism::words(CKM_HKDF_DATA, &words);
    let wanted = Template::of_class(CKO_DATA).bool(CKA_TOKEN, false).ulong(CKA_VALUE_LEN, 12);
    let [attributes, count] = wanted.args();
    let mut derived: CK_OBJECT_HANDLE = 0;
    let arguments = [mechanism.arg(), Arg::number(base), attributes, count, Arg::of_mut(&mut derived)];
    session.call(F::C_DeriveKey, &arguments).ok()
}

/// The key pair of AUTH-M-1-32 for a token that does not have it: `NotOffered`, if it cannot make one.
pub fn key_pair(session: &Session<'_>, public: &[u8], secret: &[u8]) -> Verdict {
    if !session.find(&of_class(CKO_PRIVATE_KEY).bytes(CKA_LABEL, secret))?.is_empty() {
        return Ok(());
    }
    session.bench.offers(CKM_RSA_PKCS_KEY_PAIR_GEN, CKF_GENERATE_KEY_PAIR)?;
    let labelled = |template: Template, label: &[u8]| template.without(CKA_LABEL).bytes(CKA_LABEL, label);
    let pair = (labelled(rsa_public(2048), public), labelled(private(), secret));
    session.generate_pair(&Mechanism::plain(CKM_RSA_PKCS_KEY_PAIR_GEN), &pair.0, &pair.1).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_claimed_can_fail() {
        let unmet = || Err(Stop::fail("this", "that"));
        assert_eq!(judge(unmet(), || false), Err(Stop::NotOffered));
        assert_eq!(judge(unmet(), || true), unmet());
        assert!(matches!(judge(Err(Stop::NotOffered), || true), Err(Stop::Fail { .. })));
        assert_eq!(judge(Ok(()), || false), Ok(()));
    }

    #[test]
    fn every_profile_asks_for_the_baseline() {
        for profile in PROFILES {
            let named: Vec<_> = profile.all().map(Requirement::name).collect();
            for needed in ["C_GetInterface", "C_GetAttributeValue", "CKO_PROFILE", "CKA_UNIQUE_ID"] {
                assert!(named.contains(&needed), "{}: {needed}", profile.name);
            }
        }
    }
}
