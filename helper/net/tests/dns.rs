//! Name servers through each of the four managers: the real ones, on a bus and in an `/etc` of their own.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{
    RESOLV_CONF, Running, World, bus_has, busctl, config, daemon, device, dns, eventually, isolated, sh,
};
use ropewalk_net::{DnsManager, Network, NetworkSettings, TunDevice, TunnelConfig};

fn full(tun: &TunDevice, server: &str) -> TunnelConfig {
    TunnelConfig { dns: dns(&[server, "fd09::53"], &[]), ..config(tun, &["10.9.0.2"], &["0.0.0.0/0"]) }
}

fn split(tun: &TunDevice, server: &str) -> TunnelConfig {
    let dns = dns(&[server], &["corp.example", "~lab.example"]);
    TunnelConfig { dns, ..config(tun, &["10.8.0.2"], &["10.0.0.0/8"]) }
}

fn resolv_conf() -> String {
    fs::read_to_string("/etc/resolv.conf").unwrap()
}

/// What the C library's resolver takes.
fn servers() -> Vec<String> {
    resolv_conf().lines().filter_map(|l| l.strip_prefix("nameserver ")).map(str::to_owned).collect()
}

/// Asks the resolver on this computer for a name, as the C library does; whether an answer comes does not matter.
fn ask(resolver: &str, name: &str) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut query = vec![0x52, 0x57, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    query.extend(in_labels(name));
    query.extend([0, 1, 0, 1]);
    socket.send_to(&query, (resolver, 53)).unwrap();
    socket
}

fn in_labels(name: &str) -> Vec<u8> {
    let labels =
        name.split('.').flat_map(|l| std::iter::once(u8::try_from(l.len()).unwrap()).chain(l.bytes()));
    labels.chain([0]).collect()
}

/// Whether a query for that name arrives at a server, or in the tunnel.
fn hears(server: &UdpSocket, name: &str) -> bool {
    let mut buffer = [0; 1500];
    server.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
    while let Ok((length, _)) = server.recv_from(&mut buffer) {
        if contains(&buffer[..length], name) {
            return true;
        }
    }
    false
}

async fn carries(tun: &TunDevice, name: &str) -> bool {
    while let Some(packet) = common::next_packet(tun, Duration::from_millis(700)).await {
        if contains(&packet, name) {
            return true;
        }
    }
    false
}

fn contains(packet: &[u8], name: &str) -> bool {
    let name = in_labels(name);
    packet.windows(name.len()).any(|window| window == name)
}

// --- the file ---------------------------------------------------------------------------------------------------

#[test]
fn the_file_is_written_and_comes_back() {
    isolated("the_file_is_written_and_comes_back", |world: World| async move {
        fs::set_permissions("/etc/resolv.conf", fs::Permissions::from_mode(0o640)).unwrap();
        let before = world.system();
        let network = world.network().await;
        let (one, two) = (device("rwtun0"), device("rwtun1"));
        let applied = network.apply(&split(&two, "10.8.0.53")).await.unwrap();
        assert_eq!((applied.dns.manager, applied.dns.per_domain), (Some(DnsManager::ResolvConfFile), false));
        assert_eq!(servers(), ["10.8.0.53", "192.0.2.53"]);
        assert!(resolv_conf().contains("search corp.example home.arpa\n"));
        let applied = network.apply(&full(&one, "10.9.0.53")).await.unwrap();
        assert_eq!(applied.dns.manager, Some(DnsManager::ResolvConfFile));
        assert_eq!(servers(), ["10.9.0.53", "fd09::53", "10.8.0.53"]);
        network.undo("rwtun0").await.unwrap();
        assert_eq!(servers(), ["10.8.0.53", "192.0.2.53"]);
        network.undo("rwtun1").await.unwrap();
        drop((one, two));
        assert_eq!(world.system(), before);
    });
}

