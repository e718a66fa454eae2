//! The soft card: a vfio-user device on a UNIX socket.

use super::{Card, CardError, CardInfo, CardMemory, LinkReport, MemoryOptions, PortLink, SharedMemory, Signals, iova, read_info};
use rustix::{
    event::{EventfdFlags, epoll::EventFlags, eventfd},
    fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    fs::FileType,
    net::{AddressFamily, sockopt},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::RawFd,
    path::{Path, PathBuf},
    sync::mpsc,
    time::Duration,
};
use toe_abi::{CtxId, RegionId, regs};
use vfio_bindings::bindings::vfio::{VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_DATA_EVENTFD, VFIO_PCI_BAR0_REGION_INDEX};
use vfio_user::Client;

/// A card that does not answer for so long is gone. Its device thread only ever waits for its data path.
const DEADLINE: Duration = Duration::from_secs(5);

/// A card reached by vfio-user messages.
pub struct VfioUser {
    client: Client,
    /// The same socket as the client's: to wait for its end, and to bound its blocking reads.
    watch: OwnedFd,
    path: PathBuf,
    info: CardInfo,
    /// Bytes of what is mapped, by I/O virtual address.
    mapped: BTreeMap<u64, u64>,
}

impl VfioUser {
    /// Connects to the card that listens on `path`, and reads what it is.
    pub fn connect(path: &Path) -> Result<Self, CardError> {
        let refuse = |error: String| CardError::Connect { path: path.display().to_string(), error };
        let before = sockets().map_err(|e| refuse(format!("/proc/self/fd: {e}")))?;
        let mut client = open_client(path).map_err(refuse)?;
        let watch = new_socket(&before, path).ok_or_else(|| refuse("its socket can't be found in /proc/self/fd".into()))?;
        // The client blocks in reads; from here on none takes longer than this. (The option belongs to the socket, which both share.)
        for direction in [sockopt::Timeout::Recv, sockopt::Timeout::Send] {
            sockopt::set_socket_timeout(&watch, direction, Some(DEADLINE)).map_err(|e| refuse(format!("setting a time limit: {e}")))?;
        }
        let info = read_info(&path.display().to_string(), |at| read_register(&mut client, at))?;
        Ok(Self { client, watch, path: path.to_owned(), info, mapped: BTreeMap::new() })
    }

    /// Where the card listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn write_register(&mut self, at: u64, value: u32) -> Result<(), CardError> {
        self.client.region_write(VFIO_PCI_BAR0_REGION_INDEX, at, &value.to_le_bytes()).map_err(gone("writing a register"))
    }

    fn set_irq(&mut self, index: u32, ctx: CtxId, fds: &[RawFd]) -> Result<(), CardError> {
        let flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
        self.client.set_irqs(index, flags, ctx.0.into(), 1, fds).map_err(gone("SET_IRQS"))
    }
}

fn gone(step: &'static str) -> impl Fn(vfio_user::Error) -> CardError {
    move |e| CardError::Gone { step, error: e.to_string() }
}

fn read_register(client: &mut Client, at: u64) -> Result<u32, CardError> {
    let mut value = [0; 4];
    client.region_read(VFIO_PCI_BAR0_REGION_INDEX, at, &mut value).map_err(gone("reading a register"))?;
    Ok(u32::from_le_bytes(value))
}

/// The version exchange has no time limit of its own, and panics on some malformed answers: it gets a thread to itself.
fn open_client(path: &Path) -> Result<Client, String> {
    let (tx, rx) = mpsc::channel();
    let to = path.to_owned();
    std::thread::Builder::new().name("card-connect".into()).spawn(move || tx.send(Client::new(&to))).map_err(|e| e.to_string())?;
    match rx.recv_timeout(DEADLINE) {
        Ok(Ok(client)) => Ok(client),
        Ok(Err(vfio_user::Error::Connect(e))) => Err(e.to_string()),
        Ok(Err(e)) => Err(format!("version exchange: {e}")),
        Err(mpsc::RecvTimeoutError::Timeout) => {
            Err(format!("version exchange: no answer within {} s; has it a daemon already?", DEADLINE.as_secs()))
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => Err("version exchange: the answer makes no sense".into()),
    }
}

/// Numbers of this process's open sockets.
fn sockets() -> std::io::Result<BTreeSet<RawFd>> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        if let Some(fd) = name.to_str().and_then(|n| n.parse::<RawFd>().ok())
            && with_fd(fd, |fd| rustix::fs::fstat(fd).is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Socket))
        {
            found.insert(fd);
        }
    }
    Ok(found)
}

