//! `make bench`: Ropewalk beside strongSwan, in the same run, on the same network of namespaces.
//!
//! - time from `connect` to connected against strongSwan, beside strongSwan's own `swanctl --initiate`
//! - TCP throughput from client to reference gateway, beside strongSwan to strongSwan; both have ESP in user space
//! - resident memory of the helper, idle and under load, beside charon's
//! - time from the window's start to its first usable frame, as the window itself reports it
//!
//! The two sides take turns, so that a machine that slows down slows both. Exit code 1 when a goal is missed. The words
//! `connect`, `throughput` and `window` as arguments choose among the three.

use std::{process::Command, thread, time::Duration};

use anyhow::{Context, Result};
use ropewalk_e2e::{
    AuthKind, Client, ClientOptions, Credentials, Gateway, GatewayKind, Offer, ProfileText, Programs,
};
use ropewalk_lab::{
    Lab, Process, Site, SiteOptions, Swan, SwanAuth, SwanClient, resident_memory, run,
    site::{GATEWAY_V4, LAN_V4, SERVER_V4},
};
use serde_json::Value;

/// What can be measured by itself.
const PARTS: [&str; 3] = ["connect", "throughput", "window"];
/// Odd, so that the median is a measurement.
const ROUNDS: usize = 11;
/// Seconds of one throughput measurement.
const SECONDS: u32 = 5;
/// Throughput measurements per side and direction; odd, as above.
const THROUGHPUT_ROUNDS: usize = 5;
/// Starts of the window.
const WINDOW_ROUNDS: usize = 7;
const MIB: f64 = 1_048_576.0;
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> Result<()> {
    let mut goals = Goals::default();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |word: &str| words.is_empty() || words.iter().any(|given| given == word);
    if let Some(unknown) = words.iter().find(|word| !PARTS.contains(&word.as_str())) {
        anyhow::bail!("{unknown}: choose among {}", PARTS.join(", "));
    }
    if wanted("connect") {
        connect_times(&mut goals)?;
    }
    if wanted("throughput") {
        throughput_and_memory(&mut goals)?;
    }
    if wanted("window") {
        window_time(&mut goals)?;
    }
    println!("\n{} of {} goals met", goals.met, goals.all);
    if goals.met < goals.all {
        std::process::exit(1);
    }
    Ok(())
}

#[derive(Default)]
struct Goals {
    met: usize,
    all: usize,
}

impl Goals {
    fn judge(&mut self, goal: &str, met: bool) {
        self.all += 1;
        self.met += usize::from(met);
        println!("  goal: {goal}: {}", if met { "met" } else { "MISSED" });
    }
}

/// A helper as users run it: no key log, and only what a user would want to read in the log.
fn client(site: &Site) -> Result<Client> {
    let options = ClientOptions { log: "info".to_owned(), key_log: false, ..ClientOptions::default() };
    Client::start_with(&site.client, options)
}

fn psk() -> Result<(Credentials, ProfileText)> {
    let credentials = Credentials::new(AuthKind::Psk)?;
    let mut profile = ProfileText::new(AuthKind::Psk, &credentials, &GATEWAY_V4.to_string());
    profile.ike = Some("aes256gcm16-prfsha384-x25519".to_owned());
    profile.esp = Some("aes256gcm16".to_owned());
    Ok((credentials, profile))
}

fn strongswan_client(credentials: &Credentials) -> SwanClient {
    SwanClient {
        gateway: GATEWAY_V4.into(),
        gateway_id: AuthKind::Psk.gateway_identity().to_owned(),
        auth: SwanAuth::Psk { id: credentials.client_id.clone(), secret: credentials.psk.clone() },
        ike: "aes256gcm16-prfsha384-x25519".to_owned(),
        esp: "aes256gcm16".to_owned(),
        traffic: vec![LAN_V4.to_owned()],
        authorities: Vec::new(),
    }
}

