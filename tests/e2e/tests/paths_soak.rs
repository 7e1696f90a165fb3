//! A hundred things that happen to three networks, chosen by a seed, while pings and a TCP transfer go on: as long as one of
//! the networks works and has shown it, there is no moment in which nothing gets through that is longer than a silent path may
//! cost. The same in virtual time, with many seeds, is in the simulation's `strands`.
//!
//! `ROPEWALK_SOAK_EVENTS` and `ROPEWALK_SOAK_SEED` choose another number of events and another seed.

#![allow(clippy::indexing_slicing, reason = "a network that is not there is a failed test")]

use std::{env, fmt, thread, time::Duration};

use anyhow::{Result, ensure};
use ropewalk_e2e::{Flow, GatewayKind, Pings, Plan, Several, in_lab};
use ropewalk_lab::{Conditions, Site};

const EVENTS: u64 = 100;
const SEED: u64 = 4;
/// A silent path is left within a second of the first lost data.
const SILENCE: Duration = Duration::from_secs(1);
/// And on a machine that is busy within this.
const BUSY: Duration = Duration::from_millis(500);
/// At the end every network has to carry again within this: a path that failed is tried less and less often.
const ALL_BACK: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Carrier,
    Silence,
    Loss,
}

/// What the test knows of a network.
struct Known {
    fault: Option<Fault>,
    /// The client's last octet there.
    host: u8,
}

/// What happened, when, by the number of the ping.
struct Event {
    at: usize,
    what: String,
}

impl fmt::Display for Event {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} (ping {})", self.what, self.at)
    }
}

/// xorshift64*: the same choices for the same seed.
struct Choices(u64);

impl Choices {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }
}

fn setting(name: &str, default: u64) -> u64 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn delay(choices: &mut Choices) -> Duration {
    Duration::from_millis(1 + choices.below(30))
}

/// One thing that may happen to this network; `safe` says whether another one works without it.
fn happen(
    up: &Several,
    at: usize,
    known: &mut Known,
    safe: bool,
    choices: &mut Choices,
) -> Result<Option<String>> {
    let uplink = &up.uplinks[at];
    let name = &uplink.interface;
    if let Some(fault) = known.fault.take() {
        if fault == Fault::Carrier {
            uplink.carrier(true)?;
        }
        uplink.good(delay(choices));
        return Ok(Some(format!("{name}: {fault:?} is over")));
    }
    let what = choices.below(6);
    if what == 0 {
        let delay = delay(choices);
        uplink.good(delay);
        return Ok(Some(format!("{name}: delay {delay:?}")));
    }
    if !safe {
        return Ok(None);
    }
    Ok(Some(match what {
        1 => {
            uplink.carrier(false)?;
            known.fault = Some(Fault::Carrier);
            format!("{name}: no carrier")
        }
        2 => {
            uplink.darken();
            known.fault = Some(Fault::Silence);
            format!("{name}: silence")
        }
        3 => {
            let loss = 0.05 * (1 + choices.below(8)) as f64;
            uplink.set(Conditions { loss, delay: delay(choices), ..Conditions::default() });
            known.fault = Some(Fault::Loss);
            format!("{name}: {:.0} % lost", loss * 100.0)
        }
        4 => {
            uplink.relays[0].forget();
            format!("{name}: the NAT forgets")
        }
        _ => {
            let net = |host: u8| format!("10.77.{}.{host}/24", at + 1);
            let new = known.host % 200 + 2;
            let old = std::mem::replace(&mut known.host, new);
            uplink.renumber(&net(old), &net(known.host))?;
            format!("{name}: another address, {}", net(known.host))
        }
    }))
}

#[test]
fn a_hundred_things_that_happen_to_paths_stop_nothing_while_one_works() -> Result<()> {
    let (count, seed) = (setting("ROPEWALK_SOAK_EVENTS", EVENTS), setting("ROPEWALK_SOAK_SEED", SEED));
    println!("{count} events, seed {seed}");
    in_lab(|lab| {
        let up = Several::up(lab, &Plan::new(GatewayKind::Reference, 3, "failover"))?;
        up.all_work(3, Duration::from_secs(20))?;
        let transfer = Flow::between(&up.site.client, &up.site.server, 4096)?;
        let pings = Pings::start(&up.site.client, Site::transfer_v4())?;
        thread::sleep(Duration::from_millis(500));
        let mut choices = Choices(seed.wrapping_mul(2).wrapping_add(1));
        let mut known = [(); 3].map(|()| Known { fault: None, host: 2 });
        let mut events: Vec<Event> = Vec::new();
        while (events.len() as u64) < count {
            let paths = up.paths()?;
            let at = choices.below(3) as usize;
            let works = |other: usize| {
                let name = &up.uplinks[other].interface;
                known[other].fault.is_none()
                    && paths.iter().any(|path| path.interface == *name && path.works())
            };
            let safe = (0..3).any(|other| other != at && works(other));
            let ping = pings.mark();
            if let Some(what) = happen(&up, at, &mut known[at], safe, &mut choices)? {
                events.push(Event { at: ping, what });
            }
            thread::sleep(Duration::from_millis(150 + choices.below(500)));
        }
        for (uplink, known) in up.uplinks.iter().zip(&mut known) {
            if known.fault.take() == Some(Fault::Carrier) {
                uplink.carrier(true)?;
            }
            uplink.good(Duration::from_millis(5));
        }
        let end = pings.mark();
        up.all_work(3, ALL_BACK)?;
        let whole = pings.since(0);
        println!("{} of {} pings lost, none for {:?} at most", whole.lost, whole.sent, whole.longest);
        let ends = events.iter().skip(1).map(|event| event.at).chain([end]);
        for (event, until) in events.iter().zip(ends) {
            let outcome = pings.between(event.at, until);
            println!("{event}: {} lost, none for {:?}", outcome.lost, outcome.longest);
        }
        let longest = transfer.close()?;
        println!("no beat of the TCP transfer took longer than {longest:?}");
        pings.stop()?;
        up.never_fell()?;
        ensure!(whole.longest <= SILENCE + BUSY, "seed {seed}: {whole:?}");
        up.client.disconnect()
    })
}