fn with_fd<R>(fd: RawFd, f: impl FnOnce(BorrowedFd<'_>) -> R) -> R {
    // SAFETY: the number was listed as open a moment ago. If another thread has closed it since, the calls below fail with EBADF
    // or look at another descriptor, which they leave as it is.
    f(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// A copy of the UNIX socket that was opened since `before` and whose other end is bound to `path`.
///
/// The client does not give its descriptor out, and its end must be noticed while toed sleeps.
fn new_socket(before: &BTreeSet<RawFd>, path: &Path) -> Option<OwnedFd> {
    let now = sockets().ok()?;
    let new: Vec<RawFd> = now.difference(before).copied().collect();
    let is_unix = |fd: RawFd| with_fd(fd, |fd| sockopt::socket_domain(fd) == Ok(AddressFamily::UNIX));
    let leads_to = |fd: RawFd| {
        let peer = with_fd(fd, |fd| rustix::net::getpeername(fd)).ok().flatten();
        let peer = peer.and_then(|a| rustix::net::SocketAddrUnix::try_from(a).ok());
        // The card may have bound a relative or another spelling of the path: the name in the folder must do.
        peer.and_then(|a| a.path().map(|p| p.to_bytes().to_vec())).is_some_and(|p| {
            use std::os::unix::ffi::OsStrExt;
            Path::new(std::ffi::OsStr::from_bytes(&p)).file_name() == path.file_name()
        })
    };
    let fd = new.into_iter().find(|&fd| is_unix(fd) && leads_to(fd))?;
    with_fd(fd, |fd| rustix::io::fcntl_dupfd_cloexec(fd, 0)).ok()
}

impl Card for VfioUser {
    fn info(&self) -> &CardInfo {
        &self.info
    }

    fn status(&mut self) -> Result<u32, CardError> {
        read_register(&mut self.client, regs::STATUS)
    }

    fn port_link(&mut self) -> Result<PortLink, CardError> {
        read_register(&mut self.client, regs::LINK).map(PortLink::of)
    }

    fn make_memory(&mut self, region: RegionId, len: u64, options: MemoryOptions) -> Result<CardMemory, CardError> {
        let name = if region == RegionId::CONTROL { "toe-control".to_owned() } else { format!("toe-region-{}", region.0) };
        let memory = SharedMemory::create(&name, len, options)?;
        let at = iova(region.0);
        if let Some(memfd) = memory.memfd() {
            self.client.dma_map(0, at, memory.len(), memfd.as_raw_fd()).map_err(gone("DMA_MAP"))?;
        }
        self.mapped.insert(at, memory.len());
        Ok(CardMemory { iova: at, memory })
    }

    fn drop_memory(&mut self, iova: u64) -> Result<(), CardError> {
        let Some(len) = self.mapped.remove(&iova) else { return Ok(()) };
        self.client.dma_unmap(iova, len).map_err(gone("DMA_UNMAP"))
    }

    fn make_signals(&mut self, ctx: CtxId) -> Result<Signals, CardError> {
        let new =
            || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|e| CardError::Os { step: "eventfd", error: e.into() });
        let signals = Signals { interrupt: new()?, kick: new()? };
        self.set_irq(regs::irq::MSIX, ctx, &[signals.interrupt.as_raw_fd()])?;
        self.set_irq(regs::irq::KICK, ctx, &[signals.kick.as_raw_fd()])?;
        Ok(signals)
    }

    fn drop_signals(&mut self, ctx: CtxId) -> Result<(), CardError> {
        self.set_irq(regs::irq::MSIX, ctx, &[])?;
        self.set_irq(regs::irq::KICK, ctx, &[])
    }

    fn enable(&mut self, control_iova: u64, what: u32) -> Result<(), CardError> {
        self.write_register(regs::CONTROL_LO, control_iova as u32)?;
        self.write_register(regs::CONTROL_HI, (control_iova >> 32) as u32)?;
        self.write_register(regs::ENABLE, what)
    }

    fn watch(&self) -> Option<(BorrowedFd<'_>, EventFlags)> {
        // Not readable: answers are read where they are waited for, and a card that says more is not worth waking up for.
        Some((self.watch.as_fd(), EventFlags::RDHUP))
    }

    fn look(&mut self) -> Result<(), CardError> {
        Err(CardError::Gone { step: "vfio-user", error: "the connection has ended".into() })
    }

    fn report(&self) -> LinkReport {
        LinkReport { device: format!("vfio-user:{}", self.path.display()), board: "soft", memory_used: None }
    }
}