fn connect_times(goals: &mut Goals) -> Result<()> {
    let lab = Lab::new()?;
    let site = Site::new(&lab, SiteOptions::default())?;
    let (credentials, profile) = psk()?;
    let _gateway = Gateway::start(GatewayKind::StrongSwan, &site, &Offer::new(AuthKind::Psk), &credentials)?;
    let ropewalk = client(&site)?;
    ropewalk.import(&profile)?;
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    for _ in 0..ROUNDS {
        ours.push(ropewalk.try_connect(&profile.name, None, 20)?.success()?.elapsed);
        ropewalk.disconnect()?;
        // strongSwan's client listens on the ports a gateway would; it runs only while it is measured.
        let swan = Swan::start(&site.client, "swan-client", &strongswan_client(&credentials).config())?;
        theirs.push(swan.initiate("net", PATIENCE)?.elapsed);
        swan.terminate("peer")?;
    }
    let (ours, theirs) = (Spread::of(ours), Spread::of(theirs));
    println!("Connect to strongSwan (PSK, behind NAT), from the command to its end, {ROUNDS} rounds");
    println!("  ropewalk connect     {ours}");
    println!("  swanctl --initiate   {theirs}");
    goals.judge("not slower than swanctl --initiate (medians)", ours.median <= theirs.median);
    Ok(())
}

fn throughput_and_memory(goals: &mut Goals) -> Result<()> {
    let (credentials, profile) = psk()?;

    // strongSwan at both ends.
    let lab = Lab::new()?;
    let site = Site::new(&lab, SiteOptions::default())?;
    let _iperf = iperf_server(&site)?;
    let _gateway = Gateway::start(GatewayKind::StrongSwan, &site, &Offer::new(AuthKind::Psk), &credentials)?;
    let swan = Swan::start(&site.client, "swan-client", &strongswan_client(&credentials).config())?;
    let charon_idle = swan.resident_memory();
    swan.initiate("net", PATIENCE)?;
    let theirs = both_directions(&site, || swan.resident_memory())?;
    drop((swan, _gateway, _iperf, site, lab));

    // Ropewalk at both ends.
    let lab = Lab::new()?;
    let site = Site::new(&lab, SiteOptions::default())?;
    let _iperf = iperf_server(&site)?;
    let _gateway = Gateway::start(GatewayKind::Reference, &site, &Offer::new(AuthKind::Psk), &credentials)?;
    let ropewalk = client(&site)?;
    let helper = ropewalk.helper_pid()?;
    let helper_idle = resident_memory(helper);
    ropewalk.connect(&profile, None)?;
    thread::sleep(Duration::from_secs(1));
    let helper_connected = resident_memory(helper);
    let ours = both_directions(&site, || resident_memory(helper))?;

    println!(
        "\nTCP through the tunnel, one stream, median of {THROUGHPUT_ROUNDS} runs of {SECONDS} s, AES-256-GCM"
    );
    println!("                                      up            down");
    println!("  strongSwan to strongSwan     {:8.0} Mbit/s {:8.0} Mbit/s", theirs.up, theirs.down);
    println!("  Ropewalk to reference        {:8.0} Mbit/s {:8.0} Mbit/s", ours.up, ours.down);
    println!(
        "  ratio                        {:8.1}        {:8.1}",
        ours.up / theirs.up,
        ours.down / theirs.down
    );
    goals.judge("at least twice strongSwan, up", ours.up >= 2.0 * theirs.up);
    goals.judge("at least twice strongSwan, down", ours.down >= 2.0 * theirs.down);

    println!("\nResident memory, MiB            idle  connected       peak under load");
    println!("  charon                    {:8.1}          -  {:20.1}", mib(charon_idle), mib(theirs.memory));
    println!(
        "  ropewalk-helper           {:8.1}   {:8.1}  {:20.1}",
        mib(helper_idle),
        mib(helper_connected),
        mib(ours.memory)
    );
    goals.judge("at most 20 MiB idle", mib(helper_idle) <= 20.0 && mib(helper_connected) <= 20.0);
    Ok(())
}

