//! MOBIKE (RFC 4555), so far the answers only: nobody here begins to move.
//!
//! What moves the SAs of a gateway is any authenticated request by a new path ([`IkeSa::follow_peer`]), UPDATE_SA_ADDRESSES
//! among them.

use super::nat::detection_hash;
use super::sa::IkeSa;
use crate::wire::{Notify, NotifyType, Payload, find_notify};

impl IkeSa {
    /// What the answer to an INFORMATIONAL request holds for MOBIKE: COOKIE2 as it came (section 3.7), and NAT detection
    /// for the addresses that the request came by, when it brought its own (section 3.8).
    pub(super) fn answer_mobike(&self, payloads: &[Payload]) -> Vec<Payload> {
        if !self.features().mobike {
            return Vec::new();
        }
        let mut answer = Vec::new();
        if let Some(cookie) = find_notify(payloads, NotifyType::Cookie2) {
            answer.push(Payload::Notify(Notify::new(NotifyType::Cookie2, cookie.data.clone())));
        }
        if find_notify(payloads, NotifyType::NatDetectionDestinationIp).is_some() {
            let (spis, path) = (self.spis(), self.path());
            let hashes = [
                (NotifyType::NatDetectionSourceIp, path.local),
                (NotifyType::NatDetectionDestinationIp, path.remote),
            ];
            let notify = |(ty, address)| Notify::new(ty, detection_hash(spis, address).to_vec());
            answer.extend(hashes.map(|hash| Payload::Notify(notify(hash))));
        }
        answer
    }
}
