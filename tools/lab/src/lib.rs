//! A laboratory for FerroTOE on one machine: hosts as network namespaces, programs with
//! deadlines, cards and servers to talk to. The end-to-end tests and `cargo xtask demo` share it.
//!
//! ```text
//!   tests/e2e_*.rs ─┐                     ┌─► namespaces   hosts, veth pairs
//!   toe-networks ───┼─► instance, servers ┼─► job          run, wait, kill
//!   xtask demo ─────┘   wired             └─► programs, proc, books
//! ```
//!
//! May depend on: nothing of ours. It knows our programs only as an operator does, by their
//! command lines, so that it builds and works whatever state they are in.
#![forbid(unsafe_code)]

pub mod books;
pub mod instance;
pub mod job;
pub mod namespaces;
pub mod proc;
pub mod programs;
pub mod qemu;
pub mod servers;
pub mod spread;
pub mod wired;

pub use books::Books;
pub use instance::{CARD_IF, CARD_IP, Card, PEER_IF, PEER_IP, Pair, Place, UP_ENV};
pub use job::{Finished, Job};
pub use namespaces::{Host, Lab};
pub use wired::Wired;
