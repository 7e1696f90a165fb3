//! What each request does: who may, with which profile, and what comes of it.

use std::sync::Arc;
use std::time::Duration;

use ropewalk_ipc::{
    CredentialField, CredentialReason, Credentials, ErrorCode, ErrorInfo, Imported, Peer, Policy,
    ProfilePaths, ProfileShown, ProfileSource, ProfileSummary, Reply, Request, Secret, State, Status,
};
use ropewalk_profile::{Preview, ProfileError, ProposalKind};

use crate::authorise::{Action, Authoriser};
use crate::engine::{ConnectRequest, ConnectionHandle, CredentialSource, Engine, Outcome};
use crate::log::LogRing;
use crate::report;
use crate::state::{Key, now_rfc3339};
use crate::store::{Broken, Scope, Store, Stored};

/// How long an attempt that ran out of time gets to take itself down before the caller is told.
const GIVE_UP_TIME: Duration = Duration::from_secs(5);

/// Longest time a caller may wait for a connection.
const MAX_WAIT: u32 = 24 * 3600;

/// Who asks.
#[derive(Debug, Clone)]
pub struct Caller {
    /// What the kernel says of the process.
    pub peer: Peer,
    /// The way to ask the user back.
    pub credentials: CredentialSource,
}

/// Everything requests work on.
#[derive(Debug)]
pub struct Service {
    engine: Engine,
    store: Arc<Store>,
    authoriser: Authoriser,
    log: LogRing,
}

impl Service {
    /// A service from its parts.
    #[must_use]
    pub fn new(engine: Engine, store: Store, authoriser: Authoriser, log: LogRing) -> Self {
        Self { engine, store: Arc::new(store), authoriser, log }
    }

    /// The connections.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Does what is asked, if the caller may.
    ///
    /// # Errors
    /// As the caller is to be told.
    pub async fn handle(&self, caller: &Caller, request: Request) -> Result<Reply, ErrorInfo> {
        let peer = &caller.peer;
        self.authoriser.check(peer, Action::Observe).await?;
        match request {
            Request::Import { data, name, system } => {
                self.import(caller, data.as_bytes(), name, system).await
            }
            Request::Profiles => {
                let uid = peer.uid;
                let all = self.on_store(move |store| Ok(store.list(uid))).await?;
                Ok(Reply::Profiles(all.into_iter().map(summary).collect()))
            }
            Request::Show { name } => {
                let uid = peer.uid;
                let stored = self.on_store(move |store| store.get(uid, &name)).await?;
                Ok(Reply::Profile(Box::new(ProfileShown {
                    preview: Preview::of(&stored.profile, &stored.secrets),
                    toml: stored.profile.to_toml(),
                    summary: summary(Ok(stored)),
                })))
            }
            Request::Remove { name } => self.remove(peer, name).await,
            Request::Connect { name, user, password, wait_seconds } => {
                self.connect(caller, name, user, password, wait_seconds).await
            }
            Request::Disconnect { name, wait_seconds } => self.disconnect(peer, name, wait_seconds).await,
            Request::Paths => Ok(Reply::Paths(self.paths(peer))),
            Request::SetPolicy { policy } => self.set_policy(peer, policy).await,
            Request::Status { name, all } => self.status(peer, name, all).await.map(Reply::Statuses),
            Request::Watch => Ok(Reply::Done),
            Request::Report => self.report(peer).await,
        }
    }

    async fn import(
        &self,
        caller: &Caller,
        data: &[u8],
        name: Option<String>,
        system: bool,
    ) -> Result<Reply, ErrorInfo> {
        let (action, scope) = if system {
            (Action::ManageSystemProfiles, Scope::System)
        } else {
            (Action::ManageOwnProfiles, Scope::User(caller.peer.uid))
        };
        // What is wrong with the file is told before anybody is asked for a password for nothing.
        let mut import = ropewalk_profile::import(data).map_err(|error| refused(&error))?;
        if let Some(name) = name {
            ropewalk_profile::check_name(&name).map_err(|problem| {
                ErrorInfo::new(ErrorCode::Usage, format!("the name {problem}"), "choose another")
            })?;
            import.profile.name = name;
        }
        import.profile.check_proposals(parse_proposal).map_err(|error| refused(&error))?;
        ropewalk_profile::unsupported(&import.profile).map_err(|error| refused(&error))?;
        if self.is_active(scope, &import.profile.name) {
            tracing::debug!("a profile is replaced while connected; the connection keeps the old one");
        }
        self.authoriser.check(&caller.peer, action).await?;
        open_bundle(&mut import, &caller.credentials).await?;
        let (profile, secrets) = (import.profile, import.secrets);
        let name = profile.name.clone();
        let replaced = self.on_store(move |store| store.save(scope, &profile, &secrets)).await?;
        tracing::info!(uid = caller.peer.uid, system, replaced, "profile imported");
        Ok(Reply::Imported(Imported { name, replaced, warnings: import.warnings }))
    }

