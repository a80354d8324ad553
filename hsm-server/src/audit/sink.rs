//! Where the log's bytes go: segments that only grow, and a head that is rewritten in place.

use super::{chain::HEAD, error::Error};

/// A log that can be read. A segment is named by the number of its first record.
pub trait AuditSource: Send + Sync {
    /// Every segment, in order.
    ///
    /// # Errors
    /// The log cannot be read.
    fn segments(&self) -> Result<Vec<u64>, Error>;

    /// The length of a segment, in bytes.
    ///
    /// # Errors
    /// The log cannot be read.
    fn length(&self, segment: u64) -> Result<u64, Error>;

    /// Reads some bytes of a segment, from `offset`; none at its end.
    ///
    /// # Errors
    /// The log cannot be read.
    fn read(&self, segment: u64, offset: u64, buffer: &mut [u8]) -> Result<usize, Error>;

    /// The head, if one was written.
    ///
    /// # Errors
    /// The log cannot be read.
    fn read_head(&self) -> Result<Option<[u8; HEAD]>, Error>;
}

/// A log that can be written, by one writer.
pub trait AuditSink: AuditSource + 'static {
    /// What names this run of the machine. What was written and not synced is there as long as it stays the
    /// same: it survives the death of every process, and not a power failure.
    fn boot(&self) -> [u8; 16];

    /// Appends go to this segment from now on, behind its first `length` bytes; others are cut off. A new
    /// segment's name is durable when it returns.
    ///
    /// # Errors
    /// The log cannot be written.
    fn start(&self, segment: u64, length: u64) -> Result<(), Error>;

    /// Appends bytes to the segment, all or none.
    ///
    /// # Errors
    /// The log cannot be written. If not even what was written could be taken back, the end of the segment is
    /// torn.
    fn append(&self, bytes: &[u8]) -> Result<(), Error>;

    /// Makes everything appended durable.
    ///
    /// # Errors
    /// The log cannot be written.
    fn sync(&self) -> Result<(), Error>;

    /// Writes the head, whole or not at all.
    ///
    /// # Errors
    /// The log cannot be written.
    fn write_head(&self, head: &[u8; HEAD]) -> Result<(), Error>;

    /// Makes the head durable.
    ///
    /// # Errors
    /// The log cannot be written.
    fn sync_head(&self) -> Result<(), Error>;
}
