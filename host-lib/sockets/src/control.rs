//! fcntl, ioctl and shutdown.

use crate::{Errno, Sock, hub, process};
use std::sync::atomic::Ordering::Relaxed;
use toe::Socket;
use toe::link::client::Daemon;
use toe_abi::region::slot_state;

impl Sock {
    /// fcntl(F_GETFL): the flags of the open file description.
    pub fn status_flags(self) -> Result<i32, Errno> {
        let nonblocking = self.words()?.slot().tx.nonblocking.load(Relaxed) != 0;
        Ok(libc::O_RDWR | if nonblocking { libc::O_NONBLOCK } else { 0 })
    }

    /// fcntl(F_SETFL) and ioctl(FIONBIO). O_ASYNC and the rest are taken and ignored.
    pub fn set_nonblocking(self, on: bool) -> Result<(), Errno> {
        self.words()?.slot().tx.nonblocking.store(on.into(), Relaxed);
        Ok(())
    }

    /// ioctl(FIONREAD): bytes that can be received, up to an urgent one.
    pub fn queued_in(self) -> Result<i32, Errno> {
        Ok(self.counted()?.readable_to_mark() as i32)
    }

    /// ioctl(SIOCOUTQ): bytes that the peer has not acknowledged.
    pub fn queued_out(self) -> Result<i32, Errno> {
        Ok(self.counted()?.unacked() as i32)
    }

    /// ioctl(SIOCOUTQNSD): those of them that have not been sent. Without a toed that answers, no more than surely have not.
    pub fn not_sent(self) -> Result<i32, Errno> {
        let info = process::ask(|client| client.info(self.slot)).unwrap_or_default();
        let socket = self.counted()?;
        let bytes = if info.mss == 0 { socket.not_sent() } else { socket.unacked().saturating_sub(info.unacked) };
        Ok(bytes as i32)
    }

    /// The socket, with all that the card has said. EINVAL on a listener, as Linux.
    fn counted(self) -> Result<Socket<'static>, Errno> {
        let socket = self.socket()?;
        if socket.state() == slot_state::LISTENING {
            return Err(Errno::INVAL);
        }
        hub::lock().drain();
        Ok(socket)
    }

    /// A listener listens no more: whoever waits for connections hears of it.
    pub(crate) fn unlisten(self) -> Result<(), Errno> {
        process::ask(|client| client.unlisten(self.slot))?;
        hub::lock().changed(self.slot, toe::Change::IN.with(toe::Change::END));
        Ok(())
    }

    /// shutdown(2).
    pub fn shutdown(self, how: i32) -> Result<(), Errno> {
        let (rx, tx) = match how {
            libc::SHUT_RD => (true, false),
            libc::SHUT_WR => (false, true),
            libc::SHUT_RDWR => (true, true),
            _ => return Err(Errno::INVAL),
        };
        let socket = self.socket()?;
        match socket.state() {
            slot_state::CONNECTED if !socket.is_over() => {}
            slot_state::LISTENING if rx => {
                self.unlisten()?;
                socket.set_flag(toe::socket::own_flags::RX_SHUT, true);
                return Ok(());
            }
            slot_state::LISTENING => return Ok(()),
            // As Linux, whichever direction is named.
            slot_state::CONNECTING => match process::ask(|client| client.unlisten(self.slot)) {
                Ok(()) => {
                    hub::lock().changed(self.slot, toe::Change::IN.with(toe::Change::OUT).with(toe::Change::END));
                    return Ok(());
                }
                // Just now.
                Err(Errno::ISCONN) => {}
                Err(_) => return Err(Errno::NOTCONN),
            },
            _ => return Err(Errno::NOTCONN),
        }
        let mut tell = false;
        if tx {
            // After what other threads are putting into the buffer now.
            let _lock = toe::link::lock::SlotLock::lock(&socket.slot().tx.lock, process::thread_id());
            tell |= socket.shutdown_tx();
        }
        if rx {
            tell |= socket.shutdown_rx();
        }
        let mut hub = hub::lock();
        if tell {
            hub.update(self.slot);
        }
        hub.changed(self.slot, toe::Change::IN.with(toe::Change::OUT).with(toe::Change::END));
        Ok(())
    }
}
