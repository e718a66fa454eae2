//! A whole host of ours in virtual time: card, daemon and one application, all real code, joined by real shared memory.

use super::machine::{CONTROL_IOVA, CardOp, Machine, Shared};
use super::memory::Pages;
use rustix::io::Errno;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use toe::{Context, Event};
use toe_abi::app::{APP_MAGIC, Reply, Request, op};
use toe_abi::control::ControlMsg;
use toe_abi::{ABI_VERSION, CtxId, RegionId};
use toe_datapath::Composition;
use toe_engine::Engine;
use toe_hal::fake::{self, FakeBoard, FakeFrame, FakeKick, FakeMemory, FakePort};
use toe_hal::{HostMemory, Instant, Parts};
use toe_link::Region;
use toe_link::client::Daemon;
use toe_link::slot::Addr;
use toed::core::{Attachment, ClientId, Core, CoreConfig, Incoming, JobId, Report};

/// The card, however its stages are put together.
pub type AnyCard = Box<dyn Composition<Board = FakeBoard>>;

/// Rounds in which nothing may be found to do before the simulation calls it a livelock.
const ROUNDS_MAX: u32 = 100_000;
const CLIENT: ClientId = ClientId(1);

/// What becomes of the card's answers.
type Lies = Box<dyn FnMut(&mut ControlMsg)>;

/// Card and daemon: what the application's library talks to.
struct Below {
    card: AnyCard,
    port: FakePort,
    memory: FakeMemory,
    kick: FakeKick,
    core: Core<Machine>,
    shared: Rc<RefCell<Shared>>,
    now_us: u64,
    card_awake: bool,
    toed_awake: bool,
    app_awake: bool,
    /// toed does nothing: the sockets that were closed meanwhile.
    stopped: Option<Vec<(RegionId, u32)>>,
    /// The application's context as the card numbers it.
    app_ctx: Option<CtxId>,
    lies: Option<Lies>,
}

impl Below {
    /// One round of whoever is awake. True: somebody did something.
    fn round(&mut self) -> bool {
        let mut worked = self.run_card();
        worked |= self.run_toed();
        self.wake();
        worked || self.card_awake || (self.toed_awake && self.stopped.is_none())
    }

    fn run_card(&mut self) -> bool {
        self.apply_card_ops();
        if !self.card_awake {
            return false;
        }
        let now = Instant(self.now_us);
        if self.card.poll(now) {
            return true;
        }
        self.card_awake = !self.card.park(now);
        false
    }

    fn apply_card_ops(&mut self) {
        while let Some(op) = self.pop_card_op() {
            match op {
                // SAFETY: page-aligned shared memory that lives in `shared`, which goes after the card. Others use it by atomics and raw copies.
                CardOp::Map { iova, base, len } => unsafe { self.memory.map_raw(iova, base, len) },
                // UNMAP_REGION was answered: a card that says the truth has let go of it.
                CardOp::Unmap { iova } => {
                    let was_let_go = self.memory.unmap(iova);
                    assert!(was_let_go || self.lies.is_some(), "memory at {iova:#x} is taken away from a card that uses it");
                }
            }
        }
    }

    fn pop_card_op(&mut self) -> Option<CardOp> {
        self.shared.borrow_mut().card_ops.pop_front()
    }

    fn run_toed(&mut self) -> bool {
        if !self.toed_awake || self.stopped.is_some() {
            return false;
        }
        let mut worked = false;
        while let Some(mut msg) = self.pop_completion() {
            self.lies.iter_mut().for_each(|lies| lies(&mut msg));
            self.core.completion(&msg, self.now_us);
            worked = true;
        }
        while let Some((record, frame)) = self.pop_exception() {
            self.core.frame(&record, &frame, self.now_us);
            worked = true;
        }
        if self.core.next_deadline(self.now_us).is_some_and(|at| at <= self.now_us) {
            self.core.timer(self.now_us);
            worked = true;
        }
        if !worked {
            self.toed_awake = !self.shared.borrow_mut().control.park();
        }
        worked
    }

    fn pop_completion(&mut self) -> Option<ControlMsg> {
        let control = &mut self.shared.borrow_mut().control;
        let msg = control.completion();
        if msg.is_none() {
            control.release();
        }
        msg
    }

    fn pop_exception(&mut self) -> Option<(toe_abi::frames::FrameRecord, Vec<u8>)> {
        self.shared.borrow_mut().control.exception().map(|(r, f)| (r, f.to_vec()))
    }

