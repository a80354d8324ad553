//! Chapter 5.7, object management, and chapter 4.1, what a template may say.

use cryptoki_sys::*;

use crate::bench::Bench;
use crate::check::{Stop, Verdict, ensure, table};
use crate::report::counted;
use crate::session::Session;
use crate::template::{Template, UNAVAILABLE};

table! {
    all arguments;
    "objects.create-data" User create_data, "4.5 Data objects", "a data object has what it was given, and the defaults";
    "objects.create-empty" User create_empty, "4.1.1 Creating objects", "a template without anything is incomplete";
    "objects.create-no-class" User create_no_class, "4.1.1 Creating objects", "a template without a class is incomplete";
    "objects.create-no-key-type" User create_no_key_type, "4.1.1 Creating objects", "a key without a type is incomplete";
    "objects.create-no-value" User create_no_value, "4.10 Secret key objects", "a secret key without a value is incomplete";
    "objects.create-unknown-class" User create_unknown_class, "4.1.1 Creating objects", "a class that does not exist is refused";
    "objects.create-unknown-key-type" User create_unknown_key_type, "4.1.1 Creating objects", "a key type that does not exist is refused";
    "objects.create-unknown-attribute" User create_unknown_attribute, "4.1.1 Creating objects", "an attribute that does not exist is CKR_ATTRIBUTE_TYPE_INVALID";
    "objects.create-foreign-attribute" User create_foreign_attribute, "4.1.1 Creating objects", "an attribute of another class is refused";
    "objects.create-same-twice" User create_same_twice, "4.1.1 Creating objects", "an attribute twice with one value is one attribute, or inconsistent";
    "objects.create-different-twice" User create_different_twice, "4.1.1 Creating objects", "an attribute twice with two values is inconsistent";
    "objects.create-two-classes" User create_two_classes, "4.1.1 Creating objects", "an object of two classes is refused";
    "objects.create-long-bool" User create_long_bool, "4.1.1 Creating objects", "a CK_BBOOL of eight bytes is CKR_ATTRIBUTE_VALUE_INVALID";
    "objects.create-empty-bool" User create_empty_bool, "4.1.1 Creating objects", "a CK_BBOOL of no bytes is CKR_ATTRIBUTE_VALUE_INVALID";
    "objects.create-odd-bool" User create_odd_bool, "4.1.1 Creating objects", "a CK_BBOOL that is neither true nor false is CKR_ATTRIBUTE_VALUE_INVALID";
    "objects.create-short-ulong" User create_short_ulong, "4.1.1 Creating objects", "a CK_ULONG of four bytes is CKR_ATTRIBUTE_VALUE_INVALID";
    "objects.create-long-ulong" User create_long_ulong, "4.1.1 Creating objects", "a CK_ULONG of nine bytes is CKR_ATTRIBUTE_VALUE_INVALID";
    "objects.create-bad-date" User create_bad_date, "4.7 Key objects", "a date that is none is CKR_ATTRIBUTE_VALUE_INVALID";
    "objects.create-null-value" User create_null_value, "4.1.1 Creating objects", "a null value with a length is refused";
    "objects.create-unique-id" User create_unique_id, "4.4 Storage objects", "nobody chooses CKA_UNIQUE_ID";
    "objects.create-refused-is-nothing" User create_refused_is_nothing, "4.1.1 Creating objects", "a refused template leaves no object";
    "objects.get" User get, "5.7.5 C_GetAttributeValue", "the length first and then the value";
    "objects.get-absent" User get_absent, "5.7.5 C_GetAttributeValue", "what an object does not have is CKR_ATTRIBUTE_TYPE_INVALID and -1";
    "objects.get-small" User get_small, "5.7.5 C_GetAttributeValue", "too little room is CKR_BUFFER_TOO_SMALL and -1, and nothing is written";
    "objects.get-mixed" User get_mixed, "5.7.5 C_GetAttributeValue", "good entries are answered beside bad ones";
    "objects.get-twice" User get_twice, "5.7.5 C_GetAttributeValue", "an attribute may be asked twice in one call";
    "objects.get-large-room" User get_large_room, "5.7.5 C_GetAttributeValue", "more room than needed is answered with the true length";
    "objects.get-unknown-handle" User get_unknown_handle, "5.7.5 C_GetAttributeValue", "a handle that is no object's is refused";
    "objects.size" User size, "5.7.4 C_GetObjectSize", "an object has a size, or it is not known";
    "objects.size-unknown-handle" User size_unknown_handle, "5.7.4 C_GetObjectSize", "a handle that is no object's is refused";
    "objects.set" User set, "5.7.6 C_SetAttributeValue", "a label changes";
    "objects.set-class" User set_class, "4.1.2 Modifying objects", "the class is read-only" => high;
    "objects.set-token" User set_token, "4.1.2 Modifying objects", "a session object does not become a token object by CKA_TOKEN" => token_objects;
    "objects.set-unknown" User set_unknown, "5.7.6 C_SetAttributeValue", "an attribute that does not exist is CKR_ATTRIBUTE_TYPE_INVALID";
    "objects.set-at-once" User set_at_once, "4.1.2 Modifying objects", "a refused change changes nothing";
    "objects.set-behind-refused" User set_behind_refused, "4.1.2 Modifying objects", "what stands behind a refused attribute is not changed";
    "objects.set-unmodifiable" User set_unmodifiable, "4.1.2 Modifying objects", "CKA_MODIFIABLE false is CKR_ACTION_PROHIBITED" => key_separation high;
    "objects.set-unknown-handle" User set_unknown_handle, "5.7.6 C_SetAttributeValue", "a handle that is no object's is refused";
    "objects.set-read-only-session" User set_read_only_session, "5.7.6 C_SetAttributeValue", "a read-only session changes and destroys no token object" => key_separation token_objects high;
    "objects.copy" User copy, "5.7.2 C_CopyObject", "a copy has the original's attributes and the template's, and its own life" => key_separation;
    "objects.copy-class" User copy_class, "4.1.3 Copying objects", "a copy is not of another class" => key_separation;
    "objects.copy-uncopyable" User copy_uncopyable, "4.1.3 Copying objects", "CKA_COPYABLE false is CKR_ACTION_PROHIBITED" => key_separation high;
    "objects.copy-unknown-handle" User copy_unknown_handle, "5.7.2 C_CopyObject", "a handle that is no object's is refused" => key_separation;
    "objects.handle-not-reused" User handle_not_reused, "5.7.3 C_DestroyObject (use after free)", "the handle of a destroyed object is not given to the next" => informational;
    "objects.destroy" User destroy, "5.7.3 C_DestroyObject", "a destroyed object's handle is dead" => key_separation high;
    "objects.destroy-indestructible" User destroy_indestructible, "5.7.3 C_DestroyObject", "CKA_DESTROYABLE false is CKR_ACTION_PROHIBITED" => key_separation high;
    "objects.destroy-unknown-handle" User destroy_unknown_handle, "5.7.3 C_DestroyObject", "a handle that is no object's is refused" => key_separation;
}

