//! A CHILD_SA: what two ESP SAs and their policy need to be installed (RFC 7296 section 1.2).

use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::nat::NatSituation;
use super::{Path, transport};
use crate::crypto::{ChildKeys, IkeCipher, Prf};
use crate::error::PeerMisbehaved;
use crate::proposal::{ChosenEsp, EspProposal, esp_offer, validate_esp_answer};
use crate::wire::{
    Notify, NotifyType, Payload, Proposal, SecurityAssociation, TrafficSelectors, find_notify,
};

/// Tunnel or transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Whole packets inside.
    Tunnel,
    /// The payload of packets between the two ends.
    Transport,
}

impl Mode {
    /// What a message says of it.
    #[must_use]
    pub fn payloads(self) -> Vec<Payload> {
        match self {
            Self::Tunnel => Vec::new(),
            Self::Transport => vec![Payload::Notify(Notify::status(NotifyType::UseTransportMode))],
        }
    }
}

/// The keys of one direction.
#[derive(Clone)]
pub struct DirectionKeys {
    /// For encryption, with the salt of an AEAD at its end.
    pub encr: Zeroizing<Vec<u8>>,
    /// For integrity; empty with an AEAD.
    pub integ: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for DirectionKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DirectionKeys").finish_non_exhaustive()
    }
}

/// An established CHILD_SA.
#[derive(Clone, Debug)]
pub struct ChildSa {
    /// The SPI the peer sends to: ours.
    pub spi_in: u32,
    /// The SPI we send to: the peer's.
    pub spi_out: u32,
    /// What protects it.
    pub suite: ChosenEsp,
    /// Keys for what we receive.
    pub keys_in: DirectionKeys,
    /// Keys for what we send.
    pub keys_out: DirectionKeys,
    /// The mode.
    pub mode: Mode,
    /// Our side's addresses.
    pub ts_local: TrafficSelectors,
    /// The peer's side.
    pub ts_remote: TrafficSelectors,
}

impl ChildSa {
    /// Splits KEYMAT by who sends what; `we_initiated` the exchange that made this CHILD_SA.
    #[must_use]
    pub fn split_keys(keys: ChildKeys, we_initiated: bool) -> (DirectionKeys, DirectionKeys) {
        let from_initiator = DirectionKeys { encr: keys.encr_i, integ: keys.integ_i };
        let from_responder = DirectionKeys { encr: keys.encr_r, integ: keys.integ_r };
        if we_initiated { (from_responder, from_initiator) } else { (from_initiator, from_responder) }
    }
}

/// SPIs below are reserved (RFC 4303 section 2.1).
const FIRST_SPI: u32 = 256;

/// A random SPI for what we receive.
pub fn random_spi(rng: &mut dyn CryptoRng) -> u32 {
    std::iter::repeat_with(|| rng.next_u32()).find(|spi| *spi >= FIRST_SPI).unwrap_or(FIRST_SPI)
}

/// The nonces of the exchange that makes a CHILD_SA: the initiator's, the responder's.
pub type Nonces<'a> = (&'a [u8], &'a [u8]);

/// Key material for a CHILD_SA with this suite.
///
/// # Errors
/// A suite that was never offered.
pub fn derive(
    suite: &ChosenEsp,
    prf: Prf,
    sk_d: &[u8],
    shared_secret: Option<&[u8]>,
    nonces: Nonces<'_>,
) -> Result<ChildKeys, PeerMisbehaved> {
    let unusable = PeerMisbehaved::MissingPayload { what: "a usable ESP suite" };
    let Some(cipher) = IkeCipher::from_iana(suite.encr, suite.key_bits, suite.integ) else {
        return Err(unusable);
    };
    let (encr_len, integ_len) = (cipher.encr_key_len(), cipher.integ_key_len());
    ChildKeys::derive(prf, sk_d, shared_secret, nonces.0, nonces.1, encr_len, integ_len).map_err(|_| unusable)
}

/// What the initiator of an exchange proposes for a CHILD_SA.
#[derive(Clone, Debug)]
pub struct ChildOffer {
    /// Our SPI.
    pub spi_in: u32,
    /// The proposals as sent.
    pub proposals: Vec<Proposal>,
    /// Our side.
    pub ts_i: TrafficSelectors,
    /// The peer's side.
    pub ts_r: TrafficSelectors,
    /// The mode to ask for.
    pub mode: Mode,
}

impl ChildOffer {
    /// An offer for IKE_AUTH, where no key exchange of its own is possible: groups are left out.
    pub fn new(
        proposals: &[EspProposal],
        ts_i: TrafficSelectors,
        ts_r: TrafficSelectors,
        rng: &mut dyn CryptoRng,
    ) -> Self {
        let spi_in = random_spi(rng);
        Self { spi_in, proposals: esp_offer(proposals, spi_in, false), ts_i, ts_r, mode: Mode::Tunnel }
    }

