//! A host that says anything to the soft card's device, with descriptors of all kinds: registers, DMA_MAP, SET_IRQS, resets and hosts that go
//! without a word. Messages are the library's to parse; what becomes of their fields is ours. Nothing panics, memory that was taken away is
//! out of reach, nothing is read or written beside a region, and once all is taken away no descriptor is left.
//!
//! ```text
//!   input ─► Device ─► who obeys as the data path does ─► SoftMemory, Interrupts, Kicks
//!        └─► accesses of the card to its regions
//! ```

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arbitrary::Arbitrary;
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::fd::OwnedFd;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use toe_abi::control::CONTROL_REGION_LEN;
use toe_abi::{CtxId, HostAddr, HostSpan, RegionId, regs};
use toe_hal::{Dma, HostMemory, Kick};
use toe_nic::device::{Device, Facts, Status};
use toe_nic::lent::Lent;
use toe_nic::mailbox::{Answer, Command, Dispatch};
use toe_nic::memory::SoftMemory;
use toe_nic::signals::{Interrupts, Kicks};
use vfio_bindings::bindings::vfio::{VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_DATA_EVENTFD};
use vfio_user::{DmaMapFlags, DmaUnmapFlags, ServerBackend};

use super::steps::steps;

const STEPS_MAX: usize = 100;
const PAGE: u64 = 4096;
const CONTEXTS: u16 = 4;
const REGIONS: u16 = 4;
/// Bytes of the memory that may be mapped: a control region and some.
const MEMORY: u64 = CONTROL_REGION_LEN.next_multiple_of(PAGE) + 16 * PAGE;

/// More than that has.
const PAGES: u16 = 1024;

/// Eventfds, to be signalled.
const EVENTS: u32 = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;

#[derive(Arbitrary, Debug)]
enum Step<'a> {
    Read {
        region: u8,
        at: u64,
        len: u16,
    },
    Write {
        region: u8,
        at: u64,
        bytes: &'a [u8],
    },
    /// A register, mostly with a value that means something.
    Register {
        at: u8,
        value: u32,
    },
    Map {
        flags: u8,
        file: u8,
        offset: u8,
        iova: u8,
        pages: u16,
        odd: [u8; 3],
    },
    MapAnything {
        flags: u32,
        file: u8,
        offset: u64,
        iova: u64,
        len: u64,
    },
    Unmap {
        all: bool,
        iova: u8,
        pages: u16,
    },
    UnmapAnything {
        flags: u32,
        iova: u64,
        len: u64,
    },
    Reset,
    Irqs {
        index: u8,
        flags: u32,
        start: u32,
        count: u32,
        files: &'a [u8],
    },
    Signals {
        kick: bool,
        start: u8,
        files: &'a [u8],
    },
    SessionEnds,
    Bind {
        region: u8,
        iova: u8,
        pages: u16,
    },
    Access {
        region: u8,
        at: u32,
        len: u16,
    },
    Interrupt(u16),
}

/// The card's half, and the device in front of it: one for all inputs, as new after each.
struct World {
    device: Device,
    data_path: Arc<DataPath>,
    memory: SoftMemory,
    interrupts: Interrupts,
    files: [File; 6],
    /// Of the pipe that is among them: without it a write would be a signal.
    _reader: OwnedFd,
    /// Bytes of regions that the card has been told of, and that nothing was taken from since.
    regions: HashMap<RegionId, u64>,
}

pub fn run(data: &[u8]) {
    static WORLD: OnceLock<Mutex<World>> = OnceLock::new();
    let world = WORLD.get_or_init(|| Mutex::new(World::new().expect("descriptors")));
    let mut world = world.lock().unwrap_or_else(PoisonError::into_inner);
    let free = world.first_free();
    for step in steps(data, STEPS_MAX) {
        world.step(step);
    }
    world.end();
    // Other tests of the process open files as well.
    assert!(cfg!(not(fuzzing)) || world.first_free() == free, "a descriptor is left");
}

/// What the data path does with commands (`toe_nic::run`), without flows; at once, since a thread would do nothing but wake and sleep.
struct DataPath(Mutex<Obeyer>);

