//! Renewal against a real strongSwan while traffic flows: CHILD_SA and IKE_SA rekeyed from both sides, and a new login before
//! the gateway's AUTH_LIFETIME is over. No datagram of a hundred a second is lost, and no TCP transfer stalls.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ropewalk_e2e::{
    AuthKind, Client, ClientOptions, Credentials, Gateway, GatewayKind, Offer, PATIENCE, ProfileText, in_lab,
};
use ropewalk_lab::{Lab, Namespace, Site, SiteOptions, Swan, site::GATEWAY_V4, until};
use serde_json::Value;

/// What a transfer may stand still for at most.
const STALL: Duration = Duration::from_millis(200);
/// Between two datagrams.
const BEAT: Duration = Duration::from_millis(10);
/// How long an echo may take before it counts as lost.
const ECHO_LIMIT: Duration = Duration::from_secs(2);

/// What traffic felt while something happened.
#[derive(Debug, Clone, Copy)]
struct Felt {
    sent: u32,
    lost: u32,
    /// The longest time in which no octet of the TCP transfer came.
    stall: Duration,
}

/// Echoed datagrams at a hundred a second and a TCP download beside them, until stopped.
struct Traffic {
    stop: Arc<AtomicBool>,
    echoes: thread::JoinHandle<Result<(u32, u32)>>,
    transfer: thread::JoinHandle<Result<Duration>>,
}

impl Traffic {
    fn start(from: &Namespace) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let server = Site::transfer_v4();
        let socket = from.bind_udp(SocketAddr::from(([0; 4], 0)))?;
        socket.connect(server)?;
        let mut stream = from.connect_tcp(server, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"DOWN 1000000000000 7\n")?;
        let echoes = thread::spawn({
            let stop = Arc::clone(&stop);
            let answers = socket.try_clone()?;
            answers.set_read_timeout(Some(ECHO_LIMIT))?;
            move || {
                let receiver = thread::spawn(move || {
                    let mut seen = Vec::new();
                    let mut buffer = [0; 16];
                    while let Ok(length) = answers.recv(&mut buffer) {
                        let number = buffer.get(..length).and_then(|octets| octets.try_into().ok());
                        seen.extend(number.map(u32::from_be_bytes));
                    }
                    seen
                });
                let mut sent = 0_u32;
                while !stop.load(Ordering::Relaxed) {
                    socket.send(&sent.to_be_bytes())?;
                    sent += 1;
                    thread::sleep(BEAT);
                }
                let Ok(mut seen) = receiver.join() else { bail!("the receiver of echoes panicked") };
                seen.sort_unstable();
                seen.dedup();
                Ok((sent, sent - u32::try_from(seen.len())?))
            }
        });
        let transfer = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let mut buffer = vec![0; 32 * 1024];
                let mut longest = Duration::ZERO;
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    ensure!(stream.read(&mut buffer)? > 0, "the transfer ended");
                    longest = longest.max(began.elapsed());
                    // Slower than the way carries, so that queues stay short and only a stall makes a read wait.
                    thread::sleep(Duration::from_millis(4));
                }
                Ok(longest)
            }
        });
        Ok(Self { stop, echoes, transfer })
    }

    fn stop(self) -> Result<Felt> {
        self.stop.store(true, Ordering::Relaxed);
        let (Ok(echoes), Ok(stall)) = (self.echoes.join(), self.transfer.join()) else {
            bail!("a thread of the traffic panicked");
        };
        let (sent, lost) = echoes?;
        Ok(Felt { sent, lost, stall: stall? })
    }
}

/// A connection to strongSwan that stands.
struct Up {
    client: Client,
    gateway: Gateway,
    site: Site,
}

impl Up {
    fn new(lab: &Lab, kind: AuthKind, esp: &str, timing: &str, reauth: u32) -> Result<Self> {
        Self::started(lab, ClientOptions::default(), kind, (esp, timing), reauth)
    }

