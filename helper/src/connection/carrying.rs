//! What leaves by which path: the session's carriage made true in the pump, and what each path has carried.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ropewalk_datapath::{Carriage as Ways, Egress, Keepalive, Share};
use ropewalk_esp::EspSuite;
use ropewalk_ike::exchange::Path;
use ropewalk_session::{Carriage, Lane, PathId, PathSnapshot};

use super::links::Link;
use super::tunnel::Tunnel;

/// After copies have ended the gateway's may still come.
const LAST_COPIES: Duration = Duration::from_secs(10);

/// What is in force.
#[derive(Debug, Default)]
pub(super) struct Carrying {
    /// As the session wants it.
    carriage: Option<Carriage>,
    /// Copies are expected, and the last were wanted then.
    copies: Option<Instant>,
    /// Where NAT keepalives go, by socket.
    kept_alive: BTreeMap<u32, Path>,
    /// The path of each CHILD_SA, by our SPI.
    owners: BTreeMap<u32, PathId>,
    /// Octets received and sent by CHILD_SAs of a path that are gone.
    retired: BTreeMap<PathId, (u64, u64)>,
}

impl Tunnel {
    /// Sends like this from now on.
    pub fn carry(&mut self, carriage: Carriage) {
        self.sending = Some(carriage.carrying.spi_in);
        for lane in lanes(&carriage) {
            self.carrying.owners.insert(lane.spi_in, lane.id);
            self.links.note_path(lane.path);
        }
        self.links.carry(lanes(&carriage).map(|lane| lane.path.link));
        if let Some(pump) = &self.pump {
            self.group.carried_from(pump, carriage.carrying.path.local.ip());
        }
        self.group_surrounded();
        self.carrying.carriage = Some(carriage);
        self.apply_carriage();
    }

    /// What is shown of the paths: each gets its NAT keepalives, and counts what goes by it.
    pub fn note_paths(&mut self, paths: &[PathSnapshot]) {
        let owners = &mut self.carrying.owners;
        for path in paths {
            if let Some(spi_in) = path.spi_in {
                owners.insert(spi_in, path.id);
            }
        }
        self.carrying.retired.retain(|id, _| paths.iter().any(|path| path.id == *id));
        if self.carrying.copies.is_some_and(|since| since.elapsed() > LAST_COPIES) && !self.wants_copies() {
            self.carrying.copies = None;
            if let Some(pump) = &self.pump {
                pump.set_expect_copies(false);
            }
        }
        self.keep_alive(paths.iter().map(|path| path.path));
    }

    /// Octets received and sent by a path.
    #[must_use]
    pub fn octets(&self, path: &PathSnapshot) -> (u64, u64) {
        let retired = self.carrying.retired.get(&path.id).copied().unwrap_or_default();
        let own = |spi_in: &u32| self.carrying.owners.get(spi_in) == Some(&path.id);
        let children = self.children.iter().filter(|child| own(&child.sa.spi_in));
        children.fold(retired, |(received, sent), child| {
            (received + child.inbound.counters().bytes, sent + child.outbound.counters().bytes)
        })
    }

    /// A CHILD_SA went, with what it had received and sent.
    pub(super) fn leave_carriage(&mut self, spi_in: u32, (received, sent): (u64, u64)) {
        if let Some(path) = self.carrying.owners.remove(&spi_in) {
            let (all_received, all_sent) = self.carrying.retired.entry(path).or_default();
            (*all_received, *all_sent) = (*all_received + received, *all_sent + sent);
        }
        let names_it = self
            .carrying
            .carriage
            .as_ref()
            .is_some_and(|carriage| lanes(carriage).any(|lane| lane.spi_in == spi_in));
        if names_it {
            self.apply_carriage();
        }
    }

    /// The paths in use, and what seals the packets on each.
    pub(super) fn in_use(&self) -> impl Iterator<Item = (&Lane, &Link, EspSuite)> {
        self.carrying.carriage.iter().flat_map(lanes).filter_map(|lane| {
            let child = self.children.iter().find(|child| child.sa.spi_in == lane.spi_in)?;
            Some((lane, self.links.get(lane.path.link)?, child.suite))
        })
    }

