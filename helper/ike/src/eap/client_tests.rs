//! The client against a server that is played here, honest and not.

use super::*;
use crate::eap::mschapv2::{msk, nt_password_hash};
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

const CHALLENGE: [u8; 16] = [7; 16];

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(11)
}

fn client() -> EapClient {
    EapClient::new("alice@example.com", "alice", "wonder land")
}

fn reply(step: Result<EapStep, EapError>) -> Vec<u8> {
    match step {
        Ok(EapStep::Reply(packet)) => packet,
        other => panic!("a reply, not {other:?}"),
    }
}

fn challenge() -> Vec<u8> {
    Mschapv2Message::Challenge { id: 3, challenge: CHALLENGE, name: b"gateway".to_vec() }.emit(2)
}

/// What the server learns from the client's response, with the password it believes in.
struct Server {
    authenticator: [u8; 20],
    msk: Zeroizing<[u8; 64]>,
    response_right: bool,
}

fn judge(response: &[u8], password: &str) -> Server {
    let packet = EapPacket::parse(response).unwrap();
    let (kind, data) = packet.method.unwrap();
    assert_eq!((packet.code, kind), (EapCode::Response, TYPE_MSCHAPV2));
    let Mschapv2Message::Response { id, peer_challenge, nt_response, name } =
        Mschapv2Message::parse(EapCode::Response, data).unwrap()
    else {
        panic!("a response")
    };
    assert_eq!(id, 3);
    let run = Run { authenticator_challenge: &CHALLENGE, peer_challenge: &peer_challenge, user: &name };
    let nt_hash = nt_password_hash(password);
    Server {
        authenticator: run.authenticator_response(&nt_hash, &nt_response),
        msk: msk(&nt_hash, &nt_response),
        response_right: run.check_nt_response(&nt_hash, &nt_response),
    }
}

fn success(authenticator: &[u8; 20]) -> Vec<u8> {
    let message = format!("S={} M=Welcome", hex::encode_upper(authenticator)).into_bytes();
    Mschapv2Message::SuccessRequest { id: 3, message }.emit(3)
}

fn failure(message: &str) -> Vec<u8> {
    Mschapv2Message::FailureRequest { id: 3, message: message.as_bytes().to_vec() }.emit(3)
}

fn eap_success() -> Vec<u8> {
    EapPacket::success(4).emit()
}

/// A client that has answered the challenge, and the server's view of it.
fn responded() -> (EapClient, Server) {
    let mut client = client();
    let response = reply(client.handle(&challenge(), &mut rng()));
    (client, judge(&response, "wonder land"))
}

#[test]
fn an_honest_run_ends_with_the_same_msk_on_both_ends() {
    let mut client = client();
    let identity = reply(client.handle(&EapPacket::request(1, TYPE_IDENTITY, b"who?").emit(), &mut rng()));
    assert_eq!(identity, [&[2, 1, 0, 22, 1], b"alice@example.com".as_slice()].concat());
    let response = reply(client.handle(&challenge(), &mut rng()));
    let server = judge(&response, "wonder land");
    assert!(server.response_right);
    let done = reply(client.handle(&success(&server.authenticator), &mut rng()));
    assert_eq!(done, [2, 3, 0, 6, 26, 3]);
    match client.handle(&eap_success(), &mut rng()) {
        Ok(EapStep::Success { msk }) => assert_eq!(*msk, *server.msk),
        other => panic!("success, not {other:?}"),
    }
    assert!(matches!(client.handle(&eap_success(), &mut rng()), Err(EapError::AfterEnd)));
}

#[test]
fn the_response_has_the_layout_of_the_draft() {
    let response = reply(client().handle(&challenge(), &mut rng()));
    // code, identifier, length, type, op code, MS-CHAPv2-ID, MS-Length, value size
    assert_eq!(response[..10], [2, 2, 0, 64, 26, 2, 3, 0, 59, 49]);
    assert_eq!(response[26..34], [0; 8], "reserved");
    assert_eq!(response[58], 0, "flags");
    assert_eq!(&response[59..], b"alice");
}

