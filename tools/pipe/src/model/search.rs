//! The best placement for a number of cores: seeds from many numbers of replicas, the best of them improved by moves and swaps.

use clap::ValueEnum;
use toe_abi::observe::stage;
use toe_datapath::Placement;

use super::layout::Layout;
use super::{AppPlace, Mix, Model};
use crate::measure::points::STAGES;

/// Numbers of replicas that are tried.
const REPLICAS: [u16; 8] = [1, 2, 3, 4, 6, 8, 12, 16];
/// Seeds that are improved.
const SEEDS: usize = 16;
/// Less is not an improvement.
const GAIN: f64 = 1e-6;
/// As good as the best: the one with fewest cores and instances is taken of those.
const AS_GOOD: f64 = 1e-3;

/// What the best placement is best for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Objective {
    /// One connection.
    One,
    /// Many connections.
    Many,
    /// Both alike.
    Both,
}

impl Objective {
    fn wants(self, mix: &Mix) -> bool {
        match self {
            Objective::One => mix.connections == 1,
            Objective::Many => mix.connections > 1,
            Objective::Both => true,
        }
    }
}

struct Search<'a> {
    model: &'a Model,
    mixes: Vec<&'a Mix>,
    scratch: Vec<f64>,
}

/// The best placement on so many cores that was found: the one with the best geometric mean of the speed-ups of all loads.
pub fn best(model: &Model, cores: usize, objective: Objective) -> Option<Placement> {
    let mixes: Vec<&Mix> = model.mixes.iter().filter(|mix| objective.wants(mix)).collect();
    if mixes.is_empty() {
        return None;
    }
    let mut search = Search { model, mixes, scratch: Vec::new() };
    let mut seeds: Vec<(f64, Layout)> = seeds(&search, cores).into_iter().map(|layout| (search.score(&layout), layout)).collect();
    seeds.sort_by(|a, b| b.0.total_cmp(&a.0));
    seeds.dedup_by(|a, b| a.1 == b.1);
    let found: Vec<(f64, Layout)> = seeds.into_iter().take(SEEDS).map(|(score, layout)| search.polished(score, layout)).collect();
    let most = found.iter().map(|(score, _)| *score).fold(f64::NEG_INFINITY, f64::max);
    let as_good = found.into_iter().filter(|(score, _)| *score >= most - AS_GOOD).map(|(_, layout)| layout);
    as_good.min_by_key(|layout| (layout.busy_cores(), layout.all().len()))?.placement().ok()
}

fn seeds(search: &Search, cores: usize) -> Vec<Layout> {
    let tried: Vec<u16> = REPLICAS.into_iter().filter(|&n| usize::from(n) <= cores).collect();
    let mut seeds: Vec<Layout> = (1..=cores).map(|n| Layout::of(&Placement::auto(n)).widened(cores)).collect();
    for &pre in &tried {
        for &groups in &tried {
            for &post in &tried {
                for &dma in &tried {
                    let mut counts = [1; STAGES];
                    for (kind, n) in [(stage::PRE, pre), (stage::PROTOCOL, groups), (stage::POST, post), (stage::DMA, dma)] {
                        counts[usize::from(kind)] = n;
                    }
                    seeds.push(search.levelled(counts, cores));
                }
            }
        }
    }
    seeds
}