#[test]
fn a_bind_mounted_file_is_written_in_place() {
    isolated("a_bind_mounted_file_is_written_in_place", |world: World| async move {
        fs::write("/run/elsewhere", RESOLV_CONF).unwrap();
        sh("mount --bind /run/elsewhere /etc/resolv.conf");
        let before = world.system();
        let network = world.network().await;
        let tun = device("rwtun0");
        network.apply(&full(&tun, "10.9.0.53")).await.unwrap();
        assert_eq!(servers(), ["10.9.0.53", "fd09::53"]);
        network.undo_all().await.unwrap();
        drop(tun);
        assert_eq!(world.system(), before);
        assert_eq!(fs::read_to_string("/run/elsewhere").unwrap(), RESOLV_CONF);
    });
}

#[test]
fn a_link_to_nobodys_file_and_no_file_at_all_come_back() {
    isolated("a_link_to_nobodys_file_and_no_file_at_all_come_back", |world: World| async move {
        let network = world.network().await;
        for kind in ["link", "none"] {
            fs::remove_file("/etc/resolv.conf").unwrap();
            if kind == "link" {
                fs::write("/run/somewhere", RESOLV_CONF).unwrap();
                symlink("../run/somewhere", "/etc/resolv.conf").unwrap();
            }
            let before = world.system();
            let tun = device("rwtun0");
            network.apply(&split(&tun, "10.8.0.53")).await.unwrap();
            let expected = if kind == "link" { vec!["10.8.0.53", "192.0.2.53"] } else { vec!["10.8.0.53"] };
            assert_eq!(servers(), expected);
            network.undo_all().await.unwrap();
            drop(tun);
            assert_eq!(world.system(), before, "{kind}");
            if kind == "link" {
                assert_eq!(fs::read_to_string("/run/somewhere").unwrap(), RESOLV_CONF);
            }
        }
    });
}

#[test]
fn a_third_partys_new_servers_are_noticed_and_survive_the_tunnel() {
    isolated("a_third_partys_new_servers_are_noticed_and_survive_the_tunnel", |world: World| async move {
        let network = world.network().await;
        let tun = device("rwtun0");
        network.apply(&full(&tun, "10.9.0.53")).await.unwrap();
        let mut disturbed = network.disturbances();
        // As DHCP clients do, in either way.
        fs::write("/etc/resolv.conf.new", "nameserver 203.0.113.53\n").unwrap();
        fs::rename("/etc/resolv.conf.new", "/etc/resolv.conf").unwrap();
        tokio::time::timeout(Duration::from_secs(5), disturbed.changed()).await.expect("noticed").unwrap();
        network.refresh().await.unwrap();
        assert_eq!(servers(), ["10.9.0.53", "fd09::53"]);
        network.undo_all().await.unwrap();
        assert_eq!(resolv_conf(), "nameserver 203.0.113.53\n");

        network.apply(&full(&tun, "10.9.0.53")).await.unwrap();
        fs::write("/etc/resolv.conf", "nameserver 203.0.113.54\n").unwrap();
        network.undo_all().await.unwrap();
        assert_eq!(resolv_conf(), "nameserver 203.0.113.54\n");
        assert_eq!(fs::read_dir(world.state_dir()).unwrap().count(), 0);
    });
}

