//! What a line is like, as a value and as text.

use std::str::FromStr;

use thiserror::Error;

/// Frames of a million.
pub type Ppm = u32;

/// One direction of a network. The default does nothing to frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Knobs {
    /// Of the bottleneck, bit/s of whole frames; 0: none.
    pub rate: u64,
    /// Bytes that may wait at the bottleneck; a frame that would be more is dropped.
    pub queue: u64,
    /// Bytes waiting from which on frames of an ECN-capable transport are marked (RFC 3168, 5: CE); 0: never.
    pub mark: u64,
    /// Of every frame.
    pub delay_ns: u64,
    /// At most added to it at random, for each frame by itself, which reorders.
    pub jitter_ns: u64,
    /// Single frames lost.
    pub loss: Ppm,
    /// Losses in bursts (Gilbert's model): chance that one begins, and its mean length in frames.
    pub burst: Ppm,
    pub burst_len: u32,
    /// Frames that come twice.
    pub duplicate: Ppm,
    /// Frames with a bit flipped.
    pub corrupt: Ppm,
    /// Frames that take longer than the others, and by how much: those behind overtake them.
    pub reorder: Ppm,
    pub late_ns: u64,
}

/// Bytes that a bottleneck's queue has room for at least, if nothing is said: some twenty full frames.
const QUEUE_MIN: u64 = 32 * 1024;

impl Knobs {
    /// The same without faults: rate, queue and delay stay.
    pub fn healed(self) -> Self {
        let Knobs { rate, queue, mark, delay_ns, .. } = self;
        Knobs { rate, queue, mark, delay_ns, ..Knobs::default() }
    }

    /// Bytes under way that fill a round trip over two such lines.
    pub fn bdp(&self) -> u64 {
        u64::try_from(u128::from(self.rate) * 2 * u128::from(self.delay_ns) / 8_000_000_000).unwrap_or(u64::MAX)
    }

    /// Share of frames that do not arrive, queue apart.
    pub fn lost_share(&self) -> f64 {
        let share = |ppm: Ppm| f64::from(ppm) / 1e6;
        let bad = share(self.burst) / (share(self.burst) + 1.0 / f64::from(self.burst_len.max(1)));
        1.0 - (1.0 - share(self.loss)) * (1.0 - bad) * (1.0 - share(self.corrupt))
    }
}

/// What is wrong with a word of a specification.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("`{word}`: {wanted}")]
pub struct Wrong {
    pub word: String,
    pub wanted: &'static str,
}

const WORDS: &str =
    "there are rate=100mbit queue=64k mark=16k delay=10ms jitter=1ms loss=1% burst=0.1%:10 dup=1% corrupt=1% reorder=1%:5ms";

impl FromStr for Knobs {
    type Err = Wrong;

    /// Words after commas; a queue that is not given is one bandwidth-delay product.
    fn from_str(text: &str) -> Result<Self, Wrong> {
        let mut knobs = Knobs::default();
        let mut queue = None;
        for word in text.split(',').filter(|word| !word.is_empty()) {
            let wrong = || Wrong { word: word.to_owned(), wanted: WORDS };
            let (key, value) = word.split_once('=').ok_or_else(wrong)?;
            let (first, second) = value.split_once(':').map_or((value, None), |(a, b)| (a, Some(b)));
            let known = match (key, second) {
                ("rate", None) => rate(first).map(|n| knobs.rate = n),
                ("queue", None) => bytes(first).map(|n| queue = Some(n)),
                ("mark", None) => bytes(first).map(|n| knobs.mark = n),
                ("delay", None) => time(first).map(|n| knobs.delay_ns = n),
                ("jitter", None) => time(first).map(|n| knobs.jitter_ns = n),
                ("loss", None) => share(first).map(|n| knobs.loss = n),
                ("dup", None) => share(first).map(|n| knobs.duplicate = n),
                ("corrupt", None) => share(first).map(|n| knobs.corrupt = n),
                ("burst", Some(len)) => share(first).zip(len.parse().ok()).map(|both| (knobs.burst, knobs.burst_len) = both),
                ("reorder", Some(late)) => share(first).zip(time(late)).map(|both| (knobs.reorder, knobs.late_ns) = both),
                _ => None,
            };
            known.ok_or_else(wrong)?;
        }
        knobs.queue = queue.unwrap_or_else(|| knobs.bdp().max(QUEUE_MIN));
        Ok(knobs)
    }
}

/// A number before one of these units, in the smallest; at most 2^53, so that it is exact.
fn scaled(text: &str, units: &[(&str, f64)]) -> Option<u64> {
    let (number, scale) = units.iter().find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, scale)))?;
    let value = number.parse::<f64>().ok()? * scale;
    (value.is_finite() && (0.0..9e15).contains(&value)).then_some(value.round() as u64)
}

fn rate(text: &str) -> Option<u64> {
    scaled(text, &[("gbit", 1e9), ("mbit", 1e6), ("kbit", 1e3)])
}

fn time(text: &str) -> Option<u64> {
    scaled(text, &[("us", 1e3), ("ms", 1e6), ("ns", 1.0), ("s", 1e9)])
}

fn bytes(text: &str) -> Option<u64> {
    scaled(text, &[("k", 1024.0), ("m", 1024.0 * 1024.0), ("", 1.0)])
}

fn share(text: &str) -> Option<Ppm> {
    let ppm = scaled(text, &[("%", 1e4)])?;
    u32::try_from(ppm).ok().filter(|ppm| *ppm <= 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read() {
        let text = "rate=2.5gbit,queue=64k,mark=1m,delay=10ms,jitter=50us,loss=0.5%,burst=1%:8,dup=2%,corrupt=3%,reorder=4%:1s";
        let wanted = Knobs {
            rate: 2_500_000_000,
            queue: 65_536,
            mark: 1 << 20,
            delay_ns: 10_000_000,
            jitter_ns: 50_000,
            loss: 5_000,
            burst: 10_000,
            burst_len: 8,
            duplicate: 20_000,
            corrupt: 30_000,
            reorder: 40_000,
            late_ns: 1_000_000_000,
        };
        assert_eq!(text.parse(), Ok(wanted));
    }

    #[test]
    fn a_queue_that_is_not_given_is_one_round_trip() {
        assert_eq!("rate=100mbit,delay=10ms".parse::<Knobs>().unwrap().queue, 250_000);
        assert_eq!("rate=1mbit,delay=1ms".parse::<Knobs>().unwrap().queue, QUEUE_MIN);
    }

    #[test]
    fn other_words_are_refused_by_name() {
        for word in
            ["rate", "rate=1", "rate=-1mbit", "loss=101%", "loss=1", "burst=1%", "loss=1%:2", "delay=1e300s", "speed=1mbit", "loss=nan%"]
        {
            let error = format!("delay=1ms,{word}").parse::<Knobs>().unwrap_err();
            assert_eq!(error.word, word);
        }
    }

    #[test]
    fn bursts_count_by_their_length() {
        let knobs = "burst=1%:10".parse::<Knobs>().unwrap();
        assert!((knobs.lost_share() - 0.01 / 0.11).abs() < 1e-9);
    }
}
