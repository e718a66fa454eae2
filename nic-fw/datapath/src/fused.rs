//! The fused composition: one core runs a burst through all stages by direct calls.
//!
//! ```text
//!   port ─► pre ─► protocol ─► dma ─► egress ─► post ─► port      no rings, no numbers on the way in: nothing can overtake
//! ```

mod receive;

use crate::{
    CardConfig, Composition,
    counters::CounterSums,
    dma::Dma,
    egress::{Egress, EgressOut, Release},
    flows::{Directory, Groups, States},
    host::{Host, HostParts, Observed},
    msg::{ControlOp, Event, HostIn, OutMsg, Stop, Work},
    pipeline::{
        Gauges, RESET_ROUNDS, StageId, observe,
        observe::Meter,
        trace::{self, Tracer, Traces},
    },
    pool::{Class, Pool},
    post::Post,
    pre::Pre,
    protocol::Protocol,
    sched::Sched,
    tables::Tables,
};
use alloc::{boxed::Box, collections::VecDeque};
use toe_abi::{
    CtxId, FlowId,
    counters::Counter,
    observe::{TraceRecord, stage, trace_kind},
};
use toe_hal::{Board, Clock, HostMemory, Instant, Lease, Parts, PortCaps, RxBurst, RxLosses, RxPort, TxPort, port::BURST};
use toe_sync::share::Shares;
use toe_tcp::Pools;

/// Control messages, packets, descriptors or segments handled in one round, each.
const BUDGET: usize = 64;
/// How often a core that is awake asks the port what it has lost, microseconds.
const LOSSES_EVERY_US: u64 = 100_000;
/// Longest sleep while the port holds frames back, microseconds.
const HOLDING_US: u64 = 1000;
/// Sleep while the port has no room, microseconds: a fraction of what the queues of ports hold, so that the wire does not run dry.
pub(crate) const STALLED_US: u64 = 250;
/// IPv4 total length.
const PACKET_MAX: u32 = 65_535;
/// IPv4 and TCP headers with all options.
const HEADERS_MAX: u32 = 100;

type FramesOf<B> = <<B as Board>::Rx as RxPort>::Frames;

/// Most payload bytes that a port cuts; 0: it cuts nothing. A super-frame needs its checksum finished by whoever cuts it, and is one IP
/// packet until then.
pub fn tso_max(caps: &PortCaps) -> u32 {
    if caps.tx_csum { caps.tso_max.min(PACKET_MAX - HEADERS_MAX) } else { 0 }
}

/// The card on one core.
pub struct Card<B: Board> {
    rx: B::Rx,
    frames: FramesOf<B>,
    pre: Pre,
    protocol: Protocol,
    post: Post<B::Memory>,
    dma: Dma<B::Memory, FramesOf<B>>,
    egress: Egress<B::Tx, B::Memory>,
    host: Host<B>,
    outs: Outs,
    burst: RxBurst,
    losses_at: Instant,
    /// When to look again whether the port has room, if something waits for it.
    again_at: Option<Instant>,
    meter: Meter,
    tracer: Tracer,
    /// Somebody traces, as of the beginning of the round.
    tracing: bool,
    clock: B::Clock,
    polls: u32,
    /// Counts traced frames of flows.
    received: u32,
}

/// What egress has let out and is not dealt with yet.
struct Outs {
    /// After the next flush: who is told that bytes are acknowledged may overwrite them, and the port reads them at the flush.
    host: VecDeque<HostIn>,
    poisoned: VecDeque<FlowId>,
}

impl Outs {
    fn has_room(&self) -> bool {
        self.host.len() < self.host.capacity()
    }
}

/// Takes what egress lets out, and gives back what was borrowed for it.
struct Exit<'a, R> {
    outs: &'a mut Outs,
    rx: &'a mut R,
    pool: &'a mut Pool,
    /// What a trace says of the message that came home, if somebody traces.
    traced: Option<TraceRecord>,
}

