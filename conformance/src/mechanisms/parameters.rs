//! Parameters of mechanisms: good ones, and what may be wrong with them.

use cryptoki_sys::*;

use super::{Row, Shape};
use crate::marks::Severity;
use crate::report::counted;
use crate::session::{KeyPair, Session};
use crate::template::{Mechanism, Word};

/// A parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// None.
    Absent,
    /// Bytes.
    Bytes(Vec<u8>),
    /// A structure.
    Words(Vec<Word>),
}

/// What is wrong with a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// There is one where none belongs.
    Stray,
    /// There is none where one belongs.
    Absent,
    /// It is a null pointer with a length.
    Null,
    /// It is too short or too long.
    Length,
    /// A pointer in it is null, with a length.
    Inner,
    /// A value in it does not exist or contradicts the mechanism.
    Value,
}

impl Flaw {
    /// All of them.
    pub const ALL: &'static [Self] =
        &[Self::Stray, Self::Absent, Self::Null, Self::Length, Self::Inner, Self::Value];

    /// Its word in the name of a check.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Stray => "stray",
            Self::Absent => "absent",
            Self::Null => "null",
            Self::Length => "length",
            Self::Inner => "inner",
            Self::Value => "value",
        }
    }

    /// What a module does about it.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Stray => "refuses a parameter, which it does not take",
            Self::Absent => "refuses to do without a parameter",
            Self::Null => "refuses a parameter that is a null pointer with a length",
            Self::Length => "refuses a parameter that is too short or too long",
            Self::Inner => "refuses a null pointer with a length inside its parameter",
            Self::Value => "refuses values in its parameter that do not exist or cannot be",
        }
    }
}

impl Parameter {
    /// The mechanism with it.
    pub fn mechanism(&self, number: CK_MECHANISM_TYPE) -> Mechanism {
        match self {
            Self::Absent => Mechanism::plain(number),
            Self::Bytes(bytes) => Mechanism::bytes(number, bytes),
            Self::Words(words) => Mechanism::structure(number, words),
        }
    }

    fn length(&self) -> CK_ULONG {
        let length = match self {
            Self::Absent => 0,
            Self::Bytes(bytes) => bytes.len(),
            Self::Words(words) => words.len() * size_of::<CK_ULONG>(),
        };
        length as CK_ULONG
    }

    /// The same with more behind it.
    fn longer(&self) -> Self {
        match self {
            Self::Absent => Self::Absent,
            Self::Bytes(bytes) => Self::Bytes([bytes.as_slice(), &[0]].concat()),
            Self::Words(words) => Self::Words([words.as_slice(), &[Word::Number(0)]].concat()),
        }
    }
}

const fn number(number: CK_ULONG) -> Word {
    Word::Number(number)
}

fn memory(bytes: &[u8]) -> Word {
    Word::Memory(bytes.to_vec())
}

fn words(words: &[Word]) -> Vec<Parameter> {
    vec![Parameter::Words(words.to_vec())]
}

