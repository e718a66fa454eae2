//! The card as a vfio-user PCI device: one host (toed) at a time, the next one after it has gone.
//!
//! ```text
//!   toed ── version, regions, irqs ──► vfio_user::Server ──► Device ──call──► mailbox ──► data path
//!           BAR0 read / write                                 registers
//!           DMA_MAP (descriptor)                              mmap here, name there
//!           SET_IRQS (eventfds)                               to interrupts and kicks
//! ```
//!
//! Errors in answer to register accesses and DMA_UNMAP are not sent: the protocol library's client waits for a full
//! answer to those and would hang. Registers that make no sense read as ones; what became of ENABLE is in STATUS.

use crate::mailbox::{Command, Dispatch, Signal};
use crate::memory::{MapRefused, Mapping};
use crate::pci::{self, ConfigSpace};
use crate::ports::netif::Interface;
use rustix::fd::OwnedFd;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use toe_abi::{CtxId, regs};
use vfio_bindings::bindings::vfio::{
    VFIO_IRQ_INFO_EVENTFD, VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_ACTION_TYPE_MASK, VFIO_IRQ_SET_DATA_EVENTFD, VFIO_IRQ_SET_DATA_NONE,
    VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_BAR1_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_NUM_REGIONS, VFIO_REGION_INFO_FLAG_READ,
    VFIO_REGION_INFO_FLAG_WRITE, vfio_region_info,
};
use vfio_user::{DmaMapFlags, DmaUnmapFlags, IrqInfo, Server, ServerBackend, ServerRegion};

/// Pause after a failure to accept a host (out of descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Most bytes of a register access: a sane host reads a few words.
const ACCESS_MAX: usize = 4096;

/// What the registers say about the card; fixed at start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts {
    /// [`regs::caps`].
    pub caps: u32,
    pub max_flows: u32,
    pub max_contexts: u16,
    pub max_regions: u16,
    pub max_next_hops: u16,
    pub mtu: u16,
    pub mac: [u8; 6],
}

/// [`regs::STATUS`], written by the data path, read by the host.
#[derive(Debug, Default)]
pub struct Status {
    value: AtomicU32,
    connected: AtomicBool,
    /// The host has read FAILED.
    told: AtomicBool,
}

impl Status {
    pub fn set(&self, value: u32) {
        // Release and acquire throughout: the words stand for themselves; nothing else is published by them.
        self.value.store(value, Ordering::Release);
    }

    pub fn get(&self) -> u32 {
        self.value.load(Ordering::Acquire)
    }

    /// Whether a host is there that has not read yet that the card failed.
    pub fn is_untold(&self) -> bool {
        self.connected.load(Ordering::Acquire) && !self.told.load(Ordering::Acquire)
    }

    fn read_by_host(&self) -> u32 {
        let value = self.get();
        if value == regs::status::FAILED {
            self.told.store(true, Ordering::Release);
        }
        value
    }
}

/// The device thread's half of the card.
pub struct Device {
    facts: Facts,
    status: Arc<Status>,
    data_path: Arc<dyn Dispatch>,
    config: ConfigSpace,
    control_iova: u64,
    /// The port's, for its link.
    interface: Option<Interface>,
}

impl Device {
    pub fn new(facts: Facts, status: Arc<Status>, data_path: Arc<dyn Dispatch>) -> Self {
        Self { facts, status, data_path, config: ConfigSpace::new(facts.max_contexts), control_iova: 0, interface: None }
    }

    /// Whose link is the port's. Without one the card does not tell.
    pub fn with_interface(mut self, interface: Interface) -> Self {
        self.interface = Some(interface);
        self
    }

    fn link(&self) -> u32 {
        match self.interface.as_ref().map(Interface::is_running) {
            Some(Ok(true)) => regs::link::UP,
            // One that has gone as well.
            Some(Ok(false) | Err(_)) => regs::link::DOWN,
            None => regs::link::UNKNOWN,
        }
    }

