//! Where packets go while tunnels are up, in real network namespaces.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::time::Duration;

use common::{World, config, device, isolated, nets, next_packet, sh};
use ropewalk_net::{DEFAULT_FWMARK, Family, Monitor, NetError, PathSocket, TunnelConfig, open_path_socket};

/// The interface (or the error) for a destination, for everybody and for marked sockets.
async fn way(monitor: &Monitor, destination: &str, mark: u32) -> String {
    match monitor.source_for(destination.parse().unwrap(), mark, None).await {
        Ok(route) => route.interface,
        Err(NetError::NoRoute { .. }) => "nowhere".to_owned(),
        Err(other) => panic!("{other}"),
    }
}

async fn assert_ways(expected: &[(&str, &str)]) {
    let monitor = Monitor::start().await.unwrap();
    for (destination, interface) in expected {
        assert_eq!(way(&monitor, destination, 0).await, *interface, "to {destination}");
        let marked = way(&monitor, destination, DEFAULT_FWMARK).await;
        assert!(!marked.starts_with("rw"), "a marked packet to {destination} would go to {marked}");
    }
}

#[test]
fn a_full_tunnel_takes_all_but_the_local_network_and_leaves_nothing() {
    isolated("a_full_tunnel_takes_all_but_the_local_network_and_leaves_nothing", |world: World| async move {
        let before = world.system();
        let network = world.network().await;
        let tun = device("rwtun0");
        let wanted = config(&tun, &["10.9.0.2/24", "fd09::2/64"], &["0.0.0.0/0", "::/0"]);
        let applied = network.apply(&wanted).await.unwrap();
        assert!(applied.blocked.is_empty());
        assert_ways(&[
            ("198.51.100.1", "rwtun0"),
            ("2001:db8:2::1", "rwtun0"),
            ("10.9.0.77", "rwtun0"),
            ("192.0.2.1", "wan0"),
            ("203.0.113.1", "wan1"),
            ("2001:db8:1::1", "wan0"),
            ("127.0.0.1", "lo"),
        ])
        .await;
        let monitor = Monitor::start().await.unwrap();
        let inner = monitor.source_for("198.51.100.1".parse().unwrap(), 0, None).await.unwrap();
        assert_eq!(inner.source.to_string(), "10.9.0.2");
        let inner = monitor.source_for("2001:db8:2::1".parse().unwrap(), 0, None).await.unwrap();
        assert_eq!(inner.source.to_string(), "fd09::2");
        let outer = monitor.source_for("198.51.100.1".parse().unwrap(), DEFAULT_FWMARK, None).await.unwrap();
        assert_eq!((outer.source.to_string(), outer.interface), ("192.0.2.2".into(), "wan0".into()));
        assert_eq!(outer.gateway, Some("192.0.2.1".parse().unwrap()));

        network.undo("rwtun0").await.unwrap();
        network.undo("rwtun0").await.unwrap();
        assert!(!sh("ip rule").contains("not from") && !sh("ip -6 rule").contains("not from"));
        assert_eq!(sh("ip -j addr show dev rwtun0").matches("\"local\"").count(), 0);
        drop(tun);
        assert_eq!(world.system(), before);
    });
}

#[test]
fn a_split_tunnel_takes_only_its_prefixes_and_the_longest_prefix_wins() {
    isolated(
        "a_split_tunnel_takes_only_its_prefixes_and_the_longest_prefix_wins",
        |world: World| async move {
            let before = world.system();
            // The local network has a part of what the tunnel has, and a tie.
            sh("ip addr add 10.1.5.9/24 dev wan1");
            sh("ip route add 10.77.0.0/16 via 192.0.2.1");
            let network = world.network().await;
            let tun = device("rwtun0");
            let routes =
                ["10.0.0.0/8", "10.77.0.0/16", "198.51.100.0/24", "2001:db8:2::/48", "10.1.5.200/32"];
            network.apply(&config(&tun, &["172.31.9.2/32", "fd09::2/128"], &routes)).await.unwrap();
            assert_ways(&[
                ("10.2.0.1", "rwtun0"),
                ("10.1.5.1", "wan1"),
                ("10.1.5.200", "rwtun0"),
                ("10.77.0.1", "rwtun0"),
                ("198.51.100.1", "rwtun0"),
                ("198.18.0.1", "wan0"),
                ("2001:db8:2::1", "rwtun0"),
                ("2001:db8:9::1", "wan0"),
            ])
            .await;
            network.undo("rwtun0").await.unwrap();
            sh("ip addr del 10.1.5.9/24 dev wan1");
            sh("ip route del 10.77.0.0/16");
            drop(tun);
            assert_eq!(world.system(), before);
        },
    );
}

