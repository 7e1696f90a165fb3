//! The connection to the helper: made, made again when it breaks, and its pushes fed into the model.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ropewalk_ipc::{
    Client, ClientError, ClientOptions, CredentialReason, CredentialRequest, ErrorCode, ErrorInfo, Event,
    Reply, Request,
};
use tauri::Emitter as _;

use crate::model::Consequence;
use crate::shared::Shared;
use crate::view::{Helper, TrafficView};
use crate::{deeds, keyring};

/// A helper that is (re)started is found this much later at most; asking a socket that is not there costs nothing.
const RETRY: Duration = Duration::from_millis(500);

/// Keeps a connection to the helper for the life of the program.
pub async fn keep(shared: Arc<Shared>, socket: PathBuf) {
    let options = ClientOptions::new(socket, "ropewalk-app");
    loop {
        let (helper, error) = match Client::connect(&options).await {
            Ok((client, events)) => {
                tracing::info!(helper = client.helper().version, "the helper answers");
                let reason = follow(&shared, client, events).await;
                tracing::info!(reason, "the helper is gone");
                let error = ClientError::Lost(reason).to_info();
                (Helper::Absent, error)
            }
            Err(error) => (kind_of(&error), error.to_info()),
        };
        shared.set_client(None);
        shared.change(|model| model.offline(helper, error));
        tokio::time::sleep(RETRY).await;
    }
}

/// Tells the pages once a second what flows through the connection shown. The helper sends counters only while they
/// change; a picture of the last minute needs the silence as well.
pub async fn count(shared: Arc<Shared>) {
    let mut clock = tokio::time::interval(Duration::from_secs(1));
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut before: Option<(String, u64, u64, Instant)> = None;
    loop {
        clock.tick().await;
        let Some((profile, totals)) = shared.read(crate::model::Model::shown_totals) else {
            before = None;
            continue;
        };
        let now = Instant::now();
        let per_second = |old: u64, new: u64, since: Instant| {
            let seconds = now.duration_since(since).as_secs_f64().max(0.001);
            new.saturating_sub(old) as f64 / seconds
        };
        let (in_per_second, out_per_second) = match &before {
            Some((same, bytes_in, bytes_out, since)) if *same == profile => (
                per_second(*bytes_in, totals.bytes_in, *since),
                per_second(*bytes_out, totals.bytes_out, *since),
            ),
            Some(_) | None => (0.0, 0.0),
        };
        before = Some((profile.clone(), totals.bytes_in, totals.bytes_out, now));
        let traffic = TrafficView {
            profile,
            bytes_in: totals.bytes_in,
            bytes_out: totals.bytes_out,
            in_per_second,
            out_per_second,
        };
        if let Err(error) = shared.app.emit("traffic", &traffic) {
            tracing::debug!(%error, "the window was not told of traffic");
        }
    }
}

fn kind_of(error: &ClientError) -> Helper {
    match error {
        ClientError::NotRunning { .. } | ClientError::Lost(_) | ClientError::Untrusted { .. } => {
            Helper::Absent
        }
        ClientError::Permission { .. } => Helper::Denied,
        ClientError::Version { .. } => Helper::OtherVersion,
        ClientError::Helper(info) if info.code == ErrorCode::NotAuthorised => Helper::Denied,
        ClientError::Helper(_) => Helper::Absent,
    }
}

async fn follow(shared: &Arc<Shared>, client: Client, mut events: ropewalk_ipc::Events) -> String {
    shared.set_client(Some(client.clone()));
    // Not awaited here: replies come behind the events that this loop reads.
    tauri::async_runtime::spawn(begin(Arc::clone(shared), client));
    while let Some(event) = events.next().await {
        match event {
            Event::Status(status) => {
                let consequence = shared.change(|model| model.set_status(*status));
                match consequence {
                    Consequence::None => {}
                    Consequence::Remember(profile, credentials) => {
                        tauri::async_runtime::spawn(remember(Arc::clone(shared), profile, credentials));
                    }
                    Consequence::ListProfiles => {
                        tauri::async_runtime::spawn(list(Arc::clone(shared)));
                    }
                }
            }
            Event::Traffic(traffic) => shared.change(|model| model.set_traffic(&traffic)),
            Event::Credentials(request) => {
                tauri::async_runtime::spawn(asked(Arc::clone(shared), request));
            }
            Event::Closed(reason) => return reason,
        }
    }
    "the connection was closed".to_owned()
}

async fn begin(shared: Arc<Shared>, client: Client) {
    // The list first: what is pushed then has names that are known.
    match client.request(Request::Profiles).await {
        Ok(Reply::Profiles(profiles)) => shared.change(|model| {
            model.online();
            model.set_profiles(profiles);
        }),
        Ok(_) | Err(ClientError::Lost(_)) => {}
        Err(error) => shared.change(|model| {
            model.online();
            model.set_notice(Some(error.to_info()));
        }),
    }
    if let Err(error) = client.request(Request::Watch).await {
        shared.change(|model| model.set_notice(Some(error.to_info())));
    }
}

/// Asks for the list of profiles again.
pub async fn list(shared: Arc<Shared>) {
    match shared.request(Request::Profiles).await {
        Ok(Reply::Profiles(profiles)) => shared.change(|model| model.set_profiles(profiles)),
        Ok(_) => {}
        Err(error) => tracing::debug!(%error, "no list of profiles"),
    }
}

/// The helper asks for credentials: the keyring answers when it can, else the user.
async fn asked(shared: Arc<Shared>, request: CredentialRequest) {
    if request.reason == CredentialReason::Missing
        && shared.read(|model| model.is_remembered(&request.profile))
        && let Some(stored) = deeds::stored(&request.profile).await
        && deeds::answers(&stored, &request.fields)
    {
        tracing::info!(profile = request.profile, "answered from the keyring");
        deeds::send_answer(&shared, request.id, Some(stored)).await;
        return;
    }
    let can_remember = request.reason != CredentialReason::Expired && keyring::available().await;
    shared.change(|model| model.ask(request, can_remember));
    crate::window::show(&shared.app);
}

async fn remember(shared: Arc<Shared>, profile: String, credentials: ropewalk_ipc::Credentials) {
    match keyring::store(&profile, credentials).await {
        Ok(()) => {
            tracing::info!(profile, "remembered in the keyring");
            shared.change(|model| model.set_remembered(&profile, true));
        }
        Err(error) => {
            tracing::warn!(%error, profile, "cannot remember");
            let notice = ErrorInfo::new(
                ErrorCode::Failed,
                format!("The password was not remembered: {error}."),
                "Unlock the keyring (it opens with your login password) and sign in again.",
            );
            shared.change(|model| model.set_notice(Some(notice)));
        }
    }
}
