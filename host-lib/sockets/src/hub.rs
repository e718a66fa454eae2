//! The hub: this process's queues, who watches which socket, and who sleeps.
//!
//! One lock covers all of it. Nothing under it waits; the system calls under it are kicks and wake-ups (eventfd writes).
//!
//! ```text
//!   card ──event──► drain ──► slot ──► watchers of the slot ──► an epoll item: onto its ready list, wake one of its waiters
//!   toed ──notice─┘                                        └──► a thread in recv, poll, ...: wake it
//! ```

use crate::epoll::Epoll;
use crate::fdtable::{self, Kind};
use crate::waiting::{NO_FD, SHARED};
use crate::{process, urgent};
use rustix::fd::AsRawFd;
use rustix::io::Errno;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockResult};
use std::time::Instant;
use toe::link::client::Doorbell;
use toe::link::sys::AppFd;
use toe::socket::{own_flags, ready};
use toe::{Change, Channel, Farewell, SocketOption};
use toe_abi::region::slot_state;

/// Events taken from the queue at once.
const BATCH: usize = 128;
/// How often the events of a connection are asked for anew that another process has had.
const RECLAIMS: u8 = 4;

/// The open context.
pub(crate) struct Link {
    pub channel: Channel,
    pub bell: Doorbell,
    /// The connection to toed, watched for its end.
    pub conn: i32,
}

/// Who wants to know about a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Watcher {
    /// A sleeping thread, by its ticket.
    Waiter(u64),
    /// An item of an epoll instance: the instance and the descriptor.
    Item(u32, i32),
}

/// What this process keeps of a slot.
#[derive(Default)]
pub(crate) struct Local {
    watchers: Vec<Watcher>,
    /// Descriptor numbers that mean this slot.
    pub refs: u32,
    /// Somebody found no room to send and waits to hear of some.
    pub no_space: bool,
    /// Another process has had the events of the connection lately.
    contested: Option<Contest>,
    /// Options (level and name) that do nothing but can be read again.
    kept: Vec<((i32, i32), i32)>,
}

/// When this process last asked for the events of a connection, and how often it will ask again.
#[derive(Clone, Copy)]
struct Contest {
    asked: Instant,
    left: u8,
}

/// A sleeping thread.
struct Waiter {
    ticket: u64,
    thread: u32,
    /// Its eventfd, or [`NO_FD`].
    wake: i32,
    woken: bool,
    /// An urgent byte alone is not what it waits for.
    moves_bytes: bool,
}

/// What a thread waits for.
#[derive(Default)]
pub(crate) struct Interest {
    pub slots: Vec<u32>,
    pub epolls: Vec<u32>,
    /// To send or to receive, and not to hear what is possible.
    pub moves_bytes: bool,
    /// Urgent data on sockets that somebody owns.
    pub urgent: bool,
}

pub(crate) struct Hub {
    link: Option<Link>,
    slots: Vec<Local>,
    /// Slots that connect or listen.
    noticed: Vec<u32>,
    waiters: Vec<Waiter>,
    next_ticket: u64,
    /// The waiter that waits for the card.
    leader: Option<u64>,
    pub epolls: Vec<Option<Epoll>>,
    /// Owned slots with news of urgent data, and the thread that sends signals, while it sleeps.
    urgent: Vec<(u32, Change)>,
    signaller: Option<u64>,
    /// Threads that are to end, and have not noticed yet.
    cancelled: Vec<usize>,
    /// Scratch for `drain`.
    changes: Vec<(u32, Change)>,
}

static HUB: Mutex<Hub> = Mutex::new(Hub {
    link: None,
    slots: Vec::new(),
    noticed: Vec::new(),
    waiters: Vec::new(),
    next_ticket: 0,
    leader: None,
    epolls: Vec::new(),
    urgent: Vec::new(),
    signaller: None,
    cancelled: Vec::new(),
    changes: Vec::new(),
});

/// Index of this process's context; `u32::MAX`: none.
static CTX: AtomicU32 = AtomicU32::new(u32::MAX);

pub(crate) fn lock() -> MutexGuard<'static, Hub> {
    HUB.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

pub(crate) fn try_lock() -> TryLockResult<MutexGuard<'static, Hub>> {
    HUB.try_lock()
}

pub(crate) fn ctx() -> u32 {
    CTX.load(Ordering::Relaxed)
}

