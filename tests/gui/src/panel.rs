//! The tray's other end: a panel on the session bus (`org.kde.StatusNotifierWatcher`) that items register with, and a hand
//! that reads an item and its menu (`com.canonical.dbusmenu`) and clicks in it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, OwnedObjectPath, OwnedVariant, Proxy, Variant};

use crate::{PATIENCE, eventually};

const WATCHER: &str = "org.kde.StatusNotifierWatcher";
const ITEM: &str = "org.kde.StatusNotifierItem";
const MENU: &str = "com.canonical.dbusmenu";

type Items = Arc<Mutex<Vec<String>>>;

/// A panel that shows no pixels.
#[derive(Debug)]
pub struct Panel {
    bus: Connection,
    items: Items,
}

/// What a tray item shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrayItem {
    /// The text beside the icon.
    pub label: String,
    /// The icon's file.
    pub icon: Vec<u8>,
    /// The menu, without its separators.
    pub menu: Vec<MenuEntry>,
}

/// One entry of the menu.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MenuEntry {
    id: i32,
    /// Its text, without the mark of a shortcut.
    pub label: String,
    /// False when it is greyed out.
    pub enabled: bool,
    /// True when it has a tick.
    pub ticked: bool,
}

impl TrayItem {
    /// The menu's entry with this text.
    #[must_use]
    pub fn entry(&self, label: &str) -> Option<&MenuEntry> {
        self.menu.iter().find(|entry| entry.label == label)
    }
}

struct Watcher {
    items: Items,
}

#[zbus::interface(name = "org.kde.StatusNotifierWatcher")]
impl Watcher {
    async fn register_status_notifier_item(
        &self,
        service: &str,
        #[zbus(header)] header: Header<'_>,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> zbus::fdo::Result<()> {
        // libayatana-appindicator gives an object's path and means itself; others give a bus name.
        let sender = header.sender().map(ToString::to_string).unwrap_or_default();
        let item = if service.starts_with('/') {
            format!("{sender}{service}")
        } else {
            format!("{service}/StatusNotifierItem")
        };
        self.items.lock().unwrap_or_else(PoisonError::into_inner).push(item.clone());
        Self::status_notifier_item_registered(&emitter, &item).await?;
        Ok(())
    }

    fn register_status_notifier_host(&self, _service: &str) {}

    #[zbus(signal)]
    async fn status_notifier_item_registered(emitter: &SignalEmitter<'_>, item: &str) -> zbus::Result<()>;

    #[zbus(property)]
    fn registered_status_notifier_items(&self) -> Vec<String> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    #[zbus(property)]
    fn is_status_notifier_host_registered(&self) -> bool {
        true
    }

    #[zbus(property)]
    fn protocol_version(&self) -> i32 {
        0
    }
}

impl Panel {
    /// Joins the bus as its panel. Before the window starts, as on a real desktop.
    ///
    /// # Errors
    /// When the bus refuses.
    pub async fn start(bus_address: &str) -> Result<Self> {
        let items = Items::default();
        let bus = zbus::connection::Builder::address(bus_address)
            .serve_at("/StatusNotifierWatcher", Watcher { items: Arc::clone(&items) })
            .name(WATCHER)
            .build()
            .await
            .context("join the session bus as its panel")?;
        Ok(Self { bus, items })
    }

    /// Leaves the bus: from now on the desktop shows no tray icons.
    ///
    /// # Errors
    /// When the bus is gone.
    pub async fn leave(&self) -> Result<()> {
        self.bus.release_name(WATCHER).await?;
        Ok(())
    }

    /// Waits for the tray item to be as wanted, and gives it.
    ///
    /// # Errors
    /// When it does not come to be so.
    pub async fn wait(&self, what: &str, wanted: impl Fn(&TrayItem) -> bool) -> Result<TrayItem> {
        let mut last = None;
        let found = eventually(what, PATIENCE, async || {
            let item = self.item().await?;
            last = Some(item.clone());
            Ok(Some(item).filter(&wanted))
        })
        .await;
        found.with_context(|| match &last {
            Some(item) => format!("the tray shows {:?} and the menu {:?}", item.label, item.menu),
            None => "there is no tray item".to_owned(),
        })
    }

    /// The tray item.
    ///
    /// # Errors
    /// When none is registered, or it cannot be read.
    pub async fn item(&self) -> Result<TrayItem> {
        let (name, path) = self.address()?;
        let proxy = Proxy::new(&self.bus, name.as_str(), path.as_str(), ITEM).await?;
        let label: String = proxy.get_property("XAyatanaLabel").await?;
        let icon_name: String = proxy.get_property("IconName").await?;
        let icon = std::fs::read(&icon_name).with_context(|| format!("the icon {icon_name}"))?;
        Ok(TrayItem { label, icon, menu: self.menu(&proxy, &name).await? })
    }

    /// Chooses an entry of the menu by its text.
    ///
    /// # Errors
    /// When there is no such entry, or it is greyed out.
    pub async fn choose(&self, label: &str) -> Result<()> {
        let what = format!("an entry {label:?} that can be chosen");
        let item = self.wait(&what, |item| item.entry(label).is_some_and(|entry| entry.enabled)).await?;
        let Some(entry) = item.entry(label) else { bail!("no entry {label:?}") };
        let (name, path) = self.address()?;
        let proxy = Proxy::new(&self.bus, name.as_str(), path.as_str(), ITEM).await?;
        let menu = self.menu_proxy(&proxy, &name).await?;
        menu.call_method("Event", &(entry.id, "clicked", Variant::from(0_i32), 0_u32)).await?;
        Ok(())
    }

    fn address(&self) -> Result<(String, String)> {
        let items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        let item = items.last().context("no tray item is registered")?;
        let at = item.find('/').context("an item without a path")?;
        let (name, path) = item.split_at(at);
        Ok((name.to_owned(), path.to_owned()))
    }

    async fn menu_proxy(&self, item: &Proxy<'_>, name: &str) -> Result<Proxy<'static>> {
        let path: OwnedObjectPath = item.get_property("Menu").await?;
        Ok(Proxy::new(&self.bus, name.to_owned(), path, MENU).await?)
    }

    async fn menu(&self, item: &Proxy<'_>, name: &str) -> Result<Vec<MenuEntry>> {
        let menu = self.menu_proxy(item, name).await?;
        let nothing: Vec<String> = Vec::new();
        let reply = menu.call_method("GetLayout", &(0_i32, -1_i32, nothing)).await?;
        let (_revision, (_root, _properties, children)): (u32, Layout) = reply.body().deserialize()?;
        let mut entries = Vec::new();
        for child in children {
            let (id, properties, _) = Layout::try_from(child).context("a menu entry")?;
            let text = |key: &str| properties.get(key).and_then(|value| <&str>::try_from(value).ok());
            let Some(label) = text("label") else { continue };
            entries.push(MenuEntry {
                id,
                label: label.replace('_', ""),
                enabled: properties
                    .get("enabled")
                    .and_then(|value| bool::try_from(value).ok())
                    .unwrap_or(true),
                ticked: properties.get("toggle-state").and_then(|value| i32::try_from(value).ok()) == Some(1),
            });
        }
        Ok(entries)
    }
}

type Layout = (i32, HashMap<String, OwnedVariant>, Vec<OwnedVariant>);
