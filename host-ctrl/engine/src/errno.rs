//! Linux's error numbers, as far as the control plane answers with them.

use core::fmt;

/// A Linux errno.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub u32);

macro_rules! errnos {
    ($($(#[doc = $doc:literal])* $name:ident = $value:literal,)*) => {
        impl Errno {
            $($(#[doc = $doc])* pub const $name: Errno = Errno($value);)*

            /// Its symbol, as in errno(3).
            pub const fn name(self) -> &'static str {
                match self.0 { $($value => stringify!($name),)* _ => "unknown errno" }
            }
        }
    };
}

errnos! {
    /// No such binding, listener or connection (any more).
    EBADF = 9,
    EACCES = 13,
    EINVAL = 22,
    /// A limit of the control plane is reached.
    ENFILE = 23,
    EPROTO = 71,
    /// There is no address of this version.
    EAFNOSUPPORT = 97,
    EADDRINUSE = 98,
    /// Not an address of the card, or no ephemeral port is left for this destination.
    EADDRNOTAVAIL = 99,
    /// No route to the destination.
    ENETUNREACH = 101,
    ECONNABORTED = 103,
    ECONNRESET = 104,
    ENOBUFS = 105,
    /// The peer, or a router, did not answer our SYNs in time.
    ETIMEDOUT = 110,
    ECONNREFUSED = 111,
    /// The next hop does not answer, or a router says that the host is unreachable.
    EHOSTUNREACH = 113,
    /// ICMP protocol unreachable.
    ENOPROTOOPT = 92,
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name(), self.0)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