impl Hub {
    /// The process has a context from now on.
    pub fn link(&mut self, link: Link) {
        CTX.store(link.channel.ctx(), Ordering::Relaxed);
        self.link = Some(link);
    }

    fn local(&mut self, slot: u32) -> &mut Local {
        let i = slot as usize;
        if i >= self.slots.len() {
            self.slots.resize_with(i + 1, Local::default);
        }
        &mut self.slots[i]
    }

    /// The connection to toed.
    pub fn conn(&self) -> Option<AppFd> {
        self.link.as_ref().map(|link| AppFd(link.conn))
    }

    // --- towards the card

    /// The card is to learn what the slot says. Kicks it if it sleeps.
    pub fn update(&mut self, slot: u32) {
        if let Some(link) = &mut self.link {
            link.channel.update(slot);
        }
        self.flush();
    }

    /// The card is to learn that an option of a connection was set, if it is one of those that it obeys.
    pub fn tell_of(&mut self, slot: u32, option: SocketOption) {
        if let Some(link) = &mut self.link {
            link.channel.tell_of(slot, option);
        }
        self.flush();
    }

    pub fn rebind(&mut self, slot: u32) {
        if let Some(link) = &mut self.link {
            link.channel.rebind(slot);
        }
        self.flush();
    }

    /// The same where another process has had the events.
    pub fn take_over(&mut self, slot: u32) {
        self.local(slot).contested = Some(Contest { asked: Instant::now(), left: RECLAIMS });
        self.rebind(slot);
    }

    pub fn is_contested(&self, slot: u32) -> bool {
        self.slots.get(slot as usize).is_some_and(|local| local.contested.is_some())
    }

    /// Asks anew for the events of a contested connection, from time to time. Each process asks by a queue of its own, and the card reads queues by
    /// turns: what another one has asked before us it may have read after, and that process may be no more. Then no event comes, to anybody,
    /// though the slot says that they come here. By the last time the card has long read what was there to read.
    pub fn reclaim(&mut self, slot: u32) {
        let Some(Contest { asked, left }) = self.slots.get(slot as usize).and_then(|local| local.contested) else { return };
        if asked.elapsed() < SHARED || !process::is_here(slot) {
            return;
        }
        self.local(slot).contested = (left > 1).then(|| Contest { asked: Instant::now(), left: left - 1 });
        if process::view(slot).is_ok_and(|socket| socket.state() == slot_state::CONNECTED) {
            self.rebind(slot);
        }
    }

    /// The last descriptor of a socket that said this has gone.
    pub fn part(&mut self, farewell: Farewell) {
        if let Some(link) = &mut self.link
            && link.channel.part(farewell)
        {
            link.bell.kick();
        }
    }

    pub fn flush(&mut self) {
        if let Some(link) = &mut self.link
            && link.channel.flush()
        {
            link.bell.kick();
        }
    }

    /// Whether the card has taken all that it was told.
    pub fn is_taken(&mut self) -> bool {
        self.link.as_mut().is_none_or(|link| link.channel.is_taken())
    }

    // --- from the card

    /// Takes what the card and toed have said and passes it on to who watches.
    pub fn drain(&mut self) {
        let Some(link) = &mut self.link else { return };
        let mut changes = std::mem::take(&mut self.changes);
        while link.channel.poll(BATCH, |slot, change| changes.push((slot, change))) == BATCH {}
        let noticed = link.channel.take_notice();
        let failed = link.channel.failed();
        let backlog = link.channel.has_backlog();
        for (slot, change) in changes.drain(..) {
            self.changed(slot, change);
        }
        self.changes = changes;
        if noticed {
            self.look_at_noticed();
        }
        if failed {
            self.lose();
        }
        if backlog {
            self.flush();
        }
    }

    /// A slot that toed's notices may be about from now on.
    pub fn watch_notices(&mut self, slot: u32) {
        if !self.noticed.contains(&slot) {
            self.noticed.push(slot);
        }
        // toed may have been faster than we were.
        self.look_at_noticed();
    }

