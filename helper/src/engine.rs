//! The connections that exist: started, told what to do, and ended.
//!
//! [`Engine`] owns one task per connection, which runs [`crate::connection::run`] with a
//! [`ConnectionContext`]. What flows to it are [`Command`]s and answers to its questions for credentials; what
//! flows from it is state, through its [`StatusPublisher`]. The connection belongs to the engine, not to the client
//! that started it: a client that goes away ends nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ropewalk_ipc::{
    CredentialField, CredentialReason, Credentials, ErrorCode, ErrorInfo, Policy, ProfileSource, State,
};
use ropewalk_profile::{Profile, Secrets};
use tokio::sync::{mpsc, oneshot, watch};

use crate::connection;
use crate::neighbours::Neighbours;
use crate::platform::Platform;
use crate::state::{Key, Registry, StatusPublisher};
use crate::store::Scope;

/// How long a question for the status waits for fresh counters.
const REFRESH_LIMIT: Duration = Duration::from_millis(200);

/// What every connection needs to know of the service.
#[derive(Debug, Clone, Default)]
pub struct EngineConfig {
    /// Where state that outlives the process is kept (what to undo after a crash).
    pub state_dir: PathBuf,
    /// Where the socket is; files here go with the process.
    pub runtime_dir: PathBuf,
    /// When set, keys are logged into this folder in the formats Wireshark reads.
    pub key_log_dir: Option<PathBuf>,
    /// Use segmentation offloads where the kernel has them.
    pub offloads: bool,
    /// The sequence numbers of CHILD_SAs go on after this instead of beginning with 1: to see what happens at their end.
    pub esp_sequence: u64,
    /// The connections that there are.
    pub neighbours: Neighbours,
    /// The system's networks; without it nothing can be connected.
    pub platform: Option<Arc<Platform>>,
}

/// What is needed to start a connection.
#[derive(Debug)]
pub struct ConnectRequest {
    /// The profile.
    pub profile: Profile,
    /// Its secrets, completed by what the client gave. They live as long as the connection.
    pub secrets: Secrets,
    /// Where the profile comes from.
    pub source: ProfileSource,
    /// User id of who asked.
    pub owner: u32,
    /// The way to ask for what is still missing.
    pub credentials: CredentialSource,
}

/// Everything [`crate::connection::run`] is given.
#[derive(Debug)]
pub struct ConnectionContext {
    /// The profile; its user name is filled in when the client gave one.
    pub profile: Arc<Profile>,
    /// The secrets; kept for reconnects.
    pub secrets: Secrets,
    /// User id of who asked.
    pub owner: u32,
    /// What the service knows.
    pub config: Arc<EngineConfig>,
    /// The way to ask for what is missing or was wrong.
    pub credentials: CredentialSource,
    /// What to do. A closed channel means the same as [`Command::Disconnect`].
    pub commands: mpsc::Receiver<Command>,
    /// Where the state goes. [`State::Connecting`] is set already; the final state is set by the engine.
    pub status: StatusPublisher,
}

/// What a running connection is told.
#[derive(Debug)]
pub enum Command {
    /// Take everything down: DELETE to the gateway, undo routes, DNS and device, then return.
    Disconnect,
    /// Use several paths in this way from now on.
    SetPolicy(Policy),
    /// Publish the counters as they are now, and say when that is done.
    Refresh(oneshot::Sender<()>),
}

/// How a connection ended; everything it made is gone by then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was told to, or the gateway ended it for good.
    Disconnected,
    /// It could not go on.
    Failed(ErrorInfo),
}

/// The way from a connection to the client that started it, for what only the user knows.
#[derive(Debug, Clone)]
pub struct CredentialSource {
    questions: Option<mpsc::Sender<CredentialQuestion>>,
}

/// One question on its way to the client.
#[derive(Debug)]
pub struct CredentialQuestion {
    /// What is needed.
    pub fields: Vec<CredentialField>,
    /// Why.
    pub reason: CredentialReason,
    /// The user name known so far.
    pub user: Option<String>,
    /// Where the answer goes; dropped or `None`: cancelled.
    pub answer: oneshot::Sender<Option<Credentials>>,
}

