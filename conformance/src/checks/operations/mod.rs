//! The state machine that encryption, decryption, digests, signatures and verification share
//! (5.2 and 5.8, 5.10, 5.12, 5.13, 5.15): one set of checks, made for each of the five.
//!
//! Each works with a mechanism that is deterministic and takes its input in parts: AES-CBC-PAD, SHA-256,
//! HMAC-SHA-256.

mod subject;

use cryptoki_sys::*;

use crate::bench::{Bench, Stage};
use crate::check::{Check, Stop, Verdict, ensure};
use crate::raw::Arg;
use crate::template::{Mechanism, Out, Template, UNAVAILABLE};
use subject::{Act, Subject};

macro_rules! chapters {
    ($( $name:ident $act:ident $group:literal $section:literal; )*) => { $(
        #[doc = concat!("The state machine of section ", $section, ".")]
        pub const $name: &[Check] = chapters!(@rows $act $group $section;
            "not-initialized" not_initialized, "a step without the Init function before it is CKR_OPERATION_NOT_INITIALIZED";
            "init-twice" init_twice, "the second initialisation is CKR_OPERATION_ACTIVE";
            "cancel-by-null" cancel_by_null, "a null mechanism ends the operation (3.0) or is refused (2.40)";
            "mechanism-unknown" mechanism_unknown, "a mechanism that does not exist is CKR_MECHANISM_INVALID";
            "mechanism-other" mechanism_other, "a mechanism for another use is CKR_MECHANISM_INVALID";
            "stray-parameter" stray_parameter, "a wrong or stray parameter is CKR_MECHANISM_PARAM_INVALID";
            "refused-is-nothing" refused_is_nothing, "a refused initialisation begins nothing";
            "key-unknown" key_unknown, "a handle that is no key's is CKR_KEY_HANDLE_INVALID";
            "key-is-data" key_is_data, "a data object is no key";
            "key-wrong-type" key_wrong_type, "a key of another type is CKR_KEY_TYPE_INCONSISTENT";
            "key-not-permitted" key_not_permitted, "a key without this use is CKR_KEY_FUNCTION_NOT_PERMITTED";
            "length-query" length_query, "asking for the length keeps the operation";
            "too-small" too_small, "a buffer that is too small keeps the operation, and nothing is written";
            "too-small-final" too_small_final, "too little room for the Final function keeps the operation, and nothing is written";
            "over" over, "an operation that was completed at once is over";
            "over-final" over_final, "an operation that was completed in parts is over";
            "parts" parts, "in parts of any size the result is that of one part";
            "single-after-part" single_after_part, "the one-part function does not end an operation in parts";
            "null-input" null_input, "null input with a length is refused and ends the operation";
            "empty-null-input" empty_null_input, "null input of no length is an empty part";
            "key-destroyed" key_destroyed, "a key destroyed on the way does no harm";
            "apart" apart, "another operation beside it works, or is CKR_OPERATION_ACTIVE, and does not disturb it";
        );
    )* };
    (@rows $act:ident $group:literal $section:literal; $( $id:literal $run:ident, $title:literal; )*) => {
        &[ $( Check::new(
            concat!($group, ".", $id),
            Stage::User,
            |bench| $run(bench, Act::$act),
            concat!($section, " and 5.2"),
            $title,
        ).operations(), )* ]
    };
}

chapters! {
    ENCRYPT Encrypt "encrypt" "5.8";
    DECRYPT Decrypt "decrypt" "5.10";
    DIGEST Digest "digest" "5.12";
    SIGN Sign "sign" "5.13";
    VERIFY Verify "verify" "5.15";
}

/// A verification has no output to ask about.
fn has_output(act: Act) -> Verdict {
    if act == Act::Verify { Err(Stop::NotOffered) } else { Ok(()) }
}

fn needs_key(act: Act) -> Verdict {
    if act == Act::Digest { Err(Stop::NotOffered) } else { Ok(()) }
}

fn not_initialized(bench: &Bench, act: Act) -> Verdict {
    let subject = Subject::new(bench, act)?;
    subject.single(&mut Out::room(128)).is(CKR_OPERATION_NOT_INITIALIZED)?;
    subject.is_over()?;
    subject.last(&mut Out::room(128)).is(CKR_OPERATION_NOT_INITIALIZED)
}

fn init_twice(bench: &Bench, act: Act) -> Verdict {
    let subject = Subject::new(bench, act)?;
    subject.begin().ok()?;
    subject.begin().is(CKR_OPERATION_ACTIVE)
}

