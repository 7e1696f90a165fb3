//! Questions and orders for tests: one line each over a Unix socket, answered by one line of JSON.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use ropewalk_gateway::{Gateway, PathInfo};
use serde_json::{Value, json};

use super::plane::Plane;

/// A caller that takes longer than this is not waited for: everything else stands still meanwhile.
const PATIENCE: Duration = Duration::from_millis(200);

/// The listening socket; its file goes with it.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
}

/// What a line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Order<'a> {
    /// The clients.
    List,
    /// The counters.
    Stats,
    /// End the connections of a client.
    Disconnect(&'a str),
    /// Renew all clients' CHILD_SAs, or their IKE_SAs.
    Rekey {
        /// The IKE_SAs.
        ike: bool,
    },
    /// Ask all clients for a further IKE_SA.
    AddPath,
    /// Make the group's next SA and hand it out.
    RenewGroup,
    /// Take the group's SAs back.
    EndGroup,
    /// Send all clients to another gateway.
    Redirect(&'a str),
    /// The gateway has these addresses from now on.
    Addresses(Vec<IpAddr>),
    /// Something else.
    Unknown,
}

/// One line of a caller.
#[derive(Debug)]
pub struct Question {
    stream: UnixStream,
    line: String,
}

impl Control {
    /// Listens at `path`, for the owner only.
    ///
    /// # Errors
    /// The system refuses.
    pub fn listen(path: &Path) -> anyhow::Result<Self> {
        let _ = fs::remove_file(path);
        let listener = UnixListener::bind(path).with_context(|| format!("listen at {}", path.display()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// The next caller's question, if one is there.
    #[must_use]
    pub fn accept(&self) -> Option<Question> {
        let (stream, _) = self.listener.accept().ok()?;
        stream.set_nonblocking(false).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.set_write_timeout(Some(PATIENCE)).ok()?;
        let mut line = String::new();
        if let Err(error) = BufReader::new(&stream).read_line(&mut line) {
            tracing::debug!(%error, "a caller of the control socket said nothing");
        }
        Some(Question { stream, line })
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Question {
    /// What it asks for.
    #[must_use]
    pub fn order(&self) -> Order<'_> {
        order(&self.line)
    }

    /// Answers it.
    pub fn answer(&mut self, answer: &Value) {
        if let Err(error) = writeln!(self.stream, "{answer}") {
            tracing::debug!(%error, "a caller of the control socket did not wait");
        }
    }
}

/// The clients.
#[must_use]
pub fn list(gateway: &Gateway, plane: &Plane) -> Value {
    let of = |info: ropewalk_gateway::ClientInfo| {
        let (bytes_in, bytes_out) = plane.octets(info.client);
        json!({
            "name": info.name,
            "addresses": info.addresses,
            "remote": info.remote,
            "suite": info.suite.to_string(),
            "children": info.children.len(),
            "paths": info.paths.iter().map(|path| path_of(path, plane)).collect::<Vec<_>>(),
            "bytes_in": bytes_in,
            "bytes_out": bytes_out,
        })
    };
    gateway.clients().into_iter().map(of).collect()
}

/// One path of a client.
fn path_of(path: &PathInfo, plane: &Plane) -> Value {
    let (bytes_in, bytes_out) = plane.octets_of(&path.children);
    json!({
        "remote": path.path.remote,
        "local": path.path.local,
        "spi_i": format!("{:016x}", path.spis.initiator),
        "spi_r": format!("{:016x}", path.spis.responder),
        "children": path.children.iter().map(|spi| format!("{spi:08x}")).collect::<Vec<_>>(),
        "main": path.main,
        "bytes_in": bytes_in,
        "bytes_out": bytes_out,
    })
}

/// The counters.
#[must_use]
pub fn stats(gateway: &Gateway, plane: &Plane) -> Value {
    let counters = plane.counters();
    json!({
        "clients": gateway.clients().len(),
        "half_open": gateway.half_open(),
        "tx_packets": counters.tx_packets,
        "tx_bytes": counters.tx_bytes,
        "tx_syscalls": counters.tx_syscalls,
        "rx_packets": counters.rx_packets,
        "rx_bytes": counters.rx_bytes,
        "rx_syscalls": counters.rx_syscalls,
        "rx_refused": counters.rx_refused,
        "rx_failed": counters.rx_failed,
        "rx_replayed": counters.rx_replayed,
    })
}

fn order(line: &str) -> Order<'_> {
    match line.trim().split_once(' ') {
        None if line.trim() == "list" => Order::List,
        None if line.trim() == "stats" => Order::Stats,
        Some(("rekey", "child")) => Order::Rekey { ike: false },
        Some(("rekey", "ike")) => Order::Rekey { ike: true },
        Some(("add", "path")) => Order::AddPath,
        Some(("group", "renew")) => Order::RenewGroup,
        Some(("group", "end")) => Order::EndGroup,
        Some(("disconnect", name)) => Order::Disconnect(name.trim()),
        Some(("redirect", to)) => Order::Redirect(to.trim()),
        Some(("addresses", list)) => {
            let addresses = list.split_whitespace().map(str::parse).collect::<Result<Vec<_>, _>>();
            addresses.map_or(Order::Unknown, Order::Addresses)
        }
        None | Some(_) => Order::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood() {
        assert_eq!(order("list\n"), Order::List);
        assert_eq!(order("stats"), Order::Stats);
        assert_eq!(order("disconnect CN=Alice Adams\n"), Order::Disconnect("CN=Alice Adams"));
        assert_eq!(order("rekey ike\n"), Order::Rekey { ike: true });
        assert_eq!(order("add path"), Order::AddPath);
        assert_eq!((order("group renew"), order("group end")), (Order::RenewGroup, Order::EndGroup));
        assert_eq!(order("redirect 192.0.2.1"), Order::Redirect("192.0.2.1"));
        let addresses = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        assert_eq!(order("addresses 192.0.2.1 2001:db8::1\n"), Order::Addresses(addresses));
        assert_eq!(order("addresses here"), Order::Unknown);
        assert_eq!(order("disconnect"), Order::Unknown);
        assert_eq!(order(""), Order::Unknown);
    }
}
