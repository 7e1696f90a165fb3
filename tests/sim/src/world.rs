//! Both ends, the network between them, and the clock.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use ropewalk_esp::{EspSuite, InboundSa, NEXT_HEADER_IPV4, OutboundSa};
use ropewalk_gateway::{ClientId, Gateway, GatewayEvent, Settings};
use ropewalk_ike::exchange::Path;
use ropewalk_ike::exchange::child::ChildSa;
use ropewalk_ike::time::{Instant, UnixTime};
use ropewalk_session::{Phase, Traffic};

use crate::client::{SimClient, SimUplink};
use crate::dhcp_server::DhcpServer;
use crate::inner;
use crate::network::{Datagram, Faults, Network};
use crate::pings::Pings;
use crate::setup::{CLIENT, GATEWAY, GATEWAY_V6, Setup, WALL_CLOCK};

/// More steps than any honest wait of these tests takes: beyond it two ends talk without end.
const STEPS: u32 = 200_000;

/// The simulated world.
#[derive(Debug)]
pub struct World {
    /// The time.
    pub now: Instant,
    /// What the client's clock says.
    pub wall_clock: UnixTime,
    /// The client's end.
    pub client: SimClient,
    /// The gateway; `None` while it is off.
    pub gateway: Option<Gateway>,
    /// Another gateway, at an address of its own, and the names of those who came in there.
    pub second: Option<(IpAddr, Gateway)>,
    /// Every change of a client that the second gateway reported.
    pub second_log: Vec<String>,
    /// The CHILD_SAs that the gateway's data path would hold, and where it sends with them.
    pub gateway_children: BTreeMap<u32, (ClientId, ChildSa, Path)>,
    /// With which of them it sends to each client, by the client's first inner address.
    pub gateway_egress: BTreeMap<IpAddr, u32>,
    /// Every change of a client that the gateway reported.
    pub gateway_log: Vec<String>,
    /// How often the client told the gateway which addresses to use.
    pub updates: u32,
    /// The network.
    pub network: Network,
    /// Everything random.
    pub rng: ChaCha20Rng,
    /// The DHCP server on the gateway's LAN.
    pub dhcp: DhcpServer,
    /// Pings through the tunnel.
    pub pings: Pings,
    settings: Settings,
    steps: u32,
}

impl World {
    /// Both ends, not connected yet.
    #[must_use]
    pub fn new(setup: Setup, faults: Faults, seed: u64) -> Self {
        let Setup { client, gateway: settings, nat } = setup;
        Self {
            now: Instant::from_start(Duration::from_secs(1000)),
            wall_clock: WALL_CLOCK,
            client: SimClient::new(client, CLIENT, vec![GATEWAY]),
            gateway: Some(Gateway::new(settings.clone(), WALL_CLOCK)),
            second: None,
            second_log: Vec::new(),
            gateway_children: BTreeMap::new(),
            gateway_egress: BTreeMap::new(),
            gateway_log: Vec::new(),
            updates: 0,
            network: Network::new(faults, nat),
            rng: ChaCha20Rng::seed_from_u64(seed),
            dhcp: DhcpServer::default(),
            pings: Pings::default(),
            settings,
            steps: 0,
        }
    }

