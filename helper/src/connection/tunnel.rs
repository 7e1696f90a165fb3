//! The device, the pump on it, the sockets and SAs in the pump, and the system's routes and DNS: everything that a
//! connection makes, so that everything can be undone.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use ropewalk_datapath::{
    Config as PumpConfig, DataPath, DeviceId, Divert, Egress, EventReceiver, InboundHandle, InboundSpec,
    OutboundHandle, Selector, TunFd,
};
use ropewalk_esp::{EspSuite, InboundSa, OutboundSa, SequenceCounter};
use ropewalk_ike::exchange::child::{ChildSa, Mode};
use ropewalk_ike::exchange::{Path, Transmit};
use ropewalk_ike::time::Instant;
use ropewalk_ike::wire::TrafficSelectors;
use ropewalk_ipc::{ErrorCode, ErrorInfo};
use ropewalk_net::{Applied, DnsConfig, NetError, NextHops, TunDevice, TunRequest, TunnelConfig};
use ropewalk_profile::{AddressSource, Profile, TunnelMode};
use ropewalk_session::{InnerSettings, Traffic};

use super::carrying::Carrying;
use super::group::Group;
use super::links::Links;
use super::mtu::{IPV6_MINIMUM, device_mtu};
use crate::engine::{ConnectionContext, EngineConfig};
use crate::platform::Platform;

/// What DHCP servers say comes to the session, by whichever CHILD_SA.
const TO_DHCP_CLIENT: Divert = Divert { source_port: 67, destination_port: 68 };

/// Why a CHILD_SA, or an SA of the group, cannot be installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The suite or its keys.
    #[error("its keys do not fit: {0}")]
    Keys(String),
    /// The pump refuses.
    #[error(transparent)]
    Pump(#[from] ropewalk_datapath::DataPathError),
}

/// A CHILD_SA in the pump.
pub struct Installed {
    /// As negotiated.
    pub sa: ChildSa,
    /// Its inbound counters.
    pub inbound: InboundHandle,
    /// Its outbound counters and sequence.
    pub outbound: OutboundHandle,
    pub(super) suite: EspSuite,
}

/// What the system was made to look like.
pub struct Configured {
    /// Inner addresses.
    pub addresses: Vec<IpNet>,
    /// Routes into the tunnel.
    pub routes: Vec<IpNet>,
    /// DNS servers.
    pub dns_servers: Vec<IpAddr>,
    /// Split DNS domains.
    pub dns_domains: Vec<String>,
    /// Inner MTU.
    pub mtu: u16,
    /// What the system did of it.
    pub applied: Applied,
}

/// One connection's share of the system.
pub struct Tunnel {
    pub(super) device: Option<TunDevice>,
    pub(super) pump: Option<DataPath>,
    platform: Arc<Platform>,
    pub(super) links: Links,
    pub(super) children: Vec<Installed>,
    pub(super) sending: Option<u32>,
    pub(super) carrying: Carrying,
    pub(super) configured: Option<Configured>,
    pub(super) wanted: Option<TunnelConfig>,
    pub(super) keepalive: Duration,
    pub(super) fixed_mtu: u16,
    /// The inner address comes by DHCP.
    dhcp: bool,
    /// The largest packet that the DHCP server allows.
    pub(super) leased_mtu: Option<u16>,
    retired_in: (u64, u64),
    retired_out: (u64, u64),
    pub(super) group: Group,
}