#[test]
fn a_program_that_keeps_rewriting_the_file_is_not_fought_for_ever() {
    isolated("a_program_that_keeps_rewriting_the_file_is_not_fought_for_ever", |world: World| async move {
        let window = Duration::from_secs(3);
        let settings = NetworkSettings { fight_window: window, ..world.settings() };
        let network = Network::open(settings).await.unwrap();
        let tun = device("rwtun0");
        network.apply(&full(&tun, "10.9.0.53")).await.unwrap();
        let mut outcomes = Vec::new();
        for round in 0..7 {
            fs::write("/etc/resolv.conf", format!("nameserver 203.0.113.{round}\n")).unwrap();
            outcomes.push(network.refresh().await.is_ok());
        }
        assert_eq!(outcomes, [true, true, true, true, true, false, false]);
        // When the other one has stopped, somebody looks once more.
        let mut disturbed = network.disturbances();
        while servers() != ["10.9.0.53", "fd09::53"] {
            tokio::time::timeout(window * 2, disturbed.changed()).await.unwrap().unwrap();
            let _ = network.refresh().await;
        }
        fs::write("/etc/resolv.conf", "nameserver 203.0.113.6\n").unwrap();
        network.undo_all().await.unwrap();
        assert_eq!(resolv_conf(), "nameserver 203.0.113.6\n");
    });
}

// --- resolvconf -------------------------------------------------------------------------------------------------

#[test]
fn openresolv_is_asked_when_the_file_is_its_work() {
    isolated("openresolv_is_asked_when_the_file_is_its_work", |world: World| async move {
        common::install_openresolv();
        let network = world.network().await;
        assert_eq!(network.dns_manager().await, DnsManager::ResolvConfFile, "installed is not in charge");
        fs::write("/run/wan0", "nameserver 192.0.2.53\nsearch home.arpa\n").unwrap();
        sh("cp /run/wan0 /run/input");
        let add = Command::new("resolvconf")
            .args(["-a", "wan0"])
            .stdin(fs::File::open("/run/input").unwrap())
            .status();
        assert!(add.unwrap().success());
        assert_eq!(servers(), ["192.0.2.53"]);
        let before = world.system();

        let (one, two) = (device("rwtun0"), device("rwtun1"));
        let applied = network.apply(&split(&two, "10.8.0.53")).await.unwrap();
        assert_eq!((applied.dns.manager, applied.dns.per_domain), (Some(DnsManager::Resolvconf), false));
        assert_eq!(servers(), ["10.8.0.53", "192.0.2.53"]);
        assert!(resolv_conf().contains("search corp.example home.arpa"));
        network.apply(&full(&one, "10.9.0.53")).await.unwrap();
        assert_eq!(servers(), ["10.9.0.53", "fd09::53"]);
        network.refresh().await.unwrap();
        assert_eq!(servers(), ["10.9.0.53", "fd09::53"]);
        network.undo("rwtun0").await.unwrap();
        assert_eq!(servers(), ["10.8.0.53", "192.0.2.53"]);
        network.undo("rwtun1").await.unwrap();
        drop((one, two));
        assert_eq!(world.system(), before);
    });
}

// --- systemd-resolved -------------------------------------------------------------------------------------------

/// systemd-resolved itself, with the stub file in place.
async fn resolved() -> Running {
    if !fs::read_to_string("/etc/passwd").unwrap().contains("systemd-resolve:") {
        let passwd = fs::read_to_string("/etc/passwd").unwrap();
        fs::write("/etc/passwd", format!("{passwd}systemd-resolve:x:991:991::/:/usr/sbin/nologin\n"))
            .unwrap();
        let group = fs::read_to_string("/etc/group").unwrap();
        fs::write("/etc/group", format!("{group}systemd-resolve:x:991:\n")).unwrap();
    }
    fs::create_dir_all("/run/systemd").unwrap();
    fs::remove_file("/etc/resolv.conf").unwrap();
    symlink("../run/systemd/resolve/stub-resolv.conf", "/etc/resolv.conf").unwrap();
    start_resolved().await
}

async fn start_resolved() -> Running {
    let (program, _) = daemon("lib/systemd/systemd-resolved");
    let running = Running(Command::new(program).stdin(Stdio::null()).spawn().unwrap());
    eventually("systemd-resolved is on the bus", || bus_has("org.freedesktop.resolve1")).await;
    eventually("it wrote its file", || servers() == ["127.0.0.53"]).await;
    running
}

