//! The board of the data path: which type does what.

use alloc::sync::Arc;
use toe_abi::CtxId;
use toe_arch::time::Counter;
use toe_drivers::Mmio;
use toe_drivers::ivshmem::Ivshmem;
use toe_drivers::virtio::net::{NetRx, NetTx};
use toe_hal::{Board, Kick};
use toe_virt::window::{ReadWindow, Window, WindowMemory, host_of};

/// virtio-net, the window, its doorbell.
#[derive(Clone, Copy, Debug)]
pub struct VirtBoard;

impl Board for VirtBoard {
    type Memory = WindowMemory;
    type Rx = NetRx<Mmio>;
    type Tx = NetTx<Mmio, ReadWindow>;
    type Kick = Doorbell;
    type Clock = Counter;
}

/// Interrupts the host: toed's eventfds are those of its vectors.
#[derive(Clone, Debug)]
pub struct Doorbell {
    device: Arc<Ivshmem<Mmio>>,
    window: Window,
}

impl Doorbell {
    pub fn new(device: Ivshmem<Mmio>, window: Window) -> Self {
        Self { device: Arc::new(device), window }
    }
}

impl Kick for Doorbell {
    fn interrupt(&mut self, ctx: CtxId) {
        // Whom, toed says in the window: what it claims there can only wake peers of this window.
        if let Some(peer) = host_of(&self.window) {
            self.device.ring(peer, ctx.0);
        }
    }
}
