//! Killed processes, failing disks and power failures: what was promised is there, and the log goes on.

use super::*;

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
        write(&log, last as u64 + 1..=7);
        assert_eq!(verify(&copy, &key()).unwrap().records, 7);
        assert_eq!(open(&copy).unwrap().1, clean(7));
    }
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
fn in_power_mode_no_thread_returns_before_its_record_is_durable() {
    let sink = MemorySink::default();
    let log = Log::create(sink.clone(), &key(), Settings { segment_limit: 3000, ..POWER }).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for number in 0..60 {
                    let position = log.append(record(number)).unwrap();
                    log.commit(position).unwrap();
                    let disk = sink.copy();
                    disk.power_failure(0);
                    assert!(open(&disk).unwrap().1.last >= position.0);
                }
            });
        }
    });
    assert_eq!(log.verify().unwrap().records, 240);
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
fn a_power_failure_leaves_every_segment_but_the_last_whole() {
    let sink = MemorySink::default();
    let small = Settings { segment_limit: 500, ..PROCESS };
    write(&Log::create(sink.clone(), &key(), small).unwrap(), 1..=20);
    let last_segment = *sink.segments().unwrap().last().unwrap();
    sink.power_failure(0);
    let (_, recovered) = open(&sink).unwrap();
    assert_eq!(recovered, Recovered { lost: Some(last_segment..=20), ..clean(last_segment - 1) });
    assert_eq!(verify(&sink, &key()).unwrap().records, last_segment - 1);
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
fn a_process_that_was_killed_loses_no_committed_record() {
    let folder = tempfile::tempdir().unwrap();
    let mut last = 0;
    for round in 0..5 {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::writes_until_it_is_killed", "--nocapture"])
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
