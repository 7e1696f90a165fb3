//! KEEP_OLD_IKE_SA: two ends with several IKE_SAs of one authentication, each with its own life.

use super::rekey::{End, Letter, other};
use super::*;
use crate::exchange::sa::CloseReason;
use crate::wire::{NotifyType, SwitchNotice};

const BOTH: [Role; 2] = [Role::Initiator, Role::Responder];
const SOON: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_secs(3600);

/// Two ends, each with all its IKE_SAs in the order in which they came.
pub(super) struct Sides {
    pub(super) now: Instant,
    pub(super) rng: ChaCha20Rng,
    pub(super) client: Vec<End>,
    pub(super) gateway: Vec<End>,
}

impl Sides {
    pub(super) fn new(seed: u64, lifetimes: Lifetimes) -> Self {
        let now = Instant::from_start(Duration::from_secs(1000));
        let end = |role| {
            let mut sa = one_end(now, role, "aes256gcm16");
            sa.renewal = crate::exchange::renewal::Renewal::new(
                now,
                sa.own_spi(),
                lifetimes,
                sa.renewal.ike_proposals.clone(),
                sa.children.first(),
            );
            vec![End::new(sa)]
        };
        let (client, gateway) = (end(Role::Initiator), end(Role::Responder));
        Self { now, rng: ChaCha20Rng::seed_from_u64(seed), client, gateway }
    }

    pub(super) fn plain(seed: u64) -> Self {
        Self::new(seed, Lifetimes::default())
    }

    pub(super) fn side(&mut self, role: Role) -> &mut Vec<End> {
        match role {
            Role::Initiator => &mut self.client,
            Role::Responder => &mut self.gateway,
        }
    }

    /// One IKE_SA of one end, with the clock and randomness.
    pub(super) fn with<T>(
        &mut self,
        role: Role,
        at: usize,
        act: impl FnOnce(&mut IkeSa, Instant, &mut ChaCha20Rng) -> T,
    ) -> T {
        let Self { now, rng, client, gateway } = self;
        let side = if role == Role::Initiator { client } else { gateway };
        act(&mut side[at].sa, *now, rng)
    }

    pub(super) fn add(&mut self, role: Role, at: usize) {
        assert!(self.with(role, at, |sa, now, rng| sa.add_ike_sa(now, rng)));
    }

    pub(super) fn sent_by(&mut self, role: Role) -> Vec<Letter> {
        let side = self.side(role);
        let mut letters = Vec::new();
        for _ in 0..2 {
            let mut kept = Vec::new();
            for end in side.iter_mut() {
                end.drain();
                kept.append(&mut end.kept);
                letters.extend(end.outbox.drain(..).map(|bytes| Letter { to: other(role), bytes }));
            }
            side.append(&mut kept);
        }
        letters
    }

    pub(super) fn deliver(&mut self, letter: &Letter) {
        let header = Header::parse(&letter.bytes).unwrap();
        let spis = IkeSpis { initiator: header.spi_i, responder: header.spi_r };
        let Self { now, rng, client, gateway } = self;
        let side = if letter.to == Role::Initiator { client } else { gateway };
        let sas = side.iter_mut().flat_map(|end| std::iter::once(&mut end.sa).chain(&mut end.fading));
        if let Some(sa) = sas.into_iter().find(|sa| sa.spis() == spis) {
            let _ = sa.handle_datagram(*now, path(letter.to), &letter.bytes, rng);
        }
    }

    pub(super) fn settle(&mut self) {
        for _ in 0..60 {
            let mut letters = self.sent_by(Role::Initiator);
            letters.extend(self.sent_by(Role::Responder));
            if letters.is_empty() {
                return;
            }
            letters.iter().for_each(|letter| self.deliver(letter));
        }
        panic!("the two ends do not come to rest");
    }

