//! One pump whose peer is the test itself: a plain UDP socket and ESP by hand, so that every octet outside is seen and
//! made at will.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use ropewalk_datapath::esp::{InboundSa, OutboundSa};
use ropewalk_datapath::{
    Config, DataPath, DeviceId, Egress, Event, EventReceiver, Framing, InboundHandle, InboundSpec,
    OutboundHandle, Selector, SocketId,
};

use crate::lab::{Namespace, aes_gcm, inbound, outbound};

/// SPI of what the pump receives.
pub const SPI_IN: u32 = 0x1001;
/// SPI of what the pump sends.
pub const SPI_OUT: u32 = 0x2001;

/// The pump has 10.99.0.1 and fd99::1 inside; all the rest of both nets is behind the peer.
pub struct Rig {
    pub path: DataPath,
    pub events: EventReceiver,
    pub socket: SocketId,
    /// The pump's outer address.
    pub address: SocketAddr,
    pub inbound: InboundHandle,
    /// The peer's socket.
    pub udp: UdpSocket,
    /// Seals what the peer sends.
    pub seal: OutboundSa,
    /// Opens what the peer receives.
    pub open: InboundSa,
    /// Last, so that the devices go first.
    pub namespace: Namespace,
}

impl Rig {
    pub fn new(config: Config) -> Self {
        Self::with(config, 1500, true)
    }

    pub fn with(config: Config, tun_mtu: u16, vnet_hdr: bool) -> Self {
        let namespace = Namespace::new('p');
        let tun = namespace.tun(vnet_hdr, tun_mtu, 1);
        let (path, events) = DataPath::start(tun, config).unwrap();
        let udp = namespace.udp("127.0.0.1:0");
        let ours = namespace.udp("127.0.0.1:0");
        let address = ours.local_addr().unwrap();
        let socket = path.add_socket(ours, Framing::ByRemotePort).unwrap();
        let spec = InboundSpec {
            sa: inbound(SPI_IN, aes_gcm()),
            sources: vec![
                Selector::addresses("10.99.0.2".parse().unwrap(), "10.99.0.254".parse().unwrap()),
                Selector::addresses("fd99::2".parse().unwrap(), "fd99::ffff".parse().unwrap()),
            ],
            destinations: vec![
                Selector::host("10.99.0.1".parse().unwrap()),
                Selector::host("fd99::1".parse().unwrap()),
            ],
            outer: None,
            device: DeviceId::MAIN,
            peer: Some((socket, udp.local_addr().unwrap())),
            divert: None,
        };
        let inbound_handle = path.add_inbound(spec).unwrap();
        let egress = Egress {
            sa: OutboundHandle::new(outbound(SPI_OUT, aes_gcm())),
            socket,
            peer: udp.local_addr().unwrap(),
        };
        path.set_default(Some(egress.into())).unwrap();
        Self {
            path,
            events,
            socket,
            address,
            inbound: inbound_handle,
            udp,
            seal: outbound(SPI_IN, aes_gcm()),
            open: inbound(SPI_OUT, aes_gcm()),
            namespace,
        }
    }

    /// Seals an inner packet as the peer.
    pub fn sealed(&self, seq: u64, packet: &[u8], next_header: u8) -> Vec<u8> {
        let mut out = vec![0; self.seal.suite().sealed_len(packet.len())];
        let len = self.seal.seal(seq, &[packet], next_header, &mut out).unwrap();
        out.truncate(len);
        out
    }

    /// Sends an inner packet as the peer.
    pub fn send(&self, seq: u64, packet: &[u8]) {
        let next_header = if packet[0] >> 4 == 6 { 41 } else { 4 };
        self.udp.send_to(&self.sealed(seq, packet, next_header), self.address).unwrap();
    }

    /// The next inner packet that reaches the peer and that `wanted` takes, with the outer TOS octet.
    pub fn receive(&mut self, wanted: impl Fn(&[u8]) -> bool) -> (Vec<u8>, u8) {
        loop {
            let (mut datagram, tos) = receive_with_tos(&self.udp);
            if datagram.len() < 8 {
                continue;
            }
            let opened = self.open.open(&mut datagram).expect("ESP that opens");
            let packet = datagram[opened.range].to_vec();
            if wanted(&packet) {
                return (packet, tos);
            }
        }
    }

    /// The next inner packet that reaches the peer by the first device's SA and ends like this; other SAs' are left out.
    pub fn receive_by_first(&mut self, wanted: &[u8]) -> (Vec<u8>, u8) {
        loop {
            let (mut datagram, tos) = receive_with_tos(&self.udp);
            if !datagram.starts_with(&SPI_OUT.to_be_bytes()) {
                continue;
            }
            let opened = self.open.open(&mut datagram).expect("ESP that opens");
            let packet = datagram[opened.range].to_vec();
            if packet.ends_with(wanted) {
                return (packet, tos);
            }
        }
    }