    /// Delivers kicks and interrupts.
    fn wake(&mut self) {
        let published = std::mem::take(&mut self.shared.borrow_mut().published);
        if published && self.shared.borrow().control.must_kick() {
            self.card_kicked(CtxId::CONTROL);
        }
        let mut interrupts = self.kick.take();
        interrupts.append(&mut self.shared.borrow_mut().interrupts);
        for ctx in interrupts {
            if ctx == CtxId::CONTROL {
                self.wake_toed();
            } else if Some(ctx) == self.app_ctx {
                self.app_awake = true;
            }
        }
    }

    fn card_kicked(&mut self, ctx: CtxId) {
        self.card.kicked(ctx);
        self.card_awake = true;
    }

    fn wake_toed(&mut self) {
        if !self.toed_awake && self.stopped.is_none() {
            self.toed_awake = true;
            self.shared.borrow_mut().control.unpark();
        }
    }

    /// Sends a request of the application and runs card and daemon until it is answered.
    fn call(&mut self, request: &Request) -> (Reply, Vec<Attachment>) {
        self.core.request(&Incoming { client: CLIENT, request, proof: None }, self.now_us);
        for _ in 0..ROUNDS_MAX {
            if let Some((_, reply, attached)) = self.pop_reply(|client| client == CLIENT) {
                return (reply, attached);
            }
            self.wake();
            self.round();
        }
        panic!("the daemon does not answer {request:?}");
    }

    fn token_closed(&mut self, region: RegionId, slot: u32) {
        self.core.token_closed(region, slot, self.now_us);
        self.wake();
    }

    /// When toed wants to be run.
    fn toed_deadline(&mut self, now_us: u64) -> Option<u64> {
        if self.stopped.is_some() { None } else { self.core.next_deadline(now_us) }
    }

    fn pop_reply(&mut self, to: impl Fn(ClientId) -> bool) -> Option<(ClientId, Reply, Vec<Attachment>)> {
        let replies = &mut self.shared.borrow_mut().replies;
        let at = replies.iter().position(|(client, ..)| to(*client))?;
        replies.remove(at)
    }
}

/// A token: its drop is the last close of the socket's descriptor.
pub struct Token {
    below: Rc<RefCell<Below>>,
    region: RegionId,
    slot: u32,
}

impl Drop for Token {
    fn drop(&mut self) {
        let mut below = self.below.borrow_mut();
        match &mut below.stopped {
            Some(closed) => closed.push((self.region, self.slot)),
            None => below.token_closed(self.region, self.slot),
        }
    }
}

/// The library's connection to the daemon.
pub struct SimDaemon {
    below: Rc<RefCell<Below>>,
    region: RegionId,
}

impl SimDaemon {
    fn call(&mut self, request: Request) -> Result<Reply, Errno> {
        let (reply, _) = self.below.borrow_mut().call(&request);
        match reply.errno {
            0 => Ok(reply),
            e if e == Errno::INPROGRESS.raw_os_error() as u32 => Ok(reply),
            e => Err(Errno::from_raw_os_error(e as i32)),
        }
    }
}

impl Daemon for SimDaemon {
    type Token = Token;

    fn pool(&mut self, wanted: u32) -> Result<Vec<(u32, Token)>, Errno> {
        let reply = self.call(Request { op: op::POOL, args: [wanted.into(), 0, 0, 0], ..Request::default() })?;
        let token = |slot| Token { below: self.below.clone(), region: self.region, slot };
        Ok(reply.slots[..reply.count as usize].iter().map(|&s| (s.into(), token(s.into()))).collect())
    }

    fn bind(&mut self, slot: u32, addr: Addr, flags: u16) -> Result<Addr, Errno> {
        let request = Request { op: op::BIND, slot, ip: addr.ip, port: addr.port, flags, ..Request::default() };
        let reply = self.call(request)?;
        Ok(Addr { ip: reply.ip, port: reply.port })
    }

    fn listen(&mut self, slot: u32, backlog: u32, ctx: u32) -> Result<u16, Errno> {
        let args = [backlog.into(), ctx.into(), 0, 0];
        Ok(self.call(Request { op: op::LISTEN, slot, args, ..Request::default() })?.port)
    }

    fn connect(&mut self, slot: u32, addr: Addr, ctx: u32) -> Result<Addr, Errno> {
        let args = [ctx.into(), 0, 0, 0];
        let request = Request { op: op::CONNECT, slot, args, ip: addr.ip, port: addr.port, ..Request::default() };
        let reply = self.call(request)?;
        Ok(Addr { ip: reply.ip, port: reply.port })
    }

    fn subscribe(&mut self, slot: u32, ctx: u32) -> Result<(), Errno> {
        let args = [ctx.into(), 0, 0, 0];
        self.call(Request { op: op::SUBSCRIBE, slot, args, ..Request::default() }).map(drop)
    }

