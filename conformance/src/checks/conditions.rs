//! Every function in the conditions for which its section lists a refusal (chapter 5): nobody is logged in, the session
//! is read-only, its operation is active already.
//!
//! One table says of which functions each condition is tried; what other chapters try by hand stands there with the
//! check that does. A test holds the table against the return values that the standard lists (`returns.rs`).

use cryptoki_sys::*;

use crate::bench::{Bench, Stage};
use crate::check::{Check, Stop, Verdict};
use crate::marks::Severity;
use crate::mechanisms::keys::{self, Allowed};
use crate::mechanisms::{Half, Keys, ROWS, Row, Use, parameters};
use crate::raw::{Arg, Function as F};
use crate::rv::Rv;
use crate::session::{P256, Session, ec_public, private};
use crate::signature::{self, Kind};
use crate::template::{Mechanism, Template};

/// Why a function must refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    /// Nobody is logged in.
    NotLoggedIn,
    /// The session is read-only, and the object is to be on the token.
    ReadOnly,
    /// The operation that it begins is active already.
    Active,
}
use Condition::{Active, NotLoggedIn, ReadOnly};

/// How a function is brought to refuse.
#[derive(Clone, Copy)]
enum Try {
    /// It makes an object like this one: private in one condition, of the token in the other.
    Object,
    /// It makes a key pair.
    Pair,
    /// It takes a key for a use, and a mechanism that has this flag.
    Key(Use, CK_FLAGS),
    /// Another chapter's check does.
    #[cfg_attr(not(test), allow(dead_code, reason = "the table's test sees that there is such a check"))]
    By(&'static str),
}
use Try::{By, Key, Object, Pair};

#[rustfmt::skip]
const TABLE: &[(F, Try, &[Condition])] = &[
    (F::C_InitPIN,            By("login.init-pin-as-user"),                  &[NotLoggedIn]),
    (F::C_Logout,             By("login.logout-first"),                       &[NotLoggedIn]),
    (F::C_SetPIN,             By("login.set-pin-read-only"),                  &[ReadOnly]),
    (F::C_CreateObject,       By("login.create-private"),                     &[NotLoggedIn]),
    (F::C_CreateObject,       By("sessions.read-only-token-object"),          &[ReadOnly]),
    (F::C_DestroyObject,      By("objects.set-read-only-session"),            &[ReadOnly]),
    (F::C_SetAttributeValue,  By("objects.set-read-only-session"),            &[ReadOnly]),
    (F::C_GenerateKey,        By("login.generate-private"),                   &[NotLoggedIn]),
    (F::C_GenerateKey,        By("sessions.read-only-token-key"),             &[ReadOnly]),
    (F::C_FindObjectsInit,    By("find.init-twice"),                          &[Active]),
    (F::C_EncryptInit,        By("encrypt.init-twice"),                       &[Active]),
    (F::C_DecryptInit,        By("decrypt.init-twice"),                       &[Active]),
    (F::C_DigestInit,         By("digest.init-twice"),                        &[Active]),
    (F::C_SignInit,           By("sign.init-twice"),                          &[Active]),
    (F::C_VerifyInit,         By("verify.init-twice"),                        &[Active]),

    (F::C_CopyObject,         Object,                                         &[NotLoggedIn, ReadOnly]),
    (F::C_GenerateKeyPair,    Pair,                                           &[NotLoggedIn, ReadOnly]),
    (F::C_EncryptInit,        Key(Use::Encrypt, CKF_ENCRYPT),                 &[NotLoggedIn]),
    (F::C_DecryptInit,        Key(Use::Decrypt, CKF_DECRYPT),                 &[NotLoggedIn]),
    (F::C_SignInit,           Key(Use::Sign, CKF_SIGN),                       &[NotLoggedIn]),
    (F::C_VerifyInit,         Key(Use::Verify, CKF_VERIFY),                   &[NotLoggedIn]),
    (F::C_SignRecoverInit,    Key(Use::SignRecover, CKF_SIGN_RECOVER),        &[NotLoggedIn, Active]),
    (F::C_VerifyRecoverInit,  Key(Use::VerifyRecover, CKF_VERIFY_RECOVER),    &[Active]),
    (F::C_MessageEncryptInit, Key(Use::Encrypt, CKF_MESSAGE_ENCRYPT),         &[NotLoggedIn, Active]),
    (F::C_MessageDecryptInit, Key(Use::Decrypt, CKF_MESSAGE_DECRYPT),         &[NotLoggedIn, Active]),
    (F::C_MessageSignInit,    Key(Use::Sign, CKF_MESSAGE_SIGN),               &[NotLoggedIn, Active]),
    (F::C_MessageVerifyInit,  Key(Use::Verify, CKF_MESSAGE_VERIFY),           &[NotLoggedIn, Active]),
    (F::C_VerifySignatureInit, Key(Use::Verify, CKF_VERIFY),                  &[NotLoggedIn, Active]),
    (F::C_WrapKey,            Key(Use::Wrap, CKF_WRAP),                       &[NotLoggedIn]),
    (F::C_WrapKeyAuthenticated, Key(Use::Wrap, CKF_WRAP),                     &[NotLoggedIn]),
    (F::C_UnwrapKey,          Key(Use::Unwrap, CKF_UNWRAP),                   &[NotLoggedIn, ReadOnly]),
    (F::C_UnwrapKeyAuthenticated, Key(Use::Unwrap, CKF_UNWRAP),               &[NotLoggedIn, ReadOnly]),
    (F::C_DeriveKey,          Key(Use::Derive, CKF_DERIVE),                   &[NotLoggedIn, ReadOnly]),
    (F::C_EncapsulateKey,     Key(Use::Encapsulate, CKF_ENCAPSULATE),         &[ReadOnly]),
    (F::C_DecapsulateKey,     Key(Use::Decapsulate, CKF_DECAPSULATE),         &[NotLoggedIn, ReadOnly]),
];

/// What refuses a private key's handle when nobody is logged in: the key is not there, or the user is not.
const NO_KEY_OF_YOURS: &[CK_RV] = &[
    CKR_USER_NOT_LOGGED_IN,
    CKR_KEY_HANDLE_INVALID,
    CKR_OBJECT_HANDLE_INVALID,
    CKR_WRAPPING_KEY_HANDLE_INVALID,
    CKR_UNWRAPPING_KEY_HANDLE_INVALID,
];

impl Condition {
    const fn word(self) -> &'static str {
        match self {
            NotLoggedIn => "not-logged-in",
            ReadOnly => "read-only",
            Active => "active",
        }
    }

