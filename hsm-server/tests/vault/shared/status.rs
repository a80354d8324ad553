//! What `hsmctl status` is told of the cluster and the keys that nodes share.

use strongroom_server::cluster::order::OrderedAct;

use super::{
    life::{ANN, BOB},
    *,
};

const ED: Kind = Kind::Ed25519;

impl House {
    /// What a node says of its cluster.
    pub fn cluster_status(&self, at: usize) -> Option<ClusterStatus> {
        let node = &self.nodes[at];
        node.world.ask(&node.vault, &node.admin(), &ReadStatus {}).unwrap().cluster
    }
}

#[test]
fn an_operator_sees_at_a_glance_which_nodes_are_well_and_what_waits() {
    let mut house = House::ruled(3, 2);
    let key = house.generate(0, &ED.wish(2, 3)).unwrap().private.id;
    house.generate(0, &Kind::Bip340.wish(2, 3)).unwrap();
    let said = house.cluster_status(0).unwrap();
    assert_eq!((said.cluster.as_slice(), said.version, said.node.as_str()), (&[7; 16][..], 2, "a"));
    assert_eq!((said.nodes, said.ill.len(), said.shared_keys), (3, 0, 2));
    assert_eq!((said.unproven, said.lost, said.banned, said.given_up, said.orders), (0, 0, 0, 0, 0));

    // One administrator has signed, and a node is away.
    let order = house.order(0, key, OrderedAct::Refresh);
    house.approve(0, &house.admin(0, ANN), &order, ANN).unwrap();
    house.cut_off(&["c"]);
    house.beat();
    let said = house.cluster_status(0).unwrap();
    assert_eq!((said.ill.len(), said.ill[0].name.as_str(), said.orders), (1, "c", 1));
    assert!(said.ill[0].trouble.contains("lost"), "{}", said.ill[0].trouble);
    assert_eq!(house.cluster_status(2).unwrap().ill.len(), 2);
    house.clear_up();
    house.beat();
    assert_eq!(house.cluster_status(0).unwrap().ill.len(), 0);

    // A node is put back to a copy from before a refresh.
    let before = house.copy(1);
    let bob = house.admin(0, BOB);
    house.approve(0, &bob, &order, BOB).unwrap();
    house.put_back(1, &before);
    house.beat();
    let said = house.cluster_status(1).unwrap();
    assert_eq!((said.shared_keys, said.lost), (2, 1));
    assert_eq!(house.cluster_status(0).unwrap().orders, 0);

    // One that is no node says nothing of any.
    let rest: Vec<&Node> = house.nodes.iter().skip(1).collect();
    let next = membership(3, &rest).sign(&[&administrator(ANN), &administrator(BOB)]).unwrap();
    house.nodes[0].install(&next).unwrap();
    assert!(house.cluster_status(0).is_none());
}
