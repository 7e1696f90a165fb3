//! Ends that move (RFC 4555), each requirement from the side that has to meet it.

mod testing;

use std::net::{IpAddr, SocketAddr};

use super::*;
use crate::exchange::nat::{detection_hash, forced_encapsulation_hash};
use crate::exchange::sa::CloseReason;
use crate::wire::{Message, Notify, NotifyType, find_notify};

/// The client at its new address, as it sees itself.
fn new_path() -> Path {
    Path { link: 2, local: ([203, 0, 113, 9], 40_000).into(), remote: path(Role::Initiator).remote }
}

/// What the gateway sees of a path of the client's when a NAT turns its address into `public`.
fn mirrored(path: Path, public: Option<SocketAddr>) -> Path {
    Path { link: 1, local: path.remote, remote: public.unwrap_or(path.local) }
}

fn notify(ty: NotifyType, data: &[u8]) -> Payload {
    Payload::Notify(Notify::new(ty, data.to_vec()))
}

/// A pair whose messages travel, so that both ends see real addresses.
struct Road {
    pair: Pair,
    /// The client's NAT.
    public: Option<SocketAddr>,
    /// The client's keys once more, to read and write for it.
    reader: Protection,
    /// What the client sent with this link does not arrive.
    broken: Option<u32>,
    next_id: u32,
}

impl Road {
    fn new() -> Self {
        let reader = Protection::new(IkeCipher::Aes256Gcm16, &keys(), Role::Initiator).unwrap();
        Self { pair: Pair::new(), public: None, reader, broken: None, next_id: 2 }
    }

    fn with_policy(policy: MovePolicy) -> Self {
        let mut road = Self::new();
        road.pair.gateway.mobility = Mobility::of_responder(policy, Vec::new(), Vec::new());
        road
    }

    fn move_client(&mut self, to: Path) {
        let now = self.pair.now;
        self.pair.client.move_to(now, to, &mut self.pair.rng);
    }

    /// One way from the client to the gateway.
    fn carry_out(&mut self) -> usize {
        let mut sent = 0;
        while let Some(transmit) = self.pair.client.poll_transmit() {
            sent += 1;
            if self.broken == Some(transmit.path.link) {
                continue;
            }
            let seen = mirrored(transmit.path, self.public);
            let _ =
                self.pair.gateway.handle_datagram(self.pair.now, seen, &transmit.message, &mut self.pair.rng);
        }
        sent
    }

    /// One way back; what goes to an address that the client does not have at the moment is lost.
    fn carry_back(&mut self, link: u32) -> usize {
        let mut sent = 0;
        while let Some(transmit) = self.pair.gateway.poll_transmit() {
            sent += 1;
            let all = [path(Role::Initiator), new_path()];
            let at = all
                .iter()
                .find(|path| path.link == link && transmit.path.remote == self.public.unwrap_or(path.local));
            if let Some(at) = at {
                let _ = self.pair.client.handle_datagram(
                    self.pair.now,
                    *at,
                    &transmit.message,
                    &mut self.pair.rng,
                );
            }
        }
        sent
    }

    fn settle(&mut self, link: u32) {
        while self.carry_out() + self.carry_back(link) > 0 {}
    }

    /// The gateway's answer to a request that the test writes for the client.
    fn ask(&mut self, seen: Path, payloads: &[Payload]) -> Vec<Payload> {
        let header = Header {
            spi_i: SPIS.initiator,
            spi_r: SPIS.responder,
            next_payload: 0,
            exchange: ExchangeType::Informational,
            flags: Flags { initiator: true, response: false, version: false },
            message_id: self.next_id,
        };
        self.next_id += 1;
        let sealed = self.reader.seal(header, payloads, false, seen, &mut self.pair.rng).unwrap();
        self.pair.gateway.handle_datagram(self.pair.now, seen, &sealed[0], &mut self.pair.rng).unwrap();
        let answer = self.pair.gateway.poll_transmit().unwrap();
        assert_eq!(answer.path, seen, "answers go to where the request came from");
        self.read(&answer.message)
    }

