//! The handle the owner holds.

use std::net::{SocketAddr, UdpSocket};

use ipnet::IpNet;

use crate::carriage::Carriage;
use crate::config::{Config, Framing, Keepalive, TunFd};
use crate::counters::Counters;
use crate::error::DataPathError;
use crate::platform::{EventReceiver, Pump};
use crate::sa::{DeviceId, Egress, InboundHandle, InboundSpec, SocketId};

/// A running pump. All methods take `&self` and may be called from any thread, also from an async one: none waits for
/// the network. Dropping it stops the threads, joins them and closes their TUN descriptor.
#[derive(Debug)]
pub struct DataPath {
    pump: Pump,
}

impl DataPath {
    /// Probes the offloads and starts the threads. Nothing is sent before there is an egress, nothing received before
    /// there is a socket.
    ///
    /// # Errors
    /// [`DataPathError::Unsupported`] where there is no pump; [`DataPathError::Io`] when the system refuses.
    pub fn start(tun: TunFd, config: Config) -> Result<(Self, EventReceiver), DataPathError> {
        let (pump, events) = Pump::start(tun, config)?;
        Ok((Self { pump }, events))
    }

    /// Adds a socket the caller made, bound, and marked or bound to its interface. Sets on it what the pump needs: error
    /// queue, path MTU discovery, TOS and destination address reporting, `UDP_GRO`, larger buffers.
    ///
    /// # Errors
    /// [`DataPathError::Io`] when the system refuses; [`DataPathError::Stopped`].
    pub fn add_socket(&self, socket: UdpSocket, framing: Framing) -> Result<SocketId, DataPathError> {
        self.pump.add_socket(socket, framing)
    }

    /// Removes a socket. It is closed as soon as both threads have let go of it. An egress that names it sends nothing
    /// any more; a carriage goes on with the others that it has.
    ///
    /// # Errors
    /// [`DataPathError::UnknownSocket`].
    pub fn remove_socket(&self, id: SocketId) -> Result<(), DataPathError> {
        self.pump.remove_socket(id)
    }

    /// Sends an IKE message, given without the non-ESP marker, which is put before it where the framing wants it.
    ///
    /// # Errors
    /// [`DataPathError::UnknownSocket`], or [`DataPathError::Io`] with what the system said.
    pub fn send_ike(&self, socket: SocketId, peer: SocketAddr, message: &[u8]) -> Result<(), DataPathError> {
        self.pump.send_ike(socket, peer, message)
    }

    /// Sends one inner packet of the owner's own, past the device and the routes. It is not in the SA's counters.
    ///
    /// # Errors
    /// [`DataPathError::UnknownSocket`], [`DataPathError::Seal`] when its sequence numbers are used up, or
    /// [`DataPathError::Io`] with what the system said.
    pub fn send_inner(&self, egress: &Egress, packet: &[u8]) -> Result<(), DataPathError> {
        self.pump.send_inner(egress, packet)
    }

    /// Sets, changes or ends the NAT keepalives of a socket.
    ///
    /// # Errors
    /// [`DataPathError::UnknownSocket`].
    pub fn set_keepalive(&self, socket: SocketId, keepalive: Option<Keepalive>) -> Result<(), DataPathError> {
        self.pump.set_keepalive(socket, keepalive)
    }

    /// Adds an inbound SA. ESP that arrives after this returns is opened with it.
    ///
    /// # Errors
    /// [`DataPathError::DuplicateSpi`].
    pub fn add_inbound(&self, spec: InboundSpec) -> Result<InboundHandle, DataPathError> {
        self.pump.add_inbound(spec)
    }

    /// Removes an inbound SA; `false` when there was none.
    pub fn remove_inbound(&self, spi: u32) -> bool {
        self.pump.remove_inbound(spi)
    }

    /// Sets what packets leave by that no route takes; `None` drops them.
    ///
    /// # Errors
    /// [`DataPathError::UnknownSocket`].
    pub fn set_default(&self, carriage: Option<Carriage>) -> Result<(), DataPathError> {
        self.pump.set_default(DeviceId::MAIN, carriage)
    }

    /// Adds a device of its own for one neighbour, with a sending thread. It stays until the pump stops.
    ///
    /// # Errors
    /// [`DataPathError::Io`] when the system refuses.
    pub fn add_device(&self, tun: TunFd) -> Result<DeviceId, DataPathError> {
        self.pump.add_device(tun)
    }

    /// Sets what all packets from this device leave by; `None` drops them.
    ///
    /// # Errors
    /// [`DataPathError::UnknownSocket`], [`DataPathError::UnknownDevice`].
    pub fn set_egress_of(&self, device: DeviceId, carriage: Option<Carriage>) -> Result<(), DataPathError> {
        self.pump.set_default(device, carriage)
    }

    /// Sets what packets to an inner destination leave by; the longest prefix wins. `None` removes the route.
    ///
    /// # Errors
    /// [`DataPathError::UnknownSocket`].
    pub fn set_route(&self, destination: IpNet, carriage: Option<Carriage>) -> Result<(), DataPathError> {
        self.pump.set_route(destination, carriage)
    }

    /// Lets packets to an inner destination leave by what everything leaves by that has no route, also within a shorter prefix
    /// that has one. [`Self::set_route`] with `None` removes it.
    ///
    /// # Errors
    /// [`DataPathError::UnknownDevice`].
    pub fn set_route_by_default(&self, destination: IpNet) -> Result<(), DataPathError> {
        self.pump.set_route_by_default(destination)
    }

    /// Whether copies that came by two SAs are told apart from packets that were sent twice: of equal packets by different
    /// SAs within half a second one is delivered. Costs a hash of each small or marked packet.
    pub fn set_expect_copies(&self, expected: bool) {
        self.pump.set_expect_copies(expected);
    }

    /// Changes the largest inner packet.
    pub fn set_inner_mtu(&self, mtu: u16) {
        self.pump.set_inner_mtu(DeviceId::MAIN, mtu, mtu);
    }

    /// Changes the largest packet of this device.
    pub fn set_inner_mtu_of(&self, device: DeviceId, mtu: u16) {
        self.pump.set_inner_mtu(device, mtu, mtu);
    }

    /// Changes the largest inner packet, and fits the segments of TCP connections that begin from now on into less: what is
    /// negotiated once holds for their whole life, in both directions.
    pub fn set_inner_mtus(&self, mtu: u16, segments: u16) {
        self.pump.set_inner_mtu(DeviceId::MAIN, mtu, segments.min(mtu));
    }

    /// The counters now.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.pump.counters()
    }

    /// Stops as dropping does, in so many words: when this returns the TUN descriptor is closed.
    pub fn stop(self) {
        drop(self);
    }
}
