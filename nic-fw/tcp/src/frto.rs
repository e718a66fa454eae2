//! F-RTO (RFC 5682, 3): was a timeout spurious? After it the first segment is sent again, then new data. If acknowledgements come for what
//! was not sent again, nothing was lost.
//!
//! ```text
//!   timeout ──► Watch ──snd_una moves──► New: two new segments instead of retransmissions ──┬─original arrives──► undo
//!                 └──────────────────── no new data, duplicate ACK, all acknowledged ───────┴──► Off: as usual
//! ```

/// Of a scoreboard.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Stage {
    #[default]
    Off,
    /// (1): the first segment is being sent again.
    Watch,
    /// (2b): new data instead of retransmissions until the next ACK.
    New,
}
