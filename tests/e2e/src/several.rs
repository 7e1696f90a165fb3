//! A client with several uplinks, each behind a NAT with a relay of its own, and its connection to a gateway.

use std::{
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ropewalk_lab::{Lab, Lease, Namespace, Site, SiteOptions, Uplink, site::GATEWAY_V4};
use serde_json::Value;

use crate::{AuthKind, Client, Credentials, Gateway, GatewayKind, Offer, PATIENCE, ProfileText, StateLog};

/// Between two looks at the status: each is a program that takes its turn from those that are measured.
const LOOK: Duration = Duration::from_millis(100);

/// Wi-Fi, Ethernet and mobile, each with other addresses.
pub const THREE: [(&str, Lease<'static>); 3] = [
    (
        "eth0",
        Lease { router: &["10.77.1.1/24"], client: &["10.77.1.2/24"], via: &["10.77.1.1"], metric: 100 },
    ),
    (
        "wlan0",
        Lease { router: &["10.77.2.1/24"], client: &["10.77.2.2/24"], via: &["10.77.2.1"], metric: 600 },
    ),
    (
        "wwan0",
        Lease { router: &["10.77.3.1/24"], client: &["10.77.3.2/24"], via: &["10.77.3.1"], metric: 700 },
    ),
];

/// What is to be set up.
#[derive(Debug, Clone)]
pub struct Plan<'a> {
    /// Which gateway.
    pub which: GatewayKind,
    /// The client's networks.
    pub uplinks: Vec<(&'a str, Lease<'a>)>,
    /// Addresses of the gateway, the first one in the profile.
    pub gateways: Vec<IpAddr>,
    /// What the gateway offers.
    pub offer: Offer,
    /// Lines of `[paths]`.
    pub paths: String,
    /// Lines of `[timing]`.
    pub timing: String,
    /// Kernel parameters of the client's namespace, set before it has a network.
    pub kernel: Vec<(&'a str, &'a str)>,
}

impl Plan<'_> {
    /// The first so many of [`THREE`] networks, and this policy.
    #[must_use]
    pub fn new(which: GatewayKind, count: usize, policy: &str) -> Self {
        Self {
            which,
            uplinks: THREE.into_iter().take(count).collect(),
            gateways: vec![GATEWAY_V4.into()],
            offer: Offer::new(AuthKind::Psk),
            paths: format!("policy = \"{policy}\"\n"),
            timing: "dpd = 30\n".to_owned(),
            kernel: Vec::new(),
        }
    }
}

/// A path, as the status shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathSeen {
    /// Its interface.
    pub interface: String,
    /// What it does.
    pub state: String,
    /// Our address and port.
    pub local: String,
    /// The gateway's address and port.
    pub remote: String,
    /// Its IKE_SA.
    pub spi_i: String,
}

impl PathSeen {
    /// It carries, or could.
    #[must_use]
    pub fn works(&self) -> bool {
        self.state == "active" || self.state == "standby"
    }
}

/// A client with several uplinks, connected.
#[derive(Debug)]
pub struct Several {
    /// The client.
    pub client: Client,
    /// The gateway.
    pub gateway: Gateway,
    /// The states that were shown from the beginning.
    pub states: StateLog,
    /// The networks, in the order of the plan.
    pub uplinks: Vec<Uplink>,
    /// What the gateway and the client know of each other.
    pub credentials: Credentials,
    /// The rest of the network.
    pub site: Site,
}

impl Several {
    /// Sets it up and connects.
    ///
    /// # Errors
    /// When a part cannot be made, or the client does not connect.
    pub fn up(lab: &Lab, plan: &Plan) -> Result<Self> {
        let site = bare_site(lab)?;
        let extra: Vec<String> = plan.gateways.iter().filter_map(|address| further(*address)).collect();
        site.gateway.address("eth0", &extra.iter().map(String::as_str).collect::<Vec<_>>())?;
        for (key, value) in &plan.kernel {
            site.client.sysctl(key, value)?;
        }
        let mut uplinks = Vec::new();
        for (number, (interface, lease)) in (1..).zip(&plan.uplinks) {
            uplinks.push(Uplink::new(&site, &site.client, (number, interface), lease, &plan.gateways)?);
        }
        let credentials = Credentials::new(AuthKind::Psk)?;
        let gateway = Gateway::start(plan.which, &site, &plan.offer, &credentials)?;
        let client = Client::start(&site.client)?;
        let first = plan.gateways.first().context("a gateway address")?;
        let mut profile = ProfileText::new(AuthKind::Psk, &credentials, &first.to_string());
        profile.timing = format!("{}\n[paths]\n{}", plan.timing, plan.paths);
        client.connect(&profile, None)?;
        let states = StateLog::watch(&client, "states")?;
        Ok(Self { client, gateway, states, uplinks, credentials, site })
    }

