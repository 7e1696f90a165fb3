//! A TUN device with what its packets leave by. A pump has one, and a gateway that routes one more for each neighbour.

use std::sync::atomic::{AtomicU16, Ordering};

use arc_swap::ArcSwap;

use super::egress::Table;
use super::tun::Tun;

#[derive(Debug)]
pub(super) struct Port {
    pub(super) tun: Tun,
    pub(super) egress: ArcSwap<Table>,
    inner_mtu: AtomicU16,
    /// What the MSS option of TCP is lowered to fit.
    segment_mtu: AtomicU16,
}

impl Port {
    pub(super) fn new(tun: Tun, inner_mtu: u16) -> Self {
        Self {
            tun,
            egress: ArcSwap::from_pointee(Table::default()),
            inner_mtu: AtomicU16::new(inner_mtu),
            segment_mtu: AtomicU16::new(inner_mtu),
        }
    }

    /// The largest packet that it carries.
    pub(super) fn inner_mtu(&self) -> u16 {
        self.inner_mtu.load(Ordering::Relaxed)
    }

    /// What TCP connections are fitted into when they begin.
    pub(super) fn segment_mtu(&self) -> u16 {
        self.segment_mtu.load(Ordering::Relaxed)
    }

    pub(super) fn set_inner_mtu(&self, mtu: u16, segments: u16) {
        self.inner_mtu.store(mtu, Ordering::Relaxed);
        self.segment_mtu.store(segments, Ordering::Relaxed);
    }
}
