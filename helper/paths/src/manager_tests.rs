use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use super::*;

const WIFI: PathId = PathId(1);
const WIRE: PathId = PathId(2);
const MOBILE: PathId = PathId(3);

/// When it arrives, by which path, and what: the answer to an exchange, or data.
type Flight = (Instant, PathId, Option<u64>);

/// A request that waits for its answer: its number, and the probes that it was sent for. As on an IKE_SA there is one at a time,
/// which further probes send again.
#[derive(Default)]
struct Exchange {
    number: u64,
    tokens: Vec<(u64, Instant)>,
}

/// Links in front of a gateway that answers probes and echoes data, on virtual time of one millisecond a step.
struct World {
    manager: Manager,
    now: Instant,
    links: BTreeMap<PathId, Link>,
    /// What is under way.
    flying: Vec<Flight>,
    exchanges: BTreeMap<PathId, Exchange>,
    rng: ChaCha20Rng,
    probes: usize,
    changes: Vec<(Instant, Assignment)>,
    /// Send data every so often; `None` is idle.
    traffic: Option<Duration>,
    next_data: Instant,
    /// When each echo came back.
    echoes: Vec<Instant>,
}

#[derive(Clone, Copy)]
struct Link {
    rtt: Duration,
    /// Of a thousand, there and back.
    loss: u32,
    dark: bool,
}

const GOOD: Link = Link { rtt: Duration::from_millis(20), loss: 0, dark: false };

impl World {
    fn new(policy: Policy, paths: &[(PathId, Link)]) -> Self {
        let mut world = Self {
            manager: Manager::new(policy, UseMetered::Standby),
            now: Instant::from_start(Duration::from_secs(100)),
            links: paths.iter().copied().collect(),
            flying: Vec::new(),
            exchanges: BTreeMap::new(),
            rng: ChaCha20Rng::seed_from_u64(1),
            probes: 0,
            changes: Vec::new(),
            traffic: None,
            next_data: Instant::ZERO,
            echoes: Vec::new(),
        };
        for (path, _) in paths {
            world.manager.add(world.now, *path, *path == MOBILE);
        }
        world.run(Duration::from_secs(2));
        world
    }

    fn launch(&mut self, path: PathId, token: Option<u64>) {
        let token = token.map(|token| {
            let exchange = self.exchanges.entry(path).or_default();
            exchange.tokens.push((token, self.now));
            exchange.number
        });
        let Some(link) = self.links.get(&path) else { return };
        if !link.dark && self.rng.next_u32() % 1000 >= link.loss {
            self.flying.push((self.now + link.rtt, path, token));
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.now + Duration::from_millis(1);
            self.step();
        }
    }

    fn step(&mut self) {
        let now = self.now;
        let (landed, flying) = self.flying.drain(..).partition(|(at, ..)| *at <= now);
        self.flying = flying;
        let landed: Vec<Flight> = landed;
        for (_, path, token) in landed {
            match token {
                Some(number) => {
                    let exchange = self.exchanges.entry(path).or_default();
                    if exchange.number == number {
                        exchange.number += 1;
                        let since = now - exchange.tokens.first().unwrap().1;
                        let once = exchange.tokens.len() == 1;
                        let rtt = if once { RoundTrip::Exactly(since) } else { RoundTrip::AtMost(since) };
                        let newest = exchange.tokens.last().map(|(token, _)| *token);
                        exchange.tokens.clear();
                        self.manager.probe_answered(now, path, newest.unwrap(), rtt);
                        self.manager.received(now, path, 0);
                    }
                }
                None => {
                    self.manager.received(now, path, 1000);
                    self.echoes.push(now);
                }
            }
        }
        if let Some(every) = self.traffic
            && now >= self.next_data
        {
            self.next_data = now + every;
            if let Some(path) = self.manager.assignment().carrying {
                self.manager.sent(now, path, 1000);
                self.launch(path, None);
            }
        }
        if self.manager.poll_timeout().is_some_and(|at| at <= now) {
            self.manager.handle_timeout(now);
            let next = self.manager.poll_timeout();
            assert!(next.is_none_or(|at| at > now), "it asks for what is over: {next:?} at {now:?}");
        }
        while let Some(probe) = self.manager.poll_probe() {
            self.probes += 1;
            self.launch(probe.path, Some(probe.token));
        }
        if let Some(change) = self.manager.poll_change() {
            self.changes.push((now, change));
        }
    }

