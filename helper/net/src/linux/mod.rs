//! Linux: netlink for links, addresses, routes and rules, D-Bus for DNS, the `tun` driver.

mod dns;
mod journal;
mod metered;
mod monitor;
mod netlink;
mod network;
mod next_hops;
mod plan;
mod socket;
mod sysctl;
mod tun;

pub use monitor::Monitor;
pub use network::Network;
pub use next_hops::NextHops;
pub use socket::{open_path_socket, send_fragmentable};
pub use tun::TunDevice;
