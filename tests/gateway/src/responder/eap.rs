//! The server's EAP state machine: Identity, then EAP-MSCHAPv2 (RFC 3748, draft-kamath-pppext-eap-mschapv2-02).
//!
//! ```text
//! IdentityAsked -> ChallengeSent --right--> SuccessSent -> EAP-Success, MSK
//!                        |
//!                        +--wrong--> FailureSent -> EAP-Failure
//! ```
//!
//! Each state consumes itself; whatever does not belong to it ends the conversation with EAP-Failure.

use std::fmt::Write as _;

use rand_core::CryptoRng;
use ropewalk_ike::eap::mschapv2::{Run, msk};
use ropewalk_ike::eap::packet::{Mschapv2Message, TYPE_IDENTITY, TYPE_MSCHAPV2};
use ropewalk_ike::eap::{EapCode, EapPacket};
use zeroize::Zeroizing;

use crate::settings::User;

/// RFC 2759 section 6: authentication failure.
const AUTHENTICATION_FAILURE: u32 = 691;
/// The server's name in its challenge.
const SERVER_NAME: &[u8] = b"ropewalk-gateway";

/// A conversation under way.
#[derive(Debug)]
pub struct EapServer {
    identifier: u8,
    state: State,
}

enum State {
    IdentityAsked,
    ChallengeSent { challenge: [u8; 16] },
    SuccessSent { user: String, msk: Zeroizing<[u8; 64]> },
    FailureSent { user: String },
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::IdentityAsked => "IdentityAsked",
            Self::ChallengeSent { .. } => "ChallengeSent",
            Self::SuccessSent { .. } => "SuccessSent",
            Self::FailureSent { .. } => "FailureSent",
        })
    }
}

/// What a packet of the client led to.
#[derive(Debug)]
pub enum EapServerStep {
    /// Send this and go on.
    Request(EapServer, Vec<u8>),
    /// Send this: the client knows the password.
    Success {
        /// EAP-Success.
        packet: Vec<u8>,
        /// The Master Session Key.
        msk: Zeroizing<[u8; 64]>,
        /// Who it is.
        user: String,
    },
    /// Send this: it is over.
    Failure {
        /// EAP-Failure.
        packet: Vec<u8>,
        /// Who tried.
        user: Option<String>,
    },
}

impl EapServer {
    /// Begins with a question for the identity.
    pub fn start(rng: &mut dyn CryptoRng) -> (Self, Vec<u8>) {
        let identifier = rng.next_u32().to_be_bytes()[0];
        let packet = EapPacket::request(identifier, TYPE_IDENTITY, &[]).emit();
        (Self { identifier, state: State::IdentityAsked }, packet)
    }

    /// Takes the client's next packet.
    #[must_use]
    pub fn handle(self, packet: &[u8], users: &[User], rng: &mut dyn CryptoRng) -> EapServerStep {
        let identifier = self.identifier;
        let response = EapPacket::parse(packet)
            .ok()
            .filter(|packet| packet.code == EapCode::Response && packet.identifier == identifier);
        let Some((kind, data)) = response.and_then(|packet| packet.method) else {
            return failure(identifier, None);
        };
        match self.state {
            State::IdentityAsked if kind == TYPE_IDENTITY => {
                let mut challenge = [0; 16];
                rng.fill_bytes(&mut challenge);
                let next = identifier.wrapping_add(1);
                let name = SERVER_NAME.to_vec();
                let packet = Mschapv2Message::Challenge { id: next, challenge, name }.emit(next);
                request(next, State::ChallengeSent { challenge }, packet)
            }
            State::ChallengeSent { challenge } if kind == TYPE_MSCHAPV2 => {
                match Mschapv2Message::parse(EapCode::Response, data) {
                    Ok(Mschapv2Message::Response { id, peer_challenge, nt_response, name })
                        if id == identifier =>
                    {
                        let run = Run {
                            authenticator_challenge: &challenge,
                            peer_challenge: &peer_challenge,
                            user: &name,
                        };
                        judge(identifier, &run, &nt_response, users)
                    }
                    Ok(_) | Err(_) => failure(identifier, None),
                }
            }
            State::SuccessSent { user, msk } if is(kind, data, &Mschapv2Message::SuccessResponse) => {
                EapServerStep::Success { packet: EapPacket::success(identifier).emit(), msk, user }
            }
            State::FailureSent { user } => failure(identifier, Some(user)),
            State::IdentityAsked | State::ChallengeSent { .. } => failure(identifier, None),
            State::SuccessSent { user, .. } => failure(identifier, Some(user)),
        }
    }
}

