//! A client that is in: its IKE_SAs, one for each of its paths, and those that one of these took the place of.
//!
//! Name, inner addresses and lease belong to the client, whichever IKE_SAs it has: they go with the last one. Which path
//! it is sent to by is told in [`crate::carriage`].

use std::collections::VecDeque;
use std::net::IpAddr;

use rand_core::CryptoRng;
use ropewalk_ike::error::PeerMisbehaved;
use ropewalk_ike::exchange::child::ChildSa;
use ropewalk_ike::exchange::sa::{IkeSa, SaEvent};
use ropewalk_ike::exchange::{Path, Transmit};
use ropewalk_ike::time::Instant;
use ropewalk_ike::wire::SwitchNotice;

use crate::carriage::{Carriage, Steering};
use crate::leases::Holder;

/// IKE_SAs of one client at most: two interfaces times as many addresses as a gateway has, and room for changes.
const MAX_STRANDS: usize = 16;

/// One of a client's IKE_SAs, with its CHILD_SAs. It stays the same when it is rekeyed.
pub(crate) struct Strand {
    /// Its number among those of the client.
    pub(crate) id: u32,
    /// Its IKE_SA.
    pub(crate) sa: IkeSa,
    /// Something came in by it, so the client has it, too.
    pub(crate) proven: bool,
    /// Under which number it holds inner addresses of its own; none for the client's first one.
    pub(crate) holder: Option<Holder>,
    /// Those addresses; empty while it has the client's.
    pub(crate) own: Vec<IpAddr>,
}

/// A client that is in.
pub(crate) struct Up {
    /// Its IKE_SAs; never none while it is in.
    pub(crate) strands: Vec<Strand>,
    /// IKE_SAs that were replaced and are still to be deleted, each with the number of the strand it was.
    fading: Vec<(u32, IkeSa)>,
    numbered: u32,
    /// Which path it is sent to by.
    pub(crate) steering: Steering,
    /// What the owner was told of that.
    pub(crate) told: Option<Carriage>,
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
    /// It is such a newer login: it does not carry before the client has shown that it has its CHILD_SA.
    pub(crate) silent: bool,
    /// When the authentication is over (RFC 4478).
    pub(crate) authentic_until: Option<Instant>,
}

impl Up {
    /// A client with its first IKE_SA.
    pub(crate) fn new(sa: IkeSa, name: String, addresses: Vec<IpAddr>, redirectable: bool) -> Self {
        Self {
            strands: vec![Strand { id: 0, sa, proven: true, holder: None, own: Vec::new() }],
            fading: Vec::new(),
            numbered: 1,
            steering: Steering::default(),
            told: None,
            name,
            addresses,
            redirectable,
            replaced: false,
            leaves_at: None,
            stepped_aside: false,
            silent: false,
            authentic_until: None,
        }
    }

    fn sas(&self) -> impl Iterator<Item = &IkeSa> {
        self.strands.iter().map(|strand| &strand.sa).chain(self.fading.iter().map(|(_, sa)| sa))
    }

    fn sas_mut(&mut self) -> impl Iterator<Item = &mut IkeSa> {
        let strands = self.strands.iter_mut().map(|strand| &mut strand.sa);
        strands.chain(self.fading.iter_mut().map(|(_, sa)| sa))
    }

    pub(crate) fn own_spis(&self) -> Vec<u64> {
        self.sas().map(IkeSa::own_spi).collect()
    }

    /// Whether it counts as a client that is in.
    pub(crate) fn is_current(&self) -> bool {
        !self.replaced && !self.stepped_aside
    }

    /// The CHILD_SAs of all its paths.
    pub(crate) fn children(&self) -> impl Iterator<Item = &ChildSa> {
        self.strands.iter().flat_map(|strand| strand.sa.children())
    }

    /// The IKE_SA that has this CHILD_SA, by our SPI of it.
    pub(crate) fn strand_of(&mut self, spi_in: u32) -> Option<&mut Strand> {
        let has = |strand: &&mut Strand| strand.sa.children().iter().any(|child| child.spi_in == spi_in);
        self.strands.iter_mut().find(has)
    }

    /// The path that it is sent to by.
    pub(crate) fn main(&self) -> Option<&Strand> {
        let main = self.steering.main(&self.strands);
        self.strands.iter().find(|strand| Some(strand.id) == main).or(self.strands.first())
    }

    /// The same, to do something with.
    pub(crate) fn main_mut(&mut self) -> Option<&mut Strand> {
        let main = self.main()?.id;
        self.strands.iter_mut().find(|strand| strand.id == main)
    }

    /// What it is sent to by, as far as there are CHILD_SAs.
    pub(crate) fn carriage(&self) -> Option<Carriage> {
        if self.silent { None } else { self.steering.carriage(&self.strands, &self.addresses) }
    }

    /// The client added an IKE_SA to this one.
    pub(crate) fn add(&mut self, sa: IkeSa, holder: Holder) {
        let own = Vec::new();
        self.strands.push(Strand { id: self.numbered, sa, proven: false, holder: Some(holder), own });
        self.numbered += 1;
        self.limit();
    }

