//! A small blocking client: one connection, one call at a time. It renews its certificate when it is time.

use std::{
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName},
    sign::{CertifiedKey, SingleCertAndKey},
};
use strongroom_identity::{MandateKey, Nodes, PairError, Renewed, ReplaceLock};
use strongroom_shared::{
    fault::Fault,
    mandate::{Mandate, Mandated},
    message::{Caller, Certificate, Hello, InstanceId, Login, Pin, RenewCertificate, User, Welcome},
    wire::{self, ALPN, Call, CallId, HEADER, Header, Kind, MINOR, Pace, decode_body, encode_request},
};

use super::{
    error::CtlError,
    folder::{Server, Token},
    output::note,
};
use crate::certificates::life;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// For how long a refused connection is tried again: a server just started does not listen yet.
const STARTING: Duration = Duration::from_secs(2);
/// How long before it is tried again.
const PAUSE: Duration = Duration::from_millis(100);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// How long it may take where nodes make a key together.
const PATIENT_ANSWER: Duration = Duration::from_secs(90);
/// How long it may take where the server reads its whole log first.
const LONG_ANSWER: Duration = Duration::from_secs(600);
/// For how long a mandate is good, in seconds: the clocks may differ by as much.
const MANDATE: u64 = 60;
/// The longest answer that is read, in bytes.
const LIMIT: u32 = 64 << 20;

/// A connection to a server.
#[derive(Debug)]
pub struct Connection {
    folder: PathBuf,
    stream: StreamOwned<ClientConnection, TcpStream>,
    server: Server,
    caller: Caller,
    last: u64,
    /// The partition that the certificate names, if it names one, and the server's cluster, if it is in one.
    place: (Option<String>, Option<[u8; 16]>),
}

/// Every run is an application of its own, so that its request numbers are nobody else's.
fn caller() -> Result<Caller, CtlError> {
    let mut instance = InstanceId::default();
    getrandom::fill(&mut instance.0).map_err(|error| CtlError::new(error.to_string()))?;
    Ok(Caller { instance, ..Caller::default() })
}

impl Connection {
    /// Connects with the certificate in an administrator's folder.
    ///
    /// # Errors
    /// The folder is not one, the server cannot be reached, or it does not let this certificate in.
    pub fn open(folder: &Path) -> Result<Self, CtlError> {
        let token = Token::read(folder)?;
        let provider = aws_lc_rs::default_provider();
        let pair = strongroom_identity::load(&token.certificate, &token.key, &provider)?;
        let shown = pair.cert.clone();
        let (mut connection, welcome) = Self::open_as(folder, &token, pair)?;
        if welcome.renew_in == Some(0)
            && let Err(error) = connection.renew(folder, token, &shown)
        {
            // Not a reason to leave the command undone.
            note(&format!("this certificate ends soon and was not renewed: {error}"));
        }
        Ok(connection)
    }

    /// Connects with this certificate, and says hello.
    fn open_as(folder: &Path, token: &Token, pair: CertifiedKey) -> Result<(Self, Welcome), CtlError> {
        let server = token.server();
        let config = tls(token, pair)?;
        let name = ServerName::try_from(server.name.clone())
            .map_err(|_| CtlError::new(format!("{:?} cannot be a server's name", server.name)))?;
        let tcp = reach(&server.address)?;
        let session = ClientConnection::new(Arc::new(config), name)
            .map_err(|error| CtlError::new(format!("{}: {error}", server.address)))?;
        let mut connection = Self {
            folder: folder.into(),
            stream: StreamOwned::new(session, tcp),
            server,
            caller: caller()?,
            last: 0,
            place: (None, None),
        };
        let client = format!("hsmctl {}", env!("CARGO_PKG_VERSION"));
        let welcome = connection.call(&Hello { minor: MINOR, client })?;
        connection.place = (welcome.partition.clone(), welcome.cluster.map(Into::into));
        Ok((connection, welcome))
    }

