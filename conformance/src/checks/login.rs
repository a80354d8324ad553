//! Chapters 5.5.8 to 5.6.10: PINs, logins and what a login shows. A wrong PIN is tried once and then the right one.

use cryptoki_sys::*;

use crate::bench::{Bench, LABEL, Stage};
use crate::check::{Stop, Verdict, ensure, table};
use crate::marks::Severity;
use crate::raw::{Arg, Function as F};
use crate::rv::Rv;
use crate::session::Session;
use crate::template::{Mechanism, Template};

table! {
    all authentication;
    "login.right" Token right, "5.6.8 C_Login", "the right PIN changes the state of every session";
    "login.wrong" Token wrong, "5.6.8 C_Login", "a wrong PIN is CKR_PIN_INCORRECT and logs nobody in" => pins critical;
    "login.count-low" Token count_low, "3.2 CKF_USER_PIN_COUNT_LOW", "a wrong PIN raises the flag and the right one lowers it" => pins;
    "login.locks" Token locks, "3.2 CKF_USER_PIN_LOCKED", "after wrong PINs the PIN is locked, the right one too, and stays so when the module starts again" => lockout patience(120);
    "login.so-wrong" Token so_wrong, "5.6.8 C_Login", "a wrong PIN of the SO is CKR_PIN_INCORRECT and logs nobody in" => pins critical;
    "login.private-guessed" Token private_guessed, "5.6.8 C_Login, 5.7.5", "nobody who guesses handles reads a private object without a login" => high token_objects;
    "login.too-long" Token too_long, "5.6.8 C_Login", "a PIN that is too long is refused" => pins;
    "login.empty" Token empty, "5.6.8 C_Login", "an empty PIN is refused" => pins critical;
    "login.named" Token named, "5.6.9 C_LoginUser (3.0)", "C_LoginUser with an empty name is C_Login";
    "login.named-wrong" Token named_wrong, "5.6.9 C_LoginUser (3.0)", "so is a wrong PIN CKR_PIN_INCORRECT, and nobody is logged in" => pins critical;
    "login.named-twice" Token named_twice, "5.6.9 C_LoginUser (3.0)", "and the second login CKR_USER_ALREADY_LOGGED_IN";
    "login.user-type" Token user_type, "5.6.8 C_Login", "a user type that does not exist is CKR_USER_TYPE_INVALID";
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
    "login.init-pin-as-user" Token init_pin_as_user, "5.5.8 C_InitPIN", "only the SO sets the user's PIN anew" => pins critical;
    "login.set-pin" Token set_pin, "5.5.9 C_SetPIN", "the PIN is set (to itself), and is then the PIN" => pins;
    "login.set-pin-wrong" Token set_pin_wrong, "5.5.9 C_SetPIN", "a wrong old PIN is CKR_PIN_INCORRECT" => pins critical;
    "login.set-pin-short" Token set_pin_short, "5.5.9 C_SetPIN", "a new PIN that is too short is CKR_PIN_LEN_RANGE" => pins;
    "login.set-pin-long" Token set_pin_long, "5.5.9 C_SetPIN", "a new PIN that is too long is CKR_PIN_LEN_RANGE" => pins;
    "login.set-pin-read-only" Token set_pin_read_only, "5.5.9 C_SetPIN", "a read-only session sets no PIN" => pins;
}

/// What no token's PIN is.
const WRONG: &[u8] = b"wrong-0987";

fn login<'b>(bench: &'b Bench) -> Result<Session<'b>, crate::check::Stop> {
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

/// How many wrong PINs a token may take before it locks the PIN.
const MOST_TRIES: usize = 100;

/// The SO sets the PIN again, whatever came of it.
fn locks(bench: &Bench) -> Verdict {
    let (pin, so_pin) = (bench.pin()?, bench.so_pin()?);
    let verdict = stays_locked(bench, &pin);
    bench.reset(Stage::Token);
    let session = bench.session()?;
    session.login(CKU_SO, &so_pin).ok()?;
    session.feed(F::C_InitPIN, &pin).ok()?;
    session.logout().ok()?;
    session.login(CKU_USER, &pin).ok()?;
    verdict
}

fn stays_locked(bench: &Bench, pin: &[u8]) -> Verdict {
    let session = bench.session()?;
    let mut tries = 0;
    loop {
        let rv = session.login(CKU_USER, WRONG);
        if rv.was(CKR_PIN_LOCKED) {
            break;
        }
        rv.is(CKR_PIN_INCORRECT)?;
        tries += 1;
        ensure(tries < MOST_TRIES, "CKR_PIN_LOCKED at last", format!("{tries} wrong PINs, and no end"))?;
    }
    session.login(CKU_USER, pin).is(CKR_PIN_LOCKED)?;
    bench.reset(Stage::Loaded);
    bench.prepare(Stage::Token)?;
    let flags = bench.token_info(bench.slot()?)?.flags;
    ensure(flags & CKF_USER_PIN_LOCKED != 0, "CKF_USER_PIN_LOCKED", format!("flags {flags:#x}"))?;
    bench.session()?.login(CKU_USER, pin).is(CKR_PIN_LOCKED)
}

