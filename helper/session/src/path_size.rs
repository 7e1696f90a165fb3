//! What does a path carry? A search, without I/O, by questions that are answered or not (RFC 8899 for an encapsulation of ours).
//!
//! ```text
//!           carried
//! the most ---------> known until there is a doubt, or the path is another one
//!    | not               |  not carried any more
//!    v                   v
//! the usual minimum --> halving between what is carried and what is not --> known; the most is tried again later
//!    | not                                       ^
//!    v                                           |
//! the least that a path of its family carries ---+
//! ```
//!
//! At every moment there are two sizes: what the path *surely* carries, which connections that begin now are fitted to, and
//! what it *perhaps* carries, which nobody has to stay below before there is a doubt. So nothing waits for the search, and a
//! path that swallows large packets without a word (a black hole) harms only what is sent between the first loss and its
//! being noticed.

use std::collections::BTreeMap;
use std::time::Duration;

use ropewalk_ike::time::Instant;

/// So often in a row a size is not carried before that is believed: at 2 % loss three lost by chance are one in 100,000.
const TRIES: u32 = 3;
/// The same for the steps of the search: a mistake costs some octets until the next time.
const TRIES_OF_A_STEP: u32 = 2;
/// Nearer than this the search does not come: two or three steps more for less than one percent.
const NEAR: usize = 16;
/// A question that nobody answers is one that got lost on our side: longer than a request is repeated.
const UNASKED: Duration = Duration::from_secs(20);
/// A path that carries less than wanted is tried again after this (RFC 8899 section 5.1.1).
const RAISE: Duration = Duration::from_secs(600);
/// The same when an ICMP message said so, which anybody can send.
const RAISE_HINTED: Duration = Duration::from_secs(60);
/// What was carried a moment ago is not doubted.
const FRESH: Duration = Duration::from_secs(10);
/// While data flow, what was carried so long ago is asked again.
const STALE: Duration = Duration::from_secs(30);

/// Sizes of IP packets on a path, in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Every path of the family carries this.
    pub least: usize,
    /// What nearly every path carries, and IPv6 inside needs.
    pub usual: usize,
    /// More than this would be of no use, or does not leave the machine.
    pub most: usize,
}

/// What is known of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathSize {
    /// It carries packets of so many octets, as far as can be known.
    pub surely: usize,
    /// It is not known to carry no more than this.
    pub perhaps: usize,
}

/// The search on one path.
#[derive(Debug)]
pub struct Search {
    bounds: Bounds,
    /// The largest that was carried, and when that was seen last.
    proven: Option<usize>,
    proven_at: Option<Instant>,
    /// The smallest that was not.
    refuted: Option<usize>,
    /// The most is not simply assumed any more.
    doubted: bool,
    /// Sizes that were asked for in vain, and how often in a row.
    failures: BTreeMap<usize, u32>,
    /// What somebody said is the most.
    hint: Option<usize>,
    /// What is known is asked again.
    verify: bool,
    /// The most is tried again, now or then.
    raise: bool,
    raise_at: Option<Instant>,
    /// What is being asked, and when that is forgotten.
    asked: Option<(usize, Instant)>,
}

