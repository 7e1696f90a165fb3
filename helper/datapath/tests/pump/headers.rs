//! What happens to headers at the tunnel's mouth: ECN, DSCP, DF, MTU, MSS.

use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use ropewalk_datapath::{Config, DataPath, Event};

use crate::lab::{Plan, Tunnel, namespaces};
use crate::peer::{Rig, checksum, option, receive_with_tos, set_option, udp_packet};

const ECT_0: u8 = 0b10;
const CE: u8 = 0b11;

fn is_udp(packet: &[u8]) -> bool {
    match packet[0] >> 4 {
        4 => packet[9] == 17,
        _ => packet[6] == 17,
    }
}

fn sends_with_tos(rig: &mut Rig, tos: u8) -> Vec<u8> {
    let mut outer = Vec::new();
    for (from, to, level, name) in [
        ("10.99.0.1:0", "10.99.0.2:9", libc::SOL_IP, libc::IP_TOS),
        ("[fd99::1]:0", "[fd99::2]:9", libc::SOL_IPV6, libc::IPV6_TCLASS),
    ] {
        let socket = rig.namespace.udp(from);
        set_option(&socket, level, name, tos.into());
        socket.send_to(b"marked", to).unwrap();
        outer.push(rig.receive(is_udp).1);
    }
    outer
}

#[test]
fn ecn_goes_outside_and_dscp_does_not() {
    let mut rig = Rig::new(Config::default());
    assert_eq!(sends_with_tos(&mut rig, 0xb8 | ECT_0), [ECT_0, ECT_0]);
    assert_eq!(sends_with_tos(&mut rig, 0xb8), [0, 0]);
}

#[test]
fn dscp_goes_outside_when_wanted() {
    let mut rig = Rig::new(Config { copy_dscp: true, ..Config::default() });
    assert_eq!(sends_with_tos(&mut rig, 0xb8 | ECT_0), [0xb8 | ECT_0, 0xb8 | ECT_0]);
}

#[test]
fn congestion_experienced_outside_is_told_inside_or_drops_the_packet() {
    let rig = Rig::new(Config::default());
    set_option(&rig.udp, libc::SOL_IP, libc::IP_TOS, CE.into());
    for (seq, at, from) in [(1, "10.99.0.1:7000", "10.99.0.2:9"), (2, "[fd99::1]:7000", "[fd99::2]:9")] {
        let socket = rig.namespace.udp(at);
        // Asked for before anything comes.
        set_option(&socket, libc::SOL_IP, libc::IP_RECVTOS, 1);
        if at.starts_with('[') {
            set_option(&socket, libc::SOL_IPV6, libc::IPV6_RECVTCLASS, 1);
        }
        // Not ECN-capable: dropped, so that what arrives is the second one.
        rig.send(10 * seq, &udp_packet(from, at, 0, b"not capable"));
        rig.send(10 * seq + 1, &udp_packet(from, at, 0xb8 | ECT_0, b"capable"));
        let (payload, tos) = receive_with_tos(&socket);
        assert_eq!((&payload[..], tos), (&b"capable"[..], 0xb8 | CE));
    }
    assert_eq!(rig.inbound.counters().refused, 2);
}

#[test]
fn outer_packets_are_never_fragmented() {
    // The veth's MTU is the path's: what does not fit is not sent in pieces but reported.
    let (a, b) = namespaces();
    for namespace in [&a, &b] {
        namespace.ip("link set out0 mtu 1300");
    }
    let plan = Plan::default();
    let mut tunnel = Tunnel::with(&plan, a, b, [plan.config(), plan.config()]);
    let socket = tunnel.a.namespace.udp("10.99.0.1:0");
    socket.send_to(&[0; 1300], "10.99.0.2:9").unwrap();
    let reported = loop {
        let event = tunnel.a.events.recv_timeout(Duration::from_secs(5)).expect("a PathMtu event");
        if let Event::PathMtu { remote, mtu, .. } = event {
            break (remote.ip(), mtu);
        }
    };
    assert_eq!(reported, (tunnel.b.address.ip(), 1300));
    crate::lab::wait_until("the drop is counted", || tunnel.a.path.counters().tx_dropped >= 1);
    // With the inner MTU that follows, everything fits.
    let inner_mtu = plan.suite.inner_mtu(1300, false) as u16;
    tunnel.a.path.set_inner_mtu(inner_mtu);
    tunnel.b.path.set_inner_mtu(inner_mtu);
    crate::lab::transfer(&tunnel.a.namespace, &tunnel.b.namespace, crate::lab::inner(2, false), 1 << 20);
    crate::lab::transfer(&tunnel.b.namespace, &tunnel.a.namespace, crate::lab::inner(1, true), 1 << 20);
}

