//! Chapters 5.7.7 to 5.7.9: the search for objects.

use std::collections::BTreeSet;

use cryptoki_sys::*;

use crate::bench::Bench;
use crate::check::{Verdict, ensure, table};
use crate::report::counted;
use crate::session::Session;
use crate::template::Template;

table! {
    all operations;
    "find.by-attributes" User by_attributes, "5.7.7 C_FindObjectsInit", "an object is found by what it has, and not by what it has not";
    "find.all" User all, "5.7.7 C_FindObjectsInit", "an empty template finds every object";
    "find.one-by-one" User one_by_one, "5.7.8 C_FindObjects", "one at a time, every object comes once";
    "find.none-at-once" User none_at_once, "5.7.8 C_FindObjects", "asked for none, the search gives none and goes on";
    "find.end" User end, "5.7.8 C_FindObjects", "at the end the search goes on giving nothing";
    "find.not-initialized" User not_initialized, "5.7.8 C_FindObjects", "C_FindObjects and C_FindObjectsFinal need a search";
    "find.final-twice" User final_twice, "5.7.9 C_FindObjectsFinal", "a second C_FindObjectsFinal is refused";
    "find.init-twice" User init_twice, "5.7.7 C_FindObjectsInit", "a session makes one search at a time";
    "find.two-sessions" User two_sessions, "5.7.7 C_FindObjectsInit", "two sessions search at the same time, each its own";
    "find.unknown-attribute" User unknown_attribute, "5.7.7 C_FindObjectsInit", "an attribute that nothing has finds nothing";
    "find.wrong-size" User wrong_size, "5.7.7 C_FindObjectsInit", "a value of the wrong size finds nothing";
    "find.destroyed-meanwhile" User destroyed_meanwhile, "5.7.8 C_FindObjects", "an object that is destroyed during the search does no harm";
    "find.token-object" User token_object, "5.7.1 C_CreateObject", "a token object is found by a later session" => token_objects;
    "find.mixed-with-operation" User mixed, "5.6 Session management", "a search in a session that digests works, or is CKR_OPERATION_ACTIVE";
}

/// The attributes by which a check finds its own objects.
fn own(value: &[u8]) -> Template {
    Template::new().ulong(CKA_CLASS, CKO_DATA).bytes(CKA_APPLICATION, value)
}

fn three(session: &Session<'_>, mark: &[u8]) -> Result<BTreeSet<CK_OBJECT_HANDLE>, crate::check::Stop> {
    (0..3).map(|_| session.create(&Template::data().bytes(CKA_APPLICATION, mark))).collect()
}

fn by_attributes(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let objects = three(&session, b"by-attributes")?;
    let found: BTreeSet<_> = session.find(&own(b"by-attributes"))?.into_iter().collect();
    ensure(found == objects, format!("{objects:?}"), format!("{found:?}"))?;
    let others = session.find(&own(b"by-attribute"))?;
    ensure(others.is_empty(), "nothing", format!("{others:?}"))?;
    let others = session.find(&own(b"by-attributes").bool(CKA_TOKEN, true))?;
    ensure(others.is_empty(), "nothing", format!("{others:?}"))
}

fn all(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let objects = three(&session, b"all")?;
    let found: BTreeSet<_> = session.find(&Template::new())?.into_iter().collect();
    ensure(objects.is_subset(&found), format!("{objects:?} among them"), format!("{found:?}"))
}

fn one_by_one(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let objects = three(&session, b"one-by-one")?;
    session.find_init(&own(b"one-by-one")).ok()?;
    let mut found = BTreeSet::new();
    for _ in 0..3 {
        let (rv, some) = session.find_next(1);
        rv.ok()?;
        ensure(some.len() == 1, "one object", counted(some.len(), "object"))?;
        found.extend(some);
    }
    let (rv, more) = session.find_next(1);
    rv.ok()?;
    session.find_final().ok()?;
    ensure(found == objects && more.is_empty(), format!("{objects:?}"), format!("{found:?} and {more:?}"))
}

fn none_at_once(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let objects = three(&session, b"none-at-once")?;
    session.find_init(&own(b"none-at-once")).ok()?;
    let (rv, none) = session.find_next(0);
    rv.one_of(&[CKR_OK, CKR_ARGUMENTS_BAD])?;
    ensure(none.is_empty(), "nothing", format!("{none:?}"))?;
    if rv.was(CKR_OK) {
        let (rv, some) = session.find_next(9);
        rv.ok()?;
        ensure(some.len() == objects.len(), "three objects", counted(some.len(), "object"))?;
    }
    Ok(())
}

