//! A session and what its owner would do: open sockets, install CHILD_SAs, remember the tunnel's settings.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use rand_chacha::ChaCha20Rng;
use ropewalk_dhcp::Lease;
use ropewalk_ike::exchange::Path;
use ropewalk_ike::exchange::child::ChildSa;
use ropewalk_ike::multi_point::group_sa::GroupSa;
use ropewalk_ike::multi_point::rollover::Action;
use ropewalk_ike::time::{Instant, UnixTime};
use ropewalk_session::{
    Bounds, Carriage, Command, CredentialReason, InnerSettings, PathSize, Phase, Session, SessionConfig,
    Traffic, Uplink,
};
use zeroize::Zeroizing;

use crate::network::{Datagram, Network};
use crate::setup::CLIENT_V6;

/// What a data path asks for: 1280 and 1400 octets inside with AES-GCM.
pub const SIZES: Bounds = Bounds { least: 576, usual: 1344, most: 1464 };
/// The same by IPv6.
pub const SIZES_V6: Bounds = Bounds { least: 1280, usual: 1364, most: 1484 };

/// A network of the client's machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimUplink {
    /// The system's number of its interface.
    pub interface: u32,
    /// The client's addresses there.
    pub addresses: Vec<IpAddr>,
    /// What is sent by it costs.
    pub metered: bool,
}

impl SimUplink {
    /// A network with one address, whose use costs nothing.
    #[must_use]
    pub fn new(interface: u32, address: IpAddr) -> Self {
        Self { interface, addresses: vec![address], metered: false }
    }
}

/// The client's end.
#[derive(Debug)]
pub struct SimClient {
    /// The session.
    pub session: Session,
    /// Its CHILD_SAs, as the data path would hold them.
    pub children: Vec<ChildSa>,
    /// With which of them and to where it sends.
    pub egress: Option<(u32, Path)>,
    /// The SAs of its group that it receives with.
    pub group: Vec<GroupSa>,
    /// The SPI of the one that it sends with.
    pub group_egress: Option<u32>,
    /// What the tunnel device looks like, while there is one.
    pub tunnel: Option<InnerSettings>,
    /// What the user answers when asked, one after the other.
    pub answers: Vec<Option<(String, String)>>,
    /// What the user was asked.
    pub asked: Vec<CredentialReason>,
    /// What the session called out of turn in datagrams, for tests of forgeries.
    pub refused_datagrams: usize,
    /// Names with addresses of their own; all others are the gateway's.
    pub names: Vec<(String, Vec<IpAddr>)>,
    /// How it sends, with everything that several paths are used for.
    pub carriage: Option<Carriage>,
    /// What its CHILD_SAs have carried, by our SPIs.
    pub counters: BTreeMap<u32, Traffic>,
    /// What the paths of its sockets carry, as far as it knows.
    pub sizes: BTreeMap<u32, PathSize>,
    /// Inner packets of the session's own that are to be sent.
    pub(crate) inner: Vec<(u32, Path, Vec<u8>)>,
    /// The lease that is to be remembered over restarts.
    pub lease: Option<Lease>,
    /// The leased addresses that the session asked about.
    pub checked: Vec<Ipv4Addr>,
    /// Addresses that the machine has on some other interface.
    pub own_inner: Vec<Ipv4Addr>,
    /// Its own addresses at the moment; none is no network.
    addresses: Vec<IpAddr>,
    uplinks: Vec<SimUplink>,
    gateways: Vec<IpAddr>,
    links: Vec<(u32, SocketAddr, u32)>,
    next_link: u32,
    /// Sockets opened so far.
    pub opened: usize,
}

impl SimClient {
    /// A client at `address`, and [`CLIENT_V6`], that finds its gateway at `gateways`.
    #[must_use]
    pub fn new(config: SessionConfig, address: IpAddr, gateways: Vec<IpAddr>) -> Self {
        Self {
            session: Session::new(config),
            children: Vec::new(),
            egress: None,
            group: Vec::new(),
            group_egress: None,
            tunnel: None,
            answers: Vec::new(),
            asked: Vec::new(),
            refused_datagrams: 0,
            names: Vec::new(),
            carriage: None,
            counters: BTreeMap::new(),
            sizes: BTreeMap::new(),
            inner: Vec::new(),
            lease: None,
            checked: Vec::new(),
            own_inner: Vec::new(),
            addresses: vec![address, CLIENT_V6],
            uplinks: Vec::new(),
            gateways,
            links: Vec::new(),
            next_link: 1,
            opened: 0,
        }
    }

