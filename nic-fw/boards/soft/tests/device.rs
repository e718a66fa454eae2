//! The PCI device as its host sees it: through the protocol library's client, and byte by byte where that one is too polite.

use rustix::event::EventfdFlags;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use toe_abi::{control, regs};
use toe_datapath::CardConfig;
use toe_hal::{Lease, PortCaps, RxBurst, RxPort, TxBusy, TxFrame, TxPort};
use toe_nic::device::{Device, Facts, Status};
use toe_nic::endpoint::Endpoint;
use toe_nic::mailbox::Mailbox;
use toe_nic::memory::SoftSlice;
use toe_nic::ports::{Port, PortError, SoftFrames, SoftRx};
use toe_nic::run::{RunConfig, Runner};
use vfio_bindings::bindings::vfio::{VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_DATA_EVENTFD};
use vfio_user::Client;

/// A port without a wire.
struct Nowhere(OwnedFd);

impl RxPort for Nowhere {
    type Frames = SoftFrames;

    fn frames(&self) -> SoftFrames {
        SoftFrames::none().unwrap()
    }
    fn receive(&mut self, _burst: &mut RxBurst) -> usize {
        0
    }
    fn any(&mut self) -> bool {
        false
    }
    fn release(&mut self, _lease: Lease) {}
}

impl SoftRx for Nowhere {
    fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
    fn check(&mut self) -> Result<(), PortError> {
        Ok(())
    }
}

struct Silent;

impl TxPort<SoftSlice> for Silent {
    fn caps(&self) -> PortCaps {
        PortCaps { mac: [2, 0, 0, 0, 0, 9], mtu: 1500, tx_csum: true, tso_max: 0 }
    }
    fn transmit(&mut self, _frame: &TxFrame<'_, SoftSlice>) -> Result<(), TxBusy> {
        Ok(())
    }
    fn flush(&mut self) -> usize {
        0
    }
}

/// A card in this process; it ends with the test.
struct Card {
    path: PathBuf,
    stop: UnixStream,
    _endpoint: Endpoint,
}

impl Card {
    fn start(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("toe-{}-{name}", std::process::id()));
        let (endpoint, listener) = Endpoint::open(&path).unwrap();
        let (mailbox, status) = (Arc::new(Mailbox::new().unwrap()), Arc::<Status>::default());
        let (stopped, stop) = UnixStream::pair().unwrap();
        std::thread::spawn({
            let (mailbox, status) = (mailbox.clone(), status.clone());
            move || {
                let fd = rustix::event::eventfd(0, EventfdFlags::empty()).unwrap();
                let card = CardConfig { max_flows: 64, max_contexts: 32, spin_us: 0, ..CardConfig::default() };
                let config = RunConfig { card, placement: None, cpu: None, disturb: None };
                let port = Port { rx: Box::new(Nowhere(fd)), tx: Box::new(Silent) };
                Runner::new(config, port, mailbox, status, stopped.as_fd()).unwrap().run().unwrap();
            }
        });
        let facts = Facts { max_flows: 64, max_contexts: 32, max_regions: 64, mtu: 1500, ..Facts::default() };
        std::thread::spawn(move || Device::new(facts, status, mailbox).serve(listener));
        Self { path, stop, _endpoint: endpoint }
    }

    fn client(&self) -> Client {
        Client::new(&self.path).unwrap()
    }

    fn raw(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        let _ = self.stop.write_all(&[1]);
    }
}