    /// The next datagram that reaches the peer and is not ESP: the system's own chatter on the device comes as that.
    pub fn receive_plain(&self) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 2000];
        loop {
            let (len, from) = retried(|| self.udp.recv_from(&mut buffer));
            if !buffer[..len].starts_with(&SPI_OUT.to_be_bytes()) {
                return (buffer[..len].to_vec(), from);
            }
        }
    }

    /// The next event that `wanted` takes, within five seconds.
    pub fn event(&mut self, wanted: impl Fn(&Event) -> bool) -> Event {
        let end = std::time::Instant::now() + Duration::from_secs(5);
        loop {
            let left = end.checked_duration_since(std::time::Instant::now()).expect("the event never came");
            match self.events.recv_timeout(left) {
                Some(event) if wanted(&event) => return event,
                Some(_) | None => {}
            }
        }
    }
}

/// What a receiving call returns, which is called again when a signal ended it (signal(7): those with a timeout are).
pub fn retried<T>(mut call: impl FnMut() -> std::io::Result<T>) -> T {
    loop {
        match call() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            result => return result.expect("nothing came"),
        }
    }
}

/// Receives a datagram with the TOS octet it came with.
pub fn receive_with_tos(socket: &UdpSocket) -> (Vec<u8>, u8) {
    let on: libc::c_int = 1;
    for (level, name) in [(libc::SOL_IP, libc::IP_RECVTOS), (libc::SOL_IPV6, libc::IPV6_RECVTCLASS)] {
        // SAFETY: the pointer and the length are those of `on`. IPV6_ fails on an IPv4 socket, which is fine.
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const on).cast(), 4) };
    }
    let mut buffer = vec![0; 65536];
    let mut control = [0u64; 16];
    let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all zero is a valid msghdr.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control);
    let len = retried(|| {
        // SAFETY: the header points to locals with their lengths.
        let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, 0) };
        usize::try_from(len).map_err(|_| std::io::Error::last_os_error())
    });
    buffer.truncate(len);
    let mut tos = 0;
    // SAFETY: the kernel filled in the control buffer, which is still there.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(&raw const header);
        while !message.is_null() {
            if matches!(
                ((*message).cmsg_level, (*message).cmsg_type),
                (libc::SOL_IP, libc::IP_TOS) | (libc::SOL_IPV6, libc::IPV6_TCLASS)
            ) {
                tos = *libc::CMSG_DATA(message);
            }
            message = libc::CMSG_NXTHDR(&raw const header, message);
        }
    }
    (buffer, tos)
}

/// Sets a socket option that is a number.
pub fn set_option(socket: &impl AsRawFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) {
    // SAFETY: the pointer and the length are those of `value`.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), 4) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// Reads a socket option that is a number.
pub fn option(socket: &impl AsRawFd, level: libc::c_int, name: libc::c_int) -> libc::c_int {
    let (mut value, mut len): (libc::c_int, libc::socklen_t) = (0, 4);
    // SAFETY: the pointers are to `value` and its length.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut len) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    value
}

/// A UDP packet, checksum zero for IPv4 (RFC 768: none) and right for IPv6.
pub fn udp_packet(source: &str, destination: &str, tos: u8, payload: &[u8]) -> Vec<u8> {
    let (source, destination): (SocketAddr, SocketAddr) =
        (source.parse().unwrap(), destination.parse().unwrap());
    let len = (8 + payload.len()) as u16;
    let mut udp = Vec::new();
    udp.extend(source.port().to_be_bytes());
    udp.extend(destination.port().to_be_bytes());
    udp.extend(len.to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(payload);
    match (source, destination) {
        (SocketAddr::V4(s), SocketAddr::V4(d)) => {
            let mut ip = vec![0x45, tos];
            ip.extend((20 + len).to_be_bytes());
            ip.extend([0, 1, 0x40, 0, 64, 17, 0, 0]);
            ip.extend(s.ip().octets());
            ip.extend(d.ip().octets());
            let sum = checksum(&ip);
            ip[10..12].copy_from_slice(&sum);
            ip.extend(udp);
            ip
        }
        (SocketAddr::V6(s), SocketAddr::V6(d)) => {
            let mut ip = vec![0x60 | (tos >> 4), tos << 4, 0, 0];
            ip.extend(len.to_be_bytes());
            ip.extend([17, 64]);
            ip.extend(s.ip().octets());
            ip.extend(d.ip().octets());
            let mut pseudo = ip[8..].to_vec();
            pseudo.extend(u32::from(len).to_be_bytes());
            pseudo.extend([0, 0, 0, 17]);
            pseudo.extend(&udp);
            udp[6..8].copy_from_slice(&checksum(&pseudo));
            ip.extend(udp);
            ip
        }
        _ => panic!("mixed families"),
    }
}

/// RFC 1071, word by word: not the code under test.
pub fn checksum(bytes: &[u8]) -> [u8; 2] {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}
