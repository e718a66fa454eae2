//! Socket slots and context pages in a region, word by word. What is read here is a claim.

use super::host::Memory;
use core::mem::offset_of;
use toe_abi::{
    FlowId,
    context::{ContextPage, DaemonLine, HostLine},
    flow::FlowKey,
    region::{
        ACCEPT_RECORD_LEN, AcceptRecord, RegionHeader, SOCKET_SLOT_LEN, SlotConn, SlotEvent, SlotListen, SlotNames, SlotOptions, SlotRx,
        SlotTx, SocketSlot, slot_flags, slot_state,
    },
};
use toe_engine::{FinWait2, OpenOptions};
use zerocopy::IntoBytes;

const fn at(line: usize, field: usize) -> u64 {
    (line + field) as u64
}
const STATE: u64 = at(offset_of!(SocketSlot, conn), offset_of!(SlotConn, state));
const ERROR: u64 = at(offset_of!(SocketSlot, conn), offset_of!(SlotConn, error));
const FLOW: u64 = at(offset_of!(SocketSlot, conn), offset_of!(SlotConn, flow));
const TX_OFF: u64 = at(offset_of!(SocketSlot, conn), offset_of!(SlotConn, tx_off));
const NAMES: u64 = offset_of!(SocketSlot, names) as u64;
const TX_HEAD: u64 = at(offset_of!(SocketSlot, tx), offset_of!(SlotTx, head));
const SLOT_FLAGS: u64 = at(offset_of!(SocketSlot, tx), offset_of!(SlotTx, slot_flags));
const TOS: u64 = at(offset_of!(SocketSlot, tx), offset_of!(SlotTx, tos));
const TTL: u64 = at(offset_of!(SocketSlot, tx), offset_of!(SlotTx, ttl));
const MAX_SEGMENT: u64 = at(offset_of!(SocketSlot, tx), offset_of!(SlotTx, max_segment));
const SYN_RETRIES: u64 = at(offset_of!(SocketSlot, tx), offset_of!(SlotTx, syn_retries));
const DEFER_ACCEPT_S: u64 = at(offset_of!(SocketSlot, tx), offset_of!(SlotTx, defer_accept_s));
const USER_TIMEOUT_MS: u64 = at(offset_of!(SocketSlot, options), offset_of!(SlotOptions, user_timeout_ms));
const WINDOW_CLAMP: u64 = at(offset_of!(SocketSlot, options), offset_of!(SlotOptions, window_clamp));
const LINGER2_S: u64 = at(offset_of!(SocketSlot, options), offset_of!(SlotOptions, linger2_s));
const RX_TAIL: u64 = at(offset_of!(SocketSlot, rx), offset_of!(SlotRx, tail));
const RX_HEAD: u64 = at(offset_of!(SocketSlot, event), offset_of!(SlotEvent, rx_head));
const LISTEN_RING: u64 = at(offset_of!(SocketSlot, listen), offset_of!(SlotListen, ring));
const LISTEN_HEAD: u64 = at(offset_of!(SocketSlot, listen), offset_of!(SlotListen, head));
const LISTEN_TAIL: u64 = at(offset_of!(SocketSlot, listen), offset_of!(SlotListen, tail));
const HOST_PARKED: u64 = at(offset_of!(ContextPage, host), offset_of!(HostLine, parked));
const NOTICES: u64 = at(offset_of!(ContextPage, daemon), offset_of!(DaemonLine, notices));
const FAILED: u64 = at(offset_of!(ContextPage, daemon), offset_of!(DaemonLine, failed));

/// Where a connection's buffers lie in the region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BufferPlaces {
    pub tx_off: u64,
    pub rx_off: u64,
    pub tx_len: u32,
    pub rx_len: u32,
}

/// What a slot says when its last descriptor has gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LastWords {
    /// The connection it holds, if it says so.
    pub flow: Option<FlowId>,
    /// A holder closed it in order.
    pub clean: bool,
    pub tx_head: u32,
    pub rx_tail: u32,
    pub rx_head: u32,
    /// How long it may wait for the peer's FIN.
    pub linger: FinWait2,
}

/// The flow that the slot at `slot` claims to hold.
pub(super) fn claimed_flow<M: Memory>(memory: &M, slot: u64) -> Option<FlowId> {
    // Acquire: with the library's release when it took the connection from an accept ring.
    if memory.load(slot + STATE) != slot_state::CONNECTED {
        return None;
    }
    let flow = FlowId { index: memory.load(slot + FLOW), generation: memory.load(slot + FLOW + 4) };
    (flow.index != FlowId::NONE.index).then_some(flow)
}

pub(super) fn last_words<M: Memory>(memory: &M, slot: u64) -> LastWords {
    LastWords {
        flow: claimed_flow(memory, slot),
        clean: memory.load(slot + SLOT_FLAGS) & slot_flags::CLEAN != 0,
        tx_head: memory.load(slot + TX_HEAD),
        rx_tail: memory.load(slot + RX_TAIL),
        rx_head: memory.load(slot + RX_HEAD),
        linger: match memory.load(slot + LINGER2_S) {
            0 => FinWait2::AsEverybody,
            u32::MAX => FinWait2::Limit(0),
            seconds => FinWait2::Limit(u64::from(seconds.min(LINGER2_MOST_S)) * 1_000_000),
        },
    }
}

