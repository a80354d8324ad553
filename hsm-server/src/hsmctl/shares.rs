//! `hsmctl key share`, `refresh`, `repair`, `reshare` and `abandon`: what administrators order about the shares of a key.
//!
//! An order is signed with `cluster.key`, as membership documents are, and each signature goes to the node on its own
//! administrator's connection. What the node says of the key and of the cluster is believed as its vault's word only
//! ([`super::known`]).

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::SystemTime,
};

use clap::Args;
use strongroom_shared::{
    message::{OrderState, ReadShares, RenewShares, SharesRead},
    object::ObjectId,
};

use super::{
    client::Connection,
    cluster::in_force,
    error::CtlError,
    known::{introduce, read_shares},
    manage::told,
    output::{Cell, For, Format, Table, hex, note},
    signers::Signers,
};
use crate::{
    certificates::fingerprint,
    cluster::{
        Membership,
        order::{Order, OrderedAct, Seat},
    },
    crypto::threshold::Committee,
};

/// For how long an order may be carried out, in seconds: as long as other administrators may take to sign it.
const LIFE: u64 = 12 * 3600;

/// A shared key, and who orders something about it.
#[derive(Debug, Args)]
pub struct Target {
    /// The partition's name.
    partition: String,
    /// The private key, as `hsmctl key list` names it.
    #[arg(value_parser = key)]
    key: ObjectId,
    #[command(flatten)]
    signers: Signers,
}

#[derive(Debug, Args)]
pub struct Repair {
    #[command(flatten)]
    target: Target,
    /// The node that has lost its share, or that takes the seat of one that left the cluster.
    #[arg(long, value_name = "NAME")]
    node: String,
}

#[derive(Debug, Args)]
pub struct Reshare {
    #[command(flatten)]
    target: Target,
    /// How many nodes are to sign.
    #[arg(long, value_name = "COUNT")]
    threshold: u8,
    /// How many are to hold a share.
    #[arg(long, value_name = "COUNT")]
    parties: u8,
    /// Which ones; those that hold one now and then others, if not said. May be repeated.
    #[arg(long = "node", value_name = "NAME")]
    nodes: Vec<String>,
}

impl Reshare {
    /// The seats, of these nodes first.
    fn seats(&self, known: &Known, first: &[Seat]) -> Result<Vec<Seat>, CtlError> {
        Committee::new(self.threshold, self.parties).map_err(|refusal| {
            let asked = format!("--threshold {} --parties {}", self.threshold, self.parties);
            CtlError::new(format!("{asked}: {refusal}"))
        })?;
        let seats: Vec<Seat> = if self.nodes.is_empty() {
            let members: Vec<Seat> =
                known.membership.members.iter().map(|member| Seat(member.identity)).collect();
            let stay = first.iter().filter(|seat| members.contains(seat));
            let join = members.iter().filter(|seat| !first.contains(seat));
            stay.chain(join).take(self.parties.into()).copied().collect()
        } else {
            self.nodes.iter().map(|name| known.node(name)).collect::<Result<_, _>>()?
        };
        if seats.len() != usize::from(self.parties) {
            return Err(CtlError::new(format!(
                "--parties {}, and there are {} nodes to hold a share",
                self.parties,
                seats.len()
            )));
        }
        if seats.iter().collect::<BTreeSet<_>>().len() != seats.len() {
            return Err(CtlError::new("a node is named twice"));
        }
        Ok(seats)
    }

    /// `hsmctl key share`
    ///
    /// # Errors
    /// As [`Target::refresh`].
    pub fn share(&self, folder: &Path, server: &mut Connection, format: Format) -> Result<(), CtlError> {
        self.target.order(folder, server, format, |known| {
            if known.shares.epoch.is_some() {
                return Err(CtlError::new("this key is shared already").advise("see `hsmctl key reshare`"));
            }
            let here = known.shares.node.as_slice().try_into().map(Seat);
            let here =
                here.map_err(|_| CtlError::new("the server introduced itself with a malformed key"))?;
            let seats = self.seats(known, &[here])?;
            Ok(OrderedAct::Share { threshold: self.threshold, seats })
        })
    }
}

fn key(text: &str) -> Result<ObjectId, String> {
    text.parse().map_err(|_| "not a key's id: see `hsmctl key list PARTITION`".into())
}

const ORDERED: &[(&str, For)] = &[
    ("partition", For::All),
    ("key", For::All),
    ("act", For::All),
    ("order", For::All),
    ("signatures", For::All),
    ("needed", For::All),
    ("epoch", For::All),
    ("note", For::All),
];

/// What the vault has proved of its cluster and of a key.
pub(super) struct Known {
    pub membership: Membership,
    pub shares: SharesRead,
}

