//! The one table of the attributes of objects (PKCS#11 3.1, sections 4.4 to 4.10, and its footnotes on each attribute).
//! The values of keys are the cryptography room's business; their names stand here too, so that no template slips
//! through.

use pkcs11_sys::*;
use strongroom_shared::{
    fault::FaultCode,
    object::{
        Attribute, CKA_STRONGROOM_CHAIN_CODE, CKA_STRONGROOM_EPOCH, CKA_STRONGROOM_MASTER,
        CKA_STRONGROOM_PARTIES, CKA_STRONGROOM_PATH, CKA_STRONGROOM_THRESHOLD, Template, attribute_name,
    },
};

use crate::vault::error::Error;

pub(super) const DATA: u8 = 1;
pub(super) const CERTIFICATE: u8 = 1 << 1;
pub(super) const PUBLIC: u8 = 1 << 2;
pub(super) const PRIVATE: u8 = 1 << 3;
pub(super) const SECRET: u8 = 1 << 4;
const KEY: u8 = PUBLIC | PRIVATE | SECRET;
const ALL: u8 = DATA | CERTIFICATE | KEY;

/// Whether a template may name an attribute.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    /// It may.
    Yes,
    /// The token alone sets it.
    No,
    /// It contradicts the act, such as the value of a key that is to be generated.
    Contradicts,
}

/// How an attribute may change.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mutability {
    /// At will.
    Free,
    /// Never.
    Never,
    /// From false to true only.
    ToTrue,
    /// From true to false only.
    ToFalse,
}

/// What holds of an attribute of some classes of objects.
pub(super) struct Rule {
    pub kind: CK_ATTRIBUTE_TYPE,
    pub classes: u8,
    pub create: Given,
    pub generate: Given,
    pub change: Mutability,
    pub copy: Mutability,
}

const fn rule(
    kind: CK_ATTRIBUTE_TYPE,
    classes: u8,
    create: Given,
    generate: Given,
    change: Mutability,
    copy: Mutability,
) -> Rule {
    Rule { kind, classes, create, generate, change, copy }
}

use Given::{Contradicts, No, Yes};
use Mutability::{Free, Never, ToFalse, ToTrue};

