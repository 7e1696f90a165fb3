//! A DHCP server in memory, as far as clients need one: real ones are in the end-to-end tests.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use dhcproto::v4::{DhcpOption, DhcpOptions, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable as _, Decoder, Encodable as _, Encoder};
use ropewalk_ike::time::Instant;

/// A server with a pool.
#[derive(Debug)]
pub struct DhcpServer {
    /// It does not answer.
    pub silent: bool,
    /// Every request for an address is refused.
    pub refuses: bool,
    /// Seconds.
    pub lifetime: u32,
    /// The addresses that it gives, first to last.
    pub pool: Vec<Ipv4Addr>,
    /// What it was asked, in order, with the address that was asked for.
    pub asked: Vec<(MessageType, Ipv4Addr)>,
    /// Further options of every grant.
    pub options: Vec<DhcpOption>,
    /// Who has which address, by client identifier, and until when.
    pub leases: BTreeMap<Ipv4Addr, (Vec<u8>, Instant)>,
}

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 50, 0, 5);

impl Default for DhcpServer {
    fn default() -> Self {
        Self {
            silent: false,
            refuses: false,
            lifetime: 3600,
            pool: (100..110).map(|last| Ipv4Addr::new(10, 99, 0, last)).collect(),
            asked: Vec::new(),
            options: vec![DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0))],
            leases: BTreeMap::new(),
        }
    }
}

impl DhcpServer {
    /// The kinds of messages that came so far.
    #[must_use]
    pub fn kinds(&self) -> Vec<MessageType> {
        self.asked.iter().map(|(kind, _)| *kind).collect()
    }

    /// Takes a message; what it answers.
    pub fn answer(&mut self, now: Instant, octets: &[u8]) -> Option<Vec<u8>> {
        let message = Message::decode(&mut Decoder::new(octets)).ok()?;
        let kind = message.opts().msg_type()?;
        let Some(DhcpOption::ClientIdentifier(client)) = message.opts().get(OptionCode::ClientIdentifier)
        else {
            return None;
        };
        let requested = match message.opts().get(OptionCode::RequestedIpAddress) {
            Some(DhcpOption::RequestedIpAddress(address)) => *address,
            _ => message.ciaddr(),
        };
        self.asked.push((kind, requested));
        self.leases.retain(|_, (_, until)| now < *until);
        let free = |address: &Ipv4Addr| self.leases.get(address).is_none_or(|(holder, _)| holder == client);
        if self.silent {
            return None;
        }
        let (kind, address) = match kind {
            MessageType::Discover => {
                let held =
                    self.leases.iter().find(|(_, (holder, _))| holder == client).map(|(held, _)| *held);
                let address = held.or_else(|| self.pool.iter().copied().find(free))?;
                (MessageType::Offer, address)
            }
            MessageType::Request if self.refuses || !self.pool.contains(&requested) || !free(&requested) => {
                self.leases.retain(|_, (holder, _)| holder != client);
                (MessageType::Nak, Ipv4Addr::UNSPECIFIED)
            }
            MessageType::Request => {
                let until = now + Duration::from_secs(self.lifetime.into());
                self.leases.insert(requested, (client.clone(), until));
                (MessageType::Ack, requested)
            }
            MessageType::Decline => {
                self.leases.insert(requested, (Vec::new(), now + Duration::from_secs(86_400)));
                return None;
            }
            MessageType::Release => {
                self.leases.remove(&requested);
                return None;
            }
            _ => return None,
        };
        self.reply(&message, kind, address)
    }

    fn reply(&self, request: &Message, kind: MessageType, address: Ipv4Addr) -> Option<Vec<u8>> {
        let mut answer = request.clone();
        answer.set_opcode(Opcode::BootReply).set_yiaddr(address);
        let mut options = DhcpOptions::new();
        options.insert(DhcpOption::MessageType(kind));
        options.insert(DhcpOption::ServerIdentifier(SERVER));
        if kind != MessageType::Nak {
            options.insert(DhcpOption::AddressLeaseTime(self.lifetime));
            self.options.iter().for_each(|option| {
                options.insert(option.clone());
            });
        }
        if let Some(information) = request.opts().get(OptionCode::RelayAgentInformation) {
            options.insert(information.clone());
        }
        answer.set_opts(options);
        let mut octets = Vec::new();
        answer.encode(&mut Encoder::new(&mut octets)).ok()?;
        Some(octets)
    }
}
