//! The two frame rings: exceptions to the control plane, packets from it.

use super::FETCH_PACKET;
use crate::{
    host::{Item, Posting},
    msg::{ExceptionMsg, Origin, RxRef, Write},
};
use alloc::{boxed::Box, vec};
use toe_abi::{
    HostAddr, HostSpan, RegionId,
    control::{EXCEPTIONS_OFF, FRAME_RING_LEN, PACKETS_OFF},
    frames::{self, Found, FrameRecord, Placing, RECORD_LEN, RING_HEADER_LEN, RingHeader, flags, kind},
};
use toe_hal::{Dma as Transfer, DmaFault, HostMemory, RxOffload, memory::FETCH_MAX};
use zerocopy::FromBytes;

const TAIL: u64 = core::mem::offset_of!(RingHeader, tail) as u64;
const HEAD: u64 = core::mem::offset_of!(RingHeader, head) as u64;
/// Offset of the checksum in a TCP header.
const TCP_CHECKSUM: u16 = 16;
/// Most bytes of a packet to be transmitted that go to the port as its header; the rest as a slice.
const HEADER: u32 = 64;

/// Steps in one call of [`Packets::next`]: the chunks of the longest frame, and some.
const TURNS: usize = frames::FRAME_MAX as usize / FETCH_MAX + 16;

const fn exceptions(offset: u64) -> HostAddr {
    HostAddr::new(RegionId::CONTROL, EXCEPTIONS_OFF + offset)
}

const fn packets(offset: u64) -> HostAddr {
    HostAddr::new(RegionId::CONTROL, PACKETS_OFF + offset)
}

const fn data(offset: u32) -> u64 {
    RING_HEADER_LEN as u64 + offset as u64
}

/// Producer of the exception ring.
#[derive(Default)]
pub(super) struct Exceptions {
    /// Bytes given out; published as they come out of the order.
    tail: u32,
}

/// A step of putting a frame into the exception ring.
pub enum Put {
    /// Filling up to the end of the ring: submit it, then try again.
    Skip(Posting, ExceptionMsg),
    Frame(Posting),
    /// No room.
    Full(ExceptionMsg),
    /// The ring's indices make no sense, or its memory has gone.
    Insane(ExceptionMsg),
}

impl Exceptions {
    pub fn put<M: HostMemory>(&mut self, msg: ExceptionMsg, epoch: u32, memory: &M) -> Put {
        let Ok(head) = memory.load(exceptions(HEAD)) else { return Put::Insane(msg) };
        match frames::place(FRAME_RING_LEN, self.tail, head, msg.frame.len) {
            Placing::Put { at, advance } => {
                self.tail = self.tail.wrapping_add(advance);
                let frame = Write { source: 1, at: 0, len: msg.frame.len, dst: exceptions(data(at + RECORD_LEN)) };
                let record = exception_record(&msg);
                let mut posting = self.posting(Some(msg), epoch, at, record);
                posting.add(frame);
                Put::Frame(posting)
            }
            Placing::Skip { at, len } => {
                self.tail = self.tail.wrapping_add(len);
                let record = FrameRecord { kind: kind::SKIP, len, ..FrameRecord::default() };
                Put::Skip(self.posting(None, epoch, at, record), msg)
            }
            Placing::Full | Placing::TooLong => Put::Full(msg),
            Placing::Insane => Put::Insane(msg),
        }
    }

    fn posting(&self, msg: Option<ExceptionMsg>, epoch: u32, at: u32, record: FrameRecord) -> Posting {
        let write = Write { source: 0, at: 0, len: RECORD_LEN, dst: exceptions(data(at)) };
        Posting::with_bytes(Item::Exception { msg, tail: self.tail, epoch }, write, zerocopy::transmute!(record))
    }
}

fn exception_record(msg: &ExceptionMsg) -> FrameRecord {
    let RxOffload { csum_ok, partial_csum, gso_size } = msg.frame.offload;
    let partial = partial_csum && msg.frame.tcp_at != 0;
    FrameRecord {
        kind: kind::EXCEPTION,
        len: msg.frame.len,
        flags: if csum_ok { flags::CSUM_OK } else { 0 } | if partial { flags::NEEDS_CSUM } else { 0 },
        reason: msg.reason as u32,
        csum_start: if partial { msg.frame.tcp_at } else { 0 },
        csum_offset: if partial { TCP_CHECKSUM } else { 0 },
        gso_size,
        ..FrameRecord::default()
    }
}

