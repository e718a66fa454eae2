//! epoll(7) over sockets of ours and kernel descriptors.
//!
//! An instance stays a kernel epoll instance, which holds the kernel's descriptors. Ours are items in the hub: what changes is
//! put on the instance's ready list, as the kernel does it, so a wait costs what is ready and not what is registered.
//!
//! ```text
//!   item ──event, ADD, MOD──► ready list ──epoll_wait: ready now?──no──► off the list
//!                                 ▲                    yes ├─ EPOLLONESHOT: disabled until MOD
//!                                 └────── level-triggered ─┴─ EPOLLET: off the list until the next event
//! ```
//!
//! A waiting thread sleeps in ppoll on the kernel's instance, its own eventfd and, if it leads, the card's interrupt.

use crate::fdtable::{self, Kind};
use crate::hub::{self, Hub, Interest, Watcher};
use crate::process::ALWAYS;
use crate::waiting::{SHARED, Step, Wait};
use crate::{Errno, Sock, process};
use rustix::event::epoll::{self as kernel_epoll, EventData, EventFlags};
use rustix::time::Timespec;
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};
use toe::Change;
use toe::link::sys::{AppFd, SigMask};
use toe::socket::ready;

const ET: u32 = 1 << 31;
const ONESHOT: u32 = 1 << 30;
const WAKEUP: u32 = 1 << 29;
const EXCLUSIVE: u32 = 1 << 28;
/// How many times events of ours may go first before the kernel's are looked at as well.
const FAIRNESS: u32 = 8;

/// What an application asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Asked {
    pub events: u32,
    pub data: u64,
}

/// What an item is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Target {
    Slot(u32),
    /// Sockets of ours in another instance. What that holds of the kernel's is the kernel's to report.
    Instance(u32),
}

/// A socket of ours in an instance.
struct Item {
    target: Target,
    asked: Asked,
    /// On the ready list.
    queued: bool,
    /// EPOLLONESHOT has fired.
    disabled: bool,
}

/// An instance.
pub(crate) struct Epoll {
    items: HashMap<i32, Item>,
    ready: VecDeque<i32>,
    /// Tickets of threads that sleep on it.
    pub waiters: Vec<u64>,
    /// Instances that contain this one, and its number there.
    pub outers: Vec<(u32, i32)>,
    /// When this process last made sure that it gets the items' events; `None`: it has forked since.
    looked_after: Option<Instant>,
    /// Numbers of this process that mean it.
    refs: u32,
    turns: u32,
}

impl Epoll {
    fn new() -> Self {
        Self {
            items: HashMap::new(),
            ready: VecDeque::new(),
            waiters: Vec::new(),
            outers: Vec::new(),
            looked_after: None,
            refs: 1,
            turns: 0,
        }
    }

    /// Something happened to an item. `true`: a waiter should look.
    pub fn item_changed(&mut self, fd: i32, change: Change) -> bool {
        let Some(item) = self.items.get_mut(&fd) else { return false };
        let asked = item.asked.events | ALWAYS;
        let wanted = change.has(Change::END)
            || change.has(Change::IN) && asked & (ready::IN | ready::RDNORM | ready::RDHUP) != 0
            || change.has(Change::OUT) && asked & (ready::OUT | ready::WRNORM) != 0
            || change.has(Change::PRI) && asked & ready::PRI != 0;
        if !wanted || item.disabled {
            return false;
        }
        if !std::mem::replace(&mut item.queued, true) {
            self.ready.push_back(fd);
        }
        true
    }

    /// In a forked child: threads were the parent's, and so are the items' events until it asks for them.
    pub fn forget_parent(&mut self) {
        self.waiters.clear();
        self.looked_after = None;
    }

    /// Moves what is ready into `out`, at most up to `max` there. `ready_now` tells an item's readiness; slots that lack room
    /// to send although it was asked for are put into `starved`.
    fn collect(&mut self, out: &mut Vec<Asked>, max: usize, mut ready_now: impl FnMut(Target) -> u32, starved: &mut Vec<u32>) {
        for _ in 0..self.ready.len() {
            if out.len() >= max {
                return;
            }
            let Some(fd) = self.ready.pop_front() else { return };
            let Some(item) = self.items.get_mut(&fd) else { continue };
            item.queued = false;
            if item.disabled {
                continue;
            }
            let now = ready_now(item.target);
            if let Target::Slot(slot) = item.target
                && item.asked.events & (ready::OUT | ready::WRNORM) != 0
                && now & ready::OUT == 0
            {
                starved.push(slot);
            }
            let report = now & (item.asked.events | ALWAYS);
            if report == 0 {
                continue;
            }
            // The kernel may have reported the same instance for what is its own in there.
            let nested = matches!(item.target, Target::Instance(_));
            if !nested || out.iter().all(|told| told.data != item.asked.data) {
                out.push(Asked { events: report, data: item.asked.data });
            }
            if item.asked.events & ONESHOT != 0 {
                item.disabled = true;
            } else if item.asked.events & ET == 0 {
                item.queued = true;
                self.ready.push_back(fd);
            }
        }
    }
}