    pub(super) fn live(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now = self.now + Duration::from_millis(250);
            let Self { now, rng, client, gateway } = self;
            for end in client.iter_mut().chain(gateway) {
                for sa in std::iter::once(&mut end.sa).chain(&mut end.fading) {
                    sa.handle_timeout(*now, rng);
                }
            }
            self.settle();
        }
    }

    /// A CHILD_SA on the IKE_SA `at` of this end.
    pub(super) fn create_child(&mut self, role: Role, at: usize) {
        self.with(role, at, |sa, now, rng| sa.create_child_alike(now, rng));
        self.settle();
    }

    /// Two IKE_SAs, each with a CHILD_SA, made by the client.
    pub(super) fn two(seed: u64) -> Self {
        let mut sides = Self::plain(seed);
        sides.add(Role::Initiator, 0);
        sides.settle();
        sides.create_child(Role::Initiator, 1);
        sides.check(&[1, 1]);
        sides
    }

    /// So many IKE_SAs, the same at both ends, with so many CHILD_SAs each that fit together; nothing was lost or ended.
    pub(super) fn check(&mut self, children: &[usize]) {
        for role in BOTH {
            let side = self.side(role);
            assert_eq!(
                side.iter().map(|end| end.sa.children().len()).collect::<Vec<_>>(),
                children,
                "{role:?}"
            );
            for end in side {
                assert_eq!((end.closed, end.fading.len()), (None, 0), "{role:?}");
                assert_eq!(end.receiving.len(), end.sa.children().len(), "{role:?}");
            }
        }
        for (client, gateway) in self.client.iter().zip(&self.gateway) {
            assert_eq!(client.sa.spis(), gateway.sa.spis());
            for child in client.sa.children() {
                let peer = &gateway.receiving[&child.spi_out];
                assert_eq!((peer.spi_out, &peer.keys_in.encr), (child.spi_in, &child.keys_out.encr));
            }
        }
        let mut spis: Vec<IkeSpis> = self.client.iter().map(|end| end.sa.spis()).collect();
        spis.dedup();
        assert_eq!(spis.len(), children.len());
    }
}

#[test]
fn either_end_adds_an_ike_sa_and_the_old_one_keeps_its_children() {
    for role in BOTH {
        let mut sides = Sides::plain(1);
        let (spis, sending) = (sides.client[0].sa.spis(), sides.client[0].sending);
        sides.add(role, 0);
        sides.settle();
        sides.check(&[1, 0]);
        assert_eq!(sides.client[0].sa.spis(), spis);
        assert_eq!(sides.client[0].sending, sending);
        for side in BOTH {
            let side = sides.side(side);
            assert_eq!((side[0].rekeyed, side[0].refused.len()), (0, 0));
            assert!(side.iter().all(|end| end.sa.features().keep_old == Some(true)));
        }
    }
}

#[test]
fn the_new_ike_sa_inherits_what_is_known_of_the_peer_and_begins_to_count_anew() {
    let mut sides = Sides::plain(2);
    sides.add(Role::Initiator, 0);
    sides.settle();
    for role in BOTH {
        let side = sides.side(role);
        let (old, new) = (&side[0].sa, &side[1].sa);
        assert_eq!(new.peer_id(), old.peer_id());
        assert_eq!(new.features(), old.features());
        assert!(new.features().mobike && new.features().fragmentation);
        assert_eq!(new.path(), old.path());
        assert_eq!(new.can_move(), role == Role::Initiator);
        assert_ne!(*new.sk_d, *old.sk_d);
    }
    for role in BOTH {
        sides.with(role, 1, |sa, now, rng| sa.check_liveness(now, rng));
        let first = sides.sent_by(role).remove(0);
        assert_eq!(Header::parse(&first.bytes).unwrap().message_id, 0);
    }
}

