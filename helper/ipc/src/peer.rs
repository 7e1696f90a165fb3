//! Who is at the other end of a Unix socket, as the kernel says.

use std::io;
use std::os::fd::AsFd;

/// Credentials of the process at the other end, taken by the kernel when it connected (or listened).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Process id; 0 when the kernel does not tell (another pid namespace).
    pub pid: u32,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
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
