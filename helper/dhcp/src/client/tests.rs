use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use dhcproto::v4::{DhcpOption, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable as _, Decoder, Encodable as _, Encoder};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;
use ropewalk_ike::time::Instant;

use super::*;
use crate::message::DhcpError;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 77);
const HOUR: u32 = 3600;

/// A client on its own clock, with a server's answers made by the codec.
struct Bench {
    client: Client,
    now: Instant,
    rng: ChaCha20Rng,
}

impl Bench {
    fn new(remembered: Option<Lease>) -> Self {
        let hardware = HardwareAddress::from_octets(&[2, 0, 0, 0, 0, 1]).unwrap();
        let config =
            ClientConfig { hardware, identifier: ClientIdentifier::Hardware, host_name: None, remembered };
        let now = Instant::from_start(Duration::from_secs(1_000));
        Self { client: Client::new(config), now, rng: ChaCha20Rng::seed_from_u64(7) }
    }

    fn started() -> Self {
        let mut bench = Self::new(None);
        bench.client.start(bench.now, &mut bench.rng);
        bench
    }

    fn bound() -> Self {
        let mut bench = Self::started();
        let discover = bench.sent();
        bench.answer(&discover, MessageType::Offer, ADDRESS, SERVER).unwrap();
        let request = bench.sent();
        bench.answer(&request, MessageType::Ack, ADDRESS, SERVER).unwrap();
        assert_eq!(bench.client.poll_event(), Some(Event::Probe(ADDRESS)));
        assert_eq!(bench.client.lease(), None, "not held before it was probed");
        bench.client.probed(bench.now, false, &mut bench.rng);
        assert!(matches!(bench.client.poll_event(), Some(Event::Bound(lease)) if lease.address == ADDRESS));
        bench
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.client.handle_timeout(self.now, &mut self.rng);
    }

    /// Goes to the next timeout.
    fn next(&mut self) {
        self.now = self.client.poll_timeout().unwrap();
        self.client.handle_timeout(self.now, &mut self.rng);
    }

    /// The one message that was sent.
    fn sent(&mut self) -> Sent {
        let transmit = self.client.poll_transmit().expect("a message");
        assert_eq!(self.client.poll_transmit(), None, "only one message");
        let message = Message::decode(&mut Decoder::new(&transmit.message)).unwrap();
        Sent { transmit, message }
    }

    fn answer(
        &mut self,
        request: &Sent,
        kind: MessageType,
        address: Ipv4Addr,
        server: Ipv4Addr,
    ) -> Result<(), DhcpError> {
        self.answer_with(request, kind, address, server, |_| {})
    }

    fn answer_with(
        &mut self,
        request: &Sent,
        kind: MessageType,
        address: Ipv4Addr,
        server: Ipv4Addr,
        more: impl Fn(&mut Message),
    ) -> Result<(), DhcpError> {
        let mut answer = request.message.clone();
        answer.set_opcode(Opcode::BootReply).set_yiaddr(address);
        answer.set_opts(dhcproto::v4::DhcpOptions::new());
        let options = answer.opts_mut();
        options.insert(DhcpOption::MessageType(kind));
        options.insert(DhcpOption::ServerIdentifier(server));
        if kind != MessageType::Nak {
            options.insert(DhcpOption::AddressLeaseTime(HOUR));
            options.insert(DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)));
        }
        more(&mut answer);
        let mut octets = Vec::new();
        answer.encode(&mut Encoder::new(&mut octets)).unwrap();
        self.client.handle_message(self.now, &octets, &mut self.rng)
    }
}

struct Sent {
    transmit: Transmit,
    message: Message,
}

impl Sent {
    fn kind(&self) -> MessageType {
        self.message.opts().msg_type().unwrap()
    }

    fn requested(&self) -> Option<Ipv4Addr> {
        match self.message.opts().get(OptionCode::RequestedIpAddress) {
            Some(DhcpOption::RequestedIpAddress(address)) => Some(*address),
            _ => None,
        }
    }

    fn server(&self) -> Option<Ipv4Addr> {
        match self.message.opts().get(OptionCode::ServerIdentifier) {
            Some(DhcpOption::ServerIdentifier(address)) => Some(*address),
            _ => None,
        }
    }

    /// Carrier, inner source, inner destination.
    fn way(&self) -> (Carrier, SocketAddrV4, SocketAddrV4) {
        (self.transmit.carrier, self.transmit.source, self.transmit.destination)
    }
}

fn broadcast_from(source: Ipv4Addr) -> (Carrier, SocketAddrV4, SocketAddrV4) {
    (Carrier::DhcpSa, SocketAddrV4::new(source, 68), SocketAddrV4::new(Ipv4Addr::BROADCAST, 67))
}

