//! The floor: what mutual TLS 1.3 on loopback and one signature cost, when there is nothing else.
//!
//! A thread per connection, blocking, in one server process. No PKCS#11, no sessions, no objects, no policy, no
//! audit: what Strongroom takes beyond this is the price of being an HSM.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::Arc,
    thread,
};

use aws_lc_rs::{
    digest::{Digest, SHA256},
    hmac, rand, rsa,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256},
};
use k256::{
    ecdsa::{Signature, SigningKey, signature::hazmat::PrehashSigner},
    elliptic_curve::Generate,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::WebPkiClientVerifier,
    version::TLS13,
};
use xtask::Outcome;

use crate::{
    load::{self, Subject},
    plan::{Algorithm, Cell},
};

/// Makes a CA and a certificate for each side.
///
/// # Errors
/// The folder cannot be written.
pub fn certify(folder: &Path) -> Outcome {
    fs::create_dir_all(folder)?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    fs::write(folder.join("ca.pem"), issuer.pem())?;
    for side in ["server", "client"] {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec!["localhost".to_owned()])?.signed_by(&key, &issuer)?;
        fs::write(folder.join(format!("{side}.pem")), certificate.pem())?;
        fs::write(folder.join(format!("{side}.key")), key.serialize_pem())?;
    }
    Ok(())
}

/// The certificate and key of one side, and the CA that both trust.
struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    roots: Arc<RootCertStore>,
}

impl Identity {
    fn read(folder: &Path, side: &str) -> Outcome<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(folder.join("ca.pem"))?)?;
        Ok(Self {
            certificate: CertificateDer::from_pem_file(folder.join(format!("{side}.pem")))?,
            key: PrivateKeyDer::from_pem_file(folder.join(format!("{side}.key")))?,
            roots: Arc::new(roots),
        })
    }
}

/// The server: says `listening PORT`, then signs what it is sent until it is killed.
///
/// # Errors
/// The certificates cannot be used.
pub fn serve(folder: &Path) -> Outcome {
    let Identity { certificate, key, roots } = Identity::read(folder, "server")?;
    let verifier = WebPkiClientVerifier::builder(roots).build()?;
    let config = ServerConfig::builder_with_protocol_versions(&[&TLS13])
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate], key)?;
    let (config, signer) = (Arc::new(config), Arc::new(Signer::new()?));
    let listener = TcpListener::bind("127.0.0.1:0")?;
    load::say(&format!("listening {}", listener.local_addr()?.port()))?;
    for socket in listener.incoming() {
        let (socket, config, signer) = (socket?, config.clone(), signer.clone());
        thread::spawn(move || {
            if let Err(error) = attend(socket, config, &signer) {
                eprintln!("floor: {error}");
            }
        });
    }
    Ok(())
}

fn attend(socket: TcpStream, config: Arc<ServerConfig>, signer: &Signer) -> Outcome {
    socket.set_nodelay(true)?;
    let mut stream = StreamOwned::new(ServerConnection::new(config)?, socket);
    let mut request = [0; 33];
    while stream.read_exact(&mut request).is_ok() {
        let [algorithm, input @ ..] = request;
        let algorithm = Algorithm::ALL.get(usize::from(algorithm)).ok_or("unknown algorithm")?;
        let signature = signer.sign(*algorithm, &input)?;
        let length = u16::try_from(signature.len())?;
        stream.write_all(&[&length.to_be_bytes(), signature.as_slice()].concat())?;
    }
    Ok(())
}

/// One key of each kind, with the libraries that the vault uses.
struct Signer {
    p256: EcdsaKeyPair,
    secp256k1: SigningKey,
    ed25519: Ed25519KeyPair,
    rsa: rsa::KeyPair,
    hmac: hmac::Key,
    rng: rand::SystemRandom,
}

impl Signer {
    fn new() -> Outcome<Self> {
        let rng = rand::SystemRandom::new();
        Ok(Self {
            p256: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?,
            secp256k1: SigningKey::generate(),
            ed25519: Ed25519KeyPair::generate()?,
            rsa: rsa::KeyPair::generate(rsa::KeySize::Rsa2048)?,
            hmac: hmac::Key::generate(hmac::HMAC_SHA256, &rng)?,
            rng,
        })
    }

    fn sign(&self, algorithm: Algorithm, input: &[u8]) -> Outcome<Vec<u8>> {
        Ok(match algorithm {
            Algorithm::P256 => {
                self.p256.sign_digest(&Digest::import_less_safe(input, &SHA256)?)?.as_ref().to_vec()
            }
            Algorithm::Secp256k1 => {
                let signature: Signature = self.secp256k1.sign_prehash(input)?;
                signature.to_bytes().to_vec()
            }
            Algorithm::Ed25519 => self.ed25519.sign(input).as_ref().to_vec(),
            Algorithm::Rsa2048 => {
                let mut signature = vec![0; self.rsa.public_modulus_len()];
                self.rsa.sign(&RSA_PKCS1_SHA256, &self.rng, input, &mut signature)?;
                signature
            }
            Algorithm::Hmac => hmac::sign(&self.hmac, input).as_ref().to_vec(),
            Algorithm::Bip340 => return Err("nobody asks the floor for BIP340".into()),
        })
    }
}

/// The client process.
///
/// # Errors
/// The server cannot be reached.
pub fn work(folder: &Path, port: &str) -> Outcome {
    let Identity { certificate, key, roots } = Identity::read(folder, "client")?;
    let config = ClientConfig::builder_with_protocol_versions(&[&TLS13])
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)?;
    load::answer(Client { config: Arc::new(config), address: format!("127.0.0.1:{port}"), lanes: Vec::new() })
}

struct Client {
    config: Arc<ClientConfig>,
    address: String,
    lanes: Vec<Lane>,
}

struct Lane {
    stream: StreamOwned<ClientConnection, TcpStream>,
    algorithm: Algorithm,
}

impl Subject for Client {
    type Lane = Lane;

    fn prepare(&mut self, cell: Cell) -> Outcome<&mut [Lane]> {
        while self.lanes.len() < cell.threads {
            let socket = TcpStream::connect(&self.address)?;
            socket.set_nodelay(true)?;
            let connection = ClientConnection::new(self.config.clone(), ServerName::try_from("localhost")?)?;
            let lane = Lane { stream: StreamOwned::new(connection, socket), algorithm: cell.algorithm };
            self.lanes.push(lane);
        }
        self.lanes.iter_mut().for_each(|lane| lane.algorithm = cell.algorithm);
        Ok(&mut self.lanes)
    }

    fn operate(lane: &mut Lane, input: &[u8; 32]) -> Outcome {
        let number = Algorithm::ALL.iter().position(|each| *each == lane.algorithm).unwrap_or_default();
        lane.stream.write_all(&[&[u8::try_from(number)?][..], input].concat())?;
        let mut length = [0; 2];
        lane.stream.read_exact(&mut length)?;
        let mut signature = [0; 512];
        let signature = signature.get_mut(..usize::from(u16::from_be_bytes(length)));
        Ok(lane.stream.read_exact(signature.ok_or("a signature of more than 512 bytes")?)?)
    }
}
