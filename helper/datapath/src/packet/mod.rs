//! Packet arithmetic without I/O: headers, checksums, segmentation and its reverse, the ICMP answers.

pub(crate) mod checksum;
pub(crate) mod coalesce;
pub(crate) mod ecn;
pub(crate) mod flow;
pub(crate) mod ip;
pub(crate) mod mss;
pub(crate) mod segment;
pub(crate) mod too_big;
pub(crate) mod vnet;

#[cfg(test)]
pub(crate) mod testing;
