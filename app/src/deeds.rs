//! What a click does, whether in the window, in the tray's menu, or by starting the program again with a file.

use std::path::PathBuf;
use std::sync::Arc;

use ropewalk_ipc::{CredentialField, CredentialReason, Credentials, ErrorInfo, Policy, Request, Secret};
use tauri_plugin_dialog::DialogExt as _;

use crate::shared::Shared;
use crate::{imports, keyring, link};

/// How long the helper may take to undo a connection before we stop waiting for its word.
const DISCONNECT_SECONDS: u32 = 10;

/// Connects a profile; what else is up goes down first, for there is one connection to look at.
pub async fn connect(shared: Arc<Shared>, name: String) {
    let (attempt, others) = shared.change(|model| model.begin(&name));
    for other in others {
        let request = Request::Disconnect { name: Some(other), wait_seconds: DISCONNECT_SECONDS };
        if let Err(error) = shared.request(request).await {
            tracing::debug!(%error, "the other connection did not go down");
        }
    }
    let stored = if shared.read(|model| model.is_remembered(&name)) { stored(&name).await } else { None }
        .unwrap_or_default();
    if !shared.read(|model| model.wants(&name, attempt)) {
        return;
    }
    let request = Request::Connect {
        name: name.clone(),
        user: stored.user.clone(),
        password: stored.password.clone(),
        wait_seconds: 0,
    };
    if let Err(error) = shared.request(request).await {
        shared.change(|model| model.refused(&name, attempt, error));
    }
}

/// Ends the connection shown.
pub async fn disconnect(shared: Arc<Shared>) {
    let Some(name) = shared.change(crate::model::Model::end) else { return };
    let request = Request::Disconnect { name: Some(name.clone()), wait_seconds: DISCONNECT_SECONDS };
    match shared.request(request).await {
        Ok(_) => shared.change(|model| model.ended(&name)),
        Err(error) => shared.change(|model| {
            model.ended(&name);
            model.set_notice(Some(error));
        }),
    }
}

/// The user's answer to a question of the helper's.
pub async fn answer(shared: Arc<Shared>, id: u64, given: Credentials, remember: bool) {
    let Some(request) = shared.change(|model| model.take_question(id)) else { return };
    if remember {
        // The whole of it, so that the next login is asked nothing: what was not asked for may be stored already.
        let mut whole = match shared.read(|model| model.is_remembered(&request.profile)) {
            true => stored(&request.profile).await.unwrap_or_default(),
            false => Credentials::default(),
        };
        whole.user = given.user.clone().or(whole.user);
        whole.password = given.password.clone().or_else(|| whole.password.take());
        whole.psk = given.psk.clone().or_else(|| whole.psk.take());
        whole.pkcs12_password = given.pkcs12_password.clone().or_else(|| whole.pkcs12_password.take());
        shared.change(|model| model.remember_later(&request.profile, whole));
    } else if request.reason == CredentialReason::Wrong {
        // What is stored is wrong, and the user does not want what is right to be stored.
        forget(Arc::clone(&shared), request.profile.clone()).await;
    }
    send_answer(&shared, id, Some(given)).await;
}

/// The user does not answer: the attempt ends. After a wrong answer it has failed, and the window goes on saying so;
/// without any it is as if it had not been begun.
pub async fn answer_cancel(shared: Arc<Shared>, id: u64) {
    let Some(request) = shared.change(|model| model.take_question(id)) else { return };
    send_answer(&shared, id, None).await;
    if request.reason != CredentialReason::Wrong {
        disconnect(shared).await;
    }
}

/// Sends an answer to the helper.
pub async fn send_answer(shared: &Shared, id: u64, credentials: Option<Credentials>) {
    let Ok(client) = shared.client() else { return };
    if let Err(error) = client.answer(id, credentials).await {
        tracing::debug!(%error, "the answer was not sent");
    }
}

