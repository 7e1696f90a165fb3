//! Inner addresses of their own for a client's further IKE_SAs, where it asks for them.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ropewalk_ike::exchange::inner::{InnerGrant, InnerSource};
use ropewalk_ike::time::Instant;
use ropewalk_ike::wire::{Attribute, ConfigType, Configuration, TrafficSelector, TrafficSelectors};

use crate::leases::{Asker, Holder, Leases};
use crate::settings::Settings;

/// The leases, which IKE_SAs ask as well.
#[derive(Clone, Debug)]
pub(crate) struct SharedLeases(Arc<Mutex<Leases>>);

impl SharedLeases {
    pub(crate) fn new(leases: Leases) -> Self {
        Self(Arc::new(Mutex::new(leases)))
    }

    pub(crate) fn get(&self) -> MutexGuard<'_, Leases> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one further IKE_SA of a client may have.
#[derive(Debug)]
pub(crate) struct OwnAddresses {
    leases: SharedLeases,
    identity: String,
    holder: Holder,
    reachable: TrafficSelectors,
    dns: Vec<IpAddr>,
    domains: Vec<String>,
}

impl OwnAddresses {
    /// For the IKE_SA that holds its addresses by this number.
    pub(crate) fn new(leases: &SharedLeases, settings: &Settings, identity: &str, holder: Holder) -> Self {
        Self {
            leases: leases.clone(),
            identity: identity.to_owned(),
            holder,
            reachable: settings.traffic_selectors(),
            dns: settings.dns.clone(),
            domains: settings.domains.clone(),
        }
    }
}

impl InnerSource for OwnAddresses {
    fn grant(&self, now: Instant, request: &Configuration) -> Option<InnerGrant> {
        let asker = Asker { identity: &self.identity, holder: self.holder, now };
        let mut leases = self.leases.get();
        let mut addresses: Vec<IpAddr> = Vec::new();
        for (ipv4, wanted) in asked(request) {
            if !addresses.iter().any(|address| address.is_ipv4() == ipv4) {
                addresses.extend(leases.acquire_further(asker, ipv4, wanted));
            }
        }
        if addresses.is_empty() {
            return None;
        }
        let mut reachable = self.reachable.clone();
        reachable.selectors.retain(|selector| {
            addresses.iter().any(|address| address.is_ipv4() == selector.start().is_ipv4())
        });
        Some(InnerGrant {
            reply: reply(&self.dns, &self.domains, request, &addresses),
            ts_local: reachable,
            ts_remote: hosts(&addresses),
        })
    }
}

/// The addresses that a CFG_REQUEST asks for: the family, and the one that is wanted.
pub(crate) fn asked(request: &Configuration) -> impl Iterator<Item = (bool, Option<IpAddr>)> {
    request.attributes.iter().filter_map(|attribute| {
        let (ipv4, wanted) = match attribute {
            Attribute::InternalIp4Address(wanted) => (true, wanted.map(IpAddr::from)),
            Attribute::Ip6Address(wanted) => (false, wanted.map(|(wanted, _)| IpAddr::from(wanted))),
            _ => return None,
        };
        Some((ipv4, wanted.filter(|wanted| !wanted.is_unspecified())))
    })
}

/// CFG_REPLY: the addresses, and what was asked for besides and is configured.
pub(crate) fn reply(
    dns: &[IpAddr],
    domains: &[String],
    request: &Configuration,
    addresses: &[IpAddr],
) -> Configuration {
    let asked = |wanted: fn(&Attribute) -> bool| request.attributes.iter().any(wanted);
    let mut attributes: Vec<Attribute> = addresses
        .iter()
        .map(|address| match address {
            IpAddr::V4(v4) => Attribute::InternalIp4Address(Some(*v4)),
            IpAddr::V6(v6) => Attribute::Ip6Address(Some((*v6, 128))),
        })
        .collect();
    for server in dns {
        match server {
            IpAddr::V4(v4) if asked(|attribute| matches!(attribute, Attribute::Ip4Dns(_))) => {
                attributes.push(Attribute::Ip4Dns(Some(*v4)));
            }
            IpAddr::V6(v6) if asked(|attribute| matches!(attribute, Attribute::Ip6Dns(_))) => {
                attributes.push(Attribute::Ip6Dns(Some(*v6)));
            }
            IpAddr::V4(_) | IpAddr::V6(_) => {}
        }
    }
    // RFC 8598 wants the domains to be asked for; they restrict what goes to those servers, so they are sent with them.
    if !dns.is_empty() {
        attributes.extend(domains.iter().cloned().map(Attribute::InternalDnsDomain));
    }
    Configuration { ty: ConfigType::Reply, attributes }
}

/// Selectors of these addresses and nothing else.
pub(crate) fn hosts(addresses: &[IpAddr]) -> TrafficSelectors {
    TrafficSelectors::new(addresses.iter().copied().map(TrafficSelector::host).collect())
}
