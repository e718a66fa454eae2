//! The application: reads events, keeps send buffers full or answers requests, and tells the card by descriptors, as the library does.
//!
//! Payload is not touched unless it is checked: what a program does with its bytes is none of the card's business.

use std::mem::offset_of;
use std::sync::atomic::{Ordering, fence};

use anyhow::{Result, anyhow};
use toe_abi::context::{CardLine, ContextPage, HostLine};
use toe_abi::desc::{DESC_LEN, EventDesc, HostDesc, hc, hc_flags, phase, slot};
use toe_abi::region::RegionHeader;
use toe_abi::{CtxId, FlowId, HostAddr, RegionId};
use toe_hal::DmaFault;
use zerocopy::{FromBytes, IntoBytes};

use super::{Load, Traffic, byte, cost::Sampled};
use crate::board::Memory;

/// Its region, and its context, as the card names them.
pub const REGION: RegionId = RegionId(1);
pub const CTX: CtxId = CtxId(1);
/// Events and descriptors handled in one turn, each.
const BUDGET: usize = 64;

const PHASE: u64 = DESC_LEN as u64 - 4;

/// The application's side of a connection, as positions in the two streams.
struct Conn {
    flow: FlowId,
    /// Received up to here, as events say.
    rx_head: u32,
    /// Read, and the card told, up to here.
    rx_tail: u32,
    /// Written up to here.
    tx_head: u32,
    /// Acknowledged up to here, as events say.
    tx_tail: u32,
    /// Waits to be told to the card.
    dirty: bool,
}

/// What came of a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Turn {
    pub any: bool,
    /// The card has parked the context: kick it.
    pub kick: bool,
}

pub struct App {
    memory: Memory,
    traffic: Traffic,
    header: RegionHeader,
    conns: Vec<Conn>,
    /// Connections to be told about.
    dirty: std::collections::VecDeque<u16>,
    hc_tail: u32,
    ev_head: u32,
    /// Connection of the next idle descriptor.
    turn: usize,
    turns: u32,
    pub cost: Sampled,
    /// Bytes that were not what they should have been.
    bad: u64,
}

const fn at(offset: u64) -> HostAddr {
    HostAddr::new(REGION, offset)
}

impl App {
    pub fn new(memory: Memory, traffic: Traffic, header: RegionHeader) -> Self {
        let n = usize::from(traffic.connections);
        Self {
            memory,
            traffic,
            header,
            conns: Vec::with_capacity(n),
            dirty: std::collections::VecDeque::with_capacity(n),
            hc_tail: 0,
            ev_head: 0,
            turn: 0,
            turns: 0,
            cost: Sampled::default(),
            bad: 0,
        }
    }

    /// Offsets of the transmit and receive buffer of connection `i`.
    pub fn buffers(header: &RegionHeader, traffic: &Traffic, i: u16) -> (u64, u64) {
        let tx = header.payload_off + u64::from(i) * 2 * u64::from(traffic.buf());
        (tx, tx + u64::from(traffic.buf()))
    }

    /// The next connection is there; its number is the `opaque` word of its events.
    pub fn open(&mut self, flow: FlowId) -> Result<()> {
        self.conns.push(Conn { flow, rx_head: 0, rx_tail: 0, tx_head: 0, tx_tail: 0, dirty: false });
        if self.traffic.load == Load::Send {
            let number = (self.conns.len() - 1) as u16;
            self.refill(number).map_err(|DmaFault| anyhow!("the buffers of connection {number} are not there"))?;
        }
        Ok(())
    }

    /// Bytes that were wrong, and all that have been read.
    pub fn checked(&self) -> (u64, u64) {
        (self.bad, self.conns.iter().map(|c| u64::from(c.rx_tail)).sum())
    }

