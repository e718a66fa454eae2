//! Requests of libraries, one function each. Everything in a request is a claim.

use super::{
    ClientId, Core, Created, Host, Incoming, Memory, Proof,
    app::{App, Context, ContextStage, Listener, Role, Stage},
    host::Attachment,
    outbox::Pending,
    slots,
};
use rustix::io::Errno;
use std::collections::{BTreeSet, VecDeque};
use toe_abi::{
    CtxId, RegionId,
    app::{APP_MAGIC, POOL_MAX, Reply, Request, op, whose},
    control::kind,
    region::{RegionConfig, RegionHeader, slot_state},
};
use toe_engine::{BindId, ConnId, Endpoint, Sharing, Wishes};
use zerocopy::IntoBytes;

/// Processes of an application for each context that it may have: most that say HELLO open one, and some have just left theirs.
const PROCESSES_PER_CONTEXT: usize = 2;

/// What a request comes to.
pub(super) enum Outcome {
    Answer(Reply, Vec<Attachment>),
    /// The answer follows an answer of the card.
    Later,
    /// There is none.
    Silence,
}

pub(super) type Result = std::result::Result<Outcome, Errno>;

pub(super) fn done() -> Result {
    Ok(Outcome::Answer(Reply::default(), Vec::new()))
}

pub(super) fn failure(e: Errno) -> Reply {
    Reply { errno: e.raw_os_error() as u32, ..Reply::default() }
}

fn errno(e: toe_engine::Errno) -> Errno {
    Errno::from_raw_os_error(e.0 as i32)
}

impl<H: Host> Core<H> {
    /// A request. Not to be called while the client is [`busy`](Core::busy).
    pub fn request(&mut self, incoming: &Incoming<'_>, now_us: u64) {
        self.tally.requests += 1;
        let client = incoming.client;
        match self.dispatch(incoming, now_us) {
            Ok(Outcome::Answer(reply, attach)) => self.host.reply(client, &reply, &attach),
            Ok(Outcome::Later) => {
                if let Some(c) = self.clients.get_mut(&client) {
                    c.busy = true;
                }
            }
            Ok(Outcome::Silence) => {}
            Err(e) => self.refuse(client, e),
        }
        self.act(now_us);
    }

    fn refuse(&mut self, client: ClientId, e: Errno) {
        self.tally.requests_refused += 1;
        let mut reply = failure(e);
        if e == Errno::PROTO {
            // So that the library can say which versions met.
            reply.args[0] = toe_abi::ABI_VERSION.into();
        }
        self.host.reply(client, &reply, &[]);
    }

    fn dispatch(&mut self, incoming: &Incoming<'_>, now_us: u64) -> Result {
        let (client, r) = (incoming.client, incoming.request);
        let known = self.clients.get(&client).ok_or(Errno::BADF)?;
        if r.op == op::HELLO {
            return if known.region.is_some() { Err(Errno::INVAL) } else { self.hello(incoming, now_us) };
        }
        let region = known.region.ok_or(Errno::PROTO)?;
        match r.op {
            op::OPEN_CONTEXT => self.open_context(client, region),
            op::POOL => self.pool(region, r),
            op::BIND => self.bind(client, region, r),
            op::LISTEN => self.listen(region, r),
            op::CONNECT => self.connect(region, r, now_us),
            op::SUBSCRIBE => self.subscribe(region, r),
            op::UNLISTEN => self.stop_opening(region, r, now_us),
            op::CLOSE_CONTEXT => self.close_context_of(client, region, r),
            op::BYE => {
                self.leave(client, now_us);
                Ok(Outcome::Silence)
            }
            op::RATE => self.pace(client, region, r),
            op::WHOSE => Ok(self.whose(r)),
            op::CONGESTION => self.set_congestion(client, region, r, now_us),
            op::INFO => self.info(client, region, r),
            op::IDENTIFY => identify(region, incoming.proof),
            _ => Err(Errno::OPNOTSUPP),
        }
    }

    pub(super) fn app(&mut self, region: u16) -> std::result::Result<&mut App<H::Memory>, Errno> {
        self.apps.get_mut(&region).filter(|a| a.stage == Stage::Running).ok_or(Errno::STALE)
    }

