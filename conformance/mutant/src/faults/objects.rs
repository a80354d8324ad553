//! Chapters 4.1 and 5.7: objects that are made, read, changed, copied and destroyed otherwise than asked.

use std::collections::BTreeSet;

use cryptoki_sys::*;

use super::faults;
use crate::call::{Call, Memo, Template, held};
use crate::functions::Function as F;
use crate::memory;

faults! {
    "create-unknown-attribute" [C_CreateObject] create_unknown, "4.1.1 Creating objects", "attributes that do not exist are passed over", ["objects.create-unknown-attribute"];
    "create-incomplete-general" [C_CreateObject] |call| call.instead_of(&[CKR_TEMPLATE_INCOMPLETE], CKR_GENERAL_ERROR), "4.1.1 Creating objects", "an incomplete template is CKR_GENERAL_ERROR", ["objects.create-no-class" "objects.create-no-value" "keys.import-ec-incomplete"];
    "create-duplicates" [C_CreateObject] create_duplicates, "4.1.1 Creating objects", "of two classes in a template the last is taken", ["objects.create-two-classes"];
    "create-any-template" [C_CreateObject] create_any, "4.1.1 Creating objects", "no template is refused", ["objects.create-empty" "objects.create-no-key-type" "objects.create-unknown-class" "objects.create-unknown-key-type" "objects.create-foreign-attribute" "objects.create-empty-bool" "objects.create-null-value" "keys.import-rsa-incomplete"];
    "create-same-twice-general" [C_CreateObject] same_twice, "4.1.1 Creating objects", "an attribute that stands twice is CKR_GENERAL_ERROR", ["objects.create-same-twice"];
    "create-long-bool" [C_CreateObject] create_long_bool, "4.1.1 Creating objects", "of a CK_BBOOL of eight bytes the first is taken", ["objects.create-long-bool"];
    "create-any-unique-id" [C_CreateObject] |call| call.with_template(1, &mut call.template(1).without(CKA_UNIQUE_ID)), "4.4 Storage objects", "an object is given a CKA_UNIQUE_ID", ["objects.create-unique-id"];
    "create-loses-attribute" [C_CreateObject] |call| call.with_template(1, &mut call.template(1).without(CKA_LABEL)), "4.1.1 Creating objects", "an attribute that was given is not kept", ["objects.create-data"];
    "get-stops-at-bad" [C_GetAttributeValue] get_stops, "5.7.5 C_GetAttributeValue", "the first bad entry ends the call", ["objects.get-mixed" "attributes.sensitive-in-mixed"];
    "get-ok-with-minus-one" [C_GetAttributeValue] |call| call.instead_of(&[CKR_ATTRIBUTE_TYPE_INVALID], CKR_OK), "5.7.5 C_GetAttributeValue", "an attribute that is not there is CKR_OK with length -1", ["objects.get-absent" "objects.get-mixed"];
    "get-general-error" [C_GetAttributeValue] |call| call.instead_of(&[CKR_ATTRIBUTE_TYPE_INVALID, CKR_BUFFER_TOO_SMALL], CKR_GENERAL_ERROR), "5.7.5 C_GetAttributeValue", "every bad entry is CKR_GENERAL_ERROR", ["objects.get-absent" "objects.get-small"];
    "get-writes-what-fits" [C_GetAttributeValue] get_writes, "5.7.5 C_GetAttributeValue", "too little room is filled as far as it goes", ["objects.get-small"];
    "get-length-of-room" [C_GetAttributeValue] get_length_of_room, "5.7.5 C_GetAttributeValue", "the length that comes back is that of the caller's room", ["objects.get-large-room"];
    "get-forgets-length" [C_GetAttributeValue] get_forgets_length, "5.7.5 C_GetAttributeValue", "asked for a length, the module says none", ["objects.get"];
    "get-dead-handle" [C_GetAttributeValue] |call| call.instead_of(&[CKR_OBJECT_HANDLE_INVALID], CKR_OK), "5.7.5 C_GetAttributeValue", "a handle that is no object's is answered with CKR_OK", ["objects.get-unknown-handle" "objects.destroy"];
    "get-answers-once" [C_GetAttributeValue] get_answers_once, "5.7.5 C_GetAttributeValue", "an attribute that is asked twice is answered once", ["objects.get-twice"];
    "get-zeros" [C_GetAttributeValue] get_zeros, "5.7.5 C_GetAttributeValue", "values come back as zeros", ["attributes.plain-shown" "objects.create-data" "client.find"];
    "dead-handle-general" [C_SetAttributeValue C_CopyObject] |call| call.instead_of(&[CKR_OBJECT_HANDLE_INVALID], CKR_GENERAL_ERROR), "5.1.6 CKR_OBJECT_HANDLE_INVALID", "a handle that is no object's is CKR_GENERAL_ERROR", ["objects.set-unknown-handle" "objects.copy-unknown-handle"];
    "set-unknown-attribute" [C_SetAttributeValue] |call| call.instead_of(&[CKR_ATTRIBUTE_TYPE_INVALID], CKR_OK), "5.7.6 C_SetAttributeValue", "attributes that do not exist are passed over", ["objects.set-unknown"];
    "set-class" [C_SetAttributeValue] |call| waved(call, CKA_CLASS), "4.1.2 Modifying objects", "the class of an object changes", ["objects.set-class"];
    "set-token" [C_SetAttributeValue] |call| waved(call, CKA_TOKEN), "4.1.2 Modifying objects", "a session object becomes a token object", ["objects.set-token"];
    "set-unmodifiable" [C_SetAttributeValue] |call| call.instead_of(&[CKR_ACTION_PROHIBITED], CKR_OK), "4.1.2 Modifying objects", "CKA_MODIFIABLE false is passed over", ["objects.set-unmodifiable"];
    "set-does-nothing" [C_SetAttributeValue] |_| CKR_OK, "5.7.6 C_SetAttributeValue", "C_SetAttributeValue only says that it is done", ["objects.set" "attributes.sensitive-later"];
    "set-one-by-one" [C_SetAttributeValue] set_one_by_one, "4.1.2 Modifying objects", "what stands behind a refused attribute is changed all the same", ["objects.set-behind-refused"];
    "copy-shares-handle" [C_CopyObject] copy_shares_handle, "5.7.2 C_CopyObject", "a copy is the original", ["objects.copy"];
    "copy-forgets-template" [C_CopyObject] |call| call.with(&[(3, 0)]), "5.7.2 C_CopyObject", "the template of a copy is passed over", ["objects.copy" "attributes.copy-made-sensitive"];
    "copy-uncopyable" [C_CopyObject] |call| call.instead_of(&[CKR_ACTION_PROHIBITED], CKR_OK), "4.1.3 Copying objects", "CKA_COPYABLE false is passed over", ["objects.copy-uncopyable"];
    "copy-other-class" [C_CopyObject] |call| call.with_template(2, &mut call.template(2).without(CKA_CLASS)), "4.1.3 Copying objects", "a copy may be asked to be of another class", ["objects.copy-class"];
    "destroy-does-nothing" [C_DestroyObject] |_| CKR_OK, "5.7.3 C_DestroyObject", "C_DestroyObject only says that it is done", ["objects.destroy" "find.token-object"];
    "destroyed-comes-back" [C_Initialize C_DestroyObject C_FindObjects C_GetAttributeValue] destroyed_comes_back, "5.7.3 C_DestroyObject", "a destroyed object is hidden until the module starts again", ["objects.next-start" "objects.next-process"];
    "token-object-forgotten" [C_CreateObject] |call| call.with_template(1, &mut call.template(1).and(CKA_TOKEN, &[CK_FALSE])), "4.4 Storage objects", "a token object ends with its session", ["objects.next-start" "objects.next-process" "find.token-object"];
    "destroy-indestructible" [C_DestroyObject] |call| call.instead_of(&[CKR_ACTION_PROHIBITED], CKR_OK), "5.7.3 C_DestroyObject", "CKA_DESTROYABLE false is passed over", ["objects.destroy-indestructible"];
    "handle-reused" [C_DestroyObject C_CreateObject] handle_reused, "5.7.1 C_CreateObject (use after free)", "the handle of a destroyed object is given to the next", ["objects.handle-not-reused"];
    "size-of-nothing" [C_GetObjectSize] |call| call.waved_through(), "5.7.4 C_GetObjectSize", "handles of nothing have a size", ["objects.size-unknown-handle"];
    "size-zero" [C_GetObjectSize] size_zero, "5.7.4 C_GetObjectSize", "an object has no size", ["objects.size"];
}