    fn read(&mut self, message: &[u8]) -> Vec<Payload> {
        let parsed = Message::parse(message).unwrap();
        let opened =
            self.reader.open(self.pair.now, message, &parsed.header, &parsed.encrypted.unwrap()).unwrap();
        opened.unwrap().payloads().unwrap().to_vec()
    }

    fn events(&mut self, role: Role) -> Vec<SaEvent> {
        self.pair.events(role)
    }

    fn wait(&mut self) {
        self.pair.now = self.pair.client.poll_timeout().unwrap().max(self.pair.now);
        self.pair.client.handle_timeout(self.pair.now, &mut self.pair.rng);
    }
}

/// What the client's request says to somebody who holds the gateway's keys.
fn opened_by_gateway(road: &mut Road, message: &[u8]) -> Vec<Payload> {
    let parsed = Message::parse(message).unwrap();
    let encrypted = parsed.encrypted.unwrap();
    road.pair
        .forger
        .open(road.pair.now, message, &parsed.header, &encrypted)
        .unwrap()
        .unwrap()
        .payloads()
        .unwrap()
        .to_vec()
}

fn moved(events: &[SaEvent]) -> Option<Path> {
    events.iter().find_map(|event| match event {
        SaEvent::PathChanged(path) => Some(*path),
        _ => None,
    })
}

#[test]
fn an_update_carries_nat_detection_that_forces_encapsulation_and_a_cookie() {
    let mut road = Road::new();
    road.move_client(new_path());
    let request = road.pair.client.poll_transmit().unwrap();
    assert_eq!(request.path, new_path());
    let payloads = opened_by_gateway(&mut road, &request.message);
    let data = |ty| find_notify(&payloads, ty).map(|notify| notify.data.clone());
    assert_eq!(data(NotifyType::UpdateSaAddresses), Some(Vec::new()));
    assert_eq!(data(NotifyType::NatDetectionSourceIp), Some(forced_encapsulation_hash(SPIS).to_vec()));
    let remote = detection_hash(SPIS, new_path().remote).to_vec();
    assert_eq!(data(NotifyType::NatDetectionDestinationIp), Some(remote));
    assert!((8..=64).contains(&data(NotifyType::Cookie2).unwrap().len()));
    assert_eq!(data(NotifyType::NoNatsAllowed), None, "a client that always encapsulates cannot say that");
}

#[test]
fn traffic_moves_on_both_ends_only_after_each_has_heard_from_the_other() {
    let mut road = Road::new();
    road.move_client(new_path());
    assert!(road.events(Role::Initiator).is_empty(), "not before the gateway has answered");
    road.carry_out();
    assert_eq!(
        moved(&road.events(Role::Responder)),
        None,
        "not before the client has shown that it receives there"
    );
    road.settle(2);
    assert_eq!(moved(&road.events(Role::Initiator)), Some(new_path()));
    assert_eq!(moved(&road.events(Role::Responder)), Some(mirrored(new_path(), None)));
    assert!(!road.pair.client.is_closed() && !road.pair.gateway.is_closed());
}

#[test]
fn without_that_policy_the_gateway_moves_its_traffic_at_once() {
    let mut road = Road::with_policy(MovePolicy { return_routability: false, ..MovePolicy::default() });
    road.move_client(new_path());
    road.carry_out();
    assert_eq!(moved(&road.events(Role::Responder)), Some(mirrored(new_path(), None)));
}

