//! (interface first: bodies follow)
use crate::*;
use toe_abi::{FlowId, flow::FlowState};

pub struct Engine {}

impl Engine {
    /// An engine at time `now` (microseconds on the card's clock, as in every call).
    pub fn new(config: Config, now: u64) -> Result<Self, ConfigError> { let _ = now; config.check()?; Ok(Self {}) }

    /// Binds a local address; port 0 is chosen. `flags`: `toe_abi::app::bind_flags`. The binding lives until [`Engine::unbind`].
    pub fn bind(&mut self, _owner: Owner, _at: Endpoint, _flags: u16) -> Result<(BindId, Endpoint), Errno> { Err(Errno::EINVAL) }
    /// Gives a binding up; its listener, if any, goes first. Connections stay.
    pub fn unbind(&mut self, _bind: BindId, _now: u64) {}
    /// Where a binding is.
    pub fn bound(&self, _bind: BindId) -> Option<Endpoint> { None }
    /// Listens at a binding. At most `backlog` (at least 1) connections wait to be accepted at any time.
    pub fn listen(&mut self, _bind: BindId, _backlog: u32, _buffers: BufferLog2) -> Result<ListenerId, Errno> { Err(Errno::EINVAL) }
    /// Changes the backlog (listen() again).
    pub fn set_backlog(&mut self, _listener: ListenerId, _backlog: u32) {}
    /// Stops listening: half-open connections are forgotten; those being installed will be aborted. Those accepted or waiting are the daemon's.
    pub fn unlisten(&mut self, _listener: ListenerId, _now: u64) {}
    /// `n` connections were taken out of the accept ring.
    pub fn accepted(&mut self, _listener: ListenerId, _n: u32) {}
    /// Opens a connection. Ok: the outcome follows as Install + Connected, or ConnectFailed. `local`: a binding of the socket.
    pub fn connect(&mut self, _owner: Owner, _local: Option<BindId>, _remote: Endpoint, _buffers: BufferLog2, _now: u64) -> Result<(ConnId, Endpoint), Errno> { Err(Errno::EINVAL) }
    /// The opener has lost interest: no Connected or ConnectFailed will follow. (An established flow is the daemon's to close.)
    pub fn cancel(&mut self, _conn: ConnId, _now: u64) {}
    /// The answer to [`Action::Install`].
    pub fn installed(&mut self, _conn: ConnId, _result: Result<FlowId, InstallError>, _now: u64) {}
    /// The card's FLOW_CLOSED: `reason` is `toe_abi::control::close_reason`, `state` the flow's last. Also after RELEASE.
    pub fn flow_closed(&mut self, _flow: FlowId, _reason: u32, _state: &FlowState, _now: u64) {}
    /// CLOSE was sent for the flow: its FIN-WAIT-2 is limited in time from now on.
    pub fn orphaned(&mut self, _flow: FlowId, _now: u64) {}
    /// The answer to [`Action::QueryFlow`]; nothing to be said if the flow is gone.
    pub fn flow_state(&mut self, _flow: FlowId, _state: &FlowState, _now: u64) {}
    /// An exception frame.
    pub fn frame(&mut self, _frame: &[u8], _meta: FrameMeta, _now: u64) {}
    /// To be called when [`Engine::next_deadline`] has come.
    pub fn timer(&mut self, _now: u64) {}
    pub fn next_deadline(&self) -> Option<u64> { None }
    /// The next thing to do. Drain after every call.
    pub fn poll_action(&mut self) -> Option<Action> { None }
}