    fn wants_copies(&self) -> bool {
        self.carrying.carriage.as_ref().is_some_and(|carriage| carriage.copies.is_some())
    }

    /// Hands the pump what is wanted, as far as its CHILD_SAs and sockets are there.
    fn apply_carriage(&mut self) {
        let (Some(carriage), Some(pump)) = (&self.carrying.carriage, &self.pump) else { return };
        let shares = carriage.shares.iter().filter_map(|(lane, weight)| {
            Some(Share { name: lane.id.0, weight: *weight, egress: self.egress(lane)? })
        });
        let shares: Vec<Share> = shares.collect();
        let copies = carriage.copies.as_ref().and_then(|lane| self.egress(lane));
        let main = self.egress(&carriage.carrying);
        let main = main.map(|main| (main, carriage.carrying.id.0));
        let main = main.or_else(|| shares.first().map(|share| (share.egress.clone(), share.name)));
        let main = main.or_else(|| Some((copies.clone()?, carriage.copies?.id.0)));
        let by_source = carriage.by_source.iter();
        let by_source: Vec<_> =
            by_source.filter_map(|(source, lane)| Some((*source, self.egress(lane)?))).collect();
        let main = main.or_else(|| Some((by_source.first()?.1.clone(), carriage.carrying.id.0)));
        let pause = carriage.pause;
        let ways =
            main.map(|(main, name)| Ways { shares, copies, pause, by_source, ..Ways::new(main, name) });
        if ways.is_none() {
            self.sending = None;
        }
        if let Err(error) = pump.set_default(ways) {
            tracing::error!(%error, "the pump refuses the new way out");
        }
        if self.wants_copies() {
            pump.set_expect_copies(true);
            self.carrying.copies = Some(Instant::now());
        }
        let paths: Vec<Path> = lanes(carriage).map(|lane| lane.path).collect();
        let others =
            self.carrying.kept_alive.values().filter(|kept| paths.iter().all(|path| path.link != kept.link));
        let all: Vec<Path> = paths.iter().chain(others).copied().collect();
        self.keep_alive(all.into_iter());
        self.fit_mtu();
    }

    fn egress(&self, lane: &Lane) -> Option<Egress> {
        let child = self.children.iter().find(|child| child.sa.spi_in == lane.spi_in)?;
        let link = self.links.get(lane.path.link)?;
        Some(Egress { sa: child.outbound.clone(), socket: link.socket, peer: lane.path.remote })
    }

    /// The NATs of these paths are kept open, and of no others.
    fn keep_alive(&mut self, paths: impl Iterator<Item = Path>) {
        let Some(pump) = &self.pump else { return };
        if self.keepalive.is_zero() {
            return;
        }
        let wanted: BTreeMap<u32, Path> = paths.map(|path| (path.link, path)).collect();
        let before = std::mem::take(&mut self.carrying.kept_alive);
        let changes = wanted.iter().filter(|(link, path)| before.get(link) != Some(path));
        let changes = changes.map(|(link, path)| (*link, Some(path.remote)));
        let ended = before.keys().filter(|link| !wanted.contains_key(link)).map(|link| (*link, None));
        for (link, peer) in changes.chain(ended) {
            let Some(link) = self.links.get(link) else { continue };
            let keepalive = peer.map(|peer| Keepalive { peer, interval: self.keepalive });
            if let Err(error) = pump.set_keepalive(link.socket, keepalive) {
                tracing::debug!(%error, "no keepalives on this socket");
            }
        }
        self.carrying.kept_alive = wanted;
    }
}

fn lanes(carriage: &Carriage) -> impl Iterator<Item = &Lane> {
    let shares = carriage.shares.iter().map(|(lane, _)| lane);
    let own = carriage.by_source.iter().map(|(_, lane)| lane);
    std::iter::once(&carriage.carrying).chain(shares).chain(&carriage.copies).chain(own)
}
