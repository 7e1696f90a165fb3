//! Several IKE_SAs of one client at the gateway (KEEP_OLD_IKE_SA): one lease, each path its own life, and the client's word
//! on which of them it is sent to by (docs/switch-notify.md).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::net::IpAddr;
use std::time::Duration;

use rand_core::Rng;
use ropewalk_ike::exchange::lifetime::Lifetimes;
use ropewalk_ike::exchange::sa::CloseReason;
use ropewalk_ike::wire::{NotifyType, SwitchNotice};
use ropewalk_sim::bundle::{Bundle, Letter, To};
use ropewalk_sim::setup::{Auth, Setup};

const WIFI: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 10));
const MOBILE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 20));
const CABLE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 30));
const HOUR: Duration = Duration::from_secs(3600);

fn two(seed: u64) -> Bundle {
    let mut bundle = Bundle::new(&Setup::new(Auth::Psk), seed, WIFI);
    assert_eq!(bundle.add(0, MOBILE), 1);
    bundle
}

fn ms(time: u64) -> Duration {
    Duration::from_millis(time)
}

#[test]
fn a_client_with_several_ike_sas_is_one_client_with_one_lease() {
    let mut bundle = two(1);
    bundle.add(1, CABLE);
    let clients = bundle.gateway.clients();
    assert_eq!(clients.len(), 1);
    assert_eq!((clients[0].paths.len(), clients[0].children.len()), (3, 3));
    let inner = |lane: usize| bundle.lanes[lane].sa.children()[0].ts_local.clone();
    assert_eq!(inner(0), inner(1), "the same inner address by every path");
    assert_eq!(inner(0), inner(2));
    let at: Vec<IpAddr> = clients[0].paths.iter().map(|path| path.path.remote.ip()).collect();
    assert_eq!(at, [WIFI, MOBILE, CABLE]);
    assert_eq!(bundle.children.values().copied().collect::<Vec<_>>().len(), 3);
    assert_eq!(bundle.main(), Some(0), "nothing has said otherwise");
}

#[test]
fn the_lease_ends_with_the_last_of_them_whichever_that_is() {
    for order in [[0, 1], [1, 0]] {
        let mut setup = Setup::new(Auth::Psk);
        // One address for clients.
        setup.gateway.pools = vec!["10.99.0.0/30".parse().unwrap()];
        setup.gateway.unique = false;
        let mut bundle = Bundle::new(&setup, 2, WIFI);
        bundle.add(0, MOBILE);
        bundle.with(order[0], |sa, now, rng| sa.close(now, rng));
        assert_eq!(bundle.lanes[order[0]].closed, Some(CloseReason::Deleted));
        assert!(bundle.gone.is_empty());
        assert_eq!(bundle.main(), Some(order[1]));
        assert_eq!((bundle.gateway.clients().len(), bundle.gateway.ike_sas()), (1, 1));
        bundle.with(order[1], |sa, now, rng| sa.close(now, rng));
        assert_eq!(bundle.gone, [CloseReason::DeletedByPeer]);
        assert_eq!((bundle.gateway.clients().len(), bundle.gateway.ike_sas()), (0, 0));
        assert!(bundle.children.is_empty());
        bundle.log_in(&setup, CABLE);
        assert_eq!(bundle.gateway.clients()[0].addresses[0].to_string(), "10.99.0.2", "it is free again");
    }
}

#[test]
fn the_newest_word_of_the_client_decides_and_older_ones_that_are_late_do_not() {
    let mut bundle = two(3);
    bundle.announce(1, SwitchNotice::main(5));
    assert_eq!(bundle.main(), Some(1));
    assert_eq!(bundle.answered, [(5, true)]);
    // Written before, arrives later.
    bundle.announce(0, SwitchNotice::main(4));
    bundle.announce(0, SwitchNotice::main(5));
    assert_eq!(bundle.main(), Some(1));
    bundle.announce(0, SwitchNotice::main(6));
    assert_eq!(bundle.main(), Some(0));
}

