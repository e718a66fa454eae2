//! Socket options: one table.
//!
//! An option is *supported* (the card does it), *emulated* (a program gets what it expects to read and nothing breaks), or
//! *refused* with the errno that Linux gives where it lacks the option. What is not in the table is refused with ENOPROTOOPT.

use crate::names::Family;
use crate::tcp_info::MSS_DEFAULT;
use crate::{Errno, Sock, hub, process};
use libc::{IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, SOL_SOCKET};
use std::sync::atomic::Ordering::Relaxed;
use toe::socket::own_flags;
use toe::{Socket, SocketOption, Tells};
use toe_abi::desc::hc_flags;
use toe_abi::region::slot_state;

/// How an option is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum How {
    /// A flag that the card is told.
    Card(u32),
    /// A flag of the slot.
    Own(u32),
    /// The same, of the IP layer: one byte will do.
    OwnByte(u32),
    RxTimeout,
    TxTimeout,
    LowWater,
    Linger,
    Rate,
    Error,
    /// Read only, this value.
    Value(i32),
    /// Takes any value and does nothing with it; reads as what was set, at first as this.
    Kept(i32),
    /// As `Kept`, but 0 or 1.
    KeptBool(i32),
    /// As `Kept`, of the IP layer: one byte will do.
    KeptByte(i32),
    /// A number in the slot that is obeyed; reads as what it was set to, at first as this.
    Number(SocketOption, i32),
    /// As `Number`, of the IP layer: one byte will do.
    NumberByte(SocketOption, i32),
    TxBuffer,
    RxBuffer,
    Listening,
    /// Of a socket of AF_INET6 that has no name yet.
    V6Only,
    Domain,
    /// A `Number` that reads as the connection's, once there is one.
    MaxSegment,
    Info,
    Congestion,
    /// Not to be set or read.
    Refused(Errno),
}

/// Buffers of a socket that has none yet.
const BUFFER_DEFAULT: i32 = 256 << 10;
/// Most that a program is told to have got: a buffer of toed's default.
const BUFFER_ASKED_MAX: i32 = 1 << 20;
/// Most that SO_RCVLOWAT takes: half of the largest receive buffer, as Linux has it.
const LOW_WATER_MAX: i32 = 16 << 20;

