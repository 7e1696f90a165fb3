//! Several paths at once: strands, each an IKE_SA with its CHILD_SA on one network of ours towards one address of the gateway.
//!
//! The strand that carries is the IKE_SA in [`State::Connected`].

use std::collections::BTreeMap;

use rand_core::CryptoRng;
use ropewalk_ike::exchange::Path;
use ropewalk_ike::time::Instant;
use ropewalk_paths::{Health, PathId, Policy};

use super::{Session, State};
use crate::command::{Carriage, Command, Lane};
use crate::config::PathsConfig;
use crate::uplink::{Alone, PathSnapshot, Uplink};

/// The strands of a connection and what is known of its networks.
#[derive(Debug)]
pub(super) struct Strands {
    config: PathsConfig,
    uplinks: Vec<Uplink>,
    /// The interface of each socket.
    interfaces: BTreeMap<u32, u32>,
    /// The strand in the state.
    first: PathId,
    /// With what it sends.
    lane: Option<Lane>,
}

impl Strands {
    pub(super) fn new(config: &PathsConfig) -> Self {
        Self {
            config: config.clone(),
            uplinks: Vec::new(),
            interfaces: BTreeMap::new(),
            first: PathId(1),
            lane: None,
        }
    }

    /// A socket was opened on this interface.
    pub(super) fn note_link(&mut self, link: u32, interface: u32) {
        self.interfaces.insert(link, interface);
    }

    /// The strand in the state sends with this CHILD_SA along this path from now on.
    pub(super) fn send_with(&mut self, spi_in: u32, path: Path) -> Command {
        let lane = Lane { id: self.first, spi_in, path };
        self.lane = Some(lane);
        Command::Carry(Carriage { carrying: lane, shares: Vec::new(), copies: None })
    }
}

impl Session {
    /// The interfaces that lead outside are these now.
    pub fn uplinks_changed(&mut self, now: Instant, uplinks: Vec<Uplink>, rng: &mut dyn CryptoRng) {
        let _ = (now, rng);
        self.strands.uplinks = uplinks;
    }

    /// Several paths are used for this from now on.
    pub fn set_policy(&mut self, now: Instant, policy: Policy, rng: &mut dyn CryptoRng) {
        let _ = (now, rng);
        self.strands.config.policy = policy;
    }

    /// The paths, to be shown.
    pub(super) fn path_snapshots(&self) -> Vec<PathSnapshot> {
        let State::Connected(sa) = &self.state else { return Vec::new() };
        let path = sa.path();
        let first = PathSnapshot {
            id: self.strands.first,
            interface: self.strands.interfaces.get(&path.link).copied(),
            path,
            spis: sa.spis(),
            spi_in: self.strands.lane.map(|lane| lane.spi_in),
            health: if self.link.is_none() { Health::Down } else { Health::Good },
            rtt: None,
            loss: None,
            carrying: true,
        };
        vec![first]
    }

    /// Why there is one path and no more.
    pub(super) fn alone(&self) -> Option<Alone> {
        let State::Connected(sa) = &self.state else { return None };
        if !self.strands.config.multipath {
            Some(Alone::NotWanted)
        } else if self.strands.uplinks.len() < 2 {
            Some(Alone::OneWay)
        } else if !sa.can_move() {
            Some(Alone::NoMobike)
        } else {
            Some(Alone::Unanswered)
        }
    }
}
