//! From one SA of the group to the next (section 3.3.3): a new one is heard at once, spoken after ROLL1, and its predecessor
//! is heard until ROLL2. So whoever switches early is understood, and so is whoever switches late.

use crate::time::Instant;

use super::group_sa::{GroupSa, Refusal};

/// No more than this many at once: a gateway that keeps to its own times has two or three.
const MOST: usize = 8;

/// What the owner has to do, in order.
#[derive(Clone, Debug)]
pub enum Action {
    /// Take packets with this SA, without a replay window: many senders count for themselves.
    Install(Box<GroupSa>),
    /// Send with the SA of this SPI from now on.
    SendWith(u32),
    /// Forget the SA of this SPI.
    Remove(u32),
}

#[derive(Clone, Debug)]
struct Member {
    sa: GroupSa,
    expires: Instant,
    /// When to send with it; `None` once that was said.
    activates: Option<Instant>,
    /// When a successor takes it out of hearing.
    retires: Option<Instant>,
}

/// The group's SAs, the youngest last.
#[derive(Debug, Default)]
pub struct Rollover {
    members: Vec<Member>,
    outbound: Option<u32>,
}

impl Rollover {
    /// The SPI that packets are sent with.
    #[must_use]
    pub fn outbound(&self) -> Option<u32> {
        self.outbound
    }

    /// The SPIs that packets are taken with.
    #[must_use]
    pub fn inbound(&self) -> Vec<u32> {
        self.members.iter().map(|member| member.sa.spi).collect()
    }

    /// The gateway hands out an SA. The same one again only sets its lifetime anew.
    ///
    /// # Errors
    /// [`Refusal::SpiInUse`] when another SA of the group has this SPI, [`Refusal::TooMany`] when there are enough.
    pub fn put(&mut self, now: Instant, sa: GroupSa) -> Result<Vec<Action>, Refusal> {
        if let Some(known) = self.members.iter_mut().find(|member| member.sa.spi == sa.spi) {
            if !known.sa.is_same(&sa) {
                return Err(Refusal::SpiInUse { spi: sa.spi });
            }
            known.expires = now + sa.lifetime;
            return Ok(Vec::new());
        }
        if self.members.len() >= MOST {
            return Err(Refusal::TooMany);
        }
        let first = self.members.is_empty();
        for older in &mut self.members {
            let retires = now + sa.rollover2;
            older.retires = Some(older.retires.map_or(retires, |at| at.min(retires)));
        }
        // Without a predecessor the rollover times mean nothing.
        let activates = if first { now } else { now + sa.rollover1 };
        let mut actions = vec![Action::Install(Box::new(sa.clone()))];
        let expires = now + sa.lifetime;
        self.members.push(Member { sa, expires, activates: Some(activates), retires: None });
        actions.extend(self.handle_timeout(now));
        Ok(actions)
    }

    /// The gateway deletes an SA.
    pub fn delete(&mut self, now: Instant, spi: u32) -> Vec<Action> {
        if let Some(member) = self.members.iter_mut().find(|member| member.sa.spi == spi) {
            member.expires = now;
        }
        self.handle_timeout(now)
    }

    /// The IKE_SA that brought them is gone, and with it all of them.
    pub fn clear(&mut self) -> Vec<Action> {
        self.outbound = None;
        self.members.drain(..).map(|member| Action::Remove(member.sa.spi)).collect()
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let of = |member: &Member| [Some(member.expires), member.activates, member.retires];
        self.members.iter().flat_map(of).flatten().min()
    }

    /// Acts on the clock.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Action> {
        let over = |member: &Member| now >= member.expires || member.retires.is_some_and(|at| now >= at);
        let mut actions = Vec::new();
        let outbound_is_over =
            self.members.iter().any(|member| Some(member.sa.spi) == self.outbound && over(member));
        // The youngest that is due; with the one in use gone, the oldest that is left takes its place before its time.
        let due = |member: &&Member| !over(member) && member.activates.is_some_and(|at| now >= at);
        let left = |member: &&Member| !over(member);
        let next = self.members.iter().rev().find(due).map(|member| member.sa.spi);
        let next = next.or_else(|| {
            outbound_is_over.then(|| self.members.iter().find(left).map(|member| member.sa.spi)).flatten()
        });
        if let Some(spi) = next {
            self.outbound = Some(spi);
            actions.push(Action::SendWith(spi));
            // It and those before it have had their turn.
            let turn = self.members.iter().position(|member| member.sa.spi == spi).map_or(0, |at| at + 1);
            self.members.iter_mut().take(turn).for_each(|member| member.activates = None);
        } else if outbound_is_over {
            self.outbound = None;
        }
        self.members.retain(|member| {
            let gone = over(member);
            if gone {
                actions.push(Action::Remove(member.sa.spi));
            }
            !gone
        });
        actions
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::group_sa::GroupPolicy;
    use super::super::group_sa::tests::offer;
    use super::*;

    fn sa(spi: u32) -> GroupSa {
        GroupSa::accept(&offer(spi), GroupPolicy::default()).unwrap()
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_start(Duration::from_secs(seconds))
    }

