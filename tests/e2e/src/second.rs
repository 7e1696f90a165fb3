//! Another gateway's place in the network, with a way of its own to the server's address.

use std::net::Ipv4Addr;

use anyhow::Result;
use ropewalk_lab::{Namespace, Site, site::SERVER_V4};

/// The second gateway's address.
pub const SECOND_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 2, 2);

/// Makes its namespace beside the site's gateway. Whoever asks for the server through it is answered by itself, so that the
/// same ping works through either.
///
/// # Errors
/// When a part cannot be made.
pub fn second_gateway(site: &Site) -> Result<Namespace> {
    let gateway = site.lab.namespace("gateway2")?;
    site.router.link("outside2", &gateway, "eth0")?;
    site.router.address("outside2", &["198.18.2.1/24"])?;
    gateway.address("eth0", &[&format!("{SECOND_V4}/24")])?;
    gateway.address("lo", &[&format!("{SERVER_V4}/32")])?;
    gateway.ip("route add default via 198.18.2.1")?;
    gateway.forward()?;
    Ok(gateway)
}