#[rustfmt::skip]
pub(super) const RULES: &[Rule] = &[
    //   attribute                    of what                     create       generate     set      copy
    rule(CKA_CLASS,                   ALL,                        Yes,         Yes,         Never,   Never),
    rule(CKA_TOKEN,                   ALL,                        Yes,         Yes,         Never,   Free),
    rule(CKA_PRIVATE,                 ALL,                        Yes,         Yes,         Never,   ToTrue),
    rule(CKA_MODIFIABLE,              ALL,                        Yes,         Yes,         Never,   ToFalse),
    rule(CKA_COPYABLE,                ALL,                        Yes,         Yes,         ToFalse, ToFalse),
    rule(CKA_DESTROYABLE,             ALL,                        Yes,         Yes,         ToFalse, Free),
    rule(CKA_LABEL,                   ALL,                        Yes,         Yes,         Free,    Free),
    rule(CKA_UNIQUE_ID,               ALL,                        No,          No,          Never,   Never),

    rule(CKA_APPLICATION,             DATA,                       Yes,         No,          Free,    Free),
    rule(CKA_OBJECT_ID,               DATA,                       Yes,         No,          Free,    Free),
    rule(CKA_VALUE,                   DATA,                       Yes,         No,          Free,    Free),

    rule(CKA_CERTIFICATE_TYPE,        CERTIFICATE,                Yes,         No,          Never,   Never),
    rule(CKA_CERTIFICATE_CATEGORY,    CERTIFICATE,                Yes,         No,          Never,   Never),
    rule(CKA_ISSUER,                  CERTIFICATE,                Yes,         No,          Free,    Free),
    rule(CKA_SERIAL_NUMBER,           CERTIFICATE,                Yes,         No,          Free,    Free),
    rule(CKA_VALUE,                   CERTIFICATE,                Yes,         No,          Never,   Never),
    rule(CKA_URL,                     CERTIFICATE,                Yes,         No,          Never,   Never),
    rule(CKA_HASH_OF_SUBJECT_PUBLIC_KEY, CERTIFICATE,             Yes,         No,          Never,   Never),
    rule(CKA_HASH_OF_ISSUER_PUBLIC_KEY,  CERTIFICATE,             Yes,         No,          Never,   Never),
    rule(CKA_NAME_HASH_ALGORITHM,     CERTIFICATE,                Yes,         No,          Never,   Never),
    rule(CKA_JAVA_MIDP_SECURITY_DOMAIN, CERTIFICATE,              Yes,         No,          Never,   Never),
    rule(CKA_PUBLIC_KEY_INFO,         CERTIFICATE,                Yes,         No,          Never,   Never),
    rule(CKA_CHECK_VALUE,             CERTIFICATE,                Yes,         No,          Never,   Never),

    rule(CKA_SUBJECT,                 CERTIFICATE,                Yes,         No,          Never,   Never),
    rule(CKA_SUBJECT,                 PUBLIC | PRIVATE,           Yes,         Yes,         Free,    Free),
    rule(CKA_ID,                      CERTIFICATE | KEY,          Yes,         Yes,         Free,    Free),
    rule(CKA_START_DATE,              CERTIFICATE | KEY,          Yes,         Yes,         Free,    Free),
    rule(CKA_END_DATE,                CERTIFICATE | KEY,          Yes,         Yes,         Free,    Free),
    rule(CKA_TRUSTED,                 CERTIFICATE | PUBLIC | SECRET, Yes,      Yes,         Free,    Never),

    rule(CKA_KEY_TYPE,                KEY,                        Yes,         Yes,         Never,   Never),
    rule(CKA_DERIVE,                  KEY,                        Yes,         Yes,         Free,    Free),
    rule(CKA_LOCAL,                   KEY,                        No,          No,          Never,   Never),
    rule(CKA_KEY_GEN_MECHANISM,       KEY,                        No,          No,          Never,   Never),
    rule(CKA_ALLOWED_MECHANISMS,      KEY,                        Yes,         Yes,         Never,   Never),
    rule(CKA_ENCRYPT,                 PUBLIC | SECRET,            Yes,         Yes,         Free,    Free),
    rule(CKA_VERIFY,                  PUBLIC | SECRET,            Yes,         Yes,         Free,    Free),
    rule(CKA_VERIFY_RECOVER,          PUBLIC,                     Yes,         Yes,         Free,    Free),
    rule(CKA_WRAP,                    PUBLIC | SECRET,            Yes,         Yes,         Free,    Free),
    rule(CKA_DECRYPT,                 PRIVATE | SECRET,           Yes,         Yes,         Free,    Free),
    rule(CKA_SIGN,                    PRIVATE | SECRET,           Yes,         Yes,         Free,    Free),
    rule(CKA_SIGN_RECOVER,            PRIVATE,                    Yes,         Yes,         Free,    Free),
    rule(CKA_UNWRAP,                  PRIVATE | SECRET,           Yes,         Yes,         Free,    Free),
    rule(CKA_SENSITIVE,               PRIVATE | SECRET,           Yes,         Yes,         ToTrue,  ToTrue),
    rule(CKA_EXTRACTABLE,             PRIVATE | SECRET,           Yes,         Yes,         ToFalse, ToFalse),
    rule(CKA_WRAP_WITH_TRUSTED,       PRIVATE | SECRET,           Yes,         Yes,         ToTrue,  ToTrue),
    rule(CKA_ALWAYS_SENSITIVE,        PRIVATE | SECRET,           No,          No,          Never,   Never),
    rule(CKA_NEVER_EXTRACTABLE,       PRIVATE | SECRET,           No,          No,          Never,   Never),
    rule(CKA_ALWAYS_AUTHENTICATE,     PRIVATE,                    Yes,         Yes,         Never,   Never),
    rule(CKA_STRONGROOM_THRESHOLD,    PRIVATE,                    No,          Yes,         Never,   Never),
    rule(CKA_STRONGROOM_PARTIES,      PRIVATE,                    No,          Yes,         Never,   Never),
    rule(CKA_STRONGROOM_EPOCH,        PRIVATE,                    No,          No,          Never,   Never),
    rule(CKA_STRONGROOM_CHAIN_CODE,   PRIVATE,                    No,          No,          Never,   Never),
    rule(CKA_STRONGROOM_MASTER,       PRIVATE,                    No,          No,          Never,   Never),
    rule(CKA_STRONGROOM_PATH,         PRIVATE,                    No,          No,          Never,   Never),
    rule(CKA_CHECK_VALUE,             SECRET,                     Yes,         Yes,         Never,   Never),
    rule(CKA_PUBLIC_KEY_INFO,         PUBLIC | PRIVATE,           No,          No,          Never,   Never),

    rule(CKA_VALUE,                   PRIVATE | SECRET,           Yes,         Contradicts, Never,   Never),
    rule(CKA_VALUE_LEN,               SECRET,                     No,          Yes,         Never,   Never),
    rule(CKA_MODULUS,                 PUBLIC | PRIVATE,           Yes,         Contradicts, Never,   Never),
    rule(CKA_MODULUS_BITS,            PUBLIC,                     No,          Yes,         Never,   Never),
    rule(CKA_PUBLIC_EXPONENT,         PUBLIC,                     Yes,         Yes,         Never,   Never),
    rule(CKA_PUBLIC_EXPONENT,         PRIVATE,                    Yes,         Contradicts, Never,   Never),
    rule(CKA_PRIVATE_EXPONENT,        PRIVATE,                    Yes,         Contradicts, Never,   Never),
    rule(CKA_PRIME_1,                 PRIVATE,                    Yes,         Contradicts, Never,   Never),
    rule(CKA_PRIME_2,                 PRIVATE,                    Yes,         Contradicts, Never,   Never),
    rule(CKA_EXPONENT_1,              PRIVATE,                    Yes,         Contradicts, Never,   Never),
    rule(CKA_EXPONENT_2,              PRIVATE,                    Yes,         Contradicts, Never,   Never),
    rule(CKA_COEFFICIENT,             PRIVATE,                    Yes,         Contradicts, Never,   Never),
    rule(CKA_EC_PARAMS,               PUBLIC,                     Yes,         Yes,         Never,   Never),
    rule(CKA_EC_PARAMS,               PRIVATE,                    Yes,         Contradicts, Never,   Never),
    rule(CKA_EC_POINT,                PUBLIC | PRIVATE,           Yes,         Contradicts, Never,   Never),
];

/// The class of an object, as the table has it.
pub(super) fn class_bit(template: &Template) -> Result<u8, Error> {
    match template.ulong(CKA_CLASS) {
        Some(CKO_DATA) => Ok(DATA),
        Some(CKO_CERTIFICATE) => Ok(CERTIFICATE),
        Some(CKO_PUBLIC_KEY) => Ok(PUBLIC),
        Some(CKO_PRIVATE_KEY) => Ok(PRIVATE),
        Some(CKO_SECRET_KEY) => Ok(SECRET),
        Some(_) => Err(Error::attribute(FaultCode::AttributeValueInvalid, CKA_CLASS)),
        None => Err(Error::attribute(FaultCode::TemplateIncomplete, CKA_CLASS)),
    }
}

/// The rule for an attribute of this class.
pub(super) fn rule_for(attribute: &Attribute, class: u8) -> Result<&'static Rule, Error> {
    let known = RULES.iter().find(|rule| rule.kind == attribute.kind && rule.classes & class != 0);
    known.ok_or_else(|| match attribute_name(attribute.kind) {
        Some(_) => Error::attribute(FaultCode::TemplateInconsistent, attribute.kind),
        None => Error::attribute(FaultCode::AttributeTypeInvalid, attribute.kind),
    })
}
