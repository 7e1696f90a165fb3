//! The socket: made safely, and one task per client.
//!
//! A client's task reads frames; each request runs in a task of its own, so that one that waits (for a
//! connection, for a dialog) holds up nothing else. One writer per client sends replies, questions and, after
//! [`Request::Watch`], states and counters: it takes the newest from the registry each time it has written, so a slow
//! client is never behind by more than one frame.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use ropewalk_ipc::{
    ClientMessage, CredentialRequest, Credentials, ErrorCode, ErrorInfo, FrameError, Peer, Reply, Request,
    ServerMessage, Status, handshake, read_frame, write_frame,
};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::engine::CredentialSource;
use crate::service::{Caller, Service};
use crate::state::{Key, Registry};

/// Name of the socket in the runtime folder.
pub const SOCKET_NAME: &str = "helper.sock";

/// Group that the socket belongs to when the machine has it.
const SOCKET_GROUP: &str = "ropewalk";

/// Clients at once, of all users and of one. A desktop has a window, a tray and a few terminals.
const MAX_CLIENTS: usize = 256;
const MAX_CLIENTS_PER_USER: usize = 64;

/// Requests of one client under way at once.
const MAX_REQUESTS: usize = 32;

/// How often counters are pushed.
const TRAFFIC_INTERVAL: Duration = Duration::from_secs(1);

/// The listening socket; removed when dropped.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    // Held for the life of the process, so that a second helper does not take the socket away.
    _lock: Flock<File>,
}

