//! Egress: lets messages out in the order of their numbers, and sends.
//!
//! ```text
//!   protocol, post, dma ──put──► [in order, by group] ──release──► port                  segments
//!                                                             ├──► ctxq   (after flush)  events, answers, exceptions
//!                                                             ├──► ingress               leases
//!                                                             └──► protocol              boxes, flows that lost payload
//! ```
//!
//! Here is the place where what a message says becomes true: an ACK leaves, an application is told, a window opens only when the payload
//! of this and all earlier messages of the group is in host memory. Without it an ACK could leave before its payload is there, and a late
//! write could overwrite what the application was told of after a lap of its buffer.

use crate::{
    Counters,
    flows::FlowView,
    msg::{Built, Done, Event, ExceptionMsg, HostIn, Origin, OutMsg, Raw, RawFrame, Received},
};
use alloc::{boxed::Box, collections::VecDeque, vec};
use toe_abi::{
    FlowId,
    counters::{Counter, Drop, Exception},
    desc::ev_flags,
};
use toe_hal::{HostMemory, Lease, Order, TxBusy, TxFrame, TxPort};
use toe_sync::sequencer::Reorder;
use toe_tcp::SegmentOut;

/// Numbers that may be out when a rule is left out.
const WINDOW_WITHOUT_ORDER: u32 = 1 << 16;

/// Where egress puts what it lets out.
pub trait EgressOut {
    fn host(&mut self, what: HostIn);
    fn event(&mut self, event: &Event);
    fn lease(&mut self, lease: Lease);
    /// A message that has said all, and still holds what it said.
    fn home(&mut self, msg: Box<OutMsg>);
    /// A flow to be reset because payload of it was lost.
    fn poisoned(&mut self, flow: FlowId);
}

/// What becomes of an attempt to let a message out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Release {
    Out,
    /// There is none whose turn it is.
    Empty,
    /// The port has no room for it before the next flush.
    Busy,
}

struct Lane {
    order: Reorder<Box<OutMsg>>,
    /// Next, but the port had no room.
    head: Option<Box<OutMsg>>,
    /// With a rule left out: what it would have kept back.
    unordered: VecDeque<Box<OutMsg>>,
}

impl Lane {
    fn next(&mut self) -> Option<Box<OutMsg>> {
        self.head.take().or_else(|| self.unordered.pop_front()).or_else(|| self.order.release())
    }
}

pub struct Egress<T, M> {
    port: T,
    memory: M,
    flows: FlowView,
    lanes: Box<[Lane]>,
    /// Whose turn it is.
    turn: usize,
    /// Generation of each flow that has lost payload: nothing it says may leave any more.
    poisoned: Box<[u32]>,
    /// Something was queued at the port since the last flush, or found no room there.
    unflushed: bool,
    rule: Order,
    counters: Counters,
}

impl<T: TxPort<M::Slice>, M: HostMemory> Egress<T, M> {
    /// `pool`: messages of each group that can be out.
    pub fn new(port: T, memory: M, flows: FlowView, pool: u16, max_flows: u32, rule: Order, counters: Counters) -> Self {
        // With a rule left out, boxes come home before older ones have, so numbers run ahead of what is awaited.
        let window = if rule.tx && rule.writes { pool.into() } else { WINDOW_WITHOUT_ORDER };
        let lane = |_| Lane { order: Reorder::new(window), head: None, unordered: VecDeque::new() };
        let lanes = flows.groups().all().map(lane).collect();
        let poisoned = vec![0; max_flows as usize].into_boxed_slice();
        Self { port, memory, flows, lanes, turn: 0, poisoned, unflushed: false, rule, counters }
    }

    /// Takes a message: all that had to be done for it has been done.
    pub fn put(&mut self, msg: Box<OutMsg>) {
        let lane = &mut self.lanes[usize::from(msg.tag.group)];
        let answers = !msg.frames.is_empty();
        let put = if answers && !self.rule.writes || !answers && msg.tx.is_some() && !self.rule.tx {
            let skipped = lane.order.skip(msg.tag.number).is_ok();
            lane.unordered.push_back(msg);
            skipped
        } else {
            lane.order.put(msg.tag.number, msg).is_ok()
        };
        debug_assert!(put, "numbers come once, and there are no more than boxes");
    }

    /// The board's sending half of the port.
    pub fn port(&mut self) -> &mut T {
        &mut self.port
    }

    /// Takes a message as [`put`](Self::put) does, and lets it out at once if it is the next: so it is wherever nothing goes on beside.
    #[inline]
    pub fn pass(&mut self, msg: Box<OutMsg>, out: &mut impl EgressOut) -> Release {
        let lane = &mut self.lanes[usize::from(msg.tag.group)];
        if lane.head.is_some() || !lane.unordered.is_empty() || !lane.order.pass(msg.tag.number) {
            self.put(msg);
            return Release::Empty;
        }
        self.attempt(msg, out)
    }

    /// Whether a message waits that only needs room at the port.
    pub fn is_stalled(&self) -> bool {
        self.lanes.iter().any(|lane| lane.head.is_some())
    }

    /// Whether a message could be let out.
    pub fn is_ready(&self) -> bool {
        self.lanes.iter().any(|lane| lane.order.is_ready() || !lane.unordered.is_empty())
    }

    /// Whether the port holds frames back until it is flushed again.
    pub fn is_holding(&self) -> bool {
        self.port.holding()
    }

