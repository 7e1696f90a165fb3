//! Who is at the other end of a Unix socket, as the kernel says.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

/// Credentials of the process at the other end, taken by the kernel when it connected (or listened).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Process id; 0 when the kernel does not tell (another pid namespace).
    pub pid: u32,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
    /// Start time of the process in clock ticks since boot, as polkit wants it beside the pid; `None` when the
    /// process is gone already.
    pub start_time: Option<u64>,
}

impl Peer {
    /// Asks the kernel (`SO_PEERCRED`).
    ///
    /// # Errors
    /// The socket is not a connected Unix socket.
    pub fn of(socket: &impl AsFd) -> io::Result<Self> {
        let credentials = nix::sys::socket::getsockopt(socket, nix::sys::socket::sockopt::PeerCredentials)?;
        let pid = u32::try_from(credentials.pid()).unwrap_or(0);
        Ok(Self {
            pid,
            uid: credentials.uid(),
            gid: credentials.gid(),
            groups: supplementary_groups(socket.as_fd().as_raw_fd())?,
            start_time: (pid != 0).then(|| process_start_time(pid)).flatten(),
        })
    }

    /// True for the superuser.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }
}

/// Field 22 of `/proc/PID/stat`. The command name (field 2) may hold spaces and parentheses, so counting
/// starts behind its last closing parenthesis.
fn process_start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after) = stat.rsplit_once(')')?;
    after.split_whitespace().nth(19)?.parse().ok()
}

/// `SO_PEERGROUPS`, which nix has no name for.
fn supplementary_groups(socket: RawFd) -> io::Result<Vec<u32>> {
    // Linux allows 65,536 groups (NGROUPS_MAX); almost everybody is in fewer than 64.
    let mut groups = vec![0u32; 64];
    loop {
        let room = groups.len().saturating_mul(size_of::<u32>());
        let mut length = libc::socklen_t::try_from(room).map_err(io::Error::other)?;
        // SAFETY: the buffer is valid for `length` octets, and the kernel writes no more than that; both pointers
        // live through the call; u32 has the size and alignment of gid_t on Linux.
        let result = unsafe {
            libc::getsockopt(
                socket,
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let count = usize::try_from(length).unwrap_or(0) / size_of::<u32>();
        if result == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        // ERANGE comes with the length that is needed.
        if error.raw_os_error() == Some(libc::ERANGE) && count > groups.len() {
            groups.resize(count, 0);
        } else {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_peer_of_our_own_pair_is_this_process() {
        let (here, _there) = UnixStream::pair().unwrap();
        let peer = Peer::of(&here).unwrap();
        assert_eq!(peer.pid, std::process::id());
        assert_eq!(peer.uid, nix::unistd::getuid().as_raw());
        assert!(peer.start_time.unwrap() > 0);
    }
}
