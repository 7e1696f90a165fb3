//! IIPtran (RFC 3884): interfaces that a routing daemon uses. BIRD speaks OSPF over them in three nodes.
//!
//! ```text
//!                    +--- a (10.90.0.1) ---+
//!   client ---router-+                     | ab
//!  (10.91.0.1)       +--- b (10.90.0.2) ---+
//! ```
//!
//! The client has a connection to each gateway, with an interface of its own: `toa` and `tob`. By OSPF what is at `a` is
//! reached by `toa`, and when that is dead by `tob` and `b`.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use ropewalk_e2e::{
    AuthKind, Client, ClientOptions, Credentials, Offer, PATIENCE, ProfileText, Reference, in_lab,
};
use ropewalk_lab::{Bird, Capture, Lab, Namespace, tshark, until};
use serde_json::Value;

const GATEWAY_A: &str = "198.18.1.2";
/// The second one is reached by IPv6 outside.
const GATEWAY_B: &str = "2001:db8:2::2";
/// What is at the client, at a and at b.
const AT_CLIENT: &str = "10.91.0.1";
const AT_A: &str = "10.90.0.1";
const AT_B: &str = "10.90.0.2";
/// OSPF notices a dead neighbour after four seconds; a second each for BIRD's clock, and for a busy machine three.
const FAILOVER: f64 = 9.0;

/// The three nodes and the router between them; nothing is connected.
struct Nodes {
    router: Namespace,
    client: Client,
    a: Reference,
    b: Reference,
    places: [Namespace; 2],
    credentials: Credentials,
}

/// The gateway's side of the link to the client, by number.
fn link(number: u8, client: &str) -> String {
    format!(
        "\n[[link]]\nclient = \"{client}\"\ndevice = \"toclient\"\n\
         addresses = [\"10.255.{number}.0/31\", \"fd00:255:{number}::/127\"]\n"
    )
}

impl Nodes {
    fn new(lab: &Lab) -> Result<Self> {
        let router = lab.namespace("router")?;
        router.forward()?;
        let place = lab.namespace("client")?;
        router.link("home", &place, "eth0")?;
        router.link("cafe", &place, "wlan0")?;
        router.address("home", &["10.80.1.1/24"])?;
        router.address("cafe", &["10.80.2.1/24"])?;
        router.address("home", &["fd80:1::1/64"])?;
        place.address("eth0", &["10.80.1.2/24", "fd80:1::2/64"])?;
        place.address("wlan0", &["10.80.2.2/24"])?;
        place.address("lo", &[&format!("{AT_CLIENT}/32"), "fd91::1/128"])?;
        place.ip("route add default via 10.80.1.1\nroute add ::/0 via fd80:1::1")?;
        let credentials = Credentials::new(AuthKind::Psk)?;
        let (mut gateways, mut places) = (Vec::new(), Vec::new());
        for (number, name, inside) in [(1, "a", AT_A), (2, "b", AT_B)] {
            let place = lab.namespace(name)?;
            let outside = format!("node{name}");
            router.link(&outside, &place, "eth0")?;
            router.address(
                &outside,
                &[&format!("198.18.{number}.1/24"), &format!("2001:db8:{number}::1/64")],
            )?;
            place
                .address("eth0", &[&format!("198.18.{number}.2/24"), &format!("2001:db8:{number}::2/64")])?;
            place.address("lo", &[&format!("{inside}/32"), &format!("fd90::{number}/128")])?;
            place.ip(&format!(
                "route add default via 198.18.{number}.1\nroute add ::/0 via 2001:db8:{number}::1"
            ))?;
            let offer = Offer {
                traffic: vec!["10.88.0.0/24".to_owned()],
                pools: vec!["10.88.0.0/24".to_owned()],
                dns: Vec::new(),
                options: link(number, &credentials.client_id),
                ..Offer::new(AuthKind::Psk)
            };
            gateways.push(Reference::start(&place, &offer, &credentials)?);
            places.push(place);
        }
        let (b, a) = (gateways.pop().context("b")?, gateways.pop().context("a")?);
        let places: [Namespace; 2] = places.try_into().map_err(|_| anyhow::anyhow!("two gateways"))?;
        places[0].link("ab", &places[1], "ab")?;
        places[0].address("ab", &["10.92.0.0/31"])?;
        places[1].address("ab", &["10.92.0.1/31"])?;
        let client = Client::start(&place)?;
        Ok(Self { router, client, a, b, places, credentials })
    }

