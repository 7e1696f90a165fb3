//! Memory over a month of renewals, moves and lost packets: what both ends, the network between them and the clock hold is
//! counted by the allocator of this program, every day when all is at rest, and at its highest in between.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ropewalk_ike::exchange::lifetime::Lifetimes;
use ropewalk_session::Phase;
use ropewalk_sim::setup::CLIENT;
use ropewalk_sim::{Auth, Faults, Setup, World};

const HOUR: Duration = Duration::from_secs(3600);
const DAYS: usize = 30;
/// The client's other address.
const CAFE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(172, 16, 5, 9));
/// What two days may differ by when all is at rest: queues and tables keep the room that they once needed. A leak of one
/// CHILD_SA an hour would be more in a day.
const SLACK: usize = 8 * 1024;
/// What renewals and moves may need at their worst, both ends together: some IKE_SAs with an answer to repeat each.
const PEAK: usize = 128 * 1024;

/// Counts what is allocated.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static HIGHEST: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes on to the system's allocator as it came; beside it a number is kept.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        HIGHEST.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller keeps what `System` demands.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps what `System` demands.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What is held when there is one of each and nothing on its way.
fn at_rest(world: &mut World) -> usize {
    world.network.faults = Faults::default();
    let rest = world.run_until(HOUR, |world| {
        let gateway = world.gateway.as_ref().unwrap();
        (world.client.children.len(), world.gateway_children.len()) == (1, 1)
            && (world.client.session.ike_sas(), gateway.ike_sas()) == (1, 1)
    });
    assert!(rest, "something is left behind");
    world.run_for(Duration::from_secs(5));
    let live = LIVE.load(Ordering::Relaxed);
    world.network.faults = Faults { loss: 20, duplicate: 5, reorder: 100 };
    live
}

#[test]
fn a_month_of_renewals_and_moves_leaves_nothing_in_memory() {
    let mut setup = Setup::new(Auth::Eap);
    let lifetimes = Lifetimes { ike: Some(4 * HOUR), child: Some(HOUR), child_octets: None };
    setup.client.initiator.lifetimes = lifetimes;
    setup.gateway.lifetimes = lifetimes;
    // The NAT of the simulation never forgets a mapping.
    setup.nat = false;
    // Some days end with another login.
    setup.gateway.auth_lifetime = Some(40 * HOUR);
    let mut world = World::new(setup, Faults::default(), 7);
    world.connect();
    assert!(world.run_to(Phase::Connected, HOUR));
    world.network.faults = Faults { loss: 20, duplicate: 5, reorder: 100 };
    let mut days = Vec::with_capacity(DAYS);
    for _ in 0..DAYS {
        for hour in 0..24 {
            world.run_for(HOUR);
            world.move_client(&[if hour % 2 == 0 { CAFE } else { CLIENT }]);
            let now = world.now;
            world.client.session.check_liveness(now, &mut world.rng);
        }
        // What the simulation itself writes down is not the ends'.
        world.gateway_log = Vec::new();
        days.push(at_rest(&mut world));
        if days.len() == 1 {
            HIGHEST.store(LIVE.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
    let (first, highest) = (days[0], HIGHEST.load(Ordering::Relaxed));
    eprintln!("octets in use each day: {days:?}, at the highest {highest}");
    let most = days.iter().max().unwrap();
    assert!(*most <= first + SLACK, "it grows");
    assert!(highest <= first + PEAK, "{highest} octets at the highest, {first} at rest");
}
