//! Which of a client's paths it is sent to by (docs/switch-notify.md).
//!
//! The client says so. Until it has, the data tell: when the path in use has brought nothing for a while and another one
//! brings data, that other one is used. Once it has, nothing but its newest word counts, so that probes, copies and packets that
//! are late change nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ropewalk_ike::time::Instant;
use ropewalk_ike::wire::SwitchNotice;

use crate::up::Strand;

/// A path that has brought nothing for so long is not in use any more: longer than packets are late, shorter than people wait.
const SILENCE: Duration = Duration::from_millis(500);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// With what a client is sent to: CHILD_SAs by our SPIs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carriage {
    /// What carries all that no other rule sends elsewhere.
    pub main: u32,
    /// The name of that path, as of a share.
    pub main_name: u32,
    /// Flows are shared out among these by their weights; empty when all go by the main one.
    pub shares: Vec<Share>,
    /// Small and marked packets go by this one as well.
    pub copies: Option<u32>,
    /// Where paths have inner addresses of their own: which goes by which, with nothing shared out and nothing copied.
    pub by_address: Vec<(Vec<IpAddr>, u32)>,
}

/// One path among those that flows are shared out among.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The path's name, which stays when its SAs are rekeyed.
    pub name: u32,
    /// Its CHILD_SA.
    pub spi_in: u32,
    /// How much of the flows it takes, compared with the others.
    pub weight: u16,
}

/// What is known of a client's paths, by the numbers of the strands.
#[derive(Debug, Default)]
pub(crate) struct Steering {
    /// What the client last said of each.
    notices: BTreeMap<u32, SwitchNotice>,
    /// The newest word on which one is the main one.
    said: Option<(u32, u32)>,
    /// Which one data made the main one, while the client has said nothing.
    followed: Option<u32>,
    /// What each had received, by our SPIs.
    octets: BTreeMap<u32, u64>,
    /// When each last brought data.
    heard: BTreeMap<u32, Instant>,
    /// When the data are to be looked at next.
    next_look: Option<Instant>,
}

impl Steering {
    /// The client's word on the path of this strand; whether another path is the main one by it.
    pub(crate) fn note(&mut self, id: u32, notice: SwitchNotice) -> bool {
        self.notices.insert(id, notice);
        if !notice.main || self.said.is_some_and(|(newest, _)| !notice.is_newer_than(newest)) {
            return false;
        }
        self.said = Some((notice.counter, id));
        true
    }

    /// A CHILD_SA of this strand has received so much so far.
    pub(crate) fn note_received(&mut self, now: Instant, id: u32, spi_in: u32, received: u64) {
        let before = self.octets.insert(spi_in, received).unwrap_or(0);
        if received > before {
            self.heard.insert(id, now);
        }
    }

    /// A CHILD_SA is gone.
    pub(crate) fn forget_child(&mut self, spi_in: u32) {
        self.octets.remove(&spi_in);
    }

    /// A strand is gone.
    pub(crate) fn forget(&mut self, id: u32) {
        self.notices.remove(&id);
        self.heard.remove(&id);
        self.followed = self.followed.filter(|followed| *followed != id);
    }

    /// The strand that carries: the one that the client named last; else the one with its newest word; else where the data
    /// come from; else the first. One without a CHILD_SA cannot.
    pub(crate) fn main(&self, strands: &[Strand]) -> Option<u32> {
        let usable: Vec<u32> =
            strands.iter().filter(|strand| strand.sa.carrying().is_some()).map(|strand| strand.id).collect();
        let usable = |id: &u32| usable.contains(id);
        if let Some((newest, id)) = self.said {
            if usable(&id) {
                return Some(id);
            }
            let age = |notice: &SwitchNotice| newest.wrapping_sub(notice.counter);
            let others = self.notices.iter().filter(|(id, _)| usable(id));
            // A path that was never the main one can have a word newer than the newest of those that were.
            let ages = others.map(|(id, notice)| (age(notice).cast_signed(), *id));
            if let Some((_, id)) = ages.min() {
                return Some(id);
            }
        }
        let first = strands.iter().map(|strand| strand.id).find(usable);
        self.followed.filter(usable).or(first)
    }

    /// With which CHILD_SAs the client is sent to; `None` without any.
    pub(crate) fn carriage(&self, strands: &[Strand], first: &[IpAddr]) -> Option<Carriage> {
        let main_id = self.main(strands)?;
        let carrying = |id: u32| strands.iter().find(|strand| strand.id == id)?.sa.carrying();
        let main = carrying(main_id)?;
        if strands.iter().any(|strand| !strand.own.is_empty()) {
            let of = |strand: &Strand| {
                let addresses = if strand.own.is_empty() { first.to_vec() } else { strand.own.clone() };
                Some((addresses, strand.sa.carrying()?))
            };
            let by_address = strands.iter().filter_map(of).collect();
            return Some(Carriage { main, main_name: main_id, shares: Vec::new(), copies: None, by_address });
        }
        let said = self.notices.iter().filter_map(|(id, notice)| Some((*id, carrying(*id)?, *notice)));
        let shares = said.clone().filter(|(_, _, notice)| notice.weight > 0);
        let share =
            |(name, spi_in, notice): (u32, u32, SwitchNotice)| Share { name, spi_in, weight: notice.weight };
        let shares = shares.map(share).collect();
        let copies = said.clone().find(|(id, _, notice)| notice.copies && *id != main_id);
        let copies = copies.map(|(_, spi_in, _)| spi_in);
        Some(Carriage { main, main_name: main_id, shares, copies, by_address: Vec::new() })
    }

    /// When [`Self::look`] wants to be called: while there is something to choose and the client has not chosen.
    pub(crate) fn poll_timeout(&self, strands: &[Strand]) -> Option<Instant> {
        let choice = strands.iter().filter(|strand| strand.sa.carrying().is_some()).count() > 1;
        if choice && self.said.is_none() { Some(self.next_look.unwrap_or(Instant::ZERO)) } else { None }
    }

    /// Looks where data come from.
    pub(crate) fn look(&mut self, now: Instant, strands: &[Strand]) {
        if self.next_look.is_some_and(|at| now < at) {
            return;
        }
        self.next_look = Some(now + LOOK);
        if self.said.is_some() {
            return;
        }
        let Some(main) = self.main(strands) else { return };
        let quiet = |id: u32| self.heard.get(&id).is_none_or(|at| now.saturating_since(*at) >= SILENCE);
        if !quiet(main) {
            return;
        }
        let others = strands.iter().filter(|strand| strand.sa.carrying().is_some() && !quiet(strand.id));
        let newest = others.max_by_key(|strand| self.heard.get(&strand.id).copied());
        if let Some(newest) = newest {
            self.followed = Some(newest.id);
        }
    }
}