#[test]
fn a_request_under_way_goes_on_by_the_new_path_with_the_same_message_id_and_the_update_follows() {
    let mut road = Road::new();
    road.broken = Some(1);
    road.pair.pass(DPD);
    let first = road.pair.client.poll_transmit().unwrap();
    assert_eq!(first.path.link, 1);
    road.move_client(new_path());
    let again = road.pair.client.poll_transmit().unwrap();
    assert_eq!((again.path, &again.message), (new_path(), &first.message), "the same octets, another way");
    assert!(road.pair.client.poll_transmit().is_none(), "the window is one");
    let seen = mirrored(again.path, None);
    road.pair.gateway.handle_datagram(road.pair.now, seen, &again.message, &mut road.pair.rng).unwrap();
    assert_eq!(road.pair.gateway.path(), path(Role::Responder), "a liveness check moves nothing");
    road.settle(2);
    assert_eq!(moved(&road.events(Role::Initiator)), Some(new_path()));
    assert_eq!(moved(&road.events(Role::Responder)), Some(mirrored(new_path(), None)));
}

#[test]
fn a_second_move_before_the_first_was_answered_needs_an_update_of_its_own() {
    let mut road = Road::new();
    road.move_client(new_path());
    road.carry_out();
    // Back home before the answer arrived: the answer to the first update is not taken for an answer to the second.
    road.move_client(path(Role::Initiator));
    road.carry_back(2);
    assert_eq!(moved(&road.events(Role::Initiator)), None);
    road.settle(1);
    assert_eq!(moved(&road.events(Role::Initiator)), Some(path(Role::Initiator)));
    assert_eq!(road.pair.gateway.path(), path(Role::Responder));
}

#[test]
fn an_update_that_went_by_two_paths_is_followed_by_another() {
    let mut road = Road::new();
    road.move_client(new_path());
    let update = road.pair.client.poll_transmit().unwrap();
    road.move_client(path(Role::Initiator));
    let again = road.pair.client.poll_transmit().unwrap();
    assert_eq!((again.path.link, &again.message), (1, &update.message));
    let seen = mirrored(again.path, None);
    road.pair.gateway.handle_datagram(road.pair.now, seen, &again.message, &mut road.pair.rng).unwrap();
    road.carry_back(1);
    assert_eq!(moved(&road.events(Role::Initiator)), None);
    let second = road.pair.client.poll_transmit().unwrap();
    assert!(
        find_notify(&opened_by_gateway(&mut road, &second.message), NotifyType::UpdateSaAddresses).is_some()
    );
}

#[test]
fn another_cookie_in_the_answer_or_none_closes_the_ike_sa() {
    let wrong = [notify(NotifyType::Cookie2, b"not what was sent")];
    let truncated = [notify(NotifyType::Cookie2, b"")];
    for answer in [wrong.as_slice(), truncated.as_slice(), &[]] {
        let mut road = Road::new();
        road.move_client(new_path());
        let forged = road.pair.forged(ExchangeType::Informational, 2, true, answer);
        let taken = road.pair.client.handle_datagram(road.pair.now, new_path(), &forged, &mut road.pair.rng);
        assert_eq!(taken, Err(PeerMisbehaved::CookieMismatch));
        assert!(road.pair.client.is_closed());
        let events = road.events(Role::Initiator);
        assert!(matches!(events.last(), Some(SaEvent::Closed(CloseReason::CookieMismatch))), "{events:?}");
    }
}

#[test]
fn a_client_that_returns_another_cookie_to_the_gateways_check_is_gone() {
    let mut road = Road::new();
    let update = [notify(NotifyType::UpdateSaAddresses, b"")];
    road.ask(mirrored(new_path(), None), &update);
    let check = road.pair.gateway.poll_transmit().unwrap();
    assert_eq!(check.path, mirrored(new_path(), None), "asked at the new address");
    assert!(find_notify(&road.read(&check.message), NotifyType::Cookie2).is_some());
    let header = Header {
        spi_i: SPIS.initiator,
        spi_r: SPIS.responder,
        next_payload: 0,
        exchange: ExchangeType::Informational,
        flags: Flags { initiator: true, response: true, version: false },
        message_id: 0,
    };
    let lie = [notify(NotifyType::Cookie2, b"something else")];
    let sealed = road.reader.seal(header, &lie, false, new_path(), &mut road.pair.rng).unwrap();
    let seen = mirrored(new_path(), None);
    let taken = road.pair.gateway.handle_datagram(road.pair.now, seen, &sealed[0], &mut road.pair.rng);
    assert_eq!(taken, Err(PeerMisbehaved::CookieMismatch));
    assert!(road.pair.gateway.is_closed());
}

