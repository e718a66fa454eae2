//! The C header of the card's ABI, for firmware written in C (NFP Micro-C) and for anyone who talks to a card from C.
//!
//! ```text
//!   toe_abi::layout ──header()──────► include/ferrotoe_abi.h    committed; a test fails if it is out of date
//!                   ──assertions()──► a C file of static asserts, compiled by the tests
//!                   ──filler()──────► a C program that fills each struct; the tests read its bytes back in Rust
//! ```
//!
//! `cargo run -p toe-nfp-header -- --check | --write`.
//!
//! May depend on: `toe-abi`.
#![forbid(unsafe_code)]

mod c;
pub mod probe;

pub use c::header;

use std::path::PathBuf;

/// Where the committed header lies.
pub fn header_path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("include/ferrotoe_abi.h")
}