    fn started(
        lab: &Lab,
        options: ClientOptions,
        kind: AuthKind,
        (esp, timing): (&str, &str),
        reauth: u32,
    ) -> Result<Self> {
        let site = Site::new(lab, SiteOptions::default())?;
        let credentials = Credentials::new(kind)?;
        let offer = Offer { esp: Some(esp.to_owned()), reauth, ..Offer::new(kind) };
        let gateway = Gateway::start(GatewayKind::StrongSwan, &site, &offer, &credentials)?;
        let client = Client::start_with(&site.client, options)?;
        let mut profile = ProfileText::new(kind, &credentials, &GATEWAY_V4.to_string());
        profile.timing = timing.to_owned();
        profile.esp = Some(esp.to_owned());
        client.connect(&profile, credentials.password_for(kind))?;
        ensure!(site.client.ping("10.77.50.2", 1)?, "ping before");
        Ok(Self { client, gateway, site })
    }

    fn swan(&self) -> Result<&Swan> {
        match &self.gateway {
            Gateway::StrongSwan(swan) => Ok(swan),
            Gateway::Reference(_) => bail!("this is about strongSwan"),
        }
    }

    /// What the traffic feels while `act` runs, against what it feels on this machine anyway.
    fn unnoticed(&self, act: impl FnOnce() -> Result<()>) -> Result<()> {
        let traffic = Traffic::start(&self.site.client)?;
        thread::sleep(Duration::from_secs(3));
        let usual = traffic.stop()?;
        let traffic = Traffic::start(&self.site.client)?;
        thread::sleep(Duration::from_millis(500));
        act()?;
        thread::sleep(Duration::from_secs(1));
        let felt = traffic.stop()?;
        eprintln!("usual {usual:?}, meanwhile {felt:?}");
        ensure!(
            felt.lost == 0,
            "lost {} of {} (without: {} of {})",
            felt.lost,
            felt.sent,
            usual.lost,
            usual.sent
        );
        // A machine that stalls by itself does so without us, too.
        ensure!(
            felt.stall < STALL.max(usual.stall * 2),
            "the transfer stood still: {felt:?}, usually {usual:?}"
        );
        Ok(())
    }

    /// Waits until this part of the status is another one.
    fn changes(&self, pointer: &str, from: &Value, limit: Duration) -> Result<()> {
        Ok(until(&format!("another {pointer}"), limit, || {
            let now = self.client.status_at(pointer).ok()?;
            (now != *from && !now.is_null()).then_some(())
        })?)
    }

    fn control(&self, arguments: &[&str]) -> Result<()> {
        self.swan()?.control(arguments, PATIENCE)?.success()?;
        Ok(())
    }

    /// One IKE_SA and one CHILD_SA, on both sides, and still the same client.
    fn at_rest(&self) -> Result<()> {
        until("one SA of each kind", Duration::from_secs(30), || {
            let list = self.swan().ok()?.list_sas().ok()?;
            let children = self.client.status_at("/children").ok()?;
            let one = list.matches("ESTABLISHED").count() == 1 && list.matches("INSTALLED").count() == 1;
            (one && children.as_array().map(Vec::len) == Some(1)).then_some(())
        })
        .with_context(|| self.swan().and_then(|swan| Ok(swan.list_sas()?)).unwrap_or_default())?;
        ensure!(self.client.state()? == "connected");
        ensure!(!self.client.helper_log().contains("reconnecting"), "it was never lost");
        ensure!(self.site.client.ping("10.77.50.2", 2)?, "ping after");
        self.client.disconnect()
    }
}

const CHILD: &str = "/children/0/spi_in";
const IKE: &str = "/ike/0/spi_i";

