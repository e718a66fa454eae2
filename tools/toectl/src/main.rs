//! toectl: what an operator does with a card.
//!
//! ```text
//!   up, restart, down ──► process, run_dir ──► toe-nic, toe-window, QEMU, toed (their own sessions, pid files, logs)
//!   run ───────► preload ───────────► exec PROGRAM with libtoe_preload.so
//!   status, ss, stats, trace, limit ► toed's admin socket
//!   logs ──────► toed, or files of the run-time folder
//! ```
//!
//! May depend on `toed`, for the types of its admin protocol, its files and what rates look like only, on `toe-link` for the log, and on
//! `toe-qemu` for QEMU's command line.
#![forbid(unsafe_code)]

mod cli;
mod down;
mod errors;
mod interface;
mod limit;
mod load;
mod logs;
mod preload;
mod process;
mod restart;
mod run;
mod run_dir;
mod show;
mod table;
mod trace;
mod up;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let outcome = run_dir::RunDir::chosen(cli.run_dir.as_deref()).and_then(|dir| match cli.command {
        cli::Command::Up(options) => up::up(&dir, &options),
        cli::Command::Down => down::down(&dir),
        cli::Command::Restart(options) => restart::restart(&dir, &options),
        cli::Command::Run(options) => run::run(&dir, &options),
        cli::Command::Status(format) => show::status(&dir, &format),
        cli::Command::Ss(format) => show::ss(&dir, &format),
        cli::Command::Stats(options) => show::stats(&dir, &options),
        cli::Command::Limit(options) => limit::limit(&dir, &options),
        cli::Command::Logs(options) => logs::logs(&dir, &options),
        cli::Command::Trace(options) => trace::trace(&dir, &options),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("toectl: {error:#}");
            errors::exit_code(&error)
        }
    }
}