impl Tunnel {
    /// Makes the device and starts the pump.
    ///
    /// # Errors
    /// The system refuses.
    pub fn open(
        context: &ConnectionContext,
        platform: Arc<Platform>,
    ) -> Result<(Self, EventReceiver), ErrorInfo> {
        let offloads = context.config.offloads;
        let mut request = TunRequest { offloads, ..TunRequest::default() };
        if !context.profile.tunnel.interface.is_empty() {
            request.name.clone_from(&context.profile.tunnel.interface);
        }
        let device =
            TunDevice::create(&request).map_err(|error| explain("create the tunnel device", &error))?;
        platform.set_routed(device.index(), is_routed(&context.profile));
        let fd = device.try_clone_fd().map_err(|error| explain("open the tunnel device", &error))?;
        let tun = TunFd { fd, vnet_hdr: device.vnet_hdr() };
        let config = PumpConfig { inner_mtu: IPV6_MINIMUM, offloads, ..PumpConfig::default() };
        let (pump, events) = DataPath::start(tun, config).map_err(|error| {
            ErrorInfo::new(ErrorCode::Failed, format!("the packet pump cannot start: {error}"), "")
        })?;
        let tunnel = Self {
            device: Some(device),
            pump: Some(pump),
            platform,
            links: Links::default(),
            children: Vec::new(),
            sending: None,
            carrying: Carrying::default(),
            configured: None,
            wanted: None,
            keepalive: Duration::from_secs(context.profile.timing.nat_keepalive.into()),
            fixed_mtu: context.profile.tunnel.mtu,
            dhcp: context.profile.address.source == AddressSource::Dhcp,
            leased_mtu: None,
            retired_in: (0, 0),
            retired_out: (0, 0),
            group: Group::new(&context.profile.multi_point_sa),
        };
        Ok((tunnel, events))
    }

    /// Opens a socket towards a gateway address, on this interface or on the one that the system would use; its path and
    /// the number of its interface.
    ///
    /// # Errors
    /// In words: there is no route, or the system refuses.
    pub async fn open_path(
        &mut self,
        platform: &Platform,
        remote: SocketAddr,
        interface: Option<u32>,
    ) -> Result<(Path, u32), String> {
        let pump = self.pump.as_ref().ok_or("the pump has stopped")?;
        self.links.open(platform, pump, remote, interface).await
    }

    /// Gives a socket up.
    pub fn close_path(&mut self, id: u32) {
        if let Some(pump) = &self.pump {
            self.links.close(pump, id);
        }
    }

    /// The sockets.
    #[must_use]
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// Sends an IKE message.
    pub fn send_ike(&self, transmit: &Transmit) {
        let (Some(link), Some(pump)) = (self.links.get(transmit.path.link), &self.pump) else { return };
        if let Err(error) = pump.send_ike(link.socket, transmit.path.remote, &transmit.message) {
            tracing::debug!(remote = %transmit.path.remote, %error, "an IKE message cannot be sent");
        }
    }

    /// The device's name.
    #[must_use]
    pub fn device_name(&self) -> Option<&str> {
        self.device.as_ref().map(TunDevice::name)
    }

    /// Sends an inner packet of the session's own by the CHILD_SA with our SPI `spi_in`.
    pub fn send_inner(&self, spi_in: u32, path: Path, packet: &[u8]) {
        let child = self.children.iter().find(|child| child.sa.spi_in == spi_in);
        let (Some(child), Some(link), Some(pump)) = (child, self.links.get(path.link), &self.pump) else {
            return;
        };
        let egress = Egress { sa: child.outbound.clone(), socket: link.socket, peer: path.remote };
        if let Err(error) = pump.send_inner(&egress, packet) {
            tracing::debug!(remote = %path.remote, %error, "an inner packet cannot be sent");
        }
    }

