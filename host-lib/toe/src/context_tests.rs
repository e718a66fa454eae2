//! The native interface against a daemon and a card that live in the test.

use super::*;
use crate::channel::tests::{Bench, bench};
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use toe_abi::FlowId;
use toe_abi::desc::{EventDesc, HostDesc, ev_flags, hc};
use toe_abi::region::{AcceptRecord, slot_flags};
use zerocopy::IntoBytes;

/// What the daemon did, and which tokens are gone.
#[derive(Default)]
struct Log {
    kicks: usize,
    closed: Vec<u32>,
    /// Sockets that another process has a descriptor of.
    shared: Vec<u32>,
}

struct Fake {
    region: Arc<Region>,
    log: Arc<Mutex<Log>>,
    next: u32,
}

struct Token(u32, Arc<Mutex<Log>>);

impl Drop for Token {
    fn drop(&mut self) {
        self.1.lock().unwrap().closed.push(self.0);
    }
}

impl Daemon for Fake {
    type Token = Token;

    fn pool(&mut self, wanted: u32) -> Result<Vec<(u32, Token)>, Errno> {
        let left = 8u32.saturating_sub(self.next).min(wanted);
        let range = self.next..self.next + left;
        self.next += left;
        if left == 0 { Err(Errno::NFILE) } else { Ok(range.map(|i| (i, Token(i, self.log.clone()))).collect()) }
    }

    fn bind(&mut self, _slot: u32, addr: Addr, _flags: u16) -> Result<Addr, Errno> {
        if addr.port == 81 { Err(Errno::ADDRINUSE) } else { Ok(addr) }
    }

    fn listen(&mut self, slot: u32, _backlog: u32, _ctx: u32) -> Result<u16, Errno> {
        self.region.slot(slot).unwrap().conn.store_state(slot_state::LISTENING);
        Ok(80)
    }

    fn connect(&mut self, _slot: u32, _addr: Addr, _ctx: u32) -> Result<Addr, Errno> {
        Ok(Addr::v4([10, 0, 0, 1], 40000))
    }

    fn subscribe(&mut self, _slot: u32, _ctx: u32) -> Result<(), Errno> {
        Ok(())
    }

    fn unlisten(&mut self, _slot: u32) -> Result<(), Errno> {
        Ok(())
    }

    fn close_context(&mut self, _ctx: u32) -> Result<(), Errno> {
        Ok(())
    }

    fn close(&mut self, token: Token) -> bool {
        !self.log.lock().unwrap().shared.contains(&token.0)
    }

    fn kick(&mut self, _ctx: u32) {
        self.log.lock().unwrap().kicks += 1;
    }
}

struct World {
    toe: Context<Fake>,
    log: Arc<Mutex<Log>>,
    bench: Bench,
}

fn world() -> World {
    let bench = bench(8);
    let log = Arc::new(Mutex::new(Log::default()));
    let daemon = Fake { region: bench.region.clone(), log: log.clone(), next: 0 };
    World { toe: Context::new(daemon, bench.region.clone(), 0).unwrap(), log, bench }
}

impl World {
    fn notice(&self) {
        self.bench.region.page(0).unwrap().daemon.notices.fetch_add(1, Ordering::Release);
    }

    fn record(&self, index: u32) -> AcceptRecord {
        let payload = self.bench.region.header().payload_off + u64::from(index) * 8192;
        let flow = FlowId { index: 50 + index, generation: 1 };
        AcceptRecord { flow, tx_off: payload, rx_off: payload + 4096, tx_len: 4096, rx_len: 4096, ..Default::default() }
    }

    /// A connection arrives at `listener`.
    fn arrive(&self, listener: SocketId, index: u32) {
        let slot = self.bench.region.slot(listener.0).unwrap();
        self.bench.region.accept_words(0, index).unwrap().store_bytes(self.record(index).as_bytes());
        slot.listen.tail.store(index + 1, Ordering::Release);
        self.notice();
    }

    fn poll(&mut self) -> Vec<Event> {
        let mut events = [Event::default(); 8];
        let n = self.toe.poll(&mut events);
        events[..n].to_vec()
    }

    fn told(&mut self) -> Vec<HostDesc> {
        let mut all = Vec::new();
        while let Some(desc) = self.bench.card_in.pop() {
            all.push(desc);
        }
        self.bench.card_in.publish();
        all
    }
}

#[test]
fn a_connection_is_accepted_served_and_closed() {
    let mut w = world();
    let listener = w.toe.listen(Addr::v4([0; 4], 80), 16).unwrap();
    assert_eq!(w.toe.accept(listener).unwrap(), None);
    w.arrive(listener, 0);
    assert_eq!(w.poll(), [Event { socket: listener, ready: ready::IN | ready::RDNORM }]);
    let conn = w.toe.accept(listener).unwrap().unwrap();
    assert_eq!(w.toe.accept(listener).unwrap(), None);
    w.poll();
    assert_eq!(w.told().iter().map(|d| (d.kind, d.opaque)).collect::<Vec<_>>(), [(hc::REBIND, conn.0)]);
    assert_eq!(w.toe.send(conn, b"hello").unwrap(), Some(5));
    w.poll();
    assert_eq!(w.told().iter().map(|d| (d.kind, d.tx_head)).collect::<Vec<_>>(), [(hc::UPDATE, 5)]);
    w.bench.event(conn.0, EventDesc { rx_head: 3, ..EventDesc::default() });
    let events = w.poll();
    assert_eq!((events.len(), events[0].socket), (1, conn));
    assert_eq!(w.toe.recv(conn, &mut [0; 8]).unwrap(), Some(3));
    w.toe.close(conn);
    assert!(w.log.lock().unwrap().closed.contains(&conn.0));
    assert!(matches!(w.toe.recv(conn, &mut [0; 8]), Err(Error::NoSocket)));
}

