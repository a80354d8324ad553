//! What is seen before any check is made: that the module starts, shows the token, has room and takes the PINs, none of which
//! loses its last try.

use cryptoki_sys::*;
use serde::{Deserialize, Serialize};

use crate::marks::Effect;
use crate::session::Session;
use crate::survey::Survey;
use crate::template::Template;

use super::{Bench, Stage, Swept, Tries, reason};

/// What a child tells that looks before the checks, one after the other.
#[derive(Debug, Serialize, Deserialize)]
pub enum FirstLook {
    /// What the module says of itself.
    Survey(Box<Survey>),
    /// What became of the objects that an earlier run had left, if checks can be made; or what is in the way.
    Verdict(Result<Swept, String>),
}

/// What the object carries by which a token is seen to have room.
const MARK: &[u8] = b"p11-conformance: is there room";

/// What to do about a token that has none.
const ROOM: &str = "make room, destroy objects that are not needed, or give --read-only";

impl Bench {
    /// Sees whether the module can be initialised and shows the token, and asks what they are.
    ///
    /// # Errors
    /// The first thing that is in the way, as a sentence.
    pub fn survey(&self) -> Result<Survey, String> {
        self.prepare(Stage::Token).map_err(reason)?;
        Survey::of(self).map_err(reason)
    }

    /// Sees whether the token, which has these flags, takes the PINs that were given and has room. Each PIN costs one try at
    /// most.
    ///
    /// # Errors
    /// The first thing that is in the way, as a sentence.
    pub fn preflight(&self, flags: CK_FLAGS) -> Result<Swept, String> {
        self.refuse_last_tries(flags)?;
        self.module.ledger().note_flags(flags);
        let pins = [
            (CKU_USER, &self.target.pin, format!("user PIN ({})", self.target.pin_from)),
            (CKU_SO, &self.target.so_pin, format!("SO PIN ({})", self.target.so_pin_from)),
        ];
        for (user, pin, name) in pins {
            let Some(pin) = pin else { continue };
            let session = self.session().map_err(reason)?;
            let rv = session.login(user, pin);
            if !rv.was(CKR_OK) {
                return Err(format!("the {name} is not accepted: {rv}"));
            }
            if user == CKU_USER {
                self.refuse_full_token(&session, pin)?;
            }
            let _logged_out = session.logout();
            self.conclude();
        }
        // Of a module that finds nothing, checks tell.
        Ok(self.sweep().unwrap_or_default())
    }

    /// A PIN that is locked, or has one try left, is not tried.
    fn refuse_last_tries(&self, flags: CK_FLAGS) -> Result<(), String> {
        let pins = [
            (&self.target.pin, CKF_USER_PIN_LOCKED, CKF_USER_PIN_FINAL_TRY, "user PIN"),
            (&self.target.so_pin, CKF_SO_PIN_LOCKED, CKF_SO_PIN_FINAL_TRY, "SO PIN"),
        ];
        for (pin, locked, final_try, name) in pins {
            if pin.is_some() && flags & locked != 0 {
                return Err(format!("the token says that the {name} is locked"));
            }
            if pin.is_some() && flags & final_try != 0 && self.target.tries == Tries::KeepOne {
                return Err(format!(
                    "the token says that one try of the {name} is left: log in with the right PIN by other means \
                     first, or give --allow-lockout"
                ));
            }
        }
        Ok(())
    }

    /// A token without room for an object would fail checks that are not about room. One that keeps an object for its
    /// session only has a fault that checks tell of.
    fn refuse_full_token(&self, session: &Session<'_>, pin: &[u8]) -> Result<(), String> {
        if self.target.most.is_some_and(|most| most < Effect::TokenObjects) || self.is_write_protected() {
            return Ok(());
        }
        let template = Template::data().bytes(CKA_APPLICATION, MARK);
        let (rv, object) = session.try_create(&template.without(CKA_TOKEN).bool(CKA_TOKEN, true));
        match rv.code {
            CKR_OK => {}
            CKR_DEVICE_MEMORY | CKR_HOST_MEMORY => return Err(format!("the token is full ({rv}): {ROOM}")),
            CKR_DEVICE_ERROR | CKR_FUNCTION_FAILED | CKR_GENERAL_ERROR | CKR_TOKEN_WRITE_PROTECTED => {
                return Err(format!("the token takes no object ({rv}), full or not: {ROOM}"));
            }
            // It need not keep data objects.
            _ => return Ok(()),
        }
        let is_there = |session: &Session<'_>| {
            let found = session.find(&Template::new().bytes(CKA_APPLICATION, MARK));
            found.map_or(true, |found| !found.is_empty())
        };
        let at_once = is_there(session);
        let _destroyed = session.destroy(object);
        if at_once {
            return Ok(());
        }
        let _logged_out = session.logout();
        self.conclude();
        let session = self.session().map_err(reason)?;
        let later = session.login(CKU_USER, pin).was(CKR_OK) && is_there(&session);
        match later {
            true => Ok(()),
            false => Err(format!(
                "the token says CKR_OK to a new object and does not have it, as a full one does: {ROOM}"
            )),
        }
    }
}
