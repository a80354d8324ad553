//! The wire: headers round trip, broken ones are refused, and no bytes make a decoder panic.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use proptest::prelude::*;
use strongroom_shared::{
    mechanism::{Mechanism, Params},
    message::*,
    object::ObjectId,
    wire::*,
};

#[test]
fn numbers_of_calls_and_mechanisms_name_one_row_each() {
    for call in CallId::ALL {
        assert_eq!(CallId::from_number(*call as u16), Some(*call));
    }
    for mechanism in Mechanism::ALL {
        assert_eq!(Mechanism::from_number(mechanism.row().number), Some(*mechanism));
        assert_eq!(Mechanism::from_name(mechanism.row().name), Some(*mechanism));
    }
}

#[test]
fn a_frame_of_another_version_kind_or_size_is_refused() {
    let good = Header { length: 8, kind: Kind::Request, call: 0x140, id: 7 };
    assert_eq!(Header::decode(&good.encode(), 8), Ok(good));
    assert_eq!(Header::decode(&good.encode(), 7), Err(FrameError::TooLong { length: 8, limit: 7 }));
    let mut bytes = good.encode();
    bytes[4] = 2;
    assert_eq!(Header::decode(&bytes, 8), Err(FrameError::Version(2)));
    let mut bytes = good.encode();
    bytes[5] = 9;
    assert_eq!(Header::decode(&bytes, 8), Err(FrameError::Kind(9)));
}

#[test]
fn bytes_after_a_message_are_refused() {
    let mut frame = Vec::new();
    encode_reply::<Sign>(&mut frame, 1, &Signature { bytes: vec![1, 2, 3] });
    let body = &frame[HEADER..];
    assert_eq!(decode_body::<Signature>(body).unwrap().bytes, [1, 2, 3]);
    assert!(decode_body::<Signature>(&[body, &[0]].concat()).is_err());
    assert!(decode_body::<Signature>(&body[..body.len() - 1]).is_err());
}

proptest! {
    #[test]
    fn a_request_round_trips(id: u64, session: u64, key: [u8; 16], input: Vec<u8>, iv: [u8; 16]) {
        let caller = Caller { session, ..Caller::default() };
        let sent = Sign { key: ObjectId(key), mechanism: 0x1041, params: Params::Iv(iv), input };
        let mut frame = Vec::new();
        encode_request(&mut frame, id, &caller, &sent);
        let header = Header::decode(frame[..HEADER].try_into().unwrap(), u32::MAX).unwrap();
        prop_assert_eq!(header, Header {
            length: (frame.len() - HEADER) as u32, kind: Kind::Request, call: CallId::Sign as u16, id,
        });
        let (read_caller, rest) = decode_caller(&frame[HEADER..]).unwrap();
        let read: Sign = decode_body(rest).unwrap();
        prop_assert_eq!(read_caller, caller);
        prop_assert_eq!((read.key, read.mechanism, read.params, read.input), (sent.key, 0x1041, sent.params, sent.input));
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes: Vec<u8>) {
        let _ = decode_caller(&bytes);
        let _ = decode_body::<CreateObject>(&bytes);
        let _ = decode_body::<GenerateKeyPair>(&bytes);
        let _ = decode_body::<Attributes>(&bytes);
        let _ = decode_body::<AuditRecords>(&bytes);
        let _ = decode_body::<strongroom_shared::fault::Fault>(&bytes);
    }
}
