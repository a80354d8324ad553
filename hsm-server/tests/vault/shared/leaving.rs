//! A coordinator whose own share moves to others, and which is the first that knows that all of them have theirs.

use strongroom_server::{
    cluster::order::OrderedAct,
    store::{Store, memory::Disk},
};
use strongroom_shared::fault::FaultCode;

use super::*;

const ED: Kind = Kind::Ed25519;

/// A key that takes all four nodes to sign with, and an order that moves it from the first to the other three.
struct Farewell {
    house: House,
    made: KeyPair,
}

impl Farewell {
    fn new() -> Self {
        let house = House::ruled(4, 1);
        let made = house.generate(0, &ED.wish(4, 4)).unwrap();
        Self { house, made }
    }

    /// The first node carries it out.
    fn renew(&self) -> Result<OrderState, Fault> {
        let seats = (1..4).map(|at| self.house.seat(at)).collect();
        self.house.renew(0, self.made.private.id, OrderedAct::Reshare { threshold: 2, seats })
    }

    /// How many calls it makes for that: the last three hand the certificate on.
    fn calls() -> usize {
        let whole = Self::new();
        let calls = whole.house.strike("a", usize::MAX, Mishap::None);
        whole.renew().unwrap();
        calls.load(Ordering::Relaxed)
    }

    /// What the nodes use now.
    fn epochs(&self) -> Vec<Option<u64>> {
        let epoch = |at| keys(&self.house, at).first().map(|key| self.house.epoch(at, *key));
        (0..4).map(epoch).collect()
    }

    /// After some time the nodes have asked one another.
    fn pass(&mut self) {
        for _ in 0..4 {
            self.house.nodes.iter().for_each(|node| node.world.platform.pass(700_000_000));
            (0..4).for_each(|_| self.house.beat());
        }
        self.house.desks = (0..4).map(|at| self.house.log_in(at)).collect();
    }

    /// Whether the three sign with the new shares and nobody has another; or all four with those before.
    fn is_done(&self, told: &str) -> bool {
        let (house, key, epochs) = (&self.house, self.made.private.id, self.epochs());
        let done = epochs[1] == Some(1);
        assert!(epochs == [Some(0); 4] || epochs == [None, Some(1), Some(1), Some(1)], "{told}: {epochs:?}");
        for at in usize::from(done)..4 {
            let signature = house.sign(at, ED, key, MESSAGE);
            let signature = signature.unwrap_or_else(|fault| panic!("{told}, node {at}: {fault}"));
            house.check(at, ED, self.made.public.id, &signature);
        }
        for at in 0..4 {
            assert!(!house.keeps_former(at, key), "{told}, node {at}: the shares have signed");
        }
        done
    }
}

#[test]
fn whoever_leaves_shows_the_others_the_certificate_that_they_did_not_hear_of() {
    let calls = Farewell::calls();
    let mut unheard = 0;
    for after in calls - 4..calls {
        for dies in [false, true] {
            let mut farewell = Farewell::new();
            let count = AtomicUsize::new(0);
            farewell.house.net.weather(move |from, _, call| {
                let sent = from == "a" && call == CallId::SealedCall;
                let lost = sent && count.fetch_add(1, Ordering::Relaxed) >= after;
                if lost { Mishap::Lost } else { Mishap::None }
            });
            let renewed = farewell.renew();
            unheard += usize::from(farewell.epochs() == [None, Some(0), Some(0), Some(0)]);
            farewell.house.clear_up();
            if dies {
                farewell.house.restart(0);
            }
            farewell.pass();
            let told = format!("lost after {after}, dies {dies}: {renewed:?}");
            assert_eq!(farewell.is_done(&told), renewed.is_ok(), "{told}");
        }
    }
    assert_eq!(unheard, 2, "with and without a restart");
}

#[test]
fn a_coordinator_that_cannot_write_down_that_it_has_left_hands_the_certificate_on() {
    let after = Farewell::calls() - 4;
    for disk in [Disk::Full, Disk::Failing] {
        let mut farewell = Farewell::new();
        let (count, store) = (AtomicUsize::new(0), farewell.house.nodes[0].world.store.clone());
        farewell.house.net.weather(move |from, _, call| {
            let sent = from == "a" && call == CallId::SealedCall;
            if sent && count.fetch_add(1, Ordering::Relaxed) == after {
                store.set_disk(disk);
            }
            Mishap::None
        });
        let renewed = farewell.renew();
        let told = format!("{disk:?}: {renewed:?}");
        assert_eq!(code(renewed), FaultCode::NotDurable, "{told}");
        assert_eq!(farewell.epochs(), [Some(0), Some(1), Some(1), Some(1)], "{told}");
        let records = farewell.house.nodes[0].records("RenewShares");
        assert_eq!(records.last().unwrap().outcome, Outcome::Failed, "{told}: {records:?}");
        farewell.house.nodes[0].world.store.set_disk(Disk::Good);
        farewell.house.clear_up();
        if disk == Disk::Failing {
            farewell.house.restart(0);
        }
        farewell.pass();
        assert!(farewell.is_done(&told), "{told}");
    }
}

