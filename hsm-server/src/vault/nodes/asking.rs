//! Asking another vault: in a sealed session, which is made when there is none.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use strongroom_shared::{
    fault::Fault,
    message::{Caller, HandsShaken, SealedCall, ShakeHands},
    secret::Wiped,
    wire::{Call, HEADER, Header, Kind, decode_body, encode_request},
};

use super::{
    super::{Vault, cluster::View, records::encode},
    Answer, NodeError, PATIENCE, Question,
    links::{SessionTo, lock},
};
use crate::{
    cluster::{
        Member, Unreachable,
        noise::{self, NoiseError, Session},
    },
    platform::Platform,
};

impl<P: Platform> Vault<P> {
    /// Makes a call of the table to another node, in the open.
    pub(super) fn ask<C: Call>(
        &self,
        member: &Member,
        call: &C,
        patience: Duration,
    ) -> Result<C::Reply, NodeError> {
        let no_way = || NodeError::Unreachable(Unreachable("this server may not call other nodes".into()));
        let peers = self.cluster.peers().ok_or_else(no_way)?;
        let id = self.cluster.links.requests.fetch_add(1, Ordering::Relaxed);
        let mut frame = Wiped::default();
        encode_request(&mut frame, id, &Caller::default(), call);
        let reply = peers.call(member.id, &frame, patience).map_err(NodeError::Unreachable)?;
        let malformed = |reason: &dyn fmt::Display| NodeError::Malformed(reason.to_string());
        let (head, body) = reply.split_first_chunk::<HEADER>().ok_or_else(|| malformed(&"no header"))?;
        let header = Header::decode(head, u32::MAX).map_err(|error| malformed(&error))?;
        if header.id != id || header.call != C::ID as u16 {
            return Err(malformed(&"it answers another call"));
        }
        match header.kind {
            Kind::Reply => decode_body(body).map_err(|error| malformed(&error)),
            Kind::Fault => {
                let fault: Fault = decode_body(body).map_err(|error| malformed(&error))?;
                Err(NodeError::Refused(fault.heard()))
            }
            Kind::Request => Err(malformed(&"a request for an answer")),
        }
    }

    /// Asks another node's vault, sealed. A session that it no longer knows is replaced by a new one, once.
    pub(in super::super) fn consult(
        &self,
        view: &View,
        member: &Member,
        question: &Question,
        patience: Duration,
    ) -> Result<Answer, NodeError> {
        let text = encode(question);
        let known = self.cluster.links.outgoing(member.id, view.document.digest(), self.platform.uptime());
        if let Some(link) = known
            && let Some(answer) = self.consult_in(&link, member, &text, patience)?
        {
            return Ok(answer);
        }
        let begun = self.platform.uptime();
        let link = self.session(view, member, patience)?;
        let shaken = self.platform.uptime().saturating_sub(begun);
        let patience = patience.saturating_sub(Duration::from_micros(shaken));
        let ended = NodeError::Malformed("it ended a session that it had just begun".into());
        self.consult_in(&link, member, &text, patience)?.ok_or(ended)
    }

    /// None if the other end does not know the session any more: it has not looked at the question then.
    fn consult_in(
        &self,
        link: &SessionTo,
        member: &Member,
        text: &[u8],
        patience: Duration,
    ) -> Result<Option<Answer>, NodeError> {
        let counter = link.session.number();
        let sealed = link.session.seal(counter, text)?;
        let call = SealedCall { session: link.number, counter, sealed };
        let sealed = match self.ask(member, &call, patience) {
            Err(NodeError::Refused(fault)) => return Err(NodeError::Unsealed(fault)),
            answered => answered?.sealed,
        };
        if sealed.is_empty() {
            self.cluster.links.drop_outgoing(member.id, link.number);
            return Ok(None);
        }
        let answer = link.session.open_answer(counter, &sealed)?;
        match decode_body(&answer).map_err(|error| NodeError::Malformed(error.to_string()))? {
            Answer::Refused(fault) => Err(NodeError::Refused(fault.heard())),
            answer => Ok(Some(answer)),
        }
    }

    /// A session for what another node is to read that does not answer it, and the other's number of it.
    pub(in super::super) fn session_to(
        &self,
        view: &View,
        member: &Member,
    ) -> Result<(u64, Arc<Session>), NodeError> {
        let link = self.session(view, member, PATIENCE)?;
        Ok((link.number, link.session))
    }

    /// The session with a node, or a new one. Of many threads that want one, one shakes hands: the other end does not
    /// remember more than a few.
    fn session(&self, view: &View, member: &Member, patience: Duration) -> Result<SessionTo, NodeError> {
        let links = &self.cluster.links;
        let known = || links.outgoing(member.id, view.document.digest(), self.platform.uptime());
        if let Some(link) = known() {
            return Ok(link);
        }
        let (patience, begun) = (patience.min(PATIENCE), self.platform.uptime());
        let busy = "it has not shaken hands with another thread in time";
        let turn = links.turns.take(member.id, patience);
        let _turn = turn.ok_or_else(|| NodeError::Unreachable(Unreachable(busy.into())))?;
        let waited = Duration::from_micros(self.platform.uptime().saturating_sub(begun));
        known().map_or_else(|| self.shake_hands(view, member, patience.saturating_sub(waited)), Ok)
    }

    /// The session of this number that another node made, if it has not ended.
    pub(in super::super) fn session_from(
        &self,
        view: &View,
        member: &Member,
        number: u64,
    ) -> Option<Arc<Session>> {
        self.cluster.links.incoming(number, member.id, view.document.digest(), self.platform.uptime())
    }

    fn shake_hands(&self, view: &View, member: &Member, patience: Duration) -> Result<SessionTo, NodeError> {
        let identity = self.cluster.identity().ok_or(NoiseError::Handshake)?;
        let document = view.document.digest();
        let pair = noise::Pair { document, own: &identity.sealing, other: &member.sealing };
        let (waiting, message) = pair.initiate(self.randomness())?;
        // No vault has sealed what a refused handshake says.
        let shaken = self.ask(member, &ShakeHands { message }, patience).map_err(|error| match error {
            NodeError::Refused(fault) => NodeError::Unsealed(fault),
            other => other,
        });
        let HandsShaken { session: number, message } = shaken?;
        let session = Arc::new(waiting.finish(&message)?);
        let link = SessionTo { number, session, made: self.platform.uptime(), document: *document };
        lock(&self.cluster.links.outgoing).insert(member.id, link.clone());
        Ok(link)
    }

    pub(super) fn randomness(&self) -> noise::RandomSource {
        let platform = Arc::clone(&self.platform);
        noise::random_source(move |bytes| platform.fill(bytes))
    }
}
