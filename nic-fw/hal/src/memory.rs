//! Host memory as the card sees it: regions, reached by DMA.
//!
//! Transfers are asynchronous (submit, poll): on a board whose host memory is mapped they complete at once
//! ([`Dma::Done`]); a DMA engine answers [`Dma::Pending`] and names the cookie in [`HostMemory::poll`] later,
//! in any order. Single words (indices, flags) are loaded and stored directly.
//!
//! Every address is checked: outside its region, or in a region that isn't mapped, it is a [`DmaFault`], never a wild access.

use toe_abi::{HostAddr, HostSpan, RegionId};

/// Names a transfer that is under way. Chosen by the caller.
pub type Cookie = u32;

/// How far a transfer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Dma {
    Done,
    /// `poll` will name the cookie.
    Pending,
    /// Nothing was started: the engine's queue is full. Poll, then try again.
    Full,
}

/// The address is not in a mapped region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DmaFault;

pub trait HostMemory: Sized {
    /// What a port of the same board needs to send bytes straight from host memory.
    type Slice: Copy;

    /// The same memory for another core: the same regions, a queue of transfers of its own.
    fn handle(&self) -> Self;

    /// Gives `len` bytes at I/O virtual address `iova`, mapped before, the name `region`. The card reaches nothing else.
    fn bind(&mut self, region: RegionId, iova: u64, len: u64) -> Result<(), DmaFault>;

    /// Takes the name back: every later access to `region` faults, and no transfer to it is under way any more
    /// (pending ones complete with a fault). Another core may be in the middle of an access that began before: memory may be
    /// used for something else when each core has passed an epoch (`toe_sync::epoch`).
    fn unbind(&mut self, region: RegionId);

    /// Starts copying `src` to `dst`. While pending, the bytes behind `src` must not change: the caller keeps the
    /// frame's lease until the cookie comes back.
    fn write(&mut self, dst: HostAddr, src: &[u8], cookie: Cookie) -> Result<Dma, DmaFault>;

    /// Starts reading `dst.len()` bytes (at most [`FETCH_MAX`]) at `src` into `dst`. If pending, nothing has been
    /// put into `dst`: when the cookie comes back, call [`fetched`](Self::fetched).
    fn fetch(&mut self, src: HostAddr, dst: &mut [u8], cookie: Cookie) -> Result<Dma, DmaFault>;

    /// Copies out what a pending [`fetch`](Self::fetch) has brought. Once per completed cookie.
    fn fetched(&mut self, cookie: Cookie, dst: &mut [u8]);

    /// Completed cookies, as many as fit; returns how many. A transfer that failed completes with its error.
    fn poll(&mut self, done: &mut [(Cookie, Result<(), DmaFault>)]) -> usize;

    /// Loads an aligned word, acquire.
    fn load(&self, addr: HostAddr) -> Result<u32, DmaFault>;

    /// Stores an aligned word, release: after all writes that have completed before.
    fn store(&self, addr: HostAddr, value: u32) -> Result<(), DmaFault>;

    /// Full barrier between stores above and loads below, both sides of the sleep/wake protocol (`toe_sync::sleep`).
    fn fence(&self);

    /// Host memory for a port to send from. Valid until the region is unmapped.
    fn slice(&self, span: HostSpan) -> Result<Self::Slice, DmaFault>;
}

/// Most bytes in one fetch.
pub const FETCH_MAX: usize = 2048;
