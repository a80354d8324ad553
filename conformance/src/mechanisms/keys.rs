//! Keys of every kind that a mechanism works with, for one use, which they allow or do not.

use cryptoki_sys::*;

use super::{Half, Keys, ROWS, Use};
use crate::check::Stop;
use crate::raw::Function as F;
use crate::session::{ED25519, KeyPair, P256, Session, rsa_public};
use crate::template::{Mechanism, Out, Template};

/// Whether a key allows the use that it is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// It does.
    Yes,
    /// Its attribute is false.
    No,
}

/// The name of X25519 as a curve (PKCS#11 3.0, 6.3).
const CURVE25519: &[u8] = b"\x13\x0acurve25519";

/// The prime of the 2048-bit MODP group, without its 64 leading and 64 trailing ones (RFC 3526, section 3).
const MODP_2048: &str = "c90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74020bbea63b139b22514a08798e3404ddef9519b3cd3a431b\
                         302b0a6df25f14374fe1356d6d51c245e485b576625e7ec6f44c42e9a637ed6b0bff5cb6f406b7edee386bfb5a899fa5\
                         ae9f24117c4b1fe649286651ece45b3dc2007cb8a163bf0598da48361c55d39a69163fa8fd24cf5f83655d23dca3ad96\
                         1c62f356208552bb9ed529077096966d670c354e4abc9804f1746c08ca18217c32905e462e36ce3be39e772c180e8603\
                         9b2783a2ec07a28fb5c55df06f4c52c9de2bcbf6955817183995497cea956ae515d2261898fa051015728e5a8aacaa68";

/// A key, or a pair, of a kind, for a use.
///
/// # Errors
/// `Skipped`, if the token can neither make one nor take one.
pub fn subject(session: &Session<'_>, keys: Keys, wanted: Use, allowed: Allowed) -> Result<KeyPair, Stop> {
    match keys {
        Keys::NoKey => Ok(KeyPair { public: 0, private: 0 }),
        Keys::Secret(key_type, length) => secret(session, key_type, length, wanted, allowed),
        Keys::Rsa => rsa(session, wanted, allowed),
        Keys::Other => Err(Stop::Skipped("the suite makes no keys of this kind".to_owned())),
        Keys::Dsa
        | Keys::Dh
        | Keys::X942
        | Keys::Ec
        | Keys::Edwards
        | Keys::Montgomery
        | Keys::MlKem
        | Keys::MlDsa
        | Keys::SlhDsa
        | Keys::Hss
        | Keys::Xmss => pair(session, keys, wanted, allowed),
    }
}

/// A key of another type than these, that allows the use.
///
/// # Errors
/// `Skipped`, if there is none.
pub fn other(session: &Session<'_>, keys: Keys, wanted: Use) -> Result<KeyPair, Stop> {
    let candidates: &[Keys] = match keys {
        Keys::Secret(CKK_AES, _) => &[Keys::Secret(CKK_GENERIC_SECRET, 32), Keys::Secret(CKK_DES3, 24)],
        Keys::Secret(..) => &[Keys::Secret(CKK_AES, 32), Keys::Secret(CKK_DES3, 24)],
        Keys::Rsa => &[Keys::Ec, Keys::Edwards],
        Keys::NoKey
        | Keys::Dsa
        | Keys::Dh
        | Keys::X942
        | Keys::Ec
        | Keys::Edwards
        | Keys::Montgomery
        | Keys::MlKem
        | Keys::MlDsa
        | Keys::SlhDsa
        | Keys::Hss
        | Keys::Xmss
        | Keys::Other => &[Keys::Rsa],
    };
    let mut why = Stop::Skipped("there is no key of another type".to_owned());
    for candidate in candidates {
        match subject(session, *candidate, wanted, Allowed::Yes) {
            Ok(found) => return Ok(found),
            Err(stop) => why = stop,
        }
    }
    Err(why)
}

