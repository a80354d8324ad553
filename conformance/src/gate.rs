//! Holds a check to its mark: what it writes is what the table says, or it is a fault of the suite and not of the module.
//!
//! `--read-only` believes the marks. A call that asks for more than session objects and more than the mark of its check is
//! not made, whatever the module would answer.

use std::sync::{Mutex, MutexGuard, PoisonError};

use cryptoki_sys::CKA_TOKEN;

use crate::check::Check;
use crate::marks::Effect;
use crate::raw::Function as F;
use crate::trace::{Attribute, Call, Content, Value};

#[derive(Default)]
struct State {
    /// The check in hand and its mark. Without one, preparations do what they need.
    check: Option<(String, Effect)>,
    fault: Option<String>,
}

/// See the module's header.
#[derive(Default)]
pub struct Gate(Mutex<State>);

impl Gate {
    /// A check begins.
    pub fn open(&self, check: &Check) {
        *self.state() = State { check: Some((check.id.to_string(), check.effect)), fault: None };
    }

    /// It has ended: what it did that its mark does not say.
    pub fn close(&self) -> Option<String> {
        let mut state = self.state();
        state.check = None;
        state.fault.take()
    }

    /// Whether a call may be made. One that may not be is noted.
    pub fn permits(&self, call: &Call, shows_wrong_pin: bool) -> bool {
        let asked = if shows_wrong_pin { Effect::Pins } else { asked(call) };
        let mut state = self.state();
        // Session objects are nobody's loss, and are asked for where a module must refuse.
        let Some((_, mark)) = state.check.as_ref().filter(|_| asked > Effect::SessionObjects) else {
            return true;
        };
        let may = asked <= *mark;
        if !may {
            state.note(call, asked);
        }
        may
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, call: &Call, asked: Effect) {
        if let (Some((id, mark)), None) = (&self.check, &self.fault) {
            let (mark, asked) = (mark.word(), asked.word());
            self.fault = Some(format!(
                "a fault of the suite: {id} is marked {mark:?}, and {} is {asked:?}",
                call.function
            ));
        }
    }
}

/// What a call writes if the module does as it is asked.
fn asked(call: &Call) -> Effect {
    let asks_for_token = call.arguments.iter().any(|value| match value {
        Value::Template(Some(attributes)) => attributes.iter().any(is_token),
        _ => false,
    });
    match call.function() {
        Some(
            F::C_CreateObject
            | F::C_CopyObject
            | F::C_GenerateKey
            | F::C_GenerateKeyPair
            | F::C_UnwrapKey
            | F::C_UnwrapKeyAuthenticated
            | F::C_DeriveKey
            | F::C_EncapsulateKey
            | F::C_DecapsulateKey,
        ) => match asks_for_token {
            true => Effect::TokenObjects,
            false => Effect::SessionObjects,
        },
        Some(F::C_InitToken | F::C_InitPIN | F::C_SetPIN) => Effect::Pins,
        _ => Effect::Nothing,
    }
}

fn is_token(attribute: &Attribute) -> bool {
    let is_true = |value: &Content| matches!(value, Content::Memory(block) if block.bytes.iter().any(|byte| *byte != 0));
    attribute.number == CKA_TOKEN && is_true(&attribute.value)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::bench::Stage;
    use crate::trace::Block;

    fn call(function: F, is_on_token: Option<u8>) -> Call {
        let value = |byte| Content::Memory(Block { length: 1, bytes: vec![byte], points: Vec::new() });
        let attributes = is_on_token
            .map(|byte| vec![Attribute { number: CKA_TOKEN, value: value(byte) }])
            .unwrap_or_default();
        let arguments = vec![Value::Session(1), Value::Template(Some(attributes))];
        Call { function: function.name().to_owned(), arguments, result: None }
    }

    fn check() -> Check {
        Check::new("gate.test", Stage::User, |_| Ok(()), "none", "none")
    }

    #[test]
    fn a_check_does_no_more_than_its_mark_says() {
        let gate = Gate::default();
        assert!(gate.permits(&call(F::C_SetPIN, None), false), "a preparation may");
        gate.open(&check().session_objects());
        assert!(gate.permits(&call(F::C_CreateObject, Some(0)), false));
        assert!(gate.permits(&call(F::C_GenerateKey, None), false));
        assert!(gate.permits(&call(F::C_Login, None), false));
        assert_eq!(gate.close(), None);
        for (function, token, wrong) in
            [(F::C_CreateObject, Some(1), false), (F::C_SetPIN, None, false), (F::C_Login, None, true)]
        {
            gate.open(&check().session_objects());
            assert!(!gate.permits(&call(function, token), wrong), "{}", function.name());
            let fault = gate.close().unwrap();
            assert!(fault.contains("gate.test") && fault.contains(function.name()), "{fault}");
            gate.open(&check().pins());
            assert!(gate.permits(&call(function, token), wrong));
            assert_eq!(gate.close(), None);
        }
    }
}
