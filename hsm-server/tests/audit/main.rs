//! The audit log: gap-free and proved, whatever happens to the process, the machine or the files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod crash;
mod tampering;

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use proptest::{collection::vec, prelude::*};
use strongroom_server::audit::{
    AuditSink, AuditSource, Durability, Error, FileSink, FileSource, Log, Position, Recovered, Settings,
    Summary, Tampering,
    memory::{Disk, MemorySink},
    verify,
};
use strongroom_shared::{
    message::{AuditRecord, Outcome},
    object::ObjectId,
    secret::Secret,
};

const PROCESS: Settings =
    Settings { durability: Durability::Process, segment_limit: Settings::SEGMENT_LIMIT };
const POWER: Settings = Settings { durability: Durability::Power, ..PROCESS };

fn key() -> Secret<[u8; 32]> {
    Secret::new([0x5a; 32])
}

/// A record of which everything depends on `number`, but for its length.
fn record(number: u64) -> AuditRecord {
    AuditRecord {
        time: 1_000_000 + number,
        partition: "treasury".into(),
        client: "desk-1".into(),
        certificate: vec![7; 8],
        session: 1,
        request: 1 << 40 | number,
        act: "Sign".into(),
        object: Some(ObjectId([9; 16])),
        mechanism: Some(0x1041),
        message_hash: vec![number as u8; 32],
        outcome: Outcome::Done,
        ..AuditRecord::default()
    }
}

fn write<S: AuditSink>(log: &Log<S>, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        let position = log.append(record(number)).unwrap();
        assert_eq!(position, Position(number));
        log.commit(position).unwrap();
    }
}

fn new(count: u64) -> MemorySink {
    let sink = MemorySink::default();
    write(&Log::create(sink.clone(), &key(), PROCESS).unwrap(), 1..=count);
    sink
}

fn open(sink: &MemorySink) -> Result<(Log<MemorySink>, Recovered), Error> {
    Log::open(sink.clone(), &key(), PROCESS)
}

fn clean(last: u64) -> Recovered {
    Recovered { last, store_version: 0, cut: 0, lost: None }
}

fn bytes(sink: &MemorySink, segment: u64) -> Vec<u8> {
    let mut copy = Vec::new();
    sink.copy().tamper(segment, |bytes| copy = bytes.clone());
    copy
}

/// Where each frame of a segment begins, and where the last ends.
fn bounds(bytes: &[u8]) -> Vec<usize> {
    let mut bounds = vec![0];
    while let Some(prefix) = bytes[bounds[bounds.len() - 1]..].first_chunk() {
        bounds.push(bounds[bounds.len() - 1] + 4 + u32::from_be_bytes(*prefix) as usize + 32);
    }
    bounds
}

#[test]
fn records_come_back_in_order_after_reopening() {
    let sink = new(5);
    let (log, recovered) = open(&sink).unwrap();
    assert_eq!(recovered, clean(5));
    write(&log, 6..=9);
    drop(log);
    let (log, recovered) = open(&sink).unwrap();
    assert_eq!(recovered, clean(9));
    let expected: Vec<AuditRecord> = (1..=9).map(|n| AuditRecord { sequence: n, ..record(n) }).collect();
    assert_eq!(log.tail(100, None).unwrap(), expected);
    assert_eq!(log.verify().unwrap(), verify(&sink, &key()).unwrap());
    assert_eq!(log.verify().unwrap().records, 9);
}

#[test]
fn nothing_is_written_before_commit_and_one_write_is_for_all() {
    let sink = MemorySink::default();
    let log = Log::create(sink.clone(), &key(), PROCESS).unwrap();
    let positions: Vec<Position> = (1..=10).map(|n| log.append(record(n)).unwrap()).collect();
    assert_eq!(sink.counts().appends, 0);
    log.commit(positions[2]).unwrap();
    assert_eq!(sink.counts().appends, 1);
    positions.iter().for_each(|position| log.commit(*position).unwrap());
    assert_eq!(sink.counts().appends, 1);
    assert_eq!(log.last().unwrap(), Position(10));
    assert_eq!(verify(&sink, &key()).unwrap().records, 10);
}

#[test]
fn eight_threads_leave_no_gap() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("audit");
    let log = Log::create(FileSink::create(&folder).unwrap(), &key(), PROCESS).unwrap();
    let done = AtomicBool::new(false);
    let places: Vec<Position> = thread::scope(|scope| {
        let (log, done) = (&log, &done);
        let verifier = scope.spawn(|| {
            let (mut proofs, source) = (0, FileSource::new(&folder));
            while !done.load(Ordering::Relaxed) || proofs == 0 {
                let before = verify(&source, &key()).unwrap().records;
                assert!(log.verify().unwrap().records >= before);
                log.sync().unwrap();
                proofs += 1;
            }
        });
        let writers: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(move || {
                    let one = |n| {
                        let position = log.append(record(n)).unwrap();
                        log.commit(position).unwrap();
                        position
                    };
                    (0..2000).map(one).collect::<Vec<_>>()
                })
            })
            .collect();
        let places = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
        done.store(true, Ordering::Relaxed);
        verifier.join().unwrap();
        places
    });
    assert_eq!(places.iter().collect::<HashSet<_>>().len(), 16_000);
    assert_eq!(places.iter().max(), Some(&Position(16_000)));
    assert_eq!(verify(&FileSource::new(&folder), &key()).unwrap().records, 16_000);
    drop(log);
    let (_, recovered) = Log::open(FileSink::open(&folder).unwrap(), &key(), PROCESS).unwrap();
    assert_eq!(recovered, clean(16_000));
}

