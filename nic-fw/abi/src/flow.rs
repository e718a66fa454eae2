//! One connection: 256 bytes, four cache lines. The same struct is what INSTALL brings, what FREEZE, QUERY and
//! RELEASE return, and what stays resident; while segments are missing the card keeps more of it in pools.
//!
//! ```text
//!   line 0  Identity    fixed at INSTALL (or by a control message when quiet); read by every stage
//!                       + what is known of the path                        protocol only
//!   line 1  Buffers     geometry and negotiated options: fixed; read by post and DMA
//!                       + receive side                                     protocol only
//!   line 2  Send side, timers                                              protocol only
//!   line 3  Congestion control, out-of-order intervals                     protocol only
//! ```
//!
//! Sequence numbers are the wire's. Position p (see [`crate::desc`]) and sequence number:
//! `tx: seq = iss + 1 + p`, `rx: seq = irs + 1 + p`.

use crate::{CtxId, RegionId, assert_layout};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a [`FlowState`].
pub const FLOW_STATE_LEN: usize = 256;

#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FlowState {
    pub id: Identity,
    pub rx: RxState,
    pub tx: TxState,
    pub cc: CcState,
}

impl FlowState {
    /// RACK.reo_wnd where segments overtake each other, microseconds: how long one may be missing that was sent before another. Quarters of
    /// the least round trip, and a smoothed one at most (RFC 8985, 6.2, step 4).
    #[must_use]
    pub fn reo_wnd_us(&self) -> u32 {
        let least_us = if self.tx.min_rtt_us == 0 { self.tx.srtt_us } else { self.tx.min_rtt_us };
        (least_us / 4).saturating_mul(1 + u32::from(self.id.reo_wnd_more)).min(self.tx.srtt_us)
    }
}

/// The four-tuple: addresses are 16 bytes in network order, IPv4 as ::ffff:a.b.c.d; ports in host order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FlowKey {
    pub local_ip: [u8; 16],
    pub remote_ip: [u8; 16],
    pub local_port: u16,
    pub remote_port: u16,
}
assert_layout!(FlowKey, 36);

/// An IPv4 address as 16 bytes (RFC 4291, 2.5.5.2).
pub const fn v4_mapped(a: [u8; 4]) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a[0], a[1], a[2], a[3]]
}

/// The IPv4 address in `a`, if it is one.
pub fn as_v4(a: &[u8; 16]) -> Option<[u8; 4]> {
    let v4 = [a[12], a[13], a[14], a[15]];
    (v4_mapped(v4) == *a).then_some(v4)
}

#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Identity {
    pub key: FlowKey,
    /// Protection domain of the buffers.
    pub region: RegionId,
    /// Context that gets the events; [`CtxId::NONE`]: they wait here.
    pub ctx: CtxId,
    /// The library's socket slot, echoed in events.
    pub opaque: u32,
    /// Index into the card's next-hop table.
    pub next_hop: u16,
    /// 802.1Q tag (PCP, DEI, VID) or 0: none.
    pub vlan: u16,
    /// IPv4 TTL / IPv6 hop limit.
    pub ttl: u8,
    /// Type of service / traffic class without the ECN bits.
    pub tos: u8,
    /// RACK.reo_wnd_mult less one: quarters of the round-trip time by which segments may overtake each other (RFC 8985, 6.2).
    pub reo_wnd_more: u8,
    /// RACK.reo_wnd_persist: recoveries until `reo_wnd_more` is 0 again.
    pub reo_wnd_persist: u8,
    /// Segments sent again since the connection began: for operators. Written by protocol, and rarely.
    pub retransmits: u32,
    /// cwnd and ssthresh before the last reduction, bytes: what comes back if the loss was none. Written by protocol, and rarely.
    pub prior_cwnd: u32,
    pub prior_ssthresh: u32,
}

