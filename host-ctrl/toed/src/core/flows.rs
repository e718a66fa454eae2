//! Connections on the card: installing them, handing them to applications, letting go of them.

use super::{
    Core, Host,
    app::{Flow, Holder, Role, Stage},
    outbox::{Installing, Pending},
    slots,
};
use toe_abi::{
    CtxId, FlowId, RegionId,
    control::{ControlMsg, kind, status},
    flow::{FlowKey, FlowState},
};
use toe_engine::{ConnId, InstallError, ListenerId, Owner};

/// Buffer offsets in a flow are in units of this many bytes.
const BUFFER_UNIT: u64 = 64;

impl<H: Host> Core<H> {
    /// Takes buffers for an established connection and asks the card to install it.
    pub(super) fn install(&mut self, conn: ConnId, owner: Owner, mut state: FlowState, now_us: u64) {
        if let Err(e) = self.try_install(conn, owner, &mut state, now_us) {
            if e == InstallError::NoMemory {
                self.tally.out_of_memory += 1;
            }
            self.engine.installed(conn, Err(e), now_us);
        }
    }

    fn try_install(&mut self, conn: ConnId, owner: Owner, state: &mut FlowState, now_us: u64) -> Result<(), InstallError> {
        let region = self.owners.get(&owner).ok_or(InstallError::OwnerGone)?;
        let app = self.apps.get_mut(region).ok_or(InstallError::OwnerGone)?;
        if app.stage != Stage::Running {
            return Err(InstallError::OwnerGone);
        }
        // An active open was checked against the limit when it began.
        if !self.opening.contains_key(&conn) && app.connections >= self.config.limits.connections {
            return Err(InstallError::NoMemory);
        }
        let buffers = app.take_buffers(state.tx.buf_log2, state.rx.buf_log2).ok_or(InstallError::NoMemory)?;
        let places = app.places(&buffers);
        state.id.region = RegionId(*region);
        // Nobody's queue yet: events wait in the flow until it is bound, so none can overtake the news that it exists.
        state.id.ctx = CtxId::NONE;
        state.id.opaque = u32::MAX;
        // Fits: `CoreConfig` keeps regions below 2^32 units.
        state.tx.buf = (places.tx_off / BUFFER_UNIT) as u32;
        state.rx.buf = (places.rx_off / BUFFER_UNIT) as u32;
        app.connections += 1;
        app.in_flight += 1;
        let (cc, srtt_us) = (state.cc.algorithm, state.tx.srtt_us);
        let pending = Pending::Install(Installing { conn, owner, key: state.id.key, buffers, cc, srtt_us });
        let rate_kbps = self.rates.initial(cc, srtt_us);
        self.outbox.send(&mut self.host, kind::INSTALL, pending, |m| {
            m.set_flow_state(state);
            // Our clock, in which the state's times are; the card moves them to its own.
            m.args[0] = now_us;
            m.args[1] = rate_kbps.into();
        });
        Ok(())
    }

    /// The answer to INSTALL.
    pub(super) fn installed(&mut self, pending: &Installing, msg: &ControlMsg, now_us: u64) {
        let Installing { conn, owner, key, buffers, cc, srtt_us } = *pending;
        // The region stays while messages about it are under way.
        let Some(&region) = self.owners.get(&owner) else { return };
        let Some(app) = self.apps.get_mut(&region) else { return };
        app.in_flight -= 1;
        let result = match msg.status {
            status::OK => {
                let flow = Flow { owner, region, key, buffers, holder: Holder::Nobody, cap_kbps: 0, closed: false };
                self.flows.insert(msg.flow, flow);
                self.rates.begin(msg.flow, cc, srtt_us, now_us);
                Ok(msg.flow)
            }
            other => {
                app.return_buffers(&buffers);
                app.connections -= 1;
                Err(match other {
                    status::EXISTS => InstallError::Exists,
                    status::NO_SPACE => InstallError::CardFull,
                    _ => InstallError::Refused,
                })
            }
        };
        self.engine.installed(conn, result, now_us);
        self.act(now_us);
        self.try_unmap(region, now_us);
    }

