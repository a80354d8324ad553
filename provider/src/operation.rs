//! Active operations: what stands between an `Init` and the end (PKCS#11 3.1, section 5.1.6 and 5.8 to 5.14).
//!
//! A session has at most one operation of each kind. The rules that all kinds share are written here once:
//! what an `Init` checks, and that any failure ends an operation, but for a buffer that is too small.

use pkcs11_sys::*;
use strongroom_shared::{
    mechanism::{Mechanism, Params, Row, flag_of},
    object::{ObjectInfo, Usage},
    secret::Wiped,
};

use crate::{
    decrypt::Decryption,
    digest::Digest,
    encrypt::Encryption,
    ffi::pointers::Input,
    log::{self, Level},
    object::Find,
    rv::Error,
    session::Context,
};

/// A mechanism and its parameter, as a caller chose it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The mechanism.
    pub mechanism: Mechanism,
    /// Its parameter, of the kind that the mechanism takes.
    pub params: Params,
}

/// The active operations of a session.
#[derive(Default)]
pub struct Operations {
    pub(crate) find: Option<Find>,
    pub(crate) sign: Option<Signing>,
    pub(crate) verify: Option<Signing>,
    pub(crate) encrypt: Option<Encryption>,
    pub(crate) decrypt: Option<Decryption>,
    pub(crate) digest: Option<Digest>,
}

impl Operations {
    /// Whether an operation is active that uses a key.
    pub fn uses_key(&self) -> bool {
        self.sign.is_some() || self.verify.is_some() || self.encrypt.is_some() || self.decrypt.is_some()
    }

    /// Ends the operations that `C_SessionCancel`'s flags name.
    pub(crate) fn cancel(&mut self, flags: CK_FLAGS) {
        let named = |flag| flags & flag != 0;
        if named(CKF_FIND_OBJECTS) {
            self.find = None;
        }
        if named(CKF_SIGN) {
            self.sign = None;
        }
        if named(CKF_VERIFY) {
            self.verify = None;
        }
        if named(CKF_ENCRYPT) {
            self.encrypt = None;
        }
        if named(CKF_DECRYPT) {
            self.decrypt = None;
        }
        if named(CKF_DIGEST) {
            self.digest = None;
        }
    }
}

/// What a step left of its operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// It goes on.
    Active,
    /// It is over.
    Over,
}

/// Takes one step of an operation. Every failure ends it, but for `BufferTooSmall`.
pub(crate) fn step<O>(
    active: &mut Option<O>,
    step: impl FnOnce(&mut O) -> Result<After, Error>,
) -> Result<(), Error> {
    let operation = active.as_mut().ok_or(Error::OperationNotInitialized)?;
    match step(operation) {
        Ok(After::Active) => Ok(()),
        Err(Error::BufferTooSmall) => Err(Error::BufferTooSmall),
        Ok(After::Over) => {
            *active = None;
            Ok(())
        }
        Err(error) => {
            *active = None;
            Err(error)
        }
    }
}

/// The start of an operation: no mechanism ends the one that is active (3.0), and there can be only one.
pub(crate) fn begin<O>(
    active: &mut Option<O>,
    chosen: Option<Chosen>,
    start: impl FnOnce(Chosen) -> Result<O, Error>,
) -> Result<(), Error> {
    match (chosen, active.is_some()) {
        (None, true) => *active = None,
        (None, false) => return Err(Error::ArgumentsBad),
        (Some(_), true) => return Err(Error::OperationActive),
        (Some(chosen), false) => *active = Some(start(chosen)?),
    }
    Ok(())
}

/// A key about to be used by a mechanism, checked as far as it can be checked here.
pub(crate) struct Keyed {
    pub key: ObjectInfo,
    pub mechanism: Mechanism,
    pub params: Params,
}