impl CredentialSource {
    /// A source and the end at which its questions arrive.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<CredentialQuestion>) {
        let (sender, receiver) = mpsc::channel(1);
        (Self { questions: Some(sender) }, receiver)
    }

    /// A source that has nobody to ask.
    #[must_use]
    pub fn nobody() -> Self {
        Self { questions: None }
    }

    /// Whether there is, or was, somebody to ask.
    #[must_use]
    pub fn can_ask(&self) -> bool {
        self.questions.as_ref().is_some_and(|questions| !questions.is_closed())
    }

    /// Asks the client that started the connection, and waits as long as the user needs; select on the
    /// command channel beside it. After a failed login, keep that error and report it when this one fails.
    ///
    /// # Errors
    /// Nobody is there to ask any more, or the user cancelled; both as [`ErrorCode::AuthFailed`].
    pub async fn ask(
        &self,
        fields: Vec<CredentialField>,
        reason: CredentialReason,
        user: Option<String>,
    ) -> Result<Credentials, ErrorInfo> {
        let words: Vec<_> = fields.iter().map(|field| field_words(*field)).collect();
        let nobody = || {
            ErrorInfo::new(
                ErrorCode::AuthFailed,
                format!("the login needs {} and nobody is there to ask", words.join(" and ")),
                "connect again from the window or a terminal, or give it with --user and --password-stdin",
            )
        };
        let (answer, answered) = oneshot::channel();
        let question = CredentialQuestion { fields, reason, user, answer };
        let questions = self.questions.as_ref().ok_or_else(nobody)?;
        questions.send(question).await.map_err(|_| nobody())?;
        answered.await.map_err(|_| nobody())?.ok_or_else(|| {
            ErrorInfo::new(
                ErrorCode::AuthFailed,
                format!("the login needs {}, and the question for it was cancelled", words.join(" and ")),
                "connect again and answer it, or give it with --user and --password-stdin",
            )
        })
    }
}

fn field_words(field: CredentialField) -> &'static str {
    match field {
        CredentialField::User => "a user name",
        CredentialField::Password => "a password",
        CredentialField::Psk => "a pre-shared key",
        CredentialField::Pkcs12Password => "the password of a PKCS#12 bundle",
    }
}

/// One running connection, as the engine and the service see it; cheap to clone.
#[derive(Debug, Clone)]
pub struct ConnectionHandle {
    key: Key,
    source: ProfileSource,
    /// Its paths have addresses of their own: there is one policy for those.
    address_per_path: bool,
    commands: mpsc::Sender<Command>,
    ended: watch::Receiver<Option<Outcome>>,
}

impl ConnectionHandle {
    /// Whose connection with which profile.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Whether each of its paths has an inner address of its own (`paths.address_per_path`).
    #[must_use]
    pub fn has_address_per_path(&self) -> bool {
        self.address_per_path
    }

    /// Tells the connection to end; [`ConnectionHandle::ended`] tells when it has.
    pub async fn disconnect(&self) {
        // A connection that ended by itself takes no commands; that is what was wanted.
        let _ = self.commands.send(Command::Disconnect).await;
    }

    /// Sets what several paths are used for.
    pub async fn set_policy(&self, policy: Policy) {
        let _ = self.commands.send(Command::SetPolicy(policy)).await;
    }

    /// Has the counters published as they are now; a busy connection is not waited for.
    pub async fn refresh(&self) {
        let (done, published) = oneshot::channel();
        if self.commands.try_send(Command::Refresh(done)).is_ok() {
            // Too late is as good as never: the counters are then a tick old.
            let _ = tokio::time::timeout(REFRESH_LIMIT, published).await;
        }
    }

    /// Waits until the connection has ended and everything is undone.
    pub async fn ended(&self) -> Outcome {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Outcome::Disconnected),
            Err(_) => Outcome::Disconnected,
        }
    }
}

/// All connections of the service.
#[derive(Debug, Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Arc<EngineConfig>,
    registry: Registry,
    connections: Mutex<BTreeMap<Key, ConnectionHandle>>,
}

impl Engine {
    /// An engine without connections.
    #[must_use]
    pub fn new(config: EngineConfig, registry: Registry) -> Self {
        Self { inner: Arc::new(Inner { config: Arc::new(config), registry, connections: Mutex::default() }) }
    }

