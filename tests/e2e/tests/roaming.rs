//! A client that moves, while a TCP connection through the tunnel goes on and the state is watched: in the manner of
//! strongSwan's own scenarios `mobike`, `mobike-virtual-ip`, `mobike-virtual-ip-nat` and `mobike-nat-mappings`, and what a
//! laptop does besides.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use ropewalk_e2e::{
    AuthKind, BOTH, Client, Credentials, Flow, Gateway, GatewayKind, NetworkState, Offer, PATIENCE,
    ProfileText, StateLog, in_lab,
};
use ropewalk_lab::{
    Lab, Site, SiteOptions,
    site::{GATEWAY_V4, GATEWAY_V6},
    until,
};

/// What a user may notice of a move on a machine that is busy with other tests.
const MOVE: Duration = Duration::from_secs(5);
/// No state is shown for longer after it has ceased to be true.
const LIE: Duration = Duration::from_secs(2);
/// For the machine's own slowness when a [`LIE`] is measured through two programs.
const SLACK: Duration = Duration::from_millis(1500);

/// A connection that stands, with something going on in it.
struct Up {
    client: Client,
    gateway: Gateway,
    site: Site,
    states: StateLog,
    flow: Flow,
    spi: serde_json::Value,
    inner: serde_json::Value,
}

struct Wanted<'a> {
    which: GatewayKind,
    options: SiteOptions,
    timing: &'a str,
    offer: Offer,
}

impl Wanted<'_> {
    fn of(which: GatewayKind) -> Self {
        let options = SiteOptions { v6: false, ..SiteOptions::default() };
        // One path: several are another matter.
        let timing = "dpd = 30\n[paths]\nmultipath = false\n";
        Self { which, options, timing, offer: Offer::new(AuthKind::Psk) }
    }
}

fn up(lab: &Lab, wanted: &Wanted) -> Result<Up> {
    let site = Site::new(lab, wanted.options)?;
    // A second network at the same router, at first only an interface.
    site.router.link("cafe", &site.client, "wlan0")?;
    site.router.address("cafe", &["10.77.2.1/24", "fd77:2::1/64"])?;
    site.client.address("wlan0", &["10.77.2.2/24"])?;
    let credentials = Credentials::new(AuthKind::Psk)?;
    let gateway = Gateway::start(wanted.which, &site, &wanted.offer, &credentials)?;
    let client = Client::start(&site.client)?;
    let mut profile = ProfileText::new(AuthKind::Psk, &credentials, &GATEWAY_V4.to_string());
    profile.timing = wanted.timing.to_owned();
    client.connect(&profile, None)?;
    let states = StateLog::watch(&client, "states")?;
    let flow = Flow::open(&site)?;
    let (spi, inner) = (client.status_at("/ike/0/spi_i")?, client.status_at("/addresses")?);
    Ok(Up { client, gateway, site, states, flow, spi, inner })
}

impl Up {
    /// The same IKE_SA and inner address, carried from this interface and address; the TCP connection goes on.
    fn moved_to(&self, interface: &str, address: &str) -> Result<()> {
        let began = Instant::now();
        self.flow.goes_on(MOVE)?;
        until("the path to be shown", MOVE, || {
            let local = self.client.status_at("/paths/0/local").ok()?;
            local.as_str()?.starts_with(address).then_some(())
        })?;
        ensure!(began.elapsed() <= MOVE, "it took {:?}", began.elapsed());
        ensure!(self.client.status_at("/paths/0/interface")? == interface);
        ensure!(self.client.status_at("/ike/0/spi_i")? == self.spi, "another IKE_SA");
        ensure!(self.client.status_at("/addresses")? == self.inner, "another inner address");
        ensure!(self.client.state()? == "connected");
        Ok(())
    }

    fn states(&self) -> Result<Vec<String>> {
        self.states.states()
    }
}

#[test]
fn when_the_default_route_moves_the_connection_follows_and_nobody_notices() -> Result<()> {
    for which in BOTH {
        in_lab(|lab| {
            let up = up(lab, &Wanted::of(which))?;
            up.site.client.ip("route replace default via 10.77.2.1 dev wlan0")?;
            up.moved_to("wlan0", "10.77.2.2:")?;
            up.site.client.ip("route replace default via 10.77.1.1 dev eth0")?;
            up.moved_to("eth0", "10.77.1.2:")?;
            ensure!(up.states()? == ["connected"], "{:?}", up.states()?);
            ensure!(up.gateway.sessions()? == 1);
            // The old path worked all the time, so nothing needed to stop.
            let longest = up.flow.close()?;
            ensure!(longest < Duration::from_secs(2), "TCP stood still for {longest:?}");
            up.client.disconnect()
        })?;
    }
    Ok(())
}

