//! What a module says of itself, its token and its mechanisms, before any check.

use cryptoki_sys::*;
use serde::{Deserialize, Serialize};

use crate::bench::Bench;
use crate::check::Stop;
use crate::raw::{Arg, Function};

/// See the module's header.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Survey {
    /// `manufacturerID` and `libraryDescription` of `CK_INFO`.
    pub library: String,
    /// `libraryVersion`.
    pub library_version: String,
    /// `cryptokiVersion`.
    pub cryptoki_version: String,
    /// The versions of the function lists that it gives.
    pub lists: Vec<String>,
    /// The functions with an address in the newest of them.
    pub functions: Vec<String>,
    /// The token's slot.
    pub slot: u64,
    /// The token's label.
    pub token: String,
    /// The token's manufacturer and model.
    pub model: String,
    /// The token's serial number.
    pub serial: String,
    /// The token's hardware and firmware version.
    pub versions: String,
    /// The token's flags.
    pub flags: u64,
    /// Its mechanisms.
    pub mechanisms: Vec<Offer>,
}

/// A mechanism as `C_GetMechanismInfo` describes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Offer {
    /// `CKM_`.
    pub number: u64,
    /// `ulMinKeySize`.
    pub least: u64,
    /// `ulMaxKeySize`.
    pub most: u64,
    /// `flags`.
    pub flags: u64,
}

impl Survey {
    /// Asks the module.
    ///
    /// # Errors
    /// What a function answered that should not fail.
    pub fn of(bench: &Bench) -> Result<Self, Stop> {
        let mut library = CK_INFO::default();
        bench.module.call(Function::C_GetInfo, &[Arg::of_mut(&mut library)]).ok()?;
        let slot = bench.slot()?;
        let token = bench.token_info(slot)?;
        let offer = |number: &CK_MECHANISM_TYPE| {
            let info = bench.offers(*number, 0).ok()?;
            let (least, most) = (info.ulMinKeySize, info.ulMaxKeySize);
            Some(Offer { number: *number, least, most, flags: info.flags })
        };
        let secrets = bench.target.secrets();
        let text = |padded: &[u8]| secrets.hidden(text(padded));
        let library_name = [text(&library.manufacturerID), text(&library.libraryDescription)].join(" ");
        let model = [text(&token.manufacturerID), text(&token.model)].join(" ");
        let functions = Function::ALL.iter().filter(|function| bench.module.has(**function));
        Ok(Self {
            library: library_name.trim().to_owned(),
            library_version: version(library.libraryVersion),
            cryptoki_version: version(library.cryptokiVersion),
            lists: bench.module.versions().into_iter().map(str::to_owned).collect(),
            functions: functions.map(|function| function.name().to_owned()).collect(),
            slot,
            token: text(&token.label),
            model: model.trim().to_owned(),
            serial: text(&token.serialNumber),
            versions: format!("{} / {}", version(token.hardwareVersion), version(token.firmwareVersion)),
            flags: token.flags,
            mechanisms: bench.mechanisms()?.iter().filter_map(offer).collect(),
        })
    }
}

fn version(version: CK_VERSION) -> String {
    format!("{}.{}", version.major, version.minor)
}

/// A padded text, without what a terminal or a page could take for something else.
fn text(padded: &[u8]) -> String {
    let text = String::from_utf8_lossy(padded);
    text.chars().filter(|letter| !letter.is_control()).collect::<String>().trim().to_owned()
}