    async fn remove(&self, peer: &Peer, name: String) -> Result<Reply, ErrorInfo> {
        let uid = peer.uid;
        // By its entry in the list, so that a damaged profile can be removed too.
        let wanted = name.clone();
        let source = self
            .on_store(move |store| match store.get(uid, &wanted) {
                Ok(stored) => Ok(stored.source),
                Err(error) => store.source_of(uid, &wanted).ok_or(error),
            })
            .await?;
        let (action, scope) = match source {
            ProfileSource::User => (Action::ManageOwnProfiles, Scope::User(uid)),
            ProfileSource::System => (Action::ManageSystemProfiles, Scope::System),
            ProfileSource::Managed => {
                return Err(ErrorInfo::new(
                    ErrorCode::NotAuthorised,
                    format!("`{name}` is handed out by your administrator and cannot be removed here"),
                    "ask your administrator",
                ));
            }
        };
        self.authoriser.check(peer, action).await?;
        if self.is_active(scope, &name) {
            return Err(ErrorInfo::new(
                ErrorCode::Failed,
                format!("`{name}` is connected"),
                format!("disconnect first: `ropewalk disconnect '{name}'`"),
            ));
        }
        let removed = name.clone();
        self.on_store(move |store| store.remove(scope, &removed)).await?;
        self.engine.forget_lease(scope, &name);
        self.engine.registry().forget(&Key { owner: uid, profile: name });
        tracing::info!(uid, "profile removed");
        Ok(Reply::Done)
    }

    async fn connect(
        &self,
        caller: &Caller,
        name: String,
        user: Option<String>,
        password: Option<Secret>,
        wait_seconds: u32,
    ) -> Result<Reply, ErrorInfo> {
        let uid = caller.peer.uid;
        let mut stored = self.on_store(move |store| store.get(uid, &name)).await?;
        self.authoriser.check(&caller.peer, Action::Connect).await?;
        let key = Key { owner: uid, profile: stored.profile.name.clone() };
        // What is wanted may be there or on its way already, from the window for example.
        let (handle, ours) = match self.engine.find(&key) {
            Some(handle) => (handle, false),
            None => {
                complete(&mut stored, user, password, &caller.credentials).await?;
                let handle = self.engine.connect(ConnectRequest {
                    profile: stored.profile,
                    secrets: stored.secrets,
                    source: stored.source,
                    owner: uid,
                    credentials: caller.credentials.clone(),
                })?;
                (handle, true)
            }
        };
        if wait_seconds == 0 {
            return Ok(Reply::Status(Box::new(self.own_status(handle.key()))));
        }
        let limit = Duration::from_secs(u64::from(wait_seconds.min(MAX_WAIT)));
        match tokio::time::timeout(limit, self.until_connected(&handle)).await {
            Ok(result) => result,
            Err(_) => Err(self.give_up(&handle, wait_seconds, ours).await),
        }
    }

