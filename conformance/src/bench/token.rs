//! The token under test: which it is among those that the module shows, and what it says of itself.

use cryptoki_sys::*;

use crate::check::Stop;
use crate::raw::{Arg, Function as F};

use super::{Bench, MOST_LISTED, Stage};

/// Which slots to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slots {
    /// All.
    All,
    /// Those with a token in them.
    WithToken,
}

/// A number of entries for which memory is set aside.
///
/// # Errors
/// A failure, if no list of the function is as long.
fn believable(function: F, count: CK_ULONG) -> Result<usize, Stop> {
    let length = usize::try_from(count).unwrap_or(usize::MAX);
    if length > MOST_LISTED {
        let expected = format!("at most {MOST_LISTED} entries");
        return Err(Stop::fail(expected, format!("{}: {count} entries", function.name())));
    }
    Ok(length)
}

/// The slot of the token with this label; without one, of the only token that can be written to, or of the first.
///
/// # Errors
/// A sentence with the labels that there are, if there is no such token or the label is needed to tell them apart.
fn choose(tokens: &[(CK_SLOT_ID, CK_TOKEN_INFO)], label: Option<&str>) -> Result<CK_SLOT_ID, String> {
    let label_of = |info: &CK_TOKEN_INFO| String::from_utf8_lossy(info.label.trim_ascii_end()).into_owned();
    let ready: Vec<_> = tokens.iter().filter(|(_, info)| info.flags & CKF_TOKEN_INITIALIZED != 0).collect();
    let labels =
        || ready.iter().map(|(_, info)| format!("{:?}", label_of(info))).collect::<Vec<_>>().join(", ");
    if let Some(label) = label {
        let found = tokens.iter().find(|(_, info)| label_of(info) == label);
        return found.map(|(slot, _)| *slot).ok_or_else(|| match ready.is_empty() {
            true => format!("the module shows no token with the label {label:?}, and no other"),
            false => format!("the module shows no token with the label {label:?}; it shows {}", labels()),
        });
    }
    let writable = ready.iter().filter(|(_, info)| info.flags & CKF_WRITE_PROTECTED == 0).count();
    if writable > 1 {
        let count = ready.len();
        return Err(format!("the module shows {count} tokens, choose one with --token-label: {}", labels()));
    }
    ready.first().map(|(slot, _)| *slot).ok_or_else(|| "the module shows no initialised token".to_owned())
}

impl Bench {
    /// Looks for the token under test.
    pub(super) fn find_token(&self) -> Result<Stage, Stop> {
        let slots = self.slots(Slots::WithToken)?.into_iter();
        let tokens = slots.filter_map(|slot| Some((slot, self.token_info(slot).ok()?)));
        let tokens: Vec<(CK_SLOT_ID, CK_TOKEN_INFO)> = tokens.collect();
        let slot = choose(&tokens, self.target.token_label.as_deref()).map_err(Stop::Skipped);
        self.slot.set(slot.as_ref().ok().copied());
        slot.map(|_| Stage::Token)
    }

    /// The slot of the token under test.
    ///
    /// # Errors
    /// `Skipped`, if there is none.
    pub fn slot(&self) -> Result<CK_SLOT_ID, Stop> {
        self.slot.get().ok_or_else(|| Stop::Skipped("the token is not there".to_owned()))
    }

    /// The slots of the module.
    ///
    /// # Errors
    /// A failure of `C_GetSlotList`.
    pub fn slots(&self, which: Slots) -> Result<Vec<CK_SLOT_ID>, Stop> {
        let present = Arg::number(CK_ULONG::from(which == Slots::WithToken));
        let mut count: CK_ULONG = 0;
        self.module.call(F::C_GetSlotList, &[present, Arg::NULL, Arg::of_mut(&mut count)]).ok()?;
        let mut slots: Vec<CK_SLOT_ID> = vec![0; believable(F::C_GetSlotList, count)?];
        let arguments = [present, Arg::slice_mut(&mut slots), Arg::of_mut(&mut count)];
        self.module.call(F::C_GetSlotList, &arguments).ok()?;
        slots.truncate(usize::try_from(count).unwrap_or(0));
        Ok(slots)
    }

