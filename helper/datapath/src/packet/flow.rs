//! Which flow a packet belongs to, and whether it is worth a second copy.

use std::hash::{BuildHasher, Hash, Hasher};

use super::ip::{Fragment, Ip};

/// Packets up to this many octets are worth a copy: speech, pings, name lookups, requests, acknowledgements.
const SMALL: usize = 256;
/// And those whose DSCP says that they cannot wait: CS5, voice (RFC 5865), EF (RFC 3246), network control.
const URGENT: u8 = 40;

/// A hash of what tells a packet's flow: addresses, protocol, and ports where all packets of the flow show them.
///
/// A fragment is told by addresses and protocol, for only the first one shows the ports.
pub(crate) fn flow_hash(keys: &impl BuildHasher, ip: &Ip, packet: &[u8]) -> u64 {
    let mut hasher = keys.build_hasher();
    (ip.source, ip.destination, ip.protocol).hash(&mut hasher);
    if ip.fragment == Fragment::Whole {
        ip.ports(packet).hash(&mut hasher);
    }
    hasher.finish()
}

/// Whether a packet of `len` octets with this TOS goes by a second path too.
pub(crate) const fn is_worth_a_copy(len: usize, tos: u8) -> bool {
    len <= SMALL || tos >> 2 >= URGENT
}

#[cfg(test)]
mod tests {
    use std::hash::RandomState;

    use super::*;
    use crate::packet::testing::{tcp, udp};

    fn hash(keys: &RandomState, packet: &[u8]) -> u64 {
        flow_hash(keys, &Ip::parse(packet).unwrap(), packet)
    }

    #[test]
    fn a_flow_is_told_by_addresses_protocol_and_ports_and_by_nothing_else() {
        let keys = RandomState::new();
        let one = hash(&keys, &tcp("10.0.0.1:1000", "10.0.0.2:80", 7, 0x10, &[1, 2, 3]));
        assert_eq!(one, hash(&keys, &tcp("10.0.0.1:1000", "10.0.0.2:80", 9, 0x18, &[0; 900])));
        assert_ne!(one, hash(&keys, &tcp("10.0.0.1:1001", "10.0.0.2:80", 7, 0x10, &[1, 2, 3])));
        assert_ne!(one, hash(&keys, &udp("10.0.0.1:1000", "10.0.0.2:80", &[1, 2, 3])));
        assert_ne!(one, hash(&keys, &tcp("10.0.0.3:1000", "10.0.0.2:80", 7, 0x10, &[1, 2, 3])));
    }

    #[test]
    fn all_fragments_of_a_packet_are_one_flow() {
        let keys = RandomState::new();
        let mut first = udp("10.0.0.1:1000", "10.0.0.2:80", &[7; 64]);
        first[6] = 0x20;
        let mut later = udp("10.0.0.1:3", "10.0.0.2:4", &[7; 64]);
        later[7] = 8;
        assert_eq!(hash(&keys, &first), hash(&keys, &later));
    }

    #[test]
    fn small_and_urgent_packets_are_worth_a_copy() {
        assert!(is_worth_a_copy(84, 0) && is_worth_a_copy(256, 0));
        assert!(!is_worth_a_copy(257, 0) && !is_worth_a_copy(1400, 34 << 2));
        assert!(is_worth_a_copy(1400, 46 << 2) && is_worth_a_copy(1400, 46 << 2 | 3));
    }
}