/// Forgets the stored password of a profile.
pub async fn forget(shared: Arc<Shared>, name: String) {
    if !shared.read(|model| model.is_remembered(&name)) {
        return;
    }
    match keyring::forget(&name).await {
        Ok(()) => shared.change(|model| model.set_remembered(&name, false)),
        Err(error) => {
            let notice = ErrorInfo::new(
                ropewalk_ipc::ErrorCode::Failed,
                format!("The password was not forgotten: {error}."),
                "Unlock the keyring and try again.",
            );
            shared.change(|model| model.set_notice(Some(notice)));
        }
    }
}

/// Uses several paths in another way.
pub async fn set_policy(shared: Arc<Shared>, policy: Policy) {
    if let Err(error) = shared.request(Request::SetPolicy { policy }).await {
        shared.change(|model| model.set_notice(Some(error)));
    }
}

/// Removes a profile, and what is stored for it.
pub async fn remove(shared: Arc<Shared>, name: String) {
    if let Err(error) = shared.request(Request::Remove { name: name.clone() }).await {
        shared.change(|model| model.set_notice(Some(error)));
        return;
    }
    forget(Arc::clone(&shared), name).await;
    link::list(shared).await;
}

/// Lets the user choose a file, and looks at it.
pub fn pick_file(shared: &Arc<Shared>) {
    let answer = Arc::clone(shared);
    let mut dialog =
        shared.app.dialog().file().add_filter("VPN profiles", &["toml", "sswan", "mobileconfig", "xml"]);
    dialog = dialog.add_filter("*", &["*"]);
    if let Some(window) = crate::window::get(&shared.app) {
        dialog = dialog.set_parent(&window);
    }
    dialog.pick_file(move |file| {
        let path = file.and_then(|file| file.into_path().ok());
        open_files(&answer, path.into_iter().collect());
    });
}

/// Looks at a file: the first one of those chosen or dropped.
pub fn open_files(shared: &Arc<Shared>, files: Vec<PathBuf>) {
    let Some(path) = files.into_iter().next() else { return };
    let shared = Arc::clone(shared);
    tauri::async_runtime::spawn_blocking(move || {
        match imports::read(&path, shared.next_file()) {
            Ok(import) => shared.change(|model| model.set_import(Some(import))),
            Err(error) => shared.change(|model| model.set_notice(Some(error))),
        };
    });
}

/// Saves the file that is looked at, under this name.
pub async fn import_save(shared: Arc<Shared>, name: String) {
    let Some(import) = shared.read(|model| model.import().cloned()) else { return };
    let name_in_file = import.view.preview.name;
    let other_name = Some(name.clone()).filter(|name| *name != name_in_file);
    let request = Request::Import { data: import.data, name: other_name, system: false };
    match shared.request(request).await {
        Ok(_) => {
            shared.change(|model| model.set_import(None));
            link::list(Arc::clone(&shared)).await;
            shared.change(|model| model.select(&name));
        }
        Err(error) => shared.change(|model| {
            model.set_import(None);
            model.set_notice(Some(error));
        }),
    }
}

/// What the keyring holds for a profile; a keyring that does not open is like an empty one.
pub async fn stored(profile: &str) -> Option<Credentials> {
    keyring::load(profile).await.unwrap_or_else(|error| {
        tracing::warn!(%error, profile, "the keyring gives nothing");
        None
    })
}

/// True when these credentials have every field that is asked for.
#[must_use]
pub fn answers(credentials: &Credentials, fields: &[CredentialField]) -> bool {
    let has = |secret: &Option<Secret>| secret.as_ref().is_some_and(|secret| !secret.is_empty());
    fields.iter().all(|field| match field {
        CredentialField::User => credentials.user.as_ref().is_some_and(|user| !user.is_empty()),
        CredentialField::Password => has(&credentials.password),
        CredentialField::Psk => has(&credentials.psk),
        CredentialField::Pkcs12Password => has(&credentials.pkcs12_password),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_credentials_answer_only_when_every_field_is_there() {
        let stored = Credentials { password: Some(Secret::from("x")), ..Credentials::default() };
        assert!(answers(&stored, &[CredentialField::Password]));
        assert!(!answers(&stored, &[CredentialField::User, CredentialField::Password]));
        assert!(!answers(&Credentials { psk: Some(Secret::from("")), ..stored }, &[CredentialField::Psk]));
    }
}
