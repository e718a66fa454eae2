//! toe-netem: a network between TAP interfaces, for kernels without netem, and the same by seed each time.
//!
//! ```text
//!   left hosts                     toe-netem                      right host
//!     toe0  ═ TAP ═╗   ┌──► Line (--line) ──────────────►┐
//!                  ╠══►┤                                 ├══► TAP ═ peer0
//!     rival0═ TAP ═╝   └◄── Line (--line, or --back) ◄───┘
//! ```
//!
//! It makes the interfaces in the network namespace where it is started; whoever wants them in others moves them there. They have no
//! offloads: frames are whole, no longer than the MTU, and lost one by one. When it has made them it prints `ready`, and when it is told to
//! end (SIGTERM, SIGINT) what it has done, as a line of JSON.
#![forbid(unsafe_code)]

mod relay;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use clap::Parser;
use toe_netem::Knobs;

/// Joins TAP interfaces by a network with a bottleneck, delay and faults
#[derive(Parser, Debug)]
#[command(version, max_term_width = 120)]
struct Options {
    /// Interfaces of one side, which share the line: toe0 or toe0,rival0
    #[arg(long, value_name = "IFNAME[,IFNAME]", value_delimiter = ',', required = true)]
    left: Vec<String>,
    /// Interface of the other side
    #[arg(long, value_name = "IFNAME")]
    right: String,
    /// What the line is like, such as rate=100mbit,delay=10ms,loss=1%
    ///
    /// Words: rate=100mbit (of the bottleneck), queue=64k (bytes that may wait there; one bandwidth-delay product, at least 32k, if not given), mark=16k (bytes
    /// waiting from which on frames are marked: CE), delay=10ms (one way), jitter=1ms, loss=1%, burst=0.1%:10 (chance that losses begin, and how
    /// many they are on average), dup=1%, corrupt=1% (a bit is flipped), reorder=1%:5ms (some are later by so much).
    #[arg(long, value_name = "WORDS", default_value = "")]
    line: Knobs,
    /// The line from right to left, if it is another
    #[arg(long, value_name = "WORDS")]
    back: Option<Knobs>,
    /// The same seed and the same frames at the same times are the same network
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("toe-netem: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let end = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, end.clone())?;
    }
    let knobs = [options.line, options.back.unwrap_or(options.line)];
    let mut relay = relay::Relay::open(&options.left, &options.right, knobs, options.seed)?;
    println!("ready");
    relay.run(&end)?;
    println!("{}", serde_json::to_string(&relay.summary()).context("the summary")?);
    Ok(())
}
