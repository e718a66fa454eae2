//! What one socket can do now: a view of its slot, with TCP's rules for ends and errors as Linux has them.
//!
//! Nothing here waits. Callers who share a socket between threads hold the slot's `tx.lock` to send and `rx.lock` to
//! receive; each direction then has one writer of its position.
//!
//! ```text
//!   tx:   event.tx_tail ───(sent, not acknowledged)─── tx.head ───(room)─── tx_tail + tx_len
//!   rx:   rx.tail ───(can be received)─── event.rx_head
//! ```

use crate::channel::{Farewell, describe};
use crate::urgent::{self, Run};
use rustix::io::Errno;
use std::sync::atomic::Ordering;
use toe_abi::desc::{ev_flags, hc, hc_flags};
use toe_abi::region::{slot_flags, slot_state};
use toe_link::ring::{Ring, Span};
use toe_link::sync::ending;
use toe_link::user::{Sink, Source};
use toe_link::{Region, Slot};

/// The library's own bits of `SlotTx::slot_flags`, shared by all processes that hold the socket.
pub mod own_flags {
    /// The error has been reported; after it come end of file and EPIPE.
    pub const ERROR_TAKEN: u32 = 1 << 8;
    /// shutdown(SHUT_RD) was called.
    pub const RX_SHUT: u32 = 1 << 9;
    /// bind() succeeded.
    pub const BOUND: u32 = 1 << 10;
    pub const REUSEADDR: u32 = 1 << 11;
    pub const REUSEPORT: u32 = 1 << 12;
    /// The outcome of a connect() that had to wait was reported.
    pub const CONNECT_SEEN: u32 = 1 << 13;
    /// CORK is set on behalf of MSG_MORE, not of TCP_CORK.
    pub const MORE: u32 = 1 << 14;
    /// It listened until the card or the daemon went.
    pub const LISTENED: u32 = 1 << 15;
    /// It is of AF_INET6: its names are `struct sockaddr_in6`.
    pub const INET6: u32 = 1 << 16;
    /// IPV6_V6ONLY.
    pub const V6ONLY: u32 = 1 << 17;
    /// SO_OOBINLINE.
    pub const OOBINLINE: u32 = 1 << 20;
    /// Somebody wants signals (F_SETOWN); the kernel knows who.
    pub const OWNED: u32 = 1 << 21;
    /// IP_BIND_ADDRESS_NO_PORT.
    pub const NO_PORT: u32 = 1 << 18;
    /// Their signal for urgent data is on its way: until it has been sent, reading waits before the urgent byte, so that the handler finds it.
    pub const SIGNAL_DUE: u32 = 1 << 22;
}

/// Bytes of the largest segment that Linux hands to a network device.
const SEGMENT_MAX: u32 = 1 << 16;

/// Readiness, with the numbers of poll(2) and epoll(7).
pub mod ready {
    pub const IN: u32 = 0x001;
    pub const PRI: u32 = 0x002;
    pub const OUT: u32 = 0x004;
    pub const ERR: u32 = 0x008;
    pub const HUP: u32 = 0x010;
    pub const RDNORM: u32 = 0x040;
    pub const WRNORM: u32 = 0x100;
    pub const RDHUP: u32 = 0x2000;
}

/// What to do with bytes that are received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Take {
    Consume,
    /// Leave them for the next call.
    Peek,
}

/// One socket of a region.
#[derive(Clone, Copy)]
pub struct Socket<'a> {
    region: &'a Region,
    slot: &'a Slot,
    index: u32,
}

impl<'a> Socket<'a> {
    /// Slot `index`; `None`: the region has no such slot.
    pub fn new(region: &'a Region, index: u32) -> Option<Self> {
        Some(Self { region, slot: region.slot(index)?, index })
    }

    pub fn index(&self) -> u32 {
        self.index
    }

