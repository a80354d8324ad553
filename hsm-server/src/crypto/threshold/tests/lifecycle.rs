//! The same key through refresh, reshare, repair and import, and its children.

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use super::*;

/// All but P-256, whose new transfers take seconds, and are made by the same code as secp256k1's.
const CHEAP: [SchemeId; 3] = [SchemeId::EcdsaSecp256k1, SchemeId::Ed25519, SchemeId::Bip340];

fn refreshed(shares: &BTreeMap<Party, Share>, epoch: u64) -> BTreeMap<Party, Share> {
    let start = |(me, share): (&Party, &Share)| (*me, refresh(share, &setup(epoch, 3, *me)).unwrap());
    super::shares(run(shares.iter().map(start).collect(), honest).done())
}

fn public_key(shares: &BTreeMap<Party, Share>) -> Vec<u8> {
    shares.values().next().unwrap().public().public_key().unwrap()
}

#[test]
fn a_refresh_keeps_the_key_and_changes_every_share() {
    for scheme in SchemeId::ALL {
        let old = quick(scheme, 2, 3);
        let new = refreshed(&old, 2);
        assert_eq!(public_key(&new), public_key(&old));
        for (party, share) in &new {
            assert_eq!(share.public().epoch(), Epoch(2));
            assert_ne!(share.secret.scalar_bytes(), old[party].secret.scalar_bytes());
            assert_eq!(share.public().chain_code, old[party].public().chain_code);
        }
        for signers in subsets(2, 3) {
            check_signature(&new, &signers, DIGEST);
        }
    }
}

#[test]
fn an_old_share_does_not_sign_with_a_new_one() {
    for scheme in CHEAP {
        let old = quick(scheme, 2, 2);
        let mut mixed = refreshed(&old, 2);
        let signing = Signing { signers: parties(&[1, 2]), input: DIGEST.to_vec() };
        assert_eq!(
            sign(&old[&party(1)], &signing, &setup(2, 4, party(1))).unwrap_err(),
            Refusal::Epoch,
            "the node knows by the epoch"
        );
        // One that pretends is found by the terms, before any secret is touched.
        let mut pretender = old.into_values().next().unwrap();
        pretender.public.epoch = Epoch(2);
        mixed.insert(party(1), pretender);
        let ran = sign_over(&mixed, &[1, 2], DIGEST, honest);
        assert!(ran.signature.is_none());
        assert!(ran.signers.rejected.iter().all(|rejected| rejected.why == Reject::Terms));
        assert_eq!(ran.signers.rejected.len(), 2);
    }
}

/// 2 of {1, 2, 3} deal: party 1 leaves to seat 6, party 3 stays at seat 2, and four are new.
fn move_to_five(scheme: SchemeId) -> (BTreeMap<Party, Share>, BTreeMap<Party, Outcome>) {
    let old = quick(scheme, 2, 3);
    let public = old[&party(1)].public().clone();
    let dealers = BTreeMap::from([(party(6), party(1)), (party(2), party(3))]);
    let start = |seat: u8| {
        let seat = party(seat);
        let share = dealers.get(&seat).map(|old_party| &old[old_party]);
        let committee = Committee::new(3, 5).unwrap();
        let resharing = Resharing { old: &public, share, dealers: dealers.clone(), committee };
        (seat, reshare(&resharing, &setup(2, 5, seat)).unwrap())
    };
    let outcomes = run((1..=6).map(start).collect(), honest).done();
    (old, outcomes)
}

#[test]
fn a_key_moves_from_two_of_three_to_three_of_five() {
    for scheme in CHEAP {
        let (old, outcomes) = move_to_five(scheme);
        assert!(outcomes[&party(6)].share.is_none());
        let new = shares(outcomes);
        assert_eq!(new.len(), 5);
        assert_eq!(public_key(&new), public_key(&old));
        for signers in subsets(3, 5) {
            check_signature(&new, &signers, DIGEST);
        }
        let two = Signing { signers: parties(&[1, 2]), input: DIGEST.to_vec() };
        assert_eq!(sign(&new[&party(1)], &two, &setup(2, 6, party(1))).unwrap_err(), Refusal::Signers);
        // And on: the moved key is a whole one.
        if scheme != SchemeId::EcdsaSecp256k1 {
            check_signature(&refreshed(&new, 3), &[1, 3, 5], DIGEST);
        }
    }
}

#[test]
fn a_lost_share_is_repaired_and_worthless_where_it_was_lost() {
    for scheme in CHEAP {
        let mut old = quick(scheme, 2, 3);
        let public = old[&party(1)].public().clone();
        let lost = old.remove(&party(2)).unwrap();
        let start = |me: Party| {
            let dealers = parties(&[1, 3]).into_iter().map(|party| (party, party)).collect();
            let committee = public.committee();
            let resharing = Resharing { old: &public, share: old.get(&me), dealers, committee };
            (me, reshare(&resharing, &setup(2, 7, me)).unwrap())
        };
        let new = shares(run(public.committee().members().map(start).collect(), honest).done());
        assert_eq!(public_key(&new), public.public_key().unwrap());
        for signers in subsets(2, 3) {
            check_signature(&new, &signers, DIGEST);
        }
        let signing = Signing { signers: parties(&[1, 2]), input: DIGEST.to_vec() };
        assert_eq!(sign(&lost, &signing, &setup(2, 8, party(2))).unwrap_err(), Refusal::Epoch);
    }
}

