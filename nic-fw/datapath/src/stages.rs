//! All stages of one card, and the steps that a composition is made of. Each step does one piece of work and says what came
//! of it; which step comes when is the composition's business.
//!
//! ```text
//!   receive ─ judge ─┐                                  ┌─► post ─► port
//!   host ────────────┼─► protocol ─► order ─► release ──┼─► events ─► context queues
//!   control ─────────┤   (dma: payload writes)          └─► completions, exceptions ─► control region
//!   timer, send ─────┘
//! ```

use crate::{
    CardConfig, Counters,
    control::{Control, Env as ControlEnv, FETCH_PACKET, FETCH_SUBMISSION, Packet, Put, Step},
    ctxq::{Contexts, FETCH_DESCRIPTORS, Posting},
    dma::{Bytes, Dma, FETCH, Item, Released},
    msg::{ControlOp, DmaMsg, Done, ExceptionMsg, RxRef, Source, Work},
    post::{Egress, Post},
    pre::{self, Verdict},
    protocol::{Env as ProtocolEnv, Outcome, Protocol},
    sched::Sched,
    store::FlowStore,
    tables::Tables,
};
use alloc::vec::Vec;
use toe_abi::{
    CtxId, FlowId, RegionId,
    counters::{Counter, Drop, Exception},
    desc::ev_flags,
    frames::flags,
};
use toe_hal::{DmaFault, EthPort, HostMemory, Instant, Kick, RxBurst, TxBusy, TxFrame, TxOffload};
use toe_wire::Arp;

/// Longest frame that the card builds without payload: an ARP answer with a tag.
const ARP_FRAME: usize = 64;
/// IPv4 total length.
const PACKET_MAX: u32 = 65_535;
/// IPv4 and TCP headers with all options.
const HEADERS_MAX: u32 = 100;

pub struct Stages<P, M, K> {
    pub port: P,
    pub memory: M,
    pub kick: K,
    pub counters: Counters,
    pub flows: FlowStore,
    pub tables: Tables,
    pub contexts: Contexts,
    pub control: Control,
    pub protocol: Protocol,
    pub sched: Sched,
    pub dma: Dma,
    pub post: Post,
    pub now: Instant,
    /// Segments leave when they come out of the order, not when the composition says so.
    pub direct: bool,
    /// Flows to be reset because payload of theirs was lost.
    poisoned: Vec<FlowId>,
    /// Number of the next message to come out of the order.
    next_released: u32,
}

struct Sources<'a, P, S> {
    port: &'a P,
    control: &'a Control,
    slice: core::marker::PhantomData<S>,
}

impl<P: EthPort<S>, S> Bytes for Sources<'_, P, S> {
    fn bytes(&self, source: Source) -> &[u8] {
        match source {
            Source::Port(lease) => self.port.frame(lease),
            other => self.control.bytes(other),
        }
    }
}

macro_rules! sources {
    ($s:expr) => {
        &Sources::<P, M::Slice> { port: &$s.port, control: &$s.control, slice: core::marker::PhantomData }
    };
}

macro_rules! control_env {
    ($s:expr) => {
        &mut ControlEnv {
            memory: &mut $s.memory,
            contexts: &mut $s.contexts,
            flows: &$s.flows,
            tables: &mut $s.tables,
            counters: &mut $s.counters,
            now: $s.now,
        }
    };
}

macro_rules! egress {
    ($s:expr) => {
        &mut Egress {
            port: &mut $s.port,
            memory: &$s.memory,
            flows: &$s.flows,
            tables: &$s.tables,
            counters: &mut $s.counters,
        }
    };
}