fn resolved_says(property: &str) -> String {
    busctl(&format!(
        "get-property org.freedesktop.resolve1 /org/freedesktop/resolve1 org.freedesktop.resolve1.Manager {property}"
    ))
}

fn link_says(tun: &TunDevice, property: &str) -> String {
    let path = busctl(&format!(
        "call org.freedesktop.resolve1 /org/freedesktop/resolve1 org.freedesktop.resolve1.Manager GetLink i {}",
        tun.index()
    ));
    let path = path.trim().trim_start_matches("o \"").trim_end_matches('"').to_owned();
    let said = busctl(&format!(
        "get-property org.freedesktop.resolve1 {path} org.freedesktop.resolve1.Link {property}"
    ));
    said.trim().to_owned()
}

#[test]
fn resolved_gets_servers_and_domains_per_link() {
    isolated("resolved_gets_servers_and_domains_per_link", |world: World| async move {
        let _bus = common::system_bus().await;
        let _resolved = resolved().await;
        let before = (world.system(), resolved_says("DNS"), resolved_says("Domains"));
        let network = world.network().await;
        let (one, two) = (device("rwtun0"), device("rwtun1"));
        let applied = network.apply(&full(&one, "10.9.0.53")).await.unwrap();
        assert_eq!((applied.dns.manager, applied.dns.per_domain), (Some(DnsManager::Resolved), true));
        network.apply(&split(&two, "10.8.0.53")).await.unwrap();

        assert_eq!(link_says(&one, "DNS"), "a(iay) 2 2 4 10 9 0 53 10 16 253 9 0 0 0 0 0 0 0 0 0 0 0 0 0 83");
        assert_eq!(link_says(&one, "Domains"), "a(sb) 1 \".\" true");
        assert_eq!(link_says(&one, "DefaultRoute"), "b true");
        assert_eq!(link_says(&one, "LLMNR"), "s \"no\"");
        assert_eq!(link_says(&one, "MulticastDNS"), "s \"no\"");
        assert_eq!(link_says(&two, "DNS"), "a(iay) 1 2 4 10 8 0 53");
        assert_eq!(link_says(&two, "Domains"), "a(sb) 2 \"corp.example\" false \"lab.example\" true");
        assert_eq!(link_says(&two, "DefaultRoute"), "b false");

        network.undo("rwtun1").await.unwrap();
        assert_eq!(link_says(&two, "DNS"), "a(iay) 0");
        assert_eq!(link_says(&one, "Domains"), "a(sb) 1 \".\" true");
        network.undo("rwtun0").await.unwrap();
        network.undo("rwtun0").await.unwrap();
        assert_eq!(link_says(&one, "DNS"), "a(iay) 0");
        drop((one, two));
        assert_eq!((world.system(), resolved_says("DNS"), resolved_says("Domains")), before);
    });
}

#[test]
fn resolved_asks_only_the_tunnel_or_only_for_its_domains() {
    isolated("resolved_asks_only_the_tunnel_or_only_for_its_domains", |world: World| async move {
        let _bus = common::system_bus().await;
        let _resolved = resolved().await;
        let index = fs::read_to_string("/sys/class/net/wan0/ifindex").unwrap();
        busctl(&format!(
            "call org.freedesktop.resolve1 /org/freedesktop/resolve1 org.freedesktop.resolve1.Manager SetLinkDNS ia(iay) \
             {} 1 2 4 192 0 2 1",
            index.trim()
        ));
        let uplink = world.socket_there("192.0.2.1:53");
        let _query = ask("127.0.0.53", "before.example.org");
        assert!(hears(&uplink, "before.example.org"), "the uplink's server is asked without a tunnel");

        let network = world.network().await;
        let tun = device("rwtun0");
        network.apply(&full(&tun, "10.9.0.53")).await.unwrap();
        let _query = ask("127.0.0.53", "full.example.org");
        assert!(carries(&tun, "full.example.org").await);
        assert!(!hears(&uplink, "full.example.org"), "a full tunnel's names leak");

        let wanted = TunnelConfig { dns: dns(&["10.9.0.53"], &["corp.example"]), ..full(&tun, "10.9.0.53") };
        network.apply(&wanted).await.unwrap();
        let _query = ask("127.0.0.53", "host.corp.example");
        assert!(carries(&tun, "host.corp.example").await);
        assert!(!hears(&uplink, "host.corp.example"), "an inner name leaks");
        let _query = ask("127.0.0.53", "other.example.org");
        assert!(hears(&uplink, "other.example.org"));
        assert!(!carries(&tun, "other.example.org").await);

        network.undo_all().await.unwrap();
        let _query = ask("127.0.0.53", "after.example.org");
        assert!(hears(&uplink, "after.example.org"));
    });
}