/// Less than this is an attack on everybody's CPU (TCP_MIN_MSS of Linux).
const MAX_SEGMENT_LEAST: u16 = 88;
/// A connection that nobody holds keeps its buffers no longer, whatever its application says (TCP_FIN_TIMEOUT_MAX).
const LINGER2_MOST_S: u32 = 120;
/// A half-open connection, which takes a place that is everybody's, waits for data no longer (TCP_RTO_MAX of Linux).
const DEFER_ACCEPT_MOST_S: u32 = 120;
/// More retransmissions of a SYN than Linux allows (MAX_TCP_SYNCNT) would last for days.
const SYN_RETRIES_MOST: u32 = 127;

/// What the socket's connections are to begin with, within what is sane.
pub(super) fn open_options<M: Memory>(memory: &M, slot: u64) -> OpenOptions {
    let byte = |word| memory.load(slot + word).min(u8::MAX.into()) as u8;
    let max_segment = memory.load(slot + MAX_SEGMENT).min(u16::MAX.into()) as u16;
    OpenOptions {
        tos: byte(TOS),
        ttl: byte(TTL),
        max_segment: if max_segment == 0 { 0 } else { max_segment.max(MAX_SEGMENT_LEAST) },
        syn_retries: memory.load(slot + SYN_RETRIES).min(SYN_RETRIES_MOST) as u8,
        user_timeout_us: u64::from(memory.load(slot + USER_TIMEOUT_MS)) * 1000,
        defer_accept_us: u64::from(memory.load(slot + DEFER_ACCEPT_S).min(DEFER_ACCEPT_MOST_S)) * 1_000_000,
        window_clamp: memory.load(slot + WINDOW_CLAMP),
    }
}

/// Back to the state of a slot that was never used.
pub(super) fn clear<M: Memory>(memory: &M, slot: u64) {
    memory.clear(slot, SOCKET_SLOT_LEN as u64);
}

/// The state word alone. Release: what was written to the slot before is there.
pub(super) fn set_state<M: Memory>(memory: &M, slot: u64, state: u32) {
    memory.store(slot + STATE, state);
}

pub(super) fn set_failed<M: Memory>(memory: &M, slot: u64, errno: u32) {
    memory.store(slot + ERROR, errno);
    set_state(memory, slot, slot_state::FAILED);
}

/// A connect() has been called off: the socket is as new, but for the error.
pub(super) fn set_called_off<M: Memory>(memory: &M, slot: u64, errno: u32) {
    memory.store(slot + ERROR, errno);
    set_state(memory, slot, slot_state::OPEN);
}

pub(super) fn set_connected<M: Memory>(memory: &M, slot: u64, flow: FlowId, key: &FlowKey, b: &BufferPlaces) {
    memory.store(slot + ERROR, 0);
    memory.write(slot + FLOW, flow.as_bytes());
    // tx_off, rx_off, tx_len and rx_len lie one behind the other; `ctx` behind them is the library's.
    let mut words = [0; 24];
    words[..8].copy_from_slice(&b.tx_off.to_ne_bytes());
    words[8..16].copy_from_slice(&b.rx_off.to_ne_bytes());
    words[16..20].copy_from_slice(&b.tx_len.to_ne_bytes());
    words[20..].copy_from_slice(&b.rx_len.to_ne_bytes());
    memory.write(slot + TX_OFF, &words);
    memory.write(slot + NAMES, names(key).as_bytes());
    set_state(memory, slot, slot_state::CONNECTED);
}

pub(super) fn set_listening<M: Memory>(memory: &M, slot: u64, ring: u32) {
    memory.store(slot + LISTEN_RING, ring);
    memory.store(slot + LISTEN_HEAD, 0);
    memory.store(slot + LISTEN_TAIL, 0);
    set_state(memory, slot, slot_state::LISTENING);
}

/// Records that the library says it has taken.
pub(super) fn accept_head<M: Memory>(memory: &M, slot: u64) -> u32 {
    memory.load(slot + LISTEN_HEAD)
}

/// Puts a record into the listener's ring as number `tail`, and publishes it.
pub(super) fn push_accept<M: Memory>(memory: &M, g: &RegionHeader, slot: u64, ring: u32, tail: u32, record: &AcceptRecord) {
    let index = tail & (g.accept_entries - 1);
    memory.write(g.accept_ring(ring) + u64::from(index) * ACCEPT_RECORD_LEN as u64, record.as_bytes());
    // Release: with the acquire of whoever accepts.
    memory.store(slot + LISTEN_TAIL, tail.wrapping_add(1));
}

pub(super) fn accept_record(flow: FlowId, key: &FlowKey, b: &BufferPlaces) -> AcceptRecord {
    AcceptRecord {
        flow,
        tx_off: b.tx_off,
        rx_off: b.rx_off,
        tx_len: b.tx_len,
        rx_len: b.rx_len,
        names: names(key),
        ..AcceptRecord::default()
    }
}

fn names(key: &FlowKey) -> SlotNames {
    SlotNames {
        local_ip: key.local_ip,
        remote_ip: key.remote_ip,
        local_port: key.local_port,
        remote_port: key.remote_port,
        ..SlotNames::default()
    }
}

/// Publishes the context's notice count. Whether its sleeper must be woken: partner of `toe_sync::sleep::prepare`.
pub(super) fn notify<M: Memory>(memory: &M, page: u64, notices: u32) -> bool {
    memory.store(page + NOTICES, notices);
    memory.fence();
    memory.load(page + HOST_PARKED) != 0
}

/// Tells a context that toed or the card has gone.
pub(super) fn set_daemon_failed<M: Memory>(memory: &M, page: u64) {
    memory.store(page + FAILED, 1);
}
