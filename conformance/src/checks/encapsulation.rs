//! Chapter 5.18 of 3.2, `C_EncapsulateKey` and `C_DecapsulateKey`: by each mechanism that the token has for them.

use cryptoki_sys::*;

use crate::bench::Bench;
use crate::check::{Stop, Verdict, each, ensure, table};
use crate::checks::mechanisms::advertised;
use crate::mechanisms::keys::{self, Allowed};
use crate::mechanisms::parameters::{self, Parameter};
use crate::mechanisms::{Keys, ROWS, Row, Use};
use crate::raw::{Arg, Function as F};
use crate::rv::Rv;
use crate::session::{KeyPair, Session};
use crate::template::{Mechanism, Out, Template, Word};

table! {
    all operations high;
    "encapsulation.round-trip" User round_trip, "5.18 C_EncapsulateKey, C_DecapsulateKey (3.2)", "both sides have the same secret";
    "encapsulation.fresh" User fresh, "5.18 C_EncapsulateKey (3.2)", "no secret and no ciphertext comes twice" => critical;
    "encapsulation.forged" User forged, "5.18 C_DecapsulateKey (3.2; FIPS 203, 7.3)", "a changed ciphertext is refused, or gives another secret";
    "encapsulation.length" User length, "5.18 C_DecapsulateKey (3.2)", "a ciphertext that is too short or too long is refused";
    "encapsulation.length-query" User length_query, "5.2 and 5.18 C_EncapsulateKey (3.2)", "a length query gives the length, and a buffer that is too small is CKR_BUFFER_TOO_SMALL" => medium;
}

/// A pair, the mechanism with the parameter that the token takes, and what it was offered to make of them.
struct Subject<'b> {
    session: Session<'b>,
    pair: KeyPair,
    mechanism: Mechanism,
}

/// What both sides make: a secret that can be looked at.
fn product() -> Template {
    Template::of_class(CKO_SECRET_KEY)
        .ulong(CKA_KEY_TYPE, CKK_GENERIC_SECRET)
        .bool(CKA_TOKEN, false)
        .bool(CKA_SENSITIVE, false)
        .bool(CKA_EXTRACTABLE, true)
        .ulong(CKA_VALUE_LEN, 32)
}

impl Subject<'_> {
    fn encapsulate_into(&self, out: &mut Out) -> (Rv, CK_OBJECT_HANDLE) {
        let mut key: CK_OBJECT_HANDLE = 0;
        let template = product();
        let [attributes, count] = template.args();
        let [buffer, room] = out.args();
        let arguments = [
            self.mechanism.arg(),
            Arg::number(self.pair.public),
            attributes,
            count,
            buffer,
            room,
            Arg::of_mut(&mut key),
        ];
        (self.session.call(F::C_EncapsulateKey, &arguments), key)
    }

    /// A ciphertext and its secret.
    fn encapsulate(&self) -> Result<(Vec<u8>, Vec<u8>), Stop> {
        let mut out = Out::room(4096);
        let (rv, key) = self.encapsulate_into(&mut out);
        rv.ok()?;
        Ok((out.bytes().to_vec(), self.session.attribute(key, CKA_VALUE)?))
    }

    fn decapsulate(&self, ciphertext: &[u8]) -> (Rv, CK_OBJECT_HANDLE) {
        let mut key: CK_OBJECT_HANDLE = 0;
        let template = product();
        let [attributes, count] = template.args();
        let arguments = [
            self.mechanism.arg(),
            Arg::number(self.pair.private),
            attributes,
            count,
            Arg::slice(ciphertext),
            Arg::number(ciphertext.len() as CK_ULONG),
            Arg::of_mut(&mut key),
        ];
        (self.session.call(F::C_DecapsulateKey, &arguments), key)
    }
}

/// The parameters that a token may want: as for a derivation, or without the other side's value, which does not exist yet.
fn candidates(row: &Row, session: &Session<'_>, pair: KeyPair) -> Vec<Parameter> {
    let alone = [CKD_NULL, 0, 0, 0, 0].map(Word::Number).to_vec();
    let with_peer = parameters::good(row, session, pair);
    match row.keys {
        Keys::Ec => std::iter::once(Parameter::Words(alone)).chain(with_peer).collect(),
        _ => with_peer,
    }
}

