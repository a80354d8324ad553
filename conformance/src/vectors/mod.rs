//! Published test vectors: the files of Wycheproof under `vectors/wycheproof/`, packed and carried in the program.

use std::io::Read;

use flate2::read::GzDecoder;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::check::Stop;

/// A file of vectors.
#[derive(Deserialize)]
pub struct File {
    /// Its groups.
    #[serde(rename = "testGroups")]
    pub groups: Vec<Group>,
}

/// Vectors that share a key or sizes.
#[derive(Deserialize)]
pub struct Group {
    /// The vectors.
    pub tests: Vec<Test>,
    /// What they share.
    #[serde(flatten)]
    pub fields: Fields,
}

/// A vector.
#[derive(Deserialize)]
pub struct Test {
    /// Its number in the file.
    #[serde(rename = "tcId")]
    pub number: u64,
    /// What it is about.
    #[serde(default)]
    pub comment: String,
    /// What must come of it.
    pub result: Expected,
    /// Why it was made.
    #[serde(default)]
    pub flags: Vec<String>,
    /// Its inputs and outputs.
    #[serde(flatten)]
    pub fields: Fields,
}

/// What must come of a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expected {
    /// It must be accepted.
    Valid,
    /// It may be accepted, with the right output, or refused.
    Acceptable,
    /// It must be refused.
    Invalid,
}

/// Named values.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(transparent)]
pub struct Fields(Map<String, Value>);

impl Fields {
    /// Bytes.
    ///
    /// # Errors
    /// `Skipped`, if the file has none of this name.
    pub fn bytes(&self, name: &str) -> Result<Vec<u8>, Stop> {
        let text = self.0.get(name).and_then(Value::as_str);
        text.and_then(unhex).ok_or_else(|| missing(name))
    }

    /// A big number, without leading zeros.
    ///
    /// # Errors
    /// `Skipped`, if the file has none of this name.
    pub fn integer(&self, name: &str) -> Result<Vec<u8>, Stop> {
        let bytes = self.bytes(name)?;
        let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
        Ok(bytes.get(first..).unwrap_or_default().to_vec())
    }

    /// A number.
    ///
    /// # Errors
    /// `Skipped`, if the file has none of this name.
    pub fn number(&self, name: &str) -> Result<u64, Stop> {
        self.0.get(name).and_then(Value::as_u64).ok_or_else(|| missing(name))
    }

    /// A word.
    ///
    /// # Errors
    /// `Skipped`, if the file has none of this name.
    pub fn text(&self, name: &str) -> Result<String, Stop> {
        self.0.get(name).and_then(Value::as_str).map(str::to_owned).ok_or_else(|| missing(name))
    }

    /// Values within a value.
    ///
    /// # Errors
    /// `Skipped`, if the file has none of this name.
    pub fn object(&self, name: &str) -> Result<Self, Stop> {
        self.0.get(name).and_then(Value::as_object).cloned().map(Self).ok_or_else(|| missing(name))
    }
}

impl Group {
    /// Values within a value of the group.
    ///
    /// # Errors
    /// `Skipped`, if it has none of this name.
    pub fn object(&self, name: &str) -> Result<Fields, Stop> {
        self.fields.object(name)
    }
}

/// A vector that did not come out as published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedVector {
    /// The file's name at Wycheproof.
    pub file: String,
    /// Its number in the file.
    pub tc_id: u64,
    /// What the file says of it: what must come of it, what it is about, why it was made.
    pub about: String,
    /// Inputs and outputs as published, in hexadecimal digits, by the file's names.
    pub published: Map<String, Value>,
    /// What should have come out.
    pub expected: String,
    /// What came out.
    pub got: String,
}

