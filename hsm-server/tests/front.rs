//! The front over real TLS, with an echo behind it, in both isolations.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::Ordering::{Relaxed, SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use strongroom_server::{
    certificates::fingerprint,
    config::{Config, Isolation},
    front::{Front, Link},
    lane::Keeper,
};
use strongroom_shared::wire::{HEADER, Header, Kind};
use support::{
    Ca, Client, Credentials, Echo, QUICK, SLOW, UNKNOWN, UNKNOWN_SLOW, UNWRITABLE, config, eventually, now,
};
use tempfile::TempDir;

/// A front with an echo behind it.
struct House {
    folder: TempDir,
    ca: Ca,
    echo: Arc<Echo>,
    front: Front,
    keeper: Arc<Keeper>,
    alice: Credentials,
}

impl House {
    fn new(isolation: Isolation) -> Self {
        Self::with(isolation, |_| {})
    }

    fn with(isolation: Isolation, adjust: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ca = Ca::new();
        ca.write_server(folder.path());
        let mut config = config(folder.path());
        config.isolation = isolation;
        adjust(&mut config);
        let alice = ca.client("alice");
        let echo = Arc::new(Echo::default());
        echo.let_in(&alice.certificate);
        let front = Front::start(&config).unwrap();
        let keeper = Keeper::new(echo.clone(), &config).unwrap();
        let house = Self { folder, ca, echo, front, keeper, alice };
        house.link(isolation);
        house
    }

    /// Links the front to the vault; for sockets, the vault's ends are handed back.
    fn link(&self, isolation: Isolation) -> Vec<UnixStream> {
        let mut ends = Vec::new();
        let links = (0..self.front.lane_count() as u64).map(|number| match isolation {
            Isolation::Thread => Link::InProcess(Arc::clone(&self.keeper)),
            Isolation::Process => {
                let (ours, theirs) = UnixStream::pair().unwrap();
                ends.push(theirs.try_clone().unwrap());
                let keeper = Arc::clone(&self.keeper);
                thread::spawn(move || keeper.run(number, theirs));
                Link::Socket(ours)
            }
        });
        self.front.link(links.collect());
        ends
    }

    fn address(&self) -> SocketAddr {
        self.front.address()
    }

    fn connect(&self) -> Client {
        Client::connect(self.address(), &self.ca, Some(&self.alice)).unwrap()
    }

    /// Tries to get one answer with these credentials.
    fn attempt(&self, ca: &Ca, credentials: Option<&Credentials>) -> io::Result<Vec<u8>> {
        let mut client = Client::connect(self.address(), ca, credentials)?;
        client.ask(QUICK, b"hello")
    }
}

fn in_both(test: impl Fn(Isolation)) {
    test(Isolation::Process);
    test(Isolation::Thread);
}

#[test]
fn frames_are_answered_quick_slow_and_large() {
    in_both(|isolation| {
        let house = House::new(isolation);
        let mut client = house.connect();
        assert_eq!(client.ask(QUICK, b"quick").unwrap(), b"quick");
        assert_eq!(client.ask(SLOW, b"slow").unwrap(), b"slow");
        assert_eq!(client.ask(QUICK, b"").unwrap(), b"");
        let large: Vec<u8> = (0..1 << 20).map(|i: u32| i.to_le_bytes()[1]).collect();
        assert_eq!(client.ask(QUICK, &large).unwrap(), large);
        assert_eq!(client.ask(SLOW, &large).unwrap(), large);
        drop(client);
        eventually("the vault learns that the client went", || house.echo.disconnected.load(SeqCst) == 1);
    });
}

