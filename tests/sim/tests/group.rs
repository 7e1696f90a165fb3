//! Multi-point SA (draft-yamaya-ipsecme-mpsa): what a gateway hands out, rolls over and takes back.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;
use std::time::Duration;

use rand_chacha::rand_core::SeedableRng;
use ropewalk_gateway::GroupSettings;
use ropewalk_ike::exchange::Role;
use ropewalk_ike::exchange::group::GroupEvent;
use ropewalk_ike::multi_point::group_sa::{GroupPolicy, GroupSa, Refusal};
use ropewalk_ike::multi_point::put::{MPSA_PUT, MpsaPut};
use ropewalk_ike::proposal::parse_esp_list;
use ropewalk_ike::wire::{ExchangeType, Flags, Header, Message, Notify, NotifyType, Payload, emit_message};
use ropewalk_session::Phase;
use ropewalk_sim::duel::{Duel, Known};
use ropewalk_sim::setup::CLIENT;
use ropewalk_sim::{Auth, Faults, Setup, World};
use zeroize::Zeroizing;

const SOON: Duration = Duration::from_secs(2);
const SECOND: Duration = Duration::from_secs(1);

fn setup() -> Setup {
    let mut setup = Setup::new(Auth::Psk);
    setup.client.initiator.multi_point_sa = Some(GroupPolicy::default());
    setup.gateway.group = Some(GroupSettings::default());
    setup
}

fn connected(setup: Setup, faults: Faults, seed: u64) -> World {
    let mut world = World::new(setup, faults, seed);
    world.network.record();
    world.connect();
    assert!(world.run_to(Phase::Connected, 10 * SOON), "{:?}", world.client.session.snapshot());
    world.run_for(SOON);
    world
}

fn announcements(world: &World) -> Vec<bool> {
    let init = |bytes: &Vec<u8>| {
        let parsed = Message::parse(bytes).ok()?;
        let announces =
            |payload: &Payload| matches!(payload, Payload::VendorId(id) if id.is_multi_point_sa());
        (parsed.header.exchange == ExchangeType::IkeSaInit).then(|| parsed.payloads.iter().any(announces))
    };
    world.network.recorded().iter().filter_map(|datagram| init(&datagram.bytes)).collect()
}

#[test]
fn both_announce_it_and_the_client_gets_the_groups_sa() {
    let world = connected(setup(), Faults::default(), 1);
    assert_eq!(announcements(&world), [true, true]);
    let [sa] = world.client.group.as_slice() else { panic!("{:?}", world.client.group) };
    assert_eq!(world.client.group_egress, Some(sa.spi));
    let info = world.client.session.snapshot().group.unwrap();
    assert_eq!((info.sending, info.receiving, info.refused), (Some(sa.spi), vec![sa.spi], None));
}

#[test]
fn without_the_gateways_announcement_there_is_no_group() {
    let mut no_gateway = setup();
    no_gateway.gateway.group = None;
    let world = connected(no_gateway, Faults::default(), 2);
    assert_eq!(announcements(&world), [true, false]);
    assert!(world.client.group.is_empty());
    assert!(!world.client.session.snapshot().ike.unwrap().features.multi_point);

    let mut no_client = setup();
    no_client.client.initiator.multi_point_sa = None;
    let world = connected(no_client, Faults::default(), 3);
    assert_eq!(announcements(&world), [false, false]);
    assert!(world.client.group.is_empty() && world.client.session.snapshot().group.is_none());
}

#[test]
fn a_new_sa_is_heard_at_once_spoken_after_roll1_and_alone_after_roll2() {
    let mut world = connected(setup(), Faults::default(), 4);
    let first = world.client.group_egress.unwrap();
    // The times of GroupSettings::default, from the client's entry on.
    assert!(!world.run_until(2990 * SECOND, |world| world.client.group.len() > 1));
    assert!(world.run_until(15 * SECOND, |world| world.client.group.len() == 2));
    let second = world.client.group[1].spi;
    assert_ne!(first, second);
    assert!(!world.run_until(59 * SECOND, |world| world.client.group_egress != Some(first)));
    assert!(world.run_until(2 * SECOND, |world| world.client.group_egress == Some(second)));
    assert!(!world.run_until(58 * SECOND, |world| world.client.group.len() != 2));
    assert!(world.run_until(2 * SECOND, |world| world.client.group.len() == 1));
    assert_eq!(world.client.group[0].spi, second);
}

