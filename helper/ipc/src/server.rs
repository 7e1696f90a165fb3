//! The helper's end of the first frames.

use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    ClientMessage, ErrorCode, ErrorInfo, FrameError, Hello, PROTOCOL, ServerMessage, read_frame, write_frame,
};

/// How long a client may take for its hello; a local program needs microseconds.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// A client that speaks our version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handshake {
    /// What the client said of itself.
    pub client: Hello,
}

/// Why a client was turned away.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// Its first frame was not a hello, or nothing readable.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// It began with something other than a hello.
    #[error("the first frame is not a hello")]
    NotHello,
    /// It speaks another version.
    #[error("the client speaks version {0} of the protocol, the helper {PROTOCOL}")]
    Version(u32),
    /// It said nothing.
    #[error("no hello in time")]
    Timeout,
}

/// Exchanges hellos. A client of another version is told so in a frame it can read, then refused.
///
/// # Errors
/// The client is to be disconnected.
pub async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    program: &str,
) -> Result<Handshake, HandshakeError> {
    let first = tokio::time::timeout(HELLO_TIMEOUT, read_frame::<ClientMessage>(stream))
        .await
        .map_err(|_| HandshakeError::Timeout)?;
    let client = match first {
        Ok(ClientMessage::Hello(hello)) => hello,
        Ok(ClientMessage::Request { .. } | ClientMessage::Credentials { .. }) => {
            refuse(stream, "the first frame is not a hello").await;
            return Err(HandshakeError::NotHello);
        }
        Err(error) => {
            refuse(stream, &error.to_string()).await;
            return Err(error.into());
        }
    };
    write_frame(stream, &ServerMessage::Hello(Hello::of(program))).await?;
    if client.protocol != PROTOCOL {
        let older = if client.protocol < PROTOCOL { &client.program } else { program };
        let error = ErrorInfo::new(
            ErrorCode::Failed,
            format!(
                "{} {} speaks version {} of the helper's protocol, the helper ({}) version {PROTOCOL}",
                client.program,
                client.version,
                client.protocol,
                env!("CARGO_PKG_VERSION"),
            ),
            format!("update {older} so that both are of the same release"),
        );
        let _ = write_frame(stream, &ServerMessage::Refused { error }).await;
        return Err(HandshakeError::Version(client.protocol));
    }
    Ok(Handshake { client })
}

/// A last word to a client that is about to be disconnected; it may already be gone.
async fn refuse<S: AsyncWrite + Unpin>(stream: &mut S, why: &str) {
    let error = ErrorInfo::new(ErrorCode::Failed, format!("the helper refused the connection: {why}"), "");
    let _ = write_frame(stream, &ServerMessage::Refused { error }).await;
}