#[test]
fn the_counter_wraps_around() {
    let mut bundle = two(4);
    bundle.announce(1, SwitchNotice::main(u32::MAX - 1));
    bundle.announce(0, SwitchNotice::main(2));
    assert_eq!(bundle.main(), Some(0));
    bundle.announce(1, SwitchNotice::main(u32::MAX));
    assert_eq!(bundle.main(), Some(0), "that is older");
    bundle.announce(1, SwitchNotice::main(3));
    assert_eq!(bundle.main(), Some(1));
}

#[test]
fn shares_and_copies_are_as_the_client_says() {
    let mut bundle = two(5);
    bundle.add(0, CABLE);
    bundle.announce(0, SwitchNotice { counter: 1, main: true, copies: false, weight: 300 });
    bundle.announce(1, SwitchNotice { counter: 2, main: false, copies: false, weight: 100 });
    bundle.announce(2, SwitchNotice { counter: 3, main: false, copies: true, weight: 0 });
    let carriage = bundle.carriage.clone().unwrap();
    assert_eq!(carriage.main, bundle.gateway_spi(0));
    let shares: Vec<_> = carriage.shares.iter().map(|share| (share.spi_in, share.weight)).collect();
    assert_eq!(shares, [(bundle.gateway_spi(0), 300), (bundle.gateway_spi(1), 100)]);
    assert_ne!(carriage.shares[0].name, carriage.shares[1].name);
    assert_eq!(carriage.copies, Some(bundle.gateway_spi(2)));
    bundle.announce(1, SwitchNotice { counter: 4, main: false, copies: false, weight: 0 });
    assert_eq!(bundle.carriage.clone().unwrap().shares, carriage.shares[..1]);
    // No copy goes by the path that carries.
    bundle.announce(2, SwitchNotice { counter: 5, main: true, copies: true, weight: 0 });
    let carriage = bundle.carriage.clone().unwrap();
    assert_eq!((carriage.main, carriage.copies), (bundle.gateway_spi(2), None));
}

#[test]
fn without_a_word_from_the_client_the_data_tell_and_late_ones_do_not() {
    let mut bundle = two(6);
    bundle.data(0, 100);
    bundle.live(ms(300));
    bundle.data(1, 100);
    bundle.live(ms(100));
    assert_eq!(bundle.main(), Some(0), "the first path brought data a moment ago");
    bundle.live(ms(300));
    assert_eq!(bundle.main(), Some(1), "it has been silent since, and the other one has not");
    let switches = bundle.switches;
    // Packets of the old path that come late, while the new one carries.
    for round in 0..20 {
        bundle.data(1, 300 + round);
        bundle.data(0, 200 + round);
        bundle.live(ms(250));
    }
    assert_eq!((bundle.main(), bundle.switches), (Some(1), switches));
}

#[test]
fn once_the_client_has_spoken_data_never_flip_it_back() {
    let mut bundle = two(7);
    bundle.announce(1, SwitchNotice::main(1));
    let switches = bundle.switches;
    // Probes, copies, and what is late from the old path, with nothing at all by the new one.
    for round in 1..200 {
        bundle.data(0, 100 * round);
        bundle.live(ms(250));
        bundle.with(0, |sa, now, rng| sa.check_liveness(now, rng));
    }
    assert_eq!((bundle.main(), bundle.switches), (Some(1), switches));
}

/// Everything that was ever sent is sent again, by either address.
#[test]
fn replayed_and_spoofed_packets_switch_nothing_and_move_nothing() {
    let mut bundle = two(8);
    bundle.announce(1, SwitchNotice::main(1));
    bundle.announce(0, SwitchNotice::main(2));
    bundle.announce(1, SwitchNotice::main(3));
    let (children, switches) = (bundle.children.clone(), bundle.switches);
    let (carriage, sent) = (bundle.carriage.clone(), bundle.sent.clone());
    for letter in sent.iter().filter(|letter| letter.to == To::Gateway) {
        for by in [WIFI, MOBILE, CABLE] {
            bundle.deliver(&Letter { by, ..letter.clone() });
            bundle.collect();
            let mut forged = letter.bytes.clone();
            let last = forged.len() - 1;
            forged[last] ^= 1;
            bundle.deliver(&Letter { by, bytes: forged, to: To::Gateway });
            bundle.collect();
        }
    }
    bundle.live(Duration::from_secs(2));
    assert_eq!((&bundle.children, bundle.switches), (&children, switches));
    assert_eq!(bundle.carriage, carriage);
    assert_eq!(bundle.main(), Some(1));
}

