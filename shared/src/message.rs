//! One small struct per request and reply. What a call is for stands in the table of `wire.rs`.
//!
//! Fields are numbered and numbers are never reused. A new optional field may only describe; a field
//! that restricts what the server may do is a new call.

use std::fmt;

use minicbor::{
    Decode, Decoder, Encode, Encoder,
    bytes::{ByteArray, ByteVec},
    decode, encode,
};
use zeroize::Zeroizing;

use crate::{
    mandate::Mandated,
    mechanism::Params,
    object::{ObjectId, ObjectInfo, Template, Value},
    secret::{Secret, Wiped},
};

/// A PIN on its way to the vault, in UTF-8.
#[derive(Debug)]
pub struct Pin(pub Secret<Vec<u8>>);

impl Pin {
    /// Copies a PIN out of a caller's memory.
    pub fn new(bytes: &[u8]) -> Self {
        Self(Secret::new(bytes.to_vec()))
    }
}

impl<C> Encode<C> for Pin {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.bytes(self.0.expose())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Pin {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        Ok(Self::new(d.bytes()?))
    }
}

/// What a login gave: sealed by the vault, opaque to the provider, good until it expires or the PIN changes.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket(pub Zeroizing<Vec<u8>>);

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[ticket]")
    }
}

impl<C> Encode<C> for Ticket {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Ticket {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        Ok(Self(Zeroizing::new(d.bytes()?.to_vec())))
    }
}

/// An application's memory of the token, from `C_Initialize` to `C_Finalize`: session objects belong to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct InstanceId(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 16]);

/// Who asks, beyond the certificate: stands before every call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Caller {
    /// The application.
    #[n(0)]
    pub instance: InstanceId,
    /// Its session, `CK_SESSION_HANDLE`; 0 for none.
    #[n(1)]
    pub session: u64,
    /// Whether the session may change token objects (`CKF_RW_SESSION`).
    #[n(2)]
    pub read_write: bool,
    /// Its login, if it has one.
    #[n(3)]
    pub ticket: Option<Ticket>,
    /// Requests that have ended for the application since it last said so: their answers may be forgotten.
    #[n(4)]
    pub ended: Vec<u64>,
}

