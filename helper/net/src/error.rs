//! Everything that can go wrong between us and the operating system, in words that help.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

/// An operation on the operating system's network settings that did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// Not written for this platform yet.
    #[error("{what} is not supported on this platform yet ({platform})")]
    Unsupported {
        /// What was asked for.
        what: &'static str,
        /// The platform's name.
        platform: &'static str,
    },
    /// The process lacks the privilege (CAP_NET_ADMIN, CAP_NET_RAW).
    #[error("no permission to {action}: the helper must run as root")]
    NotPermitted {
        /// What was attempted.
        action: String,
    },
    /// A system call failed.
    #[error("{action}: {source}")]
    Io {
        /// What was attempted.
        action: String,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The kernel's routing interface refused a request.
    #[error("{action}: {reason}")]
    Netlink {
        /// What was attempted.
        action: String,
        /// The kernel's answer.
        reason: String,
    },
    /// No interface of that name or index.
    #[error("there is no network interface {name}")]
    NoSuchInterface {
        /// Name, or index in digits.
        name: String,
    },
    /// A device of that exact name exists already.
    #[error("a network interface {name} exists already")]
    DeviceExists {
        /// The name.
        name: String,
    },
    /// A name the kernel would not take (empty, too long, a slash or white space in it).
    #[error("{name:?} is not a valid interface name")]
    InvalidInterfaceName {
        /// The name.
        name: String,
    },
    /// The address inside the tunnel is in use on the local network, so that replies could not be told apart.
    #[error("the tunnel's address {inner} collides with {subnet} on {interface}")]
    AddressConflict {
        /// The address that was granted.
        inner: IpAddr,
        /// The local interface that has the same address or subnet.
        interface: String,
        /// The local address and its subnet.
        subnet: IpNet,
    },
    /// The tunnel has an IPv6 address but IPv6 is switched off in this system.
    #[error("the gateway granted the IPv6 address {address}, but IPv6 is switched off on this computer")]
    Ipv6Disabled {
        /// The address that was granted.
        address: IpAddr,
    },
    /// A configuration that contradicts itself.
    #[error("the tunnel's settings make no sense: {reason}")]
    InvalidConfig {
        /// What is wrong.
        reason: String,
    },
    /// A domain that is not a domain name; it came from the gateway or the profile and is not passed on.
    #[error("{domain:?} is not a valid domain name")]
    InvalidDomain {
        /// The text as received.
        domain: String,
    },
    /// As many tunnels as there are routing tables set aside are up.
    #[error("too many connections are up at once (at most {limit})")]
    TooManyTunnels {
        /// The limit.
        limit: usize,
    },
    /// No route to the destination.
    #[error("no route to {destination}")]
    NoRoute {
        /// The destination.
        destination: IpAddr,
    },
    /// The DNS manager refused.
    #[error("setting the name servers through {manager}: {reason}")]
    Dns {
        /// Which one.
        manager: crate::DnsManager,
        /// Its answer.
        reason: String,
    },
    /// The record of what was changed cannot be read: nothing is undone by guesswork.
    #[error("the record of network changes {} cannot be used: {reason}", path.display())]
    Journal {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

#[cfg(target_os = "linux")]
impl NetError {
    /// A failed system call, told apart by whether privilege was what lacked.
    pub(crate) fn io(action: impl Into<String>, source: std::io::Error) -> Self {
        let action = action.into();
        if source.kind() == std::io::ErrorKind::PermissionDenied {
            NetError::NotPermitted { action }
        } else {
            NetError::Io { action, source }
        }
    }
}
