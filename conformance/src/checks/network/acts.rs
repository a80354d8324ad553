//! The calls that are made while the network is bad, each with a way to see whether its result is right.

use aws_lc_rs::hmac;
use cryptoki_sys::*;

use crate::bench::{Bench, LABEL};
use crate::check::{Stop, Verdict, ensure};
use crate::marks::{Effect, Severity};
use crate::raw::{Arg, Function as F};
use crate::rv::Rv;
use crate::session::{P256, Session, ec_public, private};
use crate::template::{Mechanism, Out, Template};

/// Why a call under a fault did not do what was asked.
pub enum Trouble {
    /// It says that the token cannot be reached.
    Lost(Rv),
    /// It says something else.
    Odd(Rv),
    /// What it did is wrong.
    Wrong(Stop),
}

impl From<Stop> for Trouble {
    fn from(stop: Stop) -> Self {
        Self::Wrong(stop)
    }
}

/// What tells an application that the token cannot be reached (5.1.1 to 5.1.3).
const LOST: &[CK_RV] = &[
    CKR_DEVICE_ERROR,
    CKR_DEVICE_REMOVED,
    CKR_FUNCTION_FAILED,
    CKR_FUNCTION_CANCELED,
    CKR_TOKEN_NOT_PRESENT,
    CKR_TOKEN_NOT_RECOGNIZED,
    CKR_SESSION_CLOSED,
    CKR_SESSION_HANDLE_INVALID,
];

/// Sorts an answer.
///
/// # Errors
/// Anything but `CKR_OK`.
pub fn reached(rv: Rv) -> Result<(), Trouble> {
    match rv.code {
        CKR_OK => Ok(()),
        code if LOST.contains(&code) => Err(Trouble::Lost(rv)),
        _ => Err(Trouble::Odd(rv)),
    }
}

/// Whether the application was told that it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// `CKR_OK`.
    Done,
    /// Something else.
    Refused,
}

/// A call in a session that is ready for it. The number is another each time.
pub struct Ready<'b> {
    /// The session.
    pub session: Session<'b>,
    /// Makes the call.
    pub make: Box<dyn Fn(u32) -> Result<(), Trouble> + 'b>,
}

/// A call that is made while the network is bad.
pub struct Act {
    /// Its word in ids.
    pub word: &'static str,
    /// The function, for titles.
    pub function: &'static str,
    /// What it writes.
    pub effect: Effect,
    /// Makes it ready, while the network is good.
    pub set_up: for<'b> fn(&'b Bench) -> Result<Ready<'b>, Stop>,
    /// What is true afterwards, when the network is good again.
    pub afterwards: fn(&Session<'_>, u32, Told) -> Result<(), Trouble>,
}

/// All of them.
pub const ACTS: &[Act] = &[
    act("open", "C_OpenSession", open),
    act("login", "C_Login", login),
    act("find", "C_FindObjects", find),
    act("attribute", "C_GetAttributeValue", attribute),
    act("random", "C_GenerateRandom", random),
    act("sign", "C_Sign", sign),
    act("verify", "C_Verify", verify),
    act("encrypt", "C_Encrypt", encrypt),
    Act { effect: Effect::TokenObjects, afterwards: objects_once, ..act("create", "C_CreateObject", create) },
    Act {
        effect: Effect::TokenObjects,
        afterwards: pair_once,
        ..act("generate", "C_GenerateKeyPair", generate)
    },
];

const fn act(
    word: &'static str,
    function: &'static str,
    set_up: for<'b> fn(&'b Bench) -> Result<Ready<'b>, Stop>,
) -> Act {
    Act { word, function, effect: Effect::SessionObjects, set_up, afterwards: |_, _, _| Ok(()) }
}

/// A session of the user.
///
/// # Errors
/// A failure of `C_OpenSession` or `C_Login`.
pub fn logged_in(bench: &Bench) -> Result<Session<'_>, Stop> {
    let session = bench.session()?;
    if bench.token_info(bench.slot()?)?.flags & CKF_LOGIN_REQUIRED != 0 {
        session.login(CKU_USER, &bench.pin()?).one_of(&[CKR_OK, CKR_USER_ALREADY_LOGGED_IN])?;
    }
    Ok(session)
}

fn open(bench: &Bench) -> Result<Ready<'_>, Stop> {
    let (session, slot) = (logged_in(bench)?, bench.slot()?);
    let make = move |_| {
        let mut handle: CK_SESSION_HANDLE = 0;
        let flags = Arg::number(CKF_SERIAL_SESSION);
        let arguments = [Arg::number(slot), flags, Arg::NULL, Arg::NULL, Arg::of_mut(&mut handle)];
        reached(bench.module.call(F::C_OpenSession, &arguments))?;
        reached(Session { bench, handle }.close())
    };
    Ok(Ready { session, make: Box::new(make) })
}