    /// A passive open has succeeded: into the listener's accept ring.
    pub(super) fn accept(&mut self, listener: ListenerId, flow: FlowId, key: &FlowKey, now_us: u64) {
        self.look_at_accept_ring(listener, now_us);
        let placed = self.try_accept(listener, flow, key);
        if placed.is_none() {
            self.give_up(flow, kind::ABORT, [0; 5]);
        }
    }

    fn try_accept(&mut self, listener: ListenerId, flow: FlowId, key: &FlowKey) -> Option<()> {
        let l = self.listeners.get_mut(&listener)?;
        let app = self.apps.get_mut(&l.region)?;
        let f = self.flows.get_mut(&flow)?;
        if l.waiting.len() >= app.geometry.accept_entries as usize {
            return None;
        }
        let record = slots::accept_record(flow, key, &app.places(&f.buffers));
        slots::push_accept(&app.memory, &app.geometry, app.slot_at(l.slot), l.ring, l.tail, &record);
        l.tail = l.tail.wrapping_add(1);
        l.waiting.push_back(flow);
        f.holder = Holder::Ring;
        self.waiting.insert(listener);
        let rate = app.slot(l.slot).map_or(0, |s| s.rate_kbps);
        let (region, subscribers) = (l.region, l.subscribers.clone());
        self.begin_pace(flow, rate);
        for ctx in subscribers {
            self.notify(region, ctx);
        }
        Some(())
    }

    /// An active open has succeeded: into its slot.
    pub(super) fn connected(&mut self, conn: ConnId, flow: FlowId, key: &FlowKey, now_us: u64) {
        let placed = self.try_connected(conn, flow, key, now_us);
        if placed.is_none() {
            self.give_up(flow, kind::ABORT, [0; 5]);
        }
    }

    fn try_connected(&mut self, conn: ConnId, flow: FlowId, key: &FlowKey, now_us: u64) -> Option<()> {
        let (region, slot) = self.opening.remove(&conn)?;
        let app = self.apps.get_mut(&region)?;
        // The flow counts from here on; its opening counted as well.
        app.connections -= 1;
        let f = self.flows.get_mut(&flow)?;
        let at = app.slot_at(slot);
        let role = &mut app.slots.get_mut(slot as usize)?.role;
        let Role::Connecting { ctx, .. } = *role else { return None };
        *role = Role::Connected { flow };
        f.holder = Holder::Slot(slot);
        slots::set_connected(&app.memory, at, flow, key, &app.places(&f.buffers));
        let (rate, cc) = app.slots.get(slot as usize).map(|s| (s.rate_kbps, s.cc))?;
        let id = app.open_context(ctx).map(|c| c.id);
        self.begin_pace(flow, rate);
        self.begin_congestion(flow, cc, now_us);
        // Events from now on: the slot says whose they are. (The library may bind it elsewhere later.)
        if let Some(id) = id {
            self.outbox.tell(&mut self.host, kind::REBIND, flow, [id.0.into(), slot.into(), 0, 0, 0]);
        }
        self.notify(region, ctx);
        Some(())
    }

    /// An active open has failed: say so in its slot.
    pub(super) fn connect_failed(&mut self, conn: ConnId, errno: u32, now_us: u64) {
        let Some((region, slot)) = self.opening.remove(&conn) else { return };
        let Some(app) = self.apps.get_mut(&region) else { return };
        app.connections -= 1;
        let at = app.slot_at(slot);
        if let Some(s) = app.slots.get_mut(slot as usize)
            && let Role::Connecting { ctx, .. } = s.role
        {
            s.role = Role::Idle;
            slots::set_failed(&app.memory, at, errno);
            self.notify(region, ctx);
        }
        self.try_unmap(region, now_us);
    }