/// The attribute of the other half.
const fn counterpart(attribute: CK_ATTRIBUTE_TYPE) -> Option<CK_ATTRIBUTE_TYPE> {
    match attribute {
        CKA_ENCRYPT => Some(CKA_DECRYPT),
        CKA_DECRYPT => Some(CKA_ENCRYPT),
        CKA_SIGN => Some(CKA_VERIFY),
        CKA_VERIFY => Some(CKA_SIGN),
        CKA_SIGN_RECOVER => Some(CKA_VERIFY_RECOVER),
        CKA_VERIFY_RECOVER => Some(CKA_SIGN_RECOVER),
        CKA_WRAP => Some(CKA_UNWRAP),
        CKA_UNWRAP => Some(CKA_WRAP),
        CKA_ENCAPSULATE => Some(CKA_DECAPSULATE),
        CKA_DECAPSULATE => Some(CKA_ENCAPSULATE),
        _ => None,
    }
}

/// Adds to the templates of a public and a private key what the use needs.
fn usages(public: Template, private: Template, wanted: Use, allowed: Allowed) -> (Template, Template) {
    let value = allowed == Allowed::Yes;
    match wanted.key() {
        None => (public, private),
        Some((Half::Public, attribute)) => {
            let other = counterpart(attribute).map_or(CKA_SIGN, |other| other);
            (public.bool(attribute, value), private.bool(other, true))
        }
        Some((Half::Private, attribute)) => {
            let public = match counterpart(attribute) {
                Some(other) => public.bool(other, true),
                None => public,
            };
            (public, private.bool(attribute, value))
        }
    }
}

/// The template of a private key that is generated, but for its usages.
fn private() -> Template {
    Template::of_class(CKO_PRIVATE_KEY)
        .bool(CKA_TOKEN, false)
        .bool(CKA_PRIVATE, true)
        .bool(CKA_SENSITIVE, true)
        .bool(CKA_EXTRACTABLE, false)
}

fn public(key_type: CK_KEY_TYPE) -> Template {
    Template::of_class(CKO_PUBLIC_KEY).ulong(CKA_KEY_TYPE, key_type).bool(CKA_TOKEN, false)
}

/// Bytes of a secret key, of odd parity as DES wants them, no half of which is another's.
pub fn secret_value(length: usize) -> Vec<u8> {
    let odd = |byte: u8| (byte & 0xfe) | u8::from((byte & 0xfe).count_ones().is_multiple_of(2));
    (0..length).map(|place| odd((place as u8).wrapping_mul(37).wrapping_add(91))).collect()
}

fn secret(
    session: &Session<'_>,
    key_type: CK_KEY_TYPE,
    length: usize,
    wanted: Use,
    allowed: Allowed,
) -> Result<KeyPair, Stop> {
    let length = if length == 0 { 16 } else { length };
    let mut template = Template::secret(key_type, &secret_value(length)).bool(CKA_PRIVATE, true);
    if let Some((_, attribute)) = wanted.key() {
        template = template.bool(attribute, allowed == Allowed::Yes);
    }
    if wanted == Use::Unwrap {
        template = template.bool(CKA_WRAP, true);
    }
    let (refusal, key) = session.try_create(&template);
    if refusal.was(CKR_OK) {
        return Ok(KeyPair { public: key, private: key });
    }
    let makes = |row: &&super::Row| {
        matches!(row.keys, Keys::Secret(other, _) if other == key_type) && row.uses.contains(&Use::Generate)
    };
    for row in ROWS.iter().filter(makes) {
        if session.bench.offers(row.number, CKF_GENERATE).is_ok() {
            let template = template.without(CKA_VALUE).ulong(CKA_VALUE_LEN, length as CK_ULONG);
            let (rv, key) = session.try_generate(&Mechanism::plain(row.number), &template);
            let made = KeyPair { public: key, private: key };
            return rv.ok().map(|()| made).map_err(|_| no_key(rv));
        }
    }
    Err(no_key(refusal))
}

fn no_key(rv: crate::rv::Rv) -> Stop {
    Stop::Skipped(format!("no key for it: {rv}"))
}

