//! The sending thread: TUN to UDP.
//!
//! Packets are sealed into one arena, in the order they were read. Neighbours with the same egress and TOS, as long as the
//! one before, make one message, which one `UDP_SEGMENT` call sends; a different one starts the next message. So whatever
//! is sent leaves in order. The arena is sent when the device has nothing more to read or enough has gathered.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::egress::Resolved;
use super::pump::Shared;
use super::rate::RateLimit;
use super::send::{self, MAX_MESSAGE, MAX_MESSAGES, MAX_SEGMENTS, Message};
use super::sys::{self, errno};
use super::tun::{READ_LEN, Tun};
use crate::esp::{NEXT_HEADER_IPV4, NEXT_HEADER_IPV6};
use crate::event::Event;
use crate::packet::ecn::outer_tos;
use crate::packet::ip::Ip;
use crate::packet::segment::{Segmentation, complete_checksum};
use crate::packet::vnet::{VNET_LEN, Vnet};
use crate::packet::{mss, too_big};

use std::os::fd::AsFd;

/// What is sealed before it must be sent: four full messages.
const ARENA: usize = 4 * 65536;
/// With this much gathered it is sent without a further look at the device.
const ENOUGH: usize = 2 * 65536;
/// How long a full socket buffer may stay full before packets are dropped.
const PATIENCE: Duration = Duration::from_millis(200);

pub(super) struct Sender {
    shared: Arc<Shared>,
    tun: Arc<Tun>,
    read: Vec<u8>,
    arena: Vec<u8>,
    used: usize,
    pending: Vec<Pending>,
    complaints: RateLimit,
    answers: RateLimit,
}

/// One message that waits to be sent.
struct Pending {
    egress: Arc<Resolved>,
    start: usize,
    end: usize,
    segment: usize,
    segments: usize,
    tos: u8,
    /// Whether another datagram may follow: the last one had the full length.
    open: bool,
    inner_bytes: u64,
}

impl Sender {
    pub(super) fn new(shared: Arc<Shared>, tun: Arc<Tun>) -> Self {
        Self {
            shared,
            tun,
            read: vec![0; READ_LEN],
            arena: vec![0; ARENA],
            used: 0,
            pending: Vec::with_capacity(MAX_MESSAGES),
            complaints: RateLimit::new(5, 1),
            answers: RateLimit::new(1000, 1000),
        }
    }

