//! A node that was started anew: what the others write to it in sessions that it does not know.

use super::*;
use strongroom_shared::fault::FaultCode;

#[test]
fn a_signature_survives_that_a_node_was_started_anew_though_nobody_has_noticed_yet() {
    let mut house = House::new(3);
    let made = house.generate(0, &Kind::K1.wish(3, 3)).unwrap();
    for restarted in [2, 1, 2] {
        house.sign(0, Kind::K1, made.private.id, MESSAGE).unwrap();
        house.restart(restarted);
        let signature = house.sign(0, Kind::K1, made.private.id, MESSAGE);
        let signature = signature.unwrap_or_else(|fault| panic!("{restarted}: {fault}"));
        house.check(0, Kind::K1, made.public.id, &signature);
    }
    let records = house.nodes[2].records("SealedCall");
    let told = |record: &AuditRecord| record.detail.contains("in a session that has ended");
    assert!(!records.iter().any(told), "it is of the act that it was for: {records:?}");
    let records = house.nodes[2].records("SignShared");
    assert!(records.iter().any(told), "{records:?}");
}

#[test]
fn what_is_not_tried_again_by_itself_says_that_trying_again_helps() {
    let mut house = House::new(3);
    house.generate(0, &Kind::K1.wish(2, 3)).unwrap();
    house.restart(2);
    let fault = house.generate(0, &Kind::K1.wish(2, 3)).unwrap_err();
    assert_eq!(fault.code, FaultCode::QuorumMissing, "{fault}");
    for hint in
        ["node b wrote to this node in a session that has ended", "it has been told", "trying again helps"]
    {
        assert!(fault.detail.contains(hint), "{hint}: {fault}");
    }
    house.generate(0, &Kind::K1.wish(2, 3)).unwrap();
}
