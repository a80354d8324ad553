//! Mandates: calls to a key of which several nodes hold shares. Each node checks the application's own signature, so
//! that the one node that this module talks to cannot speak for it.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
use strongroom_identity::MandateKey;
use strongroom_shared::{
    fault::FaultCode,
    mandate::{Mandate, Mandated},
    message::Hello,
    wire::{Call, MINOR},
};

use crate::{
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
    key: ArcSwapOption<MandateKey>,
    place: ArcSwapOption<Place>,
}

/// What a mandate must say of the server.
struct Place {
    cluster: [u8; 16],
    partition: String,
}

impl Mandates {
    /// Those that the key in this file signs.
    pub fn signed_by(file: Option<PathBuf>) -> Self {
        Self { file, ..Self::default() }
    }

    /// The same for a child of `fork`.
    pub(crate) fn after_fork(&self) -> Self {
        Self {
            file: self.file.clone(),
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
}

impl Context<'_> {
    /// Makes a call in the name of another: `route` makes the call out of the signed mandate for `meant`.
    ///
    /// # Errors
    /// `FunctionFailed` if no mandate can be given, and the log says why; else as [`Context::call`].
    pub(crate) fn call_mandated<C: Call, R: Call>(
        &self,
        meant: &C,
        route: impl FnOnce(Mandated) -> R,
    ) -> Result<R::Reply, Error> {
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
        };
        let text = encoded(&mandate)?;
        let signature = key.sign(&Mandate::to_sign(&text));
        let answered = self.call(&route(Mandated { text, signature }));
        if matches!(&answered, Err(Error::Fault(fault)) if fault.code == FaultCode::Forbidden) {
            // The server may be in another cluster than before, or the file hold another key.
            self.slot.mandates.place.store(None);
            self.slot.mandates.key.store(None);
        }
        answered
    }

    /// The cluster and the partition, as the server tells them.
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
        known.store(Some(Arc::clone(&place)));
        Ok(place)
    }
}

fn encoded<T: minicbor::Encode<()>>(value: &T) -> Result<Vec<u8>, Error> {
    minicbor::to_vec(value).map_err(|_| Error::General)
}

fn failed(why: &str) -> Error {
    log::write(Level::Warn, format_args!("{why}"));
    Error::FunctionFailed
}