impl FailedVector {
    /// The vector of a file, and what came of it.
    pub fn new(file: &str, group: &Group, test: &Test, expected: String, got: String) -> Self {
        // The same key again in another form.
        let is_repeated = |name: &str| ["Pem", "Der", "Jwk", "Asn"].iter().any(|end| name.ends_with(end));
        let all = group.fields.0.iter().chain(&test.fields.0);
        let published =
            all.filter(|(name, _)| !is_repeated(name) && !matches!(name.as_str(), "type" | "source"));
        let about = [format!("{:?}", test.result).to_lowercase(), test.comment.clone(), test.flags.join(" ")];
        let about: Vec<String> = about.into_iter().filter(|part| !part.is_empty()).collect();
        Self {
            file: format!("{file}_test.json"),
            tc_id: test.number,
            about: about.join("; "),
            published: published.map(|(name, value)| (name.clone(), value.clone())).collect(),
            expected,
            got,
        }
    }

    /// Its name.
    pub fn name(&self) -> String {
        format!("Wycheproof {} tcId {} ({})", self.file, self.tc_id, self.about)
    }

    /// Names and values, each cut after so many letters: what is published, expected and got.
    pub fn lines(&self, most: usize) -> Vec<(String, String)> {
        let mut lines = Vec::new();
        flatten("", &Value::Object(self.published.clone()), &mut lines);
        lines.extend([("expected".to_owned(), self.expected.clone()), ("got".to_owned(), self.got.clone())]);
        lines.iter_mut().for_each(|(_, value)| *value = cut(value, most));
        lines
    }
}

/// The values within values, by their names one after the other.
fn flatten(name: &str, value: &Value, lines: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            for (inner, value) in fields {
                let dot = if name.is_empty() { "" } else { "." };
                flatten(&format!("{name}{dot}{inner}"), value, lines);
            }
        }
        Value::String(text) => lines.push((name.to_owned(), text.clone())),
        other => lines.push((name.to_owned(), other.to_string())),
    }
}

fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => {
            let head = text.get(..end).unwrap_or_default();
            format!("{head}… ({} letters)", text.chars().count())
        }
        None => text.to_owned(),
    }
}

fn missing(name: &str) -> Stop {
    Stop::Skipped(format!("the file of vectors has no {name}"))
}

/// Bytes out of their hexadecimal digits.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, digit| (byte << 4) | digit)).collect())
}

macro_rules! files {
    ($( $name:literal )*) => {
        /// The files and what is packed in them.
        const FILES: &[(&str, &[u8])] =
            &[ $( ($name, include_bytes!(concat!("../../vectors/wycheproof/", $name, ".json.gz"))), )* ];
    };
}

