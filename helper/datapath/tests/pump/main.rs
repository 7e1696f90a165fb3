//! The pump with real TUN devices and real sockets, in network namespaces of its own (`rwdp-...`). Needs root.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod lab;
mod peer;

mod allocations;
mod carries;
mod demux;
mod headers;
mod inner;
mod lifecycle;
mod moves;
mod several;
mod speed;
mod transport;
