//! The monitor sees what happens to interfaces.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{World, config, device, isolated, sh};
use ropewalk_net::{Family, InterfaceKind, Monitor, NetError, NextHop, NextHops, Snapshot};
use tokio::sync::watch;

/// Waits for a snapshot of which something holds.
async fn until(
    what: &str,
    states: &mut watch::Receiver<Arc<Snapshot>>,
    holds: impl FnMut(&Arc<Snapshot>) -> bool,
) -> Arc<Snapshot> {
    let waiting = tokio::time::timeout(Duration::from_secs(10), states.wait_for(holds)).await;
    Arc::clone(&waiting.unwrap_or_else(|_| panic!("never seen: {what}")).unwrap())
}

fn uplinks(snapshot: &Snapshot) -> Vec<(String, Family, String)> {
    let all = snapshot.candidates();
    all.into_iter().map(|c| (c.interface, c.family, c.address.to_string())).collect()
}

fn uplink(interface: &str, family: Family, address: &str) -> (String, Family, String) {
    (interface.to_owned(), family, address.to_owned())
}

#[test]
fn the_first_snapshot_tells_what_there_is() {
    isolated("the_first_snapshot_tells_what_there_is", |_world: World| async move {
        let monitor = Monitor::start().await.unwrap();
        let snapshot = monitor.snapshot();
        let wan0 = snapshot.interface("wan0").unwrap();
        assert!(wan0.up && wan0.mtu == 1500 && wan0.kind == InterfaceKind::Virtual);
        let addresses: Vec<String> = wan0.addresses.iter().map(|a| a.net.to_string()).collect();
        assert_eq!(addresses, ["192.0.2.2/24", "2001:db8:1::2/64"]);
        assert!(wan0.addresses.iter().all(|a| a.global && !a.tentative && !a.deprecated && !a.temporary));
        let route = wan0.default_v4.as_ref().unwrap();
        assert_eq!((route.gateway, route.metric), (Some("192.0.2.1".parse().unwrap()), 100));
        assert_eq!(wan0.default_v6.as_ref().unwrap().gateway, Some("2001:db8:1::1".parse().unwrap()));
        assert!(snapshot.interface("wan1").unwrap().default_v4.is_none());
        assert_eq!(snapshot.interface("lo").unwrap().kind, InterfaceKind::Loopback);
        let expected = [uplink("wan0", Family::V4, "192.0.2.2"), uplink("wan0", Family::V6, "2001:db8:1::2")];
        assert_eq!(uplinks(&snapshot), expected);
    });
}

#[test]
fn carrier_address_and_default_route_changes_are_seen() {
    isolated("carrier_address_and_default_route_changes_are_seen", |world: World| async move {
        let monitor = Monitor::start().await.unwrap();
        let mut states = monitor.watch();

        sh("ip route add default via 203.0.113.1 dev wan1 metric 50");
        let now = until("a second default route", &mut states, |s| s.candidates().len() == 3).await;
        assert_eq!(uplinks(&now)[0], uplink("wan1", Family::V4, "203.0.113.2"));

        sh("ip addr add 203.0.113.9/24 dev wan1");
        until("a new address", &mut states, |s| {
            s.interface("wan1").unwrap().addresses.iter().any(|a| a.net.addr().to_string() == "203.0.113.9")
        })
        .await;
        sh("ip addr change 2001:db8:1::2/64 dev wan0 preferred_lft 0 valid_lft 600 nodad");
        until("a deprecated address", &mut states, |s| {
            s.interface("wan0").unwrap().addresses.iter().any(|a| a.deprecated)
        })
        .await;
        sh("ip addr add 2001:db8:1::3/64 dev wan0 nodad");
        let now = until("one that is not", &mut states, |s| {
            s.interface("wan0").unwrap().best_address(Family::V6) == Some("2001:db8:1::3".parse().unwrap())
        })
        .await;
        assert!(uplinks(&now).contains(&uplink("wan0", Family::V6, "2001:db8:1::3")));

        // The cable is pulled at the other end.
        let pulled = Instant::now();
        world.there("ip link set wan1 down");
        let now = until("carrier loss", &mut states, |s| !s.interface("wan1").unwrap().up).await;
        assert!(pulled.elapsed() < Duration::from_secs(3), "after {:?}", pulled.elapsed());
        assert!(!uplinks(&now).iter().any(|(name, _, _)| name == "wan1"));
        world.there("ip link set wan1 up");
        until("carrier again", &mut states, |s| s.interface("wan1").unwrap().up).await;

        sh("ip route del default via 192.0.2.1 dev wan0");
        until("the lost default route", &mut states, |s| s.interface("wan0").unwrap().default_v4.is_none())
            .await;
        sh("ip link del wan0");
        until("the lost interface", &mut states, |s| s.interface("wan0").is_none()).await;
    });
}

