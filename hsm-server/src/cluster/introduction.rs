//! What a server says of itself as a node, signed by its vault over the asker's challenge: a front on the way can
//! neither change it nor say it again.
//!
//! Whoever asks knows the fingerprint of the node's identity key beforehand: `hsmctl init` puts it into the
//! administrator's folder, and the vault's log shows it at every start.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use strongroom_shared::message::{Introduction, SharesRead};

use crate::certificates::fingerprint;

/// What the signature covers before the challenge and the introduction.
const LABEL: &[u8] = b"strongroom introduction 1\0";
/// The same, before what a node knows of a key's shares.
const SHARES: &[u8] = b"strongroom shares read 1\0";
/// The length of a challenge, in bytes.
pub const CHALLENGE: usize = 32;

/// The introduction with its proof.
pub fn prove(said: Introduction, challenge: &[u8; CHALLENGE], identity: &Ed25519KeyPair) -> Introduction {
    let said = Introduction { proof: None, ..said };
    let proof = identity.sign(&message(LABEL, &said, challenge)).as_ref().to_vec();
    Introduction { proof: Some(proof.into()), ..said }
}

/// The introduction, if the node whose identity key has this fingerprint gave it in answer to this challenge.
pub fn check(said: Introduction, challenge: &[u8; CHALLENGE], node: &[u8; 32]) -> Option<Introduction> {
    let proof = said.proof.clone()?;
    let said = Introduction { proof: None, ..said };
    let signed =
        UnparsedPublicKey::new(&ED25519, &said.identity).verify(&message(LABEL, &said, challenge), &proof);
    (fingerprint(&said.identity) == *node && signed.is_ok()).then_some(said)
}

/// What a node knows of a key's shares, with its proof.
pub fn prove_shares(said: SharesRead, challenge: &[u8; CHALLENGE], identity: &Ed25519KeyPair) -> SharesRead {
    let said = SharesRead { proof: None, ..said };
    let proof = identity.sign(&message(SHARES, &said, challenge)).as_ref().to_vec();
    SharesRead { proof: Some(proof.into()), ..said }
}

/// The same, if the node whose identity key has this fingerprint gave it in answer to this challenge.
pub fn check_shares(said: SharesRead, challenge: &[u8; CHALLENGE], node: &[u8; 32]) -> Option<SharesRead> {
    let proof = said.proof.clone()?;
    let said = SharesRead { proof: None, ..said };
    let signed =
        UnparsedPublicKey::new(&ED25519, &said.node).verify(&message(SHARES, &said, challenge), &proof);
    (fingerprint(&said.node) == *node && signed.is_ok()).then_some(said)
}

fn message<T: minicbor::Encode<()>>(label: &[u8], said: &T, challenge: &[u8; CHALLENGE]) -> Vec<u8> {
    let mut message = [label, challenge].concat();
    let result = minicbor::encode(said, &mut message);
    debug_assert!(result.is_ok(), "writing to memory cannot fail");
    message
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::KeyPair;

    use super::*;

    fn introduction(pair: &Ed25519KeyPair) -> Introduction {
        Introduction {
            authority: vec![1],
            certificate: vec![2],
            identity: pair.public_key().as_ref().to_vec(),
            sealing: vec![4; 32],
            document: Vec::new(),
            proof: None,
        }
    }

    #[test]
    fn what_a_node_knows_of_a_key_is_its_own_word_and_new() {
        let pair = |seed| Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let (node, liar) = (pair(1), pair(2));
        let pinned = fingerprint(node.public_key().as_ref());
        let known = |of: &Ed25519KeyPair| SharesRead {
            partition: "trading".into(),
            key: strongroom_shared::object::ObjectId([1; 16]),
            label: b"hot".to_vec(),
            public_key: vec![2; 33],
            epoch: Some(3),
            threshold: 2,
            seats: vec![vec![4; 32].into()],
            bans: 0,
            node: of.public_key().as_ref().to_vec(),
            proof: None,
            waiting: None,
        };
        let said = || prove_shares(known(&node), &[9; CHALLENGE], &node);
        assert!(check_shares(said(), &[9; CHALLENGE], &pinned).is_some());
        assert!(check_shares(said(), &[8; CHALLENGE], &pinned).is_none(), "an answer to another challenge");
        assert!(check_shares(known(&node), &[9; CHALLENGE], &pinned).is_none(), "no proof");
        let others = prove_shares(known(&liar), &[9; CHALLENGE], &liar);
        assert!(check_shares(others, &[9; CHALLENGE], &pinned).is_none(), "another node's");
        let changes: [fn(&mut SharesRead); 6] = [
            |said| said.partition.push('2'),
            |said| said.label.push(0),
            |said| said.public_key[0] ^= 1,
            |said| said.epoch = Some(4),
            |said| said.bans = 1,
            |said| said.waiting = Some(1),
        ];
        for change in changes {
            let mut said = said();
            change(&mut said);
            assert!(check_shares(said, &[9; CHALLENGE], &pinned).is_none());
        }
    }

    #[test]
    fn only_the_node_itself_proves_what_it_says_and_only_once() {
        let pair = |seed| Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let (node, liar) = (pair(1), pair(2));
        let pinned = fingerprint(node.public_key().as_ref());
        let said = || prove(introduction(&node), &[9; CHALLENGE], &node);
        assert!(check(said(), &[9; CHALLENGE], &pinned).is_some());
        assert!(check(said(), &[8; CHALLENGE], &pinned).is_none(), "an answer to another challenge");
        assert!(check(introduction(&node), &[9; CHALLENGE], &pinned).is_none(), "no proof");
        assert!(
            check(prove(introduction(&liar), &[9; CHALLENGE], &liar), &[9; CHALLENGE], &pinned).is_none(),
            "another node's"
        );
        assert!(
            check(prove(introduction(&node), &[9; CHALLENGE], &liar), &[9; CHALLENGE], &pinned).is_none(),
            "signed by another"
        );
        let changes: [fn(&mut Introduction); 5] = [
            |said| said.authority.push(0),
            |said| said.certificate.push(0),
            |said| said.identity[0] ^= 1,
            |said| said.sealing[0] ^= 1,
            |said| said.document.push(0),
        ];
        for change in changes {
            let mut said = said();
            change(&mut said);
            assert!(check(said, &[9; CHALLENGE], &pinned).is_none());
        }
    }
}
