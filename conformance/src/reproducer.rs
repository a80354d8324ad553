//! A minimal C program for a finding, made from its calls: it needs a compiler and the module, and no header.
//!
//! The calls that have nothing to do with the last one are left out. PINs come from the environment, keys are
//! replaced by stand-ins. What one call puts out and another is given is carried over, and where that cannot be done the
//! program never says that the finding is gone. It makes the calls in a process of its own, which the module may end.
//! It says after every call whether the module answered as it did in the finding.

mod carry;

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;

use crate::bench::Stage;
use crate::names;
use crate::raw::Function;
use crate::signature::{self, Kind};
use crate::trace::{Attribute, Block, Call, Content, Null, Trace, Value};
use crate::witness::WRONG_LENGTH;

/// What the program is about.
pub struct Story<'a> {
    /// The check, its clause, what it says.
    pub heading: [&'a str; 3],
    /// What the clause asks for, and what was seen.
    pub expected_and_seen: [&'a str; 2],
    /// What the check began with.
    pub stage: Stage,
    /// The token's slot in that run.
    pub slot: u64,
}

/// The room for output that the program has at most.
const MOST: u64 = 1 << 20;

/// Letters of a vector's value that its comment has.
const VALUE: usize = 256;

/// The text of the program, if any calls are known.
pub fn program(story: &Story<'_>, trace: &Trace) -> Option<String> {
    let calls = minimal(trace);
    let all: Vec<&Call> = trace.earlier.iter().chain(&trace.calls).collect();
    let doubt = carry::doubt(&all, &calls, trace.left_out);
    (!calls.is_empty())
        .then(|| vector(trace) + &source(story, &calls, trace.left_out, doubt, !trace.vectors.is_empty()))
}

/// The published vector whose calls the program makes.
fn vector(trace: &Trace) -> String {
    let Some(vector) = trace.vectors.first() else { return String::new() };
    let lines = vector.lines(VALUE).into_iter().map(|(name, value)| format!(" *   {name} = {value}"));
    let lines: Vec<String> = lines.map(|line| in_comment(&line)).collect();
    format!("/* {}\n{} */\n", in_comment(&vector.name()), lines.join("\n"))
}

fn source(
    story: &Story<'_>,
    calls: &[&Call],
    left_out: usize,
    doubt: Option<&str>,
    is_vector: bool,
) -> String {
    let has_slot = story.stage >= Stage::Token;
    let mut writer = Writer { slot: story.slot, has_slot, ..Writer::default() };
    for call in calls {
        writer.call(call);
    }
    if is_vector {
        writer.same_output();
    }
    let [id, clause, title] = story.heading.map(in_comment);
    let [expected, seen] = story.expected_and_seen.map(in_comment);
    let left_out = match left_out {
        0 => String::new(),
        many => format!("\n * {many} calls between the first and the last ones are left out."),
    };
    let steps: String = steps(story.stage).concat();
    let handles = writer.handles.len().max(1);
    let end = match doubt {
        None => "    finish(0);\n}\n".to_owned(),
        Some(why) => format!("    finish(\"{why}\");\n}}\n"),
    };
    format!(
        "/* {id} ({clause})\n * {title}\n * expected: {expected}\n * seen:     {seen}{left_out}\n *\n \
         * cc -std=c99 -o reproduce reproduce.c -ldl && P11_PIN=... ./reproduce MODULE [TOKEN-LABEL]\n \
         * Exit code 1: the module answers as it did, or ends the process as it did; 0: it does not;\n \
         * 2: the beginning cannot be reached, or the calls cannot be made as they were. */\n\
         {PRELUDE}\nstatic unsigned long h[{handles}];\n{}\n{MAIN}{steps}{}{end}",
        writer.memory, writer.body
    )
}

/// What brings the module to where the check began.
fn steps(stage: Stage) -> Vec<&'static str> {
    let initialize = "    begin(\"C_Initialize\", ((RV (*)(void *))f[0])(&locking));\n";
    let login = "    log_in();\n";
    match stage {
        Stage::Loaded => vec![],
        Stage::Initialized => vec![initialize],
        Stage::Token | Stage::Public => vec![initialize, FIND_TOKEN],
        Stage::User => vec![initialize, FIND_TOKEN, login],
    }
}

