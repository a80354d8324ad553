//! Opening a log after whatever happened: what must be there is proved, what a crash tore is cut off.
//!
//! As long as the machine runs, nothing that was written is lost, not even when every process is killed: the
//! log must reach the head. After a power failure only what was durable must be there; the rest is kept as
//! far as it fits.

use std::ops::RangeInclusive;

use super::{
    chain::{Chain, Head, Mark},
    error::{Error, Tampering},
    sink::AuditSink,
    walk::{Step, Walk},
};

/// What opening a log found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The number of the last record; 0 if there is none.
    pub last: u64,
    /// The greatest store version that a record speaks of; 0 if none does. A store that is one ahead has an
    /// outbox whose record is missing here; a store that is behind was put back.
    pub store_version: u64,
    /// How many bytes of an unfinished record, which no reply has waited for, were cut off.
    pub cut: u64,
    /// The records that a power failure took: written, not yet durable.
    pub lost: Option<RangeInclusive<u64>>,
}

/// How a log goes on.
pub(super) struct Found {
    pub mark: Mark,
    /// The segment to go on with, and its good length.
    pub segment: u64,
    pub length: u64,
    pub recovered: Recovered,
}

/// Proves the end of the log.
pub(super) fn recover<S: AuditSink>(sink: &S, chain: &Chain) -> Result<Found, Error> {
    let Some(bytes) = sink.read_head()? else {
        return Err(if sink.segments()?.is_empty() { Error::Empty } else { Error::HeadMissing });
    };
    let head = Head::decode(&bytes, chain).ok_or(Error::HeadChanged)?;
    let power_failed = head.boot != sink.boot();
    let due = if power_failed { head.durable } else { head.written };
    let mut walk = Walk::from(sink, chain, head.durable)?;
    loop {
        let step = walk.step()?;
        let next = walk.mark().sequence.saturating_add(1);
        let wrong = match step {
            Step::Record(record) if record.sequence == head.written && walk.mark().link != head.link => {
                return Err(Error::HeadChanged);
            }
            Step::Record(_) => continue,
            Step::End if next <= due => Tampering::Missing,
            Step::Torn if next <= due => Tampering::CutOff,
            Step::Wrong(what) if next <= due || !power_failed || !walk.in_last_segment() => what,
            Step::End | Step::Torn | Step::Wrong(_) => break,
        };
        return Err(Error::Tampered { sequence: next, what: wrong });
    }
    let mut mark = *walk.mark();
    mark.store_version = mark.store_version.max(head.store_version);
    let (segment, length) = walk.place().unwrap_or((1, 0));
    let cut = if walk.place().is_some() { sink.length(segment)?.saturating_sub(length) } else { 0 };
    let lost = (mark.sequence < head.written).then(|| mark.sequence + 1..=head.written);
    let recovered = Recovered { last: mark.sequence, store_version: mark.store_version, cut, lost };
    Ok(Found { mark, segment, length, recovered })
}
