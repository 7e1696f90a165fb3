//! A hundred pings a second through the tunnel, each known by its number: how many were lost, and for how long none came.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use ropewalk_lab::Namespace;

/// Between two pings.
pub const BETWEEN: Duration = Duration::from_millis(10);
/// A ping that has not come back after this is lost.
const LATE: Duration = Duration::from_secs(2);

/// One ping.
#[derive(Debug, Clone, Copy)]
struct Ping {
    sent: Instant,
    back: Option<Instant>,
}

/// Pings that go on until they are ended.
#[derive(Debug)]
pub struct Pings {
    stop: Arc<AtomicBool>,
    all: Arc<Mutex<Vec<Ping>>>,
    overtaken: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

/// What came of the pings of some time.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// How many were sent.
    pub sent: usize,
    /// How many never came back.
    pub lost: usize,
    /// The longest time from one that came back to the next one sent that did, over those that did not.
    pub longest: Duration,
    /// The median of the round trips.
    pub rtt: Duration,
}

impl Outcome {
    /// How many may be lost when a path goes that another one takes the place of: one, and what was on its way.
    #[must_use]
    pub fn in_flight_and_one(&self) -> usize {
        let flying = self.rtt.as_micros().div_ceil(BETWEEN.as_micros());
        1 + usize::try_from(flying).unwrap_or(usize::MAX)
    }
}

impl Pings {
    /// Begins to ping a UDP echo, with as many octets as ping(8) sends.
    ///
    /// # Errors
    /// When there is no socket to be had.
    pub fn start(namespace: &Namespace, echo: SocketAddr) -> Result<Self> {
        Self::every(namespace, echo, BETWEEN)
    }

    /// The same with another time between two pings.
    ///
    /// # Errors
    /// When there is no socket to be had.
    pub fn every(namespace: &Namespace, echo: SocketAddr, between: Duration) -> Result<Self> {
        let local: SocketAddr = if echo.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
        let socket = namespace.bind_udp(local)?;
        socket.connect(echo).context("connect the pings' socket")?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let (stop, all) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let overtaken = Arc::new(AtomicUsize::new(0));
        let sender = {
            let (socket, stop, all) = (socket.try_clone()?, Arc::clone(&stop), Arc::clone(&all));
            thread::spawn(move || send(&socket, between, &stop, &all))
        };
        let receiver = {
            let (stop, all, overtaken) = (Arc::clone(&stop), Arc::clone(&all), Arc::clone(&overtaken));
            thread::spawn(move || receive(&socket, &stop, &all, &overtaken))
        };
        Ok(Self { stop, all, overtaken, threads: vec![sender, receiver] })
    }

    /// How many were sent so far: a mark to count from.
    #[must_use]
    pub fn mark(&self) -> usize {
        lock(&self.all).len()
    }

    /// What came of those from `mark` on that are old enough to be judged. Waits until the newest of now are.
    #[must_use]
    pub fn since(&self, mark: usize) -> Outcome {
        let end = self.mark();
        thread::sleep(LATE);
        self.between(mark, end)
    }

    /// What came of those from `mark` on and before `end` so far.
    #[must_use]
    pub fn between(&self, mark: usize, end: usize) -> Outcome {
        outcome(lock(&self.all).get(mark..end).unwrap_or_default())
    }

    /// Whether none of the last so many was lost, but for those that may be under way.
    #[must_use]
    pub fn came_lately(&self, count: usize) -> bool {
        const FLYING: usize = 5;
        let all = lock(&self.all);
        let end = all.len().saturating_sub(FLYING);
        let last = all.get(end.saturating_sub(count)..end).unwrap_or_default();
        !last.is_empty() && last.iter().all(|ping| ping.back.is_some())
    }

    /// How many came back after one that was sent later.
    #[must_use]
    pub fn overtaken(&self) -> usize {
        self.overtaken.load(Ordering::Relaxed)
    }

    /// Ends them.
    ///
    /// # Errors
    /// A thread panicked.
    pub fn stop(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| anyhow!("a thread of the pings panicked"))?;
        }
        Ok(())
    }
}

impl Drop for Pings {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn outcome(pings: &[Ping]) -> Outcome {
    let (mut lost, mut longest) = (0, Duration::ZERO);
    // The last ping that came back, and whether one was lost after it.
    let (mut last, mut gap) = (pings.first().map(|ping| ping.sent), false);
    for ping in pings {
        if ping.back.is_none() {
            (lost, gap) = (lost + 1, true);
        }
        if (ping.back.is_some() || pings.last().is_some_and(|end| end.sent == ping.sent))
            && std::mem::take(&mut gap)
            && let Some(last) = last
        {
            longest = longest.max(ping.sent.saturating_duration_since(last));
        }
        if ping.back.is_some() {
            last = Some(ping.sent);
        }
    }
    let trips = pings.iter().filter_map(|ping| Some(ping.back?.saturating_duration_since(ping.sent)));
    let mut trips: Vec<Duration> = trips.collect();
    trips.sort_unstable();
    let rtt = trips.get(trips.len() / 2).copied().unwrap_or_default();
    Outcome { sent: pings.len(), lost, longest, rtt }
}

fn send(socket: &UdpSocket, between: Duration, stop: &AtomicBool, all: &Mutex<Vec<Ping>>) {
    let begin = Instant::now();
    for number in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let mut payload = [0; 56];
        payload.iter_mut().zip(number.to_be_bytes()).for_each(|(to, from)| *to = from);
        lock(all).push(Ping { sent: Instant::now(), back: None });
        // Without a network there is nowhere to send to: a ping that is lost.
        let _ = socket.send(&payload);
        let next = begin + between.mul_f64((number + 1) as f64);
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

fn receive(socket: &UdpSocket, stop: &AtomicBool, all: &Mutex<Vec<Ping>>, overtaken: &AtomicUsize) {
    let mut buffer = [0; 100];
    let mut newest = 0;
    while !stop.load(Ordering::Relaxed) {
        let Ok(_) = socket.recv(&mut buffer) else { continue };
        let Some(number) = buffer.first_chunk::<8>() else { continue };
        let now = Instant::now();
        let number_sent = u64::from_be_bytes(*number);
        if number_sent < newest {
            overtaken.fetch_add(1, Ordering::Relaxed);
        }
        newest = newest.max(number_sent);
        if let Ok(at) = usize::try_from(number_sent)
            && let Some(ping) = lock(all).get_mut(at)
        {
            ping.back.get_or_insert(now);
        }
    }
}

fn lock(pings: &Mutex<Vec<Ping>>) -> std::sync::MutexGuard<'_, Vec<Ping>> {
    pings.lock().unwrap_or_else(PoisonError::into_inner)
}