/// The last call, and those before it that it builds on.
fn minimal(trace: &Trace) -> Vec<&Call> {
    let all: Vec<&Call> = trace.earlier.iter().chain(&trace.calls).collect();
    let mut needed: BTreeSet<u64> = BTreeSet::new();
    let mut kept: Vec<&Call> = Vec::new();
    for (place, call) in all.iter().enumerate().rev() {
        let is_last = place + 1 == all.len();
        let made = call.made().any(|handle| needed.contains(&handle));
        let shares = call.used().any(|handle| needed.contains(&handle));
        let Some(function) = call.function() else { continue };
        let feeds = || kept.iter().any(|later| carry::feeds(call, later));
        if is_last || made || is_global(function) || (shares && !is_question(function)) || feeds() {
            needed.extend(call.used());
            kept.push(*call);
        }
    }
    kept.reverse();
    kept
}

/// Functions that change what every session sees.
const fn is_global(function: Function) -> bool {
    matches!(
        function,
        Function::C_Initialize
            | Function::C_Finalize
            | Function::C_InitToken
            | Function::C_InitPIN
            | Function::C_SetPIN
            | Function::C_Login
            | Function::C_LoginUser
            | Function::C_Logout
            | Function::C_CloseAllSessions
    )
}

/// Functions that change nothing.
const fn is_question(function: Function) -> bool {
    matches!(
        function,
        Function::C_GetInfo
            | Function::C_GetSlotList
            | Function::C_GetSlotInfo
            | Function::C_GetTokenInfo
            | Function::C_GetMechanismList
            | Function::C_GetMechanismInfo
            | Function::C_GetSessionInfo
            | Function::C_GetObjectSize
            | Function::C_GetAttributeValue
    )
}

/// Text that cannot end a comment.
fn in_comment(text: &str) -> String {
    let short: String = text.chars().filter(|letter| !letter.is_control()).take(600).collect();
    short.replace("*/", "* /").replace("/*", "/ *")
}

/// What is written so far.
#[derive(Default)]
struct Writer {
    slot: u64,
    /// Whether the program has looked for the token.
    has_slot: bool,
    names: usize,
    handles: HashMap<u64, usize>,
    memory: String,
    body: String,
    /// What the calls so far put out: the variable and the bytes.
    answers: Vec<(String, Vec<u8>)>,
    /// What the call in hand puts out.
    outputs: Vec<(String, Vec<u8>)>,
    /// What the call before it put out.
    last_outputs: Vec<(String, Vec<u8>)>,
}