#[test]
fn a_word_on_a_path_is_for_the_ike_sa_that_takes_its_place_too() {
    // Said before the rekey.
    let mut bundle = two(9);
    bundle.announce(1, SwitchNotice::main(1));
    bundle.with(1, |sa, now, rng| sa.rekey_ike(now, rng));
    let child = bundle.gateway_spi(1);
    bundle.with(1, |sa, now, rng| {
        let spi_in = sa.carrying().unwrap();
        sa.rekey_child(now, spi_in, rng);
    });
    assert_ne!(bundle.gateway_spi(1), child);
    // The gateway sends with the new CHILD_SA when something has come in by it, or when the old one is deleted.
    bundle.live(Duration::from_secs(60));
    assert_eq!(bundle.main(), Some(1));
    assert_eq!(bundle.carriage.clone().unwrap().main, bundle.gateway_spi(1));
    // Said on the old IKE_SA while the gateway has rekeyed it.
    let mut bundle = two(10);
    assert_eq!(bundle.gateway.rekey_all(bundle.now, true, &mut bundle.rng), 1);
    let requests = bundle.collect();
    bundle.lanes[1].sa.announce_switch(bundle.now, SwitchNotice::main(1), &mut bundle.rng);
    let words = bundle.collect();
    requests.iter().for_each(|letter| bundle.deliver(letter));
    let answers = bundle.collect();
    answers.iter().for_each(|letter| bundle.deliver(letter));
    words.iter().for_each(|letter| bundle.deliver(letter));
    bundle.settle();
    assert_eq!(bundle.main(), Some(1));
}

#[test]
fn each_ike_sa_is_rekeyed_by_either_end_and_the_client_stays_one() {
    for by_gateway in [false, true] {
        let mut bundle = two(11);
        bundle.announce(1, SwitchNotice::main(1));
        for round in 0..3 {
            if by_gateway {
                bundle.gateway.rekey_all(bundle.now, round != 1, &mut bundle.rng);
                bundle.settle();
            } else {
                for lane in [0, 1] {
                    bundle.with(lane, |sa, now, rng| sa.rekey_ike(now, rng));
                }
            }
            bundle.live(Duration::from_secs(60));
            assert_eq!((bundle.gateway.ike_sas(), bundle.gateway.clients().len()), (2, 1));
            assert_eq!(bundle.main(), Some(1));
            assert_eq!(bundle.children.len(), 2);
        }
        assert!(bundle.gone.is_empty() && bundle.refused.is_empty());
    }
}

#[test]
fn a_path_that_dies_takes_only_itself_along() {
    for (lost, address, left) in [(0, WIFI, 1), (1, MOBILE, 0)] {
        let mut bundle = two(12);
        bundle.announce(lost, SwitchNotice::main(1));
        bundle.dead.push(address);
        bundle.live(HOUR);
        assert_eq!(bundle.lanes[lost].closed, Some(CloseReason::PeerDead));
        assert_eq!(bundle.lanes[left].closed, None);
        assert_eq!((bundle.gateway.clients().len(), bundle.gateway.ike_sas()), (1, 1));
        assert_eq!(bundle.main(), Some(left));
        assert!(bundle.gone.is_empty());
        // It comes back as another one.
        bundle.dead.clear();
        let new = bundle.add(left, address);
        bundle.announce(new, SwitchNotice::main(2));
        assert_eq!(bundle.main(), Some(new));
        assert_eq!(bundle.gateway.clients()[0].paths.len(), 2);
    }
}

#[test]
fn an_ike_sa_that_was_deleted_is_nobody() {
    for lane in [0, 1] {
        let mut bundle = two(13);
        let old: Vec<Letter> = bundle.sent.clone();
        let spis = bundle.lanes[lane].sa.spis();
        bundle.with(lane, |sa, now, rng| sa.close(now, rng));
        bundle.sent.clear();
        for letter in old.iter().filter(|letter| letter.to == To::Gateway) {
            bundle.deliver(letter);
        }
        bundle.settle();
        assert_eq!((bundle.gateway.ike_sas(), bundle.gateway.clients()[0].paths.len()), (1, 1));
        assert!(bundle.gateway.clients()[0].paths.iter().all(|path| path.spis != spis));
    }
}

