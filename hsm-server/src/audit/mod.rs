//! stub
use crate::authority::{Authorized, Grant};
use strongroom_shared::{message::AuditRecord, secret::Secret};
/// s
#[derive(Debug)]
pub struct Seal(());
/// s
pub trait AuditSink: Send + Sync + 'static {}
/// s
#[derive(Debug)]
pub struct FileSink;
impl AuditSink for FileSink {}
/// s
#[derive(Debug)]
pub struct Log<S>(S);
/// s
#[derive(Debug, Clone, Copy)]
pub enum Durability {
    /// s
    Process,
    /// s
    Power,
}
/// s
#[derive(Debug, Clone, Copy)]
pub struct Position(u64);
impl Position {
    /// s
    pub fn sequence(&self) -> u64 {
        self.0
    }
}
/// s
#[derive(Debug)]
pub enum Error {
    /// s
    Tampered {
        /// s
        sequence: u64,
    },
    /// s
    NotDurable,
}
impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "x")
    }
}
/// s
#[derive(Debug)]
pub struct Recovered {
    /// s
    pub last_sequence: u64,
    /// s
    pub last_store_version: Option<u64>,
    /// s
    pub last_time: u64,
}
/// s
#[derive(Debug)]
pub struct Summary {
    /// s
    pub records: u64,
    /// s
    pub head: [u8; 32],
}
#[allow(missing_docs)]
impl<S: AuditSink> Log<S> {
    pub fn open(sink: S, _: Secret<[u8; 32]>, _: Durability) -> Result<(Self, Recovered), Error> {
        Ok((Self(sink), Recovered { last_sequence: 0, last_store_version: None, last_time: 0 }))
    }
    pub fn append(&self, _: AuditRecord) -> Result<Position, Error> {
        Ok(Position(0))
    }
    pub fn record(&self, grant: Grant, _: AuditRecord) -> Result<Authorized, Error> {
        Ok(Authorized::new(grant, Seal(())))
    }
    pub fn commit(&self, _: Position) -> Result<(), Error> {
        Ok(())
    }
    pub fn sync(&self) -> Result<(), Error> {
        Ok(())
    }
    pub fn position(&self) -> Position {
        Position(0)
    }
    pub fn tail(&self, _: u32, _: Option<u64>) -> Result<Vec<AuditRecord>, Error> {
        Ok(vec![])
    }
    pub fn verify(&self) -> Result<Summary, Error> {
        Ok(Summary { records: 0, head: [0; 32] })
    }
    pub fn replay(&self, _: u64, _: impl FnMut(AuditRecord)) -> Result<(), Error> {
        Ok(())
    }
}