    /// An offer for CREATE_CHILD_SA, with the groups that the proposals name.
    pub fn with_groups(
        proposals: &[EspProposal],
        ts_i: TrafficSelectors,
        ts_r: TrafficSelectors,
        rng: &mut dyn CryptoRng,
    ) -> Self {
        let spi_in = random_spi(rng);
        Self { spi_in, proposals: esp_offer(proposals, spi_in, true), ts_i, ts_r, mode: Mode::Tunnel }
    }

    /// Asks for transport mode between the ends of this path, for IP in IP.
    pub fn put_between(&mut self, path: Path) {
        self.mode = Mode::Transport;
        self.ts_i = transport::selectors(path.local.ip());
        self.ts_r = transport::selectors(path.remote.ip());
    }

    /// The payloads of the request: USE_TRANSPORT_MODE if wanted, SA, TSi, TSr.
    #[must_use]
    pub fn payloads(&self) -> Vec<Payload> {
        let mut payloads = self.mode.payloads();
        payloads.extend([
            Payload::Sa(SecurityAssociation { proposals: self.proposals.clone() }),
            Payload::TsI(self.ts_i.clone()),
            Payload::TsR(self.ts_r.clone()),
        ]);
        payloads
    }

    /// What the answer in `payloads` chose.
    ///
    /// # Errors
    /// The answer is not one to what was offered.
    pub fn choice(&self, payloads: &[Payload]) -> Result<(ChosenEsp, u32), PeerMisbehaved> {
        let sa = payloads.iter().find_map(|payload| match payload {
            Payload::Sa(sa) => Some(sa),
            _ => None,
        });
        let sa = sa.ok_or(PeerMisbehaved::MissingPayload { what: "the SA payload" })?;
        let [proposal] = sa.proposals.as_slice() else {
            return Err(PeerMisbehaved::AnswerProposalCount { count: sa.proposals.len() });
        };
        let suite = validate_esp_answer(proposal, &self.proposals)?;
        let spi_out = proposal.esp_spi().filter(|spi| *spi != 0).ok_or(PeerMisbehaved::AnswerSpi)?;
        Ok((suite, spi_out))
    }

    /// The CHILD_SA that the answer in `payloads` makes of this offer; `nat` is where NATs are, which changes what transport
    /// mode's selectors mean.
    ///
    /// # Errors
    /// The answer is not one to what was offered.
    pub fn accept(
        &self,
        payloads: &[Payload],
        nat: NatSituation,
        prf: Prf,
        sk_d: &[u8],
        shared_secret: Option<&[u8]>,
        nonces: Nonces<'_>,
    ) -> Result<ChildSa, PeerMisbehaved> {
        let (suite, spi_out) = self.choice(payloads)?;
        let agreed = find_notify(payloads, NotifyType::UseTransportMode).is_some();
        if agreed != (self.mode == Mode::Transport) {
            return Err(PeerMisbehaved::WrongMode);
        }
        let (mut ts_local, mut ts_remote) = (None, None);
        for payload in payloads {
            match payload {
                Payload::TsI(selectors) => ts_local = Some(selectors.clone()),
                Payload::TsR(selectors) => ts_remote = Some(selectors.clone()),
                _ => {}
            }
        }
        let mut ts_local = ts_local.ok_or(PeerMisbehaved::MissingPayload { what: "the TSi payload" })?;
        let mut ts_remote = ts_remote.ok_or(PeerMisbehaved::MissingPayload { what: "the TSr payload" })?;
        if self.mode == Mode::Transport {
            let ends = transport::only_address(&self.ts_i).zip(transport::only_address(&self.ts_r));
            let seen = ends.and_then(|ends| transport::seen_from_here(&ts_local, &ts_remote, nat, ends));
            (ts_local, ts_remote) = seen.ok_or(PeerMisbehaved::SelectorsNotNarrowed)?;
        }
        if !self.ts_i.covers(&ts_local) || !self.ts_r.covers(&ts_remote) {
            return Err(PeerMisbehaved::SelectorsNotNarrowed);
        }
        let keys = derive(&suite, prf, sk_d, shared_secret, nonces)?;
        let (keys_in, keys_out) = ChildSa::split_keys(keys, true);
        let (spi_in, mode) = (self.spi_in, self.mode);
        Ok(ChildSa { spi_in, spi_out, suite, keys_in, keys_out, mode, ts_local, ts_remote })
    }
}
