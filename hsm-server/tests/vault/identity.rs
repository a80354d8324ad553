//! Who a client is: what a login, a name and a certificate are bound to.

use strongroom_shared::{fault::FaultCode, message::*};

use crate::world::*;

fn revoke(world: &World, vault: &strongroom_server::vault::Vault<strongroom_server::platform::Fake>) {
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
fn renew(
    world: &World,
    vault: &strongroom_server::vault::Vault<strongroom_server::platform::Fake>,
    client: &mut Client,
) -> Result<(), FaultCode> {
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