#[test]
fn pipelined_frames_are_answered_in_order() {
    in_both(|isolation| {
        let house = House::new(isolation);
        let mut client = house.connect();
        let mut frames = Vec::new();
        for id in 0..50_u64 {
            let body = id.to_be_bytes();
            let call = if id % 7 == 0 { SLOW } else { QUICK };
            frames.extend(Header { length: 8, kind: Kind::Request, call, id }.encode());
            frames.extend(body);
        }
        client.tls.write_all(&frames).unwrap();
        for id in 0..50_u64 {
            let mut frame = [0; HEADER + 8];
            client.tls.read_exact(&mut frame).unwrap();
            assert_eq!(frame[HEADER..], id.to_be_bytes());
        }
    });
}

#[test]
fn many_clients_at_once_each_get_their_own_answers() {
    in_both(|isolation| {
        let house = House::new(isolation);
        thread::scope(|scope| {
            for name in 0..24_u32 {
                let house = &house;
                scope.spawn(move || {
                    let mut client = house.connect();
                    for round in 0..50_u32 {
                        let body = [name.to_be_bytes(), round.to_be_bytes()].concat();
                        let call = if round % 10 == 0 { SLOW } else { QUICK };
                        assert_eq!(client.ask(call, &body).unwrap(), body);
                    }
                });
            }
        });
        assert_eq!(house.echo.handled.load(SeqCst), 24 * 50);
    });
}

#[test]
fn whoever_may_not_come_in_is_refused_in_the_handshake_and_put_on_record() {
    in_both(|isolation| {
        let house = House::new(isolation);
        let unknown = house.ca.client("mallory");
        let revoked = house.ca.client("bob");
        house.echo.let_in(&revoked.certificate);
        house.echo.revoke(&revoked.certificate);
        let expired = house.ca.client_at("carol", now() - 3 * 86_400, 1);
        house.echo.let_in(&expired.certificate);
        let stranger = Ca::new().client("dave");
        house.echo.let_in(&stranger.certificate);
        // The list reaches the front with the next tick.
        thread::sleep(Duration::from_millis(300));

        for (who, hint) in [
            (Some(&unknown), "not known"),
            (Some(&revoked), "revoked"),
            (Some(&expired), "xpired"),
            (Some(&stranger), ""),
            (None, "no certificate"),
        ] {
            let before = house.echo.refusals().len();
            assert!(house.attempt(&house.ca, who).is_err(), "{hint}");
            eventually("the refusal is on record", || house.echo.refusals().len() == before + 1);
            let (shown, reason) = house.echo.refusals().remove(before);
            assert_eq!(shown, who.map(|who| fingerprint(&who.certificate)), "{reason}");
            assert!(reason.contains(hint), "{reason}");
        }
        assert_eq!(house.echo.handled.load(SeqCst), 0);
        assert_eq!(house.attempt(&house.ca, Some(&house.alice)).unwrap(), b"hello");
    });
}

#[test]
fn a_client_of_another_protocol_is_sent_away() {
    let house = House::new(Isolation::Process);
    for alpn in [None, Some(&b"http/1.1"[..]), Some(b"strongroom/2")] {
        let client = Client::connect_with(house.address(), &house.ca, Some(&house.alice), alpn);
        assert!(client.and_then(|mut client| client.ask(QUICK, b"")).is_err());
    }
    assert_eq!(house.echo.handled.load(SeqCst), 0);
}

#[test]
fn revoking_closes_the_connections_of_that_client_and_no_other() {
    in_both(|isolation| {
        let house = House::new(isolation);
        let bob = house.ca.client("bob");
        house.echo.let_in(&bob.certificate);
        thread::sleep(Duration::from_millis(300));
        let mut clients: Vec<_> =
            (0..4).map(|_| Client::connect(house.address(), &house.ca, Some(&bob)).unwrap()).collect();
        let mut alice = house.connect();
        for client in clients.iter_mut().chain([&mut alice]) {
            client.ask(QUICK, b"here").unwrap();
        }
        house.echo.revoke(&bob.certificate);
        clients.iter_mut().for_each(|client| client.wait_for_end().unwrap());
        assert_eq!(alice.ask(QUICK, b"still here").unwrap(), b"still here");
        assert!(house.attempt(&house.ca, Some(&bob)).is_err());
    });
}

