//! The system bus: connected when first needed, again when the connection broke.

use std::time::Duration;

use tokio::sync::Mutex;
use zbus::{Connection, OwnedVariant, Variant};

/// A service that does not answer within this time is treated as absent: the user is waiting for the tunnel.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The system bus.
#[derive(Debug)]
pub(in crate::linux) struct Bus {
    address: Option<String>,
    connection: Mutex<Option<Connection>>,
}

impl Bus {
    /// The bus at that address, or the usual one.
    pub(in crate::linux) fn new(address: Option<String>) -> Self {
        Bus { address, connection: Mutex::new(None) }
    }

    pub(in crate::linux) async fn connect(&self) -> zbus::Result<Connection> {
        let mut slot = self.connection.lock().await;
        if let Some(connection) = slot.as_ref() {
            // A bus that was restarted leaves a dead connection behind: this asks the bus itself.
            let alive = zbus::fdo::DBusProxy::new(connection).await?.get_id().await.is_ok();
            if alive {
                return Ok(connection.clone());
            }
            *slot = None;
        }
        let builder = match &self.address {
            Some(address) => zbus::connection::Builder::address(address.as_str()),
            None => zbus::connection::Builder::system(),
        };
        let connecting = builder.method_timeout(TIMEOUT).build();
        let connection = match tokio::time::timeout(TIMEOUT, connecting).await {
            Ok(connected) => connected?,
            Err(_) => return Err(zbus::Error::Failure("the system bus does not answer".into())),
        };
        *slot = Some(connection.clone());
        Ok(connection)
    }

    /// Whether a service runs or would be started when called.
    pub(super) async fn has(&self, service: &str) -> bool {
        match self.ask_for(service).await {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(service, %error, "no answer from the system bus");
                false
            }
        }
    }

    async fn ask_for(&self, service: &str) -> zbus::Result<bool> {
        let connection = self.connect().await?;
        let bus = zbus::fdo::DBusProxy::new(&connection).await?;
        if bus.name_has_owner(service.try_into()?).await? {
            return Ok(true);
        }
        Ok(bus.list_activatable_names().await?.iter().any(|name| name.as_str() == service))
    }

    /// Calls a method and drops what it returns.
    pub(super) async fn call<B>(&self, at: &Place<'_>, method: &str, body: &B) -> zbus::Result<()>
    where
        B: serde::Serialize + zbus::DynamicType,
    {
        let connection = self.connect().await?;
        connection.call_method(Some(at.service), at.path, Some(at.interface), method, body).await?;
        Ok(())
    }

    /// Reads a property.
    pub(super) async fn get(&self, at: &Place<'_>, property: &str) -> zbus::Result<OwnedVariant> {
        let connection = self.connect().await?;
        let properties = Some("org.freedesktop.DBus.Properties");
        let body = (at.interface, property);
        let answer = connection.call_method(Some(at.service), at.path, properties, "Get", &body).await?;
        answer.body().deserialize()
    }

    /// Writes a property.
    pub(super) async fn set(&self, at: &Place<'_>, property: &str, value: Variant<'_>) -> zbus::Result<()> {
        let connection = self.connect().await?;
        let properties = Some("org.freedesktop.DBus.Properties");
        let body = (at.interface, property, value);
        connection.call_method(Some(at.service), at.path, properties, "Set", &body).await?;
        Ok(())
    }
}

/// An interface of an object of a service.
pub(super) struct Place<'a> {
    pub service: &'a str,
    pub path: &'a str,
    pub interface: &'a str,
}
