//! The files of vectors and the mechanisms that they are for.

use cryptoki_sys::*;

use crate::checks::vectors::{Job, Scope};
use crate::checks::{vector_keys as keys, vector_runs as runs};
use crate::marks::Severity;

macro_rules! jobs {
    ($( $( $id:literal $file:literal $mechanism:ident )+ => $flags:expr, $import:path, $act:path, $scope:ident, $forgery:ident; )*) => {
        /// Every file, with each mechanism that it is for.
        pub const JOBS: &[Job] = &[ $( $( Job {
            id: $id,
            file: $file,
            mechanism: $mechanism,
            flags: $flags,
            import: $import,
            act: $act,
            scope: Scope::$scope,
            forgery: Severity::$forgery,
        }, )+ )* ];
    };
}

const CRYPT: CK_FLAGS = CKF_ENCRYPT | CKF_DECRYPT;
const WRAPS: CK_FLAGS = CKF_WRAP | CKF_UNWRAP;

jobs! {
    "ecdsa-p192-sha256" "ecdsa_secp192r1_sha256_p1363" CKM_ECDSA_SHA256
    "ecdsa-p224-sha224" "ecdsa_secp224r1_sha224_p1363" CKM_ECDSA_SHA224
    "ecdsa-p224-sha256" "ecdsa_secp224r1_sha256_p1363" CKM_ECDSA_SHA256
    "ecdsa-p224-sha512" "ecdsa_secp224r1_sha512_p1363" CKM_ECDSA_SHA512
    "ecdsa-p256-sha256" "ecdsa_secp256r1_sha256_p1363" CKM_ECDSA_SHA256
    "ecdsa-p256-sha512" "ecdsa_secp256r1_sha512_p1363" CKM_ECDSA_SHA512
    "ecdsa-p384-sha384" "ecdsa_secp384r1_sha384_p1363" CKM_ECDSA_SHA384
    "ecdsa-p384-sha512" "ecdsa_secp384r1_sha512_p1363" CKM_ECDSA_SHA512
    "ecdsa-p521-sha512" "ecdsa_secp521r1_sha512_p1363" CKM_ECDSA_SHA512
    "ecdsa-secp256k1-sha256" "ecdsa_secp256k1_sha256_p1363" CKM_ECDSA_SHA256
    "ecdsa-secp256k1-sha512" "ecdsa_secp256k1_sha512_p1363" CKM_ECDSA_SHA512
    "ecdsa-brainpool224-sha224" "ecdsa_brainpoolP224r1_sha224_p1363" CKM_ECDSA_SHA224
    "ecdsa-brainpool256-sha256" "ecdsa_brainpoolP256r1_sha256_p1363" CKM_ECDSA_SHA256
    "ecdsa-brainpool320-sha384" "ecdsa_brainpoolP320r1_sha384_p1363" CKM_ECDSA_SHA384
    "ecdsa-brainpool384-sha384" "ecdsa_brainpoolP384r1_sha384_p1363" CKM_ECDSA_SHA384
    "ecdsa-brainpool512-sha512" "ecdsa_brainpoolP512r1_sha512_p1363" CKM_ECDSA_SHA512
        => CKF_VERIFY, keys::ec_public, runs::verify_message, Group, Critical;
    "ecdsa-p192-sha256-digest" "ecdsa_secp192r1_sha256_p1363" CKM_ECDSA
    "ecdsa-p224-sha224-digest" "ecdsa_secp224r1_sha224_p1363" CKM_ECDSA
    "ecdsa-p224-sha256-digest" "ecdsa_secp224r1_sha256_p1363" CKM_ECDSA
    "ecdsa-p224-sha512-digest" "ecdsa_secp224r1_sha512_p1363" CKM_ECDSA
    "ecdsa-p256-sha256-digest" "ecdsa_secp256r1_sha256_p1363" CKM_ECDSA
    "ecdsa-p256-sha512-digest" "ecdsa_secp256r1_sha512_p1363" CKM_ECDSA
    "ecdsa-p384-sha384-digest" "ecdsa_secp384r1_sha384_p1363" CKM_ECDSA
    "ecdsa-p384-sha512-digest" "ecdsa_secp384r1_sha512_p1363" CKM_ECDSA
    "ecdsa-p521-sha512-digest" "ecdsa_secp521r1_sha512_p1363" CKM_ECDSA
    "ecdsa-secp256k1-sha256-digest" "ecdsa_secp256k1_sha256_p1363" CKM_ECDSA
    "ecdsa-secp256k1-sha512-digest" "ecdsa_secp256k1_sha512_p1363" CKM_ECDSA
    "ecdsa-brainpool224-sha224-digest" "ecdsa_brainpoolP224r1_sha224_p1363" CKM_ECDSA
    "ecdsa-brainpool256-sha256-digest" "ecdsa_brainpoolP256r1_sha256_p1363" CKM_ECDSA
    "ecdsa-brainpool320-sha384-digest" "ecdsa_brainpoolP320r1_sha384_p1363" CKM_ECDSA
    "ecdsa-brainpool384-sha384-digest" "ecdsa_brainpoolP384r1_sha384_p1363" CKM_ECDSA
    "ecdsa-brainpool512-sha512-digest" "ecdsa_brainpoolP512r1_sha512_p1363" CKM_ECDSA
        => CKF_VERIFY, keys::ec_public, runs::verify_digest, Group, Critical;
    "ed25519" "ed25519" CKM_EDDSA
        => CKF_VERIFY, keys::edwards_public, runs::verify_message, Group, Critical;
    "ed448" "ed448" CKM_EDDSA
        => CKF_VERIFY, keys::edwards_public, runs::verify_ed448, Group, Critical;
    "dsa-2048-sha256" "dsa_2048_256_sha256_p1363" CKM_DSA_SHA256
        => CKF_VERIFY, keys::dsa_public, runs::verify_message, Group, Critical;
    "dsa-2048-sha256-digest" "dsa_2048_256_sha256_p1363" CKM_DSA
        => CKF_VERIFY, keys::dsa_public, runs::verify_digest, Group, Critical;
    "rsa-2048-sha224" "rsa_signature_2048_sha224" CKM_SHA224_RSA_PKCS
    "rsa-2048-sha256" "rsa_signature_2048_sha256" CKM_SHA256_RSA_PKCS
    "rsa-2048-sha384" "rsa_signature_2048_sha384" CKM_SHA384_RSA_PKCS
    "rsa-2048-sha512" "rsa_signature_2048_sha512" CKM_SHA512_RSA_PKCS
    "rsa-2048-sha3-256" "rsa_signature_2048_sha3_256" CKM_SHA3_256_RSA_PKCS
    "rsa-2048-sha3-384" "rsa_signature_2048_sha3_384" CKM_SHA3_384_RSA_PKCS
    "rsa-2048-sha3-512" "rsa_signature_2048_sha3_512" CKM_SHA3_512_RSA_PKCS
    "rsa-3072-sha256" "rsa_signature_3072_sha256" CKM_SHA256_RSA_PKCS
    "rsa-3072-sha384" "rsa_signature_3072_sha384" CKM_SHA384_RSA_PKCS
    "rsa-3072-sha512" "rsa_signature_3072_sha512" CKM_SHA512_RSA_PKCS
    "rsa-3072-sha3-256" "rsa_signature_3072_sha3_256" CKM_SHA3_256_RSA_PKCS
    "rsa-3072-sha3-512" "rsa_signature_3072_sha3_512" CKM_SHA3_512_RSA_PKCS
    "rsa-4096-sha256" "rsa_signature_4096_sha256" CKM_SHA256_RSA_PKCS
    "rsa-4096-sha384" "rsa_signature_4096_sha384" CKM_SHA384_RSA_PKCS
    "rsa-4096-sha512" "rsa_signature_4096_sha512" CKM_SHA512_RSA_PKCS
        => CKF_VERIFY, keys::rsa_public, runs::verify_message, Group, Critical;
    "rsa-2048-sha256-digest" "rsa_signature_2048_sha256" CKM_RSA_PKCS
    "rsa-2048-sha384-digest" "rsa_signature_2048_sha384" CKM_RSA_PKCS
    "rsa-2048-sha512-digest" "rsa_signature_2048_sha512" CKM_RSA_PKCS
    "rsa-3072-sha256-digest" "rsa_signature_3072_sha256" CKM_RSA_PKCS
    "rsa-3072-sha384-digest" "rsa_signature_3072_sha384" CKM_RSA_PKCS
    "rsa-3072-sha512-digest" "rsa_signature_3072_sha512" CKM_RSA_PKCS
    "rsa-4096-sha256-digest" "rsa_signature_4096_sha256" CKM_RSA_PKCS
    "rsa-4096-sha384-digest" "rsa_signature_4096_sha384" CKM_RSA_PKCS
    "rsa-4096-sha512-digest" "rsa_signature_4096_sha512" CKM_RSA_PKCS
        => CKF_VERIFY, keys::rsa_public, runs::verify_digest_info, Group, Critical;
    "pss-2048-sha1-20" "rsa_pss_2048_sha1_mgf1_20" CKM_SHA1_RSA_PKCS_PSS
    "pss-2048-sha256-0" "rsa_pss_2048_sha256_mgf1_0" CKM_SHA256_RSA_PKCS_PSS
    "pss-2048-sha256-32" "rsa_pss_2048_sha256_mgf1_32" CKM_SHA256_RSA_PKCS_PSS
    "pss-2048-sha256-mgf-sha1" "rsa_pss_2048_sha256_mgf1sha1_20" CKM_SHA256_RSA_PKCS_PSS
    "pss-2048-sha384-48" "rsa_pss_2048_sha384_mgf1_48" CKM_SHA384_RSA_PKCS_PSS
    "pss-3072-sha256-32" "rsa_pss_3072_sha256_mgf1_32" CKM_SHA256_RSA_PKCS_PSS
    "pss-4096-sha256-32" "rsa_pss_4096_sha256_mgf1_32" CKM_SHA256_RSA_PKCS_PSS
    "pss-4096-sha384-48" "rsa_pss_4096_sha384_mgf1_48" CKM_SHA384_RSA_PKCS_PSS
    "pss-4096-sha512-32" "rsa_pss_4096_sha512_mgf1_32" CKM_SHA512_RSA_PKCS_PSS
    "pss-4096-sha512-64" "rsa_pss_4096_sha512_mgf1_64" CKM_SHA512_RSA_PKCS_PSS
        => CKF_VERIFY, keys::rsa_public, runs::verify_pss, Group, Critical;
    "oaep-2048-sha1" "rsa_oaep_2048_sha1_mgf1sha1" CKM_RSA_PKCS_OAEP
    "oaep-2048-sha256" "rsa_oaep_2048_sha256_mgf1sha256" CKM_RSA_PKCS_OAEP
    "oaep-2048-sha256-mgf-sha1" "rsa_oaep_2048_sha256_mgf1sha1" CKM_RSA_PKCS_OAEP
    "oaep-2048-sha384" "rsa_oaep_2048_sha384_mgf1sha384" CKM_RSA_PKCS_OAEP
    "oaep-2048-sha512" "rsa_oaep_2048_sha512_mgf1sha512" CKM_RSA_PKCS_OAEP
    "oaep-3072-sha256" "rsa_oaep_3072_sha256_mgf1sha256" CKM_RSA_PKCS_OAEP
    "oaep-4096-sha256" "rsa_oaep_4096_sha256_mgf1sha256" CKM_RSA_PKCS_OAEP
    "oaep-4096-sha512" "rsa_oaep_4096_sha512_mgf1sha512" CKM_RSA_PKCS_OAEP
        => CKF_DECRYPT, keys::rsa_private, runs::oaep, Group, High;
    "rsa-pkcs-decrypt-2048" "rsa_pkcs1_2048" CKM_RSA_PKCS
    "rsa-pkcs-decrypt-3072" "rsa_pkcs1_3072" CKM_RSA_PKCS
    "rsa-pkcs-decrypt-4096" "rsa_pkcs1_4096" CKM_RSA_PKCS
        => CKF_DECRYPT, keys::rsa_private, runs::rsa_decrypt, Group, High;
    "aes-gcm" "aes_gcm" CKM_AES_GCM
        => CRYPT, keys::aes, runs::gcm, Test, Critical;
    "aes-ccm" "aes_ccm" CKM_AES_CCM
        => CRYPT, keys::aes, runs::ccm, Test, Critical;
    "chacha20-poly1305" "chacha20_poly1305" CKM_CHACHA20_POLY1305
        => CRYPT, keys::chacha, runs::chacha, Test, Critical;
    "aes-cbc-pad" "aes_cbc_pkcs5" CKM_AES_CBC_PAD
        => CRYPT, keys::aes, runs::cbc_pad, Test, High;
    "camellia-cbc-pad" "camellia_cbc_pkcs5" CKM_CAMELLIA_CBC_PAD
        => CRYPT, keys::camellia, runs::cbc_pad, Test, High;
    "aria-cbc-pad" "aria_cbc_pkcs5" CKM_ARIA_CBC_PAD
        => CRYPT, keys::aria, runs::cbc_pad, Test, High;
    "aes-xts" "aes_xts" CKM_AES_XTS
        => CRYPT, keys::aes_xts, runs::xts, Test, High;
    "aes-key-wrap" "aes_wrap" CKM_AES_KEY_WRAP
    "aes-key-wrap-kwp" "aes_kwp" CKM_AES_KEY_WRAP_KWP
        => WRAPS, keys::aes_wrapping, runs::wrap, Test, Critical;
    "aes-cmac" "aes_cmac" CKM_AES_CMAC
        => CKF_SIGN | CKF_VERIFY, keys::aes_mac, runs::mac, Test, Critical;
    "aes-cmac-general" "aes_cmac" CKM_AES_CMAC_GENERAL
        => CKF_SIGN | CKF_VERIFY, keys::aes_mac, runs::mac_general, Test, Critical;
    "aes-gmac" "aes_gmac" CKM_AES_GMAC
        => CKF_SIGN | CKF_VERIFY, keys::aes_mac, runs::gmac, Test, Critical;
    "hmac-sha1" "hmac_sha1" CKM_SHA_1_HMAC
    "hmac-sha224" "hmac_sha224" CKM_SHA224_HMAC
    "hmac-sha256" "hmac_sha256" CKM_SHA256_HMAC
    "hmac-sha384" "hmac_sha384" CKM_SHA384_HMAC
    "hmac-sha512" "hmac_sha512" CKM_SHA512_HMAC
    "hmac-sha512-224" "hmac_sha512_224" CKM_SHA512_224_HMAC
    "hmac-sha512-256" "hmac_sha512_256" CKM_SHA512_256_HMAC
    "hmac-sha3-224" "hmac_sha3_224" CKM_SHA3_224_HMAC
    "hmac-sha3-256" "hmac_sha3_256" CKM_SHA3_256_HMAC
    "hmac-sha3-384" "hmac_sha3_384" CKM_SHA3_384_HMAC
    "hmac-sha3-512" "hmac_sha3_512" CKM_SHA3_512_HMAC
        => CKF_SIGN | CKF_VERIFY, keys::generic_mac, runs::mac, Test, Critical;
    "hmac-sha1-general" "hmac_sha1" CKM_SHA_1_HMAC_GENERAL
    "hmac-sha224-general" "hmac_sha224" CKM_SHA224_HMAC_GENERAL
    "hmac-sha256-general" "hmac_sha256" CKM_SHA256_HMAC_GENERAL
    "hmac-sha384-general" "hmac_sha384" CKM_SHA384_HMAC_GENERAL
    "hmac-sha512-general" "hmac_sha512" CKM_SHA512_HMAC_GENERAL
    "hmac-sha3-224-general" "hmac_sha3_224" CKM_SHA3_224_HMAC_GENERAL
    "hmac-sha3-256-general" "hmac_sha3_256" CKM_SHA3_256_HMAC_GENERAL
    "hmac-sha3-384-general" "hmac_sha3_384" CKM_SHA3_384_HMAC_GENERAL
    "hmac-sha3-512-general" "hmac_sha3_512" CKM_SHA3_512_HMAC_GENERAL
        => CKF_SIGN | CKF_VERIFY, keys::generic_mac, runs::mac_general, Test, Critical;
    "hkdf-sha1" "hkdf_sha1" CKM_HKDF_DERIVE
    "hkdf-sha256" "hkdf_sha256" CKM_HKDF_DERIVE
    "hkdf-sha384" "hkdf_sha384" CKM_HKDF_DERIVE
    "hkdf-sha512" "hkdf_sha512" CKM_HKDF_DERIVE
        => CKF_DERIVE, keys::hkdf, runs::hkdf, Test, High;
    "pbkdf2-sha1" "pbkdf2_hmacsha1" CKM_PKCS5_PBKD2
    "pbkdf2-sha256" "pbkdf2_hmacsha256" CKM_PKCS5_PBKD2
    "pbkdf2-sha512" "pbkdf2_hmacsha512" CKM_PKCS5_PBKD2
        => CKF_GENERATE, keys::none, runs::pbkdf2, Test, High;
    "ecdh-p224" "ecdh_secp224r1_ecpoint" CKM_ECDH1_DERIVE
    "ecdh-p256" "ecdh_secp256r1_ecpoint" CKM_ECDH1_DERIVE
    "ecdh-p384" "ecdh_secp384r1_ecpoint" CKM_ECDH1_DERIVE
    "ecdh-p521" "ecdh_secp521r1_ecpoint" CKM_ECDH1_DERIVE
    "ecdh-secp256k1" "ecdh_secp256k1" CKM_ECDH1_DERIVE
    "ecdh-brainpool256" "ecdh_brainpoolP256r1" CKM_ECDH1_DERIVE
    "ecdh-brainpool384" "ecdh_brainpoolP384r1" CKM_ECDH1_DERIVE
        => CKF_DERIVE, keys::ec_private, runs::ecdh, Test, Critical;
    "x25519" "x25519" CKM_ECDH1_DERIVE
    "x448" "x448" CKM_ECDH1_DERIVE
        => CKF_DERIVE, keys::montgomery_private, runs::ecdh, Test, Critical;
    "ml-dsa-44-verify" "mldsa_44_verify" CKM_ML_DSA
    "ml-dsa-65-verify" "mldsa_65_verify" CKM_ML_DSA
    "ml-dsa-87-verify" "mldsa_87_verify" CKM_ML_DSA
        => CKF_VERIFY, keys::ml_dsa_public, runs::ml_dsa_verify, Group, Critical;
    "ml-dsa-44-sign" "mldsa_44_sign_seed" CKM_ML_DSA
    "ml-dsa-65-sign" "mldsa_65_sign_seed" CKM_ML_DSA
    "ml-dsa-87-sign" "mldsa_87_sign_seed" CKM_ML_DSA
        => CKF_SIGN, keys::ml_dsa_private, runs::ml_dsa_sign, Group, High;
    "ml-kem-512" "mlkem_512" CKM_ML_KEM
    "ml-kem-768" "mlkem_768" CKM_ML_KEM
    "ml-kem-1024" "mlkem_1024" CKM_ML_KEM
        => CKF_DECAPSULATE, keys::ml_kem_private, runs::ml_kem, Test, High;
}
