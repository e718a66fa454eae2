//! How the host reaches a card and the daemon (under construction).

pub mod card;
