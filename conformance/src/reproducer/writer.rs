//! Calls as C: each argument a number, a variable or what an earlier call answered.

use std::collections::HashMap;
use std::fmt::Write;

use crate::names;
use crate::raw::Function;
use crate::signature::{self, Kind};
use crate::trace::{Attribute, Block, Call, Content, Null, Value};
use crate::witness::WRONG_LENGTH;

use super::{FIND_TOKEN, carry};

/// The room for output that the program has at most.
const MOST: u64 = 1 << 20;

/// What is written so far.
#[derive(Default)]
pub struct Writer {
    /// The token's slot in that run.
    slot: u64,
    /// Whether the program has looked for the token.
    has_slot: bool,
    names: usize,
    /// The handles that calls gave, and their places in the program's list.
    pub handles: HashMap<u64, usize>,
    /// The variables.
    pub memory: String,
    /// The calls.
    pub body: String,
    /// What the calls so far put out: the variable and the bytes.
    answers: Vec<(String, Vec<u8>)>,
    /// What the call in hand puts out.
    outputs: Vec<(String, Vec<u8>)>,
    /// What the call before it put out.
    last_outputs: Vec<(String, Vec<u8>)>,
}

impl Writer {
    /// A program that is empty so far, for a module whose token is in this slot.
    pub fn new(slot: u64, has_slot: bool) -> Self {
        Self { slot, has_slot, ..Self::default() }
    }

    /// Writes a call, and what the program says after it.
    pub fn call(&mut self, call: &Call) {
        let Some(function) = call.function() else { return };
        let kinds = signature::of(function);
        let mut arguments = Vec::new();
        for (place, (kind, value)) in kinds.iter().zip(&call.arguments).enumerate() {
            let before = place.checked_sub(1).and_then(|place| call.arguments.get(place));
            let after = call.arguments.get(place + 1);
            arguments.push(self.argument(function, *kind, value, [before, after]));
        }
        if !self.has_slot && call.arguments.contains(&Value::Slot(self.slot)) {
            self.has_slot = true;
            self.body.push_str(FIND_TOKEN);
        }
        let types: Vec<&str> = kinds.iter().map(|kind| c_type(*kind)).collect();
        let place = Function::ALL.iter().position(|other| *other == function).unwrap_or(0);
        let (first, known) = match call.result {
            Some(code) => {
                let name = crate::rv::name(code);
                ("", format!("told(\"{}\", rv, {code:#x}UL, \"{name}\");", call.function))
            }
            None => ("    no_return();\n", format!("returned(\"{}\", rv);", call.function)),
        };
        let shown =
            format!("    rv = ((RV (*)({}))f[{place}])({});\n", types.join(", "), arguments.join(", "));
        let _infallible = write!(
            self.body,
            "    printf(\"{} ... \"); fflush(stdout);\n{first}{shown}    {known}\n",
            call.function
        );
        self.last_outputs.clone_from(&self.outputs);
        self.answers.append(&mut self.outputs);
    }

    /// Holds what the last call puts out against what it put out.
    pub fn same_output(&mut self) {
        let Some((name, bytes)) = self.last_outputs.pop() else { return };
        let length = bytes.len();
        let then = self.bytes(&Block { length: length as u64, bytes, points: Vec::new() });
        let _infallible = writeln!(self.body, "    put_out({name}, {then}, {length});");
    }

