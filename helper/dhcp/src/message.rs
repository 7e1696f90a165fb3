//! DHCP messages: what the client sends, and what it takes from an answer (RFC 2131 sections 2 and 4.3.1).

use std::net::Ipv4Addr;
use std::time::Duration;

use dhcproto::v4::{DhcpOption, Flags, HType, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable as _, Decoder, Encodable as _, Encoder};

use crate::hardware::{HTYPE, HardwareAddress};
use crate::lease::{Lease, Settings};

/// Octets before the options: the fixed fields and the magic cookie.
const FIXED_LEN: usize = 240;
/// Where `hlen` stands.
const HLEN_AT: usize = 2;
/// Relays drop what is shorter than a BOOTP message.
const LEAST_LEN: usize = 300;
const MAGIC: [u8; 4] = [0x63, 0x82, 0x53, 0x63];

/// The options that are read: configuration, times, message type, server, text, client identifier.
const READ: [u8; 16] = [1, 3, 6, 15, 26, 42, 44, 51, 53, 54, 56, 58, 59, 61, 119, 121];

/// What is wrong with a DHCP message that came in. It is dropped; none of this ends anything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DhcpError {
    /// Too short, a broken option, a field out of range.
    #[error("malformed DHCP message: {0}")]
    Malformed(String),
    /// A request, not an answer.
    #[error("a DHCP message from a client")]
    NotAnAnswer,
    /// The answer to somebody else, or to an earlier exchange.
    #[error("a DHCP answer that is not for this client")]
    NotForUs,
    /// An answer of a kind that nothing waits for.
    #[error("an unexpected {0}")]
    Unexpected(&'static str),
    /// Something that an answer needs is missing.
    #[error("a DHCP answer without {0}")]
    Missing(&'static str),
    /// An address that no interface can have.
    #[error("the DHCP server offers the unusable address {0}")]
    UnusableAddress(Ipv4Addr),
}

/// The kinds of answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// DHCPOFFER.
    Offer,
    /// DHCPACK.
    Ack,
    /// DHCPNAK.
    Nak,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Offer => "DHCPOFFER",
            Self::Ack => "DHCPACK",
            Self::Nak => "DHCPNAK",
        }
    }
}

/// Who sends.
#[derive(Clone, Copy, Debug)]
pub struct Sender<'a> {
    pub hardware: &'a HardwareAddress,
    pub identifier: &'a [u8],
    pub host_name: Option<&'a str>,
}

/// What varies from message to message.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub kind: MessageType,
    pub xid: u32,
    /// Seconds since the exchange began.
    pub secs: u16,
    /// Our address, once it is configured.
    pub ciaddr: Ipv4Addr,
    /// Option 50.
    pub requested: Option<Ipv4Addr>,
    /// Option 54.
    pub server: Option<Ipv4Addr>,
}

/// Builds a message. The broadcast flag is zero: answers come through the tunnel to this client only.
///
/// # Errors
/// When the codec refuses, as for a host name of more than 255 octets.
pub fn build(sender: Sender<'_>, wanted: Wanted) -> Result<Vec<u8>, DhcpError> {
    let mut message = Message::default();
    message
        .set_opcode(Opcode::BootRequest)
        .set_htype(HType::from(HTYPE))
        .set_chaddr(sender.hardware.octets())
        .set_xid(wanted.xid)
        .set_secs(wanted.secs)
        .set_flags(Flags::default())
        .set_ciaddr(wanted.ciaddr);
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(wanted.kind));
    options.insert(DhcpOption::ClientIdentifier(sender.identifier.to_vec()));
    if let Some(address) = wanted.requested {
        options.insert(DhcpOption::RequestedIpAddress(address));
    }
    if let Some(server) = wanted.server {
        options.insert(DhcpOption::ServerIdentifier(server));
    }
    let goodbye = matches!(wanted.kind, MessageType::Release | MessageType::Decline);
    if !goodbye {
        if let Some(name) = sender.host_name {
            options.insert(DhcpOption::Hostname(name.to_owned()));
        }
        options.insert(DhcpOption::ParameterRequestList(vec![
            OptionCode::SubnetMask,
            // RFC 3442: asked for before the router.
            OptionCode::ClasslessStaticRoute,
            OptionCode::Router,
            OptionCode::DomainNameServer,
            OptionCode::DomainName,
            OptionCode::DomainSearch,
            OptionCode::InterfaceMtu,
            OptionCode::NtpServers,
            OptionCode::NetBiosNameServers,
            OptionCode::AddressLeaseTime,
            OptionCode::Renewal,
            OptionCode::Rebinding,
        ]));
    }
    let mut octets = Vec::with_capacity(LEAST_LEN);
    message
        .encode(&mut Encoder::new(&mut octets))
        .map_err(|error| DhcpError::Malformed(error.to_string()))?;
    if octets.len() < LEAST_LEN {
        octets.resize(LEAST_LEN, 0);
    }
    Ok(octets)
}

