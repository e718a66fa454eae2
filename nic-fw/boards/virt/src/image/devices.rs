//! The board's devices: a network interface and a window to the host, both on the PCI bus.
//!
//! ```text
//!   bridge (device tree, ACPI) ─► scan ─► assign ─► virtio-net: port          each interrupt ─► ITS ─► core
//!                                              └──► ivshmem: window, doorbell
//! ```

use super::board::Doorbell;
use super::log::boot;
use super::{build_id, failure, log};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::ptr::NonNull;
use toe_abi::regs;
use toe_arch::layout::Attribute;
use toe_arch::machine::PciBridge;
use toe_arch::range::Range;
use toe_arch::{MapError, Platform, time};
use toe_drivers::ivshmem::Ivshmem;
use toe_drivers::pci::{self, Ecam, Function, Msix, Numbering, Scan, Windows};
use toe_drivers::virtio::Transport;
use toe_drivers::virtio::net::{self, Link, Net, Settings};
use toe_drivers::{DmaMemory, Mmio};
use toe_hal::TxPort;
use toe_virt::window::{CardEnd, ReadWindow, Window, WindowSlice};

/// Why the board can't be a card.
pub enum Missing {
    Bridge,
    /// No such device on the bus; what it is.
    Device(&'static str),
    /// It is there and can't be used: what it is, and why.
    Broken(&'static str, Box<dyn fmt::Debug>),
    Map(MapError),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bridge => f.write_str("the machine has no PCI bus with a window for devices"),
            Self::Device(what) => write!(f, "there is no {what} on the PCI bus"),
            Self::Broken(what, why) => write!(f, "the {what} can't be used: {why:?}"),
            Self::Map(error) => write!(f, "mapping a device: {error}"),
        }
    }
}

fn broken<E: fmt::Debug + 'static>(what: &'static str) -> impl FnOnce(E) -> Missing {
    move |why| Missing::Broken(what, Box::new(why))
}

const NET: &str = "network interface (virtio-net-pci)";
const WINDOW: &str = "window to the host (ivshmem-doorbell)";

/// The network interface, running.
pub type Port = Net<Mmio, ReadWindow>;

/// A function with its interrupts.
pub struct Signals {
    pub requester: u32,
    pub msix: Msix<Mmio>,
}

pub struct Devices {
    pub port: Port,
    pub port_signals: Signals,
    pub host: HostLink,
}

/// What connects us to the host.
pub struct HostLink {
    pub window: Window,
    /// The pages of the window are ours from when this was made.
    pub end: CardEnd,
    pub doorbell: Doorbell,
    pub kicks: Signals,
}

/// A bus, and what of its devices is mapped.
struct Bus<'a> {
    platform: &'a Platform,
    config: Ecam,
    found: Scan,
    mapped: Vec<Range>,
}

/// Finds and starts them. `pairs`: queue pairs of the port; `instance`: a random number for this start.
pub fn start(platform: &Platform, pairs: u16, instance: u32) -> Result<Devices, Missing> {
    let mut bus = Bus::open(platform)?;
    // The window first: what goes wrong from then on, the host is told.
    let host = bus.host(instance)?;
    let net_at = bus.find(NET, |scan| scan.find(net::VENDOR, &net::DEVICES))?;
    let port_signals = bus.signals(NET, &net_at)?;
    let port = bus.port(&net_at, pairs, port_signals.msix.vectors())?;
    Ok(Devices { port, port_signals, host })
}

/// A link in words.
pub fn link_text(link: Result<Link, impl fmt::Debug>) -> &'static str {
    match link {
        Ok(Link::Up) => "up",
        Ok(Link::Down) => "down",
        Err(_) => "unknown: the device does not say",
    }
}

/// A link as a register has it.
pub fn link_word(link: Result<Link, impl fmt::Debug>) -> u32 {
    match link {
        Ok(Link::Up) => regs::link::UP,
        Ok(Link::Down) => regs::link::DOWN,
        Err(_) => regs::link::UNKNOWN,
    }
}

impl<'a> Bus<'a> {
    fn open(platform: &'a Platform) -> Result<Self, Missing> {
        let bridge = platform.machine().bridges.iter().find(|b| !b.windows.is_empty()).ok_or(Missing::Bridge)?;
        let ecam = bridge.ecam;
        // SAFETY: start-up has mapped configuration space as a device; only this function's drivers write it, and only for their functions.
        let registers = unsafe { Mmio::new(core::ptr::with_exposed_provenance_mut(ecam.base() as usize), ecam.len() as usize) };
        let mut config = Ecam::new(registers, bridge.first_bus);
        let mut found = pci::scan(&mut config, Numbering::Keep);
        if !is_placed(&found) {
            found = pci::scan(&mut config, Numbering::Assign);
            let mut windows = windows(bridge);
            pci::assign(&mut config, &mut found, &mut windows, |no_room| boot!("no room for {}", Debug(no_room)));
        }
        Ok(Self { platform, config, found, mapped: Vec::new() })
    }

    fn find(&mut self, what: &'static str, find: impl Fn(&Scan) -> Option<&Function>) -> Result<Function, Missing> {
        let function = find(&self.found).ok_or(Missing::Device(what))?.clone();
        pci::enable(&mut self.config, &function).map_err(broken(what))?;
        Ok(function)
    }