impl<R: RxPort> EgressOut for Exit<'_, R> {
    fn host(&mut self, what: HostIn) {
        debug_assert!(self.outs.has_room(), "the data path allocates nothing");
        what.queue(&mut self.outs.host);
    }
    fn event(&mut self, event: &Event) {
        debug_assert!(self.outs.has_room(), "the data path allocates nothing");
        HostIn::queue_event(event, &mut self.outs.host);
    }
    fn lease(&mut self, lease: Lease) {
        self.rx.release(lease);
    }
    fn home(&mut self, msg: Box<OutMsg>) {
        if let Some(record) = &mut self.traced {
            *record = trace::out(trace_kind::OUT, &msg);
        }
        self.pool.give(msg);
    }
    fn poisoned(&mut self, flow: FlowId) {
        self.outs.poisoned.push_back(flow);
    }
}

impl<B: Board> Card<B> {
    /// With less room than a burst of frames may take, none would ever be received: pools are at least as large as that.
    pub fn new(config: CardConfig, parts: Parts<B>) -> Self {
        let burst = 2 * BURST as u16;
        let config =
            CardConfig { pool_messages: config.pool_messages.max(burst), posting_entries: config.posting_entries.max(burst), ..config };
        let Parts { memory, rx, tx, kick, clock } = parts;
        let caps = tx.caps();
        let groups = Groups::new(1);
        let directory = Directory::new(config.max_flows(), groups, config.hash_key);
        let tables = Tables::new(config.max_regions, config.max_next_hops, config.max_addresses);
        let (view, flows) = (directory.view(), directory.capacity());
        let mut sums = CounterSums::default();
        let frames = rx.frames();
        let (pool, pools) = (Pool::new(config.pool_messages), Pools::new(config.tcp_records, config.max_regions));
        let size = pool.size();
        let shares = Shares::new(config.max_regions);
        let states = States::new(flows, groups, 0);
        let sched = Sched::new(flows as usize, config.quantum_bytes, shares.clone());
        let pre = Pre::new(caps.mac, view.clone(), tables.addresses(), sums.stage());
        let post = Post::new(caps, view.clone(), tables.next_hops(), memory.handle(), sums.stage());
        let dma = Dma::new(size, memory.handle(), frames.clone());
        let egress = Egress::new(tx, memory.handle(), view, size, flows, B::ORDER, sums.stage());
        let protocol = Protocol::new((states, pools), sched, pool, sums.stage(), tso_max(&caps));
        let host = HostParts { memory, kick, frames: frames.clone(), caps, clock: clock.clone() };
        let mut instances = observe::Board::default();
        let meter = instances.add(StageId::new(stage::FUSED, 0), 0, None);
        let (traces, tracer) = Traces::single();
        let observed = Observed { instances, traces, shares };
        // What messages tell when they come home, and what a round may tell beside: timers are looked at most.
        let outs =
            Outs { host: VecDeque::with_capacity(3 * usize::from(size) + 8 * BUDGET), poisoned: VecDeque::with_capacity(size.into()) };
        Self {
            rx,
            frames,
            pre,
            protocol,
            post,
            dma,
            egress,
            host: Host::new(&config, host, directory, tables, sums, observed),
            outs,
            burst: RxBurst::new(),
            losses_at: Instant(0),
            again_at: None,
            meter,
            tracer,
            tracing: false,
            clock,
            polls: 0,
            received: 0,
        }
    }

    fn has_credit(&self, class: Class) -> bool {
        self.protocol.pool.has(class)
    }

    /// Runs protocol on a piece of work, and what comes of it as far as it goes. The caller has made sure of credit.
    fn run(&mut self, work: Work, class: Class, now: Instant) {
        let Some(msg) = self.protocol.pool.take(class) else {
            debug_assert!(false, "no credit for {work:?}");
            return;
        };
        self.meter.handled(1);
        let begin = self.begin();
        let descriptor = if let Work::Host(msg) = &work { Some(msg.flow) } else { None };
        if let Some(msg) = self.protocol.handle(work, msg, now) {
            self.handled(begin, class, msg);
        } else if let Some(flow) = descriptor {
            self.record(begin, stage::PROTOCOL, || trace::host(trace_kind::HC_DONE, 0, 0, flow));
        }
    }

