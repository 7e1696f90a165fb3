//! The client's end: requests by number, pushes as a stream of events.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

use crate::{
    ClientMessage, CredentialRequest, Credentials, ErrorCode, ErrorInfo, FrameError, Hello, PROTOCOL, Peer,
    Reply, Request, ServerMessage, Status, Traffic, read_frame, write_frame,
};

/// How long the helper may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Events that wait for a reader; states and counters beyond it are dropped by the reader task's backpressure on
/// the helper, which then sends the newest only.
const EVENT_QUEUE: usize = 16;

/// The helper's socket: `ROPEWALK_SOCKET`, or where the service listens by default.
#[must_use]
pub fn default_socket() -> PathBuf {
    std::env::var_os("ROPEWALK_SOCKET")
        .filter(|value| !value.is_empty())
        .map_or_else(|| PathBuf::from("/run/ropewalk/helper.sock"), PathBuf::from)
}

/// How to reach the helper.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Path of the socket.
    pub socket: PathBuf,
    /// Name of the calling program, for the helper's log.
    pub program: String,
    /// User ids that a helper may run as; root and our own by default.
    pub trusted_uids: Vec<u32>,
}

impl ClientOptions {
    /// The usual options: the given socket, a helper run by root or by ourselves.
    pub fn new(socket: impl Into<PathBuf>, program: impl Into<String>) -> Self {
        let own = nix::unistd::geteuid().as_raw();
        Self { socket: socket.into(), program: program.into(), trusted_uids: vec![0, own] }
    }
}

/// Why a request got no reply.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens on the socket.
    #[error("the Ropewalk helper is not running (no answer on {path})")]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The socket does not let us in.
    #[error("no permission to use the Ropewalk helper's socket {path}")]
    Permission {
        /// The socket.
        path: PathBuf,
    },
    /// The program behind the socket is not the helper.
    #[error("the program behind {path} runs as user {uid}, not as root, and is not trusted")]
    Untrusted {
        /// The socket.
        path: PathBuf,
        /// Its user id.
        uid: u32,
    },
    /// The helper speaks another version.
    #[error("the helper is version {helper}, protocol {protocol}; this program speaks protocol {PROTOCOL}")]
    Version {
        /// Version of the helper.
        helper: String,
        /// Version of its protocol.
        protocol: u32,
    },
    /// The helper answered with an error.
    #[error(transparent)]
    Helper(#[from] ErrorInfo),
    /// The connection broke.
    #[error("the connection to the helper was lost: {0}")]
    Lost(String),
}

impl ClientError {
    /// The error for a person, with its exit code.
    #[must_use]
    pub fn to_info(&self) -> ErrorInfo {
        let message = self.to_string();
        match self {
            Self::NotRunning { .. } => ErrorInfo::new(
                ErrorCode::HelperUnreachable,
                message,
                "start it with `systemctl start ropewalk-helper`",
            ),
            Self::Permission { .. } => ErrorInfo::new(
                ErrorCode::NotAuthorised,
                message,
                "ask your administrator to add you to the socket's group",
            ),
            Self::Untrusted { .. } => ErrorInfo::new(
                ErrorCode::HelperUnreachable,
                message,
                "check ROPEWALK_SOCKET, or start the service with `systemctl start ropewalk-helper`",
            ),
            Self::Version { protocol, .. } => {
                let what = if *protocol < PROTOCOL {
                    "update and restart the helper"
                } else {
                    "update this program"
                };
                ErrorInfo::new(ErrorCode::HelperUnreachable, message, what)
            }
            Self::Helper(info) => info.clone(),
            Self::Lost(_) => ErrorInfo::new(
                ErrorCode::HelperUnreachable,
                message,
                "see `journalctl -u ropewalk-helper`, then try again",
            ),
        }
    }
}

/// What the helper pushes.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A change of state.
    Status(Box<Status>),
    /// Counters.
    Traffic(Box<Traffic>),
    /// The helper needs credentials; answer with [`Client::answer`].
    Credentials(CredentialRequest),
    /// The connection to the helper is over; nothing follows.
    Closed(String),
}

/// The stream of pushes. Must be read while requests are under way: replies wait behind unread events.
#[derive(Debug)]
pub struct Events {
    receiver: mpsc::Receiver<Event>,
}

impl Events {
    /// The next event; `None` after [`Event::Closed`]. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        self.receiver.recv().await
    }
}

type Waiting = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<Result<Reply, ErrorInfo>>>>>>;

/// A connection to the helper; cheap to clone. The socket closes when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Client {
    outgoing: mpsc::Sender<ClientMessage>,
    waiting: Waiting,
    next_id: Arc<AtomicU64>,
    helper: Hello,
}

