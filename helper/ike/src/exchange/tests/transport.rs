//! Transport mode for IP in IP between the outer addresses (RFC 3884; RFC 7296 sections 1.3.1 and 2.23.1).

use super::*;
use crate::exchange::create_child_sa::PendingChild;
use crate::exchange::transport::selectors;
use crate::proposal::esp_offer;
use crate::wire::{Nonce, NotifyType, SecurityAssociation};

/// Two ends whose CHILD_SAs are in transport mode.
fn pair() -> Pair {
    let mut pair = Pair::new();
    for role in [Role::Initiator, Role::Responder] {
        pair.end(role).policy.mode = Mode::Transport;
    }
    pair
}

fn ask(pair: &mut Pair, role: Role, mode: Mode) {
    let policy = ChildPolicy { mode, ..policy(role, "aes256gcm16") };
    let pending = PendingChild::new(&policy, &mut pair.rng);
    let now = pair.now;
    match role {
        Role::Initiator => pair.client.create_child(now, pending, &mut pair.rng),
        Role::Responder => pair.gateway.create_child(now, pending, &mut pair.rng),
    }
}

#[test]
fn either_end_makes_a_child_sa_between_the_outer_addresses_whatever_its_policy_lists() {
    for role in [Role::Initiator, Role::Responder] {
        let mut pair = pair();
        ask(&mut pair, role, Mode::Transport);
        pair.settle();
        for end in [Role::Initiator, Role::Responder] {
            let path = path(end);
            let child = pair.end(end).children().last().unwrap();
            assert_eq!(child.mode, Mode::Transport);
            assert_eq!(child.outer(), Some((path.local.ip(), path.remote.ip())));
            assert_eq!(child.ts_local, selectors(path.local.ip()));
        }
    }
}

#[test]
fn who_has_the_other_mode_as_its_policy_refuses() {
    for (asked, policy) in [(Mode::Transport, Mode::Tunnel), (Mode::Tunnel, Mode::Transport)] {
        let mut pair = Pair::new();
        pair.gateway.policy.mode = policy;
        ask(&mut pair, Role::Initiator, asked);
        pair.settle();
        let events = pair.events(Role::Initiator);
        let refused = matches!(events.as_slice(), [SaEvent::ChildRefused(NotifyType::NoProposalChosen)]);
        assert!(refused, "{asked:?}: {events:?}");
        assert_eq!(pair.gateway.children().len(), 1);
    }
}

#[test]
fn tunnel_mode_instead_of_transport_mode_is_deleted() {
    let mut pair = pair();
    ask(&mut pair, Role::Initiator, Mode::Transport);
    pair.sent_by(Role::Initiator);
    let mut proposals =
        esp_offer(&policy(Role::Responder, "aes256gcm16-noesn").proposals, 0x0102_0304, false);
    proposals.truncate(1);
    let ends = (path(Role::Initiator).local.ip(), path(Role::Initiator).remote.ip());
    let answer = vec![
        Payload::Sa(SecurityAssociation { proposals }),
        Payload::Nonce(Nonce { data: vec![9; 32] }),
        Payload::TsI(selectors(ends.0)),
        Payload::TsR(selectors(ends.1)),
    ];
    let datagram = pair.forged(ExchangeType::CreateChildSa, 2, true, &answer);
    assert_eq!(pair.deliver(Role::Initiator, &datagram), Err(PeerMisbehaved::WrongMode));
    let events = pair.events(Role::Initiator);
    assert!(matches!(events.as_slice(), [SaEvent::ChildRefused(NotifyType::UseTransportMode)]), "{events:?}");
    assert_eq!(pair.client.children().len(), 1, "nothing was installed");
    let [delete] = pair.sent_by(Role::Initiator).try_into().unwrap();
    let parsed = crate::wire::Message::parse(&delete).unwrap();
    assert_eq!(parsed.header.exchange, ExchangeType::Informational, "its DELETE");
}
