//! A DHCP relay between clients in tunnels and a server on the gateway's LAN (RFC 3456 section 4.2, RFC 3046), without I/O.
//!
//! A client's message gets the relay's address and its tunnel as circuit ID (option 82). A reply is told apart by the
//! circuit ID that the server echoes; a server that does not echo it leaves `xid` and `chaddr`, which are remembered for a
//! while. From a DHCPACK the relay learns which address a client may use.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use dhcproto::v4::relay::{RelayAgentInformation, RelayCode, RelayInfo};
use dhcproto::v4::{DhcpOption, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable as _, Decoder, Encodable as _, Encoder};
use ropewalk_ike::time::Instant;

use crate::gateway::ClientId;

/// RFC 1542 section 4.1.1: more hops than this are a loop.
const MOST_HOPS: u8 = 16;
/// How long an exchange is remembered.
const MEMORY: Duration = Duration::from_secs(120);
/// Exchanges that are remembered at most.
const MOST_EXCHANGES: usize = 4096;
/// Where `hlen` stands, and its greatest value.
const HLEN_AT: usize = 2;
const MOST_HLEN: u8 = 16;

/// Why a message was not forwarded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RelayError {
    /// The codec refuses it.
    #[error("malformed DHCP message: {0}")]
    Malformed(String),
    /// A client may not pretend to be a relay, nor a server to be a client.
    #[error("a DHCP message that does not belong in this direction")]
    Direction,
    /// It went through too many relays.
    #[error("a DHCP message after {0} hops")]
    Hops(u8),
    /// Nobody waits for this reply.
    #[error("a DHCP reply for nobody here")]
    Nobody,
}

/// An address that a server gave to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The address.
    pub address: Ipv4Addr,
    /// For how long.
    pub duration: Duration,
}

/// A reply for a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Whose.
    pub client: ClientId,
    /// The message, without the relay's option.
    pub message: Vec<u8>,
    /// What it grants, if it is a DHCPACK.
    pub granted: Option<Granted>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Exchange {
    xid: u32,
    chaddr: Vec<u8>,
}

/// The relay.
#[derive(Debug)]
pub struct DhcpRelay {
    /// The relay's address on the tunnels' subnet, where servers answer to.
    address: Ipv4Addr,
    exchanges: BTreeMap<Exchange, (ClientId, Instant)>,
}