#[test]
fn a_multipath_default_route_counts_for_each_of_its_interfaces() {
    isolated("a_multipath_default_route_counts_for_each_of_its_interfaces", |_world: World| async move {
        sh("ip route del default");
        sh("ip route add default nexthop via 192.0.2.1 dev wan0 nexthop via 203.0.113.1 dev wan1");
        let found = uplinks(&Monitor::start().await.unwrap().snapshot());
        assert!(found.contains(&uplink("wan0", Family::V4, "192.0.2.2")));
        assert!(found.contains(&uplink("wan1", Family::V4, "203.0.113.2")));
    });
}

#[test]
fn a_tunnel_is_no_uplink_and_does_not_disturb_the_watchers_without_end() {
    isolated(
        "a_tunnel_is_no_uplink_and_does_not_disturb_the_watchers_without_end",
        |world: World| async move {
            let monitor = Monitor::start().await.unwrap();
            let mut states = monitor.watch();
            let network = world.network().await;
            let tun = device("rwtun0");
            network.apply(&config(&tun, &["10.9.0.2", "fd09::2"], &["0.0.0.0/0", "::/0"])).await.unwrap();
            let now = until("the device", &mut states, |s| {
                s.interface("rwtun0").is_some_and(|i| i.up && i.addresses.len() == 2)
            })
            .await;
            assert_eq!(now.interface("rwtun0").unwrap().kind, InterfaceKind::Tun);
            assert_eq!(uplinks(&now).len(), 2);
            assert!(uplinks(&now).iter().all(|(name, _, _)| name == "wan0"));
            // A route in another table is none of the watchers' business.
            tokio::time::sleep(Duration::from_millis(300)).await;
            states.mark_unchanged();
            sh("ip route add 198.18.0.0/15 via 192.0.2.1 table 77");
            let woken = tokio::time::timeout(Duration::from_millis(500), states.changed()).await;
            assert!(woken.is_err(), "nothing that is in a snapshot changed");
        },
    );
}

#[test]
fn the_way_to_a_destination_follows_interface_and_mark() {
    isolated("the_way_to_a_destination_follows_interface_and_mark", |_world: World| async move {
        sh("ip route add default via 203.0.113.1 dev wan1 metric 500");
        let monitor = Monitor::start().await.unwrap();
        let gateway = "198.51.100.1".parse().unwrap();
        let by = monitor.source_for(gateway, 0, None).await.unwrap();
        assert_eq!((by.interface.as_str(), by.source.to_string().as_str()), ("wan0", "192.0.2.2"));
        let by = monitor.source_for(gateway, 0, Some("wan1")).await.unwrap();
        assert_eq!((by.interface.as_str(), by.source.to_string().as_str()), ("wan1", "203.0.113.2"));
        sh("ip rule add fwmark 7 lookup 70");
        sh("ip route add default via 203.0.113.1 dev wan1 table 70");
        assert_eq!(monitor.source_for(gateway, 7, None).await.unwrap().interface, "wan1");
        sh("ip route flush table main");
        let lost = monitor.source_for(gateway, 0, None).await.unwrap_err();
        assert!(matches!(lost, NetError::NoRoute { .. }));
        let none = monitor.source_for(gateway, 0, Some("wan9")).await.unwrap_err();
        assert!(matches!(none, NetError::NoSuchInterface { .. }));
    });
}

