//! Chapter 5.16 of 3.2, signatures that are given before the message. By HMAC-SHA-256, which every token has.

use cryptoki_sys::*;

use crate::bench::Bench;
use crate::check::{Stop, Verdict, each, ensure, table};
use crate::raw::{Arg, Function as F};
use crate::report::counted;
use crate::rv::Rv;
use crate::session::Session;
use crate::template::Mechanism;

table! {
    all operations;
    "verify-signature.round-trip" User round_trip, "5.16 C_VerifySignature (3.2)", "a signature that C_Verify takes is taken when it is given first" => high;
    "verify-signature.forged" User forged, "5.16 C_VerifySignature (3.2)", "a changed signature, or one of another message, is CKR_SIGNATURE_INVALID" => critical;
    "verify-signature.length" User length, "5.16 C_VerifySignatureInit (3.2)", "a signature of another length is CKR_SIGNATURE_LEN_RANGE" => critical;
    "verify-signature.parts" User parts, "5.16 C_VerifySignatureUpdate (3.2)", "in parts the result is that of one part" => high;
    "verify-signature.over" User over, "5.16 C_VerifySignature (3.2)", "a verification is over when it was made, whatever came of it";
}

const MESSAGE: &[u8] = b"a message that comes behind its signature";

/// A session, a key, and its signature of the message.
fn signed(bench: &Bench) -> Result<(Session<'_>, CK_OBJECT_HANDLE, Vec<u8>), Stop> {
    let session = bench.session()?;
    let key = session.hmac_key()?;
    let signature = session.sign(&Mechanism::plain(CKM_SHA256_HMAC), key, MESSAGE)?;
    if begin(&bench.session()?, key, &signature).was(CKR_FUNCTION_NOT_SUPPORTED) {
        return Err(Stop::NotOffered);
    }
    Ok((session, key, signature))
}

fn begin(session: &Session<'_>, key: CK_OBJECT_HANDLE, signature: &[u8]) -> Rv {
    let mechanism = Mechanism::plain(CKM_SHA256_HMAC);
    let length = Arg::number(signature.len() as CK_ULONG);
    let arguments = [mechanism.arg(), Arg::number(key), Arg::slice(signature), length];
    session.call(F::C_VerifySignatureInit, &arguments)
}

fn round_trip(bench: &Bench) -> Verdict {
    let (session, key, signature) = signed(bench)?;
    begin(&session, key, &signature).ok()?;
    session.feed(F::C_VerifySignature, MESSAGE).ok()
}

fn forged(bench: &Bench) -> Verdict {
    let (session, key, signature) = signed(bench)?;
    let mut changed = signature.clone();
    if let Some(byte) = changed.last_mut() {
        *byte ^= 1;
    }
    for (message, signature) in [(MESSAGE, &changed), (b"another message", &signature)] {
        begin(&session, key, signature).ok()?;
        session.feed(F::C_VerifySignature, message).is(CKR_SIGNATURE_INVALID)?;
    }
    Ok(())
}

/// The length is wrong from the beginning, and may be refused there.
fn length(bench: &Bench) -> Verdict {
    let (_, key, signature) = signed(bench)?;
    let long = [signature.as_slice(), &[0]].concat();
    let short = signature.get(1..).unwrap_or_default();
    each(
        [short, &long],
        |wrong| counted(wrong.len(), "byte"),
        |wrong| {
            let session = bench.session()?;
            match begin(&session, key, wrong) {
                rv if rv.was(CKR_OK) => {
                    session.feed(F::C_VerifySignature, MESSAGE).is(CKR_SIGNATURE_LEN_RANGE)
                }
                rv => rv.is(CKR_SIGNATURE_LEN_RANGE),
            }
        },
    )
}

fn parts(bench: &Bench) -> Verdict {
    let (session, key, signature) = signed(bench)?;
    let in_parts = |message: &[u8]| -> Result<Rv, Stop> {
        begin(&session, key, &signature).ok()?;
        for part in message.chunks(7) {
            session.feed(F::C_VerifySignatureUpdate, part).ok()?;
        }
        Ok(session.call(F::C_VerifySignatureFinal, &[]))
    };
    in_parts(MESSAGE)?.ok()?;
    in_parts(b"another message")?.is(CKR_SIGNATURE_INVALID)
}

fn over(bench: &Bench) -> Verdict {
    let (session, key, signature) = signed(bench)?;
    for message in [MESSAGE, b"another message"] {
        begin(&session, key, &signature).ok()?;
        let made = session.feed(F::C_VerifySignature, message);
        ensure(made.was(CKR_OK) == (message == MESSAGE), "the right answer", made.to_string())?;
        session.feed(F::C_VerifySignature, MESSAGE).is(CKR_OPERATION_NOT_INITIALIZED)?;
    }
    Ok(())
}
