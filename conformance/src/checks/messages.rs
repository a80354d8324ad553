//! Chapters 5.9 and 5.11, messages that are encrypted and decrypted each with its own parameter (3.0), by AES-GCM.
//! The number in a name is that of the abuse case.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use cryptoki_sys::*;

use crate::bench::Bench;
use crate::check::{Stop, Verdict, each, ensure, table};
use crate::observations::Measured;
use crate::raw::{Arg, Function as F};
use crate::rv::Rv;
use crate::session::Session;
use crate::template::{Mechanism, Out, Template};

table! {
    all operations;
    "messages.round-trip" User round_trip, "5.9.2 C_EncryptMessage, 5.11.2 C_DecryptMessage", "messages of an initialised key have the ciphertexts of C_Encrypt, and come back" => high;
    "messages.forged" User forged, "5.11.2 C_DecryptMessage", "a changed ciphertext, tag, IV or additional data is refused, and no plaintext comes out" => oracles critical;
    "messages.forged-goes-on" User forged_goes_on, "5.11.2 C_DecryptMessage", "a forged message does not end the operation, or says so";
    "messages.not-begun" User not_begun, "5.9.2, 5.11.2", "a message needs C_MessageEncryptInit or C_MessageDecryptInit";
    "messages.init-twice" User init_twice, "5.9.1, 5.11.1", "the second initialisation is CKR_OPERATION_ACTIVE";
    "messages.final" User ended, "5.9.5, 5.11.5", "after C_MessageEncryptFinal or C_MessageDecryptFinal there are no messages" => high;
    "messages.not-permitted" User not_permitted, "5.9.1, 5.11.1", "a key without CKA_ENCRYPT encrypts no message, and one without CKA_DECRYPT decrypts none" => high;
    "attacks.d37-message-parameter" User bad_parameters, "6.13 CK_GCM_MESSAGE_PARAMS (SP 800-38D, 5.2.1)", "a message without IV, or with a tag of no or too many bits, is refused" => randomness high;
    "attacks.d37-generated-ivs" User generated_ivs, "6.13 CK_GCM_MESSAGE_PARAMS (SP 800-38D, 8.2)", "no IV that the module makes is made twice" => randomness critical patience(60);
    "attacks.d37-fixed-bits" User fixed_bits, "6.13 CK_GCM_MESSAGE_PARAMS", "of an IV that the module makes, the bits that the caller fixed stay as they are" => randomness;
}

/// `CK_GCM_MESSAGE_PARAMS` with the memory that it points to.
struct Parameter {
    words: [CK_ULONG; 6],
    iv: Box<[u8]>,
    tag: Box<[u8]>,
}

impl Parameter {
    /// An IV, whoever makes it, the tag, and how many bits of it count.
    fn new(iv: &[u8], fixed: CK_ULONG, generator: CK_ULONG, tag: &[u8], bits: CK_ULONG) -> Self {
        let (mut iv, mut tag): (Box<[u8]>, Box<[u8]>) = (iv.into(), tag.into());
        let address = |memory: &mut [u8]| memory.as_mut_ptr().expose_provenance() as CK_ULONG;
        let length = iv.len() as CK_ULONG;
        let words = [address(&mut iv), length, fixed, generator, address(&mut tag), bits];
        Self { words, iv, tag }
    }

    /// An IV of the caller's.
    fn given(iv: &[u8; 12], tag: &[u8; 16]) -> Self {
        Self::new(iv, 0, CKG_NO_GENERATE, tag, 128)
    }

    fn args(&mut self) -> [Arg<'_>; 2] {
        let length = size_of_val(&self.words) as CK_ULONG;
        [Arg::slice_mut(&mut self.words), Arg::number(length)]
    }
}

const AAD: &[u8] = b"aad";
const TEXT: [u8; 40] = [0x5a; 40];
const IV: [u8; 12] = [7; 12];

/// `C_EncryptMessage` or `C_DecryptMessage`.
fn message(
    session: &Session<'_>,
    function: F,
    parameter: &mut Parameter,
    aad: &[u8],
    input: &[u8],
) -> (Rv, Out) {
    let mut out = Out::room(input.len() + 32);
    let rv = {
        let [parameter, size] = parameter.args();
        let [buffer, length] = out.args();
        let aad = [Arg::slice(aad), Arg::number(aad.len() as CK_ULONG)];
        let input = [Arg::slice(input), Arg::number(input.len() as CK_ULONG)];
        session.call(function, &[parameter, size, aad[0], aad[1], input[0], input[1], buffer, length])
    };
    (rv, out)
}

