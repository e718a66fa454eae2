//! The networks: what is said of each is its line, the buffers of both ends, and how long it is used.

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub group: &'static str,
    /// Words for [`toe_netem::Knobs`], the same both ways.
    pub line: &'static str,
    /// Of sending and receiving buffers, bytes as a power of two.
    pub buffer_log2: u8,
    /// Virtual time.
    pub ms: u64,
    pub cc: Cc,
}

/// Congestion control of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cc {
    Cubic,
    /// With ECN.
    CubicEcn,
    CubicPaced,
    Dctcp,
}

const fn row(group: &'static str, line: &'static str, buffer_log2: u8, ms: u64) -> Row {
    Row { group, line, buffer_log2, ms, cc: Cc::Cubic }
}

const fn paced(line: &'static str, buffer_log2: u8, ms: u64) -> Row {
    Row { group: "pacing", line, buffer_log2, ms, cc: Cc::CubicPaced }
}

const fn ecn(line: &'static str, ms: u64, cc: Cc) -> Row {
    Row { group: "CE marks", line, buffer_log2: 20, ms, cc }
}

pub const ROWS: &[Row] = &[
    row("rates", "rate=1mbit,delay=50ms", 18, 60_000),
    row("rates", "rate=10mbit,delay=20ms", 20, 20_000),
    row("rates", "rate=100mbit,delay=10ms", 20, 4_000),
    row("rates", "rate=1gbit,delay=1ms", 20, 400),
    row("rates", "rate=10gbit,delay=50us", 20, 40),
    row("rates", "rate=100gbit,delay=10us", 20, 4),
    row("delays", "rate=20mbit,delay=10us", 20, 10_000),
    row("delays", "rate=20mbit,delay=1ms", 20, 10_000),
    row("delays", "rate=20mbit,delay=50ms", 20, 20_000),
    row("delays", "rate=20mbit,delay=200ms", 21, 40_000),
    row("loss", "rate=100mbit,delay=10ms,loss=0.01%", 20, 8_000),
    row("loss", "rate=100mbit,delay=10ms,loss=0.1%", 20, 8_000),
    row("loss", "rate=100mbit,delay=10ms,loss=0.5%", 20, 10_000),
    row("loss", "rate=100mbit,delay=10ms,loss=1%", 20, 20_000),
    row("loss", "rate=100mbit,delay=10ms,loss=2%", 20, 20_000),
    row("loss", "rate=100mbit,delay=10ms,loss=5%", 20, 40_000),
    row("loss", "rate=100mbit,delay=10ms,loss=10%", 20, 60_000),
    row("loss", "rate=10gbit,delay=50us,loss=0.1%", 20, 40),
    row("loss", "rate=10gbit,delay=50us,loss=1%", 20, 100),
    row("loss", "rate=10gbit,delay=50us,loss=5%", 20, 1_000),
    row("loss", "rate=10mbit,delay=100ms,loss=1%", 20, 120_000),
    row("bursts of loss", "rate=100mbit,delay=10ms,burst=0.02%:5", 20, 10_000),
    row("bursts of loss", "rate=100mbit,delay=10ms,burst=0.1%:10", 20, 20_000),
    row("bursts of loss", "rate=100mbit,delay=10ms,burst=0.02%:50", 20, 20_000),
    row("bursts of loss", "rate=10gbit,delay=50us,burst=0.1%:10", 20, 200),
    row("reordering", "rate=100mbit,delay=10ms,reorder=1%:1ms", 20, 4_000),
    row("reordering", "rate=100mbit,delay=10ms,reorder=1%:10ms", 20, 4_000),
    row("reordering", "rate=100mbit,delay=10ms,reorder=10%:5ms", 20, 4_000),
    row("reordering", "rate=100mbit,delay=10ms,jitter=1ms", 20, 4_000),
    row("reordering", "rate=100mbit,delay=10ms,jitter=10ms", 20, 4_000),
    row("reordering", "rate=10gbit,delay=50us,reorder=1%:50us", 20, 40),
    row("duplication, corruption", "rate=100mbit,delay=10ms,dup=1%", 20, 4_000),
    row("duplication, corruption", "rate=100mbit,delay=10ms,dup=20%", 20, 4_000),
    row("duplication, corruption", "rate=100mbit,delay=10ms,corrupt=1%", 20, 20_000),
    row("all at once", "rate=100mbit,delay=10ms,loss=1%,dup=1%,corrupt=0.5%,reorder=1%:5ms", 20, 20_000),
    row("queues", "rate=100mbit,delay=10ms,queue=15k", 20, 8_000),
    row("queues", "rate=100mbit,delay=10ms,queue=64k", 20, 8_000),
    row("queues", "rate=100mbit,delay=10ms,queue=500k", 20, 8_000),
    row("queues", "rate=100mbit,delay=10ms,queue=4m", 22, 8_000),
    row("buffers", "rate=100mbit,delay=10ms", 15, 2_000),
    row("buffers", "rate=100mbit,delay=10ms", 17, 2_000),
    row("buffers", "rate=100mbit,delay=10ms", 18, 2_000),
    row("buffers", "rate=100mbit,delay=10ms,loss=0.1%", 18, 8_000),
    paced("rate=100mbit,delay=10ms,queue=15k", 20, 8_000),
    row("pacing", "rate=100mbit,delay=10ms,queue=30k", 20, 8_000),
    paced("rate=100mbit,delay=10ms,queue=30k", 20, 8_000),
    paced("rate=100mbit,delay=10ms,queue=64k", 20, 8_000),
    paced("rate=100mbit,delay=10ms", 20, 4_000),
    paced("rate=100mbit,delay=10ms,loss=0.1%", 20, 8_000),
    paced("rate=10mbit,delay=20ms", 20, 20_000),
    row("pacing", "rate=1gbit,delay=5ms,queue=100k", 22, 8_000),
    paced("rate=1gbit,delay=5ms,queue=100k", 22, 8_000),
    paced("rate=10gbit,delay=50us", 20, 40),
    ecn("rate=100mbit,delay=10ms,mark=64k", 8_000, Cc::CubicEcn),
    ecn("rate=10gbit,delay=50us,queue=1m,mark=90k", 100, Cc::CubicEcn),
    ecn("rate=10gbit,delay=50us,queue=1m,mark=90k", 100, Cc::Dctcp),
];
