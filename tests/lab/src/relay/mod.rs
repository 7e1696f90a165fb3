//! A bad network in user space: a UDP relay between client and gateway that delays, loses, doubles and reorders datagrams,
//! goes dark on request, and puts forged ones in between. Which datagrams it hits is decided by a seed.
//!
//! The client talks to the relay's address as if it were the gateway's; each client socket gets a socket of its own towards
//! the gateway, so the relay is also a NAT.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsFd,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{
    error::{Context, Result},
    netns::Namespace,
};

/// How bad the network is. The default is a good one.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Conditions {
    /// Added to each datagram, each way.
    pub delay: Duration,
    /// Up to that much more, at random, so that datagrams overtake each other.
    pub jitter: Duration,
    /// Share of datagrams that vanish, 0 to 1.
    pub loss: f64,
    /// Share of datagrams that arrive twice, 0 to 1.
    pub duplicate: f64,
    /// Nothing passes at all.
    pub dark: bool,
}

/// Makes a datagram to be sent back to the client ahead of what the gateway answers, from the client's datagram.
pub type Forge = Box<dyn Fn(&[u8]) -> Option<Vec<u8>> + Send>;

/// A running relay; it ends when dropped.
#[derive(Debug)]
pub struct Relay {
    shared: Arc<Shared>,
}

struct Shared {
    conditions: Mutex<Conditions>,
    forge: Mutex<Option<Forge>>,
    stop: Mutex<bool>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shared").field("conditions", &self.conditions).finish_non_exhaustive()
    }
}

impl Relay {
    /// Relays each of `ports` of `listen` to the same port of `gateway`.
    ///
    /// # Errors
    /// When a port cannot be bound.
    pub fn start(
        namespace: &Namespace,
        listen: IpAddr,
        gateway: IpAddr,
        ports: &[u16],
        seed: u64,
    ) -> Result<Self> {
        let shared = Arc::new(Shared {
            conditions: Mutex::new(Conditions::default()),
            forge: Mutex::new(None),
            stop: Mutex::new(false),
        });
        for port in ports {
            let listener = namespace.bind_udp(SocketAddr::new(listen, *port))?;
            listener.set_nonblocking(true).context(|| "relay socket".to_owned())?;
            let mut direction = Port {
                shared: Arc::clone(&shared),
                namespace: namespace.clone(),
                listener,
                target: SocketAddr::new(gateway, *port),
                upstream: HashMap::new(),
                pending: BinaryHeap::new(),
                random: seed.wrapping_mul(2).wrapping_add(u64::from(*port) * 2 + 1),
                count: 0,
            };
            thread::spawn(move || direction.run());
        }
        Ok(Self { shared })
    }

    /// Changes the network from now on.
    pub fn set(&self, conditions: Conditions) {
        *lock(&self.shared.conditions) = conditions;
    }

    /// From now on, asks `forge` for a datagram to send back for each one of the client's.
    pub fn forge(&self, forge: Forge) {
        *lock(&self.shared.forge) = Some(forge);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        *lock(&self.shared.stop) = true;
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pending {
    due: Instant,
    /// Keeps the order of datagrams that are due at the same moment.
    number: u64,
    client: SocketAddr,
    to_gateway: bool,
    bytes: Vec<u8>,
}

struct Port {
    shared: Arc<Shared>,
    namespace: Namespace,
    listener: UdpSocket,
    target: SocketAddr,
    upstream: HashMap<SocketAddr, UdpSocket>,
    pending: BinaryHeap<Reverse<Pending>>,
    random: u64,
    count: u64,
}

impl Port {
    fn run(&mut self) {
        let mut buffer = vec![0; 65_536];
        while !*lock(&self.shared.stop) {
            self.wait();
            while let Ok((length, client)) = self.listener.recv_from(&mut buffer) {
                let bytes = buffer.get(..length).unwrap_or_default();
                if let Some(forged) = lock(&self.shared.forge).as_ref().and_then(|forge| forge(bytes)) {
                    let _ = self.listener.send_to(&forged, client);
                }
                self.schedule(client, true, bytes);
            }
            let mut arrived = Vec::new();
            for (client, socket) in &self.upstream {
                while let Ok(length) = socket.recv(&mut buffer) {
                    arrived.push((*client, buffer.get(..length).unwrap_or_default().to_vec()));
                }
            }
            for (client, bytes) in arrived {
                self.schedule(client, false, &bytes);
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

    fn schedule(&mut self, client: SocketAddr, to_gateway: bool, bytes: &[u8]) {
        let conditions = *lock(&self.shared.conditions);
        if conditions.dark || self.chance(conditions.loss) {
            return;
        }
        let copies = if self.chance(conditions.duplicate) { 2 } else { 1 };
        for _ in 0..copies {
            let jitter = conditions.jitter.mul_f64(self.fraction());
            self.count += 1;
            self.pending.push(Reverse(Pending {
                due: Instant::now() + conditions.delay + jitter,
                number: self.count,
                client,
                to_gateway,
                bytes: bytes.to_vec(),
            }));
        }
    }

    fn deliver(&mut self) {
        let now = Instant::now();
        while self.pending.peek().is_some_and(|Reverse(next)| next.due <= now) {
            let Some(Reverse(next)) = self.pending.pop() else { return };
            if next.to_gateway {
                if let Some(socket) = self.upstream_of(next.client) {
                    let _ = socket.send(&next.bytes);
                }
            } else {
                let _ = self.listener.send_to(&next.bytes, next.client);
            }
        }
    }

    fn upstream_of(&mut self, client: SocketAddr) -> Option<&UdpSocket> {
        if !self.upstream.contains_key(&client) {
            let local: SocketAddr =
                if self.target.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
            let socket = self.namespace.bind_udp(local).ok()?;
            socket.connect(self.target).ok()?;
            socket.set_nonblocking(true).ok()?;
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

/// The value of a mutex; a panic elsewhere does not make these values wrong.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers every datagram that comes to `ports` of `address` by what `answer` makes of it: a gateway that is none.
///
/// # Errors
/// When a port cannot be bound.
pub fn answer_with(
    namespace: &Namespace,
    address: IpAddr,
    ports: &[u16],
    answer: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + Clone + 'static,
) -> Result<FalseGateway> {
    let stop = Arc::new(Mutex::new(false));
    for port in ports {
        let socket = namespace.bind_udp(SocketAddr::new(address, *port))?;
        socket.set_read_timeout(Some(Duration::from_millis(100))).context(|| "false gateway".to_owned())?;
        let (stop, answer) = (Arc::clone(&stop), answer.clone());
        thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while !*lock(&stop) {
                let Ok((length, peer)) = socket.recv_from(&mut buffer) else { continue };
                for reply in answer(buffer.get(..length).unwrap_or_default()) {
                    let _ = socket.send_to(&reply, peer);
                }
            }
        });
    }
    Ok(FalseGateway { stop })
}

/// What [`answer_with`] runs; it ends when dropped.
#[derive(Debug)]
pub struct FalseGateway {
    stop: Arc<Mutex<bool>>,
}

impl Drop for FalseGateway {
    fn drop(&mut self) {
        *lock(&self.stop) = true;
    }
}
