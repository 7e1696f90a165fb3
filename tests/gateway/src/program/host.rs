//! The TUN device and what the system needs to forward between it and the networks behind the gateway.
//!
//! The main device has the first address of each pool, with the pool's prefix, so the route to the clients comes by itself. All
//! of it goes with the device; the forwarding switches are put back. Each client that is a neighbour (RFC 3884) has a device
//! of its own, with the addresses of its link: what goes there is the business of the routing table.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use ipnet::IpNet;
use ropewalk_gateway::leases::gateway_address;
use ropewalk_net::{TunDevice, TunRequest};
use rtnetlink::LinkUnspec;

use super::config::Config;

/// The device and the switches that were changed.
#[derive(Debug)]
pub struct Host {
    device: TunDevice,
    /// The devices of neighbours, by the clients' names.
    links: Vec<(String, TunDevice)>,
    switches: Vec<(PathBuf, String)>,
}

impl Host {
    /// Makes the device, gives it its addresses, and switches forwarding on.
    ///
    /// # Errors
    /// The system refuses.
    pub fn set_up(config: &Config) -> anyhow::Result<Self> {
        let tunnel = &config.tunnel;
        let request =
            TunRequest { name: tunnel.device.clone(), mtu: tunnel.mtu.into(), offloads: tunnel.offloads };
        let device = TunDevice::create(&request).context("create the tunnel device")?;
        let mut host = Self { device, links: Vec::new(), switches: Vec::new() };
        let name = host.device.name();
        // Neighbour and router discovery have no place in the tunnel.
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/addr_gen_mode"), "1");
        let addresses: Vec<IpNet> = config
            .pools
            .iter()
            .filter_map(|pool| IpNet::new(gateway_address(pool)?, pool.prefix_len()).ok())
            .collect();
        configure(host.device.index(), tunnel.mtu.into(), &addresses)?;
        tracing::info!(device = name, ?addresses, "tunnel device");
        for link in &config.link {
            let request = TunRequest { name: link.device.clone(), ..request.clone() };
            let device = TunDevice::create(&request);
            let device = device.with_context(|| format!("create the interface {}", link.device))?;
            let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{}/accept_ra", device.name()), "0");
            configure(device.index(), tunnel.mtu.into(), &link.addresses)?;
            tracing::info!(device = device.name(), client = link.client, addresses = ?link.addresses, "link");
            host.links.push((link.client.clone(), device));
        }
        if tunnel.forward {
            for family in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                host.switch_on(PathBuf::from("/proc/sys/net").join(family))?;
            }
        }
        Ok(host)
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &TunDevice {
        &self.device
    }

    /// The devices of neighbours, by the clients' names.
    #[must_use]
    pub fn links(&self) -> &[(String, TunDevice)] {
        &self.links
    }

    fn switch_on(&mut self, path: PathBuf) -> anyhow::Result<()> {
        // A system without IPv6 has no such switch.
        let Ok(was) = fs::read_to_string(&path) else { return Ok(()) };
        if was.trim() == "0" {
            fs::write(&path, "1").with_context(|| format!("switch on {}", path.display()))?;
            self.switches.push((path, was));
        }
        Ok(())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for (path, was) in &self.switches {
            if let Err(error) = fs::write(path, was) {
                tracing::warn!(path = %path.display(), %error, "a switch cannot be put back");
            }
        }
    }
}

/// A moment of netlink; nothing else in this program is asynchronous.
fn configure(index: u32, mtu: u32, addresses: &[IpNet]) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().context("talk to the kernel")?;
        let task = tokio::spawn(connection);
        for net in addresses {
            let added = handle.address().add(index, net.addr(), net.prefix_len()).execute().await;
            added.with_context(|| format!("set the address {net}"))?;
        }
        let up = LinkUnspec::new_with_index(index).mtu(mtu).up().build();
        handle.link().set(up).execute().await.context("bring the tunnel device up")?;
        task.abort();
        Ok(())
    })
}