/// Handles that no object has.
const NOBODY: [CK_OBJECT_HANDLE; 3] = [0, 0x7fff_fff0, UNAVAILABLE];

/// An attribute that no standard names.
const UNKNOWN: CK_ATTRIBUTE_TYPE = CKA_VENDOR_DEFINED | 0x00de_adbe;

fn create(bench: &Bench, template: &Template, expected: &[CK_RV]) -> Verdict {
    bench.session()?.try_create(template).0.one_of(expected)
}

/// Keys that a module does not take at all say nothing about how it takes their templates.
fn create_key(bench: &Bench, right: &Template, template: &Template, expected: &[CK_RV]) -> Verdict {
    let session = bench.session()?;
    if !session.try_create(right).0.was(CKR_OK) {
        return Err(Stop::NotOffered);
    }
    session.try_create(template).0.one_of(expected)
}

fn create_data(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let object = session.create(&Template::data())?;
    let expected: [(CK_ATTRIBUTE_TYPE, &[u8]); 6] = [
        (CKA_CLASS, &CKO_DATA.to_ne_bytes()),
        (CKA_TOKEN, &[0]),
        (CKA_PRIVATE, &[0]),
        (CKA_MODIFIABLE, &[1]),
        (CKA_LABEL, crate::bench::LABEL),
        (CKA_VALUE, b"value"),
    ];
    for (kind, value) in expected {
        let seen = session.attribute(object, kind)?;
        ensure(seen == value, format!("{kind:#x}: {value:?}"), format!("{seen:?}"))?;
    }
    Ok(())
}