    /// The client's connection to a gateway, with an interface of this name.
    fn profile(&self, name: &str, gateway: &str, more: &str) -> ProfileText {
        let mut profile = ProfileText::new(AuthKind::Psk, &self.credentials, gateway);
        profile.name = name.to_owned();
        profile.tunnel = format!("mode = \"iiptran\"\ninterface = \"to{name}\"\n{more}");
        profile
    }

    fn connect(&self, name: &str, gateway: &str) -> Result<()> {
        self.client.connect(&self.profile(name, gateway, ""), None)?;
        Ok(())
    }

    /// BIRD at all three, with one second between hellos and four until a neighbour is dead.
    fn birds(&self) -> Result<[Bird; 3]> {
        let fast = "type ptp; hello 1; dead 4;";
        let at = |place: &Namespace, own: &str, interfaces: &[(&str, u8)], more: &str| {
            let listed = interfaces
                .iter()
                .map(|(name, cost)| format!("interface \"{name}\" {{ {fast} cost {cost}; }};"));
            let listed: String = listed.collect();
            Bird::start(
                place,
                &format!(
                    "router id {own};\nprotocol device {{ scan time 1; }}\n\
                     protocol kernel {{ ipv4 {{ export filter {{ krt_prefsrc = {own}; accept; }}; }}; }}\n\
                     protocol kernel {{ ipv6 {{ export where source = RTS_OSPF_EXT2; }}; }}\n\
                     protocol direct {{ ipv6; interface \"lo\"; }}\n\
                     protocol ospf v2 ospf4 {{ ipv4 {{ import all; }}; area 0 {{ interface \"lo\" {{ stub; }}; {listed} {more} }}; }}\n\
                     protocol ospf v3 ospf6 {{ ipv6 {{ export where source = RTS_DEVICE; }}; area 0 {{ {listed} }}; }}\n"
                ),
            )
        };
        // A route that covers both gateways: what is learned must not lead the tunnel into itself.
        let around = "stubnet 198.18.0.0/15 { cost 1; };";
        Ok([
            at(self.client.namespace(), AT_CLIENT, &[("toa", 10), ("tob", 10)], "")?,
            at(&self.places[0], AT_A, &[("toclient", 10), ("ab", 10)], around)?,
            at(&self.places[1], AT_B, &[("toclient", 10), ("ab", 10)], "")?,
        ])
    }

    fn status(&self, name: &str) -> Result<Value> {
        let printed = self.client.cli(&["status", name, "--json"])?.success()?.stdout;
        Ok(serde_json::from_str(&printed)?)
    }

    fn status_at(&self, name: &str, pointer: &str) -> Result<Value> {
        let status = self.status(name)?;
        status.pointer(pointer).cloned().with_context(|| format!("no {pointer} in {status}"))
    }

    /// By which interface the client goes there.
    fn way_to(&self, destination: &str) -> Result<String> {
        way(self.client.namespace(), destination)
    }

    /// Waits until the client goes there by this interface, and what is there has a way back.
    fn wait_for_way(&self, destination: &str, interface: &str) -> Result<()> {
        let what = format!("{destination} to be reached by {interface}");
        let [a, b] = &self.places;
        let back = if destination == AT_A { a } else { b };
        let goes = |place: &Namespace, to: &str, by: &str| way(place, to).is_ok_and(|way| way == by);
        Ok(until(&what, Duration::from_secs(60), || {
            let there = goes(self.client.namespace(), destination, interface);
            (there && goes(back, AT_CLIENT, "toclient")).then_some(())
        })?)
    }

    /// Pings with the client's own address at its loopback, ten a second: how many in a row were lost at most.
    fn longest_gap(&self, destination: &str, count: u32) -> Result<u32> {
        let count = count.to_string();
        let arguments = ["-n", "-D", "-i", "0.1", "-W", "1", "-c", &count, "-I", AT_CLIENT, destination];
        let finished = self.client.namespace().run("ping", &arguments, Duration::from_secs(90))?;
        let numbers = finished.stdout.lines().filter_map(|line| {
            line.split("icmp_seq=").nth(1)?.split_whitespace().next()?.parse::<u32>().ok()
        });
        let (mut last, mut longest) = (0, 0);
        for number in numbers.chain([count.parse::<u32>()? + 1]) {
            longest = longest.max(number.saturating_sub(last + 1));
            last = number;
        }
        Ok(longest)
    }