fn login(bench: &Bench) -> Result<Ready<'_>, Stop> {
    let (session, pin) = (bench.session()?, bench.pin()?);
    let make = move |_| {
        let rv = session.login(CKU_USER, &pin);
        if rv.was(CKR_PIN_INCORRECT) || rv.was(CKR_PIN_LOCKED) {
            let expected = "a right PIN is not called wrong when the network is";
            return Err(Stop::graded(Severity::High, expected, rv.to_string()).into());
        }
        if !rv.was(CKR_USER_ALREADY_LOGGED_IN) {
            reached(rv)?;
        }
        reached(session.logout())
    };
    Ok(Ready { session, make: Box::new(make) })
}

fn find(bench: &Bench) -> Result<Ready<'_>, Stop> {
    let session = logged_in(bench)?;
    let marked = || Template::data().bytes(CKA_APPLICATION, b"network.find");
    let mut wanted =
        (0..3).map(|_| session.create(&marked())).collect::<Result<Vec<CK_OBJECT_HANDLE>, Stop>>()?;
    wanted.sort_unstable();
    let make = move |_| {
        let mut found = search(&session, &Template::new().bytes(CKA_APPLICATION, b"network.find"))?;
        found.sort_unstable();
        let seen = format!("{} of them, or others", found.len());
        Ok(ensure(found == wanted, "a search that ends well finds the three objects that are there", seen)?)
    };
    Ok(Ready { session, make: Box::new(make) })
}

/// Searches, and ends the search in any case.
fn search(session: &Session<'_>, template: &Template) -> Result<Vec<CK_OBJECT_HANDLE>, Trouble> {
    reached(session.find_init(template))?;
    let mut all = Vec::new();
    let ended = loop {
        let (rv, mut some) = session.find_next(64);
        if let Err(trouble) = reached(rv) {
            break Err(trouble);
        }
        if some.is_empty() {
            break Ok(());
        }
        all.append(&mut some);
    };
    let end = session.find_final();
    ended?;
    reached(end)?;
    Ok(all)
}

fn attribute(bench: &Bench) -> Result<Ready<'_>, Stop> {
    let session = logged_in(bench)?;
    let value = bench.random().bytes(40);
    let object = session.create(&Template::data().without(CKA_VALUE).bytes(CKA_VALUE, &value))?;
    let make = move |_| {
        let mut asked = Template::new().room(CKA_VALUE, value.len());
        reached(session.query(object, &mut asked))?;
        Ok(ensure(asked.value(0) == value, "the value of the attribute", "another value")?)
    };
    Ok(Ready { session, make: Box::new(make) })
}

fn random(bench: &Bench) -> Result<Ready<'_>, Stop> {
    let session = logged_in(bench)?;
    let last = std::cell::RefCell::new(vec![0_u8; 32]);
    let make = move |_| {
        let mut bytes = vec![0; 32];
        reached(session.call(F::C_GenerateRandom, &[Arg::slice_mut(&mut bytes), Arg::number(32)]))?;
        let is_new = bytes.iter().any(|byte| *byte != 0) && *last.borrow() != bytes;
        last.replace(bytes);
        Ok(ensure(is_new, "32 bytes that were not there before", "zeros, or those of the call before")?)
    };
    Ok(Ready { session, make: Box::new(make) })
}

/// The value of [`Session::hmac_key`].
const HMAC_KEY: [u8; 32] = [0x0b; 32];

fn message(number: u32) -> Vec<u8> {
    [b"message ".as_slice(), &number.to_be_bytes()].concat()
}

fn sign(bench: &Bench) -> Result<Ready<'_>, Stop> {
    let session = logged_in(bench)?;
    let key = session.hmac_key()?;
    let make = move |number| {
        let data = message(number);
        reached(session.init(F::C_SignInit, &Mechanism::plain(CKM_SHA256_HMAC), Some(key)))?;
        let mut out = Out::room(64);
        reached(session.run(F::C_Sign, &data, &mut out))?;
        let expected = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &HMAC_KEY), &data);
        let seen = "another one, perhaps the answer to an earlier call";
        Ok(ensure(out.bytes() == expected.as_ref(), "the signature of this message", seen)?)
    };
    Ok(Ready { session, make: Box::new(make) })
}

fn verify(bench: &Bench) -> Result<Ready<'_>, Stop> {
    let session = logged_in(bench)?;
    let key = session.hmac_key()?;
    let make = move |number| {
        let data = message(number);
        let mut signature =
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &HMAC_KEY), &data).as_ref().to_vec();
        let is_forged = number % 2 == 1;
        if let Some(byte) = signature.first_mut().filter(|_| is_forged) {
            *byte ^= 1;
        }
        reached(session.init(F::C_VerifyInit, &Mechanism::plain(CKM_SHA256_HMAC), Some(key)))?;
        let rv = session.verify(&data, &signature);
        match (rv.code, is_forged) {
            (CKR_OK, true) => {
                Err(Stop::graded(Severity::Critical, "a forged signature is refused", rv.to_string()).into())
            }
            (CKR_SIGNATURE_INVALID, false) => {
                let expected = "a good signature is not called a forgery when the network is bad";
                Err(Stop::graded(Severity::High, expected, rv.to_string()).into())
            }
            (CKR_SIGNATURE_INVALID, true) => Ok(()),
            _ => reached(rv),
        }
    };
    Ok(Ready { session, make: Box::new(make) })
}