#[test]
fn children_are_made_on_either_ike_sa_by_either_end_and_stay_there() {
    for adds in BOTH {
        for asks in BOTH {
            let mut sides = Sides::plain(3);
            sides.add(adds, 0);
            sides.settle();
            sides.create_child(asks, 1);
            sides.check(&[1, 1]);
            let first = sides.client[0].sa.children()[0].clone();
            let second = sides.client[1].sa.children()[0].clone();
            assert_eq!((&first.ts_local, &first.ts_remote), (&second.ts_local, &second.ts_remote));
            assert_ne!(first.spi_in, second.spi_in);
        }
    }
}

#[test]
fn each_ike_sa_renews_itself_and_its_children_alone() {
    for (role, at) in [(Role::Initiator, 0), (Role::Initiator, 1), (Role::Responder, 0), (Role::Responder, 1)]
    {
        let mut sides = Sides::two(4);
        let before: Vec<_> = sides.client.iter().map(|end| (end.sa.spis(), end.sending)).collect();
        sides.with(role, at, |sa, now, rng| sa.rekey_ike(now, rng));
        sides.settle();
        let spi_in = sides.side(role)[at].sa.carrying().unwrap();
        sides.with(role, at, |sa, now, rng| sa.rekey_child(now, spi_in, rng));
        sides.live(SOON);
        sides.check(&[1, 1]);
        for (now, end) in sides.client.iter().enumerate() {
            assert_eq!((end.sa.spis(), end.sending) == before[now], now != at);
        }
        assert_eq!((sides.client[at].rekeyed, sides.client[1 - at].rekeyed), (1, 0));
    }
}

#[test]
fn deleting_one_leaves_the_others_and_it_cannot_be_revived() {
    for (role, at) in [(Role::Initiator, 0), (Role::Initiator, 1), (Role::Responder, 0), (Role::Responder, 1)]
    {
        let mut sides = Sides::two(5);
        // What the other end had written before it knew of the end.
        let peer = other(role);
        sides.with(peer, at, |sa, now, rng| sa.check_liveness(now, rng));
        let late = sides.sent_by(peer);
        sides.with(role, at, |sa, now, rng| sa.close(now, rng));
        sides.settle();
        assert_eq!(sides.side(role)[at].closed, Some(CloseReason::Deleted));
        assert_eq!(sides.side(peer)[at].closed, Some(CloseReason::DeletedByPeer));
        late.iter().for_each(|letter| sides.deliver(letter));
        assert!(!sides.with(role, at, |sa, now, rng| sa.add_ike_sa(now, rng)));
        sides.with(role, at, |sa, now, rng| sa.create_child_alike(now, rng));
        sides.live(SOON);
        for side in BOTH {
            let side = sides.side(side);
            assert!(side[at].sa.is_closed() && side[at].receiving.is_empty());
            assert_eq!((side[1 - at].closed, side[1 - at].receiving.len()), (None, 1));
            assert_eq!(side.len(), 2);
        }
        sides.add(role, 1 - at);
        sides.settle();
        assert_eq!((sides.client.len(), sides.gateway.len()), (3, 3));
    }
}

#[test]
fn both_ends_ask_at_once_and_both_results_are_kept() {
    for seed in 0..20 {
        for first in BOTH {
            let mut sides = Sides::plain(seed);
            sides.add(Role::Initiator, 0);
            sides.add(Role::Responder, 0);
            let mut requests = sides.sent_by(first);
            requests.extend(sides.sent_by(other(first)));
            requests.iter().for_each(|letter| sides.deliver(letter));
            sides.settle();
            // The two came in another order at each end.
            sides.gateway.sort_by_key(|end| end.sa.spis().initiator);
            sides.client.sort_by_key(|end| end.sa.spis().initiator);
            let children: Vec<usize> = sides.client.iter().map(|end| end.sa.children().len()).collect();
            assert_eq!(children.iter().sum::<usize>(), 1);
            sides.check(&children);
            assert_eq!(children.len(), 3);
        }
    }
}

