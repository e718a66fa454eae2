//! Requests on the admin socket: answered here, or by a report of the core that follows.

use super::{BATCH, Daemon, Machine, now_us, secret};
use crate::{
    admin::{Failure, Logs, Request, Status},
    core::{Core, JobId, ShareChange, Whose, mac_text},
};
use toe_link::card::{CardError, LogPart, PortLink};

impl Daemon<'_> {
    pub(super) fn serve_admin(&mut self, id: u64) {
        for _ in 0..BATCH {
            let Some(request) = self.admin.next_request(id, &mut self.core.host().watch) else { return };
            if let Some(why) = self.unanswerable(request) {
                self.admin.answer(id, &why, &mut self.core.host().watch);
                continue;
            }
            match request {
                Request::Status => {
                    let status = self.status();
                    self.admin.answer(id, &status, &mut self.core.host().watch);
                }
                Request::Ss => self.admin.wait_for(id, self.core.report_connections()),
                Request::Stats => self.admin.wait_for(id, self.core.report_stats()),
                Request::Stages => self.admin.wait_for(id, self.core.report_stages()),
                Request::TraceStart => self.started(id, |core| core.trace_start(now_us())),
                Request::TraceRead { trace } => self.started(id, |core| core.trace_read(trace, now_us())),
                Request::TraceStop { trace } => self.started(id, |core| core.trace_stop(trace)),
                Request::SetShare { pid, region, weight, rate_kbps } => {
                    let change = ShareChange { weight, rate_kbps };
                    self.started(id, |core| core.set_share(whose(pid, region)?, change));
                }
                Request::Reserve { weight, rate_kbps } => {
                    let change = ShareChange { weight, rate_kbps };
                    self.started(id, |core| core.reserve(ticket()?, change));
                }
                Request::Logs { instance, from } => {
                    let logs = self.logs(instance, from);
                    self.admin.answer(id, &logs, &mut self.core.host().watch);
                }
                Request::Config => {
                    self.admin.answer(id, self.settings.options(), &mut self.core.host().watch);
                }
                Request::Shutdown => {
                    self.admin.answer(id, &serde_json::json!({}), &mut self.core.host().watch);
                    self.stop = true;
                }
            }
            // A report of nothing is ready at once.
            self.finish_reports();
        }
    }

    pub(super) fn finish_reports(&mut self) {
        while let Some((job, report)) = self.core.poll_report() {
            if let Some(id) = self.admin.finish(job, &report, &mut self.core.host().watch) {
                self.serve_admin(id);
            }
        }
    }

    /// Starts what takes an answer of the card, or says why not.
    fn started(&mut self, id: u64, start: impl FnOnce(&mut Core<Machine>) -> Result<JobId, Failure>) {
        match start(&mut self.core) {
            Ok(job) => self.admin.wait_for(id, job),
            Err(failure) => self.admin.answer(id, &failure, &mut self.core.host().watch),
        }
    }

    /// Why a request has no answer: it takes a card, and ours has failed.
    fn unanswerable(&self, request: Request) -> Option<Failure> {
        let alone = matches!(request, Request::Status | Request::Logs { .. } | Request::Config | Request::Shutdown);
        self.failed.as_ref().filter(|_| !alone).map(|why| Failure::new(format!("{why:#}")))
    }

    fn logs(&mut self, instance: u32, from: u32) -> Option<Logs> {
        let image = self.settings.image.as_ref().map(|path| path.display().to_string());
        let LogPart { instance, build, bytes, missed, next, dropped } = self.core.host().card_log(instance, from)?;
        let build: Vec<u8> = build.into_iter().flat_map(u32::to_ne_bytes).collect();
        let build = if build.iter().all(|&byte| byte == 0) { String::new() } else { hex(&build) };
        Some(Logs { instance, build, image, bytes: hex(&bytes), missed, next, dropped })
    }

    fn status(&mut self) -> Status {
        let mut status = self.core.status();
        let info = self.core.host().card_info();
        status.version = env!("CARGO_PKG_VERSION").into();
        status.uptime_s = (now_us() - self.started_us) / 1_000_000;
        let card = &mut status.card;
        let link = self.core.host().link();
        card.device = link.device;
        card.board = link.board.into();
        card.memory_used_bytes = link.memory_used;
        card.memory_max_bytes = info.memory_max;
        card.failure = self.core.host().card_failure();
        card.port_mac = mac_text(&info.mac);
        card.mtu = info.mtu;
        card.flows_max = info.max_flows;
        card.contexts_max = info.max_contexts;
        card.regions_max = info.max_regions;
        card.status = self.core.host().card_status().into();
        card.link = self.core.host().port_link().text().into();
        if let Some(why) = &self.failed {
            // Another card may be in the same place by now; ours has failed.
            let (status, text) = match why.downcast_ref() {
                Some(CardError::Failed { text }) => ("failed", text.clone()),
                _ => ("gone", format!("{why:#}")),
            };
            (card.status, card.failure, card.link) = (status.into(), Some(text), PortLink::Unknown.text().into());
        }
        status
    }
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or('?');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn whose(pid: Option<i32>, region: Option<u32>) -> Result<Whose, Failure> {
    match (pid, region) {
        (Some(pid), None) => Ok(Whose::Pid(pid)),
        (None, Some(region)) => Ok(Whose::Region(region)),
        _ => Err(Failure::new("either a pid or a region names the application")),
    }
}

/// A number that nobody guesses, and not 0.
fn ticket() -> Result<u64, Failure> {
    let secret = secret().map_err(|e| Failure::new(format!("{e:#}")))?;
    Ok((u128::from_ne_bytes(secret) as u64).max(1))
}