    fn talk(&mut self) {
        self.traffic = Some(Duration::from_millis(10));
        self.run(Duration::from_secs(1));
        self.changes.clear();
    }

    fn carrying(&self) -> Option<PathId> {
        self.manager.assignment().carrying
    }

    fn health(&self, path: PathId) -> Health {
        self.manager.paths(self.now).iter().find(|view| view.path == path).unwrap().health
    }

    fn link(&mut self, path: PathId) -> &mut Link {
        self.links.get_mut(&path).unwrap()
    }

    fn longest_gap(&self, from: Instant, to: Instant) -> Duration {
        let mut last = from;
        let mut longest = Duration::ZERO;
        for at in self.echoes.iter().filter(|at| **at >= from && **at <= to) {
            longest = longest.max(*at - last);
            last = *at;
        }
        longest.max(to - last)
    }
}

#[test]
fn a_lost_carrier_moves_everything_at_once() {
    let mut world = World::new(Policy::Failover, &[(WIFI, GOOD), (WIRE, GOOD)]);
    world.talk();
    let first = world.carrying().unwrap();
    let other = if first == WIFI { WIRE } else { WIFI };
    let now = world.now;
    world.manager.set_carrier(now, first, false);
    assert_eq!(world.manager.poll_change().unwrap().carrying, Some(other), "in the same call");
    assert_eq!(world.health(first), Health::Down);
}

#[test]
fn silent_failure_is_left_within_a_second_of_the_first_lost_packet() {
    for (rtt, phase) in
        [2, 20, 80, 119, 121, 200, 300, 400].into_iter().flat_map(|rtt| [(rtt, 0), (rtt, 170), (rtt, 399)])
    {
        let link = Link { rtt: Duration::from_millis(rtt), ..GOOD };
        let mut world = World::new(Policy::Failover, &[(WIFI, link), (WIRE, link)]);
        world.talk();
        // However long ago the last probe was.
        world.run(Duration::from_secs(2) + Duration::from_millis(phase));
        let first = world.carrying().unwrap();
        let from = world.now;
        world.link(first).dark = true;
        world.run(Duration::from_secs(3));
        assert_ne!(world.carrying(), Some(first), "rtt {rtt}");
        let (at, _) = world.changes[0];
        assert!(at - from <= Duration::from_secs(1), "rtt {rtt}: left after {:?}", at - from);
        assert_eq!(world.changes.len(), 1, "rtt {rtt}: no flapping");
    }
}

#[test]
fn a_path_on_which_data_flow_before_its_first_probe_is_answered_is_left_within_a_second_too() {
    for rtt in [20, 60, 150] {
        let link = Link { rtt: Duration::from_millis(rtt), ..GOOD };
        let mut world = World::new(Policy::Failover, &[]);
        world.links.extend([(WIFI, link), (WIRE, link)]);
        // It has carried for long: what was sent before comes back by it.
        for at in (0..rtt).step_by(10) {
            world.flying.push((world.now + Duration::from_millis(at), WIFI, None));
        }
        world.manager.add(world.now, WIFI, false);
        world.manager.add(world.now, WIRE, false);
        world.traffic = Some(Duration::from_millis(10));
        world.run(Duration::from_millis(500));
        assert_eq!(world.carrying(), Some(WIFI));
        let from = world.now;
        world.link(WIFI).dark = true;
        world.run(Duration::from_secs(1));
        assert_eq!(world.carrying(), Some(WIRE), "rtt {rtt}");
        assert!(world.longest_gap(from, world.now) <= Duration::from_secs(1), "rtt {rtt}");
    }
}

#[test]
fn nothing_is_left_while_every_path_is_silent() {
    let mut world = World::new(Policy::Failover, &[(WIFI, GOOD), (WIRE, GOOD)]);
    world.talk();
    let first = world.carrying();
    world.link(WIFI).dark = true;
    world.link(WIRE).dark = true;
    world.run(Duration::from_secs(20));
    let moves = world.changes.len();
    assert!(moves <= 1, "{moves} moves from one dead path to another: {:?}", world.changes);
    world.link(WIFI).dark = false;
    world.link(WIRE).dark = false;
    world.run(Duration::from_secs(10));
    assert!(world.carrying().is_some() && first.is_some());
    assert_eq!(world.health(world.carrying().unwrap()), Health::Good);
}

