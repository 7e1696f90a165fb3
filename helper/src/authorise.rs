//! Who may do what.
//!
//! The kernel tells who is at the other end of the socket ([`Peer`]); polkit decides, asked over D-Bus with the
//! peer's pid, start time and uid. Whatever goes wrong on the way means no. Without polkit (`--no-polkit`), root and
//! the socket's group may do everything, others nothing.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ropewalk_ipc::{ErrorCode, ErrorInfo, Peer};
use tokio::sync::Mutex;
use zbus::Variant;

/// How long an authentication dialog may stay open.
const DIALOG_TIMEOUT: Duration = Duration::from_secs(120);

/// polkit's flag for "may show a dialog".
const ALLOW_USER_INTERACTION: u32 = 1;

const POLKIT: &str = "org.freedesktop.PolicyKit1";
const AUTHORITY_PATH: &str = "/org/freedesktop/PolicyKit1/Authority";
const AUTHORITY: &str = "org.freedesktop.PolicyKit1.Authority";

/// What a caller wants to do, as far as rights differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Look at states and at one's own profiles.
    Observe,
    /// Connect with a profile one may use.
    Connect,
    /// Import and remove one's own profiles.
    ManageOwnProfiles,
    /// Import and remove profiles for all users.
    ManageSystemProfiles,
    /// Set what several paths are used for.
    SetPolicy,
}

impl Action {
    /// The action in `installer/polkit/org.ropewalk.policy`; `None`: no right is needed.
    fn polkit_id(self) -> Option<&'static str> {
        match self {
            Self::Observe => None,
            Self::Connect => Some("org.ropewalk.connect"),
            Self::ManageOwnProfiles => Some("org.ropewalk.manage-own-profiles"),
            Self::ManageSystemProfiles => Some("org.ropewalk.manage-system-profiles"),
            Self::SetPolicy => Some("org.ropewalk.set-policy"),
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Observe => "use the Ropewalk helper",
            Self::Connect => "connect",
            Self::ManageOwnProfiles => "import or remove profiles",
            Self::ManageSystemProfiles => "change profiles for all users",
            Self::SetPolicy => "change how paths are used",
        }
    }
}

/// The one who decides; cheap to clone.
#[derive(Debug, Clone)]
pub struct Authoriser {
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Polkit { bus: Arc<Mutex<Option<zbus::Connection>>> },
    SocketGroup { socket: PathBuf },
}

impl Authoriser {
    /// polkit decides. It is looked for when first needed, and again after the bus went away.
    #[must_use]
    pub fn polkit() -> Self {
        Self { kind: Kind::Polkit { bus: Arc::default() } }
    }

    /// Root and the group of this socket may do everything, others nothing.
    #[must_use]
    pub fn socket_group(socket: PathBuf) -> Self {
        Self { kind: Kind::SocketGroup { socket } }
    }

    /// Checks one action of one caller. May wait for an authentication dialog: call it from a task that blocks
    /// nobody else; dropping the future closes the dialog.
    ///
    /// # Errors
    /// [`ErrorCode::NotAuthorised`], also when the decision could not be had.
    pub async fn check(&self, peer: &Peer, action: Action) -> Result<(), ErrorInfo> {
        if peer.is_root() {
            return Ok(());
        }
        let allowed = match &self.kind {
            Kind::SocketGroup { socket } => {
                if in_group_of(peer, socket) {
                    Ok(())
                } else {
                    Err("only root and the socket's group may use it".to_owned())
                }
            }
            Kind::Polkit { bus } => match action.polkit_id() {
                None => Ok(()),
                Some(id) => ask_polkit(bus, peer, id).await,
            },
        };
        allowed.map_err(|why| {
            tracing::warn!(uid = peer.uid, pid = peer.pid, ?action, why, "not authorised");
            ErrorInfo::new(
                ErrorCode::NotAuthorised,
                format!("you are not allowed to {}: {why}", action.words()),
                match &self.kind {
                    Kind::Polkit { .. } => "do it from a local desktop session, or ask your administrator",
                    Kind::SocketGroup { .. } => "ask your administrator to add you to the socket's group",
                },
            )
        })
    }