/// The table.
const OPTIONS: &[(i32, i32, How)] = &[
    // Supported.
    (SOL_SOCKET, libc::SO_REUSEADDR, How::Own(own_flags::REUSEADDR)),
    (SOL_SOCKET, libc::SO_REUSEPORT, How::Own(own_flags::REUSEPORT)),
    (SOL_SOCKET, libc::SO_OOBINLINE, How::Own(own_flags::OOBINLINE)),
    (IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, How::OwnByte(own_flags::NO_PORT)),
    (SOL_SOCKET, libc::SO_KEEPALIVE, How::Card(hc_flags::KEEPALIVE)),
    (SOL_SOCKET, libc::SO_LINGER, How::Linger),
    (SOL_SOCKET, libc::SO_RCVTIMEO, How::RxTimeout),
    (SOL_SOCKET, libc::SO_SNDTIMEO, How::TxTimeout),
    (SOL_SOCKET, libc::SO_RCVLOWAT, How::LowWater),
    (SOL_SOCKET, libc::SO_MAX_PACING_RATE, How::Rate),
    (SOL_SOCKET, libc::SO_ERROR, How::Error),
    (SOL_SOCKET, libc::SO_TYPE, How::Value(libc::SOCK_STREAM)),
    (SOL_SOCKET, libc::SO_DOMAIN, How::Domain),
    (SOL_SOCKET, libc::SO_PROTOCOL, How::Value(IPPROTO_TCP)),
    (SOL_SOCKET, libc::SO_ACCEPTCONN, How::Listening),
    (IPPROTO_TCP, libc::TCP_NODELAY, How::Card(hc_flags::NODELAY)),
    (IPPROTO_TCP, libc::TCP_CORK, How::Card(hc_flags::CORK)),
    (IPPROTO_TCP, libc::TCP_INFO, How::Info),
    (IPPROTO_TCP, libc::TCP_CONGESTION, How::Congestion),
    (IPPROTO_IP, libc::IP_TOS, How::NumberByte(SocketOption::Tos, 0)),
    (IPPROTO_IP, libc::IP_TTL, How::NumberByte(SocketOption::Ttl, 64)),
    // One value for both versions: what was set last holds.
    (IPPROTO_IPV6, libc::IPV6_TCLASS, How::Number(SocketOption::TrafficClass, 0)),
    (IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, How::Number(SocketOption::Hops, 64)),
    (IPPROTO_TCP, libc::TCP_USER_TIMEOUT, How::Number(SocketOption::UserTimeout, 0)),
    (IPPROTO_TCP, libc::TCP_KEEPIDLE, How::Number(SocketOption::KeepIdle, 7200)),
    (IPPROTO_TCP, libc::TCP_KEEPINTVL, How::Number(SocketOption::KeepInterval, 75)),
    (IPPROTO_TCP, libc::TCP_KEEPCNT, How::Number(SocketOption::KeepCount, 9)),
    (IPPROTO_TCP, libc::TCP_QUICKACK, How::Number(SocketOption::QuickAck, 1)),
    (IPPROTO_TCP, libc::TCP_LINGER2, How::Number(SocketOption::Linger2, 60)),
    (IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, How::Number(SocketOption::NotSentLowWater, 0)),
    (IPPROTO_TCP, libc::TCP_WINDOW_CLAMP, How::Number(SocketOption::WindowClamp, 0)),
    // Supported as a connection begins; later they change nothing.
    (IPPROTO_TCP, libc::TCP_MAXSEG, How::MaxSegment),
    (IPPROTO_TCP, libc::TCP_SYNCNT, How::Number(SocketOption::SynRetries, 6)),
    (IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, How::Number(SocketOption::DeferAccept, 0)),
    // Emulated: buffers have the size that toed gives them.
    (SOL_SOCKET, libc::SO_SNDBUF, How::TxBuffer),
    (SOL_SOCKET, libc::SO_RCVBUF, How::RxBuffer),
    (SOL_SOCKET, libc::SO_SNDBUFFORCE, How::Refused(Errno::PERM)),
    (SOL_SOCKET, libc::SO_RCVBUFFORCE, How::Refused(Errno::PERM)),
    (SOL_SOCKET, libc::SO_SNDLOWAT, How::Value(1)),
    // Emulated: advice that the card has no use for.
    (SOL_SOCKET, libc::SO_PRIORITY, How::Kept(0)),
    (SOL_SOCKET, libc::SO_DONTROUTE, How::KeptBool(0)),
    (SOL_SOCKET, libc::SO_BROADCAST, How::KeptBool(0)),
    (SOL_SOCKET, libc::SO_BUSY_POLL, How::Kept(0)),
    (SOL_SOCKET, libc::SO_INCOMING_CPU, How::Kept(0)),
    (SOL_SOCKET, libc::SO_INCOMING_NAPI_ID, How::Value(0)),
    (SOL_SOCKET, libc::SO_TIMESTAMP, How::KeptBool(0)),
    (SOL_SOCKET, libc::SO_NO_CHECK, How::KeptBool(0)),
    (SOL_SOCKET, libc::SO_PASSCRED, How::Refused(Errno::OPNOTSUPP)),
    (SOL_SOCKET, libc::SO_MARK, How::Refused(Errno::PERM)),
    (SOL_SOCKET, libc::SO_BINDTODEVICE, How::Refused(Errno::PERM)),
    (SOL_SOCKET, libc::SO_ZEROCOPY, How::Refused(Errno::OPNOTSUPP)),
    (IPPROTO_IP, libc::IP_MTU_DISCOVER, How::KeptByte(1)),
    (IPPROTO_IP, libc::IP_RECVERR, How::KeptByte(0)),
    (IPPROTO_IP, libc::IP_PKTINFO, How::KeptByte(0)),
    (IPPROTO_IP, libc::IP_FREEBIND, How::Refused(Errno::NOPROTOOPT)),
    (IPPROTO_IP, libc::IP_TRANSPARENT, How::Refused(Errno::PERM)),
    (IPPROTO_IPV6, libc::IPV6_V6ONLY, How::V6Only),
    (IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, How::Kept(1)),
    (IPPROTO_IPV6, libc::IPV6_DONTFRAG, How::KeptBool(0)),
    (IPPROTO_IPV6, libc::IPV6_RECVERR, How::KeptBool(0)),
    (IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, How::KeptBool(0)),
    (IPPROTO_IPV6, libc::IPV6_RECVTCLASS, How::KeptBool(0)),
    (IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, How::KeptBool(0)),
    (IPPROTO_IPV6, libc::IPV6_FREEBIND, How::Refused(Errno::NOPROTOOPT)),
    (IPPROTO_IPV6, libc::IPV6_TRANSPARENT, How::Refused(Errno::PERM)),
    // Refused as by a kernel that was built without.
    (IPPROTO_TCP, libc::TCP_FASTOPEN, How::Refused(Errno::NOPROTOOPT)),
    (IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, How::Refused(Errno::NOPROTOOPT)),
    (IPPROTO_TCP, libc::TCP_MD5SIG, How::Refused(Errno::NOPROTOOPT)),
    (IPPROTO_TCP, libc::TCP_REPAIR, How::Refused(Errno::PERM)),
    (IPPROTO_TCP, libc::TCP_ULP, How::Refused(Errno::NOENT)),
];

