//! What does not begin at all, and messages that are not taken.

use zeroize::Zeroizing;

use super::*;

#[test]
fn a_committee_needs_a_threshold_between_two_and_its_size() {
    for (t, n) in [(0, 3), (1, 3), (4, 3), (2, 1), (2, 17)] {
        assert_eq!(Committee::new(t, n), Err(Refusal::Committee));
    }
    assert!(Committee::new(16, 16).is_ok());
    assert_eq!(Party::new(0), None);
    assert_eq!(Party::new(33), None);
}

#[test]
fn signing_needs_the_right_key_epoch_seat_signers_and_input() {
    let shares = quick(SchemeId::EcdsaSecp256k1, 2, 3);
    let share = &shares[&party(1)];
    let signing = |signers: &[u8], input: &[u8]| Signing { signers: parties(signers), input: input.to_vec() };
    let good = setup(1, 2, party(1));
    let refusal = |signing: Signing, setup: Setup| sign(share, &signing, &setup).unwrap_err();
    assert_eq!(refusal(signing(&[1, 2], DIGEST), Setup { key: KeyId([8; 16]), ..good }), Refusal::Key);
    assert_eq!(refusal(signing(&[1, 2], DIGEST), Setup { epoch: Epoch(2), ..good }), Refusal::Epoch);
    assert_eq!(refusal(signing(&[1, 2], DIGEST), Setup { me: party(2), ..good }), Refusal::Seat);
    assert_eq!(refusal(signing(&[2, 3], DIGEST), good), Refusal::Seat);
    for signers in [&[1][..], &[1, 2, 3], &[1, 4]] {
        assert_eq!(refusal(signing(signers, DIGEST), good), Refusal::Signers);
    }
    assert_eq!(refusal(signing(&[1, 2], b""), good), Refusal::Message);
}

#[test]
fn a_renewal_is_of_a_later_epoch_and_by_dealers_who_are_enough() {
    let shares = quick(SchemeId::Ed25519, 2, 3);
    let share = &shares[&party(1)];
    let old = share.public();
    assert_eq!(refresh(share, &setup(1, 3, party(1))).unwrap_err(), Refusal::Epoch);
    assert_eq!(refresh(share, &setup(2, 3, party(2))).unwrap_err(), Refusal::Seat);
    let refusal = |dealers: &[(u8, u8)], share| {
        let dealers = dealers.iter().map(|(seat, old)| (party(*seat), party(*old))).collect();
        let resharing = Resharing { old, share, dealers, committee: old.committee() };
        reshare(&resharing, &setup(2, 3, party(1))).unwrap_err()
    };
    assert_eq!(refusal(&[(1, 1)], Some(share)), Refusal::Dealers, "fewer than the threshold");
    assert_eq!(refusal(&[(1, 1), (2, 1)], Some(share)), Refusal::Dealers, "one at two seats");
    assert_eq!(refusal(&[(1, 1), (2, 4)], Some(share)), Refusal::Dealers, "a stranger");
    assert_eq!(refusal(&[(1, 2), (2, 3)], Some(share)), Refusal::Seat, "with another's share");
    assert_eq!(refusal(&[(1, 1), (2, 2)], None), Refusal::Seat, "without a share");
}

#[test]
fn an_import_is_of_the_key_that_everybody_expects() {
    for scheme in SchemeId::ALL {
        let private_key = Zeroizing::new([vec![0x22; 31], vec![1]].concat());
        let other = Zeroizing::new([vec![0x23; 31], vec![1]].concat());
        let public_key = public_key_of(scheme, &other).unwrap();
        let importing = |private_key| Importing {
            scheme,
            committee: Committee::new(2, 2).unwrap(),
            dealer: party(1),
            public_key: &public_key,
            private_key,
            chain_code: None,
        };
        let begun = import(&importing(Some(&private_key)), &setup(1, 9, party(1)));
        assert_eq!(begun.unwrap_err(), Refusal::Secret);
        assert_eq!(import(&importing(None), &setup(1, 9, party(1))).unwrap_err(), Refusal::Seat);
        for bad in [vec![0; 32], vec![0xff; 32], vec![1; 31], vec![]] {
            assert_eq!(public_key_of(scheme, &bad), Err(Refusal::Secret));
        }
    }
}

