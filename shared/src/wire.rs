//! The wire: a 16-byte header, a CBOR body, and THE table of calls.
//!
//! ```text
//! | length u32 | version u8 | kind u8 | call u16 | id u64 | body: `length` bytes |      big-endian
//! ```
//! The body of a request is the [`Caller`] and then the call's own struct; of a reply, the reply's struct;
//! of a fault, a [`Fault`]. The major version is the ALPN name, so a frame of another version is an error.

use std::fmt;

use minicbor::{Decode, Decoder, Encode};

use crate::{fault::Fault, message::*, object::ObjectInfo};

/// The application protocol that both ends name in the TLS handshake.
pub const ALPN: &[u8] = b"strongroom/1";
/// The major version, in every frame.
pub const VERSION: u8 = 1;
/// The minor version that this build speaks, told in `Hello` and `Welcome`. It grows by one with each *release* that adds
/// calls: a call that the server does not know ends the connection, so a newer client looks at `Welcome` first. There
/// is no release yet, so every call of the table is of minor version 0.
pub const MINOR: u16 = 0;
/// The length of a frame header, in bytes.
pub const HEADER: usize = 16;
/// The greatest body, in bytes, unless `Welcome` says otherwise.
pub const DEFAULT_LIMIT: u32 = 1 << 20;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A call, from the client.
    Request = 1,
    /// The call's reply.
    Reply = 2,
    /// The call was not carried out.
    Fault = 3,
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The length of the body, in bytes.
    pub length: u32,
    /// What the frame is.
    pub kind: Kind,
    /// The number of the call, in the reply too.
    pub call: u16,
    /// Chosen by the client; a resent request has the same id.
    pub id: u64,
}

impl Header {
    /// The header as it travels.
    pub const fn encode(&self) -> [u8; HEADER] {
        let [l0, l1, l2, l3] = self.length.to_be_bytes();
        let [c0, c1] = self.call.to_be_bytes();
        let [i0, i1, i2, i3, i4, i5, i6, i7] = self.id.to_be_bytes();
        [l0, l1, l2, l3, VERSION, self.kind as u8, c0, c1, i0, i1, i2, i3, i4, i5, i6, i7]
    }

    /// Reads a header.
    ///
    /// # Errors
    /// `FrameError` if the version or the kind is unknown or the body longer than `limit` bytes: nothing
    /// after it on this connection can be understood.
    pub fn decode(bytes: &[u8; HEADER], limit: u32) -> Result<Self, FrameError> {
        let [l0, l1, l2, l3, version, kind, c0, c1, id @ ..] = *bytes;
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        let kind = match kind {
            1 => Kind::Request,
            2 => Kind::Reply,
            3 => Kind::Fault,
            other => return Err(FrameError::Kind(other)),
        };
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        if length > limit {
            return Err(FrameError::TooLong { length, limit });
        }
        Ok(Self { length, kind, call: u16::from_be_bytes([c0, c1]), id: u64::from_be_bytes(id) })
    }
}

/// Why a frame cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// Another protocol or version.
    Version(u8),
    /// Neither request, reply nor fault.
    Kind(u8),
    /// A body longer than allowed.
    TooLong {
        /// What the header says, in bytes.
        length: u32,
        /// What is allowed, in bytes.
        limit: u32,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(f, "frame of protocol version {version}, expected {VERSION}"),
            Self::Kind(kind) => write!(f, "frame of unknown kind {kind}"),
            Self::TooLong { length, limit } => {
                write!(f, "frame body of {length} bytes, the limit is {limit}")
            }
        }
    }
}

impl std::error::Error for FrameError {}

/// Appends a whole frame to `out`: a header and the CBOR of `parts`, one after the other.
fn write_frame(out: &mut Vec<u8>, kind: Kind, call: u16, id: u64, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER]);
    body(out);
    let length = u32::try_from(out.len() - start - HEADER).unwrap_or(u32::MAX);
    if let Some(header) = out.get_mut(start..start + HEADER) {
        header.copy_from_slice(&Header { length, kind, call, id }.encode());
    }
}