fn create_empty(bench: &Bench) -> Verdict {
    create(bench, &Template::new(), &[CKR_TEMPLATE_INCOMPLETE, CKR_ARGUMENTS_BAD])
}

fn create_no_class(bench: &Bench) -> Verdict {
    create(bench, &Template::data().without(CKA_CLASS), &[CKR_TEMPLATE_INCOMPLETE])
}

fn create_no_key_type(bench: &Bench) -> Verdict {
    let right = Template::secret(CKK_AES, &[1; 16]);
    let template = Template::secret(CKK_AES, &[1; 16]).without(CKA_KEY_TYPE);
    create_key(bench, &right, &template, &[CKR_TEMPLATE_INCOMPLETE])
}

fn create_no_value(bench: &Bench) -> Verdict {
    let right = Template::secret(CKK_AES, &[1; 16]);
    let template = Template::secret(CKK_AES, &[1; 16]).without(CKA_VALUE);
    create_key(bench, &right, &template, &[CKR_TEMPLATE_INCOMPLETE])
}

/// What a value that cannot be is answered with.
const NO_SUCH_VALUE: &[CK_RV] = &[CKR_ATTRIBUTE_VALUE_INVALID, CKR_TEMPLATE_INCONSISTENT];

fn create_unknown_class(bench: &Bench) -> Verdict {
    let template = Template::of_class(CKO_VENDOR_DEFINED | 0x00de_adbe).bool(CKA_TOKEN, false);
    create(bench, &template, NO_SUCH_VALUE)
}

fn create_unknown_key_type(bench: &Bench) -> Verdict {
    create(bench, &Template::secret(CKK_VENDOR_DEFINED | 0x00de_adbe, &[1; 16]), NO_SUCH_VALUE)
}

fn create_unknown_attribute(bench: &Bench) -> Verdict {
    create(bench, &Template::data().bytes(UNKNOWN, b"x"), &[CKR_ATTRIBUTE_TYPE_INVALID])
}

fn create_foreign_attribute(bench: &Bench) -> Verdict {
    let template = Template::data().bytes(CKA_MODULUS, &[1; 256]);
    create(bench, &template, &[CKR_ATTRIBUTE_TYPE_INVALID, CKR_TEMPLATE_INCONSISTENT])
}

fn create_same_twice(bench: &Bench) -> Verdict {
    create(bench, &Template::data().bool(CKA_TOKEN, false), &[CKR_OK, CKR_TEMPLATE_INCONSISTENT])
}

fn create_different_twice(bench: &Bench) -> Verdict {
    create(bench, &Template::data().bytes(CKA_VALUE, b"another"), &[CKR_TEMPLATE_INCONSISTENT])
}

fn create_two_classes(bench: &Bench) -> Verdict {
    let template = Template::data().without(CKA_CLASS).ulong(CKA_CLASS, CKO_SECRET_KEY);
    create(bench, &template.ulong(CKA_CLASS, CKO_DATA), &[CKR_TEMPLATE_INCONSISTENT, CKR_TEMPLATE_INCOMPLETE])
}

fn with_modifiable(value: &[u8]) -> Template {
    Template::data().bytes(CKA_MODIFIABLE, value)
}

fn create_long_bool(bench: &Bench) -> Verdict {
    create(bench, &with_modifiable(&[1, 0, 0, 0, 0, 0, 0, 0]), &[CKR_ATTRIBUTE_VALUE_INVALID])
}

fn create_empty_bool(bench: &Bench) -> Verdict {
    create(bench, &with_modifiable(&[]), &[CKR_ATTRIBUTE_VALUE_INVALID])
}

fn create_odd_bool(bench: &Bench) -> Verdict {
    create(bench, &with_modifiable(&[2]), &[CKR_ATTRIBUTE_VALUE_INVALID])
}

