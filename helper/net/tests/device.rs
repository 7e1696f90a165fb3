//! The TUN device and the sockets beside it.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use common::{World, config, isolated, sh};
use ropewalk_net::{
    DEFAULT_FWMARK, Family, NetError, PathSocket, TunDevice, TunRequest, VNET_HDR_LEN, open_path_socket,
    send_fragmentable,
};

fn request(name: &str, offloads: bool) -> TunRequest {
    TunRequest { name: name.into(), mtu: 1400, offloads }
}

fn option(socket: &UdpSocket, level: i32, name: i32) -> i32 {
    let mut value: libc::c_int = 0;
    let mut length = libc::socklen_t::try_from(size_of_val(&value)).unwrap();
    // SAFETY: an open socket, and a buffer of the length given.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut length)
    };
    assert_eq!(result, 0);
    value
}

#[test]
fn a_device_goes_when_its_last_descriptor_is_closed() {
    isolated("a_device_goes_when_its_last_descriptor_is_closed", |_world: World| async move {
        let first = TunDevice::create(&TunRequest::default()).unwrap();
        let second = TunDevice::create(&TunRequest::default()).unwrap();
        assert_eq!((first.name(), second.name()), ("ropewalk0", "ropewalk1"));
        assert_eq!(sh("cat /sys/class/net/ropewalk0/ifindex").trim(), first.index().to_string());
        let taken = TunDevice::create(&request("ropewalk0", true)).unwrap_err();
        assert!(matches!(taken, NetError::DeviceExists { .. }), "{taken}");
        let duplicate = first.try_clone_fd().unwrap();
        drop(first);
        assert!(sh("ip link").contains("ropewalk0"));
        drop(duplicate);
        assert!(!sh("ip link").contains("ropewalk0"));
        assert!(sh("ip link").contains("ropewalk1"));
    });
}

#[test]
fn offloads_are_granted_and_a_transfer_comes_in_super_packets() {
    isolated("offloads_are_granted_and_a_transfer_comes_in_super_packets", |world: World| async move {
        let mut tun = TunDevice::create(&request("rwtun0", true)).unwrap();
        assert!(tun.vnet_hdr());
        let granted = tun.offloads();
        assert!(granted.csum && granted.tso4 && granted.tso6, "{granted:?}");
        let network = world.network().await;
        network.apply(&config(&tun, &["10.9.0.2"], &["10.0.0.0/8"])).await.unwrap();
        // One UDP message segmented by the kernel (UDP_SEGMENT) stays whole up to here when USO is granted.
        let socket = UdpSocket::bind("10.9.0.2:0").unwrap();
        let size: libc::c_int = 1000;
        // SAFETY: an open socket, and a value of the length given.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_UDP,
                libc::UDP_SEGMENT,
                (&raw const size).cast(),
                4,
            )
        };
        assert_eq!(set, 0);
        let mut file = std::fs::File::from(tun.try_clone_fd().unwrap());
        let mut longest = async |payload: &[u8]| {
            while file.read(&mut [0; 65600]).is_ok() {}
            socket.send_to(payload, "10.1.1.1:9").unwrap();
            let mut longest = 0;
            let mut buffer = vec![0; 65600];
            for _ in 0..50 {
                while let Ok(length) = file.read(&mut buffer) {
                    assert!(length >= VNET_HDR_LEN + 20);
                    if buffer[VNET_HDR_LEN] >> 4 == 4 {
                        longest = longest.max(length - VNET_HDR_LEN);
                    }
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            longest
        };
        let whole = if granted.uso4 { 28 + 10_000 } else { 28 + 1000 };
        assert_eq!(longest(&[7; 10_000]).await, whole);
        tun.disable_offloads().unwrap();
        assert_eq!(longest(&[7; 10_000]).await, 28 + 1000);
        assert_eq!(tun.offloads(), ropewalk_net::Offloads::default());
        network.undo_all().await.unwrap();
    });
}

