//! The stages as instances with links. What a stage does is in its own file; here it is only moved from ring to ring.
//!
//! Who waits for whom: a full ring makes its sender wait with the item in hand. Along these waits there is no way round: frames and messages go
//! ingress ► pre ► protocol ► post ► dma ► egress, and what comes back (leases, boxes, events) is always taken.

mod ctxq;
mod dma;
mod egress;
mod ingress;
mod post;
mod pre;
mod protocol;
mod route;

pub use ctxq::CtxqActor;
pub use dma::DmaActor;
pub use egress::{EgressActor, EgressOuts};
pub use ingress::IngressActor;
pub use post::PostActor;
pub use pre::PreActor;
pub use protocol::{ProtocolActor, RxOrder};
pub use route::Route;