    /// A hash over everything that was sent.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.network.digest()
    }

    /// The user presses Connect.
    pub fn connect(&mut self) {
        self.client.session.connect(self.wall_clock);
        self.settle();
    }

    /// The client has these addresses now; see [`SimClient::move_to`].
    pub fn move_client(&mut self, addresses: &[IpAddr]) {
        self.client.move_to(self.now, addresses, &mut self.rng);
        self.settle();
    }

    /// The client's machine sleeps, and wakes up this much later.
    pub fn sleep(&mut self, time: Duration) {
        self.client.session.falling_asleep(self.now);
        self.now = self.now + time;
        while self.network.receive(self.now).is_some() {}
        if let Some(gateway) = &mut self.gateway {
            gateway.handle_timeout(self.now, &mut self.rng);
        }
        self.client.session.woke_up(self.now, time, &mut self.rng);
        self.settle();
    }

    /// The user presses Disconnect.
    pub fn disconnect(&mut self) {
        self.client.session.disconnect(self.now, &mut self.rng);
        self.settle();
    }

    /// The gateway ends all connections.
    pub fn gateway_disconnects(&mut self) {
        if let Some(gateway) = &mut self.gateway {
            gateway.disconnect_all(self.now, &mut self.rng);
        }
        self.settle();
    }

    /// The gateway forgets everything, as after a crash, and is there again.
    pub fn restart_gateway(&mut self) {
        self.stop_gateway();
        self.gateway = Some(Gateway::new(self.settings.clone(), WALL_CLOCK));
    }

    /// The gateway is gone without a word.
    pub fn stop_gateway(&mut self) {
        self.gateway = None;
        self.gateway_children.clear();
        self.gateway_egress.clear();
    }

    /// Injects a datagram for the client, as if from the gateway.
    pub fn forge_to_client(&mut self, source_port: u16, destination: SocketAddr, bytes: Vec<u8>) {
        let source = SocketAddr::new(GATEWAY, source_port);
        let datagram = Datagram { source, destination, bytes };
        self.client.receive(self.now, &datagram, &mut self.rng);
        self.settle();
    }

    /// Injects a datagram for the gateway, as if from `source`.
    pub fn forge_to_gateway(&mut self, source: SocketAddr, port: u16, bytes: &[u8]) {
        let path = Path { link: u32::from(port), local: SocketAddr::new(GATEWAY, port), remote: source };
        if let Some(gateway) = &mut self.gateway {
            let _ = gateway.handle_datagram(self.now, path, bytes, &mut self.rng);
        }
        self.settle();
    }

    /// The client has these networks now; see [`SimClient::set_uplinks`].
    pub fn set_uplinks(&mut self, uplinks: &[SimUplink]) {
        self.client.set_uplinks(self.now, uplinks, &mut self.rng);
        self.settle();
    }

    /// Lets time pass, at most `limit`, until `done` holds; whether it does.
    ///
    /// # Panics
    /// When the two ends talk without end.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let deadline = self.now + limit;
        self.steps = 0;
        self.settle();
        loop {
            if done(self) {
                return true;
            }
            self.steps += 1;
            assert!(self.steps < STEPS, "the two ends talk without end");
            let gateway_timeout = self.gateway.as_ref().and_then(Gateway::poll_timeout);
            let second_timeout = self.second.as_ref().and_then(|(_, gateway)| gateway.poll_timeout());
            let client_timeout = self.client.session.poll_timeout();
            let pings = self.pings.poll_timeout();
            let next = [self.network.next_arrival(), client_timeout, gateway_timeout, second_timeout, pings];
            let Some(next) = next.into_iter().flatten().min().filter(|next| *next <= deadline) else {
                self.now = deadline;
                return false;
            };
            self.now = self.now.max(next);
            while let Some(datagram) = self.network.receive(self.now) {
                self.deliver(&datagram);
            }
            self.play_pings();
            if self.client.session.poll_timeout().is_some_and(|at| at <= self.now) {
                self.client.tell_traffic(self.now, &mut self.rng);
                self.client.handle_timeout(self.now, self.wall_clock, &mut self.rng);
            }
            if let Some(gateway) = &mut self.gateway
                && gateway.poll_timeout().is_some_and(|at| at <= self.now)
            {
                gateway.handle_timeout(self.now, &mut self.rng);
            }
            if let Some((_, gateway)) = &mut self.second
                && gateway.poll_timeout().is_some_and(|at| at <= self.now)
            {
                gateway.handle_timeout(self.now, &mut self.rng);
            }
            self.settle();
        }
    }

    /// Lets time pass.
    pub fn run_for(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Lets time pass until the session is in this phase; whether it came to that.
    pub fn run_to(&mut self, phase: Phase, limit: Duration) -> bool {
        self.run_until(limit, |world| world.client.phase() == phase)
    }

    /// The client's inner addresses.
    #[must_use]
    pub fn inner_addresses(&self) -> Vec<IpAddr> {
        let addresses = self.client.tunnel.iter().flat_map(|tunnel| &tunnel.addresses);
        addresses.map(|(address, _)| *address).collect()
    }

    /// Whether each end sends with a CHILD_SA that the other end receives with the same keys.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        let Some((spi_in, _)) = self.client.egress else { return false };
        let Some(ours) = self.client.children.iter().find(|child| child.spi_in == spi_in) else {
            return false;
        };
        let Some((_, theirs, _)) = self.gateway_children.get(&ours.spi_out) else { return false };
        let back = first_address(theirs).and_then(|address| self.gateway_egress.get(&address));
        let Some((_, back, _)) = back.and_then(|back| self.gateway_children.get(back)) else { return false };
        let received = self.client.children.iter().find(|child| child.spi_in == back.spi_out);
        theirs.keys_in.encr == ours.keys_out.encr
            && received.is_some_and(|child| child.keys_in.encr == back.keys_out.encr)
    }

    /// Sends an ESP packet each way with what both ends have installed, and so shows that keys, SPIs and directions fit.
    /// Tells both ends of the sign of life.
    ///
    /// # Errors
    /// What does not fit.
    pub fn carry(&mut self) -> Result<(), String> {
        let (spi_in, path) = self.client.egress.ok_or("the client has no way out")?;
        let ours = self.client.children.iter().find(|child| child.spi_in == spi_in);
        let ours = ours.ok_or("the client sends with a CHILD_SA that it does not have")?;
        if ![GATEWAY, GATEWAY_V6].map(|ip| SocketAddr::new(ip, 4500)).contains(&path.remote) {
            return Err(format!("the client sends to {}", path.remote));
        }
        let theirs = self.gateway_children.get(&ours.spi_out);
        let (_, theirs, _) = theirs.ok_or("the gateway does not have the client's CHILD_SA")?;
        if theirs.spi_out != ours.spi_in || theirs.suite != ours.suite {
            return Err("SPIs or suites differ".to_owned());
        }
        match (ours.outer(), theirs.outer()) {
            (None, None) if theirs.ts_local != ours.ts_remote || theirs.ts_remote != ours.ts_local => {
                return Err("traffic selectors differ".to_owned());
            }
            (None, None) => {}
            // In transport mode each end names the addresses that it sees.
            (Some((local, remote)), Some((gateway, client))) => {
                let seen = self.gateway_children.get(&ours.spi_out).map(|(.., back)| back.remote.ip());
                if (local, remote) != (path.local.ip(), path.remote.ip()) {
                    return Err(format!("the client's end is bound to {local} and {remote}"));
                }
                if gateway != path.remote.ip() || Some(client) != seen {
                    return Err(format!("the gateway's end is bound to {gateway} and {client}"));
                }
            }
            (Some(_), None) | (None, Some(_)) => return Err("modes differ".to_owned()),
        }
        one_way(ours, theirs)?;
        let (now, spi, address) = (self.now, theirs.spi_in, first_address(theirs));
        if let Some(gateway) = &mut self.gateway {
            gateway.note_inbound(spi, now);
            gateway.note_traffic(now, spi, 1, 1);
        }
        self.settle();
        let back = address.and_then(|address| self.gateway_egress.get(&address));
        let back = back.ok_or("the gateway has no way back")?;
        let (_, back, _) =
            self.gateway_children.get(back).ok_or("the gateway sends with what it does not have")?;
        let received = self.client.children.iter().find(|child| child.spi_in == back.spi_out);
        one_way(back, received.ok_or("the client does not have the gateway's CHILD_SA")?)?;
        let received = back.spi_out;
        let traffic =
            Traffic { spi_in: received, received: 1, sent: 1, last_in: Some(now), ..Traffic::default() };
        self.client.session.note_traffic(now, &traffic, &mut self.rng);
        self.settle();
        Ok(())
    }

    /// ESP goes out of the client, and if it is carried, some comes back.
    pub fn traffic(&mut self, carried: bool) {
        let Some((spi_in, _)) = self.client.egress else { return };
        self.client.note_traffic(self.now, carried.then_some(self.now), &mut self.rng);
        if carried {
            let theirs = self.gateway_children.values().find(|(_, child, _)| child.spi_out == spi_in);
            if let (Some((_, theirs, _)), Some(gateway)) = (theirs, &mut self.gateway) {
                gateway.note_inbound(theirs.spi_in, self.now);
            }
        }
    }

    /// Whether what the gateway sends arrives where the client sends from.
    #[must_use]
    pub fn agree_on_path(&self) -> bool {
        let Some((spi_in, path)) = self.client.egress else { return false };
        let children = self.gateway_children.values();
        let back =
            children.filter(|(_, child, _)| child.spi_out == spi_in).map(|(_, _, back)| back.remote).next();
        back.is_some_and(|back| self.network.leads_to(back, path.local))
    }

    fn deliver(&mut self, datagram: &Datagram) {
        if self.client.owns(datagram.destination) {
            self.client.receive(self.now, datagram, &mut self.rng);
        } else if [GATEWAY, GATEWAY_V6].contains(&datagram.destination.ip())
            && matches!(datagram.destination.port(), 500 | 4500)
            && let Some(gateway) = &mut self.gateway
        {
            if let Some(esp) = inner::esp(&datagram.bytes) {
                self.inner_at_gateway(esp);
                self.settle();
                return;
            }
            let link = u32::from(datagram.destination.port());
            let path = Path { link, local: datagram.destination, remote: datagram.source };
            // What is wrong with a datagram is for the log only.
            let _ = gateway.handle_datagram(self.now, path, &datagram.bytes, &mut self.rng);
        } else if let Some((address, gateway)) = &mut self.second
            && datagram.destination.ip() == *address
        {
            let link = u32::from(datagram.destination.port());
            let path = Path { link, local: datagram.destination, remote: datagram.source };
            let _ = gateway.handle_datagram(self.now, path, &datagram.bytes, &mut self.rng);
        }
        self.settle();
    }

    /// Sends what the second gateway wants sent.
    fn settle_second(&mut self) {
        let Some((_, gateway)) = &mut self.second else { return };
        while let Some(transmit) = gateway.poll_transmit() {
            let Path { local: source, remote: destination, .. } = transmit.path;
            let datagram = Datagram { source, destination, bytes: transmit.message };
            self.network.send(self.now, datagram, &mut self.rng);
        }
        while let Some(event) = gateway.poll_event() {
            match event {
                GatewayEvent::ClientUp { name, .. } => self.second_log.push(format!("up {name}")),
                GatewayEvent::ClientGone { name, reason, .. } => {
                    self.second_log.push(format!("gone {name}: {reason:?}"));
                }
                GatewayEvent::ChildUp { .. }
                | GatewayEvent::Carriage { .. }
                | GatewayEvent::ChildDown { .. }
                | GatewayEvent::PathChanged { .. }
                | GatewayEvent::ToDhcpServer { .. }
                | GatewayEvent::SendInner { .. }
                | GatewayEvent::IkeKeys { .. } => {}
            }
        }
    }

    /// Does what both ends want.
    pub(crate) fn settle(&mut self) {
        self.client.drain(self.now, &mut self.network, &mut self.rng);
        self.settle_second();
        let Some(gateway) = &mut self.gateway else { return };
        while let Some(transmit) = gateway.poll_transmit() {
            let Path { local: source, remote: destination, .. } = transmit.path;
            let datagram = Datagram { source, destination, bytes: transmit.message };
            self.network.send(self.now, datagram, &mut self.rng);
        }
        while let Some(event) = gateway.poll_event() {
            match event {
                GatewayEvent::ChildUp { client, child, path } => {
                    self.gateway_children.insert(child.spi_in, (client, *child, path));
                }
                GatewayEvent::Carriage { carriage, .. } => {
                    let spi_in = carriage.main;
                    let child = self.gateway_children.get(&spi_in);
                    if let Some(address) = child.and_then(|(_, child, _)| first_address(child)) {
                        self.gateway_egress.insert(address, spi_in);
                    }
                    for (addresses, spi_in) in &carriage.by_address {
                        self.gateway_egress.extend(addresses.iter().map(|address| (*address, *spi_in)));
                    }
                }
                GatewayEvent::ChildDown { spi_in, .. } => {
                    self.gateway_children.remove(&spi_in);
                    self.gateway_egress.retain(|_, carrying| *carrying != spi_in);
                }
                GatewayEvent::PathChanged { children, path: new, .. } => {
                    self.updates += 1;
                    for spi_in in &children {
                        if let Some((_, _, path)) = self.gateway_children.get_mut(spi_in) {
                            *path = new;
                        }
                    }
                }
                GatewayEvent::ClientUp { name, .. } => self.gateway_log.push(format!("up {name}")),
                GatewayEvent::ClientGone { name, reason, .. } => {
                    self.gateway_log.push(format!("gone {name}: {reason:?}"));
                }
                GatewayEvent::ToDhcpServer { message } => {
                    if let Some(answer) = self.dhcp.answer(self.now, &message) {
                        gateway.from_dhcp_server(self.now, &answer);
                    }
                }
                GatewayEvent::SendInner { spi_in, packet } => {
                    let child = self.gateway_children.get(&spi_in);
                    let sealed =
                        child.and_then(|(_, child, path)| Some((inner::seal(child, &packet)?, *path)));
                    if let Some((bytes, path)) = sealed {
                        let datagram = Datagram { source: path.local, destination: path.remote, bytes };
                        self.network.send(self.now, datagram, &mut self.rng);
                    }
                }
                GatewayEvent::IkeKeys { .. } => {}
            }
        }
    }

    /// ESP with a packet of DHCP reached the gateway: by a CHILD_SA for that it goes to the relay, by another one to the server
    /// itself, which answers the same way.
    fn inner_at_gateway(&mut self, esp: &[u8]) {
        let found = self.gateway_children.iter();
        let opened = found.filter_map(|(spi, (_, child, path))| {
            Some((*spi, child.clone(), *path, inner::open(child, esp)?))
        });
        let Some((spi_in, child, path, packet)) = opened.into_iter().next() else { return };
        let Some(gateway) = &mut self.gateway else { return };
        if child.is_for_dhcp() {
            gateway.inner_packet(self.now, spi_in, &packet);
            return;
        }
        let Some(datagram) = ropewalk_dhcp::packet::Datagram::read(&packet) else { return };
        let Some(answer) = self.dhcp.answer(self.now, datagram.payload) else { return };
        let (source, destination) = (datagram.destination, datagram.source);
        let back = ropewalk_dhcp::packet::Datagram { source, destination, payload: &answer };
        if let Some(bytes) = back.packet().and_then(|packet| inner::seal(&child, &packet)) {
            let datagram = Datagram { source: path.local, destination: path.remote, bytes };
            self.network.send(self.now, datagram, &mut self.rng);
        }
    }
}

