//! Rekeying, changing paths and many clients, with traffic running.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ropewalk_datapath::esp::SequenceCounter;
use ropewalk_datapath::{
    Config, DataPath, DeviceId, Egress, Event, Framing, InboundHandle, InboundSpec, OutboundHandle, Selector,
};

use crate::lab::{
    Namespace, Plan, Tunnel, aes_gcm, any_inbound, arrived, inbound, inner, outbound, transfer, wait_until,
};
use crate::peer::{Rig, SPI_IN, SPI_OUT, retried, set_option, udp_packet};

/// One direction's SA: the sender's end and the receiver's.
type Generation = (OutboundHandle, InboundHandle);

fn drained((sent, received): &Generation) -> bool {
    sent.counters().packets == received.counters().packets
}

#[test]
fn a_rekey_under_traffic_loses_nothing() {
    let tunnel = Tunnel::new(&Plan::default());
    let (a, b) = (&tunnel.a, &tunnel.b);
    let (mut rekeys, mut removed) = (0, 0);
    let mut there = vec![(a.outbound.clone(), b.inbound.clone())];
    let mut back = vec![(b.outbound.clone(), a.inbound.clone())];
    std::thread::scope(|scope| {
        let carrying = scope.spawn(|| transfer(&a.namespace, &b.namespace, inner(2, false), 40 << 20));
        while !carrying.is_finished() {
            rekeys += 1;
            for (all, from, to, base) in [(&mut there, a, b, 0x2001), (&mut back, b, a, 0x1001)] {
                let spi = base + rekeys;
                let received = to.path.add_inbound(any_inbound(spi, aes_gcm())).unwrap();
                let sa = OutboundHandle::new(outbound(spi, aes_gcm()));
                let egress = Egress { sa: sa.clone(), ..from.egress(to.address) };
                from.path.set_default(Some(egress.into())).unwrap();
                // Once the last keys were used the sending thread is done with those before; they go when all that was
                // sealed with them has arrived.
                if let Some(((last, _), before)) = all.split_last()
                    && last.counters().packets > 0
                {
                    let gone: Vec<u32> =
                        before.iter().filter(|old| drained(old)).map(|old| old.1.spi()).collect();
                    all.retain(|old| !gone.contains(&old.1.spi()) || !to.path.remove_inbound(old.1.spi()));
                    removed += gone.len();
                }
                all.push((sa, received));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        carrying.join().unwrap();
    });
    assert!(rekeys >= 3 && removed > 0, "{rekeys} rekeys, {removed} removals");
    assert!(there.iter().chain(&back).any(|(sent, _)| sent.spi() & 0xfff > 3 && sent.counters().packets > 0));
    for (from, to) in [(a, b), (b, a)] {
        let counters = to.path.counters();
        let lost = [counters.rx_unknown_spi, counters.rx_failed, counters.rx_replayed, counters.rx_refused];
        assert_eq!(lost, [0; 4], "{counters:?}");
        assert_eq!(from.path.counters().tx_dropped + counters.rx_dropped, 0);
        wait_until("everything sent has arrived", || arrived(from, to));
    }
    println!("{rekeys} rekeys and {removed} removals during the transfer");
}

#[test]
fn a_switch_of_path_under_traffic_keeps_the_counter_and_is_noticed() {
    let mut tunnel = Tunnel::new(&Plan::default());
    let second = tunnel.a.namespace.udp("192.0.2.1:0");
    let second_address = second.local_addr().unwrap();
    let second = tunnel.a.path.add_socket(second, Framing::ByRemotePort).unwrap();
    let (a, b) = (&tunnel.a, &tunnel.b);
    std::thread::scope(|scope| {
        let carrying = scope.spawn(|| transfer(&a.namespace, &b.namespace, inner(2, false), 20 << 20));
        let mut turn = false;
        while !carrying.is_finished() {
            turn = !turn;
            let egress = a.egress(b.address);
            let socket = if turn { second } else { a.socket };
            a.path.set_default(Some(Egress { socket, ..egress }.into())).unwrap();
            std::thread::sleep(Duration::from_millis(10));
        }
        carrying.join().unwrap();
    });
    let counters = b.path.counters();
    assert_eq!(counters.rx_replayed + counters.rx_failed, 0, "{counters:?}");
    assert_eq!(a.outbound.sequence(), a.outbound.counters().packets);
    let moved = std::iter::from_fn(|| tunnel.b.events.try_recv())
        .filter(|event| matches!(event, Event::PeerMoved { spi: 0x2001, remote, .. } if *remote == second_address))
        .count();
    assert!(moved >= 1, "the other end noticed");
}

#[test]
fn a_move_is_said_once_and_only_for_the_newest_packet() {
    let mut rig = Rig::new(Config::default());
    let elsewhere = rig.namespace.udp("127.0.0.1:0");
    let remote = elsewhere.local_addr().unwrap();
    let packet = udp_packet("10.99.0.2:9", "10.99.0.1:7000", 0, b"x");
    rig.send(10, &packet);
    wait_until("it came", || rig.path.counters().rx_packets == 1);
    // Delayed on the old way round: authentic, delivered, no move.
    elsewhere.send_to(&rig.sealed(9, &packet, 4), rig.address).unwrap();
    wait_until("it came", || rig.path.counters().rx_packets == 2);
    // A copy from an attacker's address is a replay, no move.
    elsewhere.send_to(&rig.sealed(10, &packet, 4), rig.address).unwrap();
    wait_until("it was refused", || rig.path.counters().rx_replayed == 1);
    assert_eq!(rig.events.try_recv(), None);
    for seq in 11..14 {
        elsewhere.send_to(&rig.sealed(seq, &packet, 4), rig.address).unwrap();
    }
    wait_until("they came", || rig.path.counters().rx_packets == 5);
    let expected = Event::PeerMoved { spi: SPI_IN, socket: rig.socket, local: rig.address, remote };
    let said: Vec<_> = std::iter::from_fn(|| rig.events.try_recv()).collect();
    assert_eq!(said, [expected]);
    rig.send(14, &packet);
    let remote = rig.udp.local_addr().unwrap();
    rig.event(|event| matches!(event, Event::PeerMoved { remote: now, .. } if *now == remote));
}

#[test]
fn used_up_sequence_numbers_are_told_in_time_and_never_wrap() {
    let mut rig = Rig::new(Config::default());
    let (socket, peer) = (rig.socket, rig.udp.local_addr().unwrap());
    let egress = |last: u64| Egress {
        sa: OutboundHandle::with_sequence(
            outbound(SPI_OUT, aes_gcm()),
            SequenceCounter::starting_after(last, false),
        ),
        socket,
        peer,
    };
    let three_quarters = u64::from(u32::MAX) / 4 * 3;
    let inside = rig.namespace.udp("10.99.0.1:0");
    rig.path.set_default(Some(egress(three_quarters + 1000).into())).unwrap();
    inside.send_to(b"x", "10.99.0.2:9").unwrap();
    rig.event(
        |event| matches!(event, Event::SequenceLow { spi: SPI_OUT, remaining } if *remaining > 1 << 29),
    );
    let end = egress(u64::from(u32::MAX) - 1);
    rig.path.set_default(Some(end.clone().into())).unwrap();
    for _ in 0..3 {
        inside.send_to(b"x", "10.99.0.2:9").unwrap();
    }
    wait_until("the rest is dropped", || rig.path.counters().tx_dropped >= 2);
    assert_eq!(end.sa.sequence(), u64::from(u32::MAX));
}

/// A gateway with one device and one socket, clients told apart by inner address.
#[test]
fn many_clients_on_one_device_each_get_their_own() {
    const CLIENTS: u8 = 20;
    let namespace = Namespace::new('g');
    let tun = namespace.tun(true, 1400, 1);
    let (path, _events) = DataPath::start(tun, Config::default()).unwrap();
    let ours = namespace.udp("127.0.0.1:4500");
    let gateway = ours.local_addr().unwrap();
    let socket = path.add_socket(ours, Framing::NatTraversal).unwrap();
    let inside = namespace.udp("10.99.0.1:7000");
    let (mut clients, mut last) = (Vec::new(), None);
    for number in 0..CLIENTS {
        let address = format!("10.99.0.{}", 100 + number);
        let (spi_in, spi_out) = (0x3000 + u32::from(number), 0x4000 + u32::from(number));
        let udp = namespace.udp("127.0.0.1:0");
        let spec = InboundSpec {
            sa: inbound(spi_in, aes_gcm()),
            sources: vec![Selector::host(address.parse().unwrap())],
            destinations: Selector::everything(),
            outer: None,
            device: DeviceId::MAIN,
            peer: Some((socket, udp.local_addr().unwrap())),
            divert: None,
        };
        path.add_inbound(spec).unwrap();
        let sa = OutboundHandle::new(outbound(spi_out, aes_gcm()));
        let egress = Egress { sa, socket, peer: udp.local_addr().unwrap() };
        path.set_route(format!("{address}/32").parse().unwrap(), Some(egress.clone().into())).unwrap();
        last = Some(egress.clone().into());
        // Nets behind the first three clients, each within the other, made in no order.
        if let Some(net) = ["10.99.0.64/27", "10.99.0.64/26", "10.99.0.80/28"].get(usize::from(number)) {
            path.set_route(net.parse().unwrap(), Some(egress.into())).unwrap();
        }
        clients.push((address, udp, outbound(spi_in, aes_gcm()), inbound(spi_out, aes_gcm())));
    }
    let mut buffer = [0; 2000];
    for (number, (address, udp, seal, open)) in clients.iter_mut().enumerate() {
        let source = format!("{address}:9");
        // In the name of another client: refused.
        let other = format!("10.99.0.{}:9", 100 + (number as u8 + 1) % CLIENTS);
        for (seq, source) in [(1, &other), (2, &source)] {
            let packet = udp_packet(source, "10.99.0.1:7000", 0, b"hello");
            let mut sealed = vec![0; 200];
            let len = seal.seal(seq, &[&packet], 4, &mut sealed).unwrap();
            udp.send_to(&sealed[..len], gateway).unwrap();
        }
        let (_, from) = retried(|| inside.recv_from(&mut buffer));
        assert_eq!(from.to_string(), source);
        inside.send_to(address.as_bytes(), from).unwrap();
        let len = retried(|| udp.recv(&mut buffer));
        let opened = open.open(&mut buffer[..len]).unwrap();
        assert!(buffer[opened.range].ends_with(address.as_bytes()));
    }
    assert_eq!(path.counters().rx_refused, u64::from(CLIENTS));
    let mut goes_to = |client: usize, host: u8| {
        inside.send_to(b"behind", format!("10.99.0.{host}:9")).unwrap();
        let (_, udp, _, open) = &mut clients[client];
        let len = retried(|| udp.recv(&mut buffer));
        let opened = open.open(&mut buffer[..len]).unwrap();
        assert_eq!(buffer[opened.range][16..20], [10, 99, 0, host]);
    };
    // The longest prefix wins, and nobody takes the rest.
    for (client, host) in [(0, 70), (1, 98), (2, 85)] {
        goes_to(client, host);
    }
    // A net within the others may go by the default, and do so whatever is around it.
    path.set_default(last).unwrap();
    path.set_route_by_default("10.99.0.80/28".parse().unwrap()).unwrap();
    goes_to(usize::from(CLIENTS) - 1, 85);
    goes_to(0, 70);
    path.set_default(None).unwrap();
    let before = path.counters().tx_no_egress;
    for net in ["10.99.0.64/26", "10.99.0.64/27"] {
        path.set_route(net.parse().unwrap(), None).unwrap();
    }
    inside.send_to(b"behind", "10.99.0.70:9").unwrap();
    wait_until("nobody takes it", || path.counters().tx_no_egress > before);
}

#[test]
fn order_within_a_flow_is_kept_when_the_socket_is_full() {
    for offloads in [true, false] {
        let tunnel = Tunnel::new(&Plan { offloads, ..Plan::default() });
        // A slow link: the socket's buffer fills, and the sending thread waits.
        tunnel.a.namespace.exec("tc qdisc add dev out0 root tbf rate 50mbit burst 64kb limit 4mb");
        let receiver = tunnel.b.namespace.udp("10.99.0.2:7000");
        set_option(&receiver, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 32 << 20);
        let sender = tunnel.a.namespace.udp("10.99.0.1:0");
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let flood = std::thread::spawn(move || {
            let mut payload = [0; 1200];
            for number in 0u32.. {
                if flag.load(Ordering::Relaxed) {
                    break;
                }
                payload[..4].copy_from_slice(&number.to_be_bytes());
                let _ = sender.send_to(&payload, "10.99.0.2:7000");
            }
        });
        let mut last = None;
        let mut buffer = [0; 2000];
        for _ in 0..8000 {
            retried(|| receiver.recv(&mut buffer));
            let number = u32::from_be_bytes(buffer[..4].try_into().unwrap());
            assert!(last.is_none_or(|last| number > last), "{number} after {last:?}");
            last = Some(number);
        }
        stop.store(true, Ordering::Relaxed);
        flood.join().unwrap();
    }
}