fn create_short_ulong(bench: &Bench) -> Verdict {
    let template = Template::data().without(CKA_CLASS).bytes(CKA_CLASS, &0_u32.to_ne_bytes());
    create(bench, &template, &[CKR_ATTRIBUTE_VALUE_INVALID])
}

fn create_long_ulong(bench: &Bench) -> Verdict {
    let template = Template::data().without(CKA_CLASS).bytes(CKA_CLASS, &[0; 9]);
    create(bench, &template, &[CKR_ATTRIBUTE_VALUE_INVALID])
}

fn create_bad_date(bench: &Bench) -> Verdict {
    for date in [b"2026".as_slice(), b"2026-1-1", b"yyyymmdd"] {
        let right = Template::secret(CKK_GENERIC_SECRET, &[1; 32]);
        let template = Template::secret(CKK_GENERIC_SECRET, &[1; 32]).bytes(CKA_START_DATE, date);
        create_key(bench, &right, &template, &[CKR_ATTRIBUTE_VALUE_INVALID])?;
    }
    Ok(())
}

fn create_null_value(bench: &Bench) -> Verdict {
    let template = Template::data().without(CKA_VALUE).null(CKA_VALUE, 16);
    create(bench, &template, &[CKR_ATTRIBUTE_VALUE_INVALID, CKR_ARGUMENTS_BAD])
}

fn create_unique_id(bench: &Bench) -> Verdict {
    let refusals = [CKR_ATTRIBUTE_READ_ONLY, CKR_ATTRIBUTE_TYPE_INVALID, CKR_TEMPLATE_INCONSISTENT];
    create(bench, &Template::data().bytes(CKA_UNIQUE_ID, b"mine"), &refusals)
}

fn create_refused_is_nothing(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let mark = Template::data().bytes(CKA_APPLICATION, b"refused");
    session.try_create(&mark.bytes(UNKNOWN, b"x")).0.refused()?;
    let found = session.find(&Template::new().bytes(CKA_APPLICATION, b"refused"))?;
    ensure(found.is_empty(), "no object", counted(found.len(), "object"))
}

fn data(bench: &Bench) -> Result<(Session<'_>, CK_OBJECT_HANDLE), Stop> {
    let session = bench.session()?;
    let object = session.create(&Template::data())?;
    Ok((session, object))
}

fn get(bench: &Bench) -> Verdict {
    let (session, object) = data(bench)?;
    let mut asked = Template::new().ask(CKA_VALUE);
    session.query(object, &mut asked).ok()?;
    ensure(asked.length(0) == 5, "length 5", asked.length(0).to_string())?;
    let mut given = Template::new().room(CKA_VALUE, 5);
    session.query(object, &mut given).ok()?;
    ensure(given.value(0) == b"value", "the value", format!("{:?}", given.value(0)))
}

fn get_absent(bench: &Bench) -> Verdict {
    let (session, object) = data(bench)?;
    for kind in [CKA_MODULUS, UNKNOWN] {
        let mut asked = Template::new().room(kind, 16);
        session.query(object, &mut asked).is(CKR_ATTRIBUTE_TYPE_INVALID)?;
        ensure(asked.length(0) == UNAVAILABLE, "length -1", asked.length(0).to_string())?;
    }
    Ok(())
}

fn get_small(bench: &Bench) -> Verdict {
    let (session, object) = data(bench)?;
    let mut asked = Template::new().room(CKA_VALUE, 4);
    session.query(object, &mut asked).is(CKR_BUFFER_TOO_SMALL)?;
    ensure(asked.length(0) == UNAVAILABLE, "length -1", asked.length(0).to_string())?;
    ensure(asked.is_untouched(0), "nothing written", "a part of the value")
}

fn get_mixed(bench: &Bench) -> Verdict {
    let (session, object) = data(bench)?;
    let mut asked = Template::new()
        .room(CKA_LABEL, 64)
        .room(CKA_MODULUS, 16)
        .room(CKA_VALUE, 4)
        .ask(CKA_CLASS)
        .room(CKA_TOKEN, 1);
    session.query(object, &mut asked).one_of(&[CKR_ATTRIBUTE_TYPE_INVALID, CKR_BUFFER_TOO_SMALL])?;
    let bad = (asked.length(1), asked.length(2));
    ensure(bad == (UNAVAILABLE, UNAVAILABLE), "-1 for both bad entries", format!("{bad:?}"))?;
    let good = asked.value(0) == crate::bench::LABEL
        && asked.length(3) == size_of::<CK_ULONG>() as CK_ULONG
        && asked.value(4) == [0];
    let seen = format!("{:?}, length {}, {:?}", asked.value(0), asked.length(3), asked.value(4));
    ensure(good, "every good entry answered", seen)
}

