//! The sockets towards the gateway: the one that carries, and while the connection moves or races, others beside it.

use std::net::{IpAddr, SocketAddr};

use ropewalk_datapath::{DataPath, Framing, SocketId};
use ropewalk_ike::exchange::Path;
use ropewalk_net::{DEFAULT_FWMARK, Family, PathSocket, RouteTo, Snapshot, open_path_socket};
use ropewalk_session::PathSize;

use crate::platform::Platform;

/// What a path carries when nothing else is known.
const USUAL_PATH_MTU: u32 = 1500;

/// A socket in use.
#[derive(Debug)]
pub struct Link {
    /// The session's name for it.
    pub id: u32,
    /// The pump's name for it.
    pub socket: SocketId,
    /// Its addresses.
    pub path: Path,
    /// The interface that it is bound to.
    pub interface: String,
    /// The kernel's number of that.
    pub index: u32,
    /// What its interface, or a route, says that the path carries, in octets.
    pub path_mtu: usize,
    /// What was found out about that.
    pub size: Option<PathSize>,
}

impl Link {
    /// What the path carries, as far as can be known, and what it is not known not to carry.
    #[must_use]
    pub fn carries(&self) -> PathSize {
        let all = PathSize { surely: self.path_mtu, perhaps: self.path_mtu };
        self.size.unwrap_or(all)
    }
}

/// How the system would go to the gateway now, compared with how the connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The same way.
    Same,
    /// By another interface or address.
    Other,
    /// Not at all.
    None,
}

/// All sockets of one connection.
#[derive(Debug, Default)]
pub struct Links {
    links: Vec<Link>,
    /// Those that traffic leaves by, the main one first.
    carrying: Vec<u32>,
    opened: u32,
}

impl Links {
    /// Opens a socket towards a gateway address, on this interface or on the one that the system would use outside the
    /// tunnel; its path and the number of its interface.
    ///
    /// # Errors
    /// In words: there is no route, or the system refuses.
    pub async fn open(
        &mut self,
        platform: &Platform,
        pump: &DataPath,
        remote: SocketAddr,
        interface: Option<u32>,
    ) -> Result<(Path, u32), String> {
        let snapshot = platform.monitor.snapshot();
        let bound = interface.and_then(|index| snapshot.interfaces.iter().find(|found| found.index == index));
        if interface.is_some() && bound.is_none() {
            return Err("the interface is gone".to_owned());
        }
        let name = bound.map(|found| found.name.as_str());
        let route = route_to(platform, &snapshot, remote.ip(), name).await?;
        let wanted = PathSocket {
            interface: Some(route.interface.clone()),
            local: Some(route.source),
            ..PathSocket::new(Family::of(remote.ip()))
        };
        let socket = open_path_socket(&wanted).map_err(|error| error.to_string())?;
        let local = socket.local_addr().map_err(|error| error.to_string())?;
        let socket = pump.add_socket(socket, Framing::ByRemotePort).map_err(|error| error.to_string())?;
        self.opened = self.opened.wrapping_add(1);
        let (path, index) = (Path { link: self.opened, local, remote }, route.index);
        let interface_mtu = snapshot.interface(&route.interface).map(|found| found.mtu);
        let path_mtu = route.mtu.or(interface_mtu).unwrap_or(USUAL_PATH_MTU);
        self.links.push(Link {
            id: self.opened,
            socket,
            path,
            interface: route.interface,
            index,
            path_mtu: usize::try_from(path_mtu).unwrap_or(1500),
            size: None,
        });
        Ok((path, index))
    }

    /// Gives a socket up.
    pub fn close(&mut self, pump: &DataPath, id: u32) {
        let Some(at) = self.links.iter().position(|link| link.id == id) else { return };
        let link = self.links.remove(at);
        self.carrying.retain(|carrying| *carrying != id);
        if let Err(error) = pump.remove_socket(link.socket) {
            tracing::debug!(%error, "a socket was gone already");
        }
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Link> {
        self.links.iter()
    }

    /// The link of that name.
    #[must_use]
    pub fn get(&self, id: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.id == id)
    }

    /// The link that this socket belongs to.
    #[must_use]
    pub fn of_socket(&self, socket: SocketId) -> Option<u32> {
        self.links.iter().find(|link| link.socket == socket).map(|link| link.id)
    }

    /// The link that most traffic leaves by, else the newest.
    #[must_use]
    pub fn current(&self) -> Option<&Link> {
        self.carrying.first().and_then(|id| self.get(*id)).or(self.links.last())
    }

    /// A link is used for this path from now on.
    pub fn note_path(&mut self, path: Path) {
        if let Some(link) = self.links.iter_mut().find(|link| link.id == path.link) {
            link.path = path;
        }
    }

    /// Traffic leaves by these from now on, most of it by the first.
    pub fn carry(&mut self, links: impl Iterator<Item = u32>) {
        self.carrying = links.collect();
    }

    /// What was found out about the path of this socket.
    pub fn sized(&mut self, id: u32, size: PathSize) {
        if let Some(link) = self.links.iter_mut().find(|link| link.id == id) {
            link.size = Some(size);
        }
    }

    /// The links whose interface or address is not there any more.
    #[must_use]
    pub fn lost(&self, snapshot: &Snapshot) -> Vec<u32> {
        let here = |link: &&Link| {
            let local: IpAddr = link.path.local.ip();
            snapshot.interfaces.iter().any(|interface| {
                interface.index == link.index
                    && interface.up
                    && interface.addresses.iter().any(|address| address.net.addr() == local)
            })
        };
        self.links.iter().filter(|link| !here(link)).map(|link| link.id).collect()
    }

    /// How the system would go to where the connection goes.
    pub async fn way(&self, platform: &Platform) -> Way {
        let Some(link) = self.current() else { return Way::Same };
        let snapshot = platform.monitor.snapshot();
        match route_to(platform, &snapshot, link.path.remote.ip(), None).await {
            Ok(route) if route.index == link.index && route.source == link.path.local.ip() => Way::Same,
            Ok(_) => Way::Other,
            Err(_) => Way::None,
        }
    }
}

/// How to go to an address by this interface, or as the system would. The kernel goes on using the routes of an interface
/// whose carrier is gone, until somebody removes them: then the next best one that works is taken. So it is when a routing
/// protocol learned a route into a tunnel that covers the gateway.
async fn route_to(
    platform: &Platform,
    snapshot: &Snapshot,
    remote: IpAddr,
    interface: Option<&str>,
) -> Result<RouteTo, String> {
    let ask = async |name: Option<&str>| {
        let route = platform.monitor.source_for(remote, DEFAULT_FWMARK, name).await;
        route.map_err(|error| error.to_string())
    };
    let route = ask(interface).await?;
    let inside = platform.is_routed(route.index);
    let dead = snapshot.interface(&route.interface).is_some_and(|found| !found.up);
    if interface.is_some() || !(dead || inside) {
        return Ok(route);
    }
    let candidates = snapshot.candidates();
    match candidates.iter().find(|candidate| candidate.family == Family::of(remote)) {
        Some(candidate) => ask(Some(&candidate.interface)).await,
        None if inside => Err("the only way there leads through a tunnel".to_owned()),
        None => Ok(route),
    }
}