#[test]
fn a_restarted_resolved_is_told_again_and_a_stopped_one_does_not_hinder_undoing() {
    isolated(
        "a_restarted_resolved_is_told_again_and_a_stopped_one_does_not_hinder_undoing",
        |world: World| async move {
            let _bus = common::system_bus().await;
            let first = resolved().await;
            let network = world.network().await;
            let mut disturbed = network.disturbances();
            let tun = device("rwtun0");
            network.apply(&full(&tun, "10.9.0.53")).await.unwrap();
            drop(first);
            eventually("it is gone", || !bus_has("org.freedesktop.resolve1")).await;
            // It keeps links' settings there over an ordinary restart.
            fs::remove_dir_all("/run/systemd/resolve/netif").unwrap();
            let second = start_resolved().await;
            assert_eq!(link_says(&tun, "DNS"), "a(iay) 0");
            tokio::time::timeout(Duration::from_secs(5), disturbed.changed())
                .await
                .expect("noticed")
                .unwrap();
            let standing = network.refresh().await.unwrap();
            assert_eq!(standing[0].1.dns.manager, Some(DnsManager::Resolved));
            assert!(link_says(&tun, "DNS").starts_with("a(iay) 2 2 4 10 9 0 53"));
            drop(second);
            eventually("it is gone", || !bus_has("org.freedesktop.resolve1")).await;
            network.undo_all().await.unwrap();
            assert_eq!(fs::read_dir(world.state_dir()).unwrap().count(), 0);
        },
    );
}

#[test]
fn a_manager_that_comes_up_later_takes_over_from_the_file() {
    isolated("a_manager_that_comes_up_later_takes_over_from_the_file", |world: World| async move {
        let _bus = common::system_bus().await;
        fs::remove_file("/etc/resolv.conf").unwrap();
        symlink("../run/systemd/resolve/stub-resolv.conf", "/etc/resolv.conf").unwrap();
        let network = world.network().await;
        let tun = device("rwtun0");
        let applied = network.apply(&full(&tun, "10.9.0.53")).await.unwrap();
        assert_eq!(applied.dns.manager, Some(DnsManager::ResolvConfFile));
        let _resolved = {
            fs::remove_file("/etc/resolv.conf").unwrap();
            symlink("../run/systemd/resolve/stub-resolv.conf", "/etc/resolv.conf").unwrap();
            resolved().await
        };
        let standing = network.refresh().await.unwrap();
        assert_eq!(standing[0].1.dns.manager, Some(DnsManager::Resolved));
        assert_eq!(servers(), ["127.0.0.53"]);
        assert!(link_says(&tun, "DNS").starts_with("a(iay) 2 2 4 10 9 0 53"));
        network.undo_all().await.unwrap();
        assert!(fs::read_link("/etc/resolv.conf").unwrap().ends_with("stub-resolv.conf"));
    });
}

// --- NetworkManager ---------------------------------------------------------------------------------------------