#[test]
fn the_gateway_returns_the_cookie_as_it_came_and_tells_how_it_sees_the_client() {
    let mut road = Road::new();
    let seen = mirrored(new_path(), Some(([198, 51, 100, 200], 1234).into()));
    let request = [
        notify(NotifyType::UpdateSaAddresses, b""),
        notify(NotifyType::NatDetectionSourceIp, &[0; 20]),
        notify(NotifyType::NatDetectionDestinationIp, &[0; 20]),
        notify(NotifyType::Cookie2, b"a cookie"),
    ];
    let answer = road.ask(seen, &request);
    let data = |ty| find_notify(&answer, ty).map(|notify| notify.data.clone());
    assert_eq!(data(NotifyType::Cookie2), Some(b"a cookie".to_vec()));
    assert_eq!(data(NotifyType::NatDetectionDestinationIp), Some(detection_hash(SPIS, seen.remote).to_vec()));
    assert_eq!(data(NotifyType::NatDetectionSourceIp), Some(detection_hash(SPIS, seen.local).to_vec()));
    while road.pair.gateway.poll_transmit().is_some() {}
    assert!(road.ask(seen, &[]).is_empty(), "nothing is told that was not asked");
}

#[test]
fn only_an_update_changes_the_addresses_and_only_on_the_gateway() {
    let mut road = Road::new();
    let elsewhere = mirrored(new_path(), None);
    for request in [vec![], vec![notify(NotifyType::NatDetectionDestinationIp, &[0; 20])]] {
        road.ask(elsewhere, &request);
        assert_eq!(road.pair.gateway.path(), path(Role::Responder));
    }
    assert!(road.events(Role::Responder).is_empty());
    // The gateway has no say in it.
    let update = [notify(NotifyType::UpdateSaAddresses, b"")];
    let forged = road.pair.forged(ExchangeType::Informational, 0, false, &update);
    let from = Path { remote: ([203, 0, 113, 77], 4500).into(), ..path(Role::Initiator) };
    road.pair.client.handle_datagram(road.pair.now, from, &forged, &mut road.pair.rng).unwrap();
    assert_eq!(road.pair.client.path(), path(Role::Initiator));
    assert!(road.events(Role::Initiator).is_empty());
    let answer = road.pair.client.poll_transmit().unwrap();
    let payloads = opened_by_gateway(&mut road, &answer.message);
    assert!(find_notify(&payloads, NotifyType::UnacceptableAddresses).is_some());
}

#[test]
fn nothing_that_is_not_authentic_moves_anything() {
    let mut road = Road::new();
    road.move_client(new_path());
    let update = road.pair.client.poll_transmit().unwrap().message;
    for at in 0..update.len() {
        let mut flipped = update.clone();
        flipped[at] ^= 1;
        let seen = mirrored(new_path(), None);
        let taken = road.pair.gateway.handle_datagram(road.pair.now, seen, &flipped, &mut road.pair.rng);
        assert!(taken.is_err(), "octet {at}");
    }
    assert_eq!(road.pair.gateway.path(), path(Role::Responder));
    assert!(road.events(Role::Responder).is_empty());
}

#[test]
fn an_update_repeated_from_elsewhere_is_answered_there_and_moves_nothing() {
    let mut road = Road::new();
    road.move_client(new_path());
    let update = road.pair.client.poll_transmit().unwrap().message;
    let seen = mirrored(new_path(), None);
    road.pair.gateway.handle_datagram(road.pair.now, seen, &update, &mut road.pair.rng).unwrap();
    let attacker = mirrored(new_path(), Some(([192, 0, 2, 66], 666).into()));
    road.pair.gateway.handle_datagram(road.pair.now, attacker, &update, &mut road.pair.rng).unwrap();
    assert_eq!(road.pair.gateway.path(), seen);
    let after: Vec<Path> =
        std::iter::from_fn(|| road.pair.gateway.poll_transmit()).map(|transmit| transmit.path).collect();
    assert_eq!(after, [seen, seen, attacker], "the answer, the check, the answer again");
}

