//! Sockets, CHILD_SAs and the clients' routes in the packet pump.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use anyhow::Context;
use ipnet::IpNet;
use ropewalk_datapath::{
    Carriage as Ways, Config as PumpConfig, Counters, DataPath, DeviceId, Divert, Egress, EventReceiver,
    Framing, InboundHandle, InboundSpec, OutboundHandle, Selector, Share, SocketId, TunFd,
};
use ropewalk_esp::{EspSuite, InboundSa, OutboundSa};
use ropewalk_gateway::{Carriage, ClientId};
use ropewalk_ike::exchange::child::{ChildSa, Mode};
use ropewalk_ike::exchange::{Path, Transmit};
use ropewalk_ike::time::Instant;
use ropewalk_ike::wire::TrafficSelectors;
use ropewalk_net::TunDevice;
use socket2::{Domain, Protocol, Socket, Type};

use super::config::Config;
use super::host::Host;

/// What a path carries when nothing else is known.
const USUAL_PATH_MTU: u16 = 1500;
/// IPv6 works with no less (RFC 8200 section 5).
const SMALLEST_INNER_MTU: u16 = 1280;

struct Bound {
    id: SocketId,
    local: SocketAddr,
}

struct Child {
    client: ClientId,
    suite: EspSuite,
    inbound: InboundHandle,
    outbound: OutboundHandle,
    prefixes: Vec<IpNet>,
    /// The device whose packets go by it: a neighbour's own in transport mode.
    device: DeviceId,
    path: Path,
}

/// What went through a CHILD_SA.
pub struct Traffic {
    /// Our SPI of it.
    pub spi_in: u32,
    /// When something authentic came in last.
    pub last: Option<Instant>,
    /// Octets of inner packets received.
    pub received: u64,
    /// And sent.
    pub sent: u64,
    /// Authentic packets received, and the highest sequence number of one.
    pub arrived: (u64, u64),
}

/// The data plane.
pub struct Plane {
    pump: DataPath,
    sockets: Vec<Bound>,
    children: BTreeMap<u32, Child>,
    /// With what each client is sent to, and a number that is the higher the later that was said.
    carriages: BTreeMap<ClientId, (u64, Carriage)>,
    /// The devices of neighbours, by the clients' names.
    links: BTreeMap<String, DeviceId>,
    /// The clients that are neighbours.
    neighbours: BTreeMap<ClientId, DeviceId>,
    path_mtus: BTreeMap<IpAddr, u16>,
    largest: u16,
    carried: u64,
    expects_copies: bool,
}

impl Plane {
    /// Starts the pump on the device and opens the sockets.
    ///
    /// # Errors
    /// The system refuses.
    pub fn start(config: &Config, host: &Host) -> anyhow::Result<(Self, EventReceiver)> {
        let tun = open(host.device())?;
        let pump_config = PumpConfig {
            inner_mtu: config.tunnel.mtu,
            offloads: config.tunnel.offloads,
            ike_queue: 1024,
            name: "gateway".to_owned(),
            ..PumpConfig::default()
        };
        let (pump, events) = DataPath::start(tun, pump_config).context("start the packet pump")?;
        let mut links = BTreeMap::new();
        for (client, device) in host.links() {
            let added = pump.add_device(open(device)?);
            links.insert(client.clone(), added.context("add the device of a link to the pump")?);
        }
        let mut sockets = Vec::new();
        let listen = &config.listen;
        for address in &listen.addresses {
            for (port, framing) in [(listen.port, Framing::Plain), (listen.nat_t_port, Framing::NatTraversal)]
            {
                let local = SocketAddr::new(*address, port);
                let socket = bind(local).with_context(|| format!("listen on {local}"))?;
                let local = socket.local_addr()?;
                let id = pump.add_socket(socket, framing).with_context(|| format!("listen on {local}"))?;
                sockets.push(Bound { id, local });
            }
        }
        let largest = config.tunnel.mtu;
        let plane = Self {
            pump,
            sockets,
            children: BTreeMap::new(),
            carriages: BTreeMap::new(),
            links,
            neighbours: BTreeMap::new(),
            path_mtus: BTreeMap::new(),
            largest,
            carried: 0,
            expects_copies: false,
        };
        Ok((plane, events))
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().map(|socket| socket.local).collect()
    }

