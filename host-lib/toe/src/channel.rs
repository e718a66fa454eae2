//! One pair of queues between this process and the card.
//!
//! Outwards, a socket that has something to tell the card stands on a list once, however often it changes; [`Channel::flush`]
//! turns the list into descriptors that say what the slot says by then. A full queue only means that the list stays.
//! Inwards, [`Channel::poll`] copies each event into its slot and says what became of it.

use crate::{Socket, SocketOption, Tells, urgent};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use toe_abi::desc::{EventDesc, HostDesc, ev, ev_flags, hc, hc_flags};
use toe_abi::flow::FlowOptions;
use toe_abi::region::slot_state;
use toe_link::sync::ending;
use toe_link::sync::queue::{Consumer, Producer};
use toe_link::sync::sleep;
use toe_link::{Page, Region, Slot};

/// What an event changed for one socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Change(u8);

impl Change {
    pub const NONE: Change = Change(0);
    /// There is more to receive: bytes, an end or an error.
    pub const IN: Change = Change(1);
    /// There is more room to send.
    pub const OUT: Change = Change(2);
    /// The connection has ended, one way or another.
    pub const END: Change = Change(4);
    /// The peer has announced urgent data.
    pub const URGENT: Change = Change(8);
    /// There is a byte to be read out of band.
    pub const PRI: Change = Change(16);

    pub const fn has(self, other: Change) -> bool {
        self.0 & other.0 != 0
    }

    pub const fn with(self, other: Change) -> Change {
        Change(self.0 | other.0)
    }

    pub const fn without(self, other: Change) -> Change {
        Change(self.0 & !other.0)
    }
}

/// The last that a socket has to tell the card.
#[derive(Clone, Copy, Debug)]
pub struct Farewell(pub(crate) HostDesc);

/// What a socket has to tell the card.
mod tell {
    pub const UPDATE: u8 = 1;
    pub const REBIND: u8 = 2;
    pub const ABORT: u8 = 4;
    pub const OPTIONS: u8 = 8;
}

/// The library's end of a context.
pub struct Channel {
    region: Arc<Region>,
    ctx: u32,
    hc: Producer<HostDesc>,
    ev: Consumer<EventDesc>,
    /// Per slot: bits of [`tell`] that wait for room in the queue. A slot is in `queue` if and only if its byte is not 0.
    tells: Vec<u8>,
    queue: VecDeque<u32>,
    /// `daemon.notices` when last looked at.
    notices: u32,
}

impl Channel {
    /// The queues of context `ctx`, which toed has opened for this process. `None`: the region has no such context.
    pub fn attach(region: Arc<Region>, ctx: u32) -> Option<Self> {
        let hc = Producer::attach(region.hc_queue(ctx)?);
        let ev = Consumer::attach(region.ev_queue(ctx)?);
        let notices = region.page(ctx)?.daemon.notices.load(Ordering::Acquire);
        let sockets = region.header().n_sockets as usize;
        let queue = VecDeque::with_capacity(sockets);
        Some(Self { region, ctx, hc, ev, tells: vec![0; sockets], queue, notices })
    }

    pub fn ctx(&self) -> u32 {
        self.ctx
    }

    pub fn region(&self) -> &Arc<Region> {
        &self.region
    }

    fn page(&self) -> &Page {
        self.region.page(self.ctx).unwrap_or_else(|| unreachable!("attach checked the context"))
    }

    /// Positions or options of `slot` have moved: the card is to know at the next [`flush`](Self::flush).
    pub fn update(&mut self, slot: u32) {
        self.enqueue(slot, tell::UPDATE);
    }

    /// Events of `slot`'s flow are to come here from now on. The card answers with one that says everything.
    pub fn rebind(&mut self, slot: u32) {
        let Some(s) = self.region.slot(slot) else { return };
        s.conn.ctx.store(self.ctx, Ordering::Relaxed);
        // Set before there was a connection, or of its listener.
        let options = if s.flow_options() == FlowOptions::default() { 0 } else { tell::OPTIONS };
        self.enqueue(slot, tell::REBIND | options);
    }

    /// Options of `slot` have changed that an update does not tell.
    pub fn options(&mut self, slot: u32) {
        self.enqueue(slot, tell::OPTIONS);
    }

