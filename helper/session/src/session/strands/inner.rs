//! An inner address for each path, where the profile wants that.
//!
//! A flow then goes by the path whose address it has, as long as that path stands: its packets have that address, and no other
//! path's CHILD_SA is for it. The address of the path that carries comes first among those of the device, so new flows take it.
//! With its path an address goes; a path by the same network asks for the same one again, so that connections that waited
//! go on. A gateway that grants no further addresses makes CHILD_SAs for the first one: then all share it, as usual.

use std::collections::BTreeMap;
use std::net::IpAddr;

use rand_core::CryptoRng;
use ropewalk_ike::exchange::config::AddressRequest;
use ropewalk_ike::exchange::initiator::InnerConfig;
use ropewalk_ike::exchange::sa::IkeSa;
use ropewalk_ike::time::Instant;
use ropewalk_paths::PathId;

use super::Strands;
use crate::command::{Command, Lane};
use crate::session::{Session, State};

/// Interfaces whose last address is remembered at most.
const MAX_REMEMBERED: usize = 16;

/// Inner addresses with prefix lengths.
type Addresses = Vec<(IpAddr, u8)>;

/// Which inner addresses belong to which path.
#[derive(Debug, Default)]
pub(super) struct Inner {
    /// Those of the login, and the path that it came by.
    first: Option<(PathId, Addresses)>,
    /// Those that further paths have got for themselves.
    own: BTreeMap<PathId, Addresses>,
    /// What a path by each interface had last.
    had: BTreeMap<u32, Addresses>,
}

impl Inner {
    pub(super) fn forget(&mut self, id: PathId) {
        self.own.remove(&id);
    }

    /// Those of this path.
    fn of(&self, id: PathId) -> &[(IpAddr, u8)] {
        let first = self.first.as_ref().map(|(_, first)| first);
        self.own.get(&id).or(first).map(Vec::as_slice).unwrap_or_default()
    }

    fn remember(&mut self, interface: Option<u32>, addresses: &Addresses) {
        if let Some(interface) = interface.filter(|_| self.had.len() < MAX_REMEMBERED) {
            self.had.insert(interface, addresses.clone());
        }
    }
}

impl Strands {
    /// The login has brought these addresses; what others had is over with theirs.
    pub(in crate::session) fn note_inner(&mut self, link: Option<u32>, addresses: &Addresses) {
        self.inner.own.clear();
        self.inner.first = Some((self.first, addresses.clone()));
        let interface = link.and_then(|link| self.interface_of(link));
        self.inner.remember(interface, addresses);
    }

    /// A path that has been set up by this socket has got these.
    pub(super) fn note_own_inner(&mut self, id: PathId, link: u32, inner: Option<InnerConfig>) {
        let Some(inner) = inner else { return };
        let interface = self.interface_of(link);
        self.inner.remember(interface, &inner.addresses);
        self.inner.own.insert(id, inner.addresses);
    }

    /// Where addresses differ: which leaves by which lane.
    pub(super) fn by_source(&self) -> Vec<(IpAddr, Lane)> {
        if self.inner.own.is_empty() {
            return Vec::new();
        }
        let mut by_source: Vec<(IpAddr, Lane)> = Vec::new();
        let login = self.inner.first.as_ref().map(|(id, _)| *id);
        // The one that the login came by before others that share its addresses.
        let lanes = self.lanes.iter().filter(|(id, _)| Some(**id) == login);
        for (id, lane) in lanes.chain(self.lanes.iter().filter(|(id, _)| Some(**id) != login)) {
            for (address, _) in self.inner.of(*id) {
                if !by_source.iter().any(|(known, _)| known == address) {
                    by_source.push((*address, *lane));
                }
            }
        }
        by_source
    }

    /// The addresses of all paths, those of the one that carries first.
    fn inner_addresses(&self) -> Addresses {
        let mut all: Addresses = Vec::new();
        for id in std::iter::once(&self.first).chain(self.others.keys()) {
            all.extend(self.inner.of(*id));
        }
        let mut seen = Vec::new();
        all.retain(|(address, _)| {
            !seen.contains(address) && {
                seen.push(*address);
                true
            }
        });
        all
    }
}

impl Session {
    /// Asks for the first CHILD_SA of a further IKE_SA by this interface.
    pub(super) fn join(&self, now: Instant, interface: u32, sa: &mut IkeSa, rng: &mut dyn CryptoRng) {
        if !self.strands.config.address_per_path {
            sa.create_child_alike(now, rng);
            return;
        }
        let in_use = self.strands.inner_addresses();
        let had = self.strands.inner.had.get(&interface).into_iter().flatten();
        let had: Vec<IpAddr> = had
            .map(|(address, _)| *address)
            .filter(|had| in_use.iter().all(|(used, _)| used != had))
            .collect();
        let v4 = had.iter().find_map(|had| if let IpAddr::V4(v4) = had { Some(*v4) } else { None });
        let v6 = had.iter().find_map(|had| if let IpAddr::V6(v6) = had { Some(*v6) } else { None });
        let wanted = self.config.initiator.request;
        let request = AddressRequest { ipv4: wanted.ipv4.map(|_| v4), ipv6: wanted.ipv6.map(|_| v6) };
        sa.create_child_with_addresses(now, request, self.config.initiator.ts_i.clone(), rng);
    }

    /// The device gets the addresses that the paths have now.
    pub(super) fn readdress(&mut self) {
        if !self.strands.config.address_per_path || !matches!(self.state, State::Connected(_)) {
            return;
        }
        let addresses = self.strands.inner_addresses();
        let Some(inner) = &mut self.inner else { return };
        if addresses.is_empty() || inner.addresses == addresses {
            return;
        }
        tracing::info!(?addresses, "inner addresses");
        inner.addresses = addresses;
        let settings = inner.clone();
        // Whoever logs in anew wants the one that carries.
        let mut carrying = settings.clone();
        carrying.addresses = self.strands.inner.of(self.strands.first).to_vec();
        self.remember_addresses(&carrying);
        self.commands.push_back(Command::ConfigureTunnel(Box::new(settings)));
        self.carry_anew();
    }
}
