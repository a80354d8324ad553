//! Who holds the shares of a key after an act that was ordered, and who takes part in it.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    cluster::{
        Member, Membership,
        order::{OrderedAct, Seat},
    },
    crypto::threshold::{Committee, Party},
    vault::{Error, shared::certificate::Certified},
};

/// Who holds the shares afterwards, and who has lost its own.
pub(super) struct Move {
    /// How many hold a share and how many sign.
    pub committee: Committee,
    /// The nodes: Ed25519 keys, in the order of their seats.
    pub seats: Vec<[u8; 32]>,
    /// The node that gets a share again.
    pub lost: Option<[u8; 32]>,
}

impl Move {
    /// What an act does to the shares that there are.
    ///
    /// # Errors
    /// No committee can be so.
    pub fn of(act: &OrderedAct, old: &Certified) -> Result<Self, Error> {
        let committee = old.public.committee();
        let same = |lost| Self { committee, seats: old.claim.seats.clone(), lost };
        match act {
            OrderedAct::Refresh => Ok(same(None)),
            OrderedAct::Repair { node } if old.claim.seats.contains(node) => Ok(same(Some(*node))),
            OrderedAct::Repair { .. } => {
                Err(Error::forbidden("the node that is to be repaired holds no share of this key"))
            }
            OrderedAct::Share { .. } => Err(Error::forbidden("this key is shared already")),
            OrderedAct::Abandon => Err(Error::forbidden("only a new key is abandoned: destroy this one")),
            OrderedAct::Reshare { threshold, seats } => {
                let committee = committee_of(*threshold, seats)?;
                Ok(Self { committee, seats: seats.iter().map(|Seat(node)| *node).collect(), lost: None })
            }
        }
    }

    /// Whether the act can come about with the nodes that are members now.
    ///
    /// # Errors
    /// `Forbidden` or `AttributeValueInvalid`, saying why not.
    pub fn check(act: &OrderedAct, old: &Certified, membership: &Membership) -> Result<(), Error> {
        Self::of(act, old)?.parties(old, &BTreeMap::new(), membership).map(drop)
    }

    /// Whether shares are only made anew, and none is dealt.
    pub fn is_refresh(&self, old: &Certified) -> bool {
        self.lost.is_none() && self.committee == old.public.committee() && self.seats == old.claim.seats
    }

    /// The seat of a node afterwards.
    pub fn seat(&self, node: &[u8; 32]) -> Option<Party> {
        let place = self.seats.iter().position(|seat| seat == node)?;
        Party::new(u8::try_from(place + 1).ok()?)
    }

    /// Everybody who takes part: those who are to hold the shares, and dealers that leave.
    ///
    /// # Errors
    /// Somebody is no member, or a dealer sits where it may not.
    pub fn parties(
        &self,
        old: &Certified,
        dealers: &BTreeMap<Party, Party>,
        membership: &Membership,
    ) -> Result<BTreeMap<Party, Member>, Error> {
        let member = |node: &[u8; 32]| {
            let text = "a node that is to take part is no member of the cluster any more: order a reshare to those \
                        that are";
            membership.member(node).cloned().ok_or_else(|| Error::forbidden(text))
        };
        let seats = (1..).map_while(Party::new).zip(&self.seats);
        let mut parties = seats
            .map(|(party, node)| Ok((party, member(node)?)))
            .collect::<Result<BTreeMap<_, _>, Error>>()?;
        if dealers.values().collect::<BTreeSet<_>>().len() != dealers.len() {
            return Err(Error::forbidden("a dealer that deals twice"));
        }
        for (seat, was) in dealers {
            let place = usize::from(was.number()).checked_sub(1);
            let node = place.and_then(|place| old.claim.seats.get(place));
            let node = node.ok_or_else(|| Error::forbidden("a dealer that holds no share"))?;
            let sits = match self.seat(node) {
                Some(stays) => stays == *seat && self.lost != Some(*node),
                None => !self.committee.has(*seat) && parties.insert(*seat, member(node)?).is_none(),
            };
            if !sits {
                return Err(Error::forbidden("a dealer at a seat that is not its own"));
            }
        }
        Ok(parties)
    }
}

/// The committee at these seats.
///
/// # Errors
/// There can be none.
pub(super) fn committee_of(threshold: u8, seats: &[Seat]) -> Result<Committee, Error> {
    let parties = u8::try_from(seats.len()).unwrap_or(u8::MAX);
    let committee = Committee::new(threshold, parties)?;
    if seats.iter().collect::<BTreeSet<_>>().len() != seats.len() {
        return Err(Error::forbidden("a node is to hold two shares"));
    }
    Ok(committee)
}