fn encrypt(bench: &Bench) -> Result<Ready<'_>, Stop> {
    bench.offers(CKM_AES_CBC, CKF_ENCRYPT)?;
    let session = logged_in(bench)?;
    let template = Template::secret(CKK_AES, &[0x0b; 16]).bool(CKA_PRIVATE, true);
    let key = session.create(&template.usages(&[CKA_ENCRYPT, CKA_DECRYPT]))?;
    let mechanism = Mechanism::bytes(CKM_AES_CBC, &[0; 16]);
    let wanted = session.transform(F::C_EncryptInit, F::C_Encrypt, &mechanism, key, &[7; 64])?;
    let make = move |_| {
        reached(session.init(F::C_EncryptInit, &Mechanism::bytes(CKM_AES_CBC, &[0; 16]), Some(key)))?;
        let mut out = Out::room(80);
        reached(session.run(F::C_Encrypt, &[7; 64], &mut out))?;
        Ok(ensure(out.bytes() == wanted, "the ciphertext that the good network gave", "another one")?)
    };
    Ok(Ready { session, make: Box::new(make) })
}

/// The mark of the objects that one call makes.
fn mark(number: u32) -> Vec<u8> {
    [b"network".as_slice(), &std::process::id().to_be_bytes(), &number.to_be_bytes()].concat()
}

fn create(bench: &Bench) -> Result<Ready<'_>, Stop> {
    let session = logged_in(bench)?;
    let make = move |number| {
        let template = Template::data().without(CKA_TOKEN).bool(CKA_TOKEN, true);
        reached(session.try_create(&template.bytes(CKA_APPLICATION, &mark(number))).0)
    };
    Ok(Ready { session, make: Box::new(make) })
}

/// What the token holds of a call's objects; they are destroyed.
fn take_away(session: &Session<'_>, template: &Template) -> Result<usize, Trouble> {
    let objects = search(session, template)?;
    for object in &objects {
        reached(session.destroy(*object))?;
    }
    Ok(objects.len())
}

fn objects_once(session: &Session<'_>, number: u32, told: Told) -> Result<(), Trouble> {
    let made = take_away(session, &Template::new().bytes(CKA_APPLICATION, &mark(number)))?;
    Ok(once("object", [made, made], told)?)
}

fn generate(bench: &Bench) -> Result<Ready<'_>, Stop> {
    bench.offers(CKM_EC_KEY_PAIR_GEN, CKF_GENERATE_KEY_PAIR)?;
    let session = logged_in(bench)?;
    let make = move |number| {
        let of_token = |template: Template| {
            let template = template.without(CKA_TOKEN).bool(CKA_TOKEN, true).without(CKA_LABEL);
            template.bytes(CKA_LABEL, LABEL).bytes(CKA_ID, &mark(number))
        };
        let (public, private) = (of_token(ec_public(P256)), of_token(private()));
        reached(session.try_generate_pair(&Mechanism::plain(CKM_EC_KEY_PAIR_GEN), &public, &private).0)
    };
    Ok(Ready { session, make: Box::new(make) })
}

fn pair_once(session: &Session<'_>, number: u32, told: Told) -> Result<(), Trouble> {
    let of = |class| take_away(session, &Template::of_class(class).bytes(CKA_ID, &mark(number)));
    let made = [of(CKO_PUBLIC_KEY)?, of(CKO_PRIVATE_KEY)?];
    Ok(once("key pair", made, told)?)
}

/// Whether what a call made is there once if it said so, else once or not at all.
fn once(what: &str, made: [usize; 2], told: Told) -> Verdict {
    let seen = || format!("{} and {} after {told:?}", made[0], made[1]);
    match (made, told) {
        ([1, 1], _) | ([0, 0], Told::Refused) => Ok(()),
        ([0, 0], Told::Done) => Err(Stop::fail(format!("the {what} that was made is there"), seen())),
        ([0..=1, 0..=1], _) => {
            let expected = format!("a whole {what} or none: a public key and its private key");
            Err(Stop::graded(Severity::Medium, expected, seen()))
        }
        _ => Err(Stop::fail(format!("one {what}, whatever becomes of the answer"), seen())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_twice_or_by_halves_is_found() {
        assert_eq!(once("pair", [1, 1], Told::Done), Ok(()));
        assert_eq!(once("pair", [1, 1], Told::Refused), Ok(()));
        assert_eq!(once("pair", [0, 0], Told::Refused), Ok(()));
        for made in [[2, 2], [1, 2], [0, 1], [1, 0]] {
            assert!(once("pair", made, Told::Refused).is_err() && once("pair", made, Told::Done).is_err());
        }
        assert!(once("pair", [0, 0], Told::Done).is_err());
    }

    #[test]
    fn answers_are_sorted() {
        let of = |code| reached(Rv { function: F::C_Sign, code });
        assert!(matches!(of(CKR_DEVICE_REMOVED), Err(Trouble::Lost(_))) && of(CKR_OK).is_ok());
        assert!(matches!(of(CKR_KEY_HANDLE_INVALID), Err(Trouble::Odd(_))));
    }
}
