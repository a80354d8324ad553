//! Letters between parties: addressed, sealed and opened.
//!
//! All of them pass through the coordinator. What a party says to another is sealed in the session that their two
//! vaults have, so that the coordinator can neither read nor change it; only what is from or for the
//! coordinator's own seat travels as it is, inside what the two vaults say to each other anyway.

use std::time::Duration;

use minicbor::{Decode, Encode};
use strongroom_shared::{fault::FaultCode, message::SecretBytes, wire::decode_body};

use crate::{
    cluster::{Member, NodeId},
    crypto::threshold::{CeremonyId, Incoming, Outgoing, Party, To},
    platform::Platform,
    vault::{
        Error, Vault,
        cluster::View,
        nodes::Question,
        records::encode,
        shared::{
            ceremony::ceremonies::Going,
            words::{Content, Parcel, SealedLetter},
        },
    },
};

/// What stands in a sealed letter. The label keeps it apart from the questions of the same session.
#[derive(Debug, Encode, Decode)]
struct Letter {
    #[n(0)]
    label: String,
    #[n(1)]
    ceremony: CeremonyId,
    #[n(2)]
    from: Party,
    #[n(3)]
    to: Party,
    #[n(4)]
    text: SecretBytes,
}

/// How long a node may take to hear that its session has ended, while a coordinator waits.
const TELLING: Duration = Duration::from_millis(250);

const LABEL: &str = "strongroom letter 1";

impl View {
    /// This server's own entry.
    pub(in crate::vault) fn me(&self) -> Option<&Member> {
        let own = self.own.as_ref()?;
        self.document.membership().members.iter().find(|member| member.name == *own)
    }

    fn is_me(&self, node: NodeId) -> bool {
        self.me().is_some_and(|me| me.id == node)
    }
}

impl<P: Platform> Vault<P> {
    /// Addresses what a ceremony says.
    pub(super) fn post(
        &self,
        view: &View,
        id: CeremonyId,
        going: &mut Going,
        outgoing: Vec<Outgoing>,
    ) -> Result<(), Error> {
        for message in outgoing {
            let receivers: Vec<Option<Party>> = match message.to {
                To::Party(party) => vec![Some(party)],
                To::All => {
                    going.parties.keys().filter(|party| **party != going.me).copied().map(Some).collect()
                }
                To::Coordinator => vec![None],
            };
            for to in receivers {
                let content = self.wrap(view, id, going, to, &message.bytes)?;
                going.outbox.push_back(Parcel { from: going.me, to, content });
            }
        }
        Ok(())
    }

    fn wrap(
        &self,
        view: &View,
        id: CeremonyId,
        going: &Going,
        to: Option<Party>,
        text: &[u8],
    ) -> Result<Content, Error> {
        let text = SecretBytes(text.into());
        let coordinator = going.coordinator.node;
        let Some((to, receiver)) = to.and_then(|to| Some((to, going.parties.get(&to)?))) else {
            return Ok(Content::Plain(text));
        };
        if receiver.id == coordinator || view.is_me(coordinator) {
            return Ok(Content::Plain(text));
        }
        let letter = encode(&Letter { label: LABEL.into(), ceremony: id, from: going.me, to, text });
        let unsent = |error: &dyn std::fmt::Display| {
            Error::Hindered(to, format!("a letter to node {} could not be sealed: {error}", receiver.name))
        };
        let (session, link) = self.session_to(view, receiver).map_err(|error| unsent(&error))?;
        let counter = link.number();
        let sealed = link.seal(counter, &letter).map_err(|error| unsent(&error))?;
        Ok(Content::Sealed(SealedLetter { session, counter, sealed }))
    }

    /// Opens what another party said, if it is from that party and for this one.
    pub(super) fn open_parcel(
        &self,
        view: &View,
        id: CeremonyId,
        going: &Going,
        parcel: Parcel,
    ) -> Result<Incoming, Error> {
        let strange = |text: &str| Error::caller(FaultCode::Malformed, format!("{}: {text}", parcel.from));
        let sender = going.parties.get(&parcel.from).ok_or_else(|| strange("it is not in this ceremony"))?;
        if parcel.to != Some(going.me) {
            return Err(strange("its letter is for another party"));
        }
        let coordinator = going.coordinator.node;
        let from = parcel.from;
        let bytes = match parcel.content {
            Content::Plain(text) if sender.id == coordinator || view.is_me(coordinator) => text.0.to_vec(),
            Content::Plain(_) => return Err(strange("its letter is not sealed")),
            Content::Sealed(_) if sender.id == coordinator || view.is_me(coordinator) => {
                return Err(strange("its letter is sealed, and from or for the coordinator"));
            }
            Content::Sealed(SealedLetter { session, counter, sealed }) => {
                let Some(link) = self.session_from(view, sender, session) else {
                    return Err(self.unheard(view, sender, session));
                };
                let text = link.open(counter, &sealed).map_err(|error| strange(&error.to_string()))?;
                let letter: Letter = decode_body(&text).map_err(|error| strange(&error.to_string()))?;
                if letter.label != LABEL || (letter.ceremony, letter.from, letter.to) != (id, from, going.me)
                {
                    return Err(strange("its letter is for another ceremony or party"));
                }
                letter.text.0.to_vec()
            }
        };
        Ok(Incoming { from, bytes })
    }

    /// Tells a node that it has written in a session that this one does not know any more, so that it writes the next time
    /// in another. Whoever was started anew gets such letters, until the others notice.
    fn unheard(&self, view: &View, writer: &Member, session: u64) -> Error {
        let told = match self.consult(view, writer, &Question::Ended(session), TELLING) {
            Ok(_) => "it has been told".to_owned(),
            Err(error) => format!("it could not be told yet: {error}"),
        };
        Error::caller(
            FaultCode::Unavailable,
            format!(
                "node {} wrote to this node in a session that has ended, because this node was started anew or the session \
                 was too old; {told}; trying again helps",
                writer.name
            ),
        )
    }
}
