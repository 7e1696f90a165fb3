//! The DHCP client through the gateway's relay to real servers: Kea and dnsmasq. The tunnel in between is left out here, so
//! that the two of them are judged by somebody else's server alone.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;
use ropewalk_dhcp::{Carrier, Client, ClientConfig, ClientIdentifier, Event, HardwareAddress, Lease, Why};
use ropewalk_gateway::ClientId;
use ropewalk_gateway::dhcp_relay::DhcpRelay;
use ropewalk_ike::time::Instant;
use ropewalk_lab::{Dnsmasq, DnsmasqConfig, Kea, KeaConfig, Lab, Namespace};

const RELAY: Ipv4Addr = Ipv4Addr::new(10, 40, 0, 1);
const GATEWAY_LAN: Ipv4Addr = Ipv4Addr::new(10, 41, 0, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 41, 0, 2);
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 40, 0, 100);
const LIFETIME: u64 = 1200;

enum Server {
    Kea(Kea),
    Dnsmasq(Dnsmasq),
}

/// A gateway's namespace and a server's, with a LAN in between.
struct Site {
    server: Server,
    gateway: Namespace,
    /// It goes, with its cable, when it is dropped.
    _lan: Namespace,
    relay: DhcpRelay,
    socket: UdpSocket,
}

impl Site {
    fn new(lab: &Lab, kea: bool, addresses: u8) -> Result<Self> {
        let gateway = lab.namespace("gw")?;
        let lan = lab.namespace("srv")?;
        gateway.link("lan0", &lan, "eth0")?;
        gateway.address("lan0", &[&format!("{GATEWAY_LAN}/24")])?;
        lan.address("eth0", &[&format!("{SERVER}/24")])?;
        // The tunnels' subnet is the gateway's.
        gateway
            .ip(&format!("link add tun0 type bridge\nlink set tun0 up\naddress add {RELAY}/24 dev tun0"))?;
        lan.ip(&format!("route add 10.40.0.0/24 via {GATEWAY_LAN}"))?;
        gateway.forward()?;
        let last = Ipv4Addr::from(u32::from(FIRST) + u32::from(addresses) - 1);
        let server = if kea {
            let options = [("routers", "10.40.0.1"), ("domain-name-servers", "10.41.0.53")];
            let config = KeaConfig {
                interface: "eth0".to_owned(),
                subnet: "10.40.0.0/24".to_owned(),
                pool: (FIRST, last),
                lifetime: u32::try_from(LIFETIME)?,
                timers: None,
                reserved: None,
                options: options.map(|(name, data)| (name.to_owned(), data.to_owned())).to_vec(),
            };
            Server::Kea(Kea::start(&lan, "kea", &config)?)
        } else {
            let range = format!("{FIRST},{last},255.255.255.0,{LIFETIME}");
            let config =
                DnsmasqConfig { names: Vec::new(), dhcp_ranges: vec![range], ..DnsmasqConfig::default() };
            Server::Dnsmasq(Dnsmasq::start(&lan, &config)?)
        };
        let socket = gateway.bind_udp(SocketAddr::new(IpAddr::V4(RELAY), 67))?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        Ok(Self { server, gateway, _lan: lan, relay: DhcpRelay::new(RELAY), socket })
    }

    fn log(&self) -> String {
        match &self.server {
            Server::Kea(kea) => kea.log(),
            Server::Dnsmasq(dnsmasq) => dnsmasq.log(),
        }
    }
}

/// A client behind the gateway, on a clock of its own that can be put forward.
struct Tunnel {
    id: ClientId,
    client: Client,
    now: Instant,
    rng: ChaCha20Rng,
    /// The VPN's own SA, once there is an address.
    vpn: Option<UdpSocket>,
}

impl Tunnel {
    fn new(number: u8, remembered: Option<Lease>) -> Result<Self> {
        let hardware = HardwareAddress::from_octets(&[2, 0, 0, 0, 0, number]).context("an address")?;
        let identifier = ClientIdentifier::Hardware;
        let config = ClientConfig { hardware, identifier, host_name: None, remembered };
        Ok(Self {
            id: ClientId(number.into()),
            client: Client::new(config),
            now: Instant::from_start(Duration::from_secs(1)),
            rng: ChaCha20Rng::seed_from_u64(number.into()),
            vpn: None,
        })
    }

    fn start(&mut self) {
        self.client.start(self.now, &mut self.rng);
    }

