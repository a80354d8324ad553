//! RSA private keys that were tampered with, and are used all the same: each gives a faulty signature.

use cryptoki_sys::*;

use super::faults;
use crate::call::{Call, Template};
use crate::functions::Function as F;
use crate::memory;

faults! {
    behind Nss;
    "faulty-unwrapped-key-signs" [C_UnwrapKey C_Sign] |call| faulty_key_signs(call, F::C_UnwrapKey), "5.18.4 C_UnwrapKey (Boneh, DeMillo and Lipton 1997)", "a wrapped RSA key that was tampered with signs, wrongly", ["attacks.a19-edited-wrapped" "attacks.a19-flipped-wrapped"];
    "faulty-imported-key-signs" [C_CreateObject C_Sign] |call| faulty_key_signs(call, F::C_CreateObject), "6.1 RSA (Boneh, DeMillo and Lipton 1997)", "an RSA key that was tampered with signs, wrongly", ["attacks.a19-edited-import"];
}

/// Where the real module refuses a private key, another stands in, and all signatures have a bit turned over.
fn faulty_key_signs(call: &Call<'_>, maker: F) -> CK_RV {
    let rv = call.forward();
    if call.is(F::C_Sign) {
        return if rv == CKR_OK { flipped(call) } else { rv };
    }
    let (template, place) = if maker == F::C_UnwrapKey { (5, 7) } else { (1, 3) };
    let is_private = call.template(template).value(CKA_CLASS) == Some(CKO_PRIVATE_KEY.to_ne_bytes().to_vec());
    if rv == CKR_OK || !is_private {
        return rv;
    }
    let mut wanted = Template::default().and(CKA_CLASS, &CKO_PRIVATE_KEY.to_ne_bytes());
    let (session, attributes) = (call.word(0), memory::address(wanted.attributes.as_mut_slice()));
    let (mut found, mut count) = (0_usize, 0_usize);
    let _begun = call.aside(F::C_FindObjectsInit, &[session, attributes, 1]);
    let place_of = [memory::address(&mut found), 1, memory::address(&mut count)];
    let _found = call.aside(F::C_FindObjects, &[&[session], &place_of[..]].concat());
    let _ended = call.aside(F::C_FindObjectsFinal, &[session]);
    memory::write(call.word(place), found);
    CKR_OK
}

fn flipped(call: &Call<'_>) -> CK_RV {
    let mut signature = call.given(3);
    if let Some(last) = signature.last_mut().filter(|_| call.word(3) != 0) {
        *last ^= 1;
        call.give(3, &signature);
    }
    CKR_OK
}