impl Known {
    /// Asks the vault, and checks what it says.
    ///
    /// # Errors
    /// It refused, or it is not the word of the vault that the folder knows.
    pub fn of(
        folder: &Path,
        server: &mut Connection,
        (partition, key): (&str, ObjectId),
        signers: &Signers,
    ) -> Result<Self, CtlError> {
        signers.check(folder)?;
        let said = introduce(folder, server, "key")?;
        let document = in_force(folder, server, &said, signers)?;
        let asked = ReadShares { partition: partition.into(), key, challenge: Vec::new() };
        let shares = read_shares(folder, server, asked)?;
        Ok(Self { membership: document.membership().clone(), shares })
    }

    fn seats(&self) -> Vec<Seat> {
        let seats = self.shares.seats.iter();
        seats.filter_map(|seat| <[u8; 32]>::try_from(seat.as_slice()).ok().map(Seat)).collect()
    }

    fn node(&self, name: &str) -> Result<Seat, CtlError> {
        let member = self.membership.members.iter().find(|member| member.name == name);
        member
            .map(|member| Seat(member.identity))
            .ok_or_else(|| CtlError::new(format!("no node {name}")).advise("see `hsmctl cluster list`"))
    }

    fn name(&self, Seat(node): &Seat) -> String {
        self.membership
            .member(node)
            .map_or_else(|| format!("one that left ({})", short(node)), |member| member.name.clone())
    }

    fn names(&self, seats: &[Seat]) -> String {
        seats.iter().map(|seat| self.name(seat)).collect::<Vec<_>>().join(", ")
    }

    /// What is ordered, for people.
    fn describe(&self, order: &Order) -> String {
        let Order { cluster, partition, key, epoch, nonce: _, expires, act, public_key } = order;
        let (t, seats) = (self.shares.threshold, self.seats());
        let mut lines = vec![
            format!("cluster {cluster}, partition {partition}, key {key}"),
            format!("  label        {}", String::from_utf8_lossy(&self.shares.label).escape_debug()),
            format!("  public key   {}", hex(public_key)),
            match self.shares.epoch {
                Some(_) => {
                    format!(
                        "  its shares   epoch {epoch}: {t} of {} sign: {}",
                        seats.len(),
                        self.names(&seats)
                    )
                }
                None if self.shares.waiting.is_some() => format!(
                    "  its shares   waiting for the word of all of {}; {t} would sign",
                    self.names(&seats)
                ),
                None => "  its shares   none: this node alone has it".into(),
            },
            match act {
                OrderedAct::Refresh => {
                    "refresh: every node gets another share, and erases the one it has".into()
                }
                OrderedAct::Repair { node } => format!(
                    "repair: node {} gets a share again, and every other node another one",
                    self.name(&Seat(*node))
                ),
                OrderedAct::Share { threshold, seats, .. } => format!(
                    "share: {threshold} of {} sign from then on: {}; this node forgets the key, and no copy of it is \
                     left but those that you have elsewhere",
                    seats.len(),
                    self.names(seats)
                ),
                OrderedAct::Abandon => {
                    "abandon: nodes drop what they have of this new key, and never take it again, unless one has it in \
                     use. Be sure that no application was given this public key"
                        .into()
                }
                OrderedAct::Reshare { threshold, seats } => format!(
                    "reshare: from then on {threshold} of {} sign: {}; nobody else has a share",
                    seats.len(),
                    self.names(seats)
                ),
            },
        ];
        if self.shares.public_key != public_key.as_slice() {
            lines.push("this is another public key than the one that the node shows: do not sign".into());
        }
        if self.shares.bans > 0 {
            lines.push(format!(
                "this ends {} bans: nodes that must not sign together any more, because one was wrong or lied. Find \
                 out which before you sign",
                self.shares.bans
            ));
        }
        let left = expires.saturating_sub(now().unwrap_or_default()) / 60;
        lines.push(format!("it may be carried out for {left} more minutes"));
        lines.join("\n") + "\n"
    }
}

fn short(bytes: &[u8]) -> String {
    hex(bytes.get(..8).unwrap_or(bytes))
}

/// Seconds since 1970.
fn now() -> Result<u64, CtlError> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map(|now| now.as_secs()).map_err(|error| CtlError::new(error.to_string()))
}