/// Buffers, negotiated options, receive side.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RxState {
    /// Offset of the receive buffer in the region, in units of 64 bytes.
    pub buf: u32,
    /// log2 of the receive buffer's bytes (at most 30).
    pub buf_log2: u8,
    /// RCV.WND shift we apply to the windows we send (RFC 7323).
    pub wscale: u8,
    /// Payload bytes per segment we may send, options excluded (SND.MSS less options).
    pub mss: u16,
    /// Initial receive sequence number.
    pub irs: u32,
    pub rcv_nxt: u32,
    /// Right edge of the window last advertised: never moves left (RFC 9293, 3.8.6).
    pub rcv_adv: u32,
    /// Position up to which the application has consumed (shadow of what the host claimed, validated).
    pub rx_tail: u32,
    /// TS.Recent (RFC 7323).
    pub ts_recent: u32,
    /// When data was last sent (idle restart), milliseconds.
    pub last_tx_ms: u32,
    /// Last.ACK.sent (RFC 7323).
    pub last_ack_sent: u32,
    /// Sequence number of the peer's FIN, valid with [`flow_flags::FIN_SEEN`].
    pub fin_seq: u32,
    /// [`flow_flags`].
    pub flags: u32,
    /// [`tcp_state`].
    pub state: u8,
    /// Full-sized segments received and not acknowledged yet (RFC 5681, 4.2).
    pub delack_segs: u8,
    /// Segments left to be acknowledged at once (quick ACK).
    pub quickack: u8,
    /// Errno of the last ICMP error about data in flight since the first timeout; 0: none. Told to the application if the peer never answers.
    pub soft_error: u8,
    /// When the delayed ACK is due, milliseconds; valid with [`flow_flags::DELACK_ARMED`].
    pub delack_ms: u32,
    /// When the last acceptable segment came (keep-alive, age of ts_recent), milliseconds.
    pub last_rx_ms: u32,
    /// Added to the card's millisecond clock to give the timestamps we send (RFC 7323, 5.4): chosen by toed for the SYN, kept from then on.
    pub ts_offset: u32,
    /// End of the last segment sent that was not full-sized (Nagle as in Linux: a second one waits until this is acknowledged).
    /// With [`flow_flags::URGENT`]: SND.UP, the end of the urgent data; Nagle's algorithm rests then.
    pub snd_sml: u32,
}

/// Send side, round-trip estimation, timers. Times in milliseconds are the card's clock mod 2^32.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct TxState {
    /// Offset of the transmit buffer in the region, in units of 64 bytes.
    pub buf: u32,
    /// log2 of the transmit buffer's bytes (at most 30).
    pub buf_log2: u8,
    /// SND.WND shift: what the peer's windows are scaled by (RFC 7323).
    pub wscale: u8,
    /// Consecutive retransmission timeouts.
    pub backoff: u8,
    pub dup_acks: u8,
    /// Initial send sequence number.
    pub iss: u32,
    pub snd_una: u32,
    /// Next to be sent; moves back to snd_una after a timeout.
    pub snd_nxt: u32,
    /// Highest ever sent.
    pub snd_max: u32,
    /// Peer's window, bytes (scaled).
    pub snd_wnd: u32,
    pub snd_wl1: u32,
    pub snd_wl2: u32,
    /// Position up to which the application has filled the buffer (validated).
    pub tx_head: u32,
    /// Smoothed round-trip time, microseconds; 0: no sample yet.
    pub srtt_us: u32,
    pub rttvar_us: u32,
    /// When the timer of kind `timer` is due, milliseconds.
    pub timer_ms: u32,
    /// [`timer`]: one at a time, so two can't be armed at once.
    pub timer: u8,
    /// Minimum RTO, units of 4 ms.
    pub rto_min_4ms: u8,
    /// Largest window the peer ever offered, log2-rounded: silly-window avoidance (RFC 9293, 3.8.6.2.1).
    pub max_wnd_log2: u8,
    /// Keep-alive probes sent without an answer.
    pub probes: u8,
    /// Shortest round trip of the last minutes (`rtt.rs` of toe-tcp), microseconds; 0: unknown, as after two timeouts in a row (RFC 8985: RACK.min_RTT).
    pub min_rtt_us: u32,
    /// The card's own: its scoreboard for this flow, while segments are missing; 0: none.
    pub board: u32,
}

/// Congestion control, and received out-of-order intervals.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CcState {
    /// Bytes.
    pub cwnd: u32,
    /// Bytes.
    pub ssthresh: u32,
    /// Recovery point: snd_max when recovery began (RFC 6582).
    pub recover: u32,
    /// [`cc`].
    pub algorithm: u8,
    /// The card's own: which of its flow group's sets of timers, see [`FlowOptions`]; 0: everybody's.
    pub timers: u8,
    /// Challenge ACKs sent in `challenge_epoch`, a stretch of 4.096 s, modulo 256 (RFC 5961, 7).
    pub challenges: u8,
    pub challenge_epoch: u8,
    /// The algorithm's own words.
    pub words: [u32; 4],
    /// The first two: [start, end) sequence numbers, ascending and disjoint, not touching, and when something was last added to it
    /// (microseconds mod 2^32); start == end: empty.
    pub ooo: [[u32; 3]; 2],
    /// The card's own: a list of further ones; 0: none.
    pub ooo_more: u32,
    /// The card's own: a list of what was sent when; 0: nothing is known.
    pub sent: u32,
}