    /// Puts a CHILD_SA into the pump.
    ///
    /// # Errors
    /// [`InstallError`].
    pub fn install(&mut self, child: ChildSa, config: &EngineConfig) -> Result<(), InstallError> {
        let Some(pump) = &self.pump else { return Ok(()) };
        let keys = |error: &dyn std::fmt::Display| InstallError::Keys(error.to_string());
        let bits = child.suite.key_bits.unwrap_or(0);
        let suite = EspSuite::from_iana(child.suite.encr, bits, child.suite.integ).map_err(|e| keys(&e))?;
        let (esn, out, into) = (child.suite.esn, &child.keys_out, &child.keys_in);
        let outbound =
            OutboundSa::new(child.spi_out, suite, &out.encr, &out.integ, esn).map_err(|e| keys(&e))?;
        let sa = InboundSa::new(child.spi_in, suite, &into.encr, &into.integ, esn).map_err(|e| keys(&e))?;
        let (sources, destinations) = match child.mode {
            Mode::Tunnel => (selectors(&child.ts_remote), selectors(&child.ts_local)),
            // Its selectors are of the outer header; inside, routing decides (RFC 3884).
            Mode::Transport => (Selector::everything(), Selector::everything()),
        };
        let inbound = pump.add_inbound(InboundSpec {
            sa,
            sources,
            destinations,
            outer: child.outer(),
            device: DeviceId::MAIN,
            peer: None,
            divert: self.dhcp.then_some(TO_DHCP_CLIENT),
        })?;
        if let (Some(folder), Some(link)) = (&config.key_log_dir, self.links.current()) {
            ropewalk_keylog::child(folder, &child, link.path);
        }
        let sequence = SequenceCounter::starting_after(config.esp_sequence, esn);
        let outbound = OutboundHandle::with_sequence(outbound, sequence);
        self.children.push(Installed { sa: child, inbound, outbound, suite });
        self.group_surrounded();
        Ok(())
    }

    /// Takes a CHILD_SA out of the pump.
    pub fn remove(&mut self, spi_in: u32) {
        let Some(at) = self.children.iter().position(|child| child.sa.spi_in == spi_in) else { return };
        let gone = self.children.remove(at);
        let (inbound, outbound) = (gone.inbound.counters(), gone.outbound.counters());
        self.retired_in = (self.retired_in.0 + inbound.bytes, self.retired_in.1 + inbound.packets);
        self.retired_out = (self.retired_out.0 + outbound.bytes, self.retired_out.1 + outbound.packets);
        if let Some(pump) = &self.pump {
            pump.remove_inbound(spi_in);
        }
        self.leave_carriage(spi_in, (inbound.bytes, outbound.bytes));
    }

    /// Gives the device its addresses, routes and DNS.
    ///
    /// # Errors
    /// The system refuses, or the gateway granted nothing that can be used.
    pub async fn configure(
        &mut self,
        platform: &Platform,
        profile: &Profile,
        inner: &InnerSettings,
    ) -> Result<(), ErrorInfo> {
        let Some(device) = &self.device else { return Ok(()) };
        let addresses: Vec<IpNet> = match profile.address.source {
            AddressSource::Static => profile.address.fixed.clone(),
            AddressSource::ConfigPayload | AddressSource::Dhcp => granted_addresses(profile, inner),
        };
        if addresses.is_empty() {
            return Err(ErrorInfo::new(
                ErrorCode::Failed,
                "the gateway gave this client no inner address",
                "its address pool may be used up, or set address.source = \"static\" in the profile",
            ));
        }
        let servers = if profile.dns.servers.is_empty() {
            inner.dns_servers.clone()
        } else {
            profile.dns.servers.clone()
        };
        let routed = is_routed(profile);
        let mut routes = match &inner.routes {
            _ if routed => profile.tunnel.routes.clone(),
            // What a DHCP server says of routes was judged already, by the profile's routes too.
            Some(named) => named.clone(),
            None => routes(profile, inner, &addresses),
        };
        self.leased_mtu = inner.mtu;
        let listed = profile.multi_point_sa.routes.iter().map(|route| route.prefix);
        let listed = listed.filter(|prefix| !routes.iter().any(|route| route.contains(prefix)));
        let beside: Vec<IpNet> = listed.filter(|_| profile.multi_point_sa.enabled).collect();
        routes.extend(&beside);
        if !routed {
            routes.extend(routes_to_servers(&servers, inner, &routes));
        }
        let domains = if profile.dns.domains.is_empty() {
            inner.dns_domains.clone()
        } else {
            profile.dns.domains.clone()
        };
        let mtu = self.inner_mtu();
        let config = TunnelConfig {
            addresses: addresses.clone(),
            routes: routes.clone(),
            beside,
            exclude: profile.tunnel.exclude.clone(),
            mtu: device_mtu(mtu, &addresses).into(),
            dns: DnsConfig {
                servers: servers.clone(),
                domains: domains.clone(),
                search: inner.search.clone(),
            },
            routed,
            ..TunnelConfig::new(device.device_ref())
        };
        // What stands is known until something else does: whatever fails here has to be undone in the end.
        let same = self.wanted.as_ref() == Some(&config);
        let applied = match self.configured.as_ref().filter(|_| same) {
            Some(configured) => {
                // Less may have fitted meanwhile.
                if routed && let Err(error) = device.set_mtu(config.mtu) {
                    tracing::warn!(%error, "the device keeps its MTU");
                }
                configured.applied.clone()
            }
            None => platform
                .network
                .apply(&config)
                .await
                .map_err(|error| explain("configure the tunnel", &error))?,
        };
        self.wanted = Some(config);
        self.configured =
            Some(Configured { addresses, routes, dns_servers: servers, dns_domains: domains, mtu, applied });
        self.fit_mtu();
        Ok(())
    }

