//! What all parts of the program share: the model behind a lock, the way to the helper, and handing on what changed.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use ropewalk_ipc::{Client, ClientError, ErrorCode, ErrorInfo, Reply, Request};
use tauri::{AppHandle, Emitter as _};

use crate::memory::Memory;
use crate::model::Model;
use crate::texts::Texts;
use crate::tray;
use crate::view::AppView;

/// One per program.
pub struct Shared {
    /// The way to the window and the tray.
    pub app: AppHandle,
    model: Mutex<Model>,
    client: Mutex<Option<Client>>,
    texts: Mutex<Texts>,
    told: Mutex<Option<AppView>>,
    memory: Option<PathBuf>,
    kept: Mutex<Memory>,
    files: AtomicU32,
}

impl Shared {
    /// With what the last run left in the file `memory`.
    #[must_use]
    pub fn new(app: AppHandle, memory: Option<PathBuf>) -> Self {
        let kept = memory.as_deref().map(Memory::load).unwrap_or_default();
        Self {
            app,
            model: Mutex::new(Model::new(kept.selected.clone(), kept.remembered.clone())),
            client: Mutex::new(None),
            texts: Mutex::new(Texts::default()),
            told: Mutex::new(None),
            memory,
            kept: Mutex::new(kept),
            files: AtomicU32::new(0),
        }
    }

    /// Looks at the model.
    pub fn read<T>(&self, look: impl FnOnce(&Model) -> T) -> T {
        look(&self.model.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the model and hands on what follows.
    pub fn change<T>(&self, change: impl FnOnce(&mut Model) -> T) -> T {
        let result = change(&mut self.model.lock().unwrap_or_else(PoisonError::into_inner));
        self.publish();
        result
    }

    /// Hands the view to the pages and the tray, if it is not what they have.
    pub fn publish(&self) {
        let (view, to_keep) = self.read(|model| (model.view(), model.to_keep()));
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.as_ref() != Some(&view) {
            if let Err(error) = self.app.emit("view", &view) {
                tracing::warn!(%error, "the window was not told");
            }
            tray::show(&self.app, &view, &self.texts());
            *told = Some(view);
        }
        drop(told);
        self.keep(Memory { selected: to_keep.0, remembered: to_keep.1 });
    }

    /// The tray's texts in the window's language.
    #[must_use]
    pub fn texts(&self) -> Texts {
        self.texts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The window speaks another language now.
    pub fn set_texts(&self, texts: Texts) {
        *self.texts.lock().unwrap_or_else(PoisonError::into_inner) = texts;
        let view = self.read(Model::view);
        tray::show(&self.app, &view, &self.texts());
    }

    /// The way to the helper, while there is one.
    pub fn set_client(&self, client: Option<Client>) {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client;
    }

    /// The way to the helper.
    ///
    /// # Errors
    /// When there is none at the moment.
    pub fn client(&self) -> Result<Client, ErrorInfo> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(|| {
            ErrorInfo::new(
                ErrorCode::HelperUnreachable,
                "the Ropewalk helper is not running",
                "start it with `systemctl start ropewalk-helper`",
            )
        })
    }

    /// Asks the helper.
    ///
    /// # Errors
    /// What it answers, or that it cannot be reached.
    pub async fn request(&self, request: Request) -> Result<Reply, ErrorInfo> {
        self.client()?.request(request).await.map_err(|error: ClientError| error.to_info())
    }

    /// A number for a file that is looked at.
    pub fn next_file(&self) -> u32 {
        self.files.fetch_add(1, Ordering::Relaxed)
    }

    fn keep(&self, memory: Memory) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if *kept == memory {
            return;
        }
        if let Some(path) = &self.memory
            && let Err(error) = memory.save(path)
        {
            tracing::warn!(%error, path = %path.display(), "cannot keep the chosen profile");
        }
        *kept = memory;
    }
}
