//! The usual set-up with a bad network in between: `toe-netem` on a host of its own.
//!
//! ```text
//!   host 0: card or kernel ► toe0 ════╗
//!                                     ╠═ TAP ═► toe-netem: host 2 ═ TAP ═► peer0 ◄ kernel: host 1
//!   host 3: kernel (rival) ► rival0 ══╝
//! ```

use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::instance::{CARD_IF, CARD_IP, PEER_IF, PEER_IP, Pair, Place};
use crate::job::Job;
use crate::namespaces::Lab;
use crate::programs;

pub const RIVAL_IP: &str = "10.77.0.3";
const RIVAL_IF: &str = "rival0";
const WIRE: usize = 2;
const RIVAL: usize = 3;

const LIMIT: Duration = Duration::from_secs(15);

/// Why there can be no such network here, if so.
pub fn refused() -> Option<String> {
    let tun = std::fs::File::options().read(true).write(true).open("/dev/net/tun");
    tun.err().map(|e| format!("/dev/net/tun: {e}"))
}

/// Two hosts, or three, and the network between them.
#[derive(Debug)]
pub struct Wired {
    pub pair: Pair,
    netem: Job,
}

impl Wired {
    /// `line`: words for `toe-netem --line`.
    pub fn new(line: &str, seed: u64) -> Result<Wired> {
        let lab = Lab::new(4)?;
        let left = format!("{CARD_IF},{RIVAL_IF}");
        let mut command = lab.host(WIRE).command(programs::built_dir()?.join("toe-netem"));
        command.args(["--left", &left, "--right", PEER_IF, "--line", line, "--seed", &seed.to_string()]);
        let log = lab.log_path("toe-netem");
        let mut netem = Job::start("toe-netem", command, &log)?;
        netem.wait_ready(LIMIT, || std::fs::read_to_string(&log).is_ok_and(|text| text.contains("ready")))?;
        for (name, host) in [(CARD_IF, 0), (PEER_IF, 1), (RIVAL_IF, RIVAL)] {
            lab.give(lab.host(WIRE), name, lab.host(host))?;
        }
        lab.host(1).ip(&format!("addr add {PEER_IP}/24 dev {PEER_IF}"))?;
        lab.host(RIVAL).ip(&format!("addr add {RIVAL_IP}/24 dev {RIVAL_IF}"))?;
        Ok(Wired { pair: Pair { lab }, netem })
    }

    /// The kernel at the near end too, instead of a card.
    pub fn near_kernel(&self) -> Result<Place> {
        self.pair.near().ip(&format!("addr add {CARD_IP}/24 dev {CARD_IF}"))?;
        Ok(Place::kernel(self.pair.near(), CARD_IP))
    }

    /// A host that shares the line with the near one.
    pub fn rival(&self) -> Place {
        Place::kernel(self.pair.lab.host(RIVAL), RIVAL_IP)
    }

    /// Ends the network. What it says it has done.
    pub fn end(mut self) -> Result<serde_json::Value> {
        self.netem.signal(Signal::TERM)?;
        self.netem.wait(LIMIT)?;
        let log = self.netem.log();
        serde_json::from_str(log.lines().last().unwrap_or_default()).with_context(|| format!("toe-netem printed {log:?}"))
    }
}

/// The congestion control of a kernel on such a network, and that it remembers nothing of earlier connections.
///
/// By the route: as a host's default a namespace may not have all that there are.
pub fn tune(place: &Place, congestion: &str) -> Result<()> {
    place.host.run("sysctl", &["-q", "-w", "net.ipv4.tcp_no_metrics_save=1"], LIMIT)?;
    let device = match place.ip.as_str() {
        CARD_IP => CARD_IF,
        RIVAL_IP => RIVAL_IF,
        _ => PEER_IF,
    };
    place.host.ip(&format!("route change 10.77.0.0/24 dev {device} src {} congctl {congestion}", place.ip))
}