    fn hello(&mut self, incoming: &Incoming<'_>, now_us: u64) -> Result {
        let [magic, version, _, ticket] = incoming.request.args;
        let version = u32::try_from(version).map_err(|_| Errno::PROTO)?;
        if magic != APP_MAGIC || !toe_abi::compatible(version) {
            return Err(Errno::PROTO);
        }
        if self.stopping {
            return Err(Errno::SHUTDOWN);
        }
        match incoming.proof {
            None => {
                if self.starting.is_empty()
                    && let Some(outcome) = self.start(incoming.client, ticket, now_us)
                {
                    return outcome;
                }
                self.starting.push_back((incoming.client, ticket));
                Ok(Outcome::Later)
            }
            Some(Proof::Region(region) | Proof::Token(region, _)) => self.join(incoming.client, region.0, now_us),
            Some(Proof::Unknown) => Err(Errno::STALE),
        }
    }

    fn join(&mut self, client: ClientId, region: u16, now_us: u64) -> Result {
        let most = self.config.limits.contexts as usize * PROCESSES_PER_CONTEXT;
        let app = self.apps.get_mut(&region).ok_or(Errno::STALE)?;
        if app.clients.len() >= most {
            return Err(Errno::USERS);
        }
        // A descriptor that was passed on can revive a family whose processes had all gone, as long as its memory is there.
        if let Stage::Ending { .. } = app.stage {
            app.stage = Stage::Running;
        }
        if app.stage != Stage::Running {
            return Err(Errno::STALE);
        }
        app.clients.insert(client);
        if let Some(c) = self.clients.get_mut(&client) {
            c.region = Some(region);
        }
        // It may have been its memory that they wait for.
        self.start_waiting(now_us);
        Ok(self.welcome(region))
    }

    fn welcome(&self, region: u16) -> Outcome {
        let offset = self.apps.get(&region).map_or(0, |a| a.offset);
        let (ip, prefix) = self.config.first.map_or(([0; 16], 0), |first| (first.ip, first.written_len()));
        let args = [toe_abi::ABI_VERSION.into(), region.into(), prefix.into(), offset];
        let reply = Reply { args, ip, scope: self.config.scope, ..Reply::default() };
        Outcome::Answer(reply, vec![Attachment::Region(RegionId(region))])
    }

    pub(super) fn new_application(&mut self, client: ClientId, ticket: u64) -> Result {
        let share = match ticket {
            0 => self.config.share,
            // Of an earlier toed: an application that is to be limited does not start without its limit.
            _ => self.tickets.find(ticket).ok_or(Errno::STALE)?,
        };
        // Region 0 is toed's; the range ends before the number that means none.
        let last = self.config.card_regions;
        let region = (1..last).find(|r| !self.apps.contains_key(r)).ok_or(Errno::USERS)?;
        let l = &self.config.limits;
        let geometry = RegionHeader::new(&RegionConfig {
            region,
            n_contexts: l.contexts,
            hc_entries: l.hc_entries,
            ev_entries: l.ev_entries,
            n_sockets: l.sockets,
            n_listeners: l.listeners,
            accept_entries: l.accept_entries,
            payload_len: l.payload_len,
        })
        .ok_or(Errno::INVAL)?;
        let Created { memory, iova, offset } = self.host.create_region(RegionId(region), geometry.len)?;
        memory.write(0, geometry.as_bytes());
        let owner = self.next_owner;
        self.next_owner += 1;
        let mut app = App::new(owner, geometry, memory, offset, share);
        app.clients.insert(client);
        app.in_flight = 1;
        self.apps.insert(region, app);
        self.owners.insert(owner, region);
        if let Some(c) = self.clients.get_mut(&client) {
            c.region = Some(region);
        }
        self.outbox.send(&mut self.host, kind::MAP_REGION, Pending::MapRegion { region, client }, |m| {
            m.args = [region.into(), iova, geometry.len, 0, 0];
        });
        Ok(Outcome::Later)
    }

    /// The answer to MAP_REGION.
    pub(super) fn region_mapped(&mut self, region: u16, client: ClientId, ok: bool, now_us: u64) {
        let Some(app) = self.apps.get_mut(&region) else { return };
        app.in_flight -= 1;
        if !ok {
            self.remove_app(region, now_us);
            self.answer_later(client, failure(Errno::NOMEM), &[]);
            return self.start_waiting(now_us);
        }
        if self.stopping {
            app.stage = Stage::Ending { until_us: now_us };
            self.answer_later(client, failure(Errno::SHUTDOWN), &[]);
            return self.try_unmap(region, now_us);
        }
        app.stage = Stage::Running;
        self.begin_share(region);
        let Outcome::Answer(reply, attach) = self.welcome(region) else { return };
        self.answer_later(client, reply, &attach);
        self.end_if_abandoned(region, now_us);
    }