#[test]
fn shares_that_are_made_after_others_were_dealt_are_of_a_later_epoch_than_those() {
    let begin = || {
        let house = House::ruled(4, 1);
        let key = house.generate(0, &ED.wish(2, 4)).unwrap().private.id;
        let seats = (0..2).map(|at| house.seat(at)).collect();
        house.renew(0, key, OrderedAct::Reshare { threshold: 2, seats }).unwrap();
        (house, key)
    };
    // From the first two to the last two.
    let reshare = |house: &House, key| {
        let seats = (2..4).map(|at| house.seat(at)).collect();
        house.renew(0, key, OrderedAct::Reshare { threshold: 2, seats })
    };
    let (house, key) = begin();
    let calls = house.strike("a", usize::MAX, Mishap::None);
    assert_eq!(reshare(&house, key).unwrap().epoch, Some(2));
    let calls = calls.load(Ordering::Relaxed);
    let (mut house, key) = begin();
    // One of the last two has its share, and nobody hears it.
    house.strike("a", calls - 4, Mishap::ReplyLost);
    assert_eq!(code(reshare(&house, key)), FaultCode::QuorumMissing);
    house.clear_up();
    let waits = |house: &House, at: usize| {
        let rows = strongroom_server::store::Store::load(&house.nodes[at].world.store).unwrap();
        rows.iter().any(|row| row.path.ends_with(&format!("/pending/{key}/2")))
    };
    assert!(waits(&house, 2) || waits(&house, 3));
    (0..2).for_each(|at| house.restart(at));
    house.beat();
    assert_eq!(house.renew(1, key, OrderedAct::Refresh).unwrap().epoch, Some(3));
    // And so on, whatever became of what was dealt.
    assert_eq!(reshare(&house, key).unwrap().epoch, Some(4));
    assert!(house.sign(2, ED, key, MESSAGE).is_ok());
}

#[test]
fn whoever_was_away_when_the_shares_that_left_it_out_moved_on_erases_its_own_for_the_order_that_moved_them() {
    let begin = || {
        let house = House::ruled(5, 1);
        let key = house.generate(0, &ED.wish(2, 5)).unwrap().private.id;
        (house, key)
    };
    let reshare = |house: &House, key, seats: &[usize]| {
        let seats = seats.iter().map(|at| house.seat(*at)).collect();
        house.renew(0, key, OrderedAct::Reshare { threshold: 2, seats }).unwrap()
    };
    let count = |house: &House, lost: usize| {
        let sent = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&sent);
        house.net.weather(move |from, to, call| {
            let counts = (from, to, call) == ("a", "c", CallId::SealedCall);
            if counts && seen.fetch_add(1, Ordering::Relaxed) >= lost { Mishap::Lost } else { Mishap::None }
        });
        sent
    };
    let (house, key) = begin();
    let calls = count(&house, usize::MAX);
    reshare(&house, key, &[0, 1]);
    let calls = calls.load(Ordering::Relaxed);
    let (mut house, key) = begin();
    // The last that it hears is that it holds no share any more, and not that those of the others have signed.
    count(&house, calls - 1);
    reshare(&house, key, &[0, 1]);
    assert!(keys(&house, 2).is_empty() && house.keeps_former(2, key));
    house.cut_off(&["c"]);
    reshare(&house, key, &[3, 4]);
    let pass = |house: &mut House| {
        house.nodes.iter().for_each(|node| node.world.platform.pass(700_000_000));
        (0..3).for_each(|_| house.beat());
        house.desks = (0..5).map(|at| house.log_in(at)).collect();
    };
    pass(&mut house);
    assert!(house.keeps_former(2, key), "it has heard nothing");
    assert!((0..2).all(|at| !house.keeps_former(at, key)), "nobody has the shares in between");
    house.clear_up();
    pass(&mut house);
    assert!(!house.keeps_former(2, key));
    house.sign(3, ED, key, MESSAGE).unwrap();
}

