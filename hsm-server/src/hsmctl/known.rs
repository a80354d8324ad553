//! What an administrator's folder knows of its node and cluster beforehand, so that nobody on the way, the server's
//! own front included, can have an administrator sign something else.
//!
//! `node.fingerprint` names the node's identity key; `hsmctl init` writes it, beside the vault. `cluster.document` is
//! the last membership document that an administrator of this folder signed or saw in force.

use std::{fs, io, path::Path};

use strongroom_shared::message::{InstallMembership, Introduce, Introduction, ReadShares, SharesRead};

use super::{
    client::Connection,
    error::CtlError,
    folder::replace,
    manage::told,
    output::{Format, hex, say},
};
use crate::cluster::{
    Document,
    introduction::{self, CHALLENGE},
};

const FINGERPRINT: &str = "node.fingerprint";
const DOCUMENT: &str = "cluster.document";

/// What a server is called in its record while it only says who it is.
pub const PINNED: &str = "pinned";

/// SHA-256 of a node's identity key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin(pub [u8; 32]);

impl std::str::FromStr for Pin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        digits(text).map(Self).ok_or_else(|| "a fingerprint has 64 hexadecimal digits".into())
    }
}

/// The 32 bytes that 64 hexadecimal digits stand for.
pub fn digits(text: &str) -> Option<[u8; 32]> {
    let digit = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).ok().filter(|text| !text.starts_with('+'))?;
        u8::from_str_radix(text, 16).ok()
    };
    let bytes: Option<Vec<_>> = text.as_bytes().chunks(2).map(digit).collect();
    bytes?.try_into().ok()
}

impl Pin {
    /// The one in a folder, if there is one.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(folder: &Path) -> Result<Option<Self>, CtlError> {
        let path = folder.join(FINGERPRINT);
        match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map(Some).map_err(|error: String| CtlError::file(&path, error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(CtlError::file(&path, error)),
        }
    }

    /// Writes it into a folder.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(self, folder: &Path) -> Result<(), CtlError> {
        replace(&folder.join(FINGERPRINT), format!("{}\n", hex(&self.0)).as_bytes(), 0o644)
    }

    /// Who the server is as a node, in its vault's own words.
    ///
    /// # Errors
    /// It refused, or somebody else spoke.
    pub fn introduce(self, server: &mut Connection, name: &str) -> Result<Introduction, CtlError> {
        let mut challenge = [0; CHALLENGE];
        getrandom::fill(&mut challenge).map_err(|error| CtlError::new(error.to_string()))?;
        let said =
            server.call(&Introduce { name: name.into(), challenge: Some(challenge.to_vec().into()) })?;
        introduction::check(said, &challenge, &self.0).ok_or_else(|| {
            let at = &server.server().address;
            CtlError::new(format!("{at}: this is not the word of the vault of node {}", hex(&self.0))).advise(
                "somebody between its vault and you, such as its front, changes what it says; nothing was signed",
            )
        })
    }
}

/// Who the server of this folder is as a node, in its vault's own words.
///
/// # Errors
/// The folder does not know its node; the server refused, or somebody else spoke.
pub fn introduce(folder: &Path, server: &mut Connection, name: &str) -> Result<Introduction, CtlError> {
    let pin = Pin::read(folder)?.ok_or_else(|| {
        CtlError::file(&folder.join(FINGERPRINT), "missing: this folder cannot tell its node from a liar")
            .advise(
                "the server's log shows its fingerprint at every start; read it at that machine, then \
             `hsmctl --admin DIR cluster pin FINGERPRINT`",
            )
    })?;
    pin.introduce(server, name)
}

/// What the server of this folder knows of a key's shares, in its vault's own words. The challenge is filled in.
///
/// # Errors
/// The folder does not know its node; the server refused, or somebody else spoke.
pub fn read_shares(
    folder: &Path,
    server: &mut Connection,
    asked: ReadShares,
) -> Result<SharesRead, CtlError> {
    let mut challenge = [0; CHALLENGE];
    getrandom::fill(&mut challenge).map_err(|error| CtlError::new(error.to_string()))?;
    let pin = Pin::read(folder)?.ok_or_else(|| CtlError::file(&folder.join(FINGERPRINT), "missing"))?;
    let (partition, key) = (asked.partition.clone(), asked.key);
    let said = server.call(&ReadShares { challenge: challenge.to_vec(), ..asked })?;
    let proven = introduction::check_shares(said, &challenge, &pin.0);
    proven.filter(|said| said.partition == partition && said.key == key).ok_or_else(|| {
        CtlError::new("what the server says of the key is not the word of its vault").advise(
            "somebody between its vault and you, such as its front, changes what it says; nothing was signed",
        )
    })
}