fn memfd(len: u64, seals: SealFlags) -> OwnedFd {
    let fd = rustix::fs::memfd_create("toe-test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&fd, len).unwrap();
    rustix::fs::fcntl_add_seals(&fd, seals).unwrap();
    fd
}

fn control_memory() -> OwnedFd {
    memfd(CONTROL_LEN, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
}

const CONTROL_LEN: u64 = control::CONTROL_REGION_LEN.next_multiple_of(4096);
const IOVA: u64 = 1 << 40;

fn register(client: &mut Client, at: u64) -> u32 {
    let mut bytes = [0; 4];
    client.region_read(0, at, &mut bytes).unwrap();
    u32::from_le_bytes(bytes)
}

fn enable(client: &mut Client, what: u32) {
    client.region_write(0, regs::CONTROL_LO, &IOVA.to_le_bytes()).unwrap();
    client.region_write(0, regs::ENABLE, &what.to_le_bytes()).unwrap();
}

fn attach(client: &mut Client) -> u32 {
    enable(client, regs::enable::ATTACH);
    register(client, regs::STATUS)
}

const DMA_MAP: u16 = 2;
const FLAG_ERROR: u32 = 1 << 5;

/// Sends a message with descriptors and returns the flags of the answer's header.
fn ask(stream: &mut UnixStream, command: u16, body: &[u8], fds: &[BorrowedFd<'_>]) -> u32 {
    let size = 16 + body.len() as u32;
    let message = [&1u16.to_le_bytes()[..], &command.to_le_bytes(), &size.to_le_bytes(), &[0; 8], body].concat();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(fds.is_empty() || control.push(SendAncillaryMessage::ScmRights(fds)));
    rustix::net::sendmsg(&*stream, &[IoSlice::new(&message)], &mut control, SendFlags::empty()).unwrap();
    let mut header = [0; 16];
    stream.read_exact(&mut header).unwrap();
    u32::from_le_bytes(header[8..12].try_into().unwrap())
}

/// Whether the card takes a mapping of `len` bytes of `fd`, in its own words.
fn takes(card: &Card, fd: Option<&OwnedFd>, offset: u64, len: u64, access: u32) -> bool {
    let body = [&32u32.to_le_bytes()[..], &access.to_le_bytes(), &offset.to_le_bytes(), &IOVA.to_le_bytes(), &len.to_le_bytes()].concat();
    let fds: Vec<_> = fd.iter().map(|f| f.as_fd()).collect();
    let flags = ask(&mut card.raw(), DMA_MAP, &body, &fds);
    assert_eq!(flags & 1, 1, "an answer");
    flags & FLAG_ERROR == 0
}

#[test]
fn a_host_finds_a_card() {
    let card = Card::start("finds");
    let mut client = card.client();
    assert_eq!(register(&mut client, regs::MAGIC), regs::MAGIC_VALUE);
    assert_eq!(register(&mut client, regs::VERSION), toe_abi::ABI_VERSION);
    assert_eq!(register(&mut client, regs::STATUS), regs::status::DETACHED);
    let mut id = [0; 4];
    client.region_read(7, 0, &mut id).unwrap();
    assert_eq!(id, [0x07, 0xf7, 0x01, 0x00]);
    assert_eq!(client.region(0).map(|r| r.size), Some(4096));
    assert_eq!(client.get_irq_info(regs::irq::MSIX).unwrap().count, 32);
    assert_eq!(client.get_irq_info(regs::irq::KICK).unwrap().count, 32);
}

#[test]
fn sealed_memory_is_taken_and_attached() {
    let card = Card::start("sealed");
    let mut client = card.client();
    assert_eq!(attach(&mut client), regs::status::DETACHED, "nothing is mapped yet");
    client.dma_map(0, IOVA, CONTROL_LEN, control_memory().as_raw_fd()).unwrap();
    assert_eq!(attach(&mut client), regs::status::ATTACHED);
    enable(&mut client, regs::enable::DETACH);
    assert_eq!(register(&mut client, regs::STATUS), regs::status::DETACHED);
    assert_eq!(attach(&mut client), regs::status::ATTACHED);
    client.dma_unmap(IOVA, CONTROL_LEN).unwrap();
    assert_eq!(attach(&mut client), regs::status::DETACHED);
}

#[test]
fn memory_that_could_kill_the_card_is_refused() {
    let card = Card::start("refused");
    let (sealed, unsealed) = (control_memory(), memfd(CONTROL_LEN, SealFlags::empty()));
    assert!(!takes(&card, Some(&unsealed), 0, CONTROL_LEN, 3), "not sealed");
    assert!(!takes(&card, Some(&sealed), 0, CONTROL_LEN + 4096, 3), "beyond its end");
    assert!(!takes(&card, Some(&sealed), 0, 100, 3), "not whole pages");
    assert!(!takes(&card, Some(&sealed), 0, CONTROL_LEN, 1), "read-only");
    assert!(!takes(&card, None, 0, CONTROL_LEN, 3), "no descriptor");
    assert!(takes(&card, Some(&sealed), 0, CONTROL_LEN, 3));
    let mut client = card.client();
    client.dma_map(0, IOVA, CONTROL_LEN, unsealed.as_raw_fd()).unwrap();
    assert_eq!(attach(&mut client), regs::status::DETACHED);
}

#[test]
fn interrupts_and_kicks_are_set_and_taken_away() {
    let card = Card::start("irqs");
    let mut client = card.client();
    let fds: Vec<OwnedFd> = (0..4).map(|_| rustix::event::eventfd(0, EventfdFlags::empty()).unwrap()).collect();
    let raw: Vec<_> = fds.iter().map(|f| f.as_raw_fd()).collect();
    let flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
    for index in [regs::irq::MSIX, regs::irq::KICK] {
        client.set_irqs(index, flags, 1, 4, &raw).unwrap();
        client.set_irqs(index, flags, 1, 4, &raw).unwrap();
        client.set_irqs(index, flags, 2, 1, &[]).unwrap();
    }
    // The card makes sure that it can't block on an interrupt.
    let nonblocking = |fd: &OwnedFd| rustix::fs::fcntl_getfl(fd).unwrap().contains(rustix::fs::OFlags::NONBLOCK);
    assert!(nonblocking(&fds[0]));
    // A kick of a context that isn't open disturbs nobody.
    rustix::io::write(&fds[0], &1u64.to_ne_bytes()).unwrap();
    assert_eq!(register(&mut client, regs::MAGIC), regs::MAGIC_VALUE);
    let set_irqs = |index: u32, start: u32, count: u32| [20u32, flags, index, start, count].map(u32::to_le_bytes).concat();
    drop(client);
    let mut raw = card.raw();
    assert_eq!(ask(&mut raw, 8, &set_irqs(regs::irq::KICK, 0, 1), &[fds[0].as_fd()]) & FLAG_ERROR, 0);
    assert_ne!(ask(&mut raw, 8, &set_irqs(regs::irq::KICK, 32, 1), &[fds[0].as_fd()]) & FLAG_ERROR, 0);
    assert_ne!(ask(&mut raw, 8, &set_irqs(regs::irq::KICK, 0, 2), &[fds[0].as_fd()]) & FLAG_ERROR, 0);
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    assert_ne!(ask(&mut raw, 8, &set_irqs(regs::irq::KICK, 0, 1), &[file.as_fd()]) & FLAG_ERROR, 0);
}

#[test]
fn the_next_host_starts_afresh_at_the_same_addresses() {
    let card = Card::start("next");
    for _ in 0..3 {
        let mut client = card.client();
        assert_eq!(register(&mut client, regs::STATUS), regs::status::DETACHED);
        client.dma_map(0, IOVA, CONTROL_LEN, control_memory().as_raw_fd()).unwrap();
        assert_eq!(attach(&mut client), regs::status::ATTACHED);
        // Without a good-bye.
        client.shutdown().unwrap();
    }
}

#[test]
fn malformed_messages_end_the_connection_not_the_card() {
    let card = Card::start("malformed");
    let version = |size: u32, body: &[u8]| [&1u16.to_le_bytes()[..], &1u16.to_le_bytes(), &size.to_le_bytes(), &[0; 8], body].concat();
    let messages = [
        version(4, &[0; 4]),
        version(20, &[0; 4]),
        version(24, &[0, 0, 0, 0, b'x', b'y', b'z', b'w']),
        version(25, &[0, 0, 0, 0, b'{', 0, b'}', 0, 0]),
        vec![0xff; 64],
        vec![1],
    ];
    for message in messages {
        let mut raw = card.raw();
        raw.write_all(&message).unwrap();
        raw.shutdown(std::net::Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        let _ = raw.read_to_end(&mut rest);
        assert_eq!(register(&mut card.client(), regs::MAGIC), regs::MAGIC_VALUE, "after {message:x?}");
    }
}
