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
