//! Calls to other nodes: mutual TLS to their ordinary port, with this node's certificate and the other's own CA.
//!
//! The vault says who the nodes are and what to send; nothing is opened on the way. A connection carries one call at
//! a time and is kept for the next one.

use std::{
    collections::{HashMap, HashSet},
    fmt, io,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName},
};
use strongroom_shared::{
    secret::Wiped,
    wire::{ALPN, HEADER, Header, Kind},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tracing::{debug, error};

use super::lane::LaneEnd;
use crate::{
    cluster::{Neighbour, NodeId, Ring},
    hop::ToVault,
};

/// How long a connection to a node is kept that carries nothing. Well below what the other end allows.
const IDLE: Duration = Duration::from_secs(60);
/// How many connections to one node a lane keeps that carry nothing.
const KEPT: usize = 16;

/// The other nodes, ready to be called.
#[derive(Debug, Default)]
pub struct Ready {
    /// Which vault said so, and which of all that it told: greater is newer.
    number: (u64, u64),
    nodes: HashMap<NodeId, Node>,
}

#[derive(Debug)]
struct Node {
    neighbour: Neighbour,
    server_name: ServerName<'static>,
    tls: Arc<ClientConfig>,
}

impl Ready {
    /// What the vault of this `generation` told. A node that cannot be called for what its entry says is left out.
    pub fn new(generation: u64, ring: &Ring) -> Self {
        let mut nodes = HashMap::new();
        for neighbour in &ring.nodes {
            match Node::new(ring, neighbour) {
                Ok(node) => drop(nodes.insert(neighbour.id, node)),
                Err(error) => error!(node = neighbour.name, %error, "this node cannot be called"),
            }
        }
        Self { number: (generation, ring.number), nodes }
    }

    /// Whether it is to take the other's place.
    pub fn is_newer(&self, than: &Self) -> bool {
        self.number > than.number
    }

    /// The certificates of nodes, which may shake hands here.
    pub fn certificates(&self) -> HashSet<[u8; 32]> {
        self.nodes.keys().map(|id| id.0).collect()
    }
}

impl Node {
    fn new(ring: &Ring, neighbour: &Neighbour) -> Result<Self, Box<dyn std::error::Error>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(neighbour.authority.clone()))?;
        let key = PrivatePkcs8KeyDer::from(ring.key.0.to_vec());
        let mut tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![CertificateDer::from(ring.certificate.clone())], key.into())?;
        tls.alpn_protocols = vec![ALPN.to_vec()];
        tls.resumption = Resumption::disabled();
        let server_name = ServerName::try_from(neighbour.server_name.clone())?;
        Ok(Self { neighbour: neighbour.clone(), server_name, tls: Arc::new(tls) })
    }

    async fn connect(&self) -> Result<TlsStream<TcpStream>, CallError> {
        let address = self.neighbour.address;
        let tcp = TcpStream::connect(address).await.map_err(CallError::Connect)?;
        // A port of this machine where nobody listens may be given to the very front that calls it.
        if tcp.local_addr().is_ok_and(|own| own == address) {
            return Err(CallError::Connect(io::ErrorKind::ConnectionRefused.into()));
        }
        tcp.set_nodelay(true).map_err(CallError::Connect)?;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        connector.connect(self.server_name.clone(), tcp).await.map_err(CallError::Handshake)
    }
}

/// Connections of one lane that wait for their next call.
#[derive(Debug, Default)]
pub struct Pool(HashMap<NodeId, Vec<Idle>>);

#[derive(Debug)]
struct Idle {
    stream: TlsStream<TcpStream>,
    since: Instant,
    number: (u64, u64),
}

impl Pool {
    /// A connection that is still open, if there is one.
    async fn take(lane: &LaneEnd, node: NodeId, number: (u64, u64)) -> Option<TlsStream<TcpStream>> {
        loop {
            let mut idle = lane.pool().0.get_mut(&node)?.pop()?;
            if idle.number == number && idle.since.elapsed() < IDLE && is_quiet(&mut idle.stream).await {
                return Some(idle.stream);
            }
        }
    }

