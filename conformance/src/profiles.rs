//! The provider profiles of PKCS#11 Profiles 3.2 as data: what each asks for, and what of it was seen.
//!
//! Every requirement is a check of its own (`checks/profiles.rs`), which fails only on a token that claims the
//! profile with an object (`CKO_PROFILE`); on another token a requirement that is not met is `NotOffered`.

pub mod transcripts;

use std::fmt;

use cryptoki_sys::*;
use serde::{Deserialize, Serialize};

use crate::check::{Check, Outcome};
use crate::profiles::transcripts::{AUTH_M_1, BL_M_1, CERT_M_1, EXT_M_1, Transcript};
use crate::raw::Function::{self, *};
use crate::report::{Row, counted};

/// Something that a profile asks for.
#[derive(Clone, Copy)]
pub enum Requirement {
    /// A function that does not answer `CKR_FUNCTION_NOT_SUPPORTED`.
    Function(Function),
    /// An object that says that the token has the profile.
    ProfileObject,
    /// Objects of a class.
    Class(&'static str, CK_OBJECT_CLASS),
    /// An attribute that objects have.
    Attribute(&'static str, CK_ATTRIBUTE_TYPE),
    /// A mechanism for a use.
    Mechanism(&'static str, CK_MECHANISM_TYPE, CK_FLAGS),
    /// A test case.
    Case(&'static Transcript),
    /// Certificates are seen without a login.
    PublicCertificates,
    /// A certificate's key is found by the certificate's `CKA_ID` without a login.
    CertificateKeys,
    /// `CKM_HKDF_DATA` takes a `pInfo` that ends so.
    HkdfLabel(&'static str),
}
use Requirement::{
    Attribute, Case, CertificateKeys, Class, HkdfLabel, Mechanism, ProfileObject, PublicCertificates,
};

/// A profile.
pub struct Profile {
    /// The word for it on the command line.
    pub word: &'static str,
    /// `CKP_`.
    pub name: &'static str,
    /// Its number.
    pub number: CK_ULONG,
    /// Where it stands.
    pub clause: &'static str,
    /// What it asks for.
    pub requirements: &'static [&'static [Requirement]],
    /// The functions that it asks for beside them.
    pub functions: &'static [Function],
    /// The chapters of checks that are about it.
    pub chapters: &'static [&'static str],
}

/// Of every profile.
const BASELINE: &[Function] = &[
    C_GetFunctionList,
    C_GetInterfaceList,
    C_GetInterface,
    C_Initialize,
    C_Finalize,
    C_GetInfo,
    C_GetSlotList,
    C_GetSlotInfo,
    C_GetTokenInfo,
    C_OpenSession,
    C_CloseSession,
    C_GetSessionInfo,
    C_FindObjectsInit,
    C_FindObjects,
    C_FindObjectsFinal,
    C_GetAttributeValue,
];

const ATTRIBUTES: &[Requirement] = &[
    ProfileObject,
    Attribute("CKA_CLASS", CKA_CLASS),
    Attribute("CKA_TOKEN", CKA_TOKEN),
    Attribute("CKA_PRIVATE", CKA_PRIVATE),
    Attribute("CKA_MODIFIABLE", CKA_MODIFIABLE),
    Attribute("CKA_LABEL", CKA_LABEL),
    Attribute("CKA_VALUE", CKA_VALUE),
    Attribute("CKA_ID", CKA_ID),
    Attribute("CKA_UNIQUE_ID", CKA_UNIQUE_ID),
    Attribute("CKA_PROFILE_ID", CKA_PROFILE_ID),
];

const LOGIN: &[Requirement] =
    &[Requirement::Function(C_Login), Requirement::Function(C_LoginUser), Requirement::Function(C_Logout)];

/// The profiles that a provider can claim.
pub const PROFILES: &[Profile] = &[
    Profile {
        word: "baseline",
        name: "CKP_BASELINE_PROVIDER",
        number: CKP_BASELINE_PROVIDER,
        clause: "Profiles 3.2, Baseline Provider",
        requirements: &[ATTRIBUTES, &[Case(&BL_M_1)]],
        functions: BASELINE,
        chapters: &["general", "slots", "sessions", "find", "objects"],
    },
    Profile {
        word: "extended",
        name: "CKP_EXTENDED_PROVIDER",
        number: CKP_EXTENDED_PROVIDER,
        clause: "Profiles 3.2, Extended Provider",
        requirements: &[
            ATTRIBUTES,
            LOGIN,
            &[
                Requirement::Function(C_GetMechanismList),
                Requirement::Function(C_GetMechanismInfo),
                Case(&EXT_M_1),
            ],
        ],
        functions: BASELINE,
        chapters: &["general", "slots", "sessions", "find", "objects", "login"],
    },
    Profile {
        word: "authentication-token",
        name: "CKP_AUTHENTICATION_TOKEN",
        number: CKP_AUTHENTICATION_TOKEN,
        clause: "Profiles 3.2, Authentication Token",
        requirements: &[
            ATTRIBUTES,
            LOGIN,
            &[
                Requirement::Function(C_SignInit),
                Requirement::Function(C_Sign),
                Class("CKO_PRIVATE_KEY", CKO_PRIVATE_KEY),
                Class("CKO_PUBLIC_KEY", CKO_PUBLIC_KEY),
                Case(&AUTH_M_1),
            ],
        ],
        functions: BASELINE,
        chapters: &["general", "slots", "sessions", "find", "objects", "login", "sign", "signatures"],
    },
    Profile {
        word: "public-certificates",
        name: "CKP_PUBLIC_CERTIFICATES_TOKEN",
        number: CKP_PUBLIC_CERTIFICATES_TOKEN,
        clause: "Profiles 3.2, Public Certificates Token",
        requirements: &[ATTRIBUTES, &[PublicCertificates, CertificateKeys, Case(&CERT_M_1)]],
        functions: BASELINE,
        chapters: &["general", "slots", "sessions", "find", "objects"],
    },
    Profile {
        word: "complete",
        name: "CKP_COMPLETE_PROVIDER",
        number: CKP_COMPLETE_PROVIDER,
        clause: "Profiles 3.2, Complete Provider",
        requirements: &[ATTRIBUTES],
        functions: Function::ALL,
        chapters: &[],
    },
    Profile {
        word: "hkdf-tls",
        name: "CKP_HKDF_TLS_TOKEN",
        number: CKP_HKDF_TLS_TOKEN,
        clause: "Profiles 3.2, HKDF TLS Token",
        requirements: &[
            ATTRIBUTES,
            &[
                Requirement::Function(C_DeriveKey),
                Class("CKO_DATA", CKO_DATA),
                Class("CKO_SECRET_KEY", CKO_SECRET_KEY),
                Mechanism("CKM_HKDF_DATA", CKM_HKDF_DATA, CKF_DERIVE),
                HkdfLabel("tls iv"),
                HkdfLabel("tls quic iv"),
            ],
        ],
        functions: BASELINE,
        chapters: &["general", "slots", "sessions", "find", "objects", "derive"],
    },
];

impl Requirement {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Function(function) => function.name(),
            ProfileObject => "CKO_PROFILE",
            Class(name, _) | Attribute(name, _) | Mechanism(name, ..) => name,
            Case(transcript) => transcript.name,
            PublicCertificates => "public-certificates",
            CertificateKeys => "certificate-keys",
            HkdfLabel("tls iv") => "tls-iv",
            HkdfLabel(_) => "tls-quic-iv",
        }
    }

    /// What a provider does, in one sentence.
    pub fn title(self) -> String {
        match self {
            Self::Function(function) => format!("{} is supported", function.name()),
            ProfileObject => {
                "an object of class CKO_PROFILE has the profile's number in CKA_PROFILE_ID".to_owned()
            }
            Class(name, _) => format!("there are objects of class {name}"),
            Attribute(name, _) => format!("{name} is supported"),
            Mechanism(name, ..) => format!("{name} is supported"),
            Case(transcript) => format!("the test case {} goes as it should", transcript.name),
            PublicCertificates => "certificates are found and read without a login".to_owned(),
            CertificateKeys => {
                "a key of the certificate's CKA_ID is found without a login, or no key has that CKA_ID"
                    .to_owned()
            }
            HkdfLabel(label) => format!("CKM_HKDF_DATA takes the label {label:?}"),
        }
    }
}

impl Profile {
    /// Everything that it asks for.
    pub fn all(&self) -> impl Iterator<Item = Requirement> {
        let functions = self.functions.iter().copied().map(Requirement::Function);
        functions.chain(self.requirements.iter().copied().flatten().copied())
    }