    /// The machine has these addresses now, the first of a family being the one that the system uses: what an owner tells
    /// the session of that.
    pub fn move_to(&mut self, now: Instant, addresses: &[IpAddr], rng: &mut ChaCha20Rng) {
        self.addresses = addresses.to_vec();
        let gone = self.links.iter().filter(|(_, local, _)| !addresses.contains(&local.ip()));
        let gone: Vec<u32> = gone.map(|(link, ..)| *link).collect();
        self.session.network_changed(now, !addresses.is_empty());
        let in_use = self.egress.map(|(_, path)| path.local.ip());
        let better = in_use.is_some_and(|in_use| {
            addresses.iter().find(|own| own.is_ipv4() == in_use.is_ipv4()).is_some_and(|own| *own != in_use)
        });
        for link in &gone {
            self.session.path_lost(now, *link, rng);
        }
        if gone.is_empty() && better {
            self.session.way_changed();
        }
    }

    /// The machine has these networks now, the first being the one that the system uses.
    pub fn set_uplinks(&mut self, now: Instant, uplinks: &[SimUplink], rng: &mut ChaCha20Rng) {
        self.uplinks = uplinks.to_vec();
        let told = uplinks.iter().map(|uplink| Uplink {
            interface: uplink.interface,
            name: format!("net{}", uplink.interface),
            metered: uplink.metered,
            ipv4: uplink.addresses.iter().any(IpAddr::is_ipv4),
            ipv6: uplink.addresses.iter().any(IpAddr::is_ipv6),
        });
        self.session.uplinks_changed(now, told.collect(), rng);
        let addresses: Vec<IpAddr> = uplinks.iter().flat_map(|uplink| uplink.addresses.clone()).collect();
        self.move_to(now, &addresses, rng);
    }

    /// Tells the session what the CHILD_SAs have carried.
    pub fn tell_traffic(&mut self, now: Instant, rng: &mut ChaCha20Rng) {
        let known: Vec<u32> = self.children.iter().map(|child| child.spi_in).collect();
        self.counters.retain(|spi_in, _| known.contains(spi_in));
        for traffic in self.counters.values() {
            self.session.note_traffic(now, traffic, rng);
        }
    }

    /// The socket of this number is open at this address.
    #[must_use]
    pub fn is_open(&self, link: u32, local: SocketAddr) -> bool {
        let open = self.links.iter().any(|(open, own, _)| (*open, *own) == (link, local));
        open && self.addresses.contains(&local.ip())
    }

    /// The open socket at this address.
    #[must_use]
    pub fn link_at(&self, local: SocketAddr) -> Option<u32> {
        let found = self.links.iter().find(|(_, own, _)| *own == local);
        found.filter(|(_, own, _)| self.addresses.contains(&own.ip())).map(|(link, ..)| *link)
    }

    /// Whether this socket is open.
    #[must_use]
    pub fn has_link(&self, link: u32) -> bool {
        self.links.iter().any(|(open, ..)| *open == link)
    }

