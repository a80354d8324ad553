//! The implementations that a module's results are held against: AWS-LC for RSA, AES and secp256k1, RustCrypto for digests,
//! HMAC and the NIST curves, ed25519-dalek. The keys here are the suite's own and guard nothing.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{
    AES_128, AES_256, EncryptingKey, EncryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::key_wrap::{self, AesKek, KeyWrapPadded as _};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{
    KeySize, OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OaepAlgorithm, OaepPrivateDecryptingKey,
    OaepPublicEncryptingKey, PrivateDecryptingKey, PublicEncryptingKey,
};
use aws_lc_rs::signature::{
    self, KeyPair as _, RsaEncoding, RsaKeyPair, RsaParameters, RsaPublicKeyComponents,
};
use cryptoki_sys::*;
use ed25519_dalek::Signer as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use p256::ecdsa::signature::hazmat::{PrehashSigner as _, PrehashVerifier as _};
use sha2::Digest as _;

use crate::template::Mechanism;

macro_rules! hashes {
    ($( $name:ident $word:literal $digest:ident $hmac:ident $function:ty; )*) => {
        /// A hash function.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Hash { $( #[doc = stringify!($digest)] $name, )* }

        impl Hash {
            /// All of them.
            pub const ALL: &'static [Self] = &[ $( Self::$name, )* ];

            /// Its word in the name of a check.
            pub const fn word(self) -> &'static str {
                match self { $( Self::$name => $word, )* }
            }

            /// Its mechanism.
            pub const fn digest(self) -> CK_MECHANISM_TYPE {
                match self { $( Self::$name => $digest, )* }
            }

            /// The mechanism of HMAC with it.
            pub const fn hmac(self) -> CK_MECHANISM_TYPE {
                match self { $( Self::$name => $hmac, )* }
            }
        }

        /// A hash value.
        pub fn digest(hash: Hash, message: &[u8]) -> Vec<u8> {
            match hash { $( Hash::$name => <$function>::digest(message).to_vec(), )* }
        }

        /// A code of HMAC.
        pub fn hmac(hash: Hash, key: &[u8], message: &[u8]) -> Vec<u8> {
            match hash { $(
                Hash::$name => Hmac::<$function>::new_from_slice(key)
                    .map(|mac| mac.chain_update(message).finalize().into_bytes().to_vec())
                    .unwrap_or_default(),
            )* }
        }
    };
}

hashes! {
    Sha1 "sha1" CKM_SHA_1 CKM_SHA_1_HMAC sha1::Sha1;
    Sha224 "sha224" CKM_SHA224 CKM_SHA224_HMAC sha2::Sha224;
    Sha256 "sha256" CKM_SHA256 CKM_SHA256_HMAC sha2::Sha256;
    Sha384 "sha384" CKM_SHA384 CKM_SHA384_HMAC sha2::Sha384;
    Sha512 "sha512" CKM_SHA512 CKM_SHA512_HMAC sha2::Sha512;
    Sha512Of224 "sha512-224" CKM_SHA512_224 CKM_SHA512_224_HMAC sha2::Sha512_224;
    Sha512Of256 "sha512-256" CKM_SHA512_256 CKM_SHA512_256_HMAC sha2::Sha512_256;
}

