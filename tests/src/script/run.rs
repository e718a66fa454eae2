//! Runs a script: one event after another, in virtual time.

use super::ast::{Action, Body, Call, Event, IpVersion, Packet, Script, Segment, When};
use super::calls::Caller;
use super::compare::{Seen, differences};
use super::config::{self, Stages};
use super::ip::{self, Below};
use super::space::Spaces;
use super::{frame, print, watch};
use crate::sim::host::ToeHost;
use std::collections::VecDeque;
use std::fmt::Write;
use toe_hal::RxOffload;
use toe_hal::fake::FakeFrame;

/// How long `*` waits for a packet.
const ANY_US: u64 = 600_000_000;
/// Steps without time passing by more than a microsecond each: a timer that is due for ever.
const STEPS_MAX: u32 = 200_000;

/// Of the pipelined card.
const SEED: u64 = 5;

/// Why a script failed: where, what, and what had happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure(pub String);

/// Runs a script, which `file` is the name of, on cards of both kinds and over both versions of IP, unless it is of one. A script that is
/// expected to fail must.
pub fn run(file: &str, script: &Script) -> Result<(), Failure> {
    let run_on = |(ip, stages)| {
        let mut runner = Runner::new(script, ip, stages)?;
        runner.run(&script.events).map_err(|why| runner.failure(&format!("{why}\n  over:    {ip:?}, {stages:?}")))
    };
    let all = [
        (IpVersion::V4, Stages::Fused),
        (IpVersion::V4, Stages::Pipelined(SEED)),
        (IpVersion::V6, Stages::Fused),
        (IpVersion::V6, Stages::Pipelined(SEED)),
    ];
    let mut ran = all.into_iter().filter(|(ip, _)| script.config.ip_version.is_none_or(|only| only == *ip)).map(run_on);
    match &script.expect_fail {
        None => ran.try_for_each(|result| result).map_err(Failure),
        Some(reason) if ran.any(|result| result.is_ok()) => {
            Err(Failure(format!("{file}: passes, but is expected to fail ({reason}): take the mark away")))
        }
        Some(_) => Ok(()),
    }
}

/// A call that has not returned.
struct Waiting {
    place: String,
    text: String,
    until: u64,
    call: Call,
}

struct Runner {
    ip: IpVersion,
    host: ToeHost,
    caller: Caller,
    spaces: Spaces,
    /// Card's clock at the script's begin, and now since then.
    start: u64,
    now: u64,
    tolerance: u64,
    /// What relative times count from.
    base: u64,
    /// Sent and not expected yet.
    seen: VecDeque<Seen>,
    waiting: Option<Waiting>,
    /// Sent frames that break a rule.
    broken: Option<String>,
    trace: String,
    /// The event that is being done: where it stands, and its text.
    current: (String, String),
}

impl Runner {
    fn new(script: &Script, ip: IpVersion, stages: Stages) -> Result<Self, String> {
        let c = &script.config;
        Ok(Self {
            ip,
            host: config::host(c, ip, stages)?,
            caller: Caller::new(ip),
            spaces: Spaces::new(c.peer_isn),
            start: c.start.as_micros() as u64,
            now: 0,
            tolerance: c.tolerance.as_micros() as u64,
            base: 0,
            seen: VecDeque::new(),
            waiting: None,
            broken: None,
            trace: String::new(),
            current: Default::default(),
        })
    }

    fn failure(&self, why: &str) -> String {
        let (place, text) = &self.current;
        format!("{place}: {why}\n  script:  {text}\n  trace:\n{}", self.trace)
    }

    fn run(&mut self, events: &[Event]) -> Result<(), String> {
        for event in events {
            self.current = (event.place.clone(), event.text.clone());
            self.event(event)?;
        }
        self.advance(self.now + self.tolerance)?;
        if let Some(w) = &self.waiting {
            return Err(format!("the call at {} has not returned: {}", w.place, w.text));
        }
        self.nothing_more()
    }

