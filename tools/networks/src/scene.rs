//! A network with a stack at its near end, and bulk transfers over it.
//!
//! ```text
//!   near: toe-rpc server on our card or on the kernel ══╗
//!                                                       ╠══ toe-netem ══ peer: toe-rpc bulk, always the kernel
//!   rival: toe-rpc server on the kernel ════════════════╝
//! ```
//!
//! The bottleneck is toe-netem's, or Linux's token bucket filter between it and the peer.

use std::fmt;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use toe_lab::instance::Place;
use toe_lab::{Job, Wired, job, programs, servers, wired};

const PORT: u16 = 7000;

/// What runs the near end's TCP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stack {
    Ours,
    Linux,
}

/// Who sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// The near end sends: its congestion control and its recovery are measured.
    From,
    /// The near end receives: its acknowledgements are measured.
    To,
}

pub const WAYS: [Way; 2] = [Way::From, Way::To];

impl Way {
    const fn word(self) -> &'static str {
        match self {
            Way::From => "from-server",
            Way::To => "to-server",
        }
    }
}

/// What lies between the ends.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    /// Words for toe-netem.
    pub line: &'static str,
    /// Words for Linux's token bucket filter, if that is the bottleneck.
    pub bucket: Option<&'static str>,
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.line)?;
        self.bucket.map_or(Ok(()), |bucket| write!(f, ", tbf {bucket}"))
    }
}

const SEED: u64 = 1;

/// Flows between a server and the peer: how many, which way, for how long.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub way: Way,
    pub flows: u16,
    pub seconds: f64,
}

/// Ends with all that it has started.
pub struct Scene {
    wired: Wired,
    near: Place,
    servers: Vec<Job>,
}

impl Scene {
    /// Congestion control at the near end and at the peer is `congestion`.
    pub fn new(stack: Stack, network: Network, congestion: &str) -> Result<Scene> {
        let wired = match network.bucket {
            None => Wired::new(network.line, SEED)?,
            Some(bucket) => Wired::shaped(network.line, bucket, SEED)?,
        };
        wired::tune(&wired.pair.peer_place(), congestion)?;
        let near = match stack {
            Stack::Ours => wired.pair.card_up_with(&[&format!("--toed-arg=--cc={congestion}")])?.place(),
            Stack::Linux => {
                let near = wired.near_kernel()?;
                wired::tune(&near, congestion)?;
                near
            }
        };
        let mut scene = Scene { wired, near: near.clone(), servers: Vec::new() };
        scene.serve(&near)?;
        Ok(scene)
    }

    /// Starts the rival's server.
    pub fn add_rival(&mut self, congestion: &str) -> Result<()> {
        let rival = self.wired.rival();
        wired::tune(&rival, congestion)?;
        self.serve(&rival)
    }

    fn serve(&mut self, place: &Place) -> Result<()> {
        let (lab, peer) = (&self.wired.pair.lab, self.wired.pair.peer());
        let mut server = place.start_built(lab, "toe-rpc", "toe-rpc", &["server", &format!("{}:{PORT}", place.ip)])?;
        servers::wait_listening(&mut server, peer, &place.ip, PORT)?;
        self.servers.push(server);
        Ok(())
    }

    /// Mbit/s of each flow between the near end and the peer.
    pub fn near(&self, load: &Load) -> Result<Vec<f64>> {
        rates(self.command(&self.near, load), load.seconds)
    }

    /// The same of flows of the near end and of the rival's at the same time.
    pub fn both(&self, load: &Load) -> Result<[Vec<f64>; 2]> {
        let (near, rival) = (self.command(&self.near, load), self.command(&self.wired.rival(), load));
        let seconds = load.seconds;
        let other = thread::spawn(move || rates(rival, seconds));
        let near = rates(near, seconds)?;
        let rival = other.join().map_err(|_| anyhow!("a thread has panicked"))??;
        Ok([near, rival])
    }

    fn command(&self, server: &Place, load: &Load) -> Result<Command> {
        let mut command = self.wired.pair.peer_place().command(programs::built_dir()?.join("toe-rpc"));
        command.args(["bulk", &format!("{}:{PORT}", server.ip), "--direction", load.way.word()]);
        command.args(["--connections", &load.flows.to_string(), "--seconds", &load.seconds.to_string()]);
        Ok(command)
    }

    /// How late the network was at most, microseconds.
    pub fn end(self) -> Result<f64> {
        drop(self.servers);
        let summary = self.wired.end()?;
        summary["late_max_us"].as_f64().with_context(|| format!("no lateness in {summary}"))
    }
}

fn rates(command: Result<Command>, seconds: f64) -> Result<Vec<f64>> {
    let done = job::run(command?, Duration::from_secs_f64(seconds * 1.1 + 30.0))?.success()?;
    let answer: serde_json::Value = serde_json::from_slice(&done.stdout).with_context(|| format!("'{}' printed no answer", done.line))?;
    let rates = answer["mbit_per_s_each"].as_array().with_context(|| format!("no rates in {answer}"))?;
    Ok(rates.iter().filter_map(serde_json::Value::as_f64).collect())
}
