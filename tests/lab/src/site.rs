//! The network that most tests run in: a client at home behind a NAT router, a gateway in another network, and a server
//! with pages, transfers and names behind that gateway.
//!
//! ```text
//!  client                 router                    gateway                server
//!  10.77.1.2      10.77.1.1 | 198.51.100.1   198.51.100.2 | 10.77.50.1   10.77.50.2
//!  fd77:1::2      fd77:1::1 | 2001:db8:64::1  2001:db8:64::2 | fd77:50::1  fd77:50::2
//!        eth0 ------- home | outside --------------- eth0 | lan0 -------- eth0
//! ```
//!
//! The server also has an address that stands for the internet beyond the gateway ([`BEYOND_GATEWAY`]), and the router one
//! that stands for the internet reached directly ([`DIRECT`]): the one can be reached through a full tunnel only, the other
//! only past the tunnel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::{
    dnsmasq::{Dnsmasq, DnsmasqConfig},
    error::Result,
    lab::Lab,
    netns::Namespace,
    transfer::TransferServer,
};

/// The client's own address at home.
pub const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);
/// The router's address on the client's side, also where a relay may listen.
pub const ROUTER_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 1);
/// The router's address on the gateway's side: what the gateway sees of a client behind the NAT.
pub const OUTSIDE_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The gateway's address.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// The gateway's IPv6 address.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x64, 0, 0, 0, 0, 2);
/// An address of the gateway's network that nobody has.
pub const NOBODY_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 99);
/// The gateway's address in the network behind it.
pub const GATEWAY_LAN_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 50, 1);
/// The server behind the gateway.
pub const SERVER_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 50, 2);
/// The server's IPv6 address.
pub const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0x50, 0, 0, 0, 0, 0, 2);
/// An internet address that is reached through the gateway only.
pub const BEYOND_GATEWAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);
/// An internet address that is reached past the gateway only.
pub const DIRECT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);
/// The network behind the gateway.
pub const LAN_V4: &str = "10.77.50.0/24";
/// The IPv6 network behind the gateway.
pub const LAN_V6: &str = "fd77:50::/64";
/// Inner addresses for clients.
pub const POOL_V4: &str = "10.77.99.0/24";
/// Inner IPv6 addresses for clients.
pub const POOL_V6: &str = "fd77:99::/64";
/// Port of the transfer and page server.
pub const TRANSFER_PORT: u16 = 8080;
/// A name that only the DNS server behind the gateway knows.
pub const INTRANET: &str = "intranet.corp.test";
/// What the client's `/etc/resolv.conf` holds before it connects: a server that does not exist.
pub const RESOLV_CONF: &str = "# the network at home\nnameserver 10.77.1.53\n";

/// How the network differs from the usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SiteOptions {
    /// Hide the client behind the router's address, both families.
    pub nat: bool,
    /// The client's outer network has IPv4.
    pub v4: bool,
    /// The client's outer network has IPv6.
    pub v6: bool,
}

impl Default for SiteOptions {
    fn default() -> Self {
        Self { nat: true, v4: true, v6: true }
    }
}

/// The network, ready; everything goes when it is dropped.
#[derive(Debug)]
pub struct Site {
    /// Names and DHCP behind the gateway.
    pub dns: Dnsmasq,
    /// Transfers and pages behind the gateway.
    pub transfer: TransferServer,
    /// The client's namespace.
    pub client: Namespace,
    /// The router's namespace.
    pub router: Namespace,
    /// The gateway's namespace.
    pub gateway: Namespace,
    /// The server's namespace.
    pub server: Namespace,
    /// The laboratory.
    pub lab: Lab,
}

impl Site {
    /// Builds it.
    ///
    /// # Errors
    /// When a part cannot be made.
    pub fn new(lab: &Lab, options: SiteOptions) -> Result<Self> {
        let client = lab.namespace("client")?;
        let router = lab.namespace("router")?;
        let gateway = lab.namespace("gateway")?;
        let server = lab.namespace("server")?;

        router.link("home", &client, "eth0")?;
        router.link("outside", &gateway, "eth0")?;
        gateway.link("lan0", &server, "eth0")?;

        if options.v4 {
            client.address("eth0", &["10.77.1.2/24"])?;
            client.ip("route add default via 10.77.1.1")?;
        }
        if options.v6 {
            client.address("eth0", &["fd77:1::2/64"])?;
            client.ip("route add ::/0 via fd77:1::1")?;
        }
        router.address("home", &["10.77.1.1/24", "fd77:1::1/64"])?;
        router.address("outside", &["198.51.100.1/24", "2001:db8:64::1/64"])?;
        router.address("lo", &["192.0.2.80/32"])?;
        gateway.address("eth0", &["198.51.100.2/24", "2001:db8:64::2/64"])?;
        gateway.address("lan0", &["10.77.50.1/24", "fd77:50::1/64"])?;
        gateway.ip("route add default via 198.51.100.1\nroute add ::/0 via 2001:db8:64::1\n\
             route add 203.0.113.80/32 via 10.77.50.2")?;
        server.address("eth0", &["10.77.50.2/24", "fd77:50::2/64"])?;
        server.address("lo", &["203.0.113.80/32"])?;
        server.ip("route add default via 10.77.50.1\nroute add ::/0 via fd77:50::1")?;
        router.forward()?;
        gateway.forward()?;
        if options.nat {
            router.masquerade("outside")?;
        }
        client.resolv_conf(RESOLV_CONF)?;

        let transfer = TransferServer::start(&server, TRANSFER_PORT)?;
        let names = vec![
            (INTRANET.to_owned(), IpAddr::V4(SERVER_V4)),
            ("six.corp.test".to_owned(), IpAddr::V6(SERVER_V6)),
        ];
        let dns = Dnsmasq::start(&server, &DnsmasqConfig { names, ..DnsmasqConfig::default() })?;
        Ok(Self { dns, transfer, client, router, gateway, server, lab: lab.clone() })
    }

    /// Where the transfer server listens.
    #[must_use]
    pub fn transfer_v4() -> SocketAddr {
        SocketAddr::new(SERVER_V4.into(), TRANSFER_PORT)
    }

    /// Where the transfer server listens, IPv6.
    #[must_use]
    pub fn transfer_v6() -> SocketAddr {
        SocketAddr::new(SERVER_V6.into(), TRANSFER_PORT)
    }
}