/// An RSA pair: the suite's one where it will do, else with a public key brought in and a private key copied or made.
fn rsa(session: &Session<'_>, wanted: Use, allowed: Allowed) -> Result<KeyPair, Stop> {
    let pair = session.bench.rsa()?;
    let ready = matches!(wanted, Use::Encrypt | Use::Decrypt | Use::Sign | Use::Verify);
    match wanted.key() {
        None => Ok(pair),
        Some(_) if ready && allowed == Allowed::Yes => Ok(pair),
        Some((Half::Public, attribute)) => {
            let (rv, public) = rsa_copy(session, pair.public, attribute, allowed)?;
            if rv.was(CKR_OK) { Ok(KeyPair { public, private: pair.private }) } else { Err(no_key(rv)) }
        }
        Some((Half::Private, attribute)) => {
            let changed = Template::new().bool(attribute, allowed == Allowed::Yes);
            let (rv, private) = session.copy(pair.private, &changed);
            if !rv.was(CKR_OK) {
                return rsa_made(session, wanted, allowed);
            }
            let public = match counterpart(attribute) {
                Some(other) => rsa_copy(session, pair.public, other, Allowed::Yes)?.1,
                None => pair.public,
            };
            Ok(KeyPair { public, private })
        }
    }
}

/// The same public key, for another use.
fn rsa_copy(
    session: &Session<'_>,
    key: CK_OBJECT_HANDLE,
    attribute: CK_ATTRIBUTE_TYPE,
    allowed: Allowed,
) -> Result<(crate::rv::Rv, CK_OBJECT_HANDLE), Stop> {
    let template = public(CKK_RSA)
        .bytes(CKA_MODULUS, &session.attribute(key, CKA_MODULUS)?)
        .bytes(CKA_PUBLIC_EXPONENT, &session.attribute(key, CKA_PUBLIC_EXPONENT)?)
        .bool(attribute, allowed == Allowed::Yes);
    Ok(session.try_create(&template))
}

fn rsa_made(session: &Session<'_>, wanted: Use, allowed: Allowed) -> Result<KeyPair, Stop> {
    let bare = rsa_public(2048).without(CKA_VERIFY).without(CKA_ENCRYPT);
    let (public, private) = usages(bare, private(), wanted, allowed);
    let mechanism = Mechanism::plain(CKM_RSA_PKCS_KEY_PAIR_GEN);
    let (rv, pair) = session.try_generate_pair(&mechanism, &public, &private);
    if rv.was(CKR_OK) { Ok(pair) } else { Err(no_key(rv)) }
}

/// What makes pairs of a kind: mechanisms with the templates of the public key to try.
pub fn generators(keys: Keys) -> Vec<(CK_MECHANISM_TYPE, Template)> {
    let curve = |number, key_type, name: &[u8]| (number, public(key_type).bytes(CKA_EC_PARAMS, name));
    let parameters = |number, key_type, set| (number, public(key_type).ulong(CKA_PARAMETER_SET, set));
    match keys {
        Keys::Rsa => vec![(CKM_RSA_PKCS_KEY_PAIR_GEN, rsa_public(2048))],
        Keys::Ec => vec![curve(CKM_EC_KEY_PAIR_GEN, CKK_EC, P256)],
        Keys::Edwards => ED25519.map(|name| curve(CKM_EC_EDWARDS_KEY_PAIR_GEN, CKK_EC_EDWARDS, name)).into(),
        Keys::Montgomery => [super::curves::X25519, CURVE25519]
            .map(|name| curve(CKM_EC_MONTGOMERY_KEY_PAIR_GEN, CKK_EC_MONTGOMERY, name))
            .into(),
        Keys::MlKem => vec![parameters(CKM_ML_KEM_KEY_PAIR_GEN, CKK_ML_KEM, CKP_ML_KEM_768)],
        Keys::MlDsa => vec![parameters(CKM_ML_DSA_KEY_PAIR_GEN, CKK_ML_DSA, CKP_ML_DSA_65)],
        Keys::SlhDsa => vec![parameters(CKM_SLH_DSA_KEY_PAIR_GEN, CKK_SLH_DSA, CKP_SLH_DSA_SHA2_128F)],
        Keys::Dh => vec![(CKM_DH_PKCS_KEY_PAIR_GEN, diffie_hellman())],
        Keys::Dsa => dsa_domain().map(|domain| (CKM_DSA_KEY_PAIR_GEN, domain)).into_iter().collect(),
        Keys::Hss => vec![(CKM_HSS_KEY_PAIR_GEN, public(CKK_HSS))],
        Keys::X942 | Keys::Xmss | Keys::NoKey | Keys::Secret(..) | Keys::Other => Vec::new(),
    }
}

