//! What an application does with its sockets.

use arbitrary::Arbitrary;
use toe::{Context, Error, SocketId};
use toe_link::client::Daemon;
use toe_link::slot::Addr;

use super::peers::{PEER_IP, PEER_IP6, PEER_PORT};

/// A socket is named by its place among those that there are.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Call {
    Connect { v6: bool },
    Send { which: u8, len: u16 },
    Receive { which: u8, len: u16 },
    Shutdown(u8),
    Close(u8),
    Abort(u8),
    Nodelay(u8, bool),
    Keepalive(u8, bool),
    Cork(u8, bool),
    SendUrgent { which: u8, len: u16 },
    ReceiveUrgent(u8),
    OobInline(u8, bool),
}

impl Call {
    pub fn make<D: Daemon>(self, toe: &mut Context<D>, sockets: &mut Vec<SocketId>) -> Result<(), Error> {
        let pick = |which: u8| usize::from(which).checked_rem(sockets.len()).map(|at| (at, sockets[at]));
        let (Self::Send { which, .. }
        | Self::Receive { which, .. }
        | Self::Shutdown(which)
        | Self::Close(which)
        | Self::Abort(which)
        | Self::Nodelay(which, _)
        | Self::Keepalive(which, _)
        | Self::Cork(which, _)
        | Self::SendUrgent { which, .. }
        | Self::ReceiveUrgent(which)
        | Self::OobInline(which, _)) = self
        else {
            let v6 = matches!(self, Self::Connect { v6: true });
            sockets.push(toe.connect(if v6 { Addr::v6(PEER_IP6, PEER_PORT + 1) } else { Addr::v4(PEER_IP, PEER_PORT) })?);
            return Ok(());
        };
        let Some((at, id)) = pick(which) else { return Ok(()) };
        match self {
            Self::Send { len, .. } => drop(toe.send(id, &vec![0x55; len.into()])?),
            Self::Receive { len, .. } => drop(toe.recv(id, &mut vec![0; len.into()])?),
            Self::Shutdown(_) => toe.shutdown(id)?,
            Self::Abort(_) => toe.abort(id)?,
            Self::Nodelay(_, on) => toe.set_nodelay(id, on)?,
            Self::Keepalive(_, on) => toe.set_keepalive(id, on)?,
            Self::Cork(_, on) => toe.set_cork(id, on)?,
            Self::SendUrgent { len, .. } => drop(toe.send_urgent(id, &vec![0x77; len.into()])?),
            Self::ReceiveUrgent(_) => drop((toe.recv_urgent(id)?, toe.at_mark(id)?)),
            Self::OobInline(_, on) => toe.set_oob_inline(id, on)?,
            Self::Close(_) => {
                sockets.remove(at);
                toe.close(id);
            }
            Self::Connect { .. } => {}
        }
        Ok(())
    }
}