fn unicast(server: Ipv4Addr) -> (Carrier, SocketAddrV4, SocketAddrV4) {
    (Carrier::VpnSa, SocketAddrV4::new(ADDRESS, 68), SocketAddrV4::new(server, 67))
}

fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

#[test]
fn discover_offer_request_ack_go_by_the_dhcp_sa() {
    let mut bench = Bench::started();
    let discover = bench.sent();
    assert_eq!(discover.kind(), MessageType::Discover);
    assert_eq!(discover.way(), broadcast_from(Ipv4Addr::UNSPECIFIED));
    bench.answer(&discover, MessageType::Offer, ADDRESS, SERVER).unwrap();
    let request = bench.sent();
    assert_eq!(request.kind(), MessageType::Request);
    assert_eq!(request.way(), broadcast_from(Ipv4Addr::UNSPECIFIED));
    assert_eq!((request.requested(), request.server()), (Some(ADDRESS), Some(SERVER)));
    assert_eq!(request.message.ciaddr(), Ipv4Addr::UNSPECIFIED);
    assert_eq!(request.message.xid(), discover.message.xid(), "one exchange, one xid");
    assert_eq!(request.message.chaddr(), discover.message.chaddr());
}

#[test]
fn a_lease_is_renewed_by_the_vpn_sa_from_its_half_on() {
    let mut bench = Bench::bound();
    let started = bench.now;
    bench.next();
    assert_eq!(bench.now - started, minutes(30));
    let renewal = bench.sent();
    assert_eq!(renewal.kind(), MessageType::Request);
    assert_eq!(renewal.way(), unicast(SERVER));
    assert_eq!(renewal.message.ciaddr(), ADDRESS);
    assert_eq!((renewal.requested(), renewal.server()), (None, None), "RFC 2131 table 4");
    bench.answer(&renewal, MessageType::Ack, ADDRESS, SERVER).unwrap();
    assert!(matches!(bench.client.poll_event(), Some(Event::Renewed(_))));
    assert_eq!(bench.client.poll_timeout(), Some(bench.now + minutes(30)));
}

#[test]
fn a_silent_server_leads_to_rebinding_with_another() {
    let mut bench = Bench::bound();
    let started = bench.now;
    let mut renewals = 0;
    let rebinding = loop {
        bench.next();
        let sent = bench.sent();
        if sent.transmit.carrier == Carrier::DhcpSa {
            break sent;
        }
        renewals += 1;
    };
    assert!((2..=6).contains(&renewals), "{renewals} renewals, at half of what is left");
    assert_eq!(bench.now - started, Duration::from_secs_f64(3600.0 * 0.875));
    assert_eq!(rebinding.way(), broadcast_from(ADDRESS));
    assert_eq!(rebinding.message.ciaddr(), ADDRESS);
    bench.answer(&rebinding, MessageType::Ack, ADDRESS, OTHER).unwrap();
    assert!(matches!(bench.client.poll_event(), Some(Event::Renewed(lease)) if lease.server == OTHER));
}

#[test]
fn a_lease_that_nobody_extends_ends_in_time_and_a_new_round_begins() {
    let mut bench = Bench::bound();
    let end = bench.now + minutes(60);
    let lost = loop {
        bench.next();
        assert!(bench.now <= end, "held beyond its end");
        let last = std::iter::from_fn(|| bench.client.poll_transmit()).last();
        if let Some(event) = bench.client.poll_event() {
            break (event, last);
        }
    };
    assert_eq!(bench.now, end);
    assert_eq!(lost.0, Event::Lost { address: ADDRESS, why: Why::Expired });
    assert_eq!(bench.client.lease(), None);
    let message = lost.1.expect("the next round's DHCPDISCOVER").message;
    let message = Message::decode(&mut Decoder::new(&message)).unwrap();
    assert_eq!(message.opts().msg_type(), Some(MessageType::Discover));
}

#[test]
fn a_nak_while_renewing_takes_the_address_at_once() {
    let mut bench = Bench::bound();
    bench.next();
    let renewal = bench.sent();
    bench.answer(&renewal, MessageType::Nak, Ipv4Addr::UNSPECIFIED, SERVER).unwrap();
    assert_eq!(bench.client.poll_event(), Some(Event::Lost { address: ADDRESS, why: Why::Refused }));
    let discover = bench.sent();
    assert_eq!(discover.way(), broadcast_from(Ipv4Addr::UNSPECIFIED));
    assert_ne!(discover.message.xid(), renewal.message.xid());
}

