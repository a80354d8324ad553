//! Chapter 6.42, key derivation in counter mode (SP 800-108, 4.1): the widths of its counter and of its length field.
//! The number in a name is that of the abuse case.

use aws_lc_rs::hmac;
use cryptoki_sys::*;

use crate::bench::Bench;
use crate::check::{Stop, Verdict, each, ensure, table};
use crate::rv::Rv;
use crate::session::Session;
use crate::template::{Mechanism, Template};

table! {
    all derivation;
    "attacks.b27-counter-value" User value, "6.42 CKM_SP800_108_COUNTER_KDF (SP 800-108, 4.1)", "in counter mode the derived key is that of HMAC-SHA-256 over counter, label, context and length" => high;
    "attacks.b27-counter-width" User width, "6.42 CK_SP800_108_COUNTER_FORMAT", "a counter of no bits, of broken bytes, or of more than it may have is CKR_MECHANISM_PARAM_INVALID";
    "attacks.b27-counter-short" User short, "6.42 CKM_SP800_108_COUNTER_KDF (SP 800-108, 4.1: n is at most 2^r - 1)", "no key is derived that is longer than its counter can count" => high;
    "attacks.b27-length-width" User length_width, "6.42 CK_SP800_108_DKM_LENGTH_FORMAT", "a length field of broken bytes, of more than it may have, or by a method that does not exist is CKR_MECHANISM_PARAM_INVALID";
    "attacks.b27-length-none" User length_none, "6.42 CK_SP800_108_DKM_LENGTH_FORMAT", "a length field of no bits is CKR_MECHANISM_PARAM_INVALID";
}

const BASE: [u8; 32] = [0xc3; 32];
const LABEL: &[u8] = b"label";
const CONTEXT: &[u8] = b"context";

/// What the parameter says of its fields.
#[derive(Clone, Copy)]
struct Fields {
    function: CK_MECHANISM_TYPE,
    counter_bits: CK_ULONG,
    method: CK_ULONG,
    length_bits: CK_ULONG,
}

const GOOD: Fields = Fields {
    function: CKM_SHA256_HMAC,
    counter_bits: 32,
    method: CK_SP800_108_DKM_LENGTH_SUM_OF_KEYS,
    length_bits: 32,
};

fn address<T>(memory: &[T]) -> CK_ULONG {
    memory.as_ptr().expose_provenance() as CK_ULONG
}

/// Derives an open key of this many bytes from an imported one.
fn derive(session: &Session<'_>, fields: Fields, bytes: CK_ULONG) -> Result<(Rv, CK_OBJECT_HANDLE), Stop> {
    session.bench.offers(CKM_SP800_108_COUNTER_KDF, CKF_DERIVE)?;
    let base = Template::secret(CKK_GENERIC_SECRET, &BASE).bool(CKA_PRIVATE, true).usages(&[CKA_DERIVE]);
    let base = session.create(&base)?;
    // CK_SP800_108_COUNTER_FORMAT and CK_SP800_108_DKM_LENGTH_FORMAT; a CK_BBOOL stands in a word of its own.
    let counter: [CK_ULONG; 2] = [0, fields.counter_bits];
    let length: [CK_ULONG; 3] = [fields.method, 0, fields.length_bits];
    let parts: [[CK_ULONG; 3]; 5] = [
        [CK_SP800_108_ITERATION_VARIABLE, address(&counter), 16],
        [CK_SP800_108_BYTE_ARRAY, address(LABEL), LABEL.len() as CK_ULONG],
        [CK_SP800_108_BYTE_ARRAY, address(&[0_u8]), 1],
        [CK_SP800_108_BYTE_ARRAY, address(CONTEXT), CONTEXT.len() as CK_ULONG],
        [CK_SP800_108_DKM_LENGTH, address(&length), 24],
    ];
    let words = [fields.function, parts.len() as CK_ULONG, address(&parts), 0, 0];
    let template = Template::of_class(CKO_SECRET_KEY)
        .ulong(CKA_KEY_TYPE, CKK_GENERIC_SECRET)
        .bool(CKA_TOKEN, false)
        .bool(CKA_SENSITIVE, false)
        .bool(CKA_EXTRACTABLE, true)
        .ulong(CKA_VALUE_LEN, bytes);
    Ok(session.derive(&Mechanism::words(CKM_SP800_108_COUNTER_KDF, &words), base, &template))
}

/// The key of SP 800-108, 4.1, with a counter and a length of 32 bits.
fn expected(bytes: usize) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &BASE);
    let bits = u32::try_from(bytes * 8).unwrap_or_default().to_be_bytes();
    let block = |number: u32| {
        let message = [&number.to_be_bytes()[..], LABEL, &[0], CONTEXT, &bits].concat();
        hmac::sign(&key, &message).as_ref().to_vec()
    };
    (1..).flat_map(block).take(bytes).collect()
}

fn value(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    for bytes in [16_u8, 32, 80] {
        let (rv, key) = derive(&session, GOOD, bytes.into())?;
        rv.ok()?;
        let right = session.attribute(key, CKA_VALUE)? == expected(bytes.into());
        ensure(right, format!("the {bytes} bytes of SP 800-108"), "others")?;
    }
    Ok(())
}

/// Each of these is refused, where the good parameter is taken.
fn refused(bench: &Bench, cases: &[(&str, Fields, CK_ULONG)]) -> Verdict {
    let session = bench.session()?;
    derive(&session, GOOD, 32)?.0.ok()?;
    each(
        cases,
        |(what, ..)| (*what).to_owned(),
        |(_, fields, bytes)| {
            derive(&session, *fields, *bytes)?.0.one_of(&[CKR_MECHANISM_PARAM_INVALID, CKR_KEY_SIZE_RANGE])
        },
    )
}

fn width(bench: &Bench) -> Verdict {
    let wide = |counter_bits| Fields { counter_bits, ..GOOD };
    refused(
        bench,
        &[
            ("a counter of 0 bits", wide(0), 32),
            ("a counter of 4 bits", wide(4), 32),
            ("a counter of 12 bits", wide(12), 32),
            ("a counter of 72 bits", wide(72), 32),
            ("a counter of 2^32 + 8 bits", wide((1 << 32) + 8), 32),
            ("a function that does not exist", Fields { function: 0x7777, ..GOOD }, 32),
        ],
    )
}

/// With 8 bits the function is called 255 times at most, and gives 32 bytes each time.
fn short(bench: &Bench) -> Verdict {
    let narrow = Fields { counter_bits: 8, ..GOOD };
    refused(
        bench,
        &[("256 blocks by a counter of 8 bits", narrow, 32 * 256), ("2048 blocks", narrow, 32 * 2048)],
    )
}

fn length_width(bench: &Bench) -> Verdict {
    let wide = |length_bits| Fields { length_bits, ..GOOD };
    refused(
        bench,
        &[
            ("a length of 12 bits", wide(12), 32),
            ("a length of 72 bits", wide(72), 32),
            ("a length of 2^32 + 32 bits", wide((1 << 32) + 32), 32),
            ("a method that does not exist", Fields { method: 99, ..GOOD }, 32),
        ],
    )
}

fn length_none(bench: &Bench) -> Verdict {
    refused(bench, &[("a length of 0 bits", Fields { length_bits: 0, ..GOOD }, 32)])
}
