//! The server's own certificate: renewed in time, renewed on demand, and never in the place of another CA's.

use std::{fs, path::PathBuf, sync::Arc};

use strongroom_server::{
    certificates::{self, Authority, pem},
    config::Tls,
    door::Door,
    platform::{Fake, Platform},
};
use strongroom_shared::{fault::FaultCode, message::*};

use crate::world::*;

const DAY: u64 = 86_400_000_000;

/// A world whose server has files.
struct House {
    world: World,
    tls: Tls,
    _folder: tempfile::TempDir,
}

impl House {
    /// With the certificate that the server was made with, good for 365 days, or with another CA's.
    fn new(of: impl FnOnce(&World, &[u8]) -> Vec<u8>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| -> PathBuf { folder.path().join(name) };
        let tls = Tls { certificate: file("server.pem"), key: file("server.key"), authority: file("ca.pem") };
        let (key, request) = certificates::request("server").unwrap();
        let mut platform = Fake::new(START, 1);
        platform.tls = tls.clone();
        let world = World::with(platform, request.clone());
        fs::write(&tls.certificate, &*pem("CERTIFICATE", &of(&world, &request))).unwrap();
        fs::write(&tls.key, &*pem("PRIVATE KEY", &key)).unwrap();
        Self { world, tls, _folder: folder }
    }

    fn shown(&self) -> Vec<u8> {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let pair = strongroom_identity::load(&self.tls.certificate, &self.tls.key, &provider).unwrap();
        pair.cert[0].to_vec()
    }

    fn now(&self) -> u64 {
        self.world.platform.now() / 1_000_000
    }
}

fn own(world: &World, _: &[u8]) -> Vec<u8> {
    world.server.clone()
}

fn renewals(records: &[AuditRecord]) -> Vec<(&str, Outcome)> {
    let mut renewals: Vec<_> = records.iter().filter(|record| record.act == "RenewServer").collect();
    renewals.sort_by_key(|record| record.sequence);
    renewals.iter().map(|record| (record.client.as_str(), record.outcome)).collect()
}

#[test]
fn a_clock_that_runs_ahead_for_a_moment_costs_no_certificate() {
    let house = House::new(own);
    let vault = house.world.vault();
    vault.tick().unwrap();
    let (first, listed) = (house.shown(), vault.admissions());
    assert!(listed.1.iter().all(|admission| !admission.revoked));
    let right = house.world.platform.now();

    house.world.platform.set_clock(right + 3000 * DAY);
    vault.tick().unwrap();
    let ahead = vault.admissions();
    assert!(ahead.0 > listed.0 && ahead.1.iter().all(|admission| admission.revoked), "their time is over");
    house.world.platform.set_clock(right);
    vault.tick().unwrap();
    let back = vault.admissions();
    assert!(back.0 > ahead.0, "the front is told");
    assert_eq!(back.1, listed.1);
    assert_eq!(house.shown(), first);

    // A clock that stays where it was set is believed.
    house.world.platform.set_clock(right + 300 * DAY);
    vault.tick().unwrap();
    assert_eq!(house.shown(), first);
    house.world.platform.pass(601_000_000);
    vault.tick().unwrap();
    assert_ne!(house.shown(), first);
}

#[test]
fn it_is_renewed_when_a_third_of_its_life_is_left_and_once() {
    let house = House::new(own);
    let vault = house.world.vault();
    let first = house.shown();
    house.world.platform.pass(240 * DAY);
    vault.tick().unwrap();
    assert_eq!(house.shown(), first);
    house.world.platform.pass(5 * DAY);
    vault.tick().unwrap();
    let second = house.shown();
    assert_ne!(second, first);
    assert_eq!(certificates::life(&second).unwrap().not_after, house.now() + 365 * 86_400);
    house.world.platform.pass(DAY);
    vault.tick().unwrap();
    assert_eq!(house.shown(), second);
    // The administrator's own certificate, of the same age, has not ended yet.
    assert_eq!(renewals(&house.world.records(&vault)), [("-", Outcome::Done)]);
}

#[test]
fn an_administrator_renews_it_now_and_for_as_long_as_it_says() {
    let house = House::new(own);
    let vault = house.world.vault();
    let admin = house.world.administrator(&vault);
    let renewed = house.world.ask(&vault, &admin, &RenewServer { days: Some(30) }).unwrap();
    assert_eq!(renewed.not_after, house.now() + 30 * 86_400);
    assert_eq!(renewed.fingerprint, certificates::fingerprint(&house.shown()));
    // Without a word on days, as long as the present one.
    let again = house.world.ask(&vault, &admin, &RenewServer { days: None }).unwrap();
    assert_eq!(again.not_after, renewed.not_after);
    let days = RenewServer { days: Some(4000) };
    assert_eq!(code(house.world.ask(&vault, &admin, &days)), FaultCode::ArgumentsBad);
    let expected = [("admin", Outcome::Done), ("admin", Outcome::Done), ("admin", Outcome::Failed)];
    assert_eq!(renewals(&house.world.records(&vault)), expected);

    let certificate = house.world.partition(&vault, "trading", "desk");
    let client = house.world.connect(&vault, &certificate, 1);
    assert_eq!(code(house.world.ask(&vault, &client, &RenewServer { days: None })), FaultCode::Forbidden);
}

