//! A minimal C program for a finding, made from its calls: it needs a compiler and the module, and no header.
//!
//! The calls that have nothing to do with the last one are left out. PINs come from the environment, keys are
//! replaced by stand-ins. What one call puts out and another is given is carried over, and where that cannot be done the
//! program never says that the finding is gone. It makes the calls in a process of its own, which the module may end.
//! It says after every call whether the module answered as it did in the finding.

mod carry;
mod writer;

use std::collections::BTreeSet;

use crate::bench::Stage;
use crate::raw::Function;
use crate::trace::{Call, Trace};
use writer::Writer;

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

/// Letters of a vector's value that its comment has.
const VALUE: usize = 256;

/// Letters of a text in a comment, and in the program's last line.
const COMMENT: usize = 600;
const CONCLUSION: usize = 200;

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
    let mut writer = Writer::new(story.slot, has_slot);
    for call in calls {
        writer.call(call);
    }
    if is_vector {
        writer.same_output();
    }
    let [id, clause, title] = story.heading.map(in_comment);
    let [expected, seen] = story.expected_and_seen.map(in_comment);
    let [told_expected, told_seen] = story.expected_and_seen.map(literal);
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
         * The last line says what came of it. Exit code 1: the module answers as it did, or ends the process as it did;\n \
         * 0: it does not; 2: the beginning cannot be reached, or the calls cannot be made as they were. */\n\
         {PRELUDE}\nstatic unsigned long h[{handles}];\n{}\nint main(int argc, char **argv) {{\n    RV rv;\n    \
         apart({told_expected}, {told_seen});\n    load(argc, argv);\n{steps}{}{end}",
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

/// The beginning of a text, in one line.
fn shortened(text: &str, most: usize) -> String {
    let mut letters = text.chars().filter(|letter| !letter.is_control());
    let short: String = letters.by_ref().take(most).collect();
    if letters.next().is_some() { format!("{short}…") } else { short }
}

/// Text that cannot end a comment, nor is more than text in it.
fn in_comment(text: &str) -> String {
    shortened(text, COMMENT).replace("*/", "* /").replace("/*", "/ *").replace("??", "? ?")
}

/// Text as a string of C.
fn literal(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b' ' | b',' | b'.' | b':' | b';' | b'_' | b'-' | b'(' | b')' => char::from(byte).to_string(),
        _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        _ => format!("\\{byte:03o}"),
    };
    format!("\"{}\"", shortened(text, CONCLUSION).bytes().map(byte).collect::<String>())
}

const FIND_TOKEN: &str = "    find_token();\n";
const PRELUDE: &str = include_str!("reproducer/prelude.c");

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::signature::{self, Kind};
    use crate::trace::{Attribute, Block, Content, Null, Value};
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
            expected_and_seen: ["CKR_OK \"\\\n%s ??/", "/* nothing */ é"],
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