/// Appends the CBOR of a value. Writing to memory cannot fail, and no message has a fallible encoder.
fn write_value<T: Encode<()>>(out: &mut Vec<u8>, value: &T) {
    let result = minicbor::encode(value, &mut *out);
    debug_assert!(result.is_ok(), "a message could not be encoded");
}

/// Appends a request frame to `out`.
pub fn encode_request<C: Call>(out: &mut Vec<u8>, id: u64, caller: &Caller, call: &C) {
    write_frame(out, Kind::Request, C::ID as u16, id, |out| {
        write_value(out, caller);
        write_value(out, call);
    });
}

/// Appends a reply frame to `out`.
pub fn encode_reply<C: Call>(out: &mut Vec<u8>, id: u64, reply: &C::Reply) {
    write_frame(out, Kind::Reply, C::ID as u16, id, |out| write_value(out, reply));
}

/// Appends a fault frame to `out`.
pub fn encode_fault(out: &mut Vec<u8>, id: u64, call: u16, fault: &Fault) {
    write_frame(out, Kind::Fault, call, id, |out| write_value(out, fault));
}

/// Reads a body that holds one value and nothing after it.
///
/// # Errors
/// `BodyError` if it holds anything else.
pub fn decode_body<'b, T: Decode<'b, ()>>(body: &'b [u8]) -> Result<T, BodyError> {
    let mut decoder = Decoder::new(body);
    let value = decoder.decode()?;
    if decoder.position() == body.len() {
        Ok(value)
    } else {
        Err(BodyError("bytes after the end of the message".into()))
    }
}

/// Splits a request's body into who asks and the call's own bytes.
///
/// # Errors
/// `BodyError` if it does not begin with a `Caller`.
pub fn decode_caller(body: &[u8]) -> Result<(Caller, &[u8]), BodyError> {
    let mut decoder = Decoder::new(body);
    let caller = decoder.decode()?;
    let rest = body.get(decoder.position()..).unwrap_or_default();
    Ok((caller, rest))
}

/// A body that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyError(String);

impl From<minicbor::decode::Error> for BodyError {
    fn from(error: minicbor::decode::Error) -> Self {
        Self(error.to_string())
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed message: {}", self.0)
    }
}

impl std::error::Error for BodyError {}

/// Who may make a call. Objects have rules of their own on top (`CKA_PRIVATE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// Any certificate that the handshake let in.
    Anyone,
    /// An application's certificate, logged in or not.
    Application,
    /// An application with the normal user's or the security officer's ticket.
    LoggedIn,
    /// An application with the security officer's ticket.
    SecurityOfficer,
    /// An administrator's certificate.
    Administrator,
    /// The certificate of another node of the cluster.
    Node,
}

/// Whether a request may be sent again when its answer did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It changes nothing: it may be sent again at will.
    Safe,
    /// It may be sent again with the same id: the vault remembers its answer and does not act twice.
    Once,
}

/// How long a call keeps a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Microseconds.
    Quick,
    /// Microseconds, or milliseconds with an RSA key.
    ByKey,
    /// Milliseconds: it writes to the disk or reads much.
    Slow,
    /// Milliseconds, of which it waits for other nodes the longest.
    Together,
    /// Up to seconds: it makes a key or hashes a PIN, slowly on purpose.
    Patient,
}

/// Whether a call goes on record when it is refused or fails. What it does goes on record in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace {
    /// It does.
    Traced,
    /// It does not: a question whose refusal changes and reveals nothing.
    Silent,
}

/// A call knows its number, who may make it, whether it may be resent, and its reply.
pub trait Call: for<'b> Decode<'b, ()> + Encode<()> {
    /// Its row in the table.
    const ID: CallId;
    /// What the server answers.
    type Reply: for<'b> Decode<'b, ()> + Encode<()>;
}

/// Somebody who answers calls.
pub trait Service {
    /// What it knows of the caller.
    type Context<'a>;
    /// Why it does not do what was asked.
    type Error;
}

