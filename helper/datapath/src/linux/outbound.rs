//! The sending thread: TUN to UDP.
//!
//! A packet is sealed into the [`Batch`] of the socket it leaves by; one that is worth it is sealed a second time, with
//! another SA, into another one. All are sent when the device has nothing more to read or enough has gathered.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::batch::Batch;
use super::egress::Resolved;
use super::memory::Clock;
use super::port::Port;
use super::pump::Shared;
use super::rate::RateLimit;
use super::sys;
use super::tun::READ_LEN;
use crate::esp::{NEXT_HEADER_IPV4, NEXT_HEADER_IPV6};
use crate::event::Event;
use crate::packet::ecn::outer_tos;
use crate::packet::ip::Ip;
use crate::packet::segment::{Segmentation, complete_checksum};
use crate::packet::vnet::{VNET_LEN, Vnet};
use crate::packet::{mss, too_big};

use std::os::fd::AsFd;

/// With this much gathered it is sent without a further look at the device.
const ENOUGH: usize = 2 * 65536;
/// Sockets that have batches of their own. Each costs its arena; with more, all are sent when one more is wanted.
const MOST_BATCHES: usize = 16;

pub(super) struct Sender {
    shared: Arc<Shared>,
    port: Arc<Port>,
    read: Vec<u8>,
    /// One for each socket in use at the same time.
    batches: Vec<Batch>,
    clock: Clock,
    complaints: RateLimit,
    answers: RateLimit,
}

impl Sender {
    pub(super) fn new(shared: Arc<Shared>, port: Arc<Port>) -> Self {
        Self {
            shared,
            port,
            read: vec![0; READ_LEN],
            batches: Vec::with_capacity(MOST_BATCHES),
            clock: Clock::default(),
            complaints: RateLimit::new(5, 1),
            answers: RateLimit::new(1000, 1000),
        }
    }

