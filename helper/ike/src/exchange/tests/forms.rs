//! COOKIE, INVALID_KE_PAYLOAD and whole answers that somebody else writes into IKE_SA_INIT: the attempt ends as it would
//! have without them. The gateway here checks AUTH over the request that it answered, which is what forgeries confuse.

use super::initial::{Attempt, start_path};
use super::*;
use crate::auth::auth_octets;
use crate::auth::psk::{shared_key_auth, verify_shared_key_auth};
use crate::crypto::DhGroup;
use crate::exchange::initiator::HandshakeError;
use crate::wire::{
    AuthMethod, Authentication, Message, Notify, NotifyType, SecurityAssociation, emit_message,
};

const SECRET: &[u8] = b"secret";

/// A gateway that answers each form of the request it has not seen with an IKE_SA of its own, as one that asks for no
/// cookies does.
struct Gateway {
    secret: &'static [u8],
    next_spi: u64,
    half_open: Vec<HalfOpen>,
}

struct HalfOpen {
    spi: u64,
    request: Vec<u8>,
    response: Vec<u8>,
    nonce_i: Vec<u8>,
    keys: IkeKeys,
    protection: Protection,
}

impl Gateway {
    fn new() -> Self {
        Self { secret: SECRET, next_spi: 0x100, half_open: Vec::new() }
    }

    fn cookie(text: &[u8]) -> [Payload; 1] {
        [Payload::Notify(Notify::new(NotifyType::Cookie, text.to_vec()))]
    }

    /// The answer to a request, which is repeated for a repeated request.
    fn answer(&mut self, attempt: &mut Attempt, request: &[u8]) -> Vec<u8> {
        if let Some(known) = self.half_open.iter().find(|half| half.request == request) {
            return known.response.clone();
        }
        let parsed = Message::parse(request).unwrap();
        let offered = parsed.payloads.iter().find_map(|payload| match payload {
            Payload::Ke(ke) => Some(ke.clone()),
            _ => None,
        });
        let nonce_i = parsed.payloads.iter().find_map(|payload| match payload {
            Payload::Nonce(nonce) => Some(nonce.data.clone()),
            _ => None,
        });
        let (offered, nonce_i) = (offered.unwrap(), nonce_i.unwrap());
        let spi = self.next_spi;
        self.next_spi += 1;
        let group = DhGroup::from_iana(offered.group).unwrap();
        let (payloads, key) = attempt.honest_with_key(request, group, spi);
        let header = Header {
            spi_r: spi,
            flags: Flags { initiator: false, response: true, version: false },
            ..parsed.header
        };
        let inputs = KeyInputs {
            nonce_i: &nonce_i,
            nonce_r: &[5; 32],
            spi_i: parsed.header.spi_i.to_be_bytes(),
            spi_r: spi.to_be_bytes(),
        };
        let shared = key.agree(&offered.data).unwrap();
        let keys = IkeKeys::initial(Prf::HmacSha2_256, IkeCipher::Aes256Gcm16, &inputs, &shared).unwrap();
        let protection = Protection::new(IkeCipher::Aes256Gcm16, &keys, Role::Responder).unwrap();
        let response = emit_message(&header, &payloads);
        let (request, answer) = (request.to_vec(), response.clone());
        self.half_open.push(HalfOpen { spi, request, response, nonce_i, keys, protection });
        answer
    }

    /// The answer to IKE_AUTH; `None` for an IKE_SA that is not half open.
    fn admit(&mut self, attempt: &mut Attempt, datagram: &[u8]) -> Option<Vec<u8>> {
        let parsed = Message::parse(datagram).unwrap();
        let at = self.half_open.iter().position(|half| half.spi == parsed.header.spi_r)?;
        let mut half = self.half_open.remove(at);
        let opened = half
            .protection
            .open(attempt.now, datagram, &parsed.header, &parsed.encrypted.unwrap())
            .ok()??;
        let payloads = opened.payloads().unwrap().to_vec();
        let body = Identification::fqdn("client.example").body();
        let octets = auth_octets(Prf::HmacSha2_256, &half.request, &[5; 32], &half.keys.sk_pi, &body);
        let good = payloads.iter().any(|payload| match payload {
            Payload::Auth(auth) => {
                verify_shared_key_auth(Prf::HmacSha2_256, self.secret, &octets, &auth.data)
            }
            _ => false,
        });
        let answer = if good {
            let id = Identification::fqdn("gateway.example");
            let octets =
                auth_octets(Prf::HmacSha2_256, &half.response, &half.nonce_i, &half.keys.sk_pr, &id.body());
            let data = shared_key_auth(Prf::HmacSha2_256, self.secret, &octets).to_vec();
            let policy = policy(Role::Initiator, "aes256gcm16-noesn");
            let proposals = crate::proposal::esp_offer(&policy.proposals, 0x0102_0304, false);
            let any = TrafficSelectors::new(vec![TrafficSelector::any_v4()]);
            vec![
                Payload::IdR(id),
                Payload::Auth(Authentication { method: AuthMethod::SharedKey, data }),
                Payload::Sa(SecurityAssociation { proposals }),
                Payload::TsI(any.clone()),
                Payload::TsR(any),
            ]
        } else {
            vec![Payload::Notify(Notify::status(NotifyType::AuthenticationFailed))]
        };
        let flags = Flags { initiator: false, response: true, version: false };
        let header = Header { flags, ..parsed.header };
        let sealed = half.protection.seal(header, &answer, false, start_path(), &mut attempt.rng).unwrap();
        sealed.into_iter().next()
    }

