//! The receiving thread: UDP to TUN.
//!
//! It alone owns the inbound SAs with their replay windows and the set of polled sockets; changes come as commands. One
//! turn receives a batch from one socket, tells the datagrams apart, opens ESP in place, gathers what came out into as few
//! writes as the device allows, and writes them.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use super::duplicates::Duplicates;
use super::entry::{Entry, SpiMap};
use super::parked::{Parked, ParkingLot};
use super::port::Port;
use super::pump::{Command, Shared};
use super::rate::RateLimit;
use super::receive::{self, Batch, Received};
use super::socket::Socket;
use super::sys::{self, Epoll, Ready};
use crate::config::Keepalive;
use crate::esp::{Encapsulated, KEEPALIVE, NEXT_HEADER_IPV4, NEXT_HEADER_IPV6, OpenError, classify};
use crate::event::{Event, IkeDatagram};
use crate::packet::coalesce::Coalescer;
use crate::packet::flow::is_worth_a_copy;
use crate::packet::ip::Ip;
use crate::packet::vnet::VNET_LEN;
use crate::packet::{ecn, mss};
use crate::sa::SocketId;

/// Token of the wake-up; sockets have their id.
const WAKE: u64 = u64::MAX;
/// Batches taken from one socket before the next has its turn.
const TURNS: usize = 4;
/// Packets gathered before they are written.
const GATHERED: usize = 1024;

struct Polled {
    socket: Arc<Socket>,
    keepalive: Option<(Keepalive, u64)>,
    path_mtu: RateLimit,
    errors: RateLimit,
}

/// The state that packets change, apart from the receive buffers, so that both can be borrowed at once.
struct Inbound {
    shared: Arc<Shared>,
    /// Where what was gathered goes.
    port: Arc<Port>,
    spis: SpiMap,
    coalescer: Coalescer,
    /// While copies are expected.
    duplicates: Option<Duplicates>,
    /// What came for SPIs that are not known.
    parked: ParkingLot,
    /// SPIs that became known, and may have something there.
    added: Vec<u32>,
    unknown: RateLimit,
    diverted: RateLimit,
    failed: bool,
}

pub(super) struct Receiver {
    epoll: Epoll,
    batch: Batch,
    sockets: HashMap<SocketId, Polled>,
    inbound: Inbound,
}

