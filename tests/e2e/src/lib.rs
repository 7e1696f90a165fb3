//! End-to-end tests: the built programs in network namespaces, against strongSwan and against the reference gateway.
//!
//! The library is what the tests share: where the programs are ([`Programs`]), a helper with its command line in a
//! namespace ([`Client`]), profiles as text ([`ProfileText`]), and either gateway behind one face ([`Gateway`]). The tests
//! are in `tests/`, one file a subject. They use the programs that `cargo build --workspace --all-targets` left, so build
//! first; `make test` does.

mod boot_clock;
mod client;
mod dhcp;
mod flow;
mod gateway;
mod load;
mod logind;
mod network_state;
mod pings;
mod profile;
mod programs;
mod reference;
mod second;
mod several;
mod standstill;
mod swan_client;

pub use boot_clock::BootClock;
pub use client::{Client, ClientOptions};
pub use dhcp::{DhcpSeen, DhcpSite, FIRST_LEASE, dhcp_in, dhcp_profile, home_with_keys};
pub use flow::{Flow, StateLog};
pub use gateway::{AuthKind, BOTH, Credentials, Gateway, GatewayKind, Offer};
pub use load::{Load, Order, order};
pub use logind::Logind;
pub use network_state::NetworkState;
pub use pings::{BETWEEN, Outcome, Pings};
pub use profile::ProfileText;
pub use programs::Programs;
pub use reference::Reference;
pub use second::{SECOND_V4, second_gateway};
pub use several::{PathSeen, Plan, Several, THREE, bare_site};
pub use standstill::Standstill;
pub use swan_client::OtherClient;

use std::time::Duration;

use anyhow::Result;
pub use ropewalk_lab::Childless;
use ropewalk_lab::Lab;

/// Patience for one thing that should take well under a second on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test's body in a laboratory and prints the end of every log when it fails.
///
/// # Errors
/// The body's own.
pub fn in_lab(body: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    let lab = Lab::new()?;
    let result = body(&lab);
    if result.is_err() {
        eprintln!("{}", lab.logs(80));
    }
    result
}