#[test]
fn bytes_that_are_no_share_are_refused() {
    for scheme in SchemeId::ALL {
        let shares = quick(scheme, 2, 2);
        let bytes = shares[&party(1)].to_secret_bytes().unwrap();
        assert!(Share::from_bytes(&bytes[..bytes.len() - 1]).is_err());
        assert!(Share::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
        assert!(Share::from_bytes(b"").is_err());
        // The version, a verifying share, the secret.
        for at in [1, 100, bytes.len() - 1] {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(Share::from_bytes(&changed).is_err(), "{scheme:?} {at}");
        }
        // Another party's secret under this party's name.
        let mixed = Share {
            public: shares[&party(1)].public().clone(),
            me: party(1),
            secret: shares[&party(2)].secret.clone(),
        };
        let mixed = mixed.to_secret_bytes().unwrap();
        assert_eq!(Share::from_bytes(&mixed).unwrap_err(), Refusal::Share);
    }
}

#[test]
fn a_message_that_is_not_for_this_round_of_this_ceremony_changes_nothing() {
    let shares = quick(SchemeId::Bip340, 2, 3);
    let signing = Signing { signers: parties(&[1, 2]), input: DIGEST.to_vec() };
    let begin = |me: u8, signing: &Signing, attempt: u8| {
        sign(&shares[&party(me)], signing, &setup(1, attempt, party(me))).unwrap()
    };
    let first = |started: Started<Held>, from: u8| {
        let bytes = started.1[0].bytes.to_vec();
        Flight { from: party(from), to: party(1), address: To::All, round: 1, bytes }
    };
    let good = first(begin(2, &signing, 2), 2);
    let other = |input: &[u8]| Signing { input: input.to_vec(), ..signing.clone() };
    let terms = |flight: &Flight| {
        let envelope = Envelope::open(&flight.bytes).unwrap();
        envelope::Terms { id: envelope.id, epoch: envelope.epoch, digest: envelope.terms }
    };
    let sealed = |terms: envelope::Terms, round: u8, to: To| {
        let letter = envelope::Letter { to, body: vec![1].into() };
        let bytes = Envelope::seal(&terms, round, party(2), letter).bytes.to_vec();
        Flight { bytes, ..good.clone() }
    };
    let later = envelope::Terms { epoch: Epoch(2), ..terms(&good) };
    let mut tail = good.clone();
    tail.bytes.push(0);
    let wrong = [
        (Flight { bytes: b"no envelope".to_vec(), ..good.clone() }, Reject::Garbage),
        (Flight { bytes: vec![0; MAX_LENGTH + 1], ..good.clone() }, Reject::Garbage),
        (tail, Reject::Garbage),
        (first(begin(2, &signing, 3), 2), Reject::Ceremony),
        (sealed(later, 1, To::All), Reject::Epoch),
        (first(begin(2, &other(b"another message"), 2), 2), Reject::Terms),
        (Flight { from: party(3), ..good.clone() }, Reject::Sender),
        (Flight { from: party(1), ..good.clone() }, Reject::Sender),
        (sealed(terms(&good), 1, To::Party(party(2))), Reject::Receiver),
        (sealed(terms(&good), 1, To::Coordinator), Reject::Receiver),
        (sealed(terms(&good), 0, To::All), Reject::Round),
        (sealed(terms(&good), 3, To::All), Reject::Round),
    ];
    let (mut ceremony, _) = begin(1, &signing, 2);
    for (flight, why) in wrong {
        // Not even the good message of the batch is taken.
        for batch in [vec![flight.incoming()], vec![good.incoming(), flight.incoming()]] {
            let Step::Refused(same, rejected) = ceremony.step(batch) else { panic!("{why:?} was taken") };
            assert_eq!(rejected, Rejected { from: flight.from, why });
            assert_eq!(same.missing(), parties(&[2]));
            ceremony = same;
        }
    }
    let Step::Refused(ceremony, rejected) = ceremony.step(vec![good.incoming(), good.incoming()]) else {
        panic!("a duplicate was taken")
    };
    assert_eq!(rejected.why, Reject::Duplicate);
    assert!(matches!(ceremony.step(vec![good.incoming()]), Step::Done(..)));
}

#[test]
fn silence_is_named_when_the_deadline_has_passed() {
    let shares = quick(SchemeId::Ed25519, 3, 3);
    let signed =
        sign_over(
            &shares,
            &[1, 2, 3],
            DIGEST,
            |flight| {
                if flight.from == party(3) { vec![] } else { vec![flight] }
            },
        );
    for honest in [1, 2] {
        let End::Abort(abort) = &signed.signers.ends[&party(honest)] else { panic!("{honest} signed") };
        assert_eq!(abort.blame, Blame::Suspect(parties(&[3])));
    }
}
