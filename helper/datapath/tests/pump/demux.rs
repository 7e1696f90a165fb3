//! What the receiving thread makes of datagrams: IKE, ESP, keepalives and rubbish.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ropewalk_datapath::{Config, Counters, DataPath, DataPathError, Event, Framing, IkeDatagram, Keepalive};

use crate::lab::{Namespace, aes_gcm, any_inbound, outbound, wait_until};
use crate::peer::{Rig, SPI_IN, retried, udp_packet};

const FROM: &str = "10.99.0.2:9";
const TO: &str = "10.99.0.1:7000";

#[test]
fn ike_behind_the_marker_comes_without_it() {
    let mut rig = Rig::new(Config::default());
    rig.udp.send_to(b"\0\0\0\0an IKE message", rig.address).unwrap();
    let expected = IkeDatagram {
        socket: rig.socket,
        local: rig.address,
        remote: rig.udp.local_addr().unwrap(),
        bytes: b"an IKE message".to_vec(),
    };
    assert_eq!(rig.event(|event| matches!(event, Event::Ike(_))), Event::Ike(expected));
    // Counted a moment after it is there.
    wait_until("it is counted", || rig.path.counters().rx_ike == 1);
}

#[test]
fn ike_is_sent_with_the_marker_unless_to_port_500() {
    let rig = Rig::new(Config::default());
    let mut buffer = [0; 100];
    rig.path.send_ike(rig.socket, rig.udp.local_addr().unwrap(), b"message").unwrap();
    assert_eq!(rig.receive_plain(), (b"\0\0\0\0message".to_vec(), rig.address));
    let plain = rig.namespace.udp("127.0.0.1:500");
    rig.path.send_ike(rig.socket, "127.0.0.1:500".parse().unwrap(), b"message").unwrap();
    let (len, from) = retried(|| plain.recv_from(&mut buffer));
    assert_eq!((&buffer[..len], from), (&b"message"[..], rig.address));
}

#[test]
fn ike_from_port_500_is_taken_as_it_is() {
    let mut rig = Rig::new(Config::default());
    let plain = rig.namespace.udp("127.0.0.1:500");
    plain.send_to(b"plain", rig.address).unwrap();
    let Event::Ike(datagram) = rig.event(|event| matches!(event, Event::Ike(_))) else { unreachable!() };
    assert_eq!((&datagram.bytes[..], datagram.remote.port()), (&b"plain"[..], 500));
}

#[test]
fn a_gateways_sockets_are_framed_by_their_own_port() {
    let mut rig = Rig::new(Config::default());
    let plain = rig.path.add_socket(rig.namespace.udp("127.0.0.1:500"), Framing::Plain).unwrap();
    let natt = rig.path.add_socket(rig.namespace.udp("127.0.0.1:4500"), Framing::NatTraversal).unwrap();
    rig.udp.send_to(b"plain", "127.0.0.1:500").unwrap();
    let Event::Ike(datagram) = rig.event(|event| matches!(event, Event::Ike(_))) else { unreachable!() };
    assert_eq!((datagram.socket, &datagram.bytes[..]), (plain, &b"plain"[..]));
    rig.udp.send_to(b"\0\0\0\0behind", "127.0.0.1:4500").unwrap();
    let Event::Ike(datagram) = rig.event(|event| matches!(event, Event::Ike(_))) else { unreachable!() };
    assert_eq!((datagram.socket, &datagram.bytes[..]), (natt, &b"behind"[..]));
    for (socket, expected) in [(plain, &b"answer"[..]), (natt, &b"\0\0\0\0answer"[..])] {
        rig.path.send_ike(socket, rig.udp.local_addr().unwrap(), b"answer").unwrap();
        assert_eq!(rig.receive_plain().0, expected);
    }
}

