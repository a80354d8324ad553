//! The audit log: gap-free and proved, whatever happens to the process, the machine or the files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

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

/// What verifying and opening say of a log that somebody was at: the same.
fn verdict(sink: &MemorySink) -> (u64, Tampering) {
    let verified = match verify(sink, &key()) {
        Err(Error::Tampered { sequence, what }) => (sequence, what),
        other => panic!("not found: {other:?}"),
    };
    match open(&sink.copy()).map(|(_, recovered)| recovered) {
        Err(Error::Tampered { sequence, what }) => assert_eq!((sequence, what), verified),
        other => panic!("not found when opened: {other:?}"),
    }
    verified
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
fn every_changed_byte_is_found_and_its_record_named() {
    let sink = new(3);
    let bounds = bounds(&bytes(&sink, 1));
    for (index, bounds) in bounds.windows(2).enumerate() {
        for offset in bounds[0]..bounds[1] {
            let copy = sink.copy();
            copy.tamper(1, |bytes| bytes[offset] ^= 0x01);
            let (sequence, what) = verdict(&copy);
            assert_eq!(sequence, index as u64 + 1, "byte {offset}: {what}");
        }
    }
}

#[test]
fn a_dropped_record_is_named() {
    let sink = new(6);
    let bounds = bounds(&bytes(&sink, 1));
    for index in 0..5 {
        let copy = sink.copy();
        copy.tamper(1, |bytes| drop(bytes.drain(bounds[index]..bounds[index + 1])));
        let sequence = index as u64 + 1;
        assert_eq!(verdict(&copy), (sequence, Tampering::Misplaced { found: sequence + 1 }));
    }
    sink.tamper(1, |bytes| bytes.truncate(bounds[5]));
    assert_eq!(verdict(&sink), (6, Tampering::Missing));
}

#[test]
fn reordered_and_inserted_records_are_named() {
    let sink = new(6);
    let original = bytes(&sink, 1);
    let bounds = bounds(&original);
    let frame = |number: usize| &original[bounds[number - 1]..bounds[number]];
    let swapped = [frame(1), frame(2), frame(4), frame(3), frame(5), frame(6)].concat();
    sink.tamper(1, |bytes| *bytes = swapped);
    assert_eq!(verdict(&sink), (3, Tampering::Misplaced { found: 4 }));
    let doubled = [frame(1), frame(2), frame(2), frame(3), frame(4), frame(5), frame(6)].concat();
    sink.tamper(1, |bytes| *bytes = doubled);
    assert_eq!(verdict(&sink), (3, Tampering::Misplaced { found: 2 }));
    let appended = [&original, frame(6)].concat();
    sink.tamper(1, |bytes| *bytes = appended);
    assert_eq!(verdict(&sink), (7, Tampering::Misplaced { found: 6 }));
}

#[test]
fn a_log_made_without_the_key_is_found() {
    let forged = MemorySink::default();
    write(&Log::create(forged.clone(), &Secret::new([1; 32]), PROCESS).unwrap(), 1..=6);
    assert!(matches!(verify(&forged, &key()), Err(Error::HeadChanged)));
    assert!(matches!(open(&forged), Err(Error::HeadChanged)));
    let sink = new(6);
    sink.tamper(1, |into| *into = bytes(&forged, 1));
    assert_eq!(verdict(&sink), (1, Tampering::Changed));
}

#[test]
fn a_log_cut_at_any_byte_of_its_last_two_records_is_behind_its_head() {
    let sink = new(6);
    let bounds = bounds(&bytes(&sink, 1));
    for length in bounds[4]..bounds[6] {
        let copy = sink.copy();
        copy.tamper(1, |bytes| bytes.truncate(length));
        let sequence = if length < bounds[5] { 5 } else { 6 };
        let whole = bounds.contains(&length);
        let what = if whole { Tampering::Missing } else { Tampering::CutOff };
        assert_eq!(verdict(&copy), (sequence, what), "cut to {length} bytes");
    }
}

#[test]
fn what_kill_9_tore_behind_the_head_is_repaired_at_any_byte() {
    let sink = MemorySink::default();
    let log = Log::create(sink.clone(), &key(), PROCESS).unwrap();
    write(&log, 1..=4);
    let head = sink.read_head().unwrap();
    write(&log, 5..=6);
    let bounds = bounds(&bytes(&sink, 1));
    for length in bounds[4]..=bounds[6] {
        let copy = sink.copy();
        copy.set_head(head);
        copy.tamper(1, |bytes| bytes.truncate(length));
        let last = bounds.iter().rposition(|bound| *bound <= length).unwrap();
        let (log, recovered) = open(&copy).unwrap();
        assert_eq!(recovered, Recovered { cut: (length - bounds[last]) as u64, ..clean(last as u64) });
        write(&log, last as u64 + 1..=8);
        assert_eq!(verify(&copy, &key()).unwrap().records, 8);
        assert_eq!(open(&copy).unwrap().1, clean(8));
    }
}

#[test]
fn a_missing_or_changed_head_is_found() {
    let sink = new(3);
    let head = sink.set_head(None).unwrap();
    assert!(matches!(verify(&sink, &key()), Err(Error::HeadMissing)));
    assert!(matches!(open(&sink), Err(Error::HeadMissing)));
    for index in 0..head.len() {
        let mut changed = head;
        changed[index] ^= 0x80;
        sink.set_head(Some(changed));
        assert!(matches!(open(&sink), Err(Error::HeadChanged)), "byte {index}");
    }
    assert!(matches!(verify(&sink, &key()), Err(Error::HeadChanged)));
    assert!(matches!(open(&MemorySink::default()), Err(Error::Empty)));
    assert!(matches!(verify(&MemorySink::default(), &key()), Err(Error::Empty)));
}

#[test]
fn an_older_head_with_an_older_log_is_seen_only_by_its_number() {
    // Both put back together: here nothing can be seen, and the store knows better.
    let sink = MemorySink::default();
    let log = Log::create(sink.clone(), &key(), PROCESS).unwrap();
    let speaks = |version| AuditRecord { store_version: Some(version), ..record(1) };
    log.commit(log.append(speaks(1)).unwrap()).unwrap();
    let backup = sink.copy();
    log.commit(log.append(speaks(2)).unwrap()).unwrap();
    assert_eq!(open(&backup).unwrap().1.store_version, 1);
    assert_eq!(open(&sink).unwrap().1.store_version, 2);
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
fn a_missing_or_shortened_segment_is_found() {
    let (sink, segments) = segmented();
    for pair in segments.windows(2) {
        let copy = sink.copy();
        copy.steal(pair[0]).unwrap();
        match verify(&copy, &key()) {
            Err(Error::Tampered { sequence, what: Tampering::Missing }) => assert_eq!(sequence, pair[0]),
            other => panic!("{other:?}"),
        }
        for cut in [1, 36] {
            let copy = sink.copy();
            copy.tamper(pair[0], |bytes| bytes.truncate(bytes.len() - cut));
            match verify(&copy, &key()) {
                Err(Error::Tampered { sequence, what: Tampering::CutOff }) => {
                    assert_eq!(sequence, pair[1] - 1)
                }
                other => panic!("{other:?}"),
            }
        }
    }
    let [.., before, last] = segments[..] else { panic!("segments") };
    let copy = sink.copy();
    copy.steal(last).unwrap();
    assert_eq!(verdict(&copy), (last, Tampering::Missing));
    // Opening reads the last segment, and what it hangs on.
    let copy = sink.copy();
    copy.steal(before).unwrap();
    assert!(matches!(open(&copy), Err(Error::Tampered { .. })));
    let copy = sink.copy();
    copy.tamper(before, |bytes| *bytes.last_mut().unwrap() ^= 1);
    assert!(matches!(open(&copy), Err(Error::Tampered { .. })));
}

#[test]
fn killed_between_two_segments_it_goes_on() {
    let sink = MemorySink::default();
    write(&Log::create(sink.clone(), &key(), PROCESS).unwrap(), 1..=3);
    sink.start(4, 0).unwrap();
    let (log, recovered) = open(&sink).unwrap();
    assert_eq!(recovered, clean(3));
    write(&log, 4..=5);
    assert_eq!(sink.segments().unwrap(), [1, 4]);
    assert_eq!(verify(&sink, &key()).unwrap().records, 5);
}

#[test]
fn after_a_failed_write_there_are_no_records_and_no_half_ones() {
    for disk in [Disk::Full, Disk::Tearing(10), Disk::Tearing(150), Disk::Tearing(400)] {
        let sink = MemorySink::default();
        let log = Log::create(sink.clone(), &key(), PROCESS).unwrap();
        write(&log, 1..=2);
        sink.set_disk(disk);
        let positions = [log.append(record(3)).unwrap(), log.append(record(4)).unwrap()];
        assert!(matches!(log.commit(positions[0]), Err(Error::NotDurable { .. })));
        sink.set_disk(Disk::Good);
        assert!(matches!(log.commit(positions[1]), Err(Error::NotDurable { .. })));
        assert!(matches!(log.append(record(3)), Err(Error::NotDurable { .. })));
        assert!(matches!(log.sync(), Err(Error::NotDurable { .. })));
        log.commit(Position(2)).unwrap();
        drop(log);
        let (log, recovered) = open(&sink).unwrap();
        assert!((2..=4).contains(&recovered.last), "{disk:?}: {recovered:?}");
        write(&log, recovered.last + 1..=9);
        assert_eq!(verify(&sink, &key()).unwrap().records, 9);
    }
}

#[test]
fn a_failed_sync_ends_the_log_too() {
    let sink = MemorySink::default();
    let log = Log::create(sink.clone(), &key(), POWER).unwrap();
    sink.set_disk(Disk::NotSyncing);
    let position = log.append(record(1)).unwrap();
    assert!(matches!(log.commit(position), Err(Error::NotDurable { .. })));
    sink.set_disk(Disk::Good);
    assert!(matches!(log.commit(position), Err(Error::NotDurable { .. })));
    assert!(matches!(log.append(record(2)), Err(Error::NotDurable { .. })));
}

#[test]
fn power_mode_syncs_before_it_returns_and_process_mode_at_the_tick() {
    let sink = MemorySink::default();
    let log = Log::create(sink.clone(), &key(), POWER).unwrap();
    let before = sink.counts().syncs;
    write(&log, 1..=3);
    assert_eq!(sink.counts().syncs, before + 3);
    log.commit(Position(2)).unwrap();
    log.harden(Position(3)).unwrap();
    assert_eq!(sink.counts().syncs, before + 3);

    let sink = MemorySink::default();
    let log = Log::create(sink.clone(), &key(), PROCESS).unwrap();
    let before = sink.counts();
    write(&log, 1..=3);
    assert_eq!(sink.counts().syncs, before.syncs);
    log.sync().unwrap();
    log.sync().unwrap();
    assert_eq!((sink.counts().syncs, sink.counts().head_syncs), (before.syncs + 1, before.head_syncs + 1));
    log.append(record(4)).unwrap();
    log.sync().unwrap();
    assert_eq!((sink.counts().appends, sink.counts().syncs), (4, before.syncs + 2));
    log.harden(log.append(record(5)).unwrap()).unwrap();
    assert_eq!(sink.counts().syncs, before.syncs + 3);
}

#[test]
fn a_power_failure_takes_only_what_was_not_synced() {
    for kept in (0..400).step_by(3) {
        let sink = MemorySink::default();
        let log = Log::create(sink.clone(), &key(), PROCESS).unwrap();
        let speaks = |number, version| AuditRecord { store_version: Some(version), ..record(number) };
        log.commit(log.append(speaks(1, 1)).unwrap()).unwrap();
        log.sync().unwrap();
        let durable = bytes(&sink, 1).len();
        log.commit(log.append(speaks(2, 2)).unwrap()).unwrap();
        log.commit(log.append(speaks(3, 3)).unwrap()).unwrap();
        drop(log);
        let bounds = bounds(&bytes(&sink, 1));
        sink.power_failure(kept);
        let last = bounds.iter().rposition(|bound| *bound <= durable + kept).unwrap() as u64;
        let (log, recovered) = open(&sink).unwrap();
        let lost = (last < 3).then_some(last + 1..=3);
        let cut = (durable + kept).min(bounds[3]) - bounds[last as usize];
        assert_eq!(recovered, Recovered { last, store_version: last, cut: cut as u64, lost }, "kept {kept}");
        write(&log, last + 1..=6);
        assert_eq!(verify(&sink, &key()).unwrap().records, 6);
    }
}

#[test]
fn a_power_failure_excuses_no_gap_in_what_was_synced() {
    let sink = MemorySink::default();
    let log = Log::create(sink.clone(), &key(), PROCESS).unwrap();
    write(&log, 1..=3);
    log.sync().unwrap();
    write(&log, 4..=4);
    let bounds = bounds(&bytes(&sink, 1));
    sink.power_failure(1000);
    sink.tamper(1, |bytes| bytes.truncate(bounds[2]));
    assert!(matches!(open(&sink), Err(Error::Tampered { sequence: 3, what: Tampering::Missing })));
}

#[test]
fn what_a_power_failure_left_of_unsynced_pages_is_cut_off() {
    let sink = MemorySink::default();
    let log = Log::create(sink.clone(), &key(), PROCESS).unwrap();
    write(&log, 1..=2);
    log.sync().unwrap();
    write(&log, 3..=5);
    let (all, bounds) = (bytes(&sink, 1), bounds(&bytes(&sink, 1)));
    for fill in [0x00, 0xff, 0x01] {
        let copy = sink.copy();
        copy.tamper(1, |bytes| bytes[bounds[3]..bounds[4]].fill(fill));
        // The same bytes are tampering as long as the machine has not been off.
        assert!(matches!(open(&copy.copy()), Err(Error::Tampered { sequence: 4, .. })));
        copy.power_failure(all.len());
        let (_, recovered) = open(&copy).unwrap();
        let cut = (all.len() - bounds[3]) as u64;
        assert_eq!(recovered, Recovered { cut, lost: Some(4..=5), ..clean(3) });
        assert_eq!(verify(&copy, &key()).unwrap().records, 3);
    }
}

#[test]
fn the_last_store_version_is_known_even_from_an_old_segment() {
    let sink = MemorySink::default();
    let small = Settings { segment_limit: 600, ..PROCESS };
    let log = Log::create(sink.clone(), &key(), small).unwrap();
    log.commit(log.append(AuditRecord { store_version: Some(17), ..record(1) }).unwrap()).unwrap();
    write(&log, 2..=30);
    drop(log);
    for _ in 0..2 {
        assert_eq!(open(&sink).unwrap().1, Recovered { store_version: 17, ..clean(30) });
    }
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
fn replay_and_tail_stop_at_a_changed_record() {
    let sink = new(6);
    let (log, _) = open(&sink).unwrap();
    let bounds = bounds(&bytes(&sink, 1));
    sink.tamper(1, |bytes| bytes[bounds[3] + 20] ^= 1);
    assert!(matches!(log.replay(0, |_| {}), Err(Error::Tampered { sequence: 4, .. })));
    assert!(matches!(log.tail(3, None), Err(Error::Tampered { sequence: 4, .. })));
    assert!(matches!(log.verify(), Err(Error::Tampered { sequence: 4, .. })));
    assert_eq!(log.tail(2, None).unwrap().len(), 2);
    assert!(log.tail(5, Some(6)).unwrap().is_empty() && log.tail(0, None).unwrap().is_empty());
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
fn a_folder_without_its_head_is_not_a_new_log() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write(&Log::create(FileSink::create(folder).unwrap(), &key(), PROCESS).unwrap(), 1..=2);
    fs::remove_file(folder.join("head")).unwrap();
    let opened = Log::open(FileSink::open(folder).unwrap(), &key(), PROCESS);
    assert!(matches!(opened, Err(Error::HeadMissing)));
    drop(opened);
    fs::write(folder.join("head"), [0; 10]).unwrap();
    let opened = Log::open(FileSink::open(folder).unwrap(), &key(), PROCESS);
    assert!(matches!(opened, Err(Error::HeadChanged)));
}

#[test]
fn a_process_that_was_killed_loses_no_committed_record() {
    let folder = tempfile::tempdir().unwrap();
    let mut last = 0;
    for round in 0..5 {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writes_until_it_is_killed", "--nocapture"])
            .env("AUDIT_FOLDER", folder.path())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let committed = kill_after(child, 2000 + 700 * round);
        let summary = verify(&FileSource::new(folder.path()), &key()).unwrap();
        let (log, recovered) = Log::open(FileSink::open(folder.path()).unwrap(), &key(), PROCESS).unwrap();
        assert!(recovered.last >= committed && committed > last, "{recovered:?}, told {committed}");
        assert!(recovered.last >= summary.records && recovered.lost.is_none());
        assert_eq!(log.verify().unwrap().records, recovered.last);
        last = recovered.last;
    }
}

/// Reads what the child says it has committed, and kills it in the middle.
fn kill_after(mut child: std::process::Child, lines: usize) -> u64 {
    use std::io::{BufRead, BufReader};
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let (mut line, mut committed, mut seen) = (String::new(), 0, 0);
    while reader.read_line(&mut line).unwrap() > 0 {
        if let Some(number) = line.strip_prefix("committed ").filter(|_| line.ends_with('\n')) {
            committed = number.trim().parse().unwrap();
            seen += 1;
            if seen == lines {
                child.kill().unwrap();
            }
        }
        line.clear();
    }
    child.wait().unwrap();
    committed
}

/// The process of the test above.
#[test]
#[allow(clippy::print_stdout)]
fn writes_until_it_is_killed() {
    let Some(folder) = std::env::var_os("AUDIT_FOLDER") else { return };
    let sink = FileSink::open(Path::new(&folder)).unwrap();
    let small = Settings { segment_limit: 100_000, ..PROCESS };
    let log = if verify(&FileSource::new(Path::new(&folder)), &key()).is_err() {
        Log::create(sink, &key(), small).unwrap()
    } else {
        Log::open(sink, &key(), small).unwrap().0
    };
    println!();
    for number in 0..1_000_000 {
        let position = log.append(record(number)).unwrap();
        log.commit(position).unwrap();
        println!("committed {}", position.0);
    }
}

#[test]
fn the_summary_names_the_last_link() {
    let sink = new(3);
    let bytes = bytes(&sink, 1);
    let Summary { records, head } = verify(&sink, &key()).unwrap();
    assert_eq!((records, head.as_slice()), (3, &bytes[bytes.len() - 32..]));
}
