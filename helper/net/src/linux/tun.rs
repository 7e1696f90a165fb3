//! The TUN device: created by the `tun` crate, offloads negotiated here.
//!
//! The device is not persistent: the kernel removes it, with its addresses and routes, when the last descriptor is
//! closed. That is ours and whatever duplicates the datapath's threads hold; so also after SIGKILL.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, OFlag};
use tun::AbstractDevice;

use crate::{DeviceRef, NetError, Offloads, TunRequest, VNET_HDR_LEN};

// linux/if_tun.h: what TUNSETOFFLOAD takes. TUN_F_TSO_ECN (0x08) is not asked for: without it the kernel cuts
// segments that carry CWR itself, and no reader needs to know how CWR is spread over segments (RFC 3168, 6.1.2).
const TUN_F_CSUM: u32 = 0x01;
const TUN_F_TSO4: u32 = 0x02;
const TUN_F_TSO6: u32 = 0x04;
const TUN_F_USO4: u32 = 0x20;
const TUN_F_USO6: u32 = 0x40;

nix::ioctl_write_ptr!(tun_set_vnet_hdr_sz, b'T', 216, libc::c_int);
nix::ioctl_write_int_bad!(tun_set_offload, nix::request_code_write!(b'T', 208, size_of::<libc::c_uint>()));

/// A TUN device (layer 3, no packet information). The descriptor is non-blocking.
#[derive(Debug)]
pub struct TunDevice {
    fd: OwnedFd,
    name: String,
    index: u32,
    vnet_hdr: bool,
    offloads: Offloads,
}

impl TunDevice {
    /// Creates the device, down and without addresses, which [`Network::apply`](crate::Network::apply) changes.
    ///
    /// Offloads are asked for from the most to the least; a kernel that grants none still gives the header when
    /// they were asked for, so look at [`TunDevice::vnet_hdr`].
    ///
    /// # Errors
    /// [`NetError::InvalidInterfaceName`], [`NetError::DeviceExists`] when the exact name is taken,
    /// [`NetError::NotPermitted`], or what the kernel says.
    pub fn create(request: &TunRequest) -> Result<Self, NetError> {
        check_name(&request.name)?;
        if !request.name.contains('%') && index_of(&request.name).is_ok() {
            return Err(NetError::DeviceExists { name: request.name.clone() });
        }
        let mut config = tun::Configuration::default();
        config.tun_name(&request.name);
        config.platform_config(|p| {
            p.ensure_root_privileges(false);
            p.vnet_hdr(request.offloads);
        });
        let created = tun::create(&config).map_err(|e| from_tun(&request.name, e))?;
        let name = created.tun_name().map_err(|e| from_tun(&request.name, e))?;
        let raw = created.into_raw_fd();
        // SAFETY: into_raw_fd gave up the descriptor; nobody else closes it.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        set_nonblocking(raw).map_err(|e| NetError::io(format!("preparing {name}"), e))?;
        let offloads = if request.offloads { negotiate_offloads(raw, &name)? } else { Offloads::default() };
        let index = index_of(&name)?;
        let device = TunDevice { fd, name, index, vnet_hdr: request.offloads, offloads };
        device.set_mtu(request.mtu)?;
        tracing::debug!(device.name, device.index, ?device.offloads, "tunnel device created");
        Ok(device)
    }

    /// Another descriptor of the same device, for the datapath.
    ///
    /// # Errors
    /// The process has no descriptors left.
    pub fn try_clone_fd(&self) -> Result<OwnedFd, NetError> {
        self.fd
            .try_clone()
            .map_err(|e| NetError::io(format!("duplicating the descriptor of {}", self.name), e))
    }

    /// The name the kernel gave it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The kernel's index.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Whether each packet is preceded by a `virtio_net_hdr` of [`VNET_HDR_LEN`] octets, in both directions.
    #[must_use]
    pub fn vnet_hdr(&self) -> bool {
        self.vnet_hdr
    }

    /// What the kernel granted.
    #[must_use]
    pub fn offloads(&self) -> Offloads {
        self.offloads
    }

    /// Name and index.
    #[must_use]
    pub fn device_ref(&self) -> DeviceRef {
        DeviceRef { name: self.name.clone(), index: self.index }
    }

