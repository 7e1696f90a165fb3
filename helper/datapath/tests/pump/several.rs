//! Several paths: flows spread over them, copies by two of them, and copies told by the receiver.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use ropewalk_datapath::esp::InboundSa;
use ropewalk_datapath::{Carriage, Config, Egress, Framing, InboundHandle, OutboundHandle, Share, SocketId};

use crate::lab::{aes_gcm, any_inbound, inbound, outbound, wait_until};
use crate::peer::{Rig, SPI_OUT, retried, udp_packet};

/// A second path of a [`Rig`]: its own sockets at both ends, its own SA each way.
struct Second {
    /// The pump's socket.
    id: SocketId,
    address: SocketAddr,
    /// The peer's.
    udp: UdpSocket,
    open: InboundSa,
    sa: OutboundHandle,
    inbound: InboundHandle,
}

const SECOND_IN: u32 = 0x1002;
const SECOND_OUT: u32 = 0x2002;

impl Second {
    fn new(rig: &Rig) -> Self {
        let udp = rig.namespace.udp("127.0.0.1:0");
        let ours = rig.namespace.udp("127.0.0.1:0");
        let address = ours.local_addr().unwrap();
        let id = rig.path.add_socket(ours, Framing::ByRemotePort).unwrap();
        Self {
            id,
            address,
            udp,
            open: inbound(SECOND_OUT, aes_gcm()),
            sa: OutboundHandle::new(outbound(SECOND_OUT, aes_gcm())),
            inbound: rig.path.add_inbound(any_inbound(SECOND_IN, aes_gcm())).unwrap(),
        }
    }

    fn egress(&self) -> Egress {
        Egress { sa: self.sa.clone(), socket: self.id, peer: self.udp.local_addr().unwrap() }
    }

    /// Seals an inner packet as the peer and sends it.
    fn send(&self, seq: u64, packet: &[u8]) {
        let seal = outbound(SECOND_IN, aes_gcm());
        let mut out = vec![0; seal.suite().sealed_len(packet.len())];
        let len = seal.seal(seq, &[packet], 4, &mut out).unwrap();
        self.udp.send_to(&out[..len], self.address).unwrap();
    }
}

fn first(rig: &Rig) -> Egress {
    let sa = OutboundHandle::new(outbound(SPI_OUT, aes_gcm()));
    Egress { sa, socket: rig.socket, peer: rig.udp.local_addr().unwrap() }
}

