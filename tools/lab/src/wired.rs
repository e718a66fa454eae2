//! The usual set-up with a bad network in between: `toe-netem` on a host of its own.
//!
//! ```text
//!   host 0: card or kernel ► toe0 ════╗
//!                                     ╠═ TAP ═► toe-netem: host 2 ═ TAP ═► peer0 ◄ kernel: host 1
//!   host 3: kernel (rival) ► rival0 ══╝
//! ```
//!
//! Or the bottleneck is Linux's token bucket filter, on a host of its own behind it:
//!
//! ```text
//!                        toe-netem: host 2 ═ TAP ═► wire0 ─ bridge, tbf each way: host 4 ─ out0 ═ veth ═► peer0 ◄ kernel: host 1
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
const PEER: usize = 1;
const WIRE: usize = 2;
const RIVAL: usize = 3;
const SHAPER: usize = 4;
const SHAPER_IFS: [&str; 2] = ["wire0", "out0"];

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
        let (lab, netem) = wire(4, line, seed, (PEER_IF, PEER))?;
        finish(lab, netem)
    }

    /// The same, behind it a token bucket in each way; `bucket`: words for `tc ... tbf`. `line` should have no rate.
    pub fn shaped(line: &str, bucket: &str, seed: u64) -> Result<Wired> {
        let (lab, netem) = wire(5, line, seed, (SHAPER_IFS[0], SHAPER))?;
        let shaper = lab.host(SHAPER);
        lab.veth((shaper, SHAPER_IFS[1]), (lab.host(PEER), PEER_IF))?;
        // What the peer sends comes as whole frames too, and not as super-frames.
        lab.host(PEER).ip(&format!("link set {PEER_IF} gso_max_segs 1"))?;
        shaper.ip("link add bridge0 up type bridge")?;
        for port in SHAPER_IFS {
            shaper.ip(&format!("link set {port} master bridge0"))?;
            let words = format!("qdisc add dev {port} root tbf {bucket}");
            let done = shaper.run("tc", &words.split_whitespace().collect::<Vec<_>>(), LIMIT);
            done.context("a token bucket needs a kernel with sch_tbf (CONFIG_NET_SCH_TBF)")?;
        }
        finish(lab, netem)
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

/// A lab with `hosts` hosts, the near one and the rival joined by toe-netem to an interface of `far`.
fn wire(hosts: usize, line: &str, seed: u64, far: (&str, usize)) -> Result<(Lab, Job)> {
    let lab = Lab::new(hosts)?;
    let left = format!("{CARD_IF},{RIVAL_IF}");
    let mut command = lab.host(WIRE).command(programs::built_dir()?.join("toe-netem"));
    command.args(["--left", &left, "--right", far.0, "--line", line, "--seed", &seed.to_string()]);
    let log = lab.log_path("toe-netem");
    let mut netem = Job::start("toe-netem", command, &log)?;
    netem.wait_ready(LIMIT, || std::fs::read_to_string(&log).is_ok_and(|text| text.contains("ready")))?;
    for (name, host) in [(CARD_IF, 0), far, (RIVAL_IF, RIVAL)] {
        lab.give(lab.host(WIRE), name, lab.host(host))?;
    }
    Ok((lab, netem))
}

fn finish(lab: Lab, netem: Job) -> Result<Wired> {
    lab.host(PEER).ip(&format!("addr add {PEER_IP}/24 dev {PEER_IF}"))?;
    lab.host(RIVAL).ip(&format!("addr add {RIVAL_IP}/24 dev {RIVAL_IF}"))?;
    Ok(Wired { pair: Pair { lab }, netem })
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
