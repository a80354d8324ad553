//! The administrators who sign membership documents and orders, and what they are shown before they do.
//!
//! An administrator's key for this is `cluster.key` in the administrator's folder: an Ed25519 key of its own, because
//! the key beside it, for TLS, is renewed now and then.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};
use clap::Args;

use super::{
    error::CtlError,
    folder::{Token, write_new},
    known,
    output::hex,
};
use crate::{
    certificates::{fingerprint, identity, pem},
    cluster::{Administrator, Document, Membership, order::OrderApproval},
};

/// The file of an administrator's key for membership documents.
const KEY: &str = "cluster.key";

/// Who signs, beside the administrator of `--admin`.
#[derive(Debug, Args)]
pub struct Signers {
    /// The folder of another administrator, who signs too; may be repeated.
    #[arg(long = "with", value_name = "DIR")]
    others: Vec<PathBuf>,
    /// Signs without asking.
    #[arg(long)]
    yes: bool,
}

/// An administrator with the key that signs documents.
struct Signer {
    /// The file of the key.
    path: PathBuf,
    name: String,
    pair: Ed25519KeyPair,
}

impl Signers {
    /// Every folder that signs: the administrator's own first.
    pub fn folders<'a>(&'a self, folder: &'a Path) -> impl Iterator<Item = &'a Path> {
        std::iter::once(folder).chain(self.others.iter().map(PathBuf::as_path))
    }

    /// The administrators as a document lists them; keys are made where there are none yet.
    ///
    /// # Errors
    /// A key cannot be read or made.
    pub fn listed(&self, folder: &Path) -> Result<Vec<Administrator>, CtlError> {
        self.folders(folder).map(own_or_new).collect()
    }

    /// Whether every signer has a key.
    ///
    /// # Errors
    /// One has none; the message says who signs.
    pub fn check(&self, folder: &Path) -> Result<(), CtlError> {
        self.read(folder).map(drop)
    }

    /// Shows what the new document says, asks, signs, and keeps it in every signer's folder: whatever becomes of it
    /// from here on, none of them signs another one of this version.
    ///
    /// # Errors
    /// The document may not follow the present one, somebody said no, or a folder cannot be written.
    pub fn sign(
        &self,
        folder: &Path,
        present: Option<&Document>,
        membership: &Membership,
    ) -> Result<Document, CtlError> {
        let signers = self.read(folder)?;
        check_listed(&signers, present.map(Document::membership).into_iter().chain([membership]))?;
        let names: Vec<_> = signers.iter().map(|signer| signer.name.as_str()).collect();
        let mut shown = describe(present.map(Document::membership), membership);
        // A String takes everything.
        writeln!(shown, "signed by {}", names.join(", ")).unwrap_or_default();
        self.ask(&shown)?;
        let refused = |refusal: crate::cluster::Refusal| {
            CtlError::new(refusal.to_string()).advise("other administrators sign with --with DIR")
        };
        let pairs: Vec<_> = signers.iter().map(|signer| &signer.pair).collect();
        let signed = match present {
            Some(present) => membership.sign_after(present, &pairs),
            None => membership.sign(&pairs),
        };
        let document = signed.and_then(|bytes| Document::read(&bytes)).map_err(refused)?;
        match present {
            Some(present) => document.check_succeeds(present.membership()).map(drop).map_err(refused)?,
            None => document.check_first().map_err(refused)?,
        }
        known::keep(&document, self.folders(folder))?;
        Ok(document)
    }

    /// Shows what an order says, asks, and signs it: each signer's signature, in the order of the folders.
    ///
    /// # Errors
    /// Somebody said no, a key cannot be read, or it is that of no administrator of this membership.
    pub fn approve(
        &self,
        (folder, membership): (&Path, &Membership),
        shown: &str,
        text: &[u8],
    ) -> Result<Vec<OrderApproval>, CtlError> {
        let signers = self.read(folder)?;
        check_listed(&signers, [membership])?;
        let names: Vec<_> = signers.iter().map(|signer| signer.name.as_str()).collect();
        self.ask(&format!("{shown}signed by {}\n", names.join(", ")))?;
        Ok(signers.iter().map(|signer| OrderApproval::new(text, &signer.pair)).collect())
    }

    fn read(&self, folder: &Path) -> Result<Vec<Signer>, CtlError> {
        self.folders(folder).map(Signer::read).collect()
    }

    fn ask(&self, shown: &str) -> Result<(), CtlError> {
        let prompt = if self.yes { "" } else { "sign this? [y/N] " };
        let mut answer = String::new();
        let asked = write!(io::stderr(), "{shown}{prompt}").and_then(|()| match self.yes {
            true => Ok(0),
            false => io::stdin().read_line(&mut answer),
        });
        match (self.yes, asked) {
            (true, _) => Ok(()),
            (false, Ok(_)) if matches!(answer.trim(), "y" | "yes") => Ok(()),
            (false, Ok(_) | Err(_)) => {
                Err(CtlError::new("nothing was signed").advise("where nobody can be asked, say --yes"))
            }
        }
    }
}

