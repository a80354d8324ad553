//! THE table of mechanisms, from which lists, infos, flags and length queries are made on both sides.
//!
//! A new mechanism is one row here and one arm in `hsm-server/src/crypto`.

use std::ops::RangeInclusive;

use minicbor::{Decode, Encode};
use pkcs11_sys::*;

use crate::object::{ObjectInfo, Usage};

/// What a mechanism's input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// The message itself: the server hashes it, and policy can read it.
    Message,
    /// A hash value or encoding made by the caller: the server cannot know of what.
    Digest,
    /// Plaintext or ciphertext.
    Data,
    /// No input: the mechanism makes keys.
    Nothing,
}

/// What parameter a mechanism takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamsKind {
    /// None: a stray parameter is an error.
    None,
    /// `CK_EDDSA_PARAMS`, or none for pure EdDSA.
    Eddsa,
    /// A 16-byte initialisation vector.
    Iv,
    /// `CK_AES_CTR_PARAMS`.
    Ctr,
    /// `CK_GCM_PARAMS`.
    Gcm,
    /// `CK_RSA_PKCS_PSS_PARAMS`.
    Pss,
    /// `CK_RSA_PKCS_OAEP_PARAMS`.
    Oaep,
    /// The indices of a BIP-32 path, from the base key on, as an array of 32-bit numbers in the machine's own order.
    Path,
}