    pub fn slot(&self) -> &'a Slot {
        self.slot
    }

    pub fn region(&self) -> &'a Region {
        self.region
    }

    /// One of [`slot_state`].
    pub fn state(&self) -> u32 {
        self.slot.conn.load_state()
    }

    pub fn has_flag(&self, flag: u32) -> bool {
        self.slot.tx.slot_flags.load(Ordering::Relaxed) & flag != 0
    }

    pub fn set_flag(&self, flag: u32, on: bool) {
        if on {
            self.slot.tx.slot_flags.fetch_or(flag, Ordering::Relaxed);
        } else {
            self.slot.tx.slot_flags.fetch_and(!flag, Ordering::Relaxed);
        }
    }

    /// Options and ends as the card is told them: bits of [`hc_flags`].
    pub fn tx_flags(&self) -> u32 {
        self.slot.tx.flags.load(Ordering::Relaxed)
    }

    /// Sets or clears bits of [`hc_flags`]; `true` if that changed something (then the card has to be told).
    pub fn set_tx_flags(&self, bits: u32, on: bool) -> bool {
        // Another thread may be telling the card about this socket just now (`Channel::flush`).
        let was = ending::mark(&self.slot.tx.flags, bits, on);
        (was & bits == bits) != on
    }

    /// TCP_NODELAY is to be set. If it is already, it lets go what TCP_CORK holds back all the same (tcp(7)), which the card does as it sees it
    /// change. `true`: the card has to be told first that it is off.
    pub fn renew_nodelay(&self) -> bool {
        const BOTH: u32 = hc_flags::NODELAY | hc_flags::CORK;
        self.tx_flags() & BOTH == BOTH && self.set_tx_flags(hc_flags::NODELAY, false) && self.connected()
    }

    /// What the events said; acquire: positions and error are at least as new.
    fn event_flags(&self) -> u32 {
        self.slot.event.flags.load(Ordering::Acquire)
    }

    fn connected(&self) -> bool {
        self.state() == slot_state::CONNECTED
    }

    /// The connection has failed and nothing moves any more.
    pub fn is_dead(&self) -> bool {
        self.state() == slot_state::FAILED || self.event_flags() & ev_flags::ERROR != 0
    }

    /// The connection is over in both directions, one way or another: Linux calls that closed.
    pub fn is_over(&self) -> bool {
        let flags = self.event_flags();
        let both = ev_flags::RX_FIN | ev_flags::TX_FIN_ACKED;
        self.is_dead() || flags & ev_flags::CLOSED != 0 || flags & both == both
    }

    /// The error that waits to be reported, if any. Stays.
    pub fn pending_error(&self) -> Option<Errno> {
        if self.has_flag(own_flags::ERROR_TAKEN) {
            return None;
        }
        let conn_error = || self.slot.conn.error.load(Ordering::Relaxed);
        let code = match self.state() {
            slot_state::FAILED => conn_error(),
            // Its connect() was called off.
            slot_state::OPEN if conn_error() != 0 => conn_error(),
            slot_state::CONNECTED if self.event_flags() & ev_flags::ERROR != 0 => self.slot.event.error.load(Ordering::Relaxed),
            _ => return None,
        };
        Some(errno(code))
    }

    /// Takes the error that waits (SO_ERROR): it is reported once.
    pub fn take_error(&self) -> Option<Errno> {
        let error = self.pending_error()?;
        let was = self.slot.tx.slot_flags.fetch_or(own_flags::ERROR_TAKEN, Ordering::Relaxed);
        (was & own_flags::ERROR_TAKEN == 0).then_some(error)
    }

    /// Gives back an error that was taken but could not be reported: the next call reports it.
    pub fn return_error(&self) {
        self.set_flag(own_flags::ERROR_TAKEN, false);
    }

    /// Ends the socket from this side: the card or the daemon has gone.
    pub fn fail(&self, error: Errno) {
        let code = error.raw_os_error().unsigned_abs();
        match self.state() {
            slot_state::CONNECTED => {
                let flags = ev_flags::ERROR | ev_flags::CLOSED;
                if self.event_flags() & flags == 0 {
                    self.slot.event.error.store(code, Ordering::Relaxed);
                    // Release: as in `Channel::poll`.
                    self.slot.event.flags.fetch_or(flags, Ordering::Release);
                }
            }
            slot_state::FAILED => {}
            state => {
                self.set_flag(own_flags::LISTENED, state == slot_state::LISTENING);
                self.slot.conn.error.store(code, Ordering::Relaxed);
                self.slot.conn.store_state(slot_state::FAILED);
            }
        }
    }

    // --- receiving

    fn rx_ring(&self) -> Option<Ring<'a>> {
        let conn = &self.slot.conn;
        self.region.ring(conn.rx_off.load(Ordering::Relaxed), conn.rx_len.load(Ordering::Relaxed))
    }

    /// Bytes that can be received.
    pub fn readable(&self) -> u32 {
        self.run().len
    }

    /// Bytes in the receive buffer from `tail` on.
    pub(crate) fn queued_from(&self, tail: u32) -> u32 {
        // Acquire: with the release in `Channel::poll`; the card had written the bytes before it posted the event.
        let queued = self.slot.event.rx_head.load(Ordering::Acquire).wrapping_sub(tail);
        // Positions are claims of the whole family: never more than the buffer holds.
        if queued > self.slot.conn.rx_len.load(Ordering::Relaxed) { 0 } else { queued }
    }

    /// Nothing follows the bytes that can be received.
    pub fn rx_ended(&self) -> bool {
        self.event_flags() & (ev_flags::RX_FIN | ev_flags::ERROR | ev_flags::CLOSED) != 0
            || self.has_flag(own_flags::RX_SHUT)
            || self.state() == slot_state::FAILED
    }

    /// Where the receivable bytes lie. [`consume`](Self::consume) takes them.
    pub fn recv_view(&self) -> [Span; 2] {
        let Run { start, len } = self.run();
        match self.rx_ring() {
            Some(ring) => ring.spans(start, len),
            None => [Span { ptr: std::ptr::NonNull::dangling(), len: 0 }; 2],
        }
    }

    /// Takes `n` bytes out of the receive buffer. `true`: the card has to be told.
    pub fn consume(&self, n: u32) -> bool {
        let Run { start, len } = self.run();
        self.advance(start.wrapping_add(n.min(len))) && self.owes_window()
    }

    /// Whether the sender could come to wait for room that only we know of. While the card counts more than half of what it may offer of the
    /// buffer as free, and less than a quarter is news, it cannot: the rest goes with the next update.
    pub fn owes_window(&self) -> bool {
        let len = self.slot.offered();
        let told = self.slot.rx.told.load(Ordering::Relaxed);
        let news = self.slot.rx.tail.load(Ordering::Relaxed).wrapping_sub(told);
        let used = self.slot.event.rx_head.load(Ordering::Relaxed).wrapping_sub(told);
        news > 0 && (news >= len / 4 || used >= len / 2)
    }

    /// Copies receivable bytes from position `pos` on.
    pub(crate) fn copy(&self, pos: u32, len: u32, sink: &mut Sink<'_>) -> Result<u32, Errno> {
        Ok(self.rx_ring().ok_or(Errno::IO)?.drain(pos, len, sink))
    }

    /// Receives into an application's buffers. `Ok(None)`: nothing yet; `Ok(Some(0))`: end of file, or no room asked for.
    /// Afterwards the card has to be told, if it [`owes_window`](Self::owes_window).
    /// RFC 9293 3.10.3-3.
    pub fn receive(&self, sink: &mut Sink<'_>, take: Take) -> Result<Option<usize>, Errno> {
        self.receive_by(take, |Run { start, len }| self.copy(start, len, sink))
    }

    /// Passes over up to `max` receivable bytes (MSG_TRUNC). As [`receive`](Self::receive).
    pub fn discard(&self, max: usize, take: Take) -> Result<Option<usize>, Errno> {
        self.receive_by(take, |run| Ok(run.len.min(u32::try_from(max).unwrap_or(u32::MAX))))
    }

    /// `of`: does what is to be done with the bytes of a run, and answers with how many.
    fn receive_by(&self, take: Take, of: impl FnOnce(Run) -> Result<u32, Errno>) -> Result<Option<usize>, Errno> {
        match self.state() {
            slot_state::CONNECTED => {}
            slot_state::CONNECTING => return Ok(None),
            slot_state::FAILED => return self.take_error().map_or(Ok(Some(0)), Err),
            _ => return Err(self.take_error().unwrap_or(Errno::NOTCONN)),
        }
        // Ends first: whoever sees the end sees all bytes before it.
        let ended = self.rx_ended();
        let run = self.run();
        let n = if run.len > 0 { of(run)? } else { 0 };
        if take == Take::Consume {
            // Past an urgent byte too that nothing follows.
            self.advance(run.start.wrapping_add(n));
        }
        match run.len {
            0 if !ended => Ok(None),
            // As on Linux: the peer has said all it had to say, whatever happened then. An error waits for the writer.
            0 if self.event_flags() & ev_flags::RX_FIN != 0 => Ok(Some(0)),
            0 => self.take_error().map_or(Ok(Some(0)), Err),
            _ => Ok(Some(n as usize)),
        }
    }

    // --- sending

    fn tx_ring(&self) -> Option<Ring<'a>> {
        let conn = &self.slot.conn;
        self.region.ring(conn.tx_off.load(Ordering::Relaxed), conn.tx_len.load(Ordering::Relaxed))
    }

    /// Bytes sent or to be sent and not acknowledged yet.
    pub fn unacked(&self) -> u32 {
        // Acquire: the card is done with bytes before it reports them as acknowledged.
        let tail = self.slot.event.tx_tail.load(Ordering::Acquire);
        self.slot.tx.head.load(Ordering::Relaxed).wrapping_sub(tail)
    }

    /// Bytes that have not been sent, as far as one can tell here: no more than cwnd can have been.
    pub fn not_sent(&self) -> u32 {
        self.unacked().saturating_sub(self.slot.event.cwnd.load(Ordering::Relaxed))
    }

    /// TCP_NOTSENT_LOWAT, bytes.
    fn not_sent_low_water(&self) -> u32 {
        match self.slot.options.not_sent_low_water.load(Ordering::Relaxed) {
            0 => u32::MAX,
            bytes => bytes,
        }
    }

    /// Bytes that can be sent now. Up to TCP_NOTSENT_LOWAT, and the one segment that Linux makes at a time.
    pub fn space(&self) -> u32 {
        match self.not_sent_low_water().saturating_sub(self.not_sent()) {
            0 => 0,
            wanted => self.free().min(wanted.saturating_add(SEGMENT_MAX)),
        }
    }

    /// Bytes free in the transmit buffer.
    fn free(&self) -> u32 {
        // Positions are claims: a backlog larger than the buffer leaves no space.
        self.slot.conn.tx_len.load(Ordering::Relaxed).saturating_sub(self.unacked())
    }

    /// Why nothing can be sent, now or ever. `Ok(false)`: it may be possible later.
    /// RFC 9293 3.10.2-4.
    pub fn may_send(&self) -> Result<bool, Errno> {
        match self.state() {
            slot_state::CONNECTING => return Ok(false),
            slot_state::CONNECTED => {}
            _ => return Err(self.take_error().unwrap_or(Errno::PIPE)),
        }
        let ended = self.event_flags() & (ev_flags::ERROR | ev_flags::CLOSED) != 0;
        if ended || self.tx_flags() & hc_flags::FIN != 0 {
            return Err(self.take_error().unwrap_or(Errno::PIPE));
        }
        Ok(self.space() > 0)
    }

    /// Where bytes to be sent can be put. [`commit`](Self::commit) sends them.
    pub fn send_view(&self) -> [Span; 2] {
        let head = self.slot.tx.head.load(Ordering::Relaxed);
        match self.tx_ring() {
            Some(ring) if self.connected() => ring.spans(head, self.space()),
            _ => [Span { ptr: std::ptr::NonNull::dangling(), len: 0 }; 2],
        }
    }

    /// The first `n` bytes of the view are to be sent; the card has to be told.
    pub fn commit(&self, n: u32) {
        let head = self.slot.tx.head.load(Ordering::Relaxed).wrapping_add(n.min(self.free()));
        // Release: with the acquire in `Channel::flush`; the bytes are in the buffer.
        self.slot.tx.head.store(head, Ordering::Release);
    }

    /// Copies from an application's buffers as much as fits. `Ok(None)`: no room now.
    pub fn send(&self, source: &mut Source<'_>) -> Result<Option<usize>, Errno> {
        self.put(source, false)
    }

    /// As [`send`](Self::send), and all up to there is urgent (MSG_OOB).
    pub fn send_urgent(&self, source: &mut Source<'_>) -> Result<Option<usize>, Errno> {
        self.put(source, true)
    }

    fn put(&self, source: &mut Source<'_>, urgent: bool) -> Result<Option<usize>, Errno> {
        if !self.may_send()? {
            return Ok(None);
        }
        let ring = self.tx_ring().ok_or(Errno::IO)?;
        let head = self.slot.tx.head.load(Ordering::Relaxed);
        let n = ring.fill(head, self.space(), source);
        if urgent && n > 0 {
            // Before the head: who sees the bytes sees that they are urgent.
            self.slot.tx.urgent.store(head.wrapping_add(n), Ordering::Relaxed);
        }
        self.commit(n);
        Ok(Some(n as usize))
    }

    /// Reads up to `max` bytes of a file straight into the transmit buffer. `Ok(None)`: no room; `Ok(Some(0))`: end of the file.
    pub fn send_file(&self, file: impl rustix::fd::AsFd, offset: Option<u64>, max: usize) -> Result<Option<usize>, Errno> {
        if !self.may_send()? {
            return Ok(None);
        }
        let ring = self.tx_ring().ok_or(Errno::IO)?;
        let max = self.space().min(max.min(u32::MAX as usize) as u32);
        let n = ring.fill_from_file(self.slot.tx.head.load(Ordering::Relaxed), max, file, offset)?;
        self.commit(n);
        Ok(Some(n as usize))
    }

    // --- ends

    /// No more will be sent; a FIN follows what was. `true`: the card has to be told.
    pub fn shutdown_tx(&self) -> bool {
        self.set_tx_flags(hc_flags::FIN, true)
    }

    /// No more will be received. `true`: the card has to be told.
    pub fn shutdown_rx(&self) -> bool {
        self.set_flag(own_flags::RX_SHUT, true);
        self.set_tx_flags(hc_flags::RX_CLOSED, true)
    }

    /// The last descriptor may go: what is queued is to be sent, then FIN. Without this, toed takes the holder for dead and resets.
    pub fn mark_clean(&self, clean: bool) {
        self.set_flag(slot_flags::CLEAN, clean);
    }

    /// What the card is to be told if this was the last descriptor: to end the connection, in order if [that is meant](Self::mark_clean). toed
    /// sees the descriptor go too and says the same; but a peer must not wait for a daemon that is stopped. `None`: there is nothing to tell.
    pub fn farewell(&self) -> Option<Farewell> {
        let ended = self.event_flags() & (ev_flags::ERROR | ev_flags::CLOSED) != 0;
        let kind = if self.has_flag(slot_flags::CLEAN) { hc::CLOSE } else { hc::ABORT };
        (self.connected() && !ended).then(|| Farewell(describe(self.slot, self.index, kind)))
    }

    // --- readiness

    /// As poll(2) would report, all bits of [`ready`]; the order of the rules is that of Linux's tcp_poll().
    pub fn readiness(&self) -> u32 {
        use ready::*;
        let pending = || if self.pending_error().is_some() { ERR } else { 0 };
        match self.state() {
            slot_state::LISTENING => {
                if self.region.has_accept(self.slot) {
                    return IN | RDNORM;
                }
                return if self.has_flag(own_flags::RX_SHUT) { IN | RDNORM | RDHUP | HUP } else { 0 };
            }
            slot_state::CONNECTING => return 0,
            slot_state::CONNECTED => {}
            // Its error is reported once. A server that looked again and again, as it may do when there is something to accept, would
            // spin for as long as it lives.
            slot_state::FAILED if self.has_flag(own_flags::LISTENED) => {
                return if self.pending_error().is_some() { IN | RDNORM | ERR } else { 0 };
            }
            slot_state::FAILED => return IN | RDNORM | RDHUP | OUT | WRNORM | HUP | pending(),
            // Never connected.
            _ => return OUT | WRNORM | HUP | pending(),
        }
        let flags = self.event_flags();
        let error = flags & ev_flags::ERROR != 0;
        let rx_ended = self.rx_ended();
        let tx_ended = error || flags & ev_flags::CLOSED != 0 || self.tx_flags() & hc_flags::FIN != 0;
        let mut bits = 0;
        if rx_ended {
            bits |= IN | RDNORM | RDHUP;
        }
        if rx_ended && tx_ended {
            bits |= HUP;
        }
        let low_water = self.slot.rx.low_water.load(Ordering::Relaxed).clamp(1, i32::MAX as u32);
        if self.unread() >= low_water.min(self.slot.conn.rx_len.load(Ordering::Relaxed).max(1)) {
            bits |= IN | RDNORM;
        }
        if urgent::is_readable(self.slot) {
            bits |= PRI;
        }
        if tx_ended || self.is_writable() {
            bits |= OUT | WRNORM;
        }
        if error {
            bits |= pending();
        }
        bits
    }

    /// Linux calls a socket writable when at least a third of its buffer is free.
    fn is_writable(&self) -> bool {
        let free = self.free();
        // By half of TCP_NOTSENT_LOWAT, so that who is woken has something to do.
        let wanted = self.not_sent().saturating_mul(2) < self.not_sent_low_water();
        wanted && free > 0 && free >= self.unacked() / 2
    }
}