    fn unlisten(&mut self, slot: u32) -> Result<(), Errno> {
        self.call(Request { op: op::UNLISTEN, slot, ..Request::default() }).map(drop)
    }

    fn close_context(&mut self, ctx: u32) -> Result<(), Errno> {
        let args = [ctx.into(), 0, 0, 0];
        self.call(Request { op: op::CLOSE_CONTEXT, args, ..Request::default() }).map(drop)
    }

    fn close(&mut self, token: Token) -> bool {
        drop(token);
        true
    }

    fn kick(&mut self, _ctx: u32) {
        let mut below = self.below.borrow_mut();
        let ctx = below.app_ctx.expect("a context to kick about");
        below.card_kicked(ctx);
    }
}

/// What runs on a [`ToeHost`]: called when something may have changed.
pub trait App {
    /// `events`: what the library reported. True: it did something and wants to be called again at once.
    fn run(&mut self, toe: &mut Context<SimDaemon>, events: &[Event], now_us: u64) -> bool;

    /// When it wants to be called even if nothing happens.
    fn next_us(&self) -> Option<u64> {
        None
    }
}

/// Card, daemon, application.
pub struct ToeHost {
    below: Rc<RefCell<Below>>,
    toe: Context<SimDaemon>,
}

impl ToeHost {
    /// A host with the card that `make` builds around the given memory and port.
    pub fn new(
        config: CoreConfig,
        engine: Engine,
        mut memory: FakeMemory,
        port: FakePort,
        make: impl FnOnce(Parts<FakeBoard>) -> AnyCard,
    ) -> Self {
        let (machine, shared) = Machine::new();
        let kick = FakeKick::default();
        let mut card = make(fake::parts(memory.handle(), &port, &kick));
        let (base, len) = shared.borrow().control_memory();
        // SAFETY: lives in `shared`, which goes after the card (field order of `Below`); reached by atomics and raw copies only.
        unsafe { memory.map_raw(CONTROL_IOVA, base, len) };
        memory.bind(RegionId::CONTROL, CONTROL_IOVA, len as u64).expect("the control region was just mapped");
        card.attach_control();
        let core = Core::new(config, machine, engine);
        let mut below = Below {
            card,
            port,
            memory,
            kick,
            core,
            shared,
            now_us: 0,
            card_awake: true,
            toed_awake: true,
            app_awake: true,
            stopped: None,
            app_ctx: None,
            lies: None,
        };
        let (region, map, ctx) = below.join();
        let below = Rc::new(RefCell::new(below));
        let daemon = SimDaemon { below: below.clone(), region };
        let toe = Context::new(daemon, map, ctx).expect("a context");
        Self { below, toe }
    }

    /// A frame arrives at the card's port.
    pub fn arrive(&mut self, frame: FakeFrame) {
        let mut below = self.below.borrow_mut();
        below.port.arrive(frame);
        below.card_awake = true;
    }

    /// The application is to run although nothing has happened to it.
    pub fn wake_app(&mut self) {
        self.below.borrow_mut().app_awake = true;
    }

    /// toed does nothing from now on, as after SIGSTOP; what it holds stays.
    pub fn stop_toed(&mut self) {
        self.below.borrow_mut().stopped.get_or_insert_default();
    }

    /// toed goes on, and finds what it has missed.
    pub fn continue_toed(&mut self, now_us: u64) {
        let mut below = self.below.borrow_mut();
        let Some(closed) = below.stopped.take() else { return };
        below.now_us = now_us;
        below.toed_awake = true;
        below.shared.borrow_mut().control.unpark();
        closed.into_iter().for_each(|(region, slot)| below.token_closed(region, slot));
    }

    /// Connections of all kinds, TIME-WAIT apart, that the daemon knows of.
    pub fn connections(&self) -> usize {
        self.below.borrow().core.engine().connection_count()
    }

    /// A frame that the card has sent.
    pub fn take_sent(&mut self) -> Option<FakeFrame> {
        self.below.borrow_mut().port.take_sent().map(|f| f.into_received())
    }

    /// Runs everything until all sleep. Whoever sleeps is run again only if woken, or if its deadline has come: a lost wake-up stalls the
    /// simulation as it would stall the real thing.
    pub fn run(&mut self, app: &mut dyn App, now_us: u64) {
        self.start_round(now_us);
        self.below.borrow_mut().app_awake |= app.next_us().is_some_and(|at| at <= now_us);
        for _ in 0..ROUNDS_MAX {
            let below_works = self.below.borrow_mut().round();
            let app_works = self.run_app(app, now_us);
            if !below_works && !app_works {
                return;
            }
        }
        panic!("livelock at {now_us} us");
    }