#[test]
fn a_path_that_comes_back_stands_by_and_is_not_returned_to() {
    let mut world = World::new(Policy::Failover, &[(WIFI, GOOD), (WIRE, GOOD)]);
    world.talk();
    let first = world.carrying().unwrap();
    world.link(first).dark = true;
    world.run(Duration::from_secs(5));
    world.link(first).dark = false;
    world.changes.clear();
    world.run(Duration::from_secs(60));
    assert_eq!(world.health(first), Health::Good);
    assert!(world.changes.is_empty(), "{:?}", world.changes);
}

#[test]
fn a_path_without_evidence_is_not_promoted() {
    let dark = Link { dark: true, ..GOOD };
    let mut world = World::new(Policy::Failover, &[(WIFI, GOOD), (WIRE, dark)]);
    world.talk();
    assert_eq!(world.carrying(), Some(WIFI));
    world.link(WIFI).dark = true;
    world.run(Duration::from_secs(5));
    assert_eq!(world.carrying(), Some(WIFI), "the other one never answered");
    // Now the other one does, and this one still does not.
    world.link(WIRE).dark = false;
    world.run(Duration::from_secs(8));
    assert_eq!(world.carrying(), Some(WIRE));
}

#[test]
fn one_way_traffic_over_a_working_path_is_no_distress() {
    let mut world = World::new(Policy::Failover, &[(WIFI, GOOD), (WIRE, GOOD)]);
    let path = world.carrying().unwrap();
    world.changes.clear();
    for _ in 0..1000 {
        let now = world.now;
        world.manager.sent(now, path, 1000);
        world.run(Duration::from_millis(10));
    }
    assert!(world.changes.is_empty(), "{:?}", world.changes);
}

#[test]
fn a_little_loss_does_not_move_anything() {
    let lossy = Link { loss: 50, ..GOOD };
    let mut world = World::new(Policy::Failover, &[(WIFI, lossy), (WIRE, lossy)]);
    world.talk();
    world.run(Duration::from_secs(120));
    assert!(world.changes.is_empty(), "{:?}", world.changes);
}

#[test]
fn a_path_that_became_slow_is_left_after_a_while_for_a_good_one() {
    let mut world = World::new(Policy::Failover, &[(WIFI, GOOD), (WIRE, GOOD)]);
    world.talk();
    let first = world.carrying().unwrap();
    world.run(Duration::from_secs(20));
    world.link(first).rtt = Duration::from_millis(300);
    let from = world.now;
    world.run(Duration::from_secs(90));
    assert_ne!(world.carrying(), Some(first));
    assert!(world.changes[0].0 - from >= HOLD);
    assert_eq!(world.changes.len(), 1, "{:?}", world.changes);
}

/// Counts data for a while as both ends would: of a thousand each way so many are lost.
fn count(world: &mut World, path: PathId, seconds: u64, lost: [u64; 2]) {
    for _ in 0..seconds * 4 {
        world.run(Duration::from_millis(250));
        let now = world.now;
        for (direction, lost) in [(Direction::In, lost[0]), (Direction::Out, lost[1])] {
            world.manager.counted(now, path, direction, 1000 - lost, lost);
        }
    }
}

#[test]
fn a_path_that_loses_much_of_its_data_is_left_and_its_flows_go_elsewhere() {
    for (policy, at_most) in [(Policy::Failover, 5), (Policy::Balance, 5)] {
        let mut world = World::new(policy, &[(WIFI, GOOD), (WIRE, GOOD)]);
        world.talk();
        world.run(Duration::from_secs(20));
        world.changes.clear();
        let first = world.carrying().unwrap();
        let other = if first == WIFI { WIRE } else { WIFI };
        count(&mut world, first, 5, [100, 100]);
        assert!(world.changes.is_empty(), "a tenth each way is borne: {:?}", world.changes);
        let from = world.now;
        // Something still comes through, and all probes are answered.
        count(&mut world, first, 10, [50, 300]);
        assert_eq!(world.carrying(), Some(other), "{policy:?}");
        let (at, assignment) = world.changes[0].clone();
        assert!(at - from <= Duration::from_secs(at_most), "{policy:?}: {:?}", at - from);
        assert!(assignment.shares.paths().is_empty(), "one path alone shares with nobody");
        let view = world.manager.paths(world.now).into_iter().find(|view| view.path == first).unwrap();
        assert_eq!(view.health, Health::Degraded);
        assert!(view.loss.unwrap() > 0.3, "{view:?}");
        // Without data of its own it shows by probes that it has got over it, not at once.
        let shared = |world: &World| world.manager.assignment().shares.paths().len() == 2;
        world.run(Duration::from_secs(10));
        assert_eq!(world.health(first), Health::Degraded);
        world.run(Duration::from_secs(30));
        assert_eq!(world.health(first), Health::Good);
        assert_eq!(shared(&world), policy == Policy::Balance);
        assert_eq!(world.carrying(), Some(other), "no flapping");
    }
}

