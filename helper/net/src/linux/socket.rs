//! UDP sockets of paths: marked, bound to an interface, with large buffers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use socket2::{Domain, Protocol, Socket, Type};

use crate::{Family, NetError, PathSocket};

/// Receive buffer in octets. The receive thread may be kept from running for about 20 ms on a loaded desktop; at
/// 1 Gbit/s 2.5 MB arrive in that time. The kernel accounts what a packet occupies, not its length: up to about
/// twice as much for full-size datagrams; and SO_RCVBUF itself doubles what it is given for that reason. Two such
/// pauses in a row: 5 MB, rounded up to a power of two.
const RECEIVE_BUFFER: usize = 8 << 20;

/// Send buffer in octets. One GSO send is up to 64 KiB; 32 of them may wait for the interface before the sender
/// is pushed back, which is 16 ms at 1 Gbit/s: enough to keep the interface busy, too little to bloat.
const SEND_BUFFER: usize = 2 << 20;

/// Opens the UDP socket of a path: non-blocking, marked, bound to the interface and address, don't-fragment set
/// and the kernel's own path MTU estimate ignored (`IP_PMTUDISC_PROBE`: an ICMP message can be forged, and the
/// sender has an MTU of its own), ICMP errors queued (`IP_RECVERR`) where `MSG_ERRQUEUE` finds them.
///
/// With `IP_RECVERR` a send or receive may return an error once that belongs to an earlier datagram
/// (ECONNREFUSED, EHOSTUNREACH, EMSGSIZE); the socket stays usable.
///
/// # Errors
/// [`NetError::NoSuchInterface`], [`NetError::NotPermitted`], or what the kernel says.
pub fn open_path_socket(wanted: &PathSocket) -> Result<UdpSocket, NetError> {
    let local = wanted.local.unwrap_or(match wanted.family {
        Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    });
    if Family::of(local) != wanted.family {
        return Err(NetError::InvalidConfig {
            reason: format!("the local address {local} is not of the socket's family"),
        });
    }
    let failed = |what: &str| {
        let action = match &wanted.interface {
            Some(interface) => format!("{what} of the socket on {interface}"),
            None => format!("{what} of the socket"),
        };
        move |e| NetError::io(action, e)
    };
    let domain = match wanted.family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    };
    let socket = Socket::new(domain, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))
        .map_err(failed("opening"))?;
    socket.set_mark(wanted.fwmark).map_err(failed("setting the mark"))?;
    if let Some(interface) = &wanted.interface {
        socket.bind_device(Some(interface.as_bytes())).map_err(|e| match e.raw_os_error() {
            Some(libc::ENODEV) => NetError::NoSuchInterface { name: interface.clone() },
            _ => failed("choosing the interface")(e),
        })?;
    }
    match wanted.family {
        Family::V4 => {
            set_int(&socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
                .map_err(failed("setting don't-fragment"))?;
            set_int(&socket, libc::IPPROTO_IP, libc::IP_RECVERR, 1)
                .map_err(failed("asking for ICMP errors"))?;
        }
        Family::V6 => {
            socket.set_only_v6(true).map_err(failed("choosing IPv6"))?;
            set_int(&socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)
                .map_err(failed("setting don't-fragment"))?;
            set_int(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)
                .map_err(failed("asking for ICMP errors"))?;
        }
    }
    grow(&socket, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, RECEIVE_BUFFER);
    grow(&socket, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, SEND_BUFFER);
    socket.bind(&SocketAddr::new(local, wanted.port).into()).map_err(failed("choosing the address"))?;
    Ok(socket.into())
}

/// Sends one datagram that may be fragmented: for IKE messages larger than the path's MTU before both ends agreed
/// on IKE fragmentation (RFC 7383). Datagrams that other threads send at the same instant may go without
/// don't-fragment too, which does no harm.
///
/// # Errors
/// What the kernel says, `WouldBlock` included.
pub fn send_fragmentable(socket: &UdpSocket, datagram: &[u8], to: SocketAddr) -> Result<usize, NetError> {
    let (level, option, dont, probe) = if to.is_ipv4() {
        (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT, libc::IP_PMTUDISC_PROBE)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT, libc::IPV6_PMTUDISC_PROBE)
    };
    let failed = |e| NetError::io(format!("sending {} octets to {to}", datagram.len()), e);
    set_int(socket, level, option, dont).map_err(failed)?;
    let sent = socket.send_to(datagram, to);
    set_int(socket, level, option, probe).map_err(failed)?;
    sent.map_err(failed)
}

/// Large buffers are a wish: without the privilege for more than the system's limit, the limit must do.
fn grow(socket: &Socket, force: libc::c_int, plain: libc::c_int, octets: usize) {
    // The kernel doubles what it is given.
    let half = libc::c_int::try_from(octets / 2).unwrap_or(libc::c_int::MAX);
    if set_int(socket, libc::SOL_SOCKET, force, half).is_err()
        && let Err(error) = set_int(socket, libc::SOL_SOCKET, plain, half)
    {
        tracing::debug!(%error, octets, "the socket keeps its default buffer");
    }
}

fn set_int(
    socket: &impl AsRawFd,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as `socket` is borrowed; pointer and length describe `value`.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            libc::socklen_t::try_from(size_of_val(&value)).unwrap_or(4),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
