//! Where there is no pump yet: the same interface, which cannot come to life.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use ipnet::IpNet;

use crate::carriage::Carriage;
use crate::config::{Config, Framing, Keepalive, TunFd};
use crate::counters::Counters;
use crate::error::DataPathError;
use crate::event::Event;
use crate::sa::{DeviceId, Egress, InboundHandle, InboundSpec, SocketId};

#[derive(Debug)]
pub(crate) enum Pump {}

/// Where the owner reads events. Never made on this platform.
#[derive(Debug)]
pub enum EventReceiver {}

impl EventReceiver {
    /// The next event, when there is one.
    pub fn try_recv(&mut self) -> Option<Event> {
        match *self {}
    }

    /// The next event, within `timeout`.
    pub fn recv_timeout(&mut self, _timeout: Duration) -> Option<Event> {
        match *self {}
    }
}

impl Pump {
    pub(crate) fn start(_tun: TunFd, _config: Config) -> Result<(Self, EventReceiver), DataPathError> {
        Err(DataPathError::Unsupported)
    }

    pub(crate) fn add_socket(
        &self,
        _socket: UdpSocket,
        _framing: Framing,
    ) -> Result<SocketId, DataPathError> {
        match *self {}
    }

    pub(crate) fn remove_socket(&self, _id: SocketId) -> Result<(), DataPathError> {
        match *self {}
    }

    pub(crate) fn send_ike(
        &self,
        _s: SocketId,
        _peer: SocketAddr,
        _message: &[u8],
    ) -> Result<(), DataPathError> {
        match *self {}
    }

    pub(crate) fn send_inner(&self, _egress: &Egress, _packet: &[u8]) -> Result<(), DataPathError> {
        match *self {}
    }

    pub(crate) fn set_keepalive(
        &self,
        _s: SocketId,
        _keepalive: Option<Keepalive>,
    ) -> Result<(), DataPathError> {
        match *self {}
    }

    pub(crate) fn add_inbound(&self, _spec: InboundSpec) -> Result<InboundHandle, DataPathError> {
        match *self {}
    }

    pub(crate) fn remove_inbound(&self, _spi: u32) -> bool {
        match *self {}
    }

    pub(crate) fn add_device(&self, _tun: TunFd) -> Result<DeviceId, DataPathError> {
        match *self {}
    }

    pub(crate) fn set_default(&self, _d: DeviceId, _carriage: Option<Carriage>) -> Result<(), DataPathError> {
        match *self {}
    }

    pub(crate) fn set_route(
        &self,
        _destination: IpNet,
        _carriage: Option<Carriage>,
    ) -> Result<(), DataPathError> {
        match *self {}
    }

    pub(crate) fn set_route_by_default(&self, _destination: IpNet) -> Result<(), DataPathError> {
        match *self {}
    }

    pub(crate) fn set_expect_copies(&self, _expected: bool) {
        match *self {}
    }

    pub(crate) fn set_inner_mtu(&self, _d: DeviceId, _mtu: u16, _segments: u16) {
        match *self {}
    }

    pub(crate) fn counters(&self) -> Counters {
        match *self {}
    }
}

#[cfg(unix)]
impl std::os::fd::AsRawFd for EventReceiver {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        match *self {}
    }
}
