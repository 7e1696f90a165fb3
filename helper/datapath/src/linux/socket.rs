//! A UDP socket as both threads and the owner share it.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::send;
use super::sys;
use crate::config::Framing;
use crate::esp::{KEEPALIVE, NON_ESP_MARKER};
use crate::sa::SocketId;

/// Receive buffer: at 2 Gbit/s the thread may be away for 16 ms before anything is lost.
const RECEIVE_BUFFER: libc::c_int = 4 << 20;
/// Send buffer: some dozen GSO buffers of 64 KiB with the kernel's overhead, then the sending thread waits.
const SEND_BUFFER: libc::c_int = 2 << 20;

#[derive(Debug)]
pub(super) struct Socket {
    pub(super) id: SocketId,
    udp: UdpSocket,
    framing: Framing,
    local: SocketAddr,
    /// Whether `UDP_SEGMENT` is used: found by probing, lost when the kernel lies.
    gso: AtomicBool,
    last_sent: AtomicU64,
}

impl Socket {
    /// Takes a socket over and sets what the pump needs.
    pub(super) fn new(id: SocketId, udp: UdpSocket, framing: Framing, offloads: bool) -> io::Result<Self> {
        udp.set_nonblocking(true)?;
        let local = udp.local_addr()?;
        let fd = udp.as_fd();
        enlarge(fd, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, RECEIVE_BUFFER);
        enlarge(fd, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, SEND_BUFFER);
        // On an IPv6 socket the IPv4 options work for its IPv4-mapped peers.
        let v4 = [
            (libc::IP_RECVERR, 1),
            (libc::IP_RECVTOS, 1),
            (libc::IP_PKTINFO, 1),
            // DF is always set and the kernel's idea of the path MTU not enforced: that would let a forged ICMP message
            // stop the tunnel. It is still reported, and the owner lowers the inner MTU.
            (libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE),
        ];
        for (name, value) in v4 {
            match sys::set_option(fd, libc::SOL_IP, name, value) {
                Err(error) if local.is_ipv4() => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        if local.is_ipv6() {
            let v6 = [
                (libc::IPV6_RECVERR, 1),
                (libc::IPV6_RECVTCLASS, 1),
                (libc::IPV6_RECVPKTINFO, 1),
                (libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE),
            ];
            for (name, value) in v6 {
                sys::set_option(fd, libc::SOL_IPV6, name, value)?;
            }
        }
        let gso = offloads && sys::option(fd, libc::SOL_UDP, libc::UDP_SEGMENT).is_ok();
        let gro = sys::set_option(fd, libc::SOL_UDP, libc::UDP_GRO, offloads.into()).is_ok() && offloads;
        tracing::debug!(socket = id.0, %local, gso, gro, "socket added");
        Ok(Self { id, udp, framing, local, gso: AtomicBool::new(gso), last_sent: AtomicU64::new(0) })
    }

    pub(super) const fn is_ipv6(&self) -> bool {
        self.local.is_ipv6()
    }

    pub(super) fn nat_traversal(&self, remote: &SocketAddr) -> bool {
        self.framing.nat_traversal(remote)
    }

    /// Our address, with the destination address of a packet where it is known.
    pub(super) fn local(&self, destination: Option<IpAddr>) -> SocketAddr {
        match destination {
            Some(ip) => SocketAddr::new(ip, self.local.port()),
            None => self.local,
        }
    }

    pub(super) fn gso(&self) -> bool {
        self.gso.load(Ordering::Relaxed)
    }

    /// The kernel or device accepted `UDP_SEGMENT` in the probe and refuses it now.
    pub(super) fn degrade(&self, error: &io::Error) {
        if self.gso.swap(false, Ordering::Relaxed) {
            tracing::warn!(socket = self.id.0, %error, "segmentation offload fails on this socket, going on without");
        }
    }

    pub(super) fn last_sent(&self) -> u64 {
        self.last_sent.load(Ordering::Relaxed)
    }

    pub(super) fn sent(&self, now: u64) {
        self.last_sent.store(now, Ordering::Relaxed);
    }

    pub(super) fn send_ike(&self, peer: SocketAddr, message: &[u8]) -> io::Result<()> {
        let marker: &[u8] = if self.nat_traversal(&peer) { &NON_ESP_MARKER } else { &[] };
        self.send(peer, [marker, message])
    }

    pub(super) fn send_sealed(&self, peer: SocketAddr, esp: &[u8]) -> io::Result<()> {
        self.send(peer, [esp, &[]])
    }

    pub(super) fn send_keepalive(&self, peer: SocketAddr) -> io::Result<()> {
        self.send(peer, [&[KEEPALIVE], &[]])
    }

    /// Sends one datagram. An error that an earlier one left behind is not its own: it is tried again.
    fn send(&self, peer: SocketAddr, parts: [&[u8]; 2]) -> io::Result<()> {
        let sent = send::send_one(self, peer, parts).or_else(|error| {
            if send::is_left_behind(&error) { send::send_one(self, peer, parts) } else { Err(error) }
        });
        if sent.is_ok() {
            self.sent(sys::boottime_nanos());
        }
        sent
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.udp.as_fd()
    }
}

/// With CAP_NET_ADMIN beyond the system's limit, else up to it. Less is slower, not wrong.
fn enlarge(fd: BorrowedFd<'_>, force: libc::c_int, ask: libc::c_int, size: libc::c_int) {
    if sys::set_option(fd, libc::SOL_SOCKET, force, size).is_err() {
        let _ = sys::set_option(fd, libc::SOL_SOCKET, ask, size);
    }
}