    fn look_at_noticed(&mut self) {
        let mut noticed = std::mem::take(&mut self.noticed);
        noticed.retain(|&slot| {
            let Ok(socket) = process::view(slot) else { return false };
            match socket.state() {
                slot_state::CONNECTING => true,
                slot_state::LISTENING => {
                    if socket.readiness() & ready::IN != 0 {
                        self.changed(slot, Change::IN);
                    }
                    true
                }
                slot_state::CONNECTED => {
                    // Events may have come before the slot knew its flow: ask for one that says everything.
                    process::set_bound(slot);
                    self.rebind(slot);
                    self.changed(slot, Change::IN.with(Change::OUT).with(Change::END));
                    false
                }
                _ => {
                    self.changed(slot, Change::IN.with(Change::OUT).with(Change::END));
                    false
                }
            }
        });
        noticed.append(&mut self.noticed);
        self.noticed = noticed;
    }

    /// Wakes who watches a slot.
    pub fn changed(&mut self, slot: u32, change: Change) {
        let mut change = change;
        if change.has(Change::URGENT) && self.signals_first(slot, change) {
            return;
        }
        let local = self.local(slot);
        // Room to send is news only to who ran out of it, and only when there is enough of it.
        if change.has(Change::OUT) {
            let news = local.no_space && process::view(slot).is_ok_and(|s| s.readiness() & ready::OUT != 0);
            if news {
                local.no_space = false;
            }
            if !news && !change.has(Change::END) {
                change = change.without(Change::OUT);
            }
        }
        if change == Change::NONE {
            return;
        }
        if local.watchers.is_empty() {
            return;
        }
        let watchers = std::mem::take(&mut local.watchers);
        for watcher in &watchers {
            match *watcher {
                Watcher::Waiter(ticket) if change == Change::PRI && self.moves_bytes(ticket) => {}
                Watcher::Waiter(ticket) => self.wake(ticket),
                Watcher::Item(epoll, fd) => self.item_changed(epoll, fd, change),
            }
        }
        self.slots[slot as usize].watchers = watchers;
    }

    fn moves_bytes(&self, ticket: u64) -> bool {
        self.waiters.iter().any(|w| w.ticket == ticket && w.moves_bytes)
    }

    /// Whether somebody is to get a signal. Who watches is woken after that: a call that waits is to be interrupted.
    fn signals_first(&mut self, slot: u32, change: Change) -> bool {
        let Ok(socket) = process::view(slot) else { return false };
        if !socket.has_flag(own_flags::OWNED) || !urgent::is_running() {
            return false;
        }
        socket.set_flag(own_flags::SIGNAL_DUE, true);
        match self.urgent.iter_mut().find(|(s, _)| *s == slot) {
            Some((_, all)) => *all = all.with(change),
            None => self.urgent.push((slot, change)),
        }
        if let Some(ticket) = self.signaller {
            self.wake(ticket);
        }
        true
    }

    /// What came with urgent data, of which nobody has been told.
    pub fn take_urgent(&mut self) -> Vec<(u32, Change)> {
        std::mem::take(&mut self.urgent)
    }

    pub fn item_changed(&mut self, epoll: u32, fd: i32, change: Change) {
        let Some(Some(instance)) = self.epolls.get_mut(epoll as usize) else { return };
        if instance.item_changed(fd, change) {
            self.became_ready(epoll);
        }
    }

    /// An instance may have something ready that it had not: for who waits for it, and for the instances that contain it.
    pub fn became_ready(&mut self, epoll: u32) {
        self.wake_one_of(epoll);
        let Some(Some(instance)) = self.epolls.get(epoll as usize) else { return };
        // The kernel sees to it that instances do not contain each other in a circle.
        for (outer, fd) in instance.outers.clone() {
            self.item_changed(outer, fd, Change::IN);
        }
    }

    /// Wakes a thread that waits for an epoll instance: one that has not been woken yet.
    pub fn wake_one_of(&mut self, epoll: u32) {
        let Some(Some(instance)) = self.epolls.get(epoll as usize) else { return };
        let sleeping = |t: &&u64| self.waiters.iter().any(|w| w.ticket == **t && !w.woken);
        if let Some(&ticket) = instance.waiters.iter().find(sleeping) {
            self.wake(ticket);
        }
    }

    // --- who watches

    pub fn watch(&mut self, slot: u32, watcher: Watcher) {
        self.local(slot).watchers.push(watcher);
    }

    pub fn unwatch(&mut self, slot: u32, watcher: Watcher) {
        self.local(slot).watchers.retain(|w| *w != watcher);
    }

    /// Somebody could not send all, or asked and was told no: room is news from now on. Look once more after this.
    pub fn note_unwritable(&mut self, slot: u32) {
        self.local(slot).no_space = true;
    }

