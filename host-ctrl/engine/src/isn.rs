//! What must not be guessed: initial sequence numbers (RFC 6528), timestamp offsets (RFC 7323, 5.4), port choice (RFC 6056),
//! what is left of limits, and the hash tables that a sender could otherwise fill in one bucket. All of it is SipHash under one secret,
//! each use in a domain of its own.

use crate::addr::{Ip, is_v4};
use siphasher::sip::{SipHasher13, SipHasher24};
use std::hash::{BuildHasher, Hasher};
use toe_abi::flow::FlowKey;
use toe_wire::SeqNum;

#[derive(Clone, Copy)]
enum Domain {
    Isn = 1,
    Timestamp = 2,
    Port = 3,
    Listener = 4,
    InterfaceId = 5,
    Cookie = 6,
    PortCounter = 7,
    Address = 8,
    Random = 9,
}

/// The secret, and what is derived from it.
#[derive(Clone, Copy)]
pub struct Keys {
    secret: [u8; 16],
}

impl Keys {
    pub fn new(secret: [u8; 16]) -> Self {
        Self { secret }
    }

    /// Of a tuple, open for more.
    fn hasher(&self, domain: Domain, key: &FlowKey) -> SipHasher24 {
        let mut h = SipHasher24::new_with_key(&self.secret);
        h.write_u8(domain as u8);
        h.write(&key.local_ip);
        h.write(&key.remote_ip);
        h.write(&key.local_port.to_be_bytes());
        h.write(&key.remote_port.to_be_bytes());
        h
    }

    fn hash(&self, domain: Domain, key: &FlowKey) -> u64 {
        self.hasher(domain, key).finish()
    }

    /// RFC 6528, 3: ISN = M + F(localip, localport, remoteip, remoteport, secretkey), M a clock of 4 us ticks.
    /// RFC 9293 MUST-8, SHLD-1, MUST-9; RFC 6528 3-1, 3-2.
    pub fn isn(&self, key: &FlowKey, now_us: u64) -> SeqNum {
        let f = self.hash(Domain::Isn, key) as u32;
        SeqNum(f.wrapping_add((now_us / 4) as u32))
    }

    /// Added to the millisecond clock to give a connection's timestamps. The same for each incarnation of a
    /// tuple, so that they rise from one to the next (RFC 6191 relies on it).
    // RFC 7323 7.1-1.
    pub fn ts_offset(&self, key: &FlowKey) -> u32 {
        self.hash(Domain::Timestamp, key) as u32
    }

    /// Where the search for a local port begins: per destination (RFC 6056, 3.3.4). Upper half: which counter to use.
    pub fn port_offset(&self, local_ip: [u8; 16], remote_ip: [u8; 16], remote_port: u16) -> (u32, u32) {
        let h = self.hash(Domain::Port, &FlowKey { local_ip, remote_ip, local_port: 0, remote_port });
        (h as u32, (h >> 32) as u32)
    }

    /// Where the counters of that search begin (RFC 6056, 3.3.4: at random).
    pub fn port_counter(&self, n: usize) -> u32 {
        self.hash(Domain::PortCounter, &FlowKey { local_port: n as u16, ..FlowKey::default() }) as u32
    }

    /// The number of an interface in a network, the same each time for one `secret` (RFC 7217, 5), never a reserved one (RFC 5453).
    pub fn interface_id(secret: &[u8; 16], prefix: &[u8; 16], mac: &[u8; 6], attempt: u8) -> [u8; 8] {
        let mut h = SipHasher24::new_with_key(secret);
        h.write_u8(Domain::InterfaceId as u8);
        h.write(&prefix[..8]);
        h.write(mac);
        h.write_u8(attempt);
        let id = h.finish();
        // The subnet's router, and its anycast addresses: one in 2^57 is changed.
        let reserved = id == 0 || (0xfdff_ffff_ffff_ff80..=0xfdff_ffff_ffff_ffff).contains(&id);
        if reserved { 1u64 } else { id }.to_be_bytes()
    }

    /// The hash in a SYN cookie: of what a SYN said, and of when.
    pub fn cookie(&self, key: &FlowKey, irs: SeqNum, tick: u64, class: u32) -> u32 {
        let mut h = self.hasher(Domain::Cookie, key);
        h.write(&irs.0.to_be_bytes());
        h.write(&tick.to_be_bytes());
        h.write(&class.to_be_bytes());
        h.finish() as u32
    }

