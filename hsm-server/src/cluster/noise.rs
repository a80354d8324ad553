//! Sessions between two vaults: Noise KK (revision 34 of the framework), X25519, AES-256-GCM, SHA-256.
//!
//! Each end knows the other's static key beforehand, from the membership document, so two messages suffice and both
//! ends are authentic from the first. Afterwards messages carry explicit numbers: calls run side by side and may
//! overtake one another, and [`Session::open`] takes each number once.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use snow::{Builder, HandshakeState, StatelessTransportState};
use strongroom_shared::secret::{Secret, Wiped};

pub use super::aws_lc::{RandomSource, public_key};
use super::{aws_lc::AwsLc, window::Window};

const PATTERN: &str = "Noise_KK_25519_AESGCM_SHA256";
const LABEL: &[u8] = b"strongroom node 2\0";
/// The longest message of Noise, in bytes (section 3).
const LONGEST: usize = 65_535;
/// What sealing adds to a piece, in bytes.
const TAG: usize = 16;
/// What stands before a text: its length.
const LENGTH: usize = 4;
/// The most pieces of a text: the low bits of a nonce.
const PIECES: u64 = 1 << 12;
/// A handshake message, in bytes: an ephemeral key and a tag.
const HANDSHAKE: usize = 32 + TAG;

/// Why a handshake or a message failed. It does not say more, because that would help whoever tampers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoiseError {
    /// The other end does not hold the key that the membership document gives it, or another document is in force
    /// there, or somebody changed a message.
    Handshake,
    /// A sealed text is not genuine.
    Sealed,
    /// A sealed text came before.
    Replayed,
    /// A text is too long, or the session has sealed as many as it may.
    Exhausted,
}

impl fmt::Display for NoiseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Handshake => {
                "the handshake failed: another key than the membership document says, another document there, or a \
                 changed message"
            }
            Self::Sealed => "a sealed message is not genuine",
            Self::Replayed => "a sealed message came twice",
            Self::Exhausted => "too much for one session",
        })
    }
}

impl std::error::Error for NoiseError {}

/// Two nodes, as one of them sees it.
#[derive(Debug)]
pub struct Pair<'a> {
    /// The digest of the membership document that is in force for both: under two documents there is no session.
    pub document: &'a [u8; 32],
    /// One's own X25519 private key.
    pub own: &'a Secret<[u8; 32]>,
    /// The other's public key.
    pub other: &'a [u8; 32],
}

impl Pair<'_> {
    fn state(
        &self,
        random: RandomSource,
        build: impl FnOnce(Builder<'_>) -> Result<HandshakeState, snow::Error>,
    ) -> Result<HandshakeState, NoiseError> {
        let prologue = [LABEL, self.document].concat();
        let builder = PATTERN.parse().map(|pattern| Builder::with_resolver(pattern, Box::new(AwsLc(random))));
        builder
            .and_then(|builder| builder.prologue(&prologue)?.local_private_key(self.own.expose()))
            .and_then(|builder| build(builder.remote_public_key(self.other)?))
            .map_err(|_| NoiseError::Handshake)
    }

    /// The caller's side: what to send, and what waits for the answer.
    ///
    /// # Errors
    /// `Handshake` if the other's key is not one.
    pub fn initiate(&self, random: RandomSource) -> Result<(Initiator, Vec<u8>), NoiseError> {
        let mut state = self.state(random, |builder| builder.build_initiator())?;
        let mut message = vec![0; HANDSHAKE];
        state.write_message(&[], &mut message).map_err(|_| NoiseError::Handshake)?;
        Ok((Initiator(state), message))
    }

    /// The other side: the session, and what to answer.
    ///
    /// # Errors
    /// `Handshake` if the message was not made by the holder of the other's key.
    pub fn respond(&self, random: RandomSource, message: &[u8]) -> Result<(Session, Vec<u8>), NoiseError> {
        let mut state = self.state(random, |builder| builder.build_responder())?;
        state.read_message(message, &mut []).map_err(|_| NoiseError::Handshake)?;
        let mut answer = vec![0; HANDSHAKE];
        state.write_message(&[], &mut answer).map_err(|_| NoiseError::Handshake)?;
        Ok((Session::new(state)?, answer))
    }
}