    /// The state of every connection.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.inner.registry
    }

    /// A profile is removed: what was kept of its leases goes, too.
    pub fn forget_lease(&self, scope: Scope, profile: &str) {
        let owner = match scope {
            Scope::User(uid) => Some(uid),
            Scope::System => None,
        };
        if let Err(error) = connection::forget_lease(&self.inner.config.state_dir, owner, profile) {
            tracing::warn!(%error, "a removed profile's lease is still in the state folder");
        }
    }

    /// Starts a connection; how it fares is told through the registry.
    ///
    /// # Errors
    /// The profile asks for what this version does not do, or is connected already.
    pub fn connect(&self, request: ConnectRequest) -> Result<ConnectionHandle, ErrorInfo> {
        let ConnectRequest { profile, secrets, source, owner, credentials } = request;
        ropewalk_profile::unsupported(&profile).map_err(|error| {
            ErrorInfo::new(
                ErrorCode::ProfileRefused,
                format!("the profile `{}` cannot be used: {error}", profile.name),
                "change the profile, or update Ropewalk",
            )
        })?;
        let key = Key { owner, profile: profile.name.clone() };
        let mut connections = self.connections();
        if let Some(other) = connections.values().find(|other| same_connection(other, &key, source)) {
            let whose = if other.key.owner == owner { "" } else { " by another user" };
            return Err(ErrorInfo::new(
                ErrorCode::Failed,
                format!("`{}` is connected or connecting already{whose}", key.profile),
                "see `ropewalk status`",
            ));
        }

        let (commands, receiver) = mpsc::channel(8);
        let (ended_sender, ended) = watch::channel(None);
        let status = self.inner.registry.publisher(key.clone());
        let policy = profile.paths.policy;
        status.update(|status| {
            status.state = State::Connecting;
            status.policy = policy;
        });
        let handle = ConnectionHandle {
            key: key.clone(),
            source,
            address_per_path: profile.paths.address_per_path,
            commands,
            ended,
        };
        connections.insert(key.clone(), handle.clone());
        drop(connections);

        let context = ConnectionContext {
            profile: Arc::new(profile),
            secrets,
            owner,
            config: Arc::clone(&self.inner.config),
            credentials,
            commands: receiver,
            status: status.clone(),
        };
        let engine = self.clone();
        tokio::spawn(async move {
            // A task of its own, so that a panic in one connection is an error of that connection.
            let outcome = match tokio::spawn(connection::run(context)).await {
                Ok(outcome) => outcome,
                Err(error) => {
                    tracing::error!(%error, "a connection's task ended abnormally");
                    Outcome::Failed(ErrorInfo::new(
                        ErrorCode::Failed,
                        "the connection ended by an internal error",
                        "run `ropewalk report` and send the file to the makers",
                    ))
                }
            };
            engine.connections().remove(&key);
            publish_end(&status, &outcome);
            ended_sender.send_replace(Some(outcome));
        });
        Ok(handle)
    }

    /// The running connections.
    #[must_use]
    pub fn list(&self) -> Vec<ConnectionHandle> {
        self.connections().values().cloned().collect()
    }

    /// One running connection.
    #[must_use]
    pub fn find(&self, key: &Key) -> Option<ConnectionHandle> {
        self.connections().get(key).cloned()
    }

    /// Ends everything, for the end of the process; gives up after `limit`.
    pub async fn shutdown(&self, limit: Duration) {
        let all = self.list();
        for handle in &all {
            handle.disconnect().await;
        }
        let ended = async {
            for handle in &all {
                handle.ended().await;
            }
        };
        if tokio::time::timeout(limit, ended).await.is_err() {
            tracing::warn!("connections did not end in time; the next start undoes what they left");
        }
    }

    fn connections(&self) -> MutexGuard<'_, BTreeMap<Key, ConnectionHandle>> {
        self.inner.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A profile of the machine's is one connection whoever starts it; users' own profiles may share a name.
fn same_connection(other: &ConnectionHandle, key: &Key, source: ProfileSource) -> bool {
    other.key == *key
        || (other.key.profile == key.profile && other.source == source && source != ProfileSource::User)
}

/// Nothing of an ended connection is left, so its status says nothing but how it ended.
fn publish_end(status: &StatusPublisher, outcome: &Outcome) {
    status.update(|status| {
        let (state, error) = match outcome {
            Outcome::Disconnected => (State::Disconnected, None),
            Outcome::Failed(error) => (State::Failed, Some(error.clone())),
        };
        *status = ropewalk_ipc::Status {
            state,
            error,
            profile: status.profile.clone(),
            since: std::mem::take(&mut status.since),
            gateway: std::mem::take(&mut status.gateway),
            totals: status.totals,
            policy: status.policy,
            ..ropewalk_ipc::Status::default()
        };
    });
}
