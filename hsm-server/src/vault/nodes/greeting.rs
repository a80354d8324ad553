//! Greetings: who is there, under which document, and whether its vault is the one that the document names.

use strongroom_shared::{
    fault::FaultCode,
    message::{GreetNode, NodeGreeting, OfferMembership},
    wire::Handle,
};

use super::{
    super::{Context, Error, Vault, cluster::View},
    Answer, NodeError, PATIENCE, Question,
};
use crate::{cluster::Member, platform::Platform};

impl<P: Platform> Vault<P> {
    /// Greets every other node, hands the document to those whose own is older, and has the vaults of the others
    /// prove who they are.
    pub(in super::super) fn greet_all(&self) {
        let Some(view) = self.cluster.view() else { return };
        for member in view.others() {
            if !self.cluster.links.is_due(member.id, self.platform.uptime()) {
                continue;
            }
            if let Err(error) = self.greet(&view, member) {
                self.cluster.links.ill(member, &error, self.platform.uptime());
            }
        }
    }

    fn greet(&self, view: &View, member: &Member) -> Result<(), NodeError> {
        let version = view.document.membership().version;
        let NodeGreeting { version: theirs, digest } = self.ask(member, &GreetNode { version }, PATIENCE)?;
        let same = digest.as_ref().is_none_or(|digest| **digest == *view.document.digest());
        self.cluster.links.well(member.id, theirs, digest, self.platform.now());
        if theirs < version {
            let document = view.document.bytes().to_vec();
            self.ask(member, &OfferMembership { document }, PATIENCE)?;
            let digest = view.document.digest().to_vec();
            self.cluster.links.well(member.id, version, Some(digest.into()), self.platform.now());
        }
        if theirs == version && !same {
            return Err(NodeError::Split(version));
        }
        if theirs == version {
            match self.consult(view, member, &Question::Vouch, PATIENCE)? {
                Answer::Vouched { bans, version: _ } => {
                    self.hear_again(view, member, bans)?;
                    // One that does not tell its bans signs with nobody.
                    self.cluster.links.vouched(member.id);
                }
                other => return Err(other.strange()),
            }
        }
        Ok(())
    }
}

impl<P: Platform> Handle<GreetNode> for Vault<P> {
    fn handle(&self, _: &mut Context<'_>, _: GreetNode) -> Result<NodeGreeting, Error> {
        let view = self.cluster.view().ok_or(FaultCode::Forbidden)?;
        let (version, digest) = (view.document.membership().version, view.document.digest().to_vec());
        Ok(NodeGreeting { version, digest: Some(digest.into()) })
    }
}
