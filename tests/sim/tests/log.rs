//! With everything logged, down to the last detail, whatever arrives late for a state that is gone is survived
//! (CVE-2020-1763), and no secret is written down.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ropewalk_session::Phase;
use ropewalk_sim::setup::GATEWAY;
use ropewalk_sim::{Auth, Faults, Setup, World};
use tracing_subscriber::fmt::MakeWriter;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// All that was sent in a life, once more to both ends.
fn again(world: &mut World) {
    for datagram in world.network.recorded().to_vec() {
        if datagram.destination.ip() == GATEWAY {
            world.forge_to_gateway(datagram.source, datagram.destination.port(), &datagram.bytes);
        } else {
            let own = world.network.own_address(datagram.destination);
            world.forge_to_client(datagram.source.port(), own, datagram.bytes);
        }
    }
    world.run_for(Duration::from_secs(5));
}

#[test]
fn logging_of_a_state_that_is_gone_cve_2020_1763() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        for auth in [Auth::Psk, Auth::Eap, Auth::Ecdsa] {
            let mut world = World::new(Setup::new(auth), Faults::default(), 400);
            world.network.record();
            world.connect();
            again(&mut world);
            assert!(world.run_to(Phase::Connected, Duration::from_secs(10)), "{auth:?}");
            again(&mut world);
            world.restart_gateway();
            again(&mut world);
            assert!(world.run_to(Phase::Connected, Duration::from_secs(60)), "{auth:?}");
            world.disconnect();
            again(&mut world);
            assert_eq!(world.client.phase(), Phase::Disconnected);
            again(&mut world);
        }
    });
    let written = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(written.lines().count() > 20, "{} lines are not everything", written.lines().count());
    for secret in ["a shared secret", "correct horse", "PRIVATE KEY"] {
        assert!(!written.contains(secret), "{secret:?} is in the log");
    }
}
