//! Objects as both sides see them: stable ids, typed attributes, templates.
//!
//! Attribute names and values follow PKCS#11 3.1, section 4. `CK_ULONG` travels as a 64-bit number, so
//! the two ends need not share a word size.

use std::fmt;

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use pkcs11_sys::*;
use zeroize::Zeroizing;

use crate::hex::Hex;

/// The name of an object for all its life: 128 random bits, the same after a reconnect or a restart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId(pub [u8; 16]);

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectId({self})")
    }
}

impl std::str::FromStr for ObjectId {
    type Err = InvalidObjectId;

    /// Reads the 32 hexadecimal digits that `Display` writes.
    fn from_str(text: &str) -> Result<Self, InvalidObjectId> {
        let mut id = [0; 16];
        if text.len() != 32 || !text.is_ascii() {
            return Err(InvalidObjectId);
        }
        for (byte, digits) in id.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| InvalidObjectId)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| InvalidObjectId)?;
        }
        Ok(Self(id))
    }
}

/// A text that is not the 32 hexadecimal digits of an object id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidObjectId;

impl fmt::Display for InvalidObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object id is 32 hexadecimal digits")
    }
}

impl std::error::Error for InvalidObjectId {}

impl<C> Encode<C> for ObjectId {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for ObjectId {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let bytes = d.bytes()?.try_into().map_err(|_| decode::Error::message("an object id has 16 bytes"))?;
        Ok(Self(bytes))
    }
}

/// How many shares of a private key make a signature. This and the next two are ours: the standard knows no shares.
pub const CKA_STRONGROOM_THRESHOLD: CK_ATTRIBUTE_TYPE = CKA_VENDOR_DEFINED | 0x5352_0001;
/// How many shares of a private key there are, each on a node of its own.
pub const CKA_STRONGROOM_PARTIES: CK_ATTRIBUTE_TYPE = CKA_VENDOR_DEFINED | 0x5352_0002;
/// How often a private key's shares were made anew.
pub const CKA_STRONGROOM_EPOCH: CK_ATTRIBUTE_TYPE = CKA_VENDOR_DEFINED | 0x5352_0003;

/// The chain code of a private key that has BIP-32 children, 32 bytes: with the public key it shows the public keys of
/// all of them.
pub const CKA_STRONGROOM_CHAIN_CODE: CK_ATTRIBUTE_TYPE = CKA_VENDOR_DEFINED | 0x5352_0010;
/// Of which key a private key is a BIP-32 descendant: that one's `CKA_UNIQUE_ID`.
pub const CKA_STRONGROOM_MASTER: CK_ATTRIBUTE_TYPE = CKA_VENDOR_DEFINED | 0x5352_0011;
/// Which descendant it is: the indices from the master on, four bytes each, big-endian (BIP-32, ser32).
pub const CKA_STRONGROOM_PATH: CK_ATTRIBUTE_TYPE = CKA_VENDOR_DEFINED | 0x5352_0012;

/// The shape of an attribute's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `CK_BBOOL`.
    Bool,
    /// `CK_ULONG` and its aliases.
    Ulong,
    /// A byte array, a string, a big integer or a DER encoding.
    Bytes,
    /// `CK_DATE`, eight ASCII digits, or empty.
    Date,
    /// An array of `CK_MECHANISM_TYPE`.
    Mechanisms,
}

macro_rules! attributes {
    ($( $name:ident $shape:ident; )*) => {
        /// The shape of an attribute's value; bytes for one that has no row, such as a vendor's.
        pub const fn shape(attribute: CK_ATTRIBUTE_TYPE) -> Shape {
            match attribute { $( $name => Shape::$shape, )* _ => Shape::Bytes }
        }

        /// The standard's name of an attribute, for logs.
        pub const fn attribute_name(attribute: CK_ATTRIBUTE_TYPE) -> Option<&'static str> {
            match attribute { $( $name => Some(stringify!($name)), )* _ => None }
        }
    };
}

