//! What a script says. Times are microseconds; sequence numbers are relative to the connection's first, in both directions.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use toe_engine::SynCookies;

/// One script.
#[derive(Clone, PartialEq, Debug)]
pub struct Script {
    pub config: Config,
    /// `--include=`: a script beside this one whose events come first.
    pub include: Option<String>,
    /// `#! expect-fail: reason`: what the stack does not do yet.
    pub expect_fail: Option<String>,
    pub events: Vec<Event>,
}

/// `--name=value` lines: how the host is set up.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// `None`: the script holds in both versions.
    pub ip_version: Option<IpVersion>,
    /// With IPv4; with IPv6 as much more as its header is longer.
    pub mtu: u16,
    pub cc: u8,
    pub sack: bool,
    pub timestamps: bool,
    pub window_scaling: bool,
    pub ecn: bool,
    /// log2 of bytes.
    pub sndbuf_log2: u8,
    pub rcvbuf_log2: u8,
    /// Largest super-frame that the port takes; 0: it takes segments only.
    pub tso: u32,
    pub syn_backlog: usize,
    pub syn_cookies: SynCookies,
    pub syn_retries: u8,
    pub time_wait: Duration,
    pub fin_wait2: Duration,
    /// How long a neighbour is believed before it is asked again.
    pub arp_expire: Duration,
    /// What the peer's sequence number 0 is on the wire.
    pub peer_isn: u32,
    /// What the card's clock shows when the script begins.
    pub start: Duration,
    /// How far off a packet may be.
    pub tolerance: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ip_version: None,
            mtu: 1500,
            cc: toe_abi::flow::cc::CUBIC,
            sack: true,
            timestamps: true,
            window_scaling: true,
            ecn: false,
            sndbuf_log2: 16,
            rcvbuf_log2: 15,
            tso: 0,
            syn_backlog: 64,
            syn_cookies: SynCookies::OnOverflow,
            syn_retries: 6,
            time_wait: Duration::from_secs(60),
            fin_wait2: Duration::from_secs(60),
            arp_expire: Duration::from_secs(30),
            peer_isn: 0xffff_fff0,
            start: Duration::from_secs(1),
            tolerance: Duration::from_millis(4),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IpVersion {
    V4,
    V6,
}

/// One step of a script.
#[derive(Clone, PartialEq, Debug)]
pub struct Event {
    /// `file:line`.
    pub place: String,
    /// As it stands in the script.
    pub text: String,
    pub when: When,
    pub action: Action,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// `0.1`: since the script's begin.
    At(u64),
    /// `+0.1`: after the event before.
    After(u64),
    /// `+0.1~+0.2` and `0.1~0.2`; `relative`: to the event before.
    Between { relative: bool, from: u64, to: u64 },
    /// `*`.
    Any,
}

#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// `<`: a packet for the stack.
    Inject(Packet),
    /// `>`: the stack must send this.
    Expect(Packet),
    Call(Call),
    /// `?`
    Check(Check),
    /// `silence`: nothing has been sent that was not expected.
    Silence,
}

/// Which of the script's connections; written `@2`, the first one not at all.
pub type Conn = u8;

#[derive(Clone, PartialEq, Debug)]
pub struct Packet {
    pub conn: Conn,
    pub marks: Marks,
    pub body: Body,
}

/// Of every packet that nobody has asked to live longer or shorter.
pub const TTL: u8 = 64;

/// What a packet of the stack's has in its IP header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IpFields {
    pub ecn: u8,
    /// Without ECN.
    pub tos: u8,
    pub ttl: u8,
}

/// In brackets before a packet: what is special about its IP header, or broken.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Marks {
    /// 0: not-ECT, 1: ECT(1), 2: ECT(0), 3: CE.
    pub ecn: u8,
    /// Type of service without ECN; `None`: 0. Of the stack's packets only.
    pub tos: Option<u8>,
    /// TTL; `None`: [`TTL`]. Of the stack's packets only.
    pub ttl: Option<u8>,
    pub bad_checksum: bool,
    /// IPv4 only.
    pub bad_ip_checksum: bool,
    /// Addresses instead of the peer's and ours, in scripts of their version of IP.
    pub src: Option<IpAddr>,
    pub dst: Option<IpAddr>,
    /// IPv4 only: options of the IP header, whole words.
    pub ip_options: Vec<u8>,
    /// Data offset field instead of the right one.
    pub data_offset: Option<u8>,
    /// Reserved bits of the TCP header.
    pub reserved: u8,
    /// Only this many bytes of the IP packet are there.
    pub cut: Option<u16>,
    /// It comes in fragments of so many bytes of IP payload, the last first.
    pub fragments: Option<u16>,
}

