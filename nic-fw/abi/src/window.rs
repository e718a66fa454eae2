//! The shared window: the link to a card that has no host's PCIe bus behind it but memory that both sides map.
//!
//! The card is firmware inside a virtual machine; the window is BAR2 of its `ivshmem-doorbell` device (QEMU, specs/ivshmem-spec),
//! and for the host a memfd that the server of the window (`toe-window`) hands out.
//!
//! ```text
//!   0x0_0000  CardPage    written by the card: registers, answers to requests, why it failed
//!   0x0_1000  HostPage    written by toed: requests
//!   0x0_2000  LogHeader   written by the card
//!   0x0_3000  log bytes   written by the card, LOG_LEN of them, the oldest overwritten
//!   0x2_0000  memory      handed out by toed: control region, regions of applications; 4 KiB aligned
//!   ...       end of the window, a power of two
//! ```
//!
//! **An I/O virtual address on this link is an offset in the window** (`CONTROL_LO`, `MAP_REGION`). Regions lie in
//! `MEMORY_OFF..window_len`; the card refuses any other, as it refuses memory that was never mapped on other links.
//!
//! **One writer per word, and plain aligned 32-bit loads and stores with acquire, release or fences around them.** Never a
//! read-modify-write: an atomic of the guest is not atomic against a process of the host in every mode of QEMU. A card
//! must never compare-and-swap in here either, and counts only in words of its own. (Bytes of log, text and payload may be stored in any
//! width: what is published after them makes them good.)
//!
//! **Signals.** Vector v belongs to context v; vector 0 is the control plane's. The card wakes whoever sleeps on context v by
//! writing [`doorbell`]`(host peer, v)` to its Doorbell register; the host wakes the card by an eventfd that arrives as MSI-X v.
//! Vectors carry no data and may be merged, come late or without a cause: what is asked lies in memory. So vector 0 means: look at
//! `HostPage::number`, then at context 0. To toed it means the same of its queues, `status` and `link`.
//!
//! **Start of a card.** 1. `magic = 0`. 2. `instance`, a random number other than the last one (not 0), release. Then everything else in
//! the page (`status` is not FAILED any more), `outcome = NONE` and after it `done = HostPage::number`: a request that an earlier card
//! left undone is not carried out by the next.
//! 3. A release fence, then `magic`. 4. If `HostPage::version` is not 0, vector 0 of `HostPage::peer` is signalled: toed may wait. A card
//! that fails before it is ready does the same with `status = FAILED` and its text. One that fails later writes its text, then
//! `status`, and signals vector 0.
//!
//! **A request.** toed writes `request` and its arguments, then `number` (release), and kicks vector 0. The card reads `number`
//! (acquire) when kicked and before it sleeps; if it is not `done`, carries the request out, writes `outcome` and `status`,
//! then `done = number` (release), and signals vector 0 of `HostPage::peer`. One request at a time: toed writes the next only when
//! `done` has come, or when it has given up on the card. toed goes on from the number that it finds in its page.
//!
//! **Restart.** `instance` has changed: the card has forgotten everything. A new toed asks for RESET.
//!
//! Nothing keeps one application out of another's part of the window: on this link they are not protected from each other.

use crate::assert_layout;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of the window: a power of two (it is a BAR), within these limits.
pub const WINDOW_MIN: u64 = 4 << 20;
pub const WINDOW_MAX: u64 = 1 << 34;
/// Window that `toe-window` makes unless told otherwise.
pub const WINDOW_DEFAULT: u64 = 64 << 20;

/// Most vectors of a peer: QEMU looks at 8 bits of what is written to Doorbell (hw/misc/ivshmem.c, `ivshmem_io_write`).
pub const VECTORS_MAX: u64 = 256;

/// The control plane's vector, as its context is 0.
pub const CONTROL_VECTOR: u16 = 0;

/// Offsets in the window.
pub const CARD_PAGE_OFF: u64 = 0x0000;
pub const HOST_PAGE_OFF: u64 = 0x1000;
pub const LOG_HEADER_OFF: u64 = 0x2000;
pub const LOG_OFF: u64 = 0x3000;
/// Where memory for regions begins.
pub const MEMORY_OFF: u64 = 0x2_0000;

/// Bytes of the log ring, a power of two.
pub const LOG_LEN: u64 = 64 << 10;
/// Most bytes of a failure's text.
pub const FAILURE_MAX: usize = 512;
/// Words of a build id.
pub const BUILD_WORDS: usize = 5;