    fn event(&mut self, event: &Event) -> Result<(), String> {
        if let Action::Expect(packet) = &event.action {
            return self.expect(event, packet);
        }
        let at = match event.when {
            When::At(at) => at,
            When::After(wait) => self.base + wait,
            When::Any | When::Between { .. } => return Err("only packets that the stack sends can come at any time".into()),
        };
        if at < self.now {
            return Err(format!("its time is {}, but it is {} already", print::time(at), print::time(self.now)));
        }
        self.advance(at)?;
        self.base = at;
        match &event.action {
            Action::Inject(packet) => self.inject(packet),
            Action::Call(call) => self.call(event, call),
            Action::Check(check) => watch::check(&mut self.host, check, self.spaces.get(check.conn)),
            Action::Silence => self.nothing_more(),
            Action::Expect(_) => Ok(()),
        }
    }

    fn nothing_more(&self) -> Result<(), String> {
        match self.seen.front() {
            None => Ok(()),
            Some(seen) => Err(format!("a packet that was not expected\n  got:     {} {}", print::time(seen.at), seen.text)),
        }
    }

    // --- time

    /// Lets time pass until `at`.
    fn advance(&mut self, at: u64) -> Result<(), String> {
        for _ in 0..STEPS_MAX {
            self.settle()?;
            match self.next().filter(|next| *next < at) {
                Some(next) => self.now = next,
                None if self.now < at => self.now = at,
                None => return Ok(()),
            }
        }
        Err("the host always has something to do".into())
    }

    /// Lets time pass until a packet has been sent, at most until `at`.
    fn advance_to_packet(&mut self, at: u64) -> Result<(), String> {
        for _ in 0..STEPS_MAX {
            self.settle()?;
            match self.next().filter(|next| *next <= at) {
                Some(next) if self.seen.is_empty() => self.now = next,
                _ => return Ok(()),
            }
        }
        Err("the host always has something to do".into())
    }

    fn next(&self) -> Option<u64> {
        let clock = self.start + self.now;
        let next = self.host.next_us(clock)?;
        Some(next.max(clock + 1) - self.start)
    }

    /// Runs the host at the present time until it has nothing to do, and takes what it has sent.
    fn settle(&mut self) -> Result<(), String> {
        loop {
            self.host.run(&mut self.caller, self.start + self.now);
            for (conn, port) in self.caller.take_opened() {
                self.spaces.opened(conn, port);
            }
            let mut answered = false;
            while let Some(sent) = self.host.take_sent() {
                match ip::below(&sent.bytes) {
                    Below::Asks(answer) => {
                        self.arrive(answer);
                        answered = true;
                    }
                    Below::Link => {}
                    Below::Other => self.sent(&sent),
                }
            }
            if !answered {
                break;
            }
        }
        self.returned()?;
        self.broken.take().map_or(Ok(()), Err)
    }

    // --- packets

    fn arrive(&mut self, bytes: Vec<u8>) {
        self.host.arrive(FakeFrame { bytes, offload: RxOffload::default() });
    }

    fn inject(&mut self, packet: &Packet) -> Result<(), String> {
        let space = self.spaces.get(packet.conn);
        let bytes = match &packet.body {
            Body::Tcp(segment) => {
                space.peer_sends(segment);
                frame::segment(self.ip, space, &packet.marks, segment)
            }
            Body::Icmp(error) => frame::icmp(self.ip, space, error),
        };
        self.note_current();
        let Some(len) = packet.marks.fragments else {
            self.arrive(bytes);
            return self.settle();
        };
        // One after the other: a card drops frames for the control plane that come all at once, if its rings are small.
        for bytes in self.ip.fragments(&bytes, len.into()).into_iter().rev() {
            self.arrive(bytes);
            self.settle()?;
        }
        Ok(())
    }

    /// The event that is being done, without its time.
    fn note_current(&mut self) {
        let text = self.current.1.split_once(' ').map_or("", |(_, what)| what).to_owned();
        self.note(&text);
    }

    fn note(&mut self, text: &str) {
        let _ = writeln!(self.trace, "    {} {text}", print::time(self.now));
    }

    fn sent(&mut self, sent: &FakeFrame) {
        match self.see(sent) {
            Ok(seen) => {
                self.note(&seen.text);
                self.seen.push_back(seen);
            }
            Err(why) => {
                self.note(&format!("> {why}"));
                self.broken.get_or_insert(format!("the stack has sent {why}"));
            }
        }
    }

