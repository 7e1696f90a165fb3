//! `sendmmsg` with `UDP_SEGMENT` and TOS.

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};

use super::address::RawAddress;
use super::socket::Socket;
use super::sys::{check, check_len, errno};

/// Messages of one call.
pub(super) const MAX_MESSAGES: usize = 32;
/// Segments of one message: the limit of kernels before 6.9.
pub(super) const MAX_SEGMENTS: usize = 64;
/// Octets of one message: what IP and UDP headers leave of 65,535, for IPv6 with room to spare.
pub(super) const MAX_MESSAGE: usize = 65535 - 48;

/// One message: octets to one peer, cut by the kernel into datagrams of `segment` octets when there are more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) payload: &'a [u8],
    pub(super) segment: usize,
    pub(super) peer: &'a RawAddress,
    pub(super) peer_is_ipv6: bool,
    pub(super) tos: u8,
}

/// Room for `UDP_SEGMENT` (2 octets) and a TOS (4 octets), 24 octets each with their headers.
type Control = [u64; 6];

/// Sends up to [`MAX_MESSAGES`] of `messages` and returns how many went.
pub(super) fn send_batch<'a>(
    socket: &Socket,
    messages: impl Iterator<Item = Message<'a>>,
) -> io::Result<usize> {
    let mut controls: [Control; MAX_MESSAGES] = [[0; 6]; MAX_MESSAGES];
    let mut vectors = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; MAX_MESSAGES];
    // SAFETY: all zero is a valid mmsghdr: null pointers with length 0.
    let mut headers: [libc::mmsghdr; MAX_MESSAGES] = unsafe { mem::zeroed() };
    let mut count: libc::c_uint = 0;
    let slots = headers.iter_mut().zip(&mut vectors).zip(&mut controls);
    for (message, ((header, vector), control)) in messages.zip(slots) {
        *vector = libc::iovec {
            iov_base: message.payload.as_ptr().cast_mut().cast(),
            iov_len: message.payload.len(),
        };
        let header = &mut header.msg_hdr;
        header.msg_name = message.peer.as_ptr().cast_mut().cast();
        header.msg_namelen = message.peer.len();
        header.msg_iov = vector;
        header.msg_iovlen = 1;
        let len = write_control(control, &message);
        if len > 0 {
            header.msg_control = control.as_mut_ptr().cast();
            header.msg_controllen = len as _;
        }
        count += 1;
    }
    // SAFETY: the first `count` headers point to a peer address and a payload that live as long as `'a`, and to the
    // vectors and controls above; the kernel only reads through all of them but the headers.
    let sent = check(unsafe {
        libc::sendmmsg(socket.as_fd().as_raw_fd(), headers.as_mut_ptr(), count, libc::MSG_DONTWAIT as _)
    })?;
    Ok(sent as usize)
}

/// Sends one datagram made of two parts.
pub(super) fn send_one(socket: &Socket, peer: SocketAddr, parts: [&[u8]; 2]) -> io::Result<()> {
    let name = RawAddress::new(peer, socket.is_ipv6());
    let mut vectors =
        parts.map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() });
    // SAFETY: all zero is a valid msghdr.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_name = name.as_ptr().cast_mut().cast();
    header.msg_namelen = name.len();
    header.msg_iov = vectors.as_mut_ptr();
    header.msg_iovlen = vectors.len();
    // SAFETY: the header points to `name`, `vectors` and the parts, which outlive the call; all are only read.
    check_len(unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const header, libc::MSG_DONTWAIT) })?;
    Ok(())
}

/// Whether a send call may have failed for what an earlier datagram met: the socket's pending error is reported once, by
/// whichever call comes next.
pub(super) fn is_left_behind(error: &io::Error) -> bool {
    matches!(
        errno(error),
        libc::ECONNREFUSED
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::EPROTO
            | libc::EACCES
            | libc::EOPNOTSUPP
    )
}

/// Writes the control messages; returns their octets.
fn write_control(control: &mut Control, message: &Message<'_>) -> usize {
    let mut at = 0;
    if message.payload.len() > message.segment {
        at = put(control, at, libc::SOL_UDP, libc::UDP_SEGMENT, &(message.segment as u16).to_ne_bytes());
    }
    if message.tos != 0 {
        let value = libc::c_int::from(message.tos).to_ne_bytes();
        let (level, name) = if message.peer_is_ipv6 {
            (libc::SOL_IPV6, libc::IPV6_TCLASS)
        } else {
            (libc::SOL_IP, libc::IP_TOS)
        };
        at = put(control, at, level, name, &value);
    }
    at
}

/// Appends one control message whose data is at most 8 octets; returns where the next one goes.
fn put(control: &mut Control, at: usize, level: libc::c_int, kind: libc::c_int, data: &[u8]) -> usize {
    const HEADER: usize = size_of::<libc::cmsghdr>();
    const { assert!(HEADER == 16 && size_of::<usize>() == 8, "64-bit layout") };
    let mut value = [0; 8];
    for (to, from) in value.iter_mut().zip(data) {
        *to = *from;
    }
    let words = [
        (HEADER + data.len()) as u64,
        // Two 32-bit numbers in memory order.
        u64::from_ne_bytes(join(level.to_ne_bytes(), kind.to_ne_bytes())),
        u64::from_ne_bytes(value),
    ];
    for (to, from) in control.iter_mut().skip(at / 8).zip(words) {
        *to = from;
    }
    at + 24
}

fn join([a, b, c, d]: [u8; 4], [e, f, g, h]: [u8; 4]) -> [u8; 8] {
    [a, b, c, d, e, f, g, h]
}