    /// Protocol has made a message.
    fn handled(&mut self, begin: u64, class: Class, msg: Box<OutMsg>) {
        if begin != 0 {
            let (port, number, next) = (self.protocol.port(msg.tag.flow), self.received, trace::next(&msg));
            let kind = trace::kind_of(class);
            self.record(begin, stage::PROTOCOL, || TraceRecord { number, port, next, ..trace::out(kind, &msg) });
        }
        self.forward(msg);
    }

    /// When a visit to a stage begins; 0: nobody traces.
    fn begin(&self) -> u64 {
        if self.tracing { self.clock.nanos() } else { 0 }
    }

    fn record(&mut self, begin: u64, stage: u16, what: impl FnOnce() -> TraceRecord) {
        self.tracer.record(begin, StageId::new(stage, 0), || self.clock.nanos(), what);
    }

    /// A message goes through post, DMA and egress, as far as it has to and may.
    fn forward(&mut self, mut msg: Box<OutMsg>) {
        let mut next = msg.next_stop();
        if next == Stop::Post {
            let begin = self.begin();
            self.post.build(&mut msg);
            self.record(begin, stage::POST, || trace::out(trace_kind::OUT, &msg));
            next = msg.next_stop();
        }
        let done = match next {
            Stop::Host => {
                self.host.inject(msg);
                None
            }
            Stop::Dma => self.submit(msg),
            Stop::Post | Stop::Egress => Some(msg),
        };
        if let Some(msg) = done {
            self.pass(msg);
        }
    }

    fn submit(&mut self, mut msg: Box<OutMsg>) -> Option<Box<OutMsg>> {
        msg.begin_ns = self.begin();
        let written = self.dma.submit(msg)?;
        self.record(written.begin_ns, stage::DMA, || trace::out(trace_kind::OUT, &written));
        Some(written)
    }

    /// Lets a message out for which all is done, and those that waited for it.
    fn pass(&mut self, msg: Box<OutMsg>) {
        self.exit(|egress, exit| egress.pass(msg, exit));
        if self.egress.is_ready() {
            self.release();
        }
    }

    /// Lets out of the order what may leave. True: something did.
    fn release(&mut self) -> bool {
        let mut any = false;
        while self.exit(|egress, exit| egress.release(exit)) == Release::Out {
            any = true;
        }
        any
    }