    /// Has another certificate made, for a new key, and puts both into the folder when the server has accepted them.
    /// This connection goes on with the one that it was opened with, `shown`.
    fn renew(&mut self, folder: &Path, token: Token, shown: &[CertificateDer<'_>]) -> Result<(), CtlError> {
        let unwritable = |error: PairError| {
            CtlError::from(error).advise(
                "let yourself write the folder, or have another administrator make one: client add --admin",
            )
        };
        let (certificate, key) = (token.certificate.clone(), token.key.clone());
        let Some(lock) = ReplaceLock::take(certificate, key).map_err(unwritable)? else {
            return Ok(());
        };
        // Another run may have renewed it since: what the server made for that one is not to be made void.
        let present =
            strongroom_identity::load(&token.certificate, &token.key, &aws_lc_rs::default_provider())?;
        if present.cert != *shown {
            return Ok(());
        }
        let made =
            strongroom_identity::request("hsmctl").map_err(|error| CtlError::new(error.to_string()))?;
        let Certificate { certificate, authority } =
            self.call(&RenewCertificate { request: made.request })?;
        let renewed = Renewed { certificate: &certificate, authority: &authority, key: &made.key_pem };
        lock.replace(renewed, |pair| Self::open_as(folder, &token, pair).map(drop))
    }

    /// Connects again, for at most `patience`.
    ///
    /// # Errors
    /// The server did not come back, or does not let this certificate in any more.
    pub fn reopen(&mut self, patience: Duration) -> Result<(), CtlError> {
        let started = Instant::now();
        loop {
            match Self::open(&self.folder) {
                Err(error) if error.is_lost() && started.elapsed() < patience => thread::sleep(PAUSE),
                result => return result.map(|connection| *self = connection),
            }
        }
    }

    /// Where it leads.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The server's cluster, if it says that it is in one.
    pub const fn cluster(&self) -> Option<[u8; 16]> {
        self.place.1
    }

    /// When the server's certificate ends, in seconds since 1970; 0 if it showed none that can be read.
    pub fn certificate_end(&self) -> u64 {
        let shown = self.stream.conn.peer_certificates().and_then(<[_]>::first);
        shown.and_then(|certificate| life(certificate).ok()).map_or(0, |life| life.not_after)
    }

    /// Logs in as the normal user of the certificate's partition.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn log_in(&mut self, pin: Pin) -> Result<(), CtlError> {
        self.caller = Caller { session: 1, read_write: true, ..self.caller.clone() };
        let login = self.call(&Login { user: User::Normal, pin })?;
        self.caller.ticket = Some(login.ticket);
        Ok(())
    }

    /// A mandate for a call that makes a key, signed with a client's key, for the cluster and partition that the client
    /// knows, as far as it does.
    ///
    /// # Errors
    /// The server is in no cluster, or in another one, or the certificate is not an application's.
    pub fn mandate<C: Call>(
        &self,
        key: &MandateKey,
        nodes: Option<&Nodes>,
        call: &C,
    ) -> Result<Mandated, CtlError> {
        let (Some(partition), Some(cluster)) = self.place.clone() else {
            return Err(CtlError::new(format!("{} is in no cluster", self.server.address))
                .advise("only nodes of a cluster share keys: see `hsmctl cluster`"));
        };
        if let Some(nodes) = nodes {
            nodes.check_place(&cluster, &partition).map_err(CtlError::new)?;
        }
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(|error| CtlError::new(error.to_string()))?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.map_err(|error| CtlError::new(error.to_string()))?.as_secs();
        let text = |error: minicbor::encode::Error<_>| CtlError::new(error.to_string());
        let mandate = Mandate {
            cluster,
            partition,
            key: key.public(),
            nonce,
            expires: now + MANDATE,
            call: C::ID as u16,
            body: minicbor::to_vec(call).map_err(text)?,
            seen: None,
        };
        let text = minicbor::to_vec(&mandate).map_err(text)?;
        let signature = key.sign(&Mandate::to_sign(&text));
        Ok(Mandated { text, signature })
    }

