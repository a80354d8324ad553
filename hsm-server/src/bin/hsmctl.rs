//! Makes and administers a Strongroom HSM server.

use std::process::ExitCode;

use strongroom_server::{host, hsmctl};

fn main() -> ExitCode {
    hsmctl::main(host::initialise)
}