    fn argument(
        &mut self,
        function: Function,
        kind: Kind,
        value: &Value,
        [before, after]: [Option<&Value>; 2],
    ) -> String {
        match value {
            Value::Number(number) => match before {
                Some(Value::Input(Content::Secret(what, _))) => match pin(what) {
                    Some(pin) if what != WRONG_LENGTH => format!("strlen({pin})"),
                    Some(_) | None => format!("{number:#x}UL"),
                },
                _ => format!("{number:#x}UL"),
            },
            Value::Slot(slot) if *slot == self.slot => "slot".to_owned(),
            Value::Slot(number) => format!("{number:#x}UL"),
            Value::Session(handle) | Value::Object(handle) => match self.handles.get(handle) {
                Some(place) => format!("h[{place}]"),
                None => format!("{handle:#x}UL"),
            },
            Value::Mechanism(None) | Value::Template(None) | Value::Room(None) | Value::New(None) => {
                "0".to_owned()
            }
            Value::Mechanism(Some((number, parameter))) => {
                let (address, length) = self.content(parameter);
                let comment = names::mechanism(*number);
                self.declare(
                    "MECHANISM",
                    &format!("{{ {number:#x}UL /* {comment} */, {address}, {length:#x}UL }}"),
                    "&",
                )
            }
            Value::Template(Some(attributes)) => self.template(attributes, kind == Kind::Question),
            Value::Input(Content::Memory(block)) if function == Function::C_Initialize => {
                self.initialize(block)
            }
            Value::Input(Content::Secret(what, length)) => match pin(what) {
                Some(pin) => pin.to_owned(),
                None if kind == Kind::Pin => Self::another_pin(*length),
                None => self.content(&Content::Secret(what.clone(), *length)).0,
            },
            Value::Input(content) => self.content(content).0,
            Value::Output(Content::Null(_)) => "0".to_owned(),
            Value::Output(content) => {
                let name = self.buffer(kind, after);
                if let (Kind::Output, Content::Memory(block)) = (kind, content) {
                    self.outputs.push((name.clone(), block.bytes.clone()));
                }
                name
            }
            Value::Room(Some((before, _))) => self.declare("unsigned long", &format!("{before:#x}UL"), "&"),
            Value::New(Some(handle)) => match kind {
                Kind::NewSession | Kind::NewObject => {
                    let place = self.handles.len();
                    let place = *self.handles.entry(*handle).or_insert(place);
                    format!("&h[{place}]")
                }
                _ => self.declare("unsigned long", "0", "&"),
            },
            Value::Pointer(Null::Null) => "0".to_owned(),
            Value::Pointer(Null::Given) => "scratch".to_owned(),
        }
    }

    fn declare(&mut self, kind: &str, value: &str, address_of: &str) -> String {
        self.names += 1;
        let name = format!("v{}", self.names);
        let _infallible = writeln!(self.memory, "static {kind} {name} = {value};");
        format!("{address_of}{name}")
    }

    fn template(&mut self, attributes: &[Attribute], is_question: bool) -> String {
        let mut rows = String::new();
        for Attribute { number, value } in attributes {
            let (address, length) = match value {
                Content::Memory(block) if is_question && block.points.is_empty() => {
                    let name = self.bytes(block);
                    self.outputs.push((name.clone(), block.bytes.clone()));
                    (name, block.length)
                }
                _ => self.content(value),
            };
            let comment = names::attribute(*number);
            let _infallible =
                write!(rows, "\n    {{ {number:#x}UL /* {comment} */, {address}, {length:#x}UL }},");
        }
        self.names += 1;
        let name = format!("v{}", self.names);
        let room = attributes.len().max(1);
        let rows = if rows.is_empty() { "{ 0, 0, 0 }".to_owned() } else { rows };
        let _infallible = writeln!(self.memory, "static ATTRIBUTE {name}[{room}] = {{{rows}\n}};");
        name
    }

    /// The address and length of a value.
    fn content(&mut self, content: &Content) -> (String, u64) {
        match content {
            Content::Null(length) => ("0".to_owned(), *length),
            Content::Memory(block) => (self.block(block), block.length),
            Content::Secret(_, length) => {
                let stand_in = vec![0x0b; usize::try_from((*length).min(512)).unwrap_or(0)];
                (self.block(&Block { length: *length, bytes: stand_in, points: Vec::new() }), *length)
            }
            Content::Unreadable(length) => ("scratch".to_owned(), *length),
        }
    }

