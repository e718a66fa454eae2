//! Ends that send as much as they can, and ends that count it and check every byte.

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp;
use toe::{Context, Event, SocketId};
use toe_hal::RxOffload;
use toe_hal::fake::FakeFrame;
use toe_link::slot::Addr;
use toe_tests::sim::host::{App, SimDaemon};
use toe_tests::sim::smol::SmolHost;
use toe_tests::sim::world::{End, Scripted};

/// Length of the pattern that repeats: a prime, so that it is out of step with segments and buffers.
const PERIOD: usize = 65_521;

/// The stream: what it is made of, and how far it has come.
pub struct Stream {
    pattern: Vec<u8>,
    pub bytes: u64,
}

impl Default for Stream {
    fn default() -> Self {
        let byte = |i: usize| ((i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
        Self { pattern: (0..PERIOD).map(byte).collect(), bytes: 0 }
    }
}

impl Stream {
    /// What comes next, up to where the pattern repeats.
    fn next(&self) -> &[u8] {
        &self.pattern[(self.bytes % PERIOD as u64) as usize..]
    }

    /// Panics if this is not what comes next.
    fn check(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let n = bytes.len().min(self.next().len());
            assert!(bytes[..n] == self.next()[..n], "wrong bytes from {} on", self.bytes);
            self.bytes += n as u64;
            bytes = &bytes[n..];
        }
    }
}

/// On a host of ours.
pub struct Bulk {
    role: Role,
    socket: Option<SocketId>,
    pub stream: Stream,
}

enum Role {
    Send(Addr),
    Receive(u16, Option<SocketId>),
}

impl Bulk {
    pub fn sender(to: Addr) -> Self {
        Self { role: Role::Send(to), socket: None, stream: Stream::default() }
    }

    pub fn receiver(port: u16) -> Self {
        Self { role: Role::Receive(port, None), socket: None, stream: Stream::default() }
    }

    fn open(&mut self, toe: &mut Context<SimDaemon>) -> Result<bool, toe::Error> {
        match &mut self.role {
            Role::Send(to) => self.socket = Some(toe.connect(*to)?),
            Role::Receive(_, Some(listener)) => self.socket = toe.accept(*listener)?,
            Role::Receive(port, listener) => {
                *listener = Some(toe.listen(Addr::v4([0; 4], *port), 1)?);
                return Ok(true);
            }
        }
        Ok(self.socket.is_some())
    }

    fn carry(&mut self, toe: &mut Context<SimDaemon>, id: SocketId) -> Result<bool, toe::Error> {
        let before = self.stream.bytes;
        match self.role {
            Role::Send(_) => {
                while let Some(n) = toe.send(id, self.stream.next())? {
                    self.stream.bytes += n as u64;
                }
            }
            Role::Receive(..) => {
                let mut buffer = [0; 16 * 1024];
                while let Some(n @ 1..) = toe.recv(id, &mut buffer)? {
                    self.stream.check(&buffer[..n]);
                }
            }
        }
        Ok(self.stream.bytes != before)
    }
}

impl App for Bulk {
    fn run(&mut self, toe: &mut Context<SimDaemon>, _events: &[Event], _now_us: u64) -> bool {
        let worked = match self.socket {
            None => self.open(toe),
            Some(id) => self.carry(toe, id),
        };
        // A connection that ends early has carried less: that is what is measured.
        worked.unwrap_or(false)
    }
}

impl Scripted for Bulk {
    fn done(&self) -> bool {
        false
    }

    fn describe(&self) -> String {
        format!("{} bytes", self.stream.bytes)
    }
}

/// On a host of smoltcp's.
pub struct SmolBulk {
    pub host: SmolHost,
    pub socket: SocketHandle,
    pub sends: bool,
    pub stream: Stream,
}

impl SmolBulk {
    fn carry(&mut self) {
        let (socket, stream) = (self.host.tcp(self.socket), &mut self.stream);
        while self.sends && socket.can_send() {
            stream.bytes += socket.send_slice(stream.next()).unwrap_or(0) as u64;
        }
        while !self.sends && socket.can_recv() {
            let _ = socket.recv(|bytes| (bytes.len(), stream.check(bytes)));
        }
    }
}

impl End for SmolBulk {
    fn arrive(&mut self, frame: FakeFrame) {
        self.host.arrive(frame.bytes);
    }

    fn run(&mut self, now_us: u64) {
        self.host.poll(now_us);
        self.carry();
        self.host.poll(now_us);
    }

    fn take_sent(&mut self) -> Option<FakeFrame> {
        self.host.take_sent().map(|bytes| FakeFrame { bytes, offload: RxOffload::default() })
    }

    fn next_us(&mut self, now_us: u64) -> Option<u64> {
        self.host.next_us(now_us)
    }

    fn done(&self) -> bool {
        false
    }

    fn describe(&mut self) -> String {
        format!("{} bytes", self.stream.bytes)
    }
}

/// The socket of a host of smoltcp's, with CUBIC as ours.
pub fn cubic(host: &mut SmolHost, buffer: usize) -> SocketHandle {
    let socket = host.socket(buffer);
    host.tcp(socket).set_congestion_control(tcp::CongestionControl::Cubic);
    socket
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_checked_across_the_end_of_its_pattern() {
        let (mut sent, mut got) = (Stream::default(), Stream::default());
        sent.bytes = PERIOD as u64 - 10;
        got.bytes = sent.bytes;
        let bytes = [sent.next(), &sent.pattern[..20]].concat();
        got.check(&bytes);
        assert_eq!(got.bytes, PERIOD as u64 + 20);
    }

    #[test]
    #[should_panic(expected = "wrong bytes from 0 on")]
    fn a_stream_that_is_wrong_is_found() {
        Stream::default().check(&[1, 2, 3]);
    }
}
