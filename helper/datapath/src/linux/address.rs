//! Socket addresses as the kernel wants them.

use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// An address in the kernel's form, made once per egress.
#[derive(Clone, Copy)]
pub(super) struct RawAddress {
    storage: libc::sockaddr_storage,
    len: libc::socklen_t,
}

impl RawAddress {
    /// `address` as a socket of the family of `ipv6_socket` is told it: IPv4 becomes IPv4-mapped on an IPv6 socket.
    pub(super) fn new(address: SocketAddr, ipv6_socket: bool) -> Self {
        let mut raw = Self::empty();
        match address {
            SocketAddr::V4(v4) if !ipv6_socket => {
                let name = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                    sin_zero: [0; 8],
                };
                // SAFETY: sockaddr_storage is large and aligned enough for every address family.
                unsafe { (&raw mut raw.storage).cast::<libc::sockaddr_in>().write(name) };
                raw.len = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            }
            SocketAddr::V4(v4) => {
                return Self::new(SocketAddr::new(IpAddr::V6(v4.ip().to_ipv6_mapped()), v4.port()), true);
            }
            SocketAddr::V6(v6) => {
                let name = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: v6.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                    sin6_scope_id: v6.scope_id(),
                };
                // SAFETY: as above.
                unsafe { (&raw mut raw.storage).cast::<libc::sockaddr_in6>().write(name) };
                raw.len = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
            }
        }
        raw
    }

    /// Room for an address that the kernel writes.
    pub(super) fn empty() -> Self {
        // SAFETY: all zero is a valid sockaddr_storage (AF_UNSPEC).
        let storage = unsafe { mem::zeroed() };
        Self { storage, len: size_of::<libc::sockaddr_storage>() as libc::socklen_t }
    }

    pub(super) fn as_ptr(&self) -> *const libc::sockaddr_storage {
        &raw const self.storage
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut libc::sockaddr_storage {
        &raw mut self.storage
    }

    pub(super) const fn len(&self) -> libc::socklen_t {
        self.len
    }

    /// The address, IPv4-mapped ones as IPv4; `None` for another family.
    pub(super) fn read(&self) -> Option<SocketAddr> {
        match libc::c_int::from(self.storage.ss_family) {
            libc::AF_INET => {
                // SAFETY: the family says that a sockaddr_in was written here.
                let name = unsafe { (&raw const self.storage).cast::<libc::sockaddr_in>().read() };
                let ip = Ipv4Addr::from(name.sin_addr.s_addr.to_ne_bytes());
                Some(SocketAddr::new(ip.into(), u16::from_be(name.sin_port)))
            }
            libc::AF_INET6 => {
                // SAFETY: the family says that a sockaddr_in6 was written here.
                let name = unsafe { (&raw const self.storage).cast::<libc::sockaddr_in6>().read() };
                let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
                let port = u16::from_be(name.sin6_port);
                Some(match ip.to_ipv4_mapped() {
                    Some(v4) => SocketAddr::new(v4.into(), port),
                    None => SocketAddrV6::new(ip, port, 0, name.sin6_scope_id).into(),
                })
            }
            _ => None,
        }
    }
}

impl std::fmt::Debug for RawAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.read())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_kernels_form() {
        for (text, ipv6) in [("192.0.2.1:4500", false), ("192.0.2.1:4500", true), ("[2001:db8::1]:500", true)]
        {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(RawAddress::new(address, ipv6).read(), Some(address));
        }
        assert_eq!(RawAddress::empty().read(), None);
    }
}
