//! Sealed packets that wait to leave by one socket.
//!
//! Packets are sealed into one arena, in the order they were read. Neighbours with the same egress and TOS, as long as the
//! one before, make one message, which one `UDP_SEGMENT` call sends; a different one starts the next message. So whatever
//! is sent leaves in order.
//!
//! When the socket's buffer is full the thread waits for it, but not longer than it takes a working link to make room: a
//! link that is stuck must not hold up the others. From then on what does not fit is dropped, until something fits again.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use super::egress::Resolved;
use super::pump::Shared;
use super::send::{self, MAX_MESSAGE, MAX_MESSAGES, MAX_SEGMENTS, Message};
use super::socket::Socket;
use super::sys::{self, errno};
use crate::sa::SocketId;

/// What is sealed before it must be sent: four full messages.
const ARENA: usize = 4 * 65536;
/// How long a full socket buffer may stay full before packets are dropped.
const PATIENCE: Duration = Duration::from_millis(200);

pub(super) struct Batch {
    arena: Vec<u8>,
    used: usize,
    pending: Vec<Pending>,
    /// The socket of what waits, or that the last left by.
    socket: SocketId,
    /// The socket's buffer was full for too long, and took nothing since.
    stuck: bool,
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

impl Batch {
    pub(super) fn new(socket: SocketId) -> Self {
        Self {
            arena: vec![0; ARENA],
            used: 0,
            pending: Vec::with_capacity(MAX_MESSAGES),
            socket,
            stuck: false,
        }
    }

    /// Octets that wait.
    pub(super) const fn used(&self) -> usize {
        self.used
    }

    /// Whether it is the batch of this socket.
    pub(super) fn is_of(&self, socket: SocketId) -> bool {
        self.socket == socket
    }

    /// Nothing waits: from now on the batch of this socket.
    pub(super) fn turn_to(&mut self, socket: SocketId) {
        (self.socket, self.stuck) = (socket, false);
    }

    /// Room for the next datagram of `len` octets, as part of the last message where it fits. Sends first when there is
    /// none.
    pub(super) fn reserve(
        &mut self,
        shared: &Shared,
        egress: &Arc<Resolved>,
        tos: u8,
        len: usize,
        inner: usize,
    ) -> Option<&mut [u8]> {
        if self.used + len > self.arena.len() {
            self.flush(shared);
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
                self.flush(shared);
                return self.reserve(shared, egress, tos, len, inner);
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
    pub(super) fn unreserve(&mut self, shared: &Shared, inner: usize) {
        shared.counters.tx_dropped.add(1);
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
    pub(super) fn flush(&mut self, shared: &Shared) {
        let mut at = 0;
        while let Some(first) = self.pending.get(at) {
            let socket = Arc::clone(&first.egress.socket);
            let messages = self.pending.iter().skip(at).map(|pending| self.message(pending));
            shared.counters.tx_syscalls.add(1);
            match send::send_batch(&socket, messages) {
                Ok(sent) => {
                    self.stuck = false;
                    let now = sys::boottime_nanos();
                    socket.sent(now);
                    for pending in self.pending.iter().skip(at).take(sent) {
                        count(shared, pending, now);
                    }
                    at += sent.max(1);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.stuck || !wait_writable(shared, &socket) {
                        if shared.stopped() {
                            break;
                        }
                        self.stuck = true;
                        drop_one(shared, first);
                        at += 1;
                    }
                }
                Err(error) => {
                    self.send_slowly(shared, first, &error);
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

    /// Sends a message one datagram at a time, after it was refused as a whole. When that works where the whole did not,
    /// the kernel or the device lied about its offload.
    fn send_slowly(&self, shared: &Shared, pending: &Pending, refused: &io::Error) {
        let whole = self.message(pending);
        let socket = &pending.egress.socket;
        let mut sent = 0;
        for payload in whole.payload.chunks(pending.segment) {
            let single = Message { payload, segment: payload.len(), ..whole };
            // The first try may report what an earlier datagram met; the second is about this one.
            for _ in 0..2 {
                shared.counters.tx_syscalls.add(1);
                match send::send_batch(socket, std::iter::once(single)) {
                    Ok(_) => {
                        sent += 1;
                        break;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        if !wait_writable(shared, socket) {
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
        shared.counters.tx_packets.add(sent);
        shared.counters.tx_dropped.add((pending.segments as u64).saturating_sub(sent));
        if sent > 0 {
            shared.counters.tx_bytes.add(pending.inner_bytes);
            socket.sent(now);
            pending.egress.sa.counters.touch(now);
            if pending.segments > 1 && matches!(errno(refused), libc::EIO | libc::EINVAL) {
                socket.degrade(refused);
            }
        }
    }
}

fn count(shared: &Shared, pending: &Pending, now: u64) {
    pending.egress.sa.counters.touch(now);
    shared.counters.tx_packets.add(pending.segments as u64);
    shared.counters.tx_bytes.add(pending.inner_bytes);
}

fn drop_one(shared: &Shared, pending: &Pending) {
    shared.counters.tx_dropped.add(pending.segments as u64);
}

/// Waits until the socket takes more, for as long as is sensible. Order is kept by not going on with others.
fn wait_writable(shared: &Shared, socket: &Socket) -> bool {
    shared.counters.tx_syscalls.add(1);
    let wake = shared.tx_wake.as_fd();
    match sys::poll([(socket.as_fd(), libc::POLLOUT), (wake, libc::POLLIN)], Some(PATIENCE)) {
        Ok([writable, woken]) => writable != 0 || (woken != 0 && !shared.stopped()),
        Err(_) => false,
    }
}