    fn pings(&self, destination: &str, source: &str) -> Result<bool> {
        let arguments = ["-n", "-q", "-i", "0.2", "-W", "2", "-c", "3", "-I", source, destination];
        let finished = self.client.namespace().run("ping", &arguments, Duration::from_secs(30))?;
        Ok(finished.stdout.contains(" 3 received"))
    }
}

fn way(place: &Namespace, destination: &str) -> Result<String> {
    let route = place.ip_show(&["route", "get", destination])?;
    let mut words = route.split_whitespace().skip_while(|word| *word != "dev");
    words.nth(1).map(str::to_owned).with_context(|| format!("ip route get: {route}"))
}

#[test]
fn ospf_runs_over_two_interfaces_and_moves_traffic_off_the_one_that_dies() -> Result<()> {
    in_lab(|lab| {
        let nodes = Nodes::new(lab)?;
        nodes.connect("a", GATEWAY_A)?;
        nodes.connect("b", GATEWAY_B)?;
        for (name, number) in [("a", 1), ("b", 2)] {
            ensure!(nodes.status_at(name, "/children/0/mode")? == "transport");
            ensure!(nodes.status_at(name, "/addresses/0")? == format!("10.255.{number}.1/31"));
            ensure!(nodes.status_at(name, "/alone")?.as_str().is_some_and(|why| why.contains("iiptran")));
        }
        // Interfaces like any other, and no rules that would hide them.
        let shown = nodes.client.namespace().ip_show(&["addr", "show", "toa"])?;
        for expected in ["POINTOPOINT,MULTICAST", "mtu 1400", "10.255.1.1/31", "fd00:255:1::1/127", "fe80::"]
        {
            ensure!(shown.contains(expected), "{expected:?} is not in {shown}");
        }
        let rules = nodes.client.namespace().ip_show(&["rule"])?;
        ensure!(rules.lines().count() == 3, "there are rules: {rules}");
        ensure!(nodes.pings("10.255.1.0", "10.255.1.1")?, "the other end of a link");
        ensure!(nodes.pings("fd00:255:2::", "fd00:255:2::1")?, "IPv6 inside");

        let birds = nodes.birds()?;
        until("two neighbours at each", Duration::from_secs(60), || {
            let full = |bird: &Bird, of: &str| bird.full_neighbours(of).is_ok_and(|full| full.len() == 2);
            birds.iter().all(|bird| full(bird, "ospf4") && full(bird, "ospf6")).then_some(())
        })?;
        nodes.wait_for_way(AT_A, "toa")?;
        nodes.wait_for_way(AT_B, "tob")?;
        ensure!(nodes.pings(AT_A, AT_CLIENT)? && nodes.pings(AT_B, AT_CLIENT)?, "learned routes carry");
        until("learned routes to carry IPv6", Duration::from_secs(30), || {
            ["fd90::1", "fd90::2"].iter().all(|to| nodes.pings(to, "fd91::1").unwrap_or(false)).then_some(())
        })?;

        // What leads to a's gateway dies without a word.
        let gap = thread::scope(|scope| {
            let pings = scope.spawn(|| nodes.longest_gap(AT_A, 200));
            thread::sleep(Duration::from_secs(2));
            nodes.router.nft(
                "table inet cut { chain forward { type filter hook forward priority 0; \
                 ip daddr 198.18.1.2 drop; ip saddr 198.18.1.2 drop; }; }",
            )?;
            pings.join().map_err(|_| anyhow::anyhow!("the pings ended early"))?
        })?;
        println!("OSPF moved the traffic after {:.1} s", f64::from(gap) / 10.0);
        ensure!(f64::from(gap) / 10.0 <= FAILOVER, "{gap} pings of ten a second were lost");
        ensure!(gap >= 20, "nothing was cut: {gap}");
        ensure!(nodes.way_to(AT_A)? == "tob", "{}", nodes.way_to(AT_A)?);
        ensure!(nodes.pings(AT_A, AT_CLIENT)?);

        // It is back, and so is the traffic; the connection need not be the same.
        nodes.router.nft("delete table inet cut")?;
        nodes.wait_for_way(AT_A, "toa")?;
        ensure!(nodes.pings(AT_A, AT_CLIENT)?);
        let stats = nodes.a.control("stats")?;
        ensure!(stats.get("rx_refused") == Some(&Value::from(0)), "{stats}");
        nodes.client.disconnect()?;
        let left = nodes.client.namespace().ip_show(&["link"])?;
        ensure!(!left.contains("toa") && !left.contains("tob"), "an interface is left: {left}");
        ensure!(nodes.a.sessions()? == 0 && nodes.b.sessions()? == 0);
        Ok(())
    })
}

