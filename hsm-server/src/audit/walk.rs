//! Reading the log, frame by frame and segment by segment.

use strongroom_shared::message::AuditRecord;

use super::{
    chain::{self, Chain, LINK, LONGEST, Link, Mark, PREFIX},
    error::{Error, Tampering},
    sink::AuditSource,
};

/// How much is read at a time, in bytes.
const CHUNK: usize = 256 << 10;

/// What stands next in a segment.
enum Raw {
    /// A frame: its record's length.
    Frame(usize),
    /// Nothing.
    End,
    /// The beginning of a frame.
    Torn,
    /// Something that no frame begins with.
    Nonsense,
}

/// Reads the frames of one segment.
struct Segment<'a, S: ?Sized> {
    source: &'a S,
    name: u64,
    /// Bytes of the segment from `offset`.
    buffer: Vec<u8>,
    offset: u64,
    /// How much of the buffer was taken.
    taken: usize,
}

impl<'a, S: AuditSource + ?Sized> Segment<'a, S> {
    fn new(source: &'a S, name: u64) -> Self {
        Self { source, name, buffer: Vec::new(), offset: 0, taken: 0 }
    }

    /// Where the next frame begins.
    fn position(&self) -> u64 {
        self.offset + self.taken as u64
    }

    fn rest(&self) -> &[u8] {
        self.buffer.get(self.taken..).unwrap_or_default()
    }

    /// Reads until there are `wanted` bytes, or no more.
    fn fill(&mut self, wanted: usize) -> Result<(), Error> {
        if self.rest().len() >= wanted {
            return Ok(());
        }
        self.buffer.drain(..self.taken);
        self.offset += self.taken as u64;
        self.taken = 0;
        while self.buffer.len() < wanted {
            let length = self.buffer.len();
            self.buffer.resize(length + CHUNK, 0);
            let free = self.buffer.get_mut(length..).unwrap_or_default();
            let read = self.source.read(self.name, self.offset + length as u64, free);
            self.buffer.truncate(length + *read.as_ref().unwrap_or(&0));
            if read? == 0 {
                break;
            }
        }
        Ok(())
    }

    /// What stands next. A whole frame is in the buffer then.
    fn peek(&mut self) -> Result<Raw, Error> {
        self.fill(PREFIX)?;
        let Some(prefix) = self.rest().first_chunk::<PREFIX>() else {
            return Ok(if self.rest().is_empty() { Raw::End } else { Raw::Torn });
        };
        let length = u32::from_be_bytes(*prefix) as usize;
        if length == 0 || length > LONGEST {
            return Ok(Raw::Nonsense);
        }
        self.fill(PREFIX + length + LINK)?;
        Ok(if self.rest().len() >= PREFIX + length + LINK { Raw::Frame(length) } else { Raw::Torn })
    }

    /// The record and the link of the frame that was peeked at.
    fn frame(&self, length: usize) -> (&[u8], Link) {
        let frame = self.rest().get(PREFIX..PREFIX + length + LINK).unwrap_or_default();
        frame.split_last_chunk::<LINK>().map_or((&[], [0; LINK]), |(record, link)| (record, *link))
    }

    fn take(&mut self, length: usize) {
        self.taken += PREFIX + length + LINK;
    }
}

/// What a step along the chain finds.
pub(super) enum Step {
    /// The next record, which is genuine.
    Record(Box<AuditRecord>),
    /// The end of the last segment.
    End,
    /// The end of the last segment, in the middle of a frame.
    Torn,
    /// Something that is not the next record.
    Wrong(Tampering),
}

/// Goes along the chain and proves every record.
pub(super) struct Walk<'a, S: ?Sized> {
    source: &'a S,
    chain: &'a Chain,
    /// The segments that follow, the next one last.
    following: Vec<u64>,
    segment: Option<Segment<'a, S>>,
    mark: Mark,
}

