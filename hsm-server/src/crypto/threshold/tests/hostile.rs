//! One party breaks the protocol, at every step in turn. The honest ones never make a wrong signature or keep
//! different shares, and they blame nobody who is honest.

use dkls23::utilities::proofs::DLogProof;
use minicbor::bytes::ByteVec;

use super::{envelope::decode, exchange::Body, *};

const BAD: u8 = 3;

/// Changes what the bad party says in one round.
fn tampering(round: u8, change: impl Fn(&Flight) -> Flight) -> impl FnMut(Flight) -> Vec<Flight> {
    move |flight| {
        let bad = flight.from == party(BAD) && flight.round == round;
        vec![if bad { change(&flight) } else { flight }]
    }
}

/// Flips a bit of a body, at this many thousandths of its length.
fn flip(place: usize) -> impl Fn(&Flight) -> Flight {
    move |flight| {
        flight.with_body(|body| {
            let at = (body.len() * place / 1000).min(body.len() - 1);
            body[at] ^= 4;
        })
    }
}

/// Changes what a message of an exchange says.
fn rewrite(change: impl Fn(&mut Body)) -> impl Fn(&Flight) -> Flight {
    move |flight| {
        flight.with_body(|bytes| {
            let mut body: Body = decode(bytes).unwrap();
            change(&mut body);
            *bytes = envelope::encode(&body);
        })
    }
}

/// Whether a judge that cannot see who is bad was fair: it names the bad party, or nobody.
fn fair(blame: &Blame) -> bool {
    match blame {
        Blame::Culprits(culprits) => *culprits == parties(&[BAD]),
        Blame::Ban(culprit) => *culprit == party(BAD),
        Blame::Suspect(suspects) => suspects.contains(&party(BAD)),
        Blame::Recoverable => true,
    }
}

/// A test's places for a flipped bit, in thousandths.
const PLACES: [usize; 8] = [0, 3, 60, 200, 410, 620, 900, 999];

#[test]
fn a_flipped_bit_while_signing_gives_no_wrong_signature_and_no_unfair_blame() {
    for scheme in SchemeId::ALL {
        let shares = quick(scheme, 3, 3);
        for round in 1..=3 {
            for place in PLACES {
                let signed = sign_over(&shares, &[1, 2, 3], DIGEST, tampering(round, flip(place)));
                let honest = signed.signers.ends.iter().filter(|(judge, _)| **judge != party(BAD));
                for (judge, end) in honest {
                    if let End::Abort(abort) = end {
                        assert!(fair(&abort.blame), "{scheme:?} {round} {place}: {judge} says {abort}");
                    }
                }
                match signed.signature {
                    Some(End::Done(signature)) => {
                        assert!(verifies(shares[&party(1)].public(), DIGEST, &signature));
                    }
                    Some(End::Abort(abort)) => assert!(fair(&abort.blame), "{scheme:?} {place}: {abort}"),
                    None => {}
                }
            }
        }
    }
}

#[test]
fn a_flipped_bit_in_an_oblivious_transfer_is_a_ban() {
    for scheme in [SchemeId::EcdsaSecp256k1, SchemeId::EcdsaP256] {
        let mut shares = quick(scheme, 2, 3);
        for round in [1, 2] {
            let signed = sign_over(&shares, &[1, 3], DIGEST, tampering(round, flip(500)));
            let Some(End::Abort(abort)) = signed.signers.ends.get(&party(1)) else { panic!("no abort") };
            assert_eq!(abort.blame, Blame::Ban(party(BAD)), "{abort}");
        }
        // The others are not touched.
        shares.remove(&party(BAD));
        check_signature(&shares, &[1, 2], DIGEST);
    }
}

#[test]
fn a_wrong_last_message_is_named_or_narrowed_down() {
    for scheme in SchemeId::ALL {
        let shares = quick(scheme, 3, 5);
        let last = if matches!(scheme, SchemeId::Ed25519 | SchemeId::Bip340) { 2 } else { 3 };
        // The last byte is of the signature share, or of w.
        let signed = sign_over(
            &shares,
            &[1, 3, 5],
            DIGEST,
            tampering(last, |flight| {
                flight.with_body(|body| {
                    let at = body.len() - 20;
                    body[at] ^= 1;
                })
            }),
        );
        let expected = match last {
            2 => Blame::culprit(party(BAD)),
            _ => Blame::Suspect(parties(&[3, 5])),
        };
        assert_eq!(signed.signature.unwrap().blame(), expected);
    }
}