#[test]
fn excluded_prefixes_go_the_way_they_went_before() {
    isolated("excluded_prefixes_go_the_way_they_went_before", |world: World| async move {
        let before = world.system();
        let network = world.network().await;
        let tun = device("rwtun0");
        let wanted = TunnelConfig {
            exclude: nets(&["198.51.0.0/16", "2001:db8:2::/48"]),
            ..config(&tun, &["10.9.0.2", "fd09::2"], &["0.0.0.0/0", "::/0", "198.51.100.128/25"])
        };
        network.apply(&wanted).await.unwrap();
        assert_ways(&[
            ("198.51.100.1", "wan0"),
            ("198.51.100.129", "rwtun0"),
            ("198.18.0.1", "rwtun0"),
            ("2001:db8:2::1", "wan0"),
            ("2001:db8:9::1", "rwtun0"),
        ])
        .await;
        network.undo_all().await.unwrap();
        drop(tun);
        assert_eq!(world.system(), before);
    });
}

#[test]
fn a_full_tunnel_of_one_family_does_not_let_the_other_leak() {
    isolated("a_full_tunnel_of_one_family_does_not_let_the_other_leak", |world: World| async move {
        let before = world.system();
        let network = world.network().await;
        let tun = device("rwtun0");
        let applied = network.apply(&config(&tun, &["10.9.0.2"], &["0.0.0.0/0"])).await.unwrap();
        assert_eq!(applied.blocked, nets(&["::/0"]));
        assert_ways(&[("198.51.100.1", "rwtun0"), ("2001:db8:2::1", "nowhere"), ("2001:db8:1::1", "wan0")])
            .await;
        // The outer connection may still use IPv6.
        let monitor = Monitor::start().await.unwrap();
        assert_eq!(way(&monitor, "2001:db8:2::1", DEFAULT_FWMARK).await, "wan0");

        let wanted = config(&tun, &["fd09::2"], &["::/0"]);
        assert_eq!(network.apply(&wanted).await.unwrap().blocked, nets(&["0.0.0.0/0"]));
        assert_ways(&[("198.51.100.1", "nowhere"), ("2001:db8:2::1", "rwtun0")]).await;

        let wanted = TunnelConfig { block_missing_family: false, ..wanted };
        assert!(network.apply(&wanted).await.unwrap().blocked.is_empty());
        assert_ways(&[("198.51.100.1", "wan0"), ("2001:db8:2::1", "rwtun0")]).await;
        network.undo_all().await.unwrap();
        drop(tun);
        assert_eq!(world.system(), before);
    });
}

#[test]
fn a_computer_without_ipv4_gets_a_tunnel_of_either_kind() {
    isolated("a_computer_without_ipv4_gets_a_tunnel_of_either_kind", |world: World| async move {
        for link in ["wan0", "wan1"] {
            sh(&format!("ip -4 addr flush dev {link}"));
        }
        let before = world.system();
        let network = world.network().await;
        let tun = device("rwtun0");
        network.apply(&config(&tun, &["10.9.0.2", "fd09::2"], &["0.0.0.0/0", "::/0"])).await.unwrap();
        assert_ways(&[("198.51.100.1", "rwtun0"), ("2001:db8:2::1", "rwtun0"), ("2001:db8:1::1", "wan0")])
            .await;
        network.undo_all().await.unwrap();
        drop(tun);
        assert_eq!(world.system(), before);
    });
}

