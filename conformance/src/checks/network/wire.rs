//! What an eavesdropper on the way learns, and what he can do with what he heard.

use cryptoki_sys::*;

use crate::bench::Bench;
use crate::check::{Stop, Verdict, ensure, table};
use crate::checks::network::acts::logged_in;
use crate::marks::Severity;
use crate::proxy::desk::Desk;
use crate::report::counted;
use crate::template::{Mechanism, Template};

table! {
    all network high alone session_objects;
    "network.clear-pin" Token clear_pin, "5.6.8 C_Login", "the PIN does not pass through the network in clear" => critical patience(300);
    "network.clear-key" Token clear_key, "5.7.1 C_CreateObject", "the value of a secret key does not pass through the network in clear" => critical patience(300);
    "network.clear-data" Token clear_data, "5.13.2 C_Sign", "what is signed does not pass through the network in clear" => medium patience(300);
    "network.replay" Token replay, "5.7.1 C_CreateObject", "what an eavesdropper says again to the server makes nothing" => token_objects patience(300);
}

/// Records what passes from here on, on connections that do not exist yet.
fn listen(bench: &Bench) -> Result<&Desk, Stop> {
    let desk = bench.desk()?;
    desk.heal()?;
    desk.record()?;
    Ok(desk)
}

/// A logged-in session; a module may notice late that its connections have ended.
fn session(bench: &Bench) -> Result<crate::session::Session<'_>, Stop> {
    logged_in(bench).or_else(|_| logged_in(bench))
}

fn refuse_passed(desk: &Desk, what: &str, bytes: &[u8]) -> Verdict {
    if desk.tally()?.request == 0 {
        return Err(Stop::NotOffered);
    }
    ensure(!desk.has_passed(bytes)?, format!("{what} encrypted, or not sent"), format!("{what} in clear"))
}

fn clear_pin(bench: &Bench) -> Verdict {
    let (desk, pin) = (listen(bench)?, bench.pin()?);
    if pin.len() < 4 {
        return Err(Stop::Skipped("a PIN this short is found in any traffic by chance".to_owned()));
    }
    session(bench)?;
    refuse_passed(desk, "the PIN", &pin)
}

fn clear_key(bench: &Bench) -> Verdict {
    let desk = listen(bench)?;
    let value = bench.random().bytes(32);
    let template = Template::secret(CKK_GENERIC_SECRET, &value).bool(CKA_PRIVATE, true);
    match session(bench)?.try_create(&template.usages(&[CKA_SIGN])) {
        (rv, _) if rv.was(CKR_OK) => refuse_passed(desk, "the key", &value),
        (_, _) => Err(Stop::NotOffered),
    }
}

fn clear_data(bench: &Bench) -> Verdict {
    let desk = listen(bench)?;
    let session = session(bench)?;
    let (key, data) = (session.hmac_key()?, bench.random().bytes(64));
    session.sign(&Mechanism::plain(CKM_SHA256_HMAC), key, &data)?;
    refuse_passed(desk, "the data", &data)
}

fn replay(bench: &Bench) -> Verdict {
    let desk = listen(bench)?;
    let session = session(bench)?;
    let mark = bench.random().bytes(24);
    let template = Template::data().without(CKA_TOKEN).bool(CKA_TOKEN, true);
    session.create(&template.bytes(CKA_APPLICATION, &mark))?;
    if desk.tally()?.request == 0 {
        return Err(Stop::NotOffered);
    }
    desk.replay()?;
    let made = session.find(&Template::new().bytes(CKA_APPLICATION, &mark))?;
    for object in &made {
        session.destroy(*object).ok()?;
    }
    let seen = counted(made.len(), "object");
    if made.len() == 1 { Ok(()) } else { Err(Stop::graded(Severity::Critical, "one object", seen)) }
}
