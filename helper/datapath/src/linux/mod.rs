//! The pump on Linux: shared state, and the handle's side of it. The threads are [`inbound`] and [`outbound`].

mod address;
mod batch;
mod duplicates;
mod egress;
mod entry;
mod inbound;
mod memory;
mod outbound;
mod parked;
mod port;
mod pump;
mod queue;
mod rate;
mod receive;
mod send;
mod socket;
mod sys;
mod tun;

pub(crate) use pump::Pump;
pub use queue::EventReceiver;