#[test]
fn a_new_client_may_come_in_as_soon_as_its_addition_was_answered() {
    in_both(|isolation| {
        let house = House::new(isolation);
        let mut admin = house.connect();
        for round in 0..10 {
            let new = house.ca.client(&format!("new{round}"));
            house.echo.let_in(&new.certificate);
            admin.ask(SLOW, b"what an administrator asks is slow").unwrap();
            assert_eq!(house.attempt(&house.ca, Some(&new)).unwrap(), b"hello");
        }
    });
}

#[test]
fn the_list_of_clients_is_only_copied_when_it_changed() {
    in_both(|isolation| {
        let house = House::new(isolation);
        let mut admin = house.connect();
        admin.ask(SLOW, b"the first").unwrap();
        let before = house.echo.copied.load(SeqCst);
        for _ in 0..50 {
            admin.ask(SLOW, b"what changes nothing").unwrap();
        }
        thread::sleep(Duration::from_millis(300));
        assert_eq!(house.echo.copied.load(SeqCst), before);
        house.echo.let_in(&house.ca.client("new").certificate);
        admin.ask(SLOW, b"what changed something").unwrap();
        assert_eq!(house.echo.copied.load(SeqCst), before + 1);
    });
}

#[test]
fn what_is_not_a_request_ends_its_connection_and_no_other() {
    in_both(|isolation| {
        let house = House::with(isolation, |config| config.limits.frame_bytes = 1024);
        let mut other = house.connect();
        let header = |length, kind| Header { length, kind, call: QUICK, id: 1 }.encode().to_vec();
        let mut version = header(0, Kind::Request);
        version[4] = 9;
        let mut kind = header(0, Kind::Request);
        kind[5] = 9;
        for bytes in [
            header(1025, Kind::Request),
            header(u32::MAX, Kind::Request),
            header(0, Kind::Reply),
            header(0, Kind::Fault),
            version,
            kind,
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        ] {
            let mut client = house.connect();
            client.tls.write_all(&bytes).unwrap();
            client.wait_for_end().unwrap();
            assert_eq!(other.ask(QUICK, b"undisturbed").unwrap(), b"undisturbed");
        }
        // Cut off within a frame.
        let mut client = house.connect();
        client.tls.write_all(&header(100, Kind::Request)).unwrap();
        client.tls.conn.send_close_notify();
        client.tls.flush().unwrap();
        client.wait_for_end().unwrap();
        // Not even TLS.
        let mut plain = TcpStream::connect(house.address()).unwrap();
        plain.write_all(&[0x55; 300]).unwrap();
        plain.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut answer = Vec::new();
        // An alert or a reset, but an end.
        assert!(
            plain.read_to_end(&mut answer).map_or_else(|e| e.kind() != io::ErrorKind::WouldBlock, |_| true)
        );
        assert_eq!(other.ask(QUICK, b"undisturbed").unwrap(), b"undisturbed");
        assert_eq!(house.echo.handled.load(SeqCst), 8);
    });
}

#[test]
fn a_call_that_the_vault_does_not_know_ends_its_connection_and_no_other() {
    in_both(|isolation| {
        let house = House::new(isolation);
        let mut other = house.connect();
        for call in [UNKNOWN, UNKNOWN_SLOW] {
            let mut client = house.connect();
            assert_eq!(client.ask(QUICK, b"known").unwrap(), b"known");
            client.send(call, b"what is this?").unwrap();
            client.wait_for_end().unwrap();
            assert_eq!(other.ask(QUICK, b"undisturbed").unwrap(), b"undisturbed");
        }
        assert_eq!(house.echo.handled.load(SeqCst), 4);
    });
}