    /// What came in by this socket, as the gateway names it.
    #[must_use]
    pub fn path(&self, socket: SocketId, local: SocketAddr, remote: SocketAddr) -> Option<Path> {
        let link = self.sockets.iter().position(|bound| bound.id == socket)?;
        Some(Path { link: u32::try_from(link).ok()?, local, remote })
    }

    /// The way to whoever sent something by this socket that is none of a client's.
    #[must_use]
    pub fn way_back(&self, socket: SocketId, remote: SocketAddr) -> Option<Path> {
        let bound = self.sockets.iter().find(|bound| bound.id == socket)?;
        self.path(socket, bound.local, remote)
    }

    /// The way of the same kind from one of the addresses that are left, when that of `path` is not among them.
    #[must_use]
    pub fn other_way(&self, path: Path, own: &[IpAddr]) -> Option<Path> {
        if own.contains(&path.local.ip()) {
            return None;
        }
        let fits = |bound: &&Bound| {
            bound.local.port() == path.local.port()
                && bound.local.is_ipv4() == path.remote.is_ipv4()
                && own.contains(&bound.local.ip())
        };
        let bound = self.sockets.iter().find(fits)?;
        self.path(bound.id, bound.local, path.remote)
    }

    /// Sends an IKE message.
    pub fn send_ike(&self, transmit: &Transmit) {
        let Some(socket) = self.socket(transmit.path) else { return };
        if let Err(error) = self.pump.send_ike(socket, transmit.path.remote, &transmit.message) {
            tracing::debug!(remote = %transmit.path.remote, %error, "an IKE message cannot be sent");
        }
    }

    /// A client is in. It may be a neighbour.
    pub fn enter(&mut self, client: ClientId, name: &str) {
        self.neighbours.extend(self.links.get(name).map(|device| (client, *device)));
    }

    /// A client is gone.
    pub fn leave(&mut self, client: ClientId) {
        self.neighbours.remove(&client);
    }

    /// Sends an inner packet by one CHILD_SA.
    pub fn send_inner(&self, spi_in: u32, packet: &[u8]) {
        let Some(egress) = self.children.get(&spi_in).and_then(|child| self.egress(child)) else { return };
        if let Err(error) = self.pump.send_inner(&egress, packet) {
            tracing::debug!(peer = %egress.peer, %error, "an inner packet cannot be sent");
        }
    }

    /// Puts a CHILD_SA into the pump; packets to its client go by it from now on.
    ///
    /// # Errors
    /// Its suite is not ours, its keys do not fit, or the pump refuses.
    pub fn install(&mut self, client: ClientId, child: &ChildSa, path: Path) -> anyhow::Result<()> {
        let bits = child.suite.key_bits.unwrap_or(0);
        let suite = EspSuite::from_iana(child.suite.encr, bits, child.suite.integ)?;
        let (esn, out, into) = (child.suite.esn, &child.keys_out, &child.keys_in);
        let outbound = OutboundSa::new(child.spi_out, suite, &out.encr, &out.integ, esn)?;
        let sa = InboundSa::new(child.spi_in, suite, &into.encr, &into.integ, esn)?;
        let peer = self.socket(path).map(|socket| (socket, path.remote));
        let (sources, destinations, device) = match child.mode {
            Mode::Tunnel => (selectors(&child.ts_remote), selectors(&child.ts_local), DeviceId::MAIN),
            Mode::Transport => {
                let link = self.neighbours.get(&client).context("the client has no link")?;
                (Selector::everything(), Selector::everything(), *link)
            }
        };
        let outer = child.outer();
        let divert = child.is_for_dhcp().then_some(Divert { source_port: 68, destination_port: 67 });
        let inbound =
            self.pump.add_inbound(InboundSpec { sa, sources, destinations, outer, device, peer, divert })?;
        let prefixes: Vec<IpNet> = match child.mode {
            // What is for DHCP only is no way to its client.
            Mode::Tunnel if child.is_for_dhcp() => Vec::new(),
            Mode::Tunnel => {
                let prefixes = child.ts_remote.selectors.iter().flat_map(|selector| selector.prefixes());
                prefixes.filter_map(|(address, length)| IpNet::new(address, length).ok()).collect()
            }
            Mode::Transport => Vec::new(),
        };
        let outbound = OutboundHandle::new(outbound);
        let child = Child { client, suite, inbound, outbound, prefixes, device, path };
        self.children.insert(child.inbound.spi(), child);
        self.expect_copies();
        self.fit_mtu();
        Ok(())
    }

