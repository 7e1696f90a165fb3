//! The exchanges, message by message: two ends of one IKE_SA in memory, made from the same keys, and an initiator alone.

mod closing;
mod conformance_established;
mod conformance_fragments;
mod conformance_initial;
mod conformance_renewal;
mod dhcp_sa;
mod established;
mod forms;
mod group;
mod held;
mod initial;
mod inner;
mod keep_old;
mod keep_old_octets;
mod misbehaviour;
mod mobike;
mod path_report;
mod path_size;
mod probe;
mod rekey;
mod rekey_child;
mod rekey_ike;
mod transport;

use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

use super::child::{ChildSa, DirectionKeys, Mode};
use super::create_child_sa::ChildPolicy;
use super::lifetime::Lifetimes;
use super::mobike::{Mobility, MovePolicy};
use super::nat::NatSituation;
use super::protect::Protection;
use super::retransmit::ResponseWindow;
use super::sa::{Features, IkeSa, SaEvent, SaParams};
use super::{IkeSpis, Path, Role};
use crate::crypto::keys::KeyInputs;
use crate::crypto::{IkeCipher, IkeKeys, Prf};
use crate::error::PeerMisbehaved;
use crate::proposal::{ChosenEsp, ChosenIke, EspProposal, IkeProposal};
use crate::time::Instant;
use crate::wire::{ExchangeType, Flags, Header, Identification, Payload, TrafficSelector, TrafficSelectors};
use zeroize::Zeroizing;

const SPIS: IkeSpis = IkeSpis { initiator: 0x1111, responder: 0x2222 };
const DPD: Duration = Duration::from_secs(30);

/// Both ends, the clock, and what an eavesdropper with the keys could send.
struct Pair {
    now: Instant,
    rng: ChaCha20Rng,
    client: IkeSa,
    gateway: IkeSa,
    /// The gateway's keys once more, to write messages that it would not.
    forger: Protection,
}

fn path(role: Role) -> Path {
    let (client, gateway) = (([192, 0, 2, 1], 40_000).into(), ([198, 51, 100, 1], 4500).into());
    match role {
        Role::Initiator => Path { link: 1, local: client, remote: gateway },
        Role::Responder => Path { link: 1, local: gateway, remote: client },
    }
}

fn keys() -> IkeKeys {
    let inputs = KeyInputs {
        nonce_i: &[1; 32],
        nonce_r: &[2; 32],
        spi_i: SPIS.initiator.to_be_bytes(),
        spi_r: SPIS.responder.to_be_bytes(),
    };
    IkeKeys::initial(Prf::HmacSha2_256, IkeCipher::Aes256Gcm16, &inputs, &[3; 32]).unwrap()
}

fn first_child(role: Role) -> ChildSa {
    let keys = |octet: u8| DirectionKeys {
        encr: Zeroizing::new(vec![octet; 36]),
        integ: Zeroizing::new(Vec::new()),
    };
    let (spi_in, spi_out, keys_in, keys_out) = match role {
        Role::Initiator => (0xc0ffee, 0xbeef00, keys(1), keys(2)),
        Role::Responder => (0xbeef00, 0xc0ffee, keys(2), keys(1)),
    };
    let policy = policy(role, "aes256gcm16");
    let suite = ChosenEsp { encr: 20, key_bits: Some(256), integ: None, esn: false, group: None };
    let (ts_local, ts_remote) = (policy.ts_local, policy.ts_remote);
    ChildSa { spi_in, spi_out, suite, keys_in, keys_out, mode: Mode::Tunnel, ts_local, ts_remote }
}

fn policy(role: Role, esp: &str) -> ChildPolicy {
    let client = TrafficSelectors::new(vec![TrafficSelector::host([10, 0, 0, 2].into())]);
    let network = TrafficSelectors::new(vec![TrafficSelector::any_v4()]);
    let (ts_local, ts_remote) = match role {
        Role::Initiator => (client, network),
        Role::Responder => (network, client),
    };
    ChildPolicy {
        proposals: vec![esp.parse::<EspProposal>().unwrap()],
        ts_local,
        ts_remote,
        mode: Mode::Tunnel,
        dhcp: false,
    }
}

