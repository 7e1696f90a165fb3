//! Framing: a length of four octets in network order, then that many octets of JSON.

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

/// Longest frame in octets: a profile with many certificates (or a report) fits many times over, and a
/// client cannot make the helper allocate more than this.
pub const MAX_FRAME: usize = 1024 * 1024;

/// What can go wrong with a frame.
#[derive(Debug, Error)]
pub enum FrameError {
    /// The other end closed the connection between two frames.
    #[error("the connection is closed")]
    Closed,
    /// The frame is longer than [`MAX_FRAME`].
    #[error("a frame of {0} octets is longer than the limit of {MAX_FRAME}")]
    TooLong(usize),
    /// The frame is not the JSON that was expected.
    #[error("malformed frame: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The socket failed, or closed in the middle of a frame.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Reads one frame.
///
/// Memory grows with what arrives, not with what the length promises. Not cancel-safe: read in a task of its own.
///
/// # Errors
/// See [`FrameError`]; after any of them the stream is of no further use.
pub async fn read_frame<T: DeserializeOwned>(reader: &mut (impl AsyncRead + Unpin)) -> Result<T, FrameError> {
    let mut header = [0u8; 4];
    let first = reader.read(&mut header).await?;
    if first == 0 {
        return Err(FrameError::Closed);
    }
    if let Some(rest) = header.get_mut(first..) {
        reader.read_exact(rest).await?;
    }
    let length = usize::try_from(u32::from_be_bytes(header)).unwrap_or(usize::MAX);
    if length > MAX_FRAME {
        return Err(FrameError::TooLong(length));
    }
    // Frames carry passwords: wiped after parsing. Reserved in one go below 64 KiB so that the usual frame is
    // not copied (and left behind) while it grows.
    let mut body = Zeroizing::new(Vec::with_capacity(length.min(64 * 1024)));
    let limit = u64::try_from(length).unwrap_or(u64::MAX);
    let read = reader.take(limit).read_to_end(&mut body).await?;
    if read < length {
        return Err(FrameError::Io(std::io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(serde_json::from_slice(&body)?)
}

/// Writes one frame and flushes it.
///
/// # Errors
/// The message is longer than [`MAX_FRAME`], or the socket failed.
pub async fn write_frame<T: Serialize>(
    writer: &mut (impl AsyncWrite + Unpin),
    message: &T,
) -> Result<(), FrameError> {
    let mut frame = Zeroizing::new(vec![0u8; 4]);
    serde_json::to_writer(&mut *frame, message)?;
    let length = frame.len() - 4;
    let header =
        u32::try_from(length).ok().filter(|_| length <= MAX_FRAME).ok_or(FrameError::TooLong(length))?;
    if let Some(start) = frame.first_chunk_mut::<4>() {
        *start = header.to_be_bytes();
    }
    writer.write_all(&frame).await?;
    writer.flush().await?;
    Ok(())
}