/// `unknown_level`: what Linux answers for a level that the protocol does not know; setsockopt() and getsockopt() differ.
fn find(level: i32, name: i32, family: Family, unknown_level: Errno) -> Result<How, Errno> {
    let known = [SOL_SOCKET, IPPROTO_TCP, IPPROTO_IP].contains(&level) || level == IPPROTO_IPV6 && family == Family::Inet6;
    if !known {
        return Err(unknown_level);
    }
    let row = OPTIONS.iter().find(|(l, n, _)| (*l, *n) == (level, name));
    row.map(|(_, _, how)| *how).ok_or(Errno::NOPROTOOPT)
}

fn int(value: &[u8]) -> Result<i32, Errno> {
    value.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes)).ok_or(Errno::INVAL)
}

/// Of the IP layer: an int, or a byte if that is all there is.
fn byte_or_int(value: &[u8]) -> Result<i32, Errno> {
    int(value).or_else(|e| value.first().map(|&b| b.into()).ok_or(e))
}

/// A rate, bytes per second: 64 bits if there are so many. All ones are unlimited in both widths.
fn rate(value: &[u8]) -> Result<u64, Errno> {
    if let Some(bytes) = value.first_chunk() {
        return Ok(u64::from_ne_bytes(*bytes));
    }
    let narrow = int(value)?.cast_unsigned();
    Ok(if narrow == u32::MAX { u64::MAX } else { narrow.into() })
}

/// Microseconds that stand for a timeout in the past.
const AT_ONCE: u32 = 1;

/// A `struct timeval` as microseconds; 0: none. What is longer than a u32 of them (71 minutes) is cut to that.
fn timeval(value: &[u8]) -> Result<u32, Errno> {
    let word = |at: usize| value.get(at..at + 8).and_then(|b| b.try_into().ok()).map(i64::from_ne_bytes);
    let (Some(seconds), Some(micros)) = (word(0), word(8)) else { return Err(Errno::INVAL) };
    if !(0..1_000_000).contains(&micros) {
        return Err(Errno::DOM);
    }
    if seconds < 0 {
        // As Linux: a wait that is over at once, and reads as none.
        return Ok(AT_ONCE);
    }
    Ok(u32::try_from(seconds.saturating_mul(1_000_000).saturating_add(micros)).unwrap_or(u32::MAX))
}