macro_rules! nist_curves {
    ($( $name:literal $krate:ident $variant:ident $bytes:literal; )*) => {
        enum Signer { $( $variant($krate::ecdsa::SigningKey), )* Secp256k1(k256::ecdsa::SigningKey) }

        /// Whether a signature verifies: r and s over a hash value, by a point.
        pub fn ecdsa_verify(curve: &str, point: &[u8], value: &[u8], signature: &[u8]) -> bool {
            match curve {
                $( $name => {
                    let key = $krate::ecdsa::VerifyingKey::from_sec1_bytes(point);
                    let signature = $krate::ecdsa::Signature::from_slice(signature);
                    matches!((key, signature), (Ok(key), Ok(signature)) if key.verify_prehash(value, &signature).is_ok())
                } )*
                _ => secp256k1_verify(point, value, signature),
            }
        }

        impl Ecdsa {
            /// A key whose scalar is the first bytes of these.
            pub fn new(curve: &str, scalar: &[u8]) -> Option<Self> {
                match curve {
                    $( $name => {
                        let mut scalar = scalar.get(..$bytes.min(scalar.len()))?.to_vec();
                        // Below the order of every curve.
                        *scalar.first_mut()? = 0;
                        let key = $krate::ecdsa::SigningKey::from_slice(&scalar).ok()?;
                        let point = key.verifying_key().to_sec1_point(false).as_bytes().to_vec();
                        Some(Self { point, signer: Signer::$variant(key) })
                    } )*
                    _ => {
                        let mut scalar = scalar.get(..32)?.to_vec();
                        *scalar.first_mut()? = 0;
                        let key = k256::ecdsa::SigningKey::from_slice(&scalar).ok()?;
                        let point = key.verifying_key().to_sec1_point(false).as_bytes().to_vec();
                        Some(Self { point, signer: Signer::Secp256k1(key) })
                    }
                }
            }

            /// The deterministic signature of a hash value (RFC 6979).
            pub fn sign(&self, value: &[u8]) -> Vec<u8> {
                match &self.signer {
                    $( Signer::$variant(key) => {
                        let signature: Result<$krate::ecdsa::Signature, _> = key.sign_prehash(value);
                        signature.map(|signature| signature.to_bytes().to_vec()).unwrap_or_default()
                    } )*
                    Signer::Secp256k1(key) => {
                        let signature: Result<k256::ecdsa::Signature, _> = key.sign_prehash(value);
                        signature.map(|signature| signature.to_bytes().to_vec()).unwrap_or_default()
                    }
                }
            }
        }
    };
}

nist_curves! {
    "secp256r1" p256 P256 32_usize;
    "secp384r1" p384 P384 48_usize;
    "secp521r1" p521 P521 66_usize;
}

/// A signer of ECDSA.
pub struct Ecdsa {
    /// Its public point, uncompressed.
    pub point: Vec<u8>,
    signer: Signer,
}

/// By AWS-LC, which takes a hash value as such.
fn secp256k1_verify(point: &[u8], value: &[u8], signature: &[u8]) -> bool {
    let key = signature::UnparsedPublicKey::new(&signature::ECDSA_P256K1_SHA256_FIXED, point);
    // Of a longer value, ECDSA signs the first bits (FIPS 186-5, 6.4.1).
    let value = value.get(..32).unwrap_or(value);
    let digest = aws_lc_rs::digest::Digest::import_less_safe(value, &aws_lc_rs::digest::SHA256);
    digest.is_ok_and(|digest| key.verify_digest(&digest, signature).is_ok())
}

/// A signer of Ed25519.
pub struct Ed25519(ed25519_dalek::SigningKey);

impl Ed25519 {
    /// A key of this seed.
    pub fn new(seed: &[u8]) -> Option<Self> {
        Some(Self(ed25519_dalek::SigningKey::from_bytes(seed.try_into().ok()?)))
    }

    /// Its public point.
    pub fn point(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// A signature.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).to_bytes().to_vec()
    }
}

/// Whether a signature of Ed25519 verifies.
pub fn ed25519_verify(point: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let key = <&[u8; 32]>::try_from(point)
        .ok()
        .and_then(|point| ed25519_dalek::VerifyingKey::from_bytes(point).ok());
    let signature = ed25519_dalek::Signature::from_slice(signature).ok();
    matches!((key, signature), (Some(key), Some(signature)) if key.verify_strict(message, &signature).is_ok())
}

macro_rules! paddings {
    ($( $name:ident $word:literal $verify:ident $sign:ident $mechanism:expr; )*) => {
        /// A way to sign with RSA.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Padding { $( #[doc = $word] $name, )* }

        impl Padding {
            /// All of them.
            pub const ALL: &'static [Self] = &[ $( Self::$name, )* ];

            /// Its word in the name of a check.
            pub const fn word(self) -> &'static str {
                match self { $( Self::$name => $word, )* }
            }

            /// Its mechanism.
            pub fn mechanism(self) -> Mechanism {
                match self { $( Self::$name => $mechanism, )* }
            }

            fn verifies(self) -> &'static RsaParameters {
                match self { $( Self::$name => &signature::$verify, )* }
            }

            fn signs(self) -> &'static dyn RsaEncoding {
                match self { $( Self::$name => &signature::$sign, )* }
            }
        }
    };
}

