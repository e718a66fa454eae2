//! Endings: of descriptors, contexts, processes, applications, and of toed.

use super::{
    ClientId, Core, Host,
    app::{App, ContextStage, Holder, Role, Slot, Stage},
    outbox::Pending,
    requests::failure,
    slots,
};
use rustix::io::Errno;
use std::collections::HashSet;
use toe_abi::{CtxId, FlowId, RegionId, control::kind};
use toe_engine::{ListenerId, Owner};

/// A connection that was accepted and that no slot claims after so long belongs to nobody.
const STRAY_AFTER_US: u64 = 2_000_000;

impl<H: Host> Core<H> {
    /// The last copy of a token has been closed: end what its slot holds.
    pub fn token_closed(&mut self, region: RegionId, slot: u32, now_us: u64) {
        let region = region.0;
        let Some(app) = self.apps.get_mut(&region) else { return };
        let at = app.slot_at(slot);
        let Some(s) = app.slot(slot) else { return };
        let Slot { bind, role, .. } = *s;
        let words = slots::last_words(&app.memory, at);
        let flow = match role {
            Role::Idle => words.flow,
            Role::Connected { flow } => Some(flow),
            Role::Connecting { conn, .. } => {
                self.cancel_connect(region, conn, now_us);
                None
            }
            Role::Listening { listener } => {
                self.unlisten(listener, now_us);
                None
            }
        };
        if let Some(flow) = flow {
            self.close_flow(region, flow, &words, now_us);
        }
        if let Some(bind) = bind {
            self.engine.unbind(bind, now_us);
        }
        self.recycle_slot(region, slot);
        self.schedule_trim(now_us);
        self.end_if_abandoned(region, now_us);
        self.act(now_us);
    }

    /// Back to the pool, as if never used. Last: nothing that ends with the token may meet a new use of the slot.
    fn recycle_slot(&mut self, region: u16, slot: u32) {
        let Some(app) = self.apps.get_mut(&region) else { return };
        let at = app.slot_at(slot);
        slots::clear(&app.memory, at);
        if let Some(s) = app.slot(slot) {
            *s = Slot::default();
            app.free_slots.push(slot);
            app.tokens -= 1;
        }
        self.host.close_token(RegionId(region), slot);
    }

    /// The last descriptor of a connection has gone. `flow` is a claim.
    fn close_flow(&mut self, region: u16, flow: FlowId, words: &slots::LastWords, now_us: u64) {
        // A connection that was just accepted may still be in the ring as far as we know.
        self.look_at_accept_rings(now_us);
        let Some(f) = self.flows.get(&flow) else { return };
        let own = self.apps.get(&region).is_some_and(|a| a.owner == f.owner);
        if !own || f.holder == Holder::Released {
            return;
        }
        if words.clean {
            // RFC 2525, 2.17: data that nobody will read is answered with RST. The card knows better what has arrived; it has
            // rx_tail to compare.
            let unread = words.rx_tail != words.rx_head;
            let args = [unread.into(), 1, words.tx_head.into(), words.rx_tail.into(), 0];
            self.give_up(flow, kind::CLOSE, args);
            self.engine.orphaned(flow, words.linger, now_us);
        } else {
            self.give_up(flow, kind::ABORT, [0; 5]);
        }
    }

    /// A listener goes: connections that nobody has accepted are reset.
    pub(super) fn unlisten(&mut self, id: ListenerId, now_us: u64) {
        self.look_at_accept_ring(id, now_us);
        self.waiting.remove(&id);
        let Some(l) = self.listeners.remove(&id) else { return };
        self.engine.unlisten(id, now_us);
        if let Some(app) = self.apps.get_mut(&l.region) {
            app.listeners -= 1;
            if let Some(used) = app.rings.get_mut(l.ring as usize) {
                *used = false;
            }
            if let Some(s) = app.slot(l.slot) {
                s.role = Role::Idle;
            }
        }
        for flow in l.waiting {
            self.give_up(flow, kind::ABORT, [0; 5]);
        }
    }

    /// Asks the card to close a context.
    pub(super) fn close_context(&mut self, region: u16, index: u32) {
        let Some(app) = self.apps.get_mut(&region) else { return };
        let owner = app.owner;
        let Some(Some(context)) = app.contexts.get_mut(index as usize) else { return };
        if context.stage == ContextStage::Closing {
            return;
        }
        context.stage = ContextStage::Closing;
        let ctx = context.id;
        app.in_flight += 1;
        for l in self.listeners.values_mut().filter(|l| l.region == region) {
            l.subscribers.remove(&index);
        }
        let pending = Pending::CloseContext { owner, index, ctx };
        self.outbox.send(&mut self.host, kind::CLOSE_CONTEXT, pending, |m| m.args[0] = ctx.0.into());
    }

