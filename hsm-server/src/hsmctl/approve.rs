//! `hsmctl key approve`: lists the orders that wait at a node, and signs one of them.

use std::path::Path;

use clap::Args;
use strongroom_shared::message::ListOrders;

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

fn unreadable(refusal: &OrderRefusal) -> CtlError {
    CtlError::new(refusal.to_string())
}

impl Approve {
    /// `hsmctl key approve`
    ///
    /// # Errors
    /// As [`Target::refresh`]; also if no order begins so, or more than one.
    pub fn run(&self, folder: &Path, server: &mut Connection, format: Format) -> Result<(), CtlError> {
        let waiting = server.call(&ListOrders {})?.orders;
        let mut read = Vec::new();
        for one in waiting {
            let order = Order::from_bytes(&one.order).map_err(|refusal| unreadable(&refusal))?;
            read.push((hex(&fingerprint(&one.order)), order, one));
        }
        let Some(wanted) = &self.order else {
            let rows = read.into_iter().map(|(digits, order, one)| {
                vec![
                    Cell::text(digits.get(..16).unwrap_or(&digits)),
                    Cell::text(order.partition),
                    Cell::text(order.key.to_string()),
                    Cell::text(order.act.to_string()),
                    Cell::text(one.signed_by.join(", ")),
                    Cell::Number(one.needed.into()),
                    Cell::seconds(order.expires),
                    one.trouble.map_or(Cell::Empty, Cell::text),
                ]
            });
            return told(Table::new(WAITING).rows(rows).print(format));
        };
        let found: Vec<_> = read.into_iter().filter(|(digits, ..)| digits.starts_with(wanted)).collect();
        let [(_, order, one)] = found.as_slice() else {
            return Err(CtlError::new(format!(
                "{} orders that begin with {wanted} wait at this node",
                found.len()
            ))
            .advise("`hsmctl key approve` without it lists them"));
        };
        let known = Known::of(folder, server, (&order.partition, order.key), &self.signers)?;
        let of_it = order.cluster == known.membership.cluster
            && order.epoch == known.shares.epoch.unwrap_or_default();
        if !of_it {
            return Err(CtlError::new("the order is about other shares than those that there are"));
        }
        sign(folder, server, &self.signers, (&known, order), one.order.clone(), format)
    }
}
