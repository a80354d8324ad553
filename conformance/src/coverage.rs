//! What the checks have seen of every function and every mechanism.

use std::collections::BTreeSet;

use cryptoki_sys::*;
use serde::{Deserialize, Serialize};

use crate::names;
use crate::raw::Function;
use crate::returns;
use crate::survey::{Offer, Survey};
use crate::trace::Answer;

/// A return value of a function.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Code {
    /// `CKR_`.
    pub name: String,
    /// Where it stands: in the standard's list, in an answer, or in both.
    pub state: State,
}

/// See [`Code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Listed by the standard and seen.
    Seen,
    /// Seen and not listed.
    Unlisted,
    /// Listed and never seen.
    NeverSeen,
}

/// A function.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FunctionRow {
    /// Its name.
    pub name: String,
    /// Whether the module has it.
    pub offered: bool,
    /// Its return values.
    pub codes: Vec<Code>,
}

/// The functions of the standard.
pub fn functions(survey: &Survey, answers: &BTreeSet<Answer>) -> Vec<FunctionRow> {
    let row = |function: &Function| {
        let name = function.name();
        let listed: BTreeSet<u64> = returns::of(*function).into_iter().collect();
        let seen: BTreeSet<u64> =
            answers.iter().filter(|answer| answer.function == name).map(|answer| answer.code).collect();
        let code = |code: &u64| Code {
            name: crate::rv::name(*code),
            state: match (listed.contains(code), seen.contains(code)) {
                (true, true) => State::Seen,
                (true, false) => State::NeverSeen,
                // Any function may be unsupported; the lists do not say so.
                (false, _) if *code == CKR_FUNCTION_NOT_SUPPORTED => State::Seen,
                (false, _) => State::Unlisted,
            },
        };
        let mut codes: Vec<Code> = listed.union(&seen).map(code).collect();
        codes.sort_by_key(|code| code.state);
        FunctionRow {
            name: name.to_owned(),
            offered: survey.functions.iter().any(|known| known == name),
            codes,
        }
    };
    Function::ALL.iter().map(row).collect()
}

/// A use of a mechanism.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Use {
    /// The flag's word, such as `sign`.
    pub word: String,
    /// Whether `C_GetMechanismInfo` says so.
    pub advertised: bool,
    /// What came of it.
    pub state: UseState,
    /// What was answered instead of `CKR_OK`.
    pub refusals: Vec<String>,
}

/// What came of a use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UseState {
    /// It works.
    Works,
    /// It was always refused.
    Refused,
    /// No check tried.
    Untried,
}

/// A mechanism.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MechanismRow {
    /// Its name.
    pub name: String,
    /// Whether `C_GetMechanismList` lists it.
    pub listed: bool,
    /// `ulMinKeySize`.
    pub least: u64,
    /// `ulMaxKeySize`.
    pub most: u64,
    /// Its uses, advertised or seen.
    pub uses: Vec<Use>,
}

/// The flags whose use one function begins.
const USES: &[(CK_FLAGS, &str, &[&str])] = &[
    (CKF_ENCRYPT, "encrypt", &["C_EncryptInit"]),
    (CKF_DECRYPT, "decrypt", &["C_DecryptInit"]),
    (CKF_DIGEST, "digest", &["C_DigestInit"]),
    (CKF_SIGN, "sign", &["C_SignInit"]),
    (CKF_SIGN_RECOVER, "sign-recover", &["C_SignRecoverInit"]),
    (CKF_VERIFY, "verify", &["C_VerifyInit", "C_VerifySignatureInit"]),
    (CKF_VERIFY_RECOVER, "verify-recover", &["C_VerifyRecoverInit"]),
    (CKF_GENERATE, "generate", &["C_GenerateKey"]),
    (CKF_GENERATE_KEY_PAIR, "generate-pair", &["C_GenerateKeyPair"]),
    (CKF_WRAP, "wrap", &["C_WrapKey", "C_WrapKeyAuthenticated"]),
    (CKF_UNWRAP, "unwrap", &["C_UnwrapKey", "C_UnwrapKeyAuthenticated"]),
    (CKF_DERIVE, "derive", &["C_DeriveKey"]),
    (CKF_ENCAPSULATE, "encapsulate", &["C_EncapsulateKey"]),
    (CKF_DECAPSULATE, "decapsulate", &["C_DecapsulateKey"]),
    (CKF_MESSAGE_ENCRYPT, "message-encrypt", &["C_MessageEncryptInit"]),
    (CKF_MESSAGE_DECRYPT, "message-decrypt", &["C_MessageDecryptInit"]),
    (CKF_MESSAGE_SIGN, "message-sign", &["C_MessageSignInit"]),
    (CKF_MESSAGE_VERIFY, "message-verify", &["C_MessageVerifyInit"]),
];

