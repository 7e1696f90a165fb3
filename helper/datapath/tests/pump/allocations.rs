//! No allocation per packet: the pump's threads are counted while they carry traffic.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ropewalk_datapath::{Carriage, Config, Egress, Framing, OutboundHandle, Share};

use crate::lab::{Plan, Tunnel, any_inbound, inner, namespaces, outbound, transfer};

/// The system's allocator, which counts what threads with a certain name take while it is told to.
struct Counting;

static ENABLED: AtomicBool = AtomicBool::new(false);
static COUNT: AtomicU64 = AtomicU64::new(0);
/// Thread names begin with this; no other test's do.
const NAME: &str = "counted";

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count() {
    if !ENABLED.load(Ordering::Relaxed) {
        return;
    }
    let mut name = [0u8; 16];
    // SAFETY: PR_GET_NAME writes at most 16 octets.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    if name.starts_with(NAME.as_bytes()) {
        COUNT.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: all is done by the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps alloc's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) };
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[test]
fn traffic_takes_no_memory() {
    assert!(counts_itself() >= 1, "the allocator does not count");
    for offloads in [true, false] {
        let plan = Plan { offloads, ..Plan::default() };
        let config = Config { name: NAME.to_owned(), ..plan.config() };
        let (a, b) = namespaces();
        let tunnel = Tunnel::with(&plan, a, b, [config.clone(), config]);
        // Two ways, copies and a look for them: nothing of it takes memory either.
        let second = tunnel.a.path.add_socket(tunnel.a.namespace.udp("192.0.2.1:0"), Framing::ByRemotePort);
        let egress = tunnel.a.egress(tunnel.b.address);
        let sa = OutboundHandle::new(outbound(0x2002, plan.suite));
        let other = Egress { sa, socket: second.unwrap(), ..egress.clone() };
        tunnel.b.path.add_inbound(any_inbound(0x2002, plan.suite)).unwrap();
        let share = |name, egress: &Egress| Share { name, weight: 1, egress: egress.clone() };
        let shares = vec![share(1, &egress), share(2, &other)];
        let carriage = Carriage { shares, copies: Some(other), ..Carriage::from(egress) };
        tunnel.a.path.set_default(Some(carriage)).unwrap();
        tunnel.b.path.set_expect_copies(true);
        for _ in 0..8 {
            transfer(&tunnel.a.namespace, &tunnel.b.namespace, inner(2, false), 1 << 17);
        }
        COUNT.store(0, Ordering::Relaxed);
        ENABLED.store(true, Ordering::Relaxed);
        transfer(&tunnel.a.namespace, &tunnel.b.namespace, inner(2, false), 8 << 20);
        transfer(&tunnel.b.namespace, &tunnel.a.namespace, inner(1, true), 8 << 20);
        ENABLED.store(false, Ordering::Relaxed);
        let packets = tunnel.a.path.counters().rx_packets + tunnel.b.path.counters().rx_packets;
        assert!(packets > 12_000, "{packets}");
        assert_eq!(
            COUNT.load(Ordering::Relaxed),
            0,
            "allocations for {packets} packets, offloads {offloads}"
        );
    }
}

/// What a thread of that name takes when it makes one box.
fn counts_itself() -> u64 {
    let thread = std::thread::Builder::new().name(format!("{NAME}-x")).spawn(|| {
        ENABLED.store(true, Ordering::Relaxed);
        let before = COUNT.load(Ordering::Relaxed);
        drop(std::hint::black_box(Box::new(7)));
        ENABLED.store(false, Ordering::Relaxed);
        COUNT.load(Ordering::Relaxed) - before
    });
    thread.unwrap().join().unwrap()
}