impl Receiver {
    pub(super) fn new(shared: Arc<Shared>, port: Arc<Port>) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        epoll.add(shared.rx_wake.as_fd(), WAKE)?;
        let inbound = Inbound {
            shared,
            port,
            spis: SpiMap::default(),
            coalescer: Coalescer::with_capacity(GATHERED),
            duplicates: None,
            parked: ParkingLot::default(),
            added: Vec::new(),
            unknown: RateLimit::new(10, 10),
            diverted: RateLimit::new(64, 32),
            failed: false,
        };
        Ok(Self { epoll, batch: Batch::new(), sockets: HashMap::new(), inbound })
    }

    pub(super) fn run(mut self) {
        let mut ready: Vec<Ready> = Vec::with_capacity(16);
        while !self.inbound.shared.stopped() && !self.inbound.failed {
            self.commands();
            let timeout = self.keepalives();
            self.inbound.shared.counters.rx_syscalls.add(1);
            if let Err(error) = self.epoll.wait(&mut ready, timeout) {
                return self.inbound.fail(&error.to_string());
            }
            // What the owner said before a packet came counts for that packet.
            if ready.iter().any(|ready| ready.token == WAKE) {
                self.inbound.shared.rx_wake.clear();
                self.commands();
            }
            for ready in ready.iter().filter(|ready| ready.token != WAKE) {
                let id = SocketId(ready.token as u32);
                if ready.error {
                    self.faults(id);
                }
                if ready.readable {
                    self.receive(id);
                }
            }
            self.inbound.open_parked();
        }
    }

    fn commands(&mut self) {
        for command in self.inbound.shared.take_commands() {
            match command {
                Command::AddSocket(socket) => self.add_socket(socket),
                Command::RemoveSocket(id) => {
                    if let Some(polled) = self.sockets.remove(&id) {
                        self.epoll.remove(polled.socket.as_fd());
                    }
                }
                Command::Keepalive(id, keepalive) => {
                    if let Some(polled) = self.sockets.get_mut(&id) {
                        polled.keepalive = keepalive.map(|keepalive| (keepalive, sys::boottime_nanos()));
                    }
                }
                Command::AddInbound(entry) => self.inbound.add(*entry),
                Command::RemoveInbound(spi) => self.inbound.remove(spi),
                Command::ExpectCopies(false) => self.inbound.duplicates = None,
                Command::ExpectCopies(true) => {
                    self.inbound.duplicates.get_or_insert_with(Duplicates::new);
                }
            }
        }
        self.inbound.open_parked();
    }

    fn add_socket(&mut self, socket: Arc<Socket>) {
        if let Err(error) = self.epoll.add(socket.as_fd(), u64::from(socket.id.0)) {
            tracing::warn!(socket = socket.id.0, %error, "a socket cannot be polled");
            return;
        }
        let polled = Polled {
            keepalive: None,
            path_mtu: RateLimit::new(4, 1),
            errors: RateLimit::new(4, 1),
            socket: Arc::clone(&socket),
        };
        self.sockets.insert(socket.id, polled);
    }

    /// Sends the keepalives that are due; returns how long until the next may be.
    fn keepalives(&mut self) -> Option<Duration> {
        let mut next: Option<Duration> = None;
        for polled in self.sockets.values_mut() {
            let Some((keepalive, since)) = polled.keepalive else { continue };
            let now = sys::boottime_nanos();
            let idle = Duration::from_nanos(now.saturating_sub(polled.socket.last_sent().max(since)));
            let left = if idle < keepalive.interval {
                keepalive.interval - idle
            } else {
                self.inbound.shared.counters.rx_syscalls.add(1);
                if let Err(error) = polled.socket.send_keepalive(keepalive.peer) {
                    tracing::debug!(socket = polled.socket.id.0, %error, "keepalive not sent");
                }
                polled.keepalive = Some((keepalive, now));
                keepalive.interval
            };
            next = Some(next.map_or(left, |next| next.min(left)));
        }
        next
    }

    fn receive(&mut self, id: SocketId) {
        let Some(polled) = self.sockets.get(&id) else { return };
        let socket = Arc::clone(&polled.socket);
        for _ in 0..TURNS {
            self.inbound.shared.counters.rx_syscalls.add(1);
            match self.batch.receive(socket.as_fd()) {
                Ok(count) => {
                    let (buffer, received) = self.batch.parts();
                    self.inbound.batch(&socket, buffer, received);
                    // Fewer than asked for: nothing was left.
                    if count < receive::MAX_MESSAGES {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Either there is nothing, or it is a pending error, which the error queue tells better.
                Err(_) => return,
            }
            // Commands do not wait for a flood to end.
            if self.inbound.shared.stopped() {
                return;
            }
        }
    }

    /// Empties a socket's error queue into events.
    fn faults(&mut self, id: SocketId) {
        let Some(polled) = self.sockets.get_mut(&id) else { return };
        let socket = polled.socket.as_fd();
        let now = sys::boottime_nanos();
        let mut any = false;
        while let Some(fault) = receive::take_fault(socket) {
            any = true;
            self.inbound.shared.counters.rx_syscalls.add(1);
            let event = match (fault.errno, fault.remote) {
                (libc::EMSGSIZE, Some(remote)) if fault.info > 0 => {
                    let mtu = fault.info.min(u32::from(u16::MAX)) as u16;
                    polled.path_mtu.allows(now).then_some(Event::PathMtu { socket: id, remote, mtu })
                }
                (0, _) => None,
                (errno, remote) => {
                    polled.errors.allows(now).then_some(Event::SocketError { socket: id, remote, errno })
                }
            };
            if let Some(event) = event {
                self.inbound.shared.queues.push_event(event);
            }
        }
        if !any {
            // An error without an entry in the queue stays until it is fetched.
            let errno = sys::option(socket, libc::SOL_SOCKET, libc::SO_ERROR).unwrap_or(0);
            if errno != 0 && polled.errors.allows(now) {
                let event = Event::SocketError { socket: id, remote: None, errno };
                self.inbound.shared.queues.push_event(event);
            }
        }
    }
}

impl Inbound {
    fn add(&mut self, entry: Entry) {
        self.added.push(entry.spi());
        self.spis.insert(entry.spi(), entry);
    }

    /// Delivers what came before its SA. Nothing is gathered meanwhile.
    fn open_parked(&mut self) {
        while let Some(spi) = self.added.pop() {
            let now = sys::boottime_nanos();
            for Parked { socket, message, mut bytes, .. } in self.parked.take(spi, now) {
                let opened = self.esp(&socket, &message, &mut bytes, spi, now);
                let Some((inner, ip, port)) = opened else { continue };
                self.port = port.unwrap_or_else(|| Arc::clone(&self.port));
                let joining = self.port.tun.joining();
                self.coalescer.push(&bytes, inner, &ip, joining);
                self.write(&mut bytes);
            }
        }
    }

    fn remove(&mut self, spi: u32) {
        self.spis.remove(&spi);
    }

    fn fail(&mut self, reason: &str) {
        tracing::warn!(reason, "the receiving thread ends");
        self.shared.queues.push_event(Event::Failed { reason: reason.to_owned() });
        self.failed = true;
    }

    /// Handles one batch from one socket.
    fn batch(&mut self, socket: &Arc<Socket>, buffer: &mut [u8], received: &[Received]) {
        let now = sys::boottime_nanos();
        for message in received {
            let end = message.start + message.len;
            let mut start = message.start;
            // An empty datagram is one, too.
            loop {
                let stop = end.min(start + message.segment);
                self.datagram(socket, buffer, start..stop, message, now);
                start = stop;
                if start >= end {
                    break;
                }
            }
        }
        self.write(buffer);
    }

    fn datagram(
        &mut self,
        socket: &Arc<Socket>,
        buffer: &mut [u8],
        range: std::ops::Range<usize>,
        message: &Received,
        now: u64,
    ) {
        self.shared.counters.rx_datagrams.add(1);
        let Some(datagram) = buffer.get_mut(range.clone()) else { return };
        if !socket.nat_traversal(&message.remote) {
            match &*datagram {
                [] => self.shared.counters.rx_malformed.add(1),
                [KEEPALIVE] => self.shared.counters.rx_keepalives.add(1),
                ike => self.ike(socket, message, ike),
            }
            return;
        }
        match classify(datagram) {
            Encapsulated::Ike { offset } => {
                self.ike(socket, message, datagram.get(offset..).unwrap_or_default());
            }
            Encapsulated::Keepalive => self.shared.counters.rx_keepalives.add(1),
            Encapsulated::Malformed => self.shared.counters.rx_malformed.add(1),
            Encapsulated::Esp { spi } => {
                let Some((inner, ip, port)) = self.esp(socket, message, datagram, spi, now) else { return };
                if port.is_some() || !self.coalescer.has_room() {
                    self.write(buffer);
                }
                if let Some(port) = port {
                    self.port = port;
                }
                let joining = self.port.tun.joining();
                let inner = range.start + inner.start..range.start + inner.end;
                self.coalescer.push(buffer, inner, &ip, joining);
            }
        }
    }

    fn ike(&self, socket: &Socket, message: &Received, bytes: &[u8]) {
        let datagram = IkeDatagram {
            socket: socket.id,
            local: socket.local(message.destination),
            remote: message.remote,
            bytes: bytes.to_vec(),
        };
        if self.shared.queues.push_ike(datagram) {
            self.shared.counters.rx_ike.add(1);
        } else {
            self.shared.counters.rx_ike_dropped.add(1);
        }
    }

    /// Opens one ESP packet where it stands; returns where in it the inner packet is, when that may be delivered, and which
    /// device gets it, when that is another one than before.
    fn esp(
        &mut self,
        socket: &Arc<Socket>,
        message: &Received,
        packet: &mut [u8],
        spi: u32,
        now: u64,
    ) -> Option<(std::ops::Range<usize>, Ip, Option<Arc<Port>>)> {
        if !self.spis.contains_key(&spi) {
            // It may have been added since this batch began.
            self.late_inbound(spi);
        }
        let Some(entry) = self.spis.get_mut(&spi) else {
            self.shared.counters.rx_unknown_spi.add(1);
            self.parked.keep(socket, message, packet, spi, now);
            if self.unknown.allows(now) {
                let event = Event::UnknownSpi { spi, socket: socket.id, remote: message.remote };
                self.shared.queues.push_event(event);
            }
            return None;
        };
        // Bound to its outer addresses it is no other's, whatever the keys say, and no sign of life.
        if !entry.is_from(socket.local(message.destination).ip(), message.remote.ip()) {
            entry.counters.refused.add(1);
            self.shared.counters.rx_refused.add(1);
            return None;
        }
        let opened = match entry.sa.open(packet) {
            Ok(opened) => opened,
            Err(OpenError::Replayed | OpenError::OutsideWindow) => {
                entry.counters.replayed.add(1);
                self.shared.counters.rx_replayed.add(1);
                return None;
            }
            Err(
                OpenError::TooShort
                | OpenError::Misaligned
                | OpenError::WrongSpi
                | OpenError::Authentication
                | OpenError::Padding,
            ) => {
                entry.counters.failed.add(1);
                self.shared.counters.rx_failed.add(1);
                return None;
            }
        };
        entry.counters.touch(now);
        entry.counters.authentic.add(1);
        if opened.newest {
            entry.counters.set_newest(opened.seq);
        }
        if entry.sa.window().is_none() && entry.is_news(message.remote, now) {
            self.shared.queues.push_event(Event::Heard { spi, remote: message.remote });
        }
        let here = (socket.id, message.remote);
        if opened.newest && entry.peer != Some(here) {
            let said = entry.peer.is_none()
                || self.shared.queues.push_event(Event::PeerMoved {
                    spi,
                    socket: socket.id,
                    local: socket.local(message.destination),
                    remote: message.remote,
                });
            // When the queue was full it is said with the next packet.
            if said {
                entry.peer = Some(here);
            }
        }
        if opened.is_dummy() {
            self.shared.counters.rx_dummies.add(1);
            return None;
        }
        let start = opened.range.start;
        let inner = packet.get_mut(opened.range)?;
        let ip = Ip::parse(inner).filter(|ip| {
            opened.next_header == if ip.is_v6() { NEXT_HEADER_IPV6 } else { NEXT_HEADER_IPV4 }
                && entry.allows(ip, inner)
        });
        let congestion = ip.and_then(|ip| Some((ip, ecn::inner_tos(ip.tos, message.tos)?)));
        let Some((mut ip, tos)) = congestion else {
            entry.counters.refused.add(1);
            self.shared.counters.rx_refused.add(1);
            return None;
        };
        // Padding for traffic flow confidentiality ends here (RFC 4303 2.7).
        let inner = inner.get_mut(..ip.total_len)?;
        // As it was sealed: what the way outside did to it is its own.
        if let Some(duplicates) = &mut self.duplicates
            && is_worth_a_copy(inner.len(), ip.tos)
            && duplicates.is_copy(inner, spi, now)
        {
            entry.counters.add(1, inner.len() as u64);
            entry.counters.copies.add(1);
            self.shared.counters.rx_copies.add(1);
            return None;
        }
        if entry.diverts(&ip, inner) {
            entry.counters.add(1, inner.len() as u64);
            let event = Event::Inner { spi, packet: inner.to_vec() };
            if !self.diverted.allows(now) || !self.shared.queues.push_event(event) {
                self.shared.counters.rx_dropped.add(1);
            }
            return None;
        }
        if tos != ip.tos && ecn::set_tos(inner, tos) {
            ip.tos = tos;
        }
        if self.shared.config.clamp_mss {
            mss::clamp(inner, &ip, usize::from(entry.port.segment_mtu()), false);
        }
        entry.counters.add(1, inner.len() as u64);
        let port = (!Arc::ptr_eq(&entry.port, &self.port)).then(|| Arc::clone(&entry.port));
        Some((start..start + ip.total_len, ip, port))
    }

    /// Takes an SA out of the commands that wait, the others staying for their turn.
    fn late_inbound(&mut self, spi: u32) {
        if let Some(entry) = self.shared.take_inbound(spi) {
            self.add(entry);
        }
    }

    /// Writes what was gathered to the device.
    fn write(&mut self, buffer: &mut [u8]) {
        for index in 0..self.coalescer.len() {
            let (packets, bytes) = self.coalescer.weight(index);
            let vnet = self.coalescer.prepare(buffer, index);
            let counters = &self.shared.counters;
            let slices = self.coalescer.slices(index).filter_map(|range| buffer.get(range));
            counters.rx_syscalls.add(1);
            match self.port.tun.write(&vnet, slices) {
                Ok(_) => {
                    counters.rx_packets.add(packets);
                    counters.rx_bytes.add(bytes);
                    if packets > 1 {
                        counters.rx_super_packets.add(1);
                    }
                }
                Err(error) if packets > 1 => self.write_apart(buffer, index, &error),
                Err(error) if sys::errno(&error) == libc::EBADFD => {
                    self.coalescer.clear();
                    return self.fail("the TUN device is gone");
                }
                Err(_) => counters.rx_dropped.add(packets),
            }
        }
        self.coalescer.clear();
    }

    /// Writes the packets of output `index` one by one, after the device refused it as a whole. When that works, the
    /// device lied about its offload.
    fn write_apart(&self, buffer: &mut [u8], index: usize, refused: &io::Error) {
        let counters = &self.shared.counters;
        let mut written = 0;
        self.coalescer.take_apart(buffer, index, |packet| {
            counters.rx_syscalls.add(1);
            if self.port.tun.write(&[0; VNET_LEN], std::iter::once(packet)).is_ok() {
                written += 1;
                counters.rx_packets.add(1);
                counters.rx_bytes.add(packet.len() as u64);
            } else {
                counters.rx_dropped.add(1);
            }
        });
        if written > 0 && sys::errno(refused) == libc::EINVAL {
            self.port.tun.degrade(self.coalescer.is_udp(index), refused);
        }
    }
}