fn get_twice(bench: &Bench) -> Verdict {
    let (session, object) = data(bench)?;
    let mut asked = Template::new().room(CKA_VALUE, 5).room(CKA_VALUE, 9);
    session.query(object, &mut asked).ok()?;
    ensure(asked.value(0) == asked.value(1), "the same value", format!("{:?}", asked.value(1)))
}

fn get_large_room(bench: &Bench) -> Verdict {
    let (session, object) = data(bench)?;
    let mut asked = Template::new().room(CKA_VALUE, 4096);
    session.query(object, &mut asked).ok()?;
    ensure(asked.value(0) == b"value", "length 5", asked.length(0).to_string())
}

fn get_unknown_handle(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    NOBODY.into_iter().try_for_each(|nobody| {
        session.query(nobody, &mut Template::new().ask(CKA_CLASS)).is(CKR_OBJECT_HANDLE_INVALID)
    })
}

fn object_size(session: &Session<'_>, object: CK_OBJECT_HANDLE, length: &mut CK_ULONG) -> crate::rv::Rv {
    use crate::raw::{Arg, Function};
    session.call(Function::C_GetObjectSize, &[Arg::number(object), Arg::of_mut(length)])
}

/// `CKR_INFORMATION_SENSITIVE` and `CKR_FUNCTION_NOT_SUPPORTED` are for tokens that cannot or will not say.
fn size(bench: &Bench) -> Verdict {
    let (session, object) = data(bench)?;
    let mut length = 0;
    let rv = object_size(&session, object, &mut length);
    rv.one_of(&[CKR_OK, CKR_INFORMATION_SENSITIVE, CKR_FUNCTION_NOT_SUPPORTED])?;
    ensure(!rv.was(CKR_OK) || length > 0, "a size, or -1", length.to_string())
}

fn size_unknown_handle(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    NOBODY.into_iter().try_for_each(|nobody| {
        object_size(&session, nobody, &mut 0).one_of(&[CKR_OBJECT_HANDLE_INVALID, CKR_FUNCTION_NOT_SUPPORTED])
    })
}

fn set(bench: &Bench) -> Verdict {
    let (session, object) = data(bench)?;
    session.set(object, &Template::new().bytes(CKA_LABEL, b"changed")).ok()?;
    let seen = session.attribute(object, CKA_LABEL)?;
    ensure(seen == b"changed", "the new value", format!("{seen:?}"))
}

fn set_class(bench: &Bench) -> Verdict {
    let (session, object) = data(bench)?;
    let template = Template::new().ulong(CKA_CLASS, CKO_SECRET_KEY);
    session.set(object, &template).is(CKR_ATTRIBUTE_READ_ONLY)
}

fn set_token(bench: &Bench) -> Verdict {
    let (session, object) = data(bench)?;
    session.set(object, &Template::new().bool(CKA_TOKEN, true)).is(CKR_ATTRIBUTE_READ_ONLY)
}

fn set_unknown(bench: &Bench) -> Verdict {
    let (session, object) = data(bench)?;
    session.set(object, &Template::new().bytes(UNKNOWN, b"x")).is(CKR_ATTRIBUTE_TYPE_INVALID)
}

fn set_at_once(bench: &Bench) -> Verdict {
    let (session, object) = data(bench)?;
    let template = Template::new().bytes(CKA_LABEL, b"other").ulong(CKA_CLASS, CKO_SECRET_KEY);
    session.set(object, &template).refused()?;
    let seen = session.attribute(object, CKA_LABEL)?;
    let expected = crate::bench::LABEL;
    ensure(seen == expected, "the old label", format!("{:?}", String::from_utf8_lossy(&seen)))
}

