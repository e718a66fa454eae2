//! The core against a card that only answers.

mod card;
mod congestion;
mod hostile;
mod life;
mod observe;
mod pace;
mod rates;
mod requests;
mod share;
mod starting;
mod world;