#[test]
fn several_tunnels_are_up_at_once_and_each_goes_alone() {
    isolated("several_tunnels_are_up_at_once_and_each_goes_alone", |world: World| async move {
        let before = world.system();
        let network = world.network().await;
        let (full, one, two) = (device("rwtun0"), device("rwtun1"), device("rwtun2"));
        network.apply(&config(&one, &["10.1.0.2"], &["10.0.0.0/8"])).await.unwrap();
        network.apply(&config(&full, &["10.9.0.2", "fd09::2"], &["0.0.0.0/0", "::/0"])).await.unwrap();
        network.apply(&config(&two, &["10.2.0.2", "fd02::2"], &["10.2.0.0/16", "fd02::/16"])).await.unwrap();
        assert_ways(&[
            ("10.1.0.1", "rwtun1"),
            ("10.2.0.1", "rwtun2"),
            ("198.51.100.1", "rwtun0"),
            ("fd02::9", "rwtun2"),
            ("2001:db8:2::1", "rwtun0"),
            ("192.0.2.1", "wan0"),
        ])
        .await;
        network.undo("rwtun0").await.unwrap();
        assert_ways(&[("10.1.0.1", "rwtun1"), ("10.2.0.1", "rwtun2"), ("198.51.100.1", "wan0")]).await;
        network.undo("rwtun1").await.unwrap();
        assert_ways(&[("10.1.0.1", "wan0"), ("10.2.0.1", "rwtun2"), ("fd02::9", "rwtun2")]).await;
        network.undo("rwtun2").await.unwrap();
        drop((full, one, two));
        assert_eq!(world.system(), before);
    });
}

#[test]
fn a_tunnel_moves_to_new_settings_and_still_leaves_nothing() {
    isolated("a_tunnel_moves_to_new_settings_and_still_leaves_nothing", |world: World| async move {
        let before = world.system();
        let network = world.network().await;
        let tun = device("rwtun0");
        network.apply(&config(&tun, &["10.9.0.2/24", "fd09::2/64"], &["0.0.0.0/0", "::/0"])).await.unwrap();
        let wanted =
            TunnelConfig { mtu: 1300, ..config(&tun, &["10.9.0.3/24"], &["0.0.0.0/0", "10.8.0.0/16"]) };
        network.apply(&wanted).await.unwrap();
        assert_ways(&[("198.51.100.1", "rwtun0"), ("10.8.0.1", "rwtun0"), ("2001:db8:2::1", "nowhere")])
            .await;
        let monitor = Monitor::start().await.unwrap();
        let route = monitor.source_for("198.51.100.1".parse().unwrap(), 0, None).await.unwrap();
        assert_eq!(route.source.to_string(), "10.9.0.3");
        let addresses = sh("ip -j addr show dev rwtun0");
        assert!(
            addresses.contains("10.9.0.3") && !addresses.contains("10.9.0.2") && !addresses.contains("fd09")
        );
        assert!(addresses.contains("\"mtu\":1300"), "{addresses}");

        // The same again changes nothing.
        let rules = sh("ip rule");
        network.apply(&wanted).await.unwrap();
        assert_eq!(sh("ip rule"), rules);
        network.undo("rwtun0").await.unwrap();
        drop(tun);
        assert_eq!(world.system(), before);
    });
}