fn count_low(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let pin = bench.pin()?;
    let flag = || Ok(bench.token_info(bench.slot()?)?.flags & CKF_USER_PIN_COUNT_LOW != 0);
    let refused = session.login(CKU_USER, WRONG);
    let after_wrong: Result<bool, crate::check::Stop> = flag();
    session.login(CKU_USER, &pin).ok()?;
    let after_right = flag()?;
    refused.refused()?;
    if !after_wrong? {
        // "may always be set to false if the token ... will not reveal the information" (3.2).
        let expected = "CKF_USER_PIN_COUNT_LOW after a wrong PIN";
        return Err(Stop::graded(Severity::Informational, expected, "not set"));
    }
    ensure(!after_right, "no CKF_USER_PIN_COUNT_LOW after the right PIN", "still set")
}

/// Tries a PIN that cannot be right, and then the right one.
fn impossible(bench: &Bench, pin: &[u8], expected: &[CK_RV]) -> Verdict {
    let session = bench.session()?;
    let right = bench.pin()?;
    let rv = session.login(CKU_USER, pin);
    session.login(CKU_USER, &right).ok()?;
    rv.one_of(expected)
}

fn too_long(bench: &Bench) -> Verdict {
    impossible(bench, &[b'1'; 100_000], &[CKR_PIN_INCORRECT, CKR_PIN_LEN_RANGE])
}

fn empty(bench: &Bench) -> Verdict {
    impossible(bench, b"", &[CKR_PIN_INCORRECT, CKR_PIN_LEN_RANGE, CKR_ARGUMENTS_BAD])
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
    ensure(found.is_empty(), "no session object", format!("{} objects", found.len()))
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

fn init_pin_as_user(bench: &Bench) -> Verdict {
    let pin = bench.pin()?;
    let init_pin = |session: &Session<'_>| session.feed(F::C_InitPIN, &pin);
    init_pin(&bench.session()?).is(CKR_USER_NOT_LOGGED_IN)?;
    init_pin(&login(bench)?).is(CKR_USER_NOT_LOGGED_IN)
}

fn change(session: &Session<'_>, old: &[u8], new: &[u8]) -> Rv {
    let length = |pin: &[u8]| Arg::number(pin.len() as CK_ULONG);
    session.call(F::C_SetPIN, &[Arg::slice(old), length(old), Arg::slice(new), length(new)])
}

fn set_pin(bench: &Bench) -> Verdict {
    let pin = bench.pin()?;
    let session = login(bench)?;
    change(&session, &pin, &pin).ok()?;
    session.logout().ok()?;
    session.login(CKU_USER, &pin).ok()
}

fn set_pin_wrong(bench: &Bench) -> Verdict {
    let pin = bench.pin()?;
    let session = bench.session()?;
    let rv = change(&session, WRONG, &pin);
    session.login(CKU_USER, &pin).ok()?;
    rv.is(CKR_PIN_INCORRECT)
}

/// Tries a new PIN that must be refused, and sets the old one again if it was not.
fn refused_pin(bench: &Bench, new: &[u8]) -> Verdict {
    let pin = bench.pin()?;
    let session = login(bench)?;
    let rv = change(&session, &pin, new);
    if rv.was(CKR_OK) {
        change(&session, new, &pin).ok()?;
    }
    rv.is(CKR_PIN_LEN_RANGE)
}

fn set_pin_short(bench: &Bench) -> Verdict {
    let least = usize::try_from(bench.token_info(bench.slot()?)?.ulMinPinLen).unwrap_or(0);
    if least < 2 {
        return Err(crate::check::Stop::NotOffered);
    }
    refused_pin(bench, &vec![b'1'; least - 1])
}

fn set_pin_long(bench: &Bench) -> Verdict {
    let most = usize::try_from(bench.token_info(bench.slot()?)?.ulMaxPinLen).unwrap_or(usize::MAX);
    if most > 100_000 {
        return Err(crate::check::Stop::NotOffered);
    }
    refused_pin(bench, &vec![b'1'; most + 1])
}

fn set_pin_read_only(bench: &Bench) -> Verdict {
    let pin = bench.pin()?;
    let session = bench.read_only()?;
    change(&session, &pin, &pin).is(CKR_SESSION_READ_ONLY)
}
