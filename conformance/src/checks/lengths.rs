//! Lengths and counts that cannot be, and pointers that are not aligned: an answer, and no crash, no hang, no
//! exhaustion of memory (attack cases 69 to 71).
//!
//! Only lengths that no memory can have are used: what is merely too long for the caller's buffer a module cannot see.

use cryptoki_sys::*;

use crate::bench::Bench;
use crate::check::{Verdict, ensure, table};
use crate::raw::{Arg, Function as F};
use crate::rv::Rv;
use crate::session::Session;
use crate::template::{Mechanism, Out, Template, UNAVAILABLE};

table! {
    all arguments;
    "lengths.random" User random, "5.19.2 C_GenerateRandom", "more random bytes than there is memory are refused";
    "lengths.seed" User seed, "5.19.1 C_SeedRandom", "a seed longer than memory is refused";
    "lengths.digest" User digest, "5.12.2 C_Digest", "data longer than memory is refused";
    "lengths.digest-update" User digest_update, "5.12.3 C_DigestUpdate", "data longer than memory is refused";
    "lengths.sign" User sign, "5.13.2 C_Sign", "data longer than memory is refused";
    "lengths.sign-update" User sign_update, "5.13.3 C_SignUpdate", "data longer than memory is refused";
    "lengths.verify" User verify, "5.15.2 C_Verify", "data and signatures longer than memory are refused";
    "lengths.encrypt" User encrypt, "5.8.2 C_Encrypt", "data longer than memory is refused";
    "lengths.encrypt-update" User encrypt_update, "5.8.3 C_EncryptUpdate", "data longer than memory is refused";
    "lengths.decrypt" User decrypt, "5.10.2 C_Decrypt", "data longer than memory is refused";
    "lengths.login" Token login, "5.6.8 C_Login", "a PIN longer than memory is refused" => pins;
    "lengths.set-pin" User set_pin, "5.5.9 C_SetPIN", "a new PIN longer than memory is refused" => pins;
    "lengths.create-object" User create_object, "5.7.1 C_CreateObject", "more attributes than memory are refused";
    "lengths.get-attribute" User get_attribute, "5.7.5 C_GetAttributeValue", "more attributes than memory are refused";
    "lengths.set-attribute" User set_attribute, "5.7.6 C_SetAttributeValue", "more attributes than memory are refused";
    "lengths.find" User find, "5.7.7 C_FindObjectsInit", "more attributes than memory are refused, or not looked at";
    "lengths.generate-key" User generate_key, "5.18.1 C_GenerateKey", "more attributes than memory are refused";
    "lengths.attribute-value" User attribute_value, "4.1.1 Creating objects", "a value longer than memory is refused";
    "lengths.attribute-unavailable" User attribute_unavailable, "4.1.1 Creating objects", "a value of length -1 is refused";
    "lengths.mechanism-parameter" User mechanism_parameter, "5.1.6 CKR_MECHANISM_PARAM_INVALID", "a parameter longer than memory is refused";
    "lengths.gcm" User gcm, "6.13 AES-GCM", "an IV or additional data longer than memory is refused";
    "lengths.misaligned-template" User misaligned_template, "5.7.1 C_CreateObject", "a template at an odd address is read, or refused";
    "lengths.misaligned-number" User misaligned_number, "5.7.1 C_CreateObject", "a number at an odd address is read, or refused";
    "lengths.misaligned-answer" User misaligned_answer, "5.7.5 C_GetAttributeValue", "a number is written to an odd address, or refused";
    "lengths.misaligned-mechanism" User misaligned_mechanism, "5.12.1 C_DigestInit", "a mechanism at an odd address is read, or refused";
    "lengths.misaligned-length" User misaligned_length, "5.12.2 C_Digest", "a length at an odd address is used, or refused";
}

/// Lengths that no memory has.
const HUGE: [CK_ULONG; 3] = [1 << 63, UNAVAILABLE - 1, UNAVAILABLE];

/// Counts of attributes that no memory holds: the first is 96 GiB of them.
const MANY: [CK_ULONG; 4] = [1 << 32, 1 << 60, 1 << 63, UNAVAILABLE];

