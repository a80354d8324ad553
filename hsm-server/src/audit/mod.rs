//! The audit room: no act without a record, and no record that can be changed unseen.
//!
//! Every record is linked to the one before by a keyed hash (see `chain.rs`). [`Log::append`] puts a record
//! into memory in a microsecond; [`Log::commit`] returns when it is as durable as the configuration asks, and
//! whoever writes, writes for all. Only [`Log::record`] turns a [`Grant`] into an [`Authorized`]. When a
//! write fails, the log takes no more records, so nothing is done that is not on record.
//!
//! What the chain cannot show is a log that was put back as a whole, head included: the vault compares it
//! with the store.

mod chain;
mod error;
mod file;
pub mod memory;
mod recover;
mod sink;
mod verify;
mod walk;

use std::{
    fmt,
    sync::{
        Condvar, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use strongroom_shared::{message::AuditRecord, secret::Secret};

pub use self::{
    chain::HEAD,
    error::{Error, Tampering},
    file::{FileSink, FileSource},
    recover::Recovered,
    sink::{AuditSink, AuditSource},
    verify::{Summary, verify},
};
use self::{
    chain::{Chain, Head, Mark},
    walk::{Step, Walk},
};
use crate::authority::{Authorized, Grant};

/// Only this room can make one.
#[derive(Debug)]
pub struct Seal(());

/// What [`Log::commit`] waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The record is in the kernel: it survives the death of every process. [`Log::sync`] makes it durable
    /// soon.
    Process,
    /// The record is on disk: it survives a power failure.
    Power,
}

/// How a log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What a commit waits for.
    pub durability: Durability,
    /// A segment that is longer than this, in bytes, is followed by a new one.
    pub segment_limit: u64,
}

impl Settings {
    /// The usual length of a segment, in bytes.
    pub const SEGMENT_LIMIT: u64 = 64 << 20;
}

/// The place of a record in the log: its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position(pub u64);

/// The end of the log, in memory: short work only under this lock.
struct Tail {
    /// The last record that was appended.
    mark: Mark,
    /// Frames that were not yet written.
    buffer: Vec<u8>,
}

/// Whoever holds this writes for all.
struct Writer {
    written: Mark,
    durable: Mark,
    segment_length: u64,
    /// Becomes the tail's buffer when that is written.
    spare: Vec<u8>,
}

/// The log. Many threads use it at once.
pub struct Log<S> {
    sink: S,
    chain: Chain,
    settings: Settings,
    boot: [u8; 16],
    /// Whether a thread is at it, for all; the others wait for `synced`.
    syncing: Mutex<bool>,
    synced: Condvar,
    // Locked in this order, either of them alone too.
    writer: Mutex<Writer>,
    tail: Mutex<Tail>,
    /// The number of the last record in the kernel, for a look without a lock.
    written: AtomicU64,
    /// The number of the last record on disk, for a look without a lock.
    durable: AtomicU64,
    /// The number of the last durable record that the head on disk knows of.
    head_durable: AtomicU64,
    /// Why the log takes no more records.
    poison: OnceLock<String>,
}

impl<S> fmt::Debug for Log<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Log up to record {}", self.written.load(Ordering::Acquire))
    }
}

impl<S: AuditSink> Log<S> {
    /// Makes a new log. One that was made and never written to is taken as new.
    ///
    /// # Errors
    /// `AlreadyExists` if there are records; what the sink says.
    pub fn create(sink: S, key: &Secret<[u8; 32]>, settings: Settings) -> Result<Self, Error> {
        for segment in sink.segments()? {
            if sink.length(segment)? > 0 {
                return Err(Error::AlreadyExists);
            }
        }
        Self::start(sink, Chain::new(key), settings, Mark::START, (1, 0))
    }

    /// Opens a log, proves its end, and cuts off what a crash left unfinished.
    ///
    /// # Errors
    /// `Tampered`, `HeadMissing`, `HeadChanged`, `Empty`; what the sink says.
    pub fn open(sink: S, key: &Secret<[u8; 32]>, settings: Settings) -> Result<(Self, Recovered), Error> {
        let chain = Chain::new(key);
        let found = recover::recover(&sink, &chain)?;
        let log = Self::start(sink, chain, settings, found.mark, (found.segment, found.length))?;
        Ok((log, found.recovered))
    }

    /// Goes on behind `mark`, at this length of this segment.
    fn start(
        sink: S,
        chain: Chain,
        settings: Settings,
        mark: Mark,
        (segment, length): (u64, u64),
    ) -> Result<Self, Error> {
        let boot = sink.boot();
        sink.start(segment, length)?;
        sink.sync()?;
        sink.write_head(&Head::new(&mark, &mark, boot).encode(&chain))?;
        sink.sync_head()?;
        Ok(Self {
            sink,
            chain,
            settings,
            boot,
            syncing: Mutex::new(false),
            synced: Condvar::new(),
            writer: Mutex::new(Writer {
                written: mark,
                durable: mark,
                segment_length: length,
                spare: Vec::new(),
            }),
            tail: Mutex::new(Tail { mark, buffer: Vec::new() }),
            written: AtomicU64::new(mark.sequence),
            durable: AtomicU64::new(mark.sequence),
            head_durable: AtomicU64::new(mark.sequence),
            poison: OnceLock::new(),
        })
    }