    fn keep(&mut self, node: NodeId, stream: TlsStream<TcpStream>, number: (u64, u64)) {
        let kept = self.0.entry(node).or_default();
        if kept.len() < KEPT {
            kept.push(Idle { stream, since: Instant::now(), number });
        }
    }

    /// Closes what has waited for too long.
    pub fn sweep(&mut self) {
        self.0.values_mut().for_each(|kept| kept.retain(|idle| idle.since.elapsed() < IDLE));
        self.0.retain(|_, kept| !kept.is_empty());
    }
}

/// Whether a stream is open and says nothing, as it should between two calls.
async fn is_quiet(stream: &mut TlsStream<TcpStream>) -> bool {
    let mut byte = [0];
    std::future::poll_fn(|context| {
        let mut buffer = ReadBuf::new(&mut byte);
        Poll::Ready(std::pin::Pin::new(&mut *stream).poll_read(context, &mut buffer).is_pending())
    })
    .await
}

/// Why a call brought no reply.
#[derive(Debug)]
enum CallError {
    Unknown,
    Connect(io::Error),
    Handshake(io::Error),
    Broken(io::Error),
    Nonsense,
    Late(Duration),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("the front does not know this node yet"),
            Self::Connect(error) if error.kind() == io::ErrorKind::PermissionDenied => write!(
                f,
                "the front may not connect to its port: add it to cluster.ports in server.toml and restart ({error})"
            ),
            Self::Connect(error) => write!(f, "it cannot be reached: {error}"),
            Self::Handshake(error) => write!(f, "no TLS handshake: {error}"),
            Self::Broken(error) => write!(f, "the connection broke: {error}"),
            Self::Nonsense => f.write_str("it answered something that is no reply"),
            Self::Late(patience) => write!(f, "no answer within {} ms", patience.as_millis()),
        }
    }
}

/// Carries one call there and its reply back, or the reason why there is none.
pub async fn carry(lane: Rc<LaneEnd>, number: u64, node: NodeId, patience: Duration, frame: Wiped) {
    let result = timeout(patience, exchange(&lane, node, &frame)).await;
    match result.unwrap_or(Err(CallError::Late(patience))) {
        Ok(reply) => lane.send(number, &ToVault::Answer(&reply)),
        Err(error) => {
            debug!(?node, %error, "a call to another node brought no reply");
            lane.send(number, &ToVault::NoAnswer(&error.to_string()));
        }
    }
}

async fn exchange(lane: &LaneEnd, id: NodeId, frame: &[u8]) -> Result<Wiped, CallError> {
    let ready = lane.shared().ready();
    let node = ready.nodes.get(&id).ok_or(CallError::Unknown)?;
    let mut stream = match Pool::take(lane, id, ready.number).await {
        Some(stream) => stream,
        None => node.connect().await?,
    };
    stream.write_all(frame).await.map_err(CallError::Broken)?;
    stream.flush().await.map_err(CallError::Broken)?;
    let reply = read_reply(&mut stream, lane.shared().limits.frame_bytes).await?;
    lane.pool().keep(id, stream, ready.number);
    Ok(reply)
}

async fn read_reply(stream: &mut TlsStream<TcpStream>, limit: u32) -> Result<Wiped, CallError> {
    let mut head = [0; HEADER];
    stream.read_exact(&mut head).await.map_err(CallError::Broken)?;
    let header = Header::decode(&head, limit).map_err(|_| CallError::Nonsense)?;
    if header.kind == Kind::Request {
        return Err(CallError::Nonsense);
    }
    let mut reply = Wiped::from(vec![0; HEADER + header.length as usize]);
    let (start, body) = reply.split_at_mut_checked(HEADER).ok_or(CallError::Nonsense)?;
    start.copy_from_slice(&head);
    stream.read_exact(body).await.map_err(CallError::Broken)?;
    Ok(reply)
}