    const fn code(self) -> CK_RV {
        match self {
            NotLoggedIn => CKR_USER_NOT_LOGGED_IN,
            ReadOnly => CKR_SESSION_READ_ONLY,
            Active => CKR_OPERATION_ACTIVE,
        }
    }

    fn title(self, name: &str) -> String {
        match self {
            NotLoggedIn => format!("{name} does nothing private when nobody is logged in"),
            ReadOnly => format!("{name} puts nothing on the token in a read-only session"),
            Active => format!("{name} does not begin an operation that is active"),
        }
    }

    /// The attribute that asks for what must be refused.
    const fn attribute(self) -> CK_ATTRIBUTE_TYPE {
        match self {
            NotLoggedIn | Active => CKA_PRIVATE,
            ReadOnly => CKA_TOKEN,
        }
    }
}

/// The checks of this table.
pub fn checks() -> Vec<Check> {
    let rows = TABLE.iter().flat_map(|(function, attempt, conditions)| {
        conditions.iter().map(move |condition| (*function, *attempt, *condition))
    });
    rows.filter(|(_, attempt, _)| !matches!(attempt, By(_)))
        .map(|(function, attempt, condition)| {
            let name = function.name();
            let id = format!("functions.{name}-{}", condition.word());
            let clause = format!("5.1.6 {}; {name}", crate::rv::name(condition.code()));
            let stage = match condition {
                NotLoggedIn => Stage::Public,
                ReadOnly | Active => Stage::User,
            };
            let check = Check::case(id, stage, clause, condition.title(name), move |bench| {
                refuses(bench, function, attempt, condition)
            });
            match condition {
                NotLoggedIn => check.session_objects().authentication(),
                // A module that does not refuse has made an object that stays.
                ReadOnly => check.sessions().token_objects(),
                Active => check.operations(),
            }
            .patience(60)
        })
        .collect()
}

fn refuses(bench: &Bench, function: F, attempt: Try, condition: Condition) -> Verdict {
    if !bench.module.has(function) {
        return Err(Stop::NotOffered);
    }
    let session = match condition {
        NotLoggedIn | Active => bench.session()?,
        ReadOnly => bench.read_only()?,
    };
    let rv = match attempt {
        Object => copy(&session, condition)?,
        Pair => pair(&session, condition)?,
        Key(wanted, flag) => match condition {
            NotLoggedIn => return nobody_uses(&session, function, wanted, flag),
            ReadOnly | Active => again(&session, function, wanted, flag, condition)?,
        },
        By(_) => return Err(Stop::NotOffered),
    };
    answer(rv, &[condition.code()])
}