    /// A visit to egress.
    #[inline]
    fn exit(&mut self, visit: impl FnOnce(&mut Egress<B::Tx, B::Memory>, &mut Exit<'_, B::Rx>) -> Release) -> Release {
        let begin = self.begin();
        let Self { egress, rx, protocol, outs, .. } = self;
        let traced = (begin != 0).then(TraceRecord::default);
        let mut exit = Exit { outs, rx, pool: &mut protocol.pool, traced };
        let released = visit(egress, &mut exit);
        if let (Release::Out, Some(record)) = (released, exit.traced) {
            self.record(begin, stage::EGRESS, || record);
        }
        released
    }

    /// Transfers that have completed, and what comes out of the order.
    fn complete(&mut self, now: Instant) -> bool {
        let mut any = self.host.complete() | self.dma.poll();
        while let Some(msg) = self.dma.completed() {
            self.record(msg.begin_ns, stage::DMA, || trace::out(trace_kind::OUT, &msg));
            self.egress.put(msg);
        }
        any |= self.host_released() | self.release();
        while let Some(&flow) = self.outs.poisoned.front().filter(|_| self.has_credit(Class::Control)) {
            self.outs.poisoned.pop_front();
            self.run(Work::Control { op: ControlOp::Poisoned, flow, mail: None }, Class::Control, now);
            any = true;
        }
        any
    }

    /// What the host's side has written or is done with.
    fn host_released(&mut self) -> bool {
        let mut any = false;
        while self.host.release() {
            any = true;
            self.host.next_injected().into_iter().for_each(|msg| self.egress.put(msg));
        }
        while let Some(lease) = self.host.next_lease() {
            self.rx.release(lease);
        }
        any
    }

    fn control(&mut self, now: Instant) -> bool {
        let mut any = false;
        for _ in 0..BUDGET {
            let did = self.host.control_step() | self.host.completion();
            if !(did | self.host_work(now)) {
                break;
            }
            any = true;
        }
        for _ in 0..BUDGET {
            if !(self.host.has_room() && self.host.packet()) {
                break;
            }
            self.raw_frame();
            self.host_work(now);
            any = true;
        }
        any | self.raw_frame()
    }

    /// Work that the host's side has for protocol. What it answers comes back after the flush.
    fn host_work(&mut self, now: Instant) -> bool {
        let mut any = false;
        while let Some((group, work)) = self.host.next_work() {
            let class = if matches!(work, Work::Rx(_)) { Class::Rx } else { Class::Control };
            if !self.has_credit(class) {
                self.host.unget_work(group, work);
                break;
            }
            self.run(work, class, now);
            any = true;
        }
        self.host_released();
        any
    }

    /// Sends the control plane's frame.
    fn raw_frame(&mut self) -> bool {
        let Some(raw) = self.host.next_raw() else { return false };
        if self.egress.raw(&raw).is_err() {
            self.host.unget_raw(raw);
            return false;
        }
        // Its place in the ring is about to be given back.
        self.egress.flush();
        self.host.take(HostIn::Transmitted);
        true
    }

    fn descriptors(&mut self, now: Instant) -> bool {
        let (mut any, mut n) = (false, 0);
        for _ in 0..self.host.round().max(1) {
            n += self.staged_descriptors(now);
            // The next round goes on where this one ends: what applications have to say does not keep from what is received.
            if n >= BUDGET {
                break;
            }
            any |= self.host.visit();
            n += self.staged_descriptors(now);
        }
        any || n > 0
    }

    fn staged_descriptors(&mut self, now: Instant) -> usize {
        let mut n = 0;
        // What a descriptor leads to may be told at once, without a message that is held: room is looked for here.
        while self.has_credit(Class::Host) && self.outs.host.len() < self.outs.host.capacity() / 2 {
            let begin = self.begin();
            let Some((_, msg)) = self.host.next_descriptor() else { break };
            self.record(begin, stage::CTXQ, || trace::host(trace_kind::HC, 0, 0, msg.flow));
            self.run(Work::Host(msg), Class::Host, now);
            n += 1;
        }
        n
    }

    fn timers(&mut self, now: Instant) -> bool {
        let mut any = false;
        for _ in 0..4 * BUDGET {
            if !self.has_credit(Class::Urgent) {
                break;
            }
            let Some(work) = self.protocol.next_timer(now) else { break };
            self.run(work, Class::Urgent, now);
            any = true;
        }
        any
    }

    /// Not while the port is busy.
    fn send(&mut self, now: Instant) -> bool {
        let mut any = false;
        for _ in 0..BUDGET {
            if self.egress.is_stalled() || !self.has_credit(Class::Data) {
                break;
            }
            let Some(work) = self.protocol.next_send(now) else { break };
            self.run(work, Class::Data, now);
            any = true;
        }
        any
    }

    /// Events and control completions.
    fn tell(&mut self) -> bool {
        let mut any = false;
        while self.host.has_room()
            && let Some(what) = self.outs.host.pop_front()
        {
            let begin = self.begin();
            let event = if let HostIn::Event(event) = &what { Some((event.flow, event.number)) } else { None };
            self.host.take(what);
            if let Some((flow, number)) = event {
                self.record(begin, stage::CTXQ, || trace::host(trace_kind::EVENT, 0, number, flow));
            }
            any = true;
        }
        while self.host.event() || self.host.completion() {
            any = true;
            self.host_released();
        }
        any | self.host_released()
    }

    fn look_at_losses(&mut self, now: Instant) {
        if now >= self.losses_at {
            self.losses_at = now.add_micros(LOSSES_EVERY_US);
            let RxLosses { overrun, unusable, resets } = self.rx.losses();
            self.pre.counters.set(Counter::RxPortOverrun, overrun);
            self.pre.counters.set(Counter::RxPortUnusable, unusable);
            self.pre.counters.set(Counter::PortResets, resets);
        }
    }

    fn round(&mut self, now: Instant) -> bool {
        self.tracing = self.tracer.is_on();
        self.host.at(now);
        self.look_at_losses(now);
        let mut any = self.complete(now);
        any |= self.control(now);
        any |= self.receive(now);
        any |= self.descriptors(now);
        any |= self.timers(now);
        any |= self.send(now);
        self.egress.flush();
        any |= self.tell();
        self.again_at = self.is_stalled().then(|| now.add_micros(STALLED_US));
        self.host.interrupt();
        self.host.park_idle();
        any
    }

    /// Whether work waits that needs no one from outside.
    fn is_busy(&self) -> bool {
        !self.dma.is_empty()
            || self.egress.is_stalled()
            || self.host.is_busy()
            || !self.outs.host.is_empty()
            || !self.outs.poisoned.is_empty()
    }

    /// Whether something waits for room at the port, which nobody tells of. All the rest soon waits behind it.
    fn is_stalled(&self) -> bool {
        self.egress.is_stalled() || self.host.has_raw()
    }

    /// Both halves of the board's port.
    pub fn port(&mut self) -> (&mut B::Rx, &mut B::Tx) {
        (&mut self.rx, self.egress.port())
    }

    /// The board's receiving half of the port.
    pub fn rx(&mut self) -> &mut B::Rx {
        &mut self.rx
    }
}

impl<B: Board> Composition for Card<B> {
    type Board = B;