    fn block(&mut self, block: &Block) -> String {
        if block.points.is_empty() || !block.bytes.len().is_multiple_of(8) {
            let name = self.bytes(block);
            let carried = self.answers.iter().rev().find_map(|(answer, bytes)| {
                carry::lines((answer.as_str(), bytes.as_slice()), &name, &block.bytes)
            });
            self.body.push_str(&carried.unwrap_or_default());
            return name;
        }
        let (words, _) = block.bytes.as_chunks::<8>();
        let mut values = Vec::new();
        for (place, word) in words.iter().enumerate() {
            let target = block.points.iter().find(|(at, _)| *at == place * 8);
            values.push(match target {
                Some((_, target)) => format!("(void *){}", self.block(target)),
                None => format!("(void *){:#x}UL", u64::from_ne_bytes(*word)),
            });
        }
        self.names += 1;
        let name = format!("v{}", self.names);
        let _infallible = writeln!(self.memory, "static void *{name}[] = {{ {} }};", values.join(", "));
        name
    }

    /// A variable of these bytes.
    fn bytes(&mut self, block: &Block) -> String {
        let bytes: Vec<String> = block.bytes.iter().map(|byte| format!("{byte:#04x}")).collect();
        let room = block.length.max(block.bytes.len() as u64).clamp(1, MOST);
        let bytes = if bytes.is_empty() { "0".to_owned() } else { bytes.join(", ") };
        self.names += 1;
        let name = format!("v{}", self.names);
        let _infallible = writeln!(self.memory, "static unsigned char {name}[{room}] = {{ {bytes} }};");
        name
    }

    /// `CK_C_INITIALIZE_ARGS`, with mutexes that do nothing where the check had some.
    fn initialize(&mut self, block: &Block) -> String {
        let (words, _) = block.bytes.as_chunks::<8>();
        let words: Vec<u64> = words.iter().map(|word| u64::from_ne_bytes(*word)).collect();
        let mutexes = ["make_mutex", "use_mutex", "use_mutex", "use_mutex"];
        let values = words.iter().enumerate().map(|(place, word)| match mutexes.get(place) {
            Some(name) if *word != 0 => format!("(void *){name}"),
            _ => format!("(void *){word:#x}UL"),
        });
        let values: Vec<String> = values.collect();
        self.names += 1;
        let name = format!("v{}", self.names);
        let _infallible = writeln!(self.memory, "static void *{name}[] = {{ {} }};", values.join(", "));
        name
    }

    /// A PIN that is nobody's, of a length.
    fn another_pin(length: u64) -> String {
        let zeros = "0".repeat(usize::try_from(length.min(256)).unwrap_or(0));
        format!("\"{zeros}\"")
    }

    fn buffer(&mut self, kind: Kind, after: Option<&Value>) -> String {
        let told = match after {
            Some(Value::Room(Some((before, _)))) => *before,
            Some(Value::Number(most)) => *most,
            _ => 0,
        };
        let room = if kind == Kind::Output { told } else { told.saturating_mul(8) };
        self.names += 1;
        let name = format!("v{}", self.names);
        let _infallible = writeln!(self.memory, "static unsigned char {name}[{}];", room.clamp(1, MOST));
        name
    }
}

/// The variable of a PIN that the program has.
fn pin(what: &str) -> Option<&'static str> {
    match what {
        "the user PIN" | WRONG_LENGTH => Some("pin"),
        "the SO PIN" => Some("so_pin"),
        _ => None,
    }
}

const fn c_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Slot | Kind::Session | Kind::Object | Kind::Number | Kind::Size => "unsigned long",
        Kind::Mechanism
        | Kind::Template
        | Kind::Question
        | Kind::Pin
        | Kind::Input
        | Kind::Parameter
        | Kind::Label
        | Kind::Arguments
        | Kind::Output
        | Kind::List
        | Kind::Handles
        | Kind::Room
        | Kind::NewSession
        | Kind::NewObject
        | Kind::NewNumber
        | Kind::Pointer => "const void *",
    }
}