fn set_behind_refused(bench: &Bench) -> Verdict {
    let (session, object) = data(bench)?;
    let template = Template::new().ulong(CKA_CLASS, CKO_SECRET_KEY).bytes(CKA_LABEL, b"other");
    session.set(object, &template).refused()?;
    let seen = session.attribute(object, CKA_LABEL)?;
    let expected = crate::bench::LABEL;
    ensure(seen == expected, "the old label", format!("{:?}", String::from_utf8_lossy(&seen)))
}

fn set_unmodifiable(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let object = session.create(&Template::data().bool(CKA_MODIFIABLE, false))?;
    session.set(object, &Template::new().bytes(CKA_LABEL, b"other")).is(CKR_ACTION_PROHIBITED)
}

fn set_unknown_handle(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    NOBODY.into_iter().try_for_each(|nobody| {
        session.set(nobody, &Template::new().bytes(CKA_LABEL, b"x")).is(CKR_OBJECT_HANDLE_INVALID)
    })
}

fn set_read_only_session(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let object = session.create_on_token(Template::data())?;
    let read_only = bench.read_only()?;
    let set = read_only.set(object, &Template::new().bytes(CKA_LABEL, b"other"));
    let destroyed = read_only.destroy(object);
    let _cleared = session.destroy(object);
    set.is(CKR_SESSION_READ_ONLY)?;
    destroyed.is(CKR_SESSION_READ_ONLY)
}

fn copy(bench: &Bench) -> Verdict {
    let (session, object) = data(bench)?;
    let (rv, copy) = session.copy(object, &Template::new().bytes(CKA_LABEL, b"copy"));
    rv.ok()?;
    ensure(copy != object, "another handle", "the same handle")?;
    session.destroy(object).ok()?;
    let seen = (session.attribute(copy, CKA_VALUE)?, session.attribute(copy, CKA_LABEL)?);
    ensure(seen == (b"value".to_vec(), b"copy".to_vec()), "value and copy", format!("{seen:?}"))
}

fn copy_class(bench: &Bench) -> Verdict {
    let (session, object) = data(bench)?;
    let (rv, _) = session.copy(object, &Template::new().ulong(CKA_CLASS, CKO_SECRET_KEY));
    rv.one_of(&[CKR_ATTRIBUTE_READ_ONLY, CKR_TEMPLATE_INCONSISTENT])
}

fn copy_uncopyable(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let object = session.create(&Template::data().bool(CKA_COPYABLE, false))?;
    session.copy(object, &Template::new().bytes(CKA_LABEL, crate::bench::LABEL)).0.is(CKR_ACTION_PROHIBITED)
}

fn copy_unknown_handle(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    NOBODY.into_iter().try_for_each(|nobody| {
        session.copy(nobody, &Template::new().bytes(CKA_LABEL, b"x")).0.is(CKR_OBJECT_HANDLE_INVALID)
    })
}

fn destroy(bench: &Bench) -> Verdict {
    let (session, object) = data(bench)?;
    session.destroy(object).ok()?;
    session.destroy(object).is(CKR_OBJECT_HANDLE_INVALID)?;
    session.query(object, &mut Template::new().ask(CKA_CLASS)).is(CKR_OBJECT_HANDLE_INVALID)
}

/// A program that still has the old handle would use the new object with it.
fn handle_not_reused(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let mut dead = Vec::new();
    for _ in 0..8 {
        let object = session.create(&Template::data())?;
        ensure(!dead.contains(&object), "a handle that was not used before", format!("{object} again"))?;
        session.destroy(object).ok()?;
        dead.push(object);
    }
    Ok(())
}

fn destroy_indestructible(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let (rv, object) = session.try_create(&Template::data().bool(CKA_DESTROYABLE, false));
    // CKA_DESTROYABLE came with version 2.40.
    if rv.was(CKR_ATTRIBUTE_TYPE_INVALID) {
        return Err(Stop::NotOffered);
    }
    rv.ok()?;
    session.destroy(object).is(CKR_ACTION_PROHIBITED)
}

fn destroy_unknown_handle(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    NOBODY.into_iter().try_for_each(|nobody| session.destroy(nobody).is(CKR_OBJECT_HANDLE_INVALID))
}