/// A connection that has been told of, and its slot.
fn connection(w: &mut World) -> SocketId {
    let conn = w.toe.connect(Addr::v4([10, 0, 0, 2], 80)).unwrap();
    w.bench.region.slot(conn.0).unwrap().adopt(&w.record(conn.0));
    w.notice();
    w.poll();
    w.told();
    conn
}

#[test]
fn the_last_close_tells_the_card_how_far_was_written_and_read() {
    let mut w = world();
    let conn = connection(&mut w);
    w.bench.event(conn.0, EventDesc { rx_head: 5, ..EventDesc::default() });
    w.poll();
    w.toe.recv(conn, &mut [0; 2]).unwrap();
    w.toe.send(conn, b"bye").unwrap();
    w.toe.close(conn);
    let told: Vec<_> = w.told().iter().map(|d| (d.kind, d.tx_head, d.rx_tail)).collect();
    assert_eq!(told, [(hc::UPDATE, 3, 2), (hc::CLOSE, 3, 2)]);
}

#[test]
fn a_context_that_is_closed_closes_its_sockets() {
    let mut w = world();
    let conns = [connection(&mut w), connection(&mut w)];
    for conn in conns {
        w.toe.send(conn, b"bye").unwrap();
    }
    let World { toe, mut bench, .. } = w;
    toe.close_all();
    let told = std::iter::from_fn(|| bench.card_in.pop()).filter(|d| d.kind == hc::CLOSE);
    assert_eq!(told.map(|d| d.tx_head).collect::<Vec<_>>(), [3, 3]);
    assert!(conns.iter().all(|conn| Socket::new(&bench.region, conn.0).unwrap().has_flag(slot_flags::CLEAN)));
}

#[test]
fn a_close_that_is_not_the_last_tells_no_end() {
    let mut w = world();
    let conn = connection(&mut w);
    w.log.lock().unwrap().shared.push(conn.0);
    w.toe.close(conn);
    assert!(w.told().is_empty());
}

#[test]
fn a_connection_that_has_ended_is_not_closed_again() {
    let mut w = world();
    let conn = connection(&mut w);
    w.bench.event(conn.0, EventDesc { flags: ev_flags::CLOSED, ..EventDesc::default() });
    w.poll();
    w.toe.close(conn);
    assert!(w.told().is_empty());
}

#[test]
fn a_reset_is_told_once() {
    let mut w = world();
    let conn = connection(&mut w);
    w.toe.abort(conn).unwrap();
    assert_eq!(w.told().iter().map(|d| d.kind).collect::<Vec<_>>(), [hc::ABORT]);
}

#[test]
fn an_accepted_socket_has_its_listeners_options() {
    let mut w = world();
    let listener = w.toe.listen_with(Addr::v4([0; 4], 80), 16, &[(SocketOption::KeepIdle, 5)]).unwrap();
    w.toe.set_option(listener, SocketOption::Tos, 0x10).unwrap();
    assert!(w.told().is_empty(), "there is no connection");
    w.arrive(listener, 0);
    let conn = w.toe.accept(listener).unwrap().unwrap();
    w.toe.set_option(conn, SocketOption::UserTimeout, 1000).unwrap();
    w.toe.set_option(conn, SocketOption::Linger2, 1).unwrap();
    assert!(matches!(w.toe.set_option(conn, SocketOption::KeepCount, 0), Err(Error::Os(Errno::INVAL))));
    w.poll();
    let told: Vec<_> = w.told().iter().map(|d| (d.kind, d.options.keep_idle_s, d.options.tos, d.options.user_timeout_ms)).collect();
    assert_eq!(told, [(hc::REBIND, 0, 0, 0), (hc::OPTIONS, 5, 0x10, 1000)]);
    w.toe.set_option(conn, SocketOption::Linger2, 2).unwrap();
    w.poll();
    assert!(w.told().is_empty(), "that is toed's");
}

#[test]
fn an_option_out_of_range_opens_nothing() {
    let mut w = world();
    let bad = [(SocketOption::KeepIdle, 5), (SocketOption::KeepInterval, 0)];
    assert!(matches!(w.toe.connect_with(Addr::v4([10, 0, 0, 2], 80), &bad), Err(Error::Os(Errno::INVAL))));
    assert_eq!(w.log.lock().unwrap().closed, [0]);
}

