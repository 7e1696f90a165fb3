//! The interface of a platform whose part is not written yet: everything says so.
//!
//! `macos` and `windows` instantiate it, each with its name, until their own code takes over piece by piece.

macro_rules! unsupported_platform {
    ($platform:literal) => {
        use std::net::{IpAddr, SocketAddr, UdpSocket};
        use std::sync::Arc;

        use tokio::sync::watch;

        use crate::{
            Applied, DeviceRef, DnsManager, NetError, NetworkSettings, NextHop, Offloads, PathSocket,
            RouteTo, Snapshot, SweepReport, TunRequest, TunnelConfig,
        };

        fn unsupported<T>(what: &'static str) -> Result<T, NetError> {
            Err(NetError::Unsupported { what, platform: $platform })
        }

        /// A TUN device; cannot be made on this platform yet.
        #[derive(Debug)]
        pub struct TunDevice {
            never: std::convert::Infallible,
        }

        impl TunDevice {
            /// Creates the device.
            ///
            /// # Errors
            /// Always [`NetError::Unsupported`].
            pub fn create(_request: &TunRequest) -> Result<Self, NetError> {
                unsupported("creating a tunnel device")
            }

            /// Another descriptor of the same device.
            ///
            /// # Errors
            /// Cannot be called: there is no device.
            #[cfg(unix)]
            pub fn try_clone_fd(&self) -> Result<std::os::fd::OwnedFd, NetError> {
                match self.never {}
            }

            /// The name.
            #[must_use]
            pub fn name(&self) -> &str {
                match self.never {}
            }

            /// The index.
            #[must_use]
            pub fn index(&self) -> u32 {
                match self.never {}
            }

            /// Whether packets carry a `virtio_net_hdr`.
            #[must_use]
            pub fn vnet_hdr(&self) -> bool {
                match self.never {}
            }

            /// Stops using offloads.
            ///
            /// # Errors
            /// Cannot be called.
            pub fn disable_offloads(&mut self) -> Result<(), NetError> {
                match self.never {}
            }

            /// Changes the largest packet.
            ///
            /// # Errors
            /// Cannot be called.
            pub fn set_mtu(&self, _mtu: u32) -> Result<(), NetError> {
                match self.never {}
            }

            /// What was granted.
            #[must_use]
            pub fn offloads(&self) -> Offloads {
                match self.never {}
            }

            /// Name and index.
            #[must_use]
            pub fn device_ref(&self) -> DeviceRef {
                match self.never {}
            }
        }

        /// Addresses, routes and DNS of tunnels; not written for this platform yet.
        #[derive(Debug)]
        pub struct Network {
            never: std::convert::Infallible,
        }

        impl Network {
            /// Connects to the operating system.
            ///
            /// # Errors
            /// Always [`NetError::Unsupported`].
            pub async fn open(_settings: NetworkSettings) -> Result<Self, NetError> {
                unsupported("setting addresses, routes and DNS")
            }

            /// Those of these interfaces whose use costs.
            pub async fn metered(&self, _interfaces: &[String]) -> Vec<String> {
                match self.never {}
            }

            /// Removes leftovers of a killed helper.
            ///
            /// # Errors
            /// Cannot be called.
            pub async fn sweep(&self) -> Result<SweepReport, NetError> {
                match self.never {}
            }

            /// Configures a tunnel.
            ///
            /// # Errors
            /// Cannot be called.
            pub async fn apply(&self, _config: &TunnelConfig) -> Result<Applied, NetError> {
                match self.never {}
            }

            /// Undoes a tunnel's configuration.
            ///
            /// # Errors
            /// Cannot be called.
            pub async fn undo(&self, _device: &str) -> Result<(), NetError> {
                match self.never {}
            }

            /// Undoes all.
            ///
            /// # Errors
            /// Cannot be called.
            pub async fn undo_all(&self) -> Result<(), NetError> {
                match self.never {}
            }

            /// Puts back what others removed.
            ///
            /// # Errors
            /// Cannot be called.
            pub async fn refresh(&self) -> Result<Vec<(String, Applied)>, NetError> {
                match self.never {}
            }

            /// Counts what others changed.
            #[must_use]
            pub fn disturbances(&self) -> watch::Receiver<u64> {
                match self.never {}
            }

            /// Who rules name resolution.
            pub async fn dns_manager(&self) -> DnsManager {
                match self.never {}
            }
        }

        /// The interface monitor; not written for this platform yet.
        #[derive(Debug)]
        pub struct Monitor {
            never: std::convert::Infallible,
        }

        impl Monitor {
            /// Starts watching.
            ///
            /// # Errors
            /// Always [`NetError::Unsupported`].
            pub async fn start() -> Result<Self, NetError> {
                unsupported("watching network interfaces")
            }

            /// The newest state, and every later one.
            #[must_use]
            pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
                match self.never {}
            }

            /// The newest state.
            #[must_use]
            pub fn snapshot(&self) -> Arc<Snapshot> {
                match self.never {}
            }

            /// How the system would send to `destination`.
            ///
            /// # Errors
            /// Cannot be called.
            pub async fn source_for(
                &self,
                _destination: IpAddr,
                _mark: u32,
                _interface: Option<&str>,
            ) -> Result<RouteTo, NetError> {
                match self.never {}
            }
        }

        /// Next hops on a device; not written for this platform yet.
        #[derive(Debug)]
        pub struct NextHops {
            never: std::convert::Infallible,
        }

        impl NextHops {
            /// Starts watching.
            ///
            /// # Errors
            /// Always [`NetError::Unsupported`].
            pub async fn start(_device: u32) -> Result<Self, NetError> {
                unsupported("watching the routes of a tunnel device")
            }

            /// The next hops now, and every later state.
            #[must_use]
            pub fn watch(&self) -> watch::Receiver<Arc<Vec<NextHop>>> {
                match self.never {}
            }
        }

        /// Opens the UDP socket of a path.
        ///
        /// # Errors
        /// Always [`NetError::Unsupported`].
        pub fn open_path_socket(_wanted: &PathSocket) -> Result<UdpSocket, NetError> {
            unsupported("opening a socket bound to an interface")
        }

        /// Sends one datagram that may be fragmented on its way.
        ///
        /// # Errors
        /// Always [`NetError::Unsupported`].
        pub fn send_fragmentable(
            _socket: &UdpSocket,
            _datagram: &[u8],
            _to: SocketAddr,
        ) -> Result<usize, NetError> {
            unsupported("sending a fragmented datagram")
        }
    };
}

pub(crate) use unsupported_platform;