    /// Undoes what [`Self::configure`] did; the device stays until [`Self::close`].
    pub async fn release(&mut self, platform: &Platform) {
        let (Some(_), Some(device)) = (&self.configured, &self.device) else { return };
        self.wanted = None;
        match platform.network.undo(device.name()).await {
            Ok(()) => self.configured = None,
            // It is tried again when the connection ends, and when the service does.
            Err(error) => tracing::error!(%error, "the tunnel's configuration cannot be undone"),
        }
    }

    /// Removes everything: when this returns the device is gone.
    pub async fn close(&mut self, platform: &Platform) {
        self.release(platform).await;
        self.children.clear();
        self.links = Links::default();
        if let Some(pump) = self.pump.take() {
            // Stopping joins the pump's threads, which takes a moment that the async threads should not lose.
            if tokio::task::spawn_blocking(move || pump.stop()).await.is_err() {
                tracing::error!("the packet pump did not stop cleanly");
            }
        }
        if let Some(device) = self.device.take() {
            platform.set_routed(device.index(), false);
        }
    }

    /// What each CHILD_SA has carried so far.
    #[must_use]
    pub fn traffic(&self) -> Vec<Traffic> {
        let of = |child: &Installed| {
            let (inbound, outbound) = (child.inbound.counters(), child.outbound.counters());
            Traffic {
                spi_in: child.sa.spi_in,
                received: inbound.bytes,
                sent: outbound.bytes,
                last_in: inbound.last.map(Instant::from_start),
                last_out: outbound.last.map(Instant::from_start),
                arrived: (inbound.authentic, inbound.newest),
            }
        };
        self.children.iter().map(of).collect()
    }

    /// The CHILD_SAs, the sending one first.
    pub fn children(&self) -> impl Iterator<Item = &Installed> {
        let sending = |child: &&Installed| Some(child.sa.spi_in) == self.sending;
        self.children.iter().filter(sending).chain(self.children.iter().filter(move |child| !sending(child)))
    }

    /// Watches the routes that others put on the device, when the profile wants them.
    pub async fn next_hops(&self) -> Option<NextHops> {
        let device = self.device.as_ref().filter(|_| self.group.learns())?;
        match NextHops::start(device.index()).await {
            Ok(watch) => Some(watch),
            Err(error) => {
                tracing::warn!(%error, "routes to members of the group cannot be learned");
                None
            }
        }
    }

    /// How the system looks.
    #[must_use]
    pub fn configured(&self) -> Option<&Configured> {
        self.configured.as_ref()
    }

    /// Bytes and packets of CHILD_SAs that are gone: in, out.
    #[must_use]
    pub fn retired(&self) -> ((u64, u64), (u64, u64)) {
        (self.retired_in, self.retired_out)
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        // Only a panic or a shutdown past its limit comes here with the configuration in place: the journal still
        // holds it, and the next start sweeps it.
        if self.configured.is_some() {
            tracing::warn!(network = ?Arc::as_ptr(&self.platform), "a tunnel was dropped before it was undone");
        }
    }
}

