//! Interoperation: what the module signs and encrypts, an independent implementation verifies and decrypts, and the
//! reverse. `oracle.rs` asks that implementation. The message is random, and the same for the same `--seed`.

use cryptoki_sys::*;

use crate::bench::{Bench, Stage};
use crate::check::{Check, Stop, Verdict, each, ensure};
use crate::marks::Severity;
use crate::mechanisms::curves::{self, octets};
use crate::oracle::{self, Cipher, Hash, Padding};
use crate::raw::Function as F;
use crate::report::counted;
use crate::session::{ED25519, KeyPair, Session, ec_public, private};
use crate::template::{Mechanism, Out, Template};

/// Lengths of messages: none, less than a block, a block and one more, several.
const LENGTHS: [usize; 6] = [0, 1, 15, 16, 17, 300];

/// A check for each mechanism that has an independent implementation here.
pub fn checks() -> Vec<Check> {
    let hashes = Hash::ALL.iter().copied();
    let digests = hashes.clone().map(|hash| {
        case(
            format!("digest-{}", hash.word()),
            "a hash value is that of another implementation",
            move |bench| digest(bench, hash),
        )
    });
    let macs = hashes.map(|hash| {
        case(format!("hmac-{}", hash.word()), "a code is that of another implementation", move |bench| {
            hmac(bench, hash)
        })
    });
    let ecdsa = ["secp256r1", "secp384r1", "secp521r1", "secp256k1"].into_iter().flat_map(|curve| {
        [
            case(
                format!("ecdsa-{curve}-signs"),
                "its signature is taken by another implementation",
                move |bench| ecdsa_signs(bench, curve),
            ),
            case(
                format!("ecdsa-{curve}-verifies"),
                "it takes another implementation's signature",
                move |bench| ecdsa_verifies(bench, curve),
            ),
        ]
    });
    let rsa = Padding::ALL.iter().copied().flat_map(|padding| {
        [
            case(
                format!("{}-signs", padding.word()),
                "its signature is taken by another implementation",
                move |bench| rsa_signs(bench, padding),
            ),
            case(
                format!("{}-verifies", padding.word()),
                "it takes another implementation's signature",
                move |bench| rsa_verifies(bench, padding),
            ),
        ]
    });
    let ciphers = Cipher::ALL.iter().copied().map(|cipher| {
        case(
            format!("aes-{}", cipher.word()),
            "a ciphertext is another implementation's, both ways",
            move |bench| aes(bench, cipher),
        )
    });
    let rest = [
        case("ed25519".to_owned(), "a signature is another implementation's, both ways", ed25519),
        case(
            "rsa-oaep-encrypts".to_owned(),
            "its ciphertext is read by another implementation",
            oaep_encrypts,
        ),
        case("rsa-oaep-decrypts".to_owned(), "it reads another implementation's ciphertext", oaep_decrypts),
        case("ecdsa-rfc6979".to_owned(), "if ECDSA signs a digest one way, it is that of RFC 6979", rfc6979)
            .informational(),
    ];
    digests.chain(macs).chain(ecdsa).chain(rsa).chain(ciphers).chain(rest).collect()
}

fn case(id: String, title: &'static str, run: impl Fn(&Bench) -> Verdict + Send + Sync + 'static) -> Check {
    let id = format!("interop.{id}");
    Check::case(id, Stage::User, "6, beside another implementation", title, run).high().patience(60)
}

fn same(seen: &[u8], expected: &[u8]) -> Verdict {
    let hex = |bytes: &[u8]| bytes.iter().take(48).map(|byte| format!("{byte:02x}")).collect::<String>();
    ensure(seen == expected, hex(expected), hex(seen))
}

fn messages(bench: &Bench) -> Vec<Vec<u8>> {
    LENGTHS.map(|length| bench.random().bytes(length)).into()
}

fn named(message: &&Vec<u8>) -> String {
    counted(message.len(), "byte")
}

fn digest(bench: &Bench, hash: Hash) -> Verdict {
    bench.offers(hash.digest(), CKF_DIGEST)?;
    let session = bench.session()?;
    each(&messages(bench), named, |message| {
        session.init(F::C_DigestInit, &Mechanism::plain(hash.digest()), None).ok()?;
        let mut out = Out::room(64);
        session.run(F::C_Digest, message, &mut out).ok()?;
        same(out.bytes(), &oracle::digest(hash, message))
    })
}