#[test]
fn files_that_cannot_be_written_are_on_record_and_tried_again() {
    let house = House::new(own);
    let vault = house.world.vault();
    let key = fs::read(&house.tls.key).unwrap();
    fs::remove_file(&house.tls.key).unwrap();
    house.world.platform.pass(300 * DAY);
    vault.tick().unwrap();
    vault.tick().unwrap();
    // On record before the files were tried, and that they could not be written.
    let records = house.world.records(&vault);
    assert_eq!(renewals(&records), [("-", Outcome::Done), ("-", Outcome::Failed)]);
    let mut told: Vec<_> = records.iter().filter(|record| record.act == "RenewServer").collect();
    told.sort_by_key(|record| record.sequence);
    assert!(told[0].detail.starts_with("certificate "), "{told:?}");
    assert!(told[1].detail.contains(&told[0].detail), "{told:?}");
    fs::write(&house.tls.key, key).unwrap();
    house.world.platform.pass(DAY);
    vault.tick().unwrap();
    assert_eq!(renewals(&house.world.records(&vault)).last(), Some(&("-", Outcome::Done)));
    house.shown();
}

#[test]
fn an_administrator_is_told_that_the_files_cannot_be_written() {
    let house = House::new(own);
    let vault = house.world.vault();
    let admin = house.world.administrator(&vault);
    let shown = house.shown();
    fs::remove_file(&house.tls.key).unwrap();
    let renewed = house.world.ask(&vault, &admin, &RenewServer { days: None });
    assert_eq!(code(renewed), FaultCode::NotDurable);
    assert_eq!(strongroom_identity::read_certificates(&house.tls.certificate).unwrap()[0].to_vec(), shown);
    let expected = [("admin", Outcome::Done), ("admin", Outcome::Failed)];
    assert_eq!(renewals(&house.world.records(&vault)), expected);
}

#[test]
fn another_cas_certificate_is_left_alone() {
    let house = House::new(|_, request| {
        let pair = Authority::create("Strongroom CA", START / 1_000_000, 365).unwrap();
        let other = Authority::load(&pair.certificate, &pair.key).unwrap();
        other.issue_server(request, &["localhost".into()], START / 1_000_000, 300).unwrap().certificate
    });
    let vault = house.world.vault();
    let shown = house.shown();
    house.world.platform.pass(290 * DAY);
    vault.tick().unwrap();
    let admin = house.world.administrator(&vault);
    let renewed = house.world.ask(&vault, &admin, &RenewServer { days: None });
    assert_eq!(code(renewed), FaultCode::ArgumentsBad);
    assert_eq!(house.shown(), shown);
}

#[test]
fn a_vault_opened_late_renews_at_once() {
    let house = House::new(own);
    let first = house.shown();
    house.world.platform.pass(350 * DAY);
    let vault: Arc<dyn Door> = Arc::new(house.world.vault());
    vault.tick().unwrap();
    assert_ne!(house.shown(), first);
}

#[test]
fn a_machine_that_starts_with_a_clock_far_ahead_costs_no_certificate() {
    let house = House::new(own);
    let first = house.shown();
    house.world.platform.pass(DAY);
    let right = house.world.platform.now();
    house.world.platform.boot(right + 400 * DAY);
    house.world.vault().tick().unwrap();
    // The vault starts twice, as it does after a mishap.
    let vault = house.world.vault();
    vault.tick().unwrap();
    house.world.platform.pass(500_000_000);
    vault.tick().unwrap();
    house.world.platform.set_clock(right);
    vault.tick().unwrap();
    house.world.platform.pass(601_000_000);
    vault.tick().unwrap();
    assert_eq!(house.shown(), first);
    // It truly was off for long.
    house.world.platform.boot(right + 400 * DAY);
    let vault = house.world.vault();
    vault.tick().unwrap();
    assert_eq!(house.shown(), first);
    house.world.platform.pass(601_000_000);
    vault.tick().unwrap();
    assert_ne!(house.shown(), first);
}

#[test]
fn clients_are_not_renewed_by_a_clock_that_is_not_believed() {
    let world = World::new();
    let certificate = {
        let vault = world.vault();
        world.desk(&vault).0
    };
    world.platform.boot(START + 25 * DAY);
    let vault = world.vault();
    let client = world.connect(&vault, &certificate, 1);
    let hello = || Hello { minor: 0, client: "test".into() };
    assert_eq!(world.ask(&vault, &client, &hello()).unwrap().renew_in, Some(600));
    let renew = || RenewCertificate { request: certificates::request("x").unwrap().1 };
    assert_eq!(code(world.ask(&vault, &client, &renew())), FaultCode::Unavailable);
    world.platform.pass(600_000_000);
    assert_eq!(world.ask(&vault, &client, &hello()).unwrap().renew_in, Some(0));
    world.ask(&vault, &client, &renew()).unwrap();
}
