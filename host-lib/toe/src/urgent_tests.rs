use crate::channel::tests::{Bench, bench};
use crate::socket::{Socket, Take, own_flags, ready};
use crate::{Change, Channel};
use proptest::prelude::*;
use rustix::io::Errno;
use std::sync::atomic::Ordering;
use toe_abi::desc::{EventDesc, ev_flags, hc_flags};
use toe_link::user::{Sink, Source};

const SLOT: u32 = 2;
const BUFFER: u32 = 4096;

/// What Linux keeps and does, in its own words (net/ipv4/tcp.c, tcp_input.c); numbers count from 0 and do not wrap.
#[derive(Debug, Default)]
struct Linux {
    copied_seq: u32,
    rcv_nxt: u32,
    urg_seq: u32,
    /// `TCP_URG_NOTYET` and `TCP_URG_VALID` are told apart by `rcv_nxt`.
    urg_data: bool,
    urg_read: bool,
    inline: bool,
}

impl Linux {
    /// The urgent pointer, as the position of the byte that is urgent.
    fn check_urg(&mut self, ptr: u32) -> bool {
        if self.copied_seq > ptr || ptr < self.rcv_nxt || self.urg_data && ptr <= self.urg_seq {
            return false;
        }
        if self.urg_seq == self.copied_seq && self.urg_data && !self.inline && self.copied_seq != self.rcv_nxt {
            self.copied_seq += 1;
        }
        (self.urg_seq, self.urg_data, self.urg_read) = (ptr, true, false);
        true
    }

    /// Positions of the bytes that are read. Empty: EAGAIN.
    fn recvmsg(&mut self, len: u32, peek: bool) -> std::ops::Range<u32> {
        let mut seq = self.copied_seq;
        if self.urg_data && self.urg_seq == seq && seq < self.rcv_nxt && !self.inline {
            seq += 1;
        }
        let mut end = self.rcv_nxt.min(seq + len);
        if self.urg_data && self.urg_seq > seq {
            end = end.min(self.urg_seq);
        }
        if !peek {
            self.copied_seq = end;
            self.urg_data &= self.copied_seq <= self.urg_seq;
        }
        seq..end
    }

    fn recv_urg(&mut self, peek: bool) -> Result<u32, Errno> {
        if self.inline || !self.urg_data || self.urg_read {
            return Err(Errno::INVAL);
        }
        if self.urg_seq >= self.rcv_nxt {
            return Err(Errno::AGAIN);
        }
        self.urg_read = !peek;
        Ok(self.urg_seq)
    }

    fn at_mark(&self) -> bool {
        self.urg_data && self.urg_seq == self.copied_seq
    }

    fn inq(&self) -> u32 {
        let whole = self.inline || !self.urg_data || self.urg_seq < self.copied_seq || self.urg_seq >= self.rcv_nxt;
        if whole { self.rcv_nxt - self.copied_seq } else { self.urg_seq - self.copied_seq }
    }

    fn poll(&self) -> u32 {
        let target = 1 + u32::from(self.at_mark() && !self.inline);
        let readable = if self.rcv_nxt - self.copied_seq >= target { ready::IN } else { 0 };
        let urgent = self.urg_data && !self.urg_read && self.urg_seq < self.rcv_nxt;
        readable | if urgent { ready::PRI } else { 0 }
    }
}

#[derive(Clone, Debug)]
enum Op {
    /// So many bytes come, perhaps with a mark that is so far ahead of what had come.
    Come(u32, Option<u32>),
    Read(u32),
    Peek(u32),
    Discard(u32),
    Urgent,
    PeekUrgent,
    Inline(bool),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => (0u32..6, prop::option::of(1u32..12)).prop_map(|(n, mark)| Op::Come(n, mark)),
        4 => (1u32..8).prop_map(Op::Read),
        1 => (1u32..8).prop_map(Op::Peek),
        1 => (1u32..8).prop_map(Op::Discard),
        2 => Just(Op::Urgent),
        1 => Just(Op::PeekUrgent),
        1 => any::<bool>().prop_map(Op::Inline),
    ];
    prop::collection::vec(op, 1..60)
}

/// A connection whose positions begin at `base`.
struct Ours {
    bench: Bench,
    channel: Channel,
    base: u32,
}

