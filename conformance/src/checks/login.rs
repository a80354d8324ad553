//! Chapters 5.5.8 to 5.6.10: PINs, logins and what a login shows. A wrong PIN is tried once and then the right one.

use cryptoki_sys::*;

use crate::bench::{Bench, LABEL};
use crate::check::{Stop, Verdict, ensure, table};
use crate::raw::{Arg, Function as F};
use crate::report::counted;
use crate::rv::Rv;
use crate::session::Session;
use crate::template::{Mechanism, Template};

table! {
    all authentication;
    "login.right" Token right, "5.6.8 C_Login", "the right PIN changes the state of every session";
    "login.wrong" Token wrong, "5.6.8 C_Login", "a wrong PIN is CKR_PIN_INCORRECT and logs nobody in" => pins critical;
    "login.so-wrong" Token so_wrong, "5.6.8 C_Login", "a wrong PIN of the SO is CKR_PIN_INCORRECT and logs nobody in" => pins critical;
    "login.private-guessed" Token private_guessed, "5.6.8 C_Login, 5.7.5", "nobody who guesses handles reads a private object without a login" => high token_objects;
    "login.named" Token named, "5.6.9 C_LoginUser (3.0)", "C_LoginUser with an empty name is C_Login";
    "login.named-wrong" Token named_wrong, "5.6.9 C_LoginUser (3.0)", "a wrong PIN in C_LoginUser is CKR_PIN_INCORRECT and logs nobody in" => pins critical;
    "login.named-twice" Token named_twice, "5.6.9 C_LoginUser (3.0)", "a second C_LoginUser is CKR_USER_ALREADY_LOGGED_IN";
    "login.user-type" Token user_type, "5.6.8 C_Login", "a user type that does not exist is CKR_USER_TYPE_INVALID" => pins;
    "login.twice" Token twice, "5.6.8 C_Login", "the second login is CKR_USER_ALREADY_LOGGED_IN, in any session";
    "login.other-user" Token other_user, "5.6.8 C_Login", "the SO does not log in while the user is";
    "login.context" Token context, "5.6.8 C_Login", "a login for an operation needs an operation";
    "login.always-authenticate" Token always_authenticate, "4.9 CKA_ALWAYS_AUTHENTICATE", "a key that asks for the PIN each time signs once for each PIN, and not without" => high session_objects;
    "login.logout" Token logout, "5.6.10 C_Logout", "after C_Logout the sessions are public again";
    "login.logout-first" Token logout_first, "5.6.10 C_Logout", "C_Logout needs a login";
    "login.ends-with-last-session" Token ends_with_last_session, "5.6.2 C_CloseSession", "the login ends with the last session";
    "login.new-session" Token new_session, "5.6.1 C_OpenSession", "a new session of a logged-in application is logged in";
    "login.create-private" Public create_private, "5.7.1 C_CreateObject", "a private object needs a login" => high session_objects;
    "login.generate-private" Public generate_private, "5.18.1 C_GenerateKey", "a private key needs a login" => high session_objects;
    "login.create-public" Public create_public, "5.7.1 C_CreateObject", "a public session object needs no login" => session_objects;
    "login.private-hidden" Token private_hidden, "5.7.7 C_FindObjectsInit", "private objects are not found without a login" => critical token_objects;
    "login.private-handle" Token private_handle, "5.6.10 C_Logout", "handles of private objects die with the logout, also for the next login" => critical session_objects;
    "login.private-ends" Token private_ends, "5.6.10 C_Logout", "private session objects are destroyed by the logout" => high session_objects;
    "login.so" Token so, "5.6.8 C_Login", "the SO logs in, sees the SO's state, and keeps the user out";
    "login.so-read-only" Token so_read_only, "5.6.8 C_Login", "the SO does not log in while a read-only session is open";
    "login.so-then-read-only" Token so_then_read_only, "5.6.1 C_OpenSession", "no read-only session opens while the SO is logged in";
    "login.so-no-private" Token so_no_private, "5.6 Session management", "the SO makes no private object" => high session_objects;
}

/// What no token's PIN is.
pub const WRONG: &[u8] = b"wrong-0987";