/// The window measures itself, on a desktop of its own: see `tests/gui`.
fn window_time(goals: &mut Goals) -> Result<()> {
    let mut command = Command::new(Programs::find()?.path("ropewalk-first-frame")?);
    let finished = run(command.arg(WINDOW_ROUNDS.to_string()), &[], Duration::from_secs(180))?.success()?;
    let line = finished.stdout.lines().find(|line| line.contains("median")).unwrap_or_default();
    let value = line.rsplit_once(": ").and_then(|(_, value)| value.strip_suffix(" ms"));
    let median: u64 =
        value.and_then(|value| value.parse().ok()).with_context(|| format!("no time in {line:?}"))?;
    println!("\nWindow, from its start to the first usable frame, {WINDOW_ROUNDS} rounds, under Xvfb");
    println!("  ropewalk-app         median {median} ms");
    goals.judge("under one second (median)", median < 1000);
    Ok(())
}

struct Measured {
    up: f64,
    down: f64,
    memory: Option<u64>,
}

fn both_directions(site: &Site, memory: impl Fn() -> Option<u64> + Sync) -> Result<Measured> {
    let (mut up, mut down, mut peak) = (Vec::new(), Vec::new(), None);
    for _ in 0..THROUGHPUT_ROUNDS {
        up.push(iperf(site, &[], &memory, &mut peak)?);
        down.push(iperf(site, &["-R"], &memory, &mut peak)?);
    }
    Ok(Measured { up: median(up), down: median(down), memory: peak })
}

/// Of an odd number of measurements.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn iperf_server(site: &Site) -> Result<Process> {
    let mut server = site.server.spawn("iperf3", &["-s", "--forceflush"], "iperf3")?;
    server.wait_for_log("Server listening", PATIENCE)?;
    Ok(server)
}

/// One run; megabits per second as the receiver counts. `peak` becomes the most memory seen meanwhile.
fn iperf(
    site: &Site,
    more: &[&str],
    memory: &(impl Fn() -> Option<u64> + Sync),
    peak: &mut Option<u64>,
) -> Result<f64> {
    let seconds = SECONDS.to_string();
    let server = SERVER_V4.to_string();
    let mut arguments = vec!["-c", &server, "-t", &seconds, "-J"];
    arguments.extend(more);
    let finished = thread::scope(|scope| {
        let run = scope.spawn(|| site.client.run("iperf3", &arguments, PATIENCE));
        while !run.is_finished() {
            *peak = (*peak).max(memory());
            thread::sleep(Duration::from_millis(100));
        }
        run.join()
    });
    let finished = finished.map_err(|_| anyhow::anyhow!("the iperf3 thread panicked"))??.success()?;
    let report: Value = serde_json::from_str(&finished.stdout).context("iperf3's report")?;
    let bits = report.pointer("/end/sum_received/bits_per_second").and_then(Value::as_f64);
    Ok(bits.with_context(|| format!("no result in {}", finished.stdout))? / 1e6)
}

fn mib(octets: Option<u64>) -> f64 {
    // Sizes here are far below 2^52.
    #[allow(clippy::cast_precision_loss)]
    octets.map_or(f64::NAN, |octets| octets as f64 / MIB)
}

/// Median and range of some durations.
struct Spread {
    least: Duration,
    median: Duration,
    most: Duration,
}

impl Spread {
    fn of(mut values: Vec<Duration>) -> Self {
        values.sort_unstable();
        let at = |index: usize| values.get(index).copied().unwrap_or_default();
        Self { least: at(0), median: at(values.len() / 2), most: at(values.len().saturating_sub(1)) }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |value: Duration| value.as_secs_f64() * 1e3;
        write!(
            formatter,
            "median {:6.1} ms  (least {:.1}, most {:.1})",
            ms(self.median),
            ms(self.least),
            ms(self.most)
        )
    }
}