/// A handshake that waits for its answer.
#[derive(Debug)]
pub struct Initiator(HandshakeState);

impl Initiator {
    /// The session.
    ///
    /// # Errors
    /// `Handshake` if the answer was not made by the holder of the other's key, to this very message.
    pub fn finish(mut self, answer: &[u8]) -> Result<Session, NoiseError> {
        self.0.read_message(answer, &mut []).map_err(|_| NoiseError::Handshake)?;
        Session::new(self.0)
    }
}

/// A session with another vault. Many threads use it at once.
pub struct Session {
    transport: StatelessTransportState,
    next: AtomicU64,
    came: Mutex<Window>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}

impl Session {
    fn new(state: HandshakeState) -> Result<Self, NoiseError> {
        let transport = state.into_stateless_transport_mode().map_err(|_| NoiseError::Handshake)?;
        Ok(Self { transport, next: AtomicU64::new(0), came: Mutex::new(Window::new()) })
    }

    /// A number that no other text of this end has had.
    pub fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Seals a text under a number of one's own, or in answer to the other's text of this number. Nothing else may
    /// be sealed under it.
    ///
    /// # Errors
    /// `Exhausted`.
    pub fn seal(&self, number: u64, text: &[u8]) -> Result<Vec<u8>, NoiseError> {
        let length = u32::try_from(text.len()).map_err(|_| NoiseError::Exhausted)?;
        let text = Wiped::from([&length.to_be_bytes()[..], text].concat());
        let parts = text.chunks(LONGEST - TAG);
        let mut sealed = vec![0; text.len() + TAG * parts.len()];
        for ((place, part), piece) in (0..).zip(parts).zip(sealed.chunks_mut(LONGEST)) {
            let written = self.transport.write_message(nonce(number, place)?, part, piece);
            written.map_err(|_| NoiseError::Exhausted)?;
        }
        Ok(sealed)
    }

    /// Opens a question of the other end: each number once.
    ///
    /// # Errors
    /// `Sealed` or `Replayed`.
    pub fn open(&self, number: u64, sealed: &[u8]) -> Result<Wiped, NoiseError> {
        let text = self.open_answer(number, sealed)?;
        // Only what is genuine counts as come.
        let mut came = self.came.lock().unwrap_or_else(PoisonError::into_inner);
        if came.take(number) { Ok(text) } else { Err(NoiseError::Replayed) }
    }

    /// Opens the answer to one's own question of this number, which the caller takes once.
    ///
    /// # Errors
    /// `Sealed`.
    pub fn open_answer(&self, number: u64, sealed: &[u8]) -> Result<Wiped, NoiseError> {
        let mut text = Wiped::from(vec![0; sealed.len()]);
        let mut length = 0;
        for (place, part) in (0..).zip(sealed.chunks(LONGEST)) {
            let nonce = nonce(number, place).map_err(|_| NoiseError::Sealed)?;
            let rest = text.get_mut(length..).unwrap_or_default();
            length += self.transport.read_message(nonce, part, rest).map_err(|_| NoiseError::Sealed)?;
        }
        text.truncate(length);
        // The length is inside the seal, so pieces cannot be cut off its end.
        let (length, rest) = text.split_first_chunk::<LENGTH>().ok_or(NoiseError::Sealed)?;
        if u32::from_be_bytes(*length) as usize != rest.len() {
            return Err(NoiseError::Sealed);
        }
        Ok(rest.into())
    }
}

/// The nonce of a piece: the text's number and its place in it. Never 2^64 - 1, which Noise keeps for itself.
fn nonce(number: u64, place: u64) -> Result<u64, NoiseError> {
    let base = number.checked_mul(PIECES).filter(|base| *base < u64::MAX - PIECES);
    base.filter(|_| place < PIECES).map(|base| base + place).ok_or(NoiseError::Exhausted)
}

