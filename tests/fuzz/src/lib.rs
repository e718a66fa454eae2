//! What strangers can write, as functions of bytes: for libFuzzer (`cargo xtask fuzz`), and for the corpus under `cargo test`.
//!
//! ```text
//!   bytes ─┬─ as they are ──────► frame · device_tree · acpi · ivshmem
//!          └─ as events ────────► tcp · engine · card · stack · app · library · pci · vfio_user · virtio
//! ```
//!
//! A target returns, or it has found something: a panic, an index out of range, an overflow, a loop, or a rule of ours that does not hold. Inputs
//! that reach something new are kept in `corpus/TARGET`; one that once broke something is there too, by a name that says what.
//!
//! May depend on: anything. Nothing may depend on it.
#![forbid(unsafe_code)]

mod targets;

/// Has targets of events tell each of them before it happens.
pub fn show_steps() {
    targets::steps::SHOWN.store(true, std::sync::atomic::Ordering::Relaxed);
}

/// Something to fuzz.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub name: &'static str,
    /// One line for operators of the fuzzer.
    pub about: &'static str,
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "frame", about: "a frame from the wire: every parser of toe-wire, and back to bytes", run: targets::frame::run },
    Target { name: "tcp", about: "segments, host updates and timers on one flow (toe-tcp)", run: targets::tcp::run },
    Target { name: "engine", about: "frames, calls and time on the control plane (toe-engine)", run: targets::engine::run },
    Target { name: "card", about: "wire, control plane and application against the data path (toe-datapath)", run: targets::card::run },
    Target { name: "stack", about: "a peer that says anything against card, daemon, library and application", run: targets::stack::run },
    Target { name: "app", about: "applications and a card that say anything against daemon and card", run: targets::app::run },
    Target { name: "library", about: "daemon, card and family against an application's library (toe)", run: targets::library::run },
    Target { name: "device_tree", about: "a device tree (toe-arch)", run: targets::device_tree::run },
    Target { name: "acpi", about: "ACPI tables in physical memory (toe-arch)", run: targets::acpi::run },
    Target { name: "ivshmem", about: "messages of the window's server (toe-link)", run: targets::ivshmem::run },
    Target { name: "pci", about: "functions on a bus, their BARs and capabilities (toe-drivers)", run: targets::pci::run },
    Target { name: "vfio_user", about: "what a host asks of the soft card's device (toe-nic)", run: targets::vfio_user::run },
    Target { name: "virtio", about: "a network device that says anything (toe-drivers)", run: targets::virtio::run },
];

/// The target of this name. A constant where the name is one: then a program has that target alone.
pub const fn target(name: &str) -> Option<&'static Target> {
    let mut at = 0;
    while at < TARGETS.len() {
        if is_same(TARGETS[at].name.as_bytes(), name.as_bytes()) {
            return Some(&TARGETS[at]);
        }
        at += 1;
    }
    None
}

const fn is_same(a: &[u8], b: &[u8]) -> bool {
    match (a, b) {
        ([a, a_rest @ ..], [b, b_rest @ ..]) => *a == *b && is_same(a_rest, b_rest),
        _ => a.is_empty() && b.is_empty(),
    }
}
