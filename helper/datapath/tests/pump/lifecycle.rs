//! Starting and stopping: the device is free the moment stopping returns.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use ropewalk_datapath::{Config, DataPath, Event, Framing, TunFd};

use crate::lab::{Namespace, Plan, Tunnel, inner, transfer};
use crate::peer::Rig;

/// Runs a test of this file again in a process of its own: one that other threads fork from keeps every descriptor
/// for a moment longer, until the child's exec closes it. Returns whether this is that process.
fn alone(test: &str) -> bool {
    const MARK: &str = "RWDP_ALONE";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    let status = command.args(["--exact", test, "--nocapture"]).env(MARK, "1").status().unwrap();
    assert!(status.success());
    false
}

#[test]
fn stopping_releases_the_device_at_once() {
    if !alone("lifecycle::stopping_releases_the_device_at_once") {
        return;
    }
    let namespace = Namespace::new('s');
    for _ in 0..20 {
        // A device that is not multi-queue can be attached once: this fails while anyone has it.
        let tun = namespace.open_tun(true).expect("the device is still taken");
        let (path, _events) = DataPath::start(tun, Config::default()).unwrap();
        path.add_socket(namespace.udp("127.0.0.1:0"), Framing::ByRemotePort).unwrap();
        assert_eq!(namespace.open_tun(true).unwrap_err().raw_os_error(), Some(libc::EBUSY));
        path.stop();
    }
    namespace.open_tun(true).expect("the device is still taken");
}

#[test]
fn stopping_does_not_wait_for_traffic_to_end() {
    let mut tunnel = Tunnel::new(&Plan::default());
    let (from, to) = ("10.99.0.1:0", "10.99.0.2:9");
    let socket = tunnel.a.namespace.udp(from);
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = std::sync::Arc::clone(&stop);
    let flood = std::thread::spawn(move || {
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            let _ = socket.send_to(&[0; 1300], to);
        }
    });
    crate::lab::wait_until("traffic runs", || tunnel.b.path.counters().rx_packets > 1000);
    let start = Instant::now();
    tunnel.b.path.stop();
    tunnel.a.path.stop();
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    flood.join().unwrap();
    // The owner's end of the queue outlives the pump.
    while tunnel.a.events.try_recv().is_some() {}
}

#[test]
fn the_device_outlives_a_pump_that_had_a_duplicate() {
    let namespace = Namespace::new('d');
    let tun = namespace.tun(true, 1400, 1);
    for round in 0..3u64 {
        // SAFETY: dup returns a new descriptor.
        let copy = unsafe { OwnedFd::from_raw_fd(libc::dup(tun.fd.as_raw_fd())) };
        let (path, mut events) =
            DataPath::start(TunFd { fd: copy, vnet_hdr: true }, Config::default()).unwrap();
        let socket = namespace.udp("10.99.0.1:0");
        socket.send_to(b"x", "10.99.0.2:9").unwrap();
        let event = events.recv_timeout(Duration::from_secs(5));
        assert!(matches!(event, Some(Event::NoEgress { .. })), "round {round}: {event:?}");
        path.stop();
        namespace.ip("link show rw0");
    }
}

#[test]
fn a_device_that_is_taken_away_is_told() {
    let mut rig = Rig::new(Config::default());
    rig.namespace.ip("link del rw0");
    let event = rig.event(|event| matches!(event, Event::Failed { .. }));
    println!("{event:?}");
    rig.path.stop();
}

#[test]
fn a_removed_socket_is_closed() {
    let rig = Rig::new(Config::default());
    rig.path.remove_socket(rig.socket).unwrap();
    // Its port is free again as soon as the threads let go.
    let address = rig.address;
    crate::lab::wait_until("the port is free", || {
        rig.namespace.enter(move || std::net::UdpSocket::bind(address).is_ok()).join().unwrap()
    });
}

#[test]
fn idle_threads_make_no_system_calls() {
    let tunnel = Tunnel::new(&Plan::default());
    transfer(&tunnel.a.namespace, &tunnel.b.namespace, inner(2, false), 1 << 20);
    // The system's chatter on a fresh device (router solicitations, reports) ends after some seconds; it is few.
    let before = tunnel.a.path.counters();
    std::thread::sleep(Duration::from_millis(500));
    let after = tunnel.a.path.counters();
    let calls = after.tx_syscalls + after.rx_syscalls - before.tx_syscalls - before.rx_syscalls;
    assert!(calls < 60, "{calls} system calls in half a second of silence");
}