/// The parameters that a mechanism should take with this key; of several, at least one.
pub fn good(row: &Row, session: &Session<'_>, pair: KeyPair) -> Vec<Parameter> {
    match row.shape {
        Shape::None => vec![Parameter::Absent],
        Shape::Optional => {
            vec![Parameter::Absent, Parameter::Bytes(vec![0xa6; 8]), Parameter::Bytes(vec![1; 4])]
        }
        Shape::Bytes(length) => vec![Parameter::Bytes(vec![3; length])],
        Shape::Number(value) => words(&[number(value)]),
        Shape::Pss(hash, mask, salt) => words(&[number(hash), number(mask), number(salt)]),
        Shape::Oaep => [(CKM_SHA256, CKG_MGF1_SHA256), (CKM_SHA_1, CKG_MGF1_SHA1)].map(oaep).into(),
        Shape::RsaAesWrap => {
            let inner = [CKM_SHA_1, CKG_MGF1_SHA1, CKZ_DATA_SPECIFIED, 0, 0];
            let bytes: Vec<u8> = inner.iter().flat_map(|word| word.to_ne_bytes()).collect();
            words(&[number(256), memory(&bytes)])
        }
        Shape::Eddsa => vec![Parameter::Absent, Parameter::Words(vec![number(0), number(0), number(0)])],
        Shape::Context => vec![Parameter::Absent, Parameter::Words(context())],
        Shape::HashContext => words(&[context(), vec![number(CKM_SHA256)]].concat()),
        Shape::Ecdh => ecdh(session, pair),
        Shape::EcdhAesWrap => words(&[number(256), number(CKD_NULL), number(0), number(0)]),
        Shape::DhPublic => {
            vec![Parameter::Bytes(session.attribute(pair.public, CKA_VALUE).unwrap_or_default())]
        }
        Shape::Gcm => words(&gcm()),
        Shape::Gmac => vec![Parameter::Bytes(vec![7; 12]), Parameter::Words(gcm())],
        Shape::Ccm => words(&ccm()),
        Shape::Ctr => [128, 32].map(ctr).into(),
        Shape::ChaCha20 => words(&[memory(&[0; 4]), number(32), memory(&[7; 12]), number(96)]),
        Shape::Salsa20 => words(&[memory(&[0; 8]), memory(&[7; 8]), number(64)]),
        Shape::Poly1305 => words(&[memory(&[7; 12]), number(12), memory(b"aad"), number(3)]),
        Shape::Hkdf => words(&hkdf()),
        Shape::StringData => words(&[memory(&[9; 32]), number(32)]),
        Shape::CbcData(block) => {
            let vector = vec![number(0); block / size_of::<CK_ULONG>()];
            words(&[vector, vec![memory(&[9; 32]), number(32)]].concat())
        }
        Shape::KeyHandle => words(&[number(pair.private)]),
        Shape::Pbkd2 => words(&pbkdf2()),
        Shape::Pbe => words(&[
            memory(&[0; 8]),
            memory(b"password"),
            number(8),
            memory(b"saltsalt"),
            number(8),
            number(1000),
        ]),
        Shape::Opaque(length) => words(&vec![number(0); length]),
    }
}

fn oaep((hash, mask): (CK_ULONG, CK_ULONG)) -> Parameter {
    Parameter::Words([hash, mask, CKZ_DATA_SPECIFIED, 0, 0].map(Word::Number).into())
}

fn ctr(bits: CK_ULONG) -> Parameter {
    Parameter::Words([bits, 7, 7].map(Word::Number).into())
}

fn context() -> Vec<Word> {
    vec![number(0), memory(b"context"), number(7)]
}

fn gcm() -> Vec<Word> {
    vec![memory(&[7; 12]), number(12), number(96), memory(b"aad"), number(3), number(128)]
}

fn ccm() -> Vec<Word> {
    vec![number(16), memory(&[7; 12]), number(12), memory(b"aad"), number(3), number(16)]
}

fn hkdf() -> Vec<Word> {
    let both = CK_ULONG::from_ne_bytes([1, 1, 0, 0, 0, 0, 0, 0]);
    let head = [both, CKM_SHA256, CKF_HKDF_SALT_DATA].map(Word::Number);
    let tail = vec![memory(b"salt"), number(4), number(0), memory(b"info"), number(4)];
    [head.to_vec(), tail].concat()
}

fn pbkdf2() -> Vec<Word> {
    let salt = [number(CKZ_SALT_SPECIFIED), memory(b"saltsalt"), number(8)];
    let rest = [number(1000), number(CKP_PKCS5_PBKD2_HMAC_SHA256), number(0), number(0)];
    [salt.to_vec(), rest.to_vec(), vec![memory(b"password"), number(8)]].concat()
}

/// The other side is the key itself: its point as it is, and as a DER octet string, which old tokens want.
fn ecdh(session: &Session<'_>, pair: KeyPair) -> Vec<Parameter> {
    let encoded = session.attribute(pair.public, CKA_EC_POINT).unwrap_or_default();
    let raw = match encoded.as_slice() {
        [4, length, point @ ..] if usize::from(*length) == point.len() => point.to_vec(),
        _ => encoded.clone(),
    };
    let with = |point: Vec<u8>| {
        let length = point.len() as CK_ULONG;
        Parameter::Words(vec![number(CKD_NULL), number(0), number(0), number(length), Word::Memory(point)])
    };
    vec![with(raw), with(encoded)]
}

