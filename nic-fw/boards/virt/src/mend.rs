//! When to reset a network device that has broken the rules: at once, then after pauses that grow, and in the end no more.
//!
//! ```text
//!   well ──broken──► due ──tried, good──► well          good for CALM_US: the next break is a first one again
//!                     ▲ └──tried, bad───┐
//!                     └── pause, doubled┘──── TRIES in a row ──► given up
//! ```

use toe_hal::Instant;

/// Tries in a row.
const TRIES: u32 = 10;
/// The pause after the first try; after the last but one it is 256 times as long.
const PAUSE_US: u64 = 10_000;
/// A device that has worked for so long is none that breaks the rules for ever.
const CALM_US: u64 = 10_000_000;

/// See the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mender {
    /// In a row.
    tries: u32,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum State {
    #[default]
    Well,
    Mended(Instant),
    Due(Instant),
    GivenUp,
}

impl Mender {
    /// The device has broken the rules, or asks for a reset.
    pub fn broken(&mut self, now: Instant) {
        match self.state {
            State::Due(_) | State::GivenUp => return,
            State::Mended(at) if now.0.saturating_sub(at.0) < CALM_US => {}
            State::Well | State::Mended(_) => self.tries = 0,
        }
        self.wait(now);
    }

    fn wait(&mut self, now: Instant) {
        let pause = self.tries.checked_sub(1).map_or(0, |tries| PAUSE_US << tries);
        self.state = if self.tries < TRIES { State::Due(Instant(now.0.saturating_add(pause))) } else { State::GivenUp };
    }

    /// What came of a try.
    pub fn tried(&mut self, now: Instant, is_good: bool) {
        self.tries += 1;
        if is_good {
            self.state = State::Mended(now);
        } else {
            self.wait(now);
        }
    }

    /// Whether the device is to be reset now.
    pub fn is_due(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|at| at <= now)
    }

    /// When the next try is due.
    pub fn deadline(&self) -> Option<Instant> {
        if let State::Due(at) = self.state { Some(at) } else { None }
    }

    /// Whether the device does not work as far as is known.
    pub fn is_broken(&self) -> bool {
        matches!(self.state, State::Due(_) | State::GivenUp)
    }

    pub fn has_given_up(&self) -> bool {
        self.state == State::GivenUp
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_try_is_made_at_once() {
        let mut mender = Mender::default();
        assert!(!mender.is_broken() && !mender.is_due(Instant(u64::MAX)));
        mender.broken(Instant(5));
        assert!(mender.is_due(Instant(5)) && mender.is_broken());
        mender.tried(Instant(6), true);
        assert!(!mender.is_broken() && mender.deadline().is_none());
    }

    #[test]
    fn tries_in_a_row_have_growing_pauses_and_an_end() {
        let mut mender = Mender::default();
        let (mut now, mut pauses) = (Instant(0), Vec::new());
        mender.broken(now);
        while let Some(at) = mender.deadline() {
            assert!(!mender.is_due(Instant(at.0.saturating_sub(1))) || at == now);
            pauses.push((at.0 - now.0) / 1000);
            now = at;
            // Good or bad: one that breaks again at once is no better.
            mender.tried(now, pauses.len().is_multiple_of(2));
            mender.broken(now);
        }
        assert_eq!(pauses, [0, 10, 20, 40, 80, 160, 320, 640, 1280, 2560]);
        assert!(mender.has_given_up() && mender.is_broken());
        mender.broken(Instant(u64::MAX));
        assert!(mender.has_given_up(), "until the card is started anew");
    }

    #[test]
    fn a_device_that_has_worked_for_long_is_trusted_again() {
        let mut mender = Mender::default();
        for n in 0..100 {
            let now = Instant(n * CALM_US);
            mender.broken(now);
            assert!(mender.is_due(now));
            mender.tried(now, true);
        }
    }
}