/// Shows an order, has it signed, and brings each signature on its administrator's connection.
///
/// # Errors
/// Somebody said no, or the node does not carry it out.
pub(super) fn sign(
    folder: &Path,
    server: &mut Connection,
    signers: &Signers,
    (known, order): (&Known, &Order),
    text: Vec<u8>,
    format: Format,
) -> Result<(), CtlError> {
    let mut others: Vec<(PathBuf, Connection)> = Vec::new();
    for other in signers.folders(folder).skip(1) {
        let connection = Connection::open(other)?;
        if connection.server().address != server.server().address {
            return Err(CtlError::file(other, "it is an administrator's folder of another server").advise(
                "each administrator signs on a connection of their own to the same node: `hsmctl client add --admin` \
                 makes a certificate there",
            ));
        }
        others.push((other.to_path_buf(), connection));
    }
    let approvals = signers.approve((folder, &known.membership), &known.describe(order), &text)?;
    let mut connections = std::iter::once(server).chain(others.iter_mut().map(|(_, connection)| connection));
    let mut state = OrderState { approvals: 0, needed: 0, epoch: None, note: String::new() };
    for approval in approvals {
        let Some(connection) = connections.next() else { break };
        if state.epoch.is_some() {
            note("the order was carried out before the last signature was needed");
            break;
        }
        let call = RenewShares {
            order: text.clone(),
            key: approval.key.to_vec(),
            signature: approval.signature.to_vec(),
        };
        state = connection.call(&call).map_err(|error| {
            error.advise(
                "`hsmctl key approve` lists the orders that wait, and with what was wrong those that may be tried again: \
                 `hsmctl key approve ORDER` does so",
            )
        })?;
    }
    if state.epoch.is_none() {
        note(
            "not carried out yet: other administrators sign it with `hsmctl --admin DIR key approve`, DIR being their \
             own folder for this node",
        );
    }
    let row = [
        Cell::text(&order.partition),
        Cell::text(order.key.to_string()),
        Cell::text(order.act.to_string()),
        Cell::text(short(&fingerprint(&text))),
        Cell::Number(state.approvals.into()),
        Cell::Number(state.needed.into()),
        state.epoch.map_or(Cell::Empty, Cell::Number),
        Cell::text(state.note),
    ];
    told(Table::new(ORDERED).row(row).print_one(format))
}

impl Target {
    fn order(
        &self,
        folder: &Path,
        server: &mut Connection,
        format: Format,
        act: impl FnOnce(&Known) -> Result<OrderedAct, CtlError>,
    ) -> Result<(), CtlError> {
        let known = Known::of(folder, server, (&self.partition, self.key), &self.signers)?;
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(|error| CtlError::new(error.to_string()))?;
        let act = act(&known)?;
        let is_new = known.shares.waiting.is_some();
        if is_new != (act == OrderedAct::Abandon) {
            return Err(match is_new {
                true => CtlError::new("shares of this key wait for the word of all nodes: it is none yet")
                    .advise("`hsmctl key abandon` gives it up"),
                false => CtlError::new("only a new key is abandoned, of which shares wait")
                    .advise("see `hsmctl key list PARTITION --waiting`"),
            });
        }
        if !is_new && !act.is_share() && known.shares.epoch.is_none() {
            return Err(
                CtlError::new("this key is not shared").advise("`hsmctl key share` has nodes share it")
            );
        }
        let epoch = known.shares.epoch.unwrap_or_default();
        let order = Order {
            cluster: known.membership.cluster,
            partition: self.partition.clone(),
            key: self.key,
            epoch,
            nonce,
            expires: now()? + LIFE,
            act,
            public_key: known.shares.public_key.clone().into(),
        };
        let text = order.to_bytes();
        sign(folder, server, &self.signers, (&known, &order), text, format)
    }

    /// `hsmctl key refresh`
    ///
    /// # Errors
    /// The server refused or cannot be reached, or is not the one that the folder knows.
    pub fn refresh(&self, folder: &Path, server: &mut Connection, format: Format) -> Result<(), CtlError> {
        self.order(folder, server, format, |_| Ok(OrderedAct::Refresh))
    }
}

impl Target {
    /// `hsmctl key abandon`
    ///
    /// # Errors
    /// As [`Target::refresh`].
    pub fn abandon(&self, folder: &Path, server: &mut Connection, format: Format) -> Result<(), CtlError> {
        self.order(folder, server, format, |_| Ok(OrderedAct::Abandon))
    }
}

impl Repair {
    /// `hsmctl key repair`
    ///
    /// # Errors
    /// As [`Target::refresh`].
    pub fn run(&self, folder: &Path, server: &mut Connection, format: Format) -> Result<(), CtlError> {
        self.target.order(folder, server, format, |known| {
            let node = known.node(&self.node)?;
            let mut seats = known.seats();
            if seats.contains(&node) {
                return Ok(OrderedAct::Repair { node: node.0 });
            }
            // It was made anew, and takes the seat of one that is no member any more.
            let gone = seats.iter_mut().find(|Seat(seat)| known.membership.member(seat).is_none());
            let gone = gone.ok_or_else(|| {
                CtlError::new(format!("node {} holds no share of this key, and nobody has left", self.node))
                    .advise("`hsmctl key reshare` gives more nodes a share")
            })?;
            *gone = node;
            let threshold = u8::try_from(known.shares.threshold).unwrap_or_default();
            Ok(OrderedAct::Reshare { threshold, seats })
        })
    }
}

impl Reshare {
    /// `hsmctl key reshare`
    ///
    /// # Errors
    /// As [`Target::refresh`].
    pub fn run(&self, folder: &Path, server: &mut Connection, format: Format) -> Result<(), CtlError> {
        self.target.order(folder, server, format, |known| {
            let threshold = self.threshold;
            self.seats(known, &known.seats()).map(|seats| OrderedAct::Reshare { threshold, seats })
        })
    }
}