    /// Sends to a client with these CHILD_SAs from now on.
    pub fn carry(&mut self, client: ClientId, carriage: Carriage) {
        self.carried += 1;
        self.carriages.insert(client, (self.carried, carriage));
        self.route(client);
    }

    /// Takes a CHILD_SA out; if its client has another one, packets go by that.
    pub fn remove(&mut self, spi_in: u32) {
        let Some(gone) = self.children.remove(&spi_in) else { return };
        self.pump.remove_inbound(spi_in);
        if !self.children.values().any(|child| child.client == gone.client) {
            self.carriages.remove(&gone.client);
        }
        for prefix in &gone.prefixes {
            self.set_route(*prefix);
        }
        if gone.device != DeviceId::MAIN {
            self.set_link(gone.device);
        }
        self.expect_copies();
        self.fit_mtu();
    }

    /// Sends what goes by these CHILD_SAs of a client by another path.
    pub fn follow(&mut self, moved: &[u32], path: Path) {
        let mut clients = BTreeSet::new();
        for spi_in in moved {
            if let Some(child) = self.children.get_mut(spi_in) {
                child.path = path;
                clients.insert(child.client);
            }
        }
        for client in clients {
            self.route(client);
        }
        self.expect_copies();
        self.fit_mtu();
    }

    /// The path to `remote` carries no packets above `mtu` octets.
    pub fn path_mtu(&mut self, remote: SocketAddr, mtu: u16) {
        tracing::info!(%remote, mtu, "the path MTU changed");
        self.path_mtus.insert(remote.ip(), mtu);
        self.fit_mtu();
    }

    /// When each CHILD_SA last received something authentic, and what it received and sent.
    pub fn traffic(&self) -> Vec<Traffic> {
        let of = |(spi_in, child): (&u32, &Child)| {
            let (inbound, outbound) = (child.inbound.counters(), child.outbound.counters());
            let last = inbound.last.map(Instant::from_start);
            Traffic {
                spi_in: *spi_in,
                last,
                received: inbound.bytes,
                sent: outbound.bytes,
                arrived: (inbound.authentic, inbound.newest),
            }
        };
        self.children.iter().map(of).collect()
    }

    /// Octets that a client's CHILD_SAs received and sent.
    #[must_use]
    pub fn octets(&self, client: ClientId) -> (u64, u64) {
        let children = self.children.values().filter(|child| child.client == client);
        children.fold((0, 0), |(received, sent), child| {
            (received + child.inbound.counters().bytes, sent + child.outbound.counters().bytes)
        })
    }

    /// Octets that these CHILD_SAs received and sent.
    #[must_use]
    pub fn octets_of(&self, children: &[u32]) -> (u64, u64) {
        let children = children.iter().filter_map(|spi_in| self.children.get(spi_in));
        children.fold((0, 0), |(received, sent), child| {
            (received + child.inbound.counters().bytes, sent + child.outbound.counters().bytes)
        })
    }

