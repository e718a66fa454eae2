//! A network interface of the kernel: what the card has to know of it, by the classic ioctls.

use super::PortError;
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::net::{AddressFamily, SocketType};
use std::io;
use std::net::Ipv4Addr;

/// An interface of the network namespace the process was in when it opened it.
#[derive(Debug)]
pub struct Interface {
    /// When it was opened: it may be given another.
    name: String,
    index: u32,
    /// Any socket serves as the handle for interface ioctls.
    socket: OwnedFd,
}

impl Interface {
    pub fn open(name: &str) -> Result<Self, PortError> {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)
            .map_err(|e| PortError::os("socket for interface ioctls", e))?;
        let index = rustix::net::netdevice::name_to_index(&socket, name).map_err(|_| PortError::NoInterface(name.to_owned()))?;
        Ok(Self { name: name.to_owned(), index, socket })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn index(&self) -> u32 {
        self.index
    }

    pub fn exists(&self) -> bool {
        self.name_now().is_ok()
    }

    fn name_now(&self) -> Result<String, PortError> {
        rustix::net::netdevice::index_to_name(&self.socket, self.index).map_err(|_| PortError::NoInterface(self.name.clone()))
    }

    pub fn mac(&self) -> Result<[u8; 6], PortError> {
        let request = self.ioctl(libc::SIOCGIFHWADDR, "SIOCGIFHWADDR", |_| {})?;
        // SAFETY: SIOCGIFHWADDR has filled the address variant; any bytes are a valid sockaddr.
        let address = unsafe { request.ifr_ifru.ifru_hwaddr };
        if address.sa_family != libc::ARPHRD_ETHER {
            return Err(PortError::NotEthernet(self.name.clone()));
        }
        let mut mac = [0; 6];
        for (to, from) in mac.iter_mut().zip(address.sa_data) {
            *to = from as u8;
        }
        Ok(mac)
    }

    /// Bytes of an IP packet.
    pub fn mtu(&self) -> Result<u16, PortError> {
        let request = self.ioctl(libc::SIOCGIFMTU, "SIOCGIFMTU", |_| {})?;
        // SAFETY: SIOCGIFMTU has filled the integer variant.
        let mtu = unsafe { request.ifr_ifru.ifru_mtu };
        Ok(u16::try_from(mtu.clamp(68, 65535)).unwrap_or(u16::MAX))
    }

    fn flags(&self) -> Result<i16, PortError> {
        let request = self.ioctl(libc::SIOCGIFFLAGS, "SIOCGIFFLAGS", |_| {})?;
        // SAFETY: SIOCGIFFLAGS has filled the flags variant.
        Ok(unsafe { request.ifr_ifru.ifru_flags })
    }

    pub fn is_up(&self) -> Result<bool, PortError> {
        Ok(i32::from(self.flags()?) & libc::IFF_UP != 0)
    }

    /// Whether frames pass: it is up, and has a carrier.
    pub fn is_running(&self) -> Result<bool, PortError> {
        Ok(i32::from(self.flags()?) & libc::IFF_RUNNING != 0)
    }

    /// Brings the interface up if it is down.
    pub fn bring_up(&self) -> Result<(), PortError> {
        let flags = self.flags()?;
        if i32::from(flags) & libc::IFF_UP == 0 {
            let up = flags | libc::IFF_UP as i16;
            self.ioctl(libc::SIOCSIFFLAGS, "bringing the interface up", |r| r.ifr_ifru.ifru_flags = up)?;
            tracing::info!(interface = self.name, "was down, brought up");
        }
        Ok(())
    }

    /// An IPv4 address that the kernel itself has on the interface.
    pub fn kernel_ipv4(&self) -> Option<Ipv4Addr> {
        let request = self.ioctl(libc::SIOCGIFADDR, "SIOCGIFADDR", |_| {}).ok()?;
        // SAFETY: SIOCGIFADDR has filled the address variant; any bytes are a valid sockaddr.
        let address = unsafe { request.ifr_ifru.ifru_addr };
        let [_, _, a, b, c, d, ..] = address.sa_data.map(|x| x as u8);
        Some(Ipv4Addr::new(a, b, c, d))
    }

    fn ioctl(&self, number: libc::c_ulong, step: &'static str, fill: impl FnOnce(&mut libc::ifreq)) -> Result<libc::ifreq, PortError> {
        // SAFETY: ifreq is plain integers and a union of them: all zero is valid.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // The last byte stays zero: the kernel's names have at most 15 bytes.
        for (to, from) in request.ifr_name.iter_mut().zip(self.name_now()?.bytes().take(libc::IFNAMSIZ - 1)) {
            *to = from as libc::c_char;
        }
        fill(&mut request);
        // SAFETY: every number used here takes a pointer to one ifreq.
        if unsafe { libc::ioctl(self.socket.as_raw_fd(), number, &mut request) } < 0 {
            let error = io::Error::last_os_error();
            return Err(match error.raw_os_error() {
                Some(libc::ENODEV | libc::ENXIO) => PortError::NoInterface(self.name.clone()),
                Some(libc::EPERM | libc::EACCES) => PortError::NoRight { right: "CAP_NET_ADMIN", step },
                _ => PortError::Os { step, source: error },
            });
        }
        Ok(request)
    }
}
