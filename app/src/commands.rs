//! What the window's pages may ask of the program. Short: the work is in [`deeds`].

use std::collections::HashMap;
use std::sync::Arc;

use ropewalk_ipc::{CredentialField, Credentials, Policy, Secret};
use serde::Deserialize;
use tauri::State;

use crate::shared::Shared;
use crate::texts::Texts;
use crate::view::AppView;
use crate::{clock, deeds, link};

type Program<'a> = State<'a, Arc<Shared>>;

/// What the window shows.
#[tauri::command]
pub fn view(program: Program<'_>) -> AppView {
    clock::mark("the pages ask for the view");
    program.read(crate::model::Model::view)
}

/// The pages have painted their first state.
#[tauri::command]
pub fn first_frame() {
    tracing::info!(milliseconds = clock::milliseconds(), "first frame");
}

/// The tray's texts in the window's language.
#[tauri::command]
pub fn set_texts(program: Program<'_>, texts: HashMap<String, String>) {
    program.set_texts(Texts::new(texts));
}

/// Looks at another profile.
#[tauri::command]
pub fn select(program: Program<'_>, name: String) {
    program.change(|model| model.select(&name));
}

/// Connects a profile.
#[tauri::command]
pub async fn connect(program: Program<'_>, name: String) -> Result<(), ()> {
    deeds::connect(Arc::clone(&program), name).await;
    Ok(())
}

/// Ends the connection shown.
#[tauri::command]
pub async fn disconnect(program: Program<'_>) -> Result<(), ()> {
    deeds::disconnect(Arc::clone(&program)).await;
    Ok(())
}

/// Uses several paths in another way.
#[tauri::command]
pub async fn set_policy(program: Program<'_>, policy: Policy) -> Result<(), ()> {
    deeds::set_policy(Arc::clone(&program), policy).await;
    Ok(())
}

/// Removes a profile.
#[tauri::command]
pub async fn remove(program: Program<'_>, name: String) -> Result<(), ()> {
    deeds::remove(Arc::clone(&program), name).await;
    Ok(())
}

/// Forgets a profile's stored password.
#[tauri::command]
pub async fn forget(program: Program<'_>, name: String) -> Result<(), ()> {
    deeds::forget(Arc::clone(&program), name).await;
    Ok(())
}

/// Lets the user choose a profile file.
#[tauri::command]
pub fn import_pick(program: Program<'_>) {
    deeds::pick_file(&program);
}

/// Saves the profile that is looked at.
#[tauri::command]
pub async fn import_save(program: Program<'_>, name: String) -> Result<(), ()> {
    deeds::import_save(Arc::clone(&program), name).await;
    Ok(())
}

/// Puts the profile that is looked at away.
#[tauri::command]
pub fn import_cancel(program: Program<'_>) {
    program.change(|model| model.set_import(None));
}

/// What the user typed: for each field asked for, its value.
#[derive(Deserialize)]
pub struct Typed {
    field: CredentialField,
    value: String,
}

/// The user's answer to a question for credentials.
#[tauri::command]
pub async fn answer(program: Program<'_>, id: u64, values: Vec<Typed>, remember: bool) -> Result<(), ()> {
    let mut credentials = Credentials::default();
    for Typed { field, value } in values {
        match field {
            CredentialField::User => credentials.user = Some(value),
            CredentialField::Password => credentials.password = Some(Secret::new(value)),
            CredentialField::Psk => credentials.psk = Some(Secret::new(value)),
            CredentialField::Pkcs12Password => credentials.pkcs12_password = Some(Secret::new(value)),
        }
    }
    deeds::answer(Arc::clone(&program), id, credentials, remember).await;
    Ok(())
}

/// The user does not answer.
#[tauri::command]
pub async fn answer_cancel(program: Program<'_>, id: u64) -> Result<(), ()> {
    deeds::answer_cancel(Arc::clone(&program), id).await;
    Ok(())
}

/// Puts a notice away.
#[tauri::command]
pub fn dismiss(program: Program<'_>) {
    program.change(|model| model.set_notice(None));
}

/// The window is in front again: somebody may have changed the profiles meanwhile.
#[tauri::command]
pub async fn refresh(program: Program<'_>) -> Result<(), ()> {
    link::list(Arc::clone(&program)).await;
    Ok(())
}
