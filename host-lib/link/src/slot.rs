//! The words of a region that several parties write, as atomics: context pages and socket slots.
//!
//! These types mirror `toe_abi` field by field (asserted below). References to them are sound whatever other processes
//! and the card do, as all they contain is atomics.

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};
use toe_abi::FlowId;
use toe_abi::context::{CardLine, ContextPage, DaemonLine, HostLine};
use toe_abi::flow::FlowOptions;
use toe_abi::region::{
    AcceptRecord, SlotConn, SlotEvent, SlotListen, SlotNames, SlotOptions, SlotRx, SlotTx, SocketSlot, offered, slot_state,
};

/// Asserts that an atomic mirror has the size and field offsets of the plain type.
macro_rules! mirrors {
    ($mirror:ty = $plain:ty $(, $field:ident @ $other:ident)* $(,)?) => {
        const _: () = {
            assert!(size_of::<$mirror>() == size_of::<$plain>() && align_of::<$mirror>() <= align_of::<$plain>());
            $(assert!(std::mem::offset_of!($mirror, $field) == std::mem::offset_of!($plain, $other));)*
        };
    };
}

/// A [`ContextPage`].
#[repr(C, align(64))]
pub struct Page {
    pub host: Host,
    pub card: Card,
    pub daemon: Daemon,
    _reserved: [[AtomicU32; 16]; 61],
}

/// [`HostLine`]: written by the application.
#[repr(C, align(64))]
pub struct Host {
    pub hc_tail: AtomicU32,
    pub ev_head: AtomicU32,
    pub parked: AtomicU32,
    _reserved: [AtomicU32; 13],
}

/// [`CardLine`]: written by the card.
#[repr(C, align(64))]
pub struct Card {
    pub hc_head: AtomicU32,
    pub ev_tail: AtomicU32,
    pub parked: AtomicU32,
    pub failed: AtomicU32,
    _reserved: [AtomicU32; 12],
}

/// [`DaemonLine`]: written by toed.
#[repr(C, align(64))]
pub struct Daemon {
    pub notices: AtomicU32,
    pub failed: AtomicU32,
    _reserved: [AtomicU32; 14],
}

mirrors!(Page = ContextPage, host @ host, card @ card, daemon @ daemon);
mirrors!(Host = HostLine, hc_tail @ hc_tail, ev_head @ ev_head, parked @ parked);
mirrors!(Card = CardLine, hc_head @ hc_head, ev_tail @ ev_tail, parked @ parked, failed @ failed);
mirrors!(Daemon = DaemonLine, notices @ notices, failed @ failed);

/// A [`SocketSlot`].
#[repr(C, align(64))]
pub struct Slot {
    pub conn: Conn,
    pub names: Names,
    pub tx: Tx,
    pub rx: Rx,
    pub event: Event,
    pub listen: Listen,
    pub options: Options,
}

/// [`SlotConn`].
#[repr(C, align(64))]
pub struct Conn {
    pub state: AtomicU32,
    pub error: AtomicU32,
    pub flow_index: AtomicU32,
    pub flow_generation: AtomicU32,
    pub tx_off: AtomicU64,
    pub rx_off: AtomicU64,
    pub tx_len: AtomicU32,
    pub rx_len: AtomicU32,
    pub ctx: AtomicU32,
    _reserved: [AtomicU32; 5],
}

/// [`SlotNames`]. An address is four words of network-order bytes.
#[repr(C, align(64))]
pub struct Names {
    pub local_ip: [AtomicU32; 4],
    pub remote_ip: [AtomicU32; 4],
    pub local_port: AtomicU16,
    pub remote_port: AtomicU16,
    _reserved: [AtomicU32; 7],
}

/// [`SlotTx`].
#[repr(C, align(64))]
pub struct Tx {
    pub head: AtomicU32,
    pub lock: AtomicU32,
    pub flags: AtomicU32,
    pub nonblocking: AtomicU32,
    pub timeout_us: AtomicU32,
    pub slot_flags: AtomicU32,
    pub linger: AtomicU32,
    pub urgent: AtomicU32,
    pub pacing: AtomicU64,
    pub tos: AtomicU32,
    pub ttl: AtomicU32,
    pub max_segment: AtomicU32,
    pub syn_retries: AtomicU32,
    pub defer_accept_s: AtomicU32,
    _reserved: AtomicU32,
}