#[test]
fn a_move_through_a_nat_renews_the_child_sa_and_ospf_does_not_notice() -> Result<()> {
    in_lab(|lab| {
        let nodes = Nodes::new(lab)?;
        // Each network of the client's is behind the router's address on that side.
        nodes.router.masquerade("nodea")?;
        nodes.connect("a", GATEWAY_A)?;
        ensure!(nodes.status_at("a", "/ike/0/nat")? == true);
        let birds = nodes.birds()?;
        until("a neighbour", Duration::from_secs(60), || {
            birds[0].full_neighbours("ospf4").is_ok_and(|full| full == ["toa"]).then_some(())
        })?;
        nodes.wait_for_way(AT_A, "toa")?;
        ensure!(nodes.way_to(GATEWAY_A)? == "toa", "the route that covers the gateway is learned, too");
        let before = (nodes.status_at("a", "/children/0/spi_in")?, nodes.status_at("a", "/ike/0/spi_i")?);
        let gap = thread::scope(|scope| {
            let pings = scope.spawn(|| nodes.longest_gap(AT_A, 80));
            thread::sleep(Duration::from_secs(2));
            nodes
                .client
                .namespace()
                .ip("link set eth0 down\nroute replace default via 10.80.2.1 dev wlan0")?;
            pings.join().map_err(|_| anyhow::anyhow!("the pings ended early"))?
        })?;
        println!("the move took {:.1} s", f64::from(gap) / 10.0);
        ensure!(gap <= 35, "{gap} pings were lost: OSPF would have noticed");
        let local = nodes.status_at("a", "/paths/0/local")?;
        ensure!(local.as_str().is_some_and(|local| local.starts_with("10.80.2.2:")), "{local}");
        let after = (nodes.status_at("a", "/children/0/spi_in")?, nodes.status_at("a", "/ike/0/spi_i")?);
        ensure!(after.0 != before.0, "the CHILD_SA is the same");
        ensure!(after.1 == before.1, "the IKE_SA is another one");
        ensure!(nodes.a.sessions()? == 1);
        let lost = birds[0].log().matches("changed state from Full").count();
        ensure!(lost == 0, "OSPF lost its neighbour: {}", birds[0].log());
        Ok(())
    })
}

