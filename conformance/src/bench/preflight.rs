//! What is seen before any check is made: that the module starts, shows the token, has room and takes the PINs, none of which
//! loses its last try.

use cryptoki_sys::*;

use crate::marks::Effect;
use crate::session::Session;
use crate::survey::Survey;
use crate::template::Template;

use super::{Bench, Stage, Tries, reason};

impl Bench {
    /// Sees whether the module can be initialised, shows the token and takes the PINs that were given. Each costs one
    /// try at most.
    ///
    /// # Errors
    /// The first thing that is in the way, as a sentence.
    pub fn preflight(&self) -> Result<Survey, String> {
        self.prepare(Stage::Token).map_err(reason)?;
        let survey = Survey::of(self).map_err(reason)?;
        self.refuse_last_tries(survey.flags)?;
        self.module.ledger().note_flags(survey.flags);
        let pins = [
            (CKU_USER, &self.target.pin, "user PIN (--pin-file)"),
            (CKU_SO, &self.target.so_pin, "SO PIN (--so-pin-file)"),
        ];
        for (user, pin, name) in pins {
            let Some(pin) = pin else { continue };
            let session = self.session().map_err(reason)?;
            let rv = session.login(user, pin);
            if !rv.was(CKR_OK) {
                return Err(format!("the {name} is not accepted: {rv}"));
            }
            if user == CKU_USER {
                self.refuse_full_token(&session)?;
            }
            let _logged_out = session.logout();
            self.conclude();
        }
        Ok(survey)
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

    /// A token without room for an object would fail checks that are not about room.
    fn refuse_full_token(&self, session: &Session<'_>) -> Result<(), String> {
        if self.target.most.is_some_and(|most| most < Effect::TokenObjects) {
            return Ok(());
        }
        let template = Template::data().without(CKA_TOKEN).bool(CKA_TOKEN, true);
        match session.try_create(&template) {
            (rv, object) if rv.was(CKR_OK) => {
                let _destroyed = session.destroy(object);
                Ok(())
            }
            (rv, _) if rv.was(CKR_DEVICE_MEMORY) => Err(format!(
                "the token is full ({rv}): destroy objects that are not needed, or give --read-only"
            )),
            _ => Ok(()),
        }
    }
}