#[test]
fn a_refused_address_changes_nothing_and_the_client_is_told() {
    let refused: IpAddr = [203, 0, 113, 9].into();
    let mut road =
        Road::with_policy(MovePolicy { refused: vec![refused..=refused], ..MovePolicy::default() });
    road.move_client(new_path());
    road.settle(2);
    assert_eq!(road.pair.gateway.path(), path(Role::Responder));
    assert!(road.events(Role::Responder).is_empty());
    let events = road.events(Role::Initiator);
    let [SaEvent::MoveRefused(NotifyType::UnacceptableAddresses)] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert!(!road.pair.client.is_closed());
    // The old path still serves.
    road.move_client(path(Role::Initiator));
    road.settle(1);
    assert_eq!(moved(&road.events(Role::Initiator)), Some(path(Role::Initiator)));
}

#[test]
fn no_nats_allowed_is_checked_against_the_addresses_that_the_packet_came_with() {
    let mut road = Road::new();
    let seen = mirrored(new_path(), None);
    let right = [203, 0, 113, 9, 198, 51, 100, 1, 0x9c, 0x40, 0x11, 0x94];
    for change in [
        notify(NotifyType::UpdateSaAddresses, b""),
        notify(NotifyType::NoAdditionalAddresses, b""),
        notify(NotifyType::AdditionalIp4Address, &[203, 0, 113, 10]),
    ] {
        let mut wrong = right;
        wrong[3] ^= 1;
        let answer = road.ask(seen, &[change, notify(NotifyType::NoNatsAllowed, &wrong)]);
        assert!(find_notify(&answer, NotifyType::UnexpectedNatDetected).is_some());
        assert_eq!(road.pair.gateway.path(), path(Role::Responder));
        assert!(road.events(Role::Responder).is_empty());
    }
    let update = [notify(NotifyType::UpdateSaAddresses, b""), notify(NotifyType::NoNatsAllowed, &right)];
    assert!(find_notify(&road.ask(seen, &update), NotifyType::UnexpectedNatDetected).is_none());
    assert_eq!(road.pair.gateway.path(), seen);
}

#[test]
fn the_list_of_addresses_is_replaced_as_a_whole_with_the_one_in_use() {
    let mut road = Road::new();
    let seen = path(Role::Responder);
    let list = [
        notify(NotifyType::AdditionalIp4Address, &[192, 0, 2, 50]),
        notify(NotifyType::AdditionalIp6Address, &[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]),
        notify(NotifyType::AdditionalIp4Address, &[0, 0, 0, 0]),
        notify(NotifyType::AdditionalIp4Address, &[1, 2, 3]),
    ];
    road.ask(seen, &list);
    let expected: Vec<IpAddr> =
        vec![seen.remote.ip(), [192, 0, 2, 50].into(), [0xfd00, 0, 0, 0, 0, 0, 0, 7].into()];
    assert_eq!(road.pair.gateway.peer_addresses(), expected);
    road.ask(seen, &[notify(NotifyType::NoAdditionalAddresses, b"")]);
    assert_eq!(road.pair.gateway.peer_addresses(), [seen.remote.ip()]);
}

#[test]
fn a_gateway_tells_of_its_addresses_and_the_client_takes_them_over() {
    let mut road = Road::new();
    let other: IpAddr = [0x2001, 0xdb8, 0, 0, 0, 0, 0, 2].into();
    let now = road.pair.now;
    let here = path(Role::Responder).local.ip();
    road.pair.gateway.announce_addresses(now, vec![here, other], None, &mut road.pair.rng);
    road.settle(1);
    assert!(matches!(road.events(Role::Initiator).as_slice(), [SaEvent::PeerAddresses]));
    assert_eq!(road.pair.client.peer_addresses(), [here, other]);
    road.pair.gateway.announce_addresses(now, vec![here], None, &mut road.pair.rng);
    road.settle(1);
    assert_eq!(road.pair.client.peer_addresses(), [here]);
}