/// A session and a key for messages of AES-GCM.
fn subject(bench: &Bench) -> Result<(Session<'_>, CK_OBJECT_HANDLE), Stop> {
    bench.offers(CKM_AES_GCM, CKF_ENCRYPT | CKF_DECRYPT)?;
    let session = bench.session()?;
    let template = Template::secret(CKK_AES, &[0x3b; 32]).bool(CKA_PRIVATE, true);
    let key = session.create(&template.usages(&[CKA_ENCRYPT, CKA_DECRYPT]))?;
    let rv = begin(&session, F::C_MessageEncryptInit, key);
    if rv.was(CKR_FUNCTION_NOT_SUPPORTED) || rv.was(CKR_MECHANISM_INVALID) {
        return Err(Stop::NotOffered);
    }
    rv.ok()?;
    session.call(F::C_MessageEncryptFinal, &[]).ok()?;
    Ok((session, key))
}

/// Begins messages: the parameter comes with each of them.
fn begin(session: &Session<'_>, function: F, key: CK_OBJECT_HANDLE) -> Rv {
    session.init(function, &Mechanism::plain(CKM_AES_GCM), Some(key))
}

/// One message, encrypted: ciphertext and tag.
fn sealed(session: &Session<'_>, key: CK_OBJECT_HANDLE) -> Result<(Vec<u8>, [u8; 16]), Stop> {
    begin(session, F::C_MessageEncryptInit, key).ok()?;
    let mut parameter = Parameter::given(&IV, &[0; 16]);
    let (rv, out) = message(session, F::C_EncryptMessage, &mut parameter, AAD, &TEXT);
    rv.ok()?;
    session.call(F::C_MessageEncryptFinal, &[]).ok()?;
    let tag = parameter.tag.as_ref().try_into().unwrap_or_default();
    Ok((out.bytes().to_vec(), tag))
}

fn round_trip(bench: &Bench) -> Verdict {
    let (session, key) = subject(bench)?;
    begin(&session, F::C_MessageEncryptInit, key).ok()?;
    let other = bench.session()?;
    let mut messages = Vec::new();
    for number in 0..4_u8 {
        let (iv, text) = ([number; 12], vec![number; 10 * usize::from(number)]);
        let mut parameter = Parameter::given(&iv, &[0; 16]);
        let (rv, out) = message(&session, F::C_EncryptMessage, &mut parameter, AAD, &text);
        rv.ok()?;
        let whole = [out.bytes(), &parameter.tag].concat();
        let gcm = Mechanism::gcm(&iv, AAD, 128);
        let expected = other.transform(F::C_EncryptInit, F::C_Encrypt, &gcm, key, &text)?;
        ensure(whole == expected, "what C_Encrypt gives", format!("{whole:02x?}, not {expected:02x?}"))?;
        messages.push((iv, text, out.bytes().to_vec(), parameter.tag));
    }
    session.call(F::C_MessageEncryptFinal, &[]).ok()?;
    begin(&session, F::C_MessageDecryptInit, key).ok()?;
    for (iv, text, ciphertext, tag) in messages {
        let tag = tag.as_ref().try_into().unwrap_or_default();
        let mut parameter = Parameter::given(&iv, &tag);
        let (rv, out) = message(&session, F::C_DecryptMessage, &mut parameter, AAD, &ciphertext);
        rv.ok()?;
        ensure(out.bytes() == text, "the text", format!("{:02x?}", out.bytes()))?;
    }
    session.call(F::C_MessageDecryptFinal, &[]).ok()
}

/// What refuses a message that is not genuine.
const NOT_GENUINE: &[CK_RV] = &[CKR_AEAD_DECRYPT_FAILED, CKR_ENCRYPTED_DATA_INVALID];

fn flipped<const N: usize>(mut bytes: [u8; N]) -> [u8; N] {
    if let Some(byte) = bytes.last_mut() {
        *byte ^= 0x40;
    }
    bytes
}

