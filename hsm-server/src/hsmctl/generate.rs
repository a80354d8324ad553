//! `hsmctl key generate`: makes a key pair as an application does, with an application's folder and PIN. It is for what
//! other programs cannot ask for: keys that several nodes share, and keys that sign by BIP340.

use std::{
    fs,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use pkcs11_sys::*;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use strongroom_identity::{MandateKey, Nodes, Shown};
use strongroom_shared::{
    mechanism::{CKM_STRONGROOM_BIP340, Params},
    message::{GenerateKeyPair, GenerateShared, KeyPair, Pin},
    object::{CKA_STRONGROOM_PARTIES, CKA_STRONGROOM_THRESHOLD, Template, Value},
};
use zeroize::Zeroizing;

use super::{
    client::Connection,
    error::CtlError,
    folder::Token,
    manage::told,
    output::{Cell, For, Format, Table, hex, note},
};

/// `hsmctl key generate`
#[derive(Debug, Args)]
pub struct Generate {
    /// The application's folder, as `hsmctl client add --partition` made it.
    #[arg(long, value_name = "DIR")]
    client: PathBuf,
    /// What kind of key.
    #[arg(long, value_enum)]
    kind: Kind,
    /// CKA_LABEL of both halves.
    #[arg(long)]
    label: String,
    /// CKA_ID of both halves, in hexadecimal.
    #[arg(long, value_name = "HEX", default_value = "", value_parser = id)]
    id: Id,
    /// How many nodes it takes to sign with the key, which then no single one has.
    #[arg(long, value_name = "COUNT", requires = "parties")]
    threshold: Option<u8>,
    /// How many nodes hold a share: all of the cluster.
    #[arg(long, value_name = "COUNT", requires = "threshold")]
    parties: Option<u8>,
    /// Whether keys may be derived from it (CKA_DERIVE): of a shared key on secp256k1 there are BIP-32 children.
    #[arg(long, requires = "threshold")]
    derive: bool,
    /// A file with the normal user's PIN; asked for if not given.
    #[arg(long, value_name = "FILE")]
    pin_file: Option<PathBuf>,
}

/// Curves as pkcs11-tool names them, and BIP340.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// ECDSA on secp256k1.
    #[value(name = "EC:secp256k1")]
    Secp256k1,
    /// ECDSA on P-256.
    #[value(name = "EC:prime256v1")]
    P256,
    /// Ed25519.
    #[value(name = "EC:edwards25519")]
    Ed25519,
    /// Schnorr signatures on secp256k1.
    #[value(name = "BIP340")]
    Bip340,
}

impl Kind {
    const fn mechanism(self) -> CK_MECHANISM_TYPE {
        match self {
            Self::Secp256k1 | Self::P256 | Self::Bip340 => CKM_EC_KEY_PAIR_GEN,
            Self::Ed25519 => CKM_EC_EDWARDS_KEY_PAIR_GEN,
        }
    }

    /// `CKA_EC_PARAMS`: the curve's OBJECT IDENTIFIER.
    const fn curve(self) -> &'static [u8] {
        match self {
            Self::Secp256k1 | Self::Bip340 => &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a],
            Self::P256 => &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
            Self::Ed25519 => &[0x06, 0x03, 0x2b, 0x65, 0x70],
        }
    }
}

/// `CKA_ID`.
#[derive(Clone, Debug)]
struct Id(Vec<u8>);

fn id(text: &str) -> Result<Id, String> {
    let malformed = || "not an even number of hexadecimal digits".to_owned();
    if !text.len().is_multiple_of(2) || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(malformed());
    }
    let pairs = text.as_bytes().chunks_exact(2).map(|pair| std::str::from_utf8(pair).unwrap_or_default());
    let bytes = pairs.map(|pair| u8::from_str_radix(pair, 16)).collect::<Result<_, _>>();
    bytes.map(Id).map_err(|_| malformed())
}

const GENERATED: &[(&str, For)] = &[
    ("label", For::All),
    ("private", For::All),
    ("public", For::All),
    ("threshold", For::All),
    ("parties", For::All),
    ("proven_key", For::Machines),
];

impl Generate {
    /// Carries the command out.
    ///
    /// # Errors
    /// The folder is not an application's, the PIN is wrong, the server refused or cannot be reached.
    pub fn run(&self, format: Format) -> Result<(), CtlError> {
        let token = Token::read_client(&self.client)?;
        let mut server = Connection::open(&self.client)?;
        server.log_in(self.pin()?).map_err(CtlError::plain)?;
        let call = self.call();
        let (pair, proven) = match self.parties {
            Some(parties) => self.shared(&token, &mut server, &call, parties.into())?,
            None => (server.call(&call).map_err(CtlError::plain)?, None),
        };
        let shares = pair.private.shares;
        let count = |count: Option<u8>| count.map_or(Cell::Empty, |count| Cell::Number(count.into()));
        let row = [
            Cell::text(&self.label),
            Cell::text(pair.private.id.to_string()),
            Cell::text(pair.public.id.to_string()),
            count(shares.map(|shares| shares.threshold)),
            count(shares.map(|shares| shares.parties)),
            proven.map_or(Cell::Empty, |key| Cell::text(hex(&key))),
        ];
        told(Table::new(GENERATED).row(row).print_one(format))
    }

