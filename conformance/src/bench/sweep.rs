//! The token is left as it was found: whatever carries the suite's label is destroyed, and what stays is named.

use cryptoki_sys::*;
use serde::{Deserialize, Serialize};

use crate::check::Stop;
use crate::marks::Effect;
use crate::session::Session;
use crate::template::Template;

use super::{Bench, LABEL, Leftovers, Stage};

/// What came of clearing the token, each object by its class and label.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swept {
    /// What is gone.
    pub destroyed: Vec<String>,
    /// What is still there.
    pub left: Vec<String>,
}

impl Bench {
    /// Sets the user's PIN back, and destroys the token objects that the suite made.
    ///
    /// # Errors
    /// What keeps it from knowing that none is left.
    pub fn leave(&self) -> Result<Swept, Stop> {
        self.restore_pin()?;
        self.sweep()
    }

    /// Destroys the token objects that the suite made, in this run or another.
    ///
    /// # Errors
    /// What keeps it from knowing that none is left.
    pub fn sweep(&self) -> Result<Swept, Stop> {
        let may_destroy = self.target.leftovers == Leftovers::Destroy
            && self.target.most.is_none_or(|most| most >= Effect::TokenObjects);
        if !may_destroy || self.target.pin.is_none() {
            return Ok(Swept::default());
        }
        self.prepare(Stage::User)?;
        let session = self.session()?;
        let before = ours(&session)?;
        for (object, _) in &before {
            // One that stays is no reason to leave the others; whether it is gone is asked below.
            let _destroyed = session.destroy(*object);
        }
        let left: Vec<String> = ours(&session)?.into_iter().map(|(_, what)| what).collect();
        let mut destroyed: Vec<String> = before.into_iter().map(|(_, what)| what).collect();
        for what in &left {
            if let Some(place) = destroyed.iter().position(|other| other == what) {
                destroyed.swap_remove(place);
            }
        }
        Ok(Swept { destroyed, left })
    }
}

/// The objects with exactly the suite's label, whatever else the module finds by it.
fn ours(session: &Session<'_>) -> Result<Vec<(CK_OBJECT_HANDLE, String)>, Stop> {
    let found = session.find(&Template::new().bytes(CKA_LABEL, LABEL))?.into_iter();
    let is_ours = |object: &CK_OBJECT_HANDLE| {
        session.attribute(*object, CKA_LABEL).is_ok_and(|label| label.as_slice() == LABEL)
    };
    Ok(found.filter(is_ours).map(|object| (object, describe(session, object))).collect())
}

fn describe(session: &Session<'_>, object: CK_OBJECT_HANDLE) -> String {
    let class = session.attribute(object, CKA_CLASS).unwrap_or_default();
    let class = <[u8; size_of::<CK_ULONG>()]>::try_from(class.as_slice()).map(CK_ULONG::from_ne_bytes);
    let class = match class {
        Ok(CKO_DATA) => "data object",
        Ok(CKO_CERTIFICATE) => "certificate",
        Ok(CKO_PUBLIC_KEY) => "public key",
        Ok(CKO_PRIVATE_KEY) => "private key",
        Ok(CKO_SECRET_KEY) => "secret key",
        _ => "object",
    };
    format!("{class} {:?}", String::from_utf8_lossy(LABEL))
}
