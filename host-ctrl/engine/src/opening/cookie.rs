//! SYN cookies (RFC 4987, 3.6): under a flood a listener keeps nothing of a SYN. What it must know again when the final ACK
//! comes travels with the peer, in our initial sequence number and in our timestamp, which the peer sends back.
//!
//! ```text
//!   ISS:        31 ───────────────────────────── 3 2 ── 0
//!               keyed hash of tuple, IRS, minute │ class of MSS
//!   timestamp:  31 ───────────────────────────── 6  5  4  3 ──── 0
//!               our clock, rounded down          │ECN│SACK│ shift of the peer's windows, or 15
//! ```
//!
//! What our SYN-ACK said for ourselves is what the listener would say now: of one whose buffers have changed in between, windows may be scaled
//! by another shift than the peer was told (as Linux). A peer without timestamps gets a connection without options, and with an MSS of the
//! classes. A final ACK that is lost is made up for by the peer's first data alone: we have nothing to repeat a SYN-ACK from.
//!
//! A cookie is good for one to two minutes, so one of 2^28 guesses is. Its key is that of all the engine's hashes, in a domain of its
//! own: new with each start, and not changed in between, as the minute is hashed already and 128 bits are not found out.
//! An ACK that brings no cookie costs two hashes at most, and none where no cookie was sent lately.

use crate::{
    Engine, ListenerId, SynCookies, Wishes,
    conn::{Conn, Handshake, Options, Origin, Phase},
    segment::Segment,
};
use toe_abi::flow::{FlowKey, cc::needs_ecn};
use toe_wire::SeqNum;

/// How long a cookie's time stays the same.
const TICK_US: u64 = 60_000_000;
/// Cookies of this and of the tick before are taken (as Linux: MAX_SYNCOOKIE_AGE).
const TICKS: u64 = 2;

/// Largest segments that a cookie can tell; the first is what nobody's is below ([`super::MIN_MSS`]), then the default of IPv4, those
/// of IPv6's least MTU, of tunnels, of Ethernet with IPv6 and IPv4, and of jumbo frames.
const MSS_CLASSES: [u16; 8] = [super::MIN_MSS, 536, 1220, 1300, 1400, 1440, 1460, 8940];
const CLASS_MASK: u32 = 7;

/// Bits of our timestamp.
const NO_SCALE: u32 = 15;
const SACK: u32 = 1 << 4;
const ECN: u32 = 1 << 5;
const OPTION_BITS: u32 = ECN | SACK | NO_SCALE;

/// The largest class that is not above `mss`.
fn class_of(mss: u16) -> usize {
    MSS_CLASSES.iter().rposition(|class| *class <= mss).unwrap_or(0)
}

/// `val`, or up to 64 ms less, with `o` in its lower bits: never later than now, so that timestamps do not go back afterwards.
fn write_options(val: u32, o: &Options) -> u32 {
    let scale = o.peer_wscale.map_or(NO_SCALE, u32::from);
    let bits = scale | if o.sack { SACK } else { 0 } | if o.ecn { ECN } else { 0 };
    let rounded = val & !OPTION_BITS | bits;
    if bits > val & OPTION_BITS { rounded.wrapping_sub(OPTION_BITS + 1) } else { rounded }
}

/// What an echoed timestamp says. It is not sealed: who changes it changes its own connection only.
fn read_options(ecr: u32, peer_mss: u16) -> Options {
    let scale = ecr & NO_SCALE;
    Options {
        peer_mss,
        peer_wscale: (scale != NO_SCALE).then_some(scale as u8),
        timestamps: true,
        sack: ecr & SACK != 0,
        ecn: ecr & ECN != 0,
    }
}

impl Engine {
    /// Whether a SYN is answered by a cookie; `full`: there is no place for one more half-open connection.
    pub(super) fn wants_cookie(&self, full: bool) -> bool {
        match self.config.syn_cookies {
            SynCookies::Off => false,
            SynCookies::OnOverflow => full,
            SynCookies::Always => true,
        }
    }