/// Whether a parameter of this shape can have the flaw.
pub fn can_have(shape: Shape, flaw: Flaw) -> bool {
    let fixed = !matches!(shape, Shape::Optional | Shape::Gmac | Shape::DhPublic | Shape::None);
    match flaw {
        Flaw::Stray => shape == Shape::None,
        Flaw::Absent => !matches!(
            shape,
            Shape::None | Shape::Optional | Shape::Eddsa | Shape::Context | Shape::Opaque(_) | Shape::Gmac
        ),
        Flaw::Null => shape != Shape::None,
        Flaw::Length => fixed,
        Flaw::Inner => !inner_places(shape).is_empty(),
        Flaw::Value => !impossible(shape).is_empty(),
    }
}

/// A mechanism with a flaw.
pub struct Flawed {
    /// What it is.
    pub what: String,
    /// The mechanism.
    pub mechanism: Mechanism,
    /// How bad it is at most to take it: that nothing more than the parameter may come along, the standard does not say.
    pub most: Severity,
    /// What refuses it.
    pub refusals: &'static [CK_RV],
}

/// What refuses a parameter.
const BAD_PARAMETER: &[CK_RV] = &[CKR_MECHANISM_PARAM_INVALID, CKR_ARGUMENTS_BAD];

/// What refuses a hash in it, which is a mechanism.
const BAD_HASH: &[CK_RV] = &[CKR_MECHANISM_PARAM_INVALID, CKR_ARGUMENTS_BAD, CKR_MECHANISM_INVALID];

/// Mechanisms with the flaw, out of a good parameter.
pub fn flawed(row: &Row, flaw: Flaw, structure: &Parameter) -> Vec<Flawed> {
    let is_optional = matches!(row.shape, Shape::Optional | Shape::Eddsa | Shape::Context);
    let made = |(what, mechanism): (String, Mechanism)| {
        let harmless = flaw == Flaw::Stray || what == LONGER || (flaw == Flaw::Null && is_optional);
        Flawed {
            mechanism,
            most: if harmless { Severity::Low } else { Severity::Medium },
            refusals: if what.starts_with("a hash") { BAD_HASH } else { BAD_PARAMETER },
            what,
        }
    };
    mechanisms(row, flaw, structure).into_iter().map(made).collect()
}

/// A parameter with something behind it.
const LONGER: &str = "longer";

fn mechanisms(row: &Row, flaw: Flaw, structure: &Parameter) -> Vec<(String, Mechanism)> {
    let length = structure.length();
    match flaw {
        Flaw::Stray => {
            let bytes =
                |length: usize| (counted(length, "byte"), Mechanism::bytes(row.number, &vec![7; length]));
            vec![bytes(1), bytes(16), ("null with length 16".to_owned(), Mechanism::null(row.number, 16))]
        }
        Flaw::Absent => vec![("no parameter".to_owned(), Mechanism::plain(row.number))],
        Flaw::Null => {
            vec![(format!("null with length {length}"), Mechanism::null(row.number, length.max(1)))]
        }
        Flaw::Length => [1, length.saturating_sub(1)]
            .into_iter()
            .filter(|short| *short > 0 && *short < length)
            .map(|short| {
                (format!("{short} bytes of {length}"), structure.mechanism(row.number).of_length(short))
            })
            .chain([(LONGER.to_owned(), structure.longer().mechanism(row.number))])
            .collect(),
        Flaw::Inner => inner_places(row.shape)
            .iter()
            .filter_map(|place| Some((format!("null in word {place}"), replaced(structure, &[(*place, 0)])?)))
            .map(|(what, parameter)| (what, parameter.mechanism(row.number)))
            .collect(),
        Flaw::Value => impossible(row.shape)
            .iter()
            .filter_map(|(what, changes)| Some(((*what).to_owned(), replaced(structure, changes)?)))
            .map(|(what, parameter)| (what, parameter.mechanism(row.number)))
            .collect(),
    }
}

/// The same structure with other numbers in these places.
fn replaced(parameter: &Parameter, changes: &[(usize, CK_ULONG)]) -> Option<Parameter> {
    let Parameter::Words(words) = parameter else { return None };
    let mut words = words.clone();
    for (place, value) in changes {
        *words.get_mut(*place)? = Word::Number(*value);
    }
    Some(Parameter::Words(words))
}