/// As the pump wants them.
pub(super) fn selectors(wire: &TrafficSelectors) -> Vec<Selector> {
    wire.selectors
        .iter()
        .map(|selector| Selector {
            addresses: selector.start()..=selector.end(),
            protocol: selector.protocol(),
            ports: selector.start_port()..=selector.end_port(),
        })
        .collect()
}

/// Whether the device is an interface for routing protocols (RFC 3884).
fn is_routed(profile: &Profile) -> bool {
    profile.tunnel.mode == TunnelMode::IipTran
}

/// What the gateway granted; on a link with the link's prefix.
fn granted_addresses(profile: &Profile, inner: &InnerSettings) -> Vec<IpNet> {
    let link = inner.link_prefix.filter(|_| is_routed(profile));
    let granted = inner.addresses.iter().filter_map(|(ip, len)| {
        let len = if ip.is_ipv4() { link.unwrap_or(*len) } else { *len };
        IpNet::new(*ip, len).ok()
    });
    let granted: Vec<IpNet> = granted.collect();
    let alone = |net: &&IpNet| net.prefix_len() == net.max_prefix_len();
    for host in granted.iter().filter(alone).filter(|_| is_routed(profile)) {
        tracing::warn!(
            address = %host,
            "the gateway names no link for this address: a routing protocol will not speak on it; set address.static"
        );
    }
    granted
}

/// What goes into the tunnel: what the gateway grants, or the part of the profile's wishes that it grants. A family
/// without an inner address has no routes: nothing could be sent.
fn routes(profile: &Profile, inner: &InnerSettings, addresses: &[IpNet]) -> Vec<IpNet> {
    let mut routes: Vec<IpNet> = Vec::new();
    let granted = inner.reachable.selectors.iter().flat_map(|selector| selector.prefixes());
    for granted in granted.filter_map(|(ip, len)| IpNet::new(ip, len).ok()) {
        let found: Vec<IpNet> = if profile.tunnel.routes.is_empty() {
            vec![granted]
        } else {
            let wanted = profile.tunnel.routes.iter();
            wanted.filter_map(|wanted| narrower(wanted, &granted)).collect()
        };
        for route in found {
            let family = addresses.iter().any(|inner| inner.addr().is_ipv4() == route.addr().is_ipv4());
            if family && !routes.contains(&route) {
                routes.push(route);
            }
        }
    }
    routes
}

/// Name servers that only the tunnel reaches, when the profile's own routes leave them out.
fn routes_to_servers(servers: &[IpAddr], inner: &InnerSettings, routes: &[IpNet]) -> Vec<IpNet> {
    let outside = |server: &&IpAddr| !routes.iter().any(|route| route.contains(*server));
    let granted = |server: &&IpAddr| inner.reachable.contains(**server);
    let family = |server: &&IpAddr| inner.addresses.iter().any(|(ip, _)| ip.is_ipv4() == server.is_ipv4());
    servers.iter().filter(outside).filter(granted).filter(family).map(|server| IpNet::from(*server)).collect()
}

fn narrower(a: &IpNet, b: &IpNet) -> Option<IpNet> {
    if a.contains(b) {
        Some(*b)
    } else if b.contains(a) {
        Some(*a)
    } else {
        None
    }
}

fn explain(what: &str, error: &NetError) -> ErrorInfo {
    let hint = match error {
        NetError::DeviceExists { .. } => {
            "choose another name for tunnel.interface in the profile, or leave it away"
        }
        NetError::AddressConflict { .. } => {
            "the local network uses the same addresses as the tunnel: use another network, or ask the administrator"
        }
        _ => "the helper must run as root, with /dev/net/tun available",
    };
    ErrorInfo::new(ErrorCode::Failed, format!("cannot {what}: {error}"), hint)
}
