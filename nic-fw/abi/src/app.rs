//! Messages between libraries and toed, on a SOCK_SEQPACKET UNIX socket (`$TOE_RUN_DIR/toed.sock`).
//!
//! One connection per process. The library sends a [`Request`], toed answers with one [`Reply`] in order; file
//! descriptors travel as SCM_RIGHTS. Nothing here waits for the network: `CONNECT` answers at
//! once and the outcome appears in the socket slot, announced by a *notice* in the context page.
//! When the connection ends without [`op::BYE`], the process has died.

use crate::assert_layout;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a message, either way.
pub const MSG_LEN: usize = 128;
/// "FTOEAPPS".
pub const APP_MAGIC: u64 = u64::from_le_bytes(*b"FTOEAPPS");
/// Most tokens in one answer to POOL.
pub const POOL_MAX: usize = 32;

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Request {
    /// [`op`].
    pub op: u32,
    /// Socket slot.
    pub slot: u32,
    pub args: [u64; 4],
    /// Address, 16 bytes in network order, IPv4-mapped.
    pub ip: [u8; 16],
    /// Host order.
    pub port: u16,
    /// Bits of [`bind_flags`].
    pub flags: u16,
    pub _reserved: u32,
    pub _reserved2: [u64; 8],
}
assert_layout!(Request, MSG_LEN, slot @ 4, args @ 8, ip @ 40, port @ 56, flags @ 58);

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Reply {
    /// 0 or a Linux errno.
    pub errno: u32,
    /// Entries of `slots` in use (POOL).
    pub count: u32,
    pub args: [u64; 4],
    pub ip: [u8; 16],
    pub port: u16,
    pub _reserved: u16,
    /// Number of the kernel's interface on whose link the card is (HELLO); 0: none.
    pub scope: u32,
    /// Slots of the tokens that came along, in the order of the descriptors (POOL): first slot
    /// each, as 16-bit numbers.
    pub slots: [u16; POOL_MAX],
}
assert_layout!(Reply, MSG_LEN, count @ 4, args @ 8, ip @ 40, scope @ 60, slots @ 64);

/// A connection as its card sees it now (TCP_INFO).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Info {
    pub srtt_us: u32,
    pub rttvar_us: u32,
    /// Bytes.
    pub cwnd: u32,
    /// Bytes.
    pub ssthresh: u32,
    /// Bytes sent and not acknowledged yet.
    pub unacked: u32,
    /// Bytes: the peer's window.
    pub snd_wnd: u32,
    /// Segments sent again since the connection began.
    pub retransmits: u32,
    /// Bits of [`flow_flags`](crate::flow::flow_flags).
    pub flags: u32,
    /// Least retransmission timeout, milliseconds.
    pub rto_min_ms: u32,
    /// Milliseconds since data was sent, and since anything acceptable was received.
    pub since_tx_ms: u32,
    pub since_rx_ms: u32,
    /// Shifts of the peer's windows (lower four bits) and ours.
    pub wscales: u8,
    /// [`cc`](crate::flow::cc).
    pub algorithm: u8,
    /// Payload bytes per segment; 0: there is no connection.
    pub mss: u16,
    /// Timeouts in a row.
    pub backoff: u8,
    pub probes: u8,
    pub _reserved: [u16; 7],
}
assert_layout!(Info, 2 * POOL_MAX, wscales @ 44, mss @ 46);

impl Reply {
    /// The answer to [`op::INFO`].
    pub fn info(&self) -> Info {
        Info::read_from_bytes(self.slots.as_bytes()).unwrap_or_default()
    }

    pub fn set_info(&mut self, info: &Info) {
        self.slots.as_mut_bytes().copy_from_slice(info.as_bytes());
    }
}

