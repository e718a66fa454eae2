//! The af_packet and tap ports against a real kernel.

mod common;

use common::{CARD_MAC, PEER_MAC, in_namespace, run, veth};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::io::Write;
use std::time::{Duration, Instant};
use toe_abi::{HostAddr, HostSpan, RegionId};
use toe_hal::{EthPort, HostMemory, Lease, RxBurst, RxFrame, RxOffload, TxFrame, TxOffload};
use toe_nic::memory::{Mapping, SoftMemory, SoftSlice};
use toe_nic::ports::{Port, PortError, SoftPort};

/// No wait in here is part of a verdict other than "it never came".
const PATIENCE: Duration = Duration::from_secs(10);

fn open(spec: &str) -> Port {
    Port::open(&spec.parse().unwrap(), None).unwrap_or_else(|e| panic!("{spec}: {e}"))
}

/// A plain packet socket: the far end of the wire.
fn wire(interface: &str) -> OwnedFd {
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

fn send(wire: &OwnedFd, frame: &[u8]) {
    assert_eq!(rustix::net::send(wire, frame, rustix::net::SendFlags::empty()), Ok(frame.len()));
}

/// The next frame on the wire that `wanted` accepts.
fn next(wire: &OwnedFd, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut buffer = vec![0; 70_000];
    loop {
        let (n, _) = rustix::net::recv(wire, &mut buffer, rustix::net::RecvFlags::empty()).expect("a frame on the wire");
        if wanted(&buffer[..n]) {
            return buffer[..n].to_vec();
        }
    }
}

/// The next frame at the port that `wanted` accepts; others are released.
fn receive(port: &mut Port, wanted: impl Fn(&[u8], &RxFrame) -> bool) -> (RxFrame, Vec<u8>) {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let mut burst = RxBurst::new();
        port.receive(&mut burst);
        let mut found = None;
        for frame in burst {
            let bytes = port.frame(frame.lease).to_vec();
            assert_eq!(bytes.len(), frame.len as usize);
            port.release(frame.lease);
            if found.is_none() && wanted(&bytes, &frame) {
                found = Some((frame, bytes));
            }
        }
        if let Some(found) = found {
            return found;
        }
        let mut fds = [rustix::event::PollFd::from_borrowed_fd(port.fd(), rustix::event::PollFlags::IN)];
        let _ = rustix::event::poll(&mut fds, Some(&rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 }));
    }
    panic!("the frame never came");
}

/// An Ethernet frame of experimental type with a number in it.
fn numbered(to: [u8; 6], from: [u8; 6], number: u32, len: usize) -> Vec<u8> {
    let mut frame = [&to[..], &from, &[0x88, 0xb5], &number.to_be_bytes()].concat();
    frame.resize(len, number as u8);
    frame
}

fn is_numbered(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[0x88, 0xb5])
}