#[test]
fn a_nat_with_another_mapping_is_noticed_by_the_liveness_check_and_updated() {
    let mut road = Road::new();
    road.public = Some(([198, 51, 100, 200], 1111).into());
    road.pair.client.nat = NatSituation { ours: true, theirs: false };
    road.pair.pass(DPD);
    road.settle(1);
    let at = |port| mirrored(path(Role::Initiator), Some(([198, 51, 100, 200], port).into()));
    assert_eq!(road.pair.gateway.path(), at(1111), "the first check learns the mapping");
    road.events(Role::Initiator);
    road.pair.pass(DPD);
    road.settle(1);
    assert!(road.events(Role::Initiator).is_empty(), "nothing changed");
    road.events(Role::Responder);
    road.public = Some(([198, 51, 100, 200], 2222).into());
    road.pair.pass(DPD);
    road.settle(1);
    assert_eq!(road.pair.gateway.path(), at(2222));
    assert_eq!(moved(&road.events(Role::Responder)), Some(at(2222)));
}

#[test]
fn into_a_nat_and_out_of_it_is_judged_from_the_answers() {
    let mut road = Road::new();
    assert!(!road.pair.client.nat().ours);
    road.public = Some(([198, 51, 100, 200], 1111).into());
    road.move_client(new_path());
    road.settle(2);
    assert_eq!(road.pair.client.nat(), NatSituation { ours: true, theirs: false });
    road.public = None;
    road.move_client(path(Role::Initiator));
    road.settle(1);
    assert_eq!(road.pair.client.nat(), NatSituation { ours: false, theirs: false });
    assert!(road.pair.gateway.nat().theirs, "the client always asks for encapsulation");
}

#[test]
fn a_move_that_nobody_answers_ends_the_ike_sa_soon() {
    let mut road = Road::new();
    let began = road.pair.now;
    road.move_client(new_path());
    while !road.pair.client.is_closed() {
        road.wait();
    }
    assert!(road.pair.now - began <= Duration::from_secs(5));
    assert!(matches!(road.events(Role::Initiator).last(), Some(SaEvent::Closed(CloseReason::PeerDead))));
}

#[test]
fn a_gateway_is_patient_with_a_client_that_may_be_on_the_move() {
    let mut road = Road::new();
    let began = road.pair.now;
    road.pair.gateway.check_liveness(began, &mut road.pair.rng);
    while !road.pair.gateway.is_closed() {
        road.pair.now = road.pair.gateway.poll_timeout().unwrap();
        road.pair.gateway.handle_timeout(road.pair.now, &mut road.pair.rng);
    }
    assert!(road.pair.now - began >= Duration::from_secs(300));
}

#[test]
fn without_mobike_nothing_of_it_is_answered_and_the_gateway_follows_any_request() {
    let mut road = Road::new();
    road.pair.gateway = {
        let mut gateway = one_end(road.pair.now, Role::Responder, "aes256gcm16");
        gateway.features.mobike = false;
        gateway
    };
    let seen = mirrored(new_path(), None);
    let answer = road.ask(seen, &[notify(NotifyType::Cookie2, b"12345678")]);
    assert!(answer.is_empty());
    assert_eq!(moved(&road.events(Role::Responder)), Some(seen));
}

#[test]
fn esp_from_elsewhere_is_followed_after_a_check() {
    let mut road = Road::new();
    let seen = mirrored(new_path(), None);
    road.pair.gateway.follow_peer(seen);
    assert!(road.events(Role::Responder).is_empty());
    assert_eq!(road.pair.gateway.poll_timeout(), Some(Instant::ZERO));
    road.pair.gateway.handle_timeout(road.pair.now, &mut road.pair.rng);
    road.settle(2);
    assert_eq!(moved(&road.events(Role::Responder)), Some(seen));
}

