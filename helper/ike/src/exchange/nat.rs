//! NAT detection (RFC 7296 section 2.23).
//!
//! Each side sends a hash of the addresses it believes in; who receives a hash that does not match the packet's own
//! addresses knows that a NAT is in between. We have no raw ESP socket, so encapsulation is always needed: as the
//! source hash we send one that cannot match. What we *report* as NAT is a real one, judged from the peer's hashes.

use std::net::{IpAddr, SocketAddr};

use ring::digest;

use super::{IkeSpis, Path};
use crate::wire::{NotifyType, Payload, find_notify};

/// Octets of a NAT_DETECTION_*_IP notify.
pub const HASH_LEN: usize = 20;

/// SHA-1 over SPIi, SPIr, address and port.
#[must_use]
pub fn detection_hash(spis: IkeSpis, address: SocketAddr) -> [u8; HASH_LEN] {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(&spis.initiator.to_be_bytes());
    context.update(&spis.responder.to_be_bytes());
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => context.update(&ip.octets()),
        IpAddr::V6(ip) => context.update(&ip.octets()),
    }
    context.update(&address.port().to_be_bytes());
    let mut hash = [0; HASH_LEN];
    for (to, from) in hash.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    hash
}

/// A source hash that matches no packet: that of the unspecified address and port 0.
#[must_use]
pub fn forced_encapsulation_hash(spis: IkeSpis) -> [u8; HASH_LEN] {
    detection_hash(spis, SocketAddr::from(([0, 0, 0, 0], 0)))
}

/// Where a NAT is, as far as the peer's hashes tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NatSituation {
    /// Our address is translated on the way to the peer.
    pub ours: bool,
    /// The peer's address is translated, or it wants encapsulation whatever happens.
    pub theirs: bool,
}

impl NatSituation {
    /// Judges a message that came by `path`; `None` when it does not tell.
    #[must_use]
    pub fn of_message(spis: IkeSpis, path: Path, payloads: &[Payload]) -> Option<Self> {
        let sources: Vec<&[u8]> = payloads
            .iter()
            .filter_map(|payload| match payload {
                Payload::Notify(notify) if notify.ty == NotifyType::NatDetectionSourceIp => {
                    Some(notify.data.as_slice())
                }
                _ => None,
            })
            .collect();
        let destination = find_notify(payloads, NotifyType::NatDetectionDestinationIp);
        Self::judge(spis, path, &sources, destination.map(|notify| notify.data.as_slice()))
    }

    /// Judges the peer's notifies: `sources` are all its NAT_DETECTION_SOURCE_IP, `destination` its
    /// NAT_DETECTION_DESTINATION_IP. `None` when it sent neither: it does not know NAT traversal.
    #[must_use]
    pub fn judge(spis: IkeSpis, path: Path, sources: &[&[u8]], destination: Option<&[u8]>) -> Option<Self> {
        let destination = destination?;
        if sources.is_empty() {
            return None;
        }
        let theirs = detection_hash(spis, path.remote);
        Some(Self {
            ours: destination != detection_hash(spis, path.local),
            theirs: !sources.contains(&theirs.as_slice()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPIS: IkeSpis = IkeSpis { initiator: 0x0102_0304_0506_0708, responder: 0x1112_1314_1516_1718 };

    #[test]
    fn the_hash_is_sha1_over_spis_address_and_port() {
        // printf '01020304050607081112131415161718c000020101f4' | xxd -r -p | sha1sum
        let hash = detection_hash(SPIS, SocketAddr::from(([192, 0, 2, 1], 500)));
        assert_eq!(hex::encode(hash), "d798d986143f878f70765e0e869c80bbc375f701");
    }

    #[test]
    fn a_translated_source_is_seen_by_the_receiver() {
        let seen = Path {
            link: 0,
            local: SocketAddr::from(([192, 0, 2, 1], 500)),
            remote: SocketAddr::from(([198, 51, 100, 7], 41_000)),
        };
        let sent_source = detection_hash(SPIS, SocketAddr::from(([10, 0, 0, 2], 500)));
        let sent_destination = detection_hash(SPIS, seen.local);
        let judged = NatSituation::judge(SPIS, seen, &[&sent_source], Some(&sent_destination));
        assert_eq!(judged, Some(NatSituation { ours: false, theirs: true }));
        assert_eq!(NatSituation::judge(SPIS, seen, &[], None), None);
    }

    #[test]
    fn the_forced_hash_matches_no_usable_address() {
        let forced = forced_encapsulation_hash(SPIS);
        for port in [500, 4500, 41_000] {
            assert_ne!(forced, detection_hash(SPIS, SocketAddr::from(([192, 0, 2, 1], port))));
        }
    }
}
