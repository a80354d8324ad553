//! A session's calls with every return value in sight, and the keys that checks work with.

use cryptoki_sys::*;

use crate::bench::{Bench, MOST_LISTED};
use crate::check::Stop;
use crate::raw::{Arg, Function as F};
use crate::rv::Rv;
use crate::template::{Mechanism, Out, Template};

/// The DER encoding of the object identifier of P-256, secp256r1 (6.3).
pub const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// The DER encodings that name Ed25519: its object identifier (RFC 8410) and the curve name (PKCS#11 3.0, 6.3).
pub const ED25519: [&[u8]; 2] = [
    &[0x06, 0x03, 0x2b, 0x65, 0x70],
    &[0x13, 0x0c, b'e', b'd', b'w', b'a', b'r', b'd', b's', b'2', b'5', b'5', b'1', b'9'],
];

/// The two handles of a key pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPair {
    /// The public key.
    pub public: CK_OBJECT_HANDLE,
    /// The private key.
    pub private: CK_OBJECT_HANDLE,
}

/// An open session of the module under test.
#[derive(Clone, Copy)]
pub struct Session<'b> {
    /// Where it was opened.
    pub bench: &'b Bench,
    /// Its handle.
    pub handle: CK_SESSION_HANDLE,
}

impl Session<'_> {
    /// Calls a function whose first argument is the session.
    pub fn call(&self, function: F, rest: &[Arg<'_>]) -> Rv {
        let mut arguments = vec![Arg::number(self.handle)];
        arguments.extend_from_slice(rest);
        self.bench.module.call(function, &arguments)
    }

    /// `C_Login` (5.6.8).
    pub fn login(&self, user: CK_USER_TYPE, pin: &[u8]) -> Rv {
        self.call(F::C_Login, &[Arg::number(user), Arg::slice(pin), Arg::number(pin.len() as CK_ULONG)])
    }

    /// `C_Logout` (5.6.10).
    pub fn logout(&self) -> Rv {
        self.call(F::C_Logout, &[])
    }

    /// `C_CloseSession` (5.6.2).
    pub fn close(&self) -> Rv {
        self.call(F::C_CloseSession, &[])
    }

    /// `C_GetSessionInfo` (5.6.4).
    ///
    /// # Errors
    /// A failure, unless it answers `CKR_OK`.
    pub fn info(&self) -> Result<CK_SESSION_INFO, Stop> {
        let mut info = CK_SESSION_INFO::default();
        self.call(F::C_GetSessionInfo, &[Arg::of_mut(&mut info)]).ok()?;
        Ok(info)
    }

    /// `C_CreateObject` (5.7.1), which gives the handle too.
    pub fn try_create(&self, template: &Template) -> (Rv, CK_OBJECT_HANDLE) {
        let mut object = 0;
        let [attributes, count] = template.args();
        let rv = self.call(F::C_CreateObject, &[attributes, count, Arg::of_mut(&mut object)]);
        (rv, object)
    }

    /// An object.
    ///
    /// # Errors
    /// `Skipped`, if a write-protected token refuses it; a failure of `C_CreateObject`.
    pub fn create(&self, template: &Template) -> Result<CK_OBJECT_HANDLE, Stop> {
        let (rv, object) = self.try_create(template);
        if !rv.was(CKR_OK) && self.bench.is_write_protected() {
            return Err(Stop::Skipped(
                "the write-protected token makes no objects that checks need".to_owned(),
            ));
        }
        rv.ok().map(|()| object)
    }

    /// A data object on the token, for whatever wants to find it there.
    ///
    /// # Errors
    /// `NotOffered`, if the token keeps no data objects; as [`Self::create`].
    pub fn create_on_token(&self, template: Template) -> Result<CK_OBJECT_HANDLE, Stop> {
        let template = template.without(CKA_TOKEN).bool(CKA_TOKEN, true);
        let (rv, object) = self.try_create(&template);
        match rv.code {
            CKR_OK => Ok(object),
            CKR_ATTRIBUTE_VALUE_INVALID | CKR_TEMPLATE_INCONSISTENT => Err(Stop::NotOffered),
            _ => self.create(&template),
        }
    }

    /// `C_CopyObject` (5.7.2).
    pub fn copy(&self, object: CK_OBJECT_HANDLE, template: &Template) -> (Rv, CK_OBJECT_HANDLE) {
        let mut copy = 0;
        let [attributes, count] = template.args();
        let rv =
            self.call(F::C_CopyObject, &[Arg::number(object), attributes, count, Arg::of_mut(&mut copy)]);
        (rv, copy)
    }

    /// `C_DestroyObject` (5.7.3).
    pub fn destroy(&self, object: CK_OBJECT_HANDLE) -> Rv {
        self.call(F::C_DestroyObject, &[Arg::number(object)])
    }

    /// `C_GetAttributeValue` (5.7.5).
    pub fn query(&self, object: CK_OBJECT_HANDLE, template: &mut Template) -> Rv {
        let [attributes, count] = template.args_mut();
        self.call(F::C_GetAttributeValue, &[Arg::number(object), attributes, count])
    }

    /// One attribute's value.
    ///
    /// # Errors
    /// A failure of `C_GetAttributeValue`.
    pub fn attribute(&self, object: CK_OBJECT_HANDLE, kind: CK_ATTRIBUTE_TYPE) -> Result<Vec<u8>, Stop> {
        let mut asked = Template::new().ask(kind);
        self.query(object, &mut asked).ok()?;
        let mut given =
            Template::new().room(kind, usize::try_from(asked.length(0)).unwrap_or(0).min(1 << 20));
        self.query(object, &mut given).ok()?;
        Ok(given.value(0).to_vec())
    }

    /// `C_SetAttributeValue` (5.7.6).
    pub fn set(&self, object: CK_OBJECT_HANDLE, template: &Template) -> Rv {
        let [attributes, count] = template.args();
        self.call(F::C_SetAttributeValue, &[Arg::number(object), attributes, count])
    }

    /// `C_FindObjectsInit` (5.7.7).
    pub fn find_init(&self, template: &Template) -> Rv {
        self.call(F::C_FindObjectsInit, &template.args())
    }

    /// `C_FindObjects` (5.7.8) for at most this many.
    pub fn find_next(&self, most: usize) -> (Rv, Vec<CK_OBJECT_HANDLE>) {
        let mut objects: Vec<CK_OBJECT_HANDLE> = vec![0; most];
        let mut count: CK_ULONG = 0;
        let arguments =
            [Arg::slice_mut(&mut objects), Arg::number(most as CK_ULONG), Arg::of_mut(&mut count)];
        let rv = self.call(F::C_FindObjects, &arguments);
        objects.truncate(usize::try_from(count).unwrap_or(0));
        (rv, objects)
    }

    /// `C_FindObjectsFinal` (5.7.9).
    pub fn find_final(&self) -> Rv {
        self.call(F::C_FindObjectsFinal, &[])
    }

    /// All objects that match.
    ///
    /// # Errors
    /// A failure of a search function.
    pub fn find(&self, template: &Template) -> Result<Vec<CK_OBJECT_HANDLE>, Stop> {
        self.find_init(template).ok()?;
        let mut all = Vec::new();
        loop {
            let (rv, mut some) = self.find_next(64);
            rv.ok()?;
            if some.is_empty() {
                break;
            }
            all.append(&mut some);
            if all.len() > MOST_LISTED {
                let expected = format!("a search with at most {MOST_LISTED} objects, and an end");
                return Err(Stop::fail(expected, "C_FindObjects goes on"));
            }
        }
        self.find_final().ok()?;
        Ok(all)
    }

    /// Begins an operation: `C_*Init` with a mechanism, and with a key unless it is a digest.
    pub fn init(&self, function: F, mechanism: &Mechanism, key: Option<CK_OBJECT_HANDLE>) -> Rv {
        match key {
            Some(key) => self.call(function, &[mechanism.arg(), Arg::number(key)]),
            None => self.call(function, &[mechanism.arg()]),
        }
    }

    /// Input and output in one call: `C_Sign`, `C_Encrypt`, `C_EncryptUpdate` and their like.
    pub fn run(&self, function: F, input: &[u8], out: &mut Out) -> Rv {
        let [buffer, length] = out.args();
        self.call(function, &[Arg::slice(input), Arg::number(input.len() as CK_ULONG), buffer, length])
    }

    /// Input only: `C_SignUpdate`, `C_DigestUpdate`, `C_VerifyFinal` and their like.
    pub fn feed(&self, function: F, input: &[u8]) -> Rv {
        self.call(function, &[Arg::slice(input), Arg::number(input.len() as CK_ULONG)])
    }

    /// Output only: `C_SignFinal`, `C_DigestFinal` and their like.
    pub fn finish(&self, function: F, out: &mut Out) -> Rv {
        self.call(function, &out.args())
    }

    /// `C_Verify` (5.15.2).
    pub fn verify(&self, data: &[u8], signature: &[u8]) -> Rv {
        let lengths = (data.len() as CK_ULONG, signature.len() as CK_ULONG);
        self.call(
            F::C_Verify,
            &[Arg::slice(data), Arg::number(lengths.0), Arg::slice(signature), Arg::number(lengths.1)],
        )
    }

    /// A signature, from beginning to end.
    ///
    /// # Errors
    /// A failure of `C_SignInit` or `C_Sign`.
    pub fn sign(&self, mechanism: &Mechanism, key: CK_OBJECT_HANDLE, data: &[u8]) -> Result<Vec<u8>, Stop> {
        self.transform(F::C_SignInit, F::C_Sign, mechanism, key, data)
    }

    /// Output for input with a key, from beginning to end.
    ///
    /// # Errors
    /// A failure of either function.
    pub fn transform(
        &self,
        init: F,
        single: F,
        mechanism: &Mechanism,
        key: CK_OBJECT_HANDLE,
        input: &[u8],
    ) -> Result<Vec<u8>, Stop> {
        self.init(init, mechanism, Some(key)).ok()?;
        let mut out = Out::room(input.len() + 1024);
        self.run(single, input, &mut out).ok()?;
        Ok(out.bytes().to_vec())
    }

    /// `C_GenerateKey` (5.18.1).
    pub fn try_generate(&self, mechanism: &Mechanism, template: &Template) -> (Rv, CK_OBJECT_HANDLE) {
        let mut key = 0;
        let [attributes, count] = template.args();
        let rv = self.call(F::C_GenerateKey, &[mechanism.arg(), attributes, count, Arg::of_mut(&mut key)]);
        (rv, key)
    }

    /// `C_GenerateKeyPair` (5.18.2).
    pub fn try_generate_pair(
        &self,
        mechanism: &Mechanism,
        public: &Template,
        private: &Template,
    ) -> (Rv, KeyPair) {
        let mut pair = KeyPair { public: 0, private: 0 };
        let [public_attributes, public_count] = public.args();
        let [private_attributes, private_count] = private.args();
        let arguments = [
            mechanism.arg(),
            public_attributes,
            public_count,
            private_attributes,
            private_count,
            Arg::of_mut(&mut pair.public),
            Arg::of_mut(&mut pair.private),
        ];
        let rv = self.call(F::C_GenerateKeyPair, &arguments);
        (rv, pair)
    }

    /// A key pair.
    ///
    /// # Errors
    /// A failure of `C_GenerateKeyPair`.
    pub fn generate_pair(
        &self,
        mechanism: &Mechanism,
        public: &Template,
        private: &Template,
    ) -> Result<KeyPair, Stop> {
        let (rv, pair) = self.try_generate_pair(mechanism, public, private);
        rv.ok().map(|()| pair)
    }

    /// `C_WrapKey` (5.18.3), which gives the wrapped key too.
    pub fn wrap(
        &self,
        mechanism: &Mechanism,
        wrapping: CK_OBJECT_HANDLE,
        key: CK_OBJECT_HANDLE,
    ) -> (Rv, Vec<u8>) {
        let mut out = Out::room(4096);
        let [buffer, length] = out.args();
        let arguments = [mechanism.arg(), Arg::number(wrapping), Arg::number(key), buffer, length];
        let rv = self.call(F::C_WrapKey, &arguments);
        (rv, if rv.was(CKR_OK) { out.bytes().to_vec() } else { Vec::new() })
    }

    /// `C_UnwrapKey` (5.18.4), which gives the handle too.
    pub fn unwrap(
        &self,
        mechanism: &Mechanism,
        unwrapping: CK_OBJECT_HANDLE,
        blob: &[u8],
        template: &Template,
    ) -> (Rv, CK_OBJECT_HANDLE) {
        let mut key = 0;
        let [attributes, count] = template.args();
        let arguments = [
            mechanism.arg(),
            Arg::number(unwrapping),
            Arg::slice(blob),
            Arg::number(blob.len() as CK_ULONG),
            attributes,
            count,
            Arg::of_mut(&mut key),
        ];
        (self.call(F::C_UnwrapKey, &arguments), key)
    }

    /// `C_DeriveKey` (5.18.5), which gives the handle too.
    pub fn derive(
        &self,
        mechanism: &Mechanism,
        base: CK_OBJECT_HANDLE,
        template: &Template,
    ) -> (Rv, CK_OBJECT_HANDLE) {
        let mut key = 0;
        let [attributes, count] = template.args();
        let arguments = [mechanism.arg(), Arg::number(base), attributes, count, Arg::of_mut(&mut key)];
        (self.call(F::C_DeriveKey, &arguments), key)
    }

    /// An AES key of 32 bytes for all uses.
    ///
    /// # Errors
    /// `NotOffered`, or a failure of `C_GenerateKey`.
    pub fn aes(&self) -> Result<CK_OBJECT_HANDLE, Stop> {
        self.bench.offers(CKM_AES_KEY_GEN, CKF_GENERATE)?;
        let (rv, key) = self.try_generate(&Mechanism::plain(CKM_AES_KEY_GEN), &aes(32));
        rv.ok().map(|()| key)
    }

    /// An HMAC key, imported.
    ///
    /// # Errors
    /// `NotOffered`, or a failure of `C_CreateObject`.
    pub fn hmac_key(&self) -> Result<CK_OBJECT_HANDLE, Stop> {
        self.bench.offers(CKM_SHA256_HMAC, CKF_SIGN)?;
        let template = Template::secret(CKK_GENERIC_SECRET, &[0x0b; 32]).bool(CKA_PRIVATE, true);
        self.create(&template.usages(&[CKA_SIGN, CKA_VERIFY]))
    }

    /// A key pair on P-256.
    ///
    /// # Errors
    /// `NotOffered`, or a failure of `C_GenerateKeyPair`.
    pub fn p256(&self) -> Result<KeyPair, Stop> {
        self.bench.offers(CKM_EC_KEY_PAIR_GEN, CKF_GENERATE_KEY_PAIR)?;
        self.generate_pair(&Mechanism::plain(CKM_EC_KEY_PAIR_GEN), &ec_public(P256), &private())
    }

    /// An Ed25519 key pair, by whichever name of the curve the token knows.
    ///
    /// # Errors
    /// `NotOffered`, or a failure of `C_GenerateKeyPair`.
    pub fn ed25519(&self) -> Result<KeyPair, Stop> {
        self.bench.offers(CKM_EC_EDWARDS_KEY_PAIR_GEN, CKF_GENERATE_KEY_PAIR)?;
        let mechanism = Mechanism::plain(CKM_EC_EDWARDS_KEY_PAIR_GEN);
        let [oid, curve_name] = ED25519;
        match self.try_generate_pair(&mechanism, &edwards_public(oid), &private()) {
            (rv, pair) if rv.was(CKR_OK) => Ok(pair),
            _ => self.generate_pair(&mechanism, &edwards_public(curve_name), &private()),
        }
    }
}

