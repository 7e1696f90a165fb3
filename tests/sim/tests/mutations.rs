//! A peer that knows the keys and is not honest, before, during and after authentication, towards both roles; by the classes
//! of bugs that have broken other implementations. Nobody panics, nobody gets in who has not proved himself, and what an
//! honest peer says afterwards still counts.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use ropewalk_ike::exchange::Role;
use ropewalk_ike::exchange::initiator::HandshakeError;
use ropewalk_ike::wire::{
    Delete, EapMessage, ExchangeType, Flags, Header, KeyExchange, Message, Nonce, Notify, NotifyType,
    Payload, Protocol, TransformType, UnknownPayload, emit_message,
};
use ropewalk_sim::duel::{Duel, Known, Stage};
use ropewalk_sim::setup::other_root;
use ropewalk_sim::{Auth, Setup};

const BOTH: [Role; 2] = [Role::Initiator, Role::Responder];

/// Configurations whose messages come whole.
fn setup(auth: Auth) -> Setup {
    let mut setup = Setup::new(auth);
    setup.gateway.fragmentation = false;
    setup
}

/// The keys of the run with this seed.
fn known(setup: &Setup, seed: u64) -> Known {
    let mut duel = Duel::new(setup, seed);
    duel.run();
    assert!(duel.is_up(), "{:?}", duel.client);
    duel.known.expect("keys")
}

fn other(role: Role) -> Role {
    if role == Role::Initiator { Role::Responder } else { Role::Initiator }
}

/// A header of a message that one end could send.
fn header(known: &Known, by: Role, exchange: ExchangeType, message_id: u32, response: bool) -> Header {
    Header {
        spi_i: known.spis.initiator,
        spi_r: known.spis.responder,
        next_payload: 0,
        exchange,
        flags: Flags { initiator: by == Role::Initiator, response, version: false },
        message_id,
    }
}

/// Both ends after IKE_SA_INIT, the client's first IKE_AUTH on its way.
fn during(setup: &Setup, seed: u64) -> Duel {
    let mut duel = Duel::new(setup, seed);
    for _ in 0..2 {
        let (by, datagram) = duel.in_flight.pop_front().unwrap();
        duel.deliver(other(by), &datagram).unwrap();
    }
    duel
}

/// Both ends with an IKE_SA between them.
fn after(setup: &Setup, seed: u64) -> Duel {
    let mut duel = Duel::new(setup, seed);
    duel.run();
    assert!(duel.is_up());
    duel
}

/// Whether the two ends still understand each other: a sign of life is asked for and given.
fn is_sound(duel: &mut Duel) -> bool {
    for _ in 0..3 {
        duel.pass(Duration::from_secs(31));
        duel.settle(|_, datagram| vec![datagram]);
    }
    duel.is_up() && duel.clients() == 1
}

