//! What a client that proved itself gets: inner addresses and the first CHILD_SA (RFC 7296 sections 2.9, 2.19 and 3.15).
//!
//! A client that is a neighbour of ours and asks for transport mode gets that (RFC 3884): the addresses are those of its
//! link, if it asks for any, and the selectors those of the outer header. Another one gets tunnel mode.

mod dhcp;

use std::net::IpAddr;

use ipnet::IpNet;
use rand_core::CryptoRng;
use ropewalk_ike::exchange::child::{ChildSa, Mode, derive, random_spi};
use ropewalk_ike::exchange::create_child_sa::ChildPolicy;
use ropewalk_ike::exchange::keep_old::split_shortened;
use ropewalk_ike::exchange::mobike::listed_addresses;
use ropewalk_ike::exchange::{Path, transport};
use ropewalk_ike::proposal::{ChildExchange, select_esp};
use ropewalk_ike::wire::{
    Attribute, ConfigType, Configuration, Notify, NotifyType, Payload, Proposal, SecurityAssociation,
    TrafficSelector, TrafficSelectors, find_notify,
};

use super::AuthDesk;
use super::init::Agreed;
use crate::inner::{asked, hosts, reply};
use crate::leases::Asker;
use crate::settings::{Childless, Link, Settings};

/// What the first request of IKE_AUTH asks for, kept until the client has proved itself.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    proposals: Vec<Proposal>,
    ts_i: TrafficSelectors,
    ts_r: TrafficSelectors,
    config: Option<Configuration>,
    transport: bool,
    /// The client speaks MOBIKE.
    pub mobike: bool,
    /// The addresses that the client has besides.
    pub addresses: Vec<IpAddr>,
    /// What asks for a further IKE_SA (appendix B.5 of the KEEP_OLD_IKE_SA draft).
    pub further: Vec<Payload>,
    /// The client has no other IKE_SA with us that it knows of.
    pub initial_contact: bool,
}

/// What was granted.
#[derive(Debug)]
pub struct Grant {
    /// The answer: CP, SA, TSi, TSr, or an error notify.
    pub payloads: Vec<Payload>,
    /// The CHILD_SA, unless it was refused.
    pub child: Option<ChildSa>,
    /// The inner addresses.
    pub addresses: Vec<IpAddr>,
    /// What further CHILD_SAs may be.
    pub policy: ChildPolicy,
}

impl Wishes {
    /// Sorts the payloads of the first request; `keep_old` is the number of the KEEP_OLD_IKE_SA notify.
    #[must_use]
    pub fn of(payloads: &[Payload], keep_old: Option<u16>) -> Self {
        let (payloads, further) = split_shortened(payloads, keep_old);
        let mut wishes = Self {
            transport: find_notify(payloads, NotifyType::UseTransportMode).is_some(),
            mobike: find_notify(payloads, NotifyType::MobikeSupported).is_some(),
            addresses: listed_addresses(payloads),
            further: further.to_vec(),
            initial_contact: find_notify(payloads, NotifyType::InitialContact).is_some(),
            ..Self::default()
        };
        for payload in payloads {
            match payload {
                // A further one is of an extension that is not spoken here.
                Payload::Sa(sa) if wishes.proposals.is_empty() => wishes.proposals.clone_from(&sa.proposals),
                Payload::TsI(selectors) => wishes.ts_i = selectors.clone(),
                Payload::TsR(selectors) => wishes.ts_r = selectors.clone(),
                Payload::Cp(config) if config.ty == ConfigType::Request => {
                    wishes.config = Some(config.clone());
                }
                _ => {}
            }
        }
        wishes
    }

    /// Grants what can be granted to the client of this proven identity. What cannot leaves the IKE_SA without a CHILD_SA
    /// and says why (RFC 7296 section 1.2).
    pub fn grant(
        &self,
        desk: &mut AuthDesk<'_>,
        agreed: &Agreed,
        identity: &str,
        path: Path,
        rng: &mut dyn CryptoRng,
    ) -> Grant {
        let settings = desk.settings;
        if let Some(link) = settings.link_of(identity).filter(|_| self.transport) {
            return self.grant_link(settings, link, (agreed, path), rng);
        }
        if settings.dhcp.is_some() {
            return self.grant_by_dhcp(desk, agreed, identity, rng);
        }
        let mut addresses = Vec::new();
        let refuse = |notify, addresses: Vec<IpAddr>| refusal(settings, notify, addresses, Mode::Tunnel);
        let Some(config) = &self.config else {
            return refuse(NotifyType::FailedCpRequired, addresses);
        };
        let asker = Asker { identity, holder: desk.holder, now: desk.now };
        for (ipv4, wanted) in asked(config) {
            if !addresses.iter().any(|address: &IpAddr| address.is_ipv4() == ipv4) {
                addresses.extend(desk.leases.acquire(asker, ipv4, wanted));
            }
        }
        if addresses.is_empty() {
            return refuse(NotifyType::InternalAddressFailure, addresses);
        }
        let childless = self.proposals.is_empty();
        match desk.settings.childless {
            Childless::Never if childless => return refuse(NotifyType::NoProposalChosen, addresses),
            Childless::Force if !childless => return refuse(NotifyType::NoAdditionalSas, addresses),
            Childless::Never | Childless::Allow | Childless::Force => {}
        }
        let has_family = |selector: &TrafficSelector| {
            addresses.iter().any(|address| address.is_ipv4() == selector.start().is_ipv4())
        };
        let mut reachable = settings.traffic_selectors();
        reachable.selectors.retain(has_family);
        if childless {
            let payloads = vec![Payload::Cp(reply(&settings.dns, &settings.domains, config, &addresses))];
            let policy = ChildPolicy {
                proposals: settings.esp_proposals.clone(),
                ts_local: reachable,
                ts_remote: hosts(&addresses),
                mode: Mode::Tunnel,
                dhcp: false,
            };
            return Grant { payloads, child: None, addresses, policy };
        }
        let ts_remote = self.ts_i.narrow(&hosts(&addresses));
        let ts_local = self.ts_r.narrow(&reachable);
        if ts_local.selectors.is_empty() || ts_remote.selectors.is_empty() {
            return refuse(NotifyType::TsUnacceptable, addresses);
        }
        // Transport mode was asked for and is not agreed to: tunnel mode it is (RFC 7296 section 1.3.1).
        if self.transport {
            tracing::debug!(identity, "transport mode is not granted");
        }
        let Some((child, made)) = self.make(settings, agreed, Mode::Tunnel, (ts_local, ts_remote), rng)
        else {
            return refuse(NotifyType::NoProposalChosen, addresses);
        };
        let mut payloads = vec![Payload::Cp(reply(&settings.dns, &settings.domains, config, &addresses))];
        payloads.extend(made);
        let policy = ChildPolicy {
            proposals: settings.esp_proposals.clone(),
            ts_local: reachable,
            ts_remote: hosts(&addresses),
            mode: Mode::Tunnel,
            dhcp: false,
        };
        Grant { payloads, child: Some(child), addresses, policy }
    }