fn destroyed_comes_back(call: &Call<'_>) -> CK_RV {
    static HIDDEN: Memo<BTreeSet<usize>> = Memo::new(BTreeSet::new());
    let mut hidden = held(&HIDDEN);
    match call.function {
        F::C_Initialize => {
            hidden.clear();
            call.forward()
        }
        F::C_DestroyObject => {
            hidden.insert(call.word(1));
            CKR_OK
        }
        F::C_FindObjects => loop {
            let rv = call.forward();
            let found: Vec<usize> = memory::list(call.word(1), call.pointed(3));
            let shown: Vec<usize> = found.iter().copied().filter(|object| !hidden.contains(object)).collect();
            memory::put(call.word(1), &shown);
            memory::write(call.word(3), shown.len());
            if rv != CKR_OK || found.is_empty() || !shown.is_empty() {
                return rv;
            }
        },
        _ if hidden.contains(&call.word(1)) => CKR_OBJECT_HANDLE_INVALID,
        _ => call.forward(),
    }
}

/// Says that a read-only attribute was changed.
fn waved(call: &Call<'_>, kind: CK_ATTRIBUTE_TYPE) -> CK_RV {
    if call.template(2).has(kind) { call.waved_through() } else { call.forward() }
}

fn create_unknown(call: &Call<'_>) -> CK_RV {
    let mut template = call.template(1);
    template.attributes.retain(|attribute| attribute.type_ < CKA_VENDOR_DEFINED);
    call.with_template(1, &mut template)
}