#[test]
fn a_marked_socket_stays_outside_and_an_unmarked_one_does_not() {
    isolated("a_marked_socket_stays_outside_and_an_unmarked_one_does_not", |world: World| async move {
        // Strict filtering would drop the gateway's answers, as the way back to it leads into the tunnel.
        for name in ["all", "default", "wan0", "wan1"] {
            sh(&format!("sysctl -q -w net.ipv4.conf.{name}.rp_filter=1"));
        }
        let before = world.system();
        let network = world.network().await;
        let tun = device("rwtun0");
        network.apply(&config(&tun, &["10.9.0.2", "fd09::2"], &["0.0.0.0/0", "::/0"])).await.unwrap();

        for (family, gateway, local) in [
            (Family::V4, "198.51.100.1:4500", "192.0.2.2"),
            (Family::V6, "[2001:db8:2::1]:4500", "2001:db8:1::2"),
        ] {
            let there = world.socket_there(gateway);
            for (interface, bound) in [(None, None), (Some("wan0".to_owned()), Some(local.parse().unwrap()))]
            {
                let wanted = PathSocket { interface, local: bound, ..PathSocket::new(family) };
                let socket = open_path_socket(&wanted).unwrap();
                socket.send_to(b"outside", gateway).unwrap();
                let mut buffer = [0; 64];
                let (length, from) = there.recv_from(&mut buffer).expect("the gateway hears a marked socket");
                assert_eq!((&buffer[..length], from.ip().to_string().as_str()), (&b"outside"[..], local));
                there.send_to(b"answer", from).unwrap();
                socket.set_nonblocking(false).unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
                let (length, _) = socket.recv_from(&mut buffer).expect("the answer comes in");
                assert_eq!(&buffer[..length], b"answer");
            }
            assert_eq!(next_packet(&tun, Duration::from_millis(50)).await, None);

            let any = if family == Family::V4 { "0.0.0.0:0" } else { "[::]:0" };
            std::net::UdpSocket::bind(any).unwrap().send_to(b"inside", gateway).unwrap();
            let packet = next_packet(&tun, Duration::from_secs(2)).await.expect("others go into the tunnel");
            assert!(packet.ends_with(b"inside"));
        }
        network.undo_all().await.unwrap();
        drop(tun);
        assert_eq!(world.system(), before);
    });
}

#[test]
fn an_address_of_the_local_network_is_refused_and_changes_nothing() {
    isolated("an_address_of_the_local_network_is_refused_and_changes_nothing", |world: World| async move {
        let network = world.network().await;
        let tun = device("rwtun0");
        let before = world.system();
        for (address, allow_overlap) in
            [("192.0.2.77/32", false), ("192.0.2.2/32", true), ("2001:db8:3::2/64", true)]
        {
            let wanted = TunnelConfig { allow_overlap, ..config(&tun, &[address], &[]) };
            let refused = network.apply(&wanted).await.unwrap_err();
            assert!(matches!(refused, NetError::AddressConflict { .. }), "{refused}");
            assert_eq!(world.system(), before);
        }
        let wanted =
            TunnelConfig { allow_overlap: true, ..config(&tun, &["192.0.2.77/32"], &["10.0.0.0/8"]) };
        network.apply(&wanted).await.unwrap();
        network.undo_all().await.unwrap();
    });
}

#[test]
fn what_fails_half_way_is_taken_back() {
    isolated("what_fails_half_way_is_taken_back", |world: World| async move {
        let network = world.network().await;
        let tun = device("rwtun0");
        let good = config(&tun, &["10.9.0.2"], &["10.0.0.0/8"]);
        // The resolver's file cannot be written: a folder stands there.
        std::fs::remove_file("/etc/resolv.conf").unwrap();
        std::fs::create_dir("/etc/resolv.conf").unwrap();
        let bad = TunnelConfig { dns: common::dns(&["10.0.0.53"], &[]), ..good.clone() };
        let before = (sh("ip rule"), sh("ip route show table all"));
        assert!(matches!(network.apply(&bad).await.unwrap_err(), NetError::Dns { .. }));
        assert_eq!((sh("ip rule"), sh("ip route show table all")), before);
        assert_eq!(std::fs::read_dir(world.state_dir()).unwrap().count(), 0);

        network.apply(&good).await.unwrap();
        let before = (sh("ip rule"), sh("ip route show table all"), sh("ip addr"));
        let worse = TunnelConfig { addresses: nets(&["10.9.0.3"]), routes: nets(&["0.0.0.0/0"]), ..bad };
        assert!(matches!(network.apply(&worse).await.unwrap_err(), NetError::Dns { .. }));
        assert_eq!((sh("ip rule"), sh("ip route show table all"), sh("ip addr")), before);
        network.undo_all().await.unwrap();
    });
}