/// [`SlotRx`].
#[repr(C, align(64))]
pub struct Rx {
    pub tail: AtomicU32,
    pub lock: AtomicU32,
    pub told: AtomicU32,
    pub timeout_us: AtomicU32,
    pub low_water: AtomicU32,
    _reserved: AtomicU32,
    pub urgent: AtomicU64,
    _reserved2: [AtomicU32; 8],
}

/// [`SlotEvent`].
#[repr(C, align(64))]
pub struct Event {
    pub rx_head: AtomicU32,
    pub tx_tail: AtomicU32,
    pub flags: AtomicU32,
    pub error: AtomicU32,
    pub srtt_us: AtomicU32,
    pub cwnd: AtomicU32,
    _reserved: [AtomicU32; 10],
}

/// [`SlotListen`].
#[repr(C, align(64))]
pub struct Listen {
    pub ring: AtomicU32,
    pub head: AtomicU32,
    pub tail: AtomicU32,
    _reserved: [AtomicU32; 13],
}

/// [`SlotOptions`].
#[repr(C, align(64))]
pub struct Options {
    pub user_timeout_ms: AtomicU32,
    pub keep_idle_s: AtomicU32,
    pub keep_interval_s: AtomicU32,
    pub keep_count: AtomicU32,
    pub quick_ack: AtomicU32,
    pub linger2_s: AtomicU32,
    pub not_sent_low_water: AtomicU32,
    pub window_clamp: AtomicU32,
    _reserved: [AtomicU32; 8],
}

mirrors!(Slot = SocketSlot, conn @ conn, names @ names, tx @ tx, rx @ rx, event @ event, listen @ listen, options @ options);
mirrors!(Conn = SlotConn, state @ state, error @ error, flow_index @ flow, tx_off @ tx_off, rx_off @ rx_off, tx_len @ tx_len, rx_len @ rx_len, ctx @ ctx);
mirrors!(Names = SlotNames, local_ip @ local_ip, remote_ip @ remote_ip, local_port @ local_port, remote_port @ remote_port);
mirrors!(Tx = SlotTx, head @ head, lock @ lock, flags @ flags, nonblocking @ nonblocking, timeout_us @ timeout_us, slot_flags @ slot_flags, linger @ linger, urgent @ urgent, pacing @ pacing, tos @ tos, ttl @ ttl,
    max_segment @ max_segment, syn_retries @ syn_retries, defer_accept_s @ defer_accept_s);
mirrors!(Rx = SlotRx, tail @ tail, lock @ lock, told @ told, timeout_us @ timeout_us, low_water @ low_water, urgent @ urgent);
mirrors!(Event = SlotEvent, rx_head @ rx_head, tx_tail @ tx_tail, flags @ flags, error @ error, srtt_us @ srtt_us, cwnd @ cwnd);
mirrors!(Listen = SlotListen, ring @ ring, head @ head, tail @ tail);
mirrors!(Options = SlotOptions, user_timeout_ms @ user_timeout_ms, keep_idle_s @ keep_idle_s, keep_interval_s @ keep_interval_s, keep_count @ keep_count,
    quick_ack @ quick_ack, linger2_s @ linger2_s, not_sent_low_water @ not_sent_low_water, window_clamp @ window_clamp);

/// An address and a port, as the slot and the daemon's messages have them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct Addr {
    /// Network order, IPv4 as ::ffff:a.b.c.d.
    pub ip: [u8; 16],
    /// Host order.
    pub port: u16,
}

impl Addr {
    /// An IPv4 address.
    pub const fn v4(ip: [u8; 4], port: u16) -> Self {
        Self { ip: toe_abi::flow::v4_mapped(ip), port }
    }

    /// An IPv6 address.
    pub const fn v6(ip: [u8; 16], port: u16) -> Self {
        Self { ip, port }
    }

    /// The IPv4 address, if it is one; all zeroes counts as 0.0.0.0.
    pub fn as_v4(&self) -> Option<[u8; 4]> {
        if self.ip == [0; 16] { Some([0; 4]) } else { toe_abi::flow::as_v4(&self.ip) }
    }

    /// Whether the address is the wildcard, of either version.
    pub fn is_any(&self) -> bool {
        self.as_v4() == Some([0; 4])
    }
}

