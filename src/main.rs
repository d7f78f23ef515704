//! `collimate`: hand the command line over, exit with what comes back.

use std::process::ExitCode;

fn main() -> ExitCode {
    collimate::run::clock::mark_process_start();
    collimate::cli::main_with(std::env::args_os())
}
