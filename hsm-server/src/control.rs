//! The control socket between the supervisor and each of its children: orders and lane sockets one way, reports
//! the other. It is the child's standard input, so a child needs no name by which it could be reached; when the
//! supervisor dies, the child reads its end and goes too.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::SocketAddr,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
    },
};

use crate::config::MAX_LANES;

/// The longest message, in bytes.
const LENGTH: usize = 64;

/// What a child is told.
#[derive(Debug)]
pub enum Order {
    /// These sockets lead to the other child, one per lane.
    Lanes(Vec<OwnedFd>),
    /// Read the TLS files again.
    Reload,
    /// Finish and end.
    Stop,
}

/// What the supervisor is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// The vault is open.
    Open,
    /// The front listens here.
    Listening(SocketAddr),
    /// The vault was told nonsense: the front is not to be trusted any more.
    Nonsense,
}

/// One end of a control socket.
#[derive(Debug)]
pub struct Control(OwnedFd);

impl Control {
    /// Both ends of a new control socket. Neither is inherited by a child unless it is its standard input.
    ///
    /// # Errors
    /// The system has no more sockets.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let kind = SocketType::SEQPACKET;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        Ok((Self(ours), theirs))
    }

    /// The child's end: its standard input.
    ///
    /// # Errors
    /// Standard input cannot be used.
    pub fn from_stdin() -> io::Result<Self> {
        Ok(Self(rustix::stdio::stdin().try_clone_to_owned()?))
    }

    /// The same end once more, for another thread.
    ///
    /// # Errors
    /// The system has no more descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    /// Gives the child its lanes.
    ///
    /// # Errors
    /// The child is gone.
    pub fn give_lanes(&self, lanes: &[UnixStream]) -> io::Result<()> {
        let lanes: Vec<_> = lanes.iter().map(AsFd::as_fd).collect();
        self.send(b"lanes", &lanes)
    }

    /// Has the child read its TLS files again.
    ///
    /// # Errors
    /// The child is gone.
    pub fn reload(&self) -> io::Result<()> {
        self.send(b"reload", &[])
    }

    /// Has the child finish and end.
    ///
    /// # Errors
    /// The child is gone.
    pub fn stop(&self) -> io::Result<()> {
        self.send(b"stop", &[])
    }

    /// The next order; none if the supervisor is gone.
    ///
    /// # Errors
    /// The socket failed or the order is unknown.
    pub fn order(&self) -> io::Result<Option<Order>> {
        let Some((message, lanes)) = self.receive()? else { return Ok(None) };
        match message.as_slice() {
            b"lanes" => Ok(Some(Order::Lanes(lanes))),
            b"reload" => Ok(Some(Order::Reload)),
            b"stop" => Ok(Some(Order::Stop)),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Tells the supervisor.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub fn report(&self, report: Report) -> io::Result<()> {
        let message = match report {
            Report::Open => "open".to_owned(),
            Report::Listening(address) => format!("listening {address}"),
            Report::Nonsense => "nonsense".to_owned(),
        };
        self.send(message.as_bytes(), &[])
    }

    /// The child's next report; none if it is gone.
    ///
    /// # Errors
    /// The socket failed or the report is unknown.
    pub fn next_report(&self) -> io::Result<Option<Report>> {
        let Some((message, _)) = self.receive()? else { return Ok(None) };
        let report = match message.as_slice() {
            b"open" => Some(Report::Open),
            b"nonsense" => Some(Report::Nonsense),
            other => str::from_utf8(other)
                .ok()
                .and_then(|text| text.strip_prefix("listening ")?.parse().ok())
                .map(Report::Listening),
        };
        report.map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn send(&self, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_LANES))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        sendmsg(&self.0, &[IoSlice::new(message)], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    fn receive(&self) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
        let mut message = vec![0; LENGTH];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_LANES))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut into = [IoSliceMut::new(&mut message)];
            match recvmsg(&self.0, &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET) => return Ok(None),
                received => break received?,
            }
        };
        if received.bytes == 0 {
            return Ok(None);
        }
        message.truncate(received.bytes);
        let mut descriptors = Vec::new();
        for part in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = part {
                descriptors.extend(rights);
            }
        }
        Ok(Some((message, descriptors)))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn orders_reports_and_sockets_arrive() {
        let (supervisor, child) = Control::pair().unwrap();
        let child = Control(child);
        let (mut near, far) = UnixStream::pair().unwrap();
        supervisor.give_lanes(&[far]).unwrap();
        supervisor.reload().unwrap();
        supervisor.stop().unwrap();
        let Some(Order::Lanes(lanes)) = child.order().unwrap() else { panic!("no lanes") };
        assert!(matches!(child.order().unwrap(), Some(Order::Reload)));
        assert!(matches!(child.order().unwrap(), Some(Order::Stop)));
        near.write_all(b"over").unwrap();
        let mut heard = [0; 4];
        UnixStream::from(lanes.into_iter().next().unwrap()).read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"over");

        let listening = Report::Listening("[::1]:7373".parse().unwrap());
        for report in [Report::Open, listening, Report::Nonsense] {
            child.report(report).unwrap();
            assert_eq!(supervisor.next_report().unwrap(), Some(report));
        }
        drop(supervisor);
        assert!(child.order().unwrap().is_none());
        assert!(child.report(Report::Open).is_err());
    }
}
