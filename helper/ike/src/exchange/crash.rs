//! Quick crash detection (RFC 6290): a gateway that lost its memory proves, by a token that it gave out before, that the
//! IKE_SA is gone. The token is the only thing in the clear that ends an IKE_SA.
//!
//! A token is made from the SPIs, so an IKE_SA that takes another's place gets one of its own: in the answer to the rekey
//! when the gateway answers, in an INFORMATIONAL exchange right after it when the gateway asked (section 4.3).

use ring::{digest, hmac};
use zeroize::Zeroizing;

use super::IkeSpis;
use super::sa::{CloseReason, IkeSa, Task};
use crate::error::PeerMisbehaved;
use crate::wire::{Notify, NotifyType, ParsedMessage, Payload, Protocol};

/// Octets of a token, at least and at most (RFC 6290 section 4.1).
const TOKEN_LEN: std::ops::RangeInclusive<usize> = 16..=128;

/// What makes tokens: the same after a restart (RFC 6290 section 5.1).
#[derive(Clone)]
pub struct TokenMaker(hmac::Key);

impl std::fmt::Debug for TokenMaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenMaker(..)")
    }
}

impl TokenMaker {
    /// From a secret that outlives a restart.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The notify with the token of this IKE_SA.
    #[must_use]
    pub fn notify(&self, spis: IkeSpis) -> Notify {
        let mut named = spis.initiator.to_be_bytes().to_vec();
        named.extend_from_slice(&spis.responder.to_be_bytes());
        let token = hmac::sign(&self.0, &named).as_ref().to_vec();
        Notify { protocol: Protocol::Ike.into(), ..Notify::new(NotifyType::QuickCrashDetection, token) }
    }
}

/// A token that the peer gave us.
#[derive(Clone)]
pub(super) struct Token(Zeroizing<Vec<u8>>);

impl Token {
    fn is(&self, shown: &[u8]) -> bool {
        // Hashes of secrets may be compared in any way: their common beginning tells nothing.
        let hash = |octets: &[u8]| digest::digest(&digest::SHA256, octets);
        hash(&self.0).as_ref() == hash(shown).as_ref()
    }
}

impl IkeSa {
    /// Gives the peer tokens for IKE_SAs that take this one's place; the one for this one it has by IKE_AUTH.
    pub fn make_tokens(&mut self, maker: TokenMaker) {
        self.token_maker = Some(maker);
    }

    /// The token of this IKE_SA for the peer, if we make any.
    pub(super) fn own_token(&self) -> Option<Payload> {
        self.token_maker.as_ref().map(|maker| Payload::Notify(maker.notify(self.spis())))
    }

    /// Tells the peer the token of this IKE_SA, which we began.
    pub(super) fn queue_token(&mut self) {
        let token = self.own_token();
        self.tasks.extend(token.map(|token| Task::Inform(vec![token])));
    }

    /// Takes the peer's token out of a protected message, if there is one. A further one takes the place of the one before
    /// (section 4.4).
    pub(super) fn take_token(&mut self, payloads: &[Payload]) {
        if let Some(data) = tokens(payloads).next() {
            self.token = Some(Token(Zeroizing::new(data.to_vec())));
        }
    }

    /// A message in the clear with our SPIs: nothing, unless it shows the token.
    pub(super) fn handle_plain(&mut self, parsed: &ParsedMessage) -> Result<(), PeerMisbehaved> {
        let lost = parsed.payloads.iter().any(
            |payload| matches!(payload, Payload::Notify(notify) if notify.ty == NotifyType::InvalidIkeSpi),
        );
        let proven = |token: &Token| tokens(&parsed.payloads).any(|shown| token.is(shown));
        if !lost || !parsed.header.flags.response || !self.token.as_ref().is_some_and(proven) {
            return Err(PeerMisbehaved::NotEncrypted);
        }
        self.finish(CloseReason::PeerRestarted);
        Ok(())
    }
}

fn tokens(payloads: &[Payload]) -> impl Iterator<Item = &[u8]> {
    payloads.iter().filter_map(|payload| match payload {
        Payload::Notify(notify)
            if notify.ty == NotifyType::QuickCrashDetection && TOKEN_LEN.contains(&notify.data.len()) =>
        {
            Some(notify.data.as_slice())
        }
        _ => None,
    })
}
