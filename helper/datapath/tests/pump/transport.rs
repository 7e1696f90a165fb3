//! IP in IP in transport mode (RFC 3884): the octets of tunnel mode, bound to outer addresses, no selectors inside, and
//! devices of their own for neighbours.

use std::net::{IpAddr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use ropewalk_datapath::{
    Config, DeviceId, Egress, Event, InboundHandle, InboundSpec, OutboundHandle, Selector,
};

use crate::lab::{aes_gcm, any_inbound, inbound, outbound, wait_until};
use crate::peer::{Rig, SPI_IN, SPI_OUT, checksum, retried, udp_packet};

const HERE: &str = "127.0.0.1";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A rig whose inbound SA is one in transport mode.
fn routed() -> (Rig, InboundHandle) {
    let mut rig = Rig::new(Config::default());
    rig.path.remove_inbound(SPI_IN);
    let spec = InboundSpec {
        outer: Some((ip(HERE), ip(HERE))),
        peer: Some((rig.socket, rig.udp.local_addr().unwrap())),
        ..any_inbound(SPI_IN, aes_gcm())
    };
    rig.inbound = rig.path.add_inbound(spec).unwrap();
    let inbound = rig.inbound.clone();
    (rig, inbound)
}

/// Reads what passes the loopback device, IP header included.
struct Tap(OwnedFd);

impl Tap {
    fn new(rig: &Rig) -> Self {
        let open = || {
            // SAFETY: socket takes numbers and returns a new descriptor.
            let fd = unsafe {
                libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM, i32::from((libc::ETH_P_IP as u16).to_be()))
            };
            assert!(fd >= 0, "{}", std::io::Error::last_os_error());
            // SAFETY: it was just opened, nobody else owns it.
            unsafe { OwnedFd::from_raw_fd(fd) }
        };
        let tap = rig.namespace.enter(open).join().unwrap();
        let limit = libc::timeval { tv_sec: 5, tv_usec: 0 };
        // SAFETY: the pointer and the length are those of `limit`.
        unsafe {
            libc::setsockopt(
                tap.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVTIMEO,
                (&raw const limit).cast(),
                size_of_val(&limit) as u32,
            )
        };
        Self(tap)
    }

    /// The next packet with ESP of the pump's SPI.
    fn esp(&self) -> Vec<u8> {
        loop {
            let mut buffer = vec![0; 2000];
            let len = retried(|| {
                // SAFETY: the pointer and the length are those of `buffer`.
                let len =
                    unsafe { libc::recv(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
                usize::try_from(len).map_err(|_| std::io::Error::last_os_error())
            });
            buffer.truncate(len);
            if buffer.get(28..32) == Some(&SPI_OUT.to_be_bytes()) {
                return buffer;
            }
        }
    }
}

/// Has the system send this packet through the device as it stands.
fn route(rig: &Rig, packet: &[u8]) {
    let destination = <[u8; 4]>::try_from(&packet[16..20]).unwrap();
    let packet = packet.to_vec();
    let send = move || {
        // SAFETY: socket takes numbers and returns a new descriptor.
        let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW) };
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        // SAFETY: it was just opened, nobody else owns it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: all zero is a valid sockaddr_in.
        let mut to: libc::sockaddr_in = unsafe { std::mem::zeroed() };
        to.sin_family = libc::AF_INET as u16;
        to.sin_addr.s_addr = u32::from_ne_bytes(destination);
        // SAFETY: packet and address are locals with their lengths.
        let sent = unsafe {
            libc::sendto(
                socket.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const to).cast(),
                size_of_val(&to) as u32,
            )
        };
        assert_eq!(sent, packet.len() as isize, "{}", std::io::Error::last_os_error());
    };
    rig.namespace.enter(send).join().unwrap();
}