impl Client {
    /// Connects, checks that the helper is root's, and exchanges hellos.
    ///
    /// # Errors
    /// Says whether the helper is absent, closed to us, not trusted, or of another version.
    pub async fn connect(options: &ClientOptions) -> Result<(Self, Events), ClientError> {
        let path = &options.socket;
        let stream = UnixStream::connect(path).await.map_err(|error| unreachable(path, error))?;
        let peer = Peer::of(&stream).map_err(|error| unreachable(path, error))?;
        if !options.trusted_uids.contains(&peer.uid) {
            return Err(ClientError::Untrusted { path: path.clone(), uid: peer.uid });
        }
        let (mut reader, mut writer) = stream.into_split();
        let helper = hello(&mut reader, &mut writer, options).await?;

        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let (outgoing, to_send) = mpsc::channel(16);
        let (events, receiver) = mpsc::channel(EVENT_QUEUE);
        tokio::spawn(write_all(writer, to_send));
        tokio::spawn(read_all(reader, Arc::clone(&waiting), events));
        Ok((Self { outgoing, waiting, next_id: Arc::new(AtomicU64::new(1)), helper }, Events { receiver }))
    }

    /// What the helper said of itself.
    #[must_use]
    pub fn helper(&self) -> &Hello {
        &self.helper
    }

    /// Sends a request and waits for its reply.
    ///
    /// # Errors
    /// The helper answered with an error, or the connection broke.
    pub async fn request(&self, request: Request) -> Result<Reply, ClientError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        let lost = || ClientError::Lost("it closed the connection".to_owned());
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.as_mut().ok_or_else(lost)?.insert(id, sender);
        }
        self.outgoing.send(ClientMessage::Request { id, request }).await.map_err(|_| lost())?;
        Ok(receiver.await.map_err(|_| lost())??)
    }

    /// Answers a question for credentials; `None`: the user cancelled.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn answer(&self, id: u64, credentials: Option<Credentials>) -> Result<(), ClientError> {
        self.outgoing
            .send(ClientMessage::Credentials { id, credentials })
            .await
            .map_err(|_| ClientError::Lost("it closed the connection".to_owned()))
    }
}

fn unreachable(path: &Path, error: io::Error) -> ClientError {
    let path = path.to_owned();
    if error.kind() == io::ErrorKind::PermissionDenied {
        ClientError::Permission { path }
    } else {
        ClientError::NotRunning { path, source: error }
    }
}

async fn hello(
    reader: &mut OwnedReadHalf,
    writer: &mut OwnedWriteHalf,
    options: &ClientOptions,
) -> Result<Hello, ClientError> {
    let lost = |error: FrameError| ClientError::Lost(error.to_string());
    write_frame(writer, &ClientMessage::Hello(Hello::of(&options.program))).await.map_err(lost)?;
    let first = tokio::time::timeout(HELLO_TIMEOUT, read_frame::<ServerMessage>(reader))
        .await
        .map_err(|_| ClientError::Lost("no answer to the first message".to_owned()))?
        .map_err(lost)?;
    match first {
        ServerMessage::Hello(hello) if hello.protocol == PROTOCOL => Ok(hello),
        ServerMessage::Hello(hello) => {
            Err(ClientError::Version { helper: hello.version, protocol: hello.protocol })
        }
        ServerMessage::Refused { error } => Err(error.into()),
        ServerMessage::Reply { .. }
        | ServerMessage::Status(_)
        | ServerMessage::Traffic(_)
        | ServerMessage::CredentialRequest(_) => {
            Err(ClientError::Lost("the first frame is not a hello".to_owned()))
        }
    }
}

async fn write_all(mut writer: OwnedWriteHalf, mut to_send: mpsc::Receiver<ClientMessage>) {
    while let Some(message) = to_send.recv().await {
        if let Err(error) = write_frame(&mut writer, &message).await {
            tracing::debug!(%error, "writing to the helper failed");
            return;
        }
    }
}

async fn read_all(mut reader: OwnedReadHalf, waiting: Waiting, events: mpsc::Sender<Event>) {
    let reason = loop {
        let message = match read_frame::<ServerMessage>(&mut reader).await {
            Ok(message) => message,
            Err(error) => break error.to_string(),
        };
        let event = match message {
            ServerMessage::Reply { id, result } => {
                let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(sender) = waiting.as_mut().and_then(|waiting| waiting.remove(&id)) {
                    // The asker may have given up; then nobody misses the reply.
                    let _ = sender.send(result);
                }
                continue;
            }
            ServerMessage::Status(status) => Event::Status(status),
            ServerMessage::Traffic(traffic) => Event::Traffic(traffic),
            ServerMessage::CredentialRequest(request) => Event::Credentials(request),
            ServerMessage::Refused { error } => break error.to_string(),
            ServerMessage::Hello(_) => break "a second hello".to_owned(),
        };
        // A client that dropped its `Events` still gets replies.
        let _ = events.send(event).await;
    };
    // Dropping the senders ends every request that waits.
    waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
    let _ = events.send(Event::Closed(reason)).await;
}