    /// Has all nodes make the key, and holds it against what they have signed, if the folder says who they are: the pair,
    /// and the public key that is proven so.
    fn shared(
        &self,
        token: &Token,
        server: &mut Connection,
        call: &GenerateKeyPair,
        parties: usize,
    ) -> Result<(KeyPair, Option<Vec<u8>>), CtlError> {
        let nodes = match &token.cluster_nodes {
            Some(path) => Some(Nodes::read(path).map_err(|error| CtlError::file(&error.path, error.reason))?),
            None => {
                note(
                    "this client does not know who the nodes are, so the key rests on the word of the one that it asks: \
                     `hsmctl client admit` tells it",
                );
                None
            }
        };
        let mandated = server.mandate(&mandate_key(token)?, nodes.as_ref(), call)?;
        let mandate = mandated.text.clone();
        let pair = server.call(&GenerateShared { mandated }).map_err(CtlError::plain)?;
        let (public, private) = (pair.public.id, pair.private.id);
        let certificate = pair.certificate.as_ref().map_or(&[][..], |certificate| certificate);
        let shown = Shown { mandate: &mandate, parties, public, private };
        let proven = nodes.map(|nodes| nodes.prove(certificate, shown)).transpose().map_err(|why| {
            CtlError::new(format!("the new key {private} is not proven to be the nodes': {why}"))
                .advise("do not use it; destroy it, and look at the node that made it")
        })?;
        Ok((pair, proven))
    }

    fn call(&self) -> GenerateKeyPair {
        let both = || {
            let template = Template::new()
                .with(CKA_TOKEN, Value::Bool(true))
                .with(CKA_LABEL, Value::bytes(self.label.as_bytes()))
                .with(CKA_ID, Value::bytes(self.id.0.as_slice()));
            match self.kind {
                Kind::Bip340 => {
                    template.with(CKA_ALLOWED_MECHANISMS, Value::Mechanisms(vec![CKM_STRONGROOM_BIP340]))
                }
                Kind::Secp256k1 | Kind::P256 | Kind::Ed25519 => template,
            }
        };
        let mut private = both();
        let shares = [(CKA_STRONGROOM_THRESHOLD, self.threshold), (CKA_STRONGROOM_PARTIES, self.parties)];
        for (kind, count) in shares {
            if let Some(count) = count {
                private.set(kind, Value::Ulong(count.into()));
            }
        }
        if self.derive {
            private.set(CKA_DERIVE, Value::Bool(true));
        }
        GenerateKeyPair {
            mechanism: self.kind.mechanism(),
            params: Params::None,
            public: both().with(CKA_EC_PARAMS, Value::bytes(self.kind.curve())),
            private,
        }
    }

    fn pin(&self) -> Result<Pin, CtlError> {
        let text = match &self.pin_file {
            Some(file) => {
                fs::read_to_string(file).map(Zeroizing::new).map_err(|e| CtlError::file(file, e))?
            }
            None => ask().map_err(|error| CtlError::new(format!("the PIN could not be read: {error}")))?,
        };
        Ok(Pin::new(text.trim_end_matches(['\r', '\n']).as_bytes()))
    }
}

fn mandate_key(token: &Token) -> Result<MandateKey, CtlError> {
    let none = || {
        CtlError::new("this client has no key for mandates")
            .advise("`hsmctl client admit FOLDER` makes one; run it at each node")
    };
    let path: &Path = token.mandate_key.as_deref().ok_or_else(none)?;
    MandateKey::read(path).map_err(|error| CtlError::file(&error.path, error.reason))
}

/// A line from standard input; a terminal does not show it.
fn ask() -> io::Result<Zeroizing<String>> {
    let (input, mut line) = (io::stdin(), Zeroizing::new(String::new()));
    if !input.is_terminal() {
        input.read_line(&mut line)?;
        return Ok(line);
    }
    let shown = tcgetattr(&input)?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    write!(io::stderr(), "PIN: ")?;
    tcsetattr(&input, OptionalActions::Flush, &hidden)?;
    let read = input.read_line(&mut line);
    tcsetattr(&input, OptionalActions::Flush, &shown)?;
    writeln!(io::stderr())?;
    read.map(|_| line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_whole_bytes_in_hexadecimal() {
        assert_eq!(id("00fF").unwrap().0, [0, 0xff]);
        assert!(id("").unwrap().0.is_empty());
        for wrong in ["0", "0g", "+1", "äö"] {
            assert!(id(wrong).is_err(), "{wrong}");
        }
    }
}
