//! How a port is to be set up, and the memory it takes.

use super::header::HEADER_LEN;
use super::{FRAME_MAX, RX_SKIP};
use crate::virtio::queue::Rings;

/// Settings of a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Queue pairs wanted; fewer if the device has fewer. 1 to 64.
    pub pairs: u16,
    /// Most entries of a queue, a power of two; fewer if the device has fewer. 16 to 32768.
    pub queue_size: u16,
    /// Receive buffers of a pair, at most [`queue_size`](Self::queue_size). Frames on loan occupy one each.
    pub rx_buffers: u16,
    /// Bytes of each, a multiple of 64, 2048 or more. The default takes any frame.
    pub rx_buffer_len: usize,
    /// Spare buffers for frames that span several.
    pub spare_buffers: u16,
    /// Bytes of a transmit buffer, a multiple of 64, 2048 or more; a frame takes as many as it needs. There are `queue_size` of them in a
    /// pair.
    pub tx_buffer_len: usize,
    /// MSI-X vector of the first pair's receive queue; the other pairs' follow. `None`: no interrupts.
    pub rx_vector: Option<u16>,
    /// MSI-X vector for changes of the link. `None`: no interrupts.
    pub config_vector: Option<u16>,
    /// The address, if the device has none.
    pub mac: Option<[u8; 6]>,
}

/// What a whole frame needs.
pub(super) const WHOLE_FRAME: usize = (RX_SKIP + HEADER_LEN + FRAME_MAX).next_multiple_of(64);
/// Transmit buffers in one frame, at most.
pub(super) const CHAIN_MAX: usize = (HEADER_LEN + FRAME_MAX).div_ceil(BUFFER_MIN);
const BUFFER_MIN: usize = 2048;
pub(super) const PAIRS_MAX: u16 = 64;
/// A command, and its acknowledgement.
pub(super) const CONTROL_BUFFERS: u16 = 2;
pub(super) const CONTROL_BUFFER_LEN: usize = 64;
/// Most entries of the control queue.
pub(super) const CONTROL_SIZE: u16 = 16;

impl Default for Settings {
    fn default() -> Self {
        Self {
            pairs: 1,
            queue_size: 256,
            rx_buffers: 256,
            rx_buffer_len: WHOLE_FRAME,
            spare_buffers: 4,
            tx_buffer_len: 16 << 10,
            rx_vector: None,
            config_vector: None,
            mac: None,
        }
    }
}

impl Settings {
    /// Bytes of memory that a port with these settings takes at most (17 MiB for receiving, 4 MiB for sending by default).
    pub fn bytes(&self) -> usize {
        let size = usize::from(self.queue_size);
        let pair = 2 * Rings::bytes(self.queue_size) + self.rx_buffer_len * usize::from(self.rx_buffers) + self.tx_buffer_len * size;
        let control = Rings::bytes(CONTROL_SIZE) + CONTROL_BUFFER_LEN * usize::from(CONTROL_BUFFERS);
        let spare = WHOLE_FRAME * usize::from(self.spare_buffers);
        // Each block begins on a multiple of 64, as all lengths are multiples of it.
        usize::from(self.pairs) * pair + control + spare + 64
    }

    /// The vector of a pair's receive queue.
    pub(super) fn vector(&self, pair: u16) -> Option<u16> {
        self.rx_vector.map(|first| first.saturating_add(pair))
    }

    /// The first that makes no sense.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let is_buffer = |len: usize| (BUFFER_MIN..=1 << 20).contains(&len) && len.is_multiple_of(64);
        let checks = [
            ((1..=PAIRS_MAX).contains(&self.pairs), "pairs"),
            (self.queue_size.is_power_of_two() && (16..=1 << 15).contains(&self.queue_size), "queue_size"),
            ((1..=self.queue_size).contains(&self.rx_buffers), "rx_buffers"),
            (is_buffer(self.rx_buffer_len), "rx_buffer_len"),
            (self.spare_buffers <= 1024, "spare_buffers"),
            (is_buffer(self.tx_buffer_len), "tx_buffer_len"),
        ];
        checks.iter().find(|(is_fine, _)| !is_fine).map_or(Ok(()), |(_, name)| Err(*name))
    }
}
