//! Builds the instances of a placement, and gives each its ends of the links.

use super::{
    Pipeline,
    actors::{CtxqActor, DmaActor, EgressActor, EgressOuts, IngressActor, PostActor, PreActor, ProtocolActor, Route, RxOrder},
    core::{Core, CoreParts, Instance, Seat},
    links::Outs,
    observe,
    placement::{Placement, StageId},
    trace::Traces,
    wiring::{Links, Wiring, all, take},
};
use crate::{
    CardConfig,
    counters::CounterSums,
    dma::Dma,
    egress::Egress,
    flows::{Directory, Groups, States},
    host::{Host, HostParts, Observed},
    ingress::Ingress,
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
use toe_hal::{Board, HostMemory, Parts, PortCaps, RxPort, TxPort};
use toe_sync::{crew::Crew, epoch, share::Shares};
use toe_tcp::Pools;

/// See [`Pipeline::new`].
pub fn build<B: Board>(config: &CardConfig, placement: &Placement, parts: Parts<B>) -> Pipeline<B> {
    let Parts { memory, rx, tx, kick, clock } = parts;
    let mut builder = Builder::<B>::new(config, placement, memory, rx.frames(), tx.caps());
    builder.ingress(rx);
    builder.pre();
    builder.protocol();
    builder.post();
    builder.dma();
    builder.egress(tx);
    builder.finish(kick, clock)
}

/// What instances are made of and share.
struct Builder<'a, B: Board> {
    config: &'a CardConfig,
    links: Links<'a>,
    wiring: Wiring,
    memory: B::Memory,
    frames: <B::Rx as RxPort>::Frames,
    caps: PortCaps,
    groups: Groups,
    directory: Directory,
    tables: Tables,
    shares: Shares,
    sums: CounterSums,
    crew: Crew,
    instances: observe::Board,
    seats: Vec<Vec<Seat<B>>>,
    /// Messages of a group that can be out.
    pool: u16,
    /// Numbers of a group that can be out.
    window: u32,
}

impl<'a, B: Board> Builder<'a, B> {
    fn new(config: &'a CardConfig, placement: &'a Placement, memory: B::Memory, frames: <B::Rx as RxPort>::Frames, caps: PortCaps) -> Self {
        let links = Links::new(placement, config.ring_entries);
        let groups = Groups::new(links.count(stage::PROTOCOL));
        let crew = Crew::new(placement.cores().len());
        Self {
            config,
            wiring: Wiring::new(&links),
            links,
            memory,
            frames,
            caps,
            groups,
            directory: Directory::new(config.max_flows(), groups, config.hash_key),
            tables: Tables::new(config.max_regions, config.max_next_hops, config.max_addresses),
            shares: Shares::new(config.max_regions),
            sums: CounterSums::default(),
            instances: observe::Board::of(crew.clone()),
            crew,
            seats: placement.cores().iter().map(|_| Vec::new()).collect(),
            pool: Pool::new(config.pool_messages).size(),
            window: u32::from(config.rx_window.max(1)).next_power_of_two(),
        }
    }

    fn seat(&mut self, kind: u16, number: u16, instance: Instance<B>) {
        let (id, core) = (StageId::new(kind, number), self.links.core(kind, number));
        let meter = self.instances.add(id, core, self.links.cpu(core));
        self.seats[core].push(Seat { id, instance, meter });
    }

    fn ingress(&mut self, rx: B::Rx) {
        let watchers = core::mem::take(&mut self.wiring.watchers).into_iter();
        let (view, counters) = (self.directory.view(), self.sums.stage());
        let actor = IngressActor {
            stage: Ingress::new(rx, view, self.window, self.config.rx_hold, watchers, counters),
            leases: take(&mut self.wiring.leases_in),
            pre: all(take(&mut self.wiring.steered_out)),
        };
        self.seat(stage::INGRESS, 0, Instance::Ingress(Box::new(actor)));
    }

    fn pre(&mut self) {
        for i in 0..self.links.count(stage::PRE) {
            let counters = self.sums.stage();
            let wiring = &mut self.wiring;
            let actor = PreActor {
                stage: Pre::new(self.caps.mac, self.directory.view(), self.tables.addresses(), counters),
                frames: self.frames.clone(),
                groups: self.groups,
                frames_in: take(&mut wiring.steered_in).take_one(),
                protocol: take(&mut wiring.judged_out).into(),
                exceptions: take(&mut take(&mut wiring.exceptions_out)),
                answers: take(&mut take(&mut wiring.answers_out)),
                leases: take(&mut take(&mut wiring.leases_out)),
                hand: None,
            };
            self.seat(stage::PRE, i, Instance::Pre(Box::new(actor)));
        }
    }

    /// Links to all that comes after; with post, or from post.
    fn route(&mut self, with_post: bool) -> Route {
        let wiring = &mut self.wiring;
        Route {
            post: if with_post { all(take(&mut wiring.to_post)) } else { Outs::default() },
            dma: all(take(&mut wiring.to_dma)),
            ctxq: take(&mut take(&mut wiring.to_ctxq)),
            egress: take(&mut take(&mut wiring.to_egress)),
            hand: None,
        }
    }