impl Ours {
    fn new(base: u32) -> Self {
        let bench = bench(8);
        bench.connect(SLOT);
        let slot = bench.region.slot(SLOT).unwrap();
        for word in [&slot.rx.tail, &slot.rx.told, &slot.event.rx_head] {
            word.store(base, Ordering::Relaxed);
        }
        let ours = Self { channel: Channel::attach(bench.region.clone(), 0).unwrap(), bench, base };
        // Each byte of the buffer says where it is.
        let slot = ours.bench.region.slot(SLOT).unwrap();
        let ring = ours.bench.region.ring(slot.conn.rx_off.load(Ordering::Relaxed), BUFFER).unwrap();
        let bytes: Vec<u8> = (0..BUFFER).map(|offset| offset as u8).collect();
        ring.fill(0, BUFFER, &mut Source::from_slice(&bytes));
        ours
    }

    fn socket(&self) -> Socket<'_> {
        Socket::new(&self.bench.region, SLOT).unwrap()
    }

    fn event(&mut self, rx_head: u32, mark: Option<u32>) -> Change {
        let flags = if mark.is_some() { ev_flags::URGENT } else { 0 };
        let (rx_head, urgent) = (self.base.wrapping_add(rx_head), self.base.wrapping_add(mark.unwrap_or(0)));
        self.bench.event(SLOT, EventDesc { rx_head, urgent, flags, ..EventDesc::default() });
        let mut change = Change::NONE;
        self.channel.poll(10, |_, c| change = c);
        change
    }

    /// The bytes at these positions.
    fn bytes(&self, positions: std::ops::Range<u32>) -> Vec<u8> {
        positions.map(|p| self.base.wrapping_add(p) as u8).collect()
    }

    fn read(&self, len: u32, take: Take) -> Vec<u8> {
        let mut out = vec![0; len as usize];
        let n = self.socket().receive(&mut Sink::from_slice(&mut out), take).unwrap().unwrap_or(0);
        out.truncate(n);
        out
    }
}

proptest! {
    #[test]
    fn as_linux(ops in ops(), base in prop_oneof![Just(0), Just(u32::MAX - 20), any::<u32>()]) {
        let mut linux = Linux::default();
        let mut ours = Ours::new(base);
        for op in ops {
            match op {
                Op::Come(n, ahead) => {
                    let mark = ahead.map(|ahead| linux.rcv_nxt + ahead);
                    let news = mark.is_some_and(|mark| linux.check_urg(mark - 1));
                    linux.rcv_nxt += n;
                    let change = ours.event(linux.rcv_nxt, mark);
                    prop_assert_eq!(change.has(Change::URGENT), news);
                }
                Op::Read(len) => {
                    let want = linux.recvmsg(len, false);
                    prop_assert_eq!(ours.read(len, Take::Consume), ours.bytes(want));
                }
                Op::Peek(len) => {
                    let want = linux.recvmsg(len, true);
                    prop_assert_eq!(ours.read(len, Take::Peek), ours.bytes(want));
                }
                Op::Discard(len) => {
                    let want = linux.recvmsg(len, false);
                    prop_assert_eq!(ours.socket().discard(len as usize, Take::Consume).unwrap().unwrap_or(0), want.len());
                }
                Op::Urgent | Op::PeekUrgent => {
                    let peek = matches!(op, Op::PeekUrgent);
                    let want = linux.recv_urg(peek).map(|p| Some(base.wrapping_add(p) as u8));
                    prop_assert_eq!(ours.socket().receive_urgent(if peek { Take::Peek } else { Take::Consume }), want);
                }
                Op::Inline(on) => {
                    linux.inline = on;
                    ours.socket().set_flag(own_flags::OOBINLINE, on);
                }
            }
            let socket = ours.socket();
            prop_assert_eq!(socket.at_mark(), linux.at_mark());
            prop_assert_eq!(socket.readable_to_mark(), linux.inq());
            prop_assert_eq!(socket.readiness() & (ready::IN | ready::PRI), linux.poll());
            prop_assert_eq!(socket.slot().rx.tail.load(Ordering::Relaxed), base.wrapping_add(linux.copied_seq));
        }
    }

    /// Whatever is in the slot: another process of the family may have written it.
    #[test]
    fn any_words(tail: u32, rx_head: u32, urgent: u64, mark: u32, inline: bool) {
        let mut ours = Ours::new(0);
        let slot = ours.bench.region.clone();
        let slot = slot.slot(SLOT).unwrap();
        slot.rx.tail.store(tail, Ordering::Relaxed);
        slot.event.rx_head.store(rx_head, Ordering::Relaxed);
        slot.rx.urgent.store(urgent, Ordering::Relaxed);
        ours.socket().set_flag(own_flags::OOBINLINE, inline);
        ours.event(rx_head.wrapping_add(1), Some(mark));
        let socket = ours.socket();
        prop_assert!(socket.readable() <= BUFFER && socket.readable_to_mark() <= BUFFER);
        let _ = (socket.readiness(), socket.stops_at_mark(), socket.receive_urgent(Take::Consume), socket.discard(10, Take::Consume));
        prop_assert!(ours.read(8192, Take::Consume).len() <= BUFFER as usize);
    }
}