paddings! {
    Pkcs256 "rsa-pkcs-sha256" RSA_PKCS1_2048_8192_SHA256 RSA_PKCS1_SHA256 Mechanism::plain(CKM_SHA256_RSA_PKCS);
    Pkcs384 "rsa-pkcs-sha384" RSA_PKCS1_2048_8192_SHA384 RSA_PKCS1_SHA384 Mechanism::plain(CKM_SHA384_RSA_PKCS);
    Pkcs512 "rsa-pkcs-sha512" RSA_PKCS1_2048_8192_SHA512 RSA_PKCS1_SHA512 Mechanism::plain(CKM_SHA512_RSA_PKCS);
    Pss256 "rsa-pss-sha256" RSA_PSS_2048_8192_SHA256 RSA_PSS_SHA256
        Mechanism::pss(CKM_SHA256_RSA_PKCS_PSS, CKM_SHA256, CKG_MGF1_SHA256, 32);
    Pss384 "rsa-pss-sha384" RSA_PSS_2048_8192_SHA384 RSA_PSS_SHA384
        Mechanism::pss(CKM_SHA384_RSA_PKCS_PSS, CKM_SHA384, CKG_MGF1_SHA384, 48);
    Pss512 "rsa-pss-sha512" RSA_PSS_2048_8192_SHA512 RSA_PSS_SHA512
        Mechanism::pss(CKM_SHA512_RSA_PKCS_PSS, CKM_SHA512, CKG_MGF1_SHA512, 64);
}

/// Whether a signature by RSA verifies, with a modulus and an exponent.
pub fn rsa_verify(padding: Padding, (n, e): (&[u8], &[u8]), message: &[u8], signature: &[u8]) -> bool {
    RsaPublicKeyComponents { n: bare(n), e: bare(e) }.verify(padding.verifies(), message, signature).is_ok()
}

/// A number without leading zeros.
fn bare(number: &[u8]) -> &[u8] {
    let first = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
    number.get(first..).unwrap_or_default()
}

/// What stands before the 256 bytes of a modulus in an `RSAPublicKey` with the exponent 65537 (RFC 8017, A.1.1), and behind.
const RSA_HEAD: [u8; 9] = [0x30, 0x82, 0x01, 0x0a, 0x02, 0x82, 0x01, 0x01, 0x00];
const RSA_TAIL: [u8; 5] = [0x02, 0x03, 0x01, 0x00, 0x01];

/// What stands before an `RSAPublicKey` of 270 bytes in a `SubjectPublicKeyInfo`.
const SPKI_HEAD: [u8; 24] = [
    0x30, 0x82, 0x01, 0x22, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01,
    0x05, 0x00, 0x03, 0x82, 0x01, 0x0f, 0x00,
];

/// A signer of RSA with 2048 bits.
pub struct Rsa {
    key: RsaKeyPair,
    modulus: Vec<u8>,
}

impl Rsa {
    /// A new key.
    pub fn new() -> Option<Self> {
        let key = RsaKeyPair::generate(KeySize::Rsa2048).ok()?;
        let modulus = key.public_key().as_ref().get(RSA_HEAD.len()..RSA_HEAD.len() + 256)?.to_vec();
        Some(Self { key, modulus })
    }

    /// Its modulus.
    pub fn modulus(&self) -> &[u8] {
        &self.modulus
    }

    /// A signature.
    pub fn sign(&self, padding: Padding, message: &[u8]) -> Option<Vec<u8>> {
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key.sign(padding.signs(), &SystemRandom::new(), message, &mut signature).ok()?;
        Some(signature)
    }
}

/// A key of RSA with 2048 bits that decrypts.
pub struct RsaDecrypter {
    key: PrivateDecryptingKey,
    modulus: Vec<u8>,
}

fn oaep_algorithm(hash: Hash) -> &'static OaepAlgorithm {
    match hash {
        Hash::Sha1 => &OAEP_SHA1_MGF1SHA1,
        Hash::Sha224 | Hash::Sha256 | Hash::Sha384 | Hash::Sha512 | Hash::Sha512Of224 | Hash::Sha512Of256 => {
            &OAEP_SHA256_MGF1SHA256
        }
    }
}

impl RsaDecrypter {
    /// A new key.
    pub fn new() -> Option<Self> {
        let key = PrivateDecryptingKey::generate(KeySize::Rsa2048).ok()?;
        let der: PublicKeyX509Der<'_> = key.public_key().as_der().ok()?;
        let from = SPKI_HEAD.len() + RSA_HEAD.len();
        let modulus = der.as_ref().get(from..from + 256)?.to_vec();
        Some(Self { key, modulus })
    }

