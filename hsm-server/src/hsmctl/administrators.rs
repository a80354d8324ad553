//! `hsmctl cluster administrators`, `key`, `admit-administrator` and `dismiss-administrator`: who may sign the next
//! version of a membership document, and the orders about shares.
//!
//! A change of them is a version like any other: the administrators of the one in force sign it, and it travels to all
//! nodes by itself. A new administrator's private key stays in that administrator's folder.

use std::path::{Path, PathBuf};

use clap::Args;
use strongroom_shared::message::{InstallMembership, ReadCluster};

use super::{
    client::Connection,
    cluster::{in_force, spread, tell},
    error::CtlError,
    known::{self, PINNED, digits, introduce},
    manage::told,
    output::{Cell, For, Format, Table, hex, say},
    signers::{Signers, next_version, own, own_or_new},
};
use crate::cluster::{Administrator, Document, Membership, document::CHANGE_OF_ADMINISTRATORS};

/// How many administrators an end of bans takes, whatever the document says.
const END_OF_BANS: usize = 2;

const LISTED: &[(&str, For)] = &[("name", For::All), ("key", For::All)];

#[derive(Debug, Args)]
pub struct Admit {
    /// The new administrator's folder, if it is at hand; it gets a `cluster.key`, if it has none.
    #[arg(required_unless_present = "key", conflicts_with = "key")]
    folder: Option<PathBuf>,
    /// The new administrator's name in the cluster: 1 to 32 of a-z, 0-9, - and _. The folder's, if not said.
    #[arg(long, required_unless_present = "folder")]
    name: Option<String>,
    /// The new administrator's public key, as `hsmctl cluster key` shows it: 64 hexadecimal digits.
    #[arg(long, value_name = "HEX", value_parser = public_key)]
    key: Option<[u8; 32]>,
    #[command(flatten)]
    approvals: Approvals,
    #[command(flatten)]
    signers: Signers,
}

#[derive(Debug, Args)]
pub struct Dismiss {
    /// The administrator's name or public key, as `hsmctl cluster administrators` shows them.
    who: String,
    #[command(flatten)]
    approvals: Approvals,
    #[command(flatten)]
    signers: Signers,
}

#[derive(Debug, Args)]
struct Approvals {
    /// How many administrators must sign every change from then on; as many as now, if not said. A change of the
    /// administrators takes two in any case, where there are two.
    #[arg(long = "approvals", value_name = "COUNT")]
    count: Option<u32>,
}

impl Approvals {
    /// Puts the number into a membership whose administrators have changed.
    fn apply(&self, membership: &mut Membership) -> Result<(), CtlError> {
        membership.approvals = self.count.unwrap_or(membership.approvals);
        let (needed, there) = (membership.approvals, membership.administrators.len());
        if needed == 0 || usize::try_from(needed).unwrap_or(usize::MAX) > there {
            return Err(CtlError::new(format!(
                "{needed} administrators cannot be asked to sign: there would be {there}"
            ))
            .advise("say --approvals COUNT, from 1 to the number of administrators"));
        }
        Ok(())
    }
}

fn public_key(text: &str) -> Result<[u8; 32], String> {
    digits(text).ok_or_else(|| "a public key has 64 hexadecimal digits".into())
}

/// Signs the next version and puts it in force at this node; the others get it from this one.
fn change(
    (folder, server): (&Path, &mut Connection),
    signers: &Signers,
    (present, next): (&Document, &Membership),
) -> Result<Document, CtlError> {
    let document = signers.sign(folder, Some(present), next)?;
    server.call(&InstallMembership { document: document.bytes().to_vec() })?;
    spread(server, next.version)?;
    Ok(document)
}

impl Admit {
    /// `hsmctl cluster admit-administrator`
    ///
    /// # Errors
    /// The server refused or cannot be reached, or a key or name is listed already.
    pub fn run(&self, folder: &Path, server: &mut Connection, format: Format) -> Result<(), CtlError> {
        self.signers.check(folder)?;
        let said = introduce(folder, server, PINNED)?;
        let document = in_force(folder, server, &said, &self.signers)?;
        let present = document.membership();
        let new = self.administrator()?;
        let mut next = present.clone();
        if let Some(same) = present.administrators.iter().find(|one| one.key == new.key) {
            return Err(CtlError::new(format!("{} is an administrator of this cluster already", same.name)));
        }
        // An order counts two keys of one name as one person.
        if present.administrators.iter().any(|one| one.name == new.name) {
            return Err(CtlError::new(format!("{} is another administrator's name", new.name))
                .advise("give the new one another name with --name"));
        }
        next.administrators.push(new);
        self.approvals.apply(&mut next)?;
        next.version = next_version(present)?;
        let changed = change((folder, server), &self.signers, (&document, &next))?;
        known::keep(&changed, self.folder.iter().map(PathBuf::as_path))?;
        tell(&next, format)
    }

