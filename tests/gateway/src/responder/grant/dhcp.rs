//! What a client gets whose address comes from a DHCP server (RFC 3456): the CHILD_SA to ask by, or that of an address which it has.

use std::net::IpAddr;

use rand_core::CryptoRng;
use ropewalk_ike::exchange::child::Mode;
use ropewalk_ike::exchange::create_child_sa::ChildPolicy;
use ropewalk_ike::exchange::dhcp_sa;
use ropewalk_ike::wire::{Notify, NotifyType, Payload};

use super::{Grant, Wishes, hosts};
use crate::responder::AuthDesk;
use crate::responder::init::Agreed;
use crate::settings::Childless;

impl Wishes {
    /// Grants the CHILD_SA for DHCP, with which a client gets an address; or that of an address which a DHCP server has given to
    /// this identity, as when it logs in anew. Nothing comes from the pools.
    pub(super) fn grant_by_dhcp(
        &self,
        desk: &AuthDesk<'_>,
        agreed: &Agreed,
        identity: &str,
        rng: &mut dyn CryptoRng,
    ) -> Grant {
        let settings = desk.settings;
        let mut reachable = settings.traffic_selectors();
        reachable.selectors.retain(|selector| selector.start().is_ipv4());
        let leased = match self.ts_i.selectors.as_slice() {
            [only] if only.start() == only.end() => Some(only.start()),
            _ => None,
        };
        let addresses: Vec<IpAddr> =
            leased.filter(|address| desk.leases.has(identity, *address)).into_iter().collect();
        let policy = ChildPolicy {
            proposals: settings.esp_proposals.clone(),
            ts_local: reachable,
            ts_remote: hosts(&addresses),
            mode: Mode::Tunnel,
            dhcp: true,
        };
        let (ts_local, ts_remote) = if dhcp_sa::concerns(&self.ts_i, &self.ts_r) {
            (self.ts_r.clone(), self.ts_i.clone())
        } else {
            (self.ts_r.narrow(&policy.ts_local), self.ts_i.narrow(&policy.ts_remote))
        };
        let granted = if self.proposals.is_empty() && settings.childless != Childless::Never {
            Ok((None, Vec::new()))
        } else if ts_local.selectors.is_empty() || ts_remote.selectors.is_empty() {
            Err(NotifyType::TsUnacceptable)
        } else {
            let made = self.make(settings, agreed, Mode::Tunnel, (ts_local, ts_remote), rng);
            made.map(|(child, payloads)| (Some(child), payloads)).ok_or(NotifyType::NoProposalChosen)
        };
        let (child, payloads) =
            granted.unwrap_or_else(|notify| (None, vec![Payload::Notify(Notify::status(notify))]));
        Grant { payloads, child, addresses, policy }
    }
}