    /// Epoll items that watch a slot.
    pub fn items_of(&mut self, slot: u32) -> Vec<(u32, i32)> {
        let watchers = self.local(slot).watchers.iter();
        watchers.filter_map(|w| if let Watcher::Item(epoll, fd) = *w { Some((epoll, fd)) } else { None }).collect()
    }

    // --- options

    pub fn keep(&mut self, slot: u32, option: (i32, i32), value: i32) {
        let kept = &mut self.local(slot).kept;
        match kept.iter_mut().find(|(o, _)| *o == option) {
            Some((_, old)) => *old = value,
            None => kept.push((option, value)),
        }
    }

    pub fn kept(&mut self, slot: u32, option: (i32, i32)) -> Option<i32> {
        self.local(slot).kept.iter().find(|(o, _)| *o == option).map(|(_, value)| *value)
    }

    /// All that were set.
    pub fn all_kept(&mut self, slot: u32) -> Vec<((i32, i32), i32)> {
        self.local(slot).kept.clone()
    }

    /// An accepted socket starts with its listener's.
    pub fn inherit_kept(&mut self, from: u32, to: u32) {
        self.local(to).kept = self.local(from).kept.clone();
    }

    // --- who holds

    /// How many numbers of this process mean the slot.
    pub fn holders(&mut self, slot: u32) -> u32 {
        self.local(slot).refs
    }

    pub fn hold(&mut self, slot: u32) {
        self.local(slot).refs += 1;
    }

    /// A number that meant this slot is gone. `true`: it was the last in this process.
    pub fn release(&mut self, slot: u32) -> bool {
        let local = self.local(slot);
        local.refs = local.refs.saturating_sub(1);
        if local.refs > 0 {
            return false;
        }
        local.no_space = false;
        local.contested = None;
        local.kept = Vec::new();
        self.noticed.retain(|&s| s != slot);
        // What it still has to say is said now, or found in the slot by toed.
        self.flush();
        if let Some(link) = &mut self.link {
            link.channel.forget(slot);
        }
        // Threads that sleep on it find the socket gone.
        self.changed(slot, Change::IN.with(Change::END));
        true
    }

    // --- sleeping

    /// Registers a thread that is about to sleep and looks after it afterwards.
    pub fn register(&mut self, thread: u32, wake: i32, interest: &Interest) -> u64 {
        self.abandon(thread);
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiters.push(Waiter { ticket, thread, wake, woken: false, moves_bytes: interest.moves_bytes });
        for &slot in &interest.slots {
            self.watch(slot, Watcher::Waiter(ticket));
        }
        for &epoll in &interest.epolls {
            if let Some(Some(instance)) = self.epolls.get_mut(epoll as usize) {
                instance.waiters.push(ticket);
            }
        }
        if interest.urgent {
            self.signaller = Some(ticket);
        }
        ticket
    }

    pub fn unregister(&mut self, ticket: u64, interest: &Interest) {
        for &slot in &interest.slots {
            self.unwatch(slot, Watcher::Waiter(ticket));
        }
        for &epoll in &interest.epolls {
            if let Some(Some(instance)) = self.epolls.get_mut(epoll as usize) {
                instance.waiters.retain(|t| *t != ticket);
            }
        }
        self.waiters.retain(|w| w.ticket != ticket);
        if self.leader == Some(ticket) {
            self.leader = None;
            if let Some(link) = &self.link {
                link.channel.disarm();
            }
        }
        if interest.urgent {
            // It comes back at once, and until its signals are sent nobody is to be woken.
            self.signaller = None;
        } else {
            self.hand_over();
        }
    }

    /// Forgets earlier waits of a thread. A signal handler has jumped out of them; or it waits itself, and they will come back and find that they
    /// were interrupted.
    pub fn abandon(&mut self, thread: u32) {
        while let Some(i) = self.waiters.iter().position(|w| w.thread == thread) {
            let ticket = self.waiters.swap_remove(i).ticket;
            for local in &mut self.slots {
                local.watchers.retain(|w| *w != Watcher::Waiter(ticket));
            }
            for instance in self.epolls.iter_mut().flatten() {
                instance.waiters.retain(|t| *t != ticket);
            }
            if self.leader == Some(ticket) {
                self.leader = None;
                self.hand_over();
            }
        }
    }