attributes! {
    CKA_CLASS Ulong;
    CKA_TOKEN Bool;
    CKA_PRIVATE Bool;
    CKA_LABEL Bytes;
    CKA_UNIQUE_ID Bytes;
    CKA_APPLICATION Bytes;
    CKA_VALUE Bytes;
    CKA_OBJECT_ID Bytes;
    CKA_CERTIFICATE_TYPE Ulong;
    CKA_ISSUER Bytes;
    CKA_SERIAL_NUMBER Bytes;
    CKA_URL Bytes;
    CKA_CERTIFICATE_CATEGORY Ulong;
    CKA_JAVA_MIDP_SECURITY_DOMAIN Ulong;
    CKA_HASH_OF_SUBJECT_PUBLIC_KEY Bytes;
    CKA_HASH_OF_ISSUER_PUBLIC_KEY Bytes;
    CKA_NAME_HASH_ALGORITHM Ulong;
    CKA_CHECK_VALUE Bytes;
    CKA_TRUSTED Bool;
    CKA_KEY_TYPE Ulong;
    CKA_SUBJECT Bytes;
    CKA_ID Bytes;
    CKA_SENSITIVE Bool;
    CKA_ENCRYPT Bool;
    CKA_DECRYPT Bool;
    CKA_WRAP Bool;
    CKA_UNWRAP Bool;
    CKA_SIGN Bool;
    CKA_SIGN_RECOVER Bool;
    CKA_VERIFY Bool;
    CKA_VERIFY_RECOVER Bool;
    CKA_DERIVE Bool;
    CKA_START_DATE Date;
    CKA_END_DATE Date;
    CKA_MODULUS Bytes;
    CKA_MODULUS_BITS Ulong;
    CKA_PUBLIC_EXPONENT Bytes;
    CKA_PRIVATE_EXPONENT Bytes;
    CKA_PRIME_1 Bytes;
    CKA_PRIME_2 Bytes;
    CKA_EXPONENT_1 Bytes;
    CKA_EXPONENT_2 Bytes;
    CKA_COEFFICIENT Bytes;
    CKA_PUBLIC_KEY_INFO Bytes;
    CKA_VALUE_LEN Ulong;
    CKA_EXTRACTABLE Bool;
    CKA_LOCAL Bool;
    CKA_NEVER_EXTRACTABLE Bool;
    CKA_ALWAYS_SENSITIVE Bool;
    CKA_KEY_GEN_MECHANISM Ulong;
    CKA_MODIFIABLE Bool;
    CKA_COPYABLE Bool;
    CKA_DESTROYABLE Bool;
    CKA_EC_PARAMS Bytes;
    CKA_EC_POINT Bytes;
    CKA_ALWAYS_AUTHENTICATE Bool;
    CKA_WRAP_WITH_TRUSTED Bool;
    CKA_ALLOWED_MECHANISMS Mechanisms;
    CKA_PROFILE_ID Ulong;
    CKA_STRONGROOM_THRESHOLD Ulong;
    CKA_STRONGROOM_PARTIES Ulong;
    CKA_STRONGROOM_EPOCH Ulong;
    CKA_STRONGROOM_CHAIN_CODE Bytes;
    CKA_STRONGROOM_MASTER Bytes;
    CKA_STRONGROOM_PATH Bytes;
}

/// The value of one attribute. Bytes are wiped when dropped, for some of them are keys.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// `CK_BBOOL`.
    Bool(bool),
    /// `CK_ULONG`.
    Ulong(u64),
    /// Anything made of bytes, dates included.
    Bytes(Zeroizing<Vec<u8>>),
    /// An array of mechanism types.
    Mechanisms(Vec<u64>),
}

