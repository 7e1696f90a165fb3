//! What clients see of the group: who is reached how, what was counted, and what is not used and why.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ropewalk_ike::multi_point::group_sa::GroupSa;
use ropewalk_ipc::{EndpointStatus, EndpointWay, GroupState, GroupStatus, Totals};
use ropewalk_session::Snapshot;

use super::{Group, Member, Sender};

/// Octets and packets of SAs that are gone.
#[derive(Debug, Default)]
pub struct Counts {
    totals: Totals,
    /// Sent to each endpoint.
    sent: BTreeMap<IpAddr, (u64, u64)>,
}

impl Counts {
    /// An SA of the group goes, with all its senders.
    pub fn add_member(&mut self, gone: &Member) {
        let received =
            gone.inbound.as_ref().map(ropewalk_datapath::InboundHandle::counters).unwrap_or_default();
        self.totals.bytes_in += received.bytes;
        self.totals.packets_in += received.packets;
        for (address, sender) in &gone.outbound {
            self.add_sender(sender);
            let sent = sender.handle.counters();
            let (bytes, packets) = self.sent.entry(*address).or_default();
            (*bytes, *packets) = (*bytes + sent.bytes, *packets + sent.packets);
        }
    }

    /// One sender goes, and its endpoint is not known any more.
    pub fn add_sender(&mut self, gone: &Sender) {
        let sent = gone.handle.counters();
        self.totals.bytes_out += sent.bytes;
        self.totals.packets_out += sent.packets;
    }

    /// Only these endpoints are of interest from now on.
    pub fn keep(&mut self, known: impl Fn(&IpAddr) -> bool) {
        self.sent.retain(|address, _| known(address));
    }
}

impl Group {
    /// Traffic between members, all that there was.
    pub fn totals(&self) -> Totals {
        let mut totals = self.retired.totals;
        for member in &self.members {
            let received =
                member.inbound.as_ref().map(ropewalk_datapath::InboundHandle::counters).unwrap_or_default();
            totals.bytes_in += received.bytes;
            totals.packets_in += received.packets;
            for sender in member.outbound.values() {
                let sent = sender.handle.counters();
                totals.bytes_out += sent.bytes;
                totals.packets_out += sent.packets;
            }
        }
        totals
    }

    /// The group as clients see it; `None` when the profile does not want one, or there is no connection.
    pub fn status(&self, snapshot: &Snapshot) -> Option<GroupStatus> {
        let ike = snapshot.ike.as_ref().filter(|_| self.settings.enabled)?;
        let known = snapshot.group.clone().unwrap_or_default();
        let refused = known.refused.map(|refusal| refusal.to_string());
        let (state, reason) = match (known.sending, refused) {
            (Some(_), reason) => (GroupState::InUse, reason),
            (None, Some(reason)) => (GroupState::Refused, Some(reason)),
            (None, None) if !ike.features.multi_point => {
                (GroupState::NotOffered, Some("the gateway does not know multi-point SA".to_owned()))
            }
            (None, None) => (GroupState::Waiting, None),
        };
        let sending = self.members.iter().find(|member| Some(member.sa.spi) == known.sending);
        let ignored = self.unfit.iter();
        Some(GroupStatus {
            state,
            reason,
            spi: known.sending.map(|spi| format!("{spi:08x}")),
            suite: sending.map(|member| suite(&member.sa)),
            replay_protection: false,
            endpoints: self.endpoints.all().iter().map(|endpoint| self.endpoint(endpoint)).collect(),
            ignored_routes: ignored
                .map(|(hop, why)| format!("{} via {}: {why}", hop.prefix, hop.via))
                .collect(),
            totals: self.totals(),
        })
    }

    fn endpoint(&self, endpoint: &super::endpoints::Endpoint) -> EndpointStatus {
        let of = |routes: &[ropewalk_profile::MultiPointRoute]| {
            let own = routes.iter().filter(|route| route.endpoint == endpoint.address);
            own.map(|route| route.prefix.to_string()).collect()
        };
        let is_routed = self.routed.values().flatten().any(|(_, address)| *address == endpoint.address);
        let way = match (is_routed, endpoint.was_heard()) {
            (false, _) => EndpointWay::Gateway,
            (true, true) => EndpointWay::Direct,
            (true, false) => EndpointWay::Untried,
        };
        let before = self.retired.sent.get(&endpoint.address).copied().unwrap_or_default();
        let senders = self.members.iter().filter_map(|member| member.outbound.get(&endpoint.address));
        let (bytes_out, packets_out) = senders.fold(before, |(bytes, packets), sender| {
            let sent = sender.handle.counters();
            (bytes + sent.bytes, packets + sent.packets)
        });
        EndpointStatus {
            address: endpoint.address.to_string(),
            networks: of(&self.settings.routes),
            learned: of(&self.learned),
            way,
            bytes_out,
            packets_out,
        }
    }
}

/// In the syntax of proposals.
fn suite(sa: &GroupSa) -> String {
    let integrity = match sa.integ {
        2 => "sha1",
        12 => "sha256",
        13 => "sha384",
        14 => "sha512",
        _ => "unknown",
    };
    format!("aes{}-{integrity}", sa.key_bits)
}