#[test]
fn when_the_interface_goes_another_takes_over_and_tcp_goes_on() -> Result<()> {
    for which in BOTH {
        in_lab(|lab| {
            let up = up(lab, &Wanted::of(which))?;
            up.site.client.ip("route add default via 10.77.2.1 dev wlan0 metric 600")?;
            up.site.client.ip("link set eth0 down")?;
            up.moved_to("wlan0", "10.77.2.2:")?;
            ensure!(up.gateway.sessions()? == 1);
            up.flow.close()?;
            up.client.disconnect()
        })?;
    }
    Ok(())
}

#[test]
fn another_address_on_the_same_interface_is_moved_to() -> Result<()> {
    for (which, nat) in [(GatewayKind::StrongSwan, true), (GatewayKind::Reference, false)] {
        in_lab(|lab| {
            let mut wanted = Wanted::of(which);
            wanted.options.nat = nat;
            let up = up(lab, &wanted)?;
            ensure!(up.client.status_at("/ike/0/nat")? == nat);
            up.site.client.ip("addr del 10.77.1.2/24 dev eth0\naddr add 10.77.1.7/24 dev eth0\n\
                 route add default via 10.77.1.1")?;
            up.moved_to("eth0", "10.77.1.7:")?;
            up.flow.close()?;
            up.client.disconnect()
        })?;
    }
    Ok(())
}

#[test]
fn without_a_network_that_is_said_at_once_and_when_it_comes_back_all_goes_on() -> Result<()> {
    for (which, mobike) in
        [(GatewayKind::StrongSwan, true), (GatewayKind::Reference, true), (GatewayKind::StrongSwan, false)]
    {
        in_lab(|lab| {
            let mut wanted = Wanted::of(which);
            if !mobike {
                wanted.timing = "dpd = 30\n[paths]\nmobike = false\n";
            }
            let up = up(lab, &wanted)?;
            ensure!(up.client.status_at("/features/mobike")? == mobike);
            up.site.client.ip("link set eth0 down")?;
            let told = up.states.reaches("reconnecting", "no network", LIE + SLACK)?;
            ensure!(told <= LIE + SLACK, "it said so after {told:?}");
            thread::sleep(Duration::from_secs(2));
            ensure!(up.client.state()? == "reconnecting");
            ensure!(up.client.status_at("/addresses")? == up.inner, "the device keeps its address");
            up.site.client.ip("link set eth0 up\nroute add default via 10.77.1.1")?;
            up.states.reaches("connected", "", MOVE)?;
            ensure!(up.client.status_at("/addresses")? == up.inner, "another inner address");
            let same = up.client.status_at("/ike/0/spi_i")? == up.spi;
            ensure!(same == mobike, "MOBIKE keeps the IKE_SA, without it there is another one");
            // TCP waits longer and longer between its tries.
            up.flow.goes_on(PATIENCE)?;
            ensure!(up.states()? == ["connected", "reconnecting", "connected"], "{:?}", up.states()?);
            ensure!(up.gateway.sessions()? == 1, "the old IKE_SA is gone");
            up.flow.close()?;
            up.client.disconnect()
        })?;
    }
    Ok(())
}

#[test]
fn a_gateway_without_mobike_is_entered_again_from_the_new_network_with_the_same_inner_address() -> Result<()>
{
    for which in BOTH {
        in_lab(|lab| {
            let mut wanted = Wanted::of(which);
            wanted.timing = "dpd = 30\n[paths]\nmobike = false\n";
            let up = up(lab, &wanted)?;
            up.site.client.ip("route add default via 10.77.2.1 dev wlan0 metric 600")?;
            up.site.client.ip("link set eth0 down")?;
            let again = ["connected", "reconnecting", "connected"];
            until("the connection to be there again", MOVE, || (up.states().ok()? == again).then_some(()))?;
            ensure!(up.client.status_at("/addresses")? == up.inner, "another inner address");
            ensure!(up.client.status_at("/ike/0/spi_i")? != up.spi);
            up.flow.goes_on(PATIENCE)?;
            ensure!(up.gateway.sessions()? == 1, "the old IKE_SA is gone");
            up.flow.close()?;
            up.client.disconnect()
        })?;
    }
    Ok(())
}