pub fn login<'b>(bench: &'b Bench) -> Result<Session<'b>, crate::check::Stop> {
    let session = bench.session()?;
    session.login(CKU_USER, &bench.pin()?).ok()?;
    Ok(session)
}

fn state(session: &Session<'_>, expected: CK_STATE) -> Verdict {
    let seen = session.info()?.state;
    ensure(seen == expected, format!("state {expected}"), format!("state {seen}"))
}

fn right(bench: &Bench) -> Verdict {
    let (read_only, read_write) = (bench.read_only()?, bench.session()?);
    read_only.login(CKU_USER, &bench.pin()?).ok()?;
    state(&read_only, CKS_RO_USER_FUNCTIONS)?;
    state(&read_write, CKS_RW_USER_FUNCTIONS)
}

fn wrong(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let pin = bench.pin()?;
    let rv = session.login(CKU_USER, WRONG);
    let seen = session.info()?.state;
    session.login(CKU_USER, &pin).ok()?;
    rv.is(CKR_PIN_INCORRECT)?;
    ensure(seen == CKS_RW_PUBLIC_SESSION, "a public session", format!("state {seen}"))
}

/// `C_LoginUser` as the user, whose name is empty.
fn login_user(session: &Session<'_>, pin: &[u8]) -> Result<Rv, Stop> {
    let (length, name) = (Arg::number(pin.len() as CK_ULONG), Arg::slice(b"none"));
    let arguments = [Arg::number(CKU_USER), Arg::slice(pin), length, name, Arg::number(0)];
    match session.call(F::C_LoginUser, &arguments) {
        rv if rv.was(CKR_FUNCTION_NOT_SUPPORTED) => Err(Stop::NotOffered),
        rv => Ok(rv),
    }
}

fn named(bench: &Bench) -> Verdict {
    let (session, pin) = (bench.session()?, bench.pin()?);
    login_user(&session, &pin)?.ok()?;
    state(&session, CKS_RW_USER_FUNCTIONS)?;
    session.logout().ok()
}

fn named_wrong(bench: &Bench) -> Verdict {
    let (session, pin) = (bench.session()?, bench.pin()?);
    let rv = login_user(&session, WRONG)?;
    let seen = session.info()?.state;
    session.login(CKU_USER, &pin).ok()?;
    rv.is(CKR_PIN_INCORRECT)?;
    ensure(seen == CKS_RW_PUBLIC_SESSION, "a public session", format!("state {seen}"))
}

fn named_twice(bench: &Bench) -> Verdict {
    let (session, pin) = (bench.session()?, bench.pin()?);
    login_user(&session, &pin)?.ok()?;
    login_user(&session, &pin)?.is(CKR_USER_ALREADY_LOGGED_IN)
}

fn so_wrong(bench: &Bench) -> Verdict {
    let (session, pin) = (bench.session()?, bench.so_pin()?);
    let rv = session.login(CKU_SO, WRONG);
    let seen = session.info()?.state;
    session.login(CKU_SO, &pin).ok()?;
    rv.is(CKR_PIN_INCORRECT)?;
    ensure(seen == CKS_RW_PUBLIC_SESSION, "a public session", format!("state {seen}"))
}

fn user_type(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    for user in [3, 99, CK_ULONG::MAX] {
        session.login(user, WRONG).is(CKR_USER_TYPE_INVALID)?;
    }
    Ok(())
}

fn twice(bench: &Bench) -> Verdict {
    let pin = bench.pin()?;
    let session = login(bench)?;
    session.login(CKU_USER, &pin).is(CKR_USER_ALREADY_LOGGED_IN)?;
    bench.session()?.login(CKU_USER, &pin).is(CKR_USER_ALREADY_LOGGED_IN)
}

fn other_user(bench: &Bench) -> Verdict {
    let so_pin = bench.so_pin()?;
    login(bench)?.login(CKU_SO, &so_pin).is(CKR_USER_ANOTHER_ALREADY_LOGGED_IN)
}

fn context(bench: &Bench) -> Verdict {
    let pin = bench.pin()?;
    login(bench)?.login(CKU_CONTEXT_SPECIFIC, &pin).is(CKR_OPERATION_NOT_INITIALIZED)
}

