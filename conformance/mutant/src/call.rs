//! A call on its way to the real module, and what a fault may do with it: look, change, ask on the side, forward.

use std::sync::{Mutex, MutexGuard, PoisonError};

use cryptoki_sys::*;

use crate::functions::Function;
use crate::memory::{self, address};
use crate::{lists, real};

/// A call that came in.
pub struct Call<'w> {
    /// The function.
    pub function: Function,
    words: &'w [usize],
}

impl<'w> Call<'w> {
    pub(crate) const fn new(function: Function, words: &'w [usize]) -> Self {
        Self { function, words }
    }

    /// An argument, by its place: a number or an address.
    pub fn word(&self, place: usize) -> usize {
        self.words.get(place).copied().unwrap_or(0)
    }

    /// Whether there is an argument in this place.
    pub fn has(&self, place: usize) -> bool {
        place < self.words.len()
    }

    /// Whether this is that function.
    pub fn is(&self, function: Function) -> bool {
        self.function == function
    }

    /// Passes the call on as it is.
    pub fn forward(&self) -> CK_RV {
        self.aside(self.function, self.words)
    }

    /// Passes the call on past what the mutant adds to the real module.
    pub fn as_it_is(&self) -> CK_RV {
        real::real().as_ref().map_or(CKR_GENERAL_ERROR, |real| real.call_as_it_is(self.function, self.words))
    }

    /// Passes the call on with other words in these places.
    pub fn with(&self, changes: &[(usize, usize)]) -> CK_RV {
        let mut words = self.words.to_vec();
        for (place, word) in changes {
            if let Some(old) = words.get_mut(*place) {
                *old = *word;
            }
        }
        self.aside(self.function, &words)
    }

    /// Passes the call on with another template in this place, its count in the next.
    pub fn with_template(&self, place: usize, template: &mut Template) -> CK_RV {
        let count = template.attributes.len();
        self.with(&[(place, address(template.attributes.as_mut_slice())), (place + 1, count)])
    }

    /// Another call of the real module.
    pub fn aside(&self, function: Function, words: &[usize]) -> CK_RV {
        if matches!(
            function,
            Function::C_GetFunctionList | Function::C_GetInterfaceList | Function::C_GetInterface
        ) {
            return lists::answer(function, words);
        }
        real::real().as_ref().map_or(CKR_GENERAL_ERROR, |real| real.call(function, words))
    }

    /// Passes the call on, and says this if the real module says one of those.
    pub fn instead_of(&self, seen: &[CK_RV], answer: CK_RV) -> CK_RV {
        let rv = self.forward();
        if seen.contains(&rv) { answer } else { rv }
    }

    /// Passes the call on, and says that all is well if the real module refuses.
    pub fn waved_through(&self) -> CK_RV {
        let _refusal = self.forward();
        CKR_OK
    }

    /// The template in this place, its count in the next.
    pub fn template(&self, place: usize) -> Template {
        let count = self.word(place + 1).min(1 << 16);
        Template::of_list(memory::list(self.word(place), count))
    }

    /// The bytes in this place, their length in the next.
    pub fn input(&self, place: usize) -> Vec<u8> {
        memory::list(self.word(place), self.word(place + 1).min(1 << 24))
    }

    /// The number to which the word in this place points.
    pub fn pointed(&self, place: usize) -> usize {
        memory::read(self.word(place)).unwrap_or(0)
    }

    /// Gives output into the buffer in this place, its length into the next.
    pub fn give(&self, place: usize, output: &[u8]) {
        memory::put(self.word(place), output);
        memory::write(self.word(place + 1), output.len());
    }

    /// The bytes that were put into the buffer in this place, their length in the next.
    pub fn given(&self, place: usize) -> Vec<u8> {
        memory::list(self.word(place), self.pointed(place + 1).min(1 << 24))
    }