fn one_end(now: Instant, role: Role, esp: &str) -> IkeSa {
    IkeSa::new(now, params(role, esp))
}

fn params(role: Role, esp: &str) -> SaParams {
    SaParams {
        role,
        spis: SPIS,
        path: path(role),
        suite: ChosenIke { encr: 20, key_bits: Some(256), integ: None, prf: 5, group: 31 },
        prf: Prf::HmacSha2_256,
        sk_d: keys().sk_d,
        protection: Protection::new(IkeCipher::Aes256Gcm16, &keys(), role).unwrap(),
        next_request: if role == Role::Initiator { 2 } else { 0 },
        window: ResponseWindow::starting_at(if role == Role::Initiator { 0 } else { 2 }),
        features: Features { fragmentation: true, mobike: true, keep_old: None, multi_point: false },
        peer_id: Identification::fqdn("peer.example"),
        nat: NatSituation::default(),
        ike_proposals: vec!["aes256gcm16-prfsha256-x25519".parse::<IkeProposal>().unwrap()],
        lifetimes: Lifetimes::default(),
        policy: policy(role, esp),
        child: Some(first_child(role)),
        dpd: (role == Role::Initiator).then_some(DPD),
        mobility: match role {
            Role::Initiator => Mobility::of_initiator(None, &[], None),
            Role::Responder => Mobility::of_responder(MovePolicy::default(), Vec::new(), Vec::new()),
        },
        keep_old: Some(50213),
    }
}

impl Pair {
    fn new() -> Self {
        Self::with_esp("aes256gcm16")
    }

    fn with_esp(esp: &str) -> Self {
        let now = Instant::from_start(Duration::from_secs(1000));
        Self {
            now,
            rng: ChaCha20Rng::seed_from_u64(1),
            client: one_end(now, Role::Initiator, esp),
            gateway: one_end(now, Role::Responder, esp),
            forger: Protection::new(IkeCipher::Aes256Gcm16, &keys(), Role::Responder).unwrap(),
        }
    }

    fn end(&mut self, role: Role) -> &mut IkeSa {
        match role {
            Role::Initiator => &mut self.client,
            Role::Responder => &mut self.gateway,
        }
    }

    /// What one end has to send.
    fn sent_by(&mut self, role: Role) -> Vec<Vec<u8>> {
        let end = self.end(role);
        std::iter::from_fn(|| end.poll_transmit()).map(|transmit| transmit.message).collect()
    }

    fn deliver(&mut self, to: Role, datagram: &[u8]) -> Result<(), PeerMisbehaved> {
        let (now, path) = (self.now, path(to));
        let end = match to {
            Role::Initiator => &mut self.client,
            Role::Responder => &mut self.gateway,
        };
        end.handle_datagram(now, path, datagram, &mut self.rng)
    }

    /// Carries datagrams to and fro until both ends are silent.
    fn settle(&mut self) {
        for _ in 0..20 {
            let (from_client, from_gateway) = (self.sent_by(Role::Initiator), self.sent_by(Role::Responder));
            if from_client.is_empty() && from_gateway.is_empty() {
                return;
            }
            for datagram in from_client {
                self.deliver(Role::Responder, &datagram).unwrap();
            }
            for datagram in from_gateway {
                self.deliver(Role::Initiator, &datagram).unwrap();
            }
        }
        panic!("the two ends do not come to rest");
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.client.handle_timeout(self.now, &mut self.rng);
        self.gateway.handle_timeout(self.now, &mut self.rng);
    }

    fn events(&mut self, role: Role) -> Vec<SaEvent> {
        let end = self.end(role);
        std::iter::from_fn(|| end.poll_event()).collect()
    }

    /// A message to the client that a gateway with the right keys could write.
    fn forged(
        &mut self,
        exchange: ExchangeType,
        message_id: u32,
        response: bool,
        payloads: &[Payload],
    ) -> Vec<u8> {
        let header = Header {
            spi_i: SPIS.initiator,
            spi_r: SPIS.responder,
            next_payload: 0,
            exchange,
            flags: Flags { initiator: false, response, version: false },
            message_id,
        };
        let sealed = self.forger.seal(header, payloads, false, path(Role::Responder), &mut self.rng).unwrap();
        sealed.into_iter().next().unwrap()
    }
}