fn hmac(bench: &Bench, hash: Hash) -> Verdict {
    bench.offers(hash.hmac(), CKF_SIGN)?;
    let session = bench.session()?;
    let value = bench.random().bytes(64);
    let template = Template::secret(CKK_GENERIC_SECRET, &value).bool(CKA_PRIVATE, true);
    let key = session.create(&template.usages(&[CKA_SIGN, CKA_VERIFY]))?;
    each(&messages(bench), named, |message| {
        let code = session.sign(&Mechanism::plain(hash.hmac()), key, message)?;
        same(&code, &oracle::hmac(hash, &value, message))
    })
}

/// What refuses a curve that a token need not have (5.1.6, 4.1.1).
const NO_SUCH_CURVE: [CK_RV; 3] =
    [CKR_CURVE_NOT_SUPPORTED, CKR_DOMAIN_PARAMS_INVALID, CKR_ATTRIBUTE_VALUE_INVALID];

/// A pair on the curve, and its point.
fn ec_pair(session: &Session<'_>, curve: &str) -> Result<(KeyPair, Vec<u8>), Stop> {
    session.bench.offers(CKM_EC_KEY_PAIR_GEN, CKF_GENERATE_KEY_PAIR)?;
    let curve = curves::by_name(curve).ok_or(Stop::NotOffered)?;
    let generate = Mechanism::plain(CKM_EC_KEY_PAIR_GEN);
    let (rv, pair) = session.try_generate_pair(&generate, &ec_public(curve.oid), &private());
    if NO_SUCH_CURVE.contains(&rv.code) {
        return Err(Stop::NotOffered);
    }
    rv.ok()?;
    let encoded = session.attribute(pair.public, CKA_EC_POINT)?;
    let point = encoded.len().checked_sub(2 * curve.bytes() + 1).and_then(|from| encoded.get(from..));
    let point = point.ok_or_else(|| Stop::fail("an uncompressed point", format!("{encoded:02x?}")))?;
    Ok((pair, point.to_vec()))
}

/// The mechanisms of ECDSA, with the hash that each makes itself.
const ECDSA: [(CK_MECHANISM_TYPE, Option<Hash>); 4] = [
    (CKM_ECDSA, None),
    (CKM_ECDSA_SHA256, Some(Hash::Sha256)),
    (CKM_ECDSA_SHA384, Some(Hash::Sha384)),
    (CKM_ECDSA_SHA512, Some(Hash::Sha512)),
];

/// What a mechanism of ECDSA is given, and what is signed in the end.
fn ecdsa_input(hash: Option<Hash>, message: &[u8]) -> (Vec<u8>, Vec<u8>) {
    match hash {
        Some(hash) => (message.to_vec(), oracle::digest(hash, message)),
        None => {
            let value = oracle::digest(Hash::Sha256, message);
            (value.clone(), value)
        }
    }
}

fn ecdsa_signs(bench: &Bench, curve: &'static str) -> Verdict {
    bench.offers(CKM_ECDSA, CKF_SIGN)?;
    let session = bench.session()?;
    let (pair, point) = ec_pair(&session, curve)?;
    for (number, hash) in ECDSA {
        if bench.offers(number, CKF_SIGN).is_err() {
            continue;
        }
        for message in messages(bench) {
            let (input, value) = ecdsa_input(hash, &message);
            let signature = session.sign(&Mechanism::plain(number), pair.private, &input)?;
            let taken = oracle::ecdsa_verify(curve, &point, &value, &signature);
            ensure(
                taken,
                "a signature of this message by this key",
                format!("{hash:?}: it does not verify"),
            )?;
        }
    }
    Ok(())
}

fn ecdsa_verifies(bench: &Bench, curve: &'static str) -> Verdict {
    bench.offers(CKM_ECDSA, CKF_VERIFY)?;
    let session = bench.session()?;
    let domain = curves::by_name(curve).ok_or(Stop::NotOffered)?;
    let key = oracle::Ecdsa::new(curve, &bench.random().bytes(66)).ok_or(Stop::NotOffered)?;
    let template = ec_public(domain.oid).bytes(CKA_EC_POINT, &octets(&key.point));
    let (rv, public) = session.try_create(&template);
    if NO_SUCH_CURVE.contains(&rv.code) {
        return Err(Stop::NotOffered);
    }
    rv.ok()?;
    for (number, hash) in ECDSA {
        if bench.offers(number, CKF_VERIFY).is_err() {
            continue;
        }
        for message in messages(bench) {
            let (input, value) = ecdsa_input(hash, &message);
            session.init(F::C_VerifyInit, &Mechanism::plain(number), Some(public)).ok()?;
            session.verify(&input, &key.sign(&value)).ok()?;
        }
    }
    Ok(())
}

