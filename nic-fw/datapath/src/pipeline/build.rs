//! Builds the instances of a placement and the links between them.

use super::{
    Pipeline,
    actors::{CtxqActor, DmaActor, EgressActor, EgressOuts, IngressActor, PostActor, PreActor, ProtocolActor, Route, RxOrder},
    core::{Core, CoreParts, Instance, Seat},
    links::{In, Ins, Out, Outs, link},
    messages::{Back, Judged},
    observe,
    placement::{Placement, StageId},
    trace::Traces,
};
use crate::{
    CardConfig,
    counters::CounterSums,
    dma::Dma,
    egress::Egress,
    flows::{Directory, Groups, States},
    host::{Host, HostParts, Observed},
    ingress::{Ingress, Steered},
    msg::{ExceptionMsg, HcMsg, HostIn, OutMsg, RawFrame, Work},
    pool::Pool,
    post::Post,
    pre::Pre,
    protocol::Protocol,
    sched::Sched,
    tables::Tables,
    tso_max,
};
use alloc::{boxed::Box, collections::VecDeque, vec::Vec};
use toe_abi::observe::stage;
use toe_hal::{Board, HostMemory, Lease, Parts, RxPort, TxPort};
use toe_sync::{
    crew::Crew,
    epoch,
    progress::{Teller, Watcher, progress},
    share::Shares,
};

/// Both ends of links, by whom they belong to, until the instances take them.
struct Links<'a> {
    placement: &'a Placement,
    ring: u32,
}

impl Links<'_> {
    /// A link to an instance.
    fn to<T: Send>(&self, stage: u16, instance: u16) -> (Out<T>, In<T>) {
        link(self.ring, self.core(stage, instance))
    }

    fn core(&self, stage: u16, instance: u16) -> usize {
        // A placement has been checked: every instance has a core.
        self.placement.core_of(StageId::new(stage, instance)).unwrap_or(0)
    }

    fn count(&self, stage: u16) -> u16 {
        self.placement.count(stage)
    }

    /// Links from each of `from` instances to each instance of a stage: the sending ends by sender, the receiving ends by receiver.
    fn mesh<T: Send>(&self, from: u16, stage: u16) -> (VecDeque<VecDeque<Out<T>>>, VecDeque<Ins<T>>) {
        let mut outs: VecDeque<VecDeque<Out<T>>> = (0..from).map(|_| VecDeque::new()).collect();
        let mut all_ins = VecDeque::new();
        for instance in 0..self.count(stage) {
            let mut ins = Ins::default();
            for sender in &mut outs {
                let (out, receiver) = self.to(stage, instance);
                sender.push_back(out);
                ins.add(receiver);
            }
            all_ins.push_back(ins);
        }
        (outs, all_ins)
    }
}

fn all<T: Send>(links: impl IntoIterator<Item = Out<T>>) -> Outs<T> {
    let mut outs = Outs::default();
    links.into_iter().for_each(|link| outs.add(link));
    outs
}

/// The next end, or a program error: every mesh has as many as were asked for.
fn take<T>(ends: &mut VecDeque<T>) -> T {
    ends.pop_front().unwrap_or_else(|| unreachable!("as many ends as instances"))
}

/// Everything that instances are made of and share.
struct Shared<B: Board> {
    memory: B::Memory,
    frames: <B::Rx as RxPort>::Frames,
    sums: CounterSums,
    board: observe::Board,
    directory: Directory,
    tables: Tables,
    flows: u32,
    pool: u16,
    window: u32,
}

