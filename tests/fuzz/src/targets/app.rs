//! Applications that ask for anything, write anything into their memory and die at any time, against card and daemon, in virtual time. Nothing
//! panics or spins, another application goes on as if they were not there, and nothing of theirs is left when they are gone. If the card lies
//! to the daemon as well, nothing panics or spins.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use arbitrary::Arbitrary;
use toe::{Context, Event, SocketId};
use toe_abi::app::{APP_MAGIC, MSG_LEN, Request, op};
use toe_abi::control::{ControlMsg, kind};
use toe_abi::desc::{HostDesc, phase, slot};
use toe_abi::flow::v4_mapped;
use toe_abi::frames::FrameRecord;
use toe_abi::region::{RegionHeader, SOCKET_SLOT_LEN};
use toe_abi::{ABI_VERSION, CtxId, FlowId, RegionId};
use toe_hal::RxOffload;
use toe_hal::fake::FakeFrame;
use toe_link::slot::Addr;
use toe_tests::sim::host::{App, SimDaemon, ToeHost};
use toe_tests::sim::memory::Pages;
use toe_wire::{TcpFlags, TcpOptions};
use toed::core::{Attachment, ClientId, Incoming, Proof};
use zerocopy::{FromBytes, IntoBytes};

use super::host;
use super::lives::{self, Kept};
use super::peers::{OUR_IP, OUR_IP6, PEER_IP, PEER_IP6, PEER_PORT, Peer, Peers};
use super::steps::steps;

const STEPS_MAX: usize = 200;
/// Where the application listens that nobody may disturb, and where the others may.
const HONEST: u16 = 80;
const OTHERS: u16 = 81;
/// Applications of all kinds.
const APPLICATIONS: u16 = 3;
/// Longer than anything that is left of an application waits for: microseconds.
const END_US: u64 = 3 * 3600 * 1_000_000;

#[derive(Arbitrary, Debug)]
enum Step<'a> {
    /// Mostly sensible.
    Request {
        client: u8,
        op: u8,
        slot: u8,
        args: [u8; 3],
        to: u8,
        flags: u8,
        proof: u8,
    },
    Bytes {
        client: u8,
        bytes: &'a [u8],
    },
    /// A descriptor in the queue of a context, behind those that are there.
    Post {
        ctx: u8,
        kind: u8,
        flow: u8,
        generation: u8,
        flags: u8,
        tx_head: u16,
        rx_tail: u16,
    },
    /// A word in a socket's slot, or anywhere.
    Slot {
        region: u8,
        slot: u8,
        word: u8,
        value: u32,
    },
    Poke {
        region: u8,
        at: u32,
        value: u32,
    },
    Kick(u8),
    /// The last descriptor of a socket is closed.
    CloseToken(u8),
    Gone(u8),
    Peer {
        n: u8,
        len: u16,
        flags: u8,
    },
    Syn(u8),
    Pass(u32),
    /// The card's next answer to the daemon is not what it should be: a word of it.
    Lie {
        word: u8,
        value: u32,
    },
    /// It tells the daemon of the end of a flow, or of a frame, that there was not.
    Closed {
        flow: u8,
        generation: u8,
        reason: u8,
    },
    Exception {
        reason: u8,
        flags: u8,
        frame: &'a [u8],
    },
}

/// Listens, accepts, and answers what is asked.
#[derive(Default)]
struct Honest {
    listener: Option<SocketId>,
    accepted: Rc<RefCell<usize>>,
    sockets: Vec<SocketId>,
    /// It has had enough, and closes what it has accepted.
    leaves: bool,
}

impl App for Honest {
    fn run(&mut self, toe: &mut Context<SimDaemon>, _events: &[Event], _now_us: u64) -> bool {
        let listener = *self.listener.get_or_insert_with(|| toe.listen(Addr { ip: [0; 16], port: HONEST }, 4).expect("the first listener"));
        while let Ok(Some(socket)) = toe.accept(listener) {
            *self.accepted.borrow_mut() += 1;
            self.sockets.push(socket);
        }
        self.sockets.retain(|socket| {
            let ended = self.leaves || matches!(toe.recv(*socket, &mut [0; 4096]), Ok(Some(0)) | Err(_));
            if ended {
                toe.close(*socket);
            }
            !ended
        });
        false
    }
}

/// A context that a client has, and where its queue has come to.
#[derive(Clone, Copy)]
struct Queue {
    client: ClientId,
    ctx: CtxId,
    region: RegionId,
    index: u32,
    tail: u32,
}

