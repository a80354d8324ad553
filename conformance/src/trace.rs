//! The record of every call of a check: arguments by kind, results, and no secrets.
//!
//! `witness.rs` reads the arguments. The record of the check in hand is also written to a file as it grows, call by
//! call, so that it outlives a crash.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use cryptoki_sys::*;
use serde::{Deserialize, Serialize};

use crate::raw::{Arg, Function};
use crate::secrets::Secrets;
use crate::signature::{self, Kind};
use crate::vectors::FailedVector;
use crate::witness::Witness;

/// Calls of one check that are kept: so many from its beginning, and so many before its end.
const FIRST: usize = 32;
const LAST: usize = 96;

/// Vectors of one check that are kept.
const VECTORS: usize = 8;

/// Bytes of the file after which it is begun anew.
const FILE_LIMIT: u64 = 1 << 20;

/// A piece of memory, and what it points to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Its length in bytes, as the caller told it.
    pub length: u64,
    /// Its first bytes.
    #[serde(with = "hex")]
    pub bytes: Vec<u8>,
    /// Where it holds addresses, and what is there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub points: Vec<(usize, Block)>,
}

/// The value of an attribute, a parameter or a buffer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Content {
    /// The null pointer, with the length told beside it.
    Null(u64),
    /// Memory.
    Memory(Block),
    /// Something that is not told: what, and its length.
    Secret(String, u64),
    /// An address that leads nowhere, or too much memory to be true, with the length told beside it.
    Unreadable(u64),
}

/// An attribute of a template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    /// `CKA_`.
    pub number: u64,
    /// Its value.
    pub value: Content,
}

/// An argument of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Value {
    /// A number.
    Number(u64),
    /// A slot.
    Slot(u64),
    /// A session.
    Session(u64),
    /// An object.
    Object(u64),
    /// A mechanism: its number and parameter; `None` for a null pointer.
    Mechanism(Option<(u64, Content)>),
    /// A template; `None` for a null pointer or one that cannot be read.
    Template(Option<Vec<Attribute>>),
    /// Memory that is read.
    Input(Content),
    /// Memory that is written, with what was put there.
    Output(Content),
    /// Where a length stands: before the call and after it; `None` for a null pointer.
    Room(Option<(u64, u64)>),
    /// Where a number or handle was put; `None` for a null pointer.
    New(Option<u64>),
    /// Another pointer: whether it is null.
    Pointer(Null),
}

/// Whether a pointer is null.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Null {
    /// It is.
    Null,
    /// It is not.
    Given,
}

/// A call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The function's name.
    pub function: String,
    /// Its arguments.
    pub arguments: Vec<Value>,
    /// What it answered, and `None` if it never returned.
    pub result: Option<u64>,
}

/// The calls of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// Calls of earlier checks that made the sessions and objects which this one uses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<Call>,
    /// The calls, in order.
    pub calls: Vec<Call>,
    /// How many calls in the middle are left out, after the first 32.
    #[serde(default)]
    pub left_out: usize,
    /// The published vectors that failed, of a check that is made of such. The calls are those of the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vectors: Vec<FailedVector>,
}

/// What a function answered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Answer {
    /// The function.
    pub function: String,
    /// The mechanism that it was given.
    pub mechanism: Option<u64>,
    /// Its `CK_RV`.
    pub code: u64,
}

#[derive(Default)]
struct State {
    first: Vec<Call>,
    last: VecDeque<Call>,
    left_out: usize,
    origins: HashMap<u64, Call>,
    answers: BTreeSet<Answer>,
    file: Option<File>,
    /// The calls of the first vector that failed, and the vectors.
    kept: Option<Trace>,
}

/// Records the calls of a module.
pub struct Recorder {
    witness: Witness,
    state: Mutex<State>,
    is_paused: AtomicBool,
}

impl Recorder {
    /// A recorder that keeps these PINs to itself, and writes to a file too.
    pub fn new(secrets: Secrets, file: Option<File>) -> Self {
        let state = Mutex::new(State { file, ..State::default() });
        Self { witness: Witness::new(secrets), state, is_paused: AtomicBool::new(false) }
    }

    /// Records no more calls: recording one takes longer than some calls do.
    pub fn pause(&self) {
        self.is_paused.store(true, Ordering::Relaxed);
    }

    /// Records again.
    pub fn resume(&self) {
        self.is_paused.store(false, Ordering::Relaxed);
    }

