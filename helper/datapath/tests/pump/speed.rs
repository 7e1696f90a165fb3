//! How well batches work: packets by system calls.

use ropewalk_datapath::Counters;

use crate::lab::{Plan, Tunnel, inner, transfer};

/// Carries 32 MiB and returns what the sender's pump sent and what the receiver's pump received, per system call of the
/// thread that did it.
fn packets_per_call(plan: &Plan, ipv6: bool) -> (f64, f64) {
    let tunnel = Tunnel::new(plan);
    let before = (tunnel.a.path.counters(), tunnel.b.path.counters());
    let start = std::time::Instant::now();
    transfer(&tunnel.a.namespace, &tunnel.b.namespace, inner(2, ipv6), 32 << 20);
    let seconds = start.elapsed().as_secs_f64();
    let after = (tunnel.a.path.counters(), tunnel.b.path.counters());
    let ratio = |packets: fn(&Counters) -> u64, calls: fn(&Counters) -> u64, from: Counters, to: Counters| {
        (packets(&to) - packets(&from)) as f64 / (calls(&to) - calls(&from)) as f64
    };
    let sent = ratio(|c| c.tx_packets, |c| c.tx_syscalls, before.0, after.0);
    let received = ratio(|c| c.rx_packets, |c| c.rx_syscalls, before.1, after.1);
    println!(
        "ipv6 {ipv6} offloads {}: {sent:.1} packets per call sending, {received:.1} receiving, {:.0} Mbit/s",
        plan.offloads,
        32.0 * 8.0 * 1.048_576 / seconds
    );
    (sent, received)
}

#[test]
fn a_tcp_transfer_averages_at_least_8_packets_per_system_call() {
    for ipv6 in [false, true] {
        let (sent, received) = packets_per_call(&Plan::default(), ipv6);
        assert!(sent >= 8.0, "{sent:.1} packets per call sending");
        assert!(received >= 8.0, "{received:.1} packets per call receiving");
    }
}

#[test]
fn the_same_transfer_passes_without_offloads() {
    for ipv6 in [false, true] {
        let (sent, received) = packets_per_call(&Plan { offloads: false, ..Plan::default() }, ipv6);
        assert!(sent > 0.0 && received > 0.0);
    }
}
