//! How toed reaches a card.
//!
//! ```text
//!   toed ── Card ───────────► registers, memory, interrupts           (vfio-user messages, or pages of a window)
//!        ── ControlRegion ──► submissions, packets                    (shared memory, region 0)
//!                         ◄── completions, exceptions
//! ```
//!
//! A [`Card`] is what the link can do besides shared memory: [`VfioUser`] for the soft card, [`Window`] for a card inside QEMU. The link
//! makes the memory that it can reach, and the signals. [`ControlRegion`] is the same for all cards, over any memory: a card
//! in the same process needs nothing else.

mod control;
mod memory;
mod vfio;
mod window;

pub use control::{ControlError, ControlRegion};
pub use memory::{MemoryOptions, SharedMemory};
pub use toe_sync::frame_ring::PushError;
pub use vfio::VfioUser;
pub use window::{Log, Missed, Window};

use rustix::{
    event::epoll::EventFlags,
    fd::{BorrowedFd, OwnedFd},
};
use toe_abi::{CtxId, RegionId, regs};

/// I/O virtual address of region `region`: 1 TiB apart, none at 0.
pub const fn iova(region: u16) -> u64 {
    (region as u64 + 1) << 40
}

/// What a card says about itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CardInfo {
    /// `toe_abi::ABI_VERSION` of the card.
    pub abi_version: u32,
    /// [`regs::caps`].
    pub caps: u32,
    pub max_flows: u32,
    /// Contexts, the control region's included.
    pub max_contexts: u32,
    /// Regions, the control region included.
    pub max_regions: u32,
    pub max_next_hops: u32,
    /// Bytes of IP packet on the port.
    pub mtu: u32,
    pub mac: [u8; 6],
    /// Bytes that all regions together can have, the control region included; `None`: as the host has them.
    pub memory_max: Option<u64>,
}

/// Memory that the card reaches.
pub struct CardMemory {
    /// Its I/O virtual address: what MAP_REGION says.
    pub iova: u64,
    pub memory: SharedMemory,
}

/// The two descriptors of a context.
pub struct Signals {
    /// Becomes readable when the card wants whoever sleeps on the context. Nobody reads it: it is watched edge-triggered.
    pub interrupt: OwnedFd,
    /// Write 1 to wake the card.
    pub kick: OwnedFd,
}

/// How a card is reached, for operators.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LinkReport {
    /// As `--device` has it: `vfio-user:/run/toe/card.sock`.
    pub device: String,
    /// What kind of card it is.
    pub board: &'static str,
    /// Of a window: bytes handed out.
    pub memory_used: Option<u64>,
}

/// A part of a card's log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LogPart {
    /// Which start of the card it is about, and which build of its firmware (GNU build id; zeroes: unknown): claims.
    pub instance: u32,
    pub build: [u32; toe_abi::window::BUILD_WORDS],
    /// defmt, rzCOBS frames that end in 0.
    pub bytes: Vec<u8>,
    /// Bytes that were overwritten before these.
    pub missed: u32,
    /// Where the next part begins.
    pub next: u32,
    /// Frames that the card could not write since its start.
    pub dropped: u32,
}

/// Whether the card's port has a wire that works.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PortLink {
    Up,
    Down,
    /// The card does not tell.
    #[default]
    Unknown,
}

impl PortLink {
    /// By [`regs::LINK`]: a claim, so anything may stand there.
    fn of(register: u32) -> Self {
        match register {
            regs::link::UP => Self::Up,
            regs::link::DOWN => Self::Down,
            _ => Self::Unknown,
        }
    }

    /// What a card that does not tell counts as: nobody would ever hear that it comes up.
    pub const fn may_be_up(self) -> bool {
        !matches!(self, Self::Down)
    }

    pub const fn text(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Unknown => "unknown",
        }
    }
}

