//! A virtio device on the PCI bus, from reset to running (VIRTIO 1.1, 3.1.1 and 4.1).
//!
//! ```text
//!   open ─► reset ─► acknowledge, driver ─► negotiate ─► queues ─► start ─► running
//!             │ deadline        └─────────── any error: fail ────────┘
//! ```
//!
//! The device's structures lie where its capabilities say: common configuration, notification, ISR status, device configuration.

mod features;
mod structures;
#[cfg(test)]
mod tests;

pub use features::Features;

use super::queue::{Notifier, Rings};
use crate::pci::{ConfigSpace, Function};
use crate::{Registers, TimedOut, wait_until};
use bitflags::bitflags;
use structures::{Structures, common};
use toe_hal::Clock;

/// The vector that means none.
pub const NO_VECTOR: u16 = 0xffff;

/// How long a device may take for a reset.
const RESET_LIMIT_US: u64 = 1_000_000;
/// Tries to read configuration that does not change meanwhile.
const CONFIG_TRIES: u32 = 100;

bitflags! {
    /// Device status (2.1).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Status: u8 {
        const ACKNOWLEDGE = 1;
        const DRIVER = 2;
        const DRIVER_OK = 4;
        const FEATURES_OK = 8;
        const NEEDS_RESET = 64;
        const FAILED = 128;
    }
}