    /// Which of `n` limits is that of an address; of IPv6, of its network of 64 bits.
    pub fn address_choice(&self, ip: &Ip, n: usize) -> usize {
        let mut of = *ip;
        if !is_v4(ip) {
            of[8..].fill(0);
        }
        (self.hash(Domain::Address, &FlowKey { remote_ip: of, ..FlowKey::default() }) % (n.max(1) as u64)) as usize
    }

    /// The nth of numbers that nobody can guess.
    pub fn random(&self, nth: u64) -> u64 {
        let mut h = SipHasher24::new_with_key(&self.secret);
        h.write_u8(Domain::Random as u8);
        h.write(&nth.to_be_bytes());
        h.finish()
    }

    /// Which of several listeners of a port (SO_REUSEPORT) takes a connection.
    pub fn listener_choice(&self, key: &FlowKey, n: usize) -> usize {
        (self.hash(Domain::Listener, key) % (n.max(1) as u64)) as usize
    }
}

/// Hash tables keyed by what the wire says. Deterministic for one secret.
impl BuildHasher for Keys {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_key(&self.secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use toe_abi::flow::v4_mapped;

    fn key(local_port: u16) -> FlowKey {
        FlowKey { local_ip: v4_mapped([10, 0, 0, 1]), remote_ip: v4_mapped([10, 0, 0, 2]), local_port, remote_port: 80 }
    }

    /// The reference implementation's vectors: key 00..0f, input 00, 00 01, ...
    #[test]
    fn siphash_2_4_reference_vectors() {
        let secret: [u8; 16] = core::array::from_fn(|i| i as u8);
        let expected: [u64; 4] = [0x726f_db47_dd0e_0e31, 0x74f8_39c5_93dc_67fd, 0x0d6c_8009_d9a9_4f5a, 0x8567_6696_d7fb_7e2d];
        for (n, want) in expected.into_iter().enumerate() {
            let mut h = SipHasher24::new_with_key(&secret);
            h.write(&(0..n as u8).collect::<Vec<_>>());
            assert_eq!(h.finish(), want, "input of {n} bytes");
        }
    }

    /// RFC 9293 MUST-8.
    #[test]
    fn isn_rises_by_one_every_four_microseconds() {
        let k = Keys::new([7; 16]);
        let t = 1_000_000;
        let first = k.isn(&key(1), t);
        assert_eq!(k.isn(&key(1), t + 3), first);
        assert_eq!(k.isn(&key(1), t + 4), first.add(1));
        assert_eq!(k.isn(&key(1), t + 4_000_000), first.add(1_000_000));
        // The 32-bit clock turns over after 4.77 hours; nothing jumps there.
        let turn = (1u64 << 32) * 4;
        assert_eq!(k.isn(&key(1), turn), k.isn(&key(1), turn - 4).add(1));
    }

    /// RFC 6528 3-2.
    #[test]
    fn isn_differs_by_tuple_and_by_secret() {
        let (a, b) = (Keys::new([1; 16]), Keys::new([2; 16]));
        assert_ne!(a.isn(&key(1), 0), a.isn(&key(2), 0));
        assert_ne!(a.isn(&key(1), 0), b.isn(&key(1), 0));
        let swapped = FlowKey { local_port: 80, remote_port: 1, ..key(1) };
        assert_ne!(a.isn(&key(1), 0), a.isn(&swapped, 0));
    }

    /// RFC 7323 7.1-1.
    #[test]
    fn interface_ids_stay_within_a_network_and_differ_between() {
        let id = |secret: u8, net: u8, mac: u8, attempt| Keys::interface_id(&[secret; 16], &[net; 16], &[mac; 6], attempt);
        assert_eq!(id(1, 1, 1, 0), id(1, 1, 1, 0));
        for other in [id(2, 1, 1, 0), id(1, 2, 1, 0), id(1, 1, 2, 0), id(1, 1, 1, 1)] {
            assert_ne!(id(1, 1, 1, 0), other);
        }
    }

    #[test]
    fn uses_do_not_share_a_hash() {
        let k = Keys::new([3; 16]);
        assert_ne!(k.isn(&key(1), 0).0, k.ts_offset(&key(1)));
    }
}