/// See [`Pipeline::new`].
pub fn build<B: Board>(config: &CardConfig, placement: &Placement, parts: Parts<B>) -> Pipeline<B> {
    let Parts { memory, rx, tx, kick, clock } = parts;
    let caps = tx.caps();
    let links = Links { placement, ring: config.ring_entries.max(1) };
    let groups = Groups::new(links.count(stage::PROTOCOL));
    let directory = Directory::new(config.max_flows(), groups, config.hash_key);
    let shares = Shares::new(config.max_regions);
    let crew = Crew::new(placement.cores().len());
    let mut shared = Shared::<B> {
        frames: rx.frames(),
        sums: CounterSums::default(),
        board: observe::Board::of(crew.clone()),
        flows: directory.capacity(),
        directory,
        tables: Tables::new(config.max_regions, config.max_next_hops, config.max_addresses),
        pool: Pool::new(config.pool_messages).size(),
        window: u32::from(config.rx_window.max(1)).next_power_of_two(),
        memory,
    };
    let (n_pre, n_post, n_dma) = (links.count(stage::PRE), links.count(stage::POST), links.count(stage::DMA));
    let n_groups = groups.count();

    // Frames in.
    let (mut steered_out, mut steered_in) = links.mesh::<Steered>(1, stage::PRE);
    let (mut judged_out, mut judged_in) = links.mesh::<Judged>(n_pre, stage::PROTOCOL);
    let (mut exceptions_out, mut exceptions_in) = links.mesh::<ExceptionMsg>(n_pre, stage::CTXQ);
    let (mut answers_out, mut answers_in) = links.mesh::<RawFrame>(n_pre, stage::EGRESS);
    // Pre, egress and ctxq give leases back.
    let (mut leases_out, mut leases_in) = links.mesh::<Lease>(n_pre + 2, stage::INGRESS);
    // Messages out: from protocol, post, DMA and ctxq.
    let (mut to_post, mut post_in) = links.mesh::<Box<OutMsg>>(n_groups, stage::POST);
    let (mut to_dma, mut dma_in) = links.mesh::<Box<OutMsg>>(n_groups + n_post, stage::DMA);
    let (mut to_ctxq, mut ctxq_in) = links.mesh::<Box<OutMsg>>(n_groups + n_post, stage::CTXQ);
    let (mut to_egress, mut egress_in) = links.mesh::<Box<OutMsg>>(n_groups + n_post + n_dma + 1, stage::EGRESS);
    // The control plane's side, and what comes back.
    let mut requests: VecDeque<(Out<Work>, In<Work>)> = (0..n_groups).map(|g| links.to(stage::PROTOCOL, g)).collect();
    let mut descriptors: VecDeque<(Out<HcMsg>, In<HcMsg>)> = (0..n_groups).map(|g| links.to(stage::PROTOCOL, g)).collect();
    let mut backs: VecDeque<(Out<Back>, In<Back>)> = (0..n_groups).map(|g| links.to(stage::PROTOCOL, g)).collect();
    let (host_out, host_in) = links.to::<HostIn>(stage::CTXQ, 0);
    let (raw_out, raw_in) = links.to::<RawFrame>(stage::EGRESS, 0);
    let (tellers, watchers): (VecDeque<Teller>, Vec<Watcher>) = (0..n_groups).map(|_| progress()).unzip();
    let mut tellers = tellers;

    let mut seats: Vec<Vec<Seat<B>>> = placement.cores().iter().map(|_| Vec::new()).collect();
    let mut seat = |shared: &mut Shared<B>, stage: u16, instance: u16, actor: Instance<B>| {
        let (id, core) = (StageId::new(stage, instance), links.core(stage, instance));
        let meter = shared.board.add(id, core, placement.cores()[core].cpu);
        seats[core].push(Seat { id, instance: actor, meter });
    };

    let ingress = IngressActor {
        stage: Ingress::new(rx, shared.directory.view(), shared.window, config.rx_hold, watchers.into_iter(), shared.sums.stage()),
        leases: take(&mut leases_in),
        pre: all(take(&mut steered_out)),
    };
    seat(&mut shared, stage::INGRESS, 0, Instance::Ingress(Box::new(ingress)));
    for i in 0..n_pre {
        let mut frames_in = take(&mut steered_in);
        let actor = PreActor {
            stage: Pre::new(caps.mac, shared.directory.view(), shared.tables.addresses(), shared.sums.stage()),
            frames: shared.frames.clone(),
            groups,
            frames_in: frames_in.take_one(),
            protocol: take(&mut judged_out).into(),
            exceptions: take(&mut take(&mut exceptions_out)),
            answers: take(&mut take(&mut answers_out)),
            leases: take(&mut take(&mut leases_out)),
            hand: None,
        };
        seat(&mut shared, stage::PRE, i, Instance::Pre(Box::new(actor)));
    }
    let mut route = || Route {
        post: Outs::default(),
        dma: all(take(&mut to_dma)),
        ctxq: take(&mut take(&mut to_ctxq)),
        egress: take(&mut take(&mut to_egress)),
        hand: None,
    };
    let mut request_outs = Vec::new();
    let mut descriptor_outs = Vec::new();
    let mut back_outs = Vec::new();
    for g in 0..n_groups {
        let states = States::new(shared.flows, groups, g);
        let sched = Sched::new(groups.share(shared.flows) as usize, config.quantum_bytes, shares.clone());
        let pool = Pool::new(config.pool_messages);
        let (request_out, request_in) = take(&mut requests);
        let (descriptor_out, descriptor_in) = take(&mut descriptors);
        let (back_out, back_in) = take(&mut backs);
        request_outs.push(request_out);
        descriptor_outs.push(descriptor_out);
        back_outs.push(back_out);
        let order = RxOrder::new(take(&mut judged_in), shared.window, B::ORDER, take(&mut tellers), links.core(stage::INGRESS, 0));
        let actor = ProtocolActor {
            stage: Protocol::new(states, sched, pool, shared.sums.stage(), tso_max(&caps)),
            rx: order,
            requests: request_in,
            descriptors: descriptor_in,
            back: back_in,
            route: Route { post: all(take(&mut to_post)), ..route() },
            poisoned: VecDeque::with_capacity(shared.pool.into()),
        };
        seat(&mut shared, stage::PROTOCOL, g, Instance::Protocol(Box::new(actor)));
    }
    for i in 0..n_post {
        let stage = Post::new(caps, shared.directory.view(), shared.tables.next_hops(), shared.memory.handle(), shared.sums.stage());
        let actor = PostActor { stage, messages: take(&mut post_in), route: route() };
        seat(&mut shared, stage::POST, i, Instance::Post(Box::new(actor)));
    }
    for i in 0..n_dma {
        let stage = Dma::new(config.dma_entries, shared.memory.handle(), shared.frames.clone());
        let actor = DmaActor { stage, messages: take(&mut dma_in), egress: take(&mut take(&mut to_egress)), hand: None };
        seat(&mut shared, stage::DMA, i, Instance::Dma(Box::new(actor)));
    }
    let view = shared.directory.view();
    let egress = EgressActor {
        stage: Egress::new(tx, shared.memory.handle(), view, shared.pool, shared.flows, B::ORDER, shared.sums.stage()),
        messages: take(&mut egress_in),
        answers: take(&mut answers_in),
        control: raw_in,
        control_hand: None,
        outs: EgressOuts::new(host_out, take(&mut take(&mut leases_out)), back_outs.into_iter(), groups),
    };
    seat(&mut shared, stage::EGRESS, 0, Instance::Egress(Box::new(egress)));

    let meter_ctxq =
        shared.board.add(StageId::new(stage::CTXQ, 0), links.core(stage::CTXQ, 0), placement.cores()[links.core(stage::CTXQ, 0)].cpu);
    let (traces, tracers) = Traces::new(placement.cores().len());
    let observed = Observed { instances: shared.board, traces, shares };
    let parts = HostParts { memory: shared.memory, kick, frames: shared.frames, caps, clock: clock.clone() };
    let ctxq = CtxqActor {
        stage: Host::new(config, parts, shared.directory, shared.tables, shared.sums, observed),
        from_egress: host_in,
        exceptions: take(&mut exceptions_in),
        injected: take(&mut ctxq_in),
        requests: request_outs,
        descriptors: descriptor_outs,
        egress: take(&mut take(&mut to_egress)),
        raw: raw_out,
        leases: take(&mut take(&mut leases_out)),
        hand: None,
    };
    seats[links.core(stage::CTXQ, 0)].push(Seat {
        id: StageId::new(stage::CTXQ, 0),
        instance: Instance::Ctxq(Box::new(ctxq)),
        meter: meter_ctxq,
    });

    let (reclaimer, participants) = epoch::domain(placement.cores().len());
    let plans = placement.cores().iter();
    let cores = seats.into_iter().zip(plans).zip(participants.into_iter().zip(tracers)).enumerate();
    let cores = cores.map(|(i, ((seats, plan), (participant, tracer)))| {
        Core::new(i, plan.cpu, seats, CoreParts { crew: crew.clone(), participant, clock: clock.clone(), tracer })
    });
    Pipeline { cores: cores.collect(), reclaimer }
}