    fn protocol(&mut self) {
        let flows = self.directory.capacity();
        for g in self.groups.all() {
            let states = States::new(flows, self.groups, g);
            let sched = Sched::new(self.groups.share(flows) as usize, self.config.quantum_bytes, self.shares.clone());
            let pool = Pool::new(self.config.pool_messages);
            let pools = Pools::new(self.config.tcp_records / u32::from(self.groups.count()), self.config.max_regions);
            let route = self.route(true);
            let ingress = self.links.core(stage::INGRESS, 0);
            let wiring = &mut self.wiring;
            let order = RxOrder::new(take(&mut wiring.judged_in), self.window, B::ORDER, take(&mut wiring.tellers), ingress);
            let actor = ProtocolActor {
                stage: Protocol::new((states, pools), sched, pool, self.sums.stage(), tso_max(&self.caps)),
                rx: order,
                requests: take(&mut wiring.requests_in),
                descriptors: take(&mut wiring.descriptors_in),
                back: take(&mut wiring.back_in),
                route,
                poisoned: VecDeque::with_capacity(self.pool.into()),
                turn: 0,
            };
            self.seat(stage::PROTOCOL, g, Instance::Protocol(Box::new(actor)));
        }
    }

    fn post(&mut self) {
        for i in 0..self.links.count(stage::POST) {
            let (memory, counters) = (self.memory.handle(), self.sums.stage());
            let stage = Post::new(self.caps, self.directory.view(), self.tables.next_hops(), memory, counters);
            let actor = PostActor { stage, messages: take(&mut self.wiring.post_in), route: self.route(false) };
            self.seat(stage::POST, i, Instance::Post(Box::new(actor)));
        }
    }

    fn dma(&mut self) {
        for i in 0..self.links.count(stage::DMA) {
            let stage = Dma::new(self.config.dma_entries, self.memory.handle(), self.frames.clone());
            let (messages, egress) = (take(&mut self.wiring.dma_in), take(&mut take(&mut self.wiring.to_egress)));
            self.seat(stage::DMA, i, Instance::Dma(Box::new(DmaActor { stage, messages, egress, hand: None })));
        }
    }

    fn egress(&mut self, tx: B::Tx) {
        let (memory, view, flows) = (self.memory.handle(), self.directory.view(), self.directory.capacity());
        let counters = self.sums.stage();
        let wiring = &mut self.wiring;
        let leases = take(&mut take(&mut wiring.leases_out));
        let backs = core::mem::take(&mut wiring.back_out).into_iter();
        let actor = EgressActor {
            stage: Egress::new(tx, memory, view, self.pool, flows, B::ORDER, counters),
            messages: take(&mut wiring.egress_in),
            answers: take(&mut wiring.answers_in),
            control: take(&mut wiring.raw_in),
            control_hand: None,
            again_at: None,
            outs: EgressOuts::new(take(&mut wiring.host_out), leases, backs, self.groups),
        };
        self.seat(stage::EGRESS, 0, Instance::Egress(Box::new(actor)));
    }

    /// The ctxq stage, which has the rest, and the cores.
    fn finish(mut self, kick: B::Kick, clock: B::Clock) -> Pipeline<B> {
        let core = self.links.core(stage::CTXQ, 0);
        let id = StageId::new(stage::CTXQ, 0);
        let meter = self.instances.add(id, core, self.links.cpu(core));
        let (traces, tracers) = Traces::new(self.seats.len());
        let Self { config, links, mut wiring, memory, frames, caps, directory, tables, shares, sums, crew, instances, mut seats, .. } =
            self;
        let parts = HostParts { memory, kick, frames, caps, clock: clock.clone() };
        let actor = CtxqActor {
            stage: Host::new(config, parts, directory, tables, sums, Observed { instances, traces, shares }),
            from_egress: take(&mut wiring.host_in),
            exceptions: take(&mut wiring.exceptions_in),
            injected: take(&mut wiring.ctxq_in),
            requests: wiring.requests_out.into(),
            descriptors: wiring.descriptors_out.into(),
            egress: take(&mut take(&mut wiring.to_egress)),
            raw: take(&mut wiring.raw_out),
            leases: take(&mut take(&mut wiring.leases_out)),
            hand: None,
        };
        seats[core].push(Seat { id, instance: Instance::Ctxq(Box::new(actor)), meter });
        let (reclaimer, participants) = epoch::domain(seats.len());
        let shared = participants.into_iter().zip(tracers);
        let cores = seats.into_iter().zip(shared).enumerate().map(|(i, (seats, (participant, tracer)))| {
            Core::new(i, links.cpu(i), seats, CoreParts { crew: crew.clone(), participant, clock: clock.clone(), tracer })
        });
        Pipeline { cores: cores.collect(), reclaimer }
    }
}