/// An answer of a server.
#[derive(Clone, Debug)]
pub struct Answer {
    pub kind: Kind,
    message: Message,
}

impl Answer {
    /// Reads an answer to `xid` for `hardware`.
    ///
    /// # Errors
    /// It is malformed, or not such an answer.
    pub fn parse(octets: &[u8], xid: u32, sender: Sender<'_>) -> Result<Self, DhcpError> {
        let malformed = |what: &str| DhcpError::Malformed(what.to_owned());
        let fixed = octets.get(..FIXED_LEN).ok_or_else(|| malformed("too short"))?;
        // The codec would index by this octet.
        if fixed.get(HLEN_AT).is_none_or(|hlen| *hlen > 16) {
            return Err(malformed("a hardware address of more than 16 octets"));
        }
        if !fixed.ends_with(&MAGIC) {
            return Err(malformed("no magic cookie"));
        }
        let options = octets.get(FIXED_LEN..).unwrap_or_default();
        let octets = [fixed, &known_options(options)].concat();
        let message = Message::decode(&mut Decoder::new(&octets))
            .map_err(|error| DhcpError::Malformed(error.to_string()))?;
        if message.opcode() != Opcode::BootReply {
            return Err(DhcpError::NotAnAnswer);
        }
        let for_us = message.xid() == xid && message.chaddr() == sender.hardware.octets();
        // A server may echo the identifier (RFC 6842).
        let identified = match message.opts().get(OptionCode::ClientIdentifier) {
            Some(DhcpOption::ClientIdentifier(echoed)) => echoed == sender.identifier,
            _ => true,
        };
        if !for_us || !identified {
            return Err(DhcpError::NotForUs);
        }
        let kind = match message.opts().msg_type() {
            Some(MessageType::Offer) => Kind::Offer,
            Some(MessageType::Ack) => Kind::Ack,
            Some(MessageType::Nak) => Kind::Nak,
            Some(_) => return Err(DhcpError::NotAnAnswer),
            None => return Err(DhcpError::Missing("a message type")),
        };
        Ok(Self { kind, message })
    }

    /// Option 54.
    ///
    /// # Errors
    /// It is missing.
    pub fn server(&self) -> Result<Ipv4Addr, DhcpError> {
        match self.message.opts().get(OptionCode::ServerIdentifier) {
            Some(DhcpOption::ServerIdentifier(server)) => Ok(*server),
            _ => Err(DhcpError::Missing("a server identifier")),
        }
    }

    /// The address on offer.
    ///
    /// # Errors
    /// No interface can have it.
    pub fn address(&self) -> Result<Ipv4Addr, DhcpError> {
        let address = self.message.yiaddr();
        let unusable = address.is_unspecified()
            || address.is_loopback()
            || address.is_multicast()
            || address.is_broadcast()
            || address.is_link_local();
        if unusable { Err(DhcpError::UnusableAddress(address)) } else { Ok(address) }
    }

    /// The whole lease.
    ///
    /// # Errors
    /// Address, server or lease time are missing or unusable.
    pub fn lease(&self) -> Result<Lease, DhcpError> {
        let seconds = |value: Option<u32>| value.map(|value| Duration::from_secs(value.into()));
        let options = self.message.opts();
        let duration = match options.get(OptionCode::AddressLeaseTime) {
            Some(DhcpOption::AddressLeaseTime(value)) if *value > 0 => Duration::from_secs((*value).into()),
            _ => return Err(DhcpError::Missing("a lease time")),
        };
        let renewal = match options.get(OptionCode::Renewal) {
            Some(DhcpOption::Renewal(value)) => Some(*value),
            _ => None,
        };
        let rebinding = match options.get(OptionCode::Rebinding) {
            Some(DhcpOption::Rebinding(value)) => Some(*value),
            _ => None,
        };
        let times = (duration, seconds(renewal), seconds(rebinding));
        Ok(Lease::new(self.address()?, self.server()?, times, self.settings()))
    }

