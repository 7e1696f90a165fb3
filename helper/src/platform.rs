//! What all connections share of the operating system: its networks, and what was changed about them.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::sleep::SleepWatch;
use ropewalk_net::{Monitor, NetError, Network, NetworkSettings};

/// The operating system, opened once.
#[derive(Debug)]
pub struct Platform {
    /// Addresses, routes and DNS of tunnels.
    pub network: Network,
    /// The interfaces.
    pub monitor: Monitor,
    /// When the computer sleeps.
    pub sleep: SleepWatch,
    /// The kernel's numbers of tunnels that are interfaces like any other (RFC 3884).
    routed: Mutex<BTreeSet<u32>>,
}

impl Platform {
    /// Connects to the operating system and undoes what a killed process left behind.
    ///
    /// # Errors
    /// The system refuses, or this platform is not supported yet.
    pub async fn open(state_dir: &Path) -> Result<Arc<Self>, NetError> {
        let network = Network::open(NetworkSettings::new(state_dir)).await?;
        let swept = network.sweep().await?;
        if !swept.devices.is_empty() || swept.dns_restored {
            tracing::info!(devices = ?swept.devices, dns = swept.dns_restored, "removed what a killed helper left");
        }
        let monitor = Monitor::start().await?;
        Ok(Arc::new(Self { network, monitor, sleep: SleepWatch::start(), routed: Mutex::default() }))
    }

    /// This device is an interface like any other from now on, or not any more: routes into it stand where everybody's do.
    pub fn set_routed(&self, device: u32, routed: bool) {
        let mut known = self.routed.lock().unwrap_or_else(PoisonError::into_inner);
        if routed {
            known.insert(device);
        } else {
            known.remove(&device);
        }
    }

    /// Whether what goes by this interface would go into one of our tunnels.
    #[must_use]
    pub fn is_routed(&self, device: u32) -> bool {
        self.routed.lock().unwrap_or_else(PoisonError::into_inner).contains(&device)
    }
}
