//! What the fuzz targets do with bytes, and what the tests do with golden ones: read them, write them again.
//!
//! Whatever can be read can be written, and what was written reads as the same: [`read_again`] knows every row of
//! `calls!` through `dispatch`, so a new call is covered without a word here.

use strongroom_shared::{
    fault::Fault,
    wire::{
        BodyError, Call, CallId, HEADER, Handle, Header, Kind, Service, Undone, decode_body, decode_caller,
        dispatch,
    },
};

/// The greatest body that the targets look at, in bytes.
const LIMIT: u32 = 1 << 20;

/// Headers: what can be read is written as it was.
pub fn frame(bytes: &[u8]) {
    if let Some(head) = bytes.first_chunk()
        && let Ok(header) = Header::decode(head, LIMIT)
    {
        assert_eq!(header.encode(), *head);
    }
}

/// A request frame.
pub fn requests(bytes: &[u8]) {
    let Some((header, body, _)) = split(bytes) else { return };
    let Some(call) = CallId::from_number(header.call) else { return };
    let Ok((caller, rest)) = decode_caller(body) else { return };
    let (again, rest_of_caller) = (written(&caller), rest);
    assert_eq!(decode_caller(&again).ok(), Some((caller, &[][..])));
    if let Ok((first, _)) | Err(Unread::Reply(first, _)) = read_again(call, rest_of_caller, &[]) {
        match read_again(call, &first, &[]) {
            Ok((second, _)) | Err(Unread::Reply(second, _)) => assert_eq!(first, second),
            Err(Unread::Request(error)) => assert_eq!(Err(error), Ok(()), "what was written cannot be read"),
        }
    }
}

/// A request frame, and the reply or fault frame that answers it.
pub fn replies(bytes: &[u8]) {
    let Some((question, body, rest)) = split(bytes) else { return };
    let Some((answer, reply, _)) = split(rest) else { return };
    if answer.kind == Kind::Fault {
        if let Ok(fault) = decode_body::<Fault>(reply) {
            assert_eq!(decode_body(&written(&fault)), Ok(fault));
        }
        return;
    }
    let Some(call) = CallId::from_number(question.call) else { return };
    let Ok((_, request)) = decode_caller(body) else { return };
    if let Ok((_, first)) = read_again(call, request, reply) {
        assert_eq!(read_again(call, request, &first).map(|(_, second)| second), Ok(first));
    }
}

/// The first frame of some bytes: its header, its body, and what follows.
pub fn split(bytes: &[u8]) -> Option<(Header, &[u8], &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<HEADER>()?;
    let header = Header::decode(head, LIMIT).ok()?;
    let (body, rest) = rest.split_at_checked(header.length as usize)?;
    Some((header, body, rest))
}

/// Which of two bodies cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub enum Unread {
    /// The request's.
    Request(BodyError),
    /// The reply's; the request was read, and is this when written again.
    Reply(Vec<u8>, BodyError),
}

/// Reads the bodies of a call (without its caller) and of its reply, and writes both again.
///
/// # Errors
/// [`Unread`].
pub fn read_again(call: CallId, request: &[u8], reply: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Unread> {
    let mut exchange = Exchange { request: Vec::new(), reply };
    let mut frame = Vec::new();
    match dispatch(&Scribe, &mut exchange, call, 0, request, &mut frame) {
        Ok(()) => Ok((exchange.request, frame.split_off(HEADER))),
        Err(Undone::Malformed(error)) => Err(Unread::Request(error)),
        Err(Undone::Refused(error)) => Err(Unread::Reply(exchange.request, error)),
    }
}

/// Answers every call with the bytes that it was given.
struct Scribe;

struct Exchange<'a> {
    request: Vec<u8>,
    reply: &'a [u8],
}

impl Service for Scribe {
    type Context<'a> = Exchange<'a>;
    type Error = BodyError;
}

impl<C: Call> Handle<C> for Scribe {
    fn handle(&self, exchange: &mut Exchange<'_>, call: C) -> Result<C::Reply, BodyError> {
        exchange.request = written(&call);
        decode_body(exchange.reply)
    }
}

/// A value's CBOR.
pub fn written<T: minicbor::Encode<()>>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    let result = minicbor::encode(value, &mut bytes);
    assert!(result.is_ok(), "a message cannot be written");
    bytes
}