#[test]
fn what_is_lost_is_told_without_waiting_for_the_end_of_the_burst() {
    isolated("what_is_lost_is_told_without_waiting_for_the_end_of_the_burst", |_world: World| async move {
        let monitor = Monitor::start().await.unwrap();
        let mut states = monitor.watch();
        let has = |snapshot: &Arc<Snapshot>| {
            let addresses = &snapshot.interface("wan1").unwrap().addresses;
            addresses.iter().any(|address| address.net.addr().to_string() == "203.0.113.9")
        };
        let (mut came, mut went) = (Duration::MAX, Duration::MAX);
        for _ in 0..5 {
            let began = Instant::now();
            sh("ip addr add 203.0.113.9/24 dev wan1");
            until("a new address", &mut states, has).await;
            came = came.min(began.elapsed());
            let began = Instant::now();
            sh("ip addr del 203.0.113.9/24 dev wan1");
            until("that it is gone", &mut states, |snapshot| !has(snapshot)).await;
            went = went.min(began.elapsed());
        }
        assert!(went + Duration::from_millis(15) < came, "gone after {went:?}, there after {came:?}");
    });
}

#[test]
fn next_hops_on_a_device_are_told_as_they_come_and_go_in_any_table() {
    isolated("next_hops_on_a_device_are_told_as_they_come_and_go_in_any_table", |world: World| async move {
        let tun = device("rwtun0");
        let network = world.network().await;
        network.apply(&config(&tun, &["10.9.0.2", "fd00::2"], &["10.9.0.0/16", "fd00::/16"])).await.unwrap();
        let before = NextHops::start(tun.index()).await.unwrap();
        let mut states = before.watch();
        assert!(states.borrow().is_empty(), "the tunnel's own routes have none");
        let shown = |hops: &Arc<Vec<NextHop>>| -> Vec<String> {
            hops.iter().map(|hop| format!("{} {}", hop.prefix, hop.via)).collect()
        };
        let name = tun.name();
        sh(&format!("ip route add 10.9.1.0/24 via 192.0.2.7 dev {name} onlink table 88 metric 20"));
        sh(&format!("ip route add 10.9.2.0/24 via inet6 2001:db8::7 dev {name} onlink"));
        sh(&format!("ip -6 route add fd00:1::/48 via 2001:db8::7 dev {name} onlink table 88"));
        sh(&format!("ip -6 route add fd00:2::/48 via 64:ff9b::192.0.2.7 dev {name} onlink table 88"));
        // Others' routes, those without a next hop, and the worse of two are none of it.
        sh("ip route add 10.9.3.0/24 via 192.0.2.1 dev wan0");
        sh(&format!("ip route add 10.9.4.0/24 dev {name}"));
        sh(&format!("ip route add 10.9.1.0/24 via 192.0.2.8 dev {name} onlink metric 30"));
        let expected = [
            "10.9.1.0/24 192.0.2.7",
            "10.9.2.0/24 2001:db8::7",
            "fd00:1::/48 2001:db8::7",
            "fd00:2::/48 64:ff9b::c000:207",
        ];
        let waiting =
            tokio::time::timeout(Duration::from_secs(10), states.wait_for(|now| shown(now) == expected))
                .await;
        waiting.unwrap_or_else(|_| panic!("never seen: {expected:?}")).unwrap();
        let after = NextHops::start(tun.index()).await.unwrap();
        assert_eq!(shown(&after.watch().borrow()), expected, "those that are there at the start");
        sh("ip route flush table 88");
        sh("ip -6 route flush table 88");
        let expected = ["10.9.1.0/24 192.0.2.8", "10.9.2.0/24 2001:db8::7"];
        let waiting =
            tokio::time::timeout(Duration::from_secs(10), states.wait_for(|now| shown(now) == expected))
                .await;
        waiting.unwrap_or_else(|_| panic!("never seen: {expected:?}")).unwrap();
    });
}