/// Makes a check by each mechanism that the token has for both functions.
fn each_mechanism(bench: &Bench, run: impl Fn(&Subject<'_>) -> Verdict) -> Verdict {
    each(
        ROWS.iter().filter(|row| row.uses.contains(&Use::Encapsulate)),
        |row| row.name.to_owned(),
        |row| {
            if !advertised(bench, row, Use::Encapsulate)? || !advertised(bench, row, Use::Decapsulate)? {
                return Err(Stop::NotOffered);
            }
            let session = bench.session()?;
            let pair = keys::subject(&session, row.keys, Use::Encapsulate, Allowed::Yes)?;
            let mut refusal = Err(Stop::NotOffered);
            for parameter in candidates(row, &session, pair) {
                let subject = Subject { session, pair, mechanism: parameter.mechanism(row.number) };
                match subject.encapsulate() {
                    Ok(_) => return run(&subject),
                    Err(stop) => refusal = Err(stop),
                }
            }
            refusal
        },
    )
}

fn round_trip(bench: &Bench) -> Verdict {
    each_mechanism(bench, |subject| {
        let (ciphertext, secret) = subject.encapsulate()?;
        let (rv, key) = subject.decapsulate(&ciphertext);
        rv.ok()?;
        let same = subject.session.attribute(key, CKA_VALUE)? == secret && secret.len() == 32;
        ensure(same, "one secret of 32 bytes on both sides", "two")
    })
}

fn fresh(bench: &Bench) -> Verdict {
    each_mechanism(bench, |subject| {
        let ((first, one), (second, other)) = (subject.encapsulate()?, subject.encapsulate()?);
        ensure(first != second && one != other, "another ciphertext and secret each time", "one twice")
    })
}

fn forged(bench: &Bench) -> Verdict {
    each_mechanism(bench, |subject| {
        let (ciphertext, secret) = subject.encapsulate()?;
        for place in [1, ciphertext.len() / 2, ciphertext.len().saturating_sub(1)] {
            let mut changed = ciphertext.clone();
            if let Some(byte) = changed.get_mut(place) {
                *byte ^= 1;
            }
            let (rv, key) = subject.decapsulate(&changed);
            if !rv.was(CKR_OK) {
                rv.refused()?;
                continue;
            }
            let seen = format!("the same secret, with byte {place} changed");
            ensure(
                subject.session.attribute(key, CKA_VALUE)? != secret,
                "another secret, or a refusal",
                seen,
            )?;
        }
        Ok(())
    })
}

fn length(bench: &Bench) -> Verdict {
    each_mechanism(bench, |subject| {
        let (ciphertext, _) = subject.encapsulate()?;
        let short = ciphertext.split_last().map_or(&[][..], |(_, rest)| rest);
        let long = [ciphertext.as_slice(), &[0]].concat();
        [&[][..], short, &long].iter().try_for_each(|wrong| match subject.decapsulate(wrong).0 {
            rv if rv.was(CKR_OK) => {
                Err(Stop::fail("a refusal", format!("{} bytes, not {}: {rv}", wrong.len(), ciphertext.len())))
            }
            rv => rv.refused(),
        })
    })
}

fn length_query(bench: &Bench) -> Verdict {
    each_mechanism(bench, |subject| {
        let (ciphertext, _) = subject.encapsulate()?;
        let mut query = Out::ask();
        subject.encapsulate_into(&mut query).0.ok()?;
        let told = query.length();
        let enough = told >= ciphertext.len() as CK_ULONG && told <= 2 * ciphertext.len() as CK_ULONG;
        ensure(enough, format!("about {} bytes", ciphertext.len()), told.to_string())?;
        let mut small = Out::room(ciphertext.len() - 1);
        subject.encapsulate_into(&mut small).0.is(CKR_BUFFER_TOO_SMALL)
    })
}