#[test]
fn esp_from_another_port_of_the_same_address_is_followed_at_once() {
    let mut road = Road::new();
    let at = |port| mirrored(path(Role::Initiator), None).with_remote_port(port);
    road.pair.gateway.follow_peer(at(1111));
    assert_eq!(moved(&road.events(Role::Responder)), Some(at(1111)));
    assert!(road.pair.gateway.tasks.is_empty());
}

#[test]
fn another_port_of_an_address_that_is_not_checked_yet_waits_for_the_check() {
    let mut road = Road::new();
    let seen = mirrored(new_path(), None);
    road.pair.gateway.follow_peer(seen);
    road.pair.gateway.follow_peer(seen.with_remote_port(1111));
    assert!(road.events(Role::Responder).is_empty(), "before the check is sent");
    road.pair.gateway.handle_timeout(road.pair.now, &mut road.pair.rng);
    road.pair.gateway.follow_peer(seen.with_remote_port(2222));
    assert!(road.events(Role::Responder).is_empty(), "while it is under way");
    road.pair.gateway.poll_transmit().expect("the check of the port before");
}

#[test]
fn the_answer_to_a_check_moves_nothing_to_where_the_client_has_gone_meanwhile() {
    let mut road = Road::new();
    let seen = mirrored(new_path(), None);
    road.pair.gateway.follow_peer(seen);
    road.pair.gateway.handle_timeout(road.pair.now, &mut road.pair.rng);
    assert_eq!(road.carry_back(2), 1);
    let (further, public) = (seen.with_remote_port(2222), ([203, 0, 113, 9], 2222));
    road.pair.gateway.follow_peer(further);
    road.carry_out();
    assert!(road.events(Role::Responder).is_empty(), "it showed that the client was there before");
    road.public = Some(public.into());
    road.settle(2);
    assert_eq!(moved(&road.events(Role::Responder)), Some(further));
}

#[test]
fn a_move_under_way_while_the_ike_sa_is_rekeyed_goes_on_with_its_heir() {
    let mut road = Road::new();
    road.move_client(new_path());
    road.carry_out();
    let mut heir = one_end(road.pair.now, Role::Initiator, "aes256gcm16");
    heir.mobility = road.pair.client.mobility.inherited();
    heir.check_liveness(road.pair.now, &mut road.pair.rng);
    let first = heir.poll_transmit().unwrap();
    let payloads = opened_by_gateway(&mut road, &first.message);
    assert!(find_notify(&payloads, NotifyType::UpdateSaAddresses).is_some());
    // Once it is answered there is nothing to hand on.
    road.settle(2);
    let mut heir = one_end(road.pair.now, Role::Initiator, "aes256gcm16");
    heir.mobility = road.pair.client.mobility.inherited();
    heir.queue_mobike();
    assert!(heir.tasks.is_empty());
}

#[test]
fn esp_by_a_path_that_was_left_is_no_sign_of_life() {
    let mut road = Road::new();
    let (spi, here) = (road.pair.client.children()[0].spi_in, path(Role::Initiator));
    let elsewhere = Path { local: ([192, 0, 2, 77], 40_000).into(), link: 7, ..here };
    assert!(road.pair.client.comes_as_expected(spi), "nothing speaks against it");
    road.pair.client.note_traffic(road.pair.now, spi, 100, 100);
    road.pair.client.move_to(road.pair.now, elsewhere, &mut road.pair.rng);
    assert!(!road.pair.client.comes_as_expected(spi), "what comes in still comes by the old path");
    road.pair.client.esp_came_by(spi, elsewhere);
    assert!(road.pair.client.comes_as_expected(spi));
    let stranger = Path { remote: ([203, 0, 113, 5], 4500).into(), ..elsewhere };
    road.pair.client.esp_came_by(spi, stranger);
    assert!(!road.pair.client.comes_as_expected(spi));
}
