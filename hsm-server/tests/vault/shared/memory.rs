//! The key is in no single memory: three processes with a vault each make a key and sign with it, and at every message
//! between them the memory of all three is looked at. Only afterwards the test learns what to look for: it adds the
//! shares up, which nothing in the product can.

use std::{
    collections::HashMap,
    env,
    fs::File,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::FileExt,
    path::Path as FilePath,
    process::{Child, Command, Stdio},
    sync::{Mutex, OnceLock},
    thread,
    time::{Duration, Instant},
};

use frost_core::{Ciphersuite, Field, Group};
use strongroom_server::{
    cluster::{Member, Membership, NodeId, Peers, Ring, Unreachable},
    door::Door,
    store::{Path, SealedStore},
};
use strongroom_shared::secret::{Secret, Wiped};

use super::*;

/// Tells a process that it is a node: its number, and where the test listens.
const NODE: &str = "STRONGROOM_MEMORY_NODE";
/// How long one thing may take: a node that makes a key, each step of it looked at.
const PATIENCE: Duration = Duration::from_secs(120);
const NAMES: [&str; 3] = ["a", "b", "c"];

/// What the test asks of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Ask {
    Member,
    Join,
    Deliver,
    Beat,
    Generate,
    Sign,
    Share,
    Keep,
}

const ASKS: [Ask; 8] =
    [Ask::Member, Ask::Join, Ask::Deliver, Ask::Beat, Ask::Generate, Ask::Sign, Ask::Share, Ask::Keep];

fn say(stream: &mut TcpStream, what: u8, bytes: &[u8]) {
    stream.write_all(&[what]).unwrap();
    stream.write_all(&u32::try_from(bytes.len()).unwrap().to_be_bytes()).unwrap();
    stream.write_all(bytes).unwrap();
}

fn hear(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut head = [0; 5];
    stream.read_exact(&mut head).unwrap();
    let mut bytes = vec![0; u32::from_be_bytes(head[1..].try_into().unwrap()) as usize];
    stream.read_exact(&mut bytes).unwrap();
    (head[0], bytes)
}

fn exchange(port: u16, what: u8, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    say(&mut stream, what, bytes);
    hear(&mut stream).1
}

// A node.

/// A node's way to the others, which the test watches.
#[derive(Default)]
struct Watched {
    gate: u16,
    ring: Mutex<Option<Arc<Ring>>>,
    places: OnceLock<HashMap<NodeId, u16>>,
}

impl Peers for Watched {
    fn call(&self, node: NodeId, frame: &[u8], _: Duration) -> Result<Wiped, Unreachable> {
        let certificate = self.ring.lock().unwrap().as_ref().unwrap().certificate.clone();
        let port = self.places.get().unwrap()[&node];
        exchange(self.gate, 0, &[]);
        let asked = minicbor::to_vec((
            minicbor::bytes::ByteVec::from(certificate),
            minicbor::bytes::ByteVec::from(frame.to_vec()),
        ));
        Ok(Wiped::from(exchange(port, Ask::Deliver as u8, &asked.unwrap())))
    }

    fn gather(&self, ring: Arc<Ring>) {
        *self.ring.lock().unwrap() = Some(ring);
    }
}

