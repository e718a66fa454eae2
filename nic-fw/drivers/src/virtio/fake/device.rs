//! The registers of the device.

use super::{DeviceQueue, TestMemory};
use crate::Registers;
use crate::pci::fake::{FakeBus, FakeFunction};
use crate::pci::{Function, Numbering, PciAddress, Windows, assign, scan};
use crate::virtio::Features;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub const BAR_LEN: u64 = 0x4000;
const ADDRESS: u64 = 0x80_0000_0000;
const ISR: usize = 0x1000;
const CONFIG: usize = 0x2000;
const NOTIFY: usize = 0x3000;

/// What the device does with commands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Control {
    Obey,
    Refuse,
    Ignore,
    /// Names a buffer that it does not have.
    Lie,
}

#[derive(Clone, Debug, Default)]
pub struct QueueRegisters {
    pub max: u16,
    pub size: u16,
    pub vector: u16,
    pub is_enabled: bool,
    pub notify_off: u16,
    pub addresses: [u64; 3],
    /// Notifications so far.
    pub kicks: u64,
}

pub struct FakeDevice {
    pub memory: Arc<TestMemory>,
    pub offered: Features,
    pub accepted: u64,
    pub status: u8,
    /// Status values as they were written.
    pub statuses: Vec<u8>,
    pub queues: Vec<QueueRegisters>,
    pub config: [u8; 64],
    pub is_unsteady: bool,
    /// Reads of the status that a reset takes; `u32::MAX`: it never ends.
    pub reset_reads: u32,
    pub refuses: bool,
    /// Interrupt vectors that it has.
    pub vectors: u16,
    pub isr: u8,
    pub control: Control,
    /// What was set by command; 1 at first.
    pub pairs: u16,
    /// Frames for groups are passed on.
    pub takes_multicast: bool,
    /// All registers read as ones.
    pub has_gone: bool,
    selects: [u32; 2],
    queue_select: u16,
    config_vector: u16,
    generation: u8,
    reset_left: u32,
    commands: u16,
}

/// A window of the device's registers; all are the same device.
#[derive(Clone)]
pub struct FakeRegisters {
    device: Arc<Mutex<FakeDevice>>,
    base: usize,
    len: usize,
}

impl FakeDevice {
    pub fn new(memory: Arc<TestMemory>, offered: Features, max_pairs: u16) -> Self {
        let mut config = [0; 64];
        config[..6].copy_from_slice(&[2, 0, 0, 0, 0, 7]);
        config[6] = 1;
        config[8..10].copy_from_slice(&max_pairs.to_le_bytes());
        config[10..12].copy_from_slice(&9000u16.to_le_bytes());
        let queue = |index: u16| QueueRegisters { max: 256, notify_off: index, ..Default::default() };
        Self {
            memory,
            offered,
            accepted: 0,
            status: 0,
            statuses: Vec::new(),
            queues: (0..2 * max_pairs + 1).map(queue).collect(),
            config,
            is_unsteady: false,
            reset_reads: 3,
            refuses: false,
            vectors: 8,
            isr: 0,
            control: Control::Obey,
            pairs: 1,
            takes_multicast: false,
            has_gone: false,
            selects: [0; 2],
            queue_select: 0,
            config_vector: 0xffff,
            generation: 0,
            reset_left: 0,
            commands: 0,
        }
    }

    /// The device's side of a queue.
    pub fn queue(&self, index: u16) -> DeviceQueue {
        let registers = &self.queues[usize::from(index)];
        assert!(registers.is_enabled && self.status & 4 != 0, "queue {index} is not running");
        let has_event_idx = self.accepted & Features::EVENT_IDX.bits() != 0;
        DeviceQueue::new(self.memory.clone(), registers.size, registers.addresses, has_event_idx)
    }

    fn read(&mut self, at: usize) -> u32 {
        if self.has_gone {
            return u32::MAX;
        }
        match at {
            CONFIG..NOTIFY => u32::from(self.config.get(at - CONFIG).copied().unwrap_or(0)),
            ISR => u32::from(std::mem::take(&mut self.isr)),
            _ => self.read_common(at),
        }
    }