impl Keyed {
    /// Checks what an `Init` must check. Costs no round trip, unless the key seems not to permit the use: it
    /// may have been changed by another application, so the server is asked before the caller is refused.
    pub fn new(
        context: &Context<'_>,
        chosen: Chosen,
        key: CK_OBJECT_HANDLE,
        usage: Usage,
    ) -> Result<Self, Error> {
        let Chosen { mechanism, params } = chosen;
        let row = mechanism.row();
        if !row.supports(flag_of(usage)) {
            return Err(Error::MechanismInvalid);
        }
        if !row.takes(&params) {
            return Err(Error::MechanismParamInvalid);
        }
        let object = context.module.object(context.slot.id, key).ok_or(Error::KeyHandleInvalid)?;
        let mut key = object.info;
        if !matches!(key.class, CKO_PUBLIC_KEY | CKO_PRIVATE_KEY | CKO_SECRET_KEY) {
            return Err(Error::KeyHandleInvalid);
        }
        if key.private && context.login().is_none() {
            return Err(Error::UserNotLoggedIn);
        }
        if !key.key_type.is_some_and(|key_type| row.key.accepts(key_type)) {
            return Err(Error::KeyTypeInconsistent);
        }
        if !key.usage.permits(usage) {
            key = context.describe(key.id).map_err(of_key)?;
        }
        if !key.usage.permits(usage) {
            return Err(Error::KeyFunctionNotPermitted);
        }
        // What a key allows never changes, so what is known of it is true.
        if key.kept_from.as_ref().is_some_and(|others| others.contains(&row.number)) {
            return Err(Error::MechanismInvalid);
        }
        if !row.bits.contains(&key.bits) {
            return Err(Error::KeySizeRange);
        }
        Ok(Self { key, mechanism, params })
    }

    /// The mechanism's row in the table.
    pub fn row(&self) -> Row {
        self.mechanism.row()
    }

    /// The mechanism's number.
    pub fn number(&self) -> u64 {
        self.mechanism.row().number
    }
}

/// An object that is no more, in a function that was asked for a key.
fn of_key(error: Error) -> Error {
    match error {
        Error::Fault(fault) if fault.code == strongroom_shared::fault::FaultCode::ObjectHandleInvalid => {
            Error::KeyHandleInvalid
        }
        other => other,
    }
}

/// An active signature or verification: the message is collected and travels whole, for the server hashes it
/// and policy reads it.
pub(crate) struct Signing {
    pub keyed: Keyed,
    /// What the updates brought; none before the first.
    pub parts: Option<Wiped>,
}

impl Signing {
    pub fn new(keyed: Keyed) -> Self {
        Self { keyed, parts: None }
    }

    /// Adds a part.
    pub fn update(&mut self, part: &Input<'_>, limit: usize) -> Result<After, Error> {
        let parts = self.parts.get_or_insert_default();
        append(parts, whole_message(part, parts.len(), limit)?, limit)?;
        Ok(After::Active)
    }

    /// Fails after an update: the one-shot function is not for it.
    pub fn require_whole(&self) -> Result<(), Error> {
        if self.parts.is_none() { Ok(()) } else { Err(Error::OperationActive) }
    }

    /// How long the signature is.
    pub fn signature_length(&self) -> usize {
        self.keyed.row().output_length(&self.keyed.key, &self.keyed.params, 0)
    }
}

/// The rest of a message of which `before` bytes have come, if a frame takes it all. If not, the log says what to do.
pub(crate) fn whole_message<'a>(rest: &Input<'a>, before: usize, limit: usize) -> Result<&'a [u8], Error> {
    rest.slice(limit.saturating_sub(before)).inspect_err(|error| {
        if *error == Error::DataLenRange {
            let length = rest.length().saturating_add(before as CK_ULONG);
            log::write(
                Level::Warn,
                format_args!(
                    "the message has {length} bytes, a frame takes {limit}: hash it first (CKM_ECDSA), or raise \
                     the server's frame_bytes"
                ),
            );
        }
    })
}

/// Adds to a buffer whose size is bounded by what one frame can carry.
pub(crate) fn append(buffer: &mut Wiped, part: &[u8], limit: usize) -> Result<(), Error> {
    let length = buffer.len().saturating_add(part.len());
    if length > limit {
        return Err(Error::DataLenRange);
    }
    if buffer.capacity() < length {
        // By hand, so that the old memory is wiped and not just given back.
        let mut larger = Wiped::from(Vec::with_capacity(length.next_power_of_two()));
        larger.extend_from_slice(buffer);
        *buffer = larger;
    }
    buffer.extend_from_slice(part);
    Ok(())
}