/// Whether the key of every signer is one that these list, and each another one: whoever signs in vain learns it before.
fn check_listed<'a>(
    signers: &[Signer],
    memberships: impl IntoIterator<Item = &'a Membership>,
) -> Result<(), CtlError> {
    let listed: BTreeSet<_> =
        memberships.into_iter().flat_map(|one| &one.administrators).map(|one| one.key.as_slice()).collect();
    let mut known: BTreeMap<&[u8], &Path> = BTreeMap::new();
    for Signer { path, pair, .. } in signers {
        let key = pair.public_key().as_ref();
        if !listed.contains(key) {
            return Err(CtlError::new(format!(
                "nothing was signed: the membership document does not list the key in {}",
                path.display()
            ))
            .advise("`hsmctl cluster administrators` shows the keys that it lists"));
        }
        if let Some(same) = known.insert(key, path) {
            return Err(CtlError::new(format!(
                "nothing was signed: {} and {} hold the same key",
                same.display(),
                path.display()
            ))
            .advise("each administrator has a key of their own"));
        }
    }
    Ok(())
}

/// The administrator of a folder, as a document lists one.
///
/// # Errors
/// The folder has no key, or it cannot be read.
pub fn own(folder: &Path) -> Result<Administrator, CtlError> {
    Signer::read(folder)?.listed()
}

/// The same, with a new key if the folder has none yet.
///
/// # Errors
/// The key cannot be read or made.
pub fn own_or_new(folder: &Path) -> Result<Administrator, CtlError> {
    if !folder.join(KEY).exists() {
        Token::read(folder)?;
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_| CtlError::new("a key could not be made"))?;
        write_new(&folder.join(KEY), pem("PRIVATE KEY", key.as_ref()).as_bytes(), 0o600)?;
    }
    own(folder)
}

/// The version of the document after this one.
///
/// # Errors
/// There is none.
pub fn next_version(present: &Membership) -> Result<u64, CtlError> {
    present.next_version().map_err(|refusal| CtlError::new(refusal.to_string()))
}

/// Everything that a document says, for people, and what is new in it.
fn describe(present: Option<&Membership>, membership: &Membership) -> String {
    let mut lines = vec![format!("cluster {} version {}", membership.cluster, membership.version)];
    for member in &membership.members {
        let known = present.is_some_and(|present| present.members.contains(member));
        lines.push(format!(
            "{} node {} at {} ({})",
            if known { " " } else { "+" },
            member.name,
            member.address,
            member.server_name.escape_debug()
        ));
        lines.push(format!("    fingerprint  {}", hex(&fingerprint(&member.identity))));
        lines.push(format!("    sealing key  {}", hex(&member.sealing)));
        lines.push(format!("    certificate  {}", hex(&member.id.0)));
        lines.push(format!("    its CA       {}", hex(&fingerprint(&member.authority))));
    }
    let gone = present.iter().flat_map(|present| &present.members);
    let gone = gone.filter(|old| membership.members.iter().all(|member| member.name != old.name));
    lines.extend(gone.map(|member| format!("- node {}", member.name)));
    let administrators = &membership.administrators;
    lines.push(format!("  the next version takes {} of", membership.approvals));
    let known = |one| present.is_none_or(|present| present.administrators.contains(one));
    lines.extend(
        administrators.iter().map(|one| {
            format!("{}   {}, key {}", if known(one) { " " } else { "+" }, one.name, hex(&one.key))
        }),
    );
    let gone = present.iter().flat_map(|present| &present.administrators);
    let gone = gone.filter(|old| !administrators.contains(old));
    lines.extend(gone.map(|one| format!("- administrator {}, key {}", one.name, hex(&one.key))));
    lines.join("\n") + "\n"
}

impl Signer {
    fn read(folder: &Path) -> Result<Self, CtlError> {
        let path = folder.join(KEY);
        let text = fs::read(&path).map_err(|error| {
            CtlError::file(&path, error).advise(
                "this is the key with which an administrator signs for the cluster; it stands in the folder that --admin \
                 or --with names. The folders that have one are those of whom `hsmctl cluster init` or \
                 `admit-administrator` listed: name one of them, or bring its key here",
            )
        })?;
        let wrong = |error: &dyn std::fmt::Display| {
            CtlError::file(&path, error).advise(
                "this is not the Ed25519 key with which an administrator signs for the cluster, which `hsmctl cluster` \
                 wrote as cluster.key (PKCS#8, PEM): neither client.key nor mandate.key takes its place",
            )
        };
        let key = pem::parse(text).map_err(|error| wrong(&error))?;
        let pair = Ed25519KeyPair::from_pkcs8(key.contents()).map_err(|error| wrong(&error))?;
        let token = Token::read(folder)?;
        let text = fs::read(&token.certificate).map_err(|error| CtlError::file(&token.certificate, error))?;
        let certificate = pem::parse(text).map_err(|error| CtlError::file(&token.certificate, error))?;
        let who =
            identity(certificate.contents()).map_err(|error| CtlError::file(&token.certificate, error))?;
        Ok(Self { path, name: who.client, pair })
    }

    fn listed(&self) -> Result<Administrator, CtlError> {
        let key = self.pair.public_key().as_ref().try_into();
        let key = key.map_err(|_| CtlError::new("an Ed25519 key of another length"))?;
        Ok(Administrator { name: self.name.clone(), key })
    }
}
