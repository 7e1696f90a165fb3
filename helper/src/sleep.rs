//! When the computer sleeps, as logind says it (`PrepareForSleep` of `org.freedesktop.login1.Manager`).
//!
//! Before a sleep, connections have a moment to stop saying that they are connected: an inhibitor lock of the kind "delay"
//! holds the sleep back until they have. Where there is no logind, the clocks tell ([`crate::clock::Nap`]), after the fact.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use zbus::OwnedFd;

/// What logind says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sleep {
    /// The computer is awake.
    #[default]
    Awake,
    /// It is about to sleep, or sleeps.
    Falling,
}

/// How long a sleep is held back for connections to tell of it; logind allows five seconds.
const HOLD: Duration = Duration::from_millis(250);
/// How long to wait for a bus that is not there, or went.
const RETRY: Duration = Duration::from_secs(30);

/// Listens to logind until it is dropped.
#[derive(Debug)]
pub struct SleepWatch {
    state: watch::Receiver<Sleep>,
    task: JoinHandle<()>,
}

impl SleepWatch {
    /// Begins to listen, as soon as there is a system bus.
    #[must_use]
    pub fn start() -> Self {
        let (publish, state) = watch::channel(Sleep::Awake);
        let task = tokio::spawn(async move {
            loop {
                if let Err(error) = listen(&publish).await {
                    tracing::debug!(%error, "not listening to logind");
                }
                // Whoever said that it sleeps and went cannot say that it woke up.
                publish.send_replace(Sleep::Awake);
                tokio::time::sleep(RETRY).await;
            }
        });
        Self { state, task }
    }

    /// The state, and every change.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Sleep> {
        self.state.clone()
    }
}

impl Drop for SleepWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[zbus::proxy(
    interface = "org.freedesktop.login1.Manager",
    default_service = "org.freedesktop.login1",
    default_path = "/org/freedesktop/login1"
)]
trait Manager {
    /// Takes a lock, held as long as the descriptor is open.
    fn inhibit(&self, what: &str, who: &str, why: &str, mode: &str) -> zbus::Result<OwnedFd>;

    /// `true` before the sleep, `false` after it.
    #[zbus(signal)]
    fn prepare_for_sleep(&self, start: bool) -> zbus::Result<()>;
}

async fn listen(publish: &watch::Sender<Sleep>) -> zbus::Result<()> {
    let connection = zbus::Connection::system().await?;
    let manager = ManagerProxy::new(&connection).await?;
    let mut signals = manager.receive_prepare_for_sleep().await?;
    let mut lock = take_lock(&manager).await;
    tracing::debug!(lock = lock.is_some(), "listening to logind");
    while let Some(signal) = signals.next().await {
        let Ok(arguments) = signal.args() else { continue };
        if arguments.start {
            tracing::info!("the computer is about to sleep");
            publish.send_replace(Sleep::Falling);
            tokio::time::sleep(HOLD).await;
            lock = None;
        } else {
            publish.send_replace(Sleep::Awake);
            if lock.is_none() {
                lock = take_lock(&manager).await;
            }
        }
    }
    Ok(())
}

/// Without the lock the sleep is told all the same, only perhaps too late.
async fn take_lock(manager: &ManagerProxy<'_>) -> Option<OwnedFd> {
    let why = "The state of VPN connections is told before the computer sleeps";
    match manager.inhibit("sleep", "Ropewalk", why, "delay").await {
        Ok(lock) => Some(lock),
        Err(error) => {
            tracing::debug!(%error, "no inhibitor lock");
            None
        }
    }
}
