//! Who a client is: what a login, a name and a certificate are bound to.

use strongroom_server::{
    certificates,
    door::{Door, Pace},
    platform::Fake,
    vault::Vault,
};
use strongroom_shared::{fault::FaultCode, message::*};

use crate::world::*;

fn revoke(world: &World, vault: &Vault<Fake>) {
    world.ask(vault, &world.administrator(vault), &RevokeClient { name: "desk".into() }).unwrap();
}

#[test]
fn a_later_client_of_the_same_name_has_nothing_of_the_earlier() {
    let world = World::new();
    let vault = world.vault();
    let (_, first) = world.desk(&vault);
    let key = world.ask(&vault, &first, &ec_pair("k")).unwrap().private.id;
    revoke(&world, &vault);
    assert_eq!(code(world.ask(&vault, &first, &sign(key))), FaultCode::Forbidden);

    let certificate = world.client(&vault, "trading", "desk", 30);
    let mut second = world.connect(&vault, &certificate, 1);
    second.caller.ticket = first.caller.ticket;
    assert_eq!(code(world.ask(&vault, &second, &sign(key))), FaultCode::TicketExpired);
    world.login(&vault, &mut second, User::Normal, USER_PIN).unwrap();
    world.ask(&vault, &second, &sign(key)).unwrap();
}

/// Shows another ticket from here on.
fn renew(world: &World, vault: &Vault<Fake>, client: &mut Client) -> Result<(), FaultCode> {
    let renewed = world.ask(vault, client, &RenewTicket {}).map_err(|fault| fault.code)?;
    assert_eq!(renewed.life, Some(3600));
    client.caller.ticket = Some(renewed.ticket);
    Ok(())
}

const HOUR: u64 = 3_600_000_000;

#[test]
fn a_login_in_use_lasts_by_renewed_tickets_over_restarts() {
    let world = World::new();
    let mut vault = world.vault();
    let (certificate, mut client) = world.desk(&vault);
    let key = world.ask(&vault, &client, &ec_pair("k")).unwrap().private.id;
    for _ in 0..72 {
        world.platform.pass(HOUR / 2);
        renew(&world, &vault, &mut client).unwrap();
        world.ask(&vault, &client, &sign(key)).unwrap();
        drop(vault);
        vault = world.vault();
        client.peer = world.connect(&vault, &certificate, 1).peer;
    }
    let renewals = world.records(&vault).iter().filter(|record| record.act == "RenewTicket").count();
    assert_eq!(renewals, 72);
}

#[test]
fn a_login_may_lie_idle_for_a_while_but_its_expired_ticket_does_nothing_else() {
    let world = World::new();
    let vault = world.vault();
    let (_, mut client) = world.desk(&vault);
    let key = world.ask(&vault, &client, &ec_pair("k")).unwrap().private.id;
    world.platform.pass(24 * HOUR);
    assert_eq!(code(world.ask(&vault, &client, &sign(key))), FaultCode::TicketExpired);
    renew(&world, &vault, &mut client).unwrap();
    world.ask(&vault, &client, &sign(key)).unwrap();
    world.platform.pass(25 * HOUR);
    assert_eq!(renew(&world, &vault, &mut client), Err(FaultCode::TicketExpired));
    client.caller.ticket = None;
    assert_eq!(renew(&world, &vault, &mut client), Err(FaultCode::NotLoggedIn));
}

#[test]
fn a_logout_ends_every_ticket_of_the_login_and_no_other_login() {
    let world = World::new();
    let vault = world.vault();
    let (certificate, mut client) = world.desk(&vault);
    let mut other = world.connect(&vault, &certificate, 2);
    world.login(&vault, &mut other, User::Normal, USER_PIN).unwrap();
    let first = client.caller.ticket.clone();
    renew(&world, &vault, &mut client).unwrap();
    world.ask(&vault, &client, &Logout {}).unwrap();
    assert_eq!(renew(&world, &vault, &mut client), Err(FaultCode::TicketExpired));
    client.caller.ticket = first;
    assert_eq!(code(world.ask(&vault, &client, &ec_pair("k"))), FaultCode::TicketExpired);
    renew(&world, &vault, &mut other).unwrap();
}

#[test]
fn a_new_pin_and_a_revocation_end_a_login_for_renewal_too() {
    let world = World::new();
    let vault = world.vault();
    let (certificate, mut client) = world.desk(&vault);
    let mut other = world.connect(&vault, &certificate, 2);
    world.login(&vault, &mut other, User::Normal, USER_PIN).unwrap();
    let change = SetPin { old: Pin::new(USER_PIN), new: Pin::new(b"4321") };
    client.caller.ticket = world.ask(&vault, &client, &change).unwrap().ticket;
    assert_eq!(renew(&world, &vault, &mut other), Err(FaultCode::TicketExpired));
    renew(&world, &vault, &mut client).unwrap();
    revoke(&world, &vault);
    assert_eq!(renew(&world, &vault, &mut client), Err(FaultCode::Forbidden));
}

