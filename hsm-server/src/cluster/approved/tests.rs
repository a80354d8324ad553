//! What documents are taken, and what becomes of those that somebody changed on the way.

use super::*;
use crate::cluster::{
    Administrator, Member, NodeId,
    document::{ClusterId, MAX_STEP},
};

fn administrator(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn listed(name: &str, pair: &Ed25519KeyPair) -> Administrator {
    Administrator { name: name.into(), key: pair.public_key().as_ref().try_into().unwrap() }
}

fn member(name: &str, number: u8) -> Member {
    Member {
        name: name.into(),
        address: format!("127.0.0.1:{}", 7000 + u16::from(number)),
        server_name: "localhost".into(),
        authority: vec![number],
        id: NodeId([number; 32]),
        identity: [number | 0x40; 32],
        sealing: [number | 0x80; 32],
    }
}

fn membership(version: u64, approvals: u32) -> Membership {
    Membership {
        cluster: ClusterId([9; 16]),
        version,
        members: vec![member("a", 1), member("b", 2)],
        administrators: vec![listed("ann", &administrator(1)), listed("bob", &administrator(2))],
        approvals,
    }
}

#[test]
fn a_later_version_needs_the_administrators_of_the_one_in_force() {
    let (ann, bob, eve) = (administrator(1), administrator(2), administrator(3));
    let present = membership(3, 2);
    let read = |version, signers: &[&Ed25519KeyPair]| {
        Document::read(&membership(version, 1).sign(signers).unwrap()).unwrap()
    };
    assert_eq!(read(4, &[&ann, &bob]).check_succeeds(&present).map(drop), Ok(()));
    assert_eq!(read(9, &[&bob, &eve, &ann]).check_succeeds(&present).map(drop), Ok(()));
    for signers in [&[&ann][..], &[&ann, &ann], &[&ann, &eve], &[]] {
        let refusal = read(4, signers).check_succeeds(&present).unwrap_err();
        assert!(matches!(refusal, Refusal::Approvals { needed: 2, .. }), "{refusal}");
    }
    for version in [1, 3] {
        let refusal = read(version, &[&ann, &bob]).check_succeeds(&present).map(drop);
        assert_eq!(refusal, Err(Refusal::Version { found: version, present: 3 }));
    }
    let other = Membership { cluster: ClusterId([8; 16]), ..membership(4, 1) };
    let other = Document::read(&other.sign(&[&ann, &bob]).unwrap()).unwrap();
    assert_eq!(other.check_succeeds(&present).map(drop), Err(Refusal::Cluster(ClusterId([9; 16]))));
}

#[test]
fn no_administrator_becomes_two_alone() {
    let (ann, bob, eve) = (administrator(1), administrator(2), administrator(3));
    let succeeds = |present: &Membership, next: Membership, signers: &[&Ed25519KeyPair]| {
        let next = Membership { version: present.version + 1, ..next };
        Document::read(&next.sign(signers).unwrap()).unwrap().check_succeeds(present).map(drop)
    };
    let two = membership(3, 1);
    let changed = |change: fn(&mut Membership)| {
        let mut next = two.clone();
        change(&mut next);
        next
    };
    let refused = Err(Refusal::Approvals { found: 1, needed: 2 });
    for next in [
        changed(|m| m.administrators.push(listed("eve", &administrator(3)))),
        changed(|m| drop(m.administrators.pop())),
        changed(|m| m.administrators[1] = listed("bob", &administrator(3))),
        changed(|m| m.administrators[1].name = "ann".into()),
        changed(|m| m.administrators.reverse()),
    ] {
        assert_eq!(succeeds(&two, next.clone(), &[&ann]), refused, "{next:?}");
        // The one whom it admits is none yet.
        assert_eq!(succeeds(&two, next.clone(), &[&ann, &eve]), refused, "{next:?}");
        assert_eq!(succeeds(&two, next, &[&ann, &bob]), Ok(()));
    }
    // Everything else takes as many as the document says.
    let fewer = changed(|m| drop(m.members.pop()));
    assert_eq!(succeeds(&two, fewer, &[&bob]), Ok(()));
    // Nobody alone asks for so many that their own is among them.
    let all = changed(|m| m.approvals = 2);
    assert_eq!(succeeds(&two, all.clone(), &[&bob]), refused);
    assert_eq!(succeeds(&two, all, &[&ann, &bob]), Ok(()));
    // Whoever is alone has nobody to ask; three of three are asked where the document says so.
    let alone = changed(|m| drop(m.administrators.pop()));
    assert_eq!(succeeds(&alone, two.clone(), &[&ann]), Ok(()));
    let mut three = changed(|m| m.administrators.push(listed("eve", &administrator(3))));
    three.approvals = 3;
    let few = succeeds(&three, two.clone(), &[&ann, &bob]);
    assert_eq!(few, Err(Refusal::Approvals { found: 2, needed: 3 }));
    assert_eq!(succeeds(&three, two.clone(), &[&ann, &bob, &eve]), Ok(()));
}

#[test]
fn a_changed_byte_spoils_it() {
    let ann = administrator(1);
    let good = membership(1, 1).sign(&[&ann]).unwrap();
    assert_eq!(Document::read(&good).unwrap().check_first(), Ok(()));
    for place in 0..good.len() {
        let mut bad = good.clone();
        bad[place] ^= 1;
        let judged = Document::read(&bad).and_then(|document| document.check_first());
        assert!(judged.is_err(), "byte {place}");
    }
    assert!(Document::read(&[&good[..], &[0]].concat()).is_err());
}

#[test]
fn what_no_document_may_say_is_not_signed() {
    let changes: [fn(&mut Membership); 10] = [
        |m| m.version = 0,
        |m| m.members.clear(),
        |m| m.members.swap(0, 1),
        |m| m.members[1] = member("a", 2),
        |m| m.members[1].sealing = m.members[0].sealing,
        |m| m.members[0].address = "a.example:7373".into(),
        |m| m.members[0].name = "A".into(),
        |m| m.administrators[1].key = m.administrators[0].key,
        |m| m.approvals = 0,
        |m| m.approvals = 3,
    ];
    for change in changes {
        let mut membership = membership(1, 1);
        change(&mut membership);
        let refusal = membership.sign(&[&administrator(1)]).unwrap_err();
        assert!(matches!(refusal, Refusal::Malformed(_)), "{membership:?}: {refusal}");
    }
}

#[test]
fn whoever_was_away_follows_the_changes_of_those_who_sign() {
    let names = ["ann", "bob", "cid", "dan", "eve"];
    let pairs: Vec<_> = (1..=5).map(administrator).collect();
    let ruled_by = |version: u64, who: &[usize]| {
        let administrators = who.iter().map(|one| listed(names[*one], &pairs[*one])).collect();
        Membership { administrators, ..membership(version, 1) }
    };
    let next = |present: &Document, membership: Membership, signers: &[usize]| {
        let signers: Vec<_> = signers.iter().map(|one| &pairs[*one]).collect();
        let next = Document::read(&membership.sign_after(present, &signers).unwrap()).unwrap();
        next.check_succeeds(present.membership()).unwrap();
        next
    };
    let first = Document::read(&ruled_by(1, &[0]).sign(&[&pairs[0]]).unwrap()).unwrap();
    let mut all = vec![first.clone()];
    for (who, signers) in [
        (&[0][..], &[0][..]),
        (&[0, 1], &[0]),
        (&[0, 1], &[1]),
        (&[0, 1, 2], &[0, 1]),
        (&[1, 2], &[1, 2]),
        (&[1, 2, 3], &[1, 2]),
        (&[2, 3, 4], &[2, 3]),
        (&[2, 3, 4], &[4]),
        (&[2, 3, 4], &[3]),
    ] {
        let version = all.len() as u64 + 1;
        all.push(next(&all[all.len() - 1], ruled_by(version, who), signers));
    }
    let last = all.last().unwrap().clone();
    for present in &all[..all.len() - 1] {
        let judges = last.check_succeeds(present.membership()).unwrap();
        assert_eq!(last.approvers(judges), ["dan"], "from version {}", present.membership().version);
    }
    assert!(matches!(last.check_succeeds(last.membership()), Err(Refusal::Version { .. })));
    // One that carries none before it, and says so: whoever does not know dan does not believe him.
    let bare = Document::read(&last.membership().sign(&[&pairs[3]]).unwrap()).unwrap();
    assert_ne!(bare.digest(), last.digest());
    let refused = bare.check_succeeds(first.membership());
    assert_eq!(refused, Err(Refusal::Approvals { found: 0, needed: 1 }));
    // A change among them that too few have signed leads nowhere, nor does one of another cluster.
    let forged = |membership: Membership| {
        let forged = Document::read(&membership.sign(&[&pairs[0]]).unwrap()).unwrap();
        let mine = Membership { version: 9, ..membership };
        Document::read(&mine.sign_after(&forged, &[&pairs[0], &pairs[4]]).unwrap()).unwrap()
    };
    let two = all[2].membership();
    let alone = forged(ruled_by(4, &[0, 4]));
    assert_eq!(alone.check_succeeds(two), Err(Refusal::Approvals { found: 1, needed: 2 }));
    let elsewhere = forged(Membership { cluster: ClusterId([8; 16]), ..ruled_by(4, &[0, 4]) });
    assert_eq!(elsewhere.check_succeeds(two), Err(Refusal::Cluster(ClusterId([9; 16]))));
    // It does not grow without end.
    let mut long = all[1].clone();
    for version in 3..100 {
        let who: &[usize] = if version % 2 == 0 { &[0] } else { &[0, 1] };
        long = next(&long, ruled_by(version, who), &[0, 1]);
    }
    assert_eq!(long.earlier.len(), MAX_EARLIER);
    assert!(long.check_succeeds(first.membership()).is_ok());
}

/// Documents whose signers change with each, from the first on: each signed by those whom the one before lists.
fn changing(many: usize) -> Vec<Document> {
    let ruled_by = |version: u64| {
        let administrators =
            vec![listed("ann", &administrator(1)), listed("bob", &administrator(version as u8))];
        Membership { administrators, ..membership(version, 2) }
    };
    let sign = |version: u64| [administrator(1), administrator(version as u8)];
    let mut all = vec![Document::read(&ruled_by(2).sign(&sign(2).each_ref()).unwrap()).unwrap()];
    for version in 3..many as u64 + 2 {
        let present = &all[all.len() - 1];
        let bytes = ruled_by(version).sign_after(present, &sign(version - 1).each_ref()).unwrap();
        all.push(Document::read(&bytes).unwrap());
    }
    all
}

/// The same document as somebody hands it on who changes what it carries.
fn changed(document: &Document, change: impl FnOnce(&mut Vec<Approved>)) -> Document {
    let Signed { body, approvals, earlier } = decode_body(document.bytes()).unwrap();
    let mut earlier = earlier.unwrap_or_default();
    change(&mut earlier);
    Document::read(&encode(&Signed { body, approvals, earlier: Some(earlier) }).unwrap()).unwrap()
}

#[test]
fn whoever_strips_the_earlier_ones_is_noticed_and_whoever_knows_them_puts_them_back() {
    let all = changing(6);
    let (first, last) = (&all[0], &all[5]);
    assert_eq!(last.earlier.len(), 5);
    assert!(last.check_succeeds(first.membership()).is_ok());
    let strips: [fn(&mut Vec<Approved>); 6] = [
        |earlier| earlier.clear(),
        |earlier| drop(earlier.pop()),
        |earlier| drop(earlier.remove(0)),
        |earlier| drop(earlier.remove(2)),
        // Without the signatures by which it may follow the one before it.
        |earlier| earlier[3].approvals.clear(),
        |earlier| earlier[4].approvals.truncate(1),
    ];
    for (at, strip) in strips.into_iter().enumerate() {
        let stripped = changed(last, strip);
        assert_eq!(stripped.digest(), last.digest(), "{at}");
        for present in &all[..5] {
            let refused = stripped.check_succeeds(present.membership());
            assert_eq!(refused, Err(Refusal::Stripped), "{at} from {}", present.membership().version);
        }
        // The one that has the version before in force knows all of them.
        assert_eq!(stripped.clone().mended_by(&all[4]).unwrap(), *last, "{at}");
        // One that was away does not, unless what is missing is of before it.
        let mended = stripped.clone().mended_by(first).unwrap();
        assert_eq!(mended == *last, at == 2, "{at}");
        assert_eq!(stripped.check_first(), Err(Refusal::Stripped), "{at}");
    }
}

#[test]
fn whoever_puts_others_among_the_earlier_ones_puts_them_nowhere() {
    let all = changing(6);
    let (first, last) = (&all[0], &all[5]);
    let eve = administrator(99);
    let mine = |version| {
        let administrators = vec![listed("ann", &administrator(1)), listed("eve", &eve)];
        let mine = Membership { administrators, ..membership(version, 1) };
        let Signed { body, approvals, .. } = decode_body(&mine.sign(&[&eve]).unwrap()).unwrap();
        Approved { body, approvals }
    };
    for place in 0..=5 {
        let junk = changed(last, |earlier| {
            (0..5).for_each(|version| earlier.insert(place, mine(version + 2)));
        });
        assert_eq!(junk, *last, "{place}: what it does not come after is dropped");
    }
    assert_eq!(changed(last, |earlier| earlier.reverse()), *last);
    let flood = |earlier: &mut Vec<Approved>| earlier.extend((0..12).map(|version| mine(version + 2)));
    let Signed { body, approvals, earlier } = decode_body(last.bytes()).unwrap();
    let mut earlier = earlier.unwrap();
    flood(&mut earlier);
    let flooded = encode(&Signed { body, approvals, earlier: Some(earlier) }).unwrap();
    assert_eq!(Document::read(&flooded), Err(Refusal::Malformed("too many earlier documents".into())));
    // In the place of a true one it is as if that was missing.
    let replaced = changed(last, |earlier| earlier[2] = mine(4));
    assert_eq!(replaced.check_succeeds(first.membership()), Err(Refusal::Stripped));
    // More than a document carries are not missed.
    let long = changing(30);
    assert_eq!(long[29].earlier.len(), MAX_EARLIER);
    assert!(long[29].check_succeeds(long[14].membership()).is_ok());
    assert!(matches!(long[29].check_succeeds(long[3].membership()), Err(Refusal::Approvals { .. })));
}

#[test]
fn who_was_dismissed_signs_for_nobody_who_has_not_heard_of_it() {
    let all = changing(4);
    let mine = Membership { version: 9, ..all[3].membership().clone() };
    let mine = mine.sign_after(&all[3], &[&administrator(1), &administrator(2)]).unwrap();
    let refused = Document::read(&mine).unwrap();
    // The first document lists both.
    let refused = refused.check_succeeds(all[0].membership());
    assert_eq!(refused, Err(Refusal::Approvals { found: 1, needed: 2 }));
}

#[test]
fn documents_of_before_there_were_links_are_read_and_followed() {
    // As they were written then: nothing names the earlier one.
    let (ann, bob) = (administrator(1), administrator(2));
    let old = |version, rulers: &[(&str, u8)], signers: &[&Ed25519KeyPair], earlier: Vec<Approved>| {
        let administrators = rulers.iter().map(|(name, seed)| listed(name, &administrator(*seed))).collect();
        let membership = Membership { administrators, ..membership(version, 1) };
        let Signed { body, approvals, .. } = decode_body(&membership.sign(signers).unwrap()).unwrap();
        let earlier = (!earlier.is_empty()).then_some(earlier);
        Document::read(&encode(&Signed { body, approvals, earlier }).unwrap()).unwrap()
    };
    let first = old(1, &[("ann", 1)], &[&ann], Vec::new());
    let carried = vec![first.last.approved.clone()];
    let second = old(2, &[("ann", 1), ("bob", 2)], &[&ann], carried.clone());
    let third = old(3, &[("ann", 1), ("bob", 2)], &[&bob], second.earlier_for_next());
    assert!(third.check_succeeds(first.membership()).is_ok());
    // The next has a link, and behind it those before.
    let next = Membership { version: 4, ..third.membership().clone() };
    let next = Document::read(&next.sign_after(&third, &[&bob]).unwrap()).unwrap();
    assert!(next.check_succeeds(first.membership()).is_ok());
    assert_eq!(changed(&next, Vec::clear).check_succeeds(first.membership()), Err(Refusal::Stripped));
}

#[test]
fn versions_go_on_in_steps() {
    let (ann, bob) = (administrator(1), administrator(2));
    let read = |version| Document::read(&membership(version, 1).sign(&[&ann, &bob]).unwrap()).unwrap();
    let present = membership(3, 2);
    for (version, good) in [(4, true), (3 + MAX_STEP, true), (4 + MAX_STEP, false), (u64::MAX, false)] {
        let refused = Err(Refusal::Step { found: version, present: 3 });
        let expected = if good { Ok(()) } else { refused };
        assert_eq!(read(version).check_succeeds(&present).map(drop), expected, "{version}");
    }
    let refused = Err(Refusal::Step { found: u64::MAX, present: u64::MAX / 2 });
    assert_eq!(read(u64::MAX).check_first(), refused);
    assert_eq!(membership(7, 1).next_version(), Ok(8));
    let end = membership(u64::MAX, 1).next_version().unwrap_err();
    assert!(end.to_string().contains("18446744073709551615 is the last"), "{end}");
    assert_eq!(read(u64::MAX - 1).check_succeeds(&membership(u64::MAX - 9, 1)).map(drop), Ok(()));
}

#[test]
fn a_long_step_ends_nothing_that_comes_after_it() {
    let (ann, bob) = (administrator(1), administrator(2));
    let mut last = Document::read(&membership(1, 1).sign(&[&ann]).unwrap()).unwrap();
    for version in [1 + MAX_STEP, 2 + MAX_STEP, 2 + 2 * MAX_STEP] {
        let next = membership(version, 1).sign_after(&last, &[&bob]).unwrap();
        let next = Document::read(&next).unwrap();
        assert_eq!(next.check_succeeds(last.membership()).map(drop), Ok(()), "{version}");
        assert_eq!(next.check_first(), Ok(()), "a server that is new takes it, by administrators of its own");
        last = next;
    }
}
