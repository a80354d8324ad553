//! Golden bytes: every request and reply of `calls!` and every fault, as they travel.
//!
//! `NAME.txt` has the frames of a call in hexadecimal, one a line, after a name that begins with `request` or
//! `reply`; `faults.txt` has the faults. **A line is never edited or removed, only added:** programs out there speak
//! these bytes. The frames come from `samples.rs`. A new call or field wants a sample there with a name of its own; the
//! test then fails and says which line to add to which file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod samples;
#[path = "../../fuzz/targets.rs"]
mod targets;

use std::{collections::BTreeMap, fs, path::PathBuf};

use proptest::prelude::*;
use strongroom_shared::{
    fault::{Fault, FaultCode},
    wire::{CallId, HEADER, Kind, decode_body, decode_caller},
};
use targets::{Unread, read_again, split, written};

/// The lines of a file, by name. A missing file has none.
fn lines(file: &str) -> BTreeMap<String, Vec<u8>> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(format!("{file}.txt"));
    let text = fs::read_to_string(path).unwrap_or_default();
    let pairs = text.lines().map(|line| line.split_once(' ').unwrap());
    let mut found = BTreeMap::new();
    for (name, hex) in pairs {
        assert!(found.insert(name.to_owned(), bytes(hex)).is_none(), "{file}.txt has two lines {name}");
    }
    found
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The lines of a call whose names begin so: at least one.
fn frames(call: CallId, kind: &str) -> Vec<(String, Vec<u8>)> {
    let named = lines(call.name()).into_iter().filter(|(name, _)| name.starts_with(kind));
    let frames: Vec<_> = named.map(|(name, frame)| (format!("{} {name}", call.name()), frame)).collect();
    assert!(
        !frames.is_empty(),
        "{}.txt has no {kind}: add a sample of it to shared/tests/vectors/samples.rs, and the line that the test \
         `samples_are_written_as_the_golden_bytes` then asks for",
        call.name()
    );
    frames
}

/// Every golden request of a call with every golden reply: what they are called, and their bodies.
fn exchanges(call: CallId) -> Vec<(String, Vec<u8>, Vec<u8>)> {
    let replies = frames(call, "reply");
    let pair = |(name, request): (String, Vec<u8>)| {
        replies.iter().map(move |(other, reply)| (format!("{name}, {other}"), request.clone(), reply.clone()))
    };
    frames(call, "request").into_iter().flat_map(pair).collect()
}

#[test]
fn samples_are_written_as_the_golden_bytes() {
    let mut missing = String::new();
    for (file, name, frame) in samples::all() {
        match lines(&file).get(name) {
            Some(golden) => assert_eq!(
                hex(golden),
                hex(&frame),
                "{file}.txt, {name}: it is written differently now, and programs out there would not understand it"
            ),
            None => missing += &format!("to shared/tests/vectors/{file}.txt:\n{name} {}\n", hex(&frame)),
        }
    }
    assert!(missing.is_empty(), "add\n{missing}");
}

#[test]
fn every_golden_frame_is_read_and_written_again() {
    for call in CallId::ALL {
        for (name, request, reply) in exchanges(*call) {
            let (head, body, rest) = split(&request).expect(&name);
            assert_eq!((head.kind, head.call, rest.len()), (Kind::Request, *call as u16, 0), "{name}");
            let (caller, act) = decode_caller(body).expect(&name);
            let (answer, result, rest) = split(&reply).expect(&name);
            assert_eq!((answer.kind, answer.call, rest.len()), (Kind::Reply, *call as u16, 0), "{name}");
            let (act_again, result_again) = read_again(*call, act, result).expect(&name);
            assert_eq!(hex(&[written(&caller), act_again].concat()), hex(body), "{name}");
            assert_eq!(hex(&result_again), hex(result), "{name}");
        }
    }
}