/// Operations. `a0`.. are `args[0]`..
pub mod op {
    /// First message. a0: APP_MAGIC, a1: ABI_VERSION, a2: pid, a3: ticket that `toectl run` has left in the environment (0: none).
    /// A descriptor may come along that proves membership in a family: its region or a token's (after fork or exec); with a region's, slot
    /// is where in the descriptor's memory the region begins, in pages of 4096 bytes.
    /// Answer: a0: ABI_VERSION of toed, a1: region number, a2: prefix length of the card's address, ip: the card's address, the first
    /// if it has several (zeroes: none yet);
    /// a3: where in the descriptor's memory the region begins, bytes, page-aligned (its length is in its header);
    /// scope: link-local addresses of this scope are on the card's link;
    /// descriptor: the memory. errno EPROTO: version mismatch, ESTALE: toed does not know (any more) what came along.
    pub const HELLO: u32 = 1;
    /// Open a context for this process. Answer: a0: its index in the region; descriptors: kick (an
    /// eventfd to write 1 to), irq (an epoll instance that becomes readable; consume by epoll_wait).
    pub const OPEN_CONTEXT: u32 = 2;
    /// a0: tokens wanted. Answer: count, slots; as many descriptors. ENFILE: out of slots.
    pub const POOL: u32 = 3;
    /// slot, ip (zeroes: any, ::ffff:0.0.0.0: any of IPv4), port (0: choose), flags. Answer: port, ip.
    pub const BIND: u32 = 4;
    /// slot, a0: backlog, a1: context index that wants notices. The slot's state becomes LISTENING. Answer: port, ip.
    pub const LISTEN: u32 = 5;
    /// slot, ip, port, a0: context index. Answer: EINPROGRESS, or an error found at once. ip and port in the answer: local end.
    pub const CONNECT: u32 = 6;
    /// slot (a listener's), a0: context index: send notices there as well.
    pub const SUBSCRIBE: u32 = 7;
    /// slot: stop opening connections (shutdown). Of a listener, or of a socket whose connect() is under way, which is OPEN then, with ECONNRESET
    /// for its error. EISCONN: it has been connected meanwhile. EINVAL: it does neither.
    pub const UNLISTEN: u32 = 8;
    /// a0: context index. The process is done with it.
    pub const CLOSE_CONTEXT: u32 = 9;
    /// The process exits in order. No answer.
    pub const BYE: u32 = 10;
    /// A token's descriptor comes along (after exec). Answer: a0: its slot.
    pub const IDENTIFY: u32 = 11;
    /// slot, a0: most that its connection sends, bytes per second; all ones, or 0: unlimited. Of a listener: what connections begin
    /// with that come from now on. ENOPROTOOPT: the card cannot.
    pub const RATE: u32 = 12;
    /// slot, a0: congestion control of its connection, [`cc`](crate::flow::cc). Of a listener: of connections that come from now on.
    /// EINVAL: no such number. ENOPROTOOPT: the card cannot.
    pub const CONGESTION: u32 = 13;
    /// slot. Answer: [`Info`](super::Info) in place of `slots`; where there is no connection, only `algorithm` means something.
    pub const INFO: u32 = 14;
    /// ip: whose address is it? Answer: a0: [`whose`](super::whose).
    pub const WHOSE: u32 = 15;
}

/// Values of `a0` in answers to [`op::WHOSE`].
pub mod whose {
    /// Neither.
    pub const OTHERS: u64 = 0;
    /// An address of the card's own.
    pub const OWN: u64 = 1;
    /// Reached from the card without a router.
    pub const ON_LINK: u64 = 2;
}

/// Bits of [`Request::flags`].
pub mod bind_flags {
    pub const REUSEADDR: u16 = 1 << 0;
    pub const REUSEPORT: u16 = 1 << 1;
    /// The address is for IPv6 only: :: does not stand for IPv4 too.
    pub const V6ONLY: u16 = 1 << 2;
    /// Port 0 stays open until the socket connects or listens (IP_BIND_ADDRESS_NO_PORT).
    pub const NO_PORT: u16 = 1 << 3;
}
