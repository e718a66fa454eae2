//! toed's own region: control queues and frame rings, as `toe_abi::control` lays them out.

use super::SharedMemory;
use core::mem::offset_of;
use std::sync::atomic::Ordering;
use toe_abi::{
    context::{CardLine, ContextPage, DaemonLine, HostLine},
    control::{
        COMPLETIONS_OFF, CONTROL_ENTRIES, CONTROL_MSG_LEN, CONTROL_REGION_LEN, ControlMsg, EXCEPTIONS_OFF, FRAME_RING_LEN, PACKETS_OFF,
        SUBMISSIONS_OFF,
    },
    frames::{FRAME_MAX, FrameRecord, RING_HEADER_LEN},
};
use toe_sync::{
    Word, Words,
    frame_ring::{FrameConsumer, FrameProducer, FrameRingMemory, PopError, PushError},
    queue::{Consumer, Producer, QueueMemory},
    sleep,
};

/// Why a control region can't be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ControlError {
    #[error("{0} bytes are too few for a control region of {CONTROL_REGION_LEN}")]
    TooSmall(u64),
}

/// toed's ends of the control queues and frame rings, with their sleep flags.
pub struct ControlRegion {
    memory: SharedMemory,
    submissions: Producer<ControlMsg>,
    completions: Consumer<ControlMsg>,
    exceptions: FrameConsumer,
    packets: FrameProducer,
    host_parked: Word,
    card_parked: Word,
    /// A frame that is copied out of the ring.
    frame: Vec<u8>,
    corrupt: u64,
    /// The exception ring made no sense when last looked at: not worth staying awake for.
    exceptions_insane: bool,
}

/// Word index of a line's field in the context page.
const fn word(line: usize, field: usize) -> usize {
    (line + field) / 4
}
const HOST: usize = offset_of!(ContextPage, host);
const CARD: usize = offset_of!(ContextPage, card);
const HC_TAIL: usize = word(HOST, offset_of!(HostLine, hc_tail));
const EV_HEAD: usize = word(HOST, offset_of!(HostLine, ev_head));
const HOST_PARKED: usize = word(HOST, offset_of!(HostLine, parked));
const HC_HEAD: usize = word(CARD, offset_of!(CardLine, hc_head));
const EV_TAIL: usize = word(CARD, offset_of!(CardLine, ev_tail));
const CARD_PARKED: usize = word(CARD, offset_of!(CardLine, parked));
const _: () = assert!(offset_of!(ContextPage, daemon) + size_of::<DaemonLine>() <= SUBMISSIONS_OFF as usize);

impl ControlRegion {
    /// Takes `memory` for a control region: zeroes it, all queues and rings empty. The card must not be attached to it.
    pub fn new(memory: SharedMemory) -> Result<Self, ControlError> {
        let too_small = ControlError::TooSmall(memory.len());
        if memory.len() < CONTROL_REGION_LEN {
            return Err(too_small);
        }
        memory.clear(0, CONTROL_REGION_LEN);
        let words = memory.words();
        let at = |off: u64, len: usize| words.slice(off as usize / 4, len / 4);
        let queue = |off, tail, head| {
            let descs: Words = at(off, CONTROL_ENTRIES as usize * CONTROL_MSG_LEN);
            QueueMemory::new(descs, CONTROL_ENTRIES, words.word(tail), words.word(head)).ok_or(too_small)
        };
        let ring = |off| FrameRingMemory::new(at(off, RING_HEADER_LEN + FRAME_RING_LEN as usize)).ok_or(too_small);
        Ok(Self {
            submissions: Producer::new(queue(SUBMISSIONS_OFF, HC_TAIL, HC_HEAD)?),
            completions: Consumer::new(queue(COMPLETIONS_OFF, EV_TAIL, EV_HEAD)?),
            exceptions: FrameConsumer::new(ring(EXCEPTIONS_OFF)?),
            packets: FrameProducer::new(ring(PACKETS_OFF)?),
            host_parked: words.word(HOST_PARKED),
            card_parked: words.word(CARD_PARKED),
            frame: vec![0; FRAME_MAX as usize],
            corrupt: 0,
            exceptions_insane: false,
            memory,
        })
    }

    pub fn memory(&self) -> &SharedMemory {
        &self.memory
    }

    /// Puts a control message into the queue. `false`: it is full. See [`must_kick`](Self::must_kick).
    pub fn submit(&mut self, msg: &ControlMsg) -> bool {
        self.submissions.push(*msg).is_ok()
    }

    /// The next answer or notice. Follow a batch with [`release`](Self::release).
    pub fn completion(&mut self) -> Option<ControlMsg> {
        self.completions.pop()
    }

    /// Gives the room of the completions taken back to the card.
    pub fn release(&mut self) {
        self.completions.publish();
    }

    /// The next exception frame. A ring that makes no sense is emptied and counted.
    pub fn exception(&mut self) -> Option<(FrameRecord, &[u8])> {
        match self.exceptions.pop(&mut self.frame) {
            Ok(record) => record.map(|r| (r, &self.frame[..r.len as usize])),
            Err(PopError::Corrupt | PopError::BufferTooSmall { .. }) => {
                self.corrupt += 1;
                self.exceptions_insane = true;
                None
            }
        }
    }

    /// Times the exception ring made no sense.
    pub fn corrupt(&self) -> u64 {
        self.corrupt
    }

    /// Puts a frame into the packet ring, to be sent or injected.
    pub fn packet(&mut self, record: &FrameRecord, frame: &[u8]) -> Result<(), PushError> {
        self.packets.push(*record, &[frame])
    }