/// The answer to one call. A row of the table without its `Handle` does not compile.
pub trait Handle<C: Call>: Service {
    /// Carries out the call.
    ///
    /// # Errors
    /// The service's own.
    fn handle(&self, context: &mut Self::Context<'_>, call: C) -> Result<C::Reply, Self::Error>;
}

macro_rules! calls {
    ($( $number:literal $call:ident => $reply:ident, $permit:ident, $retry:ident, $pace:ident, $trace:ident; )*) => {
        /// The number of a call.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum CallId { $( #[doc = concat!("[`", stringify!($call), "`] → [`", stringify!($reply), "`]")] $call = $number, )* }

        impl CallId {
            /// Every call, in the order of the table.
            pub const ALL: &[Self] = &[ $( Self::$call, )* ];

            /// The call with this number.
            pub const fn from_number(number: u16) -> Option<Self> {
                match number { $( $number => Some(Self::$call), )* _ => None }
            }

            /// Its name, for logs and audit records.
            pub const fn name(self) -> &'static str { match self { $( Self::$call => stringify!($call), )* } }

            /// Who may make it.
            pub const fn permit(self) -> Permit { match self { $( Self::$call => Permit::$permit, )* } }

            /// Whether it may be resent.
            pub const fn retry(self) -> Retry { match self { $( Self::$call => Retry::$retry, )* } }

            /// How long it keeps a thread.
            pub const fn pace(self) -> Pace { match self { $( Self::$call => Pace::$pace, )* } }

            /// Whether it goes on record when it is not carried out.
            pub const fn trace(self) -> Trace { match self { $( Self::$call => Trace::$trace, )* } }
        }

        $( impl Call for $call { const ID: CallId = CallId::$call; type Reply = $reply; } )*

        /// Decodes the call from `body`, has `service` carry it out, and appends the reply frame to `out`.
        ///
        /// # Errors
        /// `Undone::Malformed` if the body is not this call's, `Undone::Refused` with the service's error;
        /// nothing was appended then.
        pub fn dispatch<S>(
            service: &S,
            context: &mut S::Context<'_>,
            call: CallId,
            id: u64,
            body: &[u8],
            out: &mut Vec<u8>,
        ) -> Result<(), Undone<S::Error>>
        where
            S: $( Handle<$call> + )*
        {
            match call {
                $( CallId::$call => {
                    let call: $call = decode_body(body).map_err(Undone::Malformed)?;
                    let reply = service.handle(context, call).map_err(Undone::Refused)?;
                    encode_reply::<$call>(out, id, &reply);
                } )*
            }
            Ok(())
        }
    };
}

/// Why a dispatched call has no reply.
#[derive(Debug)]
pub enum Undone<E> {
    /// Its body could not be read.
    Malformed(BodyError),
    /// The service did not do it.
    Refused(E),
}

calls! {
//  number call              reply           who may ask      resent  pace     refusals on record
    0x0001 Hello           => Welcome,       Anyone,          Safe, Quick,   Silent;
    0x0002 RenewCertificate => Certificate,  Anyone,          Once, Slow,    Traced;

    0x0100 ReadToken       => Token,         Application,     Safe, Quick,   Silent;
    0x0101 InitToken       => Done,          Application,     Once, Patient, Traced;
    0x0102 InitPin         => Done,          SecurityOfficer, Once, Patient, Traced;
    0x0103 SetPin          => PinChanged,    Application,     Once, Patient, Traced;
    0x0110 Login           => LoggedIn,      Application,     Once, Patient, Traced;
    0x0111 Logout          => Done,          LoggedIn,        Once, Quick,   Traced;
    0x0112 RenewTicket     => LoggedIn,      LoggedIn,        Safe, Quick,   Traced;

    0x0120 CreateObject    => ObjectInfo,    Application,     Once, Slow,    Traced;
    0x0121 CopyObject      => ObjectInfo,    Application,     Once, Slow,    Traced;
    0x0122 DestroyObject   => Done,          Application,     Once, Slow,    Traced;
    0x0123 DescribeObject  => ObjectInfo,    Application,     Safe, Quick,   Silent;
    0x0124 ReadAttributes  => Attributes,    Application,     Safe, Quick,   Traced;
    0x0125 WriteAttributes => Done,          Application,     Once, Slow,    Traced;
    0x0126 FindObjects     => Found,         Application,     Safe, Quick,   Silent;
    0x0127 CloseSession    => Done,          Application,     Safe, Quick,   Silent;
    0x0128 EndInstance     => Done,          Application,     Safe, Quick,   Silent;
    0x0129 DestroyShared   => Done,          Application,     Once, Slow,    Traced;

    0x0130 GenerateKey     => ObjectInfo,    Application,     Once, Patient, Traced;
    0x0131 GenerateKeyPair => KeyPair,       Application,     Once, Patient, Traced;
    0x0132 GenerateShared  => KeyPair,       Application,     Once, Patient, Traced;
    0x0136 DeriveKey       => ObjectInfo,    Application,     Once, Slow,    Traced;
    0x0137 DeriveShared    => ObjectInfo,    Application,     Once, Slow,    Traced;

    0x0140 Sign            => Signature,     Application,     Once, ByKey,   Traced;
    0x0141 Verify          => Done,          Application,     Once, ByKey,   Traced;
    0x0142 Encrypt         => Bytes,         Application,     Once, ByKey,   Traced;
    0x0143 Decrypt         => Bytes,         Application,     Once, ByKey,   Traced;
    0x0145 SignShared      => Signature,     Application,     Once, Together, Traced;
    0x0150 GenerateRandom  => Bytes,         Application,     Safe, Quick,   Silent;
    0x0151 SeedRandom      => Done,          Application,     Once, Quick,   Traced;

    0x0800 CreatePartition => PartitionInfo, Administrator,   Once, Slow,    Traced;
    0x0801 DeletePartition => Done,          Administrator,   Once, Slow,    Traced;
    0x0802 ListPartitions  => Partitions,    Administrator,   Safe, Slow,    Traced;
    0x0810 AddClient       => Certificate,   Administrator,   Once, Slow,    Traced;
    0x0811 RevokeClient    => Done,          Administrator,   Once, Slow,    Traced;
    0x0812 ListClients     => Clients,       Administrator,   Safe, Slow,    Traced;
    0x0813 AdmitClient     => Done,          Administrator,   Once, Slow,    Traced;
    0x0820 ListKeys        => Keys,          Administrator,   Safe, Slow,    Traced;
    0x0821 ReadShares      => SharesRead,    Administrator,   Safe, Slow,    Traced;
    0x0822 RenewShares     => OrderState,    Administrator,   Once, Patient, Traced;
    0x0823 ListOrders      => Orders,        Administrator,   Safe, Slow,    Traced;
    0x0824 ListWaiting     => WaitingShares, Administrator,   Safe, Slow,    Traced;
    0x0830 SetPolicy       => Done,          Administrator,   Once, Slow,    Traced;
    0x0831 ReadPolicy      => PolicyText,    Administrator,   Safe, Slow,    Traced;
    0x0832 Freeze          => Done,          Administrator,   Once, Slow,    Traced;
    0x0833 Thaw            => Done,          Administrator,   Once, Slow,    Traced;
    0x0840 TailAudit       => AuditRecords,  Administrator,   Safe, Slow,    Traced;
    0x0841 VerifyAudit     => AuditVerified, Administrator,   Safe, Slow,    Traced;
    0x0850 ReadStatus      => Status,        Administrator,   Safe, Slow,    Traced;
    0x0851 RenewServer     => ServerRenewed, Administrator,   Once, Slow,    Traced;

    0x0900 Introduce       => Introduction,  Administrator,   Once, Slow,    Traced;
    0x0901 InstallMembership => Done,       Administrator,   Once, Slow,    Traced;
    0x0902 ReadCluster     => ClusterState,  Administrator,   Safe, Slow,    Traced;
    0x0910 GreetNode       => NodeGreeting,  Node,            Safe, Quick,   Silent;
    0x0911 OfferMembership => Done,          Node,            Safe, Slow,    Traced;
    0x0912 ShakeHands      => HandsShaken,   Node,            Safe, Quick,   Traced;
    0x0913 SealedCall      => SealedReply,   Node,            Safe, Slow,    Traced;
}
