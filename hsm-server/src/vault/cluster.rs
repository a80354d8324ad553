//! This server as a node: the membership document in force, and what administrators do with it.
//!
//! The first document comes from the server's own administrator; each later one must
//! be approved by the administrators that the one in force lists, whoever brings it. A lower version is never taken.
//! A server that leaves its cluster makes itself another certificate for the next one, which it may join at once.

use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};

use minicbor::bytes::ByteVec;
use strongroom_shared::{fault::FaultCode, message::*, object::ObjectId, wire::Handle};

use super::{
    Context, Error, Vault,
    identity::Identity,
    mandates::Begun,
    nodes::Links,
    record::Change,
    records::NodeRecord,
    shared::{
        ceremony::ceremonies::Ceremonies, hearing::Hearing, lately::Lately, life::waiting::WaitingOrders,
    },
};
use crate::{
    cluster::{
        Document, Member, Membership, Peers, Refusal, Ring,
        introduction::{self, CHALLENGE},
    },
    platform::Platform,
    store::Path,
};

/// The least limit of a frame's body for a node, in bytes: a letter of an ECDSA generation has 150,000, and shares its
/// frame with others of half that limit.
const LEAST_FRAME: u32 = 512 << 10;

/// A document in force, and which of its members this server is.
pub struct View {
    /// The document.
    pub document: Document,
    /// This server's own name in it; none if it was removed.
    pub own: Option<String>,
}

impl View {
    fn new(document: Document, identity: &Identity) -> Result<Self, Refusal> {
        let own = identity.find_in(&document)?.map(|member| member.name.clone());
        Ok(Self { document, own })
    }

    /// Every other node; none if this server was removed.
    pub fn others(&self) -> impl Iterator<Item = &Member> {
        let own = self.own.as_ref();
        self.document
            .membership()
            .members
            .iter()
            .filter(move |member| own.is_some_and(|own| *own != member.name))
    }
}

/// What the vault knows of its cluster.
pub struct Cluster {
    /// Held while the keys are made or the document changes.
    turn: Mutex<()>,
    identity: RwLock<Option<Arc<Identity>>>,
    view: RwLock<Option<Arc<View>>>,
    peers: OnceLock<Arc<dyn Peers>>,
    /// How often the front was told who the nodes are.
    told: AtomicU64,
    /// How the other nodes are, and the sessions with them.
    pub(super) links: Links,
    /// What this node takes part in.
    pub(super) ceremonies: Ceremonies,
    /// What administrators have ordered, and not all have signed or not every node was there for.
    pub(super) orders: WaitingOrders,
    /// The keys of which this node has said lately that it has nothing, as they were to be destroyed.
    agreed: Mutex<Lately<ObjectId, ()>>,
    /// The mandates that were begun here.
    pub(super) begun: Begun,
    /// Whose bans it has heard.
    pub(super) hearing: Hearing,
}

impl Cluster {
    /// The keys of which this node has said lately that it has nothing, as they were to be destroyed.
    pub(super) fn agreed(&self) -> MutexGuard<'_, Lately<ObjectId, ()>> {
        self.agreed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cluster as it was kept.
    ///
    /// # Errors
    /// `IntegrityViolated` if the node's keys and the document do not fit.
    pub fn open(
        node: Option<NodeRecord>,
        document: Option<Document>,
        orders: WaitingOrders,
    ) -> Result<Self, Error> {
        let identity = node.map(Identity::open).transpose()?;
        let view = match (&identity, document) {
            (Some(identity), Some(document)) => Some(View::new(document, identity).map_err(unfit)?),
            (None, Some(_)) => return Err(unfit(Refusal::Stranger("this server is no node".into()))),
            (_, None) => None,
        };
        Ok(Self {
            turn: Mutex::default(),
            identity: RwLock::new(identity.map(Arc::new)),
            view: RwLock::new(view.map(Arc::new)),
            peers: OnceLock::new(),
            told: AtomicU64::new(0),
            links: Links::default(),
            ceremonies: Ceremonies::default(),
            agreed: Mutex::default(),
            orders,
            begun: Begun::default(),
            hearing: Hearing::default(),
        })
    }

