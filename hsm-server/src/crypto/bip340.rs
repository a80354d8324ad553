//! Schnorr signatures of BIP340 on secp256k1, by k256: `CKM_STRONGROOM_BIP340`.
//!
//! The message is signed as it is, of any length. The public key is the x-coordinate alone, so a key and its
//! negative are one. Nonces are those of the BIP, with auxiliary randomness from AWS-LC's generator.

use k256::{
    ecdsa::{SigningKey, VerifyingKey},
    schnorr,
};

use super::Error;

const FAILED: Error = Error::Internal("BIP340 signing failed");
/// The length of a signature, in bytes.
const LENGTH: usize = 64;

/// Signs a message.
pub fn sign(key: &SigningKey, message: &[u8]) -> Result<Vec<u8>, Error> {
    let mut auxiliary = [0; 32];
    aws_lc_rs::rand::fill(&mut auxiliary).map_err(|_| FAILED)?;
    sign_with(key, message, &auxiliary)
}

fn sign_with(key: &SigningKey, message: &[u8], auxiliary: &[u8; 32]) -> Result<Vec<u8>, Error> {
    let key = schnorr::SigningKey::from(*key.as_nonzero_scalar());
    let signature = key.sign_raw(message, auxiliary).map_err(|_| FAILED)?;
    Ok(signature.to_bytes().to_vec())
}

/// Verifies a signature of a message.
pub fn verify(key: &VerifyingKey, message: &[u8], signature: &[u8]) -> Result<(), Error> {
    if signature.len() != LENGTH {
        return Err(Error::SignatureLengthRange);
    }
    let point = key.to_sec1_point(true);
    let x = point.x().ok_or(Error::Internal("a public key at infinity"))?;
    let key = schnorr::VerifyingKey::from_bytes(x).map_err(|_| Error::SignatureInvalid)?;
    let signature = schnorr::Signature::try_from(signature).map_err(|_| Error::SignatureInvalid)?;
    key.verify_raw(message, &signature).map_err(|_| Error::SignatureInvalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(digits: &str) -> Vec<u8> {
        (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
    }

    /// The test vectors of the BIP: secret key, x of the public key, auxiliary randomness, message, signature.
    const VECTORS: [[&str; 5]; 3] = [
        [
            "0000000000000000000000000000000000000000000000000000000000000003",
            "f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9",
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0000000000000000000000000000000000000000000000000000000000000000",
            "e907831f80848d1069a5371b402410364bdf1c5f8307b0084c55f1ce2dca8215\
             25f66a4a85ea8b71e482a74f382d2ce5ebeee8fdb2172f477df4900d310536c0",
        ],
        [
            "b7e151628aed2a6abf7158809cf4f3c762e7160f38b4da56a784d9045190cfef",
            "dff1d77f2a671c5f36183726db2341be58feae1da2deced843240f7b502ba659",
            "0000000000000000000000000000000000000000000000000000000000000001",
            "243f6a8885a308d313198a2e03707344a4093822299f31d0082efa98ec4e6c89",
            "6896bd60eeae296db48a229ff71dfe071bde413e6d43f917dc8dcf8c78de3341\
             8906d11ac976abccb20b091292bff4ea897efcb639ea871cfa95f6de339e4b0a",
        ],
        [
            "c90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74020bbea63b14e5c9",
            "dd308afec5777e13121fa72b9cc1b7cc0139715309b086c960e18fd969774eb8",
            "c87aa53824b4d7ae2eb035a2b5bbbccc080e76cdc6d1692c4b0b62d798e6d906",
            "7e2d58d8b3bcdf1abadec7829054f90dda9805aab56c77333024b9d0a508b75c",
            "5831aaeed7b44bb74e5eab94ba9d4294c49bcf2a60728d8b4c200f50dd313c1b\
             ab745879a5ad954a72c45a91c3a51d3c7adea98d82f8481e0e1e03674a6f3fb7",
        ],
    ];

    #[test]
    fn the_vectors_of_the_bip_are_signed_and_verified() {
        for [secret, x, auxiliary, message, signature] in VECTORS.map(|vector| vector.map(hex)) {
            let key = SigningKey::from_slice(&secret).unwrap();
            let made = sign_with(&key, &message, &auxiliary.try_into().unwrap()).unwrap();
            assert_eq!(made, signature);
            for sign in [2, 3] {
                let public = VerifyingKey::from_sec1_bytes(&[&[sign][..], &x].concat()).unwrap();
                assert_eq!(verify(&public, &message, &signature), Ok(()), "whichever y");
            }
        }
    }

    #[test]
    fn bitcoins_own_library_agrees_on_messages_of_any_length() {
        let key = SigningKey::from_slice(&[7; 32]).unwrap();
        let point = key.verifying_key().to_sec1_point(true);
        let theirs = secp256k1::XOnlyPublicKey::from_byte_array((*point.x().unwrap()).into()).unwrap();
        for length in [0, 1, 31, 32, 33, 1000] {
            let message = vec![length as u8; length];
            let signature = sign(&key, &message).unwrap();
            let read = secp256k1::schnorr::Signature::from_byte_array(signature.clone().try_into().unwrap());
            assert!(secp256k1::schnorr::verify(&read, &message, &theirs).is_ok(), "{length} bytes");
            assert_ne!(sign(&key, &message).unwrap(), signature, "each has its own nonce");
        }
    }
}
