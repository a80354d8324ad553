//! The few DER encodings that key attributes need (X.690): reading an OCTET STRING, writing a public key.

/// The OBJECT IDENTIFIER of `id-ecPublicKey`, encoded (RFC 5480).
const EC_PUBLIC_KEY: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];

const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const SEQUENCE: u8 = 0x30;

/// Wraps bytes in an OCTET STRING, as `CKA_EC_POINT` wants (PKCS#11 3.1, 6.3.3).
pub fn octet_string(bytes: &[u8]) -> Vec<u8> {
    element(OCTET_STRING, &[bytes])
}

/// The contents of `encoded` if it is exactly one OCTET STRING of `length` bytes.
pub fn open_octet_string(encoded: &[u8], length: usize) -> Option<&[u8]> {
    let contents = encoded.get(encoded.len().checked_sub(length)?..)?;
    (element(OCTET_STRING, &[contents]) == encoded).then_some(contents)
}

/// `SubjectPublicKeyInfo` of a point on a named curve; `curve` is its encoded OID (RFC 5480).
pub fn ec_public_key_info(curve: &[u8], point: &[u8]) -> Vec<u8> {
    public_key_info(&[EC_PUBLIC_KEY, curve], point)
}

/// `SubjectPublicKeyInfo` of an Edwards point; `curve` is its encoded OID (RFC 8410).
pub fn edwards_public_key_info(curve: &[u8], point: &[u8]) -> Vec<u8> {
    public_key_info(&[curve], point)
}

fn public_key_info(algorithm: &[&[u8]], key: &[u8]) -> Vec<u8> {
    element(SEQUENCE, &[&element(SEQUENCE, algorithm), &element(BIT_STRING, &[&[0], key])])
}

/// One element with its contents in parts. Everything here is shorter than 65,536 bytes.
fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    let [.., high, low] = length.to_be_bytes();
    let mut encoded = vec![tag];
    match length {
        0..=0x7f => encoded.push(low),
        0x80..=0xff => encoded.extend([0x81, low]),
        _ => encoded.extend([0x82, high, low]),
    }
    encoded.extend(parts.concat());
    encoded
}
