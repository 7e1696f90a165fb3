//! The plain ways in.

use std::time::Duration;

use ropewalk_session::Phase;
use ropewalk_sim::{Auth, Faults, Setup, World};

#[test]
fn every_way_to_authenticate_leads_in_and_out_again() {
    for auth in [Auth::Psk, Auth::Ecdsa, Auth::Rsa, Auth::Eap] {
        let mut world = World::new(Setup::new(auth), Faults::default(), 1);
        world.connect();
        assert!(
            world.run_to(Phase::Connected, Duration::from_secs(2)),
            "{auth:?}: {:?}",
            world.client.session.snapshot()
        );
        world.carry().unwrap();
        let tunnel = world.client.tunnel.clone().unwrap();
        let addresses: Vec<String> = world.inner_addresses().iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.99.0.2", "fd99::2"]);
        assert_eq!(tunnel.dns_servers, [std::net::IpAddr::from([10, 50, 0, 53])]);
        assert_eq!(tunnel.dns_domains, ["corp.test"]);
        let reachable: Vec<String> = tunnel.reachable.selectors.iter().map(ToString::to_string).collect();
        assert_eq!(reachable, ["10.50.0.0/16", "fd50::/48"]);
        world.disconnect();
        assert!(world.run_to(Phase::Disconnected, Duration::from_secs(2)));
        assert_eq!(world.gateway_log.len(), 2, "{:?}", world.gateway_log);
        assert!(world.gateway_children.is_empty());
    }
}

#[test]
fn a_gateway_with_a_certificate_and_a_client_with_a_shared_key_let_each_other_in() {
    let certificates = Setup::new(Auth::Eap);
    for by_certificate in [true, false] {
        let mut setup = Setup::new(Auth::Psk);
        setup.gateway.certificate = certificates.gateway.certificate.clone();
        setup.gateway.certificate_to_all = by_certificate;
        let trusted = certificates.client.initiator.gateway.trust_anchors.clone();
        setup.client.initiator.gateway.trust_anchors = trusted;
        let mut world = World::new(setup, Faults::default(), 30);
        world.connect();
        // Where a certificate is demanded, the key alone proves nothing of the gateway.
        let end = if by_certificate { Phase::Connected } else { Phase::Failed };
        assert!(world.run_to(end, Duration::from_secs(15)), "{:?}", world.client.session.snapshot());
        if by_certificate {
            world.carry().unwrap();
        }
    }
}