/// Deterministic signatures are those of RFC 6979, or they differ.
fn rfc6979(bench: &Bench) -> Verdict {
    bench.offers(CKM_ECDSA, CKF_SIGN)?;
    let session = bench.session()?;
    let curve = curves::by_name("secp256r1").ok_or(Stop::NotOffered)?;
    let scalar = [&[1], bench.random().bytes(31).as_slice()].concat();
    let key = oracle::Ecdsa::new(curve.name, &scalar).ok_or(Stop::NotOffered)?;
    let template =
        private().ulong(CKA_KEY_TYPE, CKK_EC).bytes(CKA_EC_PARAMS, curve.oid).bytes(CKA_VALUE, &scalar);
    let (rv, handle) = session.try_create(&template);
    if !rv.was(CKR_OK) {
        return Err(Stop::NotOffered);
    }
    let value = oracle::digest(Hash::Sha256, b"sample");
    let one = session.sign(&Mechanism::plain(CKM_ECDSA), handle, &value)?;
    if one != session.sign(&Mechanism::plain(CKM_ECDSA), handle, &value)? {
        return Err(Stop::NotOffered);
    }
    same(&one, &key.sign(&value))
}

fn ed25519(bench: &Bench) -> Verdict {
    bench.offers(CKM_EDDSA, CKF_SIGN | CKF_VERIFY)?;
    let session = bench.session()?;
    let pair = session.ed25519()?;
    let encoded = session.attribute(pair.public, CKA_EC_POINT)?;
    let point = encoded.len().checked_sub(32).and_then(|from| encoded.get(from..)).unwrap_or_default();
    let theirs = oracle::Ed25519::new(&bench.random().bytes(32)).ok_or(Stop::NotOffered)?;
    let curve = session
        .attribute(pair.public, CKA_EC_PARAMS)
        .unwrap_or_else(|_| ED25519.map(<[u8]>::to_vec).into_iter().next().unwrap_or_default());
    let template = crate::session::edwards_public(&curve).bytes(CKA_EC_POINT, &octets(&theirs.point()));
    let public = session.create(&template)?;
    let mechanism = Mechanism::plain(CKM_EDDSA);
    each(&messages(bench), named, |message| {
        let signature = session.sign(&mechanism, pair.private, message)?;
        let taken = oracle::ed25519_verify(point, message, &signature);
        ensure(taken, "a signature by this key", "it does not verify")?;
        session.init(F::C_VerifyInit, &mechanism, Some(public)).ok()?;
        session.verify(message, &theirs.sign(message)).ok()
    })
}

fn components(session: &Session<'_>, key: CK_OBJECT_HANDLE) -> Result<(Vec<u8>, Vec<u8>), Stop> {
    Ok((session.attribute(key, CKA_MODULUS)?, session.attribute(key, CKA_PUBLIC_EXPONENT)?))
}

fn rsa_signs(bench: &Bench, padding: Padding) -> Verdict {
    bench.offers(padding.mechanism().number(), CKF_SIGN)?;
    let (session, pair) = (bench.session()?, bench.rsa()?);
    let (modulus, exponent) = components(&session, pair.public)?;
    each(&messages(bench), named, |message| {
        let signature = session.sign(&padding.mechanism(), pair.private, message)?;
        let taken = oracle::rsa_verify(padding, (&modulus, &exponent), message, &signature);
        ensure(taken, "a signature of this message by this key", "it does not verify")
    })
}

/// The public half of a key that the other implementation made.
fn brought(
    session: &Session<'_>,
    modulus: &[u8],
    usage: CK_ATTRIBUTE_TYPE,
) -> Result<CK_OBJECT_HANDLE, Stop> {
    let template = Template::of_class(CKO_PUBLIC_KEY)
        .ulong(CKA_KEY_TYPE, CKK_RSA)
        .bool(CKA_TOKEN, false)
        .bytes(CKA_MODULUS, modulus)
        .bytes(CKA_PUBLIC_EXPONENT, &[1, 0, 1]);
    session.create(&template.bool(usage, true))
}