#[test]
fn garbage_is_its_senders_fault() {
    for scheme in SchemeId::ALL {
        let shares = quick(scheme, 2, 3);
        let garbage = |flight: &Flight| flight.with_body(|body| *body = vec![0xff; 40]);
        let signed = sign_over(&shares, &[1, 3], DIGEST, tampering(1, garbage));
        let End::Abort(abort) = &signed.signers.ends[&party(1)] else { panic!("signed") };
        assert_eq!(abort.blame, Blame::culprit(party(BAD)));
    }
}

#[test]
fn two_sets_of_nonces_for_two_signers_are_found_by_the_coordinator() {
    for scheme in [SchemeId::Ed25519, SchemeId::Bip340] {
        let shares = quick(scheme, 3, 3);
        let signing = Signing { signers: parties(&[1, 2, 3]), input: DIGEST.to_vec() };
        let (_, other) = sign(&shares[&party(BAD)], &signing, &setup(1, 2, party(BAD))).unwrap();
        let signed = sign_over(&shares, &[1, 2, 3], DIGEST, |flight| {
            let split = flight.from == party(BAD) && flight.to == party(2) && flight.round == 1;
            vec![if split { Flight { bytes: other[0].bytes.to_vec(), ..flight } } else { flight }]
        });
        assert_eq!(signed.signature.unwrap().blame(), Blame::Suspect(parties(&[2, 3])));
    }
}

/// Generates a key of 2 of 3 while the bad party cheats, and gives the honest parties' blames.
fn cheated(scheme: SchemeId, network: impl FnMut(Flight) -> Vec<Flight>) -> BTreeMap<Party, Blame> {
    let committee = Committee::new(2, 3).unwrap();
    let start = |me: Party| (me, generate_key(scheme, committee, &setup(1, 1, me)).unwrap());
    blames(run(committee.members().map(start).collect(), network))
}

fn blames(run: Run<Outcome>) -> BTreeMap<Party, Blame> {
    let honest = run.ends.into_iter().filter(|(judge, _)| *judge != party(BAD));
    let blames: BTreeMap<Party, Blame> = honest.map(|(judge, end)| (judge, end.blame())).collect();
    assert!(blames.values().all(fair), "{blames:?}");
    blames
}

const FROST: [SchemeId; 2] = [SchemeId::Ed25519, SchemeId::Bip340];

#[test]
fn a_split_view_in_generation_is_found_by_the_echo() {
    for scheme in FROST {
        let committee = Committee::new(2, 3).unwrap();
        let (_, other) = generate_key(scheme, committee, &setup(1, 1, party(BAD))).unwrap();
        let split = |flight: Flight| {
            let other = other.iter().find(|message| message.to == To::Party(flight.to));
            let lie = flight.from == party(BAD) && flight.to == party(2) && flight.round == 1;
            vec![if lie { Flight { bytes: other.unwrap().bytes.to_vec(), ..flight } } else { flight }]
        };
        let blames = cheated(scheme, split);
        assert_eq!(blames[&party(1)], Blame::Suspect(parties(&[2, 3])));
        assert_eq!(blames[&party(2)], Blame::Suspect(parties(&[1, 3])));
    }
}

