//! `collimate`: hand the command line over, exit with what comes back.

use std::process::ExitCode;

fn main() -> ExitCode {
    collimate::cli::main_with(std::env::args_os())
}