    /// Where the session stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.session.phase()
    }

    /// How many sockets are open.
    #[must_use]
    pub fn sockets(&self) -> usize {
        self.links.len()
    }

    /// Whether a datagram to this address is for one of the open sockets.
    #[must_use]
    pub fn owns(&self, address: SocketAddr) -> bool {
        self.links.iter().any(|(_, local, _)| *local == address)
    }

    /// Delivers a datagram.
    pub fn receive(&mut self, now: Instant, datagram: &Datagram, rng: &mut ChaCha20Rng) {
        let link = self.links.iter().find(|(_, local, _)| *local == datagram.destination);
        let Some((link, local, _)) = link.copied() else { return };
        if let Some(esp) = crate::inner::esp(&datagram.bytes) {
            if let Some(packet) = self.children.iter().find_map(|child| crate::inner::open(child, esp)) {
                self.session.inner_packet(now, &packet, rng);
            }
            return;
        }
        let path = Path { link, local, remote: datagram.source };
        if self.session.handle_datagram(now, path, &datagram.bytes, rng).is_err() {
            self.refused_datagrams += 1;
        }
    }

    /// Does what the session wants until it wants nothing more.
    pub fn drain(&mut self, now: Instant, network: &mut Network, rng: &mut ChaCha20Rng) {
        loop {
            self.send_inner(now, network, rng);
            while let Some(transmit) = self.session.poll_transmit() {
                let local = self.links.iter().find(|(link, ..)| *link == transmit.path.link);
                let Some((_, source, _)) = local.copied() else { continue };
                // What is gone cannot send.
                if !self.addresses.contains(&source.ip()) {
                    continue;
                }
                let datagram =
                    Datagram { source, destination: transmit.path.remote, bytes: transmit.message };
                network.send_from_client(now, datagram, rng);
            }
            let Some(command) = self.session.poll_command() else { return };
            self.perform(now, command, rng);
        }
    }

    /// Seals and sends the session's own inner packets.
    fn send_inner(&mut self, now: Instant, network: &mut Network, rng: &mut ChaCha20Rng) {
        for (spi_in, path, packet) in std::mem::take(&mut self.inner) {
            let child = self.children.iter().find(|child| child.spi_in == spi_in);
            let local = self.links.iter().find(|(link, ..)| *link == path.link);
            let (Some(child), Some((_, source, _))) = (child, local.copied()) else { continue };
            if !self.addresses.contains(&source.ip()) {
                continue;
            }
            if let Some(bytes) = crate::inner::seal(child, &packet) {
                network.send_from_client(now, Datagram { source, destination: path.remote, bytes }, rng);
            }
        }
    }

    /// Our address towards this one, and the number of its interface.
    fn way_to(&self, remote: IpAddr, interface: Option<u32>) -> Option<(IpAddr, u32)> {
        if self.uplinks.is_empty() {
            let own = self.addresses.iter().find(|own| own.is_ipv4() == remote.is_ipv4());
            return own.map(|own| (*own, 0));
        }
        let wanted = |uplink: &&SimUplink| interface.is_none_or(|interface| interface == uplink.interface);
        self.uplinks.iter().filter(wanted).find_map(|uplink| {
            let own = uplink.addresses.iter().find(|own| own.is_ipv4() == remote.is_ipv4())?;
            Some((*own, uplink.interface))
        })
    }

    fn perform(&mut self, now: Instant, command: Command, rng: &mut ChaCha20Rng) {
        match command {
            Command::AskCredential(reason) => {
                self.asked.push(reason);
                let answer = if self.answers.is_empty() { None } else { self.answers.remove(0) };
                let answer = answer.map(|(user, password)| (user, Zeroizing::new(password)));
                self.session.credential(answer);
            }
            Command::Resolve(host) => {
                let known = self.names.iter().find(|(name, _)| *name == host);
                let addresses = match host.parse() {
                    Ok(address) => vec![address],
                    Err(_) => known.map_or(&self.gateways, |(_, addresses)| addresses).clone(),
                };
                self.session.resolved(now, Ok(addresses), rng);
            }
            Command::OpenPath { remote, interface } => {
                let link = self.next_link;
                self.next_link += 1;
                let Some((own, index)) = self.way_to(remote.ip(), interface) else {
                    self.session.path_failed(now, (remote, interface), "there is no route", rng);
                    return;
                };
                let local = SocketAddr::new(own, 50_000 + u16::try_from(link).unwrap_or(0));
                self.links.push((link, local, index));
                self.opened += 1;
                self.session.path_opened(now, Path { link, local, remote }, index, rng);
            }
            Command::ClosePath(closed) => {
                self.links.retain(|(link, ..)| *link != closed);
                self.sizes.remove(&closed);
            }
            Command::InstallChild(child) => self.children.push(*child),
            Command::SendInner { spi_in, path, packet } => self.inner.push((spi_in, path, packet)),
            Command::CheckAddress(address) => {
                self.checked.push(address);
                let in_use = self.own_inner.contains(&address);
                self.session.address_checked(now, address, in_use, rng);
            }
            Command::KeepLease(lease) => self.lease = lease.map(|lease| *lease),
            Command::Carry(carriage) => {
                self.egress = Some((carriage.carrying.spi_in, carriage.carrying.path));
                self.carriage = Some(carriage);
                let lanes = self.carriage.iter().flat_map(|carriage| {
                    std::iter::once(carriage.carrying).chain(carriage.shares.iter().map(|(lane, _)| *lane))
                });
                let paths: Vec<Path> = lanes.map(|lane| lane.path).collect();
                for path in paths {
                    let bounds = if path.remote.is_ipv4() { SIZES } else { SIZES_V6 };
                    self.session.size_wanted(now, path, bounds, rng);
                }
            }
            Command::PathSize { link, size } => {
                self.sizes.insert(link, size);
            }
            Command::RemoveChild(spi_in) => {
                self.children.retain(|child| child.spi_in != spi_in);
                if self.egress.is_some_and(|(sending, _)| sending == spi_in) {
                    self.egress = None;
                }
            }
            Command::Group(Action::Install(sa)) => self.group.push(*sa),
            Command::Group(Action::SendWith(spi)) => self.group_egress = Some(spi),
            Command::Group(Action::Remove(spi)) => {
                self.group.retain(|sa| sa.spi != spi);
                self.group_egress = self.group_egress.filter(|sending| *sending != spi);
            }
            Command::ConfigureTunnel(settings) => self.tunnel = Some(*settings),
            Command::ReleaseTunnel => self.tunnel = None,
            Command::LogIkeKeys { .. } => {}
        }
    }

    /// ESP went out by the way in use, and came in there at `last_in`: what an owner tells the session of that.
    pub fn note_traffic(&mut self, now: Instant, last_in: Option<Instant>, rng: &mut ChaCha20Rng) {
        let Some((spi_in, _)) = self.egress else { return };
        let traffic = Traffic { spi_in, last_in, last_out: Some(now), ..Traffic::default() };
        self.session.note_traffic(now, &traffic, rng);
    }

    /// Acts on the clock.
    pub fn handle_timeout(&mut self, now: Instant, wall_clock: UnixTime, rng: &mut ChaCha20Rng) {
        self.session.handle_timeout(now, wall_clock, rng);
    }
}
