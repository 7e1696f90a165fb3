//! The relay's side of the LAN: one socket at its address, to all DHCP servers.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::Context;
use ropewalk_dhcp::SERVER_PORT;

use super::config::Config;

/// More than any DHCP message.
const LARGEST: usize = 4096;
/// Messages and errors that are passed over at most.
const TURNS: usize = 64;

/// The way to the servers.
pub struct Lan {
    socket: UdpSocket,
    servers: Vec<Ipv4Addr>,
}

impl Lan {
    /// Opens the socket at the relay's address; `None` when clients get no addresses by DHCP.
    ///
    /// # Errors
    /// The system refuses.
    pub fn open(config: &Config, relay: Option<Ipv4Addr>) -> anyhow::Result<Option<Self>> {
        let (Some(dhcp), Some(relay)) = (&config.dhcp, relay) else { return Ok(None) };
        let local = SocketAddrV4::new(relay, SERVER_PORT);
        let socket = UdpSocket::bind(local).with_context(|| format!("listen on {local} for DHCP servers"))?;
        socket.set_nonblocking(true)?;
        tracing::info!(%relay, servers = ?dhcp.servers, "DHCP relay");
        Ok(Some(Self { socket, servers: dhcp.servers.clone() }))
    }

    /// Sends a client's message to all of them.
    pub fn send(&self, message: &[u8]) {
        for server in &self.servers {
            if let Err(error) = self.socket.send_to(message, (*server, SERVER_PORT)) {
                tracing::debug!(%server, %error, "a DHCP server cannot be reached");
            }
        }
    }

    /// The next message of a server.
    pub fn receive(&self) -> Option<Vec<u8>> {
        let mut buffer = [0; LARGEST];
        // Not without end, whatever the system says.
        for _ in 0..TURNS {
            match self.socket.recv_from(&mut buffer) {
                Ok((len, from)) if self.servers.iter().any(|server| from.ip() == *server) => {
                    return buffer.get(..len).map(<[u8]>::to_vec);
                }
                Ok((_, from)) => tracing::debug!(%from, "not from a DHCP server"),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return None,
                // What an earlier message came to, such as "connection refused".
                Err(error) => tracing::debug!(%error, "a DHCP server"),
            }
        }
        None
    }
}

impl AsFd for Lan {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