    /// An option of `slot`, which has a connection, was set.
    pub fn tell_of(&mut self, slot: u32, option: SocketOption) {
        match option.tells() {
            Tells::Nothing => {}
            Tells::Options => self.options(slot),
            Tells::Update => self.update(slot),
        }
    }

    /// Resets the connection of `slot`.
    pub fn abort(&mut self, slot: u32) {
        self.enqueue(slot, tell::ABORT);
    }

    /// The slot holds another socket, or none: whatever it had to tell is void.
    pub fn forget(&mut self, slot: u32) {
        if let Some(tells) = self.tells.get_mut(slot as usize)
            && *tells != 0
        {
            *tells = 0;
            self.queue.retain(|&s| s != slot);
        }
    }

    fn enqueue(&mut self, slot: u32, what: u8) {
        let Some(tells) = self.tells.get_mut(slot as usize) else { return };
        if *tells == 0 {
            self.queue.push_back(slot);
        }
        *tells |= what;
    }

    /// Publishes what waits, as far as there is room. `true`: the card sleeps and has to be kicked.
    #[must_use = "a card that is not kicked sleeps for ever"]
    pub fn flush(&mut self) -> bool {
        let mut pushed = false;
        while let Some(&slot) = self.queue.front() {
            if !self.tell(slot) {
                break;
            }
            self.queue.pop_front();
            pushed = true;
        }
        pushed && sleep::must_wake(&self.page().card.parked)
    }

    /// Tells the card what [`Socket::farewell`](crate::Socket::farewell) has made, when the socket's last descriptor has gone. It is left to
    /// toed if the queue is full, if another process has sent or received something since, or if the slot is another socket's by now, which toed
    /// has made it. `true`: the card has to be kicked.
    #[must_use = "a card that is not kicked sleeps for ever"]
    pub fn part(&mut self, Farewell(desc): Farewell) -> bool {
        let positions = |s: &Slot| (s.tx.head.load(Ordering::Acquire), s.rx.tail.load(Ordering::Acquire));
        let is_last_word = |s: &Slot| s.conn.flow() == desc.flow && positions(s) == (desc.tx_head, desc.rx_tail);
        let told = self.region.slot(desc.opaque).is_some_and(is_last_word) && self.hc.push(desc).is_ok();
        told && sleep::must_wake(&self.page().card.parked)
    }

