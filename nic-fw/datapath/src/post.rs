//! Post-processing: headers for what is to be sent, payload as slices of host memory, and the way to the port.
//!
//! A port that is busy keeps nobody waiting: what it has no room for stays here, in order, and goes first next time.

use crate::{Counters, msg::TxMsg, store::FlowStore, tables::Tables};
use alloc::collections::VecDeque;
use heapless::Vec;
use toe_abi::{HostAddr, HostSpan, counters::Counter};
use toe_hal::{DmaFault, EthPort, HostMemory, PortCaps, TxBusy, TxFrame, TxOffload};
use toe_wire::{
    Checksum, Sum, TcpOptions, TxHeader,
    header::{CHECKSUM_OFFSET, HEADER_MAX},
};

/// ECT(0), RFC 3168, 5.
const ECT0: u8 = 2;

/// What sending needs of the card.
pub struct Egress<'a, P, M> {
    pub port: &'a mut P,
    pub memory: &'a M,
    pub flows: &'a FlowStore,
    pub tables: &'a Tables,
    pub counters: &'a mut Counters,
}

pub struct Post {
    caps: PortCaps,
    waiting: VecDeque<TxMsg>,
    capacity: usize,
    /// Something was queued at the port since the last flush.
    unflushed: bool,
    ident: u16,
}

impl Post {
    pub fn new(caps: PortCaps, capacity: u16) -> Self {
        let capacity = usize::from(capacity.max(1));
        Self { caps, waiting: VecDeque::with_capacity(capacity), capacity, unflushed: false, ident: 0 }
    }

    pub fn caps(&self) -> &PortCaps {
        &self.caps
    }