/// NetworkManager itself, with a connection on wan0 that has a name server.
async fn network_manager(mode: &str) -> Running {
    // Without a writable /sys it does not wait for udev to know the links.
    sh("mount -o remount,ro /sys");
    fs::create_dir_all("/etc/NetworkManager/system-connections").unwrap();
    fs::create_dir_all("/var/lib/NetworkManager").unwrap();
    fs::write(
        "/etc/NetworkManager/NetworkManager.conf",
        format!(
            "[main]\nplugins=keyfile\ndns={mode}\nrc-manager=file\nno-auto-default=*\n\n[keyfile]\n\
             unmanaged-devices=except:interface-name:wan0\n"
        ),
    )
    .unwrap();
    let connection = "/etc/NetworkManager/system-connections/wan.nmconnection";
    fs::write(
        connection,
        "[connection]\nid=wan\nuuid=6d1e4a9e-53a5-4c4b-9a4e-0d8b6a6f7c11\ntype=ethernet\ninterface-name=wan0\n\
         [ipv4]\nmethod=manual\naddress1=192.0.2.2/24,192.0.2.1\ndns=192.0.2.53;\ndns-search=home.arpa;\n\
         [ipv6]\nmethod=manual\naddress1=2001:db8:1::2/64,2001:db8:1::1\ndns=2001:db8:1::53;\n",
    )
    .unwrap();
    fs::set_permissions(connection, fs::Permissions::from_mode(0o600)).unwrap();
    let (program, libraries) = daemon("usr/sbin/NetworkManager");
    let log = fs::File::create("/run/nm.log").unwrap();
    let child = Command::new(program)
        .args(["--no-daemon", "--log-level=INFO"])
        .env("LD_LIBRARY_PATH", libraries)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn();
    let running = Running(child.unwrap());
    eventually("NetworkManager is on the bus", || bus_has("org.freedesktop.NetworkManager")).await;
    let expected = if mode == "dnsmasq" { vec!["127.0.0.1"] } else { vec!["192.0.2.53", "2001:db8:1::53"] };
    eventually("it wrote the file", || servers() == expected).await;
    running
}

fn global_dns() -> String {
    busctl(
        "get-property org.freedesktop.NetworkManager /org/freedesktop/NetworkManager org.freedesktop.NetworkManager \
         GlobalDnsConfiguration",
    )
}

#[test]
fn network_manager_is_told_globally_and_gets_its_own_back() {
    isolated("network_manager_is_told_globally_and_gets_its_own_back", |world: World| async move {
        let _bus = common::system_bus().await;
        let _manager = network_manager("default").await;
        let before = (resolv_conf(), global_dns());
        let network = world.network().await;
        let (one, two) = (device("rwtun0"), device("rwtun1"));

        let applied = network.apply(&split(&two, "10.8.0.53")).await.unwrap();
        assert_eq!((applied.dns.manager, applied.dns.per_domain), (Some(DnsManager::NetworkManager), false));
        let all = ["10.8.0.53", "192.0.2.53", "2001:db8:1::53"];
        eventually("the connections' servers come after the tunnel's", || servers() == all).await;
        assert!(resolv_conf().contains("search corp.example home.arpa"), "{}", resolv_conf());

        network.apply(&full(&one, "10.9.0.53")).await.unwrap();
        let all_names = ["10.9.0.53", "fd09::53", "10.8.0.53"];
        eventually("all names go to the full tunnel", || servers() == all_names).await;
        network.refresh().await.unwrap();
        assert_eq!(servers(), all_names);
        network.undo("rwtun0").await.unwrap();
        eventually("back to the split tunnel", || servers() == all).await;
        network.undo("rwtun1").await.unwrap();
        eventually("its own again", || (resolv_conf(), global_dns()) == before).await;
        assert_eq!(fs::read_dir(world.state_dir()).unwrap().count(), 0);
    });
}

