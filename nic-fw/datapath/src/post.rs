//! Post-processing: headers for what is to be sent, and where its payload is.
//!
//! Reads only what is fixed of a flow, and host memory if the port can't finish checksums. So it can run on any number of
//! cores.

use crate::{
    Counters,
    flows::{Fixed, FlowView},
    msg::{Built, OutMsg},
    tables::HopView,
};
use toe_abi::{HostAddr, HostSpan, counters::Counter};
use toe_hal::{DmaFault, HostMemory, PortCaps, TxOffload};
use toe_tcp::SegmentOut;
use toe_wire::{Checksum, Sum, TcpOptions, TxHeader, header::CHECKSUM_OFFSET};

/// ECT(0), RFC 3168, 5.
// RFC 3168 5-1, 6.1.2-1.
const ECT0: u8 = 2;

/// The stage, or one of its replicas.
pub struct Post<M> {
    caps: PortCaps,
    flows: FlowView,
    hops: HopView,
    memory: M,
    counters: Counters,
}

impl<M: HostMemory> Post<M> {
    pub fn new(caps: PortCaps, flows: FlowView, hops: HopView, memory: M, counters: Counters) -> Self {
        Self { caps, flows, hops, memory, counters }
    }

    /// Builds the headers of the segment that `msg` sends. If it can't be sent, `msg` sends nothing any more.
    pub fn build(&mut self, msg: &mut OutMsg) {
        // A flow that was released meanwhile says no more. One that has ended still sends its last words.
        let sendable = match (&msg.tx, self.flows.fixed(msg.tag.flow)) {
            (Some(segment), Some(fixed)) => self.headers(segment, &fixed, msg.tag.number as u16, &mut msg.built),
            _ => false,
        };
        if !sendable {
            msg.tx = None;
        }
        msg.is_built = true;
    }

    fn headers(&mut self, segment: &SegmentOut, fixed: &Fixed, ident: u16, built: &mut Built) -> bool {
        let Some(dst_mac) = self.hops.mac(fixed.next_hop) else {
            self.counters.count(Counter::TxNoNextHop);
            return false;
        };
        built.spans = spans(fixed, segment);
        let Ok(sum) = self.sum(&built.spans) else {
            self.counters.count(Counter::DmaFaults);
            return false;
        };
        let header = TxHeader {
            dst_mac,
            src_mac: self.caps.mac,
            vlan: (fixed.vlan != 0).then_some(fixed.vlan),
            src_ip: fixed.place.key.local_ip,
            dst_ip: fixed.place.key.remote_ip,
            // RFC 9293 SHLD-22.
            tos: fixed.tos & !3 | if segment.ect { ECT0 } else { 0 },
            ttl: fixed.ttl,
            ident,
            src_port: fixed.place.key.local_port,
            dst_port: fixed.place.key.remote_port,
            seq: segment.seq,
            ack: segment.ack,
            flags: segment.flags,
            window: segment.window,
            urgent: segment.urgent,
            // RFC 9293 MUST-65: MSS is for SYNs.
            // RFC 2018 2-1.
            options: TcpOptions { timestamps: segment.timestamps, sack: segment.sack, ..TcpOptions::default() },
        };
        let checksum = if self.caps.tx_csum { Checksum::Partial } else { Checksum::Full(sum) };
        let Ok(written) = header.write(&mut built.bytes, segment.len, checksum) else {
            // Never: `segment.len` was bounded by what fits into a packet.
            debug_assert!(false, "a segment of {} bytes", segment.len);
            return false;
        };
        built.len = written.len;
        built.offload = TxOffload {
            partial_csum: self.caps.tx_csum,
            csum_start: written.csum_start,
            csum_offset: CHECKSUM_OFFSET,
            gso_size: if segment.len > segment.mss.into() { segment.mss } else { 0 },
            hdr_len: written.len,
        };
        true
    }

    /// The payload's sum, if the port can't finish checksums.
    fn sum(&self, spans: &[HostSpan]) -> Result<Sum, DmaFault> {
        let mut sum = Sum::new();
        if !self.caps.tx_csum {
            for span in spans {
                sum = add_span(sum, *span, &self.memory)?;
            }
        }
        Ok(sum)
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
fn spans(fixed: &Fixed, segment: &SegmentOut) -> heapless::Vec<HostSpan, 2> {
    let size = 1u32 << fixed.tx_buf_log2;
    let base = HostAddr::new(fixed.region, u64::from(fixed.tx_buf) * 64);
    let offset = segment.pos & (size - 1);
    let len = segment.len.min(size);
    let first = len.min(size - offset);
    let runs = [(offset, first), (0, len - first)];
    runs.into_iter().filter(|r| r.1 > 0).map(|(offset, len)| HostSpan { addr: base.add(offset.into()), len }).collect()
}