    /// After submissions or packets: whether the card sleeps and must be kicked.
    pub fn must_kick(&self) -> bool {
        sleep::must_wake(&self.card_parked)
    }

    /// First step of going to sleep. `false`: there is work after all, and the flag is taken back.
    #[must_use]
    pub fn park(&mut self) -> bool {
        // Room first: the card may wait for it, and does not look at it again when we sleep.
        self.release();
        sleep::prepare(&self.host_parked);
        let idle = self.completions.is_empty() && (self.exceptions_insane || self.exceptions.is_empty());
        if !idle {
            sleep::cancel(&self.host_parked);
        }
        idle
    }

    /// Awake again.
    pub fn unpark(&mut self) {
        self.exceptions_insane = false;
        sleep::cancel(&self.host_parked);
    }

    /// Whether toed says that it sleeps (for a card in the same process).
    pub fn is_parked(&self) -> bool {
        self.host_parked.load(Ordering::Relaxed) != sleep::AWAKE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::MemoryOptions;
    use toe_abi::{control::kind, frames};

    /// The card's ends over the same memory.
    struct CardEnds {
        submissions: Consumer<ControlMsg>,
        completions: Producer<ControlMsg>,
        exceptions: FrameProducer,
        packets: FrameConsumer,
    }

    fn both() -> (ControlRegion, CardEnds) {
        let memory = SharedMemory::create("control", CONTROL_REGION_LEN, MemoryOptions::default()).expect("memfd");
        let w = memory.words();
        let queue = |off: u64, tail, head| {
            let descs = w.slice(off as usize / 4, CONTROL_ENTRIES as usize * CONTROL_MSG_LEN / 4);
            QueueMemory::new(descs, CONTROL_ENTRIES, w.word(tail), w.word(head)).expect("fits")
        };
        let ring =
            |off: u64| FrameRingMemory::new(w.slice(off as usize / 4, (RING_HEADER_LEN + FRAME_RING_LEN as usize) / 4)).expect("fits");
        let card = CardEnds {
            submissions: Consumer::new(queue(SUBMISSIONS_OFF, HC_TAIL, HC_HEAD)),
            completions: Producer::new(queue(COMPLETIONS_OFF, EV_TAIL, EV_HEAD)),
            exceptions: FrameProducer::new(ring(EXCEPTIONS_OFF)),
            packets: FrameConsumer::new(ring(PACKETS_OFF)),
        };
        (ControlRegion::new(memory).expect("large enough"), card)
    }

    #[test]
    fn messages_and_frames_go_both_ways() {
        let (mut host, mut card) = both();
        assert!(host.submit(&ControlMsg::new(kind::ADDRESS, 7)));
        assert_eq!(card.submissions.pop().map(|m| (m.kind, m.tag)), Some((kind::ADDRESS, 7)));
        card.completions.push(ControlMsg::new(kind::ADDRESS | kind::REPLY, 7)).expect("room");
        assert_eq!(host.completion().map(|m| m.tag), Some(7));
        let record = FrameRecord { kind: frames::kind::TRANSMIT, ..FrameRecord::default() };
        host.packet(&record, b"hello").expect("room");
        let mut buf = [0; 64];
        assert_eq!(card.packets.pop(&mut buf).expect("sane").map(|r| r.len), Some(5));
        let record = FrameRecord { kind: frames::kind::EXCEPTION, ..FrameRecord::default() };
        card.exceptions.push(record, &[b"world"]).expect("room");
        assert_eq!(host.exception().map(|(_, f)| f.to_vec()), Some(b"world".to_vec()));
    }

    #[test]
    fn a_full_queue_says_so_and_has_room_again() {
        let (mut host, mut card) = both();
        for tag in 1..=CONTROL_ENTRIES {
            assert!(host.submit(&ControlMsg::new(kind::QUERY, tag)));
        }
        assert!(!host.submit(&ControlMsg::new(kind::QUERY, 999)));
        card.submissions.pop().expect("one");
        card.submissions.publish();
        assert!(host.submit(&ControlMsg::new(kind::QUERY, 999)));
    }

    #[test]
    fn toed_does_not_sleep_in_front_of_work() {
        let (mut host, mut card) = both();
        assert!(host.park() && host.is_parked());
        host.unpark();
        card.completions.push(ControlMsg::new(kind::FLOW_CLOSED, 0)).expect("room");
        assert!(!host.park() && !host.is_parked());
        host.completion().expect("the notice");
        let record = FrameRecord { kind: frames::kind::EXCEPTION, ..FrameRecord::default() };
        card.exceptions.push(record, &[&[1; 60]]).expect("room");
        assert!(!host.park());
    }

    #[test]
    fn a_sleeping_card_is_kicked() {
        let (host, _card) = both();
        assert!(!host.must_kick());
        host.memory().store((CARD_PARKED * 4) as u64, 1);
        assert!(host.must_kick());
    }

    #[test]
    fn an_exception_ring_that_makes_no_sense_is_emptied_and_counted() {
        let (mut host, _card) = both();
        host.memory().store(EXCEPTIONS_OFF, 0x7fff_ffff);
        assert!(host.exception().is_none());
        assert_eq!(host.corrupt(), 1);
        assert!(host.exception().is_none());
        assert!(host.park());
    }

    #[test]
    fn too_little_memory_is_refused() {
        let memory = SharedMemory::create("control", 4096, MemoryOptions::default()).expect("memfd");
        assert!(matches!(ControlRegion::new(memory), Err(ControlError::TooSmall(4096))));
    }
}
