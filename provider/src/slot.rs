//! Slots, tokens and mechanisms (PKCS#11 3.1, section 5.5), and `C_GetInfo`.
//!
//! A slot is one `[[token]]` of the configuration; its token is there while its server answers. So slots are
//! `CKF_REMOVABLE_DEVICE`, and a server that is down is a token that was taken out.

use std::sync::Arc;

use pkcs11_sys::*;
use strongroom_shared::{
    mechanism::{KeyKind, Mechanism},
    message::{InitToken, Pin, ReadToken, Token, Tries},
};

use crate::{
    hsm::{Hsm, Patience, RequestIds},
    mandate::Mandates,
    module::Module,
    rv::Error,
    seen::Shown,
};

/// `manufacturerID` of everything.
const MANUFACTURER: &str = "Strongroom";
/// `libraryVersion`, `firmwareVersion`.
const VERSION: CK_VERSION = CK_VERSION { major: 0, minor: 1 };
/// Cryptoki 2.40.
pub const CRYPTOKI_2_40: CK_VERSION = CK_VERSION { major: 2, minor: 40 };
/// Cryptoki 3.0.
pub const CRYPTOKI_3_0: CK_VERSION = CK_VERSION { major: 3, minor: 0 };

/// One `[[token]]` of the configuration.
pub struct Slot {
    /// `CK_SLOT_ID`: its place in the configuration, from 0.
    pub id: CK_SLOT_ID,
    /// `host:port`.
    pub server: String,
    /// The way to it.
    pub hsm: Hsm,
    /// For calls to keys that several nodes share.
    pub mandates: Mandates,
    /// What was shown of such keys.
    pub shown: Shown,
}

impl Slot {
    pub(crate) fn after_fork(&self, ids: Arc<RequestIds>) -> Self {
        Self {
            id: self.id,
            server: self.server.clone(),
            hsm: self.hsm.after_fork(ids),
            mandates: self.mandates.after_fork(),
            shown: self.shown.after_fork(),
        }
    }
}

/// `C_GetInfo`. `version` is that of the function list through which it was called.
pub fn library_info(version: CK_VERSION) -> CK_INFO {
    CK_INFO {
        cryptokiVersion: version,
        manufacturerID: padded(MANUFACTURER),
        flags: 0,
        libraryDescription: padded("Strongroom PKCS#11 module"),
        libraryVersion: VERSION,
    }
}

/// `C_GetSlotList` with `tokenPresent`: the slots whose server answers right now.
pub fn with_token(module: &Module) -> Vec<CK_SLOT_ID> {
    module
        .slots()
        .iter()
        .filter(|slot| read_token(module, slot, Patience::None).is_ok())
        .map(|slot| slot.id)
        .collect()
}

fn read_token(module: &Module, slot: &Slot, patience: Patience) -> Result<Token, Error> {
    slot.hsm.call_with(&module.caller(slot.id, None), &ReadToken {}, patience).map_err(Error::of_slot)
}

/// `C_GetSlotInfo`.
///
/// # Errors
/// `SlotIdInvalid`. A server that does not answer is `CKF_TOKEN_PRESENT` not set.
pub fn info(module: &Module, slot: CK_SLOT_ID) -> Result<CK_SLOT_INFO, Error> {
    let slot = module.slot(slot)?;
    let present = match read_token(module, slot, Patience::None) {
        Ok(_) => CKF_TOKEN_PRESENT,
        Err(_) => 0,
    };
    Ok(CK_SLOT_INFO {
        slotDescription: padded(&format!("Strongroom HSM at {}", slot.server)),
        manufacturerID: padded(MANUFACTURER),
        flags: CKF_REMOVABLE_DEVICE | present,
        hardwareVersion: VERSION,
        firmwareVersion: VERSION,
    })
}

/// `C_GetTokenInfo`.
///
/// # Errors
/// `SlotIdInvalid`, `TokenNotPresent`.
pub fn token_info(module: &Module, slot: CK_SLOT_ID) -> Result<CK_TOKEN_INFO, Error> {
    let slot = module.slot(slot)?;
    let token = read_token(module, slot, Patience::Deadline)?;
    let state = module.state();
    let sessions = state.of_slot(slot.id).count() as CK_ULONG;
    let read_write = state.of_slot(slot.id).filter(|session| session.is_read_write()).count() as CK_ULONG;
    Ok(CK_TOKEN_INFO {
        label: padded(&token.label),
        manufacturerID: padded(MANUFACTURER),
        model: padded("Strongroom"),
        serialNumber: padded(&token.serial),
        flags: token_flags(&token),
        ulMaxSessionCount: CK_EFFECTIVELY_INFINITE,
        ulSessionCount: sessions,
        ulMaxRwSessionCount: CK_EFFECTIVELY_INFINITE,
        ulRwSessionCount: read_write,
        ulMaxPinLen: token.max_pin.into(),
        ulMinPinLen: token.min_pin.into(),
        ulTotalPublicMemory: CK_UNAVAILABLE_INFORMATION,
        ulFreePublicMemory: CK_UNAVAILABLE_INFORMATION,
        ulTotalPrivateMemory: CK_UNAVAILABLE_INFORMATION,
        ulFreePrivateMemory: CK_UNAVAILABLE_INFORMATION,
        hardwareVersion: VERSION,
        firmwareVersion: VERSION,
        utcTime: padded(""),
    })
}