#[test]
fn an_ordinary_rekey_by_the_other_end_at_the_same_moment_counts_as_well() {
    for seed in 0..20 {
        for adds in BOTH {
            let mut sides = Sides::plain(seed);
            sides.add(adds, 0);
            sides.with(other(adds), 0, |sa, now, rng| sa.rekey_ike(now, rng));
            let mut requests = sides.sent_by(adds);
            requests.extend(sides.sent_by(other(adds)));
            requests.iter().for_each(|letter| sides.deliver(letter));
            sides.live(SOON);
            sides.check(&[1, 0]);
            assert_eq!((sides.client[0].rekeyed, sides.gateway[0].rekeyed), (1, 1));
        }
    }
}

#[test]
fn what_is_under_way_on_the_old_one_is_no_obstacle() {
    for role in BOTH {
        let mut sides = Sides::plain(6);
        let spi_in = sides.side(other(role))[0].sa.carrying().unwrap();
        sides.with(other(role), 0, |sa, now, rng| sa.rekey_child(now, spi_in, rng));
        let busy = sides.sent_by(other(role));
        sides.add(role, 0);
        sides.sent_by(role).iter().for_each(|letter| sides.deliver(letter));
        sides.sent_by(other(role)).iter().for_each(|letter| sides.deliver(letter));
        assert!(sides.side(role)[0].refused.is_empty());
        busy.iter().for_each(|letter| sides.deliver(letter));
        sides.live(SOON);
        sides.check(&[1, 0]);
    }
}

#[test]
fn a_lost_request_or_answer_is_repeated_and_makes_one_ike_sa() {
    for role in BOTH {
        for lose_answer in [false, true] {
            let mut sides = Sides::plain(7);
            sides.add(role, 0);
            let request = sides.sent_by(role).remove(0);
            if lose_answer {
                sides.deliver(&request);
                assert_eq!(sides.sent_by(other(role)).len(), 1);
            }
            sides.live(SOON);
            sides.check(&[1, 0]);
        }
    }
}

/// A gateway without the extension rekeys: the new one has the CHILD_SA, the old one goes, and nothing more is asked.
#[test]
fn a_peer_without_the_extension_makes_an_ordinary_rekey_of_it() {
    for role in BOTH {
        let mut sides = Sides::plain(8);
        sides.with(other(role), 0, |sa, _, _| sa.keep_old = crate::exchange::keep_old::KeepOld::new(None));
        let old = sides.client[0].sa.spis();
        let sending = sides.client[0].sending;
        sides.add(role, 0);
        sides.settle();
        sides.check(&[1]);
        assert_ne!(sides.client[0].sa.spis(), old);
        assert_eq!(sides.client[0].sending, sending, "the CHILD_SA is the same");
        assert_eq!((sides.client[0].rekeyed, sides.gateway[0].rekeyed), (1, 1));
        assert_eq!(sides.side(role)[0].sa.features().keep_old, Some(false));
        assert!(!sides.with(role, 0, |sa, now, rng| sa.add_ike_sa(now, rng)), "asked again in vain");
    }
}

#[test]
fn who_does_not_speak_it_does_not_ask() {
    let mut sides = Sides::plain(9);
    sides.with(Role::Initiator, 0, |sa, _, _| sa.keep_old = crate::exchange::keep_old::KeepOld::new(None));
    assert!(!sides.with(Role::Initiator, 0, |sa, now, rng| sa.add_ike_sa(now, rng)));
    sides.with(Role::Initiator, 0, |sa, now, rng| sa.announce_switch(now, SwitchNotice::main(1), rng));
    assert!(sides.sent_by(Role::Initiator).is_empty());
}