impl Dispatch for DataPath {
    fn call(&self, command: Command) -> Answer {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).obey(command)
    }
}

struct Obeyer {
    lent: Lent,
    epoll: OwnedFd,
}

impl Obeyer {
    fn obey(&mut self, command: Command) -> Answer {
        match command {
            Command::Map(mapping) => self.lent.map(mapping),
            Command::Unmap { iova, len } => Ok(self.lent.memory.unmap(iova, len)),
            Command::Attach { iova } => {
                self.lent.detach();
                self.lent.attach(iova).map(|()| vec![])
            }
            Command::Detach => {
                self.lent.detach();
                Ok(vec![])
            }
            Command::Reset => {
                self.lent.detach();
                Ok(self.lent.memory.reset())
            }
            Command::Signals { signal, first, fds } => self.lent.signals(signal, first, fds, &self.epoll).map(|()| vec![]),
            Command::EndSession => {
                self.lent.detach();
                self.lent.end_session(&self.epoll)
            }
        }
    }
}

fn memory(sealed: SealFlags) -> io::Result<File> {
    let fd = memfd_create("fuzz", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&fd, MEMORY)?;
    fcntl_add_seals(&fd, sealed)?;
    Ok(fd.into())
}

impl World {
    fn new() -> io::Result<Self> {
        let (memory_of_card, interrupts) = (SoftMemory::new(REGIONS), Interrupts::new(CONTEXTS));
        let obeyer = Obeyer {
            lent: Lent { memory: memory_of_card.clone(), interrupts: interrupts.clone(), kicks: Kicks::new(CONTEXTS) },
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        };
        let data_path = Arc::new(DataPath(Mutex::new(obeyer)));
        let facts = Facts { max_contexts: CONTEXTS, max_regions: REGIONS, ..Facts::default() };
        let (kick, (reader, pipe)) = (eventfd(0, EventfdFlags::CLOEXEC)?, rustix::pipe::pipe()?);
        let sealed = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        let read_only = sealed | SealFlags::WRITE;
        let files = [memory(sealed)?, kick.into(), memory(SealFlags::GROW)?, memory(read_only)?, File::open("/dev/null")?, pipe.into()];
        let device = Device::new(facts, Arc::<Status>::default(), data_path.clone());
        Ok(Self { device, data_path, memory: memory_of_card, interrupts, files, _reader: reader, regions: HashMap::new() })
    }

    /// The lowest number that a descriptor could have.
    fn first_free(&self) -> i32 {
        self.files[0].try_clone().map_or(-1, |file| file.as_raw_fd())
    }

    fn file(&self, which: u8) -> Option<File> {
        self.files.get(usize::from(which) % (self.files.len() + 1)).map(|file| file.try_clone().expect("a copy"))
    }

    fn some_files(&self, which: &[u8]) -> Vec<File> {
        which.iter().take(8).filter_map(|n| self.file(*n)).collect()
    }