    fn administrator(&self) -> Result<Administrator, CtlError> {
        let named = |known: String| self.name.clone().unwrap_or(known);
        match (&self.folder, self.key) {
            (Some(folder), _) => own_or_new(folder).map(|own| Administrator { name: named(own.name), ..own }),
            (None, Some(key)) => Ok(Administrator { name: named(String::new()), key }),
            (None, None) => Err(CtlError::new("whom? name a folder, or --name and --key")),
        }
    }
}

impl Dismiss {
    /// `hsmctl cluster dismiss-administrator`
    ///
    /// # Errors
    /// The server refused or cannot be reached, nobody is called so, or too few would be left.
    pub fn run(&self, folder: &Path, server: &mut Connection, format: Format) -> Result<(), CtlError> {
        self.signers.check(folder)?;
        let said = introduce(folder, server, PINNED)?;
        let document = in_force(folder, server, &said, &self.signers)?;
        let present = document.membership();
        let is_meant = |one: &Administrator| one.name == self.who || hex(&one.key) == self.who;
        let (gone, left): (Vec<_>, Vec<_>) = present.administrators.iter().cloned().partition(is_meant);
        match gone.as_slice() {
            [_] => {}
            [] => {
                return Err(CtlError::new(format!("no administrator {}", self.who))
                    .advise("see `hsmctl cluster administrators`"));
            }
            [..] => {
                return Err(CtlError::new(format!("{} administrators are called {}", gone.len(), self.who))
                    .advise("give the key instead of the name: see `hsmctl cluster administrators`"));
            }
        }
        if left.len() < END_OF_BANS {
            return Err(CtlError::new(format!(
                "{} administrator would be left, and to end a ban takes {END_OF_BANS}",
                left.len()
            ))
            .advise("`hsmctl cluster admit-administrator` another one first"));
        }
        let version = next_version(present)?;
        let mut next = Membership { administrators: left, version, ..present.clone() };
        self.approvals.apply(&mut next)?;
        change((folder, server), &self.signers, (&document, &next))?;
        tell(&next, format)
    }
}

/// `hsmctl cluster key`: makes the key of this folder, if there is none, and shows it.
///
/// # Errors
/// It cannot be read or made.
pub fn show_key(folder: &Path, format: Format) -> Result<(), CtlError> {
    let own = own_or_new(folder)?;
    told(Table::new(LISTED).row([Cell::text(&own.name), Cell::bytes(&own.key)]).print_one(format))
}

/// `hsmctl cluster administrators`
///
/// # Errors
/// The server cannot be reached, or what it says does not follow from what the folder knows.
pub fn list(folder: &Path, server: &mut Connection, format: Format) -> Result<(), CtlError> {
    let cluster = server.call(&ReadCluster {})?;
    if cluster.document.is_empty() {
        return Err(
            CtlError::new("this server belongs to no cluster").advise("`hsmctl cluster init` begins one")
        );
    }
    let document = known::read(&cluster.document)?;
    let membership = document.membership();
    let rows = membership.administrators.iter();
    let rows = rows.map(|one| vec![Cell::text(&one.name), Cell::bytes(&one.key)]);
    told(Table::new(LISTED).rows(rows).print(format))?;
    known::tell_judgement(folder, &document, format)?;
    if format == Format::Json {
        return Ok(());
    }
    let (needed, there) = (membership.approvals, membership.administrators.len());
    told(say(format, &format!("the next version takes {needed} of {there}")))?;
    if there > 1 && needed < CHANGE_OF_ADMINISTRATORS {
        let text = format!("a change of the administrators takes {CHANGE_OF_ADMINISTRATORS}");
        told(say(format, &text))?;
    }
    match own(folder) {
        Ok(own) if membership.administrators.iter().any(|one| one.key == own.key) => Ok(()),
        Ok(_) | Err(_) => told(say(format, "this folder's administrator is none of them")),
    }
}
