//! One client's connection: shake hands, read a frame, pass it on, write the reply. It opens no body.

use std::{fmt, io, net::SocketAddr, rc::Rc, time::Duration};

use strongroom_shared::{
    secret::{Wiped, wipe},
    wire::{ALPN, FrameError, HEADER, Header, Kind},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tracing::{debug, info, warn};

use super::{
    lane::{Client, LaneEnd, Phase},
    seats::Seat,
};
use crate::{
    certificates::{fingerprint, identity},
    hop::ToVault,
};

/// How long a client may take to hear why it is sent away.
const FAREWELL: Duration = Duration::from_secs(1);
/// A buffer that grew beyond this, in bytes, is given back when its frame is done.
const KEEP: usize = 64 << 10;
/// What a buffer starts with, in bytes.
const START: usize = 4 << 10;

/// Why a connection ended.
enum End {
    /// The client hung up between two frames.
    HungUp,
    /// The lane says so: revoked, idle, too slow, stopping, no vault.
    Told(String),
    /// What came is not a frame.
    Frame(FrameError),
    /// A reply or fault where only requests may come.
    NotARequest,
    /// The stream ended within a frame.
    Truncated,
    /// The stream broke.
    Broken(io::Error),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HungUp => f.write_str("the client hung up"),
            Self::Told(reason) => f.write_str(reason),
            Self::Frame(error) => error.fmt(f),
            Self::NotARequest => f.write_str("a frame that is not a request"),
            Self::Truncated => f.write_str("the stream ended within a frame"),
            Self::Broken(error) => error.fmt(f),
        }
    }
}

/// Serves one connection from its first byte to its last.
pub async fn serve(lane: Rc<LaneEnd>, tcp: TcpStream, address: SocketAddr, mut seat: Seat) {
    let shaken = tokio::select! {
        biased;
        () = seat.lost() => None,
        shaken = shake_hands(&lane, tcp, address) => shaken,
    };
    let Some((mut tls, certificate)) = shaken.filter(|_| seat.settle()) else {
        return debug!(%address, "no handshake");
    };
    let name = identity(&certificate).map_or_else(|_| "?".to_owned(), |identity| identity.client);
    let client = lane.open(fingerprint(&certificate), &ToVault::Open { address, certificate: &certificate });
    debug!(%address, client = name, "connected");
    let end = tokio::select! {
        biased;
        reason = client.told_to_close() => End::Told(reason),
        end = exchange(&lane, &client, &mut tls) => end,
    };
    lane.close(&client);
    match &end {
        End::HungUp | End::Broken(_) => debug!(%address, client = name, %end, "disconnected"),
        End::Told(_) => info!(%address, client = name, reason = %end, "connection closed"),
        End::Frame(_) | End::NotARequest | End::Truncated => {
            warn!(%address, client = name, reason = %end, "connection closed");
        }
    }
    farewell(&mut tls).await;
    lane.leave();
}

async fn farewell(tls: &mut TlsStream<TcpStream>) {
    // Whether the client hears it is the client's business.
    if let Ok(Err(error)) = timeout(FAREWELL, tls.shutdown()).await {
        debug!(%error, "no farewell");
    }
}

/// The stream and the client's certificate, if the handshake lets it in.
async fn shake_hands(
    lane: &LaneEnd,
    tcp: TcpStream,
    address: SocketAddr,
) -> Option<(TlsStream<TcpStream>, Vec<u8>)> {
    let shared = lane.shared();
    let (config, doorman) = shared
        .material()
        .handshake(shared.admitted())
        .inspect_err(|error| warn!(%error, "no handshake is possible"))
        .ok()?;
    let accept = TlsAcceptor::from(config).accept(tcp).into_fallible();
    let Ok(result) = timeout(shared.limits.handshake(), accept).await else {
        info!(%address, "the handshake took too long");
        return None;
    };
    let mut tls = match result {
        Ok(tls) => tls,
        Err((error, tcp)) => {
            match doorman.refusal(&error) {
                Some(refusal) => lane.refused(address, &refusal),
                None => info!(%address, %error, "handshake failed"),
            }
            linger(tcp).await;
            return None;
        }
    };
    let (_, session) = tls.get_ref();
    let certificate =
        session.peer_certificates().and_then(<[_]>::first).map(|certificate| certificate.to_vec());
    if session.alpn_protocol() != Some(ALPN) {
        info!(%address, "the client does not speak the protocol");
        farewell(&mut tls).await;
        return None;
    }
    certificate.map(|certificate| (tls, certificate))
}

