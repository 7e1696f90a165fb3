//! The group's SAs in the packet pump, and who is sent to with them (draft-yamaya-ipsecme-mpsa, section 3.4).
//!
//! Endpoints send to each other's port 4500, so there is a socket on that port beside the ones towards the gateway. Each
//! endpoint has an outbound SA of its own from the same keys: sequence numbers of a group say nothing, for many send, but
//! IVs must not repeat, so each has a random salt for them. Routes to endpoints are those of the profile and those that
//! were learned ([`learned`]). Packets to networks without one, and to those behind an endpoint that does not answer
//! ([`endpoints`]), take the CHILD_SA with the gateway.

mod endpoints;
mod in_tunnel;
mod learned;
mod shown;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use ring::rand::{SecureRandom, SystemRandom};
use ropewalk_datapath::{
    DataPath, DeviceId, Egress, Framing, InboundHandle, InboundSpec, OutboundHandle, Selector, SocketId,
};
use ropewalk_esp::{EspSuite, InboundSa, OutboundSa};
use ropewalk_ike::multi_point::group_sa::GroupSa;
use ropewalk_ike::multi_point::rollover::Action;
use ropewalk_ike::time::Instant;
use ropewalk_net::{Family, NextHop, PathSocket, open_path_socket};
use ropewalk_profile::{MultiPointRoute, MultiPointSa};

use super::tunnel::InstallError;
use endpoints::Endpoints;
use learned::{Bounds, Unfit};

/// Where endpoints listen (RFC 3948).
const PORT: u16 = 4500;

struct Member {
    sa: GroupSa,
    suite: EspSuite,
    /// `None` until there is a CHILD_SA with the gateway, which says what may come in.
    inbound: Option<InboundHandle>,
    /// Of endpoints that were sent to.
    outbound: BTreeMap<IpAddr, Sender>,
}

struct Sender {
    handle: OutboundHandle,
    /// When the last packet known of left by it.
    seen: Option<Instant>,
}

/// What of the connection bounds what the group does.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// The device's inner addresses and the networks behind it.
    pub ours: Vec<Selector>,
    /// What may be reached by the CHILD_SA with the gateway. It is taken from other endpoints as well: whoever has no route
    /// here may have one in its own profile.
    pub theirs: Vec<Selector>,
    /// Outer addresses of the gateway.
    pub gateway: Vec<IpAddr>,
    /// Outer addresses of this computer.
    pub own: Vec<IpAddr>,
}

/// The group's part of the data plane.
pub struct Group {
    settings: MultiPointSa,
    endpoints: Endpoints,
    /// Routes on the device as they are, those of them that are used, and why others are not.
    found: Arc<Vec<NextHop>>,
    learned: Vec<MultiPointRoute>,
    unfit: Vec<(NextHop, Unfit)>,
    /// Those of an SA that is used; without one of an address family that cannot be used.
    sockets: Vec<(Family, SocketId)>,
    members: Vec<Member>,
    sending: Option<u32>,
    local: Option<IpAddr>,
    /// The networks in the pump's table, by which SA and where to.
    routed: BTreeMap<IpNet, Option<(u32, IpAddr)>>,
    /// Octets and packets received and sent by SAs that are gone.
    retired: shown::Counts,
}

impl Group {
    /// A group of the endpoints behind the profile's routes.
    pub fn new(settings: &MultiPointSa) -> Self {
        let mut endpoints = Endpoints::default();
        endpoints.set(&settings.routes);
        Self {
            settings: settings.clone(),
            endpoints,
            found: Arc::default(),
            learned: Vec::new(),
            unfit: Vec::new(),
            sockets: Vec::new(),
            members: Vec::new(),
            sending: None,
            local: None,
            routed: BTreeMap::new(),
            retired: shown::Counts::default(),
        }
    }

    /// Whether routes on the device are to be looked at.
    pub fn learns(&self) -> bool {
        self.settings.enabled && !self.settings.learn_routes.is_empty()
    }

    /// Does what the session says.
    pub fn perform(&mut self, pump: &DataPath, action: Action, around: &Surroundings) {
        match action {
            Action::Install(sa) => {
                self.open_sockets(pump);
                let spi = sa.spi;
                match EspSuite::of_group(sa.encr, sa.key_bits, sa.integ) {
                    Ok(suite) => {
                        self.members.push(Member {
                            sa: *sa,
                            suite,
                            inbound: None,
                            outbound: BTreeMap::new(),
                        });
                        self.admit(pump, around);
                    }
                    Err(error) => not_used(spi, &error),
                }
            }
            Action::SendWith(spi) => self.sending = Some(spi),
            Action::Remove(spi) => {
                self.sending = self.sending.filter(|sending| *sending != spi);
                // What leaves by it is led away first.
                self.route(pump);
                for gone in self.members.extract_if(.., |member| member.sa.spi == spi) {
                    self.retired.add_member(&gone);
                    if gone.inbound.is_some() {
                        pump.remove_inbound(spi);
                    }
                }
            }
        }
        self.route(pump);
        if self.members.is_empty() {
            self.close_sockets(pump);
        }
    }