/// Publishes the exception ring up to `tail`.
pub(super) fn publish_exceptions<M: HostMemory>(tail: u32, memory: &M) -> Result<(), DmaFault> {
    memory.store(exceptions(TAIL), tail)
}

/// A packet of the control plane that is ready.
#[derive(Debug)]
pub enum Packet {
    /// To be transmitted: the first bytes are in the buffer, the rest is host memory.
    Transmit { header_len: u32, rest: HostSpan, record: FrameRecord },
    /// To be processed as if it came from the wire: it is in the buffer.
    Inject(RxRef),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Idle,
    /// Fetching the record.
    Record,
    /// Fetching: so many bytes of so many are there.
    Body {
        got: u32,
        want: u32,
        fetching: bool,
    },
    Ready,
    /// Given out: the packet is under way.
    Lent,
}

/// Consumer of the packet ring. One packet at a time: its buffer is one frame.
pub struct Packets {
    head: u32,
    state: State,
    record: FrameRecord,
    at: u32,
    advance: u32,
    buffer: Box<[u8]>,
    /// The ring that the packet came from is not the present one.
    stale: bool,
}

impl Default for Packets {
    fn default() -> Self {
        Self {
            head: 0,
            state: State::Idle,
            record: FrameRecord::default(),
            at: 0,
            advance: 0,
            buffer: vec![0; frames::FRAME_MAX as usize].into_boxed_slice(),
            stale: false,
        }
    }
}

impl Packets {
    pub fn buffer(&self) -> &[u8] {
        &self.buffer
    }

    pub fn is_busy(&self) -> bool {
        self.state != State::Idle
    }

    /// Busy, and nobody else has it.
    pub fn wants_core(&self) -> bool {
        !matches!(self.state, State::Idle | State::Lent)
    }

    pub fn is_fetching(&self) -> bool {
        matches!(self.state, State::Record | State::Body { fetching: true, .. })
    }

    pub(super) fn restart(&mut self) {
        self.head = 0;
        self.stale = self.is_fetching() || self.state == State::Lent;
        if !self.stale {
            self.state = State::Idle;
        }
    }

    /// Whether a packet waits in the ring that could be taken. While one is under way it is in the way of all others.
    pub fn any<M: HostMemory>(&self, memory: &M) -> bool {
        self.state != State::Lent && memory.load(packets(TAIL)).is_ok_and(|tail| frames::ready(FRAME_RING_LEN, self.head, tail) != Some(0))
    }

    /// The next packet, when all of it that is needed here is there.
    pub fn next<M: HostMemory>(&mut self, memory: &mut M) -> Result<Option<Packet>, DmaFault> {
        // Bounded: filling and nonsense in the ring take a turn each.
        for _ in 0..TURNS {
            match self.state {
                State::Record | State::Lent => return Ok(None),
                State::Ready => return Ok(Some(self.packet())),
                State::Body { got, want, .. } if got >= want => self.state = State::Ready,
                State::Body { got, want, fetching: false } => {
                    if !self.fetch_body(got, want, memory)? {
                        return Ok(None);
                    }
                }
                State::Body { .. } => return Ok(None),
                State::Idle => {
                    let Some(bytes) = self.peek(memory)? else { return Ok(None) };
                    self.accept(bytes, memory)?;
                }
            }
        }
        Ok(None)
    }

    /// Fetches the record at the head. `None`: there is none, or it is on its way.
    fn peek<M: HostMemory>(&mut self, memory: &mut M) -> Result<Option<[u8; RECORD_LEN as usize]>, DmaFault> {
        let tail = memory.load(packets(TAIL))?;
        match frames::ready(FRAME_RING_LEN, self.head, tail) {
            None => return Err(DmaFault),
            Some(0) => return Ok(None),
            Some(_) => {}
        }
        let mut record = [0; RECORD_LEN as usize];
        let at = packets(data(self.head & (FRAME_RING_LEN - 1)));
        match memory.fetch(at, &mut record, FETCH_PACKET)? {
            Transfer::Done => return Ok(Some(record)),
            Transfer::Pending => self.state = State::Record,
            Transfer::Full => {}
        }
        Ok(None)
    }

