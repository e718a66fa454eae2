//! Where a device's structures lie (VIRTIO 1.1, 4.1.4).
//!
//! ```text
//!   vendor capability: [0x09 | next | len | type] [BAR | id | 0 | 0] [offset] [length] [notify only: multiplier]
//! ```

use super::TransportError;
use crate::Registers;
use crate::pci::{ConfigSpace, Function};

/// The common configuration structure (4.1.4.3).
pub mod common {
    pub const DEVICE_FEATURE_SELECT: usize = 0;
    pub const DEVICE_FEATURE: usize = 4;
    pub const DRIVER_FEATURE_SELECT: usize = 8;
    pub const DRIVER_FEATURE: usize = 12;
    pub const CONFIG_VECTOR: usize = 16;
    pub const NUM_QUEUES: usize = 18;
    pub const STATUS: usize = 20;
    pub const CONFIG_GENERATION: usize = 21;
    pub const QUEUE_SELECT: usize = 22;
    pub const QUEUE_SIZE: usize = 24;
    pub const QUEUE_VECTOR: usize = 26;
    pub const QUEUE_ENABLE: usize = 28;
    pub const QUEUE_NOTIFY_OFF: usize = 30;
    pub const QUEUE_DESCRIPTORS: usize = 32;
    pub const QUEUE_AVAILABLE: usize = 40;
    pub const QUEUE_USED: usize = 48;
    pub const LEN: u32 = 56;
}

const VENDOR: u8 = 0x09;
const LENGTHS: u16 = 0;
const BAR: u16 = 4;
const OFFSET: u16 = 8;
const LENGTH: u16 = 12;
const MULTIPLIER: u16 = 16;

const COMMON: u8 = 1;
const NOTIFY: u8 = 2;
const ISR: u8 = 3;
const DEVICE: u8 = 4;

/// Bytes of device configuration that any driver here looks at.
const DEVICE_MAX: u32 = 64;
/// Bytes of notification registers: 2^16 queues with four bytes each, or a page each for the first 64.
const NOTIFY_MAX: u32 = 1 << 18;

#[derive(Debug)]
pub struct Structures<R> {
    pub common: R,
    pub notify: R,
    /// Bytes between the registers of two queues.
    pub notify_multiplier: u32,
    pub isr: R,
    pub device: R,
}

impl<R: Registers> Structures<R> {
    pub fn find(
        config: &impl ConfigSpace,
        function: &Function,
        map: &mut impl FnMut(u64, u64) -> Option<R>,
    ) -> Result<Self, TransportError> {
        let mut one = |kind, name, least, most| {
            let (address, len, at) = locate(config, function, kind, least).ok_or(TransportError::NoStructure(name))?;
            let registers = map(address, u64::from(len.min(most))).ok_or(TransportError::NotMapped(name))?;
            Ok::<_, TransportError>((registers, at))
        };
        let (common, _) = one(COMMON, "common configuration", common::LEN, common::LEN)?;
        let (notify, at) = one(NOTIFY, "notification", 2, NOTIFY_MAX)?;
        let (isr, _) = one(ISR, "ISR status", 1, 1)?;
        let (device, _) = one(DEVICE, "device configuration", 1, DEVICE_MAX)?;
        let notify_multiplier = config.read32(function.at, at + MULTIPLIER);
        Ok(Self { common, notify, notify_multiplier, isr, device })
    }
}

/// Bus address, length, and capability of the first structure of this kind that has at least so many bytes inside a BAR with an address.
/// (A device may offer several, best first; what lies in I/O space is passed over.)
fn locate(config: &impl ConfigSpace, function: &Function, kind: u8, least: u32) -> Option<(u64, u32, u16)> {
    let words = |at: u16| config.read32(function.at, at);
    function.capabilities(config).filter(|c| c.id == VENDOR && c.offset <= 0x100 - MULTIPLIER - 4).find_map(|capability| {
        let at = capability.offset;
        let [_, _, len, found] = words(at + LENGTHS).to_le_bytes();
        let needed = if kind == NOTIFY { MULTIPLIER + 4 } else { MULTIPLIER };
        if found != kind || u16::from(len) < needed {
            return None;
        }
        let bar = function.bars.get(usize::from(words(at + BAR) as u8))?.as_ref()?;
        let (offset, length) = (words(at + OFFSET), words(at + LENGTH));
        let is_inside = u64::from(offset) + u64::from(length) <= bar.size;
        // 4.1.4: common configuration and notification are aligned; what is not would fault.
        let is_fine = is_inside && length >= least && (offset.is_multiple_of(4) || kind == ISR);
        let address = bar.address.filter(|_| is_fine)?.checked_add(u64::from(offset))?;
        Some((address, length, at))
    })
}
