//! A peer that knows the keys and writes payloads whose insides are not what they say: every octet of every payload, and so
//! every length field, at 0, 1 and the most, and every payload cut short; during authentication and after it, towards both
//! roles. Nobody panics, and nobody gets in whose proof does not hold.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use ropewalk_ike::exchange::Role;
use ropewalk_ike::wire::{Message, Payload, UnknownPayload, emit_payloads, payload_type};
use ropewalk_sim::duel::{Duel, Known};
use ropewalk_sim::{Auth, Setup};

/// What is written over an octet.
const OCTETS: [u8; 3] = [0, 1, 0xff];

/// The honest run of a seed, and what is known of it.
struct Run {
    setup: Setup,
    seed: u64,
    known: Known,
    /// The protected messages in order.
    messages: Vec<(Role, Vec<Payload>)>,
}

impl Run {
    fn new(auth: Auth, seed: u64) -> Self {
        let mut setup = Setup::new(auth);
        setup.gateway.fragmentation = false;
        let mut duel = Duel::new(&setup, seed);
        duel.run();
        let known = duel.known.unwrap();
        let mut messages = Vec::new();
        let mut duel = Duel::new(&setup, seed);
        duel.settle(|by, datagram| {
            messages.extend(known.open(by, &datagram).map(|payloads| (by, payloads)));
            vec![datagram]
        });
        // A sign of life, and its answer.
        duel.pass(Duration::from_secs(31));
        duel.settle(|_, datagram| vec![datagram]);
        assert!(duel.is_up());
        Self { setup, seed, known, messages }
    }

    /// Plays it again with `payload` in the place of one of a message.
    fn with(&self, number: usize, at: usize, payload: Payload) -> Duel {
        let mut changed = self.messages[number].1.clone();
        changed[at] = payload;
        let (mut duel, mut rng, mut seen) =
            (Duel::new(&self.setup, self.seed), ChaCha20Rng::seed_from_u64(1), 0);
        duel.settle(|sender, datagram| {
            let Ok(parsed) = Message::parse(&datagram) else { return vec![datagram] };
            if parsed.encrypted.is_none() {
                return vec![datagram];
            }
            seen += 1;
            if seen - 1 != number {
                return vec![datagram];
            }
            vec![self.known.seal(sender, parsed.header, &changed, &mut rng)]
        });
        duel.run();
        assert!(duel.clients() <= 1);
        duel
    }

    /// Payloads of these types, their octets at 0, 1 and the most, and cut short.
    fn mangle(&self, kinds: &[u8], mut judge: impl FnMut(&Duel, &str)) {
        let mut tried = 0;
        for (number, (by, payloads)) in self.messages.iter().enumerate() {
            for (at, payload) in payloads.iter().enumerate() {
                let (kind, emitted) = emit_payloads(std::slice::from_ref(payload));
                let honest = &emitted[4..];
                if !kinds.contains(&kind) {
                    continue;
                }
                // Certificates and signatures have lengths everywhere; a part of their octets will do.
                let step = if honest.len() > 100 { 5 } else { 1 };
                let octets =
                    (0..honest.len()).step_by(step).flat_map(|octet| OCTETS.map(|value| (octet, value)));
                // Three octets after the first are reserved and ignored in these.
                let reserved = [payload_type::ID_I, payload_type::ID_R, payload_type::AUTH].contains(&kind);
                let octets = octets.filter(|(octet, _)| !(reserved && (1..4).contains(octet)));
                let written =
                    octets.filter(|(octet, value)| honest[*octet] != *value).map(|(octet, value)| {
                        let mut body = honest.to_vec();
                        body[octet] = value;
                        body
                    });
                let cut = [0, 1, 2, 3, 4, 5, 7, 8, 9, honest.len() - 1].into_iter();
                let cut = cut.filter(|length| *length < honest.len()).map(|length| honest[..length].to_vec());
                for body in written.chain(cut) {
                    let what = format!("{by:?}, message {number}, payload {kind}: {body:02x?}");
                    let raw = UnknownPayload { payload_type: kind, critical: false, body };
                    judge(&self.with(number, at, Payload::Unknown(raw)), &what);
                    tried += 1;
                }
            }
        }
        assert!(tried > 50, "{tried} of {kinds:?}");
    }
}

#[test]
fn lengths_in_id_payloads_cve_2025_9242_and_dn_length_cve_2013_6075() {
    for auth in [Auth::Psk, Auth::Ecdsa] {
        let run = Run::new(auth, 300);
        run.mangle(&[payload_type::ID_I, payload_type::ID_R], |duel, what| {
            // The proof covers it, and the client's wish for a gateway is only a wish.
            let wish =
                what.starts_with("Initiator") && what.contains(&format!("payload {}", payload_type::ID_R));
            assert!(wish || !duel.is_up(), "{what}");
        });
    }
}

#[test]
fn lengths_in_cert_payloads_cve_2025_9242() {
    let run = Run::new(Auth::Ecdsa, 301);
    run.mangle(&[payload_type::CERT], |duel, what| assert!(!duel.is_up(), "{what}"));
}

#[test]
fn malformed_traffic_selectors_cve_2023_23009() {
    let run = Run::new(Auth::Psk, 302);
    run.mangle(&[payload_type::TS_I, payload_type::TS_R], |duel, what| {
        // Fewer networks may be agreed on; never more than the client has an address for.
        if let ropewalk_sim::duel::Stage::Up(sa) = &duel.client {
            assert!(sa.children().len() <= 1, "{what}");
        }
    });
}

#[test]
fn every_length_field_of_the_other_payloads_at_0_1_and_the_most() {
    let run = Run::new(Auth::Psk, 303);
    run.mangle(&[payload_type::AUTH], |duel, what| assert!(!duel.is_up(), "in without a proof: {what}"));
    run.mangle(&[payload_type::SA, payload_type::CP, payload_type::NOTIFY], |_, _| {});
    let run = Run::new(Auth::Eap, 304);
    run.mangle(&[payload_type::EAP], |_, _| {});
}
