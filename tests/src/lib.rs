//! What the tests that cross crates share.

pub mod script;
pub mod sim;
pub mod window_card;