impl Search {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        let usual = bounds.usual.min(bounds.most);
        Self {
            bounds: Bounds { usual, least: bounds.least.min(usual), ..bounds },
            proven: None,
            proven_at: None,
            refuted: None,
            doubted: false,
            failures: BTreeMap::new(),
            hint: None,
            verify: false,
            raise: false,
            raise_at: None,
            asked: None,
        }
    }

    /// As far as is known.
    #[must_use]
    pub fn size(&self) -> PathSize {
        let Bounds { least, usual, most } = self.bounds;
        let in_vain = |size: usize| self.failures.contains_key(&size);
        let narrow = in_vain(usual) || self.refuted.is_some_and(|refuted| refuted <= usual);
        let assumed = if narrow { least } else { usual };
        let surely = self.proven.filter(|proven| !in_vain(*proven)).unwrap_or(assumed);
        PathSize { surely, perhaps: if self.doubted { surely } else { most } }
    }

    /// When [`Self::poll`] wants to be asked.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.asked {
            Some((_, until)) => Some(until),
            None if self.aim().is_some() => Some(Instant::ZERO),
            None => self.raise_at,
        }
    }

    /// The size to ask for now.
    pub fn poll(&mut self, now: Instant) -> Option<usize> {
        if self.asked.is_some_and(|(_, until)| now < until) {
            return None;
        }
        self.asked = None;
        if self.raise_at.take_if(|at| now >= *at).is_some() {
            self.raise = true;
        }
        let size = self.aim()?;
        self.asked = Some((size, now + UNASKED));
        Some(size)
    }

    /// Whether a packet of this size was carried.
    pub fn tested(&mut self, now: Instant, octets: usize, carried: bool) {
        self.asked.take_if(|(asked, _)| *asked == octets);
        if carried {
            self.carried(now, octets);
        } else {
            self.not_carried(octets);
        }
        if self.aim().is_none() {
            self.conclude(now);
        }
    }

    /// Something suggests that the path does not carry what it did, as traffic that is not answered by a gateway that is there.
    pub fn suspect(&mut self, now: Instant) {
        if self.proven_at.is_none_or(|at| now >= at + FRESH) {
            self.verify = true;
        }
    }

    /// Data flow.
    pub fn in_use(&mut self, now: Instant) {
        if self.proven_at.is_some_and(|at| now >= at + STALE) {
            self.verify = true;
        }
    }

    /// An ICMP message says that the path carries no more than this. It is believed down to what is usual, and asked about.
    pub fn hint(&mut self, octets: usize) {
        let size = self.size();
        if octets >= size.perhaps {
            return;
        }
        let octets = octets.max(self.bounds.usual);
        self.hint = Some(octets);
        self.doubted = true;
        self.refuted = Some(octets + 1);
        self.proven = self.proven.filter(|proven| *proven <= octets);
        self.failures.clear();
    }

    fn carried(&mut self, now: Instant, octets: usize) {
        self.proven_at = Some(now);
        self.failures.remove(&octets);
        self.proven = self.proven.max(Some(octets));
        self.refuted = self.refuted.filter(|refuted| *refuted > octets);
        self.verify = false;
        if octets >= self.bounds.most {
            self.doubted = false;
            self.raise = false;
        }
    }

    fn not_carried(&mut self, octets: usize) {
        self.doubted = true;
        let failures = self.failures.entry(octets).or_default();
        *failures += 1;
        let Bounds { usual, most, .. } = self.bounds;
        let known = self.proven == Some(octets);
        let important = known || octets == usual || (octets == most && !self.raise);
        if *failures < if important { TRIES } else { TRIES_OF_A_STEP } {
            return;
        }
        self.failures.remove(&octets);
        if std::mem::take(&mut self.raise) && !known {
            // As before.
            return;
        }
        self.verify = false;
        self.proven = self.proven.filter(|proven| *proven < octets);
        self.refuted = Some(self.refuted.map_or(octets, |refuted| refuted.min(octets)));
    }

    /// What to ask for next; nothing when enough is known.
    fn aim(&self) -> Option<usize> {
        let Bounds { least, usual, most } = self.bounds;
        if self.verify {
            return Some(self.proven.unwrap_or(usual));
        }
        if self.raise {
            return Some(most);
        }
        let refuted = match (self.proven, self.refuted) {
            (Some(proven), _) if proven >= most => return None,
            // The first loss of the most: what is usual is asked for in between.
            (None, None) if !self.failures.is_empty() => return Some(usual),
            (_, None) => return Some(most),
            (None, Some(refuted)) if refuted > usual => return Some(usual),
            (_, Some(refuted)) => refuted,
        };
        let carried = self.proven.unwrap_or(least);
        if let Some(hint) = self.hint.filter(|hint| (carried + 1..refuted).contains(hint)) {
            return Some(hint);
        }
        (refuted > carried + NEAR).then(|| usize::midpoint(carried, refuted))
    }

    fn conclude(&mut self, now: Instant) {
        self.failures.clear();
        let wait = if self.hint.take().is_some() { RAISE_HINTED } else { RAISE };
        let wanting = self.proven.is_none_or(|proven| proven < self.bounds.most);
        self.raise_at = wanting.then(|| now + wait);
        self.proven_at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: Bounds = Bounds { least: 576, usual: 1344, most: 1464 };

    /// Plays the path; the number of questions, and the sizes there were on the way.
    fn play(search: &mut Search, now: &mut Instant, carries: usize) -> (usize, Vec<PathSize>) {
        let (mut questions, mut sizes) = (0, vec![search.size()]);
        while let Some(size) = search.poll(*now) {
            questions += 1;
            assert!(questions < 60, "a search without end: {search:?}");
            *now = *now + Duration::from_millis(300);
            search.tested(*now, size, size <= carries);
            sizes.push(search.size());
        }
        (questions, sizes)
    }

    fn known(octets: usize) -> PathSize {
        PathSize { surely: octets, perhaps: octets }
    }

    #[test]
    fn a_path_that_carries_the_most_is_known_after_one_question() {
        let (mut search, mut now) = (Search::new(BOUNDS), Instant::ZERO);
        assert_eq!(search.size(), PathSize { surely: 1344, perhaps: 1464 }, "nothing waits for the answer");
        let (questions, _) = play(&mut search, &mut now, 1500);
        assert_eq!((questions, search.size()), (1, known(1464)));
        assert_eq!(search.poll_timeout(), None, "nothing is asked without a reason");
    }

    #[test]
    fn after_the_first_loss_nothing_larger_than_usual_is_sent() {
        let mut search = Search::new(BOUNDS);
        assert_eq!(search.poll(Instant::ZERO), Some(1464));
        search.tested(Instant::ZERO, 1464, false);
        assert_eq!(search.size(), known(1344));
        assert_eq!(search.poll(Instant::ZERO), Some(1344), "and that it is carried is asked at once");
    }

    #[test]
    fn one_lost_question_does_not_make_a_path_narrow() {
        let (mut search, mut now) = (Search::new(BOUNDS), Instant::ZERO);
        for _ in 0..2 {
            let size = search.poll(now).unwrap();
            search.tested(now, size, false);
        }
        play(&mut search, &mut now, 1500);
        assert_eq!(search.size(), known(1464));
    }

    #[test]
    fn what_is_known_is_doubted_by_a_suspicion_and_while_data_flow_and_raised_later() {
        let (mut search, mut now) = (Search::new(BOUNDS), Instant::ZERO);
        play(&mut search, &mut now, 1500);
        search.suspect(now);
        assert_eq!(search.poll(now), None, "just seen");
        now = now + FRESH;
        search.suspect(now);
        let (_, sizes) = play(&mut search, &mut now, 1400);
        assert_eq!(sizes[1], known(1344), "the first loss is enough for caution");
        let found = search.size();
        assert!((1384..=1400).contains(&found.surely) && found.surely == found.perhaps, "{found:?}");
        search.in_use(now);
        assert_eq!(search.poll(now), None);
        now = now + STALE;
        search.in_use(now);
        assert_eq!(play(&mut search, &mut now, 1400).0, 1);
        // The path carries all again.
        now = search.poll_timeout().unwrap().max(now);
        let (questions, sizes) = play(&mut search, &mut now, 1500);
        assert_eq!((questions, search.size()), (1, known(1464)));
        assert!(sizes.iter().all(|size| size.perhaps <= 1400 || *size == known(1464)), "{sizes:?}");
    }

    #[test]
    fn a_try_to_raise_that_fails_changes_nothing() {
        let (mut search, mut now) = (Search::new(BOUNDS), Instant::ZERO);
        play(&mut search, &mut now, 1400);
        let found = search.size();
        for _ in 0..3 {
            now = search.poll_timeout().unwrap();
            let (questions, sizes) = play(&mut search, &mut now, 1400);
            assert_eq!(questions, 2);
            assert!(sizes.iter().all(|size| *size == found), "{sizes:?}");
        }
    }

    #[test]
    fn a_hint_is_followed_at_once_and_a_false_one_not_for_long() {
        let (mut search, mut now) = (Search::new(BOUNDS), Instant::ZERO);
        play(&mut search, &mut now, 1500);
        search.hint(1400);
        assert_eq!(search.size(), known(1344));
        assert_eq!(play(&mut search, &mut now, 1400).0, 2, "the usual size, and the one that was named");
        assert_eq!(search.size(), known(1400));
        let again = search.poll_timeout().unwrap();
        assert!(again <= now + RAISE_HINTED);
        now = again;
        play(&mut search, &mut now, 1500);
        assert_eq!(search.size(), known(1464));
        search.hint(68);
        assert_eq!(search.size(), known(1344), "nobody outside makes it less than usual");
        search.hint(1500);
        assert_eq!(search.size(), known(1344));
    }

    #[test]
    fn a_question_that_was_never_sent_is_asked_again() {
        let mut search = Search::new(BOUNDS);
        assert_eq!(search.poll(Instant::ZERO), Some(1464));
        assert_eq!(search.poll(Instant::ZERO), None);
        let again = search.poll_timeout().unwrap();
        assert_eq!(search.poll(again), Some(1464));
    }

    proptest! {
        #[test]
        fn every_path_is_measured_to_a_few_octets(carries in 576usize..1600) {
            let (mut search, mut now) = (Search::new(BOUNDS), Instant::ZERO);
            let (questions, _) = play(&mut search, &mut now, carries);
            let PathSize { surely, perhaps } = search.size();
            prop_assert_eq!(surely, perhaps);
            prop_assert!(surely <= carries && carries.min(1464) <= surely + NEAR, "{carries}: {surely}");
            prop_assert!(questions <= 20, "{questions}");
        }

        /// Whatever is lost by chance: nothing is called carried that the path does not carry, and the search ends.
        #[test]
        fn loss_makes_a_path_narrower_at_most(carries in 1344usize..1600, lost in proptest::collection::vec(any::<bool>(), 40)) {
            let (mut search, mut now) = (Search::new(BOUNDS), Instant::ZERO);
            let mut lost = lost.into_iter();
            for _ in 0..60 {
                let Some(size) = search.poll(now) else { break };
                now = now + Duration::from_millis(300);
                search.tested(now, size, size <= carries && !lost.next().unwrap_or(false));
                prop_assert!(search.size().surely <= carries);
            }
            prop_assert_eq!(search.poll(now), None);
        }
    }
}
