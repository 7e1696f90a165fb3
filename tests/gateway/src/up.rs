//! A client that is in: its IKE_SA, and those that this one took the place of.

use std::collections::VecDeque;
use std::net::IpAddr;

use rand_core::CryptoRng;
use ropewalk_ike::error::PeerMisbehaved;
use ropewalk_ike::exchange::sa::IkeSa;
use ropewalk_ike::exchange::{Path, Transmit};
use ropewalk_ike::time::Instant;

/// A client that is in.
pub(crate) struct Up {
    /// Its IKE_SA.
    pub(crate) sa: IkeSa,
    /// IKE_SAs that it took the place of, and that are still to be deleted.
    pub(crate) fading: Vec<IkeSa>,
    /// Who it is.
    pub(crate) name: String,
    /// Its inner addresses.
    pub(crate) addresses: Vec<IpAddr>,
    /// It can be sent to another gateway (RFC 5685).
    pub(crate) redirectable: bool,
    /// A newer IKE_SA of the same client took its place: only its farewell is left, and nobody is told of it.
    pub(crate) replaced: bool,
    /// A newer login of the same client from the same place took over: this one receives until then, unless the client
    /// deletes it first.
    pub(crate) leaves_at: Option<Instant>,
    pub(crate) stepped_aside: bool,
    /// The CHILD_SA of such a login, by our SPI: it does not carry before the client has shown that it has it.
    pub(crate) silent: Option<u32>,
    /// When the authentication is over (RFC 4478).
    pub(crate) authentic_until: Option<Instant>,
}

impl Up {
    fn sas(&mut self) -> impl Iterator<Item = &mut IkeSa> {
        std::iter::once(&mut self.sa).chain(&mut self.fading)
    }

    pub(crate) fn own_spis(&self) -> Vec<u64> {
        std::iter::once(&self.sa).chain(&self.fading).map(IkeSa::own_spi).collect()
    }

    /// Whether it counts as a client that is in.
    pub(crate) fn is_current(&self) -> bool {
        !self.replaced && !self.stepped_aside
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let sas = std::iter::once(&self.sa).chain(&self.fading).filter_map(IkeSa::poll_timeout);
        sas.chain(self.leaves_at).chain(self.authentic_until).min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let leaves = self.leaves_at.take_if(|at| *at <= now).is_some();
        if self.authentic_until.take_if(|at| *at <= now).is_some() || leaves {
            tracing::info!(name = self.name, leaves, "the time of a login is over");
            self.sa.close(now, rng);
        }
        for sa in self.sas() {
            if sa.poll_timeout().is_some_and(|at| at <= now) {
                sa.handle_timeout(now, rng);
            }
        }
    }

    pub(crate) fn handle_datagram(
        &mut self,
        now: Instant,
        path: Path,
        (own_spi, datagram): (u64, &[u8]),
        rng: &mut dyn CryptoRng,
    ) -> Result<(), PeerMisbehaved> {
        let sa = self.sas().find(|sa| sa.own_spi() == own_spi);
        sa.map_or(Err(PeerMisbehaved::WrongSpi), |sa| sa.handle_datagram(now, path, datagram, rng))
    }

    /// Takes what the replaced IKE_SAs have to send; those that are over go.
    pub(crate) fn drain_fading(&mut self, transmits: &mut VecDeque<Transmit>) {
        for sa in &mut self.fading {
            transmits.extend(std::iter::from_fn(|| sa.poll_transmit()));
            while let Some(event) = sa.poll_event() {
                tracing::debug!(name = self.name, ?event, sa = ?sa.spis(), "an IKE_SA that was replaced");
            }
        }
        self.fading.retain(|sa| !sa.is_closed());
    }
}
