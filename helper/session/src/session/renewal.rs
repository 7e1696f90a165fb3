//! What the data path tells of CHILD_SAs so that they are renewed in time, and what becomes of a renewal that is refused.
//!
//! The IKE_SA renews itself and its CHILD_SAs; this is the rest of it. A gateway that refuses goes on refusing, mostly
//! because it wants another key exchange method. The connection then lives on by logging in anew before the old SAs
//! end: the first CHILD_SA of an IKE_SA has no key exchange of its own.

use rand_core::CryptoRng;
use ropewalk_ike::time::Instant;
use ropewalk_ike::wire::NotifyType;

use super::{Session, State};
use crate::uplink::Traffic;

impl Session {
    /// What a CHILD_SA has carried so far.
    pub fn note_traffic(&mut self, now: Instant, traffic: &Traffic, rng: &mut dyn CryptoRng) {
        let State::Connected(sa) = &mut self.state else { return };
        if let Some(at) = traffic.last_in {
            sa.note_inbound(at);
        }
        if let Some(at) = traffic.last_out {
            sa.note_outbound(at);
        }
        sa.note_traffic(now, traffic.spi_in, traffic.received, traffic.sent);
        self.drain_sa(now, rng);
    }

    /// The sequence numbers of the CHILD_SA with the gateway's SPI `spi_out` run low: it is renewed now.
    pub fn sequence_low(&mut self, now: Instant, spi_out: u32, rng: &mut dyn CryptoRng) {
        if let State::Connected(sa) = &mut self.state
            && let Some(child) = sa.children().iter().find(|child| child.spi_out == spi_out)
        {
            let spi_in = child.spi_in;
            sa.rekey_child(now, spi_in, rng);
            self.drain_sa(now, rng);
        }
    }

    /// How many IKE_SAs there are: the one in use, and those that it took the place of and that are not deleted yet.
    #[must_use]
    pub fn ike_sas(&self) -> usize {
        self.fading.len() + usize::from(matches!(self.state, State::Connected(_) | State::Closing(_)))
    }

    pub(super) fn rekey_refused(&mut self, now: Instant, notify: NotifyType) {
        let esp = &self.config.initiator.esp_proposals;
        let with_group = esp.iter().any(|proposal| !proposal.groups().is_empty());
        let hint = match notify {
            NotifyType::NoProposalChosen | NotifyType::InvalidKePayload if with_group => {
                "the gateway accepts no key exchange method of the profile's `crypto.esp`: leave it out \
                 (aes256gcm16 instead of aes256gcm16-x25519), or name the gateway's"
            }
            NotifyType::NoProposalChosen | NotifyType::InvalidKePayload => {
                "the gateway may want a key exchange method in the profile's `crypto.esp`, as in \
                 aes256gcm16-x25519"
            }
            _ => "see the gateway's log",
        };
        tracing::warn!(%notify, hint, "the gateway refuses to renew the CHILD_SA; logging in anew instead");
        self.hasten_reauth(now);
    }

    pub(super) fn ike_rekey_refused(&mut self, now: Instant, notify: NotifyType) {
        tracing::warn!(%notify, "the gateway refuses to renew the IKE_SA; logging in anew instead");
        self.hasten_reauth(now);
    }
}
