//! Mandates: calls to a key of which several nodes hold shares. Each node checks the application's own signature, so
//! that the one node that this module talks to cannot speak for it.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
use pkcs11_sys::{CKA_ID, CKA_LABEL, CKA_PUBLIC_KEY_INFO};
use strongroom_identity::{MandateKey, Nodes, Shown};
use strongroom_shared::{
    fault::FaultCode,
    mandate::{Mandate, Mandated, Seen},
    message::{GenerateKeyPair, GenerateShared, Hello, KeyPair},
    object::CKA_STRONGROOM_PARTIES,
    wire::{Call, MINOR},
};

use crate::{
    hsm,
    log::{self, Level},
    rv::Error,
    session::Context,
};

/// For how long a mandate is good: longer than any call, and the clocks of client and node may differ by as much.
const LIFE: Duration = Duration::from_secs(60);

/// What a slot needs to give mandates. All of it is found out when it is first needed.
#[derive(Default)]
pub struct Mandates {
    /// The file of the client's mandate key.
    file: Option<PathBuf>,
    /// The file that names the nodes whose word is taken for a new key.
    nodes: Option<PathBuf>,
    key: ArcSwapOption<MandateKey>,
    place: ArcSwapOption<Place>,
}

/// What a mandate must say of the server.
struct Place {
    cluster: [u8; 16],
    partition: String,
}

impl Mandates {
    /// Those that the key in this file signs, of a client that believes the nodes in the other one.
    pub fn of(file: Option<PathBuf>, nodes: Option<PathBuf>) -> Self {
        Self { file, nodes, ..Self::default() }
    }

    /// The same for a child of `fork`.
    pub(crate) fn after_fork(&self) -> Self {
        Self {
            file: self.file.clone(),
            nodes: self.nodes.clone(),
            key: ArcSwapOption::new(self.key.load_full()),
            place: ArcSwapOption::new(self.place.load_full()),
        }
    }

    fn key(&self) -> Result<Arc<MandateKey>, Error> {
        if let Some(key) = self.key.load_full() {
            return Ok(key);
        }
        let file = self.file.as_ref().ok_or_else(|| {
            failed(
                "this key is shared by several nodes, which want a mandate, and strongroom.toml names no mandate_key: \
                 `hsmctl client admit` makes one",
            )
        })?;
        let key = Arc::new(MandateKey::read(file).map_err(|error| failed(&error.to_string()))?);
        self.key.store(Some(Arc::clone(&key)));
        Ok(key)
    }

    /// The nodes that the client knows, if there is a file of them.
    fn nodes(&self) -> Result<Option<Nodes>, Error> {
        let file = self.nodes.as_ref();
        file.map(|file| Nodes::read(file).map_err(|error| failed(&error.to_string()))).transpose()
    }
}

