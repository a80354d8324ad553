//! The Strongroom HSM server.

use std::process::ExitCode;

use strongroom_server::{host, process};

fn main() -> ExitCode {
    process::main(host::open)
}