    /// The keys by which this server is a node, if it has been one.
    pub fn identity(&self) -> Option<Arc<Identity>> {
        self.identity.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The document in force, if there is one.
    pub fn view(&self) -> Option<Arc<View>> {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The cluster that this server is a node of.
    pub fn own_cluster(&self) -> Option<[u8; 16]> {
        let view = self.view().filter(|view| view.own.is_some())?;
        Some(view.document.membership().cluster.0)
    }

    /// The way to other nodes, if the configuration gives one.
    pub fn peers(&self) -> Option<&Arc<dyn Peers>> {
        self.peers.get()
    }

    /// Whether another node shows this certificate.
    pub fn is_neighbour(&self, fingerprint: &[u8; 32]) -> bool {
        self.view().is_some_and(|view| view.others().any(|member| member.id.0 == *fingerprint))
    }

    /// The other node that shows this certificate.
    pub fn neighbour(&self, fingerprint: &[u8; 32]) -> Option<Member> {
        self.view()?.others().find(|member| member.id.0 == *fingerprint).cloned()
    }

    /// Takes the way to other nodes.
    pub fn reach(&self, peers: Arc<dyn Peers>) {
        if self.peers.set(peers).is_err() {
            tracing::error!("there are two ways to other nodes; the first one stays");
        }
        self.gather();
    }

    /// Tells the front who the other nodes are.
    fn gather(&self) {
        let (Some(view), Some(identity), Some(peers)) = (self.view(), self.identity(), self.peers()) else {
            return;
        };
        // Every address was parsed when the document was read.
        let nodes = view.others().filter_map(|member| member.neighbour().ok()).collect();
        peers.gather(Arc::new(Ring {
            number: self.told.fetch_add(1, Ordering::Relaxed) + 1,
            certificate: identity.record.certificate.clone(),
            key: identity.record.key.clone(),
            nodes,
        }));
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A store that was made before servers had these keys from the beginning.
fn no_keys() -> Error {
    Error::caller(
        FaultCode::ConfigurationInvalid,
        "this server's store has no node keys, because an earlier version made it: make the server anew with \
         `hsmctl init`",
    )
}

fn unfit(refusal: Refusal) -> Error {
    Error::caller(FaultCode::IntegrityViolated, refusal.to_string())
}

/// A document that is not taken is an act that is refused.
fn refused(refusal: Refusal) -> Error {
    Error::caller(FaultCode::MembershipRefused, refusal.to_string())
}

impl<P: Platform> Vault<P> {
    /// Puts a document in force, or says why not. One that is in force already changes nothing.
    fn install(&self, context: &mut Context<'_>, bytes: &[u8], from: Bringer) -> Result<(), Error> {
        let _turn = self.cluster.turn();
        let document = Document::read(bytes).map_err(refused)?;
        let identity = self.cluster.identity().ok_or_else(no_keys)?;
        let present = self.cluster.view();
        let document = match &present {
            Some(view) => document.mended_by(&view.document).map_err(refused)?,
            None => document,
        };
        if present.as_ref().is_some_and(|view| view.document == document) {
            context.detail = "it is in force already".into();
            return Ok(());
        }
        // A server that was removed may begin anew in another cluster.
        let free = present.as_ref().is_none_or(|view| {
            view.own.is_none() && view.document.membership().cluster != document.membership().cluster
        });
        let judges = match (&present, from, free) {
            (Some(view), _, false) => document.check_succeeds(view.document.membership()).map_err(refused)?,
            (_, Bringer::Administrator, _) => {
                document.check_first().map_err(refused)?;
                document.membership()
            }
            (_, Bringer::Node, _) => {
                return Err(refused(Refusal::Stranger(
                    "the first document comes from an administrator".into(),
                )));
            }
        };
        let approvers = document.approvers(judges).join(", ");
        let view = View::new(document, &identity).map_err(refused)?;
        if free && view.own.is_none() {
            return Err(refused(Refusal::Stranger("it does not name this server".into())));
        }
        let membership = view.document.membership();
        let names: Vec<_> = membership.members.iter().map(|member| member.name.as_str()).collect();
        let rulers =
            present.as_ref().and_then(|present| change_of_rulers(present.document.membership(), membership));
        context.detail = format!(
            "cluster {} version {}: {}; {}approved by {approvers}",
            membership.cluster,
            membership.version,
            names.join(", "),
            rulers.unwrap_or_default()
        );
        tracing::info!(change = context.detail, "membership");
        let record = ByteVec::from(view.document.bytes().to_vec());
        let mut change = Change::new().put(Path::Membership, &record);
        let leaves = view.own.is_none() && present.is_some_and(|present| present.own.is_some());
        let identity = if leaves {
            let fresh = identity.with_another_certificate(&self.authority, context.now)?;
            change = change.put(Path::Node, &fresh.record);
            Arc::new(fresh)
        } else {
            identity
        };
        self.change(context, change)?;
        *self.cluster.identity.write().unwrap_or_else(PoisonError::into_inner) = Some(identity);
        let view = Arc::new(view);
        *self.cluster.view.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&view));
        self.look_after_orders();
        self.cluster.links.renew();
        self.cluster.ceremonies.clear();
        self.cluster.hearing.clear();
        self.cluster.gather();
        Ok(())
    }

    /// What nodes say to each other when they make a key must fit into a frame.
    pub(super) fn check_frames(&self) -> Result<(), Error> {
        let bytes = self.settings.frame_bytes;
        if bytes >= LEAST_FRAME {
            return Ok(());
        }
        Err(Error::caller(
            FaultCode::ConfigurationInvalid,
            format!(
                "frame_bytes = {bytes} under [limits] in server.toml is too little for a node: set it to {LEAST_FRAME} or \
                 more at every node, and restart it"
            ),
        ))
    }

    /// A server whose front may call nobody cannot be a node.
    fn check_reach(&self) -> Result<(), Error> {
        self.check_frames()?;
        if self.cluster.peers().is_some() {
            return Ok(());
        }
        Err(Error::caller(
            FaultCode::ConfigurationInvalid,
            "the front of this server may not call other nodes: set `ports` under [cluster] in server.toml to the \
             ports at which they listen, and restart it",
        ))
    }
}

/// Who may sign from now on, if that is another thing than before.
fn change_of_rulers(before: &Membership, now: &Membership) -> Option<String> {
    let same = before.administrators == now.administrators && before.approvals == now.approvals;
    let names: Vec<_> = now.administrators.iter().map(|one| one.name.as_str()).collect();
    (!same)
        .then(|| format!("{} of the administrators {} sign from now on; ", now.approvals, names.join(", ")))
}

/// Who brings a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bringer {
    Administrator,
    Node,
}

impl<P: Platform> Handle<Introduce> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: Introduce) -> Result<Introduction, Error> {
        self.check_reach()?;
        context.detail = format!("as {}", call.name);
        let _turn = self.cluster.turn();
        let identity = self.cluster.identity().ok_or_else(no_keys)?;
        let said = Introduction {
            authority: self.authority.certificate().to_vec(),
            certificate: identity.record.certificate.clone(),
            identity: identity.public().to_vec(),
            sealing: identity.sealing_public.to_vec(),
            document: self.cluster.view().map(|view| view.document.bytes().to_vec()).unwrap_or_default(),
            proof: None,
        };
        let malformed =
            |_| Error::caller(FaultCode::ArgumentsBad, format!("a challenge has {CHALLENGE} bytes"));
        match call.challenge {
            Some(challenge) => {
                let challenge = challenge.as_slice().try_into().map_err(malformed)?;
                Ok(introduction::prove(said, challenge, &identity.pair))
            }
            None => Ok(said),
        }
    }
}

impl<P: Platform> Handle<InstallMembership> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: InstallMembership) -> Result<Done, Error> {
        self.check_reach()?;
        self.install(context, &call.document, Bringer::Administrator)?;
        Ok(Done {})
    }
}

impl<P: Platform> Handle<OfferMembership> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: OfferMembership) -> Result<Done, Error> {
        self.install(context, &call.document, Bringer::Node)?;
        Ok(Done {})
    }
}

impl<P: Platform> Handle<ReadCluster> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, _: ReadCluster) -> Result<ClusterState, Error> {
        let Some(view) = self.cluster.view() else {
            return Ok(ClusterState { document: Vec::new(), members: Vec::new() });
        };
        let membership = view.document.membership();
        let members = membership.members.iter().map(|member| {
            if view.own.as_ref() == Some(&member.name) {
                MemberState {
                    name: member.name.clone(),
                    reachable: true,
                    sealed: true,
                    version: Some(membership.version),
                    seen: Some(context.now / 1_000_000),
                    trouble: String::new(),
                    digest: Some(view.document.digest().to_vec().into()),
                }
            } else {
                self.cluster.links.state(member)
            }
        });
        let members = members.collect();
        Ok(ClusterState { document: view.document.bytes().to_vec(), members })
    }
}