#[test]
fn slow_clients_are_cut_off() {
    let house = House::with(Isolation::Process, |config| {
        config.limits.frame_seconds = 1;
        config.limits.handshake_seconds = 1;
        config.limits.idle_seconds = 3;
    });
    let start = Instant::now();
    let mut dribbling = house.connect();
    dribbling.tls.write_all(&[0; 3]).unwrap();
    let mut idle = house.connect();
    let mut silent = TcpStream::connect(house.address()).unwrap();
    silent.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    dribbling.wait_for_end().unwrap();
    assert_eq!(silent.read(&mut [0; 9]).unwrap(), 0);
    assert!(start.elapsed() >= Duration::from_secs(1));
    idle.wait_for_end().unwrap();
    assert!(start.elapsed() >= Duration::from_secs(3));
    // Neither is a slow vault a slow client.
    let mut patient = house.connect();
    *house.echo.slowness.lock().unwrap() = Duration::from_secs(4);
    assert_eq!(patient.ask(SLOW, b"x").unwrap(), b"x");
}

#[test]
fn no_more_connections_than_are_allowed() {
    let house = House::with(Isolation::Process, |config| config.limits.connections = 3);
    let mut clients: Vec<_> = (0..3).map(|_| house.connect()).collect();
    clients.iter_mut().for_each(|client| drop(client.ask(QUICK, b"in").unwrap()));
    assert!(house.attempt(&house.ca, Some(&house.alice)).is_err());
    drop(clients);
    eventually("places are free again", || house.attempt(&house.ca, Some(&house.alice)).is_ok());
}

#[test]
fn a_silent_crowd_keeps_nobody_out() {
    let house = House::with(Isolation::Process, |config| {
        config.limits.connections = 4;
        config.limits.handshake_seconds = 600;
    });
    let mut inside = house.connect();
    inside.ask(QUICK, b"in").unwrap();
    let mut silent: Vec<_> = (0..3).map(|_| TcpStream::connect(house.address()).unwrap()).collect();
    // One after the other takes the place of the one that waited longest; more of the crowd change nothing.
    for round in 0..3 {
        let mut client = house.connect();
        assert_eq!(client.ask(QUICK, b"me too").unwrap(), b"me too");
        let mut oldest = silent.remove(0);
        oldest.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        assert!(matches!(oldest.read(&mut [0; 9]), Ok(0)), "the oldest of round {round} is still there");
        drop(client);
        silent.extend((0..3).map(|_| TcpStream::connect(house.address()).unwrap()));
    }
    assert_eq!(inside.ask(QUICK, b"undisturbed").unwrap(), b"undisturbed");
}

#[test]
fn a_flood_of_refused_handshakes_is_a_trickle_on_record_and_none_is_forgotten() {
    in_both(|isolation| {
        let house = House::with(isolation, |config| config.lanes = 4);
        let mallory = house.ca.client("mallory");
        let start = Instant::now();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    (0..25).for_each(|_| assert!(house.attempt(&house.ca, Some(&mallory)).is_err()));
                });
            }
        });
        // "reason", "reason (7 more …)" or "7 more …".
        let counted = |reason: &str| {
            let before = reason.split(" more refusals").next().filter(|before| *before != reason);
            let more = before.and_then(|before| before.rsplit(['(', ' ']).next()?.parse().ok());
            more.unwrap_or(0) + u32::from(more.is_none() || reason.contains('('))
        };
        let sum = || house.echo.refusals().iter().map(|(_, reason)| counted(reason)).sum::<u32>();
        eventually("every refusal is on record, if only by number", || sum() == 100);
        let most = 20 + start.elapsed().as_secs() as usize;
        let records = house.echo.refusals().len();
        assert!(records <= most, "{records} records, at most {most}");
    });
}

#[test]
fn a_reply_that_could_not_be_written_down_is_not_sent() {
    in_both(|isolation| {
        let house = House::new(isolation);
        let mut client = house.connect();
        client.send(UNWRITABLE, b"secret").unwrap();
        client.wait_for_end().unwrap();
        assert_eq!(house.attempt(&house.ca, Some(&house.alice)).unwrap(), b"hello");
    });
}