impl Value {
    /// A byte-array value.
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self::Bytes(Zeroizing::new(bytes.into()))
    }

    /// The length of this value in a caller's memory, in bytes (`ulValueLen`).
    pub fn length(&self) -> usize {
        match self {
            Self::Bool(_) => size_of::<CK_BBOOL>(),
            Self::Ulong(_) => size_of::<CK_ULONG>(),
            Self::Bytes(bytes) => bytes.len(),
            Self::Mechanisms(list) => list.len().saturating_mul(size_of::<CK_ULONG>()),
        }
    }
}

/// The bytes of a value may be a key, so only their number is shown.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Ulong(value) => write!(f, "{value:#x}"),
            Self::Bytes(bytes) => write!(f, "[{} bytes]", bytes.len()),
            Self::Mechanisms(list) => write!(f, "{list:x?}"),
        }
    }
}

impl<C> Encode<C> for Value {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        match self {
            Self::Bool(value) => e.bool(*value)?.ok(),
            Self::Ulong(value) => e.u64(*value)?.ok(),
            Self::Bytes(bytes) => e.bytes(bytes)?.ok(),
            Self::Mechanisms(list) => {
                e.array(list.len() as u64)?;
                list.iter().try_for_each(|mechanism| e.u64(*mechanism)?.ok())
            }
        }
    }
}

impl<'b, C> Decode<'b, C> for Value {
    fn decode(d: &mut Decoder<'b>, c: &mut C) -> Result<Self, decode::Error> {
        use minicbor::data::Type;
        match d.datatype()? {
            Type::Bool => Ok(Self::Bool(d.bool()?)),
            Type::U8 | Type::U16 | Type::U32 | Type::U64 => Ok(Self::Ulong(d.u64()?)),
            Type::Bytes => Ok(Self::bytes(d.bytes()?)),
            Type::Array => Ok(Self::Mechanisms(Vec::decode(d, c)?)),
            other => Err(decode::Error::type_mismatch(other)),
        }
    }
}

/// One attribute: its `CKA_*` number and its value.
#[derive(Clone, PartialEq, Eq)]
pub struct Attribute {
    /// `CKA_*`.
    pub kind: u64,
    /// Its value, in the shape that belongs to the kind.
    pub value: Value,
}

impl Attribute {
    /// Whether the value has the shape that the standard gives this attribute.
    pub fn has_its_shape(&self) -> bool {
        match (shape(self.kind), &self.value) {
            (Shape::Bool, Value::Bool(_))
            | (Shape::Ulong, Value::Ulong(_))
            | (Shape::Bytes, Value::Bytes(_))
            | (Shape::Mechanisms, Value::Mechanisms(_)) => true,
            (Shape::Date, Value::Bytes(bytes)) => {
                bytes.is_empty() || (bytes.len() == 8 && bytes.iter().all(u8::is_ascii_digit))
            }
            (Shape::Bool | Shape::Ulong | Shape::Bytes | Shape::Date | Shape::Mechanisms, _) => false,
        }
    }
}

impl fmt::Debug for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match attribute_name(self.kind) {
            Some(name) => write!(f, "{name}={:?}", self.value),
            None => write!(f, "CKA {:#x}={:?}", self.kind, self.value),
        }
    }
}

impl<C> Encode<C> for Attribute {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, c: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.array(2)?.u64(self.kind)?;
        self.value.encode(e, c)
    }
}

impl<'b, C> Decode<'b, C> for Attribute {
    fn decode(d: &mut Decoder<'b>, c: &mut C) -> Result<Self, decode::Error> {
        if d.array()? != Some(2) {
            return Err(decode::Error::message("an attribute is a pair"));
        }
        Ok(Self { kind: d.u64()?, value: Value::decode(d, c)? })
    }
}