#[test]
fn a_refusal_leaves_the_old_one_as_it_was() {
    let mut sides = Sides::plain(10);
    sides.with(Role::Responder, 0, |sa, _, _| sa.set_room(false));
    sides.add(Role::Initiator, 0);
    sides.settle();
    sides.check(&[1]);
    let refused = std::mem::take(&mut sides.client[0].refused);
    assert!(matches!(refused.as_slice(), [SaEvent::KeepRefused(NotifyType::NoAdditionalSas)]), "{refused:?}");

    // The gateway is about to delete the IKE_SA.
    let mut sides = Sides::plain(11);
    sides.with(Role::Responder, 0, |sa, now, rng| sa.close(now, rng));
    let delete = sides.sent_by(Role::Responder);
    sides.add(Role::Initiator, 0);
    sides.sent_by(Role::Initiator).iter().for_each(|letter| sides.deliver(letter));
    sides.sent_by(Role::Responder).iter().for_each(|letter| sides.deliver(letter));
    sides.client[0].drain();
    assert_eq!(sides.client[0].receiving.len(), 1);
    let refused = std::mem::take(&mut sides.client[0].refused);
    assert!(
        matches!(refused.as_slice(), [SaEvent::KeepRefused(NotifyType::TemporaryFailure)]),
        "{refused:?}"
    );
    delete.iter().for_each(|letter| sides.deliver(letter));
    sides.settle();
    assert_eq!(sides.client[0].closed, Some(CloseReason::DeletedByPeer));

    // After a refusal for now it may be asked again.
    let mut sides = Sides::plain(12);
    sides.with(Role::Responder, 0, |sa, _, _| sa.set_room(false));
    sides.add(Role::Initiator, 0);
    sides.settle();
    sides.with(Role::Responder, 0, |sa, _, _| sa.set_room(true));
    sides.add(Role::Initiator, 0);
    sides.settle();
    sides.check(&[1, 0]);
}

#[test]
fn the_end_of_an_ike_sa_ends_what_was_asked_for_on_it_and_says_so() {
    let mut sides = Sides::plain(13);
    sides.add(Role::Initiator, 0);
    let request = sides.sent_by(Role::Initiator);
    sides.with(Role::Responder, 0, |sa, now, rng| sa.close(now, rng));
    sides.sent_by(Role::Responder).iter().for_each(|letter| sides.deliver(letter));
    request.iter().for_each(|letter| sides.deliver(letter));
    sides.settle();
    let refused = std::mem::take(&mut sides.client[0].refused);
    assert!(
        matches!(refused.as_slice(), [SaEvent::KeepRefused(NotifyType::TemporaryFailure)]),
        "{refused:?}"
    );
    assert_eq!((sides.client.len(), sides.gateway.len()), (1, 1));
    assert_eq!(sides.client[0].closed, Some(CloseReason::DeletedByPeer));
}

#[test]
fn a_dead_peer_on_one_path_leaves_the_other() {
    let mut sides = Sides::two(14);
    // Nothing of the second IKE_SA arrives any more.
    let lost = sides.client[1].sa.spis();
    let until = sides.now + Duration::from_secs(120);
    while sides.now < until {
        sides.now = sides.now + Duration::from_millis(500);
        let Sides { now, rng, client, gateway } = &mut sides;
        client.iter_mut().chain(gateway).for_each(|end| end.sa.handle_timeout(*now, rng));
        for _ in 0..4 {
            let mut letters = sides.sent_by(Role::Initiator);
            letters.extend(sides.sent_by(Role::Responder));
            letters.retain(|letter| Header::parse(&letter.bytes).unwrap().spi_i != lost.initiator);
            letters.iter().for_each(|letter| sides.deliver(letter));
        }
    }
    assert_eq!(sides.client[1].closed, Some(CloseReason::PeerDead));
    assert_eq!(sides.client[0].closed, None);
    assert_eq!((sides.client[0].receiving.len(), sides.client[1].receiving.len()), (1, 0));
}