#[test]
fn a_far_router_answers_traceroute_and_too_large_packets_are_told() -> Result<()> {
    in_lab(|lab| {
        let nodes = Nodes::new(lab)?;
        // Listed routes stand in the main table.
        let profile = nodes.profile("a", GATEWAY_A, "routes = [\"10.92.0.0/24\", \"10.90.0.0/24\"]\n");
        nodes.client.connect(&profile, None)?;
        nodes.places[1].ip("route add 10.255.1.0/31 via 10.92.0.0")?;
        let table = nodes.client.namespace().ip_show(&["route"])?;
        ensure!(table.contains("10.90.0.0/24 dev toa proto static scope link metric 50"), "{table}");
        let client = nodes.client.namespace();
        let ping = |arguments: &[&str]| -> Result<String> {
            let finished = client.run("ping", arguments, Duration::from_secs(20))?;
            Ok(finished.stdout + &finished.stderr)
        };
        // The first router is the other end of the link, the second one the destination: as traceroute counts.
        let first = ping(&["-n", "-c", "1", "-W", "2", "-t", "1", "10.92.0.1"])?;
        ensure!(first.contains("From 10.255.1.0") && first.contains("Time to live exceeded"), "{first}");
        let second = ping(&["-n", "-c", "1", "-W", "2", "-t", "2", "10.92.0.1"])?;
        ensure!(second.contains("1 received") && second.contains("ttl=63"), "{second}");
        let whole = ping(&["-n", "-c", "1", "-W", "2", "-M", "do", "-s", "1372", "10.92.0.1"])?;
        ensure!(whole.contains("1 received"), "1400 octets fit: {whole}");
        let larger = ping(&["-n", "-c", "1", "-W", "2", "-M", "do", "-s", "1373", "10.92.0.1"])?;
        ensure!(larger.contains("mtu=1400") || larger.contains("mtu 1400"), "{larger}");

        // Somewhere outside it is narrower: an ICMP error for what is outside becomes one for what is inside.
        nodes.router.ip("link set nodea mtu 1380")?;
        until("the path's MTU to be known", PATIENCE, || {
            let _ = ping(&["-n", "-c", "1", "-W", "1", "-M", "do", "-s", "1372", "10.92.0.1"]);
            nodes.status_at("a", "/mtu").ok()?.as_u64().filter(|mtu| *mtu < 1380)
        })?;
        let mtu = nodes.status_at("a", "/mtu")?.to_string();
        ensure!(client.ip_show(&["link", "show", "toa"])?.contains(&format!("mtu {mtu}")), "{mtu}");
        let told = ping(&["-n", "-c", "1", "-W", "2", "-M", "do", "-s", "1372", "10.92.0.1"])?;
        ensure!(told.contains(&format!("mtu={mtu}")) || told.contains(&format!("mtu = {mtu}")), "{told}");
        let fits = (mtu.parse::<u32>()? - 28).to_string();
        let fitting = ping(&["-n", "-c", "1", "-W", "2", "-M", "do", "-s", &fits, "10.92.0.1"])?;
        ensure!(fitting.contains("1 received"), "{fitting}");
        // Without don't-fragment the system cuts it.
        let cut = ping(&["-n", "-c", "1", "-W", "2", "-M", "dont", "-s", "3000", "10.92.0.1"])?;
        ensure!(cut.contains("1 received"), "{cut}");
        Ok(())
    })
}

#[test]
fn two_clients_behind_one_nat_with_the_same_address_have_equal_selectors_and_interfaces_of_their_own()
-> Result<()> {
    in_lab(|lab| {
        let router = lab.namespace("router")?;
        router.forward()?;
        let place = lab.namespace("gateway")?;
        router.link("out", &place, "eth0")?;
        router.address("out", &["198.18.1.1/24"])?;
        place.address("eth0", &["198.18.1.2/24"])?;
        let mut credentials = Credentials::new(AuthKind::Psk)?;
        let (first, second) = (credentials.client_id.clone(), "second@corp.test".to_owned());
        let second_link = link(2, &second).replace("toclient", "tosecond");
        let offer = Offer {
            dns: Vec::new(),
            options: format!(
                "{}{second_link}\n[[psk]]\nidentity = \"{second}\"\nsecret = \"{}\"\n",
                link(1, &first),
                credentials.psk
            ),
            ..Offer::new(AuthKind::Psk)
        };
        let gateway = Reference::start(&place, &offer, &credentials)?;
        // The two networks have the same addresses; the NATs of both stand behind one address of the router's.
        let mut clients = Vec::new();
        for (number, id) in [(1, &first), (2, &second)] {
            let (nat, home) =
                (lab.namespace(&format!("nat{number}"))?, lab.namespace(&format!("home{number}"))?);
            router.link(&format!("in{number}"), &nat, "out")?;
            router.address(&format!("in{number}"), &[&format!("10.70.{number}.1/24")])?;
            nat.address("out", &[&format!("10.70.{number}.2/24")])?;
            nat.ip(&format!("route add default via 10.70.{number}.1"))?;
            nat.forward()?;
            nat.masquerade("out")?;
            nat.link("in", &home, "eth0")?;
            nat.address("in", &["192.168.7.1/24"])?;
            home.address("eth0", &["192.168.7.2/24"])?;
            home.ip("route add default via 192.168.7.1")?;
            let options = ClientOptions { folder: format!("client{number}"), ..ClientOptions::default() };
            let client = Client::start_with(&home, options)?;
            credentials.client_id.clone_from(id);
            let mut profile = ProfileText::new(AuthKind::Psk, &credentials, "198.18.1.2");
            profile.tunnel = "mode = \"iiptran\"\n".to_owned();
            if number == 2 {
                // The addresses of the link may as well stand in the profile.
                profile.timing =
                    "\n[address]\nsource = \"static\"\nstatic = [\"10.255.2.1/31\"]\n".to_owned();
            }
            clients.push((client, profile, nat));
        }
        router.masquerade("out")?;
        for (client, profile, _) in &clients {
            client.connect(profile, None)?;
        }
        let list = gateway.control("list")?;
        let remotes: Vec<&str> = list
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|one| one.pointer("/remote")?.as_str())
            .collect();
        let [one, other] = remotes.as_slice() else { anyhow::bail!("two clients, not {list}") };
        let address = |remote: &str| remote.rsplit_once(':').map(|(address, _)| address.to_owned());
        ensure!(address(one) == address(other) && one != other, "one address, two ports: {remotes:?}");
        for number in 1..=2_u8 {
            let (client, ..) = clients.get(usize::from(number - 1)).context("a client")?;
            ensure!(client.namespace().ping(&format!("10.255.{number}.0"), 3)?, "client {number}");
            ensure!(place.ping(&format!("10.255.{number}.1"), 3)?, "to client {number}");
            ensure!(client.status_at("/addresses/0")? == format!("10.255.{number}.1/31"));
        }
        ensure!(!gateway.log().contains("a client moved"), "one was taken for the other");
        Ok(())
    })
}