#[test]
fn paths_that_all_lose_because_there_is_more_than_they_carry_keep_their_flows() {
    let mut world = World::new(Policy::Balance, &[(WIFI, GOOD), (WIRE, GOOD)]);
    world.talk();
    for _ in 0..80 {
        world.run(Duration::from_millis(250));
        let now = world.now;
        world.manager.counted(now, WIFI, Direction::Out, 700, 300);
        world.manager.counted(now, WIRE, Direction::Out, 800, 200);
    }
    let kept = |(_, assignment): &(Instant, Assignment)| assignment.shares.paths().len() == 2;
    assert!(world.changes.iter().all(kept), "{:?}", world.changes);
}

#[test]
fn a_path_that_loses_much_of_its_data_is_kept_where_no_other_works() {
    let dark = Link { dark: true, ..GOOD };
    let mut world = World::new(Policy::Balance, &[(WIFI, GOOD), (WIRE, dark)]);
    world.talk();
    count(&mut world, WIFI, 10, [300, 300]);
    assert_eq!((world.carrying(), world.health(WIFI)), (Some(WIFI), Health::Degraded));
    assert!(world.changes.is_empty(), "{:?}", world.changes);
}

#[test]
fn a_path_is_probed_while_data_flow_by_it_and_not_after() {
    let mut world = World::new(Policy::Failover, &[(WIFI, GOOD), (MOBILE, GOOD)]);
    world.talk();
    world.probes = 0;
    world.run(Duration::from_secs(60));
    let expected = 60 + 1;
    assert!((expected - 3..=expected + 3).contains(&world.probes), "{} probes a minute", world.probes);
    world.traffic = None;
    world.run(Duration::from_secs(2));
    world.probes = 0;
    world.run(Duration::from_secs(60));
    let expected = 60 / 5 + 1;
    assert!((expected - 2..=expected + 2).contains(&world.probes), "{} probes a minute", world.probes);
    // By a long way one is always under way, three times.
    let long = Link { rtt: Duration::from_millis(250), ..GOOD };
    let mut world = World::new(Policy::Failover, &[(WIFI, long), (MOBILE, GOOD)]);
    world.talk();
    world.probes = 0;
    world.run(Duration::from_secs(10));
    assert!((100..=125).contains(&world.probes), "{} probes in ten seconds", world.probes);
    assert!(world.changes.is_empty(), "{:?}", world.changes);
}

#[test]
fn a_metered_link_carries_only_while_nothing_else_does() {
    let mut world = World::new(Policy::Failover, &[(MOBILE, GOOD), (WIFI, GOOD)]);
    world.talk();
    world.run(Duration::from_secs(5));
    assert_eq!(world.carrying(), Some(WIFI));
    let now = world.now;
    world.manager.set_carrier(now, WIFI, false);
    world.run(Duration::from_secs(1));
    assert_eq!(world.carrying(), Some(MOBILE));
    let now = world.now;
    world.manager.set_carrier(now, WIFI, true);
    world.run(Duration::from_secs(5));
    assert_eq!(world.carrying(), Some(WIFI));
}

#[test]
fn idle_paths_are_probed_rarely_and_metered_ones_more_so() {
    let mut world = World::new(Policy::Failover, &[(WIFI, GOOD), (MOBILE, GOOD)]);
    world.probes = 0;
    world.run(Duration::from_secs(600));
    let expected = 600 / 5 + 600 / 60;
    assert!((expected - 3..=expected + 3).contains(&world.probes), "{} probes in ten minutes", world.probes);
}

#[test]
fn balance_shares_among_what_works_and_redundant_adds_a_copy() {
    let mut world = World::new(Policy::Balance, &[(WIFI, GOOD), (WIRE, GOOD)]);
    let paths = |world: &World| world.manager.assignment().shares.paths().len();
    assert_eq!(paths(&world), 2);
    world.talk();
    world.link(WIFI).dark = true;
    let now = world.now;
    world.manager.set_carrier(now, WIFI, false);
    assert_eq!(paths(&world), 0, "one path alone shares with nobody");
    let now = world.now;
    world.link(WIFI).dark = false;
    world.manager.set_carrier(now, WIFI, true);
    world.run(Duration::from_secs(2));
    assert_eq!(paths(&world), 2);
    let now = world.now;
    world.manager.set_policy(now, Policy::Redundant);
    let assignment = world.manager.assignment().clone();
    assert!(assignment.shares.paths().is_empty());
    assert!(assignment.copies.is_some() && assignment.copies != assignment.carrying);
    world.manager.set_policy(now, Policy::Failover);
    assert_eq!(world.manager.assignment().copies, None);
}