/// Why a device can't be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransportError {
    /// One of the structures is missing, or lies outside of its BAR: a device that is not modern, or lies.
    NoStructure(&'static str),
    /// The board could not map a structure.
    NotMapped(&'static str),
    TimedOut(TimedOut),
    /// It lacks features without which this driver does not work.
    Lacks(Features),
    /// It does not accept this choice of what it has offered.
    Refused(Features),
    /// It has no such queue, or one too small.
    NoQueue {
        index: u16,
        size: u16,
    },
    /// Its address to notify lies outside of the structure.
    BadNotify {
        index: u16,
        offset: u16,
    },
    /// It has no resources for this interrupt vector.
    NoVector(u16),
    /// Configuration kept changing while it was read.
    Unsteady,
}

impl From<TimedOut> for TransportError {
    fn from(error: TimedOut) -> Self {
        Self::TimedOut(error)
    }
}

/// The way to one device. One core's, and one driver's.
#[derive(Debug)]
pub struct Transport<R> {
    structures: Structures<R>,
    features: Features,
}

impl<R: Registers> Transport<R> {
    /// Finds the structures. `map` turns a bus address and a length into registers. The function must have been enabled.
    pub fn open(
        config: &impl ConfigSpace,
        function: &Function,
        map: &mut impl FnMut(u64, u64) -> Option<R>,
    ) -> Result<Self, TransportError> {
        Ok(Self { structures: Structures::find(config, function, map)?, features: Features::empty() })
    }

    /// Resets the device and negotiates features: all of `needed`, and what it offers of those that `wanted` chooses when it sees the
    /// offer.
    pub fn negotiate(
        &mut self,
        clock: &impl Clock,
        needed: Features,
        wanted: impl FnOnce(Features) -> Features,
    ) -> Result<Features, TransportError> {
        self.reset(clock)?;
        self.add_status(Status::ACKNOWLEDGE);
        self.add_status(Status::DRIVER);
        let offered = self.offered();
        let lacks = needed.difference(offered);
        if !lacks.is_empty() {
            return Err(TransportError::Lacks(lacks));
        }
        let features = Features::consistent((needed | wanted(offered)) & offered);
        self.accept(features);
        self.add_status(Status::FEATURES_OK);
        // 3.1.1, step 6: re-read, whether the device agrees.
        if !self.status().contains(Status::FEATURES_OK) {
            return Err(TransportError::Refused(features));
        }
        self.features = features;
        Ok(features)
    }

    /// Stops the device. When this has returned, it writes to no memory any more (2.1.2; 4.1.4.3.2).
    pub fn reset(&mut self, clock: &impl Clock) -> Result<(), TransportError> {
        self.structures.common.write8(common::STATUS, 0);
        let status = || u32::from(self.structures.common.read8(common::STATUS));
        wait_until(clock, RESET_LIMIT_US, "reset of a virtio device", status, |status| status == 0)?;
        Ok(())
    }

    /// What was negotiated.
    pub fn features(&self) -> Features {
        self.features
    }

    pub fn status(&self) -> Status {
        Status::from_bits_truncate(self.structures.common.read8(common::STATUS))
    }

    /// The device has met an error that only a reset mends, or has gone.
    pub fn needs_reset(&self) -> bool {
        self.status().contains(Status::NEEDS_RESET)
    }

    /// Tells the device that its driver gives up (2.1).
    pub fn fail(&mut self) {
        self.add_status(Status::FAILED);
    }

    /// All queues are set up: the device may begin.
    pub fn start(&mut self) {
        // The device reads the rings as soon as it sees the status.
        crate::barrier::full();
        self.add_status(Status::DRIVER_OK);
    }

    /// Queues that the device has.
    pub fn queues(&self) -> u16 {
        self.structures.common.read16(common::NUM_QUEUES)
    }

    /// The size of queue `index` to use: a power of two, at most `wanted` and what the device has room for.
    pub fn queue_size(&mut self, index: u16, wanted: u16) -> Result<u16, TransportError> {
        let at = &self.structures.common;
        at.write16(common::QUEUE_SELECT, index);
        let max = at.read16(common::QUEUE_SIZE);
        // A split ring has a power of two, at most 2^15 (2.6). All ones: the device has gone.
        let size = max.min(wanted);
        if index >= self.queues() || size < 2 || max == u16::MAX {
            return Err(TransportError::NoQueue { index, size: max });
        }
        Ok(1 << size.ilog2())
    }

    /// Tells the device where queue `index` lies and enables it. `vector`: the MSI-X vector for used buffers, or none.
    pub fn enable_queue(&mut self, index: u16, rings: &Rings, vector: Option<u16>) -> Result<Notifier<R>, TransportError> {
        let notifier = self.notifier(index)?;
        let at = &self.structures.common;
        at.write16(common::QUEUE_SELECT, index);
        at.write16(common::QUEUE_SIZE, rings.size());
        let vector = vector.unwrap_or(NO_VECTOR);
        at.write16(common::QUEUE_VECTOR, vector);
        // 4.1.5.1.2.2: a device without resources for it answers with none.
        if at.read16(common::QUEUE_VECTOR) != vector {
            return Err(TransportError::NoVector(vector));
        }
        let [descriptors, available, used] = rings.addresses();
        self.write64(common::QUEUE_DESCRIPTORS, descriptors);
        self.write64(common::QUEUE_AVAILABLE, available);
        self.write64(common::QUEUE_USED, used);
        self.structures.common.write16(common::QUEUE_ENABLE, 1);
        Ok(notifier)
    }

    /// The MSI-X vector for changes of the configuration.
    pub fn set_config_vector(&mut self, vector: Option<u16>) -> Result<(), TransportError> {
        let vector = vector.unwrap_or(NO_VECTOR);
        self.structures.common.write16(common::CONFIG_VECTOR, vector);
        let is_set = self.structures.common.read16(common::CONFIG_VECTOR) == vector;
        if is_set { Ok(()) } else { Err(TransportError::NoVector(vector)) }
    }

    /// Reads device configuration in a state that it was in at one moment (4.1.4.3.1).
    pub fn config<T>(&self, read: impl Fn(&R) -> T) -> Result<T, TransportError> {
        let generation = || self.structures.common.read8(common::CONFIG_GENERATION);
        for _ in 0..CONFIG_TRIES {
            let before = generation();
            let value = read(&self.structures.device);
            if generation() == before {
                return Ok(value);
            }
        }
        Err(TransportError::Unsteady)
    }

    /// Reads and clears the ISR status (4.1.4.5): whether a queue, and whether the configuration has asked for attention. Not needed with
    /// MSI-X.
    pub fn take_isr(&self) -> (bool, bool) {
        let isr = self.structures.isr.read8(0);
        (isr & 1 != 0, isr & 2 != 0)
    }

    fn notifier(&self, index: u16) -> Result<Notifier<R>, TransportError> {
        let Structures { common, notify, notify_multiplier, .. } = &self.structures;
        common.write16(common::QUEUE_SELECT, index);
        let offset = common.read16(common::QUEUE_NOTIFY_OFF);
        let bad = TransportError::BadNotify { index, offset };
        // 4.1.4.4; the register has 16 bits, and must be aligned.
        let at = usize::try_from(u64::from(offset) * u64::from(*notify_multiplier)).map_err(|_| bad)?;
        let register = notify.part(at, 2).filter(|_| at.is_multiple_of(2)).ok_or(bad)?;
        Ok(Notifier::new(register, index))
    }

    fn add_status(&mut self, bit: Status) {
        let status = self.status() | bit;
        self.structures.common.write8(common::STATUS, status.bits());
    }

    fn offered(&self) -> Features {
        let at = &self.structures.common;
        let word = |select| {
            at.write32(common::DEVICE_FEATURE_SELECT, select);
            u64::from(at.read32(common::DEVICE_FEATURE))
        };
        Features::from_bits_truncate(word(0) | word(1) << 32)
    }

    fn accept(&mut self, features: Features) {
        for select in [0, 1] {
            self.structures.common.write32(common::DRIVER_FEATURE_SELECT, select);
            self.structures.common.write32(common::DRIVER_FEATURE, (features.bits() >> (32 * select)) as u32);
        }
    }

    /// In two halves (4.1.3.1).
    fn write64(&self, at: usize, value: u64) {
        self.structures.common.write32(at, value as u32);
        self.structures.common.write32(at + 4, (value >> 32) as u32);
    }
}