/// Host memory with `bytes` in region 1.
fn host_memory(bytes: &[u8]) -> SoftMemory {
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

fn slice(memory: &SoftMemory, offset: u64, len: u32) -> SoftSlice {
    memory.slice(HostSpan { addr: HostAddr::new(RegionId(1), offset), len }).unwrap()
}

fn transmit(port: &mut Port, header: &[u8], payload: &[SoftSlice], offload: TxOffload) {
    let payload_len = payload.iter().map(|s| s.len()).sum();
    port.transmit(&TxFrame { header, payload, payload_len, offload }).unwrap();
    assert_eq!(port.flush(), 0, "frames lost");
}

#[test]
fn frames_pass_both_ways() {
    in_namespace("frames_pass_both_ways", || {
        veth();
        let (mut port, wire) = (open("af_packet:card0"), wire("peer0"));
        let caps = port.caps();
        assert_eq!((caps.mac, caps.mtu, caps.tx_csum), (CARD_MAC, 1500, true));
        let sent = numbered(CARD_MAC, PEER_MAC, 7, 1514);
        send(&wire, &sent);
        let (frame, bytes) = receive(&mut port, |b, _| is_numbered(b));
        assert_eq!(bytes, sent);
        assert_eq!(frame.offload, RxOffload::default());

        let memory = host_memory(b"..from host memory, two slices");
        let header = numbered(PEER_MAC, CARD_MAC, 8, 60);
        transmit(&mut port, &header, &[slice(&memory, 2, 16), slice(&memory, 20, 10)], TxOffload::default());
        let got = next(&wire, is_numbered);
        assert_eq!(got[..60], header);
        assert_eq!(&got[60..], b"from host memorytwo slices");
    });
}

#[test]
fn leases_come_back_in_any_order_and_the_ring_goes_round() {
    in_namespace("leases_come_back_in_any_order_and_the_ring_goes_round", || {
        veth();
        let (mut port, wire) = (open("af_packet:card0,rx_frames=16"), wire("peer0"));
        let mut expected = 0;
        for round in 0..40 {
            let count = 1 + round % 10;
            (0..count).for_each(|i| send(&wire, &numbered(CARD_MAC, PEER_MAC, expected + i, 100)));
            let mut held: Vec<(u32, Lease)> = Vec::new();
            let deadline = Instant::now() + PATIENCE;
            while held.len() < count as usize && Instant::now() < deadline {
                let mut burst = RxBurst::new();
                port.receive(&mut burst);
                for frame in burst {
                    match port.frame(frame.lease) {
                        b if is_numbered(b) => held.push((u32::from_be_bytes(b[14..18].try_into().unwrap()), frame.lease)),
                        _ => port.release(frame.lease),
                    }
                }
            }
            let numbers: Vec<_> = held.iter().map(|(n, _)| *n).collect();
            assert_eq!(numbers, (expected..expected + count).collect::<Vec<_>>());
            for (number, lease) in held.into_iter().rev() {
                assert_eq!(port.frame(lease)[14..18], number.to_be_bytes(), "unchanged while on loan");
                port.release(lease);
                assert_eq!(port.frame(lease), [] as [u8; 0], "gone after release");
            }
            expected += count;
        }
        assert_eq!(port.stats(), Default::default());
    });
}

#[test]
fn a_full_ring_loses_frames_and_says_so() {
    in_namespace("a_full_ring_loses_frames_and_says_so", || {
        veth();
        let (mut port, wire) = (open("af_packet:card0,rx_frames=16"), wire("peer0"));
        (0..200).for_each(|i| send(&wire, &numbered(CARD_MAC, PEER_MAC, i, 100)));
        let (_, first) = receive(&mut port, |b, _| is_numbered(b));
        assert_eq!(first[14..18], [0; 4]);
        let overrun = port.stats().rx_overrun;
        assert!((100..200).contains(&overrun), "{overrun}");
    });
}

#[test]
fn the_kernel_does_not_see_the_cards_frames() {
    in_namespace("the_kernel_does_not_see_the_cards_frames", || {
        veth();
        run("ip", "addr add 10.9.0.2/24 dev card0");
        let far = wire("peer0");
        let arp = [&[0xff; 6][..], &PEER_MAC, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &PEER_MAC, &[10, 9, 0, 1], &[0; 6], &[10, 9, 0, 2]].concat();
        let is_reply = |f: &[u8]| f.get(12..14) == Some(&[8, 6]) && f.get(20..22) == Some(&[0, 2]);
        let mut port = open("af_packet:card0");
        send(&far, &arp);
        receive(&mut port, |b, _| b == arp);
        // A second frame behind it: when the port has that one, the kernel is done with the first.
        send(&far, &numbered(CARD_MAC, PEER_MAC, 1, 60));
        receive(&mut port, |b, _| is_numbered(b));
        rustix::net::sockopt::set_socket_timeout(&far, rustix::net::sockopt::Timeout::Recv, Some(Duration::from_millis(100))).unwrap();
        let mut buffer = [0; 2048];
        while let Ok((n, _)) = rustix::net::recv(&far, &mut buffer[..], rustix::net::RecvFlags::empty()) {
            assert!(!is_reply(&buffer[..n]), "the kernel has answered");
        }
        drop(port);
        assert!(!run("tc", "qdisc show dev card0").contains("clsact"), "nothing is left");
        rustix::net::sockopt::set_socket_timeout(&far, rustix::net::sockopt::Timeout::Recv, Some(PATIENCE)).unwrap();
        send(&far, &arp);
        next(&far, is_reply);
    });
}

#[test]
fn what_others_attached_to_the_interface_stays() {
    in_namespace("what_others_attached_to_the_interface_stays", || {
        veth();
        run("tc", "qdisc add dev card0 clsact");
        drop(open("af_packet:card0"));
        assert!(run("tc", "qdisc show dev card0").contains("clsact"), "it was there before us");
        assert_eq!(run("tc", "filter show dev card0 ingress").trim(), "");
        drop(open("af_packet:card0,kernel_copy=keep"));
        assert!(run("tc", "qdisc show dev card0").contains("clsact"));
    });
}

#[test]
fn a_killed_cards_filter_is_taken_over() {
    in_namespace("a_killed_cards_filter_is_taken_over", || {
        veth();
        run("tc", "qdisc add dev card0 clsact");
        let added = std::process::Command::new("tc")
            .args("filter add dev card0 ingress pref 63239 handle 1 protocol all bpf da bytecode".split(' '))
            .arg("1,6 0 0 2")
            .status();
        assert!(added.unwrap().success());
        let port = open("af_packet:card0");
        assert_eq!(run("tc", "filter show dev card0 ingress").matches("direct-action").count(), 1);
        drop(port);
        assert!(!run("tc", "qdisc show dev card0").contains("clsact"), "its leavings go");
    });
}

#[test]
fn an_interface_that_is_down_is_brought_up() {
    in_namespace("an_interface_that_is_down_is_brought_up", || {
        veth();
        run("ip", "link set card0 down");
        let mut port = open("af_packet:card0");
        let wire = wire("peer0");
        send(&wire, &numbered(CARD_MAC, PEER_MAC, 1, 60));
        receive(&mut port, |b, _| is_numbered(b));
        run("ip", "link set card0 down");
        port.check().expect("down is not gone");
        run("ip", "link del card0");
        assert!(matches!(port.check(), Err(PortError::Gone(_))));
    });
}

#[test]
fn unusable_interfaces_are_refused() {
    in_namespace("unusable_interfaces_are_refused", || {
        veth();
        let open = |spec: &str| Port::open(&spec.parse().unwrap(), None).map(drop).unwrap_err();
        assert!(matches!(open("af_packet:nosuch0"), PortError::NoInterface(_)));
        assert!(matches!(open("af_packet:lo"), PortError::NotEthernet(_)));
        assert!(open("af_packet:nosuch0").is_usage());
        let _first = self::open("af_packet:card0");
        assert!(matches!(open("af_packet:card0"), PortError::InUse(_)));
    });
}

/// A TCP segment; the checksum field holds the pseudo-header's sum.
struct Segment<'a> {
    seq: u32,
    ack: u32,
    flags: u8,
    options: &'a [u8],
    payload_len: usize,
}