fn create_duplicates(call: &Call<'_>) -> CK_RV {
    let template = call.template(1);
    let mut once: Vec<CK_ATTRIBUTE> = Vec::new();
    for attribute in template.attributes.iter().rev() {
        if !once.iter().any(|other| other.type_ == attribute.type_) {
            once.push(*attribute);
        }
    }
    call.with(&[(1, memory::address(once.as_mut_slice())), (2, once.len())])
}

fn create_long_bool(call: &Call<'_>) -> CK_RV {
    let template = call.template(1);
    match template.value(CKA_MODIFIABLE).as_deref() {
        Some([first, _, ..]) => call.with_template(1, &mut template.and(CKA_MODIFIABLE, &[*first])),
        _ => call.forward(),
    }
}

/// Asks one attribute after the other, in the caller's memory.
fn get_stops(call: &Call<'_>) -> CK_RV {
    for number in 0..call.word(3) {
        let entry = call.word(2) + number * size_of::<CK_ATTRIBUTE>();
        let rv = call.with(&[(2, entry), (3, 1)]);
        if rv != CKR_OK {
            return rv;
        }
    }
    CKR_OK
}

/// Changes the entries of a template after the real module answered: before, after, where the entry stands.
fn entries(call: &Call<'_>, change: fn(&CK_ATTRIBUTE, &CK_ATTRIBUTE, usize)) -> CK_RV {
    let before = call.template(2).attributes;
    let rv = call.forward();
    let after = call.template(2).attributes;
    for (number, (before, after)) in before.iter().zip(&after).enumerate() {
        let entry = call.word(2) + number * size_of::<CK_ATTRIBUTE>();
        change(before, after, entry + std::mem::offset_of!(CK_ATTRIBUTE, ulValueLen));
    }
    rv
}

