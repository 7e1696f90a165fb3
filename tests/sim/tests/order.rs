//! The order in which a session wants things done.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use ropewalk_session::{Command, Phase};
use ropewalk_sim::network::Datagram;
use ropewalk_sim::{Auth, Faults, Setup, World};

#[test]
fn a_child_that_the_gateway_asked_for_is_installed_before_the_gateway_hears_of_it() {
    let mut world = World::new(Setup { nat: false, ..Setup::new(Auth::Psk) }, Faults::default(), 60);
    world.connect();
    assert!(world.run_to(Phase::Connected, Duration::from_secs(2)));
    let gateway = world.gateway.as_mut().unwrap();
    assert_eq!(gateway.rekey_all(world.now, false, &mut world.rng), 1);
    let request = gateway.poll_transmit().unwrap();
    let datagram =
        Datagram { source: request.path.local, destination: request.path.remote, bytes: request.message };
    world.client.receive(world.now, &datagram, &mut world.rng);
    let session = &mut world.client.session;
    assert!(session.poll_transmit().is_none(), "the gateway would send with what is not there yet");
    let installed = std::iter::from_fn(|| session.poll_command())
        .find(|command| matches!(command, Command::InstallChild(_)));
    assert!(installed.is_some());
    assert!(session.poll_transmit().is_some(), "the answer");
}
