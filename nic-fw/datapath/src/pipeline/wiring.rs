//! All links of a placement, both ends, until the instances take theirs.

use super::{
    links::{In, Ins, Out, Outs, link},
    messages::{Back, Judged},
    placement::{Placement, StageId},
};
use crate::{
    ingress::Steered,
    msg::{ExceptionMsg, HcMsg, HostIn, OutMsg, RawFrame, Work},
};
use alloc::{boxed::Box, collections::VecDeque, vec::Vec};
use toe_abi::observe::stage;
use toe_hal::Lease;
use toe_sync::progress::{Teller, Watcher, progress};

/// Makes links within a placement.
pub struct Links<'a> {
    placement: &'a Placement,
    ring: u32,
}

/// Sending ends, by sender.
type From<T> = VecDeque<VecDeque<Out<T>>>;

impl<'a> Links<'a> {
    /// With rings of `ring` messages.
    pub fn new(placement: &'a Placement, ring: u32) -> Self {
        Self { placement, ring: ring.max(1) }
    }

    pub fn core(&self, stage: u16, instance: u16) -> usize {
        // A placement has been checked: every instance has a core.
        self.placement.core_of(StageId::new(stage, instance)).unwrap_or(0)
    }

    pub fn cpu(&self, core: usize) -> Option<u32> {
        self.placement.cores()[core].cpu
    }

    pub fn count(&self, stage: u16) -> u16 {
        self.placement.count(stage)
    }

    /// Links from each of `from` instances to each instance of a stage: the sending ends by sender, the receiving ends by receiver.
    fn mesh<T: Send>(&self, from: u16, stage: u16) -> (From<T>, VecDeque<Ins<T>>) {
        let mut outs: From<T> = (0..from).map(|_| VecDeque::new()).collect();
        let mut all_ins = VecDeque::new();
        for instance in 0..self.count(stage) {
            let mut ins = Ins::default();
            for sender in &mut outs {
                let (out, receiver) = link(self.ring, self.core(stage, instance));
                sender.push_back(out);
                ins.add(receiver);
            }
            all_ins.push_back(ins);
        }
        (outs, all_ins)
    }

    /// A link from one instance to each instance of a stage.
    fn each<T: Send>(&self, stage: u16) -> (VecDeque<Out<T>>, VecDeque<In<T>>) {
        (0..self.count(stage)).map(|instance| link(self.ring, self.core(stage, instance))).unzip()
    }
}

/// Links to the replicas of a stage.
pub fn all<T: Send>(links: impl IntoIterator<Item = Out<T>>) -> Outs<T> {
    let mut outs = Outs::default();
    links.into_iter().for_each(|link| outs.add(link));
    outs
}

/// The next end: there are as many as instances take.
pub fn take<T>(ends: &mut VecDeque<T>) -> T {
    ends.pop_front().unwrap_or_else(|| unreachable!("as many ends as instances"))
}

/// Ends of links, by what they carry. Instances take theirs in the order of their stages and numbers.
pub struct Wiring {
    // Frames in.
    pub steered_out: From<Steered>,
    pub steered_in: VecDeque<Ins<Steered>>,
    pub judged_out: From<Judged>,
    pub judged_in: VecDeque<Ins<Judged>>,
    pub exceptions_out: From<ExceptionMsg>,
    pub exceptions_in: VecDeque<Ins<ExceptionMsg>>,
    pub answers_out: From<RawFrame>,
    pub answers_in: VecDeque<Ins<RawFrame>>,
    /// From pre, egress, ctxq.
    pub leases_out: From<Lease>,
    pub leases_in: VecDeque<Ins<Lease>>,
    /// How far each group's protocol is, for ingress.
    pub tellers: VecDeque<Teller>,
    pub watchers: Vec<Watcher>,
    // Messages out.
    /// From protocol.
    pub to_post: From<Box<OutMsg>>,
    pub post_in: VecDeque<Ins<Box<OutMsg>>>,
    /// From protocol and post.
    pub to_dma: From<Box<OutMsg>>,
    pub dma_in: VecDeque<Ins<Box<OutMsg>>>,
    /// From protocol and post.
    pub to_ctxq: From<Box<OutMsg>>,
    pub ctxq_in: VecDeque<Ins<Box<OutMsg>>>,
    /// From protocol, post, DMA and ctxq.
    pub to_egress: From<Box<OutMsg>>,
    pub egress_in: VecDeque<Ins<Box<OutMsg>>>,
    // The host's side, and what comes back.
    pub requests_out: VecDeque<Out<Work>>,
    pub requests_in: VecDeque<In<Work>>,
    pub descriptors_out: VecDeque<Out<HcMsg>>,
    pub descriptors_in: VecDeque<In<HcMsg>>,
    pub back_out: VecDeque<Out<Back>>,
    pub back_in: VecDeque<In<Back>>,
    pub host_out: VecDeque<Out<HostIn>>,
    pub host_in: VecDeque<In<HostIn>>,
    pub raw_out: VecDeque<Out<RawFrame>>,
    pub raw_in: VecDeque<In<RawFrame>>,
}

impl Wiring {
    pub fn new(links: &Links<'_>) -> Self {
        let [pre, groups, post, dma] = [stage::PRE, stage::PROTOCOL, stage::POST, stage::DMA].map(|s| links.count(s));
        let (steered_out, steered_in) = links.mesh(1, stage::PRE);
        let (judged_out, judged_in) = links.mesh(pre, stage::PROTOCOL);
        let (exceptions_out, exceptions_in) = links.mesh(pre, stage::CTXQ);
        let (answers_out, answers_in) = links.mesh(pre, stage::EGRESS);
        let (leases_out, leases_in) = links.mesh(pre + 2, stage::INGRESS);
        let (tellers, watchers) = (0..groups).map(|_| progress()).unzip();
        let (to_post, post_in) = links.mesh(groups, stage::POST);
        let (to_dma, dma_in) = links.mesh(groups + post, stage::DMA);
        let (to_ctxq, ctxq_in) = links.mesh(groups + post, stage::CTXQ);
        let (to_egress, egress_in) = links.mesh(groups + post + dma + 1, stage::EGRESS);
        let (requests_out, requests_in) = links.each(stage::PROTOCOL);
        let (descriptors_out, descriptors_in) = links.each(stage::PROTOCOL);
        let (back_out, back_in) = links.each(stage::PROTOCOL);
        let (host_out, host_in) = links.each(stage::CTXQ);
        let (raw_out, raw_in) = links.each(stage::EGRESS);
        Self {
            steered_out,
            steered_in,
            judged_out,
            judged_in,
            exceptions_out,
            exceptions_in,
            answers_out,
            answers_in,
            leases_out,
            leases_in,
            tellers,
            watchers,
            to_post,
            post_in,
            to_dma,
            dma_in,
            to_ctxq,
            ctxq_in,
            to_egress,
            egress_in,
            requests_out,
            requests_in,
            descriptors_out,
            descriptors_in,
            back_out,
            back_in,
            host_out,
            host_in,
            raw_out,
            raw_in,
        }
    }
}