/// What a process does that is a node.
fn be_node(told: &str) {
    let (number, gate) = told.split_once(' ').unwrap();
    // It ends with the test, however that ends.
    thread::spawn(|| {
        let _closed = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let (number, gate): (usize, u16) = (number.parse().unwrap(), gate.parse().unwrap());
    let net = Arc::new(Net::default());
    let peers = Arc::new(Watched { gate, ..Watched::default() });
    let way = Arc::clone(&peers) as Arc<dyn Peers>;
    let node = Node::over(&net, NAMES[number], number as u64 + 1, way);
    let (certificate, desk) = node.world.desk(&node.vault);
    let key = public(&desk_key()).to_vec();
    let admit = AdmitClient { name: "desk".into(), partition: "trading".into(), key };
    node.world.ask(&node.vault, &node.admin(), &admit).unwrap();
    // Nonces of mandates are of one application.
    let nonces = AtomicU64::new(number as u64 * 1000);
    let house = House { net, nodes: vec![node], desks: vec![desk], certificates: vec![certificate], nonces };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    exchange(gate, 1, &[&[number as u8][..], &listener.local_addr().unwrap().port().to_be_bytes()].concat());
    let kept: Mutex<Vec<Vec<u8>>> = Mutex::default();
    thread::scope(|scope| {
        for stream in listener.incoming() {
            let (house, peers, kept) = (&house, &peers, &kept);
            scope.spawn(move || answer(stream.unwrap(), house, peers, kept));
        }
    });
}

fn answer(mut stream: TcpStream, house: &House, peers: &Watched, kept: &Mutex<Vec<Vec<u8>>>) {
    let (what, text) = hear(&mut stream);
    let node = &house.nodes[0];
    let reply = match ASKS[usize::from(what)] {
        Ask::Member => minicbor::to_vec(node.member()).unwrap(),
        Ask::Join => {
            let (document, places): (minicbor::bytes::ByteVec, Vec<(NodeId, u16)>) =
                minicbor::decode(&text).unwrap();
            peers.places.set(places.into_iter().collect()).unwrap();
            node.install(&document).unwrap();
            Vec::new()
        }
        Ask::Deliver => {
            let (certificate, frame): (minicbor::bytes::ByteVec, minicbor::bytes::ByteVec) =
                minicbor::decode(&text).unwrap();
            deliver(&node.vault, &certificate, &frame).unwrap()
        }
        Ask::Beat => {
            node.world.platform.pass(20_000_000);
            node.vault.beat();
            node.vault.tend();
            Vec::new()
        }
        Ask::Generate => {
            let kind = KINDS[usize::from(text[0])];
            let made = house.generate(0, &kind.wish(2, 3)).unwrap();
            let call = ReadAttributes { object: made.public.id, kinds: vec![CKA_EC_POINT] };
            let answers = house.ask(0, &call).unwrap().answers;
            let Answer::Value(Value::Bytes(point)) = &answers[0] else { panic!("no CKA_EC_POINT") };
            [&made.private.id.0[..], point].concat()
        }
        Ask::Sign => {
            let (kind, key) = (KINDS[usize::from(text[0])], ObjectId(text[1..].try_into().unwrap()));
            house.sign(0, kind, key, MESSAGE).unwrap()
        }
        Ask::Share => {
            let fill = Box::new(|bytes: &mut [u8]| bytes.fill(7));
            let store = SealedStore::open(node.world.store.clone(), Secret::new(ROOT), fill).unwrap();
            let id = ObjectId(text.try_into().unwrap());
            let share = |path: &Path| matches!(path, Path::Share(_, key) if *key == id);
            let record = store.1.into_iter().find(|(path, _)| share(path)).unwrap().1;
            let mut decoder = minicbor::Decoder::new(&record);
            decoder.array().unwrap();
            decoder.bytes().unwrap().to_vec()
        }
        Ask::Keep => {
            kept.lock().unwrap().push(text);
            Vec::new()
        }
    };
    say(&mut stream, 0, &reply);
}

// The test.

const KINDS: [Kind; 2] = [Kind::K1, Kind::Ed25519];
const PAGE: usize = 4096;

/// What was ever seen in the memory of each process: every page, with the beginning of the next one.
#[derive(Default)]
struct Seen([HashMap<[u8; 32], Vec<u8>>; 3]);

impl Seen {
    /// Looks at everything that this process can write to.
    fn look(&mut self, node: usize, process: u32) {
        let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
        let memory = File::open(format!("/proc/{process}/mem")).unwrap();
        for line in maps.lines() {
            let (range, rest) = line.split_once(' ').unwrap();
            if !rest.starts_with("rw") {
                continue;
            }
            let (start, end) = range.split_once('-').unwrap();
            let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16).unwrap());
            let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
            // It may have been given back since.
            if memory.read_exact_at(&mut bytes, start).is_err() {
                continue;
            }
            for at in (0..bytes.len()).step_by(PAGE) {
                let page = &bytes[at..bytes.len().min(at + PAGE + 31)];
                self.0[node].entry(openssl::sha::sha256(page)).or_insert_with(|| page.to_vec());
            }
        }
    }

    /// In which processes this was ever seen, in either order of its bytes.
    fn find(&self, number: &[u8; 32]) -> [bool; 3] {
        let mut reversed = *number;
        reversed.reverse();
        let holds = |page: &Vec<u8>| {
            page.windows(32).any(|window| window[0] == number[0] && window == number)
                || page.windows(32).any(|window| window[0] == reversed[0] && window == reversed)
        };
        [0, 1, 2].map(|node| self.0[node].values().any(holds))
    }
}