    /// Carries what the client sends until it is silent; `lost` says which answers to IKE_SA_INIT do not arrive.
    fn settle(&mut self, attempt: &mut Attempt, mut lost: impl FnMut(&[u8]) -> bool) {
        for _ in 0..100 {
            let Some(sent) = attempt.initiator.poll_transmit() else { return };
            let parsed = Message::parse(&sent.message).unwrap();
            let answer = match parsed.header.exchange {
                ExchangeType::IkeSaInit => {
                    let answer = self.answer(attempt, &sent.message);
                    (!lost(&sent.message)).then_some(answer)
                }
                ExchangeType::IkeAuth => self.admit(attempt, &sent.message),
                _ => None,
            };
            if let Some(answer) = answer {
                let _ = attempt.deliver(&answer);
            }
        }
        panic!("the attempt does not come to rest");
    }

    /// Lets time pass until the attempt is over.
    fn run(&mut self, attempt: &mut Attempt) -> Result<(), HandshakeError> {
        loop {
            self.settle(attempt, |_| false);
            if let Some(outcome) = attempt.initiator.poll_outcome() {
                return outcome.map(|_| ());
            }
            attempt.pass();
        }
    }
}

fn sent(attempt: &mut Attempt) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| attempt.initiator.poll_transmit()).map(|transmit| transmit.message).collect()
}

#[test]
fn a_forged_cookie_does_not_make_the_proof_one_over_the_wrong_request() {
    // The forgery comes before the true answer to the first form, which is the one that arrives first.
    let (mut attempt, mut gateway) = (Attempt::new(), Gateway::new());
    let first = sent(&mut attempt).remove(0);
    let answer = gateway.answer(&mut attempt, &first);
    attempt.answer(&Gateway::cookie(b"forged")).unwrap();
    attempt.deliver(&answer).unwrap();
    let began = attempt.now;
    assert_eq!(gateway.run(&mut attempt), Ok(()));
    assert_eq!(attempt.now, began, "without a wait");
}

#[test]
fn the_true_answer_is_found_when_the_one_to_the_other_form_is_lost() {
    let (mut attempt, mut gateway) = (Attempt::new(), Gateway::new());
    let first = sent(&mut attempt).remove(0);
    let answer = gateway.answer(&mut attempt, &first);
    attempt.answer(&Gateway::cookie(b"forged")).unwrap();
    attempt.deliver(&answer).unwrap();
    gateway.settle(&mut attempt, |request| request != first);
    assert!(
        attempt.initiator.poll_outcome().is_none(),
        "a refusal that may come from the forgery is not final"
    );
    let began = attempt.now;
    assert_eq!(gateway.run(&mut attempt), Ok(()));
    assert!(attempt.now - began < Duration::from_secs(3));
}

#[test]
fn forged_cookies_before_and_after_the_true_one_are_survived() {
    let (mut attempt, mut gateway) = (Attempt::new(), Gateway::new());
    sent(&mut attempt);
    attempt.answer(&Gateway::cookie(b"forged before")).unwrap();
    sent(&mut attempt);
    attempt.answer(&Gateway::cookie(b"true")).unwrap();
    let true_form = sent(&mut attempt).remove(0);
    attempt.answer(&Gateway::cookie(b"forged after")).unwrap();
    sent(&mut attempt);
    // This gateway answers only the form with its own cookie.
    let began = attempt.now;
    loop {
        let mut answered = Vec::new();
        for datagram in sent(&mut attempt) {
            match Message::parse(&datagram).unwrap().header.exchange {
                ExchangeType::IkeSaInit if datagram == true_form => {
                    answered.push(gateway.answer(&mut attempt, &datagram));
                }
                ExchangeType::IkeAuth => answered.extend(gateway.admit(&mut attempt, &datagram)),
                _ => {}
            }
        }
        for answer in answered {
            let _ = attempt.deliver(&answer);
        }
        if let Some(outcome) = attempt.initiator.poll_outcome() {
            assert!(outcome.is_ok(), "{outcome:?}");
            break;
        }
        attempt.pass();
    }
    assert!(attempt.now - began < Duration::from_secs(10), "within the bounded time");
}

#[test]
fn a_wrong_key_is_still_said_when_the_gateway_asks_for_cookies() {
    let (mut attempt, mut gateway) = (Attempt::new(), Gateway::new());
    gateway.secret = b"another";
    sent(&mut attempt);
    attempt.answer(&Gateway::cookie(b"true")).unwrap();
    let began = attempt.now;
    assert_eq!(gateway.run(&mut attempt), Err(HandshakeError::AuthenticationFailed));
    assert!(attempt.now - began < Duration::from_secs(3));
}

#[test]
fn a_forged_answer_with_keys_of_its_own_does_not_keep_the_true_one_out() {
    for (refuses, within) in [(true, Duration::ZERO), (false, Duration::from_secs(1))] {
        let (mut attempt, mut gateway) = (Attempt::new(), Gateway::new());
        let first = sent(&mut attempt).remove(0);
        let mut forger = Gateway { secret: b"unknown", next_spi: 0x6666, half_open: Vec::new() };
        let forged = forger.answer(&mut attempt, &first);
        attempt.deliver(&forged).unwrap();
        let to_forger = sent(&mut attempt).remove(0);
        if refuses {
            let refusal = forger.admit(&mut attempt, &to_forger).unwrap();
            attempt.deliver(&refusal).unwrap();
            assert!(attempt.initiator.poll_outcome().is_none(), "nobody vouches for this refusal");
        }
        let answer = gateway.answer(&mut attempt, &first);
        attempt.deliver(&answer).unwrap();
        let began = attempt.now;
        assert_eq!(gateway.run(&mut attempt), Ok(()));
        assert_eq!(attempt.now - began, within);
    }
}