impl DhcpRelay {
    /// A relay with this address (`giaddr`): it tells the server the subnet, and the server answers to it.
    #[must_use]
    pub fn new(address: Ipv4Addr) -> Self {
        Self { address, exchanges: BTreeMap::new() }
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// A client's message, for the server.
    ///
    /// # Errors
    /// [`RelayError`]: it is to be dropped.
    pub fn to_server(
        &mut self,
        now: Instant,
        client: ClientId,
        octets: &[u8],
    ) -> Result<Vec<u8>, RelayError> {
        let mut message = decode(octets)?;
        let from_a_relay =
            !message.giaddr().is_unspecified() || message.opts().contains(OptionCode::RelayAgentInformation);
        if message.opcode() != Opcode::BootRequest || from_a_relay {
            return Err(RelayError::Direction);
        }
        if message.hops() >= MOST_HOPS {
            return Err(RelayError::Hops(message.hops()));
        }
        let hops = message.hops() + 1;
        message.set_hops(hops).set_giaddr(self.address);
        let mut information = RelayAgentInformation::default();
        information.insert(RelayInfo::AgentCircuitId(client.0.to_be_bytes().to_vec()));
        message.opts_mut().insert(DhcpOption::RelayAgentInformation(information));
        self.remember(now, exchange(&message), client);
        encode(&message)
    }

    /// A server's message, for the client whose it is.
    ///
    /// # Errors
    /// [`RelayError`]: it is to be dropped.
    pub fn from_server(&mut self, now: Instant, octets: &[u8]) -> Result<Reply, RelayError> {
        let mut message = decode(octets)?;
        if message.opcode() != Opcode::BootReply || message.giaddr() != self.address {
            return Err(RelayError::Direction);
        }
        let remembered = self.exchanges.get(&exchange(&message)).filter(|(_, at)| now < *at + MEMORY);
        let remembered = remembered.map(|(client, _)| *client);
        // With the circuit ID and what is remembered at odds, somebody else's reply came here.
        let client = match (circuit(&message), remembered) {
            (Some(circuit), Some(client)) if circuit == client => client,
            (None, Some(client)) => client,
            (Some(_) | None, _) => return Err(RelayError::Nobody),
        };
        message.opts_mut().remove(OptionCode::RelayAgentInformation);
        let granted = granted(&message);
        Ok(Reply { client, message: encode(&message)?, granted })
    }

    /// A client is gone.
    pub fn forget(&mut self, client: ClientId) {
        self.exchanges.retain(|_, (known, _)| *known != client);
    }

    fn remember(&mut self, now: Instant, exchange: Exchange, client: ClientId) {
        self.exchanges.retain(|_, (_, at)| now < *at + MEMORY);
        if self.exchanges.len() < MOST_EXCHANGES {
            self.exchanges.insert(exchange, (client, now));
        }
    }
}

fn decode(octets: &[u8]) -> Result<Message, RelayError> {
    // The codec would index by this octet.
    if octets.get(HLEN_AT).is_none_or(|hlen| *hlen > MOST_HLEN) {
        return Err(RelayError::Malformed("no hardware address, or one of more than 16 octets".to_owned()));
    }
    Message::decode(&mut Decoder::new(octets)).map_err(|error| RelayError::Malformed(error.to_string()))
}

fn encode(message: &Message) -> Result<Vec<u8>, RelayError> {
    let mut octets = Vec::new();
    message
        .encode(&mut Encoder::new(&mut octets))
        .map_err(|error| RelayError::Malformed(error.to_string()))?;
    Ok(octets)
}

fn exchange(message: &Message) -> Exchange {
    Exchange { xid: message.xid(), chaddr: message.chaddr().to_vec() }
}

fn circuit(message: &Message) -> Option<ClientId> {
    let Some(DhcpOption::RelayAgentInformation(information)) =
        message.opts().get(OptionCode::RelayAgentInformation)
    else {
        return None;
    };
    match information.get(RelayCode::AgentCircuitId) {
        Some(RelayInfo::AgentCircuitId(id)) => {
            <[u8; 8]>::try_from(id.as_slice()).ok().map(|id| ClientId(u64::from_be_bytes(id)))
        }
        _ => None,
    }
}

fn granted(message: &Message) -> Option<Granted> {
    let acknowledges = message.opts().has_msg_type(MessageType::Ack) && !message.yiaddr().is_unspecified();
    match message.opts().get(OptionCode::AddressLeaseTime) {
        Some(DhcpOption::AddressLeaseTime(seconds)) if acknowledges => {
            Some(Granted { address: message.yiaddr(), duration: Duration::from_secs((*seconds).into()) })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELAY: Ipv4Addr = Ipv4Addr::new(10, 40, 0, 1);
    const ALICE: ClientId = ClientId(0xa11c_e000);
    const BOB: ClientId = ClientId(0xb0b);

    fn now() -> Instant {
        Instant::from_start(Duration::from_secs(10))
    }

    fn discover(xid: u32) -> Message {
        let mut message = Message::default();
        message.set_xid(xid).set_chaddr(&[2, 0, 0, 0, 0, 9]);
        message.opts_mut().insert(DhcpOption::MessageType(MessageType::Discover));
        message
    }

    fn octets(message: &Message) -> Vec<u8> {
        encode(message).unwrap()
    }

    /// A server's answer to what the relay sent, with or without option 82.
    fn reply(relayed: &[u8], kind: MessageType, echoes: bool) -> Message {
        let mut message = decode(relayed).unwrap();
        message.set_opcode(Opcode::BootReply).set_yiaddr(Ipv4Addr::new(10, 40, 0, 77));
        message.opts_mut().insert(DhcpOption::MessageType(kind));
        message.opts_mut().insert(DhcpOption::AddressLeaseTime(600));
        if !echoes {
            message.opts_mut().remove(OptionCode::RelayAgentInformation);
        }
        message
    }

    #[test]
    fn the_server_is_told_the_subnet_and_the_circuit() {
        let mut relay = DhcpRelay::new(RELAY);
        let relayed = decode(&relay.to_server(now(), ALICE, &octets(&discover(1))).unwrap()).unwrap();
        assert_eq!((relayed.giaddr(), relayed.hops()), (RELAY, 1));
        assert_eq!(circuit(&relayed), Some(ALICE));
    }

    #[test]
    fn replies_find_their_client_by_circuit_or_by_exchange() {
        for echoes in [true, false] {
            let mut relay = DhcpRelay::new(RELAY);
            let to_alice = relay.to_server(now(), ALICE, &octets(&discover(1))).unwrap();
            let to_bob = relay.to_server(now(), BOB, &octets(&discover(2))).unwrap();
            let offer = reply(&to_bob, MessageType::Offer, echoes);
            let bob = relay.from_server(now(), &octets(&offer)).unwrap();
            assert_eq!((bob.client, bob.granted), (BOB, None));
            let ack = reply(&to_alice, MessageType::Ack, echoes);
            let alice = relay.from_server(now(), &octets(&ack)).unwrap();
            let (address, duration) = (Ipv4Addr::new(10, 40, 0, 77), Duration::from_secs(600));
            assert_eq!((alice.client, alice.granted), (ALICE, Some(Granted { address, duration })));
            let message = decode(&alice.message).unwrap();
            assert!(!message.opts().contains(OptionCode::RelayAgentInformation), "the client never sees it");
        }
    }

    #[test]
    fn a_client_cannot_pretend_to_be_a_relay_or_a_server() {
        let mut relay = DhcpRelay::new(RELAY);
        let mut message = discover(1);
        message.set_giaddr(RELAY);
        assert_eq!(relay.to_server(now(), ALICE, &octets(&message)), Err(RelayError::Direction));
        let mut message = discover(1);
        let mut information = RelayAgentInformation::default();
        information.insert(RelayInfo::AgentCircuitId(vec![1]));
        message.opts_mut().insert(DhcpOption::RelayAgentInformation(information));
        assert_eq!(relay.to_server(now(), ALICE, &octets(&message)), Err(RelayError::Direction));
        let mut message = discover(1);
        message.set_opcode(Opcode::BootReply);
        assert_eq!(relay.to_server(now(), ALICE, &octets(&message)), Err(RelayError::Direction));
        let mut message = discover(1);
        message.set_hops(16);
        assert_eq!(relay.to_server(now(), ALICE, &octets(&message)), Err(RelayError::Hops(16)));
    }

    #[test]
    fn a_reply_that_nobody_waits_for_goes_nowhere() {
        let mut relay = DhcpRelay::new(RELAY);
        let relayed = relay.to_server(now(), ALICE, &octets(&discover(1))).unwrap();
        let ack = reply(&relayed, MessageType::Ack, true);
        let mut elsewhere = ack.clone();
        elsewhere.set_giaddr(Ipv4Addr::new(10, 40, 0, 2));
        assert_eq!(relay.from_server(now(), &octets(&elsewhere)), Err(RelayError::Direction));
        let mut other = ack.clone();
        other.set_xid(2);
        assert_eq!(relay.from_server(now(), &octets(&other)), Err(RelayError::Nobody));
        let late = now() + MEMORY;
        assert_eq!(relay.from_server(late, &octets(&ack)), Err(RelayError::Nobody));
        relay.forget(ALICE);
        assert_eq!(relay.from_server(now(), &octets(&ack)), Err(RelayError::Nobody));
    }

    #[test]
    fn two_clients_with_the_same_exchange_do_not_get_each_others_reply() {
        let mut relay = DhcpRelay::new(RELAY);
        let to_alice = relay.to_server(now(), ALICE, &octets(&discover(1))).unwrap();
        // The same xid and chaddr from another tunnel: a clone, or an attack.
        relay.to_server(now(), BOB, &octets(&discover(1))).unwrap();
        let ack = reply(&to_alice, MessageType::Ack, true);
        assert_eq!(relay.from_server(now(), &octets(&ack)), Err(RelayError::Nobody));
    }

    #[test]
    fn a_hardware_address_beyond_its_field_is_refused() {
        let mut relay = DhcpRelay::new(RELAY);
        let mut message = octets(&discover(1));
        message[2] = 17;
        assert!(matches!(relay.to_server(now(), ALICE, &message), Err(RelayError::Malformed(_))));
    }
}