    async fn until_connected(&self, handle: &ConnectionHandle) -> Result<Reply, ErrorInfo> {
        let mut changed = self.engine.registry().subscribe();
        let connected = async {
            loop {
                let status = self.own_status(handle.key());
                if status.state == State::Connected {
                    return status;
                }
                if changed.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            biased;
            outcome = handle.ended() => match outcome {
                Outcome::Failed(error) => Err(error),
                Outcome::Disconnected => Err(ErrorInfo::new(
                    ErrorCode::Failed,
                    format!("the attempt to connect `{}` was ended by a disconnect", handle.key().profile),
                    "",
                )),
            },
            status = connected => Ok(Reply::Status(Box::new(status))),
        }
    }

    /// Ends an attempt that ran out of time, if this request began it: one that somebody else wants goes on.
    /// What is known of the cause is told rather than the time.
    async fn give_up(&self, handle: &ConnectionHandle, seconds: u32, ours: bool) -> ErrorInfo {
        let status = self.own_status(handle.key());
        let error = status.error.unwrap_or_else(|| {
            let gateway = status.gateway.address.map(|address| format!(" {address}")).unwrap_or_default();
            ErrorInfo::new(
                ErrorCode::GatewayUnreachable,
                format!(
                    "`{}` did not connect within {seconds} seconds; the gateway{gateway} did not answer in time{}",
                    handle.key().profile,
                    if ours { ", and the attempt was ended" } else { "; the attempt goes on" }
                ),
                "check the network and the gateway's address, or allow more time with --wait",
            )
        });
        if !ours {
            return error;
        }
        handle.disconnect().await;
        if tokio::time::timeout(GIVE_UP_TIME, handle.ended()).await.is_err() {
            tracing::warn!(profile = %handle.key().profile, "the attempt is slow to end");
            return error;
        }
        self.engine.registry().amend(handle.key(), |status| {
            if status.state == State::Disconnected {
                status.state = State::Failed;
                status.error = Some(error.clone());
            }
        });
        error
    }

    async fn disconnect(&self, peer: &Peer, name: Option<String>, seconds: u32) -> Result<Reply, ErrorInfo> {
        let mine = |key: &Key| key.owner == peer.uid && name.as_ref().is_none_or(|name| *name == key.profile);
        let mut handles: Vec<_> =
            self.engine.list().into_iter().filter(|handle| mine(handle.key())).collect();
        if let (true, Some(name)) = (handles.is_empty(), &name) {
            let others: Vec<_> =
                self.engine.list().into_iter().filter(|handle| handle.key().profile == *name).collect();
            if others.is_empty() {
                let (uid, wanted) = (peer.uid, name.clone());
                self.on_store(move |store| store.get(uid, &wanted).map(|_| ())).await?;
            } else if self.authoriser.is_administrator(peer) {
                handles = others;
            } else {
                // The name may be one of the caller's own profiles that is not connected: nothing to do then. A
                // stranger's private one is not admitted to exist.
                let (uid, wanted) = (peer.uid, name.clone());
                let stored = self.on_store(move |store| store.get(uid, &wanted)).await?;
                if stored.source != ProfileSource::User {
                    return Err(ErrorInfo::new(
                        ErrorCode::NotAuthorised,
                        format!("`{name}` was connected by another user"),
                        "only that user and root may disconnect it",
                    ));
                }
            }
        }
        // A failure that the user has seen and answered with a disconnect is over.
        for (key, entry) in self.engine.registry().snapshot() {
            if entry.status.state == State::Failed && mine(&key) {
                self.engine.registry().amend(&key, |status| {
                    status.state = State::Disconnected;
                    status.error = None;
                });
            }
        }
        for handle in &handles {
            handle.disconnect().await;
        }
        let limit = Duration::from_secs(u64::from(seconds.min(MAX_WAIT)));
        let ended = async {
            for handle in &handles {
                handle.ended().await;
            }
        };
        if seconds > 0 && tokio::time::timeout(limit, ended).await.is_err() {
            return Err(ErrorInfo::new(
                ErrorCode::Failed,
                format!("disconnecting takes longer than {seconds} seconds"),
                "it goes on; see `ropewalk status`",
            ));
        }
        Ok(Reply::Disconnected(handles.iter().map(|handle| handle.key().profile.clone()).collect()))
    }

    fn paths(&self, peer: &Peer) -> Vec<ProfilePaths> {
        let paths = |status: Status| ProfilePaths {
            profile: status.profile.unwrap_or_default(),
            policy: status.policy,
            paths: status.paths,
        };
        self.engine
            .registry()
            .snapshot()
            .into_iter()
            .filter(|(key, entry)| key.owner == peer.uid && entry.status.state.is_active())
            .map(|(_, entry)| paths(entry.status))
            .collect()
    }

    async fn set_policy(&self, peer: &Peer, policy: Policy) -> Result<Reply, ErrorInfo> {
        self.authoriser.check(peer, Action::SetPolicy).await?;
        let handles: Vec<_> =
            self.engine.list().into_iter().filter(|handle| handle.key().owner == peer.uid).collect();
        if handles.is_empty() {
            return Err(ErrorInfo::new(
                ErrorCode::Failed,
                "nothing is connected whose paths could be set",
                "connect first; what a profile starts with is its key `paths.policy`",
            ));
        }
        let takes_it =
            |handle: &&ConnectionHandle| policy == Policy::Failover || !handle.has_address_per_path();
        if !handles.iter().any(|handle| takes_it(&handle)) {
            return Err(ErrorInfo::new(
                ErrorCode::Failed,
                "each path of this connection has an inner address of its own, and what has an address goes by its path: there \
                 is nothing to spread or to copy",
                "take `paths.address_per_path` out of the profile to use balance or redundant",
            ));
        }
        for handle in handles.iter().filter(takes_it) {
            handle.set_policy(policy).await;
        }
        Ok(Reply::Done)
    }

    async fn status(&self, peer: &Peer, name: Option<String>, all: bool) -> Result<Vec<Status>, ErrorInfo> {
        let handles = self.engine.list();
        futures_util::future::join_all(handles.iter().map(ConnectionHandle::refresh)).await;
        let registry = self.engine.registry();
        let visible: Vec<_> = registry
            .snapshot()
            .into_iter()
            .filter(|(key, entry)| key.owner == peer.uid || entry.status.state.is_active())
            .collect();
        if all {
            return Ok(visible.iter().map(|(key, entry)| entry.seen_by(key.owner, peer.uid)).collect());
        }
        let candidates = visible.into_iter().filter(|(key, _)| {
            (key.owner == peer.uid || peer.is_root()) && name.as_ref().is_none_or(|name| *name == key.profile)
        });
        let best = candidates
            .map(|(key, entry)| (key.owner == peer.uid, entry.seen_by(key.owner, peer.uid)))
            .max_by_key(|(own, status)| (status.state.is_active(), *own, status.since.clone()));
        if let Some((_, status)) = best {
            return Ok(vec![status]);
        }
        if let Some(name) = &name {
            let (uid, wanted) = (peer.uid, name.clone());
            self.on_store(move |store| store.get(uid, &wanted).map(|_| ())).await?;
        }
        Ok(vec![Status { profile: name, since: now_rfc3339(), owned: true, ..Status::default() }])
    }

    async fn report(&self, peer: &Peer) -> Result<Reply, ErrorInfo> {
        let statuses = self.status(peer, None, true).await?;
        let uid = peer.uid;
        let profiles = self.on_store(move |store| Ok(store.list(uid))).await?;
        // The log tells of every user's connections.
        let log = self.authoriser.is_administrator(peer).then(|| self.log.lines());
        Ok(Reply::Report(report::write(&statuses, &profiles, log.as_deref())))
    }

    fn own_status(&self, key: &Key) -> Status {
        Status { owned: true, ..self.engine.registry().get(key).unwrap_or_default() }
    }

    fn is_active(&self, scope: Scope, name: &str) -> bool {
        self.engine.list().iter().any(|handle| match scope {
            Scope::User(uid) => handle.key().owner == uid && handle.key().profile == name,
            Scope::System => handle.key().profile == name,
        })
    }

    /// Runs something on the store, on a thread that may block.
    async fn on_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, ErrorInfo> + Send + 'static,
    ) -> Result<T, ErrorInfo> {
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || work(&store)).await.unwrap_or_else(|error| {
            tracing::error!(%error, "the profile store failed");
            Err(ErrorInfo::new(ErrorCode::Failed, "the profile store failed by an internal error", ""))
        })
    }
}