/// Socket options of one flow that [`HostDesc::flags`](crate::desc::HostDesc::flags) has no room for. Of all times 0 is: as everybody.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FlowOptions {
    /// TCP_USER_TIMEOUT, milliseconds.
    pub user_timeout_ms: u32,
    /// TCP_KEEPIDLE, seconds.
    pub keep_idle_s: u16,
    /// TCP_KEEPINTVL, seconds.
    pub keep_interval_s: u16,
    /// TCP_KEEPCNT.
    pub keep_count: u8,
    /// IP_TOS, IPV6_TCLASS; the ECN bits are the card's.
    pub tos: u8,
    /// IP_TTL, IPV6_UNICAST_HOPS; 0: as it is.
    pub ttl: u8,
    /// [`quick_ack`].
    pub quick_ack: u8,
}
assert_layout!(FlowOptions, 12, keep_idle_s @ 4, keep_count @ 8, quick_ack @ 11);

/// Values of [`FlowOptions::quick_ack`]: TCP_QUICKACK, which happens once.
pub mod quick_ack {
    pub const AS_IT_IS: u8 = 0;
    /// What has come is acknowledged now, and the next segments at once.
    pub const ON: u8 = 1;
    pub const OFF: u8 = 2;
}

assert_layout!(FlowState, FLOW_STATE_LEN, id @ 0, rx @ 64, tx @ 128, cc @ 192);
assert_layout!(Identity, 64, key @ 0, region @ 36, ctx @ 38, opaque @ 40, next_hop @ 44);
assert_layout!(RxState, 64, irs @ 8, rcv_nxt @ 12, flags @ 40, state @ 44);
assert_layout!(TxState, 64, iss @ 8, snd_una @ 12, tx_head @ 36, timer_ms @ 48);
assert_layout!(CcState, 64, cwnd @ 0, words @ 16, ooo @ 32, sent @ 60);

/// Values of [`RxState::state`]. The handshake is toed's, so a flow starts at ESTABLISHED; TIME-WAIT is toed's too.
pub mod tcp_state {
    pub const CLOSED: u8 = 0;
    pub const ESTABLISHED: u8 = 1;
    pub const FIN_WAIT_1: u8 = 2;
    pub const FIN_WAIT_2: u8 = 3;
    pub const CLOSE_WAIT: u8 = 4;
    pub const CLOSING: u8 = 5;
    pub const LAST_ACK: u8 = 6;
    /// Both FINs are acknowledged and ours came first: reported to toed, which keeps TIME-WAIT.
    pub const TIME_WAIT: u8 = 7;
}

/// Values of [`TxState::timer`].
pub mod timer {
    pub const NONE: u8 = 0;
    /// Retransmission timeout (RFC 6298).
    pub const RTO: u8 = 1;
    /// Zero-window probe (RFC 9293, 3.8.6.1).
    pub const PERSIST: u8 = 2;
    pub const KEEPALIVE: u8 = 3;
    /// Corked data goes out (200 ms, as Linux).
    pub const CORK: u8 = 4;
    /// Segments that others have overtaken count as lost from now on (RFC 8985, 6.2).
    pub const REORDER: u8 = 5;
    /// Tail loss probe (RFC 8985, 7).
    pub const TLP: u8 = 6;
}

/// Values of [`CcState::algorithm`].
pub mod cc {
    /// RFC 5681, RFC 6582.
    pub const NEWRENO: u8 = 0;
    /// RFC 9438.
    pub const CUBIC: u8 = 1;
    /// RFC 8257; without ECN as NEWRENO.
    pub const DCTCP: u8 = 2;
    /// toed sets the rate, each by its algorithm; the window follows.
    pub const DCTCP_RATE: u8 = 3;
    pub const TIMELY: u8 = 4;
    pub const CONST_RATE: u8 = 5;
    /// How many there are: numbers from here on mean nothing.
    pub const COUNT: u8 = 6;

    /// Names by number: Linux's, and FlexTOE's of what Linux lacks. As TCP_CONGESTION has them: less than 16 bytes.
    pub const NAMES: [&str; COUNT as usize] = ["reno", "cubic", "dctcp", "dctcp-rate", "timely", "const-rate"];

    /// The number of a name.
    pub fn number(name: &str) -> Option<u8> {
        match name {
            "newreno" => Some(NEWRENO),
            // FlexTOE's word.
            "dctcp-win" => Some(DCTCP),
            _ => NAMES.iter().position(|n| *n == name).and_then(|i| u8::try_from(i).ok()),
        }
    }