    fn shown(actions: &[Action]) -> Vec<String> {
        let show = |action: &Action| match action {
            Action::Install(sa) => format!("install {}", sa.spi),
            Action::SendWith(spi) => format!("send {spi}"),
            Action::Remove(spi) => format!("remove {spi}"),
        };
        actions.iter().map(show).collect()
    }

    #[test]
    fn the_first_one_is_used_at_once() {
        let mut rollover = Rollover::default();
        assert_eq!(shown(&rollover.put(at(0), sa(300)).unwrap()), ["install 300", "send 300"]);
        assert_eq!(rollover.outbound(), Some(300));
    }

    #[test]
    fn a_successor_is_heard_at_once_spoken_after_the_first_time_alone_after_the_second() {
        let mut rollover = Rollover::default();
        rollover.put(at(0), sa(300)).unwrap();
        assert_eq!(shown(&rollover.put(at(1000), sa(301)).unwrap()), ["install 301"]);
        assert_eq!((rollover.outbound(), rollover.inbound()), (Some(300), vec![300, 301]));
        assert_eq!(rollover.poll_timeout(), Some(at(1060)));
        assert!(rollover.handle_timeout(at(1059)).is_empty());
        assert_eq!(shown(&rollover.handle_timeout(at(1060))), ["send 301"]);
        assert_eq!(rollover.inbound(), [300, 301]);
        assert_eq!(rollover.poll_timeout(), Some(at(1120)));
        assert_eq!(shown(&rollover.handle_timeout(at(1120))), ["remove 300"]);
        assert_eq!((rollover.outbound(), rollover.inbound()), (Some(301), vec![301]));
    }

    #[test]
    fn lifetime_ends_both_directions() {
        let mut rollover = Rollover::default();
        rollover.put(at(0), sa(300)).unwrap();
        assert_eq!(shown(&rollover.handle_timeout(at(3600))), ["remove 300"]);
        assert_eq!((rollover.outbound(), rollover.poll_timeout()), (None, None));
    }

    #[test]
    fn a_successor_takes_over_early_when_the_one_in_use_ends() {
        let mut rollover = Rollover::default();
        rollover.put(at(0), sa(300)).unwrap();
        rollover.put(at(3590), sa(301)).unwrap();
        assert_eq!(shown(&rollover.handle_timeout(at(3600))), ["send 301", "remove 300"]);
        assert!(rollover.handle_timeout(at(3650)).is_empty(), "its own time says nothing new");
    }

    #[test]
    fn the_same_one_again_only_lives_longer() {
        let mut rollover = Rollover::default();
        rollover.put(at(0), sa(300)).unwrap();
        assert!(rollover.put(at(100), sa(300)).unwrap().is_empty());
        assert_eq!(rollover.poll_timeout(), Some(at(3700)));
        let mut other = offer(300);
        other.nonce = vec![9; 16];
        let other = GroupSa::accept(&other, GroupPolicy::default()).unwrap();
        assert_eq!(rollover.put(at(200), other).unwrap_err(), Refusal::SpiInUse { spi: 300 });
    }

    #[test]
    fn a_third_one_before_the_second_spoke_keeps_the_order() {
        let mut rollover = Rollover::default();
        rollover.put(at(0), sa(300)).unwrap();
        rollover.put(at(10), sa(301)).unwrap();
        rollover.put(at(20), sa(302)).unwrap();
        assert_eq!(shown(&rollover.handle_timeout(at(70))), ["send 301"]);
        assert_eq!(shown(&rollover.handle_timeout(at(80))), ["send 302"]);
        assert_eq!(shown(&rollover.handle_timeout(at(130))), ["remove 300"]);
        assert_eq!(shown(&rollover.handle_timeout(at(140))), ["remove 301"]);
    }

    #[test]
    fn there_are_never_more_than_so_many_and_those_that_are_in_use_stay() {
        let mut rollover = Rollover::default();
        for spi in 0..8 {
            rollover.put(at(0), sa(300 + spi)).unwrap();
        }
        assert_eq!(rollover.put(at(1), sa(400)).unwrap_err(), Refusal::TooMany);
        assert_eq!((rollover.outbound(), rollover.inbound().len()), (Some(300), 8));
        rollover.handle_timeout(at(120));
        assert!(rollover.put(at(121), sa(400)).is_ok(), "there is room again");
    }

    #[test]
    fn a_late_timer_skips_what_was_overtaken() {
        let mut rollover = Rollover::default();
        rollover.put(at(0), sa(300)).unwrap();
        rollover.put(at(10), sa(301)).unwrap();
        rollover.put(at(20), sa(302)).unwrap();
        assert_eq!(shown(&rollover.handle_timeout(at(500))), ["send 302", "remove 300", "remove 301"]);
    }

    #[test]
    fn a_deleted_one_is_gone_in_both_directions() {
        let mut rollover = Rollover::default();
        rollover.put(at(0), sa(300)).unwrap();
        rollover.put(at(10), sa(301)).unwrap();
        assert_eq!(shown(&rollover.delete(at(20), 300)), ["send 301", "remove 300"]);
        assert_eq!(shown(&rollover.clear()), ["remove 301"]);
        assert_eq!(rollover.outbound(), None);
    }
}
