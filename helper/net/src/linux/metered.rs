//! Which interfaces cost by the amount: NetworkManager knows, from the user's setting or by its own guess. Where there is no
//! NetworkManager, none does.

use zbus::{OwnedObjectPath, OwnedVariant};

use super::dns::Bus;

const SERVICE: &str = "org.freedesktop.NetworkManager";
const ROOT: &str = "/org/freedesktop/NetworkManager";
/// `NM_METERED_YES` and `NM_METERED_GUESS_YES`.
const METERED: [u32; 2] = [1, 3];

/// Those of these interfaces that are metered.
pub(super) async fn among(bus: &Bus, interfaces: &[String]) -> Vec<String> {
    let mut metered = Vec::new();
    for interface in interfaces {
        match of(bus, interface).await {
            Ok(true) => metered.push(interface.clone()),
            Ok(false) => {}
            // Nobody to ask, or an interface that NetworkManager has nothing to do with.
            Err(error) => tracing::debug!(interface, %error, "not known whether this interface is metered"),
        }
    }
    metered
}

async fn of(bus: &Bus, interface: &str) -> zbus::Result<bool> {
    let connection = bus.connect().await?;
    let device = connection.call_method(Some(SERVICE), ROOT, Some(SERVICE), "GetDeviceByIpIface", &interface);
    let device: OwnedObjectPath = device.await?.body().deserialize()?;
    let wanted = ("org.freedesktop.NetworkManager.Device", "Metered");
    let properties = Some("org.freedesktop.DBus.Properties");
    let answer = connection.call_method(Some(SERVICE), device.as_str(), properties, "Get", &wanted).await?;
    let value: OwnedVariant = answer.body().deserialize()?;
    Ok(u32::try_from(value).is_ok_and(|value| METERED.contains(&value)))
}