impl Writer {
    fn call(&mut self, call: &Call) {
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
    fn same_output(&mut self) {
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

const FIND_TOKEN: &str = "    find_token();\n";
const PRELUDE: &str = include_str!("reproducer/prelude.c");
const MAIN: &str = "int main(int argc, char **argv) {\n    RV rv;\n    apart();\n    load(argc, argv);\n";

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::process::Command;

    /// A call of a function with an argument of each of its kinds.
    fn call(function: Function) -> Call {
        let block =
            |bytes: &[u8]| Block { length: bytes.len() as u64, bytes: bytes.into(), points: Vec::new() };
        let pointing = Block { points: vec![(0, block(b"nonce"))], ..block(&[7; 24]) };
        let attribute = |number, value| Attribute { number, value };
        let argument = |kind: &Kind| match kind {
            Kind::Slot => Value::Slot(5),
            Kind::Session => Value::Session(1),
            Kind::Object => Value::Object(2),
            Kind::Number | Kind::Size => Value::Number(u64::MAX),
            Kind::Mechanism => Value::Mechanism(Some((0x1087, Content::Memory(pointing.clone())))),
            Kind::Template | Kind::Question => Value::Template(Some(vec![
                attribute(0, Content::Memory(block(&[0; 8]))),
                attribute(0x11, Content::Secret("key value".to_owned(), 16)),
                attribute(3, Content::Null(1 << 63)),
                attribute(0x102, Content::Unreadable(1 << 40)),
            ])),
            Kind::Pin => Value::Input(Content::Secret("another PIN".to_owned(), 4)),
            Kind::Input | Kind::Parameter => Value::Input(Content::Memory(block(b"data */"))),
            Kind::Label => Value::Input(Content::Memory(block(&[b' '; 32]))),
            Kind::Arguments => Value::Input(Content::Memory(block(&[1; 48]))),
            Kind::Output | Kind::List | Kind::Handles => Value::Output(Content::Memory(Block::default())),
            Kind::Room => Value::Room(Some((64, 32))),
            Kind::NewSession => Value::New(Some(1)),
            Kind::NewObject => Value::New(Some(2)),
            Kind::NewNumber => Value::New(Some(0)),
            Kind::Pointer => Value::Pointer(Null::Given),
        };
        let arguments = signature::of(function).iter().map(argument).collect();
        Call { function: function.name().to_owned(), arguments, result: Some(0) }
    }

    #[test]
    fn a_program_of_every_call_compiles() {
        let calls: Vec<Call> = Function::ALL.iter().map(|function| call(*function)).collect();
        let story = Story {
            heading: ["chapter.id", "5.1 */ no end", "title"],
            expected_and_seen: ["CKR_OK", "/* nothing */"],
            stage: Stage::User,
            slot: 5,
        };
        let all: Vec<&Call> = calls.iter().collect();
        let crash =
            Trace { calls: vec![Call { result: None, ..call(Function::C_Sign) }], ..Trace::default() };
        let programs = [source(&story, &all, 0, Some("doubt"), true), program(&story, &crash).unwrap()];
        let folder = tempfile::tempdir().unwrap();
        for text in programs {
            let file = folder.path().join("reproduce.c");
            std::fs::write(&file, &text).unwrap();
            let built = Command::new("gcc")
                .args(["-std=c99", "-Wall", "-Werror", "-Wno-unused-variable", "-c", "-o", "/dev/null"])
                .arg(&file)
                .output()
                .unwrap();
            assert!(built.status.success(), "{}\n{text}", String::from_utf8_lossy(&built.stderr));
        }
    }

    #[test]
    fn the_functions_stand_in_the_order_of_the_list() {
        use cryptoki_sys::CK_FUNCTION_LIST_3_2 as List;
        let place = |function: Function| Function::ALL.iter().position(|other| *other == function).unwrap();
        let offsets = [
            (Function::C_Initialize, std::mem::offset_of!(List, C_Initialize)),
            (Function::C_GetSlotList, std::mem::offset_of!(List, C_GetSlotList)),
            (Function::C_GetTokenInfo, std::mem::offset_of!(List, C_GetTokenInfo)),
            (Function::C_OpenSession, std::mem::offset_of!(List, C_OpenSession)),
            (Function::C_Login, std::mem::offset_of!(List, C_Login)),
            (Function::C_WaitForSlotEvent, std::mem::offset_of!(List, C_WaitForSlotEvent)),
            (Function::C_MessageVerifyFinal, std::mem::offset_of!(List, C_MessageVerifyFinal)),
            (Function::C_UnwrapKeyAuthenticated, std::mem::offset_of!(List, C_UnwrapKeyAuthenticated)),
        ];
        for (function, offset) in offsets {
            assert_eq!(place(function), offset / 8 - 1, "{}", function.name());
        }
    }

    #[test]
    fn only_what_the_last_call_builds_on_is_kept() {
        let open = |handle| Call {
            function: "C_OpenSession".to_owned(),
            arguments: vec![
                Value::Slot(0),
                Value::Number(6),
                Value::Pointer(Null::Null),
                Value::Pointer(Null::Null),
                Value::New(Some(handle)),
            ],
            result: Some(0),
        };
        let close = |handle| Call {
            function: "C_CloseSession".to_owned(),
            arguments: vec![Value::Session(handle)],
            result: Some(0),
        };
        let info = Call {
            function: "C_GetSessionInfo".to_owned(),
            arguments: vec![Value::Session(1), Value::Pointer(Null::Given)],
            result: Some(0),
        };
        let calls = vec![open(1), open(2), info, close(2), close(1), close(1)];
        let trace = Trace { calls: calls.clone(), ..Trace::default() };
        let kept: Vec<Call> = minimal(&trace).into_iter().cloned().collect();
        assert_eq!(kept, [open(1), close(1), close(1)]);
    }
}