fn cancel_by_null(bench: &Bench, act: Act) -> Verdict {
    let subject = Subject::new(bench, act)?;
    subject.begin().ok()?;
    let [init, ..] = act.functions();
    let arguments = [Arg::NULL, Arg::number(subject.key.unwrap_or(0))];
    let used = if act == Act::Digest { 1 } else { 2 };
    let rv = subject.session.call(init, arguments.get(..used).unwrap_or_default());
    if !bench.module.has_3_0() {
        return rv.refused();
    }
    rv.one_of(&[CKR_OK, CKR_OPERATION_CANCEL_FAILED])?;
    if rv.was(CKR_OK) { subject.is_over() } else { Ok(()) }
}

fn mechanism_unknown(bench: &Bench, act: Act) -> Verdict {
    let subject = Subject::new(bench, act)?;
    for number in [CKM_VENDOR_DEFINED | 0x00de_adbe, UNAVAILABLE] {
        let mechanism = Mechanism::plain(number);
        subject.session.init(act.functions()[0], &mechanism, subject.key).is(CKR_MECHANISM_INVALID)?;
    }
    Ok(())
}

fn mechanism_other(bench: &Bench, act: Act) -> Verdict {
    let subject = Subject::new(bench, act)?;
    let others: &[CK_MECHANISM_TYPE] = match act {
        Act::Digest => &[CKM_SHA256_HMAC, CKM_AES_KEY_GEN],
        Act::Encrypt | Act::Decrypt | Act::Sign | Act::Verify => &[CKM_SHA256, CKM_AES_KEY_GEN],
    };
    for number in others {
        let mechanism = Mechanism::plain(*number);
        subject.session.init(act.functions()[0], &mechanism, subject.key).is(CKR_MECHANISM_INVALID)?;
    }
    Ok(())
}

fn stray_parameter(bench: &Bench, act: Act) -> Verdict {
    let subject = Subject::new(bench, act)?;
    let number = act.mechanism().number();
    let wrong = match act {
        Act::Encrypt | Act::Decrypt => [
            Mechanism::plain(number),
            Mechanism::null(number, 16),
            Mechanism::bytes(number, &[7; 15]),
            Mechanism::bytes(number, &[7; 17]),
        ],
        Act::Digest | Act::Sign | Act::Verify => [
            Mechanism::bytes(number, &[7; 1]),
            Mechanism::bytes(number, &[7; 16]),
            Mechanism::null(number, 16),
            Mechanism::words(number, &[1, 2, 3]),
        ],
    };
    for mechanism in &wrong {
        let rv = subject.session.init(act.functions()[0], mechanism, subject.key);
        rv.one_of(&[CKR_MECHANISM_PARAM_INVALID, CKR_ARGUMENTS_BAD])?;
    }
    Ok(())
}

fn refused_is_nothing(bench: &Bench, act: Act) -> Verdict {
    let subject = Subject::new(bench, act)?;
    let mechanism = Mechanism::plain(CKM_VENDOR_DEFINED | 0x00de_adbe);
    subject.session.init(act.functions()[0], &mechanism, subject.key).refused()?;
    subject.is_over()
}

fn key_unknown(bench: &Bench, act: Act) -> Verdict {
    needs_key(act)?;
    let subject = Subject::new(bench, act)?;
    for nobody in [0, 0x7fff_fff0, UNAVAILABLE] {
        let rv = subject.session.init(act.functions()[0], &act.mechanism(), Some(nobody));
        rv.is(CKR_KEY_HANDLE_INVALID)?;
    }
    Ok(())
}

fn key_is_data(bench: &Bench, act: Act) -> Verdict {
    needs_key(act)?;
    let subject = Subject::new(bench, act)?;
    let data = subject.session.create(&Template::data())?;
    let rv = subject.session.init(act.functions()[0], &act.mechanism(), Some(data));
    rv.one_of(&[CKR_KEY_HANDLE_INVALID, CKR_KEY_TYPE_INCONSISTENT, CKR_KEY_FUNCTION_NOT_PERMITTED])
}

/// The key may do everything, so that only its type is wrong.
fn key_wrong_type(bench: &Bench, act: Act) -> Verdict {
    needs_key(act)?;
    let subject = Subject::new(bench, act)?;
    let other = if act.flows() { Act::Sign } else { Act::Encrypt };
    let all = [CKA_ENCRYPT, CKA_DECRYPT, CKA_SIGN, CKA_VERIFY];
    let key = subject.session.create(&other.key_template(&all))?;
    let rv = subject.session.init(act.functions()[0], &act.mechanism(), Some(key));
    rv.is(CKR_KEY_TYPE_INCONSISTENT)
}