/// The template of a key that wants its own login for each signature. Tokens need not have such keys.
fn guarded(session: &Session<'_>) -> Result<CK_OBJECT_HANDLE, crate::check::Stop> {
    use crate::session::{P256, ec_public, private};
    session.bench.offers(CKM_EC_KEY_PAIR_GEN, CKF_GENERATE_KEY_PAIR)?;
    session.bench.offers(CKM_ECDSA, CKF_SIGN)?;
    let template = private().bool(CKA_ALWAYS_AUTHENTICATE, true);
    let mechanism = Mechanism::plain(CKM_EC_KEY_PAIR_GEN);
    match session.try_generate_pair(&mechanism, &ec_public(P256), &template) {
        (rv, pair) if rv.was(CKR_OK) => Ok(pair.private),
        _ => Err(crate::check::Stop::NotOffered),
    }
}

fn always_authenticate(bench: &Bench) -> Verdict {
    let pin = bench.pin()?;
    let session = login(bench)?;
    let key = guarded(&session)?;
    let begin = || session.init(F::C_SignInit, &Mechanism::plain(CKM_ECDSA), Some(key)).ok();
    let sign = || session.run(F::C_Sign, &[7; 32], &mut crate::template::Out::room(64));
    begin()?;
    sign().is(CKR_USER_NOT_LOGGED_IN)?;
    let _ended = sign();
    begin()?;
    session.login(CKU_CONTEXT_SPECIFIC, &pin).ok()?;
    sign().ok()?;
    begin()?;
    sign().is(CKR_USER_NOT_LOGGED_IN)
}

fn logout(bench: &Bench) -> Verdict {
    let session = login(bench)?;
    let read_only = bench.read_only()?;
    session.logout().ok()?;
    state(&session, CKS_RW_PUBLIC_SESSION)?;
    state(&read_only, CKS_RO_PUBLIC_SESSION)
}

fn logout_first(bench: &Bench) -> Verdict {
    bench.session()?.logout().is(CKR_USER_NOT_LOGGED_IN)
}

fn ends_with_last_session(bench: &Bench) -> Verdict {
    let session = login(bench)?;
    let other = bench.session()?;
    session.close().ok()?;
    state(&other, CKS_RW_USER_FUNCTIONS)?;
    other.close().ok()?;
    state(&bench.session()?, CKS_RW_PUBLIC_SESSION)
}

fn new_session(bench: &Bench) -> Verdict {
    let _session = login(bench)?;
    state(&bench.read_only()?, CKS_RO_USER_FUNCTIONS)?;
    state(&bench.session()?, CKS_RW_USER_FUNCTIONS)
}

fn private_data() -> Template {
    Template::data().without(CKA_PRIVATE).bool(CKA_PRIVATE, true)
}

/// A private object of a user who is logged in: a data object, or a key where data objects are public.
fn private_object(
    session: &Session<'_>,
    settle: impl Fn(Template) -> Template,
) -> Result<CK_OBJECT_HANDLE, Stop> {
    let (rv, object) = session.try_create(&settle(private_data()));
    if rv.was(CKR_OK) {
        return Ok(object);
    }
    session.create(&settle(Template::secret(CKK_AES, &[7; 32]).bool(CKA_PRIVATE, true)))
}

fn create_private(bench: &Bench) -> Verdict {
    bench.knows_users()?;
    bench.session()?.try_create(&private_data()).0.is(CKR_USER_NOT_LOGGED_IN)
}

fn generate_private(bench: &Bench) -> Verdict {
    bench.offers(CKM_AES_KEY_GEN, CKF_GENERATE)?;
    let session = bench.session()?;
    let mechanism = Mechanism::plain(CKM_AES_KEY_GEN);
    session.try_generate(&mechanism, &crate::session::aes(32)).0.is(CKR_USER_NOT_LOGGED_IN)
}

fn create_public(bench: &Bench) -> Verdict {
    bench.session()?.create(&Template::data()).map(drop)
}