    /// Judges a record: a claim.
    fn accept<M: HostMemory>(&mut self, bytes: [u8; RECORD_LEN as usize], memory: &M) -> Result<(), DmaFault> {
        self.record = FrameRecord::read_from_bytes(&bytes).unwrap_or_default();
        let tail = memory.load(packets(TAIL))?;
        let ready = frames::ready(FRAME_RING_LEN, self.head, tail).filter(|&r| r > 0).ok_or(DmaFault)?;
        match self.record.check(FRAME_RING_LEN, self.head, ready) {
            Found::Frame { at, len, advance } => {
                (self.at, self.advance) = (at, advance);
                let want = match self.record.kind {
                    kind::TRANSMIT => len.min(HEADER),
                    kind::INJECT => len,
                    _ => return self.consume(advance, memory),
                };
                self.state = State::Body { got: 0, want, fetching: false };
                Ok(())
            }
            Found::Skip { advance } => self.consume(advance, memory),
            Found::Corrupt => self.consume(tail.wrapping_sub(self.head) & !(frames::UNIT - 1), memory),
        }
    }

    /// False: on its way, or to be tried again.
    fn fetch_body<M: HostMemory>(&mut self, got: u32, want: u32, memory: &mut M) -> Result<bool, DmaFault> {
        let n = (want - got).min(FETCH_MAX as u32);
        let buffer = &mut self.buffer[got as usize..(got + n) as usize];
        let (got, fetching) = match memory.fetch(packets(data(self.at + got)), buffer, FETCH_PACKET)? {
            Transfer::Done => (got + n, false),
            Transfer::Pending => (got, true),
            Transfer::Full => return Ok(false),
        };
        self.state = State::Body { got, want, fetching };
        Ok(!fetching)
    }

    /// The fetch has come back.
    pub fn fetched<M: HostMemory>(&mut self, result: Result<(), DmaFault>, memory: &mut M) -> Result<(), DmaFault> {
        let before = self.state;
        let mut record = [0; RECORD_LEN as usize];
        match before {
            State::Record => {
                self.state = State::Idle;
                if result.is_ok() {
                    memory.fetched(FETCH_PACKET, &mut record);
                }
            }
            State::Body { got, want, fetching: true } => {
                let n = (want - got).min(FETCH_MAX as u32);
                self.state = State::Body { got: got + n, want, fetching: false };
                if result.is_ok() {
                    memory.fetched(FETCH_PACKET, &mut self.buffer[got as usize..(got + n) as usize]);
                }
            }
            _ => return Ok(()),
        }
        if core::mem::take(&mut self.stale) {
            self.state = State::Idle;
            return Ok(());
        }
        result?;
        if before == State::Record { self.accept(record, memory) } else { Ok(()) }
    }

    fn packet(&mut self) -> Packet {
        let record = self.record;
        self.state = State::Lent;
        if record.kind == kind::TRANSMIT {
            let header_len = record.len.min(HEADER);
            let addr = packets(data(self.at + header_len));
            return Packet::Transmit { header_len, rest: HostSpan { addr, len: record.len - header_len }, record };
        }
        let partial_csum = record.flags & flags::NEEDS_CSUM != 0;
        let csum_ok = partial_csum || record.flags & flags::CSUM_OK != 0;
        let offload = RxOffload { csum_ok, partial_csum, gso_size: record.gso_size };
        Packet::Inject(RxRef { origin: Origin::Injected, len: record.len, offload, tcp_at: 0 })
    }

    /// The packet has been transmitted and flushed, or the injected frame has come back.
    pub fn done<M: HostMemory>(&mut self, memory: &M) -> Result<(), DmaFault> {
        self.state = State::Idle;
        if core::mem::take(&mut self.stale) {
            return Ok(());
        }
        self.consume(self.advance, memory)
    }

    fn consume<M: HostMemory>(&mut self, advance: u32, memory: &M) -> Result<(), DmaFault> {
        self.head = self.head.wrapping_add(advance);
        memory.store(packets(HEAD), self.head)
    }
}
