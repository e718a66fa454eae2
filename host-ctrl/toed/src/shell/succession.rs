//! From a card that has failed or gone to the next one in its place.
//!
//! ```text
//!   serving ──card_failed──► staying: operators are answered ──successor──► begin_anew: serving
//!                               └── told to end, or none can come ──► the end
//! ```

use super::machine::Watched;
use super::{Daemon, attach, now_us, say_ready};
use crate::{admin::Failure, core::ClientId};
use anyhow::{Context, Result};
use rustix::event::epoll::EventFlags;
use toe_link::card::{Card, Successor};

/// How often a successor is looked for, besides when something says that there may be one.
const LOOK_EVERY_US: u64 = 500_000;

impl Daemon<'_> {
    /// The card has failed: nobody is served but operators, until we are told to end or another card has come in its place. An error: we
    /// are to end, as none can come or for that word.
    pub(super) fn stay(&mut self) -> Result<()> {
        let mut successor = self.core.host().successor();
        if !matches!(successor, Successor::Never) {
            self.close_doors();
        }
        let mut found = Vec::new();
        while !self.stop {
            match successor {
                Successor::Never => break,
                Successor::NotYet => {}
                Successor::Unusable(e) => tracing::error!("another card has come, which can't be used: {e}"),
                Successor::Ready(card) => match self.begin_anew(card) {
                    Ok(()) => return Ok(()),
                    Err(e) => tracing::error!("another card has come, which can't be used: {e:#}"),
                },
            }
            self.core.host().watch.wait(Some(LOOK_EVERY_US), &mut found).context("waiting for events")?;
            for (what, flags) in found.drain(..) {
                // What the last card still signals means nothing any more but that there may be another.
                if !matches!(what, Watched::Card | Watched::CardLink) {
                    self.event(what, flags)?;
                }
            }
            successor = self.core.host().successor();
        }
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Nobody is served but operators from now on.
    fn close_doors(&mut self) {
        self.run_dir.refuse_apps();
        let machine = self.core.host();
        machine.watch.remove(&self.app_listener, self.app_key);
        let clients: Vec<ClientId> = machine.clients.keys().copied().collect();
        clients.into_iter().for_each(|client| self.end_client(client));
        if let Some(why) = &self.failed {
            tracing::error!("{why:#}; programs get errors, operators are answered, and another card is waited for");
            self.admin.fail_waiting(&Failure::new(format!("{why:#}")), &mut self.core.host().watch);
        }
    }

    /// Goes on with another card: everything but what operators have is made anew, as at a start.
    fn begin_anew(&mut self, card: Box<dyn Card>) -> Result<()> {
        let mut core = attach(self.settings, card, self.descriptors, now_us())?;
        let watch = &mut core.host().watch;
        watch.add(&self.signals, Watched::Signals, EventFlags::IN)?;
        watch.add(&self.admin_listener, Watched::AdminListener, EventFlags::IN)?;
        let app_listener = self.run_dir.listen_apps()?;
        self.app_key = watch.add(&app_listener, Watched::AppListener, EventFlags::IN)?;
        self.admin.watch_in(watch);
        // The last one goes, with all that it held.
        (self.core, self.app_listener, self.failed) = (core, app_listener, None);
        (self.accept_again_us, self.look_at_us, self.called) = (None, None, false);
        self.held.clear();
        tracing::warn!("another card has come in the place of the one that failed; programs that ran on that one have to be started again");
        self.link = say_ready(self.settings, &mut self.core);
        Ok(())
    }
}