    /// Transport mode between the outer addresses; inside, routing decides.
    fn grant_link(
        &self,
        settings: &Settings,
        link: &Link,
        (agreed, path): (&Agreed, Path),
        rng: &mut dyn CryptoRng,
    ) -> Grant {
        let addresses: Vec<IpAddr> = link.addresses.iter().map(IpNet::addr).collect();
        let refuse = |notify| refusal(settings, notify, addresses.clone(), Mode::Transport);
        let Some((ts_local, ts_remote)) = transport::agreed(&self.ts_r, &self.ts_i, agreed.nat, path) else {
            return refuse(NotifyType::TsUnacceptable);
        };
        let selectors = (ts_local.clone(), ts_remote.clone());
        let Some((child, made)) = self.make(settings, agreed, Mode::Transport, selectors, rng) else {
            return refuse(NotifyType::NoProposalChosen);
        };
        let config = self.config.as_ref().map(|config| Payload::Cp(link_reply(settings, config, link)));
        let payloads = config.into_iter().chain(made).collect();
        let proposals = settings.esp_proposals.clone();
        let policy = ChildPolicy { proposals, ts_local, ts_remote, mode: Mode::Transport, dhcp: false };
        Grant { payloads, child: Some(child), addresses, policy }
    }

    /// The CHILD_SA with these selectors, ours and the client's, and what the answer says of it. `None`: no proposal will do.
    fn make(
        &self,
        settings: &Settings,
        agreed: &Agreed,
        mode: Mode,
        (ts_local, ts_remote): (TrafficSelectors, TrafficSelectors),
        rng: &mut dyn CryptoRng,
    ) -> Option<(ChildSa, Vec<Payload>)> {
        let chosen = select_esp(&self.proposals, &settings.esp_proposals, ChildExchange::IkeAuth);
        let (suite, mut proposal) = chosen?;
        let offered = self.proposals.iter().find(|offered| offered.number == proposal.number);
        let spi_out = offered.and_then(Proposal::esp_spi).filter(|spi| *spi != 0)?;
        let nonces = (agreed.nonce_i.as_slice(), agreed.nonce_r.as_slice());
        let keys = derive(&suite, agreed.prf, &agreed.keys.sk_d, None, nonces).ok()?;
        let spi_in = random_spi(rng);
        proposal.spi = spi_in.to_be_bytes().to_vec();
        let (keys_in, keys_out) = ChildSa::split_keys(keys, false);
        let mut payloads = mode.payloads();
        payloads.extend([
            Payload::Sa(SecurityAssociation { proposals: vec![proposal] }),
            Payload::TsI(ts_remote.clone()),
            Payload::TsR(ts_local.clone()),
        ]);
        let child = ChildSa { spi_in, spi_out, suite, keys_in, keys_out, mode, ts_local, ts_remote };
        Some((child, payloads))
    }
}

fn refusal(settings: &Settings, notify: NotifyType, addresses: Vec<IpAddr>, mode: Mode) -> Grant {
    Grant {
        payloads: vec![Payload::Notify(Notify::status(notify))],
        child: None,
        policy: ChildPolicy {
            proposals: settings.esp_proposals.clone(),
            ts_local: TrafficSelectors::default(),
            ts_remote: hosts(&addresses),
            mode,
            dhcp: false,
        },
        addresses,
    }
}

/// CFG_REPLY for a link: its addresses of the families that are asked for, with its prefix.
fn link_reply(settings: &Settings, config: &Configuration, link: &Link) -> Configuration {
    let asked = |ipv4: bool| {
        config.attributes.iter().any(|attribute| match attribute {
            Attribute::InternalIp4Address(_) => ipv4,
            Attribute::Ip6Address(_) => !ipv4,
            _ => false,
        })
    };
    let mut answer = reply(&settings.dns, &settings.domains, config, &[]);
    for net in link.addresses.iter().filter(|net| asked(net.addr().is_ipv4())) {
        match net {
            IpNet::V4(net) => answer.attributes.extend([
                Attribute::InternalIp4Address(Some(net.addr())),
                Attribute::Ip4Netmask(Some(net.netmask())),
            ]),
            IpNet::V6(net) => {
                answer.attributes.push(Attribute::Ip6Address(Some((net.addr(), net.prefix_len()))))
            }
        }
    }
    answer
}