    /// No packet overtakes another one on its way through the laboratory's own cables: [`Namespace::one_queue`] everywhere.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn one_queue(&self) -> Result<()> {
        let Site { client, router, gateway, server, .. } = &self.site;
        let routers = self.uplinks.iter().map(|uplink| &uplink.router);
        let mut all = [client, router, gateway, server].into_iter().chain(routers);
        Ok(all.try_for_each(Namespace::one_queue)?)
    }

    /// The network of that interface.
    ///
    /// # Errors
    /// When there is none.
    pub fn uplink(&self, interface: &str) -> Result<&Uplink> {
        let found = self.uplinks.iter().find(|uplink| uplink.interface == interface);
        found.with_context(|| format!("no uplink {interface}"))
    }

    /// The paths as they are shown, the one that carries first.
    ///
    /// # Errors
    /// When the helper does not answer.
    pub fn paths(&self) -> Result<Vec<PathSeen>> {
        let text =
            |path: &Value, key: &str| path.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let paths = self.client.status_at("/paths")?;
        let paths = paths.as_array().context("paths are a list")?;
        let seen = |path| PathSeen {
            interface: text(path, "interface"),
            state: text(path, "state"),
            local: text(path, "local"),
            remote: text(path, "remote"),
            spi_i: text(path, "spi_i"),
        };
        Ok(paths.iter().map(seen).collect())
    }

    /// Waits until the paths are as wanted.
    ///
    /// # Errors
    /// When they do not become so.
    pub fn wait(&self, what: &str, limit: Duration, wanted: impl Fn(&[PathSeen]) -> bool) -> Result<()> {
        let end = Instant::now() + limit;
        loop {
            let paths = self.paths()?;
            if wanted(&paths) {
                return Ok(());
            }
            ensure!(Instant::now() < end, "{what}: there is {paths:#?}");
            thread::sleep(LOOK);
        }
    }

    /// Waits until these are the interfaces that carry, and those that stand by.
    ///
    /// # Errors
    /// When they do not become so.
    pub fn settles(&self, active: &[&str], standby: &[&str]) -> Result<()> {
        let mut wanted: Vec<(&str, &str)> = Vec::new();
        for (interfaces, state) in [(active, "active"), (standby, "standby")] {
            wanted.extend(interfaces.iter().map(|name| (*name, state)));
        }
        wanted.sort_unstable();
        self.wait(&format!("wanted {wanted:?}"), PATIENCE, |paths| {
            let working = paths.iter().filter(|path| path.works());
            let mut working: Vec<(&str, &str)> =
                working.map(|path| (path.interface.as_str(), path.state.as_str())).collect();
            working.sort_unstable();
            working == wanted
        })
    }

    /// Waits until so many paths work.
    ///
    /// # Errors
    /// When they do not.
    pub fn all_work(&self, count: usize, limit: Duration) -> Result<()> {
        self.wait(&format!("{count} working paths"), limit, |paths| {
            paths.iter().filter(|path| path.works()).count() == count
        })
    }

    /// The path that carries.
    ///
    /// # Errors
    /// When none does.
    pub fn carrying(&self) -> Result<PathSeen> {
        let paths = self.paths()?;
        paths.into_iter().find(|path| path.state == "active").context("no path carries")
    }

    /// The connection has stood all the time, as one login.
    ///
    /// # Errors
    /// When it has not.
    pub fn never_fell(&self) -> Result<()> {
        ensure!(self.states.states()? == ["connected"], "{:?}", self.states.states()?);
        ensure!(self.gateway.sessions()? == 1, "{} sessions", self.gateway.sessions()?);
        Ok(())
    }
}

/// A site whose client has no network yet.
///
/// # Errors
/// When a part cannot be made.
pub fn bare_site(lab: &Lab) -> Result<Site> {
    let site = Site::new(lab, SiteOptions { nat: false, v4: false, v6: false })?;
    site.client.ip("link del eth0")?;
    Ok(site)
}

/// Addresses that the site's gateway does not have by itself.
fn further(address: IpAddr) -> Option<String> {
    let own = address == IpAddr::from(GATEWAY_V4) || address.is_ipv6();
    (!own).then(|| format!("{address}/24"))
}
