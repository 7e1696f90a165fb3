//! The state machines of both roles, fed by a peer that has the keys and writes what it likes.
//!
//! The input is a small script. Its first octet chooses the way to authenticate (bit 0) and how far the two ends are: nothing
//! but the first request sent, IKE_SA_INIT done, or connected. Then come messages, each of
//!
//! ```text
//! | flags | exchange | message id | number of payloads | then for each: type, length, body |
//! ```
//!
//! Flags: bit 0 to the gateway, bit 1 in the clear, bit 2 a response, bit 3 time passes instead (as many seconds as
//! "exchange" says), bit 4 the message id is meant literally, instead of the one that the receiver waits for.

#![allow(clippy::panic, reason = "without its honest run the target means nothing")]

use std::sync::OnceLock;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use ropewalk_ike::exchange::Role;
use ropewalk_ike::wire::{Flags, Header, Message, Payload, UnknownPayload, emit_message};
use ropewalk_sim::duel::{Duel, Known, Stage};
use ropewalk_sim::{Auth, Setup};

const SEED: u64 = 7;
/// Messages of one script.
const MESSAGES: usize = 40;

/// Configurations, and the keys that their runs come to.
fn world(eap: bool) -> &'static (Setup, Known) {
    static PSK: OnceLock<(Setup, Known)> = OnceLock::new();
    static EAP: OnceLock<(Setup, Known)> = OnceLock::new();
    let (cell, auth) = if eap { (&EAP, Auth::Eap) } else { (&PSK, Auth::Psk) };
    cell.get_or_init(|| {
        let setup = Setup::new(auth);
        let mut duel = Duel::new(&setup, SEED);
        duel.run();
        let known = duel.known.unwrap_or_else(|| panic!("the honest run fails: {:?}", duel.client));
        (setup, known)
    })
}

/// What is left of a script.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn octet(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn payloads(&mut self) -> Vec<Payload> {
        let count = self.octet().unwrap_or(0) % 12;
        let mut payloads = Vec::new();
        for _ in 0..count {
            let (Some(payload_type), Some(length)) = (self.octet(), self.octet()) else { break };
            let body = self.take(usize::from(length)).to_vec();
            payloads.push(Payload::Unknown(UnknownPayload { payload_type, critical: false, body }));
        }
        payloads
    }
}

/// Plays a script. Nobody panics; what is in the clear ends nothing; at most one client is in; CHILD_SAs do not pile up.
pub fn exchanges(octets: &[u8]) {
    let mut script = Script(octets);
    let Some(first) = script.octet() else { return };
    let (setup, known) = world(first & 1 != 0);
    let mut rng = ChaCha20Rng::seed_from_u64(u64::from(first));
    let mut duel = Duel::new(setup, SEED);
    match first >> 1 & 3 {
        0 => {}
        1 => {
            for _ in 0..2 {
                if let Some((by, datagram)) = duel.in_flight.pop_front() {
                    let _ = duel.deliver(other(by), &datagram);
                }
            }
        }
        _ => duel.run(),
    }
    let mut next = [0_u32, if matches!(duel.client, Stage::Up(_)) { 2 } else { 1 }];
    let mut only_plain = duel.is_up();
    for _ in 0..MESSAGES {
        let Some(flags) = script.octet() else { break };
        let exchange = script.octet().unwrap_or(37);
        if flags & 8 != 0 {
            duel.pass(Duration::from_secs(u64::from(exchange)));
            duel.settle(|_, datagram| vec![datagram]);
            continue;
        }
        let given = script.octet().unwrap_or(0);
        let payloads = script.payloads();
        let to = if flags & 1 != 0 { Role::Responder } else { Role::Initiator };
        let (by, response) = (other(to), flags & 4 != 0);
        let at = usize::from(to == Role::Responder);
        let awaited = if response { last_request(&duel, to) } else { next.get(at).copied().unwrap_or(0) };
        let header = Header {
            spi_i: known.spis.initiator,
            spi_r: known.spis.responder,
            next_payload: 0,
            exchange: (if exchange < 4 { 34 + exchange } else { exchange }).into(),
            flags: Flags { initiator: by == Role::Initiator, response, version: false },
            message_id: if flags & 16 != 0 { u32::from(given) } else { awaited },
        };
        let plain = flags & 2 != 0;
        let datagram = if plain {
            emit_message(&header, &payloads)
        } else {
            known.seal(by, header, &payloads, &mut rng)
        };
        let heard = duel.deliver(to, &datagram).is_ok();
        only_plain &= plain;
        if heard && !response && !plain {
            next.iter_mut().skip(at).take(1).for_each(|next| *next = next.saturating_add(1));
        }
        // The other end is not there to hear the answers.
        duel.in_flight.retain(|(by, _)| *by != to);
        assert!(!only_plain || duel.is_up(), "a message in the clear ended a connection");
        assert!(duel.clients() <= 1, "somebody else is in");
        if let Stage::Up(sa) = &duel.client {
            assert!(sa.children().len() <= MESSAGES + 1, "CHILD_SAs pile up");
        }
    }
    for _ in 0..4 {
        duel.settle(|_, datagram| vec![datagram]);
        duel.pass(Duration::from_secs(7));
    }
}

/// The Message ID of the last request that an end has sent and nobody took.
fn last_request(duel: &Duel, by: Role) -> u32 {
    let sent = duel.in_flight.iter().rev().filter(|(sender, _)| *sender == by);
    let ids = sent.filter_map(|(_, datagram)| Message::parse(datagram).ok().map(|parsed| parsed.header));
    ids.filter(|header| !header.flags.response).map(|header| header.message_id).next().unwrap_or(2)
}

fn other(role: Role) -> Role {
    if role == Role::Initiator { Role::Responder } else { Role::Initiator }
}