    /// Carries messages both ways until an event comes, for real seconds; timers run with the client's clock.
    fn event(&mut self, site: &mut Site, patience: Duration) -> Result<Option<Event>> {
        let began = std::time::Instant::now();
        let base = self.now;
        while began.elapsed() < patience {
            self.now = base + began.elapsed();
            self.client.handle_timeout(self.now, &mut self.rng);
            if let Some(event) = self.client.poll_event() {
                return Ok(Some(event));
            }
            self.send(site)?;
            self.receive(site)?;
        }
        Ok(None)
    }

    fn send(&mut self, site: &mut Site) -> Result<()> {
        while let Some(transmit) = self.client.poll_transmit() {
            match transmit.carrier {
                Carrier::DhcpSa => {
                    let message = site.relay.to_server(self.now, self.id, &transmit.message)?;
                    site.socket.send_to(&message, (SERVER, 67)).context("to the server")?;
                }
                Carrier::VpnSa => {
                    let vpn = self.vpn.as_ref().context("a message by the VPN's SA without an address")?;
                    vpn.send_to(&transmit.message, transmit.destination).context("by the VPN's SA")?;
                }
            }
        }
        Ok(())
    }

    fn receive(&mut self, site: &mut Site) -> Result<()> {
        let mut buffer = [0; 2048];
        if let Ok((length, _)) = site.socket.recv_from(&mut buffer) {
            let reply = site.relay.from_server(self.now, buffer.get(..length).unwrap_or_default())?;
            ensure!(reply.client == self.id, "a reply for another tunnel: {reply:?}");
            if let Err(error) = self.client.handle_message(self.now, &reply.message, &mut self.rng) {
                eprintln!("dropped: {error}");
            }
        }
        if let Some(vpn) = &self.vpn
            && let Ok((length, _)) = vpn.recv_from(&mut buffer)
        {
            let message = buffer.get(..length).unwrap_or_default();
            self.client.handle_message(self.now, message, &mut self.rng)?;
        }
        Ok(())
    }

    fn expect(&mut self, site: &mut Site) -> Result<Event> {
        let event = self.event(site, Duration::from_secs(10))?;
        event.with_context(|| format!("nothing came; the server says:\n{}", site.log()))
    }

    /// Until an address is held and configured.
    fn bind(&mut self, site: &mut Site) -> Result<Lease> {
        self.start();
        let Event::Probe(address) = self.expect(site)? else { bail!("no address to probe") };
        self.client.probed(self.now, false, &mut self.rng);
        let Event::Bound(lease) = self.expect(site)? else { bail!("{address} was not taken") };
        site.gateway.address("tun0", &[&format!("{address}/32")])?;
        let vpn = site.gateway.bind_udp(SocketAddr::new(IpAddr::V4(address), 68))?;
        vpn.set_read_timeout(Some(Duration::from_millis(20)))?;
        self.vpn = Some(vpn);
        Ok(*lease)
    }
}

fn a_lease_is_got_renewed_and_given_back(kea: bool) -> Result<()> {
    let lab = Lab::new()?;
    let mut site = Site::new(&lab, kea, 1)?;
    let mut tunnel = Tunnel::new(1, None)?;
    let lease = tunnel.bind(&mut site)?;
    ensure!(lease.address == FIRST && lease.server == SERVER, "{lease:?}");
    ensure!(lease.duration == Duration::from_secs(LIFETIME), "{lease:?}");
    if kea {
        ensure!(lease.settings.dns_servers == [Ipv4Addr::new(10, 41, 0, 53)], "{lease:?}");
        ensure!(lease.settings.routers == [RELAY], "{lease:?}");
    }
    ensure!(lease.settings.prefix_len == 24, "{lease:?}");

    // Half of it later, the server is asked from the leased address.
    tunnel.now = tunnel.now + lease.renew_after;
    let Event::Renewed(renewed) = tunnel.expect(&mut site)? else { bail!("not renewed") };
    ensure!(renewed.address == lease.address, "{renewed:?}");

    // Nobody answers at that address any more: after seven eighths any server is asked, by the relay.
    tunnel.now = tunnel.now + renewed.rebind_after;
    let silent = site.gateway.bind_udp(SocketAddr::new(IpAddr::V4(GATEWAY_LAN), 6868))?;
    silent.set_read_timeout(Some(Duration::from_millis(1)))?;
    tunnel.vpn = Some(silent);
    let Event::Renewed(rebound) = tunnel.expect(&mut site)? else { bail!("not rebound") };
    ensure!(rebound.address == lease.address, "{rebound:?}");

    // The pool has one address: another client gets it only when it was given back.
    let mut other = Tunnel::new(2, None)?;
    other.start();
    let got = other.event(&mut site, Duration::from_secs(3))?;
    ensure!(got.is_none(), "the only address was given twice: {got:?}");
    tunnel.vpn = Some(site.gateway.bind_udp(SocketAddr::new(IpAddr::V4(FIRST), 68))?);
    tunnel.client.release(tunnel.now, &mut tunnel.rng);
    tunnel.send(&mut site)?;
    let event = other.expect(&mut site)?;
    ensure!(event == Event::Probe(FIRST), "{event:?}");
    Ok(())
}

