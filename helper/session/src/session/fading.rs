//! IKE_SAs that another took the place of: kept until both ends know of it, shown to nobody.
//!
//! After a rekey they have no CHILD_SAs; all they do is repeat a DELETE, or answer one. After a reauthentication they go on
//! receiving for a moment, because the gateway sends with the new CHILD_SA only when it knows that we have it.

use std::time::Duration;

use rand_core::CryptoRng;
use ropewalk_ike::error::PeerMisbehaved;
use ropewalk_ike::exchange::sa::{IkeSa, SaEvent};
use ropewalk_ike::exchange::{IkeSpis, Path, Transmit};
use ropewalk_ike::time::Instant;

/// More do not come together: each lives for a minute at most.
const MAX_FADING: usize = 8;

/// How long an IKE_SA that was replaced by a reauthentication goes on receiving.
const OVERLAP: Duration = Duration::from_secs(3);

/// The IKE_SAs on their way out.
#[derive(Debug, Default)]
pub(super) struct Fading {
    sas: Vec<Leaving>,
    /// What is gone with those that went without a word.
    orphans: Drained,
}

#[derive(Debug)]
struct Leaving {
    sa: IkeSa,
    /// When it is to be deleted by us.
    close_at: Option<Instant>,
    /// The socket that goes with it.
    link: Option<u32>,
}

/// What came of those on their way out.
#[derive(Debug, Default)]
pub(super) struct Drained {
    pub(super) transmits: Vec<Transmit>,
    /// Our SPIs of CHILD_SAs that are gone.
    pub(super) down: Vec<u32>,
    /// Sockets that nobody needs any more.
    pub(super) links: Vec<u32>,
}

impl Drained {
    /// This one goes without a word.
    fn take(&mut self, Leaving { sa, link, .. }: Leaving) {
        self.down.extend(sa.children().iter().map(|child| child.spi_in));
        self.links.extend(link);
    }
}

impl Leaving {
    fn poll_timeout(&self) -> Option<Instant> {
        [self.sa.poll_timeout(), self.close_at].into_iter().flatten().min()
    }
}

impl Fading {
    /// Keeps one more that its own exchanges end.
    pub(super) fn add(&mut self, sa: IkeSa) {
        self.push(Leaving { sa, close_at: None, link: None });
    }

    /// Keeps one more that is being deleted, and receives by this socket until then.
    pub(super) fn add_leaving(&mut self, sa: IkeSa, link: Option<u32>) {
        self.push(Leaving { sa, close_at: None, link });
    }

    /// Keeps one more that receives for a moment and is deleted then.
    pub(super) fn add_receiving(&mut self, now: Instant, mut sa: IkeSa) {
        sa.step_aside();
        self.push(Leaving { sa, close_at: Some(now + OVERLAP), link: None });
    }

    /// Asks those that the gateway is to delete: where it has not, our answer to its rekey may be under way yet, and it does
    /// not know the IKE_SA that took their place. Then it hears by them where we are.
    pub(super) fn ask(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        for leaving in self.sas.iter_mut().filter(|leaving| leaving.close_at.is_none()) {
            leaving.sa.check_liveness(now, rng);
        }
    }

    /// Those that were only lent a socket, and none of these, go on by another path: theirs is gone. A gateway that did not get
    /// our answer to its rekey repeats the request, and has to know where to; what is to be deleted anyway is deleted.
    pub(super) fn follow(&mut self, now: Instant, alive: &[u32], to: Path, rng: &mut dyn CryptoRng) {
        for Leaving { sa, close_at, link } in &mut self.sas {
            if link.is_some() || alive.contains(&sa.path().link) {
                continue;
            }
            if close_at.take().is_some() {
                sa.leave_by(now, to, rng);
            } else {
                sa.move_to(now, to, rng);
            }
        }
    }

    /// Beyond the limit the oldest goes without a word.
    fn push(&mut self, leaving: Leaving) {
        if self.sas.len() >= MAX_FADING {
            let oldest = self.sas.remove(0);
            self.orphans.take(oldest);
        }
        self.sas.push(leaving);
    }

    /// Whether a datagram with these SPIs is for one of them.
    pub(super) fn owns(&self, spis: IkeSpis) -> bool {
        self.sas.iter().any(|leaving| leaving.sa.spis() == spis)
    }

    pub(super) fn handle_datagram(
        &mut self,
        now: Instant,
        spis: IkeSpis,
        (path, datagram): (Path, &[u8]),
        rng: &mut dyn CryptoRng,
    ) -> Result<(), PeerMisbehaved> {
        let found = self.sas.iter_mut().find(|leaving| leaving.sa.spis() == spis);
        found.map_or(Err(PeerMisbehaved::WrongSpi), |leaving| {
            leaving.sa.handle_datagram(now, path, datagram, rng)
        })
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.sas.iter().filter_map(Leaving::poll_timeout).min()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        for leaving in &mut self.sas {
            if leaving.close_at.take_if(|at| *at <= now).is_some() {
                leaving.sa.close(now, rng);
            }
            if leaving.sa.poll_timeout().is_some_and(|at| at <= now) {
                leaving.sa.handle_timeout(now, rng);
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.sas.len()
    }

    /// What they have to send, and what is gone with them. Those that are over go.
    pub(super) fn drain(&mut self) -> Drained {
        let mut drained = std::mem::take(&mut self.orphans);
        let mut heirs = Vec::new();
        for Leaving { sa, close_at, link } in &mut self.sas {
            drained.transmits.extend(std::iter::from_fn(|| sa.poll_transmit()));
            while let Some(event) = sa.poll_event() {
                let heir = match event {
                    SaEvent::ChildDown { spi_in, .. } => {
                        drained.down.push(spi_in);
                        continue;
                    }
                    // The answer to what it had asked for before it had to go: that goes, too, with the CHILD_SAs it got.
                    SaEvent::Rekeyed(successor) | SaEvent::Kept(successor) => successor.sa,
                    SaEvent::Redundant(redundant) => *redundant,
                    event => {
                        tracing::debug!(?event, sa = ?sa.spis(), "an IKE_SA that was replaced");
                        continue;
                    }
                };
                let close_at = Some(close_at.unwrap_or(Instant::ZERO));
                heirs.push(Leaving { sa: heir, close_at, link: link.take() });
            }
        }
        heirs.into_iter().for_each(|heir| self.push(heir));
        drained.links.extend(self.sas.iter().filter(|gone| gone.sa.is_closed()).filter_map(|gone| gone.link));
        self.sas.retain(|leaving| !leaving.sa.is_closed());
        drained
    }

    /// Ends them without a word; what goes with them.
    pub(super) fn clear(&mut self) -> Drained {
        let mut drained = std::mem::take(&mut self.orphans);
        self.sas.drain(..).for_each(|leaving| drained.take(leaving));
        drained
    }
}