fn token_flags(token: &Token) -> CK_FLAGS {
    let when = |condition: bool, flag| if condition { flag } else { 0 };
    let tries = |tries: Tries, low, last, locked| match tries {
        Tries::All => 0,
        Tries::Some => low,
        Tries::Last => low | last,
        Tries::None => locked,
    };
    CKF_RNG
        | CKF_LOGIN_REQUIRED
        | when(token.initialized, CKF_TOKEN_INITIALIZED)
        | when(token.user_pin_set, CKF_USER_PIN_INITIALIZED)
        | tries(token.user, CKF_USER_PIN_COUNT_LOW, CKF_USER_PIN_FINAL_TRY, CKF_USER_PIN_LOCKED)
        | tries(token.security_officer, CKF_SO_PIN_COUNT_LOW, CKF_SO_PIN_FINAL_TRY, CKF_SO_PIN_LOCKED)
}

/// `C_InitToken`. Every object of the token is destroyed; `label` is blank-padded.
///
/// # Errors
/// `SlotIdInvalid`, `SessionExists`, `ArgumentsBad` (the label is not UTF-8), the server's word on the PIN.
pub fn init_token(module: &Module, slot: CK_SLOT_ID, pin: &[u8], label: [u8; 32]) -> Result<(), Error> {
    let slot = module.slot(slot)?;
    if module.state().of_slot(slot.id).next().is_some() {
        return Err(Error::SessionExists);
    }
    let label =
        std::str::from_utf8(&label).map_err(|_| Error::ArgumentsBad)?.trim_end_matches(' ').to_owned();
    slot.hsm
        .call(&module.caller(slot.id, None), &InitToken { pin: Pin::new(pin), label })
        .map_err(Error::of_slot)?;
    module.forget_objects(slot.id, |_| true);
    Ok(())
}

/// `C_GetMechanismList`: the rows of the table.
pub fn mechanisms() -> Vec<CK_MECHANISM_TYPE> {
    Mechanism::ALL.iter().map(|mechanism| mechanism.row().number).collect()
}

/// `C_GetMechanismInfo`. Sizes of AES keys are in bytes (PKCS#11 3.1, 6.13); all others, those of generic
/// secrets and HMAC keys included (6.14), in bits.
///
/// # Errors
/// `MechanismInvalid`.
pub fn mechanism_info(mechanism: CK_MECHANISM_TYPE) -> Result<CK_MECHANISM_INFO, Error> {
    let row = Mechanism::from_number(mechanism).ok_or(Error::MechanismInvalid)?.row();
    let unit = match row.key {
        KeyKind::Aes => 8,
        KeyKind::Rsa | KeyKind::Ec | KeyKind::EcEdwards | KeyKind::Generic | KeyKind::None => 1,
    };
    Ok(CK_MECHANISM_INFO {
        ulMinKeySize: CK_ULONG::from(row.bits.start() / unit),
        ulMaxKeySize: CK_ULONG::from(row.bits.end() / unit),
        flags: row.flags,
    })
}

/// A text as Cryptoki's fixed fields hold it: blank-padded, not terminated, cut between characters.
fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [b' '; N];
    let mut end = text.len().min(N);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    if let (Some(start), Some(bytes)) = (field.get_mut(..end), text.as_bytes().get(..end)) {
        start.copy_from_slice(bytes);
    }
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_blank_padded_and_cut_between_characters() {
        assert_eq!(padded::<6>("abc"), *b"abc   ");
        assert_eq!(padded::<6>("abcdefgh"), *b"abcdef");
        assert_eq!(&padded::<4>("abcé"), b"abc ");
    }

    #[test]
    fn the_list_is_the_table_and_aes_sizes_are_bytes() {
        assert_eq!(mechanisms().len(), Mechanism::ALL.len());
        assert!(mechanisms().into_iter().all(|number| mechanism_info(number).is_ok()));
        let aes = mechanism_info(CKM_AES_GCM).unwrap();
        assert_eq!((aes.ulMinKeySize, aes.ulMaxKeySize), (16, 32));
        assert_eq!(mechanism_info(CKM_RSA_PKCS).unwrap().ulMaxKeySize, 4096);
        assert_eq!(mechanism_info(CKM_AES_KEY_WRAP).unwrap_err(), Error::MechanismInvalid);
    }
}