    /// Serves one host after the other on a listening socket. Returns only if that can't go on.
    pub fn serve(&mut self, listener: OwnedFd) {
        let server = Server::from_owned_fd(listener, true, irqs(self.facts.max_contexts), regions(self.facts.max_contexts));
        loop {
            // The protocol library panics on some malformed messages: that ends this connection, not the card.
            let served = catch_unwind(AssertUnwindSafe(|| server.run(self)));
            match served {
                Ok(Ok(())) => tracing::info!("the host has disconnected; flows go on"),
                Ok(Err(vfio_user::Error::SocketAccept(error))) => {
                    tracing::error!(%error, "accepting a host");
                    std::thread::sleep(ACCEPT_PAUSE);
                }
                Ok(Err(error)) => tracing::warn!(%error, "the connection to the host broke; flows go on"),
                Err(_) => tracing::warn!("the host sent a malformed message: disconnected; flows go on"),
            }
            self.end_session();
        }
    }

    fn end_session(&mut self) {
        self.control_iova = 0;
        // Whether it has heard or not: nobody is there to be told.
        self.status.connected.store(false, Ordering::Release);
        if let Err(error) = self.data_path.call(Command::EndSession) {
            tracing::warn!(%error, "detaching the control region");
        }
    }

    fn register(&self, offset: u64) -> u32 {
        let f = &self.facts;
        let [m0, m1, m2, m3, m4, m5] = f.mac;
        match offset {
            regs::MAGIC => regs::MAGIC_VALUE,
            regs::VERSION => toe_abi::ABI_VERSION,
            regs::CAPS => f.caps,
            regs::STATUS => self.status.read_by_host(),
            regs::MAX_FLOWS => f.max_flows,
            regs::MAX_CONTEXTS => f.max_contexts.into(),
            regs::MAX_REGIONS => f.max_regions.into(),
            regs::MAX_NEXT_HOPS => f.max_next_hops.into(),
            regs::MTU => f.mtu.into(),
            regs::LINK => self.link(),
            regs::MAC_LO => u32::from_le_bytes([m0, m1, m2, m3]),
            regs::MAC_HI => u32::from_le_bytes([m4, m5, 0, 0]),
            regs::CONTROL_LO => self.control_iova as u32,
            regs::CONTROL_HI => (self.control_iova >> 32) as u32,
            _ => 0,
        }
    }

    fn write_register(&mut self, offset: u64, value: u32) {
        match offset {
            regs::CONTROL_LO => self.control_iova = self.control_iova & !0xffff_ffff | u64::from(value),
            regs::CONTROL_HI => self.control_iova = self.control_iova & 0xffff_ffff | u64::from(value) << 32,
            regs::ENABLE => self.enable(value),
            _ => tracing::debug!(offset, value, "write to a register that can't be written"),
        }
    }

    fn enable(&self, what: u32) {
        let command = match what {
            regs::enable::DETACH => Command::Detach,
            regs::enable::ATTACH => Command::Attach { iova: self.control_iova },
            regs::enable::RESET => Command::Reset,
            _ => {
                tracing::warn!(what, "unknown value written to ENABLE");
                return;
            }
        };
        if let Err(error) = self.data_path.call(command) {
            tracing::warn!(what, %error, "ENABLE");
        }
    }

    fn is_bar0(region: u32) -> bool {
        region == VFIO_PCI_BAR0_REGION_INDEX
    }
}

fn is_words(offset: u64, len: usize) -> bool {
    offset.is_multiple_of(4) && len.is_multiple_of(4) && offset.checked_add(len as u64).is_some_and(|end| end <= regs::BAR0_LEN)
}

fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

impl ServerBackend for Device {
    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.status.connected.store(true, Ordering::Release);
        if data.len() > ACCESS_MAX {
            return Err(errno(libc::EINVAL));
        }
        match region {
            _ if Self::is_bar0(region) && is_words(offset, data.len()) => {
                for (at, word) in (offset..).step_by(4).zip(data.chunks_exact_mut(4)) {
                    word.copy_from_slice(&self.register(at).to_le_bytes());
                }
            }
            VFIO_PCI_CONFIG_REGION_INDEX => self.config.read(offset, data),
            VFIO_PCI_BAR1_REGION_INDEX => data.fill(0),
            _ => data.fill(0xff),
        }
        Ok(())
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        match region {
            _ if Self::is_bar0(region) && data.len() <= ACCESS_MAX && is_words(offset, data.len()) => {
                for (at, word) in (offset..).step_by(4).zip(data.chunks_exact(4)) {
                    self.write_register(at, u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
                }
            }
            VFIO_PCI_CONFIG_REGION_INDEX => self.config.write(offset, data),
            _ => tracing::debug!(region, offset, len = data.len(), "write to nowhere"),
        }
        Ok(())
    }

