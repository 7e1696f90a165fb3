//! The CHILD_SA for DHCP (RFC 3456 section 4.1, in terms of IKEv2): tunnel mode, from UDP port 68 of any address of the
//! client's to port 67 of any address, so that it works before the client has an address, and for broadcasts.
//!
//! Its selectors tell it from others, on both ends and over renewals. It never carries anything else: what is sent goes by
//! another CHILD_SA, if there is one. It lives for minutes and is not renewed by us: who needs it again asks for it
//! again ([`IkeSa::open_dhcp_sa`]).

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use rand_core::CryptoRng;

use super::Role;
use super::child::ChildSa;
use super::create_child_sa::{ChildPolicy, PendingChild};
use super::sa::{IkeSa, Task};
use crate::time::Instant;
use crate::wire::{TrafficSelector, TrafficSelectors};

/// How long it lives at most.
pub const LIFETIME: Duration = Duration::from_secs(300);

const UDP: u8 = 17;
const CLIENT_PORT: u16 = 68;
const SERVER_PORT: u16 = 67;

/// The client's side of it.
#[must_use]
pub fn client_side() -> TrafficSelectors {
    any_address(CLIENT_PORT)
}

/// The gateway's side of it.
#[must_use]
pub fn server_side() -> TrafficSelectors {
    any_address(SERVER_PORT)
}

fn any_address(port: u16) -> TrafficSelectors {
    let any = TrafficSelector::from_prefix(Ipv4Addr::UNSPECIFIED.into(), 0);
    TrafficSelectors::new(any.with_protocol(UDP, port, port).into_iter().collect())
}

/// Whether these are the selectors of such a CHILD_SA, the client's side first.
#[must_use]
pub fn concerns(client: &TrafficSelectors, server: &TrafficSelectors) -> bool {
    let within =
        |these: &TrafficSelectors, all: &TrafficSelectors| !these.selectors.is_empty() && all.covers(these);
    within(client, &client_side()) && within(server, &server_side())
}

impl ChildSa {
    /// Whether it is for DHCP and nothing else.
    #[must_use]
    pub fn is_for_dhcp(&self) -> bool {
        concerns(&self.ts_local, &self.ts_remote) || concerns(&self.ts_remote, &self.ts_local)
    }
}

impl IkeSa {
    /// Asks the gateway for a CHILD_SA for DHCP.
    pub fn open_dhcp_sa(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let policy = ChildPolicy { ts_local: client_side(), ts_remote: server_side(), ..self.policy.clone() };
        let child = PendingChild::new(&policy, rng);
        self.create_child(now, child, rng);
    }

    /// Whether a further CHILD_SA is being asked for: one for DHCP, or another one.
    #[must_use]
    pub fn is_asking_for(&self, dhcp: bool) -> bool {
        self.has_task(|task| matches!(task, Task::CreateChild(pending) if pending.is_for_dhcp() == dhcp))
    }

    /// Its CHILD_SA for DHCP, the newest if there are several.
    #[must_use]
    pub fn dhcp_child(&self) -> Option<&ChildSa> {
        self.children.iter().rev().find(|child| child.is_for_dhcp() && !self.is_closing_child(child.spi_in))
    }

    /// Its CHILD_SA that carries packets of this inner address of ours, the newest if there are several.
    #[must_use]
    pub fn child_of(&self, address: IpAddr) -> Option<&ChildSa> {
        self.children.iter().rev().find(|child| {
            !child.is_for_dhcp() && child.ts_local.contains(address) && !self.is_closing_child(child.spi_in)
        })
    }

    /// Whether it has a CHILD_SA that carries packets of all kinds.
    #[must_use]
    pub fn has_data_child(&self) -> bool {
        self.children.iter().any(|child| !child.is_for_dhcp())
    }

    /// There may be CHILD_SAs for DHCP from now on.
    pub fn allow_dhcp(&mut self) {
        self.policy.dhcp = true;
    }

    /// CHILD_SAs other than those for DHCP may have these selectors from now on, ours first.
    pub fn allow(&mut self, ts_local: TrafficSelectors, ts_remote: TrafficSelectors) {
        (self.policy.ts_local, self.policy.ts_remote) = (ts_local, ts_remote);
    }

    /// What the peer's request for a CHILD_SA is narrowed to: ours, the peer's side.
    pub(super) fn admitted(
        &self,
        ours: &TrafficSelectors,
        theirs: &TrafficSelectors,
    ) -> (TrafficSelectors, TrafficSelectors) {
        let policy = &self.policy;
        let (local, remote) = match self.role {
            Role::Initiator => (client_side(), server_side()),
            Role::Responder => (server_side(), client_side()),
        };
        let (client, server) = if self.role == Role::Initiator { (ours, theirs) } else { (theirs, ours) };
        if policy.dhcp && concerns(client, server) {
            (ours.narrow(&local), theirs.narrow(&remote))
        } else {
            (ours.narrow(&policy.ts_local), theirs.narrow(&policy.ts_remote))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_selectors_are_all_of_the_two_ports_and_nothing_else() {
        let (client, server) = (client_side(), server_side());
        let [selector] = client.selectors.as_slice() else { panic!("one selector: {client:?}") };
        assert_eq!((selector.protocol(), selector.start_port(), selector.end_port()), (17, 68, 68));
        assert_eq!(selector.start(), Ipv4Addr::UNSPECIFIED);
        assert_eq!(selector.end(), Ipv4Addr::BROADCAST);
        assert!(concerns(&client, &server));
        assert!(!concerns(&server, &client));
        let any = TrafficSelectors::new(vec![TrafficSelector::any_v4()]);
        assert!(!concerns(&any, &server) && !concerns(&client, &any));
        assert!(!concerns(&TrafficSelectors::default(), &TrafficSelectors::default()));
    }
}