    /// Answers a request that waited for the card, if its client is still there.
    pub(super) fn answer_later(&mut self, client: ClientId, reply: Reply, attach: &[Attachment]) {
        if let Some(c) = self.clients.get_mut(&client) {
            c.busy = false;
            if reply.errno != 0 {
                self.tally.requests_refused += 1;
            }
            self.host.reply(client, &reply, attach);
        }
    }

    fn open_context(&mut self, client: ClientId, region: u16) -> Result {
        let app = self.app(region)?;
        let index = app.contexts.iter().position(Option::is_none).ok_or(Errno::MFILE)? as u32;
        let ctx = CtxId(*self.free_contexts.first().ok_or(Errno::NFILE)?);
        self.host.open_context(ctx)?;
        self.free_contexts.remove(&ctx.0);
        let app = self.app(region)?;
        // An earlier context may have been here: queues start at phase 1.
        let g = app.geometry;
        app.memory.clear(g.context_page(index), toe_abi::context::CONTEXT_PAGE_LEN as u64);
        app.memory.clear(g.hc_queue(index), u64::from(g.hc_entries + g.ev_entries) * 64);
        let context = Context { id: ctx, client, notices: 0, stage: ContextStage::Opening };
        if let Some(place) = app.contexts.get_mut(index as usize) {
            *place = Some(context);
        }
        app.in_flight += 1;
        let owner = app.owner;
        let queue = |off: u64, entries: u32| off | u64::from(entries.ilog2()) << 56;
        let args = [
            ctx.0.into(),
            region.into(),
            g.context_page(index),
            queue(g.hc_queue(index), g.hc_entries),
            queue(g.ev_queue(index), g.ev_entries),
        ];
        let pending = Pending::OpenContext { owner, index, ctx, client };
        self.outbox.send(&mut self.host, kind::OPEN_CONTEXT, pending, |m| m.args = args);
        Ok(Outcome::Later)
    }

    /// The answer to OPEN_CONTEXT.
    pub(super) fn context_opened(&mut self, owner: u64, index: u32, ctx: CtxId, client: ClientId, ok: bool, now_us: u64) {
        let Some(&region) = self.owners.get(&owner) else { return };
        let Some(app) = self.apps.get_mut(&region) else { return };
        app.in_flight -= 1;
        let Some(place) = app.contexts.get_mut(index as usize) else { return };
        if !ok {
            *place = None;
            self.free_context(ctx);
            self.answer_later(client, failure(Errno::NFILE), &[]);
        } else if !self.clients.contains_key(&client) {
            self.close_context(region, index);
        } else {
            if let Some(c) = place {
                c.stage = ContextStage::Open;
            }
            let reply = Reply { args: [index.into(), 0, 0, 0], ..Reply::default() };
            self.answer_later(client, reply, &[Attachment::Kick(ctx), Attachment::Irq(ctx)]);
        }
        self.try_unmap(region, now_us);
    }

    fn pool(&mut self, region: u16, r: &Request) -> Result {
        let wanted = r.args[0].clamp(1, POOL_MAX as u64) as usize;
        let mut reply = Reply::default();
        let mut attach = Vec::with_capacity(wanted);
        while attach.len() < wanted {
            let app = self.app(region)?;
            let Some(slot) = app.free_slots.pop() else { break };
            if let Err(e) = self.host.open_token(RegionId(region), slot) {
                self.app(region)?.free_slots.push(slot);
                if attach.is_empty() {
                    return Err(e);
                }
                break;
            }
            let app = self.app(region)?;
            slots::clear(&app.memory, app.slot_at(slot));
            if let Some(s) = app.slots.get_mut(slot as usize) {
                s.open = true;
            }
            app.tokens += 1;
            if let Some(place) = reply.slots.get_mut(attach.len()) {
                *place = slot as u16;
            }
            attach.push(Attachment::Token(RegionId(region), slot));
        }
        if attach.is_empty() {
            return Err(Errno::NFILE);
        }
        reply.count = attach.len() as u32;
        Ok(Outcome::Answer(reply, attach))
    }