#[test]
fn without_offloads_packets_are_plain_and_what_is_written_is_received() {
    isolated(
        "without_offloads_packets_are_plain_and_what_is_written_is_received",
        |world: World| async move {
            let tun = TunDevice::create(&request("rwtun0", false)).unwrap();
            assert!(!tun.vnet_hdr());
            let network = world.network().await;
            network.apply(&config(&tun, &["10.9.0.2"], &["10.0.0.0/8"])).await.unwrap();
            assert!(sh("ip link show rwtun0").contains("mtu 1400"));
            let socket = UdpSocket::bind("10.9.0.2:7000").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            socket.send_to(b"ping", "10.1.1.1:9000").unwrap();
            let mut packet = common::next_packet(&tun, Duration::from_secs(2)).await.unwrap();
            // Turned round: addresses and ports swapped, which changes no checksum.
            let (source, rest) = packet[12..].split_at_mut(4);
            source.swap_with_slice(&mut rest[..4]);
            packet.swap(20, 22);
            packet.swap(21, 23);
            std::fs::File::from(tun.try_clone_fd().unwrap()).write_all(&packet).unwrap();
            let mut buffer = [0; 16];
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!(
                (&buffer[..length], from),
                (&b"ping"[..], "10.1.1.1:9000".parse::<SocketAddr>().unwrap())
            );
            network.undo_all().await.unwrap();
        },
    );
}

#[test]
fn a_path_socket_is_marked_bound_large_and_does_not_fragment() {
    isolated("a_path_socket_is_marked_bound_large_and_does_not_fragment", |world: World| async move {
        for (family, local, gateway) in [
            (Family::V4, "192.0.2.2", "192.0.2.1:4500"),
            (Family::V6, "2001:db8:1::2", "[2001:db8:1::1]:4500"),
        ] {
            let wanted = PathSocket {
                interface: Some("wan0".into()),
                local: Some(local.parse().unwrap()),
                ..PathSocket::new(family)
            };
            let socket = open_path_socket(&wanted).unwrap();
            assert_eq!(socket.local_addr().unwrap().ip().to_string(), local);
            assert_eq!(option(&socket, libc::SOL_SOCKET, libc::SO_MARK).cast_unsigned(), DEFAULT_FWMARK);
            assert_eq!(
                option(&socket, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX).to_string(),
                sh("cat /sys/class/net/wan0/ifindex").trim()
            );
            assert_eq!(option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF), 8 << 20);
            assert_eq!(option(&socket, libc::SOL_SOCKET, libc::SO_SNDBUF), 2 << 20);
            let would_block = socket.recv_from(&mut [0; 8]).unwrap_err();
            assert_eq!(would_block.kind(), std::io::ErrorKind::WouldBlock);

            // Larger than the link: refused as it is, sent when it may be fragmented, refused again.
            let there = world.socket_there(gateway);
            let gateway: SocketAddr = gateway.parse().unwrap();
            let large = [5; 3000];
            let refused = |e: std::io::Error| e.raw_os_error() == Some(libc::EMSGSIZE);
            assert!(socket.send_to(&large, gateway).is_err_and(refused));
            assert_eq!(send_fragmentable(&socket, &large, gateway).unwrap(), 3000);
            assert_eq!(there.recv(&mut [0; 4000]).unwrap(), 3000);
            // The error queue holds the first refusal.
            let refusals = (0..3).filter(|_| socket.send_to(&large, gateway).is_err()).count();
            assert_eq!(refusals, 3);
        }
    });
}

#[test]
fn a_socket_of_a_missing_interface_or_the_wrong_family_is_a_named_error() {
    isolated(
        "a_socket_of_a_missing_interface_or_the_wrong_family_is_a_named_error",
        |_world: World| async move {
            let wanted = PathSocket { interface: Some("wan9".into()), ..PathSocket::new(Family::V4) };
            assert!(matches!(open_path_socket(&wanted), Err(NetError::NoSuchInterface { .. })));
            let wanted =
                PathSocket { local: Some("192.0.2.2".parse().unwrap()), ..PathSocket::new(Family::V6) };
            assert!(matches!(open_path_socket(&wanted), Err(NetError::InvalidConfig { .. })));
        },
    );
}