/// Fills in what the caller gave, then asks for what is still missing: everything a login needs is there before
/// the first message to the gateway.
async fn complete(
    stored: &mut Stored,
    user: Option<String>,
    password: Option<Secret>,
    credentials: &CredentialSource,
) -> Result<(), ErrorInfo> {
    let takes_password = stored.profile.auth.method.uses_password();
    if (user.is_some() || password.is_some()) && !takes_password {
        return Err(ErrorInfo::new(
            ErrorCode::Usage,
            format!(
                "`{}` logs in by {}, which takes no user name or password",
                stored.profile.name,
                stored.profile.auth.method.as_str()
            ),
            "leave --user and --password-stdin away",
        ));
    }
    if user.is_some() {
        stored.profile.auth.user = user;
    }
    if password.is_some() {
        stored.secrets.password = password;
    }
    let mut fields = Vec::new();
    for missing in stored.profile.missing(&stored.secrets) {
        fields.push(match missing {
            "user" => CredentialField::User,
            "password" => CredentialField::Password,
            "psk" => CredentialField::Psk,
            "pkcs12_password" => CredentialField::Pkcs12Password,
            other => {
                return Err(ErrorInfo::new(
                    ErrorCode::ProfileRefused,
                    format!("the profile `{}` has no `auth.{other}`", stored.profile.name),
                    "import a profile that has it",
                ));
            }
        });
    }
    let answer = if fields.is_empty() {
        Credentials::default()
    } else {
        credentials.ask(fields, CredentialReason::Missing, stored.profile.auth.user.clone()).await?
    };
    stored.profile.auth.user =
        stored.profile.auth.user.take().or(answer.user.filter(|user| !user.is_empty()));
    stored.secrets.password = stored.secrets.password.take().or(answer.password);
    stored.secrets.psk = stored.secrets.psk.take().or(answer.psk);
    stored.secrets.pkcs12_password = stored.secrets.pkcs12_password.take().or(answer.pkcs12_password);
    match stored.profile.missing(&stored.secrets).first() {
        // The administrator's files are not imported: their bundles are opened here.
        None => ropewalk_profile::open_bundle(&mut stored.profile, &mut stored.secrets)
            .map_err(|error| refused(&error)),
        Some(missing) => Err(ErrorInfo::new(
            ErrorCode::AuthFailed,
            format!("the login needs a {missing}, and none was given"),
            "connect again and give it",
        )),
    }
}

