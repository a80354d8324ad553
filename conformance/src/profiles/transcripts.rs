//! The mandatory test cases of PKCS#11 Profiles 3.2, written from what they require: the calls, in order, and what
//! may not vary in the answers.
//!
//! What may vary (Profiles 3.2, Conformance Test Cases): texts, versions, numbers of slots, sessions and objects, keys
//! and signatures, the length and order of lists. Slots and handles are bound when they are answered.

use cryptoki_sys::*;

/// A test case.
pub struct Transcript {
    /// Its name in the standard.
    pub name: &'static str,
    /// Its calls.
    pub steps: &'static [Step],
}

/// A call, and what it must answer beside `CKR_OK`.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// `C_Initialize`.
    Initialize,
    /// `C_GetInfo`: a version of the standard, no flags.
    Info,
    /// `C_GetSlotList` for the count and for the list, which has the token's slot.
    SlotList,
    /// `C_GetSlotInfo`: a token is present.
    SlotInfo,
    /// `C_GetTokenInfo`: the token is initialised.
    TokenInfo,
    /// `C_GetMechanismList` for the count and for the list.
    MechanismList,
    /// `C_GetMechanismInfo` of each mechanism.
    MechanismInfo,
    /// `C_OpenSession` with these flags.
    OpenSession(CK_FLAGS),
    /// `C_GetSessionInfo`: this state, and the slot and flags that were asked for.
    SessionInfo(CK_STATE),
    /// `C_Login` as the user.
    Login,
    /// Puts the key pair of the case into the session, if the token does not have it.
    KeyPair,
    /// A search for objects of a class, with a label if there is one; the last one found is bound.
    Find(CK_OBJECT_CLASS, Option<&'static [u8]>),
    /// `C_GetAttributeValue` of the bound object: the length, then the value, of each of these.
    Attributes(&'static [CK_ATTRIBUTE_TYPE]),
    /// `C_SignInit` with the bound object, then `C_Sign` for the length and for the signature.
    Sign(CK_MECHANISM_TYPE),
    /// `C_Logout`.
    Logout,
    /// `C_CloseSession`.
    CloseSession,
    /// `C_Finalize`.
    Finalize,
}
use Step::*;

/// The profiles that the token claims are read.
pub const BL_M_1: Transcript = Transcript {
    name: "BL-M-1-32",
    steps: &[
        Initialize,
        Info,
        SlotList,
        SlotInfo,
        TokenInfo,
        OpenSession(CKF_SERIAL_SESSION),
        SessionInfo(CKS_RO_PUBLIC_SESSION),
        Find(CKO_PROFILE, None),
        Attributes(&[CKA_CLASS, CKA_PROFILE_ID]),
        CloseSession,
        Finalize,
    ],
};

/// The mechanisms are read, and the user logs in and out.
pub const EXT_M_1: Transcript = Transcript {
    name: "EXT-M-1-32",
    steps: &[
        Initialize,
        Info,
        SlotList,
        SlotInfo,
        TokenInfo,
        MechanismList,
        MechanismInfo,
        OpenSession(CKF_SERIAL_SESSION),
        SessionInfo(CKS_RO_PUBLIC_SESSION),
        Login,
        SessionInfo(CKS_RO_USER_FUNCTIONS),
        Find(CKO_PROFILE, None),
        Attributes(&[CKA_CLASS, CKA_PROFILE_ID]),
        Logout,
        CloseSession,
        Finalize,
    ],
};

/// The label of the public key of AUTH-M-1-32.
pub const PUBLIC_KEY: &[u8] = b"testrsa-pub";
/// The label of its private key.
pub const PRIVATE_KEY: &[u8] = b"testrsa-pri";

/// A logged-in user signs with the private key and reads the public key.
pub const AUTH_M_1: Transcript = Transcript {
    name: "AUTH-M-1-32",
    steps: &[
        Initialize,
        SlotList,
        OpenSession(CKF_SERIAL_SESSION | CKF_RW_SESSION),
        Login,
        SessionInfo(CKS_RW_USER_FUNCTIONS),
        KeyPair,
        Find(CKO_PUBLIC_KEY, Some(PUBLIC_KEY)),
        Attributes(&[CKA_CLASS, CKA_KEY_TYPE, CKA_MODULUS, CKA_PUBLIC_EXPONENT]),
        Find(CKO_PRIVATE_KEY, Some(PRIVATE_KEY)),
        Attributes(&[CKA_CLASS, CKA_KEY_TYPE, CKA_MODULUS]),
        Sign(CKM_SHA256_RSA_PKCS),
        Logout,
        CloseSession,
        Finalize,
    ],
};

/// A certificate is read, and nobody is logged in.
pub const CERT_M_1: Transcript = Transcript {
    name: "CERT-M-1-32",
    steps: &[
        Initialize,
        Info,
        SlotList,
        SlotInfo,
        TokenInfo,
        OpenSession(CKF_SERIAL_SESSION),
        SessionInfo(CKS_RO_PUBLIC_SESSION),
        Find(CKO_CERTIFICATE, None),
        Attributes(&[CKA_CLASS, CKA_CERTIFICATE_TYPE, CKA_LABEL, CKA_VALUE]),
        CloseSession,
        Finalize,
    ],
};
