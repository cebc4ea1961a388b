//! `rekindle`: a self-hosted function platform, compatible with the AWS Lambda API, with real SnapStart.
//!
//! This crate is the command line and the wiring; what it wires stands in the crates below `crates/`.

mod cli;
mod doctor;
mod runtime;
mod serve;
mod snapshot;
mod standalone;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    match arguments.run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
