//! Two ends and a wire between them, in virtual time.

use super::host::{App, ToeHost};
use super::smol::SmolHost;
use super::stream::Duplex;
use super::wire::Wire;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp;
use toe_hal::RxOffload;
use toe_hal::fake::FakeFrame;

/// An end of the wire.
pub trait End {
    fn arrive(&mut self, frame: FakeFrame);
    fn run(&mut self, now_us: u64);
    fn take_sent(&mut self) -> Option<FakeFrame>;
    fn next_us(&mut self, now_us: u64) -> Option<u64>;
    /// Nothing is left to do.
    fn done(&self) -> bool;
    /// Its connection could not be opened, and it was told so.
    fn refused(&self) -> bool {
        false
    }
    /// One line for whoever looks into a run that went wrong.
    fn describe(&mut self) -> String;
}

/// One of our hosts and what runs on it.
pub struct ToeEnd<A> {
    pub host: ToeHost,
    pub app: A,
}

/// What a test wants to know of an application.
pub trait Scripted: App {
    fn done(&self) -> bool;
    /// See [`End::refused`].
    fn refused(&self) -> bool {
        false
    }
    fn describe(&self) -> String;
}

impl<A: Scripted> End for ToeEnd<A> {
    fn arrive(&mut self, frame: FakeFrame) {
        self.host.arrive(frame);
    }
    fn run(&mut self, now_us: u64) {
        self.host.run(&mut self.app, now_us);
    }
    fn take_sent(&mut self) -> Option<FakeFrame> {
        self.host.take_sent()
    }
    fn next_us(&mut self, now_us: u64) -> Option<u64> {
        [self.host.next_us(now_us), self.app.next_us()].into_iter().flatten().min()
    }
    fn done(&self) -> bool {
        self.app.done()
    }
    fn refused(&self) -> bool {
        self.app.refused()
    }
    fn describe(&mut self) -> String {
        format!("ours: {}", self.app.describe())
    }
}

/// smoltcp with one connection that carries a [`Duplex`].
pub struct SmolEnd {
    pub host: SmolHost,
    pub socket: SocketHandle,
    pub duplex: Duplex,
    /// Since when it has had something to send and no timer that would have it sent.
    forgotten_us: Option<u64>,
    now_us: u64,
}

/// smoltcp 0.14 can lose its retransmission timer when a window closes and opens at the same time, and then waits for ever: after so long it is
/// not what is tested any more.
const FORGOTTEN_US: u64 = 300_000_000;

impl SmolEnd {
    pub fn new(host: SmolHost, socket: SocketHandle, duplex: Duplex) -> Self {
        Self { host, socket, duplex, forgotten_us: None, now_us: 0 }
    }
}

impl End for SmolEnd {
    fn arrive(&mut self, frame: FakeFrame) {
        self.host.arrive(frame.bytes);
    }

    fn run(&mut self, now_us: u64) {
        self.host.poll(now_us);
        drive_smol(self.host.tcp(self.socket), &mut self.duplex);
        self.host.poll(now_us);
    }

    fn take_sent(&mut self) -> Option<FakeFrame> {
        self.host.take_sent().map(|bytes| FakeFrame { bytes, offload: RxOffload::default() })
    }

    fn next_us(&mut self, now_us: u64) -> Option<u64> {
        let next = self.host.next_us(now_us);
        let forgotten = next.is_none() && self.host.tcp(self.socket).send_queue() > 0;
        self.forgotten_us = forgotten.then(|| self.forgotten_us.unwrap_or(now_us));
        self.now_us = now_us;
        next
    }

    fn done(&self) -> bool {
        self.duplex.done()
    }

    fn refused(&self) -> bool {
        self.forgotten_us.is_some_and(|since| self.now_us - since > FORGOTTEN_US)
    }

    fn describe(&mut self) -> String {
        let progress = self.duplex.progress();
        format!("smoltcp: {:?}, sent and received {progress:?}", self.host.tcp(self.socket).state())
    }
}

fn drive_smol(socket: &mut tcp::Socket<'_>, duplex: &mut Duplex) {
    while socket.can_send() && !duplex.all_sent() {
        let n = socket.send_slice(&duplex.next_piece()).expect("it can send");
        duplex.sent(n);
    }
    while socket.can_recv() {
        let n = socket
            .recv(|b| {
                (b.len(), {
                    duplex.received(b);
                    b.len()
                })
            })
            .expect("it can receive");
        if n == 0 {
            break;
        }
    }
    let began = !matches!(socket.state(), tcp::State::Listen | tcp::State::SynSent | tcp::State::SynReceived);
    if began && !socket.may_recv() {
        duplex.ended = true;
    }
    if duplex.all_sent() && socket.may_send() {
        socket.close();
    }
}

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Every byte arrived.
    Delivered,
    /// An end could not open its connection and was told so; or the peer has given up without a word.
    Refused,
}

/// What there is to do at this time. When there is something again, if ever.
fn step(ends: &mut [&mut dyn End], wire: &mut Wire, now_us: u64) -> Option<u64> {
    while let Some((to, frame)) = wire.arrived(now_us) {
        ends[to].arrive(frame);
    }
    for (i, end) in ends.iter_mut().enumerate() {
        end.run(now_us);
        while let Some(frame) = end.take_sent() {
            wire.send(1 - i, frame, now_us);
        }
    }
    let next = ends.iter_mut().filter_map(|e| e.next_us(now_us)).chain(wire.next_us()).min();
    next.map(|next| next.max(now_us + 1))
}

/// Runs until this time, whatever the ends have done by then.
pub fn run_until<'a>(a: &'a mut dyn End, b: &'a mut dyn End, wire: &mut Wire, until_us: u64) {
    let ends = &mut [a, b];
    let mut now_us = 0;
    while let Some(next) = step(ends, wire, now_us).filter(|next| *next <= until_us) {
        now_us = next;
    }
}

/// Runs until both ends are done. Panics with what both say if that takes longer than `limit_us` of virtual time.
pub fn run<'a>(a: &'a mut dyn End, b: &'a mut dyn End, wire: &mut Wire, limit_us: u64) -> Outcome {
    run_for(a, b, wire, limit_us).0
}

/// As [`run`], and how long it took, microseconds of virtual time.
pub fn run_for<'a>(a: &'a mut dyn End, b: &'a mut dyn End, wire: &mut Wire, limit_us: u64) -> (Outcome, u64) {
    let ends = &mut [a, b];
    let mut now_us = 0;
    loop {
        let next = step(ends, wire, now_us);
        if ends.iter().all(|e| e.done()) {
            return (Outcome::Delivered, now_us);
        }
        if ends.iter().any(|e| e.refused()) {
            return (Outcome::Refused, now_us);
        }
        let Some(next) = next else {
            panic!("stalled at {now_us} us: nobody has anything to wait for\n{}", describe(ends));
        };
        assert!(next <= limit_us, "not done after {now_us} us\n{}", describe(ends));
        now_us = next;
    }
}

fn describe(ends: &mut [&mut dyn End]) -> String {
    ends.iter_mut().map(|e| e.describe()).collect::<Vec<_>>().join("\n")
}