/// Sends datagrams until the sender's system has learned the path MTU from the answer.
fn learned_mtu(rig: &Rig, from: &str, to: &str, size: usize) -> i32 {
    let socket = rig.namespace.udp(from);
    socket.connect(to).unwrap();
    let (level, discover, discover_do, mtu) = if from.starts_with('[') {
        (libc::SOL_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO, libc::IPV6_MTU)
    } else {
        (libc::SOL_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO, libc::IP_MTU)
    };
    set_option(&socket, level, discover, discover_do);
    assert_eq!(option(&socket, level, mtu), 1500);
    socket.send(&vec![0; size]).unwrap();
    crate::lab::wait_until("the path MTU is learned", || option(&socket, level, mtu) != 1500);
    option(&socket, level, mtu)
}

#[test]
fn a_packet_that_is_too_big_is_answered_with_the_mtu_that_fits() {
    for vnet_hdr in [true, false] {
        let mut rig = Rig::with(Config { inner_mtu: 1300, ..Config::default() }, 1500, vnet_hdr);
        assert_eq!(learned_mtu(&rig, "10.99.0.1:0", "10.99.0.2:9", 1400), 1300);
        assert_eq!(learned_mtu(&rig, "[fd99::1]:0", "[fd99::2]:9", 1400), 1300);
        assert_eq!(rig.path.counters().tx_too_big, 2);
        // Now it fits, in fragments.
        let socket = rig.namespace.udp("10.99.0.1:0");
        socket.send_to(&[1; 1400], "10.99.0.2:9").unwrap();
        assert!(rig.receive(|packet| packet[0] >> 4 == 4).0.len() <= 1300);
    }
}

#[test]
fn the_mss_of_both_directions_fits_the_inner_mtu() {
    let plan = Plan { tun_mtu: 1500, inner_mtu: 1300, ..Plan::default() };
    let (a, b) = namespaces();
    // Side 2 changes nothing: all clamping is side 1's.
    let generous = Config { inner_mtu: 1500, clamp_mss: false, ..Config::default() };
    let tunnel = Tunnel::with(&plan, a, b, [plan.config(), generous]);
    for (address, connect, headers) in
        [("10.99.0.1:80", "10.99.0.1:80", 40), ("[fd99::1]:80", "[fd99::1]:80", 60)]
    {
        // Side 1 listens: it sees the clamped SYN, and its own SYN|ACK is clamped on the way out.
        let listener = tunnel.a.namespace.enter(move || TcpListener::bind(address).unwrap()).join().unwrap();
        let client = tunnel.b.namespace.enter(move || TcpStream::connect(connect).unwrap()).join().unwrap();
        let (server, _) = listener.accept().unwrap();
        for stream in [&client, &server] {
            let mss = option(stream, libc::IPPROTO_TCP, libc::TCP_MAXSEG);
            // Timestamps take 12 octets of every segment.
            assert_eq!(mss, 1300 - headers - 12);
        }
    }
}

#[test]
fn unclamped_a_large_mss_stays() {
    let plan = Plan { tun_mtu: 1500, inner_mtu: 1500, ..Plan::default() };
    let (a, b) = namespaces();
    let generous = Config { inner_mtu: 1500, clamp_mss: false, ..Config::default() };
    let tunnel = Tunnel::with(&plan, a, b, [generous.clone(), generous]);
    let listener = tunnel.a.namespace.enter(|| TcpListener::bind("10.99.0.1:80").unwrap()).join().unwrap();
    let client = tunnel.b.namespace.enter(|| TcpStream::connect("10.99.0.1:80").unwrap()).join().unwrap();
    let _server = listener.accept().unwrap();
    assert_eq!(option(&client, libc::IPPROTO_TCP, libc::TCP_MAXSEG), 1460 - 12);
}

#[test]
fn checksums_left_to_the_device_are_completed() {
    for offloads in [true, false] {
        let mut rig = Rig::new(Config { offloads, ..Config::default() });
        for (from, to) in [("10.99.0.1:0", "10.99.0.2:9"), ("[fd99::1]:0", "[fd99::2]:9")] {
            let socket = rig.namespace.udp(from);
            socket.send_to(b"payload of odd length", to).unwrap();
            let (packet, _) = rig.receive(is_udp);
            let (addresses, udp) = if packet[0] >> 4 == 4 {
                (&packet[12..20], &packet[20..])
            } else {
                (&packet[8..40], &packet[40..])
            };
            let mut covered = addresses.to_vec();
            covered.extend((udp.len() as u32).to_be_bytes());
            covered.extend([0, 0, 0, 17]);
            covered.extend(udp);
            assert_eq!(checksum(&covered), [0, 0], "{packet:02x?}");
        }
    }
}

#[test]
fn a_device_that_is_no_tun_is_refused() {
    let fd = std::fs::File::open("/dev/null").unwrap().into();
    let tun = ropewalk_datapath::TunFd { fd, vnet_hdr: true };
    assert!(DataPath::start(tun, Config::default()).is_err());
}