impl<P, M, K> Stages<P, M, K>
where
    M: HostMemory,
    P: EthPort<M::Slice>,
    K: Kick,
{
    pub fn new(config: &CardConfig, port: P, memory: M, kick: K) -> Self {
        let caps = port.caps();
        let max_flows = config.max_flows.clamp(1, 1 << 24);
        // A super-frame needs its checksum finished by whoever cuts it, and is one IP packet until then.
        let tso_max = if caps.tx_csum { caps.tso_max.min(PACKET_MAX - HEADERS_MAX) } else { 0 };
        let spin_us = config.spin_us;
        Self {
            port,
            memory,
            kick,
            counters: Counters::default(),
            flows: FlowStore::new(max_flows, config.hash_key),
            tables: Tables::new(config.max_regions, config.max_next_hops, config.max_addresses),
            contexts: Contexts::new(config.max_contexts, max_flows, spin_us, config.visit_descriptors),
            control: Control::new(max_flows),
            protocol: Protocol::new(tso_max),
            sched: Sched::new(max_flows as usize, config.quantum_bytes),
            dma: Dma::new(config.dma_entries.max(16)),
            post: Post::new(caps, config.egress_entries),
            now: Instant(0),
            direct: true,
            poisoned: Vec::with_capacity(config.dma_entries.max(16).into()),
            next_released: 0,
        }
    }

    // ---- pre ----

    /// Takes frames from the port.
    pub fn receive(&mut self, burst: &mut RxBurst) -> usize {
        let n = self.port.receive(burst);
        self.counters.add(Counter::RxFrames, n as u64);
        self.counters.add(Counter::RxBytes, burst.iter().map(|f| u64::from(f.len)).sum());
        n
    }

    /// Judges a frame; what is no known flow's is dealt with here. Needs room for two entries in the order.
    pub fn judge(&mut self, rx: RxRef) -> Option<Work> {
        let mac = self.post.caps().mac;
        let bytes = match rx.source {
            Source::Port(lease) => self.port.frame(lease),
            other => self.control.bytes(other),
        };
        let bytes = bytes.get(..rx.len as usize).unwrap_or(bytes);
        match pre::classify(bytes, rx, mac, &self.flows, &self.tables) {
            Verdict::Flow(msg) => return Some(Work::Rx(msg)),
            Verdict::Drop(reason) => {
                self.counters.drop(reason);
                self.give_back(rx.source);
            }
            Verdict::Exception(reason, rx) => self.exception(ExceptionMsg { frame: rx, reason, owned: true }),
            Verdict::Answer { reply, vlan } => self.answer_arp(&reply, vlan, rx),
        }
        None
    }

    fn answer_arp(&mut self, reply: &Arp, vlan: Option<u16>, rx: RxRef) {
        let mut bytes = [0; ARP_FRAME];
        let sent = reply.write(&reply.target_mac, vlan, &mut bytes).is_ok_and(|len| {
            let frame = TxFrame { header: &bytes[..len], payload: &[], payload_len: 0, offload: TxOffload::default() };
            self.post.raw(&frame, &mut self.port, &mut self.counters).is_ok()
        });
        if sent {
            self.counters.count(Counter::RxAnswered);
        } else {
            self.counters.drop(Drop::NoBuffer);
        }
        // The control plane learns from requests too, if it is there and has room.
        let copy = ExceptionMsg { frame: rx, reason: Exception::Arp, owned: false };
        self.exception(copy);
    }

    fn exception(&mut self, msg: ExceptionMsg) {
        let reason = match self.control.exception(&msg, control_env!(self)) {
            Ok(Put::Frame(posting, frame)) => return self.submit(posting, Some(frame)),
            Ok(Put::Skip(posting)) => {
                self.submit(posting, None);
                match self.control.exception(&msg, control_env!(self)) {
                    Ok(Put::Frame(posting, frame)) => return self.submit(posting, Some(frame)),
                    Ok(_) => Drop::ExceptionRingFull,
                    Err(reason) => reason,
                }
            }
            Ok(Put::Full) => Drop::ExceptionRingFull,
            Err(reason) => reason,
        };
        if msg.owned {
            self.counters.drop(reason);
        }
        self.give_back(msg.frame.source);
    }

    pub fn give_back(&mut self, source: Source) {
        match source {
            Source::Port(lease) => self.port.release(lease),
            Source::Injected => self.control.packet_done(control_env!(self)),
            Source::Completion | Source::Inline => {}
        }
    }

    // ---- protocol and the order ----

    /// Runs protocol on a piece of work. Needs room for two entries in the order.
    pub fn protocol(&mut self, work: Work) -> Option<DmaMsg> {
        let env = &mut ProtocolEnv {
            flows: &mut self.flows,
            sched: &mut self.sched,
            counters: &mut self.counters,
            mailbox: &mut self.control.mailbox,
            now: self.now,
        };
        match self.protocol.handle(work, env) {
            Outcome::Out(msg) => Some(msg),
            Outcome::Stale(m) => {
                self.exception(ExceptionMsg { frame: m.frame, reason: Exception::UnknownFlow, owned: true });
                None
            }
            Outcome::Nothing => None,
        }
    }

    /// Puts a message into the order; its payload starts on its way.
    pub fn order(&mut self, mut msg: DmaMsg) {
        let writes = core::mem::take(&mut msg.writes);
        if writes.is_empty() && self.dma.is_empty() && self.post.room() > 0 {
            // Nothing to wait for.
            return self.released(Released { item: Item::Flow(msg), fault: false });
        }
        self.dma.submit(Item::Flow(msg), &writes, None, &mut self.memory, sources!(self));
    }

    fn submit(&mut self, posting: Posting, second: Option<crate::msg::Write>) {
        let Posting { item, write, bytes } = posting;
        let mut writes = heapless::Vec::<_, 2>::new();
        let _ = writes.push(write);
        if let Some(second) = second {
            let _ = writes.push(second);
        }
        self.dma.submit(item, &writes, Some(&bytes), &mut self.memory, sources!(self));
    }

    /// Learns which transfers have completed. True: some were. A control message that came may be work.
    pub fn complete(&mut self) -> (bool, Option<Work>) {
        let fetches = self.contexts.is_fetching() || self.control.is_fetching();
        let mut fetched = heapless::Vec::<_, 4>::new();
        let any = self.dma.poll(fetches, &mut self.memory, sources!(self), |cookie, result| {
            let _ = fetched.push((cookie, result));
        });
        let mut work = None;
        for (cookie, result) in fetched {
            debug_assert!(cookie & FETCH != 0);
            match cookie {
                FETCH_DESCRIPTORS => self.contexts.fetched(result, &mut self.memory, &mut self.counters),
                FETCH_PACKET => self.control.packet_fetched(result, control_env!(self)),
                FETCH_SUBMISSION => {
                    let step = self.control.fetched(result, control_env!(self));
                    work = self.step(step).1;
                }
                _ => {}
            }
        }
        (any, work)
    }

    /// Lets the oldest entry out of the order, if it is complete and there is room for what it sends.
    pub fn release(&mut self) -> bool {
        if self.post.room() == 0 {
            return false;
        }
        let released = self.dma.release();
        let any = released.is_some();
        if let Some(released) = released {
            self.released(released);
        }
        any
    }

    fn released(&mut self, Released { item, fault }: Released) {
        match item {
            Item::Flow(msg) => self.flow_released(msg, fault),
            Item::Exception { msg, tail, epoch } => {
                if let Some(msg) = msg {
                    self.exception_released(&msg, fault);
                }
                self.control.publish_exception(tail, epoch, fault, control_env!(self));
            }
            Item::Event { ctx, opened, phase_at, phase, flow, last } => {
                let (memory, counters) = (&self.memory, &mut self.counters);
                self.contexts.publish(ctx, opened, (phase_at, phase), (flow, last), fault, memory, counters);
            }
            Item::Completion { phase_at, phase, epoch } => {
                self.control.publish(phase_at, phase, epoch, fault, control_env!(self));
            }
        }
    }

    fn exception_released(&mut self, msg: &ExceptionMsg, fault: bool) {
        if msg.owned && fault {
            self.counters.drop(Drop::DmaFault);
        } else if msg.owned {
            self.counters.count(Counter::RxExceptions);
            self.counters.exception(msg.reason);
        }
        self.give_back(msg.frame.source);
    }

    fn flow_released(&mut self, msg: DmaMsg, fault: bool) {
        let flow = msg.tag.flow;
        debug_assert_eq!((msg.tag.group, msg.tag.number), (0, self.next_released), "out of order");
        self.next_released = msg.tag.number.wrapping_add(1);
        let phase = self.flows.phase(flow);
        if let Some(frame) = msg.frame {
            match (msg.dropped, fault) {
                (true, _) => {}
                (false, true) => self.counters.drop(Drop::DmaFault),
                (false, false) => self.counters.count(Counter::RxDelivered),
            }
            self.give_back(frame.source);
        }
        if fault {
            self.poison(flow);
        }
        // Bytes of it are missing in memory: it must not acknowledge or announce them. Only its end may be told, in the
        // message that ended it.
        let last = msg.event.is_some_and(|e| e.flags & ev_flags::CLOSED != 0);
        let silent = !last && phase.is_some() && self.flows.poisoned(flow.index);
        if !silent {
            if let Some(tx) = msg.tx {
                if self.direct {
                    self.post.send(tx, egress!(self));
                } else {
                    self.post.queue(tx);
                }
            }
            if let Some(event) = msg.event.filter(|_| phase.is_some()) {
                self.contexts.notify(&event);
            }
        }
        if let Done::Released(flow) = msg.done {
            self.free(flow);
        }
        self.control.done(msg.done, &mut self.counters);
    }

    fn poison(&mut self, flow: FlowId) {
        self.counters.count(Counter::DmaFaults);
        if self.flows.phase(flow).is_some() {
            self.flows.poison(flow.index);
            if self.poisoned.len() < self.poisoned.capacity() && !self.poisoned.contains(&flow) {
                self.poisoned.push(flow);
            }
        }
    }

    /// A flow to be reset because payload of it was lost.
    pub fn next_poisoned(&mut self) -> Option<Work> {
        self.poisoned.pop().map(|flow| Work::Control { op: ControlOp::Poisoned, flow })
    }

    /// A flow whose id means nothing from now on.
    fn free(&mut self, flow: FlowId) {
        if self.flows.phase(flow).is_some() {
            self.contexts.forget(flow);
            self.control.forget(flow);
            self.flows.free(flow.index);
        }
    }

    // ---- sources of work ----

    /// The control stage's next step. True: something was done.
    pub fn control_step(&mut self) -> (bool, Option<Work>) {
        let step = self.control.step(control_env!(self));
        self.step(step)
    }

    fn step(&mut self, step: Step) -> (bool, Option<Work>) {
        match step {
            Step::Idle => (false, None),
            Step::Progress => (true, None),
            Step::Work(work) => (true, Some(work)),
            Step::Unmap(region) => {
                // The port may still hold slices of it.
                self.post.flush(&mut self.port);
                self.memory.unbind(region);
                self.tables.set_region(region, None);
                self.control.unmapped(&mut self.counters);
                (true, None)
            }
        }
    }

    /// Deals with the next packet of the control plane. Needs room for two entries in the order.
    pub fn packet(&mut self) -> (bool, Option<Work>) {
        match self.control.next_packet(control_env!(self)) {
            None => (false, None),
            Some(Packet::Inject(rx)) => {
                self.counters.count(Counter::RxInjected);
                (true, self.judge(rx))
            }
            Some(Packet::Transmit { header_len, rest, record }) => (self.transmit_packet(header_len, rest, &record), None),
        }
    }

    fn transmit_packet(&mut self, header_len: u32, rest: toe_abi::HostSpan, record: &toe_abi::frames::FrameRecord) -> bool {
        let partial = record.flags & flags::NEEDS_CSUM != 0 && self.post.caps().tx_csum;
        let offload = TxOffload {
            partial_csum: partial,
            csum_start: if partial { record.csum_start } else { 0 },
            csum_offset: if partial { record.csum_offset } else { 0 },
            ..TxOffload::default()
        };
        let header = &self.control.bytes(Source::Injected)[..header_len as usize];
        let sent = match self.memory.slice(rest) {
            Ok(slice) => {
                let one = [slice];
                let payload = if rest.len > 0 { &one[..] } else { &[] };
                let frame = TxFrame { header, payload, payload_len: rest.len, offload };
                self.post.raw(&frame, &mut self.port, &mut self.counters)
            }
            // The ring lies in the control region, so only a region that is gone faults: nothing left to send.
            Err(DmaFault) => Ok(()),
        };
        if let Err(TxBusy) = sent {
            return false;
        }
        self.counters.count(Counter::TxControlFrames);
        // Its place in the ring is about to be given back.
        self.post.flush(&mut self.port);
        self.control.packet_done(control_env!(self));
        true
    }

    /// Looks at the next polled context. True: descriptors were found.
    pub fn visit(&mut self) -> bool {
        self.contexts.visit(self.now, &mut self.memory, &mut self.counters)
    }

    /// The next descriptor of the batch that was found.
    pub fn host_work(&mut self) -> Option<Work> {
        self.contexts.next_work(&self.memory, &mut self.counters).map(Work::Host)
    }

    /// The next timer that has expired.
    pub fn timer_work(&mut self) -> Option<Work> {
        self.sched.timers.expire(self.now.micros() / 1000).map(|flow| Work::Timer { flow })
    }

    /// The next flow whose turn it is to send. Not while the port is busy.
    pub fn send_work(&mut self) -> Option<Work> {
        if !self.post.is_empty() {
            return None;
        }
        self.sched.next().map(|flow| Work::Send { flow })
    }

    // ---- sinks ----

    /// Sends what waits for the port. True: something went.
    pub fn drain(&mut self) -> bool {
        !self.post.is_empty() && self.post.drain(egress!(self))
    }

    pub fn flush(&mut self) {
        self.post.flush(&mut self.port);
    }

    /// Posts the next event that has room. Needs room for an entry in the order.
    pub fn event(&mut self) -> bool {
        let posting = self.contexts.next_event(self.now, &self.memory, &mut self.counters);
        let any = posting.is_some();
        if let Some(posting) = posting {
            self.submit(posting, None);
        }
        any
    }

    /// Posts the next control completion. Needs room for an entry in the order.
    pub fn completion(&mut self) -> bool {
        while let Some(flow) = self.contexts.next_settled() {
            self.control.ended(flow);
        }
        while let Some(flow) = self.control.next_consumed(&self.memory) {
            self.free(flow);
        }
        let posting = self.control.next_completion(control_env!(self));
        let any = posting.is_some();
        if let Some(posting) = posting {
            self.submit(posting, None);
        }
        any
    }

    pub fn interrupt(&mut self) {
        self.contexts.interrupt(&self.memory, &mut self.kick, &mut self.counters);
    }

    /// Parks contexts that have been idle for a while.
    pub fn park_idle(&mut self) {
        self.contexts.retry_all(self.now);
        self.contexts.park_idle(self.now, &self.memory, &mut self.counters);
        if !self.control.is_busy() {
            let control = &self.control;
            let look = |memory: &M| control.any_packet(memory);
            self.contexts.park_control(self.now, &self.memory, &mut self.counters, look);
        }
    }

    // ---- the board's side ----

    pub fn attach_control(&mut self) {
        self.control.attach();
        if self.contexts.open_control(self.now, &self.memory).is_err() {
            self.control.detach();
        }
    }

    pub fn detach_control(&mut self) {
        self.control.detach();
        self.contexts.close(CtxId::CONTROL);
    }

    /// Forgets all flows, contexts and regions.
    pub fn reset(&mut self) {
        self.detach_control();
        self.post.clear();
        self.post.flush(&mut self.port);
        for i in 0..self.flows.capacity() {
            if let Some(flow) = self.flows.id(i) {
                self.sched.forget(i);
                self.free(flow);
            }
        }
        while let Some(region) = self.tables.any_mapped() {
            while let Some(ctx) = self.contexts.of_region(region) {
                self.contexts.close(ctx);
            }
            self.memory.unbind(region);
            self.tables.set_region(region, None);
        }
        self.memory.unbind(RegionId::CONTROL);
        // What was under way has failed by now: give its frames back.
        while self.complete().0 || self.dma.can_release() {
            while let Some(released) = self.dma.release() {
                self.released(released);
            }
        }
        self.post.clear();
        self.tables.clear();
    }

    /// Whether work waits that needs no one from outside.
    pub fn is_busy(&self) -> bool {
        !self.dma.is_empty()
            || !self.post.is_empty()
            || self.sched.any_ready()
            || !self.contexts.is_quiet()
            || self.control.is_busy()
            || !self.poisoned.is_empty()
    }

    /// See [`Composition::next_deadline`](crate::Composition::next_deadline).
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        if self.is_busy() {
            return Some(now);
        }
        let timer = self.sched.timers.next_tick().map(|tick| Instant(tick.saturating_mul(1000)));
        timer.into_iter().chain(self.contexts.next_retry()).min()
    }

    /// See [`Composition::park`](crate::Composition::park).
    pub fn park(&mut self, now: Instant) -> bool {
        self.now = now;
        if self.is_busy() {
            return false;
        }
        if !self.contexts.park_all(now, &self.memory, &mut self.counters) {
            return false;
        }
        if self.control.any_packet(&self.memory) {
            self.contexts.unpark(CtxId::CONTROL, now, &self.memory, &mut self.counters);
            return false;
        }
        self.counters.count(Counter::Sleeps);
        true
    }

    pub fn kicked(&mut self, ctx: CtxId) {
        self.contexts.kicked(ctx, self.now, &self.memory, &mut self.counters);
    }
}
