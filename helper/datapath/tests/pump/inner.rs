//! Inner packets of the owner's own: those that an SA diverts, and those that the owner sends.

use ropewalk_datapath::{Config, Divert, Egress, Event, OutboundHandle};

use crate::lab::{aes_gcm, any_inbound, inbound, outbound, wait_until};
use crate::peer::{Rig, udp_packet};

const SPI: u32 = 0x5001;

fn sealed(seq: u64, packet: &[u8]) -> Vec<u8> {
    let mut out = vec![0; aes_gcm().sealed_len(packet.len())];
    outbound(SPI, aes_gcm()).seal(seq, &[packet], 4, &mut out).unwrap();
    out
}

#[test]
fn what_an_sa_diverts_comes_to_the_owner_and_not_to_the_device() {
    let mut rig = Rig::new(Config::default());
    let divert = Some(Divert { source_port: 67, destination_port: 68 });
    let spec = ropewalk_datapath::InboundSpec { divert, ..any_inbound(SPI, aes_gcm()) };
    let handle = rig.path.add_inbound(spec).unwrap();
    let before = rig.path.counters().rx_packets;
    let offer = udp_packet("10.40.0.1:67", "255.255.255.255:68", 0, b"an offer");
    let other = udp_packet("10.40.0.1:67", "10.99.0.1:69", 0, b"for the device");
    let mut fragment = offer.clone();
    fragment[6..8].copy_from_slice(&[0x20, 0]);
    for (seq, packet) in [(1, &offer), (2, &other), (3, &fragment)] {
        rig.udp.send_to(&sealed(seq, packet), rig.address).unwrap();
    }
    let got = rig.event(|event| matches!(event, Event::Inner { .. }));
    assert_eq!(got, Event::Inner { spi: SPI, packet: offer });
    wait_until("the others are written", || rig.path.counters().rx_packets == before + 2);
    assert_eq!(handle.counters().packets, 3);
    assert_eq!(rig.events.try_recv(), None);
}

#[test]
fn a_flood_of_diverted_packets_leaves_room_for_other_events() {
    let mut rig = Rig::new(Config { event_queue: 100, ..Config::default() });
    let divert = Some(Divert { source_port: 67, destination_port: 68 });
    let spec = ropewalk_datapath::InboundSpec { divert, ..any_inbound(SPI, aes_gcm()) };
    let handle = rig.path.add_inbound(spec).unwrap();
    let offer = udp_packet("10.40.0.1:67", "255.255.255.255:68", 0, b"an offer");
    for seq in 1..=500 {
        rig.udp.send_to(&sealed(seq, &offer), rig.address).unwrap();
    }
    wait_until("all are counted", || handle.counters().packets == 500);
    rig.udp.send_to(b"\0\x0b\xad\x01 not ours", rig.address).unwrap();
    rig.event(|event| matches!(event, Event::UnknownSpi { .. }));
}

#[test]
fn the_owners_packet_is_sealed_and_sent_past_the_device() {
    let rig = Rig::new(Config::default());
    let sa = OutboundHandle::new(outbound(SPI, aes_gcm()));
    let egress = Egress { sa: sa.clone(), socket: rig.socket, peer: rig.udp.local_addr().unwrap() };
    let discover = udp_packet("0.0.0.0:68", "255.255.255.255:67", 0, b"a discover");
    rig.path.send_inner(&egress, &discover).unwrap();
    rig.path.send_inner(&egress, &discover).unwrap();
    let mut open = inbound(SPI, aes_gcm());
    for _ in 0..2 {
        let (mut datagram, _) = rig.receive_plain();
        let opened = open.open(&mut datagram).unwrap();
        assert_eq!(datagram[opened.range], discover);
    }
    assert_eq!(sa.sequence(), 2);
}