#[derive(Clone, PartialEq, Debug)]
pub enum Body {
    Tcp(Segment),
    Icmp(IcmpError),
}

#[derive(Clone, PartialEq, Debug)]
pub struct Segment {
    pub flags: Flags,
    pub seq: u32,
    /// Bytes of payload.
    pub len: u32,
    pub ack: Option<u32>,
    /// As in the header: not scaled. `None`: any that keeps the rules.
    pub window: Option<u16>,
    pub urgent: Option<u16>,
    /// `None`: any (`<...>`).
    pub options: Option<Vec<Opt>>,
}

/// Bits as in the TCP header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// Letters in the order in which they are written.
    pub const LETTERS: [(char, u8); 8] = [('F', FIN), ('S', SYN), ('R', RST), ('P', PSH), ('U', URG), ('E', ECE), ('W', CWR), ('.', ACK)];

    pub const fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }
}

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;
pub const URG: u8 = 32;
pub const ECE: u8 = 64;
pub const CWR: u8 = 128;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Opt {
    Nop,
    Eol,
    Mss(u16),
    WindowScale(u8),
    SackPermitted,
    Sack(Vec<(u32, u32)>),
    /// `None`: any (`*`).
    Timestamps {
        val: Option<u32>,
        ecr: Option<u32>,
    },
    /// `raw 0xfd04ffff`: bytes as they are.
    Raw(Vec<u8>),
}

/// An ICMP error that quotes a segment of the stack's, in the words of IPv4.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IcmpError {
    pub kind: u8,
    pub code: u8,
    pub mtu: u16,
    pub seq: u32,
    pub len: u32,
}

/// `name(args) = result`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    pub op: Op,
    /// For calls that may wait: until when, as `When` counts.
    pub until: Option<u64>,
    pub result: Result<u32, Errno>,
}

/// A Linux errno by name and number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Errno {
    pub name: &'static str,
    pub code: i32,
}

pub type Fd = u32;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    Socket {
        nonblock: bool,
    },
    NonBlock {
        fd: Fd,
        on: bool,
    },
    Bind {
        fd: Fd,
    },
    Listen {
        fd: Fd,
        backlog: u32,
    },
    Accept {
        fd: Fd,
    },
    Connect {
        fd: Fd,
        conn: Conn,
        /// Somewhere else than the peer.
        to: Option<SocketAddr>,
    },
    Read {
        fd: Fd,
        len: u32,
        peek: bool,
        dontwait: bool,
        oob: bool,
    },
    Write {
        fd: Fd,
        len: u32,
        more: bool,
        dontwait: bool,
        oob: bool,
    },
    /// sockatmark(3).
    AtMark {
        fd: Fd,
    },
    /// SHUT_WR.
    Shutdown {
        fd: Fd,
    },
    Close {
        fd: Fd,
    },
    Set {
        fd: Fd,
        option: SocketOption,
        value: i32,
    },
    /// getsockopt(SO_ERROR): what it must say.
    Error {
        fd: Fd,
        value: Option<Errno>,
    },
    /// poll(2) of one socket without waiting: bits of `toe::socket::ready`.
    Poll {
        fd: Fd,
        asked: u32,
        ready: u32,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SocketOption {
    ReuseAddr,
    NoDelay,
    Cork,
    KeepAlive,
    OobInline,
    /// Value: seconds; only 0 has an effect here.
    Linger,
    Number(toe::SocketOption),
}

/// `name op value`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    pub conn: Conn,
    pub name: String,
    pub op: Compare,
    pub value: Value,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compare {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    Number(u64),
    Word(String),
}