impl Conn {
    /// The flow; meaningful after [`state`](Conn::state) was read as connected (acquire).
    pub fn flow(&self) -> FlowId {
        FlowId { index: self.flow_index.load(Ordering::Relaxed), generation: self.flow_generation.load(Ordering::Relaxed) }
    }

    pub fn set_flow(&self, flow: FlowId) {
        self.flow_index.store(flow.index, Ordering::Relaxed);
        self.flow_generation.store(flow.generation, Ordering::Relaxed);
    }

    /// The state; acquire: everything that its writer put into the slot before is visible.
    pub fn load_state(&self) -> u32 {
        self.state.load(Ordering::Acquire)
    }

    /// Publishes a state; release: the partner of [`load_state`](Conn::load_state).
    pub fn store_state(&self, state: u32) {
        self.state.store(state, Ordering::Release);
    }
}

fn load_ip(words: &[AtomicU32; 4]) -> [u8; 16] {
    let mut ip = [0; 16];
    for (bytes, word) in ip.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
    }
    ip
}

fn store_ip(words: &[AtomicU32; 4], ip: &[u8; 16]) {
    for (bytes, word) in ip.chunks_exact(4).zip(words) {
        word.store(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]), Ordering::Relaxed);
    }
}

impl Names {
    pub fn local(&self) -> Addr {
        Addr { ip: load_ip(&self.local_ip), port: self.local_port.load(Ordering::Relaxed) }
    }

    pub fn remote(&self) -> Addr {
        Addr { ip: load_ip(&self.remote_ip), port: self.remote_port.load(Ordering::Relaxed) }
    }

    pub fn set_local(&self, addr: Addr) {
        store_ip(&self.local_ip, &addr.ip);
        self.local_port.store(addr.port, Ordering::Relaxed);
    }

    pub fn set_remote(&self, addr: Addr) {
        store_ip(&self.remote_ip, &addr.ip);
        self.remote_port.store(addr.port, Ordering::Relaxed);
    }
}

impl Options {
    /// All of them.
    fn words(&self) -> [&AtomicU32; 8] {
        let Self {
            user_timeout_ms,
            keep_idle_s,
            keep_interval_s,
            keep_count,
            quick_ack,
            linger2_s,
            not_sent_low_water,
            window_clamp,
            _reserved,
        } = self;
        [user_timeout_ms, keep_idle_s, keep_interval_s, keep_count, quick_ack, linger2_s, not_sent_low_water, window_clamp]
    }
}