#[test]
fn one_path_moves_and_the_other_stays() {
    for (lane, stays) in [(0, MOBILE), (1, WIFI)] {
        let mut bundle = two(14);
        bundle.with(lane, |sa, now, rng| sa.move_to(now, ropewalk_sim::bundle::way(CABLE), rng));
        assert_eq!(bundle.children[&bundle.gateway_spi(lane)], CABLE);
        assert_eq!(bundle.children[&bundle.gateway_spi(1 - lane)], stays);
    }
}

#[test]
fn traffic_moves_only_after_the_new_place_has_answered() {
    let mut bundle = two(15);
    bundle.dead.push(CABLE);
    // What the client sends arrives, what is sent there does not.
    bundle.lanes[1].sa.move_to(bundle.now, ropewalk_sim::bundle::way(CABLE), &mut bundle.rng);
    let letters = bundle.collect();
    letters.iter().for_each(|letter| bundle.deliver(letter));
    bundle.settle();
    assert_eq!(bundle.children[&bundle.gateway_spi(1)], MOBILE);
}

#[test]
fn there_is_an_end_to_how_many_a_client_may_have() {
    let mut bundle = two(16);
    for _ in 0..40 {
        bundle.with(0, |sa, now, rng| sa.add_ike_sa(now, rng));
        bundle.with(1, |sa, now, rng| sa.rekey_ike(now, rng));
    }
    let paths = bundle.gateway.clients()[0].paths.len();
    assert_eq!(paths, 16);
    assert!(bundle.refused.iter().all(|notify| *notify == NotifyType::NoAdditionalSas));
    assert_eq!(bundle.refused.len(), 40 - 14);
}

/// The answer to the client's wish is lost, and the client goes: nothing is left of it.
#[test]
fn an_ike_sa_that_the_client_never_knew_of_goes_with_the_others() {
    let mut bundle = Bundle::new(&Setup::new(Auth::Psk), 17, WIFI);
    bundle.lanes[0].sa.add_ike_sa(bundle.now, &mut bundle.rng);
    let request = bundle.collect();
    request.iter().for_each(|letter| bundle.deliver(letter));
    bundle.collect();
    assert_eq!(bundle.gateway.clients()[0].paths.len(), 2);
    bundle.lanes[0].sa.close(bundle.now, &mut bundle.rng);
    bundle.settle();
    bundle.live(Duration::from_secs(5));
    assert_eq!((bundle.gateway.clients().len(), bundle.gateway.ike_sas()), (0, 0));
}

#[test]
fn a_gateway_without_the_extension_gives_one_path_and_loses_nothing() {
    let mut setup = Setup::new(Auth::Psk);
    setup.gateway.keep_old = None;
    let mut bundle = Bundle::new(&setup, 18, WIFI);
    let (spis, child) = (bundle.lanes[0].sa.spis(), bundle.gateway_spi(0));
    bundle.with(0, |sa, now, rng| sa.add_ike_sa(now, rng));
    bundle.live(Duration::from_secs(60));
    assert_ne!(bundle.lanes[0].sa.spis(), spis);
    assert_eq!((bundle.gateway_spi(0), bundle.main()), (child, Some(0)));
    assert_eq!(bundle.lanes[0].sa.features().keep_old, Some(false));
    assert_eq!(bundle.gateway.clients()[0].paths.len(), 1);
    assert!(bundle.lanes[0].sa.can_move());
}

#[test]
fn another_number_is_another_notify() {
    let mut setup = Setup::new(Auth::Psk);
    setup.gateway.keep_old = Some(50999);
    let mut bundle = Bundle::new(&setup, 19, WIFI);
    bundle.with(0, |sa, now, rng| sa.add_ike_sa(now, rng));
    assert_eq!(bundle.gateway.clients()[0].paths.len(), 1);
    setup.client.initiator.keep_old = Some(50999);
    let mut bundle = Bundle::new(&setup, 19, WIFI);
    bundle.add(0, MOBILE);
    bundle.announce(1, SwitchNotice::main(1));
    assert_eq!(bundle.main(), Some(1));
}

