//! What is on its way to the card: control messages waiting for room or for their answer, packets waiting for room.

use super::{ClientId, Host, JobId};
use crate::admin::Share;
use std::collections::{HashMap, VecDeque};
use toe_abi::{
    CtxId, FlowId,
    control::{ControlMsg, kind},
    flow::FlowKey,
    frames::FrameRecord,
};
use toe_engine::{ConnId, Owner};

/// Most frames and bytes that wait for room in the packet ring; beyond, frames are dropped and counted.
const PACKETS_MAX: usize = 4096;
const PACKET_BYTES_MAX: usize = 8 << 20;

/// What to do when the answer comes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pending {
    MapRegion {
        region: u16,
        client: ClientId,
    },
    UnmapRegion {
        region: u16,
    },
    OpenContext {
        owner: Owner,
        index: u32,
        ctx: CtxId,
        client: ClientId,
    },
    CloseContext {
        owner: Owner,
        index: u32,
        ctx: CtxId,
    },
    Install(Installing),
    /// For the engine.
    Query {
        flow: FlowId,
    },
    /// For a report.
    Sample {
        job: JobId,
        flow: FlowId,
    },
    Counters {
        job: JobId,
    },
    Stages {
        job: JobId,
    },
    TraceStart {
        job: JobId,
        trace: u64,
    },
    TraceRead {
        job: JobId,
        trace: u64,
    },
    TraceStop {
        job: JobId,
    },
    /// `before`: what it was until then.
    SetShare {
        job: JobId,
        owner: Owner,
        share: Share,
        before: Option<Share>,
    },
    /// The share that an application starts with.
    BeginShare {
        owner: Owner,
    },
    Reserve {
        job: JobId,
        ticket: u64,
        share: Share,
    },
    Pace {
        client: ClientId,
        owner: Owner,
        slot: u32,
        rate_kbps: u64,
    },
    Rates {
        group: u16,
    },
    Congestion {
        client: ClientId,
    },
    Info {
        client: ClientId,
        algorithm: u8,
    },
    /// Nothing depends on it.
    Plain,
}

/// A connection that the card is asked to install.
#[derive(Clone, Copy, Debug)]
pub(super) struct Installing {
    pub conn: ConnId,
    pub owner: Owner,
    pub key: FlowKey,
    pub buffers: Buffers,
    /// Congestion control, `toe_abi::flow::cc`.
    pub cc: u8,
    /// What the handshake tells of the round-trip time; 0: nothing.
    pub srtt_us: u32,
}

/// Payload buffers of a connection: offsets in the payload area, log2 of their sizes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Buffers {
    pub tx: u64,
    pub rx: u64,
    pub tx_log2: u8,
    pub rx_log2: u8,
}

/// See the module.
#[derive(Default)]
pub(super) struct Outbox {
    next_tag: u32,
    pending: HashMap<u32, Pending>,
    queue: VecDeque<ControlMsg>,
    packets: VecDeque<(FrameRecord, Vec<u8>)>,
    packet_bytes: usize,
    pub packets_dropped: u64,
}

impl Outbox {
    /// Sends a control message, now or as soon as there is room. Answers come in [`answered`](Self::answered).
    pub fn send<H: Host>(&mut self, host: &mut H, kind: u32, pending: Pending, fill: impl FnOnce(&mut ControlMsg)) {
        // Tag 0 marks notices; a tag still in use (after 2^32 messages) is skipped.
        loop {
            self.next_tag = self.next_tag.wrapping_add(1);
            if self.next_tag != 0 && !self.pending.contains_key(&self.next_tag) {
                break;
            }
        }
        let mut msg = ControlMsg::new(kind, self.next_tag);
        fill(&mut msg);
        self.pending.insert(self.next_tag, pending);
        if !self.queue.is_empty() || !host.submit(&msg) {
            self.queue.push_back(msg);
        }
    }

    /// Sends a message about a flow whose answer does not matter.
    pub fn tell<H: Host>(&mut self, host: &mut H, kind: u32, flow: FlowId, args: [u64; 5]) {
        self.send(host, kind, Pending::Plain, |m| {
            m.flow = flow;
            m.args = args;
        });
    }

    /// Sends or injects a frame, now or as soon as there is room.
    pub fn packet<H: Host>(&mut self, host: &mut H, record: FrameRecord, frame: Vec<u8>) {
        if self.packets.is_empty() && host.packet(&record, &frame) {
            return;
        }
        if self.packets.len() >= PACKETS_MAX || self.packet_bytes + frame.len() > PACKET_BYTES_MAX {
            self.packets_dropped += 1;
            return;
        }
        self.packet_bytes += frame.len();
        self.packets.push_back((record, frame));
    }

    /// Moves on what waits for room.
    pub fn flush<H: Host>(&mut self, host: &mut H) {
        while let Some(msg) = self.queue.front() {
            if !host.submit(msg) {
                break;
            }
            self.queue.pop_front();
        }
        while let Some((record, frame)) = self.packets.front() {
            if !host.packet(record, frame) {
                break;
            }
            self.packet_bytes -= frame.len();
            self.packets.pop_front();
        }
    }

    /// Whether something waits for room in the packet ring, which nobody announces.
    pub fn packets_wait(&self) -> bool {
        !self.packets.is_empty()
    }

    /// What an answer was waited for; `None`: nobody asked, or it answers something else.
    pub fn answered(&mut self, answer: &ControlMsg) -> Option<Pending> {
        if answer.kind & kind::REPLY == 0 {
            return None;
        }
        self.pending.remove(&answer.tag)
    }

    /// Messages without an answer yet.
    pub fn in_flight(&self) -> usize {
        self.pending.len()
    }
}