/// An errno out of shared memory, kept inside the range that Linux uses.
fn errno(code: u32) -> Errno {
    match code {
        1..=4095 => Errno::from_raw_os_error(code as i32),
        _ => Errno::CONNRESET,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Channel;
    use crate::channel::tests::{Bench, bench};
    use toe_abi::desc::EventDesc;

    fn poll(bench: &Bench) {
        let mut channel = Channel::attach(bench.region.clone(), 0).unwrap();
        channel.poll(10, |_, _| ());
    }

    fn connected() -> Bench {
        let bench = bench(8);
        bench.connect(0);
        bench
    }

    fn socket(bench: &Bench) -> Socket<'_> {
        Socket::new(&bench.region, 0).unwrap()
    }

    #[test]
    fn a_listener_whose_card_has_gone_reports_it_once() {
        let bench = bench(8);
        let socket = Socket::new(&bench.region, 1).unwrap();
        socket.slot().conn.store_state(slot_state::LISTENING);
        socket.fail(Errno::NETDOWN);
        assert_eq!(socket.readiness(), ready::IN | ready::RDNORM | ready::ERR);
        assert_eq!(socket.take_error(), Some(Errno::NETDOWN));
        assert_eq!(socket.readiness(), 0);
    }

    #[test]
    fn what_is_sent_lies_in_the_buffer_until_it_is_acknowledged() {
        let mut bench = connected();
        assert_eq!(socket(&bench).send(&mut Source::from_slice(&[7; 5000])), Ok(Some(4096)));
        assert_eq!(socket(&bench).send(&mut Source::from_slice(&[7; 10])), Ok(None), "full");
        assert_eq!(socket(&bench).readiness() & ready::OUT, 0);
        bench.event(0, EventDesc { tx_tail: 96, ..EventDesc::default() });
        poll(&bench);
        assert_eq!(socket(&bench).readiness() & ready::OUT, 0, "less than a third is free");
        assert_eq!(socket(&bench).space(), 96);
        bench.event(0, EventDesc { tx_tail: 2000, ..EventDesc::default() });
        poll(&bench);
        assert_ne!(socket(&bench).readiness() & ready::OUT, 0);
    }

    #[test]
    fn what_cannot_be_sent_yet_is_held_back_by_notsent_lowat() {
        let mut bench = connected();
        let ready = |bench: &Bench| socket(bench).readiness() & ready::OUT != 0;
        socket(&bench).set_option(crate::SocketOption::NotSentLowWater, 100).unwrap();
        bench.event(0, EventDesc { cwnd: 1000, ..EventDesc::default() });
        poll(&bench);
        assert_eq!(socket(&bench).send(&mut Source::from_slice(&[7; 1049])), Ok(Some(1049)));
        assert!(ready(&bench), "49 bytes beyond cwnd");
        assert_eq!(socket(&bench).send(&mut Source::from_slice(&[7; 1])), Ok(Some(1)));
        assert!(!ready(&bench) && socket(&bench).space() > 0, "half of it");
        assert_eq!(socket(&bench).send(&mut Source::from_slice(&[7; 50])), Ok(Some(50)));
        assert_eq!(socket(&bench).send(&mut Source::from_slice(&[7; 1])), Ok(None));
        bench.event(0, EventDesc { tx_tail: 100, cwnd: 1000, ..EventDesc::default() });
        poll(&bench);
        assert!(ready(&bench));
    }

    #[test]
    fn received_bytes_come_before_the_end_and_the_end_before_nothing() {
        let mut bench = connected();
        let mut buf = [0; 10];
        assert_eq!(socket(&bench).receive(&mut Sink::from_slice(&mut buf), Take::Consume), Ok(None));
        bench.event(0, EventDesc { rx_head: 4, flags: ev_flags::RX_FIN, ..EventDesc::default() });
        poll(&bench);
        let s = socket(&bench);
        assert_eq!(s.readiness(), ready::IN | ready::RDNORM | ready::RDHUP | ready::OUT | ready::WRNORM);
        assert_eq!(s.receive(&mut Sink::from_slice(&mut buf), Take::Peek), Ok(Some(4)));
        assert_eq!(s.receive(&mut Sink::from_slice(&mut buf), Take::Consume), Ok(Some(4)));
        assert_eq!(s.receive(&mut Sink::from_slice(&mut buf), Take::Consume), Ok(Some(0)));
        assert!(s.shutdown_tx() && !s.shutdown_tx());
        assert_ne!(s.readiness() & ready::HUP, 0);
        assert_eq!(s.send(&mut Source::from_slice(b"x")), Err(Errno::PIPE));
    }

    #[test]
    fn a_reset_is_reported_once_and_then_the_end() {
        let mut bench = connected();
        let reset = Errno::CONNRESET.raw_os_error() as u32;
        let flags = ev_flags::ERROR | ev_flags::CLOSED;
        bench.event(0, EventDesc { flags, error: reset, ..EventDesc::default() });
        poll(&bench);
        let s = socket(&bench);
        assert_ne!(s.readiness() & ready::ERR, 0);
        assert_eq!(s.receive(&mut Sink::from_slice(&mut [0; 4]), Take::Consume), Err(Errno::CONNRESET));
        assert_eq!(s.receive(&mut Sink::from_slice(&mut [0; 4]), Take::Consume), Ok(Some(0)));
        assert_eq!(s.send(&mut Source::from_slice(b"x")), Err(Errno::PIPE));
        assert_eq!(s.readiness() & ready::ERR, 0, "taken");
        assert_eq!(s.take_error(), None);
    }

    #[test]
    fn a_failed_connect_keeps_its_error_for_so_error() {
        let bench = bench(8);
        let slot = bench.region.slot(0).unwrap();
        slot.reset();
        let s = socket(&bench);
        assert_eq!(s.readiness(), ready::OUT | ready::WRNORM | ready::HUP, "as Linux for a fresh socket");
        assert_eq!(s.receive(&mut Sink::from_slice(&mut [0]), Take::Consume), Err(Errno::NOTCONN));
        slot.conn.error.store(Errno::CONNREFUSED.raw_os_error() as u32, Ordering::Relaxed);
        slot.conn.store_state(slot_state::FAILED);
        assert_ne!(s.readiness() & ready::ERR, 0);
        assert_eq!(s.take_error(), Some(Errno::CONNREFUSED));
        assert_eq!(s.take_error(), None);
    }

    #[test]
    fn the_card_is_told_before_the_sender_could_starve() {
        let mut bench = connected();
        bench.event(0, EventDesc { rx_head: 4096, ..EventDesc::default() });
        poll(&bench);
        let s = socket(&bench);
        assert!(s.consume(1), "the buffer was full");
        bench.region.slot(0).unwrap().rx.told.store(1, Ordering::Relaxed);
        assert!(s.consume(4095));
        bench.region.slot(0).unwrap().rx.told.store(4096, Ordering::Relaxed);
        bench.event(0, EventDesc { rx_head: 4196, ..EventDesc::default() });
        poll(&bench);
        assert!(!socket(&bench).consume(100), "a small read of an empty buffer needs no update");
    }

    #[test]
    fn hostile_positions_never_leave_the_buffer() {
        let bench = connected();
        let slot = bench.region.slot(0).unwrap();
        slot.event.rx_head.store(0x8000_0000, Ordering::Relaxed);
        slot.event.tx_tail.store(0x8000_0000, Ordering::Relaxed);
        let s = socket(&bench);
        assert_eq!((s.readable(), s.space()), (0, 0));
        slot.conn.rx_off.store(u64::MAX, Ordering::Relaxed);
        slot.event.rx_head.store(10, Ordering::Relaxed);
        assert_eq!(s.receive(&mut Sink::from_slice(&mut [0; 4]), Take::Consume), Err(Errno::IO));
        slot.event.error.store(u32::MAX, Ordering::Relaxed);
        slot.event.flags.store(u32::MAX, Ordering::Relaxed);
        assert_eq!(s.take_error(), Some(Errno::CONNRESET));
    }

    #[test]
    fn a_lost_card_ends_every_kind_of_socket() {
        let bench = connected();
        socket(&bench).fail(Errno::NETDOWN);
        assert_eq!(socket(&bench).send(&mut Source::from_slice(b"x")), Err(Errno::NETDOWN));
        let slot = bench.region.slot(1).unwrap();
        slot.reset();
        slot.conn.store_state(slot_state::CONNECTING);
        let s = Socket::new(&bench.region, 1).unwrap();
        s.fail(Errno::NETDOWN);
        assert_eq!(s.take_error(), Some(Errno::NETDOWN));
    }
}
