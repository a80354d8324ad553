//! Chapters 5.7.7 to 5.7.9: searches that forget, repeat and invent.

use std::thread;
use std::time::Duration;

use cryptoki_sys::*;

use super::faults;
use crate::call::{Call, Memo, held};
use crate::functions::Function as F;
use crate::memory;

faults! {
    "find-repeats" [C_FindObjects] repeats, "5.7.8 C_FindObjects", "an object is found twice", ["find.two-sessions" "find.token-object" "client.find" "client.token-key"];
    "find-forgets" [C_FindObjects] forgets, "5.7.8 C_FindObjects", "the last of several objects is forgotten", ["find.two-sessions" "find.all"];
    "find-ends-early" [C_FindObjectsInit C_FindObjects] ends_early, "5.7.8 C_FindObjects", "only the first C_FindObjects of a search finds anything", ["find.one-by-one"];
    "find-matches-all" [C_FindObjectsInit] |call| call.with(&[(1, 0), (2, 0)]), "5.7.7 C_FindObjectsInit", "the template of a search is passed over", ["find.by-attributes"];
    "find-ends-with-error" [C_FindObjects] ends_with_error, "5.7.8 C_FindObjects", "the end of a search is an error", ["find.end" "find.one-by-one"];
    "find-not-initialized" [C_FindObjects C_FindObjectsFinal] |call| call.instead_of(&[CKR_OPERATION_NOT_INITIALIZED], CKR_OK), "5.7.8 C_FindObjects", "a search needs no beginning", ["find.not-initialized" "find.final-twice"];
    "find-init-twice" [C_FindObjectsInit] |call| call.instead_of(&[CKR_OPERATION_ACTIVE], CKR_OK), "5.7.7 C_FindObjectsInit", "a second search in a session is accepted", ["find.init-twice"];
    "find-none-is-one" [C_FindObjects] none_is_one, "5.7.8 C_FindObjects", "asked for no object, the search says that it gave one", ["find.none-at-once"];
    "find-unknown-attribute" [C_FindObjectsInit] unknown_attribute, "5.7.7 C_FindObjectsInit", "attributes that do not exist match everything", ["find.unknown-attribute"];
    "find-any-size" [C_FindObjectsInit] any_size, "5.7.7 C_FindObjectsInit", "a value of the wrong size matches everything", ["find.wrong-size"];
    "find-stops-at-destroyed" [C_DestroyObject C_FindObjects] stops_at_destroyed, "5.7.8 C_FindObjects", "an object that is destroyed meanwhile ends the search with an error", ["find.destroyed-meanwhile"];
    "find-huge-count-hangs" [C_FindObjectsInit] huge_count_hangs, "5.1.6 CKR_ARGUMENTS_BAD", "a count of attributes that no memory holds is counted to the end", ["lengths.find"];
    "find-ends-digest" [C_FindObjectsInit] ends_digest, "5.6 Session management", "a search ends the session's digest", ["find.mixed-with-operation"];
}

fn repeats(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    let mut found: Vec<usize> = memory::list(call.word(1), call.pointed(3));
    if let (CKR_OK, Some(first)) = (rv, found.first().copied())
        && found.len() < call.word(2)
    {
        found.push(first);
        memory::put(call.word(1), &found);
        memory::write(call.word(3), found.len());
    }
    rv
}

fn forgets(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    let found = call.pointed(3);
    if rv == CKR_OK && found > 1 {
        memory::write(call.word(3), found - 1);
    }
    rv
}

fn ends_early(call: &Call<'_>) -> CK_RV {
    static GIVEN: Memo<bool> = Memo::new(false);
    let rv = call.forward();
    let mut given = held(&GIVEN);
    if call.is(F::C_FindObjectsInit) {
        *given = false;
    } else if std::mem::replace(&mut *given, true) {
        memory::write(call.word(3), 0_usize);
    }
    rv
}

fn ends_with_error(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    if rv == CKR_OK && call.pointed(3) == 0 { CKR_FUNCTION_FAILED } else { rv }
}

fn none_is_one(call: &Call<'_>) -> CK_RV {
    if call.word(2) != 0 {
        return call.forward();
    }
    let mut handle = 0_usize;
    call.with(&[(1, memory::address(&mut handle)), (2, 1)])
}

fn unknown_attribute(call: &Call<'_>) -> CK_RV {
    let mut template = call.template(1);
    template.attributes.retain(|attribute| attribute.type_ < CKA_VENDOR_DEFINED);
    call.with_template(1, &mut template)
}

fn huge_count_hangs(call: &Call<'_>) -> CK_RV {
    while call.word(2) > 1 << 24 {
        thread::sleep(Duration::from_millis(50));
    }
    call.forward()
}

fn ends_digest(call: &Call<'_>) -> CK_RV {
    let (mut digest, mut length) = ([0_u8; 128], 128_usize);
    let words = [call.word(0), memory::address(&mut digest), memory::address(&mut length)];
    let _ended = call.aside(F::C_DigestFinal, &words);
    call.forward()
}

fn any_size(call: &Call<'_>) -> CK_RV {
    let mut template = call.template(1);
    template.attributes.retain(|attribute| match attribute.type_ {
        CKA_TOKEN => attribute.ulValueLen == 1,
        CKA_CLASS => attribute.ulValueLen as usize == size_of::<CK_ULONG>(),
        _ => true,
    });
    call.with_template(1, &mut template)
}

fn stops_at_destroyed(call: &Call<'_>) -> CK_RV {
    static DESTROYED: Memo<bool> = Memo::new(false);
    let mut destroyed = held(&DESTROYED);
    *destroyed |= call.is(F::C_DestroyObject);
    if call.is(F::C_FindObjects) && *destroyed { CKR_OBJECT_HANDLE_INVALID } else { call.forward() }
}