    /// The configuration, without what makes no sense.
    pub fn settings(&self) -> Settings {
        let options = self.message.opts();
        let mut settings = Settings { prefix_len: 32, ..Settings::default() };
        for (_, option) in options.iter() {
            match option {
                DhcpOption::SubnetMask(mask) => {
                    settings.prefix_len = ipnet::ipv4_mask_to_prefix(*mask).unwrap_or(32);
                }
                DhcpOption::Router(routers) => settings.routers.clone_from(routers),
                DhcpOption::DomainNameServer(servers) => settings.dns_servers = hosts(servers),
                DhcpOption::DomainName(name) => settings.domain = domain(name),
                DhcpOption::DomainSearch(names) => {
                    settings.search = names.iter().filter_map(|name| domain(&name.to_utf8())).collect();
                }
                // RFC 2132 section 5.1: the least legal value is 68; IPv4 wants 576.
                DhcpOption::InterfaceMtu(mtu) => settings.mtu = Some(*mtu).filter(|mtu| *mtu >= 576),
                DhcpOption::NtpServers(servers) => settings.ntp_servers = hosts(servers),
                DhcpOption::NetBiosNameServers(servers) => settings.wins_servers = hosts(servers),
                DhcpOption::ClasslessStaticRoute(routes) => {
                    let whole = routes.iter().map(|(net, hop)| (net.trunc(), *hop)).collect();
                    settings.routes = Some(whole);
                }
                _ => {}
            }
        }
        settings
    }

    /// Option 56, for the log.
    pub fn text(&self) -> Option<&str> {
        match self.message.opts().get(OptionCode::Message) {
            Some(DhcpOption::Message(text)) => Some(text),
            _ => None,
        }
    }
}

/// The options that are read here, and no others: the codec must not stumble over what nobody asked for (built with
/// debug assertions, version 0.15.0 panics on an option 94 of a wrong length). What follows a broken length is left out.
fn known_options(mut octets: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(octets.len());
    while let [code, tail @ ..] = octets {
        match code {
            0 => octets = tail,
            255 => break,
            _ => {
                let Some((len, tail)) = tail.split_first() else { break };
                let Some((content, rest)) = tail.split_at_checked(usize::from(*len)) else { break };
                if READ.contains(code) {
                    kept.extend([*code, *len]);
                    kept.extend(content);
                }
                octets = rest;
            }
        }
    }
    kept.push(255);
    kept
}

fn hosts(addresses: &[Ipv4Addr]) -> Vec<Ipv4Addr> {
    addresses.iter().copied().filter(|address| !address.is_unspecified() && !address.is_broadcast()).collect()
}

