//! `recvmmsg` with `UDP_GRO`, TOS and destination address, and the socket's error queue.

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use super::address::RawAddress;
use super::sys::{check, check_len};

/// Messages of one call. With `UDP_GRO` each may hold 64 datagrams.
pub(super) const MAX_MESSAGES: usize = 16;
/// Octets of one message at most.
const SLOT: usize = 65536;

/// Room for `UDP_GRO`, TOS and packet info of both families, with their headers.
type Control = [u64; 24];

/// What came with one message. Its octets are [`Batch::buffer`] from `start`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Received {
    pub(super) start: usize,
    pub(super) len: usize,
    /// Octets of each datagram in it but the last.
    pub(super) segment: usize,
    pub(super) remote: SocketAddr,
    pub(super) destination: Option<IpAddr>,
    pub(super) tos: u8,
}

/// The receive buffers, taken once.
#[derive(Debug)]
pub(super) struct Batch {
    buffer: Vec<u8>,
    names: Vec<RawAddress>,
    controls: Vec<Control>,
    received: Vec<Received>,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self {
            buffer: vec![0; MAX_MESSAGES * SLOT],
            names: vec![RawAddress::empty(); MAX_MESSAGES],
            controls: vec![[0; 24]; MAX_MESSAGES],
            received: Vec::with_capacity(MAX_MESSAGES),
        }
    }

    /// The octets of the messages and what came with them.
    pub(super) fn parts(&mut self) -> (&mut [u8], &[Received]) {
        (&mut self.buffer, &self.received)
    }

    /// Receives what is there. Returns how many messages came, of which those that make no sense are left out of
    /// [`Self::parts`].
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.received.clear();
        let mut vectors = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; MAX_MESSAGES];
        // SAFETY: all zero is a valid mmsghdr: null pointers with length 0.
        let mut headers: [libc::mmsghdr; MAX_MESSAGES] = unsafe { mem::zeroed() };
        let slots = self.buffer.chunks_exact_mut(SLOT).zip(&mut self.names).zip(&mut self.controls);
        for ((header, vector), ((slot, name), control)) in headers.iter_mut().zip(&mut vectors).zip(slots) {
            *vector = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() };
            let header = &mut header.msg_hdr;
            header.msg_name = name.as_mut_ptr().cast();
            header.msg_namelen = name.len();
            header.msg_iov = vector;
            header.msg_iovlen = 1;
            header.msg_control = control.as_mut_ptr().cast();
            header.msg_controllen = size_of::<Control>() as _;
        }
        // SAFETY: every header points to a slot, a name and a control that are ours alone during the call, with their
        // lengths.
        let count = check(unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                MAX_MESSAGES as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        })? as usize;
        for (index, (header, name)) in headers.iter().zip(&self.names).take(count).enumerate() {
            let len = (header.msg_len as usize).min(SLOT);
            let Some(remote) = name.read() else { continue };
            let mut received =
                Received { start: index * SLOT, len, segment: len.max(1), remote, destination: None, tos: 0 };
            read_control(&header.msg_hdr, |level, kind, data| match (level, kind) {
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    if let Some(size) = read_int(data).filter(|size| *size > 0) {
                        received.segment = size as usize;
                    }
                }
                (libc::SOL_IP, libc::IP_TOS) => received.tos = data.first().copied().unwrap_or(0),
                (libc::SOL_IPV6, libc::IPV6_TCLASS) => received.tos = read_int(data).unwrap_or(0) as u8,
                // struct in_pktinfo: index, specific destination, destination.
                (libc::SOL_IP, libc::IP_PKTINFO) => {
                    if let Some(ip) = data.get(8..).and_then(|data| data.first_chunk::<4>()) {
                        received.destination = Some(Ipv4Addr::from(*ip).into());
                    }
                }
                // struct in6_pktinfo: address, index.
                (libc::SOL_IPV6, libc::IPV6_PKTINFO) => {
                    if let Some(ip) = data.first_chunk::<16>() {
                        received.destination = Some(IpAddr::V6(Ipv6Addr::from(*ip)).to_canonical());
                    }
                }
                _ => {}
            });
            self.received.push(received);
        }
        Ok(count)
    }
}

/// What the error queue of a socket tells.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fault {
    pub(super) remote: Option<SocketAddr>,
    pub(super) errno: i32,
    /// With EMSGSIZE: the path MTU.
    pub(super) info: u32,
}

/// Takes one entry off the error queue; `None` when it is empty.
pub(super) fn take_fault(socket: BorrowedFd<'_>) -> Option<Fault> {
    let mut name = RawAddress::empty();
    let mut control: [u64; 64] = [0; 64];
    let mut payload = [0u8; 8];
    let mut vector = libc::iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: payload.len() };
    // SAFETY: all zero is a valid msghdr.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_name = name.as_mut_ptr().cast();
    header.msg_namelen = name.len();
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the header points to locals with their lengths.
    check_len(unsafe {
        libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut header, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT)
    })
    .ok()?;
    let mut fault = Fault { remote: name.read(), errno: 0, info: 0 };
    read_control(&header, |level, kind, data| {
        if matches!((level, kind), (libc::SOL_IP, libc::IP_RECVERR) | (libc::SOL_IPV6, libc::IPV6_RECVERR)) {
            // struct sock_extended_err: errno, origin, type, code, pad, info, data.
            if let Some(error) = data.first_chunk::<12>() {
                let [e0, e1, e2, e3, _, _, _, _, i0, i1, i2, i3] = *error;
                fault.errno = i32::from_ne_bytes([e0, e1, e2, e3]);
                fault.info = u32::from_ne_bytes([i0, i1, i2, i3]);
            }
        }
    });
    Some(fault)
}

fn read_int(data: &[u8]) -> Option<libc::c_int> {
    data.first_chunk::<4>().map(|value| libc::c_int::from_ne_bytes(*value))
}

/// Calls `each` with level, type and data of every control message that the kernel wrote.
fn read_control(header: &libc::msghdr, mut each: impl FnMut(libc::c_int, libc::c_int, &[u8])) {
    // SAFETY: the kernel filled in msg_control and msg_controllen, whose buffer lives as long as the borrow.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !message.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return null or a header that is wholly in the buffer.
        let (level, kind, len) =
            unsafe { ((*message).cmsg_level, (*message).cmsg_type, (*message).cmsg_len) };
        // SAFETY: CMSG_LEN only computes.
        let header_len = unsafe { libc::CMSG_LEN(0) } as usize;
        // SAFETY: the kernel wrote `len` octets from the header on; the data follows it.
        let data =
            unsafe { std::slice::from_raw_parts(libc::CMSG_DATA(message), len.saturating_sub(header_len)) };
        each(level, kind, data);
        // SAFETY: `message` came from this header's control buffer.
        message = unsafe { libc::CMSG_NXTHDR(header, message) };
    }
}