    /// Lets the next message out, the groups by turns.
    pub fn release(&mut self, out: &mut impl EgressOut) -> Release {
        let mut busy = false;
        for _ in 0..self.lanes.len() {
            self.turn = if self.turn + 1 >= self.lanes.len() { 0 } else { self.turn + 1 };
            let lane = &mut self.lanes[self.turn];
            let Some(msg) = lane.next() else { continue };
            match self.attempt(msg, out) {
                Release::Busy => busy = true,
                released => return released,
            }
        }
        if busy { Release::Busy } else { Release::Empty }
    }

    /// A message whose turn it is.
    #[inline]
    fn attempt(&mut self, msg: Box<OutMsg>, out: &mut impl EgressOut) -> Release {
        let silent = self.is_silent(&msg);
        let sent = match &msg.tx {
            Some(segment) if !silent => self.send(segment, &msg.built),
            _ => Ok(()),
        };
        if let Err(TxBusy) = sent {
            let lane = usize::from(msg.tag.group);
            self.lanes[lane].head = Some(msg);
            return Release::Busy;
        }
        self.released(msg, silent, out);
        Release::Out
    }

    /// Puts on the wire what the port holds, if there is anything.
    pub fn flush(&mut self) {
        if core::mem::take(&mut self.unflushed) || self.port.holding() {
            // Frames that the wire refused are TCP's to send again.
            let lost = self.port.flush();
            self.counters.add(Counter::TxPortLost, lost as u64);
        }
    }

    /// A frame that is ready as it is. Its host memory must stay until the next flush.
    pub fn raw(&mut self, raw: &RawFrame) -> Result<(), TxBusy> {
        let header = &raw.bytes[..raw.len as usize];
        let slice = if raw.rest.len > 0 { self.memory.slice(raw.rest).map(Some) } else { Ok(None) };
        // The memory has gone: there is nothing left to send.
        let Ok(slice) = slice else { return Ok(()) };
        let frame = TxFrame { header, payload: slice.as_slice(), payload_len: raw.rest.len, offload: raw.offload };
        self.transmit_frame(&frame)?;
        self.counters.count(match raw.kind {
            Raw::Answer => Counter::RxAnswered,
            Raw::Control => Counter::TxControlFrames,
        });
        Ok(())
    }

    /// A frame of [`Raw::Answer`] that could not be sent.
    pub fn dropped(&mut self) {
        self.counters.drop(Drop::NoBuffer);
    }

    /// Bytes of it are missing in memory, so it must not acknowledge or announce them. Only its end may be told, in the message that
    /// ended it.
    fn is_silent(&self, msg: &OutMsg) -> bool {
        let last = || msg.event.as_ref().is_some_and(|e| e.flags & ev_flags::CLOSED != 0);
        let flow = msg.tag.flow;
        (msg.fault || self.poisoned.get(flow.index as usize) == Some(&flow.generation)) && !last()
    }

    fn send(&mut self, segment: &SegmentOut, built: &Built) -> Result<(), TxBusy> {
        let mut slices = heapless::Vec::<_, 2>::new();
        for &span in &built.spans {
            let Ok(slice) = self.memory.slice(span) else {
                self.counters.count(Counter::DmaFaults);
                return Ok(());
            };
            let _ = slices.push(slice);
        }
        let header = &built.bytes[..built.len.into()];
        self.transmit_frame(&TxFrame { header, payload: &slices, payload_len: segment.len, offload: built.offload })?;
        if segment.len == 0 {
            self.counters.count(Counter::TxAcks);
        }
        self.counters.add(Counter::TxPayloadBytes, segment.len.into());
        Ok(())
    }

    fn transmit_frame(&mut self, frame: &TxFrame<'_, M::Slice>) -> Result<(), TxBusy> {
        // Also if there is no room: a port without stays so until it is flushed, and there may be nothing else to flush.
        self.unflushed = true;
        if self.port.transmit(frame).is_err() {
            self.counters.count(Counter::TxPortBusy);
            return Err(TxBusy);
        }
        self.counters.count(Counter::TxFrames);
        self.counters.add(Counter::TxBytes, frame.header.len() as u64 + u64::from(frame.payload_len));
        Ok(())
    }

    #[inline]
    fn released(&mut self, mut msg: Box<OutMsg>, silent: bool, out: &mut impl EgressOut) {
        self.frames_released(&mut msg, out);
        if msg.fault {
            self.poison(msg.tag.flow, out);
        }
        if let Some(event) = &msg.event
            && !silent
        {
            out.event(event);
        }
        if msg.done != Done::Nothing {
            out.host(HostIn::Done(msg.done, msg.mail.take()));
        }
        out.home(msg);
    }

    #[inline]
    fn frames_released(&mut self, msg: &mut OutMsg, out: &mut impl EgressOut) {
        let frames = msg.frames.len() as u64;
        match (msg.stale || msg.dropped, msg.fault) {
            (true, _) => {}
            (false, true) => self.counters.drop_many(Drop::DmaFault, frames),
            (false, false) => self.counters.add(Counter::RxDelivered, frames),
        }
        for Received { frame, .. } in msg.frames.drain(..) {
            match frame.origin {
                _ if msg.stale => out.host(HostIn::Exception(ExceptionMsg { frame, reason: Exception::UnknownFlow, owned: true })),
                Origin::Port(lease) => out.lease(lease),
                Origin::Injected => out.host(HostIn::Injected),
            }
        }
    }

    fn poison(&mut self, flow: FlowId, out: &mut impl EgressOut) {
        self.counters.count(Counter::DmaFaults);
        if let Some(poisoned) = self.poisoned.get_mut(flow.index as usize).filter(|_| self.flows.is(flow))
            && core::mem::replace(poisoned, flow.generation) != flow.generation
        {
            out.poisoned(flow);
        }
    }

    /// Forgets which flows have lost payload: there are none any more.
    pub fn reset(&mut self) {
        self.poisoned.fill(0);
    }
}