#[test]
fn cheating_in_a_frost_generation_names_the_cheat() {
    for scheme in FROST {
        let (_, higher) =
            generate_key(scheme, Committee::new(3, 3).unwrap(), &setup(1, 1, party(BAD))).unwrap();
        let higher: Body = decode(&Envelope::open(&higher[0].bytes).unwrap().into_body()).unwrap();
        let culprit = |blames: BTreeMap<Party, Blame>, what| {
            assert!(blames.values().all(|blame| *blame == Blame::culprit(party(BAD))), "{what}: {blames:?}");
        };
        // A longer vector would raise the threshold.
        let longer = rewrite(|body| body.public = higher.public.clone());
        culprit(cheated(scheme, tampering(1, longer)), "a longer vector");
        let proof = rewrite(|body| *body.public.last_mut().unwrap() ^= 1);
        culprit(cheated(scheme, tampering(1, proof)), "a wrong proof");
        let share = rewrite(|body| {
            let at = body.private.len() - if scheme == SchemeId::Ed25519 { 32 } else { 1 };
            body.private[at] ^= 1;
        });
        culprit(cheated(scheme, tampering(2, share)), "a wrong share");
        let ready = rewrite(|body| *body.public.last_mut().unwrap() ^= 1);
        culprit(cheated(scheme, tampering(3, ready)), "another end");
        let echo = rewrite(|body| body.echo.clear());
        culprit(cheated(scheme, tampering(2, echo)), "no echo");
        let lie = rewrite(|body| *body.echo.get_mut(&party(BAD)).unwrap() = [0; 32].into());
        culprit(cheated(scheme, tampering(2, lie)), "a false echo");
        culprit(cheated(scheme, tampering(2, |flight| flight.with_body(Vec::clear))), "nothing");
    }
}

#[test]
fn cheating_in_an_ecdsa_generation_ends_it() {
    let scheme = SchemeId::EcdsaSecp256k1;
    let fragment = rewrite(|body| *body.private.last_mut().unwrap() ^= 1);
    let blames = cheated(scheme, tampering(1, fragment));
    assert_eq!(blames[&party(1)], Blame::Suspect(parties(&[2, 3])), "DKLs23 cannot tell whose it was");
    let commitment = rewrite(|body| body.public[0] ^= 1);
    let blames = cheated(scheme, tampering(2, commitment));
    assert!(blames.values().all(|blame| *blame == Blame::culprit(party(BAD))), "{blames:?}");
    let transfer = rewrite(|body| {
        let at = body.private.len() / 2;
        body.private[at] ^= 1;
    });
    let blames = cheated(scheme, tampering(3, transfer));
    assert!(blames.values().all(|blame| *blame == Blame::culprit(party(BAD))), "{blames:?}");
    // The library computes 32 - length of a proof's challenges.
    let long = rewrite(|body| {
        type Public = (DLogProof<Secp256k1>, [u8; 32], Vec<u8>);
        let mut public: Public = postcard::from_bytes(&body.public).unwrap();
        public.0.proofs.iter_mut().for_each(|proof| proof.challenge = vec![1; 40]);
        body.public = postcard::to_allocvec(&public).unwrap().into();
    });
    cheated(scheme, tampering(3, long));
}

/// Moves a key of 2 of 3 to 3 of 4 with dealers 1 and 3, of whom 3 cheats.
fn cheated_reshare(scheme: SchemeId, network: impl FnMut(Flight) -> Vec<Flight>) -> BTreeMap<Party, Blame> {
    let shares = quick(scheme, 2, 3);
    let old = shares[&party(1)].public();
    let dealers: BTreeMap<Party, Party> = [1, 3].into_iter().map(|seat| (party(seat), party(seat))).collect();
    let committee = Committee::new(3, 4).unwrap();
    let start = |me: Party| {
        let share = shares.get(&me).filter(|_| dealers.contains_key(&me));
        let resharing = Resharing { old, share, dealers: dealers.clone(), committee };
        (me, reshare(&resharing, &setup(2, 5, me)).unwrap())
    };
    blames(run(committee.members().map(start).collect(), network))
}

fn vector(change: impl Fn(&mut Vec<ByteVec>)) -> impl Fn(&Flight) -> Flight {
    rewrite(move |body| {
        let mut vector: Vec<ByteVec> = decode(&body.public).unwrap();
        change(&mut vector);
        body.public = envelope::encode(&vector).into();
    })
}

