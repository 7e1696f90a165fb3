//! What both answer to MOBIKE's requests, and how a gateway follows its client (RFC 4555 sections 3.5 to 3.9).

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use super::{MAX_ADDRESSES, Mobility, Travelled, listed_addresses};
use crate::exchange::Path;
use crate::exchange::sa::{IkeSa, SaEvent};
use crate::time::Instant;
use crate::wire::{Notify, NotifyType, Payload, find_notify};

/// What a gateway allows to clients that move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovePolicy {
    /// Traffic moves only after the client has shown that it receives at the new address.
    pub return_routability: bool,
    /// Addresses to which no client may move.
    pub refused: Vec<RangeInclusive<IpAddr>>,
    /// Claim to be behind a NAT, so that every client encapsulates ESP in UDP.
    pub always_encapsulate: bool,
}

impl Default for MovePolicy {
    fn default() -> Self {
        Self { return_routability: true, refused: Vec::new(), always_encapsulate: false }
    }
}

impl MovePolicy {
    fn accepts(&self, path: Path) -> bool {
        !self.refused.iter().any(|range| range.contains(&path.remote.ip()))
    }
}

/// The notifies of a request that can change addresses.
const CHANGES: [NotifyType; 4] = [
    NotifyType::UpdateSaAddresses,
    NotifyType::AdditionalIp4Address,
    NotifyType::AdditionalIp6Address,
    NotifyType::NoAdditionalAddresses,
];

impl IkeSa {
    /// Does what an INFORMATIONAL request that came by `path` asks for, and gives what the answer holds of it: COOKIE2 as
    /// it came (section 3.7), and NAT detection when the request brought its own (section 3.8).
    pub(in crate::exchange) fn answer_mobike(
        &mut self,
        now: Instant,
        path: Path,
        payloads: &[Payload],
    ) -> Vec<Payload> {
        if !self.features().mobike {
            return Vec::new();
        }
        let has = |ty: &NotifyType| find_notify(payloads, *ty).is_some();
        let mut answer = Vec::new();
        if let Some(cookie) = find_notify(payloads, NotifyType::Cookie2) {
            answer.push(Payload::Notify(Notify::new(NotifyType::Cookie2, cookie.data.clone())));
        }
        if CHANGES.iter().any(has)
            && let Some(allowed) = find_notify(payloads, NotifyType::NoNatsAllowed)
            && allowed.data != addresses_and_ports(path)
        {
            answer.push(Payload::Notify(Notify::status(NotifyType::UnexpectedNatDetected)));
            return answer;
        }
        if has(&NotifyType::UpdateSaAddresses) {
            if self.mobility.decides || !self.mobility.policy.accepts(path) {
                answer.push(Payload::Notify(Notify::status(NotifyType::UnacceptableAddresses)));
                return answer;
            }
            self.follow_update(now, path, payloads);
        }
        if has(&NotifyType::NatDetectionDestinationIp) {
            answer.extend(self.nat_detection(path));
        }
        if CHANGES.iter().skip(1).any(has) {
            self.note_peer_addresses(path, payloads);
        }
        answer
    }

    /// A gateway follows its client: without MOBIKE any authenticated packet tells where a NAT put it (RFC 7296 section 2.23),
    /// with MOBIKE only ESP does (section 3.8), and where that leads is checked like an update, unless it is another port of
    /// the address that traffic goes to anyway. A client never follows: its gateway stays where it was asked for.
    pub fn follow_peer(&mut self, path: Path) {
        if !self.mobility.decides && self.path != path {
            let elsewhere = !self.path.is_same_host(path) || self.is_unchecked();
            self.leave_path(self.path);
            self.path = path;
            if self.features().mobike && self.mobility.policy.return_routability && elsewhere {
                self.mobility.check_pending = true;
            } else {
                self.events.push_back(SaEvent::PathChanged(path));
            }
        }
    }

    /// Whether traffic goes elsewhere than requests do, until the client has shown that it is there.
    fn is_unchecked(&self) -> bool {
        let Mobility { check_pending, checking, strayed, .. } = &self.mobility;
        *check_pending || *checking || *strayed
    }

    /// The client's request is authentic and allowed: requests go by its path from now on, traffic once that is checked.
    fn follow_update(&mut self, now: Instant, path: Path, payloads: &[Payload]) {
        self.judge_nat(path, payloads);
        let strayed = std::mem::take(&mut self.mobility.strayed);
        if self.path == path && !strayed {
            return;
        }
        self.path = path;
        self.reroute(now, path, None);
        if self.mobility.policy.return_routability {
            self.mobility.check_pending = true;
        } else {
            self.events.push_back(SaEvent::PathChanged(path));
        }
    }

    /// The client answered at its new address; when it has moved on meanwhile, that one is checked.
    pub(super) fn finish_check(&mut self, travelled: Travelled) {
        if self.mobility.check_pending {
            return;
        }
        if travelled.rerouted {
            self.mobility.check_pending = true;
        } else {
            self.events.push_back(SaEvent::PathChanged(self.path));
        }
    }

    /// The new list takes the place of the old one; the address that it came from belongs to it (section 3.6).
    fn note_peer_addresses(&mut self, path: Path, payloads: &[Payload]) {
        let mut peer = listed_addresses(payloads);
        let came_from = path.remote.ip();
        if !peer.contains(&came_from) && peer.len() < MAX_ADDRESSES {
            peer.insert(0, came_from);
        }
        self.mobility.peer = peer;
        self.events.push_back(SaEvent::PeerAddresses);
    }
}

/// What NO_NATS_ALLOWED must hold for a message that came by this path (section 4.2.6).
fn addresses_and_ports(path: Path) -> Vec<u8> {
    let mut data = Vec::new();
    for end in [path.remote, path.local] {
        match end.ip().to_canonical() {
            IpAddr::V4(ip) => data.extend(ip.octets()),
            IpAddr::V6(ip) => data.extend(ip.octets()),
        }
    }
    for end in [path.remote, path.local] {
        data.extend(SocketAddr::port(&end).to_be_bytes());
    }
    data
}