    /// `CK_TOKEN_INFO` of a slot.
    ///
    /// # Errors
    /// A failure of `C_GetTokenInfo`.
    pub fn token_info(&self, slot: CK_SLOT_ID) -> Result<CK_TOKEN_INFO, Stop> {
        let mut info = CK_TOKEN_INFO::default();
        self.module.call(F::C_GetTokenInfo, &[Arg::number(slot), Arg::of_mut(&mut info)]).ok()?;
        Ok(info)
    }

    /// The token's mechanisms.
    ///
    /// # Errors
    /// A failure of `C_GetMechanismList`.
    pub fn mechanisms(&self) -> Result<&[CK_MECHANISM_TYPE], Stop> {
        if let Some(known) = self.mechanisms.get() {
            return Ok(known);
        }
        let slot = Arg::number(self.slot()?);
        let mut count: CK_ULONG = 0;
        self.module.call(F::C_GetMechanismList, &[slot, Arg::NULL, Arg::of_mut(&mut count)]).ok()?;
        let mut list: Vec<CK_MECHANISM_TYPE> = vec![0; believable(F::C_GetMechanismList, count)?];
        let arguments = [slot, Arg::slice_mut(&mut list), Arg::of_mut(&mut count)];
        self.module.call(F::C_GetMechanismList, &arguments).ok()?;
        list.truncate(usize::try_from(count).unwrap_or(0));
        Ok(self.mechanisms.get_or_init(|| list))
    }

    /// `CK_MECHANISM_INFO`, if the token has the mechanism for this use (`CKF_SIGN` and so on).
    ///
    /// # Errors
    /// `NotOffered`, if it has not.
    pub fn offers(&self, mechanism: CK_MECHANISM_TYPE, flag: CK_FLAGS) -> Result<CK_MECHANISM_INFO, Stop> {
        if !self.mechanisms()?.contains(&mechanism) {
            return Err(Stop::NotOffered);
        }
        let mut info = CK_MECHANISM_INFO::default();
        let arguments = [Arg::number(self.slot()?), Arg::number(mechanism), Arg::of_mut(&mut info)];
        self.module.call(F::C_GetMechanismInfo, &arguments).ok()?;
        if info.flags & flag == flag { Ok(info) } else { Err(Stop::NotOffered) }
    }

    /// Whether there is a user to log in as.
    ///
    /// # Errors
    /// `NotOffered`, if the token has no PIN and asks for none.
    pub fn knows_users(&self) -> Result<(), Stop> {
        let flags = self.token_info(self.slot()?)?.flags;
        if flags & (CKF_LOGIN_REQUIRED | CKF_USER_PIN_INITIALIZED) == 0 {
            Err(Stop::NotOffered)
        } else {
            Ok(())
        }
    }

    /// Whether nobody can write to the token.
    pub fn is_write_protected(&self) -> bool {
        self.slot()
            .and_then(|slot| self.token_info(slot))
            .is_ok_and(|info| info.flags & CKF_WRITE_PROTECTED != 0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn token(slot: CK_SLOT_ID, label: &str, flags: CK_FLAGS) -> (CK_SLOT_ID, CK_TOKEN_INFO) {
        let padded: [u8; 32] = format!("{label:<32}").into_bytes().try_into().unwrap();
        (slot, CK_TOKEN_INFO { label: padded, flags, ..CK_TOKEN_INFO::default() })
    }

    #[test]
    fn the_token_is_the_one_with_the_label_or_the_only_one() {
        let ready = CKF_TOKEN_INITIALIZED;
        let tokens = [token(1, "empty", 0), token(5, "first", ready), token(7, "second", ready)];
        assert_eq!(choose(&tokens, Some("second")), Ok(7));
        let refused = choose(&tokens, Some("third")).unwrap_err();
        assert!(refused.contains("\"third\"; it shows \"first\", \"second\""), "{refused}");
        let refused = choose(&tokens, None).unwrap_err();
        assert!(
            refused.contains("2 tokens, choose one with --token-label: \"first\", \"second\""),
            "{refused}"
        );
        let fixed = token(3, "fixed", ready | CKF_WRITE_PROTECTED);
        assert_eq!(choose(&[fixed, token(4, "fixed too", ready | CKF_WRITE_PROTECTED)], None), Ok(3));
        assert!(choose(&tokens[..1], None).is_err_and(|why| why.contains("no initialised token")));
    }
}
