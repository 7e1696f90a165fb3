//! How large packets inside the tunnel may be: what the paths in use carry, less what ESP and UDP add.
//!
//! The session finds out what a path carries ([`ropewalk_session::path_size`]). Two sizes follow from it: what is larger than the
//! path *perhaps* carries is answered with "too big" at the tunnel's mouth, and TCP connections are fitted into what it
//! *surely* carries, in both directions, when they begin. The device's own MTU is set once, to what its interface carries:
//! the system learns of less by those answers, for each destination. Only for routers it follows.

use std::net::IpAddr;

use ipnet::IpNet;
use ropewalk_esp::EspSuite;
use ropewalk_ike::exchange::Path;
use ropewalk_ipc::{ErrorCode, ErrorInfo};
use ropewalk_session::{Bounds, PathSize};

use super::tunnel::Tunnel;

/// IPv6 works with no less (RFC 8200 section 5).
pub(super) const IPV6_MINIMUM: u16 = 1280;
/// The largest inner packet offered to the system: room for a tunnel or PPPoE on the way outside.
const LARGEST: u16 = 1400;
/// What is left of 576 octets, which every IPv4 path carries, by the suite that adds the most. DNS answers of 512 octets are cut
/// in two, and nothing smaller was ever seen.
const LEAST: u16 = 472;
/// What every path of a family carries (RFC 791 and RFC 8200).
const LEAST_IPV4_PATH: usize = 576;
const LEAST_IPV6_PATH: usize = 1280;

/// The MTU that the device gets: the system takes no IPv6 address with less than 1280, and no network below 576 octets.
pub(super) fn device_mtu(inner: u16, addresses: &[IpNet]) -> u16 {
    let ipv6 = addresses.iter().any(|net| net.addr().is_ipv6());
    inner.max(if ipv6 { IPV6_MINIMUM } else { 576 })
}

impl Tunnel {
    /// The paths in use on which sizes matter that are not known, for the session to find out.
    #[must_use]
    pub fn sizes_wanted(&self) -> Vec<(Path, Bounds)> {
        if self.fixed_mtu != 0 {
            return Vec::new();
        }
        let wanted = self.in_use().map(|(lane, link, suite)| {
            let outer = |inner: u16| outer_len(suite, inner, lane.path.remote.ip());
            let least = if lane.path.remote.is_ipv4() { LEAST_IPV4_PATH } else { LEAST_IPV6_PATH };
            (lane.path, Bounds { least, usual: outer(IPV6_MINIMUM), most: outer(LARGEST).min(link.path_mtu) })
        });
        wanted.collect()
    }

    /// What was found out about the path of this socket.
    pub fn path_size(&mut self, link: u32, size: PathSize) {
        let before = self.links.get(link).map(|link| link.carries());
        self.links.sized(link, size);
        self.fit_mtu();
        let inner = self.inner_mtu();
        if size.surely < size.perhaps {
            return;
        }
        if self.links.get(link).is_some_and(|link| size.surely < link.path_mtu.min(1500) && inner < LARGEST) {
            tracing::info!(
                path = size.surely,
                inner,
                "the path swallows or refuses larger packets; what is inside the tunnel is kept smaller"
            );
        } else if before.is_some_and(|before| before.surely != size.surely) {
            tracing::debug!(path = size.surely, inner, "the path carries this");
        }
    }

    /// What the narrowest path in use carries is what the tunnel carries.
    pub(super) fn fit_mtu(&mut self) {
        let inner = self.inner_mtu();
        if let Some(pump) = &self.pump {
            pump.set_inner_mtus(inner, self.fits(|size| size.surely));
        }
        let Some(configured) = &mut self.configured else { return };
        configured.mtu = inner;
        // Routers go by what the device says, and two neighbours must say the same.
        let routed = self.wanted.as_ref().is_some_and(|wanted| wanted.routed);
        // While nothing carries, nothing is known: the far end's neighbours would mind another MTU.
        let known = self.links.current().is_some() && !self.children.is_empty();
        if let Some(device) = self.device.as_ref().filter(|_| routed && known)
            && let Err(error) = device.set_mtu(device_mtu(inner, &configured.addresses).into())
        {
            tracing::warn!(%error, "the device keeps its MTU");
        }
    }

