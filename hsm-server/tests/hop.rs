//! The hop's messages, whole, in pieces and broken.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::net::SocketAddr;

use proptest::prelude::*;
use strongroom_server::{
    cluster::NodeId,
    door::Admission,
    hop::{self, HopError, Inbox, Message, ToFront, ToVault},
};

const LIMIT: usize = 1 << 20;

/// A message that owns what it says.
#[derive(Clone, Debug)]
enum Said {
    Open(SocketAddr, Vec<u8>),
    Frame(Vec<u8>),
    Close,
    Refused(SocketAddr, Option<Vec<u8>>, String),
    Answer(Vec<u8>),
    NoAnswer(String),
}

impl Said {
    fn message(&self) -> ToVault<'_> {
        match self {
            Self::Open(address, certificate) => ToVault::Open { address: *address, certificate },
            Self::Frame(frame) => ToVault::Frame(frame),
            Self::Close => ToVault::Close,
            Self::Refused(address, certificate, reason) => {
                ToVault::Refused { address: *address, certificate: certificate.as_deref(), reason }
            }
            Self::Answer(frame) => ToVault::Answer(frame),
            Self::NoAnswer(reason) => ToVault::NoAnswer(reason),
        }
    }
}

fn address() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        any::<([u8; 4], u16)>().prop_map(SocketAddr::from),
        any::<([u8; 16], u16)>().prop_map(SocketAddr::from)
    ]
}

fn said() -> impl Strategy<Value = Said> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..2000);
    let some = proptest::collection::vec(any::<u8>(), 1..2000);
    prop_oneof![
        (address(), bytes()).prop_map(|(address, certificate)| Said::Open(address, certificate)),
        bytes().prop_map(Said::Frame),
        bytes().prop_map(Said::Answer),
        ".{0,100}".prop_map(Said::NoAnswer),
        // Longer than an inbox is at first.
        (0..300_000_usize).prop_map(|length| Said::Frame(vec![0xa5; length])),
        Just(Said::Close),
        (address(), proptest::option::of(some), ".{0,100}").prop_map(|(a, c, r)| Said::Refused(a, c, r)),
    ]
}

proptest! {
    #[test]
    fn messages_arrive_as_they_were_sent_however_the_bytes_come(
        messages in proptest::collection::vec((any::<u64>(), said()), 0..12),
        piece in 1..200_000_usize,
    ) {
        let mut bytes = Vec::new();
        for (connection, said) in &messages {
            hop::write(&mut bytes, *connection, &said.message());
        }
        let mut inbox = Inbox::new(LIMIT);
        let mut expected = messages.iter();
        for piece in bytes.chunks(piece) {
            inbox.push(piece);
            while let Some((connection, message)) = inbox.next::<ToVault<'_>>().unwrap() {
                let (sent_for, sent) = expected.next().unwrap();
                prop_assert_eq!(connection, *sent_for);
                prop_assert_eq!(message, sent.message());
            }
        }
        prop_assert!(expected.next().is_none());
        prop_assert!(inbox.is_empty());
    }

    #[test]
    fn lists_arrive_as_they_were_sent(version: u64, list: Vec<([u8; 32], bool)>) {
        let list: Vec<_> =
            list.into_iter().map(|(fingerprint, revoked)| Admission { fingerprint, revoked }).collect();
        let mut bytes = Vec::new();
        hop::write(&mut bytes, 0, &ToFront::Admissions { version, list: list.clone() });
        hop::write(&mut bytes, 7, &ToFront::Close("enough"));
        hop::write_reply(&mut bytes, 8, |out| out.extend_from_slice(b"reply"));
        let call = ToFront::Call { node: NodeId([4; 32]), patience: 250, frame: b"question" };
        hop::write(&mut bytes, 9, &call);
        hop::write(&mut bytes, 0, &ToFront::Ring(b"ring"));
        let mut inbox = Inbox::new(LIMIT);
        inbox.push(&bytes);
        prop_assert_eq!(inbox.next().unwrap(), Some((0, ToFront::Admissions { version, list })));
        prop_assert_eq!(inbox.next().unwrap(), Some((7, ToFront::Close("enough"))));
        prop_assert_eq!(inbox.next().unwrap(), Some((8, ToFront::Frame(b"reply"))));
        prop_assert_eq!(inbox.next().unwrap(), Some((9, call)));
        prop_assert_eq!(inbox.next().unwrap(), Some((0, ToFront::Ring(b"ring"))));
        prop_assert_eq!(inbox.next::<ToFront<'_>>().unwrap(), None);
    }

    #[test]
    fn rubbish_is_an_error_or_a_message_and_never_more(kind: u8, payload: Vec<u8>, rubbish: Vec<u8>) {
        if let Ok(message) = ToVault::decode(kind, &payload) {
            prop_assert_eq!(message.kind(), kind);
        }
        if let Ok(message) = ToFront::decode(kind, &payload) {
            let mut again = Vec::new();
            message.encode(&mut again);
            prop_assert_eq!(again, payload);
        }
        let mut inbox = Inbox::new(1000);
        inbox.push(&rubbish);
        while let Ok(Some(_)) = inbox.next::<ToVault<'_>>() {}
    }
}

#[test]
fn a_message_beyond_the_limit_is_refused_by_its_header() {
    let mut bytes = Vec::new();
    hop::write(&mut bytes, 1, &ToVault::Frame(&[0; 101]));
    let mut inbox = Inbox::new(100);
    inbox.push(&bytes[..hop::HEADER]);
    assert_eq!(inbox.next::<ToVault<'_>>(), Err(HopError::TooLong { length: 101, limit: 100 }));
}