    /// Whether calls are not recorded.
    pub fn is_paused(&self) -> bool {
        self.is_paused.load(Ordering::Relaxed)
    }

    /// Forgets the calls of the check before.
    pub fn begin(&self) {
        let Ok(mut state) = self.state.lock() else { return };
        state.first.clear();
        state.last.clear();
        state.left_out = 0;
        state.kept = None;
        state.restart_file();
    }

    /// Begins the record of the next of many published vectors, unless one has failed.
    pub fn begin_vector(&self) {
        let Ok(mut state) = self.state.lock() else { return };
        if state.kept.is_none() {
            state.first.clear();
            state.last.clear();
            state.left_out = 0;
        }
    }

    /// Keeps a vector that failed; and its calls, if it is the first.
    pub fn keep_vector(&self, vector: FailedVector) {
        let Ok(mut state) = self.state.lock() else { return };
        let mut trace = state.kept.take().unwrap_or_else(|| state.trace());
        if trace.vectors.len() < VECTORS {
            trace.vectors.push(vector);
        }
        state.kept = Some(trace);
    }

    /// Tells also the values of keys from now on, if they are published, or no more.
    pub fn tell_keys(&self, are_published: bool) {
        self.witness.tell_keys(are_published);
    }

    /// The calls since [`Recorder::begin`], or those of a vector that failed.
    pub fn trace(&self) -> Trace {
        let Ok(state) = self.state.lock() else { return Trace::default() };
        state.kept.clone().unwrap_or_else(|| state.trace())
    }

    /// The answers that no check before has seen.
    pub fn take_answers(&self) -> Vec<Answer> {
        self.state
            .lock()
            .map(|mut state| std::mem::take(&mut state.answers).into_iter().collect())
            .unwrap_or_default()
    }

    /// Before a call.
    pub fn before(&self, function: Function, arguments: &[Arg<'_>]) -> Call {
        let arguments = self.witness.arguments(function, arguments);
        let call = Call { function: function.name().to_owned(), arguments, result: None };
        if let Ok(mut state) = self.state.lock() {
            state.write(&call);
        }
        call
    }

    /// After it.
    pub fn after(&self, function: Function, arguments: &[Arg<'_>], mut call: Call, code: CK_RV) {
        self.witness.results(function, arguments, &mut call.arguments);
        self.told(function, call, code);
    }

    /// After a call that somebody else made, who knows what came of it.
    pub fn told(&self, function: Function, mut call: Call, code: CK_RV) {
        call.result = Some(code);
        let Ok(mut state) = self.state.lock() else { return };
        state.write(&call);
        state.answers.extend(call.answer());
        if code == CKR_OK {
            state.remember(function, &call);
        }
        state.keep(call);
    }
}

impl State {
    fn trace(&self) -> Trace {
        let calls: Vec<Call> = self.first.iter().chain(&self.last).cloned().collect();
        Trace { earlier: self.earlier(&calls), calls, left_out: self.left_out, vectors: Vec::new() }
    }

    fn keep(&mut self, call: Call) {
        if self.first.len() < FIRST {
            self.first.push(call);
            return;
        }
        if self.last.len() == LAST {
            self.last.pop_front();
            self.left_out += 1;
        }
        self.last.push_back(call);
    }

    /// Keeps the calls that made the sessions and objects that exist.
    fn remember(&mut self, function: Function, call: &Call) {
        match function {
            Function::C_Finalize | Function::C_CloseAllSessions => self.origins.clear(),
            _ => {
                for handle in call.made() {
                    self.origins.insert(handle, call.clone());
                }
            }
        }
    }

    /// The calls that made what these use and did not make, in their order.
    fn earlier(&self, calls: &[Call]) -> Vec<Call> {
        let mut made: BTreeSet<u64> = BTreeSet::new();
        let mut earlier: Vec<Call> = Vec::new();
        for call in calls {
            for handle in call.used().filter(|handle| !made.contains(handle)).collect::<Vec<_>>() {
                let Some(origin) = self.origins.get(&handle) else { continue };
                if !calls.contains(origin) && !earlier.contains(origin) {
                    let sessions = origin.used().filter_map(|session| self.origins.get(&session));
                    let sessions: Vec<Call> =
                        sessions.filter(|call| !earlier.contains(call)).cloned().collect();
                    earlier.extend(sessions);
                    earlier.push(origin.clone());
                }
            }
            made.extend(call.made());
        }
        earlier
    }

    /// Writes a call, before it is made and again after it.
    fn write(&mut self, call: &Call) {
        let Some(file) = &mut self.file else { return };
        if file.stream_position().is_ok_and(|position| position > FILE_LIMIT) {
            let _emptied = file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0)));
        }
        if let Ok(mut line) = serde_json::to_vec(call) {
            line.push(b'\n');
            let _written = file.write_all(&line);
        }
    }

    fn restart_file(&mut self) {
        let Some(file) = &mut self.file else { return };
        let _emptied = file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0)));
    }
}

