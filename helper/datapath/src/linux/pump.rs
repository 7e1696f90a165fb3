//! What the owner's handle does: change the shared state, wake the threads, join them in the end.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use ipnet::IpNet;

use super::egress::{Resolved, Table, Ways};
use super::entry::Entry;
use super::inbound;
use super::outbound;
use super::port::Port;
use super::queue::{EventReceiver, Queues, lock};
use super::socket::Socket;
use super::sys::Wake;
use super::tun::Tun;
use crate::carriage::Carriage;
use crate::config::{Config, Framing, Keepalive, TunFd};
use crate::counters::{AtomicCounters, Counters};
use crate::error::DataPathError;
use crate::esp::{NEXT_HEADER_IPV4, NEXT_HEADER_IPV6};
use crate::sa::{DeviceId, Egress, InboundHandle, InboundSpec, SocketId};

/// What the threads and the handle share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) stop: AtomicBool,
    pub(super) counters: AtomicCounters,
    pub(super) queues: Arc<Queues>,
    /// Wakes the sending threads, in the end.
    pub(super) tx_wake: Wake,
    /// Wakes the receiving thread.
    pub(super) rx_wake: Wake,
    commands: Mutex<Vec<Command>>,
    has_commands: AtomicBool,
}

/// A change for the receiving thread, which alone owns sockets to poll and inbound SAs.
#[derive(Debug)]
pub(super) enum Command {
    AddSocket(Arc<Socket>),
    RemoveSocket(SocketId),
    AddInbound(Box<Entry>),
    RemoveInbound(u32),
    Keepalive(SocketId, Option<Keepalive>),
    ExpectCopies(bool),
}

impl Shared {
    fn command(&self, command: Command) {
        let mut commands = lock(&self.commands);
        commands.push(command);
        self.has_commands.store(true, Ordering::Release);
        drop(commands);
        self.rx_wake.wake();
    }

    /// The commands that wait, without a lock when there are none.
    pub(super) fn take_commands(&self) -> Vec<Command> {
        if !self.has_commands.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut commands = lock(&self.commands);
        self.has_commands.store(false, Ordering::Release);
        std::mem::take(&mut *commands)
    }

    /// An inbound SA that waits to be added, before the commands have their turn.
    pub(super) fn take_inbound(&self, spi: u32) -> Option<Entry> {
        if !self.has_commands.load(Ordering::Acquire) {
            return None;
        }
        let mut commands = lock(&self.commands);
        let waits = |command: &Command| matches!(command, Command::AddInbound(entry) if entry.spi() == spi);
        let at = commands.iter().position(waits)?;
        match commands.remove(at) {
            Command::AddInbound(entry) => Some(*entry),
            Command::AddSocket(_)
            | Command::RemoveSocket(_)
            | Command::RemoveInbound(_)
            | Command::Keepalive(..)
            | Command::ExpectCopies(_) => None,
        }
    }

    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

#[derive(Debug)]
pub(crate) struct Pump {
    shared: Arc<Shared>,
    sockets: Mutex<HashMap<SocketId, Arc<Socket>>>,
    next_socket: AtomicU32,
    inbound: Mutex<HashSet<u32>>,
    /// The devices, the main one first; their places are their numbers.
    ports: Mutex<Vec<Arc<Port>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

fn failed(doing: &'static str) -> impl Fn(io::Error) -> DataPathError {
    move |source| DataPathError::Io { doing, source }
}

impl Pump {
    pub(crate) fn start(tun: TunFd, config: Config) -> Result<(Self, EventReceiver), DataPathError> {
        let queues = Queues::new(config.ike_queue, config.event_queue).map_err(failed("make an eventfd"))?;
        let queues = Arc::new(queues);
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            counters: AtomicCounters::default(),
            queues: Arc::clone(&queues),
            tx_wake: Wake::new().map_err(failed("make an eventfd"))?,
            rx_wake: Wake::new().map_err(failed("make an eventfd"))?,
            commands: Mutex::new(Vec::new()),
            has_commands: AtomicBool::new(false),
            config,
        });
        let pump = Self {
            shared: Arc::clone(&shared),
            sockets: Mutex::default(),
            next_socket: AtomicU32::new(0),
            inbound: Mutex::default(),
            ports: Mutex::default(),
            threads: Mutex::default(),
        };
        // From here on dropping `pump` stops what was started.
        let main = pump.add_device(tun)?;
        let receiver =
            inbound::Receiver::new(Arc::clone(&shared), pump.port(main)?).map_err(failed("make an epoll"))?;
        pump.spawn("rx", move || receiver.run())?;
        Ok((pump, EventReceiver::new(queues)))
    }

