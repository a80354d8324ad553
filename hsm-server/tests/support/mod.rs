//! A door that echoes, a CA, and a blocking client: what the tests of front and lanes need.
#![allow(dead_code)]

use std::{
    collections::HashMap,
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName},
};
use strongroom_server::{
    certificates::{Authority, fingerprint, identity, pem, request},
    config::Config,
    door::{Admission, ClientId, Door, Pace, Peer, Verdict},
};
use strongroom_shared::{
    fault::{Fault, FaultCode},
    wire::{ALPN, HEADER, Header, Kind},
};

/// A call that the echo answers at once, one that it answers slowly, and one that it never commits.
pub const QUICK: u16 = 1;
pub const SLOW: u16 = 2;
pub const UNWRITABLE: u16 = 3;
/// Calls that the echo does not know, found out at once and on a worker.
pub const UNKNOWN: u16 = 4;
pub const UNKNOWN_SLOW: u16 = 5;

/// Answers every frame with its own body.
#[derive(Default)]
pub struct Echo {
    pub admissions: Mutex<(u64, Vec<Admission>)>,
    pub refusals: Mutex<Vec<(Option<[u8; 32]>, String)>>,
    pub handled: AtomicU64,
    /// How often the list of admissions was copied.
    pub copied: AtomicU64,
    pub connected: AtomicU64,
    pub disconnected: AtomicU64,
    pub closed: AtomicBool,
    pub slowness: Mutex<Duration>,
    broken: Mutex<HashMap<thread::ThreadId, ()>>,
}

impl Echo {
    pub fn let_in(&self, certificate: &[u8]) {
        let mut admissions = self.admissions.lock().unwrap();
        admissions.0 += 1;
        admissions.1.push(Admission { fingerprint: fingerprint(certificate), revoked: false });
    }

    pub fn revoke(&self, certificate: &[u8]) {
        let mut admissions = self.admissions.lock().unwrap();
        admissions.0 += 1;
        for admission in &mut admissions.1 {
            admission.revoked |= admission.fingerprint == fingerprint(certificate);
        }
    }

    pub fn refusals(&self) -> Vec<(Option<[u8; 32]>, String)> {
        self.refusals.lock().unwrap().clone()
    }
}

impl Door for Echo {
    fn admit(&self, certificate: &[u8], address: SocketAddr) -> Result<Arc<Peer>, Fault> {
        let identity =
            identity(certificate).map_err(|error| Fault::new(FaultCode::Forbidden, error.to_string()))?;
        let connection = self.connected.fetch_add(1, Ordering::SeqCst);
        let (client, partition) = (identity.client, identity.partition);
        let fingerprint = fingerprint(certificate);
        let id = ClientId(*fingerprint.first_chunk().unwrap());
        Ok(Arc::new(Peer { id, client, partition, fingerprint, address, connection }))
    }

    fn pace(&self, _: &Peer, frame: &[u8]) -> Pace {
        if matches!(call(frame), SLOW | UNKNOWN_SLOW) { Pace::Slow } else { Pace::Quick }
    }

    fn handle(&self, _: &Peer, frame: &[u8], out: &mut Vec<u8>) -> Verdict {
        match call(frame) {
            UNKNOWN | UNKNOWN_SLOW => return Verdict::Close("the echo does not know this call".into()),
            SLOW => thread::sleep(*self.slowness.lock().unwrap()),
            UNWRITABLE => drop(self.broken.lock().unwrap().insert(thread::current().id(), ())),
            _ => {}
        }
        out.extend_from_slice(frame);
        let start = out.len() - frame.len();
        out[start + 5] = Kind::Reply as u8;
        self.handled.fetch_add(1, Ordering::SeqCst);
        Verdict::Answered
    }

    fn commit(&self) -> Result<(), Fault> {
        match self.broken.lock().unwrap().remove(&thread::current().id()) {
            Some(()) => Err(Fault::new(FaultCode::NotDurable, "as the test wants it")),
            None => Ok(()),
        }
    }

    fn disconnect(&self, _: &Peer) {
        self.disconnected.fetch_add(1, Ordering::SeqCst);
    }

    fn refused(&self, _: SocketAddr, certificate: Option<&[u8]>, reason: &str) {
        self.refusals.lock().unwrap().push((certificate.map(fingerprint), reason.to_owned()));
    }

    fn admissions(&self) -> (u64, Vec<Admission>) {
        self.copied.fetch_add(1, Ordering::SeqCst);
        self.admissions.lock().unwrap().clone()
    }

    fn admissions_version(&self) -> u64 {
        self.admissions.lock().unwrap().0
    }

    fn tick(&self) -> Result<(), Fault> {
        Ok(())
    }

    fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }
}