    /// The id of a requirement's check.
    pub fn id_of(&self, requirement: Requirement) -> String {
        format!("profiles.{}-{}", self.word, requirement.name())
    }

    /// Whether a check is about it.
    pub fn asks_for(&self, check: &Check) -> bool {
        self.owns(&check.id) || self.chapters.contains(&check.group())
    }

    fn owns(&self, id: &str) -> bool {
        let rest = id.strip_prefix("profiles.").and_then(|rest| rest.strip_prefix(self.word));
        rest.is_some_and(|rest| rest.starts_with('-'))
    }
}

/// Whether a module has a profile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Every requirement is met, and no check about it failed.
    Met,
    /// Something speaks against it.
    NotMet,
    /// Nothing does, but not every requirement was checked; or none was.
    #[default]
    Unknown,
}

/// What a profile comes to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Judgement {
    /// `CKP_`.
    pub name: String,
    /// Where it stands in the standard.
    pub clause: String,
    /// Whether the module has it.
    #[serde(default)]
    pub standing: Standing,
    /// What it asks for and the module does not have.
    pub missing: Vec<String>,
    /// What it asks for and was not checked.
    #[serde(default)]
    pub unchecked: Vec<String>,
    /// How many requirements are met.
    #[serde(default)]
    pub met: usize,
    /// Checks about it that failed.
    pub failed: Vec<String>,
    /// Checks about it that passed.
    pub passed: usize,
}

