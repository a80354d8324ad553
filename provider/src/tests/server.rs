//! A server for tests: real sockets, real mutual TLS, and the scripted vault behind them.

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair,
};
use rustls::{
    RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use strongroom_shared::{
    message::Certificate,
    wire::{ALPN, DEFAULT_LIMIT, HEADER, Header},
};
use tempfile::TempDir;

use super::vault::ScriptedVault;
use crate::config::Token;

/// The name in the server's certificate.
pub(crate) const NAME: &str = "strongroom";

/// A certificate authority, a server's certificate, and a folder with a client's files.
pub(crate) struct Pki {
    pub folder: TempDir,
    authority: CertificateParams,
    authority_key: KeyPair,
    pub config: Arc<ServerConfig>,
}

impl Pki {
    pub fn new() -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let authority_key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = authority.self_signed(&authority_key).unwrap();
        let issuer = Issuer::from_params(&authority, &authority_key);

        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec![NAME.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(root.der().clone()).unwrap();
        let clients =
            WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build().unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![ALPN.to_vec()];

        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), root.pem()).unwrap();
        let pki = Self { folder, authority, authority_key, config: config.into() };
        pki.issue_client();
        pki
    }

    /// Gives the client a new key and certificate.
    pub fn issue_client(&self) {
        let issuer = Issuer::from_params(&self.authority, &self.authority_key);
        let key = KeyPair::generate().unwrap();
        let mut client = CertificateParams::new(Vec::new()).unwrap();
        client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = client.signed_by(&key, &issuer).unwrap();
        fs::write(self.folder.path().join("client.key"), key.serialize_pem()).unwrap();
        fs::write(self.folder.path().join("client.pem"), certificate.pem()).unwrap();
    }

    /// What makes certificates for requests.
    pub fn issuer(&self) -> impl Fn(&[u8]) -> Certificate + Send + use<> {
        let (authority, key) = (self.authority.clone(), self.authority_key.serialize_der());
        let root = fs::read_to_string(self.folder.path().join("ca.pem")).unwrap();
        move |request| {
            let key = KeyPair::try_from(key.as_slice()).unwrap();
            let issuer = Issuer::from_params(&authority, &key);
            let request = CertificateSigningRequestParams::from_der(&request.into()).unwrap();
            let mut client = CertificateParams::new(Vec::new()).unwrap();
            client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            let certificate = client.signed_by(&request.public_key, &issuer).unwrap().pem();
            Certificate { certificate, authority: root.clone() }
        }
    }

    pub fn token(&self, server: SocketAddr) -> Token {
        let file = |name| self.folder.path().join(name);
        Token {
            server: server.to_string(),
            server_name: NAME.to_owned(),
            ca: file("ca.pem"),
            certificate: file("client.pem"),
            key: file("client.key"),
            mandate_key: None,
            cluster_nodes: None,
        }
    }
}

/// A listening server. Stops when dropped.
pub(crate) struct TestServer {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    listener: Option<thread::JoinHandle<()>>,
}

struct Shared {
    vault: Arc<ScriptedVault>,
    config: Arc<ServerConfig>,
    stopped: AtomicBool,
    accepted: AtomicUsize,
    sockets: Mutex<Vec<TcpStream>>,
    certificates: Mutex<Vec<Vec<u8>>>,
    /// From when on it lets in whom it has let in before only, and how many it has turned away.
    closed: Mutex<Option<Arc<AtomicUsize>>>,
}

impl TestServer {
    pub fn start(pki: &Pki, vault: &Arc<ScriptedVault>) -> Self {
        Self::start_at(pki, vault, ([127, 0, 0, 1], 0).into())
    }

    pub fn start_at(pki: &Pki, vault: &Arc<ScriptedVault>, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            vault: vault.clone(),
            config: pki.config.clone(),
            stopped: AtomicBool::new(false),
            accepted: AtomicUsize::new(0),
            sockets: Mutex::default(),
            certificates: Mutex::default(),
            closed: Mutex::default(),
        });
        let accepting = shared.clone();
        let listener = thread::spawn(move || {
            for socket in listener.incoming() {
                if accepting.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (socket, serving) = (socket.unwrap(), accepting.clone());
                serving.accepted.fetch_add(1, Ordering::SeqCst);
                serving.sockets.lock().unwrap().push(socket.try_clone().unwrap());
                thread::spawn(move || serving.serve(socket));
            }
        });
        Self { address, shared, listener: Some(listener) }
    }

    /// How many connections it has taken.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Lets in whom it has let in before only, and counts whom it turns away.
    pub fn close_to_strangers(&self) -> Arc<AtomicUsize> {
        self.shared.closed.lock().unwrap().insert(Arc::default()).clone()
    }

    /// The client certificates of the connections that got through, in order.
    pub fn certificates(&self) -> Vec<Vec<u8>> {
        self.shared.certificates.lock().unwrap().clone()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        for socket in self.shared.sockets.lock().unwrap().drain(..) {
            let _gone = socket.shutdown(Shutdown::Both);
        }
        let _knock = TcpStream::connect(self.address);
        self.listener.take().unwrap().join().unwrap();
    }
}

impl Shared {
    fn serve(&self, socket: TcpStream) {
        socket.set_nodelay(true).unwrap();
        let tls = ServerConnection::new(self.config.clone()).unwrap();
        let mut stream = StreamOwned::new(tls, socket);
        let (mut first, mut answer) = (true, Vec::new());
        loop {
            let mut frame = vec![0; HEADER];
            if stream.read_exact(&mut frame).is_err() {
                return;
            }
            if std::mem::take(&mut first) {
                let certificate = stream.conn.peer_certificates().unwrap()[0].to_vec();
                let mut known = self.certificates.lock().unwrap();
                if let Some(turned_away) = &*self.closed.lock().unwrap()
                    && !known.contains(&certificate)
                {
                    turned_away.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                known.push(certificate);
            }
            let header = Header::decode(frame.first_chunk().unwrap(), DEFAULT_LIMIT).unwrap();
            frame.resize(HEADER + header.length as usize, 0);
            if stream.read_exact(&mut frame[HEADER..]).is_err() {
                return;
            }
            answer.clear();
            self.vault.handle(&frame, &mut answer);
            if stream.write_all(&answer).is_err() {
                return;
            }
        }
    }
}