const CARD_IP: [u8; 4] = [10, 9, 0, 2];
const PEER_IP: [u8; 4] = [10, 9, 0, 1];
const CARD_PORT: u16 = 4000;

fn headers(s: &Segment<'_>, peer_port: u16) -> (Vec<u8>, TxOffload) {
    let tcp_len = 20 + s.options.len() + s.payload_len;
    let ip_len = (20 + tcp_len) as u16;
    let mut ip = [&[0x45, 0][..], &ip_len.to_be_bytes(), &[0, 0, 0x40, 0, 64, 6, 0, 0], &CARD_IP, &PEER_IP].concat();
    let sum = !fold(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut pseudo = [&CARD_IP[..], &PEER_IP, &[0, 6]].concat();
    pseudo.extend((tcp_len as u16).to_be_bytes());
    let offset = ((20 + s.options.len()) << 2) as u8;
    let tcp = [
        &CARD_PORT.to_be_bytes()[..],
        &peer_port.to_be_bytes(),
        &s.seq.to_be_bytes(),
        &s.ack.to_be_bytes(),
        &[offset, s.flags, 0xff, 0xff],
        &fold(&pseudo).to_be_bytes(),
        &[0, 0],
        s.options,
    ]
    .concat();
    let header = [&PEER_MAC[..], &CARD_MAC, &[8, 0], &ip, &tcp].concat();
    let hdr_len = header.len() as u16;
    (header, TxOffload { partial_csum: true, csum_start: 34, csum_offset: 16, gso_size: 0, hdr_len })
}

/// One's complement sum (RFC 1071).
fn fold(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(*c.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn is_tcp(frame: &[u8]) -> bool {
    frame.len() >= 54 && frame[12..14] == [8, 0] && frame[23] == 6
}

fn be32(frame: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(frame[at..at + 4].try_into().unwrap())
}

/// A hand-made connection to a listener of the kernel, then super-frames both ways.
fn super_frames(mut port: Port) {
    let listener = std::net::TcpListener::bind("10.9.0.1:0").unwrap();
    let peer_port = listener.local_addr().unwrap().port();
    let data: Vec<u8> = (0..200_000u32).map(|i| (i * 7 % 251) as u8).collect();
    let served = std::thread::spawn({
        let data = data.clone();
        move || {
            use std::io::Read;
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(&data[..14_000]).unwrap();
            let mut got = vec![0; 30_000];
            stream.read_exact(&mut got).unwrap();
            got
        }
    });
    let mut segment = Segment { seq: 1000, ack: 0, flags: 0x02, options: &[2, 4, 5, 0xb4, 1, 3, 3, 7], payload_len: 0 };
    let (syn, offload) = headers(&segment, peer_port);
    transmit(&mut port, &syn, &[], offload);
    let (_, syn_ack) = receive(&mut port, |b, _| is_tcp(b) && b[47] & 0x12 == 0x12);
    segment = Segment { seq: 1001, ack: be32(&syn_ack, 38).wrapping_add(1), flags: 0x10, options: &[], payload_len: 0 };
    let (ack, offload) = headers(&segment, peer_port);
    transmit(&mut port, &ack, &[], offload);

    // The peer sends 14,000 bytes at once: less than its initial window, so one frame.
    let (frame, bytes) = receive(&mut port, |b, f| is_tcp(b) && f.len > 1514);
    assert_eq!(frame.offload, RxOffload { csum_ok: true, partial_csum: true, gso_size: 1460 });
    let payload = &bytes[34 + usize::from(bytes[46] >> 4) * 4..];
    assert_eq!(payload, &data[..payload.len()]);
    assert!(payload.len() > 1460);

    // 30,000 bytes in one frame out of host memory, in two slices, cut up by the kernel. The window allows it (64 KiB).
    let memory = host_memory(&data);
    segment = Segment { flags: 0x18, payload_len: 30_000, ..segment };
    let (header, offload) = headers(&segment, peer_port);
    let offload = TxOffload { gso_size: 1460, ..offload };
    transmit(&mut port, &header, &[slice(&memory, 100, 10_000), slice(&memory, 10_100, 20_000)], offload);
    assert_eq!(served.join().unwrap(), data[100..30_100]);
}

#[test]
fn super_frames_both_ways_over_af_packet() {
    in_namespace("super_frames_both_ways_over_af_packet", || {
        veth();
        run("ip", "addr add 10.9.0.1/24 dev peer0");
        run("ip", "neigh add 10.9.0.2 lladdr 02:00:00:00:00:0c dev peer0 nud permanent");
        super_frames(open("af_packet:card0"));
    });
}

#[test]
fn super_frames_both_ways_over_tap() {
    in_namespace("super_frames_both_ways_over_tap", || {
        let opened = Port::open(&"tap:tap0,mac=02:00:00:00:00:0c".parse().unwrap(), None);
        let port = match opened {
            // In a user namespace everyone is root, but the device node's mode still holds.
            Err(PortError::NoDevice { .. }) => return eprintln!("skipped: /dev/net/tun is not open to this user"),
            other => other.unwrap_or_else(|e| panic!("{e}")),
        };
        assert_eq!(port.caps().mac, CARD_MAC);
        // The kernel's own end takes the peer's place.
        run("ip", "link set tap0 address 02:00:00:00:00:0e");
        run("ip", "addr add 10.9.0.1/24 dev tap0");
        run("ip", "neigh add 10.9.0.2 lladdr 02:00:00:00:00:0c dev tap0 nud permanent");
        super_frames(port);
    });
}

#[test]
fn a_port_is_waited_on_by_its_descriptor() {
    in_namespace("a_port_is_waited_on_by_its_descriptor", || {
        veth();
        let (mut port, wire) = (open("af_packet:card0"), wire("peer0"));
        let readable = |port: &Port, secs| {
            let mut fds = [rustix::event::PollFd::from_borrowed_fd(port.fd(), rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut fds, Some(&rustix::event::Timespec { tv_sec: secs, tv_nsec: 0 })).unwrap() > 0
        };
        send(&wire, &numbered(CARD_MAC, PEER_MAC, 1, 60));
        assert!(readable(&port, 10));
        receive(&mut port, |b, _| is_numbered(b));
        assert!(!readable(&port, 0), "all frames taken and released");
    });
}

/// Not a verdict: prints what the port moves from one end of a veth to the other, both ends ours.
/// `cargo test --release -p toe-nic --test port -- --ignored --nocapture speed_of_af_packet`
#[test]
#[ignore = "a measurement"]
fn speed_of_af_packet() {
    for (len, gso_size) in [(64, 0), (1514, 0), (60_054, 1448)] {
        // Frames of the far end, made in the namespace of this thread's process.
        let name = "speed_of_af_packet";
        in_namespace_for(name, len, || {
            veth();
            let (mut near, mut far) = (open("af_packet:card0"), open("af_packet:peer0"));
            let data = vec![1; 65_536];
            let memory = host_memory(&data);
            let segment = Segment {
                seq: 1,
                ack: 1,
                flags: 0x10,
                options: &[1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0],
                payload_len: (len as usize).max(66) - 66,
            };
            let (header, offload) = headers(&segment, 9);
            let offload = TxOffload { gso_size, ..offload };
            let payload = [slice(&memory, 0, segment.payload_len as u32)];
            let (mut sent, mut received, mut sending, mut receiving) = (0u64, 0u64, Duration::ZERO, Duration::ZERO);
            let end = Instant::now() + Duration::from_secs(2);
            while Instant::now() < end {
                let start = Instant::now();
                for _ in 0..32 {
                    let frame = TxFrame { header: &header, payload: &payload, payload_len: segment.payload_len as u32, offload };
                    near.transmit(&frame).unwrap();
                }
                sent += 32 - near.flush() as u64;
                sending += start.elapsed();
                let start = Instant::now();
                let mut burst = RxBurst::new();
                while far.receive(&mut burst) > 0 {
                    for frame in burst.iter() {
                        std::hint::black_box(far.frame(frame.lease)[0]);
                        far.release(frame.lease);
                    }
                    received += burst.len() as u64;
                    burst.clear();
                }
                receiving += start.elapsed();
            }
            let gbit = |n: u64, t: Duration| n as f64 * f64::from(len) * 8.0 / t.as_secs_f64() / 1e9;
            let mpps = |n: u64, t: Duration| n as f64 / t.as_secs_f64() / 1e6;
            println!(
                "{len:6} B: send {:.3} Mpps {:.1} Gbit/s, receive {:.2} Mpps (from the ring), lost {}",
                mpps(sent, sending),
                gbit(sent, sending),
                mpps(received, receiving),
                sent - received
            );
        });
    }
}

/// As [`in_namespace`], for one of several sizes.
fn in_namespace_for(name: &str, len: u32, body: impl FnOnce()) {
    const SIZE: &str = "TOE_TEST_SIZE";
    match std::env::var(SIZE) {
        Ok(size) if size != len.to_string() => {}
        Ok(_) => in_namespace(name, body),
        Err(_) => {
            let status = std::process::Command::new(std::env::current_exe().unwrap())
                .args([name, "--exact", "--ignored", "--nocapture"])
                .env(SIZE, len.to_string())
                .status();
            assert!(status.unwrap().success());
        }
    }
}
