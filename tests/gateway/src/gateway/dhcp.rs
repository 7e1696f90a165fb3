//! Clients' inner addresses by DHCP (RFC 3456 section 4.2): what comes by their CHILD_SAs for DHCP is relayed to a server on the
//! LAN, and what that grants is what a client may use.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use dhcproto::v4::{Flags, Message};
use dhcproto::{Decodable as _, Decoder};
use ropewalk_dhcp::packet::Datagram;
use ropewalk_dhcp::{CLIENT_PORT, SERVER_PORT};
use ropewalk_ike::time::Instant;
use ropewalk_ike::wire::{TrafficSelector, TrafficSelectors};

use super::{Client, ClientId, Gateway, GatewayEvent, State};
use crate::dhcp_relay::{DhcpRelay, Reply};

impl Gateway {
    /// A packet came out of a client's CHILD_SA for DHCP.
    pub fn inner_packet(&mut self, now: Instant, spi_in: u32, packet: &[u8]) {
        let Some((id, _)) = self.owner_of(spi_in) else { return };
        let Some(relay) = &mut self.relay else { return };
        let datagram = Datagram::read(packet).filter(|datagram| datagram.destination.port() == SERVER_PORT);
        let Some(datagram) = datagram else { return };
        match relay.to_server(now, ClientId(id), datagram.payload) {
            Ok(message) => self.events.push_back(GatewayEvent::ToDhcpServer { message }),
            Err(error) => tracing::info!(%error, "a client's DHCP message is not relayed"),
        }
    }

    /// A DHCP server sent this to the relay.
    pub fn from_dhcp_server(&mut self, now: Instant, octets: &[u8]) {
        let Some(relay) = &mut self.relay else { return };
        let address = relay.address();
        match relay.from_server(now, octets) {
            Ok(reply) => self.deliver(now, address, reply),
            Err(error) => tracing::debug!(%error, "a DHCP server's message is for nobody"),
        }
    }

    fn deliver(&mut self, now: Instant, relay: Ipv4Addr, reply: Reply) {
        let Reply { client, message, granted } = reply;
        if let Some(granted) = granted {
            self.leased(now, client, granted.address);
        }
        let Some(Client { state: State::Up(up), .. }) = self.clients.get(&client.0) else { return };
        let spi_in = up.strands.iter().rev().find_map(|strand| Some(strand.sa.dhcp_child()?.spi_in));
        let datagram = Datagram {
            source: SocketAddrV4::new(relay, SERVER_PORT),
            destination: SocketAddrV4::new(destination(&message), CLIENT_PORT),
            payload: &message,
        };
        if let (Some(spi_in), Some(packet)) = (spi_in, datagram.packet()) {
            self.events.push_back(GatewayEvent::SendInner { spi_in, packet });
        }
    }

    /// The server granted this address to a client, which may use it, and no other, from now on.
    fn leased(&mut self, now: Instant, client: ClientId, address: Ipv4Addr) {
        let mut reachable = self.settings.traffic_selectors();
        reachable.selectors.retain(|selector| selector.start().is_ipv4());
        let ip = IpAddr::from(address);
        let others = self.clients.iter().filter(|(id, _)| **id != client.0);
        let taken = others.filter_map(|(_, other)| match &other.state {
            State::Up(up) => up.addresses.contains(&ip).then_some(&up.name),
            State::HalfOpen(_) => None,
        });
        let taken: Vec<String> = taken.cloned().collect();
        let own = self.relay.as_ref().is_some_and(|relay| relay.address() == address);
        let Some(Client { state: State::Up(up), .. }) = self.clients.get_mut(&client.0) else { return };
        if own || taken.iter().any(|name| *name != up.name) {
            tracing::warn!(name = up.name, %address, "a DHCP server granted an address that is in use");
            return;
        }
        if up.addresses != [ip] {
            tracing::info!(name = up.name, %address, "leased");
        }
        up.addresses = vec![ip];
        let host = TrafficSelectors::new(vec![TrafficSelector::host(ip)]);
        for strand in &mut up.strands {
            strand.sa.allow(reachable.clone(), host.clone());
        }
        self.leases.get().note(&up.name, client.0, ip, now);
    }
}

/// Where a reply goes (RFC 2131 section 4.1): to the client's address, unless it wants, or a refusal needs, a broadcast.
fn destination(message: &[u8]) -> Ipv4Addr {
    let Ok(message) = Message::decode(&mut Decoder::new(message)) else { return Ipv4Addr::BROADCAST };
    let broadcast = Flags::default().set_broadcast();
    let known = [message.ciaddr(), message.yiaddr()].into_iter().find(|address| !address.is_unspecified());
    known.filter(|_| message.flags() != broadcast).unwrap_or(Ipv4Addr::BROADCAST)
}

/// A relay, when the settings want one.
pub(super) fn relay(address: Option<Ipv4Addr>) -> Option<DhcpRelay> {
    address.map(DhcpRelay::new)
}
