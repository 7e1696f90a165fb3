//! What goes in on one side comes out on the other.

use ropewalk_datapath::Framing;
use ropewalk_datapath::esp::EspSuite;

use crate::lab::{Plan, Tunnel, arrived, inner, suite, transfer, wait_until};
use crate::peer::retried;
use crate::peer::set_option;

fn ping(tunnel: &Tunnel, size: u16) {
    for destination in ["10.99.0.2", "fd99::2"] {
        tunnel.a.namespace.exec(&format!("ping -c 3 -i 0.02 -W 5 -s {size} {destination}"));
    }
    for destination in ["10.99.0.1", "fd99::1"] {
        tunnel.b.namespace.exec(&format!("ping -c 1 -W 5 -s {size} {destination}"));
    }
}

fn everything(plan: &Plan) {
    let tunnel = Tunnel::new(plan);
    ping(&tunnel, 56);
    // Fragments on the inside.
    ping(&tunnel, 4000);
    for ipv6 in [false, true] {
        transfer(&tunnel.a.namespace, &tunnel.b.namespace, inner(2, ipv6), 6 << 20);
        transfer(&tunnel.b.namespace, &tunnel.a.namespace, inner(1, ipv6), 6 << 20);
    }
    for (end, other) in [(&tunnel.a, &tunnel.b), (&tunnel.b, &tunnel.a)] {
        // Counted a moment after it happened, and the system's own chatter on the device may go on.
        wait_until("all counters agree", || {
            let (counters, sa) = (end.path.counters(), end.inbound.counters());
            arrived(end, other)
                && (sa.packets, sa.bytes) == (counters.rx_packets, counters.rx_bytes)
                && end.outbound.sequence() == end.outbound.counters().packets
        });
        let counters = end.path.counters();
        let bad = [counters.tx_malformed, counters.rx_malformed, counters.rx_failed, counters.rx_refused];
        assert_eq!(bad, [0; 4], "{counters:?}");
        assert_eq!(counters.rx_replayed + counters.rx_unknown_spi + counters.rx_dropped, 0, "{counters:?}");
        assert_eq!(counters.tx_too_big + counters.tx_dropped, 0, "{counters:?}");
        assert!(end.inbound.counters().last.is_some() && end.outbound.counters().last.is_some());
        assert_eq!(counters.tx_super_packets > 0, plan.offloads && plan.vnet_hdr, "{counters:?}");
        assert_eq!(counters.rx_super_packets > 0, plan.offloads && plan.vnet_hdr, "{counters:?}");
    }
}

#[test]
fn over_ipv4_with_offloads() {
    everything(&Plan::default());
}

#[test]
fn over_ipv4_without_offloads() {
    everything(&Plan { offloads: false, ..Plan::default() });
}

#[test]
fn over_ipv4_with_a_device_without_vnet_header() {
    everything(&Plan { vnet_hdr: false, ..Plan::default() });
}

#[test]
fn over_ipv6_with_offloads() {
    everything(&Plan { outer_ipv6: true, ..Plan::default() });
}

#[test]
fn over_ipv6_without_offloads() {
    everything(&Plan { outer_ipv6: true, offloads: false, ..Plan::default() });
}

#[test]
fn with_every_other_suite() {
    let suites: [EspSuite; 4] = [suite(20, 256, 0), suite(28, 0, 0), suite(12, 128, 12), suite(12, 256, 14)];
    for suite in suites {
        let tunnel = Tunnel::new(&Plan { suite, ..Plan::default() });
        transfer(&tunnel.a.namespace, &tunnel.b.namespace, inner(2, false), 2 << 20);
        transfer(&tunnel.b.namespace, &tunnel.a.namespace, inner(1, true), 2 << 20);
    }
}

#[test]
fn datagrams_of_all_sizes_each_whole() {
    for offloads in [true, false] {
        let tunnel = Tunnel::new(&Plan { offloads, ..Plan::default() });
        for (from, to) in [("10.99.0.1:0", "10.99.0.2:0"), ("[fd99::1]:0", "[fd99::2]:0")] {
            let sender = tunnel.a.namespace.udp(from);
            let receiver = tunnel.b.namespace.udp(to);
            sender.connect(receiver.local_addr().unwrap()).unwrap();
            let mut buffer = [0; 4096];
            for size in [0usize, 1, 2, 3, 100, 1000, 1330, 1352, 1353, 1372, 1373, 3000] {
                let payload: Vec<u8> = (0..size).map(|i| (i * 7 + size) as u8).collect();
                sender.send(&payload).unwrap();
                let len = retried(|| receiver.recv(&mut buffer));
                assert_eq!(buffer[..len], payload, "{size}");
            }
        }
    }
}

#[test]
fn udp_super_packets_arrive_as_the_datagrams_they_are() {
    let tunnel = Tunnel::new(&Plan::default());
    for (from, to) in [("10.99.0.1:0", "10.99.0.2:0"), ("[fd99::1]:0", "[fd99::2]:0")] {
        let sender = tunnel.a.namespace.udp(from);
        let receiver = tunnel.b.namespace.udp(to);
        sender.connect(receiver.local_addr().unwrap()).unwrap();
        // UDP_SEGMENT on the inside: the device is given one super-packet.
        set_option(&sender, libc::SOL_UDP, libc::UDP_SEGMENT, 1200);
        let payload: Vec<u8> = (0..1200 * 30 + 77).map(|i| (i / 1200 + i) as u8).collect();
        sender.send(&payload).unwrap();
        let mut buffer = [0; 4096];
        for expected in payload.chunks(1200) {
            let len = retried(|| receiver.recv(&mut buffer));
            assert!(buffer[..len] == *expected);
        }
    }
    // The last packet may arrive before its thread has counted it.
    wait_until("one super-packet a family", || {
        let (sent, received) = (tunnel.a.path.counters(), tunnel.b.path.counters());
        assert_eq!(received.rx_dropped, 0, "{received:?}");
        sent.tx_super_packets == 2 && received.rx_super_packets >= 2
    });
}

#[test]
fn a_kernel_that_refuses_segmentation_after_all_is_gone_on_without() {
    let tunnel = Tunnel::new(&Plan::default());
    // The probe finds UDP_SEGMENT, but a socket without checksums refuses to use it.
    let udp = tunnel.a.namespace.udp("192.0.2.1:0");
    set_option(&udp, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1);
    let socket = tunnel.a.path.add_socket(udp, Framing::ByRemotePort).unwrap();
    let egress = ropewalk_datapath::Egress { socket, ..tunnel.a.egress(tunnel.b.address) };
    tunnel.a.path.set_default(Some(egress.into())).unwrap();
    transfer(&tunnel.a.namespace, &tunnel.b.namespace, inner(2, false), 4 << 20);
    let counters = tunnel.a.path.counters();
    assert!(counters.tx_super_packets > 0, "{counters:?}");
    assert_eq!(counters.tx_dropped, 0, "{counters:?}");
    assert!(counters.tx_packets > (4 << 20) / 1400, "{counters:?}");
}