    /// Puts a record at the end of the log and gives it its number. It is in memory only: nothing may be said
    /// or done on the strength of it before it is committed.
    ///
    /// # Errors
    /// `TooLong`; `NotDurable` if an earlier write failed.
    pub fn append(&self, mut record: AuditRecord) -> Result<Position, Error> {
        self.sound()?;
        let mut tail = self.lock(&self.tail)?;
        let Tail { mark, buffer } = &mut *tail;
        record.sequence = mark.sequence.saturating_add(1);
        let link = self.chain.write_frame(buffer, &mark.link, &record)?;
        *mark = mark.after(&record, link);
        Ok(Position(record.sequence))
    }

    /// Puts a grant on record and gives the authority to act on it, once.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn record(&self, grant: Grant, record: AuditRecord) -> Result<Authorized, Error> {
        self.append(record)?;
        Ok(Authorized::new(grant, Seal(())))
    }

    /// The place of the last record that was appended.
    ///
    /// # Errors
    /// `NotDurable` if an earlier write failed.
    pub fn last(&self) -> Result<Position, Error> {
        Ok(Position(self.lock(&self.tail)?.mark.sequence))
    }

    /// The place of the last record that is on disk for certain.
    pub fn durable(&self) -> Position {
        Position(self.durable.load(Ordering::Acquire))
    }

    /// Returns when every record up to `position` is as durable as the settings ask.
    ///
    /// # Errors
    /// `NotDurable` if it cannot be written, now or ever.
    pub fn commit(&self, position: Position) -> Result<(), Error> {
        match self.settings.durability {
            Durability::Process => self.write_to(position),
            Durability::Power => self.harden(position),
        }
    }

    /// Returns when every record up to `position` is on disk, whatever the settings ask. Acts that change the
    /// store wait for this before the next such act, so that the store's outbox always holds the one record
    /// that may be missing.
    ///
    /// # Errors
    /// `NotDurable` if it cannot be written, now or ever.
    pub fn harden(&self, position: Position) -> Result<(), Error> {
        if self.durable.load(Ordering::Acquire) >= position.0 {
            return Ok(());
        }
        self.write_to(position)?;
        let mut busy = self.lock(&self.syncing)?;
        while *busy && self.durable.load(Ordering::Acquire) < position.0 {
            busy = self.synced.wait(busy).map_err(|_| died())?;
        }
        if self.durable.load(Ordering::Acquire) >= position.0 {
            return Ok(());
        }
        *busy = true;
        drop(busy);
        let result = self.sync_written();
        *self.lock(&self.syncing)? = false;
        self.synced.notify_all();
        result
    }

    /// Writes what was appended and makes the whole log durable, its head included, if it is not yet.
    ///
    /// # Errors
    /// `NotDurable` if it cannot be written, now or ever.
    pub fn sync(&self) -> Result<(), Error> {
        let last = self.last()?;
        self.harden(last)?;
        if self.head_durable.load(Ordering::Acquire) < last.0 {
            self.attempt(self.sink.sync_head())?;
            self.head_durable.fetch_max(last.0, Ordering::AcqRel);
        }
        self.sound()
    }

    /// Proves every record that is written.
    ///
    /// # Errors
    /// As [`verify`].
    pub fn verify(&self) -> Result<Summary, Error> {
        let head = {
            let writer = self.lock(&self.writer)?;
            let on_disk = self.sink.read_head()?.ok_or(Error::HeadMissing)?;
            let head = Head::new(&writer.written, &writer.durable, self.boot);
            if Head::decode(&on_disk, &self.chain) != Some(head) {
                return Err(Error::HeadChanged);
            }
            head
        };
        verify::verify_to(&self.sink, &self.chain, &head)
    }

    /// Shows every written record from `since` on, in microseconds since 1970, oldest first: what was counted
    /// or answered before a restart.
    ///
    /// # Errors
    /// `Tampered`; what the sink says.
    pub fn replay(&self, since: u64, mut visit: impl FnMut(AuditRecord)) -> Result<(), Error> {
        let written = self.written.load(Ordering::Acquire);
        let mut from = 1;
        for segment in self.sink.segments()?.into_iter().rev() {
            if walk::first_record(&self.sink, segment)?.is_some_and(|record| record.time < since) {
                from = segment;
                break;
            }
        }
        let mut walk = Walk::from(&self.sink, &self.chain, from)?;
        while let Some(record) = next_record(&mut walk, written)? {
            if record.time >= since {
                visit(record);
            }
        }
        Ok(())
    }

    /// The first `count` records after number `after`, or without it the last `count`; oldest first. The
    /// caller bounds `count`.
    ///
    /// # Errors
    /// `Tampered`; what the sink says.
    pub fn tail(&self, count: usize, after: Option<u64>) -> Result<Vec<AuditRecord>, Error> {
        let written = self.written.load(Ordering::Acquire);
        let before = after.unwrap_or_else(|| written.saturating_sub(count as u64));
        let mut records = Vec::new();
        if before >= written {
            return Ok(records);
        }
        let mut walk = Walk::from(&self.sink, &self.chain, before + 1)?;
        walk.skip_to(before)?;
        while records.len() < count
            && let Some(record) = next_record(&mut walk, written)?
        {
            records.push(record);
        }
        Ok(records)
    }

    /// Writes everything that was appended, unless another thread has written `position` meanwhile.
    fn write_to(&self, position: Position) -> Result<(), Error> {
        if self.written.load(Ordering::Acquire) >= position.0 {
            return Ok(());
        }
        let mut writer = self.lock(&self.writer)?;
        if self.written.load(Ordering::Acquire) >= position.0 {
            return Ok(());
        }
        self.sound()?;
        let mark = {
            let mut tail = self.lock(&self.tail)?;
            std::mem::swap(&mut tail.buffer, &mut writer.spare);
            tail.mark
        };
        self.attempt(self.write(&mut writer, mark))?;
        self.written.store(mark.sequence, Ordering::Release);
        Ok(())
    }

    /// Writes the frames in `spare`, which end at `mark`, and the head.
    fn write(&self, writer: &mut Writer, mark: Mark) -> Result<(), Error> {
        let length = writer.spare.len() as u64;
        if writer.segment_length > 0 && writer.segment_length + length > self.settings.segment_limit {
            self.rotate(writer)?;
        }
        self.sink.append(&writer.spare)?;
        writer.segment_length += length;
        writer.written = mark;
        self.write_head(writer)?;
        writer.spare.clear();
        // What one crowded moment needed is not kept for ever.
        writer.spare.shrink_to(1 << 20);
        Ok(())
    }

    /// Begins a new segment. The one before is durable then, so a crash can only tear the last segment.
    fn rotate(&self, writer: &mut Writer) -> Result<(), Error> {
        self.sink.sync()?;
        writer.durable = writer.written;
        self.durable.fetch_max(writer.durable.sequence, Ordering::AcqRel);
        self.write_head(writer)?;
        self.sink.sync_head()?;
        self.sink.start(writer.written.sequence.saturating_add(1), 0)?;
        writer.segment_length = 0;
        Ok(())
    }

    /// Makes what is written durable, while others go on writing.
    fn sync_written(&self) -> Result<(), Error> {
        let written = self.lock(&self.writer)?.written;
        self.sound()?;
        self.attempt(self.sink.sync())?;
        let mut writer = self.lock(&self.writer)?;
        if writer.durable.sequence < written.sequence {
            writer.durable = written;
        }
        self.attempt(self.write_head(&writer))?;
        self.durable.fetch_max(written.sequence, Ordering::AcqRel);
        Ok(())
    }

    fn write_head(&self, writer: &Writer) -> Result<(), Error> {
        self.sink.write_head(&Head::new(&writer.written, &writer.durable, self.boot).encode(&self.chain))
    }

    /// Lets no more records in if this failed.
    fn attempt(&self, result: Result<(), Error>) -> Result<(), Error> {
        result.map_err(|error| {
            let reason = self.poison.get_or_init(|| {
                tracing::error!(%error, "the audit log cannot be written: nothing more is done");
                error.to_string()
            });
            Error::NotDurable { reason: reason.clone() }
        })
    }

    fn sound(&self) -> Result<(), Error> {
        match self.poison.get() {
            None => Ok(()),
            Some(reason) => Err(Error::NotDurable { reason: reason.clone() }),
        }
    }

    /// A thread that panicked with a lock may have left half a record behind.
    fn lock<'a, T>(&self, mutex: &'a Mutex<T>) -> Result<MutexGuard<'a, T>, Error> {
        mutex.lock().map_err(|_| died())
    }
}

fn died() -> Error {
    Error::NotDurable { reason: "a thread died while it wrote the log".into() }
}

/// The next record up to number `last`.
fn next_record<S: AuditSource>(walk: &mut Walk<'_, S>, last: u64) -> Result<Option<AuditRecord>, Error> {
    let sequence = walk.mark().sequence.saturating_add(1);
    if sequence > last {
        return Ok(None);
    }
    match walk.step()? {
        Step::Record(record) => Ok(Some(*record)),
        Step::Wrong(what) => Err(Error::Tampered { sequence, what }),
        Step::Torn => Err(Error::Tampered { sequence, what: Tampering::CutOff }),
        Step::End => Err(Error::Tampered { sequence, what: Tampering::Missing }),
    }
}