/// The processes. Dropping them ends them.
struct Family {
    children: Vec<Child>,
    ports: Vec<u16>,
    seen: Arc<Mutex<Seen>>,
}

impl Drop for Family {
    fn drop(&mut self) {
        for child in &mut self.children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Family {
    fn new() -> Self {
        let gate = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = gate.local_addr().unwrap().port();
        let spawn = |number: usize| {
            Command::new(env::current_exe().unwrap())
                .args(["shared::memory::the_key_is_in_no_single_memory", "--exact", "--nocapture"])
                .env(NODE, format!("{number} {port}"))
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        };
        let children: Vec<Child> = (0..3).map(spawn).collect();
        let processes: Vec<u32> = children.iter().map(Child::id).collect();
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let (told, said) = std::sync::mpsc::channel();
        let looks = Arc::clone(&seen);
        thread::spawn(move || {
            for stream in gate.incoming() {
                let mut stream = stream.unwrap();
                match hear(&mut stream) {
                    (1, place) => {
                        let port = u16::from_be_bytes([place[1], place[2]]);
                        // Nobody listens once the test is over.
                        let _over = told.send((place[0], port));
                    }
                    _ => {
                        let mut seen = looks.lock().unwrap();
                        for (node, process) in processes.iter().enumerate() {
                            seen.look(node, *process);
                        }
                    }
                }
                say(&mut stream, 0, &[]);
            }
        });
        let mut family = Self { children, ports: vec![0; 3], seen };
        let deadline = Instant::now() + Duration::from_secs(60);
        for _ in 0..3 {
            let left = deadline.saturating_duration_since(Instant::now());
            let (number, port) = said.recv_timeout(left).expect("three nodes within a minute");
            family.ports[usize::from(number)] = port;
        }
        family.join();
        family
    }

    fn ask(&self, node: usize, what: Ask, text: &[u8]) -> Vec<u8> {
        exchange(self.ports[node], what as u8, text)
    }

    fn join(&self) {
        let members: Vec<Member> =
            (0..3).map(|node| minicbor::decode(&self.ask(node, Ask::Member, &[])).unwrap()).collect();
        let places: Vec<(NodeId, u16)> =
            members.iter().map(|member| member.id).zip(self.ports.iter().copied()).collect();
        let document = Membership { members, ..membership(1, &[]) }.sign(&[&administrator(1)]).unwrap();
        let told = minicbor::to_vec((minicbor::bytes::ByteVec::from(document), places)).unwrap();
        (0..3).for_each(|node| drop(self.ask(node, Ask::Join, &told)));
        for _ in 0..2 {
            (0..3).for_each(|node| drop(self.ask(node, Ask::Beat, &[])));
        }
    }

    fn look(&self) {
        let mut seen = self.seen.lock().unwrap();
        for (node, child) in self.children.iter().enumerate() {
            seen.look(node, child.id());
        }
    }
}

/// The number in a share as it is stored.
fn number(kind: Kind, share: &[u8]) -> [u8; 32] {
    let mut decoder = minicbor::Decoder::new(share);
    decoder.array().unwrap();
    (0..3).for_each(|_| decoder.skip().unwrap());
    let secret = decoder.bytes().unwrap();
    match kind {
        Kind::K1 => {
            let party: dkls23::protocols::Party<k256::Secp256k1> = postcard::from_bytes(secret).unwrap();
            k256::elliptic_curve::PrimeField::to_repr(&party.poly_point).into()
        }
        Kind::Ed25519 | Kind::P256 | Kind::Bip340 => secret.try_into().unwrap(),
    }
}

/// The private key of a 2-of-n key, from the first two numbers, and its public key.
fn whole<C>(first: [u8; 32], second: [u8; 32]) -> ([u8; 32], Vec<u8>)
where
    C: Ciphersuite,
    <C::Group as Group>::Field: Field<Serialization = [u8; 32]>,
{
    let read = |bytes| <C::Group as Group>::Field::deserialize(bytes).ok().unwrap();
    let (first, second) = (read(&first), read(&second));
    // The line through (1, first) and (2, second) at 0.
    let key = first + first - second;
    let point = C::Group::serialize(&(C::Group::generator() * key)).ok().unwrap();
    (<C::Group as Group>::Field::serialize(&key), point.as_ref().to_vec())
}

#[test]
fn the_key_is_in_no_single_memory() {
    if let Ok(told) = env::var(NODE) {
        return be_node(&told);
    }
    assert!(FilePath::new("/proc/self/mem").exists(), "this test reads processes' memory through /proc");
    let family = Family::new();
    for (code, kind) in (0..).zip(KINDS) {
        *family.seen.lock().unwrap() = Seen::default();
        let made = family.ask(0, Ask::Generate, &[code]);
        // The key's id; its public key in an OCTET STRING.
        let (id, point) = made.split_at(16);
        for node in [0, 1, 2, 0] {
            let signature = family.ask(node, Ask::Sign, &[&[code][..], id].concat());
            assert_eq!(signature.len(), 64);
        }
        family.look();
        // From here on the test knows; no memory is looked at before the last step.
        let numbers: Vec<_> = (0..3).map(|node| number(kind, &family.ask(node, Ask::Share, id))).collect();
        let (whole, public) = match kind {
            Kind::K1 | Kind::P256 | Kind::Bip340 => {
                whole::<frost_secp256k1_tr::Secp256K1Sha256TR>(numbers[0], numbers[1])
            }
            Kind::Ed25519 => whole::<frost_ed25519::Ed25519Sha512>(numbers[0], numbers[1]),
        };
        // A point on secp256k1 by its x, which stands after a byte in both forms.
        let shown = if kind == Kind::K1 { &point[3..35] } else { &point[2..34] };
        assert_eq!(shown, &public[public.len() - 32..], "{kind:?}: the numbers add up to another key");
        let seen = family.seen.lock().unwrap();
        let pages: Vec<usize> = seen.0.iter().map(HashMap::len).collect();
        assert!(pages.iter().all(|pages| *pages > 500), "{pages:?}");
        assert_eq!(seen.find(&whole), [false; 3], "{kind:?}: the whole key was in a memory");
        // Each node has its own share in its memory, where it would have the whole key too, and nobody else's.
        for (node, share) in numbers.iter().enumerate() {
            assert_eq!(
                seen.find(share),
                [0, 1, 2].map(|at| at == node),
                "{kind:?}: the share of node {node}"
            );
        }
        drop(seen);
        // What was put there is found.
        family.ask(1, Ask::Keep, &whole);
        family.look();
        assert_eq!(family.seen.lock().unwrap().find(&whole), [false, true, false]);
    }
}
