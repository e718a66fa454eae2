//! Turns of applications: deficit round robin by weight, and a place aside for those over their rate.
//!
//! ```text
//!   Idle ── a flow has data ──► Waiting ── its round has come ──► Turn ── credit used up ──► Waiting
//!                                  └──────── over its rate ────────┴──► Aside ── in time ──► Waiting
//!
//!   no flow has data any more: Idle                    rounds, and the times of those aside: wheels
//! ```
//!
//! A round brings each application weight x quantum / 100 bytes. One that has sent so much beyond its credit that a round
//! does not pay for it is not looked at in vain: the wheel knows the round that does. So the cost is the same
//! however the weights differ, and however many applications there are.

use super::flow::{Flow, LEAST_BYTES, TICK_US};
use crate::{
    list::{Links, List},
    wheel::Wheel,
};
use alloc::boxed::Box;
use toe_hal::Instant;
use toe_sync::share::{Shares, WEIGHT_DEFAULT};

/// An application set aside is looked at so often: its rate may be another by then.
const LOOK_US: u64 = 1 << 18;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Idle,
    Waiting,
    Turn,
    Aside,
}

struct App {
    /// Flows that have data and wait for their turn.
    flows: List,
    /// The flow whose turn it is among them; its turn outlives the application's.
    turn: Option<u32>,
    /// What it may still send in `round`, in hundredths of a byte.
    credit: i64,
    round: u64,
    /// Aside: until when, microseconds.
    until_us: u64,
    place: Place,
}

impl App {
    fn has_data(&self) -> bool {
        self.turn.is_some() || !self.flows.is_empty()
    }
}

pub struct Apps {
    apps: Box<[App]>,
    rounds: Wheel,
    /// When those set aside are looked at again, in ticks of pacing.
    aside: Wheel,
    /// Whose turn it is.
    turn: Option<u16>,
    quantum: i64,
    shares: Shares,
}

impl Apps {
    pub fn new(shares: Shares, quantum: i32) -> Self {
        let app = |_| App { flows: List::default(), turn: None, credit: 0, round: 0, until_us: 0, place: Place::Idle };
        // One place more, for all that `shares` has no place for.
        let places = usize::from(shares.apps()) + 1;
        Self {
            apps: (0..places).map(app).collect(),
            rounds: Wheel::new(places),
            aside: Wheel::new(places),
            turn: None,
            quantum: quantum.into(),
            shares,
        }
    }

    /// The place of an application.
    pub fn place(&self, app: u16) -> u16 {
        app.min(self.shares.apps())
    }

    fn at(&mut self, app: u16) -> &mut App {
        &mut self.apps[usize::from(app)]
    }

    /// Flow `i` of `app` waits for its turn.
    pub fn push(&mut self, app: u16, i: u32, links: &mut Links<Flow>) {
        links.push(&mut self.at(app).flows, i);
        if self.at(app).place == Place::Idle {
            self.wait(app);
        }
    }

    /// Flow `i` of `app` waits no more.
    pub fn unlink(&mut self, app: u16, i: u32, links: &mut Links<Flow>) {
        links.unlink(&mut self.at(app).flows, i);
        self.settle(app);
    }

    /// Whether it is flow `i`'s turn in `app`.
    pub fn is_turn_of(&self, app: u16, i: u32) -> bool {
        self.apps[usize::from(app)].turn == Some(i)
    }

    /// The turn of a flow of `app` is over. [`settle`](Self::settle) follows.
    pub fn end_turn(&mut self, app: u16) {
        self.at(app).turn = None;
    }

    /// An application whose flows have no more data takes no part.
    pub fn settle(&mut self, app: u16) {
        let at = self.at(app);
        if at.has_data() || !matches!(at.place, Place::Waiting | Place::Turn) {
            return;
        }
        at.place = Place::Idle;
        self.turn = self.turn.filter(|&turn| turn != app);
        self.rounds.disarm(app.into());
    }

    /// The flow whose turn it is, and whether its turn begins.
    pub fn next(&mut self, links: &mut Links<Flow>) -> Option<(u32, bool)> {
        let app = self.next_app()?;
        let at = self.at(app);
        if let Some(i) = at.turn {
            return Some((i, false));
        }
        at.turn = links.pop(&mut at.flows);
        at.turn.map(|i| (i, true))
    }

