//! The TUN device's descriptor: probing its offloads, reading and writing packets with their vnet header.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use super::sys::{self, check, check_len};
use crate::config::TunFd;
use crate::packet::coalesce::{Joining, MAX_SLICES};
use crate::packet::vnet::VNET_LEN;

// <linux/if_tun.h>
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
const TUNSETVNETHDRSZ: libc::c_ulong = 0x4004_54d8;
const TUN_F_CSUM: libc::c_ulong = 0x01;
const TUN_F_TSO4: libc::c_ulong = 0x02;
const TUN_F_TSO6: libc::c_ulong = 0x04;
const TUN_F_TSO_ECN: libc::c_ulong = 0x08;
const TUN_F_USO4: libc::c_ulong = 0x20;
const TUN_F_USO6: libc::c_ulong = 0x40;

/// A vnet header and the longest packet.
pub(super) const READ_LEN: usize = VNET_LEN + 65535;

#[derive(Debug)]
pub(super) struct Tun {
    fd: OwnedFd,
    vnet_hdr: bool,
    join_tcp: AtomicBool,
    join_udp: AtomicBool,
}

impl Tun {
    /// Takes the device over and finds out what it can do.
    pub(super) fn new(tun: TunFd, offloads: bool) -> io::Result<Self> {
        let TunFd { fd, vnet_hdr } = tun;
        sys::set_nonblocking(fd.as_fd())?;
        let (mut tcp, mut udp) = (false, false);
        if vnet_hdr {
            set_vnet_len(fd.as_fd())?;
            const TSO: libc::c_ulong = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
            const USO: libc::c_ulong = TUN_F_USO4 | TUN_F_USO6;
            let wishes = [TSO | TUN_F_TSO_ECN | USO, TSO | TUN_F_TSO_ECN, TSO];
            let got = wishes.into_iter().find(|wish| offloads && set_offload(fd.as_fd(), *wish).is_ok());
            match got {
                Some(flags) => (tcp, udp) = (true, flags & USO != 0),
                None => set_offload(fd.as_fd(), 0)?,
            }
        }
        tracing::debug!(vnet_hdr, tso = tcp, uso = udp, "TUN device probed");
        Ok(Self { fd, vnet_hdr, join_tcp: AtomicBool::new(tcp), join_udp: AtomicBool::new(udp) })
    }

    pub(super) const fn has_vnet_hdr(&self) -> bool {
        self.vnet_hdr
    }

    /// Which packets the device takes as super-packets.
    pub(super) fn joining(&self) -> Joining {
        Joining { tcp: self.join_tcp.load(Ordering::Relaxed), udp: self.join_udp.load(Ordering::Relaxed) }
    }

    /// The device said it takes super-packets and refused one.
    pub(super) fn degrade(&self, udp: bool, error: &io::Error) {
        let kind = if udp { &self.join_udp } else { &self.join_tcp };
        if kind.swap(false, Ordering::Relaxed) {
            tracing::warn!(udp, %error, "the TUN device refuses super-packets, going on without");
        }
    }

    /// Reads one packet, vnet header before it when the device has one.
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the pointer and the length are those of `buffer`.
        check_len(unsafe { libc::read(self.fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) })
    }

    /// Writes one packet made of slices, behind `vnet` when the device has a vnet header.
    pub(super) fn write<'a>(
        &self,
        vnet: &'a [u8; VNET_LEN],
        slices: impl Iterator<Item = &'a [u8]>,
    ) -> io::Result<usize> {
        const VECTORS: usize = MAX_SLICES + 1;
        let mut vectors = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; VECTORS];
        let header = self.vnet_hdr.then_some(&vnet[..]);
        let mut count: libc::c_int = 0;
        for (vector, slice) in vectors.iter_mut().zip(header.into_iter().chain(slices)) {
            *vector = libc::iovec { iov_base: slice.as_ptr().cast_mut().cast(), iov_len: slice.len() };
            count += 1;
        }
        // SAFETY: the first `count` vectors are slices that outlive the call, which only reads them.
        check_len(unsafe { libc::writev(self.fd.as_raw_fd(), vectors.as_ptr(), count) })
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn set_offload(fd: BorrowedFd<'_>, flags: libc::c_ulong) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETOFFLOAD as _, flags) })?;
    Ok(())
}

fn set_vnet_len(fd: BorrowedFd<'_>) -> io::Result<()> {
    let len = VNET_LEN as libc::c_int;
    // SAFETY: TUNSETVNETHDRSZ reads an int through its argument.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETVNETHDRSZ as _, &raw const len) })?;
    Ok(())
}