    fn bind(&mut self, client: ClientId, region: u16, r: &Request) -> Result {
        let uid = self.clients.get(&client).map_or(0, |c| c.uid);
        // As the kernel's (capabilities(7), CAP_NET_BIND_SERVICE): who gets the port of a service gets its connections.
        if (1..self.config.unprivileged_port_start).contains(&r.port.into()) && uid != 0 && uid != self.config.uid {
            return Err(Errno::ACCESS);
        }
        let app = self.app(region)?;
        let owner = app.owner;
        let slot = app.slot(r.slot).ok_or(Errno::BADF)?;
        if slot.bind.is_some() || slot.role != Role::Idle {
            return Err(Errno::INVAL);
        }
        let (id, at) = self.engine.bind(owner, Endpoint { ip: r.ip, port: r.port }, Sharing { flags: r.flags, uid }).map_err(errno)?;
        if let Some(slot) = self.app(region)?.slot(r.slot) {
            slot.bind = Some(id);
        }
        Ok(Outcome::Answer(Reply { ip: at.ip, port: at.port, ..Reply::default() }, Vec::new()))
    }

    fn listen(&mut self, region: u16, r: &Request) -> Result {
        // The most, as Linux's somaxconn: one more than the backlog may wait.
        let most = self.config.limits.accept_entries.saturating_sub(1);
        let backlog = r.args[0].min(most.into()) as u32;
        let context = u32::try_from(r.args[1]).map_err(|_| Errno::INVAL)?;
        let app = self.app(region)?;
        app.open_context(context).ok_or(Errno::INVAL)?;
        let owner = app.owner;
        let slot = *app.slot(r.slot).ok_or(Errno::BADF)?;
        match slot.role {
            Role::Idle => {}
            Role::Listening { listener } => {
                self.engine.set_backlog(listener, backlog);
                if let Some(l) = self.listeners.get_mut(&listener) {
                    l.backlog = backlog;
                    l.subscribers.insert(context);
                }
                return Ok(self.bound_at(slot.bind));
            }
            Role::Connecting { .. } | Role::Connected { .. } => return Err(Errno::INVAL),
        }
        let open = slots::open_options(&app.memory, app.slot_at(r.slot));
        let ring = app.rings.iter().position(|used| !used).ok_or(Errno::NOBUFS)?;
        let bind = match slot.bind {
            Some(bind) => bind,
            // listen() without bind() chooses a port, as Linux does.
            None => self.engine.bind(owner, Endpoint::ANY, 0).map_err(errno)?.0,
        };
        let wishes = Wishes { buffers: self.config.buffers, cc: slot.cc, open };
        let listener = self.engine.listen(bind, backlog, wishes).map_err(errno);
        let app = self.apps.get_mut(&region).ok_or(Errno::STALE)?;
        let at = app.slot_at(r.slot);
        let slot = app.slot(r.slot).ok_or(Errno::BADF)?;
        slot.bind = Some(bind);
        let listener = listener?;
        slot.role = Role::Listening { listener };
        if let Some(used) = app.rings.get_mut(ring) {
            *used = true;
        }
        app.listeners += 1;
        slots::set_listening(&app.memory, at, ring as u32);
        let listening = Listener {
            region,
            slot: r.slot,
            ring: ring as u32,
            backlog,
            tail: 0,
            waiting: VecDeque::new(),
            subscribers: BTreeSet::from([context]),
        };
        self.listeners.insert(listener, listening);
        Ok(self.bound_at(Some(bind)))
    }

    fn bound_at(&self, bind: Option<BindId>) -> Outcome {
        let (at, _) = bind.and_then(|bind| self.engine.bound(bind)).unwrap_or((Endpoint::ANY, 0));
        Outcome::Answer(Reply { ip: at.ip, port: at.port, ..Reply::default() }, Vec::new())
    }