    /// The largest inner packet that is not refused.
    pub(super) fn inner_mtu(&self) -> u16 {
        self.fits(|size| size.perhaps)
    }

    fn fits(&self, of: impl Fn(PathSize) -> usize) -> u16 {
        if self.fixed_mtu != 0 {
            return self.fixed_mtu;
        }
        let in_use = self.in_use().map(|(lane, link, suite)| {
            let (carries, ipv6) = (of(link.carries()), lane.path.remote.is_ipv6());
            // Packets to members of a group go other ways. Of these no more is known than what the interface says, unless it is
            // known that this one carries less than is wanted of it.
            let wanted = outer_len(suite, LARGEST, lane.path.remote.ip()).min(link.path_mtu);
            let elsewhere = if carries < wanted { carries } else { link.path_mtu };
            let group =
                self.group.suites().map(|suite| suite.inner_mtu(elsewhere, ipv6 || self.group.sends_ipv6()));
            group.chain([suite.inner_mtu(carries, ipv6)]).min().unwrap_or_default()
        });
        // Nothing carries yet: by what will.
        let next = || {
            let (link, child) = (self.links.current()?, self.children.last()?);
            Some(child.suite.inner_mtu(of(link.carries()), link.path.remote.is_ipv6()))
        };
        let fits = in_use.min().or_else(next).unwrap_or_else(|| IPV6_MINIMUM.into());
        let fits = u16::try_from(fits).unwrap_or(LARGEST).clamp(LEAST, LARGEST);
        self.leased_mtu.map_or(fits, |leased| leased.min(fits))
    }

    /// What is to be told of a path that carries less than IPv6 needs.
    #[must_use]
    pub fn too_narrow(&self) -> Option<ErrorInfo> {
        let configured = self.configured.as_ref().filter(|configured| configured.mtu < IPV6_MINIMUM)?;
        let ipv6 = configured.addresses.iter().any(|net| net.addr().is_ipv6());
        let path = self.in_use().map(|(_, link, _)| link.carries().perhaps).min()?;
        let inner = configured.mtu;
        let narrow = format!(
            "This network carries packets of {path} octets at most, so {inner} octets fit through the tunnel."
        );
        let wanted = self.fixed_mtu != 0 || self.leased_mtu.is_some_and(|leased| leased <= inner);
        let (message, hint) = if wanted {
            return None;
        } else if ipv6 {
            (
                format!(
                    "{narrow} IPv6 needs {IPV6_MINIMUM}: IPv6 connections by TCP are fitted, other large IPv6 packets get lost."
                ),
                "Use another network, or ask its operator why large packets are dropped; IPv4 inside works.",
            )
        } else {
            (
                format!("{narrow} IPv4 is fitted into that and works, a little slower."),
                "Use another network, or ask its operator why large packets are dropped.",
            )
        };
        Some(ErrorInfo::new(ErrorCode::Failed, message, hint))
    }
}

/// Octets of the IP packet around an inner one.
fn outer_len(suite: EspSuite, inner: u16, remote: IpAddr) -> usize {
    let headers = if remote.is_ipv4() { 20 + 8 } else { 40 + 8 };
    headers + suite.sealed_len(inner.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_fits_into_the_least_path_with_every_suite() {
        for (encr, bits, integ) in [(20, 128, None), (28, 0, None), (12, 128, Some(12)), (12, 256, Some(14))]
        {
            let suite = EspSuite::from_iana(encr, bits, integ).unwrap();
            assert!(suite.inner_mtu(LEAST_IPV4_PATH, false) >= LEAST.into(), "{suite:?}");
            assert!(outer_len(suite, IPV6_MINIMUM, IpAddr::from([192, 0, 2, 1])) >= 1280);
        }
    }

    #[test]
    fn a_device_takes_what_its_addresses_need() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        assert_eq!(device_mtu(1000, &[net("10.0.0.1/32")]), 1000);
        assert_eq!(device_mtu(500, &[net("10.0.0.1/32")]), 576);
        assert_eq!(device_mtu(1000, &[net("10.0.0.1/32"), net("fd00::1/128")]), 1280);
        assert_eq!(device_mtu(1400, &[net("fd00::1/128")]), 1400);
    }
}