/// CVE-2021-45079: EAP-Success before the method finished, or without an MSK.
#[test]
fn eap_success_before_the_method_finished_is_an_error() {
    let too_early = |mut client: EapClient| {
        let result = client.handle(&eap_success(), &mut rng());
        assert!(matches!(result, Err(EapError::SuccessTooEarly)), "{result:?}");
        assert!(matches!(client.handle(&challenge(), &mut rng()), Err(EapError::AfterEnd)));
    };
    too_early(client());
    let mut after_identity = client();
    reply(after_identity.handle(&EapPacket::request(1, TYPE_IDENTITY, &[]).emit(), &mut rng()));
    too_early(after_identity);
    let mut after_nak = client();
    reply(after_nak.handle(&EapPacket::request(1, 13, &[0x20]).emit(), &mut rng()));
    too_early(after_nak);
    too_early(responded().0);
    let (mut refused, _) = responded();
    reply(refused.handle(&failure("E=691 R=0 M=no"), &mut rng()));
    too_early(refused);
}

/// CVE-2025-62291: a failure request of EAP length 6 to 8, shorter than its own header.
#[test]
fn mschapv2_failure_of_length_6_to_8_does_not_underflow() {
    for op in [1, 3, 4] {
        for len in 6..=8_u8 {
            let (mut client, _) = responded();
            let mut packet = vec![1, 3, 0, len, 26, op];
            packet.resize(usize::from(len), 0);
            let result = client.handle(&packet, &mut rng());
            assert!(matches!(result, Err(EapError::Malformed)), "op {op}, length {len}: {result:?}");
        }
    }
    // The shortest that has its header says nothing, and is a refusal.
    let (mut client, _) = responded();
    assert_eq!(reply(client.handle(&[1, 3, 0, 9, 26, 4, 3, 0, 4], &mut rng())), [2, 3, 0, 6, 26, 4]);
    match client.handle(&EapPacket::failure(4).emit(), &mut rng()) {
        Ok(EapStep::Failure(failure)) => assert_eq!(failure, EapFailure::default()),
        other => panic!("failure, not {other:?}"),
    }
}

/// CVE-2015-8023: MSCHAPv2 Success in a state where no response was sent.
#[test]
fn mschapv2_success_in_the_wrong_state_is_an_error() {
    let mut idle = client();
    assert!(matches!(idle.handle(&success(&[0; 20]), &mut rng()), Err(EapError::UnexpectedMessage(3))));
    let (mut verified, server) = responded();
    reply(verified.handle(&success(&server.authenticator), &mut rng()));
    let again = verified.handle(&success(&server.authenticator), &mut rng());
    assert!(matches!(again, Err(EapError::UnexpectedMessage(3))));
    let (mut refused, server) = responded();
    reply(refused.handle(&failure("E=691"), &mut rng()));
    let after = refused.handle(&success(&server.authenticator), &mut rng());
    assert!(matches!(after, Err(EapError::UnexpectedMessage(3))));
}

#[test]
fn a_server_that_does_not_know_the_password_is_refused() {
    let mut client = client();
    let response = reply(client.handle(&challenge(), &mut rng()));
    let impostor = judge(&response, "guess");
    assert!(!impostor.response_right);
    let result = client.handle(&success(&impostor.authenticator), &mut rng());
    assert!(matches!(result, Err(EapError::ServerNotAuthenticated)));
    assert!(matches!(client.handle(&eap_success(), &mut rng()), Err(EapError::AfterEnd)));
}

#[test]
fn a_success_message_without_a_whole_authenticator_response_is_refused() {
    let (_, server) = responded();
    let right = format!("S={}", hex::encode_upper(server.authenticator));
    for message in
        ["", "M=hello", "S=", &right[..41], &right.replace("S=", "S:"), &format!(" {right}"), "S=zz"]
    {
        let (mut client, _) = responded();
        let packet = Mschapv2Message::SuccessRequest { id: 3, message: message.as_bytes().to_vec() }.emit(3);
        let result = client.handle(&packet, &mut rng());
        assert!(matches!(result, Err(EapError::ServerNotAuthenticated)), "{message:?}: {result:?}");
    }
    let (mut client, _) = responded();
    let lower = right.replace("S=", "").to_lowercase();
    let packet =
        Mschapv2Message::SuccessRequest { id: 3, message: format!("S={lower}").into_bytes() }.emit(3);
    reply(client.handle(&packet, &mut rng()));
}

