//! A bad network in user space: a UDP relay between client and gateway that delays, loses, doubles and reorders datagrams,
//! lets through so many a second, goes dark on request, puts forged ones in between, and plays old ones again. Which datagrams
//! it hits is decided by a seed.
//!
//! The client talks to the relay's address as if it were the gateway's; each client socket gets a socket of its own towards
//! the gateway, so the relay is also a NAT.

mod port;

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use self::port::Port;
use crate::{
    error::{Context, Result},
    netns::Namespace,
};

/// Datagrams that a relay which records keeps of each port.
const KEPT: usize = 20_000;

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
    /// Octets of datagrams that pass in a second, each way; 0 for as many as come. What comes in excess waits, and vanishes
    /// when it would wait for more than [`LONGEST_QUEUE`].
    pub rate: u64,
}

/// What would have to wait for longer at a limited rate is lost, as in the buffer of a router.
pub const LONGEST_QUEUE: Duration = Duration::from_millis(40);

/// How many datagrams of ESP a relay has let through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Passed {
    /// From clients to the gateway.
    pub up: u64,
    /// From the gateway to clients.
    pub down: u64,
}

/// A datagram that passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Which of the relay's ports it came by.
    port: usize,
    client: SocketAddr,
    /// Its direction.
    pub to_gateway: bool,
    /// The datagram.
    pub bytes: Vec<u8>,
}

impl Recorded {
    /// It is ESP: neither IKE, which begins with a marker of zeros, nor a keepalive.
    #[must_use]
    pub fn is_esp(&self) -> bool {
        is_esp(&self.bytes)
    }
}

fn is_esp(bytes: &[u8]) -> bool {
    bytes.first_chunk::<4>().is_some_and(|spi| *spi != [0; 4])
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
    passed: Mutex<Passed>,
    /// The mappings are to be forgotten, counted by how often that was wanted.
    forgotten: Mutex<u64>,
    ports: Vec<Tape>,
}

/// What is kept of one port, and what is to be played again.
#[derive(Debug, Default)]
struct Tape {
    /// `None` while nothing is recorded.
    kept: Mutex<Option<VecDeque<Recorded>>>,
    again: Mutex<Vec<Recorded>>,
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
        let between = |port: &u16| (SocketAddr::new(listen, *port), SocketAddr::new(gateway, *port));
        Self::between(namespace, &ports.iter().map(between).collect::<Vec<_>>(), seed)
    }

    /// Relays what comes to the first address of each pair to the second one.
    ///
    /// # Errors
    /// When an address cannot be bound.
    pub fn between(namespace: &Namespace, pairs: &[(SocketAddr, SocketAddr)], seed: u64) -> Result<Self> {
        let shared = Arc::new(Shared {
            conditions: Mutex::new(Conditions::default()),
            forge: Mutex::new(None),
            stop: Mutex::new(false),
            passed: Mutex::new(Passed::default()),
            forgotten: Mutex::new(0),
            ports: pairs.iter().map(|_| Tape::default()).collect(),
        });
        for (number, (listen, target)) in pairs.iter().enumerate() {
            let seed = seed.wrapping_mul(2).wrapping_add(u64::from(target.port()) * 2 + 1);
            let mut port = Port::open(Arc::clone(&shared), number, namespace, *listen, *target, seed)?;
            thread::spawn(move || port.run());
        }
        Ok(Self { shared })
    }

    /// Changes the network from now on.
    pub fn set(&self, conditions: Conditions) {
        *lock(&self.shared.conditions) = conditions;
    }

    /// The network as it is now.
    #[must_use]
    pub fn conditions(&self) -> Conditions {
        *lock(&self.shared.conditions)
    }

    /// How many datagrams of ESP have passed.
    #[must_use]
    pub fn passed(&self) -> Passed {
        *lock(&self.shared.passed)
    }

    /// Forgets its mappings, as a NAT that was started again: what comes next leaves by other ports.
    pub fn forget(&self) {
        *lock(&self.shared.forgotten) += 1;
    }

    /// Keeps what passes from now on.
    pub fn record(&self) {
        self.shared.ports.iter().for_each(|tape| *lock(&tape.kept) = Some(VecDeque::new()));
    }

    /// Ends the recording and hands it out.
    #[must_use]
    pub fn recorded(&self) -> Vec<Recorded> {
        self.shared.ports.iter().flat_map(|tape| lock(&tape.kept).take().unwrap_or_default()).collect()
    }

    /// Sends all of this from where it came, whatever the network is like. It is not counted as passed.
    pub fn play(&self, again: impl IntoIterator<Item = Recorded>) {
        for datagram in again {
            if let Some(tape) = self.shared.ports.get(datagram.port) {
                lock(&tape.again).push(datagram);
            }
        }
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
