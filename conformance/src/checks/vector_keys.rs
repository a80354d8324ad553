//! The keys of published vectors, as session objects.

use cryptoki_sys::*;

use crate::check::Stop;
use crate::checks::vectors::{Case, Job};
use crate::mechanisms::curves::{self, octets};
use crate::rv::Rv;
use crate::session::{ED25519, Session};
use crate::template::Template;
use crate::vectors::Fields;

/// A key's handle, or what refused it.
type Brought = Result<Result<CK_OBJECT_HANDLE, Rv>, Stop>;

fn create(session: &Session<'_>, template: &Template) -> Result<CK_OBJECT_HANDLE, Rv> {
    let (rv, key) = session.try_create(template);
    if rv.was(CKR_OK) { Ok(key) } else { Err(rv) }
}

/// The first that the token takes, or what refused the last.
fn first_of(session: &Session<'_>, templates: impl IntoIterator<Item = Template>) -> Brought {
    let mut last = Err(Stop::NotOffered);
    for template in templates {
        let made = create(session, &template);
        if made.is_ok() {
            return Ok(made);
        }
        last = Ok(made);
    }
    last
}

fn public(key_type: CK_KEY_TYPE, usage: CK_ATTRIBUTE_TYPE) -> Template {
    Template::of_class(CKO_PUBLIC_KEY).ulong(CKA_KEY_TYPE, key_type).bool(CKA_TOKEN, false).bool(usage, true)
}

fn private(key_type: CK_KEY_TYPE, usage: CK_ATTRIBUTE_TYPE) -> Template {
    Template::of_class(CKO_PRIVATE_KEY)
        .ulong(CKA_KEY_TYPE, key_type)
        .bool(CKA_TOKEN, false)
        .bool(CKA_PRIVATE, true)
        .bool(usage, true)
}

fn secret(
    session: &Session<'_>,
    key_type: CK_KEY_TYPE,
    value: &[u8],
    usages: &[CK_ATTRIBUTE_TYPE],
) -> Brought {
    let template = Template::secret(key_type, value).bool(CKA_PRIVATE, true).usages(usages);
    Ok(create(session, &template))
}

/// No key: the mechanism makes one.
///
/// # Errors
/// None.
pub fn none(_: &Session<'_>, _: &Case<'_>, _: &Job) -> Brought {
    Ok(Ok(0))
}

/// The group's public key on its curve, as a DER octet string, or bare for tokens that want that.
///
/// # Errors
/// `Skipped`, if the file lacks a part of it.
pub fn ec_public(session: &Session<'_>, case: &Case<'_>, _: &Job) -> Brought {
    let key = case.group.object("publicKey")?;
    let point = key.bytes("uncompressed")?;
    let Some(curve) = curves::by_name(&key.text("curve")?) else { return Err(Stop::NotOffered) };
    let template = public(CKK_EC, CKA_VERIFY).bytes(CKA_EC_PARAMS, curve.oid);
    Ok(create(session, &template.bytes(CKA_EC_POINT, &octets(&point))))
}

/// The group's public key on an Edwards curve, by whichever names and encodings the token knows.
///
/// # Errors
/// `Skipped`, if the file lacks a part of it.
pub fn edwards_public(session: &Session<'_>, case: &Case<'_>, _: &Job) -> Brought {
    let point = case.group.object("publicKey")?.bytes("pk")?;
    let names: &[&[u8]] = if point.len() == 32 { &ED25519 } else { &[curves::ED448, b"\x13\x0aedwards448"] };
    let with = |name: &[u8], point: &[u8]| {
        public(CKK_EC_EDWARDS, CKA_VERIFY).bytes(CKA_EC_PARAMS, name).bytes(CKA_EC_POINT, point)
    };
    let encoded = octets(&point);
    first_of(session, names.iter().flat_map(|name| [with(name, &encoded), with(name, &point)]))
}

/// The group's DSA public key.
///
/// # Errors
/// `Skipped`, if the file lacks a part of it.
pub fn dsa_public(session: &Session<'_>, case: &Case<'_>, _: &Job) -> Brought {
    let key = case.group.object("publicKey")?;
    let parts = [(CKA_PRIME, "p"), (CKA_SUBPRIME, "q"), (CKA_BASE, "g"), (CKA_VALUE, "y")];
    with_integers(public(CKK_DSA, CKA_VERIFY), &key, &parts).map(|template| create(session, &template))
}

fn with_integers(
    mut template: Template,
    key: &Fields,
    parts: &[(CK_ATTRIBUTE_TYPE, &str)],
) -> Result<Template, Stop> {
    for (attribute, name) in parts {
        template = template.bytes(*attribute, &key.integer(name)?);
    }
    Ok(template)
}

/// The group's RSA public key.
///
/// # Errors
/// `Skipped`, if the file lacks a part of it.
pub fn rsa_public(session: &Session<'_>, case: &Case<'_>, _: &Job) -> Brought {
    let key = case.group.object("publicKey")?;
    let parts = [(CKA_MODULUS, "modulus"), (CKA_PUBLIC_EXPONENT, "publicExponent")];
    with_integers(public(CKK_RSA, CKA_VERIFY), &key, &parts).map(|template| create(session, &template))
}

/// The parts of an RSA private key, in the order of `RSAPrivateKey` (RFC 8017, A.1.2).
pub const RSA_PRIVATE: [(CK_ATTRIBUTE_TYPE, &str); 8] = [
    (CKA_MODULUS, "modulus"),
    (CKA_PUBLIC_EXPONENT, "publicExponent"),
    (CKA_PRIVATE_EXPONENT, "privateExponent"),
    (CKA_PRIME_1, "prime1"),
    (CKA_PRIME_2, "prime2"),
    (CKA_EXPONENT_1, "exponent1"),
    (CKA_EXPONENT_2, "exponent2"),
    (CKA_COEFFICIENT, "coefficient"),
];