#[test]
fn one_moves_and_the_other_stays_where_it_is() {
    let mut sides = Sides::two(15);
    let (old, away) = (path(Role::Initiator), ([203, 0, 113, 9], 51_000).into());
    let there = Path { link: 2, local: away, remote: old.remote };
    sides.with(Role::Initiator, 1, |sa, now, rng| sa.move_to(now, there, rng));
    for _ in 0..4 {
        let Sides { now, rng, client, gateway } = &mut sides;
        let letters: Vec<_> = std::iter::from_fn(|| client[1].sa.poll_transmit()).collect();
        for letter in letters {
            let seen = Path { link: 1, local: letter.path.remote, remote: letter.path.local };
            gateway[1].sa.handle_datagram(*now, seen, &letter.message, rng).unwrap();
        }
        let letters: Vec<_> = std::iter::from_fn(|| gateway[1].sa.poll_transmit()).collect();
        for letter in letters {
            assert_eq!(letter.path.remote, away);
            client[1].sa.handle_datagram(*now, there, &letter.message, rng).unwrap();
        }
    }
    assert_eq!(sides.client[1].sa.path(), there);
    assert_eq!(sides.gateway[1].sa.path().remote, away);
    assert_eq!(sides.client[0].sa.path(), old);
    assert_eq!(sides.gateway[0].sa.path(), path(Role::Responder));
}

/// The first one ends at its limit, as it must; what it gave rise to does not care.
#[test]
fn several_ike_sas_live_for_days_each_with_its_own_renewals() {
    let lifetimes = Lifetimes { ike: Some(HOUR * 4), child: Some(HOUR), child_octets: None };
    let mut sides = Sides::new(16, lifetimes);
    for at in 0..3 {
        sides.live(Duration::from_secs(700));
        sides.add(Role::Initiator, at);
        sides.settle();
        sides.create_child(Role::Initiator, at + 1);
    }
    for _ in 0..13 {
        sides.live(HOUR);
        for end in &sides.client {
            assert_eq!(end.closed, None);
            assert!(!end.receiving.is_empty() && end.receiving.len() <= 4);
        }
    }
    sides.live(SOON);
    assert_eq!((sides.client.len(), sides.gateway.len()), (4, 4));
    assert!(sides.client.iter().all(|end| end.rekeyed >= 2), "each renewed itself");
}

#[test]
fn the_gateway_hears_how_a_path_is_to_be_used_on_the_ike_sa_of_that_path() {
    let mut sides = Sides::two(17);
    let notice = SwitchNotice { counter: 7, main: true, copies: true, weight: 300 };
    sides.with(Role::Initiator, 1, |sa, now, rng| sa.announce_switch(now, notice, rng));
    sides.settle();
    assert_eq!(sides.gateway[1].asked, [notice]);
    assert!(sides.gateway[0].asked.is_empty());
    assert_eq!(sides.client[1].answered, [(7, true)]);
}

#[test]
fn of_several_words_on_a_path_that_wait_only_the_last_goes_out() {
    let mut sides = Sides::two(18);
    sides.with(Role::Initiator, 1, |sa, now, rng| {
        sa.check_liveness(now, rng);
        sa.announce_switch(now, SwitchNotice::main(1), rng);
        sa.announce_switch(now, SwitchNotice::main(2), rng);
    });
    sides.settle();
    assert_eq!(sides.gateway[1].asked, [SwitchNotice::main(2)]);
    assert_eq!(sides.client[1].answered, [(2, true)]);
}

#[test]
fn a_gateway_has_no_say_in_which_path_is_used() {
    let mut sides = Sides::two(19);
    sides.with(Role::Responder, 1, |sa, now, rng| sa.announce_switch(now, SwitchNotice::main(1), rng));
    sides.settle();
    assert!(sides.client[1].asked.is_empty());
    assert_eq!(sides.gateway[1].answered, [(1, false)]);
}

#[test]
fn who_has_one_path_cannot_switch() {
    let mut sides = Sides::plain(20);
    sides.with(Role::Initiator, 0, |sa, now, rng| sa.announce_switch(now, SwitchNotice::main(1), rng));
    sides.settle();
    assert!(sides.gateway[0].asked.is_empty());
    assert_eq!(sides.client[0].answered, [(1, false)]);
}