/// Where a handshake's ephemeral keys come from.
pub fn random_source(random: impl Fn(&mut [u8]) + Send + Sync + 'static) -> RandomSource {
    Arc::new(random)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(seed: u8) -> RandomSource {
        let drawn = AtomicU64::new(u64::from(seed) << 32);
        random_source(move |bytes| {
            let draw = drawn.fetch_add(1, Ordering::Relaxed).to_be_bytes();
            let block = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &draw);
            bytes.copy_from_slice(&block.as_ref()[..bytes.len()]);
        })
    }

    struct Node(Secret<[u8; 32]>, [u8; 32]);

    fn node(seed: u8) -> Node {
        let key = Secret::new([seed; 32]);
        let public = public_key(&key).unwrap();
        Node(key, public)
    }

    fn pair<'a>(own: &'a Node, other: &'a Node) -> Pair<'a> {
        Pair { document: &[5; 32], own: &own.0, other: &other.1 }
    }

    fn sessions() -> (Session, Session) {
        let (a, b) = (node(1), node(2));
        let (waiting, first) = pair(&a, &b).initiate(random(1)).unwrap();
        let (theirs, second) = pair(&b, &a).respond(random(2), &first).unwrap();
        (waiting.finish(&second).unwrap(), theirs)
    }

    #[test]
    fn texts_of_every_length_arrive_in_any_order() {
        let (ours, theirs) = sessions();
        let lengths = [0, 1, LONGEST - TAG - LENGTH, LONGEST - TAG, LONGEST, 300_000];
        let sealed: Vec<_> = lengths
            .iter()
            .map(|length| {
                let number = ours.number();
                (
                    number,
                    vec![*length as u8; *length],
                    ours.seal(number, &vec![*length as u8; *length]).unwrap(),
                )
            })
            .collect();
        for (number, text, sealed) in sealed.iter().rev() {
            assert_eq!(*theirs.open(*number, sealed).unwrap(), *text);
            assert_eq!(theirs.open(*number, sealed), Err(NoiseError::Replayed));
            let answer = theirs.seal(*number, b"yes").unwrap();
            assert_eq!(*ours.open_answer(*number, &answer).unwrap(), b"yes");
        }
    }

    #[test]
    fn what_was_changed_is_not_opened() {
        let (ours, theirs) = sessions();
        let sealed = ours.seal(0, &vec![7; 100_000]).unwrap();
        for place in [0, 70_000, sealed.len() - 1] {
            let mut bad = sealed.clone();
            bad[place] ^= 1;
            assert_eq!(theirs.open(0, &bad), Err(NoiseError::Sealed));
        }
        assert_eq!(theirs.open(1, &sealed), Err(NoiseError::Sealed), "another number");
        assert_eq!(theirs.open(0, &sealed[..LONGEST]), Err(NoiseError::Sealed), "cut");
        assert_eq!(theirs.open(0, &[]), Err(NoiseError::Sealed));
        assert_eq!(ours.open_answer(0, &sealed), Err(NoiseError::Sealed), "sent back");
        assert!(theirs.open(0, &sealed).is_ok(), "none of this used the number up");
        assert_eq!(sessions().1.open(0, &ours.seal(1, b"x").unwrap()), Err(NoiseError::Sealed));
        assert_eq!(ours.seal(u64::MAX / 2, b"x"), Err(NoiseError::Exhausted));
    }

    #[test]
    fn only_the_two_of_them_shake_hands() {
        let (a, b, eve) = (node(1), node(2), node(3));
        let (_, first) = pair(&eve, &b).initiate(random(3)).unwrap();
        assert_eq!(pair(&b, &a).respond(random(2), &first).unwrap_err(), NoiseError::Handshake);
        let (waiting, first) = pair(&a, &b).initiate(random(1)).unwrap();
        assert!(pair(&eve, &a).respond(random(3), &first).is_err());
        let other = Pair { document: &[6; 32], ..pair(&b, &a) };
        assert!(other.respond(random(2), &first).is_err(), "under another document");
        let (_, mut second) = pair(&b, &a).respond(random(2), &first).unwrap();
        second[40] ^= 1;
        assert_eq!(waiting.finish(&second).unwrap_err(), NoiseError::Handshake);
        assert!(pair(&b, &a).respond(random(2), &first[..47]).is_err());
        assert!(pair(&b, &a).respond(random(2), &[]).is_err());
    }
}