#[test]
fn keepalives_and_rubbish_are_counted_and_ignored() {
    let mut rig = Rig::new(Config::default());
    for datagram in [&b"\xff"[..], b"\xff", b"", b"\xfe", b"\0\0\0", b"\0\0\0\0", b"\xff\xff\xff"] {
        rig.udp.send_to(datagram, rig.address).unwrap();
    }
    wait_until("all are counted", || rig.path.counters().rx_datagrams == 7);
    let counters = rig.path.counters();
    assert_eq!((counters.rx_keepalives, counters.rx_malformed, counters.rx_ike), (2, 5, 0));
    assert_eq!(rig.inbound.counters().last, None, "a keepalive is no sign of life");
    assert_eq!(rig.events.try_recv(), None);
}

#[test]
fn a_keepalive_is_sent_when_nothing_else_was() {
    let rig = Rig::new(Config::default());
    let peer = rig.udp.local_addr().unwrap();
    let interval = Duration::from_millis(800);
    let start = Instant::now();
    rig.path.set_keepalive(rig.socket, Some(Keepalive { peer, interval })).unwrap();
    assert_eq!(rig.receive_plain(), (vec![0xff], rig.address));
    assert!(start.elapsed() >= interval, "{:?}", start.elapsed());
    // Traffic takes its place.
    let start = Instant::now();
    while start.elapsed() < interval * 2 {
        rig.path.send_ike(rig.socket, peer, b"busy").unwrap();
        assert_eq!(rig.receive_plain().0, b"\0\0\0\0busy", "a keepalive although the path was busy");
        std::thread::sleep(interval / 20);
    }
    assert_eq!(rig.receive_plain(), (vec![0xff], rig.address));
    rig.path.set_keepalive(rig.socket, None).unwrap();
}

#[test]
fn what_comes_a_moment_before_its_sa_is_delivered_and_what_came_long_before_is_not() {
    let rig = Rig::new(Config::default());
    let (early, late) = (0x3001, 0x3002);
    let packet = udp_packet(FROM, TO, 0, b"before its time");
    let send = |spi: u32, count: u64| {
        for seq in 1..=count {
            let mut sealed = vec![0; aes_gcm().sealed_len(packet.len())];
            outbound(spi, aes_gcm()).seal(seq, &[&packet], 4, &mut sealed).unwrap();
            rig.udp.send_to(&sealed, rig.address).unwrap();
        }
    };
    send(late, 1);
    std::thread::sleep(Duration::from_millis(600));
    // More than are kept: the oldest go.
    send(early, 70);
    wait_until("all are counted", || rig.path.counters().rx_unknown_spi == 71);
    let before = rig.path.counters().rx_packets;
    let early = rig.path.add_inbound(any_inbound(early, aes_gcm())).unwrap();
    let late = rig.path.add_inbound(any_inbound(late, aes_gcm())).unwrap();
    wait_until("they are delivered", || early.counters().packets == 64);
    wait_until("they are written", || rig.path.counters().rx_packets == before + 64);
    assert_eq!(late.counters().packets, 0);
    assert_eq!(early.counters().replayed + early.counters().failed + early.counters().refused, 0);
}

#[test]
fn an_unknown_spi_is_said_but_not_for_every_packet() {
    let mut rig = Rig::new(Config::default());
    let remote = rig.udp.local_addr().unwrap();
    for _ in 0..500 {
        rig.udp.send_to(b"\0\x0b\xad\x01 not ours", rig.address).unwrap();
    }
    let socket = rig.socket;
    let expected = Event::UnknownSpi { spi: 0x000b_ad01, socket, remote };
    rig.event(|event| *event == expected);
    wait_until("all are counted", || rig.path.counters().rx_unknown_spi == 500);
    let more = std::iter::from_fn(|| rig.events.try_recv()).filter(|event| *event == expected).count();
    assert!(more < 30, "{more}");
}

