//! Many TCP connections at once that carry as much as they can in one direction, and whether any of them saw its packets in
//! another order than they were sent in.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use ropewalk_lab::{Site, site::SERVER_V4, tshark};

use crate::PATIENCE;

const PORT: u16 = 9100;
const CHUNK: usize = 16 * 1024;

/// Connections that carry until this is dropped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
    workers: Vec<JoinHandle<()>>,
}

impl Load {
    /// Opens so many connections from the client to the server, which carry down to the client or up from it.
    ///
    /// # Errors
    /// When the server cannot be reached through the tunnel.
    pub fn start(site: &Site, flows: usize, down: bool) -> Result<Self> {
        let address = SocketAddr::new(SERVER_V4.into(), PORT);
        let listener = site.server.listen_tcp(address)?;
        let mut load =
            Self { stop: Arc::default(), received: Arc::default(), workers: Vec::with_capacity(flows * 2) };
        // All first, for the setting up of one would lose packets to those that carry.
        let open = |_| -> Result<(TcpStream, TcpStream)> {
            let near = site.client.connect_tcp(address, PATIENCE)?;
            let (far, _) = listener.accept().context("accept")?;
            Ok(if down { (far, near) } else { (near, far) })
        };
        let pairs = (0..flows).map(open).collect::<Result<Vec<_>>>()?;
        for (from, to) in pairs {
            load.carry(from, to)?;
        }
        Ok(load)
    }

    fn carry(&mut self, mut from: TcpStream, mut to: TcpStream) -> Result<()> {
        for stream in [&from, &to] {
            stream.set_read_timeout(Some(Duration::from_millis(200)))?;
            stream.set_write_timeout(Some(Duration::from_millis(200)))?;
        }
        let stop = Arc::clone(&self.stop);
        self.workers.push(thread::spawn(move || {
            let chunk = [7; CHUNK];
            while !stop.load(Ordering::Relaxed) {
                let _ = from.write(&chunk);
            }
        }));
        let (stop, received) = (Arc::clone(&self.stop), Arc::clone(&self.received));
        self.workers.push(thread::spawn(move || {
            let mut chunk = vec![0; CHUNK * 4];
            while !stop.load(Ordering::Relaxed) {
                let count = to.read(&mut chunk).unwrap_or_default();
                received.fetch_add(count as u64, Ordering::Relaxed);
            }
        }));
        Ok(())
    }

    /// What the receivers get in this time, in megabits a second.
    #[must_use]
    pub fn megabits(&self, time: Duration) -> f64 {
        let (began, before) = (Instant::now(), self.received.load(Ordering::Relaxed));
        thread::sleep(time);
        let octets = self.received.load(Ordering::Relaxed) - before;
        octets as f64 * 8.0 / 1e6 / began.elapsed().as_secs_f64()
    }

    /// Ends it.
    ///
    /// # Errors
    /// A thread panicked.
    pub fn stop(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            worker.join().map_err(|_| anyhow!("a thread of the load panicked"))?;
        }
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// What a capture at the receiver tells of the order of the packets of each TCP connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Connections that carried.
    pub flows: usize,
    /// Packets with data.
    pub packets: usize,
    /// Those that came after one that was sent later, with what surrounded each.
    pub overtaken: Vec<String>,
}

/// The newest packet of a connection, and the pauses before the last few, in seconds.
struct Newest {
    number: u16,
    at: f64,
    pauses: [f64; 8],
}

/// Reads a capture taken where the packets are received. Linux numbers the packets of a connection in the order of sending by
/// the identification of the IP header, repetitions too, so that what was lost and sent again is not taken for overtaken.
///
/// # Errors
/// When `tshark` refuses.
pub fn order(capture: &Path, home: &Path) -> Result<Order> {
    let mut fields = vec!["-Y", "tcp.len > 0", "-T", "fields"];
    for field in ["tcp.srcport", "tcp.dstport", "ip.id", "frame.time_relative"] {
        fields.extend(["-e", field]);
    }
    let seen = tshark(capture, home, &fields)?;
    let mut newest: BTreeMap<String, Newest> = BTreeMap::new();
    let mut order = Order { flows: 0, packets: 0, overtaken: Vec::new() };
    for line in seen.lines() {
        let mut words = line.rsplitn(3, '\t');
        let (at, number, flow) = (words.next(), words.next(), words.next().context("four fields")?);
        let at: f64 = at.context("a time")?.parse().context("a time")?;
        let number = number.context("a number")?.trim_start_matches("0x");
        let number = u16::from_str_radix(number, 16).context(line.to_owned())?;
        order.packets += 1;
        let first = || Newest { number: number.wrapping_sub(1), at, pauses: [0.0; 8] };
        let last = newest.entry(flow.to_owned()).or_insert_with(first);
        let (ahead, pause) = (number.wrapping_sub(last.number), at - last.at);
        // Within half of all numbers: a connection does not send that many packets while one is under way.
        if ahead == 0 || ahead > u16::MAX / 2 {
            order.overtaken.push(format!(
                "{number:04x} of {flow} at {at:.4} s, {pause:.4} s after {:04x}, after pauses of {:.4?} s",
                last.number, last.pauses
            ));
        } else {
            last.pauses.rotate_left(1);
            last.pauses[7] = pause;
            (last.number, last.at) = (number, at);
        }
    }
    order.flows = newest.len();
    ensure!(order.packets > 0, "no packet with data was captured");
    Ok(order)
}