    fn read_common(&mut self, at: usize) -> u32 {
        let queue = self.queues.get(usize::from(self.queue_select)).cloned().unwrap_or_default();
        match at {
            4 => self.offered.bits().checked_shr(32 * self.selects[0]).unwrap_or(0) as u32,
            16 => self.config_vector.into(),
            18 => self.queues.len() as u32,
            20 => self.read_status().into(),
            21 => {
                self.generation = self.generation.wrapping_add(self.is_unsteady.into());
                self.generation.into()
            }
            24 if queue.size != 0 => queue.size.into(),
            24 => queue.max.into(),
            26 => queue.vector.into(),
            30 => queue.notify_off.into(),
            _ => panic!("read of register {at:#x}"),
        }
    }

    fn read_status(&mut self) -> u8 {
        if self.reset_left > 0 {
            self.reset_left -= u32::from(self.reset_left != u32::MAX);
            return self.status;
        }
        if self.statuses.last() == Some(&0) {
            self.status = 0;
        }
        self.status
    }

    fn write(&mut self, at: usize, value: u32) {
        if at >= NOTIFY {
            assert!(self.status & 4 != 0, "a notification before DRIVER_OK (3.1.1)");
            let place = ((at - NOTIFY) / 4) as u16;
            let queue = self.queues.iter().position(|q| q.notify_off == place).expect("no queue is notified there");
            assert_eq!(value as usize, queue, "the register wants the queue's number");
            self.queues[queue].kicks += 1;
            if queue == usize::from(self.control_queue()) {
                self.command();
            }
            return;
        }
        let queue = &mut self.queues.get_mut(usize::from(self.queue_select));
        let half = value as u16;
        match (at, queue) {
            (0, _) => self.selects[0] = value,
            (8, _) => self.selects[1] = value,
            (12, _) => {
                let keep = u64::from(u32::MAX) << (32 * (1 - self.selects[1]));
                self.accepted = self.accepted & keep | u64::from(value) << (32 * self.selects[1]);
            }
            (16, _) => self.config_vector = if half < self.vectors { half } else { 0xffff },
            (20, _) => self.write_status(value as u8),
            (22, _) => self.queue_select = half,
            (24, Some(queue)) => queue.size = half,
            (26, Some(queue)) => queue.vector = if half < self.vectors { half } else { 0xffff },
            (28, Some(queue)) => {
                assert!(half == 1 && !queue.is_enabled && queue.size.is_power_of_two() && queue.size <= queue.max);
                queue.is_enabled = true;
            }
            (32..56, Some(queue)) => {
                assert!(!queue.is_enabled);
                let (which, shift) = ((at - 32) / 8, 8 * (at % 8));
                queue.addresses[which] = queue.addresses[which] & !(0xffff_ffff << shift) | u64::from(value) << shift;
            }
            _ => panic!("write of register {at:#x}"),
        }
    }

    fn write_status(&mut self, value: u8) {
        self.statuses.push(value);
        if value == 0 {
            self.reset_left = self.reset_reads;
            (self.commands, self.pairs, self.takes_multicast, self.accepted) = (0, 1, false, 0);
            for queue in &mut self.queues {
                *queue = QueueRegisters { max: queue.max, notify_off: queue.notify_off, ..Default::default() };
            }
            return;
        }
        assert!(value & self.status == self.status, "a status bit was cleared (2.1.1)");
        self.status = value;
        let accepted = Features::from_bits_retain(self.accepted);
        if value & 8 != 0 && (self.refuses || !self.offered.contains(accepted)) {
            self.status &= !8;
        }
    }

    /// Behind all pairs that the driver knows of (5.1.2).
    fn control_queue(&self) -> u16 {
        if self.accepted & Features::MQ.bits() != 0 { self.queues.len() as u16 - 1 } else { 2 }
    }

    fn command(&mut self) {
        let mut queue = self.queue(self.control_queue());
        (queue.last_avail, queue.next_used, queue.published) = (self.commands, self.commands, self.commands);
        let Some(chain) = queue.take() else { return };
        let [(at, len, false), (ack, 1, true)] = chain.parts[..] else { panic!("{chain:?}") };
        let bytes = self.memory.read(at, len as usize);
        let answer = match self.control {
            Control::Ignore => return,
            Control::Refuse => 1,
            Control::Obey | Control::Lie => 0,
        };
        match bytes[..] {
            [4, 0, low, high] => self.pairs = u16::from_le_bytes([low, high]),
            [0, 1, on] => self.takes_multicast = on == 1,
            _ => panic!("no such command: {bytes:?}"),
        }
        self.memory.write(ack, &[answer]);
        self.commands += 1;
        queue.put(if self.control == Control::Lie { 99 } else { chain.head.into() }, 1);
        queue.publish();
        // The next one is to be told as well.
        queue.doze();
    }
}