#[test]
fn a_path_that_its_share_makes_slow_keeps_it() {
    let mut world = World::new(Policy::Balance, &[(WIFI, GOOD), (WIRE, GOOD)]);
    world.talk();
    world.run(Duration::from_secs(20));
    world.changes.clear();
    world.link(WIFI).rtt = Duration::from_millis(140);
    world.run(Duration::from_secs(30));
    assert_eq!(world.health(WIFI), Health::Degraded);
    // What is not spread may leave it, the flows do not.
    let kept = |(_, assignment): &(Instant, Assignment)| assignment.shares.paths().len() == 2;
    assert!(world.changes.iter().all(kept), "{:?}", world.changes);
}

#[test]
fn weights_follow_what_each_path_carries() {
    let mut world = World::new(Policy::Balance, &[(WIFI, GOOD), (WIRE, GOOD)]);
    for _ in 0..300 {
        let now = world.now;
        world.manager.received(now, WIFI, 3_000);
        world.manager.received(now, WIRE, 1_000);
        world.run(Duration::from_millis(10));
    }
    let shares = world.manager.assignment().shares.paths().to_vec();
    let weight = |path| f64::from(shares.iter().find(|(shared, _)| *shared == path).unwrap().1);
    let ratio = weight(WIFI) / weight(WIRE);
    assert!((2.5..3.5).contains(&ratio), "{shares:?}");
}

#[test]
fn an_answer_that_nobody_asked_for_is_no_evidence() {
    let dark = Link { dark: true, ..GOOD };
    let mut world = World::new(Policy::Failover, &[(WIFI, GOOD), (WIRE, dark)]);
    let now = world.now;
    for token in 1_000_000..1_000_100 {
        world.manager.probe_answered(now, WIRE, token, RoundTrip::AtMost(Duration::ZERO));
    }
    assert_ne!(world.health(WIRE), Health::Good);
}

#[test]
fn a_machine_that_stood_still_does_not_condemn_its_paths() {
    let mut world = World::new(Policy::Failover, &[(WIFI, GOOD), (WIRE, GOOD)]);
    world.talk();
    let first = world.carrying();
    // Nothing runs here for two seconds; then what had arrived is read after the timers.
    world.now = world.now + Duration::from_secs(2);
    let now = world.now;
    world.manager.handle_timeout(now);
    world.step();
    world.run(Duration::from_secs(2));
    assert_eq!(world.carrying(), first);
    assert!(world.changes.is_empty(), "{:?}", world.changes);
}

/// A hundred random events: while any path works and has had the time to show it, no gap is longer than the bound.
#[test]
fn a_hundred_path_events_leave_no_long_gap() {
    for seed in 0..6 {
        let mut world = World::new(Policy::Failover, &[(WIFI, GOOD), (WIRE, GOOD), (PathId(4), GOOD)]);
        world.rng = ChaCha20Rng::seed_from_u64(seed);
        world.talk();
        let all = [WIFI, WIRE, PathId(4)];
        // One path always works; the others come and go, with and without their carrier telling.
        for _ in 0..100 {
            let safe = all[world.rng.next_u32() as usize % 3];
            let victim = all[world.rng.next_u32() as usize % 3];
            let now = world.now;
            let from = now;
            for path in all {
                world.link(path).dark = false;
                world.manager.set_carrier(now, path, true);
            }
            // Time to prove themselves.
            world.run(Duration::from_secs(9));
            if victim != safe {
                if world.rng.next_u32().is_multiple_of(2) {
                    world.link(victim).dark = true;
                } else {
                    let now = world.now;
                    world.link(victim).dark = true;
                    world.manager.set_carrier(now, victim, false);
                }
            }
            world.run(Duration::from_secs(3));
            let gap = world.longest_gap(from, world.now);
            assert!(gap <= Duration::from_millis(1_050), "seed {seed}: {gap:?}");
            world.echoes.clear();
        }
    }
}