#[test]
fn a_dealer_that_cheats_is_named_by_every_member() {
    for scheme in SchemeId::ALL {
        let named = |what: &str, network: &mut dyn FnMut(Flight) -> Vec<Flight>| {
            let blames = cheated_reshare(scheme, network);
            assert!(blames.values().all(|blame| *blame == Blame::culprit(party(BAD))), "{what}: {blames:?}");
        };
        named("a longer vector", &mut tampering(1, vector(|vector| vector.push(vector[0].clone()))));
        named("a shorter vector", &mut tampering(1, vector(|vector| drop(vector.pop()))));
        named("another secret", &mut tampering(1, vector(|vector| vector[0] = vector[1].clone())));
        named("another polynomial", &mut tampering(1, vector(|vector| vector[2] = vector[1].clone())));
        let identity = |length: usize| {
            let mut point = vec![0; length];
            if length == 32 {
                point[0] = 1;
            }
            point
        };
        named(
            "the identity",
            &mut tampering(1, vector(|vector| vector[1] = identity(vector[1].len()).into())),
        );
        let last = if scheme == SchemeId::Ed25519 { 0 } else { 31 };
        named("a wrong share", &mut tampering(1, rewrite(|body| body.private[last] ^= 1)));
        named("no share", &mut tampering(1, rewrite(|body| body.private.clear())));
    }
    // A point of small order is on the curve, and not of the group.
    let mut small = [0; 32];
    small.copy_from_slice(&[&[0xec][..], &[0xff; 30], &[0x7f]].concat());
    let blames =
        cheated_reshare(SchemeId::Ed25519, tampering(1, vector(|vector| vector[1] = small.to_vec().into())));
    assert!(blames.values().all(|blame| *blame == Blame::culprit(party(BAD))));
}

#[test]
fn a_dealer_that_splits_its_view_leaves_no_member_with_a_share() {
    for scheme in FROST {
        // It deals twice, consistently each time, and gives party 2 the second one.
        let shares = quick(scheme, 2, 3);
        let old = shares[&party(1)].public();
        let dealers: BTreeMap<Party, Party> =
            [1, 3].into_iter().map(|seat| (party(seat), party(seat))).collect();
        let begin = |me: Party| {
            let share = shares.get(&me).filter(|_| dealers.contains_key(&me));
            let resharing = Resharing { old, share, dealers: dealers.clone(), committee: old.committee() };
            reshare(&resharing, &setup(2, 5, me)).unwrap()
        };
        let (_, other) = begin(party(BAD));
        let started = old.committee().members().map(|me| (me, begin(me))).collect();
        let blames = blames(run(started, |flight| {
            let lie = flight.from == party(BAD) && flight.to == party(2) && flight.round == 1;
            let other = other.iter().find(|message| message.to == To::Party(flight.to));
            vec![if lie { Flight { bytes: other.unwrap().bytes.to_vec(), ..flight } } else { flight }]
        }));
        assert_eq!(blames[&party(1)], Blame::Suspect(parties(&[2, 3])));
        assert_eq!(blames[&party(2)], Blame::Suspect(parties(&[1, 3])));
    }
}

#[test]
fn a_member_that_cheats_in_a_refresh_is_named() {
    for scheme in FROST {
        let shares = quick(scheme, 2, 3);
        let start = |(me, share): (&Party, &Share)| (*me, refresh(share, &setup(2, 3, *me)).unwrap());
        let shifted = vector(|vector| vector[0] = vector[1].clone());
        let blames = blames(run(shares.iter().map(start).collect(), tampering(1, shifted)));
        assert!(blames.values().all(|blame| *blame == Blame::culprit(party(BAD))), "{blames:?}");
    }
}

#[test]
fn messages_twice_and_out_of_order_do_no_harm() {
    for scheme in SchemeId::ALL {
        let shares = quick(scheme, 3, 3);
        let mut kept: Vec<Flight> = Vec::new();
        // Everything comes twice, and what the bad party said before comes again with every message.
        let signed = sign_over(&shares, &[1, 2, 3], DIGEST, |flight| {
            let mut flights = vec![flight.clone(), flight.clone()];
            flights.extend(kept.iter().filter(|old| old.to == flight.to).cloned());
            if flight.from == party(BAD) {
                kept.push(flight);
            }
            flights
        });
        let known = [Reject::Duplicate, Reject::Round, Reject::Receiver];
        assert!(signed.signers.rejected.iter().all(|rejected| known.contains(&rejected.why)));
        let signature = signed.signature.unwrap().done();
        assert!(verifies(shares[&party(1)].public(), DIGEST, &signature));
    }
}

#[test]
fn a_panic_of_a_library_ends_a_ceremony_and_nothing_else() {
    assert_eq!(ceremony::fenced::<()>(|| panic!("on purpose")), Err(Refusal::Internal));
    assert_eq!(ceremony::fenced(|| Ok(1)), Ok(1));
}
