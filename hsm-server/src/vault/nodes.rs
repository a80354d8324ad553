//! Talking to the other nodes: greetings, handing newer documents on, and the sealed sessions from vault to vault.
//!
//! Greetings and documents go in the open (mutual TLS between fronts): they hold no secret, and a document proves
//! itself. Everything else is sealed from vault to vault. A session ends with the process, with the membership
//! document, and after an hour. It stands only between vaults under the very same document: two that were signed for
//! one version are told, and nothing sealed passes between their nodes.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use minicbor::{Decode, Encode, bytes::ByteVec};
use strongroom_shared::{
    fault::{Fault, FaultCode},
    mandate::Mandated,
    message::{
        Caller, GreetNode, HandsShaken, MemberState, NodeGreeting, OfferMembership, SealedCall, SealedReply,
        ShakeHands,
    },
    object::{ObjectId, Template},
    secret::Wiped,
    wire::{Call, HEADER, Handle, Header, Kind, decode_body, encode_request},
};

use super::{
    Context, Error, Vault,
    cluster::View,
    records::encode,
    shared::{
        Destruction,
        ceremonies::Coordinator,
        hearing::KnownBans,
        proof::Proof,
        words::{Account, Begin, Parcel, Progress, Statement, Warrant},
    },
};
use crate::{
    cluster::{
        Member, NodeId, Unreachable,
        noise::{self, NoiseError, Session},
        order::SignedOrder,
    },
    crypto::threshold::CeremonyId,
    platform::{Platform, Time},
};

const SECOND: Time = 1_000_000;
/// How long a caller uses a session before it makes a new one.
const RENEW: Time = 1800 * SECOND;
/// How long the other end knows it.
const LIFE: Time = 3600 * SECOND;
/// How long a node is left out that was found out.
const LEFT_OUT: Time = 3600 * SECOND;
/// How many sessions of one caller are known at once: its threads may shake hands at the same time.
const SESSIONS: usize = 4;
/// How long a node may take to answer a greeting or a handshake.
const PATIENCE: Duration = Duration::from_millis(500);
/// The longest wait before a node that does not answer is greeted again.
const MAX_BACKOFF: Time = 10 * SECOND;