/// Whether a node keeps something of any key, of this kind.
fn keeps(store: &Memory, kind: &str) -> bool {
    store.load().unwrap().iter().any(|row| row.path.contains(&format!("/{kind}/")))
}

/// The first node makes a key of its own, or nothing, and then has shares made of it by this act: its disk fails when
/// all have theirs and before it makes its own active.
fn is_handed_on(
    disk: Disk,
    prepare: fn(&House) -> Option<ObjectId>,
    act: fn(&House, Option<ObjectId>) -> Result<(), Fault>,
) {
    let watch = |house: &House, at: usize| {
        let (count, active) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(usize::MAX)));
        let (first, store) = (Arc::clone(&active), house.nodes[0].world.store.clone());
        house.net.weather(move |from, _, call| {
            if from == "a" && call == CallId::SealedCall {
                let now = count.fetch_add(1, Ordering::Relaxed);
                if keeps(&store, "share") {
                    first.fetch_min(now, Ordering::Relaxed);
                }
                if now == at {
                    // It does its own part meanwhile.
                    let begun = std::time::Instant::now();
                    while !keeps(&store, "pending") && begun.elapsed().as_secs() < 20 {
                        std::thread::sleep(std::time::Duration::from_millis(5));
                    }
                    store.set_disk(disk);
                }
            }
            Mishap::None
        });
        active
    };
    let house = House::ruled(3, 1);
    let whole = prepare(&house);
    let active = watch(&house, usize::MAX);
    act(&house, whole).unwrap();
    let last = active.load(Ordering::Relaxed) - 1;
    let mut house = House::ruled(3, 1);
    let whole = prepare(&house);
    watch(&house, last);
    let told = format!("{disk:?}, {whole:?}");
    assert_eq!(code(act(&house, whole)), FaultCode::NotDurable, "{told}");
    let key = keys(&house, 1)[0];
    assert_eq!(keys(&house, 2), [key], "{told}: the others have it");
    house.sign(1, ED, key, MESSAGE).unwrap();
    house.clear_up();
    house.nodes[0].world.store.set_disk(Disk::Good);
    if disk == Disk::Failing {
        house.restart(0);
    }
    (0..3).for_each(|_| house.beat());
    assert_eq!(keys(&house, 0), [key], "{told}");
    house.cut_off(&["b"]);
    let epoch = house.epoch(2, key);
    assert_eq!(house.epoch(0, key), epoch, "{told}");
    house.sign(0, ED, key, MESSAGE).unwrap();
}

#[test]
fn a_coordinator_that_cannot_write_down_its_share_of_a_new_key_hands_the_certificate_on() {
    for disk in [Disk::Full, Disk::Failing] {
        is_handed_on(disk, |_| None, |house, _| house.generate(0, &ED.wish(2, 3)).map(drop));
    }
}

#[test]
fn one_that_cannot_write_down_its_share_of_its_own_key_hands_the_certificate_on() {
    let whole = |house: &House| {
        let mut wish = ED.wish(2, 3);
        let shares = [CKA_STRONGROOM_THRESHOLD, CKA_STRONGROOM_PARTIES];
        wish.private.0.retain(|attribute| !shares.contains(&attribute.kind));
        Some(house.ask(0, &wish).unwrap().private.id)
    };
    for disk in [Disk::Full, Disk::Failing] {
        is_handed_on(disk, whole, |house, whole| {
            let seats = (0..3).map(|at| house.seat(at)).collect();
            let order = house.order_of(whole.unwrap(), 0, OrderedAct::Share { threshold: 2, seats });
            house.approve(0, &house.admin(0, life::ANN), &order, life::ANN).map(drop)
        });
    }
}

#[test]
fn of_a_node_that_is_away_while_it_is_left_out_the_note_says_what_is_true_of_it() {
    let house = House::ruled(3, 1);
    let key = house.generate(0, &ED.wish(2, 3)).unwrap().private.id;
    house.cut_off(&["c"]);
    let seats = (0..2).map(|at| house.seat(at)).collect();
    let state = house.renew(0, key, OrderedAct::Reshare { threshold: 2, seats }).unwrap();
    assert_eq!(state.epoch, Some(1));
    let note = "has not heard yet that it holds no share any more: node c: ";
    assert!(state.note.starts_with(note) && !state.note.contains("its new share"), "{}", state.note);
}
