//! The packet pump between a TUN device and UDP sockets, for the client and for the gateway.
//!
//! Two threads of its own move whole batches; packets never touch an async runtime.
//!
//! *TUN to UDP*: a super-packet of up to 64 KiB is read from the device (`IFF_VNET_HDR`), cut into segments, each
//! sealed where it is copied once into the send buffer, and sent with one `UDP_SEGMENT` call. What a packet leaves by is
//! an [`Egress`], one immutable value behind an atomic pointer: SA, socket and peer never mismatch, and a rekey or a
//! switch of path never stops traffic. The sequence counter lives in the [`OutboundHandle`], outside the `Egress`. Where
//! there are several paths a [`Carriage`] holds the egress of each: flows are spread over them by hash, or small packets go
//! by two of them, and the receiving side tells the copies.
//!
//! *UDP to TUN*: one thread polls all sockets (an SPI may move to another socket), receives with `UDP_GRO`, tells IKE,
//! ESP and keepalives apart, opens ESP in place, checks the inner addresses against [`InboundSpec`], coalesces segments
//! of one flow again and writes them with a vnet header. This thread alone owns the inbound SAs and their replay windows;
//! changes reach it as commands.
//!
//! IKE datagrams go into a bounded queue of their own: a flood of ESP cannot starve IKE. The owner reads them and all
//! other [`Event`]s from [`EventReceiver`], which is a file descriptor too, for an event loop to wait on.
//!
//! Threads exist on Linux only; elsewhere [`DataPath::start`] says that it is not supported yet.

// What only the threads use.
#![cfg_attr(not(target_os = "linux"), allow(dead_code))]

mod carriage;
mod config;
mod counters;
mod datapath;
mod error;
mod event;
mod policy;
mod sa;

#[cfg(target_os = "linux")]
mod packet;
#[cfg(target_os = "linux")]
#[path = "linux/mod.rs"]
mod platform;
#[cfg(not(target_os = "linux"))]
#[path = "unsupported.rs"]
mod platform;

pub use carriage::{Carriage, Share};
pub use config::{Config, Framing, Keepalive, TunFd};
pub use counters::{Counters, SaCounters};
pub use datapath::DataPath;
pub use error::DataPathError;
pub use event::{Event, IkeDatagram};
pub use platform::EventReceiver;
pub use policy::Selector;
pub use sa::{DeviceId, Divert, Egress, InboundHandle, InboundSpec, OutboundHandle, SocketId};

pub use ropewalk_esp as esp;