impl Server {
    /// Makes the folder and the socket: owner and mode are set before anybody can connect.
    ///
    /// # Errors
    /// Another helper runs, or the folder is not ours to write to.
    pub fn bind(runtime_dir: &Path, open_to_all: bool) -> io::Result<Self> {
        // 0755: clients must be able to reach the socket; what is theirs to do is decided per request.
        fs::DirBuilder::new().recursive(true).mode(0o755).create(runtime_dir)?;
        let lock = lock(&runtime_dir.join("helper.lock"))?;
        let path = runtime_dir.join(SOCKET_NAME);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
        // With the mask at 0777 the socket is born closed; there is no moment at which it is open to more.
        let before = nix::sys::stat::umask(nix::sys::stat::Mode::all());
        let bound = socket.bind(&socket2::SockAddr::unix(&path)?);
        nix::sys::stat::umask(before);
        bound?;
        if let Ok(Some(group)) = nix::unistd::Group::from_name(SOCKET_GROUP) {
            chown(&path, None, Some(group.gid.as_raw()))?;
        }
        let mode = if open_to_all { 0o666 } else { 0o660 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        socket.listen(128)?;
        socket.set_nonblocking(true)?;
        let listener = UnixListener::from_std(std::os::unix::net::UnixListener::from(OwnedFd::from(socket)))?;
        Ok(Self { listener, path, _lock: lock })
    }

    /// The socket's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Serves clients until dropped.
    pub async fn run(&self, service: Arc<Service>) {
        let mut clients: JoinSet<u32> = JoinSet::new();
        let mut per_user: HashMap<u32, usize> = HashMap::new();
        loop {
            tokio::select! {
                Some(ended) = clients.join_next(), if !clients.is_empty() => {
                    // A task that panicked tells no uid; then that user has one client less for good.
                    if let Ok(uid) = ended
                        && let Some(count) = per_user.get_mut(&uid)
                    {
                        *count = count.saturating_sub(1);
                        if *count == 0 {
                            per_user.remove(&uid);
                        }
                    }
                }
                accepted = self.listener.accept() => {
                    let (stream, peer) = match accepted.and_then(|(stream, _)| Ok((Peer::of(&stream)?, stream))) {
                        Ok((peer, stream)) => (stream, peer),
                        Err(error) => {
                            tracing::warn!(%error, "a client could not be accepted");
                            // Out of descriptors, most likely: do not spin.
                            tokio::time::sleep(Duration::from_millis(50)).await;
                            continue;
                        }
                    };
                    let count = per_user.entry(peer.uid).or_default();
                    if clients.len() >= MAX_CLIENTS || (*count >= MAX_CLIENTS_PER_USER && !peer.is_root()) {
                        tracing::warn!(uid = peer.uid, pid = peer.pid, "too many clients");
                        continue;
                    }
                    *count += 1;
                    let service = Arc::clone(&service);
                    clients.spawn(async move {
                        let uid = peer.uid;
                        serve(stream, peer, service).await;
                        uid
                    });
                }
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn lock(path: &Path) -> io::Result<Flock<File>> {
    let file = fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
        if errno == nix::errno::Errno::EWOULDBLOCK {
            io::Error::new(io::ErrorKind::AddrInUse, "another ropewalk-helper uses this runtime folder")
        } else {
            errno.into()
        }
    })
}

/// What the writer of a client is told.
enum Outgoing {
    Message(ServerMessage),
    Watch {
        id: u64,
    },
    /// The client is gone: what was queued before goes out, then the writer ends.
    End,
}

type Answers = Arc<Mutex<HashMap<u64, oneshot::Sender<Option<Credentials>>>>>;

async fn serve(mut stream: UnixStream, peer: Peer, service: Arc<Service>) {
    let client = match handshake(&mut stream, "ropewalk-helper").await {
        Ok(handshake) => handshake.client,
        Err(error) => {
            tracing::debug!(uid = peer.uid, pid = peer.pid, %error, "client turned away");
            return;
        }
    };
    tracing::debug!(uid = peer.uid, pid = peer.pid, program = %client.program, version = %client.version, "client");
    let (reader, writer) = stream.into_split();
    let (outgoing, to_send) = mpsc::channel(MAX_REQUESTS);
    let registry = service.engine().registry().clone();
    let mut writer = tokio::spawn(write(writer, to_send, registry, peer.uid));
    let reason = read(reader, &peer, &service, &outgoing).await;
    tracing::debug!(uid = peer.uid, pid = peer.pid, %reason, "client gone");
    // What is still to be sent (a last word on a malformed frame) gets a moment; nobody may be reading.
    let last = async {
        let _ = outgoing.send(Outgoing::End).await;
        let _ = (&mut writer).await;
    };
    if tokio::time::timeout(Duration::from_secs(1), last).await.is_err() {
        writer.abort();
    }
}

/// Reads requests until the client goes or misbehaves; its requests end with it (connections do not).
async fn read(
    mut reader: OwnedReadHalf,
    peer: &Peer,
    service: &Arc<Service>,
    outgoing: &mpsc::Sender<Outgoing>,
) -> FrameError {
    let mut requests = JoinSet::new();
    let answers: Answers = Arc::default();
    let next_question = Arc::new(AtomicU64::new(1));
    loop {
        while requests.try_join_next().is_some() {}
        let message = match read_frame::<ClientMessage>(&mut reader).await {
            Ok(message) => message,
            Err(error) => {
                if !matches!(error, FrameError::Closed | FrameError::Io(_)) {
                    let error = ErrorInfo::new(
                        ErrorCode::Failed,
                        format!("the helper does not understand this program: {error}"),
                        "update both to the same release",
                    );
                    let _ = outgoing.send(Outgoing::Message(ServerMessage::Refused { error })).await;
                }
                return error;
            }
        };
        match message {
            ClientMessage::Request { id, request } => {
                if requests.len() >= MAX_REQUESTS {
                    let error = ErrorInfo::new(
                        ErrorCode::Failed,
                        "too many requests at once",
                        "wait for the replies to earlier ones",
                    );
                    let _ = outgoing
                        .send(Outgoing::Message(ServerMessage::Reply { id, result: Err(error) }))
                        .await;
                    continue;
                }
                let credentials = credential_source(outgoing, &answers, &next_question, &request);
                let caller = Caller { peer: peer.clone(), credentials };
                let (service, outgoing) = (Arc::clone(service), outgoing.clone());
                requests.spawn(async move {
                    let watch = matches!(request, Request::Watch);
                    let result = service.handle(&caller, request).await;
                    let message = match result {
                        Ok(_) if watch => Outgoing::Watch { id },
                        result => Outgoing::Message(ServerMessage::Reply { id, result }),
                    };
                    // The client is gone if nobody takes it.
                    let _ = outgoing.send(message).await;
                });
            }
            ClientMessage::Credentials { id, credentials } => {
                let answer = answers.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                match answer {
                    Some(answer) => {
                        let _ = answer.send(credentials);
                    }
                    None => tracing::debug!(uid = peer.uid, id, "an answer to no question"),
                }
            }
            ClientMessage::Hello(_) => tracing::debug!(uid = peer.uid, "a second hello"),
        }
    }
}

/// A source of credentials that asks this client, for the request and for the connection it starts. The
/// forwarding task ends with the connection, or when the client is gone: then everything asked is cancelled.
fn credential_source(
    outgoing: &mpsc::Sender<Outgoing>,
    answers: &Answers,
    next: &Arc<AtomicU64>,
    request: &Request,
) -> CredentialSource {
    let profile = match request {
        Request::Connect { name, .. } => name.clone(),
        Request::Import { name, .. } => name.clone().unwrap_or_default(),
        Request::Profiles
        | Request::Show { .. }
        | Request::Remove { .. }
        | Request::Disconnect { .. }
        | Request::Paths
        | Request::SetPolicy { .. }
        | Request::Status { .. }
        | Request::Watch
        | Request::Report => return CredentialSource::nobody(),
    };
    let (source, mut questions) = CredentialSource::channel();
    let outgoing = outgoing.clone();
    let (answers, next) = (Arc::clone(answers), Arc::clone(next));
    tokio::spawn(async move {
        loop {
            let question = tokio::select! {
                question = questions.recv() => question,
                () = outgoing.closed() => None,
            };
            let Some(question) = question else { return };
            let id = next.fetch_add(1, Ordering::Relaxed);
            answers.lock().unwrap_or_else(PoisonError::into_inner).insert(id, question.answer);
            let request = CredentialRequest {
                id,
                profile: profile.clone(),
                fields: question.fields,
                reason: question.reason,
                user: question.user,
            };
            if outgoing.send(Outgoing::Message(ServerMessage::CredentialRequest(request))).await.is_err() {
                answers.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                return;
            }
        }
    });
    source
}

/// Writes replies as they come and, once asked to, states and counters.
async fn write(
    mut writer: OwnedWriteHalf,
    mut to_send: mpsc::Receiver<Outgoing>,
    registry: Registry,
    uid: u32,
) {
    let mut watcher: Option<Watcher> = None;
    let mut ticks = tokio::time::interval(TRAFFIC_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let messages = tokio::select! {
            biased;
            outgoing = to_send.recv() => match outgoing {
                None | Some(Outgoing::End) => return,
                Some(Outgoing::Message(message)) => vec![message],
                Some(Outgoing::Watch { id }) => {
                    let mut new = Watcher::new(&registry, uid);
                    let mut messages = vec![ServerMessage::Reply { id, result: Ok(Reply::Done) }];
                    messages.extend(new.first());
                    watcher = Some(new);
                    messages
                }
            },
            messages = changes(&mut watcher) => messages,
            _ = ticks.tick(), if watcher.is_some() => {
                watcher.as_mut().map(Watcher::counters).unwrap_or_default()
            }
        };
        for message in &messages {
            if let Err(error) = write_frame(&mut writer, message).await {
                tracing::debug!(uid, %error, "writing to a client failed");
                return;
            }
        }
    }
}

async fn changes(watcher: &mut Option<Watcher>) -> Vec<ServerMessage> {
    match watcher {
        Some(watcher) => watcher.changes().await,
        None => std::future::pending().await,
    }
}

/// What one watching client has been told so far.
struct Watcher {
    registry: Registry,
    wake: watch::Receiver<u64>,
    uid: u32,
    told: BTreeMap<Key, (u64, u64)>,
}

impl Watcher {
    fn new(registry: &Registry, uid: u32) -> Self {
        Self { registry: registry.clone(), wake: registry.subscribe(), uid, told: BTreeMap::new() }
    }

    /// The present states; with none of the caller's own, that there is none.
    fn first(&mut self) -> Vec<ServerMessage> {
        let mut messages = self.states();
        if !self.told.keys().any(|key| key.owner == self.uid) {
            let status = Status { owned: true, since: crate::state::now_rfc3339(), ..Status::default() };
            messages.insert(0, ServerMessage::Status(Box::new(status)));
        }
        messages
    }

    /// Waits for a change of state. Cancel-safe.
    async fn changes(&mut self) -> Vec<ServerMessage> {
        if self.wake.changed().await.is_err() {
            // The registry lives as long as the process.
            std::future::pending::<()>().await;
        }
        self.states()
    }

    fn states(&mut self) -> Vec<ServerMessage> {
        self.wake.mark_unchanged();
        let entries = self.registry.snapshot();
        self.told.retain(|key, _| entries.iter().any(|(known, _)| known == key));
        let mut messages = Vec::new();
        for (key, entry) in entries {
            let told = self.told.entry(key.clone()).or_default();
            if told.0 != entry.version {
                *told = (entry.version, entry.tick);
                messages.push(ServerMessage::Status(Box::new(entry.seen_by(key.owner, self.uid))));
            }
        }
        messages
    }

    fn counters(&mut self) -> Vec<ServerMessage> {
        let mut messages = Vec::new();
        for (key, entry) in self.registry.snapshot() {
            let visible = key.owner == self.uid || self.uid == 0;
            if let Some(told) = self.told.get_mut(&key).filter(|told| visible && told.1 != entry.tick) {
                told.1 = entry.tick;
                let traffic = entry.seen_by(key.owner, self.uid).traffic();
                messages.push(ServerMessage::Traffic(Box::new(traffic)));
            }
        }
        messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ropewalk_ipc::State;

    #[tokio::test]
    async fn a_slow_watcher_gets_the_newest_state_and_no_backlog() {
        const CHANGES: u64 = 20_000;
        let registry = Registry::default();
        let publisher = registry.publisher(Key { owner: 1000, profile: "a".to_owned() });
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (_unread, half) = ours.into_split();
        let (outgoing, to_send) = mpsc::channel(4);
        let writer = tokio::spawn(write(half, to_send, registry.clone(), 1000));
        outgoing.send(Outgoing::Watch { id: 7 }).await.ok().unwrap();
        for change in 1..=CHANGES {
            publisher.update(|status| {
                status.state = if change % 2 == 0 { State::Connected } else { State::Reconnecting };
                status.mtu = u32::try_from(change).ok();
            });
            // The client does not read: once the socket's buffer is full, the writer waits.
            if change % 100 == 0 {
                tokio::task::yield_now().await;
            }
        }
        let (mut reader, _writer_half) = theirs.into_split();
        let mut frames = 0;
        let newest = loop {
            frames += 1;
            match read_frame::<ServerMessage>(&mut reader).await.unwrap() {
                ServerMessage::Status(status) if status.mtu == u32::try_from(CHANGES).ok() => break status,
                ServerMessage::Status(_) | ServerMessage::Reply { id: 7, .. } => {}
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(newest.state, State::Connected);
        assert!(frames < CHANGES / 10, "{frames} frames for {CHANGES} changes");
        outgoing.send(Outgoing::End).await.ok().unwrap();
        writer.await.unwrap();
    }

    #[tokio::test]
    async fn counters_come_once_a_second_and_states_at_once() {
        let registry = Registry::default();
        let publisher = registry.publisher(Key { owner: 1000, profile: "a".to_owned() });
        publisher.set_state(State::Connected);
        let mut watcher = Watcher::new(&registry, 1000);
        assert_eq!(watcher.first().len(), 1);
        publisher.update(|status| status.totals.bytes_in = 10);
        publisher.update(|status| status.totals.bytes_in = 20);
        assert!(watcher.states().is_empty(), "a counter is no change of state");
        let counters = watcher.counters();
        assert!(
            matches!(counters.as_slice(), [ServerMessage::Traffic(traffic)] if traffic.totals.bytes_in == 20),
            "{counters:?}"
        );
        assert!(watcher.counters().is_empty(), "what did not change is not sent again");
        let stranger = Watcher::new(&registry, 1001).first();
        assert_eq!(stranger.len(), 2, "that there is none of one's own, and that another's exists");
    }
}
