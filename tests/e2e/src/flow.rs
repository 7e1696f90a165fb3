//! What a user would notice: a TCP connection that lives or does not, and the states that are shown meanwhile.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use ropewalk_lab::{Namespace, Process, Site, site::SERVER_V4, until};
use serde_json::Value;

use crate::{Client, PATIENCE};

/// How often the connection is used.
const BEAT: Duration = Duration::from_millis(20);
/// A connection that is silent for longer is taken for dead.
const DEAD: Duration = Duration::from_secs(40);
const PORT: u16 = 9099;

/// One TCP connection through the tunnel to an echo behind the gateway, used all the time.
#[derive(Debug)]
pub struct Flow {
    stop: Arc<AtomicBool>,
    beats: Arc<AtomicU64>,
    worker: Option<JoinHandle<Result<Duration>>>,
}

impl Flow {
    /// Opens it.
    ///
    /// # Errors
    /// When the server cannot be reached through the tunnel.
    pub fn open(site: &Site) -> Result<Self> {
        Self::between(&site.client, &site.server, 1)
    }

    /// The same between two namespaces, with so many octets each time, both ways: with more than a few it is a transfer.
    ///
    /// # Errors
    /// When the server cannot be reached through the tunnel.
    pub fn between(client: &Namespace, server: &Namespace, octets: usize) -> Result<Self> {
        let address = SocketAddr::new(SERVER_V4.into(), PORT);
        let listener = server.listen_tcp(address)?;
        let (stop, beats) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        thread::spawn(move || {
            let Ok((mut stream, _)) = listener.accept() else { return };
            let mut received = vec![0; octets];
            while stream.read_exact(&mut received).is_ok() && stream.write_all(&received).is_ok() {}
        });
        let mut stream = client.connect_tcp(address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DEAD))?;
        let (told, counted) = (Arc::clone(&stop), Arc::clone(&beats));
        let worker = thread::spawn(move || {
            let mut longest = Duration::ZERO;
            let mut received = vec![0; octets];
            for beat in 0u32.. {
                if told.load(Ordering::Relaxed) {
                    break;
                }
                let began = Instant::now();
                let sent: Vec<u8> = beat.to_le_bytes().into_iter().cycle().take(octets).collect();
                stream.write_all(&sent).context("the TCP connection broke")?;
                stream.read_exact(&mut received).context("the TCP connection is dead")?;
                ensure!(sent == received, "other octets came back");
                longest = longest.max(began.elapsed());
                counted.fetch_add(1, Ordering::Relaxed);
                thread::sleep(BEAT);
            }
            Ok(longest)
        });
        let flow = Self { stop, beats, worker: Some(worker) };
        flow.goes_on(PATIENCE)?;
        Ok(flow)
    }

    /// Waits until something comes back that is sent from now on.
    ///
    /// # Errors
    /// When nothing does.
    pub fn goes_on(&self, limit: Duration) -> Result<()> {
        // One may be under way already.
        let wanted = self.beats.load(Ordering::Relaxed) + 2;
        until("an answer over TCP", limit, || (self.beats.load(Ordering::Relaxed) >= wanted).then_some(()))?;
        Ok(())
    }

    /// Ends it; the longest time that an answer took.
    ///
    /// # Errors
    /// When the connection broke.
    pub fn close(mut self) -> Result<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        let worker = self.worker.take().context("closed already")?;
        worker.join().map_err(|_| anyhow!("the flow's thread panicked"))?
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The states that `ropewalk watch --json` shows.
#[derive(Debug)]
pub struct StateLog {
    process: Process,
}

impl StateLog {
    /// Begins to watch a connection that stands.
    ///
    /// # Errors
    /// When nothing is shown.
    pub fn watch(client: &Client, name: &str) -> Result<Self> {
        let mut process = client.cli_in_background(&["watch", "--json"], name)?;
        process.wait_for_log("connected", PATIENCE)?;
        Ok(Self { process })
    }

    /// Every status shown so far.
    ///
    /// # Errors
    /// When a line is no JSON.
    pub fn all(&self) -> Result<Vec<Value>> {
        let log = self.process.log();
        // The last line may be in the making.
        let whole = log.rfind('\n').map_or("", |end| &log[..end]);
        whole.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }

    /// The states so far, each as often as it began.
    ///
    /// # Errors
    /// When a line is no JSON.
    pub fn states(&self) -> Result<Vec<String>> {
        let mut states: Vec<String> = Vec::new();
        for status in self.all()? {
            let state = status.get("state").and_then(Value::as_str).unwrap_or_default();
            if states.last().is_none_or(|last| last != state) {
                states.push(state.to_owned());
            }
        }
        Ok(states)
    }

    /// Waits until the newest status is in this state, with `word` in its error's message; how long that took.
    ///
    /// # Errors
    /// When it does not come.
    pub fn reaches(&self, state: &str, word: &str, limit: Duration) -> Result<Duration> {
        let began = Instant::now();
        let found = until(&format!("the state {state} {word}"), limit, || {
            let last = self.all().ok()?.pop()?;
            let message = last.pointer("/error/message").and_then(Value::as_str).unwrap_or_default();
            let right = last.get("state").and_then(Value::as_str) == Some(state);
            (right && message.contains(word)).then_some(())
        });
        ensure!(found.is_ok(), "the state {state} {word:?} did not come: {:?}", self.all()?.last());
        Ok(began.elapsed())
    }
}