/// One of these, unless the function does not exist after all.
fn answer(rv: Rv, right: &[CK_RV]) -> Verdict {
    match rv.code {
        CKR_FUNCTION_NOT_SUPPORTED => Err(Stop::NotOffered),
        CKR_TOKEN_WRITE_PROTECTED if right.contains(&CKR_SESSION_READ_ONLY) => Ok(()),
        _ => rv.one_of(right),
    }
}

fn copy(session: &Session<'_>, condition: Condition) -> Result<Rv, Stop> {
    if condition == NotLoggedIn {
        session.bench.knows_users()?;
    }
    let object = session.create(&Template::data())?;
    Ok(session.copy(object, &Template::new().bool(condition.attribute(), true)).0)
}

fn pair(session: &Session<'_>, condition: Condition) -> Result<Rv, Stop> {
    if condition == NotLoggedIn {
        session.bench.knows_users()?;
    }
    session.bench.offers(CKM_EC_KEY_PAIR_GEN, CKF_GENERATE_KEY_PAIR)?;
    let asked = private().without(condition.attribute()).bool(condition.attribute(), true);
    Ok(session.try_generate_pair(&Mechanism::plain(CKM_EC_KEY_PAIR_GEN), &ec_public(P256), &asked).0)
}

/// What a call needs to go well.
struct Honest {
    mechanism: Mechanism,
    key: CK_OBJECT_HANDLE,
    /// What is wrapped.
    target: CK_OBJECT_HANDLE,
    /// What is unwrapped, or verified.
    input: Vec<u8>,
}

/// With a mechanism that has this flag and a key of this session: a call that was seen to go well in another session.
/// Secret keys are made faster than pairs.
fn honest(session: &Session<'_>, function: F, wanted: Use, flag: CK_FLAGS) -> Result<Honest, Stop> {
    let bench = session.bench;
    let fits = |row: &&Row| row.uses.contains(&wanted) && bench.offers(row.number, flag).is_ok();
    let mut rows: Vec<&Row> = ROWS.iter().filter(fits).collect();
    rows.sort_by_key(|row| !matches!(row.keys, Keys::Secret(..)));
    for row in rows {
        let Ok(pair) = keys::subject(session, row.keys, wanted, Allowed::Yes) else { continue };
        let key = match wanted.key() {
            Some((Half::Public, _)) => pair.public,
            Some((Half::Private, _)) | None => pair.private,
        };
        for parameter in parameters::good(row, session, pair) {
            let mechanism = parameter.mechanism(row.number);
            let input = match wanted {
                Use::Unwrap => keys::wrapped(session, &mechanism, pair.public),
                _ => vec![0x5a; 32],
            };
            let target = if wanted == Use::Wrap { keys::wrappable(session)? } else { 0 };
            let honest = Honest { mechanism, key, target, input };
            let trial = bench.session()?;
            let rv = call(&trial, function, &honest, &product(wanted));
            trial.close().ok()?;
            match rv.code {
                CKR_OK => return Ok(honest),
                CKR_FUNCTION_NOT_SUPPORTED => return Err(Stop::NotOffered),
                _ => {}
            }
        }
    }
    Err(Stop::NotOffered)
}

/// What a derivation or an unwrapping makes, for the session. What is unwrapped has its own length.
fn product(wanted: Use) -> Template {
    let template = keys::product(Keys::Other);
    if wanted == Use::Unwrap { template.without(CKA_VALUE_LEN) } else { template }
}

/// Uses a private key whose user has logged out.
fn nobody_uses(session: &Session<'_>, function: F, wanted: Use, flag: CK_FLAGS) -> Verdict {
    session.bench.knows_users()?;
    session.login(CKU_USER, &session.bench.pin()?).ok()?;
    let honest = honest(session, function, wanted, flag)?;
    if session.attribute(honest.key, CKA_PRIVATE)? != [1] {
        return Err(Stop::NotOffered);
    }
    session.logout().ok()?;
    let rv = call(session, function, &honest, &product(wanted));
    match answer(rv, NO_KEY_OF_YOURS) {
        Err(Stop::Fail { expected, seen, .. }) if rv.was(CKR_OK) => {
            Err(Stop::graded(Severity::High, expected, format!("{seen}, with a private key and no login")))
        }
        verdict => verdict,
    }
}

