//! The core against a card that only answers.

mod hostile;
mod life;
mod requests;
mod world;
