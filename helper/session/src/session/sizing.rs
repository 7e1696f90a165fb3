//! How large packets may be on the paths in use: [`crate::path_size`] says what to ask, the IKE_SA of each path asks, and the owner
//! is told what the path carries, so that the tunnel's inner MTU follows.

use std::collections::BTreeMap;

use rand_core::CryptoRng;
use ropewalk_ike::exchange::Path;
use ropewalk_ike::exchange::child::Mode;
use ropewalk_ike::exchange::sa::IkeSa;
use ropewalk_ike::time::Instant;

use super::{Session, State};
use crate::command::Command;
use crate::path_size::{Bounds, PathSize, Search};

/// Where nothing is asked, an ICMP message is believed down to this: IPv6's minimum.
const UNASKED_LEAST: usize = 1280;

/// The answer to a question about a size.
#[derive(Clone, Copy, Debug)]
pub(super) struct SizeAnswer {
    pub(super) path: Path,
    pub(super) octets: usize,
    pub(super) carried: bool,
}

#[derive(Debug)]
struct Way {
    path: Path,
    bounds: Bounds,
    search: Search,
    told: Option<PathSize>,
}

/// The searches, by socket.
#[derive(Debug, Default)]
pub(super) struct Sizing {
    ways: BTreeMap<u32, Way>,
}

impl Session {
    /// The data path sends by this socket, where packets of such sizes matter: what the path carries is found out.
    pub fn size_wanted(&mut self, now: Instant, path: Path, bounds: Bounds, rng: &mut dyn CryptoRng) {
        // In transport mode a move waits for a CHILD_SA between the new addresses, and nothing may stand before that.
        if matches!(&self.state, State::Connected(sa) if sa.mode() == Mode::Transport) {
            return;
        }
        let known = self.sizing.ways.get(&path.link);
        if known.is_none_or(|known| (known.path, known.bounds) != (path, bounds)) {
            let way = Way { path, bounds, search: Search::new(bounds), told: None };
            self.sizing.ways.insert(path.link, way);
        }
        self.ask_sizes(now, rng);
    }

    /// An ICMP message, which anybody can send, says that the path of this socket carries packets of so many octets at most.
    pub fn size_hint(&mut self, now: Instant, link: u32, octets: usize, rng: &mut dyn CryptoRng) {
        if let Some(way) = self.sizing.ways.get_mut(&link) {
            way.search.hint(octets);
        } else {
            let octets = octets.max(UNASKED_LEAST);
            let size = PathSize { surely: octets, perhaps: octets };
            self.commands.push_back(Command::PathSize { link, size });
        }
        self.ask_sizes(now, rng);
    }

    /// Traffic leaves by the path that carries; `unanswered` though the gateway may be there.
    pub(super) fn size_in_use(&mut self, now: Instant, unanswered: bool) {
        let Some(way) = self.link.and_then(|link| self.sizing.ways.get_mut(&link)) else { return };
        if unanswered {
            way.search.suspect(now);
        } else {
            way.search.in_use(now);
        }
    }

    pub(super) fn sizes_answered(&mut self, now: Instant, answers: Vec<SizeAnswer>, rng: &mut dyn CryptoRng) {
        if answers.is_empty() {
            return;
        }
        for SizeAnswer { path, octets, carried } in answers {
            if let Some(way) = self.sizing.ways.get_mut(&path.link).filter(|way| way.path == path) {
                way.search.tested(now, octets, carried);
            }
        }
        self.ask_sizes(now, rng);
    }

    pub(super) fn sizing_poll(&self) -> Option<Instant> {
        let busy = self.is_on_the_move().then_some(self.link).flatten();
        let ways = self.sizing.ways.iter().filter(|(link, _)| Some(**link) != busy);
        ways.filter_map(|(_, way)| way.search.poll_timeout()).min()
    }

    pub(super) fn sizing_timeout(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        if self.sizing_poll().is_some_and(|at| at <= now) {
            self.ask_sizes(now, rng);
        }
    }

    /// Asks what is to be asked, and tells what is known. Searches on sockets that are not in use any more end.
    fn ask_sizes(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let mut ways = std::mem::take(&mut self.sizing.ways);
        let moving = self.is_on_the_move();
        ways.retain(|link, way| {
            let first = self.link == Some(*link);
            let sa: Option<&mut IkeSa> = match &mut self.state {
                State::Connected(sa) if first => Some(sa),
                State::Connected(_) => self.strands.beside_by(*link),
                State::Idle
                | State::AskingCredential
                | State::Racing(_)
                | State::Waiting { .. }
                | State::Offline
                | State::Closing(_)
                | State::Failed => None,
            };
            let Some(sa) = sa.filter(|sa| (first && moving) || sa.path() == way.path) else { return false };
            if !(first && moving)
                && let Some(octets) = way.search.poll(now)
            {
                sa.test_size(now, octets, rng);
            }
            self.transmits.extend(std::iter::from_fn(|| sa.poll_transmit()));
            let size = way.search.size();
            if way.told.replace(size) != Some(size) {
                self.commands.push_back(Command::PathSize { link: *link, size });
            }
            true
        });
        self.sizing.ways = ways;
    }
}