    fn see(&mut self, sent: &FakeFrame) -> Result<Seen, String> {
        let read = frame::read(self.ip, &sent.bytes, sent.offload.csum_ok)?;
        let unknown = || format!("a segment of no connection of the script: {}", read.segment);
        let conn = self.spaces.find(read.local_port, read.peer_port).ok_or_else(unknown)?;
        let space = self.spaces.get(conn);
        let segment = space.take_sent(&read.segment).map_err(|why| format!("{}: {why}", read.segment))?;
        Ok(Seen {
            at: self.now,
            conn,
            ip: read.ip,
            payload_ok: frame::payload_ok(&segment, &read.payload),
            text: print::sent(conn, read.ip, &segment, space),
            segment,
        })
    }

    fn expect(&mut self, event: &Event, packet: &Packet) -> Result<(), String> {
        let Body::Tcp(want) = &packet.body else { return Err("only TCP can be expected".into()) };
        let (from, to) = match event.when {
            When::At(at) => (at.saturating_sub(self.tolerance), at + self.tolerance),
            When::After(wait) => ((self.base + wait).saturating_sub(self.tolerance), self.base + wait + self.tolerance),
            When::Between { relative, from, to } => {
                let base = if relative { self.base } else { 0 };
                (base + from, base + to)
            }
            When::Any => (0, self.now + ANY_US),
        };
        self.advance_to_packet(to)?;
        let Some(seen) = self.seen.pop_front() else {
            self.now = self.now.max(to);
            return Err(format!("nothing was sent until {}", print::time(to)));
        };
        self.base = seen.at;
        let mut wrong = self.compare(packet, want, &seen);
        if seen.at < from || seen.at > to {
            wrong.push(format!("time: expected {} to {}, got {}", print::time(from), print::time(to), print::time(seen.at)));
        }
        if wrong.is_empty() { Ok(()) } else { Err(format!("{}\n  got:     {} {}", wrong.join("; "), print::time(seen.at), seen.text)) }
    }

    fn compare(&mut self, packet: &Packet, want: &Segment, seen: &Seen) -> Vec<String> {
        let slack_ms = (self.tolerance / 1000) as u32;
        differences(packet, want, seen, self.spaces.get(seen.conn), slack_ms)
    }

    // --- calls

    fn call(&mut self, event: &Event, call: &Call) -> Result<(), String> {
        if self.waiting.is_some() {
            return Err("another call has not returned yet".into());
        }
        let until = match (call.until, event.when) {
            (None, _) => self.now,
            (Some(until), When::At(_)) => until,
            (Some(until), _) => self.now + until,
        };
        self.note_current();
        self.waiting = Some(Waiting { place: event.place.clone(), text: event.text.clone(), until, call: call.clone() });
        self.caller.start(call.op.clone());
        self.settle()?;
        if self.waiting.is_some() && call.until.is_none() {
            return Err(format!("it waits, and was to return {} at once", print::result(&call.result)));
        }
        Ok(())
    }

    /// Looks whether the call that waits has returned, and what.
    fn returned(&mut self) -> Result<(), String> {
        let Some(done) = self.caller.take_done() else {
            return match &self.waiting {
                Some(w) if self.caller.waits() && self.now > w.until + self.tolerance => {
                    Err(format!("the call at {} has not returned: {}", w.place, w.text))
                }
                _ => Ok(()),
            };
        };
        let Some(waiting) = self.waiting.take() else { return Ok(()) };
        let got = done.map_err(|why| format!("at {}: {why}", waiting.place))?;
        if got.map_err(|e| e.code) != waiting.call.result.map_err(|e| e.code) {
            let (want, got) = (print::result(&waiting.call.result), print::result(&got));
            return Err(format!("the call at {} returned {got}, not {want}: {}", waiting.place, waiting.text));
        }
        if self.now.abs_diff(waiting.until) > self.tolerance {
            return Err(format!(
                "the call at {} returned at {}, not at {}",
                waiting.place,
                print::time(self.now),
                print::time(waiting.until)
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