#[test]
fn the_octets_on_the_wire_are_those_of_tunnel_mode_field_by_field() {
    // Key, SPI and first sequence number of both rigs are the same, and with them the IV.
    let tunnel = Rig::new(Config::default());
    let (transport, _) = routed();
    for (ttl, payload) in [(64, &b"a packet"[..]), (1, &[7; 1000]), (255, b"")] {
        let mut inner = udp_packet("10.99.0.1:7000", "10.99.0.2:9", 0, payload);
        inner[8] = ttl;
        inner[10..12].copy_from_slice(&[0, 0]);
        let sum = checksum(&inner[..20]);
        inner[10..12].copy_from_slice(&sum);
        let seen: Vec<Vec<u8>> = [&tunnel, &transport]
            .into_iter()
            .map(|rig| {
                let tap = Tap::new(rig);
                route(rig, &inner);
                tap.esp()
            })
            .collect();
        let [one, other] = seen.as_slice() else { unreachable!() };
        for (field, range) in [
            ("version and header length", 0..1),
            ("type of service", 1..2),
            ("total length", 2..4),
            ("don't fragment, and no fragment", 6..8),
            ("time to live", 8..9),
            ("protocol", 9..10),
            ("source", 12..16),
            ("destination", 16..20),
            ("UDP length", 24..26),
            ("SPI", 28..32),
            ("sequence number", 32..36),
            ("IV", 36..44),
        ] {
            assert_eq!(one[range.clone()], other[range], "{field}");
        }
        assert_eq!(one[44..], other[44..], "what is encrypted, and its check value");
        assert_eq!((one[6], one[9]), (0x40, 17));
        // RFC 2003: the outer header has a time to live of its own, and the inner one is what the system sent.
        let mut sealed = other[28..].to_vec();
        let mut open = inbound(SPI_OUT, aes_gcm());
        let opened = open.open(&mut sealed).unwrap();
        assert_eq!((other[8], opened.next_header), (64, 4));
        assert_eq!(sealed[opened.range], inner, "the inner packet stands in ESP at once, untouched");
    }
}

#[test]
fn packets_from_or_to_other_outer_addresses_are_refused_whatever_they_hold() {
    let (mut rig, inbound) = routed();
    let packet = udp_packet("10.99.0.2:9", "10.99.0.1:7000", 0, b"inside");
    let application = rig.namespace.udp("10.99.0.1:7000");
    // The peer's port is a NAT's business.
    let rebound = rig.namespace.udp("127.0.0.1:0");
    rebound.send_to(&rig.sealed(1, &packet, 4), rig.address).unwrap();
    let mut buffer = [0; 100];
    assert_eq!(retried(|| application.recv(&mut buffer)), 6);
    let moved = rig.event(|event| matches!(event, Event::PeerMoved { .. }));
    assert!(matches!(moved, Event::PeerMoved { remote, .. } if remote == rebound.local_addr().unwrap()));
    let before = inbound.counters().last;
    for source in ["127.0.0.2:0", "127.0.0.3:0"] {
        let stranger = rig.namespace.udp(source);
        stranger.send_to(&rig.sealed(2, &packet, 4), rig.address).unwrap();
    }
    wait_until("they are refused", || inbound.counters().refused == 2);
    assert_eq!(inbound.counters().last, before, "no sign of life");
    assert_eq!(rig.path.counters().rx_refused, 2);
    assert_eq!(rig.events.try_recv(), None, "the peer has not moved");
    // Their sequence number was not used up by that.
    rebound.send_to(&rig.sealed(2, &packet, 4), rig.address).unwrap();
    assert_eq!(retried(|| application.recv(&mut buffer)), 6);
}

#[test]
fn inside_nothing_is_selected_but_only_ip_passes() {
    let (rig, inbound) = routed();
    // What OSPF sends: to a group, protocol 89, one hop.
    let mut hello = udp_packet("10.99.0.2:9", "224.0.0.5:9", 0, b"hello");
    hello[8..12].copy_from_slice(&[1, 89, 0, 0]);
    let sum = checksum(&hello[..20]);
    hello[10..12].copy_from_slice(&sum);
    let stranger = udp_packet("203.0.113.7:9", "10.99.0.1:7000", 0, b"from anywhere");
    let six = udp_packet("[2001:db8:7::1]:9", "[ff02::5]:9", 0, b"to anywhere");
    for (seq, packet, next) in [(1, &hello, 4), (2, &stranger, 4), (3, &six, 41)] {
        rig.udp.send_to(&rig.sealed(seq, packet, next), rig.address).unwrap();
    }
    wait_until("all are delivered", || inbound.counters().packets == 3);
    // A next header that is not IP in IP, and one that lies about the packet.
    for (seq, packet, next) in [(4, &hello, 17), (5, &hello, 41), (6, &six, 4), (7, &hello, 50)] {
        rig.udp.send_to(&rig.sealed(seq, packet, next), rig.address).unwrap();
    }
    wait_until("none is", || inbound.counters().refused == 4);
    assert_eq!(inbound.counters().packets, 3);
}