fn call(frame: &[u8]) -> u16 {
    u16::from_be_bytes([frame[6], frame[7]])
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// A CA with a server certificate in files, as `hsmctl init` makes them.
pub struct Ca {
    pub authority: Authority,
}

/// A client's certificate and key, in DER.
#[derive(Clone)]
pub struct Credentials {
    pub certificate: Vec<u8>,
    pub key: Vec<u8>,
}

impl Ca {
    pub fn new() -> Self {
        let pair = Authority::create("test", now(), 30).unwrap();
        Self { authority: Authority::load(&pair.certificate, &pair.key).unwrap() }
    }

    pub fn client(&self, name: &str) -> Credentials {
        self.client_at(name, now(), 1)
    }

    pub fn client_at(&self, name: &str, now: u64, days: u32) -> Credentials {
        let (key, request) = request(name).unwrap();
        let issued = self.authority.issue_client(&request, name, Some("tests"), now, days).unwrap();
        Credentials { certificate: issued.certificate, key: key.to_vec() }
    }

    /// Writes a new server certificate and tells its fingerprint.
    pub fn write_server(&self, folder: &Path) -> [u8; 32] {
        let (key, request) = request("server").unwrap();
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let issued = self.authority.issue_server(&request, &names, now(), 1).unwrap();
        fs::create_dir_all(folder.join("tls")).unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.join("tls").join(name);
            fs::write(path.with_extension("new"), text).unwrap();
            fs::rename(path.with_extension("new"), path).unwrap();
        };
        write("server.key", &pem("PRIVATE KEY", &key));
        write("server.pem", &pem("CERTIFICATE", &issued.certificate));
        write("ca.pem", &pem("CERTIFICATE", self.authority.certificate()));
        fingerprint(&issued.certificate)
    }
}

/// A configuration for a server in `folder`, on a port that the system chooses.
pub fn config(folder: &Path) -> Config {
    let mut config = Config { listen: "127.0.0.1:0".parse().unwrap(), lanes: 2, ..Config::default() };
    config.resolve(folder);
    config
}

/// A client that waits for its answers, and fails rather than hang.
pub struct Client {
    pub tls: StreamOwned<ClientConnection, TcpStream>,
    next: u64,
}

impl Client {
    pub fn connect(address: SocketAddr, ca: &Ca, credentials: Option<&Credentials>) -> io::Result<Self> {
        Self::connect_with(address, ca, credentials, Some(ALPN))
    }

    pub fn connect_with(
        address: SocketAddr,
        ca: &Ca,
        credentials: Option<&Credentials>,
        alpn: Option<&[u8]>,
    ) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(ca.authority.certificate().to_vec())).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match credentials {
            None => builder.with_no_client_auth(),
            Some(credentials) => builder
                .with_client_auth_cert(
                    vec![CertificateDer::from(credentials.certificate.clone())],
                    PrivatePkcs8KeyDer::from(credentials.key.clone()).into(),
                )
                .unwrap(),
        };
        config.alpn_protocols = alpn.into_iter().map(<[u8]>::to_vec).collect();
        let tcp = TcpStream::connect(address)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(Duration::from_secs(20)))?;
        let session =
            ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap();
        let mut tls = StreamOwned::new(session, tcp);
        tls.flush()?;
        Ok(Self { tls, next: 0 })
    }

    pub fn send(&mut self, call: u16, body: &[u8]) -> io::Result<()> {
        self.next += 1;
        let length = u32::try_from(body.len()).unwrap();
        let mut frame = Header { length, kind: Kind::Request, call, id: self.next }.encode().to_vec();
        frame.extend_from_slice(body);
        self.tls.write_all(&frame)
    }

    pub fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut header = [0; HEADER];
        self.tls.read_exact(&mut header)?;
        let header = Header::decode(&header, u32::MAX).map_err(io::Error::other)?;
        assert_eq!((header.kind, header.id), (Kind::Reply, self.next));
        let mut body = vec![0; header.length as usize];
        self.tls.read_exact(&mut body)?;
        Ok(body)
    }

    pub fn ask(&mut self, call: u16, body: &[u8]) -> io::Result<Vec<u8>> {
        self.send(call, body)?;
        self.receive()
    }

    /// Waits until the server has closed the connection.
    pub fn wait_for_end(&mut self) -> io::Result<()> {
        let mut byte = [0; 64];
        match self.tls.read(&mut byte) {
            Ok(0) => Ok(()),
            Ok(_) => panic!("the server said something"),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => panic!("the connection is still open"),
            Err(error) => Err(error),
        }
    }
}

/// Waits until something is so; fails after a generous while.
pub fn eventually(what: &str, so: impl Fn() -> bool) {
    for _ in 0..1000 {
        if so() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("never came true: {what}");
}
