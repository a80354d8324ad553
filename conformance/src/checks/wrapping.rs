//! Chapters 5.18.3 and 5.18.4, keys that wrap and unwrap keys, and what an attacker would make of them.
//! The number in a name is that of the abuse case. Paths of many calls are in `paths.rs`.

use std::collections::BTreeSet;

use cryptoki_sys::*;

use crate::bench::Bench;
use crate::check::{Stop, Verdict, each, ensure, table};
use crate::checks::timing;
use crate::marks::Severity;
use crate::raw::Function as F;
use crate::rv::Rv;
use crate::session::{Session, private, rsa_public};
use crate::template::{Mechanism, Out, Template};

table! {
    all key_separation;
    "attacks.a02-wrap-and-decrypt-rsa" User wrap_and_decrypt_rsa, "beyond 4.8 CKA_WRAP (Clulow 2003)", "an RSA pair that wraps a sensitive, extractable key does not decrypt it, although the standard allows it" => informational patience(60);
    "attacks.a09-wrap-not-permitted" User wrap_not_permitted, "5.18.3 C_WrapKey", "a key without CKA_WRAP wraps nothing" => high;
    "attacks.a09-unwrap-not-permitted" User unwrap_not_permitted, "5.18.4 C_UnwrapKey", "a key without CKA_UNWRAP unwraps nothing" => high;
    "attacks.a12-weaker-key" User weaker_key, "beyond 5.18.3 C_WrapKey (SP 800-57 part 1, 5.6.3)", "a key does not leave under a weaker one, although the standard allows it: not under DES or RSA with 1024 bits, and hardly under AES with 128" => informational;
    "attacks.a13-unextractable" User unextractable, "4.10 CKA_EXTRACTABLE", "an unextractable key is not wrapped" => critical;
    "attacks.a14-untrusted" User untrusted, "4.10 CKA_WRAP_WITH_TRUSTED", "a key that only trusted keys wrap is not wrapped by another" => critical;
    "attacks.a15-halves" User halves, "beyond 6.11 AES-ECB (Clulow 2003)", "a key wrapped with ECB whose halves are swapped is not unwrapped, although the standard allows ECB" => informational;
    "attacks.a16-random-blobs" User random_blobs, "5.18.4 C_UnwrapKey (RFC 3394, 2.2.3)", "no random bytes are unwrapped as a key" => high;
    "attacks.a16-changed-blobs" User changed_blobs, "5.18.4 C_UnwrapKey (RFC 3394, 2.2.3)", "a wrapped key with any byte changed is not unwrapped" => high;
    "attacks.a17-history" User history, "5.18.4 C_UnwrapKey", "an unwrapped key is not local, nor always sensitive, nor never extractable" => high;
    "attacks.a17-other-type" User other_type, "5.18.4 C_UnwrapKey", "a wrapped key of 17 bytes is not unwrapped as an AES key";
    "attacks.a20-exponent-one" User exponent_one, "6.1 RSA (RFC 8017, 3.1: an exponent is at least 3)", "an RSA key with the public exponent 1 is not brought in, or wraps nothing" => high;
    "attacks.a29-unwrap-oracle" User unwrap_oracle, "6.1 CKM_RSA_PKCS (Bleichenbacher 1998; Bardou and others 2012)", "bad padding of a wrapped key is refused in one way, however it is bad" => oracles high patience(60);
    "attacks.a30-decrypt-oracle" User decrypt_oracle, "6.1 CKM_RSA_PKCS (Bleichenbacher 1998)", "bad padding of a ciphertext is refused in one way, however it is bad" => oracles high patience(60) alone;
    "attacks.a31-oaep-oracle" User oaep_oracle, "6.1 CKM_RSA_PKCS_OAEP (Manger 2001)", "bad OAEP is refused in one way, however it is bad" => oracles high patience(60) alone;
}

/// The mechanisms that wrap with authentication.
const SOUND: [CK_MECHANISM_TYPE; 2] = [CKM_AES_KEY_WRAP, CKM_AES_KEY_WRAP_KWP];

