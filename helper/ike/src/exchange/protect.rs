//! The Encrypted payload around a message, whole or in fragments (RFC 7296 section 3.14, RFC 7383).

use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::fragment::{Fragment, Reassembler};
use super::{Path, Role};
use crate::crypto::{CryptoError, IkeCipher, IkeKeys, SkCipher};
use crate::error::{PeerMisbehaved, WireError};
use crate::time::Instant;
use crate::wire::encrypted::{EncryptedKind, EncryptedRef, emit_prefix};
use crate::wire::{Header, Payload, emit_payloads, parse_payloads};

/// Octets of an IP datagram that is not fragmented by IP: IPv6's minimum MTU, as RFC 7383 section 2.5.1 recommends for IPv6.
/// For IPv4 it recommends 576, and allows what is appropriate: a path that carries less than 1280 does not carry the
/// tunnel's packets either, and fewer fragments get lost more seldom.
pub(super) const SAFE_DATAGRAM: usize = 1280;
/// What every path carries by IPv4 (RFC 7383 section 2.5.1): the size of pieces after larger ones were not answered.
const SMALLEST_IPV4: usize = 576;
/// UDP header and non-ESP marker.
const UDP_OVERHEAD: usize = 8 + 4;

/// A request to send, and the same for when it is not answered.
#[derive(Debug, Default)]
pub struct Sealed {
    /// One datagram, or its fragments.
    pub datagrams: Vec<Vec<u8>>,
    /// The same in more and smaller fragments, where that is possible and makes a difference.
    pub smaller: Option<Vec<Vec<u8>>>,
}

/// Octets around a message on its way along `path`: IP and UDP headers and the non-ESP marker.
pub(super) const fn overhead(path: Path) -> usize {
    let ip_header = if path.remote.is_ipv4() { 20 } else { 40 };
    ip_header + UDP_OVERHEAD
}

/// A message's decrypted content.
pub struct Opened {
    first_payload: u8,
    content: Zeroizing<Vec<u8>>,
}

impl Opened {
    /// Its payloads; what their notifies say is wiped with them, for some hold keys.
    ///
    /// # Errors
    /// The peer's content is malformed; it was authenticated, so it is the peer's own fault.
    pub fn payloads(&self) -> Result<Zeroizing<Vec<Payload>>, WireError> {
        parse_payloads(self.first_payload, &self.content).map(Zeroizing::new)
    }

    /// The type of its first payload, and all of them as they were sent.
    #[cfg(test)]
    pub(super) fn octets(&self) -> (u8, &[u8]) {
        (self.first_payload, &self.content)
    }
}

/// Both directions' keys of one IKE_SA, and what was received in pieces.
pub struct Protection {
    outbound: SkCipher,
    inbound: SkCipher,
    requests: Reassembler,
    responses: Reassembler,
}

impl Protection {
    /// The ciphers for one end of an IKE_SA.
    ///
    /// # Errors
    /// The keys do not fit the suite.
    pub fn new(suite: IkeCipher, keys: &IkeKeys, role: Role) -> Result<Self, CryptoError> {
        let from_initiator = SkCipher::new(suite, &keys.sk_ei, &keys.sk_ai)?;
        let from_responder = SkCipher::new(suite, &keys.sk_er, &keys.sk_ar)?;
        let (outbound, inbound) = match role {
            Role::Initiator => (from_initiator, from_responder),
            Role::Responder => (from_responder, from_initiator),
        };
        Ok(Self { outbound, inbound, requests: Reassembler::default(), responses: Reassembler::default() })
    }