    fn connect(&mut self, region: u16, r: &Request, now_us: u64) -> Result {
        let limit = self.config.limits.connections;
        let buffers = self.config.buffers;
        let ctx = u32::try_from(r.args[0]).map_err(|_| Errno::INVAL)?;
        let app = self.app(region)?;
        let at = app.slot_at(r.slot);
        app.open_context(ctx).ok_or(Errno::INVAL)?;
        let slot = *app.slot(r.slot).ok_or(Errno::BADF)?;
        match slot.role {
            Role::Idle => {}
            Role::Connecting { .. } => return Err(Errno::ALREADY),
            Role::Connected { .. } | Role::Listening { .. } => return Err(Errno::ISCONN),
        }
        if slots::claimed_flow(&app.memory, at).is_some() {
            return Err(Errno::ISCONN);
        }
        if app.connections >= limit {
            return Err(Errno::NOBUFS);
        }
        let owner = app.owner;
        let open = slots::open_options(&app.memory, at);
        let remote = Endpoint { ip: r.ip, port: r.port };
        let wishes = Wishes { buffers, cc: slot.cc, open };
        let (conn, local) = self.engine.connect(owner, slot.bind, remote, wishes, now_us).map_err(errno)?;
        let app = self.app(region)?;
        app.connections += 1;
        if let Some(s) = app.slot(r.slot) {
            s.role = Role::Connecting { conn, ctx };
        }
        slots::set_state(&app.memory, at, slot_state::CONNECTING);
        self.opening.insert(conn, (region, r.slot));
        let reply = Reply { ip: local.ip, port: local.port, ..failure(Errno::INPROGRESS) };
        Ok(Outcome::Answer(reply, Vec::new()))
    }

    fn subscribe(&mut self, region: u16, r: &Request) -> Result {
        let ctx = u32::try_from(r.args[0]).map_err(|_| Errno::INVAL)?;
        let app = self.app(region)?;
        app.open_context(ctx).ok_or(Errno::INVAL)?;
        let slot = *app.slot(r.slot).ok_or(Errno::BADF)?;
        let Role::Listening { listener } = slot.role else { return Err(Errno::INVAL) };
        let l = self.listeners.get_mut(&listener).ok_or(Errno::INVAL)?;
        l.subscribers.insert(ctx);
        // What came before it subscribed is news to it as well.
        if !l.waiting.is_empty() {
            self.notify(region, ctx);
        }
        done()
    }

    /// What listens or connects does so no more.
    fn stop_opening(&mut self, region: u16, r: &Request, now_us: u64) -> Result {
        let slot = *self.app(region)?.slot(r.slot).ok_or(Errno::BADF)?;
        match slot.role {
            Role::Listening { listener } => {
                self.unlisten(listener, now_us);
                let app = self.app(region)?;
                slots::set_state(&app.memory, app.slot_at(r.slot), slot_state::OPEN);
            }
            Role::Connecting { conn, ctx } => {
                self.cancel_connect(region, conn, now_us);
                let app = self.app(region)?;
                if let Some(s) = app.slot(r.slot) {
                    s.role = Role::Idle;
                }
                slots::set_called_off(&app.memory, app.slot_at(r.slot), Errno::CONNRESET.raw_os_error() as u32);
                self.notify(region, ctx);
            }
            Role::Connected { .. } => return Err(Errno::ISCONN),
            Role::Idle => return Err(Errno::INVAL),
        }
        done()
    }

    /// Nobody wants what is being opened any more.
    pub(super) fn cancel_connect(&mut self, region: u16, conn: ConnId, now_us: u64) {
        self.opening.remove(&conn);
        if let Some(app) = self.apps.get_mut(&region) {
            app.connections -= 1;
        }
        self.engine.cancel(conn, now_us);
    }

    /// What the card has to do with an address.
    fn whose(&self, r: &Request) -> Outcome {
        let (mut own, mut on_link) = (false, false);
        for address in self.engine.addresses() {
            own |= address.prefix.ip == r.ip;
            on_link |= address.prefix.contains(&r.ip);
        }
        let answer = match (own, on_link) {
            (true, _) => whose::OWN,
            (false, true) => whose::ON_LINK,
            (false, false) => whose::OTHERS,
        };
        Outcome::Answer(Reply { args: [answer, 0, 0, 0], ..Reply::default() }, Vec::new())
    }

    fn close_context_of(&mut self, client: ClientId, region: u16, r: &Request) -> Result {
        let index = u32::try_from(r.args[0]).map_err(|_| Errno::INVAL)?;
        let own = self.app(region)?.open_context(index).is_some_and(|c| c.client == client);
        if !own {
            return Err(Errno::INVAL);
        }
        self.close_context(region, index);
        done()
    }
}

fn identify(region: u16, proof: Option<Proof>) -> Result {
    match proof {
        Some(Proof::Token(RegionId(r), slot)) if r == region => {
            Ok(Outcome::Answer(Reply { args: [slot.into(), 0, 0, 0], ..Reply::default() }, Vec::new()))
        }
        _ => Err(Errno::BADF),
    }
}
