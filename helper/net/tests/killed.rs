//! What a killed helper leaves is removed by the next.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use common::{World, config, device, dns, eventually, isolated, sh};
use ropewalk_net::{Network, NetworkSettings, TunnelConfig};

const STATE: &str = "ROPEWALK_NET_KILLED_STATE";

/// The helper that is going to be killed: configures two tunnels, says so, and waits.
#[test]
fn helper_to_be_killed() {
    let Ok(state) = std::env::var(STATE) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let network = Network::open(NetworkSettings::new(PathBuf::from(state))).await.unwrap();
        let (full, split) = (device("rwtun0"), device("rwtun1"));
        let wanted = config(&full, &["10.9.0.2", "fd09::2"], &["0.0.0.0/0", "::/0"]);
        let exclude = common::nets(&["198.51.100.0/24", "2001:db8:2::/48"]);
        network.apply(&TunnelConfig { dns: dns(&["10.9.0.53"], &[]), exclude, ..wanted }).await.unwrap();
        // IPv6 is made unreachable, which outlives the device.
        let wanted = config(&split, &["10.8.0.2"], &["10.0.0.0/8"]);
        network.apply(&TunnelConfig { dns: dns(&["10.8.0.53"], &["corp.example"]), ..wanted }).await.unwrap();
        println!("\nconfigured");
        std::future::pending::<()>().await;
    });
}

/// Starts it and waits until it has configured its tunnels.
fn start(world: &World) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "helper_to_be_killed", "--nocapture"])
        .env(STATE, world.state_dir())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines.map_while(Result::ok).any(|line| line == "configured");
    assert!(ready, "the helper ended early");
    child
}

async fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the devices go with the process", || !sh("ip link").contains("rwtun")).await;
}

#[test]
fn the_sweep_after_a_kill_leaves_what_was_there_before() {
    isolated("the_sweep_after_a_kill_leaves_what_was_there_before", |world: World| async move {
        sh("sysctl -q -w net.ipv4.conf.wan0.rp_filter=1");
        let before = world.system();
        kill(start(&world)).await;
        assert_ne!(world.system(), before, "a kill leaves something, or this test shows nothing");
        assert!(sh("ip rule").contains("not from all fwmark 0x5257"));

        let network = world.network().await;
        let report = network.sweep().await.unwrap();
        assert_eq!(report.devices, ["rwtun0", "rwtun1"]);
        assert!(report.dns_restored && !report.journal_unreadable);
        assert_eq!(world.system(), before);
        assert_eq!(network.sweep().await.unwrap(), ropewalk_net::SweepReport::default());
    });
}

#[test]
fn a_sweep_while_the_old_device_still_stands_removes_it() {
    isolated("a_sweep_while_the_old_device_still_stands_removes_it", |world: World| async move {
        let before = world.system();
        let helper = start(&world);
        // Another process holds the device open, as a thread that will not die does.
        world.network().await.sweep().await.unwrap();
        assert!(!sh("ip link").contains("rwtun"));
        kill(helper).await;
        assert_eq!(world.system(), before);
    });
}

#[test]
fn an_unreadable_journal_does_not_keep_the_sweep_from_removing_our_rules() {
    isolated(
        "an_unreadable_journal_does_not_keep_the_sweep_from_removing_our_rules",
        |world: World| async move {
            let (rules, routes) = (sh("ip rule"), sh("ip route show table all"));
            let text = std::fs::read("/etc/resolv.conf").unwrap();
            kill(start(&world)).await;
            std::fs::write(world.state_dir().join("net-journal.json"), b"{\"format\":1,").unwrap();
            // Somebody else's rule stays.
            sh("ip rule add pref 6000 from 198.18.0.1 lookup 100");
            let report = world.network().await.sweep().await.unwrap();
            assert!(report.journal_unreadable && report.dns_restored);
            sh("ip rule del pref 6000");
            assert_eq!((sh("ip rule"), sh("ip route show table all")), (rules, routes));
            assert!(!sh("ip -6 rule").contains("not from"));
            assert_eq!(std::fs::read("/etc/resolv.conf").unwrap(), text);
            // The next start is an ordinary one.
            let network = world.network().await;
            assert!(!network.sweep().await.unwrap().journal_unreadable);
            let tun = device("rwtun0");
            network.apply(&config(&tun, &["10.9.0.2"], &["10.0.0.0/8"])).await.unwrap();
            network.undo_all().await.unwrap();
        },
    );
}

#[test]
fn after_a_reboot_only_files_are_put_back() {
    isolated("after_a_reboot_only_files_are_put_back", |world: World| async move {
        let text = std::fs::read("/etc/resolv.conf").unwrap();
        kill(start(&world)).await;
        let path = world.state_dir().join("net-journal.json");
        let journal = std::fs::read_to_string(&path).unwrap();
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        assert!(journal.contains(boot.trim()));
        std::fs::write(&path, journal.replace(boot.trim(), "another-boot")).unwrap();
        let rules = sh("ip rule");
        let report = world.network().await.sweep().await.unwrap();
        assert!(report.dns_restored);
        assert_eq!(std::fs::read("/etc/resolv.conf").unwrap(), text);
        // Numbers of an earlier boot say nothing about the rules of this one.
        assert_eq!(sh("ip rule"), rules);
    });
}

#[test]
fn a_tunnel_applied_before_any_sweep_does_not_take_a_leftovers_table() {
    isolated(
        "a_tunnel_applied_before_any_sweep_does_not_take_a_leftovers_table",
        |world: World| async move {
            kill(start(&world)).await;
            std::fs::remove_file(world.state_dir().join("net-journal.json")).unwrap();
            let network = world.network().await;
            let tun = device("rwtun5");
            let applied = network.apply(&config(&tun, &["10.9.0.2"], &["10.0.0.0/8"])).await.unwrap();
            assert_eq!(applied.table, 21081);
            network.undo_all().await.unwrap();
        },
    );
}