#[test]
fn a_day_of_rollovers_over_a_bad_network_leaves_never_more_than_two_and_always_one() {
    for seed in 0..4 {
        let faults = Faults { loss: 20, duplicate: 20, ..Faults::default() };
        let mut world = connected(setup(), faults, 50 + seed);
        let wrong = |world: &World| {
            let client = &world.client;
            let sending = client.group_egress.and_then(|spi| client.group.iter().find(|sa| sa.spi == spi));
            sending.is_none() || client.group.len() > 2
        };
        let failed = world.run_until(Duration::from_secs(86_400), wrong);
        assert!(!failed, "seed {seed} at {:?}: {:?}", world.now, world.client.group);
    }
}

#[test]
fn it_survives_a_rekey_and_a_move_and_goes_with_the_connection() {
    let mut world = connected(setup(), Faults::default(), 5);
    let first = world.client.group_egress;
    world.gateway.as_mut().unwrap().rekey_all(world.now, true, &mut world.rng);
    world.run_for(SOON);
    assert_eq!(world.client.group_egress, first);
    world.gateway.as_mut().unwrap().renew_group(world.now, &mut world.rng);
    world.run_for(SOON);
    assert_eq!(world.client.group.len(), 2, "the new IKE_SA listens, too");
    world.move_client(&["198.51.100.77".parse().unwrap(), CLIENT]);
    world.run_for(5 * SECOND);
    assert_eq!(world.client.group.len(), 2);
    world.disconnect();
    assert!(world.run_to(Phase::Disconnected, SOON));
    assert!(world.client.group.is_empty() && world.client.group_egress.is_none());
}

#[test]
fn what_the_gateway_takes_back_goes() {
    let mut world = connected(setup(), Faults::default(), 6);
    world.gateway.as_mut().unwrap().end_group(world.now, &mut world.rng);
    world.run_for(SOON);
    assert!(world.client.group.is_empty() && world.client.group_egress.is_none());
    assert_eq!(world.client.phase(), Phase::Connected);
    world.carry().unwrap();
}

#[test]
fn a_suite_that_is_not_taken_is_told_and_the_connection_stays() {
    let mut weak = setup();
    weak.gateway.group = Some(GroupSettings { prf: 2, integ: 2, sk_d_len: 20, ..GroupSettings::default() });
    let mut counter = setup();
    counter.gateway.group = Some(GroupSettings { encr: 20, integ: 0, ..GroupSettings::default() });
    for (setup, expected) in [(weak.clone(), Refusal::Sha1), (counter, Refusal::CounterMode { encr: 20 })] {
        let mut world = connected(setup, Faults::default(), 7);
        assert!(world.client.group.is_empty());
        assert_eq!(world.client.session.snapshot().group.unwrap().refused, Some(expected));
        world.carry().unwrap();
    }
    weak.client.initiator.multi_point_sa = Some(GroupPolicy { allow_sha1: true });
    let world = connected(weak, Faults::default(), 8);
    assert_eq!(world.client.group.len(), 1);
}

#[test]
fn childless_clients_get_it_too() {
    let mut setup = setup();
    setup.gateway.childless = ropewalk_gateway::Childless::Force;
    setup.client.initiator.esp_proposals = parse_esp_list(&["aes256gcm16"]).unwrap();
    let world = connected(setup, Faults::default(), 9);
    assert_eq!(world.client.group.len(), 1);
}

/// Reads MPSA_PUT by the draft's figures and tables, and derives the keys with Python's own HMAC.
const BY_PYTHON: &str = r#"
import hmac, struct, sys
data = bytes.fromhex(sys.argv[1])
assert data[0] == 0 and struct.unpack(">H", data[2:4])[0] == len(data)
spi = data[8:8 + data[6]]
at, transforms = 8 + data[6], {}
for _ in range(data[7]):
    length, = struct.unpack(">H", data[at + 2:at + 4])
    number, = struct.unpack(">H", data[at + 6:at + 8])
    transforms[data[at + 4]] = number, data[at + 8:at + length]
    at += length
