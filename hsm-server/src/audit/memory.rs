//! A log in memory, for tests: a clone is the same log, as a folder is after a restart.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    chain::HEAD,
    error::Error,
    sink::{AuditSink, AuditSource},
};

/// A log in memory.
#[derive(Clone, Debug, Default)]
pub struct MemorySink(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    segments: BTreeMap<u64, Vec<u8>>,
    current: u64,
    head: Option<[u8; HEAD]>,
    /// How long each segment was when it was last synced.
    durable: BTreeMap<u64, usize>,
    boot: [u8; 16],
    counts: Counts,
    disk: Disk,
}

/// How often the log was written to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Appends.
    pub appends: u64,
    /// Syncs of the segment.
    pub syncs: u64,
    /// Syncs of the head.
    pub head_syncs: u64,
}

/// How the disk behaves that a [`MemorySink`] plays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Disk {
    /// It works.
    #[default]
    Good,
    /// Appends write nothing and fail.
    Full,
    /// Appends write so many bytes, and fail.
    Tearing(usize),
    /// Syncs fail.
    NotSyncing,
}

impl MemorySink {
    /// From now on the disk behaves like this.
    pub fn set_disk(&self, disk: Disk) {
        self.lock().disk = disk;
    }

    /// How often it was written to so far.
    pub fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// The machine starts anew. What was not synced is gone, but for the first `kept` bytes of each segment's.
    pub fn power_failure(&self, kept: usize) {
        let mut state = self.lock();
        let State { segments, durable, boot, .. } = &mut *state;
        for (name, segment) in segments {
            segment.truncate(durable.get(name).unwrap_or(&0) + kept);
        }
        boot.iter_mut().for_each(|byte| *byte = byte.wrapping_add(1));
    }

    /// Changes the bytes of a segment behind the server's back.
    pub fn tamper(&self, segment: u64, change: impl FnOnce(&mut Vec<u8>)) {
        change(self.lock().segments.entry(segment).or_default());
    }

    /// Takes a segment away behind the server's back.
    pub fn steal(&self, segment: u64) -> Option<Vec<u8>> {
        self.lock().segments.remove(&segment)
    }

    /// Changes the head behind the server's back, and returns the one before.
    pub fn set_head(&self, head: Option<[u8; HEAD]>) -> Option<[u8; HEAD]> {
        std::mem::replace(&mut self.lock().head, head)
    }

    /// Another log with the same bytes.
    pub fn copy(&self) -> Self {
        let state = self.lock();
        Self(Arc::new(Mutex::new(State {
            segments: state.segments.clone(),
            current: state.current,
            head: state.head,
            durable: state.durable.clone(),
            boot: state.boot,
            ..State::default()
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed(what: &'static str) -> Error {
    Error::Io { what, file: PathBuf::from("memory"), error: io::Error::other("the disk is failing") }
}

impl AuditSource for MemorySink {
    fn segments(&self) -> Result<Vec<u64>, Error> {
        Ok(self.lock().segments.keys().copied().collect())
    }

    fn length(&self, segment: u64) -> Result<u64, Error> {
        self.lock().segments.get(&segment).map(|bytes| bytes.len() as u64).ok_or_else(|| failed("read"))
    }

    fn read(&self, segment: u64, offset: u64, buffer: &mut [u8]) -> Result<usize, Error> {
        let state = self.lock();
        let bytes = state.segments.get(&segment).ok_or_else(|| failed("read"))?;
        let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or_default();
        buffer.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        Ok(rest.len().min(buffer.len()))
    }

    fn read_head(&self) -> Result<Option<[u8; HEAD]>, Error> {
        Ok(self.lock().head)
    }
}

impl AuditSink for MemorySink {
    fn boot(&self) -> [u8; 16] {
        self.lock().boot
    }

    fn start(&self, segment: u64, length: u64) -> Result<(), Error> {
        let mut state = self.lock();
        let length = usize::try_from(length).map_err(|_| failed("write"))?;
        state.segments.entry(segment).or_default().truncate(length);
        state.current = segment;
        Ok(())
    }

    fn append(&self, bytes: &[u8]) -> Result<(), Error> {
        let mut state = self.lock();
        let State { segments, current, disk, counts, .. } = &mut *state;
        counts.appends += 1;
        let segment = segments.entry(*current).or_default();
        match disk {
            Disk::Good | Disk::NotSyncing => segment.extend_from_slice(bytes),
            Disk::Full => return Err(failed("write")),
            Disk::Tearing(written) => {
                segment.extend(bytes.iter().take(*written));
                return Err(failed("write"));
            }
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), Error> {
        let mut state = self.lock();
        state.counts.syncs += 1;
        if state.disk == Disk::NotSyncing {
            return Err(failed("sync"));
        }
        let State { segments, current, durable, .. } = &mut *state;
        durable.insert(*current, segments.get(current).map_or(0, Vec::len));
        Ok(())
    }

    fn write_head(&self, head: &[u8; HEAD]) -> Result<(), Error> {
        self.lock().head = Some(*head);
        Ok(())
    }

    fn sync_head(&self) -> Result<(), Error> {
        self.lock().counts.head_syncs += 1;
        Ok(())
    }
}
