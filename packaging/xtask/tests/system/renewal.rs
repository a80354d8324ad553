//! Certificates that are near their end: server and client renew theirs while an application signs.

use std::{fs, path::Path, sync::Arc, thread, time::Duration};

use strongroom_identity::PairError;
use strongroom_server::{
    audit::{Durability, FileSink},
    config::Config,
    crypto::Random,
    door::{Door, Verdict},
    platform::{Host, Platform, Time},
    store::{root_key, sqlite::Sqlite},
    vault::{Settings, Vault},
};
use strongroom_shared::{
    message::{AddClient, Caller, RenewServer},
    wire::{Call, HEADER, decode_body, encode_request},
};

use crate::support::*;

/// How long ago the certificates were made, in days; they are good for 30.
const AGO: u64 = 25;

/// This machine, that long ago.
struct Past(Host);

impl Platform for Past {
    type Store = Sqlite;
    type Sink = FileSink;

    fn now(&self) -> Time {
        self.0.now() - AGO * 86_400_000_000
    }

    fn uptime(&self) -> Time {
        self.0.uptime()
    }

    fn stir(&self, seed: &[u8]) {
        self.0.stir(seed);
    }

    fn server_certificate(&self) -> Result<Vec<u8>, PairError> {
        self.0.server_certificate()
    }

    fn replace_server(&self, certificate: &str, key: &str) -> Result<(), PairError> {
        self.0.replace_server(certificate, key)
    }
}

impl Random for Past {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }
}

/// Opens a stopped server's vault as it was that long ago, and has it make a certificate for the server and one
/// for another client, whose folder is then the application's.
fn age(state: &Path, client: &Path) {
    let config = Config::load(&state.join("server.toml")).unwrap();
    let settings = Settings {
        names: config.names.clone(),
        frame_bytes: config.limits.frame_bytes,
        ticket_seconds: 60,
        idle_seconds: 60,
        durability: Durability::Power,
        isolation: "thread".into(),
        refresh_hours: 0,
    };
    let platform = Arc::new(Past(Host::new(&config.tls).unwrap()));
    let store = Sqlite::open(&config.state.join("store.db")).unwrap();
    let sink = FileSink::open(&config.state.join("audit")).unwrap();
    let key = root_key::read(&config.root_key.file).unwrap();
    let vault = Vault::open(platform, store, sink, key, settings).unwrap();
    let admin = strongroom_identity::read_certificates(&state.join("admin/client.pem")).unwrap();
    let peer = vault.admit(&admin[0], ([127, 0, 0, 1], 1).into()).unwrap();

    fn ask<C: Call>(
        vault: &Vault<Past>,
        peer: &strongroom_server::door::Peer,
        id: u64,
        call: &C,
    ) -> C::Reply {
        let (mut frame, mut reply) = (Vec::new(), Vec::new());
        encode_request(&mut frame, id, &Caller::default(), call);
        assert_eq!(vault.handle(peer, &frame, &mut reply), Verdict::Answered);
        decode_body(&reply[HEADER..]).unwrap()
    }
    ask(&vault, &peer, 1, &RenewServer { days: Some(30) });
    let made = strongroom_identity::request("old").unwrap();
    let (name, partition) = ("old".to_owned(), Some(PARTITION.to_owned()));
    let add = AddClient { name, partition, request: made.request, days: 30 };
    let added = ask(&vault, &peer, 2, &add);
    fs::write(client.join("client.pem"), added.certificate).unwrap();
    fs::write(client.join("client.key"), &*made.key_pem).unwrap();
    vault.commit().unwrap();
    vault.close();
}

/// How long until this machine's clock is believed: it has to have stood for 10 minutes since the machine was started.
fn until_believed() -> Duration {
    let text = fs::read_to_string("/proc/uptime").unwrap();
    let uptime: f64 = text.split_whitespace().next().unwrap().parse().unwrap();
    Duration::from_secs_f64((605.0 - uptime).max(0.0))
}

#[test]
fn server_and_client_renew_their_certificates_while_signing_goes_on() {
    let test = "renewal::server_and_client_renew_their_certificates_while_signing_goes_on";
    alone(test, Duration::from_secs(120) + until_believed(), |mut world| {
        thread::sleep(until_believed());
        let (state, client) = (world.state(), world.state().join(CLIENT));
        world.server.stop().unwrap();
        age(&state, &client);
        let read = |path: &Path| fs::read(path).unwrap();
        let old = (read(&state.join("tls/server.pem")), read(&client.join("client.pem")));
        world.server.start().unwrap();

        let application = world.application();
        let pair = generate(&application.session, b"kept", Place::Token).unwrap();
        thread::scope(|scope| {
            for _ in 0..4 {
                let (session, pair) = (application.session(), &pair);
                scope.spawn(move || (0..100).for_each(|_| assert_signs(&session, pair)));
            }
        });
        assert_ne!(read(&state.join("tls/server.pem")), old.0);
        assert_ne!(read(&client.join("client.pem")), old.1);
        let records = world.audit();
        let by = |act: &str| -> Vec<String> {
            let of = records.iter().filter(|record| record["act"] == act && record["outcome"] == "done");
            of.map(|record| record["client"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(by("RenewCertificate"), ["old"]);
        assert_eq!(by("RenewServer"), ["admin", "-"]);

        // Over a restart the application goes on under its new certificate, to the server's new one.
        world.kill_and_restart();
        (0..10).for_each(|_| assert_signs(&application.session, &pair));
        let records = world.audit();
        let certificate = |act: &str| {
            let last = records.iter().rev().find(|record| record["act"] == act);
            last.map(|record| record["certificate"].clone())
        };
        assert_ne!(
            certificate("RenewCertificate"),
            certificate("Sign"),
            "the old one asks, the new one signs"
        );
        assert_eq!(records.iter().filter(|record| record["act"] == "RenewCertificate").count(), 1);
    });
}
