//! One connection: the loop that moves datagrams, timers and commands between the session and the system.

use ropewalk_ipc::{ErrorCode, ErrorInfo};

use crate::engine::{ConnectionContext, EngineConfig, Outcome};

/// Runs one connection to its end.
pub async fn run(context: ConnectionContext) -> Outcome {
    tracing::warn!(profile = %context.profile.name, "the connection loop is not part of this build");
    Outcome::Failed(ErrorInfo::new(ErrorCode::Failed, "connecting is not part of this build yet", ""))
}

/// Undoes what a killed process left behind; called once, before the socket listens.
pub async fn sweep(_config: &EngineConfig) {}