fn rsa_verifies(bench: &Bench, padding: Padding) -> Verdict {
    bench.offers(padding.mechanism().number(), CKF_VERIFY)?;
    let session = bench.session()?;
    let key = oracle::Rsa::new().ok_or_else(no_oracle)?;
    let public = brought(&session, key.modulus(), CKA_VERIFY)?;
    each(&messages(bench), named, |message| {
        let signature = key.sign(padding, message).ok_or_else(no_oracle)?;
        session.init(F::C_VerifyInit, &padding.mechanism(), Some(public)).ok()?;
        session.verify(message, &signature).ok()
    })
}

fn no_oracle() -> Stop {
    Stop::Skipped("the other implementation failed".to_owned())
}

/// OAEP with SHA-256, or with SHA-1 where the token has no other.
fn oaep(bench: &Bench, init: F, key: CK_OBJECT_HANDLE) -> Result<(Hash, Mechanism), Stop> {
    let modern = || Mechanism::oaep(CKM_SHA256, CKG_MGF1_SHA256);
    if bench.session()?.init(init, &modern(), Some(key)).was(CKR_OK) {
        return Ok((Hash::Sha256, modern()));
    }
    Ok((Hash::Sha1, Mechanism::oaep(CKM_SHA_1, CKG_MGF1_SHA1)))
}

fn oaep_encrypts(bench: &Bench) -> Verdict {
    bench.offers(CKM_RSA_PKCS_OAEP, CKF_ENCRYPT)?;
    let session = bench.session()?;
    let key = oracle::RsaDecrypter::new().ok_or_else(no_oracle)?;
    let public = brought(&session, key.modulus(), CKA_ENCRYPT)?;
    let (hash, mechanism) = oaep(bench, F::C_EncryptInit, public)?;
    let short: Vec<Vec<u8>> = messages(bench).into_iter().filter(|message| message.len() < 100).collect();
    each(&short, named, |message| {
        let ciphertext = session.transform(F::C_EncryptInit, F::C_Encrypt, &mechanism, public, message)?;
        let read =
            key.oaep(hash, &ciphertext).ok_or_else(|| Stop::fail("a ciphertext", "it does not open"))?;
        same(&read, message)
    })
}

fn oaep_decrypts(bench: &Bench) -> Verdict {
    bench.offers(CKM_RSA_PKCS_OAEP, CKF_DECRYPT)?;
    let (session, pair) = (bench.session()?, bench.rsa()?);
    let (modulus, _) = components(&session, pair.public)?;
    let (hash, mechanism) = oaep(bench, F::C_DecryptInit, pair.private)?;
    let short: Vec<Vec<u8>> = messages(bench).into_iter().filter(|message| message.len() < 100).collect();
    each(&short, named, |message| {
        let ciphertext = oracle::oaep_encrypt(hash, &modulus, message).ok_or_else(no_oracle)?;
        same(
            &session.transform(F::C_DecryptInit, F::C_Decrypt, &mechanism, pair.private, &ciphertext)?,
            message,
        )
    })
}

fn aes(bench: &Bench, cipher: Cipher) -> Verdict {
    bench.offers(cipher.number(), CKF_ENCRYPT | CKF_DECRYPT)?;
    let session = bench.session()?;
    let sizes = [16, 32];
    each(
        sizes,
        |bytes| format!("a key of {bytes} bytes"),
        |bytes| {
            let value = bench.random().bytes(*bytes);
            let template = Template::secret(CKK_AES, &value).bool(CKA_PRIVATE, true);
            let key = session.create(&template.usages(&[CKA_ENCRYPT, CKA_DECRYPT]))?;
            each(&messages(bench), named, |message| {
                let vector = <[u8; 16]>::try_from(bench.random().bytes(16)).unwrap_or_default();
                let mechanism = cipher.mechanism(&vector);
                let theirs = oracle::encrypt(cipher, &value, &vector, message).ok_or_else(no_oracle)?;
                let ours = session.transform(F::C_EncryptInit, F::C_Encrypt, &mechanism, key, message)?;
                same(&ours, &theirs).map_err(|stop| grave(stop, "the ciphertext differs"))?;
                let back = session.transform(F::C_DecryptInit, F::C_Decrypt, &mechanism, key, &theirs)?;
                same(&back, message)
            })
        },
    )
}

fn grave(stop: Stop, what: &str) -> Stop {
    match stop {
        Stop::Fail { expected, seen, .. } => {
            Stop::graded(Severity::High, expected, format!("{what}: {seen}"))
        }
        other => other,
    }
}
