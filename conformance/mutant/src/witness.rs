//! Writes down which PINs the mutant is shown, into the file that `MUTANT_PINS` names: a line before the call, since the
//! process may die of it, and one with the answer.

use std::fs::File;
use std::io::Write;
use std::sync::OnceLock;

use cryptoki_sys::CK_RV;

use crate::call::Call;
use crate::functions::Function as F;

/// No PIN of a test is longer.
const LONGEST: usize = 64;

fn file() -> Option<&'static File> {
    static FILE: OnceLock<Option<File>> = OnceLock::new();
    let open = || {
        let name = std::env::var_os("MUTANT_PINS")?;
        File::options().create(true).append(true).open(name).ok()
    };
    FILE.get_or_init(open).as_ref()
}

/// Writes a line for a call that shows a PIN: the function, the user (0 the SO, 1 the user) and the PIN.
pub fn shown(call: &Call<'_>) {
    let Some((mut file, (user, place))) = file().zip(pin(call)) else { return };
    let pin = match (call.word(place), call.word(place + 1)) {
        (0, _) => "null".to_owned(),
        (_, length) if length > LONGEST => "too long".to_owned(),
        (_, _) => String::from_utf8_lossy(&call.input(place)).escape_default().to_string(),
    };
    let _written = file.write_all(format!("{:?} {user} {pin}\n", call.function).as_bytes());
}

/// Writes a line with what came of it.
pub fn answered(call: &Call<'_>, rv: CK_RV) {
    if let Some((mut file, _)) = file().zip(pin(call)) {
        let _written = file.write_all(format!("= {rv}\n").as_bytes());
    }
}

/// Whose PIN a call shows, and in which place. The one that `C_InitPIN` sets is shown to nobody.
fn pin(call: &Call<'_>) -> Option<(usize, usize)> {
    match call.function {
        F::C_Login | F::C_LoginUser => Some((call.word(1), 2)),
        F::C_SetPIN => Some((1, 1)),
        F::C_InitToken => Some((0, 1)),
        _ => None,
    }
}
