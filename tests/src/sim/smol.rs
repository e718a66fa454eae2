//! smoltcp as an independent TCP peer in virtual time.

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr};
use std::collections::VecDeque;

/// Queues of frames in both directions.
#[derive(Default)]
struct Queues {
    rx: VecDeque<Vec<u8>>,
    tx: VecDeque<Vec<u8>>,
}

struct Received(Vec<u8>);
struct Room<'a>(&'a mut VecDeque<Vec<u8>>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}

impl Device for Queues {
    type RxToken<'a> = Received;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Room<'_>)> {
        let frame = self.rx.pop_front()?;
        Some((Received(frame), Room(&mut self.tx)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Room<'_>> {
        Some(Room(&mut self.tx))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut caps = DeviceCapabilities::default();
        caps.medium = Medium::Ethernet;
        caps.max_transmission_unit = 1514;
        caps
    }
}

/// A host with one interface and TCP sockets.
pub struct SmolHost {
    queues: Queues,
    iface: Interface,
    sockets: SocketSet<'static>,
}

fn at(now_us: u64) -> Instant {
    Instant::from_micros(now_us as i64)
}

/// As smoltcp has it.
fn address(ip: [u8; 16]) -> IpAddress {
    std::net::IpAddr::from(ip).to_canonical().into()
}

impl SmolHost {
    /// `ip`: of either version, IPv4 mapped.
    pub fn new(mac: [u8; 6], ip: [u8; 16], prefix: u8, seed: u64) -> Self {
        let mut queues = Queues::default();
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(mac)));
        config.random_seed = seed;
        let mut iface = Interface::new(config, &mut queues, at(0));
        iface.update_ip_addrs(|a| a.push(IpCidr::new(address(ip), prefix)).expect("room for one address"));
        Self { queues, iface, sockets: SocketSet::new(vec![]) }
    }

    /// A new socket with buffers of `buffer` bytes each way.
    pub fn socket(&mut self, buffer: usize) -> SocketHandle {
        let buf = || tcp::SocketBuffer::new(vec![0; buffer]);
        let mut socket = tcp::Socket::new(buf(), buf());
        socket.set_nagle_enabled(false);
        self.sockets.add(socket)
    }

    pub fn listen(&mut self, handle: SocketHandle, port: u16) {
        self.tcp(handle).listen(port).expect("a port other than 0");
    }

    pub fn connect(&mut self, handle: SocketHandle, ip: [u8; 16], port: u16, from: u16) {
        let remote = (address(ip), port);
        let socket = self.sockets.get_mut::<tcp::Socket>(handle);
        socket.connect(self.iface.context(), remote, from).expect("a fresh socket");
    }

    pub fn tcp(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    pub fn arrive(&mut self, frame: Vec<u8>) {
        self.queues.rx.push_back(frame);
    }

    pub fn take_sent(&mut self) -> Option<Vec<u8>> {
        self.queues.tx.pop_front()
    }

    pub fn poll(&mut self, now_us: u64) {
        self.iface.poll(at(now_us), &mut self.queues, &mut self.sockets);
    }

    /// When to poll next, microseconds.
    pub fn next_us(&mut self, now_us: u64) -> Option<u64> {
        self.iface.poll_delay(at(now_us), &self.sockets).map(|d| now_us + d.total_micros())
    }
}
