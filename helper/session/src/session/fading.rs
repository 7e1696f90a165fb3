//! IKE_SAs that another took the place of: kept until both ends know of it, shown to nobody.
//!
//! Their CHILD_SAs are gone from them; all they do is repeat a DELETE, or answer one.

use rand_core::CryptoRng;
use ropewalk_ike::error::PeerMisbehaved;
use ropewalk_ike::exchange::sa::IkeSa;
use ropewalk_ike::exchange::{IkeSpis, Path, Transmit};
use ropewalk_ike::time::Instant;

/// More do not come together: each lives for a minute at most.
const MAX_FADING: usize = 8;

/// The IKE_SAs on their way out.
#[derive(Debug, Default)]
pub(super) struct Fading {
    sas: Vec<IkeSa>,
}

impl Fading {
    /// Keeps one more; beyond the limit the oldest goes without a word.
    pub(super) fn add(&mut self, sa: IkeSa) {
        if self.sas.len() >= MAX_FADING {
            self.sas.remove(0);
        }
        self.sas.push(sa);
    }

    /// Whether a datagram with these SPIs is for one of them.
    pub(super) fn owns(&self, spis: IkeSpis) -> bool {
        self.sas.iter().any(|sa| sa.spis() == spis)
    }

    pub(super) fn handle_datagram(
        &mut self,
        now: Instant,
        spis: IkeSpis,
        (path, datagram): (Path, &[u8]),
        rng: &mut dyn CryptoRng,
    ) -> Result<(), PeerMisbehaved> {
        let found = self.sas.iter_mut().find(|sa| sa.spis() == spis);
        found.map_or(Err(PeerMisbehaved::WrongSpi), |sa| sa.handle_datagram(now, path, datagram, rng))
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.sas.iter().filter_map(IkeSa::poll_timeout).min()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        for sa in &mut self.sas {
            if sa.poll_timeout().is_some_and(|at| at <= now) {
                sa.handle_timeout(now, rng);
            }
        }
    }

    /// What they have to send. Those that are over go.
    pub(super) fn drain(&mut self) -> Vec<Transmit> {
        let mut transmits = Vec::new();
        for sa in &mut self.sas {
            transmits.extend(std::iter::from_fn(|| sa.poll_transmit()));
            while let Some(event) = sa.poll_event() {
                tracing::debug!(?event, sa = ?sa.spis(), "an IKE_SA that was replaced");
            }
        }
        self.sas.retain(|sa| !sa.is_closed());
        transmits
    }

    pub(super) fn clear(&mut self) {
        self.sas.clear();
    }
}