    /// True when the caller may do everything, also to others' connections, without being asked.
    #[must_use]
    pub fn is_administrator(&self, peer: &Peer) -> bool {
        match &self.kind {
            Kind::Polkit { .. } => peer.is_root(),
            Kind::SocketGroup { socket } => peer.is_root() || in_group_of(peer, socket),
        }
    }
}

fn in_group_of(peer: &Peer, socket: &PathBuf) -> bool {
    match std::fs::symlink_metadata(socket) {
        Ok(metadata) => peer.gid == metadata.gid() || peer.groups.contains(&metadata.gid()),
        Err(error) => {
            tracing::warn!(%error, "the socket's group cannot be read");
            false
        }
    }
}

async fn ask_polkit(
    bus: &Arc<Mutex<Option<zbus::Connection>>>,
    peer: &Peer,
    action: &str,
) -> Result<(), String> {
    let Some(start_time) = peer.start_time else {
        return Err("the asking process is gone".to_owned());
    };
    let connection =
        system_bus(bus).await.map_err(|error| format!("the system bus cannot be reached ({error})"))?;
    let cancellation = uuid::Uuid::new_v4().to_string();
    let details: HashMap<&str, Variant<'_>> = HashMap::from([
        ("pid", Variant::U32(peer.pid)),
        ("start-time", Variant::U64(start_time)),
        // polkit takes the uid as a signed number; those beyond it are not users.
        ("uid", Variant::I32(i32::try_from(peer.uid).map_err(|_| "the user id is out of range".to_owned())?)),
    ]);
    let no_details: HashMap<&str, &str> = HashMap::new();
    let body = (("unix-process", details), action, no_details, ALLOW_USER_INTERACTION, cancellation.as_str());
    let mut dialog = Dialog { connection: connection.clone(), cancellation: Some(cancellation.clone()) };
    let call =
        connection.call_method(Some(POLKIT), AUTHORITY_PATH, Some(AUTHORITY), "CheckAuthorization", &body);
    let reply = match tokio::time::timeout(DIALOG_TIMEOUT, call).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(error)) => {
            dialog.cancellation = None;
            forget_if_broken(bus, &error).await;
            return Err(format!("polkit could not be asked ({error})"));
        }
        Err(_) => return Err("nobody answered the authentication dialog".to_owned()),
    };
    dialog.cancellation = None;
    type Answer = (bool, bool, HashMap<String, String>);
    let body = reply.body();
    let (authorised, challenge, _) =
        body.deserialize::<Answer>().map_err(|error| format!("polkit's answer cannot be read ({error})"))?;
    match (authorised, challenge) {
        (true, _) => Ok(()),
        (false, true) => Err("an administrator has to agree, and there is no dialog to ask in".to_owned()),
        (false, false) => Err("polkit says no".to_owned()),
    }
}

async fn system_bus(bus: &Arc<Mutex<Option<zbus::Connection>>>) -> zbus::Result<zbus::Connection> {
    let mut bus = bus.lock().await;
    if let Some(connection) = bus.as_ref() {
        return Ok(connection.clone());
    }
    let connection = zbus::Connection::system().await?;
    Ok(bus.insert(connection).clone())
}

/// An error that is not an answer: the bus may have been restarted, and the next question connects anew.
async fn forget_if_broken(bus: &Arc<Mutex<Option<zbus::Connection>>>, error: &zbus::Error) {
    if !matches!(error, zbus::Error::MethodError(..)) {
        *bus.lock().await = None;
    }
}

/// Closes polkit's dialog when nobody waits for it any more.
struct Dialog {
    connection: zbus::Connection,
    cancellation: Option<String>,
}

impl Drop for Dialog {
    fn drop(&mut self) {
        let Some(cancellation) = self.cancellation.take() else { return };
        let connection = self.connection.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let cancelled = connection
                    .call_method(
                        Some(POLKIT),
                        AUTHORITY_PATH,
                        Some(AUTHORITY),
                        "CancelCheckAuthorization",
                        &(cancellation.as_str(),),
                    )
                    .await;
                if let Err(error) = cancelled {
                    tracing::debug!(%error, "an authentication dialog could not be closed");
                }
            });
        }
    }
}
