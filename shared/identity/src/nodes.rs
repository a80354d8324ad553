//! The nodes whose word a client takes for what they make together: the file `cluster.nodes` in its folder, and the
//! certificate of a new shared key, held against it. So the one node that a client talks to cannot show it another key.
//!
//! It also names the partition that the client was made for: without that, the one node might have it sign mandates for
//! another one in which the same key is admitted.

use std::{collections::BTreeSet, fs, path::Path};

use aws_lc_rs::{
    digest::{SHA256, digest},
    signature::{ED25519, UnparsedPublicKey},
};
use strongroom_shared::{
    hex::Hex,
    object::ObjectId,
    shares::{Certificate, Claim},
    wire::decode_body,
};

use crate::PairError;

/// The nodes of a cluster, as an administrator's folder knew them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nodes {
    /// The cluster.
    pub cluster: [u8; 16],
    /// The client's partition; a file of an earlier `hsmctl` does not name it.
    pub partition: Option<String>,
    /// Each node's name and Ed25519 key.
    pub nodes: Vec<(String, [u8; 32])>,
}

/// What a client asked for, and what it was shown.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// The text of the mandate by which it asked.
    pub mandate: &'a [u8],
    /// How many nodes were to hold a share.
    pub parties: usize,
    /// The public key's object.
    pub public: ObjectId,
    /// The private key's object.
    pub private: ObjectId,
}

