//! Messages that neither end sent: garbage, errors that nobody authenticated, replays. None of them ends anything.

use std::net::SocketAddr;
use std::time::Duration;

use rand_core::Rng;
use ropewalk_ike::wire::{Delete, ExchangeType, Flags, Header, Notify, NotifyType, Payload, emit_message};
use ropewalk_session::Phase;
use ropewalk_sim::network::below;
use ropewalk_sim::setup::CLIENT;
use ropewalk_sim::{Auth, Faults, Setup, World};

const SOON: Duration = Duration::from_secs(3);

/// Where the client's first socket is.
fn client_socket() -> SocketAddr {
    SocketAddr::new(CLIENT, 50_001)
}

fn outsider() -> SocketAddr {
    ([192, 0, 2, 66], 4500).into()
}

/// Unprotected messages that would end something if they were believed.
fn forgeries(spi_i: u64, spi_r: u64) -> Vec<Vec<u8>> {
    let mut forged = Vec::new();
    let errors = [
        NotifyType::NoProposalChosen,
        NotifyType::AuthenticationFailed,
        NotifyType::InvalidIkeSpi,
        NotifyType::InvalidSyntax,
        NotifyType::InvalidMajorVersion,
    ];
    for exchange in [ExchangeType::IkeSaInit, ExchangeType::IkeAuth, ExchangeType::Informational] {
        for response in [true, false] {
            for initiator in [true, false] {
                for message_id in 0..4 {
                    let flags = Flags { initiator, response, version: false };
                    let header = Header { spi_i, spi_r, next_payload: 0, exchange, flags, message_id };
                    forged.extend(
                        errors.map(|error| emit_message(&header, &[Payload::Notify(Notify::status(error))])),
                    );
                    forged.push(emit_message(&header, &[Payload::Delete(Delete::ike())]));
                }
            }
        }
    }
    forged
}

#[test]
fn unprotected_messages_do_not_end_a_connection() {
    let mut world = World::new(Setup::new(Auth::Psk), Faults::default(), 40);
    world.connect();
    assert!(world.run_to(Phase::Connected, SOON));
    let spis = world.client.session.snapshot().ike.unwrap().spis;
    for forged in forgeries(spis.initiator, spis.responder) {
        world.forge_to_client(4500, client_socket(), forged.clone());
        world.forge_to_gateway(outsider(), 4500, &forged);
    }
    world.run_for(Duration::from_secs(90));
    assert_eq!(world.client.phase(), Phase::Connected);
    assert_eq!(world.gateway_log, ["up client@sim.test"]);
    world.carry().unwrap();
    assert_eq!(world.client.session.snapshot().ike.unwrap().spis, spis, "the same IKE_SA as before");
}

#[test]
fn a_forged_error_in_ike_sa_init_does_not_stop_the_true_answer() {
    for seed in 0..20 {
        let mut world = World::new(Setup::new(Auth::Psk), Faults::default(), 50 + seed);
        world.connect();
        // The client's SPI is in the clear: whoever sees the request can answer faster than the gateway.
        let spi_i = world.network.last_sent().map_or(0, first_spi);
        for forged in forgeries(spi_i, 0).into_iter().chain(forgeries(spi_i, 77)) {
            world.forge_to_client(500, client_socket(), forged);
        }
        assert!(world.run_to(Phase::Connected, SOON), "{:?}", world.client.session.snapshot());
        world.carry().unwrap();
    }
}

#[test]
fn garbage_ends_nothing_at_any_time() {
    let mut world = World::new(Setup::new(Auth::Eap), Faults::default(), 41);
    world.connect();
    for round in 0..3000 {
        let length = usize::try_from(below(&mut world.rng, 300)).unwrap();
        let mut bytes = vec![0; length];
        world.rng.fill_bytes(&mut bytes);
        // Every other one with the client's true SPIs.
        if let Some(ike) = world.client.session.snapshot().ike.filter(|_| round % 2 == 0)
            && let Some(front) = bytes.get_mut(..16)
        {
            front[..8].copy_from_slice(&ike.spis.initiator.to_be_bytes());
            front[8..].copy_from_slice(&ike.spis.responder.to_be_bytes());
        }
        world.forge_to_client(4500, client_socket(), bytes.clone());
        world.forge_to_gateway(outsider(), if round % 3 == 0 { 500 } else { 4500 }, &bytes);
        if round % 100 == 0 {
            world.run_for(Duration::from_millis(10));
        }
    }
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.client.phase(), Phase::Connected);
    assert_eq!(world.gateway_log, ["up alice"]);
    world.carry().unwrap();
}

#[test]
fn true_messages_with_one_wrong_bit_end_nothing() {
    let mut world = World::new(Setup::new(Auth::Psk), Faults::default(), 42);
    world.connect();
    assert!(world.run_to(Phase::Connected, SOON));
    world.network.record();
    world.run_for(Duration::from_secs(120));
    let recorded = world.network.recorded().to_vec();
    assert!(recorded.len() > 4, "questions for signs of life and their answers");
    for datagram in &recorded {
        for at in 0..datagram.bytes.len() {
            let mut bytes = datagram.bytes.clone();
            bytes[at] ^= 1 << (at % 8);
            world.forge_to_client(4500, client_socket(), bytes.clone());
            world.forge_to_gateway(outsider(), 4500, &bytes);
        }
        // And the true ones once more, from elsewhere.
        world.forge_to_client(4500, client_socket(), datagram.bytes.clone());
        world.forge_to_gateway(outsider(), 4500, &datagram.bytes);
    }
    let path = world.gateway_children.values().next().unwrap().2;
    assert_ne!(path.remote, outsider(), "a replay does not move the client");
    world.run_for(Duration::from_secs(120));
    assert_eq!(world.client.phase(), Phase::Connected);
    assert_eq!(world.gateway_log, ["up client@sim.test"]);
    world.carry().unwrap();
}

#[test]
fn a_flood_of_first_requests_leaves_the_connected_client_alone_and_is_forgotten() {
    let mut setup = Setup::new(Auth::Psk);
    setup.gateway.half_open_limit = 50;
    setup.gateway.cookies = ropewalk_gateway::CookiePolicy::UnderLoad(20);
    let mut world = World::new(setup, Faults::default(), 43);
    world.network.record();
    world.connect();
    assert!(world.run_to(Phase::Connected, SOON));
    let request = world.network.recorded()[0].bytes.clone();
    for number in 0..500_u64 {
        let mut copy = request.clone();
        copy[..8].copy_from_slice(&(number + 1).to_be_bytes());
        let source = SocketAddr::from(([198, 18, 0, 1], 1024 + u16::try_from(number).unwrap()));
        world.forge_to_gateway(source, 500, &copy);
    }
    // From the threshold on each is answered with a cookie and not remembered.
    assert_eq!(world.gateway.as_ref().unwrap().half_open(), 20);
    world.carry().unwrap();
    world.run_for(Duration::from_secs(31));
    assert_eq!(world.gateway.as_ref().unwrap().half_open(), 0);
    assert_eq!(world.client.phase(), Phase::Connected);
}

fn first_spi(datagram: &ropewalk_sim::network::Datagram) -> u64 {
    datagram.bytes.first_chunk().map_or(0, |spi| u64::from_be_bytes(*spi))
}