/// What waits at a socket, opened: the UDP payloads of inner packets.
fn opened(udp: &UdpSocket, open: &mut InboundSa) -> Vec<Vec<u8>> {
    udp.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut buffer = [0; 2000];
    let mut payloads = Vec::new();
    loop {
        match udp.recv(&mut buffer) {
            Ok(len) => {
                let opened = open.open(&mut buffer[..len]).expect("ESP that opens");
                let packet = &buffer[opened.range];
                if packet[0] == 0x45 && packet[9] == 17 {
                    payloads.push(packet[28..].to_vec());
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return payloads,
        }
    }
}

#[test]
fn flows_are_spread_by_weight_and_each_keeps_its_way_and_its_order() {
    const FLOWS: u16 = 60;
    // All of them wait at the sockets: more than two hundred do not fit into a usual receive buffer.
    const PACKETS: u16 = 3;
    let mut rig = Rig::new(Config::default());
    let mut second = Second::new(&rig);
    let share = |name, weight, egress| Share { name, weight, egress };
    let carriage = Carriage {
        shares: vec![share(1, 1, first(&rig)), share(2, 3, second.egress())],
        ..Carriage::from(first(&rig))
    };
    rig.path.set_default(Some(carriage)).unwrap();
    let sockets: Vec<UdpSocket> = (0..FLOWS).map(|_| rig.namespace.udp("10.99.0.1:0")).collect();
    for number in 0..PACKETS {
        for (flow, socket) in sockets.iter().enumerate() {
            let payload = [(flow as u16).to_be_bytes(), number.to_be_bytes()].concat();
            socket.send_to(&payload, "10.99.0.2:9").unwrap();
        }
    }
    let mut ways: Vec<Vec<Vec<u16>>> = Vec::new();
    for (udp, open) in [(&rig.udp, &mut rig.open), (&second.udp, &mut second.open)] {
        let mut flows = vec![Vec::new(); usize::from(FLOWS)];
        for payload in opened(udp, open) {
            let number = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
            flows[usize::from(number(0))].push(number(2));
        }
        ways.push(flows);
    }
    let all: Vec<u16> = (0..PACKETS).collect();
    for (flow, (a, b)) in ways[0].iter().zip(&ways[1]).enumerate() {
        assert!((a == &all && b.is_empty()) || (a.is_empty() && b == &all), "flow {flow}: {a:?} and {b:?}");
    }
    // A quarter of 60 is 15; fewer than 3 or more than 30 by chance less often than once in ten thousand runs.
    let on_first = ways[0].iter().filter(|flow| !flow.is_empty()).count();
    assert!(
        (3..=30).contains(&on_first),
        "{on_first} of {FLOWS} flows on the way with a quarter of the weight"
    );
}

#[test]
fn a_flow_changes_its_way_only_when_it_pauses_or_its_way_is_gone() {
    let mut rig = Rig::new(Config::default());
    let mut second = Second::new(&rig);
    let inside = rig.namespace.udp("10.99.0.1:0");
    // Each SA has one sequence, whichever carriage names it.
    let (one, other) = (first(&rig), second.egress());
    let by = |weights: [u32; 2]| Carriage {
        shares: vec![
            Share { name: 1, weight: weights[0], egress: one.clone() },
            Share { name: 2, weight: weights[1], egress: other.clone() },
        ],
        ..Carriage::from(one.clone())
    };
    // All by the first; then nearly all by the second.
    let (all_first, nearly_second) = (by([1, 0]), by([1, 1_000_000]));
    let mut only_second = nearly_second.clone();
    only_second.shares.remove(0);
    rig.path.set_default(Some(all_first)).unwrap();
    let send = |number: u8| inside.send_to(&[number], "10.99.0.2:9").unwrap();
    send(0);
    wait_until("it went", || rig.path.counters().tx_packets >= 1);
    rig.path.set_default(Some(nearly_second)).unwrap();
    for number in 1..10 {
        std::thread::sleep(Duration::from_millis(10));
        send(number);
    }
    std::thread::sleep(Duration::from_millis(600));
    send(10);
    assert_eq!(opened(&rig.udp, &mut rig.open).concat(), (0..10).collect::<Vec<u8>>());
    rig.path.set_default(Some(only_second)).unwrap();
    send(11);
    assert_eq!(opened(&second.udp, &mut second.open).concat(), [10, 11]);
}

#[test]
fn a_flow_stays_where_it_went_before_flows_were_spread() {
    let mut rig = Rig::new(Config::default());
    let mut second = Second::new(&rig);
    let inside = rig.namespace.udp("10.99.0.1:0");
    let (one, other) = (first(&rig), second.egress());
    rig.path.set_default(Some(Carriage::new(one.clone(), 1))).unwrap();
    let send = |number: u8| inside.send_to(&[number], "10.99.0.2:9").unwrap();
    send(0);
    wait_until("it went", || rig.path.counters().tx_packets >= 1);
    // Nearly all by the second from now on.
    let shares = vec![
        Share { name: 1, weight: 1, egress: one.clone() },
        Share { name: 2, weight: 1_000_000, egress: other },
    ];
    rig.path.set_default(Some(Carriage { shares, ..Carriage::new(one, 1) })).unwrap();
    send(1);
    rig.namespace.udp("10.99.0.1:0").send_to(&[9], "10.99.0.2:9").unwrap();
    wait_until("they went", || rig.path.counters().tx_packets >= 3);
    std::thread::sleep(Duration::from_millis(600));
    send(2);
    assert_eq!(opened(&rig.udp, &mut rig.open).concat(), [0, 1, 9], "nobody knows which flows went before");
    assert_eq!(opened(&second.udp, &mut second.open).concat(), [2]);
}

#[test]
fn small_and_marked_packets_go_by_both_with_an_sa_each_and_others_by_one() {
    let mut rig = Rig::new(Config::default());
    let mut second = Second::new(&rig);
    let carriage = Carriage { copies: Some(second.egress()), ..Carriage::from(first(&rig)) };
    rig.path.set_default(Some(carriage)).unwrap();
    let inside = rig.namespace.udp("10.99.0.1:0");
    inside.send_to(&[1; 100], "10.99.0.2:9").unwrap();
    inside.send_to(&[2; 900], "10.99.0.2:9").unwrap();
    crate::peer::set_option(&inside, libc::SOL_IP, libc::IP_TOS, 46 << 2);
    inside.send_to(&[3; 900], "10.99.0.2:9").unwrap();
    let kinds = |payloads: Vec<Vec<u8>>| payloads.iter().map(|payload| payload[0]).collect::<Vec<_>>();
    assert_eq!(kinds(opened(&rig.udp, &mut rig.open)), [1, 2, 3]);
    assert_eq!(kinds(opened(&second.udp, &mut second.open)), [1, 3]);
    assert!(second.sa.counters().packets >= 2 && second.sa.counters().last.is_some());
}

#[test]
fn copies_by_another_sa_are_dropped_and_equal_packets_by_one_sa_are_not() {
    let rig = Rig::new(Config::default());
    let second = Second::new(&rig);
    rig.path.set_expect_copies(true);
    let packet = |payload: &[u8]| udp_packet("10.99.0.2:9", "10.99.0.1:7000", 0, payload);
    let inside = rig.namespace.udp("10.99.0.1:7000");
    inside.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let delivered = || {
        let mut buffer = [0; 2000];
        std::iter::from_fn(|| inside.recv(&mut buffer).ok().map(|len| buffer[..len].to_vec())).count()
    };
    rig.send(1, &packet(b"once"));
    second.send(1, &packet(b"once"));
    second.send(2, &packet(b"the other first"));
    rig.send(2, &packet(b"the other first"));
    assert_eq!(delivered(), 2);
    rig.send(3, &packet(b"twice"));
    rig.send(4, &packet(b"twice"));
    assert_eq!(delivered(), 2);
    // What is not copied is not looked at.
    rig.send(5, &packet(&[7; 900]));
    second.send(3, &packet(&[7; 900]));
    assert_eq!(delivered(), 2);
    assert_eq!(rig.path.counters().rx_copies, 2);
    // Which of two sockets is looked at first is anyone's guess.
    assert_eq!(rig.inbound.counters().copies + second.inbound.counters().copies, 2);
    assert_eq!((rig.inbound.counters().packets, second.inbound.counters().packets), (5, 3));
    // Without copies to be expected, every packet is one.
    rig.path.set_expect_copies(false);
    let mut turns = 0u8..;
    wait_until("both are delivered", || {
        let turn = turns.next().unwrap();
        rig.send(6 + u64::from(turn), &packet(&[turn]));
        second.send(4 + u64::from(turn), &packet(&[turn]));
        delivered() == 2
    });
}

#[test]
fn what_has_an_address_of_its_own_way_leaves_by_that_way() {
    let mut rig = Rig::new(Config::default());
    let mut second = Second::new(&rig);
    rig.namespace.ip(&format!("addr add 10.99.0.7/32 dev {}", crate::lab::TUN));
    let own = "10.99.0.7".parse().unwrap();
    let carriage = Carriage { by_source: vec![(own, second.egress())], ..Carriage::from(first(&rig)) };
    rig.path.set_default(Some(carriage)).unwrap();
    let send = |from: &str, number: u8| rig.namespace.udp(from).send_to(&[number], "10.99.0.2:9").unwrap();
    send("10.99.0.1:0", 1);
    send("10.99.0.7:0", 2);
    send("10.99.0.1:0", 3);
    assert_eq!(opened(&rig.udp, &mut rig.open).concat(), [1, 3]);
    assert_eq!(opened(&second.udp, &mut second.open).concat(), [2]);
    // Without its own way it goes by the one that is left.
    rig.path.remove_socket(second.id).unwrap();
    send("10.99.0.7:0", 4);
    assert_eq!(opened(&rig.udp, &mut rig.open).concat(), [4]);
}

#[test]
fn a_carriage_goes_on_without_a_socket_that_goes() {
    let mut rig = Rig::new(Config::default());
    let mut second = Second::new(&rig);
    let shares = vec![
        Share { name: 1, weight: 1, egress: first(&rig) },
        Share { name: 2, weight: 1, egress: second.egress() },
    ];
    rig.path.set_default(Some(Carriage { shares, ..Carriage::from(first(&rig)) })).unwrap();
    rig.path.remove_socket(rig.socket).unwrap();
    for _ in 0..20 {
        rig.namespace.udp("10.99.0.1:0").send_to(b"x", "10.99.0.2:9").unwrap();
    }
    assert_eq!(opened(&second.udp, &mut second.open).len(), 20);
    assert!(opened(&rig.udp, &mut rig.open).is_empty());
    let unknown = Carriage { copies: Some(first(&rig)), ..Carriage::from(second.egress()) };
    assert!(rig.path.set_default(Some(unknown)).is_err(), "its socket is gone");
    rig.path.remove_socket(second.id).unwrap();
    let before = rig.path.counters().tx_no_egress;
    rig.namespace.udp("10.99.0.1:0").send_to(b"x", "10.99.0.2:9").unwrap();
    wait_until("nobody takes it", || rig.path.counters().tx_no_egress > before);
}

#[test]
fn a_link_that_is_stuck_does_not_hold_up_the_other() {
    let mut rig = Rig::new(Config::default());
    // A link that takes next to nothing, and what is sent by it.
    rig.namespace.ip("link add stuck0 type veth peer name stuck1");
    rig.namespace.ip("addr add 198.51.100.1/24 dev stuck0");
    rig.namespace.ip("link set stuck0 up");
    rig.namespace.ip("link set stuck1 up");
    rig.namespace.ip("neigh add 198.51.100.2 lladdr 02:00:00:00:00:02 dev stuck0");
    rig.namespace.exec("tc qdisc add dev stuck0 root tbf rate 8kbit burst 2kb limit 40mb");
    let stuck = rig.path.add_socket(rig.namespace.udp("198.51.100.1:0"), Framing::ByRemotePort).unwrap();
    let sa = OutboundHandle::new(outbound(SECOND_OUT, aes_gcm()));
    let egress = Egress { sa, socket: stuck, peer: "198.51.100.2:4500".parse().unwrap() };
    rig.path.set_route("10.99.0.3/32".parse().unwrap(), Some(egress.into())).unwrap();
    let inside = rig.namespace.udp("10.99.0.1:0");
    let fill = || {
        for _ in 0..50 {
            inside.send_to(&[0; 1200], "10.99.0.3:9").unwrap();
        }
        rig.path.counters().tx_dropped > 0
    };
    wait_until("the link is stuck", fill);
    let started = Instant::now();
    let mut buffer = [0; 2000];
    for _ in 0..30 {
        inside.send_to(&[0; 1200], "10.99.0.3:9").unwrap();
        inside.send_to(b"the other way", "10.99.0.2:9").unwrap();
        loop {
            let len = retried(|| rig.udp.recv(&mut buffer));
            let opened = rig.open.open(&mut buffer[..len]).unwrap();
            if buffer[opened.range].ends_with(b"the other way") {
                break;
            }
        }
    }
    // Waiting for the link each time would take six seconds.
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}
