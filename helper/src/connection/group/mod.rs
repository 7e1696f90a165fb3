//! The group's SAs in the packet pump, and who is sent to with them (draft-yamaya-ipsecme-mpsa, section 3.4).
//!
//! Endpoints send to each other's port 4500, so there is a socket on that port beside the ones towards the gateway. Each
//! endpoint has an outbound SA of its own from the same keys: sequence numbers of a group say nothing, for many send, but
//! IVs must not repeat, so each has a random salt for them. Packets to networks without a route in the profile, and to those
//! behind an endpoint that does not answer ([`endpoints`]), take the CHILD_SA with the gateway.

mod endpoints;

use std::net::{IpAddr, SocketAddr};

use ring::rand::{SecureRandom, SystemRandom};
use ropewalk_datapath::{
    DataPath, DeviceId, Egress, Framing, InboundHandle, InboundSpec, OutboundHandle, Selector, SocketId,
};
use ropewalk_esp::{EspSuite, InboundSa, OutboundSa};
use ropewalk_ike::multi_point::group_sa::GroupSa;
use ropewalk_ike::multi_point::rollover::Action;
use ropewalk_ike::time::Instant;
use ropewalk_net::{Family, PathSocket, open_path_socket};
use ropewalk_profile::MultiPointRoute;

use super::tunnel::InstallError;
use endpoints::Endpoints;

/// Where endpoints listen (RFC 3948).
const PORT: u16 = 4500;

struct Member {
    suite: EspSuite,
    inbound: InboundHandle,
    /// One for each endpoint, in the order of [`Endpoints::all`].
    outbound: Vec<OutboundHandle>,
    /// When the last packet known of left by each.
    seen: Vec<Option<Instant>>,
}

/// The group's part of the data plane.
pub struct Group {
    endpoints: Endpoints,
    /// Those of an SA that is used; `None` for an address family without a socket.
    sockets: Vec<(Family, SocketId)>,
    members: Vec<Member>,
    sending: Option<u32>,
    local: Option<IpAddr>,
    /// The networks behind the endpoints.
    theirs: Vec<Selector>,
}

impl Group {
    /// A group of the endpoints behind these routes.
    pub fn new(routes: &[MultiPointRoute]) -> Self {
        Self {
            endpoints: Endpoints::new(routes),
            sockets: Vec::new(),
            members: Vec::new(),
            sending: None,
            local: None,
            theirs: routes.iter().map(|route| Selector::network(route.prefix)).collect(),
        }
    }

    /// Does what the session says. `ours` are the device's inner addresses and the networks behind it; `theirs` is what may
    /// be reached by the CHILD_SA with the gateway, and is taken from other endpoints as well: whoever has no route here may
    /// have one in its own profile.
    pub fn perform(&mut self, pump: &DataPath, action: Action, ours: &[Selector], theirs: &[Selector]) {
        match action {
            Action::Install(sa) => {
                self.open_sockets(pump);
                if let Err(error) = self.install(pump, &sa, ours, theirs) {
                    tracing::error!(spi = format_args!("{:08x}", sa.spi), %error, "an SA of the group is not used");
                }
            }
            Action::SendWith(spi) => self.sending = Some(spi),
            Action::Remove(spi) => {
                self.members.retain(|member| member.inbound.spi() != spi);
                self.sending = self.sending.filter(|sending| *sending != spi);
                pump.remove_inbound(spi);
            }
        }
        self.route(pump);
        if self.members.is_empty() {
            self.close_sockets(pump);
        }
    }

    /// Looks at what was sent since the last time, and at the clock.
    pub fn tick(&mut self, pump: &DataPath, now: Instant) {
        let mut sent = Vec::new();
        for member in &mut self.members {
            let handles = member.outbound.iter().zip(&mut member.seen).zip(self.endpoints.all());
            for ((handle, seen), endpoint) in handles {
                let last = handle.counters().last.map(Instant::from_start);
                if let Some(last) = last.filter(|_| last > *seen) {
                    *seen = Some(last);
                    sent.push((last, endpoint.address));
                }
            }
        }
        sent.into_iter().for_each(|(at, address)| self.endpoints.sent(at, address));
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

    fn install(
        &mut self,
        pump: &DataPath,
        sa: &GroupSa,
        ours: &[Selector],
        theirs: &[Selector],
    ) -> Result<(), InstallError> {
        let keys = |error: &dyn std::fmt::Display| InstallError::Keys(error.to_string());
        let suite = EspSuite::of_group(sa.encr, sa.key_bits, sa.integ).map_err(|error| keys(&error))?;
        let (encr, integ) = (&sa.keys.encr, &sa.keys.integ);
        let outbound = self.endpoints.all().iter().map(|_| {
            let outbound =
                OutboundSa::new(sa.spi, suite, encr, integ, false).map_err(|error| keys(&error))?;
            Ok(OutboundHandle::new(outbound.with_iv_salt(salt()?)))
        });
        let outbound = outbound.collect::<Result<Vec<_>, InstallError>>()?;
        let inbound = InboundSa::of_many_senders(sa.spi, suite, encr, integ).map_err(|error| keys(&error))?;
        let inbound = pump.add_inbound(InboundSpec {
            sa: inbound,
            sources: [self.theirs.as_slice(), theirs].concat(),
            destinations: ours.to_vec(),
            outer: None,
            device: DeviceId::MAIN,
            peer: None,
        })?;
        let seen = vec![None; outbound.len()];
        self.members.push(Member { suite, inbound, outbound, seen });
        Ok(())
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
    }

    /// Each endpoint's networks leave by the SA in use, or by what everything else leaves by.
    fn route(&self, pump: &DataPath) {
        let sending = self.members.iter().find(|member| Some(member.inbound.spi()) == self.sending);
        for (at, endpoint) in self.endpoints.all().iter().enumerate() {
            let socket = self.sockets.iter().find(|(family, _)| *family == Family::of(endpoint.address));
            let sa = sending.and_then(|member| member.outbound.get(at)).filter(|_| endpoint.is_direct());
            let egress = sa.zip(socket).map(|(sa, (_, socket))| {
                let peer = SocketAddr::new(endpoint.address, PORT);
                Egress { sa: sa.clone(), socket: *socket, peer }
            });
            for network in &endpoint.networks {
                if let Err(error) = pump.set_route(*network, egress.clone().map(Into::into)) {
                    tracing::warn!(%network, %error, "the pump refuses a route of the group");
                }
            }
        }
    }
}

/// Sixty-four random bits.
fn salt() -> Result<u64, InstallError> {
    let mut salt = [0; 8];
    let filled = SystemRandom::new().fill(&mut salt);
    filled.map_err(|_| InstallError::Keys("the system has no random numbers".to_owned()))?;
    Ok(u64::from_be_bytes(salt))
}
