//! Linux: netlink for links, addresses, routes and rules, D-Bus for DNS, the `tun` driver.

mod socket;
mod tun;

pub use socket::{open_path_socket, send_fragmentable};
pub use tun::TunDevice;

mod pending {
    #![allow(dead_code)]
    crate::unsupported::unsupported_platform!("Linux");
}
pub use pending::{Monitor, Network};