/// The value of the key that is wrapped.
const VALUE: [u8; 32] = [0xc3; 32];

/// An AES key that is brought in, with these uses.
fn key(session: &Session<'_>, value: &[u8], uses: &[CK_ATTRIBUTE_TYPE]) -> Result<CK_OBJECT_HANDLE, Stop> {
    session.create(&Template::secret(CKK_AES, value).bool(CKA_PRIVATE, true).usages(uses))
}

/// A key of the same value as [`wrapper`]'s, with this use turned off: what a template leaves out may be on.
fn without(session: &Session<'_>, missing: CK_ATTRIBUTE_TYPE) -> Result<CK_OBJECT_HANDLE, Stop> {
    let template = Template::secret(CKK_AES, &[0x5e; 32]).bool(CKA_PRIVATE, true).bool(CKA_SENSITIVE, true);
    session.create(&template.bool(missing, false))
}

/// A sensitive and extractable key.
fn sensitive(session: &Session<'_>) -> Result<CK_OBJECT_HANDLE, Stop> {
    key(session, &VALUE, &[CKA_SENSITIVE, CKA_EXTRACTABLE, CKA_ENCRYPT])
}

/// A key that wraps and unwraps.
fn wrapper(session: &Session<'_>) -> Result<CK_OBJECT_HANDLE, Stop> {
    key(session, &[0x5e; 32], &[CKA_SENSITIVE, CKA_WRAP, CKA_UNWRAP])
}

/// What an unwrapped AES key is to be.
fn unwrapped() -> Template {
    Template::of_class(CKO_SECRET_KEY)
        .ulong(CKA_KEY_TYPE, CKK_AES)
        .bool(CKA_TOKEN, false)
        .bool(CKA_PRIVATE, true)
        .bool(CKA_SENSITIVE, true)
        .bool(CKA_EXTRACTABLE, false)
        .usages(&[CKA_ENCRYPT])
}