#[test]
fn network_manager_says_which_interfaces_are_metered() {
    isolated("network_manager_says_which_interfaces_are_metered", |world: World| async move {
        let _bus = common::system_bus().await;
        let network = world.network().await;
        let all = ["wan0".to_owned(), "lo".to_owned()];
        assert!(network.metered(&all).await.is_empty(), "nobody to ask is no news");
        let _manager = network_manager("default").await;
        assert!(network.metered(&all).await.is_empty(), "an unmetered one");
        let nmcli = |words: &str| {
            let (program, libraries) = daemon("usr/bin/nmcli");
            let done =
                Command::new(program).args(words.split(' ')).env("LD_LIBRARY_PATH", libraries).output();
            let done = done.unwrap();
            assert!(done.status.success(), "{words}: {done:?}");
        };
        for (said, metered) in [("yes", 1), ("no", 0)] {
            nmcli(&format!("connection modify wan connection.metered {said}"));
            nmcli("device reapply wan0");
            let mut seen = Vec::new();
            for _ in 0..50 {
                seen = network.metered(&all).await;
                if seen.len() == metered {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            assert_eq!(seen, all[..metered], "{said}");
        }
    });
}

#[test]
fn network_manager_with_dnsmasq_tells_names_apart() {
    isolated("network_manager_with_dnsmasq_tells_names_apart", |world: World| async move {
        world.there("ip addr add 192.0.2.53/24 dev wan0");
        let uplink = world.socket_there("192.0.2.53:53");
        let _bus = common::system_bus().await;
        let _manager = network_manager("dnsmasq").await;
        let network = world.network().await;
        let tun = device("rwtun0");
        let applied = network.apply(&split(&tun, "10.8.0.53")).await.unwrap();
        assert_eq!((applied.dns.manager, applied.dns.per_domain), (Some(DnsManager::NetworkManager), true));
        // dnsmasq is told after NetworkManager answered us; until then it may still ask the old servers.
        let mut told = false;
        for _ in 0..10 {
            let _query = ask("127.0.0.1", "host.corp.example");
            told = carries(&tun, "host.corp.example").await;
            if told {
                break;
            }
        }
        assert!(told, "inner names never reach the tunnel's server");
        let _query = ask("127.0.0.1", "www.corp.example");
        assert!(carries(&tun, "www.corp.example").await);
        assert!(!hears(&uplink, "www.corp.example"), "an inner name leaks");
        let _query = ask("127.0.0.1", "other.example.org");
        assert!(hears(&uplink, "other.example.org"));
        assert!(!carries(&tun, "other.example.org").await);
        network.undo_all().await.unwrap();
        assert!(global_dns().starts_with("a{sv} 0"));
    });
}

#[test]
fn what_network_manager_keeps_over_a_kill_is_swept() {
    isolated("what_network_manager_keeps_over_a_kill_is_swept", |world: World| async move {
        let _bus = common::system_bus().await;
        let manager = network_manager("default").await;
        let before = (resolv_conf(), global_dns());
        let network = world.network().await;
        let tun = device("rwtun0");
        network.apply(&full(&tun, "10.9.0.53")).await.unwrap();
        // The helper goes without a word; NetworkManager restarts and still has it.
        drop((network, tun));
        drop(manager);
        eventually("it is gone", || !bus_has("org.freedesktop.NetworkManager")).await;
        let (program, libraries) = daemon("usr/sbin/NetworkManager");
        let log = fs::File::create("/run/nm2.log").unwrap();
        let child = Command::new(program)
            .arg("--no-daemon")
            .env("LD_LIBRARY_PATH", libraries)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        let _manager = Running(child.unwrap());
        eventually("NetworkManager is on the bus", || bus_has("org.freedesktop.NetworkManager")).await;
        eventually("it still has it", || global_dns().contains("10.9.0.53")).await;
        let report = world.network().await.sweep().await.unwrap();
        assert!(report.dns_restored);
        eventually("its own again", || (resolv_conf(), global_dns()) == before).await;
    });
}