/// The client's first inner address, on the gateway's side of a CHILD_SA.
pub(crate) fn first_address(child: &ChildSa) -> Option<IpAddr> {
    child.ts_remote.selectors.first().map(|selector| selector.start())
}

/// One packet from the one end to the other.
fn one_way(from: &ChildSa, to: &ChildSa) -> Result<(), String> {
    let suite = |child: &ChildSa| {
        let ropewalk_ike::proposal::ChosenEsp { encr, key_bits, integ, .. } = child.suite;
        EspSuite::from_iana(encr, key_bits.unwrap_or(0), integ).map_err(|error| error.to_string())
    };
    let (out, into) = (&from.keys_out, &to.keys_in);
    let outbound = OutboundSa::new(from.spi_out, suite(from)?, &out.encr, &out.integ, from.suite.esn)
        .map_err(|error| error.to_string())?;
    let mut inbound = InboundSa::new(to.spi_in, suite(to)?, &into.encr, &into.integ, to.suite.esn)
        .map_err(|error| error.to_string())?;
    let inner = b"a packet that only says it is one";
    let mut packet = vec![0; suite(from)?.sealed_len(inner.len())];
    outbound.seal(1, &[inner], NEXT_HEADER_IPV4, &mut packet).map_err(|error| error.to_string())?;
    let opened = inbound.open(&mut packet).map_err(|error| error.to_string())?;
    let whole = packet.get(opened.range) == Some(inner.as_slice());
    if whole { Ok(()) } else { Err("another packet came out".to_owned()) }
}