#[test]
fn new_tls_files_are_taken_and_bad_ones_are_not() {
    let house = House::new(Isolation::Process);
    let served = |house: &House| {
        let mut client = house.connect();
        client.ask(QUICK, b"").unwrap();
        fingerprint(&client.tls.conn.peer_certificates().unwrap()[0])
    };
    let mut old = house.connect();
    old.ask(QUICK, b"").unwrap();
    let first = served(&house);
    // By itself, within a few seconds.
    let second = house.ca.write_server(house.folder.path());
    assert_ne!(first, second);
    eventually("the new certificate is served", || served(&house) == second);
    // A key that does not fit, then rubbish: the old ones stay.
    let key = house.folder.path().join("tls/server.key");
    let good = std::fs::read(&key).unwrap();
    for bad in [&b"rubbish"[..], &std::fs::read(house.folder.path().join("tls/ca.pem")).unwrap()] {
        std::fs::write(&key, bad).unwrap();
        house.front.reload();
        thread::sleep(Duration::from_millis(200));
        assert_eq!(served(&house), second);
    }
    std::fs::write(&key, good).unwrap();
    let third = house.ca.write_server(house.folder.path());
    house.front.reload();
    eventually("the newest certificate is served", || served(&house) == third);
    assert_eq!(old.ask(QUICK, b"undisturbed").unwrap(), b"undisturbed");
}

#[test]
fn stopping_finishes_what_is_in_flight() {
    in_both(|isolation| {
        let house = House::new(isolation);
        *house.echo.slowness.lock().unwrap() = Duration::from_millis(700);
        let (mut busy, mut idle) = (house.connect(), house.connect());
        idle.ask(QUICK, b"").unwrap();
        busy.ask(QUICK, b"").unwrap();
        busy.send(SLOW, b"in flight").unwrap();
        thread::sleep(Duration::from_millis(200));
        let address = house.address();
        thread::scope(|scope| {
            scope.spawn(|| house.front.stop());
            idle.wait_for_end().unwrap();
            assert_eq!(busy.receive().unwrap(), b"in flight");
            busy.wait_for_end().unwrap();
        });
        assert!(TcpStream::connect(address).is_err());
        house.keeper.close();
        assert!(house.echo.closed.load(Relaxed));
    });
}

#[test]
fn a_new_vault_takes_over_and_clients_wait_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Ca::new();
    ca.write_server(folder.path());
    let config = config(folder.path());
    let alice = ca.client("alice");
    let echo = Arc::new(Echo::default());
    echo.let_in(&alice.certificate);
    let front = Front::start(&config).unwrap();
    let keeper = Keeper::new(echo.clone(), &config).unwrap();
    let house = House { folder, ca, echo, front, keeper, alice };

    thread::scope(|scope| {
        // Before the vault is there, clients wait.
        let early = scope.spawn(|| house.attempt(&house.ca, Some(&house.alice)));
        thread::sleep(Duration::from_millis(200));
        assert!(!early.is_finished());
        let ends = house.link(Isolation::Process);
        assert_eq!(early.join().unwrap().unwrap(), b"hello");

        let mut client = house.connect();
        client.ask(QUICK, b"").unwrap();
        for end in &ends {
            end.shutdown(std::net::Shutdown::Both).unwrap();
        }
        client.wait_for_end().unwrap();
        // A client that came while the lanes were still going is sent away; it tries again, and then waits.
        let waiting = scope.spawn(|| {
            eventually("there is an answer", || house.attempt(&house.ca, Some(&house.alice)).is_ok());
        });
        thread::sleep(Duration::from_millis(200));
        assert!(!waiting.is_finished());
        house.link(Isolation::Process);
        waiting.join().unwrap();
    });
}