const _: () = {
    assert!(CARD_PAGE_OFF + size_of::<CardPage>() as u64 <= HOST_PAGE_OFF);
    assert!(HOST_PAGE_OFF + size_of::<HostPage>() as u64 <= LOG_HEADER_OFF);
    assert!(LOG_HEADER_OFF + size_of::<LogHeader>() as u64 <= LOG_OFF);
    assert!(LOG_OFF + LOG_LEN <= MEMORY_OFF);
    assert!(LOG_LEN.is_power_of_two() && LOG_OFF.is_multiple_of(4096) && MEMORY_OFF.is_multiple_of(4096));
    // The control region and something for an application.
    assert!(MEMORY_OFF + crate::control::CONTROL_REGION_LEN < WINDOW_MIN);
    assert!(WINDOW_MIN.is_power_of_two() && WINDOW_MAX.is_power_of_two() && WINDOW_DEFAULT.is_power_of_two());
};

/// What the card says: [`crate::regs`] at their very offsets, then what a device would do by itself.
///
/// Everything is a claim to the host, and may change under its eyes when the card is started anew: `instance` before and after
/// tells.
#[repr(C, align(4096))]
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CardPage {
    /// [`crate::regs::MAGIC_VALUE`]; 0: not ready. Written last, release.
    pub magic: u32,
    /// [`crate::ABI_VERSION`] of the card.
    pub version: u32,
    /// [`crate::regs::caps`].
    pub caps: u32,
    /// [`crate::regs::status`].
    pub status: u32,
    pub max_flows: u32,
    /// Contexts, the control region's included; at most the vectors of the device.
    pub max_contexts: u32,
    pub max_regions: u32,
    /// Bytes of IP packet.
    pub mtu: u32,
    pub mac_lo: u32,
    pub mac_hi: u32,
    /// Registers that the host writes: they lie in [`HostPage`].
    pub _host: [u32; 3],
    pub max_next_hops: u32,
    /// [`crate::regs::link`]: written whenever it changes, then vector 0 is signalled.
    pub link: u32,
    pub _registers: u32,

    /// `HostPage::number` of the last request that was carried out. Release, after `outcome` and `status`.
    pub done: u32,
    /// What came of it: [`outcome`].
    pub outcome: u32,
    /// The card's id among the peers of the window (register IVPosition).
    pub peer: u32,
    /// Random and not 0, anew at each start of the card.
    pub instance: u32,
    /// Bytes of the window as the card found them (BAR2), lower and upper half.
    pub window_lo: u32,
    pub window_hi: u32,
    /// How far the card has come: [`stage`]. For messages to people only; true before `magic` is there, too.
    pub stage: u32,
    /// The core that failed, of those that `failure` is about; all ones: none or unknown.
    pub failed_core: u32,
    /// Bytes of `failure`; 0: none. Release, after the text and before `status` says FAILED.
    pub failure_len: u32,
    /// Which build of the firmware it is, as its ELF file has it (GNU build id, SHA-1): tells whose strings its log refers to. Zeroes:
    /// unknown.
    pub build: [u32; BUILD_WORDS],
    pub _reserved: [u32; 2],

    /// Why the card failed: UTF-8, a panic's message and its place. Cut off rather than left out.
    pub failure: [u8; FAILURE_MAX],
    pub _reserved2: [u8; 3456],
}
assert_layout!(CardPage, 4096, done @ 64, outcome @ 68, peer @ 72, instance @ 76, window_lo @ 80, stage @ 88, failed_core @ 92,
    failure_len @ 96, build @ 100, failure @ 128);

/// The registers lie where [`crate::regs`] has them.
macro_rules! assert_registers {
    ($($field:ident = $register:ident,)*) => {
        const _: () = { $(assert!(core::mem::offset_of!(CardPage, $field) as u64 == crate::regs::$register);)* };
    };
}
assert_registers! {
    magic = MAGIC, version = VERSION, caps = CAPS, status = STATUS, max_flows = MAX_FLOWS, max_contexts = MAX_CONTEXTS,
    max_regions = MAX_REGIONS, mtu = MTU, mac_lo = MAC_LO, mac_hi = MAC_HI, _host = CONTROL_LO, max_next_hops = MAX_NEXT_HOPS,
    link = LINK,
}

