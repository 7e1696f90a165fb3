//! The Configuration payload (RFC 7296 section 3.15, split DNS by RFC 8598).

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::error::WireError;
use crate::wire::reader::{Reader, len16};

/// More attributes than any real gateway sends.
const MAX_ATTRIBUTES: usize = 512;
/// The topmost bit of an attribute's type is reserved.
const TYPE_MASK: u16 = 0x7FFF;

const INTERNAL_IP4_ADDRESS: u16 = 1;
const INTERNAL_IP4_NETMASK: u16 = 2;
const INTERNAL_IP4_DNS: u16 = 3;
const APPLICATION_VERSION: u16 = 7;
const INTERNAL_IP6_ADDRESS: u16 = 8;
const INTERNAL_IP6_DNS: u16 = 10;
const INTERNAL_IP4_SUBNET: u16 = 13;
const INTERNAL_IP6_SUBNET: u16 = 15;
const INTERNAL_DNS_DOMAIN: u16 = 25;

/// What a Configuration payload is: a question or an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConfigType {
    /// CFG_REQUEST, 1.
    Request,
    /// CFG_REPLY, 2.
    Reply,
    /// CFG_SET, 3.
    Set,
    /// CFG_ACK, 4.
    Ack,
    /// Any other number.
    Other(u8),
}

impl From<u8> for ConfigType {
    fn from(number: u8) -> Self {
        match number {
            1 => ConfigType::Request,
            2 => ConfigType::Reply,
            3 => ConfigType::Set,
            4 => ConfigType::Ack,
            other => ConfigType::Other(other),
        }
    }
}

impl From<ConfigType> for u8 {
    fn from(ty: ConfigType) -> u8 {
        match ty {
            ConfigType::Request => 1,
            ConfigType::Reply => 2,
            ConfigType::Set => 3,
            ConfigType::Ack => 4,
            ConfigType::Other(number) => number,
        }
    }
}

/// One attribute. `None` is an empty value, by which a request asks for any.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Attribute {
    /// INTERNAL_IP4_ADDRESS.
    InternalIp4Address(Option<Ipv4Addr>),
    /// INTERNAL_IP4_NETMASK.
    Ip4Netmask(Option<Ipv4Addr>),
    /// INTERNAL_IP4_DNS.
    Ip4Dns(Option<Ipv4Addr>),
    /// INTERNAL_IP6_ADDRESS with the length of its prefix.
    Ip6Address(Option<(Ipv6Addr, u8)>),
    /// INTERNAL_IP6_DNS.
    Ip6Dns(Option<Ipv6Addr>),
    /// INTERNAL_IP4_SUBNET: address and mask.
    Ip4Subnet(Option<(Ipv4Addr, Ipv4Addr)>),
    /// INTERNAL_IP6_SUBNET: address and length of the prefix.
    Ip6Subnet(Option<(Ipv6Addr, u8)>),
    /// INTERNAL_DNS_DOMAIN; empty in a request.
    InternalDnsDomain(String),
    /// APPLICATION_VERSION; empty in a request.
    ApplicationVersion(String),
    /// Anything else, and texts that are none.
    Other {
        /// Its type.
        ty: u16,
        /// Its value.
        value: Vec<u8>,
    },
}

impl Attribute {
    fn parse(ty: u16, value: &[u8]) -> Result<Self, WireError> {
        let attribute = match ty {
            INTERNAL_IP4_ADDRESS => Attribute::InternalIp4Address(ipv4(value)?),
            INTERNAL_IP4_NETMASK => Attribute::Ip4Netmask(ipv4(value)?),
            INTERNAL_IP4_DNS => Attribute::Ip4Dns(ipv4(value)?),
            INTERNAL_IP4_SUBNET => Attribute::Ip4Subnet(ipv4_subnet(value)?),
            INTERNAL_IP6_ADDRESS => Attribute::Ip6Address(ipv6_prefix(value)?),
            INTERNAL_IP6_SUBNET => Attribute::Ip6Subnet(ipv6_prefix(value)?),
            INTERNAL_IP6_DNS => Attribute::Ip6Dns(ipv6(value)?),
            INTERNAL_DNS_DOMAIN => match text(value) {
                Some(domain) if domain.is_ascii() => Attribute::InternalDnsDomain(domain),
                Some(_) | None => Attribute::Other { ty, value: value.to_vec() },
            },
            APPLICATION_VERSION => match text(value) {
                Some(version) => Attribute::ApplicationVersion(version),
                None => Attribute::Other { ty, value: value.to_vec() },
            },
            _ => Attribute::Other { ty, value: value.to_vec() },
        };
        Ok(attribute)
    }