/// A list of attributes: what a caller asks for, or what an object is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode)]
#[cbor(transparent)]
pub struct Template(#[n(0)] pub Vec<Attribute>);

impl<'b, C> Decode<'b, C> for Template {
    /// Bounded, so that work on a stranger's template is too.
    fn decode(d: &mut Decoder<'b>, c: &mut C) -> Result<Self, decode::Error> {
        let mut attributes = Vec::new();
        for attribute in d.array_iter_with(c)? {
            if attributes.len() == Self::LONGEST {
                return Err(decode::Error::message("a template of too many attributes"));
            }
            attributes.push(attribute?);
        }
        Ok(Self(attributes))
    }
}

impl Template {
    /// The most attributes that a template may have; the standard knows fewer than 200.
    pub const LONGEST: usize = 512;

    /// An empty template.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The attributes, in the caller's order.
    pub fn iter(&self) -> std::slice::Iter<'_, Attribute> {
        self.0.iter()
    }

    /// The value of an attribute, if it is there.
    pub fn value(&self, kind: CK_ATTRIBUTE_TYPE) -> Option<&Value> {
        self.0.iter().find(|attribute| attribute.kind == kind).map(|attribute| &attribute.value)
    }

    /// A boolean attribute, if it is there and is one.
    pub fn bool(&self, kind: CK_ATTRIBUTE_TYPE) -> Option<bool> {
        match self.value(kind) {
            Some(Value::Bool(value)) => Some(*value),
            _ => None,
        }
    }

    /// A numeric attribute, if it is there and is one.
    pub fn ulong(&self, kind: CK_ATTRIBUTE_TYPE) -> Option<u64> {
        match self.value(kind) {
            Some(Value::Ulong(value)) => Some(*value),
            _ => None,
        }
    }

    /// A byte attribute, if it is there and is one.
    pub fn bytes(&self, kind: CK_ATTRIBUTE_TYPE) -> Option<&[u8]> {
        match self.value(kind) {
            Some(Value::Bytes(value)) => Some(value),
            _ => None,
        }
    }

    /// Sets an attribute, in place of an earlier value if there is one.
    pub fn set(&mut self, kind: CK_ATTRIBUTE_TYPE, value: Value) {
        match self.0.iter_mut().find(|attribute| attribute.kind == kind) {
            Some(attribute) => attribute.value = value,
            None => self.0.push(Attribute { kind, value }),
        }
    }

    /// Sets an attribute unless it is there already.
    pub fn set_default(&mut self, kind: CK_ATTRIBUTE_TYPE, value: Value) {
        if self.value(kind).is_none() {
            self.0.push(Attribute { kind, value });
        }
    }

    /// The same template with one more attribute; for literals.
    #[must_use]
    pub fn with(mut self, kind: CK_ATTRIBUTE_TYPE, value: Value) -> Self {
        self.set(kind, value);
        self
    }

    /// The first attribute type that stands here twice.
    pub fn duplicate(&self) -> Option<u64> {
        let mut rest = self.0.as_slice();
        while let [first, tail @ ..] = rest {
            if tail.iter().any(|attribute| attribute.kind == first.kind) {
                return Some(first.kind);
            }
            rest = tail;
        }
        None
    }
}

impl FromIterator<Attribute> for Template {
    fn from_iter<I: IntoIterator<Item = Attribute>>(attributes: I) -> Self {
        Self(attributes.into_iter().collect())
    }
}

/// What a key may be used for: the `CKA_SIGN` … `CKA_DERIVE` flags of an object as one set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Usage(#[n(0)] pub u32);

impl Usage {
    /// `CKA_ENCRYPT`.
    pub const ENCRYPT: Self = Self(1);
    /// `CKA_DECRYPT`.
    pub const DECRYPT: Self = Self(1 << 1);
    /// `CKA_SIGN`.
    pub const SIGN: Self = Self(1 << 2);
    /// `CKA_VERIFY`.
    pub const VERIFY: Self = Self(1 << 3);
    /// `CKA_WRAP`.
    pub const WRAP: Self = Self(1 << 4);
    /// `CKA_UNWRAP`.
    pub const UNWRAP: Self = Self(1 << 5);
    /// `CKA_DERIVE`.
    pub const DERIVE: Self = Self(1 << 6);

