//! `hsmctl key approve`: lists the orders that wait at a node, and signs one of them.

use std::path::Path;

use clap::Args;
use strongroom_shared::message::{ListOrders, WaitingOrder};

use super::{
    client::Connection,
    error::CtlError,
    manage::told,
    output::{Cell, For, Format, Table, hex},
    shares::{Known, sign},
    signers::Signers,
};
use crate::{
    certificates::fingerprint,
    cluster::order::{Order, OrderRefusal},
};

#[derive(Debug, Args)]
pub struct Approve {
    /// The order, by its first digits as the list shows them; without it the orders are listed that wait at this node.
    order: Option<String>,
    #[command(flatten)]
    signers: Signers,
}

const WAITING: &[(&str, For)] = &[
    ("order", For::All),
    ("partition", For::All),
    ("key", For::All),
    ("act", For::All),
    ("signed_by", For::All),
    ("needed", For::All),
    ("expires", For::All),
    ("trouble", For::All),
];

/// An order as it is listed: one that cannot be read keeps nobody from the others.
fn row(digits: &str, order: Result<Order, OrderRefusal>, one: WaitingOrder) -> Vec<Cell> {
    let digits = Cell::text(digits.get(..16).unwrap_or(digits));
    let (signed_by, needed) = (Cell::text(one.signed_by.join(", ")), Cell::Number(one.needed.into()));
    match order {
        Ok(order) => vec![
            digits,
            Cell::text(order.partition),
            Cell::text(order.key.to_string()),
            Cell::text(order.act.to_string()),
            signed_by,
            needed,
            Cell::seconds(order.expires),
            one.trouble.map_or(Cell::Empty, Cell::text),
        ],
        Err(refusal) => {
            let trouble = Cell::text(refusal.to_string());
            vec![digits, Cell::Empty, Cell::Empty, Cell::Empty, signed_by, needed, Cell::Empty, trouble]
        }
    }
}

impl Approve {
    /// `hsmctl key approve`
    ///
    /// # Errors
    /// As [`Target::refresh`]; also if no order begins so, or more than one.
    pub fn run(&self, folder: &Path, server: &mut Connection, format: Format) -> Result<(), CtlError> {
        let waiting = server.call(&ListOrders {})?.orders;
        let read = waiting
            .into_iter()
            .map(|one| (hex(&fingerprint(&one.order)), Order::from_bytes(&one.order), one));
        let Some(wanted) = &self.order else {
            let rows = read.map(|(digits, order, one)| row(&digits, order, one));
            return told(Table::new(WAITING).rows(rows).print(format));
        };
        let found: Vec<_> = read.filter(|(digits, ..)| digits.starts_with(wanted)).collect();
        let [(_, order, one)] = found.as_slice() else {
            return Err(CtlError::new(format!(
                "{} orders that begin with {wanted} wait at this node",
                found.len()
            ))
            .advise("`hsmctl key approve` without it lists them"));
        };
        let order = order.as_ref().map_err(|refusal| CtlError::new(refusal.to_string()))?;
        let known = Known::of(folder, server, (&order.partition, order.key), &self.signers)?;
        let of_it = order.cluster == known.membership.cluster
            && order.epoch == known.shares.epoch.unwrap_or_default();
        if !of_it {
            return Err(CtlError::new("the order is about other shares than those that there are"));
        }
        sign(folder, server, &self.signers, (&known, order), one.order.clone(), format)
    }
}