    fn ty(&self) -> u16 {
        match self {
            Attribute::InternalIp4Address(_) => INTERNAL_IP4_ADDRESS,
            Attribute::Ip4Netmask(_) => INTERNAL_IP4_NETMASK,
            Attribute::Ip4Dns(_) => INTERNAL_IP4_DNS,
            Attribute::Ip6Address(_) => INTERNAL_IP6_ADDRESS,
            Attribute::Ip6Dns(_) => INTERNAL_IP6_DNS,
            Attribute::Ip4Subnet(_) => INTERNAL_IP4_SUBNET,
            Attribute::Ip6Subnet(_) => INTERNAL_IP6_SUBNET,
            Attribute::InternalDnsDomain(_) => INTERNAL_DNS_DOMAIN,
            Attribute::ApplicationVersion(_) => APPLICATION_VERSION,
            Attribute::Other { ty, .. } => *ty & TYPE_MASK,
        }
    }

    fn value(&self) -> Vec<u8> {
        match self {
            Attribute::InternalIp4Address(address)
            | Attribute::Ip4Netmask(address)
            | Attribute::Ip4Dns(address) => {
                address.map(|address| address.octets().to_vec()).unwrap_or_default()
            }
            Attribute::Ip4Subnet(subnet) => {
                subnet.map(|(address, mask)| [address.octets(), mask.octets()].concat()).unwrap_or_default()
            }
            Attribute::Ip6Address(prefix) | Attribute::Ip6Subnet(prefix) => {
                let octets =
                    |(address, length): (Ipv6Addr, u8)| [address.octets().as_slice(), &[length]].concat();
                prefix.map(octets).unwrap_or_default()
            }
            Attribute::Ip6Dns(address) => {
                address.map(|address| address.octets().to_vec()).unwrap_or_default()
            }
            Attribute::InternalDnsDomain(text) | Attribute::ApplicationVersion(text) => {
                text.as_bytes().to_vec()
            }
            Attribute::Other { value, .. } => value.clone(),
        }
    }
}

/// A Configuration payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    /// Question or answer.
    pub ty: ConfigType,
    /// The attributes.
    pub attributes: Vec<Attribute>,
}

impl Configuration {
    /// Reads the payload's body.
    ///
    /// # Errors
    /// An attribute's length does not fit its type or the body, or there are more than any real gateway sends.
    pub fn parse(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body, "a Configuration payload");
        let ty = ConfigType::from(reader.u8()?);
        reader.array::<3>()?;
        let mut attributes = Vec::new();
        while !reader.is_empty() {
            if attributes.len() == MAX_ATTRIBUTES {
                return Err(WireError::TooMany { what: "configuration attributes", limit: MAX_ATTRIBUTES });
            }
            let kind = reader.u16()? & TYPE_MASK;
            let length = usize::from(reader.u16()?);
            attributes.push(Attribute::parse(kind, reader.take(length)?)?);
        }
        Ok(Configuration { ty, attributes })
    }

    /// Writes the payload's body.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.ty.into(), 0, 0, 0]);
        for attribute in &self.attributes {
            let value = attribute.value();
            out.extend_from_slice(&attribute.ty().to_be_bytes());
            out.extend_from_slice(&len16(value.len()).to_be_bytes());
            out.extend_from_slice(&value);
        }
    }
}

fn bad_length(value: &[u8]) -> WireError {
    WireError::BadLength { what: "a configuration attribute", length: value.len() }
}

fn ipv4(value: &[u8]) -> Result<Option<Ipv4Addr>, WireError> {
    match value {
        [] => Ok(None),
        &[a, b, c, d] => Ok(Some(Ipv4Addr::new(a, b, c, d))),
        _ => Err(bad_length(value)),
    }
}

fn ipv4_subnet(value: &[u8]) -> Result<Option<(Ipv4Addr, Ipv4Addr)>, WireError> {
    match value {
        [] => Ok(None),
        &[a, b, c, d, e, f, g, h] => Ok(Some((Ipv4Addr::new(a, b, c, d), Ipv4Addr::new(e, f, g, h)))),
        _ => Err(bad_length(value)),
    }
}

fn ipv6(value: &[u8]) -> Result<Option<Ipv6Addr>, WireError> {
    if value.is_empty() {
        return Ok(None);
    }
    let octets: [u8; 16] = value.try_into().map_err(|_| bad_length(value))?;
    Ok(Some(octets.into()))
}

/// An address and the length of its prefix. Some gateways leave the length out: then it is the whole address.
fn ipv6_prefix(value: &[u8]) -> Result<Option<(Ipv6Addr, u8)>, WireError> {
    let Some((octets, rest)) = value.split_first_chunk::<16>() else {
        return if value.is_empty() { Ok(None) } else { Err(bad_length(value)) };
    };
    let length = match rest {
        [] => 128,
        [length @ 0..=128] => *length,
        [_] => return Err(WireError::Malformed { what: "the prefix length of a configuration attribute" }),
        _ => return Err(bad_length(value)),
    };
    Ok(Some((Ipv6Addr::from(*octets), length)))
}

fn text(value: &[u8]) -> Option<String> {
    std::str::from_utf8(value).ok().map(str::to_owned)
}
