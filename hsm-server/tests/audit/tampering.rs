//! Whatever somebody did to the files is found, and the first record concerned is named.

use super::*;

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

proptest! {
    #[test]
    fn no_bytes_make_reading_panic_or_pass(noise in vec(any::<u8>(), 1..200), at in 0.0..1.0f64) {
        let sink = new(4);
        let whole = bytes(&sink, 1);
        let at = (whole.len() as f64 * at) as usize;
        let end = whole.len().min(at + noise.len());
        sink.tamper(1, |bytes| bytes[at..end].copy_from_slice(&noise[..end - at]));
        let changed = bytes(&sink, 1) != whole;
        prop_assert_eq!(verify(&sink, &key()).is_err(), changed);
        prop_assert_eq!(open(&sink).is_err(), changed);
        sink.tamper(1, |bytes| *bytes = noise.clone());
        prop_assert!(verify(&sink, &key()).is_err() && open(&sink).is_err());
    }
}

#[test]
fn the_head_of_one_branch_does_not_fit_the_log_of_another() {
    let one = new(3);
    let other = one.copy();
    write(&open(&one).unwrap().0, 4..=5);
    let (log, _) = open(&other).unwrap();
    log.commit(log.append(AuditRecord { outcome: Outcome::Refused, ..record(4) }).unwrap()).unwrap();
    write(&log, 5..=5);
    other.set_head(one.read_head().unwrap());
    assert!(matches!(verify(&other, &key()), Err(Error::HeadChanged)));
    assert!(matches!(open(&other), Err(Error::HeadChanged)));
}