    pub(super) fn run(mut self) {
        while !self.shared.stopped() {
            self.shared.counters.tx_syscalls.add(1);
            match self.tun.read(&mut self.read) {
                Ok(len) => {
                    self.packet(len);
                    if self.used >= ENOUGH {
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
        match sys::poll([(self.tun.as_fd(), libc::POLLIN), (wake, libc::POLLIN)], None) {
            Ok([tun, woken]) => {
                if woken != 0 {
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
        let (vnet, packet) = if self.tun.has_vnet_hdr() {
            let (header, packet) = read.split_first_chunk_mut::<VNET_LEN>()?;
            (Vnet::parse(header)?, packet)
        } else {
            (Vnet { checksum: None, gso: None }, read)
        };
        let ip = Ip::parse(packet)?;
        let packet = packet.get_mut(..ip.total_len)?;
        let table = self.shared.egress.load();
        let Some(egress) = table.lookup(ip.destination) else {
            self.shared.counters.tx_no_egress.add(1);
            // Groups are the system's own chatter.
            if !ip.destination.is_multicast() && self.complaints.allows(sys::boottime_nanos()) {
                self.shared.queues.push_event(Event::NoEgress { destination: ip.destination });
            }
            return Some(());
        };
        let egress = Arc::clone(egress);
        drop(table);

        let mtu = self.shared.inner_mtu.load(Ordering::Relaxed);
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
            mss::clamp(packet, &ip, usize::from(mtu), vnet.checksum.is_some());
        }
        match segmentation {
            Some(segmentation) if segmentation.count() > 1 => {
                self.seal_segments(&egress, packet, &ip, &segmentation)
            }
            Some(_) | None => {
                if let Some((start, offset)) = vnet.checksum
                    && !complete_checksum(packet, start, offset)
                {
                    return None;
                }
                self.seal_one(&egress, packet, &ip);
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
        let _ = self.tun.write(&[0; VNET_LEN], std::iter::once(out.get(..len).unwrap_or_default()));
    }

    fn seal_one(&mut self, egress: &Arc<Resolved>, packet: &[u8], ip: &Ip) {
        let Some(seq) = self.take_sequence(egress, 1) else { return };
        let suite = egress.sa.sa.suite();
        let tos = outer_tos(ip.tos, self.shared.config.copy_dscp);
        let Some(out) = self.reserve(egress, tos, suite.sealed_len(packet.len()), packet.len()) else {
            return;
        };
        if egress.sa.sa.seal(seq, &[packet], next_header(ip), out).is_err() {
            self.unreserve(packet.len());
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
        for (index, seq) in (first..).enumerate().take(count) {
            let len = segmentation.len(index);
            let Some(out) = self.reserve(egress, tos, suite.sealed_len(len), len) else { return };
            let written = out
                .get_mut(suite.payload_offset()..)
                .and_then(|room| segmentation.write(packet, index, room))
                .and_then(|len| egress.sa.sa.seal_in_place(seq, len, next_header(ip), out).ok());
            if written.is_none() {
                self.unreserve(len);
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

    /// Room for the next datagram of `len` octets, as part of the last message where it fits. Sends first when there is
    /// none.
    fn reserve(&mut self, egress: &Arc<Resolved>, tos: u8, len: usize, inner: usize) -> Option<&mut [u8]> {
        if self.used + len > self.arena.len() {
            self.flush();
        }
        let start = self.used;
        let end = start + len;
        let joined = self.pending.last_mut().is_some_and(|last| {
            let fits = last.open
                && len <= last.segment
                && last.tos == tos
                && last.segments < MAX_SEGMENTS
                && end - last.start <= MAX_MESSAGE
                && Arc::ptr_eq(&last.egress, egress)
                && egress.socket.gso();
            if fits {
                last.end = end;
                last.segments += 1;
                last.open = len == last.segment;
                last.inner_bytes += inner as u64;
            }
            fits
        });
        if !joined {
            if self.pending.len() == MAX_MESSAGES {
                self.flush();
                return self.reserve(egress, tos, len, inner);
            }
            self.pending.push(Pending {
                egress: Arc::clone(egress),
                start,
                end,
                segment: len,
                segments: 1,
                tos,
                open: true,
                inner_bytes: inner as u64,
            });
        }
        self.used = end;
        self.arena.get_mut(start..end)
    }

    /// Takes the last reservation back: its packet could not be sealed.
    fn unreserve(&mut self, inner: usize) {
        self.shared.counters.tx_dropped.add(1);
        let Some(last) = self.pending.last_mut() else { return };
        let len = match (last.end - last.start) % last.segment {
            0 => last.segment,
            short => short,
        };
        last.end -= len;
        last.segments -= 1;
        last.inner_bytes -= inner as u64;
        last.open = true;
        self.used = last.end;
        if last.segments == 0 {
            self.pending.pop();
        }
    }

    /// Sends what is pending, in order, and empties the arena.
    fn flush(&mut self) {
        let mut at = 0;
        while let Some(first) = self.pending.get(at) {
            let socket = Arc::clone(&first.egress.socket);
            let run = self.pending.iter().skip(at).take_while(|next| next.egress.socket.id == socket.id);
            let messages = run.map(|pending| self.message(pending));
            self.shared.counters.tx_syscalls.add(1);
            match send::send_batch(&socket, messages) {
                Ok(sent) => {
                    let now = sys::boottime_nanos();
                    socket.sent(now);
                    for pending in self.pending.iter().skip(at).take(sent) {
                        self.count(pending, now);
                    }
                    at += sent.max(1);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !self.wait_writable(&socket) {
                        if self.shared.stopped() {
                            break;
                        }
                        self.drop_one(at);
                        at += 1;
                    }
                }
                Err(error) => {
                    self.send_slowly(at, &error);
                    at += 1;
                }
            }
        }
        self.pending.clear();
        self.used = 0;
    }

    fn message<'a>(&'a self, pending: &'a Pending) -> Message<'a> {
        Message {
            payload: self.arena.get(pending.start..pending.end).unwrap_or_default(),
            segment: pending.segment,
            peer: &pending.egress.peer,
            peer_is_ipv6: pending.egress.peer_is_ipv6,
            tos: pending.tos,
        }
    }

    fn count(&self, pending: &Pending, now: u64) {
        pending.egress.sa.counters.touch(now);
        self.shared.counters.tx_packets.add(pending.segments as u64);
        self.shared.counters.tx_bytes.add(pending.inner_bytes);
    }

    fn drop_one(&self, at: usize) {
        if let Some(pending) = self.pending.get(at) {
            self.shared.counters.tx_dropped.add(pending.segments as u64);
        }
    }

    /// Sends message `at` one datagram at a time, after it was refused as a whole. When that works where the whole did
    /// not, the kernel or the device lied about its offload.
    fn send_slowly(&self, at: usize, refused: &io::Error) {
        let Some(pending) = self.pending.get(at) else { return };
        let whole = self.message(pending);
        let socket = &pending.egress.socket;
        let mut sent = 0;
        for payload in whole.payload.chunks(pending.segment) {
            let single = Message { payload, segment: payload.len(), ..whole };
            // The first try may report what an earlier datagram met; the second is about this one.
            for _ in 0..2 {
                self.shared.counters.tx_syscalls.add(1);
                match send::send_batch(socket, std::iter::once(single)) {
                    Ok(_) => {
                        sent += 1;
                        break;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        if !self.wait_writable(socket) {
                            break;
                        }
                    }
                    Err(_) => {}
                }
            }
            if sent == 0 {
                break;
            }
        }
        let now = sys::boottime_nanos();
        self.shared.counters.tx_packets.add(sent);
        self.shared.counters.tx_dropped.add((pending.segments as u64).saturating_sub(sent));
        if sent > 0 {
            self.shared.counters.tx_bytes.add(pending.inner_bytes);
            socket.sent(now);
            pending.egress.sa.counters.touch(now);
            if pending.segments > 1 && matches!(errno(refused), libc::EIO | libc::EINVAL) {
                socket.degrade(refused);
            }
        }
    }

    /// Waits until the socket takes more, for as long as is sensible. Order is kept by not going on with others.
    fn wait_writable(&self, socket: &super::socket::Socket) -> bool {
        self.shared.counters.tx_syscalls.add(1);
        let wake = self.shared.tx_wake.as_fd();
        match sys::poll([(socket.as_fd(), libc::POLLOUT), (wake, libc::POLLIN)], Some(PATIENCE)) {
            Ok([writable, woken]) => writable != 0 || (woken != 0 && !self.shared.stopped()),
            Err(_) => false,
        }
    }
}

const fn next_header(ip: &Ip) -> u8 {
    if ip.is_v6() { NEXT_HEADER_IPV6 } else { NEXT_HEADER_IPV4 }
}
