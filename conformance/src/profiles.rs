//! The provider profiles of PKCS#11 Profiles 3.2 as data: what each asks for, and what of it was seen.

use serde::{Deserialize, Serialize};

use crate::check::{Check, Outcome};
use crate::raw::Function::{self, *};
use crate::report::Row;
use crate::survey::Survey;

/// A profile.
pub struct Profile {
    /// The word for it on the command line.
    pub word: &'static str,
    /// `CKP_`.
    pub name: &'static str,
    /// Where it stands.
    pub clause: &'static str,
    /// The functions that it asks for.
    pub functions: &'static [&'static [Function]],
    /// The chapters of checks that are about it.
    pub chapters: &'static [&'static str],
}

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

const LOGIN: &[Function] = &[C_Login, C_LoginUser, C_Logout];

/// The profiles that a provider of keys can claim.
pub const PROFILES: &[Profile] = &[
    Profile {
        word: "baseline",
        name: "CKP_BASELINE_PROVIDER",
        clause: "Profiles 3.2, Baseline Provider",
        functions: &[BASELINE],
        chapters: &["general", "slots", "sessions", "find", "objects"],
    },
    Profile {
        word: "extended",
        name: "CKP_EXTENDED_PROVIDER",
        clause: "Profiles 3.2, Extended Provider",
        functions: &[BASELINE, LOGIN, &[C_GetMechanismList, C_GetMechanismInfo]],
        chapters: &["general", "slots", "sessions", "find", "objects", "login"],
    },
    Profile {
        word: "authentication",
        name: "CKP_AUTHENTICATION_TOKEN",
        clause: "Profiles 3.2, Authentication Token",
        functions: &[BASELINE, LOGIN, &[C_SignInit, C_Sign]],
        chapters: &["general", "slots", "sessions", "find", "objects", "login", "sign", "signatures"],
    },
    Profile {
        word: "certificates",
        name: "CKP_PUBLIC_CERTIFICATES_TOKEN",
        clause: "Profiles 3.2, Public Certificates Token",
        functions: &[BASELINE],
        chapters: &["general", "slots", "sessions", "find", "objects"],
    },
    Profile {
        word: "hkdf-tls",
        name: "CKP_HKDF_TLS_TOKEN",
        clause: "Profiles 3.2, HKDF TLS Token",
        functions: &[BASELINE, &[C_DeriveKey]],
        chapters: &["general", "slots", "sessions", "find", "objects", "derive"],
    },
];

/// What a profile comes to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Judgement {
    /// `CKP_`.
    pub name: String,
    /// Where it stands.
    pub clause: String,
    /// Functions that it asks for and that the module does not have.
    pub missing: Vec<String>,
    /// Checks about it that failed.
    pub failed: Vec<String>,
    /// Checks about it that passed.
    pub passed: usize,
}

impl Profile {
    /// Whether a check is about it.
    pub fn asks_for(&self, check: &Check) -> bool {
        self.chapters.contains(&check.group())
    }

    /// What it comes to.
    pub fn judge(&self, survey: &Survey, rows: &[Row]) -> Judgement {
        let has = |function: &&Function| survey.functions.iter().any(|name| name == function.name());
        let wanted = self.functions.iter().copied().flatten();
        let mine = || rows.iter().filter(|row| self.chapters.contains(&row.group.as_str()));
        let failed = mine().filter(|row| row.is_finding()).map(|row| row.id.clone()).collect();
        Judgement {
            name: self.name.to_owned(),
            clause: self.clause.to_owned(),
            missing: wanted
                .filter(|function| !has(function))
                .map(|function| function.name().to_owned())
                .collect(),
            failed,
            passed: mine().filter(|row| matches!(row.outcome, Outcome::Pass)).count(),
        }
    }
}