    fn dma_map(&mut self, flags: DmaMapFlags, offset: u64, address: u64, size: u64, fd: Option<File>) -> io::Result<()> {
        let refuse = |refused: MapRefused| {
            tracing::warn!(iova = format!("{address:#x}"), size, "DMA_MAP refused: {refused}");
            errno(refused.errno())
        };
        if !flags.contains(DmaMapFlags::READ_WRITE) {
            return Err(refuse(MapRefused::Access));
        }
        let fd = fd.ok_or_else(|| refuse(MapRefused::NoDescriptor))?;
        let mapping = Mapping::new(&fd, offset, address, size).map_err(refuse)?;
        self.data_path.call(Command::Map(mapping)).map(drop)
    }

    fn dma_unmap(&mut self, flags: DmaUnmapFlags, address: u64, size: u64) -> io::Result<()> {
        let (iova, len) = if flags.contains(DmaUnmapFlags::UNMAP_ALL) { (0, u64::MAX) } else { (address, size) };
        match self.data_path.call(Command::Unmap { iova, len }) {
            Ok(gone) if gone.is_empty() => tracing::debug!(iova, len, "DMA_UNMAP of what isn't mapped"),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "DMA_UNMAP"),
        }
        Ok(())
    }

    fn reset(&mut self) -> io::Result<()> {
        self.control_iova = 0;
        self.data_path.call(Command::Reset).map(drop)
    }

    fn set_irqs(&mut self, index: u32, flags: u32, start: u32, count: u32, fds: Vec<File>) -> io::Result<()> {
        let signal = match index {
            regs::irq::MSIX => Signal::Interrupt,
            regs::irq::KICK => Signal::Kick,
            _ => return Err(errno(libc::EINVAL)),
        };
        if flags & VFIO_IRQ_SET_ACTION_TYPE_MASK != VFIO_IRQ_SET_ACTION_TRIGGER {
            return Err(errno(libc::EINVAL));
        }
        let contexts = u32::from(self.facts.max_contexts);
        // No data and count 0 takes away all of an index; event descriptors without any take away a range.
        let all = flags & VFIO_IRQ_SET_DATA_NONE != 0 && count == 0;
        let (start, count) = if all { (0, contexts) } else { (start, count) };
        let in_range = start.checked_add(count).is_some_and(|end| end <= contexts);
        let is_events = all || flags & VFIO_IRQ_SET_DATA_EVENTFD != 0;
        if !in_range || !is_events || !(fds.is_empty() || fds.len() == count as usize) {
            return Err(errno(libc::EINVAL));
        }
        let fds = if fds.is_empty() { (0..count).map(|_| None).collect() } else { fds.into_iter().map(|f| Some(f.into())).collect() };
        self.data_path.call(Command::Signals { signal, first: CtxId(start as u16), fds }).map(drop)
    }
}

fn irqs(max_contexts: u16) -> Vec<IrqInfo> {
    let info = |index| {
        let ours = matches!(index, regs::irq::MSIX | regs::irq::KICK);
        let (flags, count) = if ours { (VFIO_IRQ_INFO_EVENTFD, max_contexts.into()) } else { (0, 0) };
        IrqInfo { index, flags, count }
    };
    (0..regs::irq::COUNT).map(info).collect()
}