struct World {
    host: ToeHost,
    honest: Honest,
    peers: Peers,
    clients: [ClientId; 3],
    next_client: u64,
    /// Who has mapped which, the latest last: who takes leave keeps the sockets that it had.
    regions: Vec<(ClientId, RegionId)>,
    /// As it was mapped, and how it is laid out: what the memory says of that may have been written over.
    memories: BTreeMap<RegionId, (Pages, RegionHeader)>,
    queues: Vec<Queue>,
    /// Which words of the card's answers are to be others.
    lies: Rc<RefCell<Vec<(u8, u32)>>>,
    /// The card may say what is not true: then all need not come to an end as it should.
    lies_allowed: bool,
    now_us: u64,
}

thread_local! {
    static WORLD: Kept<World> = const { Kept::new() };
}

pub fn run(data: &[u8]) {
    WORLD.with(|world| world.run(data));
}

fn pick<T: Copy>(of: &[T], which: u8) -> Option<T> {
    usize::from(which).checked_rem(of.len()).map(|at| of[at])
}

impl lives::World for World {
    fn new() -> Self {
        let mut world = Self {
            host: host::small(APPLICATIONS),
            honest: Honest::default(),
            peers: Peers::new(HONEST),
            clients: [ClientId(0); 3],
            next_client: 2,
            regions: vec![],
            memories: BTreeMap::new(),
            queues: vec![],
            lies: Rc::default(),
            lies_allowed: false,
            now_us: 1000,
        };
        let lies = world.lies.clone();
        world.host.let_card_lie(move |answer| {
            if let Some((word, value)) = lies.borrow_mut().pop() {
                lie(answer, word, value);
            }
        });
        (0..3).for_each(|n| world.connect(n));
        world
    }

    /// The first byte says whether the card may lie: after one lie nothing much is to be expected of the rest.
    fn live(&mut self, data: &[u8]) -> bool {
        let Some((kind, data)) = data.split_first() else { return true };
        self.lies_allowed = kind % 4 == 3;
        self.begin();
        for step in steps(data, STEPS_MAX) {
            self.step(step);
            self.settle();
        }
        self.end();
        !self.lies_allowed
    }
}

impl World {
    /// Most of what there is to break needs an application with a context and sockets.
    fn begin(&mut self) {
        self.peers = Peers::new(HONEST);
        for (op, arg) in [(op::HELLO, 0), (op::OPEN_CONTEXT, 0), (op::POOL, 2)] {
            self.ask(self.clients[0], Request { op, ..request([arg, 0, 0]) }, None);
        }
        self.settle();
    }

    /// A process connects to the daemon, in place of an earlier one.
    fn connect(&mut self, n: usize) {
        let client = ClientId(self.next_client);
        self.next_client += 1;
        self.clients[n] = client;
        self.host.others(|core, _| core.client_connected(client, client.0 as i32, 1000));
    }

    fn ask(&mut self, client: ClientId, mut request: Request, proof: Option<Proof>) {
        if request.op == op::HELLO {
            request.args = [APP_MAGIC, ABI_VERSION.into(), client.0, 0];
        }
        self.host.others(|core, now| {
            if !core.busy(client) {
                core.request(&Incoming { client, request: &request, proof }, now);
            }
        });
        self.settle();
    }