// --- the hub's part

impl Hub {
    fn instance(&mut self, index: u32) -> Option<&mut Epoll> {
        self.epolls.get_mut(index as usize)?.as_mut()
    }

    pub fn hold_epoll(&mut self, index: u32) {
        if let Some(instance) = self.instance(index) {
            instance.refs += 1;
        }
    }

    /// A number that meant the instance is gone; with the last one go its items.
    pub fn release_epoll(&mut self, index: u32) {
        let Some(instance) = self.instance(index) else { return };
        instance.refs = instance.refs.saturating_sub(1);
        if instance.refs > 0 {
            return;
        }
        let gone = self.epolls.get_mut(index as usize).and_then(Option::take);
        let Some(gone) = gone else { return };
        for (fd, item) in gone.items {
            self.unwatch_target(item.target, index, fd);
        }
        for (outer, fd) in gone.outers {
            self.drop_item(outer, fd);
        }
    }

    fn watch_target(&mut self, target: Target, index: u32, fd: i32) {
        match target {
            Target::Slot(slot) => self.watch(slot, Watcher::Item(index, fd)),
            Target::Instance(inner) => {
                if let Some(inner) = self.instance(inner) {
                    inner.outers.push((index, fd));
                }
            }
        }
    }

    fn unwatch_target(&mut self, target: Target, index: u32, fd: i32) {
        match target {
            Target::Slot(slot) => self.unwatch(slot, Watcher::Item(index, fd)),
            Target::Instance(inner) => {
                if let Some(inner) = self.instance(inner) {
                    inner.outers.retain(|outer| *outer != (index, fd));
                }
            }
        }
    }

    /// Forgets an item whose descriptor is gone.
    pub fn drop_item(&mut self, index: u32, fd: i32) {
        if let Some(instance) = self.instance(index) {
            instance.items.remove(&fd);
            instance.ready.retain(|&f| f != fd);
        }
    }

    /// Takes the items of `fd` out of all instances, to be put elsewhere.
    pub fn take_items(&mut self, slot: u32, fd: i32) -> Vec<(u32, Asked)> {
        let mut taken = Vec::new();
        for (index, item_fd) in self.items_of(slot) {
            if item_fd != fd {
                continue;
            }
            if let Some(item) = self.instance(index).and_then(|i| i.items.get(&fd)) {
                taken.push((index, item.asked));
            }
            self.unwatch(slot, Watcher::Item(index, fd));
            self.drop_item(index, fd);
        }
        taken
    }

    /// Collects what is ready in an instance, up to `max` in all.
    fn collect(&mut self, index: u32, out: &mut Vec<Asked>, max: usize) {
        let mut starved = Vec::new();
        // Out of its place, as items may be about other instances.
        if let Some(mut instance) = self.epolls.get_mut(index as usize).and_then(Option::take) {
            instance.collect(out, max, |target| self.readiness(target), &mut starved);
            self.epolls[index as usize] = Some(instance);
        }
        for slot in starved {
            self.note_unwritable(slot);
        }
    }

    /// Whether an instance has something ready among sockets of ours (for poll on an epoll descriptor).
    pub fn epoll_is_ready(&self, index: u32) -> bool {
        let Some(Some(instance)) = self.epolls.get(index as usize) else { return false };
        instance.ready.iter().any(|fd| {
            instance.items.get(fd).is_some_and(|item| !item.disabled && self.readiness(item.target) & (item.asked.events | ALWAYS) != 0)
        })
    }

    fn readiness(&self, target: Target) -> u32 {
        match target {
            Target::Slot(slot) => process::readiness(slot),
            Target::Instance(inner) if self.epoll_is_ready(inner) => ready::IN | ready::RDNORM,
            Target::Instance(_) => 0,
        }
    }