/// Makes a check for each sound mechanism that the token has for this use.
fn each_sound(bench: &Bench, flag: CK_FLAGS, run: impl Fn(&Session<'_>, &Mechanism) -> Verdict) -> Verdict {
    let session = bench.session()?;
    each(
        SOUND,
        |number| format!("mechanism {number:#x}"),
        |number| {
            bench.offers(*number, flag)?;
            run(&session, &Mechanism::plain(*number))
        },
    )
}

/// What must not come out.
fn nothing_wrapped(rv: Rv, blob: &[u8], why: &str) -> Verdict {
    match rv.code {
        CKR_OK => Err(Stop::fail(why, format!("{rv}, and {} bytes", blob.len()))),
        _ => rv.refused(),
    }
}

fn wrap_not_permitted(bench: &Bench) -> Verdict {
    each_sound(bench, CKF_WRAP, |session, mechanism| {
        let other = without(session, CKA_WRAP)?;
        let (rv, _) = session.wrap(mechanism, other, sensitive(session)?);
        rv.is(CKR_KEY_FUNCTION_NOT_PERMITTED)
    })
}

fn unwrap_not_permitted(bench: &Bench) -> Verdict {
    each_sound(bench, CKF_WRAP | CKF_UNWRAP, |session, mechanism| {
        let (rv, blob) = session.wrap(mechanism, wrapper(session)?, sensitive(session)?);
        rv.ok()?;
        let other = without(session, CKA_UNWRAP)?;
        session.unwrap(mechanism, other, &blob, &unwrapped()).0.is(CKR_KEY_FUNCTION_NOT_PERMITTED)
    })
}

/// Keys that wrap and are weaker than what they wrap: broken, too short, or only shorter.
fn weaker_key(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let shorter = |key_type: CK_KEY_TYPE, bytes: usize| {
        let value: Vec<u8> = (1..=bytes).map(|place| u8::try_from(2 * place).unwrap_or(0) ^ 1).collect();
        let template = Template::secret(key_type, &value).bool(CKA_PRIVATE, true);
        session.try_create(&template.usages(&[CKA_SENSITIVE, CKA_WRAP])).1
    };
    let rsa = || {
        let (public, generate) = (rsa_public(1024).usages(&[CKA_WRAP]), CKM_RSA_PKCS_KEY_PAIR_GEN);
        session.try_generate_pair(&Mechanism::plain(generate), &public, &private()).1.public
    };
    let (rsa, aes) = (rsa(), shorter(CKK_AES, 16));
    let weaker = [
        (CKM_DES_CBC_PAD, shorter(CKK_DES, 8)),
        (CKM_RSA_PKCS, rsa),
        (CKM_RSA_PKCS_OAEP, rsa),
        (CKM_AES_KEY_WRAP, aes),
        (CKM_AES_KEY_WRAP_KWP, aes),
    ];
    each(
        weaker,
        |(number, _)| format!("mechanism {number:#x}"),
        |(number, key)| {
            bench.offers(*number, CKF_WRAP)?;
            if *key == 0 {
                return Ok(());
            }
            let mechanism = match *number {
                CKM_DES_CBC_PAD => Mechanism::bytes(*number, &[7; 8]),
                CKM_RSA_PKCS_OAEP => Mechanism::oaep(CKM_SHA_1, CKG_MGF1_SHA1),
                other => Mechanism::plain(other),
            };
            let (rv, blob) = session.wrap(&mechanism, *key, sensitive(&session)?);
            if blob.is_empty() {
                return rv.refused();
            }
            let seen = format!("{rv}: 256 bits are as strong as the key around them");
            Err(Stop::fail("CKR_WRAPPING_KEY_SIZE_RANGE or CKR_KEY_NOT_WRAPPABLE", seen))
        },
    )
}

fn unextractable(bench: &Bench) -> Verdict {
    each_sound(bench, CKF_WRAP, |session, mechanism| {
        let secret = session.create(
            &Template::secret(CKK_AES, &VALUE)
                .bool(CKA_PRIVATE, true)
                .bool(CKA_SENSITIVE, true)
                .bool(CKA_EXTRACTABLE, false),
        )?;
        let (rv, blob) = session.wrap(mechanism, wrapper(session)?, secret);
        nothing_wrapped(rv, &blob, "CKR_KEY_UNEXTRACTABLE")?;
        rv.one_of(&[CKR_KEY_UNEXTRACTABLE, CKR_KEY_NOT_WRAPPABLE])
    })
}

fn untrusted(bench: &Bench) -> Verdict {
    each_sound(bench, CKF_WRAP, |session, mechanism| {
        let uses = [CKA_SENSITIVE, CKA_EXTRACTABLE, CKA_WRAP_WITH_TRUSTED];
        let secret = key(session, &VALUE, &uses)?;
        let (rv, blob) = session.wrap(mechanism, wrapper(session)?, secret);
        nothing_wrapped(rv, &blob, "CKR_KEY_NOT_WRAPPABLE")?;
        rv.is(CKR_KEY_NOT_WRAPPABLE)
    })
}

/// ECB binds no block to its place.
fn halves(bench: &Bench) -> Verdict {
    bench.offers(CKM_AES_ECB, CKF_WRAP | CKF_UNWRAP)?;
    let (session, mechanism) = (bench.session()?, Mechanism::plain(CKM_AES_ECB));
    let wrapper = wrapper(&session)?;
    let (rv, mut blob) = session.wrap(&mechanism, wrapper, sensitive(&session)?);
    rv.ok()?;
    blob.rotate_left(16);
    session.unwrap(&mechanism, wrapper, &blob, &unwrapped()).0.refused()
}

/// Key wrap lets through one of 2^64, and with padding one of 2^32.
fn random_blobs(bench: &Bench) -> Verdict {
    each_sound(bench, CKF_UNWRAP, |session, mechanism| {
        let wrapper = wrapper(session)?;
        for _ in 0..500 {
            let blob = bench.random().bytes(40);
            let (rv, _) = session.unwrap(mechanism, wrapper, &blob, &unwrapped());
            ensure(!rv.was(CKR_OK), "a refusal", "random bytes became a key of the attacker's making")?;
        }
        Ok(())
    })
}

/// What bytes that are no wrapped key are answered with.
const NO_KEY: &[CK_RV] = &[
    CKR_WRAPPED_KEY_INVALID,
    CKR_WRAPPED_KEY_LEN_RANGE,
    CKR_ENCRYPTED_DATA_INVALID,
    CKR_AEAD_DECRYPT_FAILED,
];

fn changed_blobs(bench: &Bench) -> Verdict {
    each_sound(bench, CKF_WRAP | CKF_UNWRAP, |session, mechanism| {
        let wrapper = wrapper(session)?;
        let (rv, blob) = session.wrap(mechanism, wrapper, sensitive(session)?);
        rv.ok()?;
        session.unwrap(mechanism, wrapper, &blob, &unwrapped()).0.ok()?;
        for position in 0..blob.len() {
            let mut changed = blob.clone();
            if let Some(byte) = changed.get_mut(position) {
                *byte ^= 0x10;
            }
            session.unwrap(mechanism, wrapper, &changed, &unwrapped()).0.one_of(NO_KEY)?;
        }
        Ok(())
    })
}

fn history(bench: &Bench) -> Verdict {
    each_sound(bench, CKF_WRAP | CKF_UNWRAP, |session, mechanism| {
        let wrapper = wrapper(session)?;
        let (rv, blob) = session.wrap(mechanism, wrapper, sensitive(session)?);
        rv.ok()?;
        let (rv, key) = session.unwrap(mechanism, wrapper, &blob, &unwrapped());
        rv.ok()?;
        for (kind, name) in [
            (CKA_LOCAL, "CKA_LOCAL"),
            (CKA_ALWAYS_SENSITIVE, "CKA_ALWAYS_SENSITIVE"),
            (CKA_NEVER_EXTRACTABLE, "CKA_NEVER_EXTRACTABLE"),
        ] {
            let value = session.attribute(key, kind)?;
            ensure(value == [0], format!("{name} false: the key was outside"), format!("{value:?}"))?;
        }
        Ok(())
    })
}

/// Seventeen bytes are a generic secret, and no AES key.
fn other_type(bench: &Bench) -> Verdict {
    let number = CKM_AES_KEY_WRAP_KWP;
    bench.offers(number, CKF_WRAP | CKF_UNWRAP)?;
    let (session, mechanism) = (bench.session()?, Mechanism::plain(number));
    let odd = Template::secret(CKK_GENERIC_SECRET, &[7; 17]).bool(CKA_PRIVATE, true);
    let odd = session.create(&odd.usages(&[CKA_SENSITIVE, CKA_EXTRACTABLE]))?;
    let wrapper = wrapper(&session)?;
    let (rv, blob) = session.wrap(&mechanism, wrapper, odd);
    rv.ok()?;
    session.unwrap(&mechanism, wrapper, &blob, &unwrapped()).0.refused()
}

fn wrap_and_decrypt_rsa(bench: &Bench) -> Verdict {
    bench.offers(CKM_RSA_PKCS_KEY_PAIR_GEN, CKF_GENERATE_KEY_PAIR)?;
    let session = bench.session()?;
    let oaep = || Mechanism::oaep(CKM_SHA_1, CKG_MGF1_SHA1);
    let offered: Vec<Mechanism> = [Mechanism::plain(CKM_RSA_PKCS), oaep()]
        .into_iter()
        .filter(|mechanism| bench.offers(mechanism.number(), CKF_WRAP | CKF_DECRYPT).is_ok())
        .collect();
    if offered.is_empty() {
        return Err(Stop::NotOffered);
    }
    let (public, private) = (rsa_public(2048).usages(&[CKA_WRAP]), private().usages(&[CKA_DECRYPT]));
    let (rv, pair) =
        session.try_generate_pair(&Mechanism::plain(CKM_RSA_PKCS_KEY_PAIR_GEN), &public, &private);
    if !rv.was(CKR_OK) {
        return rv.refused();
    }
    for mechanism in offered {
        let (rv, blob) = session.wrap(&mechanism, pair.public, sensitive(&session)?);
        if !rv.was(CKR_OK) {
            continue;
        }
        let clear = session.transform(F::C_DecryptInit, F::C_Decrypt, &mechanism, pair.private, &blob);
        let leaked = clear.is_ok_and(|clear| clear == VALUE);
        ensure(
            !leaked,
            "a refusal of the pair, of C_WrapKey or of C_DecryptInit",
            "the sensitive key in clear",
        )?;
    }
    Ok(())
}

/// What is encrypted with the exponent 1 is not encrypted.
fn exponent_one(bench: &Bench) -> Verdict {
    bench.offers(CKM_RSA_PKCS, CKF_WRAP)?;
    let session = bench.session()?;
    let modulus = session.attribute(bench.rsa()?.public, CKA_MODULUS)?;
    let public = Template::of_class(CKO_PUBLIC_KEY)
        .ulong(CKA_KEY_TYPE, CKK_RSA)
        .bool(CKA_TOKEN, false)
        .bytes(CKA_MODULUS, &modulus)
        .bytes(CKA_PUBLIC_EXPONENT, &[1])
        .usages(&[CKA_WRAP]);
    let (rv, public) = session.try_create(&public);
    if !rv.was(CKR_OK) {
        return rv.refused();
    }
    let (rv, blob) = session.wrap(&Mechanism::plain(CKM_RSA_PKCS), public, sensitive(&session)?);
    if blob.ends_with(&VALUE) {
        let seen = "the sensitive key in clear is the wrapped key";
        return Err(Stop::graded(Severity::Critical, "a refusal of the exponent", seen));
    }
    rv.refused()
}

/// An encoded message as long as a modulus of 2048 bits, with these first bytes and a zero in this place.
fn padded(start: [u8; 2], zero: Option<usize>) -> Vec<u8> {
    let mut message = vec![0x5a; 256];
    for (place, byte) in message.iter_mut().zip(start) {
        *place = byte;
    }
    if let Some(byte) = zero.and_then(|zero| message.get_mut(zero)) {
        *byte = 0;
    }
    message
}

/// Encoded messages of PKCS #1 that are no such thing, each in another way (RFC 8017, 7.2.2).
fn bad_paddings() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("a first byte of 1", padded([1, 2], Some(223))),
        ("a block type of 1", padded([0, 1], Some(223))),
        ("no zero", padded([0, 2], None)),
        ("seven bytes of padding", padded([0, 2], Some(9))),
        ("no padding", padded([0, 2], Some(2))),
    ]
}