/// A mechanism's parameter, copied out of the caller's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum Params {
    /// No parameter.
    #[default]
    #[n(0)]
    None,
    /// AES-CBC.
    #[n(1)]
    Iv(#[cbor(n(0), with = "minicbor::bytes")] [u8; 16]),
    /// AES-CTR: the number of counter bits and the first counter block.
    #[n(2)]
    Ctr {
        /// `ulCounterBits`, 1 to 128.
        #[n(0)]
        bits: u32,
        /// `cb`.
        #[cbor(n(1), with = "minicbor::bytes")]
        block: [u8; 16],
    },
    /// AES-GCM.
    #[n(3)]
    Gcm {
        /// `pIv`, 1 to 256 bytes.
        #[cbor(n(0), with = "minicbor::bytes")]
        iv: Vec<u8>,
        /// `pAAD`.
        #[cbor(n(1), with = "minicbor::bytes")]
        aad: Vec<u8>,
        /// `ulTagBits`.
        #[n(2)]
        tag_bits: u32,
    },
    /// RSA-PSS.
    #[n(4)]
    Pss {
        /// `hashAlg`.
        #[n(0)]
        hash: Hash,
        /// `mgf`, as the hash in it.
        #[n(1)]
        mgf: Hash,
        /// `sLen`, in bytes.
        #[n(2)]
        salt_length: u32,
    },
    /// RSA-OAEP.
    #[n(5)]
    Oaep {
        /// `hashAlg`.
        #[n(0)]
        hash: Hash,
        /// `mgf`, as the hash in it.
        #[n(1)]
        mgf: Hash,
        /// `pSourceData`, the label.
        #[cbor(n(2), with = "minicbor::bytes")]
        label: Vec<u8>,
    },
    /// BIP-32: the indices of the path from the base key to its descendant.
    #[n(6)]
    Path(#[n(0)] Vec<u32>),
}

macro_rules! hashes {
    ($( $number:literal $name:ident $length:literal $ckm:ident $ckg:ident; )*) => {
        /// A hash function of the token.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
        #[cbor(index_only)]
        pub enum Hash { $( #[doc = stringify!($ckm)] #[n($number)] $name, )* }

        impl Hash {
            /// Every hash function.
            pub const ALL: &[Self] = &[ $( Self::$name, )* ];

            /// The length of a hash value, in bytes.
            pub const fn length(self) -> usize { match self { $( Self::$name => $length, )* } }

            /// The digest mechanism.
            pub const fn mechanism(self) -> CK_MECHANISM_TYPE { match self { $( Self::$name => $ckm, )* } }

            /// The hash function of a digest mechanism.
            pub const fn from_mechanism(mechanism: CK_MECHANISM_TYPE) -> Option<Self> {
                match mechanism { $( $ckm => Some(Self::$name), )* _ => None }
            }

            /// The hash function of an MGF1 mask generation function.
            pub const fn from_mgf(mgf: CK_RSA_PKCS_MGF_TYPE) -> Option<Self> {
                match mgf { $( $ckg => Some(Self::$name), )* _ => None }
            }
        }
    };
}

hashes! {
    1 Sha1   20 CKM_SHA_1  CKG_MGF1_SHA1;
    2 Sha224 28 CKM_SHA224 CKG_MGF1_SHA224;
    3 Sha256 32 CKM_SHA256 CKG_MGF1_SHA256;
    4 Sha384 48 CKM_SHA384 CKG_MGF1_SHA384;
    5 Sha512 64 CKM_SHA512 CKG_MGF1_SHA512;
}

/// How long a mechanism's result is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// Always this many bytes.
    Fixed(usize),
    /// r and s, each as long as the curve's order (PKCS#11 3.1, 6.3.1).
    EcdsaPair,
    /// As long as the RSA modulus; a decryption is at most that.
    Modulus,
    /// As long as the input (CTR, CBC).
    SameAsInput,
    /// The input padded to full blocks of 16 bytes, at least one byte of padding.
    PaddedBlocks,
    /// The input and the GCM tag.
    InputAndTag,
    /// There is no result.
    None,
}

/// The key that a mechanism works with or makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// `CKK_RSA`; sizes are modulus bits.
    Rsa,
    /// `CKK_EC`, a Weierstrass curve; sizes are bits of the field.
    Ec,
    /// `CKK_EC_EDWARDS`; sizes are bits of the field.
    EcEdwards,
    /// `CKK_AES`; sizes are **bytes** in `CK_MECHANISM_INFO`, bits here.
    Aes,
    /// `CKK_GENERIC_SECRET` and the `CKK_SHA*_HMAC` types; sizes are bits.
    Generic,
    /// No key: a digest.
    None,
}

impl KeyKind {
    /// Whether a key of this `CKA_KEY_TYPE` can be used.
    pub const fn accepts(self, key_type: CK_KEY_TYPE) -> bool {
        match self {
            Self::Rsa => matches!(key_type, CKK_RSA),
            Self::Ec => matches!(key_type, CKK_EC),
            Self::EcEdwards => matches!(key_type, CKK_EC_EDWARDS),
            Self::Aes => matches!(key_type, CKK_AES),
            Self::Generic => matches!(
                key_type,
                CKK_GENERIC_SECRET | CKK_SHA224_HMAC | CKK_SHA256_HMAC | CKK_SHA384_HMAC | CKK_SHA512_HMAC
            ),
            Self::None => false,
        }
    }
}

/// A row of the table: all that is said of a mechanism without carrying it out.
#[derive(Clone, Debug)]
pub struct Row {
    /// `CKM_*` as a number.
    pub number: CK_MECHANISM_TYPE,
    /// `CKM_*` as a name, for policies and logs.
    pub name: &'static str,
    /// The keys that it works with or makes.
    pub key: KeyKind,
    /// `CKF_*` of its `CK_MECHANISM_INFO`.
    pub flags: CK_FLAGS,
    /// The sizes of those keys, in bits.
    pub bits: RangeInclusive<u32>,
    /// Its parameter.
    pub params: ParamsKind,
    /// Its input.
    pub input: Input,
    /// Its result.
    pub length: Length,
}

const EC: CK_FLAGS = CKF_EC_F_P | CKF_EC_NAMEDCURVE | CKF_EC_UNCOMPRESS;
const SIGN: CK_FLAGS = CKF_SIGN | CKF_VERIFY;
const CRYPT: CK_FLAGS = CKF_ENCRYPT | CKF_DECRYPT;

/// Schnorr signatures of BIP340 over the message itself, with a key on secp256k1: ours, for the standard has none.
pub const CKM_STRONGROOM_BIP340: CK_MECHANISM_TYPE = CKM_VENDOR_DEFINED | 0x5352_0001;

/// Children by BIP-32, not hardened, of a key on secp256k1 of which several nodes hold shares: ours too.
pub const CKM_STRONGROOM_BIP32_CHILD: CK_MECHANISM_TYPE = CKM_VENDOR_DEFINED | 0x5352_0002;

/// How many generations there may be from a BIP-32 master to the last of its descendants.
pub const LONGEST_PATH: usize = 16;

/// Whether these are indices of children that are not hardened, at least one and no more than [`LONGEST_PATH`].
pub fn is_path(indices: &[u32]) -> bool {
    (1..=LONGEST_PATH).contains(&indices.len()) && indices.iter().all(|index| *index < 1 << 31)
}

macro_rules! mechanisms {
    ($(
        $(#[$doc:meta])*
        $name:ident = $ckm:ident, $key:ident, $flags:expr, $bits:expr, $params:ident, $input:ident, $length:expr;
    )*) => {
        /// A mechanism that this token has.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Mechanism { $( $(#[$doc])* $name, )* }

        impl Mechanism {
            /// Every mechanism, in the order of the table.
            pub const ALL: &[Self] = &[ $( Self::$name, )* ];

            /// The mechanism with this `CKM_*` number.
            pub const fn from_number(number: CK_MECHANISM_TYPE) -> Option<Self> {
                match number { $( $ckm => Some(Self::$name), )* _ => None }
            }

            /// Its row in the table.
            pub const fn row(self) -> Row {
                match self {
                    $( Self::$name => Row {
                        number: $ckm,
                        name: stringify!($ckm),
                        key: KeyKind::$key,
                        flags: $flags,
                        bits: $bits,
                        params: ParamsKind::$params,
                        input: Input::$input,
                        length: $length,
                    }, )*
                }
            }
        }
    };
}

mechanisms! {
    /// RSA key pairs, 2048 to 4096 bits in steps of 1024 or less, any odd public exponent from 65537.
    RsaPkcsKeyPairGen = CKM_RSA_PKCS_KEY_PAIR_GEN, Rsa, CKF_GENERATE_KEY_PAIR, 2048..=4096, None, Nothing, Length::None;
    /// RSASSA-PKCS1-v1_5 over a caller's DigestInfo, and RSAES-PKCS1-v1_5 (RFC 8017).
    RsaPkcs = CKM_RSA_PKCS, Rsa, SIGN | CRYPT, 2048..=4096, None, Digest, Length::Modulus;
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Sha256RsaPkcs = CKM_SHA256_RSA_PKCS, Rsa, SIGN, 2048..=4096, None, Message, Length::Modulus;
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Sha384RsaPkcs = CKM_SHA384_RSA_PKCS, Rsa, SIGN, 2048..=4096, None, Message, Length::Modulus;
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Sha512RsaPkcs = CKM_SHA512_RSA_PKCS, Rsa, SIGN, 2048..=4096, None, Message, Length::Modulus;
    /// RSASSA-PSS over a caller's hash value (RFC 8017).
    RsaPkcsPss = CKM_RSA_PKCS_PSS, Rsa, SIGN, 2048..=4096, Pss, Digest, Length::Modulus;
    /// RSASSA-PSS with SHA-256.
    Sha256RsaPkcsPss = CKM_SHA256_RSA_PKCS_PSS, Rsa, SIGN, 2048..=4096, Pss, Message, Length::Modulus;
    /// RSASSA-PSS with SHA-384.
    Sha384RsaPkcsPss = CKM_SHA384_RSA_PKCS_PSS, Rsa, SIGN, 2048..=4096, Pss, Message, Length::Modulus;
    /// RSASSA-PSS with SHA-512.
    Sha512RsaPkcsPss = CKM_SHA512_RSA_PKCS_PSS, Rsa, SIGN, 2048..=4096, Pss, Message, Length::Modulus;
    /// RSAES-OAEP (RFC 8017).
    RsaPkcsOaep = CKM_RSA_PKCS_OAEP, Rsa, CRYPT, 2048..=4096, Oaep, Data, Length::Modulus;

    /// Key pairs on secp256k1, P-256, P-384 and P-521.
    EcKeyPairGen = CKM_EC_KEY_PAIR_GEN, Ec, CKF_GENERATE_KEY_PAIR | EC, 256..=521, None, Nothing, Length::None;
    /// ECDSA over a caller's hash value (FIPS 186-5).
    Ecdsa = CKM_ECDSA, Ec, SIGN | EC, 256..=521, None, Digest, Length::EcdsaPair;
    /// ECDSA with SHA-256.
    EcdsaSha256 = CKM_ECDSA_SHA256, Ec, SIGN | EC, 256..=521, None, Message, Length::EcdsaPair;
    /// ECDSA with SHA-384.
    EcdsaSha384 = CKM_ECDSA_SHA384, Ec, SIGN | EC, 256..=521, None, Message, Length::EcdsaPair;
    /// ECDSA with SHA-512.
    EcdsaSha512 = CKM_ECDSA_SHA512, Ec, SIGN | EC, 256..=521, None, Message, Length::EcdsaPair;
    /// BIP340 on secp256k1, for keys whose `CKA_ALLOWED_MECHANISMS` names it.
    Bip340 = CKM_STRONGROOM_BIP340, Ec, SIGN | EC, 256..=256, None, Message, Length::Fixed(64);
    /// BIP-32 children of a shared key on secp256k1; `CKA_ALLOWED_MECHANISMS` of such a key names it if it is `CKA_DERIVE`.
    Bip32Child = CKM_STRONGROOM_BIP32_CHILD, Ec, CKF_DERIVE | EC, 256..=256, Path, Nothing, Length::None;
    /// Ed25519 key pairs (RFC 8032).
    EcEdwardsKeyPairGen = CKM_EC_EDWARDS_KEY_PAIR_GEN, EcEdwards, CKF_GENERATE_KEY_PAIR | EC, 255..=255, None, Nothing, Length::None;
    /// Ed25519, pure (RFC 8032).
    Eddsa = CKM_EDDSA, EcEdwards, SIGN | EC, 255..=255, Eddsa, Message, Length::Fixed(64);

    /// AES keys of 16, 24 or 32 bytes.
    AesKeyGen = CKM_AES_KEY_GEN, Aes, CKF_GENERATE, 128..=256, None, Nothing, Length::None;
    /// AES-GCM (SP 800-38D).
    AesGcm = CKM_AES_GCM, Aes, CRYPT, 128..=256, Gcm, Data, Length::InputAndTag;
    /// AES-CBC without padding (SP 800-38A).
    AesCbc = CKM_AES_CBC, Aes, CRYPT, 128..=256, Iv, Data, Length::SameAsInput;
    /// AES-CBC with PKCS#7 padding.
    AesCbcPad = CKM_AES_CBC_PAD, Aes, CRYPT, 128..=256, Iv, Data, Length::PaddedBlocks;
    /// AES-CTR (SP 800-38A).
    AesCtr = CKM_AES_CTR, Aes, CRYPT, 128..=256, Ctr, Data, Length::SameAsInput;

    /// Generic secrets, the keys of HMAC.
    GenericSecretKeyGen = CKM_GENERIC_SECRET_KEY_GEN, Generic, CKF_GENERATE, 112..=4096, None, Nothing, Length::None;
    /// HMAC with SHA-224 (FIPS 198-1).
    Sha224Hmac = CKM_SHA224_HMAC, Generic, SIGN, 112..=4096, None, Message, Length::Fixed(28);
    /// HMAC with SHA-256.
    Sha256Hmac = CKM_SHA256_HMAC, Generic, SIGN, 112..=4096, None, Message, Length::Fixed(32);
    /// HMAC with SHA-384.
    Sha384Hmac = CKM_SHA384_HMAC, Generic, SIGN, 112..=4096, None, Message, Length::Fixed(48);
    /// HMAC with SHA-512.
    Sha512Hmac = CKM_SHA512_HMAC, Generic, SIGN, 112..=4096, None, Message, Length::Fixed(64);

    /// SHA-1, for old data only (FIPS 180-4).
    Sha1 = CKM_SHA_1, None, CKF_DIGEST, 0..=0, None, Message, Length::Fixed(20);
    /// SHA-224.
    Sha224 = CKM_SHA224, None, CKF_DIGEST, 0..=0, None, Message, Length::Fixed(28);
    /// SHA-256.
    Sha256 = CKM_SHA256, None, CKF_DIGEST, 0..=0, None, Message, Length::Fixed(32);
    /// SHA-384.
    Sha384 = CKM_SHA384, None, CKF_DIGEST, 0..=0, None, Message, Length::Fixed(48);
    /// SHA-512.
    Sha512 = CKM_SHA512, None, CKF_DIGEST, 0..=0, None, Message, Length::Fixed(64);
}

impl Mechanism {
    /// The mechanism that a policy or an operator names, with or without the `CKM_`.
    pub fn from_name(name: &str) -> Option<Self> {
        let wanted = name.strip_prefix("CKM_").unwrap_or(name);
        Self::ALL.iter().copied().find(|mechanism| mechanism.row().name.strip_prefix("CKM_") == Some(wanted))
    }

    /// The hash function that a hashing mechanism applies to its message.
    pub const fn hash(self) -> Option<Hash> {
        match self {
            Self::Sha1 => Some(Hash::Sha1),
            Self::Sha224 | Self::Sha224Hmac => Some(Hash::Sha224),
            Self::Sha256
            | Self::Sha256Hmac
            | Self::EcdsaSha256
            | Self::Sha256RsaPkcs
            | Self::Sha256RsaPkcsPss => Some(Hash::Sha256),
            Self::Sha384
            | Self::Sha384Hmac
            | Self::EcdsaSha384
            | Self::Sha384RsaPkcs
            | Self::Sha384RsaPkcsPss => Some(Hash::Sha384),
            Self::Sha512
            | Self::Sha512Hmac
            | Self::EcdsaSha512
            | Self::Sha512RsaPkcs
            | Self::Sha512RsaPkcsPss => Some(Hash::Sha512),
            Self::RsaPkcsKeyPairGen
            | Self::RsaPkcs
            | Self::RsaPkcsPss
            | Self::RsaPkcsOaep
            | Self::EcKeyPairGen
            | Self::Ecdsa
            | Self::Bip340
            | Self::Bip32Child
            | Self::EcEdwardsKeyPairGen
            | Self::Eddsa
            | Self::AesKeyGen
            | Self::AesGcm
            | Self::AesCbc
            | Self::AesCbcPad
            | Self::AesCtr
            | Self::GenericSecretKeyGen => None,
        }
    }
}

impl Row {
    /// Whether a parameter is of the kind that this mechanism takes.
    pub const fn takes(&self, params: &Params) -> bool {
        match (self.params, params) {
            (ParamsKind::None | ParamsKind::Eddsa, Params::None)
            | (ParamsKind::Iv, Params::Iv(_))
            | (ParamsKind::Ctr, Params::Ctr { .. })
            | (ParamsKind::Gcm, Params::Gcm { .. })
            | (ParamsKind::Pss, Params::Pss { .. })
            | (ParamsKind::Oaep, Params::Oaep { .. })
            | (ParamsKind::Path, Params::Path(_)) => true,
            (
                ParamsKind::None
                | ParamsKind::Eddsa
                | ParamsKind::Iv
                | ParamsKind::Ctr
                | ParamsKind::Gcm
                | ParamsKind::Pss
                | ParamsKind::Oaep
                | ParamsKind::Path,
                _,
            ) => false,
        }
    }

    /// How many bytes the result of signing or encrypting `input` bytes with this key has.
    pub fn output_length(&self, key: &ObjectInfo, params: &Params, input: usize) -> usize {
        let bytes = (key.bits as usize).div_ceil(8);
        match self.length {
            Length::Fixed(length) => length,
            Length::EcdsaPair => 2 * bytes,
            Length::Modulus => bytes,
            Length::SameAsInput => input,
            Length::PaddedBlocks => (input / 16).saturating_add(1).saturating_mul(16),
            Length::InputAndTag => match params {
                Params::Gcm { tag_bits, .. } => input.saturating_add(*tag_bits as usize / 8),
                Params::None
                | Params::Iv(_)
                | Params::Ctr { .. }
                | Params::Pss { .. }
                | Params::Oaep { .. }
                | Params::Path(_) => input,
            },
            Length::None => 0,
        }
    }

    /// At most how many bytes the result of decrypting `input` bytes with this key has.
    pub fn plaintext_bound(&self, key: &ObjectInfo, params: &Params, input: usize) -> usize {
        match (self.length, params) {
            (Length::Modulus, _) => (key.bits as usize).div_ceil(8),
            (Length::InputAndTag, Params::Gcm { tag_bits, .. }) => {
                input.saturating_sub(*tag_bits as usize / 8)
            }
            _ => input,
        }
    }

    /// Whether the mechanism may be used in this way (`CKF_*` of its info).
    pub const fn supports(&self, flag: CK_FLAGS) -> bool {
        self.flags & flag == flag
    }
}

/// The `CKF_*` flag of a mechanism that a use of a key needs.
pub const fn flag_of(usage: Usage) -> CK_FLAGS {
    match usage {
        Usage::ENCRYPT => CKF_ENCRYPT,
        Usage::DECRYPT => CKF_DECRYPT,
        Usage::SIGN => CKF_SIGN,
        Usage::VERIFY => CKF_VERIFY,
        Usage::WRAP => CKF_WRAP,
        Usage::UNWRAP => CKF_UNWRAP,
        Usage::DERIVE => CKF_DERIVE,
        Usage(_) => 0,
    }
}