impl Nodes {
    /// Reads a client's file.
    ///
    /// # Errors
    /// `PairError` names the file and what is wrong with it.
    pub fn read(path: &Path) -> Result<Self, PairError> {
        let text = fs::read_to_string(path).map_err(|error| PairError::new(path, error))?;
        Self::parse(&text).map_err(|line| {
            let why = format!(
                "{line:?} is none of `cluster HEX`, `partition NAME` (each once) and `node NAME HEX`: `hsmctl client \
                 admit` writes it anew"
            );
            PairError::new(path, why)
        })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let (mut cluster, mut partition, mut nodes) = (None, None, Vec::new());
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let words: Vec<&str> = line.split_whitespace().collect();
            match (&words[..], cluster, &partition) {
                (["cluster", id], None, _) => cluster = Some(bytes(id).ok_or_else(|| line.to_owned())?),
                (["partition", name], _, None) => partition = Some((*name).to_owned()),
                (["node", name, key], ..) => {
                    nodes.push(((*name).to_owned(), bytes(key).ok_or_else(|| line.to_owned())?));
                }
                _ => return Err(line.to_owned()),
            }
        }
        let cluster = cluster.ok_or_else(|| "the end of the file".to_owned())?;
        Ok(Self { cluster, partition, nodes })
    }

    /// Whether a server that says it is in this cluster, and the client in this partition, may be believed.
    ///
    /// # Errors
    /// What it says that the file does not.
    pub fn check_place(&self, cluster: &[u8; 16], partition: &str) -> Result<(), String> {
        if *cluster != self.cluster {
            return Err(format!(
                "the server says that it is in cluster {}, and this client knows {}: if that has changed, `hsmctl client \
                 admit` tells the client",
                Hex(cluster),
                Hex(&self.cluster)
            ));
        }
        match &self.partition {
            Some(own) if own != partition => Err(format!(
                "the server says that this client's partition is {partition:?}, and it is {own}: look at that server"
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// The file's text.
    pub fn to_text(&self) -> String {
        let mut text = String::from(
            "# The nodes whose word this client takes for keys that they make together. hsmctl wrote this; when the\n\
             # cluster changes, `hsmctl client admit` writes it anew.\n",
        );
        text += &format!("cluster {}\n", Hex(&self.cluster));
        if let Some(partition) = &self.partition {
            text += &format!("partition {partition}\n");
        }
        for (name, key) in &self.nodes {
            text += &format!("node {name} {}\n", Hex(key));
        }
        text
    }

    /// The public key (a DER SubjectPublicKeyInfo) that all nodes say they have made for this client, if they do.
    ///
    /// # Errors
    /// What is wrong with the certificate.
    pub fn prove(&self, certificate: &[u8], shown: Shown<'_>) -> Result<Vec<u8>, String> {
        let malformed = |error: strongroom_shared::wire::BodyError| error.to_string();
        let whole: Certificate = decode_body(certificate).map_err(malformed)?;
        let claim: Claim = decode_body(&whole.claim).map_err(malformed)?;
        let known: BTreeSet<_> = self.nodes.iter().map(|(_, key)| *key).collect();
        let seats: BTreeSet<_> = claim.seats.iter().copied().collect();
        let wrong = if claim.cluster != self.cluster {
            "it is another cluster's"
        } else if self.partition.as_ref().is_some_and(|own| *own != claim.partition) {
            "it is of another partition than this client's"
        } else if !seats.is_subset(&known) {
            "nodes that this client does not know have signed it: if the cluster has changed, `hsmctl client admit` \
             tells the client"
        } else if seats.len() != shown.parties || claim.seats.len() != shown.parties {
            "not as many nodes as were asked for hold a share"
        } else if !is_whole(&whole, &claim.seats) {
            "not all nodes have signed it"
        } else if digest(&SHA256, shown.mandate).as_ref() != claim.mandate {
            "it is of a key that somebody else asked for"
        } else if (claim.public, claim.private) != (shown.public, shown.private) {
            "it is of another key than was shown"
        } else {
            return Ok(claim.key);
        };
        Err(wrong.into())
    }
}

/// Whether every one of these nodes, and nobody else, has signed this claim.
pub fn is_whole(certificate: &Certificate, seats: &[[u8; 32]]) -> bool {
    let text = Claim::to_sign(&certificate.claim);
    let mut pairs = seats.iter().zip(&certificate.signatures);
    certificate.signatures.len() == seats.len()
        && pairs.all(|(key, signed)| UnparsedPublicKey::new(&ED25519, key).verify(&text, &signed.0).is_ok())
}

/// So many bytes in hexadecimal.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.len() == 2 * N && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap_or_default());
    let bytes: Option<Vec<u8>> = pairs.map(|pair| u8::from_str_radix(pair, 16).ok()).collect();
    bytes.filter(|_| digits)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
    use strongroom_shared::shares::Signed;

    use super::*;

    const MANDATE: &[u8] = b"a mandate";

    fn pair(seed: u8) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
    }

    fn key(seed: u8) -> [u8; 32] {
        pair(seed).public_key().as_ref().try_into().unwrap()
    }

    fn nodes() -> Nodes {
        let nodes = (1..=3).map(|seed| (format!("n{seed}"), key(seed))).collect();
        Nodes { cluster: [7; 16], partition: Some("p".into()), nodes }
    }

    fn claim() -> Claim {
        Claim {
            cluster: [7; 16],
            partition: "p".into(),
            mandate: digest(&SHA256, MANDATE).as_ref().try_into().unwrap(),
            public: ObjectId([1; 16]),
            seats: vec![key(1), key(2), key(3)],
            ready: vec![5],
            private: ObjectId([2; 16]),
            key: b"the key".to_vec(),
            object: None,
        }
    }

    fn signed(claim: &Claim, by: &[u8]) -> Vec<u8> {
        let claim = minicbor::to_vec(claim).unwrap();
        let sign = |seed: &u8| pair(*seed).sign(&Claim::to_sign(&claim)).as_ref().try_into().unwrap();
        let signatures = by.iter().map(|seed| Signed(sign(seed))).collect();
        minicbor::to_vec(Certificate { claim, signatures }).unwrap()
    }

    fn prove(certificate: &[u8]) -> Result<Vec<u8>, String> {
        let (public, private) = (ObjectId([1; 16]), ObjectId([2; 16]));
        nodes().prove(certificate, Shown { mandate: MANDATE, parties: 3, public, private })
    }

    #[test]
    fn the_file_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cluster.nodes");
        fs::write(&path, nodes().to_text()).unwrap();
        assert_eq!(Nodes::read(&path).unwrap(), nodes());
        let earlier = Nodes { partition: None, ..nodes() };
        fs::write(&path, earlier.to_text()).unwrap();
        assert_eq!(Nodes::read(&path).unwrap(), earlier);
        let twice = format!("{}partition q\n", nodes().to_text());
        for wrong in ["", "node a 00", "cluster 00", "cluster +7", "cluster é", "partition", &twice] {
            fs::write(&path, wrong).unwrap();
            assert_eq!(Nodes::read(&path).unwrap_err().path, path, "{wrong}");
        }
    }

    #[test]
    fn a_key_is_proven_by_all_nodes_that_the_client_knows() {
        assert_eq!(prove(&signed(&claim(), &[1, 2, 3])).unwrap(), b"the key");
        let changed = |change: fn(&mut Claim)| {
            let mut claim = claim();
            change(&mut claim);
            claim
        };
        let own = changed(|claim| claim.seats = vec![key(9), key(9), key(9)]);
        let one = changed(|claim| claim.seats = vec![key(1), key(1), key(1)]);
        for (certificate, hint) in [
            (signed(&own, &[9, 9, 9]), "does not know"),
            (signed(&one, &[1, 1, 1]), "not as many"),
            (signed(&changed(|claim| claim.seats.truncate(2)), &[1, 2]), "not as many"),
            (signed(&claim(), &[1, 2]), "not all"),
            (signed(&claim(), &[1, 2, 9]), "not all"),
            (signed(&claim(), &[2, 1, 3]), "not all"),
            (signed(&changed(|claim| claim.cluster = [8; 16]), &[1, 2, 3]), "another cluster"),
            (signed(&changed(|claim| claim.partition = "q".into()), &[1, 2, 3]), "another partition"),
            (signed(&changed(|claim| claim.mandate = [8; 32]), &[1, 2, 3]), "somebody else"),
            (signed(&changed(|claim| claim.private = ObjectId([3; 16])), &[1, 2, 3]), "another key"),
            (signed(&changed(|claim| claim.public = ObjectId([3; 16])), &[1, 2, 3]), "another key"),
            (b"nothing".to_vec(), "malformed"),
        ] {
            let why = prove(&certificate).unwrap_err();
            assert!(why.contains(hint), "{hint}: {why}");
        }
    }

    #[test]
    fn a_server_puts_the_client_into_no_other_cluster_or_partition() {
        assert_eq!(nodes().check_place(&[7; 16], "p"), Ok(()));
        assert!(nodes().check_place(&[7; 16], "q").unwrap_err().contains("partition is \"q\", and it is p"));
        assert!(nodes().check_place(&[8; 16], "p").unwrap_err().contains("hsmctl client admit"));
        let earlier = Nodes { partition: None, ..nodes() };
        assert_eq!(earlier.check_place(&[7; 16], "q"), Ok(()), "as the server says");
        assert!(earlier.check_place(&[8; 16], "q").is_err());
    }
}