    /// Segments that may still be given to [`send`](Self::send).
    pub fn room(&self) -> usize {
        self.capacity - self.waiting.len()
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Sends, or keeps it until the port has room. The caller has made sure of [`room`](Self::room).
    pub fn send<P: EthPort<M::Slice>, M: HostMemory>(&mut self, msg: TxMsg, to: &mut Egress<'_, P, M>) {
        if !self.waiting.is_empty() || self.transmit(&msg, to).is_err() {
            self.waiting.push_back(msg);
        }
    }

    /// Keeps a segment for the next [`drain`](Self::drain).
    pub fn queue(&mut self, msg: TxMsg) {
        self.waiting.push_back(msg);
    }

    /// Forgets what waits.
    pub fn clear(&mut self) {
        self.waiting.clear();
    }

    /// Sends what waits, as far as the port takes it. True: something went.
    pub fn drain<P: EthPort<M::Slice>, M: HostMemory>(&mut self, to: &mut Egress<'_, P, M>) -> bool {
        let before = self.waiting.len();
        while let Some(&msg) = self.waiting.front() {
            if self.transmit(&msg, to).is_err() {
                break;
            }
            self.waiting.pop_front();
        }
        self.waiting.len() < before
    }

    /// Puts what the port holds on the wire, if there is anything.
    pub fn flush<P: EthPort<S>, S>(&mut self, port: &mut P) {
        if core::mem::take(&mut self.unflushed) {
            // Frames that the wire refused are TCP's to send again.
            port.flush();
        }
    }

    /// A frame that is ready as it is: an ARP answer, or one of the control plane's.
    pub fn raw<P: EthPort<S>, S: Copy>(&mut self, frame: &TxFrame<'_, S>, port: &mut P, counters: &mut Counters) -> Result<(), TxBusy> {
        if port.transmit(frame).is_err() {
            counters.count(Counter::TxPortBusy);
            return Err(TxBusy);
        }
        self.unflushed = true;
        counters.count(Counter::TxFrames);
        counters.add(Counter::TxBytes, frame.header.len() as u64 + u64::from(frame.payload_len));
        Ok(())
    }

    fn transmit<P: EthPort<M::Slice>, M: HostMemory>(&mut self, msg: &TxMsg, to: &mut Egress<'_, P, M>) -> Result<(), TxBusy> {
        // A flow that was released meanwhile says no more. One that has ended still sends its last words.
        if to.flows.phase(msg.tag.flow).is_none() {
            return Ok(());
        }
        let state = to.flows.state(msg.tag.flow.index);
        let Some(dst_mac) = to.tables.next_hop(state.id.next_hop) else {
            to.counters.count(Counter::TxNoNextHop);
            return Ok(());
        };
        let seg = &msg.segment;
        let spans = spans(state.id.region, state.tx.buf, state.tx.buf_log2, seg.pos, seg.len);
        let Ok((slices, sum)) = self.gather(&spans, to.memory) else {
            to.counters.count(Counter::DmaFaults);
            return Ok(());
        };
        let id = &state.id;
        let header = TxHeader {
            dst_mac,
            src_mac: self.caps.mac,
            vlan: (id.vlan != 0).then_some(id.vlan),
            src_ip: id.key.local_ip,
            dst_ip: id.key.remote_ip,
            tos: id.tos & !3 | if seg.ect { ECT0 } else { 0 },
            ttl: id.ttl,
            ident: self.ident,
            src_port: id.key.local_port,
            dst_port: id.key.remote_port,
            seq: seg.seq,
            ack: seg.ack,
            flags: seg.flags,
            window: seg.window,
            options: TcpOptions { timestamps: seg.timestamps, sack: seg.sack, ..TcpOptions::default() },
        };
        let mut bytes = [0; HEADER_MAX];
        let checksum = if self.caps.tx_csum { Checksum::Partial } else { Checksum::Full(sum) };
        let Ok(built) = header.write(&mut bytes, seg.len, checksum) else {
            // Never: `seg.len` was bounded by what fits into a packet.
            debug_assert!(false, "a segment of {} bytes", seg.len);
            return Ok(());
        };
        let cut = seg.len > seg.mss.into();
        let offload = TxOffload {
            partial_csum: self.caps.tx_csum,
            csum_start: built.csum_start,
            csum_offset: CHECKSUM_OFFSET,
            gso_size: if cut { seg.mss } else { 0 },
            hdr_len: built.len,
        };
        let frame = TxFrame { header: &bytes[..built.len.into()], payload: &slices, payload_len: seg.len, offload };
        self.raw(&frame, to.port, to.counters)?;
        self.ident = self.ident.wrapping_add(1);
        if seg.len == 0 {
            to.counters.count(Counter::TxAcks);
        }
        to.counters.add(Counter::TxPayloadBytes, seg.len.into());
        Ok(())
    }

    /// Slices of the payload, and its sum if the port can't finish checksums.
    fn gather<M: HostMemory>(&self, spans: &Vec<HostSpan, 2>, memory: &M) -> Result<(Vec<M::Slice, 2>, Sum), DmaFault> {
        let mut slices = Vec::new();
        let mut sum = Sum::new();
        for span in spans {
            let _ = slices.push(memory.slice(*span)?);
            if !self.caps.tx_csum {
                sum = add_span(sum, *span, memory)?;
            }
        }
        Ok((slices, sum))
    }
}

/// Continues a sum over host memory, word by word.
fn add_span<M: HostMemory>(mut sum: Sum, span: HostSpan, memory: &M) -> Result<Sum, DmaFault> {
    let (start, end) = (span.addr.offset, span.addr.offset + u64::from(span.len));
    let mut at = start & !3;
    while at < end {
        let word = memory.load(HostAddr::new(span.addr.region, at))?.to_ne_bytes();
        let from = start.saturating_sub(at).min(4) as usize;
        let to = (end - at).min(4) as usize;
        sum = sum.bytes(&word[from..to]);
        at += 4;
    }
    Ok(sum)
}

/// Where payload lies: two runs where the ring wraps.
fn spans(region: toe_abi::RegionId, buf: u32, log2: u8, pos: u32, len: u32) -> Vec<HostSpan, 2> {
    let size = 1u32 << log2;
    let base = HostAddr::new(region, u64::from(buf) * 64);
    let offset = pos & (size - 1);
    let len = len.min(size);
    let first = len.min(size - offset);
    let runs = [(offset, first), (0, len - first)];
    runs.into_iter().filter(|r| r.1 > 0).map(|(offset, len)| HostSpan { addr: base.add(offset.into()), len }).collect()
}