/// Reads a document as a server gives it.
///
/// # Errors
/// It is none.
pub fn read(document: &[u8]) -> Result<Document, CtlError> {
    Document::read(document).map_err(|refusal| CtlError::new(format!("the server's {refusal}")))
}

/// What a folder's document makes of the one that a server gives.
#[derive(Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It is the same, or its administrators have approved the other.
    Proven,
    /// The server has an earlier one.
    Behind(Box<Document>),
    /// Neither follows the other.
    Unproven(CtlError),
}

/// Holds the document that a server gives against the last one that a folder knows. Without one it is proven: its
/// vault gave it.
///
/// # Errors
/// The folder's document cannot be read.
pub fn judge(folder: &Path, given: &Document) -> Result<Judgement, CtlError> {
    let path = folder.join(DOCUMENT);
    let kept = match fs::read(&path) {
        Ok(bytes) => Document::read(&bytes).map_err(|error| CtlError::file(&path, error))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Judgement::Proven),
        Err(error) => return Err(CtlError::file(&path, error)),
    };
    Ok(match given.check_succeeds(kept.membership()) {
        _ if kept.digest() == given.digest() => Judgement::Proven,
        Ok(_) => Judgement::Proven,
        Err(_) if kept.check_succeeds(given.membership()).is_ok() => Judgement::Behind(Box::new(kept)),
        Err(refusal) => {
            let error = format!("what the server has in force does not follow from this one: {refusal}");
            Judgement::Unproven(CtlError::file(&path, error).advise(
                "nothing was signed; if the server truly began anew in another cluster, move that file away",
            ))
        }
    })
}

/// Holds a document that was shown against the last one that a folder knows, and says what is to be said of it.
///
/// # Errors
/// It does not follow from the folder's, or that cannot be read.
pub fn tell_judgement(folder: &Path, shown: &Document, format: Format) -> Result<(), CtlError> {
    match judge(folder, shown)? {
        Judgement::Proven => Ok(()),
        Judgement::Behind(later) => {
            let version = later.membership().version;
            told(say(format, &format!("this folder knows version {version}: the next change brings it here")))
        }
        Judgement::Unproven(error) => Err(error),
    }
}

/// Holds the document that a server gives against what each of these folders knows. A server that has an earlier one
/// is given the later one.
///
/// # Errors
/// It does not follow from one of theirs, or the server does not take the later one.
pub fn in_force<'a>(
    server: &mut Connection,
    given: Document,
    folders: impl Iterator<Item = &'a Path>,
) -> Result<Document, CtlError> {
    let mut present = given;
    for folder in folders {
        match judge(folder, &present)? {
            Judgement::Proven => {}
            Judgement::Behind(later) => {
                server.call(&InstallMembership { document: later.bytes().to_vec() })?;
                present = *later;
            }
            Judgement::Unproven(error) => return Err(error),
        }
    }
    Ok(present)
}

/// The document that is in force on a server, by its vault's own word and as this folder knows it.
///
/// # Errors
/// As [`introduce`]; or it does not follow from the folder's own.
pub fn document(folder: &Path, server: &mut Connection) -> Result<Document, CtlError> {
    let given = read(&introduce(folder, server, PINNED)?.document)?;
    match judge(folder, &given)? {
        Judgement::Proven => Ok(given),
        Judgement::Behind(later) => Ok(*later),
        Judgement::Unproven(error) => Err(error),
    }
}

/// Keeps a document as the last one that these folders know.
///
/// # Errors
/// It cannot be written.
pub fn keep<'a>(document: &Document, folders: impl Iterator<Item = &'a Path>) -> Result<(), CtlError> {
    let mut folders = folders;
    folders.try_for_each(|folder| replace(&folder.join(DOCUMENT), document.bytes(), 0o600))
}
