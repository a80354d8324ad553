//! What the command line names: a module, a token, its PINs, and what may be done with them.

use std::ffi::CString;
use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::marks::Effect;
use crate::secrets::Secrets;
use crate::tries::Ledger;

/// A PIN, wiped when it goes out of use.
pub type Pin = Zeroizing<Vec<u8>>;

/// What becomes of token objects that the suite made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Leftovers {
    /// They are destroyed.
    #[default]
    Destroy,
    /// They stay, for whoever wants to look at them.
    Keep,
}

/// Which tries of a PIN the suite may use up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tries {
    /// Not the last one.
    #[default]
    KeepOne,
    /// Every one.
    All,
}

/// Which module and token, and the PINs.
#[derive(Clone, Default)]
pub struct Target {
    /// The module's file.
    pub module: PathBuf,
    /// The token's label; without one, the one token that can be written to, or the first.
    pub token_label: Option<String>,
    /// The user's PIN.
    pub pin: Option<Pin>,
    /// The security officer's PIN.
    pub so_pin: Option<Pin>,
    /// Where the user's PIN is from: an option or an environment variable.
    pub pin_from: &'static str,
    /// Where the SO's PIN is from.
    pub so_pin_from: &'static str,
    /// What `C_Initialize` is given as `pReserved`, for modules that ask for it.
    pub init_string: Option<CString>,
    /// What becomes of token objects.
    pub leftovers: Leftovers,
    /// The graver effects that are allowed.
    pub most: Option<Effect>,
    /// What tries of the PINs may be used up.
    pub tries: Tries,
    /// MiB of memory that the module may have.
    pub memory: u64,
    /// What random data comes from.
    pub seed: u64,
    /// Where to write calls.
    pub calls: Option<PathBuf>,
    /// Where the suite's proxy takes orders, if the module is behind it.
    pub socket: Option<PathBuf>,
    /// How long a call may take when the network is bad.
    pub limit: Duration,
    /// Environment variables with which the server must not accept the module.
    pub bad_clients: Vec<(String, String)>,
    /// Environment variables with which the module must not accept the server.
    pub bad_servers: Vec<(String, String)>,
}

impl Target {
    /// What no report may show.
    pub fn secrets(&self) -> Secrets {
        Secrets::new([("the user PIN", &self.pin), ("the SO PIN", &self.so_pin)])
    }

    /// What counts the tries of its PINs, for all processes of a run whose calls are written to one folder.
    ///
    /// # Errors
    /// A sentence, when there is nowhere to count.
    pub fn ledger(&self) -> Result<Ledger, String> {
        let folder = self.calls.as_ref().and_then(|calls| calls.parent());
        let file = folder.map(|folder| folder.join("tries"));
        Ledger::new([self.pin.clone(), self.so_pin.clone()], self.tries, file.as_deref())
    }
}
