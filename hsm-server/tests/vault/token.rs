//! PINs, lockout, tickets, and who may make which call.

use strongroom_shared::{fault::FaultCode, message::*};

use crate::world::*;

#[test]
fn a_token_is_initialised_and_its_user_logs_in() {
    let world = World::new();
    let vault = world.vault();
    let (_, client) = world.desk(&vault);
    let token = world.ask(&vault, &client, &ReadToken {}).unwrap();
    assert!(token.initialized && token.user_pin_set);
    assert_eq!((token.label.as_str(), token.serial.len()), ("desk", 16));
    world.ask(&vault, &client, &ec_pair("k")).unwrap();
}

#[test]
fn the_user_is_locked_after_ten_wrong_pins_and_the_counter_outlives_the_process() {
    let world = World::new();
    let mut vault = world.vault();
    let (certificate, mut client) = world.desk(&vault);
    for wrong in 1..=10 {
        assert_eq!(
            code(world.login(&vault, &mut client, User::Normal, b"0000")),
            FaultCode::PinIncorrect,
            "{wrong}"
        );
        if wrong == 5 {
            drop(vault);
            vault = world.vault();
            client = world.connect(&vault, &certificate, 1);
        }
        let user = world.ask(&vault, &client, &ReadToken {}).unwrap().user;
        let expected = match wrong {
            9 => Tries::Last,
            10 => Tries::None,
            _ => Tries::Some,
        };
        assert_eq!(user, expected, "{wrong}");
    }
    assert_eq!(code(world.login(&vault, &mut client, User::Normal, USER_PIN)), FaultCode::PinLocked);
    world.login(&vault, &mut client, User::SecurityOfficer, SO_PIN).unwrap();
    world.ask(&vault, &client, &InitPin { pin: Pin::new(USER_PIN) }).unwrap();
    world.login(&vault, &mut client, User::Normal, USER_PIN).unwrap();
}

#[test]
fn the_security_officer_is_locked_after_three() {
    let world = World::new();
    let vault = world.vault();
    let (_, mut client) = world.desk(&vault);
    for _ in 0..3 {
        assert_eq!(
            code(world.login(&vault, &mut client, User::SecurityOfficer, b"wrong")),
            FaultCode::PinIncorrect
        );
    }
    assert_eq!(code(world.login(&vault, &mut client, User::SecurityOfficer, SO_PIN)), FaultCode::PinLocked);
    let init = InitToken { pin: Pin::new(SO_PIN), label: "again".into() };
    assert_eq!(code(world.ask(&vault, &client, &init)), FaultCode::PinLocked);
}

#[test]
fn guesses_at_once_do_not_exceed_the_limit() {
    let world = World::new();
    let vault = world.vault();
    let (certificate, _) = world.desk(&vault);
    let incorrect: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|n| {
                let mut client = world.connect(&vault, &certificate, n);
                let (world, vault) = (&world, &vault);
                scope.spawn(move || code(world.login(vault, &mut client, User::Normal, b"0000")))
            })
            .collect();
        let codes = threads.into_iter().map(|thread| thread.join().unwrap());
        codes.filter(|code| *code == FaultCode::PinIncorrect).count()
    });
    assert_eq!(incorrect, 10);
}

#[test]
fn a_pin_change_ends_other_tickets_and_renews_the_callers() {
    let world = World::new();
    let vault = world.vault();
    let (certificate, mut client) = world.desk(&vault);
    let mut other = world.connect(&vault, &certificate, 2);
    world.login(&vault, &mut other, User::Normal, USER_PIN).unwrap();
    let change = SetPin { old: Pin::new(USER_PIN), new: Pin::new(b"5678") };
    client.caller.ticket = world.ask(&vault, &client, &change).unwrap().ticket;
    assert_eq!(code(world.ask(&vault, &other, &ec_pair("k"))), FaultCode::TicketExpired);
    world.ask(&vault, &client, &ec_pair("k")).unwrap();
    assert_eq!(code(world.login(&vault, &mut other, User::Normal, USER_PIN)), FaultCode::PinIncorrect);
    world.login(&vault, &mut other, User::Normal, b"5678").unwrap();
}

#[test]
fn a_ticket_expires() {
    let world = World::new();
    let vault = world.vault();
    let (_, mut client) = world.desk(&vault);
    world.platform.pass(3600 * 1_000_000);
    assert_eq!(code(world.ask(&vault, &client, &ec_pair("k"))), FaultCode::TicketExpired);
    world.login(&vault, &mut client, User::Normal, USER_PIN).unwrap();
    world.ask(&vault, &client, &ec_pair("k")).unwrap();
}

#[test]
fn everybody_makes_only_their_own_calls() {
    let world = World::new();
    let vault = world.vault();
    let (_, client) = world.desk(&vault);
    let admin = world.administrator(&vault);
    assert_eq!(code(world.ask(&vault, &client, &ListPartitions {})), FaultCode::Forbidden);
    assert_eq!(code(world.ask(&vault, &client, &InitPin { pin: Pin::new(b"9999") })), FaultCode::NotLoggedIn);
    assert_eq!(code(world.ask(&vault, &admin, &ReadToken {})), FaultCode::Forbidden);
    assert_eq!(code(world.ask(&vault, &admin, &ec_pair("k"))), FaultCode::Forbidden);
}

#[test]
fn pins_have_limits() {
    let world = World::new();
    let vault = world.vault();
    let (_, client) = world.desk(&vault);
    let change = |new: &[u8]| SetPin { old: Pin::new(USER_PIN), new: Pin::new(new) };
    assert_eq!(code(world.ask(&vault, &client, &change(b"123"))), FaultCode::PinLength);
    assert_eq!(code(world.ask(&vault, &client, &change(&[b'1'; 256]))), FaultCode::PinLength);
    assert_eq!(code(world.ask(&vault, &client, &change(b"\xff\xff\xff\xff"))), FaultCode::PinInvalid);
}

#[test]
fn a_new_initialisation_destroys_every_object() {
    let world = World::new();
    let vault = world.vault();
    let (certificate, mut client) = world.desk(&vault);
    let pair = world.ask(&vault, &client, &ec_pair("k")).unwrap();
    let init = InitToken { pin: Pin::new(SO_PIN), label: "new".into() };
    world.ask(&vault, &client, &init).unwrap();
    assert_eq!(code(world.ask(&vault, &client, &sign(pair.private.id))), FaultCode::TicketExpired);
    world.login(&vault, &mut client, User::SecurityOfficer, SO_PIN).unwrap();
    world.ask(&vault, &client, &InitPin { pin: Pin::new(USER_PIN) }).unwrap();
    drop(vault);
    let vault = world.vault();
    let mut client = world.connect(&vault, &certificate, 1);
    world.login(&vault, &mut client, User::Normal, USER_PIN).unwrap();
    assert_eq!(code(world.ask(&vault, &client, &sign(pair.private.id))), FaultCode::KeyHandleInvalid);
}

#[test]
fn a_new_user_pin_ends_the_users_tickets_and_not_the_officers() {
    let world = World::new();
    let vault = world.vault();
    let (certificate, client) = world.desk(&vault);
    let mut officer = world.connect(&vault, &certificate, 2);
    world.login(&vault, &mut officer, User::SecurityOfficer, SO_PIN).unwrap();
    world.ask(&vault, &officer, &InitPin { pin: Pin::new(b"9876") }).unwrap();
    assert_eq!(code(world.ask(&vault, &client, &ec_pair("k"))), FaultCode::TicketExpired);
    world.ask(&vault, &officer, &InitPin { pin: Pin::new(b"5432") }).unwrap();
}