#[test]
fn a_wrong_password_tells_the_servers_code_and_message() {
    for (message, code, text) in [
        (
            "E=691 R=0 C=00112233445566778899AABBCCDDEEFF V=3 M=Wrong password",
            Some(691),
            Some("Wrong password"),
        ),
        ("E=691 R=1", Some(691), None),
        ("E=647 R=0 M=disabled\r\n\x1b[2J", Some(647), Some("disabled[2J")),
        ("E=99999999999 R=0 M=", None, None),
        ("nonsense", None, None),
    ] {
        let (mut client, _) = responded();
        assert_eq!(reply(client.handle(&failure(message), &mut rng())), [2, 3, 0, 6, 26, 4]);
        match client.handle(&EapPacket::failure(4).emit(), &mut rng()) {
            Ok(EapStep::Failure(failure)) => {
                assert_eq!((failure.code, failure.message.as_deref()), (code, text));
            }
            other => panic!("failure, not {other:?}"),
        }
    }
    let sentence = |code| EapFailure { code, message: None, wanted: None }.to_string();
    assert_eq!(sentence(Some(691)), "the gateway refused the user name or password");
    assert_eq!(sentence(Some(648)), "the password has expired");
}

#[test]
fn eap_failure_at_any_time_is_a_refusal() {
    for mut client in [client(), responded().0] {
        assert!(matches!(
            client.handle(&EapPacket::failure(9).emit(), &mut rng()),
            Ok(EapStep::Failure(EapFailure { code: None, message: None, wanted: None }))
        ));
    }
}

/// EAP-TLS (CVE-2023-26463), TTLS (CVE-2026-25075) and all other methods are declined, not half spoken.
#[test]
fn other_methods_are_declined_by_a_nak_that_proposes_26() {
    for kind in [4, 5, 6, 13, 18, 21, 23, 25, 29, 43, 52, 254, 255, 0] {
        let nak = reply(client().handle(&EapPacket::request(5, kind, &[0; 9]).emit(), &mut rng()));
        assert_eq!(nak, [2, 5, 0, 6, 3, 26]);
    }
    let (mut client, _) = responded();
    let result = client.handle(&EapPacket::request(5, 13, &[]).emit(), &mut rng());
    assert!(matches!(result, Err(EapError::UnexpectedType(13))), "not once a method has begun");
}

#[test]
fn a_notification_is_acknowledged_and_changes_nothing() {
    let (mut client, server) = responded();
    let note = EapPacket::request(8, TYPE_NOTIFICATION, b"your password expires soon").emit();
    assert_eq!(reply(client.handle(&note, &mut rng())), [2, 8, 0, 5, 2]);
    reply(client.handle(&success(&server.authenticator), &mut rng()));
}

#[test]
fn requests_without_end_are_stopped() {
    let mut client = client();
    let note = EapPacket::request(8, TYPE_NOTIFICATION, b"!").emit();
    for _ in 0..MAX_REQUESTS {
        reply(client.handle(&note, &mut rng()));
    }
    assert!(matches!(client.handle(&note, &mut rng()), Err(EapError::TooManyRequests)));
}

#[test]
fn packets_out_of_turn_are_errors() {
    let result = |packet: &[u8]| client().handle(packet, &mut rng()).unwrap_err();
    assert_eq!(result(&EapPacket::response(1, TYPE_IDENTITY, b"x").emit()), EapError::UnexpectedCode(2));
    assert_eq!(result(&[5, 1, 0, 4]), EapError::UnexpectedCode(5));
    assert_eq!(result(&EapPacket::request(1, TYPE_NAK, &[26]).emit()), EapError::UnexpectedType(3));
    assert_eq!(result(&failure("E=691")), EapError::UnexpectedMessage(4));
    assert_eq!(
        result(&EapPacket::request(1, TYPE_MSCHAPV2, &[7, 0, 0, 4]).emit()),
        EapError::UnexpectedMessage(7)
    );
    let (mut client, _) = responded();
    assert!(matches!(client.handle(&challenge(), &mut rng()), Err(EapError::UnexpectedMessage(1))));
    let (mut client, _) = responded();
    let identity = EapPacket::request(1, TYPE_IDENTITY, &[]).emit();
    assert!(matches!(client.handle(&identity, &mut rng()), Err(EapError::UnexpectedType(1))));
}