    /// An attribute of an object, as the real module tells it.
    pub fn attribute(&self, session: usize, object: usize, kind: CK_ATTRIBUTE_TYPE) -> Option<Vec<u8>> {
        let mut asked = Template::default().and(kind, &[0; 1024]);
        let words = [session, object, address(asked.attributes.as_mut_slice()), 1];
        let rv = self.aside(Function::C_GetAttributeValue, &words);
        let attribute = asked.attributes.first().filter(|_| rv == CKR_OK)?;
        Some(memory::list(attribute.pValue.expose_provenance(), attribute.ulValueLen as usize))
    }

    /// The slot of a session.
    pub fn slot(&self, session: usize) -> usize {
        let mut info = CK_SESSION_INFO::default();
        let _rv = self.aside(Function::C_GetSessionInfo, &[session, address(&mut info)]);
        info.slotID as usize
    }

    /// The user whose session this is, `None` for a public one.
    pub fn is_logged_in(&self, session: usize) -> bool {
        let mut info = CK_SESSION_INFO::default();
        let _rv = self.aside(Function::C_GetSessionInfo, &[session, address(&mut info)]);
        !matches!(info.state, CKS_RO_PUBLIC_SESSION | CKS_RW_PUBLIC_SESSION)
    }

    /// A read-write session that the caller does not know of.
    pub fn hidden_session(&self, slot: usize) -> usize {
        let mut session = 0_usize;
        let flags = (CKF_SERIAL_SESSION | CKF_RW_SESSION) as usize;
        let _rv = self.aside(Function::C_OpenSession, &[slot, flags, 0, 0, address(&mut session)]);
        session
    }
}

/// A list of attributes, the caller's or a fault's own.
#[derive(Default)]
pub struct Template {
    /// The attributes, whose values stand in the caller's memory or in the template's.
    pub attributes: Vec<CK_ATTRIBUTE>,
    memory: Vec<Box<[u8]>>,
}

impl Template {
    /// The caller's attributes.
    pub fn of_list(attributes: Vec<CK_ATTRIBUTE>) -> Self {
        Self { attributes, memory: Vec::new() }
    }

    /// One attribute, whose value stays where it is.
    pub fn of(attribute: CK_ATTRIBUTE) -> Self {
        Self { attributes: vec![attribute], memory: Vec::new() }
    }

    /// Whether an attribute is in it.
    pub fn has(&self, kind: CK_ATTRIBUTE_TYPE) -> bool {
        self.attributes.iter().any(|attribute| attribute.type_ == kind)
    }

    /// An attribute's value.
    pub fn value(&self, kind: CK_ATTRIBUTE_TYPE) -> Option<Vec<u8>> {
        let attribute = self.attributes.iter().find(|attribute| attribute.type_ == kind)?;
        let length = usize::try_from(attribute.ulValueLen).ok()?.min(1 << 16);
        Some(memory::list(attribute.pValue.expose_provenance(), length))
    }

    /// Whether an attribute is in it and is true.
    pub fn is_true(&self, kind: CK_ATTRIBUTE_TYPE) -> bool {
        self.value(kind).is_some_and(|value| value == [CK_TRUE])
    }

    /// Whether an attribute is in it and is false.
    pub fn is_false(&self, kind: CK_ATTRIBUTE_TYPE) -> bool {
        self.value(kind).is_some_and(|value| value == [CK_FALSE])
    }

    /// The same without an attribute.
    pub fn without(mut self, kind: CK_ATTRIBUTE_TYPE) -> Self {
        self.attributes.retain(|attribute| attribute.type_ != kind);
        self
    }

    /// The same with this value of an attribute, wherever it stood.
    pub fn and(self, kind: CK_ATTRIBUTE_TYPE, value: &[u8]) -> Self {
        let mut changed = self.without(kind);
        let mut memory: Box<[u8]> = value.into();
        let pValue = memory.as_mut_ptr().cast();
        changed.attributes.push(CK_ATTRIBUTE { type_: kind, pValue, ulValueLen: value.len() as CK_ULONG });
        changed.memory.push(memory);
        changed
    }
}

/// What a fault remembers between calls.
pub type Memo<T> = Mutex<T>;

/// Takes a memo, whatever happened to another thread that held it.
pub fn held<T>(memo: &Memo<T>) -> MutexGuard<'_, T> {
    memo.lock().unwrap_or_else(PoisonError::into_inner)
}