/// A session, the RSA pair for all uses, and encoded messages encrypted as they are.
fn encrypted(
    bench: &Bench,
    messages: Vec<(&'static str, Vec<u8>)>,
) -> Result<Vec<(&'static str, Vec<u8>)>, Stop> {
    bench.offers(CKM_RSA_X_509, CKF_ENCRYPT)?;
    let (pair, session) = (bench.rsa()?, bench.session()?);
    let raw = Mechanism::plain(CKM_RSA_X_509);
    let encrypt =
        |message: &[u8]| session.transform(F::C_EncryptInit, F::C_Encrypt, &raw, pair.public, message);
    messages.into_iter().map(|(name, message)| Ok((name, encrypt(&message)?))).collect()
}

/// Whether each is answered alike. Random keys and plaintexts instead of refusals are as good (implicit rejection).
fn one_answer(answers: &[(&str, Rv)]) -> Verdict {
    let codes: BTreeSet<String> = answers.iter().map(|(_, rv)| rv.to_string()).collect();
    let told: Vec<String> = answers.iter().map(|(name, rv)| format!("{rv} for {name}")).collect();
    ensure(codes.len() == 1, "one answer to all of them", told.join(", "))
}

fn decrypted(bench: &Bench, mechanism: &Mechanism, ciphertext: &[u8]) -> Result<Rv, Stop> {
    let (pair, session) = (bench.rsa()?, bench.session()?);
    session.init(F::C_DecryptInit, mechanism, Some(pair.private)).ok()?;
    Ok(session.run(F::C_Decrypt, ciphertext, &mut Out::room(512)))
}

/// Observes how the times of decryptions of two of these differ.
fn timed(bench: &Bench, mechanism: &Mechanism, what: &str, two: [&(&'static str, Vec<u8>); 2]) {
    let (Ok(pair), Ok(session)) = (bench.rsa(), bench.session()) else { return };
    timing::compare(bench, what, two.map(|(name, _)| *name), |kind| {
        let (_, ciphertext) = two.get(kind)?;
        let mut out = Out::room(512);
        let begun = session.init(F::C_DecryptInit, mechanism, Some(pair.private)).was(CKR_OK);
        let (took, _) = timing::of(|| session.run(F::C_Decrypt, ciphertext, &mut out));
        begun.then_some(took)
    });
}

fn decrypt_oracle(bench: &Bench) -> Verdict {
    bench.offers(CKM_RSA_PKCS, CKF_DECRYPT)?;
    let mechanism = Mechanism::plain(CKM_RSA_PKCS);
    let mut answers = Vec::new();
    let bad = encrypted(bench, bad_paddings())?;
    for (name, ciphertext) in &bad {
        answers.push((*name, decrypted(bench, &mechanism, ciphertext)?));
    }
    let good = encrypted(bench, vec![("good padding", padded([0, 2], Some(223)))])?;
    if let ([good], [first, _, none, ..]) = (good.as_slice(), bad.as_slice()) {
        timed(bench, &mechanism, "C_Decrypt, CKM_RSA_PKCS, good and bad padding", [good, none]);
        timed(bench, &mechanism, "C_Decrypt, CKM_RSA_PKCS, two kinds of bad padding", [first, none]);
    }
    one_answer(&answers)
}

/// An encoded message whose first byte is not zero, and two whose masks hide nothing that OAEP would make.
fn oaep_oracle(bench: &Bench) -> Verdict {
    bench.offers(CKM_RSA_PKCS_OAEP, CKF_DECRYPT)?;
    let message = |first: u8, fill: u8| [&[first][..], &[fill; 255]].concat();
    let bad = vec![
        ("a first byte of 1", message(1, 0x5a)),
        ("another hash", message(0, 0x5a)),
        ("yet another hash", message(0, 0x77)),
    ];
    let mechanism = Mechanism::oaep(CKM_SHA_1, CKG_MGF1_SHA1);
    let mut answers = Vec::new();
    let bad = encrypted(bench, bad)?;
    for (name, ciphertext) in &bad {
        answers.push((*name, decrypted(bench, &mechanism, ciphertext)?));
    }
    if let [first, hash, ..] = bad.as_slice() {
        timed(bench, &mechanism, "C_Decrypt, CKM_RSA_PKCS_OAEP, two kinds of bad padding", [first, hash]);
    }
    one_answer(&answers)
}

fn unwrap_oracle(bench: &Bench) -> Verdict {
    bench.offers(CKM_RSA_PKCS, CKF_UNWRAP)?;
    bench.offers(CKM_RSA_X_509, CKF_ENCRYPT)?;
    let session = bench.session()?;
    let (public, private) = (rsa_public(2048), private().usages(&[CKA_UNWRAP]));
    let (rv, pair) =
        session.try_generate_pair(&Mechanism::plain(CKM_RSA_PKCS_KEY_PAIR_GEN), &public, &private);
    if !rv.was(CKR_OK) {
        return Err(Stop::NotOffered);
    }
    // A secret of any length: a module that goes on with random bytes in place of those badly padded says the same of each.
    let template = Template::of_class(CKO_SECRET_KEY)
        .ulong(CKA_KEY_TYPE, CKK_GENERIC_SECRET)
        .bool(CKA_TOKEN, false)
        .bool(CKA_PRIVATE, true)
        .usages(&[CKA_SIGN]);
    let mut answers = Vec::new();
    for (name, message) in bad_paddings() {
        let raw = Mechanism::plain(CKM_RSA_X_509);
        let blob = session.transform(F::C_EncryptInit, F::C_Encrypt, &raw, pair.public, &message)?;
        let (rv, _) = session.unwrap(&Mechanism::plain(CKM_RSA_PKCS), pair.private, &blob, &template);
        answers.push((name, rv));
    }
    one_answer(&answers)
}
