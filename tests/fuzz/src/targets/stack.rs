//! All of a host (card, daemon, library, application) against a peer that says anything, in virtual time. Nothing panics or spins, everything sent
//! is a good frame, and once the application has closed and the peer is silent, every connection comes to an end.

use std::cell::RefCell;
use std::rc::Rc;

use arbitrary::Arbitrary;
use toe::{Context, Event, SocketId};
use toe_hal::RxOffload;
use toe_hal::fake::FakeFrame;
use toe_link::slot::Addr;
use toe_tests::sim::host::{App, SimDaemon, ToeHost};
use toe_wire::{TcpFlags, TcpOptions, Timestamps};

use super::calls::Call;
use super::host;
use super::lives::{self, Kept};
use super::peers::{Peers, blocks};
use super::steps::steps;

const STEPS_MAX: usize = 300;
const LISTENS: u16 = 80;
/// All retransmissions of a flow that nobody answers any more are over by then, and so is TIME-WAIT: microseconds.
const END_US: u64 = 3 * 3600 * 1_000_000;

#[derive(Arbitrary, Debug)]
enum Step<'a> {
    Frame(&'a [u8]),
    Syn {
        port: u8,
        later: u8,
        mss: Option<u16>,
        scale: Option<u8>,
        stamped: bool,
        sack: bool,
        ecn: bool,
    },
    /// The next segment as it should be: all is acknowledged, `len` bytes follow.
    Good {
        port: u8,
        len: u16,
        fin: bool,
    },
    /// One near it.
    Near {
        port: u8,
        seq: i16,
        ack: i16,
        flags: u8,
        window: u16,
        clock: Option<i8>,
        sack: [Option<(u16, u16)>; 2],
        len: u16,
        ce: bool,
    },
    /// ICMP or ICMPv6: it cannot be delivered.
    Unreachable {
        port: u8,
        code: u8,
        mtu: u16,
        seq: i16,
    },
    Pass(u32),
    App(Call),
}

/// Does what it is told.
struct Puppet {
    calls: Rc<RefCell<Vec<Call>>>,
    listener: Option<SocketId>,
    sockets: Vec<SocketId>,
}

impl App for Puppet {
    fn run(&mut self, toe: &mut Context<SimDaemon>, _events: &[Event], _now_us: u64) -> bool {
        let listener =
            *self.listener.get_or_insert_with(|| toe.listen(Addr { ip: [0; 16], port: LISTENS }, 4).expect("the first listener"));
        while let Ok(Some(socket)) = toe.accept(listener) {
            self.sockets.push(socket);
        }
        for call in self.calls.take() {
            // Errors are answers.
            let _ = call.make(toe, &mut self.sockets);
        }
        false
    }
}

struct World {
    host: ToeHost,
    app: Puppet,
    calls: Rc<RefCell<Vec<Call>>>,
    peers: Peers,
    now_us: u64,
}

thread_local! {
    static WORLD: Kept<World> = const { Kept::new() };
}

pub fn run(data: &[u8]) {
    WORLD.with(|world| world.run(data));
}

impl lives::World for World {
    fn new() -> Self {
        let calls = Rc::new(RefCell::new(Vec::new()));
        let app = Puppet { calls: calls.clone(), listener: None, sockets: vec![] };
        Self { host: host::small(1), app, calls, peers: Peers::new(LISTENS), now_us: 1000 }
    }

    fn live(&mut self, data: &[u8]) -> bool {
        self.peers = Peers::new(LISTENS);
        for step in steps(data, STEPS_MAX) {
            self.step(step);
            self.settle();
        }
        self.end();
        true
    }
}

impl World {
    fn arrive(&mut self, bytes: Vec<u8>) {
        self.host.arrive(FakeFrame { bytes, offload: RxOffload::default() });
    }

    fn step(&mut self, step: Step<'_>) {
        match step {
            Step::Frame(bytes) => self.arrive(bytes.to_vec()),
            Step::Syn { port, later, mss, scale, stamped, sack, ecn } => {
                let p = self.peers.get(port);
                (p.to, p.seq) = (LISTENS, p.seq.wrapping_add(later.into()));
                let timestamps = stamped.then_some(Timestamps { val: p.clock, ecr: 0 });
                let options = TcpOptions { mss, window_scale: scale, sack_permitted: sack, timestamps, ..TcpOptions::default() };
                let flags = if ecn { TcpFlags::SYN | TcpFlags::ECE | TcpFlags::CWR } else { TcpFlags::SYN };
                let syn = p.segment((p.seq, 0), flags, 60_000, options, false, 0);
                p.seq = p.seq.wrapping_add(1);
                self.arrive(syn);
            }
            Step::Good { port, len, fin } => {
                let segment = self.peers.get(port).next(len % 1400, if fin { TcpFlags::FIN } else { TcpFlags::empty() });
                self.arrive(segment);
            }
            Step::Near { port, seq, ack, flags, window, clock, sack, len, ce } => {
                let p = self.peers.get(port);
                let mut options = clock.map_or(TcpOptions::default(), |by| p.stamped(by));
                options.sack = blocks(p.ack, sack);
                let at = (p.seq.wrapping_add(seq as u32), p.ack.wrapping_add(ack as u32));
                let segment = p.segment(at, TcpFlags::from_bits_retain(flags), window, options, ce, len % 1400);
                self.arrive(segment);
            }
            Step::Unreachable { port, code, mtu, seq } => {
                let message = self.peers.get(port).unreachable(code, mtu, seq);
                self.arrive(message);
            }
            Step::Pass(us) => self.pass(us.into(), host::WAKEUPS),
            Step::App(call) => {
                self.calls.borrow_mut().push(call);
                self.host.wake_app();
            }
        }
    }

    /// Runs until all sleep, and takes what was sent.
    fn settle(&mut self) {
        self.host.run(&mut self.app, self.now_us);
        while let Some(frame) = self.host.take_sent() {
            if let Some(answer) = self.peers.see(&frame.bytes) {
                self.arrive(answer);
            }
        }
    }

    /// After so many deadlines the host sleeps through the rest, as a machine that was suspended.
    fn pass(&mut self, us: u64, deadlines: usize) {
        let end = self.now_us + us;
        for _ in 0..deadlines {
            let Some(at) = self.host.next_us(self.now_us).filter(|at| *at <= end) else { break };
            self.now_us = at.max(self.now_us + 1);
            self.settle();
        }
        self.now_us = self.now_us.max(end);
    }

    fn end(&mut self) {
        for _ in 0..self.app.sockets.len() {
            self.calls.borrow_mut().push(Call::Close(0));
        }
        self.host.wake_app();
        self.settle();
        self.pass(END_US, usize::MAX);
        // Whoever was accepted in the meantime, or could not be as long as there was no socket left.
        self.host.wake_app();
        self.settle();
        if !self.app.sockets.is_empty() {
            return self.end();
        }
        assert_eq!(self.host.connections(), 0, "connections that never end");
    }
}
