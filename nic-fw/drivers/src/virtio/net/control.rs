//! The device beside its data: link, state, and the control queue (VIRTIO 1.1, 5.1.4 and 5.1.6.5).

use super::settings::{CONTROL_BUFFER_LEN, Settings};
use crate::virtio::queue::{Alarm, Part, Queue};
use crate::virtio::transport::{Features, Transport, TransportError};
use crate::{Registers, TimedOut, wait_until};
use toe_hal::Clock;

/// Offsets in the device configuration (5.1.4).
pub(super) mod config {
    pub const MAC: usize = 0;
    pub const STATUS: usize = 6;
    pub const MAX_PAIRS: usize = 8;
    pub const MTU: usize = 10;
}

const STATUS_LINK_UP: u16 = 1;
const CLASS_RX: u8 = 0;
const RX_ALL_MULTICAST: u8 = 1;
const CLASS_MQ: u8 = 4;
const MQ_PAIRS_SET: u8 = 0;
const ACK_OK: u8 = 0;
/// How long the device may take for a command.
const COMMAND_LIMIT_US: u64 = 1_000_000;

/// Buffers of the control queue.
const COMMAND: u16 = 0;
const ACK: u16 = 1;

/// Whether there is a wire at the other end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Link {
    Up,
    Down,
}

/// A command was not obeyed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommandError {
    TimedOut(TimedOut),
    /// The device has broken the rules of the control queue.
    Broken,
    /// It has refused, with this answer.
    Refused(u8),
}

/// The device beside its data: one core's.
#[derive(Debug)]
pub struct NetControl<R> {
    pub(super) transport: Transport<R>,
    pub(super) queue: Option<Queue<R>>,
    /// Its number.
    pub(super) queue_index: u16,
    pub(super) pairs: u16,
    pub(super) settings: Settings,
    pub(super) alarm: Alarm,
}

impl<R: Registers> NetControl<R> {
    /// What was negotiated.
    pub fn features(&self) -> Features {
        self.transport.features()
    }

    /// Queue pairs in use.
    pub fn pairs(&self) -> u16 {
        self.pairs
    }

    /// The vector for changes of the link, which does not depend on how many pairs there are.
    pub fn config_vector(&self) -> Option<u16> {
        self.settings.config_vector
    }

    /// Reads the link's state. A device that does not tell is up.
    pub fn link(&self) -> Result<Link, TransportError> {
        if !self.features().contains(Features::STATUS) {
            return Ok(Link::Up);
        }
        let status = self.transport.config(|config| config.read16(config::STATUS))?;
        Ok(if status & STATUS_LINK_UP != 0 { Link::Up } else { Link::Down })
    }

    /// Raised when the device breaks the rules of a queue, whichever half finds it: then [`restart`](Self::restart).
    pub fn alarm(&self) -> &Alarm {
        &self.alarm
    }

    /// The device has met an error that only a reset mends, or has gone.
    pub fn needs_reset(&self) -> bool {
        self.transport.needs_reset()
    }

    /// Reads and clears the ISR status, on boards without MSI-X: whether a queue, and whether the configuration has asked for attention.
    pub fn take_isr(&self) -> (bool, bool) {
        self.transport.take_isr()
    }

    /// Stops the device; then it writes to no memory any more. The two halves of the port find nothing after that. Its memory may be used
    /// for something else when they are gone too, and no frame is on loan.
    pub fn stop(mut self, clock: &impl Clock) -> Result<Transport<R>, TransportError> {
        self.transport.reset(clock)?;
        Ok(self.transport)
    }

    /// Lets the device use so many pairs (5.1.6.5.5).
    pub(super) fn set_pairs(&mut self, pairs: u16, clock: &impl Clock) -> Result<(), CommandError> {
        let [low, high] = pairs.to_le_bytes();
        self.command(&[CLASS_MQ, MQ_PAIRS_SET, low, high], clock)
    }

    /// Has the device pass on frames for every group (5.1.6.5.1): solicitations of IPv6, router advertisements. The card looks itself at what is
    /// for it. A device that refuses does not filter, or can't be made not to; all but IPv6 works.
    pub(super) fn take_multicast(&mut self, clock: &impl Clock) -> Result<(), CommandError> {
        if !self.features().contains(Features::CTRL_RX) {
            return Ok(());
        }
        match self.command(&[CLASS_RX, RX_ALL_MULTICAST, 1], clock) {
            Err(CommandError::Refused(_)) => Ok(()),
            other => other,
        }
    }

    fn command(&mut self, bytes: &[u8], clock: &impl Clock) -> Result<(), CommandError> {
        let queue = self.queue.as_mut().filter(|queue| queue.is_ours(COMMAND) && queue.is_ours(ACK));
        let queue = queue.filter(|_| bytes.len() <= CONTROL_BUFFER_LEN).ok_or(CommandError::Broken)?;
        // SAFETY: both buffers are ours, and have room for what is written.
        unsafe {
            core::ptr::copy_nonoverlapping(bytes.as_ptr(), queue.buffer(COMMAND), bytes.len());
            queue.buffer(ACK).write(!ACK_OK);
        }
        let command = Part { id: COMMAND, len: bytes.len() as u32, is_written: false };
        let ack = Part { id: ACK, len: 1, is_written: true };
        queue.post(&[command, ack]).map_err(|_| CommandError::Broken)?;
        queue.kick();
        let has_used = || u32::from(queue.has_used());
        wait_until(clock, COMMAND_LIMIT_US, "command to a virtio network device", has_used, |has| has == 1)
            .map_err(CommandError::TimedOut)?;
        queue.pop().map_err(|_| CommandError::Broken)?;
        // SAFETY: the buffer is ours again.
        let answer = unsafe { queue.buffer(ACK).read_volatile() };
        if answer == ACK_OK { Ok(()) } else { Err(CommandError::Refused(answer)) }
    }
}