/// Why the card could not be reached or used.
#[derive(Debug, thiserror::Error)]
pub enum CardError {
    #[error("no card answers on {path}: {error}; is toe-nic running with --socket {path}?")]
    Connect { path: String, error: String },
    #[error("{path} is not a FerroTOE card: register MAGIC reads {magic:#010x}")]
    NotACard { path: String, magic: u32 },
    #[error("the card speaks ABI version {major}.{minor}, this toed {ours}; use card and daemon of one release", ours = toe_abi::ABI_VERSION >> 16)]
    Version { major: u32, minor: u32 },
    /// The connection broke, or no answer came in time. Nothing can be asked any more.
    #[error("the card is gone ({step}: {error})")]
    Gone { step: &'static str, error: String },
    #[error("{step}: {error}")]
    Os { step: &'static str, error: std::io::Error },
    #[error("no window at {path}: {error}; is toe-window running with --socket {path}?")]
    NoWindow { path: String, error: String },
    /// Something else is there, or somebody else uses it.
    #[error("the window at {path} can't be used: {problem}")]
    BadWindow { path: String, problem: String },
    #[error("no card in the window at {path} after {waited_s} s: {state}")]
    NotReady { path: String, waited_s: u64, state: String },
    /// By its own words.
    #[error("the card has failed: {text}")]
    Failed { text: String },
    /// It has forgotten everything.
    #[error("the card was started anew")]
    Restarted,
    #[error("the card did not carry out {request} within {waited_s} s; it last said: {said}")]
    NoAnswer { request: &'static str, waited_s: u64, said: String },
    #[error("the card refuses {request}: {why}")]
    Refused { request: &'static str, why: String },
    /// Ask again when others have gone.
    #[error(
        "the window has no room for {wanted} bytes in one piece: {used} of {len} are in use, the largest piece has {largest}; \
             a larger window (toe-window --size) or smaller applications (--shm-len, --max-contexts, --app-kin-len) help"
    )]
    NoRoom { wanted: u64, used: u64, len: u64, largest: u64 },
}

/// What has come in the place of a card that has failed or gone.
pub enum Successor {
    /// Nothing can: what the card was reached by has gone, too.
    Never,
    NotYet,
    /// A card that has forgotten everything, to be attached to.
    Ready(Box<dyn Card>),
    /// One that can't be used, and why. Said once of each.
    Unusable(CardError),
}

/// One card, as its control plane uses it. Every call is bounded in time.
pub trait Card {
    fn info(&self) -> &CardInfo;

    /// [`regs::status`].
    fn status(&mut self) -> Result<u32, CardError>;

    /// The port's link as it is now.
    fn port_link(&mut self) -> Result<PortLink, CardError>;

    /// Makes at least `len` bytes of zeroed memory that the card reaches, for region `region`. Whether the card takes it shows in
    /// the answer to MAP_REGION.
    fn make_memory(&mut self, region: RegionId, len: u64, options: MemoryOptions) -> Result<CardMemory, CardError>;

    /// Takes it away, after UNMAP_REGION was answered. Mappings that others have of it stay, and must not be used any more.
    fn drop_memory(&mut self, iova: u64) -> Result<(), CardError>;

    /// Makes the signals of a context known to both sides. The card waits (edge-triggered) for `kick`.
    fn make_signals(&mut self, ctx: CtxId) -> Result<Signals, CardError>;

    /// Takes them away. What others have of them may signal another context later.
    fn drop_signals(&mut self, ctx: CtxId) -> Result<(), CardError>;

    /// Tells where the control region is, and writes [`regs::ENABLE`].
    fn enable(&mut self, control_iova: u64, what: u32) -> Result<(), CardError>;

    /// What to watch (level-triggered), and for which events, so as to learn that the card is gone; then [`look`](Self::look).
    /// `None`: it cannot go.
    fn watch(&self) -> Option<(BorrowedFd<'_>, EventFlags)>;

    /// Takes in what [`watch`](Self::watch) has reported. An error: the card is gone.
    fn look(&mut self) -> Result<(), CardError>;

    /// Looks for another card in the place of this one, which has failed or gone. To be asked again when [`watch`](Self::watch) or the
    /// control context's interrupt report something, and now and then.
    fn successor(&mut self) -> Successor {
        Successor::Never
    }

    /// What the card has left behind about its failure, if it has failed and can still say so.
    fn failure(&self) -> Option<String> {
        None
    }

    /// The card's log: what came after byte `from` of the log of `instance`; all that there is, if the card is another by now. `None`: it
    /// has none of its own.
    fn log(&self, _instance: u32, _from: u32) -> Option<LogPart> {
        None
    }

    fn report(&self) -> LinkReport;
}

/// Reads the registers that make up a [`CardInfo`], and checks that it is a card of our version.
fn read_info(name: &str, mut register: impl FnMut(u64) -> Result<u32, CardError>) -> Result<CardInfo, CardError> {
    let magic = register(regs::MAGIC)?;
    if magic != regs::MAGIC_VALUE {
        return Err(CardError::NotACard { path: name.to_owned(), magic });
    }
    let abi_version = register(regs::VERSION)?;
    if !toe_abi::compatible(abi_version) {
        return Err(CardError::Version { major: abi_version >> 16, minor: abi_version & 0xffff });
    }
    let (lo, hi) = (register(regs::MAC_LO)?.to_le_bytes(), register(regs::MAC_HI)?.to_le_bytes());
    Ok(CardInfo {
        abi_version,
        caps: register(regs::CAPS)?,
        max_flows: register(regs::MAX_FLOWS)?,
        max_contexts: register(regs::MAX_CONTEXTS)?,
        max_regions: register(regs::MAX_REGIONS)?,
        max_next_hops: register(regs::MAX_NEXT_HOPS)?,
        mtu: register(regs::MTU)?,
        mac: [lo[0], lo[1], lo[2], lo[3], hi[0], hi[1]],
        memory_max: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(at: u64) -> Result<u32, CardError> {
        Ok(match at {
            regs::MAGIC => regs::MAGIC_VALUE,
            regs::VERSION => toe_abi::ABI_VERSION,
            regs::MAC_LO => u32::from_le_bytes([2, 1, 2, 3]),
            regs::MAC_HI => u32::from_le_bytes([4, 5, 0, 0]),
            regs::MTU => 1500,
            _ => 64,
        })
    }

    #[test]
    fn registers_become_card_info() {
        let info = read_info("x", card).expect("a card");
        assert_eq!((info.mac, info.mtu, info.max_flows), ([2, 1, 2, 3, 4, 5], 1500, 64));
    }

    #[test]
    fn a_link_is_up_or_down_or_nothing_that_can_be_believed() {
        let texts = [regs::link::UP, regs::link::DOWN, regs::link::UNKNOWN, 77].map(|word| PortLink::of(word).text());
        assert_eq!(texts, ["up", "down", "unknown", "unknown"]);
        assert_eq!([PortLink::Up, PortLink::Down, PortLink::Unknown].map(PortLink::may_be_up), [true, false, true]);
    }

    #[test]
    fn another_device_is_refused() {
        let e = read_info("x", |at| if at == regs::MAGIC { Ok(7) } else { card(at) });
        assert!(matches!(e, Err(CardError::NotACard { magic: 7, .. })));
    }

    #[test]
    fn another_major_version_is_refused() {
        let e = read_info("x", |at| if at == regs::VERSION { Ok(toe_abi::ABI_VERSION + (1 << 16)) } else { card(at) });
        assert!(matches!(e, Err(CardError::Version { .. })));
    }

    #[test]
    fn regions_do_not_overlap_in_io_virtual_address_space() {
        assert!(iova(0) > 0 && iova(1) - iova(0) >= 1 << 40);
        assert_ne!(iova(u16::MAX), 0);
    }
}