fn imported(
    scheme: SchemeId,
    dealer: u8,
    private_key: &[u8],
    chain_code: Option<[u8; 32]>,
) -> BTreeMap<Party, Share> {
    let private_key = Zeroizing::new(private_key.to_vec());
    let public_key = public_key_of(scheme, &private_key).unwrap();
    let start = |me: Party| {
        let importing = Importing {
            scheme,
            committee: Committee::new(2, 3).unwrap(),
            dealer: party(dealer),
            public_key: &public_key,
            private_key: (me == party(dealer)).then_some(&private_key),
            chain_code,
        };
        (me, import(&importing, &setup(1, 9, me)).unwrap())
    };
    let seats = (1..=3).chain((dealer > 3).then_some(dealer)).map(party);
    shares(run(seats.map(start).collect(), honest).done())
}

#[test]
fn a_private_key_becomes_shares_that_its_dealer_does_not_know() {
    let mut private_key = [0x11; 32];
    // Below the order of Ed25519 too, whose last byte is the highest.
    private_key[31] = 0x01;
    for (scheme, dealer) in SchemeId::ALL.into_iter().zip([1, 4, 2, 4]) {
        let shares = imported(scheme, dealer, &private_key, None);
        let expected = public_key_of(scheme, &private_key).unwrap();
        assert_eq!(shares[&party(1)].public().public_key.as_slice(), expected);
        for signers in subsets(2, 3) {
            check_signature(&shares, &signers, DIGEST);
        }
        assert_eq!(shares[&party(1)].child(KeyId([8; 16]), 0).unwrap_err(), Refusal::Child);
    }
}

#[test]
fn children_are_those_of_bip32() {
    // BIP 32, test vector 2: the master key, and m/0.
    let master = bytes("4b03d6fc340455b363f51020ad3ecca4f0850280cf436c70c727923f6db46c3e");
    let chain_code = bytes("60499f801b896d83179a4374aeb7822aaeaceaa0db1f85ee3e904c4defbd9689");
    let child = bytes("abe74a98f6c7eabee0428f53798f0ab8aa1bd37873999041703c742f15ac7e1e");
    let child_chain = bytes("f0909affaa7ee7abe5dd4e100598d4dc53cd709d5a5c2cac40e7412f232f7c9c");
    let parents = imported(SchemeId::EcdsaSecp256k1, 1, &master, Some(chain_code.try_into().unwrap()));
    let key = KeyId([8; 16]);
    let children = derive(&parents, key, 0);
    let public = children[&party(1)].public();
    assert_eq!(public.key(), key);
    assert_eq!(public.chain_code.unwrap().as_slice(), child_chain);
    assert_eq!(public.public_key.as_slice(), public_key_of(SchemeId::EcdsaSecp256k1, &child).unwrap());
    for signers in subsets(2, 3) {
        check_signature(&children, &signers, DIGEST);
    }
    check_signature(&parents, &[1, 2], DIGEST);
    assert_eq!(parents[&party(1)].child(key, 1 << 31).unwrap_err(), Refusal::Child);
}

#[test]
fn a_child_of_a_child_signs_after_a_refresh_of_its_master() {
    let masters = quick(SchemeId::EcdsaSecp256k1, 2, 2);
    let before = derive(&derive(&masters, KeyId([8; 16]), 44), KeyId([9; 16]), 7);
    let masters = refreshed(&masters, 2);
    let after = derive(&derive(&masters, KeyId([8; 16]), 44), KeyId([9; 16]), 7);
    assert_eq!(public_key(&after), public_key(&before));
    check_signature(&after, &[1, 2], DIGEST);
    let public = after[&party(1)].public();
    assert_eq!(public.public_key.as_slice(), path(masters[&party(1)].public(), &[44, 7]));
}

/// The public key at a path, by another library.
fn path(master: &PublicShares, path: &[u32]) -> Vec<u8> {
    let mut key = secp256k1::PublicKey::from_slice(&master.public_key).unwrap();
    let mut chain_code = master.chain_code.unwrap();
    for index in path {
        let mut data = key.serialize().to_vec();
        data.extend_from_slice(&index.to_be_bytes());
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA512, &chain_code), &data);
        let (tweak, next) = tag.as_ref().split_at(32);
        let tweak = secp256k1::Scalar::from_be_bytes(tweak.try_into().unwrap()).unwrap();
        key = key.add_exp_tweak(&tweak).unwrap();
        chain_code.copy_from_slice(next);
    }
    key.serialize().to_vec()
}

fn derive(parents: &BTreeMap<Party, Share>, key: KeyId, index: u32) -> BTreeMap<Party, Share> {
    parents.iter().map(|(party, share)| (*party, share.child(key, index).unwrap())).collect()
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&hexadecimal[at..at + 2], 16).unwrap();
    (0..hexadecimal.len()).step_by(2).map(byte).collect()
}
