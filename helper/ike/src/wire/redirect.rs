//! The data of REDIRECT and REDIRECTED_FROM (RFC 5685 section 8).
//!
//! ```text
//! | GW Ident Type | GW Ident Len | gateway's identity ... | nonce of the initiator, in IKE_SA_INIT only ... |
//! ```

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::error::WireError;
use crate::wire::notify::{Notify, NotifyType};
use crate::wire::reader::{Reader, len8};

/// Octets of a host name at most (RFC 1035 section 2.3.4).
const MAX_NAME: usize = 253;

/// Another gateway, as its colleague names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum GatewayName {
    /// By address.
    Address(IpAddr),
    /// By a host name: letters, digits, hyphens and dots only.
    Host(String),
}

impl fmt::Display for GatewayName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Host(host) => f.write_str(host),
        }
    }
}

/// A REDIRECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Where to go.
    pub to: GatewayName,
    /// The initiator's nonce, by which it knows that its own request is answered; empty outside IKE_SA_INIT.
    pub nonce: Vec<u8>,
}

impl GatewayName {
    /// The notify REDIRECTED_FROM that names this gateway.
    #[must_use]
    pub fn redirected_from(&self) -> Notify {
        Notify::new(NotifyType::RedirectedFrom, self.octets())
    }

    fn octets(&self) -> Vec<u8> {
        let (ty, name) = match self {
            Self::Address(IpAddr::V4(v4)) => (1, v4.octets().to_vec()),
            Self::Address(IpAddr::V6(v6)) => (2, v6.octets().to_vec()),
            Self::Host(host) => (3, host.as_bytes().to_vec()),
        };
        let mut octets = vec![ty, len8(name.len())];
        octets.extend_from_slice(&name);
        octets
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let malformed = WireError::Malformed { what: "a REDIRECT" };
        let ty = reader.u8()?;
        let length = usize::from(reader.u8()?);
        let name = reader.take(length)?;
        match ty {
            1 => <[u8; 4]>::try_from(name).map(|v4| Self::Address(Ipv4Addr::from(v4).into())),
            2 => <[u8; 16]>::try_from(name).map(|v6| Self::Address(Ipv6Addr::from(v6).into())),
            3 => return host(name).ok_or(malformed),
            _ => return Err(malformed),
        }
        .map_err(|_| malformed)
    }
}

impl Redirect {
    /// The notify.
    #[must_use]
    pub fn notify(&self) -> Notify {
        let mut data = self.to.octets();
        data.extend_from_slice(&self.nonce);
        Notify::new(NotifyType::Redirect, data)
    }

    /// Reads the notify's data.
    ///
    /// # Errors
    /// An unknown kind of name, or one that is none.
    pub fn parse(data: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(data, "a REDIRECT");
        let to = GatewayName::read(&mut reader)?;
        Ok(Self { to, nonce: reader.rest().to_vec() })
    }
}

/// A host name in a form that nothing it is given to can misread.
fn host(octets: &[u8]) -> Option<GatewayName> {
    let allowed = |octet: &u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.');
    let edge = |octet: Option<&u8>| octet.is_some_and(u8::is_ascii_alphanumeric);
    let fits = octets.len() <= MAX_NAME && octets.iter().all(allowed);
    if !fits || !edge(octets.first()) || !edge(octets.last()) {
        return None;
    }
    std::str::from_utf8(octets).ok().map(|host| GatewayName::Host(host.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_all_kinds_are_read_as_written() {
        for to in [
            GatewayName::Address([192, 0, 2, 1].into()),
            GatewayName::Address(Ipv6Addr::LOCALHOST.into()),
            GatewayName::Host("gw2.example.com".to_owned()),
        ] {
            for nonce in [Vec::new(), vec![7; 32]] {
                let redirect = Redirect { to: to.clone(), nonce };
                assert_eq!(Redirect::parse(&redirect.notify().data), Ok(redirect));
            }
        }
    }

    #[test]
    fn what_is_no_host_name_is_refused() {
        for name in ["", "-oProxyCommand=x", "a b", "a;reboot", "$(id)", "gw\n", "gw.", "\u{e9}.example"] {
            let mut data = vec![3, len8(name.len())];
            data.extend_from_slice(name.as_bytes());
            assert_eq!(Redirect::parse(&data), Err(WireError::Malformed { what: "a REDIRECT" }), "{name:?}");
        }
        for data in [&[][..], &[1], &[1, 3, 1, 2, 3], &[2, 4, 1, 2, 3, 4], &[9, 0], &[1, 255, 1]] {
            assert!(Redirect::parse(data).is_err(), "{data:?}");
        }
        assert!(Redirect::parse(&[&[3, 254][..], &[b'a'; 254]].concat()).is_err());
    }
}
