//! The daemon's entry: options, logging, exit status.
#![forbid(unsafe_code)]

use clap::Parser;
use std::process::ExitCode;
use toed::{
    config::{Options, Settings},
    shell::{self, End},
};

fn main() -> ExitCode {
    let settings = match Options::parse().complete().and_then(Settings::new) {
        Ok(settings) => settings,
        Err(e) => return refuse(&e),
    };
    if let Err(e) = log_to_stderr(&settings.log_filter) {
        return refuse(&e);
    }
    match shell::run(&settings) {
        End::Orderly => ExitCode::SUCCESS,
        End::Refused(e) => refuse(&e),
        End::Failed(e) => {
            eprintln!("toed: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn refuse(e: &anyhow::Error) -> ExitCode {
    eprintln!("toed: {e:#}");
    ExitCode::from(2)
}

fn log_to_stderr(filter: &str) -> anyhow::Result<()> {
    use anyhow::Context;
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .with_context(|| format!("--log-level {filter}: not error, warn, info, debug, trace or a filter"))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    Ok(())
}