#[test]
fn every_payload_of_every_message_omitted_doubled_and_renumbered_cve_2013_6467() {
    for auth in [Auth::Psk, Auth::Eap, Auth::Ecdsa] {
        let (setup, seed) = (setup(auth), 200);
        let known = known(&setup, seed);
        // The protected messages of the honest run, in order.
        let mut messages: Vec<(Role, Vec<Payload>)> = Vec::new();
        let mut duel = Duel::new(&setup, seed);
        duel.settle(|by, datagram| {
            messages.extend(known.open(by, &datagram).map(|payloads| (by, payloads)));
            vec![datagram]
        });
        assert!(messages.len() >= 2);
        for (number, (by, payloads)) in messages.iter().enumerate() {
            for at in 0..payloads.len() {
                for kind in 0..3 {
                    let mut changed = payloads.clone();
                    match kind {
                        0 => drop(changed.remove(at)),
                        1 => changed.insert(at, payloads[at].clone()),
                        _ => changed.swap(at, (at + 1) % payloads.len()),
                    }
                    let mut duel = Duel::new(&setup, seed);
                    let mut rng = ChaCha20Rng::seed_from_u64(1);
                    let mut seen = 0;
                    duel.settle(|sender, datagram| {
                        let Ok(parsed) = Message::parse(&datagram) else { return vec![datagram] };
                        if parsed.encrypted.is_none() {
                            return vec![datagram];
                        }
                        seen += 1;
                        if seen - 1 != number {
                            return vec![datagram];
                        }
                        assert_eq!(sender, *by);
                        vec![known.seal(sender, parsed.header, &changed, &mut rng)]
                    });
                    duel.run();
                    let what = format!("{auth:?}: {by:?}, message {number}, payload {at}, kind {kind}");
                    if matches!(payloads[at], Payload::Auth(_)) && kind == 0 {
                        assert!(!duel.is_up(), "in without a proof: {what}");
                    }
                    if duel.is_up() {
                        assert_eq!(duel.clients(), 1, "{what}");
                    } else {
                        // Whoever was let in and finds nobody is forgotten in time.
                        for _ in 0..100 {
                            duel.pass(Duration::from_secs(5));
                            duel.settle(|_, datagram| vec![datagram]);
                        }
                        assert_eq!(duel.clients(), 0, "{what}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_flipped_bit_in_every_octet_of_every_message_changes_nothing() {
    let (setup, seed) = (setup(Auth::Psk), 201);
    let mut lengths = Vec::new();
    let mut duel = Duel::new(&setup, seed);
    duel.settle(|_, datagram| {
        lengths.push(datagram.len());
        vec![datagram]
    });
    for (number, length) in lengths.into_iter().enumerate() {
        for at in 0..length {
            let mut duel = Duel::new(&setup, seed);
            let mut seen = 0;
            duel.settle(|_, datagram| {
                seen += 1;
                if seen - 1 != number {
                    return vec![datagram];
                }
                // The forged copy arrives first.
                let mut flipped = datagram.clone();
                flipped[at] ^= 1 << (at % 8);
                vec![flipped, datagram]
            });
            duel.run();
            assert!(duel.is_up(), "message {number}, octet {at}: {:?}", duel.client);
            assert_eq!(duel.clients(), 1);
        }
    }
}

#[test]
fn informational_before_ike_auth_cve_2019_12312() {
    let (setup, seed) = (setup(Auth::Psk), 202);
    let known = known(&setup, seed);
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    for by in BOTH {
        for payloads in [
            vec![],
            vec![Payload::Notify(Notify::status(NotifyType::UpdateSaAddresses))],
            vec![Payload::Notify(Notify::status(NotifyType::AuthenticationFailed))],
            vec![Payload::Delete(Delete::esp(vec![1, 2, 3]))],
        ] {
            for message_id in 0..3 {
                let mut duel = during(&setup, seed);
                let header = header(&known, by, ExchangeType::Informational, message_id, false);
                let _ = duel.deliver(other(by), &known.seal(by, header, &payloads, &mut rng));
                duel.run();
                assert!(duel.is_up(), "{by:?} {payloads:?} {message_id}: {:?}", duel.client);
            }
        }
    }
}

#[test]
fn rekey_of_an_sa_that_is_not_established_cve_2014_2338() {
    let (setup, seed) = (setup(Auth::Psk), 203);
    let known = known(&setup, seed);
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    let request = during(&setup, seed).in_flight.front().cloned().unwrap().1;
    let offered = known.open(Role::Initiator, &request).unwrap();
    let of = |wanted: fn(&Payload) -> bool| offered.iter().find(|payload| wanted(payload)).cloned().unwrap();
    let (sa, ts_i, ts_r) = (
        of(|payload| matches!(payload, Payload::Sa(_))),
        of(|payload| matches!(payload, Payload::TsI(_))),
        of(|payload| matches!(payload, Payload::TsR(_))),
    );
    for by in BOTH {
        for rekeys in [false, true] {
            let mut payloads =
                vec![sa.clone(), Payload::Nonce(Nonce { data: vec![7; 32] }), ts_i.clone(), ts_r.clone()];
            if rekeys {
                payloads.insert(0, Payload::Notify(Notify::rekey_esp(0x0102_0304)));
            }
            for message_id in 0..3 {
                let mut duel = during(&setup, seed);
                let header = header(&known, by, ExchangeType::CreateChildSa, message_id, false);
                let _ = duel.deliver(other(by), &known.seal(by, header, &payloads, &mut rng));
                assert_eq!(duel.clients(), 0);
                duel.run();
                assert!(duel.is_up(), "{by:?} {message_id}");
                let Stage::Up(sa) = &duel.client else { panic!("up") };
                assert_eq!(sa.children().len(), 1);
            }
        }
    }
}

#[test]
fn retransmit_to_a_half_dead_state_cve_2024_2357() {
    // The client's messages once more after it was refused, after it has left, and after the gateway threw it out.
    let mut wrong = setup(Auth::Psk);
    wrong.gateway.psks[0].secret = zeroize::Zeroizing::new(b"another".to_vec());
    for setup in [wrong, setup(Auth::Psk)] {
        let mut duel = Duel::new(&setup, 204);
        let mut sent = Vec::new();
        duel.settle(|by, datagram| {
            sent.push((by, datagram.clone()));
            vec![datagram]
        });
        duel.run();
        for round in 0..3 {
            for (by, datagram) in &sent {
                let _ = duel.deliver(other(*by), datagram);
            }
            duel.settle(|_, datagram| vec![datagram]);
            duel.pass(Duration::from_secs(20 * round));
        }
        assert!(duel.clients() <= 1);
    }
}

#[test]
fn eap_success_before_the_method_finished_cve_2021_45079() {
    let (setup, seed) = (setup(Auth::Eap), 205);
    let known = known(&setup, seed);
    for round in 0..3 {
        let mut rng = ChaCha20Rng::seed_from_u64(4);
        let mut duel = Duel::new(&setup, seed);
        let (mut answers, mut proofs) = (0, 0);
        duel.settle(|by, datagram| {
            let Some(mut payloads) = known.open(by, &datagram) else { return vec![datagram] };
            proofs +=
                usize::from(by == Role::Initiator && payloads.iter().any(|p| matches!(p, Payload::Auth(_))));
            let eap = payloads.iter_mut().find_map(|payload| match payload {
                Payload::Eap(packet) if by == Role::Responder => Some(packet),
                _ => None,
            });
            let Some(packet) = eap else { return vec![datagram] };
            answers += 1;
            if answers - 1 == round {
                *packet = EapMessage { data: vec![3, packet.data[1], 0, 4] };
                let parsed = Message::parse(&datagram).unwrap();
                return vec![known.seal(by, parsed.header, &payloads, &mut rng)];
            }
            vec![datagram]
        });
        assert!(matches!(duel.client, Stage::Failed(HandshakeError::Eap(_))), "{round}: {:?}", duel.client);
        assert_eq!(proofs, 0, "no AUTH without the method's key");
    }
}

#[test]
fn credentials_sent_before_the_gateways_constraints_are_checked_cve_2015_4171() {
    let mut setup = setup(Auth::Eap);
    setup.client.initiator.gateway.trust_anchors = other_root();
    let mut duel = Duel::new(&setup, 206);
    let mut requests = 0;
    duel.settle(|by, datagram| {
        let parsed = Message::parse(&datagram).unwrap();
        let auth = parsed.header.exchange == ExchangeType::IkeAuth;
        requests += usize::from(by == Role::Initiator && auth);
        vec![datagram]
    });
    duel.run();
    assert!(matches!(duel.client, Stage::Failed(HandshakeError::Certificate(_))), "{:?}", duel.client);
    assert_eq!(requests, 1, "nothing but the request that asks the gateway for its proof");
}

#[test]
fn missing_ke_transform_unusable_prf_and_impossible_groups_cve_2016_5391_cve_2018_10811_cve_2014_9221() {
    let setup = setup(Auth::Psk);
    let first = Duel::new(&setup, 207).in_flight.pop_front().unwrap().1;
    let parsed = Message::parse(&first).unwrap();
    let mut changed: Vec<Vec<Payload>> = Vec::new();
    for ty in [TransformType::Group, TransformType::Prf, TransformType::Encr] {
        let mut payloads = parsed.payloads.clone();
        for payload in &mut payloads {
            let Payload::Sa(sa) = payload else { continue };
            for proposal in &mut sa.proposals {
                proposal.transforms.retain(|transform| transform.ty != ty);
            }
        }
        changed.push(payloads);
        for id in [0, 1023, 1024, u16::MAX] {
            let mut payloads = parsed.payloads.clone();
            for payload in &mut payloads {
                let Payload::Sa(sa) = payload else { continue };
                let transforms = sa.proposals.iter_mut().flat_map(|proposal| &mut proposal.transforms);
                transforms.filter(|transform| transform.ty == ty).for_each(|found| found.id = id);
            }
            changed.push(payloads);
        }
    }
    for group in [0, 1, 1023, 1024, 0x8000, u16::MAX] {
        for data in [vec![], vec![0; 32], vec![0xff; 32]] {
            let mut payloads = parsed.payloads.clone();
            for payload in &mut payloads {
                if let Payload::Ke(_) = payload {
                    *payload = Payload::Ke(KeyExchange { group, data: data.clone() });
                }
            }
            changed.push(payloads);
        }
    }
    for payloads in changed {
        let mut duel = Duel::new(&setup, 207);
        let _ = duel.deliver(Role::Responder, &emit_message(&parsed.header, &payloads));
        assert_eq!(duel.gateway.half_open(), 0, "nothing is remembered of {payloads:?}");
        duel.run();
        assert!(duel.is_up());
    }
}

#[test]
fn payloads_of_ikev1_cve_2015_3991() {
    let (setup, seed) = (setup(Auth::Psk), 208);
    let known = known(&setup, seed);
    let mut rng = ChaCha20Rng::seed_from_u64(5);
    for payload_type in 1..=21 {
        for critical in [false, true] {
            let old = Payload::Unknown(UnknownPayload { payload_type, critical, body: vec![0, 1, 2, 3] });
            // Before: in IKE_SA_INIT, to both.
            let mut duel = Duel::new(&setup, seed);
            let mut first = true;
            duel.settle(|_, datagram| {
                let parsed = Message::parse(&datagram).unwrap();
                if parsed.encrypted.is_some() || !std::mem::take(&mut first) {
                    return vec![datagram];
                }
                let mut payloads = parsed.payloads.clone();
                payloads.insert(0, old.clone());
                vec![emit_message(&parsed.header, &payloads), datagram]
            });
            duel.run();
            assert!(duel.is_up(), "{payload_type} {critical}");
            // During and after, to both.
            for by in BOTH {
                let mut duel = during(&setup, seed);
                let header_auth = header(&known, by, ExchangeType::IkeAuth, 1, by == Role::Responder);
                let _ = duel
                    .deliver(other(by), &known.seal(by, header_auth, std::slice::from_ref(&old), &mut rng));
                duel.run();
                let mut duel = after(&setup, seed);
                let message_id = if by == Role::Initiator { 2 } else { 0 };
                let header = header(&known, by, ExchangeType::Informational, message_id, false);
                let result =
                    duel.deliver(other(by), &known.seal(by, header, std::slice::from_ref(&old), &mut rng));
                assert_eq!(result.is_err(), critical, "{payload_type}");
                assert!(duel.is_up() && duel.clients() == 1, "{payload_type}");
            }
        }
    }
}

#[test]
fn bad_protocol_in_rekey_sa_and_delete_cve_2023_38710() {
    let (setup, seed) = (setup(Auth::Psk), 209);
    let known = known(&setup, seed);
    let mut rng = ChaCha20Rng::seed_from_u64(6);
    for by in BOTH {
        let mut duel = after(&setup, seed);
        let mut message_id = if by == Role::Initiator { 2 } else { 0 };
        for protocol in [0_u8, 2, 4, 200, 255] {
            let delete = Payload::Delete(Delete { protocol: Protocol::from(protocol), spis: vec![1, 2] });
            let mut rekey = Notify::rekey_esp(0x0102_0304);
            rekey.protocol = protocol;
            for (exchange, payload) in
                [(ExchangeType::Informational, delete), (ExchangeType::CreateChildSa, Payload::Notify(rekey))]
            {
                let header = header(&known, by, exchange, message_id, false);
                let _ = duel.deliver(other(by), &known.seal(by, header, &[payload], &mut rng));
                message_id += 1;
                assert!(duel.is_up() && duel.clients() == 1, "{by:?} {exchange} {protocol}");
            }
        }
    }
}

#[test]
fn delete_floods() {
    let (setup, seed) = (setup(Auth::Psk), 210);
    let known = known(&setup, seed);
    let mut rng = ChaCha20Rng::seed_from_u64(7);
    for by in BOTH {
        let mut duel = after(&setup, seed);
        let first = if by == Role::Initiator { 2 } else { 0 };
        for round in 0..200 {
            let spis = (0..100).map(|number| 0x4000_0000 + round * 100 + number).collect();
            let delete = Payload::Delete(Delete::esp(spis));
            let header = header(&known, by, ExchangeType::Informational, first + round, false);
            duel.deliver(other(by), &known.seal(by, header, &[delete], &mut rng)).unwrap();
            // The answers go to nobody: this peer only talks.
            duel.in_flight.clear();
        }
        assert!(duel.is_up() && duel.clients() == 1, "{by:?}");
    }
}

#[test]
fn unknown_payloads_around_fragments_and_fragments_out_of_range_cve_2026_12413() {
    let (setup, seed) = (setup(Auth::Psk), 211);
    let known = known(&setup, seed);
    let mut rng = ChaCha20Rng::seed_from_u64(8);
    for by in BOTH {
        let mut duel = after(&setup, seed);
        let message_id = if by == Role::Initiator { 2 } else { 0 };
        let header = header(&known, by, ExchangeType::Informational, message_id, false);
        let sealed = known.seal(by, header, &[Payload::Delete(Delete::ike())], &mut rng);
        for (number, total) in [(0_u16, 0_u16), (0, 1), (2, 1), (1, u16::MAX), (u16::MAX, u16::MAX), (3, 2)] {
            // The Encrypted payload becomes an Encrypted Fragment with these numbers, alone and between others.
            let body = &sealed[32..];
            for unknown in [0_usize, 1, 3] {
                let mut datagram = sealed[..28].to_vec();
                for _ in 0..unknown {
                    datagram.extend_from_slice(&[53, 0, 0, 8, 1, 2, 3, 4]);
                }
                datagram[16] = if unknown > 0 { 200 } else { 53 };
                if unknown > 1 {
                    for at in 0..unknown - 1 {
                        datagram[28 + at * 8] = 200;
                    }
                }
                let length = u16::try_from(body.len() + 8).unwrap();
                datagram.extend_from_slice(&[42, 0]);
                datagram.extend_from_slice(&length.to_be_bytes());
                datagram.extend_from_slice(&number.to_be_bytes());
                datagram.extend_from_slice(&total.to_be_bytes());
                datagram.extend_from_slice(body);
                let whole = u32::try_from(datagram.len()).unwrap();
                datagram[24..28].copy_from_slice(&whole.to_be_bytes());
                assert!(duel.deliver(other(by), &datagram).is_err(), "{by:?} {number}/{total} {unknown}");
            }
        }
        for cut in 28..sealed.len() {
            let mut datagram = sealed[..cut].to_vec();
            let whole = u32::try_from(cut).unwrap();
            datagram[24..28].copy_from_slice(&whole.to_be_bytes());
            if cut >= 32 {
                datagram[30..32].copy_from_slice(&u16::try_from(cut - 28).unwrap().to_be_bytes());
            }
            assert!(duel.deliver(other(by), &datagram).is_err(), "{by:?}: an Encrypted payload cut at {cut}");
        }
        assert!(is_sound(&mut duel), "{by:?}");
    }
}