    fn step(&mut self, step: Step<'_>) {
        match step {
            Step::Request { client, op, slot, args, to, flags, proof } => {
                let ip = [[0; 16], v4_mapped(PEER_IP), PEER_IP6, v4_mapped(OUR_IP), OUR_IP6, v4_mapped([0; 4])][usize::from(to) % 6];
                let port = [OTHERS, PEER_PORT, PEER_PORT + 1, PEER_PORT + 3, HONEST, 0][usize::from(to / 6) % 6];
                let request = Request { op: u32::from(op) % 17, slot: slot.into(), ip, port, flags: flags.into(), ..request(args) };
                // The first is the honest application's: nobody else can have a descriptor of it.
                let region = RegionId(2 + u16::from(args[0]) % (APPLICATIONS + 1));
                let proofs = [None, Some(Proof::Region(region)), Some(Proof::Token(region, slot.into())), Some(Proof::Unknown)];
                // Proofs come with requests that look at them, and seldom with others.
                let is_wanted = [op::HELLO, op::IDENTIFY].contains(&request.op) || proof > 240;
                let proof = if is_wanted { proofs[usize::from(proof) % 4] } else { None };
                self.ask(self.clients[usize::from(client) % 3], request, proof);
            }
            Step::Bytes { client, bytes } => {
                let mut message = [0; MSG_LEN];
                let len = bytes.len().min(MSG_LEN);
                message[..len].copy_from_slice(&bytes[..len]);
                let request = Request::read_from_bytes(&message).expect("any bytes will do");
                self.ask(self.clients[usize::from(client) % 3], request, None);
            }
            Step::Post { ctx, kind, flow, generation, flags, tx_head, rx_tail } => {
                let flow = some_flow(flow, generation);
                let (tx_head, rx_tail) = (tx_head.into(), rx_tail.into());
                let desc = HostDesc { kind: u32::from(kind) % 6, flow, flags: flags.into(), tx_head, rx_tail, ..HostDesc::default() };
                self.post(ctx, desc);
            }
            Step::Slot { region, slot, word, value } => self.write(region, |h| {
                let at = u64::from(word) * 4 % SOCKET_SLOT_LEN as u64;
                (h.socket(u32::from(slot) % h.n_sockets) + at, value)
            }),
            // Payload is the last, and most of it: leave it alone.
            Step::Poke { region, at, value } => self.write(region, |h| (u64::from(at) * 4 % h.payload_off, value)),
            Step::Kick(which) => {
                if let Some(queue) = pick(&self.queues, which) {
                    self.host.others_kick(queue.ctx);
                }
            }
            Step::CloseToken(which) => {
                if let Some((region, slot)) = pick(&self.host.others_tokens(), which) {
                    self.host.others(|core, now| core.token_closed(region, slot, now));
                }
            }
            Step::Gone(client) => self.gone(usize::from(client) % 3),
            Step::Peer { n, len, flags } => {
                // Resets and FINs end a connection early.
                let flags = if flags < 200 { TcpFlags::ACK } else { TcpFlags::from_bits_retain(flags) };
                let segment = self.peers.get(n).next(len % 1400, flags);
                self.arrive(segment);
            }
            Step::Syn(n) => {
                let syn = syn(self.peers.get(n), if n < 128 { OTHERS } else { HONEST });
                self.arrive(syn);
            }
            Step::Pass(us) => self.pass(us.into(), host::WAKEUPS),
            Step::Lie { .. } | Step::Closed { .. } | Step::Exception { .. } if !self.lies_allowed => {}
            Step::Lie { word, value } => self.lies.borrow_mut().push((word, value)),
            Step::Closed { flow, generation, reason } => {
                let mut notice = ControlMsg::new(kind::FLOW_CLOSED, 0);
                notice.flow = some_flow(flow, generation);
                notice.args[0] = u64::from(reason) % 8;
                self.host.others(|core, now| core.completion(&notice, now));
            }
            Step::Exception { reason, flags, frame } => {
                let record = FrameRecord { reason: reason.into(), flags: flags.into(), len: frame.len() as u32, ..FrameRecord::default() };
                self.host.others(|core, now| core.frame(&record, frame, now));
            }
        }
    }

    fn post(&mut self, which: u8, desc: HostDesc) {
        let Some(at) = usize::from(which).checked_rem(self.queues.len()) else { return };
        let queue = &mut self.queues[at];
        let Some((memory, header)) = self.memories.get(&queue.region) else { return };
        let desc = HostDesc { phase: phase(queue.tail, header.hc_entries), ..desc };
        memory.write(header.hc_queue(queue.index) + u64::from(slot(queue.tail, header.hc_entries)) * 64, desc.as_bytes());
        queue.tail = queue.tail.wrapping_add(1);
        self.host.others_kick(queue.ctx);
    }

    fn write(&mut self, which: u8, what: impl FnOnce(&RegionHeader) -> (u64, u32)) {
        let nth = usize::from(which).checked_rem(self.memories.len());
        if let Some((memory, header)) = nth.and_then(|n| self.memories.values().nth(n)) {
            let (at, value) = what(header);
            memory.store(at, value);
        }
    }

    /// The process ends, and with it its descriptors, unless others of its family have them too.
    fn gone(&mut self, n: usize) {
        let client = self.clients[n];
        self.host.others(|core, now| core.client_gone(client, now));
        self.queues.retain(|queue| queue.client != client);
        let (its, others) = std::mem::take(&mut self.regions).into_iter().partition::<Vec<_>, _>(|(of, _)| *of == client);
        self.regions = others;
        for (_, region) in its {
            if !self.regions.iter().any(|(_, other)| *other == region) {
                self.forget(region);
            }
        }
        self.connect(n);
    }