#[test]
fn every_fault_has_its_golden_bytes() {
    let golden = lines("faults");
    for code in FaultCode::ALL {
        let frame = golden.get(&format!("{code:?}")).unwrap_or_else(|| panic!("faults.txt lacks {code:?}"));
        let (head, body, _) = split(frame).unwrap();
        let fault: Fault = decode_body(body).unwrap();
        assert_eq!((head.kind, fault.code), (Kind::Fault, *code));
        assert_eq!(written(&fault), body);
    }
    let (_, body, _) = split(&golden["unknown"]).unwrap();
    assert_eq!(decode_body::<Fault>(body).unwrap().code, FaultCode::Internal, "still a failure");
}

/// A struct as a later version may send it: with fields beyond those that this one knows.
fn with_later_fields(body: &[u8]) -> Vec<u8> {
    let fields = body[0] - 0x80;
    assert!(fields < 22, "an array of few fields");
    let nothing = std::iter::repeat_n(0xf6, usize::from(22 - fields));
    // Field 22 is a map with an array in it.
    let later = [0xa1, 0x61, b'x', 0x82, 0x01, 0xf5];
    [0x80 + 23].into_iter().chain(body[1..].iter().copied()).chain(nothing).chain(later).collect()
}

#[test]
fn fields_of_a_later_version_are_skipped() {
    for call in CallId::ALL {
        for (name, request, reply) in exchanges(*call) {
            let (caller, act) = decode_caller(&request[HEADER..]).unwrap();
            let later = with_later_fields(&written(&caller));
            assert_eq!(decode_caller(&later), Ok((caller, &[][..])), "{name}");
            let (act_again, result_again) =
                read_again(*call, &with_later_fields(act), &with_later_fields(&reply[HEADER..]))
                    .expect(&name);
            assert_eq!((&act_again[..], &result_again[..]), (act, &reply[HEADER..]), "{name}");
        }
    }
    for (name, frame) in lines("faults") {
        let later = with_later_fields(&frame[HEADER..]);
        assert_eq!(decode_body::<Fault>(&later), decode_body(&frame[HEADER..]), "{name}");
    }
}

#[test]
fn a_golden_frame_that_was_cut_is_refused() {
    for call in CallId::ALL {
        for (name, request, reply) in exchanges(*call) {
            let (_, act) = decode_caller(&request[HEADER..]).unwrap();
            let reply = &reply[HEADER..];
            let cut = read_again(*call, &act[..act.len() - 1], reply);
            assert!(matches!(cut, Err(Unread::Request(_))), "{name}: {cut:?}");
            let cut = read_again(*call, act, &reply[..reply.len() - 1]);
            assert!(matches!(cut, Err(Unread::Reply(..))), "{name}: {cut:?}");
        }
    }
}

/// Every golden exchange.
fn corpus() -> Vec<Vec<u8>> {
    let faults = lines("faults").into_values();
    let pairs = CallId::ALL.iter().flat_map(|call| exchanges(*call));
    let mut corpus: Vec<_> = pairs.map(|(_, request, reply)| [request, reply].concat()).collect();
    let question = corpus[0].clone();
    corpus.extend(
        faults.map(|fault| [&question[..split(&question).unwrap().1.len() + HEADER], &fault].concat()),
    );
    corpus
}

fn run_targets(bytes: &[u8]) {
    targets::frame(bytes);
    targets::requests(bytes);
    targets::replies(bytes);
}

#[test]
fn the_fuzz_targets_take_the_golden_frames() {
    // Where a fuzzer may start from.
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("corpus");
    fs::create_dir_all(&folder).unwrap();
    for (index, bytes) in corpus().iter().enumerate() {
        run_targets(bytes);
        fs::write(folder.join(index.to_string()), bytes).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes: Vec<u8>) {
        run_targets(&bytes);
    }

    #[test]
    fn no_change_of_a_golden_frame_makes_a_decoder_panic(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        thread_local!(static CORPUS: Vec<Vec<u8>> = corpus());
        let mut bytes = CORPUS.with(|corpus| which.get(corpus).clone());
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            // Not the lengths of the frames, or little else would ever be read.
            if at >= 4 {
                bytes[at] = byte;
            }
        }
        run_targets(&bytes);
    }
}