#[test]
fn a_server_that_refuses_everything_is_not_asked_in_a_loop() {
    let mut bench = Bench::started();
    let mut waits = Vec::new();
    for _ in 0..5 {
        let discover = bench.sent();
        bench.answer(&discover, MessageType::Offer, ADDRESS, SERVER).unwrap();
        let request = bench.sent();
        let before = bench.now;
        bench.answer(&request, MessageType::Nak, Ipv4Addr::UNSPECIFIED, SERVER).unwrap();
        if bench.client.transmits.is_empty() {
            bench.next();
        }
        waits.push((bench.now - before).as_secs());
    }
    assert_eq!(waits, [0, 2, 4, 8, 16]);
}

#[test]
fn a_remembered_lease_is_asked_for_first() {
    let lease = Lease::new(ADDRESS, SERVER, (minutes(60), None, None), Settings::default());
    let mut bench = Bench::new(Some(lease));
    bench.client.start(bench.now, &mut bench.rng);
    let request = bench.sent();
    assert_eq!(request.kind(), MessageType::Request);
    assert_eq!((request.requested(), request.server()), (Some(ADDRESS), None), "INIT-REBOOT");
    assert_eq!(request.message.ciaddr(), Ipv4Addr::UNSPECIFIED);
    assert_eq!(request.way(), broadcast_from(Ipv4Addr::UNSPECIFIED));
    bench.answer(&request, MessageType::Ack, ADDRESS, OTHER).unwrap();
    assert_eq!(bench.client.poll_event(), Some(Event::Probe(ADDRESS)));
}

#[test]
fn a_remembered_lease_that_is_refused_or_ignored_leads_to_a_discover() {
    let lease = Lease::new(ADDRESS, SERVER, (minutes(60), None, None), Settings::default());
    let mut refused = Bench::new(Some(lease.clone()));
    refused.client.start(refused.now, &mut refused.rng);
    let request = refused.sent();
    refused.answer(&request, MessageType::Nak, Ipv4Addr::UNSPECIFIED, SERVER).unwrap();
    assert_eq!(refused.sent().kind(), MessageType::Discover);
    assert_eq!(refused.client.poll_event(), None, "nothing was held, so nothing is lost");

    let mut ignored = Bench::new(Some(lease));
    ignored.client.start(ignored.now, &mut ignored.rng);
    for _ in 0..TRIES {
        assert_eq!(ignored.sent().kind(), MessageType::Request);
        ignored.next();
    }
    assert_eq!(ignored.sent().kind(), MessageType::Discover);
}

#[test]
fn an_address_in_use_is_declined_and_another_is_looked_for_later() {
    let mut bench = Bench::started();
    let discover = bench.sent();
    bench.answer(&discover, MessageType::Offer, ADDRESS, SERVER).unwrap();
    let request = bench.sent();
    bench.answer(&request, MessageType::Ack, ADDRESS, SERVER).unwrap();
    bench.client.probed(bench.now, true, &mut bench.rng);
    let decline = bench.sent();
    assert_eq!(decline.kind(), MessageType::Decline);
    assert_eq!(decline.way(), broadcast_from(Ipv4Addr::UNSPECIFIED));
    assert_eq!((decline.requested(), decline.server()), (Some(ADDRESS), Some(SERVER)));
    assert_eq!(bench.client.lease(), None);
    bench.pass(Duration::from_secs(9));
    assert_eq!(bench.client.poll_transmit(), None);
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.sent().kind(), MessageType::Discover);
}

#[test]
fn silence_is_told_once_and_asking_goes_on() {
    let mut bench = Bench::started();
    let mut silences = 0;
    for _ in 0..12 {
        assert_eq!(bench.sent().kind(), MessageType::Discover);
        bench.next();
        silences += std::iter::from_fn(|| bench.client.poll_event()).filter(|e| *e == Event::Silence).count();
    }
    assert_eq!(silences, 1);
    let wait = bench.client.poll_timeout().unwrap() - bench.now;
    assert!(wait <= Duration::from_secs(18), "{wait:?}");
}

#[test]
fn a_release_goes_to_the_server_by_the_vpn_sa_and_ends_it() {
    let mut bench = Bench::bound();
    bench.client.release(bench.now, &mut bench.rng);
    let release = bench.sent();
    assert_eq!(release.kind(), MessageType::Release);
    assert_eq!(release.way(), unicast(SERVER));
    assert_eq!((release.message.ciaddr(), release.server()), (ADDRESS, Some(SERVER)));
    assert_eq!(release.requested(), None);
    assert_eq!((bench.client.lease(), bench.client.poll_timeout()), (None, None));
}

#[test]
fn a_lost_gateway_does_not_give_the_lease_back() {
    let mut bench = Bench::bound();
    let kept = bench.client.suspend().expect("the lease");
    assert_eq!(bench.client.poll_transmit(), None);
    assert_eq!(kept.address, ADDRESS);
    let mut next = Bench::new(Some(kept));
    next.client.start(next.now, &mut next.rng);
    assert_eq!(next.sent().requested(), Some(ADDRESS));
}