    pub(super) fn run(mut self) {
        while !self.shared.stopped() {
            self.shared.counters.tx_syscalls.add(1);
            match self.port.tun.read(&mut self.read) {
                Ok(len) => {
                    self.clock.gather(sys::boottime_nanos);
                    self.packet(len);
                    if self.batches.iter().map(Batch::used).sum::<usize>() >= ENOUGH {
                        self.flush();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.flush();
                    if !self.wait() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.fail(&error.to_string()),
            }
        }
    }

    /// Waits for the device or the wake-up; `false` when the device is gone.
    fn wait(&self) -> bool {
        self.shared.counters.tx_syscalls.add(1);
        let wake = self.shared.tx_wake.as_fd();
        match sys::poll([(self.port.tun.as_fd(), libc::POLLIN), (wake, libc::POLLIN)], None) {
            Ok([tun, woken]) => {
                // The end is for all sending threads to see.
                if woken != 0 && !self.shared.stopped() {
                    self.shared.tx_wake.clear();
                }
                if tun & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0 {
                    self.fail("the TUN device is gone");
                    return false;
                }
                true
            }
            Err(error) => {
                self.fail(&error.to_string());
                false
            }
        }
    }

    fn fail(&self, reason: &str) {
        tracing::warn!(reason, "the sending thread ends");
        self.shared.queues.push_event(Event::Failed { reason: reason.to_owned() });
    }

    /// Handles one read: `len` octets in `self.read`.
    fn packet(&mut self, len: usize) {
        let mut read = std::mem::take(&mut self.read);
        if self.handle(read.get_mut(..len).unwrap_or_default()).is_none() {
            self.shared.counters.tx_malformed.add(1);
        }
        self.read = read;
    }

    /// `None`: not an IP packet, or not as its vnet header says.
    fn handle(&mut self, read: &mut [u8]) -> Option<()> {
        let (vnet, packet) = if self.port.tun.has_vnet_hdr() {
            let (header, packet) = read.split_first_chunk_mut::<VNET_LEN>()?;
            (Vnet::parse(header)?, packet)
        } else {
            (Vnet { checksum: None, gso: None }, read)
        };
        let ip = Ip::parse(packet)?;
        let packet = packet.get_mut(..ip.total_len)?;
        let table = self.port.egress.load();
        let Some(ways) = table.lookup(ip.destination) else {
            self.shared.counters.tx_no_egress.add(1);
            // Groups are the system's own chatter.
            if !ip.destination.is_multicast() && self.complaints.allows(sys::boottime_nanos()) {
                self.shared.queues.push_event(Event::NoEgress { destination: ip.destination });
            }
            return Some(());
        };
        let mtu = self.port.inner_mtu();
        let segmentation = match vnet.gso {
            Some((kind, size)) => Some(Segmentation::new(packet, &ip, kind, size)?),
            None => None,
        };
        let longest = segmentation.map_or(packet.len(), |segmentation| segmentation.longest());
        if longest > usize::from(mtu) {
            self.too_big(packet, &ip, mtu);
            return Some(());
        }
        if self.shared.config.clamp_mss {
            let segments = self.port.segment_mtu();
            mss::clamp(packet, &ip, usize::from(segments), vnet.checksum.is_some());
        }
        let (way, copies) = ways.choose(&self.clock, &ip, packet, longest);
        let (way, copies) = (Arc::clone(way), copies.cloned());
        drop(table);
        let segmentation = segmentation.filter(|segmentation| segmentation.count() > 1);
        if segmentation.is_none()
            && let Some((start, offset)) = vnet.checksum
            && !complete_checksum(packet, start, offset)
        {
            return None;
        }
        for egress in std::iter::once(&way).chain(&copies) {
            match &segmentation {
                Some(segmentation) => self.seal_segments(egress, packet, &ip, segmentation),
                None => self.seal_one(egress, packet, &ip),
            }
        }
        Some(())
    }

    fn too_big(&mut self, packet: &[u8], ip: &Ip, mtu: u16) {
        self.shared.counters.tx_too_big.add(1);
        if !self.answers.allows(sys::boottime_nanos()) {
            return;
        }
        let mut out = [0; too_big::LONGEST];
        let Some(len) = too_big::answer(packet, ip, mtu, &mut out) else { return };
        self.shared.counters.tx_syscalls.add(1);
        let _ = self.port.tun.write(&[0; VNET_LEN], std::iter::once(out.get(..len).unwrap_or_default()));
    }

    fn seal_one(&mut self, egress: &Arc<Resolved>, packet: &[u8], ip: &Ip) {
        let Some(seq) = self.take_sequence(egress, 1) else { return };
        let suite = egress.sa.sa.suite();
        let tos = outer_tos(ip.tos, self.shared.config.copy_dscp);
        let shared = &*self.shared;
        let Some(batch) = batch_of(shared, &mut self.batches, egress) else { return };
        let room = batch.reserve(shared, egress, tos, suite.sealed_len(packet.len()), packet.len());
        let Some(out) = room else { return };
        if egress.sa.sa.seal(seq, &[packet], next_header(ip), out).is_err() {
            batch.unreserve(shared, packet.len());
        }
        egress.sa.counters.add(1, packet.len() as u64);
    }

    fn seal_segments(&mut self, egress: &Arc<Resolved>, packet: &[u8], ip: &Ip, segmentation: &Segmentation) {
        let count = segmentation.count();
        self.shared.counters.tx_super_packets.add(1);
        let Some(first) = self.take_sequence(egress, count as u64) else { return };
        let suite = egress.sa.sa.suite();
        let tos = outer_tos(ip.tos, self.shared.config.copy_dscp);
        let mut bytes = 0;
        let shared = &*self.shared;
        let Some(batch) = batch_of(shared, &mut self.batches, egress) else { return };
        for (index, seq) in (first..).enumerate().take(count) {
            let len = segmentation.len(index);
            let Some(out) = batch.reserve(shared, egress, tos, suite.sealed_len(len), len) else { return };
            let written = out
                .get_mut(suite.payload_offset()..)
                .and_then(|room| segmentation.write(packet, index, room))
                .and_then(|len| egress.sa.sa.seal_in_place(seq, len, next_header(ip), out).ok());
            if written.is_none() {
                batch.unreserve(shared, len);
            }
            bytes += len as u64;
        }
        egress.sa.counters.add(count as u64, bytes);
    }

    fn take_sequence(&self, egress: &Resolved, count: u64) -> Option<u64> {
        let outbound = &egress.sa;
        let Ok(first) = outbound.sequence.take(count) else {
            self.shared.counters.tx_dropped.add(count);
            return None;
        };
        let remaining = outbound.sequence.remaining();
        if remaining <= outbound.sequence.last() / 3 && !outbound.low_reported.load(Ordering::Relaxed) {
            let event = Event::SequenceLow { spi: outbound.sa.spi(), remaining };
            outbound.low_reported.store(self.shared.queues.push_event(event), Ordering::Relaxed);
        }
        Some(first)
    }

    /// Sends all that waits.
    fn flush(&mut self) {
        for batch in &mut self.batches {
            batch.flush(&self.shared);
        }
        self.clock.sent(sys::boottime_nanos);
    }
}

/// The batch of the socket that an egress names. The first one has most of the traffic, and in most pumps all of it.
fn batch_of<'a>(shared: &Shared, batches: &'a mut Vec<Batch>, egress: &Resolved) -> Option<&'a mut Batch> {
    let socket = egress.socket.id;
    if let Some(at) = batches.iter().position(|batch| batch.is_of(socket)) {
        return batches.get_mut(at);
    }
    if batches.iter().all(|batch| batch.used() > 0) {
        if batches.len() < MOST_BATCHES {
            batches.push(Batch::new(socket));
            return batches.last_mut();
        }
        batches.iter_mut().for_each(|batch| batch.flush(shared));
    }
    let empty = batches.iter_mut().find(|batch| batch.used() == 0)?;
    empty.turn_to(socket);
    Some(empty)
}

const fn next_header(ip: &Ip) -> u8 {
    if ip.is_v6() { NEXT_HEADER_IPV6 } else { NEXT_HEADER_IPV4 }
}