/// The mechanisms that the token lists, and others that worked although it does not.
pub fn mechanisms(survey: &Survey, answers: &BTreeSet<Answer>) -> Vec<MechanismRow> {
    let listed = survey.mechanisms.iter().map(|offer| row(offer, true, answers));
    let is_hidden = |number: &u64| survey.mechanisms.iter().all(|offer| offer.number != *number);
    let hidden: BTreeSet<u64> = answers
        .iter()
        .filter(|answer| answer.code == CKR_OK)
        .filter_map(|answer| answer.mechanism)
        .filter(is_hidden)
        .collect();
    let hidden =
        hidden.into_iter().map(|number| row(&Offer { number, least: 0, most: 0, flags: 0 }, false, answers));
    listed.chain(hidden).collect()
}

fn row(offer: &Offer, listed: bool, answers: &BTreeSet<Answer>) -> MechanismRow {
    let with_mechanism = || answers.iter().filter(|answer| answer.mechanism == Some(offer.number));
    let one = |(flag, word, functions): &(CK_FLAGS, &str, &[&str])| {
        let codes: BTreeSet<u64> = with_mechanism()
            .filter(|answer| functions.contains(&answer.function.as_str()))
            .map(|answer| answer.code)
            .collect();
        let advertised = offer.flags & flag != 0;
        let state = match (codes.contains(&CKR_OK), codes.is_empty()) {
            (true, _) => UseState::Works,
            (false, true) => UseState::Untried,
            (false, false) => UseState::Refused,
        };
        let refusals =
            codes.iter().filter(|code| **code != CKR_OK).map(|code| crate::rv::name(*code)).collect();
        let worth_telling = advertised || state == UseState::Works;
        worth_telling.then(|| Use { word: (*word).to_owned(), advertised, state, refusals })
    };
    MechanismRow {
        name: names::mechanism(offer.number),
        listed,
        least: offer.least,
        most: offer.most,
        uses: USES.iter().filter_map(one).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(function: &str, mechanism: Option<u64>, code: u64) -> Answer {
        Answer { function: function.to_owned(), mechanism, code }
    }

    #[test]
    fn a_code_is_listed_or_seen_or_both() {
        let answers =
            BTreeSet::from([answer("C_Logout", None, CKR_OK), answer("C_Logout", None, CKR_PIN_INCORRECT)]);
        let rows = functions(&Survey::default(), &answers);
        let logout = rows.iter().find(|row| row.name == "C_Logout");
        let state = |name: &str| logout?.codes.iter().find(|code| code.name == name).map(|code| code.state);
        assert_eq!(state("CKR_OK"), Some(State::Seen));
        assert_eq!(state("CKR_USER_NOT_LOGGED_IN"), Some(State::NeverSeen));
        assert_eq!(state("CKR_PIN_INCORRECT"), Some(State::Unlisted));
        assert_eq!(rows.len(), 104);
    }

    #[test]
    fn a_mechanism_works_or_is_refused_or_untried() {
        let offer = Offer { number: CKM_ECDSA, least: 256, most: 256, flags: CKF_SIGN | CKF_VERIFY };
        let survey = Survey { mechanisms: vec![offer], ..Survey::default() };
        let answers = BTreeSet::from([
            answer("C_SignInit", Some(CKM_ECDSA), CKR_KEY_HANDLE_INVALID),
            answer("C_SignInit", Some(CKM_ECDSA), CKR_OK),
            answer("C_DigestInit", Some(CKM_SHA256), CKR_OK),
        ]);
        let rows = mechanisms(&survey, &answers);
        let states: Vec<_> = rows
            .iter()
            .flat_map(|row| row.uses.iter().map(|each| (row.name.as_str(), each.word.as_str(), each.state)))
            .collect();
        let expected = [
            ("CKM_ECDSA", "sign", UseState::Works),
            ("CKM_ECDSA", "verify", UseState::Untried),
            ("CKM_SHA256", "digest", UseState::Works),
        ];
        assert_eq!(states, expected);
        assert!(rows.iter().any(|row| !row.listed), "works, although it is not listed");
    }
}
