//! One port of a relay: its thread waits for datagrams and for the time at which they are due.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{setsockopt, sockopt},
};

use super::{Conditions, KEPT, LONGEST_QUEUE, Recorded, Shared, is_esp, lock};
use crate::{
    error::{Context, Result},
    netns::Namespace,
};

/// Octets that wait in a socket while the relay has no turn: half a second at 100 Mbit/s, counted as the kernel does.
const BUFFER: usize = 16 << 20;
/// Datagrams taken from one socket before the others have their turn.
const BATCH: usize = 256;

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pending {
    due: Instant,
    /// Keeps the order of datagrams that are due at the same moment.
    number: u64,
    client: SocketAddr,
    to_gateway: bool,
    bytes: Vec<u8>,
}

pub(super) struct Port {
    shared: Arc<Shared>,
    /// Which of the relay's ports.
    index: usize,
    namespace: Namespace,
    listener: UdpSocket,
    target: SocketAddr,
    upstream: HashMap<SocketAddr, UdpSocket>,
    forgotten: u64,
    pending: BinaryHeap<Reverse<Pending>>,
    /// When the link has sent what it has, to the gateway and to clients.
    free_at: [Instant; 2],
    random: u64,
    count: u64,
}

impl Port {
    pub(super) fn open(
        shared: Arc<Shared>,
        index: usize,
        namespace: &Namespace,
        listen: SocketAddr,
        target: SocketAddr,
        seed: u64,
    ) -> Result<Self> {
        let listener = namespace.bind_udp(listen)?;
        prepare(&listener).context(|| format!("a relay at {listen}"))?;
        Ok(Self {
            shared,
            index,
            namespace: namespace.clone(),
            listener,
            target,
            upstream: HashMap::new(),
            forgotten: 0,
            pending: BinaryHeap::new(),
            free_at: [Instant::now(); 2],
            random: seed,
            count: 0,
        })
    }

    pub(super) fn run(&mut self) {
        let mut buffer = vec![0; 65_536];
        while !*lock(&self.shared.stop) {
            self.wait();
            self.forget();
            self.play_again();
            let conditions = *lock(&self.shared.conditions);
            for _ in 0..BATCH {
                let Ok((length, client)) = self.listener.recv_from(&mut buffer) else { break };
                let bytes = buffer.get(..length).unwrap_or_default();
                if let Some(forged) = lock(&self.shared.forge).as_ref().and_then(|forge| forge(bytes)) {
                    let _ = self.listener.send_to(&forged, client);
                }
                self.schedule(&conditions, client, true, bytes);
            }
            let mut arrived = Vec::new();
            for (client, socket) in &self.upstream {
                for _ in 0..BATCH {
                    let Ok(length) = socket.recv(&mut buffer) else { break };
                    arrived.push((*client, buffer.get(..length).unwrap_or_default().to_vec()));
                }
            }
            for (client, bytes) in arrived {
                self.schedule(&conditions, client, false, &bytes);
            }
            self.deliver();
        }
    }

    /// Until a socket is readable or a datagram is due, at most 50 ms.
    fn wait(&self) {
        let mut limit = Duration::from_millis(50);
        if let Some(Reverse(next)) = self.pending.peek() {
            limit = limit.min(next.due.saturating_duration_since(Instant::now()));
        }
        let mut sockets = vec![PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        sockets.extend(self.upstream.values().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)));
        // Rounded up, so that a datagram due in half a millisecond does not spin.
        let milliseconds = u16::try_from(limit.as_micros().div_ceil(1000)).unwrap_or(50);
        let _ = poll(&mut sockets, PollTimeout::from(milliseconds));
    }

    fn forget(&mut self) {
        let wanted = *lock(&self.shared.forgotten);
        if self.forgotten != wanted {
            self.forgotten = wanted;
            self.upstream.clear();
        }
    }

    fn play_again(&mut self) {
        let again = self.shared.ports.get(self.index).map(|tape| std::mem::take(&mut *lock(&tape.again)));
        for Recorded { client, to_gateway, bytes, port: _ } in again.into_iter().flatten() {
            self.send(client, to_gateway, &bytes);
        }
    }

    fn schedule(&mut self, conditions: &Conditions, client: SocketAddr, to_gateway: bool, bytes: &[u8]) {
        if conditions.dark || self.chance(conditions.loss) {
            return;
        }
        let copies = if self.chance(conditions.duplicate) { 2 } else { 1 };
        for _ in 0..copies {
            let Some(sent) = self.through(conditions.rate, to_gateway, bytes.len()) else { continue };
            let jitter = conditions.jitter.mul_f64(self.fraction());
            self.count += 1;
            self.pending.push(Reverse(Pending {
                due: sent + conditions.delay + jitter,
                number: self.count,
                client,
                to_gateway,
                bytes: bytes.to_vec(),
            }));
        }
    }

    /// When the link has sent so many octets more; never when the queue before it is full.
    fn through(&mut self, rate: u64, to_gateway: bool, octets: usize) -> Option<Instant> {
        let now = Instant::now();
        let free_at = self.free_at.get_mut(usize::from(to_gateway))?;
        if rate == 0 {
            return Some(now);
        }
        let begin = now.max(*free_at);
        if begin > now + LONGEST_QUEUE {
            return None;
        }
        *free_at = begin + Duration::from_nanos(octets as u64 * 1_000_000_000 / rate);
        Some(*free_at)
    }

    fn deliver(&mut self) {
        let now = Instant::now();
        let mut esp = [0, 0];
        while self.pending.peek().is_some_and(|Reverse(next)| next.due <= now) {
            let Some(Reverse(next)) = self.pending.pop() else { break };
            if is_esp(&next.bytes)
                && let Some(count) = esp.get_mut(usize::from(next.to_gateway))
            {
                *count += 1;
            }
            self.send(next.client, next.to_gateway, &next.bytes);
            if let Some(tape) = self.shared.ports.get(self.index)
                && let Some(kept) = lock(&tape.kept).as_mut()
                && kept.len() < KEPT
            {
                let Pending { client, to_gateway, bytes, .. } = next;
                kept.push_back(Recorded { port: self.index, client, to_gateway, bytes });
            }
        }
        let [down, up] = esp;
        if up + down > 0 {
            let mut passed = lock(&self.shared.passed);
            (passed.up, passed.down) = (passed.up + up, passed.down + down);
        }
    }

    fn send(&mut self, client: SocketAddr, to_gateway: bool, bytes: &[u8]) {
        if !to_gateway {
            let _ = self.listener.send_to(bytes, client);
        } else if let Some(socket) = self.upstream_of(client) {
            let _ = socket.send(bytes);
        }
    }

    fn upstream_of(&mut self, client: SocketAddr) -> Option<&UdpSocket> {
        if !self.upstream.contains_key(&client) {
            let local: SocketAddr =
                if self.target.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
            let socket = self.namespace.bind_udp(local).ok()?;
            socket.connect(self.target).ok()?;
            prepare(&socket).ok()?;
            self.upstream.insert(client, socket);
        }
        self.upstream.get(&client)
    }

    fn chance(&mut self, share: f64) -> bool {
        share > 0.0 && self.fraction() < share
    }

    /// A number from 0 up to 1 (xorshift64).
    fn fraction(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        f64::from(u32::try_from(self.random >> 32).unwrap_or_default()) / (f64::from(u32::MAX) + 1.0)
    }
}

fn prepare(socket: &UdpSocket) -> std::io::Result<()> {
    setsockopt(socket, sockopt::RcvBufForce, &BUFFER)?;
    socket.set_nonblocking(true)
}
