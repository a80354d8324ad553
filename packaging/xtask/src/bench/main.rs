//! `cargo xtask bench`: Strongroom beside SoftHSM2 in process, and beside the floor that its own
//! architecture allows, measured in one run.
//!
//! One program, four roles. The *driver* starts everything, asks for one short measurement after another, each
//! target in turn, and writes the report. A *worker* is a client process with one module loaded. The *floor* is
//! a server that does nothing but mutual TLS and a signature, and a worker that speaks to it without PKCS#11.
//! Keys that several nodes share are measured apart: `threshold/`.
// A tool for the terminal: printing is its work.
#![allow(clippy::print_stdout, clippy::print_stderr)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod driver;
mod floor;
mod histogram;
mod load;
mod options;
mod plan;
mod plot;
mod process;
mod report;
mod threshold;
mod worker;

use std::{path::Path, process::ExitCode, time::Duration};

use xtask::Outcome;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome: Outcome = match words.as_slice() {
        ["worker", module] => worker::run(module),
        ["floor-server", folder] => floor::serve(Path::new(folder)),
        ["floor-worker", folder, port] => floor::work(Path::new(folder), port),
        ["bare"] => threshold::bare::answer(),
        ["--threshold"] => threshold::run(Duration::from_secs(5)),
        ["--threshold", "--quick"] => threshold::run(Duration::from_secs(1)),
        ["--help" | "-h"] => {
            println!("{}\n{}", options::USAGE, threshold::USAGE);
            Ok(())
        }
        options => options::Options::parse(options).and_then(|options| driver::run(&options)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
