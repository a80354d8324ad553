//! Who takes part, in which committee, for which key: the small words that every ceremony uses.

use std::{collections::BTreeSet, fmt};

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use super::blame::Refusal;

/// A seat in a ceremony, counted from 1. In a committee it is the index of the share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Party(u8);

impl Party {
    /// The highest seat: [`Committee::MAX`] new members beside as many who leave.
    pub const MAX: u8 = 2 * Committee::MAX;

    /// The seat with this number, from 1 to [`Party::MAX`].
    pub const fn new(number: u8) -> Option<Self> {
        if number == 0 || number > Self::MAX { None } else { Some(Self(number)) }
    }

    /// The number of the seat.
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "party {}", self.0)
    }
}

impl<C> Encode<C> for Party {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.u8(self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Party {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        Self::new(d.u8()?).ok_or_else(|| decode::Error::message("no such party"))
    }
}

/// How many shares a key has, and how many of them sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committee {
    threshold: u8,
    parties: u8,
}

impl Committee {
    /// The largest number of parties.
    pub const MAX: u8 = 16;

    /// A committee of `parties`, of whom `threshold` sign.
    ///
    /// # Errors
    /// Not 2 ≤ threshold ≤ parties ≤ [`Committee::MAX`]. A threshold of one would be a copied key.
    pub const fn new(threshold: u8, parties: u8) -> Result<Self, Refusal> {
        if threshold < 2 || threshold > parties || parties > Self::MAX {
            return Err(Refusal::Committee);
        }
        Ok(Self { threshold, parties })
    }

    /// How many parties sign.
    pub const fn threshold(self) -> u8 {
        self.threshold
    }

    /// How many parties hold a share.
    pub const fn parties(self) -> u8 {
        self.parties
    }

    /// Every member, in order.
    pub fn members(self) -> impl Iterator<Item = Party> + Clone {
        (1..=self.parties).map(Party)
    }

    /// Every member, as a set.
    pub fn everybody(self) -> BTreeSet<Party> {
        self.members().collect()
    }

    /// Whether this seat is one of the members.
    pub const fn has(self, party: Party) -> bool {
        party.0 <= self.parties
    }
}

impl<C> Encode<C> for Committee {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.array(2)?.u8(self.threshold)?.u8(self.parties)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Committee {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        if d.array()? != Some(2) {
            return Err(decode::Error::message("a committee is a pair"));
        }
        Self::new(d.u8()?, d.u8()?).map_err(|_| decode::Error::message("no such committee"))
    }
}

/// Which key a ceremony is about: the object's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct KeyId(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 16]);

/// 32 random bytes, fresh for every attempt. A retry is another ceremony, and a node begins none twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct CeremonyId(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 32]);

/// The generation of a key's shares: it rises with every refresh, reshare, repair and import.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Epoch(#[n(0)] pub u64);

/// What all parties agree on before a ceremony begins, and the seat of this one.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// The key.
    pub key: KeyId,
    /// This attempt.
    pub id: CeremonyId,
    /// The epoch of the shares that the ceremony makes, or signs with.
    pub epoch: Epoch,
    /// The caller's own seat.
    pub me: Party,
}