/// Has the client's certificate renewed.
fn renew_certificate(world: &World, vault: &Vault<Fake>, client: &Client) -> Result<Vec<u8>, FaultCode> {
    let (_, request) = certificates::request("anything").unwrap();
    let renewed =
        world.ask(vault, client, &RenewCertificate { request }).map_err(|fault| fault.code)?.certificate;
    Ok(pem::parse(renewed).unwrap().into_contents())
}

/// Until the vault of a machine that has just started makes certificates by its clock.
fn settle(world: &World) {
    world.platform.pass(600_000_000);
}

fn hello() -> Hello {
    Hello { minor: 0, client: "test".into() }
}

const DAY: u64 = 24 * HOUR;
const ADDRESS: ([u8; 4], u16) = ([127, 0, 0, 1], 7);

#[test]
fn a_client_is_told_in_time_and_keeps_everything_under_its_new_certificate() {
    let world = World::new();
    let vault = world.vault();
    let (certificate, mut client) = world.desk(&vault);
    let in_days = |client: &Client| world.ask(&vault, client, &hello()).unwrap().renew_in.unwrap() / 86_400;
    assert_eq!(in_days(&client), 20);
    world.platform.pass(21 * DAY);
    assert_eq!(in_days(&client), 0);
    world.login(&vault, &mut client, User::Normal, USER_PIN).unwrap();
    let session_key = {
        let mut pair = ec_pair("session");
        for template in [&mut pair.public, &mut pair.private] {
            template.set(pkcs11_sys::CKA_TOKEN, strongroom_shared::object::Value::Bool(false));
        }
        world.ask_as(&vault, &client, 4711, &pair).unwrap().private.id
    };

    let renewed = renew_certificate(&world, &vault, &client).unwrap();
    assert_ne!(renewed, certificate);
    assert_eq!(certificates::identity(&renewed).unwrap(), certificates::identity(&certificate).unwrap());
    assert_eq!(certificates::life(&renewed).unwrap().days(), 30);
    // The same application, over a connection by the new certificate: ticket, session object and kept answer.
    let after = Client { peer: world.connect(&vault, &renewed, 1).peer, caller: client.caller.clone() };
    assert_eq!(in_days(&after), 20);
    world.ask(&vault, &after, &sign(session_key)).unwrap();
    let again = world.ask_as(&vault, &after, 4711, &ec_pair("other")).unwrap_err();
    assert_eq!(again.code, FaultCode::Malformed, "the number was another request's");
    let acts = world.records(&vault);
    let acts: Vec<_> = acts.iter().filter(|record| record.act == "RenewCertificate").collect();
    assert_eq!(acts.len(), 1);
    assert!(acts[0].detail.contains("until 2026-02-25"), "{}", acts[0].detail);
}

#[test]
fn the_old_certificate_is_good_until_a_while_after_the_new_one_was_shown() {
    let world = World::new();
    let vault = world.vault();
    let (old, client) = world.desk(&vault);
    world.platform.pass(21 * DAY);
    let new = renew_certificate(&world, &vault, &client).unwrap();
    world.platform.pass(DAY);
    assert!(vault.admit(&old, ADDRESS.into()).is_ok());
    let client = world.connect(&vault, &new, 1);
    world.ask(&vault, &client, &hello()).unwrap();
    assert!(vault.admit(&old, ADDRESS.into()).is_ok());
    vault.tick().unwrap();
    let before = vault.admissions().0;
    world.platform.pass(HOUR / 4);
    vault.tick().unwrap();
    let (after, list) = vault.admissions();
    assert!(after > before, "the front is told");
    let old_one = list.iter().find(|known| known.fingerprint == certificates::fingerprint(&old)).unwrap();
    assert!(old_one.revoked);
    assert!(vault.admit(&old, ADDRESS.into()).is_err());
    drop(vault);
    let vault = world.vault();
    assert!(vault.admit(&old, ADDRESS.into()).is_err());
    assert!(vault.admit(&new, ADDRESS.into()).is_ok());
}

