//! Tickets: what a login gives, so that no later call, connection or restart needs the PIN again.
//!
//! A ticket names a partition, a role, the client, the login and the epoch of the partition's PINs, and when it
//! ends. Calls may be made with it for some hours; after that it is only good to get another one, for as long
//! as its login may lie idle. A PIN change ends it at once, and so does a logout, as long as the vault runs: it
//! keeps in memory which logins have ended. It is sealed with AES-256-GCM under a key that the root key gives, so it is good for every
//! process that holds the root key and for nobody to forge or to read.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{Aead, Payload},
};
use strongroom_shared::{fault::FaultCode, message::Ticket, secret::Secret};
use zeroize::Zeroizing;

use super::{error::Error, login::Role};
use crate::{
    crypto::Random,
    door::{ClientId, Peer},
    platform::Time,
    store::PartitionId,
};

const LABEL: &[u8] = b"strongroom ticket 2";
const NONCE: usize = 12;
/// What a ticket says, in bytes.
const LENGTH: usize = 49;

/// How many logins of one client that ended by a logout are remembered; its earliest are forgotten first. So many of
/// one client's cost another's nothing.
const MOST_ENDED: usize = 1 << 14;

/// Tells logins apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LoginId(pub [u8; 16]);

/// What a ticket says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Login {
    /// Where.
    pub partition: PartitionId,
    /// As whom.
    pub role: Role,
    /// Of which epoch of the PINs.
    pub epoch: u64,
    /// Which of all logins: its tickets, one after the other, share this.
    pub id: LoginId,
    /// Until when calls may be made with this ticket, in seconds since 1970.
    pub expires: u64,
    /// Until when it may be renewed, in seconds since 1970.
    pub renewable: u64,
}

/// What a ticket is shown for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To act as who it says.
    Use,
    /// To get another one, or to end the login: its hours may be over.
    Keep,
}

/// Whoever makes and reads tickets.
pub struct Tickets {
    cipher: Aes256Gcm,
    ended: Mutex<HashMap<ClientId, Ended>>,
}

/// Logins of one client that a logout has ended before their time.
#[derive(Debug, Default)]
struct Ended {
    ids: HashSet<LoginId>,
    /// In the order of their logouts.
    order: VecDeque<LoginId>,
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tickets")
    }
}

impl Tickets {
    /// Tickets under this key.
    pub fn new(key: &Secret<[u8; 32]>) -> Self {
        Self { cipher: Aes256Gcm::new(key.expose().into()), ended: Mutex::default() }
    }

    /// Seals a login for a client.
    ///
    /// # Errors
    /// `Internal` if the seal cannot be made.
    pub fn issue(&self, login: &Login, peer: &Peer, random: &impl Random) -> Result<Ticket, Error> {
        let mut nonce = [0; NONCE];
        random.fill(&mut nonce);
        let text = Zeroizing::new(login.encode());
        let payload = Payload { msg: text.as_slice(), aad: &holder(peer) };
        let sealed = self.cipher.encrypt(&nonce.into(), payload).map_err(|_| FaultCode::Internal)?;
        Ok(Ticket(Zeroizing::new([nonce.as_slice(), &sealed].concat())))
    }

    /// Opens the ticket that a client shows, `now` in microseconds since 1970. Whether its epoch is the present
    /// one, the partition knows.
    ///
    /// # Errors
    /// `TicketExpired` if it is too old for this purpose, ended by a logout, another client's or not a ticket.
    pub fn open(&self, ticket: &Ticket, purpose: Purpose, peer: &Peer, now: Time) -> Result<Login, Error> {
        let bad = || Error::from(FaultCode::TicketExpired);
        let (nonce, sealed) = ticket.0.split_first_chunk::<NONCE>().ok_or_else(bad)?;
        let payload = Payload { msg: sealed, aad: &holder(peer) };
        let text = Zeroizing::new(self.cipher.decrypt(nonce.into(), payload).map_err(|_| bad())?);
        let login = Login::decode(&text).ok_or_else(bad)?;
        let end = match purpose {
            Purpose::Use => login.expires,
            Purpose::Keep => login.renewable,
        };
        let ended = || self.ended().get(&peer.id).is_some_and(|ended| ended.ids.contains(&login.id));
        let over = end <= now / 1_000_000 || ended();
        if over { Err(bad()) } else { Ok(login) }
    }