#[test]
fn a_device_that_took_the_name_of_one_that_was_never_undone_is_configured_wholly() {
    isolated(
        "a_device_that_took_the_name_of_one_that_was_never_undone_is_configured_wholly",
        |world: World| async move {
            let before = world.system();
            let network = world.network().await;
            let addresses = ["10.9.0.2", "fd09::2"];
            let of = |tun: &_| config(tun, &addresses, &["0.0.0.0/0", "::/0"]);
            let first = device("rwtun0");
            network.apply(&of(&first)).await.unwrap();
            drop(first);
            let second = device("rwtun0");
            network.apply(&of(&second)).await.unwrap();
            assert_ways(&[("198.51.100.1", "rwtun0"), ("2001:db8:2::1", "rwtun0")]).await;
            assert!(sh("ip addr show rwtun0").contains("10.9.0.2"));
            network.undo_all().await.unwrap();
            drop(second);
            assert_eq!(world.system(), before);
        },
    );
}

#[test]
fn what_could_not_be_undone_is_not_thought_to_stand() {
    isolated("what_could_not_be_undone_is_not_thought_to_stand", |world: World| async move {
        let network = world.network().await;
        let tun = device("rwtun0");
        let wanted = config(&tun, &["10.9.0.2"], &["0.0.0.0/0"]);
        let wanted = TunnelConfig { dns: common::dns(&["10.9.0.53"], &[]), ..wanted };
        network.apply(&wanted).await.unwrap();
        // The resolver's file cannot be put back for a while.
        sh("mount --bind /etc/resolv.conf /etc/resolv.conf");
        sh("mount -o remount,bind,ro /etc/resolv.conf");
        network.undo("rwtun0").await.unwrap_err();
        sh("umount /etc/resolv.conf");
        network.apply(&wanted).await.unwrap();
        assert_ways(&[("198.51.100.1", "rwtun0")]).await;
        assert!(sh("ip addr show rwtun0").contains("10.9.0.2"));
        network.undo_all().await.unwrap();
        assert_ways(&[("198.51.100.1", "wan0")]).await;
    });
}

#[test]
fn a_name_server_of_the_other_family_does_not_let_that_family_leak() {
    isolated("a_name_server_of_the_other_family_does_not_let_that_family_leak", |world: World| async move {
        let network = world.network().await;
        let tun = device("rwtun0");
        let wanted = config(&tun, &["10.9.0.2", "fd09::2"], &["0.0.0.0/0", "fd09::53/128"]);
        let wanted = TunnelConfig { dns: common::dns(&["10.9.0.53", "fd09::53"], &[]), ..wanted };
        assert_eq!(network.apply(&wanted).await.unwrap().blocked, nets(&["::/0"]));
        assert_ways(&[("198.51.100.1", "rwtun0"), ("2001:db8:2::1", "nowhere"), ("fd09::53", "rwtun0")])
            .await;
        network.undo_all().await.unwrap();
    });
}

#[test]
fn what_others_remove_is_noticed_and_put_back() {
    isolated("what_others_remove_is_noticed_and_put_back", |world: World| async move {
        let network = world.network().await;
        let tun = device("rwtun0");
        network.apply(&config(&tun, &["10.9.0.2", "fd09::2"], &["0.0.0.0/0", "::/0"])).await.unwrap();
        let whole = (sh("ip rule"), sh("ip -6 rule"), sh("ip route show table all"));
        for removal in ["ip rule flush", "ip -6 rule flush", "ip route flush table 21079"] {
            let mut disturbed = network.disturbances();
            sh(removal);
            if removal.contains("rule flush") {
                let family = if removal.contains("-6") { "-6" } else { "-4" };
                sh(&format!("ip {family} rule add pref 32766 lookup main"));
                sh(&format!("ip {family} rule add pref 32767 lookup default"));
            }
            if removal.contains("-6") {
                // IPv6 has no default table among its rules.
                sh("ip -6 rule del pref 32767");
            }
            let noticed = tokio::time::timeout(Duration::from_secs(5), disturbed.changed()).await;
            noticed.expect("noticed").unwrap();
            let standing = network.refresh().await.unwrap();
            assert_eq!(standing.len(), 1);
            assert_eq!((sh("ip rule"), sh("ip -6 rule"), sh("ip route show table all")), whole, "{removal}");
        }
        network.undo_all().await.unwrap();
    });
}