impl std::fmt::Debug for FakeRegisters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "registers {:#x} + {:#x}", self.base, self.len)
    }
}

impl FakeRegisters {
    pub fn new(device: FakeDevice) -> Self {
        Self { device: Arc::new(Mutex::new(device)), base: 0, len: BAR_LEN as usize }
    }

    pub fn device(&self) -> MutexGuard<'_, FakeDevice> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How a board maps the device.
    pub fn map(&self) -> impl FnMut(u64, u64) -> Option<Self> {
        let this = self.clone();
        move |address, len| {
            let at = usize::try_from(address.checked_sub(ADDRESS).expect("an address of the device")).unwrap();
            Some(this.part(at, len as usize).expect("inside the BAR"))
        }
    }

    /// Asserts what a driver must obey in accesses: one width for each register (4.1.3.1).
    fn at(&self, at: usize, width: usize) -> usize {
        assert!(at.is_multiple_of(width) && at + width <= self.len, "access at {at:#x}");
        let here = self.base + at;
        let right = match here {
            0..16 | 32..56 => 4,
            20..22 => 1,
            16..20 | 22..32 => 2,
            ISR => 1,
            NOTIFY.. => 2,
            _ => width,
        };
        assert_eq!(width, right, "register {here:#x}");
        here
    }
}

impl Registers for FakeRegisters {
    fn window_len(&self) -> usize {
        self.len
    }

    fn part(&self, at: usize, len: usize) -> Option<Self> {
        (at.checked_add(len)? <= self.len).then(|| Self { base: self.base + at, len, ..self.clone() })
    }

    fn read8(&self, at: usize) -> u8 {
        let at = self.at(at, 1);
        self.device().read(at) as u8
    }

    fn read16(&self, at: usize) -> u16 {
        let at = self.at(at, 2);
        let mut device = self.device();
        if at >= CONFIG { device.read(at) as u16 & 0xff | (device.read(at + 1) as u16) << 8 } else { device.read(at) as u16 }
    }

    fn read32(&self, at: usize) -> u32 {
        let at = self.at(at, 4);
        self.device().read(at)
    }

    fn write8(&self, at: usize, value: u8) {
        let at = self.at(at, 1);
        self.device().write(at, value.into());
    }

    fn write16(&self, at: usize, value: u16) {
        let at = self.at(at, 2);
        self.device().write(at, value.into());
    }

    fn write32(&self, at: usize, value: u32) {
        let at = self.at(at, 4);
        self.device().write(at, value);
    }
}

/// The function as it is on the bus, with its BAR placed. `change` may spoil its configuration space.
pub fn machine(change: impl FnOnce(&mut FakeFunction)) -> (FakeBus, Function) {
    let mut function = FakeFunction::endpoint(super::super::net::VENDOR, super::super::net::DEVICES[0]);
    function.bar(4, BAR_LEN, 0b1100);
    function.set16(0x06, 0x10);
    function.set8(0x34, 0x40);
    // PCI configuration access, which is passed over; then a common structure in a BAR that does not exist.
    let capabilities = [(5, 0, 0, 0), (1, 2, 0, 0x1000), (1, 4, 0, 56), (2, 4, NOTIFY, 0x1000), (3, 4, ISR, 1), (4, 4, CONFIG, 0x100)];
    for (i, (kind, bar, offset, length)) in capabilities.into_iter().enumerate() {
        let at = 0x40 + 20 * i;
        let next = if i + 1 < capabilities.len() { at + 20 } else { 0 };
        function.set32(at, u32::from_le_bytes([9, next as u8, 20, kind]));
        function.set8(at + 4, bar);
        function.set32(at + 8, offset as u32);
        function.set32(at + 12, length);
        function.set32(at + 16, 4);
    }
    change(&mut function);
    let mut bus = FakeBus::with([(PciAddress { bus: 0, device: 1, function: 0 }, function)]);
    let mut found = scan(&mut bus, Numbering::Assign);
    let mut windows = Windows { low: 0..0, high: ADDRESS..ADDRESS + 0x10_0000, align: 4096 };
    assign(&mut bus, &mut found, &mut windows, |no_room| panic!("{no_room:?}"));
    (bus, found.functions.remove(0))
}