fn timeval_bytes(us: u32) -> [u8; 16] {
    let mut out = [0; 16];
    if us == AT_ONCE {
        return out;
    }
    out[..8].copy_from_slice(&i64::from(us / 1_000_000).to_ne_bytes());
    out[8..].copy_from_slice(&i64::from(us % 1_000_000).to_ne_bytes());
    out
}

/// Copies as much as there is room for; answers the length.
fn give(out: &mut [u8], value: &[u8]) -> usize {
    let n = value.len().min(out.len());
    out[..n].copy_from_slice(&value[..n]);
    n
}

/// As Linux: who asks for less than an int gets a byte, if it fits.
fn give_byte_or_int(out: &mut [u8], value: i32) -> usize {
    if (1..4).contains(&out.len()) && (0..256).contains(&value) { give(out, &[value as u8]) } else { give(out, &value.to_ne_bytes()) }
}

impl Sock {
    /// setsockopt(2).
    pub fn set_option(self, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
        let socket = self.words()?;
        let slot = socket.slot();
        // Linux looks at the size first, then whether there is such an option of sockets at all.
        if level == SOL_SOCKET && name != libc::SO_BINDTODEVICE {
            int(value)?;
        }
        match find(level, name, Family::of(&socket), Errno::NOPROTOOPT)? {
            How::Card(bit) => {
                let on = int(value)? != 0;
                if bit == hc_flags::CORK {
                    // From now on it is the program's.
                    socket.set_flag(own_flags::MORE, false);
                }
                if bit == hc_flags::NODELAY && on && socket.renew_nodelay() {
                    let socket = self.socket()?;
                    hub::lock().update(socket.index());
                }
                if socket.set_tx_flags(bit, on) && socket.state() == slot_state::CONNECTED {
                    let socket = self.socket()?;
                    hub::lock().update(socket.index());
                }
            }
            How::Own(flag) => socket.set_flag(flag, int(value)? != 0),
            How::OwnByte(flag) => socket.set_flag(flag, byte_or_int(value)? != 0),
            How::RxTimeout => slot.rx.timeout_us.store(timeval(value)?, Relaxed),
            How::TxTimeout => slot.tx.timeout_us.store(timeval(value)?, Relaxed),
            How::LowWater => {
                // Negative: as much as can be. The receive buffer is a bound of its own.
                let bytes = match int(value)? {
                    n @ 0.. => n,
                    _ => LOW_WATER_MAX,
                };
                slot.rx.low_water.store(bytes.cast_unsigned(), Relaxed);
            }
            How::Linger => {
                let (on, seconds) = (int(value)?, int(value.get(4..).unwrap_or(&[]))?);
                let stored = if on != 0 { seconds.clamp(0, 65535).cast_unsigned() + 1 } else { 0 };
                slot.tx.linger.store(stored, Relaxed);
            }
            How::Rate => {
                let rate = rate(value)?;
                process::ask(|client| client.limit_rate(self.slot, rate))?;
                slot.tx.pacing.store(!rate, Relaxed);
            }
            How::V6Only => {
                let on = int(value)? != 0;
                if socket.has_flag(own_flags::BOUND) || socket.state() != slot_state::OPEN {
                    return Err(Errno::INVAL);
                }
                socket.set_flag(own_flags::V6ONLY, on);
            }
            How::Kept(_) => self.keep(level, name, int(value)?),
            How::KeptBool(_) => self.keep(level, name, (int(value)? != 0).into()),
            How::KeptByte(_) => self.keep(level, name, byte_or_int(value)?),
            How::Number(option, _) => self.set_number(&socket, option, (level, name), int(value)?)?,
            How::NumberByte(option, _) => self.set_number(&socket, option, (level, name), byte_or_int(value)?)?,
            How::MaxSegment => self.set_number(&socket, SocketOption::MaxSegment, (level, name), int(value)?)?,
            // For the kernel, should the socket become its own.
            How::TxBuffer | How::RxBuffer => self.keep(level, name, int(value)?),
            How::Congestion => self.keep(level, name, self.set_congestion(value)?.into()),
            How::Error | How::Value(_) | How::Domain | How::Listening | How::Info => return Err(Errno::NOPROTOOPT),
            How::Refused(errno) => return Err(errno),
        }
        Ok(())
    }