    /// The answer to CLOSE_CONTEXT. Whatever it says, the card does not know the context any more.
    pub(super) fn context_closed(&mut self, owner: Owner, index: u32, ctx: CtxId, now_us: u64) {
        self.free_context(ctx);
        let Some(&region) = self.owners.get(&owner) else { return };
        let Some(app) = self.apps.get_mut(&region) else { return };
        app.in_flight -= 1;
        if let Some(place) = app.contexts.get_mut(index as usize) {
            *place = None;
        }
        self.try_unmap(region, now_us);
    }

    pub(super) fn free_context(&mut self, ctx: CtxId) {
        self.host.close_context(ctx);
        self.free_contexts.insert(ctx.0);
    }

    /// A client's connection has ended. Without BYE before, its process has died.
    pub fn client_gone(&mut self, client: ClientId, now_us: u64) {
        self.leave(client, now_us);
        self.clients.remove(&client);
        self.starting.retain(|(waiting, _)| *waiting != client);
        self.act(now_us);
    }

    /// A process takes leave of its family: its contexts close; its sockets end by their tokens.
    pub(super) fn leave(&mut self, client: ClientId, now_us: u64) {
        let Some(region) = self.clients.get_mut(&client).and_then(|c| c.region.take()) else { return };
        let Some(app) = self.apps.get_mut(&region) else { return };
        app.clients.remove(&client);
        // It may have taken a connection and not said so, even if it leaves in order: other threads of it were at work.
        app.sweep_at_us.get_or_insert(now_us + STRAY_AFTER_US);
        // A context that is being opened is closed when the card has answered.
        let own: Vec<u32> = (0..).zip(&app.contexts).filter(|(_, c)| is_open_for(c, client)).map(|(i, _)| i).collect();
        for index in own {
            self.close_context(region, index);
        }
        self.end_if_abandoned(region, now_us);
    }

    /// Looks for connections that were accepted and that no slot claims: their process died in between.
    pub(super) fn sweep_if_due(&mut self, region: u16, now_us: u64) {
        let Some(app) = self.apps.get_mut(&region) else { return };
        if app.sweep_at_us.is_none_or(|t| t > now_us) {
            return;
        }
        app.sweep_at_us = None;
        self.look_at_accept_rings(now_us);
        let Some(app) = self.apps.get(&region) else { return };
        let claimed: HashSet<FlowId> = app
            .slots
            .iter()
            .zip(0..)
            .filter(|(s, _)| s.open && s.role == Role::Idle)
            .filter_map(|(_, slot)| slots::claimed_flow(&app.memory, app.slot_at(slot)))
            .collect();
        let mut stray = Vec::new();
        let mut again = false;
        for (id, f) in self.flows.iter().filter(|(id, f)| f.owner == app.owner && !claimed.contains(id)) {
            if let Holder::Taken { since_us } = f.holder {
                if since_us + STRAY_AFTER_US <= now_us {
                    stray.push(*id);
                } else {
                    again = true;
                }
            }
        }
        for flow in stray {
            self.tally.stray_flows += 1;
            self.give_up(flow, kind::ABORT, [0; 5]);
        }
        if again && let Some(app) = self.apps.get_mut(&region) {
            app.sweep_at_us = Some(now_us + STRAY_AFTER_US);
        }
    }

    /// When the last process and the last token have gone, only connections that close in order keep the region.
    pub(super) fn end_if_abandoned(&mut self, region: u16, now_us: u64) {
        let Some(app) = self.apps.get_mut(&region) else { return };
        if app.stage != Stage::Running || !app.is_abandoned() {
            return;
        }
        app.stage = Stage::Ending { until_us: now_us.saturating_add(self.config.linger_us) };
        let owner = app.owner;
        // No slot is left that could claim them.
        let orphans = |f: &super::app::Flow| f.owner == owner && f.holder != Holder::Released && f.holder != Holder::Nobody;
        let ids: Vec<FlowId> = self.flows.iter().filter(|(_, f)| orphans(f)).map(|(id, _)| *id).collect();
        for flow in ids {
            self.give_up(flow, kind::ABORT, [0; 5]);
        }
        self.try_unmap(region, now_us);
        self.end_orphans(usize::from(self.config.card_regions / 2), now_us);
    }

