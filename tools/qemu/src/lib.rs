//! QEMU with a card inside: the one place that knows its command line.
//!
//! ```text
//!   Machine ──words──► qemu-system-aarch64 ── virtio-net ► tap or nothing
//!                         ▲                 └─ ivshmem ──► toe-window's socket
//!                         └── Monitor: pulls the plug of the wire
//! ```
//!
//! May depend on: anything; toectl, the lab and tests use it.
#![forbid(unsafe_code)]

mod monitor;

pub use monitor::Monitor;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What runs images.
pub const QEMU: &str = "qemu-system-aarch64";
/// Firmware that starts UEFI applications, where Debian's package qemu-efi-aarch64 puts it.
pub const UEFI_FIRMWARE: &str = "/usr/share/qemu-efi-aarch64/QEMU_EFI.fd";
/// The wire among the machine's devices.
const WIRE: &str = "wire";

/// What the network interface of a machine leads to.
#[derive(Clone, Debug)]
pub enum Wire {
    /// A TAP interface with virtio headers (`vnet_hdr`) and so many queue pairs; with more than one it is `multi_queue`.
    Tap { name: String, pairs: u32 },
    /// A hub without anybody else.
    Nobody,
}

/// A machine that runs an image of `boards/virt`.
#[derive(Clone, Debug)]
pub struct Machine {
    /// An ELF file; with `uefi` a UEFI application.
    pub image: PathBuf,
    pub uefi: bool,
    /// Cores for the card.
    pub cores: u32,
    pub wire: Wire,
    /// The socket of toe-window, and the interrupts of each of its peers.
    pub window: PathBuf,
    pub vectors: u16,
    /// More words for the image's command line.
    pub append: String,
    /// Where QEMU listens for a [`Monitor`].
    pub monitor: Option<PathBuf>,
}

impl Machine {
    /// QEMU's arguments. The console is its standard output.
    pub fn words(&self) -> Vec<OsString> {
        // Guest atomics are atomic towards the host only with several threads, so there are always two cores at least.
        let cores = self.cores.max(2);
        let mut words: Vec<OsString> = "-M virt,gic-version=3,its=on,virtualization=on -cpu cortex-a72 -accel tcg,thread=multi -m 256M \
             -nodefaults -display none -serial stdio -monitor none"
            .split_whitespace()
            .map(OsString::from)
            .collect();
        let mut add = |name: &str, value: OsString| words.extend([name.into(), value]);
        add("-smp", cores.to_string().into());
        let (netdev, pairs) = match &self.wire {
            Wire::Tap { name, pairs } => (format!("tap,id={WIRE},ifname={name},script=no,downscript=no,queues={pairs},vhost=off"), *pairs),
            Wire::Nobody => (format!("hubport,id={WIRE},hubid=0"), 1),
        };
        add("-netdev", netdev.into());
        // Two interrupts more than queues: changes of the device, and the control queue.
        let mq = if pairs > 1 { "mq=on," } else { "" };
        add("-device", format!("virtio-net-pci,netdev={WIRE},{mq}vectors={},romfile=", 2 * pairs + 2).into());
        add("-chardev", socket(&self.window, ",id=window"));
        add("-device", format!("ivshmem-doorbell,vectors={},chardev=window", self.vectors).into());
        if let Some(path) = &self.monitor {
            add("-chardev", socket(path, ",id=monitor,server=on,wait=off"));
            add("-mon", "chardev=monitor,mode=control".into());
        }
        if self.uefi {
            add("-bios", UEFI_FIRMWARE.into());
        }
        add("-kernel", self.image.clone().into());
        let only = if self.cores < cores { format!("cores={} ", self.cores) } else { String::new() };
        let append = only + &self.append;
        if !append.is_empty() {
            add("-append", append.trim().into());
        }
        words
    }
}

/// A character device that is a UNIX socket.
fn socket(path: &Path, more: &str) -> OsString {
    let mut words = OsString::from("socket,path=");
    // QEMU takes two commas for one that belongs to a value. (A path that is no text has none to be mistaken.)
    match path.to_str() {
        Some(text) => words.push(text.replace(',', ",,")),
        None => words.push(path),
    }
    words.push(more);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(change: impl FnOnce(&mut Machine)) -> String {
        let mut machine = Machine {
            image: "/i.elf".into(),
            uefi: false,
            cores: 4,
            wire: Wire::Tap { name: "tap0".into(), pairs: 2 },
            window: "/run/a,b.sock".into(),
            vectors: 64,
            append: String::new(),
            monitor: None,
        };
        change(&mut machine);
        machine.words().iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_machine_has_a_wire_and_a_window() {
        let line = words(|_| ());
        for part in ["-smp 4 ", "ifname=tap0,", "queues=2,", "mq=on,vectors=6,", "path=/run/a,,b.sock,id=window", "-kernel /i.elf"] {
            assert!(line.contains(part), "{part} is not in\n{line}");
        }
        assert!(!line.contains("-append") && !line.contains("-bios") && !line.contains("-mon "), "{line}");
    }

    #[test]
    fn a_single_core_has_a_second_one_beside_it() {
        let line = words(|machine| (machine.cores, machine.append) = (1, "fail=panic".into()));
        assert!(line.contains("-smp 2 ") && line.ends_with("-append cores=1 fail=panic"), "{line}");
    }

    #[test]
    fn a_wire_with_one_pair_is_no_multiqueue_device() {
        let line = words(|machine| machine.wire = Wire::Nobody);
        assert!(line.contains("hubport,id=wire") && line.contains("netdev=wire,vectors=4,"), "{line}");
    }
}