/// Lets the client read the alert before a reset can overtake it.
async fn linger(mut tcp: TcpStream) {
    let mut sink = [0; 1024];
    let drain = async {
        tcp.shutdown().await?;
        while tcp.read(&mut sink).await? > 0 {}
        io::Result::Ok(())
    };
    if let Ok(Err(error)) = timeout(FAREWELL, drain).await {
        debug!(%error, "the client did not wait");
    }
}

/// Frames in, replies out, one at a time.
async fn exchange(lane: &LaneEnd, client: &Client, tls: &mut TlsStream<TcpStream>) -> End {
    let mut frame = Wiped::from(Vec::with_capacity(START));
    loop {
        let length = match read_frame(lane, client, tls, &mut frame).await {
            Ok(length) => length,
            Err(end) => return end,
        };
        client.enter(Phase::Waiting);
        lane.send(client.connection, &ToVault::Frame(frame.get(..length).unwrap_or_default()));
        forget(&mut frame, length);

        let mut reply = client.reply().await;
        client.enter(Phase::Writing);
        let written = async {
            tls.write_all(&reply).await?;
            tls.flush().await
        };
        if let Err(error) = written.await {
            return End::Broken(error);
        }
        reply.fill(0);
        client.recycle(reply);
        client.enter(Phase::Idle);
        if lane.is_stopping() {
            return End::Told("the server is stopping".into());
        }
    }
}

/// Reads until `frame` begins with a whole request, and tells that one's length.
async fn read_frame(
    lane: &LaneEnd,
    client: &Client,
    tls: &mut TlsStream<TcpStream>,
    frame: &mut Vec<u8>,
) -> Result<usize, End> {
    loop {
        if let Some(header) = frame.first_chunk::<HEADER>() {
            let header = Header::decode(header, lane.shared().limits.frame_bytes).map_err(End::Frame)?;
            if header.kind != Kind::Request {
                return Err(End::NotARequest);
            }
            let length = HEADER + header.length as usize;
            if frame.len() >= length {
                return Ok(length);
            }
            make_room(frame, length);
        }
        if !frame.is_empty() {
            client.enter(Phase::Reading);
        }
        match tls.read_buf(frame).await {
            Ok(0) if frame.is_empty() => return Err(End::HungUp),
            Ok(0) => return Err(End::Truncated),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && frame.is_empty() => {
                return Err(End::HungUp);
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(End::Truncated),
            Err(error) => return Err(End::Broken(error)),
        }
    }
}

/// Makes room for a frame of `length` bytes; a buffer that moves leaves no copy behind.
fn make_room(frame: &mut Vec<u8>, length: usize) {
    if frame.capacity() < length {
        let mut larger = Vec::with_capacity(length);
        larger.extend_from_slice(frame);
        wipe(frame);
        *frame = larger;
    }
}

/// Wipes a frame that was passed on. What came after it stays.
fn forget(frame: &mut Vec<u8>, length: usize) {
    let left = frame.len().saturating_sub(length);
    frame.copy_within(length.., 0);
    frame.get_mut(left..).unwrap_or_default().fill(0);
    frame.truncate(left);
    if left == 0 && frame.capacity() > KEEP {
        *frame = Vec::with_capacity(START);
    }
}
