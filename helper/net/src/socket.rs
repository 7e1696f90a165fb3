//! What the UDP socket of a path must be like.

use std::net::IpAddr;

use crate::Family;

/// A UDP socket of one path: interface x family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathSocket {
    /// Send and receive by this interface only; `None` lets the routing table choose.
    pub interface: Option<String>,
    /// Local address; `None` is any.
    pub local: Option<IpAddr>,
    /// Local port; 0 is any.
    pub port: u16,
    /// Family; must be `local`'s.
    pub family: Family,
    /// Mark of its packets.
    pub fwmark: u32,
}

impl PathSocket {
    /// An unbound socket of that family with the helper's usual mark.
    #[must_use]
    pub fn new(family: Family) -> Self {
        PathSocket { interface: None, local: None, port: 0, family, fwmark: crate::DEFAULT_FWMARK }
    }
}