impl Call {
    /// The function.
    pub fn function(&self) -> Option<Function> {
        Function::ALL.iter().copied().find(|function| function.name() == self.function)
    }

    /// What it answered, if it returned.
    pub fn answer(&self) -> Option<Answer> {
        let mechanism = self.arguments.iter().find_map(|value| match value {
            Value::Mechanism(Some((number, _))) => Some(*number),
            _ => None,
        });
        self.result.map(|code| Answer { function: self.function.clone(), mechanism, code })
    }

    /// Whether it is a `C_Finalize` that returned.
    pub fn is_finalized(&self) -> bool {
        self.function() == Some(Function::C_Finalize) && self.result.is_some()
    }

    /// The handles that it put out.
    pub fn made(&self) -> impl Iterator<Item = u64> {
        let kinds = self.function().map(signature::of).unwrap_or_default();
        kinds.iter().zip(&self.arguments).filter_map(|(kind, value)| match (kind, value) {
            (Kind::NewSession | Kind::NewObject, Value::New(Some(handle))) => Some(*handle),
            _ => None,
        })
    }

    /// The sessions and objects that it was given.
    pub fn used(&self) -> impl Iterator<Item = u64> {
        self.arguments.iter().filter_map(|value| match value {
            Value::Session(handle) | Value::Object(handle) => Some(*handle),
            _ => None,
        })
    }
}

impl Trace {
    /// What its functions answered.
    pub fn answers(&self) -> Vec<Answer> {
        self.calls.iter().filter_map(Call::answer).collect()
    }

    /// The last call that has not returned.
    pub fn unreturned(&self) -> Option<&Call> {
        self.calls.iter().rfind(|call| call.result.is_none())
    }

    /// What a child that died had written: the last call may not have returned.
    pub fn of_lines(text: &str) -> Self {
        let mut calls: Vec<Call> = Vec::new();
        for call in text.lines().filter_map(|line| serde_json::from_str::<Call>(line).ok()) {
            let begun =
                calls.iter().rposition(|other| other.result.is_none() && other.function == call.function);
            match begun.filter(|_| call.result.is_some()).and_then(|position| calls.get_mut(position)) {
                Some(known) => *known = call,
                None => calls.push(call),
            }
        }
        let left_out = calls.len().saturating_sub(FIRST + LAST);
        if left_out > 0 {
            calls.drain(FIRST..FIRST + left_out);
        }
        Self { calls, left_out, ..Self::default() }
    }
}

mod hex {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::hex_of(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let pair = |pair: &[u8]| match pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(pair).collect();
        bytes.ok_or_else(|| serde::de::Error::custom("not hexadecimal"))
    }
}

/// Two digits for each byte.
pub fn hex_of(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().map_or('?', char::from);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn call(function: Function, arguments: Vec<Value>, result: Option<u64>) -> Call {
        Call { function: function.name().to_owned(), arguments, result }
    }

    #[test]
    fn a_call_that_never_returned_is_the_last_one() {
        let done = call(Function::C_Logout, vec![Value::Session(1)], Some(0));
        let begun = Call { result: None, ..done.clone() };
        let died = call(Function::C_GetInfo, vec![Value::Pointer(Null::Null)], None);
        let lines: Vec<String> =
            [&begun, &done, &died].iter().map(|call| serde_json::to_string(call).unwrap()).collect();
        let trace = Trace::of_lines(&lines.join("\n"));
        assert_eq!(trace.unreturned(), Some(&died));
        assert_eq!(trace.calls, [done, died]);
    }

    #[test]
    fn bytes_survive_json() {
        let block = Block { length: 3, bytes: vec![0, 0xa5, 0xff], points: Vec::new() };
        let text = serde_json::to_string(&block).unwrap();
        assert!(text.contains("00a5ff"), "{text}");
        assert_eq!(serde_json::from_str::<Block>(&text).unwrap(), block);
    }
}