/// What one vault asks another, sealed.
///
/// A question may come twice: after a lost answer it is asked again in another session. So each is safe to repeat, or
/// carries an id under which it is carried out once.
#[derive(Debug, Encode, Decode)]
pub enum Question {
    /// Are you the vault that the document names?
    #[n(0)]
    Vouch,
    /// Take part in a ceremony.
    #[n(1)]
    Begin(#[n(0)] Begin),
    /// Take part in its next round.
    #[n(2)]
    Step {
        /// Which ceremony.
        #[n(0)]
        id: CeremonyId,
        /// What others said.
        #[n(1)]
        parcels: Vec<Parcel>,
    },
    /// A ceremony is over.
    #[n(3)]
    Cancel(#[n(0)] CeremonyId),
    /// Have you the certificate of a key's shares?
    #[n(4)]
    Certificate {
        /// The partition's name.
        #[n(0)]
        partition: String,
        /// The private key.
        #[n(1)]
        key: ObjectId,
    },
    /// Make the share active that this certificate is for.
    #[n(5)]
    Activate {
        /// The certificate, encoded.
        #[cbor(n(0), with = "minicbor::bytes")]
        certificate: Vec<u8>,
        /// What administrators ordered, if they did.
        #[n(1)]
        order: Option<SignedOrder>,
    },
    /// Would you destroy your share of a key?
    #[n(6)]
    MayDestroy(#[n(0)] Mandated),
    /// Destroy it.
    #[n(7)]
    Destroy(#[n(0)] Mandated),
    /// The shares of a key sign: erase the one that yours has replaced.
    #[n(8)]
    Proven {
        /// The partition's name.
        #[n(0)]
        partition: String,
        /// The private key.
        #[n(1)]
        key: ObjectId,
        /// Signatures that show it.
        #[n(2)]
        proofs: Vec<Proof>,
    },
    /// Which pairs must not sign together, of the keys after this one?
    #[n(16)]
    Bans(#[n(0)] Option<ObjectId>),
    /// Would you have a descendant of a key? Say so, signed.
    #[n(20)]
    MayDerive(#[n(0)] Mandated),
    /// Have the descendant that this certificate is for.
    #[n(21)]
    Derive(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// Have you the certificate of a descendant?
    #[n(22)]
    Descendant {
        /// The partition's name.
        #[n(0)]
        partition: String,
        /// The descendant.
        #[n(1)]
        key: ObjectId,
    },
    /// Have a descendant of a key of which you hold a share since now.
    #[n(23)]
    Inherit {
        /// The attributes of its object.
        #[n(0)]
        attributes: Template,
        /// Its certificate.
        #[cbor(n(1), with = "minicbor::bytes")]
        certificate: Vec<u8>,
    },
}

/// What it answers, sealed.
#[derive(Debug, Encode, Decode)]
pub enum Answer {
    /// It is.
    #[n(0)]
    Vouched {
        /// The version of its membership document.
        #[n(0)]
        version: u64,
        /// How many bans it knows.
        #[n(1)]
        bans: u64,
    },
    /// It has taken part, and has come so far.
    #[n(1)]
    Progress(#[n(0)] Progress),
    /// It has this certificate, or none.
    #[n(2)]
    Certificate(#[n(0)] Account),
    /// It has done so.
    #[n(3)]
    Done,
    /// It knows these bans.
    #[n(16)]
    Bans(#[n(0)] KnownBans),
    /// It does not do what it was asked.
    #[n(17)]
    Refused(#[n(0)] Fault),
    /// It would.
    #[n(20)]
    Agreed(#[n(0)] Statement),
    /// It has this certificate of a descendant, or none.
    #[n(22)]
    Descendant(#[n(0)] Option<ByteVec>),
}

/// Why another node did not do what it was asked.
#[derive(Debug)]
pub enum NodeError {
    /// It did not answer.
    Unreachable(Unreachable),
    /// It refused.
    Refused(Fault),
    /// A refusal of a sealed question that is not sealed: any front may have said so.
    Unsealed(Fault),
    /// Its answer cannot be read.
    Malformed(String),
    /// What it sealed is not genuine, or no session could be had.
    Noise(NoiseError),
    /// It has another document of the same version.
    Split(u64),
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(error) => error.fmt(f),
            Self::Refused(fault) => write!(f, "it refused: {fault}"),
            Self::Unsealed(fault) => write!(f, "its front or vault says, unsealed: {fault}"),
            Self::Malformed(reason) => write!(f, "its answer cannot be read: {reason}"),
            Self::Noise(error) => error.fmt(f),
            Self::Split(version) => write!(
                f,
                "split: administrators signed two membership documents of version {version}, and it has the other one; \
                 nothing sealed passes until both have a later version: change the cluster at one of them"
            ),
        }
    }
}

impl From<NoiseError> for NodeError {
    fn from(error: NoiseError) -> Self {
        Self::Noise(error)
    }
}

/// How the other nodes are, and the sessions with them.
#[derive(Default)]
pub struct Links {
    health: Mutex<HashMap<NodeId, Health>>,
    /// By whom this vault calls.
    outgoing: Mutex<HashMap<NodeId, Outgoing>>,
    /// By the session's number, which this vault gave it.
    incoming: Mutex<HashMap<u64, Incoming>>,
    /// Whose turn it is to shake hands with a node.
    turns: Mutex<HashMap<NodeId, Arc<Mutex<()>>>>,
    /// Nodes that broke a protocol, until when.
    left_out: Mutex<HashMap<NodeId, Time>>,
    requests: AtomicU64,
}

/// How another node is.
#[derive(Clone, Debug, Default)]
struct Health {
    reachable: bool,
    sealed: bool,
    version: Option<u64>,
    digest: Option<ByteVec>,
    seen: Option<Time>,
    trouble: String,
    failures: u32,
    /// When it is to be greeted again, by the uptime.
    due: Time,
}

#[derive(Clone)]
struct Outgoing {
    number: u64,
    session: Arc<Session>,
    made: Time,
    /// Under which membership document.
    document: [u8; 32],
}

struct Incoming {
    from: NodeId,
    session: Arc<Session>,
    made: Time,
    /// Under which membership document.
    document: [u8; 32],
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Links {
    /// The document has changed: every session has ended, and everybody is greeted anew.
    pub fn renew(&self) {
        lock(&self.outgoing).clear();
        lock(&self.incoming).clear();
        for health in lock(&self.health).values_mut() {
            (health.sealed, health.due) = (false, 0);
        }
    }

    /// How a node is, for an administrator.
    pub fn state(&self, member: &Member) -> MemberState {
        let health = lock(&self.health).get(&member.id).cloned().unwrap_or_default();
        MemberState {
            name: member.name.clone(),
            reachable: health.reachable,
            sealed: health.sealed,
            version: health.version,
            seen: health.seen.map(|seen| seen / SECOND),
            trouble: health.trouble,
            digest: health.digest,
        }
    }

    /// Leaves a node out of new ceremonies for an hour: it broke the protocol.
    pub fn leave_out(&self, node: NodeId, now: Time) {
        lock(&self.left_out).insert(node, now.saturating_add(LEFT_OUT));
    }

    /// Whether it is left out.
    pub fn is_left_out(&self, node: NodeId, now: Time) -> bool {
        lock(&self.left_out).get(&node).is_some_and(|until| now < *until)
    }

    fn is_due(&self, node: NodeId, now: Time) -> bool {
        lock(&self.health).get(&node).is_none_or(|health| health.due <= now)
    }

    /// It answered a greeting.
    fn well(&self, node: NodeId, version: u64, digest: Option<ByteVec>, now: Time) {
        let mut health = lock(&self.health);
        let health = health.entry(node).or_default();
        *health = Health {
            reachable: true,
            version: Some(version),
            digest,
            seen: Some(now),
            sealed: health.sealed,
            trouble: std::mem::take(&mut health.trouble),
            failures: health.failures,
            due: 0,
        };
    }

    /// Its vault has proved who it is.
    fn vouched(&self, node: NodeId) {
        if let Some(health) = lock(&self.health).get_mut(&node) {
            (health.sealed, health.failures) = (true, 0);
            health.trouble.clear();
        }
    }

    /// Whether it answered when it was last asked, and its vault proved who it is.
    pub fn is_well(&self, node: NodeId) -> bool {
        lock(&self.health).get(&node).is_some_and(|health| health.sealed)
    }

    /// Something went wrong with it; the first time in a row it is told in the log.
    pub fn ill(&self, member: &Member, error: &NodeError, now: Time) {
        let mut health = lock(&self.health);
        let health = health.entry(member.id).or_default();
        let trouble = error.to_string();
        let split = matches!(error, NodeError::Split(_));
        if split && health.trouble != trouble {
            tracing::error!(node = member.name, %error, "the cluster is split");
        } else if !split && health.failures == 0 {
            tracing::warn!(node = member.name, %error, "another node has trouble");
        }
        (health.trouble, health.sealed) = (trouble, false);
        if matches!(error, NodeError::Unreachable(_)) {
            health.reachable = false;
        }
        let wait = SECOND.saturating_mul(1 << health.failures.min(5)).min(MAX_BACKOFF);
        health.failures = health.failures.saturating_add(1);
        health.due = now.saturating_add(wait);
    }

    fn outgoing(&self, node: NodeId, document: &[u8; 32], now: Time) -> Option<Outgoing> {
        let outgoing = lock(&self.outgoing);
        let link = outgoing.get(&node)?;
        (link.document == *document && now < link.made.saturating_add(RENEW)).then(|| link.clone())
    }

    /// A session that no other thread has replaced meanwhile.
    fn drop_outgoing(&self, node: NodeId, number: u64) {
        let mut outgoing = lock(&self.outgoing);
        if outgoing.get(&node).is_some_and(|link| link.number == number) {
            outgoing.remove(&node);
        }
    }

    fn incoming(&self, number: u64, from: NodeId, document: &[u8; 32], now: Time) -> Option<Arc<Session>> {
        let incoming = lock(&self.incoming);
        let link = incoming.get(&number)?;
        let good = link.from == from && link.document == *document && now < link.made.saturating_add(LIFE);
        good.then(|| Arc::clone(&link.session))
    }

    /// Takes a new session; the numbers of those that have ended for it.
    fn admit(&self, number: u64, link: Incoming) -> Vec<u64> {
        let mut incoming = lock(&self.incoming);
        let now = link.made;
        incoming.retain(|_, old| now < old.made.saturating_add(LIFE));
        let mut theirs: Vec<_> =
            incoming.iter().filter(|(_, old)| old.from == link.from).map(|(n, old)| (old.made, *n)).collect();
        theirs.sort_unstable();
        let many = (theirs.len() + 1).saturating_sub(SESSIONS);
        let ended: Vec<u64> = theirs.into_iter().take(many).map(|(_, oldest)| oldest).collect();
        ended.iter().for_each(|oldest| drop(incoming.remove(oldest)));
        incoming.insert(number, link);
        ended
    }
}

impl<P: Platform> Vault<P> {
    /// Greets every other node, hands the document to those whose own is older, and has the vaults of the others
    /// prove who they are.
    pub(super) fn greet_all(&self) {
        let Some(view) = self.cluster.view() else { return };
        for member in view.others() {
            if !self.cluster.links.is_due(member.id, self.platform.uptime()) {
                continue;
            }
            if let Err(error) = self.greet(&view, member) {
                self.cluster.links.ill(member, &error, self.platform.uptime());
            }
        }
        self.look_after_shares(&view);
    }

    fn greet(&self, view: &View, member: &Member) -> Result<(), NodeError> {
        let version = view.document.membership().version;
        let NodeGreeting { version: theirs, digest } = self.ask(member, &GreetNode { version }, PATIENCE)?;
        let same = digest.as_ref().is_none_or(|digest| **digest == *view.document.digest());
        self.cluster.links.well(member.id, theirs, digest, self.platform.now());
        if theirs < version {
            let document = view.document.bytes().to_vec();
            self.ask(member, &OfferMembership { document }, PATIENCE)?;
            let digest = view.document.digest().to_vec();
            self.cluster.links.well(member.id, version, Some(digest.into()), self.platform.now());
        }
        if theirs == version && !same {
            return Err(NodeError::Split(version));
        }
        if theirs == version {
            match self.consult(view, member, &Question::Vouch, PATIENCE)? {
                Answer::Vouched { bans, version: _ } => {
                    self.cluster.links.vouched(member.id);
                    self.hear_again(view, member, bans)?;
                }
                Answer::Progress(_)
                | Answer::Certificate(_)
                | Answer::Done
                | Answer::Bans(_)
                | Answer::Refused(_)
                | Answer::Agreed(_)
                | Answer::Descendant(_) => {
                    return Err(NodeError::Malformed("the answer to another question".into()));
                }
            }
        }
        Ok(())
    }

    /// Makes a call of the table to another node, in the open.
    fn ask<C: Call>(&self, member: &Member, call: &C, patience: Duration) -> Result<C::Reply, NodeError> {
        let no_way = || NodeError::Unreachable(Unreachable("this server may not call other nodes".into()));
        let peers = self.cluster.peers().ok_or_else(no_way)?;
        let id = self.cluster.links.requests.fetch_add(1, Ordering::Relaxed);
        let mut frame = Wiped::default();
        encode_request(&mut frame, id, &Caller::default(), call);
        let reply = peers.call(member.id, &frame, patience).map_err(NodeError::Unreachable)?;
        let malformed = |reason: &dyn fmt::Display| NodeError::Malformed(reason.to_string());
        let (head, body) = reply.split_first_chunk::<HEADER>().ok_or_else(|| malformed(&"no header"))?;
        let header = Header::decode(head, u32::MAX).map_err(|error| malformed(&error))?;
        if header.id != id || header.call != C::ID as u16 {
            return Err(malformed(&"it answers another call"));
        }
        match header.kind {
            Kind::Reply => decode_body(body).map_err(|error| malformed(&error)),
            Kind::Fault => Err(NodeError::Refused(decode_body(body).map_err(|error| malformed(&error))?)),
            Kind::Request => Err(malformed(&"a request for an answer")),
        }
    }

    /// Asks another node's vault, sealed. A session that it no longer knows is replaced by a new one, once.
    pub(super) fn consult(
        &self,
        view: &View,
        member: &Member,
        question: &Question,
        patience: Duration,
    ) -> Result<Answer, NodeError> {
        let text = encode(question);
        let known = self.cluster.links.outgoing(member.id, view.document.digest(), self.platform.uptime());
        if let Some(link) = known
            && let Some(answer) = self.consult_in(&link, member, &text, patience)?
        {
            return Ok(answer);
        }
        let begun = self.platform.uptime();
        let link = self.session(view, member, patience)?;
        let shaken = self.platform.uptime().saturating_sub(begun);
        let patience = patience.saturating_sub(Duration::from_micros(shaken));
        let ended = NodeError::Malformed("it ended a session that it had just begun".into());
        self.consult_in(&link, member, &text, patience)?.ok_or(ended)
    }

    /// None if the other end does not know the session any more: it has not looked at the question then.
    fn consult_in(
        &self,
        link: &Outgoing,
        member: &Member,
        text: &[u8],
        patience: Duration,
    ) -> Result<Option<Answer>, NodeError> {
        let counter = link.session.number();
        let sealed = link.session.seal(counter, text)?;
        let call = SealedCall { session: link.number, counter, sealed };
        let sealed = match self.ask(member, &call, patience) {
            Err(NodeError::Refused(fault)) => return Err(NodeError::Unsealed(fault)),
            answered => answered?.sealed,
        };
        if sealed.is_empty() {
            self.cluster.links.drop_outgoing(member.id, link.number);
            return Ok(None);
        }
        let answer = link.session.open_answer(counter, &sealed)?;
        match decode_body(&answer).map_err(|error| NodeError::Malformed(error.to_string()))? {
            Answer::Refused(fault) => Err(NodeError::Refused(fault)),
            answer => Ok(Some(answer)),
        }
    }

    /// A session for what another node is to read that does not answer it, and the other's number of it.
    pub(super) fn session_to(&self, view: &View, member: &Member) -> Result<(u64, Arc<Session>), NodeError> {
        let link = self.session(view, member, PATIENCE)?;
        Ok((link.number, link.session))
    }

    /// The session with a node, or a new one. Of many threads that want one, one shakes hands: the other end does not
    /// remember more than a few.
    fn session(&self, view: &View, member: &Member, patience: Duration) -> Result<Outgoing, NodeError> {
        let links = &self.cluster.links;
        let known = || links.outgoing(member.id, view.document.digest(), self.platform.uptime());
        if let Some(link) = known() {
            return Ok(link);
        }
        let turn = Arc::clone(lock(&links.turns).entry(member.id).or_default());
        let _turn = lock(&turn);
        known().map_or_else(|| self.shake_hands(view, member, patience.min(PATIENCE)), Ok)
    }

    /// The session of this number that another node made, if it has not ended.
    pub(super) fn session_from(&self, view: &View, member: &Member, number: u64) -> Option<Arc<Session>> {
        self.cluster.links.incoming(number, member.id, view.document.digest(), self.platform.uptime())
    }

    fn shake_hands(&self, view: &View, member: &Member, patience: Duration) -> Result<Outgoing, NodeError> {
        let identity = self.cluster.identity().ok_or(NoiseError::Handshake)?;
        let document = view.document.digest();
        let pair = noise::Pair { document, own: &identity.sealing, other: &member.sealing };
        let (waiting, message) = pair.initiate(self.randomness())?;
        let HandsShaken { session: number, message } = self.ask(member, &ShakeHands { message }, patience)?;
        let session = Arc::new(waiting.finish(&message)?);
        let link = Outgoing { number, session, made: self.platform.uptime(), document: *document };
        lock(&self.cluster.links.outgoing).insert(member.id, link.clone());
        Ok(link)
    }

    fn randomness(&self) -> noise::RandomSource {
        let platform = Arc::clone(&self.platform);
        noise::random_source(move |bytes| platform.fill(bytes))
    }

    /// The node that calls.
    fn calling(&self, context: &Context<'_>) -> Result<Member, Error> {
        self.cluster.neighbour(&context.peer.fingerprint).ok_or_else(|| FaultCode::Forbidden.into())
    }

    /// Answers what another vault asked.
    fn consider(
        &self,
        context: &mut Context<'_>,
        member: &Member,
        session: u64,
        question: Question,
    ) -> Result<Answer, Error> {
        let coordinator = || Coordinator { node: member.id, session, name: member.name.clone() };
        match question {
            Question::Begin(begin) => {
                self.begin_ceremony(context, coordinator(), begin, None).map(Answer::Progress)
            }
            Question::Step { id, parcels } => {
                self.step_ceremony(context, &coordinator(), id, parcels).map(Answer::Progress)
            }
            Question::Cancel(id) => {
                self.cluster.ceremonies.end(id, member.id);
                Ok(Answer::Done)
            }
            Question::Certificate { partition, key } => {
                Ok(Answer::Certificate(self.account_of(&partition, key)))
            }
            Question::Activate { certificate, order } => {
                self.activate(context, &Warrant { certificate, order }).map(|()| Answer::Done)
            }
            Question::Proven { partition, key, proofs } => {
                self.take_proofs(context, &partition, key, &proofs).map(|()| Answer::Done)
            }
            Question::MayDestroy(mandated) => {
                self.destroy_share(context, &mandated, Destruction::Ask).map(|()| Answer::Done)
            }
            Question::Destroy(mandated) => {
                self.destroy_share(context, &mandated, Destruction::Do).map(|()| Answer::Done)
            }
            Question::Bans(after) => Ok(Answer::Bans(self.bans_after(after))),
            Question::MayDerive(mandated) => {
                self.agree_to_child(context, &member.name, &mandated).map(Answer::Agreed)
            }
            Question::Derive(certificate) => self.take_child(context, &certificate).map(|()| Answer::Done),
            Question::Inherit { attributes, certificate } => {
                self.inherit_child(context, attributes, &certificate).map(|()| Answer::Done)
            }
            Question::Descendant { partition, key } => {
                Ok(Answer::Descendant(self.child_certificate(&partition, key).map(Into::into)))
            }
            Question::Vouch => {
                let view = self.cluster.view().ok_or(FaultCode::Forbidden)?;
                let version = view.document.membership().version;
                Ok(Answer::Vouched { version, bans: self.count_bans() })
            }
        }
    }
}

/// Whoever tampers is not told more than that it was noticed.
fn refused(error: NoiseError) -> Error {
    Error::caller(FaultCode::Forbidden, error.to_string())
}

impl<P: Platform> Handle<GreetNode> for Vault<P> {
    fn handle(&self, _: &mut Context<'_>, _: GreetNode) -> Result<NodeGreeting, Error> {
        let view = self.cluster.view().ok_or(FaultCode::Forbidden)?;
        let (version, digest) = (view.document.membership().version, view.document.digest().to_vec());
        Ok(NodeGreeting { version, digest: Some(digest.into()) })
    }
}

impl<P: Platform> Handle<ShakeHands> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: ShakeHands) -> Result<HandsShaken, Error> {
        let member = self.calling(context)?;
        let (Some(view), Some(identity)) = (self.cluster.view(), self.cluster.identity()) else {
            return Err(FaultCode::Forbidden.into());
        };
        let document = *view.document.digest();
        let pair = noise::Pair { document: &document, own: &identity.sealing, other: &member.sealing };
        let (session, message) = pair.respond(self.randomness(), &call.message).map_err(refused)?;
        let mut number = [0; 8];
        self.platform.fill(&mut number);
        let number = u64::from_be_bytes(number);
        let session = Arc::new(session);
        let link = Incoming { from: member.id, session, made: self.platform.uptime(), document };
        let ended = self.cluster.links.admit(number, link);
        self.cluster.ceremonies.end_sessions(&ended);
        Ok(HandsShaken { session: number, message })
    }
}

impl<P: Platform> Handle<SealedCall> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: SealedCall) -> Result<SealedReply, Error> {
        let member = self.calling(context)?;
        let view = self.cluster.view().ok_or(FaultCode::Forbidden)?;
        let now = self.platform.uptime();
        let Some(session) = self.cluster.links.incoming(call.session, member.id, view.document.digest(), now)
        else {
            return Ok(SealedReply { sealed: Vec::new() });
        };
        let text = session.open(call.counter, &call.sealed).map_err(refused)?;
        let question: Question =
            decode_body(&text).map_err(|error| Error::caller(FaultCode::Malformed, error.to_string()))?;
        let answer = self.consider(context, &member, call.session, question).unwrap_or_else(|error| {
            // Sealed, so that no front can put words into a vault's mouth.
            self.record_failure(context, &error);
            Answer::Refused(Fault::from(&error))
        });
        let sealed = session.seal(call.counter, &encode(&answer)).map_err(refused)?;
        Ok(SealedReply { sealed })
    }
}