    /// Each flag with the attribute that it stands for.
    pub const ATTRIBUTES: &[(Self, CK_ATTRIBUTE_TYPE)] = &[
        (Self::ENCRYPT, CKA_ENCRYPT),
        (Self::DECRYPT, CKA_DECRYPT),
        (Self::SIGN, CKA_SIGN),
        (Self::VERIFY, CKA_VERIFY),
        (Self::WRAP, CKA_WRAP),
        (Self::UNWRAP, CKA_UNWRAP),
        (Self::DERIVE, CKA_DERIVE),
    ];

    /// The usage that a template's flags permit.
    pub fn of(template: &Template) -> Self {
        let permitted = Self::ATTRIBUTES.iter().filter(|(_, kind)| template.bool(*kind) == Some(true));
        Self(permitted.fold(0, |set, (usage, _)| set | usage.0))
    }

    /// Whether every use in `wanted` is permitted.
    pub const fn permits(self, wanted: Self) -> bool {
        self.0 & wanted.0 == wanted.0
    }
}

/// What the provider keeps of an object beside its handle: enough to check and to size an operation
/// without a round trip. The server checks again.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ObjectInfo {
    /// Its stable name.
    #[n(0)]
    pub id: ObjectId,
    /// `CKA_CLASS`.
    #[n(1)]
    pub class: u64,
    /// `CKA_KEY_TYPE`, for keys.
    #[n(2)]
    pub key_type: Option<u64>,
    /// The size of a key in bits: of the modulus, of the curve's field, of the secret value. 0 for other objects.
    #[n(3)]
    pub bits: u32,
    /// The uses that the key's attributes permit.
    #[n(4)]
    pub usage: Usage,
    /// `CKA_TOKEN`: false for a session object.
    #[n(5)]
    pub token: bool,
    /// `CKA_PRIVATE`: visible only to a logged-in user.
    #[n(6)]
    pub private: bool,
    /// The size of the object in bytes, for `C_GetObjectSize`.
    #[n(7)]
    pub size: u32,
    /// For a private key of which several nodes hold shares: how many there are.
    #[n(8)]
    pub shares: Option<Shares>,
    /// For a key that `CKA_ALLOWED_MECHANISMS` keeps from mechanisms of its type: their numbers.
    #[n(9)]
    pub kept_from: Option<Vec<u64>>,
}

/// How a private key is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Shares {
    /// How many of the shares make a signature.
    #[n(0)]
    pub threshold: u8,
    /// How many there are.
    #[n(1)]
    pub parties: u8,
}

/// Where a BIP-32 descendant comes from.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Descent {
    /// The private key that descends from none.
    #[n(0)]
    pub master: ObjectId,
    /// The indices from it on.
    #[n(1)]
    pub path: Vec<u32>,
}

impl Descent {
    /// `CKA_STRONGROOM_PATH`.
    pub fn path_bytes(&self) -> Vec<u8> {
        self.path.iter().flat_map(|index| index.to_be_bytes()).collect()
    }

    /// What a private key's attributes say of it; none if it descends from no other.
    pub fn of(attributes: &Template) -> Option<Self> {
        let master = std::str::from_utf8(attributes.bytes(CKA_STRONGROOM_MASTER)?).ok()?.parse().ok()?;
        let (indices, rest) = attributes.bytes(CKA_STRONGROOM_PATH)?.as_chunks();
        let path = indices.iter().map(|index| u32::from_be_bytes(*index)).collect();
        rest.is_empty().then_some(Self { master, path })
    }
}

/// `m/0/5 of …`, with the master's id.
impl fmt::Display for Descent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("m")?;
        self.path.iter().try_for_each(|index| write!(f, "/{index}"))?;
        write!(f, " of {}", self.master)
    }
}
