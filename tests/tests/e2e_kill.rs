//! The daemons and applications are killed at any moment of a transfer: who is left is told, and nothing stays behind.

#[path = "hostile/rounds.rs"]
mod rounds;

use rounds::Round;

/// Of one run; the moments of the kills follow from it.
const SEED: u64 = 20262;

fn rounds_of(victims: &[&str], rounds: u64, salt: u64) {
    for n in 0..rounds {
        Round::new(SEED.wrapping_mul(salt).wrapping_add(n)).play(victims);
    }
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn toed_is_killed_during_transfers() {
    rounds_of(&["toed"], 3, 3);
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn the_card_is_killed_during_transfers() {
    rounds_of(&["toe-nic"], 3, 5);
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn both_are_killed_during_transfers() {
    rounds_of(&["toe-nic", "toed"], 2, 7);
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn the_application_is_killed_during_transfers() {
    rounds_of(&["application"], 3, 11);
}