    /// What bounds the group may have changed.
    pub fn surrounded(&mut self, pump: &DataPath, around: &Surroundings) {
        self.admit(pump, around);
        self.judge(pump, around);
    }

    /// The routes on the device are these now.
    pub fn found(&mut self, pump: &DataPath, found: Arc<Vec<NextHop>>, around: &Surroundings) {
        self.found = found;
        self.judge(pump, around);
    }

    fn judge(&mut self, pump: &DataPath, around: &Surroundings) {
        let bounds = Bounds {
            within: &self.settings.learn_routes,
            listed: &self.settings.routes,
            granted: &around.theirs,
            gateway: &around.gateway,
            own: &around.own,
        };
        let (learned, unfit) = learned::judge(&self.found, bounds);
        for (hop, why) in unfit.iter().filter(|one| !self.unfit.contains(one)) {
            tracing::info!(prefix = %hop.prefix, via = %hop.via, %why, "a learned route of the group is not used");
        }
        self.unfit = unfit;
        if self.learned == learned {
            return;
        }
        tracing::info!(used = learned.len(), "routes of the group were learned");
        self.learned = learned;
        let all: Vec<_> = self.settings.routes.iter().chain(&self.learned).cloned().collect();
        self.endpoints.set(&all);
        self.route(pump);
        let endpoints = self.endpoints.all();
        let is_known = |address: &IpAddr| endpoints.iter().any(|known| known.address == *address);
        for member in &mut self.members {
            member.outbound.retain(|address, sender| {
                let stays = is_known(address);
                if !stays {
                    self.retired.add_sender(sender);
                }
                stays
            });
        }
        self.retired.keep(is_known);
    }

    /// Looks at what was sent since the last time, and at the clock.
    pub fn tick(&mut self, pump: &DataPath, now: Instant) {
        for member in &mut self.members {
            for (address, sender) in &mut member.outbound {
                let last = sender.handle.counters().last.map(Instant::from_start);
                if let Some(last) = last.filter(|_| last > sender.seen) {
                    sender.seen = Some(last);
                    self.endpoints.sent(last, *address);
                }
            }
        }
        if self.endpoints.tick(now) {
            self.route(pump);
        }
    }

    /// An authentic packet of the group came from here.
    pub fn heard(&mut self, pump: &DataPath, now: Instant, remote: SocketAddr) {
        // From elsewhere it does not show that what is sent to the port arrives.
        if remote.port() == PORT && self.endpoints.heard(now, remote.ip().to_canonical()) {
            self.route(pump);
        }
    }

    /// The system reports that nothing arrives at an address.
    pub fn refused(&mut self, pump: &DataPath, now: Instant, remote: IpAddr) {
        if self.endpoints.refused(now, remote.to_canonical()) {
            self.route(pump);
        }
    }

    /// The tunnel is carried from this address: after a move nothing is known of who can be reached.
    pub fn carried_from(&mut self, pump: &DataPath, local: IpAddr) {
        if self.local.replace(local).is_some_and(|before| before != local) {
            self.endpoints.forget();
            self.route(pump);
        }
    }

    /// Whether a socket is one of the group's.
    pub fn owns(&self, socket: SocketId) -> bool {
        self.sockets.iter().any(|(_, own)| *own == socket)
    }

    /// The suites in use, for the size of inner packets.
    pub fn suites(&self) -> impl Iterator<Item = EspSuite> {
        self.members.iter().map(|member| member.suite)
    }

    /// Whether packets leave in IPv6, which takes more room.
    pub fn sends_ipv6(&self) -> bool {
        self.endpoints.all().iter().any(|endpoint| endpoint.address.is_ipv6())
    }

    /// Takes packets of the group once it is known what may come in.
    fn admit(&mut self, pump: &DataPath, around: &Surroundings) {
        if around.ours.is_empty() {
            return;
        }
        // Whatever a route leads to is within what the gateway grants when it was learned, and may be elsewhere when it is
        // the profile's.
        let listed = self.settings.routes.iter().map(|route| Selector::network(route.prefix));
        let sources: Vec<Selector> = listed.chain(around.theirs.iter().cloned()).collect();
        for member in self.members.iter_mut().filter(|member| member.inbound.is_none()) {
            let added = inbound(&member.sa, member.suite).and_then(|sa| {
                let (sources, destinations) = (sources.clone(), around.ours.clone());
                Ok(pump.add_inbound(InboundSpec {
                    sa,
                    sources,
                    destinations,
                    outer: None,
                    device: DeviceId::MAIN,
                    peer: None,
                    divert: None,
                })?)
            });
            match added {
                Ok(handle) => member.inbound = Some(handle),
                Err(error) => not_used(member.sa.spi, &error),
            }
        }
        self.members.retain(|member| member.inbound.is_some());
    }

