//! What the core needs from the machine it runs on. The daemon implements it with memfds, sockets and a card;
//! the simulation with plain memory.

use rustix::io::Errno;
use toe_abi::{
    CtxId, RegionId,
    app::{Reply, Request},
    control::ControlMsg,
    frames::FrameRecord,
};

/// One process's connection to toed. Chosen by the shell, never used twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ClientId(pub u64);

/// What a descriptor that came with a request turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proof {
    /// The memory of this region.
    Region(RegionId),
    /// The application's end of a token of this region.
    Token(RegionId, u32),
    /// Nothing that toed made, or what it belonged to has gone.
    Unknown,
}

/// A descriptor that goes with an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attachment {
    /// The memory of a region.
    Region(RegionId),
    /// What the application writes to wake the card.
    Kick(CtxId),
    /// What the application waits on.
    Irq(CtxId),
    /// The application's end of a token; the machine keeps no copy of it.
    Token(RegionId, u32),
}

/// A region's memory, by byte offset. Implementations check bounds: an access outside reads zeroes and writes nothing.
///
/// An application writes to the same memory at the same time, so each access is atomic by 32-bit words at
/// aligned offsets, and what is read is a claim.
pub trait Memory {
    /// Loads an aligned word, acquire.
    fn load(&self, offset: u64) -> u32;
    /// Stores an aligned word, release: after all writes before.
    fn store(&self, offset: u64, value: u32);
    /// Copies out. `offset` and the length are multiples of 4.
    fn read(&self, offset: u64, out: &mut [u8]);
    /// Copies in. `offset` and the length are multiples of 4.
    fn write(&self, offset: u64, bytes: &[u8]);
    /// Zeroes a range and gives whole pages of it back to the system where that is possible.
    fn clear(&self, offset: u64, len: u64);
    /// Full barrier between stores above and loads below (`toe_sync::sleep`).
    fn fence(&self);
}

/// A region that was made.
pub struct Created<M> {
    pub memory: M,
    /// Where the card finds it.
    pub iova: u64,
    /// Where applications find it in the descriptor that they get.
    pub offset: u64,
}

/// The machine.
pub trait Host {
    type Memory: Memory;

    /// Makes `len` bytes of zeroed memory that the card can reach.
    fn create_region(&mut self, region: RegionId, len: u64) -> Result<Created<Self::Memory>, Errno>;
    /// The card has let go of the region: forget it. The core has dropped its memory.
    fn destroy_region(&mut self, region: RegionId);

    /// Makes the descriptors of a context and tells the card about them.
    fn open_context(&mut self, ctx: CtxId) -> Result<(), Errno>;
    /// Takes them away again.
    fn close_context(&mut self, ctx: CtxId);
    /// Wakes the application that sleeps on `ctx`.
    fn interrupt(&mut self, ctx: CtxId);

    /// Makes a token; [`Core::token_closed`](super::Core::token_closed) follows when its last copy has gone.
    fn open_token(&mut self, region: RegionId, slot: u32) -> Result<(), Errno>;
    /// Forgets a token (after `token_closed`, or with its region).
    fn close_token(&mut self, region: RegionId, slot: u32);

    /// Gives a control message to the card. `false`: the queue is full; the core tries again later.
    fn submit(&mut self, msg: &ControlMsg) -> bool;
    /// Gives a frame to the card. `false`: the ring is full.
    fn packet(&mut self, record: &FrameRecord, frame: &[u8]) -> bool;

    /// Answers a request. Never blocks; a client that cannot take it is disconnected.
    fn reply(&mut self, client: ClientId, reply: &Reply, attach: &[Attachment]);
}

/// A request and the client's connection it came on.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    pub client: ClientId,
    pub request: &'a Request,
    pub proof: Option<Proof>,
}
