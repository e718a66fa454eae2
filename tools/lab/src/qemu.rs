//! A card inside QEMU: the bare-metal image of the board `virt`, its window and its wire, as an operator would start them.
//!
//! ```text
//!   host 0: applications ► toed ► toe-window ◄ QEMU: image ► virtio-net ═══ tap peer0 ◄ kernel :host 1
//! ```
//!
//! QEMU runs where the wire ends: a tap device is only its owner's.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use toe_qemu::{Monitor, QEMU, UEFI_FIRMWARE, Wire};

use crate::instance::{CARD_IP, Card, PEER_IF, PEER_IP, Pair};
use crate::job::{self, Job};
use crate::namespaces::{Host, Lab};
use crate::{proc, programs};

/// Names the image, if it is not where `cargo xtask image virt` puts it.
pub const IMAGE_ENV: &str = "TOE_IMAGE";

const RUN_DIR: &str = "/run/toe";
const WINDOW: &str = "/run/toe/window.sock";
/// Interrupts of each end of the window, and so the most contexts, toed's included.
const VECTORS: u16 = 64;
const MONITOR: &str = "/run/toe/monitor.sock";
/// Queue pairs of the tap device.
const PAIRS: u32 = 2;
/// A machine starts in less than a second; this is for one that has much else to do.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How a machine is to be.
#[derive(Clone, Debug)]
pub struct Machine {
    pub cores: u32,
    /// A UEFI application; else an ELF image.
    pub uefi: bool,
    /// Bytes of the window, as toe-window has them.
    pub window: &'static str,
    /// Words for the image's command line.
    pub append: &'static str,
    /// Another address of the card, with its prefix length.
    pub ip6: Option<&'static str>,
}

impl Default for Machine {
    fn default() -> Self {
        Self { cores: 4, uefi: false, window: "256M", append: "", ip6: None }
    }
}

/// The image: `$TOE_IMAGE`, else beside our own programs, else where it is built.
pub fn image(uefi: bool) -> Result<PathBuf> {
    if let Some(path) = env::var_os(IMAGE_ENV) {
        return Ok(path.into());
    }
    let name = if uefi { "toe-virt-a72.efi" } else { "toe-virt-a72.elf" };
    let bin = programs::built_dir()?;
    let places = [bin.join(name), bin.join("../image").join(name)];
    let found = places.iter().find(|path| path.exists()).cloned();
    found.with_context(|| format!("{name} is not built; 'cargo xtask image virt{}' builds it", if uefi { " --uefi" } else { "" }))
}

/// A machine that runs the image, and the window between it and the host.
#[derive(Debug)]
pub struct QemuCard {
    pub card: Card,
    pub window: Job,
    pub machine: Job,
    pub toed: Job,
    near: Host,
}

/// Two hosts; the wire between them is a tap device, with the kernel at this end and a machine at the other.
pub fn pair() -> Result<Pair> {
    let lab = Lab::new(2)?;
    let peer = lab.host(1);
    peer.ip(&format!("tuntap add dev {PEER_IF} mode tap vnet_hdr multi_queue"))
        .context("tap devices need /dev/net/tun, open to the user who runs this")?;
    peer.ip(&format!("addr add {PEER_IP}/24 dev {PEER_IF}"))?;
    peer.ip(&format!("link set {PEER_IF} up"))?;
    Ok(Pair { lab })
}

impl QemuCard {
    /// Starts window, machine and toed, and waits until the card is attached.
    pub fn start(pair: &Pair, machine: &Machine) -> Result<QemuCard> {
        let (lab, near) = (&pair.lab, pair.near().clone());
        std::fs::create_dir_all(lab.path(RUN_DIR))?;
        let window = start_window(lab, &near, machine)?;
        let job = start_machine(lab, pair.peer(), machine)?;
        let toed = start_toed(lab, &near, machine.ip6)?;
        let card = Card::new(&near, RUN_DIR, CARD_IP)?;
        let mut this = QemuCard { card, window, machine: job, toed, near };
        this.wait_attached()?;
        Ok(this)
    }

