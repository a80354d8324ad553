//! Known answers: the vectors of Wycheproof, a check for each file and mechanism. Keys come as session objects; a token
//! that does not take the keys of a file, or not its mechanism, does not offer it.

use std::cell::RefCell;

use cryptoki_sys::*;

use crate::bench::{Bench, Stage};
use crate::check::{Check, Stop, Verdict, each};
use crate::checks::{vector_keys as keys, vector_runs as runs};
use crate::marks::Severity;
use crate::observations::Measured;
use crate::rv::Rv;
use crate::session::Session;
use crate::trace::hex_of;
use crate::vectors::{self, Expected, FailedVector, File, Group, Test};

/// How long a file may take at least, in seconds.
const PATIENCE: u64 = 120;

/// A vector in hand.
pub struct Case<'f> {
    /// Its group.
    pub group: &'f Group,
    /// The vector.
    pub test: &'f Test,
}

impl Case<'_> {
    /// Bytes of the vector.
    ///
    /// # Errors
    /// `Skipped`, if the file has none of this name.
    pub fn bytes(&self, name: &str) -> Result<Vec<u8>, Stop> {
        self.test.fields.bytes(name)
    }

    /// A number of the vector's group.
    ///
    /// # Errors
    /// `Skipped`, if the file has none of this name.
    pub fn shared(&self, name: &str) -> Result<u64, Stop> {
        self.group.fields.number(name)
    }
}

/// Two outputs.
pub struct Difference {
    /// The module's.
    pub seen: Vec<u8>,
    /// The vector's.
    pub published: Vec<u8>,
}

impl Difference {
    fn short(&self) -> String {
        let head: String = self.seen.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        format!("{} bytes, {head}…", self.seen.len())
    }
}

/// What came of a vector.
pub enum Answer {
    /// The module accepted it, with the right output.
    Right,
    /// The module accepted it, with another output.
    Wrong(Difference),
    /// The module refused it.
    Refused(Rv),
    /// The module decrypted to other bytes, which may be its way to refuse (implicit rejection).
    Other(Difference),
    /// The mechanism does not reach so far, and need not: a parameter or a length that tokens may decline.
    Beyond,
}

/// Which vectors share a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those of a group.
    Group,
    /// None.
    Test,
}

/// Brings in a key, whose handle it gives, or what refused it.
pub type Import = fn(&Session<'_>, &Case<'_>, &Job) -> Result<Result<CK_OBJECT_HANDLE, Rv>, Stop>;

/// Makes a vector's operation with a key.
pub type Act = fn(&Session<'_>, CK_OBJECT_HANDLE, &Case<'_>, &Job) -> Result<Answer, Stop>;

/// The vectors of a file for a mechanism.
#[derive(Clone, Copy)]
pub struct Job {
    /// The check's name behind `vectors.`.
    pub id: &'static str,
    /// The file.
    pub file: &'static str,
    /// The mechanism.
    pub mechanism: CK_MECHANISM_TYPE,
    /// What the token must advertise of it.
    pub flags: CK_FLAGS,
    /// How keys come.
    pub import: Import,
    /// What is done with them.
    pub act: Act,
    /// Which vectors share a key.
    pub scope: Scope,
    /// How bad it is to accept what must be refused.
    pub forgery: Severity,
}

