//! TCP_INFO and TCP_CONGESTION: how a connection stands, by its card (toed asks it), in Linux's words.

use crate::{Errno, Sock, hub, process};
use std::sync::atomic::Ordering::Relaxed;
use toe::Socket;
use toe_abi::app::Info;
use toe_abi::desc::{ev_flags, hc_flags};
use toe_abi::flow::{cc, flow_flags as ff};
use toe_abi::region::slot_state;

/// Bytes of the part of `struct tcp_info` that is filled in.
const INFO_LEN: usize = 104;
/// Payload of a full segment on Ethernet with timestamps, for sockets that don't say.
pub(crate) const MSS_DEFAULT: u32 = 1448;
/// TCP_CA_NAME_MAX: a name with its terminator.
const NAME_LEN: usize = 16;
/// ssthresh of a flow that has seen no congestion, as the card has it and as Linux has it.
const SSTHRESH_NONE: u32 = 1 << 30;
const TCP_INFINITE_SSTHRESH: u32 = 0x7fff_ffff;
/// RFC 6298, 2.1: before there is a sample.
const RTO_INITIAL_US: u32 = 1_000_000;

/// The algorithm that a program names: ENOENT, as on a kernel that lacks it.
fn number(value: &[u8]) -> Result<u8, Errno> {
    if value.is_empty() {
        return Err(Errno::INVAL);
    }
    let name = value.iter().take(NAME_LEN - 1).take_while(|b| **b != 0).copied().collect();
    String::from_utf8(name).ok().and_then(|name| cc::number(&name)).ok_or(Errno::NOENT)
}

impl Sock {
    /// TCP_CONGESTION is set. The algorithm's number.
    pub(crate) fn set_congestion(self, value: &[u8]) -> Result<u8, Errno> {
        let number = number(value)?;
        process::ask(|client| client.set_congestion(self.slot, number)).map(|()| number)
    }

    /// TCP_CONGESTION as it is read.
    pub(crate) fn congestion(self) -> Result<[u8; NAME_LEN], Errno> {
        let info = process::ask(|client| client.info(self.slot))?;
        let mut out = [0; NAME_LEN];
        out.iter_mut().zip(cc::name(info.algorithm).bytes()).for_each(|(place, byte)| *place = byte);
        Ok(out)
    }

    /// `struct tcp_info`. Without a toed that answers, what the card's last event said.
    pub(crate) fn tcp_info(self, socket: &Socket<'_>) -> [u8; INFO_LEN] {
        let info = process::ask(|client| client.info(self.slot)).unwrap_or_default();
        hub::lock().drain();
        tcp_info(socket, &info)
    }
}

fn tcp_info(socket: &Socket<'_>, info: &Info) -> [u8; INFO_LEN] {
    let event = &socket.slot().event;
    let info = match info.mss {
        0 => Info { srtt_us: event.srtt_us.load(Relaxed), cwnd: event.cwnd.load(Relaxed), ssthresh: SSTHRESH_NONE, mss: 1448, ..*info },
        _ => *info,
    };
    let mss = u32::from(info.mss);
    let timestamps = info.flags & ff::TIMESTAMPS != 0;
    let rx_len = socket.slot().conn.rx_len.load(Relaxed);
    let words = [
        (8, rto_us(&info)),                                                       // tcpi_rto
        (12, 40_000),                                                             // tcpi_ato
        (16, mss),                                                                // tcpi_snd_mss
        (20, mss),                                                                // tcpi_rcv_mss
        (24, socket.unacked().max(info.unacked).div_ceil(mss)),                   // tcpi_unacked
        (44, info.since_tx_ms),                                                   // tcpi_last_data_sent
        (52, info.since_rx_ms),                                                   // tcpi_last_data_recv
        (56, info.since_rx_ms),                                                   // tcpi_last_ack_recv
        (60, mss + if timestamps || info.flags == 0 { 52 } else { 40 }),          // tcpi_pmtu
        (64, rx_len),                                                             // tcpi_rcv_ssthresh
        (68, info.srtt_us),                                                       // tcpi_rtt
        (72, if info.rttvar_us > 0 { info.rttvar_us } else { info.srtt_us / 2 }), // tcpi_rttvar
        (76, ssthresh(&info)),                                                    // tcpi_snd_ssthresh
        (80, (info.cwnd / mss).max(1)),                                           // tcpi_snd_cwnd
        (84, mss),                                                                // tcpi_advmss
        (88, 3),                                                                  // tcpi_reordering
        (96, rx_len),                                                             // tcpi_rcv_space
        (100, info.retransmits),                                                  // tcpi_total_retrans
    ];
    let mut out = [0; INFO_LEN];
    for (at, value) in words {
        out[at..at + 4].copy_from_slice(&u32::to_ne_bytes(value));
    }
    out[..7].copy_from_slice(&[
        tcp_state(socket),
        ca_state(info.flags),
        info.backoff,
        info.probes,
        info.backoff,
        options(&info),
        info.wscales,
    ]);
    out
}