    /// Maps the registers of a function: all its BARs but one that is memory.
    fn map_registers(&mut self, function: &Function, memory: Option<usize>) -> Result<(), Missing> {
        for (i, bar) in function.bars.iter().enumerate() {
            let Some(range) = bar.as_ref().filter(|_| Some(i) != memory).and_then(|b| Range::new(b.address?, b.size)) else { continue };
            let region = self.platform.map("device", range, Attribute::Device).map_err(Missing::Map)?;
            self.mapped.push(region.range);
        }
        Ok(())
    }

    /// Opens the window, says there that we start, and has log and failures go there.
    fn host(&mut self, instance: u32) -> Result<HostLink, Missing> {
        let function = self.find(WINDOW, Ivshmem::<Mmio>::find)?;
        let (window, doorbell, kicks) = self.window(&function)?;
        let peer = doorbell.position().unwrap_or(u16::MAX);
        let doorbell = Doorbell::new(doorbell, window);
        let end = CardEnd::new(window, instance, peer, &build_id::get());
        log::attach(window);
        failure::tell(window, doorbell.clone());
        boot!("window: {} MiB, peer {}, {} interrupts", window.len() >> 20, peer, kicks.msix.vectors());
        Ok(HostLink { window, end, doorbell, kicks })
    }

    fn window(&mut self, function: &Function) -> Result<(Window, Ivshmem<Mmio>, Signals), Missing> {
        self.map_registers(function, Some(2))?;
        let doorbell = Ivshmem::open(function, &mut registers(&self.mapped)).map_err(broken(WINDOW))?;
        let memory = doorbell.window();
        let range = Range::new(memory.address, memory.len).ok_or(Missing::Device(WINDOW))?;
        self.platform.map("window", range, Attribute::Data).map_err(Missing::Map)?;
        let base = NonNull::new(core::ptr::with_exposed_provenance_mut(memory.address as usize)).ok_or(Missing::Device(WINDOW))?;
        // SAFETY: just mapped, as normal memory, which it is: QEMU's shared memory behind BAR 2. Nothing else refers to it.
        let window = unsafe { Window::new(base, memory.len) }.map_err(broken(WINDOW))?;
        let signals = self.signals_of(WINDOW, function)?;
        Ok((window, doorbell, signals))
    }

    fn signals(&mut self, what: &'static str, function: &Function) -> Result<Signals, Missing> {
        self.map_registers(function, None)?;
        self.signals_of(what, function)
    }

    fn signals_of(&mut self, what: &'static str, function: &Function) -> Result<Signals, Missing> {
        let msix = Msix::open(&mut self.config, function, &mut registers(&self.mapped)).map_err(broken(what))?;
        Ok(Signals { requester: function.at.requester_id().into(), msix })
    }

    fn port(&mut self, function: &Function, pairs: u16, vectors: u16) -> Result<Port, Missing> {
        let transport = Transport::open(&self.config, function, &mut registers(&self.mapped)).map_err(broken(NET))?;
        let pairs = pairs.min(vectors);
        let config_vector = (vectors > pairs).then_some(pairs);
        let settings = Settings { pairs, rx_vector: Some(0), config_vector, ..Settings::default() };
        let memory = dma_memory(settings.bytes());
        let port = net::start(transport, memory, &settings, ReadWindow, &time::Counter).map_err(broken(NET))?;
        let caps = TxPort::<WindowSlice>::caps(&port.tx);
        boot!("port: {}, MTU {}, {} queue pairs, link {}", Mac(caps.mac), caps.mtu, port.control.pairs(), link_text(port.control.link()));
        Ok(port)
    }
}

/// For messages: what has only `Debug`.
pub struct Debug<T>(pub T);

impl<T: fmt::Debug> fmt::Display for Debug<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

struct Mac([u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Registers in what is mapped.
fn registers(mapped: &[Range]) -> impl FnMut(u64, u64) -> Option<Mmio> + use<'_> {
    |address, len| {
        let wanted = Range::new(address, len)?;
        mapped.iter().find(|range| range.covers(wanted))?;
        // SAFETY: mapped as a device for ever; the drivers that ask are the only ones of their functions.
        Some(unsafe { Mmio::new(core::ptr::with_exposed_provenance_mut(address as usize), len as usize) })
    }
}

/// Whether UEFI has given addresses to all: then those are what the machine's windows are known from, and they stay.
fn is_placed(found: &Scan) -> bool {
    let mut bars = found.functions.iter().flat_map(|function| function.bars.iter().flatten());
    found.dead_ends == 0 && bars.all(|bar| bar.address.is_some())
}

/// Windows in which devices see the addresses that cores use: one below 4 GiB, one above.
fn windows(bridge: &PciBridge) -> Windows {
    let identical = || bridge.windows.iter().filter(|w| w.bus_base == w.range.base()).map(|w| w.range.base()..w.range.end());
    let low = identical().find(|w| w.end <= 1 << 32).unwrap_or(0..0);
    let high = identical().find(|w| w.start >= 1 << 32).unwrap_or(0..0);
    Windows { low, high, align: toe_arch::range::PAGE }
}

/// Memory for a device, for ever.
fn dma_memory(len: usize) -> DmaMemory {
    let block: &'static mut [core::mem::MaybeUninit<u64>] = Box::leak(Box::new_uninit_slice(len.div_ceil(8)));
    let (base, len) = (NonNull::from(&mut block[0]).cast::<u8>(), size_of_val(block));
    let device = base.as_ptr().expose_provenance() as u64;
    // SAFETY: leaked, so ours for ever; normal memory, which this machine's devices are coherent with; devices see physical addresses, and
    // memory is mapped to itself.
    let mut memory = unsafe { DmaMemory::new(base, device, len) };
    memory.clear();
    memory
}
