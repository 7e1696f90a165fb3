//! The one boundary between the privileged helper and its clients: messages, framing, both ends.
//!
//! Frames are a length (four octets, network order) and that many octets of JSON, over a Unix socket. The
//! first frame each way is a versioned [`Hello`]. After it a client sends [`ClientMessage`]s and receives
//! [`ServerMessage`]s: replies to its requests, and pushes (state changes, counters, questions for
//! credentials). Clients send bytes, never paths for the helper to open.

mod client;
mod error;
mod frame;
mod group;
mod message;
mod peer;
mod server;
mod status;

pub use client::{Client, ClientError, ClientOptions, Event, Events, default_socket};
pub use error::{ErrorCode, ErrorInfo};
pub use frame::{FrameError, MAX_FRAME, read_frame, write_frame};
pub use group::{EndpointStatus, EndpointWay, GroupState, GroupStatus};
pub use message::{
    Blob, ClientMessage, CredentialField, CredentialReason, CredentialRequest, Credentials, Hello, Imported,
    PROTOCOL, ProfilePaths, ProfileShown, ProfileSource, ProfileSummary, Reply, Request, ServerMessage,
};
pub use peer::Peer;
pub use server::{Handshake, HandshakeError, handshake};
pub use status::{
    ChildSa, DnsStatus, Features, GatewayStatus, IkeSa, InterfaceKind, LeaseStatus, PathState, PathStatus,
    State, Status, Totals, Traffic,
};

// What messages carry from the profile crate, so that clients need one import.
pub use ropewalk_profile::{Method, Policy, Preview, Secret};
