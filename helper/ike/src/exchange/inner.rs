//! Inner addresses of its own for a further IKE_SA: a CFG_REQUEST before the SA payload of the CREATE_CHILD_SA exchange that makes
//! its first CHILD_SA (RFC 7296 sections 1.3.1, 2.19 and 3.15; draft-mglt-ipsecme-keep-old-ike-sa-00).
//!
//! The gateway's owner says what there is by an [`InnerSource`]; without one the Configuration payload is passed over, and the
//! CHILD_SA is for the addresses that the connection has already.

use std::fmt;

use rand_core::CryptoRng;

use super::Role;
use super::child::ChildSa;
use super::config::AddressRequest;
use super::create_child_sa::{PendingChild, Refusal};
use super::initiator::InnerConfig;
use super::sa::{IkeSa, SaEvent};
use crate::time::Instant;
use crate::wire::{Attribute, ConfigType, Configuration, NotifyType, Payload, TrafficSelectors};

/// Where a gateway's inner addresses come from.
pub trait InnerSource: fmt::Debug + Send + Sync {
    /// What a client gets that asks for this; `None` when nothing is left. Asked again, the same is granted.
    fn grant(&self, now: Instant, request: &Configuration) -> Option<InnerGrant>;
}

/// What is granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InnerGrant {
    /// The CFG_REPLY.
    pub reply: Configuration,
    /// What is reached through these addresses.
    pub ts_local: TrafficSelectors,
    /// The addresses.
    pub ts_remote: TrafficSelectors,
}

impl AddressRequest {
    /// The CFG_REQUEST; `None` when nothing is asked for.
    #[must_use]
    pub fn configuration(&self) -> Option<Configuration> {
        let mut attributes = Vec::new();
        if let Some(held) = self.ipv4 {
            attributes.push(Attribute::InternalIp4Address(held));
            attributes.push(Attribute::Ip4Dns(None));
        }
        if let Some(held) = self.ipv6 {
            attributes.push(Attribute::Ip6Address(held.map(|address| (address, 128))));
            attributes.push(Attribute::Ip6Dns(None));
        }
        (!attributes.is_empty()).then_some(Configuration { ty: ConfigType::Request, attributes })
    }
}

impl IkeSa {
    /// Asks for a first CHILD_SA with inner addresses of its own; `ts_i` is what our side may be. The outcome is
    /// [`SaEvent::InnerGranted`], unless the gateway passes the wish over, and then as of [`Self::create_child_alike`].
    pub fn create_child_with_addresses(
        &mut self,
        now: Instant,
        request: AddressRequest,
        ts_i: TrafficSelectors,
        rng: &mut dyn CryptoRng,
    ) {
        self.policy.ts_local = ts_i;
        let mut child = PendingChild::new(&self.policy, rng);
        child.inner = request.configuration();
        self.create_child(now, child, rng);
    }

    /// Says where inner addresses come from for a client that asks for some with the first CHILD_SA of this IKE_SA.
    pub fn set_inner_source(&mut self, source: std::sync::Arc<dyn InnerSource>) {
        self.inner_source = Some(source);
    }

    /// What the peer's request for inner addresses is answered with; `None` where none are to be given.
    pub(super) fn grant_inner(
        &mut self,
        now: Instant,
        request: Option<&Configuration>,
    ) -> Result<Option<Payload>, Refusal> {
        let first = self.children.is_empty() && self.role == Role::Responder;
        let (Some(request), Some(source), true) = (request, &self.inner_source, first) else {
            return Ok(None);
        };
        let granted = source.grant(now, request);
        let granted = granted.ok_or_else(|| Refusal::plain(NotifyType::InternalAddressFailure))?;
        (self.policy.ts_local, self.policy.ts_remote) = (granted.ts_local, granted.ts_remote);
        Ok(Some(Payload::Cp(granted.reply)))
    }

    /// Takes what was granted with this CHILD_SA; from now on our side is what it is for.
    pub(super) fn take_inner(&mut self, child: &ChildSa, payloads: &[Payload]) {
        self.policy.ts_local = child.ts_local.clone();
        let reply = payloads.iter().find_map(|payload| match payload {
            Payload::Cp(reply) if reply.ty == ConfigType::Reply => Some(InnerConfig::from_reply(reply)),
            _ => None,
        });
        if let Some(inner) = reply.filter(|inner| !inner.addresses.is_empty()) {
            self.events.push_back(SaEvent::InnerGranted(inner));
        }
    }
}