#[test]
fn a_computer_with_ipv6_switched_off_gets_a_tunnel_all_the_same() {
    isolated("a_computer_with_ipv6_switched_off_gets_a_tunnel_all_the_same", |world: World| async move {
        sh("sysctl -q -w net.ipv6.conf.all.disable_ipv6=1");
        sh("sysctl -q -w net.ipv6.conf.default.disable_ipv6=1");
        let before = world.system();
        let network = world.network().await;
        let tun = device("rwtun0");
        network.apply(&config(&tun, &["10.9.0.2"], &["0.0.0.0/0"])).await.unwrap();
        assert_ways(&[("198.51.100.1", "rwtun0")]).await;
        // Inside the tunnel IPv6 works, though the computer has none outside.
        network.apply(&config(&tun, &["10.9.0.2", "fd09::2"], &["0.0.0.0/0", "::/0"])).await.unwrap();
        assert_ways(&[("198.51.100.1", "rwtun0"), ("2001:db8:2::1", "rwtun0")]).await;
        network.undo_all().await.unwrap();
        drop(tun);
        assert_eq!(world.system(), before);
    });
}

#[test]
fn a_routed_interface_hides_nothing_from_routing_daemons_and_leaves_what_is_others() {
    isolated(
        "a_routed_interface_hides_nothing_from_routing_daemons_and_leaves_what_is_others",
        |world: World| async move {
            // Somebody else's routes to the same places.
            sh("ip route add 10.5.0.0/16 via 192.0.2.1");
            sh("ip route add 10.6.0.0/16 via 192.0.2.1 metric 700");
            let before = world.system();
            let network = world.network().await;
            let tun = device("rwtun0");
            let listed = ["10.5.0.0/16", "10.6.0.0/16", "2001:db8:2::/48"];
            let wanted = config(&tun, &["10.255.0.1/31", "fd00:255::1/127"], &listed);
            let wanted = TunnelConfig { routed: true, ..wanted };
            network.apply(&wanted).await.unwrap();
            let flags = sh("ip -o link show dev rwtun0");
            assert!(flags.contains("POINTOPOINT") && flags.contains("MULTICAST"), "{flags}");
            let addresses = sh("ip -o addr show dev rwtun0");
            for expected in ["10.255.0.1/31", "fd00:255::1/127", "fe80:"] {
                assert!(addresses.contains(expected), "{expected} is not in {addresses}");
            }
            let rules = [sh("ip rule"), sh("ip -6 rule")].concat();
            assert!(!rules.contains("not from"), "{rules}");
            let table = sh("ip route");
            for expected in [
                "10.255.0.0/31 dev rwtun0 proto kernel",
                "10.5.0.0/16 via 192.0.2.1 dev wan0",
                "10.5.0.0/16 dev rwtun0 proto static scope link metric 50",
                "10.6.0.0/16 dev rwtun0 proto static scope link metric 50",
            ] {
                assert!(table.contains(expected), "{expected} is not in {table}");
            }
            let monitor = Monitor::start().await.unwrap();
            assert_eq!(way(&monitor, "10.5.0.1", 0).await, "wan0", "a better route of somebody else's");
            assert_eq!(way(&monitor, "10.6.0.1", 0).await, "rwtun0");
            assert_eq!(way(&monitor, "2001:db8:2::1", 0).await, "rwtun0");
            // What a daemon learns beats what the profile lists, and stays when that changes.
            sh("ip route add 10.6.0.0/16 via 10.255.0.0 dev rwtun0 metric 32");
            let fewer = TunnelConfig { routes: nets(&["10.6.0.0/16"]), ..wanted };
            network.apply(&fewer).await.unwrap();
            let table = sh("ip route");
            assert!(!table.contains("10.5.0.0/16 dev rwtun0"), "{table}");
            assert!(table.contains("10.6.0.0/16 via 10.255.0.0 dev rwtun0 metric 32"), "{table}");
            network.undo("rwtun0").await.unwrap();
            drop(tun);
            assert_eq!(world.system(), before);
        },
    );
}