    /// Of applications that have ended and whose peers have not closed yet, all but the last `keep` lose their memory now: else peers that never
    /// close could use up the regions (as Linux's tcp_max_orphans).
    pub(super) fn end_orphans(&mut self, keep: usize, now_us: u64) {
        let until = |app: &super::App<H::Memory>| if let Stage::Ending { until_us } = app.stage { Some(until_us) } else { None };
        let mut orphans: Vec<(u64, u16)> = self.apps.iter().filter_map(|(region, app)| Some((until(app)?, *region))).collect();
        orphans.sort_unstable();
        for (_, region) in orphans.iter().take(orphans.len().saturating_sub(keep)) {
            if let Some(app) = self.apps.get_mut(region) {
                app.stage = Stage::Ending { until_us: now_us };
            }
            self.try_unmap(*region, now_us);
        }
    }

    /// Unmaps the region of an application that has ended as soon as nothing needs it, or time is up.
    pub(super) fn try_unmap(&mut self, region: u16, now_us: u64) {
        let Some(app) = self.apps.get_mut(&region) else { return };
        let Stage::Ending { until_us } = app.stage else { return };
        let idle = app.connections == 0 && app.contexts.iter().all(Option::is_none);
        if app.in_flight > 0 || !(idle || until_us <= now_us) {
            return;
        }
        app.stage = Stage::Unmapping;
        self.outbox.send(&mut self.host, kind::UNMAP_REGION, Pending::UnmapRegion { region }, |m| {
            m.args[0] = region.into();
        });
    }

    /// The answer to UNMAP_REGION: no core can touch the memory any more.
    pub(super) fn region_unmapped(&mut self, region: u16, now_us: u64) {
        self.remove_app(region, now_us);
        self.start_waiting(now_us);
    }

    /// Forgets an application and gives its memory back. Usually it holds nothing more by now; when toed ends, it does.
    pub(super) fn remove_app(&mut self, region: u16, now_us: u64) {
        let Some(app) = self.apps.remove(&region) else { return };
        self.owners.remove(&app.owner);
        for ctx in app.contexts.iter().flatten() {
            self.free_context(ctx.id);
        }
        for (slot, s) in (0..).zip(&app.slots).filter(|(_, s)| s.open) {
            if let Role::Connecting { conn, .. } = s.role {
                self.opening.remove(&conn);
                self.engine.cancel(conn, now_us);
            }
            if let Some(bind) = s.bind {
                self.engine.unbind(bind, now_us);
            }
            self.host.close_token(app.region, slot);
        }
        for client in &app.clients {
            if let Some(c) = self.clients.get_mut(client) {
                c.region = None;
            }
        }
        // Those that the card has not reported yet go when it does.
        self.flows.retain(|_, f| f.owner != app.owner || !f.closed);
        for f in self.flows.values_mut().filter(|f| f.owner == app.owner) {
            f.holder = Holder::Released;
        }
        let App { memory, .. } = app;
        drop(memory);
        self.host.destroy_region(RegionId(region));
    }

    /// The card has gone: every socket answers with an error from now on.
    pub fn card_failed(&mut self) {
        self.stopping = true;
        for (client, _) in std::mem::take(&mut self.starting) {
            self.answer_later(client, failure(Errno::SHUTDOWN), &[]);
        }
        let regions: Vec<u16> = self.apps.keys().copied().collect();
        for region in regions {
            let Some(app) = self.apps.get(&region) else { continue };
            let open: Vec<u32> = (0..).zip(&app.contexts).filter(|(_, c)| c.is_some()).map(|(i, _)| i).collect();
            for index in open {
                if let Some(app) = self.apps.get(&region) {
                    slots::set_daemon_failed(&app.memory, app.geometry.context_page(index));
                }
                self.notify(region, index);
            }
        }
    }

    /// Ends everything: applications are told, connections reset, regions unmapped. [`is_drained`](Self::is_drained) when done.
    pub fn shutdown(&mut self, now_us: u64) {
        self.card_failed();
        self.stop_recording();
        let ids: Vec<ListenerId> = self.listeners.keys().copied().collect();
        for id in ids {
            self.unlisten(id, now_us);
        }
        let regions: Vec<u16> = self.apps.keys().copied().collect();
        for region in regions {
            if let Some(app) = self.apps.get_mut(&region)
                && matches!(app.stage, Stage::Running | Stage::Ending { .. })
            {
                app.stage = Stage::Ending { until_us: now_us };
            }
            self.try_unmap(region, now_us);
        }
        self.act(now_us);
    }

    /// Whether no application is left.
    pub fn is_drained(&self) -> bool {
        self.apps.is_empty()
    }
}

fn is_open_for(context: &Option<super::app::Context>, client: ClientId) -> bool {
    context.is_some_and(|c| c.client == client && c.stage == ContextStage::Open)
}
