//! Both ends of a port in a test: the card's halves, and the wire.

use rustix::fd::{AsRawFd, OwnedFd};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::time::{Duration, Instant};
use toe_abi::{HostAddr, HostSpan, RegionId};
use toe_hal::{Frames, HostMemory, RxBurst, RxFrame, RxOffload, RxPort, TxFrame, TxOffload};
use toe_nic::memory::{Mapping, SoftMemory, SoftSlice};
use toe_nic::ports::{Port, PortError, SoftRx, SoftTx};

/// No wait in here is part of a verdict other than "it never came".
pub const PATIENCE: Duration = Duration::from_secs(10);

pub fn open(spec: &str) -> Port {
    Port::open(&spec.parse().unwrap(), None).unwrap_or_else(|e| panic!("{spec}: {e}"))
}

/// A TAP port, if this user may have one.
pub fn open_tap(spec: &str) -> Option<Port> {
    // As `veth`: else the kernel talks on every new interface.
    let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    match Port::open(&spec.parse().unwrap(), None) {
        // In a user namespace everyone is root, but the device node's mode still holds.
        Err(PortError::NoDevice { .. }) => {
            eprintln!("skipped: /dev/net/tun is not open to this user");
            None
        }
        other => Some(other.unwrap_or_else(|e| panic!("{spec}: {e}"))),
    }
}

/// A plain packet socket: the far end of the wire.
pub fn wire(interface: &str) -> OwnedFd {
    let fd = rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None).unwrap();
    let index = rustix::net::netdevice::name_to_index(&fd, interface).unwrap();
    // SAFETY: sockaddr_ll is plain integers; bind reads it.
    let bound = unsafe {
        let mut address: libc::sockaddr_ll = std::mem::zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = index as i32;
        libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as u32)
    };
    assert_eq!(bound, 0, "{}", std::io::Error::last_os_error());
    rustix::net::sockopt::set_socket_timeout(&fd, rustix::net::sockopt::Timeout::Recv, Some(PATIENCE)).unwrap();
    fd
}

pub fn send(wire: &OwnedFd, frame: &[u8]) {
    assert_eq!(rustix::net::send(wire, frame, rustix::net::SendFlags::empty()), Ok(frame.len()));
}

/// The next frame on the wire that `wanted` accepts.
pub fn next(wire: &OwnedFd, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut buffer = vec![0; 70_000];
    loop {
        let (n, _) = rustix::net::recv(wire, &mut buffer, rustix::net::RecvFlags::empty()).expect("a frame on the wire");
        if wanted(&buffer[..n]) {
            return buffer[..n].to_vec();
        }
    }
}

/// The next frame at the port that `wanted` accepts; others are released, and so is this one.
pub fn receive(port: &mut Port, wanted: impl Fn(&[u8], RxOffload) -> bool) -> (RxOffload, Vec<u8>) {
    let frames = port.rx.frames();
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let mut burst = RxBurst::new();
        port.rx.receive(&mut burst);
        let mut found = None;
        for RxFrame { lease, len, offload } in burst {
            let bytes = frames.frame(&lease).to_vec();
            assert_eq!(bytes.len(), len as usize);
            port.rx.release(lease);
            if found.is_none() && wanted(&bytes, offload) {
                found = Some((offload, bytes));
            }
        }
        if let Some(found) = found {
            return found;
        }
        readable(&*port.rx, 1);
    }
    panic!("the frame never came");
}

/// Whether the port's descriptor becomes readable within some seconds.
pub fn readable(rx: &dyn SoftRx, secs: i64) -> bool {
    let mut fds = [rustix::event::PollFd::from_borrowed_fd(rx.fd(), rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&rustix::event::Timespec { tv_sec: secs, tv_nsec: 0 })).unwrap() > 0
}

/// An Ethernet frame of experimental type with a number in it.
pub fn numbered(to: [u8; 6], from: [u8; 6], number: u32, len: usize) -> Vec<u8> {
    let mut frame = [&to[..], &from, &[0x88, 0xb5], &number.to_be_bytes()].concat();
    frame.resize(len, number as u8);
    frame
}

pub fn is_numbered(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[0x88, 0xb5])
}

/// Host memory with `bytes` in region 1.
pub fn host_memory(bytes: &[u8]) -> SoftMemory {
    use rustix::fs::{MemfdFlags, SealFlags};
    let len = (bytes.len() as u64).next_multiple_of(4096);
    let fd = rustix::fs::memfd_create("host", MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&fd, len).unwrap();
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK).unwrap();
    let mut memory = SoftMemory::new(2);
    memory.map(Mapping::new(&fd, 0, 4096, len).unwrap()).unwrap();
    memory.bind(RegionId(1), 4096, len).unwrap();
    let _ = memory.write(HostAddr::new(RegionId(1), 0), bytes, 0).unwrap();
    memory
}

pub fn slice(memory: &SoftMemory, offset: u64, len: u32) -> SoftSlice {
    memory.slice(HostSpan { addr: HostAddr::new(RegionId(1), offset), len }).unwrap()
}

pub fn transmit(tx: &mut dyn SoftTx, header: &[u8], payload: &[SoftSlice], offload: TxOffload) {
    let payload_len = payload.iter().map(|s| s.len()).sum();
    tx.transmit(&TxFrame { header, payload, payload_len, offload }).unwrap();
    assert_eq!(tx.flush(), 0, "frames lost");
}