files! {
    "aes_cbc_pkcs5"
    "aes_ccm"
    "aes_cmac"
    "aes_gcm"
    "aes_gmac"
    "aes_kwp"
    "aes_wrap"
    "aes_xts"
    "aria_cbc_pkcs5"
    "camellia_cbc_pkcs5"
    "chacha20_poly1305"
    "dsa_2048_256_sha256_p1363"
    "ecdh_brainpoolP256r1"
    "ecdh_brainpoolP384r1"
    "ecdh_secp224r1_ecpoint"
    "ecdh_secp256k1"
    "ecdh_secp256r1_ecpoint"
    "ecdh_secp384r1_ecpoint"
    "ecdh_secp521r1_ecpoint"
    "ecdsa_brainpoolP224r1_sha224_p1363"
    "ecdsa_brainpoolP256r1_sha256_p1363"
    "ecdsa_brainpoolP320r1_sha384_p1363"
    "ecdsa_brainpoolP384r1_sha384_p1363"
    "ecdsa_brainpoolP512r1_sha512_p1363"
    "ecdsa_secp192r1_sha256_p1363"
    "ecdsa_secp224r1_sha224_p1363"
    "ecdsa_secp224r1_sha256_p1363"
    "ecdsa_secp224r1_sha512_p1363"
    "ecdsa_secp256k1_sha256_p1363"
    "ecdsa_secp256k1_sha512_p1363"
    "ecdsa_secp256r1_sha256_p1363"
    "ecdsa_secp256r1_sha512_p1363"
    "ecdsa_secp384r1_sha384_p1363"
    "ecdsa_secp384r1_sha512_p1363"
    "ecdsa_secp521r1_sha512_p1363"
    "ed25519"
    "ed448"
    "hkdf_sha1"
    "hkdf_sha256"
    "hkdf_sha384"
    "hkdf_sha512"
    "hmac_sha1"
    "hmac_sha224"
    "hmac_sha256"
    "hmac_sha384"
    "hmac_sha3_224"
    "hmac_sha3_256"
    "hmac_sha3_384"
    "hmac_sha3_512"
    "hmac_sha512"
    "hmac_sha512_224"
    "hmac_sha512_256"
    "mldsa_44_sign_seed"
    "mldsa_44_verify"
    "mldsa_65_sign_seed"
    "mldsa_65_verify"
    "mldsa_87_sign_seed"
    "mldsa_87_verify"
    "mlkem_1024"
    "mlkem_512"
    "mlkem_768"
    "pbkdf2_hmacsha1"
    "pbkdf2_hmacsha256"
    "pbkdf2_hmacsha512"
    "rsa_oaep_2048_sha1_mgf1sha1"
    "rsa_oaep_2048_sha256_mgf1sha1"
    "rsa_oaep_2048_sha256_mgf1sha256"
    "rsa_oaep_2048_sha384_mgf1sha384"
    "rsa_oaep_2048_sha512_mgf1sha512"
    "rsa_oaep_3072_sha256_mgf1sha256"
    "rsa_oaep_4096_sha256_mgf1sha256"
    "rsa_oaep_4096_sha512_mgf1sha512"
    "rsa_pkcs1_2048"
    "rsa_pkcs1_3072"
    "rsa_pkcs1_4096"
    "rsa_pss_2048_sha1_mgf1_20"
    "rsa_pss_2048_sha256_mgf1_0"
    "rsa_pss_2048_sha256_mgf1_32"
    "rsa_pss_2048_sha256_mgf1sha1_20"
    "rsa_pss_2048_sha384_mgf1_48"
    "rsa_pss_3072_sha256_mgf1_32"
    "rsa_pss_4096_sha256_mgf1_32"
    "rsa_pss_4096_sha384_mgf1_48"
    "rsa_pss_4096_sha512_mgf1_32"
    "rsa_pss_4096_sha512_mgf1_64"
    "rsa_signature_2048_sha224"
    "rsa_signature_2048_sha256"
    "rsa_signature_2048_sha384"
    "rsa_signature_2048_sha3_256"
    "rsa_signature_2048_sha3_384"
    "rsa_signature_2048_sha3_512"
    "rsa_signature_2048_sha512"
    "rsa_signature_3072_sha256"
    "rsa_signature_3072_sha384"
    "rsa_signature_3072_sha3_256"
    "rsa_signature_3072_sha3_512"
    "rsa_signature_3072_sha512"
    "rsa_signature_4096_sha256"
    "rsa_signature_4096_sha384"
    "rsa_signature_4096_sha512"
    "x25519"
    "x448"
}

/// Unpacks a file.
///
/// # Errors
/// `Skipped`, if there is no such file or it is damaged.
pub fn load(name: &str) -> Result<File, Stop> {
    let packed = FILES.iter().find(|(known, _)| *known == name).map(|(_, packed)| *packed);
    let packed = packed.ok_or_else(|| Stop::Skipped(format!("there is no file of vectors {name}")))?;
    let mut text = Vec::new();
    let damaged = |error: String| Stop::Skipped(format!("the file of vectors {name} is damaged: {error}"));
    GzDecoder::new(packed).read_to_end(&mut text).map_err(|error| damaged(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_whole() {
        let mut vectors = 0;
        for (name, _) in FILES {
            let groups = load(name).map(|file| file.groups).unwrap_or_default();
            assert!(!groups.is_empty(), "{name}");
            vectors += groups.iter().map(|group| group.tests.len()).sum::<usize>();
        }
        assert_eq!(vectors, 22_504);
    }

    #[test]
    fn digits_are_bytes() {
        assert_eq!(unhex("00ffA1"), Some(vec![0, 255, 0xa1]));
        assert_eq!(unhex("0"), None);
        assert_eq!(unhex("zz"), None);
    }
}