    /// A turn: events, then descriptors.
    pub fn turn(&mut self) -> Turn {
        let begin = Sampled::begin(&mut self.turns);
        // The region is there as long as the application: none of this can fault.
        let (read, posted) = (self.events().unwrap_or(0), self.descriptors().unwrap_or(0));
        let kick = posted > 0 && self.is_parked().unwrap_or(false);
        let any = read + posted > 0;
        // Idle turns are not part of the load's cost.
        self.cost.end(begin.filter(|_| any));
        Turn { any, kick }
    }

    fn page(&self, offset: usize) -> HostAddr {
        at(self.header.context_page(0) + offset as u64)
    }

    fn events(&mut self) -> Result<usize, DmaFault> {
        let entries = self.header.ev_entries;
        let mut n = 0;
        while n < BUDGET {
            let place = at(self.header.ev_queue(0) + u64::from(slot(self.ev_head, entries)) * DESC_LEN as u64);
            // Acquire: with the card's release of the phase.
            if self.memory.word(place.add(PHASE))?.load(Ordering::Acquire) != phase(self.ev_head, entries) {
                break;
            }
            let mut bytes = [0; DESC_LEN];
            self.memory.get(place, &mut bytes)?;
            self.ev_head = self.ev_head.wrapping_add(1);
            self.event(&EventDesc::read_from_bytes(&bytes).unwrap_or_default())?;
            n += 1;
        }
        if n > 0 {
            let ev_head = self.page(offset_of!(ContextPage, host) + offset_of!(HostLine, ev_head));
            // Release: we have read them.
            self.memory.word(ev_head)?.store(self.ev_head, Ordering::Release);
        }
        Ok(n)
    }

    fn event(&mut self, event: &EventDesc) -> Result<(), DmaFault> {
        let Some(conn) = self.conns.get_mut(event.opaque as usize) else { return Ok(()) };
        (conn.rx_head, conn.tx_tail) = (event.rx_head, event.tx_tail);
        let number = event.opaque as u16;
        match self.traffic.load {
            Load::Receive => self.read(number),
            Load::Send => self.refill(number),
            Load::Rpc => self.answer(number),
            Load::Acks | Load::Descriptors => Ok(()),
        }
    }

    /// Reads what is there. As in the library, the card is told when a quarter of the buffer has become free.
    fn read(&mut self, number: u16) -> Result<(), DmaFault> {
        let conn = &self.conns[usize::from(number)];
        if conn.rx_head.wrapping_sub(conn.rx_tail) >= self.traffic.buf() / 4 {
            self.check(number)?;
            let conn = &mut self.conns[usize::from(number)];
            conn.rx_tail = conn.rx_head;
            self.tell(number);
        }
        Ok(())
    }

    /// Fills the send buffer, when a quarter of it is free.
    fn refill(&mut self, number: u16) -> Result<(), DmaFault> {
        let size = self.traffic.buf();
        let conn = &mut self.conns[usize::from(number)];
        let room = size - conn.tx_head.wrapping_sub(conn.tx_tail);
        if room < size / 4 {
            return Ok(());
        }
        let from = std::mem::replace(&mut conn.tx_head, conn.tx_tail.wrapping_add(size));
        self.tell(number);
        self.fill(number, from, room)
    }

    /// Answers the requests that are there as a whole with their own bytes.
    fn answer(&mut self, number: u16) -> Result<(), DmaFault> {
        let conn = &self.conns[usize::from(number)];
        let there = conn.rx_head.wrapping_sub(conn.rx_tail);
        let whole = there - there % self.traffic.rpc_bytes;
        if whole == 0 {
            return Ok(());
        }
        self.check(number)?;
        let conn = &mut self.conns[usize::from(number)];
        conn.rx_tail = conn.rx_tail.wrapping_add(whole);
        let from = conn.tx_head;
        conn.tx_head = from.wrapping_add(whole);
        self.tell(number);
        self.fill(number, from, whole)
    }

    fn tell(&mut self, number: u16) {
        if !std::mem::replace(&mut self.conns[usize::from(number)].dirty, true) {
            self.dirty.push_back(number);
        }
    }