impl Context<'_> {
    /// Makes a call in the name of another: `route` makes the call out of the signed mandate for `meant`, which is about
    /// the key that was `seen` so.
    ///
    /// # Errors
    /// `FunctionFailed` if no mandate can be given, and the log says why; else as [`Context::call`].
    pub(crate) fn call_mandated<C: Call, R: Call>(
        &self,
        meant: &C,
        seen: Option<Seen>,
        route: impl FnOnce(Mandated) -> R,
    ) -> Result<R::Reply, Error> {
        let mandated = self.mandated(meant, seen)?;
        self.show(&route(mandated))
    }

    /// A mandate for a call.
    fn mandated<C: Call>(&self, meant: &C, seen: Option<Seen>) -> Result<Mandated, Error> {
        let key = self.slot.mandates.key()?;
        let place = self.place()?;
        let expires = SystemTime::now() + LIFE;
        let expires = expires.duration_since(SystemTime::UNIX_EPOCH).map_err(|_| Error::General)?.as_secs();
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(|_| Error::General)?;
        let mandate = Mandate {
            cluster: place.cluster,
            partition: place.partition.clone(),
            key: key.public(),
            nonce,
            expires,
            call: C::ID as u16,
            body: encoded(meant)?,
            seen,
        };
        let text = encoded(&mandate)?;
        let signature = key.sign(&Mandate::to_sign(&text));
        Ok(Mandated { text, signature })
    }

    /// Makes a call that carries a mandate.
    fn show<R: Call>(&self, call: &R) -> Result<R::Reply, Error> {
        let answered = self.call(call);
        if matches!(&answered, Err(Error::Fault(fault)) if fault.code == FaultCode::Forbidden) {
            // The server may be in another cluster than before, or the file hold another key.
            self.slot.mandates.place.store(None);
            self.slot.mandates.key.store(None);
        }
        answered
    }

    /// Has all nodes make a key, and holds what they have signed of it against the nodes that this client knows: the one
    /// that it talks to cannot show it another key.
    ///
    /// # Errors
    /// `Link` if the key that is shown is not proven; else as [`Self::call_mandated`].
    pub(crate) fn generate_shared(&self, meant: &GenerateKeyPair) -> Result<KeyPair, Error> {
        let nodes = self.slot.mandates.nodes()?;
        if nodes.is_none() {
            warn(
                "strongroom.toml names no cluster_nodes, so the new key rests on the word of one node: `hsmctl client \
                 admit` tells the client who the nodes are",
            );
        }
        let mandated = self.mandated(meant, None)?;
        let mandate = mandated.text.clone();
        let pair = self.show(&GenerateShared { mandated })?;
        let (public, private) = (pair.public.id, pair.private.id);
        let shown = &self.slot.shown;
        if let Some(nodes) = nodes {
            let parties = meant.private.ulong(CKA_STRONGROOM_PARTIES).unwrap_or_default();
            let parties = usize::try_from(parties).map_err(|_| Error::General)?;
            let certificate = pair.certificate.as_ref().map_or(&[][..], |certificate| certificate);
            let key = nodes.prove(certificate, Shown { mandate: &mandate, parties, public, private });
            let key = key.map_err(|why| {
                hsm::malformed(format_args!(
                    "the new key {private} is not proven to be the nodes': {why}; do not use it, destroy it"
                ))
            })?;
            for half in [public, private] {
                shown.note(half, CKA_PUBLIC_KEY_INFO, &key)?;
            }
        }
        for kind in [CKA_LABEL, CKA_ID] {
            shown.note(private, kind, meant.private.bytes(kind).unwrap_or_default())?;
        }
        Ok(pair)
    }

    /// The cluster and the partition, as the server tells them, and as far as the client knows them itself.
    ///
    /// # Errors
    /// `Link` if the server tells what the client knows otherwise: it would sign for a partition that is not its own.
    fn place(&self) -> Result<Arc<Place>, Error> {
        let known = &self.slot.mandates.place;
        if let Some(place) = known.load_full() {
            return Ok(place);
        }
        let client = concat!("strongroom-pkcs11 ", env!("CARGO_PKG_VERSION")).into();
        let welcome = self.call(&Hello { minor: MINOR, client })?;
        let (Some(cluster), Some(partition)) = (welcome.cluster, welcome.partition) else {
            return Err(failed(
                "the server is in no cluster, so no nodes can share a key: see `hsmctl cluster`",
            ));
        };
        let place = Arc::new(Place { cluster: cluster.into(), partition });
        if let Some(nodes) = self.slot.mandates.nodes()? {
            nodes.check_place(&place.cluster, &place.partition).map_err(hsm::malformed)?;
            if nodes.partition.is_none() {
                warn(
                    "cluster.nodes does not name this client's partition, which rests on the word of one node: `hsmctl \
                     client admit` writes it anew",
                );
            }
        }
        known.store(Some(Arc::clone(&place)));
        Ok(place)
    }
}

fn encoded<T: minicbor::Encode<()>>(value: &T) -> Result<Vec<u8>, Error> {
    minicbor::to_vec(value).map_err(|_| Error::General)
}

fn warn(why: &str) {
    log::write(Level::Warn, format_args!("{why}"));
}

fn failed(why: &str) -> Error {
    warn(why);
    Error::FunctionFailed
}
