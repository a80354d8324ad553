//! `hsmctl status`: how the server is, and its cluster and the keys that nodes share, as far as it knows.

use strongroom_shared::message::{ClusterStatus, MemberState, ReadStatus};

use super::{
    client::Connection,
    error::CtlError,
    manage::told,
    output::{Cell, For, Format, Table},
};

const STATUS: &[(&str, For)] = &[
    ("server", For::All),
    ("started", For::All),
    ("partitions", For::All),
    ("objects", For::All),
    ("session_objects", For::All),
    ("audit_records", For::All),
    ("isolation", For::All),
    ("commit", For::All),
    ("waiting_shares", For::All),
    ("certificate_not_after", For::All),
    ("cluster", For::All),
    ("cluster_version", For::All),
    ("node", For::All),
    ("nodes", For::All),
    ("nodes_well", For::All),
    ("nodes_not_well", For::All),
    ("shared_keys", For::All),
    ("former_shares_kept", For::All),
    ("shares_lost", For::All),
    ("keys_with_bans", For::All),
    ("new_keys_given_up", For::All),
    ("waiting_orders", For::All),
];

/// `hsmctl status`
///
/// # Errors
/// The server refused or cannot be reached.
pub fn tell(server: &mut Connection, format: Format) -> Result<(), CtlError> {
    let status = server.call(&ReadStatus {})?;
    let mut row = vec![
        Cell::text(status.server),
        Cell::seconds(status.started),
        Cell::Number(status.partitions),
        Cell::Number(status.objects),
        Cell::Number(status.session_objects),
        Cell::Number(status.audit_records),
        Cell::text(status.isolation),
        Cell::text(status.commit),
        Cell::Number(status.waiting_shares.unwrap_or_default()),
        Cell::seconds(server.certificate_end()),
    ];
    row.extend(status.cluster.iter().flat_map(of_cluster));
    // A server that is no node, or an older one, has nothing to say of a cluster.
    row.resize(STATUS.len(), Cell::Empty);
    told(Table::new(STATUS).row(row).print_one(format))
}

fn of_cluster(cluster: &ClusterStatus) -> [Cell; 12] {
    let ill: Vec<_> = cluster.ill.iter().map(trouble).collect();
    [
        Cell::bytes(&cluster.cluster),
        Cell::Number(cluster.version),
        Cell::text(&cluster.node),
        Cell::Number(cluster.nodes),
        Cell::Number(cluster.nodes.saturating_sub(cluster.ill.len() as u64)),
        Cell::text(ill.join("; ")),
        Cell::Number(cluster.shared_keys),
        Cell::Number(cluster.unproven),
        Cell::Number(cluster.lost),
        Cell::Number(cluster.banned),
        Cell::Number(cluster.given_up),
        Cell::Number(cluster.orders),
    ]
}

/// A node that is not well, and why, in words.
fn trouble(node: &MemberState) -> String {
    let why = match (node.trouble.as_str(), node.reachable) {
        ("", false) => "it has not been heard of yet",
        ("", true) => "its vault has not proved yet who it is",
        (trouble, _) => trouble,
    };
    format!("node {}: {why}", node.name)
}