/// CVE-2026-35330: zero-length attributes; here every length field at 0, 1 and its most.
#[test]
fn zero_length_attributes_and_other_wrong_lengths_are_malformed() {
    for len in [0, 1, 3, 5, 0xffff_u16] {
        let mut packet = challenge();
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        let result = client().handle(&packet, &mut rng());
        assert!(matches!(result, Err(EapError::Malformed)), "length {len}: {result:?}");
    }
    for value_size in [0, 1, 15, 17, 255] {
        let mut packet = challenge();
        packet[9] = value_size;
        let result = client().handle(&packet, &mut rng());
        assert!(matches!(result, Err(EapError::Malformed)), "value size {value_size}: {result:?}");
    }
    // MS-Length repeats the EAP length; servers fill it wrongly, so it is ignored.
    for ms_length in [0, 1, 0xffff_u16] {
        let mut packet = challenge();
        packet[7..9].copy_from_slice(&ms_length.to_be_bytes());
        reply(client().handle(&packet, &mut rng()));
    }
    let whole = challenge();
    for len in 0..26 {
        assert!(client().handle(&whole[..len], &mut rng()).is_err(), "{len} octets");
    }
}

#[test]
fn debug_shows_no_secret() {
    let text = format!("{:?}", client());
    assert_eq!(text, "EapClient { state: \"Idle\", .. }");
}

proptest! {
    #[test]
    fn no_sequence_of_packets_gives_an_msk_without_the_password(
        packets in proptest::collection::vec(
            prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..80),
                Just(challenge()),
                Just(eap_success()),
                Just(EapPacket::request(1, TYPE_IDENTITY, &[]).emit()),
                Just(success(&[0; 20])),
                Just(failure("E=691 R=1 M=x")),
                (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40))
                    .prop_map(|(kind, data)| EapPacket::request(1, kind, &data).emit()),
                proptest::collection::vec(any::<u8>(), 0..60)
                    .prop_map(|data| EapPacket::request(1, TYPE_MSCHAPV2, &data).emit()),
            ],
            0..12,
        )
    ) {
        let mut client = client();
        for packet in packets {
            let step = client.handle(&packet, &mut rng());
            let succeeded = matches!(step, Ok(EapStep::Success { .. }));
            prop_assert!(!succeeded, "success");
        }
    }

    #[test]
    fn messages_are_read_back(id in any::<u8>(), name in proptest::collection::vec(any::<u8>(), 0..64), fill in any::<u8>()) {
        for (code, message) in [
            (EapCode::Request, Mschapv2Message::Challenge { id, challenge: [fill; 16], name: name.clone() }),
            (
                EapCode::Response,
                Mschapv2Message::Response { id, peer_challenge: [fill; 16], nt_response: [fill; 24], name: name.clone() },
            ),
            (EapCode::Request, Mschapv2Message::SuccessRequest { id, message: name.clone() }),
            (EapCode::Request, Mschapv2Message::FailureRequest { id, message: name.clone() }),
            (EapCode::Response, Mschapv2Message::SuccessResponse),
            (EapCode::Response, Mschapv2Message::FailureResponse),
        ] {
            let octets = message.emit(9);
            let packet = EapPacket::parse(&octets).unwrap();
            prop_assert_eq!((packet.code, packet.identifier), (code, 9));
            let (kind, data) = packet.method.unwrap();
            prop_assert_eq!(kind, TYPE_MSCHAPV2);
            prop_assert_eq!(Mschapv2Message::parse(code, data).unwrap(), message);
        }
    }
}
