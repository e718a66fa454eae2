//! TCP segments of more than a wire's frame, both ways, and how fast they go.

use crate::common::{CARD_MAC, PEER_MAC, in_namespace, run, veth};
use crate::ends::{PATIENCE, host_memory, open, open_tap, receive, slice, transmit};
use std::io::Write;
use std::time::{Duration, Instant};
use toe_hal::{Frames, RxBurst, RxFrame, RxOffload, RxPort, TxFrame, TxOffload, TxPort};
use toe_nic::ports::Port;

/// A TCP segment; the checksum field holds the pseudo-header's sum.
pub struct Segment<'a> {
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub options: &'a [u8],
    pub payload_len: usize,
}

const CARD_IP: [u8; 4] = [10, 9, 0, 2];
const PEER_IP: [u8; 4] = [10, 9, 0, 1];
const CARD_PORT: u16 = 4000;

pub fn headers(s: &Segment<'_>, peer_port: u16) -> (Vec<u8>, TxOffload) {
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
pub fn fold(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(*c.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

pub fn is_tcp(frame: &[u8]) -> bool {
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
    transmit(&mut *port.tx, &syn, &[], offload);
    let (_, syn_ack) = receive(&mut port, |b, _| is_tcp(b) && b[47] & 0x12 == 0x12);
    segment = Segment { seq: 1001, ack: be32(&syn_ack, 38).wrapping_add(1), flags: 0x10, options: &[], payload_len: 0 };
    let (ack, offload) = headers(&segment, peer_port);
    transmit(&mut *port.tx, &ack, &[], offload);

    // The peer sends 14,000 bytes at once: less than its initial window, so one frame.
    let (offload, bytes) = receive(&mut port, |b, _| is_tcp(b) && b.len() > 1514);
    assert_eq!(offload, RxOffload { csum_ok: true, partial_csum: true, gso_size: 1460 });
    let payload = &bytes[34 + usize::from(bytes[46] >> 4) * 4..];
    assert_eq!(payload, &data[..payload.len()]);
    assert!(payload.len() > 1460);

    // 30,000 bytes in one frame out of host memory, in two slices, cut up by the kernel. The window allows it (64 KiB).
    let memory = host_memory(&data);
    segment = Segment { flags: 0x18, payload_len: 30_000, ..segment };
    let (header, offload) = headers(&segment, peer_port);
    let offload = TxOffload { gso_size: 1460, ..offload };
    transmit(&mut *port.tx, &header, &[slice(&memory, 100, 10_000), slice(&memory, 10_100, 20_000)], offload);
    assert_eq!(served.join().unwrap(), data[100..30_100]);
}

#[test]
fn super_frames_both_ways_over_af_packet() {
    in_namespace("super_frames::super_frames_both_ways_over_af_packet", || {
        veth();
        run("ip", "addr add 10.9.0.1/24 dev peer0");
        run("ip", "neigh add 10.9.0.2 lladdr 02:00:00:00:00:0c dev peer0 nud permanent");
        super_frames(open("af_packet:card0"));
    });
}

#[test]
fn super_frames_both_ways_over_tap() {
    in_namespace("super_frames::super_frames_both_ways_over_tap", || {
        let Some(port) = open_tap("tap:tap0,mac=02:00:00:00:00:0c") else { return };
        assert_eq!(port.tx.caps().mac, CARD_MAC);
        // The kernel's own end takes the peer's place.
        run("ip", "link set tap0 address 02:00:00:00:00:0e");
        run("ip", "addr add 10.9.0.1/24 dev tap0");
        run("ip", "neigh add 10.9.0.2 lladdr 02:00:00:00:00:0c dev tap0 nud permanent");
        super_frames(port);
    });
}

/// Not a verdict: prints what the port moves from one end of a veth to the other, both ends ours.
/// `cargo test --release -p toe-nic --test port -- --ignored --nocapture speed_of_af_packet`
#[test]
#[ignore = "a measurement"]
fn speed_of_af_packet() {
    for (len, gso_size) in [(64, 0), (1514, 0), (60_054, 1448)] {
        // Frames of the far end, made in the namespace of this thread's process.
        let name = "super_frames::speed_of_af_packet";
        in_namespace_for(name, len, || {
            veth();
            let (mut near, mut far) = (open("af_packet:card0"), open("af_packet:peer0"));
            let frames = far.rx.frames();
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
                    near.tx.transmit(&frame).unwrap();
                }
                sent += 32 - near.tx.flush() as u64;
                sending += start.elapsed();
                let start = Instant::now();
                let mut burst = RxBurst::new();
                while far.rx.receive(&mut burst) > 0 {
                    for RxFrame { lease, .. } in std::mem::take(&mut burst) {
                        std::hint::black_box(frames.frame(&lease)[0]);
                        far.rx.release(lease);
                        received += 1;
                    }
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