#[test]
fn replays_forgeries_and_dummies_are_dropped_and_counted() {
    let rig = Rig::new(Config::default());
    let inside = rig.namespace.udp(TO);
    let mut buffer = [0; 2000];
    let packet = udp_packet(FROM, TO, 0, b"once");
    for _ in 0..3 {
        rig.send(5, &packet);
    }
    let mut forged = rig.sealed(6, &packet, 4);
    *forged.last_mut().unwrap() ^= 1;
    rig.udp.send_to(&forged, rig.address).unwrap();
    rig.udp.send_to(&rig.sealed(7, b"dummy", 59), rig.address).unwrap();
    rig.udp.send_to(&rig.sealed(8, b"no IP packet", 4), rig.address).unwrap();
    rig.udp.send_to(&rig.sealed(9, &packet, 41), rig.address).unwrap();
    rig.send(6, &udp_packet(FROM, TO, 0, b"last"));
    for expected in [b"once", b"last"] {
        let len = retried(|| inside.recv(&mut buffer));
        assert_eq!(&buffer[..len], expected);
    }
    wait_until("all is counted", || rig.path.counters().rx_packets == 2);
    let counters = rig.path.counters();
    assert_eq!((counters.rx_replayed, counters.rx_failed), (2, 1));
    assert_eq!((counters.rx_dummies, counters.rx_refused), (1, 2));
    let sa = rig.inbound.counters();
    assert_eq!((sa.packets, sa.bytes), (2, 2 * packet.len() as u64));
    assert_eq!((sa.replayed, sa.failed, sa.refused), (2, 1, 2));
    assert!(sa.last.is_some());
}

#[test]
fn inner_addresses_that_were_not_agreed_are_refused() {
    let rig = Rig::new(Config::default());
    let inside = rig.namespace.udp(TO);
    rig.send(1, &udp_packet("10.99.1.2:9", TO, 0, b"wrong source"));
    rig.send(2, &udp_packet("10.99.0.1:9", TO, 0, b"our own source"));
    rig.send(3, &udp_packet(FROM, "10.99.0.3:7000", 0, b"wrong destination"));
    rig.send(4, &udp_packet("[fd99::1:0:2]:9", "[fd99::1]:7000", 0, b"wrong source"));
    rig.send(5, &udp_packet(FROM, TO, 0, b"right"));
    let mut buffer = [0; 2000];
    let len = retried(|| inside.recv(&mut buffer));
    assert_eq!(&buffer[..len], b"right");
    assert_eq!(rig.inbound.counters().refused, 4);
}

#[test]
fn padding_behind_the_inner_packet_is_cut_off() {
    let rig = Rig::new(Config::default());
    let inside = rig.namespace.udp(TO);
    let packet = udp_packet(FROM, TO, 0, b"short");
    let mut padded = packet.clone();
    padded.extend([0; 300]);
    rig.send(1, &padded);
    let mut buffer = [0; 2000];
    let len = retried(|| inside.recv(&mut buffer));
    assert_eq!(&buffer[..len], b"short");
    wait_until("it is counted", || rig.inbound.counters().bytes == packet.len() as u64);
}

#[test]
fn a_flood_of_esp_does_not_starve_ike() {
    let mut rig = Rig::new(Config::default());
    let stop = Arc::new(AtomicBool::new(false));
    let floods: Vec<_> = [SPI_IN, 0x0bad_0001]
        .into_iter()
        .map(|spi| {
            let (stop, address) = (Arc::clone(&stop), rig.address);
            let socket = rig.namespace.udp("127.0.0.1:0");
            std::thread::spawn(move || {
                let mut rubbish = vec![7; 1400];
                rubbish[..4].copy_from_slice(&spi.to_be_bytes());
                let mut seq = 1u32;
                while !stop.load(Ordering::Relaxed) {
                    rubbish[4..8].copy_from_slice(&seq.to_be_bytes());
                    let _ = socket.send_to(&rubbish, address);
                    seq = seq.wrapping_add(1).max(1);
                }
            })
        })
        .collect();
    wait_until("the flood runs", || rig.path.counters().rx_failed > 1000);
    // Twenty exchanges, each sent again after 50 ms as IKE does, for the kernel's buffer may be full at any one moment.
    let mut sent = 0;
    for number in 0u32..20 {
        let mut message = vec![0; 4];
        message.extend(number.to_be_bytes());
        let arrived = (0..100).any(|_| {
            rig.udp.send_to(&message, rig.address).unwrap();
            sent += 1;
            let end = Instant::now() + Duration::from_millis(50);
            while let Some(left) = end.checked_duration_since(Instant::now()) {
                match rig.events.recv_timeout(left) {
                    Some(Event::Ike(datagram)) if datagram.bytes == number.to_be_bytes() => return true,
                    _ => {}
                }
            }
            false
        });
        assert!(arrived, "message {number} never arrived");
    }
    stop.store(true, Ordering::Relaxed);
    for flood in floods {
        flood.join().unwrap();
    }
    let counters = rig.path.counters();
    println!(
        "20 IKE messages in {sent} datagrams among {} ESP",
        counters.rx_failed + counters.rx_unknown_spi
    );
    assert_eq!(counters.rx_ike_dropped, 0);
}