#[test]
fn the_gateway_may_ask_for_a_further_path() {
    let mut bundle = Bundle::new(&Setup::new(Auth::Psk), 20, WIFI);
    assert_eq!(bundle.gateway.add_paths(bundle.now, &mut bundle.rng), 1);
    bundle.settle();
    assert_eq!(bundle.lanes.len(), 2);
    bundle.with(1, |sa, now, rng| sa.create_child_alike(now, rng));
    bundle.with(1, |sa, now, rng| sa.move_to(now, ropewalk_sim::bundle::way(MOBILE), rng));
    assert_eq!(bundle.children[&bundle.gateway_spi(1)], MOBILE);
    assert_eq!(bundle.gateway.clients().len(), 1);
}

#[test]
fn the_gateway_ends_all_paths_of_a_client_together() {
    let mut bundle = two(21);
    assert_eq!(bundle.gateway.disconnect_all(bundle.now, &mut bundle.rng), 1);
    bundle.settle();
    assert!(bundle.lanes.iter().all(|lane| lane.closed == Some(CloseReason::DeletedByPeer)));
    assert_eq!((bundle.gone.len(), bundle.gateway.ike_sas()), (1, 0));
}

#[test]
fn a_new_login_of_the_client_takes_the_place_of_all_its_paths() {
    let setup = Setup::new(Auth::Psk);
    let mut bundle = Bundle::new(&setup, 22, WIFI);
    bundle.add(0, MOBILE);
    bundle.announce(1, SwitchNotice::main(9));
    // The address of the main path, of which the gateway knows the client to be at.
    bundle.log_in(&setup, CABLE);
    bundle.settle();
    let clients = bundle.gateway.clients();
    assert_eq!((clients.len(), clients[0].paths.len()), (1, 1));
    assert_eq!(bundle.main(), bundle.lanes.len().checked_sub(1));
    // It counts anew.
    let new = bundle.lanes.len() - 1;
    let further = bundle.add(new, MOBILE);
    bundle.announce(further, SwitchNotice::main(1));
    assert_eq!(bundle.main(), Some(further));
}

/// As before an authentication is over: the new login is beside the old one, and takes over when data come by it.
#[test]
fn what_goes_of_a_login_that_stepped_aside_is_not_sent_by_any_more() {
    let mut setup = Setup::new(Auth::Psk);
    setup.client.initiator.initial_contact = false;
    let mut bundle = Bundle::new(&setup, 23, WIFI);
    bundle.add(0, MOBILE);
    bundle.announce(1, SwitchNotice::main(9));
    bundle.log_in(&setup, WIFI);
    assert_eq!(bundle.main(), Some(1), "the client has not shown yet that it has the new one");
    bundle.data(2, 100);
    assert_eq!(bundle.main(), Some(2));
    for old in [1, 0] {
        bundle.with(old, |sa, now, rng| sa.close(now, rng));
        assert_eq!(bundle.main(), Some(2));
    }
    assert_eq!(bundle.gateway.clients().len(), 1);
}

