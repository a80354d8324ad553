//! What an application was shown of keys that several nodes share.
//!
//! One node shows it, and may lie. So a mandate says what was shown ([`Seen`]), which every other node holds against its
//! own key, and what was shown once is not believed otherwise later.

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use imbl::OrdMap;
use pkcs11_sys::*;
use strongroom_shared::{
    mandate::Seen,
    message::{Answer, ReadAttributes},
    object::{ObjectId, ObjectInfo, Template, Value},
};

use crate::{hsm, rv::Error, session::Context};

/// What a mandate says of a private key.
const KINDS: [CK_ATTRIBUTE_TYPE; 3] = [CKA_PUBLIC_KEY_INFO, CKA_LABEL, CKA_ID];

/// The most objects of which it is remembered: a server that tells of more does not speak of keys.
const MOST: usize = 1 << 17;

/// What was shown, by object: attributes of shared private keys, and proven public keys of the other halves.
#[derive(Default)]
pub struct Shown(ArcSwap<OrdMap<ObjectId, Template>>);

impl Shown {
    /// The same for a child of `fork`.
    pub(crate) fn after_fork(&self) -> Self {
        Self(ArcSwap::new(self.0.load_full()))
    }

    /// Remembers a value. What comes first counts.
    ///
    /// # Errors
    /// `Link`: another value was shown before, or more objects than a token holds.
    pub(crate) fn note(&self, object: ObjectId, kind: CK_ATTRIBUTE_TYPE, value: &[u8]) -> Result<(), Error> {
        if self.value(object, kind).is_none() {
            let shown = self.0.load();
            if shown.len() >= MOST && !shown.contains_key(&object) {
                return Err(hsm::malformed(format_args!(
                    "more than {MOST} keys that several nodes share were shown: look at this node"
                )));
            }
            self.0.rcu(|shown| {
                let mut shown = OrdMap::clone(shown);
                let mut known = shown.get(&object).cloned().unwrap_or_default();
                known.set_default(kind, Value::bytes(value));
                shown.insert(object, known);
                shown
            });
        }
        if self.value(object, kind).as_deref() == Some(value) {
            return Ok(());
        }
        Err(hsm::malformed(format_args!(
            "attribute {kind:#x} of object {object} is not what was shown before: ask another node, and look at this one"
        )))
    }

    fn value(&self, object: ObjectId, kind: CK_ATTRIBUTE_TYPE) -> Option<Vec<u8>> {
        self.0.load().get(&object)?.bytes(kind).map(<[u8]>::to_vec)
    }

    /// Remembers what the server answered for these attributes of an object.
    ///
    /// # Errors
    /// As [`Self::note`].
    pub(crate) fn note_answers(
        &self,
        object: &ObjectInfo,
        kinds: &[CK_ATTRIBUTE_TYPE],
        answers: &[Answer],
    ) -> Result<(), Error> {
        let proven = self.value(object.id, CKA_PUBLIC_KEY_INFO);
        for (kind, answer) in kinds.iter().zip(answers) {
            let value = match answer {
                Answer::Value(Value::Bytes(value)) => value.as_slice(),
                Answer::Value(_) | Answer::Sensitive | Answer::Absent => &[],
            };
            match (*kind, &proven) {
                (kind, _) if object.shares.is_some() && KINDS.contains(&kind) => {
                    self.note(object.id, kind, value)?;
                }
                (CKA_PUBLIC_KEY_INFO, Some(_)) => self.note(object.id, CKA_PUBLIC_KEY_INFO, value)?,
                (CKA_EC_POINT, Some(proven)) if !holds_point(proven, value) => {
                    return Err(hsm::malformed(format_args!(
                        "CKA_EC_POINT of object {} is not of the public key that the nodes have made",
                        object.id
                    )));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Remembers by which attributes an application found shared keys.
    ///
    /// # Errors
    /// As [`Self::note`].
    pub(crate) fn note_found(&self, template: &Template, found: &[ObjectInfo]) -> Result<(), Error> {
        for object in found.iter().filter(|object| object.shares.is_some()) {
            for kind in KINDS {
                if let Some(value) = template.bytes(kind) {
                    self.note(object.id, kind, value)?;
                }
            }
        }
        Ok(())
    }
}

/// Whether a `CKA_EC_POINT` (an OCTET STRING, short form) is of this SubjectPublicKeyInfo, which ends with the point.
fn holds_point(info: &[u8], point: &[u8]) -> bool {
    match point {
        [0x04, length, point @ ..] => {
            usize::from(*length) == point.len() && point.len() >= 32 && info.ends_with(point)
        }
        _ => false,
    }
}

impl Context<'_> {
    /// A shared private key as the application was shown it. What it did not ask for is asked for now.
    pub(crate) fn seen(&self, key: &ObjectInfo) -> Result<Seen, Error> {
        let shown = &self.slot.shown;
        let unknown = KINDS.into_iter().filter(|kind| shown.value(key.id, *kind).is_none());
        let kinds: Vec<_> = unknown.collect();
        if !kinds.is_empty() {
            let answers = self.call(&ReadAttributes { object: key.id, kinds: kinds.clone() })?.answers;
            shown.note_answers(key, &kinds, &answers)?;
        }
        let value = |kind| shown.value(key.id, kind).unwrap_or_default();
        let mut public = [0; 32];
        let hash = digest(&SHA256, &value(CKA_PUBLIC_KEY_INFO));
        public.iter_mut().zip(hash.as_ref()).for_each(|(to, from)| *to = *from);
        Ok(Seen { public, label: value(CKA_LABEL), id: value(CKA_ID) })
    }
}