    fn next_app(&mut self) -> Option<u16> {
        while self.turn.is_none() {
            // There is one, so time does not run on to the end.
            self.rounds.next_tick()?;
            let app = self.rounds.expire(u64::MAX)? as u16;
            self.refill(app);
            if self.at(app).credit > 0 {
                self.at(app).place = Place::Turn;
                self.turn = Some(app);
            } else {
                // It weighs less than when it began to wait.
                self.wait(app);
            }
        }
        self.turn
    }

    /// What a round brings `app`, in hundredths of a byte.
    fn grant(&self, app: u16) -> i64 {
        let weight = if app < self.shares.apps() { self.shares.weight(app) } else { WEIGHT_DEFAULT };
        i64::from(weight) * self.quantum
    }

    /// Each round since has brought a grant; what was not used is not kept.
    fn refill(&mut self, app: u16) {
        let (grant, round) = (self.grant(app), self.rounds.tick());
        let at = self.at(app);
        let rounds = i64::try_from(round - at.round).unwrap_or(i64::MAX);
        if rounds > 0 {
            at.credit = at.credit.saturating_add(rounds.saturating_mul(grant)).min(grant);
            at.round = round;
        }
    }

    /// `app` waits for the round that leaves it with some credit.
    fn wait(&mut self, app: u16) {
        self.refill(app);
        let grant = self.grant(app);
        let at = self.at(app);
        at.place = Place::Waiting;
        let rounds = if at.credit > 0 { 0 } else { 1 + at.credit.unsigned_abs() / grant.unsigned_abs() };
        let due = at.round + rounds;
        self.rounds.arm(app.into(), due);
    }

    /// A flow of `app` has sent a segment.
    pub fn charge(&mut self, app: u16, bytes: u32, urgent: bool, now: Instant) {
        // Urgent work waits for no round, so rounds need not pass while it is done: its debt is bounded.
        let least = if urgent { -self.grant(app) } else { i64::MIN };
        let at = self.at(app);
        at.credit = at.credit.min(at.credit.saturating_sub(100 * i64::from(bytes.max(LEAST_BYTES))).max(least));
        let used_up = at.place == Place::Turn && at.credit <= 0;
        if let Err(until_us) = self.shares.take(app, bytes, now.micros()) {
            self.set_aside(app, until_us, now);
        } else if used_up {
            self.turn = None;
            self.wait(app);
        }
    }

    /// Whether `app` is over its rate.
    pub fn is_aside(&self, app: u16) -> bool {
        self.apps[usize::from(app)].place == Place::Aside
    }

    fn set_aside(&mut self, app: u16, until_us: u64, now: Instant) {
        self.turn = self.turn.filter(|&turn| turn != app);
        self.rounds.disarm(app.into());
        let at = self.at(app);
        at.place = Place::Aside;
        at.until_us = until_us;
        let look_us = until_us.min(now.micros().saturating_add(LOOK_US));
        self.aside.arm(app.into(), look_us.div_ceil(TICK_US));
    }

    /// Time has passed: those whose time has come take part again.
    pub fn release(&mut self, now: Instant) {
        while let Some(app) = self.aside.expire(now.micros() / TICK_US) {
            let app = app as u16;
            let until_us = self.at(app).until_us;
            match self.shares.may_send(app, now.micros()) {
                // The time is its own: if other cores have sent since, they wait.
                Err(later) if now.micros() < until_us => self.set_aside(app, until_us.min(later), now),
                _ => self.resume(app),
            }
        }
    }

    fn resume(&mut self, app: u16) {
        self.at(app).place = Place::Idle;
        if self.at(app).has_data() {
            self.wait(app);
        }
    }

    /// Whether a flow may go on now.
    pub fn any_ready(&self) -> bool {
        self.turn.is_some() || self.rounds.next_tick().is_some()
    }

    /// When one that was set aside is to be looked at, in ticks of pacing.
    pub fn next_tick(&self) -> Option<u64> {
        self.aside.next_tick()
    }
}
