//! All interleavings of two or three threads, judged by the oracle that the property tests use.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p toe-sync --test loom --release`
#![cfg(loom)]

mod crew;
mod ending;
mod inside;
#[path = "../memory/mod.rs"]
mod memory;
#[path = "../oracle/mod.rs"]
mod oracle;
mod records;
mod shared;

/// Every interleaving.
fn model(f: impl Fn() + Sync + Send + 'static) {
    bounded(None, f);
}

/// Every interleaving in which a thread is interrupted at most so many times before it would have had to wait.
fn bounded(preemptions: Option<usize>, f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 20_000;
    builder.preemption_bound = preemptions;
    builder.check(f);
}