#[test]
fn when_the_nat_takes_another_mapping_the_quiet_connection_is_found_again() -> Result<()> {
    for which in BOTH {
        in_lab(|lab| {
            let mut wanted = Wanted::of(which);
            wanted.timing = "dpd = 2\n";
            let up = up(lab, &wanted)?;
            up.flow.close()?;
            thread::sleep(Duration::from_secs(3));
            // A device that goes down takes its masqueraded connections with it; the new ones get other ports.
            up.site.router.nft(
                "table ip moved {\n chain post {\n  type nat hook postrouting priority 90;\n  \
                 oifname \"outside\" meta l4proto udp masquerade to :61000-61999\n }\n}\n",
            )?;
            up.site.router.ip("link set outside down\nlink set outside up")?;
            // From behind the gateway: only a gateway that knows the new mapping reaches the client.
            thread::sleep(Duration::from_secs(6));
            let inner = up.inner.pointer("/0").and_then(|net| net.as_str()?.split('/').next()).unwrap_or("");
            ensure!(up.site.server.ping(inner, 3)?, "the gateway does not find the client");
            ensure!(up.client.status_at("/ike/0/spi_i")? == up.spi, "another IKE_SA");
            up.client.disconnect()
        })?;
    }
    Ok(())
}

#[test]
fn from_ipv4_to_ipv6_out_of_the_nat_and_back_again() -> Result<()> {
    in_lab(|lab| {
        let mut wanted = Wanted::of(GatewayKind::Reference);
        wanted.offer.outer = vec![GATEWAY_V4.into(), GATEWAY_V6.into()];
        let up = up(lab, &wanted)?;
        ensure!(up.client.status_at("/ike/0/nat")? == true);
        // IPv6 is routed without NAT here.
        up.site.router.nft("flush ruleset\ntable ip lab_nat {\n chain post {\n  type nat hook postrouting priority srcnat;\n  \
             oifname \"outside\" masquerade\n }\n}\n")?;
        up.site.client.ip("addr add fd77:2::2/64 dev wlan0 nodad\nroute add ::/0 via fd77:2::1 dev wlan0")?;
        up.site.client.ip("link set eth0 down")?;
        up.moved_to("wlan0", "[fd77:2::2]:")?;
        ensure!(up.client.status_at("/ike/0/nat")? == false, "out of the NAT");
        up.site.client.ip("link set eth0 up\nroute add default via 10.77.1.1")?;
        thread::sleep(Duration::from_millis(500));
        up.site.client.ip("link set wlan0 down")?;
        up.moved_to("eth0", "10.77.1.2:")?;
        ensure!(up.client.status_at("/ike/0/nat")? == true, "and into it");
        up.flow.close()?;
        up.client.disconnect()
    })
}

#[test]
fn a_dead_gateway_is_told_soon_under_traffic_and_the_connection_is_back_after_its_restart() -> Result<()> {
    for which in BOTH {
        in_lab(|lab| {
            let before;
            let mut up = {
                let up = up(lab, &Wanted::of(which))?;
                before = NetworkState::of(&up.site.client)?;
                up
            };
            // Nothing answers, not even with an ICMP error.
            up.site.router.nft(
                "table ip cut {\n chain cut {\n  type filter hook forward priority 0;\n  drop\n }\n}\n",
            )?;
            let told = up.states.reaches("reconnecting", "", Duration::from_secs(8))?;
            up.gateway.restart()?;
            up.site.router.nft("delete table ip cut")?;
            up.states.reaches("connected", "", Duration::from_secs(60))?;
            ensure!(up.client.status_at("/ike/0/spi_i")? != up.spi);
            ensure!(up.client.status_at("/addresses")? == up.inner, "another inner address");
            up.flow.goes_on(Duration::from_secs(40))?;
            ensure!(told < Duration::from_secs(8), "{told:?}");
            ensure!(NetworkState::of(&up.site.client)? == before, "the device and its routes stayed");
            up.flow.close()?;
            up.client.disconnect()
        })?;
    }
    Ok(())
}

#[test]
fn a_gateway_that_asks_is_answered_and_one_that_is_asked_answers() -> Result<()> {
    for which in BOTH {
        in_lab(|lab| {
            let mut wanted = Wanted::of(which);
            wanted.timing = "dpd = 1\n";
            wanted.offer.dpd = Some(1);
            let up = up(lab, &wanted)?;
            up.flow.close()?;
            thread::sleep(Duration::from_secs(5));
            ensure!(up.states.states()? == ["connected"], "{:?}", up.states.states()?);
            ensure!(up.client.status_at("/ike/0/spi_i")? == up.spi, "another IKE_SA");
            ensure!(up.gateway.sessions()? == 1);
            up.client.disconnect()
        })?;
    }
    Ok(())
}
