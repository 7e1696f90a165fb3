//! The laboratory of the end-to-end tests: network namespaces with links, NAT routers and bad networks between them, and
//! the real programs that run inside: strongSwan, dnsmasq, Kea, BIRD, tcpdump.
//!
//! A [`Lab`] is one run. It hands out [`Namespace`]s; [`Site`] is the ready-made network that most tests want. Nothing here
//! touches the machine's own network: links are made directly inside the namespaces, and all traffic stays there. When the
//! values are dropped, processes end and namespaces go; what a killed run leaves is swept by the next one.
//!
//! Everything blocks; tests are plain functions. Programs and namespaces need root.

mod bird;
mod capture;
mod dnsmasq;
mod error;
mod kea;
mod lab;
mod netns;
mod pki;
mod process;
mod relay;
pub mod site;
mod swan;
mod swan_config;
mod transfer;
mod uplink;

pub use bird::Bird;
pub use capture::{Capture, tshark};
pub use dnsmasq::{Dnsmasq, DnsmasqConfig};
pub use error::{LabError, Result};
pub use kea::{Kea, KeaConfig};
pub use lab::{Lab, sweep};
pub use netns::Namespace;
pub use pki::{Authority, Credential, KeyKind, Purpose, Request, Validity};
pub use process::{Finished, Process, run, until};
pub use relay::{Conditions, FalseGateway, Forge, LONGEST_QUEUE, Passed, Recorded, Relay, answer_with};
pub use site::{Site, SiteOptions};
pub use swan::{Swan, resident_memory};
pub use swan_config::{
    ALL_ESP_PROPOSALS, ALL_IKE_PROPOSALS, Childless, SwanAuth, SwanClient, SwanConfig, SwanGateway,
};
pub use transfer::{PAGE, Speed, TWENTY_MEGABYTES, TransferServer, download, fetch_page, udp_echo, upload};
pub use uplink::{Lease, Uplink};