    /// Stops asking the kernel for super-packets, for when they turn out not to work; the header stays.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn disable_offloads(&mut self) -> Result<(), NetError> {
        if self.vnet_hdr {
            set_offload(self.fd.as_raw_fd(), 0)
                .map_err(|e| NetError::io(format!("switching offloads of {} off", self.name), e))?;
        }
        self.offloads = Offloads::default();
        Ok(())
    }

    /// Changes the largest packet that the system gives it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_mtu(&self, mtu: u32) -> Result<(), NetError> {
        let action = || format!("setting the MTU of {}", self.name);
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)
            .map_err(|e| NetError::io(action(), e))?;
        let mtu = libc::c_int::try_from(mtu)
            .map_err(|_| NetError::InvalidConfig { reason: format!("an MTU of {mtu} octets") })?;
        // SAFETY: an ifreq of zeroes is a valid value of that plain C structure.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(self.name.bytes()) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        request.ifr_ifru.ifru_mtu = mtu;
        // SAFETY: the descriptor is an open socket, the request is initialised and its name is shorter than
        // IFNAMSIZ and so terminated by the zeroes.
        let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFMTU as _, &raw const request) };
        if result < 0 {
            return Err(NetError::io(action(), io::Error::last_os_error()));
        }
        Ok(())
    }
}

impl AsFd for TunDevice {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn negotiate_offloads(fd: RawFd, name: &str) -> Result<Offloads, NetError> {
    let header = libc::c_int::try_from(VNET_HDR_LEN).unwrap_or(10);
    // SAFETY: the descriptor is an open TUN device and the pointer is to a live integer.
    unsafe { tun_set_vnet_hdr_sz(fd, &raw const header) }
        .map_err(|e| NetError::io(format!("setting the header size of {name}"), e.into()))?;
    let tso = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
    for wanted in [tso | TUN_F_USO4 | TUN_F_USO6, tso, TUN_F_CSUM, 0] {
        if set_offload(fd, wanted).is_ok() {
            return Ok(Offloads {
                csum: wanted & TUN_F_CSUM != 0,
                tso4: wanted & TUN_F_TSO4 != 0,
                tso6: wanted & TUN_F_TSO6 != 0,
                uso4: wanted & TUN_F_USO4 != 0,
                uso6: wanted & TUN_F_USO6 != 0,
            });
        }
        tracing::debug!(name, wanted, "the kernel does not grant these offloads");
    }
    Ok(Offloads::default())
}

fn set_offload(fd: RawFd, flags: u32) -> io::Result<()> {
    let flags = libc::c_int::try_from(flags).map_err(io::Error::other)?;
    // SAFETY: the descriptor is an open TUN device; the argument is passed by value.
    unsafe { tun_set_offload(fd, flags) }?;
    Ok(())
}

fn set_nonblocking(fd: RawFd) -> io::Result<()> {
    // SAFETY: the caller holds the descriptor open for the duration of the call.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    let flags = OFlag::from_bits_retain(nix::fcntl::fcntl(fd, FcntlArg::F_GETFL)?);
    nix::fcntl::fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// What the kernel's `dev_valid_name` takes, with room for the number that `%d` becomes.
pub(super) fn check_name(name: &str) -> Result<(), NetError> {
    let plain = name.strip_suffix("%d").unwrap_or(name);
    let limit = if plain.len() < name.len() { libc::IFNAMSIZ - 4 } else { libc::IFNAMSIZ - 1 };
    let valid = !plain.is_empty()
        && plain.len() <= limit
        && plain != "."
        && plain != ".."
        && plain.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'%'));
    if valid { Ok(()) } else { Err(NetError::InvalidInterfaceName { name: name.to_owned() }) }
}

pub(super) fn index_of(name: &str) -> Result<u32, NetError> {
    let missing = || NetError::NoSuchInterface { name: name.to_owned() };
    let c_name = CString::new(name).map_err(|_| missing())?;
    // SAFETY: the pointer is to a terminated string that outlives the call.
    let index = unsafe { libc::if_nametoindex(c_name.as_ptr()) };
    if index == 0 { Err(missing()) } else { Ok(index) }
}

fn from_tun(name: &str, error: tun::Error) -> NetError {
    let source = match error {
        tun::Error::Io(source) => source,
        other => io::Error::other(other),
    };
    if source.raw_os_error() == Some(libc::EBUSY) {
        return NetError::DeviceExists { name: name.to_owned() };
    }
    NetError::io(format!("creating the tunnel device {name}"), source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_kernel_would_refuse_are_refused_first() {
        for good in ["ropewalk%d", "ropewalk0", "a", "abcdefghijklmno", "vpn-1.2", "abcdefghijkl%d"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in
            ["", "%d", ".", "..", "a/b", "a b", "a:b", "%dx", "a%d%d", "abcdefghijklmnop", "abcdefghijklm%d"]
        {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