    /// Answers a SYN and forgets it.
    pub(super) fn send_cookie(&mut self, seg: &Segment<'_>, wishes: Wishes) {
        // Whoever is not answered, as its router has to be found first, sends its SYN again.
        let Some(to) = self.answer_mac(seg.key.remote_ip, seg.mac) else { return };
        let mut h = self.answer_to(seg, wishes, None);
        if !h.options.timestamps {
            h.options = Options { peer_mss: h.options.peer_mss, ..Options::default() };
        }
        let class = class_of(h.options.peer_mss) as u32;
        h.iss = self.cookie(&seg.key, seg.seq, self.now / TICK_US, class);
        let mut options = self.syn_options(&seg.key, &h);
        if let Some(ts) = &mut options.timestamps {
            ts.val = write_options(ts.val, &h.options);
        }
        self.cookies_until = self.now.saturating_add(TICKS * TICK_US);
        self.counters.syn_cookies_sent += 1;
        self.send_syn_ack(&h, to, seg.key, options);
    }

    fn cookie(&self, key: &FlowKey, irs: SeqNum, tick: u64, class: u32) -> SeqNum {
        SeqNum(self.keys.cookie(key, irs, tick, class) & !CLASS_MASK | class)
    }

    /// Makes a connection of an ACK that brings back a cookie. False: it brings none.
    pub(super) fn take_cookie(&mut self, listener: ListenerId, seg: &Segment<'_>) -> bool {
        if self.now > self.cookies_until {
            return false;
        }
        let (iss, irs) = (seg.ack.sub_len(1), seg.seq.sub_len(1));
        let class = iss.0 & CLASS_MASK;
        let tick = self.now / TICK_US;
        let is_fresh = |age| tick.checked_sub(age).is_some_and(|tick| self.cookie(&seg.key, irs, tick, class) == iss);
        if !(0..TICKS).any(is_fresh) {
            self.counters.syn_cookies_invalid += 1;
            return false;
        }
        self.counters.syn_cookies_valid += 1;
        let Some(l) = self.ports.listener(listener) else { return false };
        let (owner, wishes) = (l.owner, l.wishes);
        if l.is_full() {
            // The peer sends again, and may find room then.
            l.overflows += 1;
            self.counters.ack_drop_accept_full += 1;
            return true;
        }
        if !self.make_room(listener) {
            return true;
        }
        let h = self.handshake_of(seg, wishes, iss, MSS_CLASSES[class as usize]);
        let conn = Conn { key: seg.key, owner, origin: Origin::Passive(listener), phase: Phase::SynReceived(h), hop: None, deadline: None };
        if let Some(id) = self.conns.insert(conn) {
            self.ports.hold(seg.key.local_port);
            self.install(id, Some((seg.frame.to_vec(), seg.meta)));
        }
        true
    }

    /// The handshake that led to this final ACK. How long it took is not known.
    fn handshake_of(&mut self, seg: &Segment<'_>, wishes: Wishes, iss: SeqNum, peer_mss: u16) -> Handshake {
        let h = self.answer_to(seg, wishes, None);
        let c = &self.config;
        let options = match seg.options.timestamps.filter(|_| c.timestamps).map(|ts| read_options(ts.ecr, peer_mss)) {
            None => Options { peer_mss, ..Options::default() },
            Some(said) => Options {
                peer_wscale: said.peer_wscale.filter(|_| c.window_scaling),
                sack: said.sack && c.sack,
                ecn: said.ecn && (c.ecn || needs_ecn(h.cc)),
                ..said
            },
        };
        let peer_window = u32::from(seg.window) << options.peer_wscale.unwrap_or(0);
        Handshake { iss, irs: seg.seq.sub_len(1), options, peer_window, ..h }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_is_never_above_what_the_peer_takes() {
        for mss in super::super::MIN_MSS..=u16::MAX {
            let class = MSS_CLASSES[class_of(mss)];
            assert!(class <= mss, "{mss} became {class}");
        }
        for mss in MSS_CLASSES {
            assert_eq!(MSS_CLASSES[class_of(mss)], mss);
        }
    }

    /// Every combination of options, at every place of the clock, and where it wraps.
    #[test]
    fn timestamps_carry_options_and_are_not_of_the_future() {
        for val in (0..200).chain(u32::MAX - 200..=u32::MAX) {
            for bits in 0..=OPTION_BITS {
                let o = read_options(bits, 1000);
                let written = write_options(val, &o);
                assert_eq!(read_options(written, 1000), o, "{bits} in {val}");
                assert!(val.wrapping_sub(written) <= OPTION_BITS, "{bits} in {val} became {written}");
            }
        }
    }
}