/// Compares the client's answer with what the password makes of the challenges. A name that is not known takes the same
/// way with a hash that no password has.
fn judge(identifier: u8, run: &Run<'_>, nt_response: &[u8; 24], users: &[User]) -> EapServerStep {
    let known = users.iter().find(|user| user.name.as_bytes() == run.user);
    let no_hash = Zeroizing::new([0; 16]);
    let nt_hash = known.map_or(&no_hash, |user| &user.nt_hash);
    let right = run.check_nt_response(nt_hash, nt_response) && known.is_some();
    let user = String::from_utf8_lossy(run.user).into_owned();
    let next = identifier.wrapping_add(1);
    if right {
        let mut message = String::from("S=");
        for octet in run.authenticator_response(nt_hash, nt_response) {
            let _ = write!(message, "{octet:02X}");
        }
        message.push_str(" M=Welcome");
        let packet =
            Mschapv2Message::SuccessRequest { id: identifier, message: message.into_bytes() }.emit(next);
        request(next, State::SuccessSent { user, msk: msk(nt_hash, nt_response) }, packet)
    } else {
        let mut message = format!("E={AUTHENTICATION_FAILURE} R=0 C=");
        for octet in run.authenticator_challenge {
            let _ = write!(message, "{octet:02X}");
        }
        message.push_str(" V=3 M=Wrong user name or password");
        let packet =
            Mschapv2Message::FailureRequest { id: identifier, message: message.into_bytes() }.emit(next);
        request(next, State::FailureSent { user }, packet)
    }
}

fn is(kind: u8, data: &[u8], expected: &Mschapv2Message) -> bool {
    kind == TYPE_MSCHAPV2
        && Mschapv2Message::parse(EapCode::Response, data).is_ok_and(|message| message == *expected)
}

fn request(identifier: u8, state: State, packet: Vec<u8>) -> EapServerStep {
    EapServerStep::Request(EapServer { identifier, state }, packet)
}

fn failure(identifier: u8, user: Option<String>) -> EapServerStep {
    EapServerStep::Failure { packet: EapPacket::failure(identifier).emit(), user }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng;
    use ropewalk_ike::eap::{EapClient, EapStep};

    use super::*;

    /// Lets a client and a server talk to each other until one of them is done.
    fn converse(user: &str, password: &str) -> (Option<EapStep>, EapServerStep) {
        let mut rng = ChaCha20Rng::seed_from_u64(11);
        let users = [User::new("alice", "correct horse")];
        let mut client = EapClient::new("someone@example.test", user, password);
        let (mut server, mut packet) = EapServer::start(&mut rng);
        loop {
            let EapStep::Reply(reply) = client.handle(&packet, &mut rng).unwrap() else {
                panic!("the client ended first")
            };
            match server.handle(&reply, &users, &mut rng) {
                EapServerStep::Request(next, request) => (server, packet) = (next, request),
                EapServerStep::Success { packet, msk, user } => {
                    let last = client.handle(&packet, &mut rng).unwrap();
                    return (Some(last), EapServerStep::Success { packet, msk, user });
                }
                EapServerStep::Failure { packet, user } => {
                    let last = client.handle(&packet, &mut rng).ok();
                    return (last, EapServerStep::Failure { packet, user });
                }
            }
        }
    }

    #[test]
    fn both_ends_hold_the_same_key_after_the_right_password() {
        let (client, server) = converse("alice", "correct horse");
        let (Some(EapStep::Success { msk: ours }), EapServerStep::Success { msk: theirs, user, .. }) =
            (client, server)
        else {
            panic!("no success")
        };
        assert_eq!(ours, theirs);
        assert_eq!(user, "alice");
    }

    #[test]
    fn a_wrong_password_and_an_unknown_user_look_alike() {
        for (name, password) in [("alice", "wrong"), ("mallory", "correct horse")] {
            let (client, server) = converse(name, password);
            let Some(EapStep::Failure(failure)) = client else { panic!("no failure") };
            assert_eq!(failure.code, Some(691));
            assert_eq!(failure.message.as_deref(), Some("Wrong user name or password"));
            assert!(matches!(server, EapServerStep::Failure { user: Some(user), .. } if user == name));
        }
    }

    #[test]
    fn garbage_and_packets_out_of_turn_end_in_failure() {
        let mut rng = ChaCha20Rng::seed_from_u64(12);
        let (server, first) = EapServer::start(&mut rng);
        let identifier = first[1];
        let success_too_early = Mschapv2Message::SuccessResponse.emit(identifier);
        assert!(matches!(server.handle(&success_too_early, &[], &mut rng), EapServerStep::Failure { .. }));
        let (server, _) = EapServer::start(&mut rng);
        assert!(matches!(server.handle(&[2, 1, 0], &[], &mut rng), EapServerStep::Failure { .. }));
        let (server, first) = EapServer::start(&mut rng);
        let stale = EapPacket::response(first[1].wrapping_add(9), TYPE_IDENTITY, b"a").emit();
        assert!(matches!(server.handle(&stale, &[], &mut rng), EapServerStep::Failure { .. }));
    }
}