    /// Nobody has it any more.
    fn forget(&mut self, region: RegionId) {
        self.memories.remove(&region);
        for (_, slot) in self.host.others_tokens().into_iter().filter(|(of, _)| *of == region) {
            self.host.others(|core, now| core.token_closed(region, slot, now));
        }
    }

    fn arrive(&mut self, bytes: Vec<u8>) {
        self.host.arrive(FakeFrame { bytes, offload: RxOffload::default() });
    }

    /// Runs until all sleep, and takes what was sent and answered.
    fn settle(&mut self) {
        let mut answered = true;
        while answered {
            answered = false;
            self.host.run(&mut self.honest, self.now_us);
            while let Some(frame) = self.host.take_sent() {
                if let Some(answer) = self.peers.see(&frame.bytes) {
                    self.arrive(answer);
                    answered = true;
                }
            }
        }
        while let Some((client, reply, attached)) = self.host.others_reply() {
            for attachment in attached {
                match attachment {
                    Attachment::Region(region) => {
                        self.regions.push((client, region));
                        if let Some(memory) = self.host.memory(region) {
                            let header = geometry(&memory);
                            self.memories.insert(region, (memory, header));
                        }
                    }
                    Attachment::Kick(ctx) => {
                        let region = self.regions.iter().rfind(|(of, _)| *of == client);
                        let index = reply.args[0] as u32;
                        self.queues.extend(region.map(|&(_, region)| Queue { client, ctx, region, index, tail: 0 }));
                    }
                    Attachment::Irq(_) | Attachment::Token(..) => {}
                }
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
        (0..3).for_each(|n| self.gone(n));
        self.leave();
        self.pass(END_US, usize::MAX);
        self.settle();
        if self.lies_allowed {
            return;
        }
        self.host.others(|core, _| {
            let applications = core.status().applications.len();
            assert_eq!(applications, 1, "applications that are gone");
        });
        assert!(self.host.others_tokens().is_empty(), "sockets of nobody");
        assert_eq!(self.host.connections(), 0, "connections that never end");
        let before = *self.honest.accepted.borrow();
        let syn = syn(self.peers.spare(), HONEST);
        self.arrive(syn);
        self.settle();
        let ack = self.peers.spare().next(1, TcpFlags::ACK);
        self.arrive(ack);
        self.settle();
        assert_eq!(*self.honest.accepted.borrow(), before + 1, "the other application does not get its connection");
        let reset = self.peers.spare().next(0, TcpFlags::RST);
        self.arrive(reset);
        self.settle();
        assert_eq!(self.host.connections(), 0, "a connection that was reset");
    }

    /// The honest application closes all that it has accepted.
    fn leave(&mut self) {
        self.honest.leaves = true;
        self.host.wake_app();
        self.settle();
        self.honest.leaves = false;
    }
}

fn syn(p: &mut Peer, to: u16) -> Vec<u8> {
    p.to = to;
    // Far beyond an earlier connection: RFC 6191 lets it begin at once.
    p.seq = p.seq.wrapping_add(1 << 20);
    let options = TcpOptions { mss: Some(1000), sack_permitted: true, ..p.stamped(0) };
    let syn = p.segment((p.seq, 0), TcpFlags::SYN, 60_000, options, false, 0);
    p.seq = p.seq.wrapping_add(1);
    syn
}

fn some_flow(index: u8, generation: u8) -> FlowId {
    FlowId { index: u32::from(index) % 9, generation: u32::from(generation) % 5 }
}

fn request(args: [u8; 3]) -> Request {
    let [a, b, c] = args.map(u64::from);
    Request { args: [a, b, c, 0], ..Request::default() }
}

/// Anything of an answer may be wrong, but which question it is the answer to. Frames of a flow that the card claims to have would go to and
/// fro: that a card can keep the daemon busy is nothing new.
fn lie(answer: &mut ControlMsg, word: u8, value: u32) {
    let (question, tag) = (answer.kind, answer.tag);
    if [kind::INSTALL | kind::REPLY, kind::FLOW_CLOSED].contains(&question) {
        return;
    }
    let words = answer.as_mut_bytes().as_chunks_mut::<4>().0;
    words[usize::from(word) % words.len()] = value.to_ne_bytes();
    (answer.kind, answer.tag) = (question, tag);
}

fn geometry(memory: &Pages) -> RegionHeader {
    let mut header = RegionHeader::default();
    memory.read(0, header.as_mut_bytes());
    header
}
