//! What the standard says of each mechanism, as data: the keys it works with, the shape of its parameter, what it may
//! be used for. `checks/mechanisms.rs` makes the checks of it.

pub mod curves;
pub mod keys;
pub mod parameters;
mod table;

use cryptoki_sys::*;

use crate::raw::Function as F;

pub use table::ROWS;

/// What a mechanism is used for: an operation of chapter 5 with a flag of `CK_MECHANISM_INFO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// `C_EncryptInit`.
    Encrypt,
    /// `C_DecryptInit`.
    Decrypt,
    /// `C_SignInit`.
    Sign,
    /// `C_VerifyInit`.
    Verify,
    /// `C_SignRecoverInit`.
    SignRecover,
    /// `C_VerifyRecoverInit`.
    VerifyRecover,
    /// `C_DigestInit`.
    Digest,
    /// `C_GenerateKey`.
    Generate,
    /// `C_GenerateKeyPair`.
    GeneratePair,
    /// `C_WrapKey`.
    Wrap,
    /// `C_UnwrapKey`.
    Unwrap,
    /// `C_DeriveKey`.
    Derive,
    /// `C_EncapsulateKey`.
    Encapsulate,
    /// `C_DecapsulateKey`.
    Decapsulate,
}

/// Which half of a key pair an operation takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// The public key.
    Public,
    /// The private key.
    Private,
}

/// The keys of a mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// None: it digests.
    NoKey,
    /// `CKK_RSA`.
    Rsa,
    /// `CKK_DSA`.
    Dsa,
    /// `CKK_DH`.
    Dh,
    /// `CKK_X9_42_DH`.
    X942,
    /// `CKK_EC`.
    Ec,
    /// `CKK_EC_EDWARDS`.
    Edwards,
    /// `CKK_EC_MONTGOMERY`.
    Montgomery,
    /// `CKK_ML_KEM`.
    MlKem,
    /// `CKK_ML_DSA`.
    MlDsa,
    /// `CKK_SLH_DSA`.
    SlhDsa,
    /// `CKK_HSS`.
    Hss,
    /// `CKK_XMSS` and `CKK_XMSSMT`.
    Xmss,
    /// A secret key of this type and of so many bytes; of 0, if its length is never said.
    Secret(CK_KEY_TYPE, usize),
    /// Keys that the suite does not make.
    Other,
}

/// The parameter of a mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// None.
    None,
    /// Bytes, or none.
    Optional,
    /// So many bytes, such as an initialisation vector.
    Bytes(usize),
    /// A `CK_ULONG`.
    Number(CK_ULONG),
    /// `CK_RSA_PKCS_PSS_PARAMS`: a hash, its mask generation function and its length.
    Pss(CK_MECHANISM_TYPE, CK_ULONG, CK_ULONG),
    /// `CK_RSA_PKCS_OAEP_PARAMS`.
    Oaep,
    /// `CK_RSA_AES_KEY_WRAP_PARAMS`.
    RsaAesWrap,
    /// `CK_EDDSA_PARAMS`, or none.
    Eddsa,
    /// `CK_SIGN_ADDITIONAL_CONTEXT`, or none.
    Context,
    /// `CK_HASH_SIGN_ADDITIONAL_CONTEXT`.
    HashContext,
    /// `CK_ECDH1_DERIVE_PARAMS`.
    Ecdh,
    /// `CK_ECDH_AES_KEY_WRAP_PARAMS`.
    EcdhAesWrap,
    /// The other side's public value.
    DhPublic,
    /// `CK_GCM_PARAMS`.
    Gcm,
    /// An initialisation vector of 12 bytes.
    Gmac,
    /// `CK_CCM_PARAMS`.
    Ccm,
    /// `CK_AES_CTR_PARAMS`.
    Ctr,
    /// `CK_CHACHA20_PARAMS`.
    ChaCha20,
    /// `CK_SALSA20_PARAMS`.
    Salsa20,
    /// `CK_SALSA20_CHACHA20_POLY1305_PARAMS`.
    Poly1305,
    /// `CK_HKDF_PARAMS`.
    Hkdf,
    /// `CK_KEY_DERIVATION_STRING_DATA`.
    StringData,
    /// `CK_AES_CBC_ENCRYPT_DATA_PARAMS` and its like, with an initialisation vector of so many bytes.
    CbcData(usize),
    /// The handle of another key.
    KeyHandle,
    /// `CK_PKCS5_PBKD2_PARAMS2`.
    Pbkd2,
    /// `CK_PBE_PARAMS`.
    Pbe,
    /// A structure of so many words that the suite does not fill in.
    Opaque(usize),
}

/// What the standard says of a mechanism.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its number.
    pub number: CK_MECHANISM_TYPE,
    /// `CKM_`.
    pub name: &'static str,
    /// Its keys.
    pub keys: Keys,
    /// Its parameter.
    pub shape: Shape,
    /// What it may be used for.
    pub uses: &'static [Use],
}