    /// Ends a login of a client: none of its tickets is good any more.
    pub fn end(&self, client: ClientId, id: LoginId) {
        let mut all = self.ended();
        let ended = all.entry(client).or_default();
        if ended.ids.insert(id) {
            ended.order.push_back(id);
        }
        if ended.order.len() > MOST_ENDED
            && let Some(earliest) = ended.order.pop_front()
        {
            ended.ids.remove(&earliest);
        }
    }

    fn ended(&self) -> MutexGuard<'_, HashMap<ClientId, Ended>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who may show a ticket: the client that logged in, with whatever certificate, and no later one of its name.
fn holder(peer: &Peer) -> Vec<u8> {
    [LABEL, &peer.id.0].concat()
}

impl Login {
    fn encode(&self) -> [u8; LENGTH] {
        let role = match self.role {
            Role::Public => 0,
            Role::User => 1,
            Role::SecurityOfficer => 2,
        };
        let mut text = [0; LENGTH];
        let parts = self.partition.0.into_iter().chain([role]);
        let parts = parts.chain(self.epoch.to_be_bytes()).chain(self.id.0);
        let parts = parts.chain(self.expires.to_be_bytes()).chain(self.renewable.to_be_bytes());
        text.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
        text
    }

    fn decode(text: &[u8]) -> Option<Self> {
        let (partition, rest) = text.split_first_chunk::<8>()?;
        let (role, rest) = rest.split_first()?;
        let (epoch, rest) = rest.split_first_chunk::<8>()?;
        let (id, rest) = rest.split_first_chunk::<16>()?;
        let (expires, renewable) = rest.split_first_chunk::<8>()?;
        let role = match role {
            1 => Role::User,
            2 => Role::SecurityOfficer,
            _ => return None,
        };
        Some(Self {
            partition: PartitionId(*partition),
            role,
            epoch: u64::from_be_bytes(*epoch),
            id: LoginId(*id),
            expires: u64::from_be_bytes(*expires),
            renewable: u64::from_be_bytes(renewable.try_into().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::door::ClientId;

    struct Counter;

    impl Random for Counter {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(7);
        }
    }

    fn peer(id: u8) -> Peer {
        Peer {
            id: ClientId([id; 16]),
            client: "desk".into(),
            partition: None,
            fingerprint: [0; 32],
            address: ([127, 0, 0, 1], 1).into(),
            connection: 1,
        }
    }

    const LOGIN: Login = Login {
        partition: PartitionId([3; 8]),
        role: Role::User,
        epoch: 5,
        id: LoginId([4; 16]),
        expires: 100,
        renewable: 300,
    };

    #[test]
    fn a_ticket_is_good_for_its_client_until_it_expires() {
        let tickets = Tickets::new(&Secret::new([1; 32]));
        let mut ticket = tickets.issue(&LOGIN, &peer(1), &Counter).unwrap();
        let open = |ticket: &Ticket, purpose, now| tickets.open(ticket, purpose, &peer(1), now);
        assert_eq!(open(&ticket, Purpose::Use, 99_999_999).unwrap(), LOGIN);
        assert!(open(&ticket, Purpose::Use, 100_000_000).is_err());
        assert_eq!(open(&ticket, Purpose::Keep, 299_999_999).unwrap(), LOGIN);
        assert!(open(&ticket, Purpose::Keep, 300_000_000).is_err());
        assert!(tickets.open(&ticket, Purpose::Keep, &peer(2), 0).is_err());
        assert!(Tickets::new(&Secret::new([2; 32])).open(&ticket, Purpose::Keep, &peer(1), 0).is_err());
        ticket.0[20] ^= 1;
        assert!(open(&ticket, Purpose::Keep, 0).is_err());
    }

    #[test]
    fn a_login_that_has_ended_has_no_good_ticket_and_what_is_remembered_is_bounded() {
        let tickets = Tickets::new(&Secret::new([1; 32]));
        let ticket = tickets.issue(&LOGIN, &peer(1), &Counter).unwrap();
        tickets.end(peer(1).id, LOGIN.id);
        tickets.end(peer(1).id, LOGIN.id);
        assert!(tickets.open(&ticket, Purpose::Use, &peer(1), 0).is_err());
        assert!(tickets.open(&ticket, Purpose::Keep, &peer(1), 0).is_err());
        for number in 0..2 * MOST_ENDED {
            tickets.end(peer(2).id, LoginId((number as u128).to_be_bytes()));
        }
        assert!(
            tickets.open(&ticket, Purpose::Keep, &peer(1), 0).is_err(),
            "another client's do not push it out"
        );
        let ended = &tickets.ended()[&peer(2).id];
        assert_eq!((ended.ids.len(), ended.order.len()), (MOST_ENDED, MOST_ENDED));
    }
}