impl Profile {
    /// What it comes to.
    pub fn judge(&self, rows: &[Row]) -> Judgement {
        let mine =
            || rows.iter().filter(|row| self.owns(&row.id) || self.chapters.contains(&row.group.as_str()));
        let (mut met, mut missing, mut unchecked) = (0, Vec::new(), Vec::new());
        for requirement in self.all() {
            let (id, name) = (self.id_of(requirement), requirement.name().to_owned());
            match rows.iter().find(|row| row.id == id).map(|row| &row.outcome) {
                Some(Outcome::Pass) => met += 1,
                Some(Outcome::NotOffered | Outcome::Fail { .. }) => missing.push(name),
                Some(Outcome::Skipped { .. }) | None => unchecked.push(name),
            }
        }
        let failed: Vec<String> = mine().filter(|row| row.is_finding()).map(|row| row.id.clone()).collect();
        let was_looked_at = met > 0 || !missing.is_empty();
        let standing = match (missing.is_empty() && failed.is_empty(), unchecked.is_empty()) {
            // Of a run without its requirements, findings of the chapters say nothing about a profile.
            _ if !was_looked_at => Standing::Unknown,
            (true, true) => Standing::Met,
            (true, false) => Standing::Unknown,
            (false, _) => Standing::NotMet,
        };
        Judgement {
            name: self.name.to_owned(),
            clause: self.clause.to_owned(),
            standing,
            missing,
            unchecked,
            met,
            failed,
            passed: mine().filter(|row| matches!(row.outcome, Outcome::Pass)).count(),
        }
    }
}

impl Judgement {
    /// Whether any of its requirements was checked.
    pub fn was_looked_at(&self) -> bool {
        self.met > 0 || !self.missing.is_empty()
    }
}

impl fmt::Display for Judgement {
    /// The verdict, and why.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let checks = |ids: &[String]| match ids.len() {
            0 => String::new(),
            count => format!("{} in checks about it", counted(count, "finding")),
        };
        match self.standing {
            Standing::Met => write!(f, "met: all {} requirements", self.met),
            Standing::Unknown => {
                write!(f, "not known: {} not checked", counted(self.unchecked.len(), "requirement"))
            }
            Standing::NotMet => {
                let reasons = [self.missing.join(", "), checks(&self.failed)];
                let reasons: Vec<String> = reasons.into_iter().filter(|reason| !reason.is_empty()).collect();
                write!(f, "not met: {}", reasons.join("; "))
            }
        }
    }
}
