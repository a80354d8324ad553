//! Ctrl-C, and a build server that has waited long enough: the run ends early, clears away what it made and writes its
//! reports.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// Whether the run is asked to end.
#[derive(Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Hears the signals from now on. A second one ends the process at once.
    ///
    /// # Errors
    /// A sentence, when the system refuses.
    pub fn listen() -> Result<Self, String> {
        let asked = Self::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            flag::register_conditional_shutdown(signal, 2, Arc::clone(&asked.0))
                .and_then(|_| flag::register(signal, Arc::clone(&asked.0)))
                .map_err(|error| format!("cannot listen to signals: {error}"))?;
        }
        Ok(asked)
    }

    /// Whether one has come.
    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