fn an_old_lease_is_asked_for_first_and_may_be_refused(kea: bool) -> Result<()> {
    let lab = Lab::new()?;
    let mut site = Site::new(&lab, kea, 50)?;
    let mut before = Tunnel::new(1, None)?;
    let lease = before.bind(&mut site)?;
    let kept = before.client.suspend().context("a lease")?;
    let mut after = Tunnel::new(1, Some(kept))?;
    after.start();
    let event = after.expect(&mut site)?;
    ensure!(event == Event::Probe(lease.address), "{event:?}");

    // An address of a network that the server does not have: DHCPNAK, then another one.
    let foreign = Lease { address: Ipv4Addr::new(192, 168, 99, 9), ..lease };
    let mut stranger = Tunnel::new(3, Some(foreign))?;
    stranger.start();
    let event = stranger.expect(&mut site)?;
    let Event::Probe(address) = event else { bail!("{event:?}") };
    ensure!(address.octets().starts_with(&[10, 40, 0]), "{address}");
    let log = site.log().to_uppercase();
    ensure!(log.contains("NAK"), "the server never refused:\n{log}");
    Ok(())
}

fn a_declined_address_is_not_given_again(kea: bool) -> Result<()> {
    let lab = Lab::new()?;
    let mut site = Site::new(&lab, kea, 50)?;
    let mut tunnel = Tunnel::new(1, None)?;
    tunnel.start();
    let Event::Probe(taken) = tunnel.expect(&mut site)? else { bail!("no address to probe") };
    tunnel.client.probed(tunnel.now, true, &mut tunnel.rng);
    tunnel.send(&mut site)?;
    tunnel.now = tunnel.now + Duration::from_secs(10);
    let Event::Probe(other) = tunnel.expect(&mut site)? else { bail!("no second address") };
    ensure!(other != taken, "{other} was declined");
    let log = site.log();
    ensure!(log.to_uppercase().contains("DECLINE"), "the server never heard of it:\n{log}");
    Ok(())
}

fn clients_get_addresses_of_their_own(kea: bool) -> Result<()> {
    let lab = Lab::new()?;
    let mut site = Site::new(&lab, kea, 50)?;
    let mut first = Tunnel::new(1, None)?;
    let mut second = Tunnel::new(2, None)?;
    let (a, b) = (first.bind(&mut site)?, second.bind(&mut site)?);
    ensure!(a.address != b.address, "both have {}", a.address);
    // What the server gives to nobody it takes back when its time is over.
    first.now = first.now + Duration::from_secs(LIFETIME);
    first.vpn = None;
    first.client.handle_timeout(first.now, &mut first.rng);
    while first.client.poll_transmit().is_some() {}
    first.now = first.now + Duration::from_secs(LIFETIME);
    first.client.handle_timeout(first.now, &mut first.rng);
    while first.client.poll_transmit().is_some() {}
    first.now = first.now + Duration::from_secs(LIFETIME);
    first.client.handle_timeout(first.now, &mut first.rng);
    let event = first.client.poll_event();
    ensure!(event == Some(Event::Lost { address: a.address, why: Why::Expired }), "{event:?}");
    Ok(())
}

#[test]
fn kea_lease_renewal_rebinding_release() -> Result<()> {
    a_lease_is_got_renewed_and_given_back(true)
}

#[test]
fn dnsmasq_lease_renewal_rebinding_release() -> Result<()> {
    a_lease_is_got_renewed_and_given_back(false)
}

#[test]
fn kea_confirms_an_old_lease_and_refuses_a_foreign_one() -> Result<()> {
    an_old_lease_is_asked_for_first_and_may_be_refused(true)
}

#[test]
fn dnsmasq_confirms_an_old_lease_and_refuses_a_foreign_one() -> Result<()> {
    an_old_lease_is_asked_for_first_and_may_be_refused(false)
}

#[test]
fn kea_hears_a_decline() -> Result<()> {
    a_declined_address_is_not_given_again(true)
}

#[test]
fn dnsmasq_hears_a_decline() -> Result<()> {
    a_declined_address_is_not_given_again(false)
}

#[test]
fn kea_serves_two_clients() -> Result<()> {
    clients_get_addresses_of_their_own(true)
}

#[test]
fn dnsmasq_serves_two_clients() -> Result<()> {
    clients_get_addresses_of_their_own(false)
}