/// Where a structure points to memory whose length it tells.
const fn inner_places(shape: Shape) -> &'static [usize] {
    match shape {
        Shape::Context | Shape::HashContext | Shape::RsaAesWrap => &[1],
        Shape::Ecdh => &[4],
        Shape::Gcm => &[0, 3],
        Shape::Ccm => &[1, 3],
        Shape::ChaCha20 => &[0, 2],
        Shape::Salsa20 => &[0, 1],
        Shape::Poly1305 => &[0, 2],
        Shape::Hkdf => &[3, 6],
        Shape::StringData => &[0],
        Shape::CbcData(16) => &[2],
        Shape::CbcData(_) => &[1],
        Shape::Pbkd2 => &[1, 7],
        Shape::Pbe => &[1, 3],
        Shape::None
        | Shape::Optional
        | Shape::Bytes(_)
        | Shape::Number(_)
        | Shape::Pss(..)
        | Shape::Oaep
        | Shape::Eddsa
        | Shape::EcdhAesWrap
        | Shape::DhPublic
        | Shape::Gmac
        | Shape::Ctr
        | Shape::KeyHandle
        | Shape::Opaque(_) => &[],
    }
}

/// A number that is no hash, mask, source or key derivation function.
const NOTHING: CK_ULONG = 0x7777;

/// Changes of words.
type Changes = &'static [(usize, CK_ULONG)];

/// Values that do not exist, or cannot be, and where they stand.
const fn impossible(shape: Shape) -> &'static [(&'static str, Changes)] {
    match shape {
        Shape::Pss(..) => &[
            ("a hash that does not exist", &[(0, NOTHING)]),
            ("a hash that is a cipher", &[(0, CKM_AES_CBC)]),
            ("a mask that does not exist", &[(1, NOTHING)]),
            ("a salt of 2^32 bytes", &[(2, 1 << 32)]),
        ],
        Shape::Oaep => &[
            ("a hash that does not exist", &[(0, NOTHING)]),
            ("a hash that is a cipher", &[(0, CKM_AES_CBC)]),
            ("a mask that does not exist", &[(1, NOTHING)]),
            ("a source that does not exist", &[(2, NOTHING)]),
            ("a null label with a length", &[(4, 16)]),
        ],
        Shape::Eddsa => &[("a null context with a length", &[(1, 16)])],
        Shape::Context => &[("a hedge that does not exist", &[(0, NOTHING)])],
        Shape::HashContext => &[("a hash that does not exist", &[(3, NOTHING)])],
        Shape::Ecdh => &[
            ("a derivation function that does not exist", &[(0, NOTHING)]),
            ("a null shared value with a length", &[(1, 16)]),
            ("a public value of no bytes", &[(3, 0)]),
        ],
        Shape::Gcm => &[
            ("a tag of 129 bits", &[(5, 129)]),
            ("a tag of 2^32 + 128 bits", &[(5, (1 << 32) + 128)]),
            ("no initialisation vector", &[(0, 0), (1, 0), (2, 0)]),
        ],
        Shape::Ccm => &[
            ("a tag of 17 bytes", &[(5, 17)]),
            ("a tag of 5 bytes", &[(5, 5)]),
            ("no nonce", &[(1, 0), (2, 0)]),
        ],
        Shape::Ctr => &[("no counter bits", &[(0, 0)]), ("129 counter bits", &[(0, 129)])],
        Shape::Poly1305 => &[("no nonce", &[(0, 0), (1, 0)])],
        Shape::Hkdf => &[
            ("a hash that does not exist", &[(1, NOTHING)]),
            ("a kind of salt that does not exist", &[(2, NOTHING)]),
            ("neither extraction nor expansion", &[(0, 0)]),
        ],
        Shape::Pbkd2 => &[
            ("a source of salt that does not exist", &[(0, NOTHING)]),
            ("no iterations", &[(3, 0)]),
            ("a function that does not exist", &[(4, NOTHING)]),
        ],
        Shape::Number(4 | 8) => &[("a code of 2^16 bytes", &[(0, 1 << 16)])],
        Shape::None
        | Shape::Optional
        | Shape::Bytes(_)
        | Shape::Number(_)
        | Shape::RsaAesWrap
        | Shape::EcdhAesWrap
        | Shape::DhPublic
        | Shape::Gmac
        | Shape::ChaCha20
        | Shape::Salsa20
        | Shape::StringData
        | Shape::CbcData(_)
        | Shape::KeyHandle
        | Shape::Pbe
        | Shape::Opaque(_) => &[],
    }
}
