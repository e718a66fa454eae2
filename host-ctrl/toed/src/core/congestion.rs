//! TCP_CONGESTION and TCP_INFO: what a socket's connection is to do about congestion, and how it stands. The card knows; the application asks.

use super::{
    ClientId, Core, Host,
    app::Role,
    outbox::Pending,
    requests::{Outcome, Result, done, failure},
};
use rustix::io::Errno;
use toe_abi::{
    FlowId,
    app::{Info, Reply, Request},
    control::{ControlMsg, kind, status},
    flow::{FlowState, cc},
};

impl<H: Host> Core<H> {
    /// CONGESTION. Without a connection it is kept for the one to come.
    pub(super) fn set_congestion(&mut self, client: ClientId, region: u16, r: &Request, now_us: u64) -> Result {
        let number = u8::try_from(r.args[0]).ok().filter(|n| *n < cc::COUNT).ok_or(Errno::INVAL)?;
        let flow = self.flow_of_slot(region, r.slot)?;
        let slot = self.app(region)?.slot(r.slot).ok_or(Errno::BADF)?;
        slot.cc = Some(number);
        if let Role::Listening { listener } = slot.role {
            self.engine.set_listener_cc(listener, Some(number));
        }
        let Some(flow) = flow else { return done() };
        self.outbox.send(&mut self.host, kind::SET_CC, Pending::Congestion { client }, |m| {
            m.flow = flow;
            m.args[0] = number.into();
        });
        self.switch_rate(flow, number, now_us);
        Ok(Outcome::Later)
    }

    /// The answer to SET_CC. If the connection has ended meanwhile, there is nothing to be congested.
    pub(super) fn congestion_set(&mut self, client: ClientId, msg: &ControlMsg) {
        let reply = if msg.status == status::UNSUPPORTED { failure(Errno::NOPROTOOPT) } else { Reply::default() };
        self.answer_later(client, reply, &[]);
    }

    /// A connection is there whose socket may have asked for something else while it was opened.
    pub(super) fn begin_congestion(&mut self, flow: FlowId, number: Option<u8>, now_us: u64) {
        if let Some(number) = number {
            self.outbox.tell(&mut self.host, kind::SET_CC, flow, [number.into(), 0, 0, 0, 0]);
            self.switch_rate(flow, number, now_us);
        }
    }

    /// A flow's rate becomes toed's to control, or is so no more.
    fn switch_rate(&mut self, flow: FlowId, number: u8, now_us: u64) {
        if self.rates.controls(flow) == cc::is_rate(number).then_some(number) {
            return;
        }
        let cap_kbps = self.flows.get(&flow).map_or(0, |f| f.cap_kbps);
        self.rates.begin(flow, number, 0, now_us);
        let rate_kbps = self.rates.cap(flow, cap_kbps);
        self.outbox.tell(&mut self.host, kind::SET_RATE, flow, [rate_kbps, 0, 0, 0, 0]);
    }

    /// INFO.
    pub(super) fn info(&mut self, client: ClientId, region: u16, r: &Request) -> Result {
        let flow = self.flow_of_slot(region, r.slot)?;
        let slot = self.app(region)?.slot(r.slot).ok_or(Errno::BADF)?;
        let wished = slot.cc;
        let algorithm = wished.unwrap_or(self.engine.cc());
        match flow {
            Some(flow) => {
                self.outbox.send(&mut self.host, kind::QUERY, Pending::Info { client, algorithm }, |m| m.flow = flow);
                Ok(Outcome::Later)
            }
            None => Ok(Outcome::Answer(reply(&Info { algorithm, ..Info::default() }), Vec::new())),
        }
    }

    /// The answer to QUERY. `algorithm`: what a socket without a connection has.
    pub(super) fn informed(&mut self, client: ClientId, algorithm: u8, msg: &ControlMsg) {
        let none = Info { algorithm, ..Info::default() };
        let info = if msg.status == status::OK { info_of(&msg.flow_state(), msg.args[0]) } else { none };
        self.answer_later(client, reply(&info), &[]);
    }
}

fn reply(info: &Info) -> Reply {
    let mut reply = Reply::default();
    reply.set_info(info);
    reply
}

/// `clock_us`: the card's clock at the time.
fn info_of(s: &FlowState, clock_us: u64) -> Info {
    let since_ms = |ms: u32| ((clock_us / 1000) as u32).wrapping_sub(ms);
    Info {
        srtt_us: s.tx.srtt_us,
        rttvar_us: s.tx.rttvar_us,
        cwnd: s.cc.cwnd,
        ssthresh: s.cc.ssthresh,
        unacked: s.tx.snd_max.wrapping_sub(s.tx.snd_una),
        snd_wnd: s.tx.snd_wnd,
        retransmits: s.id.retransmits,
        flags: s.rx.flags,
        rto_min_ms: u32::from(s.tx.rto_min_4ms) * 4,
        since_tx_ms: since_ms(s.rx.last_tx_ms),
        since_rx_ms: since_ms(s.rx.last_rx_ms),
        wscales: s.tx.wscale & 15 | s.rx.wscale << 4,
        algorithm: s.cc.algorithm,
        mss: s.rx.mss,
        backoff: s.tx.backoff,
        probes: s.tx.probes,
        ..Info::default()
    }
}
