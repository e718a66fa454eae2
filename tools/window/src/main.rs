//! The entry: options, logging, exit status.
#![forbid(unsafe_code)]

use clap::Parser;
use std::process::ExitCode;
use toe_window::{options::Options, server::Server};

fn main() -> ExitCode {
    let options = Options::parse();
    tracing_subscriber::fmt().with_max_level(options.log_level).with_writer(std::io::stderr).with_ansi(false).init();
    let mut server = match Server::start(&options) {
        Ok(server) => server,
        Err(e) => {
            eprintln!("toe-window: {e:#}");
            return ExitCode::from(2);
        }
    };
    match server.serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("toe-window: {e:#}");
            ExitCode::FAILURE
        }
    }
}