    /// If nobody waits for the card, some sleeping thread has to: it is woken, and leads when it sleeps again.
    fn hand_over(&mut self) {
        if self.leader.is_some() || self.waiters.iter().any(|w| w.woken) {
            return;
        }
        if let Some(ticket) = self.waiters.first().map(|w| w.ticket) {
            self.wake(ticket);
        }
    }

    /// Makes `ticket` the leader if there is none. `Err`: something has come in between, don't sleep.
    pub fn lead(&mut self, ticket: u64) -> Result<Option<[i32; 2]>, ()> {
        let Some(link) = &self.link else { return Ok(None) };
        if self.leader.is_some() {
            return Ok(None);
        }
        if !link.channel.arm() {
            return Err(());
        }
        self.leader = Some(ticket);
        Ok(Some([link.bell.irq().as_raw_fd(), link.conn]))
    }

    /// Whether something waits for room in the queue to the card.
    pub fn has_backlog(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.channel.has_backlog())
    }

    /// Takes the interrupts that are pending, if they are still the leader's who has seen them.
    pub fn acknowledge(&self, ticket: u64) {
        if let Some(link) = self.link.as_ref().filter(|_| self.leader == Some(ticket)) {
            link.bell.acknowledge();
        }
    }

    /// Threads that sleep on a slot are to look again.
    pub fn wake_waiters_of(&mut self, slot: u32) {
        let watchers = self.local(slot).watchers.iter();
        let tickets: Vec<u64> = watchers.filter_map(|w| if let Watcher::Waiter(ticket) = *w { Some(ticket) } else { None }).collect();
        tickets.into_iter().for_each(|ticket| self.wake(ticket));
    }

    fn wake(&mut self, ticket: u64) {
        if let Some(waiter) = self.waiters.iter_mut().find(|w| w.ticket == ticket)
            && !std::mem::replace(&mut waiter.woken, true)
            && waiter.wake != NO_FD
        {
            // Cannot block: the counter is far from full.
            let _ = rustix::io::write(AppFd(waiter.wake), &1u64.to_ne_bytes());
        }
    }

    /// A thread is to end: if it sleeps, it is among those that are woken.
    pub fn cancel(&mut self, thread: usize) {
        if !self.cancelled.contains(&thread) {
            self.cancelled.push(thread);
        }
        self.wake_all();
    }

    /// Whether a thread is to end. Says so once.
    pub fn take_cancelled(&mut self, thread: usize) -> bool {
        let found = self.cancelled.iter().position(|t| *t == thread);
        found.map(|i| self.cancelled.swap_remove(i)).is_some()
    }

    fn wake_all(&mut self) {
        let tickets: Vec<u64> = self.waiters.iter().map(|w| w.ticket).collect();
        for ticket in tickets {
            self.wake(ticket);
        }
    }

    // --- ends

    /// toed or the card has gone: every socket of this process ends, everybody is woken.
    pub fn lose(&mut self) {
        process::set_lost();
        if let Some(link) = self.link.take() {
            for fd in link.bell.fds() {
                fdtable::clear(fd);
            }
        }
        for slot in sockets() {
            if let Ok(socket) = process::view(slot) {
                let connected = socket.state() == slot_state::CONNECTED;
                socket.fail(if connected { Errno::CONNRESET } else { Errno::NETDOWN });
            }
        }
        self.stir();
    }

    /// Everybody is to look at all sockets again.
    pub fn stir(&mut self) {
        for slot in sockets() {
            self.changed(slot, Change::IN.with(Change::OUT).with(Change::END));
        }
        self.wake_all();
    }

    /// In a forked child: threads and queues were the parent's. Epoll items are the child's as well.
    pub fn forget_parent(&mut self) {
        CTX.store(u32::MAX, Ordering::Relaxed);
        // Its descriptors were closed by number; its queues belong to the parent.
        std::mem::forget(self.link.take());
        self.waiters.clear();
        self.leader = None;
        self.signaller = None;
        self.urgent.clear();
        self.cancelled.clear();
        self.noticed.clear();
        for local in &mut self.slots {
            local.watchers.retain(|w| matches!(w, Watcher::Item(..)));
        }
        for epoll in self.epolls.iter_mut().flatten() {
            epoll.forget_parent();
        }
    }
}

/// Slots of this process's sockets, one for each number.
fn sockets() -> impl Iterator<Item = u32> {
    fdtable::ours(0, u32::MAX).filter_map(|(_, kind)| if let Kind::Socket(slot) = kind { Some(slot) } else { None })
}
