//! Months of connections in virtual time: both ends renew at their real intervals over a network that loses two packets in a
//! hundred and reorders, and every hour the client has another address, or its NAT forgets it.
//!
//! At every step of every life each end must send with a CHILD_SA that the other end receives, with the same keys; a change
//! of address may take [`LONGEST_MOVE`] until what is sent goes to the right place. Nothing may pile up, and one login is
//! enough for the whole month.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use ropewalk_gateway::Gateway;
use ropewalk_ike::exchange::lifetime::Lifetimes;
use ropewalk_ike::proposal::parse_esp_list;
use ropewalk_ike::time::Instant;
use ropewalk_session::Phase;
use ropewalk_sim::network::below;
use ropewalk_sim::setup::{CLIENT, ike};
use ropewalk_sim::{Auth, Faults, Setup, World};

/// Seeds in a usual run; `ROPEWALK_SEEDS` sets another number.
const SEEDS: u64 = 200;
/// How many tests share them.
const PARTS: u64 = 4;
/// Hours in a month.
const MONTH: u32 = 30 * 24;

const HOUR: Duration = Duration::from_secs(3600);
/// How long the ends may disagree about where the client is: some lost packets in a row, and [`NEXT_PACKET`].
const LONGEST_MOVE: Duration = Duration::from_secs(50);
/// A gateway learns of another NAT mapping by the client's next new packet; this idle client sends one so much later again.
const NEXT_PACKET: Duration = Duration::from_secs(30);
/// The client's other address.
const CAFE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(172, 16, 5, 9));
/// CHILD_SAs at one end at a time: the one in use, a rival of each end in a collision, and those that linger.
const MOST_CHILDREN: usize = 6;
/// IKE_SAs at one end at a time.
const MOST_IKE_SAS: usize = 4;

/// Watches the world at each step.
#[derive(Default)]
struct Watch {
    astray_since: Option<Instant>,
    longest_move: Duration,
    unusable: Option<Instant>,
    children: usize,
    ike_sas: usize,
}

impl Watch {
    fn look(&mut self, world: &World) {
        if !world.is_usable() {
            self.unusable.get_or_insert(world.now);
        }
        if world.agree_on_path() {
            self.astray_since = None;
        } else {
            let since = *self.astray_since.get_or_insert(world.now);
            self.longest_move = self.longest_move.max(world.now - since);
        }
        self.children = self.children.max(world.client.children.len()).max(world.gateway_children.len());
        let gateway = world.gateway.as_ref().map_or(0, Gateway::ike_sas);
        self.ike_sas = self.ike_sas.max(world.client.session.ike_sas()).max(gateway);
    }
}

fn live(seed: u64, hours: u32) {
    let mut choices = ChaCha20Rng::seed_from_u64(seed ^ 0x0303);
    let mut setup = Setup::new(Auth::Psk);
    setup.nat = below(&mut choices, 2) == 0;
    let lifetimes = Lifetimes { ike: Some(4 * HOUR), child: Some(HOUR), child_octets: None };
    setup.client.initiator.lifetimes = lifetimes;
    setup.gateway.lifetimes = lifetimes;
    setup.client.initiator.dpd = Some(HOUR / 12);
    setup.gateway.dpd = Some(HOUR / 10);
    setup.gateway.ike_proposals = vec![ike("aes256gcm16-prfsha256-x25519")];
    if below(&mut choices, 2) == 0 {
        let with_group = parse_esp_list(&["aes256gcm16-x25519"]).unwrap();
        setup.client.initiator.esp_proposals.clone_from(&with_group);
        setup.gateway.esp_proposals = with_group;
    }
    let mut world = World::new(setup, Faults::default(), seed);
    world.connect();
    assert!(world.run_to(Phase::Connected, HOUR), "it does not come up");
    world.network.faults = Faults { loss: 20, duplicate: 5, reorder: 100 };
    let (first_ike, mut watch) = (world.client.session.snapshot().ike.unwrap().spis, Watch::default());
    for hour in 0..hours {
        // Somewhere in the hour, a renewal under way or not.
        let before = HOUR / 3600 * below(&mut choices, 3500);
        let after = [(NEXT_PACKET, false), (HOUR - before - NEXT_PACKET, false)];
        for (time, moves) in std::iter::once((before, true)).chain(after) {
            world.run_until(time, |world| {
                watch.look(world);
                false
            });
            match hour % 3 {
                _ if !moves => {
                    let now = world.now;
                    world.client.session.check_liveness(now, &mut world.rng);
                }
                0 => world.move_client(&[CAFE]),
                1 => world.move_client(&[CLIENT]),
                _ => {
                    world.network.rebind();
                    // The client's next packet shows the new mapping.
                    let now = world.now;
                    world.client.session.check_liveness(now, &mut world.rng);
                }
            }
        }
        assert_eq!(world.client.phase(), Phase::Connected);
        world.carry().unwrap();
    }
    assert_eq!(watch.unusable, None, "at some moment one end did not receive what the other sent");
    assert!(watch.longest_move <= LONGEST_MOVE, "a move took {:?}", watch.longest_move);
    assert!(watch.children <= MOST_CHILDREN, "{} CHILD_SAs at once", watch.children);
    assert!(watch.ike_sas <= MOST_IKE_SAS, "{} IKE_SAs at once", watch.ike_sas);
    assert_eq!(world.gateway_log, ["up client@sim.test"], "one login");
    if hours > 4 {
        assert_ne!(world.client.session.snapshot().ike.unwrap().spis, first_ike);
    }
    // At rest there is one of each: nothing was left behind.
    let at_rest = |world: &World| {
        let gateway = world.gateway.as_ref().unwrap();
        (world.client.children.len(), world.gateway_children.len()) == (1, 1)
            && (world.client.session.ike_sas(), gateway.ike_sas()) == (1, 1)
    };
    world.network.faults = Faults::default();
    assert!(world.run_until(HOUR / 10, at_rest), "something is left behind");
}

fn seeds() -> u64 {
    std::env::var("ROPEWALK_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SEEDS)
}

fn part(part: u64) {
    for seed in (0..seeds()).filter(|seed| seed % PARTS == part) {
        assert!(
            catch_unwind(AssertUnwindSafe(|| live(seed, MONTH))).is_ok(),
            "seed {seed} failed; replay it: ROPEWALK_SEED={seed} ROPEWALK_HOURS={MONTH} \
             cargo test -p ropewalk-sim --test month -- --ignored one_seed"
        );
    }
}

#[test]
fn connections_renew_themselves_for_a_month_0() {
    part(0);
}

#[test]
fn connections_renew_themselves_for_a_month_1() {
    part(1);
}

#[test]
fn connections_renew_themselves_for_a_month_2() {
    part(2);
}

#[test]
fn connections_renew_themselves_for_a_month_3() {
    part(3);
}

#[test]
#[ignore = "for replaying: ROPEWALK_SEED and ROPEWALK_HOURS say which"]
fn one_seed() {
    let number = |name| std::env::var(name).expect(name).parse::<u64>().expect("a number");
    live(number("ROPEWALK_SEED"), u32::try_from(number("ROPEWALK_HOURS")).expect("hours"));
}
