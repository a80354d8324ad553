//! Several vaults that reach one another without a socket, and a network between them that can be made bad.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Sender, channel},
    },
    time::Duration,
};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use strongroom_server::{
    certificates::fingerprint,
    cluster::{Administrator, Member, Membership, NodeId, Peers, Ring, Unreachable, document::ClusterId},
    door::{Door, Verdict},
    platform::Fake,
    vault::Vault,
};
use strongroom_shared::{
    fault::{Fault, FaultCode},
    message::*,
    secret::Wiped,
    wire::{CallId, HEADER, Header, encode_fault},
};

use crate::world::{Client, World};

/// What happens to a call on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// Nothing.
    None,
    /// The request is lost.
    Lost,
    /// The reply is lost.
    ReplyLost,
    /// The request arrives twice; the second reply counts.
    Twice,
    /// The last byte of the request is another.
    Altered,
    /// The last byte of the reply is another.
    ReplyAltered,
    /// The second half of the request is missing.
    Cut,
    /// The request arrives after the next one to the same node, when nobody waits for it any more.
    Late,
    /// The request arrives after the next one to the same node, and is answered: the two have changed places. Where no
    /// other comes for a while, it arrives by itself.
    Overtaken,
    /// Another frame arrives in the request's place.
    Replaced(Vec<u8>),
    /// The node that is called dies before it hears the request.
    Dies,
    /// It dies before anybody hears its reply.
    DiesAfter,
    /// Its front says, in its vault's place, that the policy refuses.
    Forged,
}

/// Whoever answers in a node's place: the caller's name and its frame, and the reply.
pub type Answering = Arc<dyn Fn(&str, &[u8]) -> Vec<u8> + Send + Sync>;

type Weather = Box<dyn Fn(&str, &str, CallId) -> Mishap + Send>;

/// The network: who is where, what happens on the way, and what was said.
pub struct Net {
    places: Mutex<HashMap<NodeId, Place>>,
    weather: Mutex<Weather>,
    /// Members that are no vaults of ours.
    pub doubles: Mutex<HashMap<NodeId, Answering>>,
    /// For how long each answer was waited for at most.
    pub patience: Mutex<Vec<Duration>>,
    /// Requests that arrive late.
    late: Mutex<Vec<Late>>,
    /// Every request as it was sent: from, to, the frame.
    pub said: Mutex<Vec<(String, String, Vec<u8>)>>,
    /// How many requests were overtaken by others.
    pub overtaken: AtomicUsize,
    numbers: AtomicU64,
}

/// How long a request waits for another one that overtakes it.
const WAIT: Duration = Duration::from_millis(30);

struct Late {
    number: u64,
    to: NodeId,
    /// The certificate of the caller.
    certificate: Vec<u8>,
    frame: Vec<u8>,
    /// The caller, if it still waits for the answer.
    waits: Option<Sender<Result<Vec<u8>, Fault>>>,
}

struct Place {
    name: String,
    vault: Weak<Vault<Fake>>,
}