fn private_hidden(bench: &Bench) -> Verdict {
    let session = login(bench)?;
    let object = private_object(&session, |template| template.without(CKA_TOKEN).bool(CKA_TOKEN, true))?;
    session.logout().ok()?;
    let found = session.find(&Template::new().bytes(CKA_LABEL, LABEL))?;
    session.login(CKU_USER, &bench.pin()?).ok()?;
    let found_again = session.find(&Template::new().bytes(CKA_LABEL, LABEL))?;
    for object in &found_again {
        session.destroy(*object).ok()?;
    }
    ensure(!found.contains(&object), "no private object", format!("{found:?}"))?;
    ensure(!found_again.is_empty(), "the object, after the next login", "nothing")
}

/// How many handles are guessed from the first one on.
const GUESSES: CK_ULONG = 1024;

/// The handle that it had, those with one bit turned over, and those that a module counts from one.
fn private_guessed(bench: &Bench) -> Verdict {
    let session = login(bench)?;
    let object = private_object(&session, |template| template.without(CKA_TOKEN).bool(CKA_TOKEN, true))?;
    session.logout().ok()?;
    let near = (0..CK_ULONG::BITS).map(|bit| object ^ (1 << bit)).chain([object]);
    let is_shown = |handle: &CK_OBJECT_HANDLE| {
        let mut asked = Template::new().room(CKA_LABEL, LABEL.len());
        session.query(*handle, &mut asked).was(CKR_OK) && asked.value(0) == LABEL
    };
    let shown: Vec<CK_OBJECT_HANDLE> = near.chain(1..GUESSES).filter(is_shown).collect();
    session.login(CKU_USER, &bench.pin()?).ok()?;
    for object in session.find(&Template::new().bytes(CKA_LABEL, LABEL))? {
        session.destroy(object).ok()?;
    }
    ensure(
        shown.is_empty(),
        "CKR_OBJECT_HANDLE_INVALID",
        format!("the label of a private object behind {shown:?}"),
    )
}

fn private_handle(bench: &Bench) -> Verdict {
    let session = login(bench)?;
    let object = private_object(&session, |template| template)?;
    session.logout().ok()?;
    let ask = || session.query(object, &mut Template::new().ask(CKA_LABEL));
    ask().is(CKR_OBJECT_HANDLE_INVALID)?;
    session.login(CKU_USER, &bench.pin()?).ok()?;
    ask().is(CKR_OBJECT_HANDLE_INVALID)
}

fn private_ends(bench: &Bench) -> Verdict {
    let session = login(bench)?;
    private_object(&session, |template| template)?;
    session.logout().ok()?;
    session.login(CKU_USER, &bench.pin()?).ok()?;
    let found = session.find(&Template::new().bytes(CKA_LABEL, LABEL).bool(CKA_TOKEN, false))?;
    ensure(found.is_empty(), "no session object", counted(found.len(), "object"))
}

fn so(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    session.login(CKU_SO, &bench.so_pin()?).ok()?;
    state(&session, CKS_RW_SO_FUNCTIONS)?;
    session.login(CKU_USER, &bench.pin()?).is(CKR_USER_ANOTHER_ALREADY_LOGGED_IN)
}

fn so_read_only(bench: &Bench) -> Verdict {
    let so_pin = bench.so_pin()?;
    let _read_only = bench.read_only()?;
    bench.session()?.login(CKU_SO, &so_pin).is(CKR_SESSION_READ_ONLY_EXISTS)
}

fn so_then_read_only(bench: &Bench) -> Verdict {
    bench.session()?.login(CKU_SO, &bench.so_pin()?).ok()?;
    let mut handle: CK_SESSION_HANDLE = 0;
    let arguments = [
        Arg::number(bench.slot()?),
        Arg::number(CKF_SERIAL_SESSION),
        Arg::NULL,
        Arg::NULL,
        Arg::of_mut(&mut handle),
    ];
    bench.module.call(F::C_OpenSession, &arguments).is(CKR_SESSION_READ_WRITE_SO_EXISTS)
}

fn so_no_private(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    session.login(CKU_SO, &bench.so_pin()?).ok()?;
    session.try_create(&private_data()).0.is(CKR_USER_NOT_LOGGED_IN)
}
