//! What the owner may be told when it asks the pump for something.

use std::io;

use thiserror::Error;

use crate::esp::SealError;
use crate::sa::{DeviceId, SocketId};

/// A request to the pump failed.
#[derive(Debug, Error)]
pub enum DataPathError {
    /// There is no pump for this operating system.
    #[error("the data path is not supported on this platform yet")]
    Unsupported,
    /// The operating system refused.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The socket was removed, or never added.
    #[error("{0:?} is not a socket of this data path")]
    UnknownSocket(SocketId),
    /// The device was never added.
    #[error("{0:?} is not a device of this data path")]
    UnknownDevice(DeviceId),
    /// The packet cannot be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// An inbound SA with this SPI exists.
    #[error("an inbound SA with SPI {0:08x} exists already")]
    DuplicateSpi(u32),
    /// The pump has stopped.
    #[error("the data path has stopped")]
    Stopped,
}
