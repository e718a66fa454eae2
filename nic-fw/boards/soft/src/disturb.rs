//! Disturbs the cores on purpose, for tests: delays before each step of a stage, and the death of a stage. A race that a quiet machine hides
//! for ever shows, and so does what becomes of a card that has lost a core.

use std::str::FromStr;
use std::time::Duration;
use toe_datapath::pipeline::StageId;

/// What `--disturb` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disturb {
    pub seed: u64,
    /// One step in so many is delayed; 0: none.
    pub delay: u32,
    /// Longest delay, microseconds.
    pub delay_us: u64,
    /// The stage that panics, and before which of its steps.
    pub die: Option<(StageId, u64)>,
}

impl FromStr for Disturb {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut out = Self { seed: 1, delay: 64, delay_us: 200, die: None };
        let mut after = 0;
        for part in text.split(',').filter(|p| !p.is_empty()) {
            let (name, value) = part.split_once('=').ok_or_else(|| format!("`{part}` is not name=value"))?;
            let bad = |_| format!("`{part}`: expected a number");
            match name {
                "seed" => out.seed = value.parse().map_err(bad)?,
                "delay" => out.delay = value.parse().map_err(bad)?,
                "delay_us" => out.delay_us = value.parse().map_err(bad)?,
                "die" => out.die = Some((StageId::parse(value).map_err(|e| e.to_string())?, 0)),
                "after" => after = value.parse().map_err(bad)?,
                _ => return Err(format!("unknown disturbance `{name}`; there are: seed, delay, delay_us, die, after")),
            }
        }
        out.die = out.die.map(|(stage, _)| (stage, after));
        Ok(out)
    }
}

/// One core's share of it.
#[derive(Debug)]
pub struct Disturbance {
    /// State of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators).
    state: u64,
    delay: u32,
    delay_us: u64,
    die: Option<(StageId, u64)>,
}

impl Disturbance {
    pub fn new(disturb: &Disturb, core: usize) -> Self {
        let state = disturb.seed ^ (core as u64).rotate_left(32);
        Self { state, delay: disturb.delay, delay_us: disturb.delay_us, die: disturb.die }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Before a step of `stage`.
    pub fn before(&mut self, stage: StageId) {
        if let Some((dying, left)) = &mut self.die
            && *dying == stage
        {
            assert!(*left > 0, "stage {stage} dies, as --disturb has it");
            *left -= 1;
        }
        if self.delay > 0 && self.next().is_multiple_of(self.delay.into()) {
            match self.next() % 4 {
                0..=2 => std::thread::yield_now(),
                _ => std::thread::sleep(Duration::from_micros(self.next() % self.delay_us.max(1))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use toe_abi::observe::stage;

    #[test]
    fn disturbances_are_parsed_or_refused() {
        let d: Disturb = "seed=7,delay=0,die=pre.1,after=1000".parse().unwrap();
        assert_eq!(d, Disturb { seed: 7, delay: 0, delay_us: 200, die: Some((StageId::new(stage::PRE, 1), 1000)) });
        for bad in ["seed", "seed=x", "die=foo", "color=red"] {
            assert!(bad.parse::<Disturb>().is_err(), "{bad}");
        }
    }

    #[test]
    #[should_panic(expected = "stage dma.0 dies")]
    fn a_stage_dies_when_it_is_told_to() {
        let mut d = Disturbance::new(&"delay=0,die=dma,after=2".parse().unwrap(), 0);
        (0..3).for_each(|_| d.before(StageId::new(stage::DMA, 0)));
    }
}