    /// Makes a call and waits for its answer.
    ///
    /// # Errors
    /// The server refused, or the connection broke.
    pub fn call<C: Call>(&mut self, call: &C) -> Result<C::Reply, CtlError> {
        self.last += 1;
        let mut frame = Vec::new();
        encode_request(&mut frame, self.last, &self.caller, call);
        let patience = match (C::ID, C::ID.pace()) {
            (CallId::VerifyAudit, _) => LONG_ANSWER,
            (_, Pace::Patient) => PATIENT_ANSWER,
            (_, Pace::Quick | Pace::ByKey | Pace::Slow | Pace::Together) => ANSWER,
        };
        let (header, body) = self.exchange(&frame, patience).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => self.silent(C::ID, patience),
            _ => self.broken(&error),
        })?;
        let malformed = |error: wire::BodyError| CtlError::new(format!("the server's answer: {error}"));
        match header.kind {
            Kind::Reply if header.id == self.last => decode_body(&body).map_err(malformed),
            Kind::Fault => Err(decode_body::<Fault>(&body).map_err(malformed)?.into()),
            Kind::Reply | Kind::Request => Err(CtlError::new("the server answered something else")),
        }
    }

    fn exchange(&mut self, frame: &[u8], patience: Duration) -> io::Result<(Header, Vec<u8>)> {
        self.stream.sock.set_read_timeout(Some(patience))?;
        self.stream.write_all(frame)?;
        self.stream.flush()?;
        let mut header = [0; HEADER];
        self.stream.read_exact(&mut header)?;
        let header = Header::decode(&header, LIMIT).map_err(io::Error::other)?;
        let mut body = vec![0; header.length as usize];
        self.stream.read_exact(&mut body)?;
        Ok((header, body))
    }

    fn silent(&self, call: CallId, patience: Duration) -> CtlError {
        let seconds = patience.as_secs();
        if call == CallId::Hello {
            let at = &self.server.address;
            return CtlError::new(format!(
                "{at}: the server took the connection and did not answer within {seconds} s; nothing was done"
            ))
            .advise("see its log, the vault may be stuck");
        }
        CtlError::new(format!(
            "the server took the call and did not answer within {seconds} s; whether it was done is unknown: \
             see its log, the vault may be stuck"
        ))
    }

    fn broken(&self, error: &io::Error) -> CtlError {
        let at = &self.server.address;
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::AlertReceived(alert)) => {
                CtlError::new(format!("{at} does not let this certificate in ({alert:?})"))
                    .advise("it may be revoked, expired, or of another server; the server's log says which")
            }
            Some(error) => CtlError::new(format!("{at} is not the server it should be: {error}"))
                .advise("check `server_name` and `ca` in strongroom.toml"),
            None => CtlError::new(format!("{at}: the connection broke: {error}"))
                .advise("the server's log may say why")
                .lost(),
        }
    }
}

fn reach(address: &str) -> Result<TcpStream, CtlError> {
    let fail = |error: io::Error| {
        CtlError::new(format!("{address}: {error}"))
            .advise("is the server running, and is this its address?")
            .lost()
    };
    let started = Instant::now();
    loop {
        match reach_once(address) {
            Err(error)
                if error.kind() == io::ErrorKind::ConnectionRefused && started.elapsed() < STARTING =>
            {
                thread::sleep(PAUSE);
            }
            result => return result.map_err(fail),
        }
    }
}

fn reach_once(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::other("no such address");
    for candidate in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&candidate, CONNECT) {
            // A port of this machine where nobody listens may be given to the very client that calls it.
            Ok(stream) if stream.local_addr()? == candidate => {
                last = io::ErrorKind::ConnectionRefused.into();
            }
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_write_timeout(Some(ANSWER))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn tls(token: &Token, pair: CertifiedKey) -> Result<ClientConfig, CtlError> {
    let mut roots = RootCertStore::empty();
    for root in strongroom_identity::read_certificates(&token.ca)? {
        roots.add(root).map_err(|error| CtlError::file(&token.ca, error))?;
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| CtlError::new(error.to_string()))?
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}