/// The template of an AES key of the session for all uses.
pub fn aes(bytes: CK_ULONG) -> Template {
    Template::of_class(CKO_SECRET_KEY)
        .ulong(CKA_KEY_TYPE, CKK_AES)
        .bool(CKA_TOKEN, false)
        .bool(CKA_PRIVATE, true)
        .ulong(CKA_VALUE_LEN, bytes)
        .usages(&[CKA_ENCRYPT, CKA_DECRYPT])
}

/// The template of an EC public key of the session, of a key pair to be made.
pub fn ec_public(curve: &[u8]) -> Template {
    Template::of_class(CKO_PUBLIC_KEY)
        .ulong(CKA_KEY_TYPE, CKK_EC)
        .bool(CKA_TOKEN, false)
        .bytes(CKA_EC_PARAMS, curve)
        .usages(&[CKA_VERIFY])
}

/// The template of an Edwards public key of the session, of a key pair to be made.
pub fn edwards_public(curve: &[u8]) -> Template {
    Template::of_class(CKO_PUBLIC_KEY)
        .ulong(CKA_KEY_TYPE, CKK_EC_EDWARDS)
        .bool(CKA_TOKEN, false)
        .bytes(CKA_EC_PARAMS, curve)
        .usages(&[CKA_VERIFY])
}

/// The template of an RSA public key of the session, of a key pair to be made.
pub fn rsa_public(bits: CK_ULONG) -> Template {
    Template::of_class(CKO_PUBLIC_KEY)
        .ulong(CKA_KEY_TYPE, CKK_RSA)
        .bool(CKA_TOKEN, false)
        .ulong(CKA_MODULUS_BITS, bits)
        .bytes(CKA_PUBLIC_EXPONENT, &[1, 0, 1])
        .usages(&[CKA_VERIFY, CKA_ENCRYPT])
}

/// The template of a private key of the session that signs, of a key pair to be made.
pub fn private() -> Template {
    Template::of_class(CKO_PRIVATE_KEY)
        .bool(CKA_TOKEN, false)
        .bool(CKA_PRIVATE, true)
        .bool(CKA_SENSITIVE, true)
        .bool(CKA_EXTRACTABLE, false)
        .usages(&[CKA_SIGN])
}