#[test]
fn the_gateways_rekeys_of_child_and_ike_sa_are_not_noticed_by_traffic() -> Result<()> {
    for esp in ["aes256gcm16", "aes256gcm16-x25519"] {
        in_lab(|lab| {
            let up = Up::new(lab, AuthKind::Psk, esp, "", 0)?;
            up.unnoticed(|| {
                let (child, ike) = (up.client.status_at(CHILD)?, up.client.status_at(IKE)?);
                up.control(&["--rekey", "--child", "net"])?;
                up.changes(CHILD, &child, PATIENCE)?;
                up.control(&["--rekey", "--ike", "psk"])?;
                up.changes(IKE, &ike, PATIENCE)?;
                // On the new IKE_SA, which the gateway began.
                let child = up.client.status_at(CHILD)?;
                up.control(&["--rekey", "--child", "net"])?;
                up.changes(CHILD, &child, PATIENCE)
            })?;
            up.at_rest()
        })?;
    }
    Ok(())
}

#[test]
fn our_rekeys_of_child_and_ike_sa_are_not_noticed_by_traffic() -> Result<()> {
    for esp in ["aes256gcm16", "aes256gcm16-x25519"] {
        in_lab(|lab| {
            let up = Up::new(lab, AuthKind::Psk, esp, "child_rekey = 10\nike_rekey = 14\n", 0)?;
            let (child, ike) = (up.client.status_at(CHILD)?, up.client.status_at(IKE)?);
            up.unnoticed(|| {
                up.changes(CHILD, &child, Duration::from_secs(15))?;
                up.changes(IKE, &ike, Duration::from_secs(15))
            })?;
            // A CHILD_SA of the new IKE_SA, and whatever the gateway says to it.
            let child = up.client.status_at(CHILD)?;
            up.changes(CHILD, &child, Duration::from_secs(15))?;
            ensure!(up.client.state()? == "connected");
            ensure!(up.site.client.ping("10.77.50.2", 2)?, "ping after");
            up.client.disconnect()
        })?;
    }
    Ok(())
}

#[test]
fn a_limit_of_octets_renews_the_child_again_and_again_and_traffic_does_not_notice() -> Result<()> {
    in_lab(|lab| {
        let up = Up::new(lab, AuthKind::Psk, "aes256gcm16", "child_rekey_bytes = 8000000\n", 0)?;
        up.unnoticed(|| {
            for _ in 0..3 {
                let child = up.client.status_at(CHILD)?;
                up.changes(CHILD, &child, PATIENCE)?;
            }
            Ok(())
        })?;
        up.at_rest()
    })
}

#[test]
fn sequence_numbers_that_run_low_renew_the_child_and_traffic_does_not_notice() -> Result<()> {
    in_lab(|lab| {
        // A thousand packets before three quarters of 32 bits are used, in each CHILD_SA anew.
        let begin = u64::from(u32::MAX) / 4 * 3 - 1000;
        let arguments = vec!["--esp-sequence".to_owned(), begin.to_string()];
        let options = ClientOptions { arguments, ..ClientOptions::default() };
        let up = Up::started(lab, options, AuthKind::Psk, ("aes256gcm16", ""), 0)?;
        up.unnoticed(|| {
            for _ in 0..2 {
                let child = up.client.status_at(CHILD)?;
                up.changes(CHILD, &child, PATIENCE)?;
            }
            Ok(())
        })?;
        ensure!(up.client.helper_log().contains("sequence numbers run low"), "something else renewed it");
        up.at_rest()
    })
}

#[test]
fn a_login_that_holds_for_a_time_only_is_renewed_before_and_traffic_does_not_notice() -> Result<()> {
    in_lab(|lab| {
        let up = Up::new(lab, AuthKind::EapMschapv2, "aes256gcm16", "", 20)?;
        let ike = up.client.status_at(IKE)?;
        let addresses = up.client.status_at("/addresses")?;
        up.unnoticed(|| up.changes(IKE, &ike, Duration::from_secs(20)))?;
        ensure!(up.client.status_at("/addresses")? == addresses, "the same inner addresses");
        ensure!(up.client.state()? == "connected");
        ensure!(up.site.client.ping("10.77.50.2", 2)?, "ping after");
        up.client.disconnect()
    })
}
