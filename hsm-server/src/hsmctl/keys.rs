//! Keys, as an administrator sees them.

use clap::Subcommand;
use strongroom_shared::message::{KeyInfo, ListKeys, ListWaiting};

use super::{
    approve,
    client::Connection,
    error::CtlError,
    generate::Generate,
    manage::told,
    output::{Cell, For, Format, Table},
    shares,
};

/// `hsmctl key`
#[derive(Debug, Subcommand)]
pub enum Key {
    /// Lists a partition's token keys; never their values.
    List {
        /// The partition's name.
        partition: String,
        /// Lists the shares instead that wait at this node until every node has said that it holds its own.
        #[arg(long)]
        waiting: bool,
    },
    /// Makes a key pair, as an application: for what other programs cannot ask for, such as a key that several nodes
    /// share.
    Generate(Generate),
    /// Gives every node another share of a key, so that stolen ones are worth nothing; the key stays the same.
    Refresh(shares::Target),
    /// Gives a share again to a node that has lost its own, or was put back to an old copy.
    Repair(shares::Repair),
    /// Has other nodes hold the shares of a key, or another number of them sign.
    Reshare(shares::Reshare),
    /// Turns a private key that this server alone holds into shares; it forgets the key.
    Share(shares::Reshare),
    /// Gives up a new key of which shares wait, if no node has it in use; every node that may hold one must answer.
    Abandon(shares::Target),
    /// Lists what other administrators have ordered at this node, or signs one of it too.
    Approve(approve::Approve),
}

const KEYS: &[(&str, For)] = &[
    ("id", For::All),
    ("class", For::All),
    ("type", For::All),
    ("bits", For::All),
    ("label", For::All),
    ("cka_id", For::All),
    ("shares", For::All),
    ("descends", For::All),
    ("frozen", For::All),
    ("private", For::Machines),
    ("size", For::Machines),
];

fn key_row(key: KeyInfo) -> Vec<Cell> {
    let KeyInfo { object, label, id, frozen, descent } = key;
    let shares = object.shares.map(|shares| format!("{} of {}", shares.threshold, shares.parties));
    vec![
        Cell::text(object.id.to_string()),
        Cell::text(class(object.class)),
        object.key_type.map_or(Cell::Empty, |kind| Cell::text(key_type(kind))),
        Cell::Number(object.bits.into()),
        Cell::text(label),
        Cell::bytes(&id),
        shares.map_or(Cell::Empty, Cell::text),
        descent.map_or(Cell::Empty, |descent| Cell::text(descent.to_string())),
        Cell::Flag(frozen),
        Cell::Flag(object.private),
        Cell::Number(object.size.into()),
    ]
}

fn class(class: u64) -> String {
    match class {
        pkcs11_sys::CKO_PUBLIC_KEY => "public".into(),
        pkcs11_sys::CKO_PRIVATE_KEY => "private".into(),
        pkcs11_sys::CKO_SECRET_KEY => "secret".into(),
        other => format!("{other:#x}"),
    }
}

fn key_type(kind: u64) -> String {
    match kind {
        pkcs11_sys::CKK_RSA => "RSA".into(),
        pkcs11_sys::CKK_EC => "EC".into(),
        pkcs11_sys::CKK_EC_EDWARDS => "Edwards".into(),
        pkcs11_sys::CKK_AES => "AES".into(),
        pkcs11_sys::CKK_GENERIC_SECRET => "generic".into(),
        other => format!("{other:#x}"),
    }
}

/// `hsmctl key list`
///
/// # Errors
/// The server refused or cannot be reached.
pub fn list(partition: &str, server: &mut Connection, format: Format) -> Result<(), CtlError> {
    let keys = server.call(&ListKeys { partition: partition.into() })?.keys;
    told(Table::new(KEYS).rows(keys.into_iter().map(key_row)).print(format))
}

const WAITING: &[(&str, For)] = &[
    ("key", For::All),
    ("epoch", For::All),
    ("label", For::All),
    ("made_by", For::All),
    ("since", For::All),
    ("new", For::All),
];

/// `hsmctl key list --waiting`
///
/// # Errors
/// The server refused or cannot be reached.
pub fn list_waiting(partition: &str, server: &mut Connection, format: Format) -> Result<(), CtlError> {
    let shares = server.call(&ListWaiting { partition: partition.into() })?.shares;
    let rows = shares.into_iter().map(|share| {
        vec![
            Cell::text(share.key.to_string()),
            Cell::Number(share.epoch),
            Cell::text(String::from_utf8_lossy(&share.label)),
            Cell::text(share.node),
            Cell::seconds(share.since),
            Cell::Flag(share.new),
        ]
    });
    told(Table::new(WAITING).rows(rows).print(format))
}