#[test]
fn a_new_segment_follows_a_long_one_and_the_chain_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("audit");
    let small = Settings { segment_limit: 1000, ..PROCESS };
    let log = Log::create(FileSink::create(&folder).unwrap(), &key(), small).unwrap();
    write(&log, 1..=40);
    let source = FileSource::new(&folder);
    let segments = source.segments().unwrap();
    assert!(segments.len() > 5, "{segments:?}");
    for segment in &segments {
        assert!(source.length(*segment).unwrap() <= 1000);
        let file = folder.join(format!("audit-{segment:020}.log"));
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(verify(&source, &key()).unwrap().records, 40);
    for after in 0..40 {
        let records = log.tail(3, Some(after)).unwrap();
        let expected: Vec<u64> = (after + 1..=40).take(3).collect();
        assert_eq!(records.iter().map(|record| record.sequence).collect::<Vec<_>>(), expected);
    }
    drop(log);
    let (log, recovered) = Log::open(FileSink::open(&folder).unwrap(), &key(), small).unwrap();
    assert_eq!(recovered, clean(40));
    write(&log, 41..=50);
    assert_eq!(log.verify().unwrap().records, 50);
}

fn segmented() -> (MemorySink, Vec<u64>) {
    let sink = MemorySink::default();
    let small = Settings { segment_limit: 500, ..PROCESS };
    write(&Log::create(sink.clone(), &key(), small).unwrap(), 1..=20);
    let segments = sink.segments().unwrap();
    assert!(segments.len() > 4);
    (sink, segments)
}

#[test]
fn replay_shows_what_was_since() {
    let (sink, _) = segmented();
    let (log, _) = open(&sink).unwrap();
    for since in [0, 1_000_001, 1_000_007, 1_000_012, 1_000_020, 1_000_021] {
        let mut seen = Vec::new();
        log.replay(since, |record| seen.push((record.sequence, record.time))).unwrap();
        let expected: Vec<(u64, u64)> =
            (1..=20).map(|n| (n, 1_000_000 + n)).filter(|(_, time)| *time >= since).collect();
        assert_eq!(seen, expected, "since {since}");
    }
}

#[test]
fn a_record_that_is_too_long_is_refused_and_leaves_no_trace() {
    let sink = new(2);
    let (log, _) = open(&sink).unwrap();
    let long = AuditRecord { detail: "x".repeat(70_000), ..record(3) };
    assert!(matches!(log.append(long), Err(Error::TooLong { limit: 65_536, .. })));
    write(&log, 3..=4);
    assert_eq!(log.verify().unwrap().records, 4);
}

#[test]
fn a_second_writer_is_refused_and_a_log_is_not_made_over_another() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("audit");
    assert!(matches!(FileSink::open(&folder), Err(Error::Missing { .. })));
    let log = Log::create(FileSink::create(&folder).unwrap(), &key(), PROCESS).unwrap();
    assert!(matches!(FileSink::open(&folder), Err(Error::InUse { .. })));
    drop(log);
    // Made and never written to: an initialisation that was interrupted begins again.
    let log = Log::create(FileSink::create(&folder).unwrap(), &key(), PROCESS).unwrap();
    write(&log, 1..=1);
    drop(log);
    let again = Log::create(FileSink::create(&folder).unwrap(), &key(), PROCESS);
    assert!(matches!(again, Err(Error::AlreadyExists)));
    drop(again);
    assert_eq!(Log::open(FileSink::open(&folder).unwrap(), &key(), PROCESS).unwrap().1, clean(1));
}

#[test]
fn the_summary_names_the_last_link() {
    let sink = new(3);
    let bytes = bytes(&sink, 1);
    let Summary { records, head } = verify(&sink, &key()).unwrap();
    assert_eq!((records, head.as_slice()), (3, &bytes[bytes.len() - 32..]));
}

/// Computed by another program from the description in `chain.rs`: what was once written must stay readable.
#[test]
fn the_bytes_are_the_ones_that_are_described() {
    let sink = new(2);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(
        hex(&bytes(&sink, 1)),
        [
            "000000788e011a000f4241687472656173757279666465736b2d3148070707070707070750000000000000000000",
            "00000000000000011b0000010000000001645369676e500909090909090909090909090909090919104158200101",
            "010101010101010101010101010101010101010101010101010101010101006074f815eac8a1009ec9f6f6341449",
            "89bea95166b1de8421ce224f56d974fc2522000000788e021a000f4242687472656173757279666465736b2d3148",
            "07070707070707075000000000000000000000000000000000011b0000010000000002645369676e500909090909",
            "09090909090909090909091910415820020202020202020202020202020202020202020202020202020202020202",
            "0202006081681ef29b6d0fa06d320b5d37cb89b60f40a8293ad7d8df3fe6193dc74e50f7",
        ]
        .concat()
    );
    assert_eq!(
        hex(&sink.read_head().unwrap().unwrap()),
        [
            "000000000000000281681ef29b6d0fa06d320b5d37cb89b60f40a8293ad7d8df3fe6193dc74e50f7000000000000",
            "0000000000000000000000000000000000000000000000000000e6cf95c7151e6afebc67bff2e02ebc949f7bb845",
            "999ab3738d205be769b73f6c",
        ]
        .concat()
    );
}
