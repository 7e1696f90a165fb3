//! Inner addresses of its own for a further IKE_SA.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::keep_old::Sides;
use super::*;
use crate::exchange::config::AddressRequest;
use crate::exchange::create_child_sa::PendingChild;
use crate::exchange::inner::{InnerGrant, InnerSource};
use crate::wire::{Attribute, ConfigType, Configuration, NotifyType};

const GRANTED: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 9);

/// Has one address, or none.
#[derive(Debug)]
struct Source(Option<Ipv4Addr>);

impl InnerSource for Source {
    fn grant(&self, _: Instant, request: &Configuration) -> Option<InnerGrant> {
        assert_eq!(request.ty, ConfigType::Request);
        let address = self.0?;
        Some(InnerGrant {
            reply: Configuration {
                ty: ConfigType::Reply,
                attributes: vec![Attribute::InternalIp4Address(Some(address))],
            },
            ts_local: everything(),
            ts_remote: TrafficSelectors::new(vec![TrafficSelector::host(address.into())]),
        })
    }
}

fn everything() -> TrafficSelectors {
    TrafficSelectors::new(vec![TrafficSelector::from_prefix(Ipv4Addr::UNSPECIFIED.into(), 0)])
}

fn request() -> AddressRequest {
    AddressRequest { ipv4: Some(None), ipv6: None }
}

/// A further IKE_SA whose CHILD_SA is asked for with addresses of its own.
fn asked(seed: u64, source: Option<Source>) -> Sides {
    let mut sides = Sides::plain(seed);
    sides.add(Role::Initiator, 0);
    sides.settle();
    if let Some(source) = source {
        sides.with(Role::Responder, 1, |sa, _, _| sa.set_inner_source(Arc::new(source)));
    }
    sides.with(Role::Initiator, 1, |sa, now, rng| {
        sa.create_child_with_addresses(now, request(), everything(), rng);
    });
    sides.settle();
    sides
}

#[test]
fn the_request_has_cp_before_sa() {
    let mut sides = Sides::plain(40);
    let policy = sides.client[0].sa.policy.clone();
    let mut pending = PendingChild::new(&policy, &mut sides.rng);
    pending.inner = request().configuration();
    let payloads = IkeSa::create_child_request(&pending);
    let at = |wanted: fn(&Payload) -> bool| payloads.iter().position(wanted).unwrap();
    assert_eq!(at(|payload| matches!(payload, Payload::Cp(cp) if cp.ty == ConfigType::Request)), 0);
    assert_eq!(at(|payload| matches!(payload, Payload::Sa(_))), 1);
}

#[test]
fn the_child_sa_is_for_what_was_granted_and_stays_so_when_it_is_renewed() {
    let mut sides = asked(41, Some(Source(Some(GRANTED))));
    let own = TrafficSelectors::new(vec![TrafficSelector::host(GRANTED.into())]);
    let inner = sides.client[1].inner.take().unwrap();
    assert_eq!(inner.addresses, [(GRANTED.into(), 32)]);
    for _ in 0..2 {
        let (client, gateway) = (&sides.client[1].sa.children()[0], &sides.gateway[1].sa.children()[0]);
        assert_eq!((&client.ts_local, &gateway.ts_remote), (&own, &own));
        let spi_in = client.spi_in;
        sides.with(Role::Initiator, 1, |sa, now, rng| sa.rekey_child(now, spi_in, rng));
        sides.settle();
        assert_ne!(sides.client[1].sa.carrying(), Some(spi_in), "it was renewed");
    }
    assert_ne!(sides.client[0].sa.children()[0].ts_local, own, "the first one has its own");
    assert!(sides.client[1].inner.is_none(), "a renewal asks for nothing");
}

#[test]
fn what_is_used_up_is_refused_and_the_ike_sa_stays() {
    let mut sides = asked(42, Some(Source(None)));
    let refused = std::mem::take(&mut sides.client[1].refused);
    assert!(
        matches!(refused.as_slice(), [SaEvent::ChildRefused(NotifyType::InternalAddressFailure)]),
        "{refused:?}"
    );
    sides.check(&[1, 0]);
}

#[test]
fn a_gateway_that_has_none_to_give_makes_the_child_sa_without() {
    let mut sides = asked(43, None);
    assert!(sides.client[1].inner.is_none());
    sides.check(&[1, 1]);
    assert_eq!(sides.client[1].sa.children()[0].ts_local, sides.client[0].sa.children()[0].ts_local);
}

#[test]
fn what_asks_again_or_is_not_the_client_gets_nothing_more() {
    let mut sides = asked(44, Some(Source(Some(GRANTED))));
    sides.client[1].inner = None;
    // A second CHILD_SA of the same IKE_SA is for what the first one is for.
    sides.with(Role::Initiator, 1, |sa, now, rng| {
        sa.create_child_with_addresses(now, request(), everything(), rng);
    });
    sides.settle();
    assert!(sides.client[1].inner.is_none());
    let own = TrafficSelectors::new(vec![TrafficSelector::host(GRANTED.into())]);
    assert!(sides.client[1].sa.children().iter().all(|child| child.ts_local == own));
    // And a gateway that asks is given nothing by a client, whatever that has.
    let mut sides = Sides::plain(45);
    sides.add(Role::Initiator, 0);
    sides.settle();
    sides.with(Role::Initiator, 1, |sa, _, _| sa.set_inner_source(Arc::new(Source(Some(GRANTED)))));
    sides.with(Role::Responder, 1, |sa, now, rng| {
        let ours = sa.policy.ts_local.clone();
        sa.create_child_with_addresses(now, request(), ours, rng);
    });
    sides.settle();
    assert!(sides.gateway[1].inner.is_none());
    sides.check(&[1, 1]);
}