    fn set_number(self, socket: &Socket<'_>, option: SocketOption, (level, name): (i32, i32), value: i32) -> Result<(), Errno> {
        let shown = socket.set_option(option, value)?;
        self.keep(level, name, shown);
        if option.tells() != Tells::Nothing && socket.state() == slot_state::CONNECTED {
            let socket = self.socket()?;
            hub::lock().tell_of(socket.index(), option);
        }
        Ok(())
    }

    fn keep(self, level: i32, name: i32, value: i32) {
        hub::lock().keep(self.slot, (level, name), value);
    }

    /// What was set, or `first`.
    fn kept(self, level: i32, name: i32, first: i32) -> i32 {
        hub::lock().kept(self.slot, (level, name)).unwrap_or(first)
    }

    /// getsockopt(2): writes to `out` and answers how many bytes.
    pub fn option(self, level: i32, name: i32, out: &mut [u8]) -> Result<usize, Errno> {
        let socket = self.words()?;
        let slot = socket.slot();
        // A program that asks for more looks whether it has got it (iperf3 -w): twice as much, as on Linux.
        let buffer = |len: u32| {
            let is = if len == 0 { BUFFER_DEFAULT } else { len as i32 };
            is.max(self.kept(level, name, 0).clamp(0, BUFFER_ASKED_MAX) * 2)
        };
        let value = match find(level, name, Family::of(&socket), Errno::OPNOTSUPP)? {
            How::Card(hc_flags::CORK) if socket.has_flag(own_flags::MORE) => 0,
            How::Card(bit) => (socket.tx_flags() & bit != 0).into(),
            How::Own(flag) => socket.has_flag(flag).into(),
            How::RxTimeout => return Ok(give(out, &timeval_bytes(slot.rx.timeout_us.load(Relaxed)))),
            How::TxTimeout => return Ok(give(out, &timeval_bytes(slot.tx.timeout_us.load(Relaxed)))),
            How::LowWater => slot.rx.low_water.load(Relaxed).max(1) as i32,
            How::Linger => {
                let stored = slot.tx.linger.load(Relaxed) as i32;
                let mut both = [0; 8];
                both[..4].copy_from_slice(&i32::from(stored != 0).to_ne_bytes());
                both[4..].copy_from_slice(&(stored - 1).max(0).to_ne_bytes());
                return Ok(give(out, &both));
            }
            How::Rate => {
                let rate = !slot.tx.pacing.load(Relaxed);
                if out.len() >= size_of::<u64>() {
                    return Ok(give(out, &rate.to_ne_bytes()));
                }
                u32::try_from(rate).unwrap_or(u32::MAX).cast_signed()
            }
            How::Error => {
                hub::lock().drain();
                socket.take_error().map_or(0, Errno::raw_os_error)
            }
            How::Value(value) => value,
            How::Kept(first) | How::KeptBool(first) | How::Number(_, first) => self.kept(level, name, first),
            How::OwnByte(flag) => return Ok(give_byte_or_int(out, socket.has_flag(flag).into())),
            How::KeptByte(first) | How::NumberByte(_, first) => return Ok(give_byte_or_int(out, self.kept(level, name, first))),
            How::TxBuffer => buffer(slot.conn.tx_len.load(Relaxed)),
            How::RxBuffer => buffer(slot.conn.rx_len.load(Relaxed)),
            How::Listening => (socket.state() == slot_state::LISTENING).into(),
            How::V6Only => socket.has_flag(own_flags::V6ONLY).into(),
            How::Domain => Family::of(&socket).number(),
            How::MaxSegment => match self.kept(level, name, 0) {
                asked @ 1.. if socket.state() != slot_state::CONNECTED => asked,
                _ => MSS_DEFAULT as i32,
            },
            How::Info => return Ok(give(out, &self.tcp_info(&socket))),
            How::Congestion => return Ok(give(out, &self.congestion()?)),
            How::Refused(errno) => return Err(errno),
        };
        Ok(give(out, &value.to_ne_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_option_has_two_rows() {
        for (i, (level, name, _)) in OPTIONS.iter().enumerate() {
            let again = OPTIONS[i + 1..].iter().any(|(l, n, _)| (l, n) == (level, name));
            assert!(!again, "level {level}, option {name}");
        }
    }

    #[test]
    fn unknown_options_are_refused_as_by_linux() {
        assert_eq!(find(SOL_SOCKET, 9999, Family::Inet, Errno::OPNOTSUPP), Err(Errno::NOPROTOOPT));
        assert_eq!(find(IPPROTO_TCP, 9999, Family::Inet, Errno::OPNOTSUPP), Err(Errno::NOPROTOOPT));
        assert_eq!(find(12345, 1, Family::Inet, Errno::OPNOTSUPP), Err(Errno::OPNOTSUPP));
        assert_eq!(find(IPPROTO_IPV6, libc::IPV6_V6ONLY, Family::Inet, Errno::OPNOTSUPP), Err(Errno::OPNOTSUPP));
        assert_eq!(find(IPPROTO_IPV6, libc::IPV6_V6ONLY, Family::Inet6, Errno::OPNOTSUPP), Ok(How::V6Only));
        assert_eq!(find(IPPROTO_TCP, libc::TCP_FASTOPEN, Family::Inet, Errno::OPNOTSUPP), Ok(How::Refused(Errno::NOPROTOOPT)));
    }

    #[test]
    fn timeouts_survive_the_round_trip() {
        for us in [0, 2, 1_500_000, u32::MAX] {
            assert_eq!(timeval(&timeval_bytes(us)), Ok(us));
        }
        assert_eq!(timeval(&[0; 15]), Err(Errno::INVAL));
        let mut bad = timeval_bytes(0);
        bad[8..].copy_from_slice(&1_000_000i64.to_ne_bytes());
        assert_eq!(timeval(&bad), Err(Errno::DOM));
        bad[..8].copy_from_slice(&i64::MAX.to_ne_bytes());
        bad[8..].fill(0);
        assert_eq!(timeval(&bad), Ok(u32::MAX));
    }

    #[test]
    fn rates_have_two_widths() {
        assert_eq!(rate(&125_000u32.to_ne_bytes()), Ok(125_000));
        assert_eq!(rate(&u32::MAX.to_ne_bytes()), Ok(u64::MAX));
        assert_eq!(rate(&u64::from(u32::MAX).to_ne_bytes()), Ok(u32::MAX.into()));
        assert_eq!(rate(&[1; 9]), Ok(0x0101_0101_0101_0101));
        assert_eq!(rate(&[1; 7]), Ok(0x0101_0101), "too short for 64 bits");
        assert_eq!(rate(&[1; 3]), Err(Errno::INVAL));
    }

    #[test]
    fn a_byte_will_do_for_the_ip_layer() {
        assert_eq!((byte_or_int(&[7]), byte_or_int(&[7, 1, 0, 0]), byte_or_int(&[])), (Ok(7), Ok(263), Err(Errno::INVAL)));
    }

    #[test]
    fn short_buffers_get_what_fits() {
        assert_eq!(give(&mut [0; 2], &[1, 2, 3]), 2);
        assert_eq!(int(&[1, 0, 0]), Err(Errno::INVAL));
    }
}