fn forged(bench: &Bench) -> Verdict {
    let (session, key) = subject(bench)?;
    let (ciphertext, tag) = sealed(&session, key)?;
    let wrong = flipped(<[u8; 40]>::try_from(ciphertext.as_slice()).unwrap_or([0; 40]));
    let forgeries = [
        ("a changed ciphertext", Parameter::given(&IV, &tag), AAD, wrong.as_slice()),
        ("a changed tag", Parameter::given(&IV, &flipped(tag)), AAD, &ciphertext),
        ("another IV", Parameter::given(&flipped(IV), &tag), AAD, &ciphertext),
        ("other additional data", Parameter::given(&IV, &tag), b"AAD", &ciphertext),
    ];
    for (name, mut parameter, aad, ciphertext) in forgeries {
        let session = bench.session()?;
        begin(&session, F::C_MessageDecryptInit, key).ok()?;
        let (rv, out) = message(&session, F::C_DecryptMessage, &mut parameter, aad, ciphertext);
        let seen = format!("{name}: plaintext that nobody vouches for");
        ensure(!out.holds(&[0x5a; 8]), "nothing of the text", seen)?;
        if rv.was(CKR_OK) {
            return Err(Stop::fail("CKR_AEAD_DECRYPT_FAILED", format!("{name}: {rv}")));
        }
        rv.one_of(NOT_GENUINE)?;
    }
    Ok(())
}

fn forged_goes_on(bench: &Bench) -> Verdict {
    let (session, key) = subject(bench)?;
    let (ciphertext, tag) = sealed(&session, key)?;
    begin(&session, F::C_MessageDecryptInit, key).ok()?;
    let open = |tag: [u8; 16]| {
        message(&session, F::C_DecryptMessage, &mut Parameter::given(&IV, &tag), AAD, &ciphertext)
    };
    let (refusal, _) = open(flipped(tag));
    ensure(!refusal.was(CKR_OK), "a refusal", refusal.to_string())?;
    let (rv, out) = open(tag);
    rv.one_of(&[CKR_OK, CKR_OPERATION_NOT_INITIALIZED])?;
    ensure(rv.was(CKR_OPERATION_NOT_INITIALIZED) || out.bytes() == TEXT, "the text", "another")
}

/// The functions of both ways: begin, message, end.
const WAYS: [[F; 3]; 2] = [
    [F::C_MessageEncryptInit, F::C_EncryptMessage, F::C_MessageEncryptFinal],
    [F::C_MessageDecryptInit, F::C_DecryptMessage, F::C_MessageDecryptFinal],
];

fn not_begun(bench: &Bench) -> Verdict {
    let _offered = subject(bench)?;
    for [_, function, last] in WAYS {
        let session = bench.session()?;
        let mut parameter = Parameter::given(&IV, &[0; 16]);
        message(&session, function, &mut parameter, AAD, &TEXT).0.is(CKR_OPERATION_NOT_INITIALIZED)?;
        session.call(last, &[]).is(CKR_OPERATION_NOT_INITIALIZED)?;
    }
    Ok(())
}

fn init_twice(bench: &Bench) -> Verdict {
    let (_, key) = subject(bench)?;
    for [init, ..] in WAYS {
        let session = bench.session()?;
        begin(&session, init, key).ok()?;
        begin(&session, init, key).is(CKR_OPERATION_ACTIVE)?;
    }
    Ok(())
}

fn ended(bench: &Bench) -> Verdict {
    let (_, key) = subject(bench)?;
    for [init, function, last] in WAYS {
        let session = bench.session()?;
        begin(&session, init, key).ok()?;
        session.call(last, &[]).ok()?;
        let mut parameter = Parameter::given(&IV, &[0; 16]);
        message(&session, function, &mut parameter, AAD, &TEXT).0.is(CKR_OPERATION_NOT_INITIALIZED)?;
    }
    Ok(())
}

fn not_permitted(bench: &Bench) -> Verdict {
    let (session, _) = subject(bench)?;
    for ([init, ..], missing) in WAYS.into_iter().zip([CKA_ENCRYPT, CKA_DECRYPT]) {
        let template = Template::secret(CKK_AES, &[0x3b; 32]).bool(CKA_PRIVATE, true);
        let uses = [CKA_ENCRYPT, CKA_DECRYPT].map(|kind| (kind, kind != missing));
        let template = uses.iter().fold(template, |template, (kind, on)| template.bool(*kind, *on));
        let key = session.create(&template)?;
        begin(&bench.session()?, init, key).is(CKR_KEY_FUNCTION_NOT_PERMITTED)?;
    }
    Ok(())
}