impl Use {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::Encrypt,
        Self::Decrypt,
        Self::Sign,
        Self::Verify,
        Self::SignRecover,
        Self::VerifyRecover,
        Self::Digest,
        Self::Generate,
        Self::GeneratePair,
        Self::Wrap,
        Self::Unwrap,
        Self::Derive,
        Self::Encapsulate,
        Self::Decapsulate,
    ];

    /// `CKF_`.
    pub const fn flag(self) -> CK_FLAGS {
        match self {
            Self::Encrypt => CKF_ENCRYPT,
            Self::Decrypt => CKF_DECRYPT,
            Self::Sign => CKF_SIGN,
            Self::Verify => CKF_VERIFY,
            Self::SignRecover => CKF_SIGN_RECOVER,
            Self::VerifyRecover => CKF_VERIFY_RECOVER,
            Self::Digest => CKF_DIGEST,
            Self::Generate => CKF_GENERATE,
            Self::GeneratePair => CKF_GENERATE_KEY_PAIR,
            Self::Wrap => CKF_WRAP,
            Self::Unwrap => CKF_UNWRAP,
            Self::Derive => CKF_DERIVE,
            Self::Encapsulate => CKF_ENCAPSULATE,
            Self::Decapsulate => CKF_DECAPSULATE,
        }
    }

    /// Its word in the name of a check.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Encrypt => "encrypt",
            Self::Decrypt => "decrypt",
            Self::Sign => "sign",
            Self::Verify => "verify",
            Self::SignRecover => "sign-recover",
            Self::VerifyRecover => "verify-recover",
            Self::Digest => "digest",
            Self::Generate => "generate",
            Self::GeneratePair => "generate-pair",
            Self::Wrap => "wrap",
            Self::Unwrap => "unwrap",
            Self::Derive => "derive",
            Self::Encapsulate => "encapsulate",
            Self::Decapsulate => "decapsulate",
        }
    }

    /// The function that takes the mechanism.
    pub const fn function(self) -> F {
        match self {
            Self::Encrypt => F::C_EncryptInit,
            Self::Decrypt => F::C_DecryptInit,
            Self::Sign => F::C_SignInit,
            Self::Verify => F::C_VerifyInit,
            Self::SignRecover => F::C_SignRecoverInit,
            Self::VerifyRecover => F::C_VerifyRecoverInit,
            Self::Digest => F::C_DigestInit,
            Self::Generate => F::C_GenerateKey,
            Self::GeneratePair => F::C_GenerateKeyPair,
            Self::Wrap => F::C_WrapKey,
            Self::Unwrap => F::C_UnwrapKey,
            Self::Derive => F::C_DeriveKey,
            Self::Encapsulate => F::C_EncapsulateKey,
            Self::Decapsulate => F::C_DecapsulateKey,
        }
    }

    /// The key that it takes and the attribute that allows it, if it takes one.
    pub const fn key(self) -> Option<(Half, CK_ATTRIBUTE_TYPE)> {
        match self {
            Self::Encrypt => Some((Half::Public, CKA_ENCRYPT)),
            Self::Decrypt => Some((Half::Private, CKA_DECRYPT)),
            Self::Sign => Some((Half::Private, CKA_SIGN)),
            Self::Verify => Some((Half::Public, CKA_VERIFY)),
            Self::SignRecover => Some((Half::Private, CKA_SIGN_RECOVER)),
            Self::VerifyRecover => Some((Half::Public, CKA_VERIFY_RECOVER)),
            Self::Digest | Self::Generate | Self::GeneratePair => None,
            Self::Wrap => Some((Half::Public, CKA_WRAP)),
            Self::Unwrap => Some((Half::Private, CKA_UNWRAP)),
            Self::Derive => Some((Half::Private, CKA_DERIVE)),
            Self::Encapsulate => Some((Half::Public, CKA_ENCAPSULATE)),
            Self::Decapsulate => Some((Half::Private, CKA_DECAPSULATE)),
        }
    }
}

impl Row {
    /// The name in the ids of its checks: `aes-gcm`.
    pub fn id(&self) -> String {
        self.name.trim_start_matches("CKM_").to_ascii_lowercase().replace('_', "-")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_mechanism_has_one_row() {
        let numbers: BTreeSet<_> = ROWS.iter().map(|row| row.number).collect();
        assert_eq!(numbers.len(), ROWS.len());
        assert!(ROWS.len() > 460, "{} rows", ROWS.len());
        assert!(ROWS.iter().all(|row| row.name.starts_with("CKM_") && !row.uses.is_empty()));
    }

    #[test]
    fn what_has_no_key_digests() {
        for row in ROWS.iter().filter(|row| row.keys == Keys::NoKey) {
            assert_eq!(row.uses, [Use::Digest], "{}", row.name);
        }
    }
}
