//! toe-rpc: a client and a server that measure a TCP stack through plain POSIX sockets.
//!
//! ```text
//!   toe-rpc server   echo and bulk modes, one port, one thread, epoll
//!   toe-rpc latency     1 connection, 1 request outstanding: p50, p99
//!   toe-rpc throughput  16 connections, 8 outstanding each: requests/s
//!   toe-rpc bulk        one direction: Gbit/s, of several connections each one's share
//! ```
//!
//! It knows nothing of FerroTOE: unmodified, it runs on the kernel and under `toectl run`. A
//! client prints one line of JSON. All its calls go through libc, as those of most programs do.
//! May depend on nothing of ours.
#![forbid(unsafe_code)]

mod client;
mod server;
mod wire;

use std::net::SocketAddrV4;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Measures a TCP stack through plain POSIX sockets
#[derive(Parser, Debug)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Serve all that the other commands ask for, until killed
    Server {
        /// Address to listen on
        listen: SocketAddrV4,
    },
    /// One connection, one request at a time
    Latency(Options),
    /// Many connections, many requests outstanding
    Throughput {
        #[command(flatten)]
        options: Options,
        /// Connections
        #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=4096))]
        connections: u16,
        /// Requests outstanding on each connection
        #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
        outstanding: u16,
    },
    /// One direction, as fast as it goes
    Bulk {
        #[command(flatten)]
        options: Options,
        /// Connections, a thread each
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
        connections: u16,
        /// Which way the bytes flow
        #[arg(long, value_enum)]
        direction: Direction,
    },
}

#[derive(Args, Debug)]
struct Options {
    /// The server
    server: SocketAddrV4,
    /// Seconds to measure, after a tenth of that to warm up
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Bytes of a request and of its answer
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    size: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Direction {
    ToServer,
    FromServer,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Server { listen } => server::serve(listen),
        Command::Latency(options) => client::requests("latency", &options, 1, 1),
        Command::Throughput { options, connections, outstanding } => client::requests("throughput", &options, connections, outstanding),
        Command::Bulk { options, connections, direction } => client::bulk(&options, connections, direction),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("toe-rpc: {error:#}");
            ExitCode::FAILURE
        }
    }
}