fn bad_parameters(bench: &Bench) -> Verdict {
    let (_, key) = subject(bench)?;
    let with = |iv: &[u8], bits| Parameter::new(iv, 0, CKG_NO_GENERATE, &[0; 32], bits);
    let bad: [(&str, Parameter); 4] = [
        ("no IV", with(&[], 128)),
        ("a tag of no bits", with(&IV, 0)),
        ("a tag of 8 bits", with(&IV, 8)),
        ("a tag of 136 bits", with(&IV, 136)),
    ];
    for (name, mut parameter) in bad {
        let session = bench.session()?;
        begin(&session, F::C_MessageEncryptInit, key).ok()?;
        let (rv, _) = message(&session, F::C_EncryptMessage, &mut parameter, AAD, &TEXT);
        if rv.was(CKR_OK) {
            return Err(Stop::fail("CKR_MECHANISM_PARAM_INVALID", format!("{name}: {rv}")));
        }
        rv.one_of(&[CKR_MECHANISM_PARAM_INVALID, CKR_ARGUMENTS_BAD])?;
    }
    Ok(())
}

/// The ways in which a module makes an IV, and how many bits the caller fixes.
const GENERATORS: [(CK_ULONG, CK_ULONG, &str); 4] = [
    (CKG_GENERATE, 32, "CKG_GENERATE"),
    (CKG_GENERATE_COUNTER, 32, "CKG_GENERATE_COUNTER"),
    (CKG_GENERATE_RANDOM, 0, "CKG_GENERATE_RANDOM"),
    (CKG_GENERATE_COUNTER_XOR, 32, "CKG_GENERATE_COUNTER_XOR"),
];

/// How many IVs are looked at, and how long that may take.
const IVS: usize = 20_000;
const SPAN: Duration = Duration::from_secs(2);

/// Encrypts messages of one operation with IVs that the module makes, until this has seen enough of them.
fn generate(
    bench: &Bench,
    (generator, fixed): (CK_ULONG, CK_ULONG),
    mut is_enough: impl FnMut(&[u8]) -> bool,
) -> Verdict {
    let (session, key) = subject(bench)?;
    begin(&session, F::C_MessageEncryptInit, key).ok()?;
    let mut parameter = Parameter::new(&IV, fixed, generator, &[0; 16], 128);
    let (rv, _) = message(&session, F::C_EncryptMessage, &mut parameter, b"", b"text");
    if [CKR_MECHANISM_PARAM_INVALID, CKR_ARGUMENTS_BAD].contains(&rv.code) {
        return Err(Stop::NotOffered);
    }
    rv.ok()?;
    while !is_enough(&parameter.iv) {
        // What the caller gives is the same each time: its fixed bits, or what a counter is added to.
        parameter.iv.copy_from_slice(&IV);
        message(&session, F::C_EncryptMessage, &mut parameter, b"", b"text").0.ok()?;
    }
    session.call(F::C_MessageEncryptFinal, &[]).ok()
}

fn generated_ivs(bench: &Bench) -> Verdict {
    let _offered = subject(bench)?;
    each(
        GENERATORS,
        |(.., name)| (*name).to_owned(),
        |(generator, fixed, name)| {
            let (mut seen, mut looked_at, since) = (BTreeSet::new(), 0, Instant::now());
            bench.module.recorder().pause();
            let made = generate(bench, (*generator, *fixed), |iv| {
                looked_at += 1;
                seen.insert(iv.to_vec());
                looked_at >= IVS || since.elapsed() > SPAN
            });
            bench.module.recorder().resume();
            made?;
            let distinct = seen.len();
            bench.observe(&format!("IVs of AES-GCM by {name}"), Measured::Values { looked_at, distinct });
            let repeated = format!("of {looked_at} IVs {distinct} are different");
            ensure(distinct == looked_at, "another IV for each message", repeated)
        },
    )
}

fn fixed_bits(bench: &Bench) -> Verdict {
    let _offered = subject(bench)?;
    each(
        GENERATORS,
        |(.., name)| (*name).to_owned(),
        |(generator, ..)| {
            let (mut kept, mut count) = (true, 0);
            generate(bench, (*generator, 32), |iv| {
                kept &= iv.starts_with(&[7; 4]);
                count += 1;
                count == 16
            })?;
            ensure(kept, "the first 32 bits as the caller gave them", "others")
        },
    )
}
