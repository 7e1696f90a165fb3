//! What a user notices when a path fails, with a hundred pings a second and a TCP transfer going on, and what strongSwan's own
//! client makes of the same in the same laboratory. What is measured is printed.

#![allow(clippy::indexing_slicing, reason = "a round that is not there is a failed test")]

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ropewalk_e2e::{Flow, GatewayKind, OtherClient, Outcome, PATIENCE, Pings, Plan, Several, in_lab};
use ropewalk_lab::{Site, Uplink, until};

/// The delay of each network, each way.
const DELAY: Duration = Duration::from_millis(4);
/// Octets of the transfer each way in each of its beats: about 6 Mbit/s.
const BEAT: usize = 16_384;
/// What is lost while a path is left, and shortly after, belongs to it.
const AFTER: Duration = Duration::from_millis(700);
/// A ping that has not come back after this is lost.
const LATE: Duration = Duration::from_secs(2);
/// A silent path is left within this; the median of the rounds has to.
const SILENCE: Duration = Duration::from_secs(1);
/// What any single round may take more on a machine that is busy: two programs have to have a turn each.
const BUSY: Duration = Duration::from_millis(500);
const BUSY_PINGS: usize = 10;
const ROUNDS: usize = 5;

/// The pings of one round.
struct Round {
    what: String,
    from: usize,
    to: usize,
}

/// What became of each round, in words, and sorted by what was lost.
fn judged(pings: &Pings, rounds: &[Round]) -> Vec<Outcome> {
    thread::sleep(LATE);
    let mut outcomes = Vec::new();
    for Round { what, from, to } in rounds {
        let outcome = pings.between(*from, *to);
        println!(
            "{what}: {} of {} pings lost, none for {:?} (round trip {:?})",
            outcome.lost, outcome.sent, outcome.longest, outcome.rtt
        );
        outcomes.push(outcome);
    }
    outcomes.sort_unstable_by_key(|outcome| (outcome.lost, outcome.longest));
    outcomes
}

fn slow(uplinks: &[Uplink]) {
    uplinks.iter().for_each(|uplink| uplink.good(DELAY));
}

/// The interface that carries and the one that stands by.
fn roles(up: &Several) -> Result<(String, String)> {
    up.all_work(2, PATIENCE)?;
    let paths = up.paths()?;
    let standby = paths.iter().find(|path| path.state == "standby").context("a path that stands by")?;
    Ok((up.carrying()?.interface, standby.interface.clone()))
}

#[test]
fn a_lost_carrier_costs_one_ping_and_what_was_under_way_and_tcp_goes_on() -> Result<()> {
    in_lab(|lab| {
        let up = Several::up(lab, &Plan::new(GatewayKind::Reference, 2, "failover"))?;
        slow(&up.uplinks);
        up.settles(&["eth0"], &["wlan0"])?;
        let transfer = Flow::between(&up.site.client, &up.site.server, BEAT)?;
        let pings = Pings::start(&up.site.client, Site::transfer_v4())?;
        thread::sleep(Duration::from_secs(1));
        let (mut lost, mut back) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let (carrying, standby) = roles(&up)?;
            let mark = pings.mark();
            up.uplink(&carrying)?.carrier(false)?;
            up.settles(&[&standby], &[])?;
            thread::sleep(AFTER);
            let again = pings.mark();
            lost.push(Round { what: format!("{carrying} loses its carrier"), from: mark, to: again });
            // It comes back: a strand of it stands by, and nothing moves.
            up.uplink(&carrying)?.carrier(true)?;
            up.settles(&[&standby], &[&carrying])?;
            thread::sleep(AFTER);
            back.push(Round { what: format!("{carrying} is back"), from: again, to: pings.mark() });
        }
        let (lost, back) = (judged(&pings, &lost), judged(&pings, &back));
        let longest = transfer.close()?;
        println!("no beat of the TCP transfer took longer than {longest:?}");
        pings.stop()?;
        up.never_fell()?;
        let bound = lost[0].in_flight_and_one();
        println!("carrier loss: median {} lost, bound {bound}", lost[ROUNDS / 2].lost);
        ensure!(lost[ROUNDS / 2].lost <= bound, "more than {bound} lost in half of the rounds: {lost:?}");
        ensure!(lost[ROUNDS - 1].lost <= bound + BUSY_PINGS, "{lost:?}");
        ensure!(back[ROUNDS / 2].lost == 0, "something was lost though the path in use worked: {back:?}");
        ensure!(back[ROUNDS - 1].lost <= 1, "{back:?}");
        up.client.disconnect()
    })
}