    pub(crate) fn add_device(&self, tun: TunFd) -> Result<DeviceId, DataPathError> {
        let config = &self.shared.config;
        let tun = Tun::new(tun, config.offloads).map_err(failed("set up the TUN device"))?;
        let port = Arc::new(Port::new(tun, config.inner_mtu));
        let mut ports = lock(&self.ports);
        let device = DeviceId(u32::try_from(ports.len()).unwrap_or(u32::MAX));
        ports.push(Arc::clone(&port));
        drop(ports);
        let sender = outbound::Sender::new(Arc::clone(&self.shared), port);
        let name = if device == DeviceId::MAIN { "tx".to_owned() } else { format!("tx{}", device.0) };
        self.spawn(&name, move || sender.run())?;
        Ok(device)
    }

    fn port(&self, device: DeviceId) -> Result<Arc<Port>, DataPathError> {
        let at = usize::try_from(device.0).ok();
        let port = at.and_then(|at| lock(&self.ports).get(at).cloned());
        port.ok_or(DataPathError::UnknownDevice(device))
    }

    fn spawn(&self, what: &str, run: impl FnOnce() + Send + 'static) -> Result<(), DataPathError> {
        let name = format!("{}-{what}", self.shared.config.name);
        let thread = thread::Builder::new().name(name).spawn(run).map_err(failed("start a thread"))?;
        lock(&self.threads).push(thread);
        Ok(())
    }

    pub(crate) fn add_socket(&self, socket: UdpSocket, framing: Framing) -> Result<SocketId, DataPathError> {
        if self.shared.stopped() {
            return Err(DataPathError::Stopped);
        }
        let id = SocketId(self.next_socket.fetch_add(1, Ordering::Relaxed));
        let socket = Socket::new(id, socket, framing, self.shared.config.offloads)
            .map_err(failed("set up a UDP socket"))?;
        let socket = Arc::new(socket);
        lock(&self.sockets).insert(id, Arc::clone(&socket));
        self.shared.command(Command::AddSocket(socket));
        Ok(id)
    }

    pub(crate) fn remove_socket(&self, id: SocketId) -> Result<(), DataPathError> {
        let mut sockets = lock(&self.sockets);
        sockets.remove(&id).ok_or(DataPathError::UnknownSocket(id))?;
        for port in lock(&self.ports).iter() {
            change_egress(port, |table| table.remove_socket(id));
        }
        self.shared.command(Command::RemoveSocket(id));
        Ok(())
    }

    fn socket(&self, id: SocketId) -> Result<Arc<Socket>, DataPathError> {
        lock(&self.sockets).get(&id).cloned().ok_or(DataPathError::UnknownSocket(id))
    }

    pub(crate) fn send_ike(
        &self,
        socket: SocketId,
        peer: SocketAddr,
        message: &[u8],
    ) -> Result<(), DataPathError> {
        self.socket(socket)?.send_ike(peer, message).map_err(failed("send an IKE message"))
    }

    pub(crate) fn send_inner(&self, egress: &Egress, packet: &[u8]) -> Result<(), DataPathError> {
        let outbound = &egress.sa.0;
        let sequence = outbound.sequence.take(1)?;
        let next_header = if packet.first().is_some_and(|first| first >> 4 == 6) {
            NEXT_HEADER_IPV6
        } else {
            NEXT_HEADER_IPV4
        };
        let mut sealed = vec![0; outbound.sa.suite().sealed_len(packet.len())];
        outbound.sa.seal(sequence, &[packet], next_header, &mut sealed)?;
        let socket = self.socket(egress.socket)?;
        socket.send_sealed(egress.peer, &sealed).map_err(failed("send an inner packet"))
    }

