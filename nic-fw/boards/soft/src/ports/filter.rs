//! Keeps frames of the card away from the kernel's own stack: a filter at the interface's ingress that drops all.
//!
//! ```text
//!   frame ──► packet sockets (the card takes its copy) ──► clsact ingress: drop ──✗── kernel's IP
//! ```
//!
//! Without it the kernel would answer the card's connections with RST. The filter is one `cls_bpf` with the classic
//! program `ret TC_ACT_SHOT` in direct-action mode: no action module, no bpf() call, so it works in a
//! user namespace too. It has a preference of its own, so a filter left by a killed card is recognised and taken over.

use super::PortError;
use super::netif::Interface;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Preference (priority) of our filter.
pub const PREF: u16 = 0xf707;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_NEWTFILTER: u16 = 44;
const RTM_DELTFILTER: u16 = 45;
const RTM_GETTFILTER: u16 = 46;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_OPS_LEN: u16 = 4;
const TCA_BPF_OPS: u16 = 5;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;
const NLA_F_NESTED: u16 = 0x8000;
const CLSACT_HANDLE: u32 = 0xffff_0000;
const CLSACT_PARENT: u32 = 0xffff_fff1;
const CLSACT_INGRESS: u32 = 0xffff_fff2;
const CLSACT_EGRESS: u32 = 0xffff_fff3;
/// Bytes of a netlink message header.
const NLMSG_HDR_LEN: usize = 16;

/// One `sock_filter`: `BPF_RET | BPF_K` with TC_ACT_SHOT.
const DROP_PROGRAM: [u8; 8] = {
    let [a, b] = 0x06u16.to_ne_bytes();
    let [c, d, e, f] = 2u32.to_ne_bytes();
    [a, b, 0, 0, c, d, e, f]
};

/// The sole right to an interface in its network namespace. The kernel takes it back when the process ends.
#[derive(Debug)]
pub struct Claim(#[expect(dead_code, reason = "held for its lifetime")] UnixDatagram);

impl Claim {
    pub fn new(interface: &Interface) -> Result<Self, PortError> {
        // Abstract socket names belong to the network namespace, as interface numbers do.
        let name = format!("ferrotoe-port-{}", interface.index());
        let address = SocketAddr::from_abstract_name(name).map_err(|e| PortError::os("naming the interface's lock", e))?;
        match UnixDatagram::bind_addr(&address) {
            Ok(socket) => Ok(Self(socket)),
            Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => Err(PortError::InUse(interface.name().to_owned())),
            Err(e) => Err(PortError::os("locking the interface", e)),
        }
    }
}

/// The filter, removed on drop.
#[derive(Debug)]
pub struct IngressDrop {
    /// Made when the filter was: it stays in that network namespace.
    socket: OwnedFd,
    index: u32,
    interface: String,
    /// The queueing discipline was made by a card, so a card removes it, unless others have come to use it.
    owns_qdisc: bool,
}

impl IngressDrop {
    pub fn install(interface: &Interface) -> Result<Self, PortError> {
        let step = "netlink socket for the ingress filter";
        // No protocol is protocol 0: NETLINK_ROUTE.
        let socket = rustix::net::socket(AddressFamily::NETLINK, SocketType::RAW, None).map_err(|e| PortError::os(step, e))?;
        let mut this = Self { socket, index: interface.index(), interface: interface.name().to_owned(), owns_qdisc: false };
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        let needs = |step| move |e| PortError::needs("CAP_NET_ADMIN", step, e);
        match this.request(RTM_NEWQDISC, flags, Object::Qdisc) {
            Ok(()) => this.owns_qdisc = true,
            Err(Errno::EXIST) => {}
            Err(e) => return Err(needs("adding the clsact queueing discipline")(e)),
        }
        match this.request(RTM_NEWTFILTER, flags, Object::Filter) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                tracing::info!(interface = this.interface, "taking over the ingress filter of a card that was killed");
                this.owns_qdisc = true;
            }
            Err(e) => return Err(needs("adding the ingress filter (kernel option NET_CLS_BPF)")(e)),
        }
        Ok(this)
    }

    fn request(&self, kind: u16, flags: u16, object: Object) -> Result<(), Errno> {
        let answer = self.ask(&object.message(kind, flags | NLM_F_REQUEST | NLM_F_ACK, self.index))?;
        let word = |at: usize| answer.get(at..at + 4).and_then(|b| b.try_into().ok()).map(i32::from_ne_bytes);
        match word(NLMSG_HDR_LEN).filter(|_| kind_of(&answer) == Some(NLMSG_ERROR)) {
            Some(0) => Ok(()),
            Some(code) => Err(Errno::from_raw_os_error(code.saturating_neg())),
            None => Err(Errno::PROTO),
        }
    }

    /// Whether there is a filter, anybody's. Then more answers wait than are read: nothing else is asked afterwards.
    fn has_filters(&self, parent: u32) -> Result<bool, Errno> {
        let answer = self.ask(&Object::FiltersOf(parent).message(RTM_GETTFILTER, NLM_F_REQUEST | NLM_F_DUMP, self.index))?;
        Ok(kind_of(&answer) != Some(NLMSG_DONE))
    }

    /// Sends one request and waits for the kernel's answer, which it gives within the call: the begin of it.
    fn ask(&self, message: &[u8]) -> Result<Vec<u8>, Errno> {
        rustix::net::send(&self.socket, message, SendFlags::empty())?;
        let mut answer = vec![0; 1024];
        let (len, _) = rustix::net::recv(&self.socket, &mut answer[..], RecvFlags::empty())?;
        answer.truncate(len);
        Ok(answer)
    }

    fn remove(&self) -> Result<(), Errno> {
        match self.request(RTM_DELTFILTER, 0, Object::Filter) {
            // Not made, or others have taken it away.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
        if self.owns_qdisc && !self.has_filters(CLSACT_INGRESS)? && !self.has_filters(CLSACT_EGRESS)? {
            self.request(RTM_DELQDISC, 0, Object::Qdisc)?;
        }
        Ok(())
    }
}