/// What toed says. A claim to the card.
#[repr(C, align(4096))]
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct HostPage {
    /// Rises by 1 (mod 2^32) with each request. Written last, release.
    pub number: u32,
    /// What is asked: [`crate::regs::enable`].
    pub request: u32,
    /// Of ATTACH: offset of the control region in the window, lower and upper half.
    pub control_lo: u32,
    pub control_hi: u32,
    /// toed's id among the peers of the window: whom the card signals, for every vector. A new toed writes it before its first request.
    pub peer: u32,
    /// Bytes of the window as the host made it, lower and upper half.
    pub window_lo: u32,
    pub window_hi: u32,
    /// [`crate::ABI_VERSION`] of toed.
    pub version: u32,
    /// toed's note for its successor, nothing to the card: where it has handed out memory last (offset of the end). Programs of a
    /// toed that was killed may go on writing to theirs for a while, so the next one begins behind it.
    pub memory_lo: u32,
    pub memory_hi: u32,
    pub _reserved: [u32; 1014],
}
assert_layout!(HostPage, 4096, number @ 0, request @ 4, control_lo @ 8, peer @ 16, window_lo @ 20, version @ 28, memory_lo @ 32);

/// The card's log: bytes of its logger (defmt, rzCOBS frames that end in 0) in a ring without a consumer.
///
/// Byte n of the log lies at `LOG_OFF + n mod LOG_LEN`. The writer stores `begun = written + len`, fences (release), stores the
/// bytes, then stores `written = begun` (release). A reader loads `written` (acquire), copies, fences (acquire) and loads
/// `begun`: what lies more than LOG_LEN before that is lost, whatever was copied. Both count mod 2^32 from 0 at the card's start;
/// a reader whose place is more than LOG_LEN behind `written`, or ahead of it, has missed something.
#[repr(C, align(4096))]
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct LogHeader {
    pub begun: u32,
    pub written: u32,
    /// Frames that the card could not write since its start: too long, or too many cores at once. Mod 2^32.
    pub dropped: u32,
    pub _reserved: [u32; 1021],
}
assert_layout!(LogHeader, 4096, begun @ 0, written @ 4, dropped @ 8);

/// Values of [`CardPage::outcome`].
pub mod outcome {
    /// Nothing was asked of this card yet.
    pub const NONE: u32 = 0;
    pub const OK: u32 = 1;
    /// Not a request, or a control region that is not inside the window's memory or not aligned.
    pub const INVALID: u32 = 2;
    /// The card has failed and does nothing any more.
    pub const FAILED: u32 = 3;
    /// The card works with another size of window, or another major version of the contract.
    pub const MISMATCH: u32 = 4;
}

/// Values of [`CardPage::stage`].
pub mod stage {
    pub const NONE: u32 = 0;
    /// Memory, interrupts, cores.
    pub const BOOT: u32 = 1;
    /// Looking for its devices and starting them.
    pub const DEVICES: u32 = 2;
    /// Waits for toed.
    pub const READY: u32 = 3;
    /// Carries out a request.
    pub const REQUEST: u32 = 4;
    /// Attached to a control region.
    pub const RUNNING: u32 = 5;
}

/// What to write to the Doorbell register to raise vector `vector` of `peer`.
pub const fn doorbell(peer: u16, vector: u16) -> u32 {
    (peer as u32) << 16 | vector as u32
}

/// Whether `len` bytes at `offset` are memory that toed may have handed out in a window of `window` bytes.
pub const fn in_memory(offset: u64, len: u64, window: u64) -> bool {
    match offset.checked_add(len) {
        Some(end) => offset >= MEMORY_OFF && end <= window && offset.is_multiple_of(4096) && len != 0,
        None => false,
    }
}

/// Whether a window may have `len` bytes.
pub const fn valid_len(len: u64) -> bool {
    len.is_power_of_two() && len >= WINDOW_MIN && len <= WINDOW_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_what_lies_between_the_fixed_part_and_the_end() {
        let window = WINDOW_DEFAULT;
        assert!(in_memory(MEMORY_OFF, 4096, window));
        assert!(in_memory(window - 4096, 4096, window));
        for (offset, len) in [(0, 4096), (MEMORY_OFF - 4096, 8192), (window - 4096, 4097), (MEMORY_OFF + 64, 64), (MEMORY_OFF, 0)] {
            assert!(!in_memory(offset, len, window), "{offset:#x} {len:#x}");
        }
        assert!(!in_memory(u64::MAX - 4095, 4096, window) && !in_memory(1 << 40, 4096, window));
    }

    #[test]
    fn windows_are_powers_of_two_of_some_size() {
        assert!(valid_len(WINDOW_MIN) && valid_len(WINDOW_DEFAULT) && valid_len(WINDOW_MAX));
        assert!(!valid_len(0) && !valid_len(WINDOW_MIN / 2) && !valid_len(WINDOW_MAX * 2) && !valid_len(WINDOW_DEFAULT + 4096));
    }

    #[test]
    fn a_doorbell_names_peer_and_vector() {
        assert_eq!(doorbell(2, 63), 0x0002_003f);
    }
}
