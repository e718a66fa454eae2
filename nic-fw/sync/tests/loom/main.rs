//! All interleavings of two or three threads, judged by the oracle that the property tests use.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p toe-sync --test loom --release`
#![cfg(loom)]

mod inside;
#[path = "../memory/mod.rs"]
mod memory;
#[path = "../oracle/mod.rs"]
mod oracle;
mod records;
mod shared;

/// Every interleaving.
fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 20_000;
    builder.check(f);
}