/// Up to six paths for a month: renewals by both ends, deletions, moves, switches, deaths and returns in random order. There is
/// always one client with one lease, and what the gateway sends goes by a path that the client has.
#[test]
fn a_month_of_several_paths() {
    for seed in 0..2 {
        let mut setup = Setup::new(Auth::Psk);
        let renew = Lifetimes { ike: Some(HOUR * 8), child: Some(HOUR * 2), child_octets: None };
        setup.gateway.lifetimes = renew;
        setup.client.initiator.lifetimes = Lifetimes { ike: Some(HOUR * 9), child: Some(HOUR * 3), ..renew };
        let mut bundle = Bundle::new(&setup, seed, WIFI);
        let address = bundle.gateway.clients()[0].addresses.clone();
        let (mut counter, mut octets) = (u32::MAX - 20, 0);
        for _ in 0..120 {
            let pause = bundle.rng.next_u32() % 21_600;
            bundle.live(Duration::from_secs(pause.into()));
            let alive = |bundle: &Bundle| -> Vec<usize> {
                let lanes = bundle.lanes.iter().enumerate();
                let usable = lanes.filter(|(_, lane)| !lane.fading && !lane.sa.is_closed());
                usable.filter(|(_, lane)| lane.sa.carrying().is_some()).map(|(at, _)| at).collect()
            };
            let lanes = alive(&bundle);
            let pick = lanes[bundle.rng.next_u32() as usize % lanes.len()];
            let place = [WIFI, MOBILE, CABLE][bundle.rng.next_u32() as usize % 3];
            counter = counter.wrapping_add(1);
            octets += 100;
            match bundle.rng.next_u32() % 8 {
                0 if lanes.len() < 6 => drop(bundle.add(pick, place)),
                1 if lanes.len() > 1 => bundle.with(pick, |sa, now, rng| sa.close(now, rng)),
                2 => bundle.announce(pick, SwitchNotice::main(counter)),
                3 => bundle.announce(pick, SwitchNotice { counter, main: false, copies: true, weight: 7 }),
                4 => bundle.with(pick, |sa, now, rng| sa.move_to(now, ropewalk_sim::bundle::way(place), rng)),
                5 => bundle.with(pick, |sa, now, rng| sa.rekey_ike(now, rng)),
                6 => bundle.data(pick, octets),
                _ => {
                    // A network swallows everything for some minutes; those of its paths that die stay dead.
                    let others = lanes.iter().any(|at| bundle.lanes[*at].sa.path().local.ip() != place);
                    if others {
                        bundle.dead.push(place);
                        bundle.live(Duration::from_secs(400));
                        bundle.dead.clear();
                        bundle.live(Duration::from_secs(600));
                    }
                }
            }
            let clients = bundle.gateway.clients();
            assert_eq!((clients.len(), &clients[0].addresses), (1, &address), "seed {seed}");
            assert!(bundle.gone.is_empty(), "seed {seed}: {:?}", bundle.gone);
            let main = bundle.main().expect("a path that both ends have");
            assert!(alive(&bundle).contains(&main), "seed {seed}");
            assert_eq!(clients[0].paths.len(), alive(&bundle).len(), "seed {seed}");
            bundle.sent.clear();
        }
    }
}

/// Appendix B.5: the further IKE_SA comes with the first, in IKE_AUTH.
#[test]
fn a_further_ike_sa_comes_with_the_first_where_both_ends_are_set_to_it() {
    for auth in [Auth::Psk, Auth::Ecdsa, Auth::Eap] {
        let mut setup = Setup::new(auth);
        setup.gateway.keep_old_in_auth = true;
        setup.client.initiator.keep_old_in_auth = true;
        let mut bundle = Bundle::new(&setup, 30, WIFI);
        assert_eq!(bundle.lanes.len(), 2, "{auth:?}");
        assert_eq!(bundle.gateway.clients()[0].paths.len(), 2);
        assert_eq!(bundle.lanes[0].sa.features().keep_old, Some(true));
        assert_ne!(bundle.lanes[0].sa.spis(), bundle.lanes[1].sa.spis());
        bundle.with(1, |sa, now, rng| sa.create_child_alike(now, rng));
        bundle.with(1, |sa, now, rng| sa.move_to(now, ropewalk_sim::bundle::way(MOBILE), rng));
        bundle.announce(1, SwitchNotice::main(1));
        assert_eq!(bundle.main(), Some(1));
        bundle.with(0, |sa, now, rng| sa.close(now, rng));
        assert_eq!(bundle.main(), Some(1));
    }
}

#[test]
fn a_gateway_that_is_not_set_to_it_passes_over_what_is_asked_for_in_ike_auth() {
    for number in [Some(50213), None, Some(50999)] {
        let mut setup = Setup::new(Auth::Psk);
        setup.gateway.keep_old = number;
        setup.client.initiator.keep_old_in_auth = true;
        let mut bundle = Bundle::new(&setup, 31, WIFI);
        assert_eq!(bundle.lanes.len(), 1, "{number:?}");
        assert_eq!(bundle.lanes[0].sa.children().len(), 1);
        assert_eq!(bundle.lanes[0].sa.features().keep_old, None);
        if number == Some(50213) {
            bundle.add(0, MOBILE);
            assert_eq!(bundle.gateway.clients()[0].paths.len(), 2);
        }
    }
}