#[test]
fn inform_asks_for_settings_only() {
    let mut bench = Bench::new(None);
    bench.client.inform(bench.now, ADDRESS, &mut bench.rng);
    let inform = bench.sent();
    assert_eq!(inform.kind(), MessageType::Inform);
    assert_eq!(inform.message.ciaddr(), ADDRESS);
    bench
        .answer_with(&inform, MessageType::Ack, Ipv4Addr::UNSPECIFIED, SERVER, |answer| {
            answer.opts_mut().remove(OptionCode::AddressLeaseTime);
            answer.opts_mut().insert(DhcpOption::DomainNameServer(vec![OTHER]));
        })
        .unwrap();
    let Some(Event::Informed(settings)) = bench.client.poll_event() else { panic!("no settings") };
    assert_eq!(settings.dns_servers, [OTHER]);
    assert_eq!(bench.client.poll_timeout(), None);
}

#[test]
fn an_endless_lease_is_not_renewed() {
    let mut bench = Bench::started();
    let discover = bench.sent();
    bench.answer(&discover, MessageType::Offer, ADDRESS, SERVER).unwrap();
    let request = bench.sent();
    let endless = |answer: &mut Message| {
        answer.opts_mut().insert(DhcpOption::AddressLeaseTime(u32::MAX));
    };
    bench.answer_with(&request, MessageType::Ack, ADDRESS, SERVER, endless).unwrap();
    bench.client.probed(bench.now, false, &mut bench.rng);
    assert_eq!(bench.client.poll_timeout(), None);
}

#[test]
fn answers_for_others_late_ones_and_unusable_ones_change_nothing() {
    let mut bench = Bench::started();
    let discover = bench.sent();
    let wrong_xid = |answer: &mut Message| {
        let xid = answer.xid();
        answer.set_xid(xid.wrapping_add(1));
    };
    let offer = MessageType::Offer;
    let got = bench.answer_with(&discover, offer, ADDRESS, SERVER, wrong_xid);
    assert_eq!(got, Err(DhcpError::NotForUs));
    let wrong_chaddr = |answer: &mut Message| {
        answer.set_chaddr(&[2, 0, 0, 0, 0, 2]);
    };
    let got = bench.answer_with(&discover, offer, ADDRESS, SERVER, wrong_chaddr);
    assert_eq!(got, Err(DhcpError::NotForUs));
    let wrong_identifier = |answer: &mut Message| {
        answer.opts_mut().insert(DhcpOption::ClientIdentifier(vec![31, 9]));
    };
    let got = bench.answer_with(&discover, offer, ADDRESS, SERVER, wrong_identifier);
    assert_eq!(got, Err(DhcpError::NotForUs));
    let got = bench.answer(&discover, MessageType::Ack, ADDRESS, SERVER);
    assert_eq!(got, Err(DhcpError::Unexpected("DHCPACK")));
    for address in [Ipv4Addr::UNSPECIFIED, Ipv4Addr::LOCALHOST, Ipv4Addr::BROADCAST] {
        let got = bench.answer(&discover, offer, address, SERVER);
        assert_eq!(got, Err(DhcpError::UnusableAddress(address)));
    }
    let no_time = |answer: &mut Message| {
        answer.opts_mut().remove(OptionCode::AddressLeaseTime);
    };
    let got = bench.answer_with(&discover, offer, ADDRESS, SERVER, no_time);
    assert_eq!(got, Err(DhcpError::Missing("a lease time")));

    bench.answer(&discover, offer, ADDRESS, SERVER).unwrap();
    let request = bench.sent();
    let got = bench.answer(&request, MessageType::Ack, ADDRESS, OTHER);
    assert_eq!(got, Err(DhcpError::Unexpected("DHCPACK")), "another server's than the one chosen");
    let got = bench.client.handle_message(bench.now, &request.transmit.message, &mut bench.rng);
    assert_eq!(got, Err(DhcpError::NotAnAnswer));
    assert_eq!(bench.client.poll_event(), None);
    bench.answer(&request, MessageType::Ack, ADDRESS, SERVER).unwrap();
}

#[test]
fn chaddr_and_identifier_are_the_same_in_every_message() {
    let mut bench = Bench::bound();
    bench.next();
    let renewal = bench.sent();
    bench.client.release(bench.now, &mut bench.rng);
    let release = bench.sent();
    for sent in [&renewal, &release] {
        assert_eq!(u8::from(sent.message.htype()), 31);
        assert_eq!(sent.message.chaddr(), [2, 0, 0, 0, 0, 1]);
        let identifier = sent.message.opts().get(OptionCode::ClientIdentifier);
        assert_eq!(identifier, Some(&DhcpOption::ClientIdentifier(vec![31, 2, 0, 0, 0, 0, 1])));
    }
}