fn diffie_hellman() -> Template {
    let ones = [0xff; 8];
    let middle = crate::vectors::unhex(MODP_2048).unwrap_or_default();
    let prime = [ones.as_slice(), &middle, &ones].concat();
    public(CKK_DH).bytes(CKA_PRIME, &prime).bytes(CKA_BASE, &[2])
}

/// The domain of a published key; no token need be asked to make one.
fn dsa_domain() -> Option<Template> {
    let file = crate::vectors::load("dsa_2048_256_sha256_p1363").ok()?;
    let key = file.groups.first()?.object("publicKey").ok()?;
    let part = |name: &str| key.integer(name).ok();
    Some(
        public(CKK_DSA)
            .bytes(CKA_PRIME, &part("p")?)
            .bytes(CKA_SUBPRIME, &part("q")?)
            .bytes(CKA_BASE, &part("g")?),
    )
}

fn pair(session: &Session<'_>, keys: Keys, wanted: Use, allowed: Allowed) -> Result<KeyPair, Stop> {
    let mut why = Stop::Skipped("the token makes no keys of this kind".to_owned());
    for (number, public) in generators(keys) {
        if session.bench.offers(number, CKF_GENERATE_KEY_PAIR).is_err() {
            continue;
        }
        let (public, private) = usages(public, private(), wanted, allowed);
        let (rv, pair) = session.try_generate_pair(&Mechanism::plain(number), &public, &private);
        if rv.was(CKR_OK) {
            return Ok(pair);
        }
        why = no_key(rv);
    }
    Err(why)
}

/// The template of a secret key that comes out of a derivation, an unwrapping or a generation.
pub fn product(keys: Keys) -> Template {
    let (key_type, length) =
        if let Keys::Secret(key_type, length) = keys { (key_type, length) } else { (CKK_GENERIC_SECRET, 16) };
    let template = Template::of_class(CKO_SECRET_KEY)
        .ulong(CKA_KEY_TYPE, key_type)
        .bool(CKA_TOKEN, false)
        .bool(CKA_PRIVATE, true);
    match length {
        0 => template,
        _ => template.ulong(CKA_VALUE_LEN, length as CK_ULONG),
    }
}

/// A secret that may be wrapped.
///
/// # Errors
/// `Skipped`, if the token takes none.
pub fn wrappable(session: &Session<'_>) -> Result<CK_OBJECT_HANDLE, Stop> {
    let template = Template::secret(CKK_GENERIC_SECRET, &secret_value(32))
        .bool(CKA_PRIVATE, true)
        .bool(CKA_EXTRACTABLE, true);
    let (rv, key) = session.try_create(&template);
    if rv.was(CKR_OK) { Ok(key) } else { Err(no_key(rv)) }
}

/// Something to unwrap: made by the key itself where it wraps, else bytes.
pub fn wrapped(session: &Session<'_>, mechanism: &Mechanism, key: CK_OBJECT_HANDLE) -> Vec<u8> {
    let mut out = Out::room(1024);
    let made = wrappable(session).is_ok_and(|target| {
        let [buffer, length] = out.args();
        let arguments =
            [mechanism.arg(), crate::raw::Arg::number(key), crate::raw::Arg::number(target), buffer, length];
        session.call(F::C_WrapKey, &arguments).was(CKR_OK)
    });
    if made { out.bytes().to_vec() } else { vec![0x5a; 48] }
}
