//! What a gateway says that has arrived, and to whom.

use super::keep_old::Sides;
use super::*;
use crate::wire::PathReport;

/// The SPI of the gateway's CHILD_SA on its second IKE_SA.
fn its_spi(sides: &Sides) -> u32 {
    sides.gateway[1].sa.carrying().unwrap()
}

#[test]
fn a_probe_of_a_client_with_several_ike_sas_is_answered_with_what_has_arrived() {
    let mut sides = Sides::two(30);
    let spi = its_spi(&sides);
    // Nothing is known yet, so nothing is said.
    sides.with(Role::Initiator, 1, |sa, now, rng| sa.probe(now, true, rng));
    sides.settle();
    assert!(sides.client[1].reports.is_empty());
    sides.with(Role::Responder, 1, |sa, _, _| sa.note_arrivals(spi, 90, 100));
    sides.with(Role::Responder, 1, |sa, _, _| sa.note_arrivals(spi ^ 1, 7, 7));
    sides.with(Role::Initiator, 1, |sa, now, rng| sa.probe(now, true, rng));
    sides.settle();
    let report = PathReport { spi, packets: 90, newest: 100 };
    assert_eq!(sides.client[1].reports, [report], "of the CHILD_SA that carries, once");
    assert_eq!(sides.client[1].sa.children()[0].spi_out, spi, "the client knows it by this SPI");
    assert!(sides.client[0].reports.is_empty(), "on its own IKE_SA only");
}

#[test]
fn who_has_one_ike_sa_is_told_nothing_and_a_gateway_asks_for_nothing() {
    let mut sides = Sides::plain(31);
    let spi = sides.gateway[0].sa.carrying().unwrap();
    sides.with(Role::Responder, 0, |sa, _, _| sa.note_arrivals(spi, 1, 1));
    sides.with(Role::Initiator, 0, |sa, now, rng| sa.probe(now, true, rng));
    sides.settle();
    assert!(sides.client[0].reports.is_empty());
    let mut sides = Sides::two(32);
    let spi = sides.client[1].sa.carrying().unwrap();
    sides.with(Role::Initiator, 1, |sa, _, _| sa.note_arrivals(spi, 1, 1));
    sides.with(Role::Responder, 1, |sa, now, rng| sa.probe(now, true, rng));
    sides.settle();
    assert!(sides.gateway[1].reports.is_empty());
}