/// The group's RSA private key.
///
/// # Errors
/// `Skipped`, if the file lacks a part of it.
pub fn rsa_private(session: &Session<'_>, case: &Case<'_>, _: &Job) -> Brought {
    let key = case.group.object("privateKey")?;
    with_integers(private(CKK_RSA, CKA_DECRYPT), &key, &RSA_PRIVATE)
        .map(|template| create(session, &template))
}

/// The vector's private key on the group's curve.
///
/// # Errors
/// `Skipped`, if the file lacks a part of it.
pub fn ec_private(session: &Session<'_>, case: &Case<'_>, _: &Job) -> Brought {
    let Some(curve) = curves::by_name(&case.group.fields.text("curve")?) else {
        return Err(Stop::NotOffered);
    };
    let scalar = case.test.fields.integer("private")?;
    let padded = [vec![0; curve.bytes().saturating_sub(scalar.len())], scalar].concat();
    let template = private(CKK_EC, CKA_DERIVE).bytes(CKA_EC_PARAMS, curve.oid).bytes(CKA_VALUE, &padded);
    Ok(create(session, &template))
}

/// The vector's private key on a Montgomery curve.
///
/// # Errors
/// `Skipped`, if the file lacks a part of it.
pub fn montgomery_private(session: &Session<'_>, case: &Case<'_>, _: &Job) -> Brought {
    let scalar = case.bytes("private")?;
    let names: &[&[u8]] = match case.group.fields.text("curve")?.as_str() {
        "curve25519" => &[curves::X25519, b"\x13\x0acurve25519"],
        _ => &[curves::X448, b"\x13\x08curve448"],
    };
    let with = |name: &&[u8]| {
        private(CKK_EC_MONTGOMERY, CKA_DERIVE).bytes(CKA_EC_PARAMS, name).bytes(CKA_VALUE, &scalar)
    };
    first_of(session, names.iter().map(with))
}

fn ml_dsa_set(job: &Job) -> CK_ULONG {
    match job.file {
        "mldsa_44_verify" | "mldsa_44_sign_seed" => CKP_ML_DSA_44,
        "mldsa_65_verify" | "mldsa_65_sign_seed" => CKP_ML_DSA_65,
        _ => CKP_ML_DSA_87,
    }
}

/// The group's ML-DSA public key.
///
/// # Errors
/// `Skipped`, if the file lacks it.
pub fn ml_dsa_public(session: &Session<'_>, case: &Case<'_>, job: &Job) -> Brought {
    let key = case.group.fields.bytes("publicKey")?;
    let template = public(CKK_ML_DSA, CKA_VERIFY).ulong(CKA_PARAMETER_SET, ml_dsa_set(job));
    Ok(create(session, &template.bytes(CKA_VALUE, &key)))
}

/// The group's ML-DSA private key, from its seed.
///
/// # Errors
/// `Skipped`, if the file lacks it.
pub fn ml_dsa_private(session: &Session<'_>, case: &Case<'_>, job: &Job) -> Brought {
    let seed = case.group.fields.bytes("privateSeed")?;
    let template = private(CKK_ML_DSA, CKA_SIGN).ulong(CKA_PARAMETER_SET, ml_dsa_set(job));
    Ok(create(session, &template.bytes(CKA_SEED, &seed)))
}

/// The vector's ML-KEM private key, from its seed.
///
/// # Errors
/// `Skipped`, if the file lacks it.
pub fn ml_kem_private(session: &Session<'_>, case: &Case<'_>, job: &Job) -> Brought {
    let set = match job.file {
        "mlkem_512" => CKP_ML_KEM_512,
        "mlkem_768" => CKP_ML_KEM_768,
        _ => CKP_ML_KEM_1024,
    };
    let template = private(CKK_ML_KEM, CKA_DECAPSULATE).ulong(CKA_PARAMETER_SET, set);
    Ok(create(session, &template.bytes(CKA_SEED, &case.bytes("seed")?)))
}

macro_rules! secrets {
    ($( $name:ident $what:literal $key_type:ident $field:literal [ $( $usage:ident )+ ]; )*) => { $(
        #[doc = $what]
        ///
        /// # Errors
        /// `Skipped`, if the file lacks it.
        pub fn $name(session: &Session<'_>, case: &Case<'_>, _: &Job) -> Brought {
            secret(session, $key_type, &case.bytes($field)?, &[ $( $usage ),+ ])
        }
    )* };
}

secrets! {
    aes "The vector's AES key that encrypts." CKK_AES "key" [CKA_ENCRYPT CKA_DECRYPT];
    aes_wrapping "The vector's AES key that wraps." CKK_AES "key" [CKA_WRAP CKA_UNWRAP];
    aes_mac "The vector's AES key that signs." CKK_AES "key" [CKA_SIGN CKA_VERIFY];
    aes_xts "The vector's two AES keys of XTS." CKK_AES_XTS "key" [CKA_ENCRYPT CKA_DECRYPT];
    chacha "The vector's ChaCha20 key." CKK_CHACHA20 "key" [CKA_ENCRYPT CKA_DECRYPT];
    camellia "The vector's Camellia key." CKK_CAMELLIA "key" [CKA_ENCRYPT CKA_DECRYPT];
    aria "The vector's ARIA key." CKK_ARIA "key" [CKA_ENCRYPT CKA_DECRYPT];
    generic_mac "The vector's secret of HMAC." CKK_GENERIC_SECRET "key" [CKA_SIGN CKA_VERIFY];
    hkdf "The vector's secret of HKDF." CKK_GENERIC_SECRET "ikm" [CKA_DERIVE];
}