impl Drop for IngressDrop {
    fn drop(&mut self) {
        match self.remove() {
            // An interface that has gone took its filter along.
            Ok(()) | Err(Errno::NODEV) => {}
            Err(error) => tracing::warn!(interface = self.interface, %error, "removing the ingress filter"),
        }
    }
}

/// The kind of a netlink message.
fn kind_of(message: &[u8]) -> Option<u16> {
    message.get(4..6)?.try_into().ok().map(u16::from_ne_bytes)
}

#[derive(Clone, Copy)]
enum Object {
    Qdisc,
    Filter,
    FiltersOf(u32),
}

impl Object {
    /// A netlink message about it: `nlmsghdr`, `tcmsg`, attributes.
    fn message(self, kind: u16, flags: u16, index: u32) -> Vec<u8> {
        let (handle, parent, info) = match self {
            Self::Qdisc => (CLSACT_HANDLE, CLSACT_PARENT, 0),
            // Priority in the upper half, ETH_P_ALL in network order in the lower.
            Self::Filter => (1, CLSACT_INGRESS, u32::from(PREF) << 16 | u32::from((libc::ETH_P_ALL as u16).to_be())),
            Self::FiltersOf(parent) => (0, parent, 0),
        };
        let mut out = vec![0; NLMSG_HDR_LEN + 4];
        for word in [index, handle, parent, info] {
            out.extend_from_slice(&word.to_ne_bytes());
        }
        match self {
            Self::FiltersOf(_) => {}
            Self::Qdisc => attribute(&mut out, TCA_KIND, b"clsact\0"),
            Self::Filter => {
                attribute(&mut out, TCA_KIND, b"bpf\0");
                let mut options = Vec::new();
                attribute(&mut options, TCA_BPF_OPS_LEN, &1u16.to_ne_bytes());
                attribute(&mut options, TCA_BPF_OPS, &DROP_PROGRAM);
                attribute(&mut options, TCA_BPF_FLAGS, &TCA_BPF_FLAG_ACT_DIRECT.to_ne_bytes());
                attribute(&mut out, TCA_OPTIONS | NLA_F_NESTED, &options);
            }
        }
        let len = out.len() as u32;
        out[0..4].copy_from_slice(&len.to_ne_bytes());
        out[4..6].copy_from_slice(&kind.to_ne_bytes());
        out[6..8].copy_from_slice(&flags.to_ne_bytes());
        out
    }
}

/// Appends a netlink attribute, padded to four bytes.
fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let len = value.len() as u16 + 4;
    out.extend_from_slice(&len.to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_say_their_length_and_are_whole_words() {
        for object in [Object::Qdisc, Object::Filter, Object::FiltersOf(CLSACT_EGRESS)] {
            let m = object.message(RTM_NEWTFILTER, NLM_F_REQUEST, 7);
            assert_eq!(m[0..4], (m.len() as u32).to_ne_bytes());
            assert_eq!(m[4..6], RTM_NEWTFILTER.to_ne_bytes());
            assert_eq!(m.len() % 4, 0);
            assert_eq!(m[20..24], 7u32.to_ne_bytes(), "interface index in tcmsg");
        }
    }
}