impl<'a, S: AuditSource + ?Sized> Walk<'a, S> {
    /// Begins with the segment that holds record `sequence`, if there are segments. The link before it is
    /// believed.
    ///
    /// # Errors
    /// `Tampered` if there are segments and that record is in none of them; what the source says.
    pub(super) fn from(source: &'a S, chain: &'a Chain, sequence: u64) -> Result<Self, Error> {
        let mut segments = source.segments()?;
        let mut walk = Self { source, chain, following: Vec::new(), segment: None, mark: Mark::START };
        let index = segments.partition_point(|first| *first <= sequence.max(1)).checked_sub(1);
        match index.and_then(|index| segments.get(index).map(|first| (index, *first))) {
            Some((index, first)) => {
                if first > 1 {
                    let before = index.checked_sub(1).and_then(|index| segments.get(index)).copied();
                    walk.mark =
                        Mark { sequence: first - 1, link: walk.last_link(first, before)?, store_version: 0 };
                }
                walk.following = segments.split_off(index);
            }
            None if segments.is_empty() => {}
            None => return Err(Error::Tampered { sequence: 1, what: Tampering::Missing }),
        }
        walk.following.reverse();
        walk.segment = walk.following.pop().map(|name| Segment::new(source, name));
        Ok(walk)
    }

    /// The link that segment `before`, which is the one before `first`, ends with.
    fn last_link(&self, first: u64, before: Option<u64>) -> Result<Link, Error> {
        let missing = Error::Tampered { sequence: first.saturating_sub(1), what: Tampering::Missing };
        let Some(before) = before else { return Err(missing) };
        let Some(offset) = self.source.length(before)?.checked_sub(LINK as u64) else { return Err(missing) };
        let (mut link, mut filled) = ([0; LINK], 0);
        while let Some(free) = link.get_mut(filled..).filter(|free| !free.is_empty()) {
            match self.source.read(before, offset + filled as u64, free)? {
                0 => return Err(missing),
                read => filled += read,
            }
        }
        Ok(link)
    }

    /// The last record that was proved, or where the walk began.
    pub(super) fn mark(&self) -> &Mark {
        &self.mark
    }

    /// Whether no segment follows.
    pub(super) fn in_last_segment(&self) -> bool {
        self.following.is_empty()
    }

    /// In which segment the walk is, and at which of its bytes.
    pub(super) fn place(&self) -> Option<(u64, u64)> {
        self.segment.as_ref().map(|segment| (segment.name, segment.position()))
    }

    /// Proves and returns the next record.
    pub(super) fn step(&mut self) -> Result<Step, Error> {
        loop {
            let Some(segment) = &mut self.segment else { return Ok(Step::End) };
            let last = self.following.is_empty();
            match segment.peek()? {
                Raw::Frame(length) => {
                    let (bytes, link) = segment.frame(length);
                    let record = match self.chain.read_record(&self.mark, bytes, &link) {
                        Ok(record) => record,
                        Err(what) => return Ok(Step::Wrong(what)),
                    };
                    segment.take(length);
                    self.mark = self.mark.after(&record, link);
                    return Ok(Step::Record(Box::new(record)));
                }
                Raw::End if last => return Ok(Step::End),
                Raw::Torn if last => return Ok(Step::Torn),
                Raw::Torn => return Ok(Step::Wrong(Tampering::CutOff)),
                Raw::Nonsense => return Ok(Step::Wrong(Tampering::Changed)),
                Raw::End => {
                    let next = self.mark.sequence.saturating_add(1);
                    match self.following.pop_if(|name| *name == next) {
                        Some(name) => self.segment = Some(Segment::new(self.source, name)),
                        None => return Ok(Step::Wrong(Tampering::Missing)),
                    }
                }
            }
        }
    }

    /// Passes over the records of this segment up to number `sequence`, unproved.
    pub(super) fn skip_to(&mut self, sequence: u64) -> Result<(), Error> {
        while self.mark.sequence < sequence
            && let Some(segment) = &mut self.segment
            && let Raw::Frame(length) = segment.peek()?
        {
            let (_, link) = segment.frame(length);
            self.mark = Mark { sequence: self.mark.sequence + 1, link, ..self.mark };
            segment.take(length);
        }
        Ok(())
    }
}

/// The first record of a segment, unproved; none if it has none that can be read.
pub(super) fn first_record<S: AuditSource + ?Sized>(
    source: &S,
    name: u64,
) -> Result<Option<AuditRecord>, Error> {
    let mut segment = Segment::new(source, name);
    Ok(match segment.peek()? {
        Raw::Frame(length) => chain::read(segment.frame(length).0),
        Raw::End | Raw::Torn | Raw::Nonsense => None,
    })
}