/// Opens a PKCS#12 bundle, so that the store holds a certificate and a key; asks for its password.
async fn open_bundle(
    import: &mut ropewalk_profile::Import,
    credentials: &CredentialSource,
) -> Result<(), ErrorInfo> {
    let mut reason = CredentialReason::Missing;
    loop {
        match ropewalk_profile::open_bundle(&mut import.profile, &mut import.secrets) {
            Ok(()) => return Ok(()),
            Err(error @ (ProfileError::WrongPassword | ProfileError::PasswordNeeded)) => {
                if error == ProfileError::WrongPassword {
                    reason = CredentialReason::Wrong;
                }
                let answer = credentials
                    .ask(vec![CredentialField::Pkcs12Password], reason, None)
                    .await
                    .map_err(|_| refused(&error))?;
                import.secrets.pkcs12_password = answer.pkcs12_password;
                reason = CredentialReason::Wrong;
            }
            Err(error) => return Err(refused(&error)),
        }
    }
}

fn summary(one: Result<Stored, Broken>) -> ProfileSummary {
    match one {
        Ok(stored) => ProfileSummary {
            name: stored.profile.name.clone(),
            gateway: stored.profile.gateway.address().to_owned(),
            method: stored.profile.auth.method,
            user: stored.profile.auth.user.clone(),
            source: stored.source,
            missing: stored.profile.missing(&stored.secrets).into_iter().map(str::to_owned).collect(),
            error: ropewalk_profile::unsupported(&stored.profile).err().map(|error| refused(&error)),
        },
        Err(broken) => ProfileSummary {
            name: broken.name,
            gateway: String::new(),
            method: ropewalk_ipc::Method::Psk,
            user: None,
            source: broken.source,
            missing: Vec::new(),
            error: Some(broken.error),
        },
    }
}

fn refused(error: &ProfileError) -> ErrorInfo {
    let hint = match error {
        ProfileError::Syntax { .. } | ProfileError::Key { .. } => {
            "correct the file and import it again; docs/profile-reference.md lists every key"
        }
        ProfileError::UnsupportedFormat { .. } => {
            "convert it to a native profile (docs/profile-reference.md) or .sswan"
        }
        ProfileError::NotAProfile { .. } => "choose a profile: native TOML or .sswan",
        ProfileError::Unsupported { .. } => "change the profile, or update Ropewalk",
        ProfileError::WrongPassword | ProfileError::PasswordNeeded => {
            "import it again with the bundle's password"
        }
        ProfileError::Bundle { .. } => "put certificate and private key into a native profile, as PEM",
    };
    ErrorInfo::new(ErrorCode::ProfileRefused, format!("the profile is refused: {error}"), hint)
}

fn parse_proposal(kind: ProposalKind, text: &str) -> Result<(), String> {
    crate::proposals::check(kind, text)
}