    /// Items whose events may go to another process of the family, or nowhere, if it is time to see about that.
    fn strays(&mut self, index: u32) -> Vec<(i32, u32)> {
        let Some(instance) = self.instance(index) else { return Vec::new() };
        if instance.looked_after.is_some_and(|t| t.elapsed() < SHARED) {
            return Vec::new();
        }
        instance.looked_after = Some(Instant::now());
        let slots = instance.items.iter().filter_map(|(fd, item)| match item.target {
            Target::Slot(slot) => Some((*fd, slot)),
            Target::Instance(_) => None,
        });
        let mut slots: Vec<_> = slots.collect();
        slots.retain(|(_, slot)| !process::is_here(*slot) || self.is_contested(*slot));
        slots
    }
}

// --- the calls

/// After epoll_create(2) in the kernel: the instance is known to us from now on.
pub fn created(fd: i32) {
    if fd < 0 || !fdtable::fits(fd) || !process::is_own() {
        return;
    }
    let mut hub = hub::lock();
    let free = hub.epolls.iter().position(Option::is_none).unwrap_or(hub.epolls.len());
    if free == hub.epolls.len() {
        hub.epolls.push(None);
    }
    hub.epolls[free] = Some(Epoll::new());
    fdtable::set(fd, Kind::Epoll(free as u32));
}

/// epoll_ctl(2). `Ok(None)`: neither is ours, ask the kernel.
pub fn ctl(epfd: i32, op: i32, fd: i32, events: u32, data: u64) -> Result<Option<()>, Errno> {
    let Some(sock) = Sock::find(fd) else {
        return if fdtable::kind(fd) == Kind::Internal { Err(Errno::BADF) } else { Ok(None) };
    };
    let Kind::Epoll(index) = fdtable::kind(epfd) else {
        return Err(if rustix::io::fcntl_getfd(AppFd(epfd)).is_err() { Errno::BADF } else { Errno::INVAL });
    };
    // Its events are to come to this process from now on.
    sock.socket()?;
    let asked = Asked { events, data };
    match op {
        libc::EPOLL_CTL_ADD => add(index, fd, Target::Slot(sock.slot), asked)?,
        libc::EPOLL_CTL_MOD => modify(index, fd, asked)?,
        libc::EPOLL_CTL_DEL => delete(index, fd)?,
        _ => return Err(Errno::INVAL),
    }
    Ok(Some(()))
}

/// After epoll_ctl(2) on an instance inside another has succeeded in the kernel: the same for sockets of ours.
pub fn nested(epfd: i32, op: i32, fd: i32, events: u32, data: u64) {
    let (Kind::Epoll(index), Kind::Epoll(inner)) = (fdtable::kind(epfd), fdtable::kind(fd)) else { return };
    let (target, asked) = (Target::Instance(inner), Asked { events, data });
    // The kernel has judged the arguments already.
    let _ = match op {
        libc::EPOLL_CTL_ADD => add(index, fd, target, asked),
        libc::EPOLL_CTL_MOD => modify(index, fd, asked),
        libc::EPOLL_CTL_DEL => delete(index, fd),
        _ => Ok(()),
    };
}

fn add(index: u32, fd: i32, target: Target, asked: Asked) -> Result<(), Errno> {
    let allowed = ready::IN | ready::OUT | ALWAYS | WAKEUP | ET | EXCLUSIVE;
    if asked.events & EXCLUSIVE != 0 && asked.events & !allowed != 0 {
        return Err(Errno::INVAL);
    }
    let mut hub = hub::lock();
    let instance = hub.instance(index).ok_or(Errno::BADF)?;
    if instance.items.contains_key(&fd) {
        return Err(Errno::EXIST);
    }
    instance.items.insert(fd, Item { target, asked, queued: true, disabled: false });
    instance.ready.push_back(fd);
    hub.watch_target(target, index, fd);
    hub.became_ready(index);
    Ok(())
}

fn modify(index: u32, fd: i32, asked: Asked) -> Result<(), Errno> {
    let mut hub = hub::lock();
    let instance = hub.instance(index).ok_or(Errno::BADF)?;
    let item = instance.items.get_mut(&fd).ok_or(Errno::NOENT)?;
    if (asked.events | item.asked.events) & EXCLUSIVE != 0 {
        return Err(Errno::INVAL);
    }
    item.asked = asked;
    item.disabled = false;
    if !std::mem::replace(&mut item.queued, true) {
        instance.ready.push_back(fd);
    }
    hub.became_ready(index);
    Ok(())
}

