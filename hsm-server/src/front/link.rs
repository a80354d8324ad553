//! How a lane reaches the vault: over the socket pair that it was given, or in this process.
//!
//! Either way hop messages go out and come back, and the lane cannot tell the difference.

use std::{
    io, mem,
    os::unix::net::UnixStream,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net,
    net::unix::{OwnedReadHalf, OwnedWriteHalf},
    sync::Notify,
    task::{AbortHandle, spawn_local, yield_now},
};
use tracing::{error, warn};

use super::lane::LaneEnd;
use crate::{
    hop::{Inbox, TO_FRONT_LIMIT},
    lane::{Keeper, Lane, Outlet, Progress, give_up},
};

/// The way to the vault.
#[derive(Debug)]
pub enum Link {
    /// The vault has a process of its own at the other end.
    Socket(UnixStream),
    /// The vault is in this process: quick calls run on the lane's own thread.
    InProcess(Arc<Keeper>),
}

/// Starts the tasks that carry messages.
///
/// # Errors
/// The socket cannot be used.
pub fn spawn(lane: &Rc<LaneEnd>, link: Link) -> io::Result<Vec<AbortHandle>> {
    match link {
        Link::Socket(stream) => {
            stream.set_nonblocking(true)?;
            let (reader, writer) = net::UnixStream::from_std(stream)?.into_split();
            Ok(vec![
                spawn_local(read(Rc::clone(lane), reader)).abort_handle(),
                spawn_local(write(Rc::clone(lane), writer)).abort_handle(),
            ])
        }
        Link::InProcess(keeper) => {
            let returns = Arc::new(Returns::default());
            let vault = keeper.lane(lane.number(), returns.clone());
            let inbox = Inbox::new(crate::lane::message_limit(&lane.shared().limits));
            Ok(vec![
                spawn_local(carry_out(Rc::clone(lane), vault, inbox)).abort_handle(),
                spawn_local(collect(Rc::clone(lane), returns)).abort_handle(),
            ])
        }
    }
}

async fn read(lane: Rc<LaneEnd>, mut reader: OwnedReadHalf) {
    let mut inbox = Inbox::new(TO_FRONT_LIMIT);
    loop {
        match reader.read(inbox.room()).await {
            Ok(0) => break warn!("the vault closed the lane"),
            Ok(count) => inbox.filled(count),
            Err(error) => break warn!(%error, "the lane to the vault broke"),
        }
        if let Err(error) = lane.dispatch(&mut inbox) {
            error!(%error, "the vault is not understood");
            give_up();
        }
    }
    lane.unlink();
}

async fn write(lane: Rc<LaneEnd>, mut writer: OwnedWriteHalf) {
    let mut messages = Vec::new();
    loop {
        lane.posted(&mut messages).await;
        if let Err(error) = writer.write_all(&messages).await {
            warn!(%error, "the lane to the vault broke");
            return lane.unlink();
        }
    }
}

async fn carry_out(lane: Rc<LaneEnd>, mut vault: Lane, mut inbox: Inbox) {
    let (mut messages, mut replies) = (Vec::new(), Vec::new());
    let mut returned = Inbox::new(TO_FRONT_LIMIT);
    loop {
        lane.posted(&mut messages).await;
        inbox.push(&messages);
        let mut progress = Progress::More;
        while progress == Progress::More {
            let worked = vault.work(&mut inbox, &mut replies);
            returned.push(&replies);
            replies.fill(0);
            replies.clear();
            match worked.and_then(|worked| lane.dispatch(&mut returned).map(|()| worked)) {
                Ok(worked) => progress = worked,
                Err(error) => {
                    error!(%error, "front and vault do not understand each other");
                    give_up();
                }
            }
            if progress == Progress::More {
                // Let the replies leave before the next batch is carried out.
                yield_now().await;
            }
        }
    }
}

/// What workers and the herald send to a lane of their own process.
#[derive(Debug, Default)]
struct Returns {
    messages: Mutex<Vec<u8>>,
    arrived: Notify,
}

impl Outlet for Returns {
    fn deliver(&self, messages: &[u8]) {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(messages);
        self.arrived.notify_one();
    }
}

async fn collect(lane: Rc<LaneEnd>, returns: Arc<Returns>) {
    let mut inbox = Inbox::new(TO_FRONT_LIMIT);
    loop {
        returns.arrived.notified().await;
        let mut messages = mem::take(&mut *returns.messages.lock().unwrap_or_else(PoisonError::into_inner));
        inbox.push(&messages);
        messages.fill(0);
        if let Err(error) = lane.dispatch(&mut inbox) {
            error!(%error, "front and vault do not understand each other");
            give_up();
        }
    }
}