    /// The name of a number, "?" of one that means nothing.
    pub fn name(algorithm: u8) -> &'static str {
        NAMES.get(usize::from(algorithm)).copied().unwrap_or("?")
    }

    /// Whether toed sets the rate.
    pub const fn is_rate(algorithm: u8) -> bool {
        matches!(algorithm, DCTCP_RATE | TIMELY | CONST_RATE)
    }

    /// Whether it works by congestion marks: the handshake asks for ECN, and each mark is echoed (RFC 8257, 3.2).
    pub const fn needs_ecn(algorithm: u8) -> bool {
        matches!(algorithm, DCTCP | DCTCP_RATE)
    }
}

/// Places in [`CcState::words`] where toed sets the rate ([`cc::is_rate`]).
pub mod rate_words {
    /// Bytes acknowledged by ACKs that echoed a congestion mark, mod 2^32.
    pub const MARKED: usize = 0;
}

/// Bits of [`RxState::flags`].
pub mod flow_flags {
    /// Timestamps were negotiated (RFC 7323).
    pub const TIMESTAMPS: u32 = 1 << 0;
    /// ECN was negotiated (RFC 3168).
    pub const ECN: u32 = 1 << 1;
    /// SACK was negotiated (RFC 2018).
    pub const SACK: u32 = 1 << 2;
    /// The application has sent its last byte; FIN goes after tx_head.
    pub const TX_FIN: u32 = 1 << 3;
    /// The peer's FIN has been seen at fin_seq.
    pub const FIN_SEEN: u32 = 1 << 4;
    pub const NODELAY: u32 = 1 << 5;
    pub const CORK: u32 = 1 << 6;
    pub const KEEPALIVE: u32 = 1 << 7;
    /// Received data is acknowledged and discarded.
    pub const RX_CLOSED: u32 = 1 << 8;
    /// Echo ECE until CWR comes (RFC 3168).
    pub const ECE: u32 = 1 << 9;
    /// Set CWR on the next new data (RFC 3168).
    pub const CWR: u32 = 1 << 10;
    /// In fast recovery until `recover`.
    pub const RECOVERY: u32 = 1 << 11;
    /// After a timeout: retransmitting from snd_una until `recover`.
    pub const LOSS: u32 = 1 << 12;
    pub const DELACK_ARMED: u32 = 1 << 13;
    /// An RTT sample is being taken (no timestamps).
    pub const RTT_PENDING: u32 = 1 << 14;
    /// Our FIN has been sent at least once.
    pub const FIN_SENT: u32 = 1 << 15;
    /// Our FIN has been acknowledged.
    pub const FIN_ACKED: u32 = 1 << 16;
    /// An ACK is owed at once.
    pub const ACK_NOW: u32 = 1 << 17;
    /// The socket has no descriptor any more: FIN-WAIT-2 is limited in time by toed.
    pub const ORPHAN: u32 = 1 << 18;
    /// Something is to be retransmitted: what the scoreboard says is lost, or without one a segment from snd_una.
    pub const REXMIT_ONE: u32 = 1 << 19;
    /// A zero-window or keep-alive probe is due.
    pub const PROBE: u32 = 1 << 20;
    /// cwnd was reduced for an ECN echo: not again until `recover` is acknowledged (RFC 3168, 6.1.2).
    pub const ECN_REDUCED: u32 = 1 << 21;
    /// Data held back by CORK is to go out now.
    pub const PUSH: u32 = 1 << 22;
    /// Closed with received data unread: RST follows what may still be sent at once. Of a flow that has ended: by a RST, which a peer that goes
    /// on gets again.
    pub const RST_DUE: u32 = 1 << 23;
    /// A tail loss probe is to be sent.
    pub const TLP_DUE: u32 = 1 << 24;
    /// Segments have been seen to overtake each other (RFC 8985: RACK.reordering_seen). The timestamps we send tick slowly from then on.
    pub const REORDERED: u32 = 1 << 25;
    /// A tail loss probe was sent, and no round trip has been measured since (RFC 8985, 7.3).
    pub const PROBED: u32 = 1 << 26;
    /// `rttvar_us` keeps a timeout as long as losses have made it: the next round trip that is measured replaces both estimates (RFC 6298, 5).
    pub const BACKED_OFF: u32 = 1 << 27;
    /// Urgent data has been sent, or is to be (RFC 9293, 3.8.5): its end is in `snd_sml`.
    pub const URGENT: u32 = 1 << 28;
    /// The window is spread over the round trip: the scheduler keeps to its pace.
    pub const PACED: u32 = 1 << 30;
    /// The card's own: toed sets the rate ([`cc::is_rate`](super::cc::is_rate)), and hears of what is acknowledged.
    pub const RATED: u32 = 1 << 31;
}
