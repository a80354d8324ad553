//! kill -9 of any node at any message of whatever is done with a key: of the coordinator before each of its messages, and
//! of whoever gets one, before it hears it and before anybody hears its answer.

use std::sync::Mutex;

use strongroom_server::cluster::order::{OrderedAct, Seat};

use super::{life::ANN, weather::blames_nobody, *};

const ED: Kind = Kind::Ed25519;

/// Who is killed at a message of the first node.
#[derive(Clone, Copy, Debug)]
enum Killed {
    /// The first node, before it sends it.
    Sender,
    /// Who gets it, before it hears it.
    Receiver,
    /// Who gets it, before anybody hears its answer.
    Answerer,
}

/// Has something done at the first node while one is killed at the message after `after` others, which is then started
/// again; whether there was such a message, and what the application was told.
fn kill<T>(
    house: &mut House,
    (killed, after): (Killed, usize),
    act: impl FnOnce(&House) -> Result<T, Fault>,
) -> (bool, Result<T, Fault>) {
    let (store, sink) = (house.nodes[0].world.store.clone(), house.nodes[0].world.sink.clone());
    let (count, disk) = (AtomicUsize::new(0), Arc::new(Mutex::new(None)));
    let (left, died) = (Arc::clone(&disk), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&died);
    house.net.weather(move |from, to, call| {
        let dead = left.lock().unwrap().is_some();
        if dead && (from == "a" || to == "a") {
            return Mishap::Lost;
        }
        if from != "a" || call != CallId::SealedCall || count.fetch_add(1, Ordering::Relaxed) != after {
            return Mishap::None;
        }
        seen.fetch_add(1, Ordering::Relaxed);
        match killed {
            Killed::Sender => {
                // What it has on disk at this moment is what it will find there.
                *left.lock().unwrap() = Some(OldCopy { store: store.copy(), sink: sink.copy() });
                Mishap::Lost
            }
            Killed::Receiver => Mishap::Dies,
            Killed::Answerer => Mishap::DiesAfter,
        }
    });
    let done = act(house);
    house.clear_up();
    let disk = disk.lock().unwrap().take();
    match disk {
        Some(disk) => house.put_back(0, &disk),
        None => (1..house.nodes.len()).for_each(|at| house.restart(at)),
    }
    (0..3).for_each(|_| house.beat());
    (died.load(Ordering::Relaxed) > 0, done)
}

/// Kills each at each message of what is done, until there are no more messages.
fn at_every_message(house: &mut House, mut act: impl FnMut(&mut House, (Killed, usize)) -> bool) {
    for after in 0.. {
        (0..house.nodes.len()).for_each(|at| house.desks[at] = house.log_in(at));
        let all = [Killed::Sender, Killed::Receiver, Killed::Answerer];
        if !all.map(|killed| act(house, (killed, after))).contains(&true) {
            assert!(after > 3, "only {after} messages");
            break;
        }
    }
}

/// The key's shares are of one epoch everywhere, and any two of them sign.
fn is_whole(house: &House, made: &KeyPair, told: &str) {
    let epoch = house.epoch(0, made.private.id);
    for at in 0..house.nodes.len() {
        assert_eq!(house.epoch(at, made.private.id), epoch, "{told}, node {at}");
        let signature = house.sign(at, ED, made.private.id, MESSAGE);
        house.check(at, ED, made.public.id, &signature.unwrap_or_else(|fault| panic!("{told}: {fault}")));
    }
}

#[test]
fn a_new_key_is_everywhere_or_nowhere_whoever_is_killed() {
    let mut house = House::new(3);
    let mut count = 0;
    at_every_message(&mut house, |house, killed| {
        let (hit, made) = kill(house, killed, |house| house.generate(0, &ED.wish(2, 3)));
        let all = keys(house, 0);
        let told = format!("{killed:?}: {made:?}");
        (1..3).for_each(|at| assert_eq!(keys(house, at), all, "{told}, node {at}"));
        // A coordinator that is killed tells the application nothing, though the key may have come about.
        match (&made, killed.0) {
            (Ok(made), Killed::Receiver | Killed::Answerer) => {
                count += 1;
                is_whole(house, made, &told);
            }
            (_, Killed::Sender) => count = all.len(),
            (Err(_), _) => {}
        }
        assert_eq!(all.len(), count, "{told}");
        hit
    });
    assert!(count > 0);
}

#[test]
fn shares_are_of_one_epoch_whoever_is_killed_in_a_refresh_or_a_repair() {
    let mut house = House::ruled(3, 1);
    let made = house.generate(0, &ED.wish(2, 3)).unwrap();
    let Seat(node) = house.seat(2);
    for act in [OrderedAct::Refresh, OrderedAct::Repair { node }] {
        at_every_message(&mut house, |house, killed| {
            let (hit, renewed) = kill(house, killed, |house| house.renew(0, made.private.id, act.clone()));
            is_whole(house, &made, &format!("{killed:?}: {renewed:?}"));
            hit
        });
    }
    blames_nobody(&house, made.private.id);
}

#[test]
fn a_key_that_becomes_shares_is_never_lost_whoever_is_killed() {
    let mut house = House::ruled(3, 1);
    at_every_message(&mut house, |house, killed| {
        let mut wish = ED.wish(2, 3);
        let shares = [CKA_STRONGROOM_THRESHOLD, CKA_STRONGROOM_PARTIES];
        wish.private.0.retain(|attribute| !shares.contains(&attribute.kind));
        let made = house.ask(0, &wish).unwrap();
        let key = made.private.id;
        let share = |house: &House| {
            let seats = (0..3).map(|at| house.seat(at)).collect();
            let order = house.order_of(key, 0, OrderedAct::Share { threshold: 2, seats });
            house.approve(0, &house.admin(0, ANN), &order, ANN)
        };
        let (hit, shared) = kill(house, killed, share);
        let told = format!("{killed:?}: {shared:?}");
        if !keys(house, 1).contains(&key) {
            // It is whole still, and signs as before.
            let (mechanism, input) = (ED.mechanism(), MESSAGE.to_vec());
            let plain = Sign { key, mechanism, params: Params::None, input };
            house.ask(0, &plain).unwrap_or_else(|fault| panic!("{told}: {fault}"));
            share(house).unwrap_or_else(|fault| panic!("{told}: {fault}"));
        }
        is_whole(house, &made, &told);
        hit
    });
}

#[test]
fn a_key_is_destroyed_everywhere_whoever_is_killed() {
    let mut house = House::new(3);
    at_every_message(&mut house, |house, killed| {
        let made = house.generate(0, &ED.wish(2, 3)).unwrap();
        let destroy = |house: &House, at: usize| {
            let body = minicbor::to_vec(DestroyObject { object: made.private.id }).unwrap();
            house.ask(at, &DestroyShared { mandated: house.mandated(CallId::DestroyObject, body) })
        };
        let (hit, destroyed) = kill(house, killed, |house| destroy(house, 0));
        let told = format!("{killed:?}: {destroyed:?}");
        let has = |house: &House| (0..3).filter(|at| !keys(house, *at).is_empty()).collect::<Vec<_>>();
        let left = has(house);
        if left.len() == 3 {
            is_whole(house, &made, &told);
        }
        // The application asks again wherever it still sees it.
        for at in left {
            if keys(house, at).contains(&made.private.id) {
                destroy(house, at).unwrap_or_else(|fault| panic!("{told}: node {at}: {fault}"));
            }
        }
        assert!(has(house).is_empty(), "{told}: {:?}", has(house));
        hit
    });
}