    /// Waits until toed says that the card is attached.
    pub fn wait_attached(&mut self) -> Result<()> {
        let card = self.card.clone();
        let attached = || card.json("status").is_ok_and(|status| status["card"]["status"] == "attached");
        let ready = job::wait_until("the card is attached", START_LIMIT, attached);
        let logs = self.logs();
        ready.with_context(|| logs)
    }

    /// Another toed, after the last one has gone.
    pub fn restart_toed(&mut self, pair: &Pair) -> Result<()> {
        self.toed = start_toed(&pair.lab, &self.near, None)?;
        self.wait_attached()
    }

    /// The machine's monitor.
    pub fn monitor(&self, pair: &Pair) -> Result<Monitor> {
        Monitor::connect(&pair.lab.path(MONITOR))
    }

    /// Another machine, after the last one has gone.
    pub fn restart_machine(&mut self, pair: &Pair, machine: &Machine) -> Result<()> {
        self.machine = start_machine(&pair.lab, pair.peer(), machine)?;
        Ok(())
    }

    /// What the machine has printed.
    pub fn console(&self) -> String {
        self.machine.log()
    }

    /// The ends of all logs, for messages.
    pub fn logs(&self) -> String {
        let log = |name: &str, job: &Job| format!("  {name}:\n{}", job.log_tail(20));
        let stats = self.card.stats().unwrap_or_default();
        let counters: String = stats.iter().filter(|(_, n)| **n > 0).map(|(name, n)| format!("    {name} {n}\n")).collect();
        log("machine", &self.machine) + &log("toe-window", &self.window) + &log("toed", &self.toed) + "  counters:\n" + &counters
    }

    /// The processor time that the machine has used, seconds.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let pid = self.machine.pid()?;
        let stat = proc::Stat::read(pid).context("the machine has gone")?;
        Ok(stat.cpu_ticks as f64 / proc::ticks_per_second() as f64)
    }
}

fn start_window(lab: &Lab, near: &Host, machine: &Machine) -> Result<Job> {
    let mut command = near.command(programs::built_dir()?.join("toe-window"));
    command.args(["--socket", WINDOW, "--size", machine.window, "--vectors", &VECTORS.to_string()]);
    let mut job = Job::start("toe-window", command, &lab.log_path("toe-window"))?;
    let socket = lab.path(WINDOW);
    job.wait_ready(START_LIMIT, || socket.exists())?;
    Ok(job)
}

fn start_machine(lab: &Lab, wire: &Host, machine: &Machine) -> Result<Job> {
    ensure!(!machine.uefi || Path::new(UEFI_FIRMWARE).exists(), "{UEFI_FIRMWARE} is not there; 'cargo xtask setup' installs it");
    let machine = toe_qemu::Machine {
        image: image(machine.uefi)?,
        uefi: machine.uefi,
        cores: machine.cores,
        wire: Wire::Tap { name: PEER_IF.into(), pairs: PAIRS },
        window: WINDOW.into(),
        vectors: VECTORS,
        append: machine.append.to_owned(),
        monitor: Some(MONITOR.into()),
    };
    let mut command = wire.command(programs::require(QEMU)?);
    command.args(machine.words());
    Job::start("machine", command, &lab.log_path("machine"))
}

fn start_toed(lab: &Lab, near: &Host, ip6: Option<&str>) -> Result<Job> {
    let mut command = near.command(programs::built_dir()?.join("toed"));
    let addresses = ip6.iter().fold(format!("{CARD_IP}/24"), |all, ip6| format!("{all},{ip6}"));
    command.args(["--device", &format!("ivshmem:{WINDOW}"), "--ip-addr", &addresses]);
    command.env("TOE_RUN_DIR", RUN_DIR);
    Job::start("toed", command, &lab.log_path("toed"))
}