fn delete(index: u32, fd: i32) -> Result<(), Errno> {
    let mut hub = hub::lock();
    let instance = hub.instance(index).ok_or(Errno::BADF)?;
    let target = instance.items.get(&fd).ok_or(Errno::NOENT)?.target;
    hub.drop_item(index, fd);
    hub.unwatch_target(target, index, fd);
    Ok(())
}

/// A socket that was ours becomes the kernel's: so does its item.
pub(crate) fn add_to_kernel(index: u32, fd: i32, asked: Asked) {
    let instances = fdtable::ours(0, u32::MAX).find(|(_, kind)| *kind == Kind::Epoll(index));
    if let Some((epfd, _)) = instances {
        let flags = EventFlags::from_bits_retain(asked.events);
        // The kernel may refuse (limits): then the application misses events, as if it had not been told of the failure.
        let _ = kernel_epoll::add(AppFd(epfd), AppFd(fd), EventData::new_u64(asked.data), flags);
    }
}

/// An event for the application.
pub type Event = libc::epoll_event;

/// epoll_wait(2) and its kin on an instance of ours. `out` is not empty.
pub fn wait(epfd: i32, out: &mut [Event], timeout: Option<Duration>, mask: Option<SigMask>) -> Result<usize, Errno> {
    let Kind::Epoll(index) = fdtable::kind(epfd) else { return Err(Errno::BADF) };
    let mut waiting = None;
    let interest = Interest { epolls: vec![index], ..Interest::default() };
    let mut kernel = [libc::pollfd { fd: epfd, events: libc::POLLIN, revents: 0 }];
    let mut found = Vec::new();
    loop {
        let mut hub = hub::lock();
        hub.drain();
        let instance = hub.instance(index).ok_or(Errno::BADF)?;
        instance.turns = instance.turns.wrapping_add(1);
        let kernel_first = instance.turns.is_multiple_of(FAIRNESS);
        if kernel_first {
            drop(hub);
            ask_kernel(epfd, &mut found, out.len())?;
            hub = hub::lock();
        }
        hub.collect(index, &mut found, out.len());
        let more = hub.instance(index).is_some_and(|instance| !instance.ready.is_empty());
        if !found.is_empty() && more {
            // Another thread may take the rest.
            hub.wake_one_of(index);
        }
        drop(hub);
        if found.is_empty() && !kernel_first {
            ask_kernel(epfd, &mut found, out.len())?;
        }
        if !found.is_empty() {
            for (to, from) in out.iter_mut().zip(&found) {
                *to = Event { events: from.events, u64: from.data };
            }
            return Ok(found.len());
        }
        look_after(index);
        let mut hub = hub::lock();
        hub.drain();
        if hub.epoll_is_ready(index) {
            continue;
        }
        let alone = hub.instance(index).is_some_and(|instance| instance.items.is_empty());
        let waiting = waiting.get_or_insert_with(|| Wait::new(timeout, mask));
        if alone {
            // The kernel's descriptors only: spinning would gain nothing.
            waiting.no_spin();
        }
        if waiting.step(hub, &interest, &mut kernel)? == Step::Timeout {
            return Ok(0);
        }
    }
}

/// In a process that shares sockets with others: events go to the process that used a socket last, so one that waits for them
/// asks for them from time to time.
fn look_after(index: u32) {
    if !process::is_shared() {
        return;
    }
    let strays = hub::lock().strays(index);
    for (fd, slot) in strays {
        let was_here = process::is_here(slot);
        if process::touch(slot).is_err() {
            continue;
        }
        let mut hub = hub::lock();
        if was_here {
            hub.reclaim(slot);
        } else {
            // The other process may have put news into the slot already: then no event will say so again.
            hub.item_changed(index, fd, Change::IN.with(Change::OUT));
        }
    }
}

/// What the kernel's instance has ready now, appended to `found` up to `max` in all.
fn ask_kernel(epfd: i32, found: &mut Vec<Asked>, max: usize) -> Result<(), Errno> {
    let room = max.saturating_sub(found.len()).min(256);
    if room == 0 {
        return Ok(());
    }
    let empty = kernel_epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) };
    let mut events = [empty; 256];
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    let n = match kernel_epoll::wait(AppFd(epfd), &mut events[..room], Some(&zero)) {
        Ok(n) => n,
        Err(Errno::INTR) => 0,
        Err(e) => return Err(e),
    };
    found.extend(events[..n].iter().map(|e| Asked { events: { e.flags }.bits(), data: { e.data }.u64() }));
    Ok(())
}