assert at == len(data)
nonce, sk_d = transforms[241][1][4:], transforms[242][1][4:]
digest = {2: "sha1", 5: "sha256", 6: "sha384", 7: "sha512"}[transforms[2][0]]
encr = struct.unpack(">H", transforms[1][1][2:4])[0] // 8
integ = {2: 20, 12: 32, 13: 48, 14: 64}[transforms[3][0]]
keys, block, count = b"", b"", 0
while len(keys) < encr + integ:
    count += 1
    block = hmac.new(sk_d, block + nonce + bytes([count]), digest).digest()
    keys += block
print(spi.hex(), keys[:encr].hex(), keys[encr:encr + integ].hex())
"#;

/// Both ends from login to rest; what the gateway sent protected, and the SA that the client made of it.
fn handed_out(group: GroupSettings) -> (Vec<u8>, GroupSa) {
    let mut setup = setup();
    setup.client.initiator.multi_point_sa = Some(GroupPolicy { allow_sha1: true });
    setup.gateway.group = Some(group);
    let mut first = Duel::new(&setup, 11);
    first.run();
    let known = first.known.unwrap();
    let mut duel = Duel::new(&setup, 11);
    let mut notify = Vec::new();
    duel.settle(|by, datagram| {
        notify.extend(puts(&known, by, &datagram));
        vec![datagram]
    });
    let [GroupEvent::HandedOut(sa)] = duel.group.as_slice() else { panic!("{:?}", duel.group) };
    assert_eq!(notify.len(), 1);
    (notify.remove(0), (**sa).clone())
}

fn puts(known: &Known, by: Role, datagram: &[u8]) -> Vec<Vec<u8>> {
    let payloads = known.open(by, datagram).unwrap_or_default();
    let put = |payload: Payload| match payload {
        Payload::Notify(notify) if notify.ty == NotifyType::from(MPSA_PUT) => Some(notify.data),
        _ => None,
    };
    payloads.into_iter().filter_map(put).collect()
}

#[test]
fn keys_are_those_that_python_derives_from_the_octets_on_the_wire() {
    let suites = [(128, 5, 32, 12), (256, 5, 32, 12), (256, 6, 48, 13), (256, 7, 64, 14), (256, 2, 20, 2)];
    for (key_bits, prf, sk_d_len, integ) in suites {
        let (octets, sa) =
            handed_out(GroupSettings { key_bits, prf, sk_d_len, integ, ..GroupSettings::default() });
        let python = Command::new("python3").args(["-c", BY_PYTHON, &hex::encode(octets)]).output().unwrap();
        let ours = format!("{:08x} {} {}", sa.spi, hex::encode(&*sa.keys.encr), hex::encode(&*sa.keys.integ));
        let theirs = String::from_utf8(python.stdout).unwrap();
        assert_eq!(theirs.trim(), ours, "{}", String::from_utf8_lossy(&python.stderr));
    }
}

/// An offer that none of these may make.
fn forged() -> Payload {
    let put = MpsaPut {
        spi: 0x0bad_0bad,
        encr: 12,
        key_bits: 256,
        prf: 5,
        integ: 12,
        nonce: vec![7; 32],
        sk_d: Zeroizing::new(vec![7; 32]),
        lifetime: Duration::from_secs(3600),
        rollover1: Duration::ZERO,
        rollover2: Duration::ZERO,
    };
    Payload::Notify(put.notify())
}