    /// The IKE_SA of this strand was rekeyed.
    pub(crate) fn succeed(&mut self, id: u32, heir: IkeSa) {
        if let Some(strand) = self.strands.iter_mut().find(|strand| strand.id == id) {
            let old = std::mem::replace(&mut strand.sa, heir);
            self.fading.push((id, old));
        }
        self.limit();
    }

    /// An IKE_SA that was made in vain, to be told so.
    pub(crate) fn add_redundant(&mut self, id: u32, sa: IkeSa) {
        self.fading.push((id, sa));
    }

    /// An IKE_SA is over. When the client itself deleted it, those that it never used are none that it knows of. By these
    /// numbers addresses are held that nobody has any more; `client` is the number of the client's own.
    pub(crate) fn remove(&mut self, id: u32, client: Holder, deleted_by_client: bool) -> Vec<Holder> {
        let (shared, before) = (self.shares_addresses(), self.holders());
        self.strands.retain(|strand| strand.id != id);
        if deleted_by_client && !self.strands.iter().any(|strand| strand.proven) {
            self.strands.clear();
        }
        self.limit();
        let after = self.holders();
        let gone = before.into_iter().filter(|holder| !after.contains(holder));
        gone.chain((shared && !self.shares_addresses()).then_some(client)).collect()
    }

    fn holders(&self) -> Vec<Holder> {
        self.strands.iter().filter_map(|strand| strand.holder).collect()
    }

    /// Whether the client's first addresses are those of one of its paths.
    fn shares_addresses(&self) -> bool {
        let has_child = |strand: &Strand| strand.holder.is_none() || !strand.sa.children().is_empty();
        self.strands.iter().any(|strand| strand.own.is_empty() && has_child(strand))
    }

    /// The inner addresses of all its paths.
    pub(crate) fn inner_addresses(&self) -> Vec<IpAddr> {
        let first = if self.shares_addresses() { self.addresses.as_slice() } else { &[] };
        first.iter().chain(self.strands.iter().flat_map(|strand| &strand.own)).copied().collect()
    }

    fn limit(&mut self) {
        let room = self.strands.len() < MAX_STRANDS;
        self.strands.iter_mut().for_each(|strand| strand.sa.set_room(room));
    }

    /// Deletes all its IKE_SAs.
    pub(crate) fn close(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        self.strands.iter_mut().for_each(|strand| strand.sa.close(now, rng));
    }

    /// A newer login takes over; this one receives until then.
    pub(crate) fn step_aside(&mut self, until: Instant) {
        self.stepped_aside = true;
        self.leaves_at = Some(until);
        self.authentic_until = None;
        self.strands.iter_mut().for_each(|strand| strand.sa.step_aside());
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let look = self.steering.poll_timeout(&self.strands);
        let sas = self.sas().filter_map(IkeSa::poll_timeout);
        sas.chain(self.leaves_at).chain(self.authentic_until).chain(look).min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let leaves = self.leaves_at.take_if(|at| *at <= now).is_some();
        if self.authentic_until.take_if(|at| *at <= now).is_some() || leaves {
            tracing::info!(name = self.name, leaves, "the time of a login is over");
            self.close(now, rng);
        }
        self.steering.look(now, &self.strands);
        for sa in self.sas_mut() {
            if sa.poll_timeout().is_some_and(|at| at <= now) {
                sa.handle_timeout(now, rng);
            }
        }
    }

    /// Takes a datagram for the IKE_SA with this SPI of ours; `None` when there is none.
    pub(crate) fn handle_datagram(
        &mut self,
        now: Instant,
        path: Path,
        (own_spi, datagram): (u64, &[u8]),
        rng: &mut dyn CryptoRng,
    ) -> Option<Result<(), PeerMisbehaved>> {
        if let Some(strand) = self.strands.iter_mut().find(|strand| strand.sa.own_spi() == own_spi) {
            let outcome = strand.sa.handle_datagram(now, path, datagram, rng);
            strand.proven |= outcome.is_ok();
            return Some(outcome);
        }
        let (_, sa) = self.fading.iter_mut().find(|(_, sa)| sa.own_spi() == own_spi)?;
        Some(sa.handle_datagram(now, path, datagram, rng))
    }

    /// The client says how the path of this IKE_SA is to be used.
    pub(crate) fn switch(&mut self, id: u32, notice: SwitchNotice) {
        let taken = self.steering.note(id, notice);
        tracing::debug!(name = self.name, path = id, ?notice, taken, "the client switches");
    }

    /// Takes what the replaced IKE_SAs have to send; those that are over go. What the client says there of its path holds for
    /// the one that took its place.
    pub(crate) fn drain_fading(&mut self, transmits: &mut VecDeque<Transmit>) {
        let mut said = Vec::new();
        for (id, sa) in &mut self.fading {
            transmits.extend(std::iter::from_fn(|| sa.poll_transmit()));
            while let Some(event) = sa.poll_event() {
                if let SaEvent::SwitchAsked(notice) = event {
                    said.push((*id, notice));
                } else {
                    tracing::debug!(name = self.name, ?event, sa = ?sa.spis(), "an IKE_SA that was replaced");
                }
            }
        }
        self.fading.retain(|(_, sa)| !sa.is_closed());
        said.into_iter().for_each(|(id, notice)| self.switch(id, notice));
    }
}