    fn host(&mut self) -> &mut Host<B> {
        &mut self.host
    }

    fn reset(&mut self) {
        self.host.reset();
        self.protocol.reset();
        // What was under way finds nobody any more: give its frames back.
        let now = Instant(0);
        for _ in 0..RESET_ROUNDS {
            let any = self.complete(now) | self.control(now) | self.descriptors(now);
            self.egress.flush();
            if !(any | self.tell() | self.is_busy()) {
                break;
            }
        }
        self.egress.reset();
    }

    fn poll(&mut self, now: Instant) -> bool {
        self.polls = self.polls.wrapping_add(1);
        let measured = self.polls.is_multiple_of(observe::EVERY);
        let begin = if measured { self.clock.nanos() } else { 0 };
        let any = self.round(now);
        // What an operator reads last is how the card came to rest.
        if measured || !any {
            let busy = if any { self.clock.nanos().saturating_sub(begin) } else { 0 };
            let pool = &self.protocol.pool;
            let gauges = Gauges { credits: (pool.free() as u32, pool.size().into()), ..Gauges::default() };
            self.meter.measured(busy * u64::from(observe::EVERY), gauges);
        }
        any
    }

    fn next_deadline(&self, now: Instant) -> Option<Instant> {
        if self.again_at.is_some() {
            return self.again_at;
        }
        if self.is_busy() || self.protocol.is_ready(now) {
            return Some(now);
        }
        let holding = (self.rx.holding() || self.egress.is_holding()).then(|| now.add_micros(HOLDING_US));
        [self.protocol.next_deadline(), self.host.next_deadline(), holding].into_iter().flatten().min()
    }

    fn park(&mut self, now: Instant) -> bool {
        if self.again_at.is_some() {
            // What it finds can wait for so short a time: only kicks are to come.
            let _ = self.host.park(now);
            return true;
        }
        !self.is_busy() && !self.protocol.is_ready(now) && !self.rx.any() && self.host.park(now)
    }

    fn kicked(&mut self, ctx: CtxId) {
        self.host.kicked(ctx);
    }

    fn counters(&self) -> &CounterSums {
        self.host.sums()
    }
}
