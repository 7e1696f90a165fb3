//! Whatever happens to the network, the gateway and the machine: the state does not say "connected" for longer than can be
//! helped while nothing is carried, and when all is well again the connection is there, once.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::IpAddr;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use ropewalk_session::Phase;
use ropewalk_sim::network::below;
use ropewalk_sim::setup::{CLIENT, GATEWAY, GATEWAY_V6};
use ropewalk_sim::{Auth, Faults, Setup, World};

const SEEDS: u64 = 60;
const STEP: Duration = Duration::from_millis(100);
/// With traffic: a second until its silence is asked about, two where traffic was not answered a moment ago either, though the
/// gateway was; two more until that is told, and a step of each.
const UNHEARD: Duration = Duration::from_millis(4200);
/// What the machine knows itself is told by then.
const KNOWN: Duration = Duration::from_secs(2);
const NETWORKS: [IpAddr; 3] = [
    CLIENT,
    IpAddr::V4(std::net::Ipv4Addr::new(172, 16, 5, 9)),
    IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 9)),
];

struct Life {
    seed: u64,
    world: World,
    /// Where the client is; `None` is without a network.
    at: Option<IpAddr>,
    /// Since when nothing is carried though the state says so.
    lying: Duration,
}

impl Life {
    fn new(seed: u64, mobike: bool) -> Self {
        let mut setup = Setup::new(Auth::Psk);
        setup.gateway.mobike = mobike;
        setup.gateway.addresses = vec![GATEWAY, GATEWAY_V6];
        let mut world = World::new(setup, Faults { loss: 10, duplicate: 10, reorder: 20 }, seed);
        world.move_client(&[CLIENT]);
        world.connect();
        assert!(world.run_to(Phase::Connected, Duration::from_secs(20)), "seed {seed}");
        Self { seed, world, at: Some(CLIENT), lying: Duration::ZERO }
    }

    fn carries(&self) -> bool {
        let world = &self.world;
        let here = world.client.egress.is_some_and(|(_, path)| Some(path.local.ip()) == self.at);
        here && world.gateway.is_some() && !world.network.cut && world.agree_on_path()
    }

    fn pass(&mut self, time: Duration) {
        let end = self.world.now + time;
        while self.world.now < end {
            let carries = self.carries();
            self.world.traffic(carries);
            self.world.run_for(STEP);
            if self.carries() || self.world.client.phase() != Phase::Connected {
                self.lying = Duration::ZERO;
            } else {
                self.lying += STEP;
            }
            let limit = if self.at.is_none() { KNOWN } else { UNHEARD };
            assert!(
                self.lying <= limit,
                "seed {}: it says to be connected, and is not since {:?}: at {:?}, sends {:?}, cut: {}, gateway: {:?}",
                self.seed,
                self.lying,
                self.at,
                self.world.client.egress,
                self.world.network.cut,
                self.world.gateway_children.values().map(|(id, _, back)| (id, back)).collect::<Vec<_>>(),
            );
        }
    }

    fn go(&mut self, to: Option<IpAddr>) {
        self.at = to;
        let addresses: Vec<IpAddr> = to.into_iter().collect();
        self.world.move_client(&addresses);
    }

    fn happen(&mut self, choices: &mut ChaCha20Rng) {
        let seconds =
            |choices: &mut ChaCha20Rng, most| Duration::from_secs(u64::from(1 + below(choices, most)));
        match below(choices, 8) {
            0 | 1 => {
                let to = NETWORKS.get(usize::try_from(below(choices, 3)).unwrap()).copied();
                self.go(to);
            }
            2 => {
                let back = self.at;
                self.go(None);
                let away = seconds(choices, 20);
                self.pass(away);
                self.go(back);
            }
            3 => {
                self.world.stop_gateway();
                let gone = seconds(choices, 30);
                self.pass(gone);
                self.world.restart_gateway();
            }
            4 => {
                self.world.network.cut = true;
                let cut = seconds(choices, 30);
                self.pass(cut);
                self.world.network.cut = false;
            }
            5 => {
                let nap = seconds(choices, 900);
                self.world.sleep(nap);
                self.lying = Duration::ZERO;
            }
            6 => self.world.gateway_disconnects(),
            _ => {
                // Two things at once.
                self.world.network.cut = true;
                self.go(Some(NETWORKS[0]));
                self.pass(Duration::from_millis(700));
                self.world.network.cut = false;
            }
        }
        let quiet = seconds(choices, 15);
        self.pass(quiet);
    }
}

fn live(seeds: impl Iterator<Item = u64>, mobike: bool) {
    for seed in seeds {
        let mut life = Life::new(seed, mobike);
        let addresses = life.world.inner_addresses();
        let mut choices = ChaCha20Rng::seed_from_u64(seed ^ 0x0c0f_fee0);
        for _ in 0..12 {
            life.happen(&mut choices);
        }
        life.go(Some(CLIENT));
        life.pass(Duration::from_secs(150));
        assert!(life.carries(), "seed {seed}: {:?}", life.world.client.session.snapshot());
        life.world.carry().unwrap();
        assert_eq!(life.world.client.phase(), Phase::Connected, "seed {seed}");
        assert_eq!(life.world.inner_addresses(), addresses, "seed {seed}");
        assert_eq!(life.world.client.sockets(), 1, "seed {seed}");
        assert_eq!(life.world.client.children.len(), 1, "seed {seed}");
    }
}

#[test]
fn with_mobike_the_state_is_true_and_the_connection_returns() {
    live(0..SEEDS, true);
}

#[test]
fn without_mobike_the_state_is_true_and_the_connection_returns() {
    live(1000..1000 + SEEDS, false);
}
