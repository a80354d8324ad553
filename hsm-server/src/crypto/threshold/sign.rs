//! Signing: what is signed and by whom, the last message that waits for its audit record, and the combining.

use std::{collections::BTreeSet, fmt};

use minicbor::Encode;

use super::{
    blame::Refusal,
    ceremony::{Ceremony, Started},
    envelope::{Envelope, Letter, Outgoing, Purpose, Terms, To, hash},
    party::{Party, Setup},
    share::{PublicShares, Share},
};

/// What is signed, and by whom. Every signer means the same, or the ceremony does not begin between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signing {
    /// Exactly `threshold` members.
    pub signers: BTreeSet<Party>,
    /// For ECDSA the digest, of any length from one byte (FIPS 186-5, 6.4.1: the leftmost bits count, a shorter one is
    /// a smaller number); for Ed25519 and BIP340 the message itself.
    pub input: Vec<u8>,
}

/// A signer's last message. It is the signature's missing part: whoever has all of them has the signature, so the
/// audit record is written before [`Held::release`].
pub struct Held {
    outgoing: Outgoing,
}

impl Held {
    pub(super) fn new(terms: &Terms, round: u8, me: Party, letter: Letter) -> Self {
        Self { outgoing: Envelope::seal(terms, round, me, letter) }
    }

    /// Gives the message away, for the coordinator.
    pub fn release(self) -> Outgoing {
        self.outgoing
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[held message]")
    }
}

/// Begins to sign with a share. Two message rounds among the signers, then [`Held`] for the coordinator.
///
/// # Errors
/// The share is of another key or epoch, the seat is not its own or no signer's, or the scheme does not
/// sign such an input.
pub fn sign(share: &Share, signing: &Signing, setup: &Setup) -> Result<Started<Held>, Refusal> {
    let terms = terms(share.public(), signing, setup)?;
    if setup.me != share.me || !signing.signers.contains(&setup.me) {
        return Err(Refusal::Seat);
    }
    Ceremony::begin(terms, To::Party(setup.me), signing.signers.clone(), || {
        share.secret.sign(share, signing, terms)
    })
}

/// Begins to combine what the signers release. The result is a signature that has been verified: r ‖ s for ECDSA,
/// R ‖ s for Ed25519 and BIP340, 64 bytes each. `share` is the coordinator's own, whether it signs or not; it does not
/// suspect itself.
///
/// # Errors
/// The share is of another key or epoch or not its own, or the signers are not of the committee.
pub fn combine(share: &Share, signing: &Signing, setup: &Setup) -> Result<Ceremony<Vec<u8>>, Refusal> {
    let terms = terms(share.public(), signing, setup)?;
    if setup.me != share.me {
        return Err(Refusal::Seat);
    }
    let begun = Ceremony::begin(terms, To::Coordinator, signing.signers.clone(), || {
        share.secret.combine(share, signing)
    })?;
    Ok(begun.0)
}

fn terms(public: &PublicShares, signing: &Signing, setup: &Setup) -> Result<Terms, Refusal> {
    if setup.key != public.key() {
        return Err(Refusal::Key);
    }
    if setup.epoch != public.epoch() {
        return Err(Refusal::Epoch);
    }
    let committee = public.committee();
    let enough = signing.signers.len() == usize::from(committee.threshold());
    if !enough || signing.signers.iter().any(|party| !committee.has(*party)) {
        return Err(Refusal::Signers);
    }
    #[derive(Encode)]
    struct Rest<'a>(
        #[cbor(n(0), with = "minicbor::bytes")] [u8; 32],
        #[n(1)] &'a BTreeSet<Party>,
        #[cbor(n(2), with = "minicbor::bytes")] [u8; 32],
    );
    Ok(Terms::new(setup, &Purpose::Sign, Rest(public.digest(), &signing.signers, hash(&signing.input))))
}
