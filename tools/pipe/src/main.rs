//! toe-pipe: the program.
#![forbid(unsafe_code)]

fn main() {}
