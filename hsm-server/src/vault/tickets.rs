//! Tickets: what a login gives, so that no later call, connection or restart needs the PIN again.
//!
//! A ticket names a partition, a role, the client and the epoch of the partition's PINs, and when it
//! expires. It is sealed with AES-256-GCM under a key that the root key gives, so it is good for every
//! process that holds the root key and for nobody to forge or to read.

use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{Aead, Payload},
};
use strongroom_shared::{fault::FaultCode, message::Ticket, secret::Secret};
use zeroize::Zeroizing;

use super::{error::Error, login::Role};
use crate::{crypto::Random, door::Peer, platform::Time, store::PartitionId};

const LABEL: &[u8] = b"strongroom ticket 2";
const NONCE: usize = 12;

/// What a ticket says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Login {
    /// Where.
    pub partition: PartitionId,
    /// As whom.
    pub role: Role,
    /// Of which epoch of the PINs.
    pub epoch: u64,
    /// Until when, in seconds since 1970.
    pub expires: u64,
}

/// Whoever makes and reads tickets.
pub struct Tickets {
    cipher: Aes256Gcm,
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tickets")
    }
}

impl Tickets {
    /// Tickets under this key.
    pub fn new(key: &Secret<[u8; 32]>) -> Self {
        Self { cipher: Aes256Gcm::new(key.expose().into()) }
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

    /// Opens the ticket that a client shows. Whether its epoch is the present one, the partition knows.
    ///
    /// # Errors
    /// `TicketExpired` if it is too old, another client's or not a ticket.
    pub fn open(&self, ticket: &Ticket, peer: &Peer, now: Time) -> Result<Login, Error> {
        let bad = || Error::from(FaultCode::TicketExpired);
        let (nonce, sealed) = ticket.0.split_first_chunk::<NONCE>().ok_or_else(bad)?;
        let payload = Payload { msg: sealed, aad: &holder(peer) };
        let text = Zeroizing::new(self.cipher.decrypt(nonce.into(), payload).map_err(|_| bad())?);
        let login = Login::decode(&text).ok_or_else(bad)?;
        if login.expires <= now / 1_000_000 { Err(bad()) } else { Ok(login) }
    }
}

/// Who may show a ticket: the client that logged in, with whatever certificate, and no later one of its name.
fn holder(peer: &Peer) -> Vec<u8> {
    [LABEL, &peer.id.0].concat()
}

impl Login {
    fn encode(&self) -> [u8; 25] {
        let role = match self.role {
            Role::Public => 0,
            Role::User => 1,
            Role::SecurityOfficer => 2,
        };
        let mut text = [0; 25];
        let parts = self.partition.0.into_iter().chain([role]);
        let parts = parts.chain(self.epoch.to_be_bytes()).chain(self.expires.to_be_bytes());
        text.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
        text
    }

    fn decode(text: &[u8]) -> Option<Self> {
        let (partition, rest) = text.split_first_chunk::<8>()?;
        let (role, rest) = rest.split_first()?;
        let (epoch, expires) = rest.split_first_chunk::<8>()?;
        let role = match role {
            1 => Role::User,
            2 => Role::SecurityOfficer,
            _ => return None,
        };
        Some(Self {
            partition: PartitionId(*partition),
            role,
            epoch: u64::from_be_bytes(*epoch),
            expires: u64::from_be_bytes(expires.try_into().ok()?),
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

    #[test]
    fn a_ticket_is_good_for_its_client_until_it_expires() {
        let tickets = Tickets::new(&Secret::new([1; 32]));
        let login = Login { partition: PartitionId([3; 8]), role: Role::User, epoch: 5, expires: 100 };
        let mut ticket = tickets.issue(&login, &peer(1), &Counter).unwrap();
        assert_eq!(tickets.open(&ticket, &peer(1), 99_999_999).unwrap(), login);
        assert!(tickets.open(&ticket, &peer(1), 100_000_000).is_err());
        assert!(tickets.open(&ticket, &peer(2), 0).is_err());
        assert!(Tickets::new(&Secret::new([2; 32])).open(&ticket, &peer(1), 0).is_err());
        ticket.0[20] ^= 1;
        assert!(tickets.open(&ticket, &peer(1), 0).is_err());
    }
}