    /// Errors are answers.
    fn step(&mut self, step: Step<'_>) {
        match step {
            Step::Read { region, at, len } => {
                let mut bytes = vec![0; usize::from(len) % 8192];
                let _ = self.device.region_read(u32::from(region) % 12, at, &mut bytes);
            }
            Step::Write { region, at, bytes } => {
                // It may be the register that resets.
                self.regions.clear();
                let _ = self.device.region_write(u32::from(region) % 12, at, bytes);
            }
            Step::Register { at, value } => {
                let at = [regs::CONTROL_LO, regs::CONTROL_HI, regs::ENABLE, regs::STATUS][usize::from(at) % 4];
                let value = if at == regs::ENABLE { value % 4 } else { value };
                if at == regs::ENABLE {
                    self.regions.remove(&RegionId::CONTROL);
                    self.regions.retain(|_, _| value == regs::enable::ATTACH);
                }
                let _ = self.device.region_write(0, at, &value.to_le_bytes());
            }
            Step::Map { flags, file, offset, iova, pages, odd } => {
                // Mostly readable and writable, and mostly whole pages.
                let flags = if flags < 200 { DmaMapFlags::READ_WRITE } else { DmaMapFlags::from_bits_retain(flags.into()) };
                let [a, b, c] = odd.map(|odd| u64::from(odd.saturating_sub(240)));
                let (offset, iova, len) = (u64::from(offset) * PAGE + a, u64::from(iova) * PAGE + b, u64::from(pages % PAGES) * PAGE + c);
                let _ = self.device.dma_map(flags, offset, iova, len, self.file(file));
            }
            Step::MapAnything { flags, file, offset, iova, len } => {
                let _ = self.device.dma_map(DmaMapFlags::from_bits_retain(flags), offset, iova, len, self.file(file));
            }
            Step::Unmap { all, iova, pages } => {
                let flags = if all { DmaUnmapFlags::UNMAP_ALL } else { DmaUnmapFlags::empty() };
                self.unmap(flags, u64::from(iova) * PAGE, u64::from(pages % PAGES) * PAGE);
            }
            Step::UnmapAnything { flags, iova, len } => self.unmap(DmaUnmapFlags::from_bits_retain(flags), iova, len),
            Step::Reset => {
                let _ = self.device.reset();
                self.nothing_is_reached();
            }
            Step::Irqs { index, flags, start, count, files } => {
                _ = self.device.set_irqs(index.into(), flags, start, count, self.some_files(files));
            }
            Step::Signals { kick, start, files } => {
                let index = if kick { regs::irq::KICK } else { regs::irq::MSIX };
                let files = self.some_files(files);
                _ = self.device.set_irqs(index, EVENTS, u32::from(start) % 5, files.len() as u32, files);
            }
            Step::SessionEnds => {
                self.regions.clear();
                _ = self.data_path.call(Command::EndSession);
            }
            Step::Bind { region, iova, pages } => {
                let (region, len) = (RegionId(u16::from(region) % (REGIONS + 1)), u64::from(pages % PAGES) * PAGE);
                if self.memory.bind(region, u64::from(iova) * PAGE, len).is_ok() {
                    assert!(region.0 < REGIONS && len > 0, "{region:?} of {len} bytes");
                    self.regions.insert(region, len);
                }
            }
            Step::Access { region, at, len } => self.access(RegionId(u16::from(region) % (REGIONS + 1)), at.into(), len.into()),
            Step::Interrupt(ctx) => self.interrupts.interrupt(CtxId(ctx % (2 * CONTEXTS))),
        }
    }

    fn unmap(&mut self, flags: DmaUnmapFlags, iova: u64, len: u64) {
        self.device.dma_unmap(flags, iova, len).expect("an answer that has a body");
        self.regions.clear();
        if flags.contains(DmaUnmapFlags::UNMAP_ALL) {
            assert_eq!(self.memory.mapped(), 0, "all is unmapped");
            self.nothing_is_reached();
        }
    }

    /// What was written is read again; what is beside a region is neither.
    fn access(&mut self, region: RegionId, offset: u64, len: usize) {
        let at = HostAddr::new(region, offset);
        let bytes = vec![len as u8; len];
        let wrote = self.memory.write(at, &bytes, 0);
        if let Some(room) = self.regions.get(&region) {
            assert_eq!(wrote.is_ok(), offset + len as u64 <= *room, "{len} bytes at {offset:#x} of {room:#x}");
        }
        assert_eq!(self.memory.slice(HostSpan { addr: at, len: len as u32 }).is_ok(), wrote.is_ok());
        let _ = self.memory.load(at);
        if wrote.is_ok() {
            let mut read = vec![0; len];
            assert_eq!((self.memory.fetch(at, &mut read, 0), read), (Ok(Dma::Done), bytes));
        }
    }

    fn nothing_is_reached(&mut self) {
        self.regions.clear();
        for region in (0..REGIONS).map(RegionId) {
            assert!(self.memory.load(HostAddr::new(region, 0)).is_err(), "{region:?}");
        }
    }

    /// Takes all away.
    fn end(&mut self) {
        self.unmap(DmaUnmapFlags::UNMAP_ALL, 0, 0);
        let _ = self.device.reset();
        for index in [regs::irq::MSIX, regs::irq::KICK] {
            self.device.set_irqs(index, EVENTS, 0, CONTEXTS.into(), vec![]).expect("descriptors can be taken away");
        }
    }
}