macro_rules! messages {
    ($( $(#[$doc:meta])* $name:ident { $( $(#[$field_doc:meta])* $n:literal $field:ident : $type:ty $(as $with:literal)? ),* $(,)? } )*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Encode, Decode)]
            pub struct $name {
                $( $(#[$field_doc])* #[cbor(n($n) $(, with = $with)?)] pub $field: $type, )*
            }
        )*
    };
}

mod admin;
mod cluster;
mod shares;

pub use admin::*;
pub use cluster::*;
pub use shares::*;

messages! {
    /// The first call on a connection.
    Hello {
        /// The minor version of the protocol that the client speaks.
        0 minor: u16,
        /// The client's name and version, for the log.
        1 client: String,
    }
    /// What the client may count on.
    Welcome {
        /// The minor version of the protocol that the server speaks.
        0 minor: u16,
        /// The greatest body of a frame, in bytes, in both directions.
        1 limit: u32,
        /// The server's name and version.
        2 server: String,
        /// The partition that the certificate names; absent for an administrator.
        3 partition: Option<String>,
        /// In how many seconds it is time to renew the client's certificate; 0 if it is now.
        4 renew_in: Option<u64>,
        /// The cluster that the server is a node of.
        5 cluster: Option<ByteArray<16>>,
    }
    /// Has another certificate made for the client, like its present one. That ends soon after the new one is
    /// first shown, and not before.
    RenewCertificate {
        /// A PKCS#10 request in DER, signed by the new key: its public key is what counts.
        0 request: Vec<u8> as "minicbor::bytes",
    }
    /// The call was carried out and has nothing more to say.
    Done {}

    /// Asks for what `C_GetTokenInfo` shows.
    ReadToken {}
    /// A token's state.
    Token {
        /// `label`, unpadded.
        0 label: String,
        /// 16 characters that name the partition for ever.
        1 serial: String,
        /// Whether `C_InitToken` has been called.
        2 initialized: bool,
        /// Whether the normal user's PIN has been set.
        3 user_pin_set: bool,
        /// How close the normal user is to lockout.
        4 user: Tries,
        /// How close the security officer is to lockout.
        5 security_officer: Tries,
        /// The shortest PIN, in bytes.
        6 min_pin: u32,
        /// The longest PIN, in bytes.
        7 max_pin: u32,
    }
    /// `C_InitToken`: destroys every object of the token.
    InitToken {
        /// The security officer's PIN: the one that is set, or on a new token the one to set.
        0 pin: Pin,
        /// The new label, unpadded.
        1 label: String,
    }
    /// `C_InitPIN`: sets the normal user's PIN and unlocks it.
    InitPin {
        /// The normal user's new PIN.
        0 pin: Pin,
    }
    /// `C_SetPIN`: changes the PIN of whoever is logged in, of the normal user if nobody is.
    SetPin {
        /// The PIN that is set.
        0 old: Pin,
        /// The PIN to set.
        1 new: Pin,
    }
    /// The PIN was changed. Every ticket of the role has ended.
    PinChanged {
        /// A new one for a caller who was logged in.
        0 ticket: Option<Ticket>,
    }
    /// `C_Login`.
    Login {
        /// Whose PIN it is.
        0 user: User,
        /// The PIN.
        1 pin: Pin,
    }
    /// A login that succeeded.
    LoggedIn {
        /// To be shown with every call that needs the login.
        0 ticket: Ticket,
        /// When the ticket expires, in seconds since 1970.
        1 expires: u64,
        /// For how long it is good, in seconds, for a caller whose clock is another.
        2 life: Option<u64>,
    }
    /// Another ticket for the login that the caller's ticket stands for, which may have expired a while ago.
    RenewTicket {}
    /// `C_Logout`: the application's private session objects are destroyed.
    Logout {}

    /// `C_CreateObject`.
    CreateObject {
        /// The object's attributes.
        0 template: Template,
    }
    /// `C_CopyObject`.
    CopyObject {
        /// What to copy.
        0 object: ObjectId,
        /// What is to be different in the copy.
        1 template: Template,
    }
    /// `C_DestroyObject`.
    DestroyObject {
        /// What to destroy.
        0 object: ObjectId,
    }
    /// `C_DestroyObject` of a private key of which several nodes hold shares.
    DestroyShared {
        /// A mandate for a `DestroyObject`.
        0 mandated: Mandated,
    }
    /// What the provider should know of an object whose handle it holds.
    DescribeObject {
        /// The object.
        0 object: ObjectId,
    }
    /// `C_GetAttributeValue`.
    ReadAttributes {
        /// The object.
        0 object: ObjectId,
        /// The types asked for, in order.
        1 kinds: Vec<u64>,
    }
    /// The answers of `C_GetAttributeValue`, in the order of the question.
    Attributes {
        /// One answer per type asked for.
        0 answers: Vec<Answer>,
    }
    /// `C_SetAttributeValue`: all of the changes or none.
    WriteAttributes {
        /// The object.
        0 object: ObjectId,
        /// The attributes to change.
        1 template: Template,
    }
    /// `C_FindObjectsInit`: a page of the objects that match.
    FindObjects {
        /// The attributes that must be equal; none finds every object.
        0 template: Template,
        /// The last object of the page before.
        1 after: Option<ObjectId>,
    }
    /// Some of the objects that match, in the order of their ids.
    Found {
        /// The page.
        0 objects: Vec<ObjectInfo>,
        /// Whether another page follows.
        1 more: bool,
    }
    /// `C_CloseSession` of a session that made session objects: they are destroyed.
    CloseSession {}
    /// `C_Finalize`: every session object of the application is destroyed.
    EndInstance {}

    /// `C_GenerateKey`.
    GenerateKey {
        /// `CKM_*`.
        0 mechanism: u64,
        /// Its parameter.
        1 params: Params,
        /// The key's attributes.
        2 template: Template,
    }
    /// `C_GenerateKeyPair`.
    GenerateKeyPair {
        /// `CKM_*`.
        0 mechanism: u64,
        /// Its parameter.
        1 params: Params,
        /// The public key's attributes.
        2 public: Template,
        /// The private key's attributes.
        3 private: Template,
    }
    /// A new key pair.
    KeyPair {
        /// The public key.
        0 public: ObjectInfo,
        /// The private key.
        1 private: ObjectInfo,
        /// Of a shared key: every node's signed word that this is what they have made, a `shares::Certificate`.
        2 certificate: Option<ByteVec>,
    }
    /// `C_GenerateKeyPair` of a private key of which several nodes are to hold shares.
    GenerateShared {
        /// A mandate for a `GenerateKeyPair`.
        0 mandated: Mandated,
    }
    /// `C_DeriveKey`.
    DeriveKey {
        /// `CKM_*`.
        0 mechanism: u64,
        /// Its parameter.
        1 params: Params,
        /// The key that the new one follows from.
        2 base: ObjectId,
        /// The new key's attributes.
        3 template: Template,
    }
    /// `C_DeriveKey` from a private key of which several nodes hold shares.
    DeriveShared {
        /// A mandate for a `DeriveKey`.
        0 mandated: Mandated,
    }

    /// `C_Sign`: the whole message travels, so that policy can read it.
    Sign {
        /// The key.
        0 key: ObjectId,
        /// `CKM_*`.
        1 mechanism: u64,
        /// Its parameter.
        2 params: Params,
        /// The message, or for raw mechanisms the caller's hash value.
        3 input: Vec<u8> as "minicbor::bytes",
    }
    /// `C_Sign` with a private key of which several nodes hold shares.
    SignShared {
        /// A mandate for a `Sign`.
        0 mandated: Mandated,
    }
    /// A signature or MAC, in the encoding that PKCS#11 gives the mechanism.
    Signature {
        /// The bytes.
        0 bytes: Vec<u8> as "minicbor::bytes",
    }
    /// `C_Verify`.
    Verify {
        /// The key.
        0 key: ObjectId,
        /// `CKM_*`.
        1 mechanism: u64,
        /// Its parameter.
        2 params: Params,
        /// The message, or for raw mechanisms the caller's hash value.
        3 input: Vec<u8> as "minicbor::bytes",
        /// What is to be verified.
        4 signature: Vec<u8> as "minicbor::bytes",
    }
    /// `C_Encrypt`.
    Encrypt {
        /// The key.
        0 key: ObjectId,
        /// `CKM_*`.
        1 mechanism: u64,
        /// Its parameter.
        2 params: Params,
        /// The plaintext.
        3 input: Vec<u8> as "minicbor::bytes",
    }
    /// `C_Decrypt`.
    Decrypt {
        /// The key.
        0 key: ObjectId,
        /// `CKM_*`.
        1 mechanism: u64,
        /// Its parameter.
        2 params: Params,
        /// The ciphertext.
        3 input: Vec<u8> as "minicbor::bytes",
    }
    /// The result of an encryption or a decryption, or random bytes.
    Bytes {
        /// The bytes, wiped by whoever drops them.
        0 bytes: SecretBytes,
    }
    /// `C_GenerateRandom`.
    GenerateRandom {
        /// How many bytes; at most the frame limit.
        0 length: u32,
    }
    /// `C_SeedRandom`: mixed into the vault's generator, never in its place.
    SeedRandom {
        /// The seed.
        0 seed: Vec<u8> as "minicbor::bytes",
    }
}

/// Bytes that may be secret, such as a decrypted text: wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretBytes(pub Wiped);

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} bytes]", self.0.len())
    }
}

impl<C> Encode<C> for SecretBytes {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for SecretBytes {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        Ok(Self(d.bytes()?.into()))
    }
}

/// How many wrong PINs a role has left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Tries {
    /// None was wrong since the last login.
    #[default]
    #[n(0)]
    All,
    /// At least one was wrong (`CKF_*_PIN_COUNT_LOW`).
    #[n(1)]
    Some,
    /// The next wrong one locks the role (`CKF_*_PIN_FINAL_TRY`).
    #[n(2)]
    Last,
    /// The role is locked (`CKF_*_PIN_LOCKED`).
    #[n(3)]
    None,
}

/// Whose PIN a login shows (`CK_USER_TYPE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum User {
    /// `CKU_USER`.
    #[n(0)]
    Normal,
    /// `CKU_SO`.
    #[n(1)]
    SecurityOfficer,
}

/// One answer of `C_GetAttributeValue`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    /// The value.
    #[n(0)]
    Value(#[n(0)] Value),
    /// The object has it and does not show it (`CKR_ATTRIBUTE_SENSITIVE`).
    #[n(1)]
    Sensitive,
    /// The object has none of this type (`CKR_ATTRIBUTE_TYPE_INVALID`).
    #[n(2)]
    Absent,
}
