//! `cargo xtask demo | test | bench`.
// A tool for the terminal: printing is its work.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::{Command, ExitCode};

use xtask::{Outcome, demo, test, workspace};

const USAGE: &str = "\
cargo xtask demo [--keep]     start a server, make keys, sign, verify with OpenSSL; --keep leaves it running
                              each demo stops an earlier kept server and wipes its state
cargo xtask demo --threshold  three servers share a key, sign with two of them and not with one
cargo xtask test              install what the tests need and run every check and test
cargo xtask bench [options]   measure beside SoftHSM2 and the floor; `bench --help` lists the options";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["demo"] => demo::run(demo::Afterwards::Stop),
        ["demo", "--keep"] => demo::run(demo::Afterwards::Keep),
        ["demo", "--threshold"] => demo::threshold::run(),
        ["test"] => test::run(),
        ["bench", options @ ..] => bench(options),
        [] | ["help" | "--help" | "-h"] | ["demo" | "test", "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => Err(format!("unknown: {}\n{USAGE}", words.join(" ")).into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Builds what is measured and what measures, both for release, and hands over.
fn bench(options: &[&str]) -> Outcome {
    let built = Command::new(workspace::cargo())
        .current_dir(workspace::root())
        .args(["build", "--release", "--locked", "-p", "strongroom-server", "-p", "strongroom-provider"])
        .status()?;
    let measured = built.success()
        && Command::new(workspace::cargo())
            .current_dir(workspace::root())
            .args(["run", "--quiet", "--release", "--locked", "-p", "xtask", "--features", "bench"])
            .args(["--bin", "xtask-bench", "--"])
            .args(options)
            .status()?
            .success();
    if measured { Ok(()) } else { Err("the bench did not finish".into()) }
}