    /// Its modulus.
    pub fn modulus(&self) -> &[u8] {
        &self.modulus
    }

    /// A plaintext of OAEP without a label.
    pub fn oaep(&self, hash: Hash, ciphertext: &[u8]) -> Option<Vec<u8>> {
        let key = OaepPrivateDecryptingKey::new(self.key.clone()).ok()?;
        let mut room = vec![0; key.min_output_size()];
        key.decrypt(oaep_algorithm(hash), ciphertext, &mut room, None).ok().map(|text| text.to_vec())
    }
}

/// A ciphertext of OAEP for a modulus of 2048 bits and the exponent 65537.
pub fn oaep_encrypt(hash: Hash, modulus: &[u8], message: &[u8]) -> Option<Vec<u8>> {
    let der = [SPKI_HEAD.as_slice(), &RSA_HEAD, bare(modulus), &RSA_TAIL].concat();
    let key = OaepPublicEncryptingKey::new(PublicEncryptingKey::from_der(&der).ok()?).ok()?;
    let mut room = vec![0; key.ciphertext_size()];
    key.encrypt(oaep_algorithm(hash), message, &mut room, None).ok().map(|text| text.to_vec())
}

/// A key wrapped by AES with 256 bits and padding (RFC 5649).
pub fn wrap_padded(key: &[u8; 32], plain: &[u8]) -> Option<Vec<u8>> {
    let mut room = vec![0; plain.len() + 16];
    let kek = AesKek::new(&key_wrap::AES_256, key).ok()?;
    kek.wrap_with_padding(plain, &mut room).ok().map(|blob| blob.to_vec())
}

/// A mode of AES.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cipher {
    /// GCM with a vector of 12 bytes.
    Gcm,
    /// CBC with padding.
    CbcPad,
    /// CTR with a counter of 128 bits.
    Ctr,
}

impl Cipher {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::Gcm, Self::CbcPad, Self::Ctr];

    /// Its word in the name of a check.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Gcm => "gcm",
            Self::CbcPad => "cbc-pad",
            Self::Ctr => "ctr",
        }
    }

    /// Its mechanism's number.
    pub const fn number(self) -> CK_MECHANISM_TYPE {
        match self {
            Self::Gcm => CKM_AES_GCM,
            Self::CbcPad => CKM_AES_CBC_PAD,
            Self::Ctr => CKM_AES_CTR,
        }
    }

    /// Its mechanism with an initialisation vector.
    pub fn mechanism(self, vector: &[u8; 16]) -> Mechanism {
        match self {
            Self::Gcm => Mechanism::gcm(short(vector), b"aad", 128),
            Self::CbcPad => Mechanism::bytes(CKM_AES_CBC_PAD, vector),
            Self::Ctr => Mechanism::ctr(128, *vector),
        }
    }
}

fn short(vector: &[u8; 16]) -> &[u8] {
    vector.first_chunk::<12>().map(<[u8; 12]>::as_slice).unwrap_or_default()
}

/// A ciphertext.
pub fn encrypt(cipher: Cipher, key: &[u8], vector: &[u8; 16], message: &[u8]) -> Option<Vec<u8>> {
    let mut text = message.to_vec();
    let block = if key.len() == 16 { &AES_128 } else { &AES_256 };
    let context = EncryptionContext::Iv128(FixedLength::from(*vector));
    match cipher {
        Cipher::Gcm => {
            let algorithm = if key.len() == 16 { &AES_128_GCM } else { &AES_256_GCM };
            let key = LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?);
            let nonce = Nonce::try_assume_unique_for_key(short(vector)).ok()?;
            key.seal_in_place_append_tag(nonce, Aad::from(b"aad"), &mut text).ok()?;
        }
        Cipher::CbcPad => {
            let key = PaddedBlockEncryptingKey::cbc_pkcs7(UnboundCipherKey::new(block, key).ok()?).ok()?;
            key.less_safe_encrypt(&mut text, context).ok()?;
        }
        Cipher::Ctr => {
            let key = EncryptingKey::ctr(UnboundCipherKey::new(block, key).ok()?).ok()?;
            key.less_safe_encrypt(&mut text, context).ok()?;
        }
    }
    Some(text)
}
