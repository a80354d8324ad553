//! Calls to other nodes: the vault's threads wait here while a lane's front carries a frame there and back.
//!
//! The front is not trusted with more than that: what matters inside a frame is sealed for the other vault, and a
//! front that answers nothing, or wrongly, is an unreachable node.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
        mpsc::{RecvTimeoutError, SyncSender, sync_channel},
    },
    time::Duration,
};

use strongroom_shared::secret::Wiped;

use super::Outlet;
use crate::{
    cluster::{NodeId, Peers, Ring, Unreachable},
    hop::{self, ToFront},
};

/// How much longer than the front one waits for the front.
const GRACE: Duration = Duration::from_millis(100);

type Reply = Result<Wiped, Unreachable>;

/// The way out, over every lane in turn.
#[derive(Default)]
pub(super) struct Outbound {
    lanes: Mutex<Lanes>,
    waiting: Mutex<HashMap<u64, SyncSender<Reply>>>,
    last: AtomicU64,
}

#[derive(Default)]
struct Lanes {
    ring: Option<Arc<Ring>>,
    outlets: Vec<Weak<dyn Outlet>>,
}

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outbound")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tell(outlet: &dyn Outlet, ring: &Arc<Ring>) {
    let mut message = Wiped::default();
    hop::write(&mut message, 0, &ToFront::Ring(&ring.encode()));
    outlet.deliver(&message);
}

impl Outbound {
    /// A new lane: it is told the ring at once.
    pub(super) fn join(&self, outlet: &Arc<dyn Outlet>) {
        let mut lanes = lock(&self.lanes);
        if let Some(ring) = &lanes.ring {
            tell(&**outlet, ring);
        }
        lanes.outlets.retain(|outlet| outlet.strong_count() > 0);
        lanes.outlets.push(Arc::downgrade(outlet));
    }

    /// A front has answered a call, or given it up. Whoever no longer waits does not hear it.
    pub(super) fn answer(&self, number: u64, reply: Reply) {
        if let Some(caller) = lock(&self.waiting).remove(&number) {
            // There is room for one, and this is the one.
            caller.try_send(reply).unwrap_or_default();
        }
    }

    fn outlet(&self, number: u64) -> Option<Arc<dyn Outlet>> {
        let lanes = lock(&self.lanes);
        let alive: Vec<_> = lanes.outlets.iter().filter_map(Weak::upgrade).collect();
        let turn = usize::try_from(number).unwrap_or_default().checked_rem(alive.len())?;
        alive.into_iter().nth(turn)
    }
}

impl Peers for Outbound {
    fn call(&self, node: NodeId, frame: &[u8], patience: Duration) -> Reply {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let outlet = self.outlet(number).ok_or_else(|| Unreachable("there is no front".into()))?;
        let (caller, reply) = sync_channel(1);
        lock(&self.waiting).insert(number, caller);
        let mut message = Wiped::from(Vec::with_capacity(frame.len() + hop::HEADER + 64));
        let millis = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
        hop::write(&mut message, number, &ToFront::Call { node, patience: millis, frame });
        outlet.deliver(&message);
        reply.recv_timeout(patience + GRACE).unwrap_or_else(|error| {
            lock(&self.waiting).remove(&number);
            Err(Unreachable(match error {
                RecvTimeoutError::Timeout => format!("no answer within {} ms", patience.as_millis()),
                RecvTimeoutError::Disconnected => "the call was given up".into(),
            }))
        })
    }

    fn gather(&self, ring: Arc<Ring>) {
        let mut lanes = lock(&self.lanes);
        lanes.outlets.iter().filter_map(Weak::upgrade).for_each(|outlet| tell(&*outlet, &ring));
        lanes.ring = Some(ring);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::hop::Inbox;

    /// A front that answers every call with what was asked, or not at all.
    struct Parrot(Mutex<Option<Arc<Outbound>>>);

    impl Outlet for Parrot {
        fn deliver(&self, messages: &[u8]) {
            let mut inbox = Inbox::new(1 << 20);
            inbox.push(messages);
            while let Some((number, message)) = inbox.next::<ToFront<'_>>().unwrap() {
                let outbound = lock(&self.0);
                if let (ToFront::Call { frame, .. }, Some(outbound)) = (message, &*outbound) {
                    outbound.answer(number, Ok(frame.into()));
                }
            }
        }
    }

    #[test]
    fn everybody_hears_the_answer_to_what_they_asked() {
        let outbound = Arc::new(Outbound::default());
        let none = outbound.call(NodeId([1; 32]), b"x", Duration::from_secs(1));
        assert_eq!(none.unwrap_err().to_string(), "there is no front");
        let parrot: Arc<Parrot> = Arc::new(Parrot(Mutex::new(Some(Arc::clone(&outbound)))));
        let outlet: Arc<dyn Outlet> = parrot.clone();
        outbound.join(&outlet);
        thread::scope(|scope| {
            for caller in 0..8_u8 {
                let outbound = &outbound;
                scope.spawn(move || {
                    for turn in 0..50 {
                        let asked = [caller, turn];
                        let heard = outbound.call(NodeId([1; 32]), &asked, Duration::from_secs(10));
                        assert_eq!(*heard.unwrap(), asked);
                    }
                });
            }
        });
        *lock(&parrot.0) = None;
        let silent = outbound.call(NodeId([1; 32]), b"x", Duration::from_millis(20)).unwrap_err();
        assert_eq!(silent.to_string(), "no answer within 20 ms");
        assert!(lock(&outbound.waiting).is_empty());
        outbound.answer(1, Ok(Wiped::default()));
    }
}