fn regions(max_contexts: u16) -> Vec<ServerRegion> {
    let region = |index| {
        let size = match index {
            VFIO_PCI_BAR0_REGION_INDEX => regs::BAR0_LEN,
            VFIO_PCI_BAR1_REGION_INDEX => pci::bar1_len(max_contexts).into(),
            VFIO_PCI_CONFIG_REGION_INDEX => pci::LEN as u64,
            _ => 0,
        };
        let flags = if size > 0 { VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE } else { 0 };
        let argsz = size_of::<vfio_region_info>() as u32;
        ServerRegion {
            region_info: vfio_region_info { argsz, flags, index, size, ..Default::default() },
            sparse_areas: Vec::new(),
            mmap_fd: None,
        }
    };
    (0..VFIO_PCI_NUM_REGIONS).map(region).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> Device {
        let facts = Facts { caps: 1, max_flows: 9, max_contexts: 8, max_regions: 7, max_next_hops: 6, mtu: 1500, mac: [2, 1, 2, 3, 4, 5] };
        let mailbox = Arc::new(crate::mailbox::Mailbox::new().unwrap());
        // Nobody answers: calls fail at once instead of waiting.
        mailbox.close();
        Device::new(facts, Arc::default(), mailbox)
    }

    fn word(device: &mut Device, at: u64) -> u32 {
        let mut bytes = [0; 4];
        device.region_read(0, at, &mut bytes).unwrap();
        u32::from_le_bytes(bytes)
    }

    #[test]
    fn registers_say_what_the_card_is() {
        let d = &mut device();
        assert_eq!(word(d, regs::MAGIC), regs::MAGIC_VALUE);
        assert_eq!(word(d, regs::VERSION), toe_abi::ABI_VERSION);
        assert_eq!(
            [word(d, regs::MAX_FLOWS), word(d, regs::MAX_CONTEXTS), word(d, regs::MAX_REGIONS), word(d, regs::MAX_NEXT_HOPS)],
            [9, 8, 7, 6]
        );
        assert_eq!((word(d, regs::MTU), word(d, regs::MAC_LO), word(d, regs::MAC_HI)), (1500, 0x0302_0102, 0x0504));
        assert_eq!(word(d, regs::LINK), regs::link::UNKNOWN, "no interface");
        let mut two = [0; 8];
        d.region_read(0, regs::MAGIC, &mut two).unwrap();
        assert_eq!(two[..4], *b"FTOE");
    }

    #[test]
    fn the_link_is_that_of_the_ports_interface() {
        let (lo, same) = (Interface::open("lo").unwrap(), Interface::open("lo").unwrap());
        let d = &mut device().with_interface(lo);
        // A namespace's loopback interface is down until somebody brings it up.
        let wanted = if same.is_up().unwrap() { regs::link::UP } else { regs::link::DOWN };
        assert_eq!(word(d, regs::LINK), wanted);
    }

    #[test]
    fn the_control_address_is_two_words() {
        let d = &mut device();
        d.region_write(0, regs::CONTROL_LO, &0x8000_1000u32.to_le_bytes()).unwrap();
        d.region_write(0, regs::CONTROL_HI, &0x77u32.to_le_bytes()).unwrap();
        assert_eq!(d.control_iova, 0x77_8000_1000);
        d.region_write(0, regs::CONTROL_LO, &0x1234_5678_9abc_def0u64.to_le_bytes()).unwrap();
        assert_eq!(d.control_iova, 0x1234_5678_9abc_def0);
        assert_eq!(word(d, regs::CONTROL_HI), 0x1234_5678);
    }

    #[test]
    fn senseless_accesses_read_as_ones_and_change_nothing() {
        let d = &mut device();
        for (region, offset) in [(0, 2), (0, 4096), (0, u64::MAX - 3), (5, 0), (99, 0)] {
            let mut bytes = [0; 4];
            d.region_read(region, offset, &mut bytes).unwrap();
            assert_eq!(bytes, [0xff; 4], "{region} {offset:#x}");
            d.region_write(region, offset, &[1; 4]).unwrap();
        }
        d.region_write(0, regs::MAGIC, &[1; 4]).unwrap();
        d.region_write(0, regs::ENABLE, &77u32.to_le_bytes()).unwrap();
        assert_eq!(word(d, regs::MAGIC), regs::MAGIC_VALUE);
        assert!(d.region_read(0, 0, &mut vec![0; 8192]).is_err());
    }

    #[test]
    fn failure_is_told_once_the_host_has_read_it() {
        let d = &mut device();
        assert!(!d.status.is_untold(), "nobody is connected");
        word(d, regs::MAGIC);
        d.status.set(regs::status::FAILED);
        assert!(d.status.is_untold());
        assert_eq!(word(d, regs::STATUS), regs::status::FAILED);
        assert!(!d.status.is_untold());
    }

    #[test]
    fn irqs_outside_the_card_are_refused() {
        let d = &mut device();
        let events = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
        for (index, flags, start, count) in
            [(0, events, 0, 1), (9, events, 0, 1), (2, events, 8, 1), (2, events, u32::MAX, 2), (2, 0, 0, 1)]
        {
            let result = d.set_irqs(index, flags, start, count, Vec::new());
            assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EINVAL), "{index} {flags} {start} {count}");
        }
    }
}