    /// Compares what has been received and not read yet with the stream.
    fn check(&mut self, number: u16) -> Result<(), DmaFault> {
        if self.traffic.checked {
            let (_, rx) = Self::buffers(&self.header, &self.traffic, number);
            let conn = &self.conns[usize::from(number)];
            for pos in 0..conn.rx_head.wrapping_sub(conn.rx_tail) {
                let pos = conn.rx_tail.wrapping_add(pos);
                let mut one = [0];
                self.memory.get(at(rx + u64::from(pos % self.traffic.buf())), &mut one)?;
                self.bad += u64::from(one[0] != byte(pos));
            }
        }
        Ok(())
    }

    /// Writes the stream from `from` on.
    fn fill(&self, number: u16, from: u32, len: u32) -> Result<(), DmaFault> {
        if self.traffic.checked {
            let (tx, _) = Self::buffers(&self.header, &self.traffic, number);
            for pos in (0..len).map(|i| from.wrapping_add(i)) {
                self.memory.put(at(tx + u64::from(pos % self.traffic.buf())), &[byte(pos)])?;
            }
        }
        Ok(())
    }

    fn descriptors(&mut self) -> Result<usize, DmaFault> {
        let room = self.room()?.min(BUDGET);
        let mut n = 0;
        while n < room {
            let Some(number) = self.next_dirty() else { break };
            self.post(number)?;
            n += 1;
        }
        if n > 0 {
            let hc_tail = self.page(offset_of!(ContextPage, host) + offset_of!(HostLine, hc_tail));
            self.memory.word(hc_tail)?.store(self.hc_tail, Ordering::Release);
        }
        Ok(n)
    }

    fn next_dirty(&mut self) -> Option<usize> {
        if self.traffic.load == Load::Descriptors {
            self.turn = (self.turn + 1) % self.conns.len().max(1);
            return Some(self.turn).filter(|&turn| turn < self.conns.len());
        }
        let number = usize::from(self.dirty.pop_front()?);
        self.conns[number].dirty = false;
        Some(number)
    }

    /// Room in the queue, with a look at the card's index only if there may be something to post.
    fn room(&self) -> Result<usize, DmaFault> {
        if self.dirty.is_empty() && self.traffic.load != Load::Descriptors {
            return Ok(0);
        }
        let hc_head = self.page(offset_of!(ContextPage, card) + offset_of!(CardLine, hc_head));
        // Acquire: with the card's release; it has read them.
        let used = self.hc_tail.wrapping_sub(self.memory.word(hc_head)?.load(Ordering::Acquire));
        Ok(self.header.hc_entries.saturating_sub(used) as usize)
    }

    fn post(&mut self, number: usize) -> Result<(), DmaFault> {
        let conn = &self.conns[number];
        let (flow, tx_head, rx_tail) = (conn.flow, conn.tx_head, conn.rx_tail);
        let desc = HostDesc { kind: hc::UPDATE, flags: hc_flags::NODELAY, flow, tx_head, rx_tail, ..HostDesc::default() };
        let entries = self.header.hc_entries;
        let place = at(self.header.hc_queue(0) + u64::from(slot(self.hc_tail, entries)) * DESC_LEN as u64);
        self.memory.put(place, &desc.as_bytes()[..PHASE as usize])?;
        // Release: with the card's acquire of the phase.
        self.memory.word(place.add(PHASE))?.store(phase(self.hc_tail, entries), Ordering::Release);
        self.hc_tail = self.hc_tail.wrapping_add(1);
        Ok(())
    }

    /// Whether the card has parked the context, after something was published.
    fn is_parked(&self) -> Result<bool, DmaFault> {
        // Partner: the fence of the card (`toe_sync::sleep`).
        fence(Ordering::SeqCst);
        let parked = self.page(offset_of!(ContextPage, card) + offset_of!(CardLine, parked));
        Ok(self.memory.word(parked)?.load(Ordering::Relaxed) != 0)
    }
}