fn key_not_permitted(bench: &Bench, act: Act) -> Verdict {
    let others = match act {
        Act::Encrypt => CKA_DECRYPT,
        Act::Decrypt => CKA_ENCRYPT,
        Act::Sign => CKA_VERIFY,
        Act::Verify => CKA_SIGN,
        Act::Digest => return Err(Stop::NotOffered),
    };
    let subject = Subject::new(bench, act)?;
    let key = subject.session.create(&act.key_template(&[others]))?;
    let rv = subject.session.init(act.functions()[0], &act.mechanism(), Some(key));
    rv.is(CKR_KEY_FUNCTION_NOT_PERMITTED)
}

/// The text of 3.2 lets a module ask for more room than it uses, but not for an absurd amount.
fn length_query(bench: &Bench, act: Act) -> Verdict {
    has_output(act)?;
    let subject = Subject::new(bench, act)?;
    subject.begin().ok()?;
    let mut asked = Out::ask();
    subject.single(&mut asked).ok()?;
    let needed = subject.result.len() as CK_ULONG;
    let sensible = (needed..=needed + 64).contains(&asked.length());
    ensure(sensible, format!("about {needed}"), asked.length().to_string())?;
    let mut out = Out::room(usize::try_from(asked.length()).unwrap_or(0));
    subject.single(&mut out).ok()?;
    subject.gives(out.bytes())
}

fn too_small(bench: &Bench, act: Act) -> Verdict {
    has_output(act)?;
    let subject = Subject::new(bench, act)?;
    subject.begin().ok()?;
    for room in [0, 1, subject.result.len() - 1] {
        let mut small = Out::room(room);
        subject.single(&mut small).is(CKR_BUFFER_TOO_SMALL)?;
        let needed = subject.result.len() as CK_ULONG;
        ensure(small.length() >= needed, format!("length {needed}"), small.length().to_string())?;
        ensure(small.is_untouched(), "nothing written", "memory was written")?;
    }
    let mut out = Out::room(128);
    subject.single(&mut out).ok()?;
    subject.gives(out.bytes())
}

fn too_small_final(bench: &Bench, act: Act) -> Verdict {
    has_output(act)?;
    let subject = Subject::new(bench, act)?;
    subject.begin().ok()?;
    let mut output = Vec::new();
    subject.part(&subject.input, &mut output).ok()?;
    let rest = subject.result.len() - output.len();
    if rest > 0 {
        let mut asked = Out::ask();
        subject.last(&mut asked).ok()?;
        ensure(asked.length() >= rest as CK_ULONG, format!("at least {rest}"), asked.length().to_string())?;
        let mut small = Out::room(rest - 1);
        subject.last(&mut small).is(CKR_BUFFER_TOO_SMALL)?;
        ensure(small.is_untouched(), "nothing written", "memory was written")?;
    }
    let mut out = Out::room(128);
    subject.last(&mut out).ok()?;
    output.extend_from_slice(out.bytes());
    subject.gives(&output)
}

fn over(bench: &Bench, act: Act) -> Verdict {
    let subject = Subject::new(bench, act)?;
    subject.begin().ok()?;
    subject.single(&mut Out::room(128)).ok()?;
    subject.single(&mut Out::room(128)).is(CKR_OPERATION_NOT_INITIALIZED)?;
    subject.begin().ok()
}

fn over_final(bench: &Bench, act: Act) -> Verdict {
    let subject = Subject::new(bench, act)?;
    subject.begin().ok()?;
    subject.part(&subject.input, &mut Vec::new()).ok()?;
    subject.last(&mut Out::room(128)).ok()?;
    subject.last(&mut Out::room(128)).is(CKR_OPERATION_NOT_INITIALIZED)?;
    subject.is_over()
}

fn parts(bench: &Bench, act: Act) -> Verdict {
    let subject = Subject::new(bench, act)?;
    for size in [1, 7, 16, 17, 64] {
        subject.begin().ok()?;
        let mut output = Vec::new();
        for part in subject.input.chunks(size) {
            subject.part(part, &mut output).ok()?;
        }
        let mut out = Out::room(128);
        subject.last(&mut out).ok()?;
        output.extend_from_slice(out.bytes());
        subject.gives(&output)?;
    }
    Ok(())
}