    /// Whether something waits for room in the queue. The card does not say when there is some: look again soon.
    pub fn has_backlog(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether the card has taken all that it was told.
    pub fn is_taken(&mut self) -> bool {
        self.queue.is_empty() && self.hc.free() == self.region.header().hc_entries
    }

    /// Pushes the descriptors that `slot` owes; `false`: no room for all of them.
    fn tell(&mut self, slot: u32) -> bool {
        let i = slot as usize;
        let region = self.region.clone();
        let Some(s) = region.slot(slot) else { return true };
        for (bit, kind) in [(tell::REBIND, hc::REBIND), (tell::OPTIONS, hc::OPTIONS), (tell::UPDATE, hc::UPDATE), (tell::ABORT, hc::ABORT)]
        {
            if self.tells[i] & bit == 0 {
                continue;
            }
            // An UPDATE says nothing that the REBIND just before has not said.
            let tail = s.rx.tail.load(Ordering::Relaxed);
            let desc = describe(s, slot, kind);
            if self.hc.push(desc).is_err() {
                return false;
            }
            self.tells[i] &= !bit;
            if kind == hc::OPTIONS {
                // Once, unless somebody has just asked for the other.
                let told = u32::from(desc.options.quick_ack);
                let _ = s.options.quick_ack.compare_exchange(told, 0, Ordering::Relaxed, Ordering::Relaxed);
                continue;
            }
            s.rx.told.store(tail, Ordering::Relaxed);
            if kind == hc::REBIND {
                self.tells[i] &= !tell::UPDATE;
            }
        }
        true
    }

    /// Takes up to `budget` events, applies them to their slots and names what changed. Returns how many there were.
    pub fn poll(&mut self, budget: usize, mut sink: impl FnMut(u32, Change)) -> usize {
        let mut taken = 0;
        while taken < budget
            && let Some(event) = self.ev.pop()
        {
            taken += 1;
            let Some(slot) = self.region.slot(event.opaque) else { continue };
            let change = apply(slot, &event);
            // Of urgent bytes that were skipped nobody else would tell.
            if change.has(Change::URGENT) && Socket::new(&self.region, event.opaque).is_some_and(|s| s.owes_window()) {
                self.update(event.opaque);
            }
            if change != Change::NONE {
                sink(event.opaque, change);
            }
        }
        self.ev.publish();
        taken
    }

    /// Whether toed has changed a slot since this was last called: look at sockets that connect or listen.
    pub fn take_notice(&mut self) -> bool {
        // Acquire: with toed's release after it has written the slots.
        let now = self.page().daemon.notices.load(Ordering::Acquire);
        std::mem::replace(&mut self.notices, now) != now
    }

    /// Toed or the card has given this context up. Nothing will come any more.
    pub fn failed(&self) -> bool {
        let page = self.page();
        page.card.failed.load(Ordering::Relaxed) != 0 || page.daemon.failed.load(Ordering::Relaxed) != 0
    }

    /// Before sleeping: asks for an interrupt, then looks again. `true`: nothing is there, sleep until the interrupt comes.
    pub fn arm(&self) -> bool {
        let page = self.page();
        sleep::prepare(&page.host.parked);
        let idle = self.ev.is_empty() && page.daemon.notices.load(Ordering::Acquire) == self.notices && !self.failed();
        if !idle {
            sleep::cancel(&page.host.parked);
        }
        idle
    }

    /// Awake again.
    pub fn disarm(&self) {
        sleep::cancel(&self.page().host.parked);
    }
}

/// Bytes of the receive buffer that the peer is not offered (TCP_WINDOW_CLAMP): what was read is told so much later.
fn held_back(slot: &Slot) -> u32 {
    slot.conn.rx_len.load(Ordering::Relaxed).wrapping_sub(slot.offered())
}

/// The descriptor that says what `slot` says now.
pub(crate) fn describe(slot: &Slot, index: u32, kind: u32) -> HostDesc {
    // With the release in `Socket::commit`: the bytes are in the buffer before the card learns of them (the queue's phase carries that
    // on); and with `Socket::set_tx_flags`: no end is told without all bytes before it.
    let (flags, tx_head) = ending::look(&slot.tx.flags, &slot.tx.head);
    let urgent = urgent::to_tell(slot, tx_head);
    // At the end it counts what was not read.
    let held_back = if matches!(kind, hc::CLOSE | hc::ABORT) { 0 } else { held_back(slot) };
    HostDesc {
        kind,
        flags: flags | urgent.map_or(0, |_| hc_flags::URGENT),
        flow: slot.conn.flow(),
        tx_head,
        // Acquire: with the release in `Socket::consume`; the bytes were copied out before the card learns that they may be overwritten.
        rx_tail: slot.rx.tail.load(Ordering::Acquire).wrapping_sub(held_back),
        opaque: index,
        urgent: urgent.unwrap_or(0),
        options: if kind == hc::OPTIONS { slot.flow_options() } else { FlowOptions::default() },
        ..HostDesc::default()
    }
}

/// Puts an event into its slot. Events may come late, repeated or by way of another process: positions only move forward.
fn apply(slot: &Slot, event: &EventDesc) -> Change {
    if event.kind != ev::FLOW || slot.conn.load_state() != slot_state::CONNECTED || slot.conn.flow() != event.flow {
        return Change::NONE;
    }
    let mut change = Change::NONE;
    let readable = urgent::is_readable(slot);
    // Before the bytes: nobody is to read across a mark that is not there yet.
    let announced = event.flags & ev_flags::URGENT != 0 && urgent::announce(slot, event.urgent);
    if announced {
        change = change.with(Change::URGENT);
    }
    let forward = |word: &std::sync::atomic::AtomicU32, to: u32, most: u32| {
        // Release: with the acquire in `Socket`, and before the flags below.
        let moved = |now: u32| (1..=most).contains(&to.wrapping_sub(now)).then_some(to);
        word.fetch_update(Ordering::Release, Ordering::Relaxed, moved).is_ok()
    };
    if forward(&slot.event.rx_head, event.rx_head, slot.conn.rx_len.load(Ordering::Relaxed)) {
        change = change.with(Change::IN);
    }
    if forward(&slot.event.tx_tail, event.tx_tail, slot.conn.tx_len.load(Ordering::Relaxed)) {
        change = change.with(Change::OUT);
    }
    if (announced || !readable) && urgent::is_readable(slot) {
        change = change.with(Change::PRI);
    }
    slot.event.srtt_us.store(event.srtt_us, Ordering::Relaxed);
    slot.event.cwnd.store(event.cwnd, Ordering::Relaxed);
    if event.flags & ev_flags::ERROR != 0 {
        slot.event.error.store(event.error, Ordering::Relaxed);
    }
    // Release: who sees the flags sees the positions and the error.
    let news = event.flags & !slot.event.flags.fetch_or(event.flags, Ordering::Release);
    if news & ev_flags::RX_FIN != 0 {
        change = change.with(Change::IN);
        // Our own was first: that is the end of both directions.
        if slot.tx.flags.load(Ordering::Relaxed) & hc_flags::FIN != 0 {
            change = change.with(Change::END);
        }
    }
    if news & (ev_flags::ERROR | ev_flags::CLOSED) != 0 {
        change = change.with(Change::IN).with(Change::OUT).with(Change::END);
    }
    if news & ev_flags::TX_FIN_ACKED != 0 {
        change = change.with(Change::OUT);
    }
    change
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use toe_abi::FlowId;
    use toe_abi::flow::quick_ack;
    use toe_abi::region::{AcceptRecord, RegionConfig};
    use toe_link::region::memory::RegionMemory;

    /// A region with one context, and the card's ends of its queues.
    pub struct Bench {
        pub region: Arc<Region>,
        pub card_in: Consumer<HostDesc>,
        pub card_out: Producer<EventDesc>,
        _memory: RegionMemory,
    }

    #[allow(unsafe_code)]
    pub fn bench(hc_entries: u32) -> Bench {
        let config = RegionConfig {
            region: 1,
            n_contexts: 2,
            hc_entries,
            ev_entries: 8,
            n_sockets: 16,
            n_listeners: 2,
            accept_entries: 4,
            payload_len: 1 << 16,
        };
        let memory = RegionMemory::new(&config).unwrap();
        // SAFETY: the bench keeps the memory as long as the region; fields drop in order, the memory last.
        let region = Arc::new(unsafe { Region::from_memory(memory.base(), memory.len()) }.unwrap());
        let card_in = Consumer::new(region.hc_queue(0).unwrap());
        let card_out = Producer::new(region.ev_queue(0).unwrap());
        Bench { region, card_in, card_out, _memory: memory }
    }

    impl Bench {
        /// Makes slot `i` a connection with buffers of 4 KiB.
        pub fn connect(&self, i: u32) -> FlowId {
            let slot = self.region.slot(i).unwrap();
            let flow = FlowId { index: 100 + i, generation: 1 };
            let payload = self.region.header().payload_off + u64::from(i) * 8192;
            slot.reset();
            slot.adopt(&AcceptRecord {
                flow,
                tx_off: payload,
                rx_off: payload + 4096,
                tx_len: 4096,
                rx_len: 4096,
                ..AcceptRecord::default()
            });
            flow
        }

        pub fn event(&mut self, slot: u32, event: EventDesc) {
            let flow = self.region.slot(slot).unwrap().conn.flow();
            let _ = self.card_out.push(EventDesc { kind: ev::FLOW, flow, opaque: slot, ..event });
        }
    }

    #[test]
    fn many_updates_of_one_socket_are_one_descriptor() {
        let mut bench = bench(8);
        bench.connect(3);
        let mut channel = Channel::attach(bench.region.clone(), 0).unwrap();
        let slot = bench.region.slot(3).unwrap();
        for head in [10, 20, 30] {
            slot.tx.head.store(head, Ordering::Release);
            channel.update(3);
        }
        assert!(!channel.flush(), "the card is awake");
        assert_eq!(bench.card_in.pop().map(|d| (d.kind, d.tx_head, d.opaque)), Some((hc::UPDATE, 30, 3)));
        assert!(bench.card_in.pop().is_none());
    }

    /// TCP_WINDOW_CLAMP.
    #[test]
    fn what_a_clamp_holds_back_of_the_buffer_counts_as_unread() {
        let mut bench = bench(8);
        bench.connect(3);
        let mut channel = Channel::attach(bench.region.clone(), 0).unwrap();
        let region = bench.region.clone();
        let (slot, socket) = (region.slot(3).unwrap(), Socket::new(&region, 3).unwrap());
        let len = 16_384;
        slot.conn.rx_len.store(len, Ordering::Relaxed);
        let mut tail_told = |tail: u32, clamp: u32| {
            slot.options.window_clamp.store(clamp, Ordering::Relaxed);
            slot.event.rx_head.store(tail, Ordering::Relaxed);
            slot.rx.tail.store(tail, Ordering::Relaxed);
            let owes = socket.owes_window();
            channel.tell_of(3, SocketOption::WindowClamp);
            let _ = channel.flush();
            (owes, bench.card_in.pop().map(|d| d.rx_tail))
        };
        assert_eq!(tail_told(100, 5000), (false, Some(100u32.wrapping_sub(len - 5000))));
        assert_eq!(tail_told(100 + 5000 / 4, 5000), (true, Some((100 + 5000 / 4u32).wrapping_sub(len - 5000))), "a quarter of it");
        assert_eq!(describe(slot, 3, hc::CLOSE).rx_tail, 1350, "and as read at the end");
        assert_eq!(tail_told(1400, 0), (false, Some(1400)));
        assert_eq!(tail_told(1400, u32::MAX), (false, Some(1400)), "more than there is");
    }

    #[test]
    fn options_follow_the_rebind_and_quick_ack_is_told_once() {
        let mut bench = bench(8);
        bench.connect(3);
        let mut channel = Channel::attach(bench.region.clone(), 0).unwrap();
        let slot = bench.region.slot(3).unwrap();
        let mut told = |channel: &mut Channel| {
            let _ = channel.flush();
            std::iter::from_fn(|| bench.card_in.pop()).map(|d| (d.kind, d.options)).collect::<Vec<_>>()
        };
        let none = FlowOptions::default();
        channel.rebind(3);
        assert_eq!(told(&mut channel), [(hc::REBIND, none)], "as everybody");
        slot.options.keep_idle_s.store(u32::MAX, Ordering::Relaxed);
        slot.options.quick_ack.store(quick_ack::ON.into(), Ordering::Relaxed);
        channel.rebind(3);
        let idle = FlowOptions { keep_idle_s: u16::MAX, ..none };
        assert_eq!(told(&mut channel), [(hc::REBIND, none), (hc::OPTIONS, FlowOptions { quick_ack: quick_ack::ON, ..idle })]);
        channel.update(3);
        channel.options(3);
        assert_eq!(told(&mut channel), [(hc::OPTIONS, idle), (hc::UPDATE, none)]);
    }

    #[test]
    fn a_full_queue_keeps_updates_until_there_is_room() {
        let mut bench = bench(2);
        let mut channel = Channel::attach(bench.region.clone(), 0).unwrap();
        for i in 0..4 {
            bench.connect(i);
            channel.update(i);
        }
        let _ = channel.flush();
        assert!(channel.has_backlog() && !channel.is_taken());
        let mut seen = Vec::new();
        while let Some(desc) = bench.card_in.pop() {
            seen.push(desc.opaque);
            bench.card_in.publish();
            let _ = channel.flush();
        }
        assert_eq!(seen, [0, 1, 2, 3]);
        assert!(!channel.has_backlog() && channel.is_taken());
    }

    #[test]
    fn a_sleeping_card_has_to_be_kicked() {
        let bench = bench(8);
        bench.connect(0);
        let mut channel = Channel::attach(bench.region.clone(), 0).unwrap();
        bench.region.page(0).unwrap().card.parked.store(1, Ordering::Relaxed);
        channel.rebind(0);
        assert!(channel.flush());
        assert!(!channel.flush(), "nothing new, no kick");
    }

    #[test]
    fn a_forgotten_socket_says_nothing() {
        let mut bench = bench(8);
        bench.connect(0);
        let mut channel = Channel::attach(bench.region.clone(), 0).unwrap();
        channel.update(0);
        channel.forget(0);
        let _ = channel.flush();
        assert!(bench.card_in.pop().is_none());
    }

    #[test]
    fn a_farewell_is_void_once_others_have_used_the_slot() {
        let mut bench = bench(8);
        let mut channel = Channel::attach(bench.region.clone(), 0).unwrap();
        let slot = bench.region.slot(0).unwrap();
        let farewell = |bench: &Bench| {
            bench.connect(0);
            let socket = crate::Socket::new(&bench.region, 0).unwrap();
            socket.mark_clean(true);
            socket.farewell().unwrap()
        };
        let sent_since = farewell(&bench);
        slot.tx.head.store(7, Ordering::Release);
        let _ = channel.part(sent_since);
        let received_since = farewell(&bench);
        slot.rx.tail.store(7, Ordering::Release);
        let _ = channel.part(received_since);
        let used_again = farewell(&bench);
        slot.reset();
        let _ = channel.part(used_again);
        assert!(bench.card_in.pop().is_none());
        let good = farewell(&bench);
        let _ = channel.part(good);
        assert_eq!(bench.card_in.pop().map(|d| d.kind), Some(hc::CLOSE));
    }

    #[test]
    fn events_reach_their_slot_and_only_move_it_forward() {
        let mut bench = bench(8);
        bench.connect(2);
        let mut channel = Channel::attach(bench.region.clone(), 0).unwrap();
        let mut changes = Vec::new();
        bench.event(2, EventDesc { rx_head: 100, ..EventDesc::default() });
        bench.event(2, EventDesc { rx_head: 60, tx_tail: 0, ..EventDesc::default() });
        bench.event(2, EventDesc { rx_head: 100, flags: ev_flags::RX_FIN, ..EventDesc::default() });
        assert_eq!(channel.poll(10, |slot, change| changes.push((slot, change))), 3);
        assert_eq!(changes, [(2, Change::IN), (2, Change::IN)], "the late event changes nothing");
        assert_eq!(bench.region.slot(2).unwrap().event.rx_head.load(Ordering::Relaxed), 100);
    }

    #[test]
    fn events_of_another_flow_or_of_nonsense_are_dropped() {
        let mut bench = bench(8);
        let flow = bench.connect(2);
        let mut channel = Channel::attach(bench.region.clone(), 0).unwrap();
        let stale = FlowId { generation: flow.generation + 1, ..flow };
        let base = EventDesc { kind: ev::FLOW, flow, opaque: 2, rx_head: 5, ..EventDesc::default() };
        let bad = [
            EventDesc { flow: stale, ..base },
            EventDesc { opaque: 9999, ..base },
            EventDesc { kind: 77, ..base },
            EventDesc { rx_head: 1 << 20, ..base },
        ];
        for event in bad {
            assert!(bench.card_out.push(event).is_ok());
        }
        channel.poll(10, |slot, change| panic!("{slot} changed: {change:?}"));
        assert_eq!(bench.region.slot(2).unwrap().event.rx_head.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn arming_notices_what_came_in_between() {
        let mut bench = bench(8);
        bench.connect(0);
        let mut channel = Channel::attach(bench.region.clone(), 0).unwrap();
        assert!(channel.arm());
        channel.disarm();
        bench.event(0, EventDesc { rx_head: 1, ..EventDesc::default() });
        assert!(!channel.arm(), "an event waits");
        assert_eq!(bench.region.page(0).unwrap().host.parked.load(Ordering::Relaxed), 0);
        channel.poll(10, |_, _| ());
        bench.region.page(0).unwrap().daemon.notices.store(1, Ordering::Release);
        assert!(!channel.arm(), "a notice waits");
        assert!(channel.take_notice() && !channel.take_notice());
        assert!(channel.arm());
        bench.region.page(0).unwrap().daemon.failed.store(1, Ordering::Release);
        assert!(!channel.arm(), "the daemon has failed");
    }
}