#[test]
fn an_offer_counts_only_after_authentication_and_in_an_informational_request() {
    let setup = setup();
    let mut first = Duel::new(&setup, 12);
    first.run();
    let known = first.known.unwrap();
    let mut rng = rand_chacha::ChaCha20Rng::from_seed([1; 32]);
    let message = |exchange, response, message_id| Header {
        spi_i: known.spis.initiator,
        spi_r: known.spis.responder,
        next_payload: 0,
        exchange,
        flags: Flags { initiator: false, response, version: false },
        message_id,
    };
    let mut duel = Duel::new(&setup, 12);
    let mut told = 0;
    duel.settle(|by, datagram| {
        if by == Role::Initiator {
            return vec![datagram];
        }
        let parsed = Message::parse(&datagram).unwrap();
        match parsed.header.exchange {
            ExchangeType::IkeSaInit => {
                // In the clear beside the answer, as anybody can; and sealed by somebody who has the keys, as whoever
                // answered can before it has proved who it is.
                told += 2;
                let header = message(ExchangeType::Informational, false, 0);
                let clear = emit_message(&header, &[forged()]);
                vec![clear, datagram, known.seal(by, header, &[forged()], &mut rng)]
            }
            ExchangeType::IkeAuth => {
                told += 1;
                let mut payloads = known.open(by, &datagram).unwrap();
                payloads.push(forged());
                let header = message(ExchangeType::IkeAuth, true, parsed.header.message_id);
                vec![known.seal(by, header, &payloads, &mut rng)]
            }
            _ => vec![datagram],
        }
    });
    assert!(told == 3 && duel.is_up(), "{duel:?}");
    let [GroupEvent::HandedOut(sa)] = duel.group.as_slice() else { panic!("{:?}", duel.group) };
    assert_ne!(sa.spi, 0x0bad_0bad, "the true one, which came as it must");
}

#[test]
fn an_offer_in_the_gateways_first_answer_leads_to_no_group() {
    let setup = setup();
    let mut duel = Duel::new(&setup, 13);
    duel.settle(|by, datagram| {
        let parsed = Message::parse(&datagram).unwrap();
        if by == Role::Initiator || parsed.header.exchange != ExchangeType::IkeSaInit {
            return vec![datagram];
        }
        let mut payloads = parsed.payloads.clone();
        payloads.push(forged());
        vec![emit_message(&parsed.header, &payloads)]
    });
    // Both ends sign what they sent and received, so whoever added it is noticed.
    assert!(duel.group.is_empty() && !duel.is_up(), "{duel:?}");
}

#[test]
fn hostile_offers_of_an_authenticated_gateway_install_nothing_and_the_connection_stays() {
    let setup = setup();
    let mut first = Duel::new(&setup, 14);
    first.run();
    let known = first.known.unwrap();
    let Payload::Notify(good) = forged() else { panic!("no notify") };
    let changed = |change: fn(&mut Notify)| {
        let mut notify = good.clone();
        change(&mut notify);
        notify
    };
    let hostile = [
        changed(|notify| notify.data.truncate(notify.data.len() - 1)),
        changed(|notify| notify.data.clear()),
        changed(|notify| notify.data[3] += 1),
        // The first transform, AES-CBC, says to be longer and shorter than it is.
        changed(|notify| notify.data[15] += 1),
        changed(|notify| notify.data[15] = 0),
        changed(|notify| notify.data[7] += 1),
        changed(|notify| notify.data[7] -= 1),
        changed(|notify| notify.spi = vec![0; 8]),
        changed(|notify| notify.data[6] = 8),
        // ENCR NULL, 3DES and AES-GCM instead of AES-CBC.
        changed(|notify| notify.data[19] = 11),
        changed(|notify| notify.data[19] = 3),
        changed(|notify| notify.data[19] = 20),
    ];
    for (at, notify) in hostile.into_iter().enumerate() {
        let mut duel = Duel::new(&setup, 14);
        let mut rng = rand_chacha::ChaCha20Rng::from_seed([2; 32]);
        let mut swapped = false;
        duel.settle(|by, datagram| {
            if puts(&known, by, &datagram).is_empty() {
                return vec![datagram];
            }
            swapped = true;
            let header = Message::parse(&datagram).unwrap().header;
            vec![known.seal(
                by,
                Header { next_payload: 0, ..header },
                &[Payload::Notify(notify.clone())],
                &mut rng,
            )]
        });
        let taken = duel.group.iter().any(|event| matches!(event, GroupEvent::HandedOut(_)));
        assert!(swapped && !taken && duel.is_up(), "{at}: {:?}", duel.group);
    }
}