#[test]
fn ike_beyond_the_queue_is_dropped_and_the_pump_goes_on() {
    let mut rig = Rig::new(Config { ike_queue: 8, ..Config::default() });
    for number in 0..50u8 {
        rig.udp.send_to(&[0, 0, 0, 0, number], rig.address).unwrap();
    }
    let counted = |counters: Counters| counters.rx_ike + counters.rx_ike_dropped == 50;
    wait_until("all are counted", || counted(rig.path.counters()));
    let counters = rig.path.counters();
    assert_eq!((counters.rx_datagrams, counters.rx_ike, counters.rx_ike_dropped), (50, 8, 42));
    for number in 0..8u8 {
        let Event::Ike(datagram) = rig.event(|event| matches!(event, Event::Ike(_))) else { unreachable!() };
        assert_eq!(datagram.bytes, [number]);
    }
    rig.udp.send_to(b"\0\0\0\0after", rig.address).unwrap();
    rig.event(|event| matches!(event, Event::Ike(datagram) if datagram.bytes == b"after"));
}

#[test]
fn a_refused_port_is_told() {
    let mut rig = Rig::new(Config::default());
    let peer = "127.0.0.1:9".parse().unwrap();
    rig.path.send_ike(rig.socket, peer, b"anybody?").unwrap();
    let socket = rig.socket;
    rig.event(|event| *event == Event::SocketError { socket, remote: Some(peer), errno: libc::ECONNREFUSED });
    // What the error left behind does not hit the next message.
    rig.path.send_ike(rig.socket, rig.udp.local_addr().unwrap(), b"you?").unwrap();
}

#[test]
fn unknown_sockets_and_second_sas_are_errors() {
    let rig = Rig::new(Config::default());
    rig.path.remove_socket(rig.socket).unwrap();
    let peer = rig.udp.local_addr().unwrap();
    let unknown = |result: Result<(), DataPathError>| {
        assert!(matches!(result, Err(DataPathError::UnknownSocket(id)) if id == rig.socket));
    };
    unknown(rig.path.send_ike(rig.socket, peer, b"x"));
    unknown(rig.path.remove_socket(rig.socket));
    unknown(rig.path.set_keepalive(rig.socket, None));
    let again = rig.path.add_inbound(any_inbound(SPI_IN, aes_gcm()));
    assert!(matches!(again, Err(DataPathError::DuplicateSpi(SPI_IN))));
    assert!(rig.path.remove_inbound(SPI_IN));
    assert!(!rig.path.remove_inbound(SPI_IN));
    assert!(rig.path.add_inbound(any_inbound(SPI_IN, aes_gcm())).is_ok());
}

#[test]
fn a_packet_without_egress_is_dropped_and_told() {
    let namespace = Namespace::new('n');
    let tun = namespace.tun(true, 1400, 1);
    let (path, mut events) = DataPath::start(tun, Config::default()).unwrap();
    let socket = namespace.udp("10.99.0.1:0");
    socket.send_to(b"where to?", "10.99.0.2:9").unwrap();
    let expected = Event::NoEgress { destination: "10.99.0.2".parse().unwrap() };
    assert_eq!(events.recv_timeout(Duration::from_secs(5)), Some(expected));
    assert!(path.counters().tx_no_egress >= 1);
    assert_eq!(path.counters().tx_packets, 0);
}