macro_rules! jobs {
    ($( $( $id:literal $file:literal $mechanism:ident )+ => $flags:expr, $import:path, $act:path, $scope:ident, $forgery:ident; )*) => {
        const JOBS: &[Job] = &[ $( $( Job {
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

/// A check for each file and mechanism.
pub fn checks() -> Vec<Check> {
    JOBS.iter().map(check).collect()
}

fn check(job: &'static Job) -> Check {
    let title = format!("every vector of Wycheproof's {} comes out as published", job.file);
    let clause = format!("6, known answers (Wycheproof {})", job.file);
    Check::case(format!("vectors.{}", job.id), Stage::User, clause, title, move |bench| run(bench, job))
        .high()
        .patience(PATIENCE)
}

/// What refuses keys that a token need not have.
const NO_SUCH_KEYS: &[CK_RV] = &[
    CKR_CURVE_NOT_SUPPORTED,
    CKR_DOMAIN_PARAMS_INVALID,
    CKR_KEY_SIZE_RANGE,
    CKR_ATTRIBUTE_VALUE_INVALID,
    CKR_ATTRIBUTE_TYPE_INVALID,
    CKR_TEMPLATE_INCONSISTENT,
    CKR_TEMPLATE_INCOMPLETE,
    CKR_PARAMETER_SET_NOT_SUPPORTED,
    CKR_FUNCTION_NOT_SUPPORTED,
    CKR_ACTION_PROHIBITED,
];

/// The key of a group, once it came or was refused.
type Kept = Option<Result<CK_OBJECT_HANDLE, Rv>>;

/// The keys are published, and are told with the calls.
fn run(bench: &Bench, job: &'static Job) -> Verdict {
    bench.module.recorder().tell_keys(true);
    let verdict = try_all(bench, job);
    bench.module.recorder().tell_keys(false);
    verdict
}

fn try_all(bench: &Bench, job: &'static Job) -> Verdict {
    bench.offers(job.mechanism, job.flags)?;
    let file = vectors::load(job.file)?;
    let session = bench.session()?;
    takes_keys(&session, &file, job)?;
    let kept: RefCell<Kept> = RefCell::new(None);
    let (mut all, mut beyond, mut accepted) = (0, 0, false);
    let cases = file.groups.iter().flat_map(|group| {
        group.tests.iter().enumerate().map(move |(place, test)| (place, Case { group, test }))
    });
    let name = |(_, case): &(usize, Case<'_>)| {
        let flags = case.test.flags.join(" ");
        format!("tcId {} ({:?}: {} {flags})", case.test.number, case.test.result, case.test.comment)
    };
    let verdict = each(cases, name, |(place, case)| {
        bench.module.recorder().begin_vector();
        if *place == 0 {
            drop_key(&session, kept.borrow_mut().take());
        }
        let key = match (job.scope, *kept.borrow()) {
            (Scope::Group, Some(key)) => key,
            (Scope::Group | Scope::Test, _) => (job.import)(&session, case, job)?,
        };
        let answer = key.map_or_else(|rv| Ok(Answer::Refused(rv)), |key| (job.act)(&session, key, case, job));
        let verdict = answer.map(|answer| {
            accepted |= matches!(answer, Answer::Right);
            let verdict = judge(case.test, &answer, job);
            // Before the key is destroyed, so that the last of the calls is the vector's.
            keep_failure(bench, case, &answer, &verdict, job);
            verdict
        });
        match job.scope {
            Scope::Group => *kept.borrow_mut() = Some(key),
            Scope::Test => drop_key(&session, Some(key)),
        }
        let verdict = verdict?;
        all += 1;
        beyond += usize::from(verdict == Err(Stop::NotOffered));
        verdict
    });
    if accepted && beyond > 0 {
        bench.observe(&format!("vectors of {}", job.file), Measured::Vectors { all, beyond });
    }
    // Refusals alone show nothing, if all that should be accepted is beyond what the token offers.
    if accepted { verdict } else { verdict.and(Err(Stop::NotOffered)) }
}

/// Keeps a vector that failed, for the reports.
fn keep_failure(bench: &Bench, case: &Case<'_>, answer: &Answer, verdict: &Verdict, job: &Job) {
    let Err(Stop::Fail { expected, seen, .. }) = verdict else { return };
    let (expected, got) = match answer {
        Answer::Wrong(both) | Answer::Other(both) => (hex_of(&both.published), hex_of(&both.seen)),
        Answer::Right | Answer::Refused(_) | Answer::Beyond => (expected.clone(), seen.clone()),
    };
    let vector = FailedVector::new(job.file, case.group, case.test, expected, got);
    bench.module.recorder().keep_vector(vector);
}

fn drop_key(session: &Session<'_>, key: Kept) {
    if let Some(Ok(key)) = key {
        let _destroyed = session.destroy(key);
    }
}

/// Whether the token takes any key of the file.
fn takes_keys(session: &Session<'_>, file: &File, job: &Job) -> Verdict {
    let mut last = None;
    for group in &file.groups {
        let Some(test) = group.tests.iter().find(|test| test.result == Expected::Valid) else { continue };
        match (job.import)(session, &Case { group, test }, job)? {
            Ok(key) => {
                drop_key(session, Some(Ok(key)));
                return Ok(());
            }
            Err(rv) => last = Some(rv),
        }
    }
    match last {
        Some(rv) if NO_SUCH_KEYS.contains(&rv.code) => Err(Stop::NotOffered),
        Some(rv) => Err(Stop::Skipped(format!("the token takes no key of the file: {rv}"))),
        None => Err(Stop::NotOffered),
    }
}

/// What Wycheproof calls keys with small public exponents, which FIPS 186-5 has tokens refuse.
const SMALL_EXPONENT: &str = "SmallPublicKey";

/// A signature of ECDSA whose r and s are shorter than the order, which is one in PKCS#11: "for signatures passed to a
/// token for verification, the signature may have a shorter length" (6.3.1). Wycheproof follows IEEE P1363, where it is none.
fn is_short(test: &Test, job: &Job) -> bool {
    job.file.starts_with("ecdsa_") && test.flags.iter().any(|flag| flag == "SignatureSize")
}

fn judge(test: &Test, answer: &Answer, job: &Job) -> Verdict {
    let small = test.flags.iter().any(|flag| flag == SMALL_EXPONENT);
    match (test.result, answer) {
        (_, Answer::Beyond) => Err(Stop::NotOffered),
        (Expected::Valid | Expected::Acceptable, Answer::Right)
        | (Expected::Acceptable | Expected::Invalid, Answer::Refused(_))
        | (Expected::Invalid, Answer::Other(_)) => Ok(()),
        (Expected::Valid, Answer::Refused(rv)) if small || rv.was(CKR_KEY_SIZE_RANGE) => {
            Err(Stop::NotOffered)
        }
        (Expected::Valid, Answer::Refused(rv)) => {
            Err(Stop::graded(Severity::Medium, "the published answer", rv.to_string()))
        }
        (Expected::Valid | Expected::Acceptable, Answer::Wrong(both) | Answer::Other(both)) => {
            Err(Stop::graded(Severity::High, "the published answer", both.short()))
        }
        (Expected::Invalid, Answer::Right) if is_short(test, job) => Ok(()),
        (Expected::Invalid, Answer::Right) => {
            Err(Stop::graded(job.forgery, "a refusal", "it is accepted".to_owned()))
        }
        (Expected::Invalid, Answer::Wrong(both)) => Err(Stop::graded(job.forgery, "a refusal", both.short())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(job: &str, result: &str, flag: &str, answer: Answer) -> Option<Verdict> {
        let job = JOBS.iter().find(|one| one.id == job)?;
        let test = serde_json::json!({ "tcId": 1, "result": result, "flags": [flag] });
        Some(judge(&serde_json::from_value(test).ok()?, &answer, job))
    }

    #[test]
    fn what_is_beyond_is_neither_passed_nor_failed() {
        for result in ["valid", "acceptable", "invalid"] {
            assert_eq!(judged("aes-gcm", result, "", Answer::Beyond), Some(Err(Stop::NotOffered)));
        }
    }

    #[test]
    fn a_short_signature_is_one_for_ecdsa_only() {
        let accepted = |job, flag| judged(job, "invalid", flag, Answer::Right).map(|verdict| verdict.is_ok());
        assert_eq!(accepted("ecdsa-p256-sha256", "SignatureSize"), Some(true));
        assert_eq!(accepted("ecdsa-p256-sha256", "ModifiedSignature"), Some(false));
        assert_eq!(accepted("dsa-2048-sha256", "SignatureSize"), Some(false));
    }

    #[test]
    fn other_bytes_hide_a_refusal_and_are_no_answer() {
        let passes = |result| {
            judged(
                "rsa-pkcs-decrypt-2048",
                result,
                "",
                Answer::Other(Difference { seen: vec![], published: vec![1] }),
            )
            .map(|seen| seen.is_ok())
        };
        assert_eq!((passes("invalid"), passes("valid")), (Some(true), Some(false)));
    }
}