impl Slot {
    /// An accepted socket begins with the options that its listener has.
    pub fn inherit_options(&self, listener: &Slot) {
        let mine = [&self.tx.tos, &self.tx.ttl].into_iter().chain(self.options.words());
        let theirs = [&listener.tx.tos, &listener.tx.ttl].into_iter().chain(listener.options.words());
        for (mine, theirs) in mine.zip(theirs) {
            mine.store(theirs.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// How much of the receive buffer is offered to the peer, bytes (TCP_WINDOW_CLAMP).
    pub fn offered(&self) -> u32 {
        offered(self.conn.rx_len.load(Ordering::Relaxed), self.options.window_clamp.load(Ordering::Relaxed))
    }

    /// What [`hc::OPTIONS`](toe_abi::desc::hc::OPTIONS) tells the card.
    pub fn flow_options(&self) -> FlowOptions {
        let options = &self.options;
        let half = |word: &AtomicU32| word.load(Ordering::Relaxed).min(u16::MAX.into()) as u16;
        let byte = |word: u32| word.min(u8::MAX.into()) as u8;
        FlowOptions {
            user_timeout_ms: options.user_timeout_ms.load(Ordering::Relaxed),
            keep_idle_s: half(&options.keep_idle_s),
            keep_interval_s: half(&options.keep_interval_s),
            keep_count: byte(options.keep_count.load(Ordering::Relaxed)),
            tos: byte(self.tx.tos.load(Ordering::Relaxed)),
            ttl: byte(self.tx.ttl.load(Ordering::Relaxed)),
            quick_ack: byte(options.quick_ack.load(Ordering::Relaxed)),
        }
    }

    /// Makes a pooled slot a fresh socket: positions, options and names as after socket(). The locks stay as they are: a
    /// slot of the pool has no holder.
    pub fn reset(&self) {
        let relaxed = Ordering::Relaxed;
        self.conn.error.store(0, relaxed);
        self.conn.set_flow(FlowId::NONE);
        self.conn.ctx.store(u32::MAX, relaxed);
        self.names.set_local(Addr::default());
        self.names.set_remote(Addr::default());
        let tx = [&self.tx.head, &self.tx.flags, &self.tx.nonblocking, &self.tx.timeout_us, &self.tx.slot_flags];
        let rx = [&self.tx.linger, &self.rx.tail, &self.rx.told, &self.rx.timeout_us, &self.rx.low_water];
        let event = [&self.event.rx_head, &self.event.tx_tail, &self.event.flags, &self.event.error];
        let info = [&self.event.srtt_us, &self.event.cwnd];
        let open = [&self.tx.tos, &self.tx.ttl, &self.tx.max_segment, &self.tx.syn_retries, &self.tx.defer_accept_s];
        for word in tx.into_iter().chain(rx).chain(event).chain(info).chain(open).chain(self.options.words()) {
            word.store(0, relaxed);
        }
        self.tx.urgent.store(0, relaxed);
        self.rx.urgent.store(0, relaxed);
        self.tx.pacing.store(0, relaxed);
        self.conn.store_state(slot_state::OPEN);
    }

    /// Puts an accepted connection into this slot, which [`reset`](Slot::reset) has made fresh.
    pub fn adopt(&self, record: &AcceptRecord) {
        let relaxed = Ordering::Relaxed;
        self.conn.set_flow(record.flow);
        self.conn.tx_off.store(record.tx_off, relaxed);
        self.conn.rx_off.store(record.rx_off, relaxed);
        self.conn.tx_len.store(record.tx_len, relaxed);
        self.conn.rx_len.store(record.rx_len, relaxed);
        self.names.set_local(Addr { ip: record.names.local_ip, port: record.names.local_port });
        self.names.set_remote(Addr { ip: record.names.remote_ip, port: record.names.remote_port });
        self.conn.store_state(slot_state::CONNECTED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    fn slot() -> Box<Slot> {
        let plain = Box::new(SocketSlot::new_zeroed());
        // SAFETY: same size and layout (asserted above), alignment 64 for both, and every bit pattern is a valid atomic.
        unsafe { Box::from_raw(Box::into_raw(plain).cast::<Slot>()) }
    }

    #[test]
    fn an_accepted_connection_lands_in_the_slot() {
        let slot = slot();
        slot.reset();
        let mut record = AcceptRecord { flow: FlowId { index: 3, generation: 9 }, tx_len: 4096, ..Default::default() };
        record.names.remote_ip = toe_abi::flow::v4_mapped([10, 0, 0, 2]);
        record.names.remote_port = 4711;
        slot.adopt(&record);
        assert_eq!(slot.conn.load_state(), slot_state::CONNECTED);
        assert_eq!(slot.conn.flow(), record.flow);
        assert_eq!(slot.names.remote(), Addr::v4([10, 0, 0, 2], 4711));
    }

    #[test]
    fn reset_forgets_what_the_last_socket_left() {
        let slot = slot();
        slot.rx.tail.store(77, Ordering::Relaxed);
        slot.tx.flags.store(1, Ordering::Relaxed);
        slot.tx.pacing.store(1, Ordering::Relaxed);
        slot.tx.defer_accept_s.store(1, Ordering::Relaxed);
        slot.event.flags.store(4, Ordering::Relaxed);
        slot.options.words().into_iter().for_each(|word| word.store(1, Ordering::Relaxed));
        slot.reset();
        assert_eq!(slot.rx.tail.load(Ordering::Relaxed), 0);
        assert_eq!((slot.tx.flags.load(Ordering::Relaxed), slot.tx.pacing.load(Ordering::Relaxed)), (0, 0));
        assert_eq!(slot.tx.defer_accept_s.load(Ordering::Relaxed), 0);
        assert_eq!(slot.event.flags.load(Ordering::Relaxed), 0);
        assert_eq!(slot.flow_options(), FlowOptions::default());
        assert_eq!(slot.conn.flow(), FlowId::NONE);
        assert_eq!(slot.conn.load_state(), slot_state::OPEN);
    }

    #[test]
    fn a_wildcard_is_recognised_in_both_spellings() {
        assert!(Addr::v4([0; 4], 80).is_any());
        assert!(Addr::default().is_any());
        assert!(!Addr::v4([10, 0, 0, 1], 80).is_any());
    }
}