#[test]
fn connecting_ends_in_an_event_either_way() {
    let mut w = world();
    let good = w.toe.connect(Addr::v4([10, 0, 0, 2], 80)).unwrap();
    let bad = w.toe.connect(Addr::v4([10, 0, 0, 2], 81)).unwrap();
    assert!(w.poll().is_empty());
    assert_eq!(w.toe.send(good, b"x").unwrap(), None, "not yet");
    w.bench.region.slot(good.0).unwrap().adopt(&w.record(1));
    let slot = w.bench.region.slot(bad.0).unwrap();
    slot.conn.error.store(Errno::CONNREFUSED.raw_os_error() as u32, Ordering::Relaxed);
    slot.conn.store_state(slot_state::FAILED);
    w.notice();
    let events = w.poll();
    let ready = |id| events.iter().find(|e| e.socket == id).unwrap().ready;
    assert_eq!(ready(good), ready::OUT | ready::WRNORM);
    assert_ne!(ready(bad) & ready::ERR, 0);
    assert_eq!(w.told().iter().map(|d| d.kind).collect::<Vec<_>>(), [hc::REBIND]);
    assert!(matches!(w.toe.send(bad, b"x"), Err(Error::Os(Errno::CONNREFUSED))));
}

#[test]
fn a_refused_bind_gives_the_token_back() {
    let mut w = world();
    assert!(matches!(w.toe.listen(Addr::v4([0; 4], 81), 1), Err(Error::Os(Errno::ADDRINUSE))));
    assert_eq!(w.log.lock().unwrap().closed, [0]);
}

#[test]
fn events_without_room_come_next_time() {
    let mut w = world();
    let listener = w.toe.listen(Addr::v4([0; 4], 80), 16).unwrap();
    let conns: Vec<_> = (0..3)
        .map(|i| {
            w.arrive(listener, i);
            w.toe.accept(listener).unwrap().unwrap()
        })
        .collect();
    w.poll();
    for conn in &conns {
        w.bench.event(conn.0, EventDesc { rx_head: 1, ..EventDesc::default() });
    }
    let mut seen = Vec::new();
    let mut events = [Event::default(); 1];
    while w.toe.poll(&mut events) == 1 {
        seen.push(events[0].socket);
    }
    assert_eq!(seen, conns);
}

#[test]
fn running_out_of_sockets_is_an_error_and_loses_no_connection() {
    let mut w = world();
    let listener = w.toe.listen(Addr::v4([0; 4], 80), 16).unwrap();
    let others: Vec<_> = (0..7).map(|_| w.toe.connect(Addr::v4([10, 0, 0, 2], 1)).unwrap()).collect();
    w.arrive(listener, 0);
    assert!(matches!(w.toe.accept(listener), Err(Error::Os(Errno::NFILE))));
    assert_eq!(others.len(), 7);
    assert!(w.bench.region.has_accept(w.bench.region.slot(listener.0).unwrap()), "it still waits");
}

#[test]
fn a_failed_card_ends_all_sockets_with_an_event() {
    let mut w = world();
    let listener = w.toe.listen(Addr::v4([0; 4], 80), 16).unwrap();
    w.arrive(listener, 0);
    let conn = w.toe.accept(listener).unwrap().unwrap();
    w.poll();
    w.bench.region.page(0).unwrap().card.failed.store(1, Ordering::Relaxed);
    assert!(matches!(w.toe.may_sleep(), Ok(false)));
    assert_eq!(w.poll().len(), 2);
    assert!(matches!(w.toe.may_sleep(), Err(Error::Failed)), "else its loop spins");
    assert!(matches!(w.toe.recv(conn, &mut [0]), Err(Error::Os(Errno::NETDOWN))));
    assert!(matches!(w.toe.connect(Addr::default()), Err(Error::Failed)));
}

#[test]
fn views_send_and_receive_without_copies_of_ours() {
    let mut w = world();
    let conn = w.toe.connect(Addr::v4([10, 0, 0, 2], 80)).unwrap();
    w.bench.region.slot(conn.0).unwrap().adopt(&w.record(1));
    w.notice();
    w.poll();
    let [a, b] = w.toe.send_view(conn).unwrap();
    assert_eq!((a.len, b.len), (4096, 0));
    w.toe.commit(conn, 4000).unwrap();
    w.bench.event(conn.0, EventDesc { rx_head: 100, tx_tail: 4000, ..EventDesc::default() });
    w.poll();
    let [a, b] = w.toe.send_view(conn).unwrap();
    assert_eq!((a.len, b.len), (96, 4000), "wrapped");
    assert_eq!(w.toe.recv_view(conn).unwrap()[0].len, 100);
    w.toe.consume(conn, 60).unwrap();
    assert_eq!(w.toe.recv_view(conn).unwrap()[0].len, 40);
}

#[test]
fn sleeping_is_refused_while_there_is_something_to_report() {
    let mut w = world();
    let listener = w.toe.listen(Addr::v4([0; 4], 80), 16).unwrap();
    assert!(w.toe.arm());
    w.toe.disarm();
    w.arrive(listener, 0);
    assert!(!w.toe.arm());
    w.poll();
    assert!(w.toe.arm());
}
