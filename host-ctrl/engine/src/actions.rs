//! What goes in and comes out: ids, frames with their metadata, actions.

use crate::Errno;
use toe_abi::{
    FlowId,
    flow::{FlowKey, FlowState},
    frames::{self, FrameRecord},
};

/// Whose binding, listener or connection it is: an application, numbered by the daemon.
pub type Owner = u64;

/// A local address and port, bound. Numbers are not used twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub struct BindId(pub(crate) u64);

/// A listener. Numbers are not used twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub struct ListenerId(pub(crate) u64);

/// A connection, from the first SYN until its flow has closed. Carries a generation: a stale id is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub struct ConnId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// An address (16 bytes, IPv4-mapped; zeroes: any, ::ffff:0.0.0.0: any of IPv4) and a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Endpoint {
    pub ip: [u8; 16],
    pub port: u16,
}

impl Endpoint {
    /// Any address of both versions, the port to be chosen.
    pub const ANY: Endpoint = Endpoint { ip: [0; 16], port: 0 };

    pub const fn v4(ip: [u8; 4], port: u16) -> Self {
        Self { ip: toe_abi::flow::v4_mapped(ip), port }
    }
}

/// With whom a binding shares its port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sharing {
    /// `toe_abi::app::bind_flags`.
    pub flags: u16,
    /// Whose socket it is: SO_REUSEPORT is for sockets of one user.
    pub uid: u32,
}

impl From<u16> for Sharing {
    fn from(flags: u16) -> Self {
        Self { flags, uid: 0 }
    }
}

/// log2 of a connection's buffer sizes in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BufferLog2 {
    pub tx: u8,
    pub rx: u8,
}

/// What a socket wants of its connection, or of those that come to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wishes {
    pub buffers: BufferLog2,
    /// `toe_abi::flow::cc`; None: the route's, or everybody's.
    pub cc: Option<u8>,
    pub open: OpenOptions,
}

impl Wishes {
    pub const fn new(buffers: BufferLog2) -> Self {
        let open = OpenOptions { tos: 0, ttl: 0, max_segment: 0, syn_retries: 0, user_timeout_us: 0, defer_accept_us: 0, window_clamp: 0 };
        Self { buffers, cc: None, open }
    }
}

impl From<BufferLog2> for Wishes {
    fn from(buffers: BufferLog2) -> Self {
        Self::new(buffers)
    }
}

/// Socket options that a connection begins with. 0: as for everybody.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OpenOptions {
    /// IP_TOS; its ECN bits are ours. RFC 9293 MUST-48.
    pub tos: u8,
    /// IP_TTL.
    pub ttl: u8,
    /// TCP_MAXSEG: most payload of a segment, either way, bytes.
    pub max_segment: u16,
    /// TCP_SYNCNT: retransmissions of a SYN.
    pub syn_retries: u8,
    /// TCP_USER_TIMEOUT: an active open takes no longer.
    pub user_timeout_us: u64,
    /// TCP_DEFER_ACCEPT: a connection without data is not announced for so long.
    pub defer_accept_us: u64,
    /// TCP_WINDOW_CLAMP: most of the receive buffer that is offered, bytes.
    pub window_clamp: u32,
}

/// How long a connection that nobody holds waits for its peer's FIN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FinWait2 {
    /// As configured.
    AsEverybody,
    /// TCP_LINGER2, microseconds, from when its own FIN was acknowledged.
    Limit(u64),
}

impl OpenOptions {
    pub(crate) fn ttl_or(&self, configured: u8) -> u8 {
        if self.ttl == 0 { configured } else { self.ttl }
    }

    pub(crate) fn limit(&self, mss: u16) -> u16 {
        if self.max_segment == 0 { mss } else { mss.min(self.max_segment) }
    }
}

/// What came along with a frame, see [`FrameRecord`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FrameMeta {
    /// Checksums were verified (or the frame never was on a wire).
    pub csum_ok: bool,
    /// The TCP checksum field holds the pseudo-header's sum only.
    pub needs_csum: bool,
    /// Of an exception: `toe_abi::counters::Exception`. Not trusted, the frame is looked at again.
    pub reason: u32,
    pub csum_start: u16,
    pub csum_offset: u16,
    /// Payload bytes per segment of a super-frame; 0: not one.
    pub gso_size: u16,
}

impl From<&FrameRecord> for FrameMeta {
    fn from(r: &FrameRecord) -> Self {
        Self {
            csum_ok: r.flags & frames::flags::CSUM_OK != 0,
            needs_csum: r.flags & frames::flags::NEEDS_CSUM != 0,
            reason: r.reason,
            csum_start: r.csum_start,
            csum_offset: r.csum_offset,
            gso_size: r.gso_size,
        }
    }
}

impl FrameMeta {
    /// The record that brings a frame of `len` bytes to the card.
    pub fn record(&self, kind: u32, len: u32) -> FrameRecord {
        let mut flags = 0;
        if self.csum_ok {
            flags |= frames::flags::CSUM_OK;
        }
        if self.needs_csum {
            flags |= frames::flags::NEEDS_CSUM;
        }
        FrameRecord {
            kind,
            len,
            flags,
            reason: self.reason,
            csum_start: self.csum_start,
            csum_offset: self.csum_offset,
            gso_size: self.gso_size,
            ..FrameRecord::default()
        }
    }
}

/// Why a flow could not be installed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InstallError {
    /// No buffers in the application's region, or it is over a limit.
    NoMemory,
    /// The card's flow table is full.
    CardFull,
    /// The card has this tuple already.
    Exists,
    /// The card refused for another reason, or is gone.
    Refused,
    /// The application has gone.
    OwnerGone,
}

/// What the daemon is to do, in this order.
#[derive(Debug)]
pub enum Action {
    /// Put a complete frame on the wire (checksums are filled in).
    Transmit { frame: Vec<u8> },
    /// Take buffers, send INSTALL, then call [`Engine::installed`](crate::Engine::installed). Region, context, opaque word and buffer offsets of
    /// `state` are the daemon's to fill in. `listener`: of a passive open.
    Install { conn: ConnId, owner: Owner, listener: Option<ListenerId>, state: Box<FlowState> },
    /// Have the card process a frame as if it came from the wire now.
    Inject { frame: Vec<u8>, meta: FrameMeta },
    /// An address of the card's own, or no longer one: it answers for it (control message ADDRESS). `prefix`: as usually written.
    Address { ip: [u8; 16], prefix: u8, add: bool },
    /// Another station, with this MAC, uses an address that is ours or was to be. Operators want to know; at most each 10 s of one address.
    Conflict { ip: [u8; 16], mac: [u8; 6] },
    /// Write an entry of the card's next-hop table. None: unknown.
    NextHop { index: u16, mac: Option<[u8; 6]> },
    /// A passive open has succeeded: it waits to be accepted.
    Accept { listener: ListenerId, conn: ConnId, flow: FlowId, key: FlowKey },
    /// An active open has succeeded.
    Connected { conn: ConnId, flow: FlowId, key: FlowKey },
    /// An active open has failed; `conn` is no more.
    ConnectFailed { conn: ConnId, errno: Errno },
    /// Reset the flow (control message ABORT).
    AbortFlow { flow: FlowId },
    /// Ask for the flow's state (control message QUERY), then call [`Engine::flow_state`](crate::Engine::flow_state). Rarely.
    QueryFlow { flow: FlowId },
    /// Tell the flow of an ICMP error (control message ICMP_ERROR). `kind`: type << 8 | code of ICMP; what ICMPv6 says
    /// is told in the same words.
    IcmpError { flow: FlowId, kind: u16, mtu: u16, seq: u32 },
}