#[test]
fn a_certificate_that_was_made_and_lost_is_forgotten_by_the_next_renewal() {
    let world = World::new();
    let vault = world.vault();
    settle(&world);
    let (_, client) = world.desk(&vault);
    let lost = renew_certificate(&world, &vault, &client).unwrap();
    let kept = renew_certificate(&world, &vault, &client).unwrap();
    assert!(vault.admit(&lost, ADDRESS.into()).is_err());
    // And what has ended long ago goes too: the list does not grow with every renewal.
    let mut client = world.connect(&vault, &kept, 1);
    for _ in 0..20 {
        world.ask(&vault, &client, &hello()).unwrap();
        world.platform.pass(21 * DAY);
        let renewed = renew_certificate(&world, &vault, &client).unwrap();
        client = world.connect(&vault, &renewed, 1);
    }
    let clients = vault.admissions().1.len();
    assert_eq!(clients, 3, "the administrator's, the present one and the one before");
}

#[test]
fn who_was_frozen_revoked_or_is_too_late_cannot_renew() {
    let world = World::new();
    let vault = world.vault();
    settle(&world);
    let (_, client) = world.desk(&vault);
    let admin = world.administrator(&vault);
    let partition = || String::from("trading");
    world.ask(&vault, &admin, &Freeze { partition: partition(), key: None }).unwrap();
    assert_eq!(renew_certificate(&world, &vault, &client), Err(FaultCode::Frozen));
    world.ask(&vault, &admin, &Thaw { partition: partition(), key: None }).unwrap();
    // Whoever is revoked is so under every certificate.
    let renewed = renew_certificate(&world, &vault, &client).unwrap();
    let under_new = world.connect(&vault, &renewed, 1);
    revoke(&world, &vault);
    for client in [&client, &under_new] {
        assert_eq!(renew_certificate(&world, &vault, client), Err(FaultCode::Forbidden));
    }
    let late = world.connect(&vault, &world.client(&vault, "trading", "late", 30), 1);
    world.platform.pass(30 * DAY);
    assert_eq!(renew_certificate(&world, &vault, &late), Err(FaultCode::Forbidden));
    let refused = RenewCertificate { request: b"no request".to_vec() };
    assert_eq!(code(world.ask(&vault, &world.administrator(&vault), &refused)), FaultCode::ArgumentsBad);
}

#[test]
fn an_administrator_renews_its_certificate_and_still_administers() {
    let world = World::new();
    let vault = world.vault();
    world.platform.pass(300 * DAY);
    let renewed = renew_certificate(&world, &vault, &world.administrator(&vault)).unwrap();
    let admin = world.connect(&vault, &renewed, 0);
    world.ask(&vault, &admin, &hello()).unwrap();
    assert_eq!(world.ask(&vault, &admin, &ListClients {}).unwrap().clients.len(), 2);
}

#[test]
fn a_client_has_few_certificates_made_in_an_hour_and_is_told_so() {
    let world = World::new();
    let vault = world.vault();
    settle(&world);
    let (_, client) = world.desk(&vault);
    let other = world.connect(&vault, &world.client(&vault, "trading", "other", 30), 1);
    for _ in 0..8 {
        renew_certificate(&world, &vault, &client).unwrap();
    }
    assert_eq!(renew_certificate(&world, &vault, &client), Err(FaultCode::PolicyRefused));
    renew_certificate(&world, &vault, &other).unwrap();
    world.platform.pass(HOUR);
    renew_certificate(&world, &vault, &client).unwrap();
}

#[test]
fn a_new_certificates_first_hello_is_not_for_the_quick() {
    let world = World::new();
    let vault = world.vault();
    settle(&world);
    let (_, client) = world.desk(&vault);
    let renewed = world.connect(&vault, &renew_certificate(&world, &vault, &client).unwrap(), 1);
    let mut frame = Vec::new();
    strongroom_shared::wire::encode_request(&mut frame, 1, &Caller::default(), &hello());
    assert_eq!(vault.pace(&client.peer, &frame), Pace::Quick);
    assert_eq!(vault.pace(&renewed.peer, &frame), Pace::Slow);
    world.ask(&vault, &renewed, &hello()).unwrap();
    assert_eq!(vault.pace(&renewed.peer, &frame), Pace::Quick);
}

#[test]
fn requests_of_no_application_never_fill_what_is_kept() {
    let world = World::new();
    let vault = world.vault();
    settle(&world);
    let (certificate, _) = world.desk(&vault);
    let nobody = Client { peer: world.connect(&vault, &certificate, 0).peer, caller: Caller::default() };
    for _ in 0..1600 {
        let malformed = RenewCertificate { request: b"no request".to_vec() };
        let refused = world.ask(&vault, &nobody, &malformed).unwrap_err();
        assert!(matches!(refused.code, FaultCode::ArgumentsBad | FaultCode::PolicyRefused), "{refused}");
    }
    world.platform.pass(HOUR);
    renew_certificate(&world, &vault, &nobody).unwrap();
}
