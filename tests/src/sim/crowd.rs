//! Several connections from one host to another: who sends as much as it can over each, and who counts what comes over each.

use super::host::{App, SimDaemon};
use super::world::Scripted;
use toe::{Context, Error, Event, SocketId};
use toe_link::slot::Addr;

/// What is sent; nobody looks at it.
const PAYLOAD: [u8; 16 * 1024] = [0; 16 * 1024];

/// Sends as much as it can over connections that begin one after the other.
pub struct Senders {
    /// Whom each of them leads to, and when it begins, microseconds, in this order.
    plan: Vec<(Addr, u64)>,
    sockets: Vec<SocketId>,
    now_us: u64,
}

impl Senders {
    pub fn new(plan: Vec<(Addr, u64)>) -> Self {
        Self { plan, sockets: Vec::new(), now_us: 0 }
    }

    /// The next one to begin.
    fn next(&self) -> Option<(Addr, u64)> {
        self.plan.get(self.sockets.len()).copied()
    }

    fn carry(&mut self, toe: &mut Context<SimDaemon>) -> Result<bool, Error> {
        let mut worked = false;
        while let Some((to, _)) = self.next().filter(|(_, at_us)| *at_us <= self.now_us) {
            self.sockets.push(toe.connect(to)?);
            worked = true;
        }
        for id in &self.sockets {
            while let Some(1..) = toe.send(*id, &PAYLOAD)? {
                worked = true;
            }
        }
        Ok(worked)
    }
}

impl App for Senders {
    fn run(&mut self, toe: &mut Context<SimDaemon>, _events: &[Event], now_us: u64) -> bool {
        self.now_us = now_us;
        self.carry(toe).expect("connections last")
    }

    fn next_us(&self) -> Option<u64> {
        self.next().map(|(_, at_us)| at_us)
    }
}

impl Scripted for Senders {
    fn done(&self) -> bool {
        false
    }

    fn describe(&self) -> String {
        format!("{} of {} connections", self.sockets.len(), self.plan.len())
    }
}

/// Counts what comes over each of the connections that it accepts.
pub struct Receivers {
    port: u16,
    listener: Option<SocketId>,
    sockets: Vec<SocketId>,
    /// Bytes, by connection, in the order in which they came, since `from_us`.
    pub bytes: Vec<u64>,
    from_us: u64,
}

impl Receivers {
    pub fn new(port: u16, from_us: u64) -> Self {
        Self { port, listener: None, sockets: Vec::new(), bytes: Vec::new(), from_us }
    }

    fn carry(&mut self, toe: &mut Context<SimDaemon>, now_us: u64) -> Result<bool, Error> {
        let Some(listener) = self.listener else {
            self.listener = Some(toe.listen(Addr::v6([0; 16], self.port), 16)?);
            return Ok(true);
        };
        let mut worked = false;
        while let Some(id) = toe.accept(listener)? {
            self.sockets.push(id);
            self.bytes.push(0);
            worked = true;
        }
        let mut buffer = [0; PAYLOAD.len()];
        for (id, bytes) in self.sockets.iter().zip(&mut self.bytes) {
            while let Some(n @ 1..) = toe.recv(*id, &mut buffer)? {
                *bytes += if now_us < self.from_us { 0 } else { n as u64 };
                worked = true;
            }
        }
        Ok(worked)
    }
}

impl App for Receivers {
    fn run(&mut self, toe: &mut Context<SimDaemon>, _events: &[Event], now_us: u64) -> bool {
        self.carry(toe, now_us).expect("connections last")
    }
}

impl Scripted for Receivers {
    fn done(&self) -> bool {
        false
    }

    fn describe(&self) -> String {
        format!("{:?} bytes", self.bytes)
    }
}