    /// The pump's counters.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.pump.counters()
    }

    fn socket(&self, path: Path) -> Option<SocketId> {
        self.sockets.get(usize::try_from(path.link).ok()?).map(|bound| bound.id)
    }

    fn route(&self, client: ClientId) {
        let children = self.children.values().filter(|child| child.client == client);
        let prefixes: BTreeSet<IpNet> = children.flat_map(|child| child.prefixes.iter().copied()).collect();
        for prefix in prefixes {
            self.set_route(prefix);
        }
        if let Some(device) = self.neighbours.get(&client) {
            self.set_link(*device);
        }
    }

    /// What is routed into a neighbour's interface goes by the CHILD_SA of whichever of its logins was told last.
    fn set_link(&self, device: DeviceId) {
        let of = |client: ClientId| {
            self.children.values().any(|child| child.client == client && child.device == device)
        };
        let ways = self.newest(of, None);
        if let Err(error) = self.pump.set_egress_of(device, ways) {
            tracing::error!(%error, "the pump refuses a link's way");
        }
    }

    /// Of all clients that have this prefix, as one does twice while it logs in anew, the one told last is sent to.
    fn set_route(&self, prefix: IpNet) {
        let has = |client: ClientId| {
            self.children.values().any(|child| child.client == client && child.prefixes.contains(&prefix))
        };
        if let Err(error) = self.pump.set_route(prefix, self.newest(has, Some(prefix))) {
            tracing::error!(%prefix, %error, "the pump refuses a route");
        }
    }

    /// With what those clients are sent to; of several the one told last.
    fn newest(&self, of: impl Fn(ClientId) -> bool, prefix: Option<IpNet>) -> Option<Ways> {
        let carriages = self.carriages.iter().filter(|(client, _)| of(**client));
        let newest = carriages.max_by_key(|(_, (order, _))| *order);
        newest.and_then(|(client, (_, carriage))| self.ways(*client, carriage, prefix))
    }

    /// What the pump sends with. What is gone of it is left out, and when the main one is, another one takes its place.
    fn ways(&self, client: ClientId, carriage: &Carriage, prefix: Option<IpNet>) -> Option<Ways> {
        let egress = |spi_in: &u32| self.children.get(spi_in).and_then(|child| self.egress(child));
        let has = |(addresses, _): &&(Vec<IpAddr>, u32)| {
            prefix.is_some_and(|prefix| addresses.contains(&prefix.addr()))
        };
        if let Some((_, spi_in)) = carriage.by_address.iter().find(has) {
            return Some(Ways::from(egress(spi_in)?));
        }
        let shares = carriage.shares.iter().filter_map(|share| {
            let (name, weight) = (share.name, share.weight.into());
            Some(Share { name, weight, egress: egress(&share.spi_in)? })
        });
        let own = |child: &&Child| child.client == client && !child.prefixes.is_empty();
        let any = || self.children.values().filter(own);
        let main = egress(&carriage.main).or_else(|| any().find_map(|child| self.egress(child)))?;
        let copies = carriage.copies.as_ref().and_then(egress);
        Some(Ways { shares: shares.collect(), copies, ..Ways::new(main, carriage.main_name) })
    }

    fn egress(&self, child: &Child) -> Option<Egress> {
        let socket = self.socket(child.path)?;
        Some(Egress { sa: child.outbound.clone(), socket, peer: child.path.remote })
    }

    /// Clients that have two paths may send copies: they are told to, and we by them, in any order.
    fn expect_copies(&mut self) {
        let mut first: BTreeMap<ClientId, Path> = BTreeMap::new();
        let several = self
            .children
            .values()
            .filter(|child| !child.prefixes.is_empty())
            .any(|child| *first.entry(child.client).or_insert(child.path) != child.path);
        if several != self.expects_copies {
            self.expects_copies = several;
            self.pump.set_expect_copies(several);
        }
    }

    /// Each device has one inner MTU for all that it leads to: that of the narrowest path.
    fn fit_mtu(&self) {
        let fits = |child: &Child| {
            let remote = child.path.remote.ip();
            let path = self.path_mtus.get(&remote).copied().unwrap_or(USUAL_PATH_MTU);
            u16::try_from(child.suite.inner_mtu(path.into(), remote.is_ipv6())).unwrap_or(u16::MAX)
        };
        for device in self.links.values().copied().chain([DeviceId::MAIN]) {
            let children = self.children.values().filter(|child| child.device == device);
            let narrowest = children.map(fits).min().unwrap_or(u16::MAX);
            self.pump.set_inner_mtu_of(device, narrowest.max(SMALLEST_INNER_MTU).min(self.largest));
        }
    }
}

fn open(device: &TunDevice) -> anyhow::Result<TunFd> {
    Ok(TunFd { fd: device.try_clone_fd()?, vnet_hdr: device.vnet_hdr() })
}

fn bind(local: SocketAddr) -> anyhow::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
    if local.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&local.into())?;
    Ok(socket.into())
}

fn selectors(wire: &TrafficSelectors) -> Vec<Selector> {
    let of = |selector: &ropewalk_ike::wire::TrafficSelector| Selector {
        addresses: selector.start()..=selector.end(),
        protocol: selector.protocol(),
        ports: selector.start_port()..=selector.end_port(),
    };
    wire.selectors.iter().map(of).collect()
}