fn ssthresh(info: &Info) -> u32 {
    if info.ssthresh >= SSTHRESH_NONE { TCP_INFINITE_SSTHRESH } else { info.ssthresh / u32::from(info.mss.max(1)) }
}

/// As the card computes it (RFC 6298, with Linux's minimum above the round-trip time).
fn rto_us(info: &Info) -> u32 {
    let min_us = if info.rto_min_ms == 0 { 200_000 } else { info.rto_min_ms.saturating_mul(1000) };
    let base = match info.srtt_us {
        0 => RTO_INITIAL_US,
        srtt => srtt.saturating_add(info.rttvar_us.saturating_mul(4).max(min_us)),
    };
    base.saturating_mul(1 << info.backoff.min(20))
}

/// As in <netinet/tcp.h>: TCP_CA_Open = 0, CWR = 2, Recovery = 3, Loss = 4.
fn ca_state(flags: u32) -> u8 {
    match flags {
        f if f & ff::LOSS != 0 => 4,
        f if f & ff::RECOVERY != 0 => 3,
        f if f & ff::ECN_REDUCED != 0 => 2,
        _ => 0,
    }
}

/// TCPI_OPT_TIMESTAMPS = 1, SACK = 2, WSCALE = 4, ECN = 8.
fn options(info: &Info) -> u8 {
    let negotiated = [(ff::TIMESTAMPS, 1), (ff::SACK, 2), (ff::ECN, 8)];
    let options = negotiated.iter().filter(|(flag, _)| info.flags & flag != 0).fold(0, |all, (_, bit)| all | bit);
    if info.wscales == 0 { options } else { options | 4 }
}

/// As in <netinet/tcp.h>: TCP_ESTABLISHED = 1, ...
fn tcp_state(socket: &Socket<'_>) -> u8 {
    let flags = socket.slot().event.flags.load(Relaxed);
    let fin_sent = socket.tx_flags() & hc_flags::FIN != 0;
    let fin_seen = flags & ev_flags::RX_FIN != 0;
    match socket.state() {
        slot_state::LISTENING => 10,
        slot_state::CONNECTING => 2,
        slot_state::CONNECTED if flags & (ev_flags::ERROR | ev_flags::CLOSED) != 0 => 7,
        slot_state::CONNECTED => match (fin_sent, fin_seen) {
            (false, false) => 1,
            (false, true) => 8,
            (true, false) if flags & ev_flags::TX_FIN_ACKED != 0 => 5,
            (true, false) => 4,
            // TIME-WAIT is no state of a socket that a program holds: Linux calls it closed.
            (true, true) if flags & ev_flags::TX_FIN_ACKED != 0 => 7,
            (true, true) => 9,
        },
        _ => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn algorithms_that_exist_may_be_asked_for() {
        for (name, algorithm) in
            [(&b"cubic\0"[..], cc::CUBIC), (b"reno", cc::NEWRENO), (b"dctcp\0\0\0", cc::DCTCP), (b"timely", cc::TIMELY)]
        {
            assert_eq!(number(name), Ok(algorithm));
        }
        for none in [&b"bbr"[..], b"\0", b"cubi", b"\xff\xfe", b"cubic-and-much-more-than-there-is-room-for"] {
            assert_eq!(number(none), Err(Errno::NOENT));
        }
        assert_eq!(number(b""), Err(Errno::INVAL));
    }

    #[test]
    fn names_fit_with_their_terminator() {
        assert!(cc::NAMES.iter().all(|name| name.len() < NAME_LEN));
    }

    #[test]
    fn the_timeout_is_the_cards() {
        let info = Info { srtt_us: 10_000, rttvar_us: 1000, rto_min_ms: 200, ..Info::default() };
        assert_eq!(rto_us(&info), 210_000);
        assert_eq!(rto_us(&Info { rttvar_us: 100_000, ..info }), 410_000);
        assert_eq!(rto_us(&Info { backoff: 2, ..info }), 840_000);
        assert_eq!(rto_us(&Info::default()), 1_000_000);
        assert_eq!(rto_us(&Info { srtt_us: u32::MAX, backoff: 255, ..info }), u32::MAX);
    }
}