/// What an impossible length is answered with.
const REFUSALS: &[CK_RV] = &[
    CKR_ARGUMENTS_BAD,
    CKR_DATA_LEN_RANGE,
    CKR_BUFFER_TOO_SMALL,
    CKR_HOST_MEMORY,
    CKR_DEVICE_MEMORY,
    CKR_ENCRYPTED_DATA_LEN_RANGE,
    CKR_SIGNATURE_LEN_RANGE,
    CKR_RANDOM_SEED_NOT_SUPPORTED,
    CKR_RANDOM_NO_RNG,
    CKR_FUNCTION_NOT_SUPPORTED,
];

fn each_huge(mut call: impl FnMut(Arg<'static>) -> Result<Rv, crate::check::Stop>) -> Verdict {
    HUGE.into_iter().try_for_each(|length| call(Arg::number(length))?.one_of(REFUSALS))
}

fn random(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let mut memory = [0_u8; 64];
    each_huge(|length| Ok(session.call(F::C_GenerateRandom, &[Arg::slice_mut(&mut memory), length])))
}

fn seed(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    each_huge(|length| Ok(session.call(F::C_SeedRandom, &[Arg::slice(&[1_u8; 64]), length])))
}

/// An operation begun anew for each length, since a refusal ends it.
fn operation(
    bench: &Bench,
    begin: impl Fn(&Session<'_>) -> Result<Rv, crate::check::Stop>,
    function: F,
) -> Verdict {
    each_huge(|length| {
        let session = bench.session()?;
        begin(&session)?.ok()?;
        let mut out = Out::room(64);
        let [buffer, room] = out.args();
        let used = if matches!(function, F::C_DigestUpdate | F::C_SignUpdate) { 2 } else { 4 };
        let arguments = [Arg::slice(&[1_u8; 64]), length, buffer, room];
        Ok(session.call(function, arguments.get(..used).unwrap_or_default()))
    })
}

fn begin_digest(session: &Session<'_>) -> Result<Rv, crate::check::Stop> {
    session.bench.offers(CKM_SHA256, CKF_DIGEST)?;
    Ok(session.init(F::C_DigestInit, &Mechanism::plain(CKM_SHA256), None))
}

fn begin_sign(session: &Session<'_>) -> Result<Rv, crate::check::Stop> {
    Ok(session.init(F::C_SignInit, &Mechanism::plain(CKM_SHA256_HMAC), Some(session.hmac_key()?)))
}

fn begin_verify(session: &Session<'_>) -> Result<Rv, crate::check::Stop> {
    Ok(session.init(F::C_VerifyInit, &Mechanism::plain(CKM_SHA256_HMAC), Some(session.hmac_key()?)))
}

fn begin_encrypt(session: &Session<'_>) -> Result<Rv, crate::check::Stop> {
    let mechanism = Mechanism::bytes(CKM_AES_CBC_PAD, &[7; 16]);
    Ok(session.init(F::C_EncryptInit, &mechanism, Some(session.aes()?)))
}

fn begin_decrypt(session: &Session<'_>) -> Result<Rv, crate::check::Stop> {
    let mechanism = Mechanism::bytes(CKM_AES_CBC_PAD, &[7; 16]);
    Ok(session.init(F::C_DecryptInit, &mechanism, Some(session.aes()?)))
}

fn digest(bench: &Bench) -> Verdict {
    operation(bench, begin_digest, F::C_Digest)
}

fn digest_update(bench: &Bench) -> Verdict {
    operation(bench, begin_digest, F::C_DigestUpdate)
}

fn sign(bench: &Bench) -> Verdict {
    operation(bench, begin_sign, F::C_Sign)
}

fn sign_update(bench: &Bench) -> Verdict {
    operation(bench, begin_sign, F::C_SignUpdate)
}

fn verify(bench: &Bench) -> Verdict {
    let memory = [1_u8; 64];
    for [data, signature] in [[0, 1], [1, 0]] {
        each_huge(|length| {
            let session = bench.session()?;
            begin_verify(&session)?.ok()?;
            let either = |huge| if huge == 1 { length } else { Arg::number(32) };
            let arguments = [Arg::slice(&memory), either(data), Arg::slice(&memory), either(signature)];
            Ok(session.call(F::C_Verify, &arguments))
        })?;
    }
    Ok(())
}

fn encrypt(bench: &Bench) -> Verdict {
    operation(bench, begin_encrypt, F::C_Encrypt)
}

fn encrypt_update(bench: &Bench) -> Verdict {
    operation(bench, begin_encrypt, F::C_EncryptUpdate)
}

fn decrypt(bench: &Bench) -> Verdict {
    operation(bench, begin_decrypt, F::C_Decrypt)
}

/// The right PIN follows each, so that the token does not count the wrong ones.
fn login(bench: &Bench) -> Verdict {
    bench.pin()?;
    let session = bench.session()?;
    let mut answers = Vec::new();
    for length in HUGE {
        let arguments = [Arg::number(CKU_USER), Arg::slice(b"12345678"), Arg::number(length)];
        let rv = session.call(F::C_Login, &arguments);
        answers.push(rv);
        if rv.was(CKR_OK) {
            session.logout().ok()?;
        }
        bench.forget_tries()?;
    }
    let expected = [CKR_ARGUMENTS_BAD, CKR_PIN_LEN_RANGE, CKR_PIN_INCORRECT];
    answers.into_iter().try_for_each(|rv| rv.one_of(&expected))
}

/// A module that takes the new PIN has cut it somewhere: the old one is set again.
fn set_pin(bench: &Bench) -> Verdict {
    let pin = bench.pin()?;
    let session = bench.session()?;
    let old = [Arg::slice(&pin), Arg::number(pin.len() as CK_ULONG)];
    for length in HUGE {
        let arguments = [old[0], old[1], Arg::slice(b"12345678"), Arg::number(length)];
        let rv = session.call(F::C_SetPIN, &arguments);
        if rv.was(CKR_OK) {
            bench.set_back(&session, &[b"12345678", b""])?;
        }
        rv.one_of(&[CKR_ARGUMENTS_BAD, CKR_PIN_LEN_RANGE, CKR_PIN_INVALID])?;
    }
    Ok(())
}

/// What an impossible count is answered with; a template of nonsense is also inconsistent.
const TOO_MANY: &[CK_RV] =
    &[CKR_ARGUMENTS_BAD, CKR_HOST_MEMORY, CKR_DEVICE_MEMORY, CKR_TEMPLATE_INCONSISTENT];

fn create_object(bench: &Bench) -> Verdict {
    let (session, template) = (bench.session()?, Template::data());
    let [attributes, _] = template.args();
    let mut object: CK_OBJECT_HANDLE = 0;
    MANY.into_iter().try_for_each(|count| {
        let arguments = [attributes, Arg::number(count), Arg::of_mut(&mut object)];
        session.call(F::C_CreateObject, &arguments).one_of(TOO_MANY)
    })
}

fn get_attribute(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let object = session.create(&Template::data())?;
    MANY.into_iter().try_for_each(|count| {
        let mut asked = Template::new().room(CKA_LABEL, 64);
        let [attributes, _] = asked.args_mut();
        let arguments = [Arg::number(object), attributes, Arg::number(count)];
        session.call(F::C_GetAttributeValue, &arguments).one_of(TOO_MANY)
    })
}

fn set_attribute(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let object = session.create(&Template::data())?;
    let template = Template::new().bytes(CKA_LABEL, b"x");
    let [attributes, _] = template.args();
    MANY.into_iter().try_for_each(|count| {
        let arguments = [Arg::number(object), attributes, Arg::number(count)];
        session.call(F::C_SetAttributeValue, &arguments).one_of(TOO_MANY)
    })
}

fn find(bench: &Bench) -> Verdict {
    let (session, template) = (bench.session()?, Template::data());
    let [attributes, _] = template.args();
    let expected = [TOO_MANY, &[CKR_OK]].concat();
    MANY.into_iter().try_for_each(|count| {
        let rv = session.call(F::C_FindObjectsInit, &[attributes, Arg::number(count)]);
        if rv.was(CKR_OK) {
            session.find_final().ok()?;
        }
        rv.one_of(&expected)
    })
}

fn generate_key(bench: &Bench) -> Verdict {
    bench.offers(CKM_AES_KEY_GEN, CKF_GENERATE)?;
    let (session, template) = (bench.session()?, crate::session::aes(32));
    let mechanism = Mechanism::plain(CKM_AES_KEY_GEN);
    let [attributes, _] = template.args();
    let mut key: CK_OBJECT_HANDLE = 0;
    MANY.into_iter().try_for_each(|count| {
        let arguments = [mechanism.arg(), attributes, Arg::number(count), Arg::of_mut(&mut key)];
        session.call(F::C_GenerateKey, &arguments).one_of(TOO_MANY)
    })
}

/// What a value of impossible length is answered with.
const NO_VALUE: &[CK_RV] =
    &[CKR_ATTRIBUTE_VALUE_INVALID, CKR_ARGUMENTS_BAD, CKR_HOST_MEMORY, CKR_DEVICE_MEMORY];

fn attribute_value(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    [1 << 63, UNAVAILABLE - 1].into_iter().try_for_each(|length| {
        let template = Template::data().without(CKA_VALUE).lying(CKA_VALUE, b"value", length);
        session.try_create(&template).0.one_of(NO_VALUE)
    })
}

fn attribute_unavailable(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let template = Template::data().without(CKA_VALUE).lying(CKA_VALUE, b"value", UNAVAILABLE);
    session.try_create(&template).0.one_of(NO_VALUE)
}

/// What an impossible parameter is answered with.
const NO_PARAMETER: &[CK_RV] = &[CKR_MECHANISM_PARAM_INVALID, CKR_ARGUMENTS_BAD, CKR_HOST_MEMORY];

fn mechanism_parameter(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let key = session.aes()?;
    for length in HUGE {
        let mechanism = Mechanism::bytes(CKM_AES_CBC_PAD, &[7; 16]).of_length(length);
        session.init(F::C_EncryptInit, &mechanism, Some(key)).one_of(NO_PARAMETER)?;
        let mechanism = Mechanism::gcm(&[7; 12], b"", 128).of_length(length);
        session.init(F::C_EncryptInit, &mechanism, Some(key)).one_of(NO_PARAMETER)?;
    }
    Ok(())
}

fn gcm(bench: &Bench) -> Verdict {
    bench.offers(CKM_AES_GCM, CKF_ENCRYPT)?;
    let session = bench.session()?;
    let key = session.aes()?;
    let iv = [7_u8; 16];
    let address = iv.as_ptr().expose_provenance() as CK_ULONG;
    for length in HUGE {
        for [iv_length, aad_length] in [[length, 0], [12, length]] {
            let words = [address, iv_length, iv_length.wrapping_mul(8), address, aad_length, 128];
            let mechanism = Mechanism::words(CKM_AES_GCM, &words);
            session.init(F::C_EncryptInit, &mechanism, Some(key)).one_of(NO_PARAMETER)?;
        }
    }
    Ok(())
}

/// What a pointer at an odd address is answered with.
const ODD: &[CK_RV] = &[CKR_OK, CKR_ARGUMENTS_BAD, CKR_ATTRIBUTE_VALUE_INVALID];

/// These words in memory, one byte further than they should be.
fn shifted(words: &[CK_ULONG]) -> Vec<u8> {
    let bytes = words.iter().flat_map(|word| word.to_ne_bytes());
    std::iter::once(0).chain(bytes).collect()
}

fn misaligned_template(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let class = CKO_DATA.to_ne_bytes();
    let address = class.as_ptr().expose_provenance() as CK_ULONG;
    let memory = shifted(&[CKA_CLASS, address, 8]);
    let mut object: CK_OBJECT_HANDLE = 0;
    let arguments = [Arg::slice(&memory).plus(1), Arg::number(1), Arg::of_mut(&mut object)];
    session.call(F::C_CreateObject, &arguments).one_of(ODD)
}

fn misaligned_number(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let template = Template::data().without(CKA_CLASS).misaligned(CKA_CLASS, &CKO_DATA.to_ne_bytes());
    session.try_create(&template).0.one_of(ODD)
}

fn misaligned_answer(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let object = session.create(&Template::data())?;
    let mut asked = Template::new().misaligned(CKA_CLASS, &[0xa5; 8]);
    let rv = session.query(object, &mut asked);
    rv.one_of(ODD)?;
    ensure(!rv.was(CKR_OK) || asked.length(0) == 8, "length 8", asked.length(0).to_string())
}

fn misaligned_mechanism(bench: &Bench) -> Verdict {
    bench.offers(CKM_SHA256, CKF_DIGEST)?;
    let session = bench.session()?;
    let memory = shifted(&[CKM_SHA256, 0, 0]);
    session.call(F::C_DigestInit, &[Arg::slice(&memory).plus(1)]).one_of(ODD)
}

fn misaligned_length(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    begin_digest(&session)?.ok()?;
    let (mut length, mut buffer) = (shifted(&[32]), [0_u8; 32]);
    let arguments = [
        Arg::slice(b"data"),
        Arg::number(4),
        Arg::slice_mut(&mut buffer),
        Arg::slice_mut(&mut length).plus(1),
    ];
    session.call(F::C_Digest, &arguments).one_of(ODD)
}