    /// The application lets go of a flow: sends `kind` (CLOSE or ABORT), or frees its buffers if it has closed already.
    pub(super) fn give_up(&mut self, flow: FlowId, kind: u32, args: [u64; 5]) {
        let Some(f) = self.flows.get_mut(&flow) else {
            // Not ours (the engine cancelled it before it was handed over, or it is gone): the card knows.
            self.outbox.tell(&mut self.host, kind, flow, args);
            return;
        };
        if f.holder == Holder::Released {
            // A close that is under way may still be cut short.
            if kind == kind::ABORT && !f.closed {
                self.outbox.tell(&mut self.host, kind, flow, args);
            }
            return;
        }
        f.holder = Holder::Released;
        if f.closed {
            self.forget(flow);
        } else {
            self.outbox.tell(&mut self.host, kind, flow, args);
        }
    }

    /// The card's FLOW_CLOSED.
    pub(super) fn flow_closed(&mut self, msg: &ControlMsg, now_us: u64) {
        let state = msg.flow_state();
        let reason = u32::try_from(msg.args[0]).unwrap_or(u32::MAX);
        // A card of an earlier version does not say.
        let clock_us = if msg.args[1] == 0 { now_us } else { msg.args[1] };
        self.engine.flow_closed(msg.flow, reason, &state, clock_us, now_us);
        let Some(f) = self.flows.get_mut(&msg.flow) else {
            self.tally.stray_completions += 1;
            return;
        };
        f.closed = true;
        self.rates.end(msg.flow);
        let region = f.region;
        // Until the application lets go, it may still read what has arrived: the buffers stay.
        if f.holder == Holder::Released {
            self.forget(msg.flow);
        }
        self.schedule_trim(now_us);
        self.try_unmap(region, now_us);
    }

    /// Card and application have both let go.
    pub(super) fn forget(&mut self, flow: FlowId) {
        let Some(f) = self.flows.remove(&flow) else { return };
        self.rates.end(flow);
        // A later application may have the region's number by now.
        if let Some(app) = self.apps.get_mut(&f.region)
            && app.owner == f.owner
        {
            app.return_buffers(&f.buffers);
            app.connections -= 1;
        }
    }

    /// Which waiting connections have been accepted meanwhile, at every listener that has some.
    pub(super) fn look_at_accept_rings(&mut self, now_us: u64) {
        let ids: Vec<ListenerId> = self.waiting.iter().copied().collect();
        for id in ids {
            self.look_at_accept_ring(id, now_us);
        }
    }

    /// Connections that wait at a listener now, whether or not we have looked since some were taken.
    pub(super) fn waiting_at(&self, l: &super::app::Listener) -> u32 {
        let known = l.waiting.len() as u32;
        let Some(app) = self.apps.get(&l.region) else { return known };
        known.min(l.tail.wrapping_sub(slots::accept_head(&app.memory, app.slot_at(l.slot))))
    }

    pub(super) fn look_at_accept_ring(&mut self, id: ListenerId, now_us: u64) {
        let Some(l) = self.listeners.get_mut(&id) else { return };
        let Some(app) = self.apps.get(&l.region) else { return };
        let head = slots::accept_head(&app.memory, app.slot_at(l.slot));
        // A claim: between what was taken before and what was put in.
        let left = l.tail.wrapping_sub(head) as usize;
        if left > l.waiting.len() {
            self.tally.bad_accept_heads += 1;
            return;
        }
        let taken = l.waiting.len() - left;
        for flow in l.waiting.drain(..taken) {
            if let Some(f) = self.flows.get_mut(&flow)
                && f.holder == Holder::Ring
            {
                f.holder = Holder::Taken { since_us: now_us };
            }
        }
        if left == 0 {
            self.waiting.remove(&id);
        }
        if taken > 0 {
            self.engine.accepted(id, taken as u32);
        }
    }

    pub(super) fn schedule_trim(&mut self, now_us: u64) {
        self.trim_at_us.get_or_insert(now_us + super::TRIM_EVERY_US);
    }

    /// Tells a context that something it subscribed to has changed.
    pub(super) fn notify(&mut self, region: u16, index: u32) {
        let Some(app) = self.apps.get_mut(&region) else { return };
        let page = app.geometry.context_page(index);
        let Some(ctx) = app.open_context(index) else { return };
        ctx.notices = ctx.notices.wrapping_add(1);
        let (id, notices) = (ctx.id, ctx.notices);
        if slots::notify(&app.memory, page, notices) {
            self.host.interrupt(id);
        }
    }
}