/// Makes an object of the token, or begins what has begun.
fn again(
    session: &Session<'_>,
    function: F,
    wanted: Use,
    flag: CK_FLAGS,
    condition: Condition,
) -> Result<Rv, Stop> {
    let honest = honest(session, function, wanted, flag)?;
    match condition {
        ReadOnly => {
            let on_token = product(wanted).without(CKA_TOKEN).bool(CKA_TOKEN, true);
            Ok(call(session, function, &honest, &on_token))
        }
        NotLoggedIn | Active => {
            call(session, function, &honest, &product(wanted)).ok()?;
            Ok(call(session, function, &honest, &product(wanted)))
        }
    }
}

/// Calls a function that takes a mechanism and keys, with everything in order.
fn call(session: &Session<'_>, function: F, honest: &Honest, template: &Template) -> Rv {
    let mut objects = [honest.key, honest.target].into_iter();
    let mut room = [0_u64; 256];
    let mut length = size_of_val(&room) as CK_ULONG;
    let mut made: CK_OBJECT_HANDLE = 0;
    let (output, length, made) =
        (Arg::slice_mut(&mut room), Arg::of_mut(&mut length), Arg::of_mut(&mut made));
    let [attributes, count] = template.args();
    let mut size = count;
    let mut arguments = Vec::new();
    for kind in signature::of(function).iter().skip(1) {
        arguments.push(match kind {
            Kind::Mechanism => honest.mechanism.arg(),
            Kind::Object => Arg::number(objects.next().unwrap_or(0)),
            Kind::Template => {
                size = count;
                attributes
            }
            Kind::Input => {
                size = Arg::number(honest.input.len() as CK_ULONG);
                Arg::slice(&honest.input)
            }
            Kind::Size => size,
            Kind::Output => output,
            Kind::Room => length,
            Kind::NewObject => made,
            Kind::Slot
            | Kind::Session
            | Kind::Number
            | Kind::Question
            | Kind::Pin
            | Kind::Parameter
            | Kind::Arguments
            | Kind::Label
            | Kind::List
            | Kind::Handles
            | Kind::NewSession
            | Kind::NewNumber
            | Kind::Pointer => Arg::NULL,
        });
    }
    session.call(function, &arguments)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::by_id;
    use crate::returns;

    /// Functions whose sections list the code and that cannot be brought to it so: the steps of an operation, whose
    /// beginning is tried; random data, which needs no login; one more user than there is; a change of an attribute,
    /// whose object is not there without a login; and searches and public keys, which nobody needs to be logged in for.
    fn is_excused(function: F, condition: Condition) -> bool {
        let name = function.name();
        let begins = name.ends_with("Init");
        match condition {
            Active => !begins,
            ReadOnly => function == F::C_InitPIN,
            NotLoggedIn => {
                let is_key_use = begins
                    || ["Wrap", "Unwrap", "Derive", "Generate", "Decapsulate"]
                        .iter()
                        .any(|word| name.starts_with(&format!("C_{word}")) && name.contains("Key"));
                let makes =
                    matches!(function, F::C_CreateObject | F::C_CopyObject | F::C_InitPIN | F::C_Logout);
                let is_public = matches!(function, F::C_DigestInit | F::C_VerifyRecoverInit);
                is_public || !(is_key_use || makes)
            }
        }
    }

    #[test]
    fn every_listed_refusal_is_tried_once() {
        for function in F::ALL {
            for condition in [NotLoggedIn, ReadOnly, Active] {
                let rows = TABLE
                    .iter()
                    .filter(|(other, _, conditions)| other == function && conditions.contains(&condition));
                let listed = returns::of(*function).contains(&condition.code());
                let wanted = usize::from(listed && !is_excused(*function, condition));
                assert_eq!(rows.count(), wanted, "{} {condition:?}", function.name());
            }
        }
    }

    #[test]
    fn what_is_tried_elsewhere_is() {
        for (function, attempt, _) in TABLE {
            if let By(id) = attempt {
                assert!(by_id(id).is_some(), "{}: there is no check {id}", function.name());
            }
        }
        assert!(checks().len() > 25, "{}", checks().len());
    }

    #[test]
    fn what_asks_for_token_objects_is_never_made_read_only() {
        let checks = checks();
        let mut asks = checks.iter().filter(|check| check.id.ends_with("-read-only")).peekable();
        assert!(asks.peek().is_some());
        assert!(asks.all(|check| !check.effect.is_read_only()));
    }
}