    fn start_round(&mut self, now_us: u64) {
        let mut below = self.below.borrow_mut();
        below.now_us = now_us;
        let due = |at: Option<u64>| at.is_some_and(|at| at <= now_us);
        let card_due = below.card.next_deadline(Instant(now_us)).map(|d| d.micros());
        below.card_awake |= due(card_due);
        if due(below.toed_deadline(now_us)) {
            below.wake_toed();
        }
    }

    fn run_app(&mut self, app: &mut dyn App, now_us: u64) -> bool {
        if !self.below.borrow().app_awake {
            return false;
        }
        self.toe.disarm();
        let mut events = [Event::default(); 32];
        let n = self.toe.poll(&mut events);
        let again = app.run(&mut self.toe, &events[..n], now_us);
        self.toe.flush();
        let idle = n == 0 && !again && self.toe.arm();
        self.below.borrow_mut().app_awake = !idle;
        self.below.borrow_mut().wake();
        !idle
    }

    /// What other applications do than the one that runs here, straight at the daemon.
    pub fn others(&mut self, act: impl FnOnce(&mut Core<Machine>, u64)) {
        let mut below = self.below.borrow_mut();
        let now = below.now_us;
        act(&mut below.core, now);
        below.wake();
    }

    /// An answer to one of them.
    pub fn others_reply(&mut self) -> Option<(ClientId, Reply, Vec<Attachment>)> {
        self.below.borrow_mut().pop_reply(|client| client != CLIENT)
    }

    /// One of them wakes the card.
    pub fn others_kick(&mut self, ctx: CtxId) {
        self.below.borrow_mut().card_kicked(ctx);
    }

    /// From now on toed gets the card's answers as `lies` makes them.
    pub fn let_card_lie(&mut self, lies: impl FnMut(&mut ControlMsg) + 'static) {
        self.below.borrow_mut().lies = Some(Box::new(lies));
    }

    /// The memory of an application's region, as it would map it.
    pub fn memory(&self, region: RegionId) -> Option<Pages> {
        self.below.borrow().shared.borrow().regions.get(&region).cloned()
    }

    /// Tokens whose descriptors somebody has, of regions other than the application's here.
    pub fn others_tokens(&self) -> Vec<(RegionId, u32)> {
        let below = self.below.borrow();
        let own = RegionId(self.toe.region().header().region as u16);
        below.shared.borrow().tokens.iter().filter(|(region, _)| *region != own).copied().collect()
    }

    /// Has toed make a report, and runs card and daemon until it is there.
    pub fn report(&mut self, start: impl FnOnce(&mut Core<Machine>) -> JobId) -> Report {
        let mut below = self.below.borrow_mut();
        let job = start(&mut below.core);
        for _ in 0..ROUNDS_MAX {
            if let Some((id, report)) = below.core.poll_report()
                && id == job
            {
                return report;
            }
            below.wake();
            below.round();
        }
        panic!("the daemon makes no report");
    }

    /// When to run next if nothing arrives.
    pub fn next_us(&self, now_us: u64) -> Option<u64> {
        let mut below = self.below.borrow_mut();
        let card = below.card.next_deadline(Instant(now_us)).map(|d| d.micros());
        [card, below.toed_deadline(now_us)].into_iter().flatten().min()
    }
}

impl Below {
    /// HELLO and OPEN_CONTEXT: the region, its mapping, the context's index.
    fn join(&mut self) -> (RegionId, Arc<Region>, u32) {
        self.core.client_connected(CLIENT, 1, 0);
        let args = [APP_MAGIC, ABI_VERSION.into(), 1, 0];
        let (_, attached) = self.call(&Request { op: op::HELLO, args, ..Request::default() });
        let [Attachment::Region(region)] = attached[..] else { panic!("HELLO brings a region, not {attached:?}") };
        let (base, len) = self.shared.borrow().regions.get(&region).map(|m| (m.base(), m.len() as usize)).expect("its memory");
        // SAFETY: page-aligned; a thread keeps the pages for good, and for this host as long as `shared` lives. Others use them by atomics
        // and raw copies.
        let map = unsafe { Region::from_memory(base, len) }.expect("a region");
        let (reply, attached) = self.call(&Request { op: op::OPEN_CONTEXT, ..Request::default() });
        let Some(Attachment::Kick(ctx)) = attached.first() else { panic!("no kick descriptor in {attached:?}") };
        self.app_ctx = Some(*ctx);
        (region, Arc::new(map), reply.args[0] as u32)
    }
}
