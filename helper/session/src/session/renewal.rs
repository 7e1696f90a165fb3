//! What the data path tells of CHILD_SAs so that they are renewed in time, and what becomes of a renewal that is refused.
//!
//! The IKE_SA renews itself and its CHILD_SAs; this is the rest of it. A gateway that refuses goes on refusing, mostly
//! because it wants another key exchange method. The connection then lives on by logging in anew before the old SAs
//! end: the first CHILD_SA of an IKE_SA has no key exchange of its own.

use std::time::Duration;

use rand_core::CryptoRng;
use ropewalk_ike::time::Instant;
use ropewalk_ike::wire::NotifyType;
use ropewalk_ike::wire::transform_id::GROUP_X25519;

use super::{Session, State};
use crate::explain::{Cause, Explanation, other_pfs};
use crate::uplink::Traffic;

/// A path that something was sent by so long ago is in use.
const IN_USE: Duration = Duration::from_secs(5);

impl Session {
    /// What a CHILD_SA has carried so far.
    pub fn note_traffic(&mut self, now: Instant, traffic: &Traffic, rng: &mut dyn CryptoRng) {
        if self.strand_traffic(now, traffic, rng) {
            return;
        }
        let State::Connected(sa) = &mut self.state else { return };
        if let Some(at) = traffic.last_in.filter(|_| sa.comes_as_expected(traffic.spi_in)) {
            sa.note_inbound(at);
        }
        if let Some(at) = traffic.last_out {
            sa.note_outbound(at);
        }
        let unanswered = sa.stalled_since().is_some_and(|at| at <= now);
        sa.note_traffic(now, traffic.spi_in, traffic.received, traffic.sent);
        if traffic.last_out.is_some_and(|at| now < at + IN_USE) {
            self.size_in_use(now, unanswered);
        }
        self.drain_sa(now, rng);
    }

    /// The sequence numbers of the CHILD_SA with the gateway's SPI `spi_out` run low: it is renewed now.
    pub fn sequence_low(&mut self, now: Instant, spi_out: u32, rng: &mut dyn CryptoRng) {
        if self.strand_sequence_low(now, spi_out, rng) {
            return;
        }
        if let State::Connected(sa) = &mut self.state
            && let Some(child) = sa.children().iter().find(|child| child.spi_out == spi_out)
        {
            let spi_in = child.spi_in;
            sa.rekey_child(now, spi_in, rng);
            self.drain_sa(now, rng);
        }
    }

    /// How many IKE_SAs there are: those of the paths, and those that others took the place of and that are not deleted yet.
    #[must_use]
    pub fn ike_sas(&self) -> usize {
        self.fading.len()
            + self.strands.beside()
            + usize::from(matches!(self.state, State::Connected(_) | State::Closing(_)))
    }

    /// The gateway refuses to renew the CHILD_SA. Mostly one end wants a key exchange for it and the other does not, which
    /// shows here first: the first CHILD_SA has no key exchange of its own (RFC 7296 section 1.2). It is told as long as the
    /// connection stands.
    pub(super) fn rekey_refused(&mut self, now: Instant, notify: NotifyType) {
        let explanation = self.explain_refusal(notify);
        tracing::warn!(
            %notify,
            hint = explanation.hint,
            "the gateway refuses to renew the CHILD_SA; logging in anew instead"
        );
        // A gateway that makes one CHILD_SA and no more is as it should be (RFC 7296 section 4).
        self.warning = Some(explanation).filter(|_| notify != NotifyType::NoAdditionalSas);
        self.hasten_reauth(now);
    }

    pub(super) fn ike_rekey_refused(&mut self, now: Instant, notify: NotifyType) {
        tracing::warn!(%notify, "the gateway refuses to renew the IKE_SA; logging in anew instead");
        let proposals: Vec<String> =
            self.config.initiator.ike_proposals.iter().map(ToString::to_string).collect();
        let (cause, hint) = match notify {
            NotifyType::NoProposalChosen | NotifyType::InvalidKePayload => (
                Cause::NoProposal,
                format!(
                    "What was good for the login should be for this: ask the administrator which of {} the gateway \
                     takes for a renewal, and set ike under [crypto] in the profile.",
                    proposals.join(", ")
                ),
            ),
            _ => (Cause::Failed, "Ask the administrator to look into the gateway's log.".to_owned()),
        };
        let message = format!(
            "The gateway refuses to renew the keys of the connection ({notify}). Ropewalk logs in anew each time instead."
        );
        self.warning = Some(Explanation::new(cause, message, hint));
        self.hasten_reauth(now);
    }

    fn explain_refusal(&self, notify: NotifyType) -> Explanation {
        let instead = "Ropewalk logs in anew each time instead.";
        if !matches!(notify, NotifyType::NoProposalChosen | NotifyType::InvalidKePayload) {
            return Explanation::new(
                Cause::Failed,
                format!("The gateway refuses to renew the tunnel's keys ({notify}). {instead}"),
                "Ask the administrator to look into the gateway's log.",
            );
        }
        let esp = &self.config.initiator.esp_proposals;
        let offered: Vec<String> = esp.iter().map(ToString::to_string).collect();
        let message = format!(
            "The gateway refuses to renew the tunnel's keys with what the profile proposes ({}). {instead}",
            offered.join(", ")
        );
        let group = match &self.state {
            State::Connected(sa) => sa.suite().group,
            State::Idle
            | State::AskingCredential
            | State::Racing(_)
            | State::Waiting { .. }
            | State::Offline
            | State::Closing(_)
            | State::Failed => GROUP_X25519,
        };
        let other = esp.first().map(|proposal| other_pfs(proposal, group)).unwrap_or_default();
        let hint = if esp.iter().any(|proposal| !proposal.groups().is_empty()) {
            format!(
                "The gateway may want no key exchange there (PFS), or another one: set esp = [\"{other}\"] under [crypto] in \
                 the profile, or ask the administrator which."
            )
        } else {
            format!(
                "The gateway may want a key exchange there (PFS): set esp = [\"{other}\"] under [crypto] in the \
                 profile, or ask the administrator which."
            )
        };
        Explanation::new(Cause::NoProposal, message, hint)
    }
}