/// A second device with an SA of its own, between the same outer addresses.
fn second_device(rig: &Rig) -> (DeviceId, InboundHandle) {
    let tun = rig.namespace.open_other("rw1", true);
    rig.namespace.ip("link set rw1 mtu 1400 up");
    rig.namespace.ip("addr add 10.98.0.1/24 dev rw1");
    let device = rig.path.add_device(tun).unwrap();
    let spec = InboundSpec {
        sa: inbound(SPI_IN + 1, aes_gcm()),
        sources: Selector::everything(),
        destinations: Selector::everything(),
        outer: Some((ip(HERE), ip(HERE))),
        device,
        peer: None,
        divert: None,
    };
    let handle = rig.path.add_inbound(spec).unwrap();
    let egress = Egress {
        sa: OutboundHandle::new(outbound(SPI_OUT + 1, aes_gcm())),
        socket: rig.socket,
        peer: rig.udp.local_addr().unwrap(),
    };
    rig.path.set_egress_of(device, Some(egress.into())).unwrap();
    (device, handle)
}

fn receives(socket: &UdpSocket, count: u32) {
    for expected in 0..count {
        let mut buffer = [0; 100];
        let len = retried(|| socket.recv(&mut buffer));
        assert_eq!(&buffer[..len], expected.to_be_bytes());
    }
}

#[test]
fn a_device_of_its_own_gets_what_its_sa_brings_and_sends_by_its_own_egress() {
    let (mut rig, _) = routed();
    let (device, handle) = second_device(&rig);
    let first = rig.namespace.udp("10.99.0.1:7000");
    let second = rig.namespace.udp("10.98.0.1:7000");
    let seal = outbound(SPI_IN + 1, aes_gcm());
    // Packets of both in turn, as one batch may bring them.
    for number in 0..50_u32 {
        let of_first = udp_packet("10.99.0.2:9", "10.99.0.1:7000", 0, &number.to_be_bytes());
        rig.send(u64::from(number) + 1, &of_first);
        let of_second = udp_packet("10.98.0.2:9", "10.98.0.1:7000", 0, &number.to_be_bytes());
        let mut out = vec![0; seal.suite().sealed_len(of_second.len())];
        seal.seal(u64::from(number) + 1, &[&of_second], 4, &mut out).unwrap();
        rig.udp.send_to(&out, rig.address).unwrap();
    }
    receives(&first, 50);
    receives(&second, 50);
    assert_eq!(handle.counters().packets, 50);

    // Back: each device's packets leave with its own SA, also to a group.
    rig.udp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut open = inbound(SPI_OUT + 1, aes_gcm());
    let mut next = |wanted: &[u8]| loop {
        let mut buffer = vec![0; 2000];
        let len = retried(|| rig.udp.recv(&mut buffer));
        if !buffer.starts_with(&(SPI_OUT + 1).to_be_bytes()) {
            continue;
        }
        let opened = open.open(&mut buffer[..len]).unwrap();
        let packet = buffer[opened.range].to_vec();
        if packet.ends_with(wanted) {
            return packet;
        }
    };
    second.send_to(b"to its peer", "10.98.0.2:9").unwrap();
    assert_eq!(next(b"to its peer")[16..20], [10, 98, 0, 2]);
    rig.namespace.ip("route add 224.0.0.0/4 dev rw1");
    second.send_to(b"to all routers", "224.0.0.5:9").unwrap();
    assert_eq!(next(b"to all routers")[16..20], [224, 0, 0, 5]);
    first.send_to(b"by the first", "10.99.0.2:9").unwrap();
    let (packet, _) = rig.receive_by_first(b"by the first");
    assert_eq!(packet[16..20], [10, 99, 0, 2]);

    // Its largest packet is its own, too.
    rig.path.set_inner_mtu_of(device, 1300);
    let too_big = || rig.path.counters().tx_too_big;
    assert_eq!(too_big(), 0);
    second.send_to(&[0; 1350], "10.98.0.2:9").unwrap();
    wait_until("it is too big there", || too_big() == 1);
    rig.path.set_egress_of(device, None).unwrap();
    let before = rig.path.counters().tx_no_egress;
    second.send_to(b"nowhere", "10.98.0.2:9").unwrap();
    wait_until("it goes nowhere", || rig.path.counters().tx_no_egress > before);
}