fn get_writes(call: &Call<'_>) -> CK_RV {
    let before = call.template(2);
    let rv = call.forward();
    for attribute in before.attributes.iter().filter(|_| rv == CKR_BUFFER_TOO_SMALL) {
        let value = call.attribute(call.word(0), call.word(1), attribute.type_).unwrap_or_default();
        let room = attribute.ulValueLen as usize;
        memory::put(attribute.pValue.expose_provenance(), value.get(..room).unwrap_or_default());
    }
    rv
}

fn get_length_of_room(call: &Call<'_>) -> CK_RV {
    entries(call, |before, after, place| {
        if after.ulValueLen <= before.ulValueLen && !before.pValue.is_null() {
            memory::write(place, before.ulValueLen);
        }
    })
}

fn get_forgets_length(call: &Call<'_>) -> CK_RV {
    entries(call, |before, _, place| {
        if before.pValue.is_null() {
            memory::write(place, 0 as CK_ULONG);
        }
    })
}

/// Each attribute by itself; the answer is the first refusal.
fn set_one_by_one(call: &Call<'_>) -> CK_RV {
    let mut answer = CKR_OK;
    for attribute in call.template(2).attributes {
        let rv = call.with_template(2, &mut Template::of(attribute));
        answer = if answer == CKR_OK { rv } else { answer };
    }
    answer
}

fn copy_shares_handle(call: &Call<'_>) -> CK_RV {
    let words = [call.word(0), call.word(1), call.word(2), call.word(3)];
    let rv = call.aside(F::C_SetAttributeValue, &words);
    memory::write(call.word(4), call.word(1));
    rv
}

fn handle_reused(call: &Call<'_>) -> CK_RV {
    static FREE: Memo<usize> = Memo::new(0);
    let rv = call.forward();
    let mut free = held(&FREE);
    if call.is(F::C_DestroyObject) && rv == CKR_OK {
        *free = call.word(1);
    } else if rv == CKR_OK && *free != 0 {
        memory::write(call.word(3), std::mem::take(&mut *free));
    }
    rv
}

fn create_any(call: &Call<'_>) -> CK_RV {
    let refusals = [
        CKR_TEMPLATE_INCOMPLETE,
        CKR_TEMPLATE_INCONSISTENT,
        CKR_ATTRIBUTE_TYPE_INVALID,
        CKR_ATTRIBUTE_VALUE_INVALID,
        CKR_ARGUMENTS_BAD,
    ];
    call.instead_of(&refusals, CKR_OK)
}

fn same_twice(call: &Call<'_>) -> CK_RV {
    let kinds: Vec<_> = call.template(1).attributes.iter().map(|attribute| attribute.type_).collect();
    let once: std::collections::BTreeSet<_> = kinds.iter().collect();
    if once.len() < kinds.len() { CKR_GENERAL_ERROR } else { call.forward() }
}

fn get_answers_once(call: &Call<'_>) -> CK_RV {
    let asked = call.template(2).attributes;
    let rv = call.forward();
    for (number, attribute) in asked.iter().enumerate() {
        if asked.iter().take(number).any(|earlier| earlier.type_ == attribute.type_) {
            let entry = call.word(2) + number * size_of::<CK_ATTRIBUTE>();
            memory::write(entry + std::mem::offset_of!(CK_ATTRIBUTE, ulValueLen), 0 as CK_ULONG);
        }
    }
    rv
}

fn get_zeros(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    for attribute in call.template(2).attributes.iter().filter(|_| rv == CKR_OK) {
        if attribute.type_ == CKA_VALUE {
            memory::put(attribute.pValue.expose_provenance(), &vec![0_u8; attribute.ulValueLen as usize]);
        }
    }
    rv
}

fn size_zero(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    memory::write(call.word(2), 0 as CK_ULONG);
    rv
}