#[test]
fn a_silent_path_is_left_within_a_second_and_tcp_goes_on() -> Result<()> {
    in_lab(|lab| {
        let up = Several::up(lab, &Plan::new(GatewayKind::Reference, 2, "failover"))?;
        slow(&up.uplinks);
        up.settles(&["eth0"], &["wlan0"])?;
        let transfer = Flow::between(&up.site.client, &up.site.server, BEAT)?;
        let pings = Pings::start(&up.site.client, Site::transfer_v4())?;
        thread::sleep(Duration::from_secs(1));
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let (carrying, standby) = roles(&up)?;
            let mark = pings.mark();
            up.uplink(&carrying)?.darken();
            up.settles(&[&standby], &[])?;
            thread::sleep(AFTER);
            rounds.push(Round { what: format!("{carrying} falls silent"), from: mark, to: pings.mark() });
            up.uplink(&carrying)?.lighten();
        }
        let mut outcomes = judged(&pings, &rounds);
        let longest = transfer.close()?;
        println!("no beat of the TCP transfer took longer than {longest:?}");
        pings.stop()?;
        up.never_fell()?;
        outcomes.sort_unstable_by_key(|outcome| outcome.longest);
        ensure!(outcomes[ROUNDS / 2].longest <= SILENCE, "{outcomes:?}");
        ensure!(outcomes[ROUNDS - 1].longest <= SILENCE + BUSY, "{outcomes:?}");
        up.client.disconnect()
    })
}

/// The same event for both: the interface goes down, for charon does not look at carriers.
#[test]
fn an_interface_that_goes_down_costs_less_than_with_strongswans_own_client() -> Result<()> {
    in_lab(|lab| {
        let up = Several::up(lab, &Plan::new(GatewayKind::Reference, 2, "failover"))?;
        slow(&up.uplinks);
        up.settles(&["eth0"], &["wlan0"])?;
        let other = OtherClient::up(&up.site)?;
        slow(&other.uplinks);
        let ours = Pings::start(&up.site.client, Site::transfer_v4())?;
        let theirs = Pings::start(&other.namespace, Site::transfer_v4())?;
        thread::sleep(Duration::from_secs(1));
        let (mut our_rounds, mut their_rounds) = (Vec::new(), Vec::new());
        // Both ends of strongSwan renew the CHILD_SA on a move, and now and then neither is left.
        let mut they_live = true;
        for _ in 0..ROUNDS {
            let (carrying, standby) = roles(&up)?;
            let mark = ours.mark();
            up.site.client.ip(&format!("link set {carrying} down"))?;
            up.settles(&[&standby], &[])?;
            thread::sleep(AFTER);
            our_rounds.push(Round { what: format!("ours, {carrying} down"), from: mark, to: ours.mark() });
            up.site.client.ip(&format!("link set {carrying} up"))?;
            up.uplink(&carrying)?.carrier(true)?;

            if !they_live {
                up.settles(&[&standby], &[&carrying])?;
                continue;
            }
            let used = other.interface_in_use()?;
            let mark = theirs.mark();
            let began = Instant::now();
            other.namespace.ip(&format!("link set {used} down"))?;
            let moved = until("strongSwan's client to move", PATIENCE, || {
                let now = theirs.mark();
                (now > mark + 30 && theirs.came_lately(10)).then_some(())
            });
            they_live = moved.inspect_err(|error| println!("{error}")).is_ok();
            thread::sleep(AFTER.saturating_sub(began.elapsed()));
            their_rounds.push(Round {
                what: format!("strongSwan's, {used} down"),
                from: mark,
                to: theirs.mark(),
            });
            other.namespace.ip(&format!("link set {used} up"))?;
            other.uplinks.iter().try_for_each(|uplink| uplink.carrier(true))?;
            up.settles(&[&standby], &[&carrying])?;
            if they_live {
                until("strongSwan's client to carry", PATIENCE, || theirs.came_lately(100).then_some(()))?;
            }
        }
        let (our, their) = (judged(&ours, &our_rounds), judged(&theirs, &their_rounds));
        let (own, bound) = (our[ROUNDS / 2].lost, our[0].in_flight_and_one());
        let sum = |rounds: &[Outcome]| rounds.iter().map(|round| round.lost).sum::<usize>();
        let (ours_lost, theirs_lost) = (sum(&our), sum(&their));
        println!(
            "an interface goes down, {ROUNDS} times: ours loses {ours_lost} (median {own}, bound {bound}), strongSwan's \
             {theirs_lost} (median {})",
            their[their.len() / 2].lost
        );
        ours.stop()?;
        theirs.stop()?;
        up.never_fell()?;
        ensure!(own <= bound, "{our:?}");
        ensure!(ours_lost < theirs_lost, "ours: {our:?}, strongSwan's: {their:?}");
        up.client.disconnect()
    })
}
