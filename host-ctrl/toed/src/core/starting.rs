//! Beginnings of applications: where all regions are in use, who comes waits for the memory of those that have ended.

use super::{
    ClientId, Core, Host,
    app::Stage,
    requests::{Result, failure},
};
use rustix::io::Errno;

impl<H: Host> Core<H> {
    /// A new application. `None`: there is no room, but the card is letting go of what an application that has ended had.
    pub(super) fn start(&mut self, client: ClientId, ticket: u64, now_us: u64) -> Option<Result> {
        let outcome = self.new_application(client, ticket);
        if matches!(outcome, Err(Errno::USERS | Errno::NOMEM)) {
            self.end_orphans(0, now_us);
            if self.is_freeing(now_us) {
                return None;
            }
        }
        Some(outcome)
    }

    /// The programs that wait for room are to look again, in the order in which they came.
    pub(super) fn start_waiting(&mut self, now_us: u64) {
        while let Some(&(client, ticket)) = self.starting.front() {
            let Some(outcome) = self.start(client, ticket, now_us) else { return };
            self.starting.pop_front();
            if let Err(e) = outcome {
                self.answer_later(client, failure(e), &[]);
            }
        }
    }

    /// Whether nothing but the card keeps the region of some application that has ended.
    fn is_freeing(&self, now_us: u64) -> bool {
        self.apps.values().any(|app| match app.stage {
            Stage::Unmapping => true,
            Stage::Ending { until_us } => until_us <= now_us,
            Stage::Starting | Stage::Running => false,
        })
    }
}