    pub(crate) fn set_keepalive(
        &self,
        socket: SocketId,
        keepalive: Option<Keepalive>,
    ) -> Result<(), DataPathError> {
        self.socket(socket)?;
        self.shared.command(Command::Keepalive(socket, keepalive));
        Ok(())
    }

    pub(crate) fn add_inbound(&self, spec: InboundSpec) -> Result<InboundHandle, DataPathError> {
        if self.shared.stopped() {
            return Err(DataPathError::Stopped);
        }
        let (spi, port) = (spec.sa.spi(), self.port(spec.device)?);
        if !lock(&self.inbound).insert(spi) {
            return Err(DataPathError::DuplicateSpi(spi));
        }
        let entry = Entry::new(spec, port);
        let handle = InboundHandle { spi, counters: Arc::clone(&entry.counters) };
        self.shared.command(Command::AddInbound(Box::new(entry)));
        Ok(handle)
    }

    pub(crate) fn remove_inbound(&self, spi: u32) -> bool {
        let known = lock(&self.inbound).remove(&spi);
        if known {
            self.shared.command(Command::RemoveInbound(spi));
        }
        known
    }

    pub(crate) fn set_default(
        &self,
        device: DeviceId,
        carriage: Option<Carriage>,
    ) -> Result<(), DataPathError> {
        let port = self.port(device)?;
        let sockets = lock(&self.sockets);
        let ways = resolve(&sockets, carriage, port.egress.load().ways_to(None))?;
        change_egress(&port, |table| table.set_default(ways));
        Ok(())
    }

    pub(crate) fn set_route(
        &self,
        destination: IpNet,
        carriage: Option<Carriage>,
    ) -> Result<(), DataPathError> {
        let port = self.port(DeviceId::MAIN)?;
        let sockets = lock(&self.sockets);
        let ways = resolve(&sockets, carriage, port.egress.load().ways_to(Some(destination)))?;
        change_egress(&port, |table| table.set_route(destination, ways));
        Ok(())
    }

    pub(crate) fn set_route_by_default(&self, destination: IpNet) -> Result<(), DataPathError> {
        let port = self.port(DeviceId::MAIN)?;
        let _sockets = lock(&self.sockets);
        change_egress(&port, |table| table.set_route_by_default(destination));
        Ok(())
    }

    pub(crate) fn set_expect_copies(&self, expected: bool) {
        self.shared.command(Command::ExpectCopies(expected));
    }

    pub(crate) fn set_inner_mtu(&self, device: DeviceId, mtu: u16, segments: u16) {
        if let Ok(port) = self.port(device) {
            port.set_inner_mtu(mtu, segments);
        }
    }

    pub(crate) fn counters(&self) -> Counters {
        self.shared.counters.read()
    }
}

/// Replaces a table by a changed copy. Callers hold the lock of `sockets`, so that one change does not undo another and no
/// socket is removed in between.
fn change_egress(port: &Port, change: impl FnOnce(&mut Table)) {
    let mut table = Table::clone(&port.egress.load());
    change(&mut table);
    port.egress.store(Arc::new(table));
}

fn resolve(
    sockets: &HashMap<SocketId, Arc<Socket>>,
    carriage: Option<Carriage>,
    before: Option<&Ways>,
) -> Result<Option<Arc<Ways>>, DataPathError> {
    let Some(carriage) = carriage else { return Ok(None) };
    if let Some(unknown) = carriage.sockets().find(|socket| !sockets.contains_key(socket)) {
        return Err(DataPathError::UnknownSocket(unknown));
    }
    let resolved =
        |egress: &Egress| Some(Arc::new(Resolved::new(egress, Arc::clone(sockets.get(&egress.socket)?))));
    Ok(Ways::new(&carriage, before, resolved).map(Arc::new))
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.tx_wake.wake();
        self.shared.rx_wake.wake();
        for thread in lock(&self.threads).drain(..) {
            if thread.join().is_err() {
                tracing::error!("a data path thread panicked");
            }
        }
    }
}
