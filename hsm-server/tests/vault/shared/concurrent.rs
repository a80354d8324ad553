//! Several ceremonies about one key at once: signatures while its shares become others or are destroyed, and two nodes
//! that have them become others at the same time.

use std::{
    sync::{Barrier, Mutex, atomic::AtomicBool},
    thread,
    time::{Duration, Instant},
};

use strongroom_server::cluster::order::OrderedAct;
use strongroom_shared::fault::FaultCode;

use super::{life::ANN, weather::blames_nobody, *};

/// Signs at these nodes side by side, again and again while something else happens, which begins when they do sign; gives
/// the signatures, and what the application was told instead of one.
fn signing_meanwhile<T>(
    house: &House,
    (kind, made): (Kind, &KeyPair),
    at: &[usize],
    act: impl FnOnce() -> T,
) -> (T, usize, Vec<Fault>) {
    let (over, signed) = (AtomicBool::new(false), AtomicUsize::new(0));
    let faults: Mutex<Vec<Fault>> = Mutex::default();
    let done = thread::scope(|scope| {
        for at in at {
            let (over, signed, faults) = (&over, &signed, &faults);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    match house.sign(*at, kind, made.private.id, MESSAGE) {
                        Ok(signature) => {
                            signed.fetch_add(1, Ordering::Relaxed);
                            house.check(*at, kind, made.public.id, &signature);
                        }
                        Err(fault) => faults.lock().unwrap().push(fault),
                    }
                    // A moment for whoever does something else with the key, however few cores there are.
                    thread::sleep(Duration::from_millis(10));
                }
            });
        }
        let _over = Over(&over);
        let deadline = Instant::now() + Duration::from_secs(60);
        while signed.load(Ordering::Relaxed) < at.len() {
            assert!(Instant::now() < deadline, "nobody signs: {:?}", faults.lock().unwrap());
            thread::sleep(Duration::from_millis(1));
        }
        act()
    });
    (done, signed.into_inner(), faults.into_inner().unwrap())
}

/// Whatever comes of it, the others must end.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Has the shares of a key of so many nodes become others in these ways, while the first two sign; gives the signatures.
fn signatures_go_on_meanwhile(kind: Kind, count: usize, acts: impl Fn(&House) -> Vec<OrderedAct>) -> usize {
    let house = House::ruled(count, 1);
    let made = house.generate(0, &kind.wish(2, count as u8)).unwrap();
    let acts = acts(&house);
    let last = acts.len() as u64;
    let (renewed, signed, faults) = signing_meanwhile(&house, (kind, &made), &[0, 1], || {
        let renew = |(at, act)| house.renew(at % 2, made.private.id, act);
        acts.into_iter().enumerate().map(renew).collect::<Vec<_>>()
    });
    for (number, state) in (1..).zip(renewed) {
        assert_eq!(state.unwrap().epoch, Some(number));
    }
    // Between two epochs a signature may find too few nodes of one.
    assert!(faults.iter().all(|fault| fault.code == FaultCode::QuorumMissing), "{faults:?}");
    (0..4).for_each(|_| house.beat());
    house.is_sound(kind, &made, last);
    blames_nobody(&house, made.private.id);
    signed
}

#[test]
fn signatures_of_schnorr_go_on_while_shares_become_others() {
    let signed = signatures_go_on_meanwhile(Kind::Ed25519, 4, |house| {
        let reshare = |threshold, seats: &[usize]| OrderedAct::Reshare {
            threshold,
            seats: seats.iter().map(|at| house.seat(*at)).collect(),
        };
        let there_and_back = [reshare(3, &[0, 1, 2]), OrderedAct::Refresh, reshare(2, &[0, 1, 2, 3])];
        [OrderedAct::Refresh].into_iter().chain(there_and_back).collect()
    });
    assert!(signed > 2, "{signed}");
}

#[test]
fn signatures_of_ecdsa_go_on_while_shares_become_others() {
    let signed = signatures_go_on_meanwhile(Kind::K1, 3, |_| vec![OrderedAct::Refresh]);
    assert!(signed > 2, "{signed}");
}

#[test]
fn of_two_nodes_that_refresh_one_key_at_once_no_more_than_one_comes_first() {
    let house = House::ruled(3, 1);
    let kind = Kind::Ed25519;
    let made = house.generate(0, &kind.wish(2, 3)).unwrap();
    let key = made.private.id;
    let (mut done, mut undone) = (0, 0);
    // Until both came at once and one after the other.
    for round in 0..40 {
        if round >= 8 && done > 0 && undone > 0 {
            break;
        }
        let (before, barrier) = (house.epoch(0, key), Barrier::new(2));
        let orders = [0, 1].map(|at| (at, house.order(0, key, OrderedAct::Refresh), house.admin(at, ANN)));
        let renewed = thread::scope(|scope| {
            let renew = |(at, order, admin)| {
                let (house, barrier) = (&house, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    house.approve(at, &admin, &order, ANN)
                })
            };
            orders.map(renew).map(|thread| thread.join().unwrap())
        });
        house.sign(round % 3, kind, key, MESSAGE).unwrap();
        house.beat();
        let epochs = [0, 1, 2].map(|at| house.epoch(at, key));
        assert_eq!(epochs, [epochs[0]; 3], "{renewed:?}");
        for state in renewed {
            match state {
                Ok(state) => {
                    done += 1;
                    assert!(state.epoch.unwrap() > before && state.epoch.unwrap() <= epochs[0]);
                }
                Err(_) => undone += 1,
            }
        }
    }
    assert!(done > 0 && undone > 0, "{done} {undone}");
    (0..4).for_each(|_| house.beat());
    house.renew(2, key, OrderedAct::Refresh).unwrap();
    let epoch = house.epoch(0, key);
    house.is_sound(kind, &made, epoch);
    blames_nobody(&house, key);
}

#[test]
fn a_key_that_is_destroyed_while_all_nodes_sign_is_gone_everywhere() {
    let house = House::new(3);
    let kind = Kind::Ed25519;
    let made = house.generate(0, &kind.wish(2, 3)).unwrap();
    let key = made.private.id;
    let (done, _, faults) = signing_meanwhile(&house, (kind, &made), &[0, 1, 2], || {
        let body = minicbor::to_vec(DestroyObject { object: key }).unwrap();
        house.ask(1, &DestroyShared { mandated: house.mandated(CallId::DestroyObject, body) })
    });
    done.unwrap();
    assert!((0..3).all(|at| keys(&house, at).is_empty()));
    let expected = [FaultCode::KeyHandleInvalid, FaultCode::QuorumMissing];
    assert!(faults.iter().all(|fault| expected.contains(&fault.code)), "{faults:?}");
}