/// What the module may answer is not fixed; that it answers with a signature is out of the question.
fn single_after_part(bench: &Bench, act: Act) -> Verdict {
    let subject = Subject::new(bench, act)?;
    subject.begin().ok()?;
    subject.part(subject.input.get(..16).unwrap_or_default(), &mut Vec::new()).ok()?;
    let rv = subject.single(&mut Out::room(128));
    rv.one_of(&[CKR_OPERATION_ACTIVE, CKR_OPERATION_NOT_INITIALIZED, CKR_FUNCTION_FAILED])
}

fn null_input(bench: &Bench, act: Act) -> Verdict {
    let subject = Subject::new(bench, act)?;
    let [_, single, update, _] = act.functions();
    let (mut out, mut signature) = (Out::room(128), subject.result.clone());
    subject.begin().ok()?;
    let [first, second] = match act {
        Act::Verify => [Arg::slice_mut(&mut signature), Arg::number(32)],
        Act::Encrypt | Act::Decrypt | Act::Digest | Act::Sign => out.args(),
    };
    subject.session.call(single, &[Arg::NULL, Arg::number(32), first, second]).is(CKR_ARGUMENTS_BAD)?;
    subject.is_over()?;
    subject.begin().ok()?;
    let [buffer, length] = out.args();
    let used = if act.flows() { 4 } else { 2 };
    let arguments = [Arg::NULL, Arg::number(32), buffer, length];
    subject.session.call(update, arguments.get(..used).unwrap_or_default()).is(CKR_ARGUMENTS_BAD)?;
    subject.is_over()
}

fn empty_null_input(bench: &Bench, act: Act) -> Verdict {
    let subject = Subject::new(bench, act)?;
    subject.begin().ok()?;
    let mut output = Vec::new();
    subject.part(&subject.input, &mut output).ok()?;
    let mut none = Out::room(64);
    let [buffer, length] = none.args();
    let used = if act.flows() { 4 } else { 2 };
    let arguments = [Arg::NULL, Arg::number(0), buffer, length];
    let rv = subject.session.call(act.functions()[2], arguments.get(..used).unwrap_or_default());
    rv.one_of(&[CKR_OK, CKR_ARGUMENTS_BAD])?;
    if rv.was(CKR_OK) {
        if act.flows() {
            output.extend_from_slice(none.bytes());
        }
        let mut out = Out::room(128);
        subject.last(&mut out).ok()?;
        output.extend_from_slice(out.bytes());
        subject.gives(&output)?;
    }
    Ok(())
}

fn key_destroyed(bench: &Bench, act: Act) -> Verdict {
    let subject = Subject::new(bench, act)?;
    let key = subject.key.ok_or(Stop::NotOffered)?;
    subject.begin().ok()?;
    let mut output = Vec::new();
    subject.part(subject.input.get(..16).unwrap_or_default(), &mut output).ok()?;
    subject.session.destroy(key).ok()?;
    let mut out = Out::room(128);
    let rest = subject.input.get(16..).unwrap_or_default();
    let mut rv = subject.part(rest, &mut output);
    if rv.was(CKR_OK) {
        rv = subject.last(&mut out);
    }
    rv.one_of(&[CKR_OK, CKR_KEY_HANDLE_INVALID, CKR_OBJECT_HANDLE_INVALID, CKR_OPERATION_NOT_INITIALIZED])?;
    if rv.was(CKR_OK) {
        output.extend_from_slice(out.bytes());
        subject.gives(&output)?;
    }
    Ok(())
}

/// Only tokens with `CKF_DUAL_CRYPTO_OPERATIONS` need let two operations go on in a session.
fn apart(bench: &Bench, act: Act) -> Verdict {
    let subject = Subject::new(bench, act)?;
    let other = Subject::new(bench, if act == Act::Digest { Act::Sign } else { Act::Digest })?;
    let other = Subject { session: subject.session, ..other };
    subject.begin().ok()?;
    let mut output = Vec::new();
    subject.part(&subject.input, &mut output).ok()?;
    let beside = other.begin();
    beside.one_of(&[CKR_OK, CKR_OPERATION_ACTIVE])?;
    if beside.was(CKR_OK) {
        other.part(&other.input, &mut Vec::new()).ok()?;
        let mut out = Out::room(128);
        other.last(&mut out).ok()?;
        other.gives(out.bytes())?;
    }
    let mut out = Out::room(128);
    subject.last(&mut out).ok()?;
    output.extend_from_slice(out.bytes());
    subject.gives(&output)
}