    /// The datagrams of one message: one, or with `fragment` as many as keep each within every path's MTU.
    ///
    /// # Errors
    /// The message cannot be encrypted.
    pub fn seal(
        &mut self,
        header: Header,
        payloads: &[Payload],
        fragment: bool,
        path: Path,
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<Vec<u8>>, CryptoError> {
        let room = if fragment { SAFE_DATAGRAM - overhead(path) } else { usize::MAX };
        self.seal_within(room, header, payloads, rng)
    }

    /// A request; with `fragment` it may go in pieces, and in smaller ones when it is not answered.
    ///
    /// # Errors
    /// The message cannot be encrypted.
    pub fn seal_request(
        &mut self,
        header: Header,
        payloads: &[Payload],
        fragment: bool,
        path: Path,
        rng: &mut dyn CryptoRng,
    ) -> Result<Sealed, CryptoError> {
        let datagrams = self.seal(header, payloads, fragment, path, rng)?;
        let smallest = if path.remote.is_ipv4() { SMALLEST_IPV4 } else { SAFE_DATAGRAM };
        let room = smallest - overhead(path);
        let smaller = if fragment && datagrams.iter().any(|datagram| datagram.len() > room) {
            Some(self.seal_within(room, header, payloads, rng)?)
        } else {
            None
        };
        Ok(Sealed { datagrams, smaller })
    }

    /// Octets of a whole message whose payloads have `content` octets.
    pub(super) fn message_len(&self, header: &Header, content: usize) -> usize {
        let body = self.outbound.suite().sealed_len(content);
        emit_prefix(header, EncryptedKind::Sk, 0, body).len() + body
    }

    fn seal_within(
        &mut self,
        room: usize,
        header: Header,
        payloads: &[Payload],
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<Vec<u8>>, CryptoError> {
        let (first_inner, content) = emit_payloads(payloads);
        let content = Zeroizing::new(content);
        let suite = self.outbound.suite();
        let body = suite.sealed_len(content.len());
        let whole = emit_prefix(&header, EncryptedKind::Sk, first_inner, body);
        if whole.len() + body <= room {
            return Ok(vec![self.outbound.seal_message(rng, whole, &content)?]);
        }
        let prefix = emit_prefix(&header, EncryptedKind::Skf { fragment_number: 1, total: 1 }, 0, 0).len();
        let piece = suite.max_plaintext(room - prefix).ok_or(CryptoError::SealFailed)?;
        let total = u16::try_from(content.len().div_ceil(piece)).map_err(|_| CryptoError::SealFailed)?;
        let mut datagrams = Vec::with_capacity(usize::from(total));
        for (fragment_number, piece) in (1..=total).zip(content.chunks(piece)) {
            let inner = if fragment_number == 1 { first_inner } else { 0 };
            let kind = EncryptedKind::Skf { fragment_number, total };
            let prefix = emit_prefix(&header, kind, inner, suite.sealed_len(piece.len()));
            datagrams.push(self.outbound.seal_message(rng, prefix, piece)?);
        }
        Ok(datagrams)
    }

    /// Checks and decrypts a datagram; `None` while fragments of its message are missing.
    ///
    /// # Errors
    /// It was not sealed by the peer, or its fragment numbers make no sense.
    pub fn open(
        &mut self,
        now: Instant,
        datagram: &[u8],
        header: &Header,
        encrypted: &EncryptedRef,
    ) -> Result<Option<Opened>, PeerMisbehaved> {
        let content = self.decrypt(datagram, encrypted)?;
        let first_payload = encrypted.next_payload;
        match encrypted.kind {
            EncryptedKind::Sk => Ok(Some(Opened { first_payload, content })),
            EncryptedKind::Skf { fragment_number, total } => {
                let reassembler =
                    if header.flags.response { &mut self.responses } else { &mut self.requests };
                let message_id = header.message_id;
                let fragment =
                    Fragment { message_id, number: fragment_number, total, first_payload, content };
                let whole = reassembler.add(now, fragment)?;
                Ok(whole.map(|whole| Opened { first_payload: whole.first_payload, content: whole.content }))
            }
        }
    }

    /// When [`Self::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [&self.requests, &self.responses].into_iter().filter_map(Reassembler::poll_timeout).min()
    }

    /// Forgets the pieces of messages that did not become whole in time.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.requests.handle_timeout(now);
        self.responses.handle_timeout(now);
    }

    /// Whether this authenticated datagram is a whole message or the first fragment of one: a repeated request is
    /// answered once, not once for each fragment (RFC 7383 section 2.6.1).
    ///
    /// # Errors
    /// It was not sealed by the peer.
    pub fn is_first_piece(&self, datagram: &[u8], encrypted: &EncryptedRef) -> Result<bool, PeerMisbehaved> {
        self.decrypt(datagram, encrypted)?;
        Ok(match encrypted.kind {
            EncryptedKind::Sk => true,
            EncryptedKind::Skf { fragment_number, .. } => fragment_number == 1,
        })
    }

    fn decrypt(
        &self,
        datagram: &[u8],
        encrypted: &EncryptedRef,
    ) -> Result<Zeroizing<Vec<u8>>, PeerMisbehaved> {
        self.inbound
            .open_message(datagram, encrypted.body.clone())
            .map_err(|error| PeerMisbehaved::NotAuthentic { error })
    }
}