impl Default for Net {
    fn default() -> Self {
        Self {
            places: Mutex::default(),
            doubles: Mutex::default(),
            weather: Mutex::new(Box::new(|_, _, _| Mishap::None)),
            patience: Mutex::default(),
            said: Mutex::default(),
            late: Mutex::default(),
            overtaken: AtomicUsize::new(0),
            numbers: AtomicU64::new(0),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Net {
    /// From now on this happens to calls, by caller, callee and call.
    pub fn weather(&self, weather: impl Fn(&str, &str, CallId) -> Mishap + Send + 'static) {
        *lock(&self.weather) = Box::new(weather);
    }

    /// What was late for this node arrives now.
    fn deliver_late(&self, node: NodeId, vault: &Vault<Fake>) {
        let now: Vec<Late> = lock(&self.late).extract_if(.., |late| late.to == node).collect();
        for Late { certificate, frame, waits, .. } in now {
            let answer = deliver(vault, &certificate, &frame);
            // Nobody hears what is answered to a request that was only late.
            if let Some(waits) = waits {
                self.overtaken.fetch_add(1, Ordering::Relaxed);
                waits.send(answer).unwrap();
            }
        }
    }

    /// Waits until another request has overtaken this one: its answer. None if none came, and it is to arrive now.
    fn be_overtaken(&self, to: NodeId, certificate: &[u8], frame: &[u8]) -> Option<Result<Vec<u8>, Fault>> {
        let (waits, answer) = channel();
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let (certificate, frame) = (certificate.to_vec(), frame.to_vec());
        lock(&self.late).push(Late { number, to, certificate, frame, waits: Some(waits) });
        if let Ok(answer) = answer.recv_timeout(WAIT) {
            return Some(answer);
        }
        let alone = lock(&self.late).extract_if(.., |late| late.number == number).next().is_some();
        // Or it is on its way already.
        if alone { None } else { Some(answer.recv().unwrap()) }
    }
}

/// One node's way into the network.
struct Wire {
    net: Arc<Net>,
    name: String,
    ring: Mutex<Option<Arc<Ring>>>,
}

impl Peers for Wire {
    fn call(&self, node: NodeId, frame: &[u8], patience: Duration) -> Result<Wiped, Unreachable> {
        let unreachable = |text: &str| Unreachable(text.into());
        let ring = lock(&self.ring).clone().ok_or_else(|| unreachable("no ring"))?;
        assert!(ring.nodes.iter().any(|neighbour| neighbour.id == node), "a call to a stranger");
        let double = lock(&self.net.doubles).get(&node).cloned();
        if let Some(double) = double {
            return Ok(Wiped::from(double(&self.name, frame)));
        }
        let places = lock(&self.net.places);
        let place = places.get(&node).ok_or_else(|| unreachable("nobody there"))?;
        let (to, vault) =
            (place.name.clone(), place.vault.upgrade().ok_or_else(|| unreachable("it is down"))?);
        drop(places);
        let call = CallId::from_number(u16::from_be_bytes([frame[6], frame[7]])).unwrap();
        lock(&self.net.said).push((self.name.clone(), to.clone(), frame.to_vec()));
        lock(&self.net.patience).push(patience);
        let mishap = lock(&self.net.weather)(&self.name, &to, call);
        let altered = |frame: &[u8]| {
            let mut frame = frame.to_vec();
            *frame.last_mut().unwrap() ^= 1;
            frame
        };
        let sent = match &mishap {
            Mishap::Lost => return Err(unreachable("lost")),
            Mishap::Dies => {
                lock(&self.net.places).remove(&node);
                return Err(unreachable("it has died"));
            }
            Mishap::Late => {
                let (certificate, frame) = (ring.certificate.clone(), frame.to_vec());
                lock(&self.net.late).push(Late {
                    number: u64::MAX,
                    to: node,
                    certificate,
                    frame,
                    waits: None,
                });
                return Err(unreachable("it takes too long"));
            }
            Mishap::Overtaken => match self.net.be_overtaken(node, &ring.certificate, frame) {
                Some(answer) => {
                    return answer.map(Wiped::from).map_err(|fault| Unreachable(fault.to_string()));
                }
                None => frame.to_vec(),
            },
            Mishap::Altered => altered(frame),
            Mishap::Cut => {
                let peer = vault.admit(&ring.certificate, ([127, 0, 0, 1], 9).into()).unwrap();
                let verdict = vault.handle(&peer, &frame[..frame.len() / 2], &mut Vec::new());
                assert!(matches!(verdict, Verdict::Close(_)), "{verdict:?}");
                return Err(unreachable("it ended the connection"));
            }
            Mishap::Replaced(other) => other.clone(),
            Mishap::Forged => {
                let mut reply = Vec::new();
                let header = Header::decode(frame[..HEADER].try_into().unwrap(), u32::MAX).unwrap();
                let said = Fault::new(FaultCode::PolicyRefused, "the policy of this key");
                encode_fault(&mut reply, header.id, header.call, &said);
                return Ok(Wiped::from(reply));
            }
            Mishap::None | Mishap::ReplyLost | Mishap::Twice | Mishap::ReplyAltered | Mishap::DiesAfter => {
                frame.to_vec()
            }
        };
        let deliver = || deliver(&vault, &ring.certificate, &sent);
        let reply = deliver().map_err(|fault| Unreachable(fault.to_string()))?;
        self.net.deliver_late(node, &vault);
        Ok(Wiped::from(match mishap {
            Mishap::ReplyLost => return Err(unreachable("the reply was lost")),
            Mishap::Twice => deliver().map_err(|fault| Unreachable(fault.to_string()))?,
            Mishap::ReplyAltered => altered(&reply),
            Mishap::DiesAfter => {
                lock(&self.net.places).remove(&node);
                return Err(unreachable("it has died"));
            }
            Mishap::None
            | Mishap::Lost
            | Mishap::Dies
            | Mishap::Altered
            | Mishap::Late
            | Mishap::Overtaken
            | Mishap::Cut
            | Mishap::Replaced(_)
            | Mishap::Forged => reply,
        }))
    }

    fn gather(&self, ring: Arc<Ring>) {
        let mut present = lock(&self.ring);
        // A front takes nothing that it was not told later.
        assert!(present.as_ref().is_none_or(|present| present.number < ring.number));
        *present = Some(ring);
    }
}

/// A frame from whoever shows this certificate.
pub fn deliver(vault: &Vault<Fake>, certificate: &[u8], frame: &[u8]) -> Result<Vec<u8>, Fault> {
    let peer = vault.admit(certificate, ([127, 0, 0, 1], 9).into())?;
    let mut reply = Vec::new();
    assert_eq!(vault.handle(&peer, frame, &mut reply), Verdict::Answered);
    vault.commit()?;
    assert!(Header::decode(reply[..HEADER].try_into().unwrap(), u32::MAX).is_ok());
    Ok(reply)
}

/// A node with its own world.
pub struct Node {
    pub name: String,
    pub world: World,
    pub vault: Arc<Vault<Fake>>,
    pub net: Arc<Net>,
    /// What it said of itself.
    pub said: Introduction,
}

impl Node {
    pub fn new(net: &Arc<Net>, name: &str, seed: u64) -> Self {
        let wire = Wire { net: Arc::clone(net), name: name.into(), ring: Mutex::default() };
        Self::over(net, name, seed, Arc::new(wire))
    }

    /// One with a way to the others that is none of this network's.
    pub fn over(net: &Arc<Net>, name: &str, seed: u64, peers: Arc<dyn Peers>) -> Self {
        let world = World::with_seed(seed);
        let vault = Arc::new(world.vault());
        vault.reach(peers);
        let admin = world.administrator(&vault);
        let said = world.ask(&vault, &admin, &Introduce { name: name.into(), challenge: None }).unwrap();
        let node = Self { name: name.into(), world, vault, net: Arc::clone(net), said };
        node.appear();
        node
    }

    /// Asks it again who it is.
    pub fn introduce(&mut self) {
        lock(&self.net.places).remove(&self.id());
        let ask = Introduce { name: self.name.clone(), challenge: None };
        self.said = self.world.ask(&self.vault, &self.admin(), &ask).unwrap();
        self.appear();
    }

    fn appear(&self) {
        let place = Place { name: self.name.clone(), vault: Arc::downgrade(&self.vault) };
        lock(&self.net.places).insert(self.id(), place);
    }

    /// kill -9, and a new process.
    pub fn restart(&mut self) {
        lock(&self.net.places).remove(&self.id());
        self.vault = Arc::new(self.world.vault());
        let wire = Wire { net: Arc::clone(&self.net), name: self.name.clone(), ring: Mutex::default() };
        self.vault.reach(Arc::new(wire));
        self.appear();
    }

    pub fn id(&self) -> NodeId {
        NodeId(fingerprint(&self.said.certificate))
    }

    pub fn admin(&self) -> Client {
        self.world.administrator(&self.vault)
    }

    pub fn install(&self, document: &[u8]) -> Result<Done, Fault> {
        let call = InstallMembership { document: document.to_vec() };
        self.world.ask(&self.vault, &self.admin(), &call)
    }

    pub fn member(&self) -> Member {
        Member {
            name: self.name.clone(),
            address: "127.0.0.1:7373".into(),
            server_name: "localhost".into(),
            authority: self.said.authority.clone(),
            id: self.id(),
            identity: self.said.identity.clone().try_into().unwrap(),
            sealing: self.said.sealing.clone().try_into().unwrap(),
        }
    }

    /// How it finds another node.
    pub fn finds(&self, other: &str) -> MemberState {
        let members = self.world.ask(&self.vault, &self.admin(), &ReadCluster {}).unwrap().members;
        members.into_iter().find(|member| member.name == other).unwrap()
    }

    /// Greets the others, after some time.
    pub fn beat(&self) {
        self.world.platform.pass(20_000_000);
        self.vault.beat();
    }

    /// Its records of one act, newest last.
    pub fn records(&self, act: &str) -> Vec<AuditRecord> {
        let mut records = self.world.records(&self.vault);
        records.retain(|record| record.act == act);
        records
    }
}

pub fn administrator(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

/// A document of these nodes, with the administrator of seed 1.
pub fn membership(version: u64, nodes: &[&Node]) -> Membership {
    let key = administrator(1).public_key().as_ref().try_into().unwrap();
    Membership {
        cluster: ClusterId([7; 16]),
        version,
        members: nodes.iter().map(|node| node.member()).collect(),
        administrators: vec![Administrator { name: "ann".into(), key }],
        approvals: 1,
    }
}

/// The same, signed.
pub fn document(version: u64, nodes: &[&Node]) -> Vec<u8> {
    membership(version, nodes).sign(&[&administrator(1)]).unwrap()
}

/// Three nodes that have greeted one another.
pub fn cluster() -> (Arc<Net>, Vec<Node>) {
    let net = Arc::new(Net::default());
    let nodes: Vec<_> = (1..).zip(["a", "b", "c"]).map(|(seed, name)| Node::new(&net, name, seed)).collect();
    let document = document(1, &nodes.iter().collect::<Vec<_>>());
    for node in &nodes {
        node.install(&document).unwrap();
    }
    nodes.iter().for_each(|node| node.vault.beat());
    (net, nodes)
}