/// A domain name that may stand in a resolver's configuration: letters, digits, hyphens, underscores and dots.
fn domain(name: &str) -> Option<String> {
    let name = name.trim_end_matches(['.', '\0']);
    let allowed = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && !label.starts_with('-') && label.bytes().all(allowed)
    };
    (name.len() <= 253 && name.split('.').all(label)).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hardware() -> HardwareAddress {
        HardwareAddress::from_octets(&[2, 0, 0, 0, 0, 1]).unwrap()
    }

    fn wanted(kind: MessageType) -> Wanted {
        Wanted {
            kind,
            xid: 0x0102_0304,
            secs: 5,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            requested: Some(Ipv4Addr::new(10, 0, 0, 9)),
            server: None,
        }
    }

    fn built(kind: MessageType) -> Vec<u8> {
        let hardware = hardware();
        let identifier = [31, 2, 0, 0, 0, 0, 1];
        let sender = Sender { hardware: &hardware, identifier: &identifier, host_name: Some("laptop") };
        build(sender, wanted(kind)).unwrap()
    }

    fn option(octets: &[u8], code: u8) -> Option<&[u8]> {
        let mut rest = &octets[240..];
        while let [found, tail @ ..] = rest {
            match found {
                0 => rest = tail,
                255 => return None,
                _ => {
                    let len = usize::from(tail[0]);
                    if *found == code {
                        return Some(&tail[1..=len]);
                    }
                    rest = &tail[1 + len..];
                }
            }
        }
        None
    }

    /// RFC 2131 figure 1 and RFC 3456 section 4.1, octet by octet.
    #[test]
    fn fields_stand_where_the_documents_say() {
        let octets = built(MessageType::Discover);
        assert_eq!(octets[..4], [1, 31, 6, 0], "op, htype, hlen, hops");
        assert_eq!(octets[4..8], [1, 2, 3, 4], "xid");
        assert_eq!(octets[8..12], [0, 5, 0, 0], "secs, and flags without broadcast");
        assert_eq!(octets[12..28], [0; 16], "ciaddr, yiaddr, siaddr, giaddr");
        assert_eq!(octets[28..44], [2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "chaddr");
        assert_eq!(octets[44..236], [0; 192], "sname and file");
        assert_eq!(octets[236..240], [99, 130, 83, 99], "the magic cookie");
        assert_eq!(option(&octets, 53), Some(&[1][..]));
        assert_eq!(option(&octets, 61), Some(&[31, 2, 0, 0, 0, 0, 1][..]));
        assert_eq!(option(&octets, 50), Some(&[10, 0, 0, 9][..]));
        assert_eq!(option(&octets, 12), Some(&b"laptop"[..]));
        assert!(option(&octets, 55).unwrap().contains(&121));
        assert!(octets.len() >= 300);
    }

    /// RFC 2131 table 5: no parameter list in DHCPRELEASE and DHCPDECLINE.
    #[test]
    fn a_goodbye_asks_for_nothing() {
        for kind in [MessageType::Release, MessageType::Decline] {
            let octets = built(kind);
            assert_eq!(option(&octets, 55), None);
            assert_eq!(option(&octets, 12), None);
            assert!(option(&octets, 61).is_some());
        }
    }

    #[test]
    fn names_that_could_break_a_resolvers_file_are_left_out() {
        assert_eq!(domain("example.com."), Some("example.com".to_owned()));
        assert_eq!(domain("a b"), None);
        assert_eq!(domain("evil\nnameserver 6.6.6.6"), None);
        assert_eq!(domain(""), None);
        assert_eq!((domain("a..b"), domain("-a.b"), domain(&"a".repeat(64))), (None, None, None));
    }

    #[test]
    fn options_that_nobody_asked_for_are_not_looked_at() {
        let mut octets = built(MessageType::Discover);
        octets.truncate(240);
        octets[0] = 2;
        octets.extend([94, 1, 0]);
        octets.extend([53, 1, 2, 54, 4, 10, 0, 0, 1, 255]);
        let hardware = hardware();
        let sender = Sender { hardware: &hardware, identifier: &[31], host_name: None };
        let answer = Answer::parse(&octets, 0x0102_0304, sender).unwrap();
        assert_eq!((answer.kind, answer.server()), (Kind::Offer, Ok(Ipv4Addr::new(10, 0, 0, 1))));
    }

    #[test]
    fn a_length_beyond_the_end_is_not_followed() {
        let mut octets = built(MessageType::Discover);
        octets.truncate(240);
        octets[0] = 2;
        octets.extend([53, 1, 5, 6, 200, 1, 2]);
        let hardware = hardware();
        let sender = Sender { hardware: &hardware, identifier: &[31], host_name: None };
        let answer = Answer::parse(&octets, 0x0102_0304, sender).unwrap();
        assert_eq!(answer.kind, Kind::Ack);
        assert!(answer.settings().dns_servers.is_empty());
    }

    proptest! {
        #[test]
        fn no_octets_make_the_parser_panic(octets in proptest::collection::vec(any::<u8>(), 0..700)) {
            let hardware = hardware();
            let sender = Sender { hardware: &hardware, identifier: &[31], host_name: None };
            let _ = Answer::parse(&octets, 0x0102_0304, sender);
        }

        #[test]
        fn no_options_make_it_panic(hlen in any::<u8>(), tail in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut octets = built(MessageType::Discover);
            octets.truncate(240);
            octets[0] = 2;
            octets[2] = hlen;
            octets.extend(tail);
            let hardware = hardware();
            let sender = Sender { hardware: &hardware, identifier: &[31], host_name: None };
            if let Ok(answer) = Answer::parse(&octets, 0x0102_0304, sender) {
                let _ = (answer.lease(), answer.settings(), answer.text());
            }
        }
    }
}