    fn open_sockets(&mut self, pump: &DataPath) {
        for family in [Family::V4, Family::V6] {
            if self.sockets.iter().any(|(known, _)| *known == family) {
                continue;
            }
            let wanted = PathSocket { port: PORT, ..PathSocket::new(family) };
            let socket = open_path_socket(&wanted).map_err(|error| error.to_string()).and_then(|socket| {
                pump.add_socket(socket, Framing::NatTraversal).map_err(|error| error.to_string())
            });
            match socket {
                Ok(socket) => self.sockets.push((family, socket)),
                Err(error) => tracing::warn!(
                    ?family,
                    error,
                    "port {PORT} cannot be used: endpoints of the group are reached through the gateway"
                ),
            }
        }
    }

    /// Forgets everything that is in the pump.
    fn close_sockets(&mut self, pump: &DataPath) {
        for (_, socket) in self.sockets.drain(..) {
            if let Err(error) = pump.remove_socket(socket) {
                tracing::debug!(%error, "a socket was gone already");
            }
        }
        self.endpoints.forget();
        for network in std::mem::take(&mut self.routed).into_keys() {
            set_route(pump, network, None);
        }
    }

    /// Each endpoint's networks leave by the SA in use, or by what everything else leaves by.
    fn route(&mut self, pump: &DataPath) {
        let mut wanted: BTreeMap<IpNet, Option<(u32, IpAddr)>> = BTreeMap::new();
        let sending = self.members.iter_mut().find(|member| Some(member.sa.spi) == self.sending);
        if let Some(member) = sending.filter(|member| member.inbound.is_some()) {
            for endpoint in self.endpoints.all().iter().filter(|endpoint| endpoint.is_direct()) {
                let family = Family::of(endpoint.address);
                if !self.sockets.iter().any(|(known, _)| *known == family) {
                    continue;
                }
                match member.sender(endpoint.address) {
                    Ok(_) => wanted.extend(
                        endpoint.networks.iter().map(|net| (*net, Some((member.sa.spi, endpoint.address)))),
                    ),
                    Err(error) => {
                        tracing::warn!(address = %endpoint.address, %error, "an endpoint cannot be sent to")
                    }
                }
            }
        }
        // What is behind one that is reached through the gateway is not behind the other one whose network is around it.
        let around = |net: &IpNet| wanted.keys().any(|known| known != net && known.contains(net));
        let all = self.endpoints.all().iter().flat_map(|endpoint| endpoint.networks.iter().copied());
        let through: Vec<IpNet> = all.filter(|net| !wanted.contains_key(net) && around(net)).collect();
        wanted.extend(through.into_iter().map(|net| (net, None)));
        let gone: Vec<IpNet> =
            self.routed.keys().filter(|network| !wanted.contains_key(network)).copied().collect();
        for network in gone {
            set_route(pump, network, None);
        }
        for (network, way) in &wanted {
            if self.routed.get(network) == Some(way) {
                continue;
            }
            let Some((spi, address)) = way else {
                if let Err(error) = pump.set_route_by_default(*network) {
                    tracing::warn!(%network, %error, "the pump refuses a route through the gateway");
                }
                continue;
            };
            let socket = self.sockets.iter().find(|(family, _)| *family == Family::of(*address));
            let member = self.members.iter().find(|member| member.sa.spi == *spi);
            let sender = member.and_then(|member| member.outbound.get(address));
            let egress = sender.zip(socket).map(|(sender, (_, socket))| Egress {
                sa: sender.handle.clone(),
                socket: *socket,
                peer: SocketAddr::new(*address, PORT),
            });
            set_route(pump, *network, egress);
        }
        self.routed = wanted;
    }
}

impl Member {
    /// The outbound SA of an endpoint.
    fn sender(&mut self, address: IpAddr) -> Result<&Sender, InstallError> {
        match self.outbound.entry(address) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(place) => {
                let (sa, suite) = (&self.sa, self.suite);
                let outbound = OutboundSa::new(sa.spi, suite, &sa.keys.encr, &sa.keys.integ, false);
                let outbound = outbound.map_err(|error| InstallError::Keys(error.to_string()))?;
                let handle = OutboundHandle::new(outbound.with_iv_salt(salt()?));
                Ok(place.insert(Sender { handle, seen: None }))
            }
        }
    }
}

fn inbound(sa: &GroupSa, suite: EspSuite) -> Result<InboundSa, InstallError> {
    let made = InboundSa::of_many_senders(sa.spi, suite, &sa.keys.encr, &sa.keys.integ);
    made.map_err(|error| InstallError::Keys(error.to_string()))
}

fn set_route(pump: &DataPath, network: IpNet, egress: Option<Egress>) {
    if let Err(error) = pump.set_route(network, egress.map(Into::into)) {
        tracing::warn!(%network, %error, "the pump refuses a route of the group");
    }
}

fn not_used(spi: u32, error: &dyn std::fmt::Display) {
    tracing::error!(spi = format_args!("{spi:08x}"), %error, "an SA of the group is not used");
}

/// Sixty-four random bits.
fn salt() -> Result<u64, InstallError> {
    let mut salt = [0; 8];
    let filled = SystemRandom::new().fill(&mut salt);
    filled.map_err(|_| InstallError::Keys("the system has no random numbers".to_owned()))?;
    Ok(u64::from_be_bytes(salt))
}