impl Search<'_> {
    /// The sum of the logarithms of the speed-ups.
    fn score(&mut self, layout: &Layout) -> f64 {
        let (model, scratch) = (self.model, &mut self.scratch);
        let speed_up = |mix: &&Mix| mix.fused_alone_ns() / model.predict_layout(layout, mix, AppPlace::Apart, scratch).ns;
        self.mixes.iter().map(speed_up).map(f64::ln).sum()
    }

    /// The heaviest instance first, each to the core that has least so far.
    fn levelled(&self, counts: [u16; STAGES], cores: usize) -> Layout {
        let mut layout = Layout::new(counts, cores);
        let weight = |layout: &Layout, (kind, instance): (u16, u16)| {
            let part = |mix: &&Mix| mix.stage_ns[usize::from(kind)] * layout.share(kind, instance, mix.connections) / mix.fused_ns;
            self.mixes.iter().map(part).sum::<f64>()
        };
        let mut all: Vec<_> = layout.all().into_iter().map(|id| (weight(&layout, id), id)).collect();
        all.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut load = vec![0.0; cores];
        for (weight, id) in all {
            let least = (0..cores).min_by(|&a, &b| f64::total_cmp(&load[a], &load[b])).unwrap_or(0);
            load[least] += weight;
            layout.put(id, least);
        }
        layout
    }

    /// Improved, and without what brings nothing: cores that can do without, replicas that can be one.
    fn polished(&mut self, score: f64, layout: Layout) -> (f64, Layout) {
        let (score, mut layout) = self.improve(score, layout);
        while let Some(smaller) = self.smaller(score, &layout) {
            layout = smaller;
        }
        (score, layout)
    }

    /// The same with one core or one replica less, if that is as good.
    fn smaller(&mut self, score: f64, layout: &Layout) -> Option<Layout> {
        let merged = (0..layout.cores()).flat_map(|from| (0..layout.cores()).map(move |to| (from, to))).filter(|(from, to)| from != to);
        let merged = merged.filter_map(|(from, to)| layout.merged(from, to));
        let fewer = (0..stage::COUNT).filter_map(|kind| layout.without_last(kind));
        fewer.chain(merged).find(|smaller| self.score(smaller) >= score - AS_GOOD / 2.0)
    }

    /// Moves one instance, or swaps two, as long as that makes it better.
    fn improve(&mut self, mut score: f64, mut layout: Layout) -> (f64, Layout) {
        while let Some((better, next)) = self.best_move(score, &mut layout).or_else(|| self.best_swap(score, &mut layout)) {
            (score, layout) = (better, next);
        }
        (score, layout)
    }

    fn best_move(&mut self, score: f64, layout: &mut Layout) -> Option<(f64, Layout)> {
        let (mut best, mut found) = (score + GAIN, None);
        for id in layout.all() {
            let home = layout.core(id);
            for core in 0..layout.cores() {
                layout.put(id, core);
                let score = self.score(layout);
                if score > best {
                    (best, found) = (score, Some(layout.clone()));
                }
            }
            layout.put(id, home);
        }
        found.map(|layout| (best, layout))
    }

    fn best_swap(&mut self, score: f64, layout: &mut Layout) -> Option<(f64, Layout)> {
        let (mut best, mut found) = (score + GAIN, None);
        let all = layout.all();
        for (i, &a) in all.iter().enumerate() {
            for &b in &all[i + 1..] {
                let (core_a, core_b) = (layout.core(a), layout.core(b));
                if core_a == core_b {
                    continue;
                }
                layout.put(a, core_b);
                layout.put(b, core_a);
                let score = self.score(layout);
                if score > best {
                    (best, found) = (score, Some(layout.clone()));
                }
                layout.put(a, core_a);
                layout.put(b, core_b);
            }
        }
        found.map(|layout| (best, layout))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{mix, model};
    use super::*;

    fn found(model: &Model, cores: usize, objective: Objective) -> (Placement, f64) {
        let placement = best(model, cores, objective).unwrap();
        let ns = model.predict(&placement, &model.mixes[0], AppPlace::Apart).ns;
        (placement, ns)
    }

    #[test]
    fn a_dear_stage_is_replicated() {
        // 160 ns in all on four cores: 40 each at the best.
        let (placement, ns) = found(&model(vec![mix(stage::PRE, 1)], 0.0), 4, Objective::Both);
        assert!(placement.count(stage::PRE) >= 3, "{placement}");
        assert!(ns < 42.0, "{placement}: {ns}");
    }

    #[test]
    fn one_connection_cannot_use_more_than_one_protocol_stage() {
        let (placement, ns) = found(&model(vec![mix(stage::PROTOCOL, 1)], 0.0), 4, Objective::Both);
        assert_eq!(ns, 100.0, "{placement}");
        let (placement, ns) = found(&model(vec![mix(stage::PROTOCOL, 64)], 0.0), 4, Objective::Both);
        assert!(placement.count(stage::PROTOCOL) >= 3 && ns < 42.0, "{placement}: {ns}");
    }

    #[test]
    fn if_hops_cost_more_than_they_bring_one_core_is_best() {
        let (placement, _) = found(&model(vec![mix(stage::PRE, 1)], 1000.0), 4, Objective::Both);
        assert_eq!(placement.cores().len(), 1, "{placement}");
    }

    #[test]
    fn what_brings_nothing_is_left_out() {
        // One stage that can't be replicated, and all the others together cost less.
        let (placement, ns) = found(&model(vec![mix(stage::EGRESS, 64)], 0.0), 8, Objective::Both);
        assert_eq!((placement.to_string().as_str(), ns), ("core 0: egress; core 1: ingress pre.0 protocol.0 post.0 dma.0 ctxq", 100.0));
    }

    #[test]
    fn nothing_is_worse_than_the_automatic_placement() {
        let model = model(vec![mix(stage::PROTOCOL, 1), mix(stage::DMA, 64)], 4.0);
        for cores in 2..=6 {
            let mut search = Search { model: &model, mixes: model.mixes.iter().collect(), scratch: Vec::new() };
            let auto = search.score(&Layout::of(&Placement::auto(cores)));
            let best = best(&model, cores, Objective::Both).unwrap();
            assert!(search.score(&Layout::of(&best)) >= auto, "{cores} cores: {best}");
        }
    }

    #[test]
    fn what_is_not_wanted_does_not_count() {
        let model = model(vec![mix(stage::PROTOCOL, 1)], 0.0);
        assert!(best(&model, 4, Objective::Many).is_none());
        assert!(best(&model, 4, Objective::One).is_some());
    }
}