fn end(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    session.find_init(&own(b"nothing has this")).ok()?;
    for _ in 0..3 {
        let (rv, none) = session.find_next(4);
        rv.ok()?;
        ensure(none.is_empty(), "nothing", format!("{none:?}"))?;
    }
    session.find_final().ok()
}

fn not_initialized(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    session.find_next(1).0.is(CKR_OPERATION_NOT_INITIALIZED)?;
    session.find_final().is(CKR_OPERATION_NOT_INITIALIZED)
}

fn final_twice(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    session.find_init(&Template::new()).ok()?;
    session.find_final().ok()?;
    session.find_final().is(CKR_OPERATION_NOT_INITIALIZED)
}

fn init_twice(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    session.find_init(&Template::new()).ok()?;
    session.find_init(&Template::new()).is(CKR_OPERATION_ACTIVE)
}

fn two_sessions(bench: &Bench) -> Verdict {
    let (one, other) = (bench.session()?, bench.session()?);
    three(&one, b"two-sessions")?;
    one.find_init(&own(b"two-sessions")).ok()?;
    other.find_init(&own(b"nothing has this")).ok()?;
    let (rv, nothing) = other.find_next(9);
    rv.ok()?;
    other.find_final().ok()?;
    let (rv, found) = one.find_next(9);
    rv.ok()?;
    let good = nothing.is_empty() && found.len() == 3;
    ensure(good, "0 and 3 objects", format!("{} and {} objects", nothing.len(), found.len()))
}

fn finds_nothing(session: &Session<'_>, template: &Template, refusal: CK_RV) -> Verdict {
    let rv = session.find_init(template);
    rv.one_of(&[CKR_OK, refusal])?;
    if rv.was(CKR_OK) {
        let (rv, found) = session.find_next(9);
        rv.ok()?;
        ensure(found.is_empty(), "nothing", counted(found.len(), "object"))?;
    }
    Ok(())
}

fn unknown_attribute(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    three(&session, b"unknown")?;
    let template = Template::new().bytes(CKA_VENDOR_DEFINED | 0x00de_adbe, b"x");
    finds_nothing(&session, &template, CKR_ATTRIBUTE_TYPE_INVALID)
}

fn wrong_size(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    three(&session, b"wrong-size")?;
    let long = Template::new().bytes(CKA_TOKEN, &[0; 8]).bytes(CKA_APPLICATION, b"wrong-size");
    finds_nothing(&session, &long, CKR_ATTRIBUTE_VALUE_INVALID)?;
    let session = bench.session()?;
    let short = Template::new().bytes(CKA_CLASS, &[0; 4]).bytes(CKA_APPLICATION, b"wrong-size");
    finds_nothing(&session, &short, CKR_ATTRIBUTE_VALUE_INVALID)
}

fn destroyed_meanwhile(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let objects = three(&session, b"meanwhile")?;
    session.find_init(&own(b"meanwhile")).ok()?;
    session.find_next(1).0.ok()?;
    for object in objects {
        session.destroy(object).ok()?;
    }
    session.find_next(9).0.ok()?;
    session.find_final().ok()
}

fn token_object(bench: &Bench) -> Verdict {
    let maker = bench.session()?;
    maker.create_on_token(Template::data().bytes(CKA_APPLICATION, b"token-object"))?;
    maker.close().ok()?;
    let session = bench.session()?;
    let found = session.find(&own(b"token-object"))?;
    for object in &found {
        session.destroy(*object).ok()?;
    }
    ensure(found.len() == 1, "one object", counted(found.len(), "object"))?;
    let found = session.find(&own(b"token-object"))?;
    ensure(found.is_empty(), "nothing after its destruction", counted(found.len(), "object"))
}

fn mixed(bench: &Bench) -> Verdict {
    use crate::raw::Function as F;
    use crate::template::{Mechanism, Out};
    let expected = bench.sha256(b"mixed")?;
    let session = bench.session()?;
    session.init(F::C_DigestInit, &Mechanism::plain(CKM_SHA256), None).ok()?;
    let searching = session.find_init(&Template::new());
    searching.one_of(&[CKR_OK, CKR_OPERATION_ACTIVE])?;
    session.feed(F::C_DigestUpdate, b"mixed").ok()?;
    if searching.was(CKR_OK) {
        session.find_next(1).0.ok()?;
        session.find_final().ok()?;
    }
    let mut out = Out::room(32);
    session.finish(F::C_DigestFinal, &mut out).ok()?;
    ensure(out.bytes() == expected, "the digest", "another")
}