#[test]
fn tshark_reads_transport_mode_for_ip_in_ip_and_next_headers_4_and_41() -> Result<()> {
    in_lab(|lab| {
        let nodes = Nodes::new(lab)?;
        let capture = Capture::start(nodes.client.namespace(), "eth0", "iiptran")?;
        nodes.connect("a", GATEWAY_A)?;
        ensure!(nodes.pings("10.255.1.0", "10.255.1.1")? && nodes.pings("fd00:255:1::", "fd00:255:1::1")?);
        nodes.client.disconnect()?;
        let file = capture.finish()?;
        let home = lab.dir().join("tshark");
        std::fs::create_dir_all(home.join("wireshark"))?;
        for table in ["ikev2_decryption_table", "esp_sa"] {
            std::fs::copy(nodes.client.key_log().join(table), home.join("wireshark").join(table))?;
        }
        let open = ["-o", "esp.enable_encryption_decode:TRUE", "-o", "esp.enable_authentication_check:TRUE"];
        let read = |what: &[&str]| tshark(&file, &home, &[what, open.as_slice()].concat());
        // Transport mode asked for and agreed to, for protocols 4 and 41 of the outer addresses.
        let ike = read(&["-V", "-Y", "isakmp.exchangetype == 35"])?;
        ensure!(ike.matches("USE_TRANSPORT_MODE").count() >= 2, "{ike}");
        for expected in ["Protocol ID: IPIP (4)", "Protocol ID: IPv6 (41)"] {
            ensure!(ike.matches(expected).count() >= 4, "{expected:?} four times: {ike}");
        }
        for address in ["10.80.1.2", GATEWAY_A] {
            ensure!(ike.contains(&format!("Starting Addr: {address}")), "{address} in {ike}");
        }
        // Inside ESP stands the inner packet at once, and the next header says which kind.
        let fields =
            ["-T", "fields", "-e", "esp.protocol", "-e", "ip.src", "-e", "ipv6.src", "-e", "ip.proto"];
        let esp = read(&[["-Y", "esp"].as_slice(), &fields].concat())?;
        let pings = |next: &str, inner: &str| {
            esp.lines().filter(|line| line.starts_with(next) && line.contains(inner)).count()
        };
        ensure!(pings("0x04", "10.80.1.2,10.255.1.1") >= 3, "IPv4 inside: {esp}");
        ensure!(pings("0x29", "fd00:255:1::1") >= 3, "IPv6 inside: {esp}");
        let outer = esp.lines().filter_map(|line| line.split('\t').nth(3)?.split(',').next());
        ensure!(outer.clone().count() > 0 && outer.into_iter().all(|protocol| protocol == "17"), "{esp}");
        Ok(())
    })
}