#[test]
fn who_waits_for_an_urgent_byte_hears_when_it_is_there() {
    let mut ours = Ours::new(0);
    let announced = ours.event(0, Some(3));
    assert!(announced.has(Change::URGENT) && !announced.has(Change::PRI));
    let here = ours.event(3, Some(3));
    assert!(here.has(Change::PRI) && !here.has(Change::URGENT), "told again, the mark is no news");
    assert_eq!(ours.event(4, Some(3)), Change::IN);
    let another = ours.event(8, Some(8));
    assert!(another.has(Change::PRI) && another.has(Change::URGENT), "another byte takes its place");
}

/// Nobody reads, so nobody else would tell the card of the room.
#[test]
fn skipped_bytes_make_room() {
    let mut ours = Ours::new(0);
    for n in 1..=BUFFER {
        ours.event(n, Some(n));
        assert_eq!(ours.socket().receive_urgent(Take::Consume), Ok(Some((n - 1) as u8)));
        let _ = ours.channel.flush();
        while let Some(desc) = ours.bench.card_in.pop() {
            ours.bench.card_in.publish();
            assert_eq!(desc.rx_tail, n - 1);
        }
        let told = ours.socket().slot().rx.told.load(Ordering::Relaxed);
        assert!(n - told <= BUFFER / 2 + 1, "{n}");
    }
}

#[test]
fn the_card_is_told_of_urgent_data_until_it_is_acknowledged() {
    let mut ours = Ours::new(0);
    let told = |ours: &mut Ours| {
        ours.channel.update(SLOT);
        let _ = ours.channel.flush();
        let desc = ours.bench.card_in.pop().unwrap();
        ours.bench.card_in.publish();
        (desc.flags & hc_flags::URGENT != 0).then_some(desc.urgent)
    };
    let send = |ours: &Ours, urgent: bool| {
        let (socket, mut source) = (ours.socket(), Source::from_slice(b"abc"));
        if urgent { socket.send_urgent(&mut source) } else { socket.send(&mut source) }
    };
    assert_eq!(send(&ours, false), Ok(Some(3)));
    assert_eq!(told(&mut ours), None);
    assert_eq!(send(&ours, true), Ok(Some(3)));
    assert_eq!(send(&ours, false), Ok(Some(3)));
    assert_eq!((told(&mut ours), told(&mut ours)), (Some(6), Some(6)));
    let acked = |ours: &mut Ours, tx_tail: u32| {
        ours.bench.event(SLOT, EventDesc { tx_tail, ..EventDesc::default() });
        ours.channel.poll(10, |_, _| ());
    };
    acked(&mut ours, 5);
    assert_eq!(told(&mut ours), Some(6));
    acked(&mut ours, 6);
    assert_eq!(told(&mut ours), None);
}

/// Positions wrap: a mark of long ago never seems to lie ahead.
#[test]
fn old_urgent_data_stays_old_for_more_than_4_gib() {
    let ours = Ours::new(0);
    let slot = ours.socket().slot();
    for gib in 0..9u32 {
        let quarter = (gib << 30).wrapping_add(7);
        slot.event.tx_tail.store(quarter, Ordering::Relaxed);
        assert_eq!(super::to_tell(slot, quarter.wrapping_add(4000)), None, "{gib} GiB");
    }
}

/// Else a reader could pass the byte that the handler comes for.
#[test]
fn reading_waits_before_the_urgent_byte_until_its_signal_is_sent() {
    let mut ours = Ours::new(0);
    ours.event(3, Some(2));
    ours.socket().set_flag(own_flags::SIGNAL_DUE, true);
    assert_eq!(ours.read(10, Take::Consume), ours.bytes(0..1));
    assert_eq!(ours.socket().readiness() & (ready::IN | ready::PRI), ready::PRI);
    assert!(ours.read(10, Take::Consume).is_empty());
    assert_eq!(ours.socket().receive_urgent(Take::Peek), Ok(Some(1)));
    ours.socket().set_flag(own_flags::SIGNAL_DUE, false);
    assert_eq!(ours.read(10, Take::Consume), ours.bytes(2..3));
}
